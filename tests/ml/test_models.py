"""Model families: whatever the rows look like, a pipeline fits, answers, and answers the same again."""

import numpy as np
import optuna
import pandas as pd
import pytest

from tasks.ml import models
from tasks.ml.contract import Column
from tasks.ml.features import matrix
from tasks.ml.kinds import Anomaly, Binary, Multiclass
from tasks.ml.metrics import METRICS, Cost
from tasks.ml.models import (
    FAMILIES,
    ExtraTrees,
    HistGradientBoosting,
    IsolationForest,
    Logistic,
    RandomForest,
    families_of,
    observed,
    pipeline,
)
from tasks.ml.recipe import Learned, Recipe
from tasks.ml.space import Space
from tasks.ml.window import Window, choices

COLUMNS = {
    "amount": Column(type="float", nullable=True),
    "count": Column(type="int"),
    "flag": Column(type="bool"),
    "empty": Column(type="float", nullable=True),
    "kind": Column(type="category", nullable=True),
    "note": Column(type="text", nullable=True),
}
TYPES = {name: column.type for name, column in COLUMNS.items()}
N = 400


def rows(seed: int, kinds: tuple[str | None, ...] = ("a", "b", None)) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows with missing numbers and texts and a column that is always missing, and labels that follow from them."""
    rng = np.random.default_rng(seed)
    amount, flag = rng.normal(size=N), rng.random(N) < 0.5
    kind = rng.choice(np.array(kinds, dtype=object), size=N)
    y = (amount + flag + (kind == "a") + rng.normal(scale=0.5, size=N) > 1).astype(int)
    frame = pd.DataFrame(
        {
            "amount": np.where(rng.random(N) < 0.1, np.nan, amount),
            "count": pd.array(rng.integers(0, 9, N), dtype="Int64"),
            "flag": pd.array(flag, dtype="boolean"),
            "empty": np.full(N, np.nan),
            "kind": pd.array(kind, dtype="string"),
            "note": pd.array([None] * N, dtype="string"),
        }
    )
    return matrix(frame, TYPES), y


def fitted(family, x, y):
    """A pipeline as training makes it: over the columns that hold any value."""
    return pipeline(family, observed(COLUMNS, x), seed=0).fit(x, y)


@pytest.fixture(params=[name for name, family in FAMILIES.items() if "binary" in family.fits])
def family(request):
    """Each family with its defaults."""
    return Recipe.usual(request.param).family


def test_a_pipeline_learns_in_spite_of_holes(family):
    """Missing texts, missing numbers and columns without any value neither stop a fit nor spoil it."""
    x, y = rows(0)
    later, truth = rows(1)
    answers = fitted(family, x, y).predict_proba(later)[:, 1]
    assert METRICS["roc_auc"].of(truth, answers) > 0.85


def test_columns_without_any_value_are_left_out():
    """A column that is empty in these rows is not learned from; the order of the others stays."""
    assert list(observed(COLUMNS, rows(0)[0])) == ["amount", "count", "flag", "kind"]


def test_unseen_categories_are_answered(family):
    """A category that training never met gets a finite probability."""
    model = fitted(family, *rows(0))
    answers = model.predict_proba(rows(1, kinds=("never seen", "neither", None))[0])[:, 1]
    assert np.isfinite(answers).all()
    assert ((answers >= 0) & (answers <= 1)).all()


def test_a_missing_category_is_answered_where_training_had_none(family):
    """Training without a hole does not stop an answer to a row with one."""
    model = fitted(family, *rows(0, kinds=("a", "b")))
    assert np.isfinite(model.predict_proba(rows(1)[0])).all()


def test_a_column_may_be_filled_for_the_first_time(family):
    """A column that was empty in training may carry values later."""
    model = fitted(family, *rows(0))
    later = rows(1)[0].assign(empty=1.0, note="hello")
    assert np.isfinite(model.predict_proba(later)).all()


def test_a_row_is_answered_alone_as_among_others(family):
    """An answer depends on its row only."""
    model = fitted(family, *rows(0))
    later = rows(1)[0].head(20)
    alone = [model.predict_proba(later.iloc[[place]])[0, 1] for place in range(len(later))]
    assert alone == pytest.approx(model.predict_proba(later)[:, 1], abs=1e-12)


def test_the_same_seed_gives_the_same_model(family):
    """Two fits on the same rows with the same seed answer alike to the last bit."""
    x, y = rows(0)
    first, second = (fitted(family, x, y).predict_proba(x) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_preparation_is_fitted_on_the_rows_of_the_fit_only(family):
    """What is imputed and scaled comes from training: later rows do not move it."""
    model = fitted(family, *rows(0))
    later = rows(1)[0]
    before = model.predict_proba(later.head(5))
    model.predict_proba(later.assign(amount=1e6))
    assert model.predict_proba(later.head(5)).tobytes() == before.tobytes()


@pytest.mark.parametrize("kept", [["amount", "count"], ["kind"]], ids=["numbers only", "texts only"])
def test_projects_with_one_sort_of_column_work(family, kept):
    """A project may have only numbers or only texts."""
    columns = {name: COLUMNS[name] for name in kept}
    x, y = rows(0)
    assert np.isfinite(pipeline(family, columns, seed=0).fit(x[kept], y).predict_proba(x[kept])).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("problem", ["binary", "regression", "anomaly"])
def test_a_suggestion_can_be_enqueued_again(seed, problem):
    """The recipe of a trial, given back to Optuna, makes the same recipe."""
    space = Space(families_of(problem), tuple(choices(100)), tuple("abcdefghijkl"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    tried = space.suggest(study.ask())
    params = space.params(tried)
    assert params is not None
    study.enqueue_trial(params)
    assert space.suggest(study.ask()) == tried


def test_what_the_champion_is_made_of_is_found_again_in_a_space_that_has_moved():
    """A week later the windows have other lengths and the columns are ranked anew: the nearest choice is what it was."""
    space = Space(("logistic",), tuple(choices(367)), tuple("bacdefghijkl"))
    champion = Recipe.usual("logistic").model_copy(
        update={"window": Window(kind="decay", days=45), "features": tuple("abcdex")}
    )
    params = space.params(champion)
    assert params is not None
    assert (params["window"], params["columns"]) == ("half-life 46 days", "best 6")
    strange = space.params(champion.model_copy(update={"features": ("y", "z")}))
    assert strange is not None
    assert strange["columns"] == "all"


@pytest.mark.parametrize("kind", [name for name, family in FAMILIES.items() if not family.weighs])
def test_a_family_that_cannot_weigh_rows_is_offered_no_half_life(kind):
    """It would learn the same as from all rows under another name; a champion with one is tried on all rows, beside families that have them."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = Space((kind, "hist_gradient_boosting"), tuple(choices(100)))
    tried = [space.suggest(study.ask()) for _ in range(60)]
    found = {name: {each.window.kind for each in tried if each.family.kind == name} for name in space.families}
    assert found == {kind: {"all", "last"}, "hist_gradient_boosting": {"all", "last", "decay"}}
    assert [space.suggest(trial) for trial in study.trials] == tried
    champion = Recipe.usual(kind).model_copy(update={"window": Window(kind="decay", days=50)})
    params = space.params(champion)
    assert params is not None
    study.enqueue_trial(params)
    assert space.suggest(study.ask()) == Recipe.usual(kind)


