import contextlib
import contextvars
import dataclasses
import datetime as dt
import itertools
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from tasks.config.errors import ConflictError
from tasks.stores.journal import Journal, Proposal, Release, database
from tasks.stores.journal.tables import INTENTS, METADATA
from tests.postgres import HOLDERS, HOLDS, cut
from tests.samples import until

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
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
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty journal is: in a file that is not there yet, and on a real server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'k' / 'keepfit.db'}"
    return request.getfixturevalue("database")


@pytest.fixture
def journal(url: str) -> Journal:
    """The journal in a file, and on a real server."""
    return Journal(url)


def test_the_newest_generation_is_champion(journal: Journal):
    """Before a release there is no champion; after two the second is."""
    assert journal.champion("p") is None
    journal.release(FIRST)
    second = journal.release(dataclasses.replace(FIRST, generation=2, version=4))
    assert journal.champion("p") == second
    assert journal.champions() == {"p": second}
    assert [release.version for release in journal.releases("p")] == [1, 4]


def at_once(act: Callable[[int], object]) -> list[object]:
    """What became of it in twenty threads that do it at the same moment, each with its number: results and conflicts."""
    ended: list[object] = []
    gate = threading.Barrier(20)

    def one(number: int) -> None:
        gate.wait()
        try:
            ended.append(act(number))
        except ConflictError as error:
            ended.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_of_two_releases_at_once_one_wins_and_one_gets_a_conflict(journal: Journal):
    """O-08: twenty threads release the same generation; exactly one succeeds and is champion."""
    outcomes = at_once(lambda version: journal.release(dataclasses.replace(FIRST, version=version)))
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


# -- locks whose connection is lost -----------------------------------------------------------------------------------
PLAN, THEIRS = "mine", "theirs"
WRITES: dict[str, Callable[[Journal], object]] = {
    "intend": lambda journal: journal.intend("p", PLAN, "2026"),
    "finish": lambda journal: journal.finish("p", [], None),
    "announce": lambda journal: journal.announced("p"),
    "start a training": lambda journal: journal.start_training(
        project="p", trigger="t", event=True, snapshot="s", config="c", at=NOW
    ),
    "end a training": lambda journal: journal.end_training(1, state="released", reason=PLAN, at=NOW),
    "intend a release": lambda journal: journal.intend_release(
        project="p", kind="release", version=1, actor="a", reason="r", at=NOW, runner=""
    ),
    "release": lambda journal: journal.release(FIRST),
    "ask": lambda journal: journal.assure(),
}


def content(journal: Journal) -> dict[str, list[sa.Row[Any]]]:
    """Every row that is on record."""
    with journal.engine.connect() as connection:
        return {name: [*connection.execute(sa.select(table))] for name, table in METADATA.tables.items()}


@pytest.mark.parametrize("write", WRITES)
def test_whoever_lost_its_lock_to_another_one_writes_nothing(database: str, write: str):
    """The second gets in when the first's connection is gone; the first's next write is refused, while the second is inside and after."""
    journal = Journal(database)
    journal.start_training(project="p", trigger="t", event=True, snapshot="s", config="c", at=NOW)

    def act() -> None:
        with pytest.raises(ConflictError, match=r"'land p' is no longer this process's: .* has begun since"):
            WRITES[write](Journal(database))

    def second(first: contextvars.Context) -> None:
        with journal.alone("land p", patience=10):
            before = content(journal)
            first.run(act)
            journal.intend("p", THEIRS, "2026")
            first.run(act)
        assert content(journal) == {**before, "intents": [("p", THEIRS, "2026")]}

    with journal.alone("land p"):
        journal.intend("p", PLAN, "2026")
        cut(journal.engine)
        contextvars.Context().run(second, contextvars.copy_context())
        assert journal.intent("p") == THEIRS
        act()
    journal.finish("p", [], None)  # what is under no lock is written as ever


def entered(url: str, what: str) -> bool:
    """Whether another one gets in at once."""

    def enter() -> bool:
        try:
            with Journal(url).alone(what, patience=0):
                return True
        except ConflictError:
            return False

    return contextvars.Context().run(enter)


def test_a_lock_that_was_lost_to_nobody_is_held_again(database: str):
    """After a restart of the server a landing goes on, and from its next write on the others wait for it as before."""
    journal = Journal(database)
    with journal.alone("land p"), journal.alone("release p"):
        for plan in ("one", "two"):
            cut(journal.engine)
            journal.intend("p", plan, "2026")
            assert journal.intent("p") == plan
            assert not entered(database, "land p")
            assert not entered(database, "release p")
    assert entered(database, "land p")
    assert entered(database, "release p")


