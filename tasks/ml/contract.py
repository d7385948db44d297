"""The contract: what a row of a project may be, and which rows break it.

Checking is Arrow from end to end: a column is cast as a whole, and only where that fails are the values that cannot be
read masked by a regular expression or a range. What happens to a row depends on that row alone, never on its neighbours,
so a stream may be cut into chunks anywhere.
"""

import datetime as dt
import math
import zoneinfo
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import BaseModel, Field, model_validator

from tasks.config.errors import suggestion
from tasks.ml.identity import digest

Type = Literal["int", "float", "text", "category", "bool", "datetime"]

NUMERIC: frozenset[str] = frozenset({"int", "float", "bool"})
TYPES: dict[str, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
    "category": pa.string(),
    "datetime": pa.timestamp("us", "UTC"),
}
OWN = ("_row", "_batch", "_place")  # what the tables keep of each row beside the contract's columns
TRUE, FALSE = ("true", "t", "yes", "1"), ("false", "f", "no", "0")
EXACT = 2**53  # from here on float64 skips whole numbers
INT64 = (-(2**63), 2**63 - 1)

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)
HOUR, DAY = dt.timedelta(hours=1) // MICROSECOND, dt.timedelta(days=1) // MICROSECOND
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
YEARS = (-62_135_596_800, 253_402_300_799)  # seconds: years 1 to 9999, which Python and pandas can show

