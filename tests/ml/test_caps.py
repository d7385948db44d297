"""Caps: the budget of a month, and the breaker against circles of alarms and trainings."""

import datetime as dt

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tasks.ml.admission import admission
from tasks.ml.caps import Breaker, Budget, Past
from tasks.ml.policy import OnBatch, OnDrift, Policy

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MONTH = dt.timedelta(days=30)
FREE = Budget(runs=10_000, cpu_hours=10_000)


def hours(count: float) -> dt.timedelta:
    return dt.timedelta(hours=count)


def past(after: float, by: str = "drift", *, released: bool = False, cpu: float = 600) -> Past:
    """A training of ten minutes that began so many hours after the start."""
    began = START + hours(after)
    return Past(by=by, started=began, ended=began + dt.timedelta(minutes=10), released=released, cpu=cpu)


# -- budget ---------------------------------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 60 * 24), max_size=30), st.integers(1, 6), st.integers(1, 8), st.integers(0, 70 * 24))
def test_a_budget_holds_until_the_moment_that_it_says(begun, runs, cpu_hours, at):
    """Never more trainings or CPU-hours in any 30 days; refused a second before the moment that is named, and not at it."""
    trainings = [past(after, "batch", cpu=3600) for after in sorted(begun) if after <= at]
    budget, now = Budget(runs=runs, cpu_hours=cpu_hours), START + hours(at)
    recent = [each for each in trainings if each.started > now - MONTH]
    cap = budget.spent(trainings, now)
    assert (cap is not None) == (len(recent) >= min(runs, cpu_hours))  # each of them took an hour
    if cap is not None:
        assert budget.spent(trainings, cap.opens - dt.timedelta(seconds=1)) is not None
        assert budget.spent(trainings, cap.opens) is None


def test_a_budget_says_what_is_spent_and_when_it_opens():
    """Two trainings of a limit of two; the older one is forgotten after 30 days."""
    cap = Budget(runs=2).spent([past(0, "hand"), past(30, "schedule")], START + hours(40))
    assert cap is not None
    assert cap.reason == "the budget of 30 days is used up: 2 of 2 trainings; it opens again at 2026-01-31 00:00 UTC"
    spent = Budget(cpu_hours=3).spent([past(0, cpu=2 * 3600), past(30, cpu=2 * 3600)], START + hours(40))
    assert spent is not None
    assert "4.0 of 3 hours of CPU" in spent.reason


# -- breaker --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("trainings", "at", "opens"),
    [
        ([], 0, None),
        ([past(0), past(2)], 4, None),
        ([past(0), past(2), past(4)], 6, 4 + 24),
        ([past(0), past(2), past(4)], 29, None),  # it lets one through
        ([past(0), past(2), past(4), past(29)], 30, 29 + 48),  # which was in vain, too
        ([past(0), past(2, released=True), past(12)], 14, None),  # a release that brought ten hours of peace
        ([past(0, released=True), past(2, released=True), past(4, released=True)], 5, 4 + 24),  # none brought any
        ([past(0, released=True), past(2, released=True), past(4, released=True)], 11, None),  # the last one did
        (
            [past(0), past(2, "batch"), past(3), past(4, "schedule"), past(5)],
            6,
            5 + 24,
        ),  # what others start is no answer
        ([past(0), past(2), past(3, "hand"), past(4)], 6, None),  # a person has looked
        ([past(0, "batch"), past(1, "batch"), past(2, "batch")], 3, None),
    ],
)
def test_o_10_the_breaker_opens_when_trainings_change_nothing(trainings, at, opens):
    """After three in a row that an alarm started; for a day, then for two (O-10)."""
    cap = Breaker().opened(trainings, [], START + hours(at))
    assert (cap and cap.opens) == (None if opens is None else START + hours(opens) + dt.timedelta(minutes=10))


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("step", "most"), [(dt.timedelta(minutes=1), 3), (dt.timedelta(hours=1), 3 + 5)])
def test_o_10_a_monitor_that_always_alarms_starts_few_trainings(step, most, released):
    """1,000 ticks, an alarm at each, a release after each training or after none: at most so many runs (O-10).

    In hours that is six weeks: after the three the breaker opens for 24, 48, 96, 192, 384 and 720 hours.
    """
    trainings: list[Past] = []
    alarms: list[dt.datetime] = []
    policies = (OnBatch(), OnDrift(cooldown=0))
    for tick in range(1000):
        alarms.append(now := START + tick * step)
        said = admission("drift", trainings, alarms, now, policies=policies, budget=FREE, breaker=Breaker())
        if not said.refused:
            trainings.append(Past(by="drift", started=now, ended=now, released=released))
    assert 3 <= len(trainings) <= most


# -- both, and the cool-down ----------------------------------------------------------------------------------------------
POLICIES: tuple[Policy, ...] = (OnBatch(cooldown=60), OnDrift(cooldown=3600))


@pytest.mark.parametrize(
    ("by", "wait"), [("drift", 3480), ("batch", 0), ("schedule", 0), ("hook", 0), ("hand", 0), ("decay", 0)]
)
def test_a_start_waits_for_the_cooldown_of_its_own_policy(by, wait):
    """Two minutes after the last one; what has no policy of its own keeps to the shortest cool-down."""
    last = past(0, "batch").model_copy(update={"started": START - dt.timedelta(minutes=2)})
    said = admission(by, [last], [], START, policies=POLICIES, budget=FREE, breaker=Breaker())
    assert said.wait == pytest.approx(wait)
    assert bool(said.refused) == bool(wait)


@pytest.mark.parametrize("by", ["hand", "schedule", "batch", "rows", "drift", "decay", "silence", "hook"])
def test_every_kind_of_start_keeps_to_budget_and_cooldown(by):
    """Whoever starts it; the answer says how a person may pass. A person, who has looked, waits for no cool-down."""
    spent = admission(by, [past(0)], [], START + hours(1), policies=POLICIES, budget=Budget(runs=1), breaker=Breaker())
    cooling = admission(by, [past(0)], [], START, policies=POLICIES, budget=FREE, breaker=Breaker())
    assert spent.cap is not None
    assert (spent.cap.kind, spent.wait) == ("budget", 0)
    assert cooling.wait in ({0} if by == "hand" else {60, 3600})
    assert all(said.refused.endswith("`keepfit train --again` trains now") for said in (spent, cooling) if said.refused)


def test_o_07_of_three_at_once_one_starts_and_the_others_share_one_wait():
    """Schedule, drift and a hook together: after the first the others are told to wait (O-07)."""
    trainings: list[Past] = []
    said = []
    for by in ("schedule", "drift", "hook"):
        said.append(admission(by, trainings, [], START, policies=POLICIES, budget=FREE, breaker=Breaker()))
        if not said[-1].refused:
            trainings.append(Past(by=by, started=START, ended=START))
    assert [each.wait for each in said] == [0, 3600, 60]


def test_o_12_a_clock_that_was_put_back_lengthens_no_cooldown():
    """The last start lies in the future: the whole cool-down, and not until then (I-20)."""
    ahead = past(100)
    assert admission("batch", [ahead], [], START, policies=POLICIES, budget=FREE, breaker=Breaker()).wait == 60
