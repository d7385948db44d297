"""Measuring: what is known of a project's metric: what came true, period by period, what is expected of the newest window, and the curve of both."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tasks.asked import Answered, Asked
from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.computed import ComputedError
from tasks.ml.watching.alarm import Kind
from tasks.ml.watching.classes import Number, Performance
from tasks.ml.watching.curve import Curve, Expected, Mark
from tasks.ml.watching.estimate import Estimated
from tasks.ml.watching.measures import standard_error
from tasks.ml.watching.realised import MONDAY, Decay, Measured, Realised, decay, fallen, realised
from tasks.stores.journal import Release
from tasks.stores.observed import Observed

UNCHANGED = frozenset({"refused", "held"})  # states of trainings that released nothing


@dataclass(frozen=True)
class Measuring:
    """What is known of the metric.

    Attributes:
        version: the champion.
        settings: where other versions are.
        releases: every version that ever was champion, by its number.
        seen: the rows that were answered, whoever did.
        mine: those of the champion that it did not learn from, and its answers.
        newest: those of them that are in the newest window.
    """

    version: Asked
    settings: Settings
    releases: Mapping[int, Release]
    seen: Observed
    mine: Answered
    newest: Answered

    @property
    def use(self) -> Project:
        """The project."""
        return self.version.use

    # -- what is expected ---------------------------------------------------------------------------------------------
    @cached_property
    def estimated(self) -> Estimated | None:
        """What the newest window is expected to be worth, without outcomes."""
        if not len(self.newest):
            return None
        said = np.empty(len(self.newest)) if self.newest.said is None else self.newest.said
        found = self.version.remembered[0].estimator.estimates(
            self.version.measures, said, self.newest.features, fewest=self.use.watch.performance.fewest, seed=self.use.search.seed
        )  # fmt: skip
        return found.get(self.use.metric)

    @property
    def _sure(self) -> float | None:
        """The estimate; None where something speaks against it."""
        return self.estimated.value if self.estimated and not self.estimated.doubts else None

    @property
    def _expected(self) -> Decay | None:
        """Whether the estimate alone says that the metric falls, within the budget."""
        guess = self.estimated
        if guess is None or self._sure is None:
            return None
        error = float(np.hypot(guess.sampling or 0.0, guess.estimation or 0.0)) or standard_error(self.version.reference)  # fmt: skip
        return fallen(self.use.goal, [self._sure], [error], self.version.reference, floor=self.use.floor, plan=self.use.watch.performance)  # fmt: skip

    # -- what came true -----------------------------------------------------------------------------------------------
    @property
    def periods(self) -> tuple[Realised, ...]:
        """Every version in every period in which it answered, by time."""
        return self._every[0]

    @property
    def unasked(self) -> dict[int, str]:
        """Versions that are champion no more and cannot be asked, so that their periods are left out; and why."""
        return self._every[1]

    @cached_property
    def _every(self) -> tuple[tuple[Realised, ...], dict[int, str]]:
        found: list[Realised] = []
        unasked: dict[int, str] = {}
        for number in sorted(set(self.seen.version.tolist()) & set(self.releases)):
            try:
                found += self._measured(number)
            except (ArtifactError, ComputedError, KeyError, ValueError) as error:
                if number == self.version.release.version:
                    raise
                unasked[number] = " ".join(str(error).split())[:300]
        return tuple(sorted(found, key=lambda one: (one.begin, one.version))), unasked

    def _measured(self, number: int) -> list[Realised]:
        """One version in every period in which it answered."""
        version, rows = self.version, self.mine
        if number != version.release.version:
            version = Asked(self.use, self.settings, self.releases[number])
            if version.unasked:
                raise ArtifactError(version.unasked)
            rows = version.about(version.unseen(self.seen.where(self.seen.version == number)))
        operates, plan = {str(number): version.bundle.operates}, self.use.watch.performance
        return [
            period
            for stretch in self._stretches(rows)
            for period in realised(
                self.use.task, operates, version.served(stretch), now=self.seen.until, matures=self.use.split.matures, plan=plan, seed=self.use.search.seed
            )
        ]  # fmt: skip

    def _stretches(self, rows: Answered) -> list[Answered]:
        """What is measured together: all of it; where a user's rows make one question, those of each period."""
        if rows.said is not None or not len(rows):
            return [rows] if len(rows) else []
        place = (rows.at - MONDAY) // np.timedelta64(self.use.watch.performance.days, "D")
        return [rows.where(place == number) for number in np.unique(place)]

    @cached_property
    def own(self) -> list[Realised]:
        """The champion's periods."""
        return [period for period in self.periods if period.version == str(self.version.release.version)]

    @cached_property
    def last(self) -> Realised | None:
        """The newest of them in which the metric is known."""
        return next((one for one in reversed(self.own) if self.use.metric in one.metrics), None)

    @property
    def _came(self) -> Measured | None:
        return self.last.metrics[self.use.metric] if self.last else None

    @cached_property
    def decay(self) -> Decay:
        """Whether the metric has fallen."""
        return decay(self.use.goal, self.own, self.version.reference, floor=self.use.floor, plan=self.use.watch.performance)  # fmt: skip

    # -- both ---------------------------------------------------------------------------------------------------------
    @property
    def known(self) -> Performance:
        """For the alarms: numbers that say something, and which of them surely fell."""
        said: dict[Number, Decay | None] = {"realised": self.decay, "estimated": self._expected}
        return Performance(
            metric=self.use.goal.label, higher_is_better=self.use.goal.greater_is_better, expected=self.version.release.value,
            estimated=self._sure, realised=self._came.value if self._came else None, is_old=self._is_old,
            fell={name: one.bar for name, one in said.items() if one and one.fell},
        )  # fmt: skip

    @property
    def judged(self) -> tuple[Kind, ...]:
        """Of which of its alarms there was enough to judge."""
        enough: dict[Kind, bool] = {"performance": self.decay.periods > 0, "estimate": self._sure is not None}
        return tuple(kind for kind, is_enough in enough.items() if is_enough)

    @property
    def _is_old(self) -> bool:
        """Whether what came true newest is of a time before the newest window."""
        return self.last is not None and self.last.end <= self.seen.until - dt.timedelta(days=self.use.watch.drift.days)

    @property
    def told(self) -> dict[str, Any]:
        """As JSON."""
        came, guess, last = self._came, self.estimated, self.last
        return {
            "metric": self.use.metric, "at_training": self.version.release.value, "rows": came.rows if came else 0,
            "pending": sum(one.rows - one.matured for one in self.own),
            "realised": came.value if came else None, "realised_low": came.low if came else None, "realised_high": came.high if came else None,
            "until": last.end.isoformat() if last else None, "flagged": came.is_flagged if came else False,
            "estimated": guess.value if guess else None, "low": guess.low if guess else None, "high": guess.high if guess else None,
            "method": guess.method if guess else "none", "assumes": guess.assumes if guess else "", "doubts": list(guess.doubts) if guess else [],
            "why_no_estimate": guess.reason if guess else "no row came in this window", "decay": self.decay.model_dump(mode="json"), "unasked": self.unasked,
            "periods": [self._period(one) for one in self.periods],
        }  # fmt: skip

    def _period(self, one: Realised) -> dict[str, Any]:
        measured = one.metrics.get(self.use.metric)
        ends = {name: getattr(measured, name, None) for name in ("value", "low", "high")}
        return {"begin": one.begin.isoformat(), "end": one.end.isoformat(), "version": int(one.version), "rows": one.rows, "state": one.state, "says": one.says, **ends}  # fmt: skip

    # -- over time ----------------------------------------------------------------------------------------------------
    def curve(self, looks: Sequence[dict[str, Any]], trainings: Sequence[dict[str, Any]]) -> Curve:
        """Measured and expected, with alarms, releases and trainings that made none, by the clock of the rows.

        Args:
            looks: as the watch tells them, those that had a window, oldest first; the last one is this one.
            trainings: of the project, as they are on record.
        """
        week = dt.timedelta(days=looks[-1]["window"]["days"])
        newest = {look["window"]["until"]: look for look in looks}
        expected = (self._expectation(dt.datetime.fromisoformat(until) - week, week, look) for until, look in sorted(newest.items()))  # fmt: skip
        return Curve.of(self.use.goal, self.periods, [each for each in expected if each], [*self._marks(looks), *_retrained(looks[:-1], trainings)], self.use.floor)  # fmt: skip

    def _expectation(self, begin: dt.datetime, week: dt.timedelta, look: dict[str, Any]) -> Expected | None:
        """What a look expected of its window, on the period in which its middle lies."""
        said = look["performance"]
        if said.get("estimated") is None:
            return None
        middle = begin + week / 2
        period = next((one for one in self.periods if one.begin <= middle < one.end), None)
        begin, end = (period.begin, period.end) if period else (begin, begin + week)
        estimate = Estimated(measure=self.use.metric, method=said["method"], rows=1, value=said["estimated"], low=said["low"], high=said["high"])  # fmt: skip
        return Expected(begin=begin, end=end, version=str(look["version"]), estimate=estimate)

    def _marks(self, looks: Sequence[dict[str, Any]]) -> list[Mark]:
        """Releases where a version's first rows are, alarms at the end of their windows."""
        versions = set(self.seen.version.tolist()) - {0}
        firsts = {number: self.seen.at[self.seen.version == number].min() for number in versions}
        marks = [Mark(at=_moment(at), event="released", name=f"v{number}") for number, at in firsts.items()]
        loud = {look["window"]["until"] for look in looks if any(alarm["class"] == "retrain" for alarm in look["alarms"])}  # fmt: skip
        return marks + [Mark(at=dt.datetime.fromisoformat(until), event="alarm") for until in sorted(loud)]


def _retrained(looks: Sequence[dict[str, Any]], trainings: Sequence[dict[str, Any]]) -> list[Mark]:
    """Trainings that were refused or held, each at the end of the newest window that had been looked at when it began."""
    ends = [
        (dt.datetime.fromisoformat(look["at"]), dt.datetime.fromisoformat(look["window"]["until"])) for look in looks
    ]
    found = {
        (max(before), training["state"])
        for training in trainings
        if training["state"] in UNCHANGED
        and (before := [until for at, until in ends if at <= dt.datetime.fromisoformat(training["started"])])
    }
    return [Mark(at=until, event="retrained", name=state) for until, state in sorted(found)]


def _moment(at: np.datetime64) -> dt.datetime:
    return dt.datetime.fromtimestamp(at.astype("datetime64[us]").astype(int) / 1e6, dt.UTC)
