"""Gathered: rows that come file by file become one frame in another order, in the memory that they need at last.

Context: a training's rows are the largest thing in its process, and a file's bytes and its Arrow table come on top. Choice: floats,
which most of a training matrix is, come a column at a time and are written where they belong, into one array with each row's numbers
side by side: what learns from it looks at it without a copy. Price: other columns are held by Arrow until the end, where they are put
in order.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa

NULLABLE = {  # integers with gaps stay integers, so that a row reads back as the row that landed
    pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(),
    pa.string(): pd.StringDtype(), pa.large_string(): pd.StringDtype(), pa.string_view(): pd.StringDtype(),
}  # fmt: skip


class Gathered:
    """A frame that is being filled.

    Args:
        schema: its columns; a row whose file lacks one has nothing in it.
        apart: columns that come with the others although they are floats.
        count: rows that may come in all.
        places: (m,) which of them are wanted, in the order that is wanted.
    """

    def __init__(self, schema: pa.Schema, apart: Collection[str], count: int, places: np.ndarray) -> None:
        self._names = schema.names
        self.floats = [field.name for field in schema if field.type == pa.float64() and field.name not in apart]
        self._others = [pa.schema([field for field in schema if field.name not in self.floats]).empty_table()]
        self._block = np.full((len(places), len(self.floats)), np.nan)
        self._goes = np.full(count, -1, dtype=np.int64)  # where each row that comes goes
        self._goes[places] = np.arange(len(places))
        self._came = [np.empty(0, dtype=np.int64)]

    def goes(self, begun: int, count: int) -> np.ndarray:
        """Where so many rows go, of which the first is number `begun` of all: (count,), -1 where a row is not wanted."""
        return self._goes[begun : begun + count]

    def add(self, rows: pa.Table, goes: np.ndarray) -> None:
        """Takes in what is no float."""
        self._others.append(rows.filter(pa.array(goes >= 0)))
        self._came.append(goes[goes >= 0])

    def put(self, name: str, values: np.ndarray, goes: np.ndarray) -> None:
        """Takes in one of the floats of the same rows."""
        self._block[goes[goes >= 0], self.floats.index(name)] = values[goes >= 0]

    def frame(self) -> pd.DataFrame:
        """What was gathered."""
        order, columns = pa.array(np.argsort(np.concatenate(self._came))), dict[str, pd.Series]()
        others = pa.concat_tables(self._others, promote_options="permissive")
        for name in others.column_names:
            columns[name] = others[name].take(order).to_pandas(types_mapper=NULLABLE.get)
        floats = pd.DataFrame(self._block, columns=self.floats, copy=False)
        return pd.concat([floats, pd.DataFrame(columns, index=floats.index, copy=False)], axis=1)[self._names]
