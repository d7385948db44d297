"""Explanations: which columns a model relies on for its answers to rows that it has not learned from."""

from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel

from tasks.ml.kinds import Kind
from tasks.ml.metrics import Estimate, Metric, resampled, summary

ROWS = 4_000  # at most so many rows are asked about
REPEATS = 3  # times that a column's values are dealt out anew
ASKED = 300_000  # answers in all, about; with very many columns there are fewer rows
FEWEST = 500  # rows that are asked about, however many columns there are
RESAMPLES = 60  # of the rows, for the interval


class Reliance(BaseModel, frozen=True):
    """How much worse the metric gets when a column says nothing any more; more is more important, below 0 is noise."""

    column: str
    loss: Estimate

    @property
    def is_sure(self) -> bool:
        """Whether the loss is above 0 with its whole interval."""
        return bool(self.loss.low > 0)


class Importance(BaseModel, frozen=True):
    """What a model relies on, the most important column first.

    Attributes:
        metric: the label of what gets worse.
        rows: how many were asked about, drawn from `of`.
        repeats: how often each column's values were dealt out anew.
    """

    metric: str
    rows: int
    of: int
    repeats: int
    columns: tuple[Reliance, ...]

    @classmethod
    def of_model(
        cls, kind: Kind, metric: Metric, model: Any, features: pd.DataFrame, truth: np.ndarray, *, seed: int
    ) -> Self:
        """Permutation importance (Breiman 2001, Random Forests, section 10), of each raw column as a whole.

        A column's values change places between rows, before anything is made of them; the loss is how much worse the metric gets,
        in its own unit, as the mean over the repeats. Its interval holds 90 % of the losses over repeats and bootstrap samples
        of the rows, paired. Columns that say the same cover for each other: each may look unimportant beside the other.

        Args:
            kind: the problem.
            metric: what decides.
            model: fitted on other rows.
            features: the columns that the model reads, (n, columns).
            truth: what came true, (n,).
            seed: of the rows that are drawn, and of the dealing.
        """
        random = np.random.default_rng(seed)
        count = min(len(features), ROWS, max(FEWEST, ASKED // max(1, REPEATS * features.shape[1])))
        some = np.sort(random.permutation(len(features))[:count])
        asked, known = features.iloc[some].reset_index(drop=True), truth[some]
        orders = [random.permutation(count) for _ in range(REPEATS)]
        best = _scores(metric, known, kind.answers(model, asked), seed)
        found = []
        for name in features:
            said = _each(kind.answers(model, _dealt(asked, str(name), orders)))
            losses = metric.gain(best, np.stack([_scores(metric, known, answers, seed) for answers in said]))
            found.append(Reliance(column=str(name), loss=summary(float(losses[:, 0].mean()), losses[:, 1:].ravel())))
        ranked = sorted(found, key=lambda one: -np.nan_to_num(one.loss.value))
        return cls(metric=metric.label, rows=count, of=len(features), repeats=REPEATS, columns=tuple(ranked))

    @property
    def note(self) -> str:
        """How it was measured, in words."""
        drawn = f"{self.rows:,} rows drawn from {self.of:,}" if self.rows < self.of else f"all {self.rows:,} rows"
        return f"{drawn}, values dealt out anew {self.repeats} times"

    def table(self) -> dict[str, list[Any]]:
        """Its columns as a table; how it was measured stands in every row."""
        return {
            "column": [one.column for one in self.columns],
            "loss": [one.loss.value for one in self.columns],
            "low": [one.loss.low for one in self.columns],
            "high": [one.loss.high for one in self.columns],
            "metric": [self.metric] * len(self.columns),
            "measured on": [self.note] * len(self.columns),
        }


def _dealt(asked: pd.DataFrame, name: str, orders: list[np.ndarray]) -> pd.DataFrame:
    """The rows once an order, one under the other, with the column's values in that order: one question for all of them."""
    whole = pd.concat([asked] * len(orders), ignore_index=True)
    return whole.assign(**{name: asked[name].iloc[np.concatenate(orders)].array})


def _each(answers: np.ndarray) -> list[np.ndarray]:
    """The answers of each repeat by themselves."""
    return np.split(answers, REPEATS)


def _scores(metric: Metric, truth: np.ndarray, answers: np.ndarray, seed: int) -> np.ndarray:
    """The metric, then the same on resampled rows: (1 + RESAMPLES,)."""
    return np.r_[metric.of(truth, answers), resampled(metric, truth, answers, RESAMPLES, seed)]
