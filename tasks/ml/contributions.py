"""Contributions: what each column adds to one answer, so that base and contributions add up to the model's score exactly.

Linear models: each weight times how far the row is from the training mean, which are the exact Shapley values of a linear score with
independent columns (Lundberg and Lee 2017, corollary 1). Trees: exact Shapley values of the trees' own expectations, where a column
that is not known is averaged over as the training rows went (TreeSHAP's path-dependent values, Lundberg et al. 2020, algorithm
1), computed for all leaves at once by Owen's integral instead of recursion. Forests with too many leaves for that: how the mean
changes along the path (Saabas 2014), which adds up as well but gives splits near the root too little. Every other model: Shapley
values by permutations against a usual row, if `shap` is installed.

What is made of a column (one-hot columns, parts of a date, the sign that it was empty) counts for the column. scikit-learn
is imported where it is used.
"""

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

LEAVES = 50_000  # of one score; with more, paths take the place of Shapley values
WORK = 500_000  # leaves times rows of one question, about half a second
MOST = 100  # rows of one question
SAMPLED = 10  # rows of one question where `shap` samples
ROUNDS = 10  # permutations that `shap` draws, there and back
CELLS = 2_000_000  # cells of an array held at once
CHUNK = 20_000  # rows that are prepared at once for the means
MEANT = 50_000  # rows, spread evenly, whose means are those of all
BEFORE = "This version was made before answers could be explained. Train again."
RECOMMENDED = "A recommendation follows from who the user is, which is its only column. Ask without an explanation."
FEW = 5  # rows; a text that fewer have may be a person


class UnexplainedError(ValueError):
    """The model cannot be explained here; the message says why, and what would help."""


@dataclass(frozen=True)
class Explanation:
    """What each column adds to the score of each row.

    Attributes:
        base: the score when nothing is known of a row: (n,).
        contributions: (n, columns), by raw column; base and a row's contributions add up to its score.
    """

    base: np.ndarray
    contributions: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """What they add up to: (n,)."""
        return self.base + self.contributions.sum(axis=1)


@dataclass(frozen=True)
class _Linear:
    """Weights (scores, columns), intercepts (scores,), and the means of the training rows (columns,)."""

    weights: np.ndarray
    intercepts: np.ndarray
    means: np.ndarray

    method: ClassVar[str] = "linear"
    most: ClassVar[int] = MOST

    def parts(self, prepared: np.ndarray, places: np.ndarray) -> Explanation:
        """Weight times distance from the mean; the base is the score of the mean."""
        return Explanation(
            (self.intercepts + self.weights @ self.means)[places], self.weights[places] * (prepared - self.means)
        )


