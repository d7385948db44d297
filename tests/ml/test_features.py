"""Features: what every model reads of rows."""

import numpy as np
import pandas as pd
import pytest

from tasks.ml.computed import Computing
from tasks.ml.features import LARGEST, MOMENT, matrix

HUGE = [1.0, np.nan, 1e300, -1.7e308, 3e38, LARGEST, -5.0]
READ = [1.0, np.nan, LARGEST, -LARGEST, LARGEST, LARGEST, -5.0]


@pytest.mark.parametrize("others", [{}, {"n": pd.array([1] * 7, dtype="Int64")}], ids=["floats alone", "with others"])
def test_a_number_that_float32_cannot_hold_is_read_as_the_largest(others):
    """Of either sign; all that is inside stays as it is, to the last bit, and the rows themselves are not touched."""
    rows = pd.DataFrame({"x": HUGE, "y": [0.1] * 7} | others)
    read = matrix(rows, {"x": "float", "y": "float"} | dict.fromkeys(others, "int"))
    assert read["x"].tolist() == pytest.approx(READ, rel=0, abs=0, nan_ok=True)
    assert read["y"].tolist() == [0.1] * 7
    assert rows["x"].tolist()[2:4] == [1e300, -1.7e308]


def test_many_rows_of_the_largest_number_add_up_in_float32():
    """A forest asks the sum of a column whether a value is missing."""
    read = matrix(pd.DataFrame({"x": [1e300] * 100_000}), {"x": "float"})
    assert np.isfinite(read.to_numpy(dtype="float32").sum())


def test_a_computed_number_is_read_in_the_same_way():
    """A product of two numbers that the contract allows may be larger than either."""
    square = "def features(rows):\n    return rows[['x']].pow(2).set_axis(['square'], axis=1)"
    made = Computing(square, {"square": "float"}).of(pd.DataFrame({"x": [1e150, -3.0, np.nan]}))
    assert made["square"].tolist() == pytest.approx([LARGEST, 9.0, np.nan], nan_ok=True)


@pytest.mark.parametrize(("kind", "dtype"), [("category", "str"), ("text", "str"), ("datetime", MOMENT)])
def test_a_column_without_any_value_is_read_as_what_it_is(kind, dtype):
    """Rows from before a text was there come with a number's gaps in its place, which an encoder of texts cannot read."""
    read = matrix(pd.DataFrame({"a": [1.0], "c": [np.nan]}), {"a": "float", "c": kind})
    assert read.dtypes.astype(str).to_dict() == {"a": "float64", "c": dtype}
    assert read["c"].isna().all()
