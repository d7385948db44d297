"""Anomalies of data and service: what is odd is found and named, what is usual is left alone, and a short past says so."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, mannwhitneyu

from tasks.ml.contract import Column, Contract
from tasks.ml.profile import Profiler
from tasks.ml.watching.anomalies import find
from tasks.ml.watching.oddness import CHECKS, AnomalyPlan, Batch, History, Requests
from tasks.ml.watching.usual import MAD, bar, changes, usual_of, without_each

START = dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC)  # a Monday
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)
NUMBERS = [f"n{place}" for place in range(6)]
CONTRACT = Contract(
    key=("id",), time="at", target="y",
    columns={
        "id": Column(type="int"), "at": Column(type="datetime"), "y": Column(type="bool"),
        **{name: Column(type="float", nullable=True) for name in NUMBERS}, "city": Column(type="category", nullable=True),
    },
)  # fmt: skip


def batch(rng, day, rows=300, at=None, newest=None, spoil=None):
    """A batch of a day, as usual, or spoiled."""
    at = at or START + day * DAY + dt.timedelta(minutes=float(rng.normal(0, 15)))
    newest = newest or at - dt.timedelta(minutes=float(rng.uniform(30, 60)))
    ages = np.r_[0.0, rng.uniform(0, 20, rows - 1)]
    cells = {
        "id": np.arange(rows),
        "at": [newest - dt.timedelta(hours=float(age)) for age in ages],
        "y": rng.random(rows) < 0.1,
    }
    level = rng.normal(0, 0.1)  # no day is like another
    cells |= {name: rng.lognormal(level, 0.7, rows) for name in NUMBERS[:3]}
    cells |= {name: rng.normal(level, 1.0, rows) for name in NUMBERS[3:]}
    cells["city"] = rng.choice(["Paris", "Rome", "Oslo"], rows, p=[0.6, 0.3, 0.1])
    if spoil:
        spoil(cells)
    profiler = Profiler(CONTRACT, True)
    profiler.add(pa.table(cells))
    return Batch(at, rows, profiler.result())


@pytest.fixture(scope="module")
def calm():
    """Sixty ordinary days."""
    rng = np.random.default_rng(3)
    return [batch(rng, day) for day in range(60)]


def looked(batches, day=60, plan=None, **more):
    """A look two hours after a day's batch, since the look of the day before."""
    now = START + day * DAY + 2 * HOUR
    history = History(batches=batches, since=now - DAY, target="y", **more)
    return find(history, now, plan)


def check(found, name):
    return next(one for one in found.checks if one.name == name)


def states(found):
    return {one.state for one in found.checks}


# -- values -------------------------------------------------------------------------------------------------------------
def test_an_ordinary_batch_is_no_anomaly(calm):
    """A day like the others is ok, and says against which threshold."""
    found = looked([*calm, batch(np.random.default_rng(8), 60)])
    assert (found.alarms, states(found) - {"too few", "no data"}) == ((), {"ok"})
    values = check(found, "values")
    assert values.level < values.threshold


def spoil_median(cells):
    cells["n4"] = cells["n4"] + 1.5


def spoil_gaps(cells):
    cells["n4"] = pa.array(cells["n4"], mask=np.arange(len(cells["n4"])) % 5 == 0)


def spoil_city(cells):
    cells["city"] = np.where(cells["city"] == "Paris", "Atlantis", cells["city"])


def spoil_labels(cells):
    cells["y"] = np.arange(len(cells["y"])) % 2 == 0


@pytest.mark.parametrize(
    ("spoil", "column", "kind"),
    [(spoil_median, "n4", "values"), (spoil_gaps, "n4", "values"), (spoil_city, "city", "values"), (spoil_labels, "y", "labels")],
)  # fmt: skip
def test_a_column_that_is_odd_is_named_first_and_no_value_of_a_category_is(calm, spoil, column, kind):
    """A moved median, a fifth of the values gone, a new category, other labels: one alarm to mend the data, naming the column."""
    found = looked([*calm, batch(np.random.default_rng(8), 60, spoil=spoil)])
    alarm = next(alarm for alarm in found.alarms if alarm.features[0] == column)
    assert (alarm.kind, alarm.what, check(found, alarm.check).state) == (kind, "mend", "alarm")
    assert alarm.level > alarm.threshold
    assert not [city for city in ("Paris", "Rome", "Oslo", "Atlantis") for one in found.checks if city in one.says]


