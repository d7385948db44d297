"""Sketches: no row is lost, bins are where numpy and pandas find them, and what is added up is what is counted at once."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ml.watching.reference import BUCKETS, LISTED, Listing, Ruler, Sketch, answers, daily, merged

NUMBERS = st.lists(st.one_of(st.floats(width=64), st.just(0.0), st.integers(-5, 5).map(float)), min_size=1, max_size=60)
WORDS = st.lists(st.one_of(st.none(), st.sampled_from("abcde"), st.text(max_size=3)), min_size=1, max_size=60)


def frame(numbers: list[float], words: list[str | None]) -> pd.DataFrame:
    n = min(len(numbers), len(words))
    return pd.DataFrame({"number": np.array(numbers[:n]), "word": pd.Series(words[:n], dtype="str")})


@given(NUMBERS, WORDS, NUMBERS, WORDS)
def test_a_sketch_loses_no_row_and_adds_up(numbers, words, more, others):
    """Whatever the values, infinite, missing, never seen: two sketches together are the sketch of all rows."""
    one, two = frame(numbers, words), frame(more, others)
    first = Sketch.of(one)
    second = first.like(two)
    assert first + second == first.like(pd.concat([one, two], ignore_index=True))
    for name, column in second.features.items():
        assert (column.missing, column.rows) == (int(two[name].isna().sum()), len(two))


def test_no_type_is_no_column():
    """Who names types names the columns; none is not the same as left out."""
    rows = frame([1.0, 2.0], ["a", "b"])
    assert set(Sketch.of(rows).features) == {"number", "word"}
    assert set(Sketch.of(rows, types={"word": "category"}).features) == {"word"}
    assert Sketch.of(rows, types={}).features == {}


@given(NUMBERS, WORDS)
def test_a_sketch_is_json(numbers, words):
    """What was written is read again as it was, also by others than pydantic."""
    sketch = Sketch.of(frame(numbers, words), np.array(numbers[: min(len(numbers), len(words))]))
    assert Sketch.model_validate_json(json.dumps(json.loads(sketch.model_dump_json()), allow_nan=False)) == sketch


@pytest.mark.parametrize("shape", ["normal", "lognormal", "far", "tiny"])
def test_bins_hold_a_hundredth_each_and_are_counted_as_numpy_counts_them(shape):
    """Ends are in the column's own unit, whatever that is; the reference's spread is numpy's."""
    random = np.random.default_rng(1)
    values = {
        "normal": random.normal(size=150_000), "lognormal": random.lognormal(0, 2, 150_000), "far": 1e6 + random.normal(size=150_000),
        "tiny": 1e-40 * random.normal(size=150_000),
    }[shape]  # fmt: skip
    column = Sketch.of(pd.DataFrame({"a": values})).features["a"]
    assert isinstance(column.bins, Ruler)
    wanted = np.diff(np.searchsorted(np.sort(values), np.r_[-np.inf, column.bins.ends, np.inf]))
    assert np.abs(np.array(column.counts) - wanted).max() <= 2  # a value can be rounded over an end, in 24 bits
    assert column.bins.spread == pytest.approx(values.std(), rel=0.01)
    assert len(column.counts) >= 101
    assert max(column.counts) <= 0.018 * len(values)  # a skew's short side lies in cells as wide as the centre is far


