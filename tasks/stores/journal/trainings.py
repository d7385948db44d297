"""Trainings: each from its start to how it ended."""

import datetime as dt
import json
from typing import Any

import sqlalchemy as sa

from tasks.stores.journal import proposals
from tasks.stores.journal.releases import Releases
from tasks.stores.journal.tables import TRAININGS

UNDER_WAY = frozenset({"running", "releasing"})  # states of a training that has not ended
KEPT = "kept"  # state of a training that has finished, and is registered when MLflow answers
OUT_OF_MEMORY = "out of memory"  # how the reason of a training begins that was
NO_MLFLOW = "MLflow did not answer"  # how the reason of a training begins that could not put on record what it did
FORGOTTEN = frozenset({"refused", "failed", "crashed"})  # states of trainings that may have made no version


class Trainings(Releases):
    """What is on record of trainings."""

    def start_training(
        self, *, project: str, trigger: str, event: bool, snapshot: str, config: str, at: dt.datetime, rows: str = "", runner: str = "", process: str = "",
        by: str = "", trusted: int | None = None,
    ) -> int:  # fmt: skip
        """Records that a training began; gives its number."""
        with self._write() as connection:
            done = connection.execute(
                TRAININGS.insert().values(
                    project=project,
                    trigger=trigger,
                    event=event,
                    snapshot=snapshot,
                    rows=rows,
                    trusted=trusted,
                    config=config,
                    state="running",
                    reason="",
                    started=at.isoformat(),
                    at=at.isoformat(),
                    detail="{}",
                    runner=runner,
                    process=process,
                    by=by,
                )
            )
            return int((done.inserted_primary_key or (0,))[0])

    def end_training(
        self,
        training: int,
        *,
        state: str,
        reason: str,
        at: dt.datetime,
        version: int | None = None,
        detail: dict[str, Any] | None = None,
        digests: dict[str, str] | None = None,
    ) -> None:
        """Records how a training ended.

        With digests its version waits for a person from then on, in the same transaction: an open proposal about them.
        """
        values: dict[str, Any] = {"state": state, "reason": reason, "at": at.isoformat()}
        if version is not None:
            values["version"] = version
        if detail is not None:
            values["detail"] = json.dumps(detail)
        with self._write() as connection:
            connection.execute(TRAININGS.update().where(TRAININGS.c.id == training).values(**values))
            if digests is not None:
                proposals.propose(connection, training, digests)

    def cut_off(self, training: dict[str, Any], *, state: str, reason: str, at: dt.datetime) -> None:
        """Records that a training ended before its time; one whose version was released by then was released."""
        live = training["version"] in {release.version for release in self.releases(training["project"])}
        self.end_training(training["id"], state="released" if live else state, reason=reason, at=at)

    def resume(self, training: int, *, runner: str, process: str) -> None:
        """Records that a training that was kept is under way again."""
        values = {"state": "running", "runner": runner, "process": process}
        with self._write() as connection:
            connection.execute(
                TRAININGS.update().where(TRAININGS.c.id == training, TRAININGS.c.state == KEPT).values(**values)
            )

    def kept(self, project: str) -> list[dict[str, Any]]:
        """A project's trainings that wait for MLflow, oldest first; `detail` as an object."""
        return self._trainings(TRAININGS.c.project == project, TRAININGS.c.state == KEPT)

    def under_way(self) -> list[dict[str, Any]]:
        """Every project's trainings that have not ended, oldest first; `detail` as an object."""
        return self._trainings(TRAININGS.c.state.in_(UNDER_WAY))

    def last_ended(self, project: str) -> int:
        """The number of the newest training of a project that has ended; 0 before the first."""
        ended = sa.and_(TRAININGS.c.project == project, TRAININGS.c.state.not_in(UNDER_WAY))
        with self.engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.max(TRAININGS.c.id)).where(ended)).scalar() or 0)

    def tried(self, project: str) -> list[tuple[str, str, str]]:
        """The name of the snapshot, the state and the reason of every training of a project, oldest first."""
        query = sa.select(TRAININGS.c.rows, TRAININGS.c.state, TRAININGS.c.reason).where(TRAININGS.c.project == project)
        with self.engine.connect() as connection:
            return [(row[0] or "", row[1], row[2] or "") for row in connection.execute(query.order_by(TRAININGS.c.id))]

    def made(self, project: str, version: int) -> dict[str, Any] | None:
        """The newest training that made a version; `detail` as an object."""
        query = sa.select(TRAININGS).where(TRAININGS.c.project == project, TRAININGS.c.version == version)
        with self.engine.connect() as connection:
            row = connection.execute(query.order_by(TRAININGS.c.id.desc())).mappings().first()
        return {**row, "detail": json.loads(row["detail"])} if row else None

    def trainings(self, project: str) -> list[dict[str, Any]]:
        """Every training of a project, oldest first; `detail` as an object."""
        return self._trainings(TRAININGS.c.project == project)

    def _trainings(self, *which: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(TRAININGS).where(*which).order_by(TRAININGS.c.id)).mappings().all()
        return [{**row, "detail": json.loads(row["detail"])} for row in rows]


def unanswered(state: str, reason: str) -> bool:
    """Whether a training ended because MLflow was away, which says nothing about its rows, and costs it no try."""
    return state == "failed" and reason.startswith(NO_MLFLOW)


def made_nothing(training: dict[str, Any]) -> bool:
    """Whether a training ended without a version."""
    return training["state"] in FORGOTTEN and training["version"] is None
