import dataclasses
import datetime as dt
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from tasks.config.errors import ConflictError
from tasks.stores.journal import Journal, Release

FIRST = Release(
    project="p",
    generation=1,
    version=1,
    digest="d",
    actor="a",
    reason="r",
    at="2026-01-01T00:00:00+00:00",
    metric="roc_auc",
    value=0.9,
    low=0.8,
    high=1.0,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    """The journal in a file, and on a real server."""
    if request.param == "sqlite":
        return Journal(f"sqlite:///{tmp_path / 'k' / 'keepfit.db'}")
    return Journal(request.getfixturevalue("database"))


def test_the_newest_generation_is_champion(journal: Journal):
    """Before a release there is no champion; after two the second is."""
    assert journal.champion("p") is None
    journal.release(FIRST)
    second = journal.release(dataclasses.replace(FIRST, generation=2, version=4))
    assert journal.champion("p") == second
    assert journal.champions() == {"p": second}
    assert [release.version for release in journal.releases("p")] == [1, 4]


def test_of_two_releases_at_once_one_wins_and_one_gets_a_conflict(journal: Journal):
    """O-08: twenty threads release the same generation; exactly one succeeds and is champion."""
    outcomes: list[object] = []
    gate = threading.Barrier(20)

    def release(version: int) -> None:
        gate.wait()
        try:
            outcomes.append(journal.release(dataclasses.replace(FIRST, version=version)))
        except ConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=release, args=(version,)) for version in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [outcome for outcome in outcomes if isinstance(outcome, Release)]
    assert (len(won), len(outcomes)) == (1, 20)
    assert journal.champion("p") == won[0]


def test_batches_are_summed_for_status(journal: Journal):
    """A batch recorded again replaces its record, and the totals count rows and held batches."""
    counts = {
        "arrived": 3,
        "landed": 2,
        "quarantined": 1,
        "known": 0,
        "at": "2026-01-01",
        "reason": "",
        "name": "f.csv",
        "project": "p",
    }
    journal.intend("p", "{}", "2026-01-01")
    for state in ("held", "landed"):
        journal.finish("p", [{"batch": "a", "state": state, **counts}], None)
    assert journal.intent("p") is None
    assert journal.totals("p") == {
        "landed": 1,
        "held": 0,
        "arrived": 3,
        "rows": 2,
        "quarantined": 1,
        "known": 0,
        "outcomes": 0,
        "erased": 0,
    }


def test_a_second_one_waits_until_the_first_is_done(journal: Journal):
    """Two landings of a project exclude each other, and the second one says so when its patience ends."""
    with (
        journal.alone("land p"),
        journal.alone("land q"),
        pytest.raises(ConflictError, match="under way elsewhere"),
        journal.alone("land p", patience=0),
    ):
        pass
    with journal.alone("land p", patience=0):
        pass


def test_a_killed_one_holds_nobody_up(journal: Journal):
    """A process that is killed while it holds a lock frees it, in a file and on a server."""
    url = journal.engine.url.render_as_string(hide_password=False)
    program = (
        "import sys, time; from tasks.stores.journal import Journal\n"
        "with Journal(sys.stdin.readline().strip()).alone('land p'): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        print(url, file=holder.stdin, flush=True)
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConflictError), journal.alone("land p", patience=0):
            pass
        holder.kill()
    with journal.alone("land p", patience=10):
        pass


def test_a_home_of_an_older_version_gets_the_new_columns(tmp_path: Path):
    """A journal without the columns that came later is widened, and keeps its rows."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    with sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE batches (project TEXT, batch TEXT, name TEXT, state TEXT, reason TEXT, arrived INTEGER, "
            "landed INTEGER, quarantined INTEGER, known INTEGER, at TEXT, PRIMARY KEY (project, batch))"
        )
        connection.exec_driver_sql("INSERT INTO batches VALUES ('p', 'a', 'f', 'landed', '', 3, 3, 0, 0, '2026')")
    row = Journal(url).batch("p", "a")
    assert row is not None
    assert (row["landed"], row["replaced"]) == (3, None)


def test_a_training_is_recorded_from_start_to_end(journal: Journal):
    """Its row says running, then how it ended, with the details as they were given."""
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    number = journal.start_training(project="p", trigger="t", event=True, snapshot="s", config="c", at=now)
    assert journal.trainings("p")[0]["state"] == "running"
    journal.end_training(number, state="released", reason="better", at=now, version=3, detail={"value": 0.9})
    row = journal.trainings("p")[0]
    assert (row["state"], row["version"], row["detail"]) == ("released", 3, {"value": 0.9})
    journal.end_training(number, state="failed", reason="x", at=now)
    assert journal.trainings("p")[0]["detail"] == {"value": 0.9}
