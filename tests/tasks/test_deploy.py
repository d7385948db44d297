"""A release is rehearsed: what would be served is loaded first, and what is odd about it stands in the journal's words."""

import datetime as dt
import hashlib
import json
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.deploy import rehearse
from tasks.stores import bundles
from tasks.stores.journal import Journal
from tasks.stores.seals import SEAL, Seals
from tests.tasks.test_reproduce import NAME, home, trained

__all__ = ["home", "trained"]
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")


def by_other_libraries(settings: Settings) -> None:
    """Version 1 passed every gate, and its manifest says that another numpy wrote it."""
    path = settings.bundles(NAME) / "1" / bundles.MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["versions"]["numpy"] = "1.2.3"
    text = json.dumps(manifest).encode()
    path.write_bytes(text)
    path.with_name(SEAL).write_bytes(Seals.of(settings).sign(hashlib.sha256(text).hexdigest()))
    journal = Journal(settings.journal())
    (row,) = journal.trainings(NAME)
    verdicts = [{"gate": gate.kind, "passed": True, "reason": "a test"} for gate in Project.named(NAME, settings).gates]
    detail = {"value": 0.9, "low": 0.8, "high": 0.95, "verdicts": verdicts, "digest": hashlib.sha256(text).hexdigest()}
    at = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
    journal.end_training(row["id"], state="registered", reason="", at=at, detail=row["detail"] | detail)


def test_r_09_a_release_of_other_libraries_is_refused_or_says_so(home: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a word it is refused; when it is accepted, the release's reason names the libraries for good (R-09)."""
    by_other_libraries(Settings())
    with disable_run_logger(), pytest.raises(ArtifactError, match=r"written by numpy 1\.2\.3"):
        rehearse.fn(NAME, 1, "by hand", "a test")
    monkeypatch.setenv("KEEPFIT_LIBRARY_SKEW", "accept")
    with disable_run_logger():
        plan = rehearse.fn(NAME, 1, "by hand", "a test")
    assert plan.release is not None
    assert plan.release.reason.startswith("by hand; library skew accepted: written by numpy 1.2.3; this process has ")
