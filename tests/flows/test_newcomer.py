"""The newcomer: any file becomes a project under which that file lands; and two contracts are compared, wherever they are kept."""

import datetime as dt
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from flows import newcomer
from tasks import ingest
from tasks.config.errors import BatchError, KeepfitError, ProjectError
from tasks.config.project import Project, load
from tasks.config.settings import Settings
from tasks.ml.identity import digest
from tasks.stores.journal import Journal, Release

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
N = 240


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Empty folders of state and projects."""
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(tmp_path / "deployments"))
    return Settings()


def orders() -> pd.DataFrame:
    """Orders with a key, a time and a yes-or-no target."""
    rng = np.random.default_rng(3)
    return pd.DataFrame({
        "order_id": [f"A{i:04d}" for i in range(N)],
        "at": pd.date_range("2024-01-01", periods=N, freq="7h", tz="UTC"),
        "amount": rng.lognormal(3, 1, N).round(2),
        "pieces": rng.integers(1, 9, N),
        "colour": rng.choice(["rot", "grün", "blau"], N),
        "late": rng.choice(["yes", "no"], N, p=[0.3, 0.7]),
    })  # fmt: skip


def table_of_files() -> dict[str, tuple[str, Callable[[Path], Any], dict[str, Any]]]:
    """Files of different shape: suffix, how it is written, and further wishes."""
    frame = orders()
    stamps = frame.assign(at=frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    german = frame.assign(at=frame["at"].dt.strftime("%d.%m.%Y %H:%M"))
    timeless, nameless = stamps.drop(columns="at"), stamps.drop(columns="order_id")
    bare = timeless.drop(columns="order_id")
    gaps = stamps.assign(
        amount=stamps["amount"].where(stamps.index % 5 > 0),
        pieces=stamps["pieces"].astype("Int64").where(stamps.index % 7 > 0),
    )
    panel = stamps.drop(columns="order_id").assign(
        at=[f"2024-01-{1 + i // 12:02d}" for i in range(N)], store=[f"s{i % 12}" for i in range(N)]
    )
    private = stamps.assign(mail=[f"u{i}@example.org" for i in range(N)], card=[4111111111111111] * N)
    lines = lambda path: stamps.to_json(path, orient="records", lines=True)  # noqa: E731
    parquet = lambda data: lambda path: pa.parquet.write_table(pa.Table.from_pandas(data, preserve_index=False), path)  # noqa: E731
    csv = lambda data, **how: lambda path: data.to_csv(path, index=False, **how)  # noqa: E731
    return {
        "plain": (".csv", csv(stamps), {}),
        "german": (".csv", csv(german, sep=";", decimal=",", encoding="latin-1"), {}),
        "tabs": (".tsv", csv(stamps, sep="\t"), {}),
        "bom": (".csv", csv(stamps, encoding="utf-8-sig", lineterminator="\r\n"), {}),
        "utf16": (".csv", csv(stamps, encoding="utf-16"), {}),
        "index": (".csv", stamps.to_csv, {}),
        "quoted": (".csv", csv(stamps.assign(colour=stamps["colour"] + ', "matt"\nneu')), {}),
        "parquet": (".parquet", parquet(frame), {}),
        "dictionaries": (".parquet", parquet(frame.assign(at=frame["at"].dt.tz_localize(None)).astype({"colour": "category"})), {}),
        "jsonl": (".jsonl", lines, {}),
        "typed_gaps": (".parquet", parquet(gaps), {}),
        "timeless": (".csv", csv(timeless), {}),
        "nameless": (".csv", csv(nameless), {}),
        "bare": (".csv", csv(bare), {}),
        "bare_gaps": (".parquet", parquet(gaps.drop(columns=["order_id", "at"])), {}),
        "bare_german": (".csv", csv(bare, sep=";", decimal=","), {}),
        "panel": (".csv", csv(panel), {}),
        "seconds": (".csv", csv(stamps.assign(at=range(0, 60 * N, 60))), {"time": "at"}),
        "compound": (".csv", csv(panel), {"key": ("store", "at")}),
        "personal": (".csv", csv(private), {}),
        "numbers": (".csv", csv(stamps.assign(late=(stamps["late"] == "yes").astype(int) + 1)), {}),
        "odd_names": (".csv", csv(stamps.rename(columns={"amount": "Betrag: in €", "pieces": "#", "colour": "yes"})), {}),
    }  # fmt: skip


FILES = table_of_files()


def made(name: str, folder: Path, home: Settings) -> tuple[dict[str, Any], Path]:
    suffix, write, wishes = FILES[name]
    path = folder / f"{name}{suffix}"
    write(path)
    return newcomer.new(name, path, "late", settings=home, now=NOW, **wishes), path


def written_rows(path: Path) -> pd.DataFrame:
    """The rows of a file as pandas reads them, for counting repeats."""
    return (
        pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep=None, engine="python", dtype=str)
    )


@pytest.mark.parametrize("name", FILES)
def test_every_row_of_the_file_lands_in_the_new_project(name, tmp_path, home):
    """Whatever the file's shape: the project loads, all of its rows land, and the same file again lands none."""
    result, path = made(name, tmp_path, home)
    use = load(Path(result["folder"]))
    assert use.project == name
    assert set(result["features"]) == set(use.contract.features)
    landings = ingest.Landings(use, home)
    first = landings.land(path)
    repeats = int(written_rows(path).duplicated().sum()) if result["key"] == ["row_key"] else 0
    assert (first.arrived, first.landed, first.quarantined, first.known) == (N, N - repeats, 0, repeats), first.reason
    landings.journal.announced(name)
    again = landings.land(path)
    assert (again.arrived, again.landed, again.quarantined, again.known) == (N, 0, 0, N)


