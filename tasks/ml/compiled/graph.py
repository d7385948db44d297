"""Graphs: trees as an ONNX graph of float64, from encoded rows to scores and on to answers; other languages read it as well.

The graph has one input, `features` (n, width) float64, and two outputs: `scores`, the sums over the trees, and `answers`, what the
model says (probabilities, numbers or oddness). Servers of ours take the scores and end them as scikit-learn does, bit by bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.ml.compiled.form import Form
from tasks.ml.compiled.score import (
    Chance,
    Depth,
    Ending,
    Flat,
    Linear,
    Logarithm,
    Mean,
    Second,
    Sigmoid,
    Softmax,
    Temperature,
)

OPSET, ML_OPSET, IR = 21, 5, 10  # the oldest that know float64 trees with more than one output


@dataclass(frozen=True)
class Tree:
    """One tree: arrays with an entry a node, the root first. A node without children is a leaf.

    Attributes:
        feature, cut: go left where the feature is at most the cut.
        left, right: places of the children.
        holes_left: whether a missing value goes left.
        leaf: whether the node is one.
        value: (nodes,) or (nodes, outputs), what a leaf adds.
    """

    feature: np.ndarray
    cut: np.ndarray
    left: np.ndarray
    right: np.ndarray
    holes_left: np.ndarray
    leaf: np.ndarray
    value: np.ndarray

    @classmethod
    def constant(cls, value: float) -> "Tree":
        """A tree of one leaf."""
        one = np.zeros(1, dtype=int)
        return cls(one, np.zeros(1), one, one, one, np.ones(1, dtype=bool), np.array([value]))


@dataclass
class _Ensemble:
    """The attributes of the operator `TreeEnsemble`, filled a tree at a time."""

    features: list[int] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    true: list[int] = field(default_factory=list)
    true_is_leaf: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)
    false_is_leaf: list[int] = field(default_factory=list)
    holes: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def add(self, tree: Tree, values: np.ndarray, target: int) -> None:
        """Adds a tree whose leaves add to one output."""
        self.roots.append(len(self.features))
        if tree.leaf[0]:  # the operator wants a node above every leaf: both ways lead to it
            self._node(0, 0.0, False, *[self._leaf(values[0], target)] * 2)
            return
        inner = np.flatnonzero(~tree.leaf)
        places = dict(zip(inner.tolist(), range(len(self.features), len(self.features) + len(inner)), strict=True))
        for at in inner.tolist():
            ends = [
                self._leaf(values[child], target) if tree.leaf[child] else (places[child], 0)
                for child in (int(tree.left[at]), int(tree.right[at]))
            ]
            self._node(int(tree.feature[at]), float(tree.cut[at]), bool(tree.holes_left[at]), *ends)

    def _leaf(self, value: float, target: int) -> tuple[int, int]:
        self.weights.append(float(value))
        self.targets.append(target)
        return len(self.weights) - 1, 1

    def _node(self, feature: int, cut: float, holes_left: bool, true: tuple[int, int], false: tuple[int, int]) -> None:
        for column, value in (
            (self.features, feature), (self.cuts, cut), (self.true, true[0]), (self.true_is_leaf, true[1]),
            (self.false, false[0]), (self.false_is_leaf, false[1]), (self.holes, int(holes_left)),
        ):  # fmt: skip
            column.append(value)  # ty: ignore[invalid-argument-type]


def of_trees(form: Form, trees: Sequence[tuple[Tree, int | None]], outputs: int, *, single: bool) -> bytes:
    """The graph of trees and of the endings of a form.

    Args:
        form: whose graph it is.
        trees: in the order in which they are added up, each with the output that it adds to; None where a leaf adds to all.
        outputs: how many.
        single: whether features become float32 first, as forests compare them.
    """
    from onnx import helper, numpy_helper

    whole = _Ensemble()
    for tree, target in trees:
        for output in range(outputs) if target is None else (target,):
            whole.add(tree, tree.value[:, output] if target is None else tree.value, output)
    node = helper.make_node(
        "TreeEnsemble", ["cut" if single else "features"], ["scores"], domain="ai.onnx.ml", n_targets=outputs,
        aggregate_function=1, post_transform=0, tree_roots=whole.roots, nodes_featureids=whole.features,
        nodes_splits=numpy_helper.from_array(np.array(whole.cuts)),
        nodes_modes=numpy_helper.from_array(np.zeros(len(whole.cuts), dtype=np.uint8)),
        nodes_truenodeids=whole.true, nodes_trueleafs=whole.true_is_leaf, nodes_falsenodeids=whole.false,
        nodes_falseleafs=whole.false_is_leaf, nodes_missing_value_tracks_true=whole.holes, leaf_targetids=whole.targets,
        leaf_weights=numpy_helper.from_array(np.array(whole.weights)),
    )  # fmt: skip
    return _graph(form, [*(_rounded() if single else []), node], outputs)


def of_weights(form: Form, model: Linear) -> bytes:
    """The graph of a weighted sum and of the endings of a form."""
    from onnx import helper

    names = [_constant("weights", model.weights), _constant("intercept", model.intercept)]
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["sums"]),
        helper.make_node("Add", ["sums", "intercept"], ["scores"]),
    ]
    return _graph(form, [*names, *nodes], len(model.intercept))


def _graph(form: Form, nodes: list[Any], outputs: int) -> bytes:
    from onnx import TensorProto, helper

    nodes, at = list(nodes), "scores"
    for number, ending in enumerate(form.endings):
        after = f"ended {number}"
        nodes += _ended(ending, at, after)
        at = after
    nodes.append(helper.make_node("Identity", [at], ["answers"]))
    is_flat = bool(form.endings) and isinstance(form.endings[-1], Flat)
    shapes = {"scores": ["rows", outputs], "answers": ["rows"] if is_flat else ["rows", len(form.classes)]}
    described = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape) for name, shape in shapes.items()]
    asked = helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["rows", len(form.names)])
    model = helper.make_model(
        helper.make_graph(nodes, "keepfit", [asked], described),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
        ir_version=IR, producer_name="keepfit",
    )  # fmt: skip
    return model.SerializeToString(deterministic=True)


def _rounded() -> list[Any]:
    from onnx import TensorProto, helper

    return [
        helper.make_node("Cast", ["features"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["single"], ["cut"], to=TensorProto.DOUBLE),
    ]


def _constant(name: str, value: Any) -> Any:
    from onnx import helper, numpy_helper

    kind = np.int64 if isinstance(value, list) else np.float64
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value, dtype=kind)))


def _ended(ending: Ending, at: str, after: str) -> list[Any]:
    """The nodes that do what an ending does."""
    from onnx import helper

    def number(value: float) -> tuple[str, Any]:
        name = f"{after} {value!r}"
        return name, _constant(name, value)

    def chained(*steps: tuple[str, float | None]) -> list[Any]:
        nodes, here = [], at
        for count, (operator, value) in enumerate(steps):
            there = after if count == len(steps) - 1 else f"{after} step {count}"
            names = [here]
            if value is not None:
                name, node = number(value)
                nodes.append(node)
                names.append(name)
            nodes.append(helper.make_node(operator, names, [there]))
            here = there
        return nodes

    def paired(nodes: list[Any]) -> list[Any]:
        one, node = number(1.0)
        return [
            *nodes, node, helper.make_node("Sub", [one, f"{after} second"], [f"{after} first"]),
            helper.make_node("Concat", [f"{after} first", f"{after} second"], [after], axis=1),
        ]  # fmt: skip

    match ending:
        case Chance():
            return paired([helper.make_node("Sigmoid", [at], [f"{after} second"])])
        case Sigmoid(slope, offset):
            slopes, offsets = number(-slope), number(-offset)
            return paired([
                slopes[1], *([offsets[1]] if offsets[0] != slopes[0] else []),
                helper.make_node("Mul", [at, slopes[0]], [f"{after} sloped"]),
                helper.make_node("Add", [f"{after} sloped", offsets[0]], [f"{after} odds"]),
                helper.make_node("Sigmoid", [f"{after} odds"], [f"{after} second"]),
            ])  # fmt: skip
        case Softmax():
            return [helper.make_node("Softmax", [at], [after], axis=1)]
        case Mean(trees):
            return chained(("Div", float(trees)))
        case Depth(usual):
            base, node = number(2.0)
            return [node, *_powers(number(-usual), at, base, after)]
        case Second():
            index = f"{after} index"
            return [_constant(index, [1]), helper.make_node("Gather", [at, index], [after], axis=1)]
        case Logarithm(least):
            return chained(("Add", least), ("Log", None))
        case Temperature(beta):
            return chained(("Mul", beta))
        case Flat():
            axis = f"{after} axis"
            return [_constant(axis, [1]), helper.make_node("Squeeze", [at, axis], [after])]


def _powers(divisor: tuple[str, Any], at: str, base: str, after: str) -> list[Any]:
    from onnx import helper

    name, node = divisor
    return [
        node, helper.make_node("Div", [at, name], [f"{after} power"]), helper.make_node("Pow", [base, f"{after} power"], [after]),
    ]  # fmt: skip


def session(graph: bytes) -> Any:
    """Whoever runs a graph: one thread, so that the trees are added up in their order, and answers are the same each time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
