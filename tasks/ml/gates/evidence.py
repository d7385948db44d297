"""Evidence: what the gates look at. Steps gather it; no gate reads a file, a clock or a server."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tasks.ml.behaviour import Behaved
from tasks.ml.gates.envelope import Envelope
from tasks.ml.gates.facts import Made, Rehearsed
from tasks.ml.kinds import Binary, Kind
from tasks.ml.metrics import Cost, Estimate, Metric
from tasks.ml.slices import Slices
from tasks.ml.uncertain import Uncertain, compared


@dataclass(frozen=True)
class Served:
    """The newest rows that were asked about in production, answered by both models.

    Attributes:
        features: as `Evidence.features`.
        challenger: its answers; champion: the champion's.
    """

    features: pd.DataFrame
    challenger: np.ndarray
    champion: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """What the gates look at: the same holdout rows, scored by everybody.

    Attributes:
        y: (n,) what came true on the holdout, as the problem's kind says it.
        challenger: answers, (n,) or (n, classes).
        baselines: naive answers by name.
        champion: answers of the champion, or None when there is none yet.
        unasked: why there is a champion that cannot be asked; empty where it can, or where there is none.
        unseen_by_champion: (n,) True where the champion was neither trained nor tuned on the row.
        history: the metric of the project's earlier challengers, each on the holdout of its time, oldest first.
        operates: how the challenger's answers become decisions; operated: how the champion's do.
        trusted: the same of the trusted reference set; None when nothing was set apart.
        rehearsal: how the real serving process bore itself with the challenger; None when it was not asked.
        heard: what it answered to the same questions, of the shape of `challenger`; None when it did not answer them all.
        decided: (n,) the labels that it gave out.
        made: what the challenger was made of; None when nobody looked.
        envelope: what may change without a person, and what changes.
        features: (n, columns) the row that each answer is about, as `features.matrix` gives it; with the columns that are no
            feature, without the target. Of a planted row the row that it stands for, of a user's the first one; None: not known.
        types: of these columns in the contract.
        times: (n,) when each of these rows happened; None: not known, or an answer is about several.
        slices: the groups of rows that the project looks at.
        floor: the project's own floor of the metric.
        is_refresh: whether the challenger is made as the champion was: family, columns, window.
        looks: how often challengers were compared with this champion before.
        behaved: how the challenger did in the tests of hooks.py.
        served: the newest rows of the prediction log.
    """

    y: np.ndarray
    challenger: np.ndarray
    baselines: Mapping[str, np.ndarray]
    metric: Metric
    seed: int
    resamples: int = 2000
    champion: np.ndarray | None = None
    unasked: str = ""
    unseen_by_champion: np.ndarray = field(default_factory=lambda: np.array([], dtype=bool))
    history: tuple[Estimate, ...] = ()
    kind: Kind = field(default_factory=lambda: Binary("target", positive=True, labels=("no", "yes"), cost=Cost()))
    operates: Mapping[str, float] = field(default_factory=dict)
    operated: Mapping[str, float] = field(default_factory=dict)
    trusted: "Evidence | None" = None
    rehearsal: Rehearsed | None = None
    heard: np.ndarray | None = None
    decided: np.ndarray | None = None
    made: Made | None = None
    envelope: Envelope = field(default_factory=Envelope)
    features: pd.DataFrame | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    times: np.ndarray | None = None
    slices: Slices = field(default_factory=Slices)
    floor: float | None = None
    is_refresh: bool = False
    looks: int = 0
    behaved: tuple[Behaved, ...] = ()
    served: Served | None = None

    @property
    def alone(self) -> str:
        """Why there is no champion to compare with, where there are no answers of one."""
        unasked = f"the champion cannot be asked: {self.unasked}"
        return unasked if self.unasked else "there is no champion yet; the naive baselines decide"

    def gain_over(self, other: np.ndarray, rows: np.ndarray | None = None, metric: Metric | None = None) -> Uncertain:
        """How much better the challenger is than `other`, on all rows or those given."""
        chosen = np.ones(len(self.y), dtype=bool) if rows is None else rows
        return compared(
            metric or self.metric,
            self.y[chosen],
            self.challenger[chosen],
            other[chosen],
            resamples=self.resamples,
            seed=self.seed,
        )

    def groups(self, slices: Slices) -> Iterator[tuple[str, np.ndarray]]:
        """Name and places of every group of the holdout's rows that has as many rows as a group needs."""
        return groups(self.features, self.types, slices)


def groups(features: pd.DataFrame | None, types: Mapping[str, str], slices: Slices) -> Iterator[tuple[str, np.ndarray]]:
    """Name and places of every group of rows, by the columns that are there, that has as many rows as a group needs."""
    if features is None:
        return
    there = slices.model_copy(update={"columns": tuple(name for name in slices.columns if name in features)})
    for column, values, at in there.groups(features, dict(types)):
        if len(at) >= slices.fewest:
            yield f"{column} {values}", at
