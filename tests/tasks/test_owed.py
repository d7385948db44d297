"""Owed: orders become runs and are answered, silence is noticed, trainings that hang are ended; each by what is."""

import datetime as dt
import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Scheduled

from tasks import owed
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.owed import Owed
from tasks.recover import Recovery
from tasks.stores import alarms, processes, runs
from tasks.stores.journal import Journal
from tasks.stores.predictions import Told
from tasks.tidy import Tidying
from tests.released import NAME, NOW, crowned, place, template
from tests.samples import free_port, until
from tests.tasks.test_recover import lands, train

__all__ = ["place", "template"]
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
WATCHED = "retrain: [{kind: rows, rows: 20, cooldown: 0}, {kind: drift}, {kind: decay}]\n"
SOURCE = 'sources: [{kind: listing, name: drop, url: "file:///nowhere/*.csv"}]\n'
NOT_DEPLOYED = "'fetch/small' is not deployed on the running stack. Say `keepfit deploy`."


class Prefect:
    """In place of the server, which would run in other processes: runs by id with what came of them, and events."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.planned: list[tuple[str, ...]] = []
        self.states: dict[str, str] = {}
        self.told: list[tuple[str, str, Any]] = []
        self.busy = self.down = False
        self.undeployed: set[str] = set()
        for name in ("train", "fetch", "watch", "came_of", "tell"):
            monkeypatch.setattr(runs, name, getattr(self, name))
        monkeypatch.setattr(runs, "bury", lambda _dead, *, here: [])  # noqa: ARG005

    def train(self, _project: str, reason: str, key: str, delay: float, by: str, _snapshot: str | None = None) -> Any:
        coming = [
            plan
            for number, plan in enumerate(self.planned, 1)
            if len(plan) == 4 and self.states[f"run {number}"] == "coming"
        ]
        if "train" in self.undeployed:
            raise ObjectNotFound(LookupError("404"), NOT_DEPLOYED)
        if self.busy or any(float(plan[3]) <= delay for plan in coming):
            return None
        return self._plan(key, reason, by, f"{delay:g}")

    def fetch(self, _project: str, source: str, key: str) -> Any:
        if "fetch" in self.undeployed:
            raise ObjectNotFound(LookupError("404"), NOT_DEPLOYED)
        return self._plan(key, source)

    def watch(self, _project: str, reason: str, key: str) -> Any:
        looks = {plan[0]: f"run {number}" for number, plan in enumerate(self.planned, 1) if "looked" in plan[1]}
        if self.busy or "coming" in {self.states[run] for run in looks.values()}:
            return None
        known = looks.get(key)
        return self._run(known) if known else self._plan(key, reason)

    def _plan(self, *what: str) -> Any:
        if self.down:
            raise ConnectionError("nobody answers")
        self.planned.append(what)
        number = f"run {len(self.planned)}"
        self.states[number] = "coming"
        return self._run(number)

    def _run(self, number: str) -> Any:
        made = {"coming": Scheduled, "obeyed": Completed, "lost": Failed, "killed": Crashed}
        return SimpleNamespace(id=number, name=number, state=made[self.states[number]]())

    def came_of(self, run: str) -> tuple[str, str]:
        return self.states[run], run

    def tell(self, event: str, project: str, payload: dict[str, Any]) -> None:
        if self.down:
            raise ConnectionError("nobody answers")
        self.told.append((event, project, payload))


@pytest.fixture
def prefect(place: Settings, monkeypatch: pytest.MonkeyPatch) -> Prefect:
    """A Prefect server is there, as far as settings say."""
    monkeypatch.setenv("KEEPFIT_PREFECT_URL", f"http://127.0.0.1:{free_port()}")
    return Prefect(monkeypatch)


def says(settings: Settings, more: str) -> Project:
    """Adds lines to the project's file."""
    file = settings.projects / NAME / "project.yaml"
    file.write_text(file.read_text() + more)
    return Project.named(NAME, settings)


