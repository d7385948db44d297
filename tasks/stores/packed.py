"""Packed lines: one for all rows of a request that are numbers alone, made with a few copies of memory.

A packed line is JSON, and stands for a record of each row. Its `packed` holds for each the id and, as little-endian float64 in base64, the
row's numbers, NaN for null, the one that was answered beside the prediction, and the prediction's place in `predictions`; `size` says how
many characters that takes. `columns` names the row's numbers, and `types` has a letter for each. Blanks in the place of a row stand for
none. Readers of the log never see the difference.
"""

import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

ENCODER = msgspec.json.Encoder()
PACKED = b'"packed":"'
BLANK = ord(" ")
EMPTY = (b"", b"\n")  # lines, without and with their break
KINDS: dict[str, type] = {"float": float, "int": int, "bool": bool}  # types of columns that are numbers
LETTERS = {name[0]: kind for name, kind in KINDS.items()}


def packed(
    ids: bytes, about: bytes, columns: Mapping[str, str], rows: np.ndarray, numbers: np.ndarray, predictions: Sequence[Any], chosen: np.ndarray
) -> memoryview:  # fmt: skip
    """One line for all rows, as bytes that are not copied once more.

    Args:
        ids: the ids, one behind the other, all of one length.
        about: what all records have beside, as a part of a JSON object.
        columns: of the rows, name and type.
        rows: (n, columns) float64, NaN for null.
        numbers: (n,) float64, what is logged beside the predictions; without any, the predictions themselves.
        predictions: from which each row's is chosen.
        chosen: (n,) places among them.
    """
    count, width = rows.shape
    told = np.zeros((count, _wide(width)), "<f8")
    told[:, :width], told[:, width] = rows, numbers
    if predictions:
        told[:, width + 1] = chosen
    digits = np.frombuffer(ENCODER.encode(told.data), np.uint8)[1:-1]  # between quotation marks; quicker than binascii
    types = "".join([kind[0] for kind in columns.values()]).encode()
    names, choices = ENCODER.encode([*columns]), ENCODER.encode([*predictions])
    each = [np.frombuffer(ids, np.uint8).reshape(count, -1), digits.reshape(count, -1)]
    head = b'{%b,"columns":%b,"types":"%b","predictions":%b,"size":%d,%b'
    size = sum([part.shape[1] for part in each])
    return _around(head % (about, names, types, choices, size, PACKED), each, b'"}\n')


def placed(line: bytes) -> list[tuple[int, int, Any]]:
    """The records that a line of a log holds, as if it had not been packed: first byte in the line, number of bytes, content.

    An empty line holds none.

    Raises:
        ValueError: it is torn.
    """
    if line in EMPTY:
        return []
    found = json.loads(line)
    if not (PACKED in line and isinstance(found, dict) and "packed" in found):
        return [(0, len(line.rstrip(b"\n")), found)]
    begin, size = line.index(PACKED) + len(PACKED), found.get("size", 0)
    try:
        return [(begin + place * size, size, record) for place, record in _unpacked(found)]
    except (LookupError, OverflowError) as error:
        raise ValueError("the packed line does not hold together") from error


def records(line: bytes) -> list[Any]:
    """Their content alone.

    Raises:
        ValueError: it is torn.
    """
    return [record for _, _, record in placed(line)]


def plain(line: bytes) -> list[bytes]:
    """The lines as they are when they are not packed.

    Raises:
        ValueError: it is packed, and torn.
    """
    return [ENCODER.encode(record) for record in records(line)] if PACKED in line else [line]


def _unpacked(found: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each record that was not blanked, and its place."""
    columns, types, predictions = found.pop("columns"), found.pop("types"), found.pop("predictions")
    each = np.frombuffer(found.pop("packed").encode(), np.uint8).reshape(-1, found.pop("size"))
    there, wide = np.flatnonzero(each[:, 0] != BLANK), _wide(len(columns))
    digits = 32 * wide // 3
    numbers = np.frombuffer(binascii.a2b_base64(each[there, -digits:].tobytes(), strict_mode=True), "<f8")
    for place, told in zip(there.tolist(), numbers.reshape(len(there), wide).tolist(), strict=True):
        row = {name: _value(one, letter) for name, letter, one in zip(columns, types, told[: len(columns)], strict=True)}  # fmt: skip
        number, chosen = told[len(columns) : len(columns) + 2]
        said = (predictions[int(chosen)], number) if predictions else (number, None)
        name = each[place, :-digits].tobytes().decode()
        yield place, {"id": name, **found, "row": row, "prediction": said[0], "probability": said[1]}


def _value(number: float, letter: str) -> Any:
    return None if number != number else LETTERS[letter](number)  # noqa: PLR0124 -- NaN alone differs from itself


def _wide(width: int) -> int:
    """How many numbers stand for a row with so many: with the two of the answer, and zeros to make whole groups of base64's digits."""
    return -(-(width + 2) // 3) * 3


def _around(head: bytes, parts: Sequence[np.ndarray], tail: bytes) -> memoryview:
    """What each part, (n, width) uint8, has of a row, one behind the other, row by row between head and tail."""
    size = sum([part.size for part in parts])
    made, begin = np.empty(len(head) + size + len(tail), np.uint8), 0
    made[: len(head)], made[len(head) + size :] = np.frombuffer(head, np.uint8), np.frombuffer(tail, np.uint8)
    rows = made[len(head) : len(head) + size].reshape(len(parts[0]), -1)
    for part in parts:
        rows[:, begin : begin + part.shape[1]] = part
        begin += part.shape[1]
    return made.data
