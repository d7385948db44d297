"""The other model of a rollout, beside a real serving process: it changes no answer that is not its own, and it is brought back by evidence."""

import datetime as dt
import json
import signal

import httpx
import pytest

from tasks.config.settings import Settings
from tasks.ml.rollout import Canary, Probation, RolloutPlan, Shadow
from tasks.rollout import Watch
from tasks.stores import bundles
from tasks.stores.journal import Rollout
from tasks.stores.predictions import Told
from tasks.stores.shadows import Shadows
from tests.samples import PROJECT
from tests.stage import FEATURES, GOOD, Stage, constant, until

RAISES = """
def features(rows):
    if (rows["age"] >= 50).any():
        raise ArithmeticError("no")
    return rows[["age"]].rename(columns={"age": "more"})
"""
BLOCKS = """
import time
from pathlib import Path
def features(rows):
    while (rows["age"] >= 50).any() and not Path("@").exists():
        time.sleep(0.01)
    return rows[["age"]].rename(columns={"age": "more"})
"""
HARD = GOOD | {"age": 60.0}
OFTEN = Probation(every=0.001)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A running process of two workers whose champion of flights is version 1; its challengers say 0.8 (2), raise (3), or hang (4)."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    stage.write(1, 0.2)
    stage.write(2, 0.8)
    hooked(stage, 3, RAISES)
    hooked(stage, 4, BLOCKS.replace("@", str(stage.home / "go")))
    stage.release(1)
    project = stage.home / "projects" / "flights" / "project.yaml"
    project.parent.mkdir(parents=True)
    project.write_text(PROJECT.format(name="flights") + 'labels: ["false", "true"]\n')
    stage.start(SERVING_WORKERS=2)
    until(stage.answers, 120)
    yield stage
    (stage.home / "go").touch()
    stage.stop()


@pytest.fixture
def clean(stage):
    """The stage with version 1 as champion and no rollout, before and after; what hung in one test goes on before the next asks for it."""
    yield stage
    (stage.home / "go").touch()
    if going := stage.journal.rollout("flights"):
        stage.journal.move_rollout(going, phase="overtaken")
    champion = stage.journal.champion("flights")
    stage.generation = champion.generation
    if champion.version != 1:
        stage.release(1)
    until(lambda: stage.version() == 1)


def hooked(stage, version, source):
    """Writes the bundle of a model with a computed column, which its own code makes."""
    manifest = {
        "project": "flights", "version": version, "kind": "binary", "classes": [False, True], "positive": True, "target": "late",
        "features": FEATURES, "ignored": ["id"], "threshold": 0.5, "computed": {"more": "float"},
    }  # fmt: skip
    folder = stage.home / "bundles" / "flights" / str(version)
    stage.digests[version] = bundles.write(folder, constant(0.8), manifest, {bundles.HOOKS: source.encode()})


def begin(stage, version, phase, **plan):
    """Begins a rollout, and waits until every worker has the other model."""
    now, loaded = dt.datetime.now(dt.UTC).isoformat(), stage.log().count(f"version {version} scores beside")
    whole = RolloutPlan.model_validate({"probation": OFTEN} | plan).model_dump(mode="json")
    begun = stage.journal.begin_rollout(
        Rollout("flights", version, stage.digests[version], 1, stage.digests[1], whole, "a", "r", began=now, phase=phase, since=now)
    )  # fmt: skip
    until(lambda: stage.log().count(f"version {version} scores beside") >= loaded + 2)
    return begun


def canary(share=0.5):
    return {"canary": Canary(share=share, key=("id",), rows=10_000)}


def logged(stage, began):
    """What the shadow has logged since."""
    return [record for record in Shadows(stage.home).read("flights") if record["at"] >= began]


def watch(stage):
    return Watch(Settings(home=stage.home, projects=stage.home / "projects", serving_url=stage.url))


def come_true(stage, answer, value):
    """Reports an outcome for every prediction of an answer."""
    told = Told(stage.home)
    told.tell("flights", dt.datetime.now(dt.UTC), [(each["id"], value, None) for each in answer.json()["predictions"]])
    told.close()


def said(answer):
    """Version and probability of the first prediction."""
    assert answer.status_code == 200
    body = answer.json()
    return body["version"], round(body["predictions"][0]["probabilities"]["true"], 3)


