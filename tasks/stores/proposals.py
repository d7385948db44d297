"""Proposals: what a person decides about when a version waits, by digest; and what of it is not as it was any more."""

from collections.abc import Sequence
from typing import Any

from tasks.config.errors import ArtifactError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.identity import digest
from tasks.stores import bundles
from tasks.stores.journal import Journal, Proposal
from tasks.stores.lake import Lake, snapshot_named
from tasks.stores.references import Snapshot

NOBODY = "none"  # in place of a champion's digest
WORDS = {
    "bundle": "the model's files", "champion": "the champion", "configuration": "project.yaml or hooks.py", "snapshot": "the rows that it was made from",
    "report": "the verdicts on record",
}  # fmt: skip


def digests(
    use: Project,
    journal: Journal,
    bundle: str,
    champion: int | None,
    snapshot: Snapshot,
    verdicts: Sequence[dict[str, Any]],
) -> dict[str, str]:
    """What a person decides about, by name, at the end of a training.

    Args:
        use: the project as it judged.
        journal: where releases are on record.
        bundle: the challenger's digest.
        champion: the version that it was compared with, if any.
        snapshot: what it was made from.
        verdicts: what every gate said, as the journal keeps it.
    """
    compared = [release.digest for release in journal.releases(use.project) if release.version == champion]
    return {
        "bundle": bundle, "champion": compared[-1] if compared else NOBODY, "configuration": use.digest, "snapshot": snapshot.digest,
        "report": report(verdicts),
    }  # fmt: skip


def report(verdicts: Sequence[dict[str, Any]]) -> str:
    """The digest of what every gate said, as the journal keeps it."""
    return digest(list(verdicts))


def changed(use: Project, proposal: Proposal, journal: Journal, settings: Settings) -> list[str]:
    """What is not as it was when a version was proposed, a clause each; nothing when the proposal still holds.

    Raises:
        ArtifactError: a file of the bundle is missing or cannot be read.
    """
    then, now = proposal.digests, _now(use, proposal, journal, settings)
    return [
        f"{words} ({then[name][:12]} then, {now[name][:12]} now)"
        for name, words in WORDS.items()
        if then[name] != now[name]
    ]


def _now(use: Project, proposal: Proposal, journal: Journal, settings: Settings) -> dict[str, str]:
    champion = journal.champion(use.project)
    (trained,) = (row for row in journal.trainings(use.project) if row["id"] == proposal.training)
    altered = bundles.altered(settings.bundles(use.project) / str(proposal.version), proposal.digests["bundle"])
    return {
        "bundle": altered or proposal.digests["bundle"], "champion": champion.digest if champion else NOBODY, "configuration": use.digest,
        "snapshot": _snapshot(use, trained["rows"], settings), "report": report(trained["detail"]["verdicts"]),
    }  # fmt: skip


def _snapshot(use: Project, name: str, settings: Settings) -> str:
    """The digest of a snapshot, or that it cannot be read any more, as after an erasure."""
    try:
        found = snapshot_named(Lake(use.project, settings.lake(use.project), use.contract), name)
    except ArtifactError:
        return "unreadable"
    return found.digest if found else NOBODY
