"""Simulation: what the champion gate does over many retrains whose true gain is known, beside a gate that only asks for `>=`.

Both models' scores are binormal: normal around 0 for negatives and around a distance d for positives, so that the true ROC AUC is
Φ(d / √2) (Hanley 1988, The robustness of the binormal assumptions), and their errors on the same row are correlated, as those of two
models of the same data are. The probabilities are the exact ones of such scores, so that log loss is not at fault.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from tasks.ml.gates import Champion, Evidence
from tasks.ml.metrics import METRICS
from tasks.ml.uncertain import wilson

Z = NormalDist()
TOLD = 10  # times that progress is said


class Retrains(BaseModel, frozen=True, extra="forbid"):
    """How challengers come about.

    Attributes:
        rows: of each holdout, which is new every time.
        auc: the champion's true ROC AUC; gain: how much more each challenger's is.
        positives: their share.
        correlation: of both models' errors on a row.
        looks: challengers in turn against the same champion.
        resamples: of the gate's bootstrap.
    """

    rows: int = Field(default=1000, ge=100)
    metric: Literal["roc_auc"] = "roc_auc"
    gain: float = Field(default=0.0, ge=0)
    auc: float = Field(default=0.85, gt=0.5, lt=1)
    positives: float = Field(default=0.3, gt=0, lt=1)
    correlation: float = Field(default=0.9, ge=0, lt=1)
    looks: int = Field(default=1, ge=1)
    resamples: int = Field(default=400, ge=100)

    @model_validator(mode="after")
    def _nobody_is_perfect(self) -> "Retrains":
        if self.auc + self.gain >= 1:
            raise ValueError(
                f"gain is {self.gain:g}; with a champion of {self.auc:g} it must be below {1 - self.auc:g}"
            )
        return self

    def draw(self, random: np.random.Generator) -> Evidence:
        """One holdout with the answers of both."""
        y = (random.random(self.rows) < self.positives).astype(int)
        common, own = random.normal(size=self.rows), random.normal(size=(2, self.rows))
        noise = np.sqrt(self.correlation) * common + np.sqrt(1 - self.correlation) * own
        champion, challenger = (
            self._chance(apart(auc) * y + each, apart(auc))
            for auc, each in zip((self.auc, self.auc + self.gain), noise, strict=True)
        )
        return Evidence(
            y=y, challenger=challenger, champion=champion, baselines={}, metric=METRICS[self.metric], seed=int(random.integers(2**31)),
            resamples=self.resamples, unseen_by_champion=np.ones(self.rows, dtype=bool),
        )  # fmt: skip

    def _chance(self, scores: np.ndarray, distance: float) -> np.ndarray:
        """The probability of a positive, given such a score: (n,)."""
        odds = distance * scores - distance**2 / 2 + np.log(self.positives / (1 - self.positives))
        return 1 / (1 + np.exp(-odds))


def apart(auc: float) -> float:
    """How far positives are from negatives, in standard deviations, where the ROC AUC is so.

    >>> round(apart(0.5), 3), round(apart(0.9213504), 3)
    (0.0, 2.0)
    """
    return float(np.sqrt(2) * Z.inv_cdf(auc))


@dataclass(frozen=True)
class Simulated:
    """What the gate did.

    Attributes:
        promoted: how often it promoted a challenger; naive: how often a gate would have that asks for `>=` alone.
        alpha: how often it may where no challenger is better.
    """

    drawn: Retrains
    n: int
    promoted: int
    naive: int
    alpha: float

    @property
    def told(self) -> dict[str, Any]:
        """The numbers, each share with its 95 % interval."""
        low, high = _interval(self.promoted, self.n)
        naive = dict(zip(("low", "high"), _interval(self.naive, self.n), strict=True))
        share = self.promoted / self.n
        about = self.drawn.model_dump() | {"naive": {"promotions": self.naive, "rate": self.naive / self.n, **naive}}
        if self.drawn.gain:
            return {"promotions": self.promoted, "n": self.n, "power": share, "low": low, "high": high, **about}
        return {
            "false_promotions": self.promoted, "n": self.n, "rate": share, "low": low, "high": high, "alpha": self.alpha, "ok": low <= self.alpha,
            **about,
        }  # fmt: skip


def _interval(count: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    return wilson(count / n, n, 0.025)


def over(drawn: Retrains, n: int, seed: int, say: Callable[[str], None], gate: Champion | None = None) -> Simulated:
    """What the gate does over `n` retrains, or `n` champions with several challengers each.

    Args:
        drawn: how the challengers come about.
        n: how many.
        seed: of everything that is drawn.
        say: is told how far it is.
        gate: with the project's bars; the default ones without.
    """
    gate, random, promoted, naive = gate or Champion(), np.random.default_rng(seed), 0, 0
    for number in range(1, n + 1):
        looks = [drawn.draw(random) for _ in range(drawn.looks)]
        promoted += any(_promotes(gate, evidence, look) for look, evidence in enumerate(looks))
        naive += any(_naively(evidence) for evidence in looks)
        if number * TOLD // n > (number - 1) * TOLD // n:
            say(f"{number} of {n}: {promoted} promoted; by a gate that asks for >= alone {naive}")
    return Simulated(drawn, n, promoted, naive, gate.alpha)


def _promotes(gate: Champion, evidence: Evidence, look: int) -> bool:
    return gate.judge(replace(evidence, looks=look)).passed


def _naively(evidence: Evidence) -> bool:
    """What many gates ask: is the number not smaller?"""
    before = evidence.champion if evidence.champion is not None else evidence.challenger
    return evidence.metric.of(evidence.y, evidence.challenger) >= evidence.metric.of(evidence.y, before)
