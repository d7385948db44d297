"""Question: what a target asks: of which kind the problem is, and what its values are called, with the reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute

from tasks.config.errors import KeepfitError, suggestion
from tasks.ml.kinds import FEWEST_OF_A_CLASS, Name
from tasks.ml.personal import personal
from tasks.ml.seen import CATEGORIES, Seen, read_as

CLASSES = 20  # so many different values are classes at most, unless somebody says so
OFTEN = 10  # whole numbers are classes where each comes so often on average
FEWEST = 5 * FEWEST_OF_A_CLASS  # rows of a class of which the newest fifth is meant to hold enough to judge by
DERIVE = (
    "Add a column that says yes or no (as 'more than 100', 'is of class A') to the file and name it, or derive it in hooks.py as "
    "deployments/flights and deployments/thyroid do"
)
pc: Any = pyarrow.compute  # its functions are made when it is imported, so no type checker knows them


@dataclass(frozen=True)
class Question:
    """What is predicted.

    Attributes:
        kind: of the problem.
        target: the column as the kind reads it; None where there is none.
        positive: binary: the value that is predicted.
        labels: how a person calls the classes: negative and positive, or all of them.
        share: binary: of the positive class among the rows with a target.
        notes: remarks by key of the project file.
    """

    kind: Name
    target: Seen | None = None
    positive: str | bool | int | None = None
    labels: tuple[str, ...] = ()
    share: float = 0.5
    notes: Mapping[str, str] = field(default_factory=dict)


def question(target: str | None, known: Mapping[str, Seen], left_out: Mapping[str, str], kind: str | None) -> Question:
    """What a target asks: the kind that is wanted, else the one that its values have.

    Args:
        target: the column's name; None where nobody knows the truth.
        known: columns by name.
        left_out: columns that cannot be used, with the reason.
        kind: what somebody said with --kind, if anything.

    Raises:
        KeepfitError: there is no such kind, or the target cannot have it.
    """
    if kind is not None and kind not in ASKED:
        raise KeepfitError(
            f"--kind is '{kind}'. Wanted, for a project that is drafted from a file: {', '.join(ASKED)}.{suggestion(kind, ASKED)}"
        )
    if target is not None and target in left_out:
        raise KeepfitError(f"--target is '{target}', which cannot be used ({left_out[target]}). Give another column.")
    if target is None:
        if kind != "anomaly":
            raise KeepfitError(
                "No target is given. Say --target COLUMN, the column to predict; or --kind anomaly, where nobody knows what is odd."
            )
        return Question(
            "anomaly", notes={"kind": "nobody knows the truth, so rows are found that are unlike the others"}
        )
    seen = known[target]
    if what := personal(target, seen.raw):
        raise KeepfitError(
            f"--target is '{target}', which looks like {what}: personal data is not stored. Give another column."
        )
    if kind is not None:
        return _noted(ASKED[kind](seen), "given")
    return _noted(*_by_values(seen))


def _noted(asked: Question, reason: str) -> Question:
    return replace(asked, notes={"kind": reason, **asked.notes})


def _by_values(seen: Seen) -> tuple[Question, str]:
    """The question whose kind follows from the values, and why it does."""
    values, rows, whole = seen.different, int(seen.counts.sum()), _whole(seen).type == "int"
    if seen.type == "datetime":
        raise KeepfitError(f"--target is '{seen.name}', which holds times. Give a column with numbers or classes.")
    _two_at_least(seen)
    name = seen.name
    if values == 2:
        kind, reason = "binary", f"{name} has two values"
    elif seen.type in {"text", "category"} and values <= CLASSES:
        kind, reason = "multiclass", f"{name} has {values} different values"
    elif whole and values <= CLASSES and rows >= OFTEN * values:
        kind, reason = (
            "multiclass",
            f"{name} has only {values} different whole numbers; --kind regression takes them as numbers",
        )
    elif seen.type in {"int", "float"}:
        kind, reason = "regression", f"{name} has {values:,} different {'whole ' if whole else ''}numbers"
    else:
        raise KeepfitError(
            f"--target is '{name}', which has {values:,} different values ({_shares(seen)}): too many to tell apart. {DERIVE}; up to "
            f"{CATEGORIES} classes can be had with --kind multiclass."
        )
    return ASKED[kind](seen), reason


def _whole(seen: Seen) -> Seen:
    """Whole numbers as such, also where gaps had made fractions of them: 1.0 is 1."""
    if seen.type != "float":
        return seen
    whole = read_as("int", seen.name, seen.raw, ".")
    return whole if whole.values.null_count == seen.values.null_count else seen


def _two_at_least(seen: Seen) -> None:
    if seen.different == 1:
        raise KeepfitError(
            f"--target is '{seen.name}', which holds only {seen.texts[0]!r} in the rows read: there is nothing to tell apart. "
            "Give rows of both classes."
        )


# -- one function a kind ----------------------------------------------------------------------------------------------
def _binary(seen: Seen) -> Question:
    """Yes or no: true against false, 1 against -1, else the rarer of the two values is predicted."""
    _two_at_least(seen)
    seen = _whole(seen)
    if seen.different != 2:
        what = "numbers" if seen.type in {"int", "float"} and seen.different > 10 else "values"
        raise KeepfitError(
            f"--target is '{seen.name}', which has {seen.different:,} different {what} ({_shares(seen)}); kind 'binary' has two. {DERIVE}; "
            "or leave --kind away."
        )
    common, rare = seen.texts
    if seen.type == "bool" or ({common, rare} == {"0", "1"} and seen.type == "int"):
        goal = read_as("bool", seen.name, seen.raw, ".")
        share = pc.mean(goal.values).as_py()
        return Question("binary", goal, True, ("no", "yes"), share, {"positive": f"{share:.1%} of the rows read"})
    if seen.type == "float":
        raise KeepfitError(
            f"--target is '{seen.name}', whose two values are the numbers {common} and {rare}. A positive class is a whole number, "
            "a text, or true: write the column so, or derive one in hooks.py (deployments/thyroid/hooks.py shows how); or say "
            "--kind regression."
        )
    if seen.type == "datetime":
        raise KeepfitError(f"--target is '{seen.name}', which holds times. Give a column with two classes.")
    signs = seen.type == "int" and {common, rare} == {"-1", "1"}
    positive, negative = ("1", "-1") if signs else (rare, common)
    share = float((seen.counts[0] if positive == common else seen.counts[1]) / seen.counts.sum())
    goal = seen if seen.type == "int" else read_as("category", seen.name, seen.raw, ".")
    value = int(positive) if seen.type == "int" else positive
    told = {"positive": f"{share:.1%} of the rows read, and so the rarer one"}
    return Question("binary", goal, value, (negative, positive), share, told)


def _multiclass(seen: Seen) -> Question:
    """One of several: a closed list of categories, so that what is none of them is met at the door."""
    _two_at_least(seen)
    goal, read = read_as("category", seen.name, seen.raw, "."), _whole(seen).type
    if read in {"float", "datetime"} or not 3 <= goal.different <= CATEGORIES:
        met = {"float": "holds fractions", "datetime": "holds times"}.get(
            read, f"has {goal.different:,} different values"
        )
        raise KeepfitError(
            f"--target is '{seen.name}', which {met}; kind 'multiclass' tells 3 to {CATEGORIES} classes apart. Give another column, or "
            "leave --kind away."
        )
    rare = [f"{text!r} {count:,}" for text, count in zip(goal.texts, goal.counts, strict=True) if count < FEWEST]
    told = f"rare classes, hard to learn and to judge (rows read): {', '.join(rare[-8:])}" if rare else ""
    return Question("multiclass", goal, labels=tuple(sorted(goal.texts)), notes={"target": told} if told else {})


def _regression(seen: Seen) -> Question:
    """How much: a number."""
    _two_at_least(seen)
    if seen.type not in {"int", "float"}:
        raise KeepfitError(
            f"--target is '{seen.name}', which holds no numbers ({_shares(seen)}); kind 'regression' predicts one. Give another column, or "
            "leave --kind away."
        )
    return Question("regression", seen)


def _anomaly(seen: Seen) -> Question:
    """Which rows are odd: a target that is known of some is kept, and not learned from."""
    return Question("anomaly", seen, notes={"target": "kept, and not learned from; nobody needs to know it"})


ASKED: dict[str, Callable[[Seen], Question]] = {
    "binary": _binary, "multiclass": _multiclass, "regression": _regression, "anomaly": _anomaly,
}  # fmt: skip


def _shares(seen: Seen) -> str:
    """The four most frequent values with their shares."""
    total = seen.counts.sum()
    shares = [f"{text!r} {count / total:.0%}" for text, count in zip(seen.texts[:4], seen.counts, strict=False)]
    return ", ".join(shares) + (", …" if seen.different > 4 else "")
