"""The contract: what is read, exactly; which row breaks which rule; and that nothing that arrives can stop the check."""

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from tasks.ml.contract import FALSE, TRUE, Checked, Column, Contract, Rule, Type

NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
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
TEXTS = pa.schema([(name, pa.string()) for name in ROW])


def batch(*changes: Mapping[str, object]) -> pa.Table:
    """Rows of text like the good one, each with its changes and an id of its own."""
    return pa.Table.from_pylist([{**ROW, "id": str(number), **change} for number, change in enumerate(changes)], TEXTS)


def reasons(checked: Checked) -> list[str]:
    """The rule that each row breaks, as a sentence; '' for a good row."""
    return [str(checked.rules[which - 1]) if which else "" for which in checked.broken]


def read(column: Column, values: list | pa.Array, kind: pa.DataType | None = None, decimal: str = ".") -> list:
    """What a column makes of values."""
    return column.check(values if isinstance(values, pa.Array) else pa.array(values, kind), decimal)[0].to_pylist()


def faults(column: Column, values: list | pa.Array, kind: pa.DataType | None = None, decimal: str = ".") -> list[str]:
    """The first rule that each value breaks, or ''."""
    array = values if isinstance(values, pa.Array) else pa.array(values, kind)
    broken = column.check(array, decimal)[1]
    assert list(broken) == [rule for rule in column.rules if rule in broken]
    return [next((rule for rule, mask in broken.items() if mask[row]), "") for row in range(len(array))]


# ── rows and rules ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_good_rows_come_out_typed():
    """Texts become the contract's types, in the contract's order of columns."""
    checked = CONTRACT.check(
        batch({}, {"sex": None, "level": None}).select(["ill", "at", "id", "age", "level", "sex"]), NOW
    )
    kinds = [pa.int64(), pa.timestamp("us", "UTC"), pa.int64(), pa.string(), pa.float64(), pa.bool_()]
    assert checked.rows.schema == CONTRACT.schema == pa.schema(zip(CONTRACT.columns, kinds, strict=True))
    assert checked.broken.tolist() == [0, 0]
    assert checked.broken.dtype == np.int32


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"age": "455"}, "age is above 120"),
        ({"age": "-1"}, "age is below 0"),
        ({"age": "12.5"}, "age is no int"),
        ({"age": "old"}, "age is no int"),
        ({"age": "1e300"}, "age is no int"),
        ({"age": "12345678901234567890"}, "age is no int"),
        ({"age": ""}, "age is no int"),
        ({"age": None}, "age is empty"),
        ({"sex": "X"}, "sex is none of the categories"),
        ({"sex": ""}, "sex is none of the categories"),
        ({"level": "high"}, "level is no float"),
        ({"level": "inf"}, "level is no float"),
        ({"level": "1000.5"}, "level is above 1000"),
        ({"at": "yesterday"}, "at is no datetime"),
        ({"at": "2020-02-30"}, "at is no datetime"),
        ({"at": None}, "at is empty"),
        ({"ill": "perhaps"}, "ill is no bool"),
        ({"ill": None}, "ill is empty"),
        ({"id": None}, "id is empty"),
    ],
)
def test_a_broken_row_is_told_with_its_reason(change, rule):
    """The row that breaks a rule is marked with column and rule; its neighbours are fine."""
    checked = CONTRACT.check(batch({}, change, {}), NOW)
    assert reasons(checked) == ["", rule, ""]
    assert checked.rules[checked.broken[1] - 1].column == next(iter(change))
    assert checked.rows.num_rows == 3


def test_a_row_is_reported_once():
    """A row that breaks three rules is told under the first of them, in the order of the contract."""
    assert reasons(CONTRACT.check(batch({"age": "455", "sex": "X", "ill": None}), NOW)) == ["age is above 120"]


def test_rules_do_not_depend_on_rows():
    """The rules are those of the contract, each once, in its order, so that chunks of a stream share their numbers."""
    checked = CONTRACT.check(batch({}), NOW)
    assert checked.rules == CONTRACT.rules == CONTRACT.check(batch({"age": "x"}), NOW).rules
    assert len(set(checked.rules)) == len(checked.rules)
    assert [rule.text for rule in checked.rules if rule.column == "age"] == [
        "is no int", "is empty", "is below 0", "is above 120",
    ]  # fmt: skip
    assert str(Rule("age", "is empty")) == "age is empty"


def test_a_value_outside_its_range_stays_readable():
    """What can be read is in the rows, broken or not; what cannot is null."""
    assert CONTRACT.check(batch({"age": "455"}, {"age": "old"}), NOW).rows["age"].to_pylist() == [455, None]


def test_unknown_columns_are_named_and_missing_ones_too():
    """A column more is recorded; a column less is told."""
    rows = batch({}).append_column("colour", pa.array(["red"]))
    assert CONTRACT.check(rows, NOW).extra == ("colour",)
    assert CONTRACT.missing(rows.drop_columns(["age", "ill"]).column_names) == ["age", "ill"]


