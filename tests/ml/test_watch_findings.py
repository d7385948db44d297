"""A look at a window: false alarms within their budget, real ones found, few rows never ok, each version by itself."""

import datetime as dt
import json
from dataclasses import replace
from functools import cache, reduce
from operator import add

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tasks.ml.watching import calibration
from tasks.ml.watching.calibration import Bar, DriftPlan, Thresholds, calibrated, calibrated_apart
from tasks.ml.watching.classes import Performance
from tasks.ml.watching.findings import Findings, Known, examine
from tasks.ml.watching.reference import Sketch, merged
from tasks.ml.watching.standing import MONDAY, Standing

PLAN = DriftPlan()
DAILY = 40


def day(random: np.random.Generator, level: float = 0.0, rows: int = DAILY, columns: int = 10) -> pd.DataFrame:
    """Rows of a day whose columns all rise with its level."""
    found = pd.DataFrame(
        random.normal(size=(rows, columns)) + level, columns=[f"x{number}" for number in range(columns)]
    )
    found["town"] = pd.Series(random.choice(["a", "b", "c"], rows, p=[0.5, 0.3, 0.2])).astype("str")
    return found


def levels(days: int, random: np.random.Generator, carried: float = 0.6, spread: float = 0.1) -> np.ndarray:
    """An autoregression with a season of a week."""
    found = np.zeros(days)
    for at in range(1, days):
        found[at] = carried * found[at - 1] + spread * np.sqrt(1 - carried**2) * random.normal()
    return found + 0.2 * np.sin(2 * np.pi * np.arange(days) / 7)


@cache
def past(seed: int, days: int, columns: int) -> tuple[Known, list[Sketch]]:
    """A version with its reference and thresholds, and a sketch of each day; no domain classifier."""
    random = np.random.default_rng(seed)
    rows = [day(random, level, columns=columns) for level in levels(days, random)]
    fixed = Sketch.of(pd.concat(rows, ignore_index=True))
    history = [fixed.like(each) for each in rows]
    return Known(fixed, calibrated(fixed, history, PLAN), merged(history[-28:])), history


def lived(seed: int = 1, days: int = 182, columns: int = 10) -> tuple[Known, list[Sketch], np.random.Generator]:
    """The same, and what draws its windows."""
    return *past(seed, days, columns), np.random.default_rng(2000 + seed)


def window(random: np.random.Generator, days: int = 7, columns: int = 10) -> pd.DataFrame:
    return pd.concat([day(random, level, columns=columns) for level in levels(days, random)], ignore_index=True)


def kept(found: Findings) -> Sketch:
    """The window's sketch."""
    assert found.sketch is not None
    return found.sketch


# -- M-01: few rows -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rows", "verdict"), [(0, "no data"), (5, "too few rows"), (199, "too few rows"), (280, "ok")])
def test_m_01_few_rows_are_neither_ok_nor_drift(rows, verdict):
    """Even where all of them are far away; the sketch is there all the same, for the next windows."""
    known, _, random = lived()
    given = window(random)[:rows]
    found = examine(known, given if verdict == "ok" else given.assign(x0=99.0), None, PLAN)
    assert (found.verdict, found.rows, found.alarms) == (verdict, rows, ())
    assert kept(found).rows == rows
    assert not any(drift.moved for drift in found.drift.values())


def test_m_01_a_column_with_few_values_is_judged_by_its_gaps_alone():
    """Of 280 rows 260 lack it: that is an alarm, how the other 20 lie is none."""
    known, _, random = lived()
    rows = window(random)
    drift = examine(known, rows.assign(x0=np.where(np.arange(len(rows)) < 20, 9.0, np.nan)), None, PLAN).drift["x0"]
    assert drift.bar is None
    assert drift.moved
    assert drift.strongest == (drift.fixed.gap, drift.gap_bar)