# One value, blanks around it already taken away. RE2, which Arrow uses: \d is 0-9, \z the end of the text.
CALENDAR = (
    r"(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
    r"|(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
CLOCK = r"[T ](?:[01]\d|2[0-3])(?::[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?)?"
OFFSET = r"(?:Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)"
MOMENT = rf"\A{CALENDAR}(?:{CLOCK}{OFFSET}?)?\z"
AWARE = rf"{CLOCK}{OFFSET}\z"
DATE_LENGTH = len("2020-01-01")
# Bytes: UTF-8 as RFC 3629 (section 4) writes it, without NUL and without U+FFFD (EF BF BD).
WHOLE_TEXT = (
    r"\A(?:[\x01-\x7F]|[\xC2-\xDF][\x80-\xBF]|\xE0[\xA0-\xBF][\x80-\xBF]|[\xE1-\xEC\xEE][\x80-\xBF]{2}|\xED[\x80-\x9F][\x80-\xBF]"
    r"|\xEF(?:[\x80-\xBE][\x80-\xBF]|\xBF[\x80-\xBC\xBE\xBF])"
    r"|\xF0[\x90-\xBF][\x80-\xBF]{2}|[\xF1-\xF3][\x80-\xBF]{3}|\xF4[\x80-\x8F][\x80-\xBF]{2})*\z"
)

NO_ZONE = "has no time zone"
AMBIGUOUS = "is ambiguous: the clocks were set back"
NONEXISTENT = "does not exist: the clocks were set forward"
BROKEN_TEXT = "holds a NUL or a broken character"
EMPTY = "is empty"
UNLISTED = "is none of the categories"
MISSING_TIME = "is the start of 1970: a missing time"

PIECE = 2**30  # bytes of text read at once: Arrow's string holds 2 GiB
LONGEST = 96  # bytes that a number or a time may take as text

Faults = dict[str, np.ndarray]
pc: Any = pyarrow.compute  # its functions are made when it is imported, so no type checker knows them


class Rule(NamedTuple):
    """What a value of a column may not do.

    >>> str(Rule("age", "is above 120"))
    'age is above 120'
    """

    column: str
    text: str

    def __str__(self) -> str:
        """As a sentence."""
        return f"{self.column} {self.text}"


class Column(BaseModel, frozen=True, extra="forbid"):
    """One column: its type, and the values that it may hold."""

    type: Type
    nullable: bool = Field(default=False, description="may be empty")
    min: float | None = Field(default=None, allow_inf_nan=False, description="smallest allowed value")
    max: float | None = Field(default=None, allow_inf_nan=False, description="largest allowed value")
    categories: tuple[str, ...] | None = Field(default=None, description="the only allowed texts; any text when absent")
    timezone: str | None = Field(
        default=None, description="where times without an offset were taken, as 'Europe/Berlin'; refused when absent"
    )
    ambiguous: Literal["refuse", "earliest", "latest"] = Field(
        default="refuse", description="which one is meant by a local time that came twice when the clocks were set back"
    )
    feature: bool = Field(
        default=True, description="false: no model reads it; it is kept to split, to group, to look at slices by"
    )
    about: str = Field(default="", description="what it means, with its unit")

    @model_validator(mode="after")
    def _bounds_fit_the_type(self) -> Self:
        if self.type not in NUMERIC and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max are for numbers; this column is of type {self.type}")
        if self.categories is not None and self.type not in {"category", "text"}:
            raise ValueError(f"categories are for texts; this column is of type {self.type}")
        return self

    @model_validator(mode="after")
    def _zones_are_for_datetimes(self) -> Self:
        if self.type != "datetime" and (self.timezone is not None or self.ambiguous != "refuse"):
            raise ValueError(f"timezone and ambiguous are for datetimes; this column is of type {self.type}")
        if self.timezone is None:
            return self
        try:
            pc.assume_timezone(pa.array([0], pa.timestamp("us")), self.timezone)
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"timezone is '{self.timezone}', which is no zone of the IANA database, like 'Europe/Berlin' or 'UTC'."
                f"{suggestion(self.timezone, zoneinfo.available_timezones())}"
            ) from error
        return self

    @property
    def rules(self) -> tuple[str, ...]:
        """Everything that a value of this column can do wrong, in the order in which it is asked."""
        return (
            f"is no {self.type}",
            *((NO_ZONE, AMBIGUOUS, NONEXISTENT) if self.type == "datetime" else ()),
            *((BROKEN_TEXT,) if self.type in {"text", "category"} else ()),
            *((EMPTY,) if not self.nullable else ()),
            *((f"is below {self.min:g}",) if self.min is not None else ()),
            *((f"is above {self.max:g}",) if self.max is not None else ()),
            *((UNLISTED,) if self.categories is not None else ()),
        )

    def check(self, raw: pa.Array, decimal: str = ".") -> tuple[pa.Array, Faults]:
        """The values in this column's type, null where they cannot be read, and which rows break which rule.

        Args:
            raw: (n,) texts, or any other Arrow type.
            decimal: '.' or ',': what stands before the fraction of a number that is written as text.

        Returns:
            (n,) values, and for each rule that is broken at all a mask (n,) bool. A value that has the right type
            already is not copied.

        >>> values, faults = Column(type="int", max=120).check(pa.array(["30", "455", "old"]))
        >>> values.to_pylist(), {rule: mask.tolist() for rule, mask in faults.items()}
        ([30, 455, None], {'is no int': [False, False, True], 'is above 120': [False, True, False]})
        """
        plain = _plain(raw)
        values, faults = self._read(plain, decimal)
        if values.null_count > plain.null_count:
            unread = _mask(pc.and_(plain.is_valid(), values.is_null()))
            for known in faults.values():
                unread = unread & ~known
            faults = {f"is no {self.type}": unread} | faults
        if plain.null_count and not self.nullable:
            faults[EMPTY] = _mask(plain.is_null())
        return values, {text: mask for text, mask in (faults | self._out_of_bounds(values)).items() if mask.any()}

    def _read(self, plain: pa.Array, decimal: str) -> tuple[pa.Array, Faults]:
        if self.type == "datetime":
            return _datetimes(plain, self.timezone, self.ambiguous)
        if self.type in {"text", "category"}:
            values = _texts(plain)
            broken = pa.types.is_string(plain.type) and values.null_count > plain.null_count
            return values, {BROKEN_TEXT: _mask(pc.and_(plain.is_valid(), values.is_null()))} if broken else {}
        if self.type == "bool":
            return _bools(plain), {}
        return (_floats if self.type == "float" else _ints)(plain, decimal), {}

    def _out_of_bounds(self, values: pa.Array) -> Faults:
        faults = {}
        if self.min is not None:
            low = self.min if self.type == "float" else math.ceil(self.min)  # whole numbers compare exactly
            faults[f"is below {self.min:g}"] = _below(values, low)
        if self.max is not None:
            high = self.max if self.type == "float" else math.floor(self.max)
            faults[f"is above {self.max:g}"] = _above(values, high)
        if self.categories is not None:
            listed = pc.is_in(values, pa.array(self.categories, pa.string()), skip_nulls=True)
            faults[UNLISTED] = _mask(pc.and_not(values.is_valid(), listed))
        return faults


