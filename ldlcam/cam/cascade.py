"""Find a region, erase it, find the next."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ldlcam._check import (
    check_choice,
    check_fraction,
    check_nonnegative,
    check_sequence,
    check_tensor,
    is_number,
)
from ldlcam.cam.boxes import clip_boxes, pad_boxes, scale_boxes
from ldlcam.cam.erasing import Fill, check_fill, erase_boxes
from ldlcam.cam.levelsets import levelset_boxes
from ldlcam.cam.regions import Regions


class CascadeHistory(NamedTuple):
    """What a cascade of R steps saw and found, step by step.

    Attributes:
        boxes: (N, R, 4), half-open x1, y1, x2, y2 in pixels of the images.
        valid: (N, R) bool, whether there is a region.
        heatmaps: The heat maps of each step, R of (N, h, w).
        images: The images that each step saw, R of (N, C, H, W): those given, then with ever more
            regions erased.
    """

    boxes: Tensor
    valid: Tensor
    heatmaps: list[Tensor]
    images: list[Tensor]


class AttentionCascade(nn.Module):
    """Regions one after another: each step looks at the images without those found before.

    A step draws a heat map, takes the box of its hottest region and erases it from the images; the
    next step sees what is left. Where a step finds nothing, nothing is erased, and the region is
    not valid. What draws the maps is anything that turns images into heat maps: a network with a
    `CAMHead`, or a function around another library's method.

    Args:
        steps: What draws each step's heat maps: callables from images (N, C, H, W) to maps
            (N, h, w). They may be the same one, or networks that were each trained on images with
            the earlier regions erased. Modules move and train with the cascade; of a network that
            is behind a function or a bound method it knows nothing.
        threshold: Fraction of each map's maximum, in (0, 1]: a number, or one for each step.
        component: Which component of the level set counts, as for `levelset_boxes`.
        margin: How much wider than found a box becomes on each side, as a fraction of its own
            width and height, as for `pad_boxes`; boxes stay within the image.
        exclude: Whether maps count as 0 in the cells whose centres lie in a region found before.
            Erasing leaves a patch, and where it is can be as telling as what it covers.
        fill: What takes a region's place, as for `erase_boxes`.
        value_range: The lowest and highest random value.

    Attributes:
        networks: The steps that are modules, in their order; one put in another's place draws the
            maps from then on.

    Raises:
        TypeError: If the steps are not a sequence of callables, or a threshold or the margin is not
            a number.
        ValueError: If there is no step, or a threshold, the component or the margin is out of its
            range.

    Example:
        >>> import torch
        >>> from ldlcam import AttentionCascade
        >>> def brightness(images):
        ...     return torch.nn.functional.avg_pool2d(images, 4)[:, 0]
        >>> images = torch.zeros(1, 1, 16, 16)
        >>> images[..., 0:4, 0:4] = 1.0
        >>> images[..., 12:16, 8:12] = 0.5
        >>> cascade = AttentionCascade([brightness, brightness], threshold=0.5, fill=0.0)
        >>> cascade(images).boxes
        tensor([[[ 0.,  0.,  4.,  4.],
                 [ 8., 12., 12., 16.]]])

    References:
        Chen et al., arXiv 2006.00202: two steps, of two networks. That maps do not count inside
        earlier regions is an addition.
    """

    def __init__(
        self,
        steps: Sequence[Callable[[Tensor], Tensor]],
        *,
        threshold: float | Sequence[float] | Tensor,
        component: Literal["largest", "peak"] = "largest",
        margin: float = 0.0,
        exclude: bool = True,
        fill: Fill = "random",
        value_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        check_sequence("steps", steps, "a sequence of modules or functions")
        if len(steps) == 0:
            raise ValueError("steps: expected at least one, got none")
        for step in steps:
            if not callable(step):
                raise TypeError(f"steps: expected callables, got {type(step).__name__}")
        # A scalar of torch or numpy is a number too, such as the best of a sweep.
        if not is_number(threshold):
            check_sequence("threshold", threshold, "a number, or a sequence of one for each step")
        thresholds = torch.as_tensor(threshold, dtype=torch.float64, device="cpu")
        if thresholds.ndim == 0:
            thresholds = thresholds.expand(len(steps))
        if thresholds.shape != (len(steps),):
            raise ValueError(
                f"threshold: expected one, or {len(steps)} as there are steps, got {threshold!r}"
            )
        self.thresholds: list[float] = thresholds.tolist()
        for value in self.thresholds:
            check_fraction("threshold", value)
        check_choice("component", component, ("largest", "peak"))
        check_nonnegative("margin", margin)
        check_fill(fill, value_range)
        # So that they move, train and save with the cascade.
        self.networks = nn.ModuleList(step for step in steps if isinstance(step, nn.Module))
        self._functions = [None if isinstance(step, nn.Module) else step for step in steps]
        self.component = component
        self.margin = margin
        self.exclude = exclude
        self.fill = fill
        self.value_range = value_range

    @property
    def steps(self) -> list[Callable[[Tensor], Tensor]]:
        """What draws each step's heat maps: the functions, and the modules of `networks`."""
        networks = iter(self.networks)
        return [next(networks) if step is None else step for step in self._functions]

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"threshold={self.thresholds}, component={self.component!r}, margin={self.margin}"

    def forward(self, images: Tensor, *, seeds: Tensor | None = None) -> CascadeHistory:
        """Find one region a step.

        Args:
            images: (N, C, H, W), floating.
            seeds: One seed per image, (N,), integer, for what takes the regions' place: the same
                image then gives the same regions in any batch. None draws seeds from torch's
                generator.

        Returns:
            The history.

        Raises:
            TypeError: If an argument is not a tensor of the expected kind.
            ValueError: If it has another shape, or a step gives anything but (N, h, w).
        """
        check_tensor("images", images, "N C H W", "floating")
        size = (images.shape[2], images.shape[3])
        found: list[Regions] = []
        history: list[Tensor] = []
        seen: list[Tensor] = []
        for step, threshold in zip(self.steps, self.thresholds, strict=True):
            heatmaps = step(images)
            check_tensor("heatmaps", heatmaps, "N h w", "floating", N=images.shape[0])
            if self.exclude:
                for region in found:
                    heatmaps = _exclude(heatmaps, region.boxes, size)
            boxes, valid = levelset_boxes(heatmaps, threshold, size, component=self.component)
            boxes = clip_boxes(pad_boxes(boxes, self.margin), size)
            found.append(Regions(boxes, valid))
            history.append(heatmaps)
            seen.append(images)
            images = erase_boxes(
                images, boxes, fill=self.fill, value_range=self.value_range, seeds=seeds
            )
        boxes, valid = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
        return CascadeHistory(boxes, valid, history, seen)


def _exclude(heatmaps: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps that are 0 in the cells whose centres lie in boxes of the images."""
    cells = scale_boxes(boxes, size, (heatmaps.shape[1], heatmaps.shape[2]))
    return erase_boxes(heatmaps.unsqueeze(1), cells, fill=0.0).squeeze(1)
