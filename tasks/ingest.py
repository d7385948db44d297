"""Ingest: a file becomes a batch; its rows land, go to quarantine, or are known already. None is lost in silence."""

import datetime as dt
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from tasks.config.errors import BatchError, suggestion
from tasks.config.names import artifact_key, resource
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.contract import Checked, Contract
from tasks.stores.journal import Journal
from tasks.stores.lake import BATCH, ROW, Lake
from tasks.stores.references import Landing

NOTHING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
SUFFIXES = (".csv", ".parquet", ".jsonl")
ARRIVED, SENT, LANDED, HELD = (
    ".arrived",
    ".sent",
    ".landed",
    ".held",
)  # folders of an inbox: the watcher's, the command's, done, refused


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep(project: str, path: Path, settings: Settings) -> Path:
    """A copy of a file under the name of its content, so that what arrived cannot change while it lands.

    Raises:
        BatchError: there is no such file.
    """
    if not path.is_file():
        raise BatchError(f"{path}: is no file. Give CSV, Parquet or JSON lines ({', '.join(SUFFIXES)}).")
    kept = settings.inbox(project) / SENT / f"{fingerprint(path)[:16]}-{path.name}"
    if path != kept and not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f".{kept.name}.part")
        shutil.copyfile(path, partial)
        partial.rename(kept)
    return kept


def original_name(path: Path) -> str:
    """The name that a kept file arrived with."""
    head, _, name = path.name.partition("-")
    return name if len(head) == 16 and name else path.name


def read(path: Path) -> pd.DataFrame:
    """The rows of a CSV (all columns as text), Parquet or JSON lines file.

    Raises:
        BatchError: the file is empty, broken, or of another kind.
    """
    if path.suffix not in SUFFIXES:
        raise BatchError(
            f"{path.name}: is of kind '{path.suffix}'. Wanted: {', '.join(SUFFIXES)}.{suggestion(path.suffix, SUFFIXES)}"
        )
    if path.stat().st_size == 0:
        raise BatchError(
            f"{path.name}: is empty (0 bytes). Wanted: a header and rows. Send it again; nothing was changed."
        )
    try:
        rows = _table(path).to_pandas()
    except (pa.ArrowException, UnicodeDecodeError, OSError, ValueError) as error:
        raise BatchError(
            f"{path.name}: does not read as {path.suffix[1:]}: {_first_line(error)}. Send it again, complete; nothing was changed."
        ) from error
    if rows.empty:
        raise BatchError(f"{path.name}: has a header but no row. Wanted: rows. Nothing was changed.")
    return rows


def _table(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pa.parquet.read_table(path, page_checksum_verification=True)
    if path.suffix == ".jsonl":
        return pa.json.read_json(path)
    with pa.csv.open_csv(path) as start:
        names = start.schema.names
    options = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=list(NOTHING), strings_can_be_null=True
    )
    return pa.csv.read_csv(path, convert_options=options, parse_options=pa.csv.ParseOptions(newlines_in_values=True))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def part(contract: Contract, rows: pd.DataFrame, landed: pd.DataFrame) -> tuple[Checked, int]:
    """Parts a batch against its contract and against what has landed: the rows that are new, and how many are known.

    Args:
        contract: what a row may be.
        rows: the batch, with every column of the contract.
        landed: key columns and `_row` of every landed row.
    """
    from tasks.ml.identity import row_ids

    checked = contract.check(rows)
    ids = pd.Series(row_ids(checked.rows), name=ROW)
    known = ids.isin(landed[ROW]) | ids.duplicated() if len(landed) else ids.duplicated()
    fresh = checked.rows[~known]
    clash = _clashing(fresh, landed, list(contract.key))
    rule = f"{', '.join(contract.key)} names a row that landed before with other values"
    refused = (
        fresh[clash]
        .astype("string")
        .assign(_rule=rule, _column=contract.key[0], _value=fresh[clash][contract.key[0]].astype("string"))
    )
    counts = checked.counts | ({rule: int(clash.sum())} if clash.any() else {})
    quarantined = pd.concat([checked.quarantined, refused], ignore_index=True)
    return Checked(
        rows=fresh[~clash].reset_index(drop=True), quarantined=quarantined, extra=checked.extra, counts=counts
    ), int(known.sum())


def _clashing(rows: pd.DataFrame, landed: pd.DataFrame, key: list[str]) -> pd.Series:
    """Which rows carry a key that has landed already."""
    if landed.empty or rows.empty:
        return pd.Series(data=False, index=rows.index)
    before = pd.MultiIndex.from_frame(landed[key].astype("string"))
    return pd.Series(pd.MultiIndex.from_frame(rows[key].astype("string")).isin(before), index=rows.index)


@task(name="ingest", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2)
def ingest(project: str, path: str) -> Landing:
    """Reads a kept file, checks it against the contract, and appends it to the lake in one commit. May be repeated: the batch lands once."""
    settings, file = Settings(), Path(path)
    use, batch = Project.named(project, settings), fingerprint(file)
    journal = Journal(settings.journal())
    recorded = journal.batch(project, batch) is not None
    landing = _landing(use, batch, file, Lake(project, settings.lake(project)), recorded=recorded)
    if not (recorded and landing.state == "known"):
        numbers = landing.model_dump(exclude={"rules", "extra", "snapshot"})
        journal.record_batch(**numbers, at=dt.datetime.now(dt.UTC).isoformat())
    get_run_logger().info("%s", landing.reason)
    return landing


