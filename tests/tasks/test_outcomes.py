import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from flows import looking
from tasks import ingest, prepare
from tasks.config.errors import ArtifactError, BatchError
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ml.judging import judging
from tasks.ml.profile import Profile
from tasks.stores import durable
from tasks.stores.compaction import compact
from tasks.stores.lake import OUTCOMES, ROWS, Lake, Version, parts, snapshot_named
from tasks.stores.references import Prepared, Snapshot
from tasks.stores.trust import Trust
from tests.samples import write_rows
from tests.tasks.test_ingest import SMALL, counts, land, rows, small

__all__ = ["small"]

DAY = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)


def outcomes(landings: ingest.Landings, day: int = 0) -> ingest.Landings:
    settings = Settings()
    use = Project.named(landings.project, settings)
    return ingest.Landings(use, settings, lambda: DAY + dt.timedelta(days=day), kind="outcomes")


def found_as(lake: Lake, name: str | None) -> Snapshot:
    found = snapshot_named(lake, name)
    assert found is not None
    return found


def newest(lake: Lake) -> Snapshot:
    return found_as(lake, None)


def labels(lake: Lake, name: str | None = None) -> dict[int, bool]:
    return lake.read(found_as(lake, name)).set_index("id")["y"].to_dict()


@pytest.fixture
def late(small: ingest.Landings) -> ingest.Landings:
    """The project with labels that may come later."""
    settings = Settings()
    text = SMALL.replace("y: {type: bool}", "y: {type: bool, nullable: true}")
    (settings.projects / "small" / "project.yaml").write_text(text)
    return ingest.Landings(Project.named("small", settings), settings)


def under(*changes: tuple[str, str]) -> ingest.Landings:
    """The project whose contract says this instead of that."""
    settings, text = Settings(), SMALL.replace("y: {type: bool}", "y: {type: bool, nullable: true}")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (settings.projects / "small" / "project.yaml").write_text(text)
    return ingest.Landings(Project.named("small", settings), settings)


WIDER = ("key: [id]", "key: [id, at]")
NUMBER = ("y: {type: bool, nullable: true}", "y: {type: float, nullable: true}"), ("positive: true", "kind: regression")
OTHER = ("target: y", "target: z"), ("y: {type: bool, nullable: true}", "z: {type: bool, nullable: true}")


def unlabelled(*numbers: int) -> list[dict[str, str]]:
    return [row | {"y": ""} for row in rows(*numbers)]


def told(*numbers: int, **values: str) -> list[dict[str, str]]:
    return [{"id": str(n), "y": "t", "outcome_at": "2026-02-01T00:00:00Z"} | values for n in numbers]


def at(number: int) -> str:
    return rows(number)[0]["at"]


def described(landings: ingest.Landings) -> Prepared:
    use, root, found = landings.use, Settings().lake("small"), newest(landings.lake)
    return prepare.describe(use, parts(use, found, root), landings.lake.unjoined(found))


def test_i_05_a_late_label_changes_what_is_learned_and_no_row(small, tmp_path: Path):
    """Outcomes are versioned apart: the table of rows stays as it is, old snapshots read as they were, the digest moves."""
    land(small, tmp_path, "a.csv", rows(*range(20)))
    before, files = newest(small.lake), small.lake.landed.stored()
    truth = labels(small.lake)
    landing = land(outcomes(small), tmp_path, "late.csv", [{"id": "0", "y": "f"}, {"id": "3", "y": "f"}])
    after = newest(small.lake)
    assert (counts(landing), landing.kind, landing.snapshot) == ((2, 2, 0, 0), "outcomes", "v1.1")
    assert (small.lake.landed.stored(), after.version, after.outcomes) == (files, before.version, 1)
    assert labels(small.lake) == truth | {0: False}, "3 was false before"
    assert labels(small.lake, before.name) == truth
    assert before.digest != after.digest
    assert small.lake.changes(before, after, ("id",)) == {"added": 0, "removed": 0, "changed": 1}
    features = small.lake.read(before).drop(columns=["y", "_row"]).sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(
        features, small.lake.read(after).drop(columns=["y", "_row"]).sort_values("id", ignore_index=True)
    )


