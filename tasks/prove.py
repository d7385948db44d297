"""Prove: bad challengers are put through the live gates, as a training would put them; each must be stopped, the good model must pass.

It walks the plain functions of the steps `prepare`, `train`, `evaluate` and `gate`, so it stands one layer above them: what is proven
is the code that judges, not a copy of it. Nothing is registered, nothing is released.
"""

import datetime as dt
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.config import plans
from tasks.config.errors import ArtifactError
from tasks.config.names import artifact_key
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.evaluate import Answering, Bundle, behaved, looked_at, on_holdout, on_reference, rehearsing, unlearned
from tasks.gate import made, weighed
from tasks.ml import models, pages
from tasks.ml.challengers import LEAKS, Challenger, Scene, chosen
from tasks.ml.compiled.parity import compiled
from tasks.ml.fitted import Fitted
from tasks.ml.gates import Change, Evidence, Serving, Verdict, configured, judge
from tasks.ml.judging import judging
from tasks.ml.metrics import metrics_of
from tasks.ml.proof import Proof, Put
from tasks.ml.questions import Questions
from tasks.ml.recipe import Recipe
from tasks.ml.sealed import SealedParts
from tasks.ml.trusted import units
from tasks.prepare import describe, examined
from tasks.serving.rehearsal import Heard
from tasks.stores import bundles
from tasks.stores.journal import Journal
from tasks.stores.lake import Lake, snapshot_named, teachable
from tasks.stores.references import Candidate, Snapshot
from tasks.stores.tables import UNREADABLE
from tasks.train import manifest

PASSED = frozenset({"released", "releasing", "registered"})  # states of trainings that every gate passed

Say = Callable[[str], None]


@task(name="put through", cache_policy=NO_CACHE)
def put_through(project: str) -> Proof:
    """Puts every bad challenger and the good model through the gates; may be repeated."""
    settings = Settings()
    return proven(Project.named(project, settings), settings, get_run_logger().info)


@task(name="record", cache_policy=NO_CACHE)
def record(proof: Proof) -> dict[str, Any]:
    """Puts a proof on record, and before the eyes of people."""
    keep(proof, Settings())
    state = "proven" if proof.ok else "NOT PROVEN"
    create_markdown_artifact(
        pages.proof(proof), key=artifact_key(proof.project, "proof"), description=f"**{proof.project}** {state}: {proof.reason[:300]}"
    )  # fmt: skip
    get_run_logger().info("%s: %s", state, proof.reason)
    return proof.told


def keep(proof: Proof, settings: Settings) -> None:
    """Puts a proof of a whole configuration into the journal."""
    Journal(settings.journal()).record_proof(
        project=proof.project, digest=proof.digest, files=settings.declared(proof.project), ok=proof.ok, at=dt.datetime.now(dt.UTC),
        detail=proof.told,
    )  # fmt: skip


def is_proven(project: str) -> bool:
    """Whether the newest proof is of the present configuration, and holds."""
    settings = Settings()
    return Journal(settings.journal()).is_proven(project, Project.named(project, settings).digest)


def proven(use: Project, settings: Settings, say: Say, without: tuple[str, ...] = ()) -> Proof:
    """What the gates of a project make of bad challengers and of a good model.

    Args:
        use: the project.
        settings: where its rows are.
        say: is told each result as it comes.
        without: gates to leave out.
    """
    begun, about = time.monotonic(), Proof(project=use.project, digest=use.digest, without=without)
    subject = Subject.of(use, settings)
    refused = (
        subject.refused
        if subject
        else f"no row of {use.project} has landed yet; drop a file into {settings.inbox(use.project)}"
    )
    if subject is None or refused:
        return about.model_copy(update={"refused": refused})
    bench, gates = Bench.of(subject, settings), tuple(gate.kind for gate in use.gates if gate.kind not in without)
    verdicts = [verdict for verdict in bench.verdicts(Challenger()) if verdict.gate in gates]
    failed = [f"{verdict.gate}: {verdict.reason}" for verdict in verdicts if not verdict.passed]
    recipe = bench.scene.recipe.name
    good = f"{recipe} does not pass: {'; '.join(failed)}" if failed else f"{recipe} passes every gate"
    say(f"the good model, {good}")
    return about.model_copy(update={
        "unasked": tuple(gate for gate in use.task.gates if gate not in gates), "challengers": tuple(_told(bench.puts(gates), say)), "good_passes": not failed, "good": good, "snapshot": subject.snapshot.name,
        "rows": len(subject.rows), "seconds": round(time.monotonic() - begun, 1),
    })  # fmt: skip


