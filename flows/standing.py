"""How everything stands: services, projects, what waits. Light, because `keepfit status` must answer at once."""

import datetime as dt
import os
from itertools import islice
from typing import Any

from flows import stack
from flows.asking import served
from tasks.config.names import ARRIVED, approval
from tasks.config.settings import Settings
from tasks.stores.journal import Journal

TOLD = dt.timedelta(days=7)  # that a message which was given up is shown
UNTOUCHED: dict[str, Any] = {
    "champion": None,
    "serving": None,
    "batches": dict.fromkeys(("landed", "held", "arrived", "rows", "quarantined", "known", "outcomes", "erased"), 0),
    "last_train": None,
    "incidents": 0,
    "proposals": [],
    "proof": None,
}
"""What stands of a project before anything was written down."""


def standing(settings: Settings) -> dict[str, Any]:
    """How every service and every project does, and which messages have not got through; makes no journal to say so.

    Returns:
        `services`, as `flows.stack.services` gives them; `projects`, a row for each by name; `stuck`, what the inbox cannot take;
        `unsent`.
    """
    journal = Journal.existing(settings)
    return {
        "services": stack.services(settings),
        "projects": _untouched(settings) if journal is None else _projects(journal, settings),
        "stuck": stack.in_the_way(settings),
        "unsent": [] if journal is None else journal.unsent(dt.datetime.now(dt.UTC) - TOLD),
    }


def _untouched(settings: Settings) -> list[dict[str, Any]]:
    return [{"project": name, **UNTOUCHED, "waiting": _waiting(settings, name)} for name in settings.project_names()]


def _projects(journal: Journal, settings: Settings) -> list[dict[str, Any]]:
    live, champions = served(settings), journal.champions()
    asked, incidents = journal.proposals(state="open"), journal.open_incidents()
    return [
        {
            "project": name,
            "champion": _champion(champions.get(name)),
            "serving": {"version": live[name]} if name in live else None,
            "batches": journal.totals(name),
            "last_train": _last(journal.trainings(name)),
            "incidents": incidents.get(name, 0),
            "proposals": [_proposed(each) for each in asked if each.project == name],
            "proof": _proven(journal.proof(name), settings.declared(name)),
            "waiting": _waiting(settings, name),
        }
        for name in sorted({*settings.project_names(), *champions, *(each.project for each in asked)})
    ]


def _waiting(settings: Settings, project: str) -> int:
    """Files in the inbox that have not landed yet: just dropped, still being written, or taken and on their way."""
    folders = [settings.inbox(project, kind) for kind in ("rows", "outcomes")]
    # What cannot be listed is passed over: `stuck` tells of it, and must not be kept from doing so.
    listed = [each for folder in folders for each in (*islice(os.walk(folder), 1), *os.walk(folder / ARRIVED))]
    return sum(not name.startswith(".") for _, _, names in listed for name in names)


def _champion(release: Any) -> dict[str, Any] | None:
    if release is None:
        return None
    return {
        "version": release.version,
        "since": release.at,
        "metric": release.metric,
        "value": release.value,
        "low": release.low,
        "high": release.high,
    }


def _last(trainings: list[dict[str, Any]]) -> dict[str, Any] | None:
    return {name: trainings[-1][name] for name in ("state", "reason", "trigger", "at")} if trainings else None


def _proposed(proposal: Any) -> dict[str, Any]:
    """What waits for a person, since when in seconds, and the commands that decide."""
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(proposal.since)
    command = approval(proposal.project, proposal.version)
    return {
        "version": proposal.version, "since": proposal.since, "age": round(age.total_seconds()), "why": proposal.why,
        "approve": command, "reject": command.replace(" approve ", " reject ", 1),
    }  # fmt: skip


def _proven(proof: dict[str, Any] | None, files: str) -> dict[str, Any] | None:
    """The newest proof of the gates: proven, failed, or stale because the project's files have changed since."""
    if proof is None:
        return None
    state = "stale" if proof["files"] != files else "proven" if proof["ok"] else "failed"
    return {"state": state, "at": proof["at"], "reason": proof["detail"]["reason"]}
