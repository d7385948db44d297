"""Recommenders: their answers against the formulas by hand, for users and items of every sort."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score

from tasks.ml import models
from tasks.ml.contract import Column
from tasks.ml.kinds import Recommendation, coded
from tasks.ml.metrics import METRICS, resampled
from tasks.ml.models import families_of
from tasks.ml.recipe import Learned, Recipe
from tasks.ml.recommenders import Factors, Favourites, ItemNeighbours
from tasks.ml.window import Window
from tasks.stores import bundles

KINDS = [Favourites, ItemNeighbours, Factors]


def purchases(users=40, items=15, rows=900, seed=0):
    """Rows (n, 1) of numbered users and the items that they took: each has some that it likes."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, users, rows)
    liked = (who * 7 + rng.integers(0, 3, rows)) % items
    return who[:, None].astype(float), np.array(
        [f"i{n:02}" for n in np.where(rng.random(rows) < 0.7, liked, rng.integers(0, items, rows))]
    )


def table(X, y, weights=None):
    """Who took what how much, as a frame."""
    return pd.crosstab(X[:, 0], y, values=np.ones(len(y)) if weights is None else weights, aggfunc="sum").fillna(0.0)


def ranked(scores, k):
    """The names of the k best columns of each row."""
    return [row.sort_values(ascending=False).index[:k].tolist() for _, row in scores.iterrows()]


def test_favourites_are_own_counts_and_pseudo_counts():
    """The score of an item is (own weight + smoothing · popular share) / (all own weight + smoothing)."""
    X, y = purchases()
    weights = np.random.default_rng(1).random(len(y))
    model = Favourites(smoothing=3.0).fit(X, y, sample_weight=weights)
    counts = table(X, y, weights)
    mixed = counts + 3.0 * counts.sum() / counts.to_numpy().sum()
    expected = mixed.div(mixed.sum(axis=1), axis=0)
    names, scores = model.top(expected.index.to_numpy()[:, None], 15)
    for user, row, values in zip(expected.index, names, scores, strict=True):
        np.testing.assert_allclose(values, expected.loc[user, row].to_numpy())
        assert (np.diff(values) <= 0).all()


def test_neighbours_are_shrunken_cosines():
    """With every item as a neighbour the score is log counts times the matrix of shrunken cosines."""
    X, y = purchases()
    model = ItemNeighbours(neighbours=15, shrinkage=4.0).fit(X, y)
    logs = np.log1p(table(X, y))
    both, norms = logs.T @ logs, np.sqrt((logs**2).sum())
    expected = logs @ (both / (np.outer(norms, norms) + 4.0))
    names, scores = model.top(expected.index.to_numpy()[:, None], 5)
    assert names.tolist() == ranked(expected, 5)
    for user, row, values in zip(expected.index, names, scores, strict=True):
        np.testing.assert_allclose(values, expected.loc[user, row].to_numpy(), atol=1e-8)


def test_factors_are_the_best_matrix_of_low_rank():
    """The scores are numpy's truncated singular value decomposition of the log counts."""
    X, y = purchases()
    model = Factors(components=4, random_state=1).fit(X, y)
    logs = np.log1p(table(X, y))
    left, strengths, right = np.linalg.svd(logs.to_numpy(), full_matrices=False)
    expected = pd.DataFrame((left[:, :4] * strengths[:4]) @ right[:4], logs.index, logs.columns)
    names, scores = model.top(expected.index.to_numpy()[:, None], 3)
    for user, row, values in zip(expected.index, names, scores, strict=True):
        np.testing.assert_allclose(values, expected.loc[user, row].to_numpy(), atol=0.02)
        np.testing.assert_allclose(values[0], expected.loc[user].max(), atol=0.02)


@pytest.mark.parametrize("of", KINDS)
def test_somebody_new_gets_what_is_popular(of):
    """A user who was never seen, one without a name, and one of another type get the items that all took most, each with its share."""
    X, y = purchases()
    model = of().fit(X, y)
    shares = pd.Series(y).value_counts(normalize=True)
    for who in (np.array([[1e6], [np.nan]]), np.array([["never seen"], [None]], dtype=object), np.empty((2, 0))):
        names, scores = model.top(who, 4)
        np.testing.assert_allclose(scores, np.tile(shares.to_numpy()[:4], (2, 1)))
        np.testing.assert_allclose(shares[names[0]].to_numpy(), shares.to_numpy()[:4])
        assert names[0].tolist() == names[1].tolist()
        assert model.predict(who).tolist() == [names[0, 0]] * 2


