"""Features: rows as the frame that pipelines are fitted on and asked with; one function for training and serving."""

from collections.abc import Mapping

import pandas as pd

from tasks.ml.contract import NUMERIC


def matrix(rows: pd.DataFrame, types: Mapping[str, str]) -> pd.DataFrame:
    """The feature columns in order: numbers (bool, int, float) as float64, texts as pandas' `str`; missing is NaN in both.

    >>> rows = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "c": pd.array(["x", None], dtype="string")})
    >>> matrix(rows, {"c": "category", "a": "int"}).dtypes.astype(str).to_dict()
    {'c': 'str', 'a': 'float64'}
    """
    columns = {
        name: rows[name].astype("Float64").astype("float64")
        if kind in NUMERIC
        else rows[name].astype("string").astype("str")
        for name, kind in types.items()
    }
    return pd.DataFrame(columns, index=rows.index)
