"""What it costs to score a table: rows a second of `keepfit score` against the compiled model on a ready array, and memory, for 1 and 10 million rows.

The model is that of `test_serving.py`: 200 trees on 22 numbers. Both run on one thread, each in a process of its own; no time is asserted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.benchmarks.test_serving import COLUMNS, TRAINED, fitted, released, rows
from tests.samples import MEMORY

PART = 100_000  # rows of a row group
SIZES = (1_000_000, 10_000_000)
PROJECT = f"""
project: wide
positive: "yes"
contract:
  key: [id]
  time: at
  target: y
  columns:
    id: {{type: int}}
    at: {{type: datetime}}
    y: {{type: text}}
    {"; ".join(f"column_{n}" for n in range(COLUMNS))}
split: {{kind: time, column: at}}
""".replace("; ", ": {type: float, nullable: true}\n    ").replace(f"column_{COLUMNS - 1}\n", f"column_{COLUMNS - 1}: {{type: float, nullable: true}}\n")  # fmt: skip
ALONE = """
import sys, time
import numpy as np, pyarrow.parquet
from tasks.config.settings import Settings
from tasks.score import Answering, Columns
from tasks.serving.champion import Champion
from tasks.stores.journal import Journal
settings = Settings()
champion = Champion.load(settings.bundles("wide") / "1", Journal(settings.journal()).champion("wide"))
form = champion.form
ready = form.encode(Columns(pyarrow.parquet.ParquetFile(sys.argv[1]).read_row_group(0)))
form.answers(ready, champion.session)
began, cpu = time.perf_counter(), time.process_time()
for _ in range(10):
    form.answers(ready, champion.session)
rows = 10 * len(ready)
print(json.dumps({"rows": rows, "wall": rows / (time.perf_counter() - began), "cpu": rows / (time.process_time() - cpu)}))
"""
SCORE = """
import sys, time
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.score import Scoring
settings = Settings()
scoring = Scoring(Project.named("wide", settings), settings)
scoring._columns
began, cpu = time.perf_counter(), time.process_time()
done = scoring.score(sys.argv[1], Path(sys.argv[2]))
wall, cpu = time.perf_counter() - began, time.process_time() - cpu
print(json.dumps({"rows": done.scored, "wall": done.scored / wall, "cpu": done.scored / cpu, "most": memory("VmHWM")}))
"""


def written(path: Path, count: int) -> Path:
    """A Parquet file of so many rows, a row group repeated."""
    part = pa.Table.from_pandas(rows(PART), preserve_index=False)
    schema = pa.schema([("id", pa.int64()), *part.schema])
    with pa.parquet.ParquetWriter(path, schema) as writer:
        for at in range(0, count, PART):
            writer.write_table(part.add_column(0, "id", pa.array(range(at, at + PART), pa.int64())).cast(schema))
    return path


def said(code: str, home: Path, *words: Path) -> dict[str, float]:
    """What a process of its own prints last."""
    told = {"KEEPFIT_HOME": str(home), "KEEPFIT_PROJECTS": str(home / "projects"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"{MEMORY}\nimport json\n{code}", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | told, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_scoring_a_table_costs_little_more_than_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row is scored; ten times the rows need no more memory."""
    (tmp_path / "projects" / "wide").mkdir(parents=True)
    (tmp_path / "projects" / "wide" / "project.yaml").write_text(PROJECT)
    assert released(tmp_path, fitted()).form is not None, f"a model of {TRAINED} rows compiles"
    found = {}
    for count in SIZES:
        source = written(tmp_path / f"{count}.parquet", count)
        model = said(ALONE, tmp_path, source)
        found[count] = said(SCORE, tmp_path, source, tmp_path / "out.parquet")
        assert found[count]["rows"] == count
        with capsys.disabled():
            print(  # noqa: T201 -- what a benchmark is for
                f"\n{count:>11,} rows: {found[count]['wall']:>9,.0f} a second, the model alone {model['wall']:>9,.0f}: ratio {found[count]['wall'] / model['wall']:.2f} "
                f"(of CPU {found[count]['cpu'] / model['cpu']:.2f}); at most {found[count]['most'] / 2**20:,.0f} MiB"
            )
        source.unlink()
    small, large = (found[count]["most"] for count in SIZES)
    assert large < 1.1 * small + 32 * 2**20
