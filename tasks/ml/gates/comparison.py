"""Gates that hold the challenger against others: what needs no learning, the champion, and the champion on the trusted set."""

from math import pi
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from tasks.ml.gates.evidence import Evidence
from tasks.ml.gates.verdict import Verdict
from tasks.ml.metrics import METRICS, Estimate


class Baselines(BaseModel, frozen=True, extra="forbid"):
    """Is the challenger better than what needs no learning?"""

    kind: Literal["baselines"] = "baselines"
    margin: float = Field(default=0.0, ge=0, description="how much better it must be, in units of the metric")

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when the lower bound of the gain over every naive baseline is above the margin."""
        gains = {name: evidence.gain_over(naive) for name, naive in evidence.baselines.items()}
        name = min(gains, key=lambda one: _nan_first(gains[one].bounds().low))
        worst, metric = gains[name].bounds(), evidence.metric
        passed = worst.low > self.margin
        return Verdict(
            gate=self.kind, passed=passed, value=worst.value, low=worst.low, high=worst.high, bar=self.margin,
            before=metric.of(evidence.y, evidence.baselines[name]), after=metric.of(evidence.y, evidence.challenger),
            power=gains[name].visible(),
            reason=f"{metric.label} is {'' if passed else 'not '}surely better than '{name}': gain {_signed(worst)}, must be above {self.margin:g}",
        )  # fmt: skip


def spent(alpha: float, look: int) -> float:
    """The part of an error that the look of that number may spend; all looks together never spend more than all of it.

    Alpha spending with the summable sequence 6 / (π² k²) (Tian and Ramdas, Online control of the familywise error rate,
    Statistical Methods in Medical Research 30, 2021, section 3): a challenger that is no better replaces a champion with a
    probability of at most `alpha` over however many retrains. The first look keeps three fifths of it.

    >>> round(sum(spent(0.05, look) for look in range(1, 100_000)), 6)
    0.05
    >>> round(spent(0.05, 1), 4), round(spent(0.05, 10), 4)
    (0.0304, 0.0003)
    """
    return alpha * 6 / (pi * look) ** 2


class Champion(BaseModel, frozen=True, extra="forbid"):
    """Is the challenger better than the champion, on rows that neither has seen? A tie keeps the champion."""

    kind: Literal["champion"] = "champion"
    margin: float = Field(default=0.0, ge=0, description="how much better it must be, in units of the metric")
    refresh_margin: float | None = Field(
        default=None,
        ge=0,
        description="how much worse a challenger of the champion's family, columns and window may surely not be, in units of the metric: "
        "it is newer, and need not be better. Left out: it must be better, as every other",
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="probability that any challenger which is no better replaces a champion, over all retrains against it together",
    )
    log_loss_slack: float = Field(
        default=0.02, ge=0, description="how much worse the log loss may surely not be, in nats"
    )
    min_rows: int = Field(default=100, ge=2, description="fewer unseen rows than this prove nothing")

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when the lower bound of the paired gain is above the margin and log loss does not get worse.

        Where the champion cannot be asked there is nothing to compare, and a person decides. The bound is wrong with the probability that this look at the champion may spend (see `spent`).
        """
        champion, rows = evidence.champion, evidence.unseen_by_champion
        if evidence.unasked:
            return Verdict(gate=self.kind, passed=False, hold=True, reason=f"{evidence.alone}. A person decides")
        if champion is None:
            return Verdict(gate=self.kind, passed=True, reason=evidence.alone)
        if rows.sum() < self.min_rows:
            return Verdict(
                gate=self.kind, passed=False, value=int(rows.sum()), bar=self.min_rows,
                reason=f"only {_seen(rows)}; {self.min_rows} are needed to compare",
            )  # fmt: skip
        gain, alpha, bar = (
            evidence.gain_over(champion, rows),
            spent(self.alpha, evidence.looks + 1),
            self._bar(evidence),
        )
        bounds, is_same = gain.bounds(alpha), np.array_equal(evidence.challenger[rows], champion[rows])
        is_better, loss = bounds.low > bar and not is_same, self._loss(evidence, champion)
        before, after = (evidence.metric.of(evidence.y[rows], said[rows]) for said in (champion, evidence.challenger))
        numbers = f"{evidence.metric.label} {before:.4f} → {after:.4f} on {_seen(rows)}, gain {_signed(bounds)}"
        sure = f"must be above {bar:g} (look {evidence.looks + 1} at this champion, error {alpha:.2g}; {gain.visible(alpha):.4f} more is seen four times in five)"
        tie = f"a tie keeps the champion: {'all answers are its own; ' if is_same else ''}"
        return Verdict(
            gate=self.kind, passed=is_better and not loss, value=gain.value, low=bounds.low, high=bounds.high, bar=bar, before=before, after=after,
            alpha=alpha, power=gain.visible(alpha), reason=f"{numbers}, but {loss}" if is_better and loss else f"{'' if is_better else tie}{numbers}, {sure}",
        )  # fmt: skip

    def _bar(self, evidence: Evidence) -> float:
        """Above the margin for a change, not below the champion by more than another one for a refresh."""
        return self.margin if self.refresh_margin is None or not evidence.is_refresh else 0.0 - self.refresh_margin

    def _loss(self, evidence: Evidence, champion: np.ndarray) -> str:
        """What is wrong with its log loss against the champion's, or nothing."""
        if not evidence.kind.has_chances:
            return ""
        low = evidence.gain_over(champion, evidence.unseen_by_champion, METRICS["log_loss"]).bounds().low
        slack = self.log_loss_slack
        return "" if low > -slack else f"log loss may get worse by {-low:.3f}, more than {slack:g}"


