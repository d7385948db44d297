"""Influence: how much each row weighs in a metric, from which the metric's standard error follows without drawing anything."""

from collections.abc import Callable

import numpy as np

from tasks.ml.metrics import Metric


def influence(metric: Metric, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The metric's influence values: n times its derivative by the weight of each row, (n,); they add up to 0.

    The root of their sum of squares over n is the standard error of the infinitesimal jackknife, to which the bootstrap's
    tends as the rows grow (Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapter 6).

    >>> from tasks.ml.metrics import METRICS
    >>> influence(METRICS["mae"], np.array([1.0, 2.0]), np.array([1.0, 4.0])).tolist()
    [-1.0, 1.0]
    """
    if metric.each is not None:
        values = metric.each(y, p)
        return values - values.mean()
    return INFLUENCES[metric.name](y, p)


def _roc_auc(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """DeLong's structural components (DeLong, DeLong and Clarke-Pearson 1988), scaled; of more classes the mean of each that occurs against the rest."""
    if p.ndim == 2:
        return np.mean([_roc_auc((y == place).astype(int), p[:, place]) for place in np.unique(y)], axis=0)
    is_positive = y == 1
    n, positive = len(y), int(is_positive.sum())
    if positive in {0, n}:
        return np.full(n, np.nan)
    _, place = np.unique(p, return_inverse=True)
    own = np.bincount(place, weights=is_positive)
    other = np.bincount(place) - own
    above = (np.cumsum(other) - other / 2)[place] / (
        n - positive
    )  # share of the negatives that lie below; ties count half
    under = 1 - (np.cumsum(own) - own / 2)[place] / positive
    area = float((own * (np.cumsum(other) - other / 2)).sum()) / positive / (n - positive)
    return np.where(is_positive, (above - area) * n / positive, (under - area) * n / (n - positive))


def _average_precision(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The derivative of the sum over thresholds of positives times precision, divided by the positives."""
    n, positive = len(y), y.sum()
    if not positive:
        return np.full(n, np.nan)
    groups, place = np.unique(-p, return_inverse=True)  # the highest first
    own = np.bincount(place, weights=y, minlength=len(groups))
    found, flagged = np.cumsum(own), np.cumsum(np.bincount(place, minlength=len(groups)))
    precision = found / flagged
    later = (part[::-1].cumsum()[::-1] for part in (own / flagged, own * precision / flagged))
    for_positive, for_all = (part[place] for part in later)
    by_weight = y * (precision[place] + for_positive) - for_all
    return (by_weight - y * (own * precision).sum() / positive) * n / positive


def _macro_recall(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    right, values = (p.argmax(axis=1) == y).astype(float), np.zeros(len(y))
    classes = np.unique(y)
    for place in classes:
        of = y == place
        values[of] = (right[of] - right[of].mean()) * len(y) / of.sum() / len(classes)
    return values


def _rmse(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    squares = (p - y) ** 2
    root = np.sqrt(squares.mean())
    return (squares - root**2) / (2 * root) if root else np.zeros(len(y))


def _r2(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    squares, apart = (p - y) ** 2, (y - y.mean()) ** 2
    spread = apart.mean()
    if not spread:
        return np.full(len(y), np.nan)
    return -(squares - squares.mean()) / spread + squares.mean() * (apart - spread) / spread**2


INFLUENCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "macro_recall": _macro_recall,
    "rmse": _rmse,
    "r2": _r2,
}
