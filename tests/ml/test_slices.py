"""Slices: every group of rows, counted and measured by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from tasks.ml import card, pictures
from tasks.ml.contract import Column, Contract
from tasks.ml.metrics import METRICS, Estimate
from tasks.ml.slices import EMPTY, OTHERS, Slices
from tasks.ml.uncertain import estimate
from tests.ml.test_card import facts
from tests.ml.test_explain import measured
from tests.ml.test_pictures import opened

TYPES = {"sex": "category", "age": "float", "ill": "bool", "town": "text"}
AUC, MAE = METRICS["roc_auc"], METRICS["mae"]


def rows(count=2000, seed=0):
    """Rows whose truth follows from the answers for one sex and from nothing for the other."""
    rng = np.random.default_rng(seed)
    sex, p = rng.choice(["F", "M"], count, p=[0.7, 0.3]), rng.random(count)
    features = pd.DataFrame(
        {
            "sex": pd.Series(sex, dtype="str").mask(np.arange(count) % 10 == 0),
            "age": np.where(np.arange(count) % 20 == 0, np.nan, rng.integers(0, 90, count)),
            "ill": rng.integers(0, 2, count).astype(float),
            "town": pd.Series([f"town {n % 7 if n % 3 else n % 97}" for n in range(count)], dtype="str"),
        }
    )
    return features, (np.where(sex == "F", p, rng.random(count)) > 0.5).astype(int), p


def sliced(columns=tuple(TYPES), champion=None, unseen=None, **said):
    """The slices of these rows by AUC."""
    features, truth, p = rows()
    unseen = np.ones(len(truth), dtype=bool) if unseen is None else unseen
    whole = estimate(AUC, truth, p, resamples=100, seed=1)
    return Slices(columns=columns, **said).measure(
        AUC, features, TYPES, truth, p, champion, unseen, whole=whole, seed=1
    )


def test_each_group_has_its_own_metric():
    """The AUC of each sex, and of the rows without one, is scikit-learn's on those rows, within its interval."""
    features, truth, p = rows()
    found = {one.values: one for one in sliced(("sex",)).slices}
    assert list(found) == ["= F", "= M", EMPTY]
    for values, mask in {"= F": features.sex == "F", "= M": features.sex == "M", EMPTY: features.sex.isna()}.items():
        one = found[values]
        assert one.rows == mask.sum()
        assert one.challenger.value == pytest.approx(roc_auc_score(truth[mask], p[mask]))
        assert one.challenger.low <= one.challenger.value <= one.challenger.high


def test_a_group_that_is_served_badly_is_found():
    """The group whose truth the answers do not know is worse than the whole; a group of chance is not."""
    found = {one.name: one.is_worse for one in sliced(("sex", "ill")).slices}
    assert found == {"sex = F": False, "sex = M": True, "sex (empty)": False, "ill = true": False, "ill = false": False}


def test_less_is_better_turns_the_question_around():
    """By mean absolute error the group with the larger errors is the worse one."""
    features, _, _ = rows()
    truth, said = (
        np.zeros(2000),
        np.where(features["sex"] == "M", 2.0, 1.0) + np.random.default_rng(0).random(2000) / 10,
    )
    whole = estimate(MAE, truth, said, resamples=100, seed=1)
    found = Slices(columns=("sex",)).measure(MAE, features, TYPES, truth, said, None, truth == 0, whole=whole, seed=1)
    assert found is not None
    assert [one.values for one in found.worse] == ["= M"]


def test_numbers_come_in_quarters():
    """Each quarter holds about a quarter of the rows that have a number; its words say which."""
    features, _, _ = rows()
    age = features["age"]
    groups = {words: places for _, words, places in Slices(columns=("age",)).groups(features, TYPES)}
    low, middle, high = (float(age.quantile(share, interpolation="lower")) for share in (0.25, 0.5, 0.75))
    assert list(groups) == [f"≤ {low:g}", f"> {low:g}, ≤ {middle:g}", f"> {middle:g}, ≤ {high:g}", f"> {high:g}", EMPTY]
    assert np.isnan(age[groups[EMPTY]]).all()
    assert (age[groups[f"> {low:g}, ≤ {middle:g}"]].between(low, middle, inclusive="right")).all()
    assert all(400 < len(places) < 550 for words, places in groups.items() if words != EMPTY)


@given(st.lists(st.one_of(st.none(), st.floats(-3, 3), st.integers(0, 2)), max_size=60), st.integers(1, 4))
def test_every_row_is_in_one_group_a_column(values, most):
    """However values tie or are missing, no row is lost and none is counted twice, for numbers as for texts."""
    numbers = pd.array(values, dtype="Float64").astype("float64")
    texts = pd.Series([None if value is None else f"{value:.0f}" for value in values], dtype="str")
    features = pd.DataFrame({"age": np.asarray(numbers), "sex": texts})
    groups = list(Slices(columns=("age", "sex"), most=most).groups(features, TYPES))
    for column in ("age", "sex"):
        places = [place for name, _, some in groups if name == column for place in some]
        assert sorted(places) == list(range(len(values)))
        assert len({words for name, words, _ in groups if name == column}) == len([1 for name, _, _ in groups if name == column])  # fmt: skip


