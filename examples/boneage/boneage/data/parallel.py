"""Reading images ahead of whoever takes them, and how many processors there are to do it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# Memory and disk feed no more of them.
_MOST_THREADS = 8

T = TypeVar("T")
R = TypeVar("R")


def processors() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def read_ahead(read: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R, None, None]:
    """As `map`, by threads, which are so many items ahead and no further.

    Decoders and numpy leave the interpreter to others while they work, so that networks can run
    meanwhile. What `read` raises is raised where its result would have come.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(min(processors(), _MOST_THREADS))
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
