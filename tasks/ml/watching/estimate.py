"""Estimates: how good answers are expected to be while nobody knows what came true.

Made once at training, kept with the version as JSON, asked of every window:

    learned(kind, measures, truth, answers, features=None, *, seed) -> Estimator
    read(text) -> Estimator                              of Estimator.model_dump_json()
    estimator.estimates(measures, answers, features=None, *, plan, seed) -> dict[str, Estimated]

Classifiers: confidence-based performance estimation (CBPE; NannyML's documentation, How it works, Performance estimation). If the chance of
each class is known of a row, every metric has an expected value: the row stands for each class with its chance. Regression: direct loss
estimation (DLE; same place): a small forest learns from rows whose outcomes are known how far off an answer is, of features and answer.
Both hold only while outcomes follow from inputs as they did (`Estimated.assumes`); neither can see that this has changed.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, TypeAdapter

from tasks.ml.kinds import Kind
from tasks.ml.metrics import METRICS, Estimate, Metric
from tasks.ml.uncertain import compared
from tasks.ml.watching.losses import Forest
from tasks.ml.watching.measures import REACH, gauged, standard_error

FEWEST = 200  # rows with outcomes, below which nothing is learned from them
RARE = 50  # rows of the rarest class, below which an estimate is doubted
BLOCKS = 10  # consecutive stretches of those rows, on which estimates are tried
DRAWS = 100  # of labels, for the error of sampling
PAIRS = 20_000  # rows times classes that labels are drawn for; the error of more rows follows by the square root
ROWS, CELLS = 200_000, 4_000_000  # rows of a window, and rows times classes squared, that are looked at; of more every k-th
OUTSIDE = 0.05  # share of rows beyond what was met in learning, from which an estimate is doubted
SAME_CHANCES = (
    "the chance of an outcome, given what the model says, is what it was on the rows that this was learned from; a change of concept "
    "(same inputs, other outcomes) is not seen"
)
SAME_LOSSES = (
    "how far off an answer is, given the features, is what it was on the rows that this was learned from; a change of concept (same inputs, "
    "other outcomes) is not seen"
)


class EstimatePlan(BaseModel, frozen=True, extra="forbid"):
    """When performance is estimated without outcomes."""

    fewest: int = Field(
        default=200, ge=20, description="rows in a window, below which nothing is said but that they are too few"
    )


class Estimated(BaseModel, frozen=True):
    """What a measure is expected to be in a window. It is an expectation under `assumes`, and never says that all is well.

    Attributes:
        measure: its name.
        method: `cbpe`, `dle`, or `none`.
        value: the expected value; None where there is none, and `reason` says why.
        low, high: where the measure lies nine times in ten while the assumption holds, error of sampling and of estimation together.
        sampling: standard error by the rows that happen to be in the window, and what happens to come true of them.
        estimation: standard error of the estimate itself, as found on rows whose outcomes are known.
        rows: of the window.
        reason: why there is no value.
        assumes: what must hold.
        doubts: what speaks against trusting it, in words.
    """

    measure: str
    method: Literal["cbpe", "dle", "none"]
    rows: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    sampling: float | None = None
    estimation: float | None = None
    reason: str = ""
    assumes: str = ""
    doubts: tuple[str, ...] = ()


class Known(BaseModel, frozen=True):
    """What is known of a measure from rows whose outcomes are known.

    Attributes:
        value, low, high: the measure on all of them, with its 90 % interval.
        rare: rows of the rarest class, or all rows where there are no classes: what an error shrinks with.
        excess: standard error of an estimate beyond what sampling explains, found on consecutive blocks, each estimated by the others.
        spread: standard deviation of the measure between the blocks beyond what sampling explains.
        blocks: how many there were.
    """

    value: float
    low: float
    high: float
    rare: int
    excess: float
    spread: float
    blocks: int
