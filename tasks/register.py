"""Register: a challenger that passed becomes a version with lineage, card and verdicts; one that did not leaves its reasons."""

import datetime as dt
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from prefect import Flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.states import State

from tasks.config import plans
from tasks.config.errors import StackError
from tasks.config.names import approval, artifact_key, resource
from tasks.config.project import Project
from tasks.config.provenance import commit, cpu_seconds, lock, pinned
from tasks.config.settings import Settings
from tasks.ml import card, pages, pictures
from tasks.ml.features import matrix
from tasks.ml.gates import Verdict, outcome
from tasks.ml.metrics import unpacked
from tasks.releasing import outdated
from tasks.rollout import ROLLING
from tasks.stores import artifacts, bundles, candidates, footprints, proposals
from tasks.stores.footprints import Recorded
from tasks.stores.journal import KEPT, NO_MLFLOW, OUT_OF_MEMORY, UNDER_WAY, Journal
from tasks.stores.lake import ROW, parts
from tasks.stores.minutes import Minutes
from tasks.stores.references import Best, Candidate, Decision, Finished, Prepared, Scores, Training
from tasks.stores.registry import Registry, answering, as_json

CPU = "training.cpu_seconds"
WAITING = frozenset({"held", "registered"})  # states in which a person decides about the version
# what numpy, Python, C++ and Arrow say when they get no memory
MEMORY = re.compile(r"MemoryError|bad_alloc|[Cc]annot allocate memory|malloc of size|realloc of size")

# what MLflow's client says when its server is away, or is there and cannot
AWAY = re.compile(
    r"API request to \S+ failed with (timeout )?exception|API request .{0,200}failed with error code 5\d\d"
)


@task(name="register", cache_policy=NO_CACHE)
def register(training: Training, finished: Finished) -> Decision:
    """Puts the outcome on record in MLflow, in the journal and before the eyes of people; while MLflow is away it is kept, and nothing goes live."""
    settings = Settings()
    journal = Journal(settings.journal())
    took = finished.took or _took(training)  # another time MLflow would take for another metric
    finished = finished.model_copy(update={"took": took})
    journal.assure()  # else MLflow would get a version of a training that is taken for dead
    try:
        run = Minutes.of(settings, training.project, training.run).tell()
        return _registered(training.model_copy(update={"run": run}), finished, journal, settings)
    except StackError as error:
        return _keep(training, finished, journal, str(error))


def _keep(training: Training, finished: Finished, journal: Journal, why: str) -> Decision:
    """Keeps what a training has come to, until MLflow answers: then the recovery has it registered, or the same command does."""
    candidates.keep(Settings(), training.project, training.run, finished)
    decision = _decision(training, finished, KEPT, f"finished, and registered when MLflow answers. {why}")
    _end(journal, training, decision, _detail(training, finished, Settings()) | {"kept": True})
    _say(decision, [*finished.verdicts])
    return decision


def _decision(training: Training, finished: Finished, state: str, reason: str, **more: Any) -> Decision:
    """What the training has come to, in this state for this reason."""
    best, scores = finished.best, finished.scores
    return Decision(
        project=training.project, state=state, reason=reason, trigger=training.reason, snapshot=training.rows.name,
        metric=Project.named(training.project, Settings()).metric, **scores.metric.model_dump(), champion=_champion(scores), trials=best.trials,
        resumed_trials=best.resumed, window=best.recipe.window.name, seconds=round(best.seconds, 2), cpu_seconds=round(best.cpu_seconds, 2), **more,
    )  # fmt: skip


