"""Deployed: what the Prefect server holds of projects, and the end of what no project declares any more.

Prefect adds and changes schedules by their slug and deployments by their name, and removes neither; but where one schedule of a deployment
has no slug, as those have none that are made in its UI, it replaces all of them.

Context: whoever deploys may share the server with others that deploy, too: a clone, a trial with another folder of projects. Choice: each
tags what it deploys with a mark of its own, and removes nothing that another one, or nobody it knows, has made. Price: what was deployed from
a home or a folder that has been moved since, and is declared no more, a person removes.
"""

import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort
from prefect.exceptions import ObjectNotFound

from tasks.config import private
from tasks.config.settings import Settings
from tasks.stores.journal import Journal

LOG = logging.getLogger("keepfit.deployed")
MARK = "installation:"  # begins the tag that says who deployed something
FLOW = re.compile(r"flows\.(\w+)\.\1")  # the entry point of a flow of keepfit's
BY_HAND = "by-hand:"  # begins the slug of a schedule that a person made; no file can declare one that does


def mark(settings: Settings) -> str:
    """The tag of what an installation deploys; another home, a copy of it, or another folder of projects is another installation."""
    path = settings.home / "installation"
    path.parent.mkdir(parents=True, exist_ok=True)
    private.make(path, uuid.uuid4().hex.encode())
    said = b"\0".join([path.read_bytes(), bytes(settings.home.resolve()), bytes(settings.projects.resolve())])
    return f"{MARK}{hashlib.sha256(said).hexdigest()[:12]}"


def made_before(settings: Settings) -> Callable[[str], bool]:
    """Whether an installation surely made the deployments of a project that older releases left without a mark.

    Its own server must hold them, and it must know the project: a folder declares it, or files of it have landed.
    """
    if settings.prefect_url is not None:
        return lambda _project: False
    declared, journal = settings.project_names(), Journal.existing(settings)
    return lambda project: project in declared or (journal is not None and journal.totals(project)["arrived"] > 0)


def spare(names: Collection[str], pool: str) -> None:
    """Gives the schedules that people made by hand a slug, with which they outlast the next deploy of these deployments, by full name."""
    with get_client(sync_client=True) as client:
        for found in _of_projects(client, pool):
            for each in found.schedules if _full_name(found) in names else ():
                if each.slug is None:
                    with suppress(ObjectNotFound):  # the person has taken it back
                        client.update_deployment_schedule(
                            found.id, each.id, parameters=each.parameters, slug=f"{BY_HAND}{each.id}"
                        )


def withdraw(
    declared: Mapping[str, Collection[str | None]],
    pool: str,
    mine: str,
    unmarked: Callable[[str], bool] = lambda _project: False,
    projects: Collection[str] | None = None,
) -> list[str]:
    """Removes the deployments and schedules of projects that are not declared; gives a line for each.

    What is not keepfit's stays: a deployment is when its work pool, its entry point and the tag of its project all say so; a schedule is not
    where a person made it by hand. So does what is not this installation's.

    Args:
        declared: the slugs of a deployment's schedules, by its full name, like `train/fraud`.
        pool: the work pool that keepfit deploys to.
        mine: the tag of what this installation deploys.
        unmarked: whether it made what has the tag of no installation, by project.
        projects: of these only; by default of all.
    """
    removed: list[str] = []
    with get_client(sync_client=True) as client:
        for found in _of_projects(client, pool):
            if projects is not None and found.name not in projects:
                continue
            name, marks = _full_name(found), [tag for tag in found.tags if tag.startswith(MARK)]
            if not (mine in marks or (not marks and unmarked(found.name))):
                if not marks:
                    LOG.warning(
                        "%s stays, for nothing says who deployed it. If nobody needs it, delete it in Prefect.", name
                    )
                continue
            removed += _thin_out(client, found, declared[name]) if name in declared else _remove(client, found)
    return removed


def _of_projects(client: SyncPrefectClient, pool: str) -> list[DeploymentResponse]:
    """Every deployment of keepfit's; the server gives them page by page, newest first so that a new one shifts no other out of sight."""
    found: dict[UUID, DeploymentResponse] = {}
    mine, offset = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])), 0
    while page := client.read_deployments(work_pool_filter=mine, sort=DeploymentSort.CREATED_DESC, offset=offset):
        found |= {each.id: each for each in page if _full_name(each) and f"project:{each.name}" in each.tags}
        offset += len(page)
    return [*found.values()]


def _full_name(found: DeploymentResponse) -> str:
    """Flow and project; nothing where the flow is not keepfit's."""
    flow = FLOW.fullmatch(found.entrypoint or "")
    return f"{flow[1]}/{found.name}" if flow else ""


def _thin_out(client: SyncPrefectClient, found: DeploymentResponse, slugs: Collection[str | None]) -> list[str]:
    """Ends the schedules that are not declared, with the runs that they have planned."""
    left = [each for each in found.schedules if not _is_by_hand(each.slug) and each.slug not in slugs]
    for each in left:
        with suppress(ObjectNotFound):  # another deploy was quicker
            client.delete_deployment_schedule(found.id, each.id)
    return [f"schedule '{each.slug}' of {_full_name(found)}" for each in left]


def _is_by_hand(slug: str | None) -> bool:
    return slug is None or slug.startswith(BY_HAND)


def _remove(client: SyncPrefectClient, found: DeploymentResponse) -> list[str]:
    """Ends a deployment with the runs that are planned; its automations first, which Prefect would leave behind."""
    client.delete_resource_owned_automations(f"prefect.deployment.{found.id}")
    with suppress(ObjectNotFound):
        client.delete_deployment(found.id)
    return [_full_name(found)]