def test_i_05_versions_of_outcomes_are_listed_under_names_that_read(small, tmp_path: Path):
    """`data list` names each version of the outcomes together with the rows that were there, as a snapshot is called."""
    settings = Settings()
    land(outcomes(small), tmp_path, "early.csv", [{"id": "50", "y": "t"}])
    land(small, tmp_path, "a.csv", rows(*range(20)))
    land(outcomes(small), tmp_path, "late.csv", [{"id": "0", "y": "f"}])
    land(small, tmp_path, "b.csv", rows(*range(20, 30)))
    listed = looking.versions("small", settings)
    assert {row["snapshot"] for row in listed} >= {"v1", "v2"}
    for row in listed:
        if row["kind"] == "outcomes":
            assert looking.snapshot("small", row["snapshot"], settings)["ok"]


@pytest.mark.parametrize("hours", [(1, 2, 3, 4), (9, 2, 3, 4), (1, 9, 2, 3), (4, 3, 2, 1)])
def test_s_10_versions_are_listed_in_their_order_where_the_clock_went_back(small, tmp_path: Path, monkeypatch, hours):
    """Rows, outcomes, rows, outcomes: each under the name of the rows that were there, with the time that the clock said (S-10)."""
    land(small, tmp_path, "a.csv", rows(*range(20)))
    land(outcomes(small), tmp_path, "late.csv", [{"id": "0", "y": "f"}])
    land(small, tmp_path, "b.csv", rows(*range(20, 30)))
    land(outcomes(small), tmp_path, "later.csv", [{"id": "2", "y": "f"}])
    times = [(DAY + dt.timedelta(hours=hour)).isoformat() for hour in hours]
    said = {(ROWS, 1): times[0], (OUTCOMES, 1): times[1], (ROWS, 2): times[2], (OUTCOMES, 2): times[3]}
    true = Lake.versions

    def jumping(lake: Lake, kind: str = ROWS) -> Iterator[Version]:
        return (replace(each, at=said.get((kind, each.number), DAY.isoformat())) for each in true(lake, kind))

    monkeypatch.setattr(Lake, "versions", jumping)
    listed = [(row["snapshot"], row["at"]) for row in looking.versions("small", Settings())]
    assert listed == [*zip(("v2.2", "v2", "v1.1", "v1"), times[::-1], strict=True), ("v0", DAY.isoformat())]


def test_i_05_an_outcome_that_says_what_the_row_says_changes_nothing(small, tmp_path: Path):
    """The same labels once more give the same digest, so nothing is trained for them."""
    land(small, tmp_path, "a.csv", rows(*range(20)))
    before = newest(small.lake)
    land(outcomes(small), tmp_path, "late.csv", [{"id": str(n), "y": "tf"[n % 2]} for n in range(20)])
    assert newest(small.lake).digest == before.digest


def test_i_05_the_newest_outcome_counts_whatever_came_first(small, tmp_path: Path):
    """Two files in either order give the same labels and the same digest."""
    land(small, tmp_path, "a.csv", rows(*range(4)))
    new = [{"id": "1", "y": "t", "outcome_at": "2026-01-20T00:00:00Z"}]
    old = [
        {"id": "1", "y": "f", "outcome_at": "2026-01-10T00:00:00Z"},
        {"id": "2", "y": "f", "outcome_at": "2026-01-10T00:00:00Z"},
    ]
    land(outcomes(small), tmp_path, "new.csv", new)
    land(outcomes(small), tmp_path, "old.csv", old)
    assert labels(small.lake) == {0: True, 1: True, 2: False, 3: False}
    other = Settings(home=tmp_path / "other")
    land(ingest.Landings(small.use, other), tmp_path, "a.csv", rows(*range(4)))
    mirrored = ingest.Landings(small.use, other, kind="outcomes")
    land(mirrored, tmp_path, "old.csv", old)
    land(mirrored, tmp_path, "new.csv", new)
    assert newest(mirrored.lake).digest == newest(small.lake).digest