def _detail(training: Training, finished: Finished, settings: Settings) -> dict[str, Any]:
    """What later trainings and whoever asks why want to know of it: that it was judged is a look at the champion, whatever comes of it."""
    use, scores, prepared = Project.named(training.project, settings), finished.scores, finished.prepared
    return {
        "run": training.run, "metric": use.metric, **scores.metric.model_dump(), "verdicts": [verdict.model_dump() for verdict in finished.verdicts],
        "recipe": finished.best.recipe.model_dump(mode="json"), "operates": scores.judged(finished.candidate).operates,
        "until": prepared.windows["holdout"][1], "champion": _champion(scores), "against": scores.champion_version, "bars": plans.bars(use, settings),
        "judged": prepared.rows["holdout"], "cpu_seconds": finished.took[CPU],
    }  # fmt: skip


def _champion(scores: Scores) -> dict[str, Any] | None:
    return {"version": scores.champion_version, **scores.champion.model_dump()} if scores.champion else None


def _registered(training: Training, finished: Finished, journal: Journal, settings: Settings) -> Decision:
    prepared, best, scores, verdicts = finished.prepared, finished.best, finished.scores, [*finished.verdicts]
    candidate, use = scores.judged(finished.candidate), Project.named(training.project, settings)
    registry = Registry(use.project, settings.mlflow(), settings.artifacts)
    judged = outcome(verdicts)
    recorded = _answered(candidate, scores)
    facts = _facts(use, training, prepared, best, candidate, scores, verdicts, refit=recorded.refit)
    version, detail = None, _detail(training, finished, settings)
    with answering():
        registry.log(training.run, metrics=finished.took)
        registry.log_files(training.run, {footprints.STEPS: as_json(recorded.footprint.model_dump()["steps"])})
        if judged != "refused":
            version, detail["digest"], detail["artifacts"] = _version(
                use, training, candidate, recorded, registry, settings, verdicts, card.summary(facts)
            )
            registry.point("challenger", version)
        link = registry.link(training.run)
    states = {
        "passed": "releasing" if use.release.by == "itself" else "registered",
        "held": "held",
        "refused": "refused",
    }
    against = "; ".join(verdict.reason for verdict in verdicts if not verdict.passed)
    reason = against or _headline(verdicts)
    decision = _decision(training, finished, states[judged], reason, version=version, link=link)
    digests = (
        proposals.digests(use, journal, detail["digest"], scores.champion_version, training.rows, detail["verdicts"])
        if decision.state in WAITING
        else None
    )
    _end(journal, training, decision, detail, digests)
    minutes = Minutes.of(settings, use.project, training.run)
    _show(use, journal, minutes, scores, facts.model_copy(update={"version": version}), decision, best)
    _announce(decision)
    candidates.clear(settings, use.project, finished.candidate.run)
    get_run_logger().info("%s: %s", decision.state, decision.reason)
    return decision


@task(name="decline", cache_policy=NO_CACHE)
def decline(training: Training, reason: str) -> dict[str, Any]:
    """Records that nothing was trained, and why; a refusal ends a run well."""
    settings = Settings()
    decision = Decision(
        project=training.project,
        state="refused",
        reason=reason,
        trigger=training.reason,
        snapshot=training.snapshot.name if training.snapshot else None,
    )
    if training.id:
        took = _took(training)
        _end(Journal(settings.journal()), training, decision, {"run": training.run, "cpu_seconds": took[CPU]})
        minutes = Minutes.of(settings, training.project, training.run)
        minutes.note(Registry.log, metrics=took, tags={"keepfit.decision": "refused", "keepfit.reason": reason[:4000]})
        minutes.note(Registry.end)
        _announce(decision)
    _say(decision, [])
    return decision.model_dump(mode="json")


def _say(decision: Decision, verdicts: list[Verdict]) -> None:
    """The page of a decision without a version."""
    create_markdown_artifact(
        pages.decision(decision.state, decision.reason, verdicts, project=decision.project),
        key=artifact_key(decision.project, "decision"),
        description=f"**{decision.project}** {decision.reason}",
    )
    get_run_logger().info("%s: %s", decision.state, decision.reason)


