"""Splits: which rows a challenger learns from, which it is tuned on, and which it is judged by."""

import itertools
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from pydantic import BaseModel, Field


@dataclass(frozen=True)
class Parts:
    """The rows of one snapshot, split for one training; together they are all mature rows, and no row is in two.

    Attributes:
        immature: number of rows whose label may still change; they are in no part.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    holdout: pd.DataFrame
    immature: int = 0


class TimeSplit(BaseModel, frozen=True, extra="forbid"):
    """Hold back the newest rows, as production will meet them."""

    kind: Literal["time"] = "time"
    column: str = Field(description="the column of type datetime that orders the rows")
    holdout: float = Field(default=0.2, gt=0, lt=1, description="share of the newest rows that judges")
    validation: float = Field(
        default=0.15, gt=0, lt=1, description="share of the rows before them that stops and sets the threshold"
    )

    matures: float = Field(
        default=0,
        ge=0,
        le=36500,
        description="days until a row's label is final, counted back from the newest row; younger rows neither teach nor judge",
    )

    def apply(self, rows: pd.DataFrame) -> Parts:
        """Splits by time; rows of one instant stay together, so every holdout row is newer than every other.

        Which rows are mature follows from the rows alone, never from a clock, so a snapshot is split the same for ever.

        >>> rows = pd.DataFrame({"at": pd.date_range("2020", periods=10, tz="UTC")})
        >>> parts = TimeSplit(column="at", holdout=0.2, validation=0.25).apply(rows)
        >>> len(parts.train), len(parts.validation), len(parts.holdout)
        (6, 2, 2)
        """
        ordered = rows.sort_values(self.column, kind="stable").reset_index(drop=True)
        mature = ordered[ordered[self.column] <= ordered[self.column].max() - pd.Timedelta(days=self.matures)]
        learned, holdout = _cut(mature, self.column, self.holdout)
        train, validation = _cut(learned, self.column, self.validation)
        return Parts(train, validation, holdout, immature=len(ordered) - len(mature))

    def folds(self, rows: pd.DataFrame, count: int) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
        """Pairs (earlier rows, the rows right after them), each pair reaching further; the last one ends with the last row."""
        ordered = rows.sort_values(self.column, kind="stable").reset_index(drop=True)
        edges = [max(0, round(len(ordered) * (1 - self.validation * (count - i)))) for i in range(count + 1)]
        pairs = [(ordered.iloc[:start], ordered.iloc[start:stop]) for start, stop in itertools.pairwise(edges)]
        return [(before, after) for before, after in pairs if len(before) and len(after)]


def _cut(ordered: pd.DataFrame, column: str, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The older rows and about `share` of the newest; an instant is never cut in two."""
    if ordered.empty:
        return ordered, ordered
    edge = ordered[column].iloc[min(len(ordered) - 1, round(len(ordered) * (1 - share)))]
    newer = ordered[column] >= edge
    return ordered[~newer].reset_index(drop=True), ordered[newer].reset_index(drop=True)
