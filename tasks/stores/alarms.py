"""Alarms go out: on record first, then told; a training that one wants is ordered before anybody hears of it."""

import datetime as dt
import json
from typing import Any, Literal

from tasks.config.project import Project
from tasks.ml.policy import heeded
from tasks.ml.watching.alarm import Class
from tasks.stores.journal import Journal, Order

EVENTS = {
    "drift": "keepfit.drift.detected",
    "decay": "keepfit.performance.decayed",
    "silence": "keepfit.data.silent",
    "breaker": "keepfit.breaker.opened",
    "budget": "keepfit.budget.spent",
}


def sound(
    use: Project, journal: Journal, kind: Literal["drift", "decay"], what: Class, *, reason: str, incident: str, at: dt.datetime
) -> list[int]:  # fmt: skip
    """Puts an alarm of a watch on record; gives the numbers of the orders that are new, none when this was said already.

    An incident that lasts is one order, however often it is sounded, until a training has ended or the day is over: then it asks again.

    The stack's recovery sends the event within seconds; `send` does so at once. A training is ordered when the alarm wants one and the
    project has the policy; what the event starts obeys that order, and when the event is lost the recovery does.

    Args:
        use: the project.
        journal: where it is recorded.
        kind: drift of inputs or predictions, or decay of the performance, measured or estimated.
        what: only `retrain` orders a training.
        reason: a sentence without a row or a value of a person.
        incident: its id.
        at: when.
    """
    orders, said = [], f"{kind} {incident} after training {journal.last_ended(use.project)} on {at:%Y-%m-%d}"
    if what == "retrain" and heeded(use.retrain, kind):
        orders.append(
            journal.order(project=use.project, key=f"train {said}", does="train", by=kind, reason=reason, at=at)
        )
    payload = {"class": what, "reason": reason, "incident": incident}
    orders.append(told(journal, use.project, kind, key=f"tell {said}", payload=payload, at=at))
    return [number for number, is_new in orders if is_new]


def told(
    journal: Journal, project: str, kind: str, *, key: str, payload: dict[str, Any], at: dt.datetime
) -> tuple[int, bool]:  # fmt: skip
    """Orders that an event goes out, once for a key; `payload` has `class` and `reason`. Gives the order's number, and whether it is new."""
    what = json.dumps({"event": EVENTS[kind], "payload": payload})
    return journal.order(project=project, key=key, does="tell", by=kind, reason=payload["reason"], what=what, at=at)


def send(journal: Journal, orders: list[Order]) -> list[str]:
    """Sends the events that are ordered; gives a line for each. One that does not go out stays ordered.

    Raises:
        Exception: the server does not take it.
    """
    from tasks.stores import runs

    lines = []
    for order in orders:
        event = json.loads(order.what)
        runs.tell(event["event"], order.project, event["payload"])
        journal.answer([order], "done", "told")
        lines.append(f"{event['event']} {order.project}: {order.reason}")
    return lines
