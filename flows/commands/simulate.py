"""Simulations: what the gates and the watch would do where the truth is known."""

from typing import Any, Literal

from cyclopts import App
from rich.table import Table

from flows.commands.terminal import Flag, Json, say, show, table
from tasks.config.errors import MisuseError
from tasks.config.settings import Settings

simulate = App(name="simulate", help="What the gates and the watch would do where the truth is known.")


@simulate.command(name="gate")
def simulate_gate(
    *, null: Flag = False, gain: float | None = None, n: int = 400, rows: int = 1000,
    metric: Literal["roc_auc"] = "roc_auc", looks: int = 1, seed: int = 0, as_json: Json = False,
) -> int:  # fmt: skip
    """Ask the champion gate about many retrains whose true gain is known: how often does it promote?

    Args:
        null: No challenger is truly better: how often is one promoted all the same?
        gain: Every challenger is truly better by so much: how often is that seen?
        n: Retrains.
        rows: Of the holdout.
        metric: What decides.
        looks: Challengers in turn against the same champion; one promotion of them counts.
        seed: Of everything that is drawn.
    """
    from tasks.ml import simulation

    if null == (gain is not None):
        raise MisuseError("Say either --null, when no challenger is better, or --gain, by how much every one is.")
    try:
        drawn = simulation.Retrains(rows=rows, metric=metric, gain=gain or 0.0, looks=looks)
    except ValueError as error:
        raise MisuseError(" ".join(str(error).split())) from error
    found = simulation.over(drawn, n, seed, say)
    return show(found.told, as_json=as_json)


@simulate.command(name="alarms")
def simulate_alarms(
    project: str | None = None, *, null: Flag = False, months: int = 240, seed: int = 0, as_json: Json = False,
) -> int:  # fmt: skip
    """Watch over many months of which the truth is known: how often is there a false alarm, and which planted drifts are found when?

    Args:
        project: Days are drawn from its newest rows; from made ones when left out.
        null: Nothing is amiss: how many incidents begin a month, looking as the project does? Exit code 1 when surely more than the budget: the whole interval is above it.
        months: Of watching, in versions that are watched for twelve months each. Few are few: below 60 a lucky or unlucky calibration decides.
        seed: Of everything that is drawn.
    """
    from flows.simulate import alarms

    if months < 1:
        raise MisuseError(f"--months is {months}; it must be at least 1.")
    found = alarms(project, null=null, months=months, seed=seed, settings=Settings(), say=say)
    return show(found, as_json=as_json, page=_planted(found) if "drifts" in found else None)


def _planted(found: dict[str, Any]) -> Table:
    """Which planted drifts were found."""
    heads = ("drift", "found", "95 %", "days until then", "at most", "what")
    return table(heads, map(_drift, found["drifts"].items()))


def _drift(named: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    name, drift = named
    delay, latest = ("" if drift[key] is None else f"{drift[key]:g}" for key in ("delay", "latest"))
    return name, f"{drift['found']:.0%}", f"{drift['low']:.0%} to {drift['high']:.0%}", delay, latest, drift["about"]
