"""Files of rows: CSV, Parquet and JSON lines as streams of raw chunks, of whatever size, each complete or refused."""

import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from tasks.config.errors import BatchError, suggestion
from tasks.ml.reading import KINDS, Reading

NOTHING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
SUFFIXES = tuple(KINDS)
ROWS = 65_536  # of a chunk at most: what is made of it on the way stays in the cache
BLOCK = 8 << 20  # bytes of text that are parsed at a time
PIECE = 4_096  # rows of Parquet that are read at a time
END = "\x04end of file"  # a row that is put behind the last one of a CSV file


def regular(path: Path) -> BinaryIO:
    """A file opened for reading; links, pipes and devices are not followed and never waited for.

    Raises:
        BatchError: it is no regular file.
    """
    wanted = f"Wanted: a regular file, {', '.join(SUFFIXES)}. Nothing was changed."
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BatchError(f"{path.name!r}: cannot be opened ({error.strerror}). {wanted}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BatchError(f"{path.name!r}: is a link, pipe, device or folder. {wanted}")
    return os.fdopen(handle, "rb")


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces.

    Raises:
        BatchError: it is no regular file.
    """
    with regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # ty: ignore[no-matching-overload]


def columns(path: Path, reading: Reading) -> list[str]:
    """The names of a file's columns.

    Raises:
        BatchError: the file is empty, broken, or of another kind.
    """
    with _explained(path, reading), regular(path) as file:
        kind = _kind(path, file)
        if kind == "parquet":
            return list(pa.parquet.ParquetFile(file).schema_arrow.names)
        if kind == "csv":
            return _header(file, path, reading)
        return next(_lines(file, reading), pa.table({})).column_names


def chunks(path: Path, reading: Reading, wanted: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
    """The raw rows of a file in order: CSV as text, Parquet and JSON lines as typed; at most ROWS at a time.

    Args:
        path: the file.
        reading: how text is written.
        wanted: the columns that are read, where the file has them; all when None, and of a file that has none of them.

    Raises:
        BatchError: the file is broken somewhere; rows may have come before.
    """
    with _explained(path, reading), regular(path) as file:
        kind = _kind(path, file)
        if kind == "parquet":
            yield from _parquet(file, wanted)
        elif kind == "csv":
            yield from _csv(file, path, reading, wanted)
        else:
            for chunk in _lines(file, reading):
                yield chunk.select(_chosen(chunk.column_names, wanted))


def has_last_line_break(path: Path) -> bool:
    """Whether a text file ends with a line break; one that does not may have been cut."""
    if KINDS.get(path.suffix) == "parquet":
        return True
    with regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4))
        return file.read().rstrip(b"\x00")[-1:] in {b"\n", b"\r"}


# -- kinds ------------------------------------------------------------------------------------------------------------
def _kind(path: Path, file: BinaryIO) -> str:
    kind = KINDS.get(path.suffix)
    if kind is None:
        raise BatchError(
            f"{path.name}: is of kind '{path.suffix}'. Wanted: {', '.join(SUFFIXES)}.{suggestion(path.suffix, SUFFIXES)}"
        )
    if os.fstat(file.fileno()).st_size == 0:
        raise BatchError(
            f"{path.name}: is empty (0 bytes). Wanted: a header and rows. Send it again; nothing was changed."
        )
    return kind


def _parquet(file: BinaryIO, wanted: tuple[str, ...] | None) -> Iterator[pa.Table]:
    """Row groups are read through small buffers, so that a file of one huge group needs no more memory than another.

    And a few rows at a time: how large their texts are is known when they are there, for many that are equal are written once.
    """
    reader = pa.parquet.ParquetFile(file, page_checksum_verification=True, pre_buffer=False, buffer_size=1 << 20)
    names = _chosen(reader.schema_arrow.names, wanted)
    pieces: list[pa.RecordBatch] = []
    for piece in reader.iter_batches(PIECE, columns=names):
        pieces.append(_written_out(piece))
        if sum(map(len, pieces)) >= ROWS or sum(each.nbytes for each in pieces) >= 4 * BLOCK:
            yield pa.Table.from_batches(pieces)
            pieces = []
    if pieces:
        yield pa.Table.from_batches(pieces)


def _written_out(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows, each with its own text: a reference to an equal one does not say how large it is."""
    columns = [each.dictionary_decode() if pa.types.is_dictionary(each.type) else each for each in rows.columns]
    return pa.record_batch(columns, names=rows.schema.names)


def _header(file: BinaryIO, path: Path, reading: Reading) -> list[str]:
    names = _open_csv(file, path, reading, None).schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BatchError(
            f"{path.name}: the header names '{twice[0]}' twice. Name each column once; nothing was changed."
        )
    file.seek(0)
    return names


def _csv(file: BinaryIO, path: Path, reading: Reading, wanted: tuple[str, ...] | None) -> Iterator[pa.Table]:
    names = _header(file, path, reading)
    kept = _chosen(names, wanted)
    last = pa.table({name: pa.array([], pa.string()) for name in names})
    for batch in _open_csv(_Ended(file, names, path, reading), path, reading, names):
        if len(batch):
            yield from _slices(last.select(kept))
            last = pa.Table.from_batches([batch])
    if not len(last) or last.column(0)[-1].as_py() != END:
        raise BatchError(
            f"{path.name}: ends inside a quotation: it was cut, or a quotation mark is never closed. {AGAIN}"
        )
    yield from _slices(last.slice(0, len(last) - 1).select(kept))


def _chosen(names: list[str], wanted: tuple[str, ...] | None) -> list[str]:
    return [name for name in wanted or () if name in names] or names


def _slices(rows: pa.Table) -> Iterator[pa.Table]:
    for at in range(0, len(rows), ROWS):
        yield rows.slice(at, ROWS)


def _open_csv(file: Any, path: Path, reading: Reading, names: list[str] | None) -> pa.csv.CSVStreamingReader:
    return pa.csv.open_csv(
        file,
        read_options=pa.csv.ReadOptions(block_size=BLOCK, encoding=reading.encoding),
        parse_options=pa.csv.ParseOptions(delimiter=_delimiter(path, reading), newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names or [], pa.string()), null_values=list(NOTHING), strings_can_be_null=True
        ),
    )


