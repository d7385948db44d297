"""Score: the champion answers a whole table of rows, a part at a time; each row is scored or rejected with its reason."""

import datetime as dt
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from deltalake import DeltaTable
from pydantic import BaseModel

from tasks.config.errors import BatchError, suggestion
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.compiled.encode import GONE
from tasks.ml.contract import Column
from tasks.serving.champion import Champion, label_of
from tasks.sources.delivery import sweep
from tasks.sources.scores import WRITTEN, rejects_of
from tasks.stores import durable, files
from tasks.stores.journal import Journal, Release

REJECTS = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("raw", pa.string())])


class Asked(NamedTuple):
    """What is to be scored: a source, the file for the answers, and one SELECT where the source is a database."""

    source: str
    target: Path
    sql: str


class Scored(BaseModel, frozen=True):
    """What became of the rows: arrived = scored + rejected.

    Attributes:
        version: who scored; none where there is no champion.
        state: scored or refused.
        output, rejects: files; none where no row was scored, or none was rejected.
    """

    project: str
    version: int | None
    state: str
    reason: str
    arrived: int = 0
    scored: int = 0
    rejected: int = 0
    output: str | None = None
    rejects: str | None = None


class Columns:
    """Checked rows in Arrow for a compiled form."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self._rows)

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) float64, NaN for missing."""
        made = np.empty((self.count, len(columns)))
        for place, name in enumerate(columns):
            made[:, place] = self._rows[name].cast(pa.float64()).to_numpy()
        return made

    def texts(self, columns: Sequence[str]) -> list[list[Any]]:
        """Of each column its n texts, None for missing."""
        return [self._rows[name].to_pylist() for name in columns]

    def moments(self, columns: Sequence[str]) -> np.ndarray:
        """(n, columns) int64 of microseconds, `GONE` for missing."""
        plain = (self._rows[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()) for name in columns)
        made = [pc.fill_null(some, int(GONE)).to_numpy() for some in plain]
        return np.stack(made, axis=1) if made else np.empty((self.count, 0), dtype=np.int64)


class Answering:
    """One champion, and what its answers are as columns.

    A compiled champion is asked by column; any other one by row, as the serving process does.
    """

    def __init__(self, champion: Champion) -> None:
        self.champion, self.manifest = champion, champion.manifest

    def answer(self, rows: pa.Table) -> pa.Table:
        """The answers to checked rows: `prediction`, then what is known of its certainty.

        Raises:
            ValueError: a row cannot be scored; then none is.
        """
        form = self.champion.form
        if form is None or not self.champion.is_quick or self.manifest.kind == "recommendation":
            return self._listed(self.champion.score(self._plain(rows)))
        said = form.answers(form.encode(Columns(rows)), self.champion.session)
        if not np.isfinite(said).all():
            raise ValueError("the model has no number for it")
        return self._decided(said)

    def _plain(self, rows: pa.Table) -> list[dict[str, Any]]:
        names = [feature.name for feature in self.manifest.features]
        return self.champion.check([
            {name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in row.items()}
            for row in rows.select(names).to_pylist()
        ])  # fmt: skip

    def _decided(self, said: np.ndarray) -> pa.Table:
        """Numbers of the model as columns; they mean what `Champion.score` says of them."""
        manifest = self.manifest
        if manifest.kind == "regression":
            half = manifest.interval or 0.0
            return pa.table({"prediction": said, "low": said - half, "high": said + half})
        if manifest.kind == "anomaly":
            return pa.table({"prediction": said >= (manifest.threshold or 0.0), "score": said})
        names = [label_of(label) for label in manifest.classes]
        places = said.argmax(axis=1)
        if manifest.kind == "binary":
            yes = names.index(label_of(manifest.positive))
            places = np.where(said[:, yes] >= (manifest.threshold or 0.0), yes, 1 - yes)
        labels = pa.array(list(manifest.classes)).take(pa.array(places))
        return pa.table({"prediction": labels} | {f"probability_{name}": said[:, n] for n, name in enumerate(names)})

    def _listed(self, answers: list[dict[str, Any]]) -> pa.Table:
        flat = []
        for answer in answers:
            prediction = answer["prediction"]
            row = {"prediction": json.dumps(prediction) if isinstance(prediction, list) else prediction}
            row |= {f"probability_{name}": chance for name, chance in answer.get("probabilities", {}).items()}
            row |= dict(zip(("low", "high"), answer.get("interval", ()), strict=False))
            row |= {name: answer[name] for name in ("score",) if name in answer}
            row |= {"scores": json.dumps(answer["scores"])} if "scores" in answer else {}
            flat.append(row)
        return pa.Table.from_pylist(flat)


