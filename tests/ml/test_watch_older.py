"""Rows of an older contract: read as what is wanted now, whatever stands there."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ml.features import matrix
from tasks.ml.watching import older

MOMENT = pd.Timestamp("2026-03-01T12:00:00.000001Z")
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.dictionaries(st.text(), st.integers()),
    st.datetimes().map(str),
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        (["1.5", "red", None], "float", [1.5, np.nan, np.nan]),
        (pd.Series([MOMENT, None]), "int", [np.nan, np.nan]),
        (pd.Series([1, None, 3], dtype="Int64"), "category", ["1", np.nan, "3"]),
        ([1.0, None, 3.0], "category", ["1", np.nan, "3"]),
        ([2.5, 3.0, None, np.inf], "text", ["2.5", "3", np.nan, "inf"]),
        ([True, "x", None], "text", ["true", "x", np.nan]),
        ([MOMENT.isoformat(), "soon", None], "datetime", [MOMENT, pd.NaT, pd.NaT]),
        ([5.0, 7.0], "datetime", [pd.NaT, pd.NaT]),
    ],
)
def test_what_can_be_read_is_and_the_rest_is_missing(values, kind, wanted):
    """Texts that are numbers are numbers; no number is a time."""
    found = matrix(older.read(pd.DataFrame({"a": values}), {"a": kind}), {"a": kind})["a"]
    assert found.isna().tolist() == [pd.isna(value) for value in wanted]
    assert found.dropna().tolist() == [value for value in wanted if not pd.isna(value)]


@given(st.lists(ANYTHING, max_size=5), st.sampled_from(["int", "float", "bool", "text", "category", "datetime"]))
def test_nothing_that_json_holds_is_too_odd(values, kind):
    """It is read or missing, and as many rows as before."""
    rows = pd.DataFrame({"a": pd.Series(values, dtype=object)})
    assert len(matrix(older.read(rows, {"a": kind}), {"a": kind})) == len(values)


def test_what_is_of_the_sort_already_is_not_touched():
    """The very column, and no copy."""
    rows = pd.DataFrame({"a": [1.0, np.nan], "b": pd.Series(["x", None], dtype="str")})
    found = older.read(rows, {"b": "category", "a": "int"})
    assert found.columns.tolist() == ["b", "a"]
    assert np.shares_memory(found["a"].to_numpy(), rows["a"].to_numpy())
