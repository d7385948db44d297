"""Splits: no row lost, none in two parts, and the judge is always newer."""

import hashlib
import math
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from pydantic import TypeAdapter, ValidationError

from tasks.ml import identity
from tasks.ml.split import FEWEST, ROW, ChanceSplit, GroupSplit, GroupTimeSplit, Parts, Split, TimeSplit
from tasks.stores import lake

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


@given(size=st.integers(60, 400), validation=st.floats(0.02, 0.4), count=st.integers(1, 5))
def test_a_fold_is_judged_as_far_ahead_as_the_holdout(size, validation, count):
    """Between the rows that a fold learns from and those it is scored on lie as many as it is scored on; it always learns from some."""
    rows = pd.DataFrame({"at": pd.date_range("2020", periods=size, tz="UTC")}).assign(id=range(size))
    folds = TimeSplit(column="at", validation=validation).folds(rows, count)
    assert len(folds) == count
    for before, after in folds:
        assert before["id"].iloc[0] == 0
        between = after["id"].iloc[0] - before["id"].iloc[-1] - 1
        assert abs(between - len(after)) <= 1
        assert len(after) <= max(size * validation, size / (count + 2)) + 1


def test_a_search_that_cannot_use_all_rows_sees_the_whole_history():
    """Of 1,000 days the 100 that are taken lie evenly from the first to the last tenth."""
    rows = pd.DataFrame({"at": pd.date_range("2020", periods=1000, tz="UTC")[::-1]}).assign(id=range(1000))
    taken = TimeSplit(column="at").at_most(rows, 100)["at"]
    assert taken.is_monotonic_increasing
    assert set(taken.diff().dropna()) == {pd.Timedelta(days=10)}
    assert taken.iloc[0] == rows["at"].min()


def test_splitting_changes_no_argument():
    """The frame that was handed in stays as it was."""
    rows = pd.DataFrame({"at": pd.date_range("2020", periods=9, tz="UTC")[::-1]})
    before = rows.copy(deep=True)
    TimeSplit(column="at").apply(rows)
    pd.testing.assert_frame_equal(rows, before)


# -- labels that come late ----------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(ROWS, SHARES, SHARES, st.floats(0, 2))
def test_what_is_fitted_at_last_had_its_label_when_the_holdout_began(rows, holdout, validation, days):
    """Train, and of validation every row that is old enough, and no other; how many were not is told.

    Train has none of them either, unless too few others were left to judge so many.
    """
    parts = TimeSplit(column="at", holdout=holdout, validation=validation, matures=days).apply(rows)
    old = parts.validation["at"] + pd.Timedelta(days=days) <= parts.holdout["at"].min()
    assert parts.both["id"].tolist() == [*parts.train["id"], *parts.validation.loc[old, "id"]]
    assert parts.late == (~old).sum()
    early = (parts.train["at"] + pd.Timedelta(days=days) <= parts.holdout["at"].min()).sum()
    assert early + parts.unripe == len(parts.train)
    assert not parts.unripe or (parts.purged == 0 and early < max(len(parts.validation) / 2, FEWEST))


@pytest.mark.parametrize(("days", "purged"), [(0, 0), (10, 0), (13, 0), (20, 7), (31, 18), (32, 0)])
def test_train_has_no_label_that_was_not_known_when_the_holdout_began(days, purged):
    """Of 100 days 20 judge and 12 validate: beyond those the delay takes days of train away, as long as 50 are left; else it is told."""
    rows = pd.DataFrame({"at": pd.date_range("2020", periods=100, tz="UTC")}).assign(id=range(100))
    newest = rows["at"].max() + pd.Timedelta(days=days)  # everything here is final by now
    parts = TimeSplit(column="at", matures=days).apply(rows, newest)
    assert (len(parts.validation), len(parts.holdout), parts.immature) == (12, 20, 0)
    assert (parts.purged, len(parts.train)) == (purged, 68 - purged)
    assert parts.late == (12 if days > 12 else max(days - 1, 0))
    assert parts.unripe == (19 if days == 32 else 0)