class Scoring:
    """The champion of a project over tables of rows."""

    def __init__(
        self, use: Project, settings: Settings, clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    ) -> None:
        self.use, self._settings, self._clock = use, settings, clock
        self._derive = use.hook("derive", settings)

    def asked(self, source: str, target: str, sql: str, name: str) -> Asked:
        """What is to be scored: as it is said, or one of the project's `scores` by its name.

        Raises:
            BatchError: neither is said, or both, or the project declares none of that name.
        """
        if bool(source and target) == bool(name) or (name and (source or target or sql)):
            raise BatchError(
                f"Say what to score: a source and a target, or the name of one of the `scores` of {self.use.project}. Nothing was scored."
            )
        if not name:
            return Asked(source, Path(target), sql)
        known = {each.name: each for each in self.use.scores}
        if name not in known:
            raise BatchError(
                f"{self.use.project}: has no entry '{name}' under `scores`. Entries: {', '.join(known) or 'none'}.{suggestion(name, known)} Nothing was scored."
            )
        folder, entry = self._settings.scores(self.use.project), known[name]
        there = entry.source if entry.sql or "://" in entry.source else str(folder / entry.source)
        return Asked(there, folder / entry.target, entry.sql)

    def refuse_unfit(self, source: str, target: Path, sql: str = "") -> None:
        """Refuses what can be seen to fail before a run is made for it: the place for the answers, a file as far as its first rows, a password that a run would keep.

        Raises:
            BatchError: one of them will not do; nothing was made.
        """
        self._written_apart(source, target)
        if not target.parent.is_dir():
            raise BatchError(f"{target.parent}: is no folder. Make it, or name another file; nothing was scored.")
        if sql:
            _refuse_password(source)
        if sql or "://" in source:
            return
        rows = next(self._chunks(source, sql), None)
        columns = self.use.contract.key if rows is None else self._shaped(rows).column_names
        if missing := [name for name in self.use.contract.key if name not in columns]:
            raise BatchError(
                f"{Path(source).name}: has no column '{missing[0]}', by which {self.use.project} names a row. Nothing was scored."
            )

    @cached_property
    def _release(self) -> Release | None:
        return Journal(self._settings.journal()).champion(self.use.project)

    @cached_property
    def _answering(self) -> Answering:
        release = cast("Release", self._release)  # `score` refuses where there is none
        folder = self._settings.bundles(self.use.project) / str(release.version)
        return Answering(Champion.load(folder, release, skew=self._settings.library_skew))

    def score(
        self, source: str, target: Path, sql: str = "", say: Callable[[str], None] = lambda _line: None
    ) -> Scored:
        """Scores every row of a source into a file, which is there as a whole or not at all; refuses where there is no champion.

        Args:
            source: a file (CSV, Parquet, JSON lines), the folder of a Delta table, or with `sql` a SQLAlchemy URL or `env:NAME`.
            target: CSV or Parquet. Rows that do not fit go beside it, `<name>.rejects.csv`.
            sql: one SELECT.
            say: is told how far it is, after every part.

        Raises:
            BatchError: the source does not read, or lacks a column, or the target is of another kind or the source itself; nothing was written.
        """
        self._written_apart(source, target)
        if self._release is None:
            reason = f"{self.use.project} has no champion yet: `keepfit train {self.use.project}` makes one. Nothing was scored"
            return Scored(project=self.use.project, version=None, state="refused", reason=reason)
        rejects, version = rejects_of(target), self._answering.manifest.version
        arrived = scored = 0
        with _Written(target, self._clock()) as good, _Written(rejects, self._clock()) as bad:
            for chunk in self._chunks(source, sql):
                answers, refused = self._part(chunk, arrived)
                good.add(answers)
                bad.add(refused)
                arrived, scored = arrived + len(chunk), scored + len(answers)
                say(f"{arrived:,} rows: {scored:,} scored, {arrived - scored:,} rejected")
            bad.publish()
            good.publish()
        rejected = arrived - scored
        return Scored(
            project=self.use.project, version=version, state="scored", arrived=arrived, scored=scored, rejected=rejected,
            reason=f"{arrived:,} rows: {scored:,} scored by version {version}, {rejected:,} rejected",
            output=str(target) if scored else None, rejects=str(rejects) if rejected else None,
        )  # fmt: skip

    def _written_apart(self, source: str, target: Path) -> None:
        """Refuses a target of another kind, or one that would replace what it is made of."""
        if target.suffix not in WRITTEN:
            raise BatchError(f"{target.name}: wanted a file that ends in {' or '.join(WRITTEN)}. Nothing was scored.")
        if Path(source).resolve() in {path.resolve() for path in (target, rejects_of(target))}:
            raise BatchError(f"{target.name}: would replace its own source. Name another file; nothing was scored.")

    @cached_property
    def _columns(self) -> dict[str, Column]:
        """What a row must hold to be scored: the key, and what the model reads."""
        own, features = self.use.contract.columns, self._answering.manifest.features
        read = {
            each.name: own.get(each.name, Column(type=each.type)).model_copy(update={"nullable": each.nullable})
            for each in features
        }
        return {name: own[name] for name in self.use.contract.key} | read

    def _part(self, chunk: pa.Table, before: int) -> tuple[pa.Table, pa.Table]:
        """The answers to the rows of a part, and its rejected rows with their places, counted from 1."""
        rows, reasons = self._checked(self._shaped(chunk))
        fits = np.setdiff1d(np.arange(len(rows)), list(reasons))
        parts = list(self._halving(rows.take(pa.array(fits, pa.int64())), fits, reasons))
        places = sorted(reasons)
        lines = [json.dumps(row, default=str) for row in chunk.take(pa.array(places, pa.int64())).to_pylist()]
        refused = ([before + 1 + place for place in places], [reasons[place] for place in places], lines)
        answers = pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({})
        return answers, pa.table(dict(zip(REJECTS.names, refused, strict=True)), schema=REJECTS)

    def _checked(self, raw: pa.Table) -> tuple[pa.Table, dict[int, str]]:
        """The rows in the types of their columns, and why which ones do not fit."""
        if missing := [name for name in self._columns if name not in raw.column_names]:
            raise BatchError(
                f"The rows have no column '{missing[0]}', which version {self._answering.manifest.version} needs. Nothing was scored."
            )
        columns, reasons = dict[str, pa.Array](), dict[int, str]()
        for name, column in self._columns.items():
            columns[name], faults = column.check(raw[name].combine_chunks(), self.use.reads.decimal)
            for text, mask in faults.items():
                for place in np.flatnonzero(mask).tolist():
                    reasons.setdefault(place, f"{name} {text}")
        return pa.table(columns), reasons

    def _shaped(self, chunk: pa.Table) -> pa.Table:
        if self._derive is None:
            return chunk
        try:
            shaped = pa.Table.from_pandas(self._derive(chunk.to_pandas()), preserve_index=False)
        except KeyError as error:
            raise BatchError(
                f"The rows have no column {error}, which hooks.py derives from. Nothing was scored."
            ) from error
        except Exception as error:
            raise BatchError(
                f"hooks.py cannot derive its columns from these rows: {type(error).__name__}: {str(error)[:200]}. Nothing was scored."
            ) from error
        if len(shaped) != len(chunk):
            raise BatchError(
                f"`derive` of {self.use.project} made {len(shaped):,} rows of {len(chunk):,}; wanted one for each. Nothing was scored."
            )
        return shaped

    def _halving(self, rows: pa.Table, places: np.ndarray, reasons: dict[int, str]) -> Iterator[pa.Table]:
        """Keys, answers and version; where some row has none it is found by halving, and its reason noted."""
        if not len(rows):
            return
        try:
            answers = self._answering.answer(rows)
        except ValueError:
            if len(rows) == 1:
                reasons[int(places[0])] = "the model has no answer for it"
                return
            half = len(rows) // 2
            yield from self._halving(rows.slice(0, half), places[:half], reasons)
            yield from self._halving(rows.slice(half), places[half:], reasons)
            return
        keyed = rows.select(list(self.use.contract.key))
        for name in answers.column_names:
            keyed = keyed.append_column(name, answers[name])
        yield keyed.append_column("version", pa.array(np.full(len(rows), self._answering.manifest.version)))

    # -- where rows come from -----------------------------------------------------------------------------------------
    def _chunks(self, source: str, sql: str) -> Iterator[pa.Table]:
        if sql:
            yield from _queried(source, sql)
        elif "://" in source or (Path(source) / "_delta_log").is_dir():
            batches = (
                DeltaTable(source)
                .to_pyarrow_dataset()
                .to_batches(batch_size=files.ROWS, batch_readahead=1, fragment_readahead=1)
            )
            yield from (pa.Table.from_batches([batch]) for batch in batches if len(batch))
        else:
            yield from files.chunks(Path(source), self.use.reads)


