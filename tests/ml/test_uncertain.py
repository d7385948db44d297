"""Uncertain numbers: the same bounds as by other roads, for every metric."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.ml.influence import INFLUENCES, influence
from tasks.ml.metrics import METRICS, Metric, paired_gain, resampled
from tasks.ml.uncertain import Matched, Resampled, Uncertain, apart, compared, measured, newcombe, wilson

CASES = [(kind, name) for name, metric in METRICS.items() for kind in metric.kinds]


def answered(kind: str, n: int, seed: int, *, noise: float = 0.6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What came true, good answers, and the same with noise, of a problem of that kind; of four classes one does not occur."""
    rng = np.random.default_rng(seed)
    if kind == "multiclass":
        y = rng.integers(0, 3, n)
        score = rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[y]
        good, worse = (
            np.exp(each) / np.exp(each).sum(axis=1, keepdims=True)
            for each in (score, score + noise * rng.normal(size=(n, 4)))
        )
        return y, good, worse
    if kind == "regression":
        y = 5 + rng.normal(size=n)
        good = y + rng.normal(scale=0.5, size=n)
        return y, good, good + noise * rng.normal(scale=0.5, size=n)
    if kind == "recommendation":
        y = np.argsort(rng.random((n, 12)))[:, :3].astype(float)
        named = np.argsort(rng.random((n, 12)) - 0.5 * np.eye(12)[y.astype(int)].sum(axis=1))[:, :5].astype(float)
        mixed = np.where((rng.random(n) < noise / 2)[:, None], rng.permuted(named, axis=1) + 3, named)
        return y, named, mixed
    y = (rng.random(n) < 0.3).astype(int)
    score = rng.normal(size=n) + 1.5 * y - 1.5
    good, worse = (1 / (1 + np.exp(-each)) for each in (score, score + noise * rng.normal(size=n)))
    return y, good, worse


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_bounds_without_drawing_are_the_bootstraps(kind, name):
    """On the same 1,200 rows both bounds of the paired gain are where the plain bootstrap has them, within its noise."""
    metric = METRICS[name]
    y, good, worse = answered(kind, 1200, seed=3)
    drawn = paired_gain(metric, y, good, worse, resamples=1500, seed=1)
    found = compared(metric, y, good, worse).bounds()
    width = drawn.high - drawn.low
    assert found.value == pytest.approx(drawn.value)
    assert abs(found.low - drawn.low) < 0.12 * width
    assert abs(found.high - drawn.high) < 0.12 * width


def test_with_few_positives_negatives_are_drawn_in_groups_and_the_bounds_are_the_bootstraps():
    """Thirty among 3,000: bounds of the gain and of the level are where the plain bootstrap has them."""
    rng, metric = np.random.default_rng(0), METRICS["average_precision"]
    y = (np.arange(3000) < 30).astype(int)
    score = rng.normal(size=3000).round(1) + 3 * y  # with ties
    good, worse = score, (score + 0.5 * rng.normal(size=3000)).round(1)
    found, plain = (
        compared(metric, y, good, worse, resamples=1500, seed=1),
        paired_gain(metric, y, good, worse, resamples=1500, seed=2),
    )
    width = plain.high - plain.low
    assert isinstance(found, Resampled)
    assert found.value == pytest.approx(plain.value)
    assert abs(found.bounds().low - plain.low) < 0.12 * width
    assert abs(found.bounds().high - plain.high) < 0.12 * width
    level, drawn = measured(metric, y, good, resamples=1500, seed=1), resampled(metric, y, good, 1500, 2)
    assert level.error == pytest.approx(drawn.std(), rel=0.1)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_influence_of_a_row_is_the_derivative_by_its_weight(kind, name):
    """A little more weight on one row moves the metric by as much as its influence says; together they move nothing."""
    metric = METRICS[name]
    y, _, p = answered(kind, 40, seed=1)
    found, step = influence(metric, y, p), 1e-6
    weights = np.ones((40, 40)) + step * np.eye(40)
    moved = (metric.scores(y, p, weights) - metric.of(y, p)) / step * 40
    assert found == pytest.approx(moved, abs=1e-3)
    assert found.sum() == pytest.approx(0, abs=1e-8)


def test_ties_have_their_influence_too():
    """Of few distinct answers the derivative is right as well."""
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 30), rng.integers(0, 4, 30) / 4
    for name in ("roc_auc", "average_precision"):
        weights = np.ones((30, 30)) + 1e-6 * np.eye(30)
        moved = (METRICS[name].scores(y, p, weights) - METRICS[name].of(y, p)) / 1e-6 * 30
        assert influence(METRICS[name], y, p) == pytest.approx(moved, abs=1e-3)


def test_every_metric_has_an_influence():
    """No metric is left to one that is not its own."""
    assert {name for name, metric in METRICS.items() if metric.each is None} == set(INFLUENCES)


