"""Questions: the rows that judge, as everybody is asked about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from tasks.ml.features import matrix
from tasks.ml.kinds import Kind


@dataclass(frozen=True)
class Questions:
    """What everybody is asked.

    Attributes:
        rows: the rows that judge, as they landed.
        features: theirs, as `features.matrix` gives them.
        asked: the questions that come of them, as the problem's kind puts them.
        truth: what came true, a question each.
    """

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
        return cls(rows, features, *kind.asked(features, kind.truth(rows), seed))
