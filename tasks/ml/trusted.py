"""The trusted reference set: rows that are set apart once, that no later batch can touch, and that nothing learns from.

Context: the newest rows judge as production will, but whoever can send a batch can bend them; a holdout cut from a poisoned
batch praises the model that learned the poison. Choice: a share of what had landed at the first training is set apart in a
table of its own, and both sets are asked. Price: that share teaches nothing, and it grows old: `keepfit data trust` renews it.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, Field

from tasks.ml.identity import key_hashes


class Trusted(BaseModel, frozen=True, extra="forbid"):
    """How much is set apart when a project is trained for the first time."""

    share: float = Field(default=0.1, ge=0, le=0.5, description="share of the rows, on average; 0 sets nothing apart")
    fewest: int = Field(default=100, ge=20, description="with fewer rows than this nothing is set apart yet")

    def chosen(self, units: np.ndarray, seed: int) -> np.ndarray:
        """Which units are set apart: (n,) bool. Their number decides, mixed with the seed (SplitMix64), and nothing else.

        >>> units = np.arange(10_000, dtype=np.uint64)
        >>> abs(int(Trusted(share=0.1).chosen(units, 7).sum()) - 1000) < 100
        True
        """
        with np.errstate(over="ignore"):
            mixed = units + np.uint64((seed * 2 + 1) * 0x9E3779B97F4A7C15 % 2**64)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(31)
        return (mixed >> np.uint64(11)) * 2.0**-53 < self.share


def units(rows: pd.DataFrame, unit: tuple[str, ...]) -> np.ndarray:
    """A number for what stands on one side as a whole: (n,) uint64; rows with equal values in these columns have equal numbers."""
    return key_hashes(pa.Table.from_pandas(rows[list(unit)], preserve_index=False), unit)


def apart(rows: pd.DataFrame, trusted: pd.DataFrame, unit: tuple[str, ...]) -> np.ndarray:
    """Which rows belong to what was set apart, under whatever content they came again: (n,) bool.

    >>> apart(pd.DataFrame({"id": [1, 2, 3]}), pd.DataFrame({"id": [2]}), ("id",)).tolist()
    [False, True, False]
    """
    if trusted.empty or rows.empty:
        return np.zeros(len(rows), dtype=bool)
    return np.isin(units(rows, unit), units(trusted, unit))