def _delimiter(path: Path, reading: Reading) -> str:
    return "\t" if path.suffix == ".tsv" else reading.delimiter


class _Ended(io.RawIOBase):
    """A CSV file with one more row behind its last: a file that ends inside a quotation swallows it."""

    def __init__(self, file: BinaryIO, names: list[str], path: Path, reading: Reading) -> None:
        self._file = file
        row = _delimiter(path, reading).join([END] + ["0"] * (len(names) - 1))
        self._tail = io.BytesIO(f"\n{row}\n".encode(_without_mark(reading.encoding)))

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        return piece or self._tail.read(size)

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def _without_mark(encoding: str) -> str:
    """An encoding that puts no byte-order mark in front of every piece."""
    return "utf-16-le" if encoding.lower().replace("_", "-") == "utf-16" else encoding


def _lines(file: BinaryIO, reading: Reading) -> Iterator[pa.Table]:
    """Each piece is inferred by itself: a field may come late, and may be a whole number here and a fraction there."""
    while lines := file.readlines(BLOCK):
        text = b"".join(lines)
        if reading.encoding.lower() not in {"utf-8", "utf8"}:
            text = text.decode(reading.encoding).encode()
        if not text.strip():
            continue
        yield from _slices(_parsed(text))


def lines(texts: Sequence[str]) -> pa.Table:
    """JSON objects, one a row, as rows; all their values as texts where a column holds a number here and a text there."""
    try:
        return _parsed("\n".join(texts).encode())
    except pa.ArrowInvalid:
        return as_texts([json.loads(text) for text in texts])


def as_texts(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of JSON values as columns of texts, whatever keys each has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {
        name: pa.array([None if row.get(name) is None else _text(row[name]) for row in rows], pa.string())
        for name in names
    }
    return pa.table(columns) if columns else pa.table({"": pa.nulls(len(rows))})


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parsed(lines: bytes) -> pa.Table:
    """JSON lines in UTF-8 as rows. Texts stay texts: where Arrow read a time in them its digits and its zone would be lost."""
    rows = _read(lines, [])
    times = [field.name for field in rows.schema if pa.types.is_timestamp(field.type)]
    return _read(lines, times) if times else rows


def _read(lines: bytes, texts: list[str]) -> pa.Table:
    explicit = pa.schema([(name, pa.string()) for name in texts]) if texts else None
    return pa.json.read_json(
        io.BytesIO(lines),
        read_options=pa.json.ReadOptions(block_size=len(lines) + 1),
        parse_options=pa.json.ParseOptions(explicit_schema=explicit, newlines_in_values=False),
    )


# -- errors -----------------------------------------------------------------------------------------------------------
UNEVEN = re.compile(r"(?:Row #\d+: )?Expected \d+ columns, got \d+")
AGAIN = "Send it again, complete; nothing was changed."


class _explained:  # noqa: N801 – reads as a verb where it stands
    """Turns what a parser says into a sentence that names the file and the next move."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path, self.reading = path, reading

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, (pa.ArrowException, UnicodeError, OSError, ValueError)) or isinstance(
            error, BatchError
        ):
            return
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if uneven := UNEVEN.search(said):  # what follows is the line itself, which may be about a person
            raise BatchError(
                f"{self.path.name}: {uneven[0]}, where the header has as many as are expected. If another sign than '{_delimiter(self.path, self.reading)}' "
                "parts them, say so in project.yaml, like `reads: {delimiter: ';'}`; nothing was changed."
            ) from error
        if "UTF8" in said or isinstance(error, UnicodeError):
            raise BatchError(
                f"{self.path.name}: is not written in {self.reading.encoding}: {said}. Send it in that encoding, or say in "
                "project.yaml how it is written, like `reads: {encoding: latin-1}`; nothing was changed."
            ) from error
        raise BatchError(
            f"{self.path.name}: does not read as {self.path.suffix.removeprefix('.')}: {said}. {AGAIN}"
        ) from error
