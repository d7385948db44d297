"""A project: `project.yaml`, checked and assembled from each part's own config class, with its `hooks.py` beside it."""

import importlib.util
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Self

import pandas as pd
from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tasks.config import written
from tasks.config.destinations import Notify
from tasks.config.errors import ProjectError, suggestion
from tasks.config.names import PROJECT, is_project
from tasks.config.settings import Settings
from tasks.ml import behaviour, kinds, models
from tasks.ml.caps import Breaker, Budget
from tasks.ml.computed import FUNCTION, Computed, Computing, defines
from tasks.ml.contract import Column, Contract
from tasks.ml.features import matrix
from tasks.ml.gates import ALL, Gate
from tasks.ml.identity import digest
from tasks.ml.leaks import Leaks
from tasks.ml.metrics import METRICS, Cost, Metric, Name, metrics_of
from tasks.ml.policy import OnBatch, Policies
from tasks.ml.profile import Expectations
from tasks.ml.proof import Proving
from tasks.ml.reading import Reading
from tasks.ml.rollout import RolloutPlan
from tasks.ml.search import Search
from tasks.ml.slices import Slices
from tasks.ml.split import Split
from tasks.ml.told import words
from tasks.ml.trusted import Trusted
from tasks.ml.watching.plan import WatchPlan
from tasks.sources.hook import Hooks
from tasks.sources.scores import Scores
from tasks.sources.source import Sources

COMPUTES = ("binary", "multiclass", "regression")  # kinds whose models may read computed columns
UNDECIDING: dict[str, Any] = {
    "retrain": True,
    "watch": True,
    "budget": True,
    "breaker": True,
    "hooks": True,
    "prove": True,
    "about": True,
    "sources": True,
    "scores": True,
    "notify": True,
    "release": {"hand_made", "rollout"},
}
"""Keys that decide nothing about a model."""
TOLD = {"kind", "positive", "user", "k", "metric", "floor", "cost", "alerts", "slices"}
"""Keys beside `gates` that say what gates ask."""
NAME = rf"^{PROJECT}$"


class ReleasePolicy(BaseModel, frozen=True, extra="forbid"):
    """What happens to a challenger that passed every gate."""

    by: Literal["itself", "person"] = Field(
        default="itself", description="'person': it is registered and waits for `keepfit approve`"
    )
    hand_made: Literal["put_back", "accept"] = Field(
        default="put_back",
        description="what becomes of an alias @champion that somebody moved in MLflow; 'accept': the version that it names is released "
        "as by `keepfit release`, if it may be, else the alias is put back",
    )
    rollout: RolloutPlan = RolloutPlan()


