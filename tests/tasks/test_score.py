"""Batch scoring: every row is scored or rejected with its reason, by the predictor that serves, into a whole file or none."""

import csv
import datetime as dt
import json
import re
import sqlite3
import traceback

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from deltalake import write_deltalake
from prefect.logging import disable_run_logger

from flows.score import score
from tasks.config.errors import BatchError
from tasks.config.project import Project
from tasks.ml.compiled import parity
from tasks.ml.recipe import Recipe
from tasks.score import Answering, Scoring
from tasks.serving.champion import Champion
from tasks.stores import bundles, durable, files
from tasks.stores.journal import Journal, Release
from tests.ml.test_kinds import MADE, columns_of, taught
from tests.released import NAME, YAML, crowned, place, template

__all__ = ["place", "template"]
GOOD = {"id": 1, "amount": 3.5, "width": 1.25, "kind": "a", "joined": "2020-01-02T03:04:05Z", "town": "Ulm"}


def rows(count):
    """Rows of which every one fits; some lack what may be missing."""
    return [
        GOOD | {"id": n, "amount": None if n % 7 == 0 else n / 3, "width": n % 5 - 2.5, "kind": "abc"[n % 3], "joined": None if n % 5 == 0 else GOOD["joined"]}
        for n in range(count)
    ]  # fmt: skip


def scoring(settings):
    return Scoring(Project.named(NAME, settings), settings)


def written(path, some):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(some[0]))
        writer.writeheader()
        writer.writerows(some)
    return str(path)


def served(settings, some):
    """What the serving process says of the rows: version, prediction, probability of the positive class."""
    release = Journal(settings.journal()).champion(NAME)
    assert release is not None
    champion = Champion.load(settings.bundles(NAME) / str(release.version), release)
    answers = champion.predict([{name: value for name, value in row.items() if name != "id"} for row in some])
    return [
        (release.version, answer["prediction"], pytest.approx(answer["probabilities"]["yes"], abs=1e-12))
        for answer in answers
    ]


def said(table):
    return [(row["version"], row["prediction"], row["probability_yes"]) for row in table.to_pylist()]


def test_every_source_gives_what_the_server_says(place, tmp_path, monkeypatch):
    """CSV, Parquet, a Delta table and a SQL query give the answers of the serving process, in their order, over many parts."""
    crowned(place, 1, 2)
    monkeypatch.setattr(files, "ROWS", 16)
    some = rows(50)
    written(tmp_path / "in.csv", some)
    table = pa.Table.from_pylist(some)
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    write_deltalake(str(tmp_path / "delta"), table)
    with sqlite3.connect(tmp_path / "in.db") as database:
        database.execute("create table t (id integer, amount real, width real, kind text, joined text, town text)")
        database.executemany("insert into t values (?, ?, ?, ?, ?, ?)", [tuple(row.values()) for row in some])
    database.close()
    for source, sql in (("in.csv", ""), ("in.parquet", ""), ("delta", ""), ("in.db", "select * from t order by id")):
        heard, out = [], tmp_path / f"{source}.out.parquet"
        place_of = f"sqlite:///{tmp_path / source}" if sql else str(tmp_path / source)
        done = scoring(place).score(place_of, out, sql, heard.append)
        assert (done.arrived, done.scored, done.rejected, done.version, done.rejects) == (50, 50, 0, 2, None)
        found = pa.parquet.read_table(out)
        assert found.column_names == ["id", "prediction", "probability_no", "probability_yes", "version"]
        assert found["id"].to_pylist() == list(range(50))
        assert said(found) == served(place, some)
        assert heard


