"""Footprints: what a training went through, step by step, and what came out of each; two of them say where they part.

Context: a version must be made again years later, and where that fails somebody must be told which row, package, seed or line
of code it was. Choice: each step leaves facts (numbers, names, digests), in an order in which causes come before what follows
from them; the first step with another fact is the cause. Rows are told apart by their 16-byte names, which are kept beside the
model. Price: 16 bytes a row and some 15 kB a version; hashes do not compress.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel

from tasks.ml.identity import SIZE, digest

Facts = dict[str, Any]
TOLERANCE = 1e-6  # the largest difference of two answers that still counts as the same number in other digits
TOLD = ("environment", ("commit",))  # is told and not compared: the code's files say what it would
OUTCOMES = frozenset({"validated", "operates", "refit", "parameters", "answers"})  # steps in which nothing goes in
NOTHING = "nothing"
SHOWN = 5  # differences of a step that are told


class Divergence(BaseModel, frozen=True):
    """Where two trainings part.

    Attributes:
        step: of the training.
        kind: package, python, machine, blas, lock, code, configuration, seed, threads, row, file, erased, …: what it is.
        name: which one: the package, the file, the key of the configuration, the row's key.
        recorded, found: what it was, what it is.
        cause: the same in one sentence.
    """

    step: str
    kind: str
    name: str
    recorded: Any
    found: Any
    cause: str


class Step(BaseModel, frozen=True):
    """One step of a training with what came out of it."""

    name: str
    facts: Facts

    @property
    def digest(self) -> str:
        """SHA-256 over its facts."""
        return digest(self.facts)

    def differences(self, found: "Step") -> Iterator[Divergence]:
        """Every fact that is another one there, in the order in which it was recorded."""
        old, new = dict(_flat(self.facts)), dict(_flat(found.facts))
        for path in dict.fromkeys((*old, *new)):
            here, there = old.get(path, NOTHING), new.get(path, NOTHING)
            if (self.name, path) != TOLD and here != there:
                yield _told(self.name, path, here, there)


class Footprint(BaseModel, frozen=True):
    """The steps of one training in their order."""

    steps: tuple[Step, ...] = ()

    def then(self, name: str, facts: Facts) -> Self:
        """With one more step."""
        return self.model_copy(update={"steps": (*self.steps, Step(name=name, facts=facts))})

    def after(self, before: str, name: str, facts: Facts) -> Self:
        """With one more step right after another."""
        at = [step.name for step in self.steps].index(before) + 1
        return self.model_copy(update={"steps": (*self.steps[:at], Step(name=name, facts=facts), *self.steps[at:])})

    def has(self, name: str) -> bool:
        """Whether it went through that step."""
        return any(step.name == name for step in self.steps)

    def __getitem__(self, name: str) -> Facts:
        """The facts of a step."""
        return next(step.facts for step in self.steps if step.name == name)

    def parts_from(self, found: "Footprint") -> list[tuple[str, list[Divergence]]]:
        """For each recorded step that was found, too, how the two differ; a step that was not found is left out."""
        there = {step.name: step for step in found.steps}
        return [
            (step.name, list(step.differences(there[step.name]))) for step in self.steps if step.name in there
        ]  # fmt: skip


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf of nested facts with the way to it; an empty object or list is a leaf."""
    nested = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    inside = [leaf for name, each in nested for leaf in _flat(each, (*path, str(name)))]
    yield from inside or [(path, value)]


def _told(step: str, path: tuple[str, ...], recorded: Any, found: Any) -> Divergence:
    """What a fact that differs means to a person."""
    kinds = {
        "packages": "package",
        "python": "python",
        "machine": "machine",
        "blas": "blas",
        "lock": "lock",
        "code": "code",
    }
    kind = kinds.get(path[0], path[0]) if step == "environment" else step
    name = ".".join(path[1:] or path if kind in {"package", "code"} else path)
    was = {"package": "package {0}: {1} is recorded, {2} is installed", "code": "code: {0} is another file than then"}
    text = was.get(kind, "{3}: {0} was {1}, is {2}")
    cause = text.format(name, _short(recorded), _short(found), kind)
    return Divergence(step=step, kind=kind, name=name, recorded=recorded, found=found, cause=cause)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


