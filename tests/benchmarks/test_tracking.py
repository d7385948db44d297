"""What remembering a search in MLflow costs, as a share of the search itself; both in one run, on a real MLflow.

`python -m tests.benchmarks.test_tracking` prints it.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest

from tasks import tune
from tasks.stores.minutes import Minutes
from tasks.stores.registry import Registry
from tests.tasks.test_tune import project, rows

pytestmark = pytest.mark.filterwarnings("ignore:Argument ``(group|multivariate)`` is an experimental feature")
GOAL = 0.05  # of the search


@dataclass(frozen=True)
class Cost:
    """Seconds of one search, and of remembering it."""

    trials: int
    search: float
    tracking: float

    @property
    def share(self) -> float:
        """Of the search."""
        return self.tracking / self.search


def measured(folder: Path, trials: int = 25, count: int = 4000) -> Cost:
    """A search over rows in memory, then everything that `tune` logs of it: parameters, metrics, a series, the table of trials."""
    use = project(trials=trials, folds=3, columns=False)
    registry = Registry(use.project, f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")
    run = registry.start("a search", {})  # the database is made here, once a home
    search = tune.Search.over(use, rows(count))
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    start = time.perf_counter()
    search.go_on(study, time.monotonic() + 1e6, lambda: None)
    searched = time.perf_counter() - start
    best = tune._best(study, search, 0, searched, searched)
    start = time.perf_counter()
    tune._remember(best, use, Minutes(registry, folder / "minutes", run))
    cost = Cost(best.trials, searched, time.perf_counter() - start)
    found = registry.client.get_metric_history(run, f"trial.{use.metric}")
    assert len(found) == trials  # it was really logged
    return cost


@pytest.mark.slow
def test_remembering_a_search_costs_a_small_share_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Trials are logged in one batch at the end: at most a twentieth of what the search takes on the same machine at the same time."""
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    try:
        cost = measured(tmp_path)
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
    print(f"\n{cost}: {cost.share:.1%} of the search")  # noqa: T201 -- a benchmark prints
    assert cost.share <= GOAL, cost


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(measured(Path(place)))  # noqa: T201 -- a benchmark prints
