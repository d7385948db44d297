"""Reading: the body of a request as rows of the types that a model reads, in one pass of a decoder made for it.

Most bodies are as they should be, and only those are read here; of any other the slower look at every value says what is wrong.
"""

import datetime as dt
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from tasks.serving.writing import each_encoded
from tasks.stores.marks import MARK, Marks

UNSET, astuple = msgspec.UNSET, msgspec.structs.astuple
OWN_FIELD, MLFLOW_FIELD = "rows", "dataframe_records"  # what a body calls its list of rows
ROWS = 10_000  # of a request
LONG = 1 << 14  # bytes from which numpy counts faster than Python, which stops at each find
PART = 1 << 16  # bytes that are compared at once
EXACT = 2**53  # beyond it a float64, which models compute in, skips whole numbers

Sent = str | int | float | bool | None
Whole = Annotated[int, msgspec.Meta(ge=-EXACT, le=EXACT)]
TYPES: dict[str, Any] = {"int": Whole, "float": float, "text": str, "category": str, "bool": bool, "datetime": str}
TEXTS = frozenset({"text", "category", "datetime"})  # those that stand in quotation marks


class Asked(NamedTuple):
    """Rows that were read.

    Attributes:
        values: of each row the features in order, None for missing.
        rows: the same as they go into the log, each a JSON object with the features by name, and the mark of its key where that was sent.
    """

    values: list[tuple[Sent, ...]]
    rows: Sequence[bytes]


def has_offset(time: object) -> bool:
    """Whether a time in ISO 8601 says its offset from UTC; what is no time is refused elsewhere.

    >>> [has_offset(time) for time in ("2026-01-31T12:00:00Z", "2026-01-31T12:00-0130", "2026-01-31", "2026-01-31 12:00", None)]
    [True, True, False, False, True]
    """
    try:
        return not isinstance(time, str) or dt.datetime.fromisoformat(time).tzinfo is not None
    except ValueError:
        return True


def joined(some: Sequence[Asked]) -> Asked:
    """The rows of several bodies, one behind the other."""
    if len(some) == 1:
        return some[0]
    return Asked([row for each in some for row in each.values], [row for each in some for row in each.rows])


