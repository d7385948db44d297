"""Infer: a sample of rows becomes the draft of a contract, with a reason beside every choice."""

import datetime as dt
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from tasks.config.errors import KeepfitError, suggestion
from tasks.ml.contract import NO_ZONE, Column, Contract
from tasks.ml.identity import key_hashes, row_ids
from tasks.ml.kinds import KINDS, Name
from tasks.ml.models import RARE
from tasks.ml.personal import personal
from tasks.ml.question import Question, question
from tasks.ml.seen import CATEGORIES, ENOUGH, ID, MOST, Seen, look, number_stamp
from tasks.ml.surrogate import Derived

DENSE = 0.8  # share of all pairs of time and number that a table of both has
CLOSED, SEEN = 20, 10  # a list of categories is closed with so many at most, each seen so often in either half
BORN = re.compile(r"(?:^|_)(?:dob|birth\w*|born|date_of_birth)(?:_|$)")
pc: Any = pyarrow.compute  # its functions are made when it is imported, so no type checker knows them


@dataclass(frozen=True)
class Draft:
    """A contract with the reasons for it.

    Attributes:
        contract: what a row may be, wider than what was seen.
        question: of which kind the problem is, and what the target's values are called.
        left_out: columns of the file that the contract does not have, each with the reason.
        notes: remarks by key of the project file (kind, key, time, target, positive, hold_above, …); remarks: by column.
        derived: what `hooks.py` must add.
        rows: how many rows were looked at; broken: how many of them break the contract.
    """

    contract: Contract
    question: Question
    left_out: dict[str, str]
    notes: dict[str, str]
    remarks: dict[str, str]
    derived: Derived
    rows: int
    broken: int


def infer(
    sample: pa.Table,
    target: str | None,
    *,
    now: dt.datetime,
    time: str | None = None,
    key: tuple[str, ...] = (),
    decimal: str = ".",
    kind: str | None = None,
) -> Draft:
    """The draft of a contract under which the sample's rows may land.

    Args:
        sample: raw rows: columns of a CSV file as text, of other files as they are typed.
        target: the column to predict; None where nobody knows the truth.
        now: the moment, with its time zone: rows from the future name no time column.
        time: the column that says when a row happened; by default the only one with times.
        key: the columns that name a row; by default found, or drawn from the content.
        decimal: what stands before the decimals of numbers that are written as text.
        kind: of the problem; by default what the target's values say.

    Raises:
        KeepfitError: a named column is not there or cannot have its role, or nothing is left to learn from.

    >>> rows = pa.table({"id": ["7", "8", "9"], "at": ["2020-01-01", "2020-01-02", "2020-01-03"],
    ...     "age": ["31", "47", None], "left": ["no", "yes", "no"]})
    >>> draft = infer(rows, "left", now=dt.datetime(2020, 2, 1, tzinfo=dt.UTC))
    >>> draft.question.kind, draft.contract.key, draft.contract.time, draft.contract.features
    ('binary', ('id',), 'at', ('age',))
    """
    _named(sample, target, time, key)
    looks = {name: look(name, sample[name], decimal) for name in sample.column_names}
    known = {name: column for name, column in looks.items() if isinstance(column, Seen)}
    left_out = {name: reason for name, reason in looks.items() if isinstance(reason, str)}
    private = {name: what for name, column in known.items() if name != target and (what := personal(name, column.raw))}
    asked = question(target, known, left_out, kind)
    notes = dict(asked.notes)
    clock = _time(time, known, left_out, private, target, now, notes)
    names = _key(key, known, left_out, private, target, clock, notes)
    roles = {name for name in (target, *names, clock) if name}
    left_out |= _left_out(known, private, roles, asked, left_out)
    features = [name for name in sample.column_names if name in known and name not in roles and name not in left_out]
    if not features:
        raise KeepfitError(
            f"No column is left to learn from. {_listed(left_out)} Add columns to the file, or derive some in hooks.py."
        )
    return _draft(sample, known, asked, clock, names, features, left_out, notes, now, decimal)


