"""Gates that look at the real serving process with the candidate in it: can it carry the model, and does it say what was judged?"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from tasks.ml.gates.evidence import Evidence
from tasks.ml.gates.facts import Rehearsed
from tasks.ml.gates.verdict import Verdict

UNSERVED = "nothing was asked of a serving process, so nobody knows how the model behaves there; train again"


class Serving(BaseModel, frozen=True, extra="forbid"):
    """Can the serving process carry the model: is it quick enough, small enough, and does it answer at all?"""

    kind: Literal["serving"] = "serving"
    p50: float = Field(default=200, gt=0, description="longest median of a request for one row, in milliseconds")
    p95: float = Field(default=500, gt=0, description="longest that 95 of 100 such requests may take, in milliseconds")
    size: float = Field(default=256, gt=0, description="largest bundle, in MiB")
    memory: float = Field(default=1024, gt=0, description="largest growth of the process by loading it, in MiB")
    seconds: float = Field(
        default=120, gt=0, description="longest that starting, loading and answering every row may take together"
    )

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when everything was answered and no number is above its bar. The value is the p95, or the first that is too large."""
        served = evidence.rehearsal
        if served is None or served.failed:
            return Verdict(gate=self.kind, passed=False, reason=served.failed if served else UNSERVED)
        found = (
            ("p95", served.p95, self.p95, "ms"), ("p50", served.p50, self.p50, "ms"),
            ("bundle", served.size, self.size, "MiB"), ("memory", served.memory, self.memory, "MiB"),
        )  # fmt: skip
        over = [
            f"{name} {value:.4g} {unit}, allowed are {bar:g}" for name, value, bar, unit in found if not value <= bar
        ]
        _, value, bar, _ = next((each for each in found if not each[1] <= each[2]), found[0])
        return Verdict(
            gate=self.kind, passed=not over, value=value, bar=bar, wanted="below",
            reason=f"too much for the serving process: {'; '.join(over)}. {_told(served)}" if over else _told(served),
        )  # fmt: skip


class Parity(BaseModel, frozen=True, extra="forbid"):
    """Does the serving process say of every judged row what was judged? Order and types of columns cannot get lost between."""

    kind: Literal["parity"] = "parity"
    tolerance: float = Field(
        default=1e-6, ge=0, description="largest distance of an answer, as a share of it where it is above 1"
    )

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes when every number is within the tolerance, and every label and every list is the same."""
        served, judged, heard = evidence.rehearsal, evidence.challenger, evidence.heard
        if served is None or heard is None:
            return Verdict(
                gate=self.kind, passed=False, reason=f"nothing to compare: {served.failed if served else UNSERVED}"
            )
        if heard.shape != judged.shape:
            return Verdict(
                gate=self.kind, passed=False,
                reason=f"{len(heard)} answers of shape {heard.shape} stand against {len(judged)} of shape {judged.shape}",
            )  # fmt: skip
        apart = np.abs(heard - judged) / np.maximum(np.abs(judged), 1)
        apart = apart.max(axis=1) if apart.ndim == 2 else apart
        differs = ~(apart <= self.tolerance) | self._decided_otherwise(evidence)
        largest = float(apart.max(initial=0.0))
        return Verdict(
            gate=self.kind, passed=not differs.any(), value=largest if np.isfinite(largest) else None, bar=self.tolerance, wanted="below",
            reason=_said(differs, largest, judged, heard),
        )  # fmt: skip

    def _decided_otherwise(self, evidence: Evidence) -> np.ndarray:
        """Where the label that went out is not the one that follows from the judged answer: (n,) bool."""
        wanted = evidence.kind.decided(evidence.challenger, dict(evidence.operates))
        if wanted is None:
            return np.zeros(len(evidence.challenger), dtype=bool)
        return np.ones(len(wanted), dtype=bool) if evidence.decided is None else evidence.decided != wanted


def _told(served: Rehearsed) -> str:
    return (
        f"a row is answered in {served.p50:.1f} ms, 95 of 100 in {served.p95:.1f} ms ({served.requests} requests); "
        f"the bundle has {served.size:.2f} MiB and takes {served.memory:.1f} MiB of memory"
    )


def _said(differs: np.ndarray, largest: float, judged: np.ndarray, heard: np.ndarray) -> str:
    if not differs.any():
        return f"all {len(differs)} rows are answered by the serving process as they were judged; the largest difference is {largest:.2g}"
    first = int(differs.argmax())
    return (
        f"{int(differs.sum())} of {len(differs)} rows are answered by the serving process otherwise than they were judged: row {first} "
        f"is {_short(heard[first])}, judged was {_short(judged[first])}. Look at the order and the types of the columns"
    )


def _short(answer: np.ndarray) -> str:
    return np.array2string(np.asarray(answer), precision=7, threshold=6)
