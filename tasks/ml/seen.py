"""Seen: one column of a sample, with the narrowest type that reads it."""

import datetime as dt
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from tasks.ml.contract import Column, Type
from tasks.ml.surrogate import Stamp

MOST = 0.99  # share of values that a type must read; the others go to quarantine
ENOUGH = 100  # rows from which on 'only 0 and 1' is no accident
CATEGORIES = 200  # different texts that still count as categories
ID = re.compile(r"(?:^|_)(?:id|uuid|guid|key|code|nr|no|num|number|ref|reference|sku|isbn|serial)$|^id(?:_|$)")
COUNTER = re.compile(r"^$|^unnamed_*\d*$|^(?:index|idx|row|row_?(?:id|nr|no|num|number|index)|rownames|level_0)$")
FORMATS = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%Y.%m.%d", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y",
    "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%Y%m%d",
)  # fmt: skip
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
EPOCHS = (("s", 1e8, 5e9), ("ms", 1e11, 5e12), ("us", 1e14, 5e15), ("ns", 1e17, 5e18))  # 1973 to 2128
READABLE = (
    pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_timestamp, pa.types.is_date,
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_dictionary,
)  # fmt: skip
pc: Any = pyarrow.compute  # its functions are made when it is imported, so no type checker knows them


@dataclass(frozen=True)
class Seen:
    """One column of the sample.

    Attributes:
        raw: its values as they came; NaN is empty.
        type: the narrowest one that reads nearly all of them.
        values: (n,) in that type; what cannot be read is empty.
        stamp: how texts or numbers are read as times, where they are not ISO 8601.
        junk: some values that cannot be read.
    """

    name: str
    raw: pa.ChunkedArray
    type: Type
    values: pa.ChunkedArray
    stamp: Stamp | None = None
    junk: tuple[str, ...] = ()

    @cached_property
    def rows(self) -> int:
        """Number of values, empty ones too."""
        return len(self.values)

    @cached_property
    def empty(self) -> int:
        """Number of raw values that are empty."""
        return self.raw.null_count

    @cached_property
    def codes(self) -> np.ndarray:
        """(n,) a number for each different value; -1 where it is empty."""
        coded = self.values.combine_chunks().dictionary_encode()
        coded = pa.concat_arrays(coded.chunks) if isinstance(coded, pa.ChunkedArray) else coded
        return coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)

    @cached_property
    def counts(self) -> np.ndarray:
        """How often each different value stands there, most frequent first."""
        return np.sort(np.bincount(self.codes[self.codes >= 0]))[::-1]

    @property
    def different(self) -> int:
        """Number of different values."""
        return len(self.counts)

    @property
    def is_unique(self) -> bool:
        """Whether no value is empty and none stands there twice."""
        return self.values.null_count == 0 and self.different == self.rows

    @property
    def is_constant(self) -> bool:
        """Whether there is one value only, and never an empty one."""
        return self.different == 1 and self.values.null_count == 0

    @cached_property
    def texts(self) -> list[str]:
        """The different values as text, most frequent first; for few ones."""
        counted = pc.value_counts(self.values).to_pylist()
        kept = [(pair["counts"], str(pair["values"])) for pair in counted if pair["values"] is not None]
        return [text for _, text in sorted(kept, key=lambda pair: (-pair[0], pair[1]))]

    @property
    def called(self) -> str:
        """The name in lower case with underscores: `CustomerID` → `customer_id`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^0-9A-Za-z]+", "_", self.name).lower().strip("_")

    @property
    def is_counter(self) -> bool:
        """Whether it only numbers the lines of its file."""
        return COUNTER.search(self.called) is not None and self.type == "int" and self.is_unique

    @cached_property
    def is_name(self) -> bool:
        """Whether it may name rows: different in each row, and of the shape or called as names are."""
        if not self.is_unique or self.type not in {"int", "text", "category"} or self.is_counter:
            return False
        if ID.search(self.called):
            return True
        if self.type == "int":
            low, high = pc.min_max(self.values).as_py().values()
            return self.rows >= ENOUGH and high - low < 2 * self.rows
        return all(re.fullmatch(r"\S*\d\S*", text) for text in self.values.slice(0, 1000).to_pylist())


def look(name: str, raw: pa.ChunkedArray, decimal: str = ".") -> Seen | str:
    """A column with its type, or the reason why it cannot be one of a contract.

    >>> look("zip", pa.chunked_array([["04109", "10115"]])).type, look("age", pa.chunked_array([["41", None]])).type
    ('category', 'int')
    >>> look("tags", pa.chunked_array([[["a"], ["b"]]]))
    'nested (list<item: string>): a contract has flat columns'
    """
    kind = raw.type
    if pa.types.is_floating(kind):
        raw = pc.if_else(pc.is_nan(raw), pa.scalar(None, kind), raw)
    if name.startswith("_"):
        return "names with an underscore in front are keepfit's own"
    if pa.types.is_null(kind) or raw.null_count == len(raw):
        return "empty in every row"
    if pa.types.is_nested(kind):
        return f"nested ({kind}): a contract has flat columns"
    if not any(readable(kind) for readable in READABLE):
        return f"of type {kind}, which no contract has"
    if pa.types.is_boolean(kind):
        return read_as("bool", name, raw, decimal)
    if pa.types.is_integer(kind):
        return read_as("int", name, raw, decimal)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return read_as("float", name, raw, decimal)
    if pa.types.is_temporal(kind):
        return read_as("datetime", name, raw, decimal)
    return _read_text(name, raw.cast(pa.string()), decimal)


def _read_text(name: str, raw: pa.ChunkedArray, decimal: str) -> Seen:
    """A column of texts, as the narrowest type that reads nearly all of them."""
    counted = pc.value_counts(raw.drop_null())
    values, counts = counted.field("values"), counted.field("counts").to_numpy()
    padded = pc.any(pc.match_substring_regex(values, r"^\s*[+-]?0\d+\s*$")).as_py()  # '00420': a code, no number
    digits = pc.all(
        pc.match_substring_regex(values, r"^\s*[01]\s*$")
    ).as_py()  # a count that was never above one, maybe
    for kind in ("bool", "int", "float", "datetime"):
        if (kind in {"int", "float"} and padded) or (kind == "bool" and digits):
            continue
        share, junk = _read_share(kind, values, counts, decimal)
        if kind == "int" and share < _read_share("float", values, counts, decimal)[0]:
            continue  # one fraction among whole numbers makes fractions of all
        if share >= MOST and (kind != "bool" or (share == 1 and len(values) > 1)):
            return read_as(kind, name, raw, decimal, junk)
    stamp = _format(values, counts)
    if stamp:
        return Seen(name, raw, "datetime", _stamped(stamp, raw), stamp)
    few = len(values) <= CATEGORIES and (len(values) <= 20 or counts.sum() >= 5 * len(values))
    return read_as("category" if few else "text", name, raw, decimal)


def _read_share(kind: Type, values: pa.Array, counts: np.ndarray, decimal: str) -> tuple[float, tuple[str, ...]]:
    """Share of the values that a type reads, and some that it does not."""
    read, _ = Column(type=kind, nullable=True, timezone="UTC" if kind == "datetime" else None).check(values, decimal)
    good = read.is_valid().to_numpy(zero_copy_only=False)
    return counts[good].sum() / counts.sum(), tuple(values.filter(pa.array(~good)).slice(0, 3).to_pylist())


def read_as(kind: Type, name: str, raw: pa.ChunkedArray, decimal: str, junk: tuple[str, ...] = ()) -> Seen:
    """A column as one of a given type; what cannot be read so is empty."""
    column = Column(type=kind, nullable=True, timezone="UTC" if kind == "datetime" else None)
    pieces = [column.check(chunk, decimal)[0] for chunk in raw.chunks]
    return Seen(name, raw, kind, pa.chunked_array(pieces), junk=junk)


def _format(values: pa.Array, counts: np.ndarray) -> Stamp | None:
    """The format that reads nearly all texts as times; where day and month may change places, dots mean day first."""
    first = values.slice(0, 3).to_pylist()
    likely = [
        form
        for form in (day + clock for day in FORMATS for clock in CLOCKS)
        if any(_fits(text, form) for text in first)
    ]
    texts = pd.Series(values.to_pylist(), dtype="string") if likely else pd.Series(dtype="string")
    for stamp in (Stamp(form=form) for form in likely):
        if counts[stamp.read(texts).notna().to_numpy()].sum() >= MOST * counts.sum():
            return stamp
    return None


def _fits(text: str, form: str) -> bool:
    try:
        dt.datetime.strptime(text.strip(), form)  # noqa: DTZ007 -- only whether it reads
    except ValueError:
        return False
    return True


def _stamped(stamp: Stamp, raw: pa.ChunkedArray) -> pa.ChunkedArray:
    times = stamp.read(raw.to_pandas()).dt.tz_localize("UTC")
    return pa.chunked_array([pa.array(times.astype("datetime64[us, UTC]"))])


def number_stamp(seen: Seen) -> Stamp | None:
    """How a column of numbers is read as times: days as 20240531, seconds since 1970, or since an unknown beginning."""
    if seen.type not in {"int", "float"}:
        return None
    low, high = pc.min_max(seen.values).as_py().values()
    if seen.type == "int" and low >= 19000101 and high <= 21001231:
        stamp = Stamp(form="%Y%m%d")
        if stamp.read(seen.raw.to_pandas()).notna().mean() >= MOST:
            return stamp
    if seen.type == "int" and low >= 1800 and high <= 2200:
        return Stamp(form="%Y")
    unit = next((unit for unit, least, most in EPOCHS if least <= low and high <= most), None)
    return Stamp(unit=unit) if unit else Stamp(unit="s", origin="2000-01-01")
