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

from tasks.ml.explain import Importance
from tasks.ml.gates import Verdict, outcome
from tasks.ml.metrics import METRICS, Cost, Estimate
from tasks.ml.pages import NONE, code, escaped, number, parameters, sentence, table, verdict_table
from tasks.ml.slices import Sliced

Part = Literal["train", "validation", "holdout"]
HUB_METRICS = {"roc_auc": "roc_auc", "brier": "brier_score"}  # where the hub's name is another or the same


TAGS = {  # the hub's names of tasks
    "binary": "tabular-classification", "multiclass": "tabular-classification", "regression": "tabular-regression",
    "anomaly": "tabular-classification", "recommendation": "other",
}  # fmt: skip


class Window(BaseModel, frozen=True, extra="forbid"):
    """How many rows a part had, and when they happened; None where it had none."""

    rows: int
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None


class Before(BaseModel, frozen=True, extra="forbid"):
    """The champion that the challenger was held against, with its metric on the same rows; None where it cannot be told."""

    version: int
    value: float | None


class CardFacts(BaseModel, frozen=True, extra="forbid"):
    """What a card says.

    Attributes:
        version: None where the challenger was refused and not registered.
        labels: the negative and the positive class, as a person calls them.
        metric_label: the label of one of `METRICS`.
        metric: the metric on the holdout.
        baselines: the same metric of what needs no learning, by name.
        operates: how answers become decisions, as the problem's kind says; cost: what set the threshold, unless `alerts` did, the share of
            rows that may reach it.
        panels: what is drawn of the answers on the holdout, as the kind says.
        importance: the columns that it relies on, where that was measured; slices: the metric of groups of rows, likewise.
        window: how much of the past it learned from; columns: the ones that it reads, empty when all.
        license: an identifier that the hub knows; `unknown` until somebody decides.
        reproduce: the command that makes the same model again, where there is one.
    """

    project: str
    about: str = ""
    kind: str = "binary"
    labels: tuple[str, ...]
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
    operates: dict[str, float] = {}
    cost: Cost = Cost()
    alerts: float | None = None
    panels: dict[str, Any] = {}
    importance: Importance | None = None
    slices: Sliced | None = None
    window: str = "all"
    refit: bool = Field(default=False, description="whether it has learned from the validation rows, too")
    columns: tuple[str, ...] = ()
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

    @property
    def set_by(self) -> str:
        """The rows that its decisions were set by."""
        return "the validation part" + (" (before it learned from it)" if self.refit else "")


def card(facts: CardFacts) -> str:
    """The card as a README.md: YAML metadata, then sections of markdown."""
    sections = {
        "Model details": _details(facts),
        "Intended use": _use(facts),
        "Training data": _data(facts),
        "Evaluation": _evaluation(facts),
        "Verdicts": verdict_table(facts.verdicts),
        "Calibration": _calibration(facts),
        "How answers become decisions": _decisions(facts),
        "What it relies on": _importance(facts.importance),
        "Groups of rows": _slices(facts.slices),
        "Limitations": _limitations(facts),
        "How to reproduce": _reproduction(facts),
    }
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items() if text)
    return f"---\n{_yaml(metadata(facts))}---\n\n# {escaped(facts.name)}\n\n{summary(facts)}\n\n{body}\n"


def metadata(facts: CardFacts) -> dict[str, Any]:
    """The card's header. A metric that is no finite number is left out, because the hub refuses it."""
    kind, project = _metric_type(facts.metric_label), " ".join(facts.project.split())
    header: dict[str, Any] = {
        "license": facts.license,
        "library_name": "sklearn",
        "pipeline_tag": TAGS[facts.kind],
        "tags": [TAGS[facts.kind], "sklearn", "skops", facts.family, project],
        "metrics": [kind],
    }
    if isfinite(facts.metric.value):
        header["model-index"] = [{"name": facts.name, "results": [_result(facts, kind, project)]}]
    return header


def _result(facts: CardFacts, kind: str, project: str) -> dict[str, Any]:
    return {
        "task": {"type": TAGS[facts.kind], "name": TAGS[facts.kind].replace("-", " ").capitalize()},
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
        "task": _task(facts),
        "family": code(facts.family),
        "learned from": f"{'all rows' if facts.window == 'all' else facts.window} of the train {'and validation parts' if facts.refit else 'part'}",
        "reads": f"{len(facts.columns)} columns: {escaped(', '.join(facts.columns))}"
        if facts.columns
        else "all features",
        "parameters": parameters(facts.params),
        "seed": str(facts.seed),
        "made": _moment(facts.created_at),
        "because": escaped(facts.trigger),
        "format": "scikit-learn pipeline, saved by skops without pickle; preparation travels inside",
    }
    return _pairs(rows)


def _task(facts: CardFacts) -> str:
    labels = [escaped(label) for label in facts.labels]
    return {
        "binary": f"probability of “{labels[-1]}” against “{labels[0]}”",
        "multiclass": f"probability of each of {', '.join(f'“{label}”' for label in labels)}",
        "regression": "number that is to be expected, and an interval that is meant to hold nine of ten",
        "anomaly": "oddness against rows as they usually are",
        "recommendation": "list of items that somebody will take, the best first,",
    }[facts.kind]


