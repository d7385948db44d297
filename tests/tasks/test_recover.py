"""Recover: dead runs, hand-made changes, trainings that are owed; each is found by what is, however it came about."""

import contextvars
import datetime as dt
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from tasks import owed, recover, releasing
from tasks.config.errors import ConflictError
from tasks.config.settings import Settings
from tasks.recover import CANNOT, Recovery
from tasks.stores import artifacts, bundles, durable, minutes, processes, runs
from tasks.stores.journal import KEPT, NO_MLFLOW, Journal
from tasks.stores.minutes import Minutes
from tasks.stores.registry import Registry
from tasks.trigger import CRASHES
from tests.postgres import cut
from tests.receiver import Receiver, receiving
from tests.released import NAME, NOW, InProcess, alias, champion, crowned, either, place, template
from tests.samples import free_port, until

__all__ = ["either", "place", "template"]
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are loaded in this process."""
    monkeypatch.setattr(releasing, "Rehearsal", InProcess)


def registry(settings: Settings) -> Registry:
    return Registry(NAME, settings.mlflow(), settings.artifacts)


def accepts(settings: Settings) -> None:
    file = settings.projects / NAME / "project.yaml"
    file.write_text(file.read_text() + "release: {hand_made: accept}\n")


# -- what lies on disk ----------------------------------------------------------------------------------------------------
@contextmanager
def told(settings: Settings) -> Generator[Receiver]:
    """Incidents of the project go to this receiver."""
    file = settings.projects / NAME / "project.yaml"
    with receiving() as sink:
        file.write_text(file.read_text() + f"notify: {{webhooks: [{{name: ops, url: '{sink.url}/in'}}]}}\n")
        yield sink


def test_r_02_a_champion_whose_files_are_not_what_was_released_is_told_once_until_they_are(
    place: Settings, monkeypatch: pytest.MonkeyPatch
):
    """One message when the bundle is altered, however often it is looked at and by how many; one when it is mended; again when it breaks again."""
    monkeypatch.setenv("KEEPFIT_ALLOW_PRIVATE", "127.0.0.1")
    journal, path = champion(place, 1, 2), place.bundles(NAME) / "2" / bundles.MODEL
    good, times = path.read_bytes(), (dt.timedelta(seconds=second) for second in count())
    with told(Settings()) as sink:
        recovery = Recovery(Settings(), clock=lambda: NOW + next(times))
        assert recovery.look().altered == []
        for _ in range(2):
            path.write_bytes(good[:-1] + b"x")
            found = [recovery.look().altered for _ in range(3)]
            path.unlink()  # the same version is broken otherwise by now, and another process looks, too
            found += [look.look().altered for look in (recovery, Recovery(Settings(), clock=lambda: NOW + next(times)))]
            assert [len(each) for each in found] == [1, 0, 0, 0, 0]
            path.write_bytes(good)
            assert [len(recovery.look().altered) for _ in range(2)] == [1, 0]
        until(lambda: [recovery.look(), len(sink.got) == 4][1])
    first, over, *_ = (json.loads(got.body)["data"] for got in sink.got)
    assert (first["class"], first["source"], first["version"], over["state"]) == ("mend", "disk", 2, "closed")
    assert f"bundles/{NAME}/2/{bundles.MODEL} has the SHA-256" in first["summary"]
    assert str(place.home) not in json.dumps(first)
    assert [one.state for one in journal.incidents(NAME)] == ["closed", "closed"]


def test_r_02_another_champion_ends_the_incident_and_one_that_is_broken_too_is_told(place: Settings):
    """Each version has its own; a release of a whole one needs no mending of the old one."""
    journal = champion(place, 1)
    for version in (1, 2):
        (place.bundles(NAME) / str(version) / bundles.MANIFEST).write_bytes(b"{}")
    for version, open_ones in ((None, [1]), (2, [2]), (3, [])):
        if version:
            champion(place, version)
        Recovery(place, clock=lambda: NOW).look()
        assert [one.version for one in journal.incidents(NAME, state="open")] == open_ones


def test_r_02_what_mlflow_keeps_of_the_champion_is_looked_at_too(place: Settings, monkeypatch: pytest.MonkeyPatch):
    """A file that somebody put in place of the logged one is told by its name; nothing is read while nobody touches anything."""
    journal, model = champion(place, 1, 2), place.artifacts / "1" / "models" / "m-1" / "artifacts" / "model.skops"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"as it was logged")
    made = journal.made(NAME, 2)
    assert made is not None
    logged = {**made, "detail": made["detail"] | {"artifacts": artifacts.recorded(place.artifacts, "m-1")}}
    monkeypatch.setattr(Journal, "made", lambda *_: logged)
    reads = Mock(wraps=bundles.fault)
    monkeypatch.setattr(bundles, "fault", reads)
    recovery = Recovery(place, clock=lambda: NOW)
    assert [recovery.look().altered for _ in range(3)] == [[], [], []]
    model.write_bytes(b"anything else...")
    (said,) = recovery.look().altered
    assert "1/models/m-1/artifacts/model.skops is another file than the one that was logged" in said
    assert reads.call_count == 2


# -- hand-made changes ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("done", ["moved", "deleted"])
def test_r_06_an_alias_that_was_changed_by_hand_is_put_back(place: Settings, done: str):
    """The change is on record with what was met, once; the journal's champion is named again."""
    journal = champion(place, 1, 2)
    if done == "moved":
        registry(place).point("champion", 3)
    else:
        registry(place).client.delete_registered_model_alias(NAME, "champion")
    found = Recovery(place, clock=lambda: NOW).look()
    assert len(found.hand_made) == 1
    assert alias(place) == 2
    (row,) = journal.hand_made(NAME)
    assert (row["met"], row["wanted"], row["generation"], row["answer"], row["at"]) == (
        "version 3" if done == "moved" else "no alias", 2, 2, "put back", NOW.isoformat()
    )  # fmt: skip
    assert Recovery(place).look().hand_made == []
    assert [release.version for release in journal.releases(NAME)] == [1, 2]


