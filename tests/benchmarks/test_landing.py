"""What landing costs: against pyarrow alone, in memory, over many files, over many batches. Nothing asserts a time."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from flows import inbox
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ingest import Landing, Landings
from tests.samples import MEMORY
from tests.tasks.test_ingest import small

__all__ = ["small"]

FLOATS, INTS, FLAGS, CATEGORIES = 14, 7, 2, 4  # with key, time and target: 30 columns
WORDS = ("alpha", "beta", "gamma", "delta")
TOWNS = tuple(f"town {number}" for number in range(300))
PIECE = 500_000
YAML = """
project: wide
positive: true
contract:
  key: [id]
  time: at
  target: y
  columns:
    id: {type: int, min: 0}
    at: {type: datetime}
    y: {type: bool}
"""
LAND = (
    MEMORY
    + """
import json, sys, time
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ingest import Landings

settings = Settings()
landings = Landings(Project.named("wide", settings), settings)
before, start = memory("VmRSS:"), time.perf_counter()
landing = landings.land(Path(sys.argv[1]))
seconds = time.perf_counter() - start
told = landing.model_dump(mode="json")
print(json.dumps({"seconds": seconds, "mebibytes": (memory("VmHWM:") - before) / 2**20, **told}))
"""
)
STREAM = """
import json, sys, time
import pyarrow.parquet as pq
start = time.perf_counter()
with pq.ParquetFile(sys.argv[1]) as file, pq.ParquetWriter(sys.argv[2], file.schema_arrow, compression="snappy") as writer:
    for batch in file.iter_batches(262_144):
        writer.write_batch(batch)
print(json.dumps({"seconds": time.perf_counter() - start, "rows": pq.read_metadata(sys.argv[2]).num_rows}))
"""
WHOLE = """
import json, sys, time
import pyarrow.parquet as pq
start = time.perf_counter()
pq.write_table(pq.read_table(sys.argv[1]), sys.argv[2], compression="snappy")
print(json.dumps({"seconds": time.perf_counter() - start, "rows": pq.read_metadata(sys.argv[2]).num_rows}))
"""


def said(line: str) -> None:
    print(f"\n{line}", flush=True)  # noqa: T201


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder; the project `wide` of 30 columns, most of them with a rule, is where the environment says."""
    kinds = {
        **{f"float{n}": "{type: float, nullable: true, min: -100, max: 100}" for n in range(FLOATS)},
        **{f"int{n}": "{type: int, min: 0}" for n in range(INTS)},
        **{f"flag{n}": "{type: bool}" for n in range(FLAGS)},
        **{f"category{n}": "{type: category}" for n in range(CATEGORIES)},
    }
    lines = "".join(f"    {name}: {column}\n" for name, column in kinds.items())
    folder = tmp_path / "projects" / "wide"
    folder.mkdir(parents=True)
    (folder / "project.yaml").write_text(f"{YAML}{lines}split: {{kind: time, column: at}}\n")
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(folder.parent))
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    assert len(Project.named("wide", Settings()).contract.columns) == 30
    return tmp_path


def pieces(size: int, seed: int = 7) -> Iterator[pa.Table]:
    """Rows that keep the contract, half a million at a time."""
    random, start = np.random.default_rng(seed), np.datetime64("2020-01-01", "us")
    for first in range(0, size, PIECE):
        count = min(PIECE, size - first)
        ids = np.arange(first, first + count)
        columns = {"id": ids, "at": start + ids * np.timedelta64(20, "s"), "y": random.random(count) < 0.1}
        for n in range(FLOATS):
            gaps = random.random(count) < 0.02 if n % 3 == 0 else None
            columns[f"float{n}"] = pa.array(np.clip(random.normal(size=count), -99, 99).round(6), mask=gaps)
        for n in range(INTS):
            columns[f"int{n}"] = random.integers(0, 10 ** (n + 1), count)
        for n in range(FLAGS):
            columns[f"flag{n}"] = random.random(count) < 0.3
        for n in range(CATEGORIES):
            words = TOWNS if n == 0 else WORDS
            columns[f"category{n}"] = pa.DictionaryArray.from_arrays(
                random.integers(0, len(words), count, dtype=np.int32), pa.array(words)
            ).cast(pa.string())
        table = pa.table(columns)
        at = table.column_names.index("at")
        yield table.set_column(at, "at", table["at"].cast(pa.timestamp("us", "UTC")))


def parquet(path: Path, size: int) -> Path:
    writer = None
    for piece in pieces(size):
        writer = writer or pa.parquet.ParquetWriter(path, piece.schema, compression="snappy")
        writer.write_table(piece)
    assert writer is not None
    writer.close()
    return path


def csv(path: Path, size: int) -> Path:
    writer = None
    for piece in pieces(size):
        stamped = piece.set_column(1, "at", piece["at"].cast(pa.string()))
        writer = writer or pa.csv.CSVWriter(path, stamped.schema)
        writer.write_table(stamped)
    assert writer is not None
    writer.close()
    return path