def _told(puts: Iterator[Put], say: Say) -> Iterator[Put]:
    """The same, each said as it comes."""
    for put in puts:
        said = f"stopped by {', '.join(put.killed_by)}" if put.ok else f"NOT as it must be: {put.reason}"
        say(f"{put.name}: {said}")
        yield put


@dataclass(frozen=True)
class Subject:
    """What a project is proven on.

    Attributes:
        snapshot: whose rows.
        rows: labelled, without those that were set apart; trusted: those.
        newest: the newest instant of the snapshot, from which it is counted which of them are final.
        split: the same rows, as a training would split them.
        recipe: of the newest challenger that every gate passed; None when there is none.
    """

    use: Project
    snapshot: Snapshot
    rows: pd.DataFrame
    trusted: pd.DataFrame
    newest: pd.Timestamp | None
    split: SealedParts
    recipe: Recipe | None

    @classmethod
    def of(cls, use: Project, settings: Settings) -> "Subject | None":
        """The rows on which a challenger passed last, and how it was made; else the newest rows; None when nothing has landed."""
        lake = Lake(use.project, settings.lake(use.project), use.contract)
        trainings = Journal(settings.journal()).trainings(use.project)
        passed = next((row for row in reversed(trainings) if row["state"] in PASSED and row["rows"]), None)
        recipe = _recipe(use, passed["detail"]) if passed else None
        for name in dict.fromkeys([passed["rows"] if passed and recipe else None, None]):
            try:
                snapshot = snapshot_named(lake, name)
                if snapshot is None:
                    return None
                rows, trusted, last = teachable(use, snapshot, settings.lake(use.project))
            except (ArtifactError, *UNREADABLE):  # rows were erased since, or tidied away: the newest ones do as well
                if name is None:
                    raise
                continue
            return cls.parted(use, snapshot, rows, trusted, recipe, last)
        return None

    @classmethod
    def parted(
        cls, use: Project, snapshot: Snapshot, rows: pd.DataFrame, trusted: pd.DataFrame, recipe: Recipe | None,
        last: pd.Timestamp | None = None,
    ) -> "Subject":  # fmt: skip
        """The newest rows, so that they are of one time; where nothing was set apart yet, some of them are as the first training would."""
        newest, by_time = use.prove.rows, use.split.kind == "time"
        rows = (
            rows.sort_values(use.contract.time, kind="stable").tail(newest)
            if by_time
            else use.split.at_most(rows, newest)
        )
        unit = use.split.unit(use.contract.key)
        if trusted.empty and len(rows):
            mine = use.trusted.chosen(units(rows, unit), use.search.seed)
            rows, trusted = rows[~mine], rows[mine]
        rows = rows.reset_index(drop=True)
        split = _split(use, rows, trusted, last)
        return cls(use, snapshot, rows, trusted, last, split, recipe)

    @property
    def refused(self) -> str:
        """Why nothing can be proven on it, or nothing."""
        found = describe(self.use, self.split).refused
        return (
            f"nothing can be proven on {len(self.rows):,} rows of {self.use.project}: {found}. Land more rows"
            if found
            else ""
        )


def _split(use: Project, rows: pd.DataFrame, trusted: pd.DataFrame, newest: pd.Timestamp | None) -> SealedParts:
    return SealedParts.of(use.split.apply(rows, newest), trusted, use.task, use.contract.target)


def _recipe(use: Project, detail: dict[str, Any]) -> Recipe | None:
    """How a challenger was made, if it still can be."""
    recipe = Recipe.known(detail.get("recipe"))
    if recipe is None:
        return None
    fits = use.kind in models.FAMILIES[recipe.family.kind].fits and {*recipe.features} <= {*use.features}
    return recipe if fits else None


