"""Three ways to ask for predictions: keepfit's own, the Open Inference Protocol (V2, REST), and MLflow's `/invocations`.

Each is a reader of bodies and a writer of answers; between the two all are treated alike. None repeats what was sent, but for the `id` of an
inference request, which the protocol wants back.
"""

import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from tasks.serving.answers import Refusal
from tasks.serving.bodies import ROWS, bound, question
from tasks.serving.champion import Champion, Manifest, label_of
from tasks.serving.reading import quotes

Row = dict[str, Any]
Scalar = str | int | float | bool | None
STREAM = "application/vnd.apache.arrow.stream"
IDENTIFIER = re.compile(r"[\w.:-]{1,64}", re.ASCII)
DATATYPES: dict[str, str] = {
    "int": "INT64", "float": "FP64", "bool": "BOOL", "text": "BYTES", "category": "BYTES", "datetime": "BYTES",
}  # fmt: skip
TYPES: dict[str, tuple[type, ...]] = {"INT64": (int,), "FP64": (int, float), "BOOL": (bool,), "BYTES": (str,)}


class Question(NamedTuple):
    """What a body asks.

    Attributes:
        rows: as they were sent.
        explain: whether contributions are wanted.
        id: of an inference request.
        outputs: names of the wanted tensors; empty for all.
    """

    rows: list[Row]
    explain: bool = False
    id: str | None = None
    outputs: tuple[str, ...] = ()


class Answered(NamedTuple):
    """What is answered: predictions with their ids, in order of the rows, and what contributions mean where they were asked for.

    A prediction that another version than the champion's gave has its `version`.
    """

    champion: Champion
    predictions: list[Row]
    explained: dict[str, str]


@dataclass(frozen=True)
class Protocol:
    """A reader and a writer; the reader raises a `Refusal` for another shape.

    Attributes:
        encode: makes bytes of what is written; media: their type.
        is_columnar: whether a body holds columns, which need not become rows.
    """

    read: Callable[[bytes, Champion], Question]
    write: Callable[[Question, Answered], Any]
    encode: Callable[[Any], bytes] = msgspec.json.encode
    media: str = "application/json"
    is_columnar: bool = False


# -- keepfit's own ----------------------------------------------------------------------------------------------------
def _read_own(body: bytes, _champion: Champion) -> Question:
    asked = question(body)
    return Question(asked.rows, asked.explain is True)


def _write_own(_question: Question, answered: Answered) -> Row:
    release = answered.champion.release
    said = {"project": release.project, "version": release.version, "predictions": answered.predictions}
    return said | {"explained": answered.explained} if answered.explained else said


# -- Open Inference Protocol ------------------------------------------------------------------------------------------
class Tensor(msgspec.Struct):
    """A column of rows under its name."""

    name: str
    shape: list[int]
    datatype: Literal["BOOL", "INT64", "FP64", "BYTES"]
    data: list[Scalar | list[Scalar]]
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct):
    """A tensor that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Inference(msgspec.Struct):
    """The body of an inference request."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Wanted] = []
    parameters: dict[str, Any] = {}


INFERENCE = (
    'The body has another shape; wanted {"inputs": [{"name", "shape", "datatype", "data"}]}, one tensor a feature, of '
    "datatype BOOL, INT64, FP64 or BYTES. See /docs."
)


def _read_inference(body: bytes, champion: Champion) -> Question:
    width = len(champion.manifest.features) + len(champion.manifest.ignored)
    bound(body, objects=ROWS + 2 * width, lists=(ROWS + 2) * (width + 1))
    asked = _decoded(body, Inference, INFERENCE, _rows_of)
    wanted, known = tuple(one.name for one in asked.outputs), outputs(champion.manifest)
    if set(wanted) - set(known):
        raise Refusal(422, f"A wanted output does not exist; there are {', '.join(known)}.")
    if asked.id is not None and not IDENTIFIER.fullmatch(asked.id):
        raise Refusal(422, "The id has signs that are not repeated; wanted at most 64 letters, digits and _ . : -")
    names = [tensor.name for tensor in asked.inputs]
    if len(set(names)) != len(names):
        raise Refusal(422, "Two tensors have one name; wanted one tensor a feature. Remove one.")
    counts = {tensor.shape[0] if tensor.shape else 0 for tensor in asked.inputs}
    if len(counts) != 1:
        raise Refusal(422, "The tensors have different first dimensions, or there is none; wanted one of n rows each.")
    columns = [_column(place, tensor) for place, tensor in enumerate(asked.inputs)]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return Question(rows, id=asked.id, outputs=wanted)


def _rows_of(asked: Inference) -> int:
    """How many rows an inference request has, by its longest tensor."""
    return max((max(len(tensor.data), *tensor.shape[:1], 0) for tensor in asked.inputs), default=0)


def _column(place: int, tensor: Tensor) -> list[Scalar]:
    """The values of a tensor of shape [n] or [n, 1], which may come flat or nested."""
    where, count = f"inputs[{place}]", tensor.shape[0]
    if tensor.shape not in ([count], [count, 1]):
        raise Refusal(422, f"{where} has another shape; wanted [n] or [n, 1], a value a row.")
    if len(tensor.data) != count or any(isinstance(each, list) and len(each) != 1 for each in tensor.data):
        raise Refusal(422, f"{where} has other data than its shape says; wanted as many values as rows.")
    values = [each[0] if isinstance(each, list) else each for each in tensor.data]
    if not {type(value) for value in values} <= {*TYPES[tensor.datatype], type(None)}:
        raise Refusal(422, f"{where} has values that are not {tensor.datatype}; null says that one is missing.")
    return values


