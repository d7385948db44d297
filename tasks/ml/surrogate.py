"""Surrogates: a name and a time for rows whose file brings none, drawn from what the row says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from tasks.ml.contract import Column
from tasks.ml.identity import as_text, row_ids

START = np.datetime64("2000-01-01T00:00:00", "us")  # drawn times lie in the year that begins here
UNREAD = "_unread"  # the column of values that cannot be read; a file has none with an underscore in front
YEAR = 366 * 24 * 3600 * 1_000_000  # microseconds
pc: Any = pyarrow.compute  # its functions are made when it is imported, so no type checker knows them


def row_names(rows: pd.DataFrame, content: Mapping[str, str], decimal: str = ".") -> pd.Series:
    """A name of 32 hex digits for every row: (n,), from the content of some columns; equal content has one name.

    The content is what the contract reads, so a CSV and a Parquet file of the same rows name them alike. Values that
    cannot be read count as they are written.

    Args:
        rows: raw columns, as text or typed.
        content: the type of each column that counts, by name.
        decimal: what stands before the decimals in numbers that came as text.

    Raises:
        KeyError: a column is missing.

    >>> texts = pd.DataFrame({"a": ["1.50", "2", None], "b": ["x", "y", "x"]})
    >>> typed = pd.DataFrame({"b": ["x", "y", "x"], "a": [1.5, 2.0, None]})
    >>> (row_names(texts, {"a": "float", "b": "text"}) == row_names(typed, {"a": "float", "b": "text"})).tolist()
    [True, True, True]
    """
    read, unread = {}, np.full(len(rows), None, dtype=object)
    for name, kind in content.items():
        given = pa.array(rows[name], from_pandas=True)
        raw = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
        column = Column.model_validate(
            {"type": kind, "nullable": True, "timezone": "UTC" if kind == "datetime" else None}
        )
        read[name], _ = column.check(raw, decimal)
        for place in np.flatnonzero(pc.and_(raw.is_valid(), read[name].is_null()).to_numpy(zero_copy_only=False)):
            unread[place] = f"{unread[place] or ''}{name}={raw[place]}\x1f"
    names = as_text(row_ids(pa.table({**read, UNREAD: pa.array(unread, pa.string())})))
    return pd.Series(names, index=rows.index, dtype="str")


def drawn_times(names: pd.Series) -> pd.Series:
    """A time in the year 2000 for every name: (n,) UTC. Equal names share theirs, and the order is that of a shuffle.

    A split by such a time holds back a random share, which stays nearly the same rows as more of them land: what one
    training held back does not slip into what the next one learns from.

    >>> drawn_times(pd.Series(["0" * 32, "8" + "0" * 31])).dt.strftime("%d %B").tolist()
    ['01 January', '02 July']
    """
    shares = np.array([int(name[:12], 16) for name in names], dtype=np.float64) / 16**12
    times = START + (shares * YEAR).astype("int64").astype("timedelta64[us]")
    return pd.Series(times, index=names.index).dt.tz_localize("UTC")


@dataclass(frozen=True)
class Stamp:
    """How the time column's raw values are read where they are not ISO 8601.

    Attributes:
        form: strptime's format of texts, or "" for numbers.
        unit: of numbers: s, ms, us, ns since `origin`.
        origin: "unix", or a day that stands in for an unknown beginning.
    """

    form: str = ""
    unit: str = ""
    origin: str = "unix"

    def read(self, values: pd.Series) -> pd.Series:
        """The times; what cannot be read is missing.

        >>> Stamp(form="%d.%m.%Y").read(pd.Series(["24.12.2020"])).tolist()
        [Timestamp('2020-12-24 00:00:00')]
        >>> Stamp(unit="s", origin="2000-01-01").read(pd.Series(["60"])).tolist()
        [Timestamp('2000-01-01 00:01:00')]
        """
        if self.form:
            return pd.to_datetime(values.astype("string").str.strip(), format=self.form, errors="coerce")
        numbers = pd.to_numeric(values, errors="coerce")
        return pd.to_datetime(numbers, unit=self.unit, origin=self.origin, errors="coerce")


@dataclass(frozen=True)
class Derived:
    """What `hooks.py` must add to the raw rows, because the file does not bring it.

    Attributes:
        key: name of a column drawn from the row's content, or None.
        time: name of a time drawn from the key, or None.
        stamp: how the existing time column (`stamped`) is read, or None.
        content: the columns, with their types, that names and times are drawn from.
    """

    key: str | None = None
    time: str | None = None
    stamp: Stamp | None = None
    stamped: str = ""
    content: Mapping[str, str] = field(default_factory=dict)
    decimal: str = "."

    def __bool__(self) -> bool:
        """Whether there is anything to add."""
        return bool(self.key or self.time or self.stamp)

    def apply(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with what the file does not bring."""
        if self.stamp:
            rows = rows.assign(**{self.stamped: self.stamp.read(rows[self.stamped])})
        if not self.content:
            return rows
        names = row_names(rows, self.content, self.decimal)
        added = {**({self.key: names} if self.key else {}), **({self.time: drawn_times(names)} if self.time else {})}
        return rows.assign(**added)
