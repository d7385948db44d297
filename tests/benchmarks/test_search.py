"""What a second searcher gains, and what memory a training needs beside its matrix. Nothing asserts a time."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from tasks import tune
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ingest import Landings
from tasks.stores import studies
from tasks.stores.lake import Lake
from tasks.stores.references import Snapshot
from tests.benchmarks.test_landing import said
from tests.samples import MEMORY

NUMBERS = 20
TRIALS = 8
TWICE = 40  # trials of a search by one and by two: as many as a search has by default
YAML = f"""
project: wide
positive: true
contract:
  key: [id]
  time: at
  target: y
  columns:
    id: {{type: int}}
    at: {{type: datetime}}
    y: {{type: bool}}
{"".join(f"    number{n}: {{type: float}}{chr(10)}" for n in range(NUMBERS))}
split: {{kind: time, column: at}}
search: {{seconds: 3600, trials: {TRIALS}, folds: 2, seed: 7, families: [FAMILY], workers: 1, windows: false, columns: false}}
retrain: []
"""


def rows(count: int) -> pd.DataFrame:
    """Rows of many numbers, of which two tell the truth, with noise."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(count, NUMBERS))
    truth = numbers[:, 0] * numbers[:, 1] + rng.normal(scale=0.5, size=count) > 0
    table = pd.DataFrame(numbers, columns=[f"number{n}" for n in range(NUMBERS)])
    stamps = pd.Timestamp("2016-01-01", tz="UTC") + pd.to_timedelta(np.arange(count), unit="min")
    return table.assign(id=range(count), at=stamps, y=truth)


def landed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, family: str, count: int = 40_000, trials: int = TRIALS
) -> Settings:
    """A home of a core for each process, where the rows have landed."""
    place = folder / "projects" / "wide"
    place.mkdir(parents=True)
    (place / "project.yaml").write_text(
        YAML.replace("FAMILY", family).replace(f"trials: {TRIALS}", f"trials: {trials}")
    )
    for name, value in {
        "KEEPFIT_HOME": folder / "state", "KEEPFIT_PROJECTS": place.parent, "PYTHONPATH": REPOSITORY, "OMP_NUM_THREADS": 1,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    settings = Settings()
    rows(count).to_parquet(folder / "rows.parquet", index=False)
    assert Landings(Project.named("wide", settings), settings).land(folder / "rows.parquet").landed == count
    studies.prepare(settings.studies())
    return settings


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_searchers_against_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same trials, of seconds each, by one process and by two, a core each; imports and reading are inside.

    The second search is told which trials the first one drew: two searchers would draw others, and what those take differs by much more
    than what is measured here.
    """
    settings, seconds, trial = (
        landed(tmp_path, monkeypatch, "extra_trees", trials=TWICE),
        dict[int, float](),
        dict[int, float](),
    )
    drawn: list[dict[str, object]] = []
    for workers in (1, 2):
        search, snapshot = asked(settings, workers)
        study = studies.study(settings.studies(), str(workers), 7)
        for params in drawn:
            study.enqueue_trial(params)
        shown = cast("tune.Progress", SimpleNamespace(update=lambda _study: None))
        begun = time.monotonic()
        tune._together(search, study, snapshot, shown, begun + 3600)
        seconds[workers] = time.monotonic() - begun
        done = tune._finished(study)
        assert len(done) == TWICE
        drawn = drawn or [one.params for one in done]
        assert sorted(map(repr, drawn)) == sorted(repr(one.params) for one in done)
        trial[workers] = float(np.mean([one.duration.total_seconds() for one in done if one.duration]))
    said(
        f"{TWICE} trials of {trial[1]:.1f} s: one process {seconds[1]:.1f} s, two {seconds[2]:.1f} s ({trial[2]:.1f} s a trial); "
        f"{seconds[1] / seconds[2]:.2f} x (goal 1.7) on {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}"
    )


def asked(settings: Settings, workers: int) -> tuple[tune.Search, Snapshot]:
    """The search by so many, and the rows that it is over."""
    file = settings.projects / "wide" / "project.yaml"
    file.write_text(re.sub(r"workers: \d", f"workers: {workers}", file.read_text()))
    use = Project.named("wide", settings)
    snapshot = Lake("wide", settings.lake("wide"), use.contract).snapshot()
    assert snapshot is not None
    return tune.Search.of(use, snapshot, settings), snapshot


PEAK = (
    MEMORY
    + """
import gc, json, os, sys, time
from tasks import prepare, tune
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.fitted import Fitted
from tasks.ml.recipe import Recipe
from tasks.ml import lean
from tasks.stores import lake, studies
def trained(home, family):
    os.environ["KEEPFIT_HOME"] = home
    settings = Settings()
    use = Project.named("wide", settings)
    snapshot = lake.Lake("wide", settings.lake("wide"), use.contract).snapshot()
    split = lake.parts(use, snapshot, settings.lake("wide"))
    with split.kept():
        prepare.examined(use, split, prepare.describe(use, split))
    search = tune.Search.of(use, snapshot, settings)
    search.go_on(studies.study(settings.studies(), "peak", 7), time.monotonic() + 3600, lambda: None)
    del search  # as the step `tune` ends before `fit` begins
    fitted = Fitted.of(Recipe.usual(family), use.task, use.features, use.contract.time, split, seed=7).refitted(split)
    return fitted.rows * len(use.features) * 8
small, large, family = sys.argv[1:]
trained(small, family)  # loads what is loaded when it is first needed
lake.parts.cache_clear()
gc.collect()
lean.give_back()
before = memory("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
matrix = trained(large, family)
print(json.dumps({"peak": memory("VmHWM:") - before, "before": before, "matrix": matrix}))
"""
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", ["hist_gradient_boosting", "logistic"])
def test_memory_of_a_training_against_its_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str):
    """Reading, looking for leaks, two trials, the fits and the calibration in a process that did the same with few rows before: what the rows need, in training matrices."""
    homes = []
    for count in (3_000, 400_000):
        landed(tmp_path / str(count), monkeypatch, family, count=count, trials=2)
        homes.append(str(tmp_path / str(count) / "state"))
    done = subprocess.run([sys.executable, "-c", PEAK, *homes, family], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    whole = 400_000 * NUMBERS * 8
    said(
        f"{family}, 400,000 rows: {found['peak'] / 2**20:.0f} MiB beyond the {found['before'] / 2**20:.0f} of the same with few rows; "
        f"{found['peak'] / found['matrix']:.1f} x the matrix that is fitted on (goal 3), {found['peak'] / whole:.1f} x that of all rows"
    )
    assert found["matrix"] > 0
