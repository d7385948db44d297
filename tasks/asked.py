"""Asked: a released version with what watches compare it with; asked about rows that it answered."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.evaluate import Bundle
from tasks.ml import threads
from tasks.ml.identity import digest
from tasks.ml.judging import judging
from tasks.ml.metrics import Metric
from tasks.ml.split import Split
from tasks.ml.watching import estimate, older
from tasks.ml.watching.calibration import calibrated_apart
from tasks.ml.watching.domain import sampled
from tasks.ml.watching.measures import Reference, measures
from tasks.ml.watching.older import held, sort
from tasks.ml.watching.realised import Served
from tasks.ml.watching.reference import UNJUDGED, Sketch, daily
from tasks.stores import footprints
from tasks.stores.journal import Release
from tasks.stores.lake import Lake, parts, snapshot_named
from tasks.stores.observed import Observed, instants
from tasks.stores.references import Snapshot
from tasks.stores.remembered import Learned, Remembered

LOOKED_BACK = (
    260  # windows of its rows that say what is usual: a row that claims to be of another century makes no more
)


@dataclass(frozen=True)
class Answered:
    """Rows that were observed, and what a version says of them.

    Attributes:
        seen: (n,) the rows.
        features: (n,) of them, as the version reads them.
        said: (n,) or (n, classes) its answers, as the project's kind gives them; None where there are none to a row.
    """

    seen: Observed
    features: pd.DataFrame
    said: np.ndarray | None

    def __len__(self) -> int:
        """How many rows."""
        return len(self.seen)

    @property
    def at(self) -> np.ndarray:
        """(n,) datetime64[us], UTC: when they were asked for."""
        return self.seen.at

    def where(self, chosen: np.ndarray) -> "Answered":
        """Some of them: (n,) bool."""
        return Answered(
            self.seen.where(chosen), self.features[chosen], None if self.said is None else self.said[chosen]
        )


class Asked:
    """One version that was or is champion."""

    def __init__(self, use: Project, settings: Settings, release: Release) -> None:
        self.use, self.release, self._settings = use, release, settings
        self._folder = settings.bundles(use.project) / str(release.version)
        self.bundle = Bundle.read(self._folder, release.digest)

    @cached_property
    def unasked(self) -> str:
        """Why it cannot be asked what the project asks now, or nothing; a column that only the newest rows lack is missing in them."""
        lake = Lake(self.use.project, self._settings.lake(self.use.project), self.use.contract)
        return self.bundle.unasked(self.use, pd.DataFrame(columns=lake.columns))

    @cached_property
    def split(self) -> Split:
        """How its rows were split."""
        return self.bundle.split(self.use)

    @cached_property
    def measures(self) -> dict[str, Metric]:
        """What can be measured of its answers."""
        return measures(self.use.task, self.bundle.operates)

    def unseen(self, seen: Observed) -> Observed:
        """Those rows that it surely has not learned from; of rows that were served it cannot have.

        Where the contract has no more the column that its rows were split by, none is sure.
        """
        if seen.source == "served" or not self.split.by_time or not len(seen):
            return seen
        return seen.where(self.bundle.unseen(self.use, seen.rows))

    @cached_property
    def types(self) -> dict[str, str]:
        """The columns that a server is asked with now, of the types that they had when it was made; then those that it reads and the contract has no more."""
        return self.use.sent | self.bundle.types

    def features(self, rows: pd.DataFrame) -> pd.DataFrame:
        """These columns as it learned to read them; what the rows have not is missing."""
        return older.features(rows, self.types)

    def says(self, features: pd.DataFrame) -> np.ndarray | None:
        """Its answers to rows, as `features` gives them; None of none, and where an answer is to more than one row, as a list of items is."""
        return self.bundle.answers(self.use, features) if len(features) and not self._of_users else None

    def about(self, seen: Observed) -> "Answered":
        """Rows with what it says of them; ask once."""
        features = self.features(seen.rows)
        return Answered(seen, features, self.says(features))

    def served(self, rows: "Answered") -> Served:
        """What it says of rows and what came true of them, as the project's kind puts questions; what is not known is -1, of numbers NaN."""
        kind, seen, said = self.use.task, rows.seen, rows.said
        known = self.use.labelled(seen.rows).to_numpy()
        truth = np.full(len(seen), np.nan if self.use.kind == "regression" else -1, dtype=object if self._of_users else "float64")  # fmt: skip
        truth[known] = kind.truth(seen.rows[known])
        at = seen.at
        if said is None:
            asked, truth = kind.asked(rows.features, truth, self.use.search.seed)
            at = kind.told(rows.features, seen.at.astype("int64")).astype("datetime64[us]")
            said = self.bundle.answers(self.use, asked)
        return Served(at, np.full(len(at), str(self.release.version), dtype=object), said, truth)

    @property
    def _of_users(self) -> bool:
        """Whether an answer is a list of items for a user."""
        return self.use.kind == "recommendation"

    # -- what it is compared with -------------------------------------------------------------------------------------
    @cached_property
    def remembered(self) -> tuple[Learned, pd.DataFrame]:
        """What the rows that it was made of look like, and some of them; made of its snapshot when it is asked for the first time."""
        key = digest([self.release.digest, self.use.watch.drift.model_dump(mode="json"), self.use.sent])
        kept = Remembered.of(self._settings, self.use.project, self.release.version, key)
        found = kept.read()
        if found is None:
            found = self._learned()
            kept.write(*found)
        return found

    @property
    def reference(self) -> Reference:
        """The project's metric on the holdout, which it was released by; how far it spreads there by itself."""
        release, known = self.release, getattr(self.remembered[0].estimator, "known", {}).get(self.use.metric)
        rare, spread = (known.rare, known.spread) if known else (0, 0.0)
        return Reference(value=release.value, low=release.low, high=release.high, rare=rare, spread=spread)

    def _learned(self) -> tuple[Learned, pd.DataFrame]:
        """What rows look like from those that it was made of; what it says, and how well, from those that judged it.

        To what it has learned from its answers are surer than they will be. The holdout has taught nobody, and the answers to it are those
        that it was released for. The seal is broken after the release, and no model is chosen or fitted by what is learned here.
        """
        whole, holdout = self._parts()
        seed, plan = self.use.search.seed, self.use.watch.drift
        features, judged = self.features(whole), self.features(holdout)
        at, then = (instants(rows[self.use.contract.time]) for rows in (whole, holdout))
        said, truth = self.says(judged), self.use.task.truth(holdout)
        fixed, answered = Sketch.of(features, None, self._comparable(whole)), Sketch.of(judged[[]], said)
        recent = at > at.max() - np.timedelta64(LOOKED_BACK * plan.days, "D")
        some = [
            sampled(week, plan.sample, seed)
            for week in _windows(features.loc[recent, [*fixed.features]], at[recent], plan.days)
            if len(week) >= plan.fewest
        ]
        history = daily(fixed, features[recent], at[recent])
        theirs = daily(answered, judged[[]], then, said)
        learned = Learned(
            fixed=fixed.model_copy(update={"predictions": answered.predictions}),
            thresholds=calibrated_apart(
                fixed, history, answered, theirs, plan, some, seed=seed, threads=threads.share(1)
            ),
            estimator=estimate.learned(
                self.use.task, self.measures, truth, np.empty(0) if said is None else said, judged, seed=seed
            ),
        )
        return learned, sampled(features, plan.sample, seed).reset_index(drop=True)

    def _comparable(self, rows: pd.DataFrame) -> dict[str, str]:
        """The columns that hold now what they held in the rows that it was made of, with their types."""
        were = {name: held(rows[name]) for name in self.use.sent if name in rows and rows[name].notna().any()}
        return {
            name: kind
            for name, kind in self.use.sent.items()
            if sort(self.types[name]) == sort(kind) and were.get(name) in {sort(kind), None}
        }

    @property
    def not_compared(self) -> dict[str, str]:
        """Columns that hold something else now than in the rows that it was made of, and what; what it says, where no row is left to ask."""
        judged = (name for name, kind in self.use.sent.items() if kind not in UNJUDGED)
        version, fixed = self.release.version, self.remembered[0].fixed
        lost = not (fixed.predictions or self._of_users)
        return {
            name: f"{self.use.sent[name]} now, {self._was(name)} in what version {version} learned from" for name in judged if name not in fixed.features
        } | ({"its predictions": f"no row is left that version {version} was judged by"} if lost else {})  # fmt: skip

    def _was(self, name: str) -> str:
        was = self.types[name]
        return was if sort(was) != sort(self.use.sent[name]) else "something else"

    def _parts(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows of its snapshot that it was made of, and those that it was judged by; where rows were erased since, what is left of both.

        Raises:
            ArtifactError: nothing is left.
        """
        root, use = self._settings.lake(self.use.project), self.use.model_copy(update={"split": self.split})
        snapshot = self._snapshot(Lake(use.project, root, use.contract))
        if snapshot is None:
            raise ArtifactError(f"no row of {use.project} is left to compare with. Land some and train again.")
        split = parts(use, snapshot, root, self.bundle.manifest["seen_until"])
        if split.both.empty:
            raise ArtifactError(
                f"no row that version {self.release.version} of {use.project} learned from is left to compare with. Train again."
            )
        with judging():
            return split.both, split.holdout.rows

    def _snapshot(self, lake: Lake) -> Snapshot | None:
        """The snapshot that it was made of; where that cannot be read any more the newest one, as far as it reaches into that time."""
        try:
            return snapshot_named(lake, self.bundle.manifest["snapshot"])
        except ArtifactError:
            since, until = self._reach()
            return lake.snapshot(
                window=(since, (pd.Timestamp(until) + pd.Timedelta(microseconds=1)).isoformat() if until else "")
            )

    def _reach(self) -> tuple[str, str]:
        """The first and the last moment of the rows that it was made of and judged by; of a version without a footprint as far as it is known."""
        try:
            then = footprints.read(self._folder, self.release.digest).snapshot
        except ArtifactError:
            told = self.split.by_time and self.split.column == self.use.contract.time
            return "", self.bundle.manifest["seen_until"] if told else ""
        return then.window[0], then.until


def _windows(rows: pd.DataFrame, at: np.ndarray, days: int) -> list[pd.DataFrame]:
    """The rows of each window that ends with the newest one, oldest first; of windows without a row none."""
    place = (at.max() - at) // np.timedelta64(days, "D")
    order = np.argsort(-place, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(place[order])) + 1)
    return [rows.iloc[part] for part in parts]
