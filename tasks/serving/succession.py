"""Who comes next: the succession follows the journal, and puts the next champion in its place, loaded and warm."""

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tasks.config.errors import ArtifactError, KeepfitError
from tasks.serving.champion import Champion
from tasks.serving.loaded import Key, Loaded, key
from tasks.stores import bundles
from tasks.stores.journal import Journal, Release, rolled_back
from tasks.stores.tidings import Tidings

LOG = logging.getLogger("keepfit.serving")
RETRY_SECONDS = (0.5, 30.0)
COPIES = 3  # of champions of a project, on disk
BEFORE_BYTES = 64 << 20  # of files: champions before stay loaded, the newest of all projects first


async def for_ever(turn: Callable[[], Awaitable[None]], every: float) -> None:
    """Does a turn again and again, `every` seconds apart. One that fails in whatever manner is logged, once a kind in a row, and ends nothing."""
    failed = ""
    while True:
        try:
            await turn()
            failed = ""
        except Exception as error:  # noqa: BLE001 – whoever follows the journal no more answers with an old champion for good
            if failed != (failed := type(error).__name__):
                _say_failed(error)
        await asyncio.sleep(every)


def _say_failed(error: Exception) -> None:
    LOG.error("following the journal failed (%s); the next turn looks again", type(error).__name__)


def _without(some: dict[str, Any], project: str) -> dict[str, Any]:
    return {name: value for name, value in some.items() if name != project}


def _is_folder(project: str) -> bool:
    return Path(project).name == project and not project.startswith(".")


class Refused(NamedTuple):
    """A release that this process could not load; what was there before goes on answering."""

    release: Release
    reason: str
    delay: float
    again: float

    def describe(self) -> dict[str, Any]:
        """What is shown of it."""
        return {"version": self.release.version, "generation": self.release.generation, "reason": self.reason}


class Verified(NamedTuple):
    """How a bundle on disk was when it was verified last.

    Attributes:
        stamps: what the file system said of its files.
        fault: what is wrong with it, a sentence, or nothing.
    """

    stamps: tuple[object, ...]
    fault: str = ""


