"""Proposals: versions that wait, or waited, for a person."""

import datetime as dt
import json
from dataclasses import dataclass

import sqlalchemy as sa

from tasks.config.errors import ConflictError
from tasks.stores import durable
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import PROPOSALS, TRAININGS


@dataclass(frozen=True)
class Proposal:
    """A version that waits, or waited, for a person.

    Attributes:
        id: its number; a version that is held again is proposed again.
        training: the number of the training that made the version.
        since, why: when and why it began to wait.
        digests: what the person decides about, by name, as it was then.
        state: open, approved, rejected, or void: what it was about is not so any more.
        actor, at, reason: who ended it, when, why; None while it is open.
    """

    id: int
    project: str
    version: int
    training: int
    since: str
    why: str
    digests: dict[str, str]
    state: str = "open"
    actor: str | None = None
    at: str | None = None
    reason: str | None = None

    @property
    def ended(self) -> str:
        """How it ended, by whom, when and why, as a clause."""
        when = (self.at or "")[:19]
        if self.state == "void":
            return f"the proposal of version {self.version} is void since {when}: {self.reason}"
        return f"version {self.version} was {self.state} by {self.actor} on {when}: {self.reason}"


class Proposals(Database):
    """What is on record of proposals."""

    def proposals(
        self, project: str | None = None, *, version: int | None = None, state: str | None = None
    ) -> list[Proposal]:
        """Every proposal, oldest first; or those of a project, of a version, in a state."""
        wanted = {"project": project, "version": version, "state": state}
        met = [PROPOSALS.c[name] == value for name, value in wanted.items() if value is not None]
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(PROPOSALS).where(*met).order_by(PROPOSALS.c.id)).mappings().all()
        return [_proposal(row) for row in rows]

    def decide(self, proposal: int, state: str, *, actor: str, at: dt.datetime, reason: str) -> None:
        """Ends an open proposal without a release: `rejected` or `void`.

        Raises:
            ConflictError: it was decided in between; nothing was changed.
        """
        durable.step("decide")
        with self._write() as connection:
            decide(connection, proposal, state, actor=actor, at=at.isoformat(), reason=reason)


def propose(connection: sa.Connection, training: int, digests: dict[str, str]) -> None:
    """Opens a proposal for a training's version; an open one of the same version gives way."""
    columns = (TRAININGS.c[name] for name in ("project", "version", "state", "reason", "at"))
    made = connection.execute(sa.select(*columns).where(TRAININGS.c.id == training)).mappings().one()
    why = made["reason"] if made["state"] == "held" else f"every gate passed: {made['reason']}"
    same = (PROPOSALS.c.project == made["project"], PROPOSALS.c.version == made["version"])
    _void(connection, *same, actor=f"training {training}", at=made["at"], reason="the version was proposed again")
    connection.execute(
        PROPOSALS.insert().values(
            project=made["project"], version=made["version"], training=training, since=made["at"], why=why,
            digests=json.dumps(digests), state="open",
        )
    )  # fmt: skip


def decide(connection: sa.Connection, proposal: int, state: str, *, actor: str, at: str, reason: str) -> None:
    """Ends a proposal if it is open; what a person decided stands in the training's record, too."""
    mine = PROPOSALS.c.id == proposal
    if _end(connection, mine, state, actor=actor, at=at, reason=reason) != 1:
        found = connection.execute(sa.select(PROPOSALS).where(mine)).mappings().first()
        said = _proposal(found).ended if found else "there is no such proposal"
        raise ConflictError(f"Proposal {proposal} is not open: {said}. Nothing was changed; look at `keepfit status`.")
    if state == "void":
        return
    told = TRAININGS.c.reason + f"; {state} by {actor}: {reason}"
    values = {"reason": told} | ({"state": "released"} if state == "approved" else {})
    training = sa.select(PROPOSALS.c.training).where(mine).scalar_subquery()
    connection.execute(TRAININGS.update().where(TRAININGS.c.id == training).values(**values))


def overtake(connection: sa.Connection, project: str, version: int, *, actor: str, at: str) -> None:
    """Open proposals were made against the champion of before."""
    _void(
        connection, PROPOSALS.c.project == project, actor=actor, at=at,
        reason=f"the champion is another one: version {version} was released",
    )  # fmt: skip


def _void(connection: sa.Connection, *which: sa.ColumnElement[bool], actor: str, at: str, reason: str) -> None:
    _end(connection, sa.and_(*which), "void", actor=actor, at=at, reason=reason)


def _end(
    connection: sa.Connection, which: sa.ColumnElement[bool], state: str, *, actor: str, at: str, reason: str
) -> int:
    """Ends those of the proposals that are open; gives how many were."""
    ended = PROPOSALS.update().where(which, PROPOSALS.c.state == "open")
    return connection.execute(ended.values(state=state, actor=actor, at=at, reason=reason)).rowcount


def _proposal(row: sa.RowMapping) -> Proposal:
    return Proposal(**{**row, "digests": json.loads(row["digests"])})