def test_a_batch_that_is_odd_as_a_whole_is_found_and_the_columns_that_make_it_so_are_named(calm):
    """Where many columns are a little off, the forest finds the batch; the columns that are as usual are not blamed."""

    def drift(cells):
        for name in NUMBERS[2:]:
            cells[name] = cells[name] + 1.0

    found = looked([*calm, batch(np.random.default_rng(8), 60, spoil=drift)])
    whole = check(found, "whole batch")
    assert whole.state == "alarm"
    alarm = next(alarm for alarm in found.alarms if alarm.says == whole.says)
    assert set(alarm.features) <= set(NUMBERS[2:])


# -- too little of a past -----------------------------------------------------------------------------------------------
def test_m_01_without_data_or_with_too_few_the_answer_is_neither_ok_nor_an_alarm(calm):
    """No traffic is "no data"; five rows, or a short past, are "too few"; nothing of it is "ok"."""
    assert (states(find(History(), START)), find(History(), START).alarms) == ({"no data"}, ())
    short = looked(calm[:4], day=3)
    assert (states(short), short.alarms, short.judged) == ({"too few", "no data"}, (), ())
    assert check(short, "values").says == "too few batches: 3 before, 10 are wanted"
    rng = np.random.default_rng(1)
    small = [batch(rng, day, rows=5) for day in range(60)]
    assert check(looked(small, day=59), "values").state == "no data"


def test_a_look_without_anything_new_judges_nothing_but_silence(calm):
    """What an earlier look judged is the past."""
    found = find(History(batches=calm, since=calm[-1].at + HOUR), calm[-1].at + 2 * HOUR)
    assert {one.name for one in found.checks if one.state == "ok"} == {"arrival of rows"}
    assert found.judged == ("arrival of rows", "freshness")


# -- volumes and freshness ------------------------------------------------------------------------------------------------
def plain(at, rows):
    return Batch(at, rows)


def weeks(count, rng, weekend=30):
    """Batches of whole weeks: a thousand rows on workdays, few at weekends."""
    days = [START + day * DAY for day in range(7 * count)]
    return [plain(day, int((weekend if day.weekday() >= 5 else 1000) * rng.lognormal(0, 0.1))) for day in days]


def test_a_weekend_is_no_anomaly_and_a_workday_like_a_weekend_is_one():
    """The rows of a day are measured against those of its weekday."""
    rng = np.random.default_rng(1)
    before = weeks(8, rng)
    saturday = START + 54 * DAY + 22 * HOUR  # looks back at Saturday, the newest whole day but one
    calm = find(History(batches=before[:55], since=saturday - DAY), saturday)
    assert calm.alarms == ()
    monday = [*before, plain(START + 56 * DAY, 30)]
    found = find(History(batches=monday, since=START + 56 * DAY - HOUR), START + 56 * DAY + 9 * HOUR)
    assert [alarm.kind for alarm in found.alarms] == ["volume"]
    assert "has 30 rows; usually it has about" in found.alarms[0].says
    whole = find(History(batches=monday, since=START + 56 * DAY), START + 57 * DAY + 0 * HOUR)
    assert "Monday, 2026-03-02, brought 30 rows" in check(whole, "rows a day").says


def test_a_day_without_any_rows_is_an_anomaly_of_volume():
    """The day is there although nothing tells of it."""
    before = weeks(8, np.random.default_rng(1), weekend=900)
    found = find(History(batches=before[:-1], since=START + 55 * DAY), START + 56 * DAY + HOUR)
    assert "brought 0 rows" in check(found, "rows a day").says
    assert check(found, "rows a day").state == "alarm"


