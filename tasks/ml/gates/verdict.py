"""Verdict: one gate's answer, and what several come to. A refusal is a value."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

DISPUTED = frozenset({"trusted"})  # gates whose hold says that the newest rows are not believed


class Verdict(BaseModel, frozen=True):
    """One gate's answer.

    Attributes:
        gate: which question.
        passed: the answer.
        reason: a sentence with the numbers, for a person.
        value: the number that was judged; None where there is none.
        bar: what it was held against.
        low, high: interval of the value, where it has one; each bound is wrong with probability `alpha`.
        hold: not passed, but a person may release the version all the same.
        before, after: what was compared, of the champion (or the baseline) and of the challenger.
        wanted: on which side of its bar the value belongs.
        power: of a comparison, the least distance of value and bar that it would have seen with a probability of 80 %.
    """

    gate: str
    passed: bool
    reason: str
    value: float | None = None
    bar: float | None = None
    low: float | None = None
    high: float | None = None
    hold: bool = False
    before: float | None = None
    after: float | None = None
    wanted: Literal["above", "below"] = "above"
    alpha: float = 0.05
    power: float | None = None


def outcome(verdicts: Sequence[Verdict]) -> Literal["passed", "held", "refused"]:
    """What the verdicts come to: refused by one gate that no person may overrule, else held by one that a person may.

    Where the trusted set contradicts the newest rows, what those say against the champion's end is not believed: held.

    >>> outcome([Verdict(gate="sound", passed=True, reason=""), Verdict(gate="trusted", passed=False, hold=True, reason="")])
    'held'
    """
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if not failed:
        return "passed"
    disputed = any(verdict.gate in DISPUTED and verdict.hold for verdict in failed)
    binding = [verdict for verdict in failed if not verdict.hold and not (disputed and verdict.gate == "champion")]
    return "refused" if binding else "held"
