"""Minutes: what a training has to tell MLflow. It is told at once; while MLflow is away it is kept here in its order, and told when it answers."""

import base64
import io
import json
import logging
import shutil
from pathlib import Path
from types import FunctionType
from typing import Any, Self

from tasks.config.errors import StackError
from tasks.config.settings import Settings
from tasks.stores import durable
from tasks.stores.registry import Registry, answering

LOG = logging.getLogger("keepfit")


class Minutes:
    """Those of one run. What is told again, because an answer was lost, changes nothing.

    Attributes:
        folder: a file for each note that MLflow has not taken yet; there is none while it answers.
    """

    def __init__(self, registry: Registry, folder: Path, run: str) -> None:
        """Of a run by its id in MLflow, or by a name of our own that `start` gives one that MLflow has not heard of."""
        self.registry, self.folder, self._run = registry, folder, run

    @classmethod
    def of(cls, settings: Settings, project: str, run: str) -> Self:
        """Those of a project's run."""
        registry = Registry(project, settings.mlflow(), settings.artifacts)
        return cls(registry, _home(settings, project) / run, run)

    def start(self, name: str, tags: dict[str, str]) -> str:
        """Starts the run; gives its id, or where MLflow is away the name that it has until then."""
        try:
            with answering():
                return self.registry.start(name, tags, self._run)
        except StackError as error:
            self._keep("start", {"name": name, "tags": tags}, error)
            return self._run

    def note(self, what: FunctionType, **told: Any) -> None:
        """Tells MLflow something of the run, behind all that it has not taken yet.

        Args:
            what: a method of `Registry` that takes the run first, and may be called again.
            told: its other arguments; bytes and frames may be among them.
        """
        if self.folder.exists():
            self._keep(what.__name__, told)
            return
        try:
            with answering():
                getattr(self.registry, what.__name__)(self._run, **told)
        except StackError as error:
            self._keep(what.__name__, told, error)

    def tell(self) -> str:
        """Tells MLflow all that it has not taken yet; gives the run's id there.

        Raises:
            StackError: it does not answer; what it has not taken is kept.
        """
        notes = sorted(self.folder.glob("*.json"))
        with answering():
            run = self.registry.started(self._run) or self._run
            for note in notes:
                call, told = json.loads(note.read_bytes(), object_hook=_unpacked)
                if call == "start":
                    run = run if run != self._run else self.registry.start(**told, own=run)
                else:
                    getattr(self.registry, call)(run, **told)
                note.unlink()
        self.drop()
        return run

    def drop(self) -> None:
        """Forgets what was not told."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep(self, call: str, told: dict[str, Any], error: StackError | None = None) -> None:
        if error is not None:
            LOG.warning("%s; what it was to be told is kept until it answers", error)
        number = max((int(path.name[:4]) for path in self.folder.glob("*.json")), default=0) + 1
        content = json.dumps([call, told], default=_packed)
        durable.write(self.folder / f"{number:04d}-{call}.json", content.encode())


def left(settings: Settings, project: str) -> list[Minutes]:
    """All of a project that MLflow has not been told."""
    return [Minutes.of(settings, project, folder.name) for folder in sorted(_home(settings, project).glob("*"))]


def with_rows(settings: Settings, project: str) -> list[Path]:
    """Every file of them that holds rows of the project; MLflow misses little without."""
    return sorted(_home(settings, project).rglob("*-log_rows.json"))


def _home(settings: Settings, project: str) -> Path:
    return settings.home / "minutes" / project


def _packed(value: object) -> object:
    """What JSON does not know."""
    import numpy as np
    import pandas as pd

    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, pd.DataFrame):
        table = io.BytesIO()
        value.to_parquet(table)
        return {"table": base64.b64encode(table.getvalue()).decode()}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be kept for MLflow")


def _unpacked(found: dict[str, Any]) -> Any:
    import pandas as pd

    match found:
        case {"bytes": str(text)}:
            return base64.b64decode(text)
        case {"table": str(text)}:
            return pd.read_parquet(io.BytesIO(base64.b64decode(text)))
    return found
