"""The prediction log: what was answered is on record, whatever happens to the server."""

import datetime as dt
import json
import logging
import os
from pathlib import Path

import pytest

from tasks.stores import predictions
from tasks.stores.predictions import Predictions, Told

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def records(*names):
    """One record a name."""
    return [{"id": name, "prediction": True} for name in names]


def ids(log, project="flights", **days):
    """The names of the records that are on file."""
    return [record["id"] for record in log.read(project, **days)]


def test_records_come_back_in_order_of_writing(tmp_path):
    """Records of several days and projects are read by project, in order, within the asked days."""
    log = Predictions(tmp_path)
    assert log.append("flights", NOON, records("a", "b")) == 0
    assert log.append("flights", NOON + dt.timedelta(days=1), records("c")) == 0
    assert log.append("thyroid", NOON, records("x")) == 0
    assert ids(log) == ["a", "b", "c"]
    assert ids(log, since=dt.date(2026, 3, 2)) == ["c"]
    assert ids(log, until=dt.date(2026, 3, 1)) == ["a", "b"]
    assert ids(log, "basket") == []
    log.close()


def test_v_11_a_torn_line_takes_no_other_with_it(tmp_path):
    """A line that a crash has torn is skipped; the next record stands on a line of its own (V-11)."""
    log = Predictions(tmp_path)
    log.append("flights", NOON, records("a", "b"))
    log.close()
    path = tmp_path / "predictions" / "flights" / "2026-03-01.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    Predictions(tmp_path).append("flights", NOON, records("c"))
    assert ids(log) == ["a", "c"]


def test_v_10_disk_trouble_is_counted_and_logged_once_a_minute(tmp_path, monkeypatch, caplog):
    """A failing disk costs log lines, not answers; the next line survives a torn one (V-10)."""
    now = 0.0
    log = Predictions(tmp_path, clock=lambda: now)
    real = os.writev

    def full(_handle, _parts):
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.ERROR), monkeypatch.context() as broken:
        broken.setattr(os, "writev", full)
        assert log.append("flights", NOON, records("a", "b")) == 2
        broken.setattr(os, "writev", lambda handle, parts: real(handle, [b"".join(parts)[:9]]))
        assert log.append("flights", NOON, records("c")) == 1
        assert len(caplog.records) == 1
        now = 61.0
        assert log.append("flights", NOON, records("d")) == 1
        assert len(caplog.records) == 2
    assert log.append("flights", NOON, records("e")) == 0
    assert ids(log) == ["e"]
    log.close()


def test_a_removed_file_is_begun_anew(tmp_path):
    """Records go to a visible file even after somebody has removed the open one."""
    log = Predictions(tmp_path)
    log.append("flights", NOON, records("a"))
    (tmp_path / "predictions" / "flights" / "2026-03-01.jsonl").unlink()
    log.append("flights", NOON, records("b"))
    assert ids(log) == ["b"]
    log.close()


def test_v_11_the_first_outcome_of_a_day_has_its_files_name_on_the_disk(tmp_path, monkeypatch):
    """The file, and each folder that may be new with it; the day's next one syncs the file alone. Where that fails nothing is taken, and it is done with the next one (V-11)."""
    log, real, met, broken = Told(tmp_path / "home"), os.fsync, [], []

    def sync(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        met.append(str(path.relative_to(tmp_path)))
        if broken and path.is_dir():
            raise OSError(5, "Input/output error")
        real(handle)

    def synced(at):
        met.clear()
        log.tell("small", at, [("a", True, None)])
        return met

    monkeypatch.setattr(os, "fsync", sync)
    folders, day = ["home/told/small", "home/told", "home"], dt.timedelta(days=1)
    assert synced(NOON) == [*folders, "home/told/small/2026-03-01.jsonl"]
    assert synced(NOON) == ["home/told/small/2026-03-01.jsonl"]
    broken.append(True)
    with pytest.raises(OSError, match="Input/output"):
        synced(NOON + day)
    broken.clear()
    assert synced(NOON + day) == [*folders, "home/told/small/2026-03-02.jsonl"]
    log.close()
    met.clear()
    assert Predictions(tmp_path / "home").append("small", NOON, records("a")) == 0
    assert met == []


def test_s_03_after_an_error_of_the_disk_outcomes_are_told_to_a_file_that_is_opened_anew(tmp_path, monkeypatch):
    """The kernel says once what it could not write: a later fsync on the same descriptor would vouch for pages that are lost (S-03)."""
    log, real, met, broken = Told(tmp_path), os.fsync, [], [True]

    def sync(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().suffix == ".jsonl":
            met.append(handle)
            if broken and broken.pop():
                raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="Input/output"):
        log.tell("small", NOON, [("a", True, None)])
    assert log._open == {}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(met[0])
    log.tell("small", NOON, [("a", True, None)])
    assert [record["id"] for record in log.read("small")][-1] == "a"
    log.close()


@pytest.mark.parametrize("count", [1, 3, 7, 8, 50])
def test_the_newest_records_are_read_from_the_ends_of_the_files(tmp_path, count):
    """Of three days the last ones, in order of writing, a torn line left out."""
    log = Predictions(tmp_path)
    for day in range(1, 4):
        log.append("small", dt.datetime(2026, 1, day, tzinfo=dt.UTC), [{"n": 10 * day + n} for n in range(3)])
    log.close()
    with (tmp_path / "predictions" / "small" / "2026-01-03.jsonl").open("ab") as file:
        file.write(b'{"n": 9')
    everything = [record["n"] for record in log.read("small")]
    assert [record["n"] for record in log.newest("small", count)] == everything[-count:]
    assert log.newest("other", count) == []


def test_a_long_file_is_read_a_block_at_a_time(tmp_path):
    """Blocks smaller than a line lose none."""
    path = tmp_path / "2026-01-01.jsonl"
    path.write_bytes(b"".join(json.dumps({"n": n, "text": "x" * n}).encode() + b"\n" for n in range(60)))
    for block in (7, 64, 1 << 20):
        assert [record["n"] for record in predictions._last(path, 5, block)] == [55, 56, 57, 58, 59]


def test_when_outcomes_came_is_the_end_of_each_day_on_which_some_did(tmp_path):
    """Not when they became known; a torn line at the end of a file is no time, nor is a record that was erased."""
    log, day = Told(tmp_path), dt.timedelta(days=1)
    for days in (0, 1, 4):
        for hours in (0, 3):
            log.tell(
                "small", NOON + days * day + dt.timedelta(hours=hours), [("a", True, NOON - 9 * day), ("b", 1, None)]
            )
    log.close()
    with log.files("small")[0].open("ab") as file:
        file.write(b'{"id": "c", "ca')
    log.blank(
        log.find("small", lambda records: [record["came"] > "2026-03-05T13" for record in records], lambda _: False)
    )
    ends = [NOON + dt.timedelta(hours=3), NOON + day + dt.timedelta(hours=3), NOON + 4 * day]
    assert log.came("small", 60) == ends
    assert log.came("small", 2) == ends[1:]
    assert log.came("other", 2) == []
    log.blank(log.find("small", lambda records: [record["came"] > "2026-03-05" for record in records], lambda _: False))
    assert log.came("small", 1) == ends[1:2], "nothing is left of the newest day"