def test_a_fold_learns_no_label_that_was_not_known_when_its_later_rows_began():
    """Of 100 days with labels after 20, the first rows that are judged begin on days 55, 70, 85: what is learned ends 20 days before."""
    rows = pd.DataFrame({"at": pd.date_range("2020", periods=100, tz="UTC")}).assign(id=range(100))
    folds = TimeSplit(column="at", matures=20).folds(rows, 3)
    assert [(before["id"].max(), after["id"].min()) for before, after in folds] == [(35, 55), (50, 70), (65, 85)]


@pytest.mark.parametrize(("days", "learned"), [(45, [10, 25, 40]), (60, [10, 25]), (90, [39, 54, 69])])
def test_a_fold_with_few_rows_to_learn_from_is_left_out(days, learned):
    """15 days judge each time. Where no label was final for any of them, those that were not final teach, too."""
    rows = pd.DataFrame({"at": pd.date_range("2020", periods=100, tz="UTC")}).assign(id=range(100))
    assert [before["id"].max() for before, _ in TimeSplit(column="at", matures=days).folds(rows, 3)] == learned


@settings(deadline=None)
@given(ROWS, SHARES, st.floats(0, 2))
def test_rows_whose_label_may_change_are_in_no_part(rows, share, days):
    """Every row is in one part, purged or immature, and immature is what is younger than so many days before the newest row."""
    parts = TimeSplit(column="at", holdout=share, matures=days).apply(rows)
    together = pd.concat([parts.train, parts.validation, parts.holdout])
    young = rows["at"] > rows["at"].max() - pd.Timedelta(days=days)
    assert set(together["id"]) <= set(rows.loc[~young, "id"])
    assert len(together) + parts.purged == (~young).sum()
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


# -- every kind of split ------------------------------------------------------------------------------------------------
NAMES = ("train", "validation", "holdout")
SPLITS = {
    "time": TimeSplit(column="at", holdout=0.3, validation=0.3),
    "group": GroupSplit(group="who", column="at", holdout=0.3, validation=0.3),
    "group_time": GroupTimeSplit(group="who", column="at", holdout=0.3, validation=0.3),
    "group_time by number": GroupTimeSplit(group="who", column="at", holdout=2, validation=1),
    "chance": ChanceSplit(column="at", holdout=0.3, validation=0.3),
}
EVERY = pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
BY_HASH = pytest.mark.parametrize("split", [SPLITS["group"], SPLITS["chance"]], ids=["group", "chance"])


def frame(cells: Sequence[tuple[int, str | None, bool]]) -> pd.DataFrame:
    """Rows as the lake hands them out: hours, groups, classes, and names by content."""
    hours, groups, classes = zip(*cells, strict=True) if cells else ((), (), ())
    rows = pd.DataFrame(
        {
            "at": pd.Timestamp("2020", tz="UTC") + pd.to_timedelta(list(hours), unit="h"),
            "who": pd.array(groups, dtype="str"), "y": pd.array(classes, dtype="boolean"), "id": range(len(cells)),
        }
    )  # fmt: skip
    names = identity.as_text(identity.row_ids(pa.Table.from_pandas(rows, preserve_index=False)))
    return rows.assign(**{ROW: pd.array(names, dtype="str")})


CELLS = st.lists(
    st.tuples(st.integers(0, 60), st.one_of(st.none(), st.sampled_from("abcdefgh")), st.booleans()), max_size=60
)
FRAMES = CELLS.map(frame)


def chosen(keep: list[bool], rows: pd.DataFrame) -> np.ndarray:
    """Which of the rows were there already when an earlier model was trained."""
    return np.array(keep[: len(rows)], dtype=bool)


def members(parts: Parts) -> dict[str, set[int]]:
    """The rows of each part by `id`."""
    return {name: set(getattr(parts, name)["id"]) for name in NAMES}