def owing(settings: Settings, grace: float = 0.0, now: dt.datetime = NOW + dt.timedelta(days=1)) -> Owed:
    return Owed(settings, Journal(settings.journal()), grace, lambda: now)


def ordered(settings: Settings, key: str, does: str = "train", by: str = "hook", what: str = "") -> None:
    Journal(settings.journal()).order(
        project=NAME, key=key, does=does, by=by, reason=f"{key}!", what=what, at=NOW  # ty: ignore[invalid-argument-type]
    )  # fmt: skip


def stand(settings: Settings) -> list[tuple[str, str, int]]:
    return [(order.state, order.run, order.tries) for order in Journal(settings.journal()).orders(NAME)]


# -- orders ---------------------------------------------------------------------------------------------------------------
def test_o_07_many_orders_are_one_run(place: Settings, prefect: Prefect):
    """Twenty that wait have one run for all; it ends, and all are done. What comes meanwhile has the next one, for all of it (O-07)."""
    recovery = owing(place)
    for number in range(20):
        ordered(place, f"{number}")
    assert len(recovery.look(NAME)) == 1
    for number in range(20, 25):
        ordered(place, f"{number}")
    assert recovery.look(NAME) == []
    assert stand(place) == [("open", "run 1", 0)] * 20 + [("open", "", 0)] * 5
    prefect.states["run 1"] = "obeyed"
    recovery.look(NAME)
    assert prefect.planned == [("order 1 0", "0!", "hook", "0"), ("order 21 0", "20!", "hook", "0")]
    assert stand(place) == [("done", "run 1", 0)] * 20 + [("open", "run 2", 0)] * 5


def test_o_03_an_order_outlives_a_server_that_is_down(place: Settings, prefect: Prefect):
    """Nobody answers: it stays open, the look says so, and a later one makes the run, in another process, too (O-03, O-04)."""
    ordered(place, "a")
    prefect.down = True
    report = Recovery(Settings(), grace=0).look()
    assert "nobody answers" in report.trouble[0]
    prefect.down = False
    assert Recovery(Settings(), grace=0).look().started == ["small: a!: 'run 1'"]
    assert stand(place) == [("open", "run 1", 0)]


def test_while_another_training_is_coming_an_order_waits(place: Settings, prefect: Prefect):
    """It is that one's to obey, if it has not begun; else the next one's."""
    ordered(place, "a")
    prefect.busy = True
    assert owing(place).look(NAME) == []
    assert stand(place) == [("open", "", 0)]
    prefect.busy = False
    assert len(owing(place).look(NAME)) == 1


