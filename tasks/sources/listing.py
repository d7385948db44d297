"""A source of files: objects that are listed at a URL, on a disk or in an object store.

What was delivered is remembered as a *set*: one short hash for each listed version of an object. A point in time would be smaller, but
would leave objects out: a multipart upload to S3 carries the time at which it began, a copied file the time of its original, and two objects
can carry the same. The set needs 28 bytes an object and is written after each per cent of growth, so 100,000 objects cost some 300 MB of
writing in all; objects that are no longer listed leave it.
"""

import datetime as dt
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from tasks.sources.delivery import (
    PIECE,
    SUFFIXES,
    Delivered,
    Draft,
    Left,
    Mark,
    Scheduled,
    SourceError,
    UnreachableError,
    inbox_name,
    suffix_of,
)

VERSION_DIGITS = 24  # 96 bits: a clash would leave an object out, and among a million objects its chance is 1e-17
BLOCK = 8 << 20  # bytes asked of an object store at a time
SECRET = re.compile(r"secret|token|passw|credential|signature|(^|_)key|^sas", re.IGNORECASE)
WEB = frozenset({"http", "https"})
VERSION = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "size",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
    "ino",
)
CHANGED = (
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "modified",
    "created",
)  # as file systems call it, best first


class Listing(Scheduled, frozen=True, extra="forbid"):
    """Files at an fsspec URL, each version of each object once."""

    kind: Literal["listing"] = "listing"
    url: str = Field(
        description="s3://bucket/prefix/*.parquet, file:///drop/**/*.csv, gs://…; ends in '/': what lies directly there"
    )
    options: dict[str, str | int | float | bool] = Field(
        default={},
        description="of the fsspec file system, like endpoint_url; secrets come from the environment (AWS_…, FSSPEC_S3_…)",
    )
    settled_seconds: float = Field(
        default=5, ge=0, description="objects that changed less than this ago wait for the next fetch"
    )

    @field_validator("url")
    @classmethod
    def _with_scheme_and_without_secret(cls, url: str) -> str:
        scheme, found, rest = url.partition("://")
        if not found or not scheme:
            raise ValueError("a URL starts with its scheme: s3://…, gs://…, file:///…")
        if scheme.lower() in WEB:
            raise ValueError(
                f"{scheme}:// lists no sizes, so that a file which came cut could not be told from a whole one, and may lead anywhere. Have it "
                "put into an object store or a folder, or sent to POST /projects/NAME/batches"
            )
        if "@" in rest.split("/")[0]:
            raise ValueError(
                "the URL holds a user or a password, which everybody who reads this file would know; give them by environment"
            )
        return url

    @field_validator("options")
    @classmethod
    def _no_secret(cls, options: dict[str, Any]) -> dict[str, Any]:
        secret = [name for name in options if SECRET.search(name)]
        if secret:
            raise ValueError(
                f"'{secret[0]}' is a secret, which everybody who reads this file would know; give it by environment (AWS_…, or FSSPEC_<SCHEME>_<OPTION>)"
            )
        return options

    def fetch(self, mark: str | None, into: Path, now: dt.datetime) -> Iterator[Delivered | Left | Mark]:
        """Copies every settled object whose version is not in the mark into the inbox, oldest first."""
        files, path = self._connect()
        listed = _listed(files, path)
        wanted = [found for found in listed if suffix_of(found.path) in SUFFIXES]
        if len(wanted) < len(listed):
            yield Left(
                f"{len(listed) - len(wanted)} objects", f"their names end in none of {', '.join(SUFFIXES)}", fault=False
            )
        seen: set[str] = set(json.loads(mark) if mark else []) & {found.version for found in wanted}
        delivered, marked = 0, len(seen)
        for found in sorted(wanted, key=lambda found: (found.changed, found.path)):
            if delivered == self.at_most:
                break
            if found.version in seen or not self._is_settled(found, now):
                continue
            outcome = _copy(files, found, into)
            yield outcome
            if isinstance(outcome, Delivered):
                delivered += 1
                seen.add(found.version)
                if len(seen) > marked * 1.01:
                    marked = len(seen)
                    yield Mark(json.dumps(sorted(seen)))
        if len(seen) > marked:
            yield Mark(json.dumps(sorted(seen)))

    def _connect(self) -> tuple[Any, str]:
        """The file system, without any memory of earlier listings, and the path in it."""
        import fsspec

        scheme = self.url.partition("://")[0]
        try:
            return fsspec.core.url_to_fs(self.url, skip_instance_cache=True, use_listings_cache=False, **self.options)
        except ImportError as error:
            raise SourceError(
                f"source '{self.name}': {scheme}:// needs a package that is not installed here: {error}. For s3:// say `pip install 'keepfit[s3]'`."
            ) from error
        except (ValueError, TypeError) as error:
            raise SourceError(
                f"source '{self.name}': the URL or an option does not suit {scheme}://: {error}"
            ) from error

    def _is_settled(self, found: "Listed", now: dt.datetime) -> bool:
        """Whether it has not changed for a while; a clock that runs ahead there is no reason to wait for ever."""
        return abs((now - found.changed).total_seconds()) >= self.settled_seconds


