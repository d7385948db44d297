"""Pictures: PNG bytes of what was measured, for artifacts, cards and the README.

matplotlib is imported where it is used, through its object API: no pyplot, no state shared between threads.
The ground is opaque white and the colours are Okabe and Ito's, so that dark pages and colour-blind readers see the
same.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, isfinite, nan
from statistics import median
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tasks.ml.explain import Importance, Reliance
from tasks.ml.gates import Verdict
from tasks.ml.metrics import METRICS, Estimate
from tasks.ml.slices import Sliced
from tasks.ml.uncertain import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, FAINT, WHITE = "#1f2328", "#5b636d", "#d5d9de", "#ffffff"
BLUE, VERMILION, ORANGE, GREEN, PINK, SKY = "#0072b2", "#c44e00", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"
FAMILY_LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"), (SKY, "v"))
DPI = 120
SHOWN = 14  # rows of a ranking that are drawn; the table has them all
CALIBRATED = 0.05  # mean distance of prediction and outcome up to which the title calls a model calibrated


@dataclass(frozen=True)
class Point:
    """The champion at one moment.

    Attributes:
        at: when it was measured, with a time zone.
        value: the metric; low, high: its interval. NaN where there is none.
        version: the champion after the event; 0 while there is none, and the value is the challenger's.
        event: `released` when it is new, `refused` when a challenger was refused and it stays, else `measured`.
    """

    at: datetime
    value: float
    low: float
    high: float
    version: int
    event: Literal["released", "refused", "measured"] = "measured"


def curve(points: Sequence[Point], metric_label: str, floor: float | None) -> bytes:
    """The champion's performance over time, with interval, floor, releases and refusals: PNG, 1080 × 504 pixels."""
    figure = _figure(9, 4.2)
    _draw_curve(figure.add_subplot(), points, metric_label, floor, width=78)
    return _png(figure)


def calibration(table: Sequence[Mapping[str, float]]) -> bytes:
    """What was predicted against what came true, from `metrics.calibration_table`: PNG, 624 × 600 pixels."""
    figure = _figure(5.2, 5)
    _draw_calibration(figure.add_subplot(), table, width=44)
    return _png(figure)


def confusion(counts: Mapping[str, int], labels: tuple[str, str], threshold: float) -> bytes:
    """Decisions at the threshold against the truth, from `metrics.confusion`: PNG, 624 × 552 pixels.

    Args:
        counts: rows by `true positive`, `false positive`, `false negative`, `true negative`.
        labels: how a person calls the negative and the positive class.
        threshold: at or above it a decision is positive.
    """
    figure = _figure(5.2, 4.6)
    _draw_confusion(figure.add_subplot(), counts, labels, threshold, width=44)
    return _png(figure)


def report(
    points: Sequence[Point],
    panels: Mapping[str, Any],
    labels: Sequence[str],
    *,
    operates: Mapping[str, float],
    metric_label: str,
    floor: float | None,
    title: str,
) -> bytes:
    """The curve and the pictures of the problem's kind side by side under one title: PNG, 1620 × 540 pixels.

    Args:
        points: of the curve.
        panels: what to draw beside it, by the name in `PANELS`: at most two.
        labels: how a person calls the classes.
        operates: how answers become decisions.
        metric_label: what the curve is.
        floor: drawn as a line.
        title: over all.
    """
    figure = _figure(13.5, 4.5)
    figure.suptitle(_line(title, 110), x=0.008, ha="left", fontsize=14, fontweight="bold", color=INK, parse_math=False)
    over_time, *beside = np.atleast_1d(figure.subplots(1, 1 + len(panels), width_ratios=(1.75, *([1] * len(panels)))))
    _draw_curve(over_time, points, metric_label, floor, width=60)
    for axes, (name, numbers) in zip(beside, panels.items(), strict=True):
        PANELS[name](axes, numbers, labels, operates)
    return _png(figure)


def explained(importance: Importance, slices: Sliced | None, title: str) -> bytes:
    """The columns that a model relies on, and beside them groups of rows: PNG, 1080 or 1620 pixels wide, as high as its rows need.

    Args:
        importance: of the columns.
        slices: of the groups; None where none was looked at.
        title: over all.
    """
    rows = max(len(importance.columns), len(slices.slices) if slices else 0)
    figure = _figure(13.5 if slices else 9, 2.0 + 0.27 * min(rows, SHOWN))
    figure.suptitle(
        _line(title, 110 if slices else 78),
        x=0.012,
        ha="left",
        fontsize=14,
        fontweight="bold",
        color=INK,
        parse_math=False,
    )
    if slices is None:
        _draw_importance(figure.add_subplot(), importance, width=78)
        return _png(figure)
    left, right = figure.subplots(1, 2)
    _draw_importance(left, importance, width=52)
    _draw_slices(right, slices, width=52)
    return _png(figure)


