import contextlib
import datetime as dt
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tasks import ingest
from tasks.config.errors import ArtifactError, BatchError
from tasks.config.names import LANDED
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.stores import changes, durable, files
from tests.samples import write_rows

SMALL = """
project: small
positive: true
contract:
  key: [id]
  time: at
  target: y
  hold_above: 0.5
  hold_bad_target: 1
  columns:
    id: {type: int}
    at: {type: datetime}
    age: {type: int, min: 0, max: 120, nullable: true}
    y: {type: bool}
split: {kind: time, column: at}
"""
TEXTS = st.sampled_from(["1", "2", "3", "x", "455", "-1", "1e999", ""])
ROWS = st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["t", "f", "?", ""])), min_size=1, max_size=12)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ingest.Landings:
    folder = tmp_path / "projects" / "small"
    folder.mkdir(parents=True)
    (folder / "project.yaml").write_text(SMALL)
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(folder.parent))
    settings = Settings()
    return ingest.Landings(Project.named("small", settings), settings)


@pytest.fixture
def thyroid(settings: Settings) -> ingest.Landings:
    return ingest.Landings(Project.named("thyroid", settings), settings)


def rows(*numbers: int, **values: str) -> list[dict[str, str]]:
    return [
        {"id": str(n), "at": f"2026-01-{1 + n % 28:02d}T00:00:00Z", "age": str(n % 100), "y": "tf"[n % 2]} | values
        for n in numbers
    ]


def land(landings: ingest.Landings, folder: Path, name: str, content: list[dict[str, str]]) -> ingest.Landing:
    return landings.land(write_rows(folder / name, content))


def counts(landing: ingest.Landing) -> tuple[int, int, int, int]:
    assert landing.arrived == landing.landed + landing.quarantined + landing.known
    return landing.arrived, landing.landed, landing.quarantined, landing.known


@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=ROWS, second=ROWS)
def test_i_06_no_row_is_lost_however_two_files_overlap(small, tmp_path_factory, first, second):
    """Rows arrived = landed + quarantined + known, for any two files, and no key is in the table twice."""
    folder = tmp_path_factory.mktemp("any")
    for n, batch in enumerate((first, second)):
        content = [{"id": a, "at": "2026-01-01T00:00:00Z", "age": b, "y": c} for a, b, c in batch]
        counts(land(small, folder, f"{folder.name}{n}.csv", content))
    assert not small.lake.rows(["id"])["id"].duplicated().any()
    totals = small.journal.totals("small")
    assert totals["arrived"] == totals["rows"] + totals["quarantined"] + totals["known"]
    assert totals["quarantined"] == len(small.lake.quarantined())


def test_i_03_the_same_bytes_again_are_known(small, tmp_path: Path):
    """The same file under another name makes no new version; rows of another file that are here already are known."""
    first = land(small, tmp_path, "a.csv", rows(*range(60)))
    small.journal.announced("small")
    again = land(small, tmp_path, "other.csv", rows(*range(60)))
    overlap = land(small, tmp_path, "b.csv", rows(*range(30, 90)))
    assert (counts(first), counts(again), counts(overlap)) == ((60, 60, 0, 0), (60, 0, 0, 60), (60, 30, 0, 30))
    assert again.state == "known"
    assert again.snapshot == first.snapshot == "v1"
    assert len(small.lake.rows()) == 90


def test_i_04_a_file_of_the_same_name_corrects_rows_and_the_old_snapshot_stays(small, tmp_path: Path):
    """Corrected bytes replace rows by their key in one commit; the version before reads as it was."""
    land(small, tmp_path, "a.csv", rows(*range(60)))
    before = small.lake.snapshot()
    corrected = land(small, tmp_path, "a.csv", [*rows(3, age="77"), *rows(60)])
    assert (counts(corrected), corrected.replaced) == ((2, 2, 0, 0), 1)
    now = small.lake.rows()
    assert len(now) == 61
    assert now.loc[now["id"] == 3, "age"].tolist() == [77]
    old = small.lake.read(before)
    assert old.loc[old["id"] == 3, "age"].tolist() == [3]
    assert small.journal.totals("small")["rows"] == 61


