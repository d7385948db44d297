"""What is new in a project's sources goes into its inbox, from where it lands as any other file."""

from typing import Any

from prefect import flow

from tasks.fetch import chosen
from tasks.fetch import fetch as fetch_from


@flow(name="fetch", flow_run_name="{project}: fetch", persist_result=True, result_serializer="json")
def fetch(project: str, source: str | None = None) -> dict[str, Any]:
    """Fetches from the sources that a project declares; each goes its way, whatever happens to the others.

    Args:
        project: The project whose sources are read.
        source: One of them; all when empty.
    """
    states = [fetch_from(project, name, return_state=True) for name in chosen(project, source)]
    return {"project": project, "sources": [state.result().model_dump(mode="json") for state in states]}
