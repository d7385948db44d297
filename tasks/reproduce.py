"""Reproduce: a registered version is made again from rows, recipe, seed and threads that its footprint names, and compared step by step.

Nothing is registered, the journal is only read, the champion is not touched.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel

from tasks.config.errors import ArtifactError, KeepfitError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.features import matrix
from tasks.ml.fitted import Fitted
from tasks.ml.footprint import Divergence, Footprint, Reproduction, Step, difference, judged, tolerance
from tasks.ml.judging import judging
from tasks.ml.kinds import KINDS
from tasks.ml.split import ROW
from tasks.stores import bundles, footprints
from tasks.stores.footprints import Recorded
from tasks.stores.journal import Journal
from tasks.stores.lake import Lake, parts
from tasks.stores.tables import UNREADABLE


class Version(BaseModel, frozen=True):
    """A version that is to be made again.

    Attributes:
        folder, digest: of its bundle.
        threads: how many it was made with.
        as_recorded: with the configuration of then, else with that of today's project.yaml.
    """

    project: str
    version: int
    folder: str
    digest: str
    threads: int
    as_recorded: bool = False


class Rebuilt(BaseModel, frozen=True):
    """What came of it.

    Attributes:
        footprint: the steps that it got through.
        stopped: why it got no further.
        answers: what the new model says on the holdout, flat; empty when there is none.
    """

    footprint: Footprint
    stopped: Divergence | None = None
    answers: tuple[float, ...] = ()


@task(name="recall", cache_policy=NO_CACHE)
def recall(project: str, version: int, *, as_recorded: bool) -> Version:
    """Finds the version's bundle by the journal, and in it the footprint."""
    return on_record(project, version, Settings(), as_recorded=as_recorded)


def on_record(project: str, version: int, settings: Settings, *, as_recorded: bool = False) -> Version:
    """A registered version that left a footprint.

    Raises:
        KeepfitError: there is no such version, or it left none.
    """
    rows = [row for row in Journal(settings.journal()).trainings(project) if row["version"] is not None]
    known = sorted({row["version"] for row in rows})
    digests = [row["detail"]["digest"] for row in rows if row["version"] == version and "digest" in row["detail"]]
    if not digests:
        listed = ", ".join(map(str, known)) or "none yet"
        raise KeepfitError(f"{project} has no version {version}. Versions on record: {listed}.")
    folder = settings.bundles(project) / str(version)
    recorded = footprints.read(folder, digests[-1])
    return Version(
        project=project, version=version, folder=str(folder), digest=digests[-1], threads=recorded.footprint["threads"]["threads"],
        as_recorded=as_recorded,
    )  # fmt: skip


@task(name="rebuild", cache_policy=NO_CACHE)
def rebuild(asked: Version) -> Rebuilt:
    """Makes it again in a process that has as many threads as were recorded; says each step as it ends. May be repeated."""
    recorded = footprints.read(Path(asked.folder), asked.digest).footprint
    found, stopped = Footprint(), None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / footprints.ANSWERS
        for said in _elsewhere(asked, place):
            if "stopped" in said:
                stopped = Divergence.model_validate(said["stopped"])
                get_run_logger().info("stopped at %s: %s", stopped.step, stopped.kind)
                continue
            step = Step.model_validate(said)
            found = found.then(step.name, step.facts)
            differs = [why for then in recorded.steps if then.name == step.name for why in then.differences(step)]
            get_run_logger().info("%s: %s", step.name, "not as recorded" if differs else "as recorded")
        answers = np.fromfile(place, dtype="<f8") if place.exists() else np.empty(0)
    return Rebuilt(footprint=found, stopped=stopped, answers=tuple(answers.tolist()))


@task(name="judge", cache_policy=NO_CACHE)
def judge(asked: Version, rebuilt: Rebuilt) -> dict[str, Any]:
    """The verdict, and the first step in which the two part."""
    recorded = footprints.read(Path(asked.folder), asked.digest)
    chances = KINDS[
        recorded.footprint["configuration"]["kind"]
    ].has_chances  # not as a project: keys of then may be gone
    found: Reproduction = judged(
        asked.project, asked.version, recorded.footprint, rebuilt.footprint, rebuilt.stopped,
        difference(recorded.answers, np.array(rebuilt.answers)), tolerance(recorded.answers, has_chances=chances),
    )  # fmt: skip
    get_run_logger().info("version %s of %s: %s", asked.version, asked.project, found.verdict)
    return found.model_dump(mode="json")


