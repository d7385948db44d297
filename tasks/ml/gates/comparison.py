"""Gates that hold the challenger against others: what needs no learning, the champion, and the champion on the trusted set."""

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
        name, worst = min(gains.items(), key=lambda item: _nan_first(item[1].low))
        passed = worst.low > self.margin
        return Verdict(
            gate=self.kind, passed=passed, value=worst.value, low=worst.low, high=worst.high, bar=self.margin,
            reason=f"{evidence.metric.label} is {'' if passed else 'not '}surely better than '{name}': gain {_signed(worst)}, must be above {self.margin:g}",
        )  # fmt: skip


class Champion(BaseModel, frozen=True, extra="forbid"):
    """Is the challenger better than the champion, on rows that neither has seen? A tie keeps the champion."""

    kind: Literal["champion"] = "champion"
    margin: float = Field(default=0.0, ge=0, description="how much better it must be, in units of the metric")
    log_loss_slack: float = Field(
        default=0.02, ge=0, description="how much worse the log loss may surely not be, in nats"
    )
    min_rows: int = Field(default=100, ge=2, description="fewer unseen rows than this prove nothing")

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when the lower bound of the paired gain is above the margin and log loss does not get worse."""
        if evidence.champion is None:
            return Verdict(gate=self.kind, passed=True, reason="there is no champion yet; the naive baselines decide")
        rows, metric = evidence.unseen_by_champion, evidence.metric
        seen = f"{int(rows.sum())} rows that neither model has seen"
        if rows.sum() < self.min_rows:
            return Verdict(
                gate=self.kind,
                passed=False,
                value=int(rows.sum()),
                bar=self.min_rows,
                reason=f"only {seen}; {self.min_rows} are needed to compare",
            )
        gain = evidence.gain_over(evidence.champion, rows)
        before, after = (metric.of(evidence.y[rows], p[rows]) for p in (evidence.champion, evidence.challenger))
        loss = evidence.gain_over(evidence.champion, rows, METRICS["log_loss"]) if evidence.kind.has_chances else None
        better, calm = gain.low > self.margin, loss is None or loss.low > -self.log_loss_slack
        numbers = f"{metric.label} {before:.4f} → {after:.4f} on {seen}, gain {_signed(gain)}"
        reason = (
            f"{numbers}, must be above {self.margin:g}"
            if better
            else f"a tie keeps the champion: {numbers}, must be above {self.margin:g}"
        )
        if loss is not None and better and not calm:
            reason = f"{numbers}, but log loss may get worse by {-loss.low:.3f}, more than {self.log_loss_slack:g}"
        return Verdict(
            gate=self.kind,
            passed=better and calm,
            value=gain.value,
            low=gain.low,
            high=gain.high,
            bar=self.margin,
            reason=reason,
        )


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
            return Verdict(gate=self.kind, passed=True, reason="there is no champion yet; the naive baselines decide")
        rows, metric = trusted.unseen_by_champion, trusted.metric
        if rows.sum() < self.min_rows:
            return Verdict(
                gate=self.kind, passed=False, hold=True, value=int(rows.sum()), bar=self.min_rows,
                reason=f"only {int(rows.sum())} of {len(rows)} trusted rows are new to the champion; {self.min_rows} are needed. A person decides this once",
            )  # fmt: skip
        gain = trusted.gain_over(trusted.champion, rows)
        loss = trusted.gain_over(trusted.champion, rows, METRICS["log_loss"]) if trusted.kind.has_chances else None
        recent = evidence.gain_over(evidence.champion, evidence.unseen_by_champion)
        worse = not gain.high >= -self.slack or (loss is not None and not loss.high >= -self.log_loss_slack)
        opposed = recent.high < 0 and gain.low > self.slack
        seen = f"{int(rows.sum())} trusted rows that neither model has seen"
        numbers = f"{metric.label} gain {_signed(gain)} on {seen}" + (f", log loss {_signed(loss)}" if loss else "")
        if worse:
            reason = f"the trusted set calls it worse than the champion: {numbers}. Look at what the newest batches hold, then approve or reject it"
        elif opposed:
            reason = f"the trusted set calls it better than the champion, the newest rows call it worse: {numbers}; there {_signed(recent)}. Look at what the newest batches hold"
        else:
            reason = f"the trusted set has nothing against it: {numbers}"
        return Verdict(
            gate=self.kind, passed=not (worse or opposed), hold=worse or opposed, value=gain.value, low=gain.low, high=gain.high,
            bar=-self.slack, reason=reason,
        )  # fmt: skip


def _nan_first(value: float) -> float:
    """NaN counts as the worst."""
    return -np.inf if np.isnan(value) else value


def _signed(gain: Estimate) -> str:
    return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
