"""The search: scored on later rows, the same for a seed, within its budget, resumable."""

import datetime as dt
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import distributed
import httpx
import numpy as np
import optuna
import pandas as pd
import psutil
import pytest
from optuna.trial import TrialState, create_trial
from sklearn.metrics import roc_auc_score

from tasks import tune
from tasks.config import provenance
from tasks.config.errors import StackError
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ingest import Landings
from tasks.ml import models
from tasks.ml.examination import Examination, Marks
from tasks.ml.recipe import Recipe
from tasks.ml.split import ChanceSplit
from tasks.ml.window import Window
from tasks.stores import studies
from tasks.stores.journal import Journal, Release
from tasks.stores.lake import Lake
from tasks.stores.references import Snapshot
from tests.samples import free_port, until

pytestmark = pytest.mark.filterwarnings("ignore:Argument ``(group|multivariate)`` is an experimental feature")
FOREVER = 1e12
BOTH = ["hist_gradient_boosting", "logistic"]


def project(**search) -> Project:
    """A project with a number, a category and a column that is always empty."""
    return Project.model_validate(
        {
            "project": "small",
            "positive": True,
            "contract": {
                "key": ["id"],
                "time": "at",
                "target": "y",
                "columns": {
                    "id": {"type": "int"},
                    "at": {"type": "datetime"},
                    "y": {"type": "bool"},
                    "amount": {"type": "float", "nullable": True},
                    "kind": {"type": "category", "nullable": True},
                    "empty": {"type": "float", "nullable": True},
                },
            },
            "split": {"column": "at"},
            "search": {"seconds": 600, "trials": 4, "folds": 2, "seed": 7, "families": BOTH, **search},
        }
    )


def rows(count: int = 400) -> pd.DataFrame:
    """Rows in a mixed order whose truth follows from number and category."""
    rng = np.random.default_rng(0)
    amount, kind = rng.normal(size=count), rng.choice(["a", "b"], count)
    return pd.DataFrame(
        {
            "id": range(count),
            "at": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rng.permutation(count), unit="h"),
            "y": pd.array(amount + (kind == "a") + rng.normal(scale=0.7, size=count) > 0.5, dtype="boolean"),
            "amount": amount,
            "kind": pd.array(kind, dtype="string"),
            "empty": np.full(count, np.nan),
        }
    )


def study(seed: int = 7) -> optuna.Study:
    """A study in memory with the sampler that the search uses."""
    return optuna.create_study(sampler=studies.sampler(seed, 0), pruner=optuna.pruners.NopPruner())


def searched(use: Project, found: optuna.Study | None = None, content: pd.DataFrame | None = None) -> optuna.Study:
    """The study after a whole search."""
    found = found or study()
    search = tune.Search.over(use, rows() if content is None else content)
    search.go_on(found, time.monotonic() + FOREVER, lambda: None)
    return found


def tried(use: Project, found: optuna.Study, trials: int, deadline: float, content: pd.DataFrame | None = None) -> None:
    """So many trials, one after the other."""
    search = tune.Search.over(use, rows() if content is None else content)
    for _ in range(trials):
        search.run(found, found.ask(), deadline)


# -- the score --------------------------------------------------------------------------------------------------------
def test_a_score_is_the_mean_loss_on_the_rows_after():
    """The defaults of logistic regression score what scikit-learn says on the same folds."""
    use, found = project(families=["logistic"], windows=False), study()
    found.enqueue_trial({"family": "logistic", "logistic.C": 1.0})
    tried(use, found, 1, FOREVER)
    ordered = rows().sort_values("at")
    columns = {"amount": use.contract.columns["amount"], "kind": use.contract.columns["kind"]}
    values = []
    for learned, start, stop in [(220, 280, 340), (280, 340, 400)]:  # as many rows between as the holdout has before it
        features = ordered[["amount", "kind"]].assign(kind=ordered["kind"].astype("str"))
        truth = ordered["y"].astype(int).to_numpy()
        model = models.pipeline(models.Logistic(), columns, 7).fit(features[:learned], truth[:learned])
        values.append(roc_auc_score(truth[start:stop], model.predict_proba(features[start:stop])[:, 1]))
    assert found.trials[0].value == pytest.approx(-np.mean(values))
    assert found.trials[0].intermediate_values == pytest.approx({0: -values[0], 1: -np.mean(values)})


def test_the_same_seed_finds_the_same():
    """Two searches with one seed try and score the same; another seed tries something else."""
    first, second, other = searched(project()), searched(project()), searched(project(seed=8))
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]
    assert [trial.values for trial in first.trials] == [trial.values for trial in second.trials]
    assert [trial.params for trial in first.trials] != [trial.params for trial in other.trials]


def test_a_search_that_was_interrupted_draws_what_it_would_have_drawn():
    """Two trials and then two more are the same four as in one go: a trial's draw depends on its number alone."""
    whole, parted = searched(project()), searched(project(trials=2))
    searched(project(), parted)
    assert [trial.params for trial in parted.trials] == [trial.params for trial in whole.trials]
    assert len({str(trial.params) for trial in whole.trials}) == 4


