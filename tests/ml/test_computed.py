"""Computed columns: what a project's own code may give, and what tells that it cannot be served."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ml.computed import Computed, ComputedError, Computing, defines
from tasks.ml.features import matrix

TYPES = {"amount": "float", "town": "text", "new": "bool"}
GOOD = """
import numpy as np
import pandas as pd
from dataclasses import dataclass

@dataclass(frozen=True)
class Limit:
    large: float = 100.0

def features(rows):
    return pd.DataFrame({
        "log": np.log(rows["amount"].where(rows["amount"] > 0)),
        "large": rows["amount"] > Limit().large,
        "where": rows["town"].str.lower() + rows["new"].map({0.0: " old", 1.0: " new"}),
    })
"""
MADE = {"log": "float", "large": "bool", "where": "text"}
ONE = "import numpy as np\nimport pandas as pd\ndef features(rows):\n    return "


def frame(amounts, towns=None, new=None):
    """Raw rows as pipelines meet them."""
    count = len(amounts)
    rows = pd.DataFrame({"amount": amounts, "town": towns or ["Ulm"] * count, "new": new or [True] * count})
    return matrix(rows.astype({"new": "boolean", "town": "string"}), TYPES)


def one(expression, kind="float", name="x"):
    """The computing of one column, by an expression over `rows`."""
    return Computing(f"{ONE}{expression}", {name: kind})


def test_columns_come_in_three_kinds_behind_the_raw_ones():
    """Numbers, truths as 0 and 1, and texts; missing stays missing, and every value is what plain Python makes of its row."""
    rows = frame([1.0, None, 250.0, -3.0], ["Ulm", "Köln", None, "Bonn"], [True, False, None, None])
    made = Computing(GOOD, MADE).add(rows)
    assert made.dtypes.astype(str).to_dict() == {
        "amount": "float64", "town": "str", "new": "float64", "log": "float64", "large": "float64", "where": "str"
    }  # fmt: skip
    assert made["log"].iloc[0] == 0.0
    assert made["log"].iloc[2] == pytest.approx(5.521460917862246)
    assert made["log"].isna().tolist() == [False, True, False, True]
    assert made["large"].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert made["where"].tolist()[:2] == ["ulm new", "köln old"]
    assert made["where"].isna().tolist() == [False, False, True, True]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(-1e9, 1e9),
            st.none() | st.text("abÄ ", max_size=4),
            st.none() | st.booleans(),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_a_row_gets_the_same_in_any_company(rows):
    """Whatever the rows hold, each alone gets what it gets among the others, and the check of it finds nothing."""
    raw, computing = frame(*(list(values) for values in zip(*rows, strict=True))), Computing(GOOD, MADE)
    together = computing.of(raw)
    alone = pd.concat([computing.of(raw.iloc[[place]]) for place in range(len(raw))])
    pd.testing.assert_frame_equal(alone, together)
    assert computing.entangled(raw, seed=1) == ""


ENTANGLED = {
    "mean": "pd.DataFrame({'x': rows['amount'] - rows['amount'].mean()})",
    "rank": "pd.DataFrame({'x': rows['amount'].rank()})",
    "neighbour": "pd.DataFrame({'x': rows['amount'].diff()})",
    "filled from above": "pd.DataFrame({'x': rows['amount'].ffill()})",
    "count of equals": "pd.DataFrame({'x': rows.groupby('town')['amount'].transform('size')})",
    "place": "pd.DataFrame({'x': np.arange(len(rows))})",
    "chance": "pd.DataFrame({'x': np.random.random(len(rows))})",
    "size of the batch": "pd.DataFrame({'x': rows['amount'] * len(rows)})",
    "remembered": "rows[[]].assign(x=rows['amount'] - kept.setdefault('mean', rows['amount'].mean()))\nkept = {}",
}


@pytest.mark.parametrize("expression", ENTANGLED.values(), ids=ENTANGLED.keys())
def test_code_that_looks_at_other_rows_is_found(expression):
    """Means, ranks, neighbours, counts, places, chance, and what was remembered of rows before: none is served as it was learned."""
    rng = np.random.default_rng(3)
    amounts = np.where(np.arange(60) % 5 == 2, np.nan, rng.normal(50, 9, 60))
    raw = frame(amounts.tolist(), rng.choice(["Ulm", "Bonn"], 60).tolist())
    assert "'x' of a row is another one when the row is computed alone" in one(expression).entangled(raw, seed=1)


def test_a_text_that_depends_on_other_rows_is_found():
    """The check holds for texts as for numbers."""
    entangled = one("pd.DataFrame({'x': rows['town'] + rows['town'].iloc[0]})", "text")
    assert "'x' of a row" in entangled.entangled(frame([1.0] * 5, ["a", "b", "c", "d", "e"]), seed=1)


BAD = {
    "no frame": ("rows['amount'] * 2", "float", "gives Series for 3 rows"),
    "fewer rows": ("pd.DataFrame({'x': rows['amount']}).head(2)", "float", "gives 2 rows for 3 rows"),
    "sorted": ("pd.DataFrame({'x': rows['amount']}).sort_values('x', ascending=False)", "float", "same rows in the same order"),
    "another name": ("pd.DataFrame({'y': rows['amount']})", "float", "gives 'y', no 'x'"),
    "a raw column": ("rows.assign(x=1.0)", "float", r"'amount' \(of the contract\)"),
    "twice": ("pd.concat([rows[['amount']].set_axis(['x'], axis=1)] * 2, axis=1)", "float", "'x' twice"),
    "infinite": ("pd.DataFrame({'x': 1 / (rows['amount'] - 1)})", "float", "'x' is infinite in 1 of 3 rows"),
    "text for a number": ("pd.DataFrame({'x': rows['town']})", "float", "'x' holds str; wanted numbers"),
    "digits for a number": ("pd.DataFrame({'x': ['1', '2', '3']})", "float", "wanted numbers"),
    "number for a text": ("pd.DataFrame({'x': rows['amount']})", "text", "'x' holds float64; wanted texts"),
    "number for a truth": ("pd.DataFrame({'x': rows['amount']})", "bool", "wanted true and false"),
    "time for a number": ("pd.DataFrame({'x': pd.to_datetime(['2026-01-01'] * 3)})", "float", "wanted numbers"),
    "lists": ("pd.DataFrame({'x': [[1]] * 3})", "float", "wanted numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("expression", "kind", "said"), BAD.values(), ids=BAD.keys())
def test_what_is_no_column_is_refused_in_words(expression, kind, said):
    """Other rows, other names, other types and infinite numbers are named, and what was wanted."""
    with pytest.raises(ComputedError, match=said):
        one(expression, kind).of(frame([1.0, 2.0, 3.0]))


def test_an_error_names_its_line_and_no_value():
    """What the code raises may hold a row's value: the line is said, the value is not."""
    computing = Computing(
        "def features(rows):\n    found = {}\n    return found[rows['town'].iloc[0]]\n", {"x": "float"}
    )
    with pytest.raises(ComputedError, match=r"hooks\.py:3: features raises KeyError on 1 rows") as error:
        computing.of(frame([1.0], ["secret"]))
    assert "secret" not in str(error.value)
    assert "amount, town, new" in str(error.value)


