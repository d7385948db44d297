"""Problem kinds: what the truth is, what a model answers, and what needs no learning. One class a kind, one interface.

Everything that depends on the kind of a problem asks here; nobody else asks `if kind == …`. A new kind is a class in `KINDS`, a
family that fits it in `models`, a metric in `metrics`, a panel in `pictures`: tests/ml/test_kinds.py runs over all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pandas as pd
from pandas.util import hash_pandas_object

from tasks.ml.metrics import EPSILON, Cost, between, calibration_error, calibration_table, confusion, hits
from tasks.ml.told import words
from tasks.ml.uncertain import wilson

Name = Literal["binary", "multiclass", "regression", "anomaly", "recommendation"]
FEWEST_OF_A_CLASS = 5
EVERY = (
    "sound", "baselines", "floors", "champion", "trusted", "calibration", "plausible", "slices", "fairness", "stability", "churn",
    "behaviour", "serving", "parity", "inputs", "plan",
)  # fmt: skip
COVERED = 0.9  # share of the rows that a regression's interval is meant to hold


SIMULATIONS = 2_000  # holdouts of a perfectly calibrated model that an error is compared with
SURE = NormalDist().inv_cdf(0.95)  # standard errors of a bound that is wrong one time in twenty


@dataclass(frozen=True)
class Off:
    """One way in which what is said is off from what came true.

    Attributes:
        what: `error`, the mean distance in groups, as a share; `bias`, the distance on the whole; `loss`, by how many nats the
            log loss is above the one that the probabilities promise.
        value: how far off; least: how far at least, of which one holdout in twenty of the same size says too much.
        reason: in words.
    """

    what: Literal["error", "bias", "loss"]
    value: float
    least: float
    reason: str


class Kind(Protocol):
    """What a problem kind knows.

    Attributes:
        name: as `project.yaml` says it.
        metric: the metric that decides when the project names none.
        gates: the gates that are asked when the project names none.
        has_chances: whether answers are probabilities.
        needs_labels: whether a row without an outcome must wait.
        has_moments: whether an answer is about one row, and so about one moment.
        is_number: whether an answer is one number, of which there can be more or less.
    """

    name: ClassVar[Name]
    metric: ClassVar[str]
    gates: ClassVar[tuple[str, ...]]
    has_chances: ClassVar[bool]
    needs_labels: ClassVar[bool]
    has_moments: ClassVar[bool]
    is_number: ClassVar[bool]

    def truth(self, rows: pd.DataFrame) -> np.ndarray:
        """What came true, as metrics want it: (n,)."""
        ...

    def meant(self, values: Sequence[Any]) -> pd.Series:
        """What was told of predictions, in people's labels or as data files say it, as the target's own values: (n,); None where it is none."""
        ...

    def described(self) -> dict[str, Any]:
        """What a server must know to speak of answers, as the manifest says it."""
        ...

    def taught(self, truth: np.ndarray) -> np.ndarray | None:
        """The same as estimators are fitted on; None where they learn without."""
        ...

    def answers(self, model: Any, features: pd.DataFrame) -> np.ndarray:
        """What a fitted model says of rows, as metrics want it: (n,) or (n, classes)."""
        ...

    def asked(self, features: pd.DataFrame, truth: np.ndarray, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
        """The rows that a model is judged on, and their truth; where nobody knows the truth, rows are planted."""
        ...

    def told(self, features: pd.DataFrame, values: np.ndarray) -> np.ndarray:
        """What is known of rows, (n,), for each row that is asked about: of several rows the least."""
        ...

    def naive(self, before: np.ndarray, after: np.ndarray, newest: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Answers that need no learning, by name.

        Args:
            before: (m,) the truth of the rows that are learned from.
            after: (n,) that of the judged ones.
            newest: (m + n,) of each of these rows the newest truth that was known when it came; None where they are in no order of time.
        """
        ...

    def unlearnable(self, truth: np.ndarray, part: str) -> str:
        """Why a part of that name with this truth cannot be used, or nothing."""
        ...

    def teaches(self, truth: np.ndarray) -> bool:
        """Whether a fold with this truth, which may be smaller than a part, tells good from bad."""
        ...

    def questions(self, truth: np.ndarray) -> dict[str, np.ndarray]:
        """Yes-or-no questions about the truth, (n,) of 0 and 1 each: whatever answers one by itself is a leak."""
        ...

    def unsound(self, answers: np.ndarray) -> str:
        """What is wrong with answers as such, or nothing."""
        ...

    def operate(self, truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:
        """How answers become decisions, from rows that the model has not learned from; it goes into the manifest."""
        ...

    def decided(self, answers: np.ndarray, operates: dict[str, float]) -> np.ndarray | None:
        """The labels that follow from answers: (n,); None where there is no label."""
        ...

    def heard(self, predictions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """What a serving process said of rows, in the form of `answers`."""
        ...

    def calibration(
        self, truth: np.ndarray, answers: np.ndarray, operates: Mapping[str, float], seed: int
    ) -> tuple[Off, ...]:
        """How far what is said of answers is from what came true; nothing where nothing is said."""
        ...

    def called(self, answers: np.ndarray, operates: Mapping[str, float]) -> np.ndarray | None:
        """Which rows are called positive, or odd: (n,) bool; None where no decision is yes or no."""
        ...

    def apart(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """How far two answers to the same row are apart: (n,), 0 where they are the same."""
        ...

    def loss(self, truth: np.ndarray, answers: np.ndarray, reach: float) -> np.ndarray | None:
        """What each answer loses, from 0 to 1: (n,); None where nobody ever knows the truth.

        Args:
            truth: (n,) what came true.
            answers: as `answers` gives them.
            reach: of numbers the distance that loses everything; one that is further off loses no more.
        """
        ...

    def foreseen(self, before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
        """How much more `after` is expected to lose than `before` if `before` says the chances: (n,); None without chances.

        It is never below 0, for nothing beats the true chances: it speaks against a change, and never for one.
        """
        ...

    def flipped(
        self, before: np.ndarray, after: np.ndarray, operated: Mapping[str, float], operates: Mapping[str, float]
    ) -> np.ndarray:
        """How much of each decision becomes another one: (n,) from 0 to 1; each answer decides as its own model operates."""
        ...

    def panels(self, truth: np.ndarray, answers: np.ndarray, operates: dict[str, float]) -> dict[str, Any]:
        """What is drawn of answers, by the name of the picture in `pictures.PANELS`: plain numbers."""
        ...


class Thresholded:
    """What kinds have in common whose decision is whether an answer reaches a threshold."""

    def called(self, answers: np.ndarray, operates: Mapping[str, float]) -> np.ndarray:
        """Those that reach the threshold."""
        return answers >= operates["threshold"]

    def flipped(
        self, before: np.ndarray, after: np.ndarray, operated: Mapping[str, float], operates: Mapping[str, float]
    ) -> np.ndarray:
        """1 where one reaches its threshold and the other does not."""
        return (self.called(before, operated) != self.called(after, operates)).astype(float)


@dataclass(frozen=True)
class Binary(Thresholded):
    """Two classes; an answer is the probability of the positive one: (n,).

    Attributes:
        own: the target's values, as far as they are known; are_all: whether it has no other, which then is a negative one.
    """

    target: str
    positive: str | bool | int
    labels: tuple[str, str]
    cost: Cost
    alerts: float | None = None
    own: tuple[str | bool | int, ...] = ()
    are_all: bool = False

    name: ClassVar[Name] = "binary"
    metric: ClassVar[str] = "roc_auc"
    gates: ClassVar[tuple[str, ...]] = EVERY
    has_chances: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    has_moments: ClassVar[bool] = True
    is_number: ClassVar[bool] = True

    def truth(self, rows: pd.DataFrame) -> np.ndarray:
        """1 where the target is the positive value, else 0: (n,) int8.

        >>> kind = Binary("y", True, ("no", "yes"), Cost())
        >>> kind.truth(pd.DataFrame({"y": [True, False]})).tolist()
        [1, 0]
        """
        target, positive = rows[self.target], self.positive
        same = target.astype("string") == positive if isinstance(positive, str) else target == positive
        return same.astype("int8").to_numpy()

    def meant(self, values: Sequence[Any]) -> pd.Series:
        """A label as the value that it stands for. Where not all values are known, whatever else is told is a negative one, as in rows.

        >>> kind = Binary("y", True, ("punctual", "late"), Cost(), own=(False, True), are_all=True)
        >>> kind.meant(["late", "punctual", True, "red"]).tolist()
        [True, False, True, None]
        """
        negative = next((value for value in self.own if value != self.positive), self.labels[0])
        known = {text: value for value in (*self.own, self.positive) for text in words(value)}
        known |= dict(zip(self.labels, (negative, self.positive), strict=True))
        return _each(values, lambda value: _first(known, words(value), None if self.are_all else value))

    def described(self) -> dict[str, Any]:
        """The classes as the model orders them, the positive one and its value, and the target's own values, which may be told, too."""
        own = [*(self.own or (self.positive,))]
        return {"classes": sorted(self.labels), "positive": self.labels[1], "positive value": self.positive, "own": own}

    def taught(self, truth: np.ndarray) -> np.ndarray:
        """The labels as a person calls them, so that a model's classes speak for themselves."""
        return np.array(self.labels, dtype=object)[truth].astype(str)

    def answers(self, model: Any, features: pd.DataFrame) -> np.ndarray:
        """The probability of the positive class."""
        return model.predict_proba(features)[:, model.classes_.tolist().index(self.labels[1])]

    def asked(self, features: pd.DataFrame, truth: np.ndarray, seed: int) -> tuple[pd.DataFrame, np.ndarray]:  # noqa: ARG002 -- the interface
        """The rows as they are."""
        return features, truth

    def told(self, features: pd.DataFrame, values: np.ndarray) -> np.ndarray:  # noqa: ARG002 -- the interface
        """The same."""
        return values

    def naive(self, before: np.ndarray, after: np.ndarray, newest: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`base rate` says the share of positives before for every row. `last label` says how often a positive comes while a
        label is the newest that is known; it looks at labels among the judged rows, too, which on some streams beats most learners.

        >>> Binary("y", True, ("no", "yes"), Cost()).naive(np.array([0, 0, 1, 1]), np.array([1, 0]))["base rate"].tolist()
        [0.5, 0.5]
        """  # noqa: D205
        said = {"base rate": np.full(len(after), before.mean())}
        if newest is None:
            return said
        then, now = newest[1 : len(before)], newest[len(before) :]
        follows = {label: _share(before[1:][then == label]) for label in (0, 1)}
        return said | {"last label": np.where(now == 1, follows[1], follows[0])}

    def unlearnable(self, truth: np.ndarray, part: str) -> str:
        """Either class may be too rare."""
        positive = int(truth.sum())
        rare = min(positive, len(truth) - positive)
        if rare >= FEWEST_OF_A_CLASS:
            return ""
        label = self.labels[int(positive <= len(truth) - positive)]
        return f"insufficient classes: the {part} part has {rare} rows of '{label}' in {self.target}, {FEWEST_OF_A_CLASS} are needed"

    def teaches(self, truth: np.ndarray) -> bool:
        """Both classes occur."""
        return len(np.unique(truth)) == 2

    def questions(self, truth: np.ndarray) -> dict[str, np.ndarray]:
        """The target itself."""
        return {self.target: truth}

    def unsound(self, answers: np.ndarray) -> str:
        """Probabilities are finite, between 0 and 1, and not all the same."""
        return _no_chances(answers) or _all_the_same(answers)

    def operate(self, truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:
        """The threshold of least cost, or the one that so many rows reach as the alert budget allows.

        Where too many answers tie at 1 it lies above 1, and no row is called positive.
        """
        if self.alerts is not None:
            return {"threshold": _reached_by(answers, self.alerts)}
        return {"threshold": self.cost.threshold(truth, answers)}

    def decided(self, answers: np.ndarray, operates: dict[str, float]) -> np.ndarray:
        """The positive label from the threshold on.

        >>> Binary("y", True, ("no", "yes"), Cost()).decided(np.array([0.2, 0.4]), {"threshold": 0.4}).tolist()
        ['no', 'yes']
        """
        return np.array(self.labels, dtype=object)[(answers >= operates["threshold"]).astype(int)]

    def heard(self, predictions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """The probability of the positive class."""
        return np.array([said["probabilities"][self.labels[1]] for said in predictions], dtype="float64")

    def calibration(
        self, truth: np.ndarray, answers: np.ndarray, operates: Mapping[str, float], seed: int
    ) -> tuple[Off, ...]:  # fmt: skip
        """Of the probability of the positive class, and of the alert budget where there is one.

        To call fewer than the budget allows is not off: where answers tie, no threshold keeps nearer to it.
        """
        said = f"mean prediction {answers.mean():.3f} against an observed rate of {truth.mean():.3f}"
        both = np.stack([1 - answers, answers], axis=1)
        found = _error(truth, answers, seed), _bias(answers - truth, said), _loss(truth, both)
        return found if self.alerts is None else (*found, _above_budget(self.called(answers, operates), self.alerts))

    def apart(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """In probability."""
        return np.abs(after - before)

    def loss(self, truth: np.ndarray, answers: np.ndarray, reach: float) -> np.ndarray:  # noqa: ARG002 -- the interface
        """The squared distance of probability and outcome (Brier 1950).

        >>> Binary("y", True, ("no", "yes"), Cost()).loss(np.array([1, 0]), np.array([0.5, 1.0]), 1.0).tolist()
        [0.25, 1.0]
        """
        return (answers - truth) ** 2

    def foreseen(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The expected Brier score of q under the chance p is p (1 - p) + (q - p)^2 (Brier 1950)."""
        return (after - before) ** 2

    def panels(self, truth: np.ndarray, answers: np.ndarray, operates: dict[str, float]) -> dict[str, Any]:
        """Calibration, and decisions at the threshold."""
        return {
            "calibration": calibration_table(truth, answers),
            "confusion": confusion(truth, answers, operates["threshold"]),
        }


@dataclass(frozen=True)
class Multiclass:
    """More than two classes; an answer is a probability of each: (n, classes), in the order of the labels' names."""

    target: str
    labels: tuple[str, ...]

    name: ClassVar[Name] = "multiclass"
    metric: ClassVar[str] = "log_loss"
    gates: ClassVar[tuple[str, ...]] = EVERY
    has_chances: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    has_moments: ClassVar[bool] = True
    is_number: ClassVar[bool] = False

    def truth(self, rows: pd.DataFrame) -> np.ndarray:
        """The place of the row's class among the labels, -1 for none of them.

        >>> Multiclass("y", ("a", "b", "c")).truth(pd.DataFrame({"y": ["c", "a", "?", None]})).tolist()
        [2, 0, -1, -1]
        """
        return pd.Index(self.labels, dtype="string").get_indexer(rows[self.target].astype("string")).astype("int64")

    def meant(self, values: Sequence[Any]) -> pd.Series:
        """The label.

        >>> Multiclass("y", ("1", "2", "3")).meant([1, 2.0, "3", "?", None]).tolist()
        ['1', '2', '3', None, None]
        """
        known = dict(zip(self.labels, self.labels, strict=True))
        return _each(values, lambda value: _first(known, words(value), None))

    def described(self) -> dict[str, Any]:
        """The classes as the model orders them."""
        return {"classes": list(self.labels)}

    def taught(self, truth: np.ndarray) -> np.ndarray:
        """The labels themselves."""
        return np.array(self.labels, dtype=object)[truth].astype(str)

    def answers(self, model: Any, features: pd.DataFrame) -> np.ndarray:
        """A probability of each label; 0 for one that the model has never met. What it says of a label that is none any more is left out."""
        said = model.predict_proba(features)
        whole = np.zeros((len(features), len(self.labels)))
        for place, label in enumerate(map(str, model.classes_)):
            if label in self.labels:
                whole[:, self.labels.index(label)] = said[:, place]
        return whole

    def asked(self, features: pd.DataFrame, truth: np.ndarray, seed: int) -> tuple[pd.DataFrame, np.ndarray]:  # noqa: ARG002 -- the interface
        """The rows as they are."""
        return features, truth

    def told(self, features: pd.DataFrame, values: np.ndarray) -> np.ndarray:  # noqa: ARG002 -- the interface
        """The same."""
        return values

    def naive(self, before: np.ndarray, after: np.ndarray, newest: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`class shares` says how often each came before; `last label` how often each came while a label was the newest that is known."""
        size = len(self.labels)
        shares = np.bincount(before, minlength=size) / max(len(before), 1)
        said = {"class shares": np.tile(shares, (len(after), 1))}
        if newest is None:
            return said
        pairs = np.zeros((size, size)) + 1 / size  # one row of each more, shared out: none is impossible
        np.add.at(pairs, (newest[1 : len(before)], before[1:]), 1)
        return said | {"last label": (pairs / pairs.sum(axis=1, keepdims=True))[newest[len(before) :]]}

    def unlearnable(self, truth: np.ndarray, part: str) -> str:
        """Every row's class has a label, and two classes at least have enough rows."""
        if unnamed := self.unnamed(truth, part):
            return unnamed
        counts = np.bincount(truth, minlength=len(self.labels))
        if (counts >= FEWEST_OF_A_CLASS).sum() >= 2:
            return ""
        told = ", ".join(f"{count} of '{label}'" for label, count in zip(self.labels, counts.tolist(), strict=True))
        return f"insufficient classes: the {part} part has {told} in {self.target}; two of them need {FEWEST_OF_A_CLASS} rows"

    def unnamed(self, truth: np.ndarray, part: str) -> str:
        """That rows of a part of that name have a class without a label, or nothing."""
        if not (strange := int((truth < 0).sum())):
            return ""
        return (
            f"unknown classes: {strange:,} rows of the {part} part have a {self.target} that is none of the labels "
            f"{', '.join(self.labels)}. Name it under `labels`, or erase those rows"
        )

    def teaches(self, truth: np.ndarray) -> bool:
        """Two classes at least occur."""
        return len(np.unique(truth)) > 1

    def questions(self, truth: np.ndarray) -> dict[str, np.ndarray]:
        """Is it this class?"""
        each = {f"{self.target} = {label}": (truth == n).astype("int8") for n, label in enumerate(self.labels)}
        return {name: answer for name, answer in each.items() if 0 < answer.sum() < len(answer)}

    def unsound(self, answers: np.ndarray) -> str:
        """Probabilities that add up to 1 and differ from row to row."""
        wrong = _no_chances(answers)
        if not wrong and (off := int((np.abs(answers.sum(axis=1) - 1) > 1e-6).sum())):
            wrong = f"{off} of {len(answers)} answers do not add up to 1"
        return wrong or _all_the_same(answers)

    def operate(self, truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:  # noqa: ARG002 -- the interface
        """The likeliest class is the decision."""
        return {}

    def decided(self, answers: np.ndarray, operates: dict[str, float]) -> np.ndarray:  # noqa: ARG002 -- the interface
        """The likeliest class, of equally likely ones the first."""
        return np.array(self.labels, dtype=object)[answers.argmax(axis=1)]

    def heard(self, predictions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """A probability of each label; 0 for one that the model has never met."""
        said = [[each["probabilities"].get(label, 0.0) for label in self.labels] for each in predictions]
        return np.array(said, dtype="float64").reshape(-1, len(self.labels))

    def calibration(
        self, truth: np.ndarray, answers: np.ndarray, operates: Mapping[str, float], seed: int  # noqa: ARG002 -- the interface
    ) -> tuple[Off, ...]:  # fmt: skip
        """Of the probability of the likeliest class (Guo et al. 2017); the bias is that of the class that is surely furthest off."""
        right, size = (answers.argmax(axis=1) == truth).astype(int), len(self.labels)
        z = NormalDist().inv_cdf(1 - 0.05 / size)  # of several classes one is off by chance more easily
        each = [
            _bias(
                answers[:, place] - (truth == place),
                f"mean prediction of '{label}' {answers[:, place].mean():.3f} against an observed rate of {(truth == place).mean():.3f}",
                z,
            )
            for place, label in enumerate(self.labels)
        ]
        bias = max(each, key=lambda off: off.least)
        return _error(right, answers.max(axis=1), seed), bias, _loss(truth, answers)

    def called(self, answers: np.ndarray, operates: Mapping[str, float]) -> None:
        """No decision here is yes or no."""

    def apart(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """In probability, of the class that moved most."""
        return np.abs(after - before).max(axis=1)

    def loss(self, truth: np.ndarray, answers: np.ndarray, reach: float) -> np.ndarray:  # noqa: ARG002 -- the interface
        """The squared distance of probabilities and outcome (Brier 1950), halved: it is 2 where a sure answer is wrong. NaN for another class.

        >>> Multiclass("y", ("a", "b")).loss(np.array([1, 0, -1]), np.array([[1.0, 0.0]] * 3), 1.0).tolist()
        [1.0, 0.0, nan]
        """
        squared = ((answers - np.eye(len(self.labels))[truth]) ** 2).sum(axis=1) / 2
        return np.where(truth < 0, np.nan, squared)

    def foreseen(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """As of two classes, summed over all, and halved."""
        return ((after - before) ** 2).sum(axis=1) / 2

    def flipped(
        self, before: np.ndarray, after: np.ndarray, operated: Mapping[str, float], operates: Mapping[str, float]  # noqa: ARG002 -- the interface
    ) -> np.ndarray:  # fmt: skip
        """1 where another class is the likeliest."""
        return (before.argmax(axis=1) != after.argmax(axis=1)).astype(float)

    def panels(self, truth: np.ndarray, answers: np.ndarray, operates: dict[str, float]) -> dict[str, Any]:  # noqa: ARG002 -- the interface
        """Calibration of the likeliest class, and the table of truth against decision."""
        decided = answers.argmax(axis=1)
        table = np.zeros((len(self.labels), len(self.labels)), dtype=int)
        np.add.at(table, (truth, decided), 1)
        return {
            "calibration": calibration_table((decided == truth).astype(int), answers.max(axis=1)),
            "classes": {"labels": list(self.labels), "table": table.tolist()},
        }


@dataclass(frozen=True)
class Regression:
    """A number; an answer is a number: (n,)."""

    target: str

    name: ClassVar[Name] = "regression"
    metric: ClassVar[str] = "mae"
    gates: ClassVar[tuple[str, ...]] = EVERY
    has_chances: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    has_moments: ClassVar[bool] = True
    is_number: ClassVar[bool] = True

    def truth(self, rows: pd.DataFrame) -> np.ndarray:
        """The target as a float."""
        return rows[self.target].astype("Float64").to_numpy(dtype="float64", na_value=np.nan)

    def meant(self, values: Sequence[Any]) -> pd.Series:
        """The number as a float."""
        return _each(values, lambda value: float(value) if isinstance(value, int | float) else None)

    def described(self) -> dict[str, Any]:
        """A number needs no explanation."""
        return {}

    def taught(self, truth: np.ndarray) -> np.ndarray:
        """The same."""
        return truth

    def answers(self, model: Any, features: pd.DataFrame) -> np.ndarray:
        """The prediction."""
        return np.asarray(model.predict(features), dtype="float64")

    def asked(self, features: pd.DataFrame, truth: np.ndarray, seed: int) -> tuple[pd.DataFrame, np.ndarray]:  # noqa: ARG002 -- the interface
        """The rows as they are."""
        return features, truth

    def told(self, features: pd.DataFrame, values: np.ndarray) -> np.ndarray:  # noqa: ARG002 -- the interface
        """The same."""
        return values

    def naive(self, before: np.ndarray, after: np.ndarray, newest: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`mean` and `median` of what came before, and the newest value that is known.

        >>> before, after, newest = np.array([1.0, 2.0, 6.0]), np.array([4.0, 5.0]), np.array([1.0, 1.0, 2.0, 6.0, 4.0])
        >>> Regression("y").naive(before, after, newest)["last value"].tolist()
        [6.0, 4.0]
        """
        last = {} if newest is None else {"last value": newest[len(before) :]}
        return {"mean": np.full(len(after), before.mean()), "median": np.full(len(after), np.median(before))} | last

    def unlearnable(self, truth: np.ndarray, part: str) -> str:
        """One value everywhere leaves nothing to learn."""
        return "" if np.ptp(truth) > 0 else f"nothing to learn: the {part} part has one {self.target} only"

    def teaches(self, truth: np.ndarray) -> bool:
        """There is more than one value."""
        return len(np.unique(truth)) > 1

    def questions(self, truth: np.ndarray) -> dict[str, np.ndarray]:
        """Is it above the middle, or at least there where nothing is above? A copy of the target answers that, in whatever unit."""
        middle = np.median(truth)
        above = (truth > middle if (truth > middle).any() else truth >= middle).astype("int8")
        return {f"{self.target} above its median": above} if 0 < above.sum() < len(above) else {}

    def unsound(self, answers: np.ndarray) -> str:
        """Finite numbers that are not all the same."""
        wrong = int((~np.isfinite(answers)).sum())
        return f"{wrong} of {len(answers)} answers are no number" if wrong else _all_the_same(answers)

    def operate(self, truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:
        """How far from an answer the truth is in nine rows of ten: the half-width of a split conformal interval.

        The rank is (n + 1)·0.9, rounded up, so that exchangeable rows are covered at least so often (Vovk et al. 2005;
        Lei et al. 2018, theorem 2). That is so of the model that has not learned from these rows. One that was fitted once more,
        with them, keeps the number, and no theorem says how often that covers: the gate `calibration` counts it on the holdout.
        """
        apart = np.sort(np.abs(truth - answers))
        rank = min(len(apart), int(np.ceil((len(apart) + 1) * COVERED)))
        return {"interval": float(apart[rank - 1])}

    def decided(self, answers: np.ndarray, operates: dict[str, float]) -> None:
        """The number is all."""

    def heard(self, predictions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """The number."""
        return np.array([said["prediction"] for said in predictions], dtype="float64")

    def calibration(
        self, truth: np.ndarray, answers: np.ndarray, operates: Mapping[str, float], seed: int  # noqa: ARG002 -- the interface
    ) -> tuple[Off, ...]:  # fmt: skip
        """Of the interval: how many rows it holds against how many it is meant to; the bias is in standard deviations."""
        held = np.abs(truth - answers) <= operates["interval"]
        errors = (answers - truth) / max(float(truth.std()), 1e-12)
        said = f"predictions are {errors.mean():+.3f} standard deviations off on the whole"
        covers = f"the interval holds {held.mean():.1%} of the rows, meant are {COVERED:.0%}"
        return _share_off(held, COVERED, covers), _bias(errors, said)

    def called(self, answers: np.ndarray, operates: Mapping[str, float]) -> None:
        """No decision here is yes or no."""

    def apart(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """In units of the target."""
        return np.abs(after - before)

    def loss(self, truth: np.ndarray, answers: np.ndarray, reach: float) -> np.ndarray:
        """The absolute error as a share of the reach, clipped.

        >>> Regression("y").loss(np.array([0.0, 0.0]), np.array([1.0, -9.0]), 4.0).tolist()
        [0.25, 1.0]
        """
        return np.minimum(np.abs(answers - truth) / reach, 1.0)

    def foreseen(self, before: np.ndarray, after: np.ndarray) -> None:
        """A number says no chances."""

    def flipped(
        self, before: np.ndarray, after: np.ndarray, operated: Mapping[str, float], operates: Mapping[str, float]  # noqa: ARG002 -- the interface
    ) -> np.ndarray:  # fmt: skip
        """1 where the new number lies outside of the interval that came with the old one: what was promised is not kept."""
        return (np.abs(after - before) > operated["interval"]).astype(float)

    def panels(self, truth: np.ndarray, answers: np.ndarray, operates: dict[str, float]) -> dict[str, Any]:
        """Prediction against truth in bins, and the errors."""
        order = np.argsort(answers, kind="stable")
        bins = [group for group in np.array_split(order, 10) if len(group)]
        errors = truth - answers
        counts, edges = np.histogram(np.clip(errors, *np.quantile(errors, [0.01, 0.99])), bins=30)
        return {
            "means": [
                {"predicted": float(answers[at].mean()), "observed": float(truth[at].mean()), "rows": float(len(at))}
                for at in bins
            ],
            "errors": {"counts": counts.tolist(), "edges": edges.tolist(), "interval": operates["interval"]},
        }


@dataclass(frozen=True)
class Anomaly(Thresholded):
    """No labels; an answer is a score that grows with oddness: (n,).

    Nobody knows the truth, so a model is judged by rows of which it is known that they are odd: each judged row is asked
    once as it is and once with half of its features taken from other rows, so that every value is usual and their
    combination is not. Telling the two apart is the density against the product of its margins (Hastie, Tibshirani and
    Friedman, The Elements of Statistical Learning, 2009, 14.2.4).
    """

    alerts: float = 0.01

    name: ClassVar[Name] = "anomaly"
    metric: ClassVar[str] = "roc_auc"
    gates: ClassVar[tuple[str, ...]] = EVERY
    has_chances: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    has_moments: ClassVar[bool] = True
    is_number: ClassVar[bool] = True

    def truth(self, rows: pd.DataFrame) -> np.ndarray:
        """Unknown, and taken as usual: 0 for every row."""
        return np.zeros(len(rows), dtype="int8")

    def meant(self, values: Sequence[Any]) -> pd.Series:
        """The same; nobody is judged by it."""
        return _each(values, lambda value: value)

    def described(self) -> dict[str, Any]:
        """A score needs no explanation."""
        return {}

    def taught(self, truth: np.ndarray) -> None:
        """Learned without labels."""

    def answers(self, model: Any, features: pd.DataFrame) -> np.ndarray:
        """The oddness."""
        return -np.asarray(model.score_samples(features), dtype="float64")

    def asked(self, features: pd.DataFrame, truth: np.ndarray, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
        """The rows, then as many with half of their features from other rows: each row takes its own random half."""
        random = np.random.default_rng([seed, len(features)])
        takes = random.random(features.shape).argsort(axis=1) < max(1, features.shape[1] // 2)
        planted = {
            name: features[name].where(~takes[:, n], features[name].iloc[random.permutation(len(features))].to_numpy())
            for n, name in enumerate(features)
        }
        both = pd.concat([features, pd.DataFrame(planted, index=features.index)], ignore_index=True)
        return both, np.r_[truth, np.ones(len(features), dtype="int8")]

    def told(self, features: pd.DataFrame, values: np.ndarray) -> np.ndarray:  # noqa: ARG002 -- the interface
        """A planted row is what the row was that it stands for."""
        return np.r_[values, values]

    def naive(
        self, before: np.ndarray, after: np.ndarray, newest: np.ndarray | None = None  # noqa: ARG002 -- the interface
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """`no opinion` finds every row as odd as every other."""
        return {"no opinion": np.zeros(len(after))}

    def unlearnable(self, truth: np.ndarray, part: str) -> str:  # noqa: ARG002 -- the interface
        """Any rows teach what is usual."""
        return ""

    def teaches(self, truth: np.ndarray) -> bool:
        """There is more than one row."""
        return len(truth) > 1

    def questions(self, truth: np.ndarray) -> dict[str, np.ndarray]:  # noqa: ARG002 -- the interface
        """There is no target that could leak."""
        return {}

    def unsound(self, answers: np.ndarray) -> str:
        """Finite numbers that are not all the same."""
        wrong = int((~np.isfinite(answers)).sum())
        return f"{wrong} of {len(answers)} answers are no number" if wrong else _all_the_same(answers)

    def operate(self, truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:
        """The score that so many usual rows reach as the alert budget allows."""
        return {"threshold": _reached_by(answers[truth == 0], self.alerts)}

    def decided(self, answers: np.ndarray, operates: dict[str, float]) -> np.ndarray:
        """Odd from the threshold on."""
        return answers >= operates["threshold"]

    def heard(self, predictions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """The oddness."""
        return np.array([said["score"] for said in predictions], dtype="float64")

    def calibration(
        self, truth: np.ndarray, answers: np.ndarray, operates: Mapping[str, float], seed: int  # noqa: ARG002 -- the interface
    ) -> tuple[Off, ...]:  # fmt: skip
        """Of the alert budget: how many usual rows reach the threshold against how many may."""
        reached = answers[truth == 0] >= operates["threshold"]
        said = f"{reached.mean():.2%} of the rows reach the threshold; the alert budget is {self.alerts:.2%}"
        return (_share_off(reached, self.alerts, said),)

    def apart(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """In units of the score."""
        return np.abs(after - before)

    def loss(self, truth: np.ndarray, answers: np.ndarray, reach: float) -> None:
        """Nobody knows the truth."""

    def foreseen(self, before: np.ndarray, after: np.ndarray) -> None:
        """A score says no chances."""

    def panels(self, truth: np.ndarray, answers: np.ndarray, operates: dict[str, float]) -> dict[str, Any]:
        """The scores of rows as they are and of planted ones."""
        edges = np.histogram_bin_edges(np.clip(answers, *np.quantile(answers, [0.01, 0.99])), bins=30)
        inside = np.clip(answers, edges[0], edges[-1])
        usual, planted = (np.histogram(inside[truth == label], bins=edges)[0].tolist() for label in (0, 1))
        return {
            "scores": {"usual": usual, "planted": planted, "edges": edges.tolist(), "threshold": operates["threshold"]}
        }


@dataclass(frozen=True)
class Recommendation:
    """What somebody takes next. A row says that a user took an item; an answer is the k best items for a user, the best first: (users, k).

    The judged rows of a user are one question, and the items in them its truth: (users, most items of any). Both hold codes of the
    items' names, so that models which know different items are judged alike: what a model has never met it cannot name, and
    that counts against its recall. Below 0 there is none.
    """

    target: str
    user: str
    k: int = 10

    name: ClassVar[Name] = "recommendation"
    metric: ClassVar[str] = "ndcg_at_k"
    gates: ClassVar[tuple[str, ...]] = tuple(gate for gate in EVERY if gate not in {"trusted", "calibration"})
    has_chances: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    has_moments: ClassVar[bool] = False
    is_number: ClassVar[bool] = False

    def truth(self, rows: pd.DataFrame) -> np.ndarray:
        """The name of the item that each row is about: (n,)."""
        return rows[self.target].astype("string").to_numpy(dtype=object)

    def meant(self, values: Sequence[Any]) -> pd.Series:
        """The item's name."""
        return _each(values, lambda value: words(value)[0])

    def described(self) -> dict[str, Any]:
        """Who is asked about, and how many items are named."""
        return {"user": self.user, "k": self.k}

    def taught(self, truth: np.ndarray) -> np.ndarray:
        """The names."""
        return truth

    def answers(self, model: Any, features: pd.DataFrame) -> np.ndarray:
        """The codes of the k best items."""
        names, _ = model[-1].top(model[:-1].transform(features), self.k)
        return coded(names)

    def asked(self, features: pd.DataFrame, truth: np.ndarray, seed: int) -> tuple[pd.DataFrame, np.ndarray]:  # noqa: ARG002 -- the interface
        """A row for each user, its first one, in order of appearance, and the different items of all its rows.

        >>> kind, rows = Recommendation("item", "who"), pd.DataFrame({"who": ["a", "b", "a", "a"]})
        >>> asked, truth = kind.asked(rows, np.array(["milk", "milk", "eggs", "milk"]), 0)
        >>> asked["who"].tolist(), (truth >= 0).tolist()
        (['a', 'b'], [[True, True], [True, False]])
        """
        users = self._users(features)
        pairs = np.unique(np.stack([users, coded(truth)], axis=1), axis=0) if len(truth) else np.empty((0, 2))
        of, counts = np.unique(pairs[:, 0].astype(int), return_counts=True)
        whole = np.full((len(of), counts.max(initial=1)), -1.0)
        whole[np.repeat(of, counts), np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)] = pairs[
            :, 1
        ]
        return features[~pd.Series(users, index=features.index).duplicated()].reset_index(drop=True), whole

    def told(self, features: pd.DataFrame, values: np.ndarray) -> np.ndarray:
        """The least of the user's rows: a question is unseen where all of them are."""
        return pd.Series(values).groupby(self._users(features)).min().to_numpy()

    def naive(
        self, before: np.ndarray, after: np.ndarray, newest: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """`popular` names what everybody took most, `popular lately` what they took most in the newest tenth of the rows."""
        newest = before[-max(1, len(before) // 10) :]
        return {
            name: np.tile(self._most(taken), (len(after), 1))
            for name, taken in (("popular", before), ("popular lately", newest))
        }

    def unlearnable(self, truth: np.ndarray, part: str) -> str:
        """One item everywhere leaves nothing to choose."""
        return "" if self.teaches(truth) else f"nothing to learn: the {part} part has one {self.target} only"

    def teaches(self, truth: np.ndarray) -> bool:
        """There is more than one item."""
        return len(pd.unique(truth)) > 1

    def questions(self, truth: np.ndarray) -> dict[str, np.ndarray]:  # noqa: ARG002 -- the interface
        """Who took it is meant to tell what was taken."""
        return {}

    def unsound(self, answers: np.ndarray) -> str:
        """Items that are no number, or named twice to one user, or the same for everybody."""
        wrong = int((~np.isfinite(answers)).any(axis=1).sum())
        if wrong:
            return f"{wrong} of {len(answers)} answers name what is no item"
        ordered = np.sort(answers, axis=1)
        twice = int(((np.diff(ordered, axis=1) == 0) & (ordered[:, 1:] >= 0)).any(axis=1).sum())
        return f"{twice} of {len(answers)} answers name an item twice" if twice else _all_the_same(answers)

    def operate(self, truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:  # noqa: ARG002 -- the interface
        """The k best are the decision."""
        return {}

    def decided(self, answers: np.ndarray, operates: dict[str, float]) -> None:
        """The list is the answer."""

    def heard(self, predictions: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """The codes of the items; where fewer than k were named, none at the end.

        >>> Recommendation("item", "who", k=2).heard([{"prediction": ["milk"]}]).shape
        (1, 2)
        """
        named = [[*said["prediction"], *[""] * (self.k - len(said["prediction"]))] for said in predictions]
        return coded(np.array(named, dtype=object).reshape(-1, self.k))

    def calibration(
        self, truth: np.ndarray, answers: np.ndarray, operates: Mapping[str, float], seed: int  # noqa: ARG002 -- the interface
    ) -> tuple[Off, ...]:  # fmt: skip
        """Nothing is said of how likely an item is."""
        return ()

    def called(self, answers: np.ndarray, operates: Mapping[str, float]) -> None:
        """No decision here is yes or no."""

    def apart(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The share of the named items that become others, whatever their order."""
        return 1 - hits(before, after).sum(axis=1) / np.maximum((before >= 0).sum(axis=1), 1)

    def loss(self, truth: np.ndarray, answers: np.ndarray, reach: float) -> np.ndarray:  # noqa: ARG002 -- the interface
        """1 where the item that was taken is not among those that were named."""
        return (~hits(coded(truth)[:, None], answers).any(axis=1)).astype(float)

    def foreseen(self, before: np.ndarray, after: np.ndarray) -> None:
        """Nothing is said of how likely an item is."""

    def flipped(
        self, before: np.ndarray, after: np.ndarray, operated: Mapping[str, float], operates: Mapping[str, float]  # noqa: ARG002 -- the interface
    ) -> np.ndarray:  # fmt: skip
        """The same."""
        return self.apart(before, after)

    def panels(self, truth: np.ndarray, answers: np.ndarray, operates: dict[str, float]) -> dict[str, Any]:  # noqa: ARG002 -- the interface
        """How often the item at each place was taken, and how much of what was taken is found up to it."""
        found, taken = hits(truth, answers), np.maximum((truth >= 0).sum(axis=1, keepdims=True), 1)
        recall = (np.cumsum(found, axis=1) / taken).mean(axis=0)
        return {"places": {"taken": found.mean(axis=0).tolist(), "recall": recall.tolist(), "users": len(truth)}}

    def _users(self, features: pd.DataFrame) -> np.ndarray:
        """The number of each row's user, in order of appearance; rows without one are one user, whom nobody knows."""
        return pd.factorize(features[self.user], use_na_sentinel=False)[0]

    def _most(self, taken: np.ndarray) -> np.ndarray:
        """The k items that were taken most, of equal ones the lesser code: (k,)."""
        items, counts = np.unique(coded(taken), return_counts=True)
        best = items[np.argsort(-counts, kind="stable")][: self.k]
        return np.r_[best, np.full(self.k - len(best), -1.0)]


KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (Binary, Multiclass, Regression, Anomaly, Recommendation)}


QUESTION = ("kind", "target", "user", "positive value")  # what of a manifest says what is asked


def another(kind: Kind, manifest: Mapping[str, Any]) -> str:
    """What a version answers, by its manifest, in place of what this kind asks; nothing where it is the same.

    >>> another(Regression("price"), {"kind": "regression", "target": "cost"})
    "its target is 'cost', the project's is 'price'"
    """
    now = kind.described() | {"kind": kind.name, "target": getattr(kind, "target", None)}
    apart = (
        name for name in QUESTION if None not in (now.get(name), manifest.get(name)) and now[name] != manifest[name]
    )
    return next((f"its {name} is {manifest[name]!r}, the project's is {now[name]!r}" for name in apart), "")


def spoken(kind: Kind, manifest: Mapping[str, Any]) -> Kind:
    """The same kind in the words of a version, by its manifest: a person may have called the two classes otherwise then.

    >>> spoken(Binary("y", True, ("fair", "fraud"), Cost()), {"classes": ["no", "yes"], "positive": "yes"}).labels
    ('no', 'yes')
    """
    if not isinstance(kind, Binary) or "positive" not in manifest:
        return kind
    positive = manifest["positive"]
    (negative,) = (label for label in manifest["classes"] if label != positive)
    return replace(kind, labels=(negative, positive))


def coded(names: np.ndarray) -> np.ndarray:
    """A whole number below 2**52 for each name, -1 for an empty one, in an array of the same shape: float64 holds it exactly.

    From SipHash; two of 100,000 names share one with a chance of one in a million.
    """
    flat = pd.Series(np.asarray(names, dtype=object).ravel(), dtype=object)
    hashes = hash_pandas_object(flat, index=False).to_numpy() >> np.uint64(12)  # ty: ignore[not-callable]
    codes = np.where(flat == "", -1.0, hashes.astype("float64"))
    return codes.reshape(np.shape(names))


def _each(values: Sequence[Any], meant: Callable[[Any], Any]) -> pd.Series:
    """What each value means, as it is: beside a gap a column of numbers would make 1.0 of 1."""
    return pd.Series([None if value is None else meant(value) for value in values], dtype=object)


def _first(known: Mapping[str, Any], texts: Sequence[str], otherwise: Any) -> Any:
    """What the first text that is known stands for."""
    return next((known[text] for text in texts if text in known), otherwise)


def _error(truth: np.ndarray, p: np.ndarray, seed: int) -> Off:
    """The calibration error, and how far it is above what as many rows of a perfectly calibrated model show by chance.

    What was seen is at most the true error and the chance error together (each group's triangle inequality), so that it is
    above the true one and 95 % of the chance errors in one holdout of twenty. In a group of n rows with mean prediction p a
    calibrated model has Binomial(n, p) true ones, or fewer different ones where the predictions in it differ.
    """
    table = calibration_table(truth, p)
    said, rows = (np.array([group[name] for group in table]) for name in ("predicted", "rows"))
    drawn = np.random.default_rng(seed).binomial(rows.astype(int), np.clip(said, 0, 1), (SIMULATIONS, len(rows)))
    by_chance = float(np.quantile(np.abs(drawn - rows * said).sum(axis=1) / rows.sum(), 0.95))
    error = calibration_error(truth, p)
    return Off("error", error, error - by_chance, f"calibration error is {error:.3f}, by chance up to {by_chance:.3f}")


def _bias(errors: np.ndarray, reason: str, z: float = SURE) -> Off:
    """The distance on the whole, from every row's."""
    mean = abs(float(errors.mean()))
    return Off("bias", mean, mean - z * _noise(errors), reason)


def _loss(truth: np.ndarray, p: np.ndarray) -> Off:
    """By how much the log loss is above the mean entropy of the predictions, which is what it is where they are true."""
    known = np.clip(p, EPSILON, 1)
    excess = -np.log(known[np.arange(len(truth)), truth]) + (known * np.log(known)).sum(axis=1)
    above = float(excess.mean())
    return Off("loss", above, above - SURE * _noise(excess), f"log loss is {above:+.3f} nats off what it promises")


def _share_off(hit: np.ndarray, meant: float, reason: str) -> Off:
    """The distance of a share from what it is meant to be."""
    low, high = wilson(float(hit.mean()), len(hit)) if len(hit) else (0.0, 1.0)
    off = abs(float(hit.mean()) - meant) if len(hit) else 0.0
    return Off("error", off, max(low - meant, meant - high), reason)


def _above_budget(called: np.ndarray, alerts: float) -> Off:
    """How far the share of the rows that are called is above the one that may be."""
    share = float(called.mean())
    said = f"{share:.2%} of the rows reach the threshold; the alert budget is {alerts:.2%}"
    return Off("error", max(share - alerts, 0.0), wilson(share, len(called))[0] - alerts, said)


def _noise(values: np.ndarray) -> float:
    """The standard error of their mean."""
    return float(values.std()) / float(np.sqrt(max(len(values), 1)))


def _share(labels: np.ndarray) -> float:
    """Share of positives with one row of each added, so that it is neither 0 nor 1 (Laplace's rule of succession)."""
    return float((labels.sum() + 1) / (len(labels) + 2))


def _reached_by(answers: np.ndarray, share: float) -> float:
    """The threshold that as many rows reach as this share allows, fewer where answers tie; above all of them when ties forbid any."""
    ranked = np.sort(answers)
    below = ranked[len(ranked) - int(share * len(ranked)) - 1]
    above = ranked[np.searchsorted(ranked, below, "right") :]
    return float(between(below, above[0]) if len(above) else np.nextafter(below, np.inf))


def _no_chances(answers: np.ndarray) -> str:
    rows = ~np.isfinite(answers) | (answers < 0) | (answers > 1)
    wrong = int((rows.any(axis=1) if rows.ndim == 2 else rows).sum())
    return f"{wrong} of {len(answers)} answers are no probability (NaN, inf, or outside 0…1)" if wrong else ""


def _all_the_same(answers: np.ndarray) -> str:
    return f"all {len(answers)} answers are the same" if len(answers) and not np.ptp(answers, axis=0).any() else ""
