"""Rollout: how a challenger comes to answer, what both models said of the same rows, and what follows from it.

Shadow: it scores what the champion answers, and nobody hears of it. Canary: it answers a share. Probation: it is champion, and the one
before goes on scoring. Through all of them the same three tests compare the two, request by request and row by row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from tasks.ml.kinds import Kind
from tasks.ml.sequential import Evidence, slower, weighed

Phase = Literal["shadow", "canary", "probation", "passed", "undone", "overtaken"]
TESTS = ("loss", "errors", "slow")
WORDS = {"loss": "loses more", "errors": "fails more often", "slow": "is slow more often", "estimate": "is expected to lose more"}  # fmt: skip


class Shadow(BaseModel, frozen=True, extra="forbid"):
    """Before it answers anybody, a challenger scores what the champion answers; both 0: it does not."""

    rows: int = Field(default=0, ge=0, description="rows that both must have scored")
    seconds: float = Field(default=0, ge=0, description="seconds that must have passed")

    @property
    def is_wanted(self) -> bool:
        """Whether there is such a phase."""
        return self.rows > 0 or self.seconds > 0


class Canary(BaseModel, frozen=True, extra="forbid"):
    """Then it answers a share of the rows, always the same ones."""

    share: float = Field(
        default=0, ge=0, le=1, description="of the rows that the challenger answers; 0: there is no canary"
    )
    key: tuple[str, ...] = Field(
        default=(),
        description="columns whose values decide who answers a row; by default the contract's key. Where a row lacks one, the header "
        "Keepfit-Key decides, without it the whole row",
    )  # fmt: skip
    rows: int = Field(default=1000, ge=0, description="rows that the challenger must have answered")
    seconds: float = Field(default=0, ge=0, description="seconds that must have passed")

    @property
    def is_wanted(self) -> bool:
        """Whether there is such a phase."""
        return self.share > 0


class Probation(BaseModel, frozen=True, extra="forbid"):
    """After the release the old champion goes on scoring, and comes back when the new one is worse. The tests hold for shadow and canary, too."""

    rows: int = Field(
        default=100_000, ge=0, description="rows that the old champion scores at most; 0: there is no probation"
    )
    seconds: float = Field(
        default=7 * 86_400, ge=0, description="seconds that outcomes are waited for; it is over sooner when all those rows have one"
    )  # fmt: skip
    tolerance: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="mean loss by which the new model may be worse; a loss is from 0 to 1: the Brier score of classes, the absolute error "
        "of numbers as a share of the width of the interval that the old champion states, whether a taken item was named",
    )  # fmt: skip
    errors: float = Field(default=0.01, ge=0, lt=1, description="share of the requests by which it may fail more often")
    slow: float = Field(
        default=0.05, ge=0, lt=1, description="share of the requests by which it may be slow more often: beyond the old one's 95th percentile"
    )  # fmt: skip
    quick_ms: float = Field(default=20, ge=0, description="milliseconds; a request that takes no longer is never slow")
    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="chance that a model which is not worse is brought back, by all tests and looks together"
    )  # fmt: skip
    every: float = Field(default=10, gt=0, description="seconds between two looks at the evidence")
    on_estimates: bool = Field(
        default=False,
        description="the expected loss, if the old model's probabilities are true, brings back as well; else it is an early warning only",
    )

    @property
    def is_wanted(self) -> bool:
        """Whether there is such a phase."""
        return self.rows > 0 and self.seconds > 0


class RolloutPlan(BaseModel, frozen=True, extra="forbid"):
    """How a released version comes to answer, and how long it can be brought back by evidence."""

    shadow: Shadow = Shadow()
    canary: Canary = Canary()
    probation: Probation = Probation()

    @property
    def begins(self) -> Phase | None:
        """The first phase before the release, or None where it is released at once."""
        if self.shadow.is_wanted:
            return "shadow"
        return "canary" if self.canary.is_wanted else None

    def after(self, phase: Phase) -> Phase:
        """The phase that follows when all is well; a probation follows a release.

        >>> RolloutPlan(canary=Canary(share=0.1)).after("shadow"), RolloutPlan().after("shadow"), RolloutPlan().after("probation")
        ('canary', 'probation', 'passed')
        """
        if phase == "shadow" and self.canary.is_wanted:
            return "canary"
        return "probation" if phase != "probation" and self.probation.is_wanted else "passed"


# -- what both said ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Compared:
    """What the old and the new model did with the same requests, in the order in which they were scored.

    Attributes:
        failures: of each request 1 where only the new one failed, -1 where only the old one did, else 0.
        old_ms, new_ms: of each request that both were timed at, in one place.
        ids: of the rows that both answered.
        old, new: their answers.
        answered: rows that the new one answered.
    """

    failures: list[int] = field(default_factory=list)
    old_ms: list[float] = field(default_factory=list)
    new_ms: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    old: list[Mapping[str, Any]] = field(default_factory=list)
    new: list[Mapping[str, Any]] = field(default_factory=list)
    answered: int = 0

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]], old: int, new: int) -> "Compared":
        """What a shadow log holds of two versions; other versions' records are passed over.

        Args:
            records: each a request: `answered` and `beside`, the versions; `ids`, of its rows; `said` and `thought`, their answers or None
                where they failed; `ms`, a pair, or None where nobody took the time.
            old: a version.
            new: a version.
        """
        found, answered = cls(), 0
        for record in records:
            pair = (record["answered"], record["beside"])
            if set(pair) != {old, new}:
                continue
            turn = 1 if pair[0] == old else -1
            said, thought = (record["said"], record["thought"])[::turn]
            found.failures.append((thought is None) - (said is None))
            if record["ms"]:
                before, after = record["ms"][::turn]
                found.old_ms.append(before)
                found.new_ms.append(after)
            if said is not None and thought is not None:
                found.ids.extend(record["ids"])
                found.old.extend(said)
                found.new.extend(thought)
            answered += len(record["ids"]) if pair[0] == new else 0
        return cls(found.failures, found.old_ms, found.new_ms, found.ids, found.old, found.new, answered)

    def losses(self, kind: Kind, outcomes: Sequence[tuple[str, Any]]) -> np.ndarray:
        """How much more the new one lost at each outcome, in the order in which they became known: (n,) from -1 to 1.

        Of several outcomes of a row the first counts: a correction does not reach back into a test that has looked already. A number's
        loss is its error as a share of the width of the interval that the old one stated, clipped at 1.
        """
        outcomes = [(name, value) for (name, _), value in zip(outcomes, kind.meant([told for _, told in outcomes]), strict=True) if value is not None]  # fmt: skip
        places = {name: place for place, name in enumerate(self.ids)}
        first = {name: value for name, value in reversed(outcomes) if name in places}
        known = [name for name in dict.fromkeys(name for name, _ in outcomes) if name in first]
        target = getattr(kind, "target", None)
        if not known or target is None:
            return np.zeros(0)
        truth = kind.truth(pd.DataFrame({target: pd.Series([first[name] for name in known])}))
        at = [places[name] for name in known]
        reach = _width(self.old)
        old, new = (
            kind.loss(truth, kind.heard([answers[place] for place in at]), reach) for answers in (self.old, self.new)
        )
        if old is None or new is None:
            return np.zeros(0)
        found = new - old
        return found[np.isfinite(found)]

    def estimates(self, kind: Kind) -> np.ndarray:
        """How much more the new one is expected to lose at each row if the old one says the true chances: (n,), empty without chances."""
        found = kind.foreseen(kind.heard(self.old), kind.heard(self.new)) if self.ids else None
        return np.zeros(0) if found is None else found

    def tests(self, kind: Kind, outcomes: Sequence[tuple[str, Any]], plan: Probation) -> dict[str, Evidence]:
        """The tests by name; alpha is split evenly over those that may bring back."""
        alpha = plan.alpha / (len(TESTS) + plan.on_estimates)
        old, new = np.array(self.old_ms), np.array(self.new_ms)
        return {
            "loss": weighed(self.losses(kind, outcomes), plan.tolerance, alpha),
            "errors": weighed(np.array(self.failures), plan.errors, alpha),
            "slow": weighed(slower(old, new, least=plan.quick_ms), plan.slow, alpha),
            "estimate": weighed(self.estimates(kind), plan.tolerance, alpha),
        }


def _width(answers: Sequence[Mapping[str, Any]]) -> float:
    """The width of the interval that a model states with its numbers; 1 where it states none."""
    low, high = next((answer["interval"] for answer in answers if "interval" in answer), (0.0, 1.0))
    return (high - low) or 1.0


# -- what follows -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Step:
    """What comes next: the phase, which is the same one while there is nothing to do, and why, as a sentence.

    Attributes:
        warning: what the estimate says against the new model where it does not decide, or nothing.
        scores: whether the model that does not answer goes on scoring.
    """

    phase: Phase
    why: str
    warning: str = ""
    scores: bool = True


def step(plan: RolloutPlan, phase: Phase, seconds: float, compared: Compared, found: Mapping[str, Evidence]) -> Step:
    """What the evidence allows.

    Args:
        plan: as configured when the rollout began.
        phase: an open one.
        seconds: since it began.
        compared: what both said.
        found: the tests, by name.
    """
    deciding = (*TESTS, "estimate") if plan.probation.on_estimates else TESTS
    against = [_said(name, found[name]) for name in deciding if found[name].against]
    if against:
        return Step("undone", "; ".join(against))
    warning = _said("estimate", found["estimate"]) if found["estimate"].against else ""
    if phase == "probation":
        return _probation(plan.probation, seconds, compared, found, warning)
    stage, count = (plan.shadow, len(compared.ids)) if phase == "shadow" else (plan.canary, compared.answered)
    if count < stage.rows or seconds < stage.seconds:
        return Step(phase, f"{_of(count, stage.rows, 'rows')}, {_of(seconds, stage.seconds, 's')}", warning)
    return Step(plan.after(phase), f"{phase} of {count} rows in {seconds:.0f} s: {_quiet(found)}", warning)


def _probation(
    plan: Probation, seconds: float, compared: Compared, found: Mapping[str, Evidence], warning: str
) -> Step:
    scored, judged = len(compared.ids), found["loss"].rows
    if seconds >= plan.seconds or judged >= plan.rows:
        return Step("passed", f"{scored} rows in {seconds:.0f} s, {judged} with an outcome: {_quiet(found)}", warning)
    said = f"{_of(judged, plan.rows, 'rows with an outcome')}, {_of(seconds, plan.seconds, 's')}"
    return Step("probation", said, warning, scores=scored < plan.rows)


def _said(name: str, found: Evidence) -> str:
    """A test that rejected, in words.

    >>> _said("errors", Evidence(40, 0.5, 70.0, 80.0, 60.0, 31))
    'it fails more often: by 0.5 on 40 requests; the e-value 80 reached 60 after 31'
    """
    what = "requests" if name in {"errors", "slow"} else "rows"
    return f"it {WORDS[name]}: by {found.mean:.3g} on {found.rows} {what}; the e-value {found.peak:.3g} reached {found.bar:.3g} after {found.crossed}"


def _quiet(found: Mapping[str, Evidence]) -> str:
    return ", ".join(f"{name} e-value {found[name].peak:.3g} of {found[name].bar:.3g}" for name in TESTS)


def _of(count: float, wanted: float, unit: str) -> str:
    """How much of what is wanted is there.

    >>> _of(5, 20, "rows"), _of(5, 0, "s")
    ('5 of 20 rows', '5 s')
    """
    return f"{count:.0f} of {wanted:.0f} {unit}" if wanted else f"{count:.0f} {unit}"
