"""One Delta table whose data files have the SHA-256 of their bytes as a name: read verified, changed in single commits.

Context: Delta's log holds no checksum of a data file, and one flipped bit in Parquet is read as another value without
an error. Choice: we write the files (pyarrow), name each by its content, and let delta-rs commit the names: appends,
replacements and their application transaction are one atomic log entry, and any Delta reader can read the table.
Price: a file is hashed once when it is written and once when it is read (0.2 s for 256 MB).
"""

import datetime as dt
import hashlib
import json
import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, PostCommitHookProperties, RemoveAction, create_table_with_add_actions
from pydantic import BaseModel

from tasks.config.errors import ArtifactError
from tasks.stores import durable

ROWS_OF_A_FILE = 131_072  # one is in memory as bytes beside what was read, and as bytes and table where it is written
CONFIGURATION: dict[str, str | None] = {
    "delta.logRetentionDuration": "interval 36500 days",  # a version that a model was trained on stays readable
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "20",  # opening a table stays cheap however many commits it has
}
REMOVED = "_removed"  # folder of notes about data files that were deleted; Delta readers skip what begins with _
NAME = re.compile(r"[0-9a-f]{64}\.parquet")


class DataFile(BaseModel, frozen=True):
    """One data file: its name says its SHA-256; how many rows it has, and for `times` of what span (ISO 8601, UTC)."""

    path: str
    size: int
    rows: int
    since: str = ""
    until: str = ""

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return self.path.removesuffix(".parquet")


def encode(rows: pa.Table, time: str = "") -> tuple[DataFile, pa.Buffer]:
    """Rows as the bytes of a data file, with its name. Equal rows in equal order give the same name."""
    texts = [field.name for field in rows.schema if pa.types.is_string(field.type)]
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(
        rows, sink, compression="snappy", use_dictionary=texts, write_page_checksum=True, row_group_size=131_072
    )
    data = sink.getvalue()
    since, until = span(rows, time)
    name = f"{hashlib.sha256(data).hexdigest()}.parquet"
    return DataFile(path=name, size=data.size, rows=len(rows), since=since, until=until), data


def span(rows: pa.Table, time: str) -> tuple[str, str]:
    """Time of the oldest and the newest row, ISO 8601; empty without such a column or rows."""
    if not time or not len(rows):
        return "", ""
    ends = pc.min_max(rows[time]).as_py()  # ty: ignore[missing-attribute]
    return _iso(ends["min"]), _iso(ends["max"])


def _iso(value: dt.datetime | None) -> str:
    return value.astimezone(dt.UTC).isoformat() if value else ""


def _options() -> dict[str, str]:
    """S3: a commit is put only where none is yet; without TLS only when the store's own address says so."""
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"aws_conditional_put": "etag", "aws_allow_http": str(plain).lower()}


