"""A source of rows: a SQL query over SQLAlchemy, read on from where it was read before.

A transaction that began early may commit late: its rows appear *behind* rows that were read already. So each fetch looks again at the rows of the
last stretch before the mark (`overlap_seconds`, `overlap_steps`), and delivers that stretch again when it is not what was delivered; landing knows
the rows that it has. The mark is the newest value that was read and, once it stands still, a digest of the stretch before it, so that
nothing is delivered when nothing has changed.
"""

import datetime as dt
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from tasks.sources.delivery import Delivered, Draft, Left, Mark, Scheduled, SourceError, UnreachableError, inbox_name

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

Moment = int | dt.datetime | dt.date | str
DAY = 86_400
TIME = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?")
SMALLEST = 1e-6  # seconds: what a time is told apart by


def one_select(sql: str) -> str:
    """The statement without what ends it.

    Raises:
        ValueError: it is none that reads.
    """
    sql = sql.strip().rstrip(";").rstrip()
    if not re.match(r"(select|with)\b", sql, re.IGNORECASE):
        raise ValueError("it begins with neither SELECT nor WITH; wanted: one statement that reads")
    return sql


class Query(Scheduled, frozen=True, extra="forbid"):
    """Rows of a SQL query, those that are new since the last fetch."""

    kind: Literal["query"] = "query"
    url_env: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="name of the environment variable with the SQLAlchemy URL, like postgresql+psycopg://…",
    )
    sql: str = Field(
        description="one SELECT; `:mark` in it is the value from which on rows are wanted, for the database to read no more"
    )
    mark: str = Field(description="column of the result that grows: a time or a whole number")
    start: Moment = Field(
        description="where the first fetch begins, of the column's type: 0, 2024-01-01, 2024-01-01T00:00:00Z"
    )
    overlap_seconds: float = Field(
        default=300, ge=0, description="for times: longer than the longest transaction that writes"
    )
    overlap_steps: int = Field(
        default=1000, ge=0, description="for numbers: more than are handed out while the longest transaction runs"
    )
    rows_per_file: int = Field(default=50_000, ge=1, description="bounds the memory")

    @field_validator("sql")
    @classmethod
    def _one_select(cls, sql: str) -> str:
        return one_select(sql)

    @field_validator("start")
    @classmethod
    def _a_moment(cls, start: Moment) -> Moment:
        Position(start)
        return start

    def fetch(self, mark: str | None, into: Path, now: dt.datetime) -> Iterator[Delivered | Left | Mark]:  # noqa: ARG002 – the rows' clock counts
        """Delivers rows since the mark as Parquet files, in the order of the mark column; rows without a mark come once, and when they change."""
        with self._connected() as connection:
            if mark is None:
                start = Position(self.start)
                yield from self._deliver(self._read(connection, from_=start, nulls=True), start, into)
                return
            at, known = Position.read(mark)
            stretch = at.before(self.overlap_seconds, self.overlap_steps)
            seen = Stretch()
            for _ in seen.watch(self._read(connection, from_=stretch, upto=at, nulls=True)):
                pass
            if seen.digest != known:
                again = Stretch()
                for rows in again.watch(self._read(connection, from_=stretch, upto=at, nulls=True)):
                    yield self._file(rows, into)
                yield Mark(at.write(again.digest))
            yield from self._deliver(self._read(connection, after=at), at, into)

    def _deliver(self, parts: Iterator["Rows"], at: "Position", into: Path) -> Iterator[Delivered | Mark]:
        for rows in itertools.islice(parts, self.at_most):
            at = rows.newest(self.mark) or at
            yield self._file(rows, into)
            yield Mark(at.write())

    def _file(self, rows: "Rows", into: Path) -> Delivered:
        import pyarrow as pa
        import pyarrow.parquet

        content = pa.BufferOutputStream()
        pa.parquet.write_table(rows.table(), content, write_page_checksum=True)
        with Draft(into) as draft:
            draft.write(memoryview(content.getvalue()))
            return draft.publish(inbox_name(f"{self.name}.parquet", draft.digest))

    @contextmanager
    def _connected(self) -> Generator["sa.Connection"]:
        """A connection that only reads; its errors are said without the URL, which holds a password."""
        from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

        try:
            engine = engine_of(os.environ.get(self.url_env, ""), self.url_env)
        except ValueError as error:
            raise SourceError(f"source '{self.name}': {error}.") from None
        try:
            with engine.connect().execution_options(postgresql_readonly=True) as connection:
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql("SET TIME ZONE 'UTC'")
                yield connection
        except (OperationalError, InterfaceError) as error:
            raise UnreachableError(
                f"source '{self.name}': the database does not answer: {said(error, engine.url)}"
            ) from None
        except SQLAlchemyError as error:
            raise SourceError(
                f"source '{self.name}': the query fails: {said(error, engine.url)}. Correct sql, mark or start."
            ) from None

    def _read(
        self,
        connection: "sa.Connection",
        *,
        from_: "Position | None" = None,
        after: "Position | None" = None,
        upto: "Position | None" = None,
        nulls: bool = False,
    ) -> Iterator["Rows"]:
        """The rows between two positions in order, `rows_per_file` at a time, streamed; everything is bound, nothing is written into the SQL."""
        import sqlalchemy as sa

        def bound(name: str, position: Position) -> sa.BindParameter[Any]:
            return sa.bindparam(name, position.bound(connection.dialect.name), type_=sa.types.NullType())

        inner = sa.text(self.sql + "\n").columns(sa.column(self.mark)).subquery("q")  # the line may end in a comment
        column = inner.c[self.mark]
        within = sa.and_(
            *([column >= bound("keepfit_from", from_)] if from_ else []),
            *([column > bound("keepfit_after", after)] if after else []),
            *([column <= bound("keepfit_upto", upto)] if upto else []),
        )
        wanted = (
            sa.select(sa.text("q.*"))
            .select_from(inner)
            .where(sa.or_(within, column.is_(None)) if nulls else within)
            .order_by(column)
        )
        begin = (from_ or after or Position(self.start)).before(
            SMALLEST, 1
        )  # so that neither `>` nor `>=` loses a row at the mark
        result = connection.execute(
            wanted, {"mark": begin.bound(connection.dialect.name)}, execution_options={"yield_per": self.rows_per_file}
        )
        names = tuple(result.keys())
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise SourceError(
                f"source '{self.name}': the query gives column '{min(twice)}' twice. Give one of them another name, or name the columns you want."
            )
        kinds = _declared(result.cursor) if connection.dialect.name == "postgresql" else dict.fromkeys(names)
        for values in result.partitions():
            yield Rows(names, kinds, values)


