"""Hand-made changes: what somebody changed in MLflow that only a release may change, and what was done about it."""

import datetime as dt
from typing import Any

import sqlalchemy as sa

from tasks.stores import durable
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import HAND_MADE


class HandMade(Database):
    """What is on record of hand-made changes."""

    def record_hand_made(
        self, *, project: str, generation: int, wanted: int, met: str, answer: str, reason: str, at: dt.datetime
    ) -> None:
        """Records what was met and what was done about it."""
        durable.step("record hand-made change")
        values = {
            "project": project,
            "generation": generation,
            "wanted": wanted,
            "met": met,
            "answer": answer,
            "reason": reason,
        }
        with self._write() as connection:
            connection.execute(HAND_MADE.insert().values(**values, at=at.isoformat()))

    def hand_made(self, project: str) -> list[dict[str, Any]]:
        """Every hand-made change of a project, in the order in which they were noticed."""
        query = sa.select(HAND_MADE).where(HAND_MADE.c.project == project).order_by(HAND_MADE.c.id)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
