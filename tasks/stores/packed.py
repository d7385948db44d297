"""Packed lines: records of the prediction log for rows of numbers alone, those of a whole request made with a few copies of memory.

A packed line is JSON, and stands for itself like every other. Its `numbers` are those of the row and one that was answered, as little-endian
float64 in hexadecimal digits, NaN for null; `columns` names the row's, and `types` has a letter for each. Readers of the log never see
the difference.
"""

import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

ENCODER = msgspec.json.Encoder()
PACKED = b'"numbers":"'
KINDS: dict[str, type] = {"float": float, "int": int, "bool": bool}  # types of columns that are numbers
LETTERS = {name[0]: kind for name, kind in KINDS.items()}


def packed(
    ids: bytes, about: bytes, columns: Mapping[str, str], rows: np.ndarray, numbers: np.ndarray, predictions: Sequence[Any], chosen: np.ndarray
) -> memoryview:  # fmt: skip
    """A line for each row, as bytes that are not copied once more.

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
    digits = binascii.hexlify(np.column_stack([rows, numbers]).astype("<f8", copy=False).data)
    told = [ENCODER.encode(one) for one in predictions]
    width = max(map(len, told), default=0)
    padded = np.frombuffer(b"".join([one.ljust(width) for one in told]), np.uint8).reshape(len(told), width)
    said = [b'","prediction":', padded.take(chosen, axis=0), b"}\n"] if told else [b'"}\n']
    types = "".join([kind[0] for kind in columns.values()]).encode()
    about = b'",%b,"columns":%b,"types":"%b",%b' % (about, ENCODER.encode([*columns]), types, PACKED)
    return _beside(count, [b'{"id":"', _each(ids, count), about, _each(digits, count), *said])


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
    columns, types, digits = found.pop("columns", ()), found.pop("types", ""), found.pop("numbers")
    *row, number = np.frombuffer(bytes.fromhex(digits), "<f8").tolist()
    found["row"] = {name: _value(each, letter) for name, letter, each in zip(columns, types, row, strict=True)}
    if "prediction" in found:
        return found | {"probability": number}
    return found | {"prediction": number, "probability": None}


def _value(number: float, letter: str) -> Any:
    return None if number != number else LETTERS[letter](number)  # noqa: PLR0124 -- NaN alone differs from itself


def _each(text: bytes, count: int) -> np.ndarray:
    """A text of equal parts, one a row."""
    return np.frombuffer(text, np.uint8).reshape(count, -1)


def _beside(count: int, parts: Sequence[bytes | np.ndarray]) -> memoryview:
    """Rows of bytes: in each what an array, (n, width) uint8, has there, or the same text, one behind the other."""
    widths = [len(part) if isinstance(part, bytes) else part.shape[1] for part in parts]
    made, begin = np.empty((count, sum(widths)), np.uint8), 0
    for part, width in zip(parts, widths, strict=True):
        made[:, begin : begin + width] = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part
        begin += width
    return made.reshape(-1).data
