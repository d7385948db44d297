"""The model card: what a version is, how it was judged and how to make it again, in Hugging Face's layout.

Metadata as in https://huggingface.co/docs/hub/model-cards, sections after Mitchell et al., Model Cards for Model
Reporting, 2019.
"""

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field
from ruamel.yaml import YAML

from tasks.ml.gates import Verdict
from tasks.ml.metrics import METRICS, Cost, Estimate
from tasks.ml.pages import NONE, code, escaped, number, parameters, sentence, table, verdict_table

Part = Literal["train", "validation", "holdout"]
HUB_METRICS = {"roc_auc": "roc_auc", "brier": "brier_score"}  # where the hub's name is another or the same


class Window(BaseModel, frozen=True, extra="forbid"):
    """How many rows a part had, and when they happened; None where it had none."""

    rows: int
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None


class Before(BaseModel, frozen=True, extra="forbid"):
    """The champion that the challenger was held against, with its metric on the same rows."""

    version: int
    value: float


class CardFacts(BaseModel, frozen=True, extra="forbid"):
    """What a card says.

    Attributes:
        version: None where the challenger was refused and not registered.
        labels: the negative and the positive class, as a person calls them.
        metric_label: the label of one of `METRICS`.
        metric: the metric on the holdout.
        baselines: the same metric of what needs no learning, by name.
        calibration: rows of `metrics.calibration_table` on the holdout.
        confusion: rows of the holdout by truth and decision, from `metrics.confusion`.
        license: an identifier that the hub knows; `unknown` until somebody decides.
        reproduce: the command that makes the same model again, where there is one.
    """

    project: str
    about: str = ""
    labels: tuple[str, str]
    metric_label: str
    version: int | None
    snapshot: str = Field(description="SHA-256 of the snapshot")
    delta_version: int
    parts: dict[Part, Window]
    family: str
    params: dict[str, Any]
    seed: int
    metric: Estimate
    verdicts: tuple[Verdict, ...]
    baselines: dict[str, float]
    champion: Before | None = None
    threshold: float
    cost: Cost = Cost()
    confusion: dict[str, int]
    calibration: tuple[dict[str, float], ...] = ()
    commit: str
    lock: str = Field(description="SHA-256 of requirements.lock")
    trigger: str
    created_at: AwareDatetime
    license: str = "unknown"
    reproduce: str = ""

    @property
    def name(self) -> str:
        """`flights version 4`, on one line."""
        project = " ".join(self.project.split())
        return f"{project} version {self.version}" if self.version is not None else f"{project} challenger"

    @property
    def passed(self) -> bool:
        """Whether every gate passed, and there was one."""
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)


def card(facts: CardFacts) -> str:
    """The card as a README.md: YAML metadata, then sections of markdown."""
    sections = {
        "Model details": _details(facts),
        "Intended use": _use(facts),
        "Training data": _data(facts),
        "Evaluation": _evaluation(facts),
        "Verdicts": verdict_table(facts.verdicts),
        "Calibration": _calibration(facts),
        "Operating threshold": _threshold(facts),
        "Limitations": _limitations(facts),
        "How to reproduce": _reproduction(facts),
    }
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items())
    return f"---\n{_yaml(metadata(facts))}---\n\n# {escaped(facts.name)}\n\n{summary(facts)}\n\n{body}\n"


def metadata(facts: CardFacts) -> dict[str, Any]:
    """The card's header. A metric that is no finite number is left out, because the hub refuses it."""
    kind, project = _metric_type(facts.metric_label), " ".join(facts.project.split())
    header: dict[str, Any] = {
        "license": facts.license,
        "library_name": "sklearn",
        "pipeline_tag": "tabular-classification",
        "tags": ["tabular-classification", "sklearn", "skops", facts.family, project],
        "metrics": [kind],
    }
    if isfinite(facts.metric.value):
        header["model-index"] = [{"name": facts.name, "results": [_result(facts, kind, project)]}]
    return header


def _result(facts: CardFacts, kind: str, project: str) -> dict[str, Any]:
    return {
        "task": {"type": "tabular-classification", "name": "Tabular classification"},
        "dataset": {"type": project, "name": project, "split": "holdout", "revision": facts.snapshot},
        "metrics": [
            {"type": kind, "name": facts.metric_label, "value": round(facts.metric.value, 6), "verified": False}
        ],
    }


def _metric_type(label: str) -> str:
    """The hub's name of a metric where it has one, else the project's."""
    name = next((metric.name for metric in METRICS.values() if metric.label == label), label.lower().replace(" ", "_"))
    return HUB_METRICS.get(name, name)


def _yaml(header: Mapping[str, Any]) -> str:
    writer = YAML(typ="safe")
    writer.default_flow_style, writer.sort_base_mapping_type_on_output = False, False
    writer.allow_unicode, writer.width = True, 4096
    target = io.StringIO()
    writer.dump(dict(header), target)
    return target.getvalue()


def summary(facts: CardFacts) -> str:
    """What it is for, its metric and whether it passed: one paragraph."""
    outcome = "passed every gate" if facts.passed else "did not pass every gate"
    numbers = f"**{escaped(facts.metric_label)} {_estimate(facts.metric)}** on the holdout; it {outcome}."
    return " ".join(filter(None, [sentence(facts.about), numbers]))