def test_i_04_going_back_to_the_first_content_is_not_reported_as_done(small, tmp_path: Path):
    """The same bytes again are known, but what stands is the correction; a line break more at the end brings them back."""
    land(small, tmp_path, "a.csv", rows(3, age="10"))
    land(small, tmp_path, "a.csv", rows(3, age="11"))
    small.journal.announced("small")
    again = land(small, tmp_path, "a.csv", rows(3, age="10"))
    assert counts(again) == (1, 0, 0, 1)
    assert "other content came under this name since, and stands" in again.reason
    (tmp_path / "a.csv").write_text((tmp_path / "a.csv").read_text() + "\n")
    assert counts(small.land(tmp_path / "a.csv")) == (1, 1, 0, 0)
    assert small.lake.rows()["age"].tolist() == [10]


def test_i_06_a_changed_row_of_another_file_does_not_land_beside_the_old_one(small, tmp_path: Path):
    """A key that landed with other values goes to quarantine with the rule."""
    land(small, tmp_path, "a.csv", rows(*range(60)))
    landing = land(small, tmp_path, "b.csv", [*rows(0, age="33"), *rows(*range(60, 90))])
    assert counts(landing) == (31, 30, 1, 0)
    assert landing.rules == {"id names a row that landed before with other values": 1}


def test_i_07_any_order_of_files_gives_the_same_digest(small, tmp_path: Path, settings):
    """The digest names the set of rows, not how they came."""
    for name, numbers in (("a", range(30)), ("b", range(30, 50)), ("c", range(50, 60))):
        land(small, tmp_path, f"{name}.csv", rows(*numbers))
    one = small.lake.snapshot()
    assert one is not None
    other = ingest.Landings(small.use, Settings(home=tmp_path / "other"))
    for name, numbers in (("x", range(59, 24, -1)), ("y", range(24, -1, -1))):
        land(other, tmp_path, f"{name}.csv", rows(*numbers))
    two = other.lake.snapshot()
    assert two is not None
    assert one.digest == two.digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: {name: value for name, value in row.items() if name != "TSH"}, "column 'TSH' is missing"),
        (lambda row: {name: value for name, value in row.items() if name != "patient_id"}, "column 'patient_id' is missing"),
        (lambda row: {**row, "age": "old"}, "60 of 60 rows break the contract"),
    ],
)  # fmt: skip
def test_i_08_a_batch_that_breaks_the_contract_is_held_whole(thyroid, thyroid_rows, tmp_path: Path, change, said):
    """Nothing of it lands, every row is kept in quarantine, and the reason names the column."""
    landing = land(thyroid, tmp_path, "a.csv", [change(row) for row in thyroid_rows[:60]])
    assert landing.state == "held"
    assert said in landing.reason
    assert counts(landing) == (60, 0, 60, 0)
    assert len(thyroid.lake.quarantined()) == 60


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_i_08_a_file_of_another_table_is_held_with_its_rows(small, tmp_path: Path, suffix):
    """None of its columns is the contract's: the reason names one that is missing, and the rows stand in quarantine as they came."""
    content, path = [{"ID": str(n), "Remark": "none"} for n in range(30)], tmp_path / f"a.{suffix}"
    if suffix == "csv":
        write_rows(path, content)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        pa.parquet.write_table(pa.Table.from_pylist(content), path)
    landing = small.land(path)
    assert (landing.state, counts(landing)) == ("held", (30, 0, 30, 0))
    assert "column 'id' is missing" in landing.reason
    assert [json.loads(row) for row in small.lake.quarantined()["_raw"]] == content


def test_i_08_added_and_reordered_columns_land(small, tmp_path: Path):
    """A new column is recorded and not stored; the order of columns does not matter."""
    content = [dict(reversed([*row.items(), ("note", "x")])) for row in rows(*range(40))]
    landing = land(small, tmp_path, "a.csv", content)
    assert counts(landing) == (40, 40, 0, 0)
    assert "note" not in small.lake.rows().columns


