"""The succession changes champions without a gap, and keeps what it will need."""

import asyncio
import os
import shutil
import threading
from dataclasses import replace
from unittest import mock

import pytest

from tasks.serving import succession as module
from tasks.serving.champion import Champion
from tasks.serving.loaded import Loaded
from tasks.serving.metrics import Metrics
from tasks.serving.others import Others
from tasks.serving.succession import Succession
from tasks.stores import bundles
from tasks.stores.journal import Journal, Release, Rollout
from tasks.stores.seals import Seals
from tests.serving.test_champion import GOOD, fitted, manifest, release

TODAY = "2026-01-01T00:00:00+00:00"


class Town:
    """A journal, a folder of bundles, a clock that tests set, and the succession that follows them."""

    def __init__(self, home, model):
        self.home, self.model, self.now, self.generation = home, model, 0.0, 0
        self.url = f"sqlite:///{home / 'keepfit.db'}"
        self.journal = Journal(self.url)
        self.succession = Succession(self.url, lambda project: home / project, clock=lambda: self.now)

    def release(self, version, digest=None):
        """Writes the bundle, journals it, and gives the release."""
        folder = self.home / "flights" / str(version)
        digest = digest or bundles.write(folder, self.model, manifest(version))
        self.generation += 1
        return self.journal.release(release(self.generation, version, digest))

    @property
    def answering(self):
        """The version that answers for flights."""
        return self.succession.champions["flights"].release.version


@pytest.fixture(scope="module")
def model():
    """One fitted pipeline for all tests."""
    return fitted()


@pytest.fixture
def town(tmp_path, model):
    """A town without releases."""
    return Town(tmp_path, model)


def test_the_succession_follows_the_journal(town):
    """First release, next release and a rollback are taken over, each by one swap."""
    town.succession.look()
    assert (town.succession.champions, town.succession.wanted, town.succession.missing()) == ({}, {}, [])
    for version in (1, 2, 1):
        town.release(version)
        town.succession.look()
        assert town.answering == version
    town.succession.look()
    assert town.succession.swaps == 3


def test_the_way_back_puts_in_place_what_is_in_memory(town, monkeypatch):
    """The champion before is not loaded once more, with its bundle gone, too; what was made of it is there. The one before that is loaded."""
    monkeypatch.setattr(Champion, "load", load := mock.Mock(side_effect=Champion.load))
    for version in (1, 2):
        town.release(version)
        town.succession.look()
    first = town.succession.loaded.known(town.home / "flights" / "1", town.succession.champions["flights"].release)
    assert first is town.succession.champions["flights"]
    model = town.succession._before["flights"].model
    shutil.rmtree(town.home / "flights" / "1")
    town.release(1, town.succession._before["flights"].release.digest)
    town.succession.look()
    now = town.succession.champions["flights"]
    assert (now.release.version, now.release.generation, load.call_count) == (1, 3, 2)
    assert now.model is model
    assert "cannot be read" in town.succession.degraded["flights"]
    for version in (3, 2):
        town.release(version)
        town.succession.look()
        assert (town.answering, town.succession.degraded) == (version, {})
    assert load.call_count == 4


def test_r_03_nobody_comes_back_from_memory_whose_signer_is_not_trusted_any_more(town):
    """The key is taken out of the folder of trusted ones between two releases: the way back is refused, until somebody who is trusted has signed it (R-03)."""
    seals = Seals(town.home / "key", town.home / "trusted")
    town.succession = Succession(
        town.url, lambda project: town.home / project, Loaded(seals=seals), clock=lambda: town.now
    )
    digests = [
        bundles.write(town.home / "flights" / str(version), town.model, manifest(version), seals=seals)
        for version in (1, 2)
    ]
    for version, digest in enumerate(digests, start=1):
        town.release(version, digest)
        town.succession.look()
    for key in (town.home / "trusted").iterdir():
        key.unlink()
    town.release(1, digests[0])
    town.succession.look()
    assert town.answering == 2
    assert "nobody here trusts" in town.succession.refused["flights"].reason
    shutil.rmtree(town.home / "flights" / "1")
    other = Seals(town.home / "other", town.home / "trusted")
    assert bundles.write(town.home / "flights" / "1", town.model, manifest(1), seals=other) == digests[0]
    town.now += 30
    town.succession.look()
    assert (town.answering, town.succession.refused) == (1, {})