def test_a_search_keeps_to_its_families():
    """A project that allows one family gets no other, and nothing of a family that is gone is tried."""
    study, space = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), Space(("logistic",))
    assert {space.suggest(study.ask()).family.kind for _ in range(5)} == {"logistic"}
    assert space.params(Recipe.usual("ridge")) is None


@pytest.mark.parametrize(
    ("given", "name", "moved"),
    [
        (Logistic(C=1e9), "logistic.C", 100.0),
        (HistGradientBoosting(max_iter=5000), "hist_gradient_boosting.max_iter", 400),
    ],
    ids=["C", "max_iter"],
)
def test_parameters_out_of_range_are_moved_in(given, name, moved):
    """A champion made by hand with wild parameters is enqueued at the border of the search."""
    params = Space(("logistic", "hist_gradient_boosting")).params(Recipe(family=given))
    assert params is not None
    assert params[name] == moved


@pytest.mark.parametrize(
    "family", [RandomForest(n_estimators=5), ExtraTrees(n_estimators=5), IsolationForest(n_estimators=5, max_samples=1)]
)
def test_a_tree_of_a_forest_is_grown_on_so_many_rows_at_most(family, monkeypatch):
    """A longer history makes a forest neither dearer nor larger; on fewer rows it is the one that scikit-learn grows, to the last bit."""
    x, y = rows(0)
    learned = Learned(features=x, truth=y, times=pd.Series(pd.date_range("2026-01-01", periods=N, freq="h", tz="UTC")))
    kind = Anomaly() if family.kind == "isolation_forest" else Binary("y", True, ("no", "yes"), Cost())
    own = pipeline(family, observed(COLUMNS, x), seed=0, problem=kind.name).fit(x, kind.taught(y))
    for draws, grown in ((100, 100), (N, N)):
        monkeypatch.setattr(models, "DRAWS", draws)
        model = Recipe(family=family).fit(kind, COLUMNS, learned, seed=0)
        assert {tree.tree_.weighted_n_node_samples[0] for tree in model[-1].estimators_} == {grown}
        assert kind.answers(model, x).tobytes() != kind.answers(own, x).tobytes() or draws == N
    assert kind.answers(model, x).tobytes() == kind.answers(own, x).tobytes()


@pytest.mark.parametrize("kind", [name for name, family in FAMILIES.items() if "multiclass" in family.fits])
@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c")], ids=["two occur", "three occur"])
def test_texts_of_many_values_are_learned_from_where_few_of_the_labels_occur(kind, labels):
    """A fold or a window has rows of two of three labels only: the model fits, answers, and gives the third no chance."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"amount": rng.normal(size=N), "text": rng.permutation([f"t{n % 80}" for n in range(N)])})
    columns = {"amount": Column(type="float"), "text": Column(type="text")}
    task = Multiclass("y", ("a", "b", "c"))
    truth = task.truth(pd.DataFrame({"y": rng.choice(labels, N)}))
    features = matrix(frame, {"amount": "float", "text": "text"})
    times = pd.Series(pd.date_range("2026-01-01", periods=N, freq="h", tz="UTC"))
    model = Recipe.usual(kind).fit(task, columns, Learned(features, truth, times), seed=0)
    answers = task.answers(model, features)
    assert answers.sum(axis=1) == pytest.approx(1)
    assert (answers[:, 2] > 0).any() == ("c" in labels)
