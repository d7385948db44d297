"""Remembered: what a watch compares with, a folder for each version: sketches and thresholds as JSON, some rows. Made anew when it is gone.

The rows are personal where the project's are: an erasure forgets all of it.
"""

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd
from pydantic import BaseModel

from tasks.config.settings import Settings
from tasks.ml.watching.calibration import Thresholds
from tasks.ml.watching.estimate import Estimator
from tasks.ml.watching.reference import Sketch
from tasks.stores import durable


class Learned(BaseModel, frozen=True):
    """What is known of the rows that a version was made of.

    Attributes:
        fixed: the sketch of them, and of what the version says of those that it did not learn from.
        thresholds: from where on something has moved.
        estimator: of its performance without outcomes.
    """

    fixed: Sketch
    thresholds: Thresholds
    estimator: Estimator


@dataclass(frozen=True)
class Remembered:
    """The folder of one version under one plan."""

    folder: Path

    @classmethod
    def of(cls, settings: Settings, project: str, version: int, key: str) -> Self:
        """Where it is; `key` names what it was made from, so that another plan has another folder."""
        return cls(_home(settings, project) / f"{version}-{key[:12]}")

    def read(self) -> tuple[Learned, pd.DataFrame] | None:
        """What is there, and the rows; None where it is not."""
        try:
            learned = Learned.model_validate_json((self.folder / "learned.json").read_bytes())
            return learned, pd.read_parquet(self.folder / "rows.parquet")
        except (FileNotFoundError, ValueError):  # gone, damaged, or of an earlier form
            return None

    def write(self, learned: Learned, rows: pd.DataFrame) -> None:
        """Keeps it; the JSON comes last, and without it nothing is there."""
        table = io.BytesIO()
        rows.to_parquet(table, index=False)
        durable.write(self.folder / "rows.parquet", table.getbuffer())
        durable.write(self.folder / "learned.json", learned.model_dump_json().encode())


def kept(settings: Settings, project: str) -> list[Path]:
    """Every file that watches keep of a project's rows; when they are deleted the next watch looks at the rows that are left."""
    return sorted(path for path in _home(settings, project).rglob("*") if path.is_file())


def unneeded(settings: Settings, project: str, versions: Collection[int]) -> list[Path]:
    """The folders of other versions than these, and of these all but the newest: under another plan they were made anew."""
    newest_first = sorted(_home(settings, project).glob("*-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    needed = {
        version: next((each for each in newest_first if each.name.startswith(f"{version}-")), None)
        for version in versions
    }
    return sorted(folder for folder in newest_first if folder not in needed.values())


def _home(settings: Settings, project: str) -> Path:
    return settings.home / "watch" / project
