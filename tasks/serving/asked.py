"""What a running server says of its champion: whether it follows the journal yet."""

import time

import httpx

from tasks.config.errors import KeepfitError
from tasks.config.settings import Settings
from tasks.stores.journal import Release

NOBODY = "no server runs; it will load the champion when it starts"


def version(address: str, project: str) -> int | None:
    """The version that the server answers with; None where it answers with none, or not at all."""
    try:
        return _get(f"{address}/projects/{project}").json().get("version")
    except (httpx.HTTPError, ValueError, AttributeError):
        return None


def refusal(address: str, champion: Release) -> str:
    """Why the server does not load a release, or nothing."""
    try:
        refused = _get(f"{address}/readyz").json()["refused"].get(champion.project, {})
    except (httpx.HTTPError, ValueError, KeyError, AttributeError):
        return ""
    return str(refused["reason"]) if refused.get("generation") == champion.generation else ""


def confirm(address: str | None, champion: Release, patience: float) -> str:
    """Waits until the server answers with the champion, and says after how long.

    Raises:
        KeepfitError: it does not within the patience, in seconds; the journal stands, and the server goes on trying.
    """
    if address is None:
        return NOBODY
    start = time.monotonic()
    while (found := version(address, champion.project)) != champion.version and time.monotonic() - start < patience:
        time.sleep(0.05)
    if found == champion.version:
        return f"the server answers with it after {time.monotonic() - start:.1f} s"
    why = refusal(address, champion) or f"it says: {f'version {found}' if found else 'nothing'}"
    raise KeepfitError(
        f"{address} does not answer with version {champion.version} of {champion.project} after {patience:g} s ({why}). "
        "The release stands in the journal and the server goes on trying; look at its log, or at `keepfit status`."
    )


def _get(address: str) -> httpx.Response:
    return httpx.get(address, headers=Settings().bearer(), timeout=2)
