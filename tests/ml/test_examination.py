"""Examinations: what a recipe's marks are made of."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.ml.contract import Column
from tasks.ml.examination import Examination
from tasks.ml.kinds import Regression
from tasks.ml.metrics import METRICS, Metric

COLUMNS = {"x": Column(type="float")}


class Recipe:
    """Says `x` of every row, and this number of the last row of the second fold."""

    def __init__(self, last: float) -> None:
        self.last = last

    def columns(self, known: dict[str, Column]) -> dict[str, Column]:
        """All of them."""
        return known

    def fit(self, _kind: object, _columns: object, learned: Any, **_: object) -> Any:
        """A model that knows by how much it learned from which fold it is asked in."""
        return Model(self.last if len(learned.truth) > 100 else None)


class Model:
    """What a recipe makes."""

    def __init__(self, last: float | None) -> None:
        self.last = last

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        """`x`, and the last one as it was told."""
        said = features["x"].to_numpy().copy()
        if self.last is not None:
            said[-1] = self.last
        return said


def examination(metric: Metric = METRICS["r2"]) -> Examination:
    """Two folds of 50 rows after 100 and 150; in the second one all that comes true is above 100."""
    x = np.random.default_rng(0).normal(size=200)
    at = pd.date_range("2026-01-01", periods=200, freq="h", tz="UTC")
    rows = pd.DataFrame({"x": x, "y": np.r_[x[:150] + 1, 101 + x[150:]], "at": at})
    folds = [(rows[:100], rows[100:150]), (rows[:150], rows[150:])]
    return Examination.of(folds, Regression("y"), metric, COLUMNS, "at", seed=1)


@pytest.mark.parametrize("last", [np.nan, np.inf])
def test_a_recipe_that_gives_no_number_on_a_fold_has_no_marks(last):
    """It is not compared by the folds that were easier for it; the same recipe with a number there is."""
    made = examination()
    broken, whole = (made.mark(recipe, lambda _step, _loss: None) for recipe in (Recipe(last), Recipe(0.0)))  # ty: ignore[invalid-argument-type]
    assert broken is None
    assert whole is not None


def test_a_fold_on_which_the_metric_is_none_judges_nobody():
    """Whoever answers: the other fold decides."""
    r2 = METRICS["r2"].scores
    metric = replace(
        METRICS["r2"],
        scores=lambda y, p, weights: r2(y, p, weights) if y.max() < 100 else np.full(len(weights), np.nan),
    )
    made = examination(metric)
    marks = made.mark(Recipe(0.0), lambda _step, _loss: None)  # ty: ignore[invalid-argument-type]
    assert marks is not None
    _, features, truth = made.folds[0]
    off = ((truth - features["x"].to_numpy()) ** 2).sum()
    assert marks.loss == pytest.approx(off / ((truth - truth.mean()) ** 2).sum() - 1)