def fresh(code: str, *arguments: Path, home: Path | None = None) -> dict:
    """What a new process says in its last line."""
    environment = os.environ | ({"KEEPFIT_HOME": str(home)} if home else {})
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=True, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_million_rows_land_beside_pyarrow_alone(wide: Path):
    """5,000,000 x 30 of Parquet, contract included, and the same file read and rewritten by pyarrow: the ratios are printed."""
    file, size = parquet(wide / "wide.parquet", 5_000_000), 5_000_000
    seconds: dict[str, list[float]] = {"landing": [], "stream": [], "whole": []}
    for repeat in range(3):
        landing = fresh(LAND, file, home=wide / f"state{repeat}")
        assert (landing["arrived"], landing["landed"], landing["state"]) == (size, size, "landed")
        seconds["landing"].append(landing["seconds"])
        for name, code in (("stream", STREAM), ("whole", WHOLE)):
            again = fresh(code, file, wide / "again.parquet")
            assert again["rows"] == size
            seconds[name].append(again["seconds"])
    mid = {name: statistics.median(each) for name, each in seconds.items()}
    every = "; ".join(f"{name} {', '.join(f'{each:.1f}' for each in times)} s" for name, times in seconds.items())
    said(
        f"5,000,000 x 30, {file.stat().st_size >> 20} MiB: landing {mid['landing'] / mid['stream']:.2f} x streamed pyarrow, "
        f"{mid['landing'] / mid['whole']:.2f} x pyarrow at once (goal 2) | {every}"
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("kind", "size"), [("parquet", 1_000_000), ("parquet", 5_000_000), ("csv", 1_000_000), ("csv", 4_000_000)]
)
def test_the_peak_memory_of_a_landing(wide: Path, kind: str, size: int):
    """What a landing takes above the interpreter with its imports is printed, for one million rows and for more."""
    file = {"parquet": parquet, "csv": csv}[kind](wide / f"wide.{kind}", size)
    landing = fresh(LAND, file)
    assert (landing["arrived"], landing["landed"]) == (size, size)
    said(
        f"{kind}, {size:,} x 30, {file.stat().st_size >> 20} MiB: {landing['mebibytes']:.0f} MiB above the imports "
        f"(goal 1024), {landing['seconds']:.1f} s"
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_small_files_become_few_commits(small: Landings, monkeypatch: pytest.MonkeyPatch):
    """I-24: 10,000 files at once in the inbox: every row lands, in a few versions, and few trainings are asked for."""
    watcher, results, submitted = inbox.Inbox(Settings()), list[Landing](), list[Path]()
    folder = Settings().inbox("small")
    folder.mkdir(parents=True)
    monkeypatch.setattr(inbox, "submit", lambda _name, kept, _kind: submitted.append(kept))
    for n in range(10_000):
        (folder / f"{n}.csv").write_text(
            f"id,at,age,y\n{n},2026-01-{1 + n % 28:02d}T00:00:00Z,{n % 100},{'tf'[n % 2]}\n"
        )
    start, took = time.perf_counter(), 0.0
    while not submitted:
        before = time.perf_counter()
        watcher.look(time.monotonic())
        took += time.perf_counter() - before
    gathered = time.perf_counter() - start
    start = time.perf_counter()
    results = [small.land(path) for path in submitted]
    landed = time.perf_counter() - start
    events = sum(landing.landed > 0 for landing in results)
    commits = len(list(small.lake.versions())) - 1  # the table's own first version holds no row
    said(
        f"10,000 files: {len(submitted)} runs, {commits} commits, {events} events; gathered in {gathered:.1f} s "
        f"(looking took {took:.1f} s), landed in {landed:.1f} s"
    )
    assert sum(landing.landed for landing in results) == 10_000
    assert small.journal.totals("small")["rows"] == len(small.lake.rows(["id"])) == 10_000
    assert not [path for path in folder.iterdir() if path.is_file()]
    assert (len(submitted), commits, events) == (1, 1, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_thousandth_batch_costs_what_the_first_did(wide: Path):
    """Batches of 1,000 x 30: the last twenty of a thousand take turns with the first twenty of another table, so that both meet
    the same machine; their medians are printed."""  # noqa: D205, D209
    old, young = (_landings(wide / name) for name in ("old", "young"))
    frames = (piece.slice(at, 1000) for piece in pieces(1_020_000) for at in range(0, len(piece), 1000))
    before = [_landed(old, next(frames), wide) for _ in range(980)]
    turns = [(_landed(young, next(frames), wide), _landed(old, next(frames), wide)) for _ in range(20)]
    first, last = (statistics.median(each) for each in zip(*turns, strict=True))
    steps = ", ".join(f"{statistics.median(before[at : at + 20]) * 1000:.0f}" for at in range(0, 980, 100))
    said(
        f"1,000 batches: batches 1-20 {first * 1000:.0f} ms, 981-1,000 {last * 1000:.0f} ms, ratio {last / first:.2f} "
        f"(goal 1.5) | each hundred begins with {steps} ms"
    )
    assert old.journal.totals("wide")["rows"] == 1_000_000
    assert young.journal.totals("wide")["rows"] == 20_000


def _landings(home: Path) -> Landings:
    settings = Settings(home=home)
    return Landings(Project.named("wide", settings), settings)


def _landed(landings: Landings, rows: pa.Table, folder: Path) -> float:
    """Seconds of one landing."""
    file = folder / f"{rows['id'][0]}.parquet"
    pa.parquet.write_table(rows, file)
    start = time.perf_counter()
    landing = landings.land(file)
    seconds = time.perf_counter() - start
    file.unlink()
    assert landing.landed == 1000
    return seconds
