"""Sequential tests keep their level however often one looks, and see what is worse soon."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from tasks.ml.sequential import BETS, Wager, slower

ALPHA = 0.05


def brier(rng, size):
    """Differences of two models that are equally good."""
    return rng.random(size) ** 2 - rng.random(size) ** 2


def errors(rng, size):
    """Differences of two error streams of the same rate."""
    return (rng.random(size) < 0.05).astype(float) - (rng.random(size) < 0.05)


def rare(rng, size):
    """At the tolerance of 0.01, by a few great losses: the hardest true claim."""
    return np.where(rng.random(size) < 0.01, 1.0, 0.0)


def wandering(rng, size):
    """Never worse on average, given the past, but with a spread that answers to it: no independent rows."""
    signs = rng.choice([-1.0, 1.0], size)
    swing = np.where(np.r_[0.0, np.cumsum(signs)[:-1]] > 0, 1.0, 0.2)
    return signs * swing


def late(rng, size):
    """Latencies of one kind on both sides, as shares over the first hundred's percentile."""
    return slower(rng.lognormal(size=size), rng.lognormal(size=size))


NULLS = {brier: 0.0, errors: 0.0, rare: 0.01, wandering: 0.0, late: 0.0}


def weighed(differences, tolerance, alpha):
    """What a test has seen when all have come."""
    return Wager(tolerance, alpha).after(differences).evidence


def rate(null, tolerance, streams, size):
    """The share of the streams that ever reach the bar, looked at after every row."""
    rng = np.random.default_rng(11)
    return np.mean([weighed(null(rng, size), tolerance, ALPHA).against for _ in range(streams)])


@pytest.mark.parametrize(("null", "tolerance"), NULLS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_v_13_equals_are_seldom_rejected_although_every_row_is_looked_at(null, tolerance):
    """Of 300 streams of 1,000 rows no more reach the bar than a coin of rate alpha would say in one run of a thousand."""
    streams = 300
    assert rate(null, tolerance, streams, 1000) * streams <= binom.ppf(0.999, streams, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize(("null", "tolerance"), NULLS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_the_level_holds_in_thousands_of_long_streams(null, tolerance):
    """Of 3,000 streams of 3,000 rows at most the share alpha reaches the bar."""
    assert rate(null, tolerance, 3000, 3000) <= ALPHA


def test_a_t_test_looked_at_as_often_has_no_such_level():
    """The same streams under the usual t-test at each hundredth row: far more than alpha are rejected. So the null streams can be lost."""
    rng, lost = np.random.default_rng(11), 0
    for _ in range(300):
        found = brier(rng, 2000)
        looks = np.arange(100, 2001, 100)
        means, spreads = (np.array([what(found[:n]) for n in looks]) for what in (np.mean, np.std))
        lost += (means / spreads * np.sqrt(looks) > 1.645).any()
    assert lost / 300 > 2 * ALPHA


@pytest.mark.parametrize(("worse", "within"), [(0.05, 600), (0.1, 200), (0.3, 60)])
def test_a_worse_model_is_seen_soon(worse, within):
    """A loss that is planted in noise of 0.2 is found in at least 95 of 100 streams within so many rows."""
    rng = np.random.default_rng(3)
    found = [weighed(np.clip(rng.normal(worse, 0.2, within), -1, 1), 0.01, ALPHA / 3).against for _ in range(100)]
    assert sum(found) >= 95


def test_a_model_that_fails_always_is_seen_within_a_dozen_requests():
    """Each failure multiplies the capital of each bet; by hand, with the ten bets summed."""
    wanted = next(n for n in range(1, 50) if sum((1 + bet / 1.01 * 0.99) ** n for bet in BETS) / len(BETS) >= 3 / ALPHA)
    found = weighed(np.ones(50), 0.01, ALPHA / 3)
    assert found.crossed == wanted <= 12
    assert (found.rows, found.mean, found.bar) == (50, 1.0, pytest.approx(60))


def test_the_capital_is_the_mean_of_what_the_bets_make():
    """Two rows by hand; another order has another way to the same end."""
    rows, bets = np.array([0.5, -0.25]), BETS / 1.1
    by_hand = [np.mean(1 + bets * 0.4), np.mean((1 + bets * 0.4) * (1 - bets * 0.35))]
    assert [weighed(rows[:n], 0.1, ALPHA).e for n in (1, 2)] == pytest.approx(by_hand)
    assert weighed(rows[::-1], 0.1, ALPHA).e == pytest.approx(by_hand[1])


def test_no_difference_ruins():
    """The worst row for the bets, again and again, leaves the capital above nothing."""
    assert np.isfinite(Wager(0.3, ALPHA).after(np.full(1000, -1.0)).grown).all()


def test_what_was_reached_once_counts():
    """A bar that was reached stays reached, whatever comes after."""
    found = weighed(np.r_[np.ones(12), np.full(100, -1.0)], 0.0, ALPHA)
    assert found.against
    assert found.e < 1 < found.bar < found.peak


@pytest.mark.parametrize("odd", [1.01, -2.0, math.nan])
def test_a_difference_beyond_its_range_is_no_evidence(odd):
    """The bets may promise nothing about it."""
    with pytest.raises(ValueError, match="from -1 to 1"):
        weighed(np.array([0.0, odd]), 0.0, ALPHA)


def test_nothing_seen_is_no_evidence():
    """No row, and no request beyond those that tell what is usual."""
    assert weighed(np.array([]), 0.0, ALPHA) == weighed(slower(np.ones(100), np.ones(100) * 9), 0.0, ALPHA)
    assert not weighed(np.array([]), 0.0, ALPHA).against


def test_a_request_below_the_least_is_never_slow():
    """Twice of next to nothing is no harm."""
    old, new = np.full(300, 0.1), np.full(300, 0.2)
    assert slower(old, new).mean() == 1
    assert slower(old, new, least=20.0).mean() == 0
