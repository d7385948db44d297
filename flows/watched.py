"""Watched: how a look at a project reads in a terminal."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

SHOWN = 8  # features


def page(seen: dict[str, Any]) -> Group:
    """The verdict, the performance, the features that moved most, and the alarms."""
    window = seen["window"]
    where = (
        f"{window['since']} to {window['until']}, {seen['rows']:,} rows {window['source']}" if window else "no window"
    )
    head = Text(f"{seen['project']} version {seen['version']}: {seen['verdict']}\n{where}\n{seen['reason']}\n")
    return Group(head, _performance(seen["performance"]), *([_drift(seen)] if seen["drift"] else []), *map(_alarm, seen["alarms"]))  # fmt: skip


def _performance(told: dict[str, Any]) -> Text:
    if "metric" not in told:
        return Text("")
    realised = _between(told["realised"], told["realised_low"], told["realised_high"])
    estimated = _between(told["estimated"], told["low"], told["high"])
    return Text(
        f"{told['metric']}: {told['at_training']:.4f} at training; came true {realised} on {told['rows']:,} rows, "
        f"{told['pending']:,} pending; estimated {estimated}\n"
    )


def _between(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4f}" + (f" [{low:.4f}, {high:.4f}]" if low is not None and high is not None else "")


def _drift(seen: dict[str, Any]) -> Table:
    """The features that are nearest to their bar, or beyond it."""
    table = Table("feature", "distance", "usual at most", "PSI", "missing", "", box=None)
    drift = {f"({name})": each for name, each in seen["predictions"].items()} | seen["drift"]
    for name, each in sorted(drift.items(), key=lambda item: -_nearness(item[1]))[:SHOWN]:
        fixed, bar = each["fixed"], each["bar"]
        before, now = fixed["missing"]
        table.add_row(
            name, f"{fixed['distance']:.3f}", "" if bar is None else f"{bar:.3f}", f"{fixed['psi']:.3f}",
            f"{before:.1%} → {now:.1%}" if max(before, now) else "", "moved" if each["moved"] else "",
        )  # fmt: skip
    return table


def _nearness(drift: dict[str, Any]) -> float:
    return drift["fixed"]["distance"] / drift["bar"] if drift["bar"] else drift["moved"]


def _alarm(alarm: dict[str, Any]) -> Text:
    return Text(f"\n{alarm['kind']}, {alarm['class']}: {alarm['says']}")