def _details(facts: CardFacts) -> str:
    rows = {
        "task": f"probability of “{escaped(facts.labels[1])}” against “{escaped(facts.labels[0])}”",
        "family": code(facts.family),
        "parameters": parameters(facts.params),
        "seed": str(facts.seed),
        "made": _moment(facts.created_at),
        "because": escaped(facts.trigger),
        "format": "scikit-learn pipeline, saved by skops without pickle; preparation travels inside",
    }
    return _pairs(rows)


def _use(facts: CardFacts) -> str:
    positive = escaped(facts.labels[1])
    return (
        f"Tells how likely “{positive}” is for one row of the project {code(facts.project)}, whose columns its "
        f"contract names. Made for rows like those it learned from; no use beyond that was examined."
    )


def _data(facts: CardFacts) -> str:
    rows = [(name, f"{part.rows:,}", _moment(part.start), _moment(part.end)) for name, part in facts.parts.items()]
    return (
        f"Snapshot {code(facts.snapshot)}, version {facts.delta_version} of the Delta table. "
        f"Parts are ordered in time.\n\n{table(('part', 'rows', 'from', 'to'), rows)}"
    )


def _evaluation(facts: CardFacts) -> str:
    holdout = facts.parts.get("holdout", Window(rows=0))
    rows = [(f"**{escaped(facts.name)}**", f"**{number(facts.metric.value)}**", _interval(facts.metric))]
    if facts.champion is not None:
        rows.append((f"champion before, version {facts.champion.version}", number(facts.champion.value), NONE))
    rows += [(f"baseline: {escaped(name)}", number(value), NONE) for name, value in facts.baselines.items()]
    before = "" if facts.champion else " There was no champion before."
    window = f"Holdout: {holdout.rows:,} rows from {_moment(holdout.start)} to {_moment(holdout.end)}"
    return (
        f"{window}, which neither tuning nor fitting could reach.{before} {_direction(facts.metric_label)}\n\n"
        f"{table(('model', escaped(facts.metric_label), '90 % interval'), rows)}"
    )


def _direction(label: str) -> str:
    metric = next((metric for metric in METRICS.values() if metric.label == label), None)
    if metric is None:
        return ""
    return f"{'More' if metric.greater_is_better else 'Less'} {label} is better."


def _calibration(facts: CardFacts) -> str:
    if not facts.calibration:
        return "Not measured."
    total = sum(row["rows"] for row in facts.calibration)
    error = sum(row["rows"] * abs(row["predicted"] - row["observed"]) for row in facts.calibration) / total
    rows = [(f"{row['predicted']:.3f}", f"{row['observed']:.3f}", f"{row['rows']:,.0f}") for row in facts.calibration]
    return (
        f"Predicted and observed rates are {error:.3f} apart on average (expected calibration error).\n\n"
        f"{table(('mean prediction', 'observed rate', 'rows'), rows)}"
    )


def _threshold(facts: CardFacts) -> str:
    negative, positive = (escaped(label) for label in facts.labels)
    count = {name: f"{value:,}" for name, value in facts.confusion.items()}
    rows = [
        (f"**{positive}**", count.get("true positive", NONE), count.get("false negative", NONE)),
        (f"**{negative}**", count.get("false positive", NONE), count.get("true negative", NONE)),
    ]
    wrong, missed = facts.cost.false_positive, facts.cost.false_negative
    return (
        f"At {facts.threshold:.4g} or more the answer is “{positive}”: the cheapest threshold on the validation part, "
        f"where a false “{positive}” costs {wrong:g} and a missed one {missed:g}. On the holdout:\n\n"
        f"{table(('truth', f'decided {positive}', f'decided {negative}'), rows)}"
    )


def _limitations(facts: CardFacts) -> str:
    lines = [
        f"The {escaped(facts.metric_label)} holds for the time of the holdout; when the world moves, it moves.",
        "The interval is a bootstrap over rows; rows that depend on each other make it too narrow.",
        "Groups of rows were not compared with each other.",
    ]
    failed = ", ".join(escaped(verdict.gate) for verdict in facts.verdicts if not verdict.passed)
    lines += [f"It did not pass: {failed}. It must not answer in production."] if failed else []
    return "\n".join(f"- {line}" for line in lines)


def _reproduction(facts: CardFacts) -> str:
    rows = {
        "code": f"commit {code(facts.commit)}",
        "environment": f"requirements.lock, SHA-256 {code(facts.lock)}",
        "rows": f"snapshot {code(facts.snapshot)}",
        "seed": str(facts.seed),
    }
    rows |= {"command": code(facts.reproduce)} if facts.reproduce else {}
    return f"The same code, environment, rows and seed give the same model.\n\n{_pairs(rows)}"


def _pairs(rows: Mapping[str, str]) -> str:
    return table(("", ""), rows.items())


def _estimate(estimate: Estimate) -> str:
    return f"{number(estimate.value)} ({_interval(estimate)})" if isfinite(estimate.low) else number(estimate.value)


def _interval(estimate: Estimate) -> str:
    return f"{number(estimate.low)} … {number(estimate.high)}" if isfinite(estimate.low) else NONE


def _moment(moment: datetime | None) -> str:
    return NONE if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
