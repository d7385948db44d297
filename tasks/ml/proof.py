"""Proof: whether the gates of a project stop what they must stop and let pass what is good; and how much of the project is asked."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from tasks.ml.gates import Verdict
from tasks.ml.policy import OnSchedule

NIGHTLY = OnSchedule(cron="30 1 * * *")


class Proving(BaseModel, frozen=True, extra="forbid"):
    """When bad challengers are put through the gates, and on how many rows."""

    schedule: OnSchedule | None = Field(
        default=NIGHTLY,
        description="when, besides before a release under a configuration that is not proven; null: only then",
    )
    rows: int = Field(
        default=40_000,
        ge=500,
        description="at most so many rows are learned from and judged by, the newest",
    )


class Put(BaseModel, frozen=True):
    """One bad challenger that was put through the gates.

    Attributes:
        name: which.
        expected: the gate that was to stop it, named in advance.
        killed_by: the configured gates that did; none: it got through.
        why: what is bad about it.
        reason: a sentence with the numbers, for a person.
    """

    name: str
    expected: str
    killed_by: tuple[str, ...]
    why: str
    reason: str

    @property
    def ok(self) -> bool:
        """Whether the gate that was named in advance stopped it."""
        return self.expected in self.killed_by

    @classmethod
    def judged(cls, name: str, expected: str, why: str, verdicts: Sequence[Verdict], gates: Sequence[str]) -> "Put":
        """From the verdicts on it, as far as the gates are among those that count.

        >>> said = [Verdict(gate="sound", passed=False, reason="all are the same")]
        >>> Put.judged("constant", "sound", "", said, ["sound"]).ok
        True
        >>> Put.judged("constant", "sound", "", said, ["champion"]).reason
        "it got through: no gate stopped it, and 'sound' was to"
        """
        failed = {verdict.gate: verdict.reason for verdict in verdicts if not verdict.passed and verdict.gate in gates}
        others = ", ".join(failed)
        missed = (
            f"'{expected}' was to stop it, and did not; {others} did"
            if failed
            else f"it got through: no gate stopped it, and '{expected}' was to"
        )
        return cls(name=name, expected=expected, killed_by=tuple(failed), why=why, reason=failed.get(expected, missed))


class Proof(BaseModel, frozen=True):
    """What came of all of them.

    Attributes:
        digest: of the configuration that was proven.
        without: gates that were left out to see what happens.
        unasked: gates of the project's kind that are not asked.
        good: what the good model is, and what the gates said of it.
        refused: why nothing could be proven; empty when it could.
        snapshot: whose rows; rows: how many.
    """

    project: str
    digest: str
    without: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    challengers: tuple[Put, ...] = ()
    good_passes: bool = False
    good: str = ""
    refused: str = ""
    snapshot: str = ""
    rows: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Every gate of the kind is asked, every bad one was stopped by the gate that was named in advance, and the good one passed."""
        return not (self.refused or self.unasked) and self.good_passes and all(put.ok for put in self.challengers)

    @property
    def reason(self) -> str:
        """The whole in a sentence; what is wrong comes first."""
        if self.refused:
            return self.refused
        wrong = [f"{put.name}: {put.reason}" for put in self.challengers if not put.ok]
        if not self.good_passes:
            wrong.insert(0, f"the good model does not pass: {self.good}")
        named = {put.expected for put in self.challengers}
        wrong += [f"gate '{gate}' of the project's kind is not asked" for gate in self.unasked if gate not in named]
        fine = f"{len(self.challengers)} bad challengers were stopped, each by the gate that was named in advance; the good model passes"
        return "; ".join(wrong) or fine

    @property
    def told(self) -> dict[str, object]:
        """All of it as one object, as commands and runs give it."""
        each = [put.model_dump(mode="json") | {"ok": put.ok} for put in self.challengers]
        return self.model_dump(mode="json") | {"challengers": each, "ok": self.ok, "reason": self.reason}
