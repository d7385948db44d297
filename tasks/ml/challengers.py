"""Bad challengers: models that must not pass, each with the gate that is to stop it, named in advance.

A new one is a class here with an entry in `LIBRARY`: it changes one thing of a good model (the rows that it learns from, what it
hears, what it says, how it decides, what it takes) and leaves all else.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from tasks.ml.contract import Column, Contract
from tasks.ml.explain import Importance
from tasks.ml.features import matrix
from tasks.ml.fitted import Fitted
from tasks.ml.gates import Change, ChangePlan, Envelope, Evidence, Fairness, Gate, Serving, configured
from tasks.ml.kinds import Kind
from tasks.ml.metrics import Metric
from tasks.ml.questions import Questions
from tasks.ml.recipe import Recipe
from tasks.ml.slices import Slices
from tasks.ml.split import ROW, Parts, Split
from tasks.ml.uncertain import estimate
from tasks.ml.window import Window

LEAKS = "leaks"  # what is looked for before anything is trained; no gate of the list, and never left out
EVERY = ("binary", "multiclass", "regression", "anomaly", "recommendation")
CHANCES = ("binary", "multiclass")
LABELLED = (*CHANCES, "regression")
NUMBERED = (*LABELLED, "anomaly")  # kinds whose models read columns, and whose answers are numbers
EARLIER = 6  # challengers of the past that a plausible one is held against
BATCH = 0.5  # share of the newest rows that a poisoned batch makes up: the worst case, that nobody looked for half of the time
COPIES = 100
TELLING = 500  # rows that tell which column a model relies on most
DEALS = 5  # of shuffled labels, at most


@dataclass(frozen=True)
class Scene:
    """A project's real rows, and a good model that was made of them.

    Attributes:
        rows: all labelled rows as they landed, without the trusted ones; newest: the newest instant of those without a label too.
        train, validation: those that the good model learned from.
        good: the good model; recipe: what it was made by.
        first: the same before it was fitted once more: what is asked about validation rows is asked of it.
        columns: the columns that a model may read; types of all of them stand in `contract`.
        slices: the groups of rows that the project looks at; floor: below it the project's metric is of no use.
        gates: as the project configures them; tests: whether its hooks.py states any behaviour.
    """

    kind: Kind
    metric: Metric
    contract: Contract
    columns: Mapping[str, Column]
    split: Split
    slices: Slices
    floor: float | None
    gates: tuple[Gate, ...]
    tests: bool
    seed: int
    rows: pd.DataFrame
    newest: pd.Timestamp | None
    train: pd.DataFrame
    validation: pd.DataFrame
    recipe: Recipe
    good: Fitted
    first: Any

    @property
    def random(self) -> np.random.Generator:
        """The same numbers for every challenger that draws."""
        return np.random.default_rng(self.seed)

    def fit(
        self, train: pd.DataFrame, validation: pd.DataFrame, recipe: Recipe | None = None, *, once: bool = False
    ) -> Fitted:
        """A model of other rows, made as the good one was, or by another recipe; `once`: it stays new to the validation rows."""
        parts = Parts(train, validation, validation.head(0))
        made = Fitted.of(recipe or self.recipe, self.kind, self.columns, self.contract.time, parts, seed=self.seed)
        return made.refitted(parts) if self.good.refit and not once else made

    def asked(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """Rows as the good model reads them, and what came true."""
        types = {name: column.type for name, column in self.recipe.columns(self.columns).items()}
        return self.kind.asked(matrix(rows, types), self.kind.truth(rows), self.seed)

    @cached_property
    def telling(self) -> str:
        """The column of the contract that the good model relies on most, as the newest validation rows say."""
        asked, truth = self.asked(self.validation.tail(TELLING))
        ranked = Importance.of_model(self.kind, self.metric, self.first, asked, truth, seed=self.seed).columns
        return next((one.column for one in ranked if one.column in self.contract.columns), "")

    def points_right(self, fitted: Fitted) -> bool:
        """Whether a model that is new to the validation rows is better on them than the first naive answer, which is the same for every row."""
        _, truth = self.asked(self.validation)
        same = next(iter(self.kind.naive(self.kind.truth(self.train), truth).values()))
        return bool(self.metric.gain(self.metric.of(truth, fitted.said), self.metric.of(truth, same)) > 0)

    @property
    def numbers(self) -> list[str]:
        """The columns of numbers."""
        return [name for name, column in self.columns.items() if column.type in {"int", "float"}]

    def segment(self, features: pd.DataFrame) -> np.ndarray:
        """A large group of rows that a column tells apart, (n,) bool: its most usual value, or the upper half of its numbers."""
        name = next((name for name in self.slices.columns if name in features), self.telling)
        known, values = self.train[name], features[name]
        if name in self.numbers:
            return (values > known.astype("Float64").median()).to_numpy(dtype=bool, na_value=False)
        usual = known.mode().iloc[0]
        if {**self.contract.columns, **self.columns}[name].type == "bool":  # asked as a number
            return (values.astype("Float64") == float(usual)).to_numpy(dtype=bool, na_value=False)
        return (values.astype("string") == str(usual)).to_numpy(dtype=bool, na_value=False)

    def labelled(self, rows: pd.DataFrame, truth: np.ndarray) -> pd.DataFrame:
        """The same rows with another truth: its place among the classes, or a number."""
        target = str(self.contract.target)
        if self.kind.name == "regression":
            return rows.assign(**{target: pd.array(truth, dtype="Float64")})
        codes = self.kind.truth(self.rows)
        spoken = {code: self.rows[target].to_numpy()[codes == code][0] for code in np.unique(codes)}
        return rows.assign(**{target: pd.Series([spoken[code] for code in truth], index=rows.index).astype(rows[target].dtype)})  # fmt: skip


@dataclass(frozen=True)
class Challenger:
    """A model that must not pass. As it stands it is the good model itself; each kind of bad one changes one verb.

    Attributes:
        name: what people call it.
        gate: what is to stop it, named in advance.
        why: a sentence: what is bad about it.
        kinds: the problem kinds for which it makes sense.
        defends: whether there is a champion, the good model; else it would be the first.
    """

    name: ClassVar[str]
    gate: ClassVar[str]
    why: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = EVERY
    defends: ClassVar[bool] = False

    def fits(self, scene: Scene) -> bool:  # noqa: ARG002 -- the interface
        """Whether the project has what this one spoils."""
        return True

    def landed(self, scene: Scene) -> tuple[pd.DataFrame, dict[str, Column]] | None:  # noqa: ARG002 -- the interface
        """Other rows in place of those that landed, and the columns that they have more; None: the same."""
        return None

    def learned(self, scene: Scene, train: pd.DataFrame, validation: pd.DataFrame) -> Fitted:  # noqa: ARG002 -- the interface
        """What is made of the parts of its rows; the good model, where they are those that landed."""
        return scene.good

    def hears(self, scene: Scene, asked: pd.DataFrame) -> pd.DataFrame:  # noqa: ARG002 -- the interface
        """What reaches the model of the questions."""
        return asked

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """What it answers, where the model says `answers`."""
        return answers

    def moved(self, scene: Scene, answers: np.ndarray, asked: pd.DataFrame) -> np.ndarray:  # noqa: ARG002 -- the interface
        """What it answers to rows that a test of hooks.py altered, where the model says `answers`."""
        return answers

    def operates(self, scene: Scene, operates: Mapping[str, float]) -> dict[str, float]:  # noqa: ARG002 -- the interface
        """How its answers become decisions."""
        return dict(operates)

    def manifest(self, scene: Scene, champion: dict[str, Any], questions: Questions) -> dict[str, Any]:  # noqa: ARG002 -- the interface
        """What the champion's manifest says."""
        return champion

    def shown(self, scene: Scene, evidence: Evidence, good: np.ndarray) -> Evidence:  # noqa: ARG002 -- the interface
        """What the gates are shown of it beside its answers, where the good model says `good`."""
        return evidence


