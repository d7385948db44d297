"""Surrogates: equal rows have one name and one time, in whatever form and company they come."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.ml.surrogate import drawn_times, row_names

CONTENT = {"a": "int", "b": "float", "c": "text", "d": "bool", "e": "datetime"}
YEARS = (dt.datetime(1990, 1, 1), dt.datetime(2030, 1, 1))  # noqa: DTZ001 -- hypothesis wants them without a zone
ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(10**12), 10**12), st.none() | st.floats(-1e9, 1e9, allow_subnormal=False), st.none() | st.sampled_from("xyz"),
        st.none() | st.booleans(), st.none() | st.datetimes(*YEARS),
    ),
    min_size=1, max_size=20,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_a_row_has_one_name_as_text_and_typed(rows):
    """Numbers, truth values and times name a row alike whether they were written or typed; different rows differ."""
    typed = pd.DataFrame(rows, columns=list(CONTENT)).astype({"a": "Int64", "b": "Float64", "c": "str", "d": "boolean"})
    written = pd.DataFrame({
        "a": [None if a is None else str(a) for a, *_ in rows], "b": [None if b is None else repr(b) for _, b, *_ in rows],
        "c": [c for _, _, c, *_ in rows], "d": [None if d is None else ("yes" if d else "f") for *_, d, _ in rows],
        "e": [None if e is None else e.isoformat() for *_, e in rows],
    }).astype("str")  # fmt: skip
    names = row_names(typed.assign(e=pd.to_datetime(typed["e"], utc=True)), CONTENT)
    pd.testing.assert_series_equal(names, row_names(written, CONTENT))
    assert names.nunique() == len(
        {tuple(0.0 if value == 0 and isinstance(value, float) else value for value in row) for row in rows}
    )


def test_a_name_depends_on_its_row_alone():
    """Other rows, further columns, and the order of columns change no name; a missing column is named."""
    rows = pd.DataFrame({"a": ["1", "2", "1"], "c": ["x", None, "x"]})
    names = row_names(rows, {"a": "int", "c": "text"})
    assert names[0] == names[2] != names[1]
    assert row_names(rows.iloc[[1]].assign(z=1)[["c", "z", "a"]], {"c": "text", "a": "int"}).tolist() == [names[1]]
    with pytest.raises(KeyError, match="c"):
        row_names(rows[["a"]], {"a": "int", "c": "text"})


def test_a_decimal_comma_names_the_same_row():
    """1,5 in a German file is the row of 1.5; a column that is typed already is left alone."""
    german = row_names(pd.DataFrame({"b": ["1,5"]}), {"b": "float"}, decimal=",")
    assert german[0] == row_names(pd.DataFrame({"b": [1.5]}), {"b": "float"}, decimal=",")[0]


def test_what_is_no_number_still_tells_rows_apart():
    """Two rows that differ in a broken value only are two rows."""
    names = row_names(
        pd.DataFrame({"a": ["?", "unknown", "99999999999999999999", "99999999999999999998"]}), {"a": "int"}
    )
    assert names.nunique() == 4


def test_drawn_times_are_spread_evenly_over_the_year():
    """Over 5,000 rows the times pass for uniform (Kolmogorov and Smirnov), and keep the order of the names."""
    names = row_names(pd.DataFrame({"a": np.arange(5000)}), {"a": "int"})
    times = drawn_times(names)
    shares = (times - pd.Timestamp("2000-01-01", tz="UTC")) / pd.Timedelta(days=366)
    assert stats.kstest(shares, "uniform").pvalue > 0.001
    assert times.sort_values().index.tolist() == names.sort_values().index.tolist()
