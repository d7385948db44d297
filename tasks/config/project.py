"""A project: `project.yaml`, checked and assembled from each part's own config class, with its `hooks.py` beside it."""

import importlib.util
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.config.errors import ProjectError, suggestion
from tasks.config.settings import Settings
from tasks.ml.contract import Contract
from tasks.ml.gates import ALL, Gate
from tasks.ml.identity import digest
from tasks.ml.leaks import Leaks
from tasks.ml.metrics import METRICS, Cost, Metric, Name
from tasks.ml.policy import OnBatch, Policy
from tasks.ml.profile import Expectations
from tasks.ml.reading import Reading
from tasks.ml.search import Search
from tasks.ml.split import TimeSplit
from tasks.sources.source import Sources

if TYPE_CHECKING:
    import pandas as pd

NAME = r"^[a-z][a-z0-9_-]{0,39}$"


class ReleasePolicy(BaseModel, frozen=True, extra="forbid"):
    """What happens to a challenger that passed every gate."""

    by: Literal["itself", "person"] = Field(
        default="itself", description="'person': it is registered and waits for `keepfit release`"
    )


class Project(BaseModel, frozen=True, extra="forbid"):
    """One use case: what the rows are, what to predict, how to judge, when to retrain."""

    project: str = Field(pattern=NAME, description="name; the same as the folder's")
    about: str = Field(default="", description="one sentence for the model card")
    kind: Literal["binary"] = "binary"
    positive: str | bool | int = Field(default=True, description="the target's value that is predicted")
    labels: tuple[str, str] = Field(
        default=("no", "yes"), description="how a person calls the two classes: negative, positive"
    )
    metric: Name = "roc_auc"
    floor: float | None = Field(default=None, description="drawn as a line: below it the model is of no use")
    reads: Reading = Reading()
    expects: Expectations = Expectations()
    contract: Contract
    split: TimeSplit
    leaks: Leaks = Leaks()
    search: Search = Search()
    cost: Cost = Cost()
    gates: tuple[Gate, ...] = Field(default=ALL, min_length=1)
    release: ReleasePolicy = ReleasePolicy()
    retrain: tuple[Policy, ...] = (OnBatch(),)
    sources: Sources = ()

    @field_validator("gates")
    @classmethod
    def _each_gate_once(cls, gates: tuple[Gate, ...]) -> tuple[Gate, ...]:
        kinds = [gate.kind for gate in gates]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"each gate may stand here once; given: {kinds}")
        return gates

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        columns = self.contract.columns
        times = [name for name, column in columns.items() if column.type == "datetime"]
        if self.split.column not in times:
            raise ValueError(
                f"split.column is '{self.split.column}', which is not a datetime column of the contract. "
                f"Columns of type datetime: {times}.{suggestion(self.split.column, times)}"
            )
        raw = [name for name in self.contract.features if columns[name].type == "datetime"]
        if raw:
            raise ValueError(
                f"features of type datetime cannot be learned from: {raw}. Derive numbers from them in hooks.py, and leave them out"
            )
        self.leaks.fits(self.contract)
        if not self.contract.features:
            raise ValueError("the contract has no feature: every column is key, time or target")
        return self

    @classmethod
    def named(cls, name: str, settings: Settings | None = None) -> "Project":
        """The project in the folder of that name.

        Raises:
            ProjectError: there is none, or it does not load; the message names file and key.
        """
        settings = settings or Settings()
        folder = settings.projects
        if not (folder / name / "project.yaml").is_file():
            known = settings.project_names()
            raise ProjectError(
                f"There is no project '{name}': {folder / name / 'project.yaml'} is not there. Projects: {', '.join(known) or 'none'}.{suggestion(name, known)}"
            )
        return load(folder / name)

    @property
    def goal(self) -> Metric:
        """The metric that decides."""
        return METRICS[self.metric]

    @property
    def on_batch(self) -> OnBatch | None:
        """The policy for new batches, if it has one."""
        return next((policy for policy in self.retrain if isinstance(policy, OnBatch)), None)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides about a model: everything but the time to retrain."""
        return digest(self.model_dump(mode="json", exclude={"retrain", "about", "floor", "sources"}))

    def __hash__(self) -> int:
        """By what it says."""
        return hash(self.digest)

    def truth(self, rows: "pd.DataFrame") -> "pd.Series":
        """1 where the target is the positive value, else 0: (n,) int8."""
        target = rows[self.contract.target]
        return (
            (target.astype("string") == str(self.positive)).astype("int8")
            if isinstance(self.positive, str)
            else (target == self.positive).astype("int8")
        )

    def hook(self, name: str, settings: Settings | None = None) -> Callable[..., Any] | None:
        """The function of that name in the project's `hooks.py`, or None."""
        path = (settings or Settings()).projects / self.project / "hooks.py"
        return getattr(_module(path), name, None) if path.is_file() else None