@pytest.mark.parametrize("most", [0, module.BEFORE_BYTES])
def test_a_challenger_that_scored_in_the_shadow_is_not_loaded_once_more(town, monkeypatch, most):
    """It becomes champion with what is in memory, and the old one, however large, scores beside it in its probation, as it is."""
    monkeypatch.setattr(module, "BEFORE_BYTES", most)
    monkeypatch.setattr(Champion, "load", load := mock.Mock(side_effect=Champion.load))
    others = Others(town.succession, town.url, lambda project: town.home / project)
    first = town.release(1)
    digest = bundles.write(town.home / "flights" / "2", town.model, manifest(2))
    began = Rollout("flights", 2, digest, 1, first.digest, {}, "a", "r", began=TODAY, phase="shadow", since=TODAY)
    shadow = town.journal.begin_rollout(began)
    for _ in range(2):
        town.succession.look()
        others.look()
    pair = others.pairs["flights"]
    assert (pair.other is not None, pair.beside, load.call_count) == (True, 2, 2)
    second = town.release(2, digest)
    town.journal.move_rollout(shadow, phase="probation", generation=second.generation)
    town.succession.look()
    others.look()
    pair = others.pairs["flights"]
    assert (town.answering, pair.other is not None, pair.beside, load.call_count) == (2, True, 1, 2)
    assert pair.champion is town.succession.champions["flights"]


def test_a_large_champion_is_not_kept_when_another_comes(town, monkeypatch):
    """Above a size the champion before is let go, and loaded when it comes back."""
    monkeypatch.setattr(module, "BEFORE_BYTES", 0)
    monkeypatch.setattr(Champion, "load", load := mock.Mock(side_effect=Champion.load))
    for version in (1, 2, 1):
        town.release(version)
        town.succession.look()
    assert (town.answering, load.call_count) == (1, 3)


def test_what_was_verified_is_verified_again_only_where_somebody_has_touched_it(town, monkeypatch):
    """Back and forth between two champions reads neither bundle again; one that is altered is looked at anew at each release, and named while it is champion (R-02)."""
    monkeypatch.setattr(bundles, "fault", fault := mock.Mock(side_effect=bundles.fault))
    for version in (1, 2, 1, 2):
        town.release(version)
        town.succession.look()
    assert (fault.call_count, town.succession.degraded) == (0, {})
    path = town.home / "flights" / "1" / bundles.MODEL
    path.write_bytes(b"another model")
    digests = {each.version: each.digest for each in town.journal.releases("flights")}
    for version, named in ((1, True), (2, False), (1, True)):
        town.release(version, digests[version])
        town.succession.look()
        assert (town.answering, "flights" in town.succession.degraded) == (version, named)
    assert fault.call_count == 2


def test_r_02_a_bundle_that_does_not_verify_keeps_the_old_champion(town, caplog):
    """A refused release is named, logged once, tried again with growing pauses, and taken when it is whole (R-02)."""
    town.release(1)
    town.succession.look()
    town.release(2)
    path = town.home / "flights" / "2" / bundles.MODEL
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"x")
    for _ in range(3):
        town.succession.look()
    assert town.answering == 1
    refused = town.succession.refused["flights"]
    assert refused.describe().items() >= {"version": 2, "generation": 2}.items()
    assert "altered or damaged" in refused.reason
    pauses = []
    for _ in range(9):
        town.now = town.succession.refused["flights"].again
        town.succession.look()
        pauses.append(town.succession.refused["flights"].delay)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert sum("is refused" in record.message for record in caplog.records) == 1
    path.write_bytes(good)
    town.succession.look()
    assert town.answering == 1
    town.now += 30
    town.succession.look()
    assert (town.answering, town.succession.refused) == (2, {})


@pytest.mark.parametrize("path", ["kept", "no copy", "rolled back"])
def test_v_02_killed_before_a_champion_that_does_not_verify_the_last_verified_one_comes_back(town, path):
    """A new process answers with the champion that the old one had a copy of, and says whom it refuses; with none that never answered here or was rolled back (R-02, V-02)."""

    def start():
        town.succession = Succession(
            town.url, lambda project: town.home / project, clock=lambda: town.now, copies=town.home / "served"
        )
        town.succession.look()

    start()
    for version in (1, 2) if path == "rolled back" else (1,):
        town.release(version)
        town.succession.look()
    if path == "rolled back":
        digest = town.journal.releases("flights")[0].digest
        town.generation += 1
        town.journal.release(replace(release(town.generation, 1, digest), kind="rollback"))
        shutil.rmtree(next((town.home / "served" / "flights").glob("1-*")))
        shutil.rmtree(town.home / "flights" / "1")
    if path == "no copy":
        shutil.rmtree(town.home / "served")
    town.release(3)
    model = town.home / "flights" / "3" / bundles.MODEL
    good = model.read_bytes()
    model.write_bytes(b"another model")
    start()
    there = {name: champion.release.version for name, champion in town.succession.champions.items()}
    assert there == ({"flights": 1} if path == "kept" else {})
    assert town.succession.refused["flights"].release.version == 3
    model.write_bytes(good)
    town.now += 30
    town.succession.look()
    assert (town.answering, town.succession.refused) == (3, {})


