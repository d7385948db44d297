"""Metrics, each with its direction and the problem kinds that it fits, and their uncertainty by bootstrap."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel

if TYPE_CHECKING:
    import pandas as pd

Name = Literal[
    "roc_auc", "average_precision", "log_loss", "brier", "accuracy", "macro_recall", "mae", "rmse", "r2",
    "ndcg_at_k", "recall_at_k", "mrr",
]  # fmt: skip
EPSILON = 1e-7  # probabilities are clipped here before a logarithm
CHUNK = 250_000  # weights held at once, in cells: 2 MB, which stay in the cache, as do the sums that are made of them


@dataclass(frozen=True)
class Metric:
    """A number that says how good answers are.

    Attributes:
        greater_is_better: the direction; nobody else decides it.
        scores: (y (n,), p (n,) or (n, classes), weights (b, n)) → (b,) the metric under each row of weights. With two
            classes y is 0 or 1 and p the probability of 1; with more, y is the class's place and p has a column each; of a
            regression both are numbers; of anomalies y is 1 where a row is one and p any score that grows with oddness. Of
            recommendations a row is a user, y the items that were taken and p those that were named, the best first: codes,
            and below 0 there is none.
        kinds: the problem kinds whose answers it can judge.
        each: (y, p) → (n,) the value of each row, where the metric is their plain mean.
        is_proper: whether it asks how sure the answers are, and the truest chance does best: calibration moves it.
    """

    name: str
    label: str
    greater_is_better: bool
    scores: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    kinds: tuple[str, ...] = ("binary",)
    each: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    is_proper: bool = False

    @classmethod
    def of_rows(
        cls,
        name: str,
        label: str,
        each: Callable[[np.ndarray, np.ndarray], np.ndarray],
        *,
        greater_is_better: bool,
        kinds: tuple[str, ...],
        is_proper: bool = False,
    ) -> "Metric":
        """The mean of a value of each row."""
        return cls(
            name, label, greater_is_better, lambda y, p, weights: _mean(each(y, p), weights), kinds, each, is_proper
        )

    def of(self, y: np.ndarray, p: np.ndarray) -> float:
        """The metric of answers `p` against the truth `y`."""
        return float(self.scores(y, p, np.ones((1, len(y))))[0])

    def gain(self, after: np.ndarray | float, before: np.ndarray | float) -> np.ndarray:
        """How much better `after` is than `before`; positive is better whatever the direction."""
        difference = np.asarray(after) - np.asarray(before)
        return difference if self.greater_is_better else -difference


def _roc_auc(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Mann–Whitney statistic; ties count half. Of more than two classes the plain mean of each that occurs against the rest."""
    if p.ndim == 2:
        each = [_roc_auc((y == place).astype(int), p[:, place], weights) for place in np.unique(y)]
        return np.mean(each, axis=0) if each else np.full(len(weights), np.nan)
    positive, negative = _grouped(y, p, weights)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return _divide((positive * (below + negative / 2)).sum(axis=1), pairs)


