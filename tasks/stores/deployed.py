"""Deployed: what the Prefect server holds of projects, and the end of what no project declares any more.

Prefect adds and changes schedules by their slug and deployments by their name, and removes neither; but where one schedule of a deployment
has no slug, as those have none that are made in its UI, it replaces all of them.
"""

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort
from prefect.exceptions import ObjectNotFound

FLOW = re.compile(r"flows\.(\w+)\.\1")  # the entry point of a flow of keepfit's
BY_HAND = "by-hand:"  # begins the slug of a schedule that a person made; no file can declare one that does


def spare(pool: str, projects: Collection[str] | None = None) -> None:
    """Gives the schedules that people made by hand a slug, with which they outlast the next deploy.

    Args:
        pool: the work pool that keepfit deploys to.
        projects: of these only; by default of all.
    """
    with get_client(sync_client=True) as client:
        for found in _of_projects(client, pool):
            for each in found.schedules if projects is None or found.name in projects else ():
                if each.slug is None:
                    with suppress(ObjectNotFound):  # the person has taken it back
                        client.update_deployment_schedule(
                            found.id, each.id, parameters=each.parameters, slug=f"{BY_HAND}{each.id}"
                        )


def withdraw(
    declared: Mapping[str, Collection[str | None]], pool: str, projects: Collection[str] | None = None
) -> list[str]:
    """Removes the deployments and schedules of projects that are not declared; gives a line for each.

    What is not keepfit's stays: a deployment is when its work pool, its entry point and the tag of its project all say so; a schedule is not
    where a person made it by hand.

    Args:
        declared: the slugs of a deployment's schedules, by its full name, like `train/fraud`.
        pool: the work pool that keepfit deploys to.
        projects: of these only; by default of all.
    """
    removed: list[str] = []
    with get_client(sync_client=True) as client:
        for found in _of_projects(client, pool):
            if projects is not None and found.name not in projects:
                continue
            name = _full_name(found)
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
