"""Trigger: what is admitted, what is refused and why, and which orders that answers; no server is asked."""

import datetime as dt
import math
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from prefect.logging import disable_run_logger

from flows import train as flow
from tasks import trigger
from tasks.config.errors import StackError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ingest import Landings
from tasks.ml.explain import Importance
from tasks.ml.gates import Verdict
from tasks.ml.metrics import Estimate
from tasks.ml.policy import By
from tasks.ml.recipe import Recipe
from tasks.stores import candidates, runs
from tasks.stores.journal import KEPT, Journal
from tasks.stores.minutes import Minutes
from tasks.stores.references import Best, Candidate, Decision, Finished, Prepared, Scores, Training
from tasks.stores.registry import IMPATIENT, Registry
from tests.released import NAME, NOW, place, template
from tests.samples import free_port, until, write_rows
from tests.tasks.test_owed import ordered, says, stand

__all__ = ["place", "template"]
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
ALWAYS = "retrain: [{kind: batch, cooldown: 0}, {kind: drift, cooldown: 0}, {kind: decay}]\n"


def land(settings: Settings, folder: Path, first: int = 0) -> None:
    rows = [
        {"id": number, "at": f"2026-01-{number % 28 + 1:02d}", "y": number % 2 == 0, "amount": number, "kind": "a"}
        for number in range(first, first + 20)
    ]
    Landings(Project.named(NAME, settings), settings).land(write_rows(folder / f"{first}.csv", rows))


def admitted(by: By = "hand", *, again: bool = False) -> Training:
    with disable_run_logger(), trigger.alone(NAME):
        return trigger.admit.fn(NAME, None, "a test", by=by, again=again)


def ends(settings: Settings, training: Training, state: str = "refused") -> None:
    Journal(settings.journal()).end_training(training.id, state=state, reason="so", at=dt.datetime.now(dt.UTC))


@pytest.fixture
def landed(place: Settings, tmp_path: Path) -> Settings:
    """The home with rows; nothing cools down."""
    says(place, ALWAYS)
    land(place, tmp_path)
    return place


def test_what_starts_a_training_is_on_record(landed: Settings):
    """By, in the journal, and which trusted set judges: none yet; only a person's start counts as none of an event."""
    for by in ("drift", "hand"):
        training = admitted(by, again=True)
        assert training.refused == ""
        ends(landed, training)
    rows = Journal(landed.journal()).trainings(NAME)[-2:]
    assert [(row["by"], row["event"], row["trusted"]) for row in rows] == [("drift", True, 0), ("hand", False, 0)]


def test_a_window_without_a_row_is_refused(landed: Settings):
    """A person names a window of time in which nothing happened: the refusal names it, and no training is on record."""
    before = Journal(landed.journal()).trainings(NAME)
    with disable_run_logger(), trigger.alone(NAME):
        training = trigger.admit.fn(NAME, "@2090-01-01..", "a test", by="hand", again=True)
    assert training.refused.startswith(f"no row of {NAME} is in v")
    assert "@2090-01-01T00:00:00+00:00..; name another window" in training.refused
    assert Journal(landed.journal()).trainings(NAME) == before


def test_o_07_three_at_once_are_one_training(landed: Settings):
    """Schedule, drift and a person, one after the other as the lock lets them: the first trains, the others are told that it was (O-07)."""
    first = admitted("schedule")
    ends(landed, first)
    others = [admitted("drift"), admitted("hand")]
    assert all("was trained on already" in each.refused for each in others)
    assert not any(each.wait for each in others)