def test_quarantined_rows_land_after_the_contract_was_mended(small, tmp_path: Path):
    """A replay tries them again; what is fine now leaves the quarantine, and the batch's account still adds up."""
    land(small, tmp_path, "a.csv", [*rows(*range(40)), *rows(40, age="455"), *rows(41, age="x")])
    assert counts(small.replay("a.csv")) == (2, 0, 2, 0)
    mended = small.use.model_dump(mode="json")
    mended["contract"]["columns"]["age"]["max"] = 500
    after = ingest.Landings(Project.model_validate(mended), Settings())
    assert counts(after.replay("a.csv")) == (2, 1, 1, 0)
    assert counts(after.replay("a.csv")) == (1, 0, 1, 0)
    row = after.journal.batches("small")[0]
    assert (row["arrived"], row["landed"], row["quarantined"], row["known"]) == (42, 41, 1, 0)
    assert len(after.lake.quarantined()) == 1
    assert 40 in after.lake.rows()["id"].tolist()


def test_a_replay_that_a_problem_of_all_rows_stops_leaves_them_in_quarantine(small, tmp_path: Path):
    """A column that the contract has asked for since is missing in all of them: nothing changes, the reason names it, and they land once it is asked for no more."""
    land(small, tmp_path, "a.csv", [*rows(*range(40)), *rows(40, 41, age="455")])
    mended = small.use.model_dump(mode="json")
    mended["contract"]["columns"]["age"]["max"] = 500
    mended["contract"]["columns"]["weight"] = {"type": "float"}
    asks = ingest.Landings(Project.model_validate(mended), Settings())
    refused = asks.replay("a.csv")
    assert counts(refused) == (2, 0, 2, 0)
    assert "column 'weight' is missing" in refused.reason
    assert refused.reason.endswith("Nothing changed")
    assert len(asks.lake.quarantined()) == 2
    del mended["contract"]["columns"]["weight"]
    assert counts(ingest.Landings(Project.model_validate(mended), Settings()).replay("a.csv")) == (2, 2, 0, 0)


def test_a_replay_of_rows_whose_private_column_was_not_kept_leaves_them_in_quarantine(small, tmp_path: Path):
    """A hook that reads an e-mail address cannot derive from quarantined rows, which are kept without it; they stay, and the reason says so."""
    hooked = small.use.model_dump(mode="json")
    hooked["contract"]["columns"]["domain"] = {"type": "category", "nullable": True}
    first = ingest.Landings(Project.model_validate(hooked), Settings())
    first._derive = lambda raw: raw.assign(domain=raw["email"].str.split("@").str[1])
    content = [
        row | {"email": f"anna{n}@example.org"} for n, row in enumerate([*rows(*range(40)), *rows(40, age="455")])
    ]
    assert counts(land(first, tmp_path, "a.csv", content)) == (41, 40, 1, 0)
    refused = first.replay("a.csv")
    assert counts(refused) == (1, 0, 1, 0)
    assert "column 'email' is missing, which hooks.py derives from" in refused.reason
    assert len(first.lake.quarantined()) == 1


def test_a_text_that_looks_like_a_time_stays_as_it_came(small, tmp_path: Path):
    """From CSV, from JSON lines and after a replay it is the same row; the second file brings nothing new."""
    coded = small.use.model_dump(mode="json")
    coded["contract"]["columns"]["code"] = {"type": "text"}
    coded["contract"]["key"] = ["code"]
    first = ingest.Landings(Project.model_validate(coded), Settings())
    content = [row | {"code": f"2026-01-{n + 1:02d}"} for n, row in enumerate(rows(*range(20)))]
    broken = [row | {"code": "2026-02-01"} for row in rows(20, age="455")]
    assert counts(land(first, tmp_path, "a.csv", [*content, *broken])) == (21, 20, 1, 0)
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in content))
    assert counts(first.land(lines)) == (20, 0, 0, 20)
    coded["contract"]["columns"]["age"]["max"] = 500
    after = ingest.Landings(Project.model_validate(coded), Settings())
    assert counts(after.replay("a.csv")) == (1, 1, 0, 0)
    assert sorted(after.lake.rows()["code"]) == [row["code"] for row in [*content, *broken]]


