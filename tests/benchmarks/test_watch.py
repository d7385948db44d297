"""How long a full watch takes: a million rows of 50 features against a reference of a million, drift of each, predictions, domain classifier, alarms.

First the analysis of rows that are in memory, then a whole look: rows read from the lake, the champion asked, drift, what is expected and what came true.

`python -m pytest -q -s -m slow tests/benchmarks/test_watch.py` prints it, beside Evidently and NannyML on the same rows, each in an environment of its own
where it installs; they need an older pandas. Their own reading of the rows does not count, nor do their imports. Here one thread does all of it.
"""

import datetime as dt
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks import measuring, monitor
from tasks.asked import Asked
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.kinds import Binary
from tasks.ml.metrics import Cost
from tasks.ml.watching import estimate, pictures
from tasks.ml.watching.calibration import DriftPlan, calibrated
from tasks.ml.watching.findings import Findings, Known, examine
from tasks.ml.watching.measures import measures
from tasks.ml.watching.realised import PerformancePlan, Served, realised
from tasks.ml.watching.reference import Sketch
from tests.tasks.test_monitor import Place

ROWS, PLAN = 1_000_000, DriftPlan()
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

EVIDENTLY = """
import json, sys, time
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
before, now = (pd.read_parquet(name) for name in sys.argv[1:])
begun, used = time.perf_counter(), time.process_time()
Report([DataDriftPreset()]).run(now, before)
print(json.dumps({"seconds": time.perf_counter() - begun, "cpu": time.process_time() - used}))
"""
NANNYML = """
import json, sys, time
import nannyml, pandas as pd
before, now = (pd.read_parquet(name) for name in sys.argv[1:])
calculator = nannyml.UnivariateDriftCalculator(
    column_names=list(before.columns), continuous_methods=["kolmogorov_smirnov", "wasserstein"],
    categorical_methods=["chi2", "jensen_shannon"], chunk_number=1,
)
calculator.fit(before)
begun, used = time.perf_counter(), time.process_time()
calculator.calculate(now)
print(json.dumps({"seconds": time.perf_counter() - begun, "cpu": time.process_time() - used}))
"""
OTHERS = {
    "Evidently": (EVIDENTLY, ("evidently==0.7.23", "pandas<3", "numpy<2.3", "pyarrow")),
    "NannyML": (NANNYML, ("nannyml==0.13.1", "statsmodels", "pyarrow")),
}


def drawn(rows: int, seed: int) -> pd.DataFrame:
    """40 numbers, half of them skewed, two flags, eight categories."""
    random = np.random.default_rng(seed)
    normal = {f"normal {number}": random.normal(size=rows) for number in range(20)}
    skewed = {f"skewed {number}": random.lognormal(size=rows) for number in range(20)}
    words = {f"word {number}": pd.Series(random.choice(list("abcdefgh"), rows)).astype("str") for number in range(8)}
    return pd.DataFrame(normal | skewed | {f"flag {number}": random.random(rows) < 0.3 for number in range(2)} | words)


def known(rows: pd.DataFrame) -> Known:
    """What a training keeps of these rows; every first number is what the model says."""
    fixed = Sketch.of(rows, rows["normal 0"].to_numpy())
    return Known(fixed, calibrated(fixed, [], PLAN), rolling=fixed, rows=rows[:5000])


def watched(about: Known, rows: pd.DataFrame) -> tuple[Findings, float, float]:
    """A full watch, its seconds on the wall and of a processor."""
    begun, used = time.perf_counter(), time.process_time()
    found = examine(about, rows, rows["normal 0"].to_numpy(), PLAN)
    return found, time.perf_counter() - begun, time.process_time() - used