@EVERY
@settings(deadline=None, max_examples=40)
@given(rows=FRAMES, days=st.sampled_from([0, 0.5]), gone=st.sets(st.integers(0, 60)))
def test_what_is_left_of_rows_stands_where_it_stood(split, rows, days, gone):
    """Whichever rows are erased: of the others none that taught judges, and none that judged teaches; of all rows the sides are those of `apply`."""
    split = split.model_copy(update={"matures": days})
    whole = split.apply(rows)
    taught, judged = {*whole.train["id"], *whole.validation["id"]}, set(whole.holdout["id"])
    seen_until = split.seen_until(whole)
    assume(taught)  # else there is no model
    again = split.again(rows, seen_until)
    assert (set(again.both["id"]), set(again.holdout["id"])) == (taught, judged)
    left = split.again(rows[~rows["id"].isin(gone)], seen_until)
    if split.kind != "group_time":
        assert set(left.both["id"]) <= taught - gone
        assert set(left.holdout["id"]) <= judged - gone
        assert days or len(left.both) + len(left.holdout) == len(rows) - len(gone & set(rows["id"]))


@EVERY
@settings(deadline=None, max_examples=40)
@given(rows=FRAMES, days=st.sampled_from([0, 0.5, 1]))
def test_every_split_parts_the_mature_rows(split, rows, days):
    """Each mature row is in one part or purged, none is in two, and immature rows are counted."""
    parts = split.model_copy(update={"matures": days}).apply(rows)
    together = pd.concat([parts.train, parts.validation, parts.holdout])["id"]
    young = rows["at"] > rows["at"].max() - pd.Timedelta(days=days)
    assert set(together) <= set(rows.loc[~young, "id"])
    assert len(together) == len(set(together)) == (~young).sum() - parts.purged
    assert parts.immature == young.sum()


@EVERY
@settings(deadline=None, max_examples=40)
@given(rows=FRAMES, random=st.randoms(use_true_random=False))
def test_o_17_no_split_depends_on_the_order_of_rows(split, rows, random):
    """Shuffled rows under any index fall into the same parts and folds, and the argument stays as it was."""
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = rows.iloc[order]
    before = shuffled.copy(deep=True)
    assert members(split.apply(rows)) == members(split.apply(shuffled))
    pd.testing.assert_frame_equal(shuffled, before)
    if not split.by_time:  # rows of one instant may stand on both sides of a fold that time cuts by number
        judged = [[set(after["id"]) for _, after in split.folds(each, 3, "y")] for each in (rows, shuffled)]
        assert judged[0] == judged[1]


@EVERY
@settings(deadline=None, max_examples=40)
@given(rows=FRAMES, count=st.integers(1, 5), target=st.sampled_from([None, "y"]))
def test_no_fold_of_any_split_judges_what_it_learned(split, rows, count, target):
    """Both sides of a fold have rows, none in common, all of them from the rows handed in; there are at most so many folds."""
    folds = split.folds(rows, count, target)
    assert len(folds) <= count
    for learned, judged in folds:
        assert len(learned)
        assert len(judged)
        assert not set(learned["id"]) & set(judged["id"])
        assert set(learned["id"]) | set(judged["id"]) <= set(rows["id"])
    every = [row for _, judged in folds for row in judged["id"]]
    assert len(every) == len(set(every))


@EVERY
@settings(deadline=None, max_examples=40)
@given(rows=FRAMES, keep=st.lists(st.booleans(), min_size=60, max_size=60), days=st.sampled_from([0, 0.5]))
def test_what_is_called_unseen_was_never_learned_from(split, rows, keep, days):
    """A model of any earlier snapshot, rows may land late, saw no row of today's holdout that is said to be unseen by it."""
    split = split.model_copy(update={"matures": days})
    earlier = split.apply(rows[chosen(keep, rows)])
    holdout = split.apply(rows).holdout
    until = split.seen_until(earlier)
    unseen = split.unseen(holdout, until)
    saw = members(earlier)["train"] | members(earlier)["validation"]
    assert unseen.shape == (len(holdout),)
    assert not set(holdout.loc[unseen, "id"]) & saw
    assert split.by_time or unseen.all()
    if split.by_time and saw:
        assert unseen.tolist() == (holdout["at"] > rows.loc[rows["id"].isin(saw), "at"].max()).tolist()


@EVERY
def test_where_the_column_is_gone_that_tells_it_no_row_is_surely_unseen(split):
    """A contract of today has no more what a model was split by; rows that are parted by their names alone need no column."""
    rows = frame([(hour, f"{hour % 40}", True) for hour in range(1, 60)])
    until = "2020-01-01T00:00:00+00:00"
    known = split.unseen(rows, until)
    gone = split.unseen(rows.drop(columns=["at", "who"]), until)
    assert known.any()
    assert gone.tolist() == (known if split.kind == "chance" else np.zeros(59, dtype=bool)).tolist()