@pytest.mark.parametrize(
    ("rows", "now", "decimal", "message"),
    [
        (batch({}).drop_columns(["age"]), NOW, ".", "not so: .'age'."),
        (batch({}).append_column("age", pa.array([1])), NOW, ".", "not so: .'age'."),
        (batch({}), NOW.replace(tzinfo=None), ".", "without a time zone"),
        (batch({}), NOW, ";", "'.' or ','"),
    ],
    ids=["missing", "twice", "naive now", "decimal"],
)
def test_a_wrong_call_says_what_is_wrong(rows, now, decimal, message):
    """A missing or doubled column, a clock without a zone, another decimal sign: the caller's mistakes are told as such."""
    with pytest.raises(ValueError, match=message):
        CONTRACT.check(rows, now, decimal)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Age", "differ in upper and lower case only"),
        ("_row", "keep for themselves"),
        ("_Batch", "keep for themselves"),
    ],
)
def test_columns_that_no_table_can_keep_are_refused(name, said):
    """A Delta table tells names apart whatever their case, and keeps some of its own."""
    with pytest.raises(ValidationError, match=said):
        Contract(columns={**CONTRACT.columns, name: Column(type="int")}, key=("id",), time="at", target="ill")


def test_an_empty_batch_stays_empty():
    """No rows in, no rows out, with the columns of the contract."""
    for rows in (batch({}).slice(0, 0), TEXTS.empty_table()):
        checked = CONTRACT.check(rows, NOW)
        assert checked.rows.num_rows == len(checked.broken) == 0
        assert checked.rows.schema == CONTRACT.schema


def test_rows_that_were_checked_pass_again():
    """What the contract typed, the contract takes, and without copying a byte."""
    first = CONTRACT.check(batch({}, {"sex": None}), NOW).rows
    again = CONTRACT.check(first, NOW)
    assert again.rows.equals(first)
    assert not again.broken.any()
    for name in CONTRACT.columns:
        before, after = (table[name].chunk(0).buffers()[-1] for table in (first, again.rows))
        assert before.address == after.address, name


def test_rows_of_pandas_pass_like_texts():
    """Typed rows, as a hook gives them, are what their texts would be."""
    frame = pd.DataFrame({"id": [0], "at": [pd.Timestamp("2020-01-01", tz="UTC")], "age": [30.0], "sex": ["F"], "level": [1.5], "ill": [True]})  # fmt: skip
    assert CONTRACT.check(pa.Table.from_pandas(frame), NOW).rows.equals(CONTRACT.check(batch({}), NOW).rows)


def test_chunks_count_as_one_column():
    """Where the pieces of a table end makes no difference to any row."""
    whole = batch({}, {"age": "455"}, {"sex": "X"}, {"at": "2020-01-01 10:00"}, {"level": None}, {"ill": "perhaps"})
    columns = [
        pa.chunked_array([whole[name].combine_chunks()[:cut], whole[name].combine_chunks()[cut:]])
        for cut, name in enumerate(whole.column_names)
    ]
    checked, cut = CONTRACT.check(whole, NOW), CONTRACT.check(pa.table(columns, whole.column_names), NOW)
    assert checked.broken.tolist() == cut.broken.tolist()
    assert checked.rows.equals(cut.rows)


def test_texts_too_long_for_one_array_are_read_in_pieces(monkeypatch):
    """A dictionary of few long texts, which unfolded would not fit into one Arrow string, is read piece by piece."""
    monkeypatch.setattr("tasks.ml.contract.PIECE", 300)
    words = pa.array(["x" * 100, "y" * 10, None])
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0, 0, None, 1, 0]), words)
    rows = pa.table({"t": coded, "id": range(8), "at": ["2020-01-01"] * 8})
    contract = Contract(columns={"t": Column(type="text", nullable=True), "id": Column(type="int"), "at": Column(type="datetime")}, key=("id",), time="at", target="id")  # fmt: skip
    checked = contract.check(rows, NOW)
    assert checked.rows["t"].num_chunks > 1
    assert checked.rows["t"].to_pylist() == coded.to_pylist()
    assert checked.rows["id"].to_pylist() == list(range(8))


# ── numbers and words ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 10**18, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("form", ["{}", " {} ", "{}.0", "{}.", "{}e0", "{}000e-3", "{}00000000000000000000e-0020"])
def test_whole_numbers_keep_every_digit(number, form):
    """Every number of 64 bits comes out as it was written, in any notation, beside an empty one too."""
    assert read(Column(type="int"), [form.format(number), None]) == [number, None]


@pytest.mark.parametrize(
    "text", [str(2**63), str(-(2**63) - 1), f"{2**63}.0", "1e19", "0x1F", "1_000", "3.5", "1e-1", "٣", "e5", ".", "-"]
)
def test_what_is_no_int_64_is_refused(text):
    """Beyond 64 bits, not whole, or written for a programming language: no int."""
    assert faults(Column(type="int"), ["7", text]) == ["", "is no int"]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([2**63 - 1, 2**63, None], pa.uint64(), [2**63 - 1, None, None]),
        ([3.0, 3.5, math.inf, math.nan, 2.0**53], pa.float64(), [3, None, None, None, None]),
        ([Decimal("3.00"), Decimal("3.50"), Decimal(2**63), Decimal(-(2**63))], pa.decimal128(38, 2), [3, None, None, -(2**63)]),
        ([True, False], pa.bool_(), [1, 0]),
        ([dt.date(2020, 1, 1)], pa.date32(), [None]),
        ([[1], None], pa.list_(pa.int64()), [None, None]),
    ],
    ids=["uint64", "float", "decimal", "bool", "date", "list"],
)  # fmt: skip
def test_typed_values_as_int(values, kind, expected):
    """Typed numbers are whole numbers where they are whole and exact, whatever their width."""
    assert read(Column(type="int"), values, kind) == expected


