"""Signing: Ed25519 keys (RFC 8032) on file, what they sign, and whose signatures count.

A private key is a file that only its owner may read; it is made at the first signature. A public key counts as long as its file,
NAME.pub with the key in hexadecimal digits, lies in the folder of those that are trusted: a retired key's may stay there, so that what it
signed still counts, and is taken away when it shall not.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config import private
from tasks.config.errors import KeepfitError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class KeyFileError(KeepfitError):
    """A key cannot be used, because others may know or have written it, or its file cannot be read."""


def own(path: Path) -> "Ed25519PrivateKey":
    """The private key of a file, made at the first call, with its public half beside it to hand on.

    Raises:
        KeyFileError: others may know it, or it is none.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        fresh = Ed25519PrivateKey.generate()
        private.make(path, fresh.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    key = read(path)
    show(path.with_suffix(".pub"), key)
    return key


def show(path: Path, key: "Ed25519PrivateKey") -> None:
    """Writes the public half of a key, where another one or none is written."""
    text = public_of(key) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)


def public_of(key: "Ed25519PrivateKey") -> str:
    """The public half, in hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def read(path: Path) -> "Ed25519PrivateKey":
    """The private key of a file that is there.

    Raises:
        KeyFileError: others may know it, or it is none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    _refuse(path)
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds no Ed25519 key. Move it away; the next signature makes a new one.")
    return key


def trusted(folder: Path) -> Iterator[str]:
    """Every public key in a folder, in hexadecimal digits.

    Raises:
        KeyFileError: others may have written one, or it cannot be read.
    """
    for path in sorted(folder.glob("*.pub")):
        try:
            _refuse(path, public=True)
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:  # it was taken away meanwhile, so it does not count
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(
                f"{path} cannot be read ({type(error).__name__}); wanted a public key in hexadecimal digits, as plain text. Write "
                "it anew, or move it away."
            ) from error
        yield text.strip().lower()


def is_genuine(key: str, signature: str, message: bytes) -> bool:
    """Whether a signature is a key's over a message; both in hexadecimal digits."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _refuse(path: Path, *, public: bool = False) -> None:
    if wrong := private.fault(path, public=public):
        raise KeyFileError(f"{wrong} Move it away, and sign what it signed anew.")
