"""Rollout: how a challenger comes to answer, what both models said of the same rows, and what follows from it.

Shadow: it scores what the champion answers, and nobody hears of it. Canary: it answers a share. Probation: it is champion, and the one
before goes on scoring. Through all of them the same three tests compare the two, request by request.

A request is one difference: the mean of its rows, once, whichever model answered which of them. `alpha` is the chance that a model which is not worse is brought back, as long as
what comes next does not depend on what it is. For failures, times and estimates that is so: all of them are known in the order of the log.
What a request lost is known when it is told what came true of it, and then:

- Where the project says after how many days outcomes are final (`split.matures`), a request is judged at that age and no sooner, in the
  order of the requests. `alpha` holds if all that is ever told of a request is told by then, in whatever order: frauds may be found long
  before all else is known to be none. What is told later is judged when it comes, and when it comes must then not depend on what it is.
- Where it does not say so, a request is judged at the first look that knows an outcome of it. `alpha` holds if when an outcome is told does
  not depend on what it is; in which order those of one look were told decides nothing.
- Whoever begins to watch anew (a restart, `keepfit recover`) judges in one look what was judged in several. Where outcomes are final and told
  in time the order is the same; else it is another one, so one more test of the same outcomes, for which `alpha` holds once more. What a
  test had reached stays reached.
- What is never told is left out. If that depends on what it is, the test is about the rows that were told of and about no others; no
  order can mend that.
"""

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from tasks.ml.kinds import Kind
from tasks.ml.sequential import Evidence, Wager, slower

Phase = Literal["shadow", "canary", "probation", "passed", "undone", "overtaken"]
TESTS = ("loss", "errors", "slow")
MOST = 100_000  # rows that are scored in a shadow, and that wait for their outcome in a phase; unless the plan asks for more
EVER = dt.datetime.min.replace(tzinfo=dt.UTC)
LEARN = 100  # requests that tell what is usually slow
LAG = dt.timedelta(minutes=10)  # so long after a request it may be logged what both models said of it
WORDS = {"loss": "loses more", "errors": "fails more often", "slow": "is slow more often", "estimate": "is expected to lose more"}  # fmt: skip


class Shadow(BaseModel, frozen=True, extra="forbid"):
    """Before it answers anybody, a challenger scores what the champion answers; both 0: it does not."""

    rows: int = Field(default=0, ge=0, description="rows that both must have scored")
    seconds: float = Field(
        default=0, ge=0, description="seconds that must have passed; after 100,000 rows, or `rows`, it scores no more"
    )

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
        default=7 * 86_400,
        ge=0,
        description="seconds that the old champion scores and outcomes are waited for, then `split.matures` days more; it is over sooner "
        "when all those rows have one",
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
        default=0.05,
        gt=0,
        lt=1,
        description="chance that a model which is not worse is brought back, by all tests and looks together, if all "
        "outcomes are told within `split.matures` days, or when one is told does not depend on what it is",
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
class UnheardError(ValueError):
    """What was answered is nothing that a model of this project could answer, as it is now."""


class Both(NamedTuple):
    """A request that both models answered.

    Attributes:
        at: when it was made.
        ids: of its rows.
        old, new: what was said of them, as `Kind.heard` gives it.
    """

    at: dt.datetime
    ids: Sequence[str]
    old: np.ndarray
    new: np.ndarray


