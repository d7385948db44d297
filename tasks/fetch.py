"""Fetch: what is new in a source becomes files in the inbox, and the journal says how far it was read."""

import datetime as dt
from collections.abc import Callable
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task
from pydantic import BaseModel

from tasks.config.errors import ConflictError, KeepfitError, suggestion
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.sources.delivery import Delivered, Left, Mark, SourceError, UnreachableError, sweep
from tasks.sources.source import Source
from tasks.stores.journal import Journal

SHOWN = 20  # warnings of one fetch; a thousand say no more


class Fetched(BaseModel, frozen=True):
    """What came of one fetch from one source."""

    project: str
    source: str
    state: Literal["delivered", "nothing", "refused"]
    reason: str
    files: int = 0
    bytes: int = 0
    left: int = 0


def chosen(project: str, source: str | None) -> list[str]:
    """The names of the sources to fetch from: the one that was asked for, or all.

    Raises:
        SourceError: the project declares no source, or none of that name.
    """
    names = [declared.name for declared in Project.named(project).sources]
    if not names:
        raise SourceError(
            f"{project} declares no sources, so there is nothing to fetch from. Declare one under `sources:` in its project.yaml, like "
            '{name: drop, kind: listing, url: "file:///data/drop/"}, then say `keepfit deploy` where a stack runs; or land files: `keepfit land`.'
        )
    if source is None:
        return names
    if source not in names:
        raise SourceError(
            f"{project}: has no source '{source}'. Sources in its project.yaml: {', '.join(names)}.{suggestion(source, names)}"
        )
    return [source]


def deliver(
    project: str, source: Source, settings: Settings, clock: Callable[[], dt.datetime], warn: Callable[[str], None]
) -> Fetched:
    """Delivers what is new and keeps each mark as it comes, so that a kill repeats little and leaves nothing out.

    Raises:
        SourceError: the source does not answer, or somebody must change something; what was delivered before counts.
    """
    journal, inbox = Journal(settings.journal()), settings.inbox(project, source.brings)
    sweep(inbox, clock())
    mark = journal.watermark(project, source.name)
    delivered: list[Delivered] = []
    left: list[Left] = []
    try:
        for step in source.fetch(mark, inbox, clock()):
            match step:
                case Delivered():
                    delivered.append(step)
                case Left():
                    left.append(step)
                    if len(left) <= SHOWN:
                        warn(f"{project}: {source.name}: {step.what} {step.reason}")
                case Mark(text):
                    if text != mark:
                        journal.move_watermark(project, source.name, mark, text, clock())
                    mark = text
    except ConflictError as conflict:
        return _fetched(project, source, delivered, left, refused=str(conflict))
    faults = [thing for thing in left if thing.fault]
    if faults and not delivered:
        raise UnreachableError(
            f"{project}: nothing could be read from '{source.name}': {faults[0].what} {faults[0].reason}"
            f"{f', and {len(faults) - 1} more' if faults[1:] else ''}. They are tried again at the next fetch."
        )
    return _fetched(project, source, delivered, left)


def _fetched(project: str, source: Source, delivered: list[Delivered], left: list[Left], refused: str = "") -> Fetched:
    size = sum(file.bytes for file in delivered)
    numbers = f"{source.name}: {len(delivered)} files delivered ({size:,} bytes), {len(left)} left"
    return Fetched(
        project=project, source=source.name, state="refused" if refused else "delivered" if delivered else "nothing",
        reason=f"{numbers}. {refused}".rstrip(". "), files=len(delivered), bytes=size, left=len(left),
    )  # fmt: skip


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again may help: not where somebody must change something first."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, UnreachableError) or not isinstance(error, KeepfitError)


@task(
    name="fetch",
    task_run_name="fetch {source}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[2, 20, 120],
    retry_condition_fn=_may_pass,
)
def fetch(project: str, source: str) -> Fetched:
    """Fetches from one source into the inbox. May be repeated: it goes on from the last mark, and a file that comes twice lands once."""
    log, settings = get_run_logger(), Settings()
    declared = next(declared for declared in Project.named(project, settings).sources if declared.name == source)
    fetched = deliver(project, declared, settings, lambda: dt.datetime.now(dt.UTC), log.warning)
    log.info("%s: %s", project, fetched.reason)
    return fetched