def test_v_04_a_row_that_does_not_fit_is_rejected_with_its_reason(place, tmp_path):
    """Arrived is scored and rejected; a rejected row has its place, its reason and what it was; a new run leaves no old rejects."""
    crowned(place, 1)
    wrong = [{"width": "wide"}, {"kind": ""}, {"id": ""}, {"joined": "soon"}, {"width": "inf"}]
    some = [GOOD, *(GOOD | each for each in wrong), GOOD | {"amount": ""}]
    source, out = written(tmp_path / "in.csv", some), tmp_path / "out.csv"
    done = scoring(place).score(source, out)
    assert (done.arrived, done.scored, done.rejected) == (7, 2, 5)
    rejected = list(csv.DictReader((tmp_path / "out.rejects.csv").open()))
    assert [row["row"] for row in rejected] == ["2", "3", "4", "5", "6"]
    assert [row["reason"].split()[0] for row in rejected] == ["width", "kind", "id", "joined", "width"]
    assert json.loads(rejected[0]["raw"])["width"] == "wide"
    assert len(pa.csv.read_csv(out)) == 2
    done = scoring(place).score(written(tmp_path / "in.csv", [GOOD]), out)
    assert (done.rejects, (tmp_path / "out.rejects.csv").exists()) == (None, False)
    done = scoring(place).score(written(tmp_path / "in.csv", [GOOD | {"width": "wide"}]), out)
    assert (done.scored, done.output, out.exists()) == (0, None, False)


def test_what_cannot_be_scored_at_all_writes_nothing(place, tmp_path):
    """Without a champion it is refused; without a column, or a target of a kind that is written, a sentence comes; no file does."""
    source = written(tmp_path / "in.csv", [GOOD])
    refused = scoring(place).score(source, tmp_path / "out.csv")
    assert (refused.state, refused.version, refused.arrived, refused.output) == ("refused", None, 0, None)
    assert refused.reason == "small has no champion yet: `keepfit train small` makes one. Nothing was scored"
    crowned(place, 1)
    with pytest.raises(BatchError, match="wanted a file that ends in"):
        scoring(place).score(source, tmp_path / "out.xlsx")
    short = written(tmp_path / "short.csv", [{"id": 1, "amount": 2}])
    with pytest.raises(BatchError, match="no column 'width'"):
        scoring(place).score(short, tmp_path / "out.csv")
    with pytest.raises(BatchError, match="The query fails: no such table: patients"):
        scoring(place).score(f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "out.csv", "select * from patients")
    with pytest.raises(BatchError, match="would replace its own source"):
        scoring(place).score(f"{tmp_path}/../{tmp_path.name}/in.csv", tmp_path / "in.csv")
    with pytest.raises(BatchError, match="holds a password"):
        scoring(place).score("postgresql://me:SECRET@127.0.0.1/db", tmp_path / "out.csv", "select 1")
    assert [path.name for path in tmp_path.glob("*out*")] == []


@pytest.mark.parametrize(
    ("source", "target", "sql", "says"),
    [
        ("none.csv", "out.csv", "", "'none.csv': cannot be opened"),
        ("in.xlsx", "out.csv", "", "is of kind '.xlsx'"),
        ("keyless.csv", "out.csv", "", "keyless.csv: has no column 'id', by which small names a row"),
        ("in.csv", "out.xlsx", "", "wanted a file that ends in"),
        ("in.csv", "nowhere/out.csv", "", "nowhere: is no folder"),
        ("postgresql://me:SECRET@127.0.0.1/db", "out.csv", "select 1", "holds a password"),
    ],
)  # fmt: skip
def test_what_is_seen_to_fail_is_refused_before_a_run_is_made(place, tmp_path, source, target, sql, says):
    """By a sentence that names it, and no folder is made; what fits is let through, with a champion or without."""
    for name, some in (("in.csv", GOOD), ("in.xlsx", GOOD), ("keyless.csv", {"amount": 2})):
        written(tmp_path / name, [some])
    there = source if sql else str(tmp_path / source)
    with pytest.raises(BatchError, match=re.escape(says)):
        scoring(place).refuse_unfit(there, tmp_path / target, sql)
    assert not (tmp_path / "nowhere").exists()
    scoring(place).refuse_unfit(str(tmp_path / "in.csv"), tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("hook", "says"),
    [("rows['raw']", "no column 'raw', which hooks.py derives from"), ("1 / 0", "hooks.py cannot derive its columns from these rows: ZeroDivisionError")],
)  # fmt: skip
def test_rows_that_a_hook_does_not_take_are_told_as_that(place, tmp_path, hook, says):
    """The column that it looked for is named, as where a file is landed; of any other fault the kind."""
    (place.projects / NAME / "hooks.py").write_text(f"def derive(rows):\n    return rows.assign(width={hook})\n")
    with pytest.raises(BatchError, match=re.escape(says)):
        scoring(place).refuse_unfit(written(tmp_path / "in.csv", [GOOD]), tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("url", "says"),
    [(None, "CRM_URL is not set"), ("postgresql://me:SE:CRET@host:port/db", "CRM_URL holds no SQLAlchemy URL"),
     ("nonsense", "CRM_URL holds no SQLAlchemy URL")],
)  # fmt: skip
def test_a_database_that_is_not_asked_is_said_without_its_password(place, tmp_path, monkeypatch, url, says):
    """Whatever is wrong with the variable that holds the URL, neither the message nor what it is raised from repeats it."""
    crowned(place, 1)
    monkeypatch.delenv("CRM_URL", raising=False)
    if url:
        monkeypatch.setenv("CRM_URL", url)
    with pytest.raises(BatchError, match=says) as refused:
        scoring(place).score("env:CRM_URL", tmp_path / "out.csv", "select 1")
    assert "CRET" not in "".join(traceback.format_exception(refused.value))


