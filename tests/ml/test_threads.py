"""Threads: a fit runs with the number that is meant, wherever it runs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_info, threadpool_limits

from tasks.ml import threads
from tasks.ml.contract import Column
from tasks.ml.examination import Examination
from tasks.ml.kinds import Binary
from tasks.ml.metrics import METRICS, Cost
from tasks.ml.recipe import Learned, Recipe

COLUMNS = {"amount": Column(type="float")}
KIND = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())
BOOSTING = Recipe.usual("hist_gradient_boosting")


def openmp() -> set[int]:
    """The numbers of threads that OpenMP would use now."""
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[set[int]]]:
    """How many threads every fit of a model found; the process itself is set to three."""
    found, fit = list[set[int]](), HistGradientBoostingClassifier.fit

    def watched(self, *args, **more):
        found.append(openmp())
        return fit(self, *args, **more)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", watched)
    with threadpool_limits(3):
        yield found
        assert openmp() == {3}  # as it was before


def rows(count: int = 200) -> pd.DataFrame:
    """Rows whose truth is the sign of their number."""
    amount = np.random.default_rng(0).normal(size=count)
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(count), unit="h")
    return pd.DataFrame({"amount": amount, "at": at, "y": pd.array(amount > 0, dtype="boolean")})


@pytest.mark.parametrize(
    ("told", "workers", "meant"), [("4", 1, 2), ("4", 2, 1), ("1", 1, 1), ("", 1, 2), ("2,1", 1, 2), ("1,1", 1, 1)]
)
def test_a_trial_of_a_search_runs_with_its_share(seen, monkeypatch: pytest.MonkeyPatch, told, workers, meant):
    """Two cores: one searcher has both, two have one each, and what OMP_NUM_THREADS says is not exceeded."""
    monkeypatch.setattr(threads, "available", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    table = rows()
    examination = Examination.of(
        [(table[:100], table[100:])], KIND, METRICS["roc_auc"], COLUMNS, "at", seed=7, workers=workers
    )
    examination.mark(BOOSTING, lambda _step, _loss: None)
    assert seen == [{meant}]


@pytest.mark.parametrize(("told", "meant"), [("", 2), ("1", 1)])
def test_the_final_fit_has_every_core_that_it_may_use(seen, monkeypatch: pytest.MonkeyPatch, told, meant):
    """It is alone, so it has all cores, unless OMP_NUM_THREADS says less."""
    monkeypatch.setattr(threads, "available", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    BOOSTING.fit(KIND, COLUMNS, Learned.of(rows(), KIND, COLUMNS, "at"), seed=7)
    assert seen == [{meant}]


SERVING = """
import json, sys
from tasks.serving import app
def run(*args, **more):
    import sklearn.ensemble
    from threadpoolctl import threadpool_info
    print(json.dumps([pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"]))
app.uvicorn.Server.run = run
app.main()
"""


def test_a_server_answers_with_one_thread(tmp_path):
    """Whatever OMP_NUM_THREADS says where it starts: on a busy machine two threads take twenty times as long for a row."""
    environment = os.environ | {"OMP_NUM_THREADS": "8", "KEEPFIT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", SERVING], env=environment, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {1}
