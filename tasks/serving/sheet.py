"""Sheets: checked rows by column; those of numbers alone are answered and logged without becoming rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.ml.compiled.encode import GONE, microseconds
from tasks.serving.champion import Feature
from tasks.stores.packed import KINDS

Row = dict[str, Any]


class Sheet:
    """Checked rows by column, for a model (`Given`) and for the log.

    Attributes:
        count: how many rows.
        matrix: (n, numbers) float64 of the features that are numbers or truths, in their order, NaN for missing.
        beside: the n values of other columns that were sent, as JSON has them.
    """

    def __init__(
        self, features: Sequence[Feature], matrix: np.ndarray, texts: dict[str, list[Any]], beside: dict[str, list[Any]]
    ) -> None:
        """`texts` has of each other feature its n values, None for missing."""
        self.count, self.matrix, self.beside = len(matrix), matrix, beside
        self._features, self._texts = features, texts
        self._places = {name: n for n, name in enumerate(each.name for each in features if each.type in KINDS)}

    @property
    def is_numbers(self) -> bool:
        """Whether no feature is a text."""
        return not self._texts

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) float64, NaN for missing."""
        if tuple(columns) == tuple(self._places):
            return self.matrix
        return np.ascontiguousarray(self.matrix[:, [self._places[name] for name in columns]])

    def texts(self, columns: Sequence[str]) -> list[list[Any]]:
        """Of each column its n texts, None for missing."""
        return [self._texts[name] for name in columns]

    def moments(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) int64, microseconds since 1970 in UTC, `GONE` for missing."""
        made = [[GONE if text is None else microseconds(text) for text in self._texts[name]] for name in columns]
        return np.array(made, dtype=np.int64).reshape(len(columns), self.count).T

    def rows(self) -> list[Row]:
        """The rows as they are when they come as JSON."""
        columns = [self._texts.get(each.name) or self._told(each) for each in self._features]
        names = [each.name for each in self._features]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] or [{}] * self.count

    def sent(self) -> list[Row]:
        """The same with the other columns."""
        if not self.beside:
            return self.rows()
        others = (dict(zip(self.beside, values, strict=True)) for values in zip(*self.beside.values(), strict=True))
        return [row | other for row, other in zip(self.rows(), others, strict=True)]

    def _told(self, feature: Feature) -> list[Any]:
        kind = KINDS.get(feature.type)
        if kind is None:
            return []
        values = self.matrix[:, self._places[feature.name]].tolist()
        return [None if value != value else kind(value) for value in values]  # noqa: PLR0124 -- NaN alone differs from itself