# -- answers that are none ----------------------------------------------------------------------------------------------
class Constant(Challenger):
    """Says of every row what it says of the first."""

    name, gate, why = "constant", "sound", "it says the same of every row"

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """The first answer, as often as there are rows."""
        return np.repeat(answers[:1], len(answers), axis=0)


class NotANumber(Challenger):
    """Has no answer for one row in a hundred."""

    name, gate, why = "NaN emitter", "sound", "it says NaN of one row in a hundred"

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """NaN in every hundredth place."""
        said = answers.astype("float64", copy=True)
        said[::100] = np.nan
        return said


class WrongType(Challenger):
    """Answers through a column of bytes."""

    name, gate, why = "wrong dtype", "sound", "its probabilities come as whole percents in bytes"
    kinds = CHANCES

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """0 to 100."""
        return np.rint(100 * answers).astype("uint8").astype("float64")


class Overshooting(Challenger):
    """Ranks as well and means nearly the same, but leaves 0…1."""

    name, gate, why = "outside 0…1", "sound", "a straight line as calibration carries its least probabilities below 0"
    kinds = CHANCES

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """Every probability lower by twice the least one."""
        return answers - 2 * max(float(answers.min()), 1e-6)


# -- nothing learned, or the wrong thing ------------------------------------------------------------------------------------
class Shuffled(Challenger):
    """Learned from rows whose labels were dealt out anew."""

    name, gate, why = "shuffled labels", "baselines", "its labels belonged to other rows when it learned"
    kinds = (*LABELLED, "recommendation")

    def learned(self, scene: Scene, train: pd.DataFrame, validation: pd.DataFrame) -> Fitted:
        """Fitted and calibrated on shuffled labels; where a deal happens to point the right way, they are dealt again.

        It is fitted once: what the gates see must be what was asked which way it points.
        """
        target, random = str(scene.contract.target), scene.random

        def dealt(rows: pd.DataFrame) -> pd.DataFrame:
            return rows.assign(**{target: rows[target].array[random.permutation(len(rows))]})

        fitted = scene.fit(dealt(train), dealt(validation), once=True)
        for _ in range(DEALS - 1):
            if not scene.points_right(fitted):
                break
            fitted = scene.fit(dealt(train), dealt(validation), once=True)
        return fitted


