"""Anomalies of data and service: odd values, volumes, silence, slowness, failures. What is broken is mended; nobody retrains on it.

The watch calls `find(History(...), now, plan)`. Every check learns from the project's own past what is usual and spends its share of the
false alarms that the project bears; one without enough of a past says "too few", never "ok". What a check looks at is in `oddness.py`.
"""

import datetime as dt

from tasks.ml.watching import contents, service, volumes
from tasks.ml.watching.oddness import AnomalyPlan, Found, History, Look


def find(history: History, now: dt.datetime, plan: AnomalyPlan | None = None, seed: int = 0) -> Found:
    """The anomalies of what came since the last look, at most one alarm a check (faults: O-11, I-24).

    Args:
        history: of one project.
        now: UTC; what claims to have come later is left out (faults: I-20).
        plan: what counts.
        seed: of the forest, and of the orders that a change of level is tried against.
    """
    look = Look(history, now, plan or AnomalyPlan(), seed)
    done = [*contents.checked(look), *volumes.checked(look), *service.checked(look)]
    return Found(tuple(alarm for _, alarm in done if alarm), tuple(check for check, _ in done))
