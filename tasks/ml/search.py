"""The search's limits: what a project says about tuning."""

from pydantic import BaseModel, Field

from tasks.ml.models import FamilyName


class Search(BaseModel, frozen=True, extra="forbid"):
    """How long to search, and among what."""

    seconds: float = Field(
        default=60, gt=0, description="time budget of the search; a trial that runs is ended by its next fold"
    )
    trials: int = Field(default=40, ge=1, description="at most so many trials")
    folds: int = Field(
        default=3, ge=1, le=10, description="time-ordered folds a trial is scored on; pruned after any of them"
    )
    families: tuple[FamilyName, ...] = Field(
        default=("hist_gradient_boosting", "logistic", "random_forest", "extra_trees"),
        min_length=1,
        description="when left out, all that fit the problem's kind",
    )
    windows: bool = Field(
        default=True, description="also ask how much of the past to learn from, where the split is by time"
    )
    columns: bool = Field(default=True, description="also ask whether fewer columns do as well")
    workers: int = Field(
        default=1, ge=1, le=256, description="processes that search at once; with one it is repeatable"
    )
    refit: bool = Field(
        default=True,
        description="after calibration fit once more on train and validation, where the recipe learns from all of the past and the kind is not "
        "anomaly; else, and without, what is released was fitted on train only, and intervals and probabilities are those of exactly this model",
    )
    rows: int = Field(
        default=100_000,
        ge=100,
        description="at most so many of the training rows, spread over their whole history, are used in a trial",
    )
    seed: int = Field(default=0, ge=0, le=2**31, description="of whatever the search and its models draw")
