"""Packed lines hold what plain lines hold, one a row, and a line that is torn or blanked is none."""

import datetime as dt
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.stores.packed import packed, plain, record
from tasks.stores.predictions import Predictions

COLUMNS = {"age": "float", 'a "column"': "int", "new": "bool"}
ABOUT = b'"at":"2026-01-01T00:00:00+00:00","project":"flights","version":3,"ms":0.125'
ROWS = np.array([[0.1, 2.0, 1.0], [np.nan, -3.0, 0.0], [1e300, np.nan, np.nan]])
MEANT = [{"age": 0.1, 'a "column"': 2, "new": True}, {"age": None, 'a "column"': -3, "new": False}, {"age": 1e300, 'a "column"': None, "new": None}]  # fmt: skip
DAY = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def lines(predictions=("no", 'ja "'), chosen=(0, 1, 0)):
    """The packed lines of three rows."""
    made = packed(b"aabbcc", ABOUT, COLUMNS, ROWS, np.array([0.25, 0.5, 0.75]), predictions, np.array(chosen))
    return bytes(made)


def test_a_packed_line_is_read_as_the_plain_one():
    """Whole numbers, truths, missing values and labels come back in their types; the line is JSON, and so is what it stands for."""
    found = [record(line) for line in lines().splitlines()]
    assert [each["row"] for each in found] == MEANT
    assert [[type(value) for value in each["row"].values()] for each in found] == [
        [type(value) for value in row.values()] for row in MEANT
    ]
    assert [(each["id"], each["prediction"], each["probability"]) for each in found] == [("aa", "no", 0.25), ("bb", 'ja "', 0.5), ("cc", "no", 0.75)]  # fmt: skip
    assert [json.loads(plain(line)) for line in lines().splitlines()] == found
    assert found[0].keys() == {"id", "at", "project", "version", "ms", "row", "prediction", "probability"}


def test_numbers_are_predictions_where_nothing_is_chosen():
    """A line without labels has the number as its prediction."""
    found = [record(line) for line in lines((), ()).splitlines()]
    assert [(each["prediction"], each["probability"]) for each in found] == [(0.25, None), (0.5, None), (0.75, None)]


@given(st.lists(st.floats(allow_nan=False), min_size=3, max_size=3))
def test_every_number_comes_back_as_it_was(numbers):
    """Bit by bit, infinities and the negative zero, too."""
    made = packed(b"a", ABOUT, dict.fromkeys("abc", "float"), np.array([numbers]), np.array([0.5]), (), np.array([0]))
    assert np.array([*record(bytes(made))["row"].values()]).tobytes() == np.array(numbers).tobytes()


def test_a_line_that_is_not_packed_stays():
    """Also where a feature has the name of a packed line's field."""
    line = b'{"id":"a","row":{"numbers":"abc"},"prediction":1}'
    assert record(line) == json.loads(line)
    assert json.loads(plain(line)) == json.loads(line)
    assert plain(b'{"id":"b"}') == b'{"id":"b"}'


@pytest.mark.parametrize(
    "broken", [(b'"types":"fib"', b'"types":"fi"'), (b'["age",', b"["), (b'"numbers":"', b'"numbers":"zz')]
)
def test_a_line_that_does_not_hold_together_is_torn(broken):
    """Readers skip it, as they skip every torn line."""
    line = lines().splitlines()[0].replace(*broken)
    with pytest.raises(ValueError, match=r"zip|hexadecimal"):
        record(line)


def test_v_11_packed_lines_are_found_blanked_and_skipped_where_they_are_torn(tmp_path):
    """A record of many written at once goes alone; a torn line, whose values nobody can look into, is found with it (V-11)."""
    log = Predictions(tmp_path)
    assert log.append_lines("flights", DAY, lines(), 3) == 0
    (path,) = log.files("flights")
    with path.open("ab") as file:
        file.write(lines()[:200] + b"\n")
    asked = []
    found = log.find(
        "flights", lambda some: [each["row"]["age"] is None for each in some], lambda line: bool(asked.append(line))
    )
    assert len(found) == 2
    assert asked == []
    log.blank(found)
    assert [each["id"] for each in log.read("flights")] == ["aa", "cc"]
    assert [each["id"] for each in log.newest("flights", 5)] == ["aa", "cc"]
    assert path.stat().st_size == len(lines()) + 201
