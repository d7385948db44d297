"""Gates that look at the challenger's answers alone: are they sound, good enough, as promised, too good to be true, as must be?"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from tasks.ml.gates.evidence import Evidence
from tasks.ml.gates.verdict import Verdict
from tasks.ml.leaks import jump
from tasks.ml.metrics import METRICS, Metric, Name
from tasks.ml.uncertain import Uncertain, measured


class Sound(BaseModel, frozen=True, extra="forbid"):
    """Are the answers of the right sort at all: numbers, finite, probabilities between 0 and 1, not all the same?"""

    kind: Literal["sound"] = "sound"

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when they have the right form and the problem's kind has nothing against them as such."""
        wrong = malformed(evidence) or evidence.kind.unsound(evidence.challenger)
        fine = f"all {len(evidence.challenger)} answers are {'probabilities' if evidence.kind.has_chances else 'numbers'}, and they differ"
        return Verdict(
            gate=self.kind, passed=not wrong, value=float(bool(wrong)), bar=0, wanted="below", reason=wrong or fine
        )


def malformed(evidence: Evidence) -> str:
    """What is wrong with the form of the answers, or nothing; the naive ones have the right form."""
    answers = evidence.challenger
    if answers.dtype.kind not in "fiu":
        return f"the answers are of type {answers.dtype}; wanted numbers"
    wanted = {naive.shape for naive in evidence.baselines.values()} or {answers.shape}
    return "" if answers.shape in wanted else f"the answers have the form {answers.shape}; wanted {wanted.pop()}"


class Floors(BaseModel, frozen=True, extra="forbid"):
    """Is every metric on the right side of its floor?"""

    kind: Literal["floors"] = "floors"
    floors: dict[Name, float] = Field(
        default={},
        description="the worst value of each metric that is of any use; left out: the project's `floor` of its metric",
    )

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when no metric is surely on the wrong side of its floor.

        Where the champion is on the wrong side of all the same floors, a refusal would keep what is of no use either: a person decides.
        """
        own = {evidence.metric.name: evidence.floor} if evidence.floor is not None else {}
        floors = {METRICS[name]: floor for name, floor in (self.floors or own).items()}
        if not floors:
            return Verdict(gate=self.kind, passed=True, reason="the project has no floor")
        found = {metric: self._of(evidence, metric) for metric in floors}
        under = [metric for metric in floors if not _above(metric, found[metric], floors[metric]) >= 0]
        metric = min(floors, key=lambda one: _above(one, found[one], floors[one]))
        bounds, wanted = found[metric].bounds(), "above" if metric.greater_is_better else "below"
        wrong = "below" if metric.greater_is_better else "above"
        others = f"; {len(under)} of {len(floors)} metrics are" if len(under) > 1 else ""
        return Verdict(
            gate=self.kind, passed=not under, hold=bool(under) and self._is_as_bad(evidence, {one: floors[one] for one in under}),
            value=bounds.value, low=bounds.low, high=bounds.high, bar=floors[metric], wanted=wanted,
            reason=f"{metric.label} is {bounds}, {'' if under else 'not '}surely {wrong} its floor {floors[metric]:g}{others}",
        )  # fmt: skip

    def _of(self, evidence: Evidence, metric: Metric) -> Uncertain:
        return measured(metric, evidence.y, evidence.challenger, resamples=evidence.resamples, seed=evidence.seed)

    def _is_as_bad(self, evidence: Evidence, floors: dict[Metric, float]) -> bool:
        """Whether the champion is on the wrong side of these floors, on rows that it has not learned from."""
        rows = evidence.unseen_by_champion
        if evidence.champion is None or not rows.any():
            return False
        y, said = evidence.y[rows], evidence.champion[rows]
        return all(metric.gain(metric.of(y, said), floor) < 0 for metric, floor in floors.items())


def _above(metric: Metric, found: Uncertain, floor: float) -> float:
    """How far the better bound lies on the right side of the floor, in standard errors; NaN counts as the worst."""
    bounds = found.bounds()
    distance = float(metric.gain(bounds.high if metric.greater_is_better else bounds.low, floor))
    return -np.inf if np.isnan(distance) else distance / max(found.error, 1e-12)


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """Do the answers mean what they say? How far they may surely be off, beyond what a holdout of this size shows by chance."""

    kind: Literal["calibration"] = "calibration"
    error: float = Field(
        default=0.05, gt=0, lt=1, description="largest expected calibration error, in probability or share of rows"
    )
    bias: float = Field(
        default=0.05, gt=0, lt=1, description="largest distance of mean prediction and what came true on the whole"
    )
    loss: float = Field(
        default=0.2, gt=0, description="by how many nats the log loss may be above what the probabilities promise"
    )

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when nothing is surely off by more than its bar."""
        every = evidence.kind.calibration(evidence.y, evidence.challenger, evidence.operates, evidence.seed)
        if not every:
            return Verdict(
                gate=self.kind, passed=True, reason="nothing is said that could be held against what came true"
            )
        worst = max(every, key=lambda off: off.least / getattr(self, off.what))
        bar, least = getattr(self, worst.what), worst.least
        told = "; ".join(f"{off.reason} (bar {getattr(self, off.what):g})" for off in every)
        return Verdict(
            gate=self.kind, passed=least <= bar, value=worst.value, low=least, high=2 * worst.value - least, bar=bar, wanted="below",
            reason=f"{worst.what} is {'' if least > bar else 'not '}surely above its bar: {told}",
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
                gate=self.kind, passed=True, value=None, bar=self.sigma, wanted="below",
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
            gate=self.kind, passed=passed, value=sigmas, bar=self.sigma, wanted="below",
            reason=numbers if passed else f"too good to be true: {numbers}. {advice}",
        )  # fmt: skip


class Behaviour(BaseModel, frozen=True, extra="forbid"):
    """Does it do what `behaviour` in hooks.py says that every model must? See `tasks.ml.behaviour`."""

    kind: Literal["behaviour"] = "behaviour"

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when no test has more broken rows than it allows."""
        tests = evidence.behaved
        if not tests:
            return Verdict(gate=self.kind, passed=True, reason="hooks.py states no behaviour")
        worst = max(tests, key=lambda test: test.share - test.most)
        kept = sum(test.passed for test in tests)
        told = f"{worst.broken} of {worst.rows} rows break '{worst.test}', {worst.most:.0%} may; at the worst by {max(worst.worst, 0):.3g}"
        return Verdict(
            gate=self.kind, passed=kept == len(tests), value=worst.share, bar=worst.most, wanted="below",
            reason=f"{kept} of {len(tests)} tests passed. {told}",
        )  # fmt: skip


def _both(questions: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Every question, and its opposite."""
    for answer in questions.values():
        yield answer == 1
        yield answer != 1
