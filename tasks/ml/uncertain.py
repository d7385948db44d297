"""Uncertain: a number with its bounds, and how much better one set of answers is than another on the same rows.

Which bounds are used is decided here and nowhere else:
- accuracy of two models: Tango's score bounds, whose test of "no difference" is McNemar's, at every number of rows;
- ROC AUC: the normal bounds of DeLong's variance, at every number of rows;
- everything else: the paired percentile bootstrap on up to 1,000 rows, and on more rows, where both agree within the
  noise of the resamples, its limit: normal bounds with the standard error of the influence values. Average precision of
  fewer than 50 positives stays with the bootstrap, whose negatives are drawn in groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from tasks.ml.influence import influence
from tasks.ml.metrics import Estimate, Metric, resampled

MANY = 1_000  # rows above which the bootstrap's limit stands for it
RARE = 50  # positives that average precision needs for this as well
TAIL = 10  # resamples that must lie beyond a percentile for it to be one
POWER = 0.8  # the probability with which a gain must be seen to count as one that can be


@dataclass(frozen=True)
class Uncertain:
    """A number whose errors are normal.

    Attributes:
        value: the number.
        error: its standard error.
    """

    value: float
    error: float

    def bounds(self, alpha: float = 0.05) -> Estimate:
        """The number between two bounds, each of which is wrong with probability `alpha`.

        >>> Uncertain(1.0, 0.1).bounds(0.05).low.__round__(3)
        0.836
        """
        reach = NormalDist().inv_cdf(1 - alpha) * self.error
        return Estimate(value=self.value, low=self.value - reach, high=self.value + reach)

    def visible(self, alpha: float = 0.05) -> float:
        """The least distance from a bar that is seen, at this error, with a probability of 80 %."""
        return (NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(POWER)) * self.error


@dataclass(frozen=True)
class Resampled(Uncertain):
    """A number with bootstrap samples of it: (resamples,). Where a bound lies too far out for them, the normal one is taken."""

    samples: np.ndarray = field(default_factory=lambda: np.empty(0))

    def bounds(self, alpha: float = 0.05) -> Estimate:
        """The percentiles of the samples."""
        if len(self.samples) * alpha < TAIL:
            return super().bounds(alpha)
        low, high = np.quantile(self.samples, [alpha, 1 - alpha])
        return Estimate(value=self.value, low=float(low), high=float(high))


@dataclass(frozen=True)
class Matched(Uncertain):
    """A difference of two shares of the same rows.

    Attributes:
        won: rows that only the first has right; lost: rows that only the second has right; rows: all of them.
    """

    won: int = 0
    lost: int = 0
    rows: int = 1

    def bounds(self, alpha: float = 0.05) -> Estimate:
        """Tango's score bounds (Statistics in Medicine 17, 1998, section 3); at 0 they are McNemar's test without correction."""
        z = NormalDist().inv_cdf(1 - alpha)
        low = _where(lambda at: self._score(at) - z, -1.0, self.value)
        high = _where(lambda at: self._score(at) + z, self.value, 1.0)
        return Estimate(value=self.value, low=low, high=high)

    def _score(self, difference: float) -> float:
        """How many standard errors what was seen lies above a true difference, with the shares that are likeliest under it."""
        n, edge = self.rows, 1e-12
        a, b = 2 * n, -self.won - self.lost + (2 * n - self.won + self.lost) * difference
        c = -self.lost * difference * (1 - difference)
        share = (np.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        spread = n * (2 * share + difference * (1 - difference))
        apart = self.won - self.lost - n * difference
        return 0.0 if abs(apart) < edge else apart / np.sqrt(max(spread, edge))


def _where(falls: Callable[[float], float], low: float, high: float) -> float:
    """The root of a falling function between two numbers, to 1e-9; the nearer end where there is none."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) > 0 else (low, middle)
    return (low + high) / 2


def measured(metric: Metric, y: np.ndarray, p: np.ndarray, *, resamples: int = 0, seed: int = 0) -> Uncertain:
    """The metric of answers `p`; without resamples always with normal bounds."""
    value = metric.of(y, p)
    if not resamples or _is_linear(metric, y):
        return Uncertain(value, _error(influence(metric, y, p)))
    return _resampled(value, *_samples(metric, y, (p,), resamples, seed))


def estimate(metric: Metric, y: np.ndarray, p: np.ndarray, *, resamples: int, seed: int) -> Estimate:
    """The metric with its 90 % interval."""
    return measured(metric, y, p, resamples=resamples, seed=seed).bounds()


