"""The payments simulation: the described process found again in its rows, features that know no future, patterns at their dates."""

import datetime as dt
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ingest import Landings
from tests.samples import data_of

NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def data() -> ModuleType:
    """The project's data.py."""
    return data_of("fraud")


@pytest.fixture(scope="module")
def plain(data) -> pd.DataFrame:
    """Forty days of a fifth of the handbook's region, without new patterns."""
    return data.World(customers=1000, seed=3, changes=()).payments(30, 70)


@pytest.fixture(scope="module")
def changed(data) -> pd.DataFrame:
    """The project's own half-year."""
    return data.World().payments(0, data.DAYS)


def day(data, rows: pd.DataFrame) -> pd.Series:
    return (rows["time"] - pd.Timestamp(data.START)).dt.days


# -- the process ------------------------------------------------------------------------------------------------------
def test_customers_pay_as_described(data, plain):
    """Two payments a day on average, about midday, mean amounts from 5 to 100 with half of that as spread, cut below zero."""
    assert len(plain) / 40 / 1000 == pytest.approx(2 * 0.97, rel=0.05)  # three in a hundred fall outside of the day
    hours = plain["time"].dt.hour
    assert hours.mean() == pytest.approx(11.5, abs=0.2)
    fair = plain[plain["scenario"] == 0]
    assert fair["amount"].min() >= 0
    assert fair["amount"].mean() == pytest.approx(52.5, rel=0.06)


def test_nobody_pays_beyond_reach_but_with_a_cloned_card(data, changed):
    """Every terminal is within five of the customer's home; cloned cards alone are used elsewhere."""
    cloned = changed["scenario"] == 4
    assert changed.loc[~cloned, "away"].max() <= 5
    assert (changed.loc[cloned, "away"] > 5).mean() > 0.9


def test_what_is_large_is_fraud(plain):
    """Scenario 1: no fair payment is above 220, and some frauds are frauds for that alone."""
    assert plain.loc[plain["fraud"] == 0, "amount"].max() <= 220
    assert plain.loc[plain["scenario"] == 1, "amount"].min() > 220
    assert (plain["scenario"] == 1).sum() > 10


def test_a_compromised_terminal_makes_nothing_but_frauds_for_28_days(data):
    """Scenario 2: every terminal that is hit is hit wholly, and for 28 days after its first day."""
    world = data.World(customers=1000, seed=3, changes=())
    rows = world.payments(0, 80)
    for begun in range(10, 40):
        for terminal in world._hit_on(2, data.TERMINALS, 2000, begun):
            of_it = rows[(rows["terminal"] == terminal) & day(data, rows).between(begun, begun + 27)]
            assert (of_it["fraud"] == 1).all()
    alone = rows[(rows["scenario"] == 2)]
    assert alone["terminal"].nunique() > 10


def test_a_third_of_a_leaked_cards_payments_are_five_times_as_large(data):
    """Scenario 3: a third of the payments of two weeks, and five times the amount that the same draw gives without."""
    world, without = data.World(1000, 3, ()), data.World(1000, 3, ())
    rows = world.payments(20, 50)
    leaked = rows[rows["scenario"] == 3]
    cards = {(begun, card) for begun in range(7, 50) for card in world._hit_on(3, data.CARDS, 1000, begun)}
    of_cards = pd.concat(
        [rows[(rows["customer"] == card) & day(data, rows).between(begun, begun + 13)] for begun, card in cards]
    ).drop_duplicates("payment")
    assert (of_cards["scenario"] == 3).mean() == pytest.approx(1 / 3, abs=0.03)
    assert set(leaked["payment"]) <= set(of_cards["payment"])
    ordinary = without.payments(20, 50).set_index("payment")["amount"]
    assert len(ordinary) == len(rows)
    means = world._people[1]
    assert (leaked["amount"] / means[leaked["customer"]]).mean() == pytest.approx(5, rel=0.1)


def test_frauds_are_as_rare_as_published(data):
    """About .84 % in all, and the three scenarios about as 973 : 9,077 : 4,631, over the handbook's half-year at a fifth of its size."""
    rows = data.World(1000, 11, ()).payments(0, 183)
    counts = rows["scenario"].value_counts()
    assert rows["fraud"].mean() == pytest.approx(0.0084, rel=0.25)
    assert len(rows) == pytest.approx(1_754_155 / 5, rel=0.05)
    for scenario, published in ((1, 973), (2, 9_077), (3, 4_631)):
        assert counts[scenario] == pytest.approx(published / 5, rel=0.4)


def test_the_same_seed_gives_the_same_rows_and_any_day_alone(data):
    """A day is the same whether it is drawn alone or among others, and another seed gives another world."""
    one = data.World(300, 5).payments(90, 110)
    again = data.World(300, 5).payments(104, 105)
    of_day = one[day(data, one) == 104].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_day, again)
    assert not data.World(300, 6).payments(104, 105).equals(again)


# -- what changes -----------------------------------------------------------------------------------------------------
def test_patterns_begin_and_end_at_their_dates(data, changed):
    """Cloned cards from 14 April on; no terminal is newly compromised from 19 May on, the last ones end 28 days later."""
    days = day(data, changed)
    assert days[changed["scenario"] == 4].min() == 98
    assert days[changed["scenario"] == 2].max() <= 133 + 26
    assert (changed["scenario"][days < 98] == 4).sum() == 0
    assert (changed["scenario"][days >= 161] == 2).sum() == 0