class Table:
    """A Delta table in one folder, or under one object-store URL.

    Args:
        root: the folder or URL.
        time: the column of type timestamp whose span the log keeps for each file; none when empty.
    """

    def __init__(self, root: str, time: str = "") -> None:
        self.root, self.time = root, time
        self.options = _options() if root.startswith("s3://") else None
        self._is_held, self._opened = False, None

    # -- what is there ------------------------------------------------------------------------------------------------
    @contextmanager
    def held(self) -> Generator[None]:
        """Nobody else changes the table meanwhile: it is opened once, because each time costs a look at the whole log."""
        self._is_held, self._opened = True, None
        try:
            yield
        finally:
            self._is_held, self._opened = False, None

    def open(self, version: int | None = None) -> DeltaTable | None:
        """The table at a version (default: the newest), or None before the first commit."""
        if version is None and self._opened is not None:
            return self._opened
        try:
            table = DeltaTable(self.root, version=version, storage_options=self.options)
        except TableNotFoundError:
            return None
        if version is None and self._is_held:
            self._opened = table
        return table

    @property
    def newest(self) -> int | None:
        """The newest version, or None before the first commit."""
        table = self.open()
        return table.version() if table else None

    def files(self, table: DeltaTable | None) -> list[DataFile]:
        """The data files of an opened table, by name."""
        if table is None:
            return []
        listed = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        low, high = f"min.{self.time}", f"max.{self.time}"
        return sorted(
            (
                DataFile(
                    path=row["path"], size=row["size_bytes"], rows=row["num_records"] or 0,
                    since=_iso(row.get(low)), until=_iso(row.get(high)),
                )
                for row in listed
            ),
            key=lambda file: file.path,
        )  # fmt: skip

    def since(self, version: int) -> set[str]:
        """The names of the data files that any version from this one on has.

        One version is opened; of each later one only its commit is read, which says what it brought: opening costs ten times that.
        """
        names = {file.path for file in self.files(self.open(version))}
        for number in range(version + 1, (self.newest or 0) + 1):
            with self._filesystem.open_input_stream(self._at(f"_delta_log/{number:020d}.json")) as commit:
                actions = [json.loads(line) for line in commit.read().splitlines()]
            names |= {action["add"]["path"] for action in actions if "add" in action}
        return names

    def holds(self, table: DeltaTable | None, transaction: str) -> bool:
        """Whether a commit with this application transaction was made."""
        return table is not None and table.transaction_version(transaction) is not None

    def read(self, file: DataFile, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one data file, after its bytes were compared with its name.

        Raises:
            ArtifactError: the file is not there, or not the one that was written.
        """
        return self.parse(file, self._bytes(file), columns)

    def parse(self, file: DataFile, data: pa.Buffer, columns: Sequence[str] | None = None) -> pa.Table:
        """Verified bytes as rows; columns that the file is too old for are left out."""
        reader = self._verified(file, data)
        names = None if columns is None else [name for name in columns if name in reader.schema_arrow.names]
        return reader.read(columns=names)

    def opened(self, file: DataFile) -> pa.parquet.ParquetFile:
        """A data file to read a column at a time, after its bytes were compared with its name.

        Raises:
            ArtifactError: the file is not there, or not the one that was written.
        """
        return self._verified(file, self._bytes(file))

    def peek(self, file: DataFile, columns: Sequence[str]) -> pa.Table:
        """Some columns of a data file without verifying it: for indexes and counts that are checked elsewhere."""
        try:
            source = self._filesystem.open_input_file(self._at(file.path))
        except OSError as error:
            self._say_when_removed(file, error)
            raise self._damaged(file, f"it cannot be read ({type(error).__name__})") from error
        try:
            with source, pa.parquet.ParquetFile(source, page_checksum_verification=True) as reader:
                return reader.read(
                    columns=[name for name in columns if name in reader.schema_arrow.names], use_threads=False
                )
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(file, f"it cannot be read ({type(error).__name__})") from error

    def verify(self, files: Sequence[DataFile]) -> Iterator[str]:
        """The names of those data files whose bytes are not the ones that were written."""
        for file in files:
            try:
                if hashlib.sha256(self._bytes(file)).hexdigest() != file.sha256:
                    yield file.path
            except ArtifactError:
                yield file.path

    def stored(self) -> list[str]:
        """The names of all data files that exist, whatever version they belong to."""
        selector = pyarrow.fs.FileSelector(self._at(""), allow_not_found=True)
        return sorted(
            info.base_name for info in self._filesystem.get_file_info(selector) if NAME.fullmatch(info.base_name)
        )

    def sizes(self, names: Sequence[str]) -> int:
        """Bytes of these stored data files together."""
        return sum(info.size or 0 for info in self._filesystem.get_file_info([self._at(name) for name in names]))

    # -- changes ------------------------------------------------------------------------------------------------------
    def publish(self, file: DataFile, staged: Path) -> None:
        """Puts a staged data file where the table's files are; no reader sees it before the commit. May be repeated."""
        if "://" not in self.root:
            durable.move(staged, Path(self.root) / file.path)
            return
        durable.step(f"put {file.path}")
        if staged.exists():
            with self._filesystem.open_output_stream(self._at(file.path)) as sink:
                sink.write(staged.read_bytes())

    def commit(
        self, add: Sequence[DataFile], remove: Sequence[DataFile], transactions: Sequence[str], schema: pa.Schema,
        at: dt.datetime, why: dict[str, str] | None = None, marks: Mapping[str, int] | None = None,
    ) -> int:  # fmt: skip
        """One atomic change; gives the table's version. The first of the transactions is there already: nothing changes.

        Args:
            add: data files that it brings in.
            remove: those that it takes out; one that is among both stays, for its name says that its content is the same.
            transactions: names under which the table knows the change.
            schema: the columns that it shall have.
            at: when.
            why: stands in the log.
            marks: how far other things were read for it, by name; `transaction_version` gives them back.

        Raises:
            ArtifactError: the table has a column of another type than `schema` wants.
        """
        table = self._ready(schema)
        if transactions and self.holds(table, transactions[0]):
            return table.version()
        millis, stay = int(at.timestamp() * 1000), {file.path for file in add} & {file.path for file in remove}
        actions: list[AddAction | RemoveAction] = [
            RemoveAction(file.path, bool(add), millis, file.size, {}) for file in remove if file.path not in stay
        ]
        actions += [
            AddAction(file.path, file.size, {}, millis, True, self._stats(file))
            for file in add
            if file.path not in stay
        ]
        durable.step(f"commit {self.root.rsplit('/', 1)[-1]}")
        table.create_write_transaction(
            actions, "append", table.schema(),
            commit_properties=CommitProperties(
                app_transactions=[Transaction(name, n) for name, n in (dict.fromkeys(transactions, 1) | dict(marks or {})).items()],
                custom_metadata=why,
            ),
            post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
        )  # fmt: skip
        table.update_incremental()
        self._opened = table if self._is_held else None
        return table.version()

    def delete(self, names: Sequence[str], at: dt.datetime, reason: str) -> None:
        """Removes data files for good; whoever asks for one later is told when and why. May be repeated.

        What still belongs to a version that somebody needs must not be among them.
        """
        if wrong := [name for name in names if not NAME.fullmatch(name)]:
            raise ArtifactError(f"{self.root}: '{wrong[0]}' is no data file of this table; nothing was removed.")
        for name in names:
            note, filesystem = self._at(f"{REMOVED}/{name}.json"), self._filesystem
            durable.step(f"note {name}")
            filesystem.create_dir(self._at(REMOVED))
            with filesystem.open_output_stream(note) as sink:
                sink.write(json.dumps({"at": at.isoformat(), "reason": reason}).encode())
            durable.step(f"remove {name}")
            if filesystem.get_file_info(self._at(name)).type == pyarrow.fs.FileType.File:
                filesystem.delete_file(self._at(name))

    # -- the engine ---------------------------------------------------------------------------------------------------
    @cached_property
    def _place(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """Where the data files are: Arrow's own client of that kind of store, and the folder in it."""
        if "://" not in self.root:
            return pyarrow.fs.LocalFileSystem(), self.root
        return pyarrow.fs.FileSystem.from_uri(self.root)

    @property
    def _filesystem(self) -> pyarrow.fs.FileSystem:
        return self._place[0]

    def _at(self, name: str) -> str:
        return f"{self._place[1]}/{name}" if name else self._place[1]

    def _bytes(self, file: DataFile) -> pa.Buffer:
        try:
            with self._filesystem.open_input_file(self._at(file.path)) as source:
                return source.read_buffer()
        except OSError as error:
            self._say_when_removed(file, error)
            raise self._damaged(file, f"it cannot be read ({type(error).__name__})") from error

    def _verified(self, file: DataFile, data: pa.Buffer) -> pa.parquet.ParquetFile:
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise self._damaged(file, "its bytes are not those that were written")
        reader = pa.parquet.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if reader.metadata.num_rows != file.rows:
            raise self._damaged(file, f"it has {reader.metadata.num_rows} rows instead of {file.rows}")
        return reader

    def _say_when_removed(self, file: DataFile, error: OSError) -> None:
        try:
            with self._filesystem.open_input_stream(self._at(f"{REMOVED}/{file.path}.json")) as source:
                note = json.loads(source.read())
        except (OSError, ValueError):
            return
        raise ArtifactError(
            f"{self.root}/{file.path}: was removed on {note['at'][:10]}: {note['reason']}. Snapshots that held it cannot be read "
            "any more; use a newer one."
        ) from error

    def _damaged(self, file: DataFile, what: str) -> ArtifactError:
        return ArtifactError(
            f"{self.root}/{file.path}: was altered or damaged: {what}. Nothing is read from it; restore this one file "
            "from a back-up (its name is its SHA-256)."
        )

    def _stats(self, file: DataFile) -> str:
        span = {"minValues": {self.time: file.since}, "maxValues": {self.time: file.until}} if file.since else {}
        return json.dumps({"numRecords": file.rows, **span})

    def check(self, schema: pa.Schema) -> None:
        """Nothing, where the table can have these columns.

        Raises:
            ArtifactError: it has a column of another type, or one whose name differs in upper and lower case only.
        """
        if (table := self.open()) is not None:
            self._new(table, schema)

    def _new(self, table: DeltaTable, schema: pa.Schema) -> list[pa.Field]:
        """Those columns of `schema` that the table does not have yet."""
        known = {field.name: field.type for field in pa.schema(table.schema())}
        for field in schema:
            if why := _unfit(field, known):
                raise ArtifactError(f"{self.root}: {why}")
        return [field for field in schema if field.name not in known]

    def _ready(self, schema: pa.Schema) -> DeltaTable:
        """The newest table, made or widened so that it has the columns of `schema`."""
        table = self.open()
        if table is None:
            if "://" not in self.root:
                Path(self.root).mkdir(parents=True, exist_ok=True)
            durable.step("create table")
            create_table_with_add_actions(
                self.root, Schema.from_arrow(schema), [], mode="ignore", configuration=CONFIGURATION,
                storage_options=self.options,
            )  # fmt: skip
            table = DeltaTable(self.root, storage_options=self.options)
        if new := self._new(table, schema):
            durable.step("add columns")
            table.alter.add_columns(
                list(Schema.from_arrow(pa.schema([field.with_nullable(True) for field in new])).fields)
            )
            table = DeltaTable(self.root, storage_options=self.options)
        return table


def _unfit(field: pa.Field, known: Mapping[str, pa.DataType]) -> str:
    """Why a column cannot be kept beside the known ones; empty when it can."""
    if field.name in known and not _fits(field.type, known[field.name]):
        return (
            f"column '{field.name}' holds {known[field.name]}; the contract wants {field.type} now. "
            "What has landed cannot change its type: give the column a new name, or start a new project."
        )
    twins = [name for name in known if name != field.name and name.lower() == field.name.lower()]
    if twins and field.name not in known:
        return (
            f"has a column '{twins[0]}' already, and the contract wants '{field.name}' now, which differs in upper and lower case only. "
            "Write it as it was, or give it another name."
        )
    return ""


def _fits(wanted: pa.DataType, known: Any) -> bool:
    return str(wanted).removeprefix("large_") == str(known).removeprefix("large_").replace(
        "string_view", "string"
    ).replace("binary_view", "binary")


UNREADABLE = (pa.ArrowException, DeltaError, OSError)
