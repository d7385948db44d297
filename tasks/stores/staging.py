"""Staging: the data files of a landing on the local disk, before the table knows of them."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from tasks.stores import durable
from tasks.stores.tables import ROWS_OF_A_FILE, DataFile, encode

HEAVY = 128 << 20  # bytes of rows that are a file of their own, however few they are


class Stage:
    """Collects rows and writes them as data files of `ROWS_OF_A_FILE` rows, or of fewer heavy ones, one file at a time in the background.

    Args:
        folder: where the files are put.
        time: the column whose span is noted for each file.
    """

    def __init__(self, folder: Path, time: str = "") -> None:
        self.folder, self.time, self.files = folder, time, list[DataFile]()
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="stage")
        self._written: Future[DataFile] | None = None

    def add(self, rows: pa.Table) -> None:
        """Takes rows; returns when at most one file of rows waits to be written."""
        if not len(rows):
            return
        self._waiting.append(rows)
        self._rows += len(rows)
        self._bytes += rows.nbytes
        while self._rows >= ROWS_OF_A_FILE:
            every = pa.concat_tables(self._waiting, promote_options="permissive")  # older files lack newer columns
            self._hand_over(every.slice(0, ROWS_OF_A_FILE))
            rest = every.slice(ROWS_OF_A_FILE)
            self._waiting, self._rows, self._bytes = ([rest] if len(rest) else []), len(rest), rest.nbytes
        if self._bytes >= HEAVY:
            self._hand_over_all()

    def close(self) -> list[DataFile]:
        """Writes what waits; gives the files in order."""
        self._hand_over_all()
        self._collect()
        self._writer.shutdown()
        return self.files

    def abandon(self) -> None:
        """Ends the writer without the files."""
        self._waiting = []
        self._writer.shutdown(cancel_futures=True)

    def _hand_over_all(self) -> None:
        if self._rows:
            self._hand_over(pa.concat_tables(self._waiting, promote_options="permissive"))
            self._waiting, self._rows, self._bytes = [], 0, 0

    def _hand_over(self, rows: pa.Table) -> None:
        self._collect()
        self._written = self._writer.submit(self._write, rows)

    def _collect(self) -> None:
        if self._written is not None:
            self.files.append(self._written.result())
            self._written = None

    def _write(self, rows: pa.Table) -> DataFile:
        file, data = encode(rows, self.time)
        durable.write(self.folder / file.path, memoryview(data))
        return file
