"""Model families: what Optuna may choose from, and the pipeline that comes of a choice.

scikit-learn is imported where it is used: reading a project must stay light.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from optuna import Trial
    from sklearn.pipeline import Pipeline

    from tasks.ml.contract import Column


@dataclass(frozen=True)
class Range:
    """Where Optuna may look for one parameter."""

    low: float
    high: float
    log: bool = True
    whole: bool = False

    def suggest(self, trial: "Trial", name: str) -> float:
        """A try from this range."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


RARE = 0.002  # categories rarer than this share of the training rows are one


class Logistic(BaseModel, frozen=True, extra="forbid"):
    """Logistic regression on imputed, scaled numbers and one-hot categories."""

    kind: Literal["logistic"] = "logistic"
    C: float = Field(default=1.0, gt=0, description="inverse strength of the L2 penalty")

    space: ClassVar[dict[str, Range]] = {"C": Range(1e-3, 1e2)}

    def estimator(self, seed: int) -> Any:
        """The unfitted scikit-learn estimator."""
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=self.C, max_iter=1000, random_state=seed)


class HistGradientBoosting(BaseModel, frozen=True, extra="forbid"):
    """Histogram gradient boosting on numbers and ordinal categories; missing values are a branch of their own."""

    kind: Literal["hist_gradient_boosting"] = "hist_gradient_boosting"
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    max_iter: int = Field(default=150, ge=1, le=5000)
    max_leaf_nodes: int = Field(default=31, ge=2)
    min_samples_leaf: int = Field(default=20, ge=1)
    l2_regularization: float = Field(default=1e-3, ge=0)

    space: ClassVar[dict[str, Range]] = {
        "learning_rate": Range(0.02, 0.3),
        "max_iter": Range(50, 400, whole=True),
        "max_leaf_nodes": Range(4, 63, whole=True),
        "min_samples_leaf": Range(5, 100, whole=True),
        "l2_regularization": Range(1e-3, 10.0),
    }

    def estimator(self, seed: int) -> Any:
        """The unfitted scikit-learn estimator; early stopping is off because it would validate on a random tenth."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(
            early_stopping=False, random_state=seed, **self.model_dump(exclude={"kind"})
        )


Family = Annotated[Logistic | HistGradientBoosting, Field(discriminator="kind")]
FAMILIES: dict[str, type[Logistic | HistGradientBoosting]] = {  # the order in which defaults are tried
    "hist_gradient_boosting": HistGradientBoosting,
    "logistic": Logistic,
}


def suggest(trial: "Trial", families: tuple[str, ...]) -> Logistic | HistGradientBoosting:
    """A try: first the family, then its parameters (a conditional space; sample it with `TPESampler(group=True)`)."""
    family = FAMILIES[trial.suggest_categorical("family", list(families))]
    kind = family.model_fields["kind"].default
    return family.model_validate({name: where.suggest(trial, f"{kind}.{name}") for name, where in family.space.items()})


def trial_params(family: Logistic | HistGradientBoosting) -> dict[str, Any]:
    """The parameters of a model as Optuna names them, moved into their ranges: Optuna takes any and fails later.

    >>> trial_params(Logistic(C=1000))
    {'family': 'logistic', 'logistic.C': 100.0}
    """
    inside = {name: min(max(getattr(family, name), where.low), where.high) for name, where in family.space.items()}
    return {"family": family.kind, **{f"{family.kind}.{name}": value for name, value in inside.items()}}


def pipeline(family: Logistic | HistGradientBoosting, columns: "dict[str, Column]", seed: int) -> "Pipeline":
    """The unfitted pipeline over the feature columns: preparation travels inside the model, fitted on train only."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    texts = [name for name, column in columns.items() if column.type in {"text", "category"}]
    numbers = [name for name in columns if name not in texts]
    linear = family.kind == "logistic"
    prepare = ColumnTransformer(
        [
            ("numbers", _linear_numbers() if linear else "passthrough", numbers),
            ("texts", _one_hot() if linear else _ordinal(), texts),
        ],
        verbose_feature_names_out=False,
    )
    return Pipeline([("prepare", prepare), ("model", family.estimator(seed))])


def observed(columns: "dict[str, Column]", features: "pd.DataFrame") -> "dict[str, Column]":
    """The columns that hold any value in these rows: one without teaches nothing, and boosting does not fit on it."""
    return {name: column for name, column in columns.items() if features[name].notna().any()}


def probabilities(model: Any, features: "pd.DataFrame", positive: str) -> "np.ndarray":
    """The probability of the positive class, (n,), from a pipeline that was fitted on labels as texts."""
    return model.predict_proba(features)[:, model.classes_.tolist().index(positive)]


def _linear_numbers() -> "Pipeline":
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)),
            ("scale", StandardScaler()),
        ]
    )


def _one_hot() -> Any:
    from sklearn.preprocessing import OneHotEncoder

    return OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=RARE, sparse_output=False)


def _ordinal() -> Any:
    from sklearn.preprocessing import OrdinalEncoder

    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
