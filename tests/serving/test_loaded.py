"""Models in memory are known by what was released, while somebody uses them."""

import dataclasses

import pytest

from tasks.serving.loaded import Loaded
from tasks.stores import bundles
from tests.serving.test_champion import GOOD, fitted, manifest, release


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle of version 1 of flights."""
    return tmp_path_factory.mktemp("bundles") / "1"


@pytest.fixture(scope="module")
def first(folder):
    """Its release."""
    return release(1, 1, bundles.write(folder, fitted(), manifest()))


def test_a_model_is_known_while_somebody_uses_it(folder, first):
    """Of two users either keeps it; what a user used before is gone when it says what it uses now."""
    loaded = Loaded()
    assert loaded.known(folder, first) is None
    model = loaded.load(folder, first)
    assert loaded.known(folder, first) is None
    loaded.keep("champions", [model])
    loaded.keep("beside", [model])
    loaded.keep("champions", [])
    assert loaded.known(folder, first) is model
    loaded.keep("beside", [])
    assert loaded.known(folder, first) is None


@pytest.mark.parametrize("change", [{"project": "other"}, {"version": 2}, {"digest": "0" * 64}], ids=str)
def test_another_project_version_or_digest_is_another_model(folder, first, change):
    """Nothing answers under a name that it was not released under (R-04)."""
    loaded = Loaded()
    loaded.keep("champions", [loaded.load(folder, first)])
    assert loaded.known(folder, dataclasses.replace(first, **change)) is None


def test_a_model_answers_under_a_later_release_as_it_did(folder, first):
    """The same model with the new generation and reason; under the same release it is the same object."""
    loaded = Loaded()
    loaded.keep("champions", [model := loaded.load(folder, first)])
    later = dataclasses.replace(first, generation=7, kind="rollback")
    back = loaded.known(folder, later)
    assert back is not None
    assert (back.release, model.release, back.bundle) == (later, first, model.bundle)
    assert back.predict([GOOD]) == model.predict([GOOD])
    assert back.under(later) is back