def test_r_06_a_champion_that_was_deleted_by_hand_is_on_record_once(place: Settings):
    """There is nothing that the alias could name: it is said once, not at every look, and the champion answers on."""
    journal = champion(place, 1, 2)
    registry(place).client.delete_model_version(NAME, "2")
    recovery = Recovery(place)
    assert [len(recovery.look().hand_made) for _ in range(3)] == [1, 0, 0]
    (row,) = journal.hand_made(NAME)
    assert row["answer"] == CANNOT
    assert "was deleted in MLflow" in row["reason"]
    assert journal.releases(NAME)[-1].version == 2


def test_r_06_a_change_that_the_policy_accepts_is_a_release_like_any_other(place: Settings):
    """Version 3 passed its gates: it is champion by a release of the next generation, which says what it follows."""
    accepts(place)
    journal = champion(place, 1, 2)
    registry(place).point("champion", 3)
    assert len(Recovery(place).look().hand_made) == 1
    assert len(Recovery(place).look().finished) == 1
    now = journal.releases(NAME)[-1]
    assert (now.version, now.generation, now.actor) == (3, 3, releasing.IN_MLFLOW)
    assert journal.release_intents(NAME)[-1].phase == "confirmed"
    assert journal.hand_made(NAME)[0]["answer"] == "accepted"
    assert alias(place) == 3


