"""Contributions: additive on every row, and equal to Shapley values by brute force."""

import sys
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures

from tasks.ml import calibrate, contributions, models
from tasks.ml.contract import Column
from tasks.ml.contributions import Explainer, UnexplainedError, origins, usual
from tasks.ml.features import matrix
from tasks.ml.kinds import KINDS
from tasks.ml.recipe import Learned, Recipe
from tests.ml.test_kinds import COLUMNS, MADE, TYPES, rows

EXACT = [(kind, name) for kind in KINDS for name in models.FAMILIES if kind in models.FAMILIES[name].fits and kind != "recommendation" and name not in {"nearest_neighbours", "gaussian_mixture"}]  # fmt: skip
TREES = [pair for pair in EXACT if pair[1] not in {"logistic", "ridge"}]
SAMPLED = [("binary", "nearest_neighbours"), ("multiclass", "nearest_neighbours"), ("regression", "nearest_neighbours"), ("anomaly", "gaussian_mixture")]  # fmt: skip
SMALL: dict[str, dict[str, float]] = {
    "hist_gradient_boosting": {"max_iter": 12, "max_leaf_nodes": 8}, "random_forest": {"n_estimators": 5, "min_samples_leaf": 40},
    "extra_trees": {"n_estimators": 5, "min_samples_leaf": 40}, "isolation_forest": {"n_estimators": 5, "max_samples": 0.02},
}  # fmt: skip


def fitted(name, family, count=600, columns=COLUMNS, **said):
    """A model of that family, and rows of features that it has not seen, with holes, unknown texts and values far out."""
    kind, frame = MADE[name], rows(count + 60)
    recipe = Recipe.model_validate({"family": {"kind": family, **said}})
    learned = Learned.of(frame[:count], kind, columns, "at")
    model = recipe.fit(kind, columns, learned, seed=1)
    asked = matrix(frame[count:], {each: TYPES[each] for each in columns}).reset_index(drop=True)
    asked.loc[:5, "amount"] = np.nan
    if "kind" in asked:
        asked.loc[3:8, "kind"] = "never seen"
    if "joined" in asked:
        asked.loc[7:9, "joined"] = pd.NaT
    asked.loc[10:12, "width"] = [1e9, -1e9, 0.0]
    return kind, model, asked, learned.features


def corrected(kind, model, features, method):
    """The same model, calibrated whether that helps or not."""
    truth = kind.truth(rows(len(features)))
    return calibrate._corrected(kind, model, features, truth, method)


def scores(kind, family, model, asked, chosen):
    """What base and contributions must add up to, from what the model answers."""
    if kind.name == "regression":
        return kind.answers(model, asked)
    if kind.name == "anomaly":
        return np.log2(kind.answers(model, asked))
    said = model.predict_proba(asked)
    of_class = said[np.arange(len(asked)), chosen]
    if family not in {"logistic", "hist_gradient_boosting"}:
        return of_class
    margins = model.decision_function(asked)
    return margins[np.arange(len(asked)), chosen] if margins.ndim == 2 else np.where(chosen == 1, margins, -margins)


def places(kind, model, asked):
    """For each row a class: the first, the second and so on, in turn."""
    classes = len(model.classes_) if kind.has_chances else 1
    return np.arange(len(asked)) % classes


@pytest.mark.parametrize(("name", "family"), EXACT)
def test_base_and_contributions_add_up_on_every_row(name, family):
    """For rows with holes, unknown texts and values far out, of every kind and family, the sum is the model's own score."""
    kind, model, asked, learned = fitted(name, family)
    explainer = Explainer.of(model, usual(model, learned))
    chosen = places(kind, model, asked)
    found = explainer.explain(asked, chosen)
    assert explainer.columns == tuple(COLUMNS)
    assert found.contributions.shape == (len(asked), len(COLUMNS))
    np.testing.assert_allclose(found.score, scores(kind, family, model, asked, chosen), rtol=1e-9, atol=1e-9)
    assert (np.abs(found.contributions).max(axis=0) > 0).sum() >= 3


