"""Gates: questions put to a challenger, and their verdicts. A refusal is a value."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field

from tasks.ml.kinds import Binary, Kind
from tasks.ml.leaks import jump
from tasks.ml.metrics import METRICS, Cost, Estimate, Metric, paired_gain


class Verdict(BaseModel, frozen=True):
    """One gate's answer.

    Attributes:
        gate: which question.
        passed: the answer.
        reason: a sentence with the numbers, for a person.
        value: the number that was judged; None where there is none.
        bar: what it was held against.
        low, high: 90 % interval of the value, where it has one.
        hold: not passed, but a person may release the version all the same.
    """

    gate: str
    passed: bool
    reason: str
    value: float | None = None
    bar: float | None = None
    low: float | None = None
    high: float | None = None
    hold: bool = False


@dataclass(frozen=True)
class Evidence:
    """What the gates look at: the same holdout rows, scored by everybody.

    Attributes:
        y: (n,) what came true on the holdout, as the problem's kind says it.
        challenger: answers, (n,) or (n, classes).
        baselines: naive answers by name.
        champion: answers of the champion, or None when there is none yet.
        unseen_by_champion: (n,) True where the champion was neither trained nor tuned on the row.
        history: the metric of the project's earlier challengers, each on the holdout of its time, oldest first.
        trusted: the same of the trusted reference set; None when nothing was set apart.
    """

    y: np.ndarray
    challenger: np.ndarray
    baselines: Mapping[str, np.ndarray]
    metric: Metric
    seed: int
    resamples: int = 1000
    champion: np.ndarray | None = None
    unseen_by_champion: np.ndarray = field(default_factory=lambda: np.array([], dtype=bool))
    history: tuple[Estimate, ...] = ()
    kind: Kind = field(default_factory=lambda: Binary("target", positive=True, labels=("no", "yes"), cost=Cost()))
    operates: Mapping[str, float] = field(default_factory=dict)
    trusted: "Evidence | None" = None

    def gain_over(self, other: np.ndarray, rows: np.ndarray | None = None, metric: Metric | None = None) -> Estimate:
        """How much better the challenger is than `other`, on all rows or those given."""
        chosen = np.ones(len(self.y), dtype=bool) if rows is None else rows
        return paired_gain(
            metric or self.metric,
            self.y[chosen],
            self.challenger[chosen],
            other[chosen],
            resamples=self.resamples,
            seed=self.seed,
        )


class Sound(BaseModel, frozen=True, extra="forbid"):
    """Are the answers of the right sort at all: finite, probabilities between 0 and 1, not all the same?"""

    kind: Literal["sound"] = "sound"

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when the problem's kind has nothing against the answers as such."""
        wrong = evidence.kind.unsound(evidence.challenger)
        fine = f"all {len(evidence.challenger)} answers are {'probabilities' if evidence.kind.has_chances else 'numbers'}, and they differ"
        return Verdict(gate=self.kind, passed=not wrong, value=float(bool(wrong)), bar=0, reason=wrong or fine)


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
            reason = f"the trusted set calls it worse than the champion: {numbers}. Look at what the newest batches hold, then release it by hand or leave it"
        elif opposed:
            reason = f"the trusted set calls it better than the champion, the newest rows call it worse: {numbers}; there {_signed(recent)}. Look at what the newest batches hold"
        else:
            reason = f"the trusted set has nothing against it: {numbers}"
        return Verdict(
            gate=self.kind, passed=not (worse or opposed), hold=worse or opposed, value=gain.value, low=gain.low, high=gain.high,
            bar=-self.slack, reason=reason,
        )  # fmt: skip


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """Do the probabilities mean what they say?"""

    kind: Literal["calibration"] = "calibration"
    error: float = Field(
        default=0.05, gt=0, lt=1, description="largest expected calibration error, in probability or share of rows"
    )
    bias: float = Field(
        default=0.05, gt=0, lt=1, description="largest distance of mean prediction and what came true on the whole"
    )

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when both the error over ten bins and the overall bias are within their bars."""
        found = evidence.kind.calibration(evidence.y, evidence.challenger, dict(evidence.operates))
        if found is None:
            return Verdict(
                gate=self.kind, passed=True, reason="nothing is said that could be held against what came true"
            )
        return Verdict(
            gate=self.kind, passed=found.error <= self.error and found.bias <= self.bias, value=found.error, bar=self.error,
            reason=f"{found.reason} (bars {self.error:g} and {self.bias:g})",
        )  # fmt: skip


class Plausible(BaseModel, frozen=True, extra="forbid"):
    """Is the challenger too good to be true, against all that the project has seen?"""

    kind: Literal["plausible"] = "plausible"
    sigma: float = Field(default=5.0, gt=0, description="how many sigmas above the best earlier value are believed")
    earlier: int = Field(default=5, ge=2, description="fewer earlier values than this say nothing")

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes unless the metric jumped above the best earlier value by more than sigma allows (see `leaks.jump`)."""
        past, metric = evidence.history, evidence.metric
        if len(past) < self.earlier:
            return Verdict(
                gate=self.kind, passed=True, value=None, bar=self.sigma,
                reason=f"{len(past)} earlier values; {self.earlier} are needed to know what is plausible",
            )  # fmt: skip
        value = metric.of(evidence.y, evidence.challenger)
        rarer = min(
            (int(answer.sum()) for answer in _both(evidence.kind.questions(evidence.y))), default=len(evidence.y)
        )
        sigmas = jump(value, past, greater_is_better=metric.greater_is_better, rows=rarer)
        best = (max if metric.greater_is_better else min)(estimate.value for estimate in past)
        passed = sigmas <= self.sigma
        numbers = f"{metric.label} {value:.4f} is {sigmas:+.1f} sigmas from the best of {len(past)} earlier values, {best:.4f}; {self.sigma:g} are believed"
        advice = (
            "Look for a column that knows the answer; when the gain is real, raise the gate's sigma for one training"
        )
        return Verdict(
            gate=self.kind, passed=passed, value=sigmas, bar=self.sigma,
            reason=numbers if passed else f"too good to be true: {numbers}. {advice}",
        )  # fmt: skip