def _landing(use: Project, batch: str, file: Path, lake: Lake, *, recorded: bool) -> Landing:
    name = original_name(file)
    try:
        rows = read(file)
    except BatchError as error:
        return Landing(
            project=use.project,
            batch=batch,
            name=name,
            state="held",
            reason=str(error),
            arrived=0,
            landed=0,
            quarantined=0,
            known=0,
        )
    if lake.holds(batch):
        return _again(use, batch, name, len(rows), lake) if recorded else _recovered(use, batch, name, len(rows), lake)
    shaped, problem = _shaped(use, rows)
    if problem:
        return _held(use, batch, name, rows, f"{name}: {problem}", lake)
    checked, known = part(use.contract, shaped, lake.rows([*use.contract.key, ROW]))
    bad = len(checked.quarantined)
    if bad > use.contract.hold_above * len(rows):
        worst = max(checked.counts, key=checked.counts.__getitem__)
        limit = f"{name}: {bad} of {len(rows)} rows break the contract, more than {use.contract.hold_above:.0%} (most: {worst}). Nothing landed."
        return _held(use, batch, name, rows, limit, lake, checked.counts)
    if bad:
        lake.quarantine(batch, checked.quarantined)
    landed = len(checked.rows)
    if landed:
        lake.land(batch, checked.rows)
    reason = f"{name}: {len(rows)} arrived = {landed} landed + {bad} quarantined + {known} known"
    return Landing(
        project=use.project, batch=batch, name=name, state="landed" if landed else "known", reason=reason, arrived=len(rows),
        landed=landed, quarantined=bad, known=known, rules=checked.counts, extra=checked.extra, snapshot=_snapshot(use, lake),
    )  # fmt: skip


def _again(use: Project, batch: str, name: str, arrived: int, lake: Lake) -> Landing:
    """The same bytes once more: every row is known, those in quarantine too."""
    reason = f"{name}: {arrived} arrived, all known: the same content landed before"
    return Landing(
        project=use.project, batch=batch, name=name, state="known", reason=reason, arrived=arrived, landed=0, quarantined=0, known=arrived,
        snapshot=_snapshot(use, lake),
    )  # fmt: skip


def _recovered(use: Project, batch: str, name: str, arrived: int, lake: Lake) -> Landing:
    """A batch that was committed by a run that died before it could say so: counted from the tables."""
    landed = int((lake.rows([BATCH])[BATCH] == batch).sum())
    quarantined = int((lake.quarantined()[BATCH] == batch).sum())
    known = arrived - landed - quarantined
    reason = f"{name}: {arrived} arrived = {landed} landed + {quarantined} quarantined + {known} known (committed by an earlier run that died)"
    return Landing(
        project=use.project, batch=batch, name=name, state="landed", reason=reason, arrived=arrived, landed=landed,
        quarantined=quarantined, known=known, snapshot=_snapshot(use, lake),
    )  # fmt: skip


def _shaped(use: Project, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows with the columns that the project derives, or what is wrong with the batch as a whole."""
    derive = use.hook("derive")
    try:
        shaped = derive(rows) if derive else rows
    except KeyError as error:
        return (
            rows,
            f"column {error} is missing, which hooks.py derives from. Columns that came: {', '.join(map(str, rows.columns))}",
        )
    missing = use.contract.missing(shaped)
    if missing:
        return (
            rows,
            f"column '{missing[0]}' is missing{f' (and {len(missing) - 1} more)' if missing[1:] else ''}.{suggestion(missing[0], map(str, rows.columns))} Nothing landed",
        )
    return shaped, ""


def _held(
    use: Project,
    batch: str,
    name: str,
    rows: pd.DataFrame,
    reason: str,
    lake: Lake,
    rules: dict[str, int] | None = None,
) -> Landing:
    """Keeps every row of a batch that may not land in quarantine, so that none is lost."""
    lake.quarantine(batch, rows.assign(_rule=reason, _column="", _value=""))
    return Landing(
        project=use.project, batch=batch, name=name, state="held", reason=reason, arrived=len(rows), landed=0, quarantined=len(rows), known=0,
        rules=rules or {}, snapshot=_snapshot(use, lake),
    )  # fmt: skip


def _snapshot(use: Project, lake: Lake) -> str | None:
    snapshot = lake.snapshot(use.contract.time)
    return snapshot.name if snapshot else None


@task(name="hand on", cache_policy=NO_CACHE)
def hand_on(landing: Landing, path: str) -> None:
    """Shows what became of every row, announces it, and moves the kept file out of the way. May be repeated."""
    create_table_artifact(
        _account(landing),
        key=artifact_key(landing.project, "batch"),
        description=f"**{landing.project}** {landing.reason}",
    )
    landed, held = landing.landed > 0, landing.state == "held"
    if landed or held:
        emit_event(
            event=f"keepfit.batch.{'landed' if landed else 'refused'}", payload=landing.model_dump(mode="json"),
            resource=resource(landing.project),
        )  # fmt: skip
    file = Path(path)
    if file.parent.name in {ARRIVED, SENT} and file.exists():
        folder = file.parent.with_name(HELD if held else LANDED)
        folder.mkdir(parents=True, exist_ok=True)
        file.replace(folder / file.name)


def _account(landing: Landing) -> list[dict[str, Any]]:
    """Rows arrived = landed + quarantined + known, a line each, and the broken rules."""
    counts = [
        ("arrived", landing.arrived),
        ("landed", landing.landed),
        ("quarantined", landing.quarantined),
        ("known", landing.known),
    ]
    return [{"rows": name, "count": count} for name, count in counts] + [
        {"rows": f"quarantined: {rule}", "count": n} for rule, n in landing.rules.items()
    ]
