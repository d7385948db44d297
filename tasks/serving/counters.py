"""Counters: the files in which several processes keep their numbers, each with room on the disk before it is written.

The client of Prometheus makes its files with holes and writes them through memory: on a full disk the first write into a hole ends the
process by SIGBUS. Here the room is asked for first, and where there is none the process counts on in memory, for itself.
"""

import logging
import mmap
import os
from pathlib import Path
from typing import BinaryIO

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

LOG = logging.getLogger("keepfit.serving")
GENERATION = "keepfit_champion_generation"  # in /metrics: of several processes the one that is furthest behind counts
ROOM = 1 << 16  # bytes of a new file, as the client makes it
LONGEST = 64  # bytes that a series takes beside its name, at most


class Counters(MmapedDict):
    """One of the files of a process."""

    _f: BinaryIO
    _m: mmap.mmap

    def __init__(self, filename: str) -> None:
        try:
            _reserve(filename)
        except OSError as error:
            _complain(filename, error)
            filename = f"/proc/self/fd/{os.memfd_create('counters')}"
        super().__init__(filename)

    def _init_value(self, key: str) -> None:
        """Takes up a series; the file has the room that its name takes."""
        if self._used + len(key.encode()) + LONGEST > self._capacity:
            try:
                os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
            except OSError as error:
                _complain(self._fname, error)
                self._move()
        super()._init_value(key)

    def _move(self) -> None:
        """Takes what was counted along into memory; the file keeps what stands there."""
        memory = os.fdopen(os.memfd_create("counters"), "a+b")
        memory.write(self._m[:])
        memory.flush()
        self._m.close()
        self._f.close()
        self._f, self._m = memory, mmap.mmap(memory.fileno(), self._capacity)


def install(member: str | None = None) -> None:
    """Has the client keep its numbers so, in this process.

    Args:
        member: whose files these are, in place of the process's number: whoever takes the place of one that died counts on in its files.
            No two that live at once may have the same.
    """
    values.MmapedDict = Counters  # ty: ignore[invalid-assignment] -- it offers no other way
    if member is not None:
        values.ValueClass = values.MultiProcessValue(lambda: member)


def _reserve(filename: str) -> None:
    """Makes a file that has all of its room; none stays that lacks some. One that is there has it, and stays."""
    with Path(filename).open("ab") as file:
        if file.tell() >= ROOM:
            return
        try:
            os.posix_fallocate(file.fileno(), 0, ROOM)
        except OSError:
            Path(filename).unlink()
            raise


def _complain(filename: str, error: OSError) -> None:
    LOG.error("%s: no room to count in (%s); process %d counts for itself, and /metrics lacks it", filename, error.strerror, os.getpid())  # fmt: skip