def _named(sample: pa.Table, target: str | None, time: str | None, key: tuple[str, ...]) -> None:
    """Raises unless every named column is there once, and each has one role."""
    names = sample.column_names
    for role, name in [("target", target), ("time", time), *(("key", part) for part in key)]:
        if name is not None and name not in names:
            raise KeepfitError(
                f"--{role} is '{name}', which is no column of the file. Columns: {', '.join(names)}.{suggestion(name, names)}"
            )
    if target is not None and target in {time, *key}:
        raise KeepfitError(f"'{target}' is the target, and so cannot be time or key too. Give another column.")
    if len(set(key)) != len(key):
        raise KeepfitError(f"--key names a column twice: {', '.join(key)}. Name each once.")


# -- roles ------------------------------------------------------------------------------------------------------------
def _time(
    given: str | None, known: Mapping[str, Seen], left_out: dict[str, str], private: Mapping[str, str], target: str | None,
    now: dt.datetime, notes: dict[str, str],
) -> str | None:  # fmt: skip
    """The column that says when a row happened, or None when there is none."""
    if given is not None:
        if given in left_out:
            raise KeepfitError(
                f"--time is '{given}', which cannot be used ({left_out[given]}). Give another column, or none."
            )
        return _given_time(known, given, notes)
    possible = [
        column.name for column in known.values()
        if column.type == "datetime" and column.name not in {target, *private} and not BORN.search(column.called)
        and column.values.null_count <= (1 - MOST) * column.rows and column.different > 1
        and pc.max(column.values).as_py() <= now + dt.timedelta(days=1)
    ]  # fmt: skip
    if len(possible) > 1:
        raise KeepfitError(
            f"More than one column may say when a row happened: {', '.join(possible)}. Name it with --time, for example "
            f"--time {possible[0]}: the one that was known first, when the prediction is asked for."
        )
    if possible:
        return _given_time(known, possible[0], notes)
    return None


def _given_time(known: Mapping[str, Seen], name: str, notes: dict[str, str]) -> str:
    """The same name, when its values can be read as times."""
    seen = known[name]
    if seen.type != "datetime" and number_stamp(seen) is None:
        times = [column.name for column in known.values() if column.type == "datetime"]
        raise KeepfitError(
            f"--time is '{name}', whose values are no times ({', '.join(map(repr, seen.texts[:2]))}). Wanted: ISO 8601 as "
            f"2024-05-31 or 2024-05-31T10:00:00Z, or numbers that grow. Columns with times: {', '.join(times) or 'none'}. "
            "Without --time, and none in the file, rows are split at random instead."
        )
    if seen.different == 1:
        raise KeepfitError(
            f"--time is '{name}', which is the same in all rows: nothing is newer than anything. Give another column, or none."
        )
    if seen.empty:
        notes["time"] = f"empty in {seen.empty / seen.rows:.1%} of the rows read: those go to quarantine"
    return name


def _key(
    given: tuple[str, ...], known: Mapping[str, Seen], left_out: Mapping[str, str], private: Mapping[str, str], target: str | None,
    clock: str | None, notes: dict[str, str],
) -> tuple[str, ...]:  # fmt: skip
    """The columns that name a row; nothing when none do."""
    if given:
        return _given_key(given, known, left_out, private, notes)
    free = [column for column in known.values() if column.name not in {target, clock, *private}]
    single = sorted((column for column in free if column.is_name), key=lambda column: not ID.search(column.called))
    if single:
        notes["key"] = f"different in all {single[0].rows:,} rows read"
        return (single[0].name,)
    found = _combination(free, known[clock] if clock else None)
    if found:
        together = "different in" if len(found) == 1 else "together different in"
        notes["key"] = (
            f"{together} all {len(known[found[0]].codes):,} rows read; columns of the key are not learned from"
        )
    else:
        notes["key"] = "no column names a row: hooks.py draws it from the row's content"
    return found


