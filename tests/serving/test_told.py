"""What people tell of the predictions of each shipped project, by whichever door, is what came true of them."""

import asyncio
import datetime as dt
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ml.recipe import Learned, Recipe
from tasks.ml.rollout import Compared
from tasks.stores import bundles, observed
from tasks.stores.journal import Journal, Release
from tasks.stores.references import Snapshot
from tasks.stores.served import Serving
from tasks.tell import tell
from tasks.train import manifest
from tests.samples import SHIPPED, write_rows
from tests.stage import door

NOW = dt.datetime.now(dt.UTC)
MADE_OF = cast(Snapshot, SimpleNamespace(name="v1", digest="0" * 64, trusted=None))
TEXTS = {"text": ["a", "b"], "category": ["a", "b"]}


def rows_of(use: Project, count: int = 60) -> pd.DataFrame:
    """Rows that the contract allows, drawn."""
    random, rows = np.random.default_rng(1), {}
    for name, column in use.contract.columns.items():
        low, high = column.min or 0, column.max or 100
        match column.type:
            case "int":
                rows[name] = random.integers(int(low), int(min(high, low + 100)), count)
            case "float":
                rows[name] = random.uniform(low, high, count)
            case "bool":
                rows[name] = np.arange(count) % 2 == 0
            case "datetime":
                rows[name] = pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC")
            case _:
                rows[name] = random.choice(column.categories or TEXTS[column.type], count)
    return pd.DataFrame(rows)


def served(use: Project, settings: Settings) -> pd.DataFrame:
    """Makes a small model of drawn rows champion, and gives the rows."""
    rows, recipe = rows_of(use), Recipe.usual(use.search.families[-1])
    model = recipe.fit(use.task, use.features, Learned.of(rows, use.task, use.features, use.contract.time), seed=1)
    operates = {"threshold": 0.5} if use.kind == "binary" else {}
    about = manifest(use, MADE_OF, recipe, operates, "none", "") | {"version": 1, "usual": {"means": []}}
    digest = bundles.write(settings.bundles(use.project) / "1", model, about)
    told = Release(use.project, 1, 1, digest, "t", "t", NOW.isoformat(), use.metric, 0.9, 0.8, 1.0)
    Journal(settings.journal()).release(told)
    return rows


def ask(settings: Settings, path: str, **body: Any) -> Any:
    """The answer to a POST."""

    async def scene() -> Any:
        opened, client = door(settings.home)
        opened.succession.look()
        return await client.post(path, json=body)

    return asyncio.run(scene())


@pytest.fixture
def shipped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The projects of the repository, also where a stack of the session has others."""
    monkeypatch.setenv("KEEPFIT_PROJECTS", str(REPOSITORY / "deployments"))
    return settings.model_copy(update={"projects": REPOSITORY / "deployments"})


@pytest.mark.parametrize("name", SHIPPED)
def test_outcomes_by_label_by_own_value_and_by_file_are_the_same_truth(name, shipped, tmp_path):
    """Seven predictions: labels over HTTP, own values over HTTP, own values in a file, and one that waits."""
    settings, use = shipped, Project.named(name, shipped)
    use = use.model_copy(update={"computed": {}})  # their code is not what is told
    rows = served(use, settings)[[*use.sent]].head(7)
    sent = [{key: None if pd.isna(value) else value for key, value in row.items()} for row in rows.to_dict("records")]
    ids = [each["id"] for each in ask(settings, f"/projects/{name}/predict", rows=sent).json()["predictions"]]
    of = {"binary": (*use.labels, False, True, False, True), "recommendation": ("milk", "tea") * 3}[use.kind]
    body = [{"id": one, "value": value} for one, value in zip(ids[:4], of, strict=False)]
    answer = ask(settings, f"/projects/{name}/outcomes", outcomes=body)
    assert (answer.status_code, answer.json()) == (200, {"project": name, "outcomes": 4})
    target = str(use.contract.target)
    lines = [{"prediction_id": one, target: value} for one, value in zip(ids[4:6], of[4:], strict=True)]
    assert tell(use, write_rows(tmp_path / "late.csv", lines), settings)["told"] == 2
    seen = observed.served(use, settings, None, dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)).rows
    assert seen[target].notna().sum() == 6
    found = use.task.truth(seen[use.labelled(seen)])
    assert sorted(found.tolist()) == ([0, 0, 0, 1, 1, 1] if use.kind == "binary" else sorted(of))
    told = {one: each.value for one, each in Serving(name, settings).told(ids)}
    lost = compared(use, ids[:6], of).losses(use.task, told)
    assert lost == pytest.approx([0.1**2 - 0.5**2 if use.kind == "binary" else -1.0] * 6)


def compared(use: Project, ids: list[str], of: tuple[Any, ...]) -> Compared:
    """What an old model says that knows nothing, and a new one that is nearly right, as the log of a probation has it."""
    if use.kind == "binary":
        chances = [0.9 if value in {use.labels[1], True} else 0.1 for value in of]
        old, new = (
            [{"probabilities": {use.labels[0]: 1 - p, use.labels[1]: p}} for p in some] for some in ([0.5] * 6, chances)
        )
    else:
        old, new = [{"prediction": ["bread"]}] * 6, [{"prediction": [value]} for value in of]
    requests = [
        [{"at": NOW, "answered": 2, "beside": 1, "ids": [one], "said": [said], "thought": [thought], "ms": None}]
        for one, said, thought in zip(ids, new, old, strict=True)
    ]
    return Compared.of(use.task, requests, 1, 2)