def verdicts(given: Sequence[Verdict], title: str) -> bytes:
    """Every gate's answer as a forest plot, each row on its own scale with its bar in the middle: PNG, 1296 pixels wide.

    Args:
        given: the verdicts, the first on top.
        title: over all.
    """
    figure = _figure(10.8, 1.7 + 0.32 * max(len(given), 1))
    figure.suptitle(_line(title, 90), x=0.012, ha="left", fontsize=14, fontweight="bold", color=INK, parse_math=False)
    _draw_verdicts(figure.add_subplot(), given, width=92)
    return _png(figure)


def search(trials: Sequence[Mapping[str, Any]], label: str = "loss", *, greater_is_better: bool = False) -> bytes:
    """Every trial of a study and the best so far: PNG, 1080 × 504 pixels.

    Args:
        trials: each with `number`, `value` (None when it has none), `state` (Optuna's names in lower case: `complete`,
            `pruned`, `fail`, `running`) and `family`.
        label: what the value is.
        greater_is_better: the study's direction.
    """
    figure = _figure(9, 4.2)
    _draw_search(figure.add_subplot(), trials, label, sign=1 if greater_is_better else -1)
    return _png(figure)


def months(rows: Sequence[Mapping[str, Any]], metric_label: str = "metric", floor: float | None = None) -> bytes:
    """The champion beside the first model, which never learned again: PNG, 1080 × 528 pixels.

    Args:
        rows: one a period, oldest first: `period` (text), `frozen` and `champion` (the metric, or None), `event`
            (`released`, `refused` or None) and, where known, `version`.
        metric_label: what the two lines are.
        floor: drawn as a dashed line.
    """
    figure = _figure(9, 4.4)
    _draw_months(figure.add_subplot(), rows, metric_label, floor)
    return _png(figure)


def _draw_curve(axes: "Axes", points: Sequence[Point], metric_label: str, floor: float | None, width: int) -> None:
    """Line, interval, floor and retrain marks, oldest first."""
    known = sorted((point for point in points if isfinite(point.value)), key=lambda point: point.at)
    _headline(axes, _curve_finding(known, metric_label, floor), _curve_key(known), width)
    if not known:
        _nothing(axes, "nothing measured yet")
        return
    at = _days(known)
    low = [point.low if isfinite(point.low) else point.value for point in known]
    high = [point.high if isfinite(point.high) else point.value for point in known]
    if len(known) == 1:
        axes.vlines(at, low, high, color=BLUE, alpha=0.35, lw=3)
    axes.fill_between(at, low, high, color=BLUE, alpha=0.15, lw=0)
    axes.plot(at, [point.value for point in known], color=BLUE, lw=1.8, zorder=3)
    _frame_time(axes, at)
    _frame_values(axes, [*low, *high], floor, metric_label)
    shown = _spaced(at, [point.event != "measured" for point in known])
    for position, point, named in zip(at, known, shown, strict=True):
        _mark(axes, position, point.value, point.event)
        if named:
            kept = f"v{point.version} stays" if point.version else "refused"
            text = f"v{point.version}" if point.event == "released" else kept
            _label_mark(axes, text, position, point.value, strong=point.event == "released")


def _curve_finding(known: Sequence[Point], metric_label: str, floor: float | None) -> str:
    if not known:
        return f"No {metric_label} yet"
    last, sign = known[-1], _sign(metric_label)
    number = f"{metric_label} {last.value:.3f}"
    who = f"Champion v{last.version}" if last.version else "No champion yet; the last challenger"
    if floor is None:
        interval = f" [{last.low:.3f}, {last.high:.3f}]" if isfinite(last.low) else ""
        return f"{who}: {number}{interval}"
    good, bad = ("above the floor", "below the floor") if sign > 0 else ("within its bound", "out of its bound")
    return f"{who} is {good if sign * (last.value - floor) >= 0 else bad}: {number}"


def _curve_key(known: Sequence[Point]) -> str:
    """Names the marks that stand in the picture, and no other."""
    events = {point.event for point in known}
    parts = ["● released"] if "released" in events else []
    parts += ["○ challenger refused"] if "refused" in events else []
    parts += ["band: 90 % interval"] if any(isfinite(point.low) for point in known) else []
    return "   ".join(parts)


def _draw_calibration(axes: "Axes", table: Sequence[Mapping[str, float]], width: int) -> None:
    """Bins on the diagonal mean what they say; whiskers are Wilson's 90 % intervals (JASA 22, 1927)."""
    bins = [row for row in table if row["rows"] > 0 and isfinite(row["predicted"]) and isfinite(row["observed"])]
    _headline(axes, _calibration_finding(bins), _bin_sizes(bins), width)
    if not bins:
        _nothing(axes, "nothing predicted yet")
        return
    predicted, observed = [row["predicted"] for row in bins], [row["observed"] for row in bins]
    bounds = [wilson(row["observed"], row["rows"]) for row in bins]
    largest = max(row["rows"] for row in bins)
    end = min(1.0, 1.06 * max(*predicted, *(high for _, high in bounds)))
    axes.plot([0, end], [0, end], color=GREY, lw=1, ls=(0, (4, 3)))
    axes.vlines(predicted, [low for low, _ in bounds], [high for _, high in bounds], color=BLUE, alpha=0.45, lw=2)
    axes.plot(predicted, observed, color=BLUE, lw=1.2, alpha=0.6)
    sizes = [14 + 36 * row["rows"] / largest for row in bins]
    axes.scatter(predicted, observed, s=sizes, color=BLUE, edgecolors=WHITE, linewidths=0.8, zorder=4, clip_on=False)
    axes.set(xlim=(0, end), ylim=(0, end), aspect="equal")
    axes.set(xlabel="mean predicted probability", ylabel="rate that came true")
    axes.annotate(
        "as predicted", (end, end), (-6, -26), textcoords="offset points", rotation=45,
        rotation_mode="anchor", ha="right", va="top", fontsize=8.5, color=GREY,
    )  # fmt: skip
    _thin(axes)


