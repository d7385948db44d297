"""The champion scores a batch of rows into a file."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.score import Scoring


@flow(name="score", flow_run_name="{project}: score {source}", persist_result=True, result_serializer="json")
def score(project: str, source: str, target: str, sql: str = "") -> dict[str, Any]:
    """Scores every row of a source with the champion; a row that does not fit is rejected with its reason.

    Args:
        project: The project whose champion answers.
        source: A file (CSV, Parquet, JSON lines) or the folder of a Delta table, on a disk that the worker sees; with sql a SQLAlchemy URL, or `env:NAME` of the variable that holds it.
        target: The file to write, CSV or Parquet; what is rejected goes beside it.
        sql: One SELECT.
    """
    settings = Settings()
    scoring = Scoring(Project.named(project, settings), settings)
    return scoring.score(source, Path(target), sql, get_run_logger().info).model_dump(mode="json")
