"""A source that comes by itself: a program sends a file over HTTP, and it stands in the inbox whole or not at all.

The body *is* the file (`curl -T rows.csv …/projects/p/batches?name=rows.csv`); a form with the file inside is refused, because its parts would have
to be searched for. The serving process holds a piece of a body in memory at a time, and hands each to a thread that writes and hashes it.
"""

import asyncio
import base64
import binascii
import datetime as dt
import hmac
from collections.abc import AsyncIterator, Mapping
from email.message import Message
from typing import Any

from tasks.config.access import is_from_here
from tasks.config.settings import Settings
from tasks.sources.delivery import PIECE, Draft, SourceError, inbox_name, sweep

AT_ONCE = 4  # uploads; each holds two pieces in memory and one file open
STALL = 30.0  # seconds that a sender may be silent, and may need before its speed counts
SLOWEST = 16 << 10  # bytes a second, over the whole body: a sender that drips holds one of the few places
DIGEST_BYTES = 32


class UploadError(Exception):
    """An upload that is not taken: an HTTP status, one sentence, and headers."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


class Uploads:
    """The uploads of one serving process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._running = 0

    async def receive(
        self,
        project: str,
        name: str | None,
        headers: Mapping[str, str],
        peer: str | None,
        body: AsyncIterator[bytes],
        *,
        known: bool = False,
    ) -> dict[str, Any]:
        """Takes one file into the inbox; gives what the sender may know about it.

        Args:
            project: from the path.
            name: from the query, if it is there.
            headers: of the request, case-insensitive.
            peer: the sender's address.
            body: its pieces, not yet read.
            known: the sender has shown a token that opens uploads.

        Raises:
            UploadError: it is not taken, and nothing of it is left.
        """
        if not known:
            self._admit(headers, peer)
        if project not in self.settings.project_names():
            raise UploadError(404, "There is no project of this name. Correct it; `keepfit status` lists them.")
        name = self._name(name, headers)
        wanted = _wanted_digest(headers)
        if self._running >= AT_ONCE:
            raise UploadError(
                429,
                f"{self._running} uploads are under way; wanted fewer at once. Try again in a few seconds.",
                Retry_After="5",
            )
        self._running += 1
        try:
            inbox = self.settings.inbox(project)
            sweep(inbox, dt.datetime.now(dt.UTC))
            with Draft(inbox) as draft:
                await self._write(draft, body)
                if not draft.bytes:
                    raise UploadError(422, "The body is empty; wanted a file with a header and rows.")
                if wanted and not hmac.compare_digest(wanted, draft.digest):
                    raise UploadError(
                        422,
                        "What came has another SHA-256 than the header says: it was altered on the way. Send it again.",
                    )
                done = await asyncio.to_thread(draft.publish, inbox_name(name, draft.digest))
        finally:
            self._running -= 1
        return {"project": project, "batch": draft.digest, "name": done.name, "bytes": done.bytes, "state": "arrived"}

    def _admit(self, headers: Mapping[str, str], peer: str | None) -> None:
        """Without a token only a program on this machine may that speaks for nobody else."""
        if not is_from_here(self.settings.host, headers, peer):
            raise UploadError(
                403,
                "Without a token only programs on this machine may upload. Whoever runs this server sets KEEPFIT_TOKEN.",
            )

    def _name(self, name: str | None, headers: Mapping[str, str]) -> str:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("multipart/"):
            raise UploadError(
                415, "The body is a form; wanted the file itself: curl -T rows.csv, or --data-binary @rows.csv."
            )
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise UploadError(415, "The body is compressed; wanted the file itself, without a content encoding.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self.settings.upload_bytes:
            raise self._too_big()
        name = name or _filename(headers.get("content-disposition", ""))
        try:
            inbox_name(name, "")
        except SourceError as error:
            raise UploadError(
                422, f"{error} Say the file's name with ?name=rows.csv, or in Content-Disposition."
            ) from None
        return name

    async def _write(self, draft: Draft, body: AsyncIterator[bytes]) -> None:
        """Everything that comes, within the limits of size and patience."""
        now = asyncio.get_running_loop().time
        begun, came, piece = now(), 0, bytearray()
        while True:
            slow = begun + STALL + came / SLOWEST
            try:
                async with asyncio.timeout_at(min(now() + STALL, slow)):
                    chunk = await anext(body, None)
            except TimeoutError:
                raise UploadError(
                    408,
                    f"The body stalled; wanted {SLOWEST >> 10} KiB a second, and no pause over {STALL:g} s. Send it again.",
                ) from None
            if chunk is None:
                break
            came += len(chunk)
            if came > self.settings.upload_bytes:
                raise self._too_big()
            piece += chunk
            if len(piece) >= PIECE:
                await asyncio.to_thread(draft.write, bytes(piece))
                piece.clear()
        await asyncio.to_thread(draft.write, bytes(piece))

    def _too_big(self) -> UploadError:
        limit = self.settings.upload_bytes
        return UploadError(
            413, f"The body has more than {limit:,} bytes. Send it in parts, or have KEEPFIT_UPLOAD_BYTES raised."
        )


def _filename(disposition: str) -> str:
    """The file name in a Content-Disposition header, in either of its two spellings."""
    message = Message()
    message["Content-Disposition"] = disposition.replace("\n", " ").replace("\r", " ")
    return message.get_filename("")


def _wanted_digest(headers: Mapping[str, str]) -> str | None:
    """The SHA-256 that the sender says, as hexadecimal digits: of Content-Digest (RFC 9530) or X-Content-SHA256.

    Raises:
        UploadError: it is no SHA-256, or the two headers differ.
    """
    said = set()
    if plain := headers.get("x-content-sha256"):
        said.add(plain.strip().lower())
    for entry in headers.get("content-digest", "").split(","):
        algorithm, _, value = entry.strip().partition("=")
        if algorithm.lower() == "sha-256":
            try:
                said.add(base64.b64decode(value.strip(":"), validate=True).hex())
            except (binascii.Error, ValueError):
                said.add("")
    if len(said) > 1 or any(len(one) != 2 * DIGEST_BYTES or set(one) - set("0123456789abcdef") for one in said):
        raise UploadError(422, "A digest header holds no SHA-256; wanted 64 hexadecimal digits, or sha-256=:base64:.")
    return next(iter(said), None)
