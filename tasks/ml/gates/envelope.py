"""Envelopes: what a project may change by itself, as `change_plan.yaml` says it, and how far a challenger is outside of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from tasks.config.errors import suggestion
from tasks.ml.metrics import METRICS, Name
from tasks.ml.models import FamilyName
from tasks.ml.recipe import Recipe

WindowKind = Literal["all", "last", "decay"]


@dataclass(frozen=True)
class Change:
    """What would change if a challenger became champion.

    Attributes:
        family, window: of the model; days: length of its window or half-life, None where it has none.
        features: the columns that it reads.
        measured: every metric of the kind on the holdout.
        drift: how far the column that moved most has moved, named by `drifted`; None when nobody looked.
        retrains: how many models went live by themselves in the last 30 days.
    """

    family: str
    window: str
    days: float | None
    features: tuple[str, ...]
    measured: dict[str, float]
    drift: float | None = None
    drifted: str = ""
    retrains: int = 0

    @classmethod
    def of(cls, recipe: Recipe, columns: Iterable[str], measured: dict[str, float]) -> Self:
        """What a model of this recipe changes, which reads these columns; nobody has looked at drift and retrains."""
        window = recipe.window
        return cls(recipe.family.kind, window.kind, window.days, tuple(columns), measured)


class ChangePlan(BaseModel, frozen=True, extra="forbid"):
    """What a project may change by itself; whatever is left out is not limited."""

    families: tuple[FamilyName, ...] | None = Field(default=None, min_length=1, description="model families")
    windows: tuple[WindowKind, ...] | None = Field(
        default=None,
        min_length=1,
        description="how much of the past: all of it, the last days, or all with decaying weights",
    )
    shortest: float | None = Field(default=None, gt=0, description="least length of a window or half-life, in days")
    features: tuple[str, ...] | None = Field(default=None, min_length=1, description="columns that a model may read")
    floors: dict[Name, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        default={}, description="the least that each metric must be on the holdout; the most where less is better"
    )
    drift: float | None = Field(
        default=None, gt=0,
        description="how far a feature of the newest fifth of the rows may be from the rows before: population stability index",
    )  # fmt: skip
    retrains: int | None = Field(
        default=None, ge=0, description="how many models may go live by themselves within 30 days"
    )

    @field_validator("features", "floors")
    @classmethod
    def _names_are_the_projects(cls, given: Any, info: ValidationInfo) -> Any:
        """Where the project is known, its features and the metrics of its kind."""
        known: list[str] = list((info.context or {}).get(info.field_name, given or ()))
        if strange := [name for name in given or () if name not in known]:
            raise ValueError(
                f"names '{strange[0]}', which the project does not have. Wanted: {', '.join(known)}.{suggestion(strange[0], known)}"
            )
        return given

    def departures(self, change: Change) -> list[str]:
        """Which limits a change leaves and by how much, a sentence each; none when it is inside.

        >>> inside = Change("logistic", "all", None, ("age",), {"roc_auc": 0.9})
        >>> ChangePlan(families=("logistic",), floors={"roc_auc": 0.95}).departures(inside)
        ['roc_auc is 0.9, 0.05 below the least of 0.95']
        """
        return [*self._of_kind(change), *self._of_size(change)]

    def _of_kind(self, change: Change) -> Iterator[str]:
        if self.families is not None and change.family not in self.families:
            yield f"the family is {change.family}; allowed are {', '.join(self.families)}"
        if self.windows is not None and change.window not in self.windows:
            yield f"the window is '{change.window}'; allowed are {', '.join(self.windows)}"
        strange = [name for name in change.features if name not in (self.features or change.features)]
        if strange:
            yield f"{len(strange)} of {len(change.features)} columns that it reads are not allowed: {', '.join(strange[:5])}"

    def _of_size(self, change: Change) -> Iterator[str]:
        if self.shortest is not None and change.days is not None and change.days < self.shortest:
            yield _off("the window", change.days, self.shortest, "days")
        for name, bound in self.floors.items():
            value, more = change.measured[name], METRICS[name].greater_is_better
            if not (value >= bound if more else value <= bound):
                yield _off(name, value, bound)
        if self.drift is not None and change.drift is not None and not change.drift <= self.drift:
            yield _off(f"the drift of '{change.drifted}'", change.drift, self.drift)
        if self.retrains is not None and change.retrains >= self.retrains:
            yield _off("the number of models that went live by themselves within 30 days", change.retrains + 1, self.retrains, "with this one")  # fmt: skip


@dataclass(frozen=True)
class Envelope:
    """The plan of a project, and what a challenger changes.

    Attributes:
        plan: None where the project has none, or none that can be read.
        objection: why the plan does not count, a sentence; empty when it is signed by somebody who is trusted.
        change: what the challenger changes; None where nobody looked.
        signed: who signed the plan, and when, a clause.
    """

    plan: ChangePlan | None = None
    objection: str = ""
    change: Change | None = None
    signed: str = ""


def _off(what: str, value: float, bound: float, unit: str = "") -> str:
    side, limit = ("below", "least") if value < bound else ("above", "most")
    return (
        " ".join(f"{what} is {value:.4g} {unit}".split())
        + f", {abs(value - bound):.4g} {side} the {limit} of {bound:.4g}"
    )
