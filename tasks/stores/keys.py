"""The index of keys: which keys have landed, and under which row name; derived from the table, rebuilt when it is behind.

Sorted runs of (key's hash, row's name) on disk, merged in tiers of eight like a log-structured merge tree (O'Neil et
al. 1996), so that a look-up costs the logarithm of what has landed. A run says which data files it covers; files that
no run covers are read again. So nothing here must survive a kill, and the folder may be deleted at any time.
"""

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.ml.identity import SIZE

HEADER = 128  # bytes of a .npy file before its array, of these shapes and types
TIER = 8  # runs of like size that are merged into one
PIECE = 1 << 16  # entries that are put in order at a time
LARGEST = 2_000_000  # entries of a run that is merged no further: bounds the memory of a merge


@dataclass(frozen=True)
class Run:
    """A sorted run on disk, and the data files whose rows are in it."""

    name: str
    entries: int
    files: tuple[str, ...]


class Keys:
    """The keys under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = self._load()

    @property
    def files(self) -> set[str]:
        """The data files whose rows can be found."""
        return {file for run in self.runs for file in run.files}

    def find(self, hashes: np.ndarray, order: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """For each key whether it is here, and the name of its row: (n,) bool and (n, 16) bytes. `order`: of the hashes, where it is known."""
        here, names = np.zeros(len(hashes), dtype=bool), np.zeros((len(hashes), SIZE), dtype=np.uint8)
        if not self.runs:
            return here, names
        order = np.argsort(hashes) if order is None else order
        wanted = hashes[order]
        for run in self.runs:
            if not run.entries:  # its data files are older than a column of the key
                continue
            # mapped for this look-up only, so that the pages of one run are in memory at a time
            keys = np.load(self.folder / f"{run.name}.keys.npy", mmap_mode="r")
            at = np.searchsorted(keys, wanted)
            found = np.flatnonzero(keys[np.minimum(at, len(keys) - 1)] == wanted)
            if len(found):
                rows = np.load(self.folder / f"{run.name}.rows.npy", mmap_mode="r")
                here[order[found]] = True
                names[order[found]] = rows[at[found]]
        return here, names

    def add(
        self, hashes: np.ndarray, names: np.ndarray, files: Iterable[str] = (), order: np.ndarray | None = None
    ) -> None:
        """Adds keys with their rows' names, (n,) and (n, 16), that stand in these data files. `order`: of the hashes, where it is known."""
        self.runs = self._merged([*self.runs, self._write(hashes, names, tuple(files), order)])

    def save(self) -> None:
        """Makes the runs the ones that are found after a restart, and deletes the others."""
        listed = [{"name": run.name, "entries": run.entries, "files": run.files} for run in self.runs]
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / ".runs.json.part"
        partial.write_text(json.dumps(listed))
        partial.replace(self.folder / "runs.json")
        kept = {run.name for run in self.runs}
        for path in self.folder.glob("*.npy"):
            if path.name.partition(".")[0] not in kept:
                path.unlink(missing_ok=True)

    def follow(self, active: set[str], read: Callable[[str], tuple[np.ndarray, np.ndarray]]) -> None:
        """Brings the index to these data files: forgets runs over others, reads what no run covers."""
        current = self._standing(active)
        covered = {file for run in current for file in run.files}
        if len(current) == len(self.runs) and covered == active:
            return
        self.runs = current
        for file in sorted(active - covered):
            hashes, names = read(file)
            self.add(hashes, names, [file])
        self.save()

    def adopt(self, other: "Keys", files: Iterable[str]) -> None:
        """Takes over the runs of another index as those of these data files."""
        covers = tuple(files)  # a file's rows may be spread over these runs: they stand or fall together
        self.folder.mkdir(parents=True, exist_ok=True)
        for run in other.runs:
            for kind in ("keys", "rows"):
                (other.folder / f"{run.name}.{kind}.npy").replace(self.folder / f"{run.name}.{kind}.npy")
        self.runs = self._merged([*self.runs, *(Run(run.name, run.entries, covers) for run in other.runs)])
        self.save()

    def rename(self, old: Iterable[str], new: Iterable[str]) -> None:
        """The rows of some data files stand in others now, and nothing else in them.

        An index that does not know all of the old ones stays behind, and reads the new ones when it follows.
        """
        gone, came = set(old), set(new)
        if not gone <= self.files:
            return
        self.runs = [
            Run(run.name, run.entries, tuple(sorted({*run.files} - gone | came)))
            if gone.intersection(run.files)
            else run
            for run in self.runs
        ]
        self.save()

    # -- runs ---------------------------------------------------------------------------------------------------------
    def _standing(self, active: set[str]) -> list[Run]:
        """The runs over these data files alone that share none with a run that falls: its rows of that file fall, too."""
        runs, standing = list[Run](), self.runs
        fallen = {file for run in self.runs for file in run.files} - active
        while len(runs) != len(standing):
            runs, standing = standing, [run for run in standing if fallen.isdisjoint(run.files)]
            fallen |= {file for run in runs if run not in standing for file in run.files}
        return standing

    def _merged(self, runs: list[Run]) -> list[Run]:
        """Merges runs while there are eight of like size, as far as the result stays within bounds."""
        by_tier: dict[int, list[Run]] = {}
        for run in runs:
            by_tier.setdefault(int(np.log(max(run.entries, 1)) / np.log(TIER)), []).append(run)
        crowded = [_fitting(members) for members in by_tier.values() if len(members) >= TIER]
        members = next((fitting for fitting in crowded if len(fitting) > 1), None)
        if members is None:
            return runs
        hashes, names = (
            np.concatenate([np.load(self.folder / f"{run.name}.{kind}.npy", mmap_mode="r") for run in members])
            for kind in ("keys", "rows")
        )
        one = self._write(hashes, names, tuple(dict.fromkeys(file for run in members for file in run.files)))
        return self._merged([*(run for run in runs if run not in members), one])

    def _write(
        self, hashes: np.ndarray, names: np.ndarray, files: tuple[str, ...], order: np.ndarray | None = None
    ) -> Run:
        self.folder.mkdir(parents=True, exist_ok=True)
        order, name = np.argsort(hashes, kind="stable") if order is None else order, secrets.token_hex(8)
        _save(self.folder / f"{name}.keys.npy", hashes, order)
        _save(self.folder / f"{name}.rows.npy", names, order)
        return Run(name, len(hashes), files)

    def _load(self) -> list[Run]:
        """The saved runs; none when they are damaged, for they can be made again."""
        try:
            listed = json.loads((self.folder / "runs.json").read_text())
            runs = [Run(row["name"], row["entries"], tuple(row["files"])) for row in listed]
            for run in runs:
                for kind, width in (("keys", 8), ("rows", SIZE)):
                    size = (self.folder / f"{run.name}.{kind}.npy").stat().st_size
                    if size != HEADER + run.entries * width:
                        return []
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return []
        return runs


def _save(path: Path, array: np.ndarray, order: np.ndarray) -> None:
    """`array[order]` as `np.save` writes it, a piece at a time; `np.save` does not say that the disk is full."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        for at in range(0, len(order), PIECE):
            file.write(array[order[at : at + PIECE]].data)


def _fitting(runs: list[Run]) -> list[Run]:
    """As many of the runs as make one that is not too large."""
    sizes = np.cumsum([run.entries for run in runs])
    return runs[: int(np.searchsorted(sizes, LARGEST, side="right"))]
