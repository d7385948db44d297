"""The newcomer: any file becomes a project under which that file lands; and two contracts are compared, wherever they are kept."""

import datetime as dt
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from flows import newcomer
from tasks import evaluate, gate, ingest, prepare, train
from tasks.config.errors import BatchError, KeepfitError, ProjectError
from tasks.config.project import Project, load
from tasks.config.provenance import conditions
from tasks.config.settings import Settings
from tasks.erase import Erasing
from tasks.ml.compatibility import compare
from tasks.ml.contract import Column
from tasks.ml.gates import Verdict, outcome
from tasks.ml.identity import digest
from tasks.ml.kinds import KINDS
from tasks.ml.recipe import Recipe
from tasks.serving.champion import Champion
from tasks.stores.journal import Journal, Release
from tasks.stores.lake import Lake, parts
from tasks.stores.trust import Trust
from tests.samples import until
from tests.serving.test_app import Stage
from tests.tasks.test_trusted import quiet

__all__ = ["quiet"]

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
N, HOURS = 240, 6000  # so many that the bars of calibration are four standard errors away


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


def test_beside_a_running_stack_a_new_project_wants_to_be_deployed(tmp_path, home, monkeypatch):
    """The stack knows it from then on; the commands stand in the order in which they are said."""
    monkeypatch.setenv("KEEPFIT_PREFECT_URL", "http://127.0.0.1:9")
    result, path = made("personal", tmp_path, Settings())
    assert result["next"] == f"keepfit check personal; keepfit deploy; keepfit land personal {path}"
    assert newcomer.page_of_new(result).endswith(f"say: {result['next']}")


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
        (b"a,b,y\n1,2,t\n1,2,3,4,f\n", "y", "Expected 3 columns, got 5"),
        (b"a,b,y\n1,2,t\n3,4,f\n", "z", "no column of the file"),
        (b"a,b,y\n1,2,t\n1,3,t\n2,3,t\n", "y", "nothing to tell apart"),
        (b"a,b,y\n1,2,t\n1,3,u\n", None, "--kind anomaly"),
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


# -- kinds ------------------------------------------------------------------------------------------------------------
def machine() -> pd.DataFrame:
    """Hours of a machine: pressure follows heat, but for the last three rows; what comes of it in several forms."""
    rng = np.random.default_rng(11)
    heat, flow = rng.normal(size=(2, HOURS))
    pressure = 2 * heat + 0.1 * rng.normal(size=HOURS)
    chances = np.stack([-2 * heat, 2 * heat, flow]) + rng.gumbel(size=(3, HOURS))  # a draw by softmax (Gumbel-max)
    pressure[-3:] = -4 * np.sign(heat[-3:])
    return pd.DataFrame({
        "part_id": np.arange(HOURS) + 1000,
        "made_at": pd.date_range("2024-01-01", periods=HOURS, freq="h", tz="UTC").strftime("%Y-%m-%dT%H:%M:%SZ"),
        "heat": heat.round(5),
        "pressure": pressure.round(5),
        "flow": flow.round(5),
        "binary": np.where(heat + 0.5 * rng.normal(size=HOURS) > 0, "stops", "runs"),
        "multiclass": np.array(["cold", "hot", "warm"])[chances.argmax(axis=0)],
        "regression": (100 + 20 * heat + 10 * flow + rng.normal(size=HOURS)).round(3),
    })  # fmt: skip


def drafted(kind: str, folder: Path, settings: Settings) -> tuple[Project, Path]:
    """A project of that kind over the machine's hours, as `keepfit new` makes and `keepfit check` loads it, and its file."""
    path, needs = folder / f"{kind}.csv", KINDS[kind].needs_labels
    others = {"binary", "multiclass", "regression"} - {kind}
    machine().drop(columns=list(others)).to_csv(path, index=False)
    result = newcomer.new(kind, path, kind if needs else None, kind=None if needs else kind, settings=settings, now=NOW)
    assert (result["kind"], result["target"]) == (kind, kind if needs else None)
    assert f"({kind})" in newcomer.page_of_new(result)
    json.dumps(result)
    return Project.named(kind, settings), path


def trained(use: Project, settings: Settings, family: str) -> tuple[list[Verdict], Champion]:
    """The verdicts on a model of everything that landed, and the same as a server holds it."""
    snapshot = Lake(use.project, settings.lake(use.project), use.contract).snapshot()
    assert snapshot is not None
    snapshot = Trust(use, settings, lambda: NOW).ready(snapshot, "a test")
    split = parts(use, snapshot, settings.lake(use.project))
    assert prepare.examined(use, split, prepare.describe(use, split)).refused == ""
    candidate = train.fit.fn(use.project, snapshot, Recipe.usual(family), "run")
    scores = evaluate.evaluate.fn(use.project, snapshot, candidate)
    verdicts = gate.gate.fn(use.project, snapshot, candidate, scores, conditions(use.digest, snapshot.trusted))
    release = Release(use.project, 1, 0, candidate.digest, "a", "r", NOW.isoformat(), use.metric, 0.9, 0.8, 1.0)
    Journal(settings.journal()).release(release)
    shutil.copytree(candidate.folder, settings.bundles(use.project) / "0")
    return verdicts, Champion.load(settings.bundles(use.project) / "0", release)


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("binary", "logistic"),
        ("multiclass", "logistic"),
        ("regression", "ridge"),
        ("anomaly", "gaussian_mixture"),
    ],
)
def test_a_file_of_every_kind_becomes_a_model_that_passes_the_gates_and_answers(kind, family, quiet):
    """New, check, land, fit, evaluate, gate: rows all land, a set is set apart, the gates pass, an answer is of its kind."""
    settings = Settings()
    use, path = drafted(kind, quiet, settings)
    assert ingest.Landings(use, settings).land(path).landed == HOURS
    verdicts, champion = trained(use, settings, family)
    assert outcome(verdicts) == "passed", [verdict.reason for verdict in verdicts if not verdict.passed]
    assert Lake(kind, settings.lake(kind), use.contract).apart(0) is not None
    features = machine()[["heat", "pressure", "flow"]]
    hot = int(features["heat"].to_numpy()[:-3].argmax())
    answers = champion.score(champion.check(features.iloc[[hot, -1]].to_dict("records")))
    said = [answer["prediction"] for answer in answers]
    match kind:
        case "regression":
            assert said[0] == pytest.approx(machine()[kind].iloc[hot], abs=5)
        case "anomaly":
            assert said[1] is True
            assert answers[1]["score"] > answers[0]["score"]
        case _:
            assert said[0] == {"binary": "stops", "multiclass": "hot"}[kind]