def test_quarantined_rows_with_a_number_here_and_a_text_there_are_tried_again(small, tmp_path: Path):
    """Each piece of a file of JSON lines is read by itself, but the quarantined rows of all pieces are one table."""
    content = [*rows(*range(40)), rows(40)[0] | {"age": 455, "note": "x" * (8 << 20)}, rows(41)[0] | {"age": "old"}]
    lines = tmp_path / "a.jsonl"
    lines.write_text(
        "".join(json.dumps(row | {"age": int(row["age"]) if n < 41 else "old"}) + "\n" for n, row in enumerate(content))
    )
    assert counts(small.land(lines)) == (42, 40, 2, 0)
    mended = small.use.model_dump(mode="json")
    mended["contract"]["columns"]["age"]["max"] = 500
    assert counts(ingest.Landings(Project.model_validate(mended), Settings()).replay("a.jsonl")) == (2, 1, 1, 0)


@pytest.mark.parametrize("hours", [1, -1], ids=["the clock goes on", "the clock goes back"])
def test_i_04_s_10_a_replay_corrects_what_its_batch_corrected_and_nothing_that_came_after(
    small, tmp_path: Path, hours: int
):
    """Two corrections of one file: the quarantined row of the first lands where it corrects the file, not where the second came since."""
    looks, late = itertools.count(), dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    landings = ingest.Landings(small.use, Settings(), lambda: late + dt.timedelta(hours=hours * next(looks)))
    land(landings, tmp_path, "a.csv", rows(*range(9), age="10"))
    land(landings, tmp_path, "a.csv", [*rows(1, 5, 6, age="11"), *rows(2, 3, age="455")])
    land(landings, tmp_path, "a.csv", [*rows(3, age="12"), *rows(4, age="12")])
    first_correction = small.journal.batches("small")[1]["batch"]
    mended = small.use.model_dump(mode="json")
    mended["contract"]["columns"]["age"]["max"] = 500
    after = ingest.Landings(Project.model_validate(mended), Settings())
    assert counts(after.replay(first_correction)) == (2, 1, 1, 0)
    ages = after.lake.rows().set_index("id")["age"]
    assert ages[[1, 2, 3, 4, 7]].tolist() == [11, 455, 12, 12, 10]


@pytest.mark.parametrize("back", [dt.timedelta(hours=1), dt.timedelta(days=365)])
def test_s_10_a_batch_that_lands_after_the_clock_went_back_is_the_newest(small, tmp_path: Path, back):
    """Its name means it, it stands where it corrects, what came before is told so, and older versions read as they were (S-10, I-20)."""
    late = dt.datetime(2027, 2, 1, tzinfo=dt.UTC)
    before, after = (ingest.Landings(small.use, Settings(), lambda at=at: at) for at in (late, late - back))
    land(before, tmp_path, "a.csv", rows(*range(9), age="10"))
    first = small.lake.snapshot()
    land(after, tmp_path, "a.csv", rows(3, age="11"))
    small.journal.announced("small")
    assert small.lake.rows().set_index("id")["age"][[2, 3]].tolist() == [10, 11]
    assert small.lake.read(first)["age"].tolist() == [10] * 9
    landed = small.journal.batches("small")
    assert [row["at"] for row in landed] == [late.isoformat(), (late - back).isoformat()]
    assert small.named("a.csv")["batch"] == landed[-1]["batch"]
    assert small.journal.last_landed("small", "rows") == (late - back).isoformat()
    again = land(after, tmp_path, "a.csv", rows(*range(9), age="10"))
    assert "other content came under this name since, and stands" in again.reason
    assert "since, and stands" not in land(before, tmp_path, "a.csv", rows(3, age="11")).reason


