"""The newcomer: a file becomes a project folder; and what a changed contract means for columns and models."""

import datetime as dt
import json
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.config import scaffold
from tasks.config.errors import BatchError, KeepfitError, ProjectError, suggestion
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.compatibility import Model, compare, report
from tasks.ml.contract import Contract
from tasks.ml.infer import infer
from tasks.ml.reading import KINDS, Reading, sniff
from tasks.stores import files
from tasks.stores.bundles import MANIFEST
from tasks.stores.journal import Journal

ROWS, BYTES, HEAD = (
    200_000,
    256 << 20,
    1 << 20,
)  # of a sample: rows kept, bytes read; bytes that tell how text is written
SHORTEST = 6  # digits of a digest


# -- keepfit new ------------------------------------------------------------------------------------------------------
def new(
    name: str, data: Path, target: str | None, *, time: str | None = None, key: tuple[str, ...] = (), kind: str | None = None,
    settings: Settings, now: dt.datetime,
) -> dict[str, Any]:  # fmt: skip
    """Writes the folder of a new project whose contract is inferred from a file; gives what was decided.

    Args:
        name: of the project.
        data: a CSV, Parquet or JSON lines file.
        target: the column to predict; None where nobody knows the truth.
        time: the column that says when a row happened.
        key: the columns that name a row.
        kind: of the problem; by default what the target's values say.
        settings: where projects are.
        now: the moment, with its time zone.

    Raises:
        KeepfitError: the name is taken, the file does not read, or its columns cannot have these roles; nothing was written.
    """
    scaffold.free_name(name, settings.projects)
    reading = written(data)
    rows = sample(data, reading)
    draft = infer(rows, target, now=now, time=time, key=key, decimal=reading.decimal, kind=kind)
    texts = scaffold.files(name, draft, data.name, reading)
    use = scaffold.write(name, texts, settings.projects)
    contract = use.contract
    return {
        "project": name,
        "folder": str(settings.projects / name),
        "kind": use.kind,
        "columns": len(contract.columns),
        "features": list(contract.features),
        "key": list(contract.key),
        "time": contract.time,
        "target": contract.target,
        "positive": use.judged_positive,
        "labels": list(draft.question.labels),
        "rows_read": draft.rows,
        "rows_broken": draft.broken,
        "left_out": draft.left_out,
        "remarks": {**draft.notes, **draft.remarks},
        "next": "; ".join(
            [
                f"keepfit check {name}",
                *(["keepfit deploy"] if settings.prefect() else []),
                f"keepfit land {name} {shlex.quote(str(data))}",
            ]
        ),
    }


def page_of_new(result: dict[str, Any]) -> str:
    """What `keepfit new` prints for a person."""
    out = [f"  {column}: {reason}" for column, reason in result["left_out"].items()]
    remarks = [f"  {column}: {remark}" for column, remark in result["remarks"].items()]
    return "\n".join([
        f"{result['folder']}/project.yaml: {result['columns']} columns, {len(result['features'])} to learn from, out of {result['rows_read']:,} rows read.",
        f"A row is named by {', '.join(result['key'])} and ordered by {result['time']}; {_predicted(result)}",
        *(["Remarks:", *remarks] if remarks else []),
        *(["Left out:", *out] if out else []),
        f"Next: read project.yaml and correct what you know better, then say: {result['next']}",
    ])  # fmt: skip


def _predicted(result: dict[str, Any]) -> str:
    """What the new project predicts, and of which kind it is."""
    value = "" if result["positive"] is None else f" = {result['positive']}"
    what = (
        f"{result['target']}{value} is predicted" if result["kind"] != "anomaly" else "rows unlike the others are found"
    )
    return f"{what} ({result['kind']})."


def written(path: Path) -> Reading:
    """How a file is written, from its first bytes; the usual way where it is no CSV file."""
    if not path.is_file():
        raise BatchError(f"{path}: is no file. Give CSV, Parquet or JSON lines ({', '.join(KINDS)}).")
    if KINDS.get(path.suffix) != "csv":
        return Reading()
    with files.regular(path) as file:
        found = sniff(file.read(HEAD))
    return found.model_copy(update={"delimiter": ","}) if path.suffix == ".tsv" else found  # its name says it