# -- facts ------------------------------------------------------------------------------------------------------------
def content(frame: pd.DataFrame) -> str:
    """SHA-256 over every value of a frame, row by row in its order, with the columns' names.

    >>> frame = pd.DataFrame({"a": [1.0, 2.0]})
    >>> content(frame) == content(frame.copy()), content(frame) == content(frame[::-1])
    (True, False)
    """
    total = hashlib.sha256("\x1f".join(frame.columns).encode())
    total.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())  # ty: ignore[not-callable]
    return total.hexdigest()


def listed(names: pd.Series) -> str:
    """SHA-256 over the names of rows in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def answered(answers: np.ndarray) -> str:
    """SHA-256 over answers, bit for bit."""
    return hashlib.sha256(np.ascontiguousarray(answers, dtype="<f8").tobytes()).hexdigest()


# -- rows -------------------------------------------------------------------------------------------------------------
def apart(recorded: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The names, (n, 16) bytes each, that only the first has, and those that only the second has.

    >>> missing, added = apart(np.zeros((2, 16), np.uint8), np.ones((1, 16), np.uint8))
    >>> len(missing), len(added)
    (1, 1)
    """
    old, new = (np.unique(np.ascontiguousarray(names).view(f"V{SIZE}").reshape(-1)) for names in (recorded, found))
    missing, added = (
        each.view(np.uint8).reshape(-1, SIZE) for each in (np.setdiff1d(old, new), np.setdiff1d(new, old))
    )
    return missing, added


def differing(missing: dict[str, str], added: dict[str, str], step: str) -> Divergence:
    """Which row it is: changed (the same key with another content), missing, or added; where there are more, the first.

    Args:
        missing: recorded rows that are not there: what is known of their keys by their names, empty where nothing is.
        added: rows that are there and were not recorded, likewise.
        step: where that was found.
    """
    by_key = {key: name for name, key in added.items() if key}
    changed = {name: by_key[key] for name, key in missing.items() if key in by_key}
    left, came = missing.keys() - changed.keys(), added.keys() - set(changed.values())
    if not changed and len(left) == len(came) == 1 and not missing[next(iter(left))]:
        changed, left, came = {left.pop(): came.pop()}, set(), set()  # nothing else can have become of it
    counts = {"changed": len(changed), "missing": len(left), "added": len(came)}
    what = next(word for word, count in counts.items() if count)
    old = {"changed": sorted(changed), "missing": sorted(left), "added": [NOTHING]}[what][0]
    new = {"changed": changed.get(old, ""), "missing": NOTHING, "added": min(came, default="")}[what]
    key = missing.get(old) or added.get(new) or f"named {old if what != 'added' else new}"
    was = {"changed": "was changed since", "missing": "is missing", "added": "was not there then"}[what]
    others = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    more = f" (in all: {others})" if sum(counts.values()) > 1 else ""
    return Divergence(
        step=step, kind="row", name=key, recorded=old, found=new, cause=f"row {key} {was}{more}"
    )  # fmt: skip


# -- the verdict ------------------------------------------------------------------------------------------------------
def difference(recorded: np.ndarray, found: np.ndarray) -> float | None:
    """The largest difference of two answers to one question; None when they do not answer the same questions.

    >>> difference(np.array([0.1, 0.2]), np.array([0.1, 0.25]))
    0.04999999999999999
    """
    if recorded.size != found.size or not recorded.size:
        return None
    return float(np.max(np.abs(recorded.reshape(-1) - found.reshape(-1))))