def test_nobody_enters_while_whoever_lost_the_lock_writes(database: str):
    """A write that began under the lock is done before the second gets in, who then sees it; no write of the first comes later."""
    journal = Journal(database)
    with journal.alone("land p"):
        with journal._write() as connection:
            cut(journal.engine)
            assert not entered(database, "land p")
            connection.execute(INTENTS.insert().values(project="p", plan=PLAN, at="2026"))
            assert not entered(database, "land p")
        assert entered(database, "land p")
        assert journal.intent("p") == PLAN
        with pytest.raises(ConflictError, match="is no longer this process's"):
            journal.finish("p", [], None)
    assert journal.intent("p") == PLAN


@pytest.mark.parametrize("wanted", [{}, {"keepalives_idle": "5"}])
def test_connections_to_a_server_are_kept_alive(database: str, wanted: dict[str, str]):
    """A firewall that forgets idle connections is kept awake, as the URL says where it says something, and no server ends the one of a lock for resting."""
    url = sa.make_url(database).update_query_dict(wanted)
    journal = Journal(url.render_as_string(hide_password=False))
    with journal.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        said = driver.info.get_parameters()
    assert (said["keepalives_idle"], said["keepalives_count"]) == (wanted.get("keepalives_idle", "30"), "3")
    with journal.engine.begin() as connection:
        connection.exec_driver_sql("alter role current_user set idle_session_timeout = '100ms'")
    try:
        with journal.alone("land p"):
            until(lambda: rested(journal), 10, "a rest of half a second")
            assert not entered(database, "land p")
    finally:
        with journal.engine.begin() as connection:
            connection.exec_driver_sql("alter role current_user reset idle_session_timeout")


def rested(journal: Journal) -> bool:
    """Whether the connection of a lock has been idle for half a second, or is gone."""
    with journal.engine.connect() as connection:
        recent = HOLDERS.c.state_change > sa.func.now() - dt.timedelta(seconds=0.5)
        return not connection.execute(sa.select(HOLDERS.c.pid).where(*HOLDS, recent)).all()


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


def batch(name: str, at: str, project: str = "p", **told: Any) -> dict[str, Any]:
    """The record of a batch of three rows that landed."""
    return {
        "project": project, "batch": name, "name": f"{name}.csv", "state": "landed", "reason": "", "arrived": 3, "landed": 3, "quarantined": 0,
        "known": 0, "at": at, "profile": name, **told,
    }  # fmt: skip


def contract(digest: str, at: str) -> dict[str, Any]:
    return {"project": "p", "digest": digest, "at": at, "contract": "{}"}


def test_s_10_batches_stand_in_the_order_in_which_they_came_where_the_clock_went_back(journal: Journal):
    """The one that came last is the newest of all, whatever its time says; one that is recorded again keeps its place (S-10, I-20)."""
    journal.finish("p", [batch("x", "2027-01-01")], contract("x", "2027-01-01"))
    journal.finish("p", [batch("b", "2026-01-01T11"), batch("a", "2026-01-01T11")], contract("a", "2026-01-01T11"))
    journal.finish("q", [batch("z", "2026-01-01T12", "q")], None)
    journal.finish("p", [batch("0", "2026-01-01T10")], None)
    journal.finish("p", [batch("x", "2027-01-01", landed=2)], None)
    assert [(row["batch"], row["number"]) for row in journal.batches("p")] == [("x", 1), ("a", 2), ("b", 2), ("0", 3)]
    assert [(row["batch"], row["number"]) for row in journal.batches("q")] == [("z", 1)]
    assert journal.last_landed("p", "rows") == "2026-01-01T10"
    assert journal.profiles("p", 2) == ["b", "0"]
    came = [(row["at"], row["profile"]) for row in journal.arrivals("p", 1)]
    assert came == [("2027-01-01", None), ("2026-01-01T11", None), ("2026-01-01T11", None), ("2026-01-01T10", "0")]
    assert [row["digest"] for row in journal.contracts("p")] == ["x", "a"]


