"""Whether retraining pays: a frozen model against two that are retrained every period, on a project's own batches.

`python -m tests.benchmarks.test_retraining PROJECT [--every month|quarter] [--first 2] [--last 2]` prints the table that stands in the
project's README. Every model is the project's boosting at its defaults, without a search, so that the rows it learned from are all that differs.
"""

import argparse
import datetime as dt
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml import models
from tasks.ml.features import matrix
from tasks.ml.metrics import METRICS, paired_gain
from tasks.ml.recipe import Learned, Recipe
from tests.samples import data_of

SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "average_precision": average_precision_score,
    "roc_auc": roc_auc_score,
}
FEWEST = 10  # rows of either class; with fewer, a period is neither judged nor learned from alone
FIRST_WEEKS = 3
PROJECTS = ["fraud", "milling", "thyroid", "flights"]


@dataclass(frozen=True)
class Period:
    """The good rows of one batch."""

    name: str
    features: pd.DataFrame
    truth: np.ndarray

    @property
    def is_telling(self) -> bool:
        """Whether both classes have rows enough."""
        return min(int(self.truth.sum()), int((1 - self.truth).sum())) >= FEWEST


def main() -> None:
    """Reads project and lengths from the command line and prints the table."""
    parser = argparse.ArgumentParser(description="Prints what retraining is worth, period by period.")
    parser.add_argument("project")
    parser.add_argument("--every", default="month", help="month or quarter (default: month)")
    parser.add_argument("--first", type=int, default=2, help="periods that the frozen model learned from (default: 2)")
    parser.add_argument("--last", type=int, default=2, help="periods that the window holds (default: 2)")
    asked = parser.parse_args()
    settings = Settings()
    with tempfile.TemporaryDirectory() as folder:
        files = written(asked.project, Path(folder), asked.every, settings)
        use = Project.named(asked.project, settings)
        if use.kind == "recommendation":
            if asked.first < FIRST_WEEKS:
                parser.error(
                    f"--first {asked.first}: a recommender wants {FIRST_WEEKS} periods at least, two of which validate and judge"
                )
            sys.stdout.write(recommended(refreshing(use, periods(use, files, settings), asked.first)))
            return
        table = retraining(use, periods(use, files, settings), asked.first, asked.last)
    sys.stdout.write(f"{use.metric}\n\n{as_markdown(table)}\n")


def written(project: str, folder: Path, every: str, settings: Settings) -> list[Path]:
    """The batches that the project's own data.py writes, in order of time."""
    return data_of(project, settings.projects).batches(folder, every)


def periods(use: Project, files: Sequence[Path], settings: Settings) -> list[Period]:
    """The batches as landing would leave them: derived by the project's hook, without the rows that its contract refuses."""
    derive = use.hook("derive", settings)
    found = []
    for file in files:
        raw = pd.read_csv(file, dtype=str, na_values=["NA", ""], keep_default_na=False)
        table = pa.Table.from_pandas(derive(raw) if derive else raw, preserve_index=False)
        checked = use.contract.check(table, dt.datetime.now(dt.UTC))
        rows = checked.rows.filter(pa.array(checked.broken == 0)).to_pandas()
        found.append(Period(file.stem, matrix(use.completed(rows), use.types), use.task.truth(rows)))
    return found


def retraining(use: Project, history: Sequence[Period], first: int, last: int) -> pd.DataFrame:
    """The project's metric in every period after the first ones, for three ways of keeping a model.

    Args:
        use: what the features are and which metric decides.
        history: all periods in order of time.
        first: the frozen model learned from so many periods, once.
        last: the windowed model learns from so many periods before the one that is judged.

    Returns:
        One row a period: its name, rows, share of positives, and the scores `frozen`, `all`, `window`, `gated`; NaN where nothing can
        be said. `gated` is this project: each period a challenger that learned all but the newest one, which judges it, takes the
        place of the champion where the gate says so.
    """
    frozen = champion = _fitted(use, history[:first])
    rows = []
    for place in range(first, len(history)):
        period = history[place]
        challenger = _fitted(use, history[: place - 1]) if place > first else None
        champion = challenger if _wins(use, challenger, champion, history[place - 1]) else champion
        ways = {
            "frozen": frozen,
            "all": _fitted(use, history[:place]),
            "window": _fitted(use, history[place - last : place]),
            "gated": champion,
        }
        rows.append(
            {"period": period.name, "rows": len(period.truth), "share": period.truth.mean()}
            | {name: _score(use, model, period) for name, model in ways.items()}
        )
    return pd.DataFrame(rows)


def _fitted(use: Project, learned: Sequence[Period]) -> Pipeline | None:
    """The project's boosting at its defaults on these periods; None when they say too little."""
    together = Period(
        "", pd.concat([period.features for period in learned]), np.concatenate([period.truth for period in learned])
    )
    if not together.is_telling:
        return None
    seen = models.observed(use.features, together.features)
    model = models.pipeline(models.HistGradientBoosting(), seen, use.search.seed, use.kind)
    return model.fit(together.features[list(seen)], use.task.taught(together.truth))


def _wins(use: Project, challenger: Pipeline | None, champion: Pipeline | None, newest: Period) -> bool:
    """Whether the challenger is surely better than the champion on a period that neither has seen, as the gate asks."""
    if challenger is None or champion is None or not newest.is_telling:
        return challenger is not None and champion is None
    both = (use.task.answers(model, newest.features[list(model.feature_names_in_)]) for model in (challenger, champion))
    return paired_gain(use.goal, newest.truth, *both, resamples=500, seed=use.search.seed).low > 0