@BY_HASH
@settings(deadline=None, max_examples=40)
@given(rows=FRAMES, keep=st.lists(st.booleans(), min_size=60, max_size=60))
def test_a_row_never_changes_its_side_when_data_grow(split, rows, keep):
    """Whatever arrives or leaves, each row stands where it stood."""
    few, many = members(split.apply(rows[chosen(keep, rows)])), members(split.apply(rows))
    for name in NAMES:
        assert few[name] <= many[name]


@EVERY
def test_i_19_no_label_that_may_change_is_judged_by(split):
    """With a delay of 30 days positives that are labelled first stay out of every part of every split."""
    rng = np.random.default_rng(3)
    rows = frame([(hour, "abcdefgh"[hour % 8], bool(rng.random() < 0.2)) for hour in range(24 * 120)])
    known = labelled(rows, rows["at"].max(), negative_after=30)
    parts = split.model_copy(update={"matures": 30}).apply(known)
    assert abs(pd.concat([parts.train, parts.validation, parts.holdout])["y"].astype(float).mean() - 0.2) < 0.02
    assert split.apply(known).immature == 0
    assert parts.immature == (known["at"] > known["at"].max() - pd.Timedelta(days=30)).sum() > 50


@EVERY
def test_i_19_what_is_final_is_counted_back_from_the_newest_row_of_all(split):
    """Rows that have no label yet are newer than those that are split: they take none of these away twice."""
    rows = frame([(24 * day, "abcdefgh"[day % 8], True) for day in range(100)])
    delayed, newest = split.model_copy(update={"matures": 5}), rows["at"].max()
    labelled = rows[rows["at"] <= newest - pd.Timedelta(days=5)]
    assert members(delayed.apply(labelled, newest)) == members(split.apply(labelled))
    assert delayed.apply(labelled, newest).immature == 0
    assert delayed.apply(labelled).immature == 5
    parts = delayed.apply(labelled, newest)
    again = delayed.again(labelled, split.seen_until(parts), newest)
    assert set(again.holdout["id"]) == set(parts.holdout["id"])


@EVERY
@settings(deadline=None, max_examples=40)
@given(rows=FRAMES, days=st.sampled_from([0, 0.5, 1]))
def test_i_19_a_baseline_knows_no_label_that_was_not_final(split, rows, days):
    """Of what came before a row, by time and then in order, the newest that was final; where rows stand apart by chance nothing comes before."""
    split = split.model_copy(update={"matures": days})
    made = split.apply(rows)
    parts = [made.train, made.validation, made.holdout]
    found = split.newest_known(parts)
    if not split.by_time:
        assert found is None
        return
    keys = [*zip(pd.concat(parts)["at"], range(sum(map(len, parts))), strict=True)]
    for (at, place), newest in zip(keys, np.asarray(found).tolist(), strict=True):
        known = [key for key in keys if key < (at, place) and key[0] <= at - pd.Timedelta(days=days)]
        assert newest == max(known, default=min(keys))[1]


@EVERY
def test_i_16_a_single_class_splits_like_any_other(split):
    """Where all labels are one class, or none is known, rows are still parted and folded; whoever trains says it cannot."""
    for label in (True, None):
        rows = frame([(hour, "abcdefgh"[hour % 8], True) for hour in range(160)])
        rows["y"] = pd.array([label] * len(rows), dtype="boolean")
        assert sum(map(len, members(split.apply(rows)).values())) == 160
        folds = split.folds(rows, 3, "y")
        assert len(folds) == 3
        assert {truth for _, judged in folds for truth in judged["y"].dropna()} == ({True} if label else set())


