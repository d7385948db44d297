"""Asking the champion: over HTTP when a server runs, else from its bundle in this process."""

import json
from typing import Any

import httpx

from flows.saying import Say
from tasks.config.errors import KeepfitError
from tasks.config.settings import Settings


def ask(project: str, row: str, settings: Settings, say: Say, *, explain: bool = False) -> dict[str, Any]:
    """The champion's answer for one row, given as the text of a JSON object, and with `explain` what each column adds to it.

    Raises:
        KeepfitError: the row is no JSON object, there is no champion, or it does not take the row.
    """
    try:
        fields = json.loads(row)
    except json.JSONDecodeError as error:
        raise KeepfitError(
            f"--row is no JSON: {error}. Wanted an object of features, like '{{\"age\": 41}}'."
        ) from error
    if not isinstance(fields, dict):
        raise KeepfitError(f"--row is a {type(fields).__name__}; wanted an object of features, like '{{\"age\": 41}}'.")
    address = settings.serving()
    if address:
        return _over_http(address, project, fields, settings, explain=explain)
    say("no server runs: the champion is loaded in this process")
    return _here(project, fields, settings, explain=explain)


def served(settings: Settings) -> dict[str, int]:
    """The version that the server answers with, by project; nothing when it is down."""
    address = settings.serving()
    if not address:
        return {}
    try:
        listed = httpx.get(f"{address}/projects", headers=settings.bearer(), timeout=5).json()["projects"]
    except (httpx.HTTPError, ValueError, KeyError):
        return {}
    return {row["project"]: row["version"] for row in listed if row["version"]}


def _over_http(
    address: str, project: str, fields: dict[str, Any], settings: Settings, *, explain: bool
) -> dict[str, Any]:
    body = {"rows": [fields], **({"explain": True} if explain else {})}
    answer = httpx.post(f"{address}/projects/{project}/predict", json=body, headers=settings.bearer(), timeout=30)
    said = answer.json()
    if answer.is_error:
        raise KeepfitError(str(said.get("error", said)))
    return said


def _here(project: str, fields: dict[str, Any], settings: Settings, *, explain: bool) -> dict[str, Any]:
    from tasks.serving.champion import Champion, RowError
    from tasks.stores.journal import Journal

    release = Journal(settings.journal()).champion(project)
    if release is None:
        raise KeepfitError(f"{project} has no champion yet. Land data and say `keepfit train {project}`.")
    champion = Champion.load(settings.bundles(project) / str(release.version), release, skew=settings.library_skew)
    try:
        rows = champion.check([fields])
        answers = champion.score(rows)
        parts, explained = champion.explain(rows, answers) if explain else ([{}], {})
    except RowError as error:
        raise KeepfitError(str(error)) from error
    return {
        "project": project,
        "version": release.version,
        "predictions": [{"id": None, **answer, **part} for answer, part in zip(answers, parts, strict=True)],
    } | ({"explained": explained} if explained else {})
