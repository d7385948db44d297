"""Admission: whether a training may start now, a pure answer from what the journal knows."""

import datetime as dt
from collections.abc import Sequence

from pydantic import BaseModel

from tasks.ml import policy
from tasks.ml.caps import Breaker, Budget, Cap, Past
from tasks.ml.policy import ALARMED, Policy

AGAIN = "`keepfit train --again` trains now"


class Admission(BaseModel, frozen=True):
    """The answer.

    Attributes:
        refused: why not, a sentence; empty when it may start.
        wait: seconds after which it may start, where a follow-up is to be planned.
        cap: what stands against it for longer.
    """

    refused: str = ""
    wait: float = 0.0
    cap: Cap | None = None


def admission(
    by: str,
    past: Sequence[Past],
    alarms: Sequence[dt.datetime],
    now: dt.datetime,
    *,
    policies: tuple[Policy, ...],
    budget: Budget,
    breaker: Breaker,
) -> Admission:
    """Whether a training that `by` starts may begin.

    Args:
        by: what starts it; see `policy.By`.
        past: the project's trainings, oldest first.
        alarms: when alarms wanted a training, those that were refused, too.
        now: the moment of the question.
        policies: of the project.
        budget: of the project.
        breaker: of the project.
    """
    cap = (breaker.opened(past, alarms, now) if by in ALARMED else None) or budget.spent(past, now)
    if cap is not None:
        return Admission(refused=f"{cap.reason}. {AGAIN}", cap=cap)
    wait = policy.wait(policies, by, past[-1].started if past else None, now)
    if wait:
        return Admission(
            refused=f"cooling down: a follow-up is planned in {wait:.0f} s, when enough time has passed since the last training began. {AGAIN}",
            wait=wait,
        )
    return Admission()
