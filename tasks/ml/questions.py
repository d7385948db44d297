"""Questions: the rows that judge, as everybody is asked about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from tasks.ml.features import matrix
from tasks.ml.kinds import Kind
from tasks.ml.watching import older


@dataclass(frozen=True)
class Questions:
    """What everybody is asked.

    Attributes:
        kind: the problem; types: of the feature columns by name, in order.
        rows: the rows that judge, as they landed.
        features: theirs, as `features.matrix` gives them.
        asked: the questions that come of them, as the problem's kind puts them.
        truth: what came true, a question each.
    """

    kind: Kind
    types: Mapping[str, str]
    rows: pd.DataFrame
    features: pd.DataFrame
    asked: pd.DataFrame
    truth: np.ndarray

    @classmethod
    def of(cls, kind: Kind, types: Mapping[str, str], rows: pd.DataFrame, seed: int) -> Self:
        """The questions of these rows.

        Args:
            kind: the problem.
            types: of the feature columns by name, in order.
            rows: as they landed.
            seed: of what is planted, where the kind plants rows.
        """
        features = matrix(rows, types)
        return cls(kind, types, rows, features, *kind.asked(features, kind.truth(rows), seed))

    def put(self, types: Mapping[str, str]) -> pd.DataFrame:
        """The same questions to a model that reads columns of these types, as an older contract may have had them.

        Where rows are planted, a column that is none any more, or is of another sort, stays as it is in the row that is stood for.
        """
        others = {
            name: kind
            for name, kind in types.items()
            if name not in self.types or older.sort(self.types[name]) != older.sort(kind)
        }
        if not others:
            return self.asked
        places = self.kind.told(self.features, np.arange(len(self.rows)))
        then = older.features(self.rows, others).iloc[places].set_axis(self.asked.index)
        return pd.concat([self.asked.drop(columns=[*others], errors="ignore"), then], axis=1)
