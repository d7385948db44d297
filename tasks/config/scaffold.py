"""Scaffold: the draft of a contract becomes a project folder: `project.yaml` with its reasons, `README.md`, `hooks.py`."""

import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.config.errors import ProjectError
from tasks.config.project import NAME, Project, load
from tasks.ml.contract import Column
from tasks.ml.gates import ChangePlan
from tasks.ml.infer import Draft
from tasks.ml.kinds import KINDS
from tasks.ml.metrics import metrics_of
from tasks.ml.reading import Reading
from tasks.ml.surrogate import Stamp

SCHEMA, PLAN_SCHEMA = "project.schema.json", "change_plan.schema.json"
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[ .-][A-Za-z0-9_]+)*")
WORDS = {
    "true",
    "false",
    "yes",
    "no",
    "on",
    "off",
    "null",
    "y",
    "n",
    "t",
    "f",
    "nan",
    "inf",
}  # YAML 1.1 reads some as others
RARE = 0.05  # a class rarer than this is better judged by average precision
LONGEST = 200  # signs of a remark


def free_name(name: str, projects: Path) -> None:
    """Raises unless a project of that name may be made.

    Raises:
        ProjectError: the name is none, or taken.
    """
    if not re.fullmatch(NAME, name):
        better = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:40]
        better = better if re.fullmatch(NAME, better) else f"project-{better}"[:40].rstrip("-")
        raise ProjectError(
            f"{name!r} is no name of a project. Wanted: a small letter, then at most 39 small letters, digits, - or _, for example '{better}'."
        )
    if (projects / name).exists():
        raise ProjectError(
            f"{projects / name} is there already, and is not overwritten. Take another name, or move that folder away."
        )


def files(name: str, draft: Draft, source: str, reading: Reading, schema: str = f"../{SCHEMA}") -> dict[str, str]:
    """The texts of a new project's files by name.

    Args:
        name: of the project.
        draft: what was inferred.
        source: the file's name, for remarks.
        reading: how the file is written.
        schema: where an editor finds the JSON schema, seen from the folder.
    """
    made = {
        "project.yaml": project_yaml(name, draft, source, reading, schema),
        "README.md": _readme(name, draft, source),
    }
    return made | ({"hooks.py": _hooks(draft)} if draft.derived else {})


