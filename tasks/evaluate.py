"""Evaluate: challenger, champion and naive baselines on the same holdout and trusted set, read here and nowhere before.

The serving process is asked about the holdout here, too: nobody else may read it.
"""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import TypeAdapter

from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml import threads
from tasks.ml.behaviour import Behaved, tried
from tasks.ml.compiled.parity import differs
from tasks.ml.computed import ComputedError, Computing
from tasks.ml.explain import Importance
from tasks.ml.features import matrix
from tasks.ml.gates import Parity, Rehearsed, Serving, configured
from tasks.ml.judging import judging
from tasks.ml.kinds import another, spoken
from tasks.ml.metrics import metrics_of, packed, unpacked
from tasks.ml.questions import Questions
from tasks.ml.recipe import Recipe
from tasks.ml.sealed import SealedParts
from tasks.ml.split import Split
from tasks.ml.trusted import apart
from tasks.ml.uncertain import estimate
from tasks.ml.watching import older
from tasks.serving.rehearsal import Rehearsal
from tasks.stores import bundles
from tasks.stores.journal import Journal
from tasks.stores.lake import ROW, TRUSTED, Lake, parts
from tasks.stores.minutes import Minutes
from tasks.stores.predictions import Predictions
from tasks.stores.references import COLUMN, Candidate, OnTrusted, Scores, Snapshot
from tasks.stores.registry import Registry
from tasks.stores.trust import set_at

ANSWERS = "holdout.parquet"  # what everybody answered on the holdout, a row each
OPERATES = ("threshold", "interval")  # how answers become decisions, as kinds call it
SERVED = 1000  # the newest predictions whose decisions are compared
FEWEST_SERVED = 200  # with fewer the holdout is looked at


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(project: str, snapshot: Snapshot, candidate: Candidate) -> Scores:
    """Scores everybody on the holdout and keeps every answer beside the candidate."""
    settings = Settings()
    use = Project.named(project, settings)
    with rehearsing(use, candidate) as stage:
        return _scored(use, settings, snapshot, candidate, stage)


def rehearsing(use: Project, candidate: Candidate) -> AbstractContextManager[Rehearsal | None]:
    """A serving process with the candidate, where a gate looks at it."""
    asked = any(isinstance(gate, Serving | Parity) for gate in use.gates)
    return Rehearsal(Path(candidate.folder), candidate.digest) if asked else nullcontext()


def _scored(
    use: Project, settings: Settings, snapshot: Snapshot, candidate: Candidate, stage: Rehearsal | None
) -> Scores:
    project = use.project
    split = parts(use, snapshot, settings.lake(project))
    champion = Journal(settings.journal()).champion(project)
    own = Bundle.read(Path(candidate.folder), candidate.digest)
    before = Bundle.read(settings.bundles(project) / str(champion.version), champion.digest) if champion else None
    with judging():
        holdout, trusted = split.holdout.rows, split.trusted.rows
    unasked = before.unasked(use, holdout) if before else ""
    before = None if unasked else before
    questions = Questions.of(use.task, use.types, holdout, use.search.seed)
    asked, truth = questions.asked, questions.truth
    candidate = as_served(use, candidate, own, asked)
    answers = on_holdout(use, questions, unlearned(use, split, questions), own, before)
    path = Path(candidate.folder).with_name(f"{candidate.run}-{ANSWERS}")
    rows = path.with_name(f"{candidate.run}-rows.parquet")
    looked_at(use, questions).to_parquet(rows)
    with threads.limited(threads.share(1)):
        importance = Importance.of_model(use.task, use.goal, own.model, own.reads(asked), truth, seed=use.search.seed)
    rehearsal, heard = _rehearsed(
        use, stage, asked, candidate
    )  # last, when the process has started and nothing else runs here
    answers.assign(**heard).to_parquet(path)
    scores = summarise(  # planted rows come last, and users' questions are fewer than rows
        use,
        asked.head(len(questions.features)),
        answers,
        importance,
        candidate.operates,
        champion.version if champion else None,
        str(path),
    )
    scores = scores.model_copy(
        update={
            "rows": str(rows),
            "rehearsal": rehearsal,
            "unasked": unasked,
            "digest": candidate.digest,
            "behaved": behaved(use, settings, own, questions),
        }
        | (_against(use, settings, own, before, path.with_name(f"{candidate.run}-served.parquet")) if before else {})
    )  # fmt: skip
    if len(trusted):
        known = _known(use, Lake(project, settings.lake(project), use.contract), trusted, snapshot, before)
        reference = on_trusted(use, trusted, known, own, before, path.with_name(f"{candidate.run}-{TRUSTED}.parquet"))
        scores = scores.model_copy(update={"trusted": reference})
    every = {f"holdout.{name}": value for name, value in scores.every.items()}
    every |= {f"trusted.{use.metric}": scores.trusted.metric.value} if scores.trusted else {}
    every |= {f"serving.{name}": value for name, value in rehearsal or () if isinstance(value, float)}
    minutes = Minutes.of(settings, project, candidate.run)
    for name, table in (("importance", scores.importance), ("slices", scores.slices)):
        if table:
            minutes.note(Registry.log_table, name=name, columns=table.table())
    minutes.note(
        Registry.log,
        metrics=every
        | {f"holdout.{use.metric}.low": scores.metric.low, f"holdout.{use.metric}.high": scores.metric.high},
    )
    get_run_logger().info(
        "%s on %s holdout rows: %s; champion %s; %s", use.goal.label, len(answers), scores.metric, scores.champion or "none",
        f"on {scores.trusted.rows} trusted rows {scores.trusted.metric}" if scores.trusted else "no trusted rows",
    )  # fmt: skip
    return scores


