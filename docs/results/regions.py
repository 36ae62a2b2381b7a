"""Draw the regions that a run found: `python docs/results/regions.py RUN PICTURE`.

The images are the first six, by id, of the scoring half of the annotated ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

from boneage.data import splits
from boneage.data.samples import Samples
from boneage.experiments.pictures import draw_regions
from boneage.pipeline import data_folder, open_run

COUNT = 6


def draw(run: Path, picture: Path) -> None:
    """Read what the run left, and write the picture."""
    config, stages = open_run(run)
    samples = Samples.load(stages.prepared.folder)
    rows = samples.boxed_rows("Wrist", splits.BOXES_SCORE)[:COUNT]
    figure = draw_regions(config, data_folder(config, run), stages, rows)
    figure.savefig(picture, dpi=90, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
