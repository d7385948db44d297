"""Trainings that are killed, at every stage, and trainings that run out of memory; in real processes, on a real Prefect and MLflow."""

import contextlib
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from optuna.trial import FrozenTrial

from tasks import tune
from tasks.config.errors import ConflictError
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ingest import Landings
from tasks.recover import Recovery
from tasks.stores import studies
from tasks.stores.journal import Journal, Release
from tasks.trigger import alone
from tests.conftest import Stack
from tests.samples import PROJECT, mark_proven
from tests.stores.test_registry_faults import MODES, SLOW, Flaky

pytestmark = pytest.mark.stack
YAML = (
    PROJECT
    + """search: {{seconds: 600, trials: 4, folds: 2, seed: 7, families: [logistic]}}
retrain: []
"""
)
# Runs each training that it is asked for in a fork, so that the imports are paid once; a fault is planted in the fork alone.
DRIVER = """
import importlib, json, os, resource, signal, sys
from pathlib import Path
import mlflow.sklearn, numpy as np, psutil
import tasks.register, tasks.serving.champion
from flows.train import train

def planted(fault):
    place, _, path = fault["at"].partition(":")
    owner, *names = path.split(".")
    holder = importlib.import_module(place)
    for name in (owner, *names)[:-1]:
        holder = getattr(holder, name)
    name, calls = (owner, *names)[-1], []
    true = getattr(holder, name)
    def faulty(*args, **kwargs):
        calls.append(1)
        if len(calls) == fault.get("nth", 1) and "megabytes" in fault:
            most = psutil.Process().memory_info().vms + fault["megabytes"] * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            np.ones(2 * fault["megabytes"] * 2**20, dtype="uint8")  # what a bigger matrix would ask for
        if len(calls) != fault.get("nth", 1) or "megabytes" in fault:
            return true(*args, **kwargs)
        if fault.get("after"):
            true(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(holder, name, faulty)

for line in sys.stdin:
    asked = json.loads(line)
    if os.fork() == 0:
        os.dup2(2, 1)
        os.environ |= asked["told"]
        if asked["fault"]:
            planted(asked["fault"])
        try:
            answer = train(**asked["train"])
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        Path(asked["answer"]).write_text(json.dumps(answer))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@dataclass(frozen=True)
class Trained:
    """A project of its own, and the process that trains it."""

    name: str
    settings: Settings
    driver: subprocess.Popen[str]

    def train(
        self, fault: dict[str, Any] | None = None, told: dict[str, str] | None = None, **more: Any
    ) -> dict[str, Any] | None:
        """What the training said; None when it was killed. `told`: further settings of it."""
        answer = self.settings.home / "answer.json"
        answer.unlink(missing_ok=True)
        asked = {"train": {"project": self.name, **more}, "fault": fault, "answer": str(answer), "told": told or {}}
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        print(json.dumps(asked), file=self.driver.stdin, flush=True)
        code = int(self.driver.stdout.readline())
        assert code in {0, -9}
        return json.loads(answer.read_text()) if code == 0 else None

    @property
    def journal(self) -> Journal:
        """Where it is recorded."""
        return Journal(self.settings.journal())

    @property
    def states(self) -> list[str]:
        """How each training ended, oldest first."""
        return [row["state"] for row in self.journal.trainings(self.name)]

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that count."""
        import optuna

        studied = optuna.get_all_study_names(self.settings.studies())
        return [
            trial
            for name in studied
            if name.startswith(f"{self.name} ")
            for trial in tune._finished(studies.opened(self.settings.studies(), name, 7))
        ]

    def left(self) -> list[str]:
        """Files and folders that only a training under way needs."""
        bundles = self.settings.bundles(self.name)
        candidates = self.settings.home / "candidates" / self.name
        rehearsals = self.settings.home / "rehearsals" / self.name
        minutes = self.settings.home / "minutes" / self.name
        return [
            str(path)
            for path in (*bundles.glob(".*"), *candidates.glob("*"), *rehearsals.glob("*"), *minutes.glob("*"))
        ]


