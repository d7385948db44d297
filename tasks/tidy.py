"""Tidy: the logs of the door go into the lake, small data files become few, and what nothing needs any more leaves disk and journal."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pandas as pd

from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.identity import digest
from tasks.stores import durable, remembered
from tasks.stores.changes import Change, Edit, Kind, Workplace, utc
from tasks.stores.compaction import KINDS, compact, crowded
from tasks.stores.gathering import forget, gather
from tasks.stores.journal import made_nothing, predecessor, resting
from tasks.stores.lake import OUTCOMES, ROWS, TRUSTED, named
from tasks.stores.served import Serving
from tasks.stores.shadows import Shadows


class Tidying(Workplace):
    """Compaction and retention of one project's tables."""

    def __init__(self, use: Project, settings: Settings, clock: Callable[[], dt.datetime] = utc) -> None:
        super().__init__(use, settings)
        self.use, self._settings, self._clock = use, settings, clock
        self._serving = Serving(use.project, settings)
        self._shadows = Shadows(settings.home)

    def tidy(self, keep_days: float, *, dry_run: bool = False) -> dict[str, Any]:
        """Removes what is older than `keep_days` and needed by no model, and compacts small data files.

        Kept is what the newest version of a table has, what any version had in the last `keep_days`, and every snapshot
        that a registered version was trained on, with the trusted set that judged it. Before that predictions and outcomes
        by id go from the logs into their tables; a log that is wholly there is removed `keep_days` after its day, and so are
        a shadow log that no rollout reads any more, and a look of the watch that the next ones do not read. Of what watches compare
        with stays what they need of the champion and of the versions that may take its place; of another one they make it anew.

        Returns:
            {"gathered": records by log, "logs": those removed, "compacted": small files by table, "removed": files by table, "bytes", "kept_for": names of snapshots,
            "looks": how many were removed, "remembered": folders of the watch that were, "reason"}.
        """
        with self.alone():
            now = self._clock()
            gathered, logs = ({}, []) if dry_run else gather(self, self._serving, now, keep_days)
            logs += [] if dry_run else self._forget(now, keep_days)
            looks = self.journal.forget_watches(
                self.project, now - dt.timedelta(days=keep_days), self.use.watch.looks, dry_run=dry_run
            )
            folders = remembered.unneeded(self._settings, self.project, self._answering())
            for folder in [] if dry_run else folders:
                durable.remove(folder)
            trainings = [row for row in self.journal.trainings(self.project) if not made_nothing(row)]
            kept_for = sorted({row["rows"] or "" for row in trainings})
            removed = {kind: self._unneeded(kind, now - dt.timedelta(days=keep_days), trainings) for kind in KINDS}
            size = sum(self.lake.table(kind).sizes(names) for kind, names in removed.items())
            compacted: dict[str, int] = {kind: len(files) for kind, files in crowded(self.lake, 2).items()}
            if not dry_run:
                if any(removed.values()):
                    self._remove(removed, now, keep_days)
                compact(self, now)
            counts = {kind: len(names) for kind, names in removed.items() if names}
            would = "would be " if dry_run else ""
            watch = (
                f"; {looks} looks and {len(folders)} folders of the watch {would}removed" if looks or folders else ""
            )
            return {
                "project": self.project, "state": "planned" if dry_run else "tidy", "gathered": gathered, "logs": logs, "compacted": compacted, "removed": counts, "bytes": size,
                "kept_for": kept_for, "looks": looks, "remembered": [folder.name for folder in folders],
                "reason": f"{sum(compacted.values())} small files {would}compacted, {sum(counts.values())} files that nothing needs {would}removed ({size:,} bytes){watch}",
            }  # fmt: skip

    def _forget(self, now: dt.datetime, keep_days: float) -> list[str]:
        """Removes old shadow logs, up to what the rollout that goes on compares, or a probation that rests; gives their names."""
        rollouts, champion = self.journal.rollouts(self.project), self.journal.champion(self.project)
        rests = resting(rollouts, champion.generation) if champion else None
        began = [dt.datetime.fromisoformat(each.began) for each in rollouts if each.is_open or each is rests]
        needed = min(began, default=None)
        return forget(self._shadows, self.project, now, keep_days, needed)

    def _answering(self) -> set[int]:
        """The champion, and the versions that a rollout or a rollback may put in its place."""
        releases, rollout = self.journal.releases(self.project), self.journal.rollout(self.project)
        before = predecessor(releases) if releases else None
        found = {release.version for release in (*releases[-1:], *([before] if before else []))}
        return found | ({rollout.version, rollout.against} if rollout else set())

    def _unneeded(self, kind: Kind, since: dt.datetime, trainings: list[dict[str, Any]]) -> list[str]:
        """The stored data files of a table that no version needs which must stay readable."""
        table = self.lake.table(kind)
        newest = table.open()
        if newest is None or not all(row["rows"] for row in trainings):  # an older keepfit did not say what it needs
            return []
        dates = {version.number: pd.Timestamp(version.at) for version in self.lake.versions(kind)}
        current = max((number for number, at in dates.items() if at <= since), default=0)
        first = min(current, *(number for number, at in dates.items() if at > since), newest.version())
        read = {_read(kind, row) for row in trainings}
        needed = set(dates) if kind == TRUSTED and None in read else {number for number in read if number is not None}
        files = {file.path for number in needed if number < first for file in table.files(table.open(number))}
        files |= table.since(first)
        return [name for name in table.stored() if name not in files]

    def _remove(self, removed: dict[Kind, list[str]], at: dt.datetime, keep_days: float) -> None:
        why = {
            "keepfit.why": "tidy",
            "keepfit.reason": f"it was older than {keep_days:g} days and no model was trained on it (`keepfit data tidy`)",
        }
        edits = tuple(Edit(table=kind, delete=tuple(names)) for kind, names in removed.items() if names)
        self.do(Change(
            project=self.project, id=f"tidy {digest([edit.delete for edit in edits])}", at=at, why=why, contract=self.contract, edits=edits,
        ))  # fmt: skip


def _read(kind: Kind, training: dict[str, Any]) -> int | None:
    """The version of a table that a training read; None where it read none, or is so old that it does not say."""
    rows, outcomes, _, _ = named(training["rows"])
    return {ROWS: rows, OUTCOMES: outcomes, TRUSTED: training["trusted"]}.get(kind)