def test_bounds_of_whole_numbers_compare_exactly():
    """One above the largest allowed number is above it, also where float64 sees no difference."""
    column = Column(type="int", min=-(2.0**60), max=2.0**60)
    assert faults(column, [2**60, 2**60 + 1, -(2**60) - 1]) == ["", f"is above {2.0**60:g}", f"is below {-(2.0**60):g}"]
    assert faults(Column(type="int", min=0.5, max=1e30), ["0", "1"]) == ["is below 0.5", ""]
    assert faults(Column(type="int", min=1e30), ["0", None]) == ["is below 1e+30", "is empty"]
    assert faults(Column(type="bool", max=0.5), ["no", "yes"]) == ["", "is above 0.5"]


@pytest.mark.parametrize("word", ["true", "TRUE", "T", "yes", " 1", True, 1, 1.0, Decimal(1)], ids=repr)
def test_words_for_true(word):
    """The usual words for yes are read as yes, whatever their case or type."""
    assert read(Column(type="bool"), [word]) == [True]
    assert read(Column(type="bool"), pa.array([word]).dictionary_encode()) == [True]


@pytest.mark.parametrize("word", ["2", 2, 0.5, "y e s", dt.date(2020, 1, 1)], ids=repr)
def test_what_is_neither_yes_nor_no(word):
    """Other words and numbers are no bool."""
    assert faults(Column(type="bool"), [word]) == ["is no bool"]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, -20, None], pa.int8(), ["1", "-20", None]),
        ([1.0, 0.1, 1e15, 1e20, math.nan, math.inf], pa.float64(), ["1.0", "0.1", "1000000000000000.0", "1e+20", None, "inf"]),
        ([True, None, False], pa.bool_(), ["True", None, "False"]),
        ([Decimal("1.50")], pa.decimal128(9, 2), ["1.50"]),
        ([dt.date(2020, 1, 31)], pa.date32(), ["2020-01-31"]),
        ([b"Zo\xc3\xab", b"Zo\xeb"], pa.binary(), ["Zoë", None]),
        ([{"a": 1}, None], pa.struct([("a", pa.int64())]), [None, None]),
    ],
    ids=["int", "float", "bool", "decimal", "date", "binary", "struct"],
)  # fmt: skip
def test_typed_values_as_text(values, kind, expected):
    """A typed value in a text column is its text, as pandas writes it."""
    assert read(Column(type="text"), values, kind) == expected


# ── faults of faults.md ─────────────────────────────────────────────────────────────────────────────────────────────


def strings(*texts: bytes) -> pa.Array:
    """An Arrow string array over these bytes, as a careless writer leaves it in a Parquet file."""
    return pa.array(texts, pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    "broken",
    [
        b"a\0b",
        "Zo\ufffd".encode(),
        "Zoë".encode("latin-1"),
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ],
    ids=["NUL", "U+FFFD", "latin-1", "surrogate", "overlong", "beyond Unicode", "cut"],
)
@pytest.mark.parametrize("neighbour", ["plain", "Zoë", "中文，\uff0c", "🦆\n\"'"])
def test_i_12_broken_characters_reach_no_category(broken, neighbour):
    """A text with a NUL, with what a wrong encoding left, or that is no UTF-8 is refused; true Unicode is not."""
    column = Column(type="category")
    values = strings(b"before", broken, neighbour.encode())
    assert faults(column, values) == ["", "holds a NUL or a broken character", ""]
    assert read(column, values) == ["before", None, neighbour]
    assert read(column, values.cast(pa.large_string())[1:]) == [None, neighbour]
    for kind in ("int", "float", "bool", "datetime"):
        assert faults(Column(type=kind), values) == [f"is no {kind}"] * 3


def test_i_12_a_decimal_comma_is_read_where_the_batch_has_it():
    """With a decimal comma '1,5' is one and a half and '1.5' no number; without, the other way round; typed ones are as they are."""
    column = Column(type="float")
    texts = ["1,5", "1.5", "1.000,5", "2", "-,5e1", None]
    assert read(column, texts, decimal=",") == [1.5, None, None, 2.0, -5.0, None]
    assert read(column, texts) == [None, 1.5, None, 2.0, None, None]
    assert faults(column, texts, decimal=",")[1] == "is no float"
    assert read(Column(type="int"), ["3,0", "3.0", "3"], decimal=",") == [3, None, 3]
    assert read(column, [1.5, 2.0], decimal=",") == [1.5, 2.0]


