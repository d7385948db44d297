"""Curves of a watch and their pictures."""

import datetime as dt
import io

import numpy as np
import pytest
from PIL import Image

from tasks.ml.metrics import METRICS
from tasks.ml.watching import pictures
from tasks.ml.watching.curve import Curve, Expected, Mark, Shifts
from tasks.ml.watching.estimate import Estimated
from tasks.ml.watching.realised import Measured, Realised

START, WEEK = dt.datetime(2026, 1, 5, tzinfo=dt.UTC), dt.timedelta(days=7)
AP = METRICS["average_precision"]
VERMILION = np.array([0xC4, 0x4E, 0x00])


def period(week: int, version: str = "4", value: float | None = 0.8, *, rows: int = 900, flagged: bool = False) -> Realised:  # fmt: skip
    """A week of a version; pending where there is no value."""
    known = {} if value is None else {AP.name: Measured(value=value, low=value - 0.02, high=value + 0.02, rows=rows, rare=50, is_flagged=flagged)}  # fmt: skip
    return Realised(
        begin=START + week * WEEK, end=START + (week + 1) * WEEK, version=version, rows=rows, matured=rows if known else 0, labelled=rows if known else 0,
        early=0, is_complete=bool(known), state="measured" if known else "pending", metrics=known, says="",
    )  # fmt: skip


def guess(week: int, version: str = "4", value: float | None = 0.79) -> Expected:
    """What is expected of it."""
    said = Estimated(measure=AP.name, method="none", rows=900, reason="too few")
    if value is not None:
        said = Estimated(measure=AP.name, method="cbpe", rows=900, value=value, low=value - 0.05, high=value + 0.05)
    return Expected(begin=START + week * WEEK, end=START + (week + 1) * WEEK, version=version, estimate=said)


def story(weeks: int = 20) -> Curve:
    """A fall, alarms, a training that is refused, a release, and two weeks whose outcomes are pending."""
    values = [0.82 if week < 9 or week > 13 else 0.82 - 0.03 * (week - 8) for week in range(weeks)]
    versions = ["4" if week < 14 else "5" for week in range(weeks)]
    old = [period(week, version, None if week > weeks - 3 else value, flagged=week == 5) for week, (version, value) in enumerate(zip(versions, values, strict=True))]  # fmt: skip
    marks = [
        Mark(at=START, event="released", name="v4"), Mark(at=START + 12 * WEEK, event="retrained", name="refused"),
        Mark(at=START + 14 * WEEK, event="released", name="v5"), Mark(at=START + 11 * WEEK, event="alarm"),
    ]  # fmt: skip
    return Curve.of(AP, [*old, period(14, "4", 0.7, rows=100)], [guess(week, versions[week]) for week in range(weeks)], marks, 0.75)  # fmt: skip


def moves(periods: int, features: int) -> Shifts:
    """One feature moves further and further."""
    rng = np.random.default_rng(0)
    names = [f"feature_{place}" for place in range(features)]
    return Shifts.of({f"week {week}": {name: float(rng.random()) + (week if name == "feature_0" else 0) * 0.3 for name in names} for week in range(periods)})  # fmt: skip


def opened(png: bytes) -> np.ndarray:
    """The picture's pixels, after the checks that hold for every one."""
    picture = Image.open(io.BytesIO(png))
    picture.load()
    assert picture.format == "PNG"
    assert "transparency" not in picture.info
    assert len(png) < 200_000
    pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[[0, -1]] == 255).all()
    assert (pixels < 128).any()
    return pixels