def _score(use: Project, model: Pipeline | None, period: Period) -> float:
    if model is None or not period.is_telling:
        return math.nan
    return SCORES[use.metric](period.truth, use.task.answers(model, period.features[list(model.feature_names_in_)]))


def as_markdown(table: pd.DataFrame) -> str:
    """The table as README.md holds it, with the mean of the periods in which every way has a score."""
    told = table.dropna()
    lines = [
        "| period | rows | positives | frozen | retrained on all | retrained on the window | this project |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_line(name, f"{rows:,}", *scores) for name, rows, *scores in table.itertuples(index=False)]
    means = [told[name].mean() for name in ("share", "frozen", "all", "window", "gated")]
    return "\n".join([*lines, _line("**mean**", f"{told['rows'].sum():,}", *means)])


def _line(*cells: str | float) -> str:
    told = [cell if isinstance(cell, str) else "" if math.isnan(cell) else f"{cell:.3f}".lstrip("0") for cell in cells]
    return f"| {' | '.join(told)} |"


@pytest.mark.slow
@pytest.mark.parametrize("project", PROJECTS)
def test_retraining_pays(project: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that keeps learning, and the one that the gate lets through, are better on average than one that stopped after two periods."""
    settings = Settings()
    use = Project.named(project, settings)
    table = retraining(use, periods(use, written(project, tmp_path, "month", settings), settings), first=2, last=2)
    with capsys.disabled():
        sys.stdout.write(f"\n{project}: {use.metric}\n{as_markdown(table)}\n")
    told = table.dropna()
    assert len(told) > 1
    assert told["all"].mean() > told["frozen"].mean()
    assert told["gated"].mean() > told["frozen"].mean()


# -- recommendations: an answer is a list, and what is retrained is the popular way, the user's own, and this project's gate ----
WAYS = ("popular", "frozen", "refreshed", "this project")
LISTS = ("recall_at_k", "ndcg_at_k")
GROUP = 6  # periods of a line of the table


def refreshing(use: Project, history: Sequence[Period], first: int) -> pd.DataFrame:
    """Every metric in every period after the first ones, for what is popular and three ways of keeping a recommender.

    `this project` learns each period from all but the two newest, one of which validates and one judges, and takes the place of its
    champion when the gate says so; so it is older by two periods than what is refreshed without a question.

    Returns:
        One row a period, way and metric: period, users, way, metric, value; and whether the champion changed before it.
    """
    metric, kind, rows = METRICS[use.metric], use.task, []
    frozen = _recommender(use, history[:first])
    champion = _recommender(use, history[: first - 2])
    for place in range(first, len(history)):
        newest, judged = history[place - 1], history[place]
        challenger, changed = _recommender(use, history[: place - 2]), False
        asked, truth = kind.asked(newest.features, newest.truth, 0)
        both = (kind.answers(model, asked) for model in (challenger, champion))
        if place > first and paired_gain(metric, truth, *both, resamples=1000, seed=1).low > 0:
            champion, changed = challenger, True
        asked, truth = kind.asked(judged.features, judged.truth, 0)
        before = np.concatenate([period.truth for period in history[:place]])
        said = [kind.naive(before, truth)["popular"]]
        said += [kind.answers(model, asked) for model in (frozen, _recommender(use, history[:place]), champion)]
        rows += [
            {"period": judged.name, "users": len(truth), "way": way, "metric": name, "value": METRICS[name].of(truth, answers), "changed": changed}
            for way, answers in zip(WAYS, said, strict=True)
            for name in LISTS
        ]  # fmt: skip
    return pd.DataFrame(rows)


def _recommender(use: Project, learned: Sequence[Period]) -> Pipeline:
    """The project's first family at its defaults on these periods."""
    features = pd.concat([period.features for period in learned], ignore_index=True)
    truth = np.concatenate([period.truth for period in learned])
    times = pd.Series(pd.Timestamp(0, tz="UTC"), index=features.index)  # all rows count alike
    return Recipe.usual(use.search.families[0]).fit(use.task, use.features, Learned(features, truth, times), seed=1)


def recommended(table: pd.DataFrame) -> str:
    """The tables as README.md holds them, a metric each: means of some periods a line, and of all."""
    told = []
    for metric in LISTS:
        wide = table[table["metric"] == metric].pivot_table(index=["period", "users", "changed"], columns="way", values="value")  # fmt: skip
        wide = wide[list(WAYS)].reset_index().sort_values("period")
        groups = [wide.iloc[at : at + GROUP] for at in range(0, len(wide), GROUP)]
        lines = [f"{metric}\n", f"| periods | users | {' | '.join(WAYS)} | releases |", "|" + "---|" * (len(WAYS) + 3)]
        lines += [
            _line(name, f"{some['users'].mean():,.0f}", *some[list(WAYS)].mean(), str(int(some["changed"].sum())))
            for name, some in [*((f"{some['period'].iloc[0]} … {some['period'].iloc[-1]}", some) for some in groups), ("**mean**", wide)]
        ]  # fmt: skip
        told.append("\n".join(lines))
    return "\n\n".join(told) + "\n"


@pytest.mark.slow
def test_refreshing_a_recommender_pays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A basket that is refreshed every week, and the one that this project's gate lets through, name more of what is taken than a frozen one."""
    settings = Settings()
    use = Project.named("basket", settings)
    table = refreshing(use, periods(use, written("basket", tmp_path, "week", settings), settings), first=10)
    with capsys.disabled():
        sys.stdout.write(f"\n{recommended(table)}")
    mean = table[table["metric"] == use.metric].groupby("way")["value"].mean()
    assert mean["popular"] < mean["frozen"] < mean["this project"]
    assert mean["frozen"] < mean["refreshed"]


if __name__ == "__main__":
    main()