@dataclass(frozen=True)
class Bench:
    """Where challengers are judged.

    Attributes:
        holdout, trusted: what everybody is asked.
        own: the good model; it is the champion, too, where there is one.
        served: how the real serving process bore itself with it, and what it said.
        facts: what else the gates are shown of everybody.
    """

    subject: Subject
    settings: Settings
    scene: Scene
    holdout: Questions
    trusted: Questions | None
    own: Bundle
    served: Heard | None
    facts: dict[str, Any]

    @classmethod
    def of(cls, subject: Subject, settings: Settings) -> "Bench":
        """The bench with a good model of the subject's rows."""
        use, split = subject.use, subject.split
        recipe, first = _good(use, split, subject.recipe)
        good = first.refitted(split) if use.search.refit else first
        scene = Scene(
            kind=use.task, metric=use.goal, contract=use.contract, columns=use.features, split=use.split, slices=use.slices, floor=use.floor, seed=use.search.seed,
            gates=use.gates, tests=bool(use.behaviour(settings)), rows=subject.rows, newest=subject.newest, train=split.train, validation=split.validation, recipe=recipe, good=good, first=first.model,
        )  # fmt: skip
        own = _bundle(use, subject.snapshot, recipe, good, split)
        holdout, trusted = _asked(use, split)
        lake = Lake(use.project, settings.lake(use.project), use.contract)
        facts = {"made": made(lake, subject.snapshot), "envelope": plans.envelope(use, settings)}
        return cls(
            subject, settings, scene, holdout, trusted, own, _served(use, settings, own, holdout, good.operates), facts
        )

    def puts(self, gates: tuple[str, ...]) -> Iterator[Put]:
        """Each bad challenger, put through those gates; a gate judges for itself, so that it does not matter which others are asked."""
        use = self.subject.use
        known = {*use.task.gates, *(gate.kind for gate in use.gates)}
        for each in chosen(self.scene, known):
            yield Put.judged(each.name, each.gate, each.why, self.verdicts(each), (*gates, LEAKS))

    def verdicts(self, challenger: Challenger) -> list[Verdict]:
        """What a training would say of it: leaks in its rows first, then every gate."""
        other = challenger.landed(self.scene)
        if other is None:
            return self._judged(challenger, self.subject.use, self.subject.split, self.holdout, self.trusted)
        rows, columns = other
        contract = self.subject.use.contract
        use = self.subject.use.model_copy(update={"contract": contract.model_copy(update={"columns": contract.columns | columns})})  # fmt: skip
        split = _split(use, rows, self.subject.trusted.reindex(columns=rows.columns), self.subject.newest)
        refused = examined(use, split, describe(use, split)).refused
        if refused:
            return [Verdict(gate=LEAKS, passed=False, reason=refused)]
        return self._judged(challenger, use, split, *_asked(use, split))

    def _judged(
        self, challenger: Challenger, use: Project, split: SealedParts, holdout: Questions, trusted: Questions | None
    ) -> list[Verdict]:
        scene = replace(self.scene, columns=use.features, contract=use.contract)
        fitted = challenger.learned(scene, split.train, split.validation)
        own = (
            self.own
            if fitted is scene.good
            else _bundle(use, self.subject.snapshot, scene.recipe.model_copy(update={"features": ()}), fitted, split)
        )
        champion = Bundle(challenger.manifest(scene, self.own.manifest, holdout), self.own.model, self.own.computing)
        against = champion if challenger.defends else None
        bent = Bent(own, challenger, scene, holdout)
        answers = on_holdout(use, holdout, unlearned(use, split, holdout), bent, against)
        reference = None
        if trusted is not None:
            known = np.ones(len(trusted.rows), dtype=bool)
            reference = on_reference(use, trusted, known, replace(bent, questions=trusted), against)
        evidence = weighed(
            use, answers, reference, looked_at(use, holdout), challenger.operates(scene, fitted.operates)
        )
        evidence = replace(evidence, operated=champion.operates if against else {}, **self.facts)
        tried = behaved(use, self.settings, replace(bent, questions=None), holdout)
        evidence = self._heard(self._planned(replace(evidence, behaved=tried)), own)
        return judge(use.gates, challenger.shown(scene, evidence, self.said))

    def _planned(self, evidence: Evidence) -> Evidence:
        """With what changes, where a plan limits that: the recipe is the good model's."""
        envelope, recipe = evidence.envelope, self.scene.recipe
        if envelope.plan is None:
            return evidence
        known = metrics_of(self.scene.kind.name)
        measured = {str(name): known[name].of(evidence.y, evidence.challenger) for name in envelope.plan.floors}
        change = Change.of(recipe, recipe.columns(self.scene.columns), measured)
        return replace(evidence, envelope=replace(envelope, change=change))

    def _heard(self, evidence: Evidence, own: Bundle) -> Evidence:
        """With what the serving process took, and what it said: of a bad model what that says."""
        if self.served is None:
            return evidence
        heard, decided = evidence.challenger, evidence.kind.decided(evidence.challenger, dict(evidence.operates))
        if own is self.own and np.array_equal(evidence.challenger, self.said):
            heard, decided = self.served.answers, np.array(self.served.decided, dtype=object)
        return replace(evidence, rehearsal=self.served.served, heard=heard, decided=decided)

    @cached_property
    def said(self) -> np.ndarray:
        """What the good model says of the holdout."""
        return self.own.answers(self.subject.use, self.holdout.asked)