# -- M-02: false alarms -------------------------------------------------------------------------------------------------
def test_m_02_the_family_of_fifty_features_keeps_its_budget_over_200_windows():
    """Four versions with 50 windows each, with autocorrelation and a season of a week: not surely more alarms than the budget says."""
    alarms = windows = 0
    for seed in range(4):
        known, history, random = lived(seed, days=126, columns=49)
        assert known.thresholds.method == "block permutation"
        newest = [reduce(add, history[at : at + 7]) for at in range(98, 126, 7)]
        for level in levels(350, random).reshape(50, 7):
            rows = pd.concat([day(random, each, columns=49) for each in level], ignore_index=True)
            found = examine(Known(known.fixed, known.thresholds, merged(newest[-4:])), rows, None, PLAN)
            newest.append(kept(found))
            alarms, windows = alarms + bool(found.alarms), windows + 1
    assert windows == 200
    assert stats.binom.sf(alarms - 1, windows, PLAN.level) > 0.01, f"{alarms} alarms in {windows} windows; a share of {PLAN.level:.3f} is borne"  # fmt: skip


def test_m_02_a_look_each_day_makes_no_more_alarms():
    """Two versions, 40 weeks each, looked at every day: not surely more alarms begin than the budget says."""
    begun = 0
    for seed in range(2):
        known, history, random = lived(seed)
        rows = [day(random, level) for level in levels(287, random)]
        came, standing = [*history[-35:], *(known.fixed.like(each) for each in rows)], None
        for end in range(7, len(rows) + 1):
            found = examine(
                replace(known, rolling=merged(came[end : end + 28])), pd.concat(rows[end - 7 : end]), None, PLAN
            )
            at = MONDAY + dt.timedelta(days=end)
            now = Standing.after(standing, found.alarms, at, at, PLAN)
            begun += bool(now.alarms) and not (standing and standing.alarms)
            standing = now
    assert stats.binom.sf(begun - 1, 80, PLAN.level) > 0.01, (
        f"{begun} alarms in 80 weeks; a share of {PLAN.level:.3f} is borne"
    )


def test_more_judgements_ask_for_more():
    """The bars of windows that are judged every day are above those of windows that follow one another; no less so by theory."""
    known, history, _ = lived()
    for days in (0, 182):
        daily, weekly = (calibrated(known.fixed, history[:days], DriftPlan(every=every)) for every in (1, 7))
        assert daily.method == weekly.method
        assert all(daily.features[name].fixed.level > weekly.features[name].fixed.level for name in daily.features)
    assert daily.auc.level > weekly.auc.level


def test_columns_that_move_together_are_not_corrected_twice():
    """Of 20 copies of a column only one can be wrong at a time, of 20 independent ones each can: the copies' bar is lower."""
    random = np.random.default_rng(1)
    days = [pd.DataFrame(random.normal(size=(DAILY, 20))).rename(columns=str) for _ in range(182)]
    copies = [pd.DataFrame(dict.fromkeys(rows.columns, rows["0"])) for rows in days]
    bars = []
    for each in (days, copies):
        fixed = Sketch.of(pd.concat(each, ignore_index=True))
        found = calibrated(fixed, [fixed.like(rows) for rows in each], PLAN)
        bars.append(np.mean([bar.fixed.level for bar in found.features.values()]))
    assert bars[1] < 0.9 * bars[0]


def test_windows_that_resemble_the_ones_before_count_for_fewer():
    """Half a year of weeks is worth 26 independent ones where days are; where a level lasts for weeks it is worth far fewer."""
    blocks = []
    for carried in (0.0, 0.97):
        random = np.random.default_rng(2)
        days = [day(random, level, columns=20) for level in levels(182, random, carried=carried, spread=0.4)]
        fixed = Sketch.of(pd.concat(days, ignore_index=True))
        blocks.append(calibrated(fixed, [fixed.like(rows) for rows in days], PLAN).blocks)
    assert blocks[0] > 20
    assert blocks[1] < 15