def _average_precision(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over thresholds of precision times the step in recall (scikit-learn's definition, no interpolation)."""
    positive, negative = (part[:, ::-1] for part in _grouped(y, p, weights))
    found, flagged = np.cumsum(positive, axis=1), np.cumsum(positive + negative, axis=1)
    precision = np.nan_to_num(_divide(found, flagged))  # before the first row that counts no positive is found either
    return _divide((positive * precision).sum(axis=1), positive.sum(axis=1))


def _log_loss(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Negative logarithm of the probability given to what came true, in nats."""
    clipped = np.clip(p, EPSILON, 1 - EPSILON)
    if p.ndim == 2:
        return -np.log(clipped[np.arange(len(y)), y])
    return -np.where(y == 1, np.log(clipped), np.log1p(-clipped))


def _brier(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Squared distance of probability and outcome; of more than two classes summed over them (Brier 1950)."""
    return ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1) if p.ndim == 2 else (p - y) ** 2


def _accuracy(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """1 where the likeliest class came true, else 0."""
    return (p.argmax(axis=1) == y).astype(float)


def _macro_recall(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the classes that occur of the share of their rows whose likeliest class is theirs."""
    right = (p.argmax(axis=1) == y).astype(float)
    each = [_mean(right[y == place], weights[:, y == place]) for place in np.unique(y)]
    return np.mean(each, axis=0) if each else np.full(len(weights), np.nan)


def _mae(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Absolute error, in units of the target."""
    return np.abs(p - y)


def _rmse(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Root of the mean squared error, in units of the target."""
    return np.sqrt(_mean((p - y) ** 2, weights))


def _r2(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the target's variance that is explained; below 0 when the mean would do better."""
    near = y - y.mean()  # squares of numbers far from 0 would lose their digits
    spread = _mean(near**2, weights) - _mean(near, weights) ** 2
    return 1 - _divide(_mean((p - y) ** 2, weights), spread)


def hits(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Which of the named items were taken: (n, k) bool.

    >>> hits(np.array([[7, 9, -1]]), np.array([[9, 8, 7, -1]])).tolist()
    [[True, False, True, False]]
    """
    found = np.zeros(p.shape, dtype=bool)
    step = max(1, CHUNK // max(1, y.shape[1] * p.shape[1]))
    for begin in range(0, len(y), step):
        some = slice(begin, begin + step)
        found[some] = (p[some, :, None] == y[some, None, :]).any(axis=2)
    return found & (p >= 0)


def _ndcg_at_k(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """A user's discounted gain of the named items against the best order there is (Järvelin and Kekäläinen 2002)."""
    gains = 1 / np.log2(np.arange(p.shape[1]) + 2)
    best = np.r_[0.0, np.cumsum(gains)][np.minimum((y >= 0).sum(axis=1), p.shape[1])]
    return _divide(hits(y, p) @ gains, best)


def _recall_at_k(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Share of a user's taken items that were named; items that no model could know count as well."""
    return _divide(hits(y, p).sum(axis=1), (y >= 0).sum(axis=1))


def _mrr(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """One over the place of the first named item that the user took; 0 where none was."""
    found = hits(y, p)
    return np.where(found.any(axis=1), 1 / (found.argmax(axis=1) + 1), 0.0)


def _grouped(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of positives and of negatives at each distinct probability, ascending: two (b, groups) arrays."""
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(p[order]) != 0])
    ordered, labels = weights[:, order], y[order]
    return np.add.reduceat(ordered * labels, starts, axis=1), np.add.reduceat(ordered * (1 - labels), starts, axis=1)


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _divide(weights @ values, weights.sum(axis=1))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Division that gives NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)


CLASSES = ("binary", "multiclass")
LISTS = ("recommendation",)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("roc_auc", "ROC AUC", greater_is_better=True, scores=_roc_auc, kinds=(*CLASSES, "anomaly")),
        Metric(
            "average_precision",
            "average precision",
            greater_is_better=True,
            scores=_average_precision,
            kinds=("binary", "anomaly"),
        ),
        Metric.of_rows("log_loss", "log loss", _log_loss, greater_is_better=False, kinds=CLASSES, is_proper=True),
        Metric.of_rows("brier", "Brier score", _brier, greater_is_better=False, kinds=CLASSES, is_proper=True),
        Metric.of_rows("accuracy", "accuracy", _accuracy, greater_is_better=True, kinds=("multiclass",)),
        Metric(
            "macro_recall",
            "mean recall over classes",
            greater_is_better=True,
            scores=_macro_recall,
            kinds=("multiclass",),
        ),
        Metric.of_rows("mae", "mean absolute error", _mae, greater_is_better=False, kinds=("regression",)),
        Metric("rmse", "root mean squared error", greater_is_better=False, scores=_rmse, kinds=("regression",)),
        Metric("r2", "R²", greater_is_better=True, scores=_r2, kinds=("regression",)),
        Metric.of_rows("ndcg_at_k", "NDCG@k", _ndcg_at_k, greater_is_better=True, kinds=LISTS),
        Metric.of_rows("recall_at_k", "recall@k", _recall_at_k, greater_is_better=True, kinds=LISTS),
        Metric.of_rows("mrr", "mean reciprocal rank", _mrr, greater_is_better=True, kinds=LISTS),
    )
}


def metrics_of(kind: str) -> dict[str, Metric]:
    """The metrics that can judge a problem kind, by name."""
    return {name: metric for name, metric in METRICS.items() if kind in metric.kinds}


class Estimate(BaseModel, frozen=True):
    """A number with its 90 % interval: two one-sided bounds at 5 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`0.981 [0.975, 0.987]`."""
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def packed(answers: np.ndarray) -> np.ndarray | list[list[float]]:
    """Answers as a column of a table: numbers, or a list each."""
    return answers.tolist() if answers.ndim == 2 else answers


def unpacked(column: "pd.Series") -> np.ndarray:
    """Answers from such a column: (n,), or (n, classes)."""
    return np.stack(column.to_list()) if column.dtype == object else column.to_numpy()


def resampled(metric: Metric, y: np.ndarray, p: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The metric on `resamples` bootstrap samples of the rows: (resamples,).

    The same `seed` and number of rows draw the same samples for every model, which is what makes a comparison paired
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 16).
    """
    rng = np.random.default_rng(seed)
    n, parts, left = len(y), [], resamples
    while left:
        rows = min(left, max(1, CHUNK // max(n, 1)))
        parts.append(metric.scores(y, p, _drawn(rng, n, rows)))
        left -= rows
    return np.concatenate(parts)


def _drawn(rng: np.random.Generator, n: int, samples: int) -> np.ndarray:
    """How often each of `n` rows stands in each sample of `n` rows with replacement: (samples, n)."""
    counts = [np.bincount(rng.integers(0, n, n), minlength=n) if n else np.zeros(0) for _ in range(samples)]
    return np.array(counts, dtype=float)


def paired_gain(
    metric: Metric, y: np.ndarray, after: np.ndarray, before: np.ndarray, *, resamples: int, seed: int
) -> Estimate:
    """How much better probabilities `after` are than `before` on the same rows, with interval; positive is better."""
    gains = metric.gain(resampled(metric, y, after, resamples, seed), resampled(metric, y, before, resamples, seed))
    return summary(float(metric.gain(metric.of(y, after), metric.of(y, before))), gains)


def summary(value: float, samples: np.ndarray) -> Estimate:
    """A number with the 90 % interval of its samples; those in which it does not exist (one class drawn) say nothing and are left out."""
    known = samples[np.isfinite(samples)]
    if not len(known):
        return Estimate(value=value, low=float("nan"), high=float("nan"))
    low, high = np.quantile(known, [0.05, 0.95])
    return Estimate(value=value, low=float(low), high=float(high))


def calibration_table(y: np.ndarray, p: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Mean prediction, observed rate and rows in bins of about equal size, ascending by prediction.

    Equal predictions share a bin: cut apart, they would be told apart by nothing but the order of the rows.
    """
    order = np.argsort(p, kind="stable")
    cuts = np.linspace(0, len(p), bins + 1).round().astype(int)[1:-1]
    starts = np.unique(np.searchsorted(p[order], p[order][cuts[cuts < len(p)]]))
    groups = [group for group in np.split(order, starts) if len(group)]
    return [
        {"predicted": float(p[group].mean()), "observed": float(y[group].mean()), "rows": float(len(group))}
        for group in groups
    ]


def calibration_error(y: np.ndarray, p: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error with equal-size bins: mean distance of prediction and observed rate, weighted by rows.

    >>> calibration_error(np.array([0, 1, 0, 1]), np.array([0.5, 0.5, 0.5, 0.5]), bins=1)
    0.0
    """
    table = calibration_table(y, p, bins)
    return float(sum(row["rows"] * abs(row["predicted"] - row["observed"]) for row in table) / len(y))


def confusion(y: np.ndarray, p: np.ndarray, threshold: float) -> dict[str, int]:
    """Rows by truth and decision, where a decision is positive at or above the threshold."""
    decided = p >= threshold
    return {
        "true positive": int((decided & (y == 1)).sum()), "false positive": int((decided & (y == 0)).sum()),
        "false negative": int((~decided & (y == 1)).sum()), "true negative": int((~decided & (y == 0)).sum()),
    }  # fmt: skip


def between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A threshold that parts each lower answer from the higher one, as far from both as it can be: computed again elsewhere, either may
    differ in its last digit.

    >>> between(np.array([0.2, 1.0]), np.array([0.6, np.nextafter(1, 2)])).tolist()
    [0.4, 1.0000000000000002]
    """  # noqa: D205
    middle = low / 2 + high / 2
    return np.where(middle > low, middle, high)  # between nearest floats there is no middle


class Cost(BaseModel, frozen=True, extra="forbid"):
    """What a wrong decision costs, in any one unit; it sets the operating threshold."""

    false_positive: float = 1.0
    false_negative: float = 1.0

    def threshold(self, y: np.ndarray, p: np.ndarray) -> float:
        """The threshold from 0 to 1 with the least cost on these rows, half-way between two neighbouring probabilities.

        >>> Cost().threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9]))
        0.4
        """
        order = np.argsort(p, kind="stable")
        ranked, labels = p[order], y[order]
        missed = np.r_[0, np.cumsum(labels)]  # positives below the cut after k rows
        flagged = (1 - labels).sum() - np.r_[0, np.cumsum(1 - labels)]
        edges = np.r_[0.0, between(ranked[:-1], ranked[1:]), 1.0]
        # A cut between equal probabilities does not exist, nor one above a probability of 1.
        allowed = np.r_[True, np.diff(ranked) > 0, (ranked < 1).all()]
        costs = np.where(allowed, missed * self.false_negative + flagged * self.false_positive, np.inf)
        return float(edges[int(np.argmin(costs))])