def _calibration_finding(bins: Sequence[Mapping[str, float]]) -> str:
    rows = sum(row["rows"] for row in bins)
    if not rows:
        return "No calibration yet"
    error = sum(row["rows"] * abs(row["predicted"] - row["observed"]) for row in bins) / rows
    bias = sum(row["rows"] * (row["predicted"] - row["observed"]) for row in bins) / rows
    if error <= CALIBRATED:
        return f"Calibrated: mean error {error:.3f}"
    if abs(bias) < error / 2:
        return f"Off by {error:.3f} on average, to both sides"
    return f"Predictions are {'too high' if bias > 0 else 'too low'}: off by {error:.3f}"


def _bin_sizes(bins: Sequence[Mapping[str, float]]) -> str:
    sizes = [int(row["rows"]) for row in bins]
    if not sizes:
        return ""
    noun = "bin" if len(sizes) == 1 else "bins"
    if max(sizes) - min(sizes) <= 1:
        return f"{len(sizes)} {noun} of {max(sizes):,} rows   bars: 90 % interval"
    return f"{len(sizes)} {noun} of {min(sizes):,} to {max(sizes):,} rows   bars: 90 % interval"


def _draw_confusion(
    axes: "Axes", counts: Mapping[str, int], labels: tuple[str, str], threshold: float, width: int
) -> None:
    """Truth in rows, decisions in columns; blue is right, orange is wrong, stronger is a larger share of its row."""
    negative, positive = (_line(label, 14) for label in labels)
    cells = {(0, 0): "true positive", (0, 1): "false negative", (1, 0): "false positive", (1, 1): "true negative"}
    _headline(axes, _confusion_finding(counts, positive), f"at threshold {threshold:.3g}", width)
    for (row, column), name in cells.items():
        total = sum(counts.get(cells[row, other], 0) for other in (0, 1))
        _draw_cell(axes, (column, row), counts.get(name, 0), total, right=row == column)
    axes.set(xlim=(0, 2), ylim=(2, 0), xlabel="decided", ylabel="true")
    axes.set_xticks([0.5, 1.5], [positive, negative], parse_math=False)
    axes.set_yticks([0.5, 1.5], [positive, negative], rotation=90, va="center", parse_math=False)
    axes.tick_params(length=0, labelsize=10, labelcolor=INK)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)
    axes.spines[:].set_visible(False)


def _draw_cell(axes: "Axes", corner: tuple[int, int], count: int, total: int, *, right: bool) -> None:
    from matplotlib.patches import Rectangle

    share = count / total if total else 0.0
    fill = _tint(BLUE if right else VERMILION, 0.06 + 0.44 * share)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=fill, edgecolor=WHITE, lw=4))
    x, y = corner[0] + 0.5, corner[1] + 0.5
    axes.text(x, y - 0.04, f"{count:,}", ha="center", va="center", fontsize=17, fontweight="bold", color=INK)
    note = f"{100 * share:.1f} % of the row" if total else "no such rows"
    axes.text(x, y + 0.2, note, ha="center", va="center", fontsize=8.5, color=INK)


def _confusion_finding(counts: Mapping[str, int], positive: str) -> str:
    found, missed, false = (counts.get(name, 0) for name in ("true positive", "false negative", "false positive"))
    if not found + missed:
        return f"No “{positive}” among the rows"
    recall = f"Finds {_share(found, found + missed)} of “{positive}”"
    if not found + false:
        return f"{recall}: it never says so"
    return f"{recall}; {_share(found, found + false)} of its alarms are right"