def test_a_type_that_was_changed_and_put_back_leaves_no_trace(small, tmp_path: Path):
    """What the table cannot have is refused before anything is written down, so that the old contract lands as if nothing had been."""
    land(small, tmp_path, "a.csv", rows(*range(10)))
    changed = small.use.model_dump(mode="json")
    changed["contract"]["columns"]["age"] = {"type": "float", "nullable": True}
    with pytest.raises(ArtifactError, match="column 'age' holds int64; the contract wants double now"):
        land(ingest.Landings(Project.model_validate(changed), Settings()), tmp_path, "b.csv", rows(10))
    assert small.journal.intent("small") is None
    assert counts(land(small, tmp_path, "b.csv", rows(10))) == (1, 1, 0, 0)
    del changed["contract"]["columns"]["age"]
    changed["contract"]["columns"]["Age"] = {"type": "int", "nullable": True}
    with pytest.raises(ArtifactError, match="has a column 'age' already, and the contract wants 'Age' now"):
        land(
            ingest.Landings(Project.model_validate(changed), Settings()),
            tmp_path,
            "c.csv",
            [dict(zip(("id", "at", "Age", "y"), row.values(), strict=True)) for row in rows(11)],
        )
    assert counts(land(small, tmp_path, "c.csv", rows(11))) == (1, 1, 0, 0)


def test_a_change_that_a_table_cannot_have_is_dropped_where_an_older_release_wrote_it_down(
    small, tmp_path: Path, monkeypatch
):
    """It used to be begun again by everybody who came, for good."""
    land(small, tmp_path, "a.csv", rows(*range(10)))
    changed = small.use.model_dump(mode="json")
    changed["contract"]["columns"]["age"] = {"type": "float", "nullable": True}
    with monkeypatch.context() as older:
        older.setattr(changes, "_check", lambda *_: None)
        with pytest.raises(ArtifactError, match="column 'age' holds int64"):
            land(ingest.Landings(Project.model_validate(changed), Settings()), tmp_path, "b.csv", rows(10))
    assert small.journal.intent("small")
    assert counts(land(small, tmp_path, "b.csv", rows(10))) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("kind", "far"),
    [
        (pa.timestamp("us", "UTC"), 4 * 10**17),
        (pa.timestamp("s"), 10**15),
        (pa.date32(), 10**8),
        (pa.date64(), 864 * 10**13),
    ],
    ids=str,
)
@pytest.mark.parametrize("column", ["at", "age", "id", "note"])
def test_i_02_a_time_beyond_all_years_breaks_its_row_and_no_other(small, tmp_path: Path, kind, far, column):
    """Parquet can hold times that Python cannot: the row is quarantined with it, and may stand in a column that nobody asked for."""
    texts = pa.Table.from_pylist([row | {"note": ""} for row in rows(*range(9), age="x")])
    times = pa.array([far, *[0] * 8], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(texts.set_column(texts.column_names.index(column), column, times), path)
    landing = small.land(path)
    assert landing.quarantined == len(small.lake.quarantined()) == 9
    assert landing.state == "held"


def test_i_24_files_that_come_together_land_in_one_commit(small, tmp_path: Path):
    """A folder of 300 small files is one version; each file has its own account, and a bad one holds up no other."""
    folder = tmp_path / "together"
    folder.mkdir()
    for n in range(300):
        write_rows(folder / f"{n}.csv", rows(n * 2, n * 2 + 1))
    (folder / "bad.csv").write_text("id,at\n1\n")
    landing = small.land(folder)
    assert counts(landing) == (600, 600, 0, 0)
    assert (landing.files, landing.snapshot) == (301, "v1")
    assert "1 held (first: bad.csv" in landing.reason
    batches = small.journal.batches("small")
    assert len(batches) == 301
    assert sum(batch["landed"] for batch in batches) == 600


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"age,sex\n", "header but no row"),
        ("a.parquet", b"PAR1 this is none", "does not read as parquet"),
        ("a.csv", b"a,b\n1\n", "Expected 2 columns, got 1"),
        ("a.csv", b'id,at,age,y\n1,2026-01-01,5,"t\n', "ends inside a quotation"),
        ("a.jsonl", b'{"a": 1', "does not read as jsonl"),
        ("a.xlsx", b"PK", "is of kind '.xlsx'"),
    ],
)
def test_i_09_i_11_a_broken_file_is_held_with_the_reason(small, tmp_path: Path, name, content, said):
    """Empty, cut, of another kind: nothing lands, and one line names the file and what is wrong."""
    file = tmp_path / name
    file.write_bytes(content)
    landing = small.land(file)
    assert (landing.state, counts(landing)) == ("held", (0, 0, 0, 0))
    assert said in landing.reason
    assert "\n" not in landing.reason
    assert land(small, tmp_path, "next.csv", rows(1, 2)).landed == 2