class Succession:
    """The champions that answer now, kept equal to the journal.

    Attributes:
        champions: by project; replaced as a whole, never edited.
        loaded: what this process has in memory, the champions before among it.
        refused: releases that do not load, by project; tried again with growing pauses.
        wanted: what the journal said last, or None before the first word of it.
        trouble: why the journal is unreadable at the moment, or None. The champions go on answering meanwhile.
        swaps: champions that were put in place since the start.
    """

    def __init__(
        self, journal: str, folder: Callable[[str], Path], loaded: Loaded | None = None, clock: Callable[[], float] = time.monotonic,
        copies: Path | None = None,
    ) -> None:  # fmt: skip
        """Follows the journal at a URL.

        Args:
            journal: its URL.
            folder: where the bundles of a project lie.
            loaded: what loads them; by default as this installation does.
            clock: seconds.
            copies: where copies of champions are kept for the next start; by default none are.
        """
        self.loaded = loaded or Loaded()
        self._url = journal
        self._folder = folder
        self._copies = copies
        self._clock = clock
        self._journal: Journal | None = None
        self._before: dict[str, Champion] = {}
        self._verified: dict[Key, Verified] = {}
        self.champions: dict[str, Champion] = {}
        self.refused: dict[str, Refused] = {}
        self.wanted: dict[str, Release] | None = None
        self.trouble: str | None = "not read yet"
        self.swaps = 0

    @property
    def degraded(self) -> dict[str, str]:
        """Why a champion answers from a copy of its own alone, by project: somebody has touched its bundle since."""
        faults = {name: self._verified.get(key(champion.release)) for name, champion in self.champions.items()}
        return {name: verified.fault for name, verified in faults.items() if verified and verified.fault}

    async def follow(self, every: float = 0.05, told: Callable[[], None] = lambda: None) -> None:
        """Looks into the journal for ever, in a thread, so that answers go on while a model loads; tells after each look, and before anything loads."""
        tidings = Tidings(self._url)

        async def turn() -> None:
            if await asyncio.to_thread(lambda: tidings.have_come() and self._reads()):
                told()
                await asyncio.to_thread(self._put_in_place)
            told()

        await for_ever(turn, every)

    def look(self) -> None:
        """Reads the journal once and puts in place what is new; never raises."""
        try:
            if self._reads():
                self._put_in_place()
        except Exception as error:  # noqa: BLE001 – whoever follows looks again
            _say_failed(error)

    def _reads(self) -> bool:
        """Whether the journal could be read; `wanted` is then what it says."""
        try:
            self._journal = self._journal or Journal(self._url)
            self.wanted = self._journal.champions()
        except Exception as error:  # noqa: BLE001 – a journal that is away in whatever manner must not end the answering
            self._note(f"{type(error).__name__}")
            return False
        self._note(None)
        return True

    def _put_in_place(self) -> None:
        for project, release in (self.wanted or {}).items():
            if self._is_due(project, release):
                self._enthrone(project, release)
        for project, champion in self.champions.items():
            self._look_at(project, champion.release)

    def missing(self) -> list[str]:
        """Released projects that nobody answers for."""
        return sorted(set(self.wanted or {}) - set(self.champions))

    def _note(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self.trouble:
            LOG.error("the journal is unreadable (%s); %d champions go on answering", trouble, len(self.champions))
        self.trouble = trouble

    def _is_due(self, project: str, release: Release) -> bool:
        champion, refused = self.champions.get(project), self.refused.get(project)
        if champion and champion.release == release:
            if refused:
                self.refused = _without(self.refused, project)
            return False
        return refused is None or refused.release != release or self._clock() >= refused.again

    def _enthrone(self, project: str, release: Release) -> None:
        started = time.monotonic()
        try:
            if not _is_folder(project):
                raise ArtifactError("The journal names a project that is no folder's name. Look at who wrote it.")
            champion = self._champion(project, release)
        except Exception as error:  # noqa: BLE001 – the old champion answers on, whatever is wrong with the new one
            if project not in self.champions and (before := self._verified_before(project)):
                self._crown(project, before, started)
            self._refuse(project, release, error)
            return
        self.refused = _without(self.refused, project)
        self._crown(project, champion, started)

    def _crown(self, project: str, champion: Champion, started: float) -> None:
        old, release = self.champions.get(project), champion.release
        self.champions = {**self.champions, project: champion}
        self.swaps += 1
        self._keep_in_memory(project, old, champion)
        LOG.info(
            "%s: version %d answers (generation %d, there in %.3f s)",
            project,
            release.version,
            release.generation,
            time.monotonic() - started,
        )

    def _champion(self, project: str, release: Release) -> Champion:
        """The champion of a release: from memory, or its bundle, or where that is not what was released any more the copy of an earlier start.

        Raises:
            KeepfitError: none is what was released.
        """
        folder, copy = self._folder(project) / str(release.version), self._copy(project, release)
        champion = self.loaded.known(folder, release) or self._from_disk(folder, release, copy)
        if copy is not None:
            self._keep_on_disk(champion, copy)
        return champion

    def _verified_before(self, project: str) -> Champion | None:
        """After a start: the newest champion before, from the copy that it answered from here, as it would without the start; none that was rolled back."""
        releases = self._journal.releases(project) if self._journal and _is_folder(project) else []
        for release in reversed(releases[:-1]):
            copy = self._copy(project, release)
            if copy and copy.exists() and rolled_back(releases, release.version) is None:
                with suppress(Exception):  # whatever is wrong with this one, too
                    return self.loaded.load(copy, release)
        return None

    def _from_disk(self, folder: Path, release: Release, copy: Path | None) -> Champion:
        stamps = bundles.stamps(folder)
        try:
            champion = self.loaded.load(folder, release)
        except KeepfitError:
            if copy is None or not copy.exists():
                raise
            return self.loaded.load(copy, release)
        with suppress(KeepfitError):  # a file that no server reads is amiss: that is looked at next, and said
            if not bundles.altered(folder, release.digest, but=champion.bundle.files):
                self._verified[key(release)] = Verified(stamps)
        return champion

    def _keep_in_memory(self, project: str, old: Champion | None, champion: Champion) -> None:
        """Keeps the champion before, which a rollback brings back; what was amiss with a bundle is looked at anew at each release."""
        if old and key(old.release) != key(champion.release):
            self._before = {**_without(self._before, project), project: old}
            while sum(each.bundle.size for each in self._before.values()) > BEFORE_BYTES:
                self._before.pop(next(iter(self._before)))
        some = [*self.champions.values(), *self._before.values()]
        self.loaded.keep("champions", some)
        keys = {key(each.release) for each in some}
        self._verified = {one: seen for one, seen in self._verified.items() if one in keys and not seen.fault}

    def _copy(self, project: str, release: Release) -> Path | None:
        """Where this process keeps what it has verified, for its next start."""
        return self._copies and self._copies / project / f"{release.version}-{release.digest[:16]}"

    def _keep_on_disk(self, champion: Champion, copy: Path) -> None:
        """Keeps a copy of this champion, and none of those before the last; a full disk ends no answering."""
        try:
            bundles.keep(champion.bundle, copy)
            others = [each for each in copy.parent.iterdir() if each != copy]
            for old in sorted(others, key=lambda each: each.stat().st_mtime, reverse=True)[COPIES - 1 :]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            LOG.warning(
                "%s: no copy of version %d is kept: %s", champion.release.project, champion.release.version, error
            )

    def _look_at(self, project: str, release: Release) -> None:
        """Verifies the champion's bundle anew when somebody has touched it since it was verified last, and says what is wrong with it."""
        folder = self._folder(project) / str(release.version)
        stamps = bundles.stamps(folder)
        if (seen := self._verified.get(key(release))) and stamps == seen.stamps:
            return
        verified = Verified(stamps, self.loaded.fault(folder, release))
        if verified.fault:
            LOG.error("%s: version %d answers from a verified copy: %s", project, release.version, verified.fault)
        self._verified[key(release)] = verified

    def _refuse(self, project: str, release: Release, error: Exception) -> None:
        reason = str(error) if isinstance(error, KeepfitError) else f"{type(error).__name__}: {error}"
        before = self.refused.get(project)
        same = before is not None and before.release == release
        delay = min(before.delay * 2, RETRY_SECONDS[1]) if before and same else RETRY_SECONDS[0]
        self.refused = {**self.refused, project: Refused(release, reason, delay, self._clock() + delay)}
        if not same:
            champion = self.champions.get(project)
            keeps = f"version {champion.release.version} goes on answering" if champion else "nobody answers"
            LOG.error("%s: version %d is refused and %s: %s", project, release.version, keeps, reason)
