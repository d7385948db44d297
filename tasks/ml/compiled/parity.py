"""Parity: a compiled form held against the pipeline that it was made of, on every row that may be looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks.ml.compiled.form import Form
from tasks.ml.compiled.frame import Frame
from tasks.ml.compiled.graph import session
from tasks.ml.compiled.translate import UncompiledError, translated
from tasks.ml.kinds import Kind

TOLERANCE = 1e-9  # of an answer, as a share of it where it is above 1: everything is float64
PORTABLE = 1e-6  # the same of the answers of the graph, whose endings are those of whoever runs it


class AsModel:
    """A form with its session, asked as estimators are asked."""

    def __init__(self, form: Form, graph: bytes | None) -> None:
        self._form = form
        self._session = session(graph) if form.runs_graph and graph else None
        self.classes_ = np.array(form.classes)

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        """(n, classes), or of other models (n,)."""
        return self._form.answers(self._form.encode(Frame(rows)), self._session)

    predict = predict_proba

    def score_samples(self, rows: pd.DataFrame) -> np.ndarray:
        """(n,), less is odder."""
        return -self.predict_proba(rows)

    def __getitem__(self, _part: Any) -> "AsModel":
        """The whole: a form has no parts to be asked by themselves."""
        return self

    def transform(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows: whoever answers prepares them, too."""
        return rows

    def top(self, rows: pd.DataFrame, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each row the k best items, and their scores."""
        return self._form.top(Frame(rows), k)


@dataclass(frozen=True)
class Outcome:
    """What became of the attempt to compile a model.

    Attributes:
        form, graph: None where scikit-learn serves; a graph, too, where there is none.
        reason: why scikit-learn serves, or nothing.
        rows: on how many rows the form was held against the pipeline; apart: the largest distance met.
        portable: whether the graph alone gives the answers, too.
    """

    form: Form | None = None
    graph: bytes | None = None
    reason: str = ""
    rows: int = 0
    apart: float = 0.0
    portable: bool = False

    def __str__(self) -> str:
        """In words."""
        if self.form is None:
            return f"served by scikit-learn: {self.reason}"
        return f"compiled, the largest difference on {self.rows} rows is {self.apart:.2g}"

    def described(self) -> dict[str, Any]:
        """What the manifest says of it."""
        if self.form is None:
            return {"because": self.reason}
        told = {"parity": {"rows": self.rows, "largest difference": self.apart, "tolerance": TOLERANCE}}
        return told | ({"onnx": documented(self.form)} if self.graph and self.portable else {})


def compiled(kind: Kind, model: Any, rows: pd.DataFrame, operates: Mapping[str, float]) -> Outcome:
    """The model compiled, when the form says of every row what the model says, and decides the same.

    Args:
        kind: the problem, which knows what answers and decisions are.
        model: a fitted pipeline, calibrated or not.
        rows: the columns that it reads, (n, columns); none of the holdout.
        operates: how answers become decisions.
    """
    try:
        form, graph = translated(model)
    except UncompiledError as error:
        return Outcome(reason=str(error))
    apart, reason = differs(kind, model, form, graph, rows, operates)
    if reason:
        return Outcome(reason=reason, rows=len(rows), apart=apart)
    return Outcome(form, graph, "", len(rows), apart, portable=bool(graph) and _portable(form, graph, rows))


def differs(
    kind: Kind, model: Any, form: Form, graph: bytes | None, rows: pd.DataFrame, operates: Mapping[str, float]
) -> tuple[float, str]:
    """How far a form's answers are from a model's at most, and why it may not stand for it, or nothing."""
    said, meant = kind.answers(AsModel(form, graph), rows), kind.answers(model, rows)
    if said.shape != meant.shape:
        return float("inf"), f"compiled, it gives answers of shape {said.shape} instead of {meant.shape}"
    apart = distance(said, meant)
    largest = float(apart.max(initial=0.0))
    if wrong := int((~(apart <= TOLERANCE)).sum()):
        return largest, f"compiled, it answers {wrong} of {len(rows)} rows otherwise, by up to {largest:.2g}"
    one, other = (kind.decided(answers, dict(operates)) for answers in (said, meant))
    if one is not None and other is not None and (one != other).any():
        return largest, f"compiled, it decides {int((one != other).sum())} of {len(rows)} rows otherwise"
    return largest, ""


def distance(said: np.ndarray, meant: np.ndarray) -> np.ndarray:
    """Of each row how far an answer is from what it should be, as a share of it where it is above 1: (n,)."""
    apart = np.abs(said - meant) / np.maximum(np.abs(meant), 1)
    return apart.max(axis=1, initial=0.0) if apart.ndim == 2 else apart


def documented(form: Form) -> dict[str, Any]:
    """What a reader of the graph must know: inputs, outputs, and what the encoded columns are made of."""
    return {
        "input": {"name": "features", "dtype": "float64", "shape": ["rows", len(form.names)], "columns": list(form.names)},
        "outputs": {"answers": "what the model says", "scores": "before the last steps"},
        "encoded from": list(form.columns), "classes": list(form.classes), "tolerance": PORTABLE,
    }  # fmt: skip


def _portable(form: Form, graph: bytes | None, rows: pd.DataFrame) -> bool:
    """Whether whoever runs the graph alone gets the answers of the form."""
    encoded = form.encode(Frame(rows))
    runner = session(graph or b"")
    (answers,) = runner.run(["answers"], {"features": encoded})
    meant = form.answers(encoded, runner)
    return answers.shape == meant.shape and bool((distance(answers, meant) <= PORTABLE).all())