@EVERY
@settings(deadline=None, max_examples=40)
@given(rows=FRAMES, count=st.integers(1, 70))
def test_a_search_gets_no_more_rows_than_it_asked_for(split, rows, count):
    """All rows when they are few enough; else at most so many, or two whole groups."""
    taken = split.at_most(rows, count)
    assert set(taken["id"]) <= set(rows["id"])
    if len(rows) <= count:
        assert len(taken) == len(rows)
    elif split.kind in {"time", "chance"}:
        assert len(taken) == count
    else:
        groups = taken["who"].fillna(taken[ROW])
        assert len(taken) <= count or groups.nunique() <= 2
        whole = rows["who"].fillna(rows[ROW]).isin(set(groups))
        assert set(rows.loc[whole, "id"]) == set(taken["id"])


def test_clocks_that_are_changed_do_not_disorder_rows():
    """The hour that Berlin lives through twice is two hours: later rows judge, whatever the wall says."""
    instants = pd.date_range("2026-10-24T23:00", periods=10, freq="30min", tz="UTC")
    rows = frame([(0, "a", True)] * 10).assign(at=instants.tz_convert("Europe/Berlin"))
    for split in (SPLITS["time"], SPLITS["group_time"]):
        parts = split.apply(rows.iloc[::-1])
        assert [list(getattr(parts, name)["id"]) for name in NAMES] == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
        earlier = split.apply(rows.iloc[:4])
        assert split.unseen(rows, split.seen_until(earlier)).sum() == 10 - 1 - max(members(earlier)["train"] | members(earlier)["validation"])  # fmt: skip


# -- groups -------------------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=40)
@given(FRAMES, st.integers(1, 5))
def test_no_group_stands_on_two_sides(rows, count):
    """All rows of a group are in one part, and on one side of every fold; rows without a group go each their own way."""
    split = SPLITS["group"]
    parts = split.apply(rows)
    sides = [set(getattr(parts, name)["who"].dropna()) for name in NAMES]
    assert len(set.union(*sides)) == sum(map(len, sides))
    for learned, judged in split.folds(rows, count, "y"):
        assert not set(learned["who"].dropna()) & set(judged["who"].dropna())


@pytest.mark.parametrize("seed", [0, 7])
def test_a_group_stands_where_its_keyed_hash_says(seed):
    """Computed here with hashlib, group by group: the same in every process, on every machine, for ever."""

    def side(group: str) -> str:
        digest = hashlib.blake2b(group.encode(), digest_size=8, key=f"split {seed}".encode()).hexdigest()
        chance = int(digest, 16) / 2**64
        return "holdout" if chance < 0.3 else "validation" if chance < 0.3 + 0.7 * 0.5 else "train"

    rows = pd.DataFrame({"who": [f"patient {n}" for n in range(300)] * 2})
    parts = GroupSplit(group="who", holdout=0.3, validation=0.5, seed=seed).apply(rows)
    for name in NAMES:
        assert set(getattr(parts, name)["who"]) == {group for group in rows["who"] if side(group) == name}
        assert len(getattr(parts, name)) > 100


def test_another_seed_holds_out_other_groups_and_rows():
    """The seed is the key of the hash, for groups as for rows."""
    rows = frame([(hour, f"customer {hour}", True) for hour in range(400)])
    for kind in (GroupSplit(group="who"), ChanceSplit()):
        first, second = (members(kind.model_copy(update={"seed": seed}).apply(rows))["holdout"] for seed in (0, 1))
        assert 0.05 < len(first & second) / len(first) < 0.4  # a fifth by chance


@pytest.mark.parametrize("values", [
    pd.array([*range(100)], dtype="int64"), pd.array([*range(100)], dtype="Int64"), pd.array([*range(100)], dtype="float64"),
    pd.array([str(number) for number in range(100)], dtype="str"), pd.Categorical([str(number) for number in range(100)]),
], ids=["int64", "Int64", "float64", "str", "category"])  # fmt: skip
def test_a_group_stays_whatever_type_holds_it(values):
    """A column of integers that becomes floats, because one is missing, moves nobody."""
    split = GroupSplit(group="who")
    side = members(split.apply(pd.DataFrame({"who": [*range(100)], "id": range(100)})))
    assert members(split.apply(pd.DataFrame({"who": values, "id": range(100)}))) == side
    gap = pd.DataFrame({"who": [*range(100), None], "id": range(101), ROW: "0" * 32})
    assert all(side[name] <= members(split.apply(gap))[name] for name in NAMES)


