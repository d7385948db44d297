"""A project's own features on their way: trained, judged, bundled and served by the code of one moment."""

import datetime as dt
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from tasks import evaluate, prepare, reproduce, train
from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.ml.computed import ComputedError
from tasks.ml.footprint import Step
from tasks.ml.recipe import Recipe
from tasks.serving.champion import Champion, RowError
from tasks.stores import bundles, footprints
from tasks.stores.journal import Release
from tasks.stores.lake import ROW, parts
from tasks.stores.references import Candidate, Scores, Snapshot
from tests.serving.test_app import Stage, until
from tests.tasks.test_trusted import START, Small, quiet

__all__ = ["quiet"]

PRODUCT = """
import pandas as pd

def features(rows):
    return pd.DataFrame({"product": rows["a"] * rows["b"], "sides": rows["a"].ge(0).map({True: "right", False: "left"})})
"""
COMPUTED = {"product": {"about": "a times b"}, "sides": {"type": "text"}}


def rows(count: int = 2000) -> pd.DataFrame:
    """Rows whose target follows from the product of `a` and `b`, and from neither alone."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=count).round(6), rng.normal(size=count).round(6)
    y = rng.random(count) < 1 / (1 + np.exp(-3 * a * b))
    return pd.DataFrame(
        {"id": np.arange(count), "at": START + pd.to_timedelta(np.arange(count), unit="h"), "a": a, "b": b, "y": y}
    )


def rewrite(small: Small, hooks: str) -> Project:
    """The project after its hooks.py was written anew."""
    (small.settings.projects / "small" / "hooks.py").write_text(hooks)
    return Project.named("small", small.settings)


def trained(snapshot: Snapshot, run: str, recipe: Recipe | None = None) -> tuple[Candidate, Scores, pd.DataFrame]:
    """A candidate with its scores, and what it said of each row of the holdout."""
    candidate = train.fit.fn("small", snapshot, recipe or Recipe.usual("logistic"), run)
    scores = evaluate.evaluate.fn("small", snapshot, candidate)
    return candidate, scores, pd.read_parquet(scores.answers)


def released(small: Small, candidate: Candidate, version: int) -> Release:
    """The candidate as champion: its bundle as register writes it, and the row of the journal."""
    folder = Path(candidate.folder)
    manifest, model = bundles.read(folder, candidate.digest)
    own = {name: value for name, value in manifest.items() if name not in {"files", "versions"}}
    files = footprints.read(folder, candidate.digest).files()
    digest = bundles.write(small.settings.bundles("small") / str(version), model, own | {"version": version}, files)
    at = dt.datetime(2027, 1, 1, tzinfo=dt.UTC).isoformat()
    return small.journal.release(Release("small", version, version, digest, "a test", "good", at, "roc_auc", 0.8, 0.7, 0.9))  # fmt: skip


def sent(small: Small, answers: pd.DataFrame) -> list[dict[str, float]]:
    """The raw columns of the judged rows, as a caller sends them."""
    landed = small.lake.read(small.newest()).set_index(ROW)
    return landed.loc[answers[ROW], ["a", "b"]].to_dict("records")


@pytest.fixture
def small(quiet: Path) -> Small:
    return Small(quiet, PRODUCT, computed=COMPUTED, slices={"columns": ["sides"]})


def test_answers_over_http_are_those_of_the_evaluation(small: Small):
    """Callers send raw columns; every judged row gets, over HTTP, bit by bit the probability that it was judged with.

    Without the computed product a logistic model is worth nothing here. hooks.py may change, or go: neither the running nor a fresh
    server answers otherwise.
    """
    candidate, scores, answers = trained(small.land(rows()), "run")
    assert scores.metric.value > 0.8
    released(small, candidate, 1)
    asked, judged = sent(small, answers), answers["challenger"].tolist()
    with _server(small) as ask:
        assert ask(asked) == judged
        rewrite(small, PRODUCT.replace("*", "-"))
        assert ask(asked) == judged
    (small.settings.projects / "small" / "hooks.py").unlink()
    with _server(small) as ask:
        assert ask(asked) == judged


@contextmanager
def _server(small: Small) -> Generator[Callable[[list[dict[str, float]]], list[float]]]:
    """A fresh serving process: rows to probabilities."""
    stage = Stage(small.settings.home)

    def ask(rows_: list[dict[str, float]]) -> list[float]:
        said = httpx.post(f"{stage.url}/projects/small/predict", json={"rows": rows_}, timeout=30)
        assert said.status_code == 200, said.text
        return [one["probabilities"]["yes"] for one in said.json()["predictions"]]

    stage.start()
    try:
        until(stage.answers)
        yield ask
    finally:
        stage.stop()


def test_a_champion_is_compared_by_its_own_code(small: Small):
    """After hooks.py has changed, the champion says of the judged rows what it said before; the challenger is made by the new code."""
    snapshot = small.land(rows())
    candidate, _, before = trained(snapshot, "one")
    digest = small.use.digest
    released(small, candidate, 1)
    assert rewrite(small, PRODUCT.replace("*", "-")).digest != digest
    _, scores, after = trained(snapshot, "two")
    assert after[ROW].tolist() == before[ROW].tolist()
    assert after["champion"].tolist() == before["challenger"].tolist()
    assert scores.metric.value < 0.6


def test_computed_columns_are_called_by_name(small: Small):
    """What the model relies on, groups of rows and contributions know the computed columns; contributions add up with them."""
    candidate, scores, answers = trained(small.land(rows()), "run")
    assert scores.importance is not None
    assert scores.importance.columns[0].column == "product"
    assert scores.slices is not None
    assert {one.values for one in scores.slices.slices} == {"= left", "= right"}
    release = released(small, candidate, 1)
    champion = Champion.load(small.settings.bundles("small") / "1", release)
    checked = champion.check(sent(small, answers)[:20])
    said = champion.score(checked)
    parts_, explained = champion.explain(checked, said)
    assert set(parts_[0]["contributions"]) == {"a", "b", "product", "sides"}
    assert explained["adds up to"].startswith("log-odds")
    for part, answer in zip(parts_, said, strict=True):
        odds = part["base"] + sum(part["contributions"].values())
        assert 1 / (1 + np.exp(-odds)) == pytest.approx(answer["probabilities"]["yes"], abs=1e-9)


def test_code_runs_only_where_the_model_reads_what_it_makes(small: Small):
    """A recipe of raw columns alone asks for no other column and runs no code; one computed column needs all raw ones."""
    snapshot = small.land(rows())
    made = {}
    for name, features in (("raw", ("b",)), ("mixed", ("b", "product"))):
        recipe = Recipe.usual("logistic").model_copy(update={"features": features})
        candidate, _, answers = trained(snapshot, name, recipe)
        manifest, _ = bundles.read(Path(candidate.folder), candidate.digest)
        made[name] = {feature["name"] for feature in manifest["features"]}, set(manifest.get("computed", ()))
        version = len(made)
        champion = Champion.load(small.settings.bundles("small") / str(version), released(small, candidate, version))
        told = [{key: row[key] for key in made[name][0]} for row in sent(small, answers)]
        said = [one["probabilities"]["yes"] for one in champion.predict(told)]
        assert said == answers["challenger"].tolist()
        assert (champion.computing is None) == (name == "raw")
    assert made == {"raw": ({"b"}, set()), "mixed": ({"a", "b"}, {"product", "sides"})}


def test_altered_code_is_refused_and_never_runs(small: Small, tmp_path: Path):
    """One changed byte, another file, or none: the bundle is refused before anything of the code has run."""
    candidate, _, _ = trained(small.land(rows()), "run")
    release, folder = released(small, candidate, 1), small.settings.bundles("small") / "1"
    hooks, ran = folder / bundles.HOOKS, tmp_path / "ran"
    whole = hooks.read_bytes()
    for content in (whole.replace(b"*", b"+"), f"open({str(ran)!r}, 'w')\n".encode() + whole, b""):
        hooks.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"hooks\.py has the SHA-256"):
            Champion.load(folder, release)
    hooks.unlink()
    with pytest.raises(ArtifactError, match=r"hooks\.py cannot be read"):
        Champion.load(folder, release)
    hooks.write_bytes(whole)
    assert Champion.load(folder, release).predict([{"a": 1.0, "b": 1.0}])
    assert not ran.exists()


def test_code_that_does_not_import_on_the_server_is_refused(small: Small):
    """A package that training had and the server has not keeps the old champion answering, with the reason."""
    candidate, _, _ = trained(small.land(rows()), "run")
    manifest, model = bundles.read(Path(candidate.folder), candidate.digest)
    own = {name: value for name, value in manifest.items() if name not in {"files", "versions"}}
    folder = small.settings.home / "other"
    digest = bundles.write(folder, model, own, {bundles.HOOKS: b"import no_such_library_at_all\n" + PRODUCT.encode()})
    with pytest.raises(ArtifactError, match="no_such_library_at_all"):
        bundles.computing(folder, digest)
    shutil.rmtree(folder)
    digest = bundles.write(folder, model, own)
    with pytest.raises(ArtifactError, match=r"computed columns without hooks\.py"):
        bundles.computing(folder, digest)


def test_rows_that_the_code_has_nothing_for_are_the_callers_to_mend(small: Small):
    """Infinite results are refused with a reason, no value repeated; that warm-up rows meet them keeps no version from release."""
    use = rewrite(small, PRODUCT.replace('rows["a"] * rows["b"]', '1 / rows["a"] * rows["b"].where(rows["a"] != 0, 1)'))
    assert use.digest != small.use.digest
    candidate, _, _ = trained(small.land(rows()), "run")
    champion = Champion.load(small.settings.bundles("small") / "1", released(small, candidate, 1))
    assert champion.predict([{"a": 0.5, "b": 12.5}])
    with pytest.raises(RowError, match="'product' is infinite in 1 of 2 rows") as error:
        champion.predict([{"a": 0.5, "b": 12.5}, {"a": 0.0, "b": 12.5}])
    assert "12.5" not in str(error.value)
    with pytest.raises(RowError, match="1 unknown field"):
        champion.predict([{"a": 0.5, "b": 12.5, "product": 1.0}])


def test_code_that_looks_at_other_rows_is_no_training(small: Small):
    """The mean of a batch is refused before anything is tuned, with the column's name."""
    snapshot = small.land(rows())
    use = rewrite(small, PRODUCT.replace('rows["a"] * rows["b"]', 'rows["a"] - rows["a"].mean()'))
    prepared = prepare.describe(use, parts(use, snapshot, small.settings.lake("small")))
    assert prepared.refused.startswith("hooks.py: 'product' of a row is another one when the row is computed alone")
    assert prepare.describe(small.use, parts(small.use, snapshot, small.settings.lake("small"))).refused == ""


