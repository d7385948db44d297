import io
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tasks.ml import pictures
from tasks.ml.gates import Verdict
from tasks.ml.metrics import calibration_table, confusion
from tasks.ml.pictures import Point
from tasks.ml.uncertain import wilson

NAN = float("nan")
START = datetime(2013, 1, 31, tzinfo=UTC)
LABELS = ("on time", "late")
EVENTS = ("released", "measured", "refused", "measured")


def points(count, value=0.73):
    """A champion measured every month."""
    steps = np.random.default_rng(1).normal(0, 0.004, count)
    values = [value + step for step in steps]
    return [
        Point(START + timedelta(days=30 * i), at, at - 0.01, at + 0.01, 1 + i // 4, EVENTS[i % 4])
        for i, at in enumerate(values)
    ]


def answers():
    """A comparison, an error below its bar, one that a person decides, one without a number."""
    compared = Verdict(
        gate="champion", passed=True, reason="better", value=0.01, low=0.004, high=0.016, bar=0, before=0.7, after=0.71, power=0.006
    )  # fmt: skip
    return [
        compared, Verdict(gate="calibration", passed=False, reason="off", value=0.09, low=0.07, high=0.11, bar=0.05, wanted="below"),
        Verdict(gate="churn", passed=False, hold=True, reason="flips", value=0.5, bar=0.3, wanted="below"), Verdict(gate="behaviour", passed=True, reason="none"),
    ]  # fmt: skip


def scored(rows=4000):
    """Labels, and probabilities that mean what they say."""
    rng = np.random.default_rng(2)
    p = 1 / (1 + np.exp(-rng.normal(-1, 1.2, rows)))
    return (rng.random(rows) < p).astype(int), p


def trials(count):
    """A search of two families, a third of it pruned."""
    rng = np.random.default_rng(3)
    values = 0.43 + np.abs(rng.normal(0, 0.01, count))
    states, families = ("pruned", "complete", "complete"), ("logistic", "trees")
    return [
        {"number": i, "value": float(value), "state": states[i % 3], "family": families[i % 2]}
        for i, value in enumerate(values)
    ]


def periods(count):
    """A first model that decays, and a champion that does not."""
    events = (None, "released", "refused")
    return [
        {"period": f"2013-{i:02}", "frozen": 0.74 - i / 100, "champion": 0.74, "event": events[i % 3], "version": i}
        for i in range(count)
    ]


def report(shown, y, p, floor=0.7, labels=LABELS):
    """The report of these points and rows."""
    panels = {"calibration": calibration_table(y, p), "confusion": confusion(y, p, 0.3)}
    said = {"metric_label": "ROC AUC", "title": "v4"}
    return pictures.report(shown, panels, labels, operates={"threshold": 0.3}, floor=floor, **said)


def opened(png):
    """The picture, after the checks that hold for every one: it decodes, is opaque, white at the rim, not blank."""
    picture = Image.open(io.BytesIO(png))
    picture.load()
    assert picture.format == "PNG"
    assert "transparency" not in picture.info
    pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[[0, -1]] == 255).all()
    assert (pixels[:, [0, -1]] == 255).all()
    assert (pixels < 128).any()
    return pixels


USUAL = {
    "curve": lambda: pictures.curve(points(14), "ROC AUC", 0.7),
    "calibration": lambda: pictures.calibration(calibration_table(*scored())),
    "confusion": lambda: pictures.confusion(confusion(*scored(), 0.3), LABELS, 0.3),
    "search": lambda: pictures.search(trials(60), "log loss"),
    "months": lambda: pictures.months(periods(11), "ROC AUC", 0.6),
    "verdicts": lambda: pictures.verdicts(answers(), "flights v12-3f9c2a7b: held"),
}

