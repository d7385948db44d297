"""Alarms: a calibrated statement that something moved, with what it is expected to cost and what to do about it."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, Field

MONTH = 365.25 / 12  # days: how many false alarms are borne is said by the month
Kind = Literal[
    "inputs", "predictions", "performance", "estimate", "values", "volume", "freshness", "latency", "errors", "labels", "files",
]  # fmt: skip
Class = Literal["retrain", "mend", "ignore"]
GRAVEST: tuple[Class, ...] = ("mend", "retrain", "ignore")


class Alarm(BaseModel, frozen=True, populate_by_name=True):
    """One alarm of one watch.

    Attributes:
        kind: what moved: `inputs` and `predictions` are drift, `performance` came true, `estimate` is expected, `files` is what lies of the champion on disk, the rest are anomalies.
        what: retrain the model, mend the data or the service, or ignore it; `class` in JSON.
        effect: expected change of the metric, in its unit, below 0 when it gets worse; None where nothing can be said.
        features: what explains it, the greatest part first.
        segments: where it is, as conditions on features, for example `night = true`.
        level, threshold: the statistic, and what it had to pass.
        says: a sentence without a row or a value of a person.
        check: of data or service, that found it; empty where the kind says it all.
    """

    kind: Kind
    what: Class = Field(alias="class")
    effect: float | None = None
    features: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    level: float
    threshold: float
    says: str
    check: str = ""

    @property
    def judged_by(self) -> str:
        """What has to be judged again before it is over: its check, else its kind."""
        return self.check or self.kind


def gravest(alarms: Iterable[Alarm]) -> Class | None:
    """The gravest class of some alarms; None of none."""
    return min((alarm.what for alarm in alarms), key=GRAVEST.index, default=None)
