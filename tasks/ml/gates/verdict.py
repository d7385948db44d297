"""Verdict: one gate's answer, and what several come to. A refusal is a value."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel


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