def load(folder: Path) -> Project:
    """Reads and checks a project folder.

    Raises:
        ProjectError: names file, line and key, what was met and what was wanted.
    """
    path = folder / "project.yaml"
    try:
        text = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ProjectError(f"{path}: is no readable YAML: {problem}. Mend that line.") from error
    if not isinstance(text, dict):
        raise ProjectError(f"{path}: holds no keys. A project needs at least: project, contract, split.")
    try:
        project = Project.model_validate(_plain(text))
    except ValidationError as error:
        raise ProjectError(_explained(path, text, error)) from error
    if project.project != folder.name:
        raise ProjectError(
            f"{path}: project is '{project.project}', but the folder is '{folder.name}'. Give both the same name."
        )
    return project


def _plain(node: Any) -> Any:
    """Ruamel's nodes as plain Python, so that pydantic sees what it knows."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _explained(path: Path, text: Any, error: ValidationError) -> str:
    """The first three problems, each with line and key."""
    problems = []
    for problem in error.errors()[:3]:
        keys = [part for part in problem["loc"] if _stands(text, part, problem["loc"])]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"is no key here.{suggestion(str(keys[-1]), _known_keys(problem['loc']))}"
        elif problem["type"] == "missing":
            keys, message = list(problem["loc"]), "is missing"
        name = ".".join(str(key) for key in keys)
        problems.append(f"{path}{_line(text, keys)}: {name + ' ' if name else ''}{message}".rstrip(". "))
    return " ".join(problem if problem.endswith("?") else f"{problem}." for problem in problems)


def _stands(text: Any, part: Any, location: tuple[Any, ...]) -> bool:
    """Whether a part of pydantic's location is a key of the file (it also names the member of a union)."""
    node = text
    for key in location:
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):
            if key == part:
                return False
            continue
        if key == part:
            return True
    return False


def _line(text: Any, keys: list[Any]) -> str:
    """`:12`, the line of the innermost key that stands in the file."""
    node, line = text, None
    for key in keys:
        try:
            line = (node.lc.key(key) if isinstance(node, dict) else node.lc.item(key))[0] + 1
            node = node[key]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return f":{line}" if line else ""


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that could stand where an unknown one was met."""
    schema = Project.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    if len(location) == 1:
        return list(schema["properties"])
    return [name for section in sections[1:] for name in section.get("properties", {})]


def _module(path: Path) -> ModuleType:
    """A project's `hooks.py`, imported under a name of its own and once for every change of the file.

    Raises:
        ProjectError: it does not import.
    """
    name = f"keepfit_hooks_{path.parent.name.replace('-', '_')}_{path.stat().st_mtime_ns}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ProjectError(f"{path}: is no Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ProjectError(
            f"{path}: does not import: {type(error).__name__}: {error}. Mend it; nothing of this project runs before."
        ) from error
    sys.modules[name] = module
    return module
