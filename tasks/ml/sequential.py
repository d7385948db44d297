"""Sequential tests: whether a new model is worse than an old one, looked at after every row as often as one likes.

A wager against the claim "on average the new one is worse by no more than the tolerance". While the claim is true nobody can be
expected to gain, however the bets are chosen and whenever one looks; so a capital that has grown 1/alpha-fold is evidence at level
alpha, at any time (Ville's inequality). A t-test that is looked at again and again has no such level.

Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, Journal of the Royal Statistical Society B
86(1), section 4 (capital processes of bounded means) and supplement B (diversified Kelly betting: the capital is spread over fixed bets).
"""

import math
from dataclasses import dataclass

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


def capital(differences: np.ndarray, tolerance: float) -> np.ndarray:
    """What became of a capital of 1 after each difference, its logarithm: (n,).

    A bet b multiplies it by 1 + b (d - tolerance), where b < 1 / (1 + tolerance), so that it stays above 0 whatever d is. Each bet keeps
    its share, so that the last value does not depend on the order.

    Args:
        differences: (n,) new minus old, from -1 to 1, in the order in which they became known.
        tolerance: the mean that is put up with, from 0 to below 1.

    Raises:
        ValueError: a difference is none, or lies outside.

    >>> np.exp(capital(np.array([1.0]), 0.0)).round(4).tolist()  # 1 + the mean bet
    [1.1958]
    """
    differences = np.asarray(differences, dtype="float64")
    if not (np.abs(differences) <= 1).all():
        raise ValueError("a difference is no number from -1 to 1; wanted losses from 0 to 1")
    grown = np.cumsum(np.log1p(np.outer(differences - tolerance, BETS / (1 + tolerance))), axis=0)
    return np.logaddexp.reduce(grown, axis=1) - math.log(len(BETS))


def weighed(differences: np.ndarray, tolerance: float, alpha: float) -> Evidence:
    """Whether the mean difference is above the tolerance, at a level that holds over all looks together.

    Null hypothesis: given all before it, each difference is expected to be at most the tolerance. What belongs together (the rows of one
    request that fail by one cause) must therefore come as one difference.

    Args:
        differences: as `capital` takes them: of losses from 0 to 1, or of two Bernoulli streams, 1 minus 0.
        tolerance: as there.
        alpha: the chance to reject a true claim, ever.

    >>> weighed(np.ones(12), 0.0, 0.05).crossed  # what fails always, where the old one never does
    8
    """
    path = capital(differences, tolerance)
    if not len(path):
        return Evidence(0, 0.0, 1.0, 1.0, 1 / alpha, None)
    over = np.flatnonzero(path >= -math.log(alpha))
    e, peak = (float(np.exp(min(value, 700.0))) for value in (path[-1], path.max()))
    return Evidence(len(path), float(np.mean(differences)), e, peak, 1 / alpha, int(over[0]) + 1 if len(over) else None)


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
