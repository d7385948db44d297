"""Model families: what Optuna may choose from, and the pipeline that comes of a choice.

scikit-learn is imported where it is used: reading a project must stay light.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import BaseTrial
    from sklearn.pipeline import Pipeline

    from tasks.ml.contract import Column


@dataclass(frozen=True)
class Range:
    """Where Optuna may look for one parameter."""

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def suggest(self, trial: "BaseTrial", name: str) -> float:
        """A try from this range."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


RARE = 0.002  # categories rarer than this share of the training rows are one
WIDE = 64  # text columns with more values than this are encoded by the target that goes with each

# The most rows that one tree of a forest is grown on: it costs no more, and grows no larger, than its trees however long the history is. On
# 121,050 rows of fraud a random forest took 39 CPU-seconds instead of 71, at an average precision of .663 instead of .662.
DRAWS = 60_000


class _Family(BaseModel, frozen=True, extra="forbid"):
    """One family of models and its parameters.

    Attributes:
        fits: the problem kinds that it can learn.
        space: where a search may look for each parameter.
        needs: how its columns must come: `scaled` numbers and one-hot texts, or `plain` ones, or plain ones without gaps.
        weighs: whether rows may count differently.
        rank: among equally good models the one of the lowest rank is taken: it is the plainer, smaller, faster one.
    """

    kind: str

    fits: ClassVar[tuple[str, ...]] = ()
    space: ClassVar[dict[str, Range]] = {}
    needs: ClassVar[Literal["scaled", "plain", "filled"]] = "plain"
    weighs: ClassVar[bool] = True
    rank: ClassVar[int] = 9

    @property
    def size(self) -> float:
        """How large a model is, for comparing two of one family: more is larger."""
        return 0.0

    def drawn(self, rows: int) -> dict[str, Any]:  # noqa: ARG002 -- the interface
        """What the estimator must be told so that a tree grows on no more than `DRAWS` of so many rows; nothing where it does not anyway."""
        return {}

    def estimator(self, seed: int, problem: str, threads: int) -> Any:
        """The unfitted scikit-learn estimator."""
        raise NotImplementedError


class Logistic(_Family):
    """Logistic regression on imputed, scaled numbers and one-hot categories."""

    kind: Literal["logistic"] = "logistic"
    C: float = Field(default=1.0, gt=0, description="inverse strength of the L2 penalty")

    fits: ClassVar = ("binary", "multiclass")
    space: ClassVar = {"C": Range(1e-3, 1e2)}
    needs: ClassVar = "scaled"
    rank: ClassVar = 1

    def estimator(self, seed: int, problem: str, threads: int) -> Any:  # noqa: ARG002 -- the interface
        """The unfitted scikit-learn estimator."""
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=self.C, max_iter=1000, random_state=seed)


class Ridge(_Family):
    """Least squares with an L2 penalty on imputed, scaled numbers and one-hot categories."""

    kind: Literal["ridge"] = "ridge"
    alpha: float = Field(default=1.0, gt=0, description="strength of the L2 penalty")

    fits: ClassVar = ("regression",)
    space: ClassVar = {"alpha": Range(1e-3, 1e4)}
    needs: ClassVar = "scaled"
    rank: ClassVar = 1

    def estimator(self, seed: int, problem: str, threads: int) -> Any:  # noqa: ARG002 -- the interface
        """The unfitted scikit-learn estimator."""
        from sklearn.linear_model import Ridge as Estimator

        return Estimator(alpha=self.alpha, random_state=seed)


