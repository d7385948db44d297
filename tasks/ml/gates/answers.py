"""Gates that look at the challenger's answers alone: are they sound, do they mean what they say, are they too good to be true?"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from tasks.ml.gates.evidence import Evidence
from tasks.ml.gates.verdict import Verdict
from tasks.ml.leaks import jump


class Sound(BaseModel, frozen=True, extra="forbid"):
    """Are the answers of the right sort at all: finite, probabilities between 0 and 1, not all the same?"""

    kind: Literal["sound"] = "sound"

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when the problem's kind has nothing against the answers as such."""
        wrong = evidence.kind.unsound(evidence.challenger)
        fine = f"all {len(evidence.challenger)} answers are {'probabilities' if evidence.kind.has_chances else 'numbers'}, and they differ"
        return Verdict(gate=self.kind, passed=not wrong, value=float(bool(wrong)), bar=0, reason=wrong or fine)


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


def _both(questions: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Every question, and its opposite."""
    for answer in questions.values():
        yield answer == 1
        yield answer != 1