class Trained:
    """The training flow without a server: admission, lock, journal and MLflow are real, and the first one to train is held up in it."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal, self.registry = (
            Journal(settings.journal()),
            Registry(NAME, settings.mlflow(), settings.artifacts),
        )
        self.came, self.said, self.let = list[str](), dict[str, str](), threading.Event()
        self.inside, real = threading.Event(), Journal.alone
        fine = SimpleNamespace(refused="", recipe=None)
        for name in ("prepare", "tune", "evaluate"):
            monkeypatch.setattr(flow, name, lambda *_: fine)
        monkeypatch.setattr(flow, "gate", lambda *_: [])
        monkeypatch.setattr(flow, "Finished", SimpleNamespace)
        for name, step in {"fit": self.fit, "register": self.register, "decline": lambda _, reason: reason}.items():
            monkeypatch.setattr(flow, name, step)
        monkeypatch.setattr(flow, "admit", trigger.admit.fn)

        def alone(journal: Journal, what: str, patience: float = 600) -> AbstractContextManager[None]:
            self.came.append(what)
            return real(journal, what, patience)

        monkeypatch.setattr(Journal, "alone", alone)

    def fit(self, *_: object) -> SimpleNamespace:
        if not self.inside.is_set():
            self.inside.set()
            assert self.let.wait(60)
        return SimpleNamespace(refused="", recipe=None)

    def register(self, training: Training, *_: object) -> Decision:
        digest = f"of training {training.id}"
        model = self.registry.client.create_model_version(
            NAME, source="file:///nothing", tags={"keepfit.model_digest": digest}
        )
        now, version = dt.datetime.now(dt.UTC), int(model.version)
        self.journal.end_training(training.id, state="registered", reason="so", at=now, version=version)
        return Decision(project=NAME, state="registered", reason="so", trigger=training.reason, version=version)

    def train(self, by: By) -> None:
        """What a flow run does, in a thread of its own; keeps what came of it."""
        ended = flow.train.fn(NAME, by, by=by)
        self.said[by] = ended if isinstance(ended, str) else ended["state"]


def test_o_07_two_trainings_that_overlap_make_one_version(landed: Settings, monkeypatch: pytest.MonkeyPatch):
    """The second one comes while the first is fitting: it waits for its end, and is then told that the rows were trained on (O-07)."""
    trained = Trained(landed, monkeypatch)
    before = {version.version for version in trained.registry.client.search_model_versions(f"name='{NAME}'")}
    rows = len(trained.journal.trainings(NAME))
    threads = [threading.Thread(target=trained.train, args=[by], daemon=True) for by in ("schedule", "drift")]
    with disable_run_logger():  # for all threads at once
        threads[0].start()
        until(trained.inside.is_set, 60, "the first training")
        threads[1].start()
        until(lambda: len(trained.came) == 2 or "drift" in trained.said, 60, "the second training, or its wait")
        assert "drift" not in trained.said
        assert len(trained.journal.trainings(NAME)) == rows + 1
        trained.let.set()
        for thread in threads:
            thread.join(60)
    assert trained.said["schedule"] == "registered"
    assert "was trained on already" in trained.said["drift"]
    versions = {version.version for version in trained.registry.client.search_model_versions(f"name='{NAME}'")}
    assert len(versions - before) == 1
    assert [row["state"] for row in trained.journal.trainings(NAME)[rows:]] == ["registered"]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """MLflow is where nobody listens, until this is undone."""
    with monkeypatch.context() as patch:
        patch.setenv("KEEPFIT_MLFLOW_URL", f"http://127.0.0.1:{free_port()}")
        yield patch


def test_o_05_a_training_begins_while_mlflow_is_away(landed: Settings, away: pytest.MonkeyPatch):
    """Under a name of its own; when MLflow answers, the run is there once, with what it was told meanwhile, however often that is tried."""
    journal, training = Journal(landed.journal()), admitted("batch")
    assert training.run.startswith(f"{training.id}-")
    minutes = Minutes.of(Settings(), NAME, training.run)
    minutes.note(Registry.log, params={"rows.train": 7})
    with pytest.raises(StackError, match="MLflow did not answer"):
        minutes.tell()
    assert len([*minutes.folder.iterdir()]) == 2
    away.undo()
    run = Minutes.of(landed, NAME, training.run).tell()
    assert Minutes.of(landed, NAME, training.run).tell() == run, "MLflow may be away once more right afterwards"
    registry = Registry(NAME, landed.mlflow(), landed.artifacts)
    assert registry.client.get_run(run).data.params == {"rows.train": "7"}
    assert registry.started(training.run) == run
    assert not minutes.folder.exists()
    ends(landed, training)
    assert journal.trainings(NAME)[-1]["state"] == "refused"


def test_o_05_a_killed_training_that_mlflow_never_heard_of_leaves_nothing(landed: Settings, away: pytest.MonkeyPatch):
    """The next one ends it, also while MLflow is still away."""
    first = admitted("batch")
    second = admitted("batch")
    assert [row["state"] for row in Journal(landed.journal()).trainings(NAME)[-2:]] == ["crashed", "running"]
    assert not Minutes.of(landed, NAME, first.run).folder.exists()
    assert Minutes.of(landed, NAME, second.run).folder.exists()


def finished_of(run: str) -> Finished:
    """What a training may come to; a number in it is none."""
    sure = Estimate(value=0.9, low=0.8, high=math.nan)
    return Finished(
        prepared=Prepared(rows={"holdout": 7}, windows={"holdout": ("a", "b")}, rates={}),
        best=Best(
            recipe=Recipe.usual("logistic"), value=0.9, most=0.9, trial=1, trials=4, pruned=0, resumed=0, seconds=1.0, cpu_seconds=1.0,
            history=[{"number": 1, "value": None}],
        ),
        candidate=Candidate(run=run, folder="there", digest="d", operates={"threshold": 0.5}),
        scores=Scores(
            metric=sure, champion=None, champion_version=None, every={"roc_auc": 0.9}, baselines={}, operates={}, panels={"curve": [[0.1, 0.2]]},
            importance=Importance(metric="AUC", rows=7, of=7, repeats=1, columns=()), answers="answers.parquet",
        ),
        verdicts=(Verdict(gate="floors", passed=True, reason="so"),), took={"training.seconds": 2.0},
    )  # fmt: skip


def keeps(settings: Settings, training: Training) -> Finished:
    """What it has come to is kept."""
    finished = finished_of(training.run)
    candidates.keep(settings, NAME, training.run, finished)
    candidates.folder(settings, NAME, training.run).mkdir(parents=True)
    detail = {"run": training.run, "kept": True, "cpu_seconds": 1.0}
    at = dt.datetime.now(dt.UTC)
    Journal(settings.journal()).end_training(training.id, state=KEPT, reason="finished", at=at, detail=detail)
    return finished


def test_o_05_what_was_kept_is_registered_and_not_trained_again(landed: Settings, away: pytest.MonkeyPatch):
    """While MLflow is away the same again is refused; then it is the same training that goes on, past cool-down and budget, and after a kill, too."""
    says(landed, "budget: {runs: 1}\n")
    journal, training = Journal(landed.journal()), admitted("batch")
    finished = keeps(landed, training)
    assert admitted("batch").refused == "finished"
    assert journal.trainings(NAME)[-1]["state"] == KEPT
    away.undo()
    for _ in range(2):  # the first one is killed
        resumed = admitted("batch")
        assert (resumed.id, resumed.run, resumed.refused) == (training.id, training.run, "")
        assert repr(resumed.finished) == repr(finished)
        assert journal.trainings(NAME)[-1]["state"] == "running"
        assert candidates.folder(landed, NAME, training.run).exists()


def test_o_05_a_newer_training_takes_the_place_of_what_was_kept(
    landed: Settings, tmp_path: Path, away: pytest.MonkeyPatch
):
    """It is on record that it was never registered, and nothing of it stays."""
    training = admitted("batch")
    keeps(landed, training)
    land(landed, tmp_path, 40)
    newer = admitted("hand")
    states = [(row["id"], row["state"]) for row in Journal(landed.journal()).trainings(NAME)[-2:]]
    assert states == [(training.id, "failed"), (newer.id, "running")]
    assert "never registered" in Journal(landed.journal()).trainings(NAME)[-2]["reason"]
    assert candidates.files(landed, NAME, [training.run]) == []
    assert not Minutes.of(landed, NAME, training.run).folder.exists()


def test_o_05_the_run_of_what_was_kept_and_is_superseded_is_closed(landed: Settings, tmp_path: Path):
    """MLflow went away after it had heard of it."""
    training = admitted("batch")
    keeps(landed, training)
    land(landed, tmp_path, 60)
    admitted("hand")
    known = Registry(NAME, landed.mlflow(), landed.artifacts)
    assert known.client.get_run(training.run).info.status == "KILLED"


def test_o_05_what_was_kept_and_is_gone_is_trained_again(landed: Settings, away: pytest.MonkeyPatch):
    """An erasure has removed it, because rows are in it."""
    training = admitted("batch")
    keeps(landed, training)
    for file in candidates.files(landed, NAME, [training.run]):
        file.unlink()
    away.undo()
    again = admitted("hand")
    assert again.finished is None
    assert again.id > training.id


def test_o_05_mlflow_is_waited_for_for_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """At admission the lock of the project is held: MLflow's own patience of minutes would keep everybody waiting."""
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    seen = list[str | None]()

    def asked(_: Registry) -> str:
        seen.append(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES"))
        raise MlflowException("API request to http://127.0.0.1:9/ failed with exception refused")

    monkeypatch.setattr(Registry, "_experiment", asked)
    assert not Registry(NAME, f"sqlite:///{tmp_path}/mlflow.db", tmp_path).answers()
    assert seen == [IMPATIENT["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]]


def test_o_12_missed_ticks_are_one_catch_up(landed: Settings, tmp_path: Path):
    """Five schedules that were late by a night of standstill: one training, and the next tick with new rows one more (O-12)."""
    late = []
    for _ in range(5):
        late.append(admitted("schedule"))
        if late[-1].id:
            ends(landed, late[-1])
    assert [bool(each.id) for each in late] == [True, False, False, False, False]
    land(landed, tmp_path, 100)
    assert admitted("schedule").id


def test_a_budget_refuses_and_tells_once(landed: Settings):
    """The refusal says when it opens; one event is ordered however many are refused; `--again` passes and counts."""
    says(landed, "budget: {runs: 1}\n")
    ends(landed, admitted("hand", again=True), "failed")
    refused = [admitted("batch") for _ in range(3)]
    assert all(
        "the budget of 30 days is used up: 1 of 1 trainings; it opens again at" in each.refused for each in refused
    )
    assert not any(each.wait for each in refused)
    (told,) = (order for order in Journal(landed.journal()).orders(NAME) if order.does == "tell")
    assert '"keepfit.budget.spent"' in told.what
    assert admitted("hand", again=True).id


def test_o_10_a_circle_of_alarms_ends_in_one_alert(landed: Settings, tmp_path: Path):
    """Rows land and drift is found at each of ten turns, and no gate lets a model pass: three trainings, one alert, the same champion (O-10)."""
    says(landed, "breaker: {runs: 3}\n")
    journal = Journal(landed.journal())
    before, tried = journal.releases(NAME), len(journal.trainings(NAME))
    said = []
    for turn in range(1, 11):
        land(landed, tmp_path, 100 * turn)
        training = admitted("drift")
        said.append(training.refused)
        if training.id:
            ends(landed, training)
    assert [bool(refused) for refused in said] == [False] * 3 + [True] * 7
    assert "the breaker is open: 3 trainings in a row" in said[-1]
    for by in ("decay", "hook"):
        ordered(landed, by, by=by)
    assert admitted("decay").refused == said[-1]
    assert {order.by: order.state for order in journal.orders(NAME)} == {
        "breaker": "open", "decay": "refused", "hook": "open",
    }  # fmt: skip
    assert len(journal.trainings(NAME)) == tried + 3
    assert journal.releases(NAME) == before
    assert [order.by for order in journal.orders(NAME) if order.does == "tell"] == ["breaker"]
    ends(landed, admitted("hand", again=True))
    land(landed, tmp_path, 2000)
    assert admitted("drift").id  # a person has closed it


def planned(monkeypatch: pytest.MonkeyPatch, training: Training, seconds: float) -> None:
    """This run was planned so many seconds after that training began."""
    created = dt.datetime.fromisoformat(training.started) + dt.timedelta(seconds=seconds)
    monkeypatch.setattr(trigger, "_run", lambda: SimpleNamespace(id="this", created=created, deployment_version=None))


@pytest.mark.parametrize(
    ("state", "seconds", "trains"),
    [
        ("released", -1, False),
        ("refused", -1, False),
        ("crashed", -1, True),  # it answered nothing
        ("released", 1, True),  # the alarm is newer
    ],
)
def test_o_11_an_alarm_that_waited_for_a_training_is_answered_by_it(
    landed: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, seconds: float, trains: bool
):  # fmt: skip
    """Rows landed meanwhile: it is no second training all the same (O-11)."""
    training = admitted("hand")
    ends(landed, training, state)
    land(landed, tmp_path, 100)
    planned(monkeypatch, training, seconds)
    again = admitted("drift")
    said = f"training {training.id} began after this alarm and has answered it: {state}, so"
    assert (bool(again.id), again.refused, again.wait) == (trains, "" if trains else said, 0)


@pytest.mark.parametrize(
    ("taken", "reason", "trains"),
    [
        ("another", "a test", False),  # the training that has ended took its order
        ("done", "a test", False),
        ("done", "something else moved", True),  # told by somebody else, or of another day
        ("", "a test", True),  # nobody has answered it
        ("this", "a test", True),
    ],
)
def test_o_11_an_alarm_of_two_kinds_is_one_training(
    landed: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str, reason: str, trains: bool
):  # fmt: skip
    """Decay's run trained and took drift's order with it; drift's run, planned later, finds rows that landed since, and is told so (O-11)."""
    training, journal = admitted("decay"), Journal(landed.journal())
    ends(landed, training, "released")
    land(landed, tmp_path, 100)
    journal.order(project=NAME, key="a", does="train", by="drift", reason=reason, at=NOW)
    if taken == "done":
        journal.answer(journal.orders(NAME, "open"), "done", "by the run 'x'")
    elif taken:
        journal.run_for(journal.orders(NAME, "open"), taken)
    planned(monkeypatch, training, 5)
    again = admitted("drift")
    assert bool(again.id) is trains
    assert ("this alarm is answered already" in again.refused, again.wait) == (not trains, 0)
    assert [order.run for order in journal.orders(NAME, "open")] == ["another"] * (taken == "another")


def test_a_run_that_became_a_programs_obeys_it(landed: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its own alarm is answered; but a hook's order is bound to it, which nobody else would obey."""
    training, journal = admitted("decay"), Journal(landed.journal())
    ends(landed, training, "released")
    land(landed, tmp_path, 100)
    ordered(landed, "a")
    journal.run_for(journal.orders(NAME), "this")
    planned(monkeypatch, training, -5)
    assert admitted("drift").id


def test_o_18_a_run_of_older_code_gives_its_orders_back(landed: Settings, monkeypatch: pytest.MonkeyPatch):
    """It ends well, which would mean that they are obeyed; another run is planned for them (O-18)."""
    journal = Journal(landed.journal())
    ordered(landed, "a")
    journal.run_for(journal.orders(NAME), "this")
    monkeypatch.setattr(trigger, "flow_run", SimpleNamespace(id="this"))
    monkeypatch.setattr(trigger, "_planned", lambda: "0" * 64)
    assert admitted("hook").refused
    assert stand(landed) == [("open", "", 1)]


def test_a_refusal_answers_the_orders_and_a_cool_down_does_not(place: Settings, tmp_path: Path):
    """Who ordered learns why nothing is trained; who must wait is obeyed by the follow-up, which is asked for once."""
    land(place, tmp_path)
    ends(place, admitted())
    ordered(place, "a")
    ordered(place, "f", "fetch", what="drop")
    assert "was trained on already" in admitted("hook").refused
    first, fetch = Journal(place.journal()).orders(NAME)
    assert (first.state, "was trained on already" in first.said, fetch.state) == ("refused", True, "open")
    land(place, tmp_path, 100)
    ordered(place, "b")
    cooling = admitted("hook")
    assert 0 < cooling.wait <= 60
    assert stand(place)[-1] == ("open", "", 0)


def test_a_training_that_begins_takes_the_orders_with_it(landed: Settings, tmp_path: Path):
    """Those of before it; one that comes later wants later rows, and is left to the next one."""
    ordered(landed, "a")
    training = admitted("hook")
    ordered(landed, "b")
    assert [(order.state, order.said) for order in Journal(landed.journal()).orders(NAME)] == [
        ("done", f"training {training.id} began"), ("open", ""),
    ]  # fmt: skip


def test_o_07_a_cool_down_has_one_follow_up(landed: Settings, monkeypatch: pytest.MonkeyPatch):
    """Whoever asks gets the run that is coming anyway, and the orders are that one's."""
    coming = SimpleNamespace(id="11111111-1111-1111-1111-111111111111", name="next")
    asked = []
    monkeypatch.setattr(runs, "follow_up", lambda *told, **more: asked.append((*told, more)) or coming)
    ordered(landed, "a", by="drift")
    ordered(landed, "b")  # has a wait of its own
    assert trigger.plan_follow_up.fn(NAME, 12.4, "drift") == "follow-up 'next' comes in 12 s"
    assert asked == [(NAME, "asked for during the cool-down", "drift", 12.4, {"beside": None})]
    assert stand(landed) == [("open", coming.id, 0), ("open", "", 0)]


def test_a_training_of_an_older_home_counts(landed: Settings):
    """One that does not say what started it was started by a batch, or by hand; its time stands in for its CPU-time."""
    journal, use = Journal(landed.journal()), Project.named(NAME, landed)
    rows = journal.trainings(NAME)
    tight = use.model_copy(update={"budget": use.budget.model_copy(update={"runs": len(rows)})})
    assert all(row["by"] in {"", None} for row in rows)
    assert trigger.caps(use, journal, rows, "batch", NOW).refused == ""
    assert trigger.caps(tight, journal, rows, "batch", NOW).cap is not None


def test_o_01_a_training_that_a_power_cut_ended_takes_no_month_of_budget(landed: Settings):
    """Its machine was up again 62 hours later: what it took until it was killed nobody knows, but no more than it might have (O-01)."""
    journal, use, friday = Journal(landed.journal()), Project.named(NAME, landed), NOW - dt.timedelta(hours=62)
    number = journal.start_training(
        project=NAME, trigger="t", event=True, snapshot="s", config="c", at=friday, by="batch"
    )
    (row,) = journal.under_way()
    journal.cut_off(row, state="crashed", reason="its process was gone", at=NOW)
    assert trigger.caps(use, journal, journal.trainings(NAME), "batch", NOW).cap is None
    tight = use.model_copy(update={"budget": use.budget.model_copy(update={"cpu_hours": use.budget.hours})})
    cap = trigger.caps(tight, journal, journal.trainings(NAME), "batch", NOW).cap
    assert cap is not None
    assert "4.0 of 4 hours of CPU" in cap.reason
    journal.end_training(number, state="crashed", reason="so", at=NOW, detail={"cpu_seconds": 62 * 3600.0})
    assert trigger.caps(use, journal, journal.trainings(NAME), "batch", NOW).cap is not None, (
        "what is known counts whole"
    )
