"""Candidates: what trainings have on the disk before they are registered: a bundle, answers, and what one has come to while MLflow is away."""

import json
from collections.abc import Collection
from pathlib import Path

from tasks.config.settings import Settings
from tasks.stores import durable
from tasks.stores.references import Finished


def folder(settings: Settings, project: str, run: str) -> Path:
    """Where the bundle of a training's run lies; its other files lie beside it, and their names begin alike."""
    return _home(settings, project) / run


def keep(settings: Settings, project: str, run: str, finished: Finished) -> None:
    """Keeps what a training has come to; it names files that lie here, too."""
    durable.write(_finished(settings, project, run), json.dumps(finished.model_dump(mode="json")).encode())


def kept(settings: Settings, project: str, run: str) -> Finished | None:
    """That; None where an erasure has removed it."""
    try:
        return Finished.model_validate(json.loads(_finished(settings, project, run).read_bytes()))
    except FileNotFoundError:
        return None


def files(settings: Settings, project: str, runs: Collection[str]) -> list[Path]:
    """Every file of these runs; some hold rows."""
    return sorted(
        path
        for run in runs
        for part in _home(settings, project).glob(f"{run}*")
        for path in [part, *part.rglob("*")]
        if path.is_file()
    )


def clear(settings: Settings, project: str, run: str) -> None:
    """Removes what belongs to a run."""
    for path in _home(settings, project).glob(f"{run}*"):
        durable.remove(path)


def clear_all(settings: Settings, project: str, but: Collection[str]) -> None:
    """Removes what belongs to any run of a project but these."""
    for path in _home(settings, project).glob("*"):
        if not path.name.startswith(tuple(but)):
            durable.remove(path)


def _home(settings: Settings, project: str) -> Path:
    return settings.home / "candidates" / project


def _finished(settings: Settings, project: str, run: str) -> Path:
    return _home(settings, project) / f"{run}-finished.json"
