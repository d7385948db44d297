"""Inferring: what a sample of rows says about its contract, and what it cannot say."""

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.errors import KeepfitError
from tasks.ml.infer import infer, widened
from tasks.ml.question import question
from tasks.ml.seen import Seen, look

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ROWS = 400


def table(**columns) -> pa.Table:
    """A sample with a key, a time and a target, and whatever else is given; a column of None is taken away."""
    n = ROWS
    usual = {
        "order_id": [f"A{i:05d}" for i in range(n)],
        "at": [f"2024-{1 + i // 28 % 12:02d}-{1 + i % 28:02d}T{i // 336:02d}:00:00Z" for i in range(n)],
        "amount": [f"{1 + (i * 37 % 101) / 4:.2f}" for i in range(n)],
        "late": ["yes" if i % 5 == 0 else "no" for i in range(n)],
    }
    return pa.table({name: values for name, values in {**usual, **columns}.items() if values is not None})


def drafted(target="late", **columns):
    options = {name: columns.pop(f"_{name}") for name in ("time", "key", "decimal", "kind") if f"_{name}" in columns}
    return infer(table(**columns), target, now=NOW, **options)


def refused(target="late", **columns) -> str:
    with pytest.raises(KeepfitError) as error:
        drafted(target, **columns)
    return str(error.value)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "22", "-3"], "int"),
        (["1", "2.5", None], "float"),
        (["1e3", "-.5", "7"], "float"),
        ([*map(str, range(200)), "7.5"], "float"),
        (["true", "False", "t"], "bool"),
        (["Yes", "no", None], "bool"),
        (["2024-01-31", "2024-02-29", "2024-03-01"], "datetime"),
        (["2024-01-31T10:00:00+02:00", "2024-02-29 11:00"], "datetime"),
        (["31.12.2023", "01.02.2024"], "datetime"),
        (["12/31/2023 14:05", "02/01/2024 09:30"], "datetime"),
        (["04109", "10115", "01067"], "category"),
        (["red", "green", "red"], "category"),
        (["12345678901234567890123", "1"], "float"),
        (["2024-13-45", "2024-01-01"], "category"),
    ],
)
def test_the_narrowest_type_that_reads_all_values_is_taken(texts, kind):
    """Texts are numbers, truth values or times only where every one of them is; a leading zero makes a code."""
    seen = look("column", pa.chunked_array([texts]))
    assert isinstance(seen, Seen)
    assert seen.type == kind


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (pa.int8(), [1, 2], "int"), (pa.uint64(), [1, 2], "int"), (pa.float32(), [1.0, 2.0], "float"), (pa.bool_(), [True, False], "bool"),
        (pa.timestamp("ns"), [1, 2], "datetime"), (pa.date32(), [1, 2], "datetime"), (pa.decimal128(5, 2), [1, 2], "float"),
    ],
)  # fmt: skip
def test_typed_columns_keep_their_type(kind, values, expected):
    """What Parquet says about a column is believed."""
    seen = look("column", pa.chunked_array([pa.array(values, kind)]))
    assert isinstance(seen, Seen)
    assert seen.type == expected


def test_a_decimal_comma_is_read():
    """Numbers with a comma are floats where the file is said to have commas, and texts where it is not."""
    prices = pa.chunked_array([["1,50", "2,25"]])
    assert getattr(look("price", prices, ","), "type", None) == "float"
    assert getattr(look("price", prices, "."), "type", None) == "category"


def test_a_few_values_that_are_no_number_do_not_make_a_text():
    """One odd value in 400 goes to quarantine, and the remark shows it; one in ten makes the column a text."""
    odd = [str(i) for i in range(ROWS - 1)] + ["unknown"]
    draft = drafted(age=odd)
    assert draft.contract.columns["age"].type == "int"
    assert "'unknown'" in draft.remarks["age"]
    assert draft.broken == 1
    many = ["?" if i % 10 == 0 else str(i % 30) for i in range(ROWS)]
    assert drafted(age=many).contract.columns["age"].type == "category"


