"""Studies: Optuna's own storage in one SQL database, resumable by name."""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler


def study(url: str, name: str, seed: int) -> "Study":
    """The study of that name, new or as it was left; it minimises.

    Trials that a killed run left RUNNING are marked failed and queued again: the caller is alone.
    """
    import optuna

    found = opened(url, name, seed)
    for trial in found.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        found.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        found.enqueue_trial({**trial.system_attrs.get("fixed_params", {}), **trial.params})
    return found


def opened(url: str, name: str, seed: int, *, others: bool = False) -> "Study":
    """The study of that name, to take part in it; `others`: somebody else searches at the same time."""
    import optuna

    storage = optuna.storages.RDBStorage(
        url, engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    )
    found = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
    found.sampler = sampler(seed, len(found.trials), others=others)
    found.pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    return found


def sampler(seed: int, number: int, *, others: bool = False) -> "BaseSampler":
    """What draws the trial of that number. Seeded by it, so that a search that was killed goes on as if it had not been."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed + 1000 * number, group=True, multivariate=True, constant_liar=others)


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