def _given_key(
    given: tuple[str, ...], known: Mapping[str, Seen], left_out: Mapping[str, str], private: Mapping[str, str], notes: dict[str, str]
) -> tuple[str, ...]:  # fmt: skip
    for name in given:
        if name in left_out:
            raise KeepfitError(
                f"--key is '{name}', which cannot be used ({left_out[name]}). Give another column, or leave --key away."
            )
        if name in private:
            raise KeepfitError(
                f"--key is '{name}', which looks like {private[name]}: personal data is not stored. Give another column, or leave "
                "--key away: then a name is drawn from the row's content."
            )
    rows = known[given[0]].rows
    empty = sum(known[name].empty for name in given)
    different = len(pd.DataFrame({name: known[name].codes for name in given}).drop_duplicates())
    if different < rows * 0.8:
        raise KeepfitError(
            f"--key is {', '.join(given)}, which names only {different:,} of {rows:,} rows apart. A key names each row once: add the "
            f"columns that tell its rows apart, for example --key {','.join(given)},{_next_best(given, known)}, or leave --key away."
        )
    doubt = f"; {rows - different:,} repeat one: with other values they go to quarantine" if different < rows else ""
    notes["key"] = f"given; different in {different:,} of {rows:,} rows read{doubt}" + (
        f"; {empty:,} empty" if empty else ""
    )
    return given


def _next_best(given: tuple[str, ...], known: Mapping[str, Seen]) -> str:
    """The column that tells most of the key's rows apart."""
    base = {name: known[name].codes for name in given}
    others = [column for column in known.values() if column.name not in given and column.type != "float"]
    return max(
        others, key=lambda column: len(pd.DataFrame({**base, column.name: column.codes}).drop_duplicates()), default=known[given[0]]
    ).name  # fmt: skip


def _combination(free: list[Seen], clock: Seen | None) -> tuple[str, ...]:
    """The fewest columns that name every row: at least one of them called like a name, or a time that comes again and again.

    Other columns may be different together by accident: a second customer of the same age in the same town would then
    be refused.
    """
    whole = [
        column for column in free
        if column.values.null_count == 0 and not column.is_constant and not column.is_counter and column.type != "float"
    ]  # fmt: skip
    named = sorted((column for column in whole if ID.search(column.called)), key=lambda column: -column.different)[:6]
    times = [clock] if clock and clock.values.null_count == 0 else []
    panel = [time for time in times if time.different * 2 <= time.rows]
    others = [column for column in whole if column.type in {"int", "text", "category"} and column not in named]
    others = sorted(others, key=lambda column: -column.different)[:8]
    for size in (1, 2, 3):
        for chosen in itertools.combinations([*times, *named, *others], size):
            reach = np.prod([float(column.different) for column in chosen])
            surely = any(column in named for column in chosen) or (size == 1 and _is_regular(chosen[0]))
            dense = reach * DENSE <= chosen[0].rows or all(column.type != "int" for column in chosen)
            if reach >= chosen[0].rows and (surely or (dense and any(column in panel for column in chosen))):
                codes = pd.DataFrame({column.name: column.codes for column in chosen})
                if not codes.duplicated().any():
                    return tuple(column.name for column in chosen)
    return ()


def _is_regular(seen: Seen) -> bool:
    """Whether these are times at one distance, as of a measurement every hour."""
    if seen.type != "datetime" or seen.rows < 3:
        return False
    steps = np.diff(np.sort(seen.values.to_numpy().astype("int64")))
    return bool((steps == np.median(steps)).mean() >= 0.9)


