"""Fitting: a recipe becomes a candidate on disk, or the reason why not."""

import importlib
from types import SimpleNamespace

import pytest

from tasks import train
from tasks.ml.contract import Column
from tasks.ml.recipe import Recipe
from tasks.stores import bundles
from tasks.stores.references import Training
from tests.tasks.test_trusted import NOW, Small, quiet, rows

__all__ = ["quiet"]


@pytest.mark.parametrize(
    ("timezone", "meant"), [("UTC", {}), (None, {"offset": True}), ("Europe/Berlin", {"offset": True})]
)
def test_i_21_a_manifest_says_which_times_need_their_offset(timezone, meant):
    """Those that land as of another zone than UTC, or must say theirs when they land, too."""
    said = train._feature("at", Column(type="datetime", timezone=timezone))
    assert said == {"name": "at", "type": "datetime", "nullable": False, **meant}
    assert train._feature("x", Column(type="float")) == {"name": "x", "type": "float", "nullable": False}


def test_a_model_that_no_bundle_can_hold_is_refused_and_leaves_nothing(quiet, monkeypatch):
    """The refusal says how large it is, what is wanted, and which family to leave out; the flow ends with it."""
    small = Small(quiet)
    snapshot = small.land(rows(0, 600))
    monkeypatch.setattr(bundles, "MODEL_BYTES", 1000)
    candidate = train.fit.fn("small", snapshot, Recipe.usual("extra_trees"), "large")
    assert candidate.refused.startswith("too large: the model's model.skops has ")
    assert candidate.refused.endswith("leave out extra_trees")
    assert not (small.settings.home / "candidates" / "small" / "large").exists()
    flow = importlib.import_module("flows.train")
    training = Training(project="small", reason="by hand", id=1, snapshot=snapshot, run="r", started=NOW.isoformat())

    def never(*_: object, **__: object) -> None:
        pytest.fail("a candidate that is none was judged")

    monkeypatch.setattr(flow, "admit", lambda *_, **__: training)
    monkeypatch.setattr(flow, "prepare", lambda *_: SimpleNamespace(refused=""))
    monkeypatch.setattr(flow, "tune", lambda *_: SimpleNamespace(recipe=None))
    monkeypatch.setattr(flow, "fit", lambda *_: candidate)
    monkeypatch.setattr(flow, "decline", lambda _, reason: {"state": "refused", "reason": reason})
    for name in ("evaluate", "gate", "register", "release"):
        monkeypatch.setattr(flow, name, never)
    assert flow.train.fn("small") == {"state": "refused", "reason": candidate.refused}