@task(name="conclude", cache_policy=NO_CACHE)
def conclude(training: Training, decision: Decision, released: dict[str, Any]) -> dict[str, Any]:
    """Records that the version went live, or why it did not: then it waits for a person, unless its verdicts do not count any more."""
    settings = Settings()
    state = released["state"] if released["state"] == "released" else "registered"
    waits = released["state"] not in {"released", ROLLING}
    said = {"released": decision.reason, ROLLING: f"{decision.reason}; {released['reason']}"}
    reason = said.get(released["state"], f"not released: {released['reason']}")
    final = decision.model_copy(update={"state": state, "reason": reason})
    journal, now = Journal(settings.journal()), dt.datetime.now(dt.UTC)
    digests = _waiting(settings, journal, training) if waits else None
    journal.end_training(training.id, state=state, reason=final.reason, at=now, digests=digests)
    run = _on_record(journal, training)["detail"].get(
        "run", training.run
    )  # MLflow may have given it another name meanwhile
    Minutes.of(settings, training.project, run).note(Registry.log, tags={"keepfit.decision": state})
    return final.model_dump(mode="json")


def _on_record(journal: Journal, training: Training) -> dict[str, Any]:
    return next(row for row in journal.trainings(training.project) if row["id"] == training.id)


def _waiting(settings: Settings, journal: Journal, training: Training) -> dict[str, str] | None:
    """What a person decides about, whose version passed and may not go live by itself; None where its verdicts do not count any more."""
    row = _on_record(journal, training)
    use, detail = Project.named(training.project, settings), row["detail"]
    if outdated(use, row, journal.champion(use.project), settings):
        return None
    return proposals.digests(use, journal, detail["digest"], detail["against"], training.rows, detail["verdicts"])


def note_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 -- Prefect calls it by these names
    """Hook: a training whose run failed or was cancelled is not under way any more, in the journal and in MLflow."""
    settings, project = Settings(), str(flow_run.parameters["project"])
    journal, now = Journal(settings.journal()), dt.datetime.now(dt.UTC)
    reason = failure(state.message or state.name or "failed")
    for row in journal.trainings(project):
        if row["state"] in UNDER_WAY and str(flow_run.id) in (row["runner"] or ""):
            journal.cut_off(row, state="crashed" if state.is_crashed() else "failed", reason=reason, at=now)
            Minutes.of(settings, project, str(row["id"])).note(Registry.abandon, failed=state.is_failed())


def failure(message: str) -> str:
    """What a failed run said, for the journal; when memory ran out or MLflow was away, what that means comes first.

    >>> failure("Flow run encountered an exception: ValueError: no")
    'Flow run encountered an exception: ValueError: no'
    """
    said = message.strip()[:2000]
    if MEMORY.search(said):
        return f"{OUT_OF_MEMORY}: give the machine more of it, or lower search.rows. {said}"
    if AWAY.search(said) or NO_MLFLOW in said:
        return f"{NO_MLFLOW}: see that its server runs (`keepfit status`); finished trials are kept, and what is owed is trained again when it answers. {said}"
    return said


def _end(
    journal: Journal, training: Training, decision: Decision, detail: dict[str, Any], digests: dict[str, str] | None = None
) -> None:  # fmt: skip
    journal.end_training(
        training.id,
        state=decision.state,
        reason=decision.reason,
        at=dt.datetime.now(dt.UTC),
        version=decision.version,
        detail=detail,
        digests=digests,
    )


def _took(training: Training) -> dict[str, float]:
    """Wall and CPU time of the whole training up to its decision, child processes included."""
    seconds = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(training.started)).total_seconds()
    return {"training.seconds": seconds, CPU: cpu_seconds() - training.cpu_began}


def _answered(candidate: Candidate, scores: Scores) -> Recorded:
    """The candidate's footprint with what it said on the holdout."""
    said = pd.read_parquet(Path(scores.answers))
    return footprints.read(Path(candidate.folder), candidate.digest).answered(said[ROW], unpacked(said["challenger"]))


