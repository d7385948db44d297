"""What is scored by the clock: the tables that a project may declare under `scores:` in its `project.yaml`.

Each run reads the whole source anew and replaces the whole target; `tasks/score.py` does it.
"""

import re
from pathlib import PurePath
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from tasks.config.names import PROJECT
from tasks.ml.policy import OnSchedule
from tasks.sources.query import one_select

WRITTEN = (".csv", ".parquet")
P = TypeVar("P", bound=PurePath)
VARIABLE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")


class Score(BaseModel, frozen=True, extra="forbid"):
    """A table that the champion scores at set times."""

    name: str = Field(pattern=rf"^{PROJECT}$", description="stands in the names of its runs; of each entry another one")
    source: str = Field(
        min_length=1,
        description="a file (CSV, Parquet, JSON lines) or the folder or URL of a Delta table; with `sql` env:NAME, the variable that holds the "
        "SQLAlchemy URL. A path that does not begin with / is one in <home>/scores/<project>",
    )
    sql: str = Field(default="", description="one SELECT; it is read anew, and as a whole, at each run")
    target: str = Field(
        description="CSV or Parquet file, which each run replaces as a whole; rows that do not fit go beside it, <name>.rejects.csv"
    )
    schedule: OnSchedule = Field(description="when: {cron, timezone}")

    @field_validator("sql")
    @classmethod
    def _one_select(cls, sql: str) -> str:
        return one_select(sql) if sql else sql

    @field_validator("target")
    @classmethod
    def _a_file(cls, target: str) -> str:
        if "://" in target or PurePath(target).suffix not in WRITTEN:
            raise ValueError(
                f"'{target}' is no file that is written; wanted a path on a disk that the worker sees, which ends in {' or '.join(WRITTEN)}"
            )
        return target

    @model_validator(mode="after")
    def _without_secret(self) -> Self:
        variable = VARIABLE.fullmatch(self.source) is not None
        if self.sql and not variable:
            raise ValueError(
                "source is not env:NAME, and a database's URL holds a password, which everybody who reads this file would know. Put the URL "
                "into an environment variable where the worker starts, and name that"
            )
        if variable and not self.sql:
            raise ValueError(
                f"source is '{self.source}', a database, but there is no sql. Add the SELECT whose rows are scored"
            )
        user, at, _ = self.source.partition("://")[2].split("/")[0].rpartition("@")
        if at and ":" in user:  # without a colon it is a container of Azure's
            raise ValueError(
                "source holds a password, which everybody who reads this file would know; give them by environment"
            )
        return self

    @property
    def writes(self) -> tuple[PurePath, PurePath]:
        """The files that a run replaces: the answers, and what was rejected."""
        target = PurePath(self.target)
        return target, rejects_of(target)


def rejects_of(target: P) -> P:
    """Where the rows go that do not fit: beside the answers."""
    return target.with_suffix(".rejects.csv")


def _apart(scores: tuple[Score, ...]) -> tuple[Score, ...]:
    names = [score.name for score in scores]
    if len(set(names)) != len(names):
        raise ValueError(f"each entry needs a name of its own, by which its runs are known; given: {names}")
    files = [file for score in scores for file in score.writes]
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise ValueError(
            f"two entries write '{twice}', and each would replace what the other wrote. Give each a target"
        )
    return scores


Scores = Annotated[tuple[Score, ...], AfterValidator(_apart)]