@pytest.mark.parametrize("every", [3, 7, 10, 30])
def test_rows_that_come_every_few_days_are_never_an_anomaly_while_they_come(every):
    """Every arrival of 120 days, looked at on its own day and on the day after: no alarm from the first one on."""
    rng = np.random.default_rng(every)
    batches = [plain(START + day * DAY, int(1000 * rng.lognormal(0, 0.1))) for day in range(0, 121, every)]
    for day in range(0, 121, every):
        for later in (HOUR, DAY + HOUR):
            now = START + day * DAY + later
            found = find(History(batches=[one for one in batches if one.at <= now], since=now - DAY), now)
            assert found.alarms == ()


def test_rows_that_settle_on_a_lower_level_are_found_though_no_day_is_odd():
    """A third fewer rows for ten days, in noise that hides each day."""
    rng = np.random.default_rng(4)
    sizes = 1000 * rng.lognormal(0, 0.12, 98) * np.where(np.arange(98) >= 88, 0.62, 1.0)
    batches = [plain(START + day * DAY, int(size)) for day, size in enumerate(sizes)]
    now = START + 98 * DAY
    found = find(History(batches=batches, since=now - DAY), now)
    level = check(found, "level of the rows a day")
    assert level.state == "alarm"
    assert "since 2026-04-03" in level.says
    assert check(found, "rows a day").state == "ok"


def test_silence_is_learned_from_the_pauses_and_a_weekend_is_none():
    """After Friday three days are usual, after Monday they are not; where the project says how often rows come, that counts."""
    days = [
        START + day * DAY + dt.timedelta(minutes=7 * day % 50) for day in range(70) if (START + day * DAY).weekday() < 5
    ]
    batches = [plain(day, 100) for day in days]
    monday = START + 70 * DAY
    assert check(find(History(batches=batches), monday), "arrival of rows").state == "ok"
    late = find(History(batches=batches), monday + 3 * DAY)
    alarm = next(alarm for alarm in late.alarms if alarm.kind == "freshness")
    assert (alarm.what, "no rows came for 1" in alarm.says) == ("mend", True)
    declared = AnomalyPlan(fresh_hours=24, outcome_hours=48)
    assert check(find(History(batches=batches), monday, declared), "arrival of rows").state == "alarm"
    quiet = find(History(outcomes=[START]), START + 3 * DAY, declared)
    assert [(alarm.kind, alarm.level, alarm.threshold) for alarm in quiet.alarms] == [("labels", 72.0, 48)]


def test_i_24_ten_thousand_small_files_at_once_make_one_alarm_at_most():
    """What comes together is one arrival; a burst of small batches is not an alarm each, and the pauses stay what they were."""
    batches = [plain(START + day * DAY, 1000) for day in range(40)]
    now = START + 40 * DAY
    burst = [plain(now + place * dt.timedelta(milliseconds=5), 1) for place in range(10_000)]
    found = find(History(batches=[*batches, *burst], since=now - HOUR), now + HOUR)
    assert len(found.alarms) <= 1
    assert check(found, "arrival of rows").state == "ok"
    later = find(History(batches=[*batches, *burst], since=now + HOUR), now + 4 * DAY)
    assert check(later, "arrival of rows").state == "alarm"


def test_i_20_rows_from_the_future_or_from_1970_are_told_and_a_clock_that_is_an_hour_off_is_not(calm):
    """What claims to have arrived later than now is left out; a sender may be an hour ahead."""
    rng = np.random.default_rng(8)
    at = START + 60 * DAY
    ahead = looked([*calm, batch(rng, 60, at=at, newest=at + HOUR)])
    assert check(ahead, "age of the newest row").state == "ok"
    future = looked([*calm, batch(rng, 60, at=at, newest=at + 400 * DAY)])
    assert [(alarm.kind, "from the future" in alarm.says) for alarm in future.alarms] == [("freshness", True)]
    ancient = looked([*calm, batch(rng, 60, at=at, newest=dt.datetime(1970, 1, 2, tzinfo=dt.UTC))])
    assert [(alarm.kind, "older than usual" in alarm.says) for alarm in ancient.alarms] == [("freshness", True)]
    skewed = looked([*calm, batch(rng, 60), batch(rng, 61, at=at + 900 * DAY)])
    assert skewed.alarms == ()
    assert check(skewed, "arrival of rows").level < 24


