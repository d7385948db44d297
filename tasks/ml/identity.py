"""Digests: what makes a row, a set of rows, a configuration the same."""

import binascii
import hashlib
import json
from struct import iter_unpack
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

SIZE = 16  # bytes of a row's name
BLOCK = 4096  # rows that are laid out side by side at a time: they stay in the cache


def row_ids(rows: pa.Table) -> np.ndarray:
    """A 128-bit name for every row, from all of its content: (n, 16) bytes, BLAKE2b (RFC 7693).

    Equal rows have equal names whatever file they came in; the order of columns does not matter, their names do. The
    columns have the types of a contract: integers, floats, booleans, texts, timestamps.

    >>> rows = pa.table({"a": [1, 2, 1], "b": ["x", None, "x"]})
    >>> ids = row_ids(rows)
    >>> (ids[0] == ids[2]).all(), (ids[0] == ids[1]).all(), (ids == row_ids(rows.select(["b", "a"]))).all()
    (np.True_, np.False_, np.True_)
    """
    names = sorted(rows.column_names)
    cells = [*(_cells(rows[name]) for name in names), _gaps(rows.select(names))]
    layout = np.dtype([(f"{place}", cell.dtype) for place, cell in enumerate(cells)])
    begun, ids = hashlib.blake2b(digest_size=SIZE, person=_kind(names)).copy, []  # a copy costs half of a new one
    for first in range(0, len(rows), BLOCK):
        content: np.ndarray = np.empty(min(BLOCK, len(rows) - first), dtype=layout)
        for place, cell in enumerate(cells):
            content[f"{place}"] = cell[first : first + BLOCK]
        rowwise = iter_unpack(f"{layout.itemsize}s", content.data.cast("B"))
        ids += [(row := begun()).update(told) or row.digest() for (told,) in rowwise]
    return np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, SIZE)


def _kind(names: list[str]) -> bytes:
    """The columns' names as BLAKE2b's personalisation, so that rows of other columns never have the same name."""
    return hashlib.blake2b("\x1f".join(names).encode(), digest_size=16).digest()


def _gaps(rows: pa.Table) -> np.ndarray:
    """Which cells of each row are empty, a bit a column: (n,) of as many bytes as that takes."""
    empty = np.zeros((len(rows), rows.num_columns), dtype=bool)
    for place, column in enumerate(rows.columns):
        if column.null_count:
            empty[:, place] = column.is_null().to_numpy()
    bits = np.packbits(empty, axis=1)
    return bits.view(f"V{bits.shape[1]}").reshape(-1)


def _cells(column: pa.ChunkedArray) -> np.ndarray:
    """One column as (n,) of 8 or, for texts, 16 bytes, the same for equal values; zero where it is empty."""
    kind = column.type
    if pa.types.is_floating(kind):
        return (_filled(column.cast(pa.float64()), 0.0) + 0.0).astype("<f8", copy=False)  # minus zero is zero
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return _filled(column.cast(pa.int64()), 0).astype("<i8", copy=False)
    if pa.types.is_timestamp(kind):
        instants = column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
        return _filled(instants, 0).astype("<i8", copy=False)
    coded = column.cast(pa.large_string()).combine_chunks()
    coded = coded if isinstance(coded, pa.Array) else pa.concat_arrays(coded.chunks)
    coded = coded.dictionary_encode()
    texts = [hashlib.blake2b(text.encode(), digest_size=SIZE).digest() for text in coded.dictionary.to_pylist()]
    table = np.frombuffer(b"".join([*texts, bytes(SIZE)]), dtype=f"V{SIZE}")
    return table[_filled(coded.indices, len(texts))]


def _filled(column: pa.ChunkedArray | pa.Array, value: float) -> np.ndarray:
    """The numbers of a column, with this one where it is empty."""
    full = column.fill_null(value) if column.null_count else column
    return full.to_numpy(zero_copy_only=False) if isinstance(full, pa.Array) else full.to_numpy()


def key_hashes(rows: pa.Table, key: tuple[str, ...]) -> np.ndarray:
    """A 64-bit number for every row's key: (n,) uint64; equal keys have equal numbers.

    >>> rows = pa.table({"a": [1, 2, 1], "b": ["x", "x", "x"]})
    >>> hashes = key_hashes(rows, ("a", "b"))
    >>> bool(hashes[0] == hashes[2]), bool(hashes[0] == hashes[1])
    (True, False)
    """
    hashes = np.zeros(len(rows), dtype=np.uint64)
    for name in key:
        column = rows[name]
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            values = column.to_numpy()
        else:
            values = _cells(column).view(np.uint64)
        each = pd.util.hash_array(np.asarray(values), categorize=False)  # ty: ignore[not-callable]
        with np.errstate(over="ignore"):
            hashes = (hashes ^ each) * np.uint64(0x9E3779B97F4A7C15)  # an odd factor: the order of columns counts
    return hashes


def set_digest(ids: np.ndarray) -> str:
    """SHA-256 over a set of row names, (n, 16) bytes; their order does not matter.

    >>> ids = row_ids(pa.table({"a": [1, 2]}))
    >>> set_digest(ids) == set_digest(ids[::-1])
    True
    """
    words = np.ascontiguousarray(ids).view(">u8").reshape(-1, 2)
    return hashlib.sha256(np.ascontiguousarray(words[np.lexsort((words[:, 1], words[:, 0]))]).tobytes()).hexdigest()


def as_binary(ids: np.ndarray) -> pa.Array:
    """Row names, (n, 16) bytes, as an Arrow column."""
    fixed = pa.Array.from_buffers(pa.binary(SIZE), len(ids), [None, pa.py_buffer(np.ascontiguousarray(ids))])
    return fixed.cast(pa.binary())


def from_binary(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The inverse of `as_binary`: (n, 16) bytes."""
    fixed = column.cast(pa.binary(SIZE))
    chunks = fixed.chunks if isinstance(fixed, pa.ChunkedArray) else [fixed]
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype=np.uint8)[chunk.offset * SIZE : (chunk.offset + len(chunk)) * SIZE]
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate(parts).reshape(-1, SIZE) if parts else np.empty((0, SIZE), dtype=np.uint8)


def as_text(ids: np.ndarray) -> list[str]:
    """Row names as 32 hex digits each."""
    digits = np.ascontiguousarray(ids).tobytes().hex()
    return [digits[at : at + 2 * SIZE] for at in range(0, len(digits), 2 * SIZE)]


def as_column(ids: np.ndarray) -> pa.Array:
    """The same as a column of texts; of 10 million rows without 10 million Python objects.

    >>> as_column(np.arange(32, dtype=np.uint8).reshape(2, 16)).to_pylist() == as_text(np.arange(32, dtype=np.uint8).reshape(2, 16))
    True
    """
    digits = binascii.hexlify(np.ascontiguousarray(ids).data)
    offsets = np.arange(0, len(digits) + 1, 2 * SIZE, dtype=np.int64)
    return pa.LargeStringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(digits))


def digest(value: Any) -> str:
    """SHA-256 over anything that JSON can say, keys sorted.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
