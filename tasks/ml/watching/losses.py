"""Losses: a small forest that says how far off an answer is likely to be, from features and answer; plain numbers, so that it is kept as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel

ANSWER = ""  # the answer as a column; no column of a contract has no name
TREES, LEAVES, LISTED = (
    20,
    100,
    100,
)  # a leaf holds a hundredth of the rows at least; so many values of a text are told apart
LEAST = 20  # rows of a leaf
LEARNED = 20_000  # rows that it learns from; of more every k-th
POWERS = (1, 2, 4)  # of the absolute error: for the mean, the mean square, and the error of the latter


class Number(BaseModel, frozen=True):
    """How a column of numbers is read: what is missing lies below everything.

    Attributes:
        low, high: what was met in learning; gone: whether values were missing.
    """

    name: str
    low: float
    high: float
    gone: bool

    @classmethod
    def of(cls, name: str, values: pd.Series) -> Self:
        """What is met in these values."""
        numbers = values.to_numpy(dtype="float64")
        known = numbers[np.isfinite(numbers)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        return cls(name=name, low=low, high=high, gone=len(known) < len(numbers))

    def read(self, values: pd.Series) -> np.ndarray:
        """As numbers a tree compares: (n,)."""
        numbers = values.to_numpy(dtype="float64")
        return np.where(np.isfinite(numbers), numbers, self.low - (self.high - self.low) - 1)

    def outside(self, values: pd.Series) -> float:
        """The share of values such as was not met."""
        numbers = values.to_numpy(dtype="float64")
        beyond = (numbers < self.low) | (numbers > self.high) | (~np.isfinite(numbers) & (not self.gone))
        return float(beyond.mean())


class Text(BaseModel, frozen=True):
    """How a column of texts is read: by how far off answers are, the least first; rare and new ones stand where the mean of all is.

    Attributes:
        places: of the values that are frequent; others: of what is none of them.
        rare: the share of values in learning that were none of them.
    """

    name: str
    places: dict[str, int]
    others: float
    rare: float

    @classmethod
    def of(cls, name: str, values: pd.Series, errors: np.ndarray) -> Self:
        """The places of the most frequent values."""
        counts = values.value_counts()
        frequent = counts[counts >= LEAST].index[:LISTED]
        ordered = pd.Series(errors).groupby(values.to_numpy()).mean()[frequent].sort_values(kind="stable")
        below = float((ordered < errors.mean()).sum())
        places = {str(value): place for place, value in enumerate(ordered.index)}
        return cls(name=name, places=places, others=below - 0.5, rare=_others(values, places))

    def read(self, values: pd.Series) -> np.ndarray:
        """As numbers a tree compares: (n,)."""
        return values.map(self.places).astype("float64").fillna(self.others).to_numpy()

    def outside(self, values: pd.Series) -> float:
        """By how much the share of rare and new values has grown."""
        return max(_others(values, self.places) - self.rare, 0.0)


class Tree(BaseModel, frozen=True):
    """A tree: at each node the column and what it is compared with, and where to go; a leaf leads to itself.

    Attributes:
        means: of each power of the absolute error, by node.
    """

    column: tuple[int, ...]
    bar: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    depth: int
    means: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def grown(cls, tree: Any, read: np.ndarray, powers: np.ndarray) -> Self:
        """A tree of scikit-learn, with the means of all rows in each leaf.

        Args:
            tree: `DecisionTreeRegressor.tree_`.
            read: (n, columns) float32.
            powers: (n, 3) of the errors.
        """
        own, inner = np.arange(tree.node_count), tree.children_left >= 0
        shape = cls(
            column=tuple(np.where(inner, tree.feature, 0).tolist()), bar=tuple(np.where(inner, tree.threshold, 0.0).tolist()),
            left=tuple(np.where(inner, tree.children_left, own).tolist()), right=tuple(np.where(inner, tree.children_right, own).tolist()),
            depth=int(tree.max_depth),
        )  # fmt: skip
        leaf = shape.leaf(read)
        rows = np.maximum(np.bincount(leaf, minlength=len(own)), 1)
        sums = [np.bincount(leaf, weights=power, minlength=len(own)) / rows for power in powers.T]
        return shape.model_copy(update={"means": tuple(tuple(each.tolist()) for each in sums)})

    def leaf(self, read: np.ndarray) -> np.ndarray:
        """The node that each row ends in: (n,)."""
        column, bar, left, right = (np.array(part) for part in (self.column, self.bar, self.left, self.right))
        node, rows = np.zeros(len(read), dtype=int), np.arange(len(read))
        for _ in range(self.depth):
            node = np.where(read[rows, column[node]] <= bar[node], left[node], right[node])
        return node


class Forest(BaseModel, frozen=True):
    """How far off answers are likely to be; over the rows that it was learned from its mean is theirs.

    Attributes:
        columns: how each is read, the answer last; columns of times always move, and are not among them.
    """

    columns: tuple[Number | Text, ...]
    trees: tuple[Tree, ...]

    @classmethod
    def of(cls, features: pd.DataFrame, answers: np.ndarray, errors: np.ndarray, seed: int) -> Self:
        """Learns from rows whose outcomes are known.

        Args:
            features: as `features.matrix` gives them.
            answers: (n,).
            errors: (n,) truth less answer.
            seed: of what is drawn.
        """
        from sklearn.ensemble import RandomForestRegressor

        some = slice(None, None, -(-len(answers) // LEARNED))
        rows, size = _with_answers(features.iloc[some], answers[some]), np.abs(errors[some])
        columns = tuple(_column(name, rows[name], size) for name in rows if not _is_time(rows[name]))
        read = _read(columns, rows)
        aims = np.stack([size, size**2], axis=1)
        scale = np.maximum(aims.std(axis=0), 1e-300)
        forest = RandomForestRegressor(
            TREES, min_samples_leaf=max(LEAST, len(size) // LEAVES), max_features=1 / 3, random_state=seed, n_jobs=1
        ).fit(read, aims / scale)
        powers = np.stack([size**power for power in POWERS], axis=1)
        return cls(columns=columns, trees=tuple(Tree.grown(one.tree_, read, powers) for one in forest.estimators_))

    def means(self, features: pd.DataFrame, answers: np.ndarray) -> np.ndarray:
        """What is expected of each power of the absolute error, as a mean over the rows: (3,)."""
        read = _read(self.columns, _with_answers(features, answers))
        each = [np.array(tree.means)[:, tree.leaf(read)].mean(axis=1) for tree in self.trees]
        return np.mean(each, axis=0)

    def outside(self, features: pd.DataFrame, answers: np.ndarray) -> dict[str, float]:
        """By column the share of rows such as it has not learned from."""
        rows = _with_answers(features, answers)
        return {column.name or "the answer": column.outside(rows[column.name]) for column in self.columns}


def _others(values: pd.Series, places: Mapping[str, int]) -> float:
    """The share of values that have no place; what is missing is none."""
    return float((~values.isin(places.keys()) & values.notna()).mean())


def _with_answers(features: pd.DataFrame, answers: np.ndarray) -> pd.DataFrame:
    return features.reset_index(drop=True).assign(**{ANSWER: np.asarray(answers, dtype="float64")})


def _column(name: str, values: pd.Series, errors: np.ndarray) -> Number | Text:
    return Number.of(name, values) if pd.api.types.is_numeric_dtype(values) else Text.of(name, values, errors)


def _is_time(values: pd.Series) -> bool:
    return pd.api.types.is_datetime64_any_dtype(values)


def _read(columns: Sequence[Number | Text], rows: pd.DataFrame) -> np.ndarray:
    """As trees compare them: scikit-learn grows them on 32-bit floats."""
    return np.stack([column.read(rows[column.name]) for column in columns], axis=1).astype("float32")
