"""The Open Inference Protocol (V2, REST): a tensor a feature, as JSON or, by its extension `binary_tensor_data`, as bytes behind the JSON.

With the extension a header says where the JSON ends, the tensors that it announces with `binary_data_size` follow in order, little-endian, and
answers come back so where the request wants them. Rows of numbers alone that come so are answered by column, without becoming rows. The
extension is NVIDIA Triton's (its docs/protocol/extension_binary_data.md); its clients use it unless told otherwise.
"""

import functools
import re
import struct
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

import msgspec
import numpy as np
from starlette.responses import Response

from tasks.serving.answers import Refusal
from tasks.serving.bodies import bound
from tasks.serving.champion import Champion, Feature, Manifest, label_of
from tasks.serving.protocols import Answered, Protocol, Question, Row, Scalar, decoded, versions
from tasks.serving.reading import EXACT, ROWS
from tasks.serving.sheet import Sheet
from tasks.serving.writing import ID_BYTES, Columns
from tasks.stores.packed import KINDS

HEADER = "Inference-Header-Content-Length"
EXTENSION = "binary_tensor_data"
IDENTIFIER = re.compile(r"[\w.:-]{1,64}", re.ASCII)
DATATYPES: dict[str, str] = {
    "int": "INT64", "float": "FP64", "bool": "BOOL", "text": "BYTES", "category": "BYTES", "datetime": "BYTES",
}  # fmt: skip
NUMBERS = {
    "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
SIZE = struct.Struct("<I")  # before each text of a binary tensor, its bytes
Values = list[Any] | np.ndarray


class Tensor(msgspec.Struct):
    """A column of rows under its name."""

    name: str
    shape: list[int]
    datatype: Literal[
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
    ]  # fmt: skip
    data: list[Scalar | list[Scalar]] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] = {}

    @property
    def rows(self) -> int:
        """How many it has, by whichever says more."""
        return max(0 if self.data is msgspec.UNSET else len(self.data), *self.shape[:1], 0)


class Wanted(msgspec.Struct):
    """A tensor that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Inference(msgspec.Struct):
    """The body of an inference request, or its part before the bytes."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Wanted] = []
    parameters: dict[str, Any] = {}


SHAPE = (
    'The body has another shape; wanted {"inputs": [{"name", "shape", "datatype", "data"}]}, one tensor a feature, of '
    f"datatype BOOL, BYTES, or {', '.join(NUMBERS)}. See /docs."
)


# -- what comes in ----------------------------------------------------------------------------------------------------
def protocol(length: str | None) -> Protocol:
    """The protocol of a request with this header; None where it has none, and its body is JSON."""
    if length is None:
        return OPEN_INFERENCE
    return Protocol(
        functools.partial(_read, length=length), _write, functools.partial(_read_columns, length=length), _write_columns
    )


def _read(body: bytes, champion: Champion, length: str | None = None) -> Question:
    question, tensors = _asked(body, champion, length)
    columns = [_listed(place, values) for place, values in enumerate(tensors.values())]
    return question._replace(rows=[dict(zip(tensors, values, strict=True)) for values in zip(*columns, strict=True)])


def _read_columns(body: bytes, champion: Champion, length: str) -> tuple[Question, Sheet] | None:
    """What is asked, by column, where it is numbers as they should be and nothing else; else None: the usual way says what is wrong."""
    features = champion.manifest.features
    if any(each.type not in KINDS for each in features):
        return None  # before anything is decoded: the usual way does that
    question, tensors = _asked(body, champion, length)
    if not tensors.keys() <= {each.name for each in features}:
        return None
    matrix = np.full((len(next(iter(tensors.values()))), len(features)), np.nan)
    for place, feature in enumerate(features):
        if (values := tensors.get(feature.name)) is None:
            continue
        if not isinstance(values, np.ndarray) or (values.dtype.kind == "b") != (feature.type == "bool"):
            return None
        if values.dtype.kind in "iu" and values.dtype.itemsize == 8 and not _is_exact(values).all():
            return None
        matrix[:, place] = values
    return (question, Sheet(features, matrix, {}, {})) if _fits(matrix, features) else None


def _fits(matrix: np.ndarray, features: Sequence[Feature]) -> bool:
    """Whether all numbers, (n, features), are finite, or NaN where one may be missing, and whole where they must be."""
    wholes = matrix[:, [place for place, each in enumerate(features) if each.type == "int"]]
    is_whole = bool((np.isnan(wholes) | ((np.floor(wholes) == wholes) & _is_exact(wholes))).all())
    finite = np.isfinite(matrix)
    if finite.all() or not is_whole:
        return is_whole
    needed = [not each.nullable for each in features]
    return bool(finite[:, needed].all()) and not np.isinf(matrix).any()


