"""Models that this process has verified, loaded and warmed: what somebody here uses is not loaded once more.

So a release of a challenger that its shadow has scored with, and the way back to the champion before, put in place what is there already. Several
threads ask at once; each user's models are replaced as a whole.
"""

import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

from tasks.config.errors import KeepfitError
from tasks.serving.champion import Champion
from tasks.stores import bundles
from tasks.stores.journal import Release
from tasks.stores.seals import Seals

USUAL_SECONDS = sys.getswitchinterval()  # for which one thread may keep the others from the interpreter
SWITCH_SECONDS = 0.0005  # the same while a model loads: the loop waits so long for each event


Key = tuple[str, int, str]


def key(release: Release) -> Key:
    """What a model is known by: its project, version and digest."""
    return release.project, release.version, release.digest


class Loaded:
    """The models of one process, by who uses them."""

    def __init__(self, skew: bundles.Skew = "refuse", secret: bytes | None = None, seals: Seals | None = None) -> None:
        """As the arguments of `Champion.load`."""
        self._skew: bundles.Skew = skew
        self._secret = secret
        self._seals = seals
        self._in_use: dict[str, tuple[Champion, ...]] = {}

    def keep(self, user: str, some: Iterable[Champion]) -> None:
        """What a user uses from now on; what nobody uses any more is gone."""
        self._in_use[user] = tuple(some)

    def known(self, folder: Path, release: Release) -> Champion | None:
        """The model of a release from memory, whatever has become of its bundle on disk; None where nobody uses it, or its signer is trusted no more."""
        for champion in chain.from_iterable(list(self._in_use.values())):
            if key(champion.release) == key(release):
                with suppress(KeepfitError):  # on disk another seal may lie by now
                    bundles.vouch(folder, release.digest, champion.bundle, self._seals)
                    return champion.under(release)
        return None

    def load(self, folder: Path, release: Release) -> Champion:
        """As `Champion.load`, without keeping the loop from the interpreter for long."""
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            return Champion.load(folder, release, skew=self._skew, secret=self._secret, seals=self._seals)
        finally:
            sys.setswitchinterval(USUAL_SECONDS)

    def fault(self, folder: Path, release: Release) -> str:
        """As `bundles.fault`, of the bundle of a release."""
        return bundles.fault(folder, release.digest, self._seals)