def test_a_search_that_may_not_use_all_rows_looks_at_the_whole_history():
    """With a limit on rows every fourth one is looked at, and every fold is scored on later rows than it learned from."""
    folds = tune.Search.over(project(rows=100), rows()).examination.folds
    some = rows().sort_values("at").iloc[::4]
    assert [len(learned.features) for learned, _, _ in folds] == [55, 70]
    assert [learned.times.min() for learned, _, _ in folds] == [some["at"].min()] * 2
    assert all(learned.times.max() < some["at"].iloc[len(learned.times)] for learned, _, _ in folds)
    assert folds[-1][1]["amount"].tolist() == some["amount"].tolist()[85:]


def test_a_fold_with_one_class_does_not_count():
    """A fold in which nothing can be told apart is left out; when all are, the trial is pruned instead of failing."""
    lonely = rows().assign(y=pd.array([False] * 400, dtype="boolean"))
    found = study()
    tried(project(), found, 1, FOREVER, lonely)
    assert found.trials[0].state == TrialState.PRUNED


# -- the budget -------------------------------------------------------------------------------------------------------
def test_the_deadline_ends_every_trial_but_the_first_after_a_fold():
    """When time is up, a trial that runs is pruned at its next fold; the first one is finished, so that there is a model."""
    use = project(folds=3)
    found = study()
    tried(use, found, 3, time.monotonic() - 1)
    assert [trial.state for trial in found.trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert [len(trial.intermediate_values) for trial in found.trials] == [3, 1, 1]


def test_a_hopeless_trial_is_pruned():
    """A trial that the pruner gives up ends after its first fold."""
    found = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=-2.0))
    tried(project(), found, 1, FOREVER)
    assert found.trials[0].state == TrialState.PRUNED
    assert len(found.trials[0].intermediate_values) == 1


# -- where it starts --------------------------------------------------------------------------------------------------
def test_each_familys_defaults_are_tried_first():
    """The first trials are the defaults in the project's order, on all rows and columns."""
    use, found = project(families=["logistic", "hist_gradient_boosting"], trials=2), study()
    for params in tune.Search.over(use, rows()).space.starts([]):
        found.enqueue_trial(params)
    searched(use, found)
    defaults = [Recipe.usual("logistic"), Recipe.usual("hist_gradient_boosting")]
    space = tune.Search.over(use, rows()).space
    assert [space.suggest(trial) for trial in found.trials] == defaults


def test_what_the_champion_was_made_with_is_tried_too(settings: Settings):
    """The champion's recipe comes first, also after a rollback to it; then those of the last trainings, the newest first."""
    journal, at = Journal(settings.journal()), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    recipes = [Recipe(family=models.Logistic(C=c)) for c in (0.1, 0.2, 0.3)]
    for recipe, version in zip(recipes, (1, 2, None), strict=True):
        number = journal.start_training(
            project="small", trigger="by hand", event=False, snapshot="s", config="c", at=at
        )
        detail = {"recipe": recipe.model_dump(mode="json")}
        journal.end_training(number, state="released" if version else "refused", reason="better", at=at, version=version, detail=detail)  # fmt: skip
    for generation, version in enumerate((1, 2, 1), 1):
        journal.release(
            Release("small", generation, version, "d", "me", "because", at.isoformat(), "roc_auc", 0.9, 0.8, 1.0)
        )
    champion, second, third = recipes
    assert tune._earlier(project(), settings) == [champion, third, second, champion]
    starts = tune.Search.over(project(), rows()).space.starts(tune._earlier(project(), settings))
    assert [start.get("logistic.C") for start in starts] == [0.1, None, 1.0, 0.3, 0.2]


def test_a_recipe_that_is_not_offered_any_more_is_not_tried(settings: Settings):
    """An upgrade dropped its family, or one of its parameters: the search begins with the others."""
    journal, at = Journal(settings.journal()), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    known = Recipe.usual("logistic").model_dump(mode="json")
    gone = [known | {"family": {"kind": "perceptron"}}, known | {"family": {"kind": "logistic", "l1": 0.5}}, known]
    for recipe in gone:
        number = journal.start_training(
            project="small", trigger="by hand", event=False, snapshot="s", config="c", at=at
        )
        journal.end_training(number, state="refused", reason="worse", at=at, detail={"recipe": recipe})
    assert tune._earlier(project(), settings) == [Recipe.usual("logistic")]


@pytest.mark.parametrize("stray", ["0001-01-01T00:00Z", "1900-01-01T00:00Z"])
def test_a_row_of_another_age_does_not_make_the_windows_longer(stray: str):
    """One time that somebody mistyped: what is offered are still days, as without it, and not decades."""
    content = rows()
    odd = content.head(1).assign(id=400, at=pd.Timestamp(stray))
    usual, offered = (
        tune.Search.over(project(rows=1000), each).space.windows for each in (content, pd.concat([content, odd]))
    )
    assert len(offered) == len(usual) == 7
    assert all(window.is_like(other) for window, other in zip(offered, usual, strict=True))


def plain(**changed) -> tune.Search:
    """A search that asks for family and parameters only."""
    return tune.Search.over(project(windows=False).model_copy(update=changed), rows())