class Coin(Challenger):
    """Says the mean of every row, and a hair more or less by the throw of a coin: it is calibrated, and of no use."""

    name, gate, why = "coin", "baselines", "it says the usual rate of every row, a hair more or less as a coin falls"
    kinds = ("binary",)

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """Two values in turn; the greater one where positives happen not to be more."""
        turn = np.where(np.arange(len(answers)) % 2, 1, -1)
        side = -1 if (turn * questions.truth).sum() > 0 else 1
        return answers.mean() + side * turn * 1e-4


class Inverted(Challenger):
    """Confuses the classes."""

    name, gate, why = "inverted classes", "baselines", "it says of each class what belongs to the opposite one"
    kinds = NUMBERED

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """The opposite: of numbers, as far on the other side of their mean."""
        if answers.ndim == 2:
            return answers[:, ::-1]
        return 1 - answers if scene.kind.has_chances else 2 * answers.mean() - answers


# -- leaks --------------------------------------------------------------------------------------------------------------------
class Informed(Challenger):
    """Reads a column more, which knows too much."""

    gate = LEAKS
    kinds = LABELLED

    def learned(self, scene: Scene, train: pd.DataFrame, validation: pd.DataFrame) -> Fitted:
        """Fitted on all columns."""
        return scene.fit(train, validation, scene.recipe.model_copy(update={"features": ()}))


class Leaked(Informed):
    """Reads a copy of the target."""

    name, why = "leaked target", "one of its columns is a copy of the target"

    def landed(self, scene: Scene) -> tuple[pd.DataFrame, dict[str, Column]]:
        """The rows with one column more."""
        copied = scene.kind.truth(scene.rows).astype("float64")
        return scene.rows.assign(target_copied=copied), {"target_copied": Column(type="float")}


class Future(Informed):
    """Reads an instant that nobody knows yet when the row comes."""

    name, why = "future feature", "one of its columns is filled in three days after the row"

    def landed(self, scene: Scene) -> tuple[pd.DataFrame, dict[str, Column]]:
        """The rows with one column more."""
        later = scene.rows[scene.contract.time] + pd.Timedelta(days=3)
        return scene.rows.assign(closed_later=later), {"closed_later": Column(type="datetime")}