def test_a_group_can_be_a_day():
    """Instants are groups by what they are, not by the zone or the unit that shows them."""
    days = pd.Series(pd.date_range("2026", periods=100, tz="UTC"))
    split = GroupSplit(group="day")
    shown = [days, days.dt.tz_convert("Asia/Tokyo"), days.astype("datetime64[s, UTC]")]
    sides = [members(split.apply(pd.DataFrame({"day": each, "id": range(100)}))) for each in shown]
    assert sides[0] == sides[1] == sides[2]
    assert len(sides[0]["holdout"]) > 5


def test_rows_without_a_group_are_their_own_groups():
    """A thousand rows of nobody are split by their names, row by row, and need them."""
    rows = frame([(hour, None, True) for hour in range(1000)])
    split = GroupSplit(group="who", holdout=0.2)
    assert abs(len(split.apply(rows).holdout) - 200) < 5 * math.sqrt(1000 * 0.2 * 0.8)
    with pytest.raises(ValueError, match=r"no column '_row'.*as the lake reads them"):
        split.apply(rows.drop(columns=ROW))


@pytest.mark.parametrize("rare", [True, False])
def test_folds_of_groups_are_alike(rare):
    """Groups of very different size, a tenth with the rare class: every fold gets its part of groups, rows and rare ones."""
    sizes = [1, 2, 3, 40, 5, 6] * 20
    rows = pd.DataFrame(
        [(f"g{n}", rare, row, n) for n, size in enumerate(sizes) for row in range(size)],
        columns=["who", "y", "row", "n"],
    )
    rows["y"] ^= (rows["n"] % 10 != 0) | (rows["row"] > 0)  # one row of every tenth group
    folds = GroupSplit(group="who").folds(rows, 4, "y")
    assert [judged["who"].nunique() for _, judged in folds] == [30] * 4
    assert [(judged["y"] == rare).sum() for _, judged in folds] == [3] * 4
    assert max(len(judged) for _, judged in folds) < 1.1 * min(len(judged) for _, judged in folds)
    assert all(len(learned) + len(judged) == len(rows) for learned, judged in folds)


def test_a_giant_group_does_not_fill_the_search():
    """When one group has most of the rows, a search that takes fewer gets the others."""
    rows = frame([(0, "giant" if n < 900 else f"g{n % 20}", True) for n in range(1000)])
    for split in (SPLITS["group"], SPLITS["group_time"]):
        for giant in range(10):
            named = rows.assign(who=rows["who"].replace("giant", f"giant {giant}"))
            assert len(split.at_most(named, 500)) == 100


# -- time within groups -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["group_time", "group_time by number"])
@settings(deadline=None, max_examples=40)
@given(rows=FRAMES, count=st.integers(1, 4))
def test_within_a_group_the_judge_is_always_newer(name, rows, count):
    """In every group the parts follow each other in time, no instant is cut, and what judges has older rows to learn from."""
    split = SPLITS[name]
    parts = split.apply(rows)
    pairs = [(parts.train, parts.validation), (parts.validation, parts.holdout), *split.folds(rows, count)]
    for older, newer in pairs:
        for group, judged in newer.groupby("who", dropna=False):
            assert older.loc[older["who"] == group, "at"].max() < judged["at"].min()  # fails when it has none
    assert set(parts.validation["who"]) == set(parts.holdout["who"])


def test_every_group_is_judged_by_its_newest_rows():
    """Ten, twenty and four rows with a fifth each: counted by hand; the group of four and the rows of nobody only teach."""
    cells = [(hour, "a", True) for hour in range(10)] + [(100 + hour, "b", True) for hour in range(20)]
    rows = frame([*cells, *[(hour, "c", True) for hour in range(4)], *[(500 + hour, None, True) for hour in range(9)]])
    parts = GroupTimeSplit(group="who", column="at", holdout=0.2, validation=0.25).apply(rows)
    assert members(parts)["holdout"] == {8, 9, 26, 27, 28, 29}
    assert members(parts)["validation"] == {6, 7, 22, 23, 24, 25}
    by_number = GroupTimeSplit(group="who", column="at", holdout=1, validation=3, fewest=4).apply(rows)
    assert members(by_number)["holdout"] == {9, 29}  # the four of 'c' would leave none to learn from
    assert members(by_number)["validation"] == {6, 7, 8, 26, 27, 28}