def _draw_search(axes: "Axes", trials: Sequence[Mapping[str, Any]], label: str, sign: int) -> None:
    """Trials by family, pruned ones as crosses, and the best so far as a step line."""
    from matplotlib.ticker import MaxNLocator

    known = sorted((trial for trial in trials if _known(trial.get("value"))), key=lambda trial: trial["number"])
    finished = [trial for trial in known if trial.get("state") == "complete"]
    families = sorted({str(trial.get("family", "")) for trial in known})
    looks = {family: FAMILY_LOOKS[i % len(FAMILY_LOOKS)] for i, family in enumerate(families)}
    _headline(axes, _search_finding(trials, finished, label, sign), " ", 78)
    if not known:
        _nothing(axes, "no trial has ended yet")
        return
    values = [float(trial["value"]) for trial in known]
    low, high = _range_of_interest(values, sign)
    _plot_trials(axes, known, looks, (low, high))
    if finished:
        _plot_best(axes, finished, known[-1]["number"], sign)
    outside = sum(not low <= value <= high for value in values)
    _search_key(axes, looks, pruned=len(known) - len(finished), outside=outside)
    pad = 0.06 * (high - low)
    axes.set(ylim=(low - pad, high + pad), xlabel="trial", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _thin(axes, grid=True)


def _search_finding(
    trials: Sequence[Mapping[str, Any]], finished: Sequence[Mapping[str, Any]], label: str, sign: int
) -> str:
    if not finished:
        return f"No finished trial among {len(trials)}" if trials else "No trial yet"
    best = max(finished, key=lambda trial: sign * trial["value"])
    pruned = sum(trial.get("state") == "pruned" for trial in trials)
    saved = f", {pruned} pruned early" if pruned else ""
    return f"Best {label} {best['value']:.4f} by trial {best['number']} of {len(trials)}{saved}"


def _range_of_interest(values: Sequence[float], sign: int) -> tuple[float, float]:
    """The best value and some five times the usual distance from it, so that one hopeless trial hides nothing."""
    best = max(values, key=lambda value: sign * value)
    usual = median(abs(value - best) for value in values)
    reach = 5 * usual if usual else max(abs(value - best) for value in values)
    reach = reach or 0.01 * abs(best) or 0.01
    worst = min(values, key=lambda value: sign * value)
    edge = best - sign * min(reach, abs(best - worst) or reach)
    return min(best, edge), max(best, edge)


def _plot_trials(
    axes: "Axes",
    known: Sequence[Mapping[str, Any]],
    looks: Mapping[str, tuple[str, str]],
    span: tuple[float, float],
) -> None:
    """One mark a trial in its family's look; values outside the span stand at its edge."""
    for trial in known:
        colour, shape = looks[str(trial.get("family", ""))]
        value = min(max(float(trial["value"]), span[0]), span[1])
        if trial.get("state") == "complete":
            axes.scatter(trial["number"], value, s=36, color=colour, marker=shape, edgecolors=WHITE, lw=0.7, zorder=3)
        else:
            axes.scatter(trial["number"], value, s=26, color=colour, marker="x", lw=1.1, alpha=0.75, zorder=2)


def _plot_best(axes: "Axes", finished: Sequence[Mapping[str, Any]], last: int, sign: int) -> None:
    """The best value so far, carried on to the last trial."""
    numbers, best = [], []
    for trial in finished:
        numbers.append(trial["number"])
        best.append(sign * max(sign * float(trial["value"]), sign * best[-1] if best else -float("inf")))
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=INK, lw=1.4, zorder=1)
    axes.annotate(
        "best so far", (last, best[-1]), (8, 0), textcoords="offset points", va="center", fontsize=9, color=INK,
        annotation_clip=False,
    )  # fmt: skip


def _search_key(axes: "Axes", looks: Mapping[str, tuple[str, str]], *, pruned: int, outside: int) -> None:
    """Names each family in its own colour, on the line under the title."""
    symbols = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼"}
    parts = [(f"{symbols[shape]} {_line(family, 30)}", colour) for family, (colour, shape) in looks.items() if family]
    parts += [("× pruned", GREY)] if pruned else []
    parts += [(f"{outside} far worse, drawn at the edge", GREY)] if outside else []
    beside: Any = "axes fraction"  # the first stands at the corner, each other at the end of the one before it
    at, shift = (0, 1), (0, 7)
    for text, colour in parts:
        beside = axes.annotate(
            text, at, shift, xycoords=beside, textcoords="offset points", va="bottom", fontsize=9, color=colour,
            parse_math=False, annotation_clip=False,
        )  # fmt: skip
        at, shift = (1, 0), (12, 0)


