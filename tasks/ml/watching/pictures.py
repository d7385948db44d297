"""Pictures of a watch: performance over time, measured and expected; and how far features moved. PNG bytes, as `tasks.ml.pictures` draws."""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.ml.pictures import (
    BLUE,
    FAINT,
    GREY,
    INK,
    ORANGE,
    SHOWN,
    VERMILION,
    WHITE,
    _figure,
    _frame_time,
    _frame_values,
    _headline,
    _line,
    _nothing,
    _png,
    _spaced,
    _thin,
    _tint,
)
from tasks.ml.watching.curve import Curve, Mark, Moment, Shifts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 92  # characters of a title
MANY = 80  # periods beyond which their dots are small
PERIODS = 26  # columns of the heat map: half a year of weeks
ROOM = 0.12  # of the axis, which the words in the pending part take
FULL = 3.0  # times what is usual at which a cell has its full colour


def curve(shown: Curve) -> bytes:
    """The performance curve: PNG, 1296 × 552 pixels.

    Measured: a solid line with its interval; hollow where outcomes are missing in a pattern or to a share. Expected: a dashed line with its
    band. The floor, releases and alarms; the time in which outcomes are pending is grey.
    """
    figure = _figure(10.8, 4.6)
    _draw_curve(figure.add_subplot(), shown)
    return _png(figure)


def drift(shown: Shifts) -> bytes:
    """How far features moved: PNG, 1296 pixels wide, as high as its rows need. One period as bars, several as a heat map."""
    rows = min(len(shown.features), SHOWN)
    figure = _figure(10.8, 1.9 + 0.3 * max(rows, 2))
    axes = figure.add_subplot()
    _headline(axes, _drift_finding(shown), _drift_key(shown), WIDTH)
    if not shown.features:
        _nothing(axes, "no feature was looked at")
    elif len(shown.periods) == 1:
        _draw_bars(axes, shown)
    else:
        _draw_heat(axes, shown)
    return _png(figure)


# -- performance ------------------------------------------------------------------------------------------------------
def _draw_curve(axes: "Axes", shown: Curve) -> None:
    measured = [moment for moment in shown.main if moment.measured and isfinite(moment.measured.value)]
    expected = [moment for moment in shown.main if moment.estimated]
    _headline(axes, _curve_finding(shown, measured, expected), _curve_key(shown, measured, expected), WIDTH)
    if not measured and not expected:
        _nothing(axes, "nothing measured and nothing expected yet")
        return
    _draw_expected(axes, expected)
    _draw_measured(axes, shown, measured)
    at = [_day(moment.at) for moment in shown.main]
    _frame_time(axes, sorted([*at, *(_day(mark.at) for mark in shown.marks)]))
    _frame_values(axes, [*_ends(measured, "measured"), *_ends(expected, "estimated")], shown.floor, shown.label)
    _draw_pending(axes, shown.main)
    _draw_marks(axes, shown.marks)


def _draw_measured(axes: "Axes", shown: Curve, measured: Sequence[Moment]) -> None:
    """The line of the versions that answered most; the others of a period as small dots."""
    if not measured:
        return
    at, said = [_day(moment.at) for moment in measured], [moment.measured for moment in measured]
    low, high = ([_else(getattr(one, end), one.value) for one in said if one] for end in ("low", "high"))
    axes.fill_between(at, low, high, color=BLUE, alpha=0.16, lw=0)
    if len(at) <= MANY:
        axes.vlines(at, low, high, color=BLUE, alpha=0.3, lw=1.2)
    axes.plot(at, [one.value for one in said if one], color=BLUE, lw=2, zorder=4)
    for moment in shown.moments:
        if moment.measured and isfinite(moment.measured.value):
            face = WHITE if moment.measured.is_flagged else BLUE
            size = (5 if moment in measured else 3.5) if len(at) <= MANY else 2
            axes.plot([_day(moment.at)], [moment.measured.value], "o", ms=size, mfc=face, mec=BLUE, mew=1.3, zorder=5)