@dataclass(frozen=True)
class Bent:
    """A model between what a challenger lets it hear and what it makes of its answers.

    Attributes:
        questions: what it is asked; None: rows that a test of hooks.py altered.
    """

    own: Answering
    challenger: Challenger
    scene: Scene
    questions: Questions | None = None

    @property
    def manifest(self) -> dict[str, Any]:
        """The model's."""
        return self.own.manifest

    def answers(self, use: Project, asked: pd.DataFrame) -> np.ndarray:
        """What the challenger says."""
        said = self.own.answers(use, self.challenger.hears(self.scene, asked))
        if self.questions is None:
            return self.challenger.moved(self.scene, said, asked)
        return self.challenger.says(self.scene, said, self.questions)


def _served(
    use: Project, settings: Settings, own: Bundle, holdout: Questions, operates: dict[str, float]
) -> Heard | None:
    """What the real serving process says of every judged row with the good model, where a gate looks at it."""
    place = settings.home / "candidates" / use.project
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="proof-", dir=place) as folder:
        beside = {bundles.HOOKS: own.computing.source.encode()} if own.computing else {}
        made = compiled(use.task, own.model, own.reads(holdout.asked), operates)
        files = beside | bundles.compiled(made.form, made.graph)
        digest = bundles.write(Path(folder) / "bundle", own.model, own.manifest | made.described(), files)
        candidate = Candidate(run="proof", folder=str(Path(folder) / "bundle"), digest=digest, operates=operates)
        with rehearsing(use, candidate) as stage:
            return None if stage is None else stage.ask(use.task, holdout.asked, configured(use.gates, Serving).seconds)


def _asked(use: Project, split: SealedParts) -> tuple[Questions, Questions | None]:
    """What everybody is asked of the holdout and of the trusted set, where there is one."""
    with judging():
        holdout, trusted = split.holdout.rows, split.trusted.rows
    of = [Questions.of(use.task, use.types, rows, use.search.seed) for rows in (holdout, trusted) if len(rows)]
    return of[0], of[1] if len(of) > 1 else None


def _good(use: Project, split: SealedParts, recipe: Recipe | None) -> tuple[Recipe, Fitted]:
    """A model by the recipe that every gate passed last; without one the best family's defaults, as validation says."""
    recipes = [recipe] if recipe else [Recipe.usual(name) for name in use.search.families]
    made = [
        (each, Fitted.of(each, use.task, use.features, use.contract.time, split, seed=use.search.seed))
        for each in recipes
    ]  # fmt: skip

    def worth(one: tuple[Recipe, Fitted]) -> float:
        return float(use.goal.gain(use.goal.of(one[1].truth, one[1].said), 0.0))

    return max(made, key=worth) if len(made) > 1 else made[0]


def _bundle(use: Project, snapshot: Snapshot, recipe: Recipe, fitted: Fitted, split: SealedParts) -> Bundle:
    """The model as a server would have it, without a file."""
    said = manifest(use, snapshot, recipe, fitted.operates, fitted.calibration, use.split.seen_until(split))
    return Bundle(said, fitted.model, use.computing if "computed" in said else None)
