"""Draw the regions that a run found: `python docs/results/regions.py RUN PICTURE`.

The images are the first six, by id, of the scoring half of the annotated ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from boneage.config import REGIONS
from boneage.data import splits
from boneage.data.contrast import even_contrast
from boneage.data.images import read_radiograph
from boneage.data.samples import Samples
from boneage.pipeline import data_folder, open_run
from boneage.run_folder import read_array
from boneage.stages.localize import Found

from ldlcam import crop_and_resize, erase_boxes, plot_regions, scale_boxes

COUNT, FRAME = 6, (512, 384)
NAMES = dict(zip(REGIONS, ("hand", "Region 1", "Region 2"), strict=True))


def draw(run: Path, picture: Path) -> None:
    """Read what the run left, and write the picture."""
    config, stages = open_run(run)
    data = data_folder(config, run)
    samples = Samples.load(stages.prepared.folder)
    rows = samples.boxed_rows("Wrist", splits.BOXES_SCORE)[:COUNT]
    shapes = torch.from_numpy(samples.shapes[rows])
    radiographs = [
        torch.from_numpy(even_contrast(read_radiograph(data / samples.paths[i]), config.contrast))
        for i in rows
    ]
    whole = torch.zeros(len(rows), 4)
    images = crop_and_resize([image[None] for image in radiographs], whole, FRAME)
    heatmaps, boxes = {}, {}
    for region, name in NAMES.items():
        stage = stages.regions[region]
        heatmaps[name] = torch.from_numpy(read_array(stage / "heatmaps.npy")[rows])
        found = torch.from_numpy(Found.load(stage).boxes[rows])
        boxes[name] = scale_boxes(found, shapes, FRAME).float()
    erased = erase_boxes(images, boxes[NAMES["region1"]], fill=0.5)
    figure = plot_regions(images, heatmaps, boxes, seen={NAMES["region2"]: erased}, size=1.3)
    figure.savefig(picture, dpi=90, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
