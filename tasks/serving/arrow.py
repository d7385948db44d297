"""Arrow: rows by column as an IPC stream, which needs no parsing, and answers as one. Only plain columns are read, nothing compressed, no dictionaries."""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from starlette.responses import Response

from tasks.ml.compiled.encode import microseconds
from tasks.serving.answers import Refusal
from tasks.serving.bodies import BATCHES, ROWS
from tasks.serving.champion import Champion, Feature, Manifest, label_of
from tasks.serving.protocols import OWN, STREAM, Answered, Protocol, Question
from tasks.serving.reading import EXACT, has_offset
from tasks.serving.sheet import Sheet
from tasks.serving.writing import Columns
from tasks.stores.packed import KINDS

COMPRESSION = 3  # the field of a record batch that says how its buffers are compressed (Arrow's format/Message.fbs)
WANTED = f"wanted an Arrow IPC stream ({STREAM})"
DOUBLE = pa.float64()
WHOLES = pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()
REST = pa.float16(), pa.float32(), DOUBLE, pa.bool_(), pa.string(), pa.large_string(), pa.timestamp("us"), pa.null()
PLAIN = frozenset(each.id for each in (*WHOLES, *REST))
Row = dict[str, Any]


# -- what comes in ----------------------------------------------------------------------------------------------------
def read(body: bytes, champion: Champion, *, whole: bool = False) -> Sheet:
    """The rows of a body, as the champion's model reads them.

    Args:
        body: the stream.
        champion: whose model it is.
        whole: with every other column that was sent, for another model may read it; else with those alone that leave a mark in the log.

    Raises:
        Refusal: it is no such stream, or has other columns, types, or values; nothing of it is repeated.
    """
    features, names = champion.manifest.features, {each.name for each in champion.manifest.features}
    schema, batches = _batches(body, champion.manifest)
    sent = batches[0] if len(batches) == 1 else pa.concat_batches([pa.RecordBatch.from_pylist([], schema), *batches])
    others = set(schema.names) - names if whole else set(champion.marks.key) if champion.marks else set[str]()
    beside = {name: _plain(sent[name], name) for name in sorted(others)} if others.issubset(schema.names) else {}
    if (doubles := _doubles(sent, features)) is not None:
        return Sheet(features, doubles, {}, beside)
    return Sheet(features, *_columns(sent, features), beside)


def _doubles(sent: pa.RecordBatch, features: Sequence[Feature]) -> np.ndarray | None:
    """(n, features) float64, NaN for null, where all are floats and sent as such; None also where a value is not as it should be."""
    names = [each.name for each in features]
    if any(each.type != "float" for each in features) or not names or not set(names).issubset(sent.schema.names):
        return None
    some = sent if sent.schema.names == names else sent.select(names)
    nulls = [column.null_count for column in some.columns]
    if some.schema.types != [DOUBLE] * len(names) or any(
        count and not each.nullable for count, each in zip(nulls, features, strict=True)
    ):
        return None
    values = some.to_tensor(null_to_nan=True, row_major=True).to_numpy()
    return values if np.count_nonzero(np.isfinite(values)) == values.size - sum(nulls) else None


def _columns(sent: pa.RecordBatch, features: Sequence[Feature]) -> tuple[np.ndarray, dict[str, list[Any]]]:
    """The features that are numbers or truths, (n, numbers) float64, and the texts of each other one.

    Raises:
        Refusal: a value is not as it should be.
    """
    found = dict(zip(sent.schema.names, sent.columns, strict=True))
    columns = {each.name: _values(found.get(each.name), sent.num_rows, each) for each in features}
    numbers = [columns[each.name] for each in features if each.type in KINDS]
    texts = {each.name: columns[each.name] for each in features if each.type not in KINDS}
    return np.column_stack(numbers) if numbers else np.empty((sent.num_rows, 0)), texts


def _batches(body: bytes, manifest: Manifest) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """The schema and the record batches of a stream; nothing is decoded before it is known to be plain and small enough."""
    source = pa.BufferReader(body)
    try:
        messages = pa.ipc.MessageReader.open_stream(source)
        first = messages.read_next_message()
        if first.type != "schema":  # another message read as one makes pyarrow reach beyond its memory
            raise ValueError("the first message is no schema")
        schema = pa.ipc.read_schema(first)
        _fits(schema, manifest)
        batches: list[pa.RecordBatch] = []
        size = count = 0
        for message in _following(messages):
            batches.append(batch := _batch(message, schema))
            size, count = size + batch.nbytes, count + batch.num_rows
            if size > len(body):  # columns that share their bytes would multiply them
                raise ValueError("buffers overlap")
            if len(batches) > BATCHES or count > ROWS:
                raise Refusal(
                    413,
                    f"The request has more than {ROWS:,} rows, or {BATCHES} record batches. Send them in parts, each in one batch.",
                )
    except (pa.ArrowException, OSError, ValueError, StopIteration, struct.error, NotImplementedError):
        raise Refusal(400, f"The body is no Arrow IPC stream; {WANTED}, whole and valid. See /docs.") from None
    if source.tell() != len(body):
        raise Refusal(400, f"Something stands behind the end of the stream; {WANTED} and nothing else.")
    return schema, batches


