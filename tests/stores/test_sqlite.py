"""SQLite files that are damaged, locked, or on a full disk."""

import functools
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from flows import stack
from flows.recover import once
from tasks import releasing
from tasks.config.errors import ArtifactError, KeepfitError
from tasks.config.settings import Settings
from tasks.recover import Recovery
from tasks.stores import studies
from tasks.stores.journal import AFTER, BEFORE, database
from tasks.stores.registry import Registry
from tasks.stores.sqlite import damage, refuse_damaged
from tests.released import NAME, InProcess, alias, champion, crowned, place, template, trained
from tests.tasks.test_landing_faults import FULL, disk, used
from tests.tasks.test_releasing import ACTS

__all__ = ["disk", "place", "template"]
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")


# -- S-08: a page is damaged --------------------------------------------------------------------------------------------
def pages(path: Path) -> tuple[int, int]:
    """Size and number of a database's pages; all of them are in the file afterwards."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return tuple(connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_size", "page_count"))


def test_s_08_a_database_with_a_damaged_page_is_refused_with_the_command_that_restores_it(place: Settings):
    """Whichever page is inverted: neither the stack nor `recover` goes on, and whole again it does."""
    crowned(place, 1, 2)
    path = place.home / "keepfit.db"
    size, count = pages(path)
    whole = path.read_bytes()
    assert count > 15
    for page in range(count):
        start = page * size
        path.write_bytes(
            whole[:start] + bytes(255 - byte for byte in whole[start : start + size]) + whole[start + size :]
        )
        with pytest.raises(ArtifactError, match=rf"is damaged: .*`keepfit down; rm -f .* cp COPY {path}; keepfit up`"):
            refuse_damaged(path)
    for start_up in (lambda: once(place), lambda: stack.up(place)):
        with pytest.raises(ArtifactError, match="is damaged"):
            start_up()
    assert not place.stack_file.exists()
    assert [finding["ok"] for finding in stack.diagnose(place) if finding["check"] == "databases"] == [False]
    stack.down(place)  # the folder of its lock
    path.write_bytes(whole)
    assert damage(path) == ""
    assert once(place)["ok"]
    refuse_damaged(path.with_name("none.db"))


# -- S-04: another process holds the lock -------------------------------------------------------------------------------
@pytest.fixture
def holder(place: Settings) -> Iterator[sqlite3.Connection]:
    """Somebody who writes and does not end."""
    with closing(sqlite3.connect(place.home / "keepfit.db", isolation_level=None, check_same_thread=False)) as held:
        yield held


HOLD = """
import sqlite3, sys, time
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(10)
held.execute("ROLLBACK")
"""


def test_s_04_what_another_process_has_locked_for_ten_seconds_is_waited_for(place: Settings):
    """The journal, MLflow's file and the studies: each act waits until the lock is free, and is written once; readers of the journal do not wait."""
    journal, registry = crowned(place, 1), Registry(NAME, place.mlflow(), place.artifacts)
    run = registry.start("a test", {})
    studies.prepare(place.studies())
    study = studies.study(place.studies(), "a study", seed=7)
    acts = {
        "keepfit.db": lambda: crowned(place, 2), "mlflow.db": lambda: registry.log(run, metrics={"roc_auc": 0.9}), "studies.db": study.ask,
    }  # fmt: skip
    with ExitStack() as held, ThreadPoolExecutor(len(acts)) as pool:
        for name in acts:
            command = [sys.executable, "-c", HOLD, str(place.home / name)]
            holder = held.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            assert holder.stdout is not None
            assert holder.stdout.readline()
        began = time.monotonic()
        waiting = {name: pool.submit(act) for name, act in acts.items()}
        assert [each.version for each in journal.releases(NAME)] == [1]
        assert time.monotonic() - began < 5
        time.sleep(5)
        assert not any(each.done() for each in waiting.values())
        for each in waiting.values():
            each.result(30)
    assert [each.version for each in journal.releases(NAME)] == [1, 2]
    assert len(registry.client.get_metric_history(run, "roc_auc")) == 1
    assert len(study.trials) == 1


def test_s_04_a_database_that_stays_locked_is_a_clear_error(
    place: Settings, holder: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
):
    """After the time that is configured it says what it met and the next move; nothing was written, nothing is lost."""
    assert database.BUSY == 15
    monkeypatch.setattr(database, "BUSY", 0.2)
    journal = crowned(place, 1)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(
        KeepfitError, match=r"keepfit.db has been locked by another process for 0.2 s. Nothing was changed"
    ):
        crowned(place, 2)
    assert [each.version for each in journal.releases(NAME)] == [1]
    holder.execute("ROLLBACK")
    crowned(place, 2)
    assert [each.version for each in journal.releases(NAME)] == [1, 2]


# -- S-02: the disk is full ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("act", ["release", "rollback"])
def test_s_02_a_full_disk_fails_an_act_cleanly_and_space_lets_it_go_on(
    place: Settings, disk, monkeypatch: pytest.MonkeyPatch, act: str
):
    """Whatever write meets the full disk: the old champion or the new one is in force, its bundle reads, and with space all is made right."""
    monkeypatch.setattr(releasing, "Rehearsal", InProcess)
    failures, free = 0, 0
    while True:
        room = disk(100_000)
        monkeypatch.setenv("KEEPFIT_DATABASE_URL", f"sqlite:///{room / f'{free}.db'}")
        settings = Settings()
        trained(settings)
        journal = champion(settings, 2, 1)
        disk(used(room) + free)
        failed = _is_full(functools.partial(ACTS[act], settings, 2))
        disk(100_000)
        assert journal.releases(NAME)[-1].version in {1, 2}
        found = Recovery(settings).look()
        assert found.trouble == []
        if journal.releases(NAME)[-1].version == 1:
            ACTS[act](settings, 2)
        assert [each.version for each in journal.releases(NAME)] == [2, 1, 2]
        assert alias(settings) == 2
        assert journal.release_intents(NAME, (*BEFORE, *AFTER)) == []
        if not failed:
            break
        failures, free = failures + 1, free + 8
    assert failures > 3


def _is_full(act: Callable[[], object]) -> bool:
    """Whether it fails because of the disk; any other failure is one of the test."""
    try:
        act()
    except Exception as error:
        if not any(said in str(error) for said in FULL):
            raise
        return True
    return False