def compared(
    metric: Metric, y: np.ndarray, after: np.ndarray, before: np.ndarray, *, resamples: int = 0, seed: int = 0
) -> Uncertain:
    """How much better answers `after` are than `before` on the same rows; positive is better whatever the metric's direction.

    Args:
        metric: what is compared.
        y: what came true: (n,).
        after: answers, (n,) or (n, classes).
        before: the same.
        resamples: of the bootstrap where it is used; 0: it is not.
        seed: of the bootstrap.
    """
    value = float(metric.gain(metric.of(y, after), metric.of(y, before)))
    if metric.name == "accuracy" and metric.each is not None:
        return _matched(value, metric.each(y, after), metric.each(y, before))
    if not resamples or _is_linear(metric, y):
        return Uncertain(value, _error(influence(metric, y, after) - influence(metric, y, before)))
    return _resampled(value, metric.gain(*_samples(metric, y, (after, before), resamples, seed)))


def apart(metric: Metric, y: np.ndarray, p: np.ndarray, some: np.ndarray, others: np.ndarray) -> Uncertain:
    """How much better the answers are on some rows than on others, which are other rows."""
    one, two = (measured(metric, y[at], p[at]) for at in (some, others))
    return Uncertain(float(metric.gain(one.value, two.value)), float(np.hypot(one.error, two.error)))


def wilson(share: float, rows: float, alpha: float = 0.05) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927); each bound is wrong with probability `alpha`.

    >>> tuple(round(bound, 3) for bound in wilson(0, 10))
    (0.0, 0.213)
    """
    z = NormalDist().inv_cdf(1 - alpha)
    middle, scale = share + z * z / (2 * rows), 1 + z * z / rows
    reach = z * float(np.sqrt(max(share * (1 - share), 0.0) / rows + z * z / (4 * rows * rows)))
    return max((middle - reach) / scale, 0.0), min((middle + reach) / scale, 1.0)


def newcombe(one: float, rows: int, two: float, others: int, alpha: float = 0.05) -> Estimate:
    """The difference of two independent shares with its bounds from those of both (Newcombe 1998, method 10).

    His example of 56 of 70 against 48 of 80, two-sided 95 %:

    >>> found = newcombe(56 / 70, 70, 48 / 80, 80, alpha=0.025)
    >>> round(found.low, 4), round(found.high, 4)
    (0.0524, 0.3339)
    """
    low, high = wilson(one, rows, alpha)
    least, most = wilson(two, others, alpha)
    gap = one - two
    return Estimate(
        value=gap, low=gap - float(np.hypot(one - low, most - two)), high=gap + float(np.hypot(high - one, two - least))
    )


def _matched(value: float, after: np.ndarray, before: np.ndarray) -> Matched:
    won, lost = int((after > before).sum()), int((after < before).sum())
    return Matched(value, _error((after - before) - value), won=won, lost=lost, rows=len(after))


def _samples(metric: Metric, y: np.ndarray, said: Sequence[np.ndarray], resamples: int, seed: int) -> list[np.ndarray]:
    """The metric of everybody's answers on the same bootstrap samples: (resamples,) each."""
    if len(y) <= MANY:
        return [resampled(metric, y, p, resamples, seed) for p in said]
    return _together(metric, y, said, resamples, seed)


def _together(metric: Metric, y: np.ndarray, said: Sequence[np.ndarray], resamples: int, seed: int) -> list[np.ndarray]:
    """The same of average precision with few positives, in as much time as there are positives.

    It changes only where a positive stands, so that negatives between the same two positives are alike, and how many of all
    that are alike are drawn is multinomial: the same bootstrap, with groups for rows.
    """
    codes = [_between(p, np.unique(p[y == 1])) for p in said]
    groups, counts = np.unique(np.stack([y, *codes], axis=1), axis=0, return_counts=True)
    weights = np.random.default_rng(seed).multinomial(len(y), counts / len(y), resamples).astype(float)
    return [metric.scores(groups[:, 0], groups[:, place], weights) for place in range(1, len(said) + 1)]


def _between(p: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """A number for each answer in the order of the answers, the same for all that lie between the same two edges.

    >>> _between(np.array([0.1, 0.2, 0.3, 0.5, 0.9]), np.array([0.3, 0.6])).tolist()
    [0, 0, 1, 2, 4]
    """
    return np.searchsorted(edges, p, side="left") + np.searchsorted(edges, p, side="right")


def _resampled(value: float, samples: np.ndarray) -> Uncertain:
    """Samples in which the number does not exist (one class drawn) say nothing and are left out."""
    known = samples[np.isfinite(samples)]
    if not len(known):
        return Uncertain(value, float("nan"))
    return Resampled(value, float(known.std()), samples=known)


def _is_linear(metric: Metric, y: np.ndarray) -> bool:
    if metric.name == "roc_auc":
        return True
    return len(y) > MANY and (metric.name != "average_precision" or int(y.sum()) >= RARE)


def _error(influences: np.ndarray) -> float:
    return float(np.sqrt((influences**2).sum())) / max(len(influences), 1)
