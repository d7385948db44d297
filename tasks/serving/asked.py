"""What a running server says of its champion: whether it follows the journal yet."""

import re
import ssl
import time

import httpx

from tasks.config.errors import KeepfitError
from tasks.config.settings import Settings
from tasks.stores.journal import Release

TRIES = 16  # requests that meet each of a few processes
NOBODY = "no server runs; it will load the champion when it starts"


def is_up(address: str) -> bool:
    """Whether anybody listens there, and be it one whose certificate is not believed or who does not answer."""
    try:
        _get(f"{address}/healthz")
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        return _is_of_tls(error)
    except httpx.HTTPError:
        return True
    return True


def _is_of_tls(error: BaseException | None) -> bool:
    """Whether a connection was refused by TLS, which somebody must have spoken, and not by the machine."""
    return error is not None and (isinstance(error, ssl.SSLError) or _is_of_tls(error.__cause__ or error.__context__))


def confirm(address: str | None, champion: Release, patience: float) -> str:
    """Waits until the server, each of its processes, answers with the champion, and says after how long.

    Raises:
        KeepfitError: it does not within the patience, in seconds; the journal stands, and the server goes on trying.
    """
    if address is None:
        return NOBODY
    start = time.monotonic()
    while (behind := _behind(address, champion)) and time.monotonic() - start < patience:
        time.sleep(0.05)
    if not behind:
        return f"the server answers with it after {time.monotonic() - start:.1f} s"
    why = refusal(address, champion) or behind
    raise KeepfitError(
        f"{address} does not answer with version {champion.version} of {champion.project} after {patience:g} s ({why}). "
        "The release stands in the journal and the server goes on trying; look at its log, or at `keepfit status`."
    )


def refusal(address: str, champion: Release) -> str:
    """Why a process of the server does not load a release, or nothing; each request may be another one's."""
    for _ in range(TRIES):
        try:
            refused = _get(f"{address}/readyz").json()["refused"].get(champion.project, {})
        except (httpx.HTTPError, ValueError, KeyError, AttributeError):
            return ""
        if refused.get("generation") == champion.generation:
            return str(refused["reason"])
    return ""


def _behind(address: str, champion: Release) -> str:
    """What shows that the server does not answer with the champion yet, or nothing."""
    try:
        version = _get(f"{address}/projects/{champion.project}").json().get("version")
    except httpx.HTTPError as error:
        return f"no answer: {error or type(error).__name__}"
    except (ValueError, AttributeError):
        version = None
    if version != champion.version:
        return f"it says: {f'version {version}' if version else 'nothing'}"
    oldest = _oldest(address, champion.project)
    return f"one of its processes is at generation {oldest} of {champion.generation}" if oldest is not None and oldest < champion.generation else ""  # fmt: skip


def _oldest(address: str, project: str) -> int | None:
    """The generation that each process of the server has reached; None where it does not say."""
    from tasks.serving.counters import GENERATION

    try:
        page = _get(f"{address}/metrics").text
    except httpx.HTTPError:
        return None
    found = re.search(rf'^{GENERATION}{{project="{re.escape(project)}"}} (\S+)$', page, re.MULTILINE)
    return int(float(found[1])) if found else None


def _get(address: str) -> httpx.Response:
    return httpx.get(address, headers=Settings().bearer(), timeout=2)