def test_s_10_a_journal_of_older_homes_is_numbered_in_the_order_of_its_times(url: str, journal: Journal):
    """By project; what came together shares a number, and what comes after the upgrade follows, though the clock went back (S-10)."""
    journal.finish("p", [batch("a", "2026-01-03"), batch("b", "2026-01-03")], contract("b", "2026-01-03"))
    journal.finish("p", [batch("c", "2026-01-01")], contract("a", "2026-01-01"))
    journal.finish("p", [batch("d", "2026-01-02")], None)
    journal.finish("q", [batch("e", "2026-01-05", "q")], None)
    with journal.engine.begin() as connection:
        for table in ("batches", "contracts"):
            connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN number")
    database.PREPARED.discard(url)
    widened = Journal(url)
    widened.finish("p", [batch("f", "2025-12-31")], contract("c", "2025-12-31"))
    found = [(row["batch"], row["number"]) for row in widened.batches("p")]
    assert found == [("c", 1), ("d", 2), ("a", 3), ("b", 3), ("f", 4)]
    assert [row["number"] for row in widened.batches("q")] == [1]
    assert [(row["digest"], row["number"]) for row in widened.contracts("p")] == [("a", 1), ("b", 2), ("c", 3)]


def test_s_10_looks_of_older_homes_saw_what_had_landed_by_their_times(url: str, journal: Journal):
    """The newest versions of rows and outcomes of the project's own; none before the first batch (S-10)."""
    days = [NOW + dt.timedelta(days=day) for day in range(4)]
    look: dict[str, Any] = {"version": 1, "verdict": "ok", "detail": {}}
    first, second, third = (day.isoformat() for day in days[1:])
    journal.finish("p", [batch("a", first, version=1)], None)
    journal.finish("p", [batch("c", second, version=1, outcomes=4)], None)
    journal.finish("p", [batch("b", third, version=2, outcomes=4)], None)
    journal.finish("p", [batch("d", first, version=3, landed=0)], None)
    journal.finish("q", [batch("e", first, "q", version=7)], None)
    for day in days:
        journal.record_watch(project="p", at=day, **look)
    with journal.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE watches DROP COLUMN landed")
    database.PREPARED.discard(url)
    widened = Journal(url)
    assert [row["landed"] for row in widened.watches("p")] == ["v0.0", "v1.0", "v1.4", "v2.4"]
    widened.record_watch(project="q", at=NOW, **look, landed="v7.0")
    assert [widened.watched(project) for project in ("p", "q", "r")] == ["v2.4", "v7.0", None]
    assert [widened.landed(project) for project in ("p", "q", "r")] == ["v2.4", "v7.0", "v0.0"]


OPENER = """
import sys
from tasks.stores.journal import Journal, database
print("ready", flush=True)
for url in sys.stdin:
    database.PREPARED.clear()
    try:
        Journal(url.strip()).batches("p")
        print("opened", flush=True)
    except Exception as error:
        print(type(error).__name__, " ".join(str(error).split())[:200], flush=True)
"""


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[[str], list[str]]]:
    """Six processes that open a journal at the same moment, as often as they are told its URL; what became of each."""
    with contextlib.ExitStack() as ending:
        each = [
            ending.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", OPENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(6)
        ]
        said = [opener.stdout for opener in each if opener.stdout]
        assert [line.readline() for line in said] == ["ready\n"] * 6

        def at_once(url: str) -> list[str]:
            for opener in each:
                print(url, file=opener.stdin, flush=True)
            return [line.readline().strip() for line in said]

        yield at_once
        for opener in each:
            if opener.stdin:
                opener.stdin.close()