@pytest.mark.parametrize("family", ["logistic", "hist_gradient_boosting", "random_forest"])
def test_of_two_classes_a_calibrated_answer_is_explained_as_it_is_given(family):
    """Calibration is inside: what adds up are the log-odds of the probability that is answered, for either class."""
    kind, model, asked, learned = fitted("binary", family)
    whole = corrected(kind, model, learned, "sigmoid")
    explainer = Explainer.of(whole, usual(whole, learned))
    found = explainer.explain(asked, places(kind, whole, asked))
    answered = whole.predict_proba(asked)[np.arange(len(asked)), places(kind, whole, asked)]
    assert explainer.scale == "log-odds"
    usable = (answered > 1e-12) & (answered < 1 - 1e-12)  # at the ends a probability has no digits left
    np.testing.assert_allclose(found.score[usable], logit(answered[usable]), rtol=1e-6, atol=1e-6)
    assert usable.sum() > 50


@pytest.mark.parametrize("family", ["logistic", "hist_gradient_boosting", "random_forest"])
def test_differences_between_classes_are_those_that_are_answered(family):
    """Of several classes, the difference of two scores is the logarithm of how much likelier one is, calibrated or not."""
    kind, model, asked, learned = fitted("multiclass", family)
    for each in (model, corrected(kind, model, learned, "temperature")):
        explainer = Explainer.of(each, usual(each, learned))
        first, second = (explainer.explain(asked, np.full(len(asked), place)).score for place in (0, 2))
        said = each.predict_proba(asked)
        if family == "random_forest":
            np.testing.assert_allclose(first - second, (model.predict_proba(asked)[:, 0] - model.predict_proba(asked)[:, 2]), atol=1e-9)  # fmt: skip
            continue
        usable = (said > 1e-9).all(axis=1)
        np.testing.assert_allclose((first - second)[usable], np.log(said[usable, 0] / said[usable, 2]), rtol=1e-6, atol=1e-6)  # fmt: skip


def shapley(worth, size):
    """Shapley values of a game by its definition: worth of a set of players to value of each."""
    values = np.zeros(size)
    for player in range(size):
        others = [other for other in range(size) if other != player]
        for count in range(size):
            for coalition in combinations(others, count):
                gain = worth({*coalition, player}) - worth(set(coalition))
                values[player] += gain / (size * comb(size - 1, count))
    return values


@pytest.mark.parametrize(("name", "family"), [("binary", "logistic"), ("regression", "ridge")])
def test_linear_contributions_are_shapley_values(name, family):
    """By brute force over all sets of columns, where a column that is not known has its training mean."""
    columns = {each: COLUMNS[each] for each in ("amount", "width", "kind")}
    _kind, model, asked, learned = fitted(name, family, columns=columns, count=400)
    found = Explainer.of(model, usual(model, learned)).explain(asked[:6], np.ones(6, dtype=int))
    prepared, means = model[:-1].transform(asked[:6]), model[:-1].transform(learned).mean(axis=0)
    made = origins(model[:-1], list(columns))
    asks = model[-1].decision_function if name == "binary" else model[-1].predict
    for row, parts in zip(prepared, found.contributions, strict=True):
        values = shapley(lambda known, row=row: float(asks([[row[n] if n in known else means[n] for n in range(len(row))]])[0]), len(row))  # fmt: skip
        summed = [sum(value for value, of in zip(values, made, strict=True) if of == name) for name in columns]
        np.testing.assert_allclose(parts, summed, atol=1e-9)
    np.testing.assert_allclose(found.base, asks([means])[0], atol=1e-9)


def expected(tree, node, row, known, place):
    """What a tree gives on average when only some columns of the row are known, node by node."""
    if not tree.splits[node]:
        return tree.mean[node, place]
    column, sides = tree.feature[node], (tree.left[node], tree.right[node])
    if column in known:
        left = tree.gone_left[node] if np.isnan(row[column]) else row[column] <= tree.threshold[node]
        return expected(tree, sides[0] if left else sides[1], row, known, place)
    return sum(tree.cover[side] * expected(tree, side, row, known, place) for side in sides) / tree.cover[node]