@pytest.mark.parametrize("of", KINDS)
def test_numbers_and_texts_name_users_alike(of):
    """Whether users are numbered or named, and whatever stands around a row, it has the same answer."""
    X, y = purchases()
    named = np.array([[f"u{int(n):03}"] for (n,) in X], dtype=object)
    by_number, by_name = of().fit(X, y), of().fit(named, y)
    asked = np.arange(40)
    whole, scores = by_number.top(asked[:, None].astype(float), 6)
    again, _ = by_name.top(np.array([[f"u{n:03}"] for n in asked], dtype=object), 6)
    assert whole.tolist() == again.tolist()
    for n in (0, 17, 39):
        alone, score = by_number.top(np.array([[float(n)]]), 6)
        assert alone.tolist() == [whole[n].tolist()]
        np.testing.assert_allclose(score[0], scores[n])


@pytest.mark.parametrize("of", KINDS)
def test_fewer_items_than_are_asked_for_leave_the_rest_empty(of):
    """Of two items and five places three are empty with a score of 0; rows without weight teach nothing of their user."""
    model = of().fit(
        np.array([[1.0], [1.0], [2.0]]), np.array(["a", "b", "b"]), sample_weight=np.array([1.0, 1.0, 0.0])
    )
    names, scores = model.top(np.array([[1.0], [2.0]]), 5)
    assert [sorted(row[:2]) for row in names.tolist()] == [["a", "b"]] * 2
    assert (names[:, 2:] == "").all()
    assert (scores[:, 2:] == 0).all()
    assert coded(names)[:, 2:].tolist() == [[-1.0] * 3] * 2


def test_the_catalogue_is_bounded(monkeypatch):
    """Only the items that were taken most are kept, and nothing else is ever named."""
    monkeypatch.setattr("tasks.ml.recommenders.MOST_ITEMS", 4)
    X, y = purchases()
    most = pd.Series(y).value_counts()
    for of in KINDS:
        names, _ = of().fit(X, y).top(X, 10)
        assert set(names.ravel()) - {""} <= set(most.index[most >= most.iloc[3]])
        assert ((names != "").sum(axis=1) == 4).all()


@pytest.mark.parametrize("family", families_of("recommendation"))
def test_two_fits_have_one_digest(family, tmp_path):
    """The same rows give the same bytes."""
    kind, columns = Recommendation("item", "who", k=3), {"who": Column(type="float")}
    X, y = purchases()
    rows = pd.DataFrame({"who": X[:, 0], "item": y, "at": pd.date_range("2026", periods=len(y), tz="UTC")})
    learned = Learned.of(rows, kind, columns, "at")
    first, second = (
        bundles.write(tmp_path / str(n), Recipe.usual(family).fit(kind, columns, learned, seed=1), {}) for n in (1, 2)
    )
    assert first == second


@pytest.mark.parametrize(
    ("of", "altered"),
    [(Favourites, "own_"), (ItemNeighbours, "own_"), (ItemNeighbours, "sources_"), (Factors, "tastes_")],
)
def test_an_index_that_points_outside_raises(of, altered):
    """Numbers of a crafted file that lead nowhere are an error, never somebody else's memory."""
    X, y = purchases()
    model = of().fit(X, y)
    numbers = getattr(model, altered)
    setattr(model, altered, numbers[:0] if altered == "tastes_" else numbers + 10**6)
    with pytest.raises(IndexError):
        model.top(X[:5], 3)


def test_a_half_life_forgets_old_tastes():
    """Of two items that were taken equally often the one that was taken lately comes first when rows fade, in either order."""
    kind, columns = Recommendation("item", "who", k=1), {"who": Column(type="text")}
    for old, new in (("a", "b"), ("b", "a")):
        rows = pd.DataFrame(
            {"who": "x", "item": [old] * 20 + [new] * 20, "at": pd.date_range("2026", periods=40, tz="UTC")}
        )
        learned = Learned.of(rows, kind, columns, "at")
        recipe = Recipe(family=models.Favourites(), window=Window(kind="decay", days=5))
        model = recipe.fit(kind, columns, learned, seed=1)
        assert kind.answers(model, learned.features.head(1)).tolist() == coded(np.array([[new]])).tolist()


