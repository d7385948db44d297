"""Metrics: the same numbers as scikit-learn's, honest intervals, and the cheapest threshold."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from tasks.ml.metrics import (
    METRICS,
    Cost,
    calibration_error,
    calibration_table,
    confusion,
    metrics_of,
    paired_gain,
    resampled,
)
from tasks.ml.uncertain import estimate

REFERENCES = {
    "roc_auc": roc_auc_score,
    "average_precision": average_precision_score,
    "log_loss": lambda y, p, sample_weight: log_loss(
        y, np.clip(p, 1e-7, 1 - 1e-7), sample_weight=sample_weight, labels=[0, 1]
    ),
    "brier": brier_score_loss,
}
OF_MORE = {
    "roc_auc": lambda y, p, w: roc_auc_score(y, p, sample_weight=w, multi_class="ovr", labels=[0, 1, 2]),
    "log_loss": lambda y, p, w: log_loss(y, p, sample_weight=w, labels=[0, 1, 2]),
    "brier": lambda y, p, w: brier_score_loss(y, p, sample_weight=w, labels=[0, 1, 2], scale_by_half=False),
    "accuracy": lambda y, p, w: accuracy_score(y, p.argmax(axis=1), sample_weight=w),
    "macro_recall": lambda y, p, w: balanced_accuracy_score(y, p.argmax(axis=1), sample_weight=w),
}
OF_NUMBERS = {
    "mae": lambda y, p, w: mean_absolute_error(y, p, sample_weight=w),
    "rmse": lambda y, p, w: root_mean_squared_error(y, p, sample_weight=w),
    "r2": lambda y, p, w: r2_score(y, p, sample_weight=w),
}
# Few distinct probabilities, so that ties are the rule, and the ends of the range among them.
ANSWERS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.integers(1, 5)),
    min_size=2,
    max_size=40,
)


def both_classes(rng: np.random.Generator, n: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and calibrated-looking probabilities."""
    score = rng.normal(size=n)
    y = (score * skill + rng.normal(size=n) > 0.5).astype(int)
    return y, 1 / (1 + np.exp(-score))


def test_every_metric_has_a_reference():
    """No metric goes without a second opinion."""
    of_lists = set(metrics_of("recommendation"))  # in tests/ml/test_recommenders.py
    assert set(METRICS) == set(REFERENCES) | set(OF_MORE) | set(OF_NUMBERS) | of_lists


@pytest.mark.parametrize("name", OF_MORE)
@pytest.mark.parametrize("seed", range(5))
def test_a_metric_of_three_classes_is_scikit_learns(name, seed):
    """With probabilities of three classes, weighted or not."""
    rng = np.random.default_rng(seed)
    y, p, weights = rng.integers(0, 3, 60), rng.dirichlet([1, 1, 1], 60), rng.integers(1, 4, 60).astype(float)
    reference = OF_MORE[name]
    assert METRICS[name].of(y, p) == pytest.approx(reference(y, p, None))
    assert METRICS[name].scores(y, p, weights[None])[0] == pytest.approx(reference(y, p, weights))


@pytest.mark.parametrize("name", OF_NUMBERS)
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_a_metric_of_numbers_is_scikit_learns(name, far):
    """Near zero and far from it, weighted or not."""
    rng = np.random.default_rng(0)
    y, weights = far + rng.normal(size=80), rng.integers(1, 4, 80).astype(float)
    p, reference = y + rng.normal(scale=0.4, size=80), OF_NUMBERS[name]
    assert METRICS[name].of(y, p) == pytest.approx(reference(y, p, None))
    assert METRICS[name].scores(y, p, weights[None])[0] == pytest.approx(reference(y, p, weights))


@pytest.mark.parametrize("name", REFERENCES)
@settings(deadline=None)
@given(answers=ANSWERS)
def test_a_metric_is_scikit_learns_weighted_or_not(name, answers):
    """Ties, certain answers and weights included, the number is scikit-learn's."""
    y, p, weights = (np.array(column) for column in zip(*answers, strict=True))
    assume(0 < y.sum() < len(y))
    metric, reference = METRICS[name], REFERENCES[name]
    assert metric.of(y, p) == pytest.approx(reference(y, p, sample_weight=None))
    both = metric.scores(y, p, np.array([weights, np.ones(len(y))], dtype=float))
    assert both == pytest.approx([reference(y, p, sample_weight=weights), metric.of(y, p)])


