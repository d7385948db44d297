"""Marks: by them an erasure finds the predictions of somebody's rows, though the log of predictions holds no key.

Keys may be personal, and are no features: what a request says of them is not kept. In their place the logged row has a mark, a keyed hash
(BLAKE2b, RFC 7693) of project and key, whose secret lies in `<home>/keys/marks.key` for its owner alone. Who has the log and not the secret learns
nothing of a key and cannot try keys out; who lost the secret cannot find the rows any more. A request without the whole key leaves no mark.
"""

import datetime as dt
import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tasks.config import private
from tasks.config.errors import KeepfitError

MARK = "keepfit.key"  # of a logged row, beside its features
SECRET_BYTES = 32
MARK_BYTES = 16


def secret(home: Path, *, make: bool = False) -> bytes | None:
    """The secret of a home; None where there is none yet and none is made.

    Raises:
        KeepfitError: others may know it.
    """
    path = home / "keys" / "marks.key"
    if make:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private.make(path, secrets.token_hex(SECRET_BYTES).encode())
    if not path.exists():
        return None
    if fault := private.fault(path):
        raise KeepfitError(
            f"{fault} Say chmod 600 '{path}', or take it away: then predictions so far are found by no key."
        )
    return path.read_bytes().strip()


class Marks:
    """The marks of one project.

    Args:
        secret: of the home.
        project: whose rows.
        key: the columns that name a row, with their types.
    """

    def __init__(self, secret: bytes, project: str, key: Mapping[str, str]) -> None:
        self._begun = hashlib.blake2b(msgspec.json.encode(project), key=secret[:64], digest_size=MARK_BYTES).copy
        self.key = dict(key)

    def of(self, row: Mapping[str, Any]) -> str | None:
        """The mark of a row by its key, however that is written; None where a part of it is missing or is none of its type.

        >>> marks = Marks(b"secret", "p", {"id": "int"})
        >>> marks.of({"id": 7, "age": 3}) == marks.of({"id": "7"}) == marks.of({"id": 7.0}) != marks.of({"id": 8})
        True
        >>> marks.of({"age": 3}) is marks.of({"id": "seven"}) is None
        True
        """
        values = [row.get(name) for name in self.key]
        if None in values:
            return None
        texts = [_written(value, kind) for value, kind in zip(values, self.key.values(), strict=True)]
        if None in texts:
            return None
        (begun := self._begun()).update(msgspec.json.encode(texts))
        return begun.hexdigest()


def _written(value: object, kind: str) -> str | None:
    """A value of a key in one way of writing; None where it is none of that type."""
    try:
        match kind:
            case "int":
                return str(int(value)) if isinstance(value, int | str) or float(value) == int(value) else None  # ty: ignore[invalid-argument-type]
            case "float":
                return repr(float(value))  # ty: ignore[invalid-argument-type]
            case "datetime":
                return _moment(value)
            case "bool":
                return str(value).lower() if str(value).lower() in {"true", "false"} else None
            case _:
                return str(value) if isinstance(value, int | str) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _moment(value: object) -> str | None:
    """A moment in UTC; None for one without an offset: in which zone the contract would read it, nobody knows here."""
    moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds") if moment.tzinfo else None
