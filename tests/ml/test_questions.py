"""Questions: put to everybody alike, to a model of another time with the columns that it reads."""

import numpy as np
import pandas as pd
import pytest

from tasks.ml.kinds import Anomaly, Kind, Recommendation, Regression
from tasks.ml.questions import Questions

ROWS = pd.DataFrame(
    {
        "who": pd.array(["u", "v", "u", "w"], dtype="string"), "a": [1.0, 2, 3, 4], "old": [5.0, np.nan, 7, 8], "y": [0.1, 0.2, 0.3, 0.4],
        "code": pd.array([1, 2, None, 4], dtype="Int64"),
    }
)  # fmt: skip
TYPES = {"who": "category", "a": "float", "code": "int"}
EACH = [
    (Regression("y"), [0, 1, 2, 3]),  # a question a row
    (Anomaly(), [0, 1, 2, 3, 0, 1, 2, 3]),  # the rows, then one that is planted in place of each
    (Recommendation("y", "who"), [0, 1, 3]),  # a question a user, of the first row
]


@pytest.mark.parametrize(("kind", "places"), EACH, ids=[kind.name for kind, _ in EACH])
def test_a_model_of_another_time_is_asked_with_the_columns_of_then(kind: Kind, places: list[int]):
    """What is a column no more comes from the rows that are asked about, what had another type is read as that; the rest is what all are asked."""
    asked = Questions.of(kind, TYPES, ROWS, seed=1)
    put = asked.put({"old": "float", "code": "text", "a": "int"})
    np.testing.assert_array_equal(put["old"], ROWS["old"].to_numpy()[places])
    assert put["code"].fillna("none").tolist() == np.array(["1", "2", "none", "4"])[places].tolist()
    pd.testing.assert_series_equal(put["a"], asked.asked["a"])
    assert len(put) == len(asked.truth)


def test_a_model_of_today_is_asked_what_all_are():
    """The same frame, not a copy of it."""
    asked = Questions.of(Regression("y"), TYPES, ROWS, seed=1)
    assert asked.put({"a": "float", "who": "text"}) is asked.asked