@pytest.mark.parametrize(("name", "family"), [pair for pair in TREES if pair[0] != "multiclass" or pair[1] != "extra_trees"])  # fmt: skip
def test_contributions_of_trees_are_shapley_values(name, family):
    """By brute force over all sets of columns, with expectations that walk the trees node by node."""
    read = ("amount", "width", "kind") if name == "anomaly" else ("amount", "width", "kind", "joined")
    columns = {each: COLUMNS[each] for each in read}
    kind, model, asked, _ = fitted(name, family, columns=columns, **SMALL[family])
    chosen = places(kind, model, asked[:5])
    explainer = Explainer.of(model)
    found = explainer.explain(asked[:5], chosen)
    score = contributions._score(model[-1], {})
    prepared = model[:-1].transform(asked[:5])
    made = origins(model[:-1], list(columns))
    assert isinstance(score, contributions._Trees)
    assert explainer.method == "tree shap"
    single = prepared.astype("float32").astype(float) if score.single else prepared
    for n, row in enumerate(single):
        several = len(score.trees) > 1
        sign = -1 if kind.name == "binary" and len(score.start) == 1 and chosen[n] == 0 else 1
        trees, place = (score.trees[chosen[n]], 0) if several else (score.trees[0], chosen[n] if len(score.start) > 1 else 0)  # fmt: skip
        values = sign * score.weight * shapley(lambda known, row=row, place=place, trees=trees: sum(expected(tree, 0, row, known, place) for tree in trees), single.shape[1])  # fmt: skip
        summed = [sum(value for value, of in zip(values, made, strict=True) if of == name) for name in columns]
        np.testing.assert_allclose(found.contributions[n], summed, atol=1e-9)


@pytest.mark.parametrize(("name", "family"), TREES)
def test_paths_of_large_forests_add_up_with_the_same_base(name, family, monkeypatch):
    """Where leaves are too many for Shapley values, contributions along the path have the same base and sum."""
    kind, model, asked, _ = fitted(name, family)
    chosen = places(kind, model, asked)
    exact = Explainer.of(model).explain(asked, chosen)
    monkeypatch.setattr(contributions, "LEAVES", 10)
    explainer = Explainer.of(model)
    along = explainer.explain(asked, chosen)
    assert explainer.method == "tree paths"
    np.testing.assert_allclose(along.base, exact.base, atol=1e-9)
    np.testing.assert_allclose(along.score, exact.score, atol=1e-9)
    assert not np.allclose(along.contributions, exact.contributions)
    agree = np.sign(along.contributions[:, :2]) == np.sign(exact.contributions[:, :2])
    assert agree.mean() > 0.6


@pytest.mark.parametrize(("name", "family"), TREES)
def test_shap_finds_the_same(name, family):
    """The package shap, where it is installed, agrees to the digit about every tree that it knows."""
    shap = pytest.importorskip("shap", exc_type=ImportError)
    _kind, model, asked, _ = fitted(name, family)
    if name == "anomaly" or (name == "multiclass" and family == "hist_gradient_boosting"):
        pytest.skip("shap parts another score of this one")
    prepared = np.asarray(model[:-1].transform(asked), dtype=float)
    other = shap.TreeExplainer(model[-1], feature_perturbation="tree_path_dependent").shap_values(prepared, check_additivity=False)  # fmt: skip
    made = contributions._collected(origins(model[:-1], list(COLUMNS)), list(COLUMNS))
    values = other if other.ndim == 2 else other[:, :, -1]
    chosen = np.full(len(asked), values.shape[0] and len(getattr(model, "classes_", [0])) - 1)
    found = Explainer.of(model).explain(asked, chosen)
    np.testing.assert_allclose(found.contributions, values @ made, atol=1e-6)


@pytest.mark.parametrize(("name", "family"), EXACT)
def test_every_prepared_column_knows_where_it_came_from(name, family):
    """Changing one raw column changes prepared columns that are said to be made of it, and no others."""
    _, model, asked, _ = fitted(name, family)
    made = np.array(origins(model[:-1], list(COLUMNS)))
    before = np.asarray(model[:-1].transform(asked), dtype=float)
    assert before.shape[1] == len(made)
    for column in COLUMNS:
        changed = asked.assign(**{column: asked[column].iloc[::-1].array})
        after = np.asarray(model[:-1].transform(changed), dtype=float)
        moved = ~np.isclose(before, after, equal_nan=True).all(axis=0)
        assert moved.any()
        assert set(made[moved]) == {column}


def test_a_missing_value_counts_for_its_column():
    """The sign that a number was empty belongs to the number: with one column there is one contribution."""
    columns = {each: COLUMNS[each] for each in ("amount", "width")}
    _, model, asked, learned = fitted("binary", "logistic", columns=columns)
    assert origins(model[:-1], list(columns)) == ["amount", "width", "amount"]
    found = Explainer.of(model, usual(model, learned)).explain(asked, np.ones(len(asked), dtype=int))
    assert found.contributions.shape == (len(asked), 2)