def _is_exact(numbers: np.ndarray) -> np.ndarray:
    return (numbers <= EXACT) & (numbers >= -EXACT)


def _asked(body: bytes, champion: Champion, length: str | None) -> tuple[Question, dict[str, Values]]:
    """What a body asks, yet without rows, and the values of its tensors by name, which are equally many.

    Raises:
        Refusal: it has another shape, or other values than its datatypes say.
    """
    head, data = _parted(body, length)
    width = len(champion.manifest.features) + len(champion.manifest.ignored)
    bound(head, objects=ROWS + 2 * width, lists=(ROWS + 2) * (width + 1))
    asked = decoded(head, Inference, SHAPE, lambda found: max((each.rows for each in found.inputs), default=0))
    question = _question(asked, outputs(champion.manifest))
    names = [tensor.name for tensor in asked.inputs]
    if len(set(names)) != len(names):
        raise Refusal(422, "Two tensors have one name; wanted one tensor a feature. Remove one.")
    known = {each.name for each in champion.manifest.features} | set(champion.manifest.ignored)
    if strange := len({*names} - known):
        raise Refusal(
            422,
            f"{strange} tensors are unknown; wanted only what GET /v2/models/{champion.manifest.project} lists. Leave the others out.",
        )
    counts = {tensor.shape[0] if tensor.shape else 0 for tensor in asked.inputs}
    if len(counts) != 1:
        raise Refusal(422, "The tensors have different first dimensions, or there is none; wanted one of n rows each.")
    tensors, begins = {}, 0
    for place, tensor in enumerate(asked.inputs):
        where, size = f"inputs[{place}]", _size(place, tensor, is_binary=length is not None)
        tensors[tensor.name] = (
            _column(where, tensor) if size is None else _unpacked(where, tensor, data[begins : begins + size])
        )
        begins += size or 0
    if begins != len(data):
        raise Refusal(
            400, "The bytes behind the JSON are more or fewer than the tensors say; wanted the sum of binary_data_size."
        )
    return question, tensors