class HistGradientBoosting(_Family):
    """Histogram gradient boosting on numbers and ordinal categories; missing values are a branch of their own."""

    kind: Literal["hist_gradient_boosting"] = "hist_gradient_boosting"
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    max_iter: int = Field(default=150, ge=1, le=5000)
    max_leaf_nodes: int = Field(default=31, ge=2)
    min_samples_leaf: int = Field(default=20, ge=1)
    l2_regularization: float = Field(default=1e-3, ge=0)
    max_features: float = Field(default=1.0, gt=0, le=1, description="share of the features that a cut may choose from")

    fits: ClassVar = ("binary", "multiclass", "regression")
    space: ClassVar = {
        "learning_rate": Range(0.02, 0.3),
        "max_iter": Range(50, 400, whole=True),
        "max_leaf_nodes": Range(4, 63, whole=True),
        "min_samples_leaf": Range(5, 100, whole=True),
        "l2_regularization": Range(1e-3, 10.0),
        "max_features": Range(0.3, 1.0, log=False),
    }
    rank: ClassVar = 2

    @property
    def size(self) -> float:
        """Leaves in all."""
        return float(self.max_iter * self.max_leaf_nodes)

    def estimator(self, seed: int, problem: str, threads: int) -> Any:  # noqa: ARG002 -- OpenMP is told by `threads`
        """The unfitted scikit-learn estimator; early stopping is off because it would validate on a random tenth."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        of = HistGradientBoostingRegressor if problem == "regression" else HistGradientBoostingClassifier
        return of(early_stopping=False, random_state=seed, **self.model_dump(exclude={"kind"}))


class _Trees(_Family):
    """What forests have in common."""

    n_estimators: int = Field(default=100, ge=1, le=2000)
    min_samples_leaf: int = Field(default=5, ge=1)
    max_features: float = Field(
        default=0.5, gt=0, le=1, description="share of the features that a split may choose from"
    )

    fits: ClassVar = ("binary", "multiclass", "regression")
    space: ClassVar = {
        "n_estimators": Range(50, 200, whole=True),
        "min_samples_leaf": Range(1, 100, whole=True),
        "max_features": Range(0.1, 1.0, log=False),
    }

    @property
    def size(self) -> float:
        """Leaves in all, up to a factor."""
        return self.n_estimators / self.min_samples_leaf

    def drawn(self, rows: int) -> dict[str, Any]:
        """So many rows for each tree, with replacement: scikit-learn draws no part without."""
        return {"bootstrap": True, "max_samples": DRAWS} if rows > DRAWS else {}


class RandomForest(_Trees):
    """A random forest on numbers and ordinal categories."""

    kind: Literal["random_forest"] = "random_forest"

    rank: ClassVar = 3

    def estimator(self, seed: int, problem: str, threads: int) -> Any:
        """The unfitted scikit-learn estimator."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        of = RandomForestRegressor if problem == "regression" else RandomForestClassifier
        return of(n_jobs=threads, random_state=seed, **self.model_dump(exclude={"kind"}))


class ExtraTrees(_Trees):
    """A forest of extremely randomised trees: cuts are drawn, and the best of them taken."""

    kind: Literal["extra_trees"] = "extra_trees"

    rank: ClassVar = 4

    def estimator(self, seed: int, problem: str, threads: int) -> Any:
        """The unfitted scikit-learn estimator."""
        from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        of = ExtraTreesRegressor if problem == "regression" else ExtraTreesClassifier
        return of(n_jobs=threads, random_state=seed, **self.model_dump(exclude={"kind"}))


class NearestNeighbours(_Family):
    """The most similar training rows decide. The model holds them all: not for personal data, nor for many rows."""

    kind: Literal["nearest_neighbours"] = "nearest_neighbours"
    n_neighbors: int = Field(default=25, ge=1)

    fits: ClassVar = ("binary", "multiclass", "regression")
    space: ClassVar = {"n_neighbors": Range(3, 200, whole=True)}
    needs: ClassVar = "scaled"
    weighs: ClassVar = False
    rank: ClassVar = 5

    def estimator(self, seed: int, problem: str, threads: int) -> Any:  # noqa: ARG002 -- nothing is drawn
        """The unfitted scikit-learn estimator; without a tree, whose compiled code would trust a file's indices."""
        from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

        of = KNeighborsRegressor if problem == "regression" else KNeighborsClassifier
        return of(algorithm="brute", weights="distance", n_jobs=threads, **self.model_dump(exclude={"kind"}))


class IsolationForest(_Family):
    """How few random cuts set a row apart from the others."""

    kind: Literal["isolation_forest"] = "isolation_forest"
    n_estimators: int = Field(default=100, ge=1, le=2000)
    max_samples: float = Field(default=0.1, gt=0, le=1, description="share of the rows that a tree is grown on")

    fits: ClassVar = ("anomaly",)
    space: ClassVar = {"n_estimators": Range(50, 300, whole=True), "max_samples": Range(0.01, 1.0)}
    needs: ClassVar = "filled"
    rank: ClassVar = 2

    @property
    def size(self) -> float:
        """Leaves in all, up to a factor."""
        return self.n_estimators * self.max_samples

    def drawn(self, rows: int) -> dict[str, Any]:
        """Where the share is more rows than that, so many in its place."""
        return {"max_samples": DRAWS} if int(self.max_samples * rows) > DRAWS else {}

    def estimator(self, seed: int, problem: str, threads: int) -> Any:  # noqa: ARG002 -- the interface
        """The unfitted scikit-learn estimator."""
        from sklearn.ensemble import IsolationForest as Estimator

        return Estimator(n_jobs=threads, random_state=seed, **self.model_dump(exclude={"kind"}))