def test_a_shadow_scores_what_was_answered(clean):
    """The answer is the champion's; the shadow's stands in a log of its own under the same id, and holds no row."""
    begun = begin(clean, 2, "shadow", shadow=Shadow(rows=5))
    assert clean.answers("/projects/flights").json()["beside"] == {"version": 2, "phase": "shadow"}
    answer = clean.predict(GOOD | {"id": 7})
    assert said(answer) == (1, 0.2)
    (record,) = until(lambda: logged(clean, begun.began))
    (prediction,) = answer.json()["predictions"]
    assert (record["answered"], record["beside"], record["ids"]) == (1, 2, [prediction["id"]])
    assert record["said"] == [{name: value for name, value in prediction.items() if name != "id"}]
    assert record["thought"][0]["probabilities"]["true"] == pytest.approx(0.8)
    assert "age" not in json.dumps(record)
    assert len(record["ms"]) == 2


@pytest.mark.parametrize("phase", ["shadow", "canary"])
def test_v_12_a_model_that_throws_changes_no_answer(clean, phase):
    """The champion's answers are as ever, in a canary those that the challenger should have given, too; its failures are evidence."""
    begun = begin(clean, 3, phase, **canary())
    for number in range(30):
        assert said(clean.predict(HARD | {"id": number})) == (1, 0.2)
    records = until(lambda: found if len(found := logged(clean, begun.began)) == 30 else None)
    assert {record["answered"] for record in records} == {1}
    assert all(record["thought"] is None and record["said"] for record in records)
    assert watch(clean).look("flights").startswith(f"version 3 undone in its {phase}: it fails more often")
    assert clean.journal.champion("flights").version == 1


def test_v_12_nobody_waits_for_a_shadow_that_hangs(clean):
    """While it hangs hundreds of requests are answered; what finds no room is dropped and counted, or counts as failed; then it scores on."""
    (clean.home / "go").unlink(missing_ok=True)
    begun = begin(clean, 4, "shadow", shadow=Shadow(rows=5))
    for _ in range(100):
        assert said(clean.predict(HARD)) == (1, 0.2)
    before = counted(clean, "dropped")
    for _ in range(12):  # 12,000 rows, where each of the two processes has room for 4,096
        assert said(clean.predict(*[HARD] * 1000)) == (1, 0.2)
    assert counted(clean, "dropped") + len(logged(clean, begun.began)) > before
    (clean.home / "go").touch()
    until(lambda: clean.predict(HARD) and any(record["thought"] for record in logged(clean, begun.began)))


def test_v_12_nobody_waits_long_for_a_canary_that_hangs(clean):
    """The first requests that it should answer wait for its patience; then the champion answers at once. That it hangs is evidence.

    The other half it hangs on in the shadow, which goes on without it.
    """
    (clean.home / "go").unlink(missing_ok=True)
    begun = begin(clean, 4, "canary", **canary())
    numbers = iter(range(10_000))

    def is_undone():
        assert said(clean.predict(HARD | {"id": next(numbers)})) == (1, 0.2)
        return "it fails more often" in (watch(clean).look("flights") or "")

    until(is_undone)
    assert {record["answered"] for record in logged(clean, begun.began)} == {1}


def counted(stage, what):
    """Rows of the rollout that were counted so."""
    page = httpx.get(f"{stage.url}/metrics").text
    line = next((line for line in page.splitlines() if line.startswith("keepfit_rollout_rows_total") and f'"{what}"' in line), " 0")  # fmt: skip
    return float(line.rpartition(" ")[2])


def test_v_13_a_row_has_one_side_in_every_process(clean):
    """Asked again, of another process, with others, in another protocol, by a number that is written otherwise: its key decides."""
    begin(clean, 2, "canary", **canary())
    versions = {number: said(clean.predict(GOOD | {"id": number})) for number in range(60)}
    assert set(versions.values()) == {(1, 0.2), (2, 0.8)}
    for number, first in versions.items():
        with httpx.Client() as fresh:
            again = fresh.post(
                f"{clean.url}/projects/flights/predict", json={"rows": [{"age": 31, "new": False, "id": number}]}
            )
        assert said(again) == first
    rows = [GOOD | {"id": number} for number in range(60)]
    mixed = clean.predict(*rows).json()
    assert [each.get("version", mixed["version"]) for each in mixed["predictions"]] == [first for first, _ in versions.values()]  # fmt: skip
    asked = httpx.post(f"{clean.url}/invocations/flights", json={"dataframe_records": rows}).json()
    assert asked["versions"] == [first for first, _ in versions.values()]
    assert clean.journal.champion("flights").version == 1