@dataclass(frozen=True)
class _Tree:
    """One tree, a node an entry; a child stands behind its parent. `mean` (nodes, scores) is what the node's rows get on average."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    gone_left: np.ndarray
    cover: np.ndarray
    mean: np.ndarray

    @property
    def splits(self) -> np.ndarray:
        """Which nodes have children: (nodes,) bool."""
        return self.left > 0

    def levels(self) -> Iterator[np.ndarray]:
        """The nodes with children, level by level from the root."""
        nodes = np.array([0])
        while len(nodes := nodes[self.left[nodes] > 0]):
            yield nodes
            nodes = np.concatenate([self.left[nodes], self.right[nodes]])

    @classmethod
    def of_leaves(cls, leaves: np.ndarray, **nodes: np.ndarray) -> Self:
        """The tree whose leaves give these values (nodes,); the means of the other nodes follow from how many rows went where."""
        tree = cls(mean=leaves[:, None].copy(), **nodes)
        for at in reversed(list(tree.levels())):
            children = np.stack([tree.left[at], tree.right[at]])
            shares = tree.cover[children] / tree.cover[children].sum(axis=0)
            tree.mean[at] = (tree.mean[children] * shares[..., None]).sum(axis=0)
        return tree


@dataclass(frozen=True)
class _Paths:
    """The paths to all leaves that ask about the same number of columns d, each column once however often it is asked about.

    Attributes:
        column, low, high, gone, share: (leaves, d): a row goes on where low < value ≤ high, or where it is empty and `gone`; `share`
            is how many of the training rows did.
        mean: (leaves, scores).
    """

    column: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gone: np.ndarray
    share: np.ndarray
    mean: np.ndarray

    def parts(self, rows: np.ndarray, place: int) -> np.ndarray:
        """Shapley values (n, columns) by the integral over t of what a column changes when each other is known with chance t.

        Owen, Multilinear extensions of games, 1972. The integrand is a polynomial of degree d - 1, so that Gauss and
        Legendre's rule with d/2 points gives it exactly.
        """
        leaves, depth = self.column.shape
        points, weights = np.polynomial.legendre.leggauss((depth + 1) // 2)
        found = np.zeros(rows.shape)
        step = max(1, CELLS // (leaves * depth))
        for begin in range(0, len(rows), step):
            some = rows[begin : begin + step]
            values = some[:, self.column]
            goes = np.where(np.isnan(values), self.gone, (values > self.low) & (values <= self.high)).astype(float)
            mixed = np.zeros(goes.shape)
            for t, weight in zip((points + 1) / 2, weights / 2, strict=True):
                factors = self.share * (1 - t) + goes * t
                mixed += weight * factors.prod(axis=2, keepdims=True) / factors
            adds = (goes - self.share) * mixed * self.mean[:, place, None]
            where = np.arange(len(some))[:, None, None] * rows.shape[1] + self.column
            found[begin : begin + step] = np.bincount(where.ravel(), weights=adds.ravel(), minlength=some.size).reshape(
                some.shape
            )
        return found


@dataclass(frozen=True)
class _Trees:
    """Ensembles whose trees add up: `trees` holds those of each score, or those of all scores once.

    Attributes:
        trees: tuples of trees; one for all scores, or one a score.
        start: what each score begins with: (scores,).
        single: whether values are compared as 32-bit floats.
        weight: what each tree counts.
    """

    trees: tuple[tuple[_Tree, ...], ...]
    start: np.ndarray
    single: bool = False
    weight: float = 1.0
    _paths: dict[int, list[_Paths]] = field(default_factory=dict)

    @cached_property
    def leaves(self) -> int:
        """Of the trees of one score, the most."""
        return max(sum(int((~tree.splits).sum()) for tree in trees) for trees in self.trees)

    @property
    def method(self) -> str:
        """How it parts scores."""
        return "tree shap" if self.leaves <= LEAVES else "tree paths"

    @property
    def most(self) -> int:
        """Rows at once."""
        return max(1, min(MOST, WORK // self.leaves)) if self.leaves <= LEAVES else MOST

    def parts(self, prepared: np.ndarray, places: np.ndarray) -> Explanation:
        """The base is what the trees' roots give on average."""
        rows = prepared.astype("float32").astype("float64") if self.single else np.asarray(prepared, dtype="float64")
        base, found = np.zeros(len(rows)), np.zeros(rows.shape)
        for place in np.unique(places).tolist():
            mine = places == place
            group, column = (place, 0) if len(self.trees) > 1 else (0, place)
            base[mine] = self.start[place] + self.weight * sum(
                float(tree.mean[0, column]) for tree in self.trees[group]
            )
            if self.leaves > LEAVES:
                found[mine] = sum(_along(tree, rows[mine], column) for tree in self.trees[group])
                continue
            if group not in self._paths:
                self._paths[group] = _paths(self.trees[group], rows.shape[1])
            found[mine] = sum(
                (paths.parts(rows[mine], column) for paths in self._paths[group]), np.zeros(rows.shape[1])
            )
        return Explanation(base, self.weight * found)


