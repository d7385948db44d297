"""References: what steps hand to each other – names, digests and numbers, never rows or models."""

from typing import Any

from pydantic import BaseModel

from tasks.ml.behaviour import Behaved
from tasks.ml.explain import Importance
from tasks.ml.gates import Verdict
from tasks.ml.gates.facts import Rehearsed
from tasks.ml.metrics import Estimate
from tasks.ml.recipe import Recipe
from tasks.ml.slices import Sliced

COLUMN = "row "  # before the names of a row's columns in a file that holds answers as well


class Snapshot(BaseModel, frozen=True):
    """An exact set of landed rows.

    Attributes:
        version: version of the Delta table `rows`.
        outcomes: version of the Delta table `outcomes` that labels them; None: the rows as they landed.
        window: (since, until), ISO 8601: only rows from `since` on and before `until`; empty: no end on that side.
        rows: number of rows.
        digest: SHA-256 over the content of all rows, whatever their order.
        since, until: time of the oldest and the newest row.
        trusted: version of the Delta table `trusted`, whose rows judge and never teach; None: nothing was set apart.
    """

    project: str
    version: int
    rows: int
    digest: str
    since: str
    until: str
    outcomes: int | None = None
    window: tuple[str, str] = ("", "")
    trusted: int | None = None

    @property
    def name(self) -> str:
        """`v12.4-3f9c2a7b`: versions of rows and outcomes, the first digits of the digest; then the window, if it has one."""
        labelled = "" if self.outcomes is None else f".{self.outcomes}"
        window = f"@{self.window[0]}..{self.window[1]}" if any(self.window) else ""
        return f"v{self.version}{labelled}-{self.digest[:8]}{window}"


class Landing(BaseModel, frozen=True):
    """What became of a batch: arrived = landed + quarantined + known, always.

    Attributes:
        batch: SHA-256 of the file's content.
        state: landed, known (nothing new), or held (nothing may land).
        replaced: rows among the landed ones that stand in for older rows, which they correct.
        files: how many files landed together.
        kind: rows, or outcomes: labels that came apart from their rows.
        rules: quarantined rows by the rule that they break.
        extra: columns that the contract does not know; they are not stored.
        findings: what was odd about the batch as a whole.
        snapshot: name of the snapshot after it.
    """

    project: str
    batch: str
    name: str
    state: str
    reason: str
    arrived: int
    landed: int
    quarantined: int
    known: int
    replaced: int = 0
    files: int = 1
    kind: str = "rows"
    rules: dict[str, int] = {}
    extra: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    snapshot: str | None = None


class Prepared(BaseModel, frozen=True):
    """How a snapshot was split.

    Attributes:
        rows: number of rows by part.
        windows: (oldest, newest) time by part.
        refused: why nothing can be learned; empty when it can.
        immature: rows whose label may still change; pending, in no part.
        purged: older rows that are in no part, because their label was not final when the holdout began.
        unripe: train rows of which the same is true, where too few others would be left.
        trusted: rows of the trusted reference set.
        unseen: share of validation rows with a value of that column that train has not, where there are any.
        leaks: what knows too much but does not forbid a training, a sentence each.
        unjoined: which outcomes are left out, because they landed under another key or target, and what to do; empty where none are.
    """

    rows: dict[str, int]
    windows: dict[str, tuple[str, str]]
    rates: dict[str, float]
    refused: str = ""
    immature: int = 0
    purged: int = 0
    unripe: int = 0
    trusted: int = 0
    unseen: dict[str, float] = {}
    leaks: tuple[str, ...] = ()
    unjoined: str = ""


class Best(BaseModel, frozen=True):
    """What the search found.

    Attributes:
        recipe: what to make the model of: the plainest of those that are not surely worse than the best.
        value: the project's metric of it, mean over the folds; most: of the best one.
        trial: its number in the study.
        trials, pruned, resumed: finished trials in all, those ended early, those of an earlier run.
        seconds: wall time; cpu_seconds: of this process.
    """

    recipe: Recipe
    value: float
    most: float
    trial: int
    trials: int
    pruned: int
    resumed: int
    seconds: float
    cpu_seconds: float
    history: list[dict[str, Any]]


class Candidate(BaseModel, frozen=True):
    """A fitted model on disk: `folder` holds its bundle, `digest` names the bundle's bytes.

    Attributes:
        operates: how answers become decisions, as the problem's kind says: `threshold`, `interval`.
        refused: why there is no bundle; empty when there is one.
    """

    run: str
    folder: str
    digest: str
    operates: dict[str, float]
    refused: str = ""