@dataclass(frozen=True)
class Compared:
    """What the old and the new model did with the same requests, in the order in which they were scored.

    Attributes:
        failures: of each request 1 where only the new one failed, -1 where only the old one did, else 0.
        old_ms, new_ms: of each request that both were timed at, in one place; where two models answered its rows, at those that were timed.
        both: the requests that both answered.
        answered: rows that the new one answered.
        reach: the width of the interval that the old one states with its numbers; None where it states none.
    """

    failures: list[int] = field(default_factory=list)
    old_ms: list[float] = field(default_factory=list)
    new_ms: list[float] = field(default_factory=list)
    both: list[Both] = field(default_factory=list)
    answered: int = 0
    reach: float | None = None

    @classmethod
    def of(cls, kind: Kind, requests: Iterable[Sequence[Mapping[str, Any]]], old: int, new: int) -> "Compared":
        """What a shadow log holds of two versions; other versions' records are passed over.

        Args:
            kind: of the models.
            requests: each its records, one for each model that answered rows of it: `at`; `answered` and `beside`, the versions; `ids`, of
                those rows; `said` and `thought`, their answers or None where they failed; `ms`, a pair, or None where nobody took the time.
            old: a version.
            new: a version.

        Raises:
            UnheardError: an answer says nothing to this kind.
        """
        found, answered, pairs = cls(), 0, []
        for request in requests:
            records = [record for record in request if {record["answered"], record["beside"]} == {old, new}]
            if not records:
                continue
            turns = [1 if record["answered"] == old else -1 for record in records]
            heard = [(each["said"], each["thought"])[::turn] for each, turn in zip(records, turns, strict=True)]
            before, after = zip(*heard, strict=True)
            found.failures.append((None in after) - (None in before))
            timed = [each["ms"][::turn] for each, turn in zip(records, turns, strict=True) if each["ms"]]
            if timed:
                found.old_ms.append(sum(ms for ms, _ in timed))
                found.new_ms.append(sum(ms for _, ms in timed))
            told = [(each["ids"], *pair) for each, pair in zip(records, heard, strict=True) if None not in pair]
            if told:
                ids, olds, news = (list(chain.from_iterable(parts)) for parts in zip(*told, strict=True))
                pairs.append((records[0]["at"], ids, olds, news))
            answered += sum(len(record["ids"]) for record in records if record["answered"] == new)
        reach = _width([answer for _, _, said, _ in pairs for answer in said])
        return cls(found.failures, found.old_ms, found.new_ms, _heard(kind, pairs), answered, reach)

    @property
    def ids(self) -> list[str]:
        """Of the rows that both answered."""
        return [name for request in self.both for name in request.ids]

    @property
    def owners(self) -> np.ndarray:
        """The place of each row's request: (n,)."""
        return np.repeat(np.arange(len(self.both)), np.array([len(request.ids) for request in self.both], dtype=int))

    def losses(self, kind: Kind, first: Mapping[str, Any]) -> np.ndarray:
        """How much more the new one lost at each row: (n,) from -1 to 1, NaN where its outcome is not known, or no truth for this kind.

        A number's loss is its error as a share of the width of the interval that the old one stated, clipped at 1.

        Args:
            kind: of the models.
            first: what came true, by the id of the row.
        """
        meant = zip(first, kind.meant([*first.values()]), strict=True)
        first = {name: value for name, value in meant if value is not None}
        names = self.ids
        lost, at = np.full(len(names), np.nan), [place for place, name in enumerate(names) if name in first]
        target = getattr(kind, "target", None)
        if not at or target is None:
            return lost
        truth = kind.truth(pd.DataFrame({target: pd.Series([first[names[place]] for place in at])}))
        reach = self.reach or 1.0
        heard = (
            np.concatenate(answers)[at] for answers in zip(*((each.old, each.new) for each in self.both), strict=True)
        )
        old, new = (kind.loss(truth, answers, reach) for answers in heard)
        if old is not None and new is not None:
            lost[at] = new - old
        return lost

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean of each request's rows, of those that are a number; a request without one is left out."""
        owners, known = self.owners, np.isfinite(values)
        counts, sums = np.bincount(owners[known]), np.bincount(owners[known], values[known])
        return sums[counts > 0] / counts[counts > 0]

    def estimates(self, kind: Kind) -> np.ndarray:
        """How much more the new one is expected to lose at each request if the old one says the true chances: (n,), empty without chances."""
        found = [kind.foreseen(each.old, each.new) for each in self.both[:1]]
        if not found or found[0] is None:
            return np.zeros(0)
        old, new = (
            np.concatenate(answers) for answers in zip(*((each.old, each.new) for each in self.both), strict=True)
        )
        return self.means(np.asarray(kind.foreseen(old, new)))


def _heard(kind: Kind, pairs: Sequence[tuple[dt.datetime, list[str], list[Any], list[Any]]]) -> list[Both]:
    """Requests with the answers as metrics want them."""
    if not pairs:
        return []
    ends = np.cumsum([len(ids) for _, ids, _, _ in pairs])[:-1]
    old, new = (
        np.split(_understood(kind, [answer for pair in pairs for answer in pair[side]]), ends) for side in (2, 3)
    )
    return [Both(at, ids, before, after) for (at, ids, _, _), before, after in zip(pairs, old, new, strict=True)]


