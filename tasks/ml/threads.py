"""Threads: how many each part of a training may use, set on purpose.

OpenMP, which histogram gradient boosting runs on, starts a thread for every core in every process and waits busily; two
such processes on two cores take many times as long as one after the other. So whoever computes says with how many.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager


def cores() -> int:
    """Cores that this process may use; `OMP_NUM_THREADS` lowers it, as the local stack does beside its servers."""
    told = (
        os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    )  # a list speaks of nested teams, the outer one first
    return min(available(), int(told)) if told.isdigit() and int(told) else available()


def available() -> int:
    """Cores that the system lets this process use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(workers: int, most: int | None = None) -> int:
    """Threads for each of so many processes, so that together they use every core once.

    >>> share(10_000)
    1
    """
    fair = max(1, cores() // max(workers, 1))
    return fair if most is None else min(fair, most)


@contextmanager
def limited(threads: int) -> Generator[None]:
    """OpenMP and BLAS use so many threads in this process meanwhile, whatever the environment says."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=threads):
        yield
