"""Translation: a fitted pipeline to a form and its graph. What it does not know it refuses; nothing is guessed.

Numbers, dates and models are translated from what was fitted. Text encoders are asked: each known value, one that nobody knows and
a missing one go through the fitted encoder, and what comes out is the table. That the whole says the same as the pipeline is
not believed but looked at, row by row, in `parity.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tasks.ml import tastes
from tasks.ml.compiled import graph
from tasks.ml.compiled.encode import Block, Dates, Numbers, Texts
from tasks.ml.compiled.form import Form
from tasks.ml.compiled.score import (
    Chance,
    Depth,
    Ending,
    Flat,
    Linear,
    Logarithm,
    Mean,
    Mixture,
    Model,
    Second,
    Sigmoid,
    Softmax,
    Temperature,
    Trees,
)  # fmt: skip

UNKNOWN = "\x00 no value is like this"


class UncompiledError(Exception):
    """A pipeline has no translation; the message says what stands against it."""


class Compiled(NamedTuple):
    """A form, and its graph for whoever runs ONNX; None where there is none."""

    form: Form
    graph: bytes | None


class _Scored(NamedTuple):
    """How a model scores encoded rows."""

    model: Model
    endings: tuple[Ending, ...]
    trees: Sequence[tuple[graph.Tree, int | None]] = ()
    outputs: int = 1


def translated(model: Any) -> Compiled:
    """The form of a fitted pipeline, calibrated or not.

    Raises:
        UncompiledError: a part of it has no translation.
    """
    from sklearn.pipeline import Pipeline

    pipeline, calibrator = _uncalibrated(model)
    if not isinstance(pipeline, Pipeline) or len(pipeline) != 2:
        raise UncompiledError(f"{type(pipeline).__name__} is no pipeline of a preparation and a model")
    blocks, names = _blocks(pipeline[0])
    scored = _scored(pipeline[-1])
    endings = scored.endings if calibrator is None else _calibrated(calibrator, pipeline[-1], scored.endings)
    classes = tuple(getattr(model, "classes_", np.array([])).tolist())
    form = Form(
        columns=tuple(str(name) for name in pipeline.feature_names_in_), blocks=blocks, names=names,
        model=scored.model, endings=endings, classes=classes,
    )  # fmt: skip
    return Compiled(form, _graph(form, scored))


def _graph(form: Form, scored: _Scored) -> bytes | None:
    if isinstance(form.model, Trees):
        return graph.of_trees(form, scored.trees, scored.outputs, single=form.model.single)
    return graph.of_weights(form, form.model) if isinstance(form.model, Linear) else None


# -- the preparation --------------------------------------------------------------------------------------------------
def _blocks(prepare: Any) -> tuple[tuple[Block, ...], tuple[str, ...]]:
    from sklearn.compose import ColumnTransformer

    if not isinstance(prepare, ColumnTransformer):
        raise UncompiledError(f"{type(prepare).__name__} prepares the columns; only a ColumnTransformer is translated")
    given = prepare.feature_names_in_
    blocks, names = [], []
    for name, transformer, chosen in prepare.transformers_:
        columns = tuple(str(column) for column in (given[chosen] if _are_places(chosen) else chosen))
        if (isinstance(transformer, str) and transformer == "drop") or not columns:
            continue
        blocks.append(_block(transformer, columns))
        made = prepare.output_indices_[name]
        names += [f"{name}[{n}]" for n in range(made.stop - made.start)]
        if made.start != len(names) - (made.stop - made.start):
            raise UncompiledError("the columns do not stand in the order of the transformers")
    return tuple(blocks), tuple(names)


def _are_places(chosen: Any) -> bool:
    return isinstance(chosen, slice) or any(not isinstance(each, str) for each in chosen)


def _block(transformer: Any, columns: tuple[str, ...]) -> Block:
    from tasks.ml.transformers import DateParts

    steps = list(_steps(transformer))
    if encoder := next((step for step in steps if hasattr(step, "categories_")), None):
        return _texts(transformer, encoder, columns)
    if steps and isinstance(steps[0], DateParts):
        return Dates(columns, _numbers(steps[1:], columns))
    return _numbers(steps, columns)


def _steps(transformer: Any) -> Iterator[Any]:
    """What a transformer does, one after the other; nothing for what passes through."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    if isinstance(transformer, Pipeline):
        for step in transformer:
            yield from _steps(step)
    elif isinstance(transformer, FunctionTransformer):
        if transformer.func is not None:
            raise UncompiledError("a function of one's own prepares columns")
    elif transformer != "passthrough":
        yield transformer


