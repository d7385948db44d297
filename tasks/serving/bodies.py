"""What comes in: a body, read no further than its limits, and the rows that it holds."""

import asyncio
import itertools
import re

import msgspec
from starlette.requests import ClientDisconnect, Request

from tasks.serving.answers import Refusal
from tasks.serving.reading import ROWS, how_often, quotes

BODY_BYTES = 8 << 20
BUFFERED_BYTES = 64 << 20  # of all bodies that are being read: many slow big ones must not fill the memory
BODY_SECONDS = 30.0
BATCHES = 64  # of an Arrow stream: one costs more than its rows


class Bodies:
    """The bodies that one process is reading; together they have a limit, too."""

    def __init__(self) -> None:
        self._buffered = 0

    async def read(self, request: Request) -> bytes:
        """The body, read no further than its limit."""
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Refusal(
                415,
                "The body is compressed; wanted plain JSON. Send it without a content encoding.",
                Connection="close",
            )
        big = Refusal(
            413, f"The body is bigger than {BODY_BYTES >> 20} MiB. Send the rows in parts.", Connection="close"
        )
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 12 or int(length) > BODY_BYTES:
            raise big
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    size += len(part)
                    self._buffered += len(part)
                    if size > BODY_BYTES:
                        raise big
                    if self._buffered > BUFFERED_BYTES:
                        raise Refusal(
                            429,
                            "Too many big bodies arrive at once. Try again in a second.",
                            Retry_After="1",
                            Connection="close",
                        )
                    parts.append(part)
        except TimeoutError:
            raise Refusal(
                408,
                f"The body did not arrive within {BODY_SECONDS:g} s. Send it faster or in parts.",
                Connection="close",
            ) from None
        except ClientDisconnect:
            raise Refusal(400, "The body ended early. Send it again.", Connection="close") from None
        finally:
            self._buffered -= size
        return b"".join(parts)


class Rows(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for predictions."""

    rows: list[dict[str, str | int | float | bool | None]]
    explain: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def names(self) -> int:
        """How many names the body has outside of its rows."""
        return 1 + (self.explain is not msgspec.UNSET)


_DECODER = msgspec.json.Decoder(Rows)
_PARTS = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"?|[{\[]', re.DOTALL
)  # each text, and each bracket that begins an object or a list


def question(body: bytes) -> Rows:
    """What a body asks.

    Raises:
        Refusal: 422 for another shape or a name that stands twice in an object, 400 for no JSON, 413 for too many rows.
    """
    bound(body, objects=ROWS + 1)
    try:
        asked = _DECODER.decode(body)
    except msgspec.ValidationError:
        raise Refusal(
            422,
            'The body has another shape; wanted {"rows": [{feature: text, number, true, false or null}]}, and "explain": '
            "true where wanted. See /docs.",
        ) from None
    except (ValueError, RecursionError):  # msgspec's malformed JSON and Python's bad UTF-8 are both a ValueError
        raise Refusal(
            400, 'The body is no JSON in UTF-8; wanted {"rows": [{…}]} with finite numbers. See /docs.'
        ) from None
    rows = asked.rows
    if quotes(body) != 2 * (
        asked.names + sum(len(row) + sum(type(value) is str for value in row.values()) for row in rows)
    ):
        raise Refusal(
            422,
            "An object names a field twice; wanted each once, because only one of the two values could count. Remove "
            "one.",
        )
    return asked


def bound(body: bytes, *, objects: int, lists: int | None = None) -> None:
    """Looks at a body before anything of it is decoded, and no further than shows whether it is too much.

    Args:
        body: of whatever bytes.
        objects: that it may have at most, itself among them.
        lists: that it may have at most; None where those are bounded by its shape.

    Raises:
        Refusal: 413, it has more than its rows need.
    """
    if _has_more(body, b"{", objects) or (lists is not None and _has_more(body, b"[", lists)):
        raise Refusal(
            413,
            f"The request has more than {ROWS:,} rows, or objects or lists in them; wanted at most so many rows. Send them in parts.",
        )


def _has_more(body: bytes, sign: bytes, most: int) -> bool:
    """Whether more objects or lists begin in a body, by their bracket; brackets in texts begin none."""
    if how_often(body, sign) <= most:
        return False
    begun = (part for part in _PARTS.finditer(body) if part[0] == sign)
    return next(itertools.islice(begun, most, None), None) is not None
