"""A challenger becomes champion: rehearsed, committed in the journal, followed by the alias and the servers."""

from typing import Any

from prefect import flow

from tasks.deploy import BY_HAND, alone, commit, follow, proclaim, rehearse, roll_out


@flow(
    name="release",
    flow_run_name="{project}: version {version} to champion",
    persist_result=True,
    result_serializer="json",
)
def release(
    project: str,
    version: int,
    reason: str = BY_HAND,
    actor: str = "somebody in the Prefect UI",
    proposal: int | None = None,
) -> dict[str, Any]:
    """Makes a registered version champion, if every configured gate has passed it and no person must decide first.

    Args:
        project: The project whose champion changes.
        version: The registered version, as MLflow counts.
        reason: Why; stands in the journal.
        actor: Who does it; stands in the journal.
        proposal: Leave it empty; `approve` says here what it approves.
    """
    with alone(project):
        plan = rehearse(project, version, reason, actor, proposal)
        if plan.refused:
            return proclaim(plan, "")
        if begun := roll_out(plan):
            return begun
        commit(plan)
        return proclaim(plan, follow(project))
