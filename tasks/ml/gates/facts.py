"""Facts: what steps find out for the gates that look beyond answers. Plain frozen values; they go on record as they are."""

from pydantic import BaseModel


class Rehearsed(BaseModel, frozen=True):
    """How the real serving process bore itself with the candidate as its only model.

    Attributes:
        failed: why it did not answer every question, a sentence; empty when it did.
        p50, p95: milliseconds of a request for one row over HTTP, as its sender waits for it.
        requests: how many were timed.
        size: of the candidate's bundle, MiB.
        memory: by how much loading it made the process's resident memory grow, MiB.
        rows: how many questions were answered.
        seconds: how long all this took, without what was done meanwhile.
    """

    failed: str = ""
    p50: float = 0.0
    p95: float = 0.0
    requests: int = 0
    size: float = 0.0
    memory: float = 0.0
    rows: int = 0
    seconds: float = 0.0


class Made(BaseModel, frozen=True):
    """What a challenger was made of, as far as somebody can have it again.

    Attributes:
        snapshot: the name of its rows.
        altered: why those rows cannot be read as they were, a sentence; empty when they can.
        lock: SHA-256 of `requirements.lock`, or `unknown`.
        astray: packages that are not what the lock says.
        commit: of the code, with `+changes` when files differ from it; `unknown` outside of a checkout.
        code: SHA-256 over the code that ran.
    """

    snapshot: str
    altered: str = ""
    lock: str
    astray: tuple[str, ...] = ()
    commit: str
    code: str