def _following(messages: pa.ipc.MessageReader) -> Iterator[pa.ipc.Message]:
    while True:
        try:
            yield messages.read_next_message()
        except StopIteration:
            return


def _batch(message: pa.ipc.Message, schema: pa.Schema) -> pa.RecordBatch:
    if message.type != "record batch":
        raise Refusal(
            415, f"The stream holds more than record batches; {WANTED} without dictionaries. Write columns as they are."
        )
    if _is_compressed(message.metadata.to_pybytes()):
        raise Refusal(415, f"The buffers are compressed; {WANTED} without compression. Leave the option out.")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    return batch


def _is_compressed(metadata: bytes) -> bool:
    """Whether a record batch says that its buffers are compressed: whoever decodes it would believe any size that it states."""

    def field(table: int, number: int) -> int:
        """Where a field of a FlatBuffers table stands; 0 where it has none."""
        known = table - struct.unpack_from("<i", metadata, table)[0]
        place = 4 + 2 * number
        if place >= struct.unpack_from("<H", metadata, known)[0]:
            return 0
        offset = struct.unpack_from("<H", metadata, known + place)[0]
        return table + offset if offset else 0

    def follow(place: int) -> int:
        return place + struct.unpack_from("<I", metadata, place)[0]

    return field(follow(field(follow(0), 2)), COMPRESSION) != 0


def _fits(schema: pa.Schema, manifest: Manifest) -> None:
    """Refuses columns that nobody knows, and whatever is more than a column of numbers, truths, texts, or times."""
    known = {each.name for each in manifest.features} | set(manifest.ignored)
    if len(set(schema.names)) != len(schema.names) or not known.issuperset(schema.names):
        raise Refusal(
            422,
            f"A column is unknown or stands twice; wanted only what GET /projects/{manifest.project} lists, each once. "
            "Leave the others out.",
        )
    if not {each.id for each in schema.types} <= PLAIN:
        raise Refusal(
            422,
            f"A column has a type that is not read; {WANTED} of integers, floats, booleans, strings, timestamps. Cast the others.",
        )


def _values(column: pa.Array | None, count: int, feature: Feature) -> Any:
    """The n values of a feature."""
    found = pa.nulls(count) if column is None else column
    if found.null_count and not feature.nullable:
        place = found.is_null().index(True).as_py()
        raise _unfit(feature, place, "is missing", "a value")
    try:
        return _numbers(found, feature) if feature.type in KINDS else _texts(found, feature)
    except (pa.ArrowException, OverflowError, ValueError):
        offset = " with their offsets" * feature.offset
        raise _unfit(feature, None, "has a value that does not fit", WORDS[feature.type] + offset) from None


WORDS = {
    "float": "finite numbers, integers up to 2^53",
    "int": "whole numbers between -2^53 and 2^53",
    "bool": "booleans",
    "text": "strings",
    "category": "strings",
    "datetime": "timestamps, or strings in ISO 8601",
}


def _numbers(found: pa.Array, feature: Feature) -> np.ndarray:
    """Float64 with NaN for null.

    Raises:
        ValueError, pa.ArrowException: a value is none of the feature's.
    """
    truths, numbers = (
        pa.types.is_boolean(found.type),
        pa.types.is_integer(found.type) or pa.types.is_floating(found.type),
    )
    if not (pa.types.is_null(found.type) or (truths if feature.type == "bool" else numbers)):
        raise _unfit(feature, None, "has another type", WORDS[feature.type])
    doubles = found if pa.types.is_float64(found.type) else found.cast(pa.float64())
    values = doubles.to_numpy(zero_copy_only=False)
    if np.count_nonzero(np.isfinite(values)) != len(found) - found.null_count:
        raise ValueError("a number is not finite")
    if (
        feature.type == "int"
        and not (np.isnan(values) | ((np.floor(values) == values) & (np.abs(values) <= EXACT))).all()
    ):
        raise ValueError("a number is not whole")
    return values


