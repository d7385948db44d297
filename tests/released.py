"""A home with three versions that passed every gate, each with its bundle, its training in the journal and its place in MLflow."""

import datetime as dt
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.kinds import Binary
from tasks.ml.recipe import Recipe
from tasks.serving.champion import Champion
from tasks.serving.rehearsal import UnservedError
from tasks.stores import bundles
from tasks.stores.journal import Journal, Release
from tasks.stores.registry import Registry
from tests.ml.test_kinds import MADE, columns_of, taught
from tests.samples import PROJECT

NAME = "small"
YAML = PROJECT.format(name=NAME) + "search: {seed: 7, trials: 2, families: [logistic]}\n"
NOW = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
VERSIONS = (1, 2, 3)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home, made once; nothing is champion in it. Its journal is a file of SQLite."""
    home = tmp_path_factory.mktemp("template")
    (home / "projects" / NAME).mkdir(parents=True)
    (home / "projects" / NAME / "project.yaml").write_text(YAML)
    settings = Settings(home=home / "state", projects=home / "projects")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        registry = Registry(NAME, settings.mlflow(), settings.artifacts)
        registry.client.create_registered_model(NAME)
        for version in VERSIONS:
            registry.client.create_model_version(
                NAME, source=f"file://{home}/nothing", tags={"keepfit.model_digest": str(version)}
            )
        bundle_all(settings)
    return home


def bundle_all(settings: Settings) -> None:
    """Writes the bundle of every version; they differ in their number alone."""
    kind = MADE["binary"]
    assert isinstance(kind, Binary)
    model, asked, truth = taught(kind, Recipe.usual("logistic"))
    operates = kind.operate(truth, kind.answers(model, asked))
    features = [
        {"name": name, "type": column.type, "nullable": column.nullable} for name, column in columns_of(kind).items()
    ]
    whole = {
        "project": NAME,
        "kind": "binary",
        **kind.described(),
        "target": "y",
        "features": features,
        "ignored": [],
        **operates,
    }
    for version in VERSIONS:
        bundles.write(settings.bundles(NAME) / str(version), model, whole | {"version": version})


def trained(settings: Settings) -> Journal:
    """Records in the settings' journal that each version was trained and passed; gives the journal."""
    journal, use = Journal(settings.journal()), Project.named(NAME, settings)
    verdicts = [{"gate": gate.kind, "passed": True, "reason": "a test"} for gate in use.gates]
    for version in VERSIONS:
        digest = bundles.hashlib.sha256(
            (settings.bundles(NAME) / str(version) / bundles.MANIFEST).read_bytes()
        ).hexdigest()
        number = journal.start_training(
            project=NAME, trigger="t", event=False, snapshot="s", config="c", at=NOW, rows=f"v{version}-12345678"
        )
        detail = {"value": 0.9, "low": 0.8, "high": 0.95, "verdicts": verdicts, "digest": digest}
        journal.end_training(number, state="registered", reason="a test", at=NOW, version=version, detail=detail)
    return journal


@pytest.fixture(params=["sqlite", "postgresql"])
def either(
    request: pytest.FixtureRequest, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """A copy of the home whose journal is a file, and one whose journal is on a real server."""
    url = request.getfixturevalue("database") if request.param == "postgresql" else None
    yield from _copy(template, tmp_path, monkeypatch, url)


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A copy of the home whose journal is a file."""
    yield from _copy(template, tmp_path, monkeypatch, None)


def _copy(template: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str | None) -> Iterator[Settings]:
    shutil.copytree(template, folder / "home")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("KEEPFIT_HOME", str(folder / "home" / "state"))
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(folder / "home" / "projects"))
    if url:
        monkeypatch.setenv("KEEPFIT_DATABASE_URL", url)
    settings = Settings()
    trained(settings)
    yield settings


def crowned(settings: Settings, *versions: int) -> Journal:
    """Makes versions champion one after the other, in the journal alone; gives it."""
    journal = Journal(settings.journal())
    digests = {row["version"]: row["detail"]["digest"] for row in journal.trainings(NAME)}
    release = Release(NAME, 1, 1, "", "a test", "a test", NOW.isoformat(), "roc_auc", 0.9, 0.8, 0.95)
    for place, version in enumerate(versions, start=len(journal.releases(NAME)) + 1):
        journal.release(replace(release, generation=place, version=version, digest=digests[version]))
    return journal


def champion(settings: Settings, *versions: int) -> Journal:
    """As `crowned`, in MLflow, too."""
    journal = crowned(settings, *versions)
    registry = Registry(NAME, settings.mlflow(), settings.artifacts)
    for name, release in zip(("champion", "previous"), reversed(journal.releases(NAME)), strict=False):
        registry.point(name, release.version)
    return journal


class InProcess:
    """In place of the candidate's process, whose start takes seconds: the server's own code loads it here. It writes nothing."""

    def __init__(self, folder, digest, _beside) -> None:
        self.folder, self.digest = folder, digest

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def answer(self, _seconds: float) -> None:
        """Loads and warms the champion."""
        said = bundles.manifest_of(self.folder, self.digest)
        release = Release(
            said["project"], 1, said["version"], self.digest, "t", "t", "2026-01-01", "roc_auc", 0.9, 0.8, 1.0
        )
        try:
            Champion.load(self.folder, release)
        except ArtifactError as error:
            raise UnservedError(str(error)) from error


def alias(settings: Settings) -> int | None:
    """The version that @champion names in MLflow."""
    return Registry(NAME, settings.mlflow(), settings.artifacts).pointed("champion")
