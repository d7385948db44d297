"""Packed lines: records of the prediction log for rows of numbers alone, those of a whole request made with a few copies of memory.

A packed line is JSON, and stands for itself like every other. Its `numbers` are those of the row and one that was answered, as little-endian
float64 in hexadecimal digits, NaN for null; `columns` names the row's, with their types. Readers of the log never see the difference.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

ENCODER = msgspec.json.Encoder()
PACKED = b'"numbers":"'
KINDS: dict[str, type] = {"float": float, "int": int, "bool": bool}  # types of columns that are numbers


def packed(
    ids: bytes, about: bytes, columns: Mapping[str, str], rows: np.ndarray, numbers: np.ndarray, predictions: Sequence[Any], chosen: np.ndarray
) -> bytes:  # fmt: skip
    """A line for each row.

    Args:
        ids: the ids, one behind the other, all of one length.
        about: what stands in each line behind the id, as a part of a JSON object.
        columns: of the rows, name and type.
        rows: (n, columns) float64, NaN for null.
        numbers: (n,) float64, what is logged beside the predictions; without any, the predictions themselves.
        predictions: from which each row's is chosen.
        chosen: (n,) places among them.
    """
    count = len(rows)
    digits = np.column_stack([rows, numbers]).astype("<f8", copy=False).tobytes().hex().encode()
    told = [ENCODER.encode(one) for one in predictions]
    width = max(map(len, told), default=0)
    padded = np.frombuffer(b"".join([one.ljust(width) for one in told]), np.uint8).reshape(len(told), width)
    said = [b'","prediction":', padded[chosen], b"}\n"] if told else [b'"}\n']
    parts = [
        b'{"id":"',
        _each(ids, count),
        b'",%b,"columns":%b,%b' % (about, ENCODER.encode(columns), PACKED),
        _each(digits, count),
        *said,
    ]
    return np.concatenate(
        [_every(part, count) if isinstance(part, bytes) else part for part in parts], axis=1
    ).tobytes()


def record(line: bytes) -> Any:
    """What a line of a log holds, as if it had not been packed.

    Raises:
        ValueError: it is torn.
    """
    found = json.loads(line)
    return _unpacked(found) if PACKED in line and isinstance(found, dict) and "numbers" in found else found


def plain(line: bytes) -> bytes:
    """A line as it is when it is not packed.

    Raises:
        ValueError: it is packed, and torn.
    """
    return ENCODER.encode(record(line)) if PACKED in line else line


def _unpacked(found: dict[str, Any]) -> dict[str, Any]:
    columns, digits = found.pop("columns", {}), found.pop("numbers")
    *row, number = np.frombuffer(bytes.fromhex(digits), "<f8").tolist()
    found["row"] = {name: _value(each, columns[name]) for name, each in zip(columns, row, strict=True)}
    if "prediction" in found:
        return found | {"probability": number}
    return found | {"prediction": number, "probability": None}


def _value(number: float, kind: str) -> Any:
    return None if number != number else KINDS[kind](number)  # noqa: PLR0124 -- NaN alone differs from itself


def _each(text: bytes, count: int) -> np.ndarray:
    """A text of equal parts, one a row."""
    return np.frombuffer(text, np.uint8).reshape(count, -1)


def _every(text: bytes, count: int) -> np.ndarray:
    """The same text in each row."""
    return np.broadcast_to(np.frombuffer(text, np.uint8), (count, len(text)))