def test_the_same_rows_have_the_same_names_from_csv_and_from_parquet(tmp_path, home):
    """A row that is named by its content is known again when it comes in a file of another kind."""
    result, _ = made("bare", tmp_path, home)
    landings = ingest.Landings(load(Path(result["folder"])), home)
    typed = tmp_path / "same.parquet"
    orders().drop(columns=["order_id", "at"]).to_parquet(typed, index=False)
    assert landings.land(tmp_path / "bare.csv").landed == N
    again = landings.land(typed)
    assert (again.landed, again.known) == (0, N)


def test_the_result_says_what_was_decided(tmp_path, home):
    """Key, time, target, positive value, what was left out, and the next two commands."""
    result, path = made("personal", tmp_path, home)
    assert (result["key"], result["time"], result["target"], result["positive"]) == (["order_id"], "at", "late", True)
    assert set(result["left_out"]) == {"mail", "card"}
    assert result["next"] == f"keepfit check personal; keepfit land personal {path}"
    json.dumps(result)
    page = newcomer.page_of_new(result)
    assert "mail: looks like e-mail addresses" in page
    assert "example.org" not in page


def test_i_26_personal_columns_never_reach_the_lake(tmp_path, home):
    """After `new` and `land` no file under the state or the project holds an address or a card number."""
    result, path = made("personal", tmp_path, home)
    landings = ingest.Landings(load(Path(result["folder"])), home)
    assert landings.land(path).landed == N
    assert not {"mail", "card"} & set(landings.lake.rows().columns)
    assert b"example.org" not in b"".join(each.read_bytes() for each in Path(result["folder"]).rglob("*.*"))


