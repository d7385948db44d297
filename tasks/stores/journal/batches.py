"""Batches: what became of each, under which contract, what was erased since; and the change of the lake that is under way."""

import json
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from tasks.stores import durable
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import BATCHES, CONTRACTS, ERASURES, INTENTS

IS_OUTCOMES = sa.func.coalesce(BATCHES.c.kind, "rows") == "outcomes"


# Clocks go back: what came later has the greater number, whatever its time (faults: S-10).
ARRIVAL = (BATCHES.c.number, BATCHES.c.batch)
BACKWARDS = tuple(column.desc() for column in ARRIVAL)


def _of_rows(count: sa.ColumnElement[int]) -> sa.Case[int]:
    return sa.case((IS_OUTCOMES, 0), else_=count)


class Batches(Database):
    """What is on record of batches, contracts, erasures and intents."""

    def finish(
        self, project: str, batches: Sequence[dict[str, Any]], contract: dict[str, Any] | None, erasure: dict[str, Any] | None = None
    ) -> None:  # fmt: skip
        """Records what became of batches, the contract that they were checked under, an erasure, and that the intent is done, in one transaction.

        A second record of a batch replaces the first, in its place of the order of arrival.
        """
        durable.step("finish")
        with self._write() as connection:
            number, rows = _following(connection, BATCHES, project), []
            for batch in batches:
                same = (BATCHES.c.project == project, BATCHES.c.batch == batch["batch"])
                first = connection.scalar(BATCHES.delete().where(*same).returning(BATCHES.c.number))
                rows.append({**batch, "number": first or number})
            if rows:
                connection.execute(BATCHES.insert(), rows)
            connection.execute(INTENTS.delete().where(INTENTS.c.project == project))
            if erasure is not None:
                connection.execute(ERASURES.insert().values(**erasure))
            if contract is None:
                return
            same = (CONTRACTS.c.project == project, CONTRACTS.c.digest == contract["digest"])
            if connection.execute(sa.select(CONTRACTS.c.digest).where(*same)).first() is None:
                number = _following(connection, CONTRACTS, project)
                connection.execute(CONTRACTS.insert().values(**contract, number=number))

    def announced(self, project: str) -> None:
        """Records that an event went out which tells of all batches so far."""
        silent = BATCHES.c.announced.is_(None) | ~BATCHES.c.announced
        with self._write() as connection:
            connection.execute(BATCHES.update().where(BATCHES.c.project == project, silent).values(announced=True))

    def erasures(self, project: str) -> list[dict[str, Any]]:
        """Every erasure of a project, oldest first; `detail` as an object."""
        query = sa.select(ERASURES).where(ERASURES.c.project == project).order_by(ERASURES.c.id)
        with self.engine.connect() as connection:
            return [{**row, "detail": json.loads(row["detail"])} for row in connection.execute(query).mappings()]

    def contracts(self, project: str) -> list[dict[str, Any]]:
        """Every contract that a batch was checked under, oldest first: digest, at, contract (JSON), number."""
        query = sa.select(CONTRACTS).where(CONTRACTS.c.project == project).order_by(CONTRACTS.c.number)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def intend(self, project: str, plan: str, at: str) -> None:
        """Records a change of the lake before it begins; it stands until `finish`."""
        durable.step("intend")
        with self._write() as connection:
            connection.execute(INTENTS.delete().where(INTENTS.c.project == project))
            connection.execute(INTENTS.insert().values(project=project, plan=plan, at=at))

    def intent(self, project: str) -> str | None:
        """The change of the lake that was begun and not finished, or None."""
        with self.engine.connect() as connection:
            return connection.scalar(sa.select(INTENTS.c.plan).where(INTENTS.c.project == project))

    def batch(self, project: str, batch: str) -> dict[str, Any] | None:
        """What became of a batch, or None when it never came."""
        query = sa.select(BATCHES).where(BATCHES.c.project == project, BATCHES.c.batch == batch)
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return dict(row) if row else None

    def batches(self, project: str, names: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Every batch of a project in order of arrival, without its profile; or those of these names."""
        columns = [column for column in BATCHES.c if column.name != "profile"]
        query = sa.select(*columns).where(BATCHES.c.project == project).order_by(*ARRIVAL)
        query = query if names is None else query.where(BATCHES.c.name.in_(names))
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def newest(self, project: str) -> tuple[int, int]:
        """The versions of the tables `rows` and `outcomes` after the newest batches that landed in them; 0 where none has."""
        columns = (sa.func.coalesce(sa.func.max(BATCHES.c[name]), 0) for name in ("version", "outcomes"))
        query = sa.select(*columns).where(BATCHES.c.project == project, BATCHES.c.landed > 0)
        with self.engine.connect() as connection:
            row = connection.execute(query).one()
        return int(row[0]), int(row[1])

    def landed(self, project: str) -> str:
        """As `newest`, in a word: v12.3."""
        rows, outcomes = self.newest(project)
        return f"v{rows}.{outcomes}"

    def landed_since(self, project: str, version: int) -> int:
        """How many rows landed in the table `rows` after a version of it; corrections count."""
        query = sa.select(sa.func.coalesce(sa.func.sum(_of_rows(BATCHES.c.landed)), 0)).where(
            BATCHES.c.project == project, BATCHES.c.version > version
        )
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def new_since(self, project: str, version: int, outcomes: int) -> int:
        """How many rows landed after a version of the table `rows` that correct none; where labels come as outcomes, how many of those came.

        That is how many more can judge, as far as the journal knows.
        """
        rows = _of_rows(BATCHES.c.landed - sa.func.coalesce(BATCHES.c.replaced, 0))
        told = sa.case((IS_OUTCOMES, BATCHES.c.landed), else_=0)
        query = sa.select(
            sa.func.sum(rows).filter(BATCHES.c.version > version),
            sa.func.sum(told).filter(BATCHES.c.outcomes > outcomes),
        ).where(BATCHES.c.project == project)
        with self.engine.connect() as connection:
            new, known = connection.execute(query).one()
        return int((known if self.newest(project)[1] else new) or 0)

    def last_landed(self, project: str, kind: str) -> str | None:
        """When the newest batch of rows, or of outcomes, landed; ISO 8601, None before the first."""
        is_kind = IS_OUTCOMES if kind == "outcomes" else ~IS_OUTCOMES
        query = sa.select(BATCHES.c.at).where(BATCHES.c.project == project, BATCHES.c.landed > 0, is_kind)
        with self.engine.connect() as connection:
            return connection.scalar(query.order_by(*BACKWARDS).limit(1))

    def profiles(self, project: str, count: int) -> list[str]:
        """The profiles (JSON) of the newest landed batches of rows, oldest first."""
        newest = (
            sa.select(BATCHES.c.batch)
            .where(
                BATCHES.c.project == project, ~IS_OUTCOMES, BATCHES.c.state == "landed", BATCHES.c.profile.is_not(None)
            )
            .order_by(*BACKWARDS)
            .limit(count)
        )  # found first: a profile is long, and all of them would be sorted
        query = sa.select(BATCHES.c.profile).where(BATCHES.c.project == project, BATCHES.c.batch.in_(newest))
        with self.engine.connect() as connection:
            return list(connection.scalars(query.order_by(*ARRIVAL)))

    def arrivals(self, project: str, count: int) -> list[dict[str, Any]]:
        """Every batch that landed, in order of landing: at, kind ("rows" or "outcomes"), landed, profile (JSON; of the newest `count` alone)."""
        landed = (BATCHES.c.project == project, BATCHES.c.state == "landed")
        newest = (
            sa.select(BATCHES.c.batch).where(*landed, ~IS_OUTCOMES, BATCHES.c.profile.is_not(None)).order_by(*BACKWARDS)
        )
        profile = sa.case((BATCHES.c.batch.in_(newest.limit(count)), BATCHES.c.profile)).label("profile")
        kind = sa.func.coalesce(BATCHES.c.kind, "rows").label("kind")
        query = sa.select(BATCHES.c.at, kind, BATCHES.c.landed, profile).where(*landed).order_by(*ARRIVAL)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def totals(self, project: str) -> dict[str, int]:
        """Batches landed and held, rows of a project: arrived, in the table, quarantined, known already, erased; outcomes landed."""
        is_landed, is_held = (sa.case((BATCHES.c.state == state, 1), else_=0) for state in ("landed", "held"))
        sums = {
            "landed": is_landed, "held": is_held, "arrived": _of_rows(BATCHES.c.arrived), "quarantined": _of_rows(BATCHES.c.quarantined),
            "rows": _of_rows(BATCHES.c.landed - sa.func.coalesce(BATCHES.c.replaced, 0)), "known": _of_rows(BATCHES.c.known),
            "outcomes": sa.case((IS_OUTCOMES, BATCHES.c.landed), else_=0),
        }  # fmt: skip
        query = sa.select(*(sa.func.coalesce(sa.func.sum(what), 0).label(name) for name, what in sums.items()))
        sums = {
            name: sa.func.coalesce(sa.func.sum(ERASURES.c[name]), 0).label(name) for name in ("rows", "quarantined")
        }
        erased = sa.select(*sums.values()).where(ERASURES.c.project == project)
        with self.engine.connect() as connection:
            totals = dict(connection.execute(query.where(BATCHES.c.project == project)).mappings().one())
            gone = connection.execute(erased).mappings().one()
        return {**totals, **{name: totals[name] - gone[name] for name in gone}, "erased": sum(gone.values())}


def _following(connection: sa.Connection, table: sa.Table, project: str) -> int:
    """The number after the greatest that a project has in a table."""
    return (connection.scalar(sa.select(sa.func.max(table.c.number)).where(table.c.project == project)) or 0) + 1