class TrustedSet(BaseModel, frozen=True, extra="forbid"):
    """Does the trusted reference set, which no batch can touch, say the same as the newest rows? If not, a person decides."""

    kind: Literal["trusted"] = "trusted"
    slack: float = Field(
        default=0.0, ge=0, description="how much worse than the champion it may surely be there, in units of the metric"
    )
    log_loss_slack: float = Field(
        default=0.05, ge=0, description="how much worse the log loss may surely be there, in nats"
    )
    min_rows: int = Field(default=50, ge=2, description="fewer rows that neither model has seen say nothing")

    def judge(self, evidence: Evidence) -> Verdict:
        """Holds the challenger when one set calls it surely better than the champion and the other surely worse.

        It holds as well when the trusted set cannot be asked about this champion.
        """
        trusted = evidence.trusted
        if trusted is None:
            return Verdict(gate=self.kind, passed=True, reason="nothing was set apart yet; the newest rows decide")
        if evidence.champion is None or trusted.champion is None:
            return Verdict(gate=self.kind, passed=True, reason=evidence.alone)
        rows, metric = trusted.unseen_by_champion, trusted.metric
        if rows.sum() < self.min_rows:
            return Verdict(
                gate=self.kind, passed=False, hold=True, value=int(rows.sum()), bar=self.min_rows,
                reason=f"only {int(rows.sum())} of {len(rows)} trusted rows are new to the champion; {self.min_rows} are needed. A person decides this once",
            )  # fmt: skip
        there = trusted.gain_over(trusted.champion, rows)
        gain, loss = there.bounds(), None
        if trusted.kind.has_chances:
            loss = trusted.gain_over(trusted.champion, rows, METRICS["log_loss"]).bounds()
        recent = evidence.gain_over(evidence.champion, evidence.unseen_by_champion).bounds()
        worse = not gain.high >= -self.slack or (loss is not None and not loss.high >= -self.log_loss_slack)
        opposed = recent.high < 0 and gain.low > self.slack
        numbers = f"{metric.label} gain {_signed(gain)} on {_seen(rows, 'trusted ')}" + (
            f", log loss {_signed(loss)}" if loss else ""
        )
        if worse:
            reason = f"the trusted set calls it worse than the champion: {numbers}. Look at what the newest batches hold, then approve or reject it"
        elif opposed:
            reason = f"the trusted set calls it better than the champion, the newest rows call it worse: {numbers}; there {_signed(recent)}. Look at what the newest batches hold"
        else:
            reason = f"the trusted set has nothing against it: {numbers}"
        return Verdict(
            gate=self.kind, passed=not (worse or opposed), hold=worse or opposed, value=gain.value, low=gain.low, high=gain.high,
            before=metric.of(trusted.y[rows], trusted.champion[rows]), after=metric.of(trusted.y[rows], trusted.challenger[rows]),
            bar=0.0 - self.slack, power=there.visible(), reason=reason,
        )  # fmt: skip


def _seen(rows: np.ndarray, which: str = "") -> str:
    return f"{int(rows.sum())} {which}rows that neither model has seen"


def _nan_first(value: float) -> float:
    """NaN counts as the worst."""
    return -np.inf if np.isnan(value) else value


def _signed(gain: Estimate) -> str:
    return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