def sample(path: Path, reading: Reading) -> pa.Table:
    """At most 200,000 raw rows of a file, spread evenly over the first 256 MB of it.

    Raises:
        BatchError: the file is empty, broken, or of another kind.
    """
    names = files.columns(path, reading)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BatchError(f"{path.name}: has the column '{twice[0]}' twice. Name each column once.")
    nameless = [name for name in names if _is_number(name)]
    if len(nameless) > len(names) / 2:
        raise BatchError(
            f"{path.name}: its first line is {', '.join(names[:4])}, which are values, not names of columns. Put a header line in front."
        )
    rows = _thinned(_within(files.chunks(path, reading), BYTES), ROWS)
    if rows is None or not len(rows):
        raise BatchError(f"{path.name}: has a header but no row. Wanted: rows to infer a contract from.")
    return rows


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _within(chunks: Iterable[pa.Table], most: int) -> Iterator[pa.Table]:
    """The first chunks, until they hold so many bytes."""
    held = 0
    for chunk in chunks:
        yield chunk
        held += chunk.nbytes
        if held >= most:
            return


def _thinned(chunks: Iterable[pa.Table], most: int) -> pa.Table | None:
    """Every k-th row, with the smallest power of two as k that keeps at most so many."""
    kept: list[pa.Table] = []
    step, passed, count = 1, 0, 0
    for chunk in chunks:
        kept.append(_every(chunk, step, -passed % step))
        passed, count = passed + len(chunk), count + len(kept[-1])
        while count > most:
            whole = pa.concat_tables(kept, promote_options="permissive")
            step, kept = step * 2, [_every(whole, 2, 0)]
            count = len(kept[0])
    return pa.concat_tables(kept, promote_options="permissive").combine_chunks() if kept else None


def _every(rows: pa.Table, step: int, start: int) -> pa.Table:
    return rows if step == 1 else rows.take(pa.array(range(start, len(rows), step), pa.int64()))


# -- keepfit contract diff --------------------------------------------------------------------------------------------
def contract_diff(project: str, old: str, new: str, settings: Settings) -> dict[str, Any]:
    """What changed between two contracts of a project, how bad it is, and which features and models it touches.

    Args:
        project: the name.
        old: `now`, a path to a project.yaml, a git revision, or the beginning of a digest that landings recorded.
        new: likewise.
        settings: where things are.

    Raises:
        KeepfitError: one of the two is not found, or does not load.
    """
    before, before_digest, before_hooks = version(project, old, settings)
    after, after_digest, after_hooks = version(project, new, settings)
    known = before_hooks is not None and after_hooks is not None
    differences = compare(before, after, hooks_changed=known and before_hooks != after_hooks)
    registered, gone = models(project, settings)
    return {
        "project": project,
        "from": {"named": old, "contract": before_digest},
        "to": {"named": new, "contract": after_digest},
        **report(differences, registered),
        "unknown_models": gone,
    }


def page_of_diff(result: dict[str, Any]) -> str:
    """What `keepfit contract diff` prints for a person."""
    lines = [f"{each['level']:>9}  {each['what']}" for each in result["differences"]]
    models = [
        f"version {model['version']}{' (champion)' if model['champion'] else ''} learned from {', '.join(model['features'])}: {model['level']}"
        for model in result["models"]
    ]
    return "\n".join([
        f"{result['project']}: {result['from']['named']} → {result['to']['named']}: {result['verdict']}",
        *lines,
        *([f"Features touched: {', '.join(result['features'])}"] if result["features"] else []),
        *(models or (["No registered model is touched."] if lines else [])),
        *([f"Not known, because their bundles are gone: versions {', '.join(map(str, result['unknown_models']))}"] if result["unknown_models"] else []),
    ])  # fmt: skip


