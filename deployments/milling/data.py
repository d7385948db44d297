"""A milling machine's year, simulated from the published rules of AI4I 2020, cut into batches.

`python deployments/milling/data.py FOLDER [--every month|quarter]`

Rules: S. Matzka, "Explainable Artificial Intelligence for Predictive Maintenance Applications", AI4I 2020, pp. 69-74, and the data set's page
at UCI (601). README.md says where this simulation adds to them or differs.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from tasks.config.demos import cut, main

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
MINUTES = 5  # from one part to the next
ROWS = 366 * 24 * 60 // MINUTES  # all of 2024
SEED = 601

TYPES = np.array(["L", "M", "H"])
MIX = (0.6, 0.3, 0.1)  # as in the published rows; their description says 50/30/20
WEAR = (2.0, 3.0, 5.0)  # minutes that a part of each type adds
LIFE = (200.0, 240.0)  # minutes of wear between which a tool ends
FAILS = 51 / 120  # so many of the published tools' ends were failures, the others were replacements in time
MEMORY = 200  # parts after which a temperature's walk has been pulled back by a factor e
TORQUE, TORQUE_SD, LEAST_TORQUE = 40.0, 10.0, 0.1  # Nm
POWER = 2860.0  # W, which give the speed at a torque on top of the idle speed
IDLE, NOISE, TOP = (
    830.0,
    60.0,
    2886.0,
)  # rpm: set so that speed has the published mean, spread and correlation with torque

COOLING, SLOW = 8.6, 1380  # K and rpm: below both, heat stays
WEAKEST, STRONGEST = 3500.0, 9000.0  # W: outside, the power fails
STRAIN = (11_000.0, 12_000.0, 13_000.0)  # minNm that each type bears
RANDOM = 0.001

SENT = ["serial", "time", "type", "air", "process", "speed", "torque", "wear", "failure"]
MODES = ["twf", "hdf", "pwf", "osf", "rnf"]


@dataclass(frozen=True)
class Ambient:
    """A hot season: half a sine from `since` to `until`, warmer air that the coolant follows less and less."""

    since: dt.datetime
    until: dt.datetime
    air: float = 6.0  # K more at the height
    cooling: float = 0.5  # K less difference at the height

    def strength(self, times: pd.DatetimeIndex) -> np.ndarray:
        """How much of it each row feels, (n,) from 0 to 1."""
        passed = np.asarray((times - self.since) / (self.until - self.since), dtype=float)
        return np.where((passed > 0) & (passed < 1), np.sin(np.pi * np.clip(passed, 0, 1)), 0.0)


@dataclass(frozen=True)
class Supplier:
    """Another supplier of blanks: another mix of types, and a material that strains the machine earlier."""

    since: dt.datetime
    mix: tuple[float, float, float] = (0.45, 0.35, 0.2)
    strain: float = -1_500.0  # minNm by which each type's limit moves


@dataclass(frozen=True)
class Tool:
    """Another type of tool: it wears slower, lasts longer, and cuts with less torque."""

    since: dt.datetime
    wear: tuple[float, float, float] = (1.5, 2.5, 4.0)
    life: tuple[float, float] = (230.0, 270.0)
    torque: float = -2.0  # Nm


Change = Ambient | Supplier | Tool
CHANGES: tuple[Change, ...] = (
    Tool(dt.datetime(2024, 4, 15, tzinfo=dt.UTC)),
    Ambient(dt.datetime(2024, 6, 10, tzinfo=dt.UTC), dt.datetime(2024, 9, 5, tzinfo=dt.UTC)),
    Supplier(dt.datetime(2024, 9, 16, tzinfo=dt.UTC)),
)


def batches(
    folder: Path, every: str = "month", rows: int = ROWS, seed: int = SEED, changes: tuple[Change, ...] = CHANGES
) -> list[Path]:
    """Writes what the machine's controller knows, one file a period, and gives the files in order of time.

    Raises:
        KeepfitError: `every` is no period.
    """
    made = simulate(rows, seed, changes)
    sent = made[SENT].assign(time=made["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return cut(sent, made["time"].dt.tz_localize(None), folder, every)


def simulate(rows: int = ROWS, seed: int = SEED, changes: tuple[Change, ...] = ()) -> pd.DataFrame:
    """One row a part, in order of time, with the five modes of failure beside `failure`; without changes, the published rules alone.

    Every row draws the same chances whatever the changes, so two histories of a seed are equal up to the first change in which they differ.
    Numbers are rounded as they are sent, and the rules look at the rounded ones.
    """
    rng = np.random.default_rng(seed)
    times = pd.date_range(START, periods=rows, freq=f"{MINUTES}min", unit="us")
    air_walk, process_walk = _walk(rng, rows), _walk(rng, rows)
    kinds, pushes, noises, ends, accidents = (
        rng.random(rows), rng.normal(size=rows), rng.normal(size=rows), rng.random(rows), rng.random(rows)
    )  # fmt: skip
    lives = rng.random(rows)  # more than enough: a tool lasts for many parts
    suppliers = [change for change in changes if isinstance(change, Supplier)]
    tools = [change for change in changes if isinstance(change, Tool)]
    heats = [change for change in changes if isinstance(change, Ambient)]

    mix, strain = np.tile(MIX, (rows, 1)), np.tile(STRAIN, (rows, 1))
    for supplier in suppliers:
        later = np.asarray(times >= supplier.since)
        mix[later], strain[later] = supplier.mix, np.add(STRAIN, supplier.strain)
    adds, life, mean = np.tile(WEAR, (rows, 1)), np.tile(LIFE, (rows, 1)), np.full(rows, TORQUE)
    for tool in tools:
        later = np.asarray(times >= tool.since)
        adds[later], life[later], mean[later] = tool.wear, tool.life, TORQUE + tool.torque

    type_ = (kinds[:, None] >= np.cumsum(mix, axis=1)[:, :2]).sum(axis=1)
    own = np.arange(rows), type_
    hot = sum((heat.air * heat.strength(times) for heat in heats), np.zeros(rows))
    uncooled = sum((heat.cooling * heat.strength(times) for heat in heats), np.zeros(rows))
    air_exact = 300 + 2 * air_walk + hot
    air, process = np.round(air_exact, 1), np.round(air_exact + 10 + process_walk - uncooled, 1)
    torque = np.round(np.maximum(mean + TORQUE_SD * pushes, LEAST_TORQUE), 1)
    speed = np.round(np.minimum(IDLE + _rpm(POWER / torque) + NOISE * noises, TOP))
    wear, ended = _wear(adds[own], life, lives)

    power = torque * speed * 2 * np.pi / 60
    modes = {
        "twf": ended & (ends < FAILS),
        "hdf": (np.round(process - air, 1) < COOLING) & (speed < SLOW),
        "pwf": (power < WEAKEST) | (power > STRONGEST),
        "osf": wear * torque > strain[own],
        "rnf": accidents < RANDOM,
    }
    letters = TYPES[type_]
    return pd.DataFrame(
        {
            "serial": pd.Series(letters) + pd.Series(np.arange(100_001, 100_001 + rows)).astype("string"),
            "time": times,
            "type": letters,
            "air": air,
            "process": process,
            "speed": speed.astype(np.int64),
            "torque": torque,
            "wear": wear,
            "failure": np.any(list(modes.values()), axis=0).astype(np.int64),
            **modes,
            "ended": ended,
        }
    )


def _walk(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A random walk that is pulled back to its middle, normalised to mean 0 and standard deviation 1, (n,)."""
    steps = rng.normal(size=rows + 10 * MEMORY)  # the first ones are for forgetting where it began
    walked = lfilter([1.0], [1.0, -np.exp(-1 / MEMORY)], steps)[10 * MEMORY :]
    return (walked - walked.mean()) / walked.std()


def _rpm(radians: np.ndarray) -> np.ndarray:
    return radians * 60 / (2 * np.pi)


def _wear(adds: np.ndarray, life: np.ndarray, lives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tool's wear when a part comes, (n,) minutes, and whether the tool ends with this part, (n,) bool.

    Args:
        adds: (n,) minutes that each part adds.
        life: (n, 2) between which wear a tool ends that is put in before this part.
        lives: (n,) chances from 0 to 1; the i-th tool takes the i-th.
    """
    before = np.concatenate([[0.0], np.cumsum(adds)])[:-1]
    fresh = np.zeros(len(adds))
    ended = np.zeros(len(adds), dtype=bool)
    first, number = 0, 0
    while first < len(adds):  # once a tool, not once a part
        low, high = life[first]
        limit = low + (high - low) * lives[number]
        last = int(np.searchsorted(before, before[first] + limit))
        fresh[first : last + 1] = before[first]
        ended[last : last + 1] = True
        first, number = last + 1, number + 1
    return np.round(before - fresh, 1), ended


if __name__ == "__main__":
    main(batches, "Writes the milling project's batches as CSV files.")
