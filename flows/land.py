"""A batch arrived: ingest it under the contract, say what became of every row, and announce it."""

from typing import Any

from prefect import flow

from tasks.ingest import hand_on, ingest


@flow(name="land", flow_run_name="{project}: {name} arrived", persist_result=True, result_serializer="json")
def land(project: str, path: str, name: str = "a file") -> dict[str, Any]:  # noqa: ARG001 -- in the run's name
    """Lands the rows of one file exactly once; rows that break the contract go to quarantine.

    Args:
        project: The project whose contract holds.
        path: The file: CSV, Parquet or JSON lines, on a disk that the worker sees.
        name: What to call the file in lists.
    """
    landing = ingest(project, path)
    hand_on(landing, path)
    return landing.model_dump(mode="json")
