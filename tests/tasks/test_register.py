"""Registering: a version's number is one that none has had; how a failed training is told."""

import contextlib
import datetime as dt
import http.server
import threading

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from prefect.logging import disable_run_logger

from tasks import register
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.register import failure
from tasks.stores.journal import Journal, Release, unanswered
from tasks.stores.references import Decision, Snapshot, Training
from tasks.stores.registry import Registry
from tests.released import NAME, NOW, VERSIONS, crowned, place, template
from tests.samples import free_port

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


@pytest.mark.parametrize(("champions", "asks"), [((1,), True), ((1, 3), False)], ids=["as judged", "another champion"])
def test_nobody_is_asked_about_a_version_whose_verdicts_do_not_count_any_more(
    place: Settings, champions: tuple[int, ...], asks: bool
):
    """What may not go live by itself waits for a person; when another champion was released while it was made, an approval could not release it."""
    journal = crowned(place, *champions)
    row = journal.made(NAME, 2)
    assert row is not None
    journal.end_training(row["id"], state="releasing", reason="better", at=NOW, detail=row["detail"] | {"against": 1})
    run = Registry(NAME, place.mlflow(), place.artifacts).start("a test", {})
    rows = Snapshot(project=NAME, version=1, rows=1, digest="s", since="", until="")
    training = Training(project=NAME, reason="t", id=row["id"], snapshot=rows, run=run)
    decision = Decision(project=NAME, state="releasing", reason="better", trigger="t", version=2)
    with disable_run_logger():
        said = register.conclude.fn(training, decision, {"state": "refused", "reason": "so"})
    assert (said["state"], said["reason"]) == ("registered", "not released: so")
    assert [each.version for each in journal.proposals(NAME, state="open")] == ([2] if asks else [])


@pytest.mark.parametrize("status", [None, 500, 503])
def test_o_05_a_training_that_mlflow_was_away_for_says_so(monkeypatch: pytest.MonkeyPatch, status: int | None):
    """What MLflow's own client says when nobody listens, or when a server fails, is told in our words; another error is not."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status or 0)

    with contextlib.ExitStack() as held:
        port = free_port()
        if status:
            server = held.enter_context(http.server.HTTPServer(("127.0.0.1", 0), Broken))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            held.callback(server.shutdown)
            port = server.server_port
        client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
        with pytest.raises(MlflowException) as met:
            client.get_experiment("1")
    said = failure(f"Flow run encountered an exception: MlflowException: {met.value}")
    assert unanswered("failed", said), said
    assert not unanswered("failed", failure("Flow run encountered an exception: ValueError: no"))
