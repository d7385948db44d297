"""Drift: how far the newest rows have moved from those before, column by column."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tasks.ml.features import matrix
from tasks.ml.profile import LISTED, stability

NEWEST = 0.2  # share of the rows that count as the newest


def moved(rows: pd.DataFrame, types: Mapping[str, str], time: str) -> tuple[str, float]:
    """The column that moved most between the newest fifth of the rows and those before, and its population stability index.

    Above 0.25 it is commonly called a shift (Siddiqi, Credit Risk Scorecards, 2006). Columns of times always move, and do not count.

    Args:
        rows: in any order.
        types: of the columns that count.
        time: the column that says when a row happened.
    """
    steady = {name: kind for name, kind in types.items() if kind != "datetime"}
    ordered = matrix(rows.sort_values(time, kind="stable"), steady)
    cut = round(len(ordered) * (1 - NEWEST))
    sizes = {name: _index(column[:cut], column[cut:]) for name, column in ordered.items()}
    name = max(sizes, key=lambda column: sizes[column], default="")
    return str(name), sizes.get(name, 0.0)


def _index(before: pd.Series, after: pd.Series) -> float:
    """Over the deciles of the rows before, or over their most frequent values where there are few; what is missing is a bin, too."""
    numeric = pd.api.types.is_numeric_dtype(before) and before.nunique() > LISTED
    cuts = np.unique(before.quantile(np.linspace(0.1, 0.9, 9))) if numeric else before.value_counts().index[:LISTED]
    old, new = (_counts(part, cuts, numeric=numeric) / max(len(part), 1) for part in (before, after))
    return stability(old, new)


def _counts(column: pd.Series, cuts: np.ndarray | pd.Index, *, numeric: bool) -> np.ndarray:
    """Rows in each bin: those of the cuts, the rest, the missing."""
    there = column.dropna()
    places = np.searchsorted(np.asarray(cuts), there) if numeric else pd.Index(cuts).get_indexer(there) % (len(cuts) + 1)  # fmt: skip
    return np.r_[np.bincount(places, minlength=len(cuts) + 1), len(column) - len(there)]
