"""Lean fits: the same models as scikit-learn's own road makes, without its copies of the rows."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from tasks.ml import lean, models, threads
from tasks.ml.contract import Column
from tasks.ml.models import HistGradientBoosting, IsolationForest, Logistic, RandomForest

NAMES = ["a", "b", "c", "d"]
COLUMNS = {name: Column(type="float", nullable=True) for name in NAMES}
FAMILIES = [Logistic(), HistGradientBoosting(max_iter=5), RandomForest(n_estimators=5), IsolationForest(n_estimators=5)]


@pytest.fixture(autouse=True)
def one_thread():
    """A busy machine does not hold these fits up."""
    with threads.limited(1):
        yield


def numbers(count: int, gaps: float = 0.1) -> tuple[pd.DataFrame, np.ndarray]:
    """Numbers of different sizes in one block, the first two columns with gaps; and what follows from them."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(count, len(NAMES))) * [1, 1e3, 1e-3, 5] + [0, 1e4, 0, -7]
    y = (values[:, 0] + values[:, 3] > -7).astype(int)
    values[:, :2][rng.random((count, 2)) < gaps] = np.nan
    return pd.DataFrame(values, columns=NAMES), y


def pair(family: models._Family, columns: dict[str, Column] = COLUMNS):
    """Two unfitted pipelines of a family."""
    return [models.pipeline(family, columns, seed=1, problem=family.fits[0]) for _ in range(2)]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.kind)
@pytest.mark.parametrize("gaps", [0.0, 0.1])
def test_the_answers_are_those_of_scikit_learns_own_fit(
    family: models._Family, gaps: float, monkeypatch: pytest.MonkeyPatch
):
    """Whatever the family, with gaps and without, weighed where it can be: the rows are prepared in blocks and nothing else is different."""
    monkeypatch.setattr(lean, "BLOCK", 300)
    (x, y), (own, lone) = numbers(1000, gaps), pair(family)
    truth = None if family.fits == ("anomaly",) else y
    weights = np.linspace(0.1, 1, len(x)) if family.weighs else None
    lean.fit(own, x, truth, weights)
    lone.fit(x, truth, **({} if weights is None else {"model__sample_weight": weights}))
    np.testing.assert_allclose(own[0].transform(x), lone[0].transform(x), rtol=1e-9, atol=1e-12)
    assert list(own[0].get_feature_names_out()) == list(lone[0].get_feature_names_out())
    asked = [model.score_samples(x) if truth is None else model.predict(x) for model in (own, lone)]
    np.testing.assert_allclose(*asked, rtol=1e-5, atol=1e-5)


def test_columns_that_are_not_read_do_not_matter():
    """A text, a time and a column without any value beside the numbers are left where they are."""
    x, y = numbers(200)
    wide = x.assign(empty=np.nan, text=pd.array(["x"] * 200, dtype="str"), at=pd.Timestamp("2026-01-01", tz="UTC"))
    own, lone = pair(Logistic(), {name: COLUMNS[name] for name in ("c", "a")})
    lean.fit(own, wide, y, None)
    np.testing.assert_allclose(own.predict_proba(wide), lone.fit(wide, y).predict_proba(wide), rtol=1e-6)
    assert list(own.feature_names_in_) == list(wide.columns)


def test_texts_beside_numbers_are_prepared_by_scikit_learn():
    """A pipeline with texts is bit for bit what its own `fit` makes."""
    x, y = numbers(200)
    x = x.assign(text=pd.array(list("abcd") * 50, dtype="str"))
    own, lone = pair(Logistic(), COLUMNS | {"text": Column(type="category")})
    lean.fit(own, x, y, None)
    assert (own.predict_proba(x) == lone.fit(x, y).predict_proba(x)).all()


@pytest.mark.parametrize(("family", "matrices"), [(Logistic(), 1.7), (HistGradientBoosting(max_iter=2), 0.7)])
def test_a_fit_holds_few_copies_of_its_matrix(family: models._Family, matrices: float):
    """Beside 40,000 rows of 16 numbers a fit needs one matrix more where they are scaled, and none where they come as they are."""
    values = np.random.default_rng(0).normal(size=(40_000, 16))
    columns = {f"n{place}": Column(type="float") for place in range(16)}
    x, y, (first, second) = pd.DataFrame(values, columns=list(columns)), values[:, 0] > 0, pair(family, columns)
    lean.fit(first, x.head(500), y[:500], None)  # what is imported late
    tracemalloc.start()
    try:
        lean.fit(second, x, y, None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < matrices * values.nbytes
