"""A fitted model: a recipe learned on train, calibrated and given its operating numbers on validation; the same for the same rows and seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from tasks.ml.calibrate import Method, calibrated
from tasks.ml.features import matrix
from tasks.ml.kinds import Kind
from tasks.ml.recipe import Learned, Recipe
from tasks.ml.split import Learnable

if TYPE_CHECKING:
    from tasks.ml.contract import Column


@dataclass(frozen=True)
class Fitted:
    """What a training makes of two parts; the holdout is not among them.

    Attributes:
        model: the fitted pipeline, calibrated where that surely helps.
        calibration: how.
        operates: how its answers become decisions.
        read: the features of the rows and columns that it learned from.
        asked: those of the validation rows that it was asked about.
    """

    model: Any
    calibration: Method
    operates: dict[str, float]
    read: pd.DataFrame
    asked: pd.DataFrame

    @classmethod
    def of(
        cls, recipe: Recipe, kind: Kind, columns: "Mapping[str, Column]", time: str, parts: Learnable, *, seed: int
    ) -> Self:  # fmt: skip
        """Fits on train, calibrates and sets how answers become decisions on validation, which is not asked for before.

        Args:
            recipe: what to make.
            kind: the problem.
            columns: the feature columns by name, in order.
            time: the column that says when a row happened.
            parts: rows to learn from, and rows that it does not learn from, as they landed.
            seed: of everything that is drawn.
        """
        learned = Learned.of(parts.train, kind, columns, time)
        model = recipe.fit(kind, columns, learned, seed=seed)
        types, validation = {name: column.type for name, column in recipe.columns(columns).items()}, parts.validation
        asked, truth = kind.asked(matrix(validation, types), kind.truth(validation), seed)
        model, method = calibrated(kind, model, asked, truth, seed)
        return cls(model, method, kind.operate(truth, kind.answers(model, asked)), recipe.read(columns, learned), asked)