def _draw_importance(axes: "Axes", importance: Importance, width: int) -> None:
    """The most important columns, a dot and an interval each; those that may be of no use are grey."""
    shown = [one for one in importance.columns if isfinite(one.loss.value)][:SHOWN]
    _headline(axes, _importance_finding(shown), f"{importance.note}; bars: 90 % interval", width)
    if not shown:
        _nothing(axes, "no column could be measured")
        return
    _draw_ranges(axes, [(one.column, one.loss, BLUE if one.is_sure else GREY) for one in shown])
    axes.axvline(0, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    axes.set_xlabel(f"how much worse the {importance.metric} gets with the column shuffled", parse_math=False)


def _importance_finding(shown: Sequence[Reliance]) -> str:
    sure = [one for one in shown if one.is_sure]
    if not sure:
        return "No column is surely of use by itself"
    others = f"; {len(sure) - 1} more {'is' if len(sure) == 2 else 'are'} surely of use" if len(sure) > 1 else ""
    return f"It relies most on {_line(sure[0].column, 30)}{others}"


def _draw_slices(axes: "Axes", slices: Sliced, width: int) -> None:
    """Every group, or the worst where there are many: a dot and an interval each, the champion's dot hollow, the whole as a line."""
    known = [one for one in slices.slices if isfinite(one.challenger.value)]
    worst = sorted(known, key=lambda one: _sign(slices.metric) * one.challenger.value)[:SHOWN]
    shown = [one for one in known if one in worst]
    beside = any(one.champion for one in shown)
    _headline(axes, _slices_finding(slices), f"bars: 90 % interval{'   ○ champion before' if beside else ''}{f'   the {SHOWN} worst of {len(known)}' if len(known) > SHOWN else ''}", width)  # fmt: skip
    if not shown:
        _nothing(axes, "no group could be measured")
        return
    names = [f"{one.name} ({one.rows:,})" for one in shown]
    _draw_ranges(axes, [(name, one.challenger, VERMILION if one.is_worse else BLUE) for name, one in zip(names, shown, strict=True)])  # fmt: skip
    for place, one in enumerate(shown):
        if one.champion and isfinite(one.champion.value):
            axes.plot([one.champion.value], [place], marker="o", ms=6, mfc=WHITE, mec=GREY, mew=1.4, zorder=2)
    axes.axvline(slices.whole.value, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    axes.set_xlabel(f"{slices.metric}; dashed: over all rows", parse_math=False)


def _slices_finding(slices: Sliced) -> str:
    worse = slices.worse
    if not slices.slices:
        return "No group of rows is large enough"
    if not worse:
        return f"No group of {len(slices.slices)} is surely worse than the whole"
    worst = min(worse, key=lambda one: _sign(slices.metric) * one.challenger.value)
    return f"{len(worse)} of {len(slices.slices)} groups {'is' if len(worse) == 1 else 'are'} surely worse, most of all {_line(worst.name, 30)}"


def _draw_ranges(axes: "Axes", rows: Sequence[tuple[str, Estimate, str]]) -> None:
    """One line a row from the top: its name, a dot, the interval, in the row's colour."""
    for place, (_, said, colour) in enumerate(rows):
        if isfinite(said.low):
            axes.hlines(place, said.low, said.high, color=colour, alpha=0.45, lw=3)
        axes.plot([said.value], [place], marker="o", ms=6, color=colour, zorder=3)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [_line(name, 34) for name, _, _ in rows], parse_math=False)
    _thin(axes)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="x", color=FAINT, lw=0.6)


