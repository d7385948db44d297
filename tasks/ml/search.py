"""The search's limits: what a project says about tuning."""

from typing import Literal

from pydantic import BaseModel, Field


class Search(BaseModel, frozen=True, extra="forbid"):
    """How long to search, and among what."""

    seconds: float = Field(
        default=60, gt=0, description="time budget of the search; a trial that runs is ended by its next fold"
    )
    trials: int = Field(default=40, ge=1, description="at most so many trials")
    folds: int = Field(
        default=3, ge=1, le=10, description="time-ordered folds a trial is scored on; pruned after any of them"
    )
    families: tuple[Literal["logistic", "hist_gradient_boosting"], ...] = Field(
        default=("hist_gradient_boosting", "logistic"), min_length=1
    )
    rows: int = Field(
        default=100_000, ge=100, description="at most so many of the newest training rows are used in a trial"
    )
    seed: int = 0
