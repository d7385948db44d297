"""Reading bodies: what the quick reader reads is what the slower look finds; everything else is left to that look."""

import json

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.serving import bodies
from tasks.serving.answers import Refusal
from tasks.serving.bodies import ROWS, question
from tasks.serving.champion import Champion, Feature, RowError
from tasks.serving.reading import LONG, OWN_FIELD, PART, Reader, how_often
from tests.serving.test_champion import FEATURES, GOOD, fitted, loaded

FIELDS = msgspec.convert(FEATURES, tuple[Feature, ...])
READER = Reader(FIELDS, ("id", "late"))


@pytest.fixture(scope="module")
def champion(tmp_path_factory) -> Champion:
    return loaded(tmp_path_factory.mktemp("reading") / "1", fitted())


def slowly(champion, body):
    """The values of a body's rows, as they are checked one by one; None where the body is refused."""
    try:
        return [tuple(row.values()) for row in champion.check(question(body).rows)]
    except (Refusal, RowError):
        return None


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)
ANYTHING = st.none() | st.booleans() | NUMBERS | st.text(max_size=5)
NEAR = st.fixed_dictionaries(
    {},
    optional={
        "age": NUMBERS | ANYTHING, "visits": st.integers(0, 9) | ANYTHING, "sex": st.sampled_from(["f", 'a"\\b', ""]) | ANYTHING,
        "new": st.booleans() | ANYTHING, "id": ANYTHING, "late": ANYTHING, "strange": ANYTHING,
    },
)  # fmt: skip
RIGHT = st.fixed_dictionaries(
    {"visits": st.integers(0, 9), "new": st.booleans()},
    optional={"age": st.none() | NUMBERS, "sex": st.none() | st.text(max_size=5), "id": ANYTHING},
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NEAR | RIGHT, max_size=4))
def test_v_04_what_is_read_quickly_is_what_the_slower_look_finds(champion, rows):
    """Whatever is read has the very values, in the very types, that a look at each value gives; what that refuses is not read."""
    body = json.dumps({"rows": rows}).encode()
    asked, meant = READER.read(body), slowly(champion, body)
    if asked is not None:
        assert meant is not None
        assert [[(type(v), v) for v in row] for row in asked.values] == [[(type(v), v) for v in row] for row in meant]
        logged = [json.loads(row) for row in asked.rows]
        assert [tuple(row[feature.name] for feature in FIELDS) for row in logged] == meant
        assert not any(row.keys() ^ {feature.name for feature in FIELDS} for row in logged)
        assert not any(b"\n" in row or b"\r" in row for row in asked.rows)


NUMBERED = [feature for feature in FIELDS if feature.name != "sex"]
MEASURED, ALONE = Reader(NUMBERED, ("id", "late")), Reader(NUMBERED, ())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(NEAR | RIGHT, max_size=4), st.sampled_from([(MEASURED, ()), (ALONE, ("id", "late"))]))
def test_v_04_rows_of_numbers_are_read_as_the_same_numbers(rows, how):
    """An array holds what the rows hold, NaN for missing; what is not read as rows is not read as one; with columns beside them and without."""
    reader, without = how
    body = json.dumps(
        {"rows": [{name: value for name, value in row.items() if name not in {"sex", *without}} for row in rows]}
    ).encode()
    asked, found = reader.read(body), reader.numbers(body)
    assert (asked is None) == (found is None)
    if asked is not None and found is not None:
        wanted = [[float("nan") if value is None else float(value) for value in row] for row in asked.values]
        np.testing.assert_array_equal(found, np.array(wanted).reshape(len(rows), 3))