class GaussianMixture(_Family):
    """The density of a mixture of Gaussians: rows where it is low are odd."""

    kind: Literal["gaussian_mixture"] = "gaussian_mixture"
    n_components: int = Field(default=4, ge=1, le=100)
    reg_covar: float = Field(
        default=1e-3, gt=0, description="added to every variance, in variances of the scaled columns"
    )

    fits: ClassVar = ("anomaly",)
    space: ClassVar = {"n_components": Range(1, 24, whole=True), "reg_covar": Range(1e-4, 1e-1)}
    needs: ClassVar = "scaled"
    weighs: ClassVar = False
    rank: ClassVar = 1

    @property
    def size(self) -> float:
        """Gaussians."""
        return float(self.n_components)

    def estimator(self, seed: int, problem: str, threads: int) -> Any:  # noqa: ARG002 -- the interface
        """The unfitted scikit-learn estimator."""
        from sklearn.mixture import GaussianMixture as Estimator

        return Estimator(random_state=seed, **self.model_dump(exclude={"kind"}))


class Favourites(_Family):
    """What the user took before, smoothed with what everybody takes; with a half-life as window, what was taken lately."""

    kind: Literal["favourites"] = "favourites"
    smoothing: float = Field(default=5.0, gt=0, description="rows of what is popular that everybody begins with")

    fits: ClassVar = ("recommendation",)
    space: ClassVar = {"smoothing": Range(0.1, 1000.0)}
    rank: ClassVar = 1

    def estimator(self, seed: int, problem: str, threads: int) -> Any:  # noqa: ARG002 -- nothing is drawn
        """The unfitted recommender."""
        from tasks.ml.recommenders import Favourites as Estimator

        return Estimator(**self.model_dump(exclude={"kind"}))


class ItemNeighbours(_Family):
    """What goes with the user's own items, by who took both."""

    kind: Literal["item_neighbours"] = "item_neighbours"
    neighbours: int = Field(default=20, ge=1, le=500, description="items that may speak for one")
    shrinkage: float = Field(default=10.0, ge=0, description="makes likenesses small that rest on few users")

    fits: ClassVar = ("recommendation",)
    space: ClassVar = {"neighbours": Range(1, 200, whole=True), "shrinkage": Range(1.0, 1000.0)}
    rank: ClassVar = 2

    @property
    def size(self) -> float:
        """Neighbours."""
        return float(self.neighbours)

    def estimator(self, seed: int, problem: str, threads: int) -> Any:  # noqa: ARG002 -- nothing is drawn
        """The unfitted recommender."""
        from tasks.ml.recommenders import ItemNeighbours as Estimator

        return Estimator(**self.model_dump(exclude={"kind"}))


class Factors(_Family):
    """A few directions of taste that explain most of who took what."""

    kind: Literal["factors"] = "factors"
    components: int = Field(default=32, ge=1, le=500, description="directions")

    fits: ClassVar = ("recommendation",)
    space: ClassVar = {"components": Range(4, 128, whole=True)}
    rank: ClassVar = 3

    @property
    def size(self) -> float:
        """Directions."""
        return float(self.components)

    def estimator(self, seed: int, problem: str, threads: int) -> Any:  # noqa: ARG002 -- the interface
        """The unfitted recommender."""
        from tasks.ml.recommenders import Factors as Estimator

        return Estimator(random_state=seed, **self.model_dump(exclude={"kind"}))


Family = Annotated[
    Logistic
    | Ridge
    | HistGradientBoosting
    | RandomForest
    | ExtraTrees
    | NearestNeighbours
    | IsolationForest
    | GaussianMixture
    | Favourites
    | ItemNeighbours
    | Factors,
    Field(discriminator="kind"),
]
FamilyName = Literal[
    "hist_gradient_boosting", "logistic", "ridge", "random_forest", "extra_trees", "isolation_forest", "gaussian_mixture",
    "nearest_neighbours", "favourites", "item_neighbours", "factors",
]  # fmt: skip
FAMILIES: dict[str, type[_Family]] = {  # the order in which defaults are tried
    family.model_fields["kind"].default: family
    for family in (
        HistGradientBoosting, Logistic, Ridge, RandomForest, ExtraTrees, GaussianMixture, IsolationForest, NearestNeighbours,
        Favourites, ItemNeighbours, Factors,
    )
}  # fmt: skip
OWN_ROWS = frozenset({"nearest_neighbours"})  # families whose models hold training rows: only where a project asks


