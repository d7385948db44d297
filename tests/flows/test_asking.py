"""Asking without a server: the champion is loaded in this process, and explains when asked."""

import json

import pytest
from rich.console import Console

from flows.asking import ask
from flows.commands.answers import _explained
from tasks.config.errors import KeepfitError
from tasks.stores import bundles
from tasks.stores.journal import Journal
from tests.serving.test_champion import GOOD, fitted, manifest, release


@pytest.fixture
def released(settings):
    """Settings where a version of flights is champion, and no server runs."""
    settings.home.mkdir(parents=True)
    digest = bundles.write(settings.bundles("flights") / "1", fitted(), manifest())
    Journal(settings.journal()).release(release(1, 1, digest))
    return settings


def test_an_answer_without_a_server_is_explained(released):
    """With `explain` base and contributions come along, without it the answer is as it was."""
    said = []
    plain = ask("flights", json.dumps(GOOD), released, said.append)
    explained = ask("flights", json.dumps(GOOD), released, said.append, explain=True)
    (one,), (other,) = plain["predictions"], explained["predictions"]
    assert set(plain) == {"project", "version", "predictions"}
    assert {name: other[name] for name in one} == one
    assert set(other) - set(one) == {"base", "contributions"}
    assert said == ["no server runs: the champion is loaded in this process"] * 2
    with pytest.raises(KeepfitError, match="'age' is a text"):
        ask("flights", json.dumps({**GOOD, "age": "old"}), released, said.append, explain=True)


def test_the_page_shows_the_largest_contribution_first(released):
    """A person sees base, columns from the largest on, and the sum; a column that adds nothing is left out."""
    said = ask("flights", json.dumps(GOOD), released, lambda _line: None, explain=True)
    said["predictions"][0] |= {"base": 1.0, "contributions": {"a": 0.5, "b": 0.0, "c": -2.0}}
    console = Console(width=80)
    with console.capture() as shown:
        console.print(_explained(said))
    lines = [line.split() for line in shown.get().splitlines() if "(" in line or " +" in line or " -" in line]
    assert [line[:2] for line in lines if line[0] in {"(base)", "a", "b", "c", "(sum)"}] == [
        ["(base)", "+1"], ["c", "-2"], ["a", "+0.5"], ["(sum)", "-0.5"],
    ]  # fmt: skip