def _texts(found: pa.Array, feature: Feature) -> list[str | None]:
    """Texts, None for null; a time in ISO 8601.

    Raises:
        ValueError, OverflowError, pa.ArrowException: a time is none, or beyond the years that are read.
    """
    kinds = pa.types
    if kinds.is_timestamp(found.type) and feature.type == "datetime":
        if feature.offset and found.type.tz is None:
            raise _unfit(feature, None, "has no time zone", "timestamps of one")
        return _moments(found)
    if not (kinds.is_string(found.type) or kinds.is_large_string(found.type) or kinds.is_null(found.type)):
        raise _unfit(feature, None, "has another type", WORDS[feature.type])
    texts = found.to_pylist()
    if feature.type == "datetime":
        for text in texts:
            microseconds(text or "1970-01-01")
            if feature.offset and not has_offset(text):
                raise ValueError("a time without its offset")
    return texts


def _moments(found: pa.Array) -> list[str | None]:
    """Times in ISO 8601, of nanoseconds the whole microseconds, None for null.

    Raises:
        OverflowError, pa.ArrowException: one is beyond the years that are read.
    """
    whole = found.cast(pa.timestamp("us"), safe=found.type.unit != "ns").cast(pa.timestamp("us", "UTC"))
    return [moment and moment.isoformat() for moment in whole.to_pylist()]


def _plain(found: pa.Array, name: str) -> list[Any]:
    """The n values of a column that the model does not read, as JSON has them."""
    if not pa.types.is_timestamp(found.type):
        return (found.cast(pa.float64()) if pa.types.is_floating(found.type) else found).to_pylist()
    try:
        return _moments(found)
    except (pa.ArrowException, OverflowError):
        feature = Feature(name, "datetime", nullable=True)
        raise _unfit(feature, None, "has a value that does not fit", WORDS["datetime"]) from None


def _unfit(feature: Feature, place: int | None, met: str, wanted: str) -> Refusal:
    where = "" if place is None else f"rows[{place}]: "
    return Refusal(
        422,
        f"{where}'{feature.name}' {met}; wanted {wanted}{' or null' * feature.nullable}. Correct it and send it again.",
    )


# -- what goes out ----------------------------------------------------------------------------------------------------
def answer(champion: Champion, ids: bytes, columns: Columns) -> bytes:
    """A stream of one batch with the predictions and their ids; project and version stand in its schema."""
    count = len(columns.chosen)
    offsets = np.arange(0, len(ids) + 1, len(ids) // count if count else 1, dtype=np.int32)
    told = {"id": pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(ids))}
    told["prediction"] = (
        column(columns.choices).take(pa.array(columns.chosen)) if columns.choices else pa.array(columns.chosen)
    )
    manifest = champion.manifest
    if manifest.classes:
        each = [pa.array(np.ascontiguousarray(chances)) for chances in columns.said.T]
        told["probabilities"] = pa.StructArray.from_arrays(each, champion.labels)
    elif manifest.kind == "regression":
        half = manifest.interval or 0.0
        ends = np.column_stack([columns.said - half, columns.said + half]).ravel()
        told["interval"] = pa.ListArray.from_arrays(
            pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32)), pa.array(ends)
        )
    else:
        told["score"] = pa.array(columns.said)
    return stream(champion, pa.table(told))


def answer_of(champion: Champion, predictions: list[Row]) -> bytes:
    """The same of predictions that are there one by one."""
    names = list(dict.fromkeys(name for one in predictions for name in one))
    return stream(champion, pa.table({name: column([one.get(name) for one in predictions]) for name in names}))


def stream(champion: Champion, table: pa.Table) -> bytes:
    """A table as a stream."""
    about = {"project": champion.release.project, "version": str(champion.release.version)}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata(about)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def column(values: Sequence[Any]) -> pa.Array:
    """Values of one type as they are, of several as texts."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([value if value is None else label_of(value) for value in values])


def _read(body: bytes, champion: Champion) -> Question:
    return Question(read(body, champion, whole=True).sent())


def _read_columns(body: bytes, champion: Champion) -> tuple[Question, Sheet]:
    return Question([]), read(body, champion)


def _write(_question: Question, answered: Answered) -> Response:
    return Response(answer_of(answered.champion, answered.predictions), media_type=STREAM)


def _write_columns(_question: Question, champion: Champion, ids: bytes, columns: Columns) -> Response:
    return Response(answer(champion, ids, columns), media_type=STREAM)


ARROW = Protocol(_read, _write, _read_columns, _write_columns)
ARROW_AS_JSON = Protocol(_read, OWN.write, _read_columns)
