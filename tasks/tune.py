"""Tune: an Optuna search over families and parameters on time-ordered folds, inside a time budget, resumable."""

import errno
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import UUID, uuid4

import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from pydantic import BaseModel

from tasks.config.errors import StackError
from tasks.config.names import artifact_key
from tasks.config.project import Project
from tasks.config.provenance import code, conditions, cpu_seconds
from tasks.config.settings import Settings
from tasks.ml.examination import Examination, Marks, plainest, pooled
from tasks.ml.identity import digest
from tasks.ml.pages import progress
from tasks.ml.recipe import Recipe
from tasks.ml.space import FEWEST_COLUMNS, Space
from tasks.ml.split import Folds
from tasks.ml.window import Window, choices, span
from tasks.stores import studies
from tasks.stores.journal import Journal
from tasks.stores.lake import parts
from tasks.stores.minutes import Minutes
from tasks.stores.references import Best, Snapshot
from tasks.stores.registry import Registry, as_json

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

REFRESH = 1.0  # seconds between two pictures of the progress
POLL = 0.2  # seconds between two looks at whether processes have ended
PATIENCE = 20  # seconds that a Dask scheduler has to answer
REMEMBERED = 3  # searches whose best recipe is tried first
ROUNDS = 3  # how often a search goes on after processes of it were killed
APART = "import sys; from tasks.tune import explore_apart; explore_apart(sys.argv[1])"
LOG = logging.getLogger(__name__)


@task(name="tune", cache_policy=NO_CACHE)
def tune(project: str, snapshot: Snapshot, run: str) -> Best:
    """Searches until the budget in trials or seconds is spent. May be repeated: finished trials are not run again."""
    settings, start, before = Settings(), time.monotonic(), cpu_seconds()
    use = Project.named(project, settings)
    studies.prepare(settings.studies())
    study = studies.study(settings.studies(), _name(use, snapshot), use.search.seed)
    resumed = len(_finished(study))
    shown = Progress(project, use, start)
    search = Search.of(use, snapshot, settings)
    studies.begin(study, search.space.starts(_earlier(use, settings)))
    if use.search.workers > 1 or settings.dask:
        _together(search, study, snapshot, shown, start + use.search.seconds)
    else:
        search.go_on(study, start + use.search.seconds, lambda: shown.update(study))
    best = _best(study, search, resumed, time.monotonic() - start, cpu_seconds() - before)
    shown.close(study)
    _remember(best, use, Minutes.of(settings, project, run))
    get_run_logger().info(
        "%s trials in %.1f s (%s pruned, %s resumed): %s, %s %.4f",
        best.trials,
        best.seconds,
        best.pruned,
        best.resumed,
        best.recipe.name,
        use.metric,
        best.value,
    )
    return best