def _parted(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON, and the bytes behind it."""
    if length is None:
        return body, memoryview(b"")
    if not (length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= len(body)):
        raise Refusal(
            400, f"{HEADER} is no length of a part of the body; wanted the bytes of the JSON before the tensors."
        )
    return body[: int(length)], memoryview(body)[int(length) :]


def _question(asked: Inference, known: Mapping[str, Row]) -> Question:
    """Which outputs are wanted, and which of them as bytes."""
    wanted = {one.name: one.parameters.get("binary_data") for one in asked.outputs}
    if wanted.keys() - known.keys():
        raise Refusal(422, f"A wanted output does not exist; there are {', '.join(known)}.")
    if asked.id is not None and not IDENTIFIER.fullmatch(asked.id):
        raise Refusal(422, "The id has signs that are not repeated; wanted at most 64 letters, digits and _ . : -")
    usual = asked.parameters.get("binary_data_output") is True
    as_bytes = frozenset(
        name
        for name in wanted or [*known, "version"]
        if (usual if (told := wanted.get(name)) is None else told is True)
    )
    return Question([], id=asked.id, outputs=tuple(wanted), as_bytes=as_bytes)


def _size(place: int, tensor: Tensor, *, is_binary: bool) -> int | None:
    """How many bytes of a tensor stand behind the JSON; None where its values stand in it."""
    size = tensor.parameters.get("binary_data_size")
    if size is None and tensor.data is not msgspec.UNSET:
        return None
    if size is None or tensor.data is not msgspec.UNSET:
        raise Refusal(422, f"inputs[{place}] has no values, or two kinds of them; wanted data, or binary_data_size.")
    if not is_binary:
        raise Refusal(
            400, f"inputs[{place}] is binary, but the request has no {HEADER}; wanted the bytes of the JSON there."
        )
    if type(size) is not int or size < 0:
        raise Refusal(422, f"inputs[{place}] has a binary_data_size that is none; wanted a number of bytes.")
    return size


def _column(where: str, tensor: Tensor) -> list[Scalar]:
    """The values of a tensor of shape [n] or [n, 1], which may come flat or nested."""
    count, data = _count(where, tensor), tensor.data or []
    if len(data) != count or any(isinstance(each, list) and len(each) != 1 for each in data):
        raise _other_data(where)
    values = [each[0] if isinstance(each, list) else each for each in data]
    if not all(value is None or _is(value, tensor.datatype) for value in values):
        raise Refusal(422, f"{where} has values that are not {tensor.datatype}; null says that one is missing.")
    return values


def _count(where: str, tensor: Tensor) -> int:
    count = tensor.shape[0]
    if tensor.shape not in ([count], [count, 1]) or count < 0:
        raise Refusal(422, f"{where} has another shape; wanted [n] or [n, 1], a value a row.")
    return count


def _other_data(where: str) -> Refusal:
    return Refusal(422, f"{where} has other data than its shape says; wanted as many values as rows.")


def _is(value: Scalar, datatype: str) -> bool:
    """Whether a value of JSON is one of the datatype."""
    if (kind := NUMBERS.get(datatype)) is None:
        return type(value) is (bool if datatype == "BOOL" else str)
    if np.dtype(kind).kind == "f":
        return type(value) in {int, float}
    return type(value) is int and np.iinfo(kind).min <= value <= np.iinfo(kind).max


def _unpacked(where: str, tensor: Tensor, data: memoryview) -> Values:
    """The n values of a binary tensor: texts in a list, numbers and truths in an array, NaN for missing."""
    count = _count(where, tensor)
    if tensor.datatype == "BYTES":
        return _texts(where, count, data)
    kind = np.dtype(NUMBERS.get(tensor.datatype, "u1"))
    if len(data) != count * kind.itemsize:
        raise _other_data(where)
    values = np.frombuffer(data, kind)
    if tensor.datatype != "BOOL":
        return values
    if (values > 1).any():
        raise Refusal(422, f"{where} has values that are not BOOL; wanted bytes of 0 and 1.")
    return values.view(bool)


def _texts(where: str, count: int, data: memoryview) -> list[str]:
    """Texts that each stand behind their size."""
    found, begins = [], 0
    try:
        while begins < len(data) and len(found) < count:
            (size,) = SIZE.unpack_from(data, begins)
            begins += SIZE.size + size
            found.append(str(data[begins - size : begins], "utf-8"))
    except (struct.error, UnicodeDecodeError):
        raise _other_data(where) from None
    if len(found) != count or begins != len(data):
        raise _other_data(where)
    return found


def _listed(place: int, values: Values) -> list[Scalar]:
    """The same as JSON has them.

    Raises:
        Refusal: a number is infinite, which JSON cannot say.
    """
    if isinstance(values, list):
        return values
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise Refusal(422, f"inputs[{place}] has infinite values; wanted finite ones, or NaN for missing.")
    return [None if value != value else value for value in values.tolist()]  # noqa: PLR0124 -- NaN alone differs from itself


# -- what goes out ----------------------------------------------------------------------------------------------------
def _write(asked: Question, answered: Answered) -> Response:
    said: dict[str, Values] = {
        name: [_told(name, one) for one in answered.predictions] for name in _chosen(asked, answered.champion)
    }
    return _response(asked, answered.champion, said, versions(answered))


def _write_columns(asked: Question, champion: Champion, ids: bytes, columns: Columns) -> Response:
    """The same of answers by column; `ids` stand one behind the other."""
    manifest, places = champion.manifest, columns.chosen
    made: dict[str, Values] = {}
    for name in _chosen(asked, champion):
        if name == "id":
            made[name] = np.frombuffer(ids, f"S{2 * ID_BYTES}")
        elif name == "prediction":
            made[name] = [columns.choices[place] for place in places.tolist()] if columns.choices else places
        elif name == "interval":
            half = manifest.interval or 0.0
            made[name] = np.column_stack([columns.said - half, columns.said + half])
        else:
            made[name] = columns.said
    return _response(asked, champion, made, [])


def _chosen(asked: Question, champion: Champion) -> list[str]:
    return [name for name in outputs(champion.manifest) if not asked.outputs or name in asked.outputs]


def _response(asked: Question, champion: Champion, said: Mapping[str, Values], given: list[int]) -> Response:
    """The answer with these values, each tensor as JSON or as bytes behind it; `given` are the versions where they are several."""
    release, known = champion.release, outputs(champion.manifest)
    if given:
        known, said = known | {"version": {"datatype": "INT64", "shape": [-1]}}, {**said, "version": given}
    told, behind = [], []
    for name, values in said.items():
        kind, flat = _flat(known[name], values)
        if name in asked.as_bytes:
            behind.append(packed(kind["datatype"], flat))
            parameters = kind.get("parameters", {}) | {"binary_data_size": len(behind[-1])}
            told.append({"name": name, **kind, "parameters": parameters})
        else:
            told.append({"name": name, **kind, "data": _as_json(kind["datatype"], flat)})
    identity = {} if asked.id is None else {"id": asked.id}
    head = msgspec.json.encode(
        {"model_name": release.project, "model_version": str(release.version), **identity, "outputs": told}
    )
    if not asked.as_bytes:
        return Response(head, media_type="application/json")
    return Response(b"".join([head, *behind]), headers={HEADER: str(len(head))}, media_type="application/octet-stream")


def _flat(kind: Row, values: Values) -> tuple[Row, Values]:
    """A tensor's datatype and shape, and its values of all rows, one behind the other; a list that is shorter than the longest ends in empty
    texts or null.
    """  # noqa: D205
    if isinstance(values, np.ndarray):
        return kind | {"shape": [*values.shape]}, values.ravel()
    if len(kind["shape"]) == 1:
        return kind | {"shape": [len(values)]}, values
    width, fill = max(map(len, values), default=0), "" if kind["datatype"] == "BYTES" else None
    flat = [item for row in values for item in [*row, *[fill] * (width - len(row))]]
    return kind | {"shape": [len(values), width]}, flat


def _as_json(datatype: str, flat: Values) -> list[Scalar]:
    if isinstance(flat, np.ndarray):
        flat = flat.tolist()
    if datatype != "BYTES":
        return flat
    return [value.decode() if isinstance(value, bytes) else label_of(value) for value in flat]


def packed(datatype: str, flat: Values) -> bytes:
    """The bytes of a tensor: NaN for a number that is missing, each text behind its size."""
    if datatype == "BYTES":
        if isinstance(flat, np.ndarray):  # all of one size
            made = np.empty((len(flat), SIZE.size + flat.itemsize), np.uint8)
            made[:, : SIZE.size] = np.frombuffer(SIZE.pack(flat.itemsize), np.uint8)
            made[:, SIZE.size :] = flat.view(np.uint8).reshape(len(flat), flat.itemsize)
            return made.tobytes()
        texts = {value: label_of(value).encode() for value in set(flat)}
        sized = {value: SIZE.pack(len(text)) + text for value, text in texts.items()}
        return b"".join([sized[value] for value in flat])
    kind = NUMBERS.get(datatype, "?")
    return np.array(
        [np.nan if each is None else each for each in flat] if isinstance(flat, list) else flat, kind
    ).tobytes()


def outputs(manifest: Manifest) -> dict[str, Row]:
    """The tensors that answer an inference request: datatype and shape, in which -1 stands for the number of rows."""
    lists = manifest.kind == "recommendation"
    labels = {type(label) for label in manifest.classes}
    datatype = {"regression": "FP64", "anomaly": "BOOL"}.get(manifest.kind, _datatype(labels))
    found: dict[str, Row] = {
        "prediction": {"datatype": datatype, "shape": [-1, manifest.k] if lists else [-1]},
        "id": {"datatype": "BYTES", "shape": [-1]},
    }
    if manifest.classes:
        classes = [label_of(label) for label in manifest.classes]
        more = {"probabilities": {"datatype": "FP64", "shape": [-1, len(classes)], "parameters": {"classes": classes}}}
    else:
        name, shape = {"regression": ("interval", [-1, 2]), "anomaly": ("score", [-1])}.get(
            manifest.kind, ("scores", [-1, manifest.k])
        )
        more = {name: {"datatype": "FP64", "shape": shape}}
    return found | more


def metadata(champion: Champion) -> Row:
    """What a client learns about a model before it asks."""
    release, manifest = champion.release, champion.manifest
    inputs = [
        {"name": feature.name, "datatype": DATATYPES[feature.type], "shape": [-1]} for feature in manifest.features
    ]
    answers = [{"name": name, **kind} for name, kind in outputs(manifest).items()]
    return {
        "name": release.project,
        "versions": [str(release.version)],
        "platform": "keepfit",
        "inputs": inputs,
        "outputs": answers,
    }


def _datatype(labels: Set[type]) -> str:
    return {frozenset({bool}): "BOOL", frozenset({int}): "INT64"}.get(frozenset(labels), "BYTES")


def _told(name: str, prediction: Row) -> Any:
    value = prediction[name]
    return list(value.values()) if name == "probabilities" else value


OPEN_INFERENCE = Protocol(_read, _write)