def _draw_expected(axes: "Axes", expected: Sequence[Moment]) -> None:
    if not expected:
        return
    at, said = [_day(moment.at) for moment in expected], [moment.estimated for moment in expected if moment.estimated]
    axes.fill_between(
        at, _ends(expected, "estimated")[::2], _ends(expected, "estimated")[1::2], color=ORANGE, alpha=0.16, lw=0
    )
    axes.plot(at, [one.value or 0.0 for one in said], color=_tint(VERMILION, 0.75), lw=1.6, ls=(0, (4, 2)), zorder=3)
    if len(at) == 1:
        low, high = _ends(expected, "estimated")
        axes.vlines(at, low, high, color=ORANGE, alpha=0.5, lw=3)
        axes.plot(at, [said[0].value or 0.0], "D", ms=5, mfc=WHITE, mec=_tint(VERMILION, 0.75), zorder=3)


def _draw_pending(axes: "Axes", moments: Sequence[Moment]) -> None:
    """The newest periods that have no measure yet."""
    last = max((place for place, moment in enumerate(moments) if moment.measured), default=-1)
    young = moments[last + 1 :]
    if not young:
        return
    begin, (left, right) = _day(young[0].begin), axes.get_xlim()
    axes.axvspan(max(begin, left), right, color=FAINT, alpha=0.35, lw=0, zorder=0)
    if right - begin > ROOM * (right - left):
        axes.annotate(
            "outcomes pending", (max(begin, left), 0.02), (5, 2), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            fontsize=8.5, color=GREY,
        )  # fmt: skip


def _draw_marks(axes: "Axes", marks: Sequence[Mark]) -> None:
    """Releases and trainings as lines from top to bottom, alarms as triangles at the lower edge."""
    across = axes.get_xaxis_transform()
    lines = [mark for mark in marks if mark.event != "alarm"]
    for mark in lines:
        look: Any = "-" if mark.event == "released" else (0, (1, 2))
        axes.axvline(
            _day(mark.at), color=INK if mark.event == "released" else GREY, lw=0.9, ls=look, alpha=0.7, zorder=1
        )
    at, (left, right) = [_day(mark.at) for mark in lines], axes.get_xlim()
    names = _spaced([left, *at, right], [False, *(bool(mark.name) for mark in lines), False], 0.05)[1:-1]
    for mark, day, named in zip(lines, at, names, strict=True):
        if named:
            axes.annotate(
                mark.name, (day, 1), (3, -10), xycoords=across, textcoords="offset points", fontsize=9, parse_math=False,
                color=INK if mark.event == "released" else GREY, fontweight="bold" if mark.event == "released" else "normal",
            )  # fmt: skip
    for mark in marks:
        if mark.event == "alarm":
            axes.plot([_day(mark.at)], [0.025], "^", ms=9, color=VERMILION, transform=across, clip_on=False, zorder=6)


def _curve_finding(shown: Curve, measured: Sequence[Moment], expected: Sequence[Moment]) -> str:
    parts = []
    if measured and (said := measured[-1].measured):
        parts.append(
            f"{shown.label} was {said.value:.3f} [{said.low:.3f}, {said.high:.3f}]{_beside_floor(shown, said.value)}"
        )
    newer = [moment for moment in expected if not measured or moment.begin > measured[-1].begin]
    if newer and (guess := newer[-1].estimated):
        subject = "" if parts else f"{shown.label} "
        parts.append(f"{subject}is expected to be {guess.value:.3f} [{guess.low:.3f}, {guess.high:.3f}]")
    found = "; now it ".join(parts) or f"no {shown.label} yet"
    return found[0].upper() + found[1:]


def _beside_floor(shown: Curve, value: float) -> str:
    if shown.floor is None:
        return ""
    good = value >= shown.floor if shown.greater_is_better else value <= shown.floor
    return f", {'' if good else 'not '}{'above its floor' if shown.greater_is_better else 'within its bound'}"


