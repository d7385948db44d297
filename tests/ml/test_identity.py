"""Identity: equal content has one name, different content never the same."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings

from tasks.ml import identity
from tasks.ml.identity import as_binary, as_text, digest, from_binary, set_digest

TEXT = st.one_of(st.none(), st.text(alphabet="\x00\x1f-:1a é", max_size=4))
NUMBER = st.one_of(st.none(), st.integers(-(2**53), 2**53))


def row_ids(rows: pd.DataFrame) -> np.ndarray:
    """The names as texts."""
    return np.array(as_text(identity.row_ids(pa.Table.from_pandas(rows, preserve_index=False))), dtype=object)


def frame(rows: list[tuple[str | None, str | None, int | None]]) -> pd.DataFrame:
    """Rows of two texts and a number."""
    first, second, number = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "a": pd.array(first, dtype="string"),
            "b": pd.array(second, dtype="string"),
            "n": pd.array(number, dtype="Int64"),
        }
    )


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, NUMBER), min_size=1, max_size=8))
def test_ids_are_equal_exactly_where_rows_are(rows):
    """No text can pass for a missing value or for the border between two columns."""
    ids = row_ids(frame(rows))
    assert len(set(ids)) == len(set(rows))
    assert all(len(name) == 32 for name in ids)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, NUMBER), min_size=1, max_size=6))
def test_the_order_of_columns_and_rows_does_not_matter(rows):
    """A row keeps its name among other neighbours and in another order of columns."""
    whole = frame(rows)
    assert row_ids(whole[["n", "b", "a"]]).tolist() == row_ids(whole).tolist()
    assert row_ids(whole[::-1]).tolist() == row_ids(whole).tolist()[::-1]
    assert row_ids(whole.head(1))[0] == row_ids(whole)[0]


def test_names_of_columns_matter():
    """The same values under another name are another row."""
    rows = pd.DataFrame({"a": [1]})
    assert row_ids(rows)[0] != row_ids(rows.rename(columns={"a": "b"}))[0]


def test_the_width_of_storage_does_not_matter():
    """A whole number, a flag, a text and an instant keep their name in any width."""
    wide = pd.DataFrame(
        {
            "n": np.array([1], dtype="int64"),
            "t": ["x"],
            "at": pd.to_datetime(["2020-01-01"], utc=True).astype("datetime64[ns, UTC]"),
        }
    )
    narrow = pd.DataFrame(
        {
            "n": pd.array([1], dtype="Int8"),
            "t": pd.array(["x"], dtype="string"),
            "at": wide["at"].dt.tz_convert("Asia/Tokyo").astype("datetime64[us, Asia/Tokyo]"),
        }
    )
    assert row_ids(wide)[0] == row_ids(narrow)[0]


def test_every_cell_counts():
    """A change of any one cell changes exactly that row's id."""
    rows = pd.DataFrame({"x": np.linspace(0, 1, 500), "y": ["a"] * 500})
    changed = rows.copy()
    changed.loc[321, "x"] = np.nextafter(rows.loc[321, "x"], 2)
    assert np.flatnonzero(row_ids(rows) != row_ids(changed)).tolist() == [321]


def test_no_rows_have_no_ids():
    """An empty frame has an empty array of ids."""
    assert row_ids(pd.DataFrame({"a": []})).tolist() == []


@given(st.sets(st.binary(min_size=16, max_size=16), max_size=5))
def test_a_set_of_ids_has_one_digest(ids):
    """The digest of a set of rows changes with any row more, and with nothing else."""
    one, other = (names(sorted(ids, reverse=backwards)) for backwards in (False, True))
    assert set_digest(one) == set_digest(other)
    assert set_digest(one) != set_digest(names([*ids, b"another sixteen!"]))
    assert (from_binary(as_binary(one)) == one).all()


def names(ids: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 16)


def test_a_digest_of_settings_ignores_the_order_of_keys():
    """The same settings written in another order are the same."""
    assert digest({"a": [1, 2], "b": None}) == digest({"b": None, "a": [1, 2]})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
