"""How everything stands, in a few tables."""

import datetime as dt
from typing import Any

from flows.commands.terminal import DONE, Json, put, show, table
from tasks.config.settings import Settings


def status(*, as_json: Json = False) -> int:
    """Services, champions, batches, the last training of every project, and what waits for a person."""
    from flows.standing import standing

    result = standing(Settings())
    if as_json:
        return show(result, as_json=True)
    projects = result["projects"]
    put(table(("service", "", "address", "restarts", ""), map(_service, result["services"])))
    put(table(("project", "champion", "metric", "answers", "gates"), map(_champion, projects)))
    put(table(("project", "rows", "batches", "waiting", "quarantined", "last training"), map(_work, projects)))
    for said in result["stuck"]:
        put(f"inbox: {said}")
    if waiting := [(row["project"], each) for row in projects for each in row["proposals"]]:
        put(table(("project", "waits", "for", "why", "a person says, or `reject`"), map(_proposal, waiting)))
    if troubled := {row["project"]: row["incidents"] for row in projects if row["incidents"]}:
        put(f"open incidents: {troubled}; `keepfit incidents` tells of them")
    if result["unsent"]:
        put(
            table(
                ("project", "message that has not arrived", "to", "tries", "again at", "why"),
                map(_unsent, result["unsent"]),
            )
        )
    return DONE


def _service(service: dict[str, Any]) -> tuple[str, ...]:
    health = "healthy" if service["healthy"] else "DOWN"
    return service["name"], health, service["url"] or "", str(service["restarts"]), str(service["detail"] or "")


def _champion(row: dict[str, Any]) -> tuple[str, ...]:
    champion, proof = row["champion"], row["proof"]
    return (
        row["project"], str(champion["version"]) if champion else "none",
        f"{champion['metric']} {champion['value']:.4f} [{champion['low']:.4f}, {champion['high']:.4f}]" if champion else "",
        str(row["serving"]["version"]) if row["serving"] else "nobody", f"{proof['state']} {proof['at'][:10]}" if proof else "not proven",
    )  # fmt: skip


def _work(row: dict[str, Any]) -> tuple[str, ...]:
    last, batches = row["last_train"], row["batches"]
    numbers = batches["rows"], batches["landed"], row["waiting"], batches["quarantined"]
    return row["project"], *map("{:,}".format, numbers), f"{last['state']}: {last['reason']}" if last else "never"


def _proposal(waiting: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    project, each = waiting
    age = str(dt.timedelta(seconds=each["age"]))
    return project, f"version {each['version']}", age, each["why"], each["approve"]


def _unsent(one: dict[str, Any]) -> tuple[str, ...]:
    what = f"incident {one['incident']} {one['event']}"
    again = one["due"][:19] if one["state"] == "waiting" else "never"
    return one["project"], what, one["destination"], str(one["tries"]), again, one["said"]
