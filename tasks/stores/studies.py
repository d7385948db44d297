"""Studies: Optuna's own storage in one SQL database, resumable by name."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tasks.config.errors import StackError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

TRIED = 2  # times that what a search begins with may fail; then it is not queued any more: it may be why no search ends
AGAIN = "again"  # attribute of a queued trial: the number of the one that it repeats
PATIENCE = 60  # seconds that a writer waits for SQLite's lock


def study(url: str, name: str, seed: int) -> "Study":
    """The study of that name, new or as it was left; it minimises.

    Trials that a killed run left RUNNING are marked failed and queued again: the caller is alone.
    """
    found = opened(url, name, seed)
    reap(found)
    return found


def reap(study: "Study") -> int:
    """Marks every trial failed that is RUNNING, and queues it again; gives how many. The caller knows that nobody works on any.

    It is queued first, and the queue says for which: a kill between the two loses nothing, and queues nothing twice.
    """
    from optuna.trial import TrialState

    queued = {trial.user_attrs.get(AGAIN) for trial in study.get_trials(deepcopy=False)}
    running = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
    for trial in running:
        if trial.number not in queued:
            again(study, trial)
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    return len(running)


def again(study: "Study", trial: "FrozenTrial") -> None:
    """Queues what a trial had drawn and what it was told, to be tried once more."""
    drawn = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    study.enqueue_trial(drawn, user_attrs={AGAIN: trial.number})


def begin(study: "Study", starts: Iterable[dict[str, Any]]) -> None:
    """Queues what a search begins with, in this order, unless it is there; what failed, as when memory ran out, is queued once more."""
    before = [
        (trial.system_attrs.get("fixed_params", trial.params), trial.state.name == "FAIL")
        for trial in study.get_trials(deepcopy=False)
    ]
    for params in starts:
        failed = [has for drawn, has in before if drawn == params]
        if all(failed) and len(failed) < TRIED:
            study.enqueue_trial(params)


def opened(url: str, name: str, seed: int, *, others: bool = False) -> "Study":
    """The study of that name, new or as it was left; `others`: somebody else searches at the same time."""
    import optuna

    found = optuna.create_study(storage=_storage(url), study_name=name, direction="minimize", load_if_exists=True)
    return _ready(found, seed, others=others)


def joined(url: str, name: str, seed: int, *, others: bool) -> "Study":
    """The study of that name, to take part in it.

    Raises:
        StackError: there is none here: whoever began the search means another database.
    """
    import optuna

    try:
        found = optuna.load_study(storage=_storage(url), study_name=name)
    except KeyError as error:
        raise StackError(
            f"There is no study '{name}' in {sa.make_url(url)!r}. "
            "Whoever takes part in a search needs the environment (KEEPFIT_*) of the one that began it."
        ) from error
    return _ready(found, seed, others=others)


def _storage(url: str) -> "RDBStorage":
    """Optuna's storage; a writer waits for another one instead of failing."""
    import optuna

    patience = {"connect_args": {"timeout": PATIENCE}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url, engine_kwargs=patience)


def _ready(found: "Study", seed: int, *, others: bool) -> "Study":
    import optuna

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
