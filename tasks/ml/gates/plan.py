"""The gate that keeps what happens by itself within what a person has signed."""

from typing import Literal

from pydantic import BaseModel

from tasks.ml.gates.evidence import Evidence
from tasks.ml.gates.verdict import Verdict


class WithinPlan(BaseModel, frozen=True, extra="forbid"):
    """Is the change one that `change_plan.yaml` allows without a person? Outside of the plan a person decides, and goes on record.

    A plan that is not signed, was changed since, or is signed by a key that nobody here trusts allows nothing.
    """

    kind: Literal["plan"] = "plan"

    def judge(self, evidence: Evidence) -> Verdict:
        """Passes where there is no plan, and inside of a signed one; the value is the number of limits that are left."""
        envelope = evidence.envelope
        if envelope.objection:
            return Verdict(
                gate=self.kind, passed=False, hold=True, reason=f"the change plan does not count: {envelope.objection}"
            )
        if envelope.plan is None:
            return Verdict(
                gate=self.kind, passed=True, reason="no change plan limits what this project changes by itself"
            )
        if envelope.change is None:
            return Verdict(
                gate=self.kind, passed=False, hold=True, reason="nobody looked what the challenger changes; train again"
            )
        left = envelope.plan.departures(envelope.change)
        return Verdict(
            gate=self.kind, passed=not left, hold=bool(left), value=len(left), bar=0, wanted="below",
            reason=f"outside of the change plan: {'; '.join(left)}. A person decides" if left else f"inside of the change plan; {envelope.signed}",
        )  # fmt: skip
