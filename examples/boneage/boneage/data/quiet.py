"""Decoders that warn of nothing, in several threads at once."""

from __future__ import annotations

import threading
import warnings

from PIL import Image


class _Quiet:
    """`warnings.catch_warnings` for threads, which have their filters in common.

    The first one in sets them, the last one out restores them: each for itself, they would restore
    what another had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")
                # An image that is too large to be decoded is an error.
                warnings.simplefilter("error", Image.DecompressionBombWarning)
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)


quiet = _Quiet()
