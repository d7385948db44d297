"""Sequential tests: whether a new model is worse than an old one, looked at after every row as often as one likes.

A wager against the claim "on average the new one is worse by no more than the tolerance". While the claim is true nobody can be
expected to gain, however the bets are chosen and whenever one looks; so a capital that has grown 1/alpha-fold is evidence at level
alpha, at any time (Ville's inequality). A t-test that is looked at again and again has no such level.

Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, Journal of the Royal Statistical Society B
86(1), section 4 (capital processes of bounded means) and supplement B (diversified Kelly betting: the capital is spread over fixed bets).
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

BETS = 0.98 * 0.5 ** np.arange(10)
"""Shares of the highest bet that cannot ruin: from bold ones, which see a failure within a dozen rows, to those for a small mean in much
noise. Spread over ten the capital is never below a tenth of what the best of them makes."""

RISES = np.array([0.5, 1.0, 2.0, 4.0])
SURE = 1e12  # what has become so likely needs no larger number
"""Rises that `shifted` bets on, in standard errors: from one that takes a dozen scores to see to one that a single score shows."""


@dataclass(frozen=True)
class Evidence:
    """What a test has seen.

    Attributes:
        rows: differences.
        mean: of them; above the tolerance speaks against the new model.
        e: the capital now, of 1 at the start.
        peak: the most that it ever was; this is what is compared with the bar.
        bar: 1/alpha.
        crossed: after how many rows the bar was reached, or None.
    """

    rows: int
    mean: float
    e: float
    peak: float
    bar: float
    crossed: int | None

    @property
    def against(self) -> bool:
        """Whether the new model is worse by more than the tolerance, at the level of the test."""
        return self.crossed is not None


def _grown(differences: np.ndarray, tolerance: float) -> np.ndarray:
    """The logarithm of what each bet has made after each difference: (n, bets)."""
    differences = np.asarray(differences, dtype="float64")
    if not (np.abs(differences) <= 1).all():
        raise ValueError("a difference is no number from -1 to 1; wanted losses from 0 to 1")
    return np.cumsum(np.log1p(np.outer(differences - tolerance, BETS / (1 + tolerance))), axis=0)


def _spread(grown: np.ndarray) -> np.ndarray:
    """The logarithm of the capital that is spread evenly over the bets."""
    return np.logaddexp.reduce(grown, axis=-1) - math.log(len(BETS))


@dataclass(frozen=True)
class Wager:
    """A test under way: what the bets have made so far, without the differences that they were made on.

    Null hypothesis: given all before it, each difference is expected to be at most the tolerance. What belongs together (the rows of one
    request that fail by one cause) must therefore come as one difference, and which difference comes next must not depend on what it is.

    Attributes:
        tolerance: the mean that is put up with, from 0 to below 1.
        alpha: the chance to reject a true claim, ever.
        grown: the logarithm of what each bet has made, (bets,).
        rows: differences so far.
        total: their sum.
        peak: the most that the logarithm of the capital ever was.
        crossed: after how many of them the bar was reached, or None.
    """

    tolerance: float
    alpha: float
    grown: np.ndarray = field(default_factory=lambda: np.zeros(len(BETS)))
    rows: int = 0
    total: float = 0.0
    peak: float = 0.0
    crossed: int | None = None

    def after(self, differences: np.ndarray) -> "Wager":
        """The same test when these have come as well: in any number of parts it ends the same.

        A bet b multiplies the capital by 1 + b (d - tolerance), where b < 1 / (1 + tolerance), so that it stays above 0 whatever d is. Each bet
        keeps its share, so that the last value does not depend on the order.

        Args:
            differences: (n,) new minus old, from -1 to 1, in the order in which they became known.

        Raises:
            ValueError: a difference is none, or lies outside.

        >>> Wager(0.0, 0.05).after(np.ones(5)).after(np.ones(7)).crossed  # what fails always, where the old one never does
        8
        >>> round(Wager(0.0, 0.05).after(np.array([1.0])).evidence.e, 4)  # 1 + the mean bet
        1.1958
        """
        grown = self.grown + _grown(differences, self.tolerance)
        if not len(grown):
            return self
        path = _spread(grown)
        over = np.flatnonzero(path >= -math.log(self.alpha))
        now = self.rows + int(over[0]) + 1 if len(over) else None
        return replace(
            self, grown=grown[-1], rows=self.rows + len(path), total=self.total + float(np.sum(differences)), peak=max(self.peak, float(path.max())),
            crossed=self.crossed or now,
        )  # fmt: skip

    @property
    def evidence(self) -> Evidence:
        """What it has seen."""
        e, peak = (math.exp(min(value, 700.0)) for value in (float(_spread(self.grown)), self.peak))
        return Evidence(self.rows, self.total / max(self.rows, 1), e, peak, 1 / self.alpha, self.crossed)


def slower(old: np.ndarray, new: np.ndarray, learn: int = 100, least: float = 0.0, share: float = 0.95) -> np.ndarray:
    """Whether the new one was slow minus whether the old one was, for each request after the first ones: (n - learn,) of -1, 0, 1.

    Slow is what takes longer than the old one's 95th percentile over the first requests. That percentile is only estimated; because the
    old one is measured against the same bar, the difference is 0 on average for equals, whatever the bar.

    Args:
        old: (n,) what the old model took for a request, in any unit.
        new: (n,) the new one for the same request, measured in the same way.
        learn: how many requests tell what is usual.
        least: what takes no longer is not slow in any case.
        share: the percentile, as a share.

    >>> slower(np.arange(5.0), np.array([0, 1, 2, 9, 4]), learn=3).tolist()  # slow is more than 1.9
    [0, 0]
    >>> slower(np.array([1, 1, 1, 1, 1]), np.array([1, 1, 1, 9, 1]), learn=3).tolist()
    [1, 0]
    """
    if len(old) <= learn:
        return np.zeros(0, dtype=int)
    bar = max(float(np.quantile(old[:learn], share)), least)
    return (new[learn:] > bar).astype(int) - (old[learn:] > bar).astype(int)


def shifted(scores: np.ndarray) -> np.ndarray:
    """How strongly scores speak for a rise at some time, known or not, after each of them: (n,).

    While each score, given those before it, is at most standard normal, the mean time until this reaches a bar is at least that bar, however
    often one looks: one false alarm in `bar` scores. It is the Shiryaev–Roberts e-detector: at every step a new bettor joins with a stake
    of 1, all bet on a rise, and what they hold together cannot be expected to exceed their stakes (Shin, Ramdas and Rinaldo 2024, E-detectors:
    a nonparametric framework for sequential change detection). The stakes are spread over rises of different size.

    Args:
        scores: (n,) in the order in which they became known, in standard errors; greater speaks for a rise.

    >>> shifted(np.array([0.0, 3.0])).round(1).tolist()
    [0.4, 35.9]
    """
    path, held = np.empty(len(scores)), np.zeros(len(RISES))
    for place, score in enumerate(scores):
        held = np.minimum((held + 1) * np.exp(np.minimum(RISES * score - RISES**2 / 2, 50.0)), SURE)
        path[place] = held.mean()
    return path