@dataclass(frozen=True)
class Search:
    """The question put to a trial: how good is this recipe on rows right after those it learned from?

    Attributes:
        final: makes the same question about the validation rows, which no trial sees; None where they are not at hand.
    """

    use: Project
    space: Space
    examination: Examination
    final: Callable[[], Examination] | None = None

    @classmethod
    def of(cls, use: Project, snapshot: Snapshot, settings: Settings, ranked: tuple[str, ...] | None = None) -> Self:
        """The search over the train part of a snapshot; `ranked`: the columns in an order that somebody has found already."""
        split = parts(use, snapshot, settings.lake(use.project))
        return cls.over(use, split.train, ranked, lambda: split.validation)

    @classmethod
    def over(
        cls, use: Project, train: pd.DataFrame, ranked: tuple[str, ...] | None = None, validation: Callable[[], pd.DataFrame] | None = None
    ) -> Self:  # fmt: skip
        """The search over these rows; `validation`: reads those that no trial sees."""
        asked, time = use.search, use.contract.time
        rows = use.split.at_most(train, asked.rows)

        def examined(folds: Folds, workers: int) -> Examination:
            return Examination.of(folds, use.task, use.goal, use.features, time, seed=asked.seed, workers=workers)

        examination = examined(use.split.folds(rows, asked.folds, use.contract.target), asked.workers)
        final = None if validation is None else lambda: examined([(rows, validation())], workers=1)
        windows = choices(span(rows[time])) if asked.windows and use.split.by_time else [Window()]
        if ranked is None:
            many = len(use.features) >= 2 * FEWEST_COLUMNS
            ranked = _ranked(examination) if asked.columns and many and examination.folds else ()
        return cls(use, Space(asked.families, tuple(windows), ranked), examination, final)

    def go_on(self, study: "Study", deadline: float, told: Callable[[], None], *, place: int | None = None) -> None:
        """Runs trials until so many are finished or the time is over; until one is complete, each runs to its end.

        Args:
            study: where the trials are.
            deadline: on the clock `time.monotonic`.
            told: is called after every trial.
            place: which of several is searching; what the others have begun counts, and each draws by itself. None: nobody else.
        """
        asked, others, earlier = self.use.search, place is not None, _broken(study)
        while (done := _count(study, running=others, earlier=earlier)) < asked.trials and (
            not done or time.monotonic() < deadline
        ):
            number = done + len(earlier) if place is None else len(study.trials)
            study.sampler = studies.sampler(asked.seed + (place or 0), number, others=others)
            trial = study.ask()
            if others and _count(study, running=True, earlier=earlier, before=trial.number) >= asked.trials:
                _give_up(study, trial)  # somebody else asked for the last one at the same moment
                break
            self.run(study, trial, deadline)
            told()

    def run(self, study: "Study", trial: "Trial", deadline: float) -> None:
        """One trial: examined fold by fold, pruned after any of them. One that raises is over, the search is not, unless memory ran out."""
        import optuna

        last, first = len(self.examination.folds) - 1, not _complete(study)

        def report(step: int, loss: float) -> None:
            trial.report(loss, step)
            late = time.monotonic() > deadline and not first
            if step < last and (late or trial.should_prune()):
                raise optuna.TrialPruned

        try:
            marks = self.examination.mark(self.space.suggest(trial), report)
        except optuna.TrialPruned:
            marks = None
        except BaseException as error:
            if isinstance(error, Exception):
                trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:500])
            else:  # somebody ended the search: that says nothing about the recipe
                studies.again(study, study.trials[trial.number])
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            if not isinstance(error, Exception):
                raise
            if isinstance(error, MemoryError):
                raise
            LOG.warning("trial %s failed", trial.number, exc_info=True)
            return
        if marks is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
        trial.set_user_attr("spread", [round(number, 9) for number in marks.spread])
        study.tell(trial, marks.loss)


class Part(BaseModel, frozen=True):
    """What whoever takes part in a search must know; where things are, its environment says.

    Attributes:
        config: digest of project and code, which must be the same everywhere.
        study: name of the study.
        ranked: as in `Space`, so that all search in the same space.
        until: when the search ends, in seconds since 1970.
        place: which of those that search this is, from 0; None when it is the only one.
        beside: how many of them share this one's machine.
    """

    project: str
    config: str
    snapshot: Snapshot
    study: str
    ranked: tuple[str, ...]
    until: float
    place: int | None = None
    beside: int = 1


def explore(part: str, told: Callable[[], None] = lambda: None) -> None:
    """Takes part in a search until it ends.

    Args:
        part: a `Part` as JSON.
        told: is called after every trial.

    Raises:
        StackError: project, code or studies are others here than where the search began.
    """
    asked, settings = Part.model_validate_json(part), Settings()
    use = Project.named(asked.project, settings)
    if _config(use) != asked.config:
        raise StackError(
            f"project.yaml of {use.project} or the code differ here from where the search began. Bring both to the same commit and train again."
        )
    use = use.model_copy(update={"search": use.search.model_copy(update={"workers": asked.beside})})
    study = studies.joined(settings.studies(), asked.study, use.search.seed, others=asked.place is not None)
    if asked.place is None:  # a Dask worker that had begun alone was lost, and this one goes on
        studies.reap(study)
    search = Search.of(use, asked.snapshot, settings, ranked=asked.ranked)
    search.go_on(study, time.monotonic() + asked.until - time.time(), told, place=asked.place)


def explore_apart(part: str) -> None:
    """The same as the whole of a process, which ends with whoever holds the other end of its stdin, by a kill too."""

    def outlive_nobody() -> None:
        os.read(0, 1)  # not through sys.stdin, whose lock would be in the way when this process ends
        os._exit(1)

    threading.Thread(target=outlive_nobody, daemon=True).start()
    try:
        explore(part)
    except MemoryError:
        sys.exit(errno.ENOMEM)


