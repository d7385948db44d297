"""Older: rows of an older contract, read as the types that a model or a comparison wants."""

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from tasks.ml.contract import NUMERIC
from tasks.ml.features import MOMENT, matrix

Sort = Literal["number", "words", "time"]


def sort(kind: str) -> Sort:
    """What values of a contract's type are, roughly; within a sort nothing is lost by reading one type as another.

    >>> sort("bool"), sort("category"), sort("datetime")
    ('number', 'words', 'time')
    """
    return "number" if kind in NUMERIC else "time" if kind == "datetime" else "words"


def held(column: pd.Series) -> Sort | None:
    """What a stored column holds; None where that is not known, as of values of several types."""
    if pd.api.types.is_numeric_dtype(column):
        return "number"
    if pd.api.types.is_datetime64_any_dtype(column):
        return "time"
    return "words" if pd.api.types.is_string_dtype(column) and column.dtype != object else None


def features(rows: pd.DataFrame, types: Mapping[str, str]) -> pd.DataFrame:
    """The columns of these names and types as `features.matrix` gives them, of rows that were written under whatever contract."""
    return matrix(read(rows, types), types)


def read(rows: pd.DataFrame, types: Mapping[str, str]) -> pd.DataFrame:
    """The columns of these names, of values that `features.matrix` takes; what cannot be read as its type is missing, as is a column that is not there.

    >>> rows = pd.DataFrame({"a": ["7", "red", None], "b": [1.5, 2, None]})
    >>> read(rows, {"a": "float", "b": "category", "c": "int"}).to_dict("list")
    {'a': [7.0, nan, nan], 'b': ['1.5', '2', nan], 'c': [nan, nan, nan]}
    """
    wanted = rows.reindex(columns=list(types))
    return pd.DataFrame({name: _read(wanted[name], kind) for name, kind in types.items()}, index=rows.index, copy=False)


def _read(column: pd.Series, kind: str) -> pd.Series:
    wanted = sort(kind)
    if held(column) == wanted:
        return column
    if wanted == "words":
        return column.map(_text).astype("str")
    if wanted == "time":
        texts = column.where(column.map(lambda value: isinstance(value, str)).astype(bool))
        return pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce").astype(MOMENT)
    plain = column.astype(object).where(
        column.map(lambda value: isinstance(value, (str, bool, int, float))).astype(bool)
    )
    return pd.to_numeric(plain, errors="coerce").astype("float64")


def _text(value: object) -> str | None:
    """As JSON writes it, a whole number without a point, as a gap beside it makes it a float; None where it is missing.

    >>> _text(1), _text(1.0), _text(1.5), _text(True), _text(float("nan"))
    ('1', '1', '1.5', 'true', None)
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, (list, dict)) or pd.notna(value) else None
