"""How well the pixels of heat maps agree with masks."""

from typing import NamedTuple

import torch
from torch import Tensor

from ldlcam._check import check_same_length, check_tensor
from ldlcam._precision import upcast
from ldlcam.cam.heatmaps import sanitize_heatmaps
from ldlcam.cam.regions import resize_heatmaps


def pixel_average_precision(
    heatmaps: Tensor, masks: Tensor, ignored: Tensor | None = None
) -> Tensor:
    """Area under the precision-recall curve of pixels, over all images together (PxAP).

    Maps are upsampled bilinearly to the masks and scaled from their minimum to their maximum, so
    that their values can be compared between images; a map that shows no place
    (`valid_heatmaps`) is 0 everywhere. The curve is the exact one, with a point for every
    different value.

    Args:
        heatmaps: Heat maps, (N, h, w), floating; half precision is computed in float32.
        masks: The pixels that should be hot, (N, H, W) bool.
        ignored: Pixels that do not count, (N, H, W) bool; None for none.

    Returns:
        Scalar in [0, 1]; 0 where no pixel should be hot.

    Raises:
        TypeError: If an argument is not a tensor of the expected kind.
        ValueError: If the shapes do not fit together.

    Example:
        >>> import torch
        >>> from ldlcam import pixel_average_precision
        >>> heatmaps = torch.tensor([[[0.9, 0.8], [0.1, 0.0]]])
        >>> masks = torch.tensor([[[True, False], [True, False]]])
        >>> pixel_average_precision(heatmaps, masks)
        tensor(0.8333)

    References:
        Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020
        (PxAP), who sum the curve at 1,000 thresholds.
    """
    return precision_recall_area(*comparable_pixels(heatmaps, masks, ignored))


class Pixels(NamedTuple):
    """Pixels of one or several images, in one row.

    Attributes:
        scores: How hot they are, (P,) in [0, 1].
        hits: Whether they should be hot, (P,) bool; never where they do not count.
        counted: Whether they count, (P,) bool.
    """

    scores: Tensor
    hits: Tensor
    counted: Tensor


def comparable_pixels(heatmaps: Tensor, masks: Tensor, ignored: Tensor | None) -> Pixels:
    """The pixels of checked arguments, on a scale that all images share."""
    check_tensor("masks", masks, "N H W", "bool")
    maps, _, _ = sanitize_heatmaps(heatmaps)
    check_same_length(heatmaps=maps, masks=masks)
    count, height, width = masks.shape
    if ignored is not None:
        check_tensor("ignored", ignored, "N H W", "bool", N=count, H=height, W=width)
    maps = resize_heatmaps(upcast(maps), (height, width))
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    scores = (maps - low) / torch.where(high > low, high - low, 1)
    counted = torch.ones_like(masks) if ignored is None else ~ignored
    return Pixels(scores.flatten(), (masks & counted).flatten(), counted.flatten())


def precision_recall_area(scores: Tensor, hits: Tensor, counted: Tensor) -> Tensor:
    """Area under the precision-recall curve of pixels; 0 without a hit."""
    ordered, order = scores.sort()
    # How many pixels, and hits among them, have at least the value of each.
    first = torch.searchsorted(ordered, ordered)
    at_least, hits_at_least = (
        (flags.sum() - flags.cumsum(0) + flags)[first]
        for flags in (counted[order].long(), hits[order].long())
    )
    precision = hits_at_least.to(ordered.dtype) / at_least.clamp(min=1)
    return torch.where(hits[order], precision, 0).sum() / hits.sum().clamp(min=1)