def explore_on_dask(part: str) -> None:
    """The same as a task on a Dask worker, which ends after the trial during which it was cancelled or its client went."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def told() -> None:
        if (task := worker.state.tasks.get(key)) is None or task.state != "executing":
            raise RuntimeError("the search was left alone")

    explore(part, told)


class LostError(Exception):
    """Some that searched were killed; what they finished is in the study."""


def _together(search: Search, study: "Study", snapshot: Snapshot, shown: "Progress", deadline: float) -> None:
    """The search in several processes over one study; when some are killed, their trials are tried again."""
    settings, use = Settings(), search.use
    part = Part(
        project=use.project, config=_config(use), snapshot=snapshot, study=study.study_name, ranked=search.space.ranked,
        until=time.time() + deadline - time.monotonic(), beside=use.search.workers,
    )  # fmt: skip
    parts = (
        [part.model_copy(update={"place": place}) for place in range(use.search.workers)]
        if use.search.workers > 1
        else [part]
    )
    for _ in range(ROUNDS):
        lost: LostError | None = None
        try:
            for _ in _on_dask(settings, parts) if settings.dask else _on_this_machine(parts):
                shown.update(study)
        except LostError as error:
            lost = error
        orphans, done = studies.reap(study), _count(study, running=False)
        if not (lost or orphans) or done >= use.search.trials or (done and time.monotonic() > deadline):
            return
        LOG.warning("%s; %s trials are tried again", lost or "a worker of the search was lost", orphans)
    raise RuntimeError(
        f"{lost or 'Workers of the search were lost'}, {ROUNDS} times. Finished trials are kept; look whether memory ran out, and train again to go on."
    )


def _name(use: Project, snapshot: Snapshot) -> str:
    """The study of these rows under today's conditions; what was tried under others is no answer to what is asked now."""
    return f"{use.project} {snapshot.digest[:16]} {conditions(use.digest, snapshot.trusted)[:16]}"


def _config(use: Project) -> str:
    """Digest of what everybody who searches must have in common."""
    return digest([use.digest, code()])


def _on_this_machine(parts: list[Part]) -> Iterator[None]:
    """A process each; they end with this one. Yields while they run.

    Raises:
        LostError: some were killed; the others ended by themselves.
    """
    # Prefect's variables would make their logs those of this task run
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    processes = [
        subprocess.Popen([sys.executable, "-c", APART, part.model_dump_json()], env=environment, stdin=subprocess.PIPE)
        for part in parts
    ]
    try:
        while any(process.poll() is None for process in processes):
            yield
            time.sleep(POLL)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate()
    failed = [process.returncode for process in processes if process.returncode]
    if errno.ENOMEM in failed:
        raise MemoryError("a process of the search ran out of it")
    if broken := [code for code in failed if code > 0]:
        raise RuntimeError(
            f"{len(broken)} of {len(parts)} processes of the search ended with {broken[0]}; finished trials are kept. "
            "Their last lines stand above; train again to go on"
        )
    if failed:
        raise LostError(
            f"{len(failed)} of {len(parts)} processes of the search were killed ({signal.Signals(-failed[0]).name})"
        )


def _on_dask(settings: Settings, parts: list[Part]) -> Iterator[None]:
    """A task each on the workers of a Dask cluster; they are cancelled when this ends. Yields while they run.

    Raises:
        StackError: no scheduler or no worker is there, or the workers cannot reach the studies.
        LostError: workers were killed again and again; the others ended by themselves.
    """
    from distributed import Client, KilledWorker

    address = settings.dask or ""
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise StackError(
            f"No Dask scheduler answers at KEEPFIT_DASK={address}: {error}. Start one, or unset it to search on this machine."
        ) from error
    with client:
        there = {worker: known["host"] for worker, known in client.scheduler_info(n_workers=-1)["workers"].items()}
        if not there:
            raise StackError(f"The Dask scheduler at {address} has no worker. Start one with `dask worker {address}`.")
        _reach(settings, set(there.values()))
        places = [list(there)[number % len(there)] for number in range(len(parts))]
        beside = Counter(there[place] for place in places)
        tasks = [
            client.submit(
                explore_on_dask, part.model_copy(update={"beside": beside[there[place]]}).model_dump_json(),
                key=f"keepfit-{part.study}-{number}-{uuid4().hex}", pure=False, workers=[place], allow_other_workers=True,
            )
            for number, (part, place) in enumerate(zip(parts, places, strict=True))
        ]  # fmt: skip
        try:
            while not all(task.done() for task in tasks):
                yield
                time.sleep(POLL)
            errors = [task.exception() for task in tasks if task.status == "error"]
        finally:
            client.cancel(tasks, force=True)
    for error in errors:
        if not isinstance(error, KilledWorker):
            raise error
    if errors:
        raise LostError(f"{len(errors)} of {len(parts)} tasks of the search were lost with their Dask workers")