# -- what is left out -------------------------------------------------------------------------------------------------
def _left_out(
    known: Mapping[str, Seen], private: Mapping[str, str], roles: set[str], asked: Question, before: Mapping[str, str]
) -> dict[str, str]:
    """The columns that are not learned from, each with the reason."""
    reasons = {
        name: f"looks like {private[name]}: personal data" if name in private else _reason(column, asked)
        for name, column in known.items()
        if name not in roles and name not in before
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _reason(seen: Seen, asked: Question) -> str | None:
    if seen.is_counter:
        return "numbers the lines of its file"
    if seen.type == "datetime":
        return "a time: derive numbers from it in hooks.py, as days since"
    if seen.is_constant:
        return f"always {seen.texts[0]!r}"
    if seen.is_name and seen.rows >= 20:
        return "names rows, and so teaches nothing"
    if seen.type in {"text", "category"} and _is_free_text(seen):
        return f"{seen.different:,} different texts in {seen.rows:,} rows: too few of each to learn from"
    if asked.labels and asked.target and seen.rows >= 50 and _says_the_same(seen, asked.target):
        return f"says what {asked.target.name} says, in every row: a leak"
    return None


def _is_free_text(seen: Seen) -> bool:
    """Whether hardly any of its values comes often enough to be learned."""
    filled = seen.counts.sum()
    if seen.different > 20 and seen.different > filled / 2:
        return True
    return seen.counts[seen.counts >= RARE * filled].sum() < 0.05 * filled


def _says_the_same(seen: Seen, goal: Seen) -> bool:
    """Whether each value goes with one class, and each class with one value."""
    if seen.different != goal.different or seen.values.null_count:
        return False
    pairs = pd.DataFrame({"seen": seen.codes, "goal": goal.codes}).drop_duplicates()
    return len(pairs) == pairs["goal"].nunique() == goal.different


# -- the contract -----------------------------------------------------------------------------------------------------
def _draft(
    sample: pa.Table, known: Mapping[str, Seen], asked: Question, clock: str | None, key: tuple[str, ...], features: list[str],
    left_out: dict[str, str], notes: dict[str, str], now: dt.datetime, decimal: str,
) -> Draft:  # fmt: skip
    goal = asked.target
    derived = _derived(known, goal, clock, key, features, left_out, decimal, notes, set(sample.column_names))
    time, remarks = clock or derived.time or "", dict[str, str]()
    columns = {name: _role(known[name]) for name in key} if key else {str(derived.key): Column(type="text")}
    columns[time] = _moment(known[clock], derived, remarks) if clock else Column(type="datetime")
    if goal:
        columns[goal.name] = _goal_column(goal, asked.kind)
        if asked.kind == "multiclass":
            remarks[goal.name] = "the classes: what is none of them goes to quarantine"
    for name in features:
        columns[name], remark = _feature(known[name])
        if remark:
            remarks[name] = remark
    contract = Contract(columns=columns, key=key or (str(derived.key),), time=time, target=goal.name if goal else None)
    if goal and goal.empty and not columns[goal.name].nullable:
        gaps = f"empty in {goal.empty / goal.rows:.1%} of the rows read: those go to quarantine"
        notes["target"] = "; ".join([gaps, *([notes["target"]] if "target" in notes else [])])
    contract, broken = _held_later(contract, sample, derived, now, decimal, notes)
    return Draft(contract, asked, left_out, notes, remarks, derived, sample.num_rows, broken)


def _derived(
    known: Mapping[str, Seen], goal: Seen | None, clock: str | None, key: tuple[str, ...], features: list[str], left_out: Mapping[str, str],
    decimal: str, notes: dict[str, str], taken: set[str],
) -> Derived:  # fmt: skip
    """What the file does not bring. Left-out columns count in a row's content too, else two people are one row."""
    stamp = (
        (known[clock].stamp or (None if known[clock].type == "datetime" else number_stamp(known[clock])))
        if clock
        else None
    )
    if not clock:
        notes["time"] = "the file has no time: hooks.py draws one from the row's " + ("key" if key else "content")
    telling = [
        name
        for name, reason in left_out.items()
        if name in known and not known[name].is_counter and not reason.startswith("always")
    ]
    named = [name for name in (clock, goal.name if goal else None) if name]
    content = [*key] if key else [*named, *features, *telling]
    types: dict[str, str] = {name: "datetime" if name == clock else known[name].type for name in content} | (
        {} if key or not goal else {goal.name: goal.type}
    )
    return Derived(
        key=None if key else _unused("row_key", taken), time=None if clock else _unused("row_time", taken), stamp=stamp,
        stamped=clock or "", content={} if key and clock else types, decimal=decimal,
    )  # fmt: skip


def _unused(name: str, taken: set[str]) -> str:
    return next(
        word for word in itertools.chain([name], (f"{name}_{n}" for n in itertools.count(2))) if word not in taken
    )


def _role(seen: Seen) -> Column:
    """A column of the key: any value of its type."""
    return Column(
        type="text" if seen.type == "category" else seen.type, timezone="UTC" if seen.type == "datetime" else None
    )


def _moment(seen: Seen, derived: Derived, remarks: dict[str, str]) -> Column:
    """The time column. Without an offset a clock reads differently elsewhere: that must be said, not guessed in silence."""
    if derived.stamp and derived.stamp.unit:
        return Column(type="datetime", timezone="UTC")
    if not derived.stamp and _has_zone(seen.raw):
        return Column(type="datetime")
    remarks[seen.name] = "without an offset: correct the zone if these are not UTC"
    return Column(type="datetime", timezone="UTC")


def _has_zone(raw: pa.ChunkedArray) -> bool:
    """Whether every time says its distance from UTC by itself."""
    if pa.types.is_timestamp(raw.type):
        return raw.type.tz is not None
    read = [Column(type="datetime", nullable=True).check(chunk)[1] for chunk in raw.chunks]
    dated = pa.types.is_date(raw.type) or pc.all(pc.equal(pc.binary_length(raw.cast(pa.string())), 10)).as_py()
    return not dated and not any(NO_ZONE in faults for faults in read)


def _goal_column(goal: Seen, kind: Name) -> Column:
    """The target: of numbers the range is wider than what was seen; where nobody needs to know it, it may be empty."""
    nullable = not KINDS[kind].needs_labels
    low, high = (
        widened(goal.values.drop_null().to_numpy(), whole=goal.type == "int") if kind == "regression" else (None, None)
    )
    categories = tuple(sorted(goal.texts)) if goal.type == "category" and not nullable else None
    return Column(type=goal.type, nullable=nullable, min=low, max=high, categories=categories)


def _feature(seen: Seen) -> tuple[Column, str]:
    """A column to learn from, wider than what was seen, and a remark."""
    nullable = seen.empty > 0
    junk = f"some values are no {seen.type} ({', '.join(map(repr, seen.junk))}): to quarantine" if seen.junk else ""
    if seen.type == "bool":
        return Column(type="bool", nullable=nullable), junk
    if seen.type in {"int", "float"}:
        if (
            seen.type == "int"
            and seen.different == 2
            and seen.rows >= ENOUGH
            and seen.texts in (["0", "1"], ["1", "0"])
        ):
            return Column(type="bool", nullable=nullable), junk
        low, high = widened(seen.values.drop_null().to_numpy(), whole=seen.type == "int")
        return Column(type=seen.type, nullable=nullable, min=low, max=high), junk
    closed = seen.type == "category" and _is_settled(seen)
    categories = tuple(sorted(seen.texts)) if closed else None
    many = f"{seen.different:,} different texts; the rare ones count as one" if seen.different > CATEGORIES else ""
    return Column(type=seen.type, nullable=nullable, categories=categories), many


def _is_settled(seen: Seen) -> bool:
    """Whether the same few categories stand in both halves of the rows, each often: a new one would be an error."""
    if seen.different > CLOSED:
        return False
    halves = np.array_split(seen.codes, 2)
    return all((np.bincount(half[half >= 0], minlength=seen.different) >= SEEN).all() for half in halves)


def widened(values: np.ndarray, *, whole: bool = False) -> tuple[float | None, float | None]:
    """The smallest and the largest value to allow, further out than what was seen; None where no bound is sensible.

    The range grows by its own width on both sides, to a round number; numbers that were never negative stay so. A side
    with a long tail (further from the median than ten times the distance of the quartiles) gets no bound: the next
    batch holds a larger one.

    >>> widened(np.arange(18.0, 91.0))
    (0.0, 170.0)
    >>> widened(np.array([-5.0, 0.0, 5.0, 10.0]))
    (-20.0, 30.0)
    >>> widened(np.array([1.0, 2.0, 2.5, 3.0, 4000.0]))
    (0.0, None)
    >>> widened(np.array([980.0, 1000.0, 1010.0, 1040.0]))
    (920.0, 1100.0)
    """
    low, high = float(values.min()), float(values.max())
    first, middle, third = (float(quantile) for quantile in np.quantile(values, [0.25, 0.5, 0.75]))
    tail, width = 10 * (third - first), high - low
    if not np.isfinite(width) or width == 0:
        return (0.0 if low >= 0 else None), None
    step = 10.0 ** np.floor(np.log10(width))
    step = max(step, 1.0) if whole else step
    least: float | None = float(_round(np.floor((low - width) / step) * step, step))
    most: float | None = float(_round(np.ceil((high + width) / step) * step, step))
    if low >= 0:
        least = max(0.0, least if least is not None else 0.0)
    elif middle - low > tail:
        least = None
    if high <= 0:
        most = min(0.0, most if most is not None else 0.0)
    elif high - middle > tail:
        most = None
    return least, most


def _round(value: float, step: float) -> float:
    """Without the dust of binary fractions: 0.30000000000000004 is 0.3."""
    return round(value, max(0, -int(np.floor(np.log10(step)))))


def _held_later(
    contract: Contract, sample: pa.Table, derived: Derived, now: dt.datetime, decimal: str, notes: dict[str, str]
) -> tuple[Contract, int]:
    """The contract with limits that let a batch like the sample land, and how many rows of the sample break it."""
    rows = raw_rows(sample, derived)
    checked = contract.check(rows, now, decimal)
    places = np.array(["", *(rule.column for rule in checked.rules)], dtype=object)[checked.broken]
    ids, hashes = row_ids(checked.rows), key_hashes(checked.rows, contract.key)
    contents, keys = len(np.unique(ids, axis=0)), len(np.unique(hashes))
    if derived.key and contents < len(ids):
        notes["key"] += f"; {len(ids) - contents:,} of {len(ids):,} rows repeat another one exactly: they land once"
    bad = float((checked.broken > 0).mean()) + (contents - keys) / len(ids)
    of_target = float((places == contract.target).mean())
    if bad > 0.9:
        worst = pd.Series(places[checked.broken > 0]).mode()
        raise KeepfitError(
            f"{bad:.0%} of the rows read could not land, most for '{worst[0] if len(worst) else contract.key[0]}'. "
            "Clean that column, or name others with --key, --time, --target."
        )
    limits = {}
    for name, share in (("hold_above", bad), ("hold_bad_target", of_target)):
        usual = getattr(contract, name)
        if share > usual / 2:
            limits[name] = min(1.0, math.ceil(share * 2 * 20) / 20)
            notes[name] = f"{share:.1%} of the rows read break the contract" + (
                " by their target" if name != "hold_above" else ""
            )
    return contract.model_copy(update=limits), int((checked.broken > 0).sum())


def raw_rows(sample: pa.Table, derived: Derived) -> pa.Table:
    """The sample with what `hooks.py` will add."""
    return pa.Table.from_pandas(derived.apply(sample.to_pandas()), preserve_index=False) if derived else sample


def _listed(reasons: Mapping[str, str]) -> str:
    return " ".join(f"'{name}': {reason}." for name, reason in list(reasons.items())[:5])
