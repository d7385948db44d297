"""Who may ask a server that this project starts, and whether it may be started as it is told to.

Without tokens a server answers programs on this machine alone. With them every request shows one, `Authorization: Bearer …`: the token of
KEEPFIT_TOKEN, which opens everything, or one of the file `serving.tokens` in the home, of which each line has roles and a token:

    predict,outcomes 5f0c…
    metrics          91be…
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.config import private
from tasks.config.errors import StackError
from tasks.config.settings import Settings

ROLES = frozenset({"predict", "outcomes", "batches", "trainings", "metrics"})
SHORTEST = 16  # characters; what is shorter can be tried out


@dataclass(frozen=True)
class Tokens:
    """The digests of the tokens of one server, each with what it opens."""

    known: tuple[tuple[bytes, frozenset[str]], ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Tokens":
        """Those of the settings and of the file of tokens.

        Raises:
            StackError: a token is too short to be one, a role is none, or others may read the file.
        """
        own = settings.token.get_secret_value() if settings.token else ""
        found = [("KEEPFIT_TOKEN", own, ROLES)] if own else []
        found += _lines(settings.tokens_file)
        for where, token, roles in found:
            if len(token) < SHORTEST:
                raise StackError(
                    f"{where}: the token is shorter than {SHORTEST} characters. Make one: openssl rand -hex 32"
                )
            if strange := roles - ROLES:
                raise StackError(f"{where}: '{min(strange)}' is no role; wanted some of {', '.join(sorted(ROLES))}.")
        return cls(tuple((_digest(token), roles) for _, token, roles in found))

    def opens(self, shown: str) -> frozenset[str]:
        """The roles of a token; none for one that is not known. Every known one is compared, in time that says nothing."""
        digest, roles = _digest(shown), frozenset[str]()
        for known, theirs in self.known:
            if hmac.compare_digest(digest, known):
                roles |= theirs
        return roles


def check(settings: Settings) -> None:
    """Looks whether servers may be started so.

    Raises:
        StackError: the home or a secret is open to others, or the address is open to the network without tokens and encryption.
    """
    for fault in (private.folder_fault(settings.home), _key_fault(settings)):
        if fault:
            raise StackError(fault)
    tokens = Tokens.of(settings)
    if is_loopback(settings.host) and not settings.behind_proxy:
        return
    lacks = [] if tokens.known else ["KEEPFIT_TOKEN"]
    lacks += [] if settings.tls_cert or settings.behind_proxy else ["KEEPFIT_TLS_CERT and KEEPFIT_TLS_KEY"]
    if lacks:
        raise StackError(
            f"The server at KEEPFIT_HOST={settings.host} is reached from elsewhere; that wants a token and encryption, and "
            f"{' and '.join(lacks)} is not set. Set it (where a proxy in front encrypts, KEEPFIT_BEHIND_PROXY=true), or listen on 127.0.0.1."
        )


def is_loopback(host: str | None) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def is_from_here(host: str, headers: Mapping[str, str], peer: str | None) -> bool:
    """Whether a request without a token may change something: a program's on this machine, that speaks for nobody else.

    Args:
        host: address that the server listens on.
        headers: of the request.
        peer: the sender's address.
    """
    elsewhere = {"origin", "forwarded", "x-forwarded-for"} & set(headers)
    return not elsewhere and is_loopback(host) and is_loopback(peer)


def _key_fault(settings: Settings) -> str:
    if bool(settings.tls_cert) != bool(settings.tls_key):
        return "Of KEEPFIT_TLS_CERT and KEEPFIT_TLS_KEY one is set; wanted both or neither."
    if settings.tls_key is None:
        return ""
    if not settings.tls_key.exists():
        return f"{settings.tls_key} does not exist; KEEPFIT_TLS_KEY wants the file of a private key."
    return private.fault(settings.tls_key)


def _lines(path: Path) -> list[tuple[str, str, frozenset[str]]]:
    """Where each token of the file stands, the token, its roles."""
    if not path.exists():
        return []
    if fault := private.fault(path):
        raise StackError(fault)
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.partition("#")[0].split()
        if words and len(words) != 2:
            raise StackError(f"{path}:{number} has {len(words)} words; wanted roles, then a token.")
        if words:
            found.append((f"{path}:{number}", words[1], frozenset(words[0].split(","))))
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
