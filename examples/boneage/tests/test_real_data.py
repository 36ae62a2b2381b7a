"""The readers on real radiographs, where they are: set BONEAGE_RSNA100 to their folder."""

import os
from pathlib import Path

import numpy as np
import pytest

from boneage.config import Split
from boneage.data.boxes import read_boxes
from boneage.data.contrast import even_contrast
from boneage.data.images import read_radiograph
from boneage.data.splits import split_ids
from boneage.data.tables import read_table

FOLDER = os.environ.get("BONEAGE_RSNA100")

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="needs real radiographs: set BONEAGE_RSNA100 to the rsna100 folder"
)


def test_table_boxes_and_split() -> None:
    folder = Path(str(FOLDER))
    radiographs = read_table(folder, first=1, last=240)
    boxes = read_boxes(folder / "boxes.csv", readers=("train", "eval_expert"))
    assert len(radiographs) == 10264
    assert (len(boxes["Hand"]), len(boxes["Wrist"]), len(boxes["Metacarpal"])) == (314, 158, 158)
    assert not boxes["Hand"].keys() & boxes["Wrist"].keys()
    # Knuckles lie beyond the wrist: above it in the image, in nearly every film.
    above = [boxes["Metacarpal"][id][1] < boxes["Wrist"][id][1] for id in boxes["Wrist"]]
    assert np.mean(above) > 0.95
    boxed = {"Hand": boxes["Hand"], "Wrist": boxes["Wrist"]}
    parts = split_ids([radiograph.id for radiograph in radiographs], boxed, Split())
    trained = {id for id, part in parts.items() if part == "train"}
    assert len(trained) > 6000
    assert not trained & (boxes["Hand"].keys() | boxes["Wrist"].keys())


@pytest.mark.parametrize("contrast", ["none", "percentile", "local"])
def test_images_are_read_and_evened(contrast: str) -> None:
    radiographs = read_table(Path(str(FOLDER)), first=1, last=240)[:: 10264 // 20]
    for radiograph in radiographs:
        image = even_contrast(read_radiograph(radiograph.path), contrast)
        assert image.shape == (100, 100)
        assert 0 <= image.min() < image.max() <= 1