def test_i_13_links_pipes_and_folders_are_no_files(small, tmp_path: Path):
    """Nothing is followed, nothing is waited for."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to(write_rows(tmp_path / "real.csv", rows(1)))
    for name in ("pipe.csv", "link.csv"):
        with pytest.raises(BatchError, match="Wanted: a regular file"):
            ingest.keep("small", tmp_path / name, Settings())
    with pytest.raises(BatchError, match="is no file"):
        ingest.keep("small", tmp_path / "nowhere.csv", Settings())


@pytest.mark.parametrize("name", ["../../x.csv", "$(touch y).csv", "a\nb.csv", "x" * 240 + ".csv"])
def test_i_13_a_kept_name_is_one_harmless_part_of_a_path(name):
    """Whatever a file is called, its kept name stays in its folder and on one line."""
    kept = ingest.kept_name("ab" * 32, name)
    assert "/" not in kept
    assert "\n" not in kept
    assert len(kept) < 150
    assert kept.endswith(".csv")


def test_i_02_every_flip_and_every_cut_of_a_data_file_is_noticed(small, tmp_path: Path):
    """60 random bits flipped and 20 cuts at rest: none is read."""
    land(small, tmp_path, "a.csv", rows(*range(500)))
    snapshot = small.lake.snapshot()
    file = next(Path(small.lake.landed.root).glob("*.parquet"))
    whole = file.read_bytes()
    for n in range(80):
        at = (n * 7919) % len(whole)
        file.write_bytes(whole[:at] if n % 4 == 0 else whole[:at] + bytes([whole[at] ^ (1 << n % 8)]) + whole[at + 1 :])
        with pytest.raises(ArtifactError, match="altered or damaged"):
            small.lake.read(snapshot)
    file.write_bytes(whole)
    assert len(small.lake.read(snapshot)) == 500


def test_i_02_a_kept_file_that_has_changed_is_not_landed(small, tmp_path: Path):
    """The name of a kept file says its content; other bytes under it are refused."""
    kept = ingest.keep("small", write_rows(tmp_path / "a.csv", rows(1, 2)), Settings())
    kept.write_bytes(kept.read_bytes().replace(b"2026", b"2025"))
    with pytest.raises(BatchError, match="is not what arrived"):
        small.land(kept)


def test_i_02_a_damaged_kept_file_is_made_good_by_sending_it_again(small, tmp_path: Path):
    """What is kept under a name is held against it when the same content comes once more."""
    path = write_rows(tmp_path / "a.csv", rows(1, 2))
    kept = ingest.keep("small", path, Settings())
    kept.write_bytes(kept.read_bytes()[:30])
    assert counts(small.land(ingest.keep("small", path, Settings()))) == (2, 2, 0, 0)


def test_i_02_a_damaged_file_among_others_holds_none_of_them_up(small, tmp_path: Path):
    """Of a folder whose files land together it is held with the reason, and lands when it is sent again."""
    folder = tmp_path / "together"
    for n in range(3):
        kept = ingest.keep("small", write_rows(tmp_path / f"{n}.csv", rows(2 * n, 2 * n + 1)), Settings())
        folder.mkdir(exist_ok=True)
        kept.rename(folder / kept.name)
    damaged = next(folder.glob("*-1.csv"))
    damaged.write_bytes(damaged.read_bytes().replace(b"2026", b"2025"))
    landing = small.land(folder)
    assert (counts(landing), landing.files) == ((4, 4, 0, 0), 3)
    assert "1 held (first: 1.csv: is not what arrived" in landing.reason
    assert counts(land(small, tmp_path, "1.csv", rows(2, 3))) == (2, 2, 0, 0)


def test_i_03_a_kept_file_that_another_landing_has_moved_is_found(small, tmp_path: Path):
    """Of two landings of one file the first moves it out of the way when it is done; the second says that all is known."""
    kept = ingest.keep("small", write_rows(tmp_path / "a.csv", rows(1, 2)), Settings())
    small.land(kept)
    small.journal.announced("small")
    landed = kept.parent.with_name(LANDED) / kept.name
    landed.parent.mkdir()
    kept.rename(landed)
    assert counts(small.land(kept)) == (2, 0, 0, 2)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("fault", [Killed, OSError])
def test_s_01_a_landing_survives_a_fault_at_every_durable_step(small, tmp_path: Path, monkeypatch, swept, fault):
    """Whatever step fails, the repeated landing ends with the same table, quarantine and account as an undisturbed one."""
    land(small, tmp_path, "a.csv", rows(*range(40)))
    correction = [*rows(3, age="77"), *rows(*range(40, 80)), *rows(80, age="455")]
    file, step = write_rows(tmp_path / "b" / "a.csv" if (tmp_path / "b").mkdir() is None else tmp_path, correction), 0
    done = False
    while not done:
        landings = ingest.Landings(small.use, Settings(home=tmp_path / f"home{fault.__name__}{step}"))
        land(landings, tmp_path, "a.csv", rows(*range(40)))
        seen = 0

        def seam(what: str, at: int = step) -> None:
            nonlocal seen
            seen += 1
            if seen == at + 1:
                raise fault(f"at {what}")

        monkeypatch.setattr(durable, "seam", seam)
        try:
            landings.land(file)
            done = True
        except fault:
            pass
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        landing = landings.land(file)
        assert (landing.arrived, len(landings.lake.rows()), len(landings.lake.quarantined())) == (42, 80, 1), step
        row = landings.journal.batch("small", landing.batch)
        assert row is not None
        assert (row["landed"], row["quarantined"], row["known"], row["replaced"]) == (41, 1, 0, 1), step
        assert landings.journal.intent("small") is None
        assert not landings.staging.exists()
        assert not list(landings.staging.parent.parent.rglob(f"*{durable.PARTIAL}"))
        active = {file.path for file in landings.lake.landed.files(landings.lake.landed.open())}
        first = {file.path for file in landings.lake.landed.files(landings.lake.landed.open(1))}
        assert set(landings.lake.landed.stored()) == active | first, step
        step += 1
    swept(step - 1)
    assert step > 8


def test_s_01_a_batch_lands_again_when_its_prepared_files_are_lost(small, tmp_path: Path, monkeypatch):
    """Killed before anything reached a table, and the disk of its prepared files gone: it lands from its kept file."""
    file = write_rows(tmp_path / "a.csv", rows(*range(40)))

    def seam(what: str) -> None:
        if small.journal.intent("small"):
            raise Killed(what)

    monkeypatch.setattr(durable, "seam", seam)
    with pytest.raises(Killed):
        small.land(file)
    monkeypatch.setattr(durable, "seam", lambda _what: None)
    assert list(small.staging.rglob("*.parquet"))
    shutil.rmtree(small.staging)
    landing = small.land(file)
    assert counts(landing) == (40, 40, 0, 0)
    assert len(small.lake.rows()) == 40
    assert small.journal.intent("small") is None


def test_s_01_a_landing_with_its_journal_on_postgresql(small, tmp_path: Path, monkeypatch, database):
    """Killed at every durable step, and two at once: the same table and account as with the journal in a file."""
    steps, file = 0, write_rows(tmp_path / "a.csv", rows(*range(40)))
    while True:
        home = Settings(home=tmp_path / f"home{steps}", database_url=database)
        use = small.use.model_copy(update={"project": f"small{steps}"})
        landings, left = ingest.Landings(use, home), iter(range(steps))

        def seam(what: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Killed(what)

        monkeypatch.setattr(durable, "seam", seam)
        with contextlib.suppress(Killed):
            landings.land(file)
            break
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        with ThreadPoolExecutor(2) as two:
            both = list(two.map(lambda _n, use=use, home=home: ingest.Landings(use, home).land(file), range(2)))
        assert {counts(landing) for landing in both} <= {(40, 40, 0, 0), (40, 0, 0, 40)}, steps
        assert len(landings.lake.rows()) == 40
        assert landings.journal.totals(use.project)["rows"] == 40
        assert landings.journal.intent(use.project) is None
        steps += 1
    assert steps > 5


def test_i_26_a_line_that_does_not_fit_the_header_is_told_without_its_content(small, tmp_path: Path):
    """The reason is kept on record: it says which line it was, and what to write where another sign parts the fields."""
    path = tmp_path / "a.csv"
    path.write_text("id;at;age;y\n1;anna@example.org, Bonn;3;t\n")
    landing = small.land(path)
    assert landing.state == "held"
    assert "Expected 1 columns, got 2, where the header has as many as are expected" in landing.reason
    assert "reads: {delimiter: ';'}" in landing.reason
    assert "anna" not in json.dumps(landing.model_dump(mode="json"))


def test_i_12_text_is_read_as_the_project_says(small, tmp_path: Path):
    """Other encodings are refused with the next move; a byte-order mark and CRLF do no harm."""
    file = tmp_path / "a.csv"
    file.write_bytes("id,at,age,y\r\n1,2026-01-01T00:00:00Z,5,t\r\n".encode("utf-8-sig"))
    assert small.land(file).landed == 1
    file.write_bytes("id,at,age,y\n2,2026-01-01T00:00:00Z,é,t\n".encode("latin-1"))
    assert "reads: {encoding: latin-1}" in small.land(file).reason


def test_a_last_line_without_a_line_break_may_be_cut(small, tmp_path: Path):
    """It goes to quarantine with that reason; the rows before it land."""
    file = write_rows(tmp_path / "a.csv", rows(*range(10)))
    file.write_bytes(file.read_bytes().rstrip())
    landing = small.land(file)
    assert counts(landing) == (10, 9, 1, 0)
    assert "may be cut" in next(iter(landing.rules))


def test_parquet_and_json_lines_land_the_same_rows(small, tmp_path: Path):
    """The kind of a file does not matter: its rows have the same names."""
    content = rows(*range(50))
    land(small, tmp_path, "a.csv", content)
    typed = pa.Table.from_pylist(
        [{**row, "id": int(row["id"]), "age": int(row["age"]), "y": row["y"] == "t"} for row in content]
    )
    pyarrow.parquet.write_table(typed, tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(f"{__import__('json').dumps(row)}\n" for row in typed.to_pylist()))
    assert counts(small.land(tmp_path / "a.parquet")) == (50, 0, 0, 50)
    assert counts(small.land(tmp_path / "a.jsonl")) == (50, 0, 0, 50)


def test_a_kept_file_has_the_name_of_its_content(settings: Settings, tmp_path: Path):
    """The copy cannot change while it lands, and keeping it twice makes one file."""
    file = tmp_path / "a.csv"
    file.write_text("x\n1\n")
    kept = ingest.keep("thyroid", file, settings)
    assert ingest.keep("thyroid", file, settings) == kept
    assert kept.name == f"{files.fingerprint(file)[:16]}-a.csv"
    assert ingest.original_name(kept) == "a.csv"
