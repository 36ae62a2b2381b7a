"""Image files as they are, unread: which have changed, and which are copies of others."""

from __future__ import annotations

import filecmp
import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

_SAMPLE = 4096  # bytes
_FEWEST, _MOST = 2, 64


def sampled(path: Path) -> tuple[int, str] | None:
    """A file's size, and a digest of samples from its beginning to its end.

    They are half of a file of up to half a megabyte, and lie at most a few dozen rows apart in an
    uncompressed radiograph: thousands of images are read in a moment, and one that was changed in
    place is noticed.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256()
            parts = min(max(size // (2 * _SAMPLE), _FEWEST), _MOST)
            for place in (*(size * part // parts for part in range(parts)), size - _SAMPLE):
                file.seek(max(place, 0))
                digest.update(file.read(_SAMPLE))
    except OSError:
        return None  # it is named when the table asks for its image
    return size, digest.hexdigest()


def originals(paths: Mapping[str, Path]) -> dict[str, str]:
    """For each id the first one, in the order given, whose file has the same content.

    Args:
        paths: The files, by id.
    """
    sizes = {id: path.stat().st_size for id, path in paths.items()}
    counts = Counter(sizes.values())
    alike: dict[object, list[str]] = {}
    found = {}
    for id, path in paths.items():
        # Another size is another content: most files need not be opened.
        firsts = alike.setdefault(sampled(path) if counts[sizes[id]] > 1 else id, [])
        same = (first for first in firsts if filecmp.cmp(path, paths[first], shallow=False))
        found[id] = next(same, id)
        if found[id] == id:
            firsts.append(id)
    return found
