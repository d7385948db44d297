"""Triggers: may a training start, what is announced to the world, and which follow-up is owed."""

import datetime as dt
import os
import platform
import secrets
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from tasks.config import provenance
from tasks.config.errors import StackError
from tasks.config.project import Project
from tasks.config.provenance import code, commit, lock
from tasks.config.settings import Settings
from tasks.ml import threads
from tasks.ml.admission import Admission, admission
from tasks.ml.caps import Cap, Past
from tasks.ml.policy import ALARMED, By
from tasks.stores import alarms, bundles, candidates, minutes, processes, runs
from tasks.stores.journal import KEPT, OUT_OF_MEMORY, Journal, Order
from tasks.stores.lake import Lake, snapshot_named
from tasks.stores.minutes import Minutes
from tasks.stores.references import Training
from tasks.stores.registry import Registry, answering
from tasks.stores.trust import Trust

DONE = frozenset({"released", "registered", "held", "refused"})
CRASHES = 3  # so often the same training may be killed before it is not tried again by itself
PATIENCE = 7 * 24 * 3600  # seconds that a training waits for another one of its project


@contextmanager
def alone(project: str) -> Generator[None]:
    """One training of a project at a time, over all processes and machines; a kill lets the next one in."""
    with Journal(Settings().journal()).alone(f"train {project}", PATIENCE):
        yield


@task(name="admit", cache_policy=NO_CACHE)
def admit(project: str, snapshot: str | None, reason: str, *, by: By, again: bool) -> Training:
    """Decides whether a training may start, and if so records that it did in the journal and in MLflow. The caller is `alone`."""
    training = _admitted(project, snapshot, reason, by=by, again=again)
    if training.refused and not training.wait and flow_run.id:
        journal, mine = Journal(Settings().journal()), str(flow_run.id)
        left = [order for order in _ordered(journal, project) if order.run == mine]
        # This run ends well, which would mean that they are obeyed.
        journal.lost(left, mine, training.refused, most=CRASHES)
    return training


def _admitted(project: str, snapshot: str | None, reason: str, *, by: By, again: bool) -> Training:
    """As `admit`; where no training begins, orders of this run that are not answered stay its own."""
    settings, now, cpu = Settings(), dt.datetime.now(dt.UTC), provenance.cpu_seconds()
    if other := provenance.other_than(_planned()):
        return Training(project=project, reason=reason, refused=other)
    use, journal = Project.named(project, settings), Journal(settings.journal())
    orders = (
        [] if snapshot else _ordered(journal, project)
    )  # read before the rows: what is ordered later wants later rows
    registry = Registry(project, settings.mlflow(), settings.artifacts)
    settle(project, journal, settings, now)
    rows = snapshot_named(Lake(project, settings.lake(project), use.contract), snapshot)
    if rows is None or not rows.rows:
        none = f"no row of {project} has landed yet; drop a file into {settings.inbox(project)}"
        if rows:
            none = f"no row of {project} is in {rows.name}; name another window of time, or a snapshot that has rows"
        return _refusal(journal, orders, Training(project=project, reason=reason, refused=none))
    rows = Trust(use, settings).ready(rows, settings.actor)
    past, recipe = journal.trainings(project), provenance.conditions(use.digest, rows.trusted)
    asked = Training(project=project, reason=reason, snapshot=rows, config=recipe)
    kept = [row for row in past if row["state"] == KEPT and _is_of(row, asked)]
    if kept and not again and (finished := candidates.kept(settings, project, kept[-1]["detail"]["run"])):
        return _resumed(journal, registry, kept[-1], asked.model_copy(update={"finished": finished}), orders)
    if not again:
        if refused := _answered(by, reason, past, journal.orders(project)):
            return asked.model_copy(update={"refused": refused})  # what other orders want is planned by the recovery
        same = [row for row in past if _is_of(row, asked)]
        if refused := _done(rows.name, same) or _hopeless(same):
            return _refusal(journal, orders, asked.model_copy(update={"refused": refused}))
        answer = caps(use, journal, past, by, now)
        if answer.refused:
            if answer.cap:
                alert(journal, project, answer.cap, past, now)
                orders = [order for order in orders if answer.cap.kind != "breaker" or order.by in ALARMED]
            said = {"refused": answer.refused, "wait": answer.wait}
            return _refusal(journal, orders, asked.model_copy(update=said))
    number = journal.start_training(
        project=project, trigger=reason, event=by != "hand", by=by, snapshot=rows.digest, config=recipe, at=now, rows=rows.name,
        runner=_runner(), process=processes.this(),
        trusted=rows.trusted or 0,
    )  # fmt: skip
    supersede(journal, settings, project, f"training {number} began before MLflow answered", now)
    run = Minutes.of(settings, project, f"{number}-{secrets.token_hex(8)}").start(f"{project} {rows.name}", {
        "keepfit.trigger": reason, "keepfit.snapshot": rows.name, "keepfit.snapshot_sha256": rows.digest, "keepfit.training": str(number),
        "keepfit.config_sha256": use.digest, "mlflow.user": settings.actor, "keepfit.seed": str(use.search.seed), "keepfit.by": by, **_origin(),
    })  # fmt: skip
    _takes(journal, orders, number)
    get_run_logger().info(
        "training %s of %s on %s (%s rows) because: %s", number, project, rows.name, rows.rows, reason
    )
    return asked.model_copy(update={"id": number, "run": run, "started": now.isoformat(), "cpu_began": cpu})


