"""Objects at a URL, each version once; what goes wrong with one holds up no other."""

import datetime as dt
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from tasks.sources import listing as module
from tasks.sources.delivery import Delivered, Left, Mark, SourceError, UnreachableError
from tasks.sources.listing import Listing

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
THEN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()


class Drop:
    """A folder that others write to, an inbox, and a source between them that remembers its mark."""

    def __init__(self, home: Path, pattern="*.csv", **config):
        self.there, self.inbox, self.mark = home / "there", home / "inbox", None
        self.there.mkdir()
        self.source = Listing(name="drop", url=f"file://{self.there}/{pattern}", **config)

    def put(self, name, content="x\n1\n", at=THEN):
        """Writes an object of a certain time."""
        path = self.there / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        os.utime(path, (at, at))
        return path

    def steps(self, now=NOW):
        """The steps of a fetch, keeping each mark as the task does."""
        for step in self.source.fetch(self.mark, self.inbox, now):
            if isinstance(step, Mark):
                self.mark = step.text
            else:
                yield step

    def fetch(self, now=NOW):
        """What was delivered, as content by name."""
        return {
            step.name: (self.inbox / step.name).read_text() for step in self.steps(now) if isinstance(step, Delivered)
        }


@pytest.fixture
def drop(tmp_path):
    return Drop(tmp_path)


def test_each_version_is_delivered_once(drop):
    """New objects come, known ones do not, and nothing new is nothing; the inbox holds copies under names of their own."""
    drop.put("a.csv", "x\n1\n")
    drop.put("b.csv", "x\n2\n")
    assert sorted(drop.fetch().values()) == ["x\n1\n", "x\n2\n"]
    assert drop.fetch() == {}
    drop.put("c.csv", "x\n3\n", at=THEN + 60)
    (name,) = drop.fetch()
    assert name.startswith("c-")
    assert len(list(drop.inbox.iterdir())) == 3


@pytest.mark.parametrize("age", [0, -1, -86_400 * 365])
@pytest.mark.parametrize("name", ["0-older.csv", "z-newer.csv"])
def test_a_late_object_is_not_left_out(drop, name, age):
    """An object that appears with an older name, the same time or a time of long ago is as new as any."""
    drop.put("m.csv")
    drop.fetch()
    drop.put(name, "x\n9\n", at=THEN + age)
    assert list(drop.fetch().values()) == ["x\n9\n"]
    assert drop.fetch() == {}


def test_i_04_an_overwritten_object_comes_again_under_another_name(drop):
    """I-04: other bytes under the same name, even of the same size and time, are delivered beside the old ones."""
    drop.put("a.csv", "x\n1\n")
    first = drop.fetch()
    drop.put("a.csv", "x\n2\n")
    second = drop.fetch()
    assert (list(first.values()), list(second.values())) == (["x\n1\n"], ["x\n2\n"])
    assert first.keys() != second.keys()


def test_same_names_in_two_folders_do_not_meet(tmp_path):
    """Daily folders with a file of the same name each: both stand in the inbox."""
    drop = Drop(tmp_path, "**/*.csv")
    drop.put("2026-01/rows.csv", "x\n1\n")
    drop.put("2026-02/rows.csv", "x\n2\n")
    assert sorted(drop.fetch().values()) == ["x\n1\n", "x\n2\n"]