def _version(
    use: Project, training: Training, candidate: Candidate, recorded: Recorded, registry: Registry, settings: Settings,
    verdicts: list[Verdict], about: str,
) -> tuple[int, str, dict[str, str]]:  # fmt: skip
    """Logs the model, registers it, and writes the bundle that servers load; gives version, the bundle's digest, and what MLflow keeps."""
    where, digest = Path(candidate.folder), candidate.digest
    manifest, model = bundles.read(where, digest)
    sample = matrix(
        parts(use, training.rows, settings.lake(use.project)).train.head(5),
        {name: use.types[name] for name in model.feature_names_in_},
    )
    logged = registry.log_model(
        training.run, model, sample, use.task.answers(model, sample), bundles.REVIEWED,
        pinned("scikit-learn", "pandas", "numpy", "skops"),
    )  # fmt: skip
    tags = {
        "keepfit.snapshot": training.rows.name,
        **{f"keepfit.{name}": f"{value:.6g}" for name, value in candidate.operates.items()},
        "keepfit.trigger": training.reason,
    }
    version = registry.register(training.run, logged, candidate.digest, tags, about, above=_taken(use, settings))
    judged = {
        "gates_sha256": hashlib.sha256(as_json([verdict.model_dump() for verdict in verdicts]).encode()).hexdigest()
    }
    own = {name: value for name, value in manifest.items() if name not in {"files", "versions", "served by"}}
    folder, files = settings.bundles(use.project) / str(version), recorded.files() | bundles.served(where, digest)
    digest = bundles.write(folder, model, own | {"version": version}, files, first=judged)
    return version, digest, artifacts.recorded(settings.artifacts, logged)


def _taken(use: Project, settings: Settings) -> int:
    """The highest number that a version has had, as journal and bundles know it; 0: there was none."""
    journal, folders = Journal(settings.journal()), settings.bundles(use.project).glob("*")
    numbers = [
        *(row["version"] or 0 for row in journal.trainings(use.project)),
        *(release.version for release in journal.releases(use.project)),
        *(int(folder.name) for folder in folders if folder.name.isdecimal()),
    ]
    return max(numbers, default=0)


def _facts(
    use: Project,
    training: Training,
    prepared: Prepared,
    best: Best,
    candidate: Candidate,
    scores: Scores,
    verdicts: list[Verdict],
    *,
    refit: bool,
) -> card.CardFacts:
    windows = {
        name: card.Window(
            rows=prepared.rows[name], start=dt.datetime.fromisoformat(since), end=dt.datetime.fromisoformat(until)
        )
        for name, (since, until) in prepared.windows.items()
    }
    before = (
        card.Before(version=scores.champion_version, value=scores.champion.value if scores.champion else None)
        if scores.champion_version
        else None
    )
    return card.CardFacts(
        project=use.project, about=use.about, labels=use.labels, metric_label=use.goal.label, version=None, snapshot=training.rows.digest,
        delta_version=training.rows.version, parts=windows, family=best.recipe.family.kind, params=best.recipe.family.model_dump(exclude={"kind"}), window=best.recipe.window.name, refit=refit, columns=best.recipe.features, kind=use.kind,  # ty: ignore[invalid-argument-type]
        seed=use.search.seed, metric=scores.metric, verdicts=tuple(verdicts), baselines=scores.baselines, champion=before, operates=candidate.operates,
        cost=use.cost, alerts=use.alerts, panels=scores.panels, importance=scores.importance, slices=scores.slices, commit=commit(), lock=lock(), trigger=training.reason,
        created_at=dt.datetime.fromisoformat(training.started),
    )  # fmt: skip


