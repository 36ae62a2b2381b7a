"""Class activation maps and their normalization."""

import torch
from torch import Tensor

from ldlcam._check import check_count, check_tensor
from ldlcam.cam.crops import crop_and_resize
from ldlcam.cam.pooling import weighted_sum


def class_activation_map(
    features: Tensor, weight: Tensor, classes: Tensor, *, window: int = 0
) -> Tensor:
    """One heat map per image: the features summed with the weights of its class.

    A map's value at a position is `sum_k weight[t, k] * features[k]`. With a window, the weights
    are the mean over the neighbouring classes `t - window` to `t + window`, both included; at the
    first and last classes only those that exist take part. One batched product makes all maps.
    In bfloat16, and so under autocast, a map has 8 bits, which moves boxes; where those matter,
    leave autocast and pass `features.float()`.

    Args:
        features: Feature maps, (N, C, h, w), floating.
        weight: Weights of the linear classifier, (T, C), as in `nn.Linear`.
        classes: The class of each image, (N,), integer, in 0 ... T - 1.
        window: How many neighbouring classes on either side take part.

    Returns:
        Heat maps, (N, h, w), in the unit of the scores (logits), of the features' dtype.

    Raises:
        TypeError: If an argument is not a tensor of the expected kind.
        ValueError: If the shapes do not fit together or the window is negative.
        IndexError: If a class is not in 0 ... T - 1 (on CUDA, a device-side assertion).

    Example:
        >>> import torch
        >>> from ldlcam import class_activation_map
        >>> features = torch.tensor([[[[1.0, 0.0]], [[2.0, 3.0]]]])  # (1, 2, 1, 2)
        >>> weight = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> class_activation_map(features, weight, torch.tensor([1]))
        tensor([[[3., 3.]]])

    References:
        Zhou et al., "Learning deep features for discriminative localization", CVPR 2016.
        Chen et al., arXiv 2006.00202, Eq. 2; the window is that of the authors' code, which
        leaves out the last of its columns and breaks below class 5.
    """
    check_tensor("features", features, "N C h w", "floating")
    check_tensor("weight", weight, "T C", "floating", C=features.shape[1])
    check_tensor("classes", classes, "N", "integer", N=features.shape[0])
    return weighted_sum(features, class_weights(weight, classes, window))


def class_weights(weight: Tensor, classes: Tensor, window: int) -> Tensor:
    """Each image's weights, (N, C): its class's row, or the mean over a window of rows."""
    check_count("window", window, 0)
    classes = classes.long()
    if window == 0:
        return weight.index_select(0, classes)
    last = len(weight) - 1
    rows = classes[:, None] + torch.arange(-window, window + 1, device=classes.device)
    present = (rows >= 0) & (rows <= last)
    # A row that does not exist is read at the class itself, so that a class out of range
    # still raises, and takes no part in the mean.
    rows = torch.where(present, rows, classes[:, None])
    picked = weight.index_select(0, rows.flatten()).view(*rows.shape, weight.shape[1])
    picked = torch.where(present.unsqueeze(2), picked, 0)
    return picked.sum(1) / present.sum(1, keepdim=True)


def normalize_heatmaps(heatmaps: Tensor) -> Tensor:
    """Heat maps clamped at 0 and divided by their maxima, so that each reaches from 0 to 1.

    A map that shows no place (see `valid_heatmaps`) becomes all zeros, never NaN. Thresholding
    functions do not need normalized maps, and clamping before upsampling moves the level sets.

    Args:
        heatmaps: Heat maps, (N, h, w), floating.

    Returns:
        Maps in [0, 1], (N, h, w), of the same dtype.

    Raises:
        TypeError: If the maps are not a floating tensor.
        ValueError: If they are not (N, h, w).

    Example:
        >>> import torch
        >>> from ldlcam import normalize_heatmaps
        >>> normalize_heatmaps(torch.tensor([[[-1.0, 2.0, 4.0]], [[5.0, 5.0, 5.0]]]))
        tensor([[[0.0000, 0.5000, 1.0000]],
        <BLANKLINE>
                [[0.0000, 0.0000, 0.0000]]])
    """
    maps, peaks, _ = sanitize_heatmaps(heatmaps)
    return maps.clamp(min=0) / peaks[:, None, None]


