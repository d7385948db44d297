"""The trusted set: who is set apart, and that nobody comes back under another content."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from tasks.ml.split import ChanceSplit, GroupSplit, GroupTimeSplit, TimeSplit
from tasks.ml.trusted import Trusted, apart, units


def test_about_the_share_is_set_apart():
    """Of 20,000 units the share is met within five standard errors, for every share."""
    numbers = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    for share in (0.01, 0.1, 0.5):
        found = Trusted(share=share).chosen(numbers, 7).mean()
        assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / 20_000)
    assert not Trusted(share=0).chosen(numbers, 7).any()


def test_another_seed_sets_others_apart():
    """Two seeds agree on no more than chance has it."""
    numbers = np.arange(20_000, dtype=np.uint64)
    one, other = (Trusted(share=0.1).chosen(numbers, seed) for seed in (1, 2))
    assert abs((one & other).mean() - 0.01) < 0.005


@given(st.lists(st.integers(0, 30), min_size=1), st.sets(st.integers(0, 30)))
def test_what_was_set_apart_stays_apart_under_any_content(ids, chosen):
    """A row is apart exactly when its key is, whatever stands in its other columns and wherever it stands."""
    rows = pd.DataFrame({"id": ids, "content": np.random.default_rng(0).normal(size=len(ids))})
    trusted = pd.DataFrame({"id": sorted(chosen), "content": 0.0})
    trusted["id"] = trusted["id"].astype("int64")
    assert apart(rows, trusted, ("id",)).tolist() == [number in chosen for number in ids]


def test_a_text_is_the_same_unit_however_it_is_held():
    """Python's texts and pandas' own are one key."""
    plain = pd.DataFrame({"who": np.array(["a", "b"], dtype=object)})
    held = pd.DataFrame({"who": pd.array(["a", "b"], dtype="string")})
    assert units(plain, ("who",)).tolist() == units(held, ("who",)).tolist()


@pytest.mark.parametrize(
    ("split", "unit"),
    [
        (TimeSplit(column="at"), ("id",)),
        (GroupTimeSplit(column="at", group="who"), ("id",)),
        (ChanceSplit(), ("id",)),
        (GroupSplit(group="who"), ("who",)),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_whole_groups_are_set_apart_where_groups_are_split(split, unit):
    """A patient whose rows must stand on one side is set apart as a whole; else a row is, by its key."""
    assert split.unit(("id",)) == unit