# -- in a process of its own ------------------------------------------------------------------------------------------
def _elsewhere(asked: Version, place: Path) -> Iterator[dict[str, Any]]:
    """What `again` says in a process with the recorded number of threads.

    Raises:
        KeepfitError: it failed; its last lines stand in the log.
    """
    command = [sys.executable, "-c", "import sys; from tasks.reproduce import again; again(*sys.argv[1:])"]
    # Prefect's variables would make its logs those of this task run
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    environment |= {"OMP_NUM_THREADS": str(asked.threads)}
    arguments = [asked.model_dump_json(), str(place)]
    with subprocess.Popen([*command, *arguments], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                yield json.loads(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise KeepfitError(
            f"Making version {asked.version} of {asked.project} again failed (exit code {process.returncode}); the last lines above say "
            "with what. If the configuration has changed since, say --as-recorded."
        )


def again(asked: str, place: str) -> None:
    """Makes a version again and prints each step as JSON, then puts the answers on the holdout into a file.

    Args:
        asked: a `Version` as JSON.
        place: the file.
    """
    version, said = Version.model_validate_json(asked), sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # a hooks.py may print
        for step in remade(version, Path(place), Settings()):
            told = step.model_dump(mode="json")
            said.write(json.dumps({"stopped": told} if isinstance(step, Divergence) else told) + "\n")
            said.flush()


def remade(asked: Version, place: Path, settings: Settings) -> Iterator[Step | Divergence]:
    """Each step as it ends; a divergence, when it cannot go on, is the last."""
    recorded = footprints.read(Path(asked.folder), asked.digest)
    use = recorded.project() if asked.as_recorded else Project.named(asked.project, settings)
    yield from recorded.begun(use)
    root = settings.lake(asked.project)
    lake, snapshot = Lake(asked.project, root, use.contract), recorded.snapshot
    try:
        apart = footprints.rows_apart(recorded, lake)
        if apart is None:
            split = parts(use, snapshot, root)
            read = footprints.parts_facts(use, split)  # reads the holdout, too
    except (ArtifactError, *UNREADABLE) as error:
        apart = _unreadable(recorded, error)
    if apart is not None:
        yield apart
        return
    yield Step(name="snapshot", facts=snapshot.model_dump(mode="json"))
    if forged := _forged(recorded, read, lake):
        yield forged
        return
    yield from (Step(name=name, facts=facts) for name, facts in read.items())
    recipe, seed = recorded.recipe, use.search.seed
    if recipe is None:
        yield _forgotten(recorded)
        return
    yield Step(name="recipe", facts=recipe.model_dump(mode="json"))
    fitted = Fitted.of(recipe, use.task, use.features, use.contract.time, split, seed=seed)
    if recorded.asked_to_refit:
        fitted = fitted.refitted(split)
    yield from (Step(name=name, facts=facts) for name, facts in footprints.fitted_facts(use, split, fitted).items())
    yield Step(name="parameters", facts={"sha256": bundles.parameters(fitted.model)})
    with judging():
        holdout = split.holdout.rows
    features = matrix(holdout, use.types)
    questions, _ = use.task.asked(features, use.task.truth(holdout), seed)
    answers = use.task.answers(fitted.model, questions[list(recipe.columns(use.features))])
    names = pd.Series(use.task.told(features, holdout[ROW].to_numpy()))
    yield Step(name="answers", facts=footprints.answers_facts(names, answers))
    place.write_bytes(np.ascontiguousarray(answers, dtype="<f8").tobytes())


def _unreadable(recorded: Recorded, error: Exception) -> Divergence:
    """Why the rows of the snapshot cannot be read any more."""
    text = " ".join(str(error).split())
    kind = "erased" if "rows were erased" in text else "removed" if "was removed on" in text else "damaged"
    name = recorded.snapshot.name
    return Divergence(step="snapshot", kind=kind, name=name, recorded=name, found="cannot be read", cause=text)


def _forgotten(recorded: Recorded) -> Divergence:
    """A recipe of a family, a parameter or a window that this code does not know any more."""
    recipe = recorded.footprint["recipe"]
    name = str(recipe.get("family", {}).get("kind", "unknown"))
    cause = (
        f"this code does not know the recipe of then any more ({name}); check out the commit that its run in MLflow names (keepfit.code) to "
        "make it again"
    )
    return Divergence(step="recipe", kind="code", name=name, recorded=recipe, found="not known", cause=cause)


def _forged(recorded: Recorded, read: dict[str, dict[str, Any]], lake: Lake) -> Divergence | None:
    """The row whose content is another one though it and its data file bear the recorded names, or None."""
    names, content = (
        [recorded.footprint[part][what] == read[part][what] for part in ("train", "validation")]
        for what in ("names", "content")
    )
    odd = next(lake.altered(recorded.snapshot), None) if all(names) and not all(content) else None
    return footprints.altered(recorded, lake, set()) if odd else None
