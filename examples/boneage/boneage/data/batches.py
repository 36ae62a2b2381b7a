"""Batches for training: memory-mapped images in, augmented float images out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from boneage.config import Augmentation
from boneage.errors import UserError
from boneage.processes import Share


class Batch(NamedTuple):
    """Images and what is known of them; what is not is NaN among the covariates."""

    images: Tensor
    """(N, R, S, S) uint8, a channel a region."""
    months: Tensor
    """(N,)."""
    sex: Tensor
    """(N,): +1 male, -1 female."""
    covariates: Tensor
    """(N, C)."""


class RegionDataset(Dataset[Batch]):
    """Rows of one or more memory-mapped arrays of crops, read a whole batch at a time.

    Args:
        regions: Crops of all images, each (M, S, S) uint8.
        months: Ages of all images (M,).
        male: Sexes of all images (M,).
        rows: Which images to give, and in which order (N,).
        covariates: What else is known of all images (M, C); nothing by default.
    """

    def __init__(
        self,
        regions: list[np.ndarray],
        months: np.ndarray,
        male: np.ndarray,
        rows: np.ndarray,
        covariates: np.ndarray | None = None,
    ):
        self.regions = regions
        self.months = torch.from_numpy(np.asarray(months, dtype=np.float32))
        self.sex = signed_sex(male)
        self.rows = rows
        known = np.empty((len(months), 0)) if covariates is None else covariates
        self.covariates = torch.from_numpy(np.asarray(known, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, items: list[int]) -> Batch:
        rows = self.rows[items]
        images = np.stack([region[rows] for region in self.regions], axis=1)
        index = torch.from_numpy(rows)
        known = (column[index] for column in (self.months, self.sex, self.covariates))
        return Batch(torch.from_numpy(images), *known)


def signed_sex(male: np.ndarray) -> Tensor:
    """Whether male, bool (N,) -> what the networks are told, float32 (N,): +1 male, -1 female."""
    return torch.from_numpy(np.where(male, 1.0, -1.0).astype(np.float32))


def loader(
    dataset: RegionDataset,
    batch_size: int,
    *,
    shuffle: bool,
    share: Share = Share(),  # noqa: B008
) -> DataLoader[Batch]:
    """A loader of a process's share of whole batches.

    A last batch of fewer than two images for each process is dropped in training: batch
    normalization knows no variance of a single value, so such a batch would raise.

    Args:
        dataset: The images.
        batch_size: That of all processes together.
        shuffle: Whether to train: each epoch in a new order, which torch's generator decides.
        share: Which process this is.

    Raises:
        UserError: If several processes are to train on fewer images than two for each.
    """
    fewest, last = 2 * share.count, len(dataset) % batch_size
    if shuffle and len(dataset) < fewest and share.count > 1:
        raise UserError(
            f"hardware: {share.count} processes train on two images each at least, and the data "
            f"set has {len(dataset)} for training; give --devices and --num-nodes less"
        )
    lonely = shuffle and len(dataset) > batch_size and 0 < last < fewest
    order: Sampler[int] = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(order, batch_size, drop_last=lonely)
    return DataLoader(
        dataset,
        batch_sampler=_Shares(batches, share, equal=shuffle),
        collate_fn=_as_it_is,  # type: ignore[arg-type]  # the data set gives whole batches
        # For the seeds of workers, of which there are none. An epoch's order is drawn from torch's
        # own generator when its first batch is asked for, so that can be set before.
        generator=torch.Generator(),
    )


class _Shares(Sampler[list[int]]):
    """One process's share of each batch; all of them draw the same batches.

    Equal shares make the mean of the processes' gradients that of the batch: what is left over of
    a last one is left out. Otherwise each image is in one share, and a share may be empty, so that
    all processes take as many steps.
    """

    def __init__(self, batches: BatchSampler, share: Share, *, equal: bool):
        self.batches = batches
        self.share = share
        self.equal = equal

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        rank, count = self.share.rank, self.share.count
        for batch in self.batches:
            end = len(batch) // count * count if self.equal else len(batch)
            yield batch[rank:end:count]


def _as_it_is(batch: Batch) -> Batch:
    return batch


def to_float(images: Tensor) -> Tensor:
    """Grey values of uint8 as float32 in [0, 1]."""
    return images.float() / 255


def augment(
    images: Tensor,
    config: Augmentation,
    share: Share = Share(),  # noqa: B008
) -> Tensor:
    """Turn, shift, scale, flip and brighten each image of a batch on its own.

    All channels of an image (its regions) are changed alike.

    Args:
        images: Shape (N, C, S, S), floating, in [0, 1].
        config: How far each change may go.
        share: Which share of a batch these are. The changes of the whole batch are drawn, so that
            each image's are the same however many processes there are.

    Returns:
        Shape (N, C, S, S), in [0, 1].
    """
    if config == Augmentation():
        return images
    count, device = len(images), images.device

    def draw() -> Tensor:
        return torch.rand(count * share.count, device=device)[share.rank :: share.count]

    def spread(amount: float) -> Tensor:
        return (draw() * 2 - 1) * amount

    angle = spread(math.radians(config.rotation))
    zoom = 1 + spread(config.scale)
    flip = torch.where(draw() < 0.5, -1.0, 1.0) if config.flip else 1.0
    shift = torch.stack([spread(2 * config.shift), spread(2 * config.shift)], dim=1)
    turn = torch.stack(
        [flip * angle.cos(), -angle.sin(), flip * angle.sin(), angle.cos()], dim=1
    ).reshape(count, 2, 2)
    affine = torch.cat([turn * zoom[:, None, None], shift[:, :, None]], dim=2)
    moved = warp(images, affine)
    if config.intensity == 0:
        return moved
    gain = 1 + spread(config.intensity).reshape(-1, 1, 1, 1)
    gamma = (1 + spread(config.intensity)).reshape(-1, 1, 1, 1)
    return (moved.clamp(min=1e-6) ** gamma * gain).clamp(0, 1)


def warp(images: Tensor, affine: Tensor) -> Tensor:
    """Images (N, C, S, S) in [0, 1], moved by matrices (N, 2, 3) that lead from new places to old.

    Places are in [-1, 1]. Values past the edge repeat the edge. Interpolation is bicubic: networks
    that learn from the softer images of a bilinear one are biased on the sharp ones that they are
    to tell.
    """
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    # Cubics overshoot at edges; what follows, and the networks, take values in [0, 1].
    return F.grid_sample(
        images, grid, mode="bicubic", padding_mode="border", align_corners=False
    ).clamp(0, 1)