@pytest.mark.parametrize("why", ["refused", "rolled back", "unknown", "altered", "compared with another"])
def test_r_06_a_change_that_may_not_be_released_is_put_back_whatever_the_policy(place: Settings, why: str):
    """A gate refused it, or it was rolled back, or nobody trained it, or its bundle is not the one, or it was judged against another champion: the reason is on record."""
    accepts(place)
    journal = champion(place, *((1, 2) if why == "compared with another" else (1, 3, 2)))
    target = 3
    if why == "rolled back":
        crowned(place, 3)
        journal.release(replace(journal.releases(NAME)[2], generation=5, kind="rollback"))
    elif why == "refused":
        (row,) = (row for row in journal.trainings(NAME) if row["version"] == 3)
        failed = {"gate": "champion", "passed": False, "reason": "worse"}
        verdicts = [failed if verdict["gate"] == "champion" else verdict for verdict in row["detail"]["verdicts"]]
        journal.end_training(
            row["id"], state="refused", reason="", at=NOW, detail=row["detail"] | {"verdicts": verdicts}
        )
    elif why == "compared with another":
        row = journal.made(NAME, 3)
        assert row is not None
        journal.end_training(row["id"], state="crashed", reason="", at=NOW, detail=row["detail"] | {"against": 1})
    elif why == "altered":
        (place.bundles(NAME) / "3" / "model.skops").write_bytes(b"another")
    else:
        target = int(registry(place).client.create_model_version(NAME, source="file:///nothing").version)
    registry(place).point("champion", target)
    before = journal.releases(NAME)
    Recovery(place).look()
    (row,) = journal.hand_made(NAME)
    wanted = {
        "refused": "did not pass: champion",
        "rolled back": "was rolled back by",
        "unknown": "has no version",
        "altered": "altered",
        "compared with another": "was compared with version 1, but version 2 is champion",
    }
    assert row["answer"] == "put back"
    assert wanted[why] in row["reason"]
    assert journal.releases(NAME) == before
    assert alias(place) == 2