def _curve_key(shown: Curve, measured: Sequence[Moment], expected: Sequence[Moment]) -> str:
    """Names the marks that stand in the picture, and no other."""
    flagged = any(moment.measured and moment.measured.is_flagged for moment in shown.moments)
    beside = any(moment.measured and moment not in measured for moment in shown.moments)
    events = {mark.event for mark in shown.marks}
    told = [
        (measured, "— ● measured"), (beside, "• other version"), (flagged, "○ outcomes missing"),
        (expected, "- - expected, blind to a change of concept"), (True, "bands: 90 %"), ("released" in events, "│ released"),
        ("retrained" in events, "┊ retrained"), ("alarm" in events, "▲ alarm"),
    ]  # fmt: skip
    return "   ".join(words for holds, words in told if holds) if measured or expected else " "


def _ends(moments: Sequence[Moment], what: str) -> list[float]:
    """Low and high of each, one after the other; the value where there is no interval."""
    said = [getattr(moment, what) for moment in moments]
    return [_else(getattr(one, end), one.value) for one in said for end in ("low", "high")]


def _else(number: float | None, other: float) -> float:
    return number if number is not None and isfinite(number) else other


def _day(at: datetime) -> float:
    """The moment in UTC, as matplotlib counts days."""
    from matplotlib.dates import date2num

    return float(date2num(at.astimezone(UTC).replace(tzinfo=None)))


# -- drift ------------------------------------------------------------------------------------------------------------
def _drift_finding(shown: Shifts) -> str:
    if not shown.features:
        return "No drift to show"
    moved = [_line(name, 30) for name in shown.moved]
    when = shown.periods[-1]
    if not moved:
        return f"{when}: no feature of {len(shown.features)} moved further than is usual"
    rest = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
    return f"{when}: {', '.join(moved[:3])}{rest} moved further than is usual"


def _drift_key(shown: Shifts) -> str:
    most = f"   the {SHOWN} furthest of {len(shown.features)}" if len(shown.features) > SHOWN else ""
    if len(shown.periods) == 1:
        return f"distance over what is usual at most; dashed: the bar{most}"
    return f"distance over what is usual at most; numbers: above the bar{most}"


def _draw_bars(axes: "Axes", shown: Shifts) -> None:
    names, levels = shown.features[:SHOWN], [row[0] or 0.0 for row in shown.levels[:SHOWN]]
    colours = [VERMILION if level > 1 else _tint(BLUE, 0.55) for level in levels]
    axes.barh(range(len(names)), levels, color=colours, height=0.66)
    axes.axvline(1, color=INK, lw=1.2, ls=(0, (4, 3)))
    for place, level in enumerate(levels):
        axes.annotate(
            f"{level:.2g}", (level, place), (4, 0), textcoords="offset points", va="center", fontsize=9, color=INK
        )
    axes.set_xlim(0, 1.12 * max(*levels, 1.0))
    _name_rows(axes, names)
    _thin(axes)


def _draw_heat(axes: "Axes", shown: Shifts) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    names, periods = shown.features[:SHOWN], shown.periods[-PERIODS:]
    table = np.array([row[-PERIODS:] for row in shown.levels[:SHOWN]], dtype="float64")
    steps = [(0, WHITE), (1 / FULL, _tint(BLUE, 0.45)), (1 / FULL + 1e-6, _tint(VERMILION, 0.3)), (1, VERMILION)]
    colours = LinearSegmentedColormap.from_list("levels", steps, bad=_tint(GREY, 0.12))
    axes.pcolormesh(np.ma.masked_invalid(table), cmap=colours, vmin=0, vmax=FULL, edgecolors=WHITE, lw=1.5)
    for row, column in np.argwhere(table > 1):
        ink = WHITE if table[row, column] > 0.75 * FULL else INK
        axes.text(column + 0.5, row + 0.5, f"{table[row, column]:.1f}", ha="center", va="center", fontsize=8, color=ink)
    every = max(1, -(-sum(len(period) + 2 for period in periods) // 110))  # some 110 characters fit under the axis
    axes.set_xticks(np.arange(len(periods))[::every] + 0.5, periods[::every], parse_math=False)
    _name_rows(axes, names, shift=0.5)
    _thin(axes)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _name_rows(axes: "Axes", names: Sequence[str], shift: float = 0.0) -> None:
    axes.set_yticks(np.arange(len(names)) + shift, [_line(name, 28) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.5 + shift, -0.5 + shift)
    axes.tick_params(axis="y", length=0)
