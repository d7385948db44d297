"""Writing: predictions as lines of the log and as answers in keepfit's own words, with one call of the encoder for all rows of a request.

What is the same for all of them is encoded once; what a client sent goes into the log as it came.
"""

import binascii
import datetime as dt
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tasks.stores.packed import packed

ENCODER = msgspec.json.Encoder()
ID_BYTES = 16


class Decided(msgspec.Struct, gc=False):
    """What the log keeps of an answer."""

    prediction: Any
    probability: float | None


class Columns(NamedTuple):
    """Answers by column.

    Attributes:
        choices: what the predictions are chosen from; nothing where they are numbers.
        chosen: (n,) their places there; where there is nothing, the predictions.
        number: (n,) what the log keeps beside them, as `Champion.logged` has it.
        said: what the model said.
    """

    choices: tuple[Any, ...]
    chosen: np.ndarray
    number: np.ndarray
    said: np.ndarray


class Writer:
    """Writes for one champion."""

    def __init__(self, project: str, version: int, types: Mapping[str, str]) -> None:
        """`types` are those of the features, by name."""
        self._types = types
        about = ENCODER.encode(project), version
        self._log = b'"project":%b,"version":%d,"ms":' % about
        self._answer = b'{"project":%b,"version":%d,"predictions":[' % about

    def lines(
        self, at: dt.datetime, seconds: float, names: Iterable[bytes], rows: Iterable[bytes], decided: list[Decided]
    ) -> bytes:
        """A line of the log for each row.

        Args:
            at: when they were asked.
            seconds: that the answers took.
            names: the ids.
            rows: as JSON, each without a line break.
            decided: what was answered.
        """
        common = b'",%b,"row":' % self._about(at, seconds)
        told = zip(names, rows, each_encoded(decided), strict=True)
        return b"".join([b'{"id":"%b%b%b,%b\n' % (name, common, row, line[1:]) for name, row, line in told])

    def packed(self, at: dt.datetime, seconds: float, ids: bytes, rows: np.ndarray, columns: Columns) -> memoryview:
        """The same of rows of numbers, (n, features) float64, and answers by column; `ids` one behind the other."""
        about = self._about(at, seconds)
        return packed(ids, about, self._types, rows, columns.number, columns.choices, columns.chosen)

    def _about(self, at: dt.datetime, seconds: float) -> bytes:
        """What all lines of a request have behind the id."""
        return b'"at":"%b",%b%.3f' % (at.isoformat().encode(), self._log, seconds * 1000)

    def answers(self, names: Iterable[bytes], answers: list[dict[str, Any]], sizes: Iterable[int]) -> list[bytes]:
        """The bodies of answers with so many predictions each, every prediction behind its id."""
        told = iter([
            b'{"id":"%b",%b' % (name, line[1:]) for name, line in zip(names, each_encoded(answers), strict=True)
        ])  # fmt: skip
        return [b"%b%b]}" % (self._answer, b",".join(itertools.islice(told, size))) for size in sizes]

    def classes(self, names: Iterable[bytes], columns: Columns, labels: Sequence[str]) -> bytes:
        """The body that `answers` gives, of answers by column: a class each, of as many as there are labels, and the probability of each."""
        keys = [ENCODER.encode(label).replace(b"%", b"%%") for label in labels]
        told = b'{"id":"%b","prediction":%b,"probabilities":{' + b",".join([key + b":%b" for key in keys]) + b"}}"
        choices = [ENCODER.encode(choice) for choice in columns.choices]
        chances = each_encoded(columns.said.ravel().tolist())
        each = [chances[place :: len(labels)] for place in range(len(labels))]
        rows = zip(names, [choices[place] for place in columns.chosen.tolist()], *each, strict=True)
        return b"%b%b]}" % (self._answer, b",".join([told % row for row in rows]))

    def invocations(self, names: Iterable[bytes], answers: list[dict[str, Any]], sizes: Iterable[int]) -> list[bytes]:
        """The same in MLflow's words: the predictions, and the ids that outcomes are reported under."""
        said = iter(each_encoded([answer["prediction"] for answer in answers]))
        ids = iter([b'"%b"' % name for name in names])
        parts = [[b",".join(itertools.islice(some, size)) for some in (said, ids)] for size in sizes]
        return [b'{"predictions":[%b],"ids":[%b]}' % (predicted, named) for predicted, named in parts]


def each_encoded(values: Sequence[Any]) -> list[bytes]:
    """Each of them as JSON, which has no line breaks."""
    return ENCODER.encode_lines(values).split(b"\n")[:-1]


def new_names(count: int) -> list[bytes]:
    """Ids that nobody can guess: 32 hexadecimal digits each."""
    return split(new_digits(count))


def new_digits(count: int) -> bytes:
    """The same, one behind the other."""
    return binascii.hexlify(os.urandom(ID_BYTES * count))


def split(digits: bytes) -> list[bytes]:
    """Each of the ids that stand one behind the other."""
    return [digits[at : at + 2 * ID_BYTES] for at in range(0, len(digits), 2 * ID_BYTES)]
