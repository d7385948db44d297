"""Windows: how much of the past a model learns from; neither all of it nor the newest part wins always, so the search asks."""

import math
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, model_validator

SHORTEST = 1 / 1440  # days: a minute
LONGEST = 36_500  # days: a century
STRAY = 0.01  # so few of the rows, the oldest, do not make a history longer than twice what it is without them
PARTS = (2, 4, 8)  # a window or a half-life is the history's span over one of these


class Window(BaseModel, frozen=True, extra="forbid"):
    """All rows, those of the last days, or all with weights that halve with age.

    >>> times = pd.Series(pd.date_range("2026-01-01", periods=4, freq="D", tz="UTC"))
    >>> Window(kind="last", days=2).rows(times).tolist()
    [False, False, True, True]
    >>> Window(kind="decay", days=1).weights(times, times.max()).tolist()
    [0.125, 0.25, 0.5, 1.0]
    """

    kind: Literal["all", "last", "decay"] = Field(
        default="all",
        description="'last': only the newest days; 'decay': a row weighs half when it is so many days older",
    )
    days: float | None = Field(
        default=None, ge=SHORTEST, le=LONGEST, description="length of the window, or the half-life; none for 'all'"
    )

    @model_validator(mode="after")
    def _days_where_they_count(self) -> Self:
        if (self.kind == "all") != (self.days is None):
            wanted = "takes no days: leave them out" if self.kind == "all" else "needs days, for example 90"
            raise ValueError(f"a window of kind '{self.kind}' {wanted}; days is {self.days}")
        return self

    @property
    def name(self) -> str:
        """What people and studies call it; different windows have different names."""
        if self.days is None:
            return "all"
        length = f"{self.days!r}".removesuffix(".0") + (" day" if self.days == 1 else " days")
        return f"last {length}" if self.kind == "last" else f"half-life {length}"

    def is_like(self, other: "Window") -> bool:
        """Whether it is nearer to the other than to the next length that a search offers: a growing history has others each time.

        >>> champion = Window(kind="last", days=45)
        >>> champion.is_like(Window(kind="last", days=46)), champion.is_like(Window(kind="last", days=92)), champion.is_like(Window())
        (True, False, False)
        """
        return self.kind == other.kind and self._apart(other) < math.log(2) / 2

    def nearest(self, windows: Sequence["Window"]) -> "Window":
        """The one of these windows that is nearest in length among those of its kind; where there is none of them, the first."""
        alike = [window for window in windows if window.kind == self.kind]
        return min(alike, key=self._apart) if alike else windows[0]

    def _apart(self, other: "Window") -> float:
        """How far two lengths are apart, as the logarithm of their ratio."""
        return abs(math.log((self.days or 1) / (other.days or 1)))

    def rows(self, times: pd.Series) -> np.ndarray:
        """Which rows to learn from: (n,) bool. The last k days end with the newest row; the instant k days before it is out.

        Args:
            times: instants of the rows that may be learned from, in any order; a row without one is in no window but 'all'.
        """
        if self.days is None or self.kind != "last":
            return np.ones(len(times), dtype=bool)
        return (times > times.max() - pd.Timedelta(days=self.days)).to_numpy(dtype=bool)

    def weights(self, times: pd.Series, newest: pd.Timestamp) -> np.ndarray | None:
        """How much each row counts: (n,) float in [0, 1], 1 at the newest instant and after it; None when all count alike.

        Exponential forgetting, 2 ** (-age / half-life). A row without an instant weighs nothing.
        """
        if self.days is None or self.kind != "decay":
            return None
        ages = ((newest - times) / pd.Timedelta(days=self.days)).to_numpy(dtype=float)
        return np.nan_to_num(np.exp2(-np.maximum(ages, 0.0)), nan=0.0)


def span(times: pd.Series) -> float:
    """Days from the oldest row to the newest; without a stray hundredth of the oldest where these are most of it.

    >>> times = pd.Series(pd.date_range("2026-01-01", periods=200, freq="D", tz="UTC"))
    >>> span(times), span(pd.concat([times, pd.Series(pd.to_datetime(["0001-01-01T00:00Z"]))]))
    (199.0, 198.0)
    """
    days = (times.max() - times.min()) / pd.Timedelta(days=1)
    sure = (times.max() - times.quantile(STRAY, interpolation="higher")) / pd.Timedelta(days=1)
    return sure if sure < days / 2 else days


def choices(span_days: float) -> list[Window]:
    """What a search should try on a history of so many days: all, its newest half, quarter, eighth, and half-lives alike.

    >>> [window.name for window in choices(360)]
    ['all', 'last 180 days', 'last 90 days', 'last 45 days', 'half-life 180 days', 'half-life 90 days', 'half-life 45 days']
    """
    lengths = dict.fromkeys(_legible(span_days / part) for part in PARTS)
    days = [length for length in lengths if SHORTEST <= length <= LONGEST]
    return [
        Window(),
        *(Window(kind="last", days=each) for each in days),
        *(Window(kind="decay", days=each) for each in days),
    ]


def _legible(days: float) -> float:
    """Whole days, or three digits of a part of a day."""
    return float(round(days)) if days >= 1 else float(f"{days:.3g}")
