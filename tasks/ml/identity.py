"""Digests: what makes a row, a set of rows, a configuration the same."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

FIELD, NOTHING = "\x1f", "-"


def row_ids(rows: pd.DataFrame) -> np.ndarray:
    """A 128-bit name for every row, from all of its content: (n,) array of 32 hex digits.

    Equal rows have equal ids whatever file they came in; the order of columns does not matter, their names do.

    >>> rows = pd.DataFrame({"a": [1, 2, 1], "b": ["x", None, "x"]})
    >>> ids = row_ids(rows)
    >>> ids[0] == ids[2], ids[0] == ids[1], ids[0] == row_ids(rows[["b", "a"]])[0]
    (True, False, True)
    """
    if rows.empty:
        return np.array([], dtype=object)
    names = sorted(rows.columns)
    texts = [_framed(_canonical(rows[name])) for name in names]
    joined = pc.binary_join_element_wise(*texts, pa.scalar(FIELD, pa.large_string()))  # ty: ignore[missing-attribute]
    head = hashlib.sha256(FIELD.join(names).encode())

    def name_of(content: bytes) -> str:
        digest = head.copy()
        digest.update(content)
        return digest.hexdigest()[:32]

    return np.array([name_of(text.encode()) for text in joined.to_pylist()], dtype=object)


def _framed(texts: pa.Array) -> pa.Array:
    """Each text behind its length, so that no content can pass for the border of two fields or for a missing value."""
    lengths = pc.binary_length(texts).cast(pa.large_string())  # ty: ignore[missing-attribute]
    framed = pc.binary_join_element_wise(lengths, texts, pa.scalar(":", pa.large_string()))  # ty: ignore[missing-attribute]
    return pc.fill_null(framed, pa.scalar(NOTHING, pa.large_string()))


def _canonical(values: pd.Series) -> pa.Array:
    """One column as text that is the same for equal values in whatever width they are stored."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert(None)  # UTC without its zone: pandas 4 will not hand pyarrow the other kind
    array = pa.Array.from_pandas(values)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    elif pa.types.is_integer(array.type) or pa.types.is_boolean(array.type):
        array = array.cast(pa.int64())
    return array.cast(pa.large_string())


def set_digest(ids: Iterable[str]) -> str:
    """SHA-256 over a set of row ids; their order does not matter.

    >>> set_digest(["b", "a"]) == set_digest(["a", "b"])
    True
    """
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def digest(value: Any) -> str:
    """SHA-256 over anything that JSON can say, keys sorted.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
