"""Intents of releases: what was begun, how far it came, and how it ended; a kill leaves one open, which `recover` finishes or undoes."""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from tasks.config.errors import ConflictError
from tasks.stores import durable
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import RELEASE_INTENTS

PHASES = ("intended", "verified", "answered", "committed", "aliased", "confirmed")
BEFORE, AFTER = PHASES[:3], PHASES[3:5]  # nothing has changed yet; alias and servers have still to follow
COMMITTED = AFTER[0]  # the alias, too


@dataclass(frozen=True)
class Intent:
    """A release or a rollback that was begun.

    Attributes:
        kind: release or rollback.
        runner: the process that began it, for a reader; whether it is under way still is known by its lock.
        phase: how far it came: intended, verified, answered, committed, aliased, confirmed; or undone.
        said: why it was undone, or how the servers confirmed it.
        announced: its event went out.
        generation: of the release that it became; None before its commit.
    """

    id: int
    project: str
    kind: str
    version: int
    actor: str
    reason: str
    at: str
    runner: str
    phase: str = "intended"
    said: str = ""
    announced: bool = False
    generation: int | None = None

    @property
    def lock(self) -> str:
        """What its process holds alone: another release waits for it, a rollback does not."""
        return f"{self.kind} {self.project}"


class Intents(Database):
    """What is on record of intents of releases."""

    def intend_release(
        self, *, project: str, kind: str, version: int, actor: str, reason: str, at: dt.datetime, runner: str
    ) -> Intent:
        """Records a release or rollback before it begins; it stands until it is confirmed or undone."""
        durable.step(f"intend {kind}")
        values: dict[str, Any] = {
            "project": project, "kind": kind, "version": version, "actor": actor, "reason": reason, "at": at.isoformat(), "runner": runner,
            "phase": "intended", "said": "", "announced": False,
        }  # fmt: skip
        with self._write() as connection:
            done = connection.execute(RELEASE_INTENTS.insert().values(**values))
            return Intent(id=int((done.inserted_primary_key or (0,))[0]), **values)

    def reach(self, intent: Intent, phase: str, said: str = "") -> Intent:
        """Records how far an intent came; one that came farther or was undone stays as it is."""
        return self._move(intent, phase, said, PHASES[: PHASES.index(phase)])

    def undo(self, intent: Intent, why: str) -> Intent:
        """Records that an intent came to nothing, and why; one that was committed stays as it is."""
        return self._move(intent, "undone", why, BEFORE)

    def undo_left(self, kind: str, project: str) -> list[Intent]:
        """Undoes what a kill left open before its commit; gives those. The caller holds the lock of such intents."""
        left = [intent for intent in self.release_intents(project, BEFORE) if intent.kind == kind]
        return [
            self.undo(intent, f"its process was gone after phase '{intent.phase}': {intent.runner}") for intent in left
        ]

    def _move(self, intent: Intent, phase: str, said: str, before: Collection[str]) -> Intent:
        durable.step(f"{intent.kind} {phase}")
        mine = RELEASE_INTENTS.update().where(RELEASE_INTENTS.c.id == intent.id, RELEASE_INTENTS.c.phase.in_(before))
        with self._write() as connection:
            connection.execute(mine.values(phase=phase, said=said))
        return replace(intent, phase=phase, said=said)

    def release_intents(self, project: str | None = None, phases: Collection[str] | None = None) -> list[Intent]:
        """Every intent, oldest first; or those of a project, in one of some phases."""
        mine = [] if project is None else [RELEASE_INTENTS.c.project == project]
        so_far = [] if phases is None else [RELEASE_INTENTS.c.phase.in_(phases)]
        query = sa.select(RELEASE_INTENTS).where(*mine, *so_far).order_by(RELEASE_INTENTS.c.id)
        with self.engine.connect() as connection:
            return [Intent(**row) for row in connection.execute(query).mappings()]

    def told(self, intent: int) -> None:
        """Records that an intent's event went out."""
        durable.step("told")
        with self._write() as connection:
            connection.execute(RELEASE_INTENTS.update().where(RELEASE_INTENTS.c.id == intent).values(announced=True))


def commit(connection: sa.Connection, intent: int, generation: int) -> None:
    """Marks an intent as committed, in the transaction that releases.

    Raises:
        ConflictError: somebody undid it in between, who took its process for dead.
    """
    _end(connection, intent, phase="committed", generation=generation)


def undo(connection: sa.Connection, intent: int, why: str) -> None:
    """Marks an intent as undone, in the transaction that does something else instead.

    Raises:
        ConflictError: as `commit`.
    """
    _end(connection, intent, phase="undone", said=why)


def _end(connection: sa.Connection, intent: int, **values: Any) -> None:
    mine = RELEASE_INTENTS.update().where(RELEASE_INTENTS.c.id == intent, RELEASE_INTENTS.c.phase.in_(BEFORE))
    if connection.execute(mine.values(**values)).rowcount != 1:
        raise ConflictError(f"Release intent {intent} was undone in between. Nothing was changed; say it again.")