@pytest.mark.parametrize("back", [dt.timedelta(hours=1), dt.timedelta(days=365)])
@pytest.mark.parametrize("name", ["a.csv", "other.csv"])
def test_s_10_an_outcome_that_is_told_after_the_clock_went_back_counts(small, tmp_path: Path, back, name):
    """Without a time it is newer than what it corrects, under one name or another, and again; what a file says is in the future is so still (S-10, I-20)."""
    land(small, tmp_path, "rows.csv", rows(*range(4)))
    truth, late = labels(small.lake), dt.datetime(2027, 3, 1, tzinfo=dt.UTC)
    before, after = (
        ingest.Landings(small.use, Settings(), lambda at=at: at, kind="outcomes") for at in (late, late - back)
    )
    land(before, tmp_path, "a.csv", [{"id": "0", "y": "f"}, {"id": "1", "y": "t"}])
    first = newest(small.lake)
    corrected = land(after, tmp_path, name, [{"id": "0", "y": "t"}, {"id": "1", "y": "t"}, {"id": "2", "y": "f"}])
    assert counts(corrected) == (3, 2, 0, 1)
    assert labels(small.lake) == truth | {0: True, 1: True, 2: False}
    assert labels(small.lake, first.name) == truth | {0: False, 1: True}
    assert counts(land(after, tmp_path, name, [{"id": "0", "y": "f"}])) == (1, 1, 0, 0)
    assert labels(small.lake)[0] is False
    future = [{"id": "3", "y": "t", "outcome_at": (late + dt.timedelta(days=2)).isoformat()}, *told(3)]
    assert counts(land(after, tmp_path, "future.csv", future)) == (2, 1, 1, 0)


def test_i_05_outcomes_that_are_known_do_not_land_again(small, tmp_path: Path):
    """A daily dump of all labels without times is known, but for what is new in it; the same bytes are known as ever."""
    land(small, tmp_path, "a.csv", rows(*range(20)))
    dump = [{"id": str(n), "y": "t"} for n in range(10)]
    assert counts(land(outcomes(small), tmp_path, "monday.csv", dump)) == (10, 10, 0, 0)
    small.journal.announced("small")
    assert counts(land(outcomes(small, 1), tmp_path, "again.csv", dump)) == (10, 0, 0, 10)
    tuesday = [*dump[1:], {"id": "0", "y": "f"}, {"id": "11", "y": "t"}]
    assert counts(land(outcomes(small, 1), tmp_path, "tuesday.csv", tuesday)) == (11, 2, 0, 9)
    assert labels(small.lake)[0] is False
    assert small.journal.totals("small")["outcomes"] == 12
    assert small.journal.totals("small")["rows"] == 20


def test_i_05_a_broken_outcome_goes_to_quarantine_and_an_outcome_without_a_row_waits(small, tmp_path: Path):
    """Every outcome is accounted for; one whose row has not come labels nothing until it comes."""
    landing = land(outcomes(small), tmp_path, "early.csv", [{"id": "7", "y": "t"}, {"id": "8", "y": "maybe"}])
    assert counts(landing) == (2, 1, 1, 0)
    assert (landing.rules, landing.snapshot) == ({"y is no bool": 1}, None)
    land(small, tmp_path, "a.csv", rows(7, 8, 9))
    assert labels(small.lake) == {7: True, 8: True, 9: False}
    settings = Settings()
    again = ingest.Landings(Project.named("small", settings), settings, kind="outcomes").replay("early.csv")
    assert (again.state, counts(again)) == ("known", (1, 0, 1, 0))


