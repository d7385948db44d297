"""The contract: which rows may land, which may not, and that none is lost."""

import datetime as dt

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from tasks.ml.contract import Column, Contract

CONTRACT = Contract(
    columns={
        "id": Column(type="int", min=0),
        "at": Column(type="datetime"),
        "age": Column(type="int", min=0, max=120),
        "sex": Column(type="category", nullable=True, categories=("F", "M")),
        "level": Column(type="float", nullable=True, max=1000),
        "ill": Column(type="bool"),
    },
    key=("id",), time="at", target="ill",
)  # fmt: skip
ROW = {"id": "1", "at": "2020-01-01", "age": "30", "sex": "F", "level": "1.5", "ill": "t"}


def batch(*changes: dict[str, object]) -> pd.DataFrame:
    """Rows like the good one, each with its changes and an id of its own."""
    return pd.DataFrame([ROW | {"id": str(number)} | change for number, change in enumerate(changes)])


def test_good_rows_land_typed():
    """Texts become the contract's types, in the contract's order of columns."""
    checked = CONTRACT.check(batch({}, {"sex": None, "level": None})[["ill", "at", "id", "age", "level", "sex"]])
    types = ["Int64", "datetime64[us, UTC]", "Int64", "string", "float64", "boolean"]
    assert list(checked.rows.columns) == list(CONTRACT.columns)
    assert checked.rows.dtypes.astype(str).tolist() == types
    assert checked.quarantined.empty
    assert checked.counts == {}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"age": "455"}, "age is above 120"),
        ({"age": "-1"}, "age is below 0"),
        ({"age": "12.5"}, "age is no int"),
        ({"age": "old"}, "age is no int"),
        ({"age": "1e300"}, "age is no int"),
        ({"age": "12345678901234567890"}, "age is no int"),
        ({"age": None}, "age is empty"),
        ({"sex": "X"}, "sex is none of the categories"),
        ({"level": "high"}, "level is no float"),
        ({"level": "inf"}, "level is no float"),
        ({"at": "yesterday"}, "at is no datetime"),
        ({"at": "2020-02-30"}, "at is no datetime"),
        ({"ill": "perhaps"}, "ill is no bool"),
        ({"ill": None}, "ill is empty"),
        ({"id": None}, "id is empty"),
    ],
)
def test_a_broken_row_is_quarantined_with_its_reason(change, rule):
    """The row that breaks a rule goes to quarantine with rule, column and value; its neighbours land."""
    checked = CONTRACT.check(batch({}, change, {}))
    column = next(iter(change))
    assert len(checked.rows) == 2
    assert checked.counts == {rule: 1}
    assert checked.quarantined[["_rule", "_column"]].to_numpy().tolist() == [[rule, column]]
    assert checked.quarantined["_value"].fillna("nothing").tolist() == [change[column] or "nothing"]


def test_a_row_is_reported_once():
    """A row that breaks three rules is one quarantined row, under the first of them."""
    checked = CONTRACT.check(batch({"age": "455", "sex": "X", "ill": None}))
    assert checked.counts == {"age is above 120": 1}


def test_unknown_columns_are_named_and_missing_ones_too():
    """A column more is recorded; a column less is told."""
    rows = batch({}).assign(colour="red")
    assert CONTRACT.check(rows).extra == ("colour",)
    assert CONTRACT.missing(rows.drop(columns=["age", "ill"])) == ["age", "ill"]


@pytest.mark.parametrize("number", [2**53 + 1, 10**18 - 1, -(2**53) - 1])
def test_large_whole_numbers_keep_every_digit(number):
    """A number that a float cannot hold lands as it was written, beside missing ones too."""
    assert Column(type="int").parse(pd.Series([str(number), None], dtype="string")).tolist() == [number, pd.NA]
    assert Column(type="int").parse(pd.Series([number])).tolist() == [number]


@pytest.mark.parametrize("word", ["true", "TRUE", "T", "yes", "1", True, 1], ids=repr)
def test_words_for_true(word):
    """The usual words for yes are read as yes, whatever their case or type."""
    assert Column(type="bool").parse(pd.Series([word])).tolist() == [True]


