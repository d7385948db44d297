"""A snapshot becomes a challenger with verdicts, and champion when every gate passed; or the reasons why not."""

from typing import Any

from prefect import flow

from flows.prove import doubts
from flows.release import release
from tasks.evaluate import evaluate
from tasks.gate import gate
from tasks.ml.policy import By
from tasks.prepare import prepare
from tasks.register import conclude, decline, note_failure, register
from tasks.stores.journal import BY_ITSELF
from tasks.stores.references import Finished, Training
from tasks.train import fit
from tasks.trigger import admit, alone, plan_follow_up
from tasks.tune import tune


@flow(
    name="train", flow_run_name="{project}: {reason}", persist_result=True, result_serializer="json",
    on_failure=[note_failure], on_crashed=[note_failure], on_cancellation=[note_failure],
)  # fmt: skip
def train(
    project: str, reason: str = "by hand", snapshot: str | None = None, by: By = "hand", again: bool = False
) -> dict[str, Any]:
    """Trains a challenger on a snapshot, judges it by every gate, and releases it when all passed and the gates are proven.

    Args:
        project: The project to train.
        reason: Why; stands in the run's name, in MLflow and in the journal.
        snapshot: The rows to train on, like v12-3f9c2a7b; the newest when empty.
        by: What starts it: a person (hand), or a policy of the project, which says how soon after the last training it may.
        again: Train even when this snapshot was trained on with this code and configuration, and past cool-down, budget and breaker.
    """
    with alone(project):
        training = admit(project, snapshot, reason, by=by, again=again)
        if training.wait:
            plan_follow_up(project, training.wait, by)
        if training.refused:
            return decline(training, training.refused)
        finished = training.finished or challenger(project, training)
        if isinstance(finished, str):
            return decline(training, finished)
        decision = register(training, finished)
        if decision.version is None or decision.state != "releasing":
            return decision.model_dump(mode="json")
        if unproven := doubts(project):
            return conclude(training, decision, {"state": "refused", "reason": unproven})
        released = release(project, decision.version, reason=decision.reason, actor=f"{BY_ITSELF}{reason}")
        return conclude(training, decision, released)


def challenger(project: str, training: Training) -> Finished | str:
    """What a training comes to, with its verdicts; or why nothing can be learned."""
    prepared = prepare(project, training.rows, training.run)
    if prepared.refused:
        return prepared.refused
    best = tune(project, training.rows, training.run)
    candidate = fit(project, training.rows, best.recipe, training.run)
    if candidate.refused:
        return candidate.refused
    scores = evaluate(project, training.rows, candidate)
    verdicts = gate(project, training.rows, candidate, scores, training.config)
    return Finished(prepared=prepared, best=best, candidate=candidate, scores=scores, verdicts=tuple(verdicts))