def test_a_header_decides_where_the_key_is_not_sent(clean):
    """Without the key's column the header Keepfit-Key does, whatever the row says."""
    begin(clean, 2, "canary", **canary())
    sides = {
        name: {said(clean.predict(GOOD | {"age": age}, headers={"Keepfit-Key": name}))[0] for age in (1.0, 2.0, 3.0)}
        for name in ("anna", "bert", "carl", "dora", "emil", "frieda", "gus", "hanna")
    }
    assert all(len(each) == 1 for each in sides.values())
    assert {side for each in sides.values() for side in each} == {1, 2}


def test_v_13_a_canary_that_loses_more_is_undone(clean):
    """Outcomes come late; once they do, some tens are enough, and the champion answers all. Of a request both models answer rows, and it counts once."""
    begin(clean, 2, "canary", **canary())
    answers = [clean.predict(*[GOOD | {"id": 4 * number + place} for place in range(4)]) for number in range(30)]
    until(lambda: watch(clean).look("flights") or clean.journal.rollout("flights").evidence.get("rows") == 120)
    going = clean.journal.rollout("flights")
    assert (going.phase, going.evidence["judged"]) == ("canary", 0)
    assert going.evidence["warning"].startswith("it is expected to lose more")
    for answer in answers:
        come_true(clean, answer, value=False)
    assert (
        watch(clean).look("flights").startswith("version 2 undone in its canary: it loses more: by 0.6 on 30 requests")
    )
    until(lambda: {said(clean.predict(GOOD | {"id": number}))[0] for number in range(20)} == {1})


def probation(stage, version):
    """Makes a version champion, with version 1 scoring beside it in every worker; gives when that began."""
    loaded = stage.log().count(f"version 1 scores beside version {version}")
    stage.release(version)
    now = dt.datetime.now(dt.UTC).isoformat()
    plan = RolloutPlan(probation=OFTEN).model_dump(mode="json")
    stage.journal.begin_rollout(
        Rollout(
            "flights", version, stage.digests[version], 1, stage.digests[1], plan, "a", "r", began=now, phase="probation", since=now,
            generation=stage.generation,
        )
    )  # fmt: skip
    until(lambda: stage.log().count(f"version 1 scores beside version {version}") >= loaded + 2)
    return now


def test_v_13_a_champion_that_loses_more_is_brought_back(clean):
    """After a release the old one scores on; when outcomes speak against the new one the server answers with the old one again, by itself."""
    began = probation(clean, 2)
    answers = [clean.predict(*[GOOD] * 3) for _ in range(20)]
    assert {said(answer) for answer in answers} == {(2, 0.8)}
    until(lambda: len(logged(clean, began)) == 20)
    for answer in answers:
        come_true(clean, answer, value=False)
    assert "it loses more: by 0.6 on 20 requests" in watch(clean).look("flights")
    assert said(clean.predict(GOOD)) == (1, 0.2)
    back = clean.journal.champion("flights")
    assert (back.kind, back.actor) == ("rollback", "rollout: evidence")
    assert "probation of version 2 beside version 1: it loses more: by 0.6" in back.reason
    assert clean.journal.rollouts("flights")[-1].phase == "undone"


def test_v_13_a_champion_that_fails_is_brought_back(clean):
    """Its clients get refusals, as ever; the old one, asked the same in the shadow, has answers, and soon gives them."""
    began = probation(clean, 3)
    refused = [clean.predict(HARD).status_code for _ in range(20)]
    assert min(refused) >= 400
    records = until(lambda: found if len(found := logged(clean, began)) == 20 else None)
    assert all(record["said"] is None and record["thought"] for record in records)
    assert "it fails more often: by 1 on 20 requests" in watch(clean).look("flights")
    assert said(clean.predict(HARD)) == (1, 0.2)


@pytest.mark.slow  # a process of its own
def test_a_server_that_stops_leaves_a_hanging_shadow(tmp_path):
    """Its end does not wait for a model that has none."""
    stage = Stage(tmp_path)
    stage.write(1, 0.2)
    hooked(stage, 4, BLOCKS.replace("@", str(tmp_path / "go")))
    stage.release(1)
    now = dt.datetime.now(dt.UTC).isoformat()
    plan = RolloutPlan(shadow=Shadow(rows=5)).model_dump(mode="json")
    stage.journal.begin_rollout(
        Rollout("flights", 4, stage.digests[4], 1, stage.digests[1], plan, "a", "r", began=now, phase="shadow", since=now)
    )  # fmt: skip
    stage.start()
    until(lambda: "scores beside" in stage.log(), 120)
    assert said(stage.predict(HARD)) == (1, 0.2)
    assert stage.stop() in {0, -signal.SIGTERM}
