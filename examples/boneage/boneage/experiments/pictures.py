"""Figures 1 and 3: images with their heat maps, boxes and crops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ldlcam import box_iou, crop_and_resize, plot_regions, scale_boxes

from boneage.config import TRUTH, Config
from boneage.data import splits
from boneage.data.batches import to_float
from boneage.data.contrast import even_contrast
from boneage.data.images import read_radiograph
from boneage.data.samples import Samples
from boneage.experiments.writing import csv_text, heading, markdown_row, picture
from boneage.networks.regions import erase_regions
from boneage.report.cases import evenly_by_age
from boneage.report.wording import ANNOTATED, FOUND, number, sex
from boneage.run_folder import read_array
from boneage.stages.evaluate import provenance
from boneage.stages.localize import Found
from boneage.stages.plan import RunStages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES = {1: 4, 3: 6}
_FRAME = (512, 384)


def pictured(config: Config, stages: RunStages, figure: int) -> dict[str, Any]:
    """What was found in the images of Figure 1 or 3.

    They are far apart in age, of those with boxes to score by, or else of the test images.
    """
    samples = Samples.load(stages.prepared.folder)
    boxed = samples.boxed_rows("Wrist", splits.BOXES_SCORE)
    rows = evenly_by_age(
        boxed if len(boxed) else samples.rows(splits.TEST), samples, _IMAGES[figure]
    )
    found = {region: Found.load(stage) for region, stage in stages.regions.items()}
    return {
        "name": f"figure-{figure}",
        "title": f"Figure {figure}: regions over images",
        **provenance(config, samples),
        "images": [
            {
                "row": int(row),
                "id": samples.ids[row],
                "months": float(samples.months[row]),
                "male": bool(samples.male[row]),
                "regions": {
                    region: _region(own, region, samples, row) for region, own in found.items()
                },
            }
            for row in rows
        ],
    }


def _region(found: Found, region: str, samples: Samples, row: int) -> dict[str, Any]:
    """A found region of one image: its box in pixels, and its IoU with the annotated ones."""
    box = found.boxes[row].astype(np.float64)
    annotated = {name: samples.truth[name][row] for name in TRUTH[region] if name in samples.truth}
    return {
        "box": [round(edge, 1) for edge in box.tolist()],
        "found": bool(found.valid[row]),
        "iou": {
            name: float(box_iou(torch.from_numpy(box)[None], torch.from_numpy(other)[None]))
            for name, other in annotated.items()
            if np.isfinite(other).all()
        },
    }


def pictures_page(results: dict[str, Any]) -> str:
    """The page of Figure 1 or 3, as Markdown."""
    pairs = _pairs(results)
    titles = [f"{FOUND[region]}: IoU with the {ANNOTATED[name]}" for region, name in pairs]
    lines = [
        *heading(results),
        f"{results['data']['name']}: images far apart in age, of those that neither trained nor "
        "chose a threshold. Beside each image: for each region its heat map and box over the "
        "image, and the crop; from Region 2 on also what its network saw.",
        "",
        picture(results),
        "",
        markdown_row("image", "age (months)", "", *titles),
        "|---|---:|---|" + "---:|" * len(pairs),
    ]
    for image in results["images"]:
        told = [image["regions"][region]["iou"].get(name) for region, name in pairs]
        known = image["id"], f"{image['months']:g}", sex(image["male"])
        lines.append(markdown_row(*known, *(number(iou, 2) for iou in told)))
    return "\n".join(lines) + "\n"


def pictures_csv(results: dict[str, Any]) -> str:
    """One line a region of an image: its box, and its IoU with the annotated ones."""
    names = list(dict.fromkeys(name for _, name in _pairs(results)))
    header = ("id", "months", "male", "region", "found", "x1", "y1", "x2", "y2")
    rows = []
    for image in results["images"]:
        known = image["id"], image["months"], image["male"]
        for region, own in image["regions"].items():
            overlaps = (own["iou"].get(name) for name in names)
            rows.append((*known, region, own["found"], *own["box"], *overlaps))
    return csv_text((*header, *(f"iou_{name.lower()}" for name in names)), rows)


def _pairs(results: dict[str, Any]) -> list[tuple[str, str]]:
    """The found and annotated regions of which any image knows both."""
    told = (
        (region, name)
        for image in results["images"]
        for region, own in image["regions"].items()
        for name in own["iou"]
    )
    return list(dict.fromkeys(told))


def draw_pictured(config: Config, data: Path, stages: RunStages, results: dict[str, Any]) -> Figure:
    """The images of Figure 1 or 3, which are read again."""
    rows = np.array([image["row"] for image in results["images"]])
    return draw_regions(config, data, stages, rows)


def draw_regions(config: Config, data: Path, stages: RunStages, rows: np.ndarray) -> Figure:
    """Images with their heat maps, boxes and crops, and as the later regions' networks saw them."""
    samples = Samples.load(stages.prepared.folder)
    shapes = torch.from_numpy(samples.shapes[rows])
    radiographs = [
        torch.from_numpy(even_contrast(read_radiograph(data / samples.paths[i]), config.contrast))
        for i in rows
    ]
    whole = torch.zeros(len(rows), 4)
    images = crop_and_resize([image[None] for image in radiographs], whole, _FRAME)
    heatmaps, boxes = {}, {}
    for region, stage in stages.regions.items():
        heatmaps[FOUND[region]] = torch.from_numpy(read_array(stage / "heatmaps.npy")[rows])
        own = torch.from_numpy(Found.load(stage).boxes[rows])
        boxes[FOUND[region]] = scale_boxes(own, shapes, _FRAME).float()
    small = (images[:, 0] * 255).round().to(torch.uint8).numpy()
    ids = [samples.ids[row] for row in rows]
    seen = {}
    for region in stages.regions:
        if before := config.localization.erased_for(region):
            found = [Found.load(stages.regions[name]).of(rows) for name in before]
            erased = erase_regions(small, found, shapes, ids)
            seen[FOUND[region]] = to_float(torch.from_numpy(erased))[:, None]
    return plot_regions(images, heatmaps, boxes, seen=seen, size=1.3)