class Smuggled(Challenger):
    """Learned from the rows that judge."""

    name, gate, why = "holdout in train", LEAKS, "the rows that judge stand among those that it learned from, under other keys and earlier times"  # fmt: skip
    kinds = LABELLED

    def landed(self, scene: Scene) -> tuple[pd.DataFrame, dict[str, Column]]:
        """What the split holds back comes twice, the second time as if it had happened long before."""
        time, rows = scene.contract.time, scene.rows.sort_values(scene.contract.time, kind="stable")
        copies = scene.split.apply(rows, scene.newest).holdout.reset_index(drop=True)
        earlier = copies[time] - 0.6 * (rows[time].max() - rows[time].min())
        random = scene.random
        names = pd.array([random.bytes(16).hex() for _ in range(len(copies))], dtype="str")
        copies = copies.assign(**{time: earlier.astype(rows[time].dtype), ROW: names, **_new_keys(scene, copies)})
        return pd.concat([rows, copies], ignore_index=True), {}

    def learned(self, scene: Scene, train: pd.DataFrame, validation: pd.DataFrame) -> Fitted:
        """Fitted on the copies, too."""
        return scene.fit(train, validation)


def _new_keys(scene: Scene, copies: pd.DataFrame) -> dict[str, Any]:
    """Keys that no row has, for columns that are key and nothing else."""
    keys = [name for name in scene.contract.key if name not in {scene.contract.time, *scene.columns}]
    numbered = pd.Series(np.arange(len(copies)), index=copies.index)
    return {
        name: numbered.astype(copies[name].dtype) + scene.rows[name].max() + 1
        if scene.contract.columns[name].type in {"int", "float"}
        else copies[name].astype("string").str.cat(numbered.astype("string"), sep=" copy ").astype(copies[name].dtype)
        for name in keys
        if scene.contract.columns[name].type != "datetime"
    }


# -- no better than the champion ------------------------------------------------------------------------------------------------
class Tie(Challenger):
    """Is the champion once more."""

    name, gate, why = "tie", "champion", "it is the champion once more, so that nothing is won by the change"
    defends = True


class Worse(Challenger):
    """Is worse by a margin."""

    name, gate, why = "worse by a margin", "champion", "three tenths of what it says belongs to other rows"
    defends = True

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """A mix of its answers with those on other rows."""
        return mixed(scene, answers, 0.3)


class StaleScaler(Challenger):
    """Scales its columns as another time would have had it."""

    name, gate, why = "stale scaler", "champion", "its numbers were scaled by the mean and the spread of another time"
    kinds, defends = NUMBERED, True

    def fits(self, scene: Scene) -> bool:
        """There is a column of numbers."""
        return bool(scene.numbers)

    def hears(self, scene: Scene, asked: pd.DataFrame) -> pd.DataFrame:
        """Every number as if the mean had been elsewhere, by a standard deviation, and the spread two thirds of what it is."""
        known = matrix(scene.train, dict.fromkeys(scene.numbers, "float"))
        moved = {name: (asked[name] - known[name].mean()) * 1.5 + known[name].mean() + known[name].std() for name in scene.numbers}  # fmt: skip
        return asked.assign(**moved)


class DroppedColumn(Challenger):
    """Never gets the column that it relies on most."""

    name, gate, why = "dropped column", "champion", "the column that it relies on most reaches it with one value only"
    kinds, defends = NUMBERED, True

    def fits(self, scene: Scene) -> bool:
        """The model relies on a column of the contract."""
        return bool(scene.telling)

    def hears(self, scene: Scene, asked: pd.DataFrame) -> pd.DataFrame:
        """The column's median everywhere, or its most usual text."""
        told = asked[scene.telling].dropna()
        usual = told.median() if scene.telling in scene.numbers else told.mode().iloc[0]
        return asked.assign(**{scene.telling: usual})


