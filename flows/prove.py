"""Bad challengers are put through a project's live gates: each must be stopped by the gate named in advance, the good model must pass."""

from typing import Any

from prefect import flow

from tasks.prove import is_proven, put_through, record


@flow(name="prove", flow_run_name="{project}: do the gates hold?", persist_result=True, result_serializer="json")
def prove(project: str) -> dict[str, Any]:
    """Puts bad challengers and a good model through the gates of a project, and records what came of it.

    Args:
        project: The project whose gates are asked.
    """
    return record(put_through(project))


def doubts(project: str) -> str:
    """Why the gates of a project may not release by themselves, or nothing; a configuration that is not proven is proven here."""
    if is_proven(project):
        return ""
    proof = prove(project)
    return (
        "" if proof["ok"] else f"the gates are not proven: {proof['reason']}. `keepfit prove {project}` says all of it"
    )