def test_i_05_the_bytes_of_a_batch_of_rows_are_no_outcomes(small, tmp_path: Path):
    """A file that came as rows is refused as outcomes, with the reason."""
    land(small, tmp_path, "a.csv", rows(*range(4)))
    with pytest.raises(BatchError, match="came as rows before"):
        outcomes(small).land(tmp_path / "a.csv")


def test_i_19_rows_without_a_label_wait_for_it_and_neither_teach_nor_judge(late, tmp_path: Path):
    """Rows may land before their label; they are counted as pending, and are learned from when the outcome has come."""
    landing = land(late, tmp_path, "a.csv", [*rows(*range(100)), *rows(*range(100, 120), y="")])
    assert counts(landing) == (120, 120, 0, 0)
    root = Settings().lake("small")
    split = parts(late.use, newest(late.lake), root)
    assert (split.immature, len(split.train) + len(split.validation) + len(split.holdout)) == (20, 100)
    land(outcomes(late), tmp_path, "late.csv", [{"id": str(n), "y": "t"} for n in range(100, 105)])
    split = parts(late.use, newest(late.lake), root)
    assert (split.immature, len(split.train) + len(split.validation) + len(split.holdout)) == (15, 105)


def test_i_19_a_delay_is_taken_off_once_where_labels_come_as_outcomes(late, tmp_path: Path):
    """A row a day for 100 days, each outcome 20 days after: all 80 that have come are final, and teach, judge and may be set apart."""
    text = SMALL.replace("y: {type: bool}", "y: {type: bool, nullable: true}").replace(
        "column: at", "column: at, matures: 20"
    )
    settings = Settings()
    (settings.projects / "small" / "project.yaml").write_text(text + "trusted: {share: 0.5, fewest: 20}")
    use = Project.named("small", settings)
    days = [(DAY + dt.timedelta(days=n)).isoformat() for n in range(100)]
    land(late, tmp_path, "a.csv", [{"id": str(n), "at": at, "age": "1", "y": ""} for n, at in enumerate(days)])
    land(outcomes(late), tmp_path, "late.csv", [{"id": str(n), "y": "tf"[n % 2]} for n in range(80)])
    split = parts(use, newest(late.lake), settings.lake("small"))
    with judging():
        holdout = split.holdout.rows
    assert (holdout["id"].max(), split.immature) == (79, 20)
    assert len(split.train) + len(split.validation) + len(holdout) == 80
    ready = Trust(use, settings).ready(newest(late.lake), "a test")
    assert late.lake.apart(ready.trusted)["id"].max() > 59


def test_i_19_positives_that_are_labelled_first_are_no_reason_to_hold(late, tmp_path: Path):
    """Which labels come first says nothing about the world: the outcomes land, and rows are judged against rows only."""
    for n in range(6):
        land(late, tmp_path, f"{n}.csv", rows(*range(n * 100, n * 100 + 100)))
    landing = land(outcomes(late), tmp_path, "late.csv", [{"id": str(n), "y": "t"} for n in range(300)])
    assert (landing.state, landing.findings) == ("landed", ())
    assert all("outcome_at" not in Profile.model_validate_json(text).model_dump_json() for text in late.journal.profiles("small", 10))  # fmt: skip


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_s_01_outcomes_land_exactly_once_across_a_fault_at_every_step(small, tmp_path: Path, monkeypatch, swept, fault):
    """A kill or an I/O error before the n-th durable step, for every n: the next attempt ends with each outcome once."""
    file, step, done = write_rows(tmp_path / "late.csv", [{"id": "3", "y": "t"}, {"id": "x", "y": "t"}]), 0, False
    while not done:
        settings, seen = Settings(home=tmp_path / f"home{fault.__name__}{step}"), iter(range(step))
        land(ingest.Landings(small.use, settings), tmp_path, "a.csv", rows(*range(20)))
        landings = ingest.Landings(small.use, settings, kind="outcomes")

        def seam(what: str, left=seen) -> None:
            if next(left, None) is None:
                raise fault(f"at {what}")

        monkeypatch.setattr(durable, "seam", seam)
        try:
            landings.land(file)
            done = True
        except fault:
            pass
        monkeypatch.setattr(durable, "seam", lambda _what: None)
        landings.land(file)
        row = landings.journal.batches("small")[-1]
        assert (row["kind"], row["landed"], row["quarantined"], row["known"]) == ("outcomes", 1, 1, 0), step
        assert landings.journal.intent("small") is None
        assert [file.rows for file in landings.table.files(landings.table.open())] == [1], step
        assert labels(landings.lake)[3] is True
        step += 1
    swept(step - 1)
    assert step > 6


