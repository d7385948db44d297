"""The journal: who was champion when, every batch, training and proposal; one database transaction each. The truth that all else follows.

Belongs here: one small file for each kind of record, over the tables in `tables.py` and the engine in `database.py`. Does not: anything that
decides. Open `releases.py` first.
"""

from typing import Self

from tasks.config.settings import Settings
from tasks.stores.journal.batches import Batches
from tasks.stores.journal.hand_made import HandMade
from tasks.stores.journal.incidents import Incidents, Notice
from tasks.stores.journal.intents import AFTER, BEFORE, COMMITTED, Intent, Intents
from tasks.stores.journal.orders import Order, Orders
from tasks.stores.journal.proofs import Proofs
from tasks.stores.journal.proposals import Proposal, Proposals
from tasks.stores.journal.releases import BY_ITSELF, Moves, Release, Releases, predecessor, reigns, rolled_back
from tasks.stores.journal.rollouts import Rollout, Rollouts, approved, resting
from tasks.stores.journal.sources import Sources
from tasks.stores.journal.trainings import (
    FORGOTTEN,
    KEPT,
    NO_MLFLOW,
    OUT_OF_MEMORY,
    UNDER_WAY,
    Trainings,
    made_nothing,
    unanswered,
)
from tasks.stores.journal.watches import Watches

__all__ = [
    "AFTER", "BEFORE", "BY_ITSELF", "COMMITTED", "FORGOTTEN", "KEPT", "NO_MLFLOW", "OUT_OF_MEMORY", "UNDER_WAY", "Intent", "Journal", "Moves", "Notice", "Order", "Proposal",
    "Release", "Rollout", "approved", "made_nothing", "predecessor", "reigns", "resting", "rolled_back", "unanswered",
]  # fmt: skip


class Journal(
    Trainings, Releases, Intents, HandMade, Proposals, Batches, Sources, Proofs, Rollouts, Watches, Orders, Incidents
):
    """Every record of every project in one SQL database (SQLite in WAL mode, or any SQLAlchemy URL)."""

    @classmethod
    def existing(cls, settings: Settings) -> Self | None:
        """The journal, unless it would have to be made first."""
        there = settings.database_url or (settings.home / "keepfit.db").is_file()
        return cls(settings.journal()) if there else None
