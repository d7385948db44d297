"""A fitted model: a recipe learned, calibrated and given its operating numbers, in two phases; the same for the same rows and seed.

First the recipe is fitted on train; on validation, which that model has not learned from, it is calibrated and given its operating
numbers, and what it says there is kept. Then the same recipe is fitted once more on train and validation together (refit), under the
calibration and the operating numbers of the first phase.

Context: the validation rows are a sixth of the history, and of a split by time the newest sixth. Choice: the model that is released
learns from them, too. Price: a second fit, and numbers that were learned of a model which knew less. That is on the careful side
where more rows make a better model: errors are smaller than the interval says, and probabilities not surer than they may be. The
promise of a split conformal interval (`Regression.operate`) is one of the first phase, and no theorem for the second.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from tasks.ml.calibrate import Method, calibrated, carried
from tasks.ml.contributions import usual
from tasks.ml.features import matrix
from tasks.ml.kinds import Kind
from tasks.ml.recipe import Learned, Recipe
from tasks.ml.split import Learnable

if TYPE_CHECKING:
    from tasks.ml.contract import Column


@dataclass(frozen=True)
class Making:
    """How a model is made of rows, whichever they are.

    Attributes:
        recipe: what to make.
        kind: the problem.
        columns: the feature columns by name, in order.
        time: the column that says when a row happened.
        seed: of everything that is drawn.
    """

    recipe: Recipe
    kind: Kind
    columns: "Mapping[str, Column]"
    time: str
    seed: int

    def learned(self, rows: pd.DataFrame) -> Learned:
        """What can be learned of rows; whoever has it need not hold the rows any more."""
        return Learned.of(rows, self.kind, self.columns, self.time)

    def of(self, learned: Learned) -> tuple[Any, pd.DataFrame]:
        """The fitted pipeline, and the features of the rows and columns that it learned from."""
        model = self.recipe.fit(self.kind, self.columns, learned, seed=self.seed)
        return model, self.recipe.read(self.columns, learned)

    def asked(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """What such a model is asked about rows, and what came true."""
        types = {name: column.type for name, column in self.recipe.columns(self.columns).items()}
        return self.kind.asked(matrix(rows, types), self.kind.truth(rows), self.seed)


@dataclass(frozen=True)
class Fitted:
    """What a training makes of two parts; the holdout is not among them.

    Attributes:
        making: how.
        model: the fitted pipeline, calibrated where that surely helps.
        calibration: how it was calibrated.
        operates: how its answers become decisions.
        rows: how many it learned from.
        usual: what its explainer must know of them.
        asked: the features of the validation rows that were asked about.
        said: what the model of the first phase said of them: the answers of a model that has not learned from them, in both phases.
        refit: whether it was fitted once more, and has learned from them.
    """

    making: Making
    model: Any
    calibration: Method
    operates: dict[str, float]
    rows: int
    usual: dict[str, Any]
    asked: pd.DataFrame
    said: np.ndarray
    refit: bool = False

    @classmethod
    def of(
        cls, recipe: Recipe, kind: Kind, columns: "Mapping[str, Column]", time: str, parts: Learnable, *, seed: int
    ) -> Self:  # fmt: skip
        """The first phase: fits on train, calibrates and sets how answers become decisions on validation, which is not asked for before.

        Args:
            recipe: what to make.
            kind: the problem.
            columns: the feature columns by name, in order.
            time: the column that says when a row happened.
            parts: rows to learn from, and rows that it does not learn from, as they landed.
            seed: of everything that is drawn.
        """
        making = Making(recipe, kind, columns, time, seed)
        model, read = making.of(making.learned(parts.train))
        rows, known = len(read), usual(model, read)
        del read  # of columns that are no floats it is a copy
        asked, truth = making.asked(parts.validation)
        model, method = calibrated(kind, model, asked, truth, seed)
        said = kind.answers(model, asked)
        return cls(making, model, method, kind.operate(truth, said), rows, known, asked, said)

    def refitted(self, parts: Learnable) -> Self:
        """The second phase: the recipe fitted on train and validation, with calibration and operating numbers as they are.

        A window of the recipe ends with the newest validation row.

        Args:
            parts: those of the first phase.
        """
        model, read = self.making.of(self.making.learned(parts.both))
        return replace(self, model=carried(self.model, model), rows=len(read), usual=usual(model, read), refit=True)