@pytest.fixture(scope="module")
def place(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, subprocess.Popen[str]]]:
    """A home of its own beside the session's Prefect and MLflow, and the process that trains there."""
    home = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KEEPFIT_HOME", str(home / "state"))
        environment.setenv("KEEPFIT_PROJECTS", str(home / "projects"))
        environment.setenv("KEEPFIT_MLFLOW_URL", stack.urls["mlflow"])
        environment.setenv("PYTHONPATH", str(REPOSITORY))
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as driver:
            yield Settings(), driver


@pytest.fixture
def begun(place: tuple[Settings, subprocess.Popen[str]]) -> Callable[..., Trained]:
    """Makes a project of that name with rows whose truth follows from a number and a category."""

    def make(name: str, count: int = 1500) -> Trained:
        settings, driver = place
        folder = settings.projects / name
        folder.mkdir(parents=True)
        (folder / "project.yaml").write_text(YAML.format(name=name))
        rng = np.random.default_rng(0)
        amount, kind = rng.normal(size=count), rng.choice(["a", "b"], count)
        stamps = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(count), unit="min")
        truth = amount + (kind == "a") + rng.normal(scale=0.7, size=count) > 0.5
        rows = pd.DataFrame({"id": range(count), "at": stamps.astype(str), "y": truth, "amount": amount, "kind": kind})
        rows.to_csv(settings.home.parent / f"{name}.csv", index=False)
        landed = Landings(Project.named(name, settings), settings).land(settings.home.parent / f"{name}.csv")
        assert landed.landed == count, landed
        mark_proven(settings, name)
        return Trained(name, settings, driver)

    return make


STAGES = {
    "admitted": ({"at": "flows.train:prepare"}, 0),
    "tuning": ({"at": "tasks.tune:Search.run", "nth": 3}, 2),
    "fitted": ({"at": "flows.train:evaluate"}, 4),
    "evaluated": ({"at": "flows.train:gate"}, 4),
    "registering": ({"at": "tasks.stores.registry:Registry.register", "after": True}, 4),
}
FURTHER = {
    "fitting": ({"at": "tasks.stores.bundles:_sync", "nth": 1}, 4),
    "logged": ({"at": "tasks.stores.registry:Registry.log_model", "after": True}, 4),
    "bundling": ({"at": "tasks.stores.bundles:_sync", "nth": 3}, 4),
    "pointing": ({"at": "tasks.stores.registry:Registry.point"}, 4),
    "recorded": ({"at": "tasks.register:_end", "after": True}, 4),
    "shown": ({"at": "flows.train:release"}, 4),
    "served": ({"at": "tasks.stores.journal:Journal.release"}, 4),  # in the journal of the rehearsal, its process alive
    "served again": (
        {"at": "tasks.stores.journal:Journal.release", "nth": 2},
        4,
    ),  # in that of the release's own rehearsal
    "rehearsed": ({"at": "tasks.stores.journal:Journal.release", "nth": 3}, 4),
}


@pytest.mark.parametrize("stage", [*STAGES, *(pytest.param(stage, marks=pytest.mark.slow) for stage in FURTHER)])
def test_o_01_a_training_that_was_killed_is_finished_by_the_same_command(begun, stage: str):
    """SIGKILL in a stage, then the same again: the dead one is told as crashed, finished trials are not run again, and there is one version,
    one champion, and nothing left over."""  # noqa: D205, D209
    fault, done = (STAGES | FURTHER)[stage]
    small = begun(stage.replace(" ", "-"))
    assert small.train(fault) is None
    assert small.states[0] in {"running", "releasing"}
    before = {(trial.number, trial.datetime_complete) for trial in small.trials}
    assert len(before) == done
    said = small.train()
    assert said is not None
    assert (said["state"], said["version"], said["trials"], said["resumed_trials"]) == ("released", 1, 4, done), said
    assert before <= {(trial.number, trial.datetime_complete) for trial in small.trials}
    assert len(small.trials) == 4
    assert small.states == ["crashed", "released"]
    assert "was gone; the next training takes" in small.journal.trainings(small.name)[0]["reason"]
    assert [release.version for release in small.journal.releases(small.name)] == [1]
    assert small.left() == []
    assert [path.name for path in small.settings.bundles(small.name).iterdir()] == ["1"]
    _in_mlflow(small, "KILLED", "FINISHED")