class Reader:
    """Reads bodies for one model."""

    def __init__(self, features: Sequence[Any], ignored: Sequence[str], marks: Marks | None = None) -> None:
        """`features` have a name, a type and whether they may be missing; `ignored` columns may be there, among them those of `marks`."""
        self._names = [feature.name for feature in features]
        self._quoted = [place for place, feature in enumerate(features) if feature.type in TEXTS]
        self._zoned = [place for place, feature in enumerate(features) if feature.offset]
        self._may_lack = bool(ignored) or any(feature.nullable for feature in features)
        self._marks = marks
        self._key = {name: len(self._names) + ignored.index(name) for name in marks.key} if marks else {}
        self._first = next(iter(self._key.values()), 0)
        given = {name: f"f{place}" for place, name in enumerate([*self._names, *ignored])}
        fields = [_field(given[each.name], each) for each in features]
        fields += [(given[name], Sent | msgspec.UnsetType, UNSET) for name in ignored]
        row = msgspec.defstruct(
            "Row", fields, rename={field: name for name, field in given.items()}, forbid_unknown_fields=True, kw_only=True, gc=False
        )  # fmt: skip
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        for field in (OWN_FIELD, MLFLOW_FIELD):
            body = msgspec.defstruct("Body", [("rows", list[row])], rename={"rows": field}, forbid_unknown_fields=True)  # ty: ignore[invalid-type-form]
            self._decoders[field] = msgspec.json.Decoder(body)

    def read(self, body: bytes, field: str = OWN_FIELD) -> Asked | None:
        """The rows of a body that calls them so, or None where one is not as it should be."""
        if (rows := self._rows(body, field)) is None:
            return None
        values = list(map(astuple, rows))
        if self._zoned and not all(has_offset(row[place]) for row in values for place in self._zoned):
            return None
        lacking = self._lacking(values)
        if quotes(body) != self._quotes(values, lacking):
            return None
        if lacking or (self._may_lack and _is_wider(values, self._names)):
            return self._asked(values)
        return Asked(values, as_sent(body, len(rows)) or each_encoded(rows))

    def numbers(self, body: bytes) -> np.ndarray | None:
        """The rows of a body for a model that reads numbers and truths alone, (n, features) float64, NaN for missing; None where `read` gives none."""
        if (rows := self._rows(body, OWN_FIELD)) is None:
            return None
        values = list(map(astuple, rows))
        made = None if _is_wider(values, self._names) else _array(values)
        lacking = self._lacking(values) if made is None else 0
        if quotes(body) != self._quotes(values, lacking):
            return None
        found = np.array(self._features(values), dtype=np.float64) if made is None else made
        return found.reshape(len(values), len(self._names))

    def _rows(self, body: bytes, field: str) -> list[Any] | None:
        if how_often(body, b"{") > ROWS + 1:  # more rows than may be, or texts with braces: it is not decoded to see
            return None
        try:
            return self._decoders[field].decode(body).rows
        except (ValueError, RecursionError):  # msgspec's errors are a ValueError, and Python's of UTF-8
            return None

    def _lacking(self, values: list[tuple[Any, ...]]) -> int:
        """How many values are not there."""
        return sum([row.count(UNSET) for row in values]) if self._may_lack else 0

    def _quotes(self, values: list[tuple[Any, ...]], lacking: int) -> int:
        """How many quotation marks stand around names and texts of rows that name nothing twice."""
        return 2 * (1 + sum(map(len, values)) - lacking + self._texts(values))

    def _features(self, values: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The features alone, with None for what is not there."""
        width = len(self._names)
        return [tuple([None if value is UNSET else value for value in row[:width]]) for row in values]

    def _asked(self, values: list[tuple[Any, ...]]) -> Asked:
        """The same, and as they go into the log."""
        plain = self._features(values)
        rows = [dict(zip(self._names, row, strict=True)) for row in plain]
        if self._marks:
            self._mark(rows, values, self._marks)
        return Asked(plain, each_encoded(rows))

    def _mark(self, rows: list[dict[str, Sent]], values: list[tuple[Any, ...]], marks: Marks) -> None:
        """Adds the mark of each row whose key was sent."""
        for place in [place for place, sent in enumerate(values) if sent[self._first] is not UNSET]:
            if mark := marks.of({name: values[place][at] for name, at in self._key.items()}):
                rows[place][MARK] = mark

    def _texts(self, values: list[tuple[Any, ...]]) -> int:
        """How many values stand in quotation marks."""
        if _is_wider(values, self._names):  # ignored columns may hold anything
            return sum([type(value) is str for row in values for value in row])
        return sum([type(row[place]) is str for place in self._quoted for row in values])


def _array(values: list[tuple[Any, ...]]) -> np.ndarray | None:
    """The numbers of all rows, NaN for None; None where one is not there: to find that out so takes no time of its own."""
    row = struct.Struct(f"{len(values[0]) if values else 0}d")
    with suppress(struct.error):  # where nothing is missing, this takes a third of the time
        return np.frombuffer(bytearray().join([row.pack(*each) for each in values]))
    try:
        return np.array(values, dtype=np.float64)
    except TypeError:
        return None


def _is_wider(values: list[tuple[Any, ...]], names: list[str]) -> bool:
    return bool(values) and len(values[0]) > len(names)


def _field(name: str, feature: Any) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind = TYPES[feature.type]
    return (name, kind | None | msgspec.UnsetType, UNSET) if feature.nullable else (name, kind)


def as_sent(body: bytes, count: int) -> list[bytes]:
    """The rows of a body that was read well, each as it was sent; none where they cannot be cut out safely.

    A row holds no objects and no lists. So the first and the last bracket are the list's, and as long as there is a brace for each row and no
    more, none stands in a text, and rows end where braces say so.
    """
    inner = body[body.index(b"[") + 1 : body.rindex(b"]")]
    if inner[:1] != b"{" or inner[-1:] != b"}" or b"\n" in inner or b"\r" in inner:
        return []
    if count == 1:
        return [inner]
    between = b"},{" if b"},{" in inner else b"}, {"
    rows = inner[1:-1].split(between)
    return [b"{%b}" % row for row in rows] if len(rows) == count == how_often(inner, b"{") else []


def quotes(body: bytes) -> int:
    """How many quotation marks delimit names and texts: a name that stands twice has more than what was decoded."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return how_often(body, b'"')


def how_often(body: bytes, sign: bytes) -> int:
    """As `body.count(sign)` says, of one byte."""
    if len(body) < LONG:
        return body.count(sign)
    found = np.frombuffer(body, np.uint8)
    return sum([int(np.count_nonzero(found[at : at + PART] == ord(sign))) for at in range(0, len(found), PART)])
