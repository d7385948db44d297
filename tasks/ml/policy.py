"""Policies: when to retrain, and how often at most.

A policy says when a training is wanted; `caps.py` says whether it may start, and `admission.py` asks both. Whatever wants a training, the
same caps hold for it; only a person who says `--again` passes them.
"""

import datetime as dt
import re
from itertools import islice, pairwise
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, Field, field_validator

By = Literal["hand", "schedule", "batch", "rows", "drift", "decay", "silence", "hook"]
ALARMED = frozenset({"drift", "decay"})  # kinds of start that a watch causes, and that may therefore run in a circle
COOLDOWN = 60.0
BEYOND_PREFECT = re.compile(
    r"(\S+ +){2}(\S*,)?LW\b|.* \S*\wL\b\S*$", re.IGNORECASE
)  # what CronSim reads and Prefect's schedules refuse


class Fresh(BaseModel, frozen=True):
    """What has landed since the newest snapshot that was trained on.

    Attributes:
        changed: rows or outcomes are there that no training has seen.
        rows: how many rows among them, corrections included.
        answered: the kind of alarm that led to the champion, where no training since has had as many more rows as judged it; else empty.
        judged: how many rows judged it.
        new: how many that can judge have come since it was trained.
    """

    changed: bool = False
    rows: int = Field(default=0, ge=0)
    answered: str = ""
    judged: int = Field(default=0, ge=0)
    new: int = Field(default=0, ge=0)


class _Prompted(BaseModel, frozen=True, extra="forbid"):
    """A policy that something happening sets off."""

    cooldown: float = Field(
        default=COOLDOWN, ge=0, description="seconds between the start of one training and the next one by this policy"
    )

    def wait(self, last_start: dt.datetime | None, now: dt.datetime) -> float:
        """Seconds until this policy may start a training again; 0 when it may now, and never more than the whole cool-down.

        >>> start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        >>> OnBatch(cooldown=60).wait(start, start + dt.timedelta(seconds=45))
        15.0
        """
        if last_start is None:
            return 0.0
        return min(self.cooldown, max(0.0, self.cooldown - (now - last_start).total_seconds()))


class OnBatch(_Prompted, frozen=True, extra="forbid"):
    """Retrain when a batch has landed."""

    kind: Literal["batch"] = "batch"

    def owes(self, fresh: Fresh) -> bool:
        """Whether what landed is to be trained on."""
        return fresh.changed


class OnRows(_Prompted, frozen=True, extra="forbid"):
    """Retrain when so many rows have landed since the last snapshot that was trained on."""

    kind: Literal["rows"] = "rows"
    rows: int = Field(gt=0, description="rows that are worth a training")

    def owes(self, fresh: Fresh) -> bool:
        """Whether enough has landed.

        >>> OnRows(rows=1000).owes(Fresh(changed=True, rows=999))
        False
        """
        return fresh.rows >= self.rows


class _Alarmed(_Prompted, frozen=True, extra="forbid"):
    """A policy that an alarm of the watch sets off.

    The newest rows validate a challenger and judge it, so of what is new when an alarm sounds it knows the beginning at most. When as many
    more have come as judged it, all parts have moved on by so much: that is worth a second training, once.
    """

    kind: Literal["drift", "decay"]
    cooldown: float = Field(
        default=3600, ge=0, description="seconds between the start of one training and the next one by this policy"
    )
    follow_up: bool = Field(
        default=True,
        description="where its challenger became champion and the split is by time, train once more when as many rows have come as judged it",
    )

    def owes(self, fresh: Fresh) -> bool:
        """Whether more of what an alarm of this kind was about may teach than the champion knew that it led to.

        >>> OnDrift().owes(Fresh(changed=True, answered="drift", judged=400, new=500))
        True
        """
        return self.follow_up and fresh.answered == self.kind and 0 < fresh.judged <= fresh.new


class OnDrift(_Alarmed, frozen=True, extra="forbid"):
    """Retrain when the watch finds that inputs or predictions have moved, and says that a training is the answer."""

    kind: Literal["drift"] = "drift"


class OnDecay(_Alarmed, frozen=True, extra="forbid"):
    """Retrain when the watch finds that the champion got worse, measured or estimated."""

    kind: Literal["decay"] = "decay"