def _in_mlflow(small: Trained, *runs: str) -> None:
    """One version there, that the alias names, and no run that is open still; the last one has everything."""
    client = mlflow.MlflowClient(small.settings.mlflow(), small.settings.mlflow())
    versions = client.search_model_versions(f"name='{small.name}'")
    assert [int(version.version) for version in versions] == [1]
    assert int(client.get_model_version_by_alias(small.name, "champion").version) == 1
    assert _statuses(small) == [*runs]
    run = client.get_run(_runs(small)[-1].info.run_id)
    assert run.inputs is not None
    assert {"rows.train", "family", "window"} <= run.data.params.keys()
    assert {
        "search.trials",
        "trial.roc_auc",
        "holdout.roc_auc",
        "gate.floors",
        "training.seconds",
    } <= run.data.metrics.keys()
    assert run.data.tags["keepfit.decision"] == "released"
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert {"trials.json", "importance.json", "verdicts.json", "report.png", "card"} <= files
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == [
        f"{small.name} {run.data.tags['keepfit.snapshot']}"
    ]


def _statuses(small: Trained) -> list[str]:
    return [run.info.status for run in _runs(small)]


def _runs(small: Trained) -> list[Run]:
    """Its runs in MLflow, the oldest first."""
    client = mlflow.MlflowClient(small.settings.mlflow(), small.settings.mlflow())
    experiment = client.get_experiment_by_name(small.name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


@pytest.mark.slow
def test_o_01_a_training_that_was_killed_after_its_release_is_not_done_again(begun):
    """The version is champion already: the next training records that, brings the alias along, and refuses to do it again."""
    small = begun("live")
    assert small.train({"at": "tasks.stores.journal:Journal.release", "nth": 3, "after": True}) is None
    said = small.train()
    assert said is not None
    assert said["state"] == "refused"
    assert "was trained on already" in said["reason"]
    assert small.states == ["released"]
    assert small.left() == []
    client = mlflow.MlflowClient(small.settings.mlflow(), small.settings.mlflow())
    assert int(client.get_model_version_by_alias(small.name, "champion").version) == 1


@pytest.mark.parametrize(
    ("mode", "at"), [(MODES[1], 1), (MODES[0], 1), (SLOW, 1), (MODES[2], 8), (MODES[1], 20), (MODES[2], 30)]
)
def test_o_05_a_training_finishes_while_mlflow_is_away_and_is_registered_once(begun, stack: Stack, mode: str, at: int):
    """From the n-th call on no answer comes, or none in time: nothing goes live, and the same command registers what is kept when MLflow answers."""
    small = begun(f"away-{at}-{[*MODES, SLOW].index(mode)}")
    with behind(stack) as (proxy, away):
        proxy.fail(at, mode, last=math.inf)
        kept = small.train(told=away)
        assert kept is not None
        assert (kept["state"], kept["version"]) == ("kept", None), kept
        assert "MLflow did not answer" in kept["reason"]
        assert small.states == ["kept"]
        assert small.journal.releases(small.name) == []
        trials = {(trial.number, trial.datetime_complete) for trial in small.trials}
        said = small.train(told=away)
        assert said is not None
        assert said["state"] == "refused"
        assert said["reason"] == kept["reason"]
        proxy.fail(0, "")
        said = small.train(told=away)
    assert said is not None
    assert (said["state"], said["version"], said["value"]) == ("released", 1, kept["value"]), said
    assert {(trial.number, trial.datetime_complete) for trial in small.trials} == trials
    _once_in_all(small)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_o_05_whichever_call_is_the_last_that_mlflow_answers(begun, stack: Stack, swept: Callable[[int], None]):
    """A training that was registered by then goes live, and the recovery tells MLflow the rest; one that was not is kept."""
    states = list[str]()
    with behind(stack) as (proxy, away):
        for at in range(1, 200):
            small = begun(f"last-{at}")
            proxy.fail(at, MODES[at % 3], last=math.inf)
            said = small.train(told=away)
            assert said is not None
            states.append(said["state"])
            met = proxy.calls >= at
            proxy.fail(0, "")
            if said["state"] == "kept":
                said = small.train(told=away)
                assert said is not None
            assert said["state"] == "released"
            Recovery(small.settings, [small.name], grace=0).look()
            _once_in_all(small)
            if not met:
                break
    swept(len(states) - 1)
    assert states.count("kept") > 20
    assert states.count("released") > 2


@contextlib.contextmanager
def behind(stack: Stack) -> Generator[tuple[Flaky, dict[str, str]]]:
    """MLflow behind a network that can fail, and the settings by which a training finds it."""
    with Flaky(stack.urls["mlflow"]) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield (
            proxy,
            {"KEEPFIT_MLFLOW_URL": f"http://127.0.0.1:{proxy.server_port}", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0"},
        )
        proxy.shutdown()


def _once_in_all(small: Trained) -> None:
    """One training, one version, one run; and nothing is left over."""
    assert small.states == ["released"]
    assert small.left() == []
    _in_mlflow(small, "FINISHED")


def test_o_01_a_training_that_is_killed_again_and_again_is_not_tried_for_ever(begun):
    """After three in a row the fourth is refused with what that often means; `again` tries it nonetheless."""
    small = begun("doomed")
    for _ in range(3):
        assert small.train({"at": "flows.train:prepare"}) is None
    refused = small.train()
    assert refused is not None
    assert refused["state"] == "refused"
    assert "the last 3 trainings on this snapshot were killed" in refused["reason"]
    assert small.states == ["crashed"] * 3
    said = small.train(again=True)
    assert said is not None
    assert said["state"] == "released"


def test_o_07_one_training_of_a_project_at_a_time(settings: Settings):
    """While one is under way another one waits; one of another project does not, and the end of the first lets it in."""
    waiting = Journal(settings.journal())
    with alone("small"):
        with pytest.raises(ConflictError), waiting.alone("train small", patience=0.1):
            pass
        with alone("other"):
            pass
    with waiting.alone("train small", patience=0.1):
        pass


def test_o_14_a_training_that_runs_out_of_memory_says_so_and_is_not_tried_again(begun):
    """Under a limit of address space it ends as failed, with the word; the champion stays; the same again is refused unless a person insists."""
    small = begun("hungry")
    champion = small.journal.release(
        Release(small.name, 1, 1, "d" * 64, "a test", "good", "2026-06-01T00:00:00+00:00", "roc_auc", 0.8, 0.7, 0.9)
    )
    said = small.train({"at": "tasks.ml.recipe:Recipe.fit", "megabytes": 256})
    assert said is not None
    assert "emory" in said["error"]
    (failed,) = small.journal.trainings(small.name)
    assert failed["state"] == "failed"
    assert failed["reason"].startswith("out of memory: give the machine more of it, or lower search.rows.")
    assert small.journal.champion(small.name) == champion
    assert _statuses(small) == ["FAILED"]
    refused = small.train()
    assert refused is not None
    assert refused["state"] == "refused"
    assert "ran out of memory with this code and configuration" in refused["reason"]
    assert small.states == ["failed"]
    assert small.left() == []