@pytest.mark.parametrize("kind", ["int", "float", "bool"])
@pytest.mark.parametrize("word", ["NaN", "nan", "inf", "-Infinity", "NA", "None", "null", "1e999", "", " "])
def test_i_14_a_target_that_is_no_number_is_refused(kind, word):
    """Words that pandas takes for a missing or infinite number are no value of a target."""
    contract = CONTRACT.model_copy(update={"columns": CONTRACT.columns | {"ill": Column(type=kind)}})
    checked = contract.check(batch({"ill": "1"}, {"ill": word}, {"ill": "0"}), NOW)
    assert reasons(checked) == ["", f"ill is no {kind}", ""]
    assert checked.rows["ill"].to_pylist() == [1, None, 0]


def test_i_14_a_typed_target_that_is_no_number_is_refused():
    """A typed NaN is an empty target, a typed infinity none at all."""
    contract = CONTRACT.model_copy(update={"columns": CONTRACT.columns | {"ill": Column(type="float")}})
    rows = batch({}, {}, {}, {}).set_column(5, "ill", pa.array([1.5, math.nan, -math.inf, None]))
    assert reasons(contract.check(rows, NOW)) == ["", "ill is empty", "ill is no float", "ill is empty"]


def test_i_17_an_unseen_category_is_told_where_they_are_listed():
    """A text outside the list breaks the contract; without a list any text is a category; no list takes in the empty."""
    listed, free = Column(type="category", nullable=True, categories=("a", "b")), Column(type="category", nullable=True)
    values = ["a", "c", None, "b", "A", "a "]
    wrong = "is none of the categories"
    assert faults(listed, values) == ["", wrong, "", "", wrong, wrong]
    assert faults(listed, pa.array(values).dictionary_encode()) == ["", wrong, "", "", wrong, wrong]
    assert faults(free, values) == [""] * 6
    assert read(listed, values) == values


@pytest.mark.parametrize(
    ("ahead", "rule"),
    [
        (dt.timedelta(hours=-1), ""),
        (dt.timedelta(hours=1), ""),
        (dt.timedelta(hours=24), ""),
        (dt.timedelta(hours=24, microseconds=1), "at is more than 24 h in the future"),
        (dt.timedelta(days=9000), "at is more than 24 h in the future"),
    ],
)
def test_i_20_a_sender_may_be_an_hour_off_but_not_a_day(ahead, rule):
    """Clocks an hour apart are no fault; a row from more than a day ahead is."""
    assert reasons(CONTRACT.check(batch({"at": (NOW + ahead).isoformat()}), NOW)) == [rule]


def test_i_20_how_far_ahead_is_the_projects_to_say():
    """A project with planned times allows more, in its words."""
    contract = CONTRACT.model_copy(update={"ahead": 1.5})
    later = [{"at": (NOW + dt.timedelta(minutes=minutes)).isoformat()} for minutes in (90, 91)]
    assert reasons(contract.check(batch(*later), NOW)) == ["", "at is more than 1.5 h in the future"]
    assert reasons(CONTRACT.check(batch(*later), NOW.astimezone(ZoneInfo("Asia/Tokyo")))) == ["", ""]


def test_i_20_the_start_of_1970_is_a_time_that_nobody_set():
    """Times within a day of zero are refused, unless the project says that 1970 is real."""
    times = [
        "1970-01-01T00:00:00Z",
        "1970-01-01T23:59:59.999999Z",
        "1969-12-31T00:00:00.000001Z",
        "1970-01-02",
        "1969-12-31",
    ]
    rows = batch(*({"at": time} for time in times))
    assert reasons(CONTRACT.check(rows, NOW)) == ["at is the start of 1970: a missing time"] * 3 + [""] * 2
    assert reasons(CONTRACT.model_copy(update={"epoch_is_real": True}).check(rows, NOW)) == [""] * 5


ZONES = {  # zone: the first moment of its 25-hour day, of its 23-hour day, with the local hour that came twice or never
    "Europe/Berlin": (dt.datetime.fromisoformat("2024-10-27 02:30"), dt.datetime.fromisoformat("2024-03-31 02:30")),
    "America/Los_Angeles": (
        dt.datetime.fromisoformat("2024-11-03 01:30"),
        dt.datetime.fromisoformat("2024-03-10 02:30"),
    ),
}