def valid_heatmaps(heatmaps: Tensor) -> Tensor:
    """Which heat maps show a place: finite, not constant, and above 0 somewhere.

    A map is constant, too, where it varies by no more than a few roundings of its dtype.

    Args:
        heatmaps: Heat maps, (N, h, w), floating.

    Returns:
        (N,) bool.

    Raises:
        TypeError: If the maps are not a floating tensor.
        ValueError: If they are not (N, h, w), h and w at least 1.

    Example:
        >>> import torch
        >>> from ldlcam import valid_heatmaps
        >>> valid_heatmaps(torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]], [[-2.0, -1.0]]]))
        tensor([ True, False, False])
    """
    check_tensor("heatmaps", heatmaps, "N h w", "floating")
    _check_sides(heatmaps, 1)
    with torch.no_grad():
        low, high = heatmaps.amin((1, 2)), heatmaps.amax((1, 2))
        # NaN and infinities reach the minimum or the maximum.
        varies = high - low > _ROUNDINGS * torch.finfo(heatmaps.dtype).eps * high
        return low.isfinite() & high.isfinite() & (high > 0) & varies


# What products and interpolations of a constant map can differ by.
_ROUNDINGS = 8


def trim_heatmaps(heatmaps: Tensor, stride: int, *, factor: int = 2) -> Tensor:
    """Heat maps of just the image, from maps whose outer cells are centred on its outermost pixels.

    Strided convolutions do not look at the middles of equal shares of an image, as every function
    that enlarges a map assumes: with padding on both sides cell i looks at pixel `stride * i`, up
    to half a cell too far up and left; with TensorFlow's padding ("same", timm's `tf_` networks),
    as far too low and right. Boxes are off by as much. Give the network images of a multiple of
    the stride and one pixel (225, not 224): both kinds then look at pixel `stride * i` from the
    first pixel to the last, a mirrored image has the mirrored map, and the map reaches half a cell
    beyond the image on every side. This function cuts that off. Networks that make maps smaller
    without padding (VGG, DenseNet, ConvNeXt) give a cell fewer, which looks nearly at the middle of
    its share: their maps are not to be trimmed.

    Args:
        heatmaps: Heat maps, (N, h, w), floating, h and w at least 2, of images of
            `stride * (h - 1) + 1` by `stride * (w - 1) + 1` pixels.
        stride: Pixels of the network's input from one cell to the next, at least 1.
        factor: New cells for each step from cell to cell; more of them lose less of the peaks.

    Returns:
        Heat maps, (N, factor * (h - 1), factor * (w - 1)), bilinear between the cells' centres, of
        the same dtype: what all other functions expect of a map.

    Raises:
        TypeError: If the maps are not a floating tensor.
        ValueError: If they are not (N, h, w), h and w at least 2, or a number is below 1.

    Example:
        >>> import torch
        >>> from ldlcam import trim_heatmaps
        >>> heatmaps = torch.tensor([[[0.0, 8.0, 0.0], [0.0, 8.0, 0.0]]])  # of 9 x 17 pixels
        >>> trim_heatmaps(heatmaps, stride=8, factor=1)
        tensor([[[3.7500, 3.7500]]])

    References:
        Araujo et al., "Computing receptive fields of convolutional neural networks", Distill 2019.
    """
    check_tensor("heatmaps", heatmaps, "N h w", "floating")
    check_count("stride", stride)
    check_count("factor", factor)
    _check_sides(heatmaps, 2)
    height, width = heatmaps.shape[1:]
    # In cells: the image begins half a pixel before the first cell's centre.
    start = 0.5 - 0.5 / stride
    exact = torch.promote_types(heatmaps.dtype, torch.float32)
    box = heatmaps.new_tensor((start, start, width - start, height - start), dtype=exact)
    size = (factor * (height - 1), factor * (width - 1))
    maps = heatmaps.unsqueeze(1)
    return crop_and_resize(maps, box.expand(maps.shape[0], 4), size, antialias=False).squeeze(1)


def _check_sides(heatmaps: Tensor, least: int) -> None:
    if min(heatmaps.shape[1:]) < least:
        raise ValueError(
            f"heatmaps: expected shape (N, h, w), h and w at least {least}, "
            f"got {tuple(heatmaps.shape)}"
        )


def sanitize_heatmaps(heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maps, maxima and validity, with 0 for every invalid map and 1 for its maximum.

    Arithmetic on them is finite, so an invalid image cannot put NaN into the others' gradients.
    """
    valid = valid_heatmaps(heatmaps)
    maps = torch.where(valid[:, None, None], heatmaps, 0)
    peaks = torch.where(valid, maps.amax((1, 2)), 1)
    return maps, peaks, valid