def _along(tree: _Tree, rows: np.ndarray, place: int) -> np.ndarray:
    """How the mean changes at each split on a row's way, for the column that is asked about: (n, columns)."""
    found, at = np.zeros(rows.shape), np.zeros(len(rows), dtype=np.int64)
    while len(going := np.flatnonzero(tree.left[at] > 0)):
        nodes = at[going]
        column = tree.feature[nodes].astype(np.int64)
        values = rows[going, column]
        left = np.where(np.isnan(values), tree.gone_left[nodes].astype(bool), values <= tree.threshold[nodes])
        following = np.where(left, tree.left[nodes], tree.right[nodes]).astype(np.int64)
        found[going, column] += tree.mean[following, place] - tree.mean[nodes, place]
        at[going] = following
    return found


def _paths(trees: Sequence[_Tree], width: int) -> list[_Paths]:
    """The paths to all leaves of these trees over so many prepared columns, grouped by how many columns they ask about."""
    groups: dict[int, list[tuple[np.ndarray, ...]]] = {}
    for tree in trees:
        leaves = np.flatnonzero(~tree.splits)
        asked, *bounds = (table[leaves] for table in _bounds(tree, width))
        order, depths = np.argsort(~asked, axis=1, kind="stable"), asked.sum(axis=1)
        for depth in np.unique(depths[depths > 0]).tolist():
            mine = depths == depth
            column = order[mine, :depth]
            cut = (np.take_along_axis(table[mine], column, axis=1) for table in bounds)
            groups.setdefault(depth, []).append((column, *cut, tree.mean[leaves[mine]]))
    return [_Paths(*(np.concatenate(parts) for parts in zip(*group, strict=True))) for group in groups.values()]


def _bounds(tree: _Tree, width: int) -> tuple[np.ndarray, ...]:
    """For every node and column, (nodes, width): is it asked about on the way, low, high, does an empty one come here, share of rows."""
    count = len(tree.feature)
    asked, gone = np.zeros((count, width), dtype=bool), np.ones((count, width), dtype=bool)
    low, high, share = np.full((count, width), -np.inf), np.full((count, width), np.inf), np.ones((count, width))
    for nodes in tree.levels():
        column, threshold = tree.feature[nodes].astype(np.int64), tree.threshold[nodes]
        for children, is_left in ((tree.left[nodes], True), (tree.right[nodes], False)):
            for table in (asked, gone, low, high, share):
                table[children] = table[nodes]
            at = (children, column)
            asked[at] = True
            gone[at] &= tree.gone_left[nodes].astype(bool) == is_left
            if is_left:
                high[at] = np.minimum(high[at], threshold)
            else:
                low[at] = np.maximum(low[at], threshold)
            share[at] *= tree.cover[children] / tree.cover[nodes]
    return asked, low, high, gone, share