def questions(seed, users=30, items=25, k=10):
    """Truth as 0 and 1 and scores without ties, (users, items), and the same as codes."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((users, items)) < rng.random((users, 1)) * 0.8).astype(int)
    truth[truth.sum(axis=1) == 0, 3] = 1
    scores = rng.permuted(np.tile(np.arange(items, dtype=float), (users, 1)), axis=1)
    y = np.full((users, truth.sum(axis=1).max()), -1.0)
    for row, taken in enumerate(truth):
        y[row, : taken.sum()] = np.flatnonzero(taken)
    return truth, scores, y, np.argsort(-scores, axis=1)[:, :k].astype(float)


@pytest.mark.parametrize("k", [1, 3, 10, 25])
@pytest.mark.parametrize("seed", range(3))
def test_ndcg_is_scikit_learns(seed, k):
    """Users with fewer and with more than k items, weighted or not."""
    truth, scores, y, p = questions(seed, k=k)
    weights = np.random.default_rng(seed).integers(0, 4, len(y)).astype(float)
    metric = METRICS["ndcg_at_k"]
    assert metric.of(y, p) == pytest.approx(ndcg_score(truth, scores, k=k))
    assert metric.scores(y, p, weights[None])[0] == pytest.approx(ndcg_score(truth, scores, k=k, sample_weight=weights))


@pytest.mark.parametrize("k", [1, 3, 10])
def test_recall_and_reciprocal_rank_by_brute_force(k):
    """Counted with sets, user by user; a bootstrap sample of the users is the mean over the users drawn."""
    _, _, y, p = questions(5, k=k)
    taken = [set(row[row >= 0]) for row in y]
    recalls = [len(set(named) & of) / len(of) for named, of in zip(p, taken, strict=True)]
    places = [
        next((1 / (at + 1) for at, item in enumerate(named) if item in of), 0.0)
        for named, of in zip(p, taken, strict=True)
    ]
    assert METRICS["recall_at_k"].of(y, p) == pytest.approx(np.mean(recalls))
    assert METRICS["mrr"].of(y, p) == pytest.approx(np.mean(places))
    drawn = np.random.default_rng(3).integers(0, len(y), len(y))
    assert resampled(METRICS["recall_at_k"], y, p, 1, 3)[0] == pytest.approx(np.mean(np.array(recalls)[drawn]))


def test_items_that_nobody_could_know_count_against_recall():
    """Of four items taken, two of which the model has never met, the two others named give half; an empty place is never right."""
    y = coded(np.array([["milk", "new", "eggs", "newer"]]))
    p = coded(np.array([["eggs", "milk", ""]]))
    assert METRICS["recall_at_k"].of(y, p) == 0.5
    assert METRICS["recall_at_k"].of(np.array([[-1.0, -1.0, 5.0]]), np.array([[-1.0, 5.0]])) == 1.0


def test_a_users_rows_are_one_question():
    """Users in order of appearance, their items each once, and what is known of rows only where it is known of all of a user's."""
    kind = Recommendation("item", "who")
    features = pd.DataFrame({"who": ["b", "a", "b", None, "a", None]})
    asked, truth = kind.asked(features, np.array(["x", "y", "z", "x", "y", "z"], dtype=object), 0)
    assert asked["who"].fillna("").tolist() == ["b", "a", ""]
    x, y, z = coded(np.array(["x", "y", "z"])).tolist()
    assert [set(row) for row in truth.tolist()] == [{x, z}, {y, -1.0}, {x, z}]
    assert kind.told(features, np.array([True, True, False, True, True, True])).tolist() == [False, True, True]
    assert kind.told(features, np.array(["3", "2", "1", "5", "4", "6"], dtype=object)).tolist() == ["1", "2", "5"]


def test_what_is_popular_needs_no_learning():
    """`popular` is the ranking of all rows before, `popular lately` that of the newest tenth, for everybody alike."""
    kind = Recommendation("item", "who", k=2)
    before = np.array(["a"] * 50 + ["b"] * 41 + ["c"] * 9, dtype=object)
    said = kind.naive(before, np.zeros((3, 1)))
    assert said["popular"].tolist() == [coded(np.array(["a", "b"])).tolist()] * 3
    assert said["popular lately"].tolist() == [coded(np.array(["c", "b"])).tolist()] * 3


def test_an_item_named_twice_is_unsound():
    """A place that is empty may come twice, an item may not."""
    kind = Recommendation("item", "who")
    assert kind.unsound(np.array([[5.0, -1.0, -1.0], [6.0, 5.0, -1.0]])) == ""
    assert kind.unsound(np.array([[5.0, 6.0, 5.0], [6.0, 5.0, -1.0]])) == "1 of 2 answers name an item twice"


def test_codes_are_whole_numbers_that_differ():
    """100,000 names have as many codes, each of which a float64 holds exactly."""
    codes = coded(np.array([f"item {n}" for n in range(100_000)]))
    assert len(np.unique(codes)) == 100_000
    assert (codes == codes.astype(np.int64)).all()
    assert ((codes >= 0) & (codes < 2**52)).all()
