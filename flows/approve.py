"""A person decides about a version that waits: approved it is released, rejected the champion stays; both go on record."""

from typing import Any, Literal

from prefect import flow

from flows.release import release
from tasks.decide import reject, tell, weigh
from tasks.deploy import alone, follow


@flow(
    name="approve",
    flow_run_name="{project}: {decision} version {version}",
    persist_result=True,
    result_serializer="json",
)
def approve(project: str, version: int, decision: Literal["approve", "reject"], by: str, reason: str) -> dict[str, Any]:
    """Approves or rejects a version that was held for a person, or that waits because the project says so.

    What there is to decide stands on the page of the training's decision, with its picture in the report.

    Args:
        project: The project whose version waits.
        version: The version, as MLflow counts; `keepfit status` lists what waits.
        decision: approve releases it in place of the champion; reject leaves the champion.
        by: Your name; goes on record.
        reason: Why you decide so; goes on record.
    """
    weighed = weigh(project, version, decision, by, reason)
    if weighed.refused:
        if weighed.live:
            with alone(project):
                follow(project)
        return tell(weighed, {"state": "refused", "reason": weighed.refused})
    if decision == "reject":
        return tell(weighed, reject(weighed))
    return tell(weighed, release(project, version, weighed.reason, weighed.by, weighed.asked.id))
