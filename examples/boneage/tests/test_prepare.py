"""Prepare: what it refuses, and what it leaves alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import IMAGES
from rich.console import Console

from boneage.config import Config, PhantomData
from boneage.data.samples import Samples
from boneage.errors import Problems, UserError
from boneage.run_folder import Stage
from boneage.stages.evaluate import describe_data
from boneage.stages.prepare import _check_boxes, draw_phantom, prepare

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


def test_everything_that_is_wrong_is_told_at_once(
    data_set: Callable[..., Path], tmp_path: Path
) -> None:
    folder = data_set("1,10,True", "2,?,True", "3,30,x", "4,40,False", "5,50,False")
    (folder / IMAGES / "4.png").write_bytes(b"")
    (folder / IMAGES / "5.png").write_bytes(b"\x89PNG")
    (folder / "boxes.csv").write_text("id,reader,region,x1,y1,x2,y2\n1,a,Hand,5,5,1,9\n")
    stage = Stage(tmp_path / "prepare", "key")
    with pytest.raises(Problems) as info:
        prepare(Config(data=folder, phantom=None), stage, folder, QUIET)
    known = ("row 3: id 2: the age", "row 4: id 3: the sex", "boxes.csv, row 2", "4.png", "5.png")
    assert len(info.value.problems) == len(known)
    for problem, part in zip(info.value.problems, known, strict=True):
        assert part in problem
    assert not (stage / "samples.csv").exists()


@pytest.mark.parametrize("own", [{"patient": "who"}, {"part": "fold"}])
def test_the_split_is_that_of_the_tables_columns(
    data_set: Callable[..., Path], tmp_path: Path, own: dict[str, str]
) -> None:
    folds = ("train", "validation", "test", "test")
    rows = [f"{i},{20 + i},True,p{i // 3},{folds[i // 3]}" for i in range(12)]
    folder = data_set(*rows, header="id,boneage,male,who,fold")
    config = Config.model_validate({"table": own, "split": {"validation": 0.25, "test": 0.5}})
    stage = Stage(tmp_path / "prepare", "key")
    stage.begin()
    prepare(config, stage, folder, QUIET)
    samples = Samples.load(stage.folder)
    parts = samples.parts.tolist()
    assert all(len(set(parts[i : i + 3])) == 1 for i in range(0, 12, 3))
    assert sorted(parts[::3]) == sorted(folds)
    shown = [i // 3 if "patient" in own else i for i in range(12)]
    assert samples.patients.tolist() == shown
    assert describe_data(config, samples).get("patients") == (4 if "patient" in own else None)
    if "part" in own:
        assert parts[::3] == list(folds)


def test_copies_of_an_image_are_in_one_part(
    data_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = ("train", "validation", "test")
    rows = (f"{i},{20 + i},True,{folds[i % 3]}" for i in range(12))
    folder = data_set(*rows, header="id,boneage,male,fold")
    for i in range(1, 6):
        shutil.copy(folder / IMAGES / "0.png", folder / IMAGES / f"{i}.png")
    stage = Stage(tmp_path / "prepare", "key")
    stage.begin()
    config = Config.model_validate({"split": {"validation": 0.25, "test": 0.25}})
    prepare(config, stage, folder, Console(width=200))
    samples = Samples.load(stage.folder)
    parts = samples.parts.tolist()
    assert len(set(parts[:6])) == 1
    assert len(set(parts)) == 3
    assert samples.patients.tolist() == [0] * 6 + [1, 2, 3, 4, 5, 6]
    told = capsys.readouterr().out
    assert "copies of other images: 5 (1 of 0, 2 of 0, 3 of 0, 4 of 0, 5 of 0)\n" in told
    # A split of one's own stays as it is.
    config = Config.model_validate({"table": {"part": "fold"}})
    prepare(config, stage, folder, Console(width=200))
    assert Samples.load(stage.folder).parts.tolist() == list(4 * folds)
    told = capsys.readouterr().out
    assert "5 of 0); 4 of them in another part\n" in told