def declare(settings, text):
    """Has the project score something by the clock."""
    (settings.projects / NAME / "project.yaml").write_text(YAML + "scores:\n" + text)


def run(name):
    """As Prefect runs what a schedule has planned."""
    with disable_run_logger():
        return score.fn(NAME, name=name)


NIGHTLY = '- {name: nightly, source: in.csv, target: out/scores.csv, schedule: {cron: "0 2 * * *"}}\n'
CRM = '- {name: crm, source: "env:CRM_URL", sql: "select * from t where id < 5;", target: crm.parquet, schedule: {cron: "0 3 * * 1", timezone: Europe/Berlin}}\n'


def test_a_scheduled_run_reads_its_source_anew_and_replaces_its_target(place, tmp_path, monkeypatch):
    """Paths begin in the project's folder under the home; each run is of the rows and the champion of then; a query is named by its variable alone."""
    declare(place, NIGHTLY + CRM)
    assert (run("nightly")["state"], place.scores(NAME).exists()) == ("refused", False)
    crowned(place, 1)
    folder = place.home / "scores" / NAME
    folder.mkdir(parents=True)
    written(folder / "in.csv", rows(4))
    done = run("nightly")
    assert (done["state"], done["scored"], done["output"]) == ("scored", 4, str(folder / "out" / "scores.csv"))
    written(folder / "in.csv", rows(7))
    crowned(place, 2)
    assert (run("nightly")["scored"], run("nightly")["version"]) == (7, 2)
    assert set(pa.csv.read_csv(folder / "out" / "scores.csv")["version"].to_pylist()) == {2}
    with sqlite3.connect(tmp_path / "in.db") as database:
        database.execute("create table t (id integer, amount real, width real, kind text, joined text, town text)")
        database.executemany("insert into t values (?, ?, ?, ?, ?, ?)", [tuple(row.values()) for row in rows(9)])
    database.close()
    monkeypatch.setenv("CRM_URL", f"sqlite:///{tmp_path / 'in.db'}")
    assert run("crm")["scored"] == 5
    assert pa.parquet.read_table(folder / "crm.parquet")["id"].to_pylist() == [0, 1, 2, 3, 4]


def test_a_run_that_fails_leaves_what_was_there(place):
    """A source that is gone ends the run with a sentence; the target of the night before stays."""
    declare(place, NIGHTLY)
    crowned(place, 1)
    folder = place.scores(NAME)
    folder.mkdir(parents=True)
    written(folder / "in.csv", rows(3))
    run("nightly")
    before = (folder / "out" / "scores.csv").read_bytes()
    (folder / "in.csv").unlink()
    with pytest.raises(BatchError, match=r"in\.csv"):
        run("nightly")
    assert (folder / "out" / "scores.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("asked", "says"),
    [(("", "", "", "nightli"), "no entry 'nightli' under `scores`. Entries: nightly. Did you mean 'nightly'?"),
     (("in.csv", "out.csv", "", "nightly"), "a source and a target, or the name of one of the `scores` of small"),
     (("in.csv", "", "", ""), "a source and a target, or the name"), (("", "", "", ""), "a source and a target, or the name")],
)  # fmt: skip
def test_a_run_is_asked_for_by_name_or_in_full(place, asked, says):
    """What to score is said in one way, not in two and not in none."""
    declare(place, NIGHTLY)
    with pytest.raises(BatchError, match=re.escape(says)):
        scoring(place).asked(*asked)


