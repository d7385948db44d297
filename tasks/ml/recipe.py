"""A recipe: everything that the search decides about a model, and how a model is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from tasks.ml import lean, models, threads
from tasks.ml.features import matrix
from tasks.ml.kinds import Kind
from tasks.ml.models import Family
from tasks.ml.window import Window

if TYPE_CHECKING:
    from tasks.ml.contract import Column


@dataclass(frozen=True)
class Learned:
    """Rows to learn from.

    Attributes:
        features: every feature column, as `features.matrix` gives them.
        truth: what came true: (n,).
        times: when each row happened.
    """

    features: pd.DataFrame
    truth: np.ndarray
    times: pd.Series

    @classmethod
    def of(cls, rows: pd.DataFrame, kind: Kind, columns: "Mapping[str, Column]", time: str) -> Self:
        """The same of rows as they landed."""
        features = matrix(rows, {name: column.type for name, column in columns.items()})
        return cls(features.reset_index(drop=True), kind.truth(rows), rows[time].reset_index(drop=True))


class Recipe(BaseModel, frozen=True, extra="forbid"):
    """A model's family with its parameters, the rows of the past that it learns from, and the columns that it reads.

    Attributes:
        features: empty means all.
    """

    family: Family
    window: Window = Window()
    features: tuple[str, ...] = ()

    @classmethod
    def usual(cls, family: str) -> Self:
        """The defaults of a family, on all rows and columns."""
        return cls.model_validate({"family": {"kind": family}})

    @classmethod
    def known(cls, said: object) -> Self | None:
        """A recipe that is on record; None where this code does not offer its family, a parameter or its window any more."""
        try:
            return cls.model_validate(said)
        except ValidationError:
            return None

    def is_like(self, other: "Recipe") -> bool:
        """Whether it is of the same family, columns and, nearly, window; parameters every search chooses anew."""
        same = self.family.kind == other.family.kind and {*self.features} == {*other.features}
        return same and self.window.is_like(other.window)

    @property
    def name(self) -> str:
        """`logistic`; with the window and the number of columns where they are not all."""
        read = f"{len(self.features)} columns" if self.features else ""
        return ", ".join(filter(None, [self.family.kind, self.window.name.replace("all", ""), read]))

    @property
    def plainness(self) -> tuple[float, ...]:
        """Of two recipes that are equally good the one with the smaller plainness is taken."""
        return (self.family.rank, self.window.kind != "all", self.family.size, len(self.features))

    def columns(self, known: "Mapping[str, Column]") -> "dict[str, Column]":
        """The columns that it reads, in the contract's order."""
        return {name: column for name, column in known.items() if not self.features or name in self.features}

    def read(self, columns: "Mapping[str, Column]", learned: Learned) -> pd.DataFrame:
        """The features of the rows and columns that it learns from."""
        inside, names = self.window.rows(learned.times), list(self.columns(columns))
        return learned.features[names] if inside.all() else learned.features.loc[inside, names]

    def fit(
        self, kind: Kind, columns: "Mapping[str, Column]", learned: Learned, *, seed: int, workers: int = 1
    ) -> Any:  # fmt: skip
        """The fitted pipeline.

        Args:
            kind: the problem.
            columns: the feature columns by name, in order.
            learned: the rows to learn from.
            seed: of everything that is drawn.
            workers: how many processes do this at once; they share the cores.
        """
        read, inside = self.columns(columns), self.window.rows(learned.times)
        features, times = self.read(columns, learned), learned.times[inside]
        seen = models.observed(read, features)
        weights = self.window.weights(times, learned.times.max())
        with threads.limited(threads.share(workers)):
            made = models.pipeline(
                self.family,
                seen,
                seed,
                kind.name,
                models.wide(seen, features),
                threads.share(workers),
                getattr(kind, "user", ""),
            )
            made[-1].set_params(**self.family.drawn(len(features)))
            lean.fit(made, features, kind.taught(learned.truth[inside]), weights if self.family.weighs else None)
        if hasattr(
            made[-1], "n_jobs"
        ):  # threads add up a forest's answers in the order in which they end: other last digits
            made[-1].n_jobs = None
        return made