def test_a_window_of_time_is_a_snapshot_of_its_own(small, tmp_path: Path):
    """A window has its own digest, reads its rows only, and is found again by its name."""
    land(small, tmp_path, "a.csv", rows(*range(28)))
    whole = newest(small.lake)
    found = found_as(small.lake, "@2026-01-05..2026-01-10")
    assert sorted(small.lake.read(found)["id"]) == [4, 5, 6, 7, 8]
    assert (found.rows, found.since[:10], found.until[:10]) == (5, "2026-01-05", "2026-01-09")
    assert found.digest != whole.digest
    assert found_as(small.lake, found.name) == found
    assert found_as(small.lake, "v1@2026-01-10..").rows == 19
    assert small.lake.changes(found, whole, ("id",)) == {"added": 23, "removed": 0, "changed": 0}
    with pytest.raises(ArtifactError, match="is no moment"):
        snapshot_named(small.lake, "@soon..")


@pytest.mark.parametrize(
    ("spelled", "kind", "said", "means"),
    [
        ("bool", "positive: true", "t", True),
        ("float", "kind: regression", "0.5", 0.5),
        ("category", "positive: 't'", "t", "t"),
    ],
)
def test_i_05_rows_that_landed_before_there_was_a_target_are_labelled_by_outcomes(
    small, tmp_path: Path, spelled: str, kind: str, said: str, means: object
):
    """Their target is empty until then, whatever its type, and of a row without an outcome it stays so."""
    column = "    y: {type: bool, nullable: true}\n"
    before = under((column, ""), ("  target: y\n", ""), ("positive: true", "kind: anomaly"))
    land(before, tmp_path, "a.csv", [{name: row[name] for name in ("id", "at", "age")} for row in rows(*range(20))])
    unlabelled_yet = newest(before.lake)
    after = under((column, column.replace("bool", spelled)), ("positive: true", kind))
    land(outcomes(after), tmp_path, "late.csv", [{"id": str(n), "y": said} for n in range(12)])
    read = after.lake.read(newest(after.lake)).set_index("id")["y"]
    assert read.dropna().to_dict() == dict.fromkeys(range(12), means)
    assert (len(read), newest(after.lake).name[:4]) == (20, "v1.1")
    assert after.lake.read(found_as(after.lake, unlabelled_yet.name))["y"].isna().all()
    split = parts(after.use, newest(after.lake), Settings().lake("small"))
    with judging():
        assert len(split.train) + len(split.validation) + len(split.holdout) + len(split.gap) == 12
    assert split.immature == 8
    land(after, tmp_path, "b.csv", [row | {"y": said} for row in rows(30, 31)])
    assert newest(after.lake).rows == 22
    assert after.lake.read(newest(after.lake))["y"].count() == 14


@pytest.mark.parametrize("change", [(WIDER,), OTHER, (WIDER, *OTHER)])
@pytest.mark.parametrize("number", [False, True])
def test_i_05_a_snapshot_keeps_the_labels_that_it_had_whatever_becomes_of_key_and_target(
    small, tmp_path: Path, change: tuple, number: bool
):
    """What landed under another key or target is joined by those, under which it landed: same names, same values, same digest."""
    before = under(*(NUMBER if number else ()))
    land(before, tmp_path, "a.csv", unlabelled(*range(20)))
    land(outcomes(before), tmp_path, "late.csv", told(*range(5), y="0.25" if number else "t"))
    old = newest(before.lake)
    read = before.lake.read(old)
    after = under(*change)
    assert found_as(after.lake, old.name) == old
    same = after.lake.read(old)
    pd.testing.assert_frame_equal(same[read.columns], read)
    assert set(same.columns) - set(read.columns) <= {"z"}
    assert same["y"].notna().sum() == 5


