import datetime as dt
import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.sources.delivery import SUFFIXES, Draft, SourceError, inbox_name, sweep

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
TRICKS = [
    "../../../etc/passwd.csv", "/etc/cron.d/x.csv", "..\\..\\x.csv", "a\nb.csv", "$(reboot).csv", "`id`;rm -rf ~ .csv", "x" * 300 + ".csv",
    ".csv", "...csv", ".hidden.csv", "-rf.csv", "a\x00b.csv", "données 数据.csv", "\u202efdp.csv", "\udcff.csv", "CON.CSV", "~.csv", "%2e%2e%2fx.csv",
]  # fmt: skip


@pytest.mark.parametrize("name", TRICKS)
def test_i_13_a_hostile_name_becomes_a_harmless_one(name, tmp_path: Path):
    """I-13: whatever a thing is called elsewhere, its file stands in the inbox itself, visible, under plain letters."""
    with Draft(tmp_path / "inbox") as draft:
        draft.write(b"x\n1\n")
        done = draft.publish(inbox_name(name, draft.digest))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9a-f]{12}\.csv", done.name)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [done.name]
    assert (tmp_path / "inbox" / done.name).read_bytes() == b"x\n1\n"


@given(st.text(), st.sampled_from(SUFFIXES))
def test_i_13_no_name_leaves_the_inbox(name, suffix):
    """I-13: any text at all, as long as it ends like a file that lands, gives one short path part that is not hidden."""
    made = inbox_name(name + suffix, "0123456789abcdef")
    assert Path(made).name == made
    assert made.endswith(f"-0123456789ab{suffix}")
    assert re.fullmatch(r"[A-Za-z0-9][\x21-\x7e]*", made)
    assert len(made) + 17 <= 255


@pytest.mark.parametrize("name", ["", "x", "x.xlsx", "x.csv/", "csv", "x.csv.gz", "x.csv\n"])
def test_a_name_that_cannot_land_is_refused(name):
    """The reason lists what can."""
    with pytest.raises(SourceError, match=r"none of \.csv, .*\.parquet"):
        inbox_name(name, "00")


def test_i_01_a_draft_is_seen_whole_or_not_at_all(tmp_path: Path):
    """I-01: before it is published only a hidden file is there; given up, nothing is."""
    content = os.urandom(100_000)
    with Draft(tmp_path) as draft:
        draft.write(content[:50_000])
        assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
        draft.write(content[50_000:])
        assert draft.digest == hashlib.sha256(content).hexdigest()
        done = draft.publish("a.csv")
    assert (done.name, done.bytes) == ("a.csv", 100_000)
    assert (tmp_path / "a.csv").read_bytes() == content
    with Draft(tmp_path) as draft:
        draft.write(content)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_the_file_is_on_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """S-01: content is synced, then renamed, then the folder is synced: a power cut at any point leaves no half file."""
    order: list[str] = []
    sync, rename = os.fsync, Path.rename
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (
            order.append("sync " + ("folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "file")),
            sync(handle),
        ),
    )
    monkeypatch.setattr(Path, "rename", lambda path, to: (order.append("rename"), rename(path, to)))
    with Draft(tmp_path) as draft:
        draft.write(b"x")
        draft.publish("a.csv")
    assert order == ["sync file", "rename", "sync folder"]


def test_drafts_of_killed_processes_are_swept(tmp_path: Path):
    """What nobody wrote to for a day goes; a fresh draft and everything else stays."""
    for name, age in ((".old.part", 90_000), (".new.part", 60), ("old.csv", 90_000), (".other", 90_000)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (NOW.timestamp() - age, NOW.timestamp() - age))
    sweep(tmp_path, NOW)
    sweep(tmp_path / "nowhere", NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.part", ".other", "old.csv"]