class OnTrusted(BaseModel, frozen=True):
    """What came out on the trusted reference set.

    Attributes:
        rows: how many; unseen: how many of them the champion has not learned from either.
        metric: the challenger's; champion: the champion's on the rows that neither has seen.
        answers: file with the truth and both answers for every row.
    """

    rows: int
    unseen: int
    metric: Estimate
    champion: Estimate | None
    answers: str


class Scores(BaseModel, frozen=True):
    """What came out on the holdout.

    Attributes:
        metric: the challenger's, with interval; champion: the champion's on those of the rows that it has not seen, if there are any.
        unasked: why there is one that cannot be asked; empty where it can.
        every: every metric of the kind, of the challenger; baselines: the project's metric of each.
        operates: how the challenger's answers become decisions; panels: what is drawn of them, as the kind says.
        importance: the columns that the challenger relies on; slices: the metric of groups of rows, where the project names any.
        answers: file with the truth and everybody's answer for every row of the holdout.
        rows: file with the row that each answer is about; served: one with the newest rows that were served and what both models say.
        trusted: the same of the trusted reference set, where there is one.
        rehearsal: how the serving process bore itself with the challenger, where a gate asks for it.
        operated: how the champion's answers become decisions; is_refresh: whether the challenger is made as the champion was.
        behaved: how the challenger did in the tests of hooks.py.
        digest: of the challenger's bundle as it would be served: another than the candidate's where its compiled form did not hold.
    """

    metric: Estimate
    champion: Estimate | None
    champion_version: int | None
    unasked: str = ""
    every: dict[str, float]
    baselines: dict[str, float]
    operates: dict[str, float]
    panels: dict[str, Any]
    importance: Importance
    slices: Sliced | None = None
    answers: str
    trusted: OnTrusted | None = None
    rehearsal: Rehearsed | None = None
    rows: str | None = None
    served: str | None = None
    operated: dict[str, float] = {}
    is_refresh: bool = False
    behaved: tuple[Behaved, ...] = ()
    digest: str = ""

    def judged(self, candidate: Candidate) -> Candidate:
        """The candidate as it would be served."""
        return candidate.model_copy(update={"digest": self.digest or candidate.digest})

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of it."""
        trusted = self.trusted.answers if self.trusted else None
        return tuple(filter(None, (self.answers, self.rows, self.served, trusted)))


class Finished(BaseModel, frozen=True):
    """What a training has come to before anybody is told: all that makes it a version, or its refusal.

    Attributes:
        took: wall and CPU time, by the metric's name; empty until it is to be registered.
    """

    prepared: Prepared
    best: Best
    candidate: Candidate
    scores: Scores
    verdicts: tuple[Verdict, ...]
    took: dict[str, float] = {}


class Training(BaseModel, frozen=True):
    """One training that was admitted, or the reason why none was.

    Attributes:
        id: number in the journal; 0 when none was admitted.
        run: id of the parent run in MLflow.
        config: digest of what it goes by beside its rows, as `provenance.conditions` gives it.
        refused: why there is no training; empty when there is one.
        wait: seconds until an event may start one, when that is the reason.
        cpu_began: CPU-seconds that its process had used when it began.
        finished: what it has come to, where that was kept because MLflow was away.
    """

    project: str
    reason: str
    id: int = 0
    snapshot: Snapshot | None = None
    run: str = ""
    config: str = ""
    refused: str = ""
    wait: float = 0.0
    started: str = ""
    cpu_began: float = 0.0
    finished: Finished | None = None

    @property
    def rows(self) -> Snapshot:
        """The snapshot; only a training that was admitted has one."""
        if self.snapshot is None:
            raise ValueError(f"the training of {self.project} was not admitted: {self.refused}")
        return self.snapshot


class Decision(BaseModel, frozen=True):
    """How a training ended.

    Attributes:
        state: released, releasing (on its way), registered (waits for a person), held (the two holdouts disagree: a person
            decides), refused, failed, or kept (finished, and registered when MLflow answers).
        version: the registered version; None when refused.
        metric, value, low, high: the challenger on the holdout.
        champion: version and value of the champion that it was compared with.
        window: how much of the past the challenger learned from.
        link: the run's page in MLflow.
    """

    project: str
    state: str
    reason: str
    trigger: str
    version: int | None = None
    snapshot: str | None = None
    metric: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    champion: dict[str, Any] | None = None
    trials: int | None = None
    resumed_trials: int | None = None
    window: str | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    link: str | None = None