def test_r_06_an_accepted_change_stands_though_no_server_follows_at_once(
    place: Settings, monkeypatch: pytest.MonkeyPatch
):
    """The server is restarting: the release is committed, the alias is not put back, and the next look tells the server's absence."""
    accepts(place)
    journal = champion(place, 1, 2)
    registry(place).point("champion", 3)
    monkeypatch.setenv("KEEPFIT_SERVING_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(recover, "FOLLOW", 0.0)
    Recovery(Settings()).look()
    assert "does not answer with version 3" in Recovery(Settings()).look().trouble[0]
    assert (journal.releases(NAME)[-1].version, alias(place)) == (3, 3)
    assert [row["answer"] for row in journal.hand_made(NAME)] == ["accepted"]


@pytest.mark.parametrize("policy", ["put_back", "accept"])
def test_r_06_a_change_by_hand_is_answered_while_no_server_follows(
    place: Settings, monkeypatch: pytest.MonkeyPatch, policy: str
):
    """The servers are down for a while: what is moved in MLflow meanwhile is on record and put back, or accepted, as at any other time."""
    if policy == "accept":
        accepts(place)
    champion(place, 1)
    journal = Journal(place.journal())
    releasing.Releasing(NAME, place).release(2, actor="a test", reason="a test")
    monkeypatch.setenv("KEEPFIT_SERVING_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(recover, "FOLLOW", 0.0)
    Recovery(Settings()).look()
    assert (alias(place), journal.release_intents(NAME)[-1].phase) == (2, "aliased")
    registry(place).point("champion", 3)
    Recovery(Settings()).look()
    (row,) = journal.hand_made(NAME)
    assert (row["met"], row["answer"]) == ("version 3", "accepted" if policy == "accept" else "put back")
    assert alias(place) == journal.releases(NAME)[-1].version == (3 if policy == "accept" else 2)


def test_an_alias_that_a_release_is_moving_is_no_hand_made_change(place: Settings):
    """While a release is under way its alias is its own business."""
    champion(place, 1)
    crowned(place, 2)  # committed, and its alias has not moved
    with releasing.Releasing(NAME, place).alone():
        assert Recovery(place).look().hand_made == []
    assert Journal(place.journal()).hand_made(NAME) == []


# -- dead runs ------------------------------------------------------------------------------------------------------------
SLEEPER = """
import sys
from tasks.config.settings import Settings
from tasks.stores import processes
from tasks.stores.journal import Journal
from tests.receiver import Receiver, receiving
from tests.released import InProcess, NAME, NOW
journal = Journal(Settings().journal())
with journal.alone(f"train {NAME}"):
    journal.start_training(project=NAME, trigger="t", event=True, snapshot="s", config="c", at=NOW, process=processes.this(), runner="a test")
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_o_02_a_training_whose_process_was_killed_is_told_as_crashed(place: Settings, monkeypatch: pytest.MonkeyPatch):
    """While it lives it is left alone; killed, the next look ends it, and its lock is free."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    journal = Journal(place.journal())
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "begun\n"
        number = journal.trainings(NAME)[-1]["id"]
        assert Recovery(place).look().dead == []
        assert journal.trainings(NAME)[-1]["state"] == "running"
        sleeper.kill()
    assert Recovery(place).look().dead == [f"training {number} of {NAME}"]
    row = journal.trainings(NAME)[-1]
    assert (row["state"], row["reason"].startswith("cut off: a test was gone")) == ("crashed", True)
    with journal.alone(f"train {NAME}", patience=0):
        pass


@pytest.mark.parametrize("either", ["postgresql"], indirect=True)
def test_o_02_a_training_elsewhere_that_lost_its_lock_makes_no_version_once_it_is_told_as_crashed(
    either: Settings,
):
    """Its connection to PostgreSQL is gone and another machine's recovery has ended it: it says so before MLflow gets anything, and the record stays."""
    journal = Journal(either.journal())
    with journal.alone(f"train {NAME}"):
        number = journal.start_training(
            project=NAME, trigger="t", event=True, snapshot="s", config="c", at=NOW, process="elsewhere 1 2 3"
        )
        assert contextvars.Context().run(Recovery(either).look).dead == []
        cut(journal.engine)
        assert contextvars.Context().run(Recovery(either).look).dead == [f"training {number} of {NAME}"]
        with pytest.raises(ConflictError, match="is no longer this process's"):
            Journal(either.journal()).assure()
        with pytest.raises(ConflictError, match="is no longer this process's"):
            Journal(either.journal()).end_training(number, state="released", reason="better", at=NOW, version=9)
    row = journal.trainings(NAME)[-1]
    assert (row["state"], row["version"]) == ("crashed", None)


def test_o_02_a_training_that_has_just_failed_is_not_called_dead(place: Settings):
    """Its lock is free already, but its process lives and is about to say how it ended."""
    journal = Journal(place.journal())
    journal.start_training(
        project=NAME, trigger="t", event=True, snapshot="s", config="c", at=NOW, process=processes.this()
    )
    assert Recovery(place).look().dead == []
    assert journal.trainings(NAME)[-1]["state"] == "running"


def test_s_10_a_process_is_told_from_another_of_its_number_without_a_clock():
    """Number, machine, boot and ticks since the boot: one that ended, another boot's, and another machine's are each told."""
    mine = processes.this()
    host, boot, number, began = mine.split()
    assert processes.is_gone(mine) is False
    assert processes.is_gone(f"{host} {boot} {number} {int(began) + 1}") is True
    assert processes.is_gone(f"{host} another {number} {began}") is True
    assert processes.is_gone(f"elsewhere {boot} {number} {began}") is None
    assert processes.is_gone("") is None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = f"{host} {boot} {child.pid} {processes._began(child.pid)}"
        assert processes.is_gone(name) is False
        child.kill()
        until(lambda: processes.is_gone(name), 10, "its end")  # before anybody has waited for it
    assert processes.is_gone(name) is True


# -- trainings that are owed ----------------------------------------------------------------------------------------------
class Asked:
    """In place of the Prefect server, which would start the training in another process: one run for each key."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: dict[str, float] = {}
        self.snapshots = list[str]()
        self._lock = threading.Lock()
        monkeypatch.setattr(runs, "train", self.train)
        monkeypatch.setattr(runs, "bury", lambda _dead, *, here: [])  # noqa: ARG005
        monkeypatch.setattr(runs, "tell", lambda *_: None)

    def train(self, _project: str, _reason: str, key: str, delay: float, _by: str, snapshot: str | None = None) -> Any:
        with self._lock:
            self.snapshots += [snapshot] if snapshot and key not in self.runs else []
            self.runs.setdefault(key, delay)
        return SimpleNamespace(name=key, state=SimpleNamespace(is_final=lambda: False))


@pytest.fixture
def asked(place: Settings, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """A Prefect server is there, as far as settings say."""
    monkeypatch.setenv("KEEPFIT_PREFECT_URL", f"http://127.0.0.1:{free_port()}")
    return Asked(monkeypatch)


def lands(
    journal: Journal,
    version: int | None,
    outcomes: int | None = None,
    landed: int = 9,
    at: dt.datetime = NOW,
    replaced: int = 0,
) -> None:
    """A batch is on record."""
    row = {
        "project": NAME, "batch": f"{version} {outcomes}", "name": "f", "state": "landed", "reason": "", "arrived": 9, "landed": landed, "quarantined": 0,
        "known": 0, "at": at.isoformat(), "version": version, "outcomes": outcomes, "kind": "outcomes" if outcomes else "rows", "replaced": replaced,
    }  # fmt: skip
    journal.finish(NAME, [row], None)


def train(journal: Journal, rows: str, state: str = "registered", reason: str = "so") -> None:
    number = journal.start_training(project=NAME, trigger="t", event=True, snapshot="s", config="c", at=NOW, rows=rows)
    journal.end_training(number, state=state, reason=reason, at=NOW)


@pytest.mark.parametrize(
    ("landed", "trained", "owed"),
    [
        ([(3, None)], [], None),  # the home's own trainings were on v1 to v3
        ([(4, None)], [], "owed small v4.0 0"),
        ([(4, None), (5, None)], ["v4-12345678"], "owed small v5.0 0"),
        ([(4, None)], ["v6-12345678"], None),  # a later version of the table holds it
        ([(4, None), (None, 2)], ["v4-12345678"], "owed small v4.2 0"),
        ([(4, None), (None, 2)], ["v4.2-12345678"], None),
        ([(4, None)], ["v4-12345678@2026-01-01..2026-02-01"], "owed small v4.0 1"),  # a window that ends before it
    ],
)
def test_o_04_what_landed_and_was_not_trained_on_is_owed(place: Settings, asked: Asked, landed, trained, owed):
    """By the journal alone: whether an event ever came plays no part. However often it is looked, it is one run."""
    journal = Journal(Settings().journal())
    for version, outcomes in landed:
        lands(journal, version, outcomes)
    for rows in trained:
        train(journal, rows)
    for _ in range(3):
        Recovery(Settings(), grace=0).look()
    Recovery(Settings(), grace=0).look()
    recovery = Recovery(Settings(), grace=0)
    recovery.look()
    recovery.look()
    assert [key.rpartition(" ")[0] for key in asked.runs] == ([] if owed is None else [owed.rpartition(" ")[0]])


def test_o_04_an_event_has_its_time_before_it_counts_as_lost(
    place: Settings, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is started within the grace, and the grace begins anew when more lands."""
    now = [0.0]
    monkeypatch.setattr(owed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    journal, recovery = Journal(Settings().journal()), Recovery(Settings(), grace=10)
    lands(journal, 4)
    for moment in (0, 9):
        now[0] = moment
        recovery.look()
    lands(journal, 5)
    for moment in (11, 20):
        now[0] = moment
        recovery.look()
        assert asked.runs == {}
    now[0] = 21
    recovery.look()
    assert list(asked.runs) == ["owed small v5.0 0"]


def test_o_04_a_training_that_failed_is_tried_again_later_and_not_for_ever(place: Settings, asked: Asked):
    """Half a minute, then two; after the third one a person has to look."""
    journal = Journal(Settings().journal())
    lands(journal, 4)
    for tries in range(4):
        Recovery(Settings(), grace=0).look()
        assert len(asked.runs) == min(tries + 1, 3)
        train(journal, "v4-12345678", "failed")
    assert asked.runs == {"owed small v4.0 0": 0.0, "owed small v4.0 1": 30.0, "owed small v4.0 2": 120.0}


def test_o_05_what_mlflow_was_away_for_is_owed_until_it_answers(
    place: Settings, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    """No run is started while it is away, however long; when it answers there is one, and these tries are none of the three."""
    journal, away = Journal(Settings().journal()), [True]
    monkeypatch.setattr(Registry, "answers", lambda _: not away)
    lands(journal, 4)
    for _ in range(5):
        train(journal, "v4-12345678", "failed", f"{NO_MLFLOW}: a test")
        Recovery(Settings(), grace=0).look()
    assert asked.runs == {}
    away.clear()
    for _ in range(3):
        Recovery(Settings(), grace=0).look()
        train(journal, "v4-12345678", "failed")
    Recovery(Settings(), grace=0).look()
    assert list(asked.runs) == ["owed small v4.0 5", "owed small v4.0 6", "owed small v4.0 7"]
    assert max(asked.runs.values()) == owed._delay(CRASHES)


def test_o_05_what_was_kept_is_registered_when_mlflow_answers(
    place: Settings, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    """Of a project without policies, too; nothing newer is begun by itself before."""
    journal, away = Journal(Settings().journal()), [True]
    monkeypatch.setattr(Registry, "answers", lambda _: not away)
    lands(journal, 4)
    train(journal, "v4-12345678", KEPT)
    Recovery(Settings(), grace=0).look()
    assert asked.runs == {}
    away.clear()
    number = journal.trainings(NAME)[-1]["id"]
    for _ in range(2):
        Recovery(Settings(), grace=0).look()
    assert asked.runs == {f"kept small {number}": 0.0}
    assert asked.snapshots == ["v4-12345678"]


def test_o_05_what_mlflow_missed_of_a_training_that_has_ended_is_told_by_the_recovery(place: Settings):
    """But not of one that is kept: its run is begun when it is registered."""
    journal = Journal(place.journal())
    for own, state in (("1-aa", "refused"), ("2-bb", KEPT)):
        number = journal.start_training(project=NAME, trigger="t", event=True, snapshot="s", config="c", at=NOW)
        journal.end_training(number, state=state, reason="so", at=NOW, detail={"run": own, "kept": state == KEPT})
        folder = Minutes.of(place, NAME, own).folder
        durable.write(folder / "0001-start.json", json.dumps(["start", {"name": own, "tags": {"a": "b"}}]).encode())
        durable.write(folder / "0002-log.json", json.dumps(["log", {"tags": {"keepfit.decision": state}}]).encode())
    known = registry(place)
    (told,) = [said for said in Recovery(place).look().told if "the rest of run" in said]
    run = known.started("1-aa")
    assert run is not None
    assert run in told
    assert known.client.get_run(run).data.tags["keepfit.decision"] == "refused"
    assert known.started("2-bb") is None
    assert [each.folder.name for each in minutes.left(place, NAME)] == ["2-bb"]
    assert Recovery(place).look().told == []


def test_o_04_a_project_that_wants_no_training_on_batches_owes_none(place: Settings, asked: Asked):
    """`retrain: []` holds for lost events, too."""
    file = place.projects / NAME / "project.yaml"
    file.write_text(file.read_text() + "retrain: []\n")
    lands(Journal(Settings().journal()), 4)
    Recovery(Settings(), grace=0).look()
    assert asked.runs == {}


def test_o_07_many_looks_at_once_start_one_training(place: Settings, asked: Asked):
    """Five threads, twenty looks each: one run."""
    lands(Journal(Settings().journal()), 4)
    gate = threading.Barrier(5)

    def look() -> None:
        recovery = Recovery(Settings(), grace=0)
        gate.wait()
        for _ in range(20):
            recovery._owed.train(NAME)

    threads = [threading.Thread(target=look) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(asked.runs) == ["owed small v4.0 0"]


def test_a_look_at_nothing_says_nothing(settings: Settings):
    """Before anything has landed there is nothing to do, and MLflow is not asked."""
    assert (
        Recovery(settings, [NAME], clock=lambda: dt.datetime.now(dt.UTC)).look().model_dump(exclude_defaults=True) == {}
    )