@given(st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=60), st.booleans())
def test_a_range_is_wider_than_what_was_seen(values, whole):
    """No value of the sample lies outside, none lies on a bound but on zero, and signs stay what they were."""
    numbers = np.array([round(value) for value in values] if whole else values, dtype=float)
    low, high = widened(numbers, whole=whole)
    if low is not None:
        assert low < numbers.min() or low == 0
        assert (low >= 0) == (numbers.min() >= 0)
    if high is not None:
        assert high > numbers.max() or high == 0
        assert (high <= 0) == (numbers.max() <= 0)


def test_a_long_tail_has_no_bound():
    """A lognormal income has no largest value to allow; a uniform age has one about as far away as it is wide."""
    rng = np.random.default_rng(7)
    assert widened(rng.lognormal(10, 1.5, 5000)) == (0.0, None)
    low, high = widened(rng.uniform(18, 90, 5000))
    assert low == 0
    assert high is not None
    assert 90 + 60 <= high <= 90 + 90


def test_categories_close_only_when_they_are_few_and_settled():
    """Three colours all through the file are a list; one that comes up only at the end, or 40 towns, are not."""
    colours = [("red", "green", "blue")[i % 3] for i in range(ROWS)]
    late = ["new" if i == ROWS - 1 else colour for i, colour in enumerate(colours)]
    towns = [f"town {i % 40}" for i in range(ROWS)]
    draft = drafted(colour=colours, late_colour=late, town=towns)
    assert draft.contract.columns["colour"].categories == ("blue", "green", "red")
    assert draft.contract.columns["late_colour"].categories is None
    assert draft.contract.columns["town"].categories is None


def test_i_26_personal_data_is_left_out():
    """E-mail, telephone, card, account and identity numbers, names and addresses of people never enter the contract."""
    rng = np.random.default_rng(1)
    private = {
        "contact": [f"user{i}@example.org" for i in range(ROWS)],
        "reached_at": [f"+49 30 {i:07d}" for i in range(ROWS)],
        "paid_with": [_card(i) for i in range(ROWS)],
        "iban": ["GB82 WEST 1234 5698 7654 32"] * ROWS,
        "ssn": [f"{100 + i:03d}-{10 + i % 80:02d}-{1000 + i}" for i in range(ROWS)],
        "firstName": [f"Name{i % 90}" for i in range(ROWS)],
        "home_address": [f"{i} High Street" for i in range(ROWS)],
        "client_ip": [f"10.0.{i // 250}.{i % 250}" for i in range(ROWS)],
        "remark": [f"please write to user{i}@example.org" for i in range(ROWS)],
    }
    kept = {
        "phone_service": [("yes", "no")[i % 2] for i in range(ROWS)],
        "score": [str(4_000_000_000_000_000 + int(i)) for i in rng.integers(0, 10**14, ROWS)],
        "mail_order": [("often", "rarely", "never")[i % 3] for i in range(ROWS)],
    }
    draft = drafted(**private, **kept)
    assert {name for name, reason in draft.left_out.items() if "personal data" in reason} == set(private)
    assert set(kept) <= set(draft.contract.columns)
    assert "e-mail" in draft.left_out["contact"]
    assert "card" in draft.left_out["paid_with"]


def _card(number: int) -> str:
    """A 16-digit number with its check digit, by the textbook: double every second digit from the right."""
    body = f"4{number:014d}"
    total = sum(
        sum(divmod(int(digit) * (2 if place % 2 == 0 else 1), 10)) for place, digit in enumerate(reversed(body))
    )
    return body + str(-total % 10)


def test_i_26_personal_data_names_no_row():
    """A unique e-mail address is not taken as key, and refused as one."""
    mails = [f"user{i}@example.org" for i in range(ROWS)]
    assert drafted(order_id=None, email=mails).contract.key == ("row_key",)
    assert "e-mail addresses: personal data is not stored" in refused(email=mails, _key=("email",))