@pytest.fixture
def parts_project(quiet: Path) -> tuple[Project, Path, Settings]:
    """A project without a target, whose first file has landed."""
    settings = Settings()
    use, path = drafted("anomaly", quiet, settings)
    ingest.Landings(use, settings, lambda: NOW).land(path)
    return use, path, settings


def test_a_project_without_a_target_quarantines_profiles_and_corrects_as_any_other(parts_project, quiet):
    """A bad row goes to quarantine with its rule, a shifted batch is found odd, a correction replaces, nothing waits for a label."""
    use, _, settings = parts_project
    landings = ingest.Landings(use, settings, lambda: NOW)
    more = machine().drop(columns=["binary", "multiclass", "regression"]).tail(100)
    more.assign(part_id=more["part_id"] + 5000, heat=["hot", *more["heat"].tail(99)]).to_csv(
        quiet / "b.csv", index=False
    )
    landing = landings.land(quiet / "b.csv")
    assert (landing.landed, landing.quarantined, landing.rules) == (99, 1, {"heat is no float": 1})
    more.assign(part_id=more["part_id"] + 5000, flow=0.5).to_csv(quiet / "c.csv", index=False)
    odd = landings.land(quiet / "c.csv", supersedes="b.csv")
    assert any("flow" in finding for finding in odd.findings), odd.findings
    lake = Lake(use.project, settings.lake(use.project), use.contract)
    snapshot = lake.snapshot()
    assert snapshot is not None
    assert parts(use, snapshot, settings.lake(use.project)).immature == 0


def test_nothing_comes_true_of_rows_without_a_target(parts_project, quiet):
    """Outcomes are refused with the next move, and erasing somebody's rows works all the same."""
    use, path, settings = parts_project
    with pytest.raises(BatchError, match=r"contract\.target"):
        ingest.Landings(use, settings, lambda: NOW, kind="outcomes").land(path)
    erased = Erasing(use, settings, lambda: NOW).erase(("1000",), {}, actor="a test", reason="asked for")
    assert erased.rows == 1
    rows = Lake(use.project, settings.lake(use.project), use.contract).rows()
    assert set(rows["part_id"]) == set(range(1001, 1000 + HOURS))


def test_a_project_without_a_target_answers_over_http(parts_project):
    """The serving process loads its model, calls a row odd that breaks the pattern, and describes itself without a target."""
    use, _, settings = parts_project
    trained(use, settings, "gaussian_mixture")
    stage = Stage(settings.home)
    try:
        stage.start()
        until(lambda: stage.answers("/readyz"), what="the server is ready")
        rows = [{"heat": 1.0, "pressure": 2.0, "flow": 0.0}, {"heat": 1.0, "pressure": -6.0, "flow": 0.0}]
        answer = httpx.post(f"{stage.url}/projects/anomaly/predict", json={"rows": rows}).json()
        assert [row["prediction"] for row in answer["predictions"]] == [False, True]
        described = httpx.get(f"{stage.url}/openapi.json").text
        assert "how odd rows are, by version 0" in described
        assert "'None'" not in described
    finally:
        stage.stop()


def test_a_target_that_comes_or_goes_is_breaking(parts_project):
    """Between a contract without a target and one with it, every model answers another question."""
    use, _, _ = parts_project
    columns = {**use.contract.columns, "broke": Column(type="bool", nullable=True)}
    known = use.contract.model_copy(update={"columns": columns, "target": "broke"})
    for old, new, words in (
        (use.contract, known, "target is broke, was none"),
        (known, use.contract, "target is none, was broke"),
    ):
        found = [each for each in compare(old, new) if each.kind == "target"]
        assert [(each.level, words in each.what) for each in found] == [("breaking", True)]


def test_only_a_kind_that_needs_no_labels_goes_without_a_target(parts_project):
    """The same project as any other kind does not load, and the message says what is missing."""
    use, _, settings = parts_project
    path = settings.projects / use.project / "project.yaml"
    text = path.read_text()
    for kind in set(KINDS) - {"anomaly"}:
        if not KINDS[kind].needs_labels:
            continue
        path.write_text(
            text.replace("kind: anomaly", f"kind: {kind}").replace("metric: roc_auc", f"metric: {KINDS[kind].metric}")
        )
        with pytest.raises(ProjectError, match="contract lacks a target"):
            load(path.parent)


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