def _runner() -> str:
    return f"flow run {flow_run.id}, process {os.getpid()} on {socket.gethostname()}"


# -- what MLflow was away for ------------------------------------------------------------------------------------------
def _is_of(row: dict[str, Any], asked: Training) -> bool:
    """Whether a training on record was of the same rows, with the same code and configuration."""
    return row["snapshot"] == asked.rows.digest and row["config"] == asked.config


def is_kept(row: dict[str, Any]) -> bool:
    """Whether a training on record has finished, and what it came to is kept until it is registered."""
    return bool(row["detail"].get("kept"))


def _resumed(
    journal: Journal, registry: Registry, row: dict[str, Any], asked: Training, orders: list[Order]
) -> Training:
    """The training that was kept, to be registered now; or that MLflow does not answer yet."""
    if not registry.answers():
        return _refusal(journal, orders, asked.model_copy(update={"refused": row["reason"]}))
    journal.resume(row["id"], runner=_runner(), process=processes.this())
    _takes(journal, orders, row["id"])
    get_run_logger().info("training %s of %s is finished, and registered now: MLflow answers", row["id"], asked.project)
    update = {"id": row["id"], "run": row["detail"]["run"], "reason": row["trigger"], "started": row["started"]}
    return asked.model_copy(update=update)


def supersede(journal: Journal, settings: Settings, project: str, why: str, now: dt.datetime) -> None:
    """Ends what was kept of a project's trainings, and forgets it. The caller is `alone`."""
    for row in journal.kept(project):
        journal.end_training(row["id"], state="failed", reason=f"finished, and never registered: {why}", at=now)
        candidates.clear(settings, project, row["detail"]["run"])
        Minutes.of(settings, project, row["detail"]["run"]).drop()
        Minutes.of(settings, project, str(row["id"])).note(Registry.abandon)  # where it has heard of its run


def caps(
    use: Project, journal: Journal, past: list[dict[str, Any]], by: str, now: dt.datetime
) -> Admission:  # fmt: skip
    """Whether floors and caps let a training begin.

    Args:
        use: the project.
        journal: says what was released.
        past: the project's trainings, oldest first, as the journal gives them.
        by: what starts the training.
        now: the moment of the question.
    """
    released: dict[int, dt.datetime] = {}
    for release in journal.releases(use.project):
        released.setdefault(release.version, dt.datetime.fromisoformat(release.at))
    known = [_past(row, released, use.budget.hours) for row in past]
    wanted = [dt.datetime.fromisoformat(at) for at in journal.alarmed(use.project, ALARMED)]
    return admission(by, known, wanted, now, policies=use.retrain, budget=use.budget, breaker=use.breaker)


