"""Crops of a batch, resized: crop_and_resize beside what libraries offer.

Run: python benchmarks/crops.py
"""

import kornia
import torch
from _measure import compare, show, write
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from ldlcam import crop_and_resize

COUNT, SIDE, OUT = 16, 1120, 448
OURS = "crop_and_resize"


def random_boxes(least: int, most: int) -> Tensor:
    """Boxes (N, 4) of whole pixels inside the images, so that slicing can cut them out."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(least, most + 1, (COUNT, 2), generator=generator)
    corners = (torch.rand(COUNT, 2, generator=generator) * (SIDE - sizes)).long()
    return torch.cat((corners, corners + sizes), 1).float()


def slices(images: Tensor, boxes: Tensor, *, antialias: bool) -> Tensor:
    return torch.cat(
        [
            F.interpolate(
                image[None, :, y1:y2, x1:x2], (OUT, OUT), mode="bilinear", antialias=antialias
            )
            for image, (x1, y1, x2, y2) in zip(images, boxes.int().tolist(), strict=True)
        ]
    )


def grid(images: Tensor, boxes: Tensor, samples: int) -> Tensor:
    """grid_sample at so many places a pixel and axis, averaged."""
    side = OUT * samples
    steps = (torch.arange(side) + 0.5) / side
    x1, y1, x2, y2 = (boxes * 2 / SIDE - 1)[:, :, None].unbind(1)
    x, y = x1 + (x2 - x1) * steps, y1 + (y2 - y1) * steps
    shape = (COUNT, side, side)
    places = torch.stack((x[:, None, :].expand(shape), y[:, :, None].expand(shape)), 3)
    large = F.grid_sample(images, places, padding_mode="border", align_corners=False)
    return F.avg_pool2d(large, samples) if samples > 1 else large


def rois(images: Tensor, boxes: Tensor, ratio: int) -> Tensor:
    return roi_align(images, list(boxes.split(1)), (OUT, OUT), 1.0, ratio, aligned=True)


def by_kornia(images: Tensor, boxes: Tensor, *, antialias: bool) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    if antialias:
        # Its crops do not blur; its resizing does, by a factor that all images share.
        factor = float((x2 - x1).amax() / OUT)
        sigma = max((factor - 1) / 2, 0.001)
        width = int(max(2 * 2 * sigma, 3)) | 1
        images = kornia.filters.gaussian_blur2d(images, (width, width), (sigma, sigma))
    corners = torch.stack(
        (
            torch.stack((x1, y1), 1),
            torch.stack((x2 - 1, y1), 1),
            torch.stack((x2 - 1, y2 - 1), 1),
            torch.stack((x1, y2 - 1), 1),
        ),
        1,
    )
    return kornia.geometry.transform.crop_and_resize(images, corners, (OUT, OUT))


def main() -> None:
    images = torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    comparisons = []
    for name, (least, most) in {"shrunk": (900, 1120), "level": (300, 600)}.items():
        boxes = random_boxes(least, most)
        for antialias in (True, False):
            samples = 3 if antialias and name == "shrunk" else 1
            ways = {
                OURS: lambda boxes=boxes, antialias=antialias: crop_and_resize(
                    images, boxes, (OUT, OUT), antialias=antialias
                ),
                "slices + F.interpolate": lambda boxes=boxes, antialias=antialias: slices(
                    images, boxes, antialias=antialias
                ),
                "grid_sample": lambda boxes=boxes, samples=samples: grid(images, boxes, samples),
                "roi_align": lambda boxes=boxes, samples=samples: rois(images, boxes, samples),
                "kornia": lambda boxes=boxes, antialias=antialias: by_kornia(
                    images, boxes, antialias=antialias
                ),
            }
            exact = ways["slices + F.interpolate"]()
            differences = {key: float((way() - exact).abs().mean()) for key, way in ways.items()}
            result = compare(OURS, ways, rounds=5, warmup=1)
            quality = "antialiased" if antialias else "plain"
            show(f"{COUNT} crops of {least} to {most} pixels to {OUT}, {quality}", result)
            comparisons.append(
                {
                    "images": list(images.shape),
                    "crops": [least, most],
                    "size": OUT,
                    "antialias": antialias,
                    "samples_per_pixel_and_axis": samples,
                    "mean_difference_from_slices": differences,
                    **result,
                }
            )
    write("crops", comparisons)


if __name__ == "__main__":
    main()