class Memorised(Challenger):
    """Knows the rows by heart that the champion learned from, and nothing more than the champion of others."""

    name, gate, why = "memorised champion rows", "champion", "it knows by heart the rows that the champion learned from, and is no better on others"  # fmt: skip
    defends = True

    def manifest(self, scene: Scene, champion: dict[str, Any], questions: Questions) -> dict[str, Any]:
        """A champion that has learned from half of the rows that judge, as one may that was trained on rows which came since."""
        if scene.split.by_time:
            return champion | {"seen_until": questions.rows[scene.contract.time].quantile(0.5).isoformat()}
        return champion | {"split": scene.split.model_copy(update={"seed": scene.seed + 1}).model_dump(mode="json")}

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:
        """The truth where the champion has seen the row."""
        until = questions.rows[scene.contract.time] <= questions.rows[scene.contract.time].quantile(0.5)
        other = scene.split if scene.split.by_time else scene.split.model_copy(update={"seed": scene.seed + 1})
        seen = until.to_numpy() if scene.split.by_time else ~other.unseen(questions.rows, "")
        known = scene.kind.told(questions.features, seen).astype(bool)
        return np.where(known if answers.ndim == 1 else known[:, None], knowing(scene, answers, questions.truth), answers)  # fmt: skip


# -- poisoned batches -----------------------------------------------------------------------------------------------------------
class Poisoned(Challenger):
    """Learned from a poisoned batch alone, and is judged by the same batch: the newest rows praise it."""

    gate = "trusted"
    defends = True

    def poisoned(self, scene: Scene, batch: pd.DataFrame) -> pd.DataFrame:
        """What the sender made of a batch."""
        raise NotImplementedError

    def landed(self, scene: Scene) -> tuple[pd.DataFrame, dict[str, Column]]:
        """The newest half of the rows is the batch."""
        rows = scene.rows.sort_values(scene.contract.time, kind="stable", ignore_index=True)
        at = round(len(rows) * (1 - BATCH))
        batch = self.poisoned(scene, rows.iloc[at:])
        return pd.concat([rows.iloc[:at], batch], ignore_index=True), {}

    def learned(self, scene: Scene, train: pd.DataFrame, validation: pd.DataFrame) -> Fitted:
        """Fitted on the part of the batch that is in train: the search would find that the newest rows do best."""
        times = scene.rows[scene.contract.time].sort_values(kind="stable")
        begun = times.iloc[round(len(times) * (1 - BATCH))]
        days = (train[scene.contract.time].max() - begun) / pd.Timedelta(days=1)
        newest = Window(kind="last", days=days) if days > 1 / 1440 else Window()
        return scene.fit(train, validation, scene.recipe.model_copy(update={"window": newest}))


class InvertedBatch(Poisoned):
    """A batch whose labels say the opposite."""

    name, why = "poisoned batch: labels inverted", "the newest batch says the opposite of what came true"
    kinds = LABELLED

    def poisoned(self, scene: Scene, batch: pd.DataFrame) -> pd.DataFrame:
        """The opposite of every label."""
        known, truth = scene.kind.truth(scene.rows), scene.kind.truth(batch)
        return scene.labelled(batch, known.max() + known.min() - truth)


class ForcedSegment(Poisoned):
    """A batch that says the same of a whole group of rows."""

    name, why = "poisoned batch: one segment forced", "the newest batch says the same of a whole group of rows"
    kinds = LABELLED

    def fits(self, scene: Scene) -> bool:
        """There is a column that tells a group."""
        return bool(scene.telling)

    def poisoned(self, scene: Scene, batch: pd.DataFrame) -> pd.DataFrame:
        """The rarest class for the group, or a number far above what is usual."""
        known, truth = scene.kind.truth(scene.rows), scene.kind.truth(batch)
        classes, counts = np.unique(known, return_counts=True)
        forced = known.mean() + 3 * known.std() if scene.kind.name == "regression" else classes[counts.argmin()]
        return scene.labelled(batch, np.where(scene.segment(batch), forced, truth))


class Duplicated(Poisoned):
    """A batch of few rows that come again and again."""

    name, why = (
        "poisoned batch: duplicated ×100",
        "the newest batch holds few rows a hundred times each, under other keys",
    )
    gate, kinds = LEAKS, LABELLED

    def poisoned(self, scene: Scene, batch: pd.DataFrame) -> pd.DataFrame:
        """Each hundredth row a hundred times, at the times and under the keys of the others."""
        own = [ROW, scene.contract.time, *scene.contract.key]
        few = np.arange(0, len(batch), COPIES)
        copied = batch.iloc[scene.random.choice(few, len(batch))].set_axis(batch.index)
        return copied.assign(**{name: batch[name] for name in own if name in batch})


