"""Runs: what the Prefect server believes to be under way, for a process that is no flow itself."""

import datetime as dt
import re
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events import Event, Resource
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Scheduled

from tasks.config.names import resource
from tasks.ml.policy import ALARMED

OPEN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]  # states that a killed process leaves for ever
COMING = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
SAME = dt.timedelta(seconds=10)  # runs that begin so near to each other are one
PROGRAM = re.compile(rb"flows\.warm|prefect")  # what the processes of runs are called


def bury(trainings: list[dict[str, Any]], *, here: bool) -> list[str]:
    """Marks runs as crashed whose process is gone, with the runs inside them; gives their names.

    Args:
        trainings: of the journal, known to be dead; their runs are, too, wherever they ran.
        here: every worker of the server is on this machine, so that the number of a run's process is one of ours.
    """
    buried = []
    with get_client(sync_client=True) as client:
        named = {
            UUID(found[1])
            for row in trainings
            if (found := re.search(r"flow run ([0-9a-f-]{36})", row["runner"] or ""))
        }
        believed = client.read_flow_runs(flow_run_filter=_in(OPEN))
        dead = [run.id for run in believed if run.id in named or (here and _is_gone(run.infrastructure_pid))]
        for run in dead:
            buried += [name for name in (_crash(client, each) for each in [*_inside(client, run), run]) if name]
    return buried


def _is_gone(number: str | None) -> bool:
    """Whether the process that a worker of this machine started for a run has ended; unknown where the system does not show processes."""
    if number is None or not Path("/proc/self").exists():
        return False
    try:
        return not PROGRAM.search(Path(f"/proc/{number}/cmdline").read_bytes())
    except OSError:
        return True


def _inside(client: SyncPrefectClient, run: UUID) -> list[UUID]:
    inside = _in(OPEN).model_copy(update={"parent_flow_run_id": FlowRunFilterParentFlowRunId(any_=[run])})
    return [each.id for each in client.read_flow_runs(flow_run_filter=inside)]


def _crash(client: SyncPrefectClient, run: UUID) -> str:
    """The run's name; nothing when it has ended meanwhile, and was not gone but done."""
    found = client.read_flow_run(run)
    if found.state is None or found.state.is_final():
        return ""
    client.set_flow_run_state(run, Crashed(message="its process is gone; `keepfit recover` noticed it"), force=True)
    return found.name


def coming(
    client: SyncPrefectClient, deployment: UUID, at: dt.datetime, beside: str | None = None, by: str = ""
) -> FlowRun | None:
    """A run of a deployment that no schedule has planned and that is under way, or begins by then, apart from one.

    With `by`, what starts somebody's training: none for an alarm, which ends without one where another has answered it, unless that is one, too.
    """
    mine = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    found = client.read_flow_runs(flow_run_filter=_in(COMING), deployment_filter=mine)
    planned = [run for run in found if not run.auto_scheduled and str(run.id) != beside]
    if by and by not in ALARMED:
        planned = [run for run in planned if run.parameters.get("by") not in ALARMED]
    return next((run for run in planned if run.expected_start_time is None or run.expected_start_time <= at), None)


def _deployed(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    """The deployment of that name.

    Raises:
        ObjectNotFound: there is none; the message says what to do.
    """
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound as error:
        said = f"'{name}' is not deployed on the running stack. Say `keepfit deploy`."
        raise ObjectNotFound(error.http_exc, said) from error


def train(project: str, reason: str, key: str, delay: float, by: str, snapshot: str | None = None) -> FlowRun | None:
    """Plans a training in so many seconds, by default on the newest rows; None when another one is coming no later.

    The same key within an hour is the same run, as long as the deployed code is the same: a run that was refused before it began is not
    asked for again at every look.

    Raises:
        ObjectNotFound: the project is not deployed.
    """
    with get_client(sync_client=True) as client:
        deployment = _deployed(client, f"train/{project}")
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=delay)
        if coming(client, deployment.id, at + SAME):
            return None
        return client.create_flow_run_from_deployment(
            deployment.id, parameters={"project": project, "reason": reason, "by": by, "snapshot": snapshot}, state=Scheduled(scheduled_time=at),
            idempotency_key=f"{key} {deployment.version} {at:%Y-%m-%dT%H}",
        )  # fmt: skip


def follow_up(project: str, reason: str, by: str, delay: float, beside: str | None) -> FlowRun:
    """The training that comes next, apart from the flow run that asks: one that is coming no later anyway, or a new one in so many seconds.

    Raises:
        ObjectNotFound: the project is not deployed.
    """
    with get_client(sync_client=True) as client:
        deployment = _deployed(client, f"train/{project}")
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=delay)
        parameters = {"project": project, "reason": reason, "by": by}
        return coming(client, deployment.id, at + SAME, beside, by) or client.create_flow_run_from_deployment(
            deployment.id, parameters=parameters, state=Scheduled(scheduled_time=at)
        )


def fetch(project: str, source: str, key: str) -> FlowRun:
    """Plans a fetch from a declared source; the same key is the same run.

    Raises:
        ObjectNotFound: the project is not deployed, or declares no source.
    """
    with get_client(sync_client=True) as client:
        deployment = _deployed(client, f"fetch/{project}")
        return client.create_flow_run_from_deployment(
            deployment.id, parameters={"project": project, "source": source}, state=Scheduled(), idempotency_key=key
        )


def watch(project: str, reason: str, key: str) -> FlowRun | None:
    """Plans a look at once; None when another one that no schedule planned is under way or coming. The same key is the same run.

    Raises:
        ObjectNotFound: the project is not deployed.
    """
    with get_client(sync_client=True) as client:
        deployment = _deployed(client, f"watch/{project}")
        if coming(client, deployment.id, dt.datetime.now(dt.UTC) + SAME):
            return None
        return client.create_flow_run_from_deployment(
            deployment.id, parameters={"project": project, "reason": reason}, state=Scheduled(), idempotency_key=key
        )


def came_of(run: str) -> tuple[str, str]:
    """What came of a flow run, and its name: coming, obeyed, or lost when it failed, was cancelled, or is not known any more."""
    with get_client(sync_client=True) as client:
        try:
            found = client.read_flow_run(UUID(run))
        except ObjectNotFound:
            return "lost", run
    if found.state is None or not found.state.is_final():
        return "coming", found.name
    return ("obeyed" if found.state.is_completed() else "lost"), found.name


def tell(event: str, project: str, payload: dict[str, Any]) -> None:
    """Sends an event and returns when the server has it; a payload's `class` is a label of the resource as well, by which triggers match."""
    sent = Event(event=event, resource=Resource(resource(project, payload.get("class"))), payload=payload)
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[sent.model_dump(mode="json")]).raise_for_status()


def _in(states: list[StateType]) -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)))
