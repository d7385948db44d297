"""Orders: what somebody outside of a run wants done, kept until it is done; a killed server or a lost event takes none away.

Who orders writes one row and goes on; the stack's recovery looks for open ones. The same order twice is one, by its key.
"""

import datetime as dt
from collections.abc import Collection
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError

from tasks.stores import durable
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import ORDERS

Does = Literal["train", "fetch", "tell"]


class Order(BaseModel, frozen=True):
    """One order; the columns of the table `orders`."""

    id: int
    project: str
    key: str
    does: Does
    by: str
    reason: str
    what: str
    at: str
    state: str
    said: str
    run: str
    tries: int


class Orders(Database):
    """What is on record of orders."""

    def order(
        self, *, project: str, key: str, does: Does, by: str, reason: str, at: dt.datetime, what: str = ""
    ) -> tuple[int, bool]:
        """Puts an order on record, on disk when this returns; gives its number, and whether it is new."""
        if known := self._known(project, key):
            return known, False
        durable.step("order")
        values = {
            "project": project, "key": key, "does": does, "by": by, "reason": reason, "what": what, "at": at.isoformat(),
            "state": "open", "said": "", "run": "", "tries": 0,
        }  # fmt: skip
        try:
            with self._write() as connection:
                done = connection.execute(ORDERS.insert().values(**values))
                return int((done.inserted_primary_key or (0,))[0]), True
        except IntegrityError:  # somebody else was quicker
            return self._known(project, key), False

    def _known(self, project: str, key: str) -> int:
        """The number of the order of that key; 0 before there is one."""
        same = sa.select(ORDERS.c.id).where(ORDERS.c.project == project, ORDERS.c.key == key)
        with self.engine.connect() as connection:
            return int(connection.execute(same).scalar() or 0)

    def orders(self, project: str, state: str | None = None) -> list[Order]:
        """The orders of a project in the order in which they came, or those in a state."""
        query = sa.select(ORDERS).where(ORDERS.c.project == project).order_by(ORDERS.c.id)
        query = query if state is None else query.where(ORDERS.c.state == state)
        with self.engine.connect() as connection:
            return [Order.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def alarmed(self, project: str, kinds: Collection[str]) -> list[str]:
        """When alarms of these kinds ordered a training, or one was told that the breaker refused; ISO 8601, oldest first."""
        wanted = sa.or_(sa.and_(ORDERS.c.does == "train", ORDERS.c.by.in_(kinds)), ORDERS.c.by == "breaker")
        query = sa.select(ORDERS.c.at).where(ORDERS.c.project == project, wanted).order_by(ORDERS.c.id)
        with self.engine.connect() as connection:
            return list(connection.scalars(query))

    def ordered(self, project: str, number: int) -> Order | None:
        """The order of a project of that number, or None."""
        query = sa.select(ORDERS).where(ORDERS.c.project == project, ORDERS.c.id == number)
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return Order.model_validate(dict(row)) if row else None

    def answer(self, orders: list[Order], state: str, said: str, *, run: str | None = None) -> None:
        """Records what came of open orders; with a run, of those that it is still the run of."""
        self._change(orders, run, state=state, said=said)

    def run_for(self, orders: list[Order], run: str) -> None:
        """Records which flow run is to obey open orders."""
        self._change(orders, None, run=run)

    def lost(self, orders: list[Order], run: str, said: str, *, most: int) -> None:
        """Records that a run ended without obeying: they want another one, or have failed after so many."""
        ends = ORDERS.c.tries + 1 >= most
        self._change(
            orders, run, run="", tries=ORDERS.c.tries + 1, state=sa.case((ends, "failed"), else_="open"), said=sa.case((ends, said), else_="")
        )  # fmt: skip

    def _change(self, orders: list[Order], met: str | None, **values: Any) -> None:
        """Changes open orders; with `met` only those whose run that is."""
        mine = [ORDERS.c.id.in_([order.id for order in orders]), ORDERS.c.state == "open"]
        mine += [] if met is None else [ORDERS.c.run == met]
        with self._write() as connection:
            connection.execute(ORDERS.update().where(*mine).values(**values))
