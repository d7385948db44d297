"""Trust: sets rows apart to judge by, once, in a table of their own; a person may renew the set."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.split import matured
from tasks.ml.trusted import units
from tasks.stores import durable
from tasks.stores.changes import Change, Edit, Workplace, utc
from tasks.stores.lake import ROW, TRUSTED, Lake
from tasks.stores.references import Snapshot
from tasks.stores.staging import Stage

WHY = "trust"


class Trust(Workplace):
    """The trusted reference set of one project."""

    def __init__(self, use: Project, settings: Settings, clock: Callable[[], dt.datetime] = utc) -> None:
        super().__init__(use, settings)
        self.use, self._clock = use, clock

    def ready(self, snapshot: Snapshot, actor: str) -> Snapshot:
        """The snapshot with the newest trusted set; the first snapshot that is large enough gives the set."""
        if self.use.trusted.share and not self.lake.trusted.files(self.lake.trusted.open()):
            self.set_apart(snapshot, actor, "the first training")
        opened = self.lake.trusted.open()
        there = opened is not None and bool(self.lake.trusted.files(opened))
        return snapshot.model_copy(update={"trusted": opened.version() if opened and there else None})

    def set_apart(self, snapshot: Snapshot, actor: str, reason: str, *, renew: bool = False) -> dict[str, Any]:
        """Sets a share of a snapshot's final, labelled rows apart, in place of what was set apart before.

        Args:
            snapshot: where the rows are taken from.
            actor: who wants it.
            reason: why.
            renew: whether an earlier set gives way; else it stays, and nothing is done.

        Returns:
            {"state": set apart | unchanged | refused, "rows", "version", "reason"}.
        """
        with self.alone():
            before = self.lake.trusted.files(self.lake.trusted.open())
            if before and not renew:
                return self._told("unchanged", sum(file.rows for file in before), "a set stands already")
            table = pa.concat_tables(list(self.lake.content(snapshot)), promote_options="permissive")
            table = table.filter(pa.array(self._chosen(table)))
            if objection := self._objection(table):
                return self._told("refused", len(table), objection)
            at, stage = self._clock(), Stage(self.staging, self.lake.trusted.time)
            stage.add(table)
            chosen = tuple(stage.close())
            if {file.path for file in chosen} == {file.path for file in before}:
                durable.remove(self.staging)
                return self._told(
                    "unchanged", len(table), f"the set that stands is these rows of {snapshot.name} already"
                )
            self.do(Change(
                project=self.project, id=f"{WHY} {snapshot.digest[:16]} {at.isoformat()}", at=at, contract=self.contract, staging=str(self.staging),
                edits=(Edit(table=TRUSTED, add=chosen, remove=tuple(before)),),
                why={"keepfit.why": WHY, "keepfit.name": reason, "keepfit.actor": actor, "keepfit.snapshot": snapshot.name},
            ))  # fmt: skip
            return self._told(
                "set apart", len(table), f"{len(table):,} rows of {snapshot.name} judge from now on: {reason}"
            )

    def _chosen(self, table: pa.Table) -> np.ndarray:
        """Which rows are set apart: (n,) bool. Only those whose label is final."""
        rows, use = self.lake.frame(table), self.use
        labelled = rows[use.labelled(rows)].reset_index(drop=True)
        final, _ = matured(labelled, use.split.column, use.split.matures, use.split.newest(rows))
        unit = use.split.unit(use.contract.key)
        is_final = pc.is_in(pa.array(rows[ROW]), value_set=pa.array(final[ROW]))  # ty: ignore[missing-attribute]
        known = rows[list(unit)].notna().all(axis=1).to_numpy() & is_final.to_numpy(zero_copy_only=False)
        return use.trusted.chosen(units(rows, unit), use.search.seed) & known

    def _objection(self, table: pa.Table) -> str:
        """Why these rows cannot judge, or nothing."""
        if len(table) < self.use.trusted.fewest:
            return f"too few rows: {len(table)} of them, {self.use.trusted.fewest} are needed (trusted.fewest)"
        return self.use.task.unlearnable(self.use.task.truth(self.lake.frame(table)), TRUSTED)

    def _told(self, state: str, rows: int, reason: str) -> dict[str, Any]:
        return {
            "project": self.project,
            "state": state,
            "rows": rows,
            "version": self.lake.trusted.newest,
            "reason": reason,
        }


def set_at(lake: Lake, version: int | None) -> int | None:
    """The version of the table `trusted` by which its rows had been chosen at a version; what came after only took rows away."""
    chosen = (found.number for found in lake.versions(TRUSTED) if found.why.get("keepfit.why") == WHY)
    return None if version is None else next((number for number in chosen if number <= version), None)