@pytest.mark.parametrize("zone", ZONES)
def test_i_21_a_25_hour_day_has_25_hours(zone):
    """Hours written with their offset are 25 different moments, in text, in pandas and in Arrow."""
    double = ZONES[zone][0]
    midnight = double.replace(hour=0, minute=0, tzinfo=ZoneInfo(zone)).astimezone(dt.UTC)
    hours = [midnight + dt.timedelta(hours=hour) for hour in range(25)]
    local = [hour.astimezone(ZoneInfo(zone)) for hour in hours]
    assert {hour.date() for hour in local} == {double.date()}
    assert len({hour.replace(tzinfo=None) for hour in local}) == 24
    column = Column(type="datetime")
    forms = [
        pa.array([hour.isoformat() for hour in local]),
        pa.array([hour.strftime("%Y-%m-%d %H:%M%z") for hour in local]),
        pa.array(local, pa.timestamp("ns", zone)),
        pa.Array.from_pandas(pd.Series(local)),
    ]
    for form in forms:
        assert faults(column, form) == [""] * 25
        assert read(column, form) == hours


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("typed", [False, True])
def test_i_21_local_times_in_the_double_and_the_missing_hour(zone, typed):
    """A local time that came twice or never is refused; a project may say which of two it means, but not invent one."""
    double, missing = ZONES[zone]
    values = [double, missing, double - dt.timedelta(hours=2)]
    raw = pa.array(values, pa.timestamp("s")) if typed else pa.array([str(value) for value in values])
    before = values[2].replace(tzinfo=ZoneInfo(zone)).astimezone(dt.UTC)
    skipped = "does not exist: the clocks were set forward"
    assert faults(Column(type="datetime", timezone=zone), raw) == [
        "is ambiguous: the clocks were set back",
        skipped,
        "",
    ]
    assert read(Column(type="datetime", timezone=zone), raw) == [None, None, before]
    for which, fold in (("earliest", 0), ("latest", 1)):
        column = Column(type="datetime", timezone=zone, ambiguous=which)
        expected = double.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(dt.UTC)
        assert faults(column, raw) == ["", skipped, ""]
        assert read(column, raw) == [expected, None, before]


def test_i_21_a_time_without_a_zone_is_refused_where_none_is_declared():
    """A naive stamp could be any hour, so it is refused; one with an offset is not; a date is a day, and needs no zone."""
    values = [
        "2024-05-01 10:00",
        "2024-05-01T10:00+02:00",
        "2024-05-01",
        "2024-05-01 10:00Z",
        None,
        "2024-05-01T00:00:00",
    ]
    unknown = "has no time zone"
    assert faults(Column(type="datetime", nullable=True), values) == [unknown, "", "", "", "", unknown]
    hour = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
    assert read(Column(type="datetime"), values) == [
        None, hour.replace(hour=8), hour, hour.replace(hour=10), None, None,
    ]  # fmt: skip
    assert faults(Column(type="datetime"), [dt.datetime.fromisoformat("2024-05-01")], pa.timestamp("ns")) == [unknown]
    assert faults(Column(type="datetime"), [dt.date(2024, 5, 1)], pa.date64()) == [""]


def test_i_21_a_date_is_the_start_of_the_day_where_it_was_taken():
    """A date begins at local midnight; where the clocks skip midnight it begins after it, where they repeat it, with the first."""
    berlin = Column(type="datetime", timezone="Europe/Berlin")
    for raw in (pa.array(["2024-05-01"]), pa.array([dt.date(2024, 5, 1)]), pa.array([" 2024-05-01", "x"])[:1]):
        assert read(berlin, raw) == [dt.datetime(2024, 4, 30, 22, tzinfo=dt.UTC)]
    skips = Column(type="datetime", timezone="America/Sao_Paulo")  # 4 November 2018 began at 01:00
    assert read(skips, ["2018-11-04"]) == [dt.datetime(2018, 11, 4, 3, tzinfo=dt.UTC)]
    repeats = Column(type="datetime", timezone="America/Havana")  # 3 November 2024: 00:00 to 01:00 came twice
    for column in (repeats, repeats.model_copy(update={"ambiguous": "latest"})):
        assert read(column, ["2024-11-03"]) == [dt.datetime(2024, 11, 3, 4, tzinfo=dt.UTC)]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.datetimes(*map(dt.datetime.fromisoformat, ("1971-01-01", "2037-01-01"))), max_size=20),
    st.sampled_from([*ZONES, "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo", "UTC"]),
    st.sampled_from(["refuse", "earliest", "latest"]),
)
def test_i_21_local_times_agree_with_zoneinfo(stamps, zone, twice):
    """Arrow's reading of local times is that of Python's own time zones."""

    def expected(stamp):
        early, late = (stamp.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(dt.UTC) for fold in (0, 1))
        exists = early.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == stamp
        return None if not exists or (early != late and twice == "refuse") else late if twice == "latest" else early

    column = Column(type="datetime", timezone=zone, ambiguous=twice)
    assert read(column, [str(stamp) for stamp in stamps], pa.string()) == [expected(stamp) for stamp in stamps]


# ── everything: whatever comes is read as Python would read it, or is null with a reason ────────────────────────────

NUMBER = re.compile(r"[ \t\n\r\f\v]*([+-]?(?:[0-9]+(?:[.][0-9]*)?|[.][0-9]+)(?:[eE][+-]?[0-9]+)?)[ \t\n\r\f\v]*")
STAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:[.][0-9]{1,9})?)?)?)(Z|[+-][0-9]{2}(?::?[0-5][0-9])?)?)?")  # fmt: skip