def test_a_rollback_ends_a_refusal(town):
    """When the journal goes back to what answers, or on to something whole, the refusal is forgotten."""
    town.release(1)
    town.succession.look()
    town.release(2, digest="0" * 64)
    town.succession.look()
    assert set(town.succession.refused) == {"flights"}
    town.release(1)
    town.succession.look()
    assert (town.answering, town.succession.refused) == (1, {})


def test_r_05_a_deleted_bundle_does_not_end_the_answering(town):
    """A champion in memory goes on when its folder is gone (R-05)."""
    town.release(1)
    town.succession.look()
    shutil.rmtree(town.home / "flights")
    town.succession.look()
    assert town.succession.champions["flights"].predict([GOOD])


def test_r_12_a_project_name_cannot_leave_the_folder(town):
    """A journalled name that is no folder's name is refused (R-12)."""
    town.journal.release(Release(**release(1, 1, "0" * 64).__dict__ | {"project": "../flights"}))
    town.succession.look()
    assert "no folder's name" in town.succession.refused["../flights"].reason
    assert town.succession.missing() == ["../flights"]


def test_an_unreadable_journal_is_noted_and_does_not_end_the_answering(town, caplog):
    """While the journal is away the champions answer; when it is back it is followed again."""
    town.release(1)
    town.succession.look()
    path = town.home / "keepfit.db"
    for suffix in ("-wal", "-shm"):
        (town.home / f"keepfit.db{suffix}").unlink(missing_ok=True)
    good = path.read_bytes()
    path.write_bytes(b"no database" * 1000)
    for _ in range(3):
        town.succession.look()
    assert town.succession.trouble == "DatabaseError"
    assert sum("unreadable" in record.message for record in caplog.records) == 1
    assert town.succession.champions["flights"].predict([GOOD])
    path.write_bytes(good)
    town.release(2)
    town.succession.look()
    assert (town.answering, town.succession.trouble) == (2, None)


def test_following_goes_on_until_it_is_cancelled(town):
    """The follower takes over a release without being told, and ends when it is cancelled."""

    async def scene():
        follower = asyncio.create_task(town.succession.follow(every=0.01))
        town.release(1)
        async with asyncio.timeout(30):
            while not town.succession.champions:
                await asyncio.sleep(0)
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower

    asyncio.run(scene())
    assert town.answering == 1


def test_following_outlasts_a_fault_that_nobody_foresaw(town, monkeypatch, caplog):
    """It is logged by its kind, and the next release is taken over; what was to be looked at is looked at again, and what was just loaded is not."""
    fault, met = bundles.fault, []

    def raising(*what, **how):
        met.append(what)
        if len(met) == 1:
            raise ValueError("secret")
        return fault(*what, **how)

    async def scene():
        follower = asyncio.create_task(town.succession.follow(every=0.01))
        async with asyncio.timeout(30):
            while len(met) < 2:
                await asyncio.sleep(0.01)
            town.release(2)
            while town.answering != 2:
                await asyncio.sleep(0.01)
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower

    town.release(1)
    town.succession.look()
    os.utime(town.home / "flights" / "1" / bundles.MANIFEST)
    monkeypatch.setattr(bundles, "fault", raising)
    asyncio.run(scene())
    assert met[1] == met[0]
    met.clear()
    town.release(1)
    town.succession.look()
    assert (town.answering, met) == (1, [])
    assert "following the journal failed (ValueError)" in caplog.text
    assert "secret" not in caplog.text


def test_the_models_beside_are_followed_after_a_fault_that_nobody_foresaw(town):
    """The journal says something that cannot be; the next look is made all the same."""
    others, met = Others(town.succession, town.url, lambda project: town.home / project), []

    def look():
        met.append(1)
        if len(met) == 1:
            raise ValueError

    async def scene():
        others.look = look
        follower = asyncio.create_task(others.follow(every=0.01))
        async with asyncio.timeout(30):
            while len(met) < 2:
                await asyncio.sleep(0.01)
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower

    asyncio.run(scene())


def test_a_process_that_loads_its_first_champion_says_that_it_has_none_yet(town, monkeypatch):
    """Generation 0 stands in its counters as soon as it has read the journal, so that nobody takes another process's for everybody's; then the release."""
    meter, gate, load = Metrics(town.succession), threading.Event(), Champion.load

    def loaded(*what, **how):
        assert gate.wait(30)
        return load(*what, **how)

    def said():
        return meter._registry.get_sample_value("keepfit_champion_generation", {"project": "flights"})

    async def scene():
        follower = asyncio.create_task(town.succession.follow(every=0.01, told=meter.look))
        async with asyncio.timeout(10):
            for wanted in (0.0, 1.0):
                while said() != wanted:
                    await asyncio.sleep(0.01)
                gate.set()
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower

    town.release(1)
    monkeypatch.setattr(Champion, "load", loaded)
    asyncio.run(scene())