def _show(
    use: Project,
    journal: Journal,
    minutes: Minutes,
    scores: Scores,
    facts: card.CardFacts,
    decision: Decision,
    best: Best,
) -> None:
    """The report and the decision in Prefect; the same report, every picture and the card beside the run in MLflow."""
    points = curve_points(journal.trainings(use.project))
    shown = decision.state if decision.state in {"held", "refused"} else "passed"
    title = f"{use.project} {decision.snapshot}: {shown}"
    report = pictures.report(
        points,
        scores.panels,
        use.labels,
        operates=facts.operates,
        metric_label=use.goal.label,
        floor=use.floor,
        title=title,
    )
    relied = pictures.explained(scores.importance, scores.slices, title)
    links = {"the run in MLflow": decision.link} if decision.link else {}
    create_markdown_artifact(
        f"# {title}\n\n{pages.embedded(report, 'report')}\n\n{card.summary(facts)}\n\n{pages.embedded(relied, 'what it relies on, and groups of rows')}\n",
        key=artifact_key(use.project, "report"),
        description=f"**{use.project}** {use.goal.label} {scores.metric} on the holdout of {decision.snapshot}",
    )  # fmt: skip
    forest, version = pictures.verdicts(facts.verdicts, title), decision.version if decision.state in WAITING else None
    note = functools.partial(
        pages.decision, shown, decision.reason, facts.verdicts, project=use.project, version=decision.version,
        links=links | (_form(use.project, version) if version else {}), move=approval(use.project, version) if version else "",
    )  # fmt: skip
    page = note(picture=forest)
    create_markdown_artifact(
        page,
        key=artifact_key(use.project, "decision"),
        description=f"**{use.project}** {shown}: {decision.reason[:300]}",
    )
    search = pictures.search(best.history, use.goal.label, greater_is_better=use.goal.greater_is_better)
    minutes.note(Registry.log_files, files={
        "report.png": report, "search.png": search, "explained.png": relied, "card/README.md": card.card(facts), "decision.md": page, "verdicts.png": forest, "panels.json": as_json(scores.panels),
    })  # fmt: skip
    minutes.note(
        Registry.log,
        tags={
            "keepfit.decision": decision.state,
            "keepfit.reason": decision.reason[:4000],
            "mlflow.note.content": note(),  # it has no room for a picture
        },
    )
    minutes.note(Registry.end)


def curve_points(trainings: list[dict[str, Any]]) -> "list[pictures.Point]":
    """The measured line: what the champion of the time was worth at each training, and what was decided there."""
    points = []
    for row in trainings:
        detail = row["detail"]
        if "value" not in detail:
            continue
        won = row["state"] in {"released", "releasing"}
        if detail.get("against") and not detail.get("champion") and not won:
            continue  # nobody knows what a champion is worth that could not be asked
        shown = detail if won or not detail.get("champion") else detail["champion"]
        points.append(
            pictures.Point(
                at=dt.datetime.fromisoformat(detail["until"]), value=shown["value"], low=shown["low"], high=shown["high"],
                version=row["version"] if won else (detail.get("champion") or {}).get("version") or 0, event="released" if won else "refused",
            )
        )  # fmt: skip
    return points


def _headline(verdicts: list[Verdict]) -> str:
    """The sentence of the gate that mattered most: the champion's when there was one, else the baselines'."""
    spoken = {verdict.gate: verdict.reason for verdict in verdicts}
    return (
        spoken["champion"]
        if "champion" in spoken and "no champion" not in spoken["champion"]
        else spoken.get("baselines", "passed every gate")
    )


def _form(project: str, version: int | None) -> dict[str, str]:
    """The address of the form of `approve/<project>`, filled in with the version, by its name; nothing where it is not deployed."""
    address = Settings().prefect()
    if address is None:
        return {}
    try:
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(f"approve/{project}")
    except ObjectNotFound:
        return {}
    filled = quote(json.dumps({"project": project, "version": version}))
    return {"approve or reject it": f"{address}/deployments/deployment/{deployment.id}/run?parameters={filled}"}


def _announce(decision: Decision) -> None:
    events = ["refused" if decision.version is None else "registered", *(["held"] if decision.state == "held" else [])]
    for event in events:
        emit_event(
            event=f"keepfit.model.{event}",
            payload=decision.model_dump(mode="json"),
            resource=resource(decision.project),
        )
