from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import ingest
from tasks.config.errors import BatchError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.contract import Column, Contract
from tasks.ml.identity import row_ids
from tasks.stores.lake import ROW, Lake
from tests.samples import write_rows

CONTRACT = Contract(
    columns={"id": Column(type="int"), "at": Column(type="datetime"), "age": Column(type="int", min=0, max=120, nullable=True), "y": Column(type="bool")},
    key=("id",), time="at", target="y",
)  # fmt: skip
TEXTS = st.one_of(st.sampled_from(["1", "2", "3", "x", "455", "-1", "1e999", None]), st.none())
ROWS = st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["t", "f", "?", None])), min_size=1, max_size=12)


def frame(rows: list[tuple[str | None, str | None, str | None]]) -> pd.DataFrame:
    texts = {
        "id": [row[0] for row in rows],
        "at": ["2026-01-01"] * len(rows),
        "age": [row[1] for row in rows],
        "y": [row[2] for row in rows],
    }
    return pd.DataFrame(texts, dtype="string")


@settings(deadline=None, max_examples=150)
@given(ROWS, ROWS)
def test_no_row_is_lost(first, second):
    """Rows arrived = landed + quarantined + known, for any two batches, however they overlap and whatever they hold."""
    landed = pd.DataFrame(columns=["id", ROW])
    for batch in (frame(first), frame(second)):
        checked, known = ingest.part(CONTRACT, batch, landed)
        assert len(checked.rows) + len(checked.quarantined) + known == len(batch)
        assert sum(checked.counts.values()) == len(checked.quarantined)
        landed = pd.concat([landed, checked.rows[["id"]].assign(**{ROW: row_ids(checked.rows)})], ignore_index=True)
    assert not landed["id"].duplicated().any()


def test_the_same_content_again_is_known(thyroid_rows, tmp_path: Path):
    """I-03: a second landing of the same rows under another name lands none and knows all."""
    use, lake = Project.named("thyroid"), Lake("thyroid", str(tmp_path / "lake"))
    file = write_rows(tmp_path / "a.csv", thyroid_rows[:60])
    first = ingest._landing(use, "1", file, lake, recorded=False)
    again = ingest._landing(use, "2", write_rows(tmp_path / "b.csv", thyroid_rows[30:90]), lake, recorded=False)
    assert (first.landed, first.known) == (60, 0)
    assert (again.landed, again.known) == (30, 30)
    assert first.arrived == first.landed + first.quarantined + first.known


def test_a_corrected_row_does_not_land_beside_the_old_one(thyroid_rows, tmp_path: Path):
    """A key that landed with other values goes to quarantine, and the rule says so."""
    use, lake = Project.named("thyroid"), Lake("thyroid", str(tmp_path / "lake"))
    ingest._landing(use, "1", write_rows(tmp_path / "a.csv", thyroid_rows[:60]), lake, recorded=False)
    changed = [{**thyroid_rows[0], "age": "33"}, *thyroid_rows[60:90]]
    landing = ingest._landing(use, "2", write_rows(tmp_path / "b.csv", changed), lake, recorded=False)
    assert (landing.landed, landing.quarantined) == (30, 1)
    assert landing.rules == {"patient_id names a row that landed before with other values": 1}


def test_a_run_that_died_after_the_commit_is_counted_from_the_tables(thyroid_rows, tmp_path: Path):
    """S-01: repeated after a kill between commit and record, the batch says what it did land and lands nothing again."""
    use, lake = Project.named("thyroid"), Lake("thyroid", str(tmp_path / "lake"))
    file = write_rows(tmp_path / "a.csv", [{**thyroid_rows[0], "age": "455"}, *thyroid_rows[1:60]])
    first = ingest._landing(use, "1", file, lake, recorded=False)
    again = ingest._landing(use, "1", file, lake, recorded=False)
    assert (again.landed, again.quarantined, again.known) == (first.landed, first.quarantined, 0) == (59, 1, 0)
    assert len(lake.rows()) == 59
    assert len(lake.quarantined()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: {name: value for name, value in row.items() if name != "TSH"}, "column 'TSH' is missing"),
        (
            lambda row: {name: value for name, value in row.items() if name != "patient_id"},
            "column 'patient_id' is missing",
        ),
        (lambda row: {**row, "age": "old"}, "60 of 60 rows break the contract"),
    ],
)
def test_a_batch_that_breaks_the_contract_is_held_whole(thyroid_rows, tmp_path: Path, change, said):
    """I-08: nothing of it lands, every row is kept in quarantine, and the reason names the column."""
    use, lake = Project.named("thyroid"), Lake("thyroid", str(tmp_path / "lake"))
    landing = ingest._landing(
        use, "1", write_rows(tmp_path / "a.csv", [change(row) for row in thyroid_rows[:60]]), lake, recorded=False
    )
    assert landing.state == "held"
    assert said in landing.reason
    assert (landing.arrived, landing.landed, landing.quarantined) == (60, 0, 60)
    assert len(lake.quarantined()) == 60


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"age,sex\n", "header but no row"),
        ("a.parquet", b"PAR1 this is none", "does not read as parquet"),
        ("a.csv", b"a,b\n1\n", "does not read as csv"),
        ("a.jsonl", b'{"a": 1', "does not read as jsonl"),
        ("a.xlsx", b"PK", "is of kind '.xlsx'"),
    ],
)
def test_a_broken_file_says_what_is_wrong_in_one_line(tmp_path: Path, name, content, said):
    """I-09, I-11: empty, cut, of another kind: a BatchError that names the file and the next move."""
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(BatchError, match=said) as raised:
        ingest.read(file)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_no_surprise(settings: Settings, tmp_path: Path):
    """`keepfit land` of a file that is not there says so before anything starts."""
    with pytest.raises(BatchError, match="is no file"):
        ingest.keep("thyroid", tmp_path / "nowhere.csv", settings)


def test_a_kept_file_has_the_name_of_its_content(settings: Settings, tmp_path: Path):
    """The copy cannot change while it lands, and keeping it twice makes one file."""
    file = tmp_path / "a.csv"
    file.write_text("x\n1\n")
    kept = ingest.keep("thyroid", file, settings)
    assert ingest.keep("thyroid", file, settings) == kept
    assert kept.name == f"{ingest.fingerprint(file)[:16]}-a.csv"
    assert ingest.original_name(kept) == "a.csv"
