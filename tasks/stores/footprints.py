"""Footprints on disk: taken of a training where it happens, kept in the version's bundle, read back verified.

They lie in the bundle and not beside the run in MLflow, because the journal names the bundle's digest and the bundle's manifest
theirs: nobody can alter what a version is compared with, and nothing clears them away but what removes the version. The run in
MLflow has a copy of the steps to look at.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from tasks.config.errors import ArtifactError
from tasks.config.project import UNDECIDING, Project
from tasks.config.provenance import environment
from tasks.ml import footprint as ml
from tasks.ml import threads
from tasks.ml.features import matrix
from tasks.ml.fitted import Fitted
from tasks.ml.footprint import Facts, Footprint, Step
from tasks.ml.identity import SIZE, as_text
from tasks.ml.recipe import Recipe
from tasks.ml.sealed import SealedParts
from tasks.ml.split import ROW
from tasks.stores import bundles
from tasks.stores.lake import Lake
from tasks.stores.references import Snapshot

STEPS, ROWS, ANSWERS = "footprint.json", "rows.bin", "answers.bin"
VALIDATED = "validated"  # the step of what was said of validation rows before they were learned from
REFIT = "refit"  # the step that says that a model was fitted once more, or why not
HOOKS = "hooks"  # the fact of a configuration that is the SHA-256 of hooks.py, where columns are computed


@dataclass(frozen=True)
class Recorded:
    """What a version left behind.

    Attributes:
        footprint: its steps.
        names: of the rows of its snapshot, (n, 16) bytes.
        answers: what it said on the holdout, flat, in order of the rows; empty before it was judged.
        hooks: the text of hooks.py that its computed columns were made by; empty where the project has none.
    """

    footprint: Footprint
    names: np.ndarray
    answers: np.ndarray
    hooks: str = ""

    @property
    def snapshot(self) -> Snapshot:
        """The rows that it was made of."""
        return Snapshot.model_validate(self.footprint["snapshot"])

    @property
    def recipe(self) -> Recipe | None:
        """How it was made of them; None where this code cannot do that any more."""
        return Recipe.known(self.footprint["recipe"])

    @property
    def refit(self) -> bool:
        """Whether it was fitted once more, on train and validation; versions that say nothing of it were not."""
        return self.footprint.has(REFIT) and "rows" in self.footprint[REFIT]

    @property
    def asked_to_refit(self) -> bool:
        """Whether its project asked for that; versions from before it could were fitted once."""
        return bool(self._search.get("refit", False))

    @property
    def _search(self) -> Facts:
        return self.footprint["configuration"].get("search", {})

    def begun(self, use: Project) -> Iterator[Step]:
        """As `begun`, of making it again: without `search.refit` where it is from before that, as it is made as it was, whatever is said now."""
        for step in begun(use).steps:
            younger = step.name == "configuration" and "refit" not in self._search
            search = {name: value for name, value in step.facts.get("search", {}).items() if name != "refit"}
            yield Step(name=step.name, facts=step.facts | {"search": search}) if younger else step

    def project(self) -> Project:
        """The project as it was then.

        Raises:
            ArtifactError: it says what this code does not know any more.
        """
        then = json.loads(json.dumps(self.footprint["configuration"]))
        then.setdefault("search", {}).update(self.footprint["seed"]["search"])
        then.pop(HOOKS, None)
        try:
            return Project.model_validate(then).with_hooks(self.hooks)
        except ValidationError as error:
            where = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()[:3])
            raise ArtifactError(
                f"The configuration of {then.get('project')} from then does not fit this code: {where}. Check out the commit that its run in MLflow "
                "names (keepfit.code) to make it again as recorded, or leave out --as-recorded."
            ) from error

    def files(self) -> dict[str, bytes]:
        """The same as files of a bundle."""
        files = {STEPS: self.footprint.model_dump_json().encode(), ROWS: self.names.tobytes()}
        files |= {bundles.HOOKS: self.hooks.encode()} if self.hooks else {}
        return files | ({ANSWERS: self.answers.astype("<f8").tobytes()} if len(self.answers) else {})

    def answered(self, names: pd.Series, answers: np.ndarray) -> "Recorded":
        """With what the model said on the holdout."""
        footprint = self.footprint.then("answers", answers_facts(names, answers))
        return replace(self, footprint=footprint, answers=answers.reshape(-1))


def taken(use: Project, snapshot: Snapshot, split: SealedParts, recipe: Recipe, fitted: Fitted, lake: Lake) -> Recorded:
    """The footprint of a training in this process, up to the fitted model."""
    steps = begun(use).then("snapshot", snapshot.model_dump(mode="json"))
    for name, facts in parts_facts(use, split).items():
        steps = steps.then(name, facts)
    steps = steps.then("recipe", recipe.model_dump(mode="json"))
    for name, facts in fitted_facts(use, split, fitted).items():
        steps = steps.then(name, facts)
    hooks = use.computing.source if use.computing else ""
    whole = Footprint.model_validate_json(steps.model_dump_json())
    return Recorded(whole, _sorted(lake.names(snapshot)), np.empty(0), hooks)


def read(folder: Path, digest: str) -> Recorded:
    """The footprint of a bundle, after its bytes have proved to be those that were written.

    Raises:
        ArtifactError: the bundle is missing or altered, or was written before trainings left footprints.
    """
    steps, rows, answers = (bundles.beside(folder, digest, name) for name in (STEPS, ROWS, ANSWERS))
    if steps is None or rows is None:
        raise ArtifactError(
            f"{folder} has no footprint: it was written before trainings left one, so nothing says what it was made of. "
            "Train again; versions from now on can be reproduced."
        )
    manifest = bundles.manifest_of(folder, digest)
    found = Footprint.model_validate_json(steps)
    if not found.has("parameters"):  # of a candidate; the bundle's own digest of them was not known to its footprint
        before = REFIT if found.has(REFIT) else "recipe"
        found = found.after(before, "parameters", {"sha256": manifest["files"][bundles.MODEL]})
    names = np.frombuffer(rows, dtype=np.uint8).reshape(-1, SIZE)
    hooks = bundles.beside(folder, digest, bundles.HOOKS) or b""
    return Recorded(found, names, np.frombuffer(answers or b"", dtype="<f8"), hooks.decode())


# -- the facts of each step -------------------------------------------------------------------------------------------
def begun(use: Project) -> Footprint:
    """What is known before any row is read: environment, configuration, seed, threads."""
    said = use.model_dump(mode="json", exclude=UNDECIDING)
    seed = said["search"].pop("seed")
    said |= {HOOKS: hashlib.sha256(use.computing.source.encode()).hexdigest()} if use.computing else {}
    return (
        Footprint()
        .then("environment", environment())
        .then("configuration", said)
        .then("seed", {"search": {"seed": seed}})
        .then("threads", {"threads": threads.share(1)})
    )


def parts_facts(use: Project, split: SealedParts) -> dict[str, Facts]:
    """Names and content of what is learned from; of the holdout only the names."""
    with split.kept():
        known = {"train": split.train, "validation": split.validation}
        facts = {
            name: {"rows": len(part), "names": ml.listed(part[ROW]), "content": ml.content(_read(use, part))}
            for name, part in known.items()
        }
        return facts | {"holdout": {"rows": len(split.holdout), "names": ml.listed(split.holdout.names)}}


def _read(use: Project, part: pd.DataFrame) -> pd.DataFrame:
    read, target = matrix(part, use.types), use.contract.target
    return read.assign(**{target: use.task.truth(part)}) if target else read


def fitted_facts(use: Project, split: SealedParts, fitted: Fitted) -> dict[str, Facts]:
    """How a model was calibrated, how its answers become decisions, and why it was fitted once only; of one that was fitted once more
    what it said before of the validation rows, and how many it learned from at last."""  # noqa: D205, D209
    operates = {"operates": {"calibration": fitted.calibration, **fitted.operates}}
    if not fitted.refit:
        return operates | {REFIT: {"because": fitted.once}}
    rows = split.validation
    names = pd.Series(use.task.told(matrix(rows, use.types), rows[ROW].to_numpy()))
    return (
        {VALIDATED: answers_facts(names, fitted.said)} | operates | {REFIT: {"rows": fitted.rows, "late": fitted.late}}
    )


def answers_facts(names: pd.Series, answers: np.ndarray) -> Facts:
    """Which rows were asked, and what was said of them."""
    return {"rows": len(names), "names": ml.listed(names), "sha256": ml.answered(answers)}


def _sorted(names: np.ndarray) -> np.ndarray:
    words = np.ascontiguousarray(names).view(">u8").reshape(-1, 2)
    return np.ascontiguousarray(names)[np.lexsort((words[:, 1], words[:, 0]))]


def rows_apart(recorded: Recorded, lake: Lake) -> "ml.Divergence | None":
    """The row in which the snapshot differs from what it was, or None where every row is there.

    Raises:
        ArtifactError: a data file of the snapshot is not there, or cannot be read.
    """
    snapshot = recorded.snapshot
    missing, added = ml.apart(recorded.names, lake.names(snapshot))
    if len(missing) or len(added):
        keys = lake.keys(snapshot, np.concatenate([missing, added]))
        return ml.differing(
            {name: keys[name] for name in as_text(missing)}, {name: keys[name] for name in as_text(added)}, "snapshot"
        )
    damaged = set(lake.landed.verify(lake.landed.files(lake.landed.open(snapshot.version))))
    return altered(recorded, lake, damaged) if damaged else None


def altered(recorded: Recorded, lake: Lake, damaged: set[str]) -> "ml.Divergence":
    """The row whose content is not what its name says, or else the file whose bytes are not what its name says."""
    odd = list(lake.altered(recorded.snapshot))
    if odd:
        return ml.differing({name: key for name, _, key in odd}, {own: key for _, own, key in odd}, "snapshot")
    name = min(damaged, default="unknown")
    return ml.Divergence(
        step="snapshot", kind="file", name=name, recorded=name.removesuffix(".parquet"), found="other bytes",
        cause=f"the data file {name[:12]}… has other bytes than were written; restore it from a back-up",
    )  # fmt: skip