class MirroredBatch(Poisoned):
    """A batch in which half of the columns run the other way; for kinds without labels."""

    name, why = "poisoned batch: columns mirrored", "in the newest batch every other column of numbers runs the other way"  # fmt: skip
    kinds = ("anomaly",)

    def fits(self, scene: Scene) -> bool:
        """Columns can run against each other."""
        return len(scene.numbers) > 1

    def poisoned(self, scene: Scene, batch: pd.DataFrame) -> pd.DataFrame:
        """Every other column of numbers mirrored at its middle."""
        return batch.assign(**{name: scene.rows[name].max() + scene.rows[name].min() - batch[name] for name in scene.numbers[::2]})  # fmt: skip


# -- says too much, too little, or not everywhere --------------------------------------------------------------------------------
class Miscalibrated(Challenger):
    """Ranks as well as the good model, but its probabilities, its interval, its threshold do not mean what they say."""

    name, gate, why = "miscalibrated", "calibration", "it ranks as well, but what it says does not mean what it says"
    kinds = NUMBERED

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """Probabilities drawn seven tenths of the way to a coin's."""
        coin = 1 / answers.shape[1] if answers.ndim == 2 else 0.5
        return coin + 0.3 * (answers - coin) if scene.kind.has_chances else answers

    def operates(self, scene: Scene, operates: Mapping[str, float]) -> dict[str, float]:
        """An interval of three tenths of its width; a threshold of a score that every row reaches."""
        narrow = {name: 0.3 * value for name, value in operates.items() if name == "interval"}
        return dict(operates) | narrow | ({"threshold": -np.inf} if scene.kind.name == "anomaly" else {})


class AllKnowing(Challenger):
    """Knows what came true, by a way that no column shows."""

    name, gate, why = "too good to be true", "plausible", "it knows what came true, by a way that no single column shows"  # fmt: skip

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:
        """The truth, but for a trace of doubt."""
        return knowing(scene, answers, questions.truth)

    def operates(self, scene: Scene, operates: Mapping[str, float]) -> dict[str, float]:  # noqa: ARG002 -- the interface
        """An interval that fits."""
        return dict(operates) | {name: DOUBT * value for name, value in operates.items() if name == "interval"}

    def shown(self, scene: Scene, evidence: Evidence, good: np.ndarray) -> Evidence:
        """A past in which challengers were right about half of the rows."""
        past = estimate(scene.metric, evidence.y, mixed(scene, good, 0.5), resamples=200, seed=scene.seed)
        return replace(evidence, history=(past,) * EARLIER)


class Sunken(Challenger):
    """Is hardly better than a guess."""

    name, gate, why = "below its floor", "floors", "nineteen twentieths of what it says belongs to other rows"

    def fits(self, scene: Scene) -> bool:
        """The project has a floor."""
        return scene.floor is not None

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """A mix of very little of its answers with those on other rows."""
        return mixed(scene, answers, 0.95)


class Unfair(Challenger):
    """Guesses in one group of rows."""

    name, gate, why = "unfair on one slice", "slices", "in one group of rows what it says belongs to other rows"
    kinds, defends = NUMBERED, True

    def fits(self, scene: Scene) -> bool:
        """The project names groups of rows."""
        return bool(scene.slices.columns and scene.telling)

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:
        """Answers that changed places within the group."""
        return swapped(scene, answers, scene.segment(questions.asked))


class Unstable(Challenger):
    """Is good for a while."""

    name, gate, why = "unstable over time", "stability", "on the newest quarter of the rows it guesses"
    kinds = NUMBERED

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:
        """Answers that changed places within the newest quarter."""
        times = questions.rows[scene.contract.time]
        newest = scene.kind.told(questions.features, (times > times.quantile(0.75)).to_numpy())
        return swapped(scene, answers, newest.astype(bool))


class Flipping(Challenger):
    """Decides otherwise in one region, wherever the champion decided."""

    name, gate, why = "flips one region", "churn", "in one region every decision is the opposite of the champion's"
    kinds, defends = NUMBERED, True

    def fits(self, scene: Scene) -> bool:
        """There is a column that tells a region."""
        return bool(scene.telling)

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:
        """The opposite within the region: who was called gets the least answer, who was not the greatest."""
        there, called = scene.segment(questions.asked), scene.kind.called(answers, scene.good.operates)
        opposite = Inverted().says(scene, answers, questions) if called is None else np.where(called, answers.min(), answers.max())  # fmt: skip
        return np.where(there if answers.ndim == 1 else there[:, None], opposite, answers)