def test_what_teaches_nothing_is_left_out_with_the_reason():
    """Constant, empty, numbering, free and nested columns, second names, further times, copies of the target."""
    draft = drafted(
        country=["DE"] * ROWS,
        nothing=pa.nulls(ROWS, pa.string()),
        index=list(range(ROWS)),
        story=[f"once there was {i}" for i in range(ROWS)],
        tags=[[1, 2]] * ROWS,
        invoice_no=[f"R{i}" for i in range(ROWS)],
        born=[f"19{50 + i % 50}-01-01" for i in range(ROWS)],
        was_late=["1" if i % 5 == 0 else "0" for i in range(ROWS)],
        _internal=["x"] * ROWS,
    )
    assert draft.contract.features == ("amount",)
    words = {
        "country": "always 'DE'", "nothing": "empty", "index": "numbers the lines", "story": "different texts", "tags": "nested",
        "invoice_no": "names rows", "born": "a time", "was_late": "a leak", "_internal": "keepfit's own",
    }  # fmt: skip
    assert {name: word for name, word in words.items() if word not in draft.left_out[name]} == {}


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ({}, ("order_id",)),
        ({"order_id": None}, ("row_key",)),
        ({"order_id": None, "number": [str(i) for i in range(ROWS)]}, ("number",)),
        ({"order_id": None, "customer_id": [f"c{i // 2}" for i in range(ROWS)], "visit": [str(i % 2) for i in range(ROWS)]},
         ("customer_id", "visit")),
        ({"order_id": None, "store": [f"s{i % 4}" for i in range(ROWS)], "at": [f"2024-{1 + i // 4 // 28:02d}-{1 + i // 4 % 28:02d}" for i in range(ROWS)]},
         ("at", "store")),
        ({"order_id": None, "income": [str(1000 + 7919 * i % 99991) for i in range(ROWS)]}, ("row_key",)),
        ({"order_id": None, "at": [f"2024-01-{1 + i // 24:02d}T{i % 24:02d}:00:00Z" for i in range(ROWS)]}, ("at",)),
    ],
)  # fmt: skip
def test_the_key_is_the_fewest_columns_that_name_rows(columns, key):
    """A name comes first, then names with something, a regular time, the row's content; numbers by accident name nothing."""
    columns = {
        **columns,
        **({"at": [f"2024-05-{1 + i // 2 % 7:02d}" for i in range(ROWS)]} if columns.get("visit") else {}),
    }
    assert drafted(**columns).contract.key == key


def test_a_key_that_names_no_row_is_refused_with_a_better_one():
    """The message counts, and proposes the column that tells most rows apart."""
    said = refused(town=[f"t{i % 9}" for i in range(ROWS)], _key=("town",))
    assert "names only 9 of 400 rows apart" in said
    assert "--key town,order_id" in said


def test_a_key_with_some_doubles_holds_fewer_batches():
    """40 of 400 rows that repeat a key with other values would be quarantined: the limit is set above, with the number."""
    ids = [f"A{min(i, ROWS - 41):05d}" for i in range(ROWS)]
    draft = drafted(order_id=ids, _key=("order_id",))
    assert "40 repeat one" in draft.notes["key"]
    assert draft.contract.hold_above >= 0.2
    assert drafted(order_id=[f"A{i // 1.25:.0f}" for i in range(ROWS)], _key=("order_id",)).contract.hold_above > 0.2