def _numbers(steps: Sequence[Any], columns: tuple[str, ...]) -> Numbers:
    """Filling and scaling, in this order."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    made, rest = Numbers(columns), list(steps)
    if rest and isinstance(rest[0], SimpleImputer):
        made = _filling(rest.pop(0), columns)
    if rest and isinstance(rest[0], StandardScaler):
        scaler = rest.pop(0)
        made = Numbers(columns, made.filled, made.told, _floats(scaler.mean_), _floats(scaler.scale_))
    if rest:
        raise UncompiledError(f"{type(rest[0]).__name__} prepares numbers")
    return made


def _filling(imputer: Any, columns: tuple[str, ...]) -> Numbers:
    usual = _floats(imputer.statistics_)
    if usual is None or np.isnan(usual).any() or not (isinstance(imputer.missing_values, float)):
        raise UncompiledError("an imputer leaves columns out, or fills what is not missing")
    told = tuple(imputer.indicator_.features_.tolist()) if imputer.indicator_ is not None else ()
    return Numbers(columns, usual, told)


def _floats(values: Any) -> np.ndarray | None:
    return None if values is None else np.asarray(values, dtype=np.float64)


def _texts(transformer: Any, encoder: Any, columns: tuple[str, ...]) -> Texts:
    """The table of each column, by asking; a column of the output that follows from two columns has none."""
    values = tuple(tuple(value for value in known if isinstance(value, str)) for known in encoder.categories_)
    if any(len(known) > len(some) + 1 for known, some in zip(encoder.categories_, values, strict=True)):
        raise UncompiledError("an encoder's categories are no texts")
    base = _asked(transformer, columns, columns[0], (None,))[0]
    tables, places = [], []
    for name, known in zip(columns, values, strict=True):
        table = _asked(transformer, columns, name, (*known, UNKNOWN, None))
        at = np.flatnonzero((table != base).any(axis=0))
        tables.append(np.ascontiguousarray(table[:, at]))
        places.append(tuple(at.tolist()))
    if len({at for some in places for at in some}) != sum(map(len, places)):
        raise UncompiledError("two columns are encoded together")
    return Texts(columns, values, tuple(tables), tuple(places), base)


def _asked(transformer: Any, columns: tuple[str, ...], name: str, values: Sequence[str | None]) -> np.ndarray:
    """What becomes of rows in which one column has these values and the others none: (values, made columns)."""
    rows = pd.DataFrame(
        {column: pd.Series(values if column == name else [None] * len(values), dtype="str") for column in columns}
    )
    made = transformer.transform(rows)
    made = made.toarray() if hasattr(made, "toarray") else made
    return np.asarray(made, dtype=np.float64)


# -- the model --------------------------------------------------------------------------------------------------------
def _scored(model: Any) -> _Scored:
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        ExtraTreesRegressor,
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
        IsolationForest,
        RandomForestClassifier,
        RandomForestRegressor,
    )  # fmt: skip
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.mixture import GaussianMixture

    match model:
        case HistGradientBoostingClassifier() | HistGradientBoostingRegressor():
            return _boosted(model)
        case RandomForestClassifier() | ExtraTreesClassifier() | RandomForestRegressor() | ExtraTreesRegressor():
            return _forest(model)
        case IsolationForest():
            return _isolating(model)
        case LogisticRegression():
            return _Scored(_linear(model), (Chance() if len(model.classes_) == 2 else Softmax(),))
        case LinearRegression() | Ridge():
            return _Scored(_linear(model), (Flat(),))
        case GaussianMixture():
            return _Scored(_mixture(model), (Flat(),))
        case tastes.Tastes():
            plain = tastes.PLAIN[type(model).__name__]
            return _Scored(plain(**{name: getattr(model, name) for name in plain.__struct_fields__}), ())
    raise UncompiledError(f"{type(model).__name__} has no translation")


def _linear(model: Any) -> Linear:
    weights = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    return Linear(np.ascontiguousarray(weights.T), np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64)))


def _mixture(model: Any) -> Mixture:
    if model.covariance_type != "full":
        raise UncompiledError(f"a mixture of {model.covariance_type} covariances has no translation")
    roots = np.asarray(model.precisions_cholesky_)
    heights = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1) + np.log(model.weights_)
    return Mixture(roots, np.einsum("kf,kfg->kg", model.means_, roots), heights)


def _boosted(model: Any) -> _Scored:
    """The baseline as first trees, then every iteration: the order in which scikit-learn adds them up."""
    if getattr(model, "is_categorical_", None) is not None:
        raise UncompiledError("a boosted tree splits on native categories")
    if type(model._loss.link).__name__ not in {"IdentityLink", "LogitLink", "MultinomialLogit"}:
        raise UncompiledError(f"boosting with {type(model._loss).__name__} has no translation")
    base = np.ravel(model._baseline_prediction).tolist()
    trees = [(graph.Tree.constant(value), target) for target, value in enumerate(base)]
    trees += [(_grown(each.nodes), target) for row in model._predictors for target, each in enumerate(row)]
    ending = Flat() if not hasattr(model, "classes_") else Chance() if len(base) == 1 else Softmax()
    return _Scored(Trees(), (ending,), trees, len(base))


def _grown(nodes: np.ndarray) -> graph.Tree:
    return graph.Tree(
        nodes["feature_idx"], nodes["num_threshold"], nodes["left"], nodes["right"], nodes["missing_go_to_left"],
        nodes["is_leaf"] != 0, nodes["value"],
    )  # fmt: skip


def _planted(tree: Any, value: np.ndarray) -> graph.Tree:
    """A tree of a forest, whose leaves add a value."""
    return graph.Tree(
        tree.feature, tree.threshold, tree.children_left, tree.children_right, tree.missing_go_to_left,
        tree.children_left == -1, value,
    )  # fmt: skip


def _forest(model: Any) -> _Scored:
    """The sum of the trees' answers, and their mean."""
    outputs = len(model.classes_) if hasattr(model, "classes_") else 1
    trees = [(_planted(each.tree_, each.tree_.value[:, 0, :]), None) for each in model.estimators_]
    ending = () if hasattr(model, "classes_") else (Flat(),)
    return _Scored(Trees(single=True), (Mean(len(trees)), *ending), trees, outputs)