@dataclass(frozen=True)
class Position:
    """A value of the mark column, and how to come before it."""

    value: Moment

    def __post_init__(self) -> None:
        """Takes only what can be counted back from."""
        text = isinstance(self.value, str) and TIME.fullmatch(self.value)
        if isinstance(self.value, bool) or not (text or isinstance(self.value, int | dt.date)):
            raise ValueError(
                f"the mark is of type {type(self.value).__name__}; wanted a time, a date or a whole number. Cast it in the query"
            )

    def before(self, seconds: float, steps: int) -> "Position":
        """The position so many seconds, or for a number so many steps, before."""
        value = self.value
        if isinstance(value, int):
            return Position(value - steps)
        if isinstance(value, str):
            moment = dt.datetime.fromisoformat(value)
            if len(value) == len("2024-01-01"):
                return Position(str(_earlier(moment.date(), seconds)))
            return Position(_earlier(moment, seconds).isoformat(value[10]))
        return Position(_earlier(value, seconds))

    def bound(self, dialect: str) -> Moment:
        """As a database's driver takes it; SQLite knows times only as text."""
        value = self.value
        if dialect != "sqlite" or not isinstance(value, dt.date):
            return value
        if not isinstance(value, dt.datetime):
            return str(value)
        return (value.astimezone(dt.UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat(" ")

    def write(self, stretch: str | None = None) -> str:
        """The text of a mark, with the digest of the stretch before it when that was delivered whole."""
        at = self.value if isinstance(self.value, int | str) else self.value.isoformat()
        return json.dumps({"kind": type(self.value).__name__, "at": at, "stretch": stretch})

    @classmethod
    def read(cls, mark: str) -> tuple["Position", str | None]:
        """What `write` has written."""
        said = json.loads(mark)
        read = {"datetime": dt.datetime.fromisoformat, "date": dt.date.fromisoformat}.get(
            said["kind"], lambda value: value
        )
        return cls(read(said["at"])), said["stretch"]


def _earlier(value: Any, seconds: float) -> Any:
    whole_days = not isinstance(value, dt.datetime)
    try:
        return value - (dt.timedelta(days=math.ceil(seconds / DAY)) if whole_days else dt.timedelta(seconds=seconds))
    except OverflowError:  # before the year 1
        return value


@dataclass(frozen=True)
class Rows:
    """Some rows of the result."""

    names: tuple[str, ...]
    kinds: dict[str, "pa.DataType | None"]
    values: Sequence[Sequence[Any]]

    def newest(self, column: str) -> Position | None:
        """The last value of the mark column; the rows are in its order."""
        place = self.names.index(column)
        value = next((row[place] for row in reversed(self.values) if row[place] is not None), None)
        if isinstance(value, dt.datetime) and value.tzinfo:
            value = value.astimezone(dt.UTC)
        try:
            return None if value is None else Position(value)
        except ValueError as error:
            raise SourceError(f"column '{column}': {error}.") from None

    def table(self) -> "pa.Table":
        """As an Arrow table; a column's type is the database's where it says one, else that of its values."""
        import pyarrow as pa

        columns = zip(*self.values, strict=True)
        return pa.table(
            {name: _array(column, self.kinds[name]) for name, column in zip(self.names, columns, strict=True)}
        )


class Stretch:
    """A digest over rows in any order, taken while they pass."""

    def __init__(self) -> None:
        self._sum = 0

    def watch(self, parts: Iterator[Rows]) -> Iterator[Rows]:
        """Passes rows on."""
        for rows in parts:
            for row in rows.values:
                self._sum += int.from_bytes(
                    hashlib.blake2b(repr(tuple(row)).encode(errors="surrogatepass"), digest_size=16).digest()
                )
            yield rows

    @property
    def digest(self) -> str:
        """Hexadecimal; the same for the same rows."""
        return f"{self._sum % (1 << 128):032x}"


def _array(values: Sequence[Any], kind: "pa.DataType | None") -> "pa.Array":
    """One column; what Arrow has no type for becomes text, exactly."""
    import pyarrow as pa

    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kind is None and kinds == {Decimal}:
        try:
            return pa.array(values)
        except pa.ArrowInvalid:  # NaN, or more digits than Arrow counts
            kind = pa.string()
    kind = kind or _kind(present, kinds)
    if kind == pa.string():
        values = [None if value is None else _text(value) for value in values]
    elif kind == pa.float64():
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, kind)


def _kind(present: list[Any], kinds: set[type]) -> "pa.DataType":
    import pyarrow as pa

    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int} and all(-(1 << 63) <= value < 1 << 63 for value in present):
        return pa.int64()
    if float in kinds and kinds <= {int, float}:
        return pa.float64()
    if kinds == {dt.datetime} and len({value.tzinfo is None for value in present}) == 1:
        return pa.timestamp("us", "UTC" if present[0].tzinfo else None)
    return pa.date32() if kinds == {dt.date} else pa.string()