@pytest.mark.parametrize("n", [60, 2500])
def test_the_error_of_a_difference_in_roc_auc_is_delongs(n):
    """From his covariance of placement values, pair by pair, at every number of rows and whatever resamples are asked for."""
    y, good, worse = answered("binary", n, seed=2)

    def placements(p):
        pairs = (p[y == 1][:, None] > p[y == 0][None]) + 0.5 * (p[y == 1][:, None] == p[y == 0][None])
        return pairs.mean(axis=1), pairs.mean(axis=0)

    above, under = (np.stack(both) for both in zip(placements(good), placements(worse), strict=True))
    covariance = np.cov(above) / (y == 1).sum() + np.cov(under) / (y == 0).sum()
    wanted = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = compared(METRICS["roc_auc"], y, good, worse, resamples=200, seed=1)
    assert type(found) is Uncertain
    assert found.error == pytest.approx(wanted, rel=2 / min((y == 1).sum(), (y == 0).sum()))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200), st.sampled_from([0.05, 0.01]))
def test_a_difference_in_accuracy_is_sure_when_mcnemars_test_is(won, lost, same, alpha):
    """Its lower bound is above 0 exactly where the statistic of the discordant rows is above the normal quantile."""
    rows = won + lost + same
    if not rows:
        return
    bounds = Matched((won - lost) / rows, 0.0, won=won, lost=lost, rows=rows).bounds(alpha)
    z = {0.05: 1.6448536, 0.01: 2.3263479}[alpha]
    statistic = (won - lost) / np.sqrt(won + lost) if won + lost else 0.0
    if abs(abs(statistic) - z) > 1e-6:
        assert (bounds.low > 1e-9) == (statistic > z)
        assert (bounds.high < -1e-9) == (statistic < -z)
    assert bounds.low <= bounds.value <= bounds.high


def test_the_bounds_of_accuracy_hold_what_they_promise():
    """Over many small samples each bound is wrong about one time in twenty, not more."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(800):
        won, lost, _ = rng.multinomial(80, [0.10, 0.05, 0.85])
        wrong += Matched((won - lost) / 80, 0.0, won=int(won), lost=int(lost), rows=80).bounds().low > 0.05
    assert binomtest(wrong, 800, 0.05).pvalue > 0.001


def test_wilsons_bounds_are_scipys():
    """One-sided at 1 % is two-sided at 98 %."""
    expected = binomtest(3, 40).proportion_ci(0.98, method="wilson")
    assert wilson(3 / 40, 40, 0.01) == pytest.approx((expected.low, expected.high))


def test_a_difference_of_independent_shares_turns_round_with_them():
    """The other way about the bounds change places and signs."""
    one, two = newcombe(0.3, 50, 0.5, 70), newcombe(0.5, 70, 0.3, 50)
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))


def test_what_is_visible_is_seen_four_times_in_five():
    """A gain of that size has its lower bound above 0 in about 80 % of samples."""
    rng, seen = np.random.default_rng(1), 0
    mae = METRICS["mae"]
    for _ in range(600):
        after, before = np.abs(rng.normal(size=(2, 1200)))
        gain = compared(mae, np.zeros(1200), after, before)
        shifted = Uncertain(gain.value + gain.visible(0.02), gain.error)
        seen += shifted.bounds(0.02).low > 0
    assert binomtest(seen, 600, 0.8).pvalue > 0.001


def test_percentiles_are_taken_where_the_resamples_reach_and_normal_bounds_beyond():
    """At one in twenty the bounds are the samples' own; at one in a million no sample lies there."""
    y, good, worse = answered("binary", 300, seed=5)
    found = compared(METRICS["brier"], y, good, worse, resamples=400, seed=1)
    plain = paired_gain(METRICS["brier"], y, good, worse, resamples=400, seed=1)
    assert found.bounds(0.05) == plain
    assert found.bounds(1e-6).low == pytest.approx(found.value - 4.7534 * found.error, rel=1e-3)


def test_parts_that_are_equally_good_are_apart_by_chance_only():
    """The difference of two halves of the same rows is sure one time in ten on either side."""
    wrong = 0
    for seed in range(300):
        y, good, _ = answered("binary", 400, seed=seed)
        bounds = apart(METRICS["roc_auc"], y, good, np.arange(200), np.arange(200, 400)).bounds()
        wrong += bounds.low > 0 or bounds.high < 0
    assert binomtest(wrong, 300, 0.1).pvalue > 0.001


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_a_metric_that_does_not_exist_has_no_bounds(name):
    """With one class in the rows nothing is known, and nothing raises."""
    for y in (np.zeros(1500, dtype=int), np.zeros(200, dtype=int)):
        p = np.random.default_rng(0).random(len(y))
        found = measured(METRICS[name], y, p, resamples=50, seed=1)
        assert np.isnan(found.bounds().low)


def test_a_metric_is_the_mean_of_its_rows_or_says_how_it_is_not():
    """`each` and `scores` of a metric agree."""
    for kind, name in CASES:
        metric: Metric = METRICS[name]
        y, good, _ = answered(kind, 50, seed=1)
        if metric.each is not None:
            assert metric.each(y, good).mean() == pytest.approx(metric.of(y, good))