def test_without_a_time_one_is_drawn_from_the_key():
    """Every row has a time in the year 2000, the same whatever rows are around it, and about a fifth lies in each fifth."""
    draft = drafted(at=None)
    assert draft.contract.time == "row_time"
    rows = table(at=None).to_pandas()
    times = draft.derived.apply(rows)["row_time"]
    assert set(times.dt.year) == {2000}
    pd.testing.assert_series_equal(draft.derived.apply(rows.iloc[[7, 3]])["row_time"], times.iloc[[7, 3]])
    fifths = np.bincount((times.dt.day_of_year.to_numpy() - 1) * 5 // 366, minlength=5)
    assert fifths.min() > 0.6 * ROWS / 5


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (["24.12.2023", "31.01.2024"], "2023-12-24"),
        (["12/24/2023 18:00", "01/31/2024 07:15"], "2023-12-24 18:00"),
        (["1703440800", "1706684400"], "2023-12-24 18:00"),
        (["1703440800000", "1706684400000"], "2023-12-24 18:00"),
        (["20231224", "20240131"], "2023-12-24"),
        (["2019", "2021"], "2019-01-01"),
        (["60", "3600"], "2000-01-01 00:01"),
    ],
)
def test_times_that_are_not_iso_are_read_by_the_hook(values, first):
    """Dates with dots, American ones, epochs, days and years as numbers, and seconds since nobody knows when."""
    draft = drafted(at=values * (ROWS // 2), _time="at")
    read = draft.derived.apply(table(at=values * (ROWS // 2)).to_pandas())["at"]
    assert read.iloc[0] == pd.Timestamp(first)
    assert draft.broken == 0


def test_times_without_a_zone_say_so():
    """A naive time is taken as UTC, with a remark that asks; one with an offset needs neither."""
    naive = drafted(at=[f"2024-01-01T{i % 24:02d}:{i // 24:02d}:00" for i in range(ROWS)])
    assert naive.contract.columns["at"].timezone == "UTC"
    assert "correct the zone" in naive.remarks["at"]
    assert drafted().contract.columns["at"].timezone is None
    assert drafted(at=[f"2024-01-{1 + i % 28:02d}" for i in range(ROWS)]).broken == 0


def test_two_times_are_for_the_person_to_choose_from():
    """Nobody guesses which of two times came first; one in the future and a birthday are no candidates."""
    said = refused(paid_at=[f"2024-06-{1 + i % 28:02d}" for i in range(ROWS)])
    assert "at, paid_at" in said
    assert "--time at" in said
    draft = drafted(
        expires=[f"2031-06-{1 + i % 28:02d}" for i in range(ROWS)],
        birth_date=[f"1980-06-{1 + i % 28:02d}" for i in range(ROWS)],
    )
    assert draft.contract.time == "at"


@pytest.mark.parametrize(
    ("values", "positive", "labels", "kind"),
    [
        (["yes", "no", "no"], True, ("no", "yes"), "bool"),
        ([1, 0, 1], True, ("no", "yes"), "bool"),
        ([1.0, 0.0, 1.0], True, ("no", "yes"), "bool"),
        ([True, True, False], True, ("no", "yes"), "bool"),
        (["good", "bad", "good"], "bad", ("good", "bad"), "category"),
        ([1, 2, 1], 2, ("1", "2"), "int"),
        ([1.0, 2.0, 1.0], 2, ("1", "2"), "int"),
        ([-1, 1, 1], 1, ("-1", "1"), "int"),
    ],
)
def test_the_positive_class(values, positive, labels, kind):
    """True where the target is true or false, 1 against -1, else the rarer of the two."""
    repeated = (values * ROWS)[:ROWS]
    draft = drafted(late=repeated)
    asked = draft.question
    assert (asked.kind, asked.positive, asked.labels) == ("binary", positive, labels)
    assert draft.contract.columns["late"].type == kind
    assert asked.share == pytest.approx(np.mean([value in (positive, "yes") for value in repeated]))
    assert draft.broken == 0


# -- kinds ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "kind", "type_"),
    [
        (["a", "b", "c", "c"], "multiclass", "category"),
        ([f"town {i}" for i in range(20)], "multiclass", "category"),
        (["1", "2", "3"], "multiclass", "category"),
        ([1.0, 2.0, 5.0], "multiclass", "category"),
        ([str(i) for i in range(20)], "multiclass", "category"),
        ([str(i) for i in range(21)], "regression", "int"),
        ([str(i * 1.5) for i in range(ROWS)], "regression", "float"),
        ([0.5, 1.5, 2.0], "regression", "float"),
        ([True, False], "binary", "bool"),
        (["a", None, "b"], "binary", "category"),
    ],
)
def test_the_kind_follows_from_the_values_of_the_target(values, kind, type_):
    """Two values are asked yes or no; up to twenty texts or whole numbers are classes; other numbers are numbers. All say why."""
    repeated = (values * ROWS)[:ROWS]
    draft = drafted(late=repeated)
    different = len({value for value in repeated if value is not None})
    assert (draft.question.kind, draft.contract.columns["late"].type) == (kind, type_)
    assert ("two" if different == 2 else f" {different} ") in draft.notes["kind"]
    assert draft.broken == sum(value is None for value in repeated)


@given(st.lists(st.integers(-40, 40), min_size=3, max_size=300).filter(lambda values: len(set(values)) > 1))
def test_whole_numbers_are_classes_where_they_are_few_and_frequent(values):
    """Whatever whole numbers: two are binary, up to twenty that come ten times each on average classes, all others numbers."""
    seen = look("n", pa.chunked_array([values]))
    assert isinstance(seen, Seen)
    few = len(set(values)) <= 20 and len(values) >= 10 * len(set(values))
    wanted = "binary" if len(set(values)) == 2 else "multiclass" if few else "regression"
    assert question("n", {"n": seen}, {}, None).kind == wanted


def test_classes_are_a_closed_list_of_which_the_rare_ones_are_named():
    """The categories are the values, in order, whether they were texts or numbers; a class of six rows is called rare, with its count."""
    values = ["gold" if i % 67 == 0 else ("iron", "lead")[i % 2] for i in range(ROWS)]
    draft = drafted(late=values)
    assert draft.contract.columns["late"].categories == draft.question.labels == ("gold", "iron", "lead")
    assert f"'gold' {values.count('gold')}" in draft.notes["target"]
    assert "iron" not in draft.notes["target"]
    assert "target" not in drafted(late=[str(i % 4) for i in range(ROWS)]).notes
    assert drafted(late=[i % 4 for i in range(ROWS)]).contract.columns["late"].categories == ("0", "1", "2", "3")


def test_a_number_may_lie_outside_of_what_was_seen():
    """The range of a target of numbers is that of any column: wider on both sides, without end where there is a long tail."""
    rng = np.random.default_rng(5)
    flat, long = rng.uniform(10, 20, ROWS), rng.lognormal(3, 2, ROWS)
    for values in (flat, long):
        column = drafted(late=values).contract.columns["late"]
        assert (column.min, column.max) == widened(values)
        assert not column.nullable


def test_a_copy_of_the_classes_is_a_leak_and_a_number_that_is_unique_too_is_none():
    """A column that says the class in other words is left out; one that differs in every row as the target does is kept."""
    classes = [("red", "green", "blue")[i % 3] for i in range(ROWS)]
    draft = drafted(
        late=classes,
        same=[("r", "g", "b")[i % 3] for i in range(ROWS)],
        coarse=[("rg", "rg", "b")[i % 3] for i in range(ROWS)],
    )
    assert "a leak" in draft.left_out["same"]
    assert "coarse" in draft.contract.features
    numbers = [str(i * 1.5) for i in range(ROWS)]
    assert "twice" in drafted(late=numbers, twice=[str(i * 3.5) for i in range(ROWS)]).contract.features


@pytest.mark.parametrize(
    ("values", "kind", "type_"),
    [
        (["1", "2", "3"], "regression", "int"), (["1", "2"], "regression", "int"), ([0.5, 1.5], "regression", "float"),
        ([str(i % 40) for i in range(ROWS)], "multiclass", "category"), ([f"t{i % 40}" for i in range(ROWS)], "multiclass", "category"),
        (["no", "yes"], "binary", "bool"), (["a", "b", "c"], "anomaly", "category"),
    ],
)  # fmt: skip
def test_a_kind_that_is_given_is_taken(values, kind, type_):
    """What somebody says wins over what the values look like, where the values can have it."""
    draft = drafted(late=(values * ROWS)[:ROWS], _kind=kind)
    assert (draft.question.kind, draft.contract.columns["late"].type) == (kind, type_)
    assert draft.notes["kind"] == "given"
    assert draft.broken == 0


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([f"town {i % 21}" for i in range(ROWS)], None, "21 different values, too many, --kind multiclass, derive it"),
        (["no"] * ROWS, None, "only 'no', Give rows of both classes"),
        ([7] * ROWS, "regression", "only '7'"),
        ([0.5, 1.5], None, "a whole number, --kind regression"),
        ([0.5, 1.5, 2.5], "multiclass", "holds fractions, leave --kind away"),
        (["a", "b"], "multiclass", "has 2 different values, leave --kind away"),
        ([f"t{i % 201}" for i in range(ROWS)], "multiclass", "has 201 different values"),
        (["a", "b", "c"], "binary", "3 different values, 'a' 34%, leave --kind away"),
        (["a", "b", "c"], "regression", "holds no numbers, leave --kind away"),
        ([f"2024-01-{1 + i % 28:02d}" for i in range(ROWS)], None, "holds times"),
        ([f"2024-01-{1 + i % 28:02d}" for i in range(ROWS)], "multiclass", "holds times"),
        ([f"u{i % 7}@example.org" for i in range(ROWS)], None, "e-mail addresses, personal data is not stored"),
        ([f"u{i % 7}@example.org" for i in range(ROWS)], "anomaly", "e-mail addresses, personal data is not stored"),
        (["a", "b"], "multiclas", "Did you mean 'multiclass'?"),
    ],
)
def test_a_target_that_cannot_be_predicted_is_refused(values, kind, words):
    """Too many classes, one value, times, a kind that the values cannot have: the message counts, and says what to do."""
    said = refused(late=(values * ROWS)[:ROWS], _kind=kind)
    assert [word for word in words.split(", ") if word not in said] == []


def test_without_a_target_rows_are_only_found_odd():
    """A kind that needs no labels needs no target; every other kind does. One that is given all the same may be empty."""
    draft = drafted(None, late=None, _kind="anomaly")
    assert (draft.question.kind, draft.contract.target, draft.contract.features) == ("anomaly", None, ("amount",))
    assert list(draft.contract.roles) == ["order_id", "at"]
    for kind in (None, "regression"):
        assert "--kind anomaly" in refused(None, _kind=kind)
    known = drafted(late=["yes" if i % 9 == 0 else None for i in range(ROWS)], _kind="anomaly")
    assert (known.contract.target, known.contract.columns["late"].nullable, known.broken) == ("late", True, 0)
    assert "late" not in known.contract.features


def test_a_column_that_is_not_there_is_answered_with_the_nearest():
    """A mistyped target, time or key names the column that was meant."""
    assert "Did you mean 'late'?" in refused(target="lat")
    assert "Did you mean 'amount'?" in refused(_time="amont")
    assert "Did you mean 'order_id'?" in refused(_key=("orderid",))
    assert "cannot be time or key too" in refused(_time="late")


def test_nothing_to_learn_from_is_refused():
    """A file of key, time and target alone has no features."""
    assert "No column is left to learn from" in refused(amount=None)


def test_a_target_that_is_often_empty_does_not_hold_every_batch():
    """A tenth without a label is quarantined; both limits stand above that, with the share beside them."""
    draft = drafted(late=[None if i % 10 == 0 else ("yes", "no")[i % 2] for i in range(ROWS)])
    assert draft.broken == ROWS / 10
    assert draft.contract.hold_bad_target >= 0.15
    assert "10.0%" in draft.notes["hold_bad_target"]


def test_rows_that_repeat_are_counted():
    """Without a key two rows that say the same are one: the remark says how many."""
    draft = infer(
        pa.table({"a": [str(i % 50) for i in range(200)], "y": ["yes" if i % 50 < 9 else "no" for i in range(200)]}),
        "y",
        now=NOW,
    )
    assert "150 of 200 rows repeat another one" in draft.notes["key"]
    assert draft.contract.hold_above == 0.2
