"""Landing when the disk is full, when memory is short, and when bytes at rest or on their way have changed."""

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tasks import ingest
from tasks.config.errors import ArtifactError, BatchError
from tasks.config.settings import Settings
from tests.samples import MEMORY, write_rows
from tests.tasks.test_ingest import SMALL, counts, rows, small
from tests.tasks.test_outcomes import newest

__all__ = ["small"]
LEAN = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
}  # what allocators only reserve counts against a limit of addresses
FULL = (
    "No space left",
    "disk is full",
    "os error 28",
    "disk I/O error",
)  # the last one is SQLite's, about its shared memory
LAND = (
    MEMORY
    + """
import json, resource, sys
from tasks.config.project import Project
from tasks.config.settings import Settings
from tasks.ingest import Landings

settings = Settings()
landings = Landings(Project.named("small", settings), settings)
if len(sys.argv) > 2:
    limit = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = memory("VmRSS:")
landing = landings.land(Path(sys.argv[1]))
peak = memory("VmHWM:") - before
print(json.dumps({**landing.model_dump(mode="json"), "mebibytes": peak / 2**20}))
"""
)


# -- S-02: the disk is full -------------------------------------------------------------------------------------------
@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many KiB, which may be made larger while it is in use."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(kibibytes: int) -> Path:
        how = "remount," if place.is_mount() else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{how}size={kibibytes}k", "tmpfs", str(place)], capture_output=True, check=False
        )  # fmt: skip
        if done.returncode:
            pytest.skip("no file system can be mounted here; it takes root")
        return place

    yield sized
    if place.is_mount():
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_s_02_a_full_disk_fails_a_landing_cleanly_and_space_lets_it_go_on(small, disk, tmp_path: Path):
    """Whatever write meets the full disk first: the old rows read on, and with space the same file lands exactly once."""
    first, second = (
        write_rows(tmp_path / f"{name}.csv", rows(*numbers))
        for name, numbers in (("a", range(50)), ("b", range(50, 6000)))
    )
    failures, free = 0, 24
    while True:
        home = disk(100_000) / f"home{free}"
        landings = ingest.Landings(small.use, Settings(home=home))
        assert counts(landings.land(first)) == (50, 50, 0, 0)
        before = newest(landings.lake)
        disk(used(home.parent) + free)
        try:
            landings.land(second)
            failed = False
        except Exception as error:
            failed = True
            if not any(said in str(error) for said in FULL):
                raise
        if failed:
            failures += 1
            assert len(landings.lake.read(before)) == 50
            disk(
                used(home.parent) + 64
            )  # SQLite needs 32 KiB of shared memory beside a database in WAL mode, even to read it
            assert landings.journal.totals("small")["rows"] in {50, 6000}
        disk(100_000)
        landings.land(second)
        row = landings.journal.batches("small")[-1]
        assert (row["arrived"], row["landed"], row["known"]) == (5950, 5950, 0)
        assert sorted(landings.lake.rows(["id"])["id"]) == list(range(6000))
        assert (landings.journal.intent("small"), landings.staging.exists()) == (None, False)
        if not failed:
            break
        free += 24
    assert failures > 5


def used(place: Path) -> int:
    """KiB that are in use on a file system."""
    state = os.statvfs(place)
    return (state.f_blocks - state.f_bfree) * state.f_frsize // 1024


# -- I-10: files that are larger than memory --------------------------------------------------------------------------
def wide_csv(path: Path, mebibytes: int) -> int:
    """A CSV file of about that size with rows of the project, and a long text that the contract does not know."""
    block, count = 20_000, 0
    with path.open("w") as file:
        file.write("id,at,age,y,remark\n")
        while file.tell() < mebibytes << 20:
            lines = (
                f"{n},2026-01-{1 + n % 28:02d}T00:00:00Z,{n % 100},{'tf'[n % 2]},{'a remark of a nurse ' * 8}{n}"
                for n in range(count, count + block)
            )
            file.write("\n".join(lines) + "\n")
            count += block
    return count


