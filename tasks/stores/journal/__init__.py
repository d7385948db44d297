"""The journal: who was champion when, every batch, training and proposal; one database transaction each. The truth that all else follows.

Belongs here: one small file for each kind of record, over the tables in `tables.py` and the engine in `database.py`. Does not: anything that
decides. Open `releases.py` first.
"""

from tasks.stores.journal.batches import Batches
from tasks.stores.journal.proofs import Proofs
from tasks.stores.journal.proposals import Proposal, Proposals
from tasks.stores.journal.releases import Release, Releases
from tasks.stores.journal.sources import Sources
from tasks.stores.journal.trainings import FORGOTTEN, OUT_OF_MEMORY, UNDER_WAY, Trainings, made_nothing

__all__ = ["FORGOTTEN", "OUT_OF_MEMORY", "UNDER_WAY", "Journal", "Proposal", "Release", "made_nothing"]


class Journal(Trainings, Releases, Proposals, Batches, Sources, Proofs):
    """Every record of every project in one SQL database (SQLite in WAL mode, or any SQLAlchemy URL)."""