def _rehearsed(
    use: Project, stage: Rehearsal | None, asked: pd.DataFrame, candidate: Candidate
) -> tuple[Rehearsed | None, dict[str, Any]]:
    """How the serving process bore itself, and what it said of every judged row, by the column of the file of answers."""
    if stage is None:
        return None, {}
    stage.digest = candidate.digest
    said = stage.ask(use.task, asked, configured(use.gates, Serving).seconds)
    if said.answers is None:
        return said.served, {}
    has_labels = use.task.decided(said.answers, candidate.operates) is not None
    return said.served, {"heard": packed(said.answers), **({"decided": said.decided} if has_labels else {})}


def as_served(use: Project, candidate: Candidate, own: "Bundle", asked: pd.DataFrame) -> Candidate:
    """The candidate as it would be served: without its compiled form where that says something else of any row of the holdout."""
    form = own.whole.form() if own.whole else None
    if own.whole is None or form is None:
        return candidate
    graph, reads = own.whole.files.get(bundles.GRAPH), own.reads(asked)
    with threads.limited(threads.share(1)):
        _, reason = differs(use.task, own.model, form, graph, reads, candidate.operates)
    if not reason:
        return candidate
    get_run_logger().warning("served by scikit-learn: %s of the holdout", reason)
    return candidate.model_copy(update={"digest": bundles.uncompiled(Path(candidate.folder), candidate.digest, reason)})


class Answering(Protocol):
    """Whoever is asked."""

    @property
    def manifest(self) -> dict[str, Any]:
        """What a server must know about it."""
        ...

    def answers(self, use: Project, asked: pd.DataFrame) -> np.ndarray:
        """What it says of rows of features."""
        ...


@dataclass(frozen=True)
class Bundle:
    """A model with what its manifest says of it, and its bytes where it is on disk."""

    manifest: dict[str, Any]
    model: Any
    computing: Computing | None
    whole: bundles.Bundle | None = None

    @classmethod
    def read(cls, folder: Path, digest: str) -> Self:
        """The bundle of that digest."""
        found = bundles.opened(folder, digest, skew=Settings().library_skew)
        return cls(found.manifest, found.model(), found.computing(), found)

    @property
    def types(self) -> dict[str, str]:
        """The columns that it is asked with, of the types that it learned."""
        return {feature["name"]: feature["type"] for feature in self.manifest["features"]}

    @property
    def recipe(self) -> Recipe | None:
        """How it was made; None where this code knows no more of that."""
        return Recipe.known(self.manifest["recipe"])

    @property
    def operates(self) -> dict[str, float]:
        """How its answers become decisions."""
        return {name: self.manifest[name] for name in OPERATES if self.manifest.get(name) is not None}

    def split(self, use: Project) -> Split:
        """How its rows were split; as the project does now where its manifest is older than that."""
        said = self.manifest
        return TypeAdapter(Split).validate_python(said["split"]) if "split" in said else use.split

    def unseen(self, use: Project, rows: pd.DataFrame) -> np.ndarray:
        """Which rows it surely has not seen: (n,) bool, as the split says that it was trained with."""
        return self.split(use).unseen(rows, self.manifest["seen_until"])

    def unasked(self, use: Project, rows: pd.DataFrame) -> str:
        """Why it cannot be asked what the project asks now, or not about these rows; nothing where it can.

        A label that has another name now, and a column that the contract has no more, are no reason as long as the rows have its values.
        """
        if other := another(use.task, self.manifest):
            return f"it answers another question: {other}"
        needs = dict.fromkeys(self.types, "reads") | dict.fromkeys(self.split(use).looks_at, "was split by")
        may_lack = {feature["name"] for feature in self.manifest["features"] if feature["nullable"]}
        for name, how in needs.items():
            if name not in rows:
                return f"it {how} '{name}', which no row has any more"
            lack = int(rows[name].isna().sum())
            if lack and name not in {*use.contract.columns, *may_lack}:
                return f"it {how} '{name}', which {lack:,} of {len(rows):,} rows have no more"
        return ""

    def reads(self, asked: pd.DataFrame) -> pd.DataFrame:
        """The columns that the model reads, the computed ones by its own code: another version may have made them otherwise."""
        sent = asked[[*self.types]]
        if self.computing is None:
            return sent
        try:
            return self.computing.add(sent)[self.model.feature_names_in_.tolist()]
        except ComputedError as error:
            version = self.manifest["version"]
            raise ComputedError(
                f"{error} This is the code of {f'version {version}' if version else 'the challenger'}."
            ) from error

    def answers(self, use: Project, asked: pd.DataFrame) -> np.ndarray:
        """What it says of rows of features, as the project calls it."""
        with threads.limited(threads.share(1)):
            return spoken(use.task, self.manifest).answers(self.model, self.reads(asked))


