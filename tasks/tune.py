"""Tune: an Optuna search over families and parameters on time-ordered folds, inside a time budget, resumable."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import UUID

import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from pydantic import BaseModel

from tasks.config.names import artifact_key
from tasks.config.project import Project
from tasks.config.provenance import code, cpu_seconds
from tasks.config.settings import Settings
from tasks.ml.examination import Examination, Marks, plainest
from tasks.ml.pages import progress
from tasks.ml.recipe import Recipe
from tasks.ml.search import Search as Asked
from tasks.ml.space import FEWEST_COLUMNS, Space
from tasks.ml.window import Window, choices
from tasks.stores import studies
from tasks.stores.journal import Journal
from tasks.stores.lake import parts
from tasks.stores.references import Best, Snapshot
from tasks.stores.registry import Registry, as_json

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

REFRESH = 1.0  # seconds between two pictures of the progress
POLL = 0.2  # seconds between two looks at whether processes have ended
REMEMBERED = 3  # searches whose best recipe is tried first


@task(name="tune", cache_policy=NO_CACHE)
def tune(project: str, snapshot: Snapshot, run: str) -> Best:
    """Searches until the budget in trials or seconds is spent. May be repeated: finished trials are not run again."""
    settings, start, before = Settings(), time.monotonic(), cpu_seconds()
    use = Project.named(project, settings)
    studies.prepare(settings.studies())
    name = f"{project} {snapshot.digest[:16]} {use.digest[:16]}"
    study = studies.study(settings.studies(), name, use.search.seed)
    resumed = len(_finished(study))
    shown = Progress(project, use, start)
    search = Search.of(use, snapshot, settings)
    for params in search.space.starts(_earlier(use, settings)):
        study.enqueue_trial(params, skip_if_exists=True)
    if use.search.workers > 1:
        _together(search, study, snapshot, shown, start + use.search.seconds)
    else:
        search.go_on(study, start + use.search.seconds, lambda: shown.update(study))
    best = _best(study, search, resumed, time.monotonic() - start, cpu_seconds() - before)
    shown.close(study)
    _remember(best, use, Registry(project, settings.mlflow(), settings.artifacts), run)
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
    """The question put to a trial: how good is this recipe on rows right after those it learned from?"""

    use: Project
    space: Space
    examination: Examination

    @classmethod
    def of(cls, use: Project, snapshot: Snapshot, settings: Settings, ranked: tuple[str, ...] | None = None) -> Self:
        """The search over the train part of a snapshot; `ranked`: the columns in an order that somebody has found already."""
        return cls.over(use, parts(use, snapshot, settings.lake(use.project)).train, ranked)

    @classmethod
    def over(cls, use: Project, train: pd.DataFrame, ranked: tuple[str, ...] | None = None) -> Self:
        """The search over these rows."""
        asked, time = use.search, use.contract.time
        rows = use.split.at_most(train, asked.rows)
        examination = Examination.of(
            use.split.folds(rows, asked.folds, use.contract.target), use.task, use.goal, use.features, time,
            seed=asked.seed, workers=asked.workers,
        )  # fmt: skip
        span = (rows[time].max() - rows[time].min()) / pd.Timedelta(days=1)
        windows = choices(span) if asked.windows and use.split.by_time else [Window()]
        if ranked is None:
            many = len(use.features) >= 2 * FEWEST_COLUMNS
            ranked = examination.ranked() if asked.columns and many and examination.folds else ()
        return cls(use, Space(asked.families, tuple(windows), ranked), examination)

    def go_on(self, study: "Study", deadline: float, told: Callable[[], None], *, place: int | None = None) -> None:
        """Runs trials until so many are finished or the time is over; the first one always runs to its end.

        Args:
            study: where the trials are.
            deadline: on the clock `time.monotonic`.
            told: is called after every trial.
            place: which of several is searching; what the others have begun counts, and each draws by itself. None: nobody else.
        """
        asked, others = self.use.search, place is not None
        while (done := _count(study, running=others)) < asked.trials and (not done or time.monotonic() < deadline):
            number = done if place is None else len(study.trials)
            study.sampler = studies.sampler(asked.seed + (place or 0), number, others=others)
            trial = study.ask()
            if others and _count(study, running=True, before=trial.number) >= asked.trials:
                _give_up(study, trial)  # somebody else asked for the last one at the same moment
                break
            self.run(study, trial, deadline)
            told()

    def run(self, study: "Study", trial: "Trial", deadline: float) -> None:
        """One trial: examined fold by fold, pruned after any of them."""
        import optuna

        last = len(self.examination.folds) - 1

        def report(step: int, loss: float) -> None:
            trial.report(loss, step)
            late = time.monotonic() > deadline and trial.number > 0
            if step < last and (late or trial.should_prune()):
                raise optuna.TrialPruned

        try:
            marks = self.examination.mark(self.space.suggest(trial), report)
        except optuna.TrialPruned:
            marks = None
        except BaseException:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        if marks is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
        trial.set_user_attr("spread", [round(number, 9) for number in marks.spread])
        study.tell(trial, marks.loss)


class Part(BaseModel, frozen=True):
    """What a process that takes part in a search must know; where things are, its environment says.

    Attributes:
        study: name of the study.
        ranked: as in `Space`, so that all search in the same space.
        until: when the search ends, in seconds since 1970.
        place: which of the processes this is, from 0.
        code: digest of the code that the search began with.
    """

    project: str
    code: str
    snapshot: Snapshot
    study: str
    ranked: tuple[str, ...]
    until: float
    place: int = 0


def explore(part: str) -> None:
    """Takes part in a search until it ends, or until whoever started this process has gone.

    Args:
        part: a `Part` as JSON.
    """
    asked, settings, parent = Part.model_validate_json(part), Settings(), os.getppid()
    if asked.code != code():
        sys.exit("the code changed while the search began; train again")
    use = Project.named(asked.project, settings)
    search = Search.of(use, asked.snapshot, settings, ranked=asked.ranked)
    study = studies.opened(settings.studies(), asked.study, use.search.seed, others=True)

    def told() -> None:
        if os.getppid() != parent:
            sys.exit("the search was left alone")

    search.go_on(study, time.monotonic() + asked.until - time.time(), told, place=asked.place)


def _together(search: Search, study: "Study", snapshot: Snapshot, shown: "Progress", deadline: float) -> None:
    """The search in several processes over one study."""
    asked = search.use.search
    until = time.time() + deadline - time.monotonic()
    part = Part(
        project=search.use.project,
        code=code(),
        snapshot=snapshot,
        study=study.study_name,
        ranked=search.space.ranked,
        until=until,
    )
    for _ in _on_this_machine(asked, part):
        shown.update(study)


def _on_this_machine(asked: Asked, part: Part) -> Iterator[None]:
    """So many processes; they end with this one. Yields while they run."""
    command = [sys.executable, "-c", "import sys; from tasks.tune import explore; explore(sys.argv[1])"]
    parts = [part.model_copy(update={"place": place}).model_dump_json() for place in range(asked.workers)]
    # Prefect's variables would make their logs those of this task run
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    processes = [subprocess.Popen([*command, each], env=environment) for each in parts]
    try:
        while any(process.poll() is None for process in processes):
            yield
            time.sleep(POLL)
        if failed := [process.returncode for process in processes if process.returncode]:
            raise RuntimeError(
                f"{len(failed)} of {asked.workers} processes of the search ended with {failed[0]}; finished trials are kept. "
                "Their last lines stand above; train again to go on"
            )
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


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
        self.drawn = time.monotonic()
        page = progress(
            _history(study, self.use), self.use.search.seconds, self.drawn - self.start, self.use.search.trials, self.use.goal.label,
            greater_is_better=self.use.goal.greater_is_better,
        )  # fmt: skip
        with get_client(sync_client=True) as client:
            client.update_artifact(self.artifact, ArtifactUpdate(data=page))


def _earlier(use: Project, settings: Settings) -> list[Recipe]:
    """What the champion was made with, and what the last searches found best, in this order."""
    rows = [row for row in Journal(settings.journal()).trainings(use.project) if "recipe" in row["detail"]][::-1]
    champion = [row for row in rows if row["state"] == "released"][:1]
    return [Recipe.model_validate(row["detail"]["recipe"]) for row in (*champion, *rows[:REMEMBERED])]


def _count(study: "Study", *, running: bool, before: float = math.inf) -> int:
    """Trials that are finished; and those under way, when they count. `before`: only those of a smaller number."""
    under_way = [trial for trial in study.get_trials(deepcopy=False) if running and trial.state.name == "RUNNING"]
    return sum(trial.number < before for trial in (*_finished(study), *under_way))


def _give_up(study: "Study", trial: "Trial") -> None:
    """Ends a trial that was one too many."""
    import optuna

    study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _finished(study: "Study") -> list["FrozenTrial"]:
    return [
        trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and trial.state.name != "FAIL"
    ]


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
    """The plainest of the recipes that are not surely worse than the best."""
    use, history = search.use, _history(study, search.use)
    complete = [trial for trial in _finished(study) if trial.state.name == "COMPLETE"]
    if not complete:
        raise RuntimeError(
            f"No trial of {use.project} finished in {use.search.seconds:g} s. Give search.seconds more, or search.rows fewer."
        )
    tried = [
        (search.space.suggest(trial), Marks(trial.value or 0.0, tuple(trial.user_attrs["spread"])))
        for trial in complete
    ]
    taken = plainest(tried)
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


def _remember(best: Best, use: Project, registry: Registry, run: str) -> None:
    """Logs the search in a few calls: parameters, one series, one table."""
    registry.log(
        run, params={
            "family": best.recipe.family.kind, **best.recipe.family.model_dump(exclude={"kind"}),
            "window": best.recipe.window.name, "columns": ", ".join(best.recipe.features) or "all",
        },
        metrics={"search.trials": best.trials, "search.seconds": best.seconds, "search.cpu_seconds": best.cpu_seconds, f"search.{use.metric}": best.value},
    )  # fmt: skip
    registry.log_series(
        run,
        f"trial.{use.metric}",
        [(trial["at"], trial["number"], trial["value"]) for trial in best.history if trial["value"] is not None],
    )
    registry.log_files(run, {"trials.json": as_json(best.history)})