def _use(facts: CardFacts) -> str:
    return (
        f"Tells the {_task(facts)} for one row of the project {code(facts.project)}, whose columns its "
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
        value = NONE if facts.champion.value is None else number(facts.champion.value)
        rows.append((f"champion before, version {facts.champion.version}", value, NONE))
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
    bins = facts.panels.get("calibration") or facts.panels.get("means")
    if facts.kind == "recommendation":
        return "Nothing is said of how likely it is that somebody takes an item."
    if not bins:
        return "Not measured."
    total = sum(row["rows"] for row in bins)
    error = sum(row["rows"] * abs(row["predicted"] - row["observed"]) for row in bins) / total
    rows = [(f"{row['predicted']:.3f}", f"{row['observed']:.3f}", f"{row['rows']:,.0f}") for row in bins]
    what = "rates are {:.3f} apart on average (expected calibration error)" if "calibration" in facts.panels else "means of tenths of the rows are {:.3g} apart on average"  # fmt: skip
    said = "observed rate" if "calibration" in facts.panels else "what came true"
    return f"Predicted and observed {what.format(error)}.\n\n{table(('mean prediction', said, 'rows'), rows)}"


def _decisions(facts: CardFacts) -> str:
    if "confusion" in facts.panels:
        return _threshold(facts, facts.panels["confusion"])
    if "classes" in facts.panels:
        names = facts.panels["classes"]["labels"]
        rows = [(f"**{escaped(name)}**", *(f"{count:,}" for count in counts)) for name, counts in zip(names, facts.panels["classes"]["table"], strict=True)]  # fmt: skip
        return f"The likeliest class is the answer. On the holdout:\n\n{table(('truth', *(f'decided {escaped(name)}' for name in names)), rows)}"
    if "places" in facts.panels:
        places = facts.panels["places"]
        rows = [(str(at), number(taken), number(recall)) for at, (taken, recall) in enumerate(zip(places["taken"], places["recall"], strict=True), 1)]  # fmt: skip
        return f"The best items are the answer, the best first. Of {places['users']:,} users of the holdout:\n\n{table(('place', 'took that item', 'share of what was taken up to there'), rows)}"
    if "interval" in facts.operates:
        return f"Every answer comes with an interval of ±{facts.operates['interval']:.4g}, which held nine of ten rows of {facts.set_by}."
    return f"From {facts.operates['threshold']:.4g} on a row is called odd: as many rows of {facts.set_by} reached that as the alert budget allows."


def _threshold(facts: CardFacts, counts: Mapping[str, int]) -> str:
    negative, positive = (escaped(label) for label in facts.labels)
    count = {name: f"{value:,}" for name, value in counts.items()}
    rows = [
        (f"**{positive}**", count.get("true positive", NONE), count.get("false negative", NONE)),
        (f"**{negative}**", count.get("false positive", NONE), count.get("true negative", NONE)),
    ]
    wrong, missed = facts.cost.false_positive, facts.cost.false_negative
    if facts.alerts is None:
        why = f"the cheapest threshold on {facts.set_by}, where a false “{positive}” costs {wrong:g} and a missed one {missed:g}"
    else:
        why = f"as many rows of {facts.set_by} reach that as the alert budget of {facts.alerts:.2%} allows"
    return (
        f"At {facts.operates['threshold']:.4g} or more the answer is “{positive}”: {why}. On the holdout:\n\n"
        f"{table(('truth', f'decided {positive}', f'decided {negative}'), rows)}"
    )


def _importance(importance: Importance | None) -> str:
    """Each column's share in how good the answers are; nothing where it was not measured."""
    if importance is None:
        return ""
    rows = [(code(one.column), number(one.loss.value), _interval(one.loss)) for one in importance.columns]
    return (
        f"How much worse the {escaped(importance.metric)} gets on the holdout when a column's values change places between "
        f"rows ({escaped(importance.note)}). An interval that holds 0 means that the column may be of no use. Columns that "
        f"say the same cover for each other, and none of this says what causes what.\n\n"
        f"{table(('column', 'loss', '90 % interval'), rows)}"
    )


def _slices(slices: Sliced | None) -> str:
    """The metric of each group of rows; nothing where none was looked at."""
    if slices is None:
        return ""
    if not slices.slices:
        return f"None was large enough ({escaped(slices.note)})."
    rows = [
        (
            f"{code(one.column)} {escaped(one.values)}{' **(worse)**' if one.is_worse else ''}",
            f"{one.rows:,}",
            number(one.challenger.value),
            _interval(one.challenger),
            *((number(one.champion.value), _interval(one.champion)) if one.champion else (NONE, NONE)),
        )
        for one in slices.slices
    ]
    count, worse = len(slices.slices), len(slices.worse)
    return (
        f"The {escaped(slices.metric)} of {escaped(slices.note)}; over all rows it is {_estimate(slices.whole)}. "
        f"{worse} of {count} {'is' if worse == 1 else 'are'} worse than that with the whole interval; about one in twenty would be by "
        f"chance. Some groups are harder to tell than others, whatever the model.\n\n"
        f"{table(('group', 'rows', 'this', '90 % interval', 'champion before', '90 % interval'), rows)}"
    )


def _limitations(facts: CardFacts) -> str:
    lines = [
        f"The {escaped(facts.metric_label)} holds for the time of the holdout; when the world moves, it moves.",
        "The interval is a bootstrap over rows; rows that depend on each other make it too narrow.",
        "Groups of rows were compared by the columns named above and by no other."
        if facts.slices
        else "Groups of rows were not compared with each other.",
    ]
    failed = ", ".join(escaped(verdict.gate) for verdict in facts.verdicts if not verdict.passed)
    advice = {
        "held": "A person decides whether it may answer in production",
        "refused": "It must not answer in production",
    }
    lines += [f"It did not pass: {failed}. {advice[outcome(facts.verdicts)]}."] if failed else []
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