def test_times_are_utc():
    """An offset is honoured, a time without one is UTC."""
    parsed = Column(type="datetime").parse(pd.Series(["2020-01-01T00:00:00+02:00", "2020-01-01"]))
    assert parsed.tolist() == [pd.Timestamp("2019-12-31 22:00", tz="UTC"), pd.Timestamp("2020-01-01", tz="UTC")]


def test_an_exact_repeat_is_no_conflict():
    """The same row twice in a batch is no error of the contract: landing knows it already."""
    checked = CONTRACT.check(batch({"id": "7"}, {"id": "7"}, {"id": "8"}))
    assert len(checked.rows) == 3


def test_a_key_with_two_contents_lands_once():
    """The first row of a key lands; every later row with other content is quarantined, however often it is repeated."""
    checked = CONTRACT.check(
        batch({"id": "7", "age": "30"}, {"id": "7", "age": "31"}, {"id": "7", "age": "31"}, {"id": "7", "age": "30"})
    )
    assert checked.rows["age"].tolist() == [30, 30]
    assert checked.counts == {"id names a row twice in one batch": 2}


def test_an_empty_batch_stays_empty():
    """No rows in, no rows out, with the columns of the contract."""
    checked = CONTRACT.check(batch({}).iloc[:0])
    assert checked.rows.empty
    assert checked.quarantined.empty
    assert list(checked.rows.columns) == list(CONTRACT.columns)


VALUES = {
    "id": st.sampled_from(["1", "2", "3", "x", None]),
    "at": st.sampled_from(["2020-01-01", "2020-13-01", "", None]),
    "age": st.one_of(st.integers(-5, 500).map(str), st.text(max_size=3), st.none()),
    "sex": st.sampled_from(["F", "M", "X", None]),
    "level": st.one_of(st.floats(allow_nan=True).map(str), st.none()),
    "ill": st.sampled_from(["t", "f", "perhaps", None]),
}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.fixed_dictionaries(VALUES), max_size=8))
def test_no_row_is_lost(rows):
    """Whatever arrives, every row lands or is quarantined, once; what lands keeps the contract when checked again."""
    checked = CONTRACT.check(pd.DataFrame(rows, columns=list(CONTRACT.columns), dtype="string"))
    assert len(checked.rows) + len(checked.quarantined) == len(rows)
    assert sum(checked.counts.values()) == len(checked.quarantined)
    assert CONTRACT.check(checked.rows).counts == {}


def test_checking_changes_no_argument():
    """The batch that was handed in stays as it was."""
    rows = batch({}, {"age": "455"})
    before = rows.copy(deep=True)
    CONTRACT.check(rows)
    pd.testing.assert_frame_equal(rows, before)


def test_features_are_what_has_no_role():
    """Key, time and target are no features."""
    assert CONTRACT.features == ("age", "sex", "level")


def test_describe_names_every_column_with_its_role():
    """The table for people has one row a column."""
    table = CONTRACT.describe()
    assert [row["role"] for row in table] == ["key", "time", "feature", "feature", "feature", "target"]
    assert table[2]["max"] == 120


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": ("idd",)}, "Did you mean 'id'"),
        ({"target": "sick"}, "target is 'sick'"),
        ({"time": "age"}, "Columns of type datetime"),
        ({"target": "sex"}, "nullable"),
    ],
)
def test_roles_must_name_fitting_columns(change, message):
    """A role that no column can play is refused when the contract is read."""
    with pytest.raises(ValidationError, match=message):
        Contract(**(dict(CONTRACT) | change))


def test_real_times_and_numbers_are_taken_as_they_are():
    """Typed rows, as from Parquet, pass like texts."""
    rows = batch({}).assign(id=1, at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC), age=30, level=1.5, ill=True)
    assert CONTRACT.check(rows).rows.equals(CONTRACT.check(batch({"id": "1"})).rows)