def test_the_rows_that_were_handed_in_stay_as_they_are():
    """Code that writes into its argument writes into a copy."""
    raw = frame([1.0, 2.0])
    before = raw.copy()
    source = "def features(rows):\n    rows['amount'] *= 2\n    rows.loc[0, 'town'] = ''\n    return rows[['amount']].set_axis(['x'], axis=1)\n"
    made = Computing(source, {"x": "float"}).of(raw)
    assert made["x"].tolist() == [2.0, 4.0]
    pd.testing.assert_frame_equal(raw, before)


def test_no_rows_have_the_columns_and_the_rows_keep_their_names():
    """Nothing to compute is nothing computed, in the right types; rows are found by the index that they came with."""
    computing = Computing(GOOD, MADE)
    empty = computing.of(frame([]))
    assert (len(empty), empty.dtypes.astype(str).tolist()) == (0, ["float64", "float64", "str"])
    assert computing.of(frame([1.0, 200.0]).set_axis([7, 3]))["large"].to_dict() == {7: 0.0, 3: 1.0}


@pytest.mark.parametrize(
    "line", ["import tasks.ml.kinds", "from deployments.fraud import data", "from . import data", "from flows import land"]
)  # fmt: skip
def test_code_that_would_change_without_the_model_is_refused(line):
    """What stands elsewhere in the repository does not travel with a version, wherever the import is hidden."""
    with pytest.raises(ComputedError, match="does not travel with the model"):
        Computing(f"def features(rows):\n    {line}\n    return rows\n", {"x": "float"}).ready()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_library_at_all\ndef features(rows): ...", "ModuleNotFoundError"),
        ("from pathlib import Path\nROOT = Path(__file__)\ndef features(rows): ...", "NameError"),
        ("def features(rows:", "SyntaxError"),
        ("def derive(rows): ...", "AttributeError"),
    ],
)
def test_code_that_needs_its_folder_or_is_none_is_refused(source, said):
    """A text is imported where no file lies beside it; what goes wrong is named."""
    with pytest.raises(ComputedError, match=said):
        Computing(source, {"x": "float"}).ready()


def test_a_declared_column_is_one_that_models_read():
    """It has its type and may be empty; a function is found without running anything."""
    column = Computed(type="bool", about="as it is").column
    assert (column.type, column.nullable, column.about) == ("bool", True, "as it is")
    assert defines("raise SystemExit\ndef features(rows): ...")
    assert not defines("class A:\n    def features(self): ...")
