"""Incidents, and the messages about them that wait to be sent."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tasks.config.errors import ConflictError
from tasks.ml.watching.incident import Incident
from tasks.stores import durable
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import INCIDENTS, NOTICES

Event = Literal["opened", "ended"]


@dataclass(frozen=True)
class Notice:
    """One message to one destination.

    Attributes:
        id: its number.
        event: what it tells: that the incident was opened, or that it ended.
        destination: the name of where it goes.
        at: when it was put into the queue.
        record: the incident as it was then, as JSON.
        state: waiting, sent, or dropped: its destination is gone or refuses it, or it was tried for too long.
        tries: so far.
        due: when it is tried next; of one that does not wait, when it was tried last.
        said: how the last try ended.
    """

    id: int
    project: str
    incident: str
    event: Event
    destination: str
    at: str
    record: dict[str, Any]
    state: str
    tries: int
    due: str
    said: str


class Incidents(Database):
    """What is on record of incidents."""

    def record_incident(
        self, incident: Incident, at: dt.datetime, event: Event | None = None, destinations: Sequence[str] = ()
    ) -> None:
        """Records an incident as it is now, and in the same transaction one message to each destination.

        Args:
            incident: replaces what was on record under its id.
            at: when.
            event: what the messages tell; None: nobody is told.
            destinations: their names; who was told of this event of this incident is not told again.

        Raises:
            ConflictError: another incident of that class is open; nothing was changed.
        """
        durable.step("record incident")
        try:
            with self._write() as connection:
                _put(connection, incident)
                for name in destinations if event else ():
                    _queue(connection, incident, str(event), name, at)
        except IntegrityError as error:
            raise ConflictError(
                f"{incident.project}: an incident of class {incident.what} is open already; `keepfit incidents {incident.project}` shows it. Nothing was changed."
            ) from error

    def incidents(self, project: str | None = None, *, state: str | None = None) -> list[Incident]:
        """Every incident, oldest first; or those of a project, in a state."""
        wanted = {"project": project, "state": state}
        met = [INCIDENTS.c[name] == value for name, value in wanted.items() if value is not None]
        query = sa.select(INCIDENTS.c.record).where(*met).order_by(INCIDENTS.c.first_seen, INCIDENTS.c.id)
        with self.engine.connect() as connection:
            return [Incident.model_validate_json(record) for record in connection.scalars(query)]

    def open_incidents(self) -> dict[str, int]:
        """How many are open, of every project that has some."""
        query = sa.select(INCIDENTS.c.project, sa.func.count()).where(INCIDENTS.c.state == "open")
        with self.engine.connect() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query.group_by(INCIDENTS.c.project))}

    # -- messages -----------------------------------------------------------------------------------------------------
    def notices(self, state: str | None = None) -> list[Notice]:
        """Every message, oldest first; or those in a state."""
        met = [NOTICES.c.state == state] if state else []
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(NOTICES).where(*met).order_by(NOTICES.c.id)).mappings().all()
        return [Notice(**{**row, "record": json.loads(row["record"])}) for row in rows]

    def unsent(self, since: dt.datetime | None = None) -> list[dict[str, Any]]:
        """The messages that wait, and those that were given up since: project, incident, event, destination, at, state, tries, due, said."""
        names = ("project", "incident", "event", "destination", "at", "state", "tries", "due", "said")
        given_up = [one for one in self.notices("dropped") if one.due >= _text(since)] if since else []
        return [{name: getattr(one, name) for name in names} for one in [*self.notices("waiting"), *given_up]]

    def move_notice(self, seen: Notice, state: str, said: str, due: dt.datetime) -> None:
        """Records how a try ended, if nobody tried in between."""
        durable.step(f"notice {state}")
        mine = NOTICES.update().where(NOTICES.c.id == seen.id, NOTICES.c.tries == seen.tries)
        with self._write() as connection:
            connection.execute(mine.values(state=state, said=said, due=_text(due), tries=seen.tries + 1))


def _text(at: dt.datetime) -> str:
    """A time in a form whose order is that of time."""
    return at.astimezone(dt.UTC).isoformat(timespec="microseconds")


def _put(connection: sa.Connection, incident: Incident) -> None:
    row = {
        "project": incident.project, "class": incident.what, "source": incident.source, "state": incident.state,
        "first_seen": _text(incident.first_seen), "last_seen": _text(incident.last_seen), "record": json.dumps(incident.told()),
    }  # fmt: skip
    if not connection.execute(INCIDENTS.update().where(INCIDENTS.c.id == incident.id).values(row)).rowcount:
        connection.execute(INCIDENTS.insert().values({"id": incident.id, **row}))


def _queue(connection: sa.Connection, incident: Incident, event: str, name: str, at: dt.datetime) -> None:
    same = (NOTICES.c.incident == incident.id, NOTICES.c.event == event, NOTICES.c.destination == name)
    if connection.execute(sa.select(NOTICES.c.id).where(*same)).first() is None:
        connection.execute(
            NOTICES.insert().values(
                project=incident.project, incident=incident.id, event=event, destination=name, at=_text(at),
                record=json.dumps(incident.told()), state="waiting", tries=0, due=_text(at), said="",
            )
        )  # fmt: skip
