"""Runs of flows: on the stack when there is one, else in this process with the same flows."""

import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from flows.saying import Say
from tasks.config.errors import KeepfitError, StackError
from tasks.config.settings import Settings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from tasks.config.project import Project
    from tasks.ingest import Kind

MET = re.compile(r"Flow run encountered an exception: (?P<error>\w+): (?P<says>.+)", re.DOTALL)  # as Prefect says it


def run(name: str, parameters: dict[str, Any], settings: Settings, say: Say) -> dict[str, Any]:
    """Runs `land`, `train`, `release`, `score`, `watch` or `approve` of a project to its end and gives its result.

    Raises:
        KeepfitError: the run failed; the message says with what.
    """
    if settings.prefect():
        return wait(start(name, parameters), say)
    say(
        "no stack is running: the work is done in this process (a temporary Prefect server starts, which takes a while)"
    )
    return _here(name)(**parameters)


def land(
    use: "Project", file: Path, kind: "Kind", supersedes: str, accept: str, settings: Settings, say: Say
) -> dict[str, Any]:
    """Lands a file of rows or outcomes to its end and gives the landing; what came true of predictions needs no run.

    Raises:
        BatchError: there is no such file, or it cannot be landed.
        KeepfitError: the run failed; the message says with what.
    """
    from flows.inbox import submit
    from tasks.ingest import keep
    from tasks.tell import by_prediction, tell

    if kind == "outcomes" and by_prediction(use, file):
        return tell(use, file, settings)
    kept = keep(use.project, file, settings, kind)
    if settings.prefect() and not (supersedes or accept):
        with _deployed("land", use.project):
            submitted = submit(use.project, kept, kind)
        return wait(submitted, say)
    told = {"name": file.name, "supersedes": supersedes, "kind": kind, "accept": accept}
    return run("land", {"project": use.project, "path": str(kept), **told}, settings, say)


def start(name: str, parameters: dict[str, Any]) -> UUID:
    """Starts a deployment's run on the stack; gives the run's id.

    Raises:
        StackError: the project is not deployed there.
    """
    from prefect.deployments import run_deployment

    project = parameters["project"]
    with _deployed(name, project):
        started = run_deployment(f"{name}/{project}", parameters=parameters, timeout=0, as_subflow=False)
    return cast("FlowRun", started).id  # outside of an event loop it is never a coroutine


@contextmanager
def _deployed(name: str, project: str) -> Generator[None]:
    """Says what to do where the stack does not know the project yet, as one that was made while it ran."""
    from prefect.exceptions import ObjectNotFound

    try:
        yield
    except ObjectNotFound as error:
        raise StackError(f"'{name}/{project}' is not deployed on the running stack. Say `keepfit deploy`.") from error


def wait(run: UUID, say: Say, patience: float = 24 * 3600) -> dict[str, Any]:
    """Waits until a run has ended and gives its result, saying each state that it goes through.

    Raises:
        KeepfitError: the run failed; the message says with what.
        KeyboardInterrupt: somebody stopped the waiting, not the run; the message says so.
    """
    from prefect.client.orchestration import get_client

    begun, last = time.monotonic(), ""
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(run)
        try:
            while time.monotonic() - begun < patience:
                state = found.state
                if state and state.name and state.name != last:
                    last = state.name
                    say(f"{found.name}: {last.lower()}")
                if state and state.is_completed():
                    return cast("dict[str, Any]", state.result())
                if state and state.is_final():
                    raise KeepfitError(_failed(found.name, str(state.name), (state.message or "no message").strip()))
                time.sleep(0.2)
                found = client.read_flow_run(run)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(
                f"the run '{found.name}' goes on in the stack: `keepfit status` shows what comes of it, and its page in Prefect cancels it."
            ) from stop
    raise StackError(f"The run {run} has not ended within {patience:g} s. Look at it in Prefect; nothing was lost.")


def _failed(run: str, state: str, said: str) -> str:
    """What a run failed with: alone where it tells a reader what to mend, as when the work is done in this process."""
    met = MET.match(said)
    if met and met["error"] in _kinds(KeepfitError):
        return met["says"]
    return f"The run '{run}' ended as {state}: {said.rstrip('.')}. Its log is in Prefect."


def _kinds(error: type[KeepfitError]) -> set[str]:
    return {error.__name__}.union(*map(_kinds, error.__subclasses__()))


def _here(name: str) -> Callable[..., dict[str, Any]]:
    from flows.approve import approve
    from flows.fetch import fetch
    from flows.land import land
    from flows.release import release
    from flows.score import score
    from flows.train import train
    from flows.watch import watch

    return {
        "approve": approve,
        "fetch": fetch,
        "land": land,
        "train": train,
        "release": release,
        "score": score,
        "watch": watch,
    }[name]
