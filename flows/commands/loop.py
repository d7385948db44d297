"""The loop: train, watch, what alarms opened; and the demos, which go round it."""

from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from flows.commands.running import connect, run
from flows.commands.terminal import Json, say, show, table
from tasks.config.settings import Settings


def train(
    project: str, *, snapshot: str | None = None, reason: str = "by hand", again: bool = False, as_json: Json = False
) -> int:
    """Train a challenger on a snapshot, judge it, and release it when every gate passed.

    Args:
        project: The project.
        snapshot: Rows to train on, like v12-3f9c2a7b; the newest by default.
        reason: Why; goes on record.
        again: Also when this snapshot was trained on with this code and configuration.
    """
    settings = connect(project)
    why = f"{reason} ({settings.actor})"
    trained = run("train", settings, project=project, snapshot=snapshot, reason=why, again=again)
    return show(trained, as_json=as_json)


def watch(project: str, *, as_json: Json = False) -> int:
    """Look at the newest window: what came in and was answered against what was learned, and what came true.

    Args:
        project: The project.
    """
    settings = connect(project)
    from flows import watched

    seen = run("watch", settings, project=project)
    return show(seen, as_json=as_json, page=watched.page(seen))


def incidents(project: str | None = None, incident: str | None = None, *, as_json: Json = False) -> int:
    """List what alarms opened, newest first: what moved, what it is expected to cost, what was done; or show one with its summary.

    Args:
        project: Only of this project.
        incident: The id of one of them, or its beginning.
    """
    from flows.looking import incidents as kept

    found = kept(project, incident, Settings())
    if incident is not None:
        return show(found[0], as_json=as_json, page=_incident(found[0]))
    page = table(("project", "incident", "state", "class", "last seen", "alarms", "features"), map(_line, found))
    return show({"incidents": found}, as_json=as_json, page=page)


def _line(one: dict[str, Any]) -> tuple[str, ...]:
    seen, features = one["last_seen"][:16], ", ".join(one["features"][:3])
    return one["project"], one["id"], one["state"], one["class"], seen, f"{one['count']:,}", features


def _incident(found: dict[str, Any]) -> RenderableType:
    by = "a language model" if found["written_by"] == "assistant" else "keepfit"
    rows = (
        (one["kind"], one["class"], f"{one['level']:.3g}", f"{one['threshold']:.3g}", one["says"])
        for one in found["alarms"]
    )
    alarms = table(("alarm", "class", "level", "threshold", "says"), rows)
    note = [Text(found["note"])] if found["note"] else []
    head = Text(f"{found['project']}, incident {found['id']}, {found['state']}\n{found['summary']}\n(written by {by})")
    return Group(head, *note, alarms)


def demo(told: Literal["thyroid", "fraud"] = "thyroid", *, as_json: Json = False) -> int:
    """Thyroid from nothing to a champion that was replaced because the data moved, about two minutes; or fraud: weeks in which a new pattern appears, is noticed, learned and caught again by itself, about five.

    Args:
        told: Which story. Fraud has a stack and a home of its own, inside of KEEPFIT_HOME, and stops it at its end.
    """
    from flows import demo as month_by_month
    from flows import story as week_by_week

    if told == "fraud":
        result = week_by_week.play(week_by_week.settings_of(Settings()), say)
        return show(result, as_json=as_json, page=week_by_week.page(result))
    result = month_by_month.play(Settings(), say)
    return show(result, as_json=as_json, page=month_by_month.page(result))