def test_the_order_of_a_listing_does_not_matter(drop, monkeypatch):
    """A thousand objects listed in any order come oldest first, all of them, and then none."""
    for number in range(1000):
        drop.put(f"{number * 7919 % 1000:04}.csv", f"x\n{number}\n", at=THEN + number // 10)
    glob = LocalFileSystem.glob

    def shuffled(files, path, **how):
        return dict(
            sorted(glob(files, path, **how).items(), key=lambda item: hashlib.sha256(item[0].encode()).digest())
        )

    monkeypatch.setattr(LocalFileSystem, "glob", shuffled)
    contents = [int(content.split()[1]) for content in drop.fetch().values()]
    assert sorted(contents) == list(range(1000))
    assert [content // 10 for content in contents] == sorted(content // 10 for content in contents)
    assert drop.fetch() == {}


def test_a_fetch_has_a_bound_and_the_next_one_goes_on(tmp_path):
    """With at most three files a fetch, seven objects take three fetches."""
    drop = Drop(tmp_path, at_most=3)
    for number in range(7):
        drop.put(f"{number}.csv", f"x\n{number}\n", at=THEN + number)
    assert [len(drop.fetch()) for _ in range(4)] == [3, 3, 1, 0]


def test_a_fresh_object_waits_until_it_has_settled(tmp_path):
    """It may still be growing; a time far ahead of our clock is no reason to wait for ever."""
    drop = Drop(tmp_path, settled_seconds=60)
    drop.put("young.csv", "x\n1\n", at=NOW.timestamp() - 59)
    drop.put("ahead.csv", "x\n2\n", at=NOW.timestamp() + 9999)
    assert list(drop.fetch().values()) == ["x\n2\n"]
    assert list(drop.fetch(NOW + dt.timedelta(seconds=2)).values()) == ["x\n1\n"]


def test_i_25_an_object_that_vanishes_holds_up_no_other(drop):
    """I-25: gone between listing and reading it is named and needs nobody; the next ones come."""
    for number in range(3):
        drop.put(f"{number}.csv", f"x\n{number}\n", at=THEN + number)
    steps = drop.steps()
    first = next(steps)
    (drop.there / "1.csv").unlink()
    gone, last = steps
    assert isinstance(first, Delivered)
    assert isinstance(gone, Left)
    assert ("1.csv" in gone.what, gone.reason, gone.fault) == (True, "is gone since it was listed", False)
    assert (drop.inbox / last.name).read_text() == "x\n2\n"
    assert len(list(drop.inbox.iterdir())) == 2


def test_i_02_a_cut_download_is_not_delivered_and_tried_again(drop, monkeypatch):
    """I-02: fewer bytes than were listed leave nothing in the inbox, are named, and come whole at the next fetch."""
    drop.put("a.csv", "x\n1\n2\n3\n")
    drop.put("b.csv", "x\n4\n", at=THEN + 1)
    pieces = module._pieces
    with monkeypatch.context() as cut:
        cut.setattr(module, "_pieces", lambda files, path: (piece[:4] for piece in pieces(files, path)))
        left, delivered = drop.steps()
    assert left.reason == "came with 4 bytes instead of the listed 8"
    assert left.fault
    assert [path.name for path in drop.inbox.iterdir()] == [delivered.name]
    assert list(drop.fetch().values()) == ["x\n1\n2\n3\n"]


def test_an_object_that_cannot_be_read_is_named_without_its_library_s_words(drop, monkeypatch):
    """O-20: a library's error may hold a signed URL; its kind is said, and the others come."""
    drop.put("a.csv")
    drop.put("b.csv", at=THEN + 1)
    pieces = module._pieces

    def broken(files, path):
        if path.endswith("a.csv"):
            raise RuntimeError("https://store/a.csv?signature=CANARY")
        yield from pieces(files, path)

    with monkeypatch.context() as trouble:
        trouble.setattr(module, "_pieces", broken)
        left, delivered = drop.steps()
    assert left.reason == "cannot be read: RuntimeError"
    assert delivered.name.startswith("b-")
    assert len(drop.fetch()) == 1


def test_a_full_disk_of_ours_is_no_fault_of_the_object(drop, monkeypatch):
    """V-10: what cannot be written is raised, nothing half is left, and the next fetch delivers."""
    drop.put("a.csv")

    def full(_draft, _piece):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(module.Draft, "write", full)
        with pytest.raises(OSError, match="No space"):
            drop.fetch()
    assert list(drop.inbox.iterdir()) == []
    assert len(drop.fetch()) == 1


def test_s_01_a_kill_between_delivery_and_mark_repeats_the_file_under_its_name(drop):
    """S-01: a process that dies by SIGKILL right after a delivery: the same file comes again, the others too, none is left out."""
    for number in range(3):
        drop.put(f"{number}.csv", f"x\n{number}\n", at=THEN + number)
    code = (
        "import os, sys, datetime as dt, pathlib\n"
        "from tasks.sources.listing import Listing\n"
        "for step in Listing(name='drop', url=sys.argv[1]).fetch(None, pathlib.Path(sys.argv[2]), dt.datetime(2030, 1, 1, tzinfo=dt.UTC)):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, drop.source.url, str(drop.inbox)], check=False)
    assert died.returncode == -9
    (before,) = (path.name for path in drop.inbox.iterdir())
    delivered = drop.fetch()
    assert before in delivered
    assert sorted(delivered.values()) == ["x\n0\n", "x\n1\n", "x\n2\n"]


def test_i_13_only_regular_files_are_read(tmp_path):
    """I-13: links, linked folders, pipes and files of other kinds are never opened, and do not hang a fetch."""
    drop = Drop(tmp_path, "**/*.csv")
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "secret.csv").write_text("CANARY")
    (drop.there / "link.csv").symlink_to(secret / "secret.csv")
    (drop.there / "folder").symlink_to(secret)
    (drop.there / "folder.csv").mkdir()
    os.mkfifo(drop.there / "pipe.csv")
    drop.put("good.csv")
    assert list(drop.fetch().values()) == ["x\n1\n"]


@pytest.mark.parametrize("trick", ["link", "pipe"])
def test_i_13_a_file_that_turns_into_something_else_is_not_read(drop, tmp_path, trick):
    """I-13: replaced by a link or a pipe between listing and reading it is refused, at once."""
    (tmp_path / "secret.csv").write_text("CANARY")
    drop.put("a.csv")
    victim = drop.put("b.csv", at=THEN + 1)
    steps = drop.steps()
    next(steps)
    victim.unlink()
    os.mkfifo(victim) if trick == "pipe" else victim.symlink_to(tmp_path / "secret.csv")
    (left,) = steps
    assert left.reason.startswith("cannot be read: OSError: ")
    assert len(list(drop.inbox.iterdir())) == 1


@pytest.mark.parametrize("name", ["a\nb.csv", "$(reboot).csv", "ünïcode ☃.CSV", "-rf.csv", "x" * 251 + ".csv"])
def test_i_13_an_odd_name_is_delivered_all_the_same(drop, name):
    """I-13: the object comes, under a harmless name."""
    drop.put(name, "x\n7\n")
    drop.source = drop.source.model_copy(update={"url": f"file://{drop.there}/*"})
    assert list(drop.fetch().values()) == ["x\n7\n"]


def test_objects_of_other_kinds_are_counted_once(tmp_path):
    """A listing that also meets other files says how many it left, in one line that is no fault."""
    drop = Drop(tmp_path, "*")
    drop.put("a.csv")
    drop.put("b.xlsx")
    drop.put("_SUCCESS")
    left, delivered = drop.steps()
    assert (left.what, left.fault) == ("2 objects", False)
    assert delivered.name.startswith("a-")


def test_a_url_that_ends_in_a_folder_means_what_lies_in_it(tmp_path):
    """No wildcard is needed, and a single file can be named."""
    drop = Drop(tmp_path, "")
    drop.put("a.csv")
    drop.put("deeper/b.csv")
    assert [name[:2] for name in drop.fetch()] == ["a-"]
    drop.source = Listing(name="drop", url=f"file://{drop.there}/deeper/b.csv")
    assert [name[:2] for name in drop.fetch()] == ["b-"]


def test_i_25_a_folder_that_is_away_is_an_error_and_forgets_nothing(drop):
    """I-25: unmounted, the source says so; mounted again, only what is new comes."""
    drop.put("a.csv")
    drop.fetch()
    away = drop.there.rename(drop.there.with_name("away"))
    with pytest.raises(UnreachableError, match="there is no such folder"):
        drop.fetch()
    away.rename(drop.there)
    drop.put("b.csv", at=THEN + 1)
    assert [name[:2] for name in drop.fetch()] == ["b-"]


def test_i_10_a_big_object_is_copied_in_pieces(drop, monkeypatch):
    """I-10: no piece that is in memory is bigger than a mebibyte."""
    path = drop.put("big.csv")
    os.truncate(path, 50 << 20)
    os.utime(path, (THEN, THEN))
    sizes, write = [], module.Draft.write
    monkeypatch.setattr(module.Draft, "write", lambda draft, piece: (sizes.append(len(piece)), write(draft, piece)))
    (delivered,) = drop.steps()
    assert delivered.bytes == 50 << 20
    assert max(sizes) <= 1 << 20


def test_any_file_system_of_fsspec_will_do(tmp_path):
    """A listing in memory, which tells other facts about its objects, works as one on a disk."""
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/day/a.csv", b"x\n1\n")
    source = Listing(name="m", url="memory://bucket/day/*.csv")
    delivered, mark = source.fetch(None, tmp_path, NOW)
    assert isinstance(delivered, Delivered)
    assert isinstance(mark, Mark)
    assert (tmp_path / delivered.name).read_bytes() == b"x\n1\n"
    assert list(source.fetch(mark.text, tmp_path, NOW)) == []
    files.rm("/bucket", recursive=True)


def test_what_is_no_longer_listed_leaves_the_mark(drop):
    """The mark does not grow for ever."""
    drop.put("a.csv")
    drop.put("b.csv")
    drop.fetch()
    long = drop.mark
    for name in ("a.csv", "b.csv"):
        (drop.there / name).unlink()
    drop.put("c.csv")
    drop.fetch()
    assert len(drop.mark) < len(long)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"url": "/drop/*.csv"}, "starts with its scheme"),
        ({"url": "ftp://user:CANARY@host/*.csv"}, "user or a password"),
        ({"url": "s3://b/*.csv", "options": {"secret": "CANARY"}}, "'secret' is a secret"),
        ({"url": "s3://b/*.csv", "options": {"key": "CANARY"}}, "'key' is a secret"),
        ({"url": "az://b/*.csv", "options": {"sas_token": "CANARY"}}, "'sas_token' is a secret"),
        ({"url": "s3://b/*.csv", "name": "No"}, "should match pattern"),
    ],
)
def test_o_20_a_secret_in_the_project_file_is_refused(config, said):
    """O-20: everybody who reads project.yaml would know it; the message says where it belongs and does not repeat it."""
    with pytest.raises(ValidationError) as refused:
        Listing(**({"name": "drop"} | config))
    (problem,) = refused.value.errors()
    assert said in problem["msg"]
    assert "CANARY" not in problem["msg"]


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/*.csv", "HTTPS://shop.example/exports/*.csv"])
def test_t9_a_web_server_is_no_source(url):
    """Its listing has no sizes, and it may lead anywhere, to addresses inside, too; the message says what to do instead (T9)."""
    with pytest.raises(ValidationError, match="sent to POST /projects/NAME/batches"):
        Listing(name="drop", url=url)


def test_an_unknown_scheme_is_said(tmp_path):
    """Nothing was met that could be listed."""
    with pytest.raises(SourceError, match="does not suit nope://"):
        list(Listing(name="drop", url="nope://b/*.csv").fetch(None, tmp_path, NOW))
