"""Footprints: equal trainings leave equal ones, and of two that differ the first difference has a name."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ml import footprint as ml
from tasks.ml.footprint import Divergence, Footprint, differing, judged

LEAVES = st.one_of(st.integers(), st.text(max_size=3), st.none(), st.booleans())
FACTS = st.dictionaries(
    st.sampled_from("abc"), st.one_of(LEAVES, st.lists(LEAVES, max_size=2), st.dictionaries(st.just("x"), LEAVES))
)
MADE: dict[str, dict[str, Any]] = {
    "environment": {"python": "3.11.2", "packages": {"numpy": "2.3.1"}, "lock": "l", "commit": "c", "code": {"tasks/ml/a.py": "1"}},
    "configuration": {"search": {"trials": 4}},
    "seed": {"search": {"seed": 7}},
    "threads": {"threads": 1},
    "snapshot": {"digest": "d"},
    "recipe": {"family": {"kind": "logistic"}},
    "parameters": {"sha256": "p"},
    "answers": {"sha256": "a"},
}  # fmt: skip


def made(**changes) -> Footprint:
    """The footprint of a training; changed facts by `step__fact__fact`."""
    facts = copy.deepcopy(MADE)
    for path, value in changes.items():
        *way, last = path.split("__")
        node: dict[str, Any] = facts
        for name in way:
            node = node[name]
        node[last] = value
    found = Footprint()
    for name, each in facts.items():
        found = found.then(name, each)
    return found


def verdict(found: Footprint, *, distance=0.0, stopped=None, recorded=None):
    """What comes of comparing with the usual footprint."""
    return judged("any", 1, recorded or made(), found, stopped, distance, 1e-6)


@settings(deadline=None)
@given(st.lists(FACTS, max_size=4))
def test_a_footprint_differs_from_itself_in_nothing(facts):
    """Whatever the facts are, written as JSON and read again they are the same."""
    one = Footprint()
    for number, each in enumerate(facts):
        one = one.then(str(number), each)
    again = Footprint.model_validate_json(one.model_dump_json())
    assert all(not differences for _, differences in one.parts_from(again))


@settings(deadline=None)
@given(FACTS, FACTS)
def test_other_facts_are_a_difference(one, other):
    """Two steps have no difference exactly when their facts are equal."""
    same = not list(ml.Step(name="s", facts=one).differences(ml.Step(name="s", facts=other)))
    assert same == (ml.Step(name="s", facts=one).digest == ml.Step(name="s", facts=other).digest)


@pytest.mark.parametrize(
    ("change", "kind", "name", "recorded", "found"),
    [
        ({"environment__packages": {"numpy": "2.4.0"}}, "package", "numpy", "2.3.1", "2.4.0"),
        ({"environment__code": {"tasks/ml/a.py": "2"}}, "code", "tasks/ml/a.py", "1", "2"),
        ({"environment__code": {}}, "code", "tasks/ml/a.py", "1", "nothing"),
        ({"environment__python": "3.12.0"}, "python", "python", "3.11.2", "3.12.0"),
        ({"environment__lock": "m"}, "lock", "lock", "l", "m"),
        ({"configuration__search__trials": 5}, "configuration", "search.trials", 4, 5),
        ({"seed__search__seed": 8}, "seed", "search.seed", 7, 8),
        ({"threads__threads": 2}, "threads", "threads", 1, 2),
        ({"recipe__family": {"kind": "ridge"}}, "recipe", "family.kind", "logistic", "ridge"),
    ],
)
def test_the_fact_that_differs_is_named(change, kind, name, recorded, found):
    """Package, file, key, seed: kind, name and both values, in one sentence that has them all."""
    (step,) = [differences for _, differences in made().parts_from(made(**change)) if differences]
    assert (step[0].kind, step[0].name, step[0].recorded, step[0].found) == (kind, name, recorded, found)
    assert name in step[0].cause


def test_the_first_step_that_diverges_is_the_cause():
    """What follows from a difference does not hide it: the order of the steps decides."""
    found = verdict(
        made(answers__sha256="b", parameters__sha256="q", seed__search__seed=8, configuration__search__trials=5),
        distance=0.1,
    )
    assert found.verdict == "DIFFERENT"
    assert found.diverges is not None
    assert (found.diverges.step, found.diverges.name) == ("configuration", "search.trials")
    assert "configuration: search.trials was 4, is 5; seed: search.seed was 7, is 8" in found.reason
    assert [step["step"] for step in found.steps if step["same"] is False] == [
        "configuration", "seed", "parameters", "answers",
    ]  # fmt: skip


def test_a_commit_alone_is_no_difference():
    """A commit that changed no code is told by no step."""
    assert verdict(made(environment__commit="other")).diverges is None


@pytest.mark.parametrize(
    ("change", "distance", "said"),
    [({}, 0.0, "EXACT"), ({"parameters__sha256": "q"}, 9e-7, "NUMERIC"), ({"parameters__sha256": "q"}, 2e-6, "DIFFERENT"), ({"parameters__sha256": "q"}, None, "DIFFERENT")],
    ids=["equal", "near", "far", "not asked the same"],
)  # fmt: skip
def test_the_verdict_follows_parameters_and_then_answers(change, distance, said):
    """Equal parameters are EXACT; else answers within the tolerance are NUMERIC; else DIFFERENT."""
    assert verdict(made(**change), distance=distance).verdict == said


def test_what_stopped_it_is_what_is_named_first():
    """A training that could not be made again is DIFFERENT because of that, even where something else differs, too; later steps were not reached."""
    stopped = Divergence(
        step="snapshot", kind="row", name="id=7", recorded="x", found="y", cause="row id=7 was changed since"
    )
    begun = Footprint(steps=made(environment__lock="m").steps[:4])
    found = verdict(begun, distance=None, stopped=stopped)
    assert (found.verdict, found.diverges) == ("DIFFERENT", stopped)
    assert [step["same"] for step in found.steps] == [False, True, True, True, False, None, None, None]
    assert "also lock: lock was l, is m" in found.reason


@pytest.mark.parametrize(("threads", "why"), [(1, "does not repeat"), (4, "OMP_NUM_THREADS=1")])
def test_o_17_other_parameters_of_the_same_inputs_have_a_reason(threads, why):
    """With several threads sums end in any order; with one the fit itself is to blame (O-17)."""
    recorded = made(threads__threads=threads)
    found = verdict(made(threads__threads=threads, parameters__sha256="q"), recorded=recorded, distance=1e-9)
    assert found.verdict == "NUMERIC"
    assert why in found.reason


# -- rows -------------------------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(
    st.sets(st.binary(min_size=16, max_size=16), max_size=20), st.sets(st.binary(min_size=16, max_size=16), max_size=20)
)
def test_rows_are_told_apart_as_sets_are(old, new):
    """Missing and added names are the two differences of Python's sets."""
    arrays = [np.frombuffer(b"".join(sorted(names)), dtype=np.uint8).reshape(-1, 16) for names in (old, new)]
    missing, added = ml.apart(*arrays)
    assert {bytes(row) for row in missing} == old - new
    assert {bytes(row) for row in added} == new - old


