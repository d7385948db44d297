"""Computed columns: what a project's own `features` makes of the contract's columns, at training and at serving alike.

The code is a text here, not a file: a version is asked with the text that it was trained with, whatever the folder says since.
"""

import ast
import functools
import hashlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from tasks.config.errors import KeepfitError
from tasks.ml.contract import Column
from tasks.ml.features import readable

FUNCTION, FILE = "features", "hooks.py"
OWN = frozenset({"deployments", "flows", "tasks"})  # packages of this repository: they change without the model
ALONE = 24  # rows that are computed once more by themselves
EXACT = 1e-9  # of a number: vectorised arithmetic may differ in the last digits


class ComputedError(KeepfitError):
    """A project's `features` does not run, or gives what is none; the message repeats no value of a row."""


class Computed(BaseModel, frozen=True, extra="forbid"):
    """One column that `features` in hooks.py makes. It may be empty where it cannot be computed."""

    type: Literal["float", "bool", "text"] = "float"
    about: str = Field(default="", description="what it means, with its unit")

    @property
    def column(self) -> Column:
        """The same as models read it."""
        return Column(type=self.type, nullable=True, about=self.about)


def defines(source: str, function: str = FUNCTION) -> bool:
    """Whether a text of hooks.py has a function of that name; nothing of it runs.

    >>> defines("def derive(rows): ..."), defines("def features(rows): ..."), defines("no Python")
    (False, True, False)
    """
    try:
        return any(isinstance(part, ast.FunctionDef) and part.name == function for part in ast.parse(source).body)
    except SyntaxError:
        return False


@dataclass(frozen=True)
class Computing:
    """The function `features` of one text of hooks.py, and the columns that it must give.

    Attributes:
        source: the text. Whoever makes this vouches for it: it is executed.
        types: of its columns by name, as `Computed.type`.
    """

    source: str
    types: Mapping[str, str]

    def ready(self) -> Callable[[pd.DataFrame], Any]:
        """The function, compiled and imported once a process.

        Raises:
            ComputedError: it cannot be.
        """
        return _function(self.source)

    def add(self, raw: pd.DataFrame) -> pd.DataFrame:
        r"""The rows with the computed columns behind their own.

        >>> raw = pd.DataFrame({"amount": [3.0, 5.0]})
        >>> twice = "def features(rows):\n    return rows[['amount']].mul(2).set_axis(['twice'], axis=1)"
        >>> Computing(twice, {"twice": "float"}).add(raw).to_dict("list")
        {'amount': [3.0, 5.0], 'twice': [6.0, 10.0]}
        """
        return pd.concat([raw, self.of(raw)], axis=1)

    def of(self, raw: pd.DataFrame) -> pd.DataFrame:
        """The computed columns as `features.matrix` gives others: float and bool as float64, text as pandas' `str`; missing is NaN.

        Args:
            raw: every feature column of the contract, as `features.matrix` gives them.

        Raises:
            ComputedError: the function raises, or gives other rows or columns than it must, or values that are none.
        """
        return self._checked(raw, self.ready())

    def leave_empty(self, raw: pd.DataFrame) -> pd.DataFrame:
        """As `add`, with nothing in the computed columns and without running anything."""
        return pd.concat([raw, self._missing(raw)], axis=1)

    def entangled(self, raw: pd.DataFrame, seed: int) -> str:
        """Why what a row gets depends on more than the row, or nothing.

        Some rows are computed once more, each alone, by code that has seen no other row.
        """
        asked, fresh = raw.reset_index(drop=True), _compiled(self.source, "alone")
        together = self.of(asked)
        for place in np.sort(np.random.default_rng(seed).permutation(len(asked))[:ALONE]):
            alone = self._checked(asked.iloc[[place]], fresh)
            for name, kind in self.types.items():
                if not _same(together[name].iloc[place], alone[name].iloc[0], kind):
                    return (
                        f"hooks.py: '{name}' of a row is another one when the row is computed alone than within {len(asked):,} rows. Rehearsed rows come "
                        f"alone: let {FUNCTION} look at one row at a time, without means, ranks, neighbours, chance or the clock"
                    )
        return ""

    def _checked(self, raw: pd.DataFrame, make: Callable[[pd.DataFrame], Any]) -> pd.DataFrame:
        asked = raw.reset_index(drop=True)
        if asked.empty:
            return self._missing(raw)
        try:
            with np.errstate(all="ignore"):
                made = make(asked.copy(deep=False))
        except Exception as error:
            raise ComputedError(
                f"hooks.py{_line(error)}: {FUNCTION} raises {type(error).__name__} on {len(raw):,} rows. Wanted: columns for every row "
                f"that the contract allows. It is given: {', '.join(asked.columns)}."
            ) from error
        if not isinstance(made, pd.DataFrame) or not made.index.equals(asked.index):
            met = f"{len(made):,} rows" if isinstance(made, pd.DataFrame) else type(made).__name__
            raise ComputedError(
                f"hooks.py: {FUNCTION} gives {met} for {len(raw):,} rows. Wanted: a frame with the same rows in the same order."
            )
        self._are_the_declared(made, asked)
        return pd.DataFrame({name: _column(made[name], name, kind) for name, kind in self.types.items()}).set_axis(
            raw.index
        )

    def _missing(self, raw: pd.DataFrame) -> pd.DataFrame:
        nothing = pd.Series(None, index=raw.index, dtype="object")
        return pd.DataFrame({name: _column(nothing, name, kind) for name, kind in self.types.items()})

    def _are_the_declared(self, made: pd.DataFrame, asked: pd.DataFrame) -> None:
        names = [str(name) for name in made.columns]
        if sorted(names) == sorted(self.types):
            return
        strange = [f"'{name}'{' (of the contract)' if name in asked else ''}" for name in names if name not in self.types]  # fmt: skip
        twice = [f"'{name}' twice" for name in self.types if names.count(name) > 1]
        gone = [f"no '{name}'" for name in self.types if name not in names]
        raise ComputedError(
            f"hooks.py: {FUNCTION} gives {', '.join([*strange, *twice, *gone])}. Wanted: exactly the columns that project.yaml declares under "
            f"`computed`: {', '.join(self.types)}."
        )