NAN = float("nan")
DRAWN = {
    "a story": lambda: pictures.curve(story()),
    "ten years": lambda: pictures.curve(story(520)),
    "one period": lambda: pictures.curve(Curve.of(AP, [period(0)], [guess(0)])),
    "only expected": lambda: pictures.curve(Curve.of(AP, [], [guess(0), guess(1)])),
    "only measured": lambda: pictures.curve(Curve.of(AP, [period(0), period(1)], [], floor=0.9)),
    "only pending": lambda: pictures.curve(Curve.of(AP, [period(0, value=None)], [])),
    "no estimate": lambda: pictures.curve(Curve.of(AP, [period(0)], [guess(0, value=None)])),
    "no interval": lambda: pictures.curve(
        Curve.of(
            AP,
            [
                period(0).model_copy(
                    update={
                        "metrics": {AP.name: Measured(value=0.8, low=NAN, high=NAN, rows=9, rare=9, is_flagged=False)}
                    }
                )
            ],
            [],
        )
    ),
    "a gap": lambda: pictures.curve(Curve.of(AP, [period(0), period(1, value=None), period(2)], [])),
    "nothing": lambda: pictures.curve(Curve.of(AP, [], [])),
    "names that look like formulas": lambda: pictures.curve(
        Curve.of(AP, [period(0)], [], [Mark(at=START, event="released", name="$\\frac{")])
    ),
    "drift": lambda: pictures.drift(moves(20, 30)),
    "drift of one period": lambda: pictures.drift(moves(1, 30)),
    "drift of one feature": lambda: pictures.drift(moves(3, 1)),
    "no drift": lambda: pictures.drift(Shifts.of({})),
    "drift with gaps": lambda: pictures.drift(Shifts.of({"a": {"$x$": 2.0}, "b": {"y": 0.1}})),
    "drift of ten years": lambda: pictures.drift(moves(520, 30)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_picture_of_a_watch_can_be_looked_at(name):
    """It decodes, is opaque and not blank, small, and the same for the same numbers."""
    png = DRAWN[name]()
    opened(png)
    assert png == DRAWN[name]()


def test_alarms_and_flags_change_the_picture():
    """What happened is drawn."""
    plain, quiet = story(), story().model_copy(update={"marks": ()})
    vermilion = [(np.abs(opened(pictures.curve(one)).astype(int) - VERMILION).max(axis=2) < 12).sum() for one in (plain, quiet)]  # fmt: skip
    assert vermilion[0] > vermilion[1] > 0  # the floor stays
    without = plain.model_copy(update={"moments": tuple(one.model_copy(update={"measured": one.measured and one.measured.model_copy(update={"is_flagged": False})}) for one in plain.moments)})  # fmt: skip
    assert pictures.curve(plain) != pictures.curve(without)


def test_a_curve_joins_what_was_measured_and_expected():
    """One moment a period and version, oldest first; the version that answered most is the line; it comes back from JSON."""
    curve = story()
    assert [(one.begin, one.version) for one in curve.moments] == sorted(
        (one.begin, one.version) for one in curve.moments
    )
    assert len(curve.moments) == 21
    assert len(curve.main) == 20
    assert {one.version for one in curve.main if one.begin == START + 14 * WEEK} == {"5"}
    beside = next(one for one in curve.moments if one.begin == START + 14 * WEEK and one.version == "4")
    assert beside.estimated is None
    assert beside.measured == period(14, "4", 0.7, rows=100).metrics[AP.name]
    assert curve.main[0].estimated == guess(0).estimate
    assert Curve.model_validate_json(curve.model_dump_json()) == curve
    table = curve.table()
    assert {len(column) for column in table.values()} == {21}
    assert table["measured"][-1] is None
    assert table["outcomes missing"].count(True) == 1


@pytest.mark.parametrize(
    ("value", "floor", "words"),
    [(0.8, 0.75, "above its floor"), (0.7, 0.75, "not above its floor"), (0.8, None, "0.800 [0.780, 0.820]")],
)
def test_the_title_says_what_was_measured(value, floor, words):
    """And on which side of the floor it is."""
    curve = Curve.of(AP, [period(0, value=value)], [], floor=floor)
    title = pictures._curve_finding(curve, curve.main, [])
    assert title.endswith(words)
    assert title.startswith("Average precision was")


def test_the_title_says_what_is_expected_since():
    """Only of periods that have no measure yet."""
    curve = Curve.of(AP, [period(0)], [guess(0, value=0.5), guess(1, value=0.6)])
    title = pictures._curve_finding(curve, curve.main[:1], curve.main)
    assert "now it is expected to be 0.600" in title
    assert "0.500" not in title


def test_features_that_moved_are_named_furthest_first():
    """Those above the bar in the newest period, whatever was before."""
    shown = Shifts.of({"May": {"a": 9.0, "b": 0.1, "c": 0.2}, "June": {"a": 0.5, "b": 1.5, "c": 3.0}})
    assert shown.moved == ["c", "b"]
    assert shown.features == ("a", "c", "b")
    assert pictures._drift_finding(shown) == "June: c, b moved further than is usual"
