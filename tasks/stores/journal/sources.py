"""Sources: how far each was read."""

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tasks.config.errors import ConflictError
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import WATERMARKS


class Sources(Database):
    """What is on record of sources."""

    def watermark(self, project: str, source: str) -> str | None:
        """How far a source was read, or None before the first time."""
        query = sa.select(WATERMARKS.c.mark).where(WATERMARKS.c.project == project, WATERMARKS.c.source == source)
        with self.engine.connect() as connection:
            return connection.scalar(query)

    def move_watermark(self, project: str, source: str, before: str | None, after: str, at: dt.datetime) -> None:
        """Records how far a source was read, if it stood at `before`.

        Raises:
            ConflictError: somebody else read from it in between; nothing was changed.
        """
        stood = WATERMARKS.update().where(
            WATERMARKS.c.project == project, WATERMARKS.c.source == source, WATERMARKS.c.mark == before
        )
        first = WATERMARKS.insert().values(project=project, source=source, mark=after, at=at.isoformat())
        try:
            with self._write() as connection:
                if before is None:
                    moved = connection.execute(first).rowcount
                else:
                    moved = connection.execute(stood.values(mark=after, at=at.isoformat())).rowcount
        except IntegrityError:
            moved = 0
        if moved != 1:
            raise ConflictError(
                f"{project}: somebody else fetches from '{source}' at the same time. Theirs goes on; look again later."
            )
