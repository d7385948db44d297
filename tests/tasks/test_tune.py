"""The search: scored on later rows, the same for a seed, within its budget, resumable."""

import datetime as dt
import time

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState, create_trial
from sklearn.metrics import roc_auc_score

from tasks import tune
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml import models
from tasks.stores.journal import Journal

pytestmark = pytest.mark.filterwarnings("ignore:Argument ``(group|multivariate)`` is an experimental feature")
FOREVER = 1e12


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
            "search": {"seconds": 600, "trials": 4, "folds": 2, "seed": 7, **search},
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
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, group=True, multivariate=True))


def searched(use: Project, seed: int = 7, trials: int = 4) -> optuna.Study:
    found = study(seed)
    found.optimize(tune.Search(use, rows(), time.monotonic() + FOREVER).score, n_trials=trials)
    return found


# -- the score --------------------------------------------------------------------------------------------------------
def test_a_score_is_the_mean_loss_on_the_rows_after():
    """The defaults of logistic regression score what scikit-learn says on the same folds."""
    use = project(families=["logistic"])
    found = study()
    found.enqueue_trial(models.trial_params(models.Logistic()))
    found.optimize(tune.Search(use, rows(), time.monotonic() + FOREVER).score, n_trials=1)
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
    first, second, other = searched(project()), searched(project()), searched(project(), seed=8)
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]
    assert [trial.values for trial in first.trials] == [trial.values for trial in second.trials]
    assert [trial.params for trial in first.trials] != [trial.params for trial in other.trials]


def test_a_search_looks_at_the_newest_rows_only():
    """With a limit on rows, the older ones are in no fold, and every fold is scored on later rows than it learned from."""
    search = tune.Search(project(rows=100), rows(), 0.0)
    newest = rows().sort_values("at").tail(100)
    used = sorted({index for fold in search.folds for index in [*fold[0].index, *fold[2].index]})
    assert used == list(range(100))
    assert [len(fold[0]) for fold in search.folds] == [70, 85]
    assert search.folds[-1][2]["amount"].tolist() == newest["amount"].tolist()[85:]


def test_a_fold_with_one_class_does_not_count():
    """A fold in which nothing can be told apart is left out; when all are, the trial is pruned instead of failing."""
    lonely = rows().assign(y=pd.array([False] * 400, dtype="boolean"))
    found = study()
    found.optimize(tune.Search(project(), lonely, time.monotonic() + FOREVER).score, n_trials=1)
    assert found.trials[0].state == TrialState.PRUNED


# -- the budget -------------------------------------------------------------------------------------------------------
def test_the_deadline_ends_every_trial_but_the_first_after_a_fold():
    """When time is up, a trial that runs is pruned at its next fold; the first one is finished, so that there is a model."""
    use = project(folds=3)
    found = study()
    found.optimize(tune.Search(use, rows(), time.monotonic() - 2 * use.search.seconds).score, n_trials=3)
    assert [trial.state for trial in found.trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert [len(trial.intermediate_values) for trial in found.trials] == [3, 1, 1]


def test_a_hopeless_trial_is_pruned():
    """A trial that the pruner gives up ends after its first fold."""
    found = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=-2.0))
    found.optimize(tune.Search(project(), rows(), time.monotonic() + FOREVER).score, n_trials=1)
    assert found.trials[0].state == TrialState.PRUNED
    assert len(found.trials[0].intermediate_values) == 1


# -- where it starts --------------------------------------------------------------------------------------------------
def test_each_familys_defaults_are_tried_first(settings: Settings):
    """The first trials are the defaults in the project's order, and queueing them again queues nothing."""
    use = project(families=["logistic", "hist_gradient_boosting"])
    found = study()
    for _ in range(2):
        tune._start_points(found, use, settings)
    assert [trial.state for trial in found.trials] == [TrialState.WAITING] * 2
    found.optimize(tune.Search(use, rows(), time.monotonic() + FOREVER).score, n_trials=2)
    defaults = [models.Logistic(), models.HistGradientBoosting()]
    assert [trial.params for trial in found.trials] == [models.trial_params(family) for family in defaults]


def test_what_the_champion_was_made_with_is_tried_too(settings: Settings):
    """The parameters of the last released training stand in the queue after the defaults, unless its family is gone."""
    champion, at = models.Logistic(C=0.037), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    journal = Journal(settings.journal())
    number = journal.start_training(project="small", trigger="by hand", event=False, snapshot="s", config="c", at=at)
    journal.end_training(
        number, state="released", reason="better", at=at, version=1, detail={"family": champion.model_dump()}
    )
    both, gone = study(), study()
    tune._start_points(both, project(), settings)
    tune._start_points(gone, project(families=["hist_gradient_boosting"]), settings)
    assert queued(both)[2:] == [models.trial_params(champion)]
    assert queued(gone) == [models.trial_params(models.HistGradientBoosting())]


def queued(found: optuna.Study) -> list[dict]:
    return [trial.system_attrs["fixed_params"] for trial in found.trials]


# -- what counts ------------------------------------------------------------------------------------------------------
def ended(state: TrialState, value: float | None = None) -> optuna.trial.FrozenTrial:
    """A trial of logistic regression that ended in a state."""
    space = optuna.distributions.FloatDistribution(1e-3, 1e2, log=True)
    families = optuna.distributions.CategoricalDistribution(["hist_gradient_boosting", "logistic"])
    return create_trial(
        state=state, value=value, params={"family": "logistic", "logistic.C": 0.5}, distributions={"family": families, "logistic.C": space},
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
    best = tune._best(mixed, project(), 1, 2.0, 3.0)
    assert (best.family, best.value) == (models.Logistic(C=0.5), 0.9)
    assert (best.trials, best.pruned, best.resumed, best.seconds, best.cpu_seconds) == (3, 1, 1, 2.0, 3.0)


def test_a_loss_stays_a_loss():
    """For a metric of which less is better, the history has the value as it is and the least one wins."""
    found = study()
    found.add_trial(ended(TrialState.COMPLETE, 0.4))
    found.add_trial(ended(TrialState.COMPLETE, 0.3))
    best = tune._best(found, project().model_copy(update={"metric": "log_loss"}), 0, 0.0, 0.0)
    assert best.value == 0.3


def test_a_search_without_a_finished_trial_says_what_to_change():
    """Nothing was finished in the time: the message names the two settings that help."""
    with pytest.raises(RuntimeError, match=r"search\.seconds more, or search\.rows fewer"):
        tune._best(study(), project(), 0, 0.0, 0.0)