class OnSilence(_Prompted, frozen=True, extra="forbid"):
    """Say so when nothing has landed for too long, and retrain if that is wanted."""

    kind: Literal["silence"] = "silence"
    of: Literal["rows", "outcomes"] = Field(default="rows", description="what is expected")
    hours: float = Field(ge=0.01, description="it is late when none has landed for so long")
    retrain: bool = Field(default=False, description="train on what there is; else it is only said")

    def late(self, last: dt.datetime | None, now: dt.datetime) -> str:
        """What is missing, a sentence; nothing while it is in time, or before the first has landed.

        >>> monday = dt.datetime(2026, 1, 5, 6, tzinfo=dt.UTC)
        >>> OnSilence(hours=26).late(monday, monday + dt.timedelta(hours=30))
        'no rows have landed for 30 hours; expected were some within 26'
        """
        if last is None or now - last <= dt.timedelta(hours=self.hours):
            return ""
        hours = (now - last).total_seconds() / 3600
        return f"no {self.of} have landed for {hours:.0f} hours; expected were some within {self.hours:g}"


class OnSchedule(BaseModel, frozen=True, extra="forbid"):
    """Retrain at set times, whatever else happens."""

    kind: Literal["cron"] = "cron"
    cron: str = Field(description="five fields: minute hour day month weekday")
    timezone: str = Field(
        default="UTC", description="IANA name; the clock on that wall decides, also on the days it is changed"
    )

    def interval(self, since: dt.datetime) -> dt.timedelta:
        """The longest time from then to the next time, and between two of the next ten.

        >>> OnSchedule(cron="0 6 * * 1-5").interval(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)).days
        3
        >>> friday = dt.datetime(2026, 1, 2, 18, 0, 30, tzinfo=dt.UTC)
        >>> str(OnSchedule(cron="0 8-18 * * 1-5").interval(friday))
        '2 days, 13:59:30'
        """
        from cronsim import CronSim

        times = [since, *islice(CronSim(self.cron, since.astimezone(ZoneInfo(self.timezone))), 10)]
        return max(later - earlier for earlier, later in pairwise(times))

    @field_validator("cron")
    @classmethod
    def _known_times(cls, cron: str) -> str:
        from cronsim import CronSim, CronSimError

        if len(cron.split()) != 5:
            raise ValueError(
                f"'{cron}' has {len(cron.split())} fields; a cron line has five: minute hour day month weekday"
            )
        if BEYOND_PREFECT.match(cron):
            raise ValueError(
                f"'{cron}' has LW, or a weekday with L, which Prefect's schedules do not know; they know L, the last day of a month"
            )
        try:
            CronSim(cron, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        except CronSimError as error:
            raise ValueError(
                f"'{cron}' names no time ({str(error).lower()}); a cron line has minute hour day month weekday, as in '0 6 * * 1-5'"
            ) from error
        return cron

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(
                f"'{name}' is no IANA time zone; for example: UTC, Europe/Berlin, America/New_York"
            ) from error
        return name


Prompted = OnBatch | OnRows | OnDrift | OnDecay | OnSilence
Policy = Annotated[Prompted | OnSchedule, Field(discriminator="kind")]


def _fit_together(policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
    told = [
        (policy.kind, policy.of if isinstance(policy, OnSilence) else "")
        for policy in policies
        if isinstance(policy, Prompted)
    ]
    if twice := next((kind for kind, of in told if told.count((kind, of)) > 1), ""):
        raise ValueError(f"has kind '{twice}' twice; it may stand here once, because its cool-down is its own")
    kinds = {policy.kind for policy in policies}
    if kinds & ALARMED and not kinds & {"cron", "batch", "rows"}:
        raise ValueError(
            f"has kind '{min(kinds & ALARMED)}' alone, and an alarm that does not come would never be noticed. Add a floor: "
            "kind cron, batch or rows"
        )
    return policies


Policies = Annotated[tuple[Policy, ...], AfterValidator(_fit_together)]


def heeded(policies: tuple[Policy, ...], by: str) -> "Prompted | None":
    """The policy that a start of this kind follows; None for one that follows none, as by hand, by a hook, or by a schedule."""
    return next((policy for policy in policies if isinstance(policy, Prompted) and policy.kind == by), None)


def owing(policies: tuple[Policy, ...], fresh: Fresh) -> "OnBatch | OnRows | _Alarmed | None":
    """The policy by which a training is owed for what landed; None when none is.

    >>> owing((OnRows(rows=10),), Fresh(changed=True, rows=12)).kind
    'rows'
    """
    owed = (policy for policy in policies if isinstance(policy, OnBatch | OnRows | _Alarmed) and policy.owes(fresh))
    return next(owed, None)


def wait(policies: tuple[Policy, ...], by: str, last_start: dt.datetime | None, now: dt.datetime) -> float:
    """Seconds of cool-down that a start of this kind has still to wait.

    One that follows no policy with a cool-down keeps to the shortest of the project, or to a minute where there is none; a person, who has
    looked, waits for none.
    """
    if by == "hand":
        return 0.0
    declared = [policy for policy in policies if isinstance(policy, Prompted)]
    shortest = min(declared, key=lambda policy: policy.cooldown, default=OnBatch())
    return (heeded(policies, by) or shortest).wait(last_start, now)