def _draw_verdicts(axes: "Axes", given: Sequence[Verdict], width: int) -> None:
    """A dot and an interval a row, good to the right of the line that is its bar; beside them what stands in the table."""
    _headline(axes, _verdicts_finding(given), "dashed: the bar, better to the right, each row on its own scale   lines: interval   × no number", width)  # fmt: skip
    if not given:
        _nothing(axes, "no gate was asked")
        return
    axes.axvspan(-1.15, 0, color=_tint(VERMILION, 0.07), zorder=0)
    axes.axvline(0, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    for place, verdict in enumerate(given):
        colour = BLUE if verdict.passed else ORANGE if verdict.hold else VERMILION
        at = _beside_the_bar(verdict)
        if at is None:
            axes.plot([0.0], [place], marker="x", ms=6, color=colour, zorder=3)
        else:
            axes.hlines(place, at[1], at[2], color=colour, alpha=0.45, lw=3)
            axes.plot([at[0]], [place], marker="o", ms=6, color=colour, zorder=3)
        answer = "passed" if verdict.passed else "a person" if verdict.hold else "REFUSED"
        for x, text in ((1.2, answer), (1.55, _verdict_numbers(verdict))):
            axes.text(x, place, text, va="center", fontsize=9, color=INK if x > 1.5 else colour, parse_math=False)
    axes.set(xlim=(-1.15, 3.6), ylim=(len(given) - 0.4, -0.6), xticks=[])
    axes.set_yticks(range(len(given)), [verdict.gate for verdict in given])
    _thin(axes)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["bottom"].set_visible(False)


def _beside_the_bar(verdict: Verdict) -> tuple[float, float, float] | None:
    """Value and bounds as distances from the bar, good ones above 0, the furthest of them 1; None where there is no number."""
    if not (_known(verdict.value) and _known(verdict.bar)):
        return None
    sign = 1 if verdict.wanted == "above" else -1
    ends = [verdict.value if end is None else end for end in (verdict.low, verdict.high)]
    found = [sign * (_number(end) - _number(verdict.bar)) for end in (verdict.value, *ends)]
    reach = max((abs(end) for end in found if isfinite(end)), default=0.0) or 1.0
    value, low, high = (end / reach for end in found)
    return value, low, high


def _verdict_numbers(verdict: Verdict) -> str:
    """`0.9012 → 0.9123: +0.0111 [0.0050, 0.0170], bar > 0; would see 0.0080`."""
    if not _known(verdict.value):
        return _line(verdict.reason, 62)
    compared = (
        f"{verdict.before:.4g} → {verdict.after:.4g}:  " if _known(verdict.before) and _known(verdict.after) else ""
    )
    interval = f" [{verdict.low:.3g}, {verdict.high:.3g}]" if _known(verdict.low) and _known(verdict.high) else ""
    sees = f"; would see {verdict.power:.2g}" if _known(verdict.power) else ""
    side = ">" if verdict.wanted == "above" else "≤"
    bar = f", bar {side} {verdict.bar:.3g}" if _known(verdict.bar) else ""
    return _line(f"{compared}{verdict.value:.3g}{interval}{bar}{sees}", 78)


def _verdicts_finding(given: Sequence[Verdict]) -> str:
    against = [verdict.gate for verdict in given if not verdict.passed]
    if not against:
        return f"All {len(given)} gates passed" if given else "No gate was asked"
    return (
        f"{len(against)} of {len(given)} gates {'is' if len(against) == 1 else 'are'} against it: {', '.join(against)}"
    )


def _draw_months(axes: "Axes", rows: Sequence[Mapping[str, Any]], metric_label: str, floor: float | None) -> None:
    """Two lines over periods, the gap between them tinted, releases and refusals marked on the champion's."""
    frozen, champion = ([_number(row.get(name)) for row in rows] for name in ("frozen", "champion"))
    known = [value for value in (*frozen, *champion) if isfinite(value)]
    _headline(axes, _months_finding(frozen, champion, metric_label), _months_key(rows), 78)
    if not known:
        _nothing(axes, "no period measured yet")
        return
    places = list(range(len(rows)))
    axes.fill_between(places, frozen, champion, color=BLUE, alpha=0.1, lw=0)
    axes.plot(places, frozen, color=GREY, lw=1.8, ls=(0, (5, 1.5)), marker="." if len(rows) == 1 else "", zorder=2)
    axes.plot(places, champion, color=BLUE, lw=2, zorder=3)
    axes.set_xlim(-0.4, len(rows) - 0.6)
    _frame_values(axes, known, floor, metric_label)
    for place, row, value in zip(places, rows, champion, strict=True):
        _mark_period(axes, place, row, value)
    _name_lines(axes, {"champion": (champion, BLUE), "frozen first model": (frozen, GREY)})
    names = [_line(str(row.get("period", "")), 14) for row in rows]
    every = max(1, ceil(sum(len(name) + 2 for name in names) / 90))  # some 90 characters fit under the axis
    axes.set_xticks(places[::every], names[::every], parse_math=False)


def _mark_period(axes: "Axes", place: int, row: Mapping[str, Any], value: float) -> None:
    event = row.get("event") or "measured"
    if not isfinite(value):
        return
    _mark(axes, place, value, event)
    if event == "released" and row.get("version") is not None:
        _label_mark(axes, f"v{row['version']}", place, value, strong=True)


def _months_finding(frozen: Sequence[float], champion: Sequence[float], metric_label: str) -> str:
    pairs = [(a, b) for a, b in zip(frozen, champion, strict=True) if isfinite(a) and isfinite(b)]
    if not pairs:
        return f"No {metric_label} of both models yet"
    gain = _sign(metric_label) * sum(b - a for a, b in pairs) / len(pairs)
    periods = "1 period" if len(pairs) == 1 else f"{len(pairs)} periods"
    if gain > 0.0005:
        return f"Retraining improved {metric_label} by {gain:.3f} on average over {periods}"
    if gain < -0.0005:
        return f"Retraining worsened {metric_label} by {-gain:.3f} on average over {periods}"
    return f"Retraining changed nothing in {metric_label} over {periods}"


def _months_key(rows: Sequence[Mapping[str, Any]]) -> str:
    events = {row.get("event") for row in rows}
    parts = ["● challenger released"] if "released" in events else []
    return "   ".join(parts + (["○ challenger refused"] if "refused" in events else []))


def _name_lines(axes: "Axes", lines: Mapping[str, tuple[Sequence[float], str]]) -> None:
    """Each line's name and last value beside its end, moved apart where the ends meet."""
    ends = []
    for name, (values, colour) in lines.items():
        last = max((i for i, value in enumerate(values) if isfinite(value)), default=None)
        if last is not None:
            ends.append((values[last], last, name, colour))
    ends.sort()
    low, high = axes.get_ylim()
    near = len(ends) == 2 and ends[1][0] - ends[0][0] < 0.09 * (high - low)
    for (value, last, name, colour), shift in zip(ends, (-9, 9) if near else (0, 0), strict=False):
        axes.annotate(
            f"{name} {value:.3f}", (last, value), (10, shift), textcoords="offset points", va="center",
            fontsize=9.5, fontweight="bold", color=colour, annotation_clip=False,
        )  # fmt: skip


def _mark(axes: "Axes", x: Any, y: float, event: str) -> None:
    """Filled: released. Hollow: refused. Small: only measured."""
    face, size = {"released": (BLUE, 8), "refused": (WHITE, 8)}.get(event, (BLUE, 3.5))
    axes.plot([x], [y], marker="o", ms=size, mfc=face, mec=BLUE, mew=1.6 if event == "refused" else 0, zorder=5)


def _label_mark(axes: "Axes", text: str, x: Any, y: float, *, strong: bool) -> None:
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text, (x, y), (0, 9), textcoords="offset points", ha="center", fontsize=9 if strong else 8.5,
        fontweight="bold" if strong else "normal", color=INK if strong else GREY, zorder=6,
        path_effects=[withStroke(linewidth=2.5, foreground=WHITE)],
    )  # fmt: skip