def test_a_full_watch_of_a_million_rows(tmp_path):
    """Every column is looked at; whoever else installs takes at least ten times as long, though an alarm is explained here, and not there."""
    before, now = drawn(ROWS, 0), drawn(ROWS, 1)
    about = known(before)
    numbers = [name for name in now if name.startswith(("normal", "skewed"))]
    windows = {
        "nothing moved": (now, 0),
        "a feature moved, which is explained": (now.assign(**{"normal 3": now["normal 3"] + 0.3}), 1),
        "40 features in another unit": (now.assign(**{name: 10 * now[name] for name in numbers}), 40),
    }
    watched(about, now[:1000])  # imports
    used = []
    for what, (rows, moved) in windows.items():
        found, seconds, cpu = watched(about, rows)
        assert (len(found.drift), sum(drift.moved for drift in found.drift.values())) == (50, moved)
        assert moved != 1 or found.alarms[0].features == ("normal 3",)
        used.append(cpu)
        told(f"keepfit, {what}: {seconds:.2f} s, {cpu:.2f} CPU-seconds for {ROWS:,} rows × 50 features")
    for name, (script, packages) in OTHERS.items():
        other = measured(tmp_path / name, script, packages, before, now)
        if other is None:
            told(f"{name} does not install here")
            continue
        times = [other["cpu"] / cpu for cpu in used]
        told(
            f"{name}: {other['seconds']:.1f} s, {other['cpu']:.1f} CPU-seconds, {times[0]:.1f} times as many; {times[1]:.1f} with an alarm"
        )
        assert times[1] > 10


def told(line: str) -> None:
    """A benchmark prints."""
    print(line, flush=True)  # noqa: T201


YAML = """
project: small
kind: binary
contract:
  key: [id]
  time: at
  target: y
  columns:
    id: {type: int}
    at: {type: datetime}
    y: {type: bool, nullable: true}
"""