@pytest.mark.parametrize("name", REFERENCES)
@settings(deadline=None)
@given(answers=ANSWERS, left_out=st.sets(st.integers(0, 30)))
def test_rows_that_were_not_drawn_do_not_count(name, answers, left_out):
    """A resample leaves rows out: whichever they are, the highest scored among them, the number is scikit-learn's of the others."""
    y, p, _ = (np.array(column) for column in zip(*answers, strict=True))
    weights = np.array([float(at not in left_out) for at in range(len(y))])
    drawn = weights > 0
    assume(0 < y[drawn].sum() < drawn.sum())
    assert METRICS[name].scores(y, p, weights[None])[0] == pytest.approx(
        REFERENCES[name](y[drawn], p[drawn], sample_weight=None)
    )


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_a_metric_without_positives_does_not_exist(name):
    """Where no positive is, there is nothing to rank: NaN, not a number that looks good."""
    assert np.isnan(METRICS[name].of(np.zeros(5, dtype=int), np.linspace(0, 1, 5)))


def test_a_class_that_nobody_is_of_does_not_count():
    """A fold may lack a class that the project declares: scikit-learn's mean over the classes that are there; of one class alone there is none."""
    rng = np.random.default_rng(0)
    y, p = rng.choice([0, 2], 60), rng.dirichlet(np.ones(3), 60)
    there = [roc_auc_score(y == place, p[:, place]) for place in (0, 2)]
    assert METRICS["roc_auc"].of(y, p) == pytest.approx(np.mean(there))
    assert np.isnan(METRICS["roc_auc"].of(np.zeros(5, dtype=int), p[:5]))


@pytest.mark.parametrize("metric", metrics_of("binary").values(), ids=REFERENCES)
def test_a_gain_is_positive_when_better(metric):
    """The direction of a metric is its own affair: better is more."""
    y = np.array([0, 0, 1, 1])
    good, bad = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.6, 0.8, 0.2, 0.4])
    assert metric.gain(metric.of(y, good), metric.of(y, bad)) > 0
    assert metric.gain(metric.of(y, bad), metric.of(y, good)) < 0


def test_a_resample_draws_as_many_rows_as_there_are():
    """The mean over resamples of a mean is the mean, and its spread is that of the mean (the formula by hand)."""
    rng = np.random.default_rng(0)
    y, p = both_classes(rng, 400)
    samples = resampled(METRICS["brier"], y, p, 4000, seed=1)
    errors = (p - y) ** 2
    spread = errors.std() / np.sqrt(len(y))
    assert samples.mean() == pytest.approx(errors.mean(), abs=4 * spread / np.sqrt(4000))
    assert samples.std() == pytest.approx(spread, rel=0.05)