# -- what counts ------------------------------------------------------------------------------------------------------
def ended(state: TrialState, value: float | None = None) -> optuna.trial.FrozenTrial:
    """A trial of logistic regression that ended in a state."""
    space = optuna.distributions.FloatDistribution(1e-3, 1e2, log=True)
    families = optuna.distributions.CategoricalDistribution(["hist_gradient_boosting", "logistic"])
    marks = {"spread": [value or 0.0] * 3}
    return create_trial(
        state=state, user_attrs=marks, value=value, params={"family": "logistic", "logistic.C": 0.5}, distributions={"family": families, "logistic.C": space},
        intermediate_values={0: -0.7} if state == TrialState.PRUNED else None,
    )  # fmt: skip


@pytest.fixture
def mixed() -> optuna.Study:
    """A study with a trial of every state, as a killed and resumed run leaves it."""
    found = study()
    found.add_trial(ended(TrialState.COMPLETE, -0.8))
    found.add_trial(ended(TrialState.FAIL))
    found.add_trial(ended(TrialState.PRUNED))
    found.add_trial(ended(TrialState.COMPLETE, -0.9))
    found.enqueue_trial({"family": "logistic", "logistic.C": 2.0})
    return found


def test_failed_and_waiting_trials_are_not_finished(mixed: optuna.Study):
    """Complete and pruned trials count against the budget; failed and queued ones do not."""
    assert [trial.number for trial in tune._finished(mixed)] == [0, 2, 3]


def test_the_history_is_in_the_users_terms(mixed: optuna.Study):
    """The metric has its own sign again, the parameters the family's own names; a pruned trial is there as such."""
    history = tune._history(mixed, project())
    assert [(row["number"], row["family"], row["state"]) for row in history] == [
        (0, "logistic", "complete"),
        (2, "logistic", "pruned"),
        (3, "logistic", "complete"),
    ]
    assert [row["value"] for row in history if row["state"] == "complete"] == [0.8, 0.9]
    assert all(row["params"] == {"C": 0.5} and row["seconds"] >= 0 and row["at"] > 0 for row in history)


def test_the_best_is_the_best_of_the_complete_ones(mixed: optuna.Study):
    """The greatest ROC AUC wins, with counts of what was tried, pruned and taken over."""
    best = tune._best(mixed, plain(), 1, 2.0, 3.0)
    assert (best.recipe, best.value, best.trial) == (Recipe(family=models.Logistic(C=0.5)), 0.9, 3)
    assert (best.trials, best.pruned, best.resumed, best.seconds, best.cpu_seconds) == (3, 1, 1, 2.0, 3.0)


def test_a_loss_stays_a_loss():
    """For a metric of which less is better, the history has the value as it is and the least one wins."""
    found = study()
    found.add_trial(ended(TrialState.COMPLETE, 0.4))
    found.add_trial(ended(TrialState.COMPLETE, 0.3))
    best = tune._best(found, plain(metric="log_loss"), 0, 0.0, 0.0)
    assert best.value == 0.3


@pytest.mark.parametrize(("lasts", "taken"), [(True, 1), (False, 0)])
def test_a_recipe_must_do_better_than_the_defaults_on_validation_too(lasts: bool, taken: int):
    """A window of the newest days won on the folds, whose days said the opposite of before: it is taken only if the days after them do, too."""
    use, history = project(families=["logistic"]), rows(600).sort_values("at", ignore_index=True)
    turned = (history.index >= 400) & ((history.index < 500) | lasts)
    truth = history["y"].to_numpy(dtype=bool) ^ turned
    history = history.assign(y=pd.array(truth, dtype="boolean"))
    search = tune.Search.over(use, history[:500], validation=lambda: history[500:])
    newest = Recipe(family=models.Logistic(), window=Window(kind="last", days=4))
    tried = [(Recipe.usual("logistic"), Marks(-0.7, (-0.7, -0.7))), (newest, Marks(-0.9, (-0.9, -0.9)))]
    assert tune._confirmed(search, tried, 1) == taken


@pytest.mark.parametrize(("broken", "taken"), [("tuned", 0), ("default", 1), ("both", 1)])
def test_a_recipe_that_gives_no_number_on_validation_gives_way_to_one_that_does(monkeypatch, broken: str, taken: int):
    """To the default where that has a mark; where nothing can be compared what was taken stays."""
    use, default = project(families=["logistic"]), Recipe.usual("logistic")
    search = tune.Search.over(use, rows(500)[:400], validation=lambda: rows(500)[400:])

    def mark(_: Examination, recipe: Recipe, _report: object) -> Marks | None:
        is_broken = broken in {"both", "default" if recipe == default else "tuned"}
        return None if is_broken else Marks(0.0, (0.0, 0.0))

    monkeypatch.setattr(Examination, "mark", mark)
    tried = [(default, Marks(-0.7, (-0.7, -0.7))), (Recipe(family=models.Logistic(C=0.5)), Marks(-0.9, (-0.9, -0.9)))]
    assert tune._confirmed(search, tried, 1) == taken


