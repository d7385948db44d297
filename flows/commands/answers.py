"""Answers of the champion: about one row, and about every row of a table."""

import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from flows.commands.running import connect, run
from flows.commands.terminal import Json, say, show, table
from tasks.config.settings import Settings


def predict(project: str, *, row: str, explain: bool = False, as_json: Json = False) -> int:
    """Ask the champion about one row.

    Args:
        project: The project.
        row: The features as a JSON object; a dash reads it from stdin.
        explain: Also say what each column adds to the answer.
    """
    from flows.asking import ask

    text = sys.stdin.read() if row == "-" else row
    said = ask(project, text, Settings(), say, explain=explain)
    return show(said, as_json=as_json, page=_explained(said) if explain else None)


def _explained(said: dict[str, Any]) -> Table:
    """The answer, and under it what each column adds, the largest first."""
    (answer,) = said["predictions"]
    title = f"{said['project']} version {said['version']}: {answer['prediction']}"
    total = answer["base"] + sum(answer["contributions"].values())
    parts = sorted(answer["contributions"].items(), key=lambda part: -abs(part[1]))
    lines = [("(base)", answer["base"]), *((name, value) for name, value in parts if value), ("(sum)", total)]
    heads = ("column", said["explained"]["adds up to"])
    return table(
        heads, ((name, f"{value:+.4g}") for name, value in lines), title=title, caption=said["explained"]["method"]
    )


def score(project: str, source: str, target: Path, /, *, sql: str = "", as_json: Json = False) -> int:
    """Score every row of a table with the champion into a file; rows that do not fit go to `<name>.rejects.csv` with their reasons.

    Args:
        project: The project.
        source: A file (CSV, Parquet, JSON lines) or the folder of a Delta table; with --sql a SQLAlchemy URL, or env:NAME of the variable that holds it.
        target: CSV or Parquet: key, prediction, what is known of its certainty, version. It is there as a whole or not at all.
        sql: One SELECT.
    """
    settings = connect()
    from tasks.config.project import Project
    from tasks.score import Scoring

    use = Project.named(project, settings)
    where, target = source if sql or "://" in source else str(Path(source).absolute()), target.absolute()
    if settings.prefect_url is None:  # else the worker may see other files than this machine does
        Scoring(use, settings).refuse_unfit(where, target, sql)
    scored = run("score", settings, project=project, source=where, target=str(target), sql=sql)
    return show(scored, as_json=as_json)