@pytest.mark.parametrize("change", [(WIDER,), OTHER])
def test_i_05_outcomes_under_another_key_or_target_label_nothing_new_and_a_training_says_so(
    small, tmp_path: Path, change: tuple
):
    """The newest snapshot is without them, and what is refused for want of labels names the columns that they lack and the next move."""
    before = under()
    land(before, tmp_path, "a.csv", unlabelled(*range(20)))
    land(outcomes(before), tmp_path, "late.csv", told(*range(20)))
    assert before.lake.unjoined(newest(before.lake)) == ""
    after = under(*change)
    assert (newest(after.lake).outcomes, after.lake.labels()) == (None, None)
    recent = after.lake.recent(None)
    assert recent is not None
    assert recent.outcomes is None
    columns = "id, at, y" if change == (WIDER,) else "id, z"
    prepared = described(after)
    assert prepared.refused.startswith("too few rows: the train part has 0")
    assert prepared.refused.endswith(
        f"20 outcomes are left out: they landed without all of the columns {columns}, the contract's key and target of "
        "today; where it was not done yet, land the same files again with these columns"
    )
    assert prepare.said(prepared).count(prepared.unjoined) == 1


def test_i_05_outcomes_land_again_under_a_wider_key(small, tmp_path: Path):
    """Those that have the new key label rows by it; the others are left out, before compaction and after it, and what they labelled before reads as it did."""
    before = under()
    land(before, tmp_path, "a.csv", unlabelled(*range(20)))
    land(outcomes(before), tmp_path, "late.csv", told(*range(20)))
    old, after = newest(before.lake), under(WIDER)
    land(after, tmp_path, "b.csv", [row | {"id": "1"} for row in unlabelled(2)])
    landing = land(
        outcomes(after), tmp_path, "late2.csv", [told(1)[0] | {"at": at(2)}, told(3, y="f")[0] | {"at": at(3)}]
    )
    assert counts(landing) == (2, 2, 0, 0)
    found, wanted = newest(after.lake), {(1, at(2)[:10]): True, (3, at(3)[:10]): False}

    def labelled(snapshot: Snapshot) -> dict[tuple[int, str], bool]:
        read = after.lake.read(snapshot).dropna(subset="y")
        return {(row["id"], f"{row['at']:%Y-%m-%d}"): row["y"] for row in read.to_dict("records")}

    assert (labelled(found), found.version) == (wanted, 2)
    assert after.lake.unjoined(found).startswith("20 outcomes are left out")
    with after.alone():
        compact(after, DAY)
    assert labelled(newest(after.lake)) == wanted
    assert (newest(after.lake).digest, labelled(found)) == (found.digest, wanted)
    assert len(labelled(old)) == 20
    assert len(before.lake.read(old)) == 20
    under()  # the contract as it was
    settings = Settings()
    again = ingest.Landings(Project.named("small", settings), settings).lake
    assert set(again.read(old)["y"]) == {True}
    with pytest.raises(ArtifactError, match=r"'v2.3.*' of small is not what the table holds"):
        snapshot_named(again, found.name)
    with pytest.raises(ArtifactError, match="or put the contract's key and target back"):
        again.read(found)