def test_each_frequent_number_of_a_few_has_its_own_bin():
    """Counts from 0 to 5, each at least a hundredth of all."""
    values = pd.Series(np.random.default_rng(1).poisson(2, 150_000).astype(float))
    column = Sketch.of(values.to_frame("a")).features["a"]
    assert set(values.value_counts().loc[[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]) <= set(column.counts)


def test_a_constant_that_becomes_another_is_in_another_bin():
    """So that what never varied, and now does, is seen."""
    fixed = Sketch.of(pd.DataFrame({"a": np.full(1000, 5.0)}))
    for other in (4.0, 5.1, -np.inf):
        assert not np.array(fixed.features["a"].counts) @ np.array(
            fixed.like(pd.DataFrame({"a": [other]})).features["a"].counts
        )


def test_categories_beyond_the_list_are_counted_by_hash_and_those_never_seen_apart():
    """With few categories one more bin counts the new ones; with many nobody can tell, and a name stays in its bin."""
    few = Sketch.of(pd.DataFrame({"a": pd.Series(list("xxy"), dtype="str")}))
    now = few.like(pd.DataFrame({"a": pd.Series(["y", "z", "z", None], dtype="str")})).features["a"]
    assert (now.counts, now.missing, now.new) == ((0, 1, 2), 1, pytest.approx(2 / 3))
    names = pd.Series([f"shop {number}" for number in range(500)], dtype="str")
    many = Sketch.of(pd.DataFrame({"a": names}))
    column = many.features["a"]
    assert isinstance(column.bins, Listing)
    assert (len(column.counts), column.new, len(column.bins.values)) == (LISTED + BUCKETS, 0.0, LISTED)
    assert many.like(pd.DataFrame({"a": names.astype("category")})).features["a"] == column
    assert many.like(pd.DataFrame({"a": names.astype(object)})).features["a"] == column


def test_flags_say_their_values_in_small_letters_and_times_are_left_out():
    """Flags with gaps are flags; a column of times has no place in a sketch."""
    rows = pd.DataFrame(
        {"flag": pd.array([True, None, False], dtype="boolean"), "at": pd.to_datetime(["2026-01-01"] * 3, utc=True)}
    )
    column = Sketch.of(rows).features["flag"]
    assert isinstance(column.bins, Listing)
    assert (column.bins.values, column.missing) == (("false", "true"), 1)
    assert list(Sketch.of(rows).features) == ["flag"]
    assert list(Sketch.of(rows, types={"at": "datetime", "flag": "bool"}).features) == ["flag"]
    assert Sketch.of(rows.assign(flag=[True, None, False])).features["flag"].bins.kind == "category"
    assert Sketch.of(rows.assign(flag=[True, None, False]), types={"flag": "bool"}).features["flag"] == column


def test_integers_with_gaps_are_numbers():
    """Whatever type pandas holds them in."""
    whole = Sketch.of(pd.DataFrame({"a": pd.array([1, 2, None], dtype="Int64")}))
    assert whole.like(pd.DataFrame({"a": [1.0, 2.0, np.nan]})) == whole
    assert whole.features["a"].missing == 1


def test_different_bins_are_not_added_up():
    """Nor are rows without a column that the reference has sketched: both say what to do."""
    one, two = Sketch.of(pd.DataFrame({"a": [1.0, 2.0]})), Sketch.of(pd.DataFrame({"a": [1.0, 3.0]}))
    with pytest.raises(ValueError, match="sketch the second one `like` the first"):
        one + two
    with pytest.raises(KeyError, match="the rows lack a, which the reference has"):
        one.like(pd.DataFrame({"b": [1.0]}))


def test_a_day_without_rows_has_a_sketch_and_days_add_up():
    """Rows come in any order; what was said comes along."""
    random = np.random.default_rng(2)
    at = np.array(["2026-03-01", "2026-03-04", "2026-03-02"], dtype="datetime64[D]")[random.integers(3, size=90)]
    rows, said = pd.DataFrame({"a": random.normal(size=90)}), random.random((90, 2))
    fixed = Sketch.of(rows, said)
    days = daily(fixed, rows, at.astype("datetime64[us]"), said)
    assert [day.rows for day in days] == [int((at == day).sum()) for day in np.arange(at.min(), at.max() + 1)]
    assert days[2].rows == 0
    assert merged(days) == fixed
    assert daily(fixed, rows[:0], at[:0]) == []
    assert merged([]) is None


def test_what_was_said_is_a_column_for_each_class_but_one_for_two():
    """Values and categories are themselves."""
    assert {name: list(column) for name, column in answers(np.array([[0.2, 0.8], [0.6, 0.4]])).items()} == {
        "prediction": [0.8, 0.4]
    }
    assert list(answers(np.ones((2, 3)))) == ["class 0", "class 1", "class 2"]
    assert list(answers(np.array(["a", "b"]))["prediction"]) == ["a", "b"]
    assert answers(None) == {}
