"""Examinations: how good a recipe is on rows right after those it learned from, fold by fold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from tasks.ml import models, threads
from tasks.ml.calibrate import at_best
from tasks.ml.contract import Column
from tasks.ml.features import matrix
from tasks.ml.kinds import Kind
from tasks.ml.metrics import Metric, resampled
from tasks.ml.recipe import Learned, Recipe

RESAMPLES = 60  # of the judged rows, the same for every recipe, so that two recipes are compared in pairs
RESAMPLED = 20_000  # at most so many judged rows are resampled
RANKED_BY = 4_000  # judged rows that tell how telling a column is


@dataclass(frozen=True)
class Marks:
    """How a recipe did.

    Attributes:
        loss: mean over the folds of the metric, turned so that less is better.
        spread: the same on resampled rows, paired between recipes: (RESAMPLES,).
    """

    loss: float
    spread: tuple[float, ...]

    def noise(self, other: "Marks") -> float:
        """Standard error of the difference of two losses on the same rows."""
        return float(np.nanstd(np.array(self.spread) - np.array(other.spread)))


@dataclass(frozen=True)
class Examination:
    """The folds of a search. Fold by fold a recipe learns from the first rows and answers for the second.

    Attributes:
        columns: the feature columns by name, in order.
        folds: rows to learn from, then features and truth of the rows to answer for.
        workers: how many processes examine at once; they share the cores.
    """

    kind: Kind
    metric: Metric
    columns: dict[str, Column]
    folds: tuple[tuple[Learned, pd.DataFrame, np.ndarray], ...]
    seed: int
    workers: int = 1

    @classmethod
    def of(
        cls, folds: Sequence[tuple[pd.DataFrame, pd.DataFrame]], kind: Kind, metric: Metric, columns: dict[str, Column], time: str,
        *, seed: int, workers: int = 1,
    ) -> Self:  # fmt: skip
        """The examination by these pairs of (rows to learn from, rows to answer for); a pair that teaches nothing is left out."""
        types = {name: column.type for name, column in columns.items()}
        made = []
        for before, after in folds:
            learned, truth = Learned.of(before, kind, columns, time), kind.truth(after)
            if kind.teaches(learned.truth) and kind.teaches(truth):
                made.append((learned, *kind.asked(matrix(after, types), truth, seed)))
        return cls(kind, metric, columns, tuple(made), seed, workers)

    def mark(self, recipe: Recipe, report: Callable[[int, float], None]) -> Marks | None:
        """The marks of a recipe; None when no fold could be judged, or an answer is no number: the easier folds alone would flatter it.

        Args:
            recipe: what to examine.
            report: is told the number of the fold and the mean loss so far, and may raise to end the examination.
        """
        losses, spreads = list[float](), list[np.ndarray]()
        for step, (learned, features, truth) in enumerate(self.folds):
            model = recipe.fit(self.kind, self.columns, learned, seed=self.seed, workers=self.workers)
            with threads.limited(threads.share(self.workers)):
                answers = self.kind.answers(model, features[list(recipe.columns(self.columns))])
            if not np.isfinite(answers).all():
                return None
            if self.metric.is_proper:  # a model is calibrated after it was chosen
                answers = at_best(self.kind, answers, truth)
            loss = -float(self.metric.gain(self.metric.of(truth, answers), 0.0))
            if np.isnan(loss):  # of these rows the metric is none, whoever answers
                continue
            losses.append(loss)
            spreads.append(self._spread(truth, answers))
            report(step, float(np.mean(losses)))
        if not losses:
            return None
        return Marks(float(np.mean(losses)), tuple(np.mean(spreads, axis=0).tolist()))

    def ranked(self) -> tuple[str, ...]:
        """The feature columns, the most telling first: by how much worse the answers get when a column's values change places.

        Breiman 2001, Random Forests, section 10; of the kind's first family with its defaults, on the first fold.
        """
        recipe = Recipe.usual(models.families_of(self.kind.name)[0])
        learned, features, truth = self.folds[0]
        model = recipe.fit(self.kind, self.columns, learned, seed=self.seed, workers=self.workers)
        random = np.random.default_rng(self.seed)
        some = np.sort(random.permutation(len(features))[:RANKED_BY])
        features, truth = features.iloc[some].reset_index(drop=True), truth[some]
        mixed = random.permutation(len(features))
        with threads.limited(threads.share(self.workers)):
            whole = self.metric.of(truth, self.kind.answers(model, features))
            lost = {
                name: float(self.metric.gain(whole, self.metric.of(truth, self.kind.answers(model, changed))))
                for name, changed in (
                    (name, features.assign(**{name: features[name].iloc[mixed].to_numpy()})) for name in features
                )
            }
        return tuple(sorted(lost, key=lambda name: -np.nan_to_num(lost[name])))

    def _spread(self, truth: np.ndarray, answers: np.ndarray) -> np.ndarray:
        some = np.random.default_rng(self.seed).permutation(len(truth))[:RESAMPLED]
        values = resampled(self.metric, truth[some], answers[some], RESAMPLES, self.seed)
        return -self.metric.gain(values, 0.0)


def plainest(candidates: Sequence[tuple[Recipe, Marks]]) -> int:
    """The place of the recipe to take: of those that are not surely worse than the best, the plainest.

    Worse is a loss that is greater by more than one standard error of the difference on the same rows (the rule of
    Breiman et al., Classification and Regression Trees, 1984, 3.4.3, for paired differences).
    """
    best = min(range(len(candidates)), key=lambda at: candidates[at][1].loss)
    marks = candidates[best][1]
    near = [
        at for at, (_, other) in enumerate(candidates) if at == best or other.loss - marks.loss <= other.noise(marks)
    ]
    return min(near, key=lambda at: (candidates[at][0].plainness, candidates[at][1].loss))


def pooled(pairs: Sequence[tuple[Marks, Marks]]) -> float:
    """By how much the first of a pair loses more, over pairs on different rows: the mean weighed by the inverse of each one's variance.

    A pair without noise (both answered alike, or one row) decides by itself.
    """
    found = [(one.loss - other.loss, one.noise(other)) for one, other in pairs]
    sure = [difference for difference, noise in found if noise == 0 and difference]
    if sure:
        return float(np.mean(sure))
    weights = [1 / noise**2 if noise > 0 else 0.0 for _, noise in found]
    return float(np.average([difference for difference, _ in found], weights=weights)) if any(weights) else 0.0