def test_resamples_do_not_depend_on_the_chunk(monkeypatch):
    """The memory that is given changes no number."""
    y, p = both_classes(np.random.default_rng(0), 100)
    whole = resampled(METRICS["roc_auc"], y, p, 50, seed=3)
    monkeypatch.setattr("tasks.ml.metrics.CHUNK", 700)
    assert resampled(METRICS["roc_auc"], y, p, 50, seed=3).tolist() == whole.tolist()


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Over many samples from a known population the 90 % interval holds the true ROC AUC about 90 % of the time."""
    rng = np.random.default_rng(5)
    truth = METRICS["roc_auc"].of(*both_classes(rng, 400_000))
    drawn = [estimate(METRICS["roc_auc"], *both_classes(rng, 300), resamples=200, seed=seed) for seed in range(200)]
    covered = np.mean([each.low <= truth <= each.high for each in drawn])
    assert 0.83 <= covered <= 0.96  # 0.9 ± 3 standard errors of 200 draws, rounded outwards


def test_a_model_gains_nothing_over_itself():
    """Compared on the same resamples, equal answers differ by exactly nothing."""
    y, p = both_classes(np.random.default_rng(0), 200)
    for metric in metrics_of("binary").values():
        gain = paired_gain(metric, y, p, p, resamples=100, seed=1)
        assert (gain.value, gain.low, gain.high) == (0, 0, 0)


def test_pairing_narrows_the_interval():
    """Two models that err on the same rows are compared more sharply than two single intervals would."""
    y, p = both_classes(np.random.default_rng(0), 500)
    other = np.clip(p + np.random.default_rng(1).normal(scale=0.02, size=500), 0, 1)
    gain = paired_gain(METRICS["brier"], y, p, other, resamples=300, seed=1)
    alone = estimate(METRICS["brier"], y, p, resamples=300, seed=1)
    assert gain.high - gain.low < (alone.high - alone.low) / 2


def test_the_same_seed_gives_the_same_interval():
    """Randomness enters as a seed."""
    y, p = both_classes(np.random.default_rng(0), 100)
    one, same, other = (estimate(METRICS["brier"], y, p, resamples=400, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_an_estimate_of_one_class_says_nothing():
    """Without positives, value and bounds are NaN."""
    known = estimate(METRICS["roc_auc"], np.zeros(20, dtype=int), np.linspace(0, 1, 20), resamples=20, seed=0)
    assert np.isnan([known.value, known.low, known.high]).all()


def brute_force(cost: Cost, y: np.ndarray, p: np.ndarray) -> float:
    """The least cost over every threshold from 0 to 1 that makes a difference."""
    return min(paid(cost, y, p, threshold) for threshold in {0.0, 1.0, *p, *np.nextafter(p, 2).clip(0, 1)})


def paid(cost: Cost, y: np.ndarray, p: np.ndarray, threshold: float) -> float:
    """What decisions at a threshold cost."""
    table = confusion(y, p, threshold)
    return table["false positive"] * cost.false_positive + table["false negative"] * cost.false_negative


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, np.nextafter(0.5, 1), 1.0]))
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([(1, 1), (1, 5), (3, 0.5), (0, 1)]),
)
def test_the_threshold_is_the_cheapest(answers, prices):
    """No other threshold costs less, and its decisions cost what was reckoned."""
    y, p = (np.array(column) for column in zip(*answers, strict=True))
    cost = Cost(false_positive=prices[0], false_negative=prices[1])
    threshold = cost.threshold(y, p)
    assert 0 <= threshold <= 1
    assert paid(cost, y, p, threshold) == pytest.approx(brute_force(cost, y, p))


def test_a_dear_miss_lowers_the_threshold():
    """The more a miss costs, the sooner a row is flagged; for calibrated answers the cut is near c/(c + m)."""
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(int)
    assert Cost(false_positive=1, false_negative=1).threshold(y, p) == pytest.approx(0.5, abs=0.05)
    assert Cost(false_positive=1, false_negative=4).threshold(y, p) == pytest.approx(0.2, abs=0.05)


@settings(deadline=None)
@given(ANSWERS, st.sampled_from([0.0, 0.25, 0.3, 1.0]))
def test_the_confusion_counts_every_row_once(answers, threshold):
    """The four cells are all rows, and the truth's margins are kept."""
    y, p, _ = (np.array(column) for column in zip(*answers, strict=True))
    table = confusion(y, p, threshold)
    assert sum(table.values()) == len(y)
    assert table["true positive"] + table["false negative"] == y.sum()


@settings(deadline=None)
@given(ANSWERS, st.integers(1, 12), st.randoms(use_true_random=False))
def test_calibration_does_not_depend_on_the_order_of_rows(answers, bins, random):
    """Equal answers share a bin, so that nothing but answers and truth decides; every row is in one bin."""
    shuffled = answers.copy()
    random.shuffle(shuffled)
    (y, p, _), (z, q, _) = ([np.array(column) for column in zip(*rows, strict=True)] for rows in (answers, shuffled))
    assert calibration_error(y, p, bins) == pytest.approx(calibration_error(z, q, bins))
    assert sum(row["rows"] for row in calibration_table(y, p, bins)) == len(y)


def test_a_constant_answer_at_the_base_rate_is_calibrated():
    """One answer for all, equal to the share of positives, has no calibration error, however the rows are ordered."""
    assert calibration_error(np.repeat([0, 1], 50), np.full(100, 0.5)) == 0


def test_calibration_error_by_hand():
    """Two bins, each off by a known distance: the mean of both."""
    y = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    p = np.array([0.1, 0.11, 0.12, 0.13, 0.8, 0.81, 0.82, 0.83])
    assert calibration_error(y, p, bins=2) == pytest.approx((abs(0.25 - 0.115) + abs(0.75 - 0.815)) / 2)


def test_bins_are_of_equal_size():
    """Distinct answers spread evenly over the bins."""
    p = np.linspace(0, 1, 100)
    assert [row["rows"] for row in calibration_table((p > 0.5).astype(int), p)] == [10] * 10
