"""Compatibility of contracts: what each change is called, and that 'not breaking' holds for the rows that landed before."""

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ml.compatibility import Model, compare, report
from tasks.ml.contract import Column, Contract

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
COLUMNS = {
    "id": Column(type="int"),
    "at": Column(type="datetime"),
    "late": Column(type="bool"),
    "amount": Column(type="float", min=0, max=100),
    "pieces": Column(type="int", nullable=True),
    "colour": Column(type="category", categories=("blue", "red")),
    "town": Column(type="category"),
}


def contract(**changes) -> Contract:
    """A contract of seven columns; a change of None takes a column away, another one replaces or adds it."""
    options = {
        name: changes.pop(name)
        for name in ("key", "time", "target", "hold_above", "hold_bad_target", "ahead", "epoch_is_real")
        if name in changes
    }
    columns = {name: column for name, column in {**COLUMNS, **changes}.items() if column is not None}
    return Contract.model_validate({"columns": columns, "key": ("id",), "time": "at", "target": "late", **options})


BEFORE = contract()


def levels(new: Contract, old: Contract = BEFORE) -> list[tuple[str, str | None, str]]:
    return [(each.kind, each.column, each.level) for each in compare(old, new)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": None}, [("removed", "colour", "breaking")]),
        ({"amount": None, "Amount_": COLUMNS["amount"]}, [("renamed", "amount", "breaking")]),
        ({"amount": None, "weight": COLUMNS["amount"]}, [("removed", "amount", "breaking"), ("added", "weight", "risky")]),
        ({"amount": None, "amounts": Column(type="float")}, [("removed", "amount", "breaking"), ("added", "amounts", "risky")]),
        ({"weight": Column(type="float")}, [("added", "weight", "risky")]),
        ({"weight": Column(type="float", nullable=True)}, [("added", "weight", "benign")]),
        ({"pieces": Column(type="float", nullable=True)}, [("type", "pieces", "risky")]),
        ({"town": Column(type="text")}, [("type", "town", "benign")]),
        ({"town": Column(type="int")}, [("type", "town", "breaking")]),
        ({"pieces": Column(type="bool", nullable=True)}, [("type", "pieces", "breaking")]),
        ({"pieces": Column(type="int")}, [("nullable", "pieces", "breaking")]),
        ({"town": Column(type="category", nullable=True)}, [("nullable", "town", "risky")]),
        ({"amount": Column(type="float", min=0, max=50)}, [("range", "amount", "breaking")]),
        ({"amount": Column(type="float", min=0, max=200)}, [("range", "amount", "risky")]),
        ({"amount": Column(type="float", max=100)}, [("range", "amount", "risky")]),
        ({"amount": Column(type="float", min=1, max=200)}, [("range", "amount", "breaking"), ("range", "amount", "risky")]),
        ({"pieces": Column(type="int", nullable=True, max=9)}, [("range", "pieces", "breaking")]),
        ({"colour": Column(type="category", categories=("blue",))}, [("categories", "colour", "breaking")]),
        ({"colour": Column(type="category", categories=("red", "green", "blue"))}, [("categories", "colour", "risky")]),
        ({"colour": Column(type="category", categories=("red", "blue"))}, []),
        ({"colour": Column(type="category")}, [("categories", "colour", "risky")]),
        ({"town": Column(type="category", categories=("Ulm",))}, [("categories", "town", "breaking")]),
        ({"town": Column(type="category", about="where")}, [("about", "town", "benign")]),
        ({"at": Column(type="datetime", timezone="Europe/Berlin")}, [("timezone", "at", "risky")]),
        ({"key": ("id", "town")}, [("key", None, "breaking"), ("role", "town", "breaking")]),
        ({"hold_above": 0.5}, [("hold_above", None, "risky")]),
        ({"hold_above": 0.1}, [("hold_above", None, "benign")]),
        ({"epoch_is_real": True}, [("epoch_is_real", None, "risky")]),
    ],
)  # fmt: skip
def test_i_08_each_change_of_columns_has_its_level(changes, expected):
    """Added, removed, renamed, retyped, narrowed, widened: one difference each, under its name and level."""
    assert sorted(levels(contract(**changes))) == sorted(expected)