def looked_at(use: Project, questions: Questions) -> pd.DataFrame:
    """The row that each answer is about, with the columns that are no feature and without the target."""
    places = use.task.told(questions.features, np.arange(len(questions.rows)))
    return matrix(questions.rows, use.beside).iloc[places].reset_index(drop=True)


def behaved(use: Project, settings: Settings, own: Answering, questions: Questions) -> tuple[Behaved, ...]:
    """How a model does in the tests of hooks.py."""
    rows = questions.asked.head(len(questions.features))  # planted rows come last
    return tried(
        use.behaviour(settings), use.task, lambda some: own.answers(use, some), rows, use.sent, use.search.seed
    )


def _against(use: Project, settings: Settings, own: Bundle, champion: Bundle, path: Path) -> dict[str, Any]:
    """What the gates must know of the champion beside its answers, and both models on the newest rows that were served."""
    is_refresh = bool(own.recipe and champion.recipe and own.recipe.is_like(champion.recipe))
    rows = served(Predictions(settings.home).newest(use.project, SERVED), {**own.types, **champion.types})
    if rows is not None:
        shown = {name: kind for name, kind in use.sent.items() if name in rows}
        both = {"challenger": own, "champion": champion}
        said = {name: packed(each.answers(use, older.features(rows, each.types))) for name, each in both.items()}
        older.features(rows, shown).add_prefix(COLUMN).assign(**said).to_parquet(path)
    return {"operated": champion.operates, "is_refresh": is_refresh, "served": str(path) if rows is not None else None}


def served(records: list[dict[str, Any]], wanted: Collection[str]) -> pd.DataFrame | None:
    """The newest rows of the prediction log, as they were sent; None where too few have every column that is wanted."""
    rows = (record.get("row") for record in records)
    whole = [row for row in rows if isinstance(row, dict) and {*wanted} <= row.keys()]
    return pd.DataFrame(whole, columns=[*wanted]) if len(whole) >= FEWEST_SERVED else None


def unlearned(use: Project, split: SealedParts, questions: Questions) -> dict[str, np.ndarray]:
    """What needs no learning says of the holdout, by the name of the baseline: from labels that were final when each row came."""
    parts = (split.train, split.gap, split.validation, questions.rows)
    truth, places = [use.task.truth(part) for part in parts], use.split.newest_known(parts)
    train, gap, validation = np.cumsum([len(each) for each in truth[:3]])
    unknown = np.r_[train:gap, validation - split.late : validation]  # when the holdout began
    newest = None if places is None else np.delete(np.concatenate(truth)[places], unknown)
    return use.task.naive(np.delete(np.concatenate(truth[:3]), unknown), questions.truth, newest)


def on_holdout(
    use: Project, questions: Questions, naive: Mapping[str, np.ndarray], own: Answering, champion: Bundle | None
) -> pd.DataFrame:
    """Everybody's answers on the holdout, those of the naive baselines too.

    Args:
        use: the project.
        questions: those of the holdout.
        naive: what the baselines say, as `unlearned` gives it.
        own: the challenger.
        champion: the champion, if there is one.
    """
    answers = _answers(use, questions, own, champion)
    return answers.assign(**{f"baseline {name}": packed(said) for name, said in naive.items()})


