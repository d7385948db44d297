"""The shadow log: what two models scored, a JSON line for each model that answered rows of a request; outcomes join both by the ids.

It holds answers, and no row: what was sent stands in the prediction log alone, under the same ids.
"""

from pathlib import Path

from tasks.stores.predictions import Predictions

FOLDER = "shadows"


class Shadows(Predictions):
    """Append-only files `<home>/shadows/<project>/<UTC date>.jsonl`, written as predictions are: a killed server loses no line.

    A record: `at`; `answered` and `beside`, two versions; `ids` of the rows; `said` by the first and `thought` by the second, an answer a row,
    or null where it failed; `ms`, what each took for them, measured in one place, or null. Where each of the two answered some rows of a
    request it has two records, and both name it: `asked`, the id of its first row.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.folder = home / FOLDER