def test_two_histories_of_a_seed_are_equal_up_to_the_first_change(data, changed):
    """Without changes the payments before 14 April are the same to the last digit."""
    without = data.World(changes=()).payments(0, 98)
    pd.testing.assert_frame_equal(changed[day(data, changed) < 98].reset_index(drop=True), without)


# -- features ---------------------------------------------------------------------------------------------------------
def test_features_are_what_a_loop_over_the_past_finds(data):
    """Counts, means and risks of a small world against a plain loop over every payment before."""
    rows = data.World(40, 2).payments(60, 110)
    found = data.with_features(rows)
    rng = np.random.default_rng(0)
    for place in rng.choice(len(rows), 150, replace=False):
        row, until = rows.iloc[place], rows.iloc[: place + 1]
        for days in (1, 7, 30):
            mine = until[
                (until["customer"] == row["customer"]) & (until["time"] > row["time"] - pd.Timedelta(days=days))
            ]
            assert found[f"customer_count_{days}d"].iloc[place] == len(mine)
            assert found[f"customer_mean_{days}d"].iloc[place] == pytest.approx(mine["amount"].mean(), abs=1e-4)
            known = rows["time"] <= row["time"] - pd.Timedelta(days=7)
            there = rows[
                known
                & (rows["terminal"] == row["terminal"])
                & (rows["time"] > row["time"] - pd.Timedelta(days=7 + days))
            ]
            assert found[f"terminal_count_{days}d"].iloc[place] == len(there)
            risk = there["fraud"].mean() if len(there) else 0
            assert found[f"terminal_risk_{days}d"].iloc[place] == pytest.approx(risk, abs=1e-6)
    assert (found["weekend"] == rows["time"].dt.strftime("%a").isin(["Sat", "Sun"])).all()


def test_no_feature_knows_the_future_or_a_fraud_before_it_is_found(data):
    """Turning every label of the last seven days, and dropping what comes later, changes no feature of a payment."""
    rows = data.World(60, 2).payments(60, 100)
    found, cut = data.with_features(rows), len(rows) * 2 // 3
    earlier = rows[:cut]
    at = earlier["time"].iloc[-1]
    bent = earlier.assign(
        fraud=earlier["fraud"].where(earlier["time"] <= at - pd.Timedelta(days=7), 1 - earlier["fraud"])
    )
    again = data.with_features(bent)
    last = found["time"][:cut] == at
    pd.testing.assert_frame_equal(
        again.loc[last.to_numpy(), data.FEATURES], found[:cut].loc[last.to_numpy(), data.FEATURES]
    )
    whole = data.with_features(earlier)
    pd.testing.assert_frame_equal(whole, found[:cut])


def test_days_alone_have_the_features_of_the_whole(data):
    """A week that is drawn by itself has the windows of the weeks before it."""
    world = data.World(200, 5)
    whole = data.with_features(world.payments(0, 70))
    week = data.days(world, 63, 70)
    expected = whole[day(data, whole) >= 63].reset_index(drop=True)
    pd.testing.assert_frame_equal(week[data.FEATURES], expected[data.FEATURES])


# -- landing ----------------------------------------------------------------------------------------------------------
def test_every_row_of_a_batch_lands(data, tmp_path, monkeypatch):
    """Two weekly files of the half-year keep the contract: arrived = landed."""
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(REPOSITORY / "deployments"))
    settings = Settings()
    landings = Landings(Project.named("fraud", settings), settings, lambda: NOW)
    files = data.batches(tmp_path / "files", "week", data.World(100), length=14)
    assert [file.name for file in files] == ["2025-W02.csv", "2025-W03.csv"]
    for file in files:
        landing = landings.land(file)
        assert (landing.state, landing.arrived) == ("landed", landing.landed), landing


# -- sanity -----------------------------------------------------------------------------------------------------------
MODELS = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "tree of depth two": lambda: DecisionTreeClassifier(max_depth=2, random_state=0),
    "random forest": lambda: RandomForestClassifier(random_state=0, n_jobs=2),
}


def handbook_protocol(data, seed: int) -> dict[str, float]:
    """Average precision of the handbook's models: a week to learn from, a week's delay, a week to judge by, known victims left out."""
    rows = data.with_features(data.World(data.HANDBOOK, seed, ()).payments(60, 136))
    days, features = day(data, rows), ["amount", "weekend", "night", *data.FEATURES]
    train = rows[days.between(115, 121)]
    victims = set(train.loc[train["fraud"] == 1, "customer"])
    judged = []
    for at in range(129, 136):
        victims |= set(rows.loc[(days == at - 8) & (rows["fraud"] == 1), "customer"])
        judged.append(rows[(days == at) & ~rows["customer"].isin(victims)])
    test = pd.concat(judged)
    return {
        name: average_precision_score(test["fraud"], make().fit(train[features], train["fraud"]).predict_proba(test[features])[:, 1])
        for name, make in MODELS.items()
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_models_are_about_as_good_as_published(data, capsys):
    """Handbook, chapter 3.5: logistic .606, tree of depth two .496, forest .658 on its one world; ours over six worlds are printed, and
    the published figures lie within three standard deviations of ours."""  # noqa: D205, D209
    found = pd.DataFrame([handbook_protocol(data, seed) for seed in range(6)])
    with capsys.disabled():
        sys.stdout.write(f"\n{found.describe().loc[['mean', 'std', 'min', 'max']].round(3).to_string()}\n")
    for name, published in {"logistic": 0.606, "tree of depth two": 0.496, "random forest": 0.658}.items():
        assert abs(found[name].mean() - published) < 3 * found[name].std(), name
    assert (found["random forest"] > found["logistic"]).mean() > 0.5