Gate = Annotated[Sound | Baselines | Champion | TrustedSet | Calibration | Plausible, Field(discriminator="kind")]
ALL: tuple[Gate, ...] = (Sound(), Baselines(), Champion(), TrustedSet(), Calibration(), Plausible())


def judge(gates: tuple[Gate, ...], evidence: Evidence) -> list[Verdict]:
    """Every gate's verdict, in order. Answers that are no probabilities are judged by `sound` alone: no metric is defined on them."""
    soundness = Sound().judge(evidence)
    if not soundness.passed and not np.isfinite(evidence.challenger).all():
        return [
            soundness,
            *(
                Verdict(gate=gate.kind, passed=False, reason="not judged: some answers are no probabilities")
                for gate in gates
                if gate.kind != "sound"
            ),
        ]
    return [gate.judge(evidence) for gate in gates]


def outcome(verdicts: Sequence[Verdict]) -> Literal["passed", "held", "refused"]:
    """What the verdicts come to. Where the trusted set contradicts the newest rows, what the newest rows say is not believed.

    >>> outcome([Verdict(gate="sound", passed=True, reason=""), Verdict(gate="trusted", passed=False, hold=True, reason="")])
    'held'
    """
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if not failed:
        return "passed"
    disputed = any(verdict.gate == "trusted" and verdict.hold for verdict in failed)
    binding = [verdict for verdict in failed if not verdict.hold and not (disputed and verdict.gate == "champion")]
    return "refused" if binding else "held"


def _both(questions: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Every question, and its opposite."""
    for answer in questions.values():
        yield answer == 1
        yield answer != 1


def _nan_first(value: float) -> float:
    """NaN counts as the worst."""
    return -np.inf if np.isnan(value) else value


def _signed(gain: Estimate) -> str:
    return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
