"""Watches: what was seen at each look at a project."""

import datetime as dt
import json
from typing import Any

import sqlalchemy as sa

from tasks.stores import durable
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import WATCHES


class Watches(Database):
    """What is on record of watches."""

    def record_watch(
        self, *, project: str, at: dt.datetime, version: int, verdict: str, until: str = "", detail: dict[str, Any],
        interval: dt.timedelta | None = None, landed: str = "",
    ) -> int:  # fmt: skip
        """Records one look, when the next one is due (None: nobody waits for one), and what had `landed` when it began; gives its number."""
        durable.step("record watch")
        values = {
            "project": project, "at": at.isoformat(), "version": version, "verdict": verdict, "until": until,
            "interval": interval.total_seconds() if interval else None, "landed": landed,
        }  # fmt: skip
        with self._write() as connection:
            done = connection.execute(WATCHES.insert().values(**values, detail=json.dumps(detail)))
            return int((done.inserted_primary_key or (0,))[0])

    def watches(self, project: str, count: int | None = None) -> list[dict[str, Any]]:
        """The looks at a project, oldest first, the newest `count` of them; `detail` as an object."""
        newest = sa.select(WATCHES).where(WATCHES.c.project == project).order_by(WATCHES.c.id.desc()).limit(count)
        with self.engine.connect() as connection:
            found = [{**row, "detail": json.loads(row["detail"])} for row in connection.execute(newest).mappings()]
        return found[::-1]

    def forget_watches(self, project: str, before: dt.datetime, newest: int, *, dry_run: bool = False) -> int:
        """Removes the looks of before a time, but for the `newest` of the project; gives how many they are."""
        kept = sa.select(WATCHES.c.id).where(WATCHES.c.project == project).order_by(WATCHES.c.id.desc()).limit(newest)
        old = sa.and_(WATCHES.c.project == project, WATCHES.c.at < before.isoformat(), WATCHES.c.id.not_in(kept))
        with self.engine.connect() as connection:
            count = connection.scalar(sa.select(sa.func.count()).where(old)) or 0
        if count and not dry_run:
            durable.step("forget watches")
            with self._write() as connection:
                connection.execute(WATCHES.delete().where(old))
        return count

    def last_watch(self, project: str) -> tuple[dt.datetime, dt.timedelta | None] | None:
        """When a project was last looked at, and the time until the next look is due; None before the first one."""
        newest = sa.select(WATCHES.c.at, WATCHES.c.interval).where(WATCHES.c.project == project).order_by(WATCHES.c.id.desc()).limit(1)  # fmt: skip
        with self.engine.connect() as connection:
            row = connection.execute(newest).first()
        if row is None:
            return None
        return dt.datetime.fromisoformat(row.at), None if row.interval is None else dt.timedelta(seconds=row.interval)

    def watched(self, project: str) -> str | None:
        """What had landed when the last look at a project began; None before the first one."""
        newest = sa.select(WATCHES.c.landed).where(WATCHES.c.project == project).order_by(WATCHES.c.id.desc()).limit(1)
        with self.engine.connect() as connection:
            return connection.scalar(newest)
