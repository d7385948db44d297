"""Encoding: columns of rows as the float64 array that a model scores; each block makes some of its columns."""

import datetime as dt
from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, Protocol

import msgspec
import numpy as np

DAY = 86_400_000_000  # microseconds
EPOCH, MICROSECOND = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(microseconds=1)
GONE = np.iinfo(np.int64).min  # a moment that is missing, as numpy writes NaT


class Given(Protocol):
    """Rows that are asked about, by column."""

    @property
    def count(self) -> int:
        """How many rows."""
        ...

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) float64, NaN for missing."""
        ...

    def texts(self, columns: Sequence[str]) -> Sequence[Sequence[Any]]:
        """Of each column its n texts, None for missing."""
        ...

    def moments(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) int64: microseconds since 1970 in UTC, `GONE` for missing."""
        ...


class Rows:
    """Checked rows as tuples in the order of the features: numbers and truths, texts, times in ISO 8601; None for missing."""

    def __init__(self, places: dict[str, int], rows: Sequence[tuple[Any, ...]]) -> None:
        self._places, self._rows = places, rows

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self._rows)

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) float64, NaN for missing."""
        return np.array(self._chosen(columns), dtype=np.float64)

    def texts(self, columns: Sequence[str]) -> list[list[Any]]:
        """Of each column its n texts, None for missing."""
        return [[row[place] for row in self._rows] for place in map(self._places.__getitem__, columns)]

    def moments(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) int64, `GONE` for missing."""
        rows = [[GONE if value is None else microseconds(value) for value in row] for row in self._chosen(columns)]
        return np.array(rows, dtype=np.int64)

    def _chosen(self, columns: Sequence[str]) -> Sequence[Iterable[Any]]:
        """The rows with these columns alone."""
        if tuple(columns) == tuple(self._places):
            return self._rows
        places = [self._places[name] for name in columns]
        if len(places) == 1:
            return [(row[places[0]],) for row in self._rows]
        return list(map(itemgetter(*places), self._rows))


class Numbers(msgspec.Struct, frozen=True, tag="numbers"):
    """Numbers as they are; where `filled`, holes get the usual value, and some columns say beside it that there was one.

    Attributes:
        filled: (columns,) what stands for a missing value.
        told: places of the columns whose holes are told, as 0 or 1, behind the numbers.
        center, spread: (columns + told,) subtracted, then divided by.
    """

    columns: tuple[str, ...]
    filled: np.ndarray | None = None
    told: tuple[int, ...] = ()
    center: np.ndarray | None = None
    spread: np.ndarray | None = None

    def of(self, given: Given) -> np.ndarray:
        """(n, columns + told) float64."""
        return self.done(given.numbers(self.columns))

    def done(self, values: np.ndarray) -> np.ndarray:
        """The same of numbers that are there already."""
        if self.filled is not None:
            holes = np.isnan(values)
            values = np.where(holes, self.filled, values)
            if self.told:
                values = np.concatenate([values, holes[:, self.told]], axis=1)
        if self.center is not None:
            values = values - self.center
        return values if self.spread is None else values / self.spread


class Texts(msgspec.Struct, frozen=True, dict=True, tag="texts"):
    """Texts by table: whatever a fitted encoder makes of a value stands in the value's row.

    Attributes:
        values: of each column those that have a row.
        tables: of each column (values + 2, its made columns): the last rows but one is for values without a row, the last for missing.
        places: of each column where among the made ones its columns stand.
        rest: (width,) what stands where no column says otherwise.
    """

    columns: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    tables: tuple[np.ndarray, ...]
    places: tuple[tuple[int, ...], ...]
    rest: np.ndarray

    def of(self, given: Given) -> np.ndarray:
        """(n, width) float64."""
        texts = given.texts(self.columns)
        if self._single is not None:
            return self._looked_up(texts, self._single)
        made = np.tile(self.rest, (given.count, 1))
        for some, table, places, (rows, other) in zip(texts, self.tables, self.places, self._rows, strict=True):
            made[:, places] = table[[rows.get(text, other) for text in some]]
        return made

    @cached_property
    def _rows(self) -> list[tuple[dict[str | None, int], int]]:
        """Of each column the row of each value, and of every other one."""
        return [
            ({**{text: n for n, text in enumerate(known)}, None: len(known) + 1}, len(known)) for known in self.values
        ]

    @cached_property
    def _single(self) -> list[tuple[dict[str | None, float], float]] | None:
        """Of each column the number of each value, where every column makes the one at its own place; else None."""
        if self.places != tuple((n,) for n in range(len(self.rest))):
            return None
        tables = [table[:, 0].tolist() for table in self.tables]
        return [
            ({text: table[n] for text, n in rows.items()}, table[other])
            for (rows, other), table in zip(self._rows, tables, strict=True)
        ]

    def _looked_up(
        self, texts: Sequence[Sequence[Any]], single: list[tuple[dict[str | None, float], float]]
    ) -> np.ndarray:
        made = [[known.get(text, other) for text in some] for some, (known, other) in zip(texts, single, strict=True)]
        return np.array(made, dtype=np.float64).T


class Dates(msgspec.Struct, frozen=True, tag="dates"):
    """Moments as day, hour, weekday and day of the year, as `DateParts` makes them; what follows is done to those numbers."""

    columns: tuple[str, ...]
    then: Numbers

    def of(self, given: Given) -> np.ndarray:
        """(n, 4 columns and more) float64."""
        return self.then.done(parts(given.moments(self.columns)))


Block = Numbers | Texts | Dates


def microseconds(text: str) -> int:
    """A time in ISO 8601 as microseconds since 1970; without an offset it is UTC.

    Raises:
        ValueError: it is none.

    >>> microseconds("1970-01-01T01:00:00+01:00"), microseconds("1970-01-02")
    (0, 86400000000)
    """
    moment = dt.datetime.fromisoformat(text)
    try:
        return ((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)) - EPOCH) // MICROSECOND
    except OverflowError:
        raise ValueError("a time beyond the years 1 to 9999") from None


def parts(moments: np.ndarray) -> np.ndarray:
    """(n, columns) int64 of microseconds to (n, 4 columns) float64: days since 1970, hour, weekday (0 is Monday), day of the year.

    >>> parts(np.array([[0], [1_767_225_600_000_000]])).tolist()
    [[0.0, 0.0, 3.0, 1.0], [20454.0, 0.0, 3.0, 1.0]]
    """
    days, since = np.divmod(moments, DAY)
    minutes = since // 60_000_000
    dates = moments.astype("datetime64[us]").astype("datetime64[D]")
    of_year = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1
    made = np.stack([moments / DAY, minutes // 60 + minutes % 60 / 60, (days + 3) % 7, of_year], axis=2)
    made[moments == GONE] = np.nan
    return made.reshape(len(moments), -1)