def test_questions_are_bounded():
    """More rows than a model's limit are refused with the limit; a model with more leaves takes fewer rows."""
    _, model, asked, _ = fitted("binary", "hist_gradient_boosting")
    explainer = Explainer.of(model)
    many = pd.concat([asked] * 3, ignore_index=True)
    with pytest.raises(UnexplainedError, match=rf"There are 180 rows to explain; wanted at most {explainer.most} "):
        explainer.explain(many, np.ones(180, dtype=int))
    _, forest, _, _ = fitted("binary", "random_forest", n_estimators=200, min_samples_leaf=1)
    assert Explainer.of(forest).most < explainer.most


def test_a_version_without_means_is_refused():
    """A linear model that was made before has no training means: the message says to train again."""
    _, model, _, _ = fitted("binary", "logistic")
    with pytest.raises(UnexplainedError, match="Train again"):
        Explainer.of(model, {})


def test_a_step_that_nobody_knows_is_refused():
    """A preparation of another kind is not guessed at."""
    _, _, asked, _ = fitted("binary", "logistic")
    prepare = ColumnTransformer([("n", PolynomialFeatures(), ["width"])])
    model = Pipeline([("prepare", prepare), ("model", LogisticRegression())]).fit(asked, np.arange(len(asked)) % 2)
    with pytest.raises(UnexplainedError, match="PolynomialFeatures"):
        Explainer.of(model, {"means": [0.0, 0.0, 0.0]})


@pytest.mark.parametrize(("name", "family"), SAMPLED)
def test_other_models_are_explained_by_shap(name, family):
    """With the extra `explain`, base and contributions add up to the answer; telling columns tell more than the name of a town."""
    pytest.importorskip("shap", exc_type=ImportError)
    kind, model, asked, learned = fitted(name, family, count=300)
    explainer = Explainer.of(model, usual(model, learned))
    asked = asked[:: len(asked) // explainer.most][: explainer.most].reset_index(drop=True)
    chosen = places(kind, model, asked)
    found = explainer.explain(asked, chosen)
    said = model.predict_proba(asked)[np.arange(len(asked)), chosen] if kind.has_chances else kind.answers(model, asked)
    np.testing.assert_allclose(found.score, said, rtol=1e-9, atol=1e-9)
    assert explainer.explain(asked, chosen).contributions.tolist() == found.contributions.tolist()


def test_without_shap_the_message_names_the_extra(monkeypatch):
    """Where shap is not installed, other models are refused with what to install."""
    _, model, _, learned = fitted("binary", "nearest_neighbours", count=200)
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(UnexplainedError, match="extra 'explain'"):
        Explainer.of(model, usual(model, learned))


def test_the_usual_row_names_nobody():
    """Medians, and a text only where five rows have it: a usual row is of many, and JSON can hold it."""
    _, model, _, learned = fitted("binary", "nearest_neighbours", count=200)
    row = usual(model, learned)["row"]
    assert row["amount"] == pytest.approx(learned["amount"].median())
    assert row["kind"] == learned["kind"].mode()[0]
    assert row["town"] is None
    assert pd.Timestamp(row["joined"]) in set(learned["joined"].dropna())
    assert usual(model, learned.assign(amount=np.nan))["row"]["amount"] is None


def test_columns_of_other_types_are_explained():
    """A bool and a whole number are columns like others."""
    columns = {"yes": Column(type="bool"), "count": Column(type="int"), "at": Column(type="datetime")}
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"yes": pd.array(rng.random(300) > 0.5, dtype="boolean"), "count": rng.integers(0, 9, 300), "at": pd.date_range("2026-01-01", periods=300, freq="h", tz="UTC")})  # fmt: skip
    frame["number"] = frame["count"] * 2.0 - frame["yes"].astype(float) * 5
    kind = MADE["regression"]
    learned = Learned.of(frame, kind, columns, "at")
    model = Recipe.usual("ridge").fit(kind, columns, learned, seed=1)
    found = Explainer.of(model, usual(model, learned.features)).explain(learned.features[:50], np.zeros(50, dtype=int))
    assert np.corrcoef(found.contributions[:, 1], frame["count"][:50])[0, 1] > 0.999
    assert (found.contributions[frame["yes"][:50].to_numpy(dtype=bool), 0] < 0).all()
