"""A packed line holds what plain lines hold, one a row; a line that is torn, or a row that was blanked, is none."""

import datetime as dt
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.stores.packed import packed, plain, records
from tasks.stores.predictions import Predictions
from tasks.stores.served import blocks, parsed

COLUMNS = {"age": "float", 'a "column"': "int", "new": "bool"}
ABOUT = b'"at":"2026-01-01T00:00:00+00:00","project":"flights","version":3,"ms":0.125'
ROWS = np.array([[0.1, 2.0, 1.0], [np.nan, -3.0, 0.0], [1e300, np.nan, np.nan]])
MEANT = [{"age": 0.1, 'a "column"': 2, "new": True}, {"age": None, 'a "column"': -3, "new": False}, {"age": 1e300, 'a "column"': None, "new": None}]  # fmt: skip
DAY = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def line(predictions=("no", 'ja "'), chosen=(0, 1, 0)):
    """Three rows in a packed line."""
    made = packed(b"aabbcc", ABOUT, COLUMNS, ROWS, np.array([0.25, 0.5, 0.75]), predictions, np.array(chosen))
    return bytes(made)


def test_a_packed_line_is_read_as_plain_ones():
    """Whole numbers, truths, missing values and labels come back in their types; the line is JSON, and so is what it stands for."""
    assert line().count(b"\n") == 1
    found = records(line())
    assert [each["row"] for each in found] == MEANT
    assert [[type(value) for value in each["row"].values()] for each in found] == [
        [type(value) for value in row.values()] for row in MEANT
    ]
    assert [(each["id"], each["prediction"], each["probability"]) for each in found] == [("aa", "no", 0.25), ("bb", 'ja "', 0.5), ("cc", "no", 0.75)]  # fmt: skip
    assert [json.loads(each) for each in plain(line())] == found
    assert found[0].keys() == {"id", "at", "project", "version", "ms", "row", "prediction", "probability"}


def test_numbers_are_predictions_where_nothing_is_chosen():
    """A line without labels has the number as its prediction."""
    found = records(line((), ()))
    assert [(each["prediction"], each["probability"]) for each in found] == [(0.25, None), (0.5, None), (0.75, None)]


@given(
    st.lists(st.lists(st.floats(allow_nan=False), min_size=4, max_size=4), min_size=1, max_size=3), st.integers(0, 4)
)
def test_every_number_comes_back_as_it_was(numbers, width):
    """Bit by bit, infinities and the negative zero, too, of rows with any number of columns."""
    rows, ids = np.array(numbers)[:, :width], b"".join([b"%02d" % n for n in range(len(numbers))])
    made = packed(
        ids, ABOUT, dict.fromkeys("abcd"[:width], "float"), rows, np.zeros(len(rows)), (), np.zeros(len(rows))
    )
    assert np.array([[*each["row"].values()] for each in records(bytes(made))]).tobytes() == rows.tobytes()


def test_a_line_that_is_not_packed_stays():
    """Also where a feature has the name of a packed line's field."""
    one = b'{"id":"a","row":{"packed":"abc"},"prediction":1}'
    assert records(one) == [json.loads(one)]
    assert [json.loads(each) for each in plain(one)] == [json.loads(one)]
    assert plain(b'{"id":"b"}') == [b'{"id":"b"}']


@pytest.mark.parametrize(
    "broken",
    [
        (b'"types":"fib"', b'"types":"fi"'), (b'"types":"fib"', b'"types":"fix"'), (b'["age",', b"["), (b'"packed":"', b'"packed":"zz'),
        (b'["no",', b"["), (b'"size":', b'"other":'), (b"nHUAiD", b"nH?AiD"),
    ],
)  # fmt: skip
def test_a_line_that_does_not_hold_together_is_torn(broken):
    """Readers skip it, as they skip every torn line."""
    assert broken[0] in line()
    with pytest.raises(ValueError, match=r"zip|base64|together|reshape"):
        records(line().replace(*broken))


def test_v_11_packed_records_are_found_and_blanked_one_by_one(tmp_path):
    """A record of many in a line goes alone; a torn line, whose values nobody can look into, is found with it (V-11)."""
    log = Predictions(tmp_path)
    for lines in (b'{"id":"before","row":{"age":1}}\n', line(), line().replace(b"aa", b"dd")):
        assert log.append_lines("flights", DAY, lines, 1) == 0
    (path,) = log.files("flights")
    with path.open("ab") as file:
        file.write(line()[:200] + b"\n")
    asked, size = [], path.stat().st_size
    found = log.find(
        "flights", lambda some: [each["row"]["age"] is None for each in some], lambda line: bool(asked.append(line))
    )
    assert len(found) == 3
    assert asked == []
    log.blank(found)
    log.blank(found)
    assert [each["id"] for each in log.read("flights")] == ["before", "aa", "cc", "dd", "cc"]
    assert [[each["id"] for each in log.newest("flights", count)] for count in (1, 2, 3, 9)] == [
        ["cc"], ["dd", "cc"], ["cc", "dd", "cc"], ["before", "aa", "cc", "dd", "cc"],
    ]  # fmt: skip
    assert path.stat().st_size == size
    assert log.find("flights", lambda some: [each["row"]["age"] is None for each in some], lambda _: False) == []


def test_v_11_what_another_process_has_torn_takes_no_packed_line_with_it(tmp_path):
    """Two processes have a log open, and one dies within a line: whatever the other writes next is read, found and gathered (V-11)."""
    one, other = Predictions(tmp_path), Predictions(tmp_path)
    for log, name in ((other, "before"), (one, "late")):
        assert log.append("flights", DAY, [_plain(name)]) == 0
    (path,) = one.files("flights")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 9)
    names = [f"{n:04d}" for n in range(1010)]
    rows, ids = np.arange(3000.0).reshape(1000, 3), "".join(names[:1000]).encode()
    many = packed(ids, ABOUT, COLUMNS, rows, np.zeros(1000), ("no",), np.zeros(1000))
    assert other.append_lines("flights", DAY, many, 1000) == 0
    assert other.append("flights", DAY, [_plain(name) for name in names[1000:1005]]) == 0
    assert one.append("flights", DAY, [_plain(name) for name in names[1005:]]) == 0
    everything = ["before", *names]
    assert [each["id"] for each in other.read("flights")] == everything
    assert [each["id"] for each in other.newest("flights", 1011)] == everything
    assert [name for lines, _ in blocks(path, 0, 512) for name in parsed("predictions", lines)["id"].to_pylist()] == everything  # fmt: skip
    log = path.read_bytes()
    places = other.find("flights", lambda some: [True] * len(some), lambda line: b'"late"' in line)
    assert [name in log[at : at + size].decode() for name, (_, at, size) in zip(everything, places, strict=False)]
    assert len(places) == 1012
    other.blank(places)
    assert not path.read_bytes().translate(None, b" \n").count(b'"id"')
    assert [*one.read("flights")] == []


def _plain(name):
    return {"id": name, "at": DAY.isoformat(), "version": 3, "row": {"age": 1.5}, "prediction": "no"}
