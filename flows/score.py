"""The champion scores a batch of rows into a file."""

from typing import Any

from prefect import flow, get_run_logger

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.score import Scoring


@flow(name="score", flow_run_name="{project}: score {name}{source}", persist_result=True, result_serializer="json")
def score(project: str, source: str = "", target: str = "", sql: str = "", name: str = "") -> dict[str, Any]:
    """Scores every row of a source with the champion; a row that does not fit is rejected with its reason.

    The target is replaced as a whole, or not at all. Without a champion nothing is scored, and the result says so.

    Args:
        project: The project whose champion answers.
        source: A file (CSV, Parquet, JSON lines) or the folder of a Delta table, on a disk that the worker sees; with sql a SQLAlchemy URL, or `env:NAME` of the variable that holds it.
        target: The file to write, CSV or Parquet; what is rejected goes beside it.
        sql: One SELECT.
        name: In place of source, target and sql: one of the project's `scores`, as its schedule does.
    """
    settings = Settings()
    scoring = Scoring(Project.named(project, settings), settings)
    asked = scoring.asked(source, target, sql, name)
    return scoring.score(asked.source, asked.target, asked.sql, get_run_logger().info).model_dump(mode="json")
