"""The other model of a rollout: loaded beside the champion, verified like it, for the shadow and for the canary; nobody's champion."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.serving.champion import Champion
from tasks.serving.succession import Succession, for_ever
from tasks.stores.journal import Journal, Release, Rollout
from tasks.stores.tidings import Tidings

LOG = logging.getLogger("keepfit.serving")
AGAIN = 30.0  # seconds until a bundle that does not load is tried again
Key = tuple[str, str]  # project and digest


@dataclass(frozen=True)
class Pair:
    """The champion and the model beside it.

    Attributes:
        rollout: what brings them together.
        champion: who answers.
        other: the one that scores, and answers its share in a canary; None where it does not load.
    """

    rollout: Rollout
    champion: Champion
    other: Champion | None

    @property
    def beside(self) -> int:
        """The version of the other model."""
        answers = self.champion.release.version
        return self.rollout.version if answers == self.rollout.against else self.rollout.against

    @property
    def what(self) -> str:
        """The pair in words."""
        does = "scores" if self.other else "should score, and does not load,"
        return f"version {self.beside} {does} beside version {self.champion.release.version} ({self.rollout.phase})"

    @property
    def said(self) -> tuple[int, str]:
        """What is logged once: a new rollout of the same versions says it anew."""
        return self.rollout.id, self.what

    @property
    def is_canary(self) -> bool:
        """Whether the other one answers a share of the rows."""
        return self.rollout.phase == "canary" and self.beside == self.rollout.version


class Others:
    """The pairs of one process, kept equal to the journal.

    Attributes:
        pairs: by project; replaced as a whole, never edited.
    """

    def __init__(
        self, succession: Succession, journal: str, folder: Callable[[str], Path], clock: Callable[[], float] = time.monotonic
    ) -> None:  # fmt: skip
        self._succession = succession
        self._url = journal
        self._journal: Journal | None = None
        self._folder = folder
        self._clock = clock
        self._loaded: dict[Key, Champion] = {}
        self._refused: dict[Key, float] = {}  # when it is tried again
        self.pairs: dict[str, Pair] = {}

    def of(self, champion: Champion) -> Pair | None:
        """The pair of which this one answers, while it does."""
        pair = self.pairs.get(champion.release.project)
        return pair if pair and pair.champion is champion else None

    async def follow(self, every: float = 0.05) -> None:
        """Looks into the journal for ever, in a thread, so that answers go on while a model loads."""
        tidings = Tidings(self._url)
        await for_ever(lambda: asyncio.to_thread(self._glance, tidings), every)

    def _glance(self, tidings: Tidings) -> None:
        moved = any(pair.champion is not self._succession.champions.get(name) for name, pair in self.pairs.items())
        if tidings.have_come() or moved:
            self.look()

    def look(self) -> None:
        """Reads the journal once and loads what is new; never raises: champions go on answering, whatever is wrong beside them."""
        try:
            self._journal = self._journal or Journal(self._url)
            rollouts = self._journal.open_rollouts()
        except Exception:  # noqa: BLE001 -- the succession says that the journal is away
            return
        pairs = {name: self._pair(rollout) for name, rollout in rollouts.items() if rollout.scores}
        before, self.pairs = self.pairs, {name: pair for name, pair in pairs.items() if pair}
        for name, pair in self.pairs.items():
            if name not in before or before[name].said != pair.said:
                LOG.info("%s: %s", name, pair.what)
        kept = {(name, pair.other.release.digest) for name, pair in self.pairs.items() if pair.other}
        self._loaded = {key: model for key, model in self._loaded.items() if key in kept}
        champions = (pair.champion for pair in self.pairs.values())  # who may be the other one next
        self._succession.loaded.keep("beside", [*self._loaded.values(), *champions])

    def _pair(self, rollout: Rollout) -> Pair | None:
        """None while somebody else is champion, or the old champion does not load: nothing follows from that."""
        champion = self._succession.champions.get(rollout.project)
        sides = {rollout.against: (rollout.version, rollout.digest), rollout.version: (rollout.against, rollout.against_digest)}  # fmt: skip
        if champion is None or champion.release.version not in sides:
            return None
        version, digest = sides[champion.release.version]
        other = self._model(rollout, version, digest)
        return Pair(rollout, champion, other) if other or version == rollout.version else None

    def _model(self, rollout: Rollout, version: int, digest: str) -> Champion | None:
        key = (rollout.project, digest)
        if key in self._loaded or self._clock() < self._refused.get(key, float("-inf")):
            return self._loaded.get(key)
        release = Release(
            rollout.project, 0, version, digest, rollout.actor, rollout.reason, rollout.since, "", value=0.0, low=0.0, high=0.0
        )  # fmt: skip
        try:
            folder = self._folder(rollout.project) / str(version)
            loaded = self._succession.loaded
            self._loaded[key] = loaded.known(folder, release) or loaded.load(folder, release)
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with it, it only does not score
            self._refused[key] = self._clock() + AGAIN
            said = f"{rollout.project}: version {version} does not load and cannot score beside the champion: {error}"
            LOG.error("%s", said)  # noqa: TRY400 -- the sentence is the whole matter
            return None
        return self._loaded[key]