# -- what a model's score is ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Explainer:
    """Parts the score of one model; made once, asked often.

    Attributes:
        columns: the raw columns, in the order of the contributions.
        scale: what base and contributions add up to, in words.
        method: how they are found; most: rows of one question.
    """

    columns: tuple[str, ...]
    scale: str
    method: str
    most: int
    _explain: Callable[[pd.DataFrame, np.ndarray], Explanation]

    @classmethod
    def of(cls, model: Any, usual: Mapping[str, Any] | None = None) -> Self:
        """The explainer of a fitted model.

        Args:
            model: a pipeline of preparation and model, or one that is calibrated.
            usual: what `usual` said of the training rows.

        Raises:
            UnexplainedError: nothing here can part its score.
        """
        pipe, calibrators = _parted(model)
        if hasattr(pipe[-1], "top"):
            raise UnexplainedError(RECOMMENDED)
        columns = tuple(str(name) for name in pipe.feature_names_in_)
        score = _score(pipe[-1], usual or {})
        if score is None:
            return cls._sampled(model, columns, (usual or {}).get("row"))
        made = _collected(origins(pipe[:-1], columns), columns)
        turn, scale = _turn(pipe[-1], calibrators)

        def explain(features: pd.DataFrame, chosen: np.ndarray) -> Explanation:
            places, factor, shift = turn(chosen)
            parts = score.parts(np.asarray(pipe[:-1].transform(features), dtype="float64"), places)
            return Explanation(factor * parts.base + shift, factor[:, None] * (parts.contributions @ made))

        return cls(columns, scale, score.method, score.most, explain)

    @classmethod
    def _sampled(cls, model: Any, columns: tuple[str, ...], row: Mapping[str, Any] | None) -> Self:
        """By `shap`, with a usual row for what is not known."""
        shap = _shap()
        if row is None:
            raise UnexplainedError(BEFORE)
        plain = dict(row)
        scale = "score" if hasattr(model, "score_samples") else "probability" if hasattr(model, "predict_proba") else "number"  # fmt: skip

        def explain(features: pd.DataFrame, chosen: np.ndarray) -> Explanation:
            found = [_permuted(shap, model, features.iloc[[n]], plain, int(chosen[n])) for n in range(len(features))]
            return Explanation(
                np.array([base for base, _ in found]), np.array([parts for _, parts in found]).reshape(features.shape)
            )

        return cls(columns, scale, "shap permutations", SAMPLED, explain)

    def explain(self, features: pd.DataFrame, chosen: np.ndarray) -> Explanation:
        """What each column adds.

        Args:
            features: rows of raw columns, as `features.matrix` gives them: (n, columns).
            chosen: of each row the place of the class that is explained among the model's; any number where there are no classes.

        Raises:
            UnexplainedError: there are too many rows.
        """
        if len(features) > self.most:
            raise UnexplainedError(
                f"There are {len(features):,} rows to explain; wanted at most {self.most:,} of this model at once. Send them in parts."
            )
        if features.empty:
            return Explanation(np.zeros(0), np.zeros((0, len(self.columns))))
        return self._explain(features[list(self.columns)], chosen)