@given(st.binary(max_size=40), st.sampled_from([b"{", b'"']))
def test_a_sign_is_counted_as_python_counts_it(some, sign):
    """In few bytes and in many."""
    for body in (some, some * (LONG // 20), b" " * PART + some + sign):
        assert how_often(body, sign) == body.count(sign)


@given(st.lists(RIGHT, max_size=4))
def test_right_rows_are_read(rows):
    """Rows as they should be take the quick way, with and without what may be missing or is ignored."""
    body = json.dumps({"rows": rows}, ensure_ascii=False).encode()
    assert READER.read(body) is not None


@pytest.mark.parametrize(
    "body",
    [
        b'{"rows":[{"visits":1,"visits":2,"new":true}]}',
        b'{"rows":[{"visits":1,"new":true,"sex":"f","sex":"m","age":1}]}',
        b'{"rows":[],"rows":[]}',
        b'{"rows":[{"visits":1,"new":true}],"explain":true}',
        b'{"rows":[{"visits":1,"new":true,"age":1e999}]}',
        b'{"rows":[{"visits":9007199254740993,"new":true}]}',
        b'{"rows":[{"visits":1,"new":true,"sex":"\xff"}]}',
        b'{"rows":[{"visits":true,"new":true}]}',
        b'{"rows":[{"visits":1,"new":1}]}',
        b"[" * 100_000,
        b"",
    ],
)
def test_what_is_not_as_it_should_be_is_left_to_the_slower_look(body):
    """Names that stand twice, a wish to explain, numbers out of range, other types, and what is no JSON are not read here."""
    assert READER.read(body) is None
    assert MEASURED.numbers(body) is None


class Counting:
    """A decoder that counts how often it is asked."""

    def __init__(self, decoder):
        self.count, self._decoder = 0, decoder

    def decode(self, body):
        """As the decoder."""
        self.count += 1
        return self._decoder.decode(body)


def test_v_05_too_many_rows_are_refused_before_anything_is_decoded(monkeypatch):
    """However few bytes they take: neither reader decodes them, nor does the slower look, which says 413 (V-05)."""
    reader = Reader([feature for feature in FIELDS if feature.name == "age"], ())
    monkeypatch.setitem(reader._decoders, OWN_FIELD, quick := Counting(reader._decoders[OWN_FIELD]))
    monkeypatch.setattr(bodies, "_DECODER", slow := Counting(bodies._DECODER))
    for row in (b"{}", b'{"age":1}', b'{"age":"\\\\"}'):
        many = b'{"rows":[' + b",".join([row] * (ROWS + 1)) + b"]}"
        assert reader.numbers(many) is None
        assert reader.read(many) is None
        with pytest.raises(Refusal, match="10,000") as refused:
            question(many)
        assert refused.value.status == 413
    assert quick.count == slow.count == 0
    right = b'{"rows":[' + b",".join([b'{"age":1}'] * ROWS) + b"]}"
    found = reader.numbers(right)
    assert found is not None
    assert found.shape == (ROWS, 1)
    assert len(question(right).rows) == ROWS


@pytest.mark.parametrize("text", ["{" * 9, '"{', '\\"{', "\\", '{\n"'])
def test_braces_in_texts_are_no_rows(text):
    """A body of as many rows as may be is read, whatever stands in its texts; one row more is refused."""
    rows = [{text: text, "{": "{"}] * ROWS
    assert question(json.dumps({"rows": rows}).encode()).rows == rows
    with pytest.raises(Refusal, match="10,000"):
        question(json.dumps({"rows": [*rows, {}]}).encode())


@pytest.mark.parametrize("end", [b'"' + b'\\"' * 3_000_000, b'"' * 5_000_001, b'"' + b"\\" * 6_000_001])
def test_v_04_a_text_without_an_end_is_no_json(end):
    """A body that looks as if it had too many rows, and ends within a text, is looked through once, and refused (V-04)."""
    with pytest.raises(Refusal) as refused:
        question(b'{"rows":[{"a":"' + b"{" * ROWS + b'{{",' + end)
    assert refused.value.status == 400


SPACED = {"separators": (", ", ": ")}, {"separators": (",", ":")}, {"indent": 1}
BRACED = {"age": 1.5, "visits": 2, "sex": '},{"}, {', "new": True}


@pytest.mark.parametrize("style", SPACED)
@pytest.mark.parametrize("rows", [[], [GOOD], [BRACED], [GOOD, GOOD, GOOD], [GOOD, BRACED, GOOD]])
def test_rows_are_logged_one_by_one_however_they_are_written(style, rows):
    """Spaces, line breaks, and braces in texts do not mix up what stands in which row's line."""
    kept = [{feature.name: row[feature.name] for feature in FIELDS} for row in rows]
    asked = READER.read(json.dumps({"rows": kept}, **style).encode())
    assert asked is not None
    assert [json.loads(row) for row in asked.rows] == kept


def test_what_is_logged_has_every_feature_and_nothing_else():
    """A row that lacks a feature is logged with null for it; an ignored column is not logged."""
    complete = READER.read(json.dumps({"rows": [GOOD]}).encode())
    lacking = READER.read(json.dumps({"rows": [{"visits": 1, "new": False, "id": "secret", "late": None}]}).encode())
    assert lacking is not None
    assert [json.loads(row) for row in lacking.rows] == [{"age": None, "visits": 1, "sex": None, "new": False}]
    assert complete is not None
    assert complete.values == [(30.5, 2, "f", True)]