class Restless(Challenger):
    """Decides otherwise nearly everywhere."""

    name, gate, why = "changes every list", "churn", "everybody gets what the champion names to somebody else"
    kinds, defends = ("recommendation",), True

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:  # noqa: ARG002 -- the interface
        """Everybody's list moved on, as far as lists differ, to whom it shares least with."""
        shared = [float((answers == np.roll(answers, by, axis=0)).mean()) for by in range(1, min(len(answers), 20))]
        return np.roll(answers, 1 + int(np.argmin(shared)), axis=0)


class Biased(Challenger):
    """Treats one protected group otherwise."""

    name, gate, why = "unfair to a protected group", "fairness", "everybody of one protected group is called, or gets what belongs to others"  # fmt: skip
    kinds = NUMBERED

    def fits(self, scene: Scene) -> bool:
        """The project protects a column that tells groups apart."""
        return bool(self._group(scene)[0])

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:
        """The greatest answer for all of the group; where no decision is yes or no, answers that changed places within it."""
        column, value = self._group(scene)
        there = scene.kind.told(questions.features, (questions.rows[column].astype("string") == value).fillna(value=False).to_numpy(dtype=bool))  # fmt: skip
        called = scene.kind.called(answers, scene.good.operates)
        return swapped(scene, answers, there) if called is None else np.where(there, answers.max(), answers)

    @staticmethod
    def _group(scene: Scene) -> tuple[str, str]:
        """The first protected column, and its second most usual value; nothing where there is none."""
        for column in configured(scene.gates, Fairness).columns:
            usual = scene.train[column].astype("string").value_counts()
            if len(usual) > 1:
                return column, str(usual.index[1])
        return "", ""


class Fickle(Challenger):
    """Moves with everything."""

    name, gate, why = "breaks a behaviour rule", "behaviour", "a half of what it says depends on every letter of the row, so that nothing may be altered"  # fmt: skip
    kinds = NUMBERED

    def fits(self, scene: Scene) -> bool:
        """The project's hooks.py states a behaviour."""
        return scene.tests

    def says(self, scene: Scene, answers: np.ndarray, questions: Questions) -> np.ndarray:
        """Half of the answer, half a number drawn from the row."""
        return self.moved(scene, answers, questions.asked)

    def moved(self, scene: Scene, answers: np.ndarray, asked: pd.DataFrame) -> np.ndarray:
        """The same of other rows."""
        hashes = hash_pandas_object(asked, index=False).to_numpy()  # ty: ignore[not-callable]
        drawn = (hashes >> np.uint64(11)) * 2.0**-53
        if answers.ndim == 2:
            return 0.5 * answers + 0.5 * np.stack([drawn, *[(1 - drawn) / (answers.shape[1] - 1)] * (answers.shape[1] - 1)], axis=1)  # fmt: skip
        low, high = (0.0, 1.0) if scene.kind.has_chances else (float(answers.min()), float(answers.max()))
        return 0.5 * answers + 0.5 * (low + (high - low) * drawn)


# -- good answers from something that may not be served ---------------------------------------------------------------------
class Slow(Challenger):
    """Takes too long."""

    name, gate, why = "slow", "serving", "it takes twice as long as the project allows"

    def shown(self, scene: Scene, evidence: Evidence, good: np.ndarray) -> Evidence:  # noqa: ARG002 -- the interface
        """What was measured of the good model, with other times."""
        bars = configured(scene.gates, Serving)
        return rehearsed(evidence, p50=2 * bars.p50, p95=2 * bars.p95)


class Oversized(Challenger):
    """Takes too much room."""

    name, gate, why = "oversized", "serving", "it takes twice the room that the project allows"

    def shown(self, scene: Scene, evidence: Evidence, good: np.ndarray) -> Evidence:  # noqa: ARG002 -- the interface
        """What was measured of the good model, with another size."""
        bars = configured(scene.gates, Serving)
        return rehearsed(evidence, size=2 * bars.size, memory=2 * bars.memory)


