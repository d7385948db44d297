"""The journal: who was champion when, and every batch and training; one database transaction each. The truth that all else follows."""

import datetime as dt
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from tasks.config.errors import ConflictError

METADATA = sa.MetaData()

BATCHES = sa.Table(
    "batches",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("batch", sa.Text, primary_key=True, comment="SHA-256 of the content"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, comment="landed | held"),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("arrived", sa.Integer, nullable=False),
    sa.Column("landed", sa.Integer, nullable=False),
    sa.Column("quarantined", sa.Integer, nullable=False),
    sa.Column("known", sa.Integer, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
)

TRAININGS = sa.Table(
    "trainings",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project", sa.Text, nullable=False, index=True),
    sa.Column("trigger", sa.Text, nullable=False, comment="why it ran"),
    sa.Column("event", sa.Boolean, nullable=False, comment="started by an event, so that the cool-down holds"),
    sa.Column("snapshot", sa.Text, nullable=False, comment="digest of the snapshot"),
    sa.Column("config", sa.Text, nullable=False, comment="digest of project and code"),
    sa.Column("state", sa.Text, nullable=False, comment="running | released | registered | refused | failed"),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("started", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False, comment="JSON: metric, value, low, high, verdicts, run id"),
)

RELEASES = sa.Table(
    "releases",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False, comment="SHA-256 of the bundle's manifest"),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("low", sa.Float, nullable=False),
    sa.Column("high", sa.Float, nullable=False),
)


@dataclass(frozen=True)
class Release:
    """One row of the journal: from `at` on, `version` of `project` answers."""

    project: str
    generation: int
    version: int
    digest: str
    actor: str
    reason: str
    at: str
    metric: str
    value: float
    low: float
    high: float


class Journal:
    """Batches, trainings and releases in one SQL database (SQLite in WAL mode, or any SQLAlchemy URL)."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)
        if parsed.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _careful)
        METADATA.create_all(self.engine)

    @contextmanager
    def _write(self) -> Generator[sa.Connection]:
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # waits for the write lock instead of failing at commit
            yield connection

    # -- releases -----------------------------------------------------------------------------------------------------
    def champion(self, project: str) -> Release | None:
        """The release that is in force, or None before the first one."""
        newest = (
            sa.select(RELEASES).where(RELEASES.c.project == project).order_by(RELEASES.c.generation.desc()).limit(1)
        )
        with self.engine.connect() as connection:
            row = connection.execute(newest).mappings().first()
        return Release(**row) if row else None

    def champions(self) -> dict[str, Release]:
        """The release in force of every project that has one."""
        newest = (
            sa.select(RELEASES.c.project, sa.func.max(RELEASES.c.generation).label("generation"))
            .group_by(RELEASES.c.project)
            .subquery()
        )
        query = sa.select(RELEASES).join(
            newest, (RELEASES.c.project == newest.c.project) & (RELEASES.c.generation == newest.c.generation)
        )
        with self.engine.connect() as connection:
            return {row["project"]: Release(**row) for row in connection.execute(query).mappings()}

    def releases(self, project: str) -> list[Release]:
        """Every release of a project, oldest first."""
        query = sa.select(RELEASES).where(RELEASES.c.project == project).order_by(RELEASES.c.generation)
        with self.engine.connect() as connection:
            return [Release(**row) for row in connection.execute(query).mappings()]

    def release(self, release: Release) -> Release:
        """Makes a version champion, if `release.generation` is the next one.

        Raises:
            ConflictError: somebody else released in between; nothing was changed.
        """
        try:
            with self._write() as connection:
                connection.execute(RELEASES.insert().values(**release.__dict__))
        except IntegrityError as error:
            raise ConflictError(
                f"{release.project}: generation {release.generation} was released by somebody else in between. "
                "The champion is theirs; look at it and release again if it still should change."
            ) from error
        return release

    # -- batches ------------------------------------------------------------------------------------------------------
    def record_batch(self, **batch: Any) -> None:
        """Records what became of a batch; a second record of the same batch replaces the first."""
        with self._write() as connection:
            connection.execute(
                BATCHES.delete().where(BATCHES.c.project == batch["project"], BATCHES.c.batch == batch["batch"])
            )
            connection.execute(BATCHES.insert().values(**batch))

    def batch(self, project: str, batch: str) -> dict[str, Any] | None:
        """What became of a batch, or None when it never came."""
        query = sa.select(BATCHES).where(BATCHES.c.project == project, BATCHES.c.batch == batch)
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return dict(row) if row else None

    def batches(self, project: str) -> list[dict[str, Any]]:
        """Every batch of a project in order of arrival."""
        query = sa.select(BATCHES).where(BATCHES.c.project == project).order_by(BATCHES.c.at)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def totals(self, project: str) -> dict[str, int]:
        """Batches landed and held, rows landed and quarantined, of a project."""
        listed = self.batches(project)
        return {
            "landed": sum(batch["state"] == "landed" for batch in listed),
            "held": sum(batch["state"] == "held" for batch in listed),
            "rows": sum(batch["landed"] for batch in listed),
            "quarantined": sum(batch["quarantined"] for batch in listed),
        }

    # -- trainings ----------------------------------------------------------------------------------------------------
    def start_training(
        self, *, project: str, trigger: str, event: bool, snapshot: str, config: str, at: dt.datetime
    ) -> int:
        """Records that a training began; gives its number."""
        with self._write() as connection:
            done = connection.execute(
                TRAININGS.insert().values(
                    project=project,
                    trigger=trigger,
                    event=event,
                    snapshot=snapshot,
                    config=config,
                    state="running",
                    reason="",
                    started=at.isoformat(),
                    at=at.isoformat(),
                    detail="{}",
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
    ) -> None:
        """Records how a training ended."""
        values: dict[str, Any] = {"state": state, "reason": reason, "at": at.isoformat()}
        if version is not None:
            values["version"] = version
        if detail is not None:
            values["detail"] = json.dumps(detail)
        with self._write() as connection:
            connection.execute(TRAININGS.update().where(TRAININGS.c.id == training).values(**values))

    def trainings(self, project: str) -> list[dict[str, Any]]:
        """Every training of a project, oldest first; `detail` as an object."""
        query = sa.select(TRAININGS).where(TRAININGS.c.project == project).order_by(TRAININGS.c.id)
        with self.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [{**row, "detail": json.loads(row["detail"])} for row in rows]


def _careful(connection: Any, _record: object) -> None:
    """SQLite: readers do not block the writer, a busy writer is waited for, a commit is on disk when it returns."""
    connection.isolation_level = None  # SQLAlchemy's own BEGIN counts, not the driver's late one
    for pragma in ("journal_mode=WAL", "busy_timeout=15000", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