def labelled(rows: int, seed: int, begin: str, days: int, first: int) -> pd.DataFrame:
    """The same rows with a key, times evenly over some days, and an outcome that some columns tell."""
    random, found = np.random.default_rng(seed), drawn(rows, seed)
    at = pd.Timestamp(begin, tz="UTC") + pd.to_timedelta(np.arange(rows) * (days * 86_400_000_000 // rows), unit="us")
    odds = found["normal 0"] + found["normal 1"] + found["flag 0"] + random.logistic(size=rows)
    return found.assign(id=first + np.arange(rows), at=at, y=odds > 1)


def test_a_whole_look_at_a_million_rows(tmp_path, monkeypatch):
    """From the lake to the journal, the champion asked about each row once; and the seconds of its parts. The first look makes the reference."""
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "projects"))
    there = Place(Settings(), "binary", weeks=0)
    types = {"word": "category", "flag": "bool"}
    columns = [f"    {name}: {{type: {types.get(name.split()[0], 'float')}}}" for name in drawn(1, 0)]
    path = there.settings.projects / "small" / "project.yaml"
    path.write_text(
        "\n".join([YAML.strip(), *columns, "split: {kind: time, column: at}", "search: {families: [logistic]}", ""])
    )
    there.use = Project.named("small", there.settings)
    there.land(labelled(ROWS // 10, 0, "2026-01-05", 56, 0))
    there.crown()
    there.land(labelled(ROWS, 1, "2026-03-02", 7, ROWS))
    spent: dict[str, float] = {}
    for what, place, name in PARTS:
        monkeypatch.setattr(place, name, timed(getattr(place, name), spent, what))
    for which in ("the first look", "a later look"):
        spent.clear()
        begun, used = time.perf_counter(), time.process_time()
        seen = there.look()
        seconds, cpu = time.perf_counter() - begun, time.process_time() - used
        assert (seen["rows"], len(seen["drift"])) == (ROWS, 50)
        parts = ", ".join(f"{what} {part:.1f}" for what, part in spent.items())
        told(f"{which}: {seconds:.1f} s, {cpu:.1f} CPU-seconds: {parts}, the rest {cpu - sum(spent.values()):.1f}")


PARTS: list[tuple[str, Any, str]] = [
    ("the reference", Asked, "_learned"), ("reading", monitor, "observed"), ("asking", Asked, "about"), ("drift", monitor, "examine"),
    ("expected", estimate.Chances, "estimates"), ("came true", measuring, "realised"), ("drawing", pictures, "curve"), ("drawing", pictures, "drift"),
]  # fmt: skip


def timed(function: Callable, spent: dict[str, float], what: str) -> Callable:
    """The same, adding up its CPU-seconds."""

    def call(*given: Any, **named: Any) -> Any:
        used = time.process_time()
        try:
            return function(*given, **named)
        finally:
            spent[what] = spent.get(what, 0.0) + time.process_time() - used

    return call


def test_performance_of_a_million_rows():
    """The rest of a full watch: what is expected without outcomes, and nine measures of what came true, with their intervals."""
    random, kind = np.random.default_rng(0), Binary("y", positive=True, labels=("no", "yes"), cost=Cost())
    said = random.beta(1, 9, ROWS)
    truth, operates = (random.random(ROWS) < said).astype(int), {"threshold": 0.5}
    wanted = measures(kind, operates)
    estimator = estimate.learned(kind, wanted, truth[:100_000], said[:100_000], seed=0)
    at = np.datetime64("2026-01-05", "us") + np.arange(ROWS) * np.timedelta64(7 * 86_400_000_000 // ROWS, "us")
    served = Served(at, np.full(ROWS, "1", dtype=object), said, truth)
    begun = time.process_time()
    guesses = estimator.estimates(wanted, said, None, seed=0)
    between = time.process_time()
    now = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    (period,) = realised(kind, {"1": operates}, served, now=now, matures=0, plan=PerformancePlan(), seed=0)
    ended = time.process_time()
    assert set(period.metrics) == set(guesses) == set(wanted)
    for name, guess in guesses.items():
        assert guess.value == pytest.approx(period.metrics[name].value, abs=0.02)
    told(f"expected: {between - begun:.2f} CPU-seconds; what came true: {ended - between:.2f}")


def measured(place: Path, script: str, packages: tuple[str, ...], before: pd.DataFrame, now: pd.DataFrame) -> dict[str, float] | None:  # fmt: skip
    """Seconds that another library takes for the same rows in its own environment; None where it does not install."""
    uv, python = Path(sys.executable).with_name("uv"), place / "venv" / "bin" / "python"
    made = subprocess.run(
        [uv, "venv", "--quiet", "--python", sys.executable, place / "venv"], check=False, capture_output=True
    )
    asked = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, *packages], check=False, capture_output=True
    )
    if made.returncode or asked.returncode:
        return None
    files = [place / "before.parquet", place / "now.parquet"]
    for file, rows in zip(files, (before, now), strict=True):
        rows.to_parquet(file)
    (place / "script.py").write_text(script)
    quiet = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HOME": str(place)}  # fmt: skip
    done = subprocess.run(
        [python, "-W", "ignore", place / "script.py", *files], check=True, capture_output=True, text=True, env=quiet
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_watch_grows_with_its_rows_and_no_faster():
    """The exponent of its processor seconds over rows, from a quarter of a million on."""
    about, sizes, costs = known(drawn(100_000, 0)), [ROWS // 4, ROWS // 2, ROWS, 2 * ROWS], []
    watched(about, drawn(1000, 1))
    for size in sizes:
        rows = drawn(size, 2)
        costs.append(min(watched(about, rows)[2] for _ in range(3)))
    exponent = float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
    told(f"grows with rows to the power of {exponent:.2f}: {', '.join(f'{cost:.2f} s' for cost in costs)}")
    assert exponent < 1.15


def test_a_watch_holds_little_beside_its_rows():
    """At most a tenth of them, however many; what Arrow counts in does not show here."""
    about = known(drawn(100_000, 0))
    watched(about, drawn(1000, 1))
    shares = []
    for size in (ROWS // 4, ROWS):
        rows = drawn(size, 2)
        tracemalloc.start()
        watched(about, rows)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        shares.append(peak / rows.memory_usage(deep=True).sum())
    told(f"held beside the rows: {', '.join(f'{share:.1%}' for share in shares)} of them")
    assert max(shares) < 0.1
