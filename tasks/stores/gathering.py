"""Gathering: what the door has logged goes into the lake's tables, each line exactly once, whatever is killed meanwhile.

The commit that brings the rows of a log says how many of its bytes the table has then. So there is no second book that could say otherwise.
The shadow log has no table: what it says counts while a rollout compares two models, and becomes old.
"""

import datetime as dt
from pathlib import Path

from tasks.ml.identity import digest
from tasks.stores import durable
from tasks.stores.changes import Change, Edit, Workplace
from tasks.stores.predictions import Days
from tasks.stores.served import Served, Serving, blocks, mark, name_of, parsed
from tasks.stores.staging import Stage

KINDS: tuple[Served, ...] = ("predictions", "told")
GRACE = dt.timedelta(hours=1)  # after its day, in which a request that began before midnight may still be logged


def gather(place: Workplace, serving: Serving, at: dt.datetime, keep_days: float) -> tuple[dict[str, int], list[str]]:
    """Brings whatever the logs have beyond the tables into them, and removes the logs that are wholly there and old enough.

    The caller is alone. At most two data files of rows are in the memory at once.

    Returns:
        Records by log, and the names of the logs that were removed.
    """
    edits = [edit for kind in KINDS if (edit := _edit(place, serving, kind, at))]
    _do(place, edits, at)
    counts = {str(edit.table): sum(file.rows for file in edit.add) for edit in edits}
    spent = {kind: paths for kind in KINDS if (paths := _spent(place, serving, kind, at, keep_days))}
    removed = [_removed(path) for paths in spent.values() for path in paths]
    # where the clock goes back a log of such a day is made anew, and is read from its beginning (faults: S-10)
    _do(place, [Edit(table=kind, marks={name_of(kind, path): 0 for path in paths}) for kind, paths in spent.items()], at)  # fmt: skip
    return counts, removed


def _do(place: Workplace, edits: list[Edit], at: dt.datetime) -> None:
    if edits:
        name = digest([edit.marks for edit in edits])
        place.do(Change(
            project=place.project, id=f"gather {name} {at.isoformat()}", at=at, why={"keepfit.why": "gather", "keepfit.name": "the logs of the door"},
            contract=place.contract, edits=tuple(edits), staging=str(place.staging),
        ))  # fmt: skip


def forget(shadows: Days, project: str, at: dt.datetime, keep_days: float, needed: dt.datetime | None) -> list[str]:
    """Removes the shadow logs that are old enough; gives their names.

    Args:
        shadows: the shadow log.
        project: whose.
        at: now.
        keep_days: for how long after its day a log stays.
        needed: since when a rollout still reads them; None where none goes on.
    """
    until = at - dt.timedelta(days=keep_days)
    old = [path for path in shadows.files(project) if _is_closed(path, at) and _is_closed(path, until)]
    return [_removed(path) for path in old if needed is None or dt.date.fromisoformat(path.stem) < needed.date()]


def _edit(place: Workplace, serving: Serving, kind: Served, at: dt.datetime) -> Edit | None:
    """What the logs of a kind bring to its table."""
    opened, marks = place.lake.table(kind).open(), dict[str, int]()
    stage = Stage(place.staging, place.lake.table(kind).time)
    try:
        for path in serving.logs[kind].files(place.project):
            begin = end = mark(kind, path, opened)
            for lines, reached in blocks(path, begin):
                stage.add(parsed(kind, lines))
                end = reached
            if _is_closed(path, at):  # what stands behind the last line break is torn for good
                end = path.stat().st_size
            if end != begin:
                marks[name_of(kind, path)] = end
        add = tuple(stage.close())
    except BaseException:
        stage.abandon()
        raise
    return Edit(table=kind, add=add, marks=marks) if marks else None


def _spent(place: Workplace, serving: Serving, kind: Served, at: dt.datetime, keep_days: float) -> list[Path]:
    """The logs that are wholly in the table, and old enough."""
    opened, until = place.lake.table(kind).open(), at - dt.timedelta(days=keep_days)
    return [
        path for path in serving.logs[kind].files(place.project)
        if _is_closed(path, at) and _is_closed(path, until) and mark(kind, path, opened) == path.stat().st_size
    ]  # fmt: skip


def _removed(path: Path) -> str:
    durable.remove(path)
    return f"{path.parents[1].name}/{path.name}"


def _is_closed(path: Path, at: dt.datetime) -> bool:
    """Whether nobody writes to it any more."""
    day = dt.datetime.combine(dt.date.fromisoformat(path.stem), dt.time(), dt.UTC)
    return at >= day + dt.timedelta(days=1) + GRACE