def _isolating(model: Any) -> _Scored:
    """The sum of the depths, as a share of the usual one."""
    from sklearn.ensemble._iforest import _average_path_length

    if model._max_features != model.n_features_in_:
        raise UncompiledError("an isolation forest whose trees see some of the columns has no translation")
    pairs = zip(model.estimators_, model._decision_path_lengths, model._average_path_length_per_tree, strict=True)
    trees = [
        (_planted(each.tree_, (np.asarray(path) + np.asarray(average) - 1.0)[:, None]), None)
        for each, path, average in pairs
    ]
    usual = len(trees) * float(_average_path_length([model._max_samples])[0])
    return _Scored(Trees(single=True), (Depth(usual), Flat()), trees)


# -- calibration ------------------------------------------------------------------------------------------------------
def _uncalibrated(model: Any) -> tuple[Any, Any]:
    """The pipeline and its calibrator, None where there is none."""
    from sklearn.calibration import CalibratedClassifierCV

    if not isinstance(model, CalibratedClassifierCV):
        return model, None
    if len(model.calibrated_classifiers_) != 1 or len(model.calibrated_classifiers_[0].calibrators) != 1:
        raise UncompiledError("a calibration of several models has no translation")
    (only,) = model.calibrated_classifiers_
    return getattr(only.estimator, "estimator", only.estimator), only.calibrators[0]


def _calibrated(calibrator: Any, model: Any, endings: tuple[Ending, ...]) -> tuple[Ending, ...]:
    """The endings with a correction: of log-odds where the model has them, else of its probabilities."""
    from sklearn.calibration import _SigmoidCalibration, _TemperatureScaling

    has_odds, several = hasattr(model, "decision_function"), len(model.classes_) > 2
    before = endings[:-1] if has_odds else endings
    match calibrator:
        case _SigmoidCalibration() if not several:
            corrected = Sigmoid(float(calibrator.a_), float(calibrator.b_))
            return (*before, corrected) if has_odds else (*before, Second(), corrected)
        case _TemperatureScaling() if several:
            corrected = Temperature(float(calibrator.beta_))
            return (*before, *(() if has_odds else (Logarithm(),)), corrected, Softmax())
    raise UncompiledError(f"{type(calibrator).__name__} of {len(model.classes_)} classes has no translation")