def test_many_values_are_cut_to_the_most_frequent():
    """Of a hundred towns the most frequent stand alone and the others together; small groups are counted as left out."""
    features, _, _ = rows()
    counts = features["town"].value_counts()
    found = sliced(("town",), most=3)
    assert [one.values for one in found.slices][3:] == [OTHERS]
    assert [one.rows for one in found.slices] == [*counts[:3], counts[3:].sum()]
    few = sliced(("town",), most=200, fewest=int(counts.iloc[3]))
    assert all(one.rows >= counts.iloc[3] for one in few.slices)
    assert sum(one.rows for one in few.slices) + few.left_out["town"] == len(features)
    assert f"left out: {few.left_out['town']:,} rows by town" in few.note


def test_the_champion_is_measured_where_it_has_not_seen_the_rows():
    """Its number is of the unseen rows of the group alone; with too few of them there is none."""
    features, truth, p = rows()
    unseen = np.arange(2000) >= 1000
    found = {one.values: one for one in sliced(("sex",), champion=1 - p, unseen=unseen, fewest=110).slices}
    mask = (features["sex"] == "F").to_numpy() & unseen
    assert found["= F"].champion is not None
    assert found["= F"].champion.value == pytest.approx(roc_auc_score(truth[mask], 1 - p[mask]))
    assert found["= M"].champion is not None
    assert found[EMPTY].champion is None
    assert all(one.champion is None for one in sliced().slices)


def test_rows_that_are_asked_twice_are_in_their_group_twice():
    """An anomaly's planted rows belong to the group of the row that they were made of."""
    features, _, p = rows()
    truth, said = np.r_[np.zeros(2000), np.ones(2000)].astype(int), np.r_[p, p + 0.5]
    whole = estimate(AUC, truth, said, resamples=10, seed=1)
    found = Slices(columns=("sex",)).measure(AUC, features, TYPES, truth, said, None, truth >= 0, whole=whole, seed=1)
    mask = (features["sex"] == "M").to_numpy()
    assert found is not None
    assert found.slices[1].rows == mask.sum()
    assert found.slices[1].challenger.value == pytest.approx(roc_auc_score(truth[np.r_[mask, mask]], said[np.r_[mask, mask]]))  # fmt: skip


def test_without_columns_there_are_no_slices():
    """The default looks at no groups, and the card says so."""
    assert sliced(()) is None
    assert "Groups of rows were not compared" in card.card(facts())


def test_slices_stand_in_the_card():
    """Each group has its row, bad ones are marked, and text from the rows opens no markup."""
    found = sliced(champion=rows()[2])
    evil = found.slices[0].model_copy(update={"values": "= a|b <script> [x](y)"})
    text = card.card(facts(slices=found.model_copy(update={"slices": (evil, *found.slices[1:])})))
    section = text.split("## Groups of rows")[1].split("## Limitations")[0]
    assert section.count("\n| `") == len(found.slices)
    assert "| `sex` = M **(worse)** |" in section
    assert "<script>" not in section
    assert "Groups of rows were not compared" not in text
    assert "None was large enough" in card.card(facts(slices=found.model_copy(update={"slices": ()})))


@pytest.mark.parametrize("most", [0, 1, 9, 200])
def test_slices_are_drawn(most):
    """Beside what a model relies on stand its groups: none, one, or many; a metric that does not exist is no dot."""
    found = sliced(champion=rows()[2], fewest=10, most=200)
    nan = Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    broken = found.slices[0].model_copy(update={"challenger": nan})
    png = pictures.explained(measured(600), found.model_copy(update={"slices": (broken, *found.slices)[:most]}), "t")
    assert opened(png).shape[1] == 1620
    assert len(png) < 90_000


def test_the_title_names_the_worst_group():
    """The finding counts the groups that are surely worse and names the worst of them."""
    assert pictures._slices_finding(sliced(("sex",))) == "1 of 3 groups is surely worse, most of all sex = M"
    assert pictures._slices_finding(sliced(("ill",))) == "No group of 2 is surely worse than the whole"


CONTRACT = Contract(
    columns={"id": Column(type="int"), "at": Column(type="datetime"), "seen": Column(type="datetime"), "sex": Column(type="category"), "y": Column(type="bool")},
    key=("id",), time="at", target="y",
)  # fmt: skip


@pytest.mark.parametrize(("columns", "words"), [(["sexx"], "Did you mean 'sex'?"), (["y"], "'y'"), (["id"], "'id'"), (["seen"], "'seen'"), (["sex", "sex"], "twice")])  # fmt: skip
def test_columns_that_make_no_groups_are_refused(columns, words):
    """A slip of the pen, the target, a key, a time, a column named twice: the error says which and what was meant."""
    with pytest.raises(ValueError, match=r"slices\.columns") as error:
        Slices(columns=columns).fits(CONTRACT)
    assert words in str(error.value)
    Slices(columns=("sex",)).fits(CONTRACT)
    with pytest.raises(ValidationError):
        Slices(columns=("sex",), fewest=3)


def test_a_table_has_one_row_a_group():
    """Every column of the table is as long as there are groups; without a champion its cells are empty."""
    table = sliced(("sex",)).table()
    assert {len(cells) for cells in table.values()} == {3}
    assert table["champion"] == [None] * 3
    assert table["worse than the whole"] == [False, True, False]