def test_i_08_reordered_columns_are_benign():
    """The order of columns means nothing, and touches nothing."""
    backwards = BEFORE.model_copy(update={"columns": dict(reversed(BEFORE.columns.items()))})
    assert levels(backwards) == [("order", None, "benign")]
    said = report(compare(BEFORE, backwards), [Model(version=1, features=BEFORE.features)])
    assert (said["verdict"], said["features"], said["models"]) == ("benign", [], [])


def test_another_target_breaks_every_model():
    """A model that answered whether it is late cannot answer anything else; another time column breaks the split."""
    other = contract(flag=Column(type="bool"), target="flag", arrived=Column(type="datetime"), time="arrived")
    kinds = {each.kind: each for each in compare(BEFORE, other)}
    assert kinds["target"].level == kinds["time"].level == "breaking"
    said = report(kinds.values(), [Model(version=3, features=("amount",))])
    assert [(model["version"], model["level"]) for model in said["models"]] == [(3, "breaking")]


def test_a_renamed_target_is_a_rename_and_no_other_target():
    """A key, time or target that only changed its name keeps its role."""
    renamed = contract(late=None, Late=COLUMNS["late"], target="Late", id=None, ID=COLUMNS["id"], key=("ID",))
    assert sorted(levels(renamed)) == [("renamed", "id", "breaking"), ("renamed", "late", "breaking")]


def test_the_models_that_learned_from_a_column_are_named():
    """Versions are touched by the columns they have as features, each with the worst level among them."""
    after = contract(amount=Column(type="float", min=0, max=50), town=Column(type="category", nullable=True))
    versions = [
        Model(version=1, features=("pieces", "colour")),
        Model(version=2, features=("town", "colour"), contract="ab" * 32),
        Model(version=3, features=("amount", "town"), champion=True),
    ]
    said = report(compare(BEFORE, after), versions)
    assert said["verdict"] == "breaking"
    assert said["features"] == ["amount", "town"]
    assert [(each["version"], each["features"], each["level"], each["champion"]) for each in said["models"]] == [
        (2, ["town"], "risky", False),
        (3, ["amount", "town"], "breaking", True),
    ]


def test_changed_hooks_are_risky_for_every_feature():
    """What hooks.py derives may be any column."""
    said = report(compare(BEFORE, BEFORE, hooks_changed=True), [Model(version=1, features=("town",))])
    assert (said["verdict"], len(said["models"])) == ("risky", 1)
    assert report(compare(BEFORE, BEFORE))["verdict"] == "same"


specs = st.builds(
    lambda kind, nullable, bounds, listed: Column(
        type=kind, nullable=nullable,
        **({"min": bounds[0], "max": bounds[1]} if kind in {"int", "float"} else {}),
        **({"categories": listed} if kind in {"text", "category"} else {}),
    ),
    st.sampled_from(["int", "float", "bool", "text", "category"]),
    st.booleans(),
    st.tuples(st.none() | st.integers(-5, 2), st.none() | st.integers(3, 9)),
    st.none() | st.lists(st.sampled_from(["0", "1", "2", "x", "7.5"]), min_size=1, unique=True).map(tuple),
)  # fmt: skip
VALUES = ["-9", "-3", "0", "1", "2", "4", "8", "7.5", "12", "x", "true", None]


@settings(max_examples=300, deadline=None)
@given(specs, specs)
def test_what_does_not_break_lets_in_whatever_was_let_in_before(old, new):
    """Unless the comparison says breaking, every value that passed the old contract passes the new one."""
    before, after = contract(town=old), contract(town=new)
    said = [each for each in compare(before, after) if each.level == "breaking"]
    n = len(VALUES)
    rows = pa.table({
        "id": list(range(n)), "at": ["2024-01-01"] * n, "late": ["yes"] * n, "amount": ["1"] * n, "pieces": ["1"] * n, "colour": ["red"] * n,
        "town": VALUES,
    })  # fmt: skip
    lost = [
        value
        for value, was, will in zip(VALUES, before.check(rows, NOW).broken, after.check(rows, NOW).broken, strict=True)
        if was == 0 and will > 0
    ]
    assert said or not lost
