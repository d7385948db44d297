"""Simulations of the watch: days that are alike in the long run, drifts that are what they say, intervals that are exact."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tasks.ml.policy import OnSchedule
from tasks.ml.watching.alarm import Alarm
from tasks.ml.watching.calibration import DriftPlan
from tasks.ml.watching.incident import IncidentPlan
from tasks.ml.watching.plan import WatchPlan
from tasks.ml.watching.simulated import (
    START,
    Life,
    Look,
    Stream,
    World,
    interval,
    lives,
    openings,
    plantable,
    provoked,
    unprovoked,
)

PLAN = WatchPlan()
QUICK = Stream(rows=60, history=84)
SMALL = DriftPlan(sample=200)


def test_levels_carry_over_and_have_a_season_of_a_week():
    """The autocorrelation of a day with the next one is what it says; with a season, days a week apart are alike."""
    random = np.random.default_rng(0)
    found = Stream(carried=0.6, restless=0.3, weekly=0.0).levels(20_000, random)
    assert found.std(axis=0) == pytest.approx(0.3, rel=0.1)
    assert [np.corrcoef(part[1:], part[:-1])[0, 1] for part in found.T] == pytest.approx([0.6] * 3, abs=0.05)
    weekly = Stream(carried=0.0, restless=0.0, weekly=0.2).levels(70, random)
    assert np.allclose(weekly[:-7], weekly[7:])


def test_a_day_favours_what_its_level_says():
    """Rows that have much of a mixture come more often on a day that favours it; without a level each comes alike."""
    world, random = World.made(0), np.random.default_rng(1)
    calm, high = (world.day(np.array([level, 0, 0]), 4000, random) for level in (0.0, 0.5))
    assert abs(world.mixtures[calm, 0].mean()) < 4 / np.sqrt(4000)
    assert world.mixtures[high, 0].mean() == pytest.approx(0.5, abs=0.15)  # of a normal mixture it is the level itself


@pytest.mark.parametrize("count", [0, 3, 40])
def test_the_interval_of_one_part_is_garwoods(count):
    """By the chances of a Poisson variable at its ends."""
    low, high = interval([count], [2.0])
    assert stats.poisson.cdf(count, 2 * high) == pytest.approx(0.025)
    assert low == 0 if count == 0 else stats.poisson.sf(count - 1, 2 * low) == pytest.approx(0.025)


def test_the_interval_is_wider_where_versions_differ_by_more_than_chance():
    """Four versions with 10 alarms each say more than one with 40 of them."""
    even, uneven = (interval(counts, [12.0] * 4) for counts in ([10, 10, 10, 10], [0, 0, 0, 40]))
    assert uneven[1] - uneven[0] > 2 * (even[1] - even[0])


@pytest.mark.parametrize("versions", [2, 4, 20])
def test_few_versions_say_little_of_how_they_differ(versions):
    """Of many alarms the interval is Student's, by the root of a mean count: of two versions six times as wide as if chance were known."""
    low, high = interval([1000] * versions, [1.0] * versions)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, versions - 1) * np.sqrt(1000 / versions), rel=0.05)


@pytest.mark.parametrize("versions", [3, 8])
def test_the_interval_holds_the_rate_as_often_as_it_says(versions):
    """Versions whose calibrations differ, gamma distributed around a rate: nine of ten intervals and more hold it."""
    random, rate, hits = np.random.default_rng(0), 0.5, 0
    for _ in range(1000):
        counts = random.poisson(12 * random.gamma(2.0, rate / 2.0, versions))
        low, high = interval(counts.tolist(), [12.0] * versions)
        hits += low <= rate <= high
    assert hits / 1000 > 0.9


def look(day: int, *kinds: str, what: str = "ignore") -> Look:
    """At the end of a day, with an alarm of each kind."""
    alarms = [Alarm.model_validate({"kind": kind, "class": what, "level": 1.0, "threshold": 0.5, "says": "s"}) for kind in kinds]  # fmt: skip
    return Look(day, START + dt.timedelta(days=day), tuple(alarms))


def test_what_is_counted_are_incidents():
    """Two alarms of one look are one, those of days in a row too; a calm day ends it, and the next alarm is another; with more patience it is not."""
    looks = [look(1), look(2, "inputs", "predictions"), look(3, "inputs"), look(4), look(5, "inputs"), look(6)]
    assert openings(looks, IncidentPlan()) == 2
    assert openings(looks, IncidentPlan(quiet_hours=48)) == 1
    assert openings([look(1, "inputs"), look(2, "inputs", what="mend")], IncidentPlan()) == 2