# -- the service ----------------------------------------------------------------------------------------------------------
def served(rng, hours, each=40):
    times = np.datetime64("2026-01-05T00", "us") + (np.arange(hours * each) * 3600 // each).astype("timedelta64[s]")
    return times, rng.lognormal(2, 0.4, len(times))


def test_an_hour_of_slow_answers_is_found_and_a_declared_limit_counts():
    """Three times as slow in the last hour; the middle of the answers stays as it is."""
    times, ms = served(np.random.default_rng(2), 72)
    now = START.replace(hour=0) + 72 * HOUR
    calm = find(History(answered=times, ms=ms, since=now - HOUR), now)
    assert calm.alarms == ()
    slow = ms.copy()
    slow[-40::5] *= 20
    found = find(History(answered=times, ms=slow, since=now - HOUR), now)
    assert [alarm.kind for alarm in found.alarms] == ["latency"]
    assert found.alarms[0].what == "mend"
    limited = find(History(answered=times, ms=ms, since=now - HOUR), now, AnomalyPlan(latency_ms=1))
    assert check(limited, "latency").threshold == 1


def test_answers_that_became_slower_for_good_are_found():
    """Every hour of the last twenty takes twice as long; the first of them is long past."""
    times, ms = served(np.random.default_rng(2), 120)
    ms[-800:] = ms[-800:] * 2
    now = START.replace(hour=0) + 120 * HOUR
    found = find(History(answered=times, ms=ms, since=now - HOUR), now)
    assert check(found, "level of the latency").state == "alarm"
    assert "since 2026-01-09 04:00" in check(found, "level of the latency").says


def test_failures_beyond_the_usual_are_found_and_few_requests_prove_nothing():
    """Of a thousand requests an hour two fail; a hundred that fail are an alarm, two of three are none."""
    rng = np.random.default_rng(5)
    hours = [Requests(START + place * HOUR, 1000, int(rng.binomial(1000, 0.002))) for place in range(48)]
    now = START + 49 * HOUR
    since = now - HOUR
    bad, few = Requests(START + 48 * HOUR, 1000, 100), Requests(START + 48 * HOUR, 3, 2)
    found = find(History(requests=[*hours, bad], since=since), now)
    assert [(alarm.kind, alarm.what) for alarm in found.alarms] == [("errors", "mend")]
    assert "100 of 1,000 requests" in found.alarms[0].says
    assert find(History(requests=[*hours, few], since=since), now).alarms == ()
    assert find(History(requests=[*hours, bad], since=since), now, AnomalyPlan(error_rate=0.2)).alarms == ()


# -- how far is too far ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("draw", ["normal", "t3", "exponential", "lognormal"])
def test_the_bar_is_passed_as_rarely_as_it_promises_whatever_the_tail(draw):
    """Of 2,000 new scores after 40 old ones not more than the promised share passes: the lower end of its 99.9% interval is below it."""
    rng = np.random.default_rng(7)
    size = (2000, 41)
    values = {
        "normal": lambda: np.abs(rng.normal(size=size)), "t3": lambda: np.abs(rng.standard_t(3, size=size)),
        "exponential": lambda: rng.exponential(size=size), "lognormal": lambda: rng.lognormal(size=size),
    }[draw]()  # fmt: skip
    for alpha in (1 / 30, 1 / 300):
        passed = sum(row[-1] > bar(row[:-1], alpha, 1e-3) for row in values)
        assert beta.ppf(0.001, passed or 1e-9, len(values) - passed + 1) <= alpha


def test_a_past_with_alarms_of_its_own_does_not_raise_the_bar():
    """Two days that were broken a hundredfold leave the bar nearly where it was without them."""
    rng = np.random.default_rng(7)
    past = np.abs(rng.normal(size=40))
    assert bar(np.r_[past, 300.0, 400.0], 0.01, 1.0) == pytest.approx(bar(past, 0.01, 1.0), rel=0.1)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), min_size=4, max_size=12), st.integers(1, 2))
