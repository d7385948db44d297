"""Looking at what has landed: versions, snapshots, differences, quarantine; plain functions without a run."""

import datetime as dt
import json
from itertools import accumulate
from typing import Any

from tasks.config import plans
from tasks.config.errors import KeepfitError, MisuseError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.stores.journal import UNDER_WAY, Journal, reigns
from tasks.stores.lake import OUTCOMES, ROWS, TRUSTED, Lake, Version, snapshot_named


def _lake(project: str, settings: Settings) -> tuple[Project, Lake]:
    use = Project.named(project, settings)
    return use, Lake(project, settings.lake(project), use.contract)


def versions(project: str, settings: Settings) -> list[dict[str, Any]]:
    """Every version of a project's rows, of their outcomes and of the trusted set, newest first: what made it, and how much of its kind there is."""
    _, lake = _lake(project, settings)
    rows = [(version.number, at, version) for at, version in _steady(lake, ROWS)]
    apart = [(_newest(rows, at), at, version) for at, version in _steady(lake, TRUSTED) if version.number]
    batches = Journal(settings.journal()).batches(project)
    there = {row["outcomes"]: row["version"] or 0 for row in batches if row["kind"] == OUTCOMES and row["landed"]}
    labelled = [
        (newest, at, version)
        for at, version in _steady(lake, OUTCOMES)
        if version.number and (newest := there.get(version.number, _newest(rows, at)))
    ]
    made = [
        *((f"v{newest}", ROWS, newest, at, version) for newest, at, version in rows),
        *((f"t{version.number}", TRUSTED, newest, at, version) for newest, at, version in apart),
        *((f"v{newest}.{version.number}", OUTCOMES, newest, at, version) for newest, at, version in labelled),
    ]
    made.sort(key=lambda one: (one[2], one[1] != ROWS, one[3], one[4].number), reverse=True)
    return [
        {
            "snapshot": name, "kind": kind, "at": version.at, "why": version.why.get("keepfit.why", "made"),
            "name": version.why.get("keepfit.name", ""), "batch": version.why.get("keepfit.batch", ""), "rows": lake.count(kind, version.number),
        }
        for name, kind, _, _, version in made
    ]  # fmt: skip


def _steady(lake: Lake, kind: str) -> list[tuple[str, Version]]:
    """Every version of a table, oldest first, with its time; a clock that went back has stood still in it (faults: S-10)."""
    versions = list(lake.versions(kind))[::-1]
    return list(zip(accumulate((version.at for version in versions), max), versions, strict=True))


def _newest(rows: list[tuple[int, str, Version]], at: str) -> int:
    """The newest of the versions of the rows at a time."""
    return max((number for number, since, _ in rows if since <= at), default=0)


def snapshot(project: str, name: str | None, settings: Settings) -> dict[str, Any]:
    """One snapshot with its digest, after every data file of it was compared with its name.

    Raises:
        ArtifactError: there is no such snapshot, or it does not read any more.
    """
    use, lake = _lake(project, settings)
    found = snapshot_named(lake, name)
    if found is None:
        return {"state": "refused", "reason": f"no row of {project} has landed yet"}
    files = lake.landed.files(lake.landed.open(found.version))
    damaged = list(lake.landed.verify(files))
    return {
        "snapshot": found.name, **found.model_dump(), "files": len(files), "bytes": sum(file.size for file in files),
        "columns": list(use.contract.columns), "ok": not damaged, "damaged": damaged,
    }  # fmt: skip


