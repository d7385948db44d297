"""A batch arrived: ingest it under the contract, say what became of every row, and announce it."""

from typing import Any, Literal

from prefect import flow

from tasks.ingest import hand_on, ingest


@flow(name="land", flow_run_name="{project}: {name} arrived", persist_result=True, result_serializer="json")
def land(
    project: str,
    path: str,
    name: str = "a file",  # noqa: ARG001 -- in the run's name
    supersedes: str = "",
    accept: str = "",
    kind: Literal["rows", "outcomes"] = "rows",
) -> dict[str, Any]:
    """Lands the rows of a file, or of a folder of files, exactly once; rows that break the contract go to quarantine.

    Args:
        project: The project whose contract holds.
        path: The file, CSV, Parquet or JSON lines, or a folder of them that land together, on a disk that the worker sees.
        name: What to call the file in lists.
        supersedes: A batch that these rows correct, by name or the beginning of its digest; one of the same name is corrected anyway.
        accept: Why a batch that looks odd as a whole may land all the same.
        kind: Whether the file holds rows, or outcomes: the key of rows that landed, and what came true of them.
    """
    landing = ingest(project, path, supersedes, accept, kind)
    hand_on(landing, path)
    return landing.model_dump(mode="json")