def _past(row: dict[str, Any], released: dict[int, dt.datetime], hours: float) -> Past:
    """A training as the caps see it; one that did not live to say what CPU it took took its time, and no more than the hours that one may."""
    started, ended = (dt.datetime.fromisoformat(row[name]) for name in ("started", "at"))
    live = released.get(row["version"] or 0)
    # Who notices that it was killed may come days later, and writes that as its end.
    unsaid = min(max(0.0, (ended - started).total_seconds()), hours * 3600)
    cpu = row["detail"].get("cpu_seconds", unsaid)
    by = row["by"] or ("batch" if row["event"] else "hand")  # a training of an older home does not say
    return Past(by=by, started=started, ended=max(ended, live or ended), released=live is not None, cpu=cpu)


def alert(journal: Journal, project: str, cap: Cap, past: list[dict[str, Any]], now: dt.datetime) -> None:
    """Has it told once that a cap holds, however many are refused by it; `past` as for `caps`."""
    payload = {"class": "mend", "reason": cap.reason, "opens": cap.opens.isoformat()}
    alarms.told(journal, project, cap.kind, key=f"{cap.kind} after training {past[-1]['id']}", payload=payload, at=now)


# -- orders ------------------------------------------------------------------------------------------------------------
def _ordered(journal: Journal, project: str) -> list[Order]:
    return [order for order in journal.orders(project, "open") if order.does == "train"]


def _takes(journal: Journal, orders: list[Order], number: int) -> None:
    """The flow run that trains is the one that obeys; without one there is nobody who could try again."""
    if flow_run.id:
        journal.run_for(orders, str(flow_run.id))
    else:
        journal.answer(orders, "done", f"training {number} began")


def _refusal(journal: Journal, orders: list[Order], training: Training) -> Training:
    """Answers the orders that a training would have obeyed, but where a follow-up is going to."""
    if not training.wait:
        journal.answer(orders, "refused", training.refused)
    return training


def _answered(by: By, reason: str, past: list[dict[str, Any]], orders: list[Order]) -> str:
    """What has answered the alarm for which this flow run was planned, or nothing.

    An alarm of two kinds plans two runs. The first one's training takes the orders of both; the second would train on whatever landed since.
    So would one that waited while a person trained.

    Args:
        by: what starts it.
        reason: of this run; an alarm's event gives the alarm's.
        past: the project's trainings, oldest first.
        orders: all of the project.
    """
    run = _run()
    if run is None or by not in ALARMED:
        return ""
    wanted = [order for order in orders if order.does == "train"]
    is_mine = [
        order.run == str(run.id) or (not order.run and order.by in ALARMED) for order in wanted if order.state == "open"
    ]
    if any(is_mine):
        return ""
    mine = next((order for order in reversed(wanted) if order.by == by and reason.endswith(order.reason)), None)
    if mine and mine.state in {"open", "done"}:
        return f"this alarm is answered already, {mine.said or 'by a run that took its order'}"
    begun = (
        row
        for row in past
        if row["state"] in DONE and run.created and dt.datetime.fromisoformat(row["started"]) > run.created
    )
    done = next(begun, None)
    return (
        f"training {done['id']} began after this alarm and has answered it: {done['state']}, {done['reason']}"
        if done
        else ""
    )


def _planned() -> str | None:
    """The digest of the code that the deployment had when this run was planned from it; None outside of deployments."""
    run = _run()
    return run.deployment_version if run else None


def _run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None