RARE = {
    "nothing measured": lambda: pictures.curve([], "ROC AUC", None),
    "one point, no floor": lambda: pictures.curve(points(1), "ROC AUC", None),
    "no interval": lambda: pictures.curve([Point(START, 0.7, NAN, NAN, 1)], "ROC AUC", 0.6),
    "only NaN": lambda: pictures.curve([Point(START, NAN, NAN, NAN, 1)], "ROC AUC", 0.6),
    "a gap": lambda: pictures.curve([*points(3), Point(START + timedelta(days=200), NAN, NAN, NAN, 2)], "ROC AUC", 0.6),
    "two at one moment": lambda: pictures.curve([points(1)[0], points(1)[0]], "ROC AUC", 0.6),
    "less is better": lambda: pictures.curve(points(3), "log loss", 0.5),
    "no bins": lambda: pictures.calibration([]),
    "one class predicted": lambda: pictures.calibration(calibration_table(np.zeros(50, int), np.full(50, 0.02))),
    "all certain": lambda: pictures.calibration(calibration_table(np.ones(50, int), np.ones(50))),
    "all zero": lambda: pictures.calibration(calibration_table(np.zeros(50, int), np.zeros(50))),
    "one class": lambda: pictures.confusion(confusion(np.zeros(50, int), np.full(50, 0.02), 0.5), LABELS, 0.5),
    "no counts": lambda: pictures.confusion({}, ("$no$", "a long\nlabel " * 9), 0.5),
    "no trial": lambda: pictures.search([]),
    "one trial": lambda: pictures.search(trials(2)[1:]),
    "only running": lambda: pictures.search([{"number": 0, "value": None, "state": "running", "family": "logistic"}]),
    "only pruned": lambda: pictures.search(trials(1), "ROC AUC", greater_is_better=True),
    "equal trials": lambda: pictures.search([{**trial, "value": 0.5} for trial in trials(9)]),
    "a hopeless trial": lambda: pictures.search([*trials(9), {**trials(2)[1], "number": 9, "value": 1e6}]),
    "seven families": lambda: pictures.search([{**trial, "family": f"$f_{i}$"} for i, trial in enumerate(trials(7))]),
    "no period": lambda: pictures.months([]),
    "one period": lambda: pictures.months(periods(1)),
    "many periods": lambda: pictures.months(periods(40)),
    "missing periods": lambda: pictures.months([{"period": "a", "frozen": None, "champion": 0.7}, *periods(2)]),
    "no verdicts": lambda: pictures.verdicts([], ""),
    "a verdict without numbers": lambda: pictures.verdicts(
        [Verdict(gate="sound", passed=False, reason="$x$ " * 99)], "t"
    ),
    "verdicts that are NaN": lambda: pictures.verdicts(
        [one.model_copy(update={"value": NAN, "low": NAN}) for one in answers()], "t"
    ),
    "many gates": lambda: pictures.verdicts(answers() * 6, "t"),
    "no champion": lambda: pictures.months([{**row, "champion": NAN} for row in periods(3)]),
}


@pytest.mark.parametrize("name", [*USUAL, *RARE])
def test_every_picture_can_be_looked_at(name):
    """A picture decodes, is opaque and not blank, and is small, whatever there was to draw."""
    png = (USUAL | RARE)[name]()
    opened(png)
    assert len(png) < 60_000


@pytest.mark.parametrize("name", USUAL)
def test_the_same_numbers_give_the_same_bytes(name):
    """Nothing but the arguments enters a picture."""
    assert USUAL[name]() == USUAL[name]()


@pytest.mark.parametrize("count", [0, 1, 14, 120])
def test_report_stays_small(count):
    """Three pictures in one fit an artifact, for one measurement as for ten years of them."""
    png = report(points(count), *scored())
    assert opened(png).shape == (540, 1620, 3)
    assert len(png) < 120_000


def test_report_of_one_class():
    """A holdout without a positive row has a report."""
    opened(report(points(1), np.zeros(50, int), np.full(50, 0.02), floor=None))


def test_points_may_come_in_any_order():
    """The line runs through time, not through the order of the list."""
    assert pictures.curve(points(9)[::-1], "ROC AUC", None) == pictures.curve(points(9), "ROC AUC", None)


def test_released_and_refused_look_different():
    """A mark tells whether the challenger became champion."""
    drawn = {event: pictures.curve([Point(START, 0.7, 0.6, 0.8, 2, event)], "ROC AUC", None) for event in EVENTS}
    assert len(set(drawn.values())) == 3


def test_floor_is_drawn():
    """A floor is a line of its own colour; without one there is none."""
    vermilion = np.array([0xC4, 0x4E, 0x00])
    shown, absent = (opened(pictures.curve(points(9), "ROC AUC", floor)).astype(int) for floor in (0.7, None))
    assert (np.abs(shown - vermilion).max(axis=2) < 12).sum() > 200
    assert not (np.abs(absent - vermilion).max(axis=2) < 12).any()


