"""Distances and tests between two sets of rows: as scipy has them, over bins."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from tasks.ml.watching.drift import Move, compared, distances
from tasks.ml.watching.reference import Sketch

COUNTS = st.lists(st.integers(0, 50), min_size=4, max_size=4)


def move(before: np.ndarray | list | pd.Series, now: np.ndarray | list | pd.Series) -> Move:
    """Between two columns of rows."""
    first = Sketch.of(pd.DataFrame({"a": before}))
    return compared(first.features["a"], first.like(pd.DataFrame({"a": now})).features["a"])


def drawn(shape: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        "shifted": (random.normal(size=20_000), random.normal(0.2, 1, 5000)),
        "wider": (random.normal(5, 2, 20_000), random.normal(5, 2.5, 5000)),
        "skewed": (random.exponential(size=20_000), random.exponential(1.1, 5000)),
        "counts": (random.poisson(3, 20_000).astype(float), random.poisson(3.3, 5000).astype(float)),
        "zeros": (np.maximum(random.normal(size=20_000), 0), np.maximum(random.normal(0.2, 1, 5000), 0)),
        "flags": ((random.random(20_000) < 0.3).astype(float), (random.random(5000) < 0.36).astype(float)),
        "hundredfold": (random.exponential(size=20_000), random.exponential(100, 5000)),
        "alike": (random.normal(size=20_000), random.normal(size=5000)),
    }[shape]


@pytest.mark.parametrize("shape", ["shifted", "wider", "skewed", "counts", "zeros", "flags", "hundredfold", "alike"])
def test_numbers_are_as_far_apart_as_scipy_says(shape):
    """Kolmogorov–Smirnov to a bin's hundredth and never above, Wasserstein in standard deviations to a hundredth of them."""
    before, now = drawn(shape)
    found, exact = move(before, now), stats.ks_2samp(before, now, method="asymp")
    assert exact.statistic - 0.01 <= found.distance <= exact.statistic + 1e-9
    assert found.size == pytest.approx(stats.wasserstein_distance(before, now) / before.std(), rel=0.02, abs=0.002)
    n, m = len(before), len(now)
    assert found.p == pytest.approx(stats.kstwobign.sf(found.distance * np.sqrt(n * m / (n + m))), rel=1e-6, abs=1e-300)


def test_categories_are_as_far_apart_as_scipy_says():
    """Jensen–Shannon, chi-squared, total variation; what was never seen is a share of its own."""
    random = np.random.default_rng(4)
    before, now = random.choice(list("abc"), 2000), random.choice(list("abcd"), 500, p=[0.4, 0.3, 0.2, 0.1])
    table = np.array([[(side == name).sum() for name in "abcd"] for side in (before, now)])
    found = move(pd.Series(before, dtype="str"), pd.Series(now, dtype="str"))
    assert found.distance == pytest.approx(jensenshannon(table[0], table[1], base=2))
    assert found.p == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)
    p, q = table / table.sum(axis=1, keepdims=True)
    assert found.size == pytest.approx(np.abs(p - q).sum() / 2)
    assert found.new == pytest.approx(q[3])
    p = np.maximum(p, 1e-4)
    assert found.psi == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=1e-3)


def test_missing_values_are_a_move_of_their_own():
    """They do not touch the distance of those that are there, and count in the index, both ways."""
    values = np.arange(1000.0)
    found = move(values, np.where(np.arange(1000) % 4 == 0, np.nan, values))
    assert (found.missing, found.gap) == ((0.0, 0.25), 0.25)
    assert found.distance < 0.01
    assert found.psi == pytest.approx(0.25 * np.log(0.25 / 1e-4) + 10 * (0.075 - 0.1) * np.log(0.075 / 0.1), abs=0.02)


@pytest.mark.parametrize(("before", "now"), [([1.0, 2.0], []), ([np.nan], [1.0]), ([1.0], [np.nan]), ([], [])])
def test_nothing_is_no_distance_away(before, now):
    """Where either side has no value there is nothing to compare, and no test has anything against it."""
    found = move(np.array(before), np.array(now))
    assert (found.distance, found.size, found.p) == (0.0, 0.0, 1.0)


@given(COUNTS, COUNTS)
def test_distances_are_between_nothing_and_one_and_alike_both_ways(p, q):
    """And 0 from itself, whatever the counts."""
    for numeric in (True, False):
        there, back = (float(distances(np.array(a), np.array(b), numeric=numeric)) for a, b in ((p, q), (q, p)))
        assert there == pytest.approx(back)
        assert -1e-12 <= there <= 1 + 1e-12
        assert float(distances(np.array(p), np.array(p), numeric=numeric)) == 0
