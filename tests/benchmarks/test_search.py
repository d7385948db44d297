"""What a second searcher gains, and what memory a training needs beside its matrix. Nothing asserts a time."""

import json
import os
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
from tests.benchmarks.test_landing import said

NUMBERS = 20
TRIALS, ROWS = 8, 40_000
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
    stamps = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(count), unit="min")
    return table.assign(id=range(count), at=stamps, y=truth)


def landed(folder: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> Settings:
    """A home of a core for each process, where the rows have landed."""
    place = folder / "projects" / "wide"
    place.mkdir(parents=True)
    (place / "project.yaml").write_text(YAML.replace("FAMILY", family))
    for name, value in {
        "KEEPFIT_HOME": folder / "state", "KEEPFIT_PROJECTS": place.parent, "PYTHONPATH": REPOSITORY, "OMP_NUM_THREADS": 1,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    settings = Settings()
    rows(ROWS).to_parquet(folder / "rows.parquet", index=False)
    assert Landings(Project.named("wide", settings), settings).land(folder / "rows.parquet").landed == ROWS
    studies.prepare(settings.studies())
    return settings


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_searchers_against_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same number of trials of a second or more by one process and by two, a core each; imports and reading are inside."""
    settings = landed(tmp_path, monkeypatch, "extra_trees")
    seconds, trial = dict[int, float](), dict[int, float]()
    for workers in (1, 2):
        use = Project.named("wide", settings)
        use = use.model_copy(update={"search": use.search.model_copy(update={"workers": workers})})
        snapshot = Lake("wide", settings.lake("wide"), use.contract).snapshot()
        assert snapshot is not None
        search = tune.Search.of(use, snapshot, settings)
        study = studies.study(settings.studies(), f"{workers}", 7)
        shown = cast("tune.Progress", SimpleNamespace(update=lambda _study: None))
        # the digest that processes compare is the file's; the number of workers is not in it here
        monkeypatch.setattr(tune, "_config", lambda _use: Project.named("wide", settings).digest)
        begun = time.monotonic()
        together(search, study, snapshot, shown)
        seconds[workers] = time.monotonic() - begun
        done = tune._finished(study)
        assert len(done) == TRIALS
        trial[workers] = float(np.mean([one.duration.total_seconds() for one in done if one.duration]))
    said(
        f"{TRIALS} trials of {trial[1]:.1f} s: one process {seconds[1]:.1f} s, two {seconds[2]:.1f} s ({trial[2]:.1f} s a trial); "
        f"{seconds[1] / seconds[2]:.2f} x (goal 1.7) on {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}"
    )
