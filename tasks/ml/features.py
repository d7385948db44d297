"""Features: rows as the frame that pipelines are fitted on and asked with; one function for training and serving."""

from collections.abc import Mapping

import pandas as pd

from tasks.ml.contract import NUMERIC

MOMENT = "datetime64[us, UTC]"


def matrix(rows: pd.DataFrame, types: Mapping[str, str]) -> pd.DataFrame:
    """The feature columns in order: numbers (bool, int, float) as float64, texts as pandas' `str`, times as UTC microseconds.

    Missing is NaN, NaT for times.

    >>> rows = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "c": pd.array(["x", None], dtype="string")})
    >>> matrix(rows, {"c": "category", "a": "int"}).dtypes.astype(str).to_dict()
    {'c': 'str', 'a': 'float64'}
    """
    numbers = rows[list(types)]
    if len(numbers.columns) and (numbers.dtypes == "float64").all():
        return numbers  # a view where they stand in one block
    return pd.DataFrame({name: _column(rows[name], kind) for name, kind in types.items()}, index=rows.index, copy=False)


def _column(values: pd.Series, kind: str) -> pd.Series:
    if kind in NUMERIC:
        return values if values.dtype == "float64" else values.astype("Float64").astype("float64")
    return values.astype(MOMENT) if kind == "datetime" else values.astype("string").astype("str")