def test_an_order_whose_run_is_lost_is_tried_again_later(
    place: Settings, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
):
    """Half a minute, then two; after the third it has failed, and nothing more is planned."""
    now = [0.0]
    monkeypatch.setattr(owed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    recovery = owing(place)
    ordered(place, "a")
    for number, wait in ((1, 30), (2, 120), (3, 0)):
        recovery.look(NAME)
        assert len(prefect.planned) == number
        prefect.states[f"run {number}"] = "lost"
        recovery.look(NAME)
        now[0] += wait - 1
        recovery.look(NAME)
        assert len(prefect.planned) == number
        now[0] += 1
    assert [key for key, *_ in prefect.planned] == ["order 1 0", "order 1 1", "order 1 2"]
    assert [state for state, _, _ in stand(place)] == ["failed"]


def test_a_fetch_is_of_the_declared_source(place: Settings, prefect: Prefect):
    """Orders for one source are one run; another source has its own."""
    says(place, SOURCE)
    for key, source in (("a", "drop"), ("b", "drop"), ("c", "other")):
        ordered(place, key, "fetch", what=source)
    owing(place).look(NAME)
    assert prefect.planned == [("order 1 0", "drop"), ("order 3 0", "other")]
    assert [run for _, run, _ in stand(place)] == ["run 1", "run 1", "run 2"]


def test_an_order_that_cannot_be_placed_holds_up_no_other(place: Settings, prefect: Prefect):
    """A source and its hook were declared and not deployed: what else is ordered, landed or alarmed goes its way, and the look says what is amiss."""
    says(place, WATCHED + SOURCE)
    lands(crowned(place, 1), 1)
    prefect.undeployed = {"fetch"}
    ordered(place, "a", "fetch", what="drop")
    ordered(place, "b", by="hook")
    sounded(place, "ignore")
    report = Recovery(Settings(), grace=0).look()
    assert [order.state for order in Journal(place.journal()).orders(NAME)] == ["open", "open", "done"]
    assert [event for event, *_ in prefect.told] == ["keepfit.drift.detected"]
    assert report.started[-2:] == ["small: b!: 'run 1'", "small: what landed was not looked at: 'run 2'"]
    assert report.trouble == []


def test_a_fetch_that_is_not_deployed_is_answered_with_the_reason(
    place: Settings, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
):
    """Tried as often as a run that fails; who deploys meanwhile has it fetched, else whoever ordered reads what to do."""
    now = [0.0]
    monkeypatch.setattr(owed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    says(place, SOURCE)
    prefect.undeployed = {"fetch"}
    ordered(place, "a", "fetch", what="drop")
    recovery = owing(place)
    for _ in range(10):
        recovery.look(NAME)
        now[0] += 60
    (order,) = Journal(place.journal()).orders(NAME)
    assert (order.state, order.tries) == ("failed", 3)
    assert order.said == NOT_DEPLOYED
    ordered(place, "b", "fetch", what="drop")
    recovery.look(NAME)
    prefect.undeployed = set()
    now[0] += 60
    for _ in range(2):
        recovery.look(NAME)
        now[0] += 60
    assert stand(place)[-1] == ("open", "run 1", 1)


def test_what_fails_of_a_look_keeps_the_rest_of_it_not_back(place: Settings, prefect: Prefect):
    """The training that is owed and the one that is ordered find nobody to plan them: alarms are told and the look is planned; trouble is said once."""
    says(place, "retrain: [{kind: batch, cooldown: 0}]\n")
    lands(crowned(place, 1), 4)
    prefect.undeployed = {"train"}
    ordered(place, "a")
    sounded(place, "ignore")
    report = Recovery(Settings(), grace=0).look()
    assert [event for event, *_ in prefect.told] == ["keepfit.drift.detected"]
    assert looks(prefect) == ["what landed was not looked at"]
    assert report.started[-1].startswith("small: what landed was not looked at")
    assert len(report.trouble) == 1
    assert [order.state for order in Journal(place.journal()).orders(NAME)] == ["open", "done"]


def test_a_long_cool_down_of_one_policy_holds_up_no_other(place: Settings, prefect: Prefect):
    """Drift waits for an hour; a program's order that comes meanwhile has a run at once, which the later one does not keep away."""
    says(place, WATCHED)
    train(Journal(place.journal()), "v4-12345678")
    ordered(place, "a", by="drift")
    recovery = owing(place, now=NOW + dt.timedelta(minutes=10))
    recovery.look(NAME)
    ordered(place, "b", by="hook")
    recovery.look(NAME)
    recovery.look(NAME)
    assert prefect.planned == [("order 1 0", "a!", "drift", "3000"), ("order 2 0", "b!", "hook", "0")]
    assert [run for _, run, _ in stand(place)] == ["run 1", "run 2"]


# -- alarms ---------------------------------------------------------------------------------------------------------------
def sounded(
    settings: Settings, what: str, incident: str = "i1", kind: str = "drift", at: dt.datetime = NOW
) -> list[int]:
    use, journal = Project.named(NAME, settings), Journal(settings.journal())
    return alarms.sound(use, journal, kind, what, reason="amount rose", incident=incident, at=at)  # ty: ignore[invalid-argument-type]


def test_an_incident_that_lasts_asks_again_after_a_training_and_on_another_day(place: Settings):
    """Not while the training is under way that it asked for; one that ended without curing it is a reason to ask again."""
    says(place, WATCHED)
    journal, asked = Journal(place.journal()), list[int]()
    asked.append(len(sounded(place, "retrain")))
    number = journal.start_training(project=NAME, trigger="t", event=True, snapshot="s", config="c", at=NOW, by="drift")
    asked.append(len(sounded(place, "retrain")))
    journal.end_training(number, state="refused", reason="worse", at=NOW)
    asked += [len(sounded(place, "retrain")) for _ in range(2)]
    asked += [len(sounded(place, "retrain", at=NOW + dt.timedelta(hours=24))) for _ in range(2)]
    assert asked == [2, 0, 2, 0, 2, 0]


def test_an_alarm_is_told_and_its_event_has_its_time(
    place: Settings, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
):
    """The event goes out at once, with class, reason and incident; the recovery plans a training only when it was lost (O-04)."""
    now = [0.0]
    monkeypatch.setattr(owed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    says(place, WATCHED)
    recovery = owing(place, grace=10)
    assert len(sounded(place, "retrain")) == 2
    assert sounded(place, "retrain") == []
    recovery.look(NAME)
    payload = {"class": "retrain", "reason": "amount rose", "incident": "i1"}
    assert prefect.told == [("keepfit.drift.detected", NAME, payload)]
    now[0] = 9
    recovery.look(NAME)
    assert prefect.planned == []
    now[0] = 10
    recovery.look(NAME)
    assert prefect.planned == [("order 1 0", "amount rose", "drift", "0")]


@pytest.mark.parametrize(("what", "policies"), [("ignore", WATCHED), ("mend", WATCHED), ("retrain", "")])
def test_an_alarm_that_wants_no_training_orders_none(place: Settings, prefect: Prefect, what, policies):
    """By its class, or because the project retrains on batches alone; it is told in any case."""
    says(place, policies)
    assert len(sounded(place, what)) == 1
    owing(place).look(NAME)
    assert prefect.planned == []
    assert len(prefect.told) == 1


def test_o_11_a_storm_of_alarms_is_one_order_an_incident(place: Settings, prefect: Prefect):
    """However many of one incident: one event, one run (O-11)."""
    says(place, WATCHED)
    for _ in range(50):
        sounded(place, "retrain", kind="decay")
    recovery = owing(place)
    for _ in range(3):
        recovery.look(NAME)
    assert len(prefect.planned) == len(prefect.told) == 1
    assert prefect.told[0][0] == "keepfit.performance.decayed"


def test_an_order_that_a_cap_refuses_is_answered_without_a_run(place: Settings, prefect: Prefect):
    """The budget is used up: each of ten incidents is refused with the reason, none has a run, and one event tells of it."""
    says(place, WATCHED + "budget: {runs: 3}\n")
    for number in range(10):
        sounded(place, "retrain", incident=f"{number}")
        owing(place).look(NAME)
    wanted = [order for order in Journal(place.journal()).orders(NAME) if order.does == "train"]
    assert all(order.state == "refused" and "3 of 3 trainings" in order.said for order in wanted)
    assert prefect.planned == []
    assert [event for event, *_ in prefect.told].count("keepfit.budget.spent") == 1


# -- what landed ----------------------------------------------------------------------------------------------------------
def test_so_many_rows_owe_a_training(place: Settings, prefect: Prefect):
    """Nine a batch: the third one since the newest snapshot that was trained on makes twenty."""
    says(place, WATCHED)
    journal, recovery = Journal(Settings().journal()), owing(Settings())
    for version in (4, 5):
        lands(journal, version)
        assert recovery.look(NAME) == []
    lands(journal, 6)
    assert len(recovery.look(NAME)) == 1
    assert prefect.planned == [("owed small v6.0 0", "v6.0 landed and was not trained on", "rows", "0")]
    train(journal, "v6-12345678")
    lands(journal, 7)
    assert owing(Settings()).look(NAME) == []


TEACHES = "landed: more of what an alarm was about may teach now than the champion knew"


def trained(journal: Journal, rows: str, by: str, version: int | None = None, state: str = "released") -> None:
    """A training by some start is on record, in the flow run `r1`; twelve rows judged."""
    number = journal.start_training(
        project=NAME,
        trigger="t",
        event=True,
        snapshot="s",
        config="c",
        at=NOW,
        rows=rows,
        by=by,
        runner="flow run r1, process 1",
    )
    journal.end_training(number, state=state, reason="so", at=NOW, version=version, detail={"judged": 12})


@pytest.mark.parametrize(
    ("policies", "by", "version", "wanted"),
    [
        (WATCHED, "drift", 1, True),
        (WATCHED, "decay", 1, True),
        (WATCHED, "rows", 1, False),
        (WATCHED, "drift", 2, False),  # refused, or taken back since
        (WATCHED.replace("drift", "drift, follow_up: false"), "drift", 1, False),
        (WATCHED.replace(", {kind: decay}", ""), "decay", 1, False),  # no policy of the project's any more
    ],
)
@pytest.mark.parametrize("between", [False, True])
def test_after_an_alarms_champion_one_follow_up_is_owed(
    place: Settings, prefect: Prefect, policies, by, version, wanted, between
):
    """Twelve rows judged it: after nine no training is owed, after eighteen one is, also where another was refused meanwhile; after that one none."""
    says(place, policies.replace("rows: 20", "rows: 999"))
    journal, recovery = crowned(place, 1), owing(Settings())
    trained(journal, "v4-12345678", by, version)
    lands(journal, 5)
    assert recovery.train(NAME) == []
    if between:
        trained(journal, "v5-12345678", "drift", state="refused")
    lands(journal, 6)
    recovery.train(NAME)
    assert [plan[:3] for plan in prefect.planned] == [("owed small v6.0 0", f"v6.0 {TEACHES}", "rows")] * wanted
    trained(journal, "v6-12345678", "rows", state="refused")
    for landed in (7, 8):
        lands(journal, landed)
        recovery.train(NAME)
    assert len(prefect.planned) == wanted


def test_an_alarm_that_a_person_answered_has_a_follow_up_too(place: Settings, prefect: Prefect):
    """Who trains by hand takes the alarm's order along."""
    says(place, WATCHED.replace("rows: 20", "rows: 999"))
    journal = crowned(place, 1)
    trained(journal, "v4-12345678", "hand", 1)
    lands(journal, 5)
    lands(journal, 6)
    assert owing(Settings()).train(NAME) == []
    ordered(place, "a", by="decay")
    journal.run_for(journal.orders(NAME), "r1")
    journal.answer(journal.orders(NAME), "done", "by the run 'x'")
    assert len(owing(Settings()).train(NAME)) == 1


def test_rows_that_cannot_judge_owe_no_follow_up(place: Settings, prefect: Prefect):
    """Corrections of older rows; and rows whose label comes as an outcome, until it has come."""
    says(place, WATCHED.replace("rows: 20", "rows: 999"))
    journal, recovery = crowned(place, 1), owing(Settings())
    trained(journal, "v4-12345678", "decay", 1)
    lands(journal, 5, landed=18, replaced=18)
    assert recovery.train(NAME) == []
    lands(journal, None, 2)
    lands(journal, 6, landed=18)
    assert recovery.train(NAME) == []
    lands(journal, None, 3)
    assert len(recovery.train(NAME)) == 1


def test_what_the_budget_refuses_is_owed_until_it_opens(place: Settings, prefect: Prefect):
    """No run at every look; 30 days after the trainings of the home there is one."""
    says(place, "budget: {runs: 3}\n")
    lands(Journal(Settings().journal()), 4)
    for _ in range(2):
        owing(Settings(), now=NOW + dt.timedelta(days=29)).look(NAME)
    assert prefect.planned == []
    owing(Settings(), now=NOW + dt.timedelta(days=30)).look(NAME)
    assert len(prefect.planned) == 1


def test_a_budget_that_rows_have_used_up_is_told_once(place: Settings, prefect: Prefect):
    """No event starts a run of `rows` that would say so; nothing is planned, and one message goes out however often it is looked."""
    says(place, WATCHED + "budget: {runs: 3}\n")
    for version in (4, 5, 6):
        lands(Journal(Settings().journal()), version)
    for _ in range(3):
        owing(Settings()).look(NAME)
    assert prefect.planned == []
    assert [event for event, *_ in prefect.told] == ["keepfit.budget.spent"]


def looked(journal: Journal, landed: str, at: dt.datetime = NOW) -> None:
    """A look is on record, before which so much had landed."""
    journal.record_watch(project=NAME, at=at, version=1, verdict="ok", detail={}, landed=landed)


def looks(prefect: Prefect) -> list[str]:
    return [reason for _, reason, *_ in prefect.planned if "looked" in reason]


def test_what_landed_and_was_not_looked_at_owes_a_look_once(place: Settings, prefect: Prefect):
    """Its event was lost: one run a batch, in another process, too, unless a look began since; a failed one is not repeated."""
    journal, recovery = crowned(place, 1), owing(place)
    lands(journal, 1)
    looked(journal, "v0.0")
    prefect.busy = True
    recovery.look(NAME)
    assert looks(prefect) == []
    prefect.busy = False
    assert recovery.look(NAME)[-1] == "small: what landed was not looked at: 'run 1'"
    assert recovery.look(NAME) == []
    prefect.states["run 1"] = "lost"
    for process in (recovery, recovery, owing(place)):
        assert process.look(NAME) == []
    assert looks(prefect) == ["what landed was not looked at"]
    assert prefect.planned[-1][0] == f"owed look {NAME} v1.0 0", "a key is of all projects"
    looked(journal, "v1.0")
    assert owing(place).look(NAME) == []
    lands(journal, 2)  # at the same moment, after the look began
    owing(place).look(NAME)
    assert len(looks(prefect)) == 2


def test_s_10_what_lands_after_the_clock_went_back_owes_a_look(place: Settings, prefect: Prefect):
    """Though the last look says that it began later; and a look at what landed while the clock stood ahead is not owed again (S-10)."""
    journal, ahead = crowned(place, 1), NOW + dt.timedelta(days=365)
    lands(journal, 1, at=ahead)
    looked(journal, "v1.0", ahead)
    lands(journal, 2)
    assert owing(place).look(NAME)[-1] == "small: what landed was not looked at: 'run 1'"
    prefect.states["run 1"] = "obeyed"
    looked(journal, "v2.0")
    lands(journal, 2, 3, at=ahead)
    looked(journal, "v2.3")
    owing(place).look(NAME)
    assert len(looks(prefect)) == 1


def test_an_event_has_its_time_to_start_a_look(place: Settings, prefect: Prefect):
    """Ten seconds of the recovery are not over at its first look."""
    lands(crowned(place, 1), 1)
    owing(place, grace=600.0).look(NAME)
    assert looks(prefect) == []


def test_a_look_that_is_killed_is_owed_again_three_times_in_all(place: Settings, prefect: Prefect):
    """Nobody would look until the next batch lands; what always kills it is left alone then."""
    lands(crowned(place, 1), 1)
    recovery = owing(place)
    for killed in range(1, 4):
        assert recovery.look(NAME)[-1].endswith(f"'run {len(prefect.planned)}'")
        assert len(looks(prefect)) == killed
        assert recovery.look(NAME) == []
        prefect.states[f"run {len(prefect.planned)}"] = "killed"
    for process in (recovery, owing(place)):
        assert process.look(NAME) == []
    assert len(looks(prefect)) == 3


def test_batches_that_follow_each_other_quickly_owe_a_look_all_the_same(
    place: Settings, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
):
    """One a second, and every event is lost: ten seconds after the first there is a look; it fails, and the next batch has ten seconds again."""
    now = [0.0]
    monkeypatch.setattr(owed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    journal, recovery, began = crowned(place, 1), owing(place, grace=10), list[float]()
    for second in range(35):
        now[0] = second
        lands(journal, second + 1, at=NOW + dt.timedelta(seconds=second))
        before = len(looks(prefect))
        recovery.look(NAME)
        if len(looks(prefect)) > before:
            began.append(second)
            prefect.states[f"run {len(prefect.planned)}"] = "lost"
    assert began == [10, 21, 32]


@pytest.mark.parametrize("champions", [(), (1,)])
def test_no_look_is_owed_where_none_is_wanted(place: Settings, prefect: Prefect, champions):
    """Without a champion there is nothing to look at; or the project looks by the clock alone."""
    if champions:
        says(place, "watch: {on_batch: false}\n")
    lands(crowned(place, *champions), 1)
    owing(place).look(NAME)
    assert looks(prefect) == []


# -- silence --------------------------------------------------------------------------------------------------------------
NOON_AFTER = NOW + dt.timedelta(hours=12)
SILENT = "retrain: [{{kind: batch}}, {{kind: silence, hours: 26, retrain: {retrain}}}]\n"


@pytest.mark.parametrize(("retrain", "planned"), [("false", 0), ("true", 1)])
def test_silence_is_told_once_and_trained_on_where_it_is_wanted(place: Settings, prefect: Prefect, retrain, planned):
    """Not before its hours; once for a silence, in another process, too; anew after the next batch."""
    says(place, SILENT.format(retrain=retrain))
    journal = Journal(Settings().journal())
    lands(journal, 1)  # it is among what was trained on

    def look(hours: float) -> None:
        owing(Settings(), now=NOW + dt.timedelta(hours=hours)).look(NAME)

    look(26)
    assert prefect.told == []
    look(27)
    look(28)
    ((event, _, payload),) = prefect.told
    assert (event, payload["class"]) == ("keepfit.data.silent", "retrain" if planned else "mend")
    assert payload["reason"] == "no rows have landed for 27 hours; expected were some within 26"
    assert [plan[2] for plan in prefect.planned] == ["silence"] * planned


def test_outcomes_that_are_told_of_predictions_are_no_silence(place: Settings, prefect: Prefect):
    """One file of outcomes landed long ago, or none ever; since then they stream in by prediction id. It is told when that ends, once, with its hours."""
    says(place, "retrain: [{kind: batch}, {kind: silence, of: outcomes, hours: 26}]\n")
    told, day = Told(place.home), dt.timedelta(days=1)
    lands(Journal(Settings().journal()), 3, 1)
    for hours in (0, 24, 48):
        told.tell(NAME, NOON_AFTER + hours * day / 24, [(f"p{hours}", True, NOW - 99 * day)])
    for hours in (48, 74, 75, 76):
        owing(Settings(), now=NOON_AFTER + hours * day / 24).look(NAME)
    ((event, _, payload),) = prefect.told
    assert (event, payload["of"]) == ("keepfit.data.silent", "outcomes")
    assert payload["reason"] == "no outcomes have landed for 27 hours; expected were some within 26"


def test_a_silence_is_the_same_when_its_logs_went_into_the_lake(place: Settings, prefect: Prefect):
    """The last outcome came 40 days ago, a file landed before it, and its log is removed, as tidying does: another process tells no second silence, and one that saw the log neither."""
    use, day = says(place, "retrain: [{kind: batch}, {kind: silence, of: outcomes, hours: 26}]\n"), dt.timedelta(days=1)
    told, now = Told(place.home), [NOW + 2 * day]
    told.tell(NAME, NOW, [("p", True, None)])
    lands(Journal(place.journal()), 3, 1, at=NOW - 5 * day)
    recovery = Owed(Settings(), Journal(place.journal()), 0.0, lambda: now[0])
    recovery.look(NAME)
    now[0] = NOW + 40 * day
    assert Tidying(use, place, lambda: now[0]).tidy(30)["logs"] == [f"told/{NOW.date()}.jsonl"]
    assert told.files(NAME) == []
    for process in (recovery, owing(Settings(), now=now[0])):
        process.look(NAME)
    assert [payload["reason"] for _, _, payload in prefect.told] == [
        "no outcomes have landed for 48 hours; expected were some within 26"
    ]
    told.tell(NAME, now[0], [("q", True, None)])
    now[0] += 2 * day
    recovery.look(NAME)
    assert len(prefect.told) == 2


def test_before_anything_has_landed_nothing_is_silent(place: Settings, prefect: Prefect):
    """A project that has just been made is not late."""
    says(place, SILENT.format(retrain="true"))
    owing(place, now=NOW + dt.timedelta(days=999)).look(NAME)
    assert (prefect.told, prefect.planned) == ([], [])


# -- trainings that hang --------------------------------------------------------------------------------------------------
HANGING = """
import os, subprocess, sys
from tasks.config.settings import Settings
from tasks.stores import processes
from tasks.stores.journal import Journal
from tasks.stores.predictions import Told
from tests.released import NAME, NOW
os.setsid()
child = subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(3600)"], stdout=subprocess.DEVNULL)
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], stdout=subprocess.DEVNULL)
journal = Journal(Settings().journal())
with journal.alone(f"train {NAME}"):
    journal.start_training(project=NAME, trigger="t", event=True, snapshot="s", config="c", at=NOW, process=processes.this(), runner="a test")
    print(child.pid, other.pid, flush=True)
    child.wait()
"""


def test_o_13_a_training_that_hangs_is_ended_with_all_that_it_started(place: Settings, monkeypatch: pytest.MonkeyPatch):
    """At its limit; its group and a child with a session of its own are gone from the list of processes, the reason is on record (O-13)."""
    now = [0.0]
    monkeypatch.setattr(owed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    says(place, "budget: {hours: 2}\n")
    journal, recovery = Journal(place.journal()), Recovery(place, clock=lambda: NOW)
    with subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE, text=True) as hanging:
        try:
            assert hanging.stdout is not None
            children = [int(word) for word in hanging.stdout.readline().split()]
            assert len(children) == 2
            assert recovery.look().dead == []
            now[0] = 2 * 3600 - 1
            assert recovery.look().dead == []
            now[0] += 1
            row = journal.trainings(NAME)[-1]
            assert recovery.look().dead == [f"training {row['id']} of {NAME}"]
            until(lambda: hanging.poll() is not None, 10, "its end")
            assert not any(
                psutil.pid_exists(number) and psutil.Process(number).status() != "zombie" for number in children
            )
        finally:
            if hanging.poll() is None:
                os.killpg(hanging.pid, signal.SIGKILL)
    ended = journal.trainings(NAME)[-1]
    assert (ended["state"], ended["reason"]) == (
        "failed", "ended with all its processes after 2 hours, the limit of budget.hours; the champion stays",
    )  # fmt: skip
    with journal.alone(f"train {NAME}", patience=0):
        pass


def test_o_13_a_process_that_has_another_ones_number_is_not_ended():
    """The number was given away meanwhile: nothing is killed."""
    host, boot, number, began = processes.this().split()
    processes.end(f"{host} {boot} {number} {int(began) + 1}")
    processes.end(f"elsewhere {boot} {number} {began}")
