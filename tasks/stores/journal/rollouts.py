"""Rollouts: how each challenger came to answer, and what spoke for or against it. They decide nobody champion; releases do."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tasks.config.errors import ConflictError
from tasks.stores import durable
from tasks.stores.journal import intents
from tasks.stores.journal.database import Database
from tasks.stores.journal.tables import OPEN, ROLLOUTS


@dataclass(frozen=True)
class Rollout:
    """One challenger on its way, beside the champion that it is to follow or has followed.

    Attributes:
        version, digest: the challenger, and its bundle.
        against, against_digest: the champion before it, and its bundle.
        plan: as configured when it began.
        actor, reason, proposal: of whoever asked for the release.
        generation: of the release that it became; None before.
        began, since: when it began, when its phase did.
        phase: shadow, canary, probation; passed, undone (brought back by evidence or by hand), overtaken (by another release, or a change of the project).
        revision: counts its changes; whoever moves it names the one that they saw.
        scores: whether the model that does not answer scores.
        looked: when the evidence was looked at last.
        evidence: what the tests say.
        said: why it is where it is.
    """

    project: str
    version: int
    digest: str
    against: int
    against_digest: str
    plan: Mapping[str, Any]
    actor: str
    reason: str
    began: str
    phase: str
    since: str
    proposal: int | None = None
    generation: int | None = None
    revision: int = 0
    scores: bool = True
    looked: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""
    id: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        return self.phase in OPEN


def resting(rollouts: Sequence[Rollout], generation: int) -> Rollout | None:
    """The probation of a release, of all rollouts of its project, while it rests because another one began instead; None where none does."""
    mine = [each for each in rollouts if each.generation == generation]
    rests = mine and mine[-1].phase == "overtaken" and rollouts[-1] is not mine[-1]
    return mine[-1] if rests else None


def approved(rollout: Rollout) -> str:
    """Who decided about a version that is in its shadow or canary, for whoever wants to decide once more."""
    return (
        f"version {rollout.version} was approved by {rollout.actor} on {rollout.began[:19]} and is in its {rollout.phase}; "
        f"`keepfit rollout {rollout.project} --stop` takes it out"
    )


class Rollouts(Database):
    """What is on record of rollouts."""

    def begin_rollout(self, rollout: Rollout, *, instead: Rollout | None = None, intent: int | None = None) -> Rollout:
        """Records that a rollout begins; a project has one at a time.

        One transaction overtakes the rollout that it begins `instead` of, as it was seen, and undoes the intent of the release that comes
        after it.

        Raises:
            ConflictError: another one goes on, or somebody moved the other one or undid the intent in between; nothing was changed.
        """
        durable.step("begin rollout")
        try:
            with self._write() as connection:
                if instead is not None:
                    said = f"version {rollout.version} is in its {rollout.phase} now"
                    move(connection, instead, {"phase": "overtaken", "since": rollout.began, "said": said, "scores": False})  # fmt: skip
                if intent is not None:
                    intents.undo(connection, intent, f"it goes through the {rollout.phase} first")
                done = connection.execute(ROLLOUTS.insert().values(**_row(rollout)))
                return replace(rollout, id=int((done.inserted_primary_key or (0,))[0]))
        except IntegrityError as error:
            raise ConflictError(
                f"{rollout.project}: another rollout goes on; `keepfit rollout {rollout.project}` shows it. Nothing was changed: wait for its end."
            ) from error

    def move_rollout(self, seen: Rollout, **changes: Any) -> Rollout:
        """Records what changed, if nobody has changed it since it was `seen`.

        Raises:
            ConflictError: somebody has; nothing was changed.
        """
        durable.step(f"rollout {changes.get('phase', seen.phase)}")
        with self._write() as connection:
            return move(connection, seen, changes)

    def rollout(self, project: str) -> Rollout | None:
        """The one that goes on, or None."""
        with self.engine.connect() as connection:
            row = connection.execute(_open(project)).mappings().first()
        return _rollout(row) if row else None

    def open_rollouts(self) -> dict[str, Rollout]:
        """The one that goes on of every project that has one."""
        query = sa.select(ROLLOUTS).where(ROLLOUTS.c.phase.in_(OPEN))
        with self.engine.connect() as connection:
            return {row["project"]: _rollout(row) for row in connection.execute(query).mappings()}

    def rollouts(self, project: str) -> list[Rollout]:
        """Every rollout of a project, oldest first."""
        query = sa.select(ROLLOUTS).where(ROLLOUTS.c.project == project).order_by(ROLLOUTS.c.id)
        with self.engine.connect() as connection:
            return [_rollout(row) for row in connection.execute(query).mappings()]


def move(connection: sa.Connection, seen: Rollout, changes: Mapping[str, Any]) -> Rollout:
    """As `Rollouts.move_rollout`, inside of a transaction."""
    moved = replace(seen, **changes, revision=seen.revision + 1)
    mine = ROLLOUTS.update().where(ROLLOUTS.c.id == seen.id, ROLLOUTS.c.revision == seen.revision)
    if connection.execute(mine.values(**_row(moved))).rowcount != 1:
        raise ConflictError(
            f"{seen.project}: the rollout of version {seen.version} was moved in between. Nothing was changed; look again."
        )
    return moved


def _open(project: str) -> sa.Select[Any]:
    return sa.select(ROLLOUTS).where(ROLLOUTS.c.project == project, ROLLOUTS.c.phase.in_(OPEN))


def _row(rollout: Rollout) -> dict[str, Any]:
    row = {name: value for name, value in asdict(rollout).items() if name != "id"}
    return row | {name: json.dumps(row[name]) for name in ("plan", "evidence")}


def _rollout(row: sa.RowMapping) -> Rollout:
    fields: dict[str, Any] = {**row, **{name: json.loads(row[name]) for name in ("plan", "evidence")}}
    return Rollout(**fields)
