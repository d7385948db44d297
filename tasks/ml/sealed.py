"""Sealed rows: what a model is judged by. Whoever prepares, tunes or fits may know of them what the seal says, no more."""

from contextvars import ContextVar
from dataclasses import dataclass

import pandas as pd

from tasks.ml.kinds import Kind
from tasks.ml.split import ROW, Parts

JUDGING: ContextVar[bool] = ContextVar("judging", default=False)  # set by `judging.judging` alone


class SealedError(RuntimeError):
    """Rows that judge were reached for where something is still learned."""


class Sealed:
    """Rows behind a seal.

    Attributes:
        name: which rows.
        target: the column that stays behind the seal in any case, if there is one.
        rate: the mean of the truth, as the kind says it; 0 where the truth is no number.
        unlearnable: why nothing can be judged by them, or nothing.
    """

    def __init__(self, name: str, rows: pd.DataFrame, kind: Kind, target: str | None) -> None:
        self._rows, self.name, self.target = rows, name, target
        truth = kind.truth(rows)
        self.rate = float(truth.mean()) if len(truth) and truth.dtype != object else 0.0
        self.unlearnable = kind.unlearnable(truth, name) if len(truth) else f"too few rows: the {name} part has none"

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> pd.DataFrame:
        """The rows themselves.

        Raises:
            SealedError: nobody judges here.
        """
        if not JUDGING.get():
            raise SealedError(
                f"The {self.name} rows were read outside of evaluate. Wanted: train or validation rows. Nothing that chooses or fits a "
                "model may look at what it is judged by."
            )
        return self._rows

    @property
    def names(self) -> pd.Series:
        """The names of the rows: hashes, which tell which rows they are and nothing of what is in them."""
        return self._rows[ROW]

    def without_target(self) -> pd.DataFrame:
        """Keys and features, to find rows and groups that stand on both sides."""
        return self._rows.drop(columns=[self.target] if self.target else [])

    def window(self, time: str) -> tuple[str, str]:
        """Time of the oldest and of the newest row."""
        return str(self._rows[time].min()), str(self._rows[time].max())


@dataclass(frozen=True)
class SealedParts:
    """The rows of one snapshot for one training: as `split.Parts`, with everything that judges behind a seal.

    Attributes:
        trusted: the trusted reference set, which no batch can touch; empty when there is none.
        immature: number of rows whose label may still change; they are in no part.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    holdout: Sealed
    trusted: Sealed
    immature: int = 0

    @classmethod
    def of(cls, parts: Parts, trusted: pd.DataFrame, kind: Kind, target: str | None, waiting: int = 0) -> "SealedParts":
        """The same parts, sealed; `waiting`: further rows that have no label yet."""
        sealed = Sealed("holdout", parts.holdout, kind, target)
        return cls(
            parts.train, parts.validation, sealed, Sealed("trusted", trusted, kind, target), parts.immature + waiting
        )