@pytest.mark.parametrize(
    ("content", "target", "word"),
    [
        (b"", "y", "is empty"),
        (b"a,y\n", "y", "no row"),
        (b"a,a,y\n1,2,t\n", "y", "twice"),
        (b"1,2,3\n4,5,6\n", "3", "Put a header line"),
        (b"a,b,y\n1,2,t\n1,2,3,4,f\n", "y", "does not read"),
        (b"a,b,y\n1,2,t\n3,4,f\n", "z", "no column of the file"),
        (b"a,b,y\n1,2,t\n3,4,u\n5,6,v\n", "y", "two classes"),
    ],
)
def test_nothing_is_written_for_a_file_that_is_none(content, target, word, tmp_path, home):
    """Empty, without rows or names, broken, without the target: a sentence, and no folder."""
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    with pytest.raises(KeepfitError, match=word):
        newcomer.new("churn", path, target, settings=home, now=NOW)
    assert not home.projects.exists() or list(home.projects.iterdir()) == []


def test_a_missing_file_and_a_foreign_one_are_refused(tmp_path, home):
    """No file, and one of a kind that nobody reads."""
    with pytest.raises(BatchError, match="is no file"):
        newcomer.new("churn", tmp_path / "none.csv", "y", settings=home, now=NOW)
    (tmp_path / "table.xlsx").write_bytes(b"PK")
    with pytest.raises(BatchError, match="is of kind"):
        newcomer.new("churn", tmp_path / "table.xlsx", "y", settings=home, now=NOW)


def test_a_taken_name_is_refused_before_the_file_is_read(tmp_path, home):
    """The folder that is there stays as it is."""
    result, path = made("plain", tmp_path, home)
    before = Path(result["folder"], "project.yaml").read_text()
    with pytest.raises(ProjectError, match="not overwritten"):
        newcomer.new("plain", path, "nonsense", settings=home, now=NOW)
    assert Path(result["folder"], "project.yaml").read_text() == before


def test_a_sample_is_bounded_and_spread_over_the_file(tmp_path, monkeypatch):
    """Of 10,000 rows with room for 3,000, every fourth is kept, from the first to the last part."""
    path = tmp_path / "long.parquet"
    pa.parquet.write_table(pa.table({"n": list(range(10_000)), "m": [0] * 10_000}), path, row_group_size=777)
    monkeypatch.setattr(newcomer, "ROWS", 3000)
    kept = newcomer.sample(path, newcomer.written(path))["n"].to_pylist()
    assert kept == list(range(0, 10_000, 4))
    monkeypatch.setattr(newcomer, "BYTES", 100)
    assert len(newcomer.sample(path, newcomer.written(path))) < 10_000 / 4 + 1


# -- keepfit contract diff --------------------------------------------------------------------------------------------
@pytest.fixture
def plain(tmp_path: Path, home: Settings) -> Path:
    """The folder of a new project, in a git repository of its own with one commit."""
    result, _ = made("plain", tmp_path, home)
    git(home.projects, "init", "--quiet")
    git(home.projects, "add", "-A")
    git(home.projects, "commit", "--quiet", "-m", "first")
    return Path(result["folder"])


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout


def narrow(folder: Path) -> None:
    path = folder / "project.yaml"
    path.write_text(path.read_text().replace("pieces: {type: int, min: 0", "pieces: {type: int, min: 1"))


def test_i_08_a_changed_file_is_compared_with_git(plain, home):
    """The tree against the last commit: the narrowed column is named, and breaking; the other way round it is risky."""
    assert newcomer.contract_diff("plain", "HEAD", "now", home)["verdict"] == "same"
    narrow(plain)
    found = newcomer.contract_diff("plain", "HEAD", "now", home)
    assert (found["verdict"], found["features"]) == ("breaking", ["pieces"])
    assert [each["what"] for each in found["differences"]] == ["pieces: the smallest allowed value is 1, was 0"]
    assert newcomer.contract_diff("plain", "now", "HEAD", home)["verdict"] == "risky"
    assert "breaking  pieces" in newcomer.page_of_diff(found)


def test_a_file_is_compared_and_changed_hooks_are_seen(plain, home, tmp_path):
    """A path to another project.yaml; a hooks.py that came since is risky for every feature."""
    copy = tmp_path / "elsewhere.yaml"
    copy.write_text((plain / "project.yaml").read_text())
    (plain / "hooks.py").write_text("def derive(rows):\n    return rows\n")
    found = newcomer.contract_diff("plain", str(copy), "now", home)
    assert [(each["kind"], each["level"]) for each in found["differences"]] == [("hooks", "risky")]


