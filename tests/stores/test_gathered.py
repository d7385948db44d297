"""Gathered rows read back as they came, at the places and in the order that are asked for."""

import numpy as np
import pyarrow as pa

from tasks.stores.gathered import Gathered

SCHEMA = pa.schema(
    {"id": pa.int64(), "size": pa.float64(), "name": pa.string(), "y": pa.float64(), "weight": pa.float64()}
)
FILES = [
    pa.table({"id": [1, 2], "size": [1.5, None], "name": ["a", None], "y": [0.1, 0.2]}),
    pa.table({"id": [3, None], "size": [3.5, 4.5], "name": ["c", "d"], "y": [0.3, None], "weight": [30.0, 40.0]}),
]  # fmt: skip


def gathered(places: list[int]):
    """The rows at these places of both files, the first of which is older than a column."""
    made = Gathered(SCHEMA, ("y",), 4, np.array(places, dtype=int))
    for begun, file in zip((0, 2), FILES, strict=True):
        goes = made.goes(begun, len(file))
        made.add(file.select([name for name in file.column_names if name not in made.floats]), goes)
        for name in set(made.floats) & set(file.column_names):
            made.put(name, file[name].to_numpy(), goes)
    return made.frame()


def test_rows_of_files_with_other_columns_stand_in_one_frame():
    """A column that an older file lacks is missing in its rows; integers with gaps and texts stay what they are."""
    frame = gathered([3, 0, 1])
    assert list(frame.columns) == SCHEMA.names
    assert str(frame["id"].dtype) == "Int64"
    assert frame["id"].fillna(-1).tolist() == [-1, 1, 2]
    assert frame["name"].fillna("none").tolist() == ["d", "a", "none"]
    np.testing.assert_array_equal(frame["y"].to_numpy(dtype=float), [np.nan, 0.1, 0.2])
    np.testing.assert_array_equal(frame[["size", "weight"]], [[4.5, 40.0], [1.5, np.nan], [np.nan, np.nan]])


def test_what_is_learned_from_is_a_view_of_the_numbers():
    """The floats are one array with each row's numbers side by side; rows and columns of it are taken without a copy."""
    frame = gathered([0, 2, 3])
    numbers = frame[["size", "weight"]].iloc[1:].to_numpy()
    assert np.shares_memory(numbers, frame["size"].to_numpy())
    assert numbers.flags.c_contiguous


def test_without_any_row_the_columns_are_there_all_the_same():
    """Nothing that came was wanted."""
    nothing = gathered([])
    assert list(nothing.columns) == SCHEMA.names
    assert nothing.empty