def _spaced(at: Sequence[float], wanted: Sequence[bool], share: float = 0.065) -> list[bool]:
    """Which wanted labels have room, from the newest back: each at least `share` of the axis from the next."""
    room, edge = (at[-1] - at[0]) * share, float("inf")
    chosen: list[bool] = []
    for moment, wish in zip(reversed(at), reversed(wanted), strict=True):
        fits = wish and edge - moment >= room
        edge = moment if fits else edge
        chosen.append(fits)
    return list(reversed(chosen))


def _days(points: Sequence[Point]) -> list[float]:
    """The moments in UTC, as matplotlib counts days."""
    from matplotlib.dates import date2num

    return [float(date2num(point.at.astimezone(UTC).replace(tzinfo=None))) for point in points]


def _frame_time(axes: "Axes", at: Sequence[float]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, num2date

    pad = (at[-1] - at[0]) * 0.04 or 1.0
    axes.set_xlim(at[0] - pad, at[-1] + pad)
    if at[0] == at[-1]:
        axes.set_xticks([at[0]], [f"{num2date(at[0]):%Y-%m-%d}"])
        return
    locator = AutoDateLocator(minticks=2, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _frame_values(axes: "Axes", values: Iterable[float], floor: float | None, metric_label: str) -> None:
    """The range of what is drawn, with room for labels above; the floor as a dashed line."""
    drawn = [*values, *([] if floor is None else [floor])]
    low, high = min(drawn), max(drawn)
    span = high - low or 0.1 * abs(high) or 0.1
    axes.set_ylim(low - 0.12 * span, high + 0.16 * span)
    axes.set_ylabel(metric_label, parse_math=False)
    if floor is not None:
        axes.axhline(floor, color=VERMILION, lw=1.3, ls=(0, (5, 3)), zorder=1)
        name = "floor" if _sign(metric_label) > 0 else "upper bound"
        axes.annotate(
            f"{name} {floor:g}", (0.006, floor), (0, 3), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", va="bottom", fontsize=9, color=VERMILION,
        )  # fmt: skip
    _thin(axes, grid=True)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.03)
    return Figure(figsize=(width, height), dpi=DPI, facecolor=WHITE, layout=layout)


def _png(figure: "Figure") -> bytes:
    """Opaque bytes in 256 colours, a third of the size in full colour; the same for the same numbers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    target = io.BytesIO()
    pixels.quantize(256).save(target, format="PNG", optimize=True, dpi=(DPI, DPI))
    return target.getvalue()


def _headline(axes: "Axes", finding: str, key: str, width: int) -> None:
    """The finding as a title, and under it in grey what the marks mean."""
    balanced = width if len(finding) <= width else min(width, len(finding) // 2 + 8)
    text = "\n".join(wrap(finding, balanced)[:3])
    pad = 24 if key else 10
    axes.set_title(text, loc="left", fontsize=11.5, fontweight="bold", color=INK, pad=pad, parse_math=False)
    if key.strip():
        axes.annotate(
            key, (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", va="bottom", fontsize=9,
            color=GREY, parse_math=False, annotation_clip=False,
        )  # fmt: skip


def _nothing(axes: "Axes", text: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(FAINT)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=11, color=GREY)


def _thin(axes: "Axes", *, grid: bool = False) -> None:
    """Light spines and ticks; only what is needed to read a value."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=GREY, labelsize=9)
    axes.xaxis.label.set(color=GREY, fontsize=9.5)
    axes.yaxis.label.set(color=GREY, fontsize=9.5)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis="y", color=FAINT, lw=0.6)


def _tint(colour: str, strength: float) -> tuple[float, float, float]:
    """The colour mixed with white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _sign(metric_label: str) -> int:
    """1 when more of the metric is better, else -1; a label that is no metric's counts as more is better."""
    known = {metric.label: metric for metric in METRICS.values()}
    return -1 if metric_label in known and not known[metric_label].greater_is_better else 1


def _share(part: int, whole: int) -> str:
    """A share that is 100 % or 0 % only when it is exactly that."""
    digits = 0 if part in {0, whole} or 0.01 <= part / whole < 0.99 else 1
    return f"{100 * part / whole:.{digits}f} %"


def _known(value: Any) -> bool:
    return value is not None and isfinite(value)


def _number(value: Any) -> float:
    return float(value) if _known(value) else nan