def test_a_digest_that_landings_recorded_is_found_and_touched_models_are_named(plain, home, tmp_path):
    """The beginning of a recorded digest is enough; versions are touched by the features in their manifests."""
    landed = Project.named("plain", home)
    ingest.Landings(landed, home).land(tmp_path / "plain.csv")
    narrow(plain)
    name = digest(landed.contract.model_dump(mode="json"))
    journal = Journal(home.journal())
    for version, features in ((1, ["amount", "colour"]), (2, ["pieces", "colour"]), (3, None)):
        training = journal.start_training(
            project="plain", trigger="test", event=False, snapshot="s", config="c", at=NOW
        )
        journal.end_training(training, state="registered", reason="", at=NOW, version=version)
        if features:
            folder = home.bundles("plain") / str(version)
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text(json.dumps({"features": [{"name": name} for name in features]}))
    journal.release(
        Release("plain", 1, 2, "d", "a", "r", NOW.isoformat(), "roc_auc", 0.9, 0.8, 1.0)
    )  # fmt: skip
    found = newcomer.contract_diff("plain", name[:10], "now", home)
    assert found["from"] == {"named": name[:10], "contract": name}
    assert [(model["version"], model["champion"], model["level"]) for model in found["models"]] == [
        (2, True, "breaking")
    ]
    assert found["unknown_models"] == [3]
    page = newcomer.page_of_diff(found)
    assert "version 2 (champion) learned from pieces: breaking" in page
    assert "versions 3" in page


@pytest.mark.parametrize(
    "named", ["nonsense", "--output=evil", "HEAD:deployments", "$(touch evil)", "", "abc", "HEAD~9"]
)
def test_an_unknown_version_is_refused(named, plain, home):
    """What is neither now, a path, a revision nor a digest says so; nothing of it reaches a shell or git's options."""
    with pytest.raises(KeepfitError, match="is no version of plain's contract"):
        newcomer.contract_diff("plain", named, "now", home)
    assert not list(home.projects.rglob("evil*"))


def test_a_revision_without_the_project_and_a_file_without_a_contract_say_so(plain, home, tmp_path):
    """Both messages name the place."""
    git(home.projects, "rm", "-r", "--quiet", "--cached", "plain")
    git(home.projects, "commit", "--quiet", "-m", "gone")
    with pytest.raises(KeepfitError, match="was not there at 'HEAD'"):
        newcomer.contract_diff("plain", "HEAD", "now", home)
    for text, word in (
        ("project: plain", "holds no contract"),
        ("contract: {key: [id]}", "contract.columns: Field required"),
    ):
        (tmp_path / "other.yaml").write_text(text)
        with pytest.raises(ProjectError, match=word):
            newcomer.contract_diff("plain", str(tmp_path / "other.yaml"), "now", home)


def test_comparing_makes_no_journal(plain, home):
    """Looking leaves no trace where nothing has landed yet."""
    newcomer.contract_diff("plain", "now", "HEAD", home)
    assert not home.home.exists()


def test_an_ambiguous_beginning_of_a_digest_is_refused(plain, home, monkeypatch):
    """Two recorded contracts with the same beginning: give more of it."""
    text = Project.named("plain", home).contract.model_dump_json()
    rows = [{"digest": f"abcdef{n}", "at": NOW.isoformat(), "contract": text} for n in range(2)]
    monkeypatch.setattr(newcomer, "recorded_contracts", lambda _project, _settings: rows)
    with pytest.raises(KeepfitError, match="beginning of 2 digests"):
        newcomer.contract_diff("plain", "abcdef", "now", home)
    assert newcomer.contract_diff("plain", "abcdef1", "now", home)["verdict"] == "same"