def families_of(problem: str) -> tuple[str, ...]:
    """The families that are searched for a problem kind when the project names none, in the order of their defaults.

    >>> families_of("regression")
    ('hist_gradient_boosting', 'ridge', 'random_forest', 'extra_trees')
    """
    return tuple(name for name, family in FAMILIES.items() if problem in family.fits and name not in OWN_ROWS)


def pipeline(
    family: _Family,
    columns: "dict[str, Column]",
    seed: int,
    problem: str = "binary",
    wide: Collection[str] = (),
    threads: int = 1,
    user: str = "",
) -> "Pipeline":
    """The unfitted pipeline over the feature columns: preparation travels inside the model, fitted on the rows that it learns from only.

    Args:
        family: the model.
        columns: the feature columns in order.
        seed: of whatever is drawn.
        problem: the problem kind.
        wide: text columns with many values; each value becomes what the target usually is with it.
        threads: how many the estimator itself may use; OpenMP's are set by `threads`.
        user: the only column that a recommender reads.
    """  # fmt: skip
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    from tasks.ml.transformers import DateParts

    if problem == "recommendation":
        who = ColumnTransformer([("user", "passthrough", [name for name in columns if name == user])])
        return Pipeline([("prepare", who), ("model", family.estimator(seed, problem, threads))])
    by_target = [name for name in columns if name in wide and problem != "anomaly"]
    texts = [name for name, column in columns.items() if column.type in {"text", "category"} and name not in by_target]
    dates = [name for name, column in columns.items() if column.type == "datetime"]
    numbers = [name for name in columns if name not in {*texts, *dates, *by_target}]
    steps = [
        ("numbers", _numbers(family.needs), numbers),
        ("texts", _one_hot() if family.needs == "scaled" else _ordinal(), texts),
        ("dates", _after(DateParts(), family.needs), dates),
        ("wide", _after(_by_target(seed, problem), family.needs), by_target),
    ]
    prepare = ColumnTransformer([step for step in steps if step[2]], verbose_feature_names_out=False)
    return Pipeline([("prepare", prepare), ("model", family.estimator(seed, problem, threads))])


def wide(columns: "dict[str, Column]", features: "pd.DataFrame") -> tuple[str, ...]:
    """The text columns with more values in these rows than a column each, or a place each, can be given."""
    texts = (name for name, column in columns.items() if column.type in {"text", "category"})
    return tuple(name for name in texts if features[name].nunique() > WIDE)


def observed(columns: "dict[str, Column]", features: "pd.DataFrame") -> "dict[str, Column]":
    """The columns that hold any value in these rows: one without teaches nothing, and boosting does not fit on it."""
    return {name: column for name, column in columns.items() if features[name].notna().any()}


def _numbers(needs: str) -> Any:
    if needs == "plain":
        return "passthrough"
    return _scaled() if needs == "scaled" else _filled()


def _after(first: Any, needs: str) -> Any:
    """A step, and what the family needs of the numbers that it gives."""
    from sklearn.pipeline import Pipeline

    return first if needs == "plain" else Pipeline([("make", first), ("numbers", _numbers(needs))])


def _filled() -> Any:
    from sklearn.impute import SimpleImputer

    return SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)


def _scaled() -> "Pipeline":
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline([("impute", _filled()), ("scale", StandardScaler(copy=False))])  # the imputer has made a copy


def _by_target(seed: int, problem: str) -> Any:
    """Fitted out of fold, so that a row's own target is not in its feature. Rows of two classes only are encoded as a binary target's are."""
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.preprocessing import TargetEncoder

    deals = KFold if problem == "regression" else StratifiedKFold
    types = {"regression": "continuous", "multiclass": "auto"}  # told that they are many, it fails on two
    return TargetEncoder(
        target_type=types.get(problem, problem),
        cv=deals(5, shuffle=True, random_state=seed),
    )


def _one_hot() -> Any:
    from sklearn.preprocessing import OneHotEncoder

    return OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=RARE, sparse_output=False)


def _ordinal() -> Any:
    from sklearn.preprocessing import OrdinalEncoder

    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