def test_what_killed_runs_have_left_is_removed(place, tmp_path):
    """A half-written file of a run that was killed goes at a run a day later; one that may still be written stays, and so does anybody else's."""
    crowned(place, 1)
    source, now = written(tmp_path / "in.csv", [GOOD]), dt.datetime.now(dt.UTC)
    names = [".out.csv.1.part", ".out.rejects.csv.1.part", ".other.csv.1.part"]
    for name in names:
        (tmp_path / name).write_text("half")
    Scoring(Project.named(NAME, place), place, lambda: now).score(source, tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.glob(".*.part")) == sorted(names)
    later = now + dt.timedelta(days=1, minutes=1)
    Scoring(Project.named(NAME, place), place, lambda: later).score(source, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.glob(".*.part")] == [".other.csv.1.part"]


def test_s_01_a_fault_at_any_step_leaves_the_old_file_or_the_new_one(place, monkeypatch):
    """A kill of a scheduled run before the n-th durable step, for every n: under the name stands one whole run, and the next one ends well."""
    declare(place, NIGHTLY)
    crowned(place, 1)
    folder = place.scores(NAME)
    (folder / "out").mkdir(parents=True)
    written(folder / "in.csv", [*rows(20), GOOD | {"width": "x"}])
    out = folder / "out" / "scores.csv"
    step, done = 0, False
    while not done:
        out.write_text("old")
        left = iter(range(step))

        def seam(_what, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt

        monkeypatch.setattr(durable, "seam", seam)
        try:
            run("nightly")
            done = True
        except KeyboardInterrupt:
            assert out.read_text() == "old"
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        run("nightly")
        assert len(pa.csv.read_csv(out)) == 20
        assert list(out.parent.glob(".*.part")) == []
        step += 1
    assert step > 2


@pytest.mark.parametrize(
    ("kind", "family"), [("binary", "logistic"), ("multiclass", "logistic"), ("regression", "ridge")]
)
def test_a_compiled_champion_asked_by_column_says_what_it_says_by_row(tmp_path, kind, family):
    """The columns of a table give the labels and numbers of the serving process, holes and unknown texts included."""
    of = MADE[kind]
    model, asked, truth = taught(of, Recipe.usual(family))
    operates = of.operate(truth, of.answers(model, asked))
    made = parity.compiled(of, model, asked, operates)
    assert made.form is not None
    features = [{"name": name, "type": column.type, "nullable": True} for name, column in columns_of(of).items()]
    told = {
        "project": NAME,
        "version": 1,
        "kind": kind,
        **of.described(),
        "target": "y",
        "features": features,
        "ignored": [],
        **operates,
    }
    digest = bundles.write(tmp_path / "1", model, told, bundles.compiled(made.form, made.graph))
    champion = Champion.load(tmp_path / "1", Release(NAME, 1, 1, digest, "t", "t", "2026-01-01", "m", 0.9, 0.8, 1.0))
    some = [*rows(40), GOOD | {"kind": "never seen", "town": None, "width": None}]
    table = pa.Table.from_pylist(some)
    joined = pa.array(
        [dt.datetime.fromisoformat(str(row["joined"])) if row["joined"] else None for row in some],
        pa.timestamp("us", "UTC"),
    )
    found = (
        Answering(champion).answer(table.set_column(table.column_names.index("joined"), "joined", joined)).to_pylist()
    )
    answers = champion.predict([{name: value for name, value in row.items() if name != "id"} for row in some])
    for row, answer in zip(found, answers, strict=True):
        assert row["prediction"] == answer["prediction"]
        for label, chance in answer.get("probabilities", {}).items():
            assert row[f"probability_{label}"] == chance
        assert [row.get("low"), row.get("high")] == (answer.get("interval") or [None, None])
