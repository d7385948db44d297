"""Sealed rows: what a model is judged by. Whoever prepares, tunes or fits may know of them what the seal says, no more."""

import weakref
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from tasks.ml.kinds import Kind, Multiclass
from tasks.ml.split import ROW, Parts

JUDGING: ContextVar[bool] = ContextVar("judging", default=False)  # set by `judging.judging` alone


class SealedError(RuntimeError):
    """Rows that judge were reached for where something is still learned."""


class Lazy:
    """Rows that are read when somebody asks for them, and let go when nobody holds them any more.

    Args:
        read: gives the same rows whenever it is called.
    """

    def __init__(self, read: Callable[[], pd.DataFrame]) -> None:
        self._read, self._keepers, self._kept = read, 0, None
        self._seen: Callable[[], pd.DataFrame | None] = lambda: None

    @property
    def rows(self) -> pd.DataFrame:
        """The rows."""
        rows = self._seen()
        if rows is None:
            rows = self._read()
            self._seen = weakref.ref(rows)
        self._kept = rows if self._keepers else None
        return rows

    @contextmanager
    def kept(self) -> Generator[None]:
        """Inside they are read once at most, and stay."""
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1
            self._kept = self._kept if self._keepers else None


class Sealed:
    """Rows behind a seal.

    Attributes:
        name: which rows.
        target: the column that stays behind the seal in any case, if there is one.

    Args:
        rows: the rows, or what reads them.
        kind: knows what came true of them.
    """

    def __init__(self, name: str, rows: pd.DataFrame | Lazy, kind: Kind, target: str | None) -> None:
        self.name, self.target, self._kind = name, target, kind
        self._lazy = rows if isinstance(rows, Lazy) else Lazy(lambda: rows)

    def __len__(self) -> int:
        return self._known[0]

    @property
    def _rows(self) -> pd.DataFrame:
        return self._lazy.rows

    def kept(self) -> AbstractContextManager[None]:
        """Inside they are read once at most, and stay."""
        return self._lazy.kept()

    @cached_property
    def _known(self) -> tuple[int, float, str]:
        """Number, rate and what is in the way of judging by them."""
        rows = self._rows
        truth = self._kind.truth(rows)
        if rows.empty:
            return 0, 0.0, f"too few rows: the {self.name} part has none"
        rate = float(truth.mean()) if truth.dtype != object else 0.0
        return len(rows), rate, self._kind.unlearnable(truth, self.name)

    @property
    def rate(self) -> float:
        """The mean of the truth, as the kind says it; 0 where the truth is no number."""
        return self._known[1]

    @property
    def unlearnable(self) -> str:
        """Why nothing can be judged by them, or nothing."""
        return self._known[2]

    @property
    def unnamed(self) -> str:
        """That some have a class without a label, which nobody can judge, or nothing."""
        kind = self._kind
        return kind.unnamed(kind.truth(self._rows), self.name) if isinstance(kind, Multiclass) else ""

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
        times = self._rows[time]
        return str(times.min()), str(times.max())


@dataclass(frozen=True)
class SealedParts:
    """The rows of one snapshot for one training: as `split.Parts`, with everything that judges behind a seal.

    Attributes:
        earlier, later: the train rows, and the validation rows; whole: these behind those, without the late ones.
        trusted: the trusted reference set, which no batch can touch; empty when there is none.
        immature: number of rows whose label may still change; they are in no part.
        late: of a split by time, number of the newest validation rows whose label was not final when the holdout began.
        gap: the rows between train and validation of which the same is true; they are in no part.
        unripe: number of train rows of which the same is true, where too few others would be left.
    """

    earlier: Lazy
    later: Lazy
    whole: Lazy
    holdout: Sealed
    trusted: Sealed
    immature: int = 0
    late: int = 0
    between: Lazy | None = None
    unripe: int = 0

    @classmethod
    def of(cls, parts: Parts, trusted: pd.DataFrame, kind: Kind, target: str | None, waiting: int = 0) -> "SealedParts":
        """The same parts, sealed; `waiting`: further rows that have no label yet."""
        return cls(
            Lazy(lambda: parts.train),
            Lazy(lambda: parts.validation),
            Lazy(lambda: parts.both),
            Sealed("holdout", parts.holdout, kind, target),
            Sealed("trusted", trusted, kind, target),
            parts.immature + waiting,
            parts.late,
            Lazy(lambda: parts.gap) if parts.purged else None,
            parts.unripe,
        )

    @property
    def train(self) -> pd.DataFrame:
        """What a model is fitted on first."""
        return self.earlier.rows

    @property
    def validation(self) -> pd.DataFrame:
        """What a model is calibrated and thresholded with."""
        return self.later.rows

    @property
    def gap(self) -> pd.DataFrame:
        """What is between train and validation, and in no part."""
        return self.train.head(0) if self.between is None else self.between.rows

    @property
    def both(self) -> pd.DataFrame:
        """What a model is fitted on at last: train, and validation behind it as far as labels were final when the holdout began."""
        return self.whole.rows

    @contextmanager
    def kept(self) -> Generator[None]:
        """Inside each of them is read once at most, and stays."""
        with self.earlier.kept(), self.later.kept(), self.holdout.kept():
            yield