def as_text(value):
    """The text of a scalar, or None."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, str):
        return None if "\0" in value or "\ufffd" in value else value
    return str(value) if isinstance(value, bool | int | float) else None


def as_float(value):
    """The nearest float64 to a scalar, or None."""
    if isinstance(value, str | bytes):
        found = NUMBER.fullmatch(as_text(value) or "")
        value = float(found[1]) if found else math.nan
    if not isinstance(value, bool | int | float | Decimal):
        return None
    return float(value) if math.isfinite(float(value)) else None


def as_int(value):
    """A scalar as a whole number of 64 bits, or None."""
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() and abs(value) < 2**53 else None
    if isinstance(value, str | bytes):
        found = NUMBER.fullmatch(as_text(value) or "")
        value = Decimal(found[1]) if found else None
    if not isinstance(value, bool | int | Decimal) or not -(2**63) <= value < 2**63:
        return None
    return int(value) if value == int(value) else None


def as_bool(value):
    """A scalar as yes or no, or None."""
    if isinstance(value, str | bytes):
        word = (as_text(value) or "").strip(" \t\n\r\f\v").lower()
        return True if word in TRUE else False if word in FALSE else None
    return {0: False, 1: True}.get(value) if isinstance(value, bool | int | float | Decimal) else None


def as_datetime(value):
    """A scalar as a moment in UTC, or None: without a declared zone only dates do without an offset."""
    if isinstance(value, str | bytes):
        found = STAMP.fullmatch((as_text(value) or "").strip(" \t\n\r\f\v"))
        if not found or (found[2] and not found[3]):
            return None
        clock = (found[2] or "00") + ("" if ":" in (found[2] or "") else ":00")
        try:
            value = dt.datetime.fromisoformat(f"{found[1]}T{clock}{found[3] or 'Z'}")
        except ValueError:
            return None
    if isinstance(value, dt.datetime):
        try:
            return value.astimezone(dt.UTC) if value.tzinfo else None
        except OverflowError:
            return None
    return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC) if isinstance(value, dt.date) else None


READERS: dict[Type, Callable[[Any], Any]] = {
    "int": as_int,
    "float": as_float,
    "bool": as_bool,
    "text": as_text,
    "category": as_text,
    "datetime": as_datetime,
}
WORDS = [
    "0", "1", "-0", "+7", " 7 ", "7.", ".5", "-.5e-3", "1e18", "1e19", "123e-2", "1200e-2", "0e999999999999", "0.000e-5", "1e-400", "1e999",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "9007199254740993", "00012", "0x1F",
    "nan", "NaN", "inf", "NA", "None", "", " ", "1,5", "1_0", "true", "F", "Yes", "T ", "nO",
    "2020-02-29", "2019-02-29", "1900-02-29", "2000-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "2020-01-01T10", "2020-01-01T10Z", "2020-01-01 10:30",
    "2020-01-01T10:30:05.123456789Z", "2020-01-01T10:30:05.999999999-08:00", "2020-01-01 10:30+0530", "2020-01-01T10:30-05", "2020-01-01T24:00Z",
    "2020-01-01T10:30:60Z", "2020-01-01T10:30+24:00", "0001-01-01T00:30+01:00", "9999-12-31T23:30-01:00", "2020-01-01Z", "20200101", "2020-1-1",
    "a\0b", "Zo\ufffd", "Zoë", "中", "\ufeff1", "\u00a07",
]  # fmt: skip
NUMBERLIKE = st.from_regex(r"\A[ ]?[+-]?[0-9]{0,21}[.]?[0-9]{0,4}([eE][+-]?[0-9]{1,3})?[ ]?\Z")
TIMELIKE = st.from_regex(
    r"\A[ ]?(19|20|00)[0-9]{2}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9](:[0-6][0-9]){0,2}(\.[0-9]{1,10})?(Z|[+-][0-2][0-9]:?[0-6][0-9])?)?\Z"
)
TEXT = st.one_of(st.sampled_from(WORDS), NUMBERLIKE, TIMELIKE, st.text(max_size=4), st.none())
INT64 = st.integers(-(2**63), 2**63 - 1)


def arrays(values, kind):
    """Arrow arrays of that type, some of them slices."""
    lists = st.lists(values | st.none(), max_size=8).map(lambda given: pa.array(given, kind))
    return lists | lists.map(lambda array: array.slice(1))


def ticks(kind, bits=63):
    """Arrow arrays of a temporal type, of any number of ticks."""
    whole = st.integers(-(2**bits), 2**bits - 1) | st.integers(-(10**9), 10**9)
    return arrays(whole, pa.int64() if bits == 63 else pa.int32()).map(lambda array: array.view(kind))


PLAIN = {
    "string": arrays(TEXT, pa.string()),
    "large string": arrays(TEXT, pa.large_string()),
    "string view": arrays(TEXT, pa.string_view()),
    "dictionary": arrays(TEXT, pa.string()).map(lambda array: array.dictionary_encode()),
    "run ends": arrays(TEXT, pa.string()).map(lambda array: pc.call_function("run_end_encode", [array])),
    "binary": arrays(st.binary(max_size=4) | TEXT.map(lambda text: None if text is None else text.encode()), pa.binary()),
    "binary view": arrays(st.binary(max_size=4), pa.binary_view()),
    "no UTF-8": arrays(st.binary(max_size=4), pa.binary()).map(lambda array: array.view(pa.string())),
    "fixed binary": arrays(st.binary(min_size=2, max_size=2), pa.binary(2)),
    "bool": arrays(st.booleans(), pa.bool_()),
    "int8": arrays(st.integers(-128, 127), pa.int8()),
    "int64": arrays(INT64 | st.integers(-2, 2), pa.int64()),
    "uint64": arrays(st.integers(0, 2**64 - 1) | st.integers(0, 2), pa.uint64()),
    "float64": arrays(st.floats() | st.integers(-3, 3).map(float), pa.float64()),
    "decimal128": arrays(st.decimals(-(10**20), 10**20, places=2) | st.integers(-1, 1).map(Decimal), pa.decimal128(30, 2)),
    "decimal256": arrays(st.decimals(-1, 1, places=40, allow_nan=False), pa.decimal256(70, 40)),
    "bool8": arrays(st.integers(-1, 2), pa.int8()).map(lambda array: pa.ExtensionArray.from_storage(pa.bool8(), array)),
    "date32": arrays(st.dates(), pa.date32()),
    "timestamp": arrays(st.datetimes(timezones=st.just(dt.UTC)), pa.timestamp("us", "UTC")),
    "naive": arrays(st.datetimes(), pa.timestamp("us")),
}  # fmt: skip
STRANGE = {
    "null": st.integers(0, 3).map(pa.nulls),
    "half": arrays(st.floats(width=16), pa.float16()),
    "date32": ticks(pa.date32(), 31),
    "date64": ticks(pa.date64()),
    **{f"timestamp[{unit}]": ticks(pa.timestamp(unit, zone)) for unit, zone in (("s", None), ("ms", "UTC"), ("us", "Mars/Olympus"), ("ns", "UTC"), ("ns", None))},
    "time64": ticks(pa.time64("us")),
    "duration": ticks(pa.duration("s")),
    "interval": st.just(pa.array([(1, 2, 3), None], pa.month_day_nano_interval())),
    "list": arrays(st.lists(TEXT, max_size=2), pa.list_(pa.string())),
    "fixed list": arrays(st.lists(INT64, min_size=2, max_size=2), pa.list_(pa.int64(), 2)),
    "list view": arrays(st.lists(TEXT, max_size=2), pa.list_view(pa.string())),
    "map": arrays(st.dictionaries(st.text(max_size=2), INT64, max_size=2).map(lambda pairs: list(pairs.items())), pa.map_(pa.string(), pa.int64())),
    "struct": arrays(st.fixed_dictionaries({"a": TEXT}), pa.struct([("a", pa.string())])),
    "union": st.just(pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, None]), pa.array(["a", "7"])])),
    "dictionary of lists": st.just(pa.DictionaryArray.from_arrays(pa.array([0, None, 0]), pa.array([["a"]]))),
    "dictionary with a null": st.just(pa.DictionaryArray.from_arrays(pa.array([0, None, 1, 2]), pa.array(["7", None, "a\0"]))),
    "dictionary of floats": st.just(pa.DictionaryArray.from_arrays(pa.array([0, None, 1]), pa.array([7.0, math.nan]))),
}  # fmt: skip


def test_times_are_cut_to_microseconds_and_to_the_years_that_python_shows():
    """What is finer than a microsecond is cut off towards the past; a moment outside of the years 1 to 9999 is refused."""
    column = Column(type="datetime")
    second = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    tick = dt.timedelta(microseconds=1)
    nanoseconds = pa.array([-1, 999, -1001, None], pa.int64()).view(pa.timestamp("ns", "UTC"))
    assert read(column, nanoseconds) == [second - tick, second, second - 2 * tick, None]
    last = dt.datetime.max.replace(tzinfo=dt.UTC)
    for texts in (
        ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:30+01:00"],
        ["9999-12-31T23:59:59.9999999Z", "9999-12-31T23:30-01:00"],
    ):
        assert read(column, texts) == [last, None]
        assert faults(column, texts) == ["", "is no datetime"]
    assert read(column, pa.array([last, None], pa.timestamp("us", "UTC"))) == [last, None]


def test_a_decimal_next_to_one_is_not_one():
    """A decimal is yes when it is exactly one, not when its nearest float64 is."""
    near = Decimal("0." + "9" * 30)
    assert read(Column(type="bool"), [Decimal(1), near, Decimal(0)], pa.decimal128(38, 30)) == [True, None, False]


def test_a_part_of_run_ends_is_that_part():
    """A slice of a run-end-encoded column holds the values of the slice."""
    runs = pa.RunEndEncodedArray.from_arrays([2, 5, 6], ["a", None, "b"])
    assert read(Column(type="text"), runs.slice(1, 5)) == ["a", None, None, None, "b"]
    assert read(Column(type="text"), runs.slice(4)) == [None, "b"]


def is_given(value) -> bool:
    """Something is there: NaN is not."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def told_right(kind: Type, raw: pa.Array, given: list, expected: list) -> None:
    """Each value is the expected one; a missing one is told as empty where nothing was given, else with another rule."""
    column = Column(type=kind)
    assert read(column, raw) == expected
    told = faults(column, raw)
    assert [text == "is empty" for text in told] == [not is_given(value) for value in given]
    unread = [is_given(value) and wanted is None for value, wanted in zip(given, expected, strict=True)]
    assert [text not in {"", "is empty"} for text in told] == unread