def _column(values: pd.Series, name: str, kind: str) -> pd.Series:
    known = values.dropna()
    if kind == "text":
        if not known.map(lambda value: isinstance(value, str)).all():
            raise ComputedError(_other(name, values, "texts"))
        return values.astype("string").astype("str")
    if not (known.empty or pd.api.types.is_numeric_dtype(known.infer_objects())):
        raise ComputedError(_other(name, values, "numbers" if kind == "float" else "true and false"))
    numbers = pd.Series(np.nan, values.index, dtype="float64") if known.empty else values.astype("Float64")
    numbers = numbers.astype("float64")
    if infinite := int(np.isinf(numbers).sum()):
        raise ComputedError(
            f"hooks.py: '{name}' is infinite in {infinite:,} of {len(values):,} rows. Wanted: finite numbers, or NaN where nothing can be computed."
        )
    if kind == "bool" and not numbers.dropna().isin([0.0, 1.0]).all():
        raise ComputedError(_other(name, values, "true and false"))
    return readable(numbers)


def _other(name: str, values: pd.Series, wanted: str) -> str:
    return f"hooks.py: '{name}' holds {values.dtype}; wanted {wanted}, as project.yaml declares it under `computed`, or nothing."


def _same(one: Any, other: Any, kind: str) -> bool:
    if pd.isna(one) or pd.isna(other):
        return bool(pd.isna(one) and pd.isna(other))
    return one == other if kind == "text" else bool(np.isclose(one, other, rtol=EXACT, atol=0.0))


def _line(error: Exception) -> str:
    """`:12`, the line of hooks.py that raised; what was raised may hold a value of a row."""
    places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    return f":{places[-1]}" if places else ""


@functools.lru_cache(maxsize=64)
def _function(source: str) -> Callable[[pd.DataFrame], Any]:
    return _compiled(source, "")


def _compiled(source: str, purpose: str) -> Callable[[pd.DataFrame], Any]:
    """The function of a text, in a module of its own."""
    name = f"keepfit_features_{hashlib.sha256(source.encode()).hexdigest()[:16]}{purpose}"
    module = ModuleType(name)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        tree = ast.parse(source, FILE)
        if stays := sorted(_stays_behind(tree)):
            raise ComputedError(
                f"hooks.py: imports {', '.join(stays)}, which does not travel with the model. Wanted: installed packages alone; "
                f"write what {FUNCTION} needs into hooks.py."
            )
        exec(compile(tree, FILE, "exec"), module.__dict__)  # noqa: S102 -- the project's own code, see `Computing.source`
        return getattr(module, FUNCTION)
    except ComputedError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise ComputedError(
            f"hooks.py: does not import without its folder: {type(error).__name__}: {error}. Wanted: a function {FUNCTION} that needs installed "
            "packages alone, no file beside it."
        ) from error


def _stays_behind(tree: ast.Module) -> set[str]:
    """The modules of this repository that a text imports anywhere."""
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return {name for name in names if name.startswith(".") or name.split(".")[0] in OWN}