def landed(path: Path, home: Path, *limit: str) -> dict:
    ran = subprocess.run(
        [sys.executable, "-c", LAND, str(path), *limit], stdout=subprocess.PIPE, text=True, check=True,
        env=os.environ | {"KEEPFIT_HOME": str(home), "OMP_NUM_THREADS": "2", **(LEAN if limit else {})},
    )  # fmt: skip
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("small")
def test_i_10_600_mebibytes_land_where_there_is_no_room_for_them(tmp_path: Path):
    """600 MiB of CSV land whole where a process may take 1.5 GB of address space beyond what its libraries map, in half a GiB or so."""
    count = wide_csv(tmp_path / "big.csv", 600)
    mapped = subprocess.run(
        [sys.executable, "-c", "import tasks.ingest; print(open('/proc/self/statm').read().split()[0])"],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    limit = int(mapped.stdout) * resource.getpagesize() + 1_500_000_000
    said = landed(tmp_path / "big.csv", tmp_path / "home", str(limit))
    assert (said["arrived"], said["landed"]) == (count, count)
    assert said["mebibytes"] < 1024


@pytest.mark.usefixtures("small")
def test_i_10_a_small_file_of_huge_texts_takes_no_more_memory_than_a_large_one(tmp_path: Path):
    """Parquet writes equal texts once: 600 kB of it hold 1.2 GiB of text, and what is read at a time counts as it is in memory."""
    yaml = tmp_path / "projects" / "small" / "project.yaml"
    yaml.write_text(SMALL.replace("    y: {type: bool}", "    y: {type: bool}\n    note: {type: text}"))
    count, numbers = 65_536, np.arange(65_536)
    note = pa.DictionaryArray.from_arrays(pa.array(numbers % 2, pa.int32()), pa.array(["x" * 20_000, "y" * 20_000]))
    at = pa.array(1_735_689_600_000_000 + numbers, pa.timestamp("us", "UTC"))
    table = pa.table({"id": numbers, "at": at, "age": numbers % 100, "y": numbers % 2 == 0, "note": note})
    pyarrow.parquet.write_table(table, tmp_path / "dense.parquet", use_dictionary=["note"])
    assert (tmp_path / "dense.parquet").stat().st_size < 2_000_000
    said = landed(tmp_path / "dense.parquet", tmp_path / "home")
    assert (said["arrived"], said["landed"]) == (count, count)
    assert said["mebibytes"] < 1200


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("small")
def test_i_10_a_file_four_times_as_large_takes_about_the_same_memory(tmp_path: Path):
    """From a few data files on the peak above the interpreter does not grow with the file."""
    peaks = {}
    for size in (300, 1200):
        count = wide_csv(tmp_path / "big.csv", size)
        said = landed(tmp_path / "big.csv", tmp_path / f"home{size}")
        assert (said["arrived"], said["landed"]) == (count, count)
        peaks[size] = said["mebibytes"]
    assert peaks[1200] < 1.5 * peaks[300], peaks


# -- I-02: bytes that have changed ------------------------------------------------------------------------------------
def damaged(content: bytes, number: int) -> bytes:
    """The content with one flipped bit, or for every fourth number cut short."""
    rng = random.Random(number)  # noqa: S311 – damage, not a secret
    if number % 4 == 0:
        return content[: rng.randrange(len(content))]
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_i_02_no_damage_at_rest_is_read_in_silence(small, tmp_path: Path, suffix: str):
    """300 flips and 100 cuts of kept CSV and Parquet files, and as many of the lake's own: each is refused by name."""
    file = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        write_rows(file, rows(*range(300)))
    else:
        numbers = np.arange(300)
        at = pa.array(numbers * 86_400_000_000, pa.timestamp("us", "UTC"))
        table = pa.table({"id": numbers, "at": at, "age": numbers % 100, "y": numbers % 2 == 0})
        pyarrow.parquet.write_table(table.slice(20), file)
    kept = ingest.keep("small", file, Settings())
    small.land(kept)
    (stored,) = small.lake.landed.files(small.lake.landed.open())
    lying = Path(small.lake.landed.root) / stored.path
    whole, at_rest = kept.read_bytes(), lying.read_bytes()
    for number in range(400):
        kept.write_bytes(damaged(whole, number))
        with pytest.raises(BatchError, match="is not what arrived"):
            small.land(kept)
        lying.write_bytes(damaged(at_rest, number))
        with pytest.raises(ArtifactError, match=stored.path):
            small.lake.landed.read(stored)


def test_the_limit_of_a_process_is_what_it_says():
    """The harness of I-10 can fail: a process with that limit cannot take more."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29)); bytearray(1 << 30)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert b"MemoryError" in ran.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 1 << 29