def write(name: str, texts: Mapping[str, str], projects: Path) -> Project:
    """Writes a project folder wholly or not at all, and gives the project as it loads.

    Raises:
        ProjectError: the folder came into being meanwhile, cannot be written, or does not load (then the files are wrong).
    """
    try:
        projects.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".new-{name}-", dir=projects))
    except OSError as error:
        raise ProjectError(
            f"{projects} cannot be written: {error.strerror}. Give another folder as KEEPFIT_PROJECTS."
        ) from error
    try:
        folder = partial / name
        folder.mkdir()
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        project = load(folder)
        write_schema(projects)
        if (projects / name).exists():
            raise ProjectError(
                f"{projects / name} was made by somebody else meanwhile. Nothing was written; take another name."
            )
        folder.rename(projects / name)
    except OSError as error:
        raise ProjectError(f"{projects / name} cannot be written: {error.strerror}. Nothing is left of it.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return project


def schema_text(described: type[BaseModel] = Project) -> str:
    """The JSON schema of `project.yaml`, or of another file, for editors."""
    return json.dumps(described.model_json_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_schema(projects: Path) -> Path:
    """Brings the schemas beside the project folders up to date; gives the path of that of `project.yaml`."""
    for name, text in ((SCHEMA, schema_text()), (PLAN_SCHEMA, schema_text(ChangePlan))):
        path = projects / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            partial = path.with_name(f".{name}.part")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
    return projects / SCHEMA


# -- project.yaml -----------------------------------------------------------------------------------------------------
def project_yaml(name: str, draft: Draft, source: str, reading: Reading, schema: str = f"../{SCHEMA}") -> str:
    """The text of `project.yaml`: about a line a column and fifteen more, each choice with its reason."""
    contract, notes, kind = draft.contract, draft.notes, draft.question.kind
    gates = ", ".join(f"{{kind: {gate}}}" for gate in KINDS[kind].gates)
    about = f"Predicts {contract.target} from" if KINDS[kind].needs_labels else "Finds odd rows by"
    judges = (
        "a fifth by lot judges; nothing learns from it"
        if draft.derived.time
        else "the newest fifth judges; nothing learns from it"
    )
    usual = type(contract).model_fields
    limits = [
        _line(f"{limit}: {getattr(contract, limit):g}", notes[limit], "  ")
        for limit in ("hold_above", "hold_bad_target")
        if getattr(contract, limit) != usual[limit].default
    ]
    lines = [
        f"# yaml-language-server: $schema={schema}",
        _line(f"project: {name}", f"drafted from {draft.rows:,} rows of {source}: correct what you know better"),
        f"about: {_text(f'{about} {len(contract.features)} columns of {source}.')}",
        _line(f"kind: {kind}", notes.get("kind", "")),
        *_asked(draft),
        *_reads(reading),
        "",
        "contract:",
        _line(f"key: {_list(contract.key)}", notes.get("key", ""), "  "),
        _line(f"time: {_text(contract.time)}", notes.get("time", "when a row happened: the newest rows judge"), "  "),
        *([_line(f"target: {_text(contract.target)}", notes.get("target", ""), "  ")] if contract.target else []),
        *limits,
        "  columns:   # ranges are wider than what was seen: narrow them to what can be; a row outside goes to quarantine",
        *(_line(f"{_text(column)}: {_column(spec)}", draft.remarks.get(column, ""), "    ") for column, spec in contract.columns.items()),
        *(["    # left out, and so never stored:"] if draft.left_out else []),
        *(f"    #   {_remark(f'{_text(column)}: {reason}')}" for column, reason in draft.left_out.items()),
        "",
        _line(f"split: {{kind: time, column: {_text(contract.time)}, holdout: 0.2}}", judges),
        _line("search: {seconds: 60, trials: 40}", "whichever comes first"),
        *([_line("cost: {false_positive: 1, false_negative: 1}", "in any unit: sets the threshold of a decision")] if kind == "binary" else []),
        _line(f"gates: [{gates}]", "every one must pass"),
        _line("retrain: [{kind: batch, cooldown: 60}]", "when a batch has landed, once a minute at most; {kind: cron, cron: '0 4 * * 1'} adds Mondays"),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _asked(draft: Draft) -> list[str]:
    """What is predicted and by what metric it is judged, as the kind of the problem has it."""
    asked, target = draft.question, draft.contract.target
    metric, lines = KINDS[asked.kind].metric, list[str]()
    why = f"{', '.join(name for name in metrics_of(asked.kind) if name != metric)} are others"
    match asked.kind:
        case "binary":
            lines = [
                _line(f"positive: {_value(asked.positive)}", f"the value of {target} that is predicted: {draft.notes.get('positive', '')}"),
                _line(f"labels: {_list(asked.labels)}", "how people call the two: negative, positive"),
            ]  # fmt: skip
            if not RARE <= asked.share <= 1 - RARE:
                metric, why = "average_precision", "few are positive: roc_auc would look good"
        case "regression":
            why += "; the unit is the target's"
        case "anomaly":
            lines = [_line("alerts: 0.01", "share of the rows that may be called odd: sets the threshold")]
            why = "of telling rows as they are from rows whose values come from different rows"
    return [*lines, _line(f"metric: {metric}", why)]


def _reads(reading: Reading) -> list[str]:
    """A line only where the file is not written as most are."""
    odd = {key: value for key, value in reading if value != type(reading).model_fields[key].default}
    inside = ", ".join(f"{key}: {json.dumps(value)}" for key, value in odd.items())
    return [_line(f"reads: {{{inside}}}", "how CSV files are written")] if odd else []


def _column(spec: Column) -> str:
    """A column in one line, with nothing in it that goes without saying."""
    said = spec.model_dump(exclude_defaults=True)
    parts = {
        key: _list(value) if isinstance(value, (list, tuple)) else _value(value) for key, value in {"type": spec.type, **said}.items()
    }  # fmt: skip
    return f"{{{', '.join(f'{key}: {value}' for key, value in parts.items())}}}"


def _list(values: tuple[Any, ...] | list[Any]) -> str:
    return f"[{', '.join(_value(value) for value in values)}]"


def _value(value: Any) -> str:
    """A scalar as YAML: numbers without a needless point, texts quoted where they could be read as something else.

    >>> _value(120.0), _value(True), _value("no"), _value("New York"), _value("a: b")
    ('120', 'true', '"no"', 'New York', '"a: b"')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
    return _text(str(value))


def _text(text: str) -> str:
    if PLAIN.fullmatch(text) and text.lower() not in WORDS:
        return text
    return _quoted(text)


def _line(content: str, remark: str, indent: str = "") -> str:
    return f"{indent}{content}   # {_remark(remark)}" if remark else f"{indent}{content}"


def _remark(text: str) -> str:
    """A text that stays on its line; what came from the data is cut."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"


# -- beside it --------------------------------------------------------------------------------------------------------
def _readme(name: str, draft: Draft, source: str) -> str:
    contract = draft.contract
    out = "\n".join(f"- `{_remark(column)}`: {_remark(reason)}" for column, reason in draft.left_out.items())
    return f"""# {name}

{_remark(_question(draft))} Drafted by `keepfit new` from {draft.rows:,} rows of {source}; say here what
the data is, where it comes from, who may use it, and what a wrong decision costs.

    keepfit check {name}
    keepfit land {name} {shlex.quote(source)}

Rows are named by {", ".join(f"`{column}`" for column in contract.key)} and ordered by `{contract.time}`; {len(contract.features)} columns are learned from.
{f"{chr(10)}Left out:{chr(10)}{out}{chr(10)}" if out else ""}"""


def _question(draft: Draft) -> str:
    """What the project asks, in a person's words."""
    target, labels = draft.contract.target, draft.question.labels
    match draft.question.kind:
        case "binary":
            return f"Which rows have {target} = {labels[1]}?"
        case "multiclass":
            return f"Which {target} is it: {', '.join(labels[:-1])} or {labels[-1]}?"
        case "regression":
            return f"How much is {target}?"
        case _:
            return "Which rows are unlike the others?"


def _hooks(draft: Draft) -> str:
    """The text of `hooks.py`: what the file does not bring."""
    derived = draft.derived
    basis = "content" if derived.key else "key"
    reasons = [
        *(["Reads the time column as times."] if derived.stamp else []),
        *(["Adds a name drawn from the row's content: rows that say the same are one row."] if derived.key else []),
        *([f"Adds a time drawn from the row's {basis}, so that the holdout is a fifth by lot, nearly the same rows each time."]
          if derived.time else []),
    ]  # fmt: skip
    parts = [
        *([f"stamped={_quoted(derived.stamped)}", f"stamp={_called(derived.stamp)}"] if derived.stamp else []),
        *(f"{part}={_quoted(name)}" for part in ("key", "time") if (name := getattr(derived, part))),
        *(["content={", *(f"    {_quoted(name)}: {_quoted(kind)}," for name, kind in derived.content.items()), "}"] if derived.content else []),
        *([f"decimal={_quoted(derived.decimal)}"] if derived.decimal != "." else []),
    ]  # fmt: skip
    summary = f"{reasons[0]}\n" + "".join(f"\n    {reason}\n" for reason in reasons[1:])
    inside = "".join(f"    {part}{'' if part.endswith(('{', ',')) else ','}\n" for part in parts)
    warning = "# Names and times are drawn from this: a change gives every row another one, so land into a new project then.\n"
    return f'''"""What only this project knows: what its files do not bring."""

import pandas as pd

from tasks.ml.surrogate import Derived{", Stamp" if derived.stamp else ""}

{warning if derived.content else ""}MISSING = Derived(
{inside})


def derive(rows: pd.DataFrame) -> pd.DataFrame:
    """{summary}
    Raises:
        KeyError: the batch lacks one of the columns; keepfit says so.
    """
    return MISSING.apply(rows)
'''


def _called(stamp: Stamp) -> str:
    """The call that makes it, as Python writes it, without what goes without saying."""
    said = {name: value for name, value in vars(stamp).items() if value != getattr(Stamp(), name)}
    return f"Stamp({', '.join(f'{name}={_quoted(value)}' for name, value in said.items())})"


def _quoted(text: str) -> str:
    """A text in double quotes that YAML and Python read alike; what cannot be seen is written by its number."""
    return "".join(sign if sign.isprintable() else _numbered(sign) for sign in json.dumps(text, ensure_ascii=False))


def _numbered(sign: str) -> str:
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}"