@pytest.mark.parametrize("kind", READERS)
def test_known_words_are_what_python_reads(kind):
    """Numbers at the edges of their types, words for nothing, times of every shape, one beside the other."""
    told_right(kind, pa.array(WORDS), WORDS, [READERS[kind](word) for word in WORDS])


@pytest.mark.parametrize("form", PLAIN)
def test_every_value_is_what_python_reads(form):
    """Each value is exactly what a scalar reading of its own gives, else null, and then its absence is told."""

    @settings(deadline=None, max_examples=20)
    @given(PLAIN[form])
    def holds(raw):
        shown = {"no UTF-8": lambda: raw.view(pa.binary()), "bool8": lambda: raw.storage}.get(form, lambda: raw)()
        given = shown.to_pylist()
        for kind, reader in READERS.items():
            if reader is as_text and form in {"decimal128", "decimal256", "date32", "timestamp", "naive"}:
                expected = raw.cast(pa.string()).to_pylist()
            else:
                expected = [reader(value) if is_given(value) else None for value in given]
            told_right(kind, raw, given, expected)

    holds()


@pytest.mark.parametrize("form", STRANGE)
def test_nothing_that_arrives_stops_the_check(form):
    """Whatever type a column has, n rows go in and n rows come out, each with a value, or a reason, or rightly empty."""

    @settings(deadline=None, max_examples=15)
    @given(STRANGE[form])
    def holds(raw):
        for kind in READERS:
            column = Column(type=kind, timezone="Europe/Berlin" if kind == "datetime" else None)
            values, broken = column.check(raw)
            assert values.type == Contract(columns={"a": column, "t": Column(type="datetime")}, key=("a",), time="t", target="a").schema.field("a").type  # fmt: skip
            values.validate(full=True)
            told = np.any([np.zeros(len(raw), bool), *broken.values()], axis=0)
            assert told.tolist() == values.is_null().to_pylist()

    holds()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(TEXT, max_size=6),
    st.sampled_from(list(READERS)),
    st.sampled_from([".", ","]),
    st.sampled_from([None, "Europe/Berlin"]),
)
def test_a_row_does_not_depend_on_its_neighbours(texts, kind, decimal, zone):
    """A value is read alike alone and among others, so that a stream may be cut anywhere."""
    column = Column(type=kind, timezone=zone if kind == "datetime" else None)
    assert read(column, texts, pa.string(), decimal) == [
        read(column, [text], pa.string(), decimal)[0] for text in texts
    ]
    assert faults(column, texts, pa.string(), decimal) == [
        faults(column, [text], pa.string(), decimal)[0] for text in texts
    ]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_row_is_lost(data):
    """Any table: as many rows as came, each with one verdict; the good ones, checked again, are good and unchanged."""
    size = data.draw(st.integers(0, 5))
    forms = st.sampled_from([pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
    columns = {
        name: pa.array(data.draw(st.lists(st.just(good) | TEXT, min_size=size, max_size=size)))
        .cast(pa.string())
        .cast(data.draw(forms))
        for name, good in ROW.items()
    }
    checked = CONTRACT.check(pa.table(columns), NOW)
    assert checked.rows.num_rows == len(checked.broken) == size
    good = checked.rows.filter(pa.array(checked.broken == 0))
    again = CONTRACT.check(good, NOW)
    assert not again.broken.any()
    assert again.rows.equals(good)


# ── the contract itself ─────────────────────────────────────────────────────────────────────────────────────────────


def test_features_are_what_has_no_role():
    """Key, time and target are no features."""
    assert CONTRACT.features == ("age", "sex", "level")


def test_describe_names_every_column_with_its_role():
    """The table for people has one row a column, and speaks of time zones where there are times."""
    table = CONTRACT.describe()
    assert [row["role"] for row in table] == ["key", "time", "feature", "feature", "feature", "target"]
    assert table[2]["max"] == 120
    assert [row["column"] for row in table if "ambiguous" in row] == ["at"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": ("idd",)}, "Did you mean 'id'"),
        ({"target": "sick"}, "target is 'sick'"),
        ({"time": "age"}, "Columns of type datetime"),
        ({"key": ("sex",)}, "nullable"),
    ],
)
def test_roles_must_name_fitting_columns(change, message):
    """A role that no column can play is refused when the contract is read."""
    with pytest.raises(ValidationError, match=message):
        Contract(**(dict(CONTRACT) | change))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"type": "text", "min": 1}, "min and max are for numbers"),
        ({"type": "float", "categories": ("a",)}, "categories are for texts"),
        ({"type": "int", "timezone": "UTC"}, "timezone and ambiguous are for datetimes"),
        ({"type": "int", "ambiguous": "latest"}, "timezone and ambiguous are for datetimes"),
        ({"type": "datetime", "timezone": "Europe/Berln"}, "Did you mean 'Europe/Berlin'"),
        ({"type": "float", "max": math.nan}, "finite"),
    ],
)
def test_a_column_takes_only_what_fits_its_type(column, message):
    """Bounds, categories and zones where they mean something; a zone that exists."""
    with pytest.raises(ValidationError, match=message):
        Column(**column)