def _origin() -> dict[str, str]:
    """What made the model, as tags: code, lock, packages, machine, threads."""
    return {
        "mlflow.source.git.commit": commit(), "keepfit.code": commit(), "keepfit.code_sha256": code(), "keepfit.lock_sha256": lock(),
        "keepfit.python": platform.python_version(), "keepfit.packages": ", ".join(f"{name} {at}" for name, at in provenance.packages().items()),
        "keepfit.omp_threads": os.environ.get("OMP_NUM_THREADS", "all"), "keepfit.threads": str(threads.cores()),
        **{f"keepfit.{name}": value for name, value in provenance.machine().items()},
    }  # fmt: skip


def settle(project: str, journal: Journal, settings: Settings, now: dt.datetime) -> list[dict[str, Any]]:
    """Ends in journal and MLflow what trainings left that were killed, and removes their files; gives those. The caller is `alone`."""
    dead = [row for row in journal.under_way() if row["project"] == project]
    for row in dead:
        state, then = (KEPT, "it is still to be registered") if is_kept(row) else ("crashed", "the next training takes its finished trials over")  # fmt: skip
        reason = f"cut off: {row['runner'] or 'its process'} was gone; {then}"
        journal.cut_off(row, state=state, reason=reason, at=now)
    candidates.clear_all(settings, project, but=[row["detail"]["run"] for row in journal.kept(project)])
    bundles.clear(settings.bundles(project))
    for row in dead:
        for each in minutes.left(settings, project):
            if each.folder.name.startswith(f"{row['id']}-") and not is_kept(row):
                each.drop()  # MLflow has not heard of its run
        Minutes.of(settings, project, str(row["id"])).note(Registry.abandon)
    if dead and (champion := journal.champion(project)):
        with suppress(StackError), answering():  # the recovery sees to the alias, too
            Registry(project, settings.mlflow(), settings.artifacts).point("champion", champion.version)
    return dead


def tell(project: str, journal: Journal, settings: Settings) -> list[str]:
    """Tells MLflow what it was away for; gives the runs. What is kept has its own time. The caller is `alone`.

    Raises:
        StackError: it does not answer.
    """
    kept, told = {row["detail"]["run"] for row in journal.kept(project)}, list[str]()
    for each in minutes.left(settings, project):
        if each.folder.name not in kept:
            told.append(each.tell())
    return told


def _done(name: str, past: list[dict[str, Any]]) -> str:
    """How a training of the same kind ended that came to an end, or nothing."""
    done = next((row for row in reversed(past) if row["state"] in DONE), None)
    if done is None:
        return ""
    return f"snapshot {name} was trained on already with this code and configuration: {done['state']}, {done['reason']}"


def _hopeless(past: list[dict[str, Any]]) -> str:
    """Why one more training of the same kind would only end as those before, or nothing.

    Args:
        past: the trainings on the same snapshot with the same code and configuration, oldest first.
    """
    again = "`keepfit train --again` tries it nonetheless"
    if past and past[-1]["state"] == "failed" and past[-1]["reason"].startswith(OUT_OF_MEMORY):
        return f"this snapshot ran out of memory with this code and configuration: {past[-1]['reason']} {again}"
    if len(past) >= CRASHES and all(row["state"] == "crashed" for row in past[-CRASHES:]):
        return f"the last {CRASHES} trainings on this snapshot were killed; see what ends them, often it is memory. {again}"
    return ""


@task(name="plan follow-up", cache_policy=NO_CACHE)
def plan_follow_up(project: str, wait: float, by: By) -> str:
    """Plans one more training after the cool-down, unless one is coming anyway, however many ask. The caller is `alone`."""
    journal = Journal(Settings().journal())
    try:
        run = runs.follow_up(project, "asked for during the cool-down", by, wait, beside=flow_run.id)
    except ObjectNotFound:
        return "no deployment runs here: start the training again by hand after the cool-down"
    mine = [order for order in _ordered(journal, project) if order.by == by]  # others have their own waits
    journal.run_for(mine, str(run.id))
    return f"follow-up '{run.name}' comes in {wait:.0f} s"