class Project(BaseModel, frozen=True, extra="forbid"):
    """One use case: what the rows are, what to predict, how to judge, when to retrain."""

    project: str = Field(pattern=NAME, description="name; the same as the folder's")
    about: str = Field(default="", description="one sentence for the model card")
    kind: kinds.Name = Field(default="binary", description="what is predicted: see tasks/ml/kinds.py")
    positive: str | bool | int = Field(default=True, description="binary: the target's value that is predicted")
    labels: tuple[str, ...] = Field(
        default=("no", "yes"),
        description="binary: how a person calls the two classes: negative, positive; multiclass: the target's values",
    )
    user: str | None = Field(default=None, description="recommendation: the feature column that says who took the item")
    k: int = Field(default=10, ge=1, le=100, description="recommendation: how many items are named, the best first")
    metric: Name = Field(default="roc_auc", description="what decides; when left out, the usual one of the kind")
    floor: float | None = Field(
        default=None,
        description="the worst value of the metric that is of any use: drawn as a line, and asked by the gate `floors`",
    )
    reads: Reading = Reading()
    expects: Expectations = Expectations()
    contract: Contract
    computed: dict[str, Computed] = Field(
        default={},
        description="columns that `features` in hooks.py makes of the contract's, at training and at serving",
    )
    split: Split
    trusted: Trusted = Trusted()
    leaks: Leaks = Leaks()
    search: Search = Search()
    cost: Cost = Field(default=Cost(), description="binary: what wrong decisions cost; sets the threshold")
    alerts: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of the rows that may be called positive, or odd; sets the threshold in place of `cost`",
    )
    slices: Slices = Slices()
    gates: tuple[Gate, ...] = Field(default=ALL, min_length=1)
    prove: Proving = Proving()
    release: ReleasePolicy = ReleasePolicy()
    retrain: Policies = (OnBatch(),)
    watch: WatchPlan = WatchPlan()
    budget: Budget = Budget()
    breaker: Breaker = Breaker()
    hooks: Hooks = ()
    sources: Sources = ()
    scores: Scores = ()
    notify: Notify = Notify()

    _hooks: str = PrivateAttr(default="")  # the text of hooks.py, where models are made or judged by it

    @model_validator(mode="before")
    @classmethod
    def _what_the_kind_usually_has(cls, given: Any) -> Any:
        """Metric, gates, families and the labels of several classes follow from the kind where the project is silent."""
        kind = kinds.KINDS.get(given.get("kind", "binary")) if isinstance(given, dict) else None
        if kind is None:
            return given
        search = given.get("search", {})
        families: dict[str, Any] = {"families": models.families_of(kind.name)}
        usual: dict[str, Any] = {"metric": kind.metric, "gates": [{"kind": gate} for gate in kind.gates]}
        if kind.name == "recommendation":
            families["columns"] = False  # the user's alone is read
            usual["trusted"] = {"share": 0}  # taste moves: what people took long ago would hold every refresh
        return usual | given | ({"search": families | search} if isinstance(search, dict) else {}) | _classes(given)

    @field_validator("contract")
    @classmethod
    def _a_target_to_learn_from(cls, contract: Contract, info: ValidationInfo) -> Contract:
        kind = kinds.KINDS.get(info.data.get("kind", ""))
        if kind and kind.needs_labels and contract.target is None:
            raise ValueError(
                f"lacks a target, from which kind '{kind.name}' learns. Name the column to predict as `target`; `kind: anomaly` needs none"
            )
        return contract

    @field_validator("gates")
    @classmethod
    def _each_gate_once(cls, gates: tuple[Gate, ...]) -> tuple[Gate, ...]:
        kinds = [gate.kind for gate in gates]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"each gate may stand here once; given: {kinds}")
        return gates

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        self._split_fits()
        self._kind_fits()
        self._computed_fit()
        self.leaks.fits(self.whole)
        self.slices.fits(self.whole)
        self._gates_fit()
        self._hooks_fit()
        if self.search.seconds >= self.budget.hours * 3600:
            raise ValueError(
                f"search.seconds is {self.search.seconds:g}, but a training is ended after budget.hours, which are {self.budget.hours * 3600:g} s. "
                "Raise budget.hours, or search for a shorter time"
            )
        if strange := [name for name in self.release.rollout.canary.key if name not in self.contract.columns]:
            known = list(self.contract.columns)
            raise ValueError(
                f"release.rollout.canary.key names '{strange[0]}', which is no column of the contract. Columns: {known}.{suggestion(strange[0], known)}"
            )
        if not self.contract.features:
            raise ValueError("the contract has no feature: every column is key, time or target")
        return self

    def _hooks_fit(self) -> None:
        known = [source.name for source in self.sources]
        for hook in self.hooks:
            if hook.does == "land" and hook.source not in known:
                raise ValueError(
                    f"hooks: '{hook.name}' lands from source {hook.source!r}, which is not declared under `sources`. Sources: {known}."
                    f"{suggestion(hook.source or '', known)}"
                )

    def _gates_fit(self) -> None:
        usable = [name for name in self.beside if self.beside[name] != "datetime"]
        for gate in self.gates:
            for name in gate.columns if gate.kind == "fairness" else ():
                if name not in usable:
                    raise ValueError(
                        f"gates: fairness names '{name}', which is no column of texts, numbers or bools beside key and target."
                        f"{suggestion(name, usable)}"
                    )
            for name in gate.floors if gate.kind == "floors" else ():
                if name not in metrics_of(self.kind):
                    raise ValueError(
                        f"gates: floors names '{name}', which cannot judge kind '{self.kind}'. Wanted: {', '.join(metrics_of(self.kind))}"
                    )

    def _split_fits(self) -> None:
        columns = self.contract.columns
        for name, kind in self.split.columns_needed().items():
            usable = [known for known, column in columns.items() if kind is None or column.type == kind]
            if name in usable:
                continue
            what = f"which is not a {kind} column of the contract" if kind else "which is no column of the contract"
            field = "group" if kind is None else "column"
            shown = f"Columns of type {kind}" if kind else "Columns"
            raise ValueError(
                f"split.{field} is '{name}', {what}. {shown}: {usable}.{suggestion(name, usable)}"
            )  # fmt: skip

    def _kind_fits(self) -> None:
        target = self.contract.columns.get(self.contract.target or "")
        usable = metrics_of(self.kind)
        if self.metric not in usable:
            raise ValueError(
                f"metric is '{self.metric}', which cannot judge kind '{self.kind}'. Wanted: {', '.join(usable)}"
            )
        strange = [name for name in self.search.families if self.kind not in models.FAMILIES[name].fits]
        if strange:
            fitting = [name for name, family in models.FAMILIES.items() if self.kind in family.fits]
            raise ValueError(
                f"search.families has {', '.join(strange)}, which cannot learn kind '{self.kind}'. Wanted: {', '.join(fitting)}"
            )
        if self.kind == "binary" and len(self.labels) != 2:
            raise ValueError(
                f"labels has {len(self.labels)} names; kind 'binary' has two: the negative one, the positive one"
            )
        if self.kind == "binary" and (crossed := self._crossed):
            raise ValueError(
                f"labels are {list(self.labels)}, negative and positive, but {self.contract.target} has '{crossed}' for the other one: a prediction "
                "or an outcome of that name could be either. Give the labels other names, or turn them round"
            )
        if self.kind == "multiclass" and len(set(self.labels)) < 3:
            raise ValueError(
                f"labels are {list(self.labels)}; kind 'multiclass' needs the three or more values of {self.contract.target}: "
                "name them here, or as the column's `categories`"
            )
        if self.kind == "regression" and target is not None and target.type not in {"int", "float"}:
            raise ValueError(
                f"{self.contract.target} is of type {target.type}; kind 'regression' predicts a number: int or float"
            )
        if self.kind == "recommendation" and target is not None:
            self._user_fits(target)

    def _user_fits(self, target: Column) -> None:
        usable = [name for name in self.contract.features if self.contract.columns[name].type != "datetime"]
        if self.user not in usable:
            raise ValueError(
                f"user is {self.user!r}; kind 'recommendation' needs the feature column that says who took the item. "
                f"Features: {usable}.{suggestion(self.user or '', usable)}"
            )
        if target.type not in {"text", "category"}:
            raise ValueError(
                f"{self.contract.target} is of type {target.type}; kind 'recommendation' names items: text or category"
            )
        if self.search.columns:
            raise ValueError(
                "search.columns asks which columns to leave out, but kind 'recommendation' reads its user alone: leave it away"
            )

    def _computed_fit(self) -> None:
        if twice := [name for name in self.computed if name in self.contract.columns]:
            raise ValueError(f"computed names '{twice[0]}', which is a column of the contract. Give it another name")
        if self.computed and self.kind not in COMPUTES:
            raise ValueError(
                f"computed is for the kinds {', '.join(COMPUTES)}; a model of kind '{self.kind}' is judged by columns of different rows together. "
                "Derive the columns at landing: `derive` in hooks.py"
            )

    @classmethod
    def named(cls, name: str, settings: Settings | None = None) -> "Project":
        """The project in the folder of that name.

        Raises:
            ProjectError: there is none, or it does not load; the message names file and key.
        """
        settings = settings or Settings()
        folder = settings.projects
        if not is_project(name):
            raise ProjectError(
                f"{name[:60]!r} is no name of a project. Wanted: a small letter, then at most 39 small letters, digits, '-' or '_'."
            )
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

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides about a model: everything but the time to retrain."""
        return digest([self.model_dump(mode="json", exclude=UNDECIDING), self._hooks])

    @property
    def bars(self) -> dict[str, str]:
        """What a challenger is asked, by name, each as its digest: every gate with its parameters, and what gates are told of the project."""
        told = self.model_dump(mode="json", include=TOLD)
        gates = {f"gate {gate.kind}": gate.model_dump(mode="json") for gate in self.gates}
        rules = self._hooks if defines(self._hooks, behaviour.FUNCTION) else ""
        asked = told | gates | {f"{behaviour.FUNCTION} in hooks.py": rules}
        return {name: digest(what)[:16] for name, what in asked.items()}

    def __hash__(self) -> int:
        """By what it says."""
        return hash(self.digest)

    @cached_property
    def task(self) -> kinds.Kind:
        """What the kind of this problem knows, about this target."""
        target = self.contract.target or ""  # only a kind that needs no labels has none
        match self.kind:
            case "binary":
                labels = (self.labels[0], self.labels[1])
                return kinds.Binary(target, self.positive, labels, self.cost, self.alerts, *self._own)
            case "multiclass":
                return kinds.Multiclass(target, tuple(sorted(self.labels)))
            case "regression":
                return kinds.Regression(target)
            case "anomaly":
                return kinds.Anomaly(self.alerts or kinds.Anomaly.alerts)
            case "recommendation":
                return kinds.Recommendation(target, str(self.user), self.k)

    @property
    def _own(self) -> tuple[tuple[str | bool | int, ...], bool]:
        """The values of the target of two classes as far as they are known, and whether they are all."""
        column = self.contract.columns[self.contract.target or ""]
        if column.type == "bool":
            return (False, True), True
        if column.type == "int" and self.positive in {0, 1}:
            return (0, 1), False  # the other one may be -1
        return (column.categories, True) if column.categories else ((self.positive,), False)

    @property
    def _crossed(self) -> str | None:
        """A value of the target of two classes that is the label of the other one."""
        own, _ = self._own
        means = zip(own, self.task.meant(own), strict=True)
        return next((words(value)[0] for value, meant in means if value != meant), None)

    def labelled(self, rows: pd.DataFrame) -> pd.Series:
        """Which rows may teach and judge: those whose target is known; all of them where the kind needs none."""
        target = self.contract.target
        known = rows[target].notna() if target else pd.Series(data=False, index=rows.index)
        return known | (not self.task.needs_labels)

    @property
    def whole(self) -> Contract:
        """The contract with the computed columns behind its own."""
        added = {name: each.column for name, each in self.computed.items()}
        if not added:
            return self.contract
        return self.contract.model_copy(update={"columns": self.contract.columns | added})

    @property
    def features(self) -> "dict[str, Column]":
        """The columns that a model may read: the contract's in its order, then the computed ones."""
        return {name: self.whole.columns[name] for name in self.whole.features}

    @property
    def types(self) -> dict[str, str]:
        """The type of each of them by name."""
        return {name: column.type for name, column in self.features.items()}

    @property
    def beside(self) -> dict[str, str]:
        """The type of every column that says what a row is about: all but target and key, of which the time counts, read by models or not."""
        names = set(self.whole.columns) - ({*self.contract.key, self.contract.target} - {self.contract.time})
        return {name: column.type for name, column in self.whole.columns.items() if name in names}

    @property
    def computing(self) -> Computing | None:
        """How its computed columns are made as its folder says now; None where it has none."""
        types = {name: each.type for name, each in self.computed.items()}
        return Computing(self._hooks, types) if types else None

    def with_hooks(self, source: str) -> Self:
        """The same project whose computed columns are made, and whose rules of behaviour are stated, by this text of hooks.py."""
        other = self.model_copy()
        other._hooks = source if self.computed or defines(source, behaviour.FUNCTION) else ""
        return other

    @property
    def sent(self) -> dict[str, str]:
        """The type of every column that a server is asked with."""
        return {name: self.contract.columns[name].type for name in self.contract.features}

    def completed(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows with the contract's columns, with the computed ones behind them, in place of what landed under their names before.

        Raises:
            ComputedError: hooks.py does not give what project.yaml declares.
        """
        if self.computing is None:
            return rows
        landed = rows.drop(columns=[name for name in self.computed if name in rows])
        return pd.concat([landed, self.computing.of(matrix(rows, self.sent))], axis=1)

    @property
    def judged_positive(self) -> str | bool | int | None:
        """The target's value whose share in batches is watched; None where the kind has no such."""
        return self.positive if self.kind == "binary" else None

    def behaviour(self, settings: Settings | None = None) -> tuple[behaviour.Test, ...]:
        """What `behaviour` in hooks.py says that every model must do; nothing where there is none.

        Raises:
            ProjectError: it says something else.
        """
        hook = self.hook(behaviour.FUNCTION, settings)
        tests = tuple(hook()) if hook else ()
        try:
            if strange := [test for test in tests if not isinstance(test, behaviour.Test)]:
                raise ValueError(f"gives a {type(strange[0]).__name__}; wanted Invariance, Direction or Expectation")
            behaviour.fits(tests, self.sent, self.task)
        except ValueError as error:
            raise ProjectError(f"{self.project}/hooks.py: {behaviour.FUNCTION} {error}") from error
        return tests

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
    project = written.read(path, Project, "A project needs at least: project, contract, split.")
    if project.project != folder.name:
        raise ProjectError(
            f"{path}: project is '{project.project}', but the folder is '{folder.name}'. Give both the same name."
        )
    return _with_hooks(project, folder / "hooks.py")


def _with_hooks(project: Project, path: Path) -> Project:
    """The project with the text of its hooks, as far as models are made or judged by it."""
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    if project.computed and not defines(source):
        raise ProjectError(
            f"{path}: has no function {FUNCTION}, but project.yaml declares computed columns: {', '.join(project.computed)}. "
            f"Write `def {FUNCTION}(rows: pd.DataFrame) -> pd.DataFrame`, or declare none."
        )
    if defines(source) and not project.computed:
        raise ProjectError(
            f"{path}: has a function {FUNCTION}, but project.yaml declares no column that it makes. Name each one and its type under "
            "`computed`, or give the function another name."
        )
    return project.with_hooks(source)


def _classes(given: dict[str, Any]) -> dict[str, Any]:
    """The labels of several classes, from the categories of the target, when the project says them there only."""
    contract = given.get("contract")
    if given.get("kind") != "multiclass" or "labels" in given or not isinstance(contract, dict):
        return {}
    columns, target = contract.get("columns"), contract.get("target")
    column = columns.get(target) if isinstance(columns, dict) else None
    categories = column.get("categories") if isinstance(column, dict) else None
    return {"labels": categories or []}


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
