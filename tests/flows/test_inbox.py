import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.logging import disable_run_logger

from flows import inbox
from tasks import ingest
from tasks.config.names import HELD
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ingest import ARRIVED, Kind, Landings, hand_on
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


def test_files_that_come_together_again_and_again_land_once_and_stop_nobody(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    """The same twenty, four times, once while they wait: each time is dealt with, nothing is left, and a later file lands as ever."""
    waits = [True]

    def submit(name: str, kept: Path, kind: Kind) -> None:
        if not (kept.is_dir() and waits and waits.pop()):
            watched.submit(name, kept, kind)
            with disable_run_logger():
                hand_on.fn(watched.results[-1], str(kept))

    monkeypatch.setattr(inbox, "submit", submit)
    monkeypatch.setattr(ingest, "create_table_artifact", lambda *_, **__: None)
    monkeypatch.setattr(ingest, "emit_event", lambda *_, **__: None)
    for times in range(4):
        for n in range(inbox.TOGETHER):
            write_rows(watched.folder / f"{n}.csv", rows(n))
        until(lambda: watched.look() or not [*watched.folder.glob("*.csv")], 30, "the gathering")
        until(
            lambda wanted=times: (watched.look() and len(watched.results) >= wanted) or wanted == 0, 30, "the landing"
        )
    watched.look()
    assert [(one.landed, one.known) for one in watched.results] == [(20, 0), (0, 20), (0, 20)]
    assert [*(watched.folder / ARRIVED).iterdir()] == []
    write_rows(watched.folder / "later.csv", rows(99))
    until(lambda: watched.look() and len(watched.results) == 4, 30, "the later file")
    assert watched.results[-1].landed == 1


def test_a_folder_that_fails_is_no_matter_of_the_others(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    """Whatever is raised over one project's files, another's land; the one that failed is tried again after a while."""
    real, failures = watched.watcher.claimed, [ValueError("odd")] * 2

    def claimed(box: inbox.Box) -> list[Path]:
        if box.kind == "outcomes" and failures:
            raise failures.pop()
        return real(box)

    monkeypatch.setattr(watched.watcher, "claimed", claimed)
    monkeypatch.setattr(
        watched.watcher, "boxes", lambda: sorted(inbox.Inbox.boxes(watched.watcher), key=lambda box: box.kind)
    )
    monkeypatch.setattr(inbox, "REST", 0.05)
    write_rows(watched.folder / "a.csv", rows(1, 2))
    until(watched.look, 30, "the landing")
    assert watched.results[0].landed == 2
    until(lambda: watched.look() and not failures, 30, "another try")


class Runs:
    """Prefect's runs, which have ended at once, but for one that may be under way."""

    def __init__(self) -> None:
        self.asked, self.under_way = [], ""

    def create_flow_run_from_deployment(
        self, _deployment: object, *, idempotency_key: str, **_: object
    ) -> SimpleNamespace:
        known = idempotency_key in self.asked and idempotency_key != self.under_way
        self.asked.append(idempotency_key)
        return SimpleNamespace(id=idempotency_key, state=SimpleNamespace(is_final=lambda: known))


def test_a_file_that_comes_a_thousand_times_costs_no_more_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each has a run of its own after at most two questions; while one is under way it is that; outcomes of the same bytes have theirs."""
    monkeypatch.setattr(inbox, "TRIED", {})
    kept, runs = tmp_path / "0123-empty.csv", Runs()
    kept.write_text("id,at\n")

    def submitted(kind: Kind = "rows") -> str:
        return str(inbox._run(cast(SyncPrefectClient, runs), uuid4(), "small", kept, kind))

    for times in range(1100):
        before, run = len(runs.asked), submitted()
        assert run.endswith(f" {times}")
        assert len(runs.asked) - before <= 2
        runs.under_way = run if times == 1099 else ""
    assert submitted() == runs.under_way
    assert submitted("outcomes") not in runs.asked[:-1]


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
