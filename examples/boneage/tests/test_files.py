"""What is known of image files without reading their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneage.data.files import originals, sampled


@given(size=st.integers(1, 3_000_000), start=st.floats(0, 1))
def test_an_image_that_is_changed_in_place_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, size: int, start: float
) -> None:
    """An uncompressed one stays as large: it is enough that a few dozen of its rows change."""
    content = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    changed = min(size, max(8192, size // 64))
    image = tmp_path_factory.mktemp("data") / "1.raw"
    image.write_bytes(content.tobytes())
    before = sampled(image)
    content[int(start * (size - changed)) :][:changed] ^= 1
    image.write_bytes(content.tobytes())
    assert sampled(image) != before


def test_copies_have_the_first_of_them_for_an_original(tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, 2_000_000, dtype=np.uint8)
    other = large.copy()
    other[20_000] ^= 1  # between two samples
    contents = {"b": b"one", "a": b"two", "c": b"one", "d": b"", "e": b"", "f": b"three"}
    contents |= {"g": large.tobytes(), "h": other.tobytes(), "i": other.tobytes()}
    paths = {id: tmp_path / id for id in contents}
    for id, content in contents.items():
        paths[id].write_bytes(content)
    assert sampled(paths["g"]) == sampled(paths["h"])
    found = originals(paths)
    assert found == {id: id for id in contents} | {"c": "b", "e": "d", "i": "h"}
