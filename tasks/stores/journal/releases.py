"""Releases: who was champion when. The newest generation is in force."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tasks.config.errors import ConflictError
from tasks.stores import durable
from tasks.stores.journal import intents, proposals, rollouts
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import RELEASES

Moves = tuple[rollouts.Rollout, Mapping[str, Any]]  # a rollout as it was seen, and what changes of it
BY_ITSELF = "train: "  # how the actor of a release begins that no person asked for


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
    kind: str = "release"  # or rollback


_NEWEST = (
    sa.select(RELEASES.c.project, sa.func.max(RELEASES.c.generation).label("generation"))
    .group_by(RELEASES.c.project)
    .subquery()
)
_IN_FORCE = sa.select(RELEASES).join(
    _NEWEST, (RELEASES.c.project == _NEWEST.c.project) & (RELEASES.c.generation == _NEWEST.c.generation)
)


class Releases(Database):
    """What is on record of releases."""

    def champion(self, project: str) -> Release | None:
        """The release that is in force, or None before the first one."""
        newest = (
            sa.select(RELEASES).where(RELEASES.c.project == project).order_by(RELEASES.c.generation.desc()).limit(1)
        )
        with self.engine.connect() as connection:
            row = connection.execute(newest).mappings().first()
        return _release(row) if row else None

    def champions(self) -> dict[str, Release]:
        """The release in force of every project that has one."""
        with self.engine.connect() as connection:
            return {row["project"]: _release(row) for row in connection.execute(_IN_FORCE).mappings()}

    def releases(self, project: str) -> list[Release]:
        """Every release of a project, oldest first."""
        query = sa.select(RELEASES).where(RELEASES.c.project == project).order_by(RELEASES.c.generation)
        with self.engine.connect() as connection:
            return [_release(row) for row in connection.execute(query).mappings()]

    def release(
        self, release: Release, proposal: int | None = None, intent: int | None = None, moves: Moves | None = None
    ) -> Release:
        """Makes a version champion, if `release.generation` is the next one; other versions' open proposals are void from then on.

        With the number of a proposal this is its approval, with that of an intent its commit, with a rollout its next phase: all of it is
        one transaction.

        Raises:
            ConflictError: somebody else released, decided, undid or moved the rollout in between, or the generation is not the next one; nothing
                was changed.
        """
        durable.step("release")
        try:
            with self._write() as connection:
                connection.execute(RELEASES.insert().values(**asdict(release)))  # first: of two releases one waits here
                _follows(connection, release)
                if intent is not None:
                    intents.commit(connection, intent, release.generation)
                if moves is not None:
                    rollouts.move(connection, *moves)
                if proposal is not None:
                    proposals.decide(
                        connection, proposal, "approved", actor=release.actor, at=release.at, reason=release.reason
                    )
                proposals.overtake(connection, release.project, release.version, actor=release.actor, at=release.at)
        except IntegrityError as error:
            (theirs,) = (each for each in self.releases(release.project) if each.generation == release.generation)
            raise ConflictError(
                f"{release.project}: generation {release.generation} was released in between: version {theirs.version}, by {theirs.actor} on "
                f"{theirs.at[:19]}. The champion is theirs; look at it and release again if it still should change."
            ) from error
        return release


def _follows(connection: sa.Connection, release: Release) -> None:
    """Refuses a release that is not of the next generation: an old one, replayed, never comes into force."""
    before = sa.select(sa.func.max(RELEASES.c.generation)).where(
        RELEASES.c.project == release.project, RELEASES.c.generation != release.generation
    )
    if (newest := connection.scalar(before) or 0) != release.generation - 1:
        raise ConflictError(
            f"{release.project}: generation {release.generation} is not the next one; the newest is {newest}. Nothing was changed: "
            "look at `keepfit history`, and release again if the champion still should change."
        )


def _release(row: sa.RowMapping) -> Release:
    fields: dict[str, Any] = {**row, "kind": row["kind"] or "release"}
    return Release(**fields)


def rolled_back(releases: Sequence[Release], version: int) -> Release | None:
    """The rollback that took a version away, if that is how it went last; None where it never was champion, or came back since."""
    last = max((place for place, each in enumerate(releases) if each.version == version), default=len(releases))
    after = releases[last + 1 : last + 2]
    return after[0] if after and after[0].kind == "rollback" else None


def predecessor(releases: Sequence[Release]) -> Release | None:
    """The champion before the present version became one for the first time, at its newest release; what was rolled back meanwhile is passed over."""
    first = next((place for place, each in enumerate(releases) if each.version == releases[-1].version), 0)
    return releases[first - 1] if first else None


@dataclass(frozen=True)
class Reign:
    """The time in which a release was in force.

    Attributes:
        since: from when; by the record's own clock, unless a later record says an earlier time: its clock was set since, and the order
            of the records counts.
        until: to when; None for the one that is in force.
    """

    release: Release
    since: dt.datetime
    until: dt.datetime | None


def reigns(releases: Sequence[Release]) -> list[Reign]:
    """Who was champion from when to when, in the order of the generations; times never go back, whatever clocks did."""
    stamps = [dt.datetime.fromisoformat(release.at) for release in releases]
    since = list(accumulate(reversed(stamps), min))[::-1]
    return [Reign(*each) for each in zip(releases, since, [*since, None][1:], strict=True)]