# -- M-03: power --------------------------------------------------------------------------------------------------------
def test_m_03_a_shift_of_half_a_standard_deviation_is_found_within_two_windows():
    """In 15 of 15 pairs of windows, against three versions: a power of 0.8 or less would do so with a chance of 0.04 (0.8¹⁵)."""
    for seed in range(3):
        known, _, random = lived(seed + 1, days=126)
        for _ in range(5):
            found = [
                examine(known, window(random).assign(x3=lambda rows: rows["x3"] + 0.5), None, PLAN) for _ in range(2)
            ]
            hits = [look for look in found if look.drift["x3"].moved]
            assert hits, seed
            assert "x3" in hits[0].alarms[0].features


# -- M-04: slow drift ---------------------------------------------------------------------------------------------------
def test_m_04_a_slow_drift_is_seen_against_the_reference_that_stays():
    """A rolling one follows it, and is never far; both are shown."""
    known, history, random = lived()
    windows, looks = list(history[-28:]), []
    for step in range(1, 21):
        rows = window(random).assign(x0=lambda rows, step=step: rows["x0"] + 0.05 * step)
        found = examine(Known(known.fixed, known.thresholds, merged(windows[-4:])), rows, None, PLAN)
        windows.append(kept(found))
        looks.append(found.drift["x0"])
    last = looks[-1]
    assert last.rolling is not None
    assert last.bar is not None
    assert last.fixed.distance > 2 * last.bar
    assert last.rolling.distance < last.fixed.distance / 2
    assert last.moved
    assert not looks[0].moved


def test_m_04_a_sudden_change_shows_against_the_windows_before():
    """Where a reference has seen all levels there are, the newest windows have not."""
    known, history, random = lived()
    drift = examine(
        Known(known.fixed, known.thresholds, merged(history[-28:])), window(random).assign(x0=3.0), None, PLAN
    ).drift["x0"]
    assert drift.rolling is not None
    assert drift.rolling_bar is not None
    assert drift.rolling.distance > drift.rolling_bar


# -- M-05: two versions in a window -------------------------------------------------------------------------------------
def test_m_05_each_version_is_held_against_its_own_reference():
    """The newer one was trained on a world that had moved: neither moved since, though both together did."""
    old, _, random = lived()
    rows, moved = window(random), window(random).assign(x0=lambda rows: rows["x0"] + 2)
    past = [day(random, level).assign(x0=lambda day: day["x0"] + 2) for level in levels(126, random)]
    fixed = Sketch.of(pd.concat(past, ignore_index=True))
    new = Known(fixed, calibrated(fixed, [fixed.like(day) for day in past], PLAN))
    both = pd.concat([rows, moved], ignore_index=True)
    assert [examine(known, mine, None, PLAN).verdict for known, mine in ((old, rows), (new, moved))] == ["ok", "ok"]
    assert examine(old, both, None, PLAN).drift["x0"].moved


# -- O-11: alarm storms -------------------------------------------------------------------------------------------------
def test_o_11_two_hundred_features_that_move_are_one_alarm():
    """It names five of them, and says how many there are, in one short sentence."""
    random = np.random.default_rng(4)
    rows = pd.DataFrame(random.normal(size=(3000, 200))).rename(columns=str)
    fixed = Sketch.of(rows)
    found = examine(Known(fixed, calibrated(fixed, [], PLAN)), rows[:500] + 1, None, PLAN)
    assert sum(drift.moved for drift in found.drift.values()) == 200
    assert [(alarm.kind, len(alarm.features)) for alarm in found.alarms] == [("inputs", 5)]
    assert "200 of 200 features moved" in found.says
    assert len(found.says) < 300


# -- calibration --------------------------------------------------------------------------------------------------------
def test_a_short_history_falls_back_to_theory_and_says_so():
    """Wider bars than theory alone where even a few windows move more than independent rows do; permutation once there are enough."""
    known, history, _ = lived()
    none, few, enough = (calibrated(known.fixed, history[:days], PLAN) for days in (0, 35, 182))
    assert (none.method, few.method, enough.method) == ("theory", "theory", "block permutation")
    assert few.needed == 11
    assert few.blocks <= 5
    assert 11 <= enough.blocks <= 26
    assert "independent windows shows: this budget needs 11, until then it is not assured" in few.says
    assert f"worth {enough.blocks} independent windows" in enough.says
    assert few.features["x0"].fixed.level > 1.2 * none.features["x0"].fixed.level


