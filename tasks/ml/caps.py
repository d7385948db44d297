"""Caps: how much training a month may cost, and the breaker that ends a circle of alarms and trainings."""

import datetime as dt
from collections.abc import Sequence

from pydantic import BaseModel, Field

from tasks.ml.policy import ALARMED


class Past(BaseModel, frozen=True):
    """One training that was admitted.

    Attributes:
        by: what started it; see `policy.By`.
        released: its version became champion.
        cpu: CPU-seconds that it took, or its seconds where those are not known, at most `Budget.hours` of them.
    """

    by: str
    started: dt.datetime
    ended: dt.datetime
    released: bool = False
    cpu: float = 0.0


class Cap(BaseModel, frozen=True):
    """Why no training may start, and when one may again."""

    kind: str
    reason: str
    opens: dt.datetime


class Budget(BaseModel, frozen=True, extra="forbid"):
    """What trainings may cost within 30 days, however they were started, and how long one may take."""

    runs: int = Field(default=60, ge=1, description="trainings within 30 days")
    cpu_hours: float = Field(default=20, gt=0, description="hours of CPU that they may take within 30 days")
    hours: float = Field(default=4, gt=0, description="a training that takes longer hangs, and is ended")

    def spent(self, past: Sequence[Past], now: dt.datetime) -> Cap | None:
        """What is used up, if anything is, and when enough of it will be 30 days old.

        Args:
            past: every training, oldest first.
            now: the moment of the question.

        >>> start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        >>> once = Past(by="batch", started=start, ended=start)
        >>> Budget(runs=1).spent([once], start + dt.timedelta(days=1)).opens.isoformat()
        '2026-01-31T00:00:00+00:00'
        """
        month = dt.timedelta(days=30)
        recent = [each for each in past if each.started > now - month]
        used = 0.0
        for place, each in enumerate(reversed(recent), start=1):
            used += each.cpu / 3600
            if place >= self.runs or used >= self.cpu_hours:
                runs = place >= self.runs
                what = (
                    f"{len(recent)} of {self.runs} trainings"
                    if runs
                    else f"{used:.1f} of {self.cpu_hours:g} hours of CPU"
                )
                opens = each.started + month
                said = f"the budget of 30 days is used up: {what}; it opens again at {_minute(opens)}"
                return Cap(kind="budget", reason=said, opens=opens)
        return None


class Breaker(BaseModel, frozen=True, extra="forbid"):
    """Stops alarms and trainings that go round in a circle: trainings that a watch started, and that changed nothing.

    One was in vain when its version did not become champion, or when the alarm was back within `soon_hours` of its release. After
    `runs` of them in a row the breaker is open for `hours`; it then lets one training through, and if that is in vain, too, stays open
    twice as long, and so on up to 30 days. A training that a person starts with `--again` closes it.
    """

    runs: int = Field(default=3, ge=1, description="trainings by drift or decay in a row that changed nothing")
    hours: float = Field(default=24, gt=0, description="so long no alarm starts a training then")
    soon_hours: float = Field(
        default=6, ge=0, description="an alarm within so long of a release says that the release changed nothing"
    )

    def opened(self, past: Sequence[Past], alarms: Sequence[dt.datetime], now: dt.datetime) -> Cap | None:
        """Why an alarm may start no training now, if that is so.

        Args:
            past: every training, oldest first.
            alarms: when alarms wanted a training, those that were refused, too.
            now: the moment of the alarm.
        """
        alarmed = _since_a_person([each for each in past if each.by in {*ALARMED, "hand"}])
        vain = self._in_vain(alarmed, [*alarms, *(each.started for each in alarmed), now])
        if not alarmed or vain < self.runs:
            return None
        hours = min(self.hours * 2 ** min(vain - self.runs, 16), 30 * 24)
        opens = alarmed[-1].ended + dt.timedelta(hours=hours)
        if now >= opens:
            return None
        said = (
            f"the breaker is open: {vain} trainings in a row that an alarm started changed nothing. It closes at {_minute(opens)}, "
            "or by `keepfit train --again`"
        )
        return Cap(kind="breaker", reason=said, opens=opens)

    def _in_vain(self, alarmed: Sequence[Past], alarms: Sequence[dt.datetime]) -> int:
        """How many of the newest trainings changed nothing."""
        soon, count = dt.timedelta(hours=self.soon_hours), 0
        for each in reversed(alarmed):
            if each.released and not any(each.ended < alarm <= each.ended + soon for alarm in alarms):
                break
            count += 1
        return count


def _since_a_person(past: Sequence[Past]) -> Sequence[Past]:
    """What alarms started after the newest training that a person did."""
    return past[max((place for place, each in enumerate(past, start=1) if each.by == "hand"), default=0) :]


def _minute(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
