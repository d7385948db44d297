"""The sources that a project may declare under `sources:` in its `project.yaml`.

To add one: write a class on `Scheduled` in a file of its own, with a `kind` and the verb `fetch` (`delivery.py` says what it
owes), and name it in `Source` below. The step, the deployment and its schedule, the journal's mark and the log line follow.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from tasks.sources.listing import Listing
from tasks.sources.query import Query

Source = Annotated[Listing | Query, Field(discriminator="kind")]


def _each_name_once(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise ValueError(f"each source needs a name of its own, because its mark is kept under it; given: {names}")
    return sources


Sources = Annotated[tuple[Source, ...], AfterValidator(_each_name_once)]
