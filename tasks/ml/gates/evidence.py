"""Evidence: what the gates look at. Steps gather it; no gate reads a file, a clock or a server."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tasks.ml.gates.envelope import Envelope
from tasks.ml.gates.facts import Made, Rehearsed
from tasks.ml.kinds import Binary, Kind
from tasks.ml.metrics import Cost, Estimate, Metric, paired_gain


@dataclass(frozen=True)
class Evidence:
    """What the gates look at: the same holdout rows, scored by everybody.

    Attributes:
        y: (n,) what came true on the holdout, as the problem's kind says it.
        challenger: answers, (n,) or (n, classes).
        baselines: naive answers by name.
        champion: answers of the champion, or None when there is none yet.
        unseen_by_champion: (n,) True where the champion was neither trained nor tuned on the row.
        history: the metric of the project's earlier challengers, each on the holdout of its time, oldest first.
        trusted: the same of the trusted reference set; None when nothing was set apart.
        rehearsal: how the real serving process bore itself with the challenger; None when it was not asked.
        heard: what it answered to the same questions, of the shape of `challenger`; None when it did not answer them all.
        decided: (n,) the labels that it gave out.
        made: what the challenger was made of; None when nobody looked.
        envelope: what may change without a person, and what changes.
    """

    y: np.ndarray
    challenger: np.ndarray
    baselines: Mapping[str, np.ndarray]
    metric: Metric
    seed: int
    resamples: int = 1000
    champion: np.ndarray | None = None
    unseen_by_champion: np.ndarray = field(default_factory=lambda: np.array([], dtype=bool))
    history: tuple[Estimate, ...] = ()
    kind: Kind = field(default_factory=lambda: Binary("target", positive=True, labels=("no", "yes"), cost=Cost()))
    operates: Mapping[str, float] = field(default_factory=dict)
    trusted: "Evidence | None" = None
    rehearsal: Rehearsed | None = None
    heard: np.ndarray | None = None
    decided: np.ndarray | None = None
    made: Made | None = None
    envelope: Envelope = field(default_factory=Envelope)

    def gain_over(self, other: np.ndarray, rows: np.ndarray | None = None, metric: Metric | None = None) -> Estimate:
        """How much better the challenger is than `other`, on all rows or those given."""
        chosen = np.ones(len(self.y), dtype=bool) if rows is None else rows
        return paired_gain(
            metric or self.metric,
            self.y[chosen],
            self.challenger[chosen],
            other[chosen],
            resamples=self.resamples,
            seed=self.seed,
        )
