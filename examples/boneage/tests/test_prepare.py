"""Prepare: what it refuses, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from boneage.config import PhantomData
from boneage.errors import UserError
from boneage.stages.prepare import _check_boxes, draw_phantom

QUIET = Console(quiet=True)
FEW = PhantomData(count=20, size=(128, 96))


def test_a_phantom_is_replaced_but_not_what_lies_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "phantom"
    draw_phantom(FEW, folder, QUIET)
    first = sorted(path.name for path in folder.rglob("*"))
    draw_phantom(FEW.model_copy(update={"count": 21}), folder, QUIET)
    assert len(list(folder.rglob("*"))) == len(first) + 1
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else already"):
        draw_phantom(FEW, folder, QUIET)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("about", ["{}", '{"config": {}}'])
def test_a_phantom_that_does_not_say_what_it_is_is_drawn_anew(tmp_path: Path, about: str) -> None:
    folder = tmp_path / "phantom"
    draw_phantom(FEW, folder, QUIET)
    whole = (folder / "phantom.json").read_bytes()
    (folder / "phantom.json").write_text(about)
    draw_phantom(FEW, folder, QUIET)
    assert (folder / "phantom.json").read_bytes() == whole


def test_boxes_in_another_frame_are_refused() -> None:
    shapes = np.array([[100, 80], [100, 80]])
    boxes = np.array([[10.0, 20, 60, 120], [np.nan] * 4])
    _check_boxes({"Hand": boxes}, ("7", "8"), shapes)
    boxes[1] = 200, 300, 500, 600
    with pytest.raises(UserError, match=r"the Hand box of 8 lies outside .* 80 x 100 pixels"):
        _check_boxes({"Hand": boxes}, ("7", "8"), shapes)


def test_a_place_that_cannot_be_drawn_in_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="phantom: cannot be written"):
        draw_phantom(FEW, tmp_path / "file" / "phantom", QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