def history(project: str, at: str | None, settings: Settings) -> dict[str, Any]:
    """Who was champion when, moved by whom and why, oldest first; what was begun and came to nothing; and what was changed by hand in MLflow.

    Args:
        project: The project; it need not be declared any more.
        at: only the champion of that time, in ISO 8601; UTC where it says no other zone.
        settings: where things are.
    """
    journal = Journal(settings.journal())
    found, moment = reigns(journal.releases(project)), None if at is None else _moment(at)
    if not found:
        raise KeepfitError(f"{project} never had a champion. `keepfit status` lists the projects that have one.")
    champions = [
        {
            "generation": reign.release.generation, "version": reign.release.version, "kind": reign.release.kind, "from": reign.since.isoformat(),
            "to": None if reign.until is None else reign.until.isoformat(), "actor": reign.release.actor, "reason": reign.release.reason,
            "recorded": reign.release.at, "metric": reign.release.metric, "value": reign.release.value,
        }
        for reign in found
        if moment is None or (reign.since <= moment and (reign.until is None or moment < reign.until))
    ]  # fmt: skip
    undone = [
        {name: getattr(each, name) for name in ("kind", "version", "actor", "reason", "at", "said")}
        for each in journal.release_intents(project, ("undone",))
    ]
    return {
        "project": project,
        "at": at,
        "champions": champions,
        "undone": undone,
        "hand_made": journal.hand_made(project),
    }


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise MisuseError(f"--at is '{text}'. Wanted: a time like 2026-01-31 or 2026-01-31T12:00Z.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def why(project: str, version: int | None, settings: Settings) -> dict[str, Any]:
    """The newest decision about a project, of a training or of a batch that was held, or the one that made a version: state, reason, verdicts.

    Raises:
        KeepfitError: there is no such project, version, or decision.
    """
    journal = Journal(settings.journal())
    trainings = [
        row for row in journal.trainings(project) if row["state"] not in UNDER_WAY or row["version"] is not None
    ]
    if version is not None:
        found = [row for row in trainings if row["version"] == version]
        if not found:
            known = sorted({row["version"] for row in trainings if row["version"] is not None})
            raise KeepfitError(
                f"{project} has no version {version}. Versions on record: {', '.join(map(str, known)) or 'none yet'}."
            )
        return _of_training(found[-1])
    held = [row for row in journal.batches(project) if row["state"] in {"held", "refused"}]
    decisions = [*(_of_training(row) for row in trainings[-1:]), *(_of_batch(row) for row in held[-1:])]
    if not decisions:
        Project.named(project, settings)  # a misspelt name is told from one without a past
        raise KeepfitError(f"Nothing was decided about {project} yet. Land rows, then say `keepfit train {project}`.")
    return max(decisions, key=lambda decision: decision["at"])


def _of_training(row: dict[str, Any]) -> dict[str, Any]:
    detail = row["detail"]
    told = {name: detail.get(name) for name in ("metric", "value", "low", "high", "champion")}
    return {
        "project": row["project"], "decision": "training", "state": row["state"], "reason": row["reason"], "trigger": row["trigger"],
        "version": row["version"], "snapshot": row["rows"], "at": row["at"], **told, "verdicts": detail.get("verdicts", []),
    }  # fmt: skip


def _of_batch(row: dict[str, Any]) -> dict[str, Any]:
    told = {
        name: row[name]
        for name in ("project", "state", "reason", "name", "batch", "at", "arrived", "landed", "quarantined")
    }
    return told | {"decision": "batch", "verdicts": []}


def incidents(project: str | None, incident: str | None, settings: Settings) -> list[dict[str, Any]]:
    """The incidents of a project, or of all, newest first; or the one whose id begins so.

    Raises:
        KeepfitError: there is no such project, or not exactly one such incident.
    """
    found = [one.told() for one in reversed(Journal(settings.journal()).incidents(project))]
    if project is not None and not found and project not in settings.project_names():
        Project.named(project, settings)  # a misspelt name is told from one without a past
    if incident is None:
        return found
    met = [one for one in found if incident and one["id"].startswith(incident)]
    if len(met) != 1:
        known = ", ".join(one["id"] for one in found[:5]) or "none yet"
        raise KeepfitError(
            f"{len(met)} incidents of {project} begin with '{incident[:20]}'; wanted one. The newest: {known}."
        )
    return met


def trust(project: str, name: str | None, reason: str, settings: Settings) -> dict[str, Any]:
    """Sets rows of a snapshot apart to judge by, in place of those that were before.

    Raises:
        KeepfitError: no reason is given, or nothing may be set apart in this project.
        ArtifactError: there is no such snapshot.
    """
    from tasks.stores.trust import Trust

    use, lake = _lake(project, settings)
    if not reason.strip():
        raise KeepfitError("--why is empty. Say why these rows may be trusted; it goes on record.")
    if not use.trusted.share:
        raise KeepfitError(f"{project} sets nothing apart: trusted.share is 0. Give it a share first, for example 0.1.")
    found = snapshot_named(lake, name)
    if found is None:
        return {"state": "refused", "reason": f"no row of {project} has landed yet"}
    return Trust(use, settings).set_apart(found, settings.actor, reason, renew=True)


def compare(project: str, a: str, b: str, settings: Settings) -> dict[str, Any]:
    """Rows added, removed and changed between two snapshots, and how the columns' distributions moved.

    Raises:
        ArtifactError: there is no such snapshot, or it does not read any more.
    """
    from tasks.ml.profile import differences

    use, lake = _lake(project, settings)
    one, other = snapshot_named(lake, a), snapshot_named(lake, b)
    if one is None or other is None:
        return {"state": "refused", "reason": f"no row of {project} has landed yet"}
    before, after = (lake.profile(found, use.contract, use.judged_positive) for found in (one, other))
    return {
        "project": project, "from": one.name, "to": other.name, "same": one.digest == other.digest,
        **lake.changes(one, other, use.contract.key),
        "rows": [one.rows, other.rows], "columns": [line.model_dump() for line in differences(before, after)],
    }  # fmt: skip


def quarantined(project: str, settings: Settings) -> list[dict[str, Any]]:
    """The batches that have rows in quarantine, newest first."""
    Project.named(project, settings)
    return [
        {
            **{name: row[name] for name in ("batch", "name", "state", "arrived", "quarantined", "reason", "at")},
            "rules": json.loads(row["detail"] or "{}").get("rules", {}),
        }
        for row in reversed(Journal(settings.journal()).batches(project))
        if row["quarantined"] or row["state"] == "held"
    ]


def replay(project: str, batch: str, accept: str, settings: Settings) -> dict[str, Any]:
    """Tries the quarantined rows of a batch again under the contract of today.

    Raises:
        BatchError: there is no such batch.
    """
    from tasks.ingest import Landings

    use = Project.named(project, settings)
    kind = Landings(use, settings).named(batch)["kind"] or "rows"
    return Landings(use, settings, kind=kind).replay(batch, accept).model_dump(mode="json")


def plan(project: str, settings: Settings) -> dict[str, Any]:
    """The change plan with who signed it, or why it counts as unsigned."""
    return plans.told(Project.named(project, settings), settings)


def sign_plan(project: str, by: str, settings: Settings) -> dict[str, Any]:
    """The same after it was signed as it stands."""
    use = Project.named(project, settings)
    plans.sign(use, settings, by, dt.datetime.now(dt.UTC))
    return plans.told(use, settings)
