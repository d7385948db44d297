"""What leaves this machine: which addresses may be connected to, and one way to post to one.

A URL may be anybody's: of a project file, of an environment, by way of a name that is resolved anew each time. So what counts is not what
a URL says but the address that a socket is about to connect to: one that is not public is refused there (faults: T9), whatever name,
redirect or library led to it, and however often a name changes its address. `KEEPFIT_ALLOW_PRIVATE` names the networks that may be reached.
"""

import ipaddress
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tasks.config.errors import KeepfitError
from tasks.config.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
CONNECTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
}  # audit events of Python, and where the address stands
CONNECT = 5.0  # seconds that a connection may take
UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is assigned to the public (RFC 4291)
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 behind NAT64 (RFC 6052)


class OutboundError(KeepfitError):
    """Something did not get out; the message names the host at most, never a path or a token."""


class Answer(NamedTuple):
    """What came back: the status, and the beginning of the body."""

    status: int
    body: bytes


class _Guarded(threading.local):
    """What the thread that connects may reach; None: whatever it likes."""

    allowed: Sequence[Network] | None = None
    refused: str = ""


_guarded = _Guarded()
_watching = threading.Event()


def is_public(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether an IP address may be connected to: a public one, or one of these networks. What is no address is none.

    >>> [is_public(each) for each in ("1.1.1.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::7f00:1", "db")]
    [True, False, False, False, False, False, False, False]
    >>> is_public("10.1.2.3", [ipaddress.ip_network("10.1.0.0/16")])
    True
    """
    try:
        met = _plain(ipaddress.ip_address(address))
    except ValueError:
        return False
    if any(met in network for network in allowed):
        return True
    return met.is_global and not met.is_multicast and (met.version == 4 or met in UNICAST)


def _plain(met: Address) -> Address:
    """The IPv4 address that some IPv6 addresses stand for."""
    if isinstance(met, ipaddress.IPv4Address):
        return met
    if met in TRANSLATED:
        return ipaddress.IPv4Address(int(met) & 0xFFFFFFFF)
    return met.ipv4_mapped or met.sixtofour or (met.teredo[1] if met.teredo else met)


@contextmanager
def public_only(allowed: Sequence[Network] = ()) -> Generator[None]:
    """Within it, this thread connects to public addresses and to these networks only.

    Raises:
        OutboundError: where something else was tried and the caller's error, or its silence, followed from it.
    """
    if not _watching.is_set():
        sys.addaudithook(_look)  # for as long as the process lives; it lets unguarded threads pass
        _watching.set()
    before, _guarded.allowed, _guarded.refused = _guarded.allowed, allowed, ""
    try:
        yield
    except Exception as error:
        if why := refused():
            raise OutboundError(why) from error
        raise
    finally:
        _guarded.allowed = before


def refused() -> str:
    """Why the last `public_only` of this thread kept something from connecting, or nothing; for libraries that do not raise."""
    if not (address := _guarded.refused):
        return ""
    return (
        f"it leads to {address}, which is no public address, and no request goes there. Name another one, or allow its network: "
        f"KEEPFIT_ALLOW_PRIVATE={address}"
    )


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    """Python asks it before every connection."""
    if _guarded.allowed is None or event not in CONNECTS:
        return
    address = arguments[CONNECTS[event]]
    host = str(address[0]) if isinstance(address, tuple) else "a socket of this machine"
    if not is_public(host, _guarded.allowed):
        _guarded.refused = host
        raise PermissionError(f"{host} is no public address")


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    allowed: Sequence[Network] = (),
    *,
    seconds: float = 10,
    most: int = 1 << 16,
) -> Answer:
    """Posts a body and gives the answer; no proxy is asked and no redirect followed, so that nobody else is reached.

    Args:
        url: http or https.
        body: what is sent.
        headers: of the request.
        allowed: networks that may be reached beside public addresses.
        seconds: that all of it may take, as nearly as the system lets say; a name that is resolved takes its own time.
        most: bytes of the answer that are read.

    Raises:
        OutboundError: nobody answered, or not in time, or the address may not be reached.
    """
    import httpx

    end, found = time.monotonic() + seconds, b""
    try:
        with (
            public_only(allowed),
            httpx.Client(
                trust_env=False,
                timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT)),
                verify=httpx.create_ssl_context(),
            ) as client,
            client.stream("POST", url, content=body, headers={**headers, "accept-encoding": "identity"}) as answer,
        ):
            for piece in answer.iter_raw():
                found += piece[: most - len(found)]
                if len(found) >= most or time.monotonic() > end:
                    break
            if time.monotonic() > end:
                raise OutboundError(f"the answer was not complete within {seconds:g} s")
            return Answer(answer.status_code, found)
    except httpx.TimeoutException as error:
        raise OutboundError(f"no answer within {seconds:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OutboundError(f"no answer: {type(error).__name__}") from error
