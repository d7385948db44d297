"""Transformers: our own steps inside of a model, as scikit-learn knows them. Importing this imports scikit-learn."""

from typing import Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

PARTS = ("day", "hour", "weekday", "day of year")
DAY = 86_400_000_000  # microseconds


class DateParts(TransformerMixin, BaseEstimator):
    """Times as numbers: days since 1970, hour of the day, weekday (0 is Monday), day of the year, all in UTC; missing is NaN.

    Without state: what a time means does not depend on the rows that were learned from.
    """

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:  # noqa: ARG002 -- the interface
        """Remembers the names of the columns."""
        self.feature_names_in_ = np.array([str(name) for name in X.columns], dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Frame (n, columns) of times to array (n, 4 columns) of float64."""
        return np.concatenate([_parts(X[name]) for name in X.columns], axis=1)

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:  # noqa: ARG002 -- the interface
        """Column and part: `joined day`, `joined hour` and so on."""
        return np.array([f"{name} {part}" for name in self.feature_names_in_ for part in PARTS], dtype=object)


def _parts(times: pd.Series) -> np.ndarray:
    moments = pd.to_datetime(times, utc=True)
    gone = moments.isna().to_numpy()
    parts = [
        moments.astype("datetime64[us, UTC]").astype("int64") / DAY,
        moments.dt.hour + moments.dt.minute / 60,
        moments.dt.day_of_week,
        moments.dt.day_of_year,
    ]
    table = np.stack([part.to_numpy(dtype="float64", na_value=np.nan) for part in parts], axis=1)
    table[gone] = np.nan
    return table