def test_folds_within_groups_are_cut_by_hand():
    """Of ten rows a fifth each is judged in turn; a group too small teaches always; what has nothing older is not judged."""
    cells = [
        *[(hour, "a", True) for hour in range(10)],
        *[(99, "b", True)] * 2,
        *[(hour, "c", True) for hour in range(3)],
    ]
    split = GroupTimeSplit(group="who", column="at", validation=0.2, fewest=3)
    folds = [(set(learned["id"]), set(judged["id"])) for learned, judged in split.folds(frame(cells), 5)]
    small = {10, 11}
    assert folds == [
        (small | {0, 1, 12}, {2, 3}),  # not the first rows of 'a' and 'c' before: nothing is older
        (small | {0, 1, 2, 3, 12}, {4, 5, 13}),
        (small | {0, 1, 2, 3, 4, 5, 12, 13}, {6, 7}),
        (small | {*range(8), 12, 13}, {8, 9, 14}),
    ]


def test_a_group_of_one_instant_only_teaches():
    """Nothing of it is older than the rest, so it cannot be judged."""
    rows = frame([(5, "a", True)] * 30)
    assert members(SPLITS["group_time"].apply(rows)) == {"train": set(range(30)), "validation": set(), "holdout": set()}
    assert SPLITS["group_time"].folds(rows, 3) == []


def test_what_was_seen_of_groups_reaches_to_the_newest_row_of_all():
    """A small group that only teaches is newer than all that validates; the bound must not forget it."""
    split = SPLITS["group_time"]
    rows = frame([*[(hour, "a", True) for hour in range(20)], (30, "b", True)])
    parts = split.apply(rows)
    assert split.seen_until(parts) == "2020-01-02 06:00:00+00:00"
    assert not split.unseen(parts.holdout, split.seen_until(parts)).any()
    later = split.apply(frame([*[(hour, "a", True) for hour in range(50)], (30, "b", True)])).holdout
    assert split.unseen(later, split.seen_until(parts)).sum() == len(later) == 15


# -- chance -------------------------------------------------------------------------------------------------------------
def test_every_class_is_held_back_with_its_share():
    """Of 40,000 frequent and 2,000 rare rows each part has its share within five standard deviations of the binomial."""
    rows = frame([(0, None, number < 2000) for number in range(42_000)])
    parts = ChanceSplit(holdout=0.2, validation=0.25).apply(rows)
    for label, size in ((True, 2000), (False, 40_000)):
        for name, share in (("train", 0.6), ("validation", 0.2), ("holdout", 0.2)):
            found = int((getattr(parts, name)["y"] == label).sum())
            assert abs(found - size * share) < 5 * math.sqrt(size * share * (1 - share)), (name, label)


def test_a_row_stands_where_its_mixed_name_says():
    """Computed here in Python's own integers: SplitMix64 of the name's first half and the key."""
    rows, mask = frame([(hour, None, True) for hour in range(500)]), 2**64 - 1
    key = int(hashlib.blake2b(b"", digest_size=8, key=b"split 5").hexdigest(), 16)

    def chance(name: str) -> float:
        mixed = int(name[:16], 16) ^ key
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & mask
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & mask
        return (mixed ^ mixed >> 31) / 2**64

    held = set(ChanceSplit(holdout=0.4, seed=5).apply(rows).holdout[ROW])
    assert held == {name for name in rows[ROW] if chance(name) < 0.4}


@settings(deadline=None, max_examples=40)
@given(CELLS, st.integers(2, 5))
def test_folds_of_chance_have_every_class_alike(cells, count):
    """Each class is in each fold with the same number of rows, give or take one, and every row is judged once."""
    rows = frame(cells)
    folds = ChanceSplit().folds(rows, count, "y")
    if len(rows) < 2:
        assert not folds
        return
    assert sorted(row for _, judged in folds for row in judged["id"]) == list(range(len(rows)))
    parts = [judged["y"] for _, judged in folds] + [pd.Series(dtype="boolean")] * (count - len(folds))
    for label in (True, False):
        found = [int((part == label).sum()) for part in parts]
        assert max(found) - min(found) <= 1