def test_i_05_outcomes_under_several_targets_say_so_when_the_contract_has_another_one(small, tmp_path: Path):
    """A version that holds outcomes of two targets can be read while the contract has one of them, and is refused in words else."""
    before = under()
    land(before, tmp_path, "a.csv", unlabelled(*range(20)))
    land(outcomes(before), tmp_path, "late.csv", told(*range(5)))
    after = under(*OTHER)
    land(
        outcomes(after),
        tmp_path,
        "other.csv",
        [{"id": row["id"], "z": "f", "outcome_at": "2026-01-30T00:00:00Z"} for row in told(*range(3))],
    )
    both = newest(after.lake)
    assert after.lake.read(both)["z"].dropna().tolist() == [False] * 3, "older than the outcomes of the other target"
    third = under(("target: y", "target: w"), ("y: {type: bool, nullable: true}", "w: {type: bool, nullable: true}"))
    assert newest(third.lake).name[:3] == "v1-"
    with pytest.raises(
        ArtifactError, match=r"landed under several keys or targets, and none of them with the columns id, w,.*Put back"
    ):
        third.lake.read(both)


def test_i_05_the_same_file_of_outcomes_tells_the_target_under_its_new_name(small, tmp_path: Path):
    """It corrects what it said under the old name, so nothing is left out any more."""
    before = under()
    land(before, tmp_path, "a.csv", unlabelled(*range(20)))
    land(outcomes(before), tmp_path, "late.csv", told(*range(5)))
    after = under(*OTHER)
    content = [{"id": row["id"], "z": "t", "outcome_at": row["outcome_at"]} for row in told(*range(5))]
    landing = land(outcomes(after), tmp_path, "late.csv", content)
    assert (landing.landed, landing.replaced) == (5, 5)
    assert after.lake.read(newest(after.lake))["z"].sum() == 5
    assert after.lake.unjoined(newest(after.lake)) == ""


def test_i_05_outcomes_without_a_time_land_under_another_key_or_target(small, tmp_path: Path):
    """What was told before under the old ones is no reason to take them for known."""
    before = under()
    land(before, tmp_path, "a.csv", unlabelled(*range(20)))
    land(outcomes(before), tmp_path, "late.csv", [{"id": "1", "y": "t"}])
    wider = under(WIDER)
    assert land(outcomes(wider, day=1), tmp_path, "wide.csv", [{"id": "1", "at": at(1), "y": "t"}]).landed == 1
    other = under(*OTHER)
    assert land(outcomes(other, day=2), tmp_path, "other.csv", [{"id": "1", "z": "t"}]).landed == 1


def test_i_05_a_narrower_key_keeps_the_labels_that_landed(small, tmp_path: Path):
    """Outcomes that have every column of the new key, and more, label the rows that they were told of."""
    before = under(WIDER)
    land(before, tmp_path, "a.csv", unlabelled(*range(20)))
    land(outcomes(before), tmp_path, "late.csv", [told(n)[0] | {"at": at(n)} for n in range(5)])
    old, after = newest(before.lake), under()
    assert newest(after.lake) == old
    assert labels(after.lake, old.name) == labels(before.lake, old.name)
    land(outcomes(after), tmp_path, "more.csv", told(*range(5, 9)))
    with after.alone():
        compact(after, DAY)
    assert [n for n, y in labels(after.lake).items() if y is True] == [*range(9)]
    assert labels(after.lake, old.name) == labels(before.lake, old.name)


def test_a_row_that_is_older_than_a_column_of_the_key_has_no_such_key(small, tmp_path: Path):
    """It is not taken for the row whose key has a zero there: that one lands, and its outcome labels it alone."""
    before = under()
    land(before, tmp_path, "a.csv", unlabelled(1, 2))
    after = under(("key: [id]", "key: [id, shop]"), ("    id:", "    shop: {type: int}\n    id:"))
    new = [row | {"shop": "0"} for row in unlabelled(1)]
    assert counts(land(after, tmp_path, "b.csv", new)) == (1, 1, 0, 0)
    land(outcomes(after), tmp_path, "late.csv", [told(1)[0] | {"shop": "0"}])
    read = after.lake.read(newest(after.lake))
    assert read["shop"].dropna().tolist() == read.dropna(subset="y")["shop"].tolist() == [0]
    names = after.lake.names(newest(after.lake))
    assert len(after.lake.keys(newest(after.lake), names)) == 3
