"""The shadow log: one JSON line a request that two models scored, with the ids of its predictions; outcomes join both by them.

It holds answers, and no row: what was sent stands in the prediction log alone, under the same ids.
"""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.stores.predictions import Predictions

FOLDER = "shadows"


class Shadows(Predictions):
    """Append-only files `<home>/shadows/<project>/<UTC date>.jsonl`, written as predictions are: a killed server loses no line.

    A record: `at`; `answered` and `beside`, two versions; `ids` of the rows; `said` by the first and `thought` by the second, an answer a row,
    or null where it failed; `ms`, what each took for the request, measured in one place, or null.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.folder = home / FOLDER

    def since(self, project: str, began: dt.datetime) -> Iterator[dict[str, Any]]:
        """The records from a moment on, in order of writing."""
        for record in self.read(project, since=began.date()):
            if dt.datetime.fromisoformat(record["at"]) >= began:
                yield record