@pytest.mark.parametrize(
    ("missing", "added", "name", "cause"),
    [
        ({"aa": "id=7"}, {"bb": "id=7"}, "id=7", "row id=7 was changed since"),
        ({"aa": ""}, {"bb": "id=7"}, "id=7", "row id=7 was changed since"),
        ({"aa": "id=7"}, {}, "id=7", "row id=7 is missing"),
        ({"aa": ""}, {}, "named aa", "row named aa is missing"),
        ({}, {"bb": "id=9"}, "id=9", "row id=9 was not there then"),
        ({"aa": "id=7"}, {"bb": "id=8"}, "id=7", "row id=7 is missing (in all: 1 missing, 1 added)"),
        ({"aa": "id=7", "ab": "id=6"}, {"bb": "id=7"}, "id=7", "row id=7 was changed since (in all: 1 changed, 1 missing)"),
    ],
)  # fmt: skip
def test_a_row_is_changed_missing_or_added(missing, added, name, cause):
    """The same key on both sides is a change; one for one without a known key, too; the rest is missing or added."""
    found = differing(missing, added, "snapshot")
    assert (found.kind, found.name, found.cause) == ("row", name, cause)


# -- facts ------------------------------------------------------------------------------------------------------------
def test_every_value_of_a_frame_counts():
    """Another value, another order, another name: another content; a copy has the same."""
    frame = pd.DataFrame({"a": [1.0, np.nan], "b": pd.Series(["x", None], dtype="str")})
    others = [frame[::-1], frame.rename(columns={"a": "c"}), frame.assign(a=[1.0, 0.0]), frame.assign(b=["x", "y"])]
    assert ml.content(frame.copy()) == ml.content(frame)
    assert len({ml.content(frame), *map(ml.content, others)}) == 5


def test_the_tolerance_follows_the_span_of_numbers():
    """A millionth for probabilities, and of the span of what was answered where answers are numbers."""
    numbers = np.array([-100.0, 0.0, 300.0])
    assert ml.tolerance(numbers, has_chances=False) == pytest.approx(400e-6)
    assert ml.tolerance(numbers / 1000, has_chances=True) == 1e-6
