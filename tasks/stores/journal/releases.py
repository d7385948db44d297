"""Releases: who was champion when. The newest generation is in force."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tasks.config.errors import ConflictError
from tasks.stores import durable
from tasks.stores.journal import proposals
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import RELEASES


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


class Releases(Database):
    """What is on record of releases."""

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

    def release(self, release: Release, proposal: int | None = None) -> Release:
        """Makes a version champion, if `release.generation` is the next one; other versions' open proposals are void from then on.

        With the number of a proposal this is its approval: decision and release are one transaction.

        Raises:
            ConflictError: somebody else released or decided in between; nothing was changed.
        """
        durable.step("release")
        try:
            with self._write() as connection:
                connection.execute(
                    RELEASES.insert().values(**release.__dict__)
                )  # first: of two releases one waits here
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
