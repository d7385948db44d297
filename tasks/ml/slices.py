"""Slices: how good answers are for groups of rows, so that a good number over all hides no group that is served badly."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from tasks.config.errors import suggestion
from tasks.ml.contract import Contract
from tasks.ml.metrics import Estimate, Metric
from tasks.ml.uncertain import estimate

RESAMPLES = 200
EMPTY, OTHERS = "(empty)", "(all others)"  # a value stands behind "= ", so none reads like these
QUARTILES = (0.25, 0.5, 0.75)


class Slice(BaseModel, frozen=True):
    """The answers for one group of rows.

    Attributes:
        values: what its rows have in the column, in words.
        champion: on those of its rows that the champion has not seen; None where there is no champion or too few such rows.
        is_worse: whether its whole interval is worse than the metric over all rows.
    """

    column: str
    values: str
    rows: int
    challenger: Estimate
    champion: Estimate | None = None
    is_worse: bool = False

    @property
    def name(self) -> str:
        """`sex = F`, `age ≤ 34`."""
        return f"{self.column} {self.values}"


class Sliced(BaseModel, frozen=True):
    """The answers for every group of a holdout that is large enough.

    Attributes:
        metric: the label of what is measured.
        whole: the challenger over all rows.
        fewest: rows that a group needs; left_out: rows of each column whose group has fewer.
    """

    metric: str
    whole: Estimate
    fewest: int
    slices: tuple[Slice, ...]
    left_out: dict[str, int]

    @property
    def worse(self) -> tuple[Slice, ...]:
        """The groups that are surely worse than the whole."""
        return tuple(one for one in self.slices if one.is_worse)

    @property
    def note(self) -> str:
        """Which groups there are, in words."""
        left = [f"{rows:,} rows by {column}" for column, rows in self.left_out.items() if rows]
        return f"groups of {self.fewest:,} rows or more{'; left out: ' + ', '.join(left) if left else ''}"

    def table(self) -> dict[str, list[Any]]:
        """One row a group."""
        champions = [one.champion for one in self.slices]
        return {
            "column": [one.column for one in self.slices],
            "values": [one.values for one in self.slices],
            "rows": [one.rows for one in self.slices],
            "metric": [self.metric] * len(self.slices),
            "challenger": [one.challenger.value for one in self.slices],
            "low": [one.challenger.low for one in self.slices],
            "high": [one.challenger.high for one in self.slices],
            "champion": [said.value if said else None for said in champions],
            "champion low": [said.low if said else None for said in champions],
            "champion high": [said.high if said else None for said in champions],
            "worse than the whole": [one.is_worse for one in self.slices],
        }


class Slices(BaseModel, frozen=True, extra="forbid"):
    """Which groups of rows are looked at by themselves: each value of a text or bool, each quarter of a number."""

    columns: tuple[str, ...] = Field(default=(), description="feature columns; empty: no groups are looked at")
    fewest: int = Field(default=50, ge=10, description="rows of the holdout that a group needs to be looked at")
    most: int = Field(
        default=20, ge=1, le=200, description="values of a text column, the most frequent; the rest is one group"
    )

    def fits(self, contract: Contract) -> None:
        """Checks that every column is a feature that can be cut into groups.

        Raises:
            ValueError: one is not.
        """
        usable = [name for name in contract.features if contract.columns[name].type != "datetime"]
        for name in self.columns:
            if name not in usable:
                raise ValueError(
                    f"slices.columns names '{name}', which is no feature column of texts, numbers or bools."
                    f"{suggestion(name, usable)}"
                )
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"slices.columns names a column twice: {list(self.columns)}")

    def groups(self, features: pd.DataFrame, types: dict[str, str]) -> Iterator[tuple[str, str, np.ndarray]]:
        """Column, values in words, and the rows' places, of every group of any size: each row is in one group a column.

        Args:
            features: as `features.matrix` gives them.
            types: of the columns in the contract.
        """
        for name in self.columns:
            words, codes = (
                _quarters(features[name]) if types[name] in {"int", "float"} else self._values(features[name])
            )
            for code, word in enumerate(words):
                if len(places := np.flatnonzero(codes == code)):
                    yield name, word, places

    def _values(self, column: pd.Series) -> tuple[list[str], np.ndarray]:
        """The most frequent values first, then all others together, then the empty ones."""
        texts = column.map({0.0: "false", 1.0: "true"}) if column.dtype == "float64" else column
        codes, values = pd.factorize(texts)
        order = np.argsort(-np.bincount(codes[codes >= 0], minlength=len(values)), kind="stable")
        places = np.empty(len(values) + 1, dtype=int)
        places[order] = np.minimum(np.arange(len(values)), self.most)
        places[-1] = self.most + 1  # factorize says -1 of what is empty
        named = [f"= {value}" for value in np.asarray(values)[order][: self.most]]
        return [*named, *[""] * (self.most - len(named)), OTHERS, EMPTY], places[codes]

    def measure(
        self,
        metric: Metric,
        features: pd.DataFrame,
        types: dict[str, str],
        truth: np.ndarray,
        challenger: np.ndarray,
        champion: np.ndarray | None,
        unseen: np.ndarray,
        *,
        whole: Estimate,
        seed: int,
    ) -> Sliced | None:
        """The metric of every group that is large enough; None where the project names no column.

        Args:
            metric: what decides.
            features: the holdout, (n, columns).
            types: of the columns in the contract.
            truth: (m,), where m is n, or a multiple of it where every row is asked about more than once.
            challenger: answers, (m,) or (m, classes).
            champion: the same, or None.
            unseen: rows that the champion has not seen: (m,) bool.
            whole: the challenger's metric over all rows.
            seed: of the bootstrap.
        """
        if not self.columns:
            return None
        sure = {"resamples": RESAMPLES, "seed": seed}
        times = len(truth) // max(len(features), 1)
        made, left_out = list[Slice](), dict.fromkeys(self.columns, 0)
        for column, values, some in self.groups(features, types):
            if len(some) < self.fewest:
                left_out[column] += len(some)
                continue
            at = np.concatenate([some + turn * len(features) for turn in range(times)])
            own, new = estimate(metric, truth[at], challenger[at], **sure), at[unseen[at]]
            known = champion is not None and len(new) >= self.fewest
            made.append(
                Slice(
                    column=column, values=values, rows=len(some), challenger=own,
                    champion=estimate(metric, truth[new], champion[new], **sure) if champion is not None and known else None,
                    is_worse=bool(metric.gain(own.high if metric.greater_is_better else own.low, whole.value) < 0),
                )
            )  # fmt: skip
        return Sliced(metric=metric.label, whole=whole, fewest=self.fewest, slices=tuple(made), left_out=left_out)


def _quarters(column: pd.Series) -> tuple[list[str], np.ndarray]:
    """About a quarter of the rows each, by value, equal values together; then the empty ones."""
    known = column.to_numpy(dtype="float64")
    gone = np.isnan(known)
    edges = np.unique(np.quantile(known[~gone], QUARTILES, method="inverted_cdf")) if (~gone).any() else np.array([])
    edges = edges[edges < known[~gone].max()] if len(edges) else edges  # above the last edge there must be something
    ends = [f"{edge:.10g}" for edge in edges]
    words = [f"≤ {ends[0]}", *(f"> {low}, ≤ {high}" for low, high in pairwise(ends)), f"> {ends[-1]}"] if ends else ["any"]  # fmt: skip
    return [*words, EMPTY], np.where(gone, len(words), np.searchsorted(edges, known, side="left"))
