"""Rows and outcomes come in: files are landed, sources are fetched from."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.commands.running import connect, run
from flows.commands.terminal import Json, say, show

Files = Annotated[list[Path], Parameter(negative="")]


def land(project: str, files: Files, /, *, supersedes: str = "", accept: str = "", as_json: Json = False) -> int:
    """Land files under the project's contract, each exactly once.

    Args:
        project: The project whose contract holds.
        files: CSV, Parquet or JSON lines.
        supersedes: A batch that these rows correct, by name or the beginning of its digest; a file of the same name corrects by itself.
        accept: Why a batch that looks odd as a whole is right; your name goes on record with it.
    """
    return _land(project, files, "rows", supersedes, accept, as_json=as_json)


def outcomes(project: str, files: Files, /, *, supersedes: str = "", accept: str = "", as_json: Json = False) -> int:
    """Land what came true later: the key of rows that landed, the target, and outcome_at, when it became known.

    A file with a column prediction_id in place of the key tells what came true of predictions.

    Without outcome_at an outcome became known when it came. The newest outcome of a row is its label from then on; older
    snapshots read as they were.

    Args:
        project: The project.
        files: CSV, Parquet or JSON lines.
        supersedes: A batch of outcomes that these correct, by name or the beginning of its digest.
        accept: Why a batch that was held is right; your name goes on record with it.
    """
    return _land(project, files, "outcomes", supersedes, accept, as_json=as_json)


def _land(
    project: str, files: list[Path], kind: Literal["rows", "outcomes"], supersedes: str, accept: str, *, as_json: bool
) -> int:
    settings = connect()
    from flows.runs import land as landed
    from tasks.config.errors import KeepfitError
    from tasks.config.project import Project

    use = Project.named(project, settings)
    signed = f"{accept} ({settings.actor})" if accept else ""
    landings = []
    for file in files:
        try:
            landings.append(landed(use, file, kind, supersedes, signed, settings, say))
        except KeepfitError as error:  # those before it have landed, and those behind it may
            if len(files) == 1:
                raise
            landings.append({"state": "failed", "name": file.name, "reason": str(error)})
    page = "\n".join(landing["reason"] for landing in landings)
    states = {landing["state"] for landing in landings}
    worst = next((state for state in ("failed", "refused", "held") if state in states), "landed")
    result = landings[0] if len(landings) == 1 else {"state": worst, "batches": landings}
    return show(result, as_json=as_json, page=page)


def fetch(project: str, source: str | None = None, *, as_json: Json = False) -> int:
    """Fetch what is new from a project's sources into its inbox, from where it lands.

    Args:
        project: The project.
        source: One of its sources by name; all by default.
    """
    settings = connect(project)
    from tasks.fetch import chosen

    chosen(project, source)  # refuses before a run is made
    return show(run("fetch", settings, project=project, source=source), as_json=as_json)