def _write_inference(asked: Question, answered: Answered) -> Row:
    release, known = answered.champion.release, outputs(answered.champion.manifest)
    chosen = [name for name in known if not asked.outputs or name in asked.outputs]
    said = [
        {"name": name, **_tensor(known[name], [_told(name, one) for one in answered.predictions])} for name in chosen
    ]
    if versions := _versions(answered):
        said.append({"name": "version", "datatype": "INT64", "shape": [len(versions)], "data": versions})
    identity = {} if asked.id is None else {"id": asked.id}
    return {"model_name": release.project, "model_version": str(release.version), **identity, "outputs": said}


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


def _tensor(kind: Row, values: list[Any]) -> Row:
    """A tensor with the values of all rows, flat; a list that is shorter than the longest ends in empty texts or null."""
    width = max(map(len, values), default=0) if len(kind["shape"]) == 2 else None
    if width is not None:
        fill = "" if kind["datatype"] == "BYTES" else None
        values = [item for row in values for item in [*row, *[fill] * (width - len(row))]]
    count = len(values) // (width or 1)
    data = [label_of(value) for value in values] if kind["datatype"] == "BYTES" else values
    return kind | {"shape": [count] if width is None else [count, width], "data": data}


# -- MLflow -----------------------------------------------------------------------------------------------------------
class Split(msgspec.Struct, forbid_unknown_fields=True):
    """A frame as pandas' orientation `split` writes it."""

    columns: list[str]
    data: list[list[Scalar]]
    index: list[Any] = []


class Invocation(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an invocation; one of the two is there."""

    dataframe_split: Split | None = None
    dataframe_records: list[dict[str, Scalar]] | None = None


INVOCATION = (
    'The body has another shape; wanted {"dataframe_split": {"columns": […], "data": [[…]]}} or '
    '{"dataframe_records": [{…}]}, one of them. See /docs.'
)


def _read_invocation(body: bytes, _champion: Champion) -> Question:
    bound(body, objects=ROWS + 2, lists=2 * ROWS + 3)  # of `index` a list for each row, too
    asked = _decoded(body, Invocation, INVOCATION, _length)
    if (asked.dataframe_split is None) == (asked.dataframe_records is None):
        raise Refusal(422, INVOCATION)
    rows = asked.dataframe_records if asked.dataframe_split is None else _rows(asked.dataframe_split)
    return Question(rows or [])


def _length(asked: Invocation) -> int:
    """How many rows an invocation has; its index may be longer than they are."""
    split = asked.dataframe_split
    return max(len(asked.dataframe_records or ()), *((len(split.data), len(split.index)) if split else (0,)))


def _rows(split: Split) -> list[Row]:
    if len(set(split.columns)) != len(split.columns):
        raise Refusal(422, "Two columns have one name; wanted one column a feature. Remove one.")
    if any(len(values) != len(split.columns) for values in split.data):
        raise Refusal(422, "A row has more or fewer values than there are columns; wanted one value a column.")
    return [dict(zip(split.columns, values, strict=True)) for values in split.data]


def _write_invocation(_question: Question, answered: Answered) -> Row:
    """What MLflow's clients read, `predictions`, and the ids that outcomes are reported under."""
    said, versions = answered.predictions, _versions(answered)
    told = {"predictions": [one["prediction"] for one in said], "ids": [one["id"] for one in said]}
    return told | ({"versions": versions} if versions else {})


def _versions(answered: Answered) -> list[int]:
    """The version that gave each prediction, where they are several."""
    given = [one.get("version", answered.champion.release.version) for one in answered.predictions]
    return given if len(set(given)) > 1 else []


# -- what the last two share ------------------------------------------------------------------------------------------
def _decoded(body: bytes, kind: type[Any], wanted: str, count: Callable[[Any], int]) -> Any:
    """A body as what it should be; only if it has no more rows than it may, every value of it is looked at."""
    try:
        asked = msgspec.json.decode(body, type=kind)
        _bounded(count(asked))
        texts = _texts(msgspec.json.decode(body))  # with whatever else the protocol lets stand there
    except (msgspec.ValidationError, RecursionError):
        raise Refusal(422, wanted) from None
    except ValueError:
        raise Refusal(400, "The body is no JSON in UTF-8; wanted an object with finite numbers. See /docs.") from None
    if quotes(body) != 2 * texts:
        raise Refusal(422, "An object names a field twice; wanted each once. Remove one.")
    return asked


def _texts(value: Any) -> int:
    """How many names and texts an object or a list holds."""
    own, inner = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    return own + sum([_texts(each) if type(each) in {dict, list} else type(each) is str for each in inner])


def _bounded(count: int) -> None:
    if count > ROWS:
        raise Refusal(413, f"The request has {count:,} rows; wanted at most {ROWS:,}. Send them in parts.")


OWN = Protocol(_read_own, _write_own)
OPEN_INFERENCE = Protocol(_read_inference, _write_inference)
MLFLOW = Protocol(_read_invocation, _write_invocation)
