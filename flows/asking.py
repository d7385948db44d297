"""Asking the champion: over HTTP when a server runs, else from its bundle in this process."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from tasks.config.errors import KeepfitError
from tasks.config.settings import Settings


def ask(project: str, row: str, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """The champion's answer for one row, given as the text of a JSON object.

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
        return _over_http(address, project, fields)
    say("no server runs: the champion is loaded in this process")
    return _here(project, fields, settings)


def served(settings: Settings) -> dict[str, int]:
    """The version that the server answers with, by project; nothing when it is down."""
    address = settings.serving()
    if not address:
        return {}
    try:
        listed = httpx.get(f"{address}/projects", timeout=5).json()["projects"]
    except (httpx.HTTPError, ValueError, KeyError):
        return {}
    return {row["project"]: row["version"] for row in listed if row["version"]}


def _over_http(address: str, project: str, fields: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{address}/projects/{project}/predict", json={"rows": [fields]}, timeout=30)
    body = answer.json()
    if answer.is_error:
        raise KeepfitError(str(body.get("error", body)))
    return body


def _here(project: str, fields: dict[str, Any], settings: Settings) -> dict[str, Any]:
    from tasks.serving.champion import Champion, RowError
    from tasks.stores.journal import Journal

    release = Journal(settings.journal()).champion(project)
    if release is None:
        raise KeepfitError(f"{project} has no champion yet. Land data and say `keepfit train {project}`.")
    champion = Champion.load(settings.bundles(project) / str(release.version), release)
    try:
        answers = champion.predict([fields])
    except RowError as error:
        raise KeepfitError(str(error)) from error
    return {
        "project": project,
        "version": release.version,
        "predictions": [{"id": None, **answer} for answer in answers],
    }
