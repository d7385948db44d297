import threading
import time
from pathlib import Path

import pytest

from flows import inbox
from tasks.config.names import HELD
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ingest import ARRIVED, Kind, Landings
from tasks.stores.files import fingerprint
from tests.samples import until, write_rows
from tests.tasks.test_ingest import SMALL, rows, small

__all__ = ["small"]


class Watched:
    """A watcher whose runs are done at once, in this process."""

    def __init__(self, landings: Landings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.landings, self.watcher, self.results = landings, inbox.Inbox(Settings()), []
        self.folder = Settings().inbox("small")
        self.folder.mkdir(parents=True)
        monkeypatch.setattr(inbox, "submit", self.submit)

    def submit(self, name: str, kept: Path, kind: Kind) -> None:
        settings = Settings()
        self.results.append(Landings(Project.named(name, settings), settings, kind=kind).land(kept))

    def look(self) -> bool:
        self.watcher.look(time.monotonic())
        return bool(self.results)


@pytest.fixture
def watched(small: Landings, monkeypatch: pytest.MonkeyPatch) -> Watched:
    assert "project: small" in SMALL
    return Watched(small, monkeypatch)


def test_i_01_a_file_lands_when_its_writer_has_closed_it(watched: Watched):
    """Ten pieces with pauses longer than the settling time: one landing, with all rows."""
    target, pause = watched.folder / "slow.csv", threading.Event()

    def write() -> None:
        with target.open("w") as file:
            file.write("id,at,age,y\n")
            for n in range(10):
                file.write("".join(f"{n * 10 + i},2026-01-01T00:00:00Z,5,t\n" for i in range(10)))
                file.flush()
                pause.wait(0.6 if n == 4 else 0.05)

    writer = threading.Thread(target=write)
    writer.start()
    until(watched.look, 30, "the landing")
    writer.join()
    assert [(landing.arrived, landing.landed) for landing in watched.results] == [(100, 100)]


def test_i_01_a_file_whose_writer_died_inside_a_line_does_not_land(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    """It is waited for, then held whole with the reason; a person may say that it is right."""
    monkeypatch.setattr(inbox, "UNFINISHED", 1.0)
    file = write_rows(watched.folder / "cut.csv", rows(*range(20)))
    file.write_bytes(file.read_bytes()[:-3])
    file.write_bytes(file.read_bytes().rstrip(b"\r\n"))
    until(watched.look, 30, "the refusal")
    (landing,) = watched.results
    assert landing.state == "held"
    assert landing.landed == 0
    assert watched.landings.lake.snapshot() is None


@pytest.mark.parametrize(("files", "commits"), [(500, 1), pytest.param(10_000, 3, marks=pytest.mark.slow)])
def test_i_24_a_flood_of_files_becomes_few_landings(watched: Watched, files: int, commits: int):
    """Many files at once: few commits, every row there, the folder empty."""
    for n in range(files):
        write_rows(watched.folder / f"{n}.csv", rows(n))

    def landed() -> bool:
        watched.look()
        return sum(landing.landed for landing in watched.results) == files

    until(landed, 60 + files / 20, "the landings")
    assert sum(landing.files for landing in watched.results) == files
    assert len(watched.results) <= commits
    assert watched.results[-1].snapshot == f"v{len(watched.results)}"
    assert not [path for path in watched.folder.iterdir() if path.is_file()]


def test_a_kill_while_files_are_gathered_loses_none(watched: Watched):
    """Files that a killed watcher had moved half-way land with the next one."""
    folder = watched.folder / ARRIVED / inbox.GATHERING
    folder.mkdir(parents=True)
    for n in range(3):
        file = write_rows(watched.folder / f"{n}.csv", rows(n))
        file.replace(folder / inbox.kept_name(inbox.fingerprint(file), file.name))
    until(watched.look, 30, "the landing")
    assert watched.results[0].landed == 3


def test_i_25_an_inbox_that_cannot_be_read_stops_nothing(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    """While listing fails the watcher goes on looking; when it works again, what waits lands."""
    write_rows(watched.folder / "a.csv", rows(1, 2))
    real, failures = inbox.os.scandir, [OSError("gone")] * 3

    def scandir(path):
        if failures and path == watched.folder:
            raise failures.pop()
        return real(path)

    monkeypatch.setattr(inbox.os, "scandir", scandir)
    until(watched.look, 30, "the landing")
    assert (failures, watched.results[0].landed) == ([], 2)


def test_i_05_outcomes_have_a_folder_of_their_own_in_the_inbox(watched: Watched):
    """A file in `outcomes/` labels rows, and is no batch of rows."""
    watched.landings.land(write_rows(watched.folder / ".a.csv", rows(*range(20))))
    (watched.folder / "outcomes").mkdir()
    write_rows(watched.folder / "outcomes" / "late.csv", [{"id": "3", "y": "t"}])
    until(watched.look, 30, "the landing")
    (landing,) = watched.results
    assert (landing.kind, landing.landed, landing.snapshot) == ("outcomes", 1, "v1.1")


def test_i_02_a_file_lands_only_as_the_sha256_beside_it_says(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    """One that agrees lands, without its promise; one that was altered on the way is put aside, and both digests are told."""
    told = list[dict]()
    monkeypatch.setattr(inbox, "UNFINISHED", 0.8)
    monkeypatch.setattr(inbox, "emit_event", lambda event, resource, payload: told.append(payload))  # noqa: ARG005
    good, bad = (
        write_rows(watched.folder / name, rows(*ids))
        for name, ids in (("good.csv", range(5)), ("bad.csv", range(5, 9)))
    )
    wanted = {path: fingerprint(path) for path in (good, bad)}
    for path, content in wanted.items():
        path.with_name(f"{path.name}.sha256").write_text(f"{content}  {path.name}\n")
    bad.write_bytes(bad.read_bytes().replace(b"2026", b"2025", 1))
    altered = fingerprint(bad)
    until(lambda: watched.look() and told, 30, "landing and refusal")
    assert [(landing.name, landing.landed) for landing in watched.results] == [("good.csv", 5)]
    assert wanted[bad] in told[0]["reason"]
    assert altered in told[0]["reason"]
    assert not [path for path in watched.folder.iterdir() if path.is_file()]
    assert [path.name.partition("-")[2] for path in (watched.folder / HELD).iterdir()] == ["bad.csv"]
    assert watched.landings.journal.totals("small")["rows"] == 5


def test_i_02_a_file_waits_until_it_is_what_its_sha256_says(watched: Watched):
    file = write_rows(watched.folder / "late.csv", rows(*range(9)))
    promise, whole = file.with_name("late.csv.sha256"), file.read_bytes()
    promise.write_text(fingerprint(file))
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    end = time.monotonic() + 1.5
    until(lambda: watched.look() or time.monotonic() > end, 30, "time")
    assert not watched.results
    file.write_bytes(whole)
    until(watched.look, 30, "the landing")
    assert watched.results[0].landed == 9