def version(project: str, named: str, settings: Settings) -> tuple[Contract, str, str | None]:
    """A contract, its digest, and the text of the hooks beside it ("" when there are none, None when nobody knows).

    Args:
        project: the name.
        named: `now`, a path to a project.yaml, a git revision, or the beginning of a digest that landings recorded.
        settings: where things are.

    Raises:
        KeepfitError: nothing is called so, or more than one thing is.
    """
    use = Project.named(project, settings)
    if named == "now":
        return _with_digest(use.contract, _beside(settings.projects / project / "project.yaml"))
    path = Path(named)
    if path.is_file():
        return _with_digest(_contract(path.read_text(encoding="utf-8"), named), _beside(path))
    recorded = recorded_contracts(project, settings)
    matching = [row for row in recorded if len(named) >= SHORTEST and row["digest"].startswith(named.lower())]
    commit = _commit(named, settings.projects)
    if len(matching) > 1 or (matching and commit):
        also = " and a git revision" if commit else ""
        raise KeepfitError(
            f"'{named}' is the beginning of {len(matching)} digests{also}. Give more of the one that you mean."
        )
    if matching:
        return Contract.model_validate_json(matching[0]["contract"]), matching[0]["digest"], None
    if commit:
        text = _shown(commit, project, "project.yaml", settings.projects)
        if text is None:
            raise KeepfitError(
                f"{settings.projects / project}/project.yaml was not there at '{named}' ({commit[:12]}). Give another revision."
            )
        return _with_digest(
            _contract(text, f"{named}:{project}/project.yaml"),
            _shown(commit, project, "hooks.py", settings.projects) or "",
        )
    known = [row["digest"][:12] for row in recorded]
    raise KeepfitError(
        f"'{named}' is no version of {project}'s contract. Wanted: now, a path to a project.yaml, a git revision, or the beginning of a "
        f"digest that landings recorded ({', '.join(known) or 'none so far'}).{suggestion(named, ['now', *known])}"
    )


def recorded_contracts(project: str, settings: Settings) -> list[dict[str, Any]]:
    """The contracts that batches of a project were checked under, oldest first; nothing where there is no journal yet."""
    journal = Journal.existing(settings)
    return journal.contracts(project) if journal else []


def models(project: str, settings: Settings) -> tuple[list[Model], list[int]]:
    """The registered versions of a project with their features, and those versions whose bundle is gone."""
    journal = Journal.existing(settings)
    if journal is None:
        return [], []
    champion = journal.champion(project)
    versions = sorted({row["version"] for row in journal.trainings(project) if row["version"] is not None})
    found, gone = [], []
    for number in versions:
        try:
            manifest = json.loads((settings.bundles(project) / str(number) / MANIFEST).read_text(encoding="utf-8"))
            features = tuple(str(feature["name"]) for feature in manifest["features"])
        except (OSError, ValueError, KeyError, TypeError):
            gone.append(number)
            continue
        is_champion = champion is not None and champion.version == number
        found.append(Model(version=number, features=features, contract=manifest.get("contract"), champion=is_champion))
    return found, gone


def _with_digest(contract: Contract, hooks: str) -> tuple[Contract, str, str]:
    return contract, contract.digest, hooks


def _contract(text: str, where: str) -> Contract:
    """The contract of a project file's text; the rest of the file may be of any age.

    Raises:
        ProjectError: there is none, or it does not read.
    """
    try:
        return Contract.model_validate(YAML(typ="safe", pure=True).load(text)["contract"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("contract", *first["loc"]))
        raise ProjectError(
            f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}. This keepfit does not read it."
        ) from error
    except (YAMLError, KeyError, TypeError) as error:
        raise ProjectError(
            f"{where}: holds no contract that can be read ({type(error).__name__}). Wanted: a project.yaml."
        ) from error


def _beside(path: Path) -> str:
    hooks = path.with_name("hooks.py")
    return hooks.read_text(encoding="utf-8") if hooks.is_file() else ""


def _commit(revision: str, folder: Path) -> str | None:
    """The commit that a git revision names, when the folder is in a repository that has it."""
    found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return found.strip() if found else None


def _shown(commit: str, project: str, file: str, folder: Path) -> str | None:
    """A file of the project as it was, or None when it was not there."""
    return _git(folder, "show", "--end-of-options", f"{commit}:./{project}/{file}")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None when it refuses or is not there; no shell is between."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            encoding="utf-8",
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout
