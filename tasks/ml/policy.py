"""Policies: when to retrain."""

import datetime as dt
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field, field_validator


class OnBatch(BaseModel, frozen=True, extra="forbid"):
    """Retrain when a batch has landed."""

    kind: Literal["batch"] = "batch"
    cooldown: float = Field(
        default=60, ge=0, description="seconds between the start of one training and the next one by an event"
    )

    def wait(self, last_start: dt.datetime | None, now: dt.datetime) -> float:
        """Seconds until an event may start a training again; 0 when it may now.

        >>> start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        >>> OnBatch(cooldown=60).wait(start, start + dt.timedelta(seconds=45))
        15.0
        """
        if last_start is None:
            return 0.0
        return max(0.0, self.cooldown - (now - last_start).total_seconds())


class OnSchedule(BaseModel, frozen=True, extra="forbid"):
    """Retrain at set times, whatever else happens."""

    kind: Literal["cron"] = "cron"
    cron: str = Field(description="five fields: minute hour day month weekday")
    timezone: str = Field(
        default="UTC", description="IANA name; the clock on that wall decides, also on the days it is changed"
    )

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        if len(cron.split()) != 5:
            raise ValueError(
                f"'{cron}' has {len(cron.split())} fields; a cron line has five: minute hour day month weekday"
            )
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


Policy = Annotated[OnBatch | OnSchedule, Field(discriminator="kind")]
