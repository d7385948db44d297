"""Frames: rows in pandas as a form is asked with them, at training and where the project's own code computes columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


class Frame:
    """The columns of a frame, as `features.matrix` gives it, for a form."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self._rows = rows

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self._rows)

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) float64, NaN for missing."""
        return self._rows[list(columns)].to_numpy(dtype=np.float64)

    def texts(self, columns: Sequence[str]) -> list[list[Any]]:
        """Of each column its n values, None for missing."""
        some = self._rows[list(columns)].astype(object)
        return [some[name].where(some[name].notna(), None).tolist() for name in columns]

    def moments(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) int64 of microseconds; what is missing is the least of them, as pandas has it, too."""
        plain = [self._rows[name].astype("datetime64[us, UTC]").astype("int64").to_numpy() for name in columns]
        return np.stack(plain, axis=1) if plain else np.empty((len(self._rows), 0), dtype=np.int64)