@pytest.mark.parametrize(("kind", "taken"), [("chance", 1), ("time", 0)])
def test_where_rows_are_parted_by_chance_the_folds_count_beside_validation(kind: str, taken: int):
    """Few validation rows speak a little against a recipe for which the folds speak clearly: by chance all days are alike, and it stays."""
    use, history = project(families=["logistic"]), rows(500).assign(_row=[f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}{n:016x}" for n in range(500)])  # fmt: skip
    use = use.model_copy(update={"split": use.split if kind == "time" else ChanceSplit()})
    search = tune.Search.over(use, history[:400], validation=lambda: history[400:])
    weak = Recipe(family=models.Logistic(), features=("amount", "empty"))
    assert search.final is not None
    final = search.final()
    found, plain = (final.mark(recipe, lambda _step, _loss: None) for recipe in (weak, Recipe.usual("logistic")))
    assert found is not None
    assert plain is not None
    assert found.loss > plain.loss
    noise = np.random.default_rng(0).normal(scale=found.noise(plain) / 4, size=60)
    better = -0.7 - found.loss + plain.loss
    tried = [(Recipe.usual("logistic"), Marks(-0.7, (-0.7,) * 60)), (weak, Marks(better, tuple(better + noise)))]
    assert tune._confirmed(search, tried, 1) == taken


def test_a_search_without_a_finished_trial_says_what_to_change():
    """Nothing was finished in the time: the message names the two settings that help."""
    with pytest.raises(RuntimeError, match=r"search\.seconds more, or search\.rows fewer"):
        tune._best(study(), plain(), 0, 0.0, 0.0)


# -- several processes ------------------------------------------------------------------------------------------------
YAML = """
project: small
positive: true
contract:
  key: [id]
  time: at
  target: y
  columns:
    id: {type: int}
    at: {type: datetime}
    y: {type: bool}
    amount: {type: float}
    kind: {type: category}
split: {kind: time, column: at}
search: {seconds: 600, trials: 6, folds: 2, seed: 7, families: [logistic], workers: 2}
"""


@dataclass(frozen=True)
class Begun:
    """A search over rows that have landed, whose trials are in a file that other processes can open."""

    search: tune.Search
    study: optuna.Study
    snapshot: Snapshot

    @property
    def finished(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that count."""
        return tune._finished(self.study)

    def together(self, told=lambda _study: None) -> None:
        """Runs it in the processes, or on the workers, that the project and the settings ask for."""
        shown = cast("tune.Progress", SimpleNamespace(update=told))
        tune._together(self.search, self.study, self.snapshot, shown, time.monotonic() + 600)


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home in which the rows have landed."""
    home = tmp_path_factory.mktemp("several")
    folder = home / "projects" / "small"
    folder.mkdir(parents=True)
    (folder / "project.yaml").write_text(YAML)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KEEPFIT_HOME", str(home / "state"))
        environment.setenv("KEEPFIT_PROJECTS", str(folder.parent))
        environment.setenv("PYTHONPATH", str(REPOSITORY))
        settings = Settings()
        content = rows().drop(columns="empty").sort_values("at").assign(at=lambda frame: frame["at"].astype(str))
        content.to_csv(home / "a.csv", index=False)
        assert Landings(Project.named("small", settings), settings).land(home / "a.csv").landed == 400
        studies.prepare(settings.studies())
        yield settings


def begin(landed: Settings, name: str, trials: int = 6) -> Begun:
    """A search of so many trials by two that has not had any yet."""
    folder = landed.projects / "small"
    (folder / "project.yaml").write_text(YAML.replace("trials: 6", f"trials: {trials}"))
    use = Project.named("small", landed)
    snapshot = Lake("small", landed.lake("small"), use.contract).snapshot()
    assert snapshot is not None
    found = studies.study(landed.studies(), name, use.search.seed)
    return Begun(tune.Search.of(use, snapshot, landed), found, snapshot)


@pytest.fixture
def begun(landed: Settings, request: pytest.FixtureRequest) -> Begun:
    """A search of six trials by two."""
    return begin(landed, request.node.name)


def test_two_processes_share_one_search(begun: Begun):
    """Two processes finish as many trials as were asked for, no more, each on rows that they read from the lake themselves."""
    looks = list[optuna.Study]()
    begun.together(looks.append)
    assert len(begun.finished) == 6
    assert all(
        trial.state.is_finished() for trial in begun.study.trials
    )  # one that both asked for at once was given up
    assert len({trial.params["logistic.C"] for trial in begun.finished}) == 6
    assert looks
    best = tune._best(begun.study, begun.search, 0, 1.0, 1.0)
    again = begun.search.examination.mark(best.recipe, lambda _step, _loss: None)
    assert again is not None
    assert best.value == pytest.approx(-again.loss)


def test_one_process_apart_finds_what_a_search_in_this_one_does(begun: Begun, landed: Settings):
    """With one worker the same seed draws the same trials with the same values, wherever it runs."""
    search = alone(begun.search)
    here = studies.study(landed.studies(), "here", search.use.search.seed)
    search.go_on(here, time.monotonic() + FOREVER, lambda: None)
    replace(begun, search=search).together()
    assert [trial.params for trial in begun.study.trials] == [trial.params for trial in here.trials]
    assert [trial.values for trial in begun.study.trials] == [trial.values for trial in here.trials]


def alone(search: tune.Search) -> tune.Search:
    """The same search by one worker."""
    asked = search.use.search.model_copy(update={"workers": 1})
    return replace(search, use=search.use.model_copy(update={"search": asked}))


KILLED = """
import os, signal, sys, time
from pathlib import Path
from tasks import tune
from tasks.ml.examination import Examination
place, flag, mark = tune.Part.model_validate_json(sys.argv[1]).place, Path(FLAG), Examination.mark
def killed(self, recipe, report):
    def told(step, loss):
        report(step, loss)
        if place == 0 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        while not flag.exists():  # the other would else be through before this one has begun
            time.sleep(0.05)
    return mark(self, recipe, told)
Examination.mark = killed
tune.explore_apart(sys.argv[1])
"""


def test_o_16_a_process_that_is_killed_in_a_trial_takes_nothing_with_it(begun: Begun, tmp_path: Path, monkeypatch):
    """SIGKILL after a fold: the other process goes on, the trial is tried again with what it had drawn, and the total is as asked."""
    monkeypatch.setattr(tune, "APART", f"FLAG = {str(tmp_path / 'killed')!r}\n{KILLED}")
    begun.together()
    assert (tmp_path / "killed").exists()
    assert len(begun.finished) == 6
    assert len({trial.params["logistic.C"] for trial in begun.finished}) == 6  # none was repeated
    lost = [trial for trial in begun.study.trials if trial.state == TrialState.FAIL and trial.intermediate_values]
    assert len(lost) == 1
    assert lost[0].params in [trial.params for trial in begun.finished]


def test_o_16_a_search_whose_processes_are_always_killed_ends_with_a_reason(begun: Begun, monkeypatch):
    """It is not tried for ever, no trial stays under way, and the reason says that they were killed and what that often means."""
    monkeypatch.setattr(tune, "APART", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    begun.study.ask()
    with pytest.raises(RuntimeError, match=r"2 of 2 processes of the search were killed \(SIGKILL\), 3 times.*memory"):
        begun.together()
    assert [trial.state for trial in begun.study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_search_whose_process_ran_out_of_memory_says_so(begun: Begun, monkeypatch):
    """What a process of the search could not get is known to the training."""
    monkeypatch.setattr(
        tune,
        "APART",
        "import sys\nfrom tasks import tune\ndef explore(part): raise MemoryError\ntune.explore = explore\ntune.explore_apart(sys.argv[1])",
    )
    with pytest.raises(MemoryError):
        begun.together()


def test_a_process_ends_with_the_one_that_started_it(begun: Begun, tmp_path: Path):
    """SIGKILL of the process that runs the training ends those that search for it."""
    part = tune.Part(
        project="small", config="", snapshot=begun.snapshot, study=begun.study.study_name, ranked=(), until=0.0
    )
    program = f"""
import time
from pathlib import Path
from tasks import tune
tune.APART = "import sys, time\\nfrom tasks import tune\\ntune.explore = lambda part: time.sleep(600)\\ntune.explore_apart(sys.argv[1])"
for _ in tune._on_this_machine([tune.Part.model_validate_json({part.model_dump_json()!r})] * 2):
    pass
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        children = until(
            lambda: both if len(both := psutil.Process(parent.pid).children()) == 2 else None, 60, "two processes"
        )
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_what_takes_part_must_be_of_the_same_code_and_configuration(begun: Begun):
    """Another project.yaml or other code would search something else: the error says so."""
    part = tune.Part(
        project="small", config="other", snapshot=begun.snapshot, study=begun.study.study_name, ranked=(), until=0.0
    )
    with pytest.raises(StackError, match="differ here from where the search began"):
        tune.explore(part.model_dump_json())


def test_what_takes_part_must_find_the_study(begun: Begun):
    """A process with another environment does not begin a study of its own."""
    config = tune._config(Project.named("small", Settings()))
    part = tune.Part(project="small", config=config, snapshot=begun.snapshot, study="nowhere", ranked=(), until=0.0)
    with pytest.raises(StackError, match=r"no study 'nowhere' in .*KEEPFIT_\*"):
        tune.explore(part.model_dump_json())


@pytest.mark.parametrize("place", [None, 0], ids=["alone", "one of several"])
def test_o_16_whoever_goes_on_alone_tries_what_was_lost_again(landed: Settings, place: int | None):
    """A Dask worker is lost in a trial and its task begins again on another: only where nobody else searches the trial is surely lost."""
    begun = begin(landed, f"lost at {place}", trials=2)
    begun.study.enqueue_trial({"family": "logistic", "logistic.C": 2.0, "window": "all"})
    lost = begun.study.ask()
    begun.search.space.suggest(lost)
    part = tune.Part(
        project="small", config=tune._config(begun.search.use), snapshot=begun.snapshot, study=begun.study.study_name, ranked=(), place=place,
        until=time.time() + 600,
    )  # fmt: skip
    tune.explore(part.model_dump_json())
    assert (2.0 in {trial.params["logistic.C"] for trial in begun.finished}) == (place is None)
    assert begun.study.trials[lost.number].state == (TrialState.FAIL if place is None else TrialState.RUNNING)


# -- on Dask ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cluster(landed: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[subprocess.Popen]]:
    """A scheduler and two workers on this machine, in this order; the environment names the scheduler."""
    file = tmp_path_factory.mktemp("dask") / "scheduler.json"
    quiet = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", *quiet, "--nthreads", "1", "--no-nanny"]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", *quiet, "--port", "0"]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in (scheduler, worker, worker)]
    try:
        until(file.exists, 60, "the scheduler")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("KEEPFIT_DASK", json.loads(file.read_text())["address"])
            with distributed.Client(Settings().dask, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            yield started
    finally:
        for process in started:
            process.kill()  # asked to end, a worker looks for its scheduler for a while
        for process in started:
            process.wait()


def test_two_dask_workers_share_one_search(begun: Begun, cluster):
    """Tasks on both workers finish as many trials as were asked for, and what they found is true here."""
    begun.together()
    assert len(begun.finished) == 6
    assert len({trial.params["logistic.C"] for trial in begun.finished}) == 6
    best = tune._best(begun.study, begun.search, 0, 1.0, 1.0)
    again = begun.search.examination.mark(best.recipe, lambda _step, _loss: None)
    assert again is not None
    assert best.value == pytest.approx(-again.loss)


def test_one_dask_worker_finds_what_a_search_in_this_process_does(begun: Begun, landed: Settings, cluster):
    """With one worker the same seed draws the same trials with the same values, wherever it runs."""
    search = alone(begun.search)
    here = studies.study(landed.studies(), "here, not on Dask", search.use.search.seed)
    search.go_on(here, time.monotonic() + FOREVER, lambda: None)
    replace(begun, search=search).together()
    assert [trial.params for trial in begun.study.trials] == [trial.params for trial in here.trials]
    assert [trial.values for trial in begun.study.trials] == [trial.values for trial in here.trials]


def test_a_search_on_dask_stops_when_the_training_does(landed: Settings, cluster):
    """The training ends in the middle: the workers stop after their trials, and the cluster is free again."""

    class EndedError(Exception):
        pass

    def end(study: optuna.Study) -> None:
        if tune._finished(study):
            raise EndedError

    begun = begin(landed, "ended", trials=500)
    with pytest.raises(EndedError):
        begun.together(end)
    with distributed.Client(Settings().dask, set_as_default=False) as client:
        until(lambda: not any(client.processing().values()), 60, "the end of the tasks")
        busy = lambda: client.run(lambda dask_worker: dask_worker.state.executing_count)  # noqa: E731
        until(lambda: not any(busy().values()), 60, "the end of the threads")
    assert 0 < len(begun.finished) < 500


def test_dask_workers_on_other_machines_need_a_database_server(landed: Settings, monkeypatch: pytest.MonkeyPatch):
    """An SQLite file cannot be reached from elsewhere: the error names the machines and the setting."""
    with pytest.raises(StackError, match=r"run on 192\.0\.2\.7.*KEEPFIT_STUDIES_URL"):
        tune._reach(landed, {"127.0.0.1", "192.0.2.7"})
    tune._reach(landed, {"127.0.0.1"})
    monkeypatch.setenv("KEEPFIT_STUDIES_URL", "postgresql://user@server/studies")
    tune._reach(Settings(), {"192.0.2.7"})


def test_a_dask_scheduler_that_is_not_there_is_told(begun: Begun, monkeypatch: pytest.MonkeyPatch):
    """Nobody answers: the error names the setting and what to do."""
    monkeypatch.setattr(tune, "PATIENCE", 0.5)
    monkeypatch.setenv("KEEPFIT_DASK", f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(StackError, match="No Dask scheduler answers at KEEPFIT_DASK=tcp://127"):
        begun.together()


def test_o_16_a_dask_worker_that_is_killed_takes_nothing_with_it(landed: Settings, cluster):
    """SIGKILL of a worker in the middle: the other one goes on, and the total is as asked, none of it repeated."""

    def kill(study: optuna.Study) -> None:
        if tune._finished(study):
            cluster[2].kill()

    begun = begin(landed, "killed worker", trials=20)
    begun.together(kill)
    assert cluster[2].wait() == -signal.SIGKILL
    assert len(begun.finished) == 20
    assert len({trial.params["logistic.C"] for trial in begun.finished}) == 20


# -- faults -----------------------------------------------------------------------------------------------------------
def test_o_16_a_trial_that_fails_is_no_failed_search(monkeypatch: pytest.MonkeyPatch):
    """One recipe raises: the others are tried, it counts against the budget, and its error is kept."""
    mark, calls = Examination.mark, list[Recipe]()

    def sometimes(self, recipe, report):
        calls.append(recipe)
        if len(calls) == 2:
            raise ValueError("a singular matrix")
        return mark(self, recipe, report)

    monkeypatch.setattr(Examination, "mark", sometimes)
    found = searched(project())
    assert [trial.state.name for trial in found.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert found.trials[1].user_attrs["error"] == "ValueError: a singular matrix"
    assert len({str(trial.params) for trial in found.trials}) == 4  # what failed is not drawn again
    assert tune._best(found, tune.Search.over(project(), rows()), 0, 0.0, 0.0).trials == 3


def test_a_search_that_goes_on_after_a_trial_that_failed_repeats_no_draw(monkeypatch: pytest.MonkeyPatch):
    """The second of three trials raises and the search is killed after the third: the next ones are those of a search that was not."""
    mark, found = Examination.mark, list[optuna.Study]()
    for budgets in ((5,), (3, 4)):  # what raised before a search goes on does not count against its budget
        calls = list[Recipe]()

        def sometimes(self, recipe, report, calls=calls):
            calls.append(recipe)
            if len(calls) == 2:
                raise ValueError("a singular matrix")
            return mark(self, recipe, report)

        monkeypatch.setattr(Examination, "mark", sometimes)
        found.append(study())
        for trials in budgets:
            searched(project(trials=trials), found[-1])
    whole, parted = ([trial.params for trial in each.trials] for each in found)
    assert parted == whole
    assert len({str(params) for params in whole}) == 5


def test_what_the_champion_is_made_of_is_tried_again_when_memory_ran_out_once(monkeypatch: pytest.MonkeyPatch):
    """The next search over the same rows has it among its complete trials; after a second time the others go on without."""
    use, mark = project(families=["logistic"], trials=2), Examination.mark
    search, champion = tune.Search.over(use, rows()), Recipe(family=models.Logistic(C=0.1))

    def went_on(found: optuna.Study) -> list[float]:
        studies.begin(found, search.space.starts([champion]))
        search.go_on(found, time.monotonic() + FOREVER, lambda: None)
        return [trial.params["logistic.C"] for trial in tune._complete(found)]

    for fails, wanted in ((1, [1.0, 0.1]), (2, [1.0])):
        left, found = [MemoryError()] * fails, study()

        def short(self, recipe, report, left=left):
            if recipe == champion and left:
                raise left.pop()
            return mark(self, recipe, report)

        monkeypatch.setattr(Examination, "mark", short)
        for _ in range(fails):
            with pytest.raises(MemoryError):
                went_on(found)
        done = went_on(found)
        assert done[: len(wanted)] == wanted
        assert len(done) == 2
        assert (0.1 in done) == (fails == 1)


def test_columns_that_cannot_be_ranked_are_no_failed_search(monkeypatch: pytest.MonkeyPatch):
    """The family that ranks them raises: all columns are always read; memory that ran out is told as ever."""
    use = project()
    more = {f"n{number}": {"type": "float"} for number in range(6)}
    contract = use.contract.model_dump(mode="json", exclude_none=True)
    use = Project.model_validate(use.model_dump(mode="json", exclude_none=True) | {"contract": contract | {"columns": contract["columns"] | more}})  # fmt: skip
    content = rows().assign(**dict.fromkeys(more, 1.0))
    assert tune.Search.over(use, content).space.ranked

    def broken(_):
        raise error

    monkeypatch.setattr(Examination, "ranked", broken)
    error: Exception = IndexError("boolean index did not match")
    assert tune.Search.over(use, content).space.ranked == ()
    error = MemoryError()
    with pytest.raises(MemoryError):
        tune.Search.over(use, content)


def test_o_16_what_was_lost_with_the_first_trial_is_made_good_however_short_the_time_is():
    """Until one trial is complete, each runs to its end, so that a search that was killed in its first can still end."""
    use, found = project(families=["logistic"], trials=3), study()
    found.add_trial(ended(TrialState.FAIL))
    search = tune.Search.over(use, rows())
    search.run(found, found.ask(), time.monotonic() - 1)
    search.run(found, found.ask(), time.monotonic() - 1)
    assert [trial.state.name for trial in found.trials] == ["FAIL", "COMPLETE", "PRUNED"]


def test_o_16_a_recipe_during_which_somebody_ended_the_search_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    """An interrupt says nothing about the recipe: it is the next one that is tried."""

    def interrupted(*_):
        raise KeyboardInterrupt

    use, found = project(families=["logistic"], trials=2), study()
    found.enqueue_trial({"family": "logistic", "logistic.C": 2.0})
    with monkeypatch.context() as patched:
        patched.setattr(Examination, "mark", interrupted)
        with pytest.raises(KeyboardInterrupt):
            searched(use, found)
    first, second = (trial.params["logistic.C"] for trial in tune._complete(searched(use, found)))
    whole = study()
    whole.enqueue_trial({"family": "logistic", "logistic.C": 2.0})
    assert (first, second) == (2.0, searched(use, whole).trials[1].params["logistic.C"])


def test_a_metric_that_no_fold_can_be_judged_by_is_named(monkeypatch: pytest.MonkeyPatch):
    """More time would not help: the message says so, and what would."""
    monkeypatch.setattr(Examination, "mark", lambda *_: None)
    use = project(families=["logistic"])
    with pytest.raises(RuntimeError, match=r"No recipe of small can be judged by roc_auc: on none of the 2 folds"):
        tune._best(searched(use), tune.Search.over(use, rows()), 0, 0.0, 0.0)


def test_a_picture_that_cannot_be_drawn_ends_no_search(monkeypatch: pytest.MonkeyPatch, mixed: optuna.Study):
    """Prefect's server restarts while the search goes on: it goes on."""

    def refused(**_):
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(tune, "create_markdown_artifact", lambda *_, **__: UUID(int=0))
    monkeypatch.setattr(tune, "get_client", refused)
    tune.Progress("small", project(), time.monotonic()).update(mixed)


@pytest.mark.parametrize("changed", ["code", "lock"])
def test_what_was_tried_under_other_conditions_is_another_study(changed: str, monkeypatch: pytest.MonkeyPatch):
    """Other code, packages, or rows set apart to judge: their trials are not counted as trials of today."""
    use = project()
    snapshot = Snapshot(project="small", version=1, digest="d" * 64, rows=1, since="", until="", trusted=1)
    before = tune._name(use, snapshot)
    assert tune._name(use, snapshot.model_copy(update={"trusted": 2})) != before == tune._name(use, snapshot)
    monkeypatch.setattr(provenance, changed, lambda: "other")
    assert tune._name(use, snapshot) != before


def test_o_16_when_all_trials_fail_there_is_no_candidate_but_a_reason(monkeypatch: pytest.MonkeyPatch):
    """The search ends by itself, and the error names the last one's cause and what happens to the champion."""

    def never(*_):
        raise ValueError("a singular matrix")

    monkeypatch.setattr(Examination, "mark", never)
    found = searched(project())
    assert [trial.state for trial in found.trials] == [TrialState.FAIL] * 4
    with pytest.raises(
        RuntimeError, match=r"4 failed; the last one: ValueError: a singular matrix\. There is no candidate"
    ):
        tune._best(found, tune.Search.over(project(), rows()), 0, 0.0, 0.0)
    monkeypatch.undo()
    assert len(tune._finished(searched(project(), found))) == 4  # what was mended is tried again


def test_o_16_a_storage_that_is_locked_is_waited_for(settings: Settings):
    """Somebody holds the database for a while: no trial ends meanwhile, and all do afterwards."""
    studies.prepare(settings.studies())
    found = studies.study(settings.studies(), "locked", 7)
    search = tune.Search.over(project(families=["logistic"]), rows())
    searching = threading.Thread(target=search.go_on, args=(found, time.monotonic() + FOREVER, lambda: None))
    holder = sqlite3.connect(settings.home / "studies.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        searching.start()
        searching.join(2)
        assert searching.is_alive()
        assert holder.execute("SELECT count(*) FROM trials").fetchone() == (0,)
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    searching.join()
    assert [trial.state.is_finished() for trial in found.trials] == [True] * 4


MOMENTS = """
import os, signal, sys, time
import optuna
from tasks import tune
from tasks.config.settings import Settings
from tasks.ml.examination import Examination
from tasks.stores import studies
from tests.tasks import test_tune as asked
url = Settings().studies()
use = asked.project(trials=5, families=["logistic"])
search = tune.Search.over(use, asked.rows())
planted = {"in its first trial": (optuna.Trial, "report", 1), "between two folds": (optuna.Trial, "report", 5), "between two trials": (optuna.Study, "ask", 4)}
for moment, (owner, name, nth) in planted.items():
    if os.fork() == 0:
        true, calls = getattr(owner, name), []
        def killed(self, *args):
            calls.append(1)
            if len(calls) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return true(self, *args)
        setattr(owner, name, killed)
        search.go_on(studies.study(url, moment, 7), time.monotonic() + 1e9, lambda: None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of studies that were killed, each at another moment."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KEEPFIT_HOME", str(tmp_path_factory.mktemp("killed")))
        environment.setenv("PYTHONPATH", str(REPOSITORY))
        url = Settings().studies()
        studies.prepare(url)
        studies.study(url, "schema", 0)
        subprocess.run([sys.executable, "-c", MOMENTS], check=True)
        return url


@pytest.mark.parametrize(
    ("moment", "done"), [("in its first trial", 0), ("between two folds", 2), ("between two trials", 3)]
)
def test_o_16_a_killed_search_goes_on_without_repeating(killed: str, moment: str, done: int):
    """SIGKILL at any moment: what was finished stays untouched, and in the end there are the trials of a search that nobody killed."""
    use = project(trials=5, families=["logistic"])
    whole = searched(use, studies.study(killed, f"whole, {moment}", 7))
    found = studies.study(killed, moment, 7)
    before = [(trial.number, trial.datetime_complete, trial.values) for trial in tune._finished(found)]
    assert len(before) == done
    searched(use, found)
    after = tune._finished(found)
    assert [(trial.number, trial.datetime_complete, trial.values) for trial in after][:done] == before
    assert [(trial.params, trial.state, trial.values) for trial in after] == [
        (trial.params, trial.state, trial.values) for trial in whole.trials
    ]


def test_whoever_asks_for_one_trial_too_many_gives_it_up(monkeypatch: pytest.MonkeyPatch):
    """Two searchers see that one trial is left and both ask for it: the later number is given up, and the total is as asked."""
    use, found, theirs = project(trials=3), study(), list[optuna.Trial]()
    search, ask = tune.Search.over(use, rows()), found.ask

    def slower() -> optuna.Trial:
        if len(tune._finished(found)) == 2 and not theirs:
            theirs.append(ask())  # somebody else was a moment quicker
        return ask()

    monkeypatch.setattr(found, "ask", slower)
    search.go_on(found, time.monotonic() + FOREVER, lambda: None, place=0)
    assert [trial.state for trial in found.trials[-2:]] == [TrialState.RUNNING, TrialState.FAIL]
    search.run(found, theirs[0], time.monotonic() + FOREVER)
    assert len(tune._finished(found)) == 3