def test_what_is_usual_is_the_median_of_the_others(pairs, new):
    """Each value's peers are those of its group, where three others are there; never itself, never a new one."""
    values, groups = np.array([float(one) for one, _ in pairs]), [kind for _, kind in pairs]
    old = len(pairs) - new
    for place, found in enumerate(usual_of(values, groups, old)):
        others = [other for other in range(old) if other != place]
        same = [other for other in others if groups[other] == groups[place]]
        assert found == np.median(values[same if len(same) >= 3 else others])


@given(st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), min_size=4, max_size=8))
def test_medians_and_spreads_beside_a_row_are_those_of_the_rest(rows):
    """By leaving each row out by hand."""
    values = np.array(rows)
    old = len(values) - 1
    middle, spread = without_each(values, old)
    for place in range(len(values)):
        rest = np.delete(values[:old], place, axis=0) if place < old else values[:old]
        assert middle[place] == pytest.approx(np.median(rest, axis=0))
        assert spread[place] == pytest.approx(MAD * np.median(np.abs(rest - np.median(rest, axis=0)), axis=0))


def test_a_change_is_where_the_rank_test_of_both_sides_says_it_is():
    """The best split by the Mann–Whitney test of scipy, tried at every place."""
    series = np.r_[np.random.default_rng(3).normal(size=40), np.random.default_rng(4).normal(2.5, 1, size=20)]
    found = changes(series, 0.01, np.random.default_rng(1))

    def distance(cut):
        expected = cut * (60 - cut) / 2
        error = np.sqrt(cut * (60 - cut) * 61 / 12)
        return abs(mannwhitneyu(series[:cut], series[cut:]).statistic - expected) / error

    assert found == [max(range(3, 58), key=distance)]


def test_noise_that_hangs_together_is_hardly_ever_called_a_change():
    """Of 300 series without a change, each value half of its neighbour's, at most the promised share and its sampling error."""
    rng = np.random.default_rng(6)
    noise = rng.normal(size=(300, 90))
    for step in range(1, 90):
        noise[:, step] += 0.5 * noise[:, step - 1]
    passed = sum(bool(changes(series, 0.02, rng)) for series in noise)
    assert beta.ppf(0.001, passed or 1e-9, 300 - passed + 1) <= 0.02


@pytest.mark.slow
def test_a_year_in_which_nothing_happens_keeps_the_budget_of_false_alarms():
    """Looks of 330 days over all checks: the monthly rate's 99.9% interval begins below the budget of one."""
    rng = np.random.default_rng(11)
    batches = [batch(rng, day, rows=int(300 * rng.lognormal(0, 0.15))) for day in range(400)]
    times, ms = served(rng, 400 * 24)
    requests = [Requests(START + place * HOUR, 500, int(rng.binomial(500, 0.002))) for place in range(400 * 24)]
    outcomes = [START + day * DAY + dt.timedelta(minutes=float(rng.normal(0, 60))) for day in range(400)]
    alarms = 0
    for day in range(70, 400):
        now = START + day * DAY + 2 * HOUR
        hour = day * 24
        history = History(
            batches=[one for one in batches if one.at <= now], outcomes=[at for at in outcomes if at <= now],
            answered=times[(hour - 1440) * 40 : hour * 40], ms=ms[(hour - 1440) * 40 : hour * 40], requests=requests[hour - 1440 : hour],
            since=now - DAY, target="y",
        )  # fmt: skip
        alarms += len(find(history, now, seed=day).alarms)
    months = 330 / 30.44
    assert alarms <= months + 3.1 * np.sqrt(months)


def test_every_check_has_its_share_of_the_budget():
    """So many as share it look, each under a name of its own, also where nothing has come."""
    names = [check.name for check in find(History(), START).checks]
    assert len(names) == len(set(names)) == CHECKS


def test_the_same_history_says_the_same(calm):
    """The seed alone decides about the forest and the orders."""
    history = History(batches=[*calm, batch(np.random.default_rng(8), 60, spoil=spoil_median)], target="y")
    now = START + 60 * DAY + 2 * HOUR
    assert find(history, now, seed=4) == find(replace(history), now, seed=4)
