"""The inbox watcher: a complete file in `inbox/<project>/` becomes one `land` run, whatever happens in between."""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound

from flows.changed import Changed
from flows.stack.probes import heartbeat
from tasks.config.errors import BatchError
from tasks.config.names import HELD, resource
from tasks.config.settings import Settings
from tasks.ingest import ARRIVED, Kind, kept_name, original_name
from tasks.stores import durable
from tasks.stores.files import SUFFIXES, fingerprint, has_last_line_break, regular

LOG = logging.getLogger("keepfit.inbox")
GATHERING = ".gathering"
SETTLED = 0.4  # seconds that size and time of a file must stand still before it counts as complete
UNFINISHED = 10.0  # the same for a text that ends inside a line
TOGETHER = 20  # so many waiting files land together, in one change and with one event
CALM = 1.0  # seconds without a new file until files that come together have all come
LONGEST = 200  # bytes of a .sha256 that are read
LOOK = 0.2  # seconds between two looks; a look costs one directory listing a project
# seconds until a claimed file that is still there is given a run again, and how often that doubles
AGAIN, SELDOM = 60.0, 6
REST = 1.0  # seconds for which a folder that could not be dealt with is left alone
LASTING = 10.0  # seconds for which something is in the way until people are told: most of it passes
SHOWN = 5  # of what is in the way is told at most
# Of content that came again the number of its last run, so that nobody asks for all of the older ones.
TRIED: dict[str, int] = {}


class Box(NamedTuple):
    """A watched folder: the files of one kind of one project."""

    project: str
    kind: Kind
    folder: Path


