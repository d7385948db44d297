import errno
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.logging import disable_run_logger

from flows import inbox
from flows.stack import diagnose
from flows.stack.probes import heartbeat
from flows.standing import standing
from tasks import ingest
from tasks.config.errors import BatchError
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

    def claimed(box: inbox.Box, now: float) -> list[Path]:
        if box.kind == "outcomes" and failures:
            raise failures.pop()
        return real(box, now)

    monkeypatch.setattr(watched.watcher, "claimed", claimed)
    monkeypatch.setattr(
        watched.watcher, "boxes", lambda: sorted(inbox.Inbox.boxes(watched.watcher), key=lambda box: box.kind)
    )
    monkeypatch.setattr(inbox, "REST", 0.05)
    write_rows(watched.folder / "a.csv", rows(1, 2))
    until(watched.look, 30, "the landing")
    assert watched.results[0].landed == 2
    until(lambda: watched.look() and not failures, 30, "another try")


def test_a_claimed_file_whose_run_failed_is_given_another_ever_more_seldom(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    """As while project.yaml was broken: it lands without anybody's doing, and what never lands is not asked for without end."""
    times: list[float] = []
    monkeypatch.setattr(inbox, "submit", lambda *_: times.append(now))
    folder = watched.folder / ARRIVED
    folder.mkdir()
    kept = write_rows(folder / "0123456789abcdef-a.csv", rows(1, 2))
    for now in range(40_000):
        watched.watcher._look(inbox.Box("small", "rows", watched.folder), float(now))
    between = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert between == [60, 120, 240, 480, 960, 1920, *[3840] * 9]
    kept.unlink()
    watched.watcher._look(inbox.Box("small", "rows", watched.folder), 50_000.0)
    assert len(times) == 16
    assert watched.watcher.asked == {}


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


@pytest.fixture
def told(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Looks once, hands on what is in the way as the watcher's process does, and gives what `keepfit status` says."""
    monkeypatch.setattr(inbox, "LASTING", 0.5)
    monkeypatch.setattr(inbox, "REST", 0.05)
    beat, before = heartbeat(Settings(), "inbox"), list[str]()

    def told() -> list[str]:
        nonlocal before
        watched.look()
        before = inbox.tell(beat, watched.watcher.lasting(time.monotonic()), before)
        return standing(Settings())["stuck"]

    return told


def _refused(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> None:
    """These files cannot be opened: the tests' user may read whatever its mode."""
    real = os.open

    def opened(path, *more, **named):
        if Path(path).name in names:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", opened)


@pytest.mark.parametrize("good", [5, inbox.TOGETHER])
@pytest.mark.parametrize("bad", ["secret.csv", "secret.parquet", "0.csv.sha256"])
def test_i_25_a_file_that_cannot_be_read_is_in_the_way_of_no_other(
    watched: Watched, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, good: int, bad: str
):
    """The others land; `status` and `doctor` name it with the next move, and when it can be read it lands, and they are silent."""
    for n in range(good):
        write_rows(watched.folder / f"{n}.csv", rows(n))
    stuck, names = bad.removesuffix(".sha256"), {bad}
    file = watched.folder / stuck
    if stuck == bad:
        write_rows(file, rows(99))
    else:
        (watched.folder / bad).write_text(fingerprint(file))
    _refused(monkeypatch, names)
    until(told, 30, "what is in the way")
    others = good - (stuck != bad)
    until(lambda: told() and sum(landing.landed for landing in watched.results) == others, 30, "the others")
    (said,) = told()
    assert str(file) in said
    assert "Permission denied" in said
    assert "take it away" in said
    (found,) = [finding for finding in diagnose(Settings()) if finding["check"] == "inbox"]
    assert (found["ok"], found["detail"]) == (False, said)
    landings = len(watched.results)
    names.clear()
    until(lambda: not told() and not file.exists() and len(watched.results) > landings, 30, "its landing")


def test_i_25_a_kept_file_that_cannot_be_read_is_in_the_way_of_no_other(
    watched: Watched, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    real = inbox.submit

    def submit(name: str, kept: Path, kind: Kind) -> None:
        if kept.name.endswith("-a.csv"):
            raise BatchError("'a.csv': cannot be opened (Permission denied)")
        real(name, kept, kind)

    monkeypatch.setattr(inbox, "submit", submit)
    write_rows(watched.folder / "a.csv", rows(1))
    write_rows(watched.folder / "b.csv", rows(2))
    until(lambda: told() and watched.results, 30, "the landing, and what is in the way")
    assert [landing.name for landing in watched.results] == ["b.csv"]
    assert "-a.csv" in told()[0]


def test_i_25_a_file_that_vanishes_after_it_was_listed_is_in_the_way_of_no_other(
    watched: Watched, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    """Whether it goes before it is opened, or before it is taken."""
    gone = [write_rows(watched.folder / f"{n}.csv", rows(n)) for n in (1, 2)]
    real = {name: getattr(inbox, name) for name in ("is_written", "fingerprint")}

    def vanishing(name: str, file: Path) -> Callable[[Path], object]:
        def call(path: Path) -> object:
            if path == file:
                path.unlink(missing_ok=True)
            return real[name](path)

        return call

    for (name, _), file in zip(real.items(), gone, strict=True):
        monkeypatch.setattr(inbox, name, vanishing(name, file))
    write_rows(watched.folder / "3.csv", rows(3))
    until(lambda: told() or watched.results, 30, "the landing")
    assert [landing.name for landing in watched.results] == ["3.csv"]
    assert told() == []


@pytest.mark.parametrize("instead", ["a file", "nothing"])
def test_i_25_a_folder_that_is_gone_is_told_and_not_made_again(
    watched: Watched, told: Callable[[], list[str]], instead: str
):
    """It is not made anew, where senders would not find it; when it is back, what lies in it lands, and nothing is in the way."""
    away = watched.folder.with_name("away")
    watched.look()
    watched.folder.rename(away)
    if instead == "a file":
        watched.folder.write_text("no folder")
    until(told, 30, "what is in the way")
    (said,) = told()
    assert str(watched.folder) in said
    assert not watched.folder.is_dir()
    watched.folder.unlink(missing_ok=True)
    away.rename(watched.folder)
    write_rows(watched.folder / "a.csv", rows(1))
    until(lambda: not told() and watched.results, 30, "the landing")


def test_i_25_an_inbox_that_is_not_mounted_any_more_is_told(
    watched: Watched, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    """The empty folder below it looks like an inbox to which nobody sends."""
    mounted = [True]
    monkeypatch.setattr(Path, "is_mount", lambda path: path == watched.folder and mounted == [True])
    watched.look()
    mounted.clear()
    until(told, 30, "what is in the way")
    assert "nothing is mounted there" in told()[0]
    mounted.append(True)
    until(lambda: not told(), 30, "silence")


def test_i_25_what_is_in_the_way_is_told_though_the_folder_cannot_be_listed(
    watched: Watched, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    """`status` counts what waits in folders that it may not read, either."""
    real = os.scandir

    def scandir(path="."):
        if path in {watched.folder, str(watched.folder)}:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    until(told, 30, "what is in the way")
    (row,) = standing(Settings())["projects"]
    assert row["waiting"] == 0
    assert str(watched.folder) in told()[0]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_i_13_what_is_no_regular_file_is_told_and_never_opened(
    watched: Watched, told: Callable[[], list[str]], tmp_path: Path, kind: str
):
    """A pipe would be waited for, a link leads out of the inbox; the file beside it lands."""
    odd = watched.folder / "odd.csv"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "link":
        odd.symlink_to(write_rows(tmp_path / "elsewhere.csv", rows(7)))
    else:
        odd.mkdir()
    write_rows(watched.folder / "a.csv", rows(1))
    until(lambda: told() and watched.results, 30, "the landing, and what is in the way")
    assert [(landing.name, landing.landed) for landing in watched.results] == [("a.csv", 1)]
    assert "regular file" in told()[0]
    assert odd.is_symlink() or odd.exists()


def test_i_25_of_much_that_is_in_the_way_a_few_are_named(watched: Watched, told: Callable[[], list[str]]):
    for n in range(inbox.SHOWN + 2):
        os.mkfifo(watched.folder / f"{n}.csv")
    until(told, 30, "what is in the way")
    assert len(told()) == inbox.SHOWN + 1
    assert "2 more" in told()[-1]


def test_what_was_in_the_way_is_not_told_while_nobody_watches(watched: Watched):
    """A heartbeat that is old says nothing about now."""
    beat = heartbeat(Settings(), "inbox")
    assert standing(Settings())["stuck"] == []
    beat.write_text("gone by")
    assert standing(Settings())["stuck"] == ["gone by"]
    os.utime(beat, (1, 1))
    assert standing(Settings())["stuck"] == []


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
