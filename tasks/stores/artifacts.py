"""Artifacts: what MLflow keeps of a version on this machine's disk, and whether it still is what was logged.

No server of ours reads it; a person may load it from MLflow's pages, and must hear when somebody has put something else there.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

PLACE = "*/models/{model}/artifacts"


def recorded(artifacts: Path, model: str) -> dict[str, str]:
    """The SHA-256 of every file of a logged model, by its path within the folder of artifacts; nothing where MLflow keeps them elsewhere."""
    files = (
        path for folder in artifacts.glob(PLACE.format(model=model)) for path in folder.rglob("*") if path.is_file()
    )
    return {str(path.relative_to(artifacts)): _digest(path) for path in sorted(files)}


def fault(artifacts: Path, files: Mapping[str, str]) -> str:
    """The first file that is not what was logged, a sentence, or nothing."""
    for name, digest in files.items():
        path = artifacts / name
        if not path.is_file():
            return f"{path} is gone; MLflow cannot give this version out any more."
        if _digest(path) != digest:
            return f"{path} is another file than the one that was logged; whoever loads this version from MLflow gets something else."
    return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
