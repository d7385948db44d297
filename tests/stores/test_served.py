"""What was served and what came true of it, as it was known at any moment."""

import datetime as dt
import json

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tasks.config.settings import Settings
from tasks.stores import served
from tasks.stores.predictions import Predictions, Told
from tasks.stores.served import Serving

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def predict(settings, *names, at=NOON):
    """Logs a prediction for each name."""
    records = [
        {"id": name, "at": at.isoformat(), "project": "flights", "version": 3, "ms": 0.5, "prediction": "late", "probability": 0.75, "row": {"age": 30.5}}
        for name in names
    ]  # fmt: skip
    assert Predictions(settings.home).append("flights", at, records) == 0


def tell(settings, came, *outcomes):
    """Tells outcomes: name, value, when it became known."""
    Told(settings.home).tell("flights", came, outcomes)


def outcomes(settings, at=None):
    """The outcome, as JSON text, of each prediction."""
    parts = Serving("flights", settings).known(at).tables()
    return {row["id"]: row["outcome"] for rows in parts for row in rows.to_pylist()}


def test_what_was_known_at_a_moment_stays_so(settings):
    """Predictions and outcomes that came later are not known; neither does a correction change what was known before it."""
    predict(settings, "a", "b")
    predict(settings, "c", at=NOON + 5 * HOUR)
    tell(settings, NOON + HOUR, ("a", True, NOON), ("b", True, NOON))
    tell(settings, NOON + 3 * HOUR, ("a", False, NOON + 2 * HOUR))
    tell(settings, NOON + 4 * HOUR, ("b", False, NOON - HOUR), ("unknown", True, None))
    assert outcomes(settings, NOON) == {"a": None, "b": None}
    assert outcomes(settings, NOON + HOUR) == {"a": "true", "b": "true"}
    assert outcomes(settings, NOON + 3 * HOUR) == {"a": "false", "b": "true"}
    assert outcomes(settings) == {"a": "false", "b": "true", "c": None}
    known = Serving("flights", settings).known()
    assert known.counts() == {"predictions": 3, "waiting": 1, "share_waiting": pytest.approx(1 / 3), "unknown": 1}
    assert [outcome.value for outcome in Serving("flights", settings).history("a")] == [True, False]
    (found,) = (row for rows in known.tables() for row in rows.to_pylist() if row["id"] == "a")
    assert found == {
        "id": "a", "at": NOON, "version": 3, "ms": 0.5, "prediction": '"late"', "probability": 0.75, "row": '{"age":30.5}', "outcome": "false",
        "outcome_at": NOON + 2 * HOUR,
    }  # fmt: skip


def test_a_correction_that_names_the_same_day_counts(settings):
    """Two hundred outcomes, each corrected with the `at` of the first: every correction counts, and before it came none did."""
    names = [f"p{number}" for number in range(200)]
    predict(settings, *names)
    tell(settings, NOON + HOUR, *((name, number, NOON) for number, name in enumerate(names)))
    tell(settings, NOON + 2 * HOUR, *((name, -1, NOON) for name in names))
    assert set(outcomes(settings).values()) == {"-1"}
    assert outcomes(settings, NOON + HOUR) == {name: str(number) for number, name in enumerate(names)}


def test_of_nothing_nothing_is_known(settings):
    """Without predictions and outcomes the counts are 0."""
    assert Serving("flights", settings).known().counts() == {"predictions": 0, "waiting": 0, "share_waiting": 0.0, "unknown": 0}  # fmt: skip
    assert outcomes(settings) == {}


TELLINGS = st.lists(
    st.tuples(st.sampled_from("abcx"), st.sampled_from([True, False, 3, "t"]), st.integers(0, 5)), max_size=12
)


@hypothesis_settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tellings=TELLINGS, order=st.randoms(use_true_random=False))
def test_the_outcome_is_the_one_that_became_known_last(tmp_path_factory, tellings, order):
    """Whatever is told again, late or in another order; of two that became known at one time the one that was told later."""
    homes = [Settings(home=tmp_path_factory.mktemp("order")) for _ in range(2)]
    again = [*tellings, *tellings]
    order.shuffle(again)
    for settings, each in zip(homes, (tellings, again), strict=True):
        predict(settings, "a", "b", "c")
        for number, (name, value, hour) in enumerate(each):
            tell(settings, NOON + number * HOUR, (name, value, NOON + hour * HOUR))
        expected: dict[str, tuple[int, object]] = {}
        for name, value, hour in each:
            if hour >= expected.get(name, (0, None))[0]:
                expected[name] = (hour, value)
        rows = [
            row for part in Serving("flights", settings).known().tables() for row in part.to_pylist() if row["outcome"]
        ]
        found = {row["id"]: ((row["outcome_at"] - NOON) // HOUR, json.loads(row["outcome"])) for row in rows}
        assert found == {name: one for name, one in expected.items() if name != "x"}  # which nobody predicted
    counts = [Serving("flights", settings).known().counts() for settings in homes]
    assert counts[0] == counts[1]
    assert counts[0]["waiting"] == 3 - len({"a", "b", "c"} & {name for name, _, _ in tellings})


@pytest.mark.parametrize("size", [1, 5, 7, 64, 1 << 20])
def test_a_log_is_taken_apart_at_its_line_breaks(tmp_path, size):
    """Blocks of any size hold whole lines, say where they end, and leave a line that is not ended."""
    path = tmp_path / "2026-03-01.jsonl"
    lines = [b"x" * n for n in range(20)]
    path.write_bytes(b"\n".join(lines) + b"\nhalf")
    parts = list(served.blocks(path, 0, size))
    assert [line for block, _ in parts for line in block.split(b"\n")] == lines
    end = parts[-1][1]
    assert path.read_bytes()[end:] == b"half"
    assert list(served.blocks(path, end, size)) == []