def test_code_that_breaks_on_landed_rows_stops_the_training(small: Small):
    """What hooks.py gives in place of what project.yaml declares is an error with both names."""
    snapshot = small.land(rows())
    use = rewrite(small, PRODUCT.replace('"product"', '"produkt"'))
    with pytest.raises(ComputedError, match=r"gives 'produkt', no 'product'.*product, sides"):
        parts(use, snapshot, small.settings.lake("small"))


def test_a_computed_column_that_tells_the_target_is_a_leak(quiet: Path):
    """Two harmless columns that together are the target are caught in what is made of them."""
    frame = rows()
    noise = np.random.default_rng(1).normal(size=len(frame)).round(6) * 10
    frame = frame.assign(a=noise, b=(noise + frame["y"]).round(6))
    hooks = "import pandas as pd\ndef features(rows):\n    return pd.DataFrame({'gap': rows['b'] - rows['a']})\n"
    small = Small(quiet, hooks, computed={"gap": {}})
    split = parts(small.use, small.land(frame), small.settings.lake("small"))
    refused = prepare.examined(small.use, split, prepare.describe(small.use, split)).refused
    assert "column 'gap' alone tells the target" in refused


def test_a_version_is_made_again_by_the_code_of_then(small: Small, tmp_path: Path):
    """With the configuration of then every step is as recorded, whatever hooks.py says today; with today's the changed code is named."""
    candidate, _, _ = trained(small.land(rows()), "run")
    release, folder = released(small, candidate, 1), small.settings.bundles("small") / "1"
    rewrite(small, PRODUCT.replace("*", "-"))
    recorded = footprints.read(folder, release.digest).footprint
    odd = {}
    for as_recorded in (True, False):
        asked = reproduce.Version(
            project="small", version=1, folder=str(folder), digest=release.digest, threads=1, as_recorded=as_recorded
        )
        steps = [step for step in reproduce.remade(asked, tmp_path / "said", small.settings) if isinstance(step, Step)]
        known = {step.name: step for step in recorded.steps}
        odd[as_recorded] = {
            step.name for step in steps if step.name in known and any(known[step.name].differences(step))
        }
        assert {"configuration", "train", "parameters"} <= {step.name for step in steps}
    assert odd[True] == set()
    assert {"configuration", "train", "parameters"} <= odd[False]
