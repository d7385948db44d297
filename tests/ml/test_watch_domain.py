"""The domain classifier: what columns do together, which of them, and where."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tasks.ml.watching import domain
from tasks.ml.watching.domain import Coded, Domain, _auc, sampled, told_apart
from tasks.ml.watching.drift import compared
from tasks.ml.watching.reference import Sketch


def rows(seed: int, n: int = 1500, tie: float = 0.8, night: float = 1.0) -> pd.DataFrame:
    """Numbers of which the first two are tied, an amount that may be higher at night, a town, a time."""
    random = np.random.default_rng(seed)
    found = pd.DataFrame(random.normal(size=(n, 6)), columns=list("abcdef"))
    found["b"] = tie * found["a"] + np.sqrt(1 - tie**2) * found["b"]
    found["night"] = random.random(n) < 0.3
    found["town"] = pd.Series(random.choice(["x", "y", "z"], n)).astype("str").mask(random.random(n) < 0.1)
    found["amount"] = random.lognormal(size=n) * np.where(found["night"], night, 1)
    found["at"] = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(n) + 1000 * seed, unit="min")
    return found


def explained(reference: pd.DataFrame, window: pd.DataFrame, seed: int = 0) -> Domain:
    """What gives the window away."""
    apart = told_apart(reference, window, seed=seed)
    assert apart is not None
    return apart.explained()


def test_rows_of_one_world_cannot_be_told_apart():
    """Within four standard errors of ½; times, which differ always, do not count."""
    for seed in range(3):
        apart = told_apart(rows(seed), rows(seed + 10), seed=seed)
        assert apart is not None
        found = apart.domain
        assert abs(found.auc - 0.5) < 4 * found.error


def test_a_tie_that_is_lost_is_seen_where_no_column_moved():
    """The two columns that lost it are named; each alone is where it was."""
    before, now = rows(1), rows(2)
    now["b"] = np.random.default_rng(3).permutation(before["b"])
    found = explained(before, now)
    assert found.auc > 0.6
    assert {name for name, _ in found.features[:2]} == {"a", "b"}
    sketch = Sketch.of(before[["b"]])
    assert compared(sketch.features["b"], sketch.like(now).features["b"]).distance == 0


def test_where_a_drift_is_concentrated_is_said():
    """Amounts doubled at night only."""
    found = explained(rows(1, n=3000), rows(2, n=3000, night=2.5))
    assert found.features[0][0] == "amount"
    assert found.segments == ("night = true",)


def test_a_drift_that_is_everywhere_is_in_no_segment():
    """Amounts doubled at any time."""
    now = rows(2, n=2000).assign(amount=lambda frame: 2.5 * frame["amount"])
    found = explained(rows(1, n=2000), now)
    assert found.segments == ()


def test_the_same_seed_says_the_same():
    """However often it is asked."""
    assert explained(rows(1), rows(2), seed=3) == explained(rows(1), rows(2), seed=3)


def test_too_few_rows_teach_nothing():
    """On either side."""
    assert told_apart(rows(1), rows(2)[:99]) is None
    assert told_apart(rows(1)[:99], rows(2)) is None


@pytest.mark.parametrize("values", [1, 2, 3])
def test_a_column_of_hardly_any_values_is_no_trouble(values):
    """Whichever fold they are in, the others have none; what else gives the window away is found."""
    before, now = rows(1, n=300).assign(rare=np.nan), rows(2, n=300).assign(rare=np.nan, c=lambda frame: frame["c"] + 3)
    before.loc[: values - 1, "rare"] = np.arange(values)
    for seed in range(5):
        assert explained(before, now, seed).features[0][0] == "c"


@pytest.mark.parametrize("columns", [[], ["at"], ["gone"], ["at", "gone"]])
def test_where_no_column_has_a_value_nothing_is_said(columns):
    """None at all, times alone, all missing."""
    before, now = (rows(seed, n=200).assign(gone=np.nan)[columns] for seed in (1, 2))
    assert told_apart(before, now) is None


@pytest.mark.parametrize("at_once", [1, 5, 19])
def test_segments_are_the_same_however_many_are_looked_at_together(at_once, monkeypatch):
    """All at once, or some at a time."""
    pair = rows(1, n=3000), rows(2, n=3000, night=2.5)
    whole = explained(*pair)
    assert whole.segments
    monkeypatch.setattr(domain, "AT_ONCE", at_once)
    assert explained(*pair) == whole


def test_the_auc_is_that_of_mann_and_whitney():
    """Ties count half."""
    y, said = np.array([0, 0, 1, 1, 1]), np.array([1.0, 2.0, 2.0, 3.0, 0.0])
    assert _auc(y, said) == pytest.approx(stats.mannwhitneyu(said[y == 1], said[y == 0]).statistic / 6)


def test_rows_become_numbers_and_samples_stay_in_order():
    """A category is its rank by frequency; infinity is a large number; gaps stay."""
    made = Coded.of(
        pd.DataFrame({"a": pd.Series(["x", "y", "y", None], dtype="str"), "b": [np.inf, 1, np.nan, -np.inf]})
    )
    assert made.names == ("a", "b")
    assert made.categories == (("y", "x"), None)
    assert np.nan_to_num(made.values, nan=9).T.tolist() == [[1, 0, 0, 9], [1e300, 1, 9, -1e300]]
    assert sampled(rows(1), 10).index.is_monotonic_increasing
    assert len(sampled(rows(1), 10)) == 10
