"""Preparing: how big the parts are, and whether anything can be learned from them."""

import numpy as np
import pandas as pd
import pytest

from tasks import prepare
from tasks.config.project import Project
from tasks.ml.split import Parts
from tasks.stores.references import Prepared

SIZES = {"train": 300, "validation": 80, "holdout": 100}


def project(**more) -> Project:
    return Project.model_validate(
        {
            "project": "small",
            "labels": ["healthy", "finding"],
            "contract": {
                "key": ["id"],
                "time": "at",
                "target": "y",
                "columns": {
                    "id": {"type": "int"},
                    "at": {"type": "datetime"},
                    "y": {"type": "bool"},
                    "amount": {"type": "float"},
                },
            },
            "split": {"column": "at"},
            **more,
        }
    )


def part(first: int, count: int, positive: int) -> pd.DataFrame:
    """Rows of consecutive hours, the first of which are positive."""
    return pd.DataFrame(
        {
            "id": range(first, first + count),
            "at": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(first, first + count), unit="h"),
            "y": pd.array([number < positive for number in range(count)], dtype="boolean"),
            "amount": 1.0,
        }
    )


def described(sizes: dict[str, int] | None = None, positive: dict[str, int] | None = None) -> Prepared:
    """What is said about parts of these sizes with so many positives, by default a quarter."""
    first, frames = 0, {}
    for name, count in (SIZES | (sizes or {})).items():
        frames[name] = part(first, count, (positive or {}).get(name, count // 4))
        first += count
    return prepare.describe(project(), Parts(**frames))


def test_parts_are_described_by_size_window_and_share():
    """Sizes, oldest and newest time, and the share of positives of each part; nothing stands against learning."""
    found = described()
    assert found.rows == SIZES
    assert found.rates == {"train": 0.25, "validation": 0.25, "holdout": 0.25}
    assert found.windows["train"] == ("2026-01-01 00:00:00+00:00", "2026-01-13 11:00:00+00:00")
    assert found.windows["holdout"][0] == "2026-01-16 20:00:00+00:00"
    assert found.refused == ""


@pytest.mark.parametrize("name", list(SIZES))
def test_too_few_rows_of_any_part_are_refused(name):
    """Fifty rows are enough, one less is not; the reason names the part and both numbers."""
    assert described({name: prepare.FEWEST}).refused == ""
    assert described({name: prepare.FEWEST - 1}).refused == f"too few rows: the {name} part has 49, 50 are needed"


@pytest.mark.parametrize("name", list(SIZES))
@pytest.mark.parametrize(
    ("positive", "label"), [(0, "finding"), (None, "healthy")], ids=["no positive", "all positive"]
)
def test_a_single_class_is_refused_and_the_missing_one_named(name, positive, label):
    """A part with one class teaches nothing: the reason names the part, the class that is missing, and the target."""
    count = SIZES[name] if positive is None else positive
    refused = described(positive={name: count}).refused
    assert refused == f"insufficient classes: the {name} part has 0 rows of '{label}' in y, 5 are needed"


def test_five_of_a_class_are_enough_and_four_are_not():
    """The rarer class decides, whichever it is."""
    assert described(positive={"holdout": 5}).refused == ""
    assert "has 4 rows of 'finding'" in described(positive={"holdout": 4}).refused
    assert "has 4 rows of 'healthy'" in described(positive={"holdout": SIZES["holdout"] - 4}).refused


def test_the_first_problem_in_time_is_the_one_that_is_told():
    """With two parts that cannot be used, the older one is named."""
    assert "the train part has 0 rows of 'finding'" in described({"holdout": 1}, {"train": 0}).refused


def test_an_empty_part_is_refused_instead_of_failing():
    """No rows at all: a share of nothing is 0, and the reason is the number of rows."""
    found = described({"validation": 0})
    assert found.rates["validation"] == 0.0
    assert found.refused == "too few rows: the validation part has 0, 50 are needed"