def test_a_number_as_target_is_dealt_over_its_whole_range():
    """With a target of 300 different numbers the folds have the same mean: neighbours go to different folds."""
    rows = frame([(hour, None, True) for hour in range(300)]).assign(y=np.arange(300.0) ** 2)
    means = [judged["y"].mean() for _, judged in ChanceSplit().folds(rows, 3, "y")]
    assert max(means) / min(means) < 1.025


@pytest.mark.parametrize("names", [["row 1"] * 3, ["0" * 31] * 3, ["0" * 33] * 3, ["0" * 32, None, "0" * 32], ["é" * 32] * 3], ids=["words", "short", "long", "none", "letters"])  # fmt: skip
def test_rows_with_other_names_are_refused(names):
    """What is no row's name is shown, with what was wanted."""
    with pytest.raises(ValueError, match="is no row's name; wanted 32 hex digits"):
        ChanceSplit().apply(pd.DataFrame({ROW: names}))


def test_the_lake_and_the_splits_name_rows_alike():
    """The column of names is the lake's."""
    assert lake.ROW == ROW


@BY_HASH
def test_a_changed_split_is_asked_what_it_had_held_back(split):
    """When the share to hold back has grown, the split of the older model tells which judged rows it has seen."""
    rows = frame([(hour, f"customer {hour}", True) for hour in range(500)])
    older, newer = split, split.model_copy(update={"holdout": 0.6})
    holdout = newer.apply(rows).holdout
    unseen = older.unseen(holdout, older.seen_until(older.apply(rows)))
    assert set(holdout.loc[unseen, "id"]) == members(older.apply(rows))["holdout"]
    assert 0 < unseen.sum() < len(holdout)


# -- what a project may say ---------------------------------------------------------------------------------------------
def test_a_split_is_told_by_its_kind():
    """`kind` chooses the split, time when it is left out, and every split comes back from its own fields."""
    splits = TypeAdapter(Split)
    for split in SPLITS.values():
        assert splits.validate_python(split.model_dump()) == split
        assert splits.validate_json(split.model_dump_json()) == split
    assert splits.validate_python({"column": "at"}) == TimeSplit(column="at")
    assert isinstance(splits.validate_python({"kind": "group_time", "group": "who", "column": "at"}), GroupTimeSplit)


def test_a_split_says_which_columns_it_needs():
    """Names and types for the contract; a group may be of any type."""
    needed = {name: split.columns_needed() for name, split in SPLITS.items()}
    assert needed["time"] == {"at": "datetime"}
    assert needed["group"] == needed["group_time"] == {"who": None, "at": "datetime"}
    assert GroupSplit(group="who").columns_needed() == {"who": None}
    assert ChanceSplit().columns_needed() == {}


@pytest.mark.parametrize(("given", "wanted"), [
    ({"kind": "random"}, "'time', 'group', 'group_time', 'chance'"),
    ({"kind": "group"}, "group"),
    ({"kind": "group_time", "group": "who"}, "column"),
    ({"kind": "chance", "group": "who"}, "group"),
    ({"kind": "chance", "matures": 30}, "no column tells how old a row is.*as `column`"),
    ({"kind": "group", "group": "who", "matures": 7}, "matures is 7 days"),
    ({"kind": "group_time", "group": "who", "column": "at", "holdout": 0}, "greater than"),
    ({"kind": "group_time", "group": "who", "column": "at", "holdout": 1.5}, "less than 1"),
    ({"kind": "group_time", "group": "who", "column": "at", "fewest": 2}, "greater than or equal to 3"),
    ({"kind": "chance", "holdout": 1}, "less than 1"),
], ids=["kind", "no group", "no column", "a group by chance", "age", "age of groups", "none", "too much", "fewest", "all"])  # fmt: skip
def test_a_split_that_cannot_be_is_refused(given, wanted):
    """The message says what is missing or too much."""
    with pytest.raises(ValidationError, match=wanted):
        TypeAdapter(Split).validate_python(given)
