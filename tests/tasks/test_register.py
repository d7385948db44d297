"""Registering: a version's number is one that none has had."""

import datetime as dt

from tasks import register
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.stores.journal import Journal, Release
from tests.released import NAME, VERSIONS, place, template

__all__ = ["place", "template"]


def test_the_highest_number_that_a_version_has_had_is_known_without_mlflow(place: Settings):
    """From a bundle that is there, a release, or a training whose version never was champion, whichever is the highest."""
    use, journal, at = Project.named(NAME, place), Journal(place.journal()), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert register._taken(use, place) == max(VERSIONS)
    journal.release(Release(NAME, 1, 5, "d", "me", "because", at.isoformat(), "roc_auc", 0.9, 0.8, 1.0))
    assert register._taken(use, place) == 5
    for version in (7, None):
        number = journal.start_training(project=NAME, trigger="by hand", event=False, snapshot="s", config="c", at=at)
        journal.end_training(number, state="held", reason="so", at=at, version=version)
    assert register._taken(use, place) == 7
    for name in ("9", "10.part", "old"):
        (place.bundles(NAME) / name).mkdir()
    assert register._taken(use, place) == 9
    assert register._taken(use.model_copy(update={"project": "new"}), place) == 0