def usual(model: Any, features: pd.DataFrame) -> dict[str, Any]:
    """What a model's explainer must know of the rows that it learned from; it goes into the manifest.

    Of linear models the means of the prepared columns, over some of the rows where they are many; of models that only `shap` explains a usual row: medians, and the most
    frequent text where at least five rows have it. Trees know by themselves, and recommendations are not explained.
    """
    pipe, _ = _parted(model)
    last = pipe[-1]
    if hasattr(last, "top"):
        return {}
    if hasattr(last, "coef_"):
        some = features.iloc[:: len(features) // MEANT + 1]
        sums = [pipe[:-1].transform(some.iloc[at : at + CHUNK]).sum(axis=0) for at in range(0, len(some), CHUNK)]
        return {"means": (np.sum(sums, axis=0) / len(some)).tolist()}
    return {} if _is_trees(last) else {"row": {str(name): _usual(features[name]) for name in features}}


def _usual(column: pd.Series) -> Any:
    known = column.dropna()
    if known.empty:
        return None
    if pd.api.types.is_numeric_dtype(known):
        return float(known.median())
    if isinstance(known.dtype, pd.DatetimeTZDtype):
        return known.sort_values().iloc[len(known) // 2].isoformat()
    counts = known.value_counts()
    return str(counts.index[0]) if counts.iloc[0] >= FEW else None


def _shap() -> Any:
    """The package, found by name: it is an extra, which most installations lack."""
    try:
        return importlib.import_module("shap")
    except ImportError:
        raise UnexplainedError(
            "This family of models is explained by shap, which is not installed. Install keepfit with the extra 'explain'."
        ) from None


def _permuted(
    shap: Any, model: Any, row: pd.DataFrame, usual_row: Mapping[str, Any], chosen: int
) -> tuple[float, np.ndarray]:
    """Base and contributions of one row: columns are taken from it or from the usual one, and `shap` says which take what."""
    plain = pd.DataFrame({name: [usual_row[str(name)]] for name in row}).astype(row.dtypes.to_dict())
    both = pd.concat([plain, row], ignore_index=True)

    def said(masks: np.ndarray) -> np.ndarray:
        asked = pd.DataFrame({name: both[name].iloc[masks[:, n].astype(int)].array for n, name in enumerate(both)})
        if hasattr(model, "score_samples"):
            return -model.score_samples(asked)
        return model.predict_proba(asked)[:, chosen] if hasattr(model, "predict_proba") else model.predict(asked)

    width = row.shape[1]
    explainer = shap.PermutationExplainer(said, np.zeros((1, width)), seed=0)
    found = explainer(np.ones((1, width)), max_evals=ROUNDS * (2 * width + 1), silent=True)
    return float(np.ravel(found.base_values)[0]), np.ravel(found.values)


def _parted(model: Any) -> tuple[Any, list[Any]]:
    """The pipeline of preparation and model, and what corrects its answers, a calibrator a class or one."""
    if not hasattr(model, "calibrated_classifiers_"):
        return model, []
    (inner,) = model.calibrated_classifiers_
    return getattr(inner.estimator, "estimator", inner.estimator), list(inner.calibrators)


def _is_trees(last: Any) -> bool:
    return hasattr(last, "_predictors") or (hasattr(last, "estimators_") and hasattr(last.estimators_[0], "tree_"))


def _score(last: Any, usual: Mapping[str, Any]) -> _Linear | _Trees | None:
    """The score of a fitted estimator, or None where only `shap` can part it."""
    if hasattr(last, "coef_"):
        if "means" not in usual:
            raise UnexplainedError(BEFORE)
        return _Linear(np.atleast_2d(last.coef_), np.atleast_1d(last.intercept_), np.array(usual["means"], dtype=float))
    if hasattr(last, "_predictors"):
        return _Trees(
            tuple(tuple(_boosted(trees[place]) for trees in last._predictors) for place in range(last.n_trees_per_iteration_)),
            np.ravel(last._baseline_prediction).astype(float),
        )  # fmt: skip
    if not _is_trees(last):
        return None
    if hasattr(last, "score_samples"):
        trees = tuple(_isolating(tree.tree_, last) for tree in last.estimators_)
        return _Trees((trees,), np.zeros(1), single=True)
    trees = tuple(_grown(tree.tree_) for tree in last.estimators_)
    return _Trees((trees,), np.zeros(trees[0].mean.shape[1]), single=True, weight=1 / len(trees))


def _boosted(predictor: Any) -> _Tree:
    """A tree of histogram gradient boosting; every split of ours is one of numbers, because texts are encoded before."""
    nodes = predictor.nodes
    if nodes["is_categorical"].any():
        raise UnexplainedError(
            "A tree of this model splits by categories, which is not explained. Encode texts before."
        )
    leaf = nodes["is_leaf"].astype(bool)
    return _Tree.of_leaves(
        np.where(leaf, nodes["value"], 0.0), feature=nodes["feature_idx"], threshold=nodes["num_threshold"],
        left=np.where(leaf, 0, nodes["left"].astype(np.int64)), right=np.where(leaf, 0, nodes["right"].astype(np.int64)),
        gone_left=nodes["missing_go_to_left"].astype(bool), cover=nodes["count"].astype(float),
    )  # fmt: skip


def _grown(tree: Any) -> _Tree:
    """A tree of a forest, as it lies in memory: a large one is not copied."""
    return _Tree(
        feature=tree.feature, threshold=tree.threshold, left=tree.children_left, right=tree.children_right,
        gone_left=tree.missing_go_to_left, cover=tree.weighted_n_node_samples, mean=tree.value[:, 0, :],
    )  # fmt: skip


def _isolating(tree: Any, forest: Any) -> _Tree:
    """A tree of an isolation forest, whose leaves give their part of the logarithm (base 2) of the oddness: -depth / usual depth."""
    depth = np.zeros(tree.node_count)
    for node in range(tree.node_count):
        if tree.children_left[node] > 0:
            depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1
    whole = len(forest.estimators_) * _unsuccessful(np.array([forest.max_samples_]))[0]
    leaves = -(depth + _unsuccessful(tree.n_node_samples)) / (whole or 1.0)
    return _Tree.of_leaves(
        leaves, feature=tree.feature, threshold=tree.threshold, left=tree.children_left, right=tree.children_right,
        gone_left=tree.missing_go_to_left, cover=tree.weighted_n_node_samples,
    )  # fmt: skip


def _unsuccessful(rows: np.ndarray) -> np.ndarray:
    """Mean depth of an unsuccessful search among so many rows (Liu, Ting and Zhou, Isolation forest, 2008, equation 1)."""
    many = np.maximum(rows, 3).astype(float)
    usual_depth = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(rows <= 1, 0.0, np.where(rows == 2, 1.0, usual_depth))


Turn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _turn(last: Any, calibrators: list[Any]) -> tuple[Turn, str]:
    """Which score of the estimator stands for a class, by what it is multiplied and what is added; and what comes of it.

    Of two classes it is the logarithm of the odds that is answered, with its calibration inside, because a sigmoid of a score only
    stretches and moves it; so does a temperature of several classes.
    """

    def same(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.zeros(len(chosen), dtype=int), np.ones(len(chosen)), np.zeros(len(chosen))

    def by_class(factor: float = 1.0) -> Turn:
        return lambda chosen: (chosen, np.full(len(chosen), factor), np.zeros(len(chosen)))

    def of_two(place: int, factor: float, shift: float) -> Turn:
        def turned(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            sign = np.where(chosen == 1, 1.0, -1.0)
            return np.full(len(chosen), place), sign * factor, sign * shift

        return turned

    if not hasattr(last, "classes_"):
        return same, "log2 of the score" if hasattr(last, "score_samples") else "number"
    has_margin, two = hasattr(last, "decision_function"), len(last.classes_) == 2
    stretch = float(getattr(calibrators[0], "beta_", 1.0)) if calibrators else 1.0
    if two and calibrators and hasattr(calibrators[0], "a_"):
        slope, shift = -float(calibrators[0].a_), -float(calibrators[0].b_)
        return of_two(0 if has_margin else 1, slope, shift), "log-odds"
    if has_margin and two:  # a temperature takes a margin as half of the distance between two logits
        return of_two(0, 2 * stretch if calibrators else 1.0, 0.0), "log-odds"
    if has_margin:
        return by_class(stretch), "log-probability, but for a number that all classes share"
    return by_class(), "probability before calibration" if calibrators else "probability"


# -- from prepared columns back to raw ones ---------------------------------------------------------------------------
def origins(step: Any, names: Sequence[str]) -> list[str]:
    """For each column that a fitted step gives, the raw column that it was made of.

    Args:
        step: of our preparation: a column transformer, a pipeline, or one of their parts.
        names: the raw column of each column that the step is given.

    Raises:
        UnexplainedError: the step is none of those.
    """
    if hasattr(step, "transformers_"):
        return [
            origin
            for _, part, chosen in step.transformers_
            if not (isinstance(part, str) and part == "drop")
            for origin in origins(part, [str(name) for name in chosen])
        ]
    if hasattr(step, "steps"):
        for _, part in step.steps:
            names = origins(part, names)
        return list(names)
    match type(step).__name__:
        case "str" | "FunctionTransformer" | "StandardScaler" | "OrdinalEncoder":
            return list(names)
        case "SimpleImputer":
            signs = step.indicator_.features_.tolist() if step.indicator_ is not None else []
            return [*names, *(names[place] for place in signs)]
        case "OneHotEncoder":
            plain = copy.copy(step).set_params(feature_name_combiner=lambda name, _value: str(name))
            return [str(name) for name in plain.get_feature_names_out()]
        case "DateParts" | "TargetEncoder":
            times = len(step.get_feature_names_out()) // len(names)
            return [name for name in names for _ in range(times)]
        case other:
            raise UnexplainedError(f"The model prepares its columns by {other}, which is not explained.")


def _collected(made_of: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """The matrix (prepared, raw) that adds up what belongs to a raw column."""
    return (np.array(made_of)[:, None] == np.array(columns)[None, :]).astype(float)