def _queried(url: str, sql: str) -> Iterator[pa.Table]:
    """The rows of a SELECT, a part at a time.

    Args:
        url: SQLAlchemy's, or `env:NAME` of the variable that holds it: a run keeps what it was asked, so a password is not taken here.
        sql: the SELECT.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import SQLAlchemyError

    from tasks.sources.query import Rows, engine_of, said

    _refuse_password(url)
    named = url.startswith("env:")
    variable = url.removeprefix("env:") if named else "the URL"
    try:
        engine = engine_of(os.environ.get(variable, "") if named else url, variable)
    except ValueError as error:
        raise BatchError(f"The database is not asked: {error}. Nothing was scored.") from None
    try:
        with engine.connect() as connection:
            result = connection.execution_options(yield_per=files.ROWS).execute(sa.text(sql))
            names = tuple(result.keys())
            for values in result.partitions():
                yield Rows(names, dict.fromkeys(names), values).table()
    except SQLAlchemyError as error:
        raise BatchError(
            f"The query fails: {said(error, engine.url)}. Look at the URL and at the SELECT; nothing was scored."
        ) from None


def _refuse_password(url: str) -> None:
    if not url.startswith("env:") and _has_password(url):
        raise BatchError(
            "The URL holds a password, and runs are kept. Put it into an environment variable and say env:NAME; nothing was scored."
        )


def _has_password(url: str) -> bool:
    """Whether a URL holds one; what is no URL is said later."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return bool(make_url(url).password)
    except (ArgumentError, ValueError):
        return False


class _Written:
    """A file that is written a part at a time under another name, and gets its own when it is whole; without rows there is none."""

    def __init__(self, path: Path, now: dt.datetime) -> None:
        """What killed runs have left of it, a day ago or earlier, is removed."""
        sweep(path.parent, now, f".{escape(path.name)}.*{durable.PARTIAL}")
        self.path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}{durable.PARTIAL}")
        self._writer: Any = None

    def __enter__(self) -> "_Written":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        self._partial.unlink(missing_ok=True)

    def add(self, rows: pa.Table) -> None:
        """Writes rows; the first ones say which columns there are."""
        if not len(rows):
            return
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kind = pa.csv.CSVWriter if self.path.suffix == ".csv" else pa.parquet.ParquetWriter
            self._schema, self._writer = rows.schema, kind(str(self._partial), rows.schema)
        self._writer.write_table(rows.cast(self._schema))

    def publish(self) -> None:
        """Gives the file its name; what an earlier run had left under it is gone."""
        if self._writer is None:
            durable.remove(self.path)
            return
        self._writer.close()
        self._writer = None
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        durable.move(self._partial, self.path)
