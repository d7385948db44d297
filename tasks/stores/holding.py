"""Holding: what lies of a release on this machine's disk, its bundle and what MLflow has of it, and whether that still is what was released."""

from dataclasses import dataclass
from pathlib import Path

from tasks.config.settings import Settings
from tasks.stores import artifacts, bundles
from tasks.stores.journal import Journal, Release
from tasks.stores.seals import Seals


@dataclass(frozen=True)
class Holding:
    """What lies of a release.

    Attributes:
        folder: of its bundle.
        logged: SHA-256 of each file that MLflow has of it, by its path within the folder of artifacts.
    """

    settings: Settings
    release: Release
    folder: Path
    logged: dict[str, str]

    @classmethod
    def of(cls, settings: Settings, journal: Journal, release: Release) -> "Holding":
        """By what the journal says of the version."""
        made = journal.made(release.project, release.version)
        folder = settings.bundles(release.project) / str(release.version)
        return cls(settings, release, folder, made["detail"].get("artifacts", {}) if made else {})

    def stamps(self) -> tuple[object, ...]:
        """As `bundles.stamps`, of all of it."""
        return (
            self.release.digest,
            bundles.stamps(self.folder),
            *(bundles.stamp(self.settings.artifacts / name) for name in self.logged),
        )

    def fault(self) -> str:
        """What is wrong with it, with the next move, or nothing: every file is read, no model is opened."""
        wrong = bundles.fault(self.folder, self.release.digest, Seals.of(self.settings))
        return " ".join(filter(None, (wrong, artifacts.fault(self.settings.artifacts, self.logged))))
