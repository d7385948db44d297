"""The shadow log: one JSON line a request that two models scored, with the ids of its predictions; outcomes join both by them.

It holds answers, and no row: what was sent stands in the prediction log alone, under the same ids.
"""

from pathlib import Path

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
