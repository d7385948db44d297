"""Simulations of the watch: days that are alike in the long run, drifts that are what they say, intervals that are exact."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tasks.ml.watching.calibration import DriftPlan
from tasks.ml.watching.simulated import Life, Stream, World, interval, lives, plantable, provoked, unprovoked

PLAN = DriftPlan()
QUICK = Stream(rows=60, history=84)


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


def test_one_unlucky_calibration_is_no_verdict(monkeypatch):
    """A version that alarms in each window: nobody knows how others do. Six of them are surely above the budget."""
    monkeypatch.setattr(Life, "looks", lambda life: [SimpleNamespace(alarms=("alarm",))] * life.windows)
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
    assert [life.windows for life in lives(World.made(0), 30, PLAN, QUICK, 0)] == [52, 52, 26]


def test_a_life_is_the_same_each_time():
    """What is found in its windows, too."""
    world = World.made(0)
    first, again = ([found.model_dump() for found in Life(world, QUICK, PLAN, 3, 2).looks()] for _ in range(2))
    assert first == again


def test_what_both_simulations_tell():
    """Few months, short histories: all numbers are there; a mean that rises by half a standard deviation is found."""
    world, heard = World.made(0), []
    null = unprovoked(world, 1, PLAN, QUICK, 0, heard.append)
    assert {"rate", "budget", "low", "high", "ok"} <= set(null)
    assert null["low"] <= null["rate"] <= null["high"]
    assert null["ok"]
    assert null["windows"] == 4
    found = provoked(World(world.rows[["a", "town"]], world.said, world.mixtures), 1, PLAN, QUICK, 0, heard.append)
    assert {"mean", "category"} <= set(found["drifts"])
    assert found["drifts"]["mean"]["found"] == 1.0
    assert len(heard) == 1 + len(found["drifts"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_versions_keep_their_budget_and_find_what_is_planted():
    """240 months as `keepfit simulate alarms` asks for them."""
    world = World.made(0)
    null = unprovoked(world, 240, PLAN, Stream(), 0, print)
    assert null["ok"], null
    found = provoked(world, 240, PLAN, Stream(), 0, print)["drifts"]
    assert min(drift["low"] for drift in found.values()) > 0.8, found
