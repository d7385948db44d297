"""Arrivals: when rows and outcomes of a project came, how many, and what they looked like; what anomalies are found in."""

import datetime as dt
from functools import lru_cache

from tasks.ml.profile import Profile
from tasks.ml.watching.oddness import Batch
from tasks.stores.journal import Journal
from tasks.stores.served import Serving


def arrivals(journal: Journal, serving: Serving, profiles: int) -> tuple[list[Batch], list[dt.datetime]]:
    """The batches of rows that landed, in order, the newest of them with what they look like; and when outcomes came.

    Args:
        journal: where they are on record.
        serving: the project, and the outcomes that came by prediction id and are no batches.
        profiles: how many of the newest are looked at closely, and days on which outcomes were told; the other batches count as arrivals.
    """
    landed = [(dt.datetime.fromisoformat(row["at"]), row) for row in journal.arrivals(serving.project, profiles)]
    batches = [
        Batch(at, row["landed"], _profile(row["profile"]) if row["profile"] else None)
        for at, row in landed
        if row["kind"] == "rows"
    ]
    return batches, [at for at, row in landed if row["kind"] == "outcomes"] + serving.came(profiles)


@lru_cache(maxsize=256)
def _profile(text: str) -> Profile:
    """A profile; every look asks for nearly the same ones."""
    return Profile.model_validate_json(text)
