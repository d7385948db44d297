"""Ways to ask for predictions: keepfit's own and MLflow's `/invocations` here, Arrow streams and the Open Inference Protocol each in a module.

Each is a reader of bodies and a writer of answers; between the two all are treated alike. None repeats what was sent, but for the `id` of an
inference request, which the protocol wants back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from starlette.responses import Response

from tasks.serving.answers import Refusal, as_json
from tasks.serving.bodies import ROWS, bound, question
from tasks.serving.champion import Champion
from tasks.serving.reading import MLFLOW_FIELD, OWN_FIELD, quotes
from tasks.serving.writing import Columns, Writer

if TYPE_CHECKING:
    from tasks.serving.sheet import Sheet

Row = dict[str, Any]
Scalar = str | int | float | bool | None
WriteMany = Callable[[Writer, Sequence[bytes], list[Row], Sequence[int]], list[bytes]]
STREAM = "application/vnd.apache.arrow.stream"


class Question(NamedTuple):
    """What a body asks.

    Attributes:
        rows: as they were sent; none where they are answered by column.
        explain: whether contributions are wanted.
        id: of an inference request.
        outputs: names of the wanted tensors; empty for all.
        as_bytes: those of them that are wanted as bytes.
    """

    rows: list[Row]
    explain: bool = False
    id: str | None = None
    outputs: tuple[str, ...] = ()
    as_bytes: frozenset[str] = frozenset()


class Answered(NamedTuple):
    """What is answered: predictions with their ids, in order of the rows, and what contributions mean where they were asked for.

    A prediction that another version than the champion's gave has its `version`.
    """

    champion: Champion
    predictions: list[Row]
    explained: dict[str, str]


@dataclass(frozen=True, eq=False)
class Protocol:
    """A reader and a writer; the reader raises a `Refusal` for another shape.

    Attributes:
        read_columns: where a body holds columns, which need not become rows; gives None where they must.
        write_columns: of answers by column and their ids, one behind the other; without it they are answered as JSON in keepfit's own words.
        field: what a body calls its rows, where they are objects in a list; the reader is for all others then.
        write_many: the bodies of answers to several such bodies of one champion; as `Writer.answers`.
    """

    read: Callable[[bytes, Champion], Question]
    write: Callable[[Question, Answered], Response]
    read_columns: "Callable[[bytes, Champion], tuple[Question, Sheet] | None] | None" = None
    write_columns: Callable[[Question, Champion, bytes, Columns], Response] | None = None
    field: str | None = None
    write_many: WriteMany | None = None


# -- keepfit's own ----------------------------------------------------------------------------------------------------
def _read_own(body: bytes, _champion: Champion) -> Question:
    asked = question(body)
    return Question(asked.rows, asked.explain is True)


def _write_own(_question: Question, answered: Answered) -> Response:
    release = answered.champion.release
    said = {"project": release.project, "version": release.version, "predictions": answered.predictions}
    return as_json(said | {"explained": answered.explained} if answered.explained else said)


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
    asked = decoded(body, Invocation, INVOCATION, _length)
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


def _write_invocation(_question: Question, answered: Answered) -> Response:
    """What MLflow's clients read, `predictions`, and the ids that outcomes are reported under."""
    said, given = answered.predictions, versions(answered)
    told = {"predictions": [one["prediction"] for one in said], "ids": [one["id"] for one in said]}
    return as_json(told | ({"versions": given} if given else {}))


# -- what protocols share ---------------------------------------------------------------------------------------------
def versions(answered: Answered) -> list[int]:
    """The version that gave each prediction, where they are several."""
    given = [one.get("version", answered.champion.release.version) for one in answered.predictions]
    return given if len(set(given)) > 1 else []


def decoded(body: bytes, kind: type[Any], wanted: str, count: Callable[[Any], int]) -> Any:
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


OWN = Protocol(_read_own, _write_own, field=OWN_FIELD, write_many=Writer.answers)
MLFLOW = Protocol(_read_invocation, _write_invocation, field=MLFLOW_FIELD, write_many=Writer.invocations)
