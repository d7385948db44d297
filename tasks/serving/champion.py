"""The champion answers rows: one released model, verified and warm."""

import copy
import datetime as dt
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import numpy as np

from tasks.config.errors import ArtifactError
from tasks.ml.compiled.encode import Given, Rows
from tasks.ml.compiled.form import Form
from tasks.ml.compiled.graph import session
from tasks.ml.compiled.score import Session
from tasks.serving.reading import EXACT, Asked, Reader, has_offset
from tasks.serving.writing import Columns, Writer
from tasks.stores import bundles, packed
from tasks.stores.bundles import Bundle
from tasks.stores.journal import Release
from tasks.stores.marks import MARK, Marks
from tasks.stores.seals import Seals

if TYPE_CHECKING:
    import pandas as pd

    from tasks.ml.computed import Computing
    from tasks.ml.contributions import Explainer


Value = str | int | float | bool | None
WARM_SECONDS = 5.0


class RowError(ValueError):
    """A row cannot be scored; the message names its place and the feature, and never repeats what was sent."""


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column that the model reads.

    Attributes:
        offset: a time must say its offset, for where rows land one without is of another zone than UTC, or of none.
    """

    name: str
    type: Literal["int", "float", "text", "category", "bool", "datetime"]
    nullable: bool
    offset: bool = False


class Manifest(msgspec.Struct, frozen=True):
    """What the serving process needs to know of a model."""

    project: str
    version: int
    kind: Literal["binary", "multiclass", "regression", "anomaly", "recommendation"]
    target: str | None
    features: tuple[Feature, ...]
    ignored: tuple[str, ...]
    classes: tuple[Value, ...] = ()
    positive: Value = None
    own: tuple[Value, ...] = ()
    threshold: float | None = None
    interval: float | None = None
    k: int | None = None
    usual: dict[str, Any] = {}
    computed: dict[str, str] = {}
    key: dict[str, str] = {}


# -- rows -------------------------------------------------------------------------------------------------------------
# These raise what they wanted; `Champion` puts the place and the feature in front.
def _whole(value: object) -> Value:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("a whole number")
    if abs(value) > EXACT:
        raise ValueError("a whole number between -2^53 and 2^53")
    return value


def _number(value: object) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("a finite number")
    return number


def _text(value: object) -> Value:
    if not isinstance(value, str):
        raise TypeError("a text")
    return value


def _truth(value: object) -> Value:
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def _moment(value: object) -> Value:
    try:
        moment = dt.datetime.fromisoformat(_text(value))  # ty: ignore[invalid-argument-type]
        (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a time as ISO 8601 text, such as 2026-01-31T12:00:00Z") from None
    return str(value)


def _moment_of_a_zone(value: object) -> Value:
    moment = _moment(value)
    if not has_offset(str(moment)):
        raise ValueError("a time with its offset, such as 2026-01-31T12:00:00+01:00")
    return moment


READERS: dict[str, Callable[[object], Value]] = {
    "int": _whole, "float": _number, "text": _text, "category": _text, "bool": _truth, "datetime": _moment,
}  # fmt: skip
BLANK: dict[str, Value] = {
    "int": 0,
    "float": 0.0,
    "text": "",
    "category": "",
    "bool": False,
    "datetime": "2000-01-01T00:00:00Z",
}
KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    dict: "an object",
    list: "a list",
}


def frame(rows: Iterable[dict[str, Any]], features: Iterable[Feature]) -> "pd.DataFrame":
    """Checked rows as the model met them in training, one column a feature.

    int, float and bool → float64 with NaN for missing; text and category → pandas' `str` with NaN for missing;
    datetime → UTC, microseconds.
    """
    import pandas as pd

    rows = list(rows)
    return pd.DataFrame(
        {feature.name: _column([row[feature.name] for row in rows], feature.type) for feature in features}
    )


def _column(values: list[Any], kind: str) -> "pd.Series":
    import pandas as pd

    if kind == "datetime":
        return pd.to_datetime(pd.Series(values, dtype="str"), utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    return pd.Series(values, dtype="str" if kind in {"text", "category"} else "float64")


# -- one champion -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Champion:
    """One released model, verified and warm. It never changes, so that whoever holds it gets answers of one version.

    It answers with its compiled form. Where there is none scikit-learn answers; pandas and scikit-learn are imported for that, for
    explanations, and pandas for columns that the project's own code computes.

    Attributes:
        bundle: its bytes, as they were when they were verified.
        form: the compiled model, session: whoever runs its graph; None where there is none.
        marks: by which the log tells whose rows are asked; None where it does not.
    """

    release: Release
    manifest: Manifest
    bundle: Bundle
    form: Form | None = None
    session: Session | None = None
    computing: "Computing | None" = None
    marks: Marks | None = None

    @classmethod
    def load(
        cls, folder: Path, release: Release, *, skew: bundles.Skew = "refuse", secret: bytes | None = None, seals: Seals | None = None
    ) -> Self:  # fmt: skip
        """The champion of a release, after its bundle has been verified and a row has been scored with it.

        Args:
            folder: where its bundle lies.
            release: names the bundle's digest.
            skew: `accept` loads a model that other versions of the libraries wrote, too.
            secret: of the marks; without one logged rows have none.
            seals: whose signatures count; by default those of this installation.

        Raises:
            ArtifactError: the bundle is not the released one, or the model does not answer as it should.
        """
        bundle = bundles.opened(folder, release.digest, skew=skew, seals=seals)
        try:
            manifest = msgspec.convert(bundle.manifest, Manifest)
        except msgspec.ValidationError as error:
            raise ArtifactError(
                f"{folder}: the manifest is not one of a model that can be served: {error}. Register the model again."
            ) from error
        form = bundle.form()
        told = bool(manifest.key) and set(manifest.key) <= set(manifest.ignored)  # an older manifest does not say
        marks = Marks(secret, manifest.project, manifest.key) if secret and told else None
        champion = cls(release, manifest, bundle, form, _runner(folder, bundle, form), bundle.computing(), marks)
        champion._fits(folder)
        champion._warm(folder)
        return champion

    def under(self, release: Release) -> Self:
        """The same model, loaded and warm, as the one of another release of its version."""
        if release == self.release:
            return self
        twin = copy.copy(self)  # with what was made of it since, which `dataclasses.replace` leaves behind
        object.__setattr__(twin, "release", release)
        return twin

    @cached_property
    def model(self) -> Any:
        """The model as scikit-learn has it; constructed when it is asked for first."""
        return self.bundle.model()

    @property
    def is_quick(self) -> bool:
        """Whether an answer to few rows takes microseconds."""
        return self.form is not None and self.computing is None

    @property
    def answers_columns(self) -> bool:
        """Whether rows that come by column need not become rows."""
        return self.is_quick and self.manifest.kind != "recommendation"

    @property
    def is_steady(self) -> bool:
        """Whether a row has the same answer, bit by bit, whichever rows are asked with it: trees are, sums of many columns at once are not."""
        return self.form is not None and self.form.runs_graph

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.manifest.features, self.manifest.ignored, self.marks)

    @cached_property
    def _places(self) -> dict[str, int]:
        """Where each feature stands in a row of values."""
        return {feature.name: place for place, feature in enumerate(self.manifest.features)}

    @cached_property
    def writer(self) -> Writer:
        """Writes its answers and their lines in the log."""
        types = {feature.name: feature.type for feature in self.manifest.features}
        return Writer(self.release.project, self.release.version, types)

    def read(self, body: bytes, field: str) -> Asked | None:
        """The rows of a request's body that calls them so, checked; None where `check` must say what is wrong with them, or might."""
        return self._reader.read(body, field) if self.is_quick else None

    def numbers(self, body: bytes) -> np.ndarray | None:
        """The rows of a body, (n, features) float64, NaN for missing, where they are numbers alone and the log needs no more; else None."""
        plain = self.marks is None and all(feature.type in packed.KINDS for feature in self.manifest.features)
        return self._reader.numbers(body) if plain and self.answers_columns else None

    def answer(self, asked: Asked) -> list[dict[str, Any]]:
        """As `predict`, for rows that `read` gave.

        Raises:
            RowError: a row cannot be scored; then none is.
            ValueError: a value is not as it should be after all; `check` says which.
        """
        return self._compiled(Rows(self._places, asked.values)) if asked.values else []

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """For each row the answer: a label with the probability of each, a number with its interval, whether it is odd, or a list of items.

        Raises:
            RowError: a row cannot be scored; then none is.
        """
        return self.score(self.check(rows))

    def check(self, rows: list[dict[str, Any]]) -> list[dict[str, Value]]:
        """The rows with exactly the features of the model, in its types; a missing nullable feature is None.

        Raises:
            RowError: a row has unknown fields, or lacks a feature, or has a value of another type.
        """
        known = {feature.name for feature in self.manifest.features} | set(self.manifest.ignored)
        for place, row in enumerate(rows):
            if strange := len(row.keys() - known):
                raise RowError(
                    f"rows[{place}] has {strange} unknown field{'s' * (strange > 1)}; wanted only what GET "
                    f"/projects/{self.manifest.project} lists. "
                    "Leave the others out."
                )
        return [
            {feature.name: self._value(place, row, feature) for feature in self.manifest.features}
            for place, row in enumerate(rows)
        ]

    def marked(self, checked: list[dict[str, Value]], sent: list[dict[str, Any]]) -> list[dict[str, Value]]:
        """Checked rows as they go into the log, with the mark of their key where it was sent."""
        if self.marks is None:
            return checked
        marks = (self.marks.of(row) for row in sent)
        return [row | {MARK: mark} if mark else row for row, mark in zip(checked, marks, strict=True)]

    def score(self, checked: list[dict[str, Value]]) -> list[dict[str, Any]]:
        """As `predict`, for rows that `check` gave."""
        if not checked:
            return []
        try:
            if self.is_quick:
                return self._compiled(Rows(self._places, [tuple(row.values()) for row in checked]))
            return self._answers(self._features(checked))
        except RowError:
            raise
        except ValueError as error:  # scikit-learn's word for "not with these values"; its message repeats them
            raise self._unanswered() from error

    def _answers(self, features: "pd.DataFrame") -> list[dict[str, Any]]:
        """The answers to what the model reads of rows, a frame."""
        if self.form is not None:
            from tasks.ml.compiled.frame import Frame

            return self._compiled(Frame(features))
        if self.manifest.kind == "recommendation":
            return _listed(*self.model[-1].top(self.model[:-1].transform(features), self.manifest.k or 0))
        return self._decided(self._said(features), len(features))

    def _compiled(self, given: Given) -> list[dict[str, Any]]:
        """The answers of the compiled model."""
        form = self.form
        if form is None:
            raise TypeError("the model is not compiled")
        if self.manifest.kind == "recommendation":
            return _listed(*form.top(given, self.manifest.k or 0))
        return self._decided(form.answers(form.encode(given), self.session), given.count)

    def columns(self, given: Given) -> Columns:
        """The answers by column, of a model that is quick and recommends nothing.

        Raises:
            RowError: a row cannot be scored; then none is.
        """
        form, manifest = self.form, self.manifest
        if form is None:
            raise TypeError("the model is not compiled")
        try:
            said = form.answers(form.encode(given), self.session)
        except ValueError as error:
            raise self._unanswered() from error
        self._holds(said, given.count)
        if manifest.kind == "binary":
            place = self._choice[1]
            number = said[:, place]
            return Columns(manifest.classes, np.where(number >= self._choice[2], place, 1 - place), number, said)
        if manifest.classes:
            return Columns(manifest.classes, said.argmax(axis=1), said.max(axis=1), said)
        if manifest.kind == "regression":
            return Columns((), said, said, said)
        return Columns((False, True), (said >= (manifest.threshold or 0.0)).astype(np.int64), said, said)

    def listed(self, columns: Columns) -> list[dict[str, Any]]:
        """The same answers one by one."""
        return self._decided(columns.said, len(columns.said))

    def _holds(self, said: np.ndarray, count: int) -> None:
        """What the model said are answers.

        Raises:
            RowError: one is no number: a value was too large for the model.
            ArithmeticError: they are not as many as they should be.
        """
        wanted = (count, len(self.manifest.classes)) if self.manifest.classes else (count,)
        if said.shape != wanted:
            raise ArithmeticError("the model gave answers that are none")
        if not np.isfinite(said).all():
            raise self._unanswered()

    def _unanswered(self) -> RowError:
        return RowError(
            f"The model of version {self.release.version} has no answer for a value in these rows; wanted values "
            "like those that it was "
            "trained on. Compare them with the contract."
        )

    def _decided(self, said: np.ndarray, count: int) -> list[dict[str, Any]]:
        """The answers that follow from what the model said."""
        self._holds(said, count)
        if self.manifest.kind == "binary":
            return self._called(said.tolist())
        return [self._answer(each) for each in said.tolist()]

    def _called(self, said: list[list[float]]) -> list[dict[str, Any]]:
        """Of two classes the one that the threshold chooses."""
        ((yes, no), place, bar), (one, other) = self._choice, self.labels
        return [
            {"prediction": yes if each[place] >= bar else no, "probabilities": {one: each[0], other: each[1]}}
            for each in said
        ]

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes as keys of an answer's probabilities, in the model's order; none where it answers with none."""
        return tuple(label_of(each) for each in self.manifest.classes)

    @cached_property
    def _choice(self) -> tuple[tuple[Value, Value], int, float]:
        """Of two classes the positive and the other one, the positive one's place in the model's order, and the threshold."""
        first, second = self.manifest.classes
        place = self.labels.index(self._positive)
        return (second, first) if place else (first, second), place, self.manifest.threshold or 0.0

    def explain(
        self, checked: list[dict[str, Value]], answers: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """What each column adds to each answer, and what it adds up to, by which method.

        Of two classes the positive one is explained, of more the answered one. Nothing but names of columns and numbers is said.

        Args:
            checked: rows that `check` gave.
            answers: what `score` said of them.

        Raises:
            RowError: there are too many rows, or the model cannot be explained here.
        """
        from tasks.ml.contributions import UnexplainedError

        try:
            explainer = self._explainer
            found = explainer.explain(self._features(checked), self._chosen(answers))
        except UnexplainedError as error:
            raise RowError(f"Version {self.release.version} cannot be explained so. {error}") from None
        if not np.isfinite(found.score).all():
            raise ArithmeticError("the contributions are no numbers")
        rows = zip(found.base.tolist(), found.contributions.tolist(), strict=True)
        parts = [
            {"base": base, "contributions": dict(zip(explainer.columns, adds, strict=True))} for base, adds in rows
        ]
        return parts, {"adds up to": self._scale, "method": explainer.method}

    @cached_property
    def _explainer(self) -> "Explainer":
        """Made when it is asked for first: who asks for predictions alone does not wait for it."""
        from tasks.ml.contributions import Explainer

        return Explainer.of(self.model, self.manifest.usual)

    @property
    def _scale(self) -> str:
        """What is explained, in words."""
        of = {"binary": f" of '{label_of(self.manifest.positive)}'", "multiclass": " of the prediction"}
        return f"{self._explainer.scale}{of.get(self.manifest.kind, '')}"

    def _chosen(self, answers: list[dict[str, Any]]) -> np.ndarray:
        """Of each row the place of the class that is explained."""
        places = {label: place for place, label in enumerate(self.labels)}
        if self.manifest.kind == "binary":
            return np.full(len(answers), places[label_of(self.manifest.positive)])
        return np.array([places.get(label_of(answer["prediction"]), 0) for answer in answers], dtype=int)

    def _features(self, checked: list[dict[str, Value]]) -> "pd.DataFrame":
        """What the model reads of checked rows: their columns, and those that the project's own code makes of them.

        Raises:
            RowError: that code has nothing for one of the rows.
        """
        sent = frame(checked, self.manifest.features)
        if self.computing is None:
            return sent
        from tasks.ml.computed import ComputedError

        try:
            return self.computing.add(sent)[self._learned]
        except ComputedError as error:
            raise RowError(
                f"The computed columns of version {self.release.version} cannot be made of these rows. {error}"
            ) from None

    def _blank(self, rows: list[dict[str, Value]]) -> "pd.DataFrame":
        """What the model reads of warm-up rows; without computed columns where their code has nothing for rows that are no real ones."""
        sent = frame(rows, self.manifest.features)
        if self.computing is None:
            return sent
        from tasks.ml.computed import ComputedError

        try:
            made = self.computing.add(sent)
        except ComputedError:
            made = self.computing.leave_empty(sent)
        return made[self._learned]

    @cached_property
    def _learned(self) -> list[str]:
        """The columns that the model reads, in its order."""
        if self.form is not None:
            return list(self.form.columns)
        return [str(name) for name in getattr(self.model, "feature_names_in_", [])]

    @property
    def _classes(self) -> list[Any]:
        """The classes of the model's answers, in its order."""
        if self.form is not None:
            return list(self.form.classes)
        classes = getattr(self.model, "classes_", None)
        return [] if classes is None else classes.tolist()

    def _said(self, features: "pd.DataFrame") -> Any:
        """What the model says of rows: probabilities (n, classes), or numbers (n,)."""
        if self.manifest.classes:
            return self.model.predict_proba(features)
        return (
            self.model.predict(features) if self.manifest.kind == "regression" else -self.model.score_samples(features)
        )

    def _answer(self, said: Any) -> dict[str, Any]:
        manifest, classes = self.manifest, self.manifest.classes
        if manifest.kind == "regression":
            half = manifest.interval or 0.0
            return {"prediction": said, "interval": [said - half, said + half]}
        if manifest.kind == "anomaly":
            return {"prediction": said >= (manifest.threshold or 0.0), "score": said}
        return {
            "prediction": classes[said.index(max(said))],
            "probabilities": dict(zip(self.labels, said, strict=True)),
        }

    def logged(self, answer: dict[str, Any]) -> float | None:
        """The number of an answer that the prediction log keeps beside it: of a class its probability (of two, the positive
        one's), of an anomaly its score; None where the answer itself is the number.
        """  # noqa: D205
        if chances := answer.get("probabilities"):
            return chances[self._positive or label_of(answer["prediction"])]
        return answer.get("score")

    @cached_property
    def _positive(self) -> str:
        """Of two classes the positive one's label, else nothing."""
        return label_of(self.manifest.positive) if self.manifest.kind == "binary" else ""

    def _value(self, place: int, row: dict[str, Any], feature: Feature) -> Value:
        value = row.get(feature.name)
        if value is None:
            if feature.nullable:
                return None
            met = "empty" if feature.name in row else "missing"
            raise RowError(
                f"rows[{place}]: '{feature.name}' is {met}; wanted a value of type {feature.type}. Send one: it may "
                "not be empty."
            )
        try:
            return (_moment_of_a_zone if feature.offset else READERS[feature.type])(value)
        except (TypeError, ValueError) as error:
            met = KINDS.get(type(value), "something else")
            raise RowError(
                f"rows[{place}]: '{feature.name}' is {met} that does not fit; wanted {error}. Correct it and send it "
                "again."
            ) from None

    def _fits(self, folder: Path) -> None:
        """The manifest speaks of this release and of this model: names, order-independent, and classes."""
        release, manifest = self.release, self.manifest
        if (manifest.project, manifest.version) != (release.project, release.version):
            raise ArtifactError(
                f"{folder} holds version {manifest.version} of {manifest.project}; the journal wants version "
                f"{release.version} of {release.project}. "
                "Release the version again."
            )
        names = {feature.name for feature in manifest.features}
        learned = set(self._learned)
        computed = set(manifest.computed)  # `features` may need columns that the model itself does not read
        strange = (learned - names - computed) | (names & computed) if computed else names ^ learned
        if strange or len(names) != len(manifest.features):
            odd = ", ".join(sorted(strange)) or "a name that stands twice"
            raise ArtifactError(
                f"{folder}: manifest and model do not agree about the features: {odd}. Register the model again."
            )
        self._decides(folder)

    def _decides(self, folder: Path) -> None:
        """The manifest has what answers of its kind need, and means the model's classes."""
        manifest = self.manifest
        if manifest.kind in {"binary", "multiclass"}:
            labels, learned = [*self.labels], [label_of(label) for label in self._classes]
            speaks = manifest.kind == "multiclass" or label_of(manifest.positive) in labels
            if labels != learned or not labels or not speaks or (manifest.kind == "binary" and len(labels) != 2):
                raise ArtifactError(
                    f"{folder}: the manifest's classes {labels} are not the model's, or lack the positive one. Register "
                    "the model again."
                )
        most = math.nextafter(1, 2)  # above 1 no row is called: what keeps an alert budget where too many answers are 1
        if manifest.kind == "binary" and not 0 <= (-1 if manifest.threshold is None else manifest.threshold) <= most:
            raise ArtifactError(
                f"{folder}: the threshold is {manifest.threshold}; wanted a probability. Register the model again."
            )
        name = {"regression": "interval", "anomaly": "threshold", "recommendation": "k"}.get(manifest.kind)
        needed = getattr(manifest, name) if name else 0.0
        if needed is None or not math.isfinite(needed) or (name == "k" and needed < 1):
            raise ArtifactError(
                f"{folder}: the manifest lacks the {name} that "
                f"answers of kind '{manifest.kind}' need. Register the model again."
            )

    def _warm(self, folder: Path) -> None:
        """Scores an empty row: no request shall meet a slow first answer or a model that gives none (V-03)."""
        row = {feature.name: None if feature.nullable else BLANK[feature.type] for feature in self.manifest.features}
        started = time.monotonic()
        try:
            if self.is_quick:
                self._compiled(Rows(self._places, [tuple(row.values())] * 2))
            else:
                self._answers(self._blank([row, row]))
        except Exception as error:  # whatever a model raises, it is not fit to answer
            raise ArtifactError(
                f"{folder}: the model does not answer a warm-up row ({type(error).__name__}: {error}). Train it again."
            ) from error
        if (took := time.monotonic() - started) > WARM_SECONDS:
            raise ArtifactError(
                f"{folder}: the model took {took:.1f} s for a warm-up row; wanted at most {WARM_SECONDS:g} s. Train a "
                "smaller one."
            )


def _runner(folder: Path, bundle: Bundle, form: Form | None) -> Session | None:
    """Whoever runs the graph of a form; None where it needs none."""
    if form is None or not form.runs_graph:
        return None
    try:
        return session(bundle.files[bundles.GRAPH])
    except Exception as error:  # the runtime raises whatever the content provokes
        raise ArtifactError(
            f"{folder / bundles.GRAPH} does not load ({type(error).__name__}: {error}). Train and register the model again."
        ) from error


def _listed(names: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """For each row the best items, and the scores of those items."""
    if not math.isfinite(float(scores.sum())):
        raise ArithmeticError("the model gave answers that are none")
    said = ([(name, score) for name, score in zip(*pair, strict=True) if name] for pair in zip(names.tolist(), scores.tolist(), strict=True))  # fmt: skip
    return [{"prediction": [name for name, _ in best], "scores": [score for _, score in best]} for best in said]


def label_of(value: Value) -> str:
    """A class as a key of a JSON object."""
    return value if isinstance(value, str) else json.dumps(value)