def _understood(kind: Kind, answers: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """As `Kind.heard`, of answers that may be older than the project's labels, or its kind."""
    labels = kind.described().get("classes", [])
    strange = {name for answer in answers for name in answer.get("probabilities", ())}.difference(labels)
    if strange:
        raise UnheardError(f"they name '{min(strange)}', and the labels are {labels}")
    try:
        return kind.heard(answers)
    except (KeyError, TypeError, ValueError) as error:
        raise UnheardError(f"they are none of kind {kind.name}") from error


def _width(answers: Sequence[Mapping[str, Any]]) -> float | None:
    """The width of the interval that a model states with its numbers; None where it states none."""
    low, high = next((answer["interval"] for answer in answers if "interval" in answer), (0.0, 0.0))
    return (high - low) or None


class Outcome(NamedTuple):
    """What came true of a row, and when that was told."""

    id: str
    value: Any
    came: dt.datetime


def _counts(one: Outcome, before: Outcome | None, final: dt.datetime) -> bool:
    """Whether an outcome counts instead of another one of the same row, which is final at a moment."""
    if before is None:
        return True
    if one.came <= final:
        return before.came > final or one.came >= before.came
    return one.came < before.came


class Weighing:
    """The tests of one rollout as they stand. It is fed with what was logged, each record once; what was weighed is not kept.

    Attributes:
        requests: that were scored.
        rows: that both models answered.
        answered: rows that the new one answered.
        judged: rows that were judged by their outcome.
        in_phase, judged_in_phase: those rows, and those judged, of requests that were made since the phase began.
    """

    def __init__(self, kind: Kind, old: int, new: int, plan: Probation, matures: float = 0.0) -> None:
        """Of two versions; outcomes are final after `matures` days, and alpha is split evenly over the tests that may bring back."""
        self.kind, self.old, self.new, self.matures = kind, old, new, dt.timedelta(days=matures)
        self.requests = self.rows = self.answered = self.judged = self.in_phase = self.judged_in_phase = 0
        self._since = EVER
        alpha = plan.alpha / (len(TESTS) + plan.on_estimates)
        tolerances = {"loss": plan.tolerance, "errors": plan.errors, "slow": plan.slow, "estimate": plan.tolerance}
        self._wagers = {name: Wager(tolerance, alpha) for name, tolerance in tolerances.items()}
        self._quick, self._most = plan.quick_ms, max(MOST, plan.rows)
        self._usual = np.zeros((2, 0))  # milliseconds of the first requests
        self._reach: float | None = None
        self._waiting: dict[int, Both] = {}
        self._requests: dict[str, int] = {}  # that wait, by the ids of their rows
        self._young = 0  # rows that wait, of requests since the phase began
        self._parts: dict[
            str, Mapping[str, Any]
        ] = {}  # of requests whose other rows another model answered, by their first id
        self._newest = EVER  # request that was logged
        self._told: dict[str, Outcome] = {}  # what came true of such rows
        self._early: list[Outcome] = []  # what was told of rows that are not known, or not yet

    @property
    def waiting(self) -> int:
        """Rows that wait for their outcome."""
        return len(self._requests)

    @property
    def tests(self) -> dict[str, Evidence]:
        """The tests by name."""
        return {name: wager.evidence for name, wager in self._wagers.items()}

    def begins(self, since: dt.datetime) -> None:
        """A phase began at that moment: requests made since are counted apart, and find room to wait whatever waits from before."""
        if since != self._since:
            self._since = since
            self.in_phase = self.judged_in_phase = 0
            self._young = sum(len(request.ids) for request in self._waiting.values() if request.at >= since)

    def resumes(self, tests: Mapping[str, Mapping[str, Any]]) -> None:
        """What the tests had reached when they were on record stays reached, though their differences come again, maybe in another order."""
        for name, test in tests.items():
            wager = self._wagers[name]
            peak, crossed = max(wager.peak, math.log(test["peak"])), wager.crossed or test["crossed"]
            self._wagers[name] = replace(wager, peak=peak, crossed=crossed)

    def see(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Takes in what both models did: records as `Compared.of` reads them. Two of one request have the same `asked`."""
        found = Compared.of(self.kind, self._whole(records), self.old, self.new)
        self._reach = self._reach or found.reach
        self.requests, self.answered = self.requests + len(found.failures), self.answered + found.answered
        self._weigh("errors", np.array(found.failures))
        self._weigh("slow", self._slow(np.array([found.old_ms, found.new_ms])))
        self._weigh("estimate", found.estimates(self.kind))
        for request in found.both:
            self.rows += len(request.ids)
            self.in_phase += len(request.ids) if request.at >= self._since else 0
            self._keep(request)
        early, self._early = self._early, []
        self.hear(early)

    def hear(self, outcomes: Sequence[Outcome]) -> None:
        """Takes in what came true, in any order.

        Of several outcomes of a row the last one counts that was told before it was final, or else the first one: a correction does not
        reach back into a test that has looked already.
        """
        for one in outcomes:
            if (request := self._requests.get(one.id)) is None:
                self._early.append(one)
            elif _counts(one, self._told.get(one.id), self._waiting[request].at + self.matures):
                self._told[one.id] = one
        newest = max((one.came for one in outcomes), default=None)
        self._early = [one for one in self._early if newest is None or one.came > newest - LAG]

    def judge(self, now: dt.datetime) -> None:
        """Weighs what was lost at the requests whose outcomes are final, and of which one is known: in the order of the requests, each once."""
        told = {self._requests[name] for name in self._told}
        due = [number for number in told if self._waiting[number].at + self.matures <= now]
        both = [
            self._waiting.pop(number) for number in sorted(due, key=lambda number: (self._waiting[number].at, number))
        ]
        requests = Compared(both=both, reach=self._reach)
        names = requests.ids
        first = {name: self._told.pop(name).value for name in names if name in self._told}
        for name in names:
            del self._requests[name]
        lost = requests.losses(self.kind, first)
        young = np.array([request.at >= self._since for request in both], dtype=bool)[requests.owners]
        self._weigh("loss", requests.means(lost))
        self._young -= int(young.sum())
        self.judged += int(np.isfinite(lost).sum())
        self.judged_in_phase += int(np.isfinite(lost[young]).sum())

    def _whole(self, records: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
        """The records of each request, when all are there.

        A part whose other part does not come in time was all that there is; what comes later than that counts no more, for its request
        may have counted.
        """
        for record in records:
            self._newest = max(self._newest, record["at"])
            while self._parts and (first := next(iter(self._parts.values())))["at"] + LAG < self._newest:
                yield [self._parts.pop(first["asked"])]
            if (asked := record.get("asked")) is None:
                yield [record]
            elif other := self._parts.pop(asked, None):
                yield [other, record]
            elif record["at"] + LAG >= self._newest:
                self._parts[asked] = record

    def _weigh(self, name: str, differences: np.ndarray) -> None:
        self._wagers[name] = self._wagers[name].after(differences)

    def _slow(self, times: np.ndarray) -> np.ndarray:
        """Which of the newest requests were slow, as `slower` says, by what was usual in the first ones."""
        times = np.concatenate([self._usual, times], axis=1)
        self._usual = times[:, :LEARN]
        return slower(*times, learn=LEARN, least=self._quick)

    def _keep(self, request: Both) -> None:
        """Lets a request wait for its outcomes, where there is room and they can come."""
        is_known, is_young = request.ids and getattr(self.kind, "target", None) is not None, request.at >= self._since
        waiting = self._young if is_young else self.waiting - self._young
        if not is_known or waiting + len(request.ids) > self._most:
            return
        self._young += len(request.ids) if is_young else 0
        self._waiting[self.rows] = request
        self._requests |= dict.fromkeys(request.ids, self.rows)


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


def step(plan: RolloutPlan, phase: Phase, seconds: float, seen: Weighing) -> Step:
    """What the evidence allows.

    Args:
        plan: as configured when the rollout began.
        phase: an open one.
        seconds: since it began.
        seen: the tests as they stand.
    """
    found = seen.tests
    deciding = (*TESTS, "estimate") if plan.probation.on_estimates else TESTS
    against = [_said(name, found[name]) for name in deciding if found[name].against]
    if against:
        return Step("undone", "; ".join(against))
    warning = _said("estimate", found["estimate"]) if found["estimate"].against else ""
    if phase == "probation":
        return _probation(plan.probation, seconds, seen, warning)
    stage, count = (plan.shadow, seen.rows) if phase == "shadow" else (plan.canary, seen.answered)
    if count < stage.rows or seconds < stage.seconds:
        scores = phase == "canary" or count < max(stage.rows, MOST)
        return Step(phase, f"{_of(count, stage.rows, 'rows')}, {_of(seconds, stage.seconds, 's')}", warning, scores)
    return Step(plan.after(phase), f"{phase} of {count} rows in {seconds:.0f} s: {_quiet(found)}", warning)


def _probation(plan: Probation, seconds: float, seen: Weighing, warning: str) -> Step:
    until = plan.seconds + seen.matures.total_seconds()
    if seconds >= until or seen.judged_in_phase >= plan.rows:
        why = f"{seen.in_phase} rows in {seconds:.0f} s, {seen.judged_in_phase} with an outcome: {_quiet(seen.tests)}"
        return Step("passed", why, warning)
    said = f"{_of(seen.judged_in_phase, plan.rows, 'rows with an outcome')}, {_of(seconds, until, 's')}"
    return Step("probation", said, warning, scores=seen.in_phase < plan.rows and seconds < plan.seconds)


def _said(name: str, found: Evidence) -> str:
    """A test that rejected, in words.

    >>> _said("errors", Evidence(40, 0.5, 70.0, 80.0, 60.0, 31))
    'it fails more often: by 0.5 on 40 requests; the e-value 80 reached 60 after 31'
    """
    return f"it {WORDS[name]}: by {found.mean:.3g} on {found.rows} requests; the e-value {found.peak:.3g} reached {found.bar:.3g} after {found.crossed}"


def _quiet(found: Mapping[str, Evidence]) -> str:
    return ", ".join(f"{name} e-value {found[name].peak:.3g} of {found[name].bar:.3g}" for name in TESTS)


def _of(count: float, wanted: float, unit: str) -> str:
    """How much of what is wanted is there.

    >>> _of(5, 20, "rows"), _of(5, 0, "s")
    ('5 of 20 rows', '5 s')
    """
    return f"{count:.0f} of {wanted:.0f} {unit}" if wanted else f"{count:.0f} {unit}"