@dataclass(frozen=True)
class Checked:
    """Rows after the contract: all of them, each with the first rule that it breaks.

    Attributes:
        rows: all n rows, typed contract columns in the contract's order; what cannot be read is null.
        broken: (n,) int32: 0 fine, else 1 + index into `rules`: the first rule that the row breaks.
        rules: every rule of the contract; the same whatever the rows are.
        extra: columns that the contract does not know; recorded, not used.
    """

    rows: pa.Table
    broken: np.ndarray
    rules: tuple[Rule, ...]
    extra: tuple[str, ...]


class Contract(BaseModel, frozen=True, extra="forbid"):
    """What a row of the project may be."""

    columns: dict[str, Column] = Field(min_length=2, description="every column of a row, by name")
    key: tuple[str, ...] = Field(min_length=1, description="the columns that name a row")
    time: str = Field(description="the column that says when a row happened")
    target: str | None = Field(
        default=None,
        description="the column to predict; when it is nullable, rows wait until their outcome comes; none where nobody knows the truth",
    )
    hold_above: float = Field(
        default=0.2, gt=0, le=1, description="share of quarantined rows above which nothing lands"
    )
    hold_bad_target: float = Field(
        default=0.01, ge=0, le=1, description="share of rows with a broken target above which nothing lands"
    )
    ahead: float = Field(
        default=24, ge=0, allow_inf_nan=False, description="hours that a row's time may lie in the future"
    )
    epoch_is_real: bool = Field(
        default=False, description="rows may have happened around 1 January 1970; else that is a time that nobody set"
    )

    @model_validator(mode="after")
    def _columns_can_be_kept(self) -> Self:
        """A Delta table tells columns apart by more than upper and lower case."""
        folded: dict[str, str] = {}
        for name in self.columns:
            if name.lower() in OWN:
                raise ValueError(f"column '{name}' has a name that the tables keep for themselves. Name it differently")
            if (other := folded.setdefault(name.lower(), name)) != name:
                raise ValueError(
                    f"columns '{other}' and '{name}' differ in upper and lower case only, which no table keeps apart. Leave one out, or "
                    "derive it under another name in hooks.py"
                )
        return self

    @model_validator(mode="after")
    def _roles_name_columns(self) -> Self:
        for name, role in [*((name, "key") for name in self.key), *self.roles.items()]:
            if name not in self.columns:
                raise ValueError(f"{role} is '{name}', which is not among the columns.{suggestion(name, self.columns)}")
        for role, name in [*(("key", name) for name in self.key), ("time", self.time)]:
            if self.columns[name].nullable:
                raise ValueError(
                    f"{role} is '{name}', which is nullable. A row without it can be neither named nor ordered: take "
                    "`nullable` away"
                )
        if self.columns[self.time].type != "datetime":
            times = [name for name, column in self.columns.items() if column.type == "datetime"]
            raise ValueError(
                f"time is '{self.time}', which is of type {self.columns[self.time].type}. "
                f"Columns of type datetime: {times}"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of everything that it says."""
        return digest(self.model_dump(mode="json"))

    @property
    def roles(self) -> dict[str, str]:
        """What a column is for that no model reads: key, time or target, by its name; there may be no target."""
        return {**dict.fromkeys(self.key, "key"), self.time: "time"} | ({self.target: "target"} if self.target else {})

    @property
    def features(self) -> tuple[str, ...]:
        """Every column that is neither key, time nor target, nor kept from the models."""
        roles = self.roles
        return tuple(name for name, column in self.columns.items() if column.feature and name not in roles)

    @property
    def schema(self) -> pa.Schema:
        """The columns of checked rows, in Arrow's types."""
        return pa.schema([(name, TYPES[column.type]) for name, column in self.columns.items()])

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Everything that a row can do wrong, in the order in which it is asked: column by column."""
        own = (self._too_late, *(() if self.epoch_is_real else (MISSING_TIME,)))
        return tuple(
            Rule(name, text)
            for name, column in self.columns.items()
            for text in (*column.rules, *(own if name == self.time else ()))
        )

    def missing(self, names: Iterable[str]) -> list[str]:
        """The contract's columns that are not among these names."""
        there = set(names)
        return [name for name in self.columns if name not in there]

    def check(self, raw: pa.Table, now: dt.datetime, decimal: str = ".") -> Checked:
        """Rows in the contract's types, with the first rule that each one breaks; no row is lost.

        Args:
            raw: each column of the contract once, as text or in any Arrow type; other columns are only named.
            now: the moment of checking, with its time zone.
            decimal: '.' or ',': what stands before the fraction of a number that is written as text.

        Raises:
            ValueError: a column of the contract is not there, or twice; `now` has no time zone; another `decimal`.

        >>> contract = Contract(
        ...     columns={
        ...         "id": Column(type="int"), "at": Column(type="datetime"),
        ...         "age": Column(type="int", max=120), "y": Column(type="bool")},
        ...     key=("id",), time="at", target="y")
        >>> batch = pa.table({"id": ["1", "2"], "at": ["2020-01-01"] * 2, "age": ["30", "455"], "y": ["t", "f"]})
        >>> checked = contract.check(batch, now=dt.datetime(2020, 1, 2, tzinfo=dt.UTC))
        >>> checked.rows["age"].to_pylist(), [str(checked.rules[which - 1]) for which in checked.broken if which]
        ([30, 455], ['age is above 120'])
        """
        if now.tzinfo is None:
            raise ValueError(f"now is {now}, without a time zone; say datetime.now(UTC)")
        if decimal not in {".", ","}:
            raise ValueError(f"decimal is {decimal!r}; it can be '.' or ','")
        if wrong := [name for name in self.columns if raw.column_names.count(name) != 1]:
            raise ValueError(
                f"each column of the contract must be there once; not so: {wrong}. There: {raw.column_names}"
            )
        rules, schema = self.rules, self.schema
        number = {rule: place for place, rule in enumerate(rules, start=1)}
        broken = np.zeros(raw.num_rows, dtype=np.int32)
        columns = []
        for name in self.columns:
            pieces, start = [], 0
            for piece in _pieces(raw.column(name)):
                values, faults = self._checked(name, piece, now, decimal)
                here = broken[start : start + len(piece)]
                for text, mask in faults.items():
                    here[mask & (here == 0)] = number[Rule(name, text)]
                pieces.append(values)
                start += len(piece)
            columns.append(pa.chunked_array(pieces, schema.field(name).type))
        extra = tuple(name for name in raw.column_names if name not in self.columns)
        return Checked(pa.Table.from_arrays(columns, schema=schema), broken, rules, extra)

    def describe(self) -> list[dict[str, Any]]:
        """One row a column: name, type, role and rules, for tables."""
        roles = self.roles
        return [
            {
                "column": name,
                "role": roles.get(name, "feature" if column.feature else "kept"),
                **column.model_dump(
                    exclude_none=True, exclude={"feature"} | (set() if column.type == "datetime" else {"ambiguous"})
                ),
            }
            for name, column in self.columns.items()
        ]

    @property
    def _too_late(self) -> str:
        return f"is more than {self.ahead:g} h in the future"

    def _checked(self, name: str, piece: pa.Array, now: dt.datetime, decimal: str) -> tuple[pa.Array, Faults]:
        values, faults = self.columns[name].check(piece, decimal)
        if name == self.time:
            moments = values.view(pa.int64())
            latest = (now - EPOCH) // MICROSECOND + int(self.ahead * HOUR)
            faults[self._too_late] = _above(moments, latest)
            if not self.epoch_is_real:
                faults[MISSING_TIME] = ~_below(moments, 1 - DAY) & ~_above(moments, DAY - 1) & _mask(values.is_valid())
        return values, faults


def _pieces(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    """The column in arrays whose texts fit into Arrow's string each; no copy but of rare layouts."""
    for chunk in column.chunks:
        yield from _halves(_unwrapped(chunk))


def _unwrapped(array: pa.Array) -> pa.Array:
    """Without an extension's name, run ends (as a dictionary) and views, whose texts Arrow does not measure."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _unwrapped(array.storage)
    if pa.types.is_run_end_encoded(kind):
        ends = np.clip(array.run_ends.to_numpy().astype(np.int64) - array.offset, 0, len(array))
        runs = np.searchsorted(ends, np.arange(len(array)), side="right")
        return pa.DictionaryArray.from_arrays(pa.array(runs, pa.int64()), array.values)
    if pa.types.is_string_view(kind):
        return array.cast(pa.large_string())
    if pa.types.is_binary_view(kind):
        return array.cast(pa.large_binary())
    return array


def _halves(array: pa.Array) -> Iterator[pa.Array]:
    if len(array) < 2 or _text_bytes(array) <= PIECE:
        yield array
        return
    middle = len(array) // 2
    yield from _halves(array.slice(0, middle))
    yield from _halves(array.slice(middle))


def _text_bytes(array: pa.Array) -> int:
    """How many bytes the texts of this array take, at most, when they are written one after another."""
    if _is_texts(array.type):
        return array.nbytes
    if isinstance(array, pa.DictionaryArray):
        words = _unwrapped(array.dictionary)
        if isinstance(words, pa.DictionaryArray):
            words = words.dictionary.take(words.indices)
        if _is_texts(words.type):
            lengths = pc.binary_length(words).cast(pa.int64())
            return pc.sum(lengths.take(array.indices), min_count=0).as_py()
    return len(array) * LONGEST


def _is_texts(kind: pa.DataType) -> bool:
    return any(
        asks(kind)
        for asks in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _plain(array: pa.Array) -> pa.Array:
    """The same values in one of few layouts: texts and bytes as string, no dictionary, NaN as null."""
    array = _unwrapped(array)
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        return _plain(array.dictionary.take(array.indices))
    if pa.types.is_large_string(kind):
        return array.cast(pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return array.cast(pa.binary()).view(pa.string())  # whether it is UTF-8 is asked where texts are read
    if pa.types.is_floating(kind):
        nan = pc.is_nan(array)
        return pc.if_else(nan, pa.scalar(None, kind), array) if pc.any(nan).as_py() else array
    return array


def _floats(plain: pa.Array, decimal: str) -> pa.Array:
    kind = plain.type
    if pa.types.is_string(kind):
        values = _float_texts(plain, decimal)
    elif pa.types.is_decimal(kind):
        values = _float_texts(plain.cast(pa.string()), ".")  # digit by digit: Arrow's own cast rounds twice
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        values = plain.cast(pa.float64(), safe=False)  # the nearest float64, as Python's float()
    else:
        return _nothing(plain, pa.float64())
    finite = pc.is_finite(values)
    return values if pc.all(finite, min_count=0).as_py() else pc.if_else(finite, values, pa.scalar(None, pa.float64()))


def _float_texts(texts: pa.Array, decimal: str) -> pa.Array:
    """Texts as float64; those beyond its range are infinite, 'nan' is NaN: the caller takes both away."""
    if decimal == ".":
        try:
            return texts.cast(pa.float64())
        except pa.ArrowInvalid:
            pass  # one of them is no number: which?
    return _number_texts(texts, decimal).cast(pa.float64())


def _number_texts(texts: pa.Array, decimal: str) -> pa.Array:
    """Texts that are numbers, without blanks around and with a decimal point; the others are null."""
    point = f"[{decimal}]"
    trimmed = pc.ascii_trim_whitespace(texts)
    number = rf"\A[+-]?(?:\d+(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?\z"
    numbers = pc.if_else(pc.match_substring_regex(trimmed, number), trimmed, pa.scalar(None, pa.string()))
    return numbers if decimal == "." else pc.replace_substring(numbers, decimal, ".")


def _ints(plain: pa.Array, decimal: str) -> pa.Array:
    kind = plain.type
    if pa.types.is_string(kind):
        return _int_texts(plain, decimal)
    if pa.types.is_decimal(kind):
        return _int_texts(plain.cast(pa.string()), ".")
    if pa.types.is_uint64(kind):
        return _within(plain, 0, INT64[1]).cast(pa.int64())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return plain.cast(pa.int64())
    if pa.types.is_floating(kind):
        wide = plain.cast(pa.float64())
        whole = pc.and_(pc.equal(pc.trunc(wide), wide), pc.less(pc.abs(wide), float(EXACT)))
        return pc.if_else(whole, wide, pa.scalar(None, pa.float64())).cast(pa.int64())
    return _nothing(plain, pa.int64())


def _int_texts(texts: pa.Array, decimal: str) -> pa.Array:
    """Texts as int64, exactly; null where the number is not whole or does not fit."""
    if not (_bytes(texts) == ord("x")).any():  # Arrow reads '0x1F' as a number
        try:
            return texts.cast(pa.int64())
        except pa.ArrowInvalid:
            pass  # one of them is no row of digits: which?
    numbers = _number_texts(texts, decimal)
    short = pc.match_substring_regex(numbers, r"\A[+-]?\d{1,18}\z")  # 18 digits always fit
    digits = pc.if_else(short, pc.ascii_ltrim(numbers, characters="+"), pa.scalar(None, pa.string()))
    values = digits.cast(pa.int64())
    others = pc.and_not(numbers.is_valid(), pc.fill_null(short, fill_value=False))
    return pc.replace_with_mask(values, others, _exact_ints(numbers.filter(others)))


def _exact_ints(numbers: pa.Array) -> pa.Array:
    """Numbers in any notation ('3.0', '12e2', nineteen digits) as int64, by their digits alone; no null among them."""
    shape = r"\A(?P<sign>[+-]?)(?P<whole>\d*)[.]?(?P<fraction>\d*)(?:[eE](?P<minus>-?)[+]?0*(?P<power>\d*))?\z"
    part = dict(
        zip(("sign", "whole", "fraction", "minus", "power"), pc.extract_regex(numbers, shape).flatten(), strict=True)
    )
    digits = pc.ascii_ltrim(pc.binary_join_element_wise(part["whole"], part["fraction"], ""), characters="0")
    core = pc.ascii_rtrim(digits, characters="0")
    far = pc.greater(pc.binary_length(part["power"]), 9)  # further than any text is long
    power = pc.if_else(far, "999999999", pc.if_else(pc.equal(part["power"], ""), "0", part["power"])).cast(pa.int64())
    power = pc.if_else(pc.equal(part["minus"], "-"), pc.negate(power), power)
    cut = pc.subtract(pc.binary_length(digits), pc.binary_length(core))
    zeros = pc.subtract(pc.add(power, cut), pc.binary_length(part["fraction"]))  # number = core · 10^zeros
    length = pc.add(zeros, pc.binary_length(core))
    zero = pc.equal(core, "")
    fits = pc.and_(pc.and_(pc.greater_equal(zeros, 0), pc.less_equal(length, 19)), pc.invert(zero))
    written = pc.binary_join_element_wise(core, pc.binary_repeat("0", pc.if_else(fits, zeros, 0)), "")
    negative = pc.equal(part["sign"], "-")
    limit = pc.if_else(negative, str(-INT64[0]), str(INT64[1]))
    fits = pc.and_(fits, pc.or_(pc.less(length, 19), pc.less_equal(written, limit)))
    signed = pc.binary_join_element_wise(pc.if_else(negative, "-", ""), written, "")
    return pc.if_else(zero, "0", pc.if_else(fits, signed, pa.scalar(None, pa.string()))).cast(pa.int64())


def _bools(plain: pa.Array) -> pa.Array:
    kind = plain.type
    if pa.types.is_boolean(kind):
        return plain
    if pa.types.is_string(kind):
        words = pc.ascii_lower(pc.ascii_trim_whitespace(plain))
        yes, no = (pc.is_in(words, pa.array(known)) for known in (TRUE, FALSE))
    else:
        numbers = (_ints if pa.types.is_decimal(kind) else _floats)(plain, ".")  # .99…9 is no yes, as float64 it is 1
        yes, no = (pc.fill_null(pc.equal(numbers, known), fill_value=False) for known in (1, 0))
    return pc.if_else(pc.or_(yes, no), yes, pa.scalar(None, pa.bool_()))


def _texts(plain: pa.Array) -> pa.Array:
    kind = plain.type
    if pa.types.is_string(kind):
        return _whole_texts(plain)
    if pa.types.is_boolean(kind):
        return pc.if_else(plain, "True", "False")
    if pa.types.is_floating(kind):
        return _written_floats(plain)
    if pa.types.is_timestamp(kind):
        plain = plain.view(pa.timestamp(kind.unit, "UTC" if kind.tz else None))  # a sender's zone need not exist here
    elif not (
        pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_date(kind) or pa.types.is_time(kind)
    ):
        return _nothing(plain, pa.string())
    written = plain.cast(pa.string())
    beyond = pc.starts_with(written, "<")  # '<value out of range: …>'
    return pc.if_else(beyond, pa.scalar(None, pa.string()), written) if pc.any(beyond).as_py() else written


def _written_floats(plain: pa.Array) -> pa.Array:
    """Each float in the shortest digits that give it back, as Python writes it: '1.0', '1e+20'."""
    given = pc.fill_null(plain, pa.scalar(0, plain.type)).to_numpy(zero_copy_only=False)
    written = pa.array(given.astype("S32")).cast(pa.string())
    return pc.if_else(plain.is_valid(), written, pa.scalar(None, pa.string()))


def _whole_texts(texts: pa.Array) -> pa.Array:
    """Texts as they are; null where one holds a NUL, U+FFFD (what a wrong encoding left), or is no UTF-8."""
    data = _bytes(texts)
    if data.size == 0 or (data.min() > 0 and (data.max() < 0x80 or (not (data == 0xEF).any() and _is_utf8(texts)))):
        return texts  # U+FFFD begins with the byte EF
    whole = pc.match_substring_regex(texts.view(pa.binary()), WHOLE_TEXT)
    return texts if pc.all(whole, min_count=0).as_py() else pc.if_else(whole, texts, pa.scalar(None, pa.string()))


def _is_utf8(texts: pa.Array) -> bool:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _bytes(texts: pa.Array) -> np.ndarray:
    """The bytes of all texts, one after another: (number of bytes,) uint8, not copied."""
    _, ends, data = texts.buffers()
    if len(texts) == 0 or data is None or data.size == 0:
        return np.empty(0, dtype=np.uint8)
    border = np.frombuffer(ends, dtype=np.int32)[[texts.offset, texts.offset + len(texts)]]
    return np.frombuffer(data, dtype=np.uint8)[border[0] : border[1]]


def _datetimes(plain: pa.Array, zone: str | None, twice: str) -> tuple[pa.Array, Faults]:
    kind = plain.type
    if pa.types.is_string(kind):
        aware, naive = _written_moments(plain)
        if naive is None:
            return _shown(aware), {}
        dates = pc.equal(pc.binary_length(pc.ascii_trim_whitespace(plain)), DATE_LENGTH)
        values, faults = _localised(_shown(naive), dates, zone, twice)
        return _shown(values if aware is None else pc.coalesce(aware, values)), faults
    if pa.types.is_date(kind):
        days = plain.view(pa.int32()) if pa.types.is_date32(kind) else _floored(plain.view(pa.int64()), 86_400_000)
        days = _within(days, *(second // 86_400 for second in YEARS))
        naive = pc.multiply(days.cast(pa.int64()), DAY).view(pa.timestamp("us"))
        return _localised(naive, plain.is_valid(), zone, twice)
    if not pa.types.is_timestamp(kind):
        return _nothing(plain, TYPES["datetime"]), {}
    moments = _microseconds(plain.view(pa.int64()), kind.unit)
    if kind.tz is not None:
        return moments.view(TYPES["datetime"]), {}
    values, faults = _localised(moments.view(pa.timestamp("us")), pa.scalar(False), zone, twice)
    return _shown(values), faults


def _microseconds(ticks: pa.Array, unit: str) -> pa.Array:
    """Ticks of a unit as whole microseconds, rounded down; null outside of the years 1 to 9999."""
    rate = PER_SECOND[unit]
    if unit == "ns":
        return _floored(ticks, 1000)
    inside = _within(ticks, YEARS[0] * rate, (YEARS[1] + 1) * rate - 1)
    return inside if unit == "us" else pc.multiply(inside, PER_SECOND["us"] // rate)


def _floored(ticks: pa.Array, width: int) -> pa.Array:
    floors = pc.fill_null(ticks, 0).to_numpy() // width
    return pa.array(floors, mask=None if ticks.null_count == 0 else _mask(ticks.is_null()))


def _shown(moments: pa.Array) -> pa.Array:
    """Microsecond timestamps, null outside of the years 1 to 9999."""
    return _microseconds(moments.view(pa.int64()), "us").view(moments.type)


def _written_moments(texts: pa.Array) -> tuple[pa.Array | None, pa.Array | None]:
    """ISO 8601 texts as UTC times (those with an offset) and as local times (those without); None where there are none."""
    for kind in (TYPES["datetime"], pa.timestamp("us")):
        try:
            read = texts.cast(kind)
        except pa.ArrowInvalid:
            continue  # one of them is of another kind, or no time
        return (None, read) if kind.tz is None else (read, None)
    trimmed = pc.ascii_trim_whitespace(texts)
    good, offset = (pc.match_substring_regex(trimmed, pattern) for pattern in (MOMENT, AWARE))
    micro = pc.replace_substring_regex(trimmed, r"(\.\d{6})\d+", r"\1")  # what is finer is cut off
    nothing = pa.scalar(None, pa.string())
    aware = pc.if_else(pc.and_(good, offset), micro, nothing).cast(TYPES["datetime"])
    naive = pc.if_else(pc.and_not(good, offset), micro, nothing).cast(pa.timestamp("us"))
    return aware, naive


def _localised(naive: pa.Array, dates: Any, zone: str | None, twice: str) -> tuple[pa.Array, Faults]:
    """Local times as UTC. A date is the start of that day, in UTC where no zone is known; any other time needs one.

    Args:
        naive: (n,) timestamps in microseconds without a zone.
        dates: (n,) or one bool: names a day, not a time of day.
        zone: where they were taken.
        twice: which of two is meant when the clocks were set back: refuse, earliest, latest.
    """
    utc, nothing = TYPES["datetime"], pa.scalar(None, TYPES["datetime"])
    if zone is None:
        unknown = pc.and_not(naive.is_valid(), dates)
        return pc.if_else(unknown, nothing, naive.view(utc)), {NO_ZONE: _mask(unknown)}
    early, late = (
        pc.assume_timezone(naive, zone, ambiguous=which, nonexistent="latest") for which in ("earliest", "latest")
    )
    stamps = pc.and_not(naive.is_valid(), dates)
    skipped = pc.and_(stamps, pc.not_equal(pc.local_timestamp(early), naive))
    double = pc.and_(stamps, pc.not_equal(early, late))
    values = (pc.if_else(stamps, late, early) if twice == "latest" else early).view(utc)
    faults = ({AMBIGUOUS: _mask(double)} if twice == "refuse" else {}) | {NONEXISTENT: _mask(skipped)}
    wrong = pc.or_(skipped, double) if twice == "refuse" else skipped
    return pc.if_else(pc.fill_null(wrong, fill_value=False), nothing, values), faults


def _within(numbers: pa.Array, low: int, high: int) -> pa.Array:
    """The numbers, null below `low` and above `high`; not copied where none is."""
    beyond = _below(numbers, low) | _above(numbers, high)
    return pc.if_else(pa.array(beyond), pa.scalar(None, numbers.type), numbers) if beyond.any() else numbers


def _below(numbers: pa.Array, low: float) -> np.ndarray:
    return _compared(pc.less, numbers, low)


def _above(numbers: pa.Array, high: float) -> np.ndarray:
    return _compared(pc.greater, numbers, high)


def _compared(asks: Any, numbers: pa.Array, bound: float) -> np.ndarray:
    """Where a number is less (or greater) than the bound: (n,) bool; whole numbers are compared as such, nulls are not."""
    if pa.types.is_boolean(numbers.type):
        numbers = numbers.cast(pa.int64())
    if isinstance(bound, int) and not INT64[0] <= bound <= INT64[1]:
        hits = numbers.is_valid() if (asks is pc.less) == (bound > 0) else None
    else:
        hits = asks(numbers, pa.scalar(bound, numbers.type))
    return np.zeros(len(numbers), dtype=bool) if hits is None or not pc.any(hits).as_py() else _mask(hits)


def _mask(condition: pa.Array) -> np.ndarray:
    """(n,) bool; unknown counts as no."""
    return pc.fill_null(condition, fill_value=False).to_numpy(zero_copy_only=False)


def _nothing(plain: pa.Array, kind: pa.DataType) -> pa.Array:
    return pa.nulls(len(plain), kind)
