"""Measures: the metrics of a problem kind, and what its decisions are worth at the operating threshold and within the alert budget.

measures(kind, operates) -> {name: Metric}          what can be measured, and estimated, of this kind's answers
gauged(measure, y, p, seed=0) -> Estimate           a measure with its 90 % interval
standard_error(measured) -> float                   half of that interval's width, in standard errors
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tasks.ml.kinds import Binary, Kind
from tasks.ml.metrics import Cost, Estimate, Metric, metrics_of
from tasks.ml.uncertain import estimate, wilson

RESAMPLES = 500
REACH = 1.6449  # standard errors between a number and a bound that is wrong one time in twenty
NONE = Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
Parts = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Reference(Estimate, frozen=True):
    """A measure with its 90 % interval on rows whose outcomes are known, which windows are compared with.

    Attributes:
        rare: rows of the rarest class, or all rows where there are no classes: what an error shrinks with.
        spread: standard deviation of the measure between stretches of those rows beyond what sampling explains.
    """

    rare: int
    spread: float = 0.0


@dataclass(frozen=True)
class Share:
    """A share of rows, or what follows from one, so that its bounds hold at every number of rows.

    Attributes:
        parts: (y (n,), p (n,)) → (hit, counted), (n,) bool each: of the counted rows those that are hit.
        shape: the metric at a share, (b,) → (b,); it grows with it.
    """

    parts: Parts
    shape: Callable[[np.ndarray], np.ndarray] = np.asarray

    def scores(self, y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """As `Metric.scores`."""
        hit, counted = self.parts(y, p)
        above, below = weights @ (hit & counted).astype(float), weights @ counted.astype(float)
        return self.shape(np.divide(above, below, out=np.full(len(weights), np.nan), where=below != 0))

    def bounds(self, y: np.ndarray, p: np.ndarray) -> Estimate:
        """The metric with its 90 % interval (Wilson 1927); no number where no row counts."""
        hit, counted = self.parts(y, p)
        rows = int(counted.sum())
        if not rows:
            return NONE
        share = float(hit[counted].mean())
        value, low, high = self.shape(np.array([share, *wilson(share, rows)])).tolist()
        return Estimate(value=value, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Decision(Metric):
    """A metric of decisions, with the share that it follows from."""

    share: Share


def measures(kind: Kind, operates: Mapping[str, float]) -> dict[str, Metric]:
    """What can be measured of a kind's answers, by name.

    The metrics of the kind; of two classes also accuracy, recall, precision, F1 and the mean cost of a row at the operating threshold, and
    with an alert budget the recall among the rows of the highest answers that the budget allows in the window itself.

    Args:
        kind: the problem.
        operates: how its answers become decisions, as the manifest of the version says; empty where that is unknown.

    >>> from tasks.ml.kinds import Regression
    >>> list(measures(Regression("y"), {"interval": 2.0}))
    ['mae', 'rmse', 'r2']
    """
    found = metrics_of(kind.name)
    if isinstance(kind, Binary) and "threshold" in operates:
        found |= {metric.name: metric for metric in _decisions(kind, float(operates["threshold"]))}
    return found


def gauged(measure: Metric, y: np.ndarray, p: np.ndarray, seed: int = 0) -> Estimate:
    """A measure with its 90 % interval: Wilson's of shares, else as `uncertain` bounds metrics.

    Args:
        measure: one of `measures`.
        y: (n,) what came true.
        p: (n,) or (n, classes), as the kind answers.
        seed: of the bootstrap, where it is used.
    """
    if isinstance(measure, Decision):
        return measure.share.bounds(y, p)
    return estimate(measure, y, p, resamples=RESAMPLES, seed=seed) if len(y) else NONE


def standard_error(measured: Estimate) -> float:
    """The error that an interval stands for, were it a normal one.

    >>> round(standard_error(Estimate(value=0.5, low=0.5 - 1.6449, high=0.5 + 1.6449)), 9)
    1.0
    """
    return (measured.high - measured.low) / (2 * REACH)


def rarest(truth: np.ndarray) -> int:
    """Rows of the rarest class that occurs.

    >>> rarest(np.array([0, 0, 1, 0]))
    1
    """
    return int(np.unique(truth, return_counts=True)[1].min()) if len(truth) else 0


def _decisions(kind: Binary, threshold: float) -> list[Metric]:
    """Every measure of a yes-or-no decision."""

    def called(p: np.ndarray) -> np.ndarray:
        return p >= threshold

    shares = [
        ("accuracy", "accuracy at the threshold", Share(lambda y, p: (called(p) == (y == 1), np.full(len(y), True)))),
        ("recall", "recall at the threshold", Share(lambda y, p: (called(p), y == 1))),
        ("precision", "precision at the threshold", Share(lambda y, p: (y == 1, called(p)))),
        ("f1", "F1 at the threshold", Share(_found(called), _dice)),
    ]
    if kind.alerts is not None:
        budget = Share(lambda y, p: (p >= kind.operate(y, p)["threshold"], y == 1))
        shares.append(("recall_at_alerts", f"recall at {kind.alerts:.3g} alerts a row", budget))
    found = [Decision(name, label, greater_is_better=True, scores=share.scores, share=share) for name, label, share in shares]  # fmt: skip
    each = _cost(called, kind.cost)
    return [*found, Metric.of_rows("cost", "mean cost of a row", each, greater_is_better=False, kinds=("binary",))]


def _found(called: Callable[[np.ndarray], np.ndarray]) -> Parts:
    """Of the rows that are positive or called so those that are both: Jaccard's index."""
    return lambda y, p: ((y == 1) & called(p), (y == 1) | called(p))


def _dice(jaccard: np.ndarray) -> np.ndarray:
    """F1 grows with Jaccard's index, J: 2 J / (1 + J)."""
    return 2 * jaccard / (1 + jaccard)


def _cost(called: Callable[[np.ndarray], np.ndarray], cost: Cost) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What each decision costs, in the unit of the project's `cost`."""
    return lambda y, p: np.where(y == 1, ~called(p) * cost.false_negative, called(p) * cost.false_positive)
