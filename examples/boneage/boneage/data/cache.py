"""Small versions of radiographs, made once and kept as arrays that can be memory-mapped."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ldlcam import crop_and_resize
from torch import Tensor

from boneage.data.contrast import even_contrast
from boneage.data.images import read_radiograph
from boneage.data.parallel import processors
from boneage.errors import Problems, UserError
from boneage.run_folder import atomic_path, writing

_CHUNK = 32

_Cut = tuple[int, np.ndarray | None]
_Job = tuple[Sequence[Path], Sequence[_Cut], str]


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
        Problems: If images cannot be read: all of them, after the others were read too.
        UserError: If the disk is full. No view is left half written.
    """
    bad: list[str] = []
    shapes = np.zeros((len(images), 2), dtype=np.int64)
    chunks = [slice(i, i + _CHUNK) for i in range(0, len(images), _CHUNK)]
    jobs = [(images[chunk], [_part(view, chunk) for view in views], contrast) for chunk in chunks]
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(array_file(view.path, len(images), view.size)) for view in views
        ]
        run = stack.enter_context(_workers(len(images)))
        for chunk, (cuts, sizes, problems) in zip(chunks, run(_render_chunk, jobs), strict=True):
            bad += problems
            progress(len(images[chunk]))
            if bad:
                continue  # the rest is only looked at
            for write, cut in zip(writers, cuts, strict=True):
                write(cut)
            shapes[chunk] = sizes
        if bad:
            raise Problems(f"{len(bad)} of {len(images)} images", bad)
    return shapes


def render(image: np.ndarray, views: Sequence[_Cut]) -> list[np.ndarray]:
    """Cut views out of one image (H, W) in [0, 1]: each a square of uint8 grey values."""
    image = np.ascontiguousarray(image)  # copied once, where it has to be at all
    cuts: dict[int, np.ndarray] = {}
    # Those of one size at once, as several regions are: that saves a quarter of their time.
    for size in {size for size, _ in views}:
        places = [i for i, view in enumerate(views) if view[0] == size]
        parts = render_each([image] * len(places), [views[i][1] for i in places], size)
        cuts |= zip(places, parts, strict=True)
    return [cuts[i] for i in range(len(views))]


def render_each(
    images: Sequence[np.ndarray], boxes: Sequence[np.ndarray | None], size: int
) -> np.ndarray:
    """Parts of images (H, W) in [0, 1], each in its own size, one box each (None: the whole).

    Returns:
        Grey values (N, S, S) uint8.
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(image))[None] for image in images]
    # A box without area stands for the whole image.
    corners = np.stack([np.zeros(4) if box is None else box for box in boxes])
    return cut(tensors, torch.from_numpy(corners).float(), size)[:, 0].numpy()


def cut(images: Tensor | Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
    """Parts of images (N, 1, H, W) in [0, 1], one box each: grey values (N, 1, S, S) uint8."""
    parts = crop_and_resize(images, boxes, (size, size))
    # Whole areas of an image of 8 bits can lie midway between two greys, where the last rounding of
    # the sums would choose, differently on each device. A trifle more, and all are rounded up.
    return (parts * 255 + 1e-3).round().clamp(0, 255).to(torch.uint8)


def _part(view: View, chunk: slice) -> _Cut:
    return view.size, None if view.boxes is None else view.boxes[chunk]


def _render_chunk(job: _Job) -> tuple[list[np.ndarray], list[tuple[int, ...]], list[str]]:
    """A chunk's views and sizes, and what is wrong with its images."""
    paths, views, contrast = job
    cuts, sizes, problems = [], [], []
    for row, path in enumerate(paths):
        try:
            image = even_contrast(read_radiograph(path), contrast)
        except UserError as error:
            problems.append(str(error))
            continue
        own = [(size, None if boxes is None else boxes[row]) for size, boxes in views]
        cuts.append(render(image, own))
        sizes.append(image.shape)
    return [np.stack(cut) for cut in zip(*cuts, strict=True)], sizes, problems


@contextlib.contextmanager
def array_file(path: Path, count: int, size: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Opens an .npy file of so many square images of uint8; gives what appends some of them to it.

    They are written, not mapped: a disk that fills up under a memory map ends the process.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size)}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)

        def write(part: np.ndarray) -> None:
            # Several files are open at once: the message has to name the one that failed.
            with writing(path):
                file.write(part.data)

        yield write


@contextlib.contextmanager
def _workers(count: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` that uses all processors, or the plain one where starting them takes longer."""
    workers = min(processors(), count // _CHUNK)
    if workers <= 1:
        yield map
        return
    pool = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start_worker)
    try:
        with whole_pool("read"):
            yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _context() -> Any:
    """How worker processes are started: with torch imported already, where the system can.

    A server imports it once and stays for the run; each worker is a copy of the server.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@contextlib.contextmanager
def whole_pool(did: str) -> Iterator[None]:
    """Turns the end of a worker, as the system does it when memory runs out, into a message.

    Args:
        did: What the processes of the block did with images.

    Raises:
        UserError: If one of them was ended.
    """
    try:
        yield
    except BrokenProcessPool:
        raise UserError(
            f"a process that {did} images was ended from outside; run again with more memory free"
        ) from None


def _start_worker() -> None:
    torch.set_num_threads(1)
    # An interruption is the parent's to handle, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Workers whose parent is killed would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