def tolerance(recorded: np.ndarray, *, has_chances: bool) -> float:
    """How much two answers may differ to count as the same number: a millionth, of the answers' span where they are no probabilities."""
    span = 1.0 if has_chances or not recorded.size else float(np.ptp(recorded))
    return TOLERANCE * span


class Reproduction(BaseModel, frozen=True):
    """What came of making a version again.

    Attributes:
        verdict: EXACT: the same parameters, bit for bit. NUMERIC: other digits, and no answer on the holdout differs by more
            than `tolerance`. DIFFERENT: anything else, or it could not be made again.
        difference: the largest of two answers on the holdout; None where they were not asked the same.
        diverges: the first step that is not as it was recorded, whatever the verdict; where the training could not be made
            again, what stopped it.
        steps: for each recorded step whether it came out the same (None: it was not reached), and what is different.
    """

    project: str
    version: int
    verdict: Literal["EXACT", "NUMERIC", "DIFFERENT"]
    difference: float | None
    tolerance: float
    diverges: Divergence | None
    steps: tuple[dict[str, Any], ...]
    reason: str


def judged(
    project: str, version: int, recorded: Footprint, found: Footprint, stopped: Divergence | None, distance: float | None, most: float
) -> Reproduction:  # fmt: skip
    """The verdict on two footprints.

    Args:
        project: whose.
        version: which.
        recorded: the footprint of the version.
        found: that of the rebuild, as far as it got.
        stopped: what ended it before its time.
        distance: the largest difference of two answers on the holdout.
        most: how large it may be.
    """
    apart, there = dict(recorded.parts_from(found)), {step.name: step.digest[:12] for step in found.steps}
    if stopped:
        apart[stopped.step] = [stopped]
    firsts = [apart[step.name][0] for step in recorded.steps if apart.get(step.name)]
    exact = found.has("parameters") and not apart["parameters"]
    near = distance is not None and distance <= most and not stopped
    verdict = "EXACT" if exact else "NUMERIC" if near else "DIFFERENT"
    steps = tuple(
        {
            "step": step.name, "same": None if step.name not in apart else not apart[step.name],
            "recorded": step.digest[:12], "found": there.get(step.name),
            "differences": [each.cause for each in apart.get(step.name, ())][:SHOWN], "more": max(0, len(apart.get(step.name, ())) - SHOWN),
        }
        for step in recorded.steps
    )  # fmt: skip
    return Reproduction(
        project=project, version=version, verdict=verdict, difference=distance, tolerance=most, diverges=stopped or next(iter(firsts), None),
        steps=steps, reason=_reason(verdict, firsts, stopped, distance, most, recorded),
    )  # fmt: skip


def _reason(
    verdict: str, firsts: list[Divergence], stopped: Divergence | None, distance: float | None, most: float, recorded: Footprint
) -> str:  # fmt: skip
    """The verdict in words: what came out, then what was not as recorded, in the order of the steps."""
    if stopped:
        others = [each.cause for each in firsts if each != stopped]
        return f"it cannot be made again, stopped at {stopped.step}: {stopped.cause}{'; also ' if others else ''}{'; '.join(others)}"
    inputs = [each.cause for each in firsts if each.step not in OUTCOMES]
    moved = "" if distance is None else f"the largest difference of two answers on the holdout is {distance:.3g}"
    said = {
        "EXACT": "the same parameters, bit for bit",
        "NUMERIC": f"the parameters are not the same to the bit; {moved}, at most {most:.3g} counts as the same",
        "DIFFERENT": "another model" + (f"; {moved}" if moved else ""),
    }[verdict]
    if inputs:
        return f"{said}; not as recorded: {'; '.join(inputs)}"
    if verdict == "EXACT":
        return said
    used = recorded["threads"]["threads"]
    why = (
        f"with {used} threads sums may end in another order; train with OMP_NUM_THREADS=1 to have it bit for bit"
        if used > 1
        else "the fit itself does not repeat: something in it draws or adds up in an order that no seed sets"
    )
    return f"{said}, though all that went in is as recorded: {why}"
