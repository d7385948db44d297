"""Explanations: held against formulas, scikit-learn, and sums by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression

from tasks.ml import card, explain, pictures
from tasks.ml.explain import Importance
from tasks.ml.kinds import Binary, Regression
from tasks.ml.metrics import METRICS, Cost
from tests.ml.test_card import facts
from tests.ml.test_pictures import opened

NUMBER = Regression("y")
WEIGHTS = {"a": 2.0, "b": -1.0, "c": 0.5, "d": 0.0}


def numbers(count=4000, seed=0):
    """Independent columns of variance 1, and a number that is their weighted sum and a little noise."""
    rng = np.random.default_rng(seed)
    features = pd.DataFrame(rng.normal(size=(count, 4)), columns=list(WEIGHTS))
    return features, features.to_numpy() @ np.array(list(WEIGHTS.values())) + rng.normal(scale=0.1, size=count)


def measured(count=4000, metric="rmse", seed=3):
    """The importance of the columns of a linear model."""
    features, truth = numbers(count)
    model = LinearRegression().fit(*numbers(3000, 1))
    return Importance.of_model(NUMBER, METRICS[metric], model, features, truth, seed=seed)


def test_importance_is_what_the_formula_says():
    """Shuffling an independent column adds twice its squared weight to the squared error; the interval holds that."""
    found = {one.column: one for one in measured().columns}
    assert list(found) == ["a", "b", "c", "d"]
    for name, weight in WEIGHTS.items():
        expected = np.sqrt(2 * weight**2 + 0.01) - 0.1
        assert found[name].loss.value == pytest.approx(expected, rel=0.05, abs=0.001)
        assert found[name].loss.low - 0.001 <= expected <= found[name].loss.high + 0.001
    assert [found[name].is_sure for name in "abc"] == [True] * 3


def test_importance_agrees_with_scikit_learn():
    """scikit-learn's own permutation importance of an AUC lies within the interval of every column."""
    features, number = numbers(2000)
    kind, labels = Binary("y", positive=True, labels=("no", "yes"), cost=Cost()), number > 0
    model = LogisticRegression().fit(features, np.where(labels, "yes", "no"))
    found = Importance.of_model(kind, METRICS["roc_auc"], model, features, labels.astype("int8"), seed=1)
    other = permutation_importance(model, features, np.where(labels, "yes", "no"), scoring="roc_auc", n_repeats=20, random_state=0)  # fmt: skip
    for one in found.columns:
        expected = other.importances_mean[list(features).index(one.column)]
        assert one.loss.low - 0.002 <= expected <= one.loss.high + 0.002


def test_a_column_that_is_not_read_has_no_importance():
    """Where the model does not look at a column, nothing changes, and nothing is sure."""
    features, truth = numbers(1000)
    model = LinearRegression().fit(features, truth)
    model.coef_[3] = 0.0
    (last,) = [one for one in Importance.of_model(NUMBER, METRICS["mae"], model, features, truth, seed=1).columns if one.column == "d"]  # fmt: skip
    assert (last.loss.value, last.loss.low, last.loss.high) == (0.0, 0.0, 0.0)
    assert not last.is_sure


def test_importance_is_bounded_and_says_so(monkeypatch):
    """Of many rows so many are asked about as the cap allows, fewer with many columns; the note has both numbers."""
    assert measured(6000).note == "4,000 rows drawn from 6,000, values dealt out anew 3 times"
    assert measured(700).note == "all 700 rows, values dealt out anew 3 times"
    monkeypatch.setattr(explain, "ASKED", 12_000)
    assert measured(6000).rows == 1000
    monkeypatch.setattr(explain, "ASKED", 1)
    assert measured(6000).rows == 500


def test_importance_is_repeatable_and_edits_nothing():
    """The same seed gives the same numbers, another seed others; the rows stay as they were."""
    features, truth = numbers(800)
    before = features.copy()
    model = LinearRegression().fit(features, truth)
    first, again, other = (
        Importance.of_model(NUMBER, METRICS["mae"], model, features, truth, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    pd.testing.assert_frame_equal(features, before)


def test_importance_where_the_metric_does_not_exist_is_none():
    """Rows of one class have no AUC: no column has a number, and page and picture are made all the same."""
    features, _ = numbers(600)
    kind = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())
    model = LogisticRegression().fit(features, np.where(features["a"] > 0, "yes", "no"))
    found = Importance.of_model(kind, METRICS["roc_auc"], model, features, np.zeros(600, dtype="int8"), seed=1)
    assert all(np.isnan(one.loss.value) for one in found.columns)
    opened(pictures.explained(found, None, "t"))
    assert "| nan |" in card.card(facts(importance=found))


def test_importance_stands_in_the_card():
    """Every column has its row, the most important first, and the card says on how many rows it was measured."""
    text = card.card(facts(importance=measured(6000)))
    section = text.split("## What it relies on")[1].split("## Limitations")[0]
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == ["a", "b", "c", "d"]
    assert "4,000 rows drawn from 6,000" in section
    assert "## What it relies on" not in card.card(facts())


@pytest.mark.parametrize("count", [1, 5, 60])
def test_importance_is_drawn_for_any_number_of_columns(count):
    """A picture stays small and readable for one column as for sixty, whatever their names."""
    found = measured(600)
    one = found.columns[0]
    many = tuple(one.model_copy(update={"column": f"$column_{n}$ {'x' * n}"}) for n in range(count))
    png = pictures.explained(found.model_copy(update={"columns": many}), None, "thyroid v1")
    assert opened(png).shape[1] == 1080
    assert len(png) < 60_000


def test_the_title_names_what_is_relied_on_most():
    """It names the first column and counts the others that are surely of use; noise is not called important."""
    found = measured().columns
    assert pictures._importance_finding(found[:1]) == "It relies most on a"
    assert pictures._importance_finding(found[:2]) == "It relies most on a; 1 more is surely of use"
    assert pictures._importance_finding(()) == "No column is surely of use by itself"
