"""Features: rows as the frame that pipelines are fitted on and asked with; one function for training and serving."""

from collections.abc import Mapping

import pandas as pd

from tasks.ml.contract import NUMERIC

MOMENT = "datetime64[us, UTC]"
LARGEST = 2.0**96  # forests add up columns in float32, which ends at 2**128: four billion rows of it stay inside


def matrix(rows: pd.DataFrame, types: Mapping[str, str]) -> pd.DataFrame:
    """The feature columns in order: numbers (bool, int, float) as float64, texts as pandas' `str`, times as UTC microseconds.

    Missing is NaN, NaT for times. A number beyond `LARGEST` stands for it: one row that float32 cannot hold would end what a forest is asked.

    >>> rows = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "c": pd.array(["x", None], dtype="string")})
    >>> matrix(rows, {"c": "category", "a": "int"}).dtypes.astype(str).to_dict()
    {'c': 'str', 'a': 'float64'}
    """
    numbers = rows[list(types)]
    if (
        len(numbers.columns)
        and set(types.values()) <= NUMERIC  # a text without any value may come as float64, too
        and (numbers.dtypes == "float64").all()
        and not any(_is_beyond(numbers[name]) for name in numbers)
    ):
        return numbers  # a view where they stand in one block
    return pd.DataFrame({name: _column(rows[name], kind) for name, kind in types.items()}, index=rows.index, copy=False)


def readable(numbers: pd.Series) -> pd.Series:
    """The same float64 numbers within what every family can read.

    >>> readable(pd.Series([1e300, -2.0])).tolist() == [LARGEST, -2.0]
    True
    """
    return numbers.clip(-LARGEST, LARGEST) if _is_beyond(numbers) else numbers


def _is_beyond(numbers: pd.Series) -> bool:
    values = numbers.to_numpy()
    return bool((values > LARGEST).any() or (values < -LARGEST).any())


def _column(values: pd.Series, kind: str) -> pd.Series:
    if kind in NUMERIC:
        return readable(values if values.dtype == "float64" else values.astype("Float64").astype("float64"))
    return values.astype(MOMENT) if kind == "datetime" else values.astype("string").astype("str")
