"""Studies: Optuna's own storage in one SQL database, resumable by name."""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from optuna import Study


def study(url: str, name: str, seed: int) -> "Study":
    """The study of that name, new or as it was left; it minimises.

    Trials that a killed run left RUNNING are marked failed and queued again. The sampler is seeded with the seed and the
    number of trials, because the same seed again would repeat the start-up points.
    """
    import optuna

    storage = optuna.storages.RDBStorage(
        url, engine_kwargs={"connect_args": {"timeout": 15}} if url.startswith("sqlite") else {}
    )
    found = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
    for trial in found.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        found.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        found.enqueue_trial({**trial.system_attrs.get("fixed_params", {}), **trial.params})
    found.sampler = optuna.samplers.TPESampler(seed=seed + 1000 * len(found.trials), group=True, multivariate=True)
    found.pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    return found


def prepare(url: str) -> None:
    """Makes the folder of an SQLite file and switches it to WAL, so that a reader never blocks the search."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    engine.dispose()