class Inbox:
    """Watches every project's inbox, and the folder for outcomes in it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seen: dict[Path, tuple[tuple[int, int], float]] = {}
        # claimed files: how often each was given a run, and until when it is left alone
        self.asked: dict[Path, tuple[int, float]] = {}
        self.known: dict[Path, tuple[int, float]] = {}  # by folder: how many files wait, and since when so many
        self.resting: dict[Path, float] = {}  # folders that could not be dealt with, and until when they are left alone
        self.there: dict[Path, bool] = {}  # projects' folders that were there, and whether they were mount points
        self.met: dict[Path, str] = {}  # of the look at one folder: what is in the way, and why
        self.trouble: dict[Path, dict[Path, tuple[str, float]]] = {}  # by folder: the same, and since when

    def look(self, now: float) -> None:
        """Claims complete files and sees to it that each claimed file has a run; a folder that fails is no matter of the others."""
        boxes = self.boxes()
        self.trouble = {box.folder: self.trouble.get(box.folder, {}) for box in boxes}  # a project may be taken away
        self.there = {folder: there for folder, there in self.there.items() if folder in self.trouble}
        for box in boxes:
            if now < self.resting.get(box.folder, now):
                continue
            self.met = {}
            try:
                self._look(box, now)
            except OSError as error:  # unmounted, or no permission
                self.met[_folder(box)] = (
                    f"cannot be looked at ({_said(error)}). Mount it, or let the user that keepfit runs as read and write it"
                )
                self.resting[box.folder] = now + REST
            except Exception as error:
                self.met[box.folder] = f"cannot be dealt with ({type(error).__name__}: {_said(error)}). See inbox.log"
                if box.folder not in self.trouble.get(box.folder, {}):
                    LOG.exception("the inbox of %s cannot be dealt with", box.project)
                self.resting[box.folder] = now + REST
            self._remember(box, now)

    def _look(self, box: Box, now: float) -> None:
        self._make(box)
        complete = list(self.complete(box, now))
        if len(complete) < TOGETHER:
            for file in complete:
                self.claim(box, file)
        elif self.calm(box, len(complete), now):
            self.gather(box, complete)
        for kept in self.claimed(box, now):
            try:
                submit(box.project, kept, box.kind)
                times, _ = self.asked.get(kept, (0, now))
                self.asked[kept] = times + 1, now + AGAIN * 2 ** min(times, SELDOM)
            except ObjectNotFound:
                LOG.warning("%s waits: 'land/%s' is not deployed yet", kept.name, box.project)
            except (OSError, BatchError) as error:
                self._note(kept, error)
                self.resting[box.folder] = now + REST

    def _make(self, box: Box) -> None:
        """Makes the folder. One that was there and is gone is not made again: files would go on being sent to where it was.

        Raises:
            OSError: it cannot be made, or is gone.
        """
        folder = _folder(box)
        is_mount = folder.is_mount()
        if folder in self.there and not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder is gone, and nothing that is sent there arrives")
        if self.there.get(folder) and not is_mount:
            raise FileNotFoundError(errno.ENOENT, "nothing is mounted there any more")
        box.folder.mkdir(parents=True, exist_ok=True)
        self.there[folder] = is_mount

    # -- what is in the way -------------------------------------------------------------------------------------------
    def lasting(self, now: float) -> list[str]:
        """What has been in the way for some time, a sentence each with the next move; what is so no more is not among them."""
        found = {
            path: said for met in self.trouble.values() for path, (said, since) in met.items() if now - since >= LASTING
        }
        told = [f"{str(path)!r}: {said}." for path, said in sorted(found.items())]
        return told if len(told) <= SHOWN else [*told[:SHOWN], f"So it is with {len(told) - SHOWN} more."]

    def _note(self, file: Path, error: Exception) -> None:
        """This file is in the way of nobody else."""
        self.met[file] = (
            f"cannot be taken ({_said(error)}). Let the user that keepfit runs as read and move it, or take it away; the other files go on"
        )

    def _remember(self, box: Box, now: float) -> None:
        """Of what this look has met, since when it is so."""
        before = self.trouble.get(box.folder, {})
        self.trouble[box.folder] = {path: (said, before.get(path, ("", now))[1]) for path, said in self.met.items()}

    # -- files --------------------------------------------------------------------------------------------------------
    def boxes(self) -> list[Box]:
        """Every folder that is watched."""
        return [
            Box(name, kind, self.settings.inbox(name, kind))
            for name in self.settings.project_names()
            for kind in ("rows", "outcomes")
        ]

    def complete(self, box: Box, now: float) -> Iterator[Path]:
        """Regular files of a known kind whose size and time have stood still."""
        with os.scandir(box.folder) as entries:
            found = [
                entry for entry in entries if not entry.name.startswith(".") and Path(entry.name).suffix in SUFFIXES
            ]
        for entry in found:
            try:
                if self._is_complete(box, entry, now):
                    yield Path(entry.path)
            except FileNotFoundError:  # it vanished after it was listed
                continue
            except (OSError, BatchError) as error:
                self._note(Path(entry.path), error)

    def _is_complete(self, box: Box, entry: "os.DirEntry[str]", now: float) -> bool:
        path, state = Path(entry.path), entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(state.st_mode):
            raise BatchError(f"is a link, pipe, device or folder. Wanted: a regular file, {', '.join(SUFFIXES)}")
        shape = (state.st_size, state.st_mtime_ns)
        before, since = self.seen.get(path, (None, now))
        self.seen[path] = (shape, since if before == shape else now)
        settled = before == shape and now - since >= SETTLED and not is_written(path)
        late = now - since >= UNFINISHED
        return settled and (late or has_last_line_break(path)) and self.agrees(box, path, late)

    def agrees(self, box: Box, file: Path, late: bool) -> bool:
        """Whether a file is what the `.sha256` beside it says, if one is there; one that will not be so any more is put aside.

        Args:
            box: where it lies.
            file: complete by size and time.
            late: it has had time enough to become what was promised.

        Raises:
            OSError, BatchError: one of both cannot be read.
        """
        promise = _promise(file)
        if not promise.is_file():
            return True
        with regular(promise) as text:
            said, content = text.read(LONGEST).decode(errors="replace").split()[:1], fingerprint(file)
        if said == [content]:
            return True
        if late:
            reason = f"{file.name}: its SHA-256 is {content}, but {promise.name} says {said[0] if said else 'nothing'}. Nothing landed. Send both again"
            folder = box.folder / HELD
            folder.mkdir(parents=True, exist_ok=True)
            file.replace(folder / kept_name(content, file.name))
            promise.unlink()
            LOG.warning("%s: %s", box.project, reason)
            payload = {"project": box.project, "name": file.name, "batch": content, "reason": reason}
            emit_event(event="keepfit.batch.refused", resource=resource(box.project), payload=payload)
        return False

    def calm(self, box: Box, waiting: int, now: float) -> bool:
        """Whether no more files come at the moment."""
        count, since = self.known.get(box.folder, (-1, now))
        self.known[box.folder] = (waiting, since if count == waiting else now)
        return count == waiting and now - since >= CALM

    def gather(self, box: Box, files: list[Path]) -> None:
        """Moves files into one folder that lands as a whole. A kill in between leaves them where `claimed` finds them."""
        folder = box.folder / ARRIVED / GATHERING
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            try:
                file.replace(folder / kept_name(fingerprint(file), file.name))
                self.seen.pop(file, None)
                _promise(file).unlink(missing_ok=True)
            except (OSError, BatchError) as error:
                self._note(file, error)
        LOG.info("%s: %s files arrived together", box.project, len(list(folder.iterdir())))
        self._close(folder)

    def claim(self, box: Box, file: Path) -> None:
        """Renames a file to the name of its content, out of the sender's reach; one rename, so a kill loses nothing."""
        try:
            kept = box.folder / ARRIVED / kept_name(fingerprint(file), file.name)
            kept.parent.mkdir(parents=True, exist_ok=True)
            file.replace(kept)
            _promise(file).unlink(missing_ok=True)
        except (OSError, BatchError) as error:
            self._note(file, error)
            return
        self.seen.pop(file, None)
        self.asked.pop(kept, None)
        LOG.info("%s: %s arrived (%s bytes)", box.project, file.name, kept.stat().st_size)

    def claimed(self, box: Box, now: float) -> list[Path]:
        """Kept files that want a run: new ones, those that an earlier watcher left behind, and those whose run has failed.

        While a file's run is under way asking for one gives the same. One that fails, as when project.yaml is broken, leaves the file; so it is
        asked for again, ever more seldom.
        """
        folder = box.folder / ARRIVED
        if (folder / GATHERING).is_dir():
            self._close(folder / GATHERING)
        found = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
        self.asked = {path: asked for path, asked in self.asked.items() if path.parent != folder or path in found}
        return sorted((path for path in found if self.asked.get(path, (0, now))[1] <= now), key=original_name)

    def _close(self, folder: Path) -> None:
        """Gives a folder of gathered files the name of its content, under which it lands; where that waits to land already, once is enough."""
        names = sorted(file.name for file in folder.iterdir())
        if not names:
            folder.rmdir()
            return
        content = hashlib.sha256("\n".join(names).encode()).hexdigest()
        kept = folder.with_name(f"{content[:16]}-{len(names)} files")
        if kept.exists():
            shutil.rmtree(folder)
        else:
            folder.rename(kept)
        self.asked.pop(kept, None)


