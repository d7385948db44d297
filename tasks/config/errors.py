"""Errors that a person reads: what was met, what was wanted, the next move."""

import difflib
from collections.abc import Iterable


class KeepfitError(Exception):
    """Somebody must fix something; the message says what, to a reader who has not seen the code."""


class MisuseError(KeepfitError):
    """The words of a command are not what it takes."""


class ProjectError(KeepfitError):
    """A project folder does not load; the message has a line for each fault."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class BatchError(KeepfitError):
    """A batch cannot be read at all (empty, broken, wrong kind of file)."""


class StackError(KeepfitError):
    """A service of the local stack does not start or does not answer."""


class ArtifactError(KeepfitError):
    """A stored model is missing, altered, or holds types that were not reviewed."""


class ConflictError(KeepfitError):
    """Somebody else moved the champion in between."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """A closing question that names the nearest known word, or an empty text.

    >>> suggestion("tx_tim", ["tx_time", "amount"])
    " Did you mean 'tx_time'?"
    >>> suggestion("zzz", ["tx_time"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