def _line(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    words = " ".join(text.split())
    if len(words) <= width:
        return words
    return words[: width - 1].rstrip() + "…"


# -- the pictures of each kind, as a panel of the report ----------------------------------------------------------------
def _panel_calibration(axes: "Axes", table: Any, _labels: Sequence[str], _operates: Mapping[str, float]) -> None:
    _draw_calibration(axes, table, width=30)


def _panel_confusion(axes: "Axes", counts: Any, labels: Sequence[str], operates: Mapping[str, float]) -> None:
    _draw_confusion(axes, counts, (labels[0], labels[1]), operates["threshold"], width=30)


def _panel_classes(axes: "Axes", numbers: Any, _labels: Sequence[str], _operates: Mapping[str, float]) -> None:
    """Truth in rows, likeliest class in columns; stronger is a larger share of its row."""
    table, names = np.array(numbers["table"]), [_line(name, 12) for name in numbers["labels"]]
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    right = np.trace(table) / max(table.sum(), 1)
    _headline(axes, f"{100 * right:.1f} % of the rows get their class", "share of each true class", 30)
    for row in range(len(names)):
        for column in range(len(names)):
            colour = _tint(BLUE if row == column else VERMILION, 0.06 + 0.5 * shares[row, column])
            axes.fill([column, column + 1, column + 1, column], [row, row, row + 1, row + 1], color=colour, lw=0)
            if len(names) <= 8:
                axes.text(column + 0.5, row + 0.5, f"{100 * shares[row, column]:.0f}", ha="center", va="center", fontsize=10, color=INK)  # fmt: skip
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0), xlabel="decided", ylabel="true")
    middles = np.arange(len(names)) + 0.5
    axes.set_xticks(middles, names, rotation=45 if len(names) > 4 else 0, parse_math=False)
    axes.set_yticks(middles, names, parse_math=False)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.spines[:].set_visible(False)


def _panel_means(axes: "Axes", rows: Any, _labels: Sequence[str], _operates: Mapping[str, float]) -> None:
    """Mean prediction against mean truth in ten bins of equal size."""
    said, came = ([row[name] for row in rows] for name in ("predicted", "observed"))
    worst = max((abs(a - b) for a, b in zip(said, came, strict=True)), default=0.0)
    ends = [min(*said, *came), max(*said, *came)]
    _headline(axes, f"Predictions are at most {worst:.3g} off in any tenth", "means of tenths of the rows", 30)
    axes.plot(ends, ends, color=GREY, lw=1, ls="--")
    axes.plot(said, came, color=BLUE, lw=1.6, marker="o", ms=5)
    axes.set(xlabel="predicted", ylabel="came true")
    _thin(axes, grid=True)


def _panel_errors(axes: "Axes", numbers: Any, _labels: Sequence[str], _operates: Mapping[str, float]) -> None:
    """How often which error, and the interval that is given with every answer."""
    edges, half = numbers["edges"], numbers["interval"]
    _headline(axes, f"Nine answers of ten are meant to be within ±{half:.3g}", "truth less prediction; outermost 2 % at the ends", 30)  # fmt: skip
    axes.stairs(numbers["counts"], edges, fill=True, color=_tint(BLUE, 0.45))
    for place in (-half, half):
        axes.axvline(place, color=VERMILION, lw=1.2, ls="--")
    axes.set(xlabel="error", ylabel="rows", ylim=(0, None))
    _thin(axes)


def _panel_scores(axes: "Axes", numbers: Any, _labels: Sequence[str], _operates: Mapping[str, float]) -> None:
    """The scores of rows as they are, of planted ones, and where an alarm begins."""
    over = [low >= numbers["threshold"] for low in numbers["edges"][:-1]]
    caught = sum(count for count, is_over in zip(numbers["planted"], over, strict=True) if is_over)
    finding = f"{_share(caught, sum(numbers['planted']))} of planted rows reach the alarm"
    _headline(axes, finding, "blue: rows as they are; orange: planted", 30)
    for name, colour in (("usual", BLUE), ("planted", VERMILION)):
        axes.stairs(numbers[name], numbers["edges"], fill=True, color=_tint(colour, 0.5), alpha=0.7)
    axes.axvline(numbers["threshold"], color=INK, lw=1.2, ls="--")
    axes.set(xlabel="oddness", ylabel="rows", ylim=(0, None))
    _thin(axes)


def _panel_places(axes: "Axes", numbers: Any, _labels: Sequence[str], _operates: Mapping[str, float]) -> None:
    """How often the item at each place was taken, and how much of what was taken is found up to there."""
    places = np.arange(1, len(numbers["taken"]) + 1)
    finding = f"The best {len(places)} hold {100 * numbers['recall'][-1]:.0f} % of what is taken"
    _headline(axes, finding, f"bars: that item was taken; line: recall; {numbers['users']:,} users", 30)
    axes.bar(places, numbers["taken"], color=_tint(BLUE, 0.45), width=0.7)
    axes.plot(places, numbers["recall"], color=VERMILION, lw=1.6, marker="o", ms=5)
    axes.set(xlabel="place among the answers", ylabel="share", ylim=(0, None))
    axes.set_xticks(places if len(places) <= 12 else places[:: len(places) // 6])
    _thin(axes)


PANELS: dict[str, Callable[["Axes", Any, Sequence[str], Mapping[str, float]], None]] = {
    "calibration": _panel_calibration,
    "confusion": _panel_confusion,
    "classes": _panel_classes,
    "means": _panel_means,
    "errors": _panel_errors,
    "scores": _panel_scores,
    "places": _panel_places,
}
