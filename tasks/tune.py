"""Tune: an Optuna search over families and parameters on time-ordered folds, inside a time budget, resumable."""

import time
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from pydantic import TypeAdapter

from tasks.config.names import artifact_key
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml import models
from tasks.ml.features import matrix
from tasks.ml.pages import progress
from tasks.stores import studies
from tasks.stores.journal import Journal
from tasks.stores.lake import parts
from tasks.stores.references import Best, Snapshot
from tasks.stores.registry import Registry, as_json

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

REFRESH = 1.0  # seconds between two pictures of the progress


@task(name="tune", cache_policy=NO_CACHE)
def tune(project: str, snapshot: Snapshot, run: str) -> Best:
    """Searches until the budget in trials or seconds is spent. May be repeated: finished trials are not run again."""
    settings, start, cpu = Settings(), time.monotonic(), time.process_time()
    use = Project.named(project, settings)
    split = parts(use, snapshot, settings.lake(project))
    studies.prepare(settings.studies())
    study = studies.study(settings.studies(), f"{project} {snapshot.digest[:16]} {use.digest[:16]}", use.search.seed)
    resumed = len(_finished(study))
    _start_points(study, use, settings)
    search = Search(use, split.train, start)
    shown = Progress(project, use, start)
    study.optimize(
        search.score, n_trials=max(0, use.search.trials - resumed) or None if resumed < use.search.trials else 0,
        timeout=max(0.1, use.search.seconds - (time.monotonic() - start)), callbacks=[shown.update],
    )  # fmt: skip
    best = _best(study, use, resumed, time.monotonic() - start, time.process_time() - cpu)
    shown.close(study)
    _remember(best, use, Registry(project, settings.mlflow(), settings.artifacts), run)
    get_run_logger().info(
        "%s trials in %.1f s (%s pruned, %s resumed): %s, %s %.4f",
        best.trials,
        best.seconds,
        best.pruned,
        best.resumed,
        best.family.kind,
        use.metric,
        best.value,
    )
    return best


class Search:
    """The question put to a trial: how good is this model on rows right after those it learned from?"""

    def __init__(self, use: Project, rows: pd.DataFrame, start: float) -> None:
        columns = {name: use.contract.columns[name] for name in use.contract.features}
        newest = rows.sort_values(use.split.column, kind="stable").tail(use.search.rows)
        self.use, self.columns, self.deadline = use, columns, start + use.search.seconds
        self.folds = [
            (self._matrix(before), use.truth(before).to_numpy(), self._matrix(after), use.truth(after).to_numpy())
            for before, after in use.split.folds(newest, use.search.folds)
        ]

    def _matrix(self, rows: pd.DataFrame) -> pd.DataFrame:
        return matrix(rows, {name: column.type for name, column in self.columns.items()})

    def score(self, trial: "Trial") -> float:
        """Mean loss over the folds (the metric, turned so that less is better); pruned after any of them."""
        import optuna

        model = models.suggest(trial, self.use.search.families)
        losses: list[float] = []
        for step, (before, learned, after, truth) in enumerate(self.folds):
            if len(set(learned)) < 2 or len(set(truth)) < 2:
                continue
            fitted = models.pipeline(model, models.observed(self.columns, before), self.use.search.seed).fit(
                before, learned
            )
            losses.append(-float(self.use.goal.gain(self.use.goal.of(truth, fitted.predict_proba(after)[:, 1]), 0.0)))
            trial.report(sum(losses) / len(losses), step)
            late = time.monotonic() > self.deadline and trial.number > 0
            if step + 1 < len(self.folds) and (late or trial.should_prune()):
                raise optuna.TrialPruned
        if not losses:
            raise optuna.TrialPruned
        return sum(losses) / len(losses)


class Progress:
    """The search as an artifact that is redrawn while it goes on."""

    def __init__(self, project: str, use: Project, start: float) -> None:
        self.use, self.start, self.drawn = use, start, 0.0
        made = create_markdown_artifact(
            "The search begins.", key=artifact_key(project, "tuning"), description=f"**{project}** tuning, live"
        )
        self.artifact = cast("UUID", made)  # outside of an event loop it is never a coroutine

    def update(self, study: "Study", _trial: "FrozenTrial") -> None:
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


def _start_points(study: "Study", use: Project, settings: Settings) -> None:
    """Each family's defaults and what the champion was made with are tried first."""
    for name in use.search.families:
        study.enqueue_trial(models.trial_params(models.FAMILIES[name]()), skip_if_exists=True)
    made = [
        row
        for row in Journal(settings.journal()).trainings(use.project)
        if row["state"] == "released" and "family" in row["detail"]
    ]
    if made:
        family = TypeAdapter(models.Family).validate_python(made[-1]["detail"]["family"])
        if family.kind in use.search.families:
            study.enqueue_trial(models.trial_params(family), skip_if_exists=True)


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


def _best(study: "Study", use: Project, resumed: int, seconds: float, cpu: float) -> Best:
    history = _history(study, use)
    complete = [trial for trial in history if trial["state"] == "complete"]
    if not complete:
        raise RuntimeError(
            f"No trial of {use.project} finished in {use.search.seconds:g} s. Give search.seconds more, or search.rows fewer."
        )
    first = max if use.goal.greater_is_better else min
    best = first(complete, key=lambda trial: trial["value"])
    family = models.FAMILIES[best["family"]].model_validate(best["params"])
    pruned = sum(trial["state"] == "pruned" for trial in history)
    return Best(
        family=family,
        value=best["value"],
        trials=len(history),
        pruned=pruned,
        resumed=resumed,
        seconds=seconds,
        cpu_seconds=cpu,
        history=history,
    )


def _remember(best: Best, use: Project, registry: Registry, run: str) -> None:
    """Logs the search in a few calls: parameters, one series, one table."""
    registry.log(
        run, params={"family": best.family.kind, **best.family.model_dump(exclude={"kind"})},
        metrics={"search.trials": best.trials, "search.seconds": best.seconds, "search.cpu_seconds": best.cpu_seconds, f"search.{use.metric}": best.value},
    )  # fmt: skip
    registry.log_series(
        run,
        f"trial.{use.metric}",
        [(trial["at"], trial["number"], trial["value"]) for trial in best.history if trial["value"] is not None],
    )
    registry.log_files(run, {"trials.json": as_json(best.history)})