def _reach(settings: Settings, hosts: set[str]) -> None:
    """Refuses workers on machines that cannot see the studies."""
    import psutil

    own = {address.address for card in psutil.net_if_addrs().values() for address in card}
    elsewhere = sorted(host for host in hosts if host not in own)
    if elsewhere and settings.studies().startswith("sqlite"):
        raise StackError(
            f"The studies are an SQLite file on this machine, and Dask workers run on {', '.join(elsewhere)}. "
            "Set KEEPFIT_STUDIES_URL to a database server for all of them (the lake, KEEPFIT_LAKE_URL, must be within reach, too)."
        )


class Progress:
    """The search as an artifact that is redrawn while it goes on."""

    def __init__(self, project: str, use: Project, start: float) -> None:
        self.use, self.start, self.drawn = use, start, 0.0
        made = create_markdown_artifact(
            "The search begins.", key=artifact_key(project, "tuning"), description=f"**{project}** tuning, live"
        )
        self.artifact = cast("UUID", made)  # outside of an event loop it is never a coroutine

    def update(self, study: "Study") -> None:
        """Redraws, at most once a second."""
        if time.monotonic() - self.drawn >= REFRESH:
            self.close(study)

    def close(self, study: "Study") -> None:
        """Redraws now."""
        import httpx

        self.drawn = time.monotonic()
        page = progress(
            _history(study, self.use), self.use.search.seconds, self.drawn - self.start, self.use.search.trials, self.use.goal.label,
            greater_is_better=self.use.goal.greater_is_better,
        )  # fmt: skip
        try:
            with get_client(sync_client=True) as client:
                client.update_artifact(self.artifact, ArtifactUpdate(data=page))
        except httpx.HTTPError as error:  # a picture is no reason to lose a search
            LOG.warning("the picture of the search could not be drawn: %s", error)


def _ranked(examination: Examination) -> tuple[str, ...]:
    """The feature columns, the most telling first; none where ranking them raises: then all of them are always read."""
    try:
        return examination.ranked()
    except MemoryError:
        raise
    except Exception:
        LOG.warning("the columns could not be ranked; every trial reads all of them", exc_info=True)
        return ()


def _earlier(use: Project, settings: Settings) -> list[Recipe]:
    """What the champion was made with, and what the last searches found best, in this order; without what is not offered any more."""
    journal = Journal(settings.journal())
    rows = [row for row in journal.trainings(use.project) if "recipe" in row["detail"]][::-1]
    release = journal.champion(use.project)
    champion = [row for row in rows if release and row["version"] == release.version][:1]
    found = (Recipe.known(row["detail"]["recipe"]) for row in (*champion, *rows[:REMEMBERED]))
    return [recipe for recipe in found if recipe]


def _count(study: "Study", *, running: bool, earlier: Collection[int] | None = None, before: float = math.inf) -> int:
    """Trials that are finished; and those under way, when they count.

    Args:
        study: where the trials are.
        running: whether those count that are under way.
        earlier: numbers of trials that had raised before this search went on; those that raised since count, too. None: none does.
        before: only those of a smaller number count.
    """
    under_way = {
        trial.number for trial in study.get_trials(deepcopy=False) if running and trial.state.name == "RUNNING"
    }
    broken = set[int]() if earlier is None else _broken(study) - set(earlier)
    return sum(number < before for number in {trial.number for trial in _finished(study)} | under_way | broken)


def _broken(study: "Study") -> set[int]:
    """Numbers of the trials that raised."""
    return {trial.number for trial in study.get_trials(deepcopy=False) if "error" in trial.user_attrs}


def _give_up(study: "Study", trial: "Trial") -> None:
    """Ends a trial that was one too many."""
    import optuna

    study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _finished(study: "Study") -> list["FrozenTrial"]:
    return [
        trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and trial.state.name != "FAIL"
    ]


def _complete(study: "Study") -> list["FrozenTrial"]:
    return [trial for trial in _finished(study) if trial.state.name == "COMPLETE"]


