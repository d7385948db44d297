"""Standing: what the watch says of drift between two judgements of it, and after an alarm.

A window slides, and each look at it is another chance of a false alarm. So drift is judged at most once in so many days (`DriftPlan.every`),
of the rows and of whoever looks, as rows may land under a time that stays; looks between repeat that, and an alarm stands until the window that it was of has passed: what is found meanwhile takes its place only where
it is as grave. Two alarms of a class begin at least a window apart then, and a false one begins in at most the share of such times that the
bars were made for (`calibration`).
"""

import datetime as dt
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel

from tasks.ml.watching.alarm import Alarm, Kind, gravest
from tasks.ml.watching.calibration import DriftPlan

DRIFT: tuple[Kind, ...] = ("inputs", "predictions")
MONDAY = dt.datetime(1970, 1, 5, tzinfo=dt.UTC)  # days are counted from here


class Standing(BaseModel, frozen=True, extra="forbid"):
    """What stands of one version's drift.

    Attributes:
        judged: the end of the window that was judged last, UTC.
        looked: when it was; None in what an older keepfit recorded.
        alarmed: the end of the last window in which drift was found and of which not all has passed; None without one.
        found: when it was; None, too, in what an older keepfit recorded.
        alarms: that were found.
    """

    judged: dt.datetime
    looked: dt.datetime | None = None
    alarmed: dt.datetime | None = None
    found: dt.datetime | None = None
    alarms: tuple[Alarm, ...] = ()

    @classmethod
    def after(
        cls, before: Self | None, found: Sequence[Alarm], until: dt.datetime, now: dt.datetime, plan: DriftPlan
    ) -> Self:
        """What stands after a look.

        Args:
            before: what stood; None of a version that is looked at for the first time.
            found: the alarms of this look; only those of drift count.
            until: the end of its window, UTC.
            now: when it looks, UTC.
            plan: how often drift is judged, and how long a window is.
        """
        if before is not None and before._is_of(until, now, plan):
            return before
        mine = tuple(alarm for alarm in found if alarm.kind in DRIFT)
        if before is not None and before._stands(until, plan) and gravest((*before.alarms, *mine)) != gravest(mine):
            return before.model_copy(update={"judged": until, "looked": now})
        since = {"alarmed": until, "found": now} if mine else {}
        return cls(judged=until, looked=now, alarms=mine, **since)

    def _is_of(self, until: dt.datetime, now: dt.datetime, plan: DriftPlan) -> bool:
        """Whether drift was judged within the same time, by the clock of the rows and by that of the looks."""
        pairs = ((self.judged, until), (self.looked, now))
        return all(at is not None and _place(at, plan.every) == _place(new, plan.every) for at, new in pairs)

    def _stands(self, until: dt.datetime, plan: DriftPlan) -> bool:
        """Whether there is an alarm whose window has not passed, counted in days; the rows of a day before its own say nothing of it."""
        return self.alarmed is not None and 0 <= _place(until, 1) - _place(self.alarmed, 1) < plan.days

    def told(self, found: Sequence[Alarm]) -> tuple[Alarm, ...]:
        """The alarms of a look: those of drift that stand, and the others that it found."""
        return (*self.alarms, *(alarm for alarm in found if alarm.kind not in DRIFT))

    def repeated(self, now: dt.datetime) -> tuple[Kind, ...]:
        """The kinds of its alarms where an earlier look than that of this moment found them."""
        return () if self.found == now else tuple(alarm.kind for alarm in self.alarms)

    def says(self, now: dt.datetime) -> str:
        """A sentence where the look of this moment did not judge drift, or found nothing as grave as the alarm that stands; nothing else."""
        if self.looked != now:
            return f"Drift is as it was judged at {self.judged:%Y-%m-%d %H:%M}."
        if self.alarmed is not None and self.repeated(now):
            return f"The alarm of {self.alarmed:%Y-%m-%d %H:%M} stands until its window has passed."
        return ""


def _place(at: dt.datetime, days: int) -> int:
    """In which of the times of so many days a moment lies."""
    return (at - MONDAY) // dt.timedelta(days=days)
