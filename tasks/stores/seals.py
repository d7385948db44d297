"""Seals: the signature of a bundle's manifest, by which servers know that it comes from somebody whom they trust.

It is Ed25519 over the manifest's SHA-256, in `manifest.sig` beside it. Whoever trains holds the private key; a server needs the
public ones alone. The digest in the journal says which bundle is meant, the seal who made it: to bring a model of one's own before
clients, write access to the bundles and to the journal together is not enough.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from tasks.config import signing
from tasks.config.errors import ArtifactError
from tasks.config.settings import Settings

SEAL = "manifest.sig"
SEAL_BYTES = 4096


class Seal(msgspec.Struct, frozen=True):
    """What stands in the file: the public key and the signature, in hexadecimal digits."""

    key: str
    signature: str


@dataclass(frozen=True)
class Seals:
    """Where the key lies that signs, and where those whose signatures count."""

    key: Path
    trusted: Path

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of an installation."""
        return cls(settings.signer, settings.signers)

    def sign(self, digest: str) -> bytes:
        """The seal of a manifest of that digest, as a file; the same each time. The key is trusted here from now on.

        Raises:
            KeyFileError: others may know the key.
        """
        key = signing.own(self.key)
        public = signing.public_of(key)
        signing.show(self.trusted / f"{public[:16]}.pub", key)
        return msgspec.json.encode(Seal(public, key.sign(_message(digest)).hex()))

    def verify(self, folder: Path, digest: str, content: bytes) -> None:
        """Whether somebody who is trusted has signed the manifest of that digest.

        Raises:
            ArtifactError: nobody has; says what to do.
            KeyFileError: others may have written a public key, or it cannot be read.
        """
        try:
            seal = msgspec.json.decode(content, type=Seal)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{folder / SEAL} is no signature. Restore it, or register the model again.") from error
        if seal.key not in set(signing.trusted(self.trusted)):
            raise ArtifactError(
                f"{folder} is signed with the key {seal.key[:16]}, which nobody here trusts; wanted one of {self.trusted}. Put its "
                "public half there as NAME.pub when you know whose it is, or register the model again."
            )
        if not signing.is_genuine(seal.key, seal.signature, _message(digest)):
            raise ArtifactError(
                f"{folder / SEAL} is not what the key {seal.key[:16]} signed. The manifest or the signature was altered: restore "
                "them from a copy, or release another version."
            )


def _message(digest: str) -> bytes:
    """What is signed: that it is a bundle, and which, so that no signature of something else can be used."""
    return f"keepfit bundle {digest}".encode()
