"""The seal: what judges is out of reach wherever something is still chosen or fitted."""

import threading
from pathlib import Path

import pandas as pd
import pytest

from tasks.config.settings import REPOSITORY
from tasks.ml.judging import judging
from tasks.ml.kinds import Anomaly, Binary, Multiclass, Regression
from tasks.ml.metrics import Cost
from tasks.ml.sealed import Lazy, Sealed, SealedError, SealedParts
from tasks.ml.split import TimeSplit

KIND = Binary("y", positive=True, labels=("no", "yes"), cost=Cost())
ROWS = pd.DataFrame({
    "id": range(100), "at": pd.date_range("2026-01-01", periods=100, tz="UTC"),
    "y": pd.array([n % 4 == 0 for n in range(100)], dtype="boolean"),
})  # fmt: skip


def sealed() -> SealedParts:
    return SealedParts.of(TimeSplit(column="at", holdout=0.2).apply(ROWS), ROWS.head(0), KIND, "y", waiting=3)


def test_what_is_fitted_at_last_ends_before_labels_that_came_too_late():
    """Of the 80 days before the holdout the last three had no label yet when it began, as labels take four days."""
    split = TimeSplit(column="at", holdout=0.2, matures=4)
    whole = pd.concat([ROWS, ROWS.tail(4).assign(at=lambda rows: rows["at"] + pd.Timedelta(days=4))])
    parts = SealedParts.of(split.apply(whole), ROWS.head(0), KIND, "y")
    assert (len(parts.train) + len(parts.validation), len(parts.both), parts.late) == (80, 77, 3)
    assert parts.both["id"].tolist() == list(range(77))


def test_reading_the_holdout_outside_of_evaluate_raises():
    """The rows cannot be had; the error says what to read instead."""
    with pytest.raises(SealedError, match=r"holdout rows were read outside of evaluate. Wanted: train or validation"):
        _ = sealed().holdout.rows


def test_the_seal_says_how_many_rows_from_when_and_whether_they_can_judge():
    """Number, window and share of positives are known outside; the target of no row is."""
    holdout = sealed().holdout
    assert (len(holdout), holdout.rate, holdout.unlearnable) == (20, 0.25, "")
    assert holdout.window("at") == ("2026-03-22 00:00:00+00:00", "2026-04-10 00:00:00+00:00")
    assert list(holdout.without_target().columns) == ["id", "at"]
    assert Sealed("holdout", ROWS.head(4), KIND, "y").unlearnable.startswith("insufficient classes: the holdout part")


@pytest.mark.parametrize(
    "kind", [KIND, Multiclass("y", ("a", "b", "c")), Regression("y"), Anomaly()], ids=lambda kind: kind.name
)
def test_no_rows_can_judge_nothing_of_any_kind(kind):
    """An empty set, as before anything was set apart, is told instead of failing."""
    empty = Sealed("trusted", ROWS.head(0), kind, "y")
    assert (len(empty), empty.rate, empty.unlearnable) == (0, 0.0, "too few rows: the trusted part has none")


def test_the_seal_is_broken_while_somebody_judges_and_closed_afterwards():
    """Inside the rows are those of the split; afterwards, and after an error, they are out of reach again."""
    holdout = sealed().holdout
    with judging():
        assert holdout.rows["id"].tolist() == list(range(80, 100))
    with pytest.raises(SealedError):
        _ = holdout.rows
    with pytest.raises(RuntimeError, match="a fault"), judging():
        raise RuntimeError("a fault")
    with pytest.raises(SealedError):
        _ = holdout.rows


def test_another_thread_cannot_read_while_one_judges():
    """A search that still runs in a thread does not see what evaluate sees."""
    holdout, met = sealed().holdout, []

    def peek() -> None:
        try:
            met.append(holdout.rows)
        except SealedError as error:
            met.append(error)

    with judging():
        thread = threading.Thread(target=peek)
        thread.start()
        thread.join()
    assert [type(what) for what in met] == [SealedError]


def test_sealed_parts_count_rows_without_a_label_among_the_immature():
    """Rows that wait for their outcome are told with those whose label may still change."""
    made = sealed()
    assert (len(made.train) + len(made.validation), made.immature, len(made.trusted)) == (80, 3, 0)


def test_lazy_rows_are_read_again_only_when_nobody_holds_them():
    """Held by somebody they are the same rows; let go they are read anew; inside of `kept` once, whoever asks how often."""
    read = list[int]()
    lazy = Lazy(lambda: read.append(1) or ROWS.copy())
    held = lazy.rows
    assert lazy.rows is held
    assert len(read) == 1
    del held
    assert len(lazy.rows) == 100
    assert len(read) == 2
    with lazy.kept(), lazy.kept():
        assert len(lazy.rows) == len(lazy.rows) == 100
        assert len(read) == 3
    assert len(lazy.rows) == 100
    assert len(read) == 4


def test_a_seal_over_lazy_rows_remembers_what_it_says_of_them():
    """Number, rate and whether they can judge are asked of the rows once; they are not held for it."""
    read = list[int]()
    holdout = Sealed("holdout", Lazy(lambda: read.append(1) or ROWS.copy()), KIND, "y")
    assert (len(holdout), holdout.rate, holdout.unlearnable, len(read)) == (100, 0.25, "", 1)
    assert holdout.window("at")[0] == "2026-01-01 00:00:00+00:00"
    assert len(read) == 2


def test_nobody_else_opens_the_seal():
    """The switch is named where it is made and where it is turned; who may import that is held by `make check`."""
    naming = {
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("flows", "tasks")
        for path in Path(REPOSITORY / folder).rglob("*.py")
        if "JUDGING" in path.read_text(encoding="utf-8")
    }
    assert naming == {"tasks/ml/judging.py", "tasks/ml/sealed.py"}
