"""Behaviour: what a model must do whatever its metric says, as the project's `behaviour` in hooks.py states it.

    from tasks.ml.behaviour import Direction, Expectation, Invariance

    def behaviour():
        return [Invariance(column="sex", within=0.1), Direction(column="TSH", by=50), Expectation(rows=[{…}], low=0.5)]

After Ribeiro et al., Beyond Accuracy: Behavioral Testing of NLP Models with CheckList, 2020: invariance, direction, minimum
functionality.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, model_validator

from tasks.config.errors import suggestion
from tasks.ml.contract import NUMERIC
from tasks.ml.features import matrix
from tasks.ml.kinds import Kind

FUNCTION = "behaviour"
ASKED = 500  # rows of the holdout, evenly over time, on which a test is made


class Behaved(BaseModel, frozen=True):
    """How a model did in one test.

    Attributes:
        test: what was asked, in words.
        rows: how many were asked about; broken: those whose answer was not as it must be.
        most: the share of the rows that may be broken.
        worst: how far the worst answer was from what it must be, in units of an answer.
    """

    test: str
    rows: int
    broken: int
    most: float
    worst: float

    @property
    def share(self) -> float:
        """Of the rows, the broken ones."""
        return self.broken / self.rows if self.rows else 0.0

    @property
    def passed(self) -> bool:
        """No more are broken than may be."""
        return self.share <= self.most


class Invariance(BaseModel, frozen=True, extra="forbid"):
    """Another value in a column must not move an answer by more than so much."""

    column: str = Field(description="the column that is altered: a row gets the value of another row, or `to`")
    to: str | float | bool | None = Field(default=None, description="the value that every row gets")
    within: float = Field(
        default=0.05, ge=0, description="how far an answer may move; of several classes the likeliest moved one"
    )
    most: float = Field(default=0.0, ge=0, le=1, description="share of the rows whose answer may move further")

    @property
    def test(self) -> str:
        """What is asked, in words."""
        to = "another row's value" if self.to is None else repr(self.to)
        return f"{to} in {self.column} moves no answer by more than {self.within:g}"

    def altered(self, features: pd.DataFrame, seed: int) -> pd.DataFrame:
        """The same rows with the column altered."""
        if self.to is not None:
            return features.assign(**{self.column: _cast(self.to, features[self.column])})
        order = np.random.default_rng(seed).permutation(len(features))
        return features.assign(**{self.column: features[self.column].to_numpy()[order]})

    def judge(self, kind: Kind, before: np.ndarray, after: np.ndarray) -> Behaved:
        """From the answers on the rows as they are and as they were altered."""
        return _behaved(self.test, kind.apart(before, after) - self.within, self.most)


class Direction(BaseModel, frozen=True, extra="forbid"):
    """More in a column of numbers must not lower an answer, or must not raise it. Of kinds whose answer is one number."""

    column: str = Field(description="the column of numbers that is raised; rows without a number stay out")
    by: float = Field(gt=0, description="how much is added")
    never: Literal["lowers", "raises"] = Field(default="lowers", description="what more of the column never does")
    within: float = Field(default=0.0, ge=0, description="how far an answer may move the wrong way")
    most: float = Field(default=0.0, ge=0, le=1, description="share of the rows whose answer may move further")

    @property
    def test(self) -> str:
        """What is asked, in words."""
        return f"{self.by:g} more {self.column} never {self.never} an answer by more than {self.within:g}"

    def altered(self, features: pd.DataFrame, seed: int) -> pd.DataFrame:  # noqa: ARG002 -- as the others
        """The same rows with more in the column."""
        return features.assign(**{self.column: features[self.column] + self.by})

    def judge(self, kind: Kind, before: np.ndarray, after: np.ndarray) -> Behaved:  # noqa: ARG002 -- as the others
        """From the answers on the rows as they are and as they were altered."""
        wrong = before - after if self.never == "lowers" else after - before
        return _behaved(self.test, wrong - self.within, self.most)


class Expectation(BaseModel, frozen=True, extra="forbid"):
    """The answer to these rows must lie between two numbers. Of kinds whose answer is one number."""

    rows: tuple[dict[str, Any], ...] = Field(
        min_length=1, description="rows as a server is asked; what is left out is empty"
    )
    low: float = Field(default=-np.inf, description="the least answer that is right")
    high: float = Field(default=np.inf, description="the greatest answer that is right")
    about: str = Field(default="", description="what these rows are, in words")
    most: float = Field(default=0.0, ge=0, le=1, description="share of the rows whose answer may lie outside")

    @model_validator(mode="after")
    def _something_is_wrong(self) -> Self:
        if self.low > self.high or (np.isinf(self.low) and np.isinf(self.high)):
            raise ValueError(
                f"low is {self.low:g} and high is {self.high:g}; wanted two bounds that some answer breaks"
            )
        return self

    @property
    def test(self) -> str:
        """What is asked, in words."""
        return f"{self.about or 'given rows'}: {len(self.rows)} answers between {self.low:g} and {self.high:g}"

    def judge(self, answers: np.ndarray) -> Behaved:
        """From the answers to the rows."""
        return _behaved(self.test, np.maximum(self.low - answers, answers - self.high), self.most)


Test = Invariance | Direction | Expectation


def fits(tests: Sequence[Test], types: Mapping[str, str], kind: Kind) -> None:
    """Checks that every test asks about columns that are there, of a kind of problem that can answer.

    Args:
        tests: of the project.
        types: of the contract's feature columns.
        kind: of the problem.

    Raises:
        ValueError: one does not.
    """
    for test in tests:
        named = {name for row in test.rows for name in row} if isinstance(test, Expectation) else {test.column}
        for name in sorted(named - types.keys()):
            raise ValueError(
                f"names '{name}', which is no feature column of the contract.{suggestion(name, list(types))}"
            )
        if isinstance(test, Direction) and types[test.column] not in NUMERIC:
            raise ValueError(
                f"raises '{test.column}', which is of type {types[test.column]}; wanted a column of numbers"
            )
        if not isinstance(test, Invariance) and not kind.is_number:
            raise ValueError(
                f"holds a {type(test).__name__}, but an answer of kind '{kind.name}' is no single number; wanted Invariance"
            )


def tried(
    tests: Sequence[Test],
    kind: Kind,
    ask: Callable[[pd.DataFrame], np.ndarray],
    features: pd.DataFrame,
    types: Mapping[str, str],
    seed: int,
) -> tuple[Behaved, ...]:
    """How a model does in every test.

    Args:
        tests: of the project.
        kind: of the problem.
        ask: the model's answers to rows of features.
        features: rows as `features.matrix` gives them, (n, columns).
        types: of the contract's feature columns.
        seed: of the values that rows exchange.
    """
    some = features.iloc[np.unique(np.linspace(0, len(features) - 1, ASKED).astype(int))].reset_index(drop=True)
    return tuple(_tried(test, kind, ask, some, types, seed) for test in tests)


def _tried(
    test: Test,
    kind: Kind,
    ask: Callable[[pd.DataFrame], np.ndarray],
    some: pd.DataFrame,
    types: Mapping[str, str],
    seed: int,
) -> Behaved:
    if isinstance(test, Expectation):
        given = pd.DataFrame(list(test.rows)).reindex(columns=list(types))
        return test.judge(ask(matrix(given, types)))
    rows = some[some[test.column].notna()] if isinstance(test, Direction) else some
    if rows.empty:
        return Behaved(test=test.test, rows=0, broken=0, most=test.most, worst=0.0)
    return test.judge(kind, ask(rows), ask(test.altered(rows, seed)))


def _behaved(test: str, beyond: np.ndarray, most: float) -> Behaved:
    """From how far each answer lies beyond what is right; what is no number is broken."""
    broken = ~(beyond <= 1e-9)  # an answer that moved by as much as it may is right, whatever the last digit
    worst = float(np.max(beyond, initial=0.0)) if len(beyond) else 0.0
    return Behaved(test=test, rows=len(beyond), broken=int(broken.sum()), most=most, worst=worst)


def _cast(value: str | float | bool, column: pd.Series) -> Any:
    """The value as the column holds it: `true` is 1 among numbers."""
    return float(value) if pd.api.types.is_numeric_dtype(column) else value