def _promise(file: Path) -> Path:
    """Where a sender says what a file's content should be, as `sha256sum` writes it."""
    return file.with_name(f"{file.name}.sha256")


def _folder(box: Box) -> Path:
    """The project's own folder in the inbox, which somebody may mount; that of the outcomes lies in it."""
    return box.folder if box.kind == "rows" else box.folder.parent


def _said(error: Exception) -> str:
    """What an error says, on one line, without the code of the system."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".")


def is_written(path: Path) -> bool:
    """Whether a process of this machine has the file open for writing (Linux: a read lease is refused then).

    Raises:
        OSError: it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # other file systems and owners cannot tell: the time has to do
    finally:
        os.close(handle)
    return False


def submit(name: str, kept: Path, kind: Kind = "rows") -> UUID:
    """One `land` run for a kept file; the same content while a run is under way gives that run.

    Raises:
        ObjectNotFound: the project is not deployed.
    """
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"land/{name}").id
        return _run(client, deployment, name, kept, kind)


def _run(client: SyncPrefectClient, deployment: UUID, name: str, kept: Path, kind: Kind) -> UUID:
    content = kept.name if kept.is_dir() else fingerprint(kept)
    parameters = {"project": name, "path": str(kept), "name": original_name(kept), "kind": kind}
    what = f"{name} {content}" if kind == "rows" else f"{name} {kind} {content}"
    attempt = TRIED.get(what, 0)
    while True:
        run = client.create_flow_run_from_deployment(
            deployment, parameters=parameters, idempotency_key=f"{what} {attempt}"
        )
        if run.state is None or not run.state.is_final():
            return run.id
        attempt += 1
        TRIED[what] = attempt


def tell(beat: Path, trouble: list[str], told: list[str]) -> list[str]:
    """Writes what is in the way into the heartbeat, where that has changed since it was told; gives what is told now."""
    if trouble != told:
        durable.write(beat, "\n".join(trouble).encode())
        for said in trouble:
            if said not in told:
                LOG.warning("%s", said)
    return trouble


def main() -> None:
    """Watches until it is told to stop; writes a heartbeat that `status` reads, and into it what is in the way."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = Settings()
    inbox, changed, beat = Inbox(settings), Changed(settings), heartbeat(settings, "inbox")
    LOG.info("watching %s", settings.home / "inbox")
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when somebody opens a file while its lease is asked for
    stop, told = threading.Event(), list[str]()
    beat.write_bytes(b"")  # what a watcher said that was killed need not be so any more
    while not stop.wait(LOOK):
        try:
            inbox.look(time.monotonic())
            changed.look()
            told = tell(beat, inbox.lasting(time.monotonic()), told)
        except Exception:
            LOG.exception("a look at the inbox failed; it goes on in a second")
            stop.wait(1)
        beat.touch()


if __name__ == "__main__":
    main()