@dataclass(frozen=True)
class Listed:
    """One version of one object."""

    path: str
    size: int
    changed: dt.datetime
    version: str


def _listed(files: Any, path: str) -> list[Listed]:
    """The regular files that are there; no links, and nothing that a linked folder would lead to.

    Raises:
        UnreachableError: the folder, the bucket or the store does not answer.
    """
    is_here = _is_local(files)
    try:
        path = f"{path.rstrip('/')}/*" if not _wild(path) and files.isdir(path) else path
        root = path.removesuffix(_wild(path)) if _wild(path) else path.rpartition("/")[0]
        if is_here and not Path(root).is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such folder")
        found = files.glob(path, detail=True)
    except Exception as error:  # noqa: BLE001 – of any library
        raise UnreachableError(
            f"{path}: cannot be listed: {_said(error)}. See that it is mounted, or that address and rights are right; nothing was forgotten."
        ) from None  # a library's text might hold a signed URL
    return [
        _version(name, info)
        for name, info in found.items()
        if info["type"] == "file" and not info.get("islink") and not (is_here and _leads_out(name, root))
    ]


def _wild(path: str) -> str:
    """The end of a path from its first folder with a wildcard on: of bucket/2026/*/rows-*.csv it is */rows-*.csv."""
    wild = re.search(r"[^/]*[*?\[].*", path)
    return wild.group() if wild else ""


def _leads_out(name: str, root: str) -> bool:
    """Whether a folder on the way is a link to elsewhere."""
    folder = Path(name).parent
    return folder.resolve() != Path(root).resolve() / folder.relative_to(root)


def _version(name: str, info: dict[str, Any]) -> Listed:
    changed = next((info[key] for key in CHANGED if info.get(key) is not None), 0.0)
    if isinstance(changed, str):
        changed = dt.datetime.fromisoformat(changed)
    elif not isinstance(changed, dt.datetime):
        changed = dt.datetime.fromtimestamp(changed, dt.UTC)
    told = json.dumps([name, *((key, str(info[key])) for key in VERSION if key in info)])
    return Listed(
        path=name,
        size=int(info["size"] or 0),
        changed=changed if changed.tzinfo else changed.replace(tzinfo=dt.UTC),
        version=hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:VERSION_DIGITS],
    )


def _copy(files: Any, found: Listed, into: Path) -> Delivered | Left:
    """Copies one object in pieces; what the store does wrong leaves this object for later, what our disk does wrong is raised."""
    what = repr(found.path)
    with Draft(into) as draft:
        pieces = _pieces(files, found.path)
        while True:
            try:
                piece = next(pieces, b"")
            except FileNotFoundError:
                return Left(what, "is gone since it was listed", fault=False)
            except Exception as error:  # noqa: BLE001 – of any library; one bad object must not hold up the others
                return Left(what, f"cannot be read: {_said(error)}")
            if not piece:
                break
            draft.write(piece)
        if draft.bytes != found.size:
            return Left(what, f"came with {draft.bytes:,} bytes instead of the listed {found.size:,}")
        return draft.publish(inbox_name(found.path, found.version))


def _pieces(files: Any, path: str) -> Iterator[bytes]:
    if _is_local(files):
        yield from _local_pieces(path)
        return
    with files.open(path, "rb", block_size=BLOCK, cache_type="readahead") as file:
        while piece := file.read(PIECE):
            yield piece


def _local_pieces(path: str) -> Iterator[bytes]:
    """A file that is no link, no pipe and no device, whatever it was when it was listed, and that stands still."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        while piece := file.read(PIECE):
            yield piece
        after = os.fstat(file.fileno())
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
            raise OSError(errno.EBUSY, "it changed while it was read")


def _is_local(files: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(files, LocalFileSystem)


def _said(error: Exception) -> str:
    """The kind of an error and, from the operating system, its sentence; a library's text might hold a signed URL."""
    return f"{type(error).__name__}{f': {error.strerror}' if isinstance(error, OSError) and error.strerror else ''}"
