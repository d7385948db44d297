"""Drift: the column that moved most between older and newest rows, and how far."""

import numpy as np
import pandas as pd
import pytest

from tasks.ml.watching.drift import moved

TYPES = {"calm": "float", "level": "float", "flag": "bool", "since": "datetime", "town": "category"}
N = 2000
NEW = np.arange(N) >= 1600


def drift(**changes) -> tuple[str, float]:
    """Of rows in a shuffled order whose columns are alike over time, but for those that are given."""
    random = np.random.default_rng(0)
    at = pd.Series(pd.date_range("2026-01-01", periods=N, freq="h", tz="UTC"))
    made = {
        "at": at, "since": at, "calm": random.normal(size=N), "level": random.normal(size=N), "flag": random.random(N) < 0.95,
        "town": random.choice(["a", "b"], N),
    }  # fmt: skip
    return moved(pd.DataFrame(made | changes).sample(frac=1, random_state=1), TYPES, "at")


def index(before: list[float], after: list[float]) -> float:
    """The population stability index of two lists of shares, term by term."""
    return sum((q - p) * np.log(q / p) for p, q in zip(before, after, strict=True))


def test_rows_that_stay_as_they_were_hardly_move():
    """Nothing is far from zero; times move by nature and do not count."""
    name, size = drift()
    assert name in {"calm", "level", "flag", "town"}
    assert size < 0.1


def test_a_number_that_moved_is_named_with_its_index_over_deciles():
    """Counted by hand: a tenth of the older rows lies in each bin, and of the newer ones what a histogram finds; bins end at the next of the cells."""
    level = np.random.default_rng(2).normal(size=N) + 1.0 * NEW
    edges = np.r_[-np.inf, np.quantile(level[~NEW], np.linspace(0.1, 0.9, 9)), np.inf]
    after = np.histogram(level[NEW], edges)[0] / NEW.sum()
    assert drift(level=level) == ("level", pytest.approx(index([0.1] * 10, after.tolist()), abs=0.005))


def test_shares_of_values_move_by_their_index():
    """From halves to nine in ten, of texts and of flags alike."""
    town = np.where(np.arange(N) % 2 == 0, "a", "b")
    town[NEW] = np.where(np.arange(400) % 10 == 0, "b", "a")
    wanted = index([0.5, 0.5], [0.9, 0.1])
    assert drift(town=town) == ("town", pytest.approx(wanted, abs=1e-4))
    assert drift(flag=town == "a") == ("flag", pytest.approx(wanted, abs=1e-4))


def test_values_that_go_missing_are_a_drift():
    """From two to six in ten that are empty, in a column of numbers."""
    gone = np.where(NEW, np.arange(N) % 10 < 6, np.arange(N) % 10 < 2)
    name, size = drift(level=np.where(gone, np.nan, np.arange(N) * 7919 % 2003))
    assert name == "level"
    assert size == pytest.approx(index([0.2, *[0.08] * 10], [0.6, *[0.04] * 10]), abs=0.03)


def test_a_value_that_was_never_seen_is_a_drift():
    """A new town takes a quarter of the newest rows: a bin that was empty counts as one row in ten thousand."""
    town = np.where(np.arange(N) % 2 == 0, "a", "b")
    town[NEW & (np.arange(N) % 4 == 0)] = "c"
    assert drift(town=town) == ("town", pytest.approx(index([0.5, 0.5, 1e-4], [0.25, 0.5, 0.25]), abs=1e-3))
