"""A fitted model: a recipe learned, calibrated and given its operating numbers, in two phases; the same for the same rows and seed.

First the recipe is fitted on train; on validation, which that model has not learned from, it is calibrated and given its operating
numbers. Then, where it may be (`stays`), the same recipe is fitted once more on train and validation together (refit), under the
calibration and the operating numbers of the first phase.

Context: the validation rows are a sixth of the history, and of a split by time the newest sixth. Choice: the model that is released
learns from them, too, but for those whose label was not final when the holdout began: a model of that moment could not have known it.
Price: a second fit, and numbers that were learned of a model which knew less: none of what they promise, the nine rows of ten of a
split conformal interval (`Regression.operate`) among it, is proven of the second model. The holdout, which neither has learned from,
tells how well they fit it.

Where not: a correction and a threshold also make up for how validation rows differ from train. A second model that learns this
difference by itself is corrected for it twice. A window `last` or `decay` counts just these rows most, and a detector of anomalies takes
them for usual, so that hardly one like them reaches the threshold any more: both stay as they were fitted on train. One that is neither
corrected nor operated by a number, a recommender say, has nothing that could be counted twice. Where all rows of the past count alike a
sixth more of them moves a model less, and the gate `calibration` asks of the holdout whether it is too much.
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

NOT_ASKED = "it was not asked for"
ALL_LATE = "no validation row's label was final when the holdout began"


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
        asked: the features of the validation rows that were asked about; truth: what came true of them.
        said: what the model of the first phase said of them: the answers of a model that has not learned from them, in both phases.
        late: how many validation rows were left out when it was fitted once more: their label was not final when the holdout began.
        once: why it was fitted once only, and has not learned from them; empty where it has.
    """

    making: Making
    model: Any
    calibration: Method
    operates: dict[str, float]
    rows: int
    usual: dict[str, Any]
    asked: pd.DataFrame
    truth: np.ndarray
    said: np.ndarray
    late: int = 0
    once: str = NOT_ASKED

    @property
    def refit(self) -> bool:
        """Whether it was fitted once more, and has learned from the validation rows."""
        return not self.once

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
        return cls(making, model, method, kind.operate(truth, said), rows, known, asked, truth, said)

    def refitted(self, parts: Learnable) -> Self:
        """The second phase: the recipe fitted on train and validation, with calibration and operating numbers as they are.

        A model that may not learn from validation rows stays the same, but for the reason.

        Args:
            parts: those of the first phase.
        """
        is_set = bool(self.operates) or self.calibration != "none"
        if is_set and (why := stays(self.making.kind, self.making.recipe)):
            return replace(self, once=why)
        learned = self.making.learned(parts.both)
        if len(learned.truth) <= self.rows:
            return replace(self, once=ALL_LATE)
        model, read = self.making.of(learned)
        return replace(
            self, model=carried(self.model, model), rows=len(read), usual=usual(model, read), late=parts.late, once=""
        )


def stays(kind: Kind, recipe: Recipe) -> str:
    """Why a model that is corrected or operated by a number stays as it was fitted on train, or nothing; the reason stands at the top of this file.

    >>> from tasks.ml.kinds import Anomaly, Regression
    >>> stays(Regression("y"), Recipe.usual("ridge")), stays(Anomaly(), Recipe.usual("gaussian_mixture"))
    ('', 'a detector of anomalies would take the rows for usual that its threshold was set by')
    """
    if kind.name == "anomaly":
        return "a detector of anomalies would take the rows for usual that its threshold was set by"
    if recipe.window.kind != "all":
        return f"its window ({recipe.window.name}) counts the rows most that its numbers were set by"
    return ""