def on_reference(
    use: Project, questions: Questions, known: np.ndarray, own: Answering, champion: Bundle | None
) -> pd.DataFrame:
    """Challenger's and champion's answers on the trusted set; rows that were set apart already then are new to the champion, too.

    Args:
        use: the project.
        questions: those of the trusted rows.
        known: (n,) bool, True where the champion surely has not learned from the row.
        own: the challenger.
        champion: the champion, if there is one.
    """
    answers, apart_then = _answers(use, questions, own, champion), use.task.told(questions.features, known)
    return answers.assign(unseen=answers["unseen"] | apart_then if champion else True)


def _answers(use: Project, questions: Questions, own: Answering, champion: Bundle | None) -> pd.DataFrame:
    """One row an answer: the row's id, the truth, what challenger and champion said, and whether the champion had not seen it."""
    told, rows = partial(use.task.told, questions.features), questions.rows
    answers = pd.DataFrame({ROW: told(rows[ROW].to_numpy()), "truth": packed(questions.truth)})
    answers["challenger"], answers["unseen"] = packed(own.answers(use, questions.asked)), True
    if champion:
        answers["champion"] = packed(champion.answers(use, questions.put(champion.types)))
        answers["unseen"] = told(champion.unseen(use, rows))
    return answers


def _known(use: Project, lake: Lake, trusted: pd.DataFrame, snapshot: Snapshot, champion: Bundle | None) -> np.ndarray:
    """Which trusted rows were set apart when the champion was trained already, so that it did not learn from them: (n,) bool."""
    then = champion.manifest.get("trusted") if champion else None
    if then is None:
        return np.zeros(len(trusted), dtype=bool)
    if set_at(lake, then) == set_at(lake, snapshot.trusted):
        return np.ones(len(trusted), dtype=bool)
    try:
        return apart(trusted, lake.apart(then), use.split.unit(use.contract.key))
    except ArtifactError:  # rows of the older set were erased since: what it held cannot be told any more
        return np.zeros(len(trusted), dtype=bool)


def on_trusted(
    use: Project, rows: pd.DataFrame, known: np.ndarray, own: Bundle, champion: Bundle | None, path: Path
) -> OnTrusted:
    """Challenger and champion on the trusted reference set; every answer is kept in the file.

    Args:
        use: the project.
        rows: the trusted rows.
        known: (n,) bool, True where the champion surely has not learned from the row.
        own: the challenger.
        champion: the champion, if there is one.
        path: the file.
    """
    questions = Questions.of(use.task, use.types, rows, use.search.seed)
    answers = on_reference(use, questions, known, own, champion)
    answers.to_parquet(path)
    truth, unseen = questions.truth, answers["unseen"].to_numpy()
    y, before = truth[unseen], unpacked(answers["champion"])[unseen] if champion and unseen.any() else None
    sure = {"resamples": 500, "seed": use.search.seed}
    return OnTrusted(
        rows=len(truth), unseen=int(unseen.sum()), metric=estimate(use.goal, truth, unpacked(answers["challenger"]), **sure),
        champion=estimate(use.goal, y, before, **sure) if before is not None else None, answers=str(path),
    )  # fmt: skip


def summarise(
    use: Project,
    features: pd.DataFrame,
    answers: pd.DataFrame,
    importance: Importance,
    operates: dict[str, float],
    champion: int | None,
    path: str,
) -> Scores:
    """The numbers that people look at."""
    y, p = unpacked(answers["truth"]), unpacked(answers["challenger"])
    before, unseen = unpacked(answers["champion"]) if "champion" in answers else None, answers["unseen"].to_numpy()
    sure = {"resamples": 500, "seed": use.search.seed}
    metric = estimate(use.goal, y, p, **sure)
    slices = use.slices.measure(use.goal, features, use.types, y, p, before, unseen, whole=metric, seed=use.search.seed)
    return Scores(
        metric=metric,
        champion=estimate(use.goal, y[unseen], before[unseen], **sure) if before is not None and unseen.any() else None,
        champion_version=champion,
        every={name: metric.of(y, p) for name, metric in metrics_of(use.kind).items()},
        baselines={name.removeprefix("baseline "): use.goal.of(y, unpacked(answers[name])) for name in answers if name.startswith("baseline ")},
        operates=operates, panels=use.task.panels(y, p, operates), importance=importance, slices=slices, answers=path,
    )  # fmt: skip