def test_theorys_bars_are_those_of_scipy():
    """A Kolmogorov quantile for each of four statistics of 11 columns in seven windows, on as many rows as the reference has."""
    known, _, _ = lived()
    thresholds = calibrated(known.fixed, [], PLAN)
    share, rows = PLAN.level * 0.8 / 44 / 7, known.fixed.rows
    assert thresholds.features["x0"].fixed.level == pytest.approx(stats.kstwobign.isf(share) * np.sqrt(2 / rows))
    assert thresholds.features["town"].fixed.level == pytest.approx(
        np.sqrt(stats.chi2.isf(share, 2) / 8 / np.log(2) * 2 / rows)
    )


def test_a_smaller_budget_asks_for_more():
    """Of the distance, and of the history."""
    known, history, _ = lived()
    usual, strict = (calibrated(known.fixed, history, DriftPlan(false_alarms=budget)) for budget in (2.0, 0.3))
    assert strict.features["x0"].fixed.level > usual.features["x0"].fixed.level
    assert strict.needed > usual.needed


def answered(random: np.random.Generator, days: int, rows: int) -> tuple[Sketch, list[Sketch]]:
    """What a version says of so many rows a day, all days alike: a sketch of all, and one of each."""
    said = [random.random(rows) for _ in range(days)]
    every = np.concatenate(said)
    fixed = Sketch.of(pd.DataFrame(index=range(len(every))), every)
    return fixed, [fixed.like(pd.DataFrame(index=range(rows)), each) for each in said]


def test_columns_and_answers_share_one_budget_of_false_alarms(monkeypatch):
    """Each is calibrated on rows of its own and may alarm for a part; what is left is the classifier's. Columns alone have all of it."""
    known, history, random = lived()
    shares: list[float] = []

    def spied(*given, share, **more):
        shares.append(share)
        return calibrated(*given, share=share, **more)

    monkeypatch.setattr(calibration, "calibrated", spied)
    both = calibrated_apart(known.fixed, history, *answered(random, 35, 40), PLAN)
    assert len(shares) == 2
    assert sum(shares) + calibration.TOGETHER == pytest.approx(1)
    assert both.needed == np.ceil(1 / (PLAN.level * shares[0]))
    assert calibrated_apart(known.fixed, history, Sketch.of(pd.DataFrame()), [], PLAN) == known.thresholds


def test_what_is_usual_of_answers_is_said_of_windows_of_their_own_size():
    """Bars that come of windows of 1,400 answers rise for a window of 280, though that is what the columns' windows have."""
    known, history, random = lived()
    fixed, judged = answered(random, 70, 200)
    thresholds = calibrated_apart(known.fixed, history, fixed, judged, PLAN)
    assert (thresholds.rows, thresholds.said) == (280, 1400)
    whole = replace(known, fixed=known.fixed.model_copy(update={"predictions": fixed.predictions}), thresholds=thresholds, rolling=None)  # fmt: skip
    (bars,), seen = thresholds.predictions.values(), examine(whole, window(random), random.random(280), PLAN)
    assert [drift.bar for drift in seen.predictions.values()] == [bars.fixed.of(280, 1400)]
    assert bars.fixed.of(280, 1400) > 1.3 * bars.fixed.level


def test_bars_of_answers_by_theory_beside_columns_by_permutation_are_said():
    """Five weeks that judged a version are too few for a fifth of the budget; half a year of columns is enough."""
    known, history, random = lived()
    says = calibrated_apart(known.fixed, history, *answered(random, 35, 40), PLAN).says
    assert says.startswith("by block permutation over a history worth")
    assert "; those of its answers by theory" in says
    assert "this budget needs 44" in says