def _history(study: "Study", use: Project) -> list[dict[str, Any]]:
    """Every finished trial: number, family, value of the metric, state, seconds, parameters."""
    turn = -1.0 if use.goal.greater_is_better else 1.0
    return [
        {
            "number": trial.number, "family": trial.params.get("family", ""), "state": trial.state.name.lower(),
            "value": turn * trial.value if trial.value is not None else None,
            "seconds": trial.duration.total_seconds() if trial.duration else 0.0,
            "at": int(trial.datetime_complete.timestamp() * 1000) if trial.datetime_complete else 0,
            "params": {name.split(".", 1)[-1]: value for name, value in trial.params.items() if name != "family"},
        }
        for trial in _finished(study)
    ]  # fmt: skip


def _best(study: "Study", search: Search, resumed: int, seconds: float, cpu: float) -> Best:
    """The plainest of the recipes that are not surely worse than the best, if validation confirms it."""
    use, history = search.use, _history(study, search.use)
    complete = _complete(study)
    if not complete and (broken := _broken(study)):
        raise RuntimeError(
            f"No trial of {use.project} finished, {len(broken)} failed; the last one: {study.trials[max(broken)].user_attrs['error']}. "
            "There is no candidate and the champion stays. Mend what it says and train again."
        )
    if not complete and history:
        raise RuntimeError(
            f"No recipe of {use.project} can be judged by {use.metric}: on none of the {len(search.examination.folds)} folds it is a number. "
            "Look whether the judged rows hold what it needs, or choose another metric."
        )
    if not complete:
        raise RuntimeError(
            f"No trial of {use.project} finished in {use.search.seconds:g} s. Give search.seconds more, or search.rows fewer."
        )
    tried = [
        (search.space.suggest(trial), Marks(trial.value or 0.0, tuple(trial.user_attrs["spread"])))
        for trial in complete
    ]
    taken = _confirmed(search, tried, plainest(tried))
    turn = -1.0 if use.goal.greater_is_better else 1.0
    return Best(
        recipe=tried[taken][0],
        value=turn * tried[taken][1].loss,
        most=turn * min(marks.loss for _, marks in tried),
        trial=complete[taken].number,
        trials=len(history),
        pruned=sum(trial["state"] == "pruned" for trial in history),
        resumed=resumed,
        seconds=seconds,
        cpu_seconds=cpu,
        history=history,
    )


def _confirmed(search: Search, tried: list[tuple[Recipe, Marks]], taken: int) -> int:
    """The place of what was taken, unless the best of the families' defaults does better on the validation rows.

    Of many recipes the best on the folds owes some of that to chance, and on a history that moves to the folds' own days. Where rows are
    parted by chance the days are the same, and what folds and validation rows say is pooled.
    """
    usual = [at for at, (recipe, _) in enumerate(tried) if recipe == Recipe.usual(recipe.family.kind)]
    if search.final is None or not usual or taken in usual:
        return taken
    default = min(usual, key=lambda at: tried[at][1].loss)
    final = search.final()  # only now: most who search never ask it
    found, plain = (final.mark(tried[at][0], lambda _step, _loss: None) for at in (taken, default))
    alike = [] if search.use.split.by_time else [(tried[taken][1], tried[default][1])]
    if plain is None or (found is not None and pooled([*alike, (found, plain)]) <= 0):
        return taken
    LOG.info("%s does worse on validation than %s as it comes", tried[taken][0].name, tried[default][0].name)
    return default


def _remember(best: Best, use: Project, minutes: Minutes) -> None:
    """Logs the search in a few calls: parameters, one series, one table."""
    chosen = {name: str(value) for name, value in best.recipe.family.model_dump(exclude={"kind"}).items()}
    minutes.note(
        Registry.log, params={
            "family": best.recipe.family.kind, **chosen,
            "window": best.recipe.window.name, "columns": ", ".join(best.recipe.features) or "all",
        },
        metrics={"search.trials": best.trials, "search.seconds": best.seconds, "search.cpu_seconds": best.cpu_seconds, f"search.{use.metric}": best.value},
    )  # fmt: skip
    minutes.note(
        Registry.log_series,
        name=f"trial.{use.metric}",
        values=[(trial["at"], trial["number"], trial["value"]) for trial in best.history if trial["value"] is not None],
    )
    minutes.note(Registry.log_files, files={"trials.json": as_json(best.history)})
