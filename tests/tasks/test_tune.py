"""The search: scored on later rows, the same for a seed, within its budget, resumable."""

import datetime as dt
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState, create_trial
from sklearn.metrics import roc_auc_score

from tasks import tune
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ingest import Landings
from tasks.ml import models
from tasks.ml.recipe import Recipe
from tasks.stores import studies
from tasks.stores.journal import Journal

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
    for start, stop in [(280, 340), (340, 400)]:
        features = ordered[["amount", "kind"]].assign(kind=ordered["kind"].astype("str"))
        truth = ordered["y"].astype(int).to_numpy()
        model = models.pipeline(models.Logistic(), columns, 7).fit(features[:start], truth[:start])
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


def test_a_search_looks_at_the_newest_rows_only():
    """With a limit on rows, the older ones are in no fold, and every fold is scored on later rows than it learned from."""
    folds = tune.Search.over(project(rows=100), rows()).examination.folds
    newest = rows().sort_values("at").tail(100)
    assert [len(learned.features) for learned, _, _ in folds] == [70, 85]
    assert [learned.times.min() for learned, _, _ in folds] == [newest["at"].min()] * 2
    assert all(learned.times.max() < newest["at"].iloc[len(learned.times)] for learned, _, _ in folds)
    assert folds[-1][1]["amount"].tolist() == newest["amount"].tolist()[85:]


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
    """The recipe of the last released training comes first, then those of the last ones, the newest first."""
    journal, at = Journal(settings.journal()), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    recipes = [Recipe(family=models.Logistic(C=c)) for c in (0.1, 0.2, 0.3)]
    for recipe, state in zip(recipes, ("released", "refused", "refused"), strict=True):
        number = journal.start_training(
            project="small", trigger="by hand", event=False, snapshot="s", config="c", at=at
        )
        detail = {"recipe": recipe.model_dump(mode="json")}
        journal.end_training(number, state=state, reason="better", at=at, version=1, detail=detail)
    champion, second, third = recipes
    assert tune._earlier(project(), settings) == [champion, third, second, champion]
    starts = tune.Search.over(project(), rows()).space.starts(tune._earlier(project(), settings))
    assert [start.get("logistic.C") for start in starts] == [0.1, None, 1.0, 0.3, 0.2]


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


def test_two_processes_share_one_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two processes finish as many trials as were asked for, no more, each on rows that they read from the lake themselves."""
    folder = tmp_path / "projects" / "small"
    folder.mkdir(parents=True)
    (folder / "project.yaml").write_text(YAML)
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(folder.parent))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    here = Settings()
    use = Project.named("small", here)
    content = rows().drop(columns="empty").sort_values("at").assign(at=lambda frame: frame["at"].astype(str))
    content.to_csv(tmp_path / "a.csv", index=False)
    landings = Landings(use, here)
    assert landings.land(tmp_path / "a.csv").landed == 400
    studies.prepare(here.studies())
    found, looks = studies.study(here.studies(), "both", 7), []
    snapshot = landings.lake.snapshot()
    assert snapshot is not None
    search = tune.Search.of(use, snapshot, here)
    shown = SimpleNamespace(update=looks.append)
    tune._together(search, found, snapshot, cast("tune.Progress", shown), time.monotonic() + 600)
    ended = tune._finished(found)
    assert len(ended) == 6
    assert all(trial.state.is_finished() for trial in found.trials)  # one that both asked for at once was given up
    assert len({trial.params["logistic.C"] for trial in ended}) == 6
    assert looks
    best = tune._best(found, search, 0, 1.0, 1.0)
    again = search.examination.mark(best.recipe, lambda _step, _loss: None)
    assert again is not None
    assert best.value == pytest.approx(-again.loss)


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