def test_labels_are_not_read_as_formulas():
    """Dollar signs in a label are drawn, not typeset: an unfinished formula breaks nothing."""
    opened(report(points(2), *scored(200), labels=("$\\frac{", "$x$ < $y$")))


@pytest.mark.parametrize(
    ("value", "label", "floor", "words"),
    [
        (0.72, "ROC AUC", 0.7, "above the floor"),
        (0.68, "ROC AUC", 0.7, "below the floor"),
        (0.4, "log loss", 0.5, "within its bound"),
        (0.6, "log loss", 0.5, "out of its bound"),
        (0.72, "ROC AUC", None, "0.720 [0.710, 0.730]"),
    ],
)
def test_curve_title_knows_the_metrics_direction(value, label, floor, words):
    """The title says on which side of the floor the champion is, whatever the metric's direction."""
    title = pictures._curve_finding([Point(START, value, value - 0.01, value + 0.01, 3)], label, floor)
    assert words in title
    assert "v3" in title


def test_curve_without_a_champion_names_none():
    """As long as every challenger was refused, no version is said to answer."""
    refused = Point(START, 0.6, 0.5, 0.7, 0, "refused")
    assert pictures._curve_finding([refused], "ROC AUC", 0.7).startswith(
        "No champion yet; the last challenger is below"
    )
    opened(pictures.curve([refused], "ROC AUC", 0.7))


@pytest.mark.parametrize(
    ("shift", "words"), [(0.0, "Calibrated"), (0.2, "Predictions are too high"), (-0.2, "Predictions are too low")]
)
def test_calibration_title_says_which_way_predictions_err(shift, words):
    """The title names the direction of the error, or that there is none to speak of."""
    bins = [{"predicted": rate + shift, "observed": rate, "rows": 100.0} for rate in (0.3, 0.5, 0.7)]
    assert pictures._calibration_finding(bins).startswith(words)


def test_confusion_title_never_rounds_to_perfect():
    """999 of 1000 is no 100 %."""
    counts = {"true positive": 999, "false negative": 1, "false positive": 0, "true negative": 5}
    assert pictures._confusion_finding(counts, "late") == "Finds 99.9 % of “late”; 100 % of its alarms are right"


def test_months_title_is_honest_about_a_loss():
    """When the frozen model was better, the title says so; for a loss, less counts as better."""
    assert "worsened ROC AUC by 0.100" in pictures._months_finding([0.8], [0.7], "ROC AUC")
    assert "improved log loss by 0.100" in pictures._months_finding([0.8], [0.7], "log loss")
    assert "changed nothing" in pictures._months_finding([0.8], [0.8], "ROC AUC")


def test_wilson_interval_agrees_with_scipy():
    """The whiskers are the Wilson intervals that scipy computes."""
    from scipy.stats import binomtest

    expected = binomtest(7, 50).proportion_ci(0.9, method="wilson")
    assert wilson(7 / 50, 50) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_one_hopeless_trial_hides_nothing():
    """The axis of a search shows where the good trials are."""
    low, high = pictures._range_of_interest([0.43, 0.44, 0.45, 1e6], sign=-1)
    assert low == 0.43
    assert high < 0.6


def test_labels_keep_their_distance():
    """Of crowded labels the newest stays, and any two that stay are apart."""
    at = [0.0, 1.0, 50.0, 51.0, 99.0, 100.0]
    shown = [day for day, named in zip(at, pictures._spaced(at, [True] * 6), strict=True) if named]
    assert shown[-1] == 100.0
    assert all(later - earlier >= 6.5 for earlier, later in pairwise(shown))


def test_what_is_good_lies_to_the_right_of_the_bar():
    """An error above its bar is to the left, a gain above it to the right; each row is scaled by its furthest end."""
    gain, error, flips, none = (pictures._beside_the_bar(one) for one in answers())
    assert gain == pytest.approx((0.01 / 0.016, 0.25, 1))
    assert error == pytest.approx((-0.04 / 0.06, -0.02 / 0.06, -1))
    assert flips == pytest.approx((-1, -1, -1))
    assert none is None
