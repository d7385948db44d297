"""What was served against what was learned and what came true: what moved goes out as an alarm."""

from typing import Any

from prefect import flow

from tasks.monitor import look


@flow(name="watch", flow_run_name="{project}: {reason}", persist_result=True, result_serializer="json")
def watch(project: str, reason: str = "by hand") -> dict[str, Any]:
    """Compares the newest window of what the champion answered with what it learned and with what came true.

    Args:
        project: The project to look at.
        reason: Why; stands in the run's name.
    """
    return look(project, reason)