def emptied(url: str) -> None:
    """Takes every table away."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    if url.startswith("sqlite"):
        folder = Path(engine.url.database or "").parent
        shutil.rmtree(folder, ignore_errors=True)
    else:
        METADATA.drop_all(engine)


def test_s_05_first_commands_at_once_make_one_journal(url: str, opened: Callable[[str], list[str]]):
    """S-05: six processes open a journal that is not there, again and again; each gets it, with every table."""
    for _ in range(6):
        emptied(url)
        assert opened(url) == ["opened"] * 6
    there = sa.inspect(sa.create_engine(url, poolclass=sa.NullPool))
    assert {*METADATA.tables} <= {*there.get_table_names()}
    assert "one_rollout" in {index["name"] for index in there.get_indexes("rollouts")}


def test_s_05_first_commands_at_once_after_an_upgrade_widen_one_journal(
    url: str, journal: Journal, opened: Callable[[str], list[str]]
):
    """Six processes open an older journal, again and again; each gets it, with every column."""
    for _ in range(6):
        with journal.engine.begin() as connection:
            for column in ("profile", "detail", "announced"):
                connection.exec_driver_sql(f"ALTER TABLE batches DROP COLUMN {column}")
        assert opened(url) == ["opened"] * 6
    assert journal.totals("p")["rows"] == 0


def test_a_journal_that_is_complete_is_opened_beside_a_writer(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """Whoever opens it neither writes nor waits, so that a command that only reads is not held up."""
    monkeypatch.setattr(database, "PREPARED", set())
    with journal._write():
        assert Journal(journal.engine.url.render_as_string(hide_password=False)).batches("p") == []


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


# -- proposals --------------------------------------------------------------------------------------------------------
DIGESTS = {"bundle": "b" * 64, "champion": "none"}


def held(journal: Journal, version: int = 2, project: str = "p") -> Proposal:
    """A training of this journal whose version waits for a person."""
    number = journal.start_training(project=project, trigger="t", event=False, snapshot="s", config="c", at=NOW)
    journal.end_training(number, state="held", reason="so", at=NOW, version=version, digests=DIGESTS)
    return journal.proposals(project, version=version)[-1]


def approve(journal: Journal, proposal: Proposal, generation: int = 1) -> Release:
    release = dataclasses.replace(
        FIRST, project=proposal.project, version=proposal.version, generation=generation, actor="anna", reason="looked"
    )
    return journal.release(release, proposal.id)


def state(journal: Journal, proposal: Proposal) -> tuple[str, str, list[int]]:
    """What proposal, training and releases say."""
    (now,) = (each for each in journal.proposals(proposal.project) if each.id == proposal.id)
    (trained,) = (row for row in journal.trainings(proposal.project) if row["id"] == proposal.training)
    return now.state, trained["state"], [release.version for release in journal.releases(proposal.project)]


KILLED = "killed"  # what ends a list of statements


@contextlib.contextmanager
def killed(journal: Journal, at: int) -> Generator[list[str]]:
    """Whoever uses the journal is killed before its `at`-th statement, where a commit counts as one; gives what was met."""
    met: list[str] = []

    def meet(what: str) -> None:
        met.append(KILLED if len(met) == at else what)
        if met[-1] == KILLED:
            raise KeyboardInterrupt

    listeners = {
        "before_cursor_execute": lambda _connection, _cursor, text, *_: meet(text),
        "commit": lambda _connection: meet("commit"),
    }
    for name, listener in listeners.items():
        event.listen(journal.engine, name, listener)
    with contextlib.suppress(KeyboardInterrupt):
        yield met
    for name, listener in listeners.items():
        event.remove(journal.engine, name, listener)


def test_a_version_that_waits_is_a_proposal(journal: Journal):
    """It says what a person decides about, since when and why; approved, the version is champion and the training was released."""
    proposal = held(journal)
    assert journal.proposals(state="open") == journal.proposals("p", version=2) == [proposal]
    assert (proposal.digests, proposal.since, proposal.why) == (DIGESTS, NOW.isoformat(), "so")
    assert journal.proposals("q") == []
    release = approve(journal, proposal)
    assert journal.champion("p") == release
    assert state(journal, proposal) == ("approved", "released", [2])
    (done,) = journal.proposals("p")
    assert (done.actor, done.at, done.reason) == ("anna", release.at, "looked")
    assert journal.trainings("p")[0]["reason"] == "so; approved by anna: looked"
    assert journal.proposals(state="open") == []


def test_a_rejected_version_leaves_the_champion(journal: Journal):
    """The champion stays; who rejected it and why stands in proposal and training."""
    journal.release(dataclasses.replace(FIRST, version=1))
    proposal = held(journal)
    journal.decide(proposal.id, "rejected", actor="bert", at=NOW, reason="labels are inverted")
    assert state(journal, proposal) == ("rejected", "held", [1])
    assert journal.trainings("p")[0]["reason"] == "so; rejected by bert: labels are inverted"


def test_a_second_decision_is_a_conflict_that_names_the_first(journal: Journal):
    """Whoever comes second changes nothing, and reads who decided what, when and why."""
    proposal = held(journal)
    journal.decide(proposal.id, "rejected", actor="bert", at=NOW, reason="no")
    with pytest.raises(ConflictError, match="rejected by bert on 2026-03-01T00:00:00: no"):
        approve(journal, proposal)
    assert state(journal, proposal) == ("rejected", "held", [])
    with pytest.raises(ConflictError, match="there is no such proposal"):
        journal.decide(77, "rejected", actor="bert", at=NOW, reason="no")


def test_of_decisions_at_once_one_wins(journal: Journal):
    """Twenty threads approve or reject the same proposal; one decision stands, and the release is there exactly if it approves."""
    proposal = held(journal)

    def decide(number: int) -> int:
        if number % 2:
            approve(journal, proposal)
        else:
            journal.decide(proposal.id, "rejected", actor=str(number), at=NOW, reason="no")
        return number

    ended = at_once(decide)
    won = [number for number in ended if isinstance(number, int)]
    assert (len(won), len(ended)) == (1, 20)
    assert state(journal, proposal) == (("approved", "released", [2]) if won[0] % 2 else ("rejected", "held", []))


def test_two_proposals_approved_at_once_are_one_release(journal: Journal):
    """Twenty threads approve two versions; one is champion, the proposal of the other is void."""
    both = [held(journal, version) for version in (2, 3)]
    ended = at_once(lambda number: approve(journal, both[number % 2]).version)
    (won,) = (version for version in ended if isinstance(version, int))
    assert len(ended) == 20
    assert {each.version: each.state for each in journal.proposals("p")} == {2: "void", 3: "void"} | {won: "approved"}
    assert [release.version for release in journal.releases("p")] == [won]


def test_an_approval_that_is_killed_is_whole_or_not_there(journal: Journal):
    """Killed before any statement of it, for every one: nothing of it stands, and saying it again does all of it."""
    for at in itertools.count():
        proposal = held(journal, version=at + 1, project=f"p{at}")
        with killed(journal, at) as met:
            approve(journal, proposal)
        if met[-1] != KILLED:
            break
        assert state(journal, proposal) == ("open", "held", [])
        approve(journal, proposal)
        assert state(journal, proposal) == ("approved", "released", [at + 1])
    assert at >= 4  # release, decision, training, other proposals
    assert state(journal, proposal) == ("approved", "released", [at + 1])


def test_a_training_that_is_killed_while_it_proposes_left_no_version_that_nobody_is_asked_about(journal: Journal):
    """Killed before any statement: still running and no proposal, or held with one."""
    for at in itertools.count():
        project = f"p{at}"
        number = journal.start_training(project=project, trigger="t", event=False, snapshot="s", config="c", at=NOW)
        with killed(journal, at) as met:
            journal.end_training(number, state="held", reason="so", at=NOW, version=2, digests=DIGESTS)
        (trained,) = journal.trainings(project)
        if met[-1] != KILLED:
            break
        assert (trained["state"], journal.proposals(project)) == ("running", [])
    assert (trained["state"], len(journal.proposals(project))) == ("held", 1)


def test_a_process_killed_between_decision_and_release_leaves_the_proposal_open(journal: Journal):
    """SIGKILL in a process of its own, when the decision is written and the transaction has not ended (the state between)."""
    proposal = held(journal)
    program = (
        "import dataclasses, os, signal, sys, sqlalchemy as sa; from tasks.stores import journal; from tasks.stores.journal import proposals as j\n"
        "from tests.stores.test_journal import approve\n"
        "opened = journal.Journal(sys.stdin.readline().strip()); true = j.decide\n"
        "def decide(*args, **more): true(*args, **more); print('decided', flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
        "j.decide = decide; approve(opened, opened.proposals('p')[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=journal.engine.url.render_as_string(hide_password=False) + "\n",
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (-9, "decided\n"), done.stderr
    assert state(journal, proposal) == ("open", "held", [])
    approve(journal, proposal)
    assert state(journal, proposal) == ("approved", "released", [2])


def test_another_champion_makes_open_proposals_void(journal: Journal):
    """A release of another version ends what waits in its project, and there only; what was decided stays decided."""
    waiting, decided, other = held(journal, 2), held(journal, 3), held(journal, 2, "q")
    journal.decide(decided.id, "rejected", actor="bert", at=NOW, reason="no")
    journal.release(dataclasses.replace(FIRST, version=4))
    states = {each.id: each.state for each in journal.proposals()}
    assert states == {waiting.id: "void", decided.id: "rejected", other.id: "open"}
    ended = journal.proposals("p", version=2)[0].ended
    assert (
        ended
        == "the proposal of version 2 is void since 2026-01-01T00:00:00: the champion is another one: version 4 was released"
    )


def test_a_version_that_is_proposed_again_waits_once(journal: Journal):
    """The older proposal of the same version gives way."""
    first, second = held(journal), held(journal)
    assert [each.id for each in journal.proposals(state="open")] == [second.id]
    assert state(journal, first)[0] == "void"