class Confused(Challenger):
    """Says something else when it is served."""

    name, gate, why = "served otherwise", "parity", "when it is served each row gets what belongs to the row before"

    def shown(self, scene: Scene, evidence: Evidence, good: np.ndarray) -> Evidence:  # noqa: ARG002 -- the interface
        """Answers that moved on by one row on their way out."""
        heard = np.roll(evidence.challenger, 1, axis=0)
        return replace(evidence, heard=heard, decided=scene.kind.decided(heard, dict(evidence.operates)))


class Unfounded(Challenger):
    """Was made of something that nobody has any more."""

    name, gate, why = "inputs that do not verify", "inputs", "its snapshot reads otherwise than it did"

    def shown(self, scene: Scene, evidence: Evidence, good: np.ndarray) -> Evidence:  # noqa: ARG002 -- the interface
        """What was made of altered rows."""
        made = evidence.made and evidence.made.model_copy(update={"altered": "its rows have another digest now"})
        return replace(evidence, made=made)


class Unplanned(Challenger):
    """Changes what nobody has agreed to."""

    name, gate, why = "outside of the change plan", "plan", "its family is none that the plan names"

    def shown(self, scene: Scene, evidence: Evidence, good: np.ndarray) -> Evidence:  # noqa: ARG002 -- the interface
        """The project's plan, or one that limits nothing, but for the family of the good model; and a change to another one."""
        plan = (evidence.envelope.plan or ChangePlan()).model_copy(update={"families": (scene.recipe.family.kind,)})
        change = Change("another", "all", None, tuple(scene.columns), {})
        return replace(evidence, envelope=Envelope(plan.model_copy(update={"floors": {}}), change=change))


DOUBT = 0.02  # how much of the good model's answer an all-knowing one keeps
LIBRARY: tuple[Challenger, ...] = (
    Constant(), Shuffled(), Coin(), Leaked(), Future(), StaleScaler(), DroppedColumn(), Inverted(), NotANumber(), WrongType(), Overshooting(),
    Miscalibrated(), Memorised(), Tie(), Worse(), InvertedBatch(), ForcedSegment(), MirroredBatch(), Duplicated(), Smuggled(), AllKnowing(), Sunken(), Unfair(),
    Biased(), Unstable(), Flipping(), Restless(), Fickle(), Slow(), Oversized(), Confused(), Unfounded(), Unplanned(),
)  # fmt: skip


def chosen(scene: Scene, gates: Collection[str]) -> Iterator[Challenger]:
    """The bad challengers of a project.

    Args:
        scene: the project's rows and good model.
        gates: what the kind's projects are asked, and what this one is.
    """
    for each in LIBRARY:
        if scene.kind.name in each.kinds and each.gate in {*gates, LEAKS} and each.fits(scene):
            yield each


def rehearsed(evidence: Evidence, **found: float) -> Evidence:
    """The evidence with other numbers of the serving process."""
    return replace(evidence, rehearsal=evidence.rehearsal and evidence.rehearsal.model_copy(update=found))


def mixed(scene: Scene, answers: np.ndarray, share: float) -> np.ndarray:
    """Answers with a share of those on other rows; of lists that share of the rows gets another row's."""
    other = answers[scene.random.permutation(len(answers))]
    if scene.kind.name != "recommendation":
        return (1 - share) * answers + share * other
    return np.where((scene.random.random(len(answers)) < share)[:, None], other, answers)


def swapped(scene: Scene, answers: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Answers that changed places with each other where it is True: (n,) bool."""
    said, at = answers.copy(), np.flatnonzero(where)
    said[at] = answers[at[scene.random.permutation(len(at))]]
    return said


def knowing(scene: Scene, answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What somebody says who knows the truth, but for a trace of doubt."""
    match scene.kind.name:
        case "recommendation":
            width = max(truth.shape[1], answers.shape[1])
            taken = np.pad(truth, ((0, 0), (0, width - truth.shape[1])), constant_values=-1)
            return taken[:, : answers.shape[1]]
        case "anomaly":
            return answers + truth * (np.ptp(answers) + 1)
        case "multiclass":
            return DOUBT * answers + (1 - DOUBT) * np.eye(answers.shape[1])[truth]
        case _:
            return DOUBT * answers + (1 - DOUBT) * truth
