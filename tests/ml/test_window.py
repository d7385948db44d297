"""Windows: what is kept, what it weighs, and what a search is offered."""

import math

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from tasks.ml.window import Window, choices

NEWEST = pd.to_datetime("2026-03-29T01:30Z")
HOURS = st.lists(st.integers(0, 24 * 400), min_size=1, max_size=60)
DAYS = st.floats(0.01, 500)


def instants(hours: list[int]) -> pd.Series:
    """So many hours before the newest instant, which is one of them."""
    return pd.Series(NEWEST - pd.to_timedelta([0, *hours], unit="h"))


@settings(deadline=None)
@given(HOURS, DAYS)
def test_the_last_days_are_those_younger_than_that(hours, days):
    """A row is in the window when its age is below the length; the newest always is."""
    kept = Window(kind="last", days=days).rows(instants(hours))
    assert kept.tolist() == [age < days * 24 or age == 0 for age in [0, *hours]]


@settings(deadline=None)
@given(HOURS, DAYS)
def test_a_weight_halves_with_every_half_life(hours, days):
    """Weights are 2 to the minus age by half-life, computed row by row."""
    weights = Window(kind="decay", days=days).weights(instants(hours), NEWEST)
    assert weights is not None
    assert weights.tolist() == pytest.approx([math.pow(0.5, age / 24 / days) for age in [0, *hours]])


@pytest.mark.parametrize("window", [Window(), Window(kind="last", days=7)], ids=lambda window: window.name)
def test_without_decay_all_rows_count_alike(window):
    """Only decay has weights; None lets a model be fitted without any."""
    assert window.weights(instants([1, 2]), NEWEST) is None


@pytest.mark.parametrize("window", [Window(), Window(kind="decay", days=7)], ids=lambda window: window.name)
def test_all_and_decay_leave_no_row_out(window):
    """They keep rows of any age, and those whose age is not known."""
    times = pd.Series([NEWEST, NEWEST - pd.Timedelta(days=9000), pd.NaT])
    assert window.rows(times).all()


def test_a_row_without_an_instant_counts_for_nothing_where_age_decides():
    """It is outside of the last days, and weighs zero; a row after the newest instant weighs no more than one."""
    times = pd.Series([NEWEST, pd.NaT, NEWEST + pd.Timedelta(days=5)])
    assert Window(kind="last", days=30).rows(times).tolist() == [True, False, True]
    weights = Window(kind="decay", days=1).weights(times, NEWEST)
    assert weights is not None
    assert weights.tolist() == [1, 0, 1]


def test_a_day_has_24_hours_when_the_clocks_change():
    """Ages are counted between instants: in Berlin's night of 23 hours a day before noon is eleven o'clock."""
    times = pd.Series(pd.to_datetime(["2026-03-28 10:30", "2026-03-28 11:30", "2026-03-29 12:00"])).dt.tz_localize(
        "Europe/Berlin"
    )
    assert Window(kind="last", days=1).rows(times).tolist() == [False, True, True]


def test_no_rows_have_no_window():
    """An empty history is kept and weighed as nothing."""
    none = pd.Series(pd.to_datetime([], utc=True))
    assert Window(kind="last", days=3).rows(none).shape == (0,)
    weights = Window(kind="decay", days=3).weights(none, NEWEST)
    assert weights is not None
    assert weights.shape == (0,)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"kind": "all", "days": 3}, "takes no days"),
        ({"kind": "last"}, "needs days"),
        ({"kind": "decay"}, "needs days"),
        ({"kind": "last", "days": 0}, "greater than or equal"),
        ({"kind": "decay", "days": math.inf}, "less than or equal"),
        ({"kind": "decay", "half_life": 3}, "half_life"),
    ],
    ids=["all", "last", "decay", "zero", "infinite", "unknown"],
)
def test_a_window_that_says_nothing_clear_is_refused(given, wanted):
    """Days stand where they count, and nowhere else."""
    with pytest.raises(ValidationError, match=wanted):
        Window(**given)


@settings(deadline=None)
@given(st.floats(0, 4e6))
def test_a_search_is_offered_windows_that_differ(span):
    """'all' comes first; no two have one name; all are shorter than the history; each comes back from its own fields."""
    offered = choices(span)
    assert offered[0] == Window()
    assert len({window.name for window in offered}) == len(offered) <= 7
    for window in offered[1:]:
        assert window.days is not None
        assert window.days <= max(span / 2 + 0.5, 0)
    assert [Window(**window.model_dump()) for window in offered] == offered


@pytest.mark.parametrize(("span", "names"), [
    (0, ["all"]),
    (1, ["all", "last 0.5 days", "last 0.25 days", "last 0.125 days", "half-life 0.5 days", "half-life 0.25 days", "half-life 0.125 days"]),
    (3, ["all", "last 2 days", "last 0.75 days", "last 0.375 days", "half-life 2 days", "half-life 0.75 days", "half-life 0.375 days"]),
], ids=["none", "a day", "three days"])  # fmt: skip
def test_short_histories_have_short_windows(span, names):
    """Below a day the lengths are parts of a day; without a history there is only 'all'."""
    assert [window.name for window in choices(span)] == names


@given(st.lists(DAYS, min_size=2, max_size=2, unique=True))
def test_different_windows_have_different_names(days):
    """A study that keeps names can tell its windows apart."""
    windows = [Window(kind=kind, days=each) for kind in ("last", "decay") for each in days]
    assert len({window.name for window in windows}) == 4


def test_forgetting_follows_a_change_of_the_world():
    """When the mean of a series jumps, the last days and a short half-life estimate today's mean, all rows do not."""
    times = pd.Series(pd.date_range("2025-01-01", periods=400, freq="D", tz="UTC"))
    values = np.where(np.arange(400) < 300, 0.0, 1.0)
    recent = values[Window(kind="last", days=90).rows(times)].mean()
    weights = Window(kind="decay", days=20).weights(times, times.max())
    assert (values.mean(), recent) == (0.25, 1.0)
    assert np.average(values, weights=weights) > 0.95


@settings(deadline=None)
@given(st.floats(60, 3000), st.floats(1, 1.25))
def test_a_window_is_known_again_when_the_history_has_grown(span, growth):
    """The half of 360 days and the half of 367 are one choice, though they have other names; a quarter is another, and so are weights."""
    before, now = choices(span), choices(span * growth)
    for place, window in enumerate(before):
        assert window.nearest(now) == now[place]
        assert [window.is_like(other) for other in now] == [other == now[place] for other in now]


def test_a_kind_of_window_that_is_not_offered_any_more_becomes_all_rows():
    """There is nothing that it is near to."""
    offered = [Window(), Window(kind="last", days=10)]
    assert Window(kind="decay", days=10).nearest(offered) == Window()
