"""Splits: no row lost, none in two parts, and the judge is always newer."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
from hypothesis import given, settings

from tasks.ml.split import TimeSplit

ROWS = st.lists(st.integers(0, 40), min_size=1, max_size=60).map(
    lambda hours: pd.DataFrame(
        {"at": pd.Timestamp("2020", tz="UTC") + pd.to_timedelta(hours, unit="h"), "id": range(len(hours))}
    )
)
SHARES = st.floats(0.05, 0.6)


@settings(deadline=None)
@given(ROWS, SHARES, SHARES)
def test_a_split_loses_no_row_and_doubles_none(rows, holdout, validation):
    """The parts together are the rows, each once."""
    parts = TimeSplit(column="at", holdout=holdout, validation=validation).apply(rows)
    together = pd.concat([parts.train, parts.validation, parts.holdout])
    assert sorted(together["id"]) == list(range(len(rows)))


@settings(deadline=None)
@given(ROWS, SHARES, SHARES)
def test_every_part_is_newer_than_the_one_before(rows, holdout, validation):
    """No instant stands in two parts, and the holdout is the newest."""
    parts = TimeSplit(column="at", holdout=holdout, validation=validation).apply(rows)
    for older, newer in [
        (parts.train, parts.validation),
        (parts.validation, parts.holdout),
        (parts.train, parts.holdout),
    ]:
        assert older.empty or newer.empty or older["at"].max() < newer["at"].min()
    assert len(parts.holdout)


@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(rows, random):
    """Shuffled rows fall into the same parts."""
    order = list(range(len(rows)))
    random.shuffle(order)
    split = TimeSplit(column="at")
    for name in ("train", "validation", "holdout"):
        assert set(getattr(split.apply(rows), name)["id"]) == set(getattr(split.apply(rows.iloc[order]), name)["id"])


def test_shares_are_kept():
    """With distinct instants the parts have the sizes that were asked for."""
    rows = pd.DataFrame({"at": pd.date_range("2020", periods=1000, tz="UTC")})
    parts = TimeSplit(column="at", holdout=0.2, validation=0.15).apply(rows)
    assert (len(parts.train), len(parts.validation), len(parts.holdout)) == (680, 120, 200)


def test_one_instant_is_never_cut():
    """Rows of a single instant are all holdout: there is nothing older to learn from."""
    parts = TimeSplit(column="at").apply(pd.DataFrame({"at": [pd.Timestamp("2020", tz="UTC")] * 10}))
    assert (len(parts.train), len(parts.validation), len(parts.holdout)) == (0, 0, 10)


def test_no_rows_split_into_no_rows():
    """An empty frame has three empty parts."""
    parts = TimeSplit(column="at").apply(pd.DataFrame({"at": pd.to_datetime([], utc=True)}))
    assert [len(part) for part in (parts.train, parts.validation, parts.holdout)] == [0, 0, 0]


@settings(deadline=None)
@given(ROWS, SHARES, st.integers(1, 5))
def test_folds_look_forward_only(rows, validation, count):
    """Each fold learns from rows before those it is scored on, each reaches further, the last to the last row."""
    folds = TimeSplit(column="at", validation=validation).folds(rows, count)
    for before, after in folds:
        assert before["at"].max() <= after["at"].min()
        assert not set(before["id"]) & set(after["id"])
    ends = [after["at"].max() for _, after in folds]
    assert ends == sorted(ends)
    assert not folds or ends[-1] == rows["at"].max()


def test_splitting_changes_no_argument():
    """The frame that was handed in stays as it was."""
    rows = pd.DataFrame({"at": pd.date_range("2020", periods=9, tz="UTC")[::-1]})
    before = rows.copy(deep=True)
    TimeSplit(column="at").apply(rows)
    pd.testing.assert_frame_equal(rows, before)


# -- labels that come late ----------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(ROWS, SHARES, st.floats(0, 2))
def test_rows_whose_label_may_change_are_in_no_part(rows, share, days):
    """Every row is in one part or immature, and immature is what is younger than so many days before the newest row."""
    parts = TimeSplit(column="at", holdout=share, matures=days).apply(rows)
    together = pd.concat([parts.train, parts.validation, parts.holdout])
    young = rows["at"] > rows["at"].max() - pd.Timedelta(days=days)
    assert sorted(together["id"]) == sorted(rows.loc[~young, "id"])
    assert parts.immature == young.sum()


def labelled(rows: pd.DataFrame, now: pd.Timestamp, negative_after: int) -> pd.DataFrame:
    """What has landed at an hour of a simulated clock: a positive within a day, a negative when so many days are over."""
    wait = pd.to_timedelta(np.where(rows["y"], 1, negative_after), unit="D")
    return rows[rows["at"] + wait <= now].reset_index(drop=True)


def test_i_19_positives_that_are_labelled_first_do_not_spoil_the_holdout():
    """Over 30 simulated days of delay the newest rows look far too positive; with the delay told, every holdout has the true rate."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"at": pd.date_range("2026-01-01", periods=24 * 200, freq="h", tz="UTC"), "id": range(24 * 200)}
    )
    rows["y"] = rng.random(len(rows)) < 0.2
    for day in range(120, 180, 10):
        known = labelled(rows, rows["at"].iloc[24 * day], negative_after=30)
        naive = TimeSplit(column="at", holdout=0.2).apply(known)
        patient = TimeSplit(column="at", holdout=0.2, matures=30).apply(known)
        true = rows["y"][rows["at"].isin(patient.holdout["at"])].mean()
        assert naive.holdout["y"].mean() > 0.3
        assert abs(patient.holdout["y"].mean() - true) < 0.01
        assert patient.immature == (known["at"] > known["at"].max() - pd.Timedelta(days=30)).sum() > 0
        pending = known[known["at"] > patient.holdout["at"].max()]
        assert pending["y"].mean() > 0.8  # what would have raised a false alarm


def test_i_07_a_split_follows_from_the_rows_alone():
    """The same rows split the same at any time: maturity is counted from the newest row, and later rows make another snapshot."""
    rows = pd.DataFrame({"at": pd.date_range("2020-01-01", periods=100, freq="D", tz="UTC"), "id": range(100)})
    split = TimeSplit(column="at", matures=10)
    before, again = split.apply(rows), split.apply(rows.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(before.holdout, again.holdout)
    assert (before.immature, before.holdout["id"].max()) == (10, 89)
    more = split.apply(pd.concat([rows, rows.tail(5).assign(at=rows["at"].max() + pd.Timedelta(days=4))]))
    assert more.holdout["id"].max() == 93