def _declared(cursor: Any) -> dict[str, "pa.DataType | None"]:
    """PostgreSQL's types, by their numbers in `pg_type`; numeric (1700) takes as many digits as its values need."""
    import pyarrow as pa

    types = {
        16: pa.bool_(), 20: pa.int64(), 21: pa.int64(), 23: pa.int64(), 700: pa.float64(), 701: pa.float64(), 1700: None,
        1082: pa.date32(), 1114: pa.timestamp("us"), 1184: pa.timestamp("us", "UTC"),
    }  # fmt: skip
    return {column[0]: types.get(column[1], pa.string()) for column in cursor.description}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)


def engine_of(url: str, variable: str) -> "sa.Engine":
    """An engine that keeps no connection, whose errors hold no values.

    Args:
        url: SQLAlchemy's.
        variable: the environment variable that holds it; what is wrong is said by this name.

    Raises:
        ValueError: there is no URL, or it is none, or its driver is not installed; the URL, which holds a password, is not repeated.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import ArgumentError

    if not url:
        raise ValueError(f"the environment variable {variable} is not set. Set it where the worker starts")
    try:
        return sa.create_engine(url, hide_parameters=True, poolclass=sa.NullPool)
    except (ArgumentError, ValueError, TypeError):
        raise ValueError(
            f"{variable} holds no SQLAlchemy URL, like postgresql+psycopg://user:password@host/database"
        ) from None
    except ImportError as error:
        raise ValueError(
            f"the database's driver is not installed here: {error.name}. For PostgreSQL say `pip install 'keepfit[postgres]'`"
        ) from None


def said(error: "SQLAlchemyError", url: "sa.URL") -> str:
    """The first line of what the driver said, without the password."""
    text = str(getattr(error, "orig", None) or error).partition("\n")[0].rstrip(". ")
    return text.replace(str(url.password), "***") if url.password else text
