"""Small versions of radiographs, made once and kept as memory-mapped arrays."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boneage.data.images import even_contrast, read_radiograph
from boneage.run_folder import atomic_path
from ldlcam import crop_and_resize

_CHUNK = 32


@dataclass(frozen=True)
class View:
    """What is cut out of every image: one box an image (None: the whole), at one size."""

    path: Path
    size: int
    boxes: np.ndarray | None = None


def write_views(
    images: Sequence[Path],
    views: Sequence[View],
    contrast: str,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Read every image once and write all views of it, each as one array (N, size, size) uint8.

    Args:
        images: The image files.
        views: What to cut out; a box is (x1, y1, x2, y2) in pixels of the image itself.
        contrast: See `even_contrast`; it is evened on the whole image, before cropping.
        progress: Called with the number of images just done.

    Returns:
        Height and width of every image, array (N, 2) int64.

    Raises:
        UserError: If an image cannot be read, or the disk is full. No view is left half written.
    """
    shapes = np.zeros((len(images), 2), dtype=np.int64)
    with _targets(views, len(images)) as arrays, _workers(len(images)) as run:
        chunks = [slice(i, i + _CHUNK) for i in range(0, len(images), _CHUNK)]
        jobs = [
            (
                images[chunk],
                [(view.size, None if view.boxes is None else view.boxes[chunk]) for view in views],
                contrast,
            )
            for chunk in chunks
        ]
        for chunk, (pixels, shape) in zip(chunks, run(_render_chunk, jobs), strict=True):
            for array, part in zip(arrays, pixels, strict=True):
                array[chunk] = part
            shapes[chunk] = shape
            progress(len(shape))
    return shapes


def render(
    image: np.ndarray, views: Sequence[tuple[int, np.ndarray | None]]
) -> list[np.ndarray]:
    """Cut views out of one image (H, W) in [0, 1]: each a square of uint8 grey values."""
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    height, width = image.shape
    cuts = []
    for size, box in views:
        corners = (0, 0, width, height) if box is None else box
        boxes = torch.as_tensor(corners, dtype=torch.float32)[None]
        cut = crop_and_resize(tensor, boxes, (size, size))
        cuts.append((cut[0, 0] * 255).round().clamp(0, 255).to(torch.uint8).numpy())
    return cuts


def _render_chunk(
    job: tuple[Sequence[Path], list[tuple[int, np.ndarray | None]], str],
) -> tuple[list[np.ndarray], np.ndarray]:
    paths, views, contrast = job
    cuts: list[list[np.ndarray]] = [[] for _ in views]
    shapes = []
    for row, path in enumerate(paths):
        image = even_contrast(read_radiograph(path), contrast)
        own = [(size, None if boxes is None else boxes[row]) for size, boxes in views]
        for collected, cut in zip(cuts, render(image, own), strict=True):
            collected.append(cut)
        shapes.append(image.shape)
    return [np.stack(collected) for collected in cuts], np.array(shapes)


@contextlib.contextmanager
def _targets(views: Sequence[View], count: int) -> Iterator[list[np.ndarray]]:
    with contextlib.ExitStack() as stack:
        yield [
            _allocate(stack.enter_context(atomic_path(view.path)), (count, view.size, view.size))
            for view in views
        ]


def _allocate(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    # Claim the blocks now: a disk that fills up under a memory map ends the process (SIGBUS).
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


@contextlib.contextmanager
def _workers(count: int) -> Iterator[Callable[..., Iterator[Any]]]:
    workers = min(os.cpu_count() or 1, count // _CHUNK)
    if workers <= 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