def test_thresholds_are_json_and_repeat():
    """The same seed gives the same bars, and a file gives them back."""
    known, history, _ = lived()
    again = calibrated(known.fixed, history, PLAN)
    assert again == known.thresholds
    assert Thresholds.model_validate_json(json.dumps(json.loads(again.model_dump_json()), allow_nan=False)) == again


def test_a_small_window_has_a_higher_bar_and_a_large_one_no_lower():
    """By the noise of so many fewer rows."""
    bar = Bar(level=0.1, noise=3.0)
    assert bar.of(400, usual=400) == pytest.approx(0.1)
    assert bar.of(100, usual=400) == pytest.approx(np.sqrt(0.01 + 3 * (1 / 100 - 1 / 400)))
    assert bar.of(40_000, usual=400) == pytest.approx(0.1)


def test_what_is_too_small_to_matter_is_no_alarm_however_sure():
    """A tenth of a standard deviation in a million rows, where 0.05 is the smallest distance that counts."""
    random = np.random.default_rng(8)
    rows = pd.DataFrame({"x": random.normal(size=200_000)})
    fixed = Sketch.of(rows)
    found = examine(Known(fixed, calibrated(fixed, [], PLAN)), rows + 0.1, None, PLAN)
    assert found.drift["x"].fixed.p < 1e-100
    assert found.verdict == "ok"


def test_what_only_columns_together_show_is_an_alarm():
    """With samples of a calm history the bar of the domain classifier is its own; a lost tie is above it, and named."""
    random = np.random.default_rng(9)

    def tied(rows: int) -> pd.DataFrame:
        made = pd.DataFrame(random.normal(size=(rows, 4)), columns=list("abcd"))
        return made.assign(b=0.8 * made["a"] + 0.6 * made["b"])

    past = [tied(60) for _ in range(84)]
    fixed = Sketch.of(pd.concat(past, ignore_index=True))
    samples = [pd.concat(past[at : at + 7], ignore_index=True) for at in range(0, 84, 7)]
    thresholds = calibrated(fixed, [fixed.like(rows) for rows in past], PLAN, samples)
    assert thresholds.auc_windows == 12
    known = Known(fixed, thresholds, rows=pd.concat(samples, ignore_index=True))
    now = tied(600)
    assert examine(known, now, None, PLAN).verdict == "ok"
    found = examine(known, now.assign(b=random.permutation(now["b"])), None, PLAN)
    assert not any(drift.moved for drift in found.drift.values())
    assert found.alarms[0].kind == "inputs"
    assert set(found.alarms[0].features[:2]) == {"a", "b"}
    assert found.domain is not None
    assert (found.alarms[0].level, found.alarms[0].threshold) == (found.domain.auc, found.domain_bar)


def test_findings_are_json_without_the_sketch():
    """Which is kept apart."""
    known, _, random = lived()
    found = examine(known, window(random), None, PLAN)
    told = json.loads(found.model_dump_json(by_alias=True))
    assert "sketch" not in told
    assert set(told["drift"]["x0"]["fixed"]) == {"distance", "p", "psi", "size", "missing", "new"}
    assert isinstance(found, Findings)


def test_what_the_model_says_has_an_alarm_of_its_own():
    """Inputs stay, answers move: one alarm, of kind predictions, to retrain as nobody knows what it does to the metric."""
    random = np.random.default_rng(10)
    rows, said = pd.DataFrame({"a": random.normal(size=4000)}), random.random(4000)
    fixed = Sketch.of(rows, said)
    known = Known(fixed, calibrated(fixed, [], PLAN))
    found = examine(known, rows, said**2, PLAN)
    assert [(alarm.kind, alarm.what) for alarm in found.alarms] == [("predictions", "retrain")]
    calm = Known(fixed, known.thresholds, performance=Performance(expected=0.8, estimated=0.8))
    assert examine(calm, rows, said**2, PLAN).verdict == "ignore"