def test_one_unlucky_calibration_is_no_verdict(monkeypatch):
    """A version that alarms in each window: nobody knows how others do. Six of them are surely above the budget."""
    monkeypatch.setattr(Life, "looks", lambda life: [look(day, "inputs") for day in range(1, life.length, 7)])
    world = World.made(0)
    one, six = (unprovoked(world, months, PLAN, QUICK, 0, lambda _said: None) for months in (3, 72))
    assert one["low"] > one["budget"]
    assert (one["ok"], "1 calibration only" in one["says"]) == (True, True)
    assert (six["ok"], six["says"]) == (False, "6 calibrations were tried")


def test_planted_drifts_are_what_they_say():
    """Each changes one column, and the tie is broken without a change of either."""
    world = World.made(0)
    rows, said = world.rows[:2000], world.said[:2000]
    planted = {drift.name: drift.into(rows, said, 4, 1) for drift in plantable(world.rows)}
    assert set(planted) == {"mean", "scale", "missing", "slow", "category", "correlation", "predictions"}
    for name, (changed, _) in planted.items():
        others = [column for column in rows.columns if not changed[column].equals(rows[column])]
        assert len(others) == (0 if name == "predictions" else 1)
    first = "a"
    assert (planted["mean"][0][first] - rows[first]).mean() == pytest.approx(0.5, abs=0.02)
    assert (planted["slow"][0][first] - rows[first]).mean() == pytest.approx(
        0.5, abs=0.02
    )  # the fifth window of a tenth each
    assert planted["scale"][0][first].std() / rows[first].std() == pytest.approx(1.6)
    assert (planted["category"][0]["town"] == "never seen before").mean() == pytest.approx(0.05, abs=0.02)
    untied = planted["correlation"][0]
    assert sorted(untied["b"]) == sorted(rows["b"])
    assert abs(untied["a"].corr(untied["b"])) < 0.1
    assert rows["a"].corr(rows["b"]) > 0.7
    odds = [np.log(each / (1 - each)) for each in (planted["predictions"][1], said)]
    assert np.allclose(odds[0] - odds[1], 0.5)


def test_rows_without_numbers_have_fewer_drifts():
    """What a project's rows do not have cannot move."""
    words = pd.DataFrame({"town": pd.Series(list("abab"), dtype="str"), "flag": [True, False] * 2})
    assert [drift.name for drift in plantable(words)] == ["category", "predictions"]


def test_months_are_parted_into_versions_of_a_year():
    """The last one has what is left."""
    assert [life.length for life in lives(World.made(0), 30, PLAN, QUICK, 0)] == [365, 365, 183]


@pytest.mark.parametrize(
    ("plan", "days"),
    [
        (WatchPlan(drift=SMALL), [1, 2, 3, 4, 5, 6, 7, 8]),
        (WatchPlan(drift=SMALL, schedule=None), [1, 2, 3, 4, 5, 6, 7, 8]),
        (WatchPlan(drift=SMALL, on_batch=False, schedule=OnSchedule(cron="0 6 * * 1")), [7]),
    ],
    ids=["as it comes", "batches alone", "Mondays alone"],
)
def test_it_is_looked_as_often_as_the_project_does(plan, days):
    """Each day is a batch; where those start no look, the clock does."""
    assert [look.day for look in Life(World.made(0), QUICK, plan, 3, 8).looks()] == days


def test_a_life_is_the_same_each_time():
    """What is found in it, too."""
    world, planted = World.made(0), plantable(World.made(0).rows)[0]
    first, again = ([*Life(world, QUICK, WatchPlan(drift=SMALL), 3, 5).looks(planted)] for _ in range(2))
    assert first == again
    assert first[-1].alarms


def test_what_both_simulations_tell():
    """Few months, short histories: all numbers are there; a mean that rises by half a standard deviation is found."""
    world, plan, heard = World.made(0), WatchPlan(drift=SMALL), []
    null = unprovoked(world, 1, plan, QUICK, 0, heard.append)
    assert {"rate", "budget", "low", "high", "ok"} <= set(null)
    assert null["low"] <= null["rate"] <= null["high"]
    assert null["ok"]
    assert null["looks"] == 30
    found = provoked(World(world.rows[["a", "town"]], world.said, world.mixtures), 1, plan, QUICK, 0, heard.append)
    assert {"mean", "category"} <= set(found["drifts"])
    assert found["drifts"]["mean"]["found"] == 1.0
    assert len(heard) == 1 + len(found["drifts"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_versions_that_are_looked_at_daily_keep_their_budget_and_find_what_is_planted():
    """120 months with nothing amiss, and each drift is found in twenty of twenty versions, half of them within three windows."""
    world = World.made(0)
    null = unprovoked(world, 120, PLAN, Stream(), 0, print)
    assert null["looks"] == 3650
    assert null["ok"], null
    found = provoked(world, 240, PLAN, Stream(), 0, print)["drifts"]
    assert min(drift["low"] for drift in found.values()) > 0.8, found
    assert max(drift["delay"] for drift in found.values()) <= 3 * PLAN.drift.days, found
