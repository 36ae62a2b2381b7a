from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from conftest import left_in, noise, write_image, write_images
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boneage.data import cache
from boneage.data.cache import View, render, whole_pool, write_views
from boneage.data.contrast import even_contrast
from boneage.data.images import read_radiograph
from boneage.errors import Problems, UserError


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft blobs (H, W) float32 in [0, 1]."""
    coarse = np.random.default_rng(seed).random((6, 5), dtype=np.float32)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image), 0, 1)


def resized(image: np.ndarray, size: int, box: tuple[float, ...] | None = None) -> np.ndarray:
    """The same by Pillow, whose bilinear filter is an antialiasing triangle too."""
    small = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(small) * 255


# ------------------------------------------------------------------------------------- render


@pytest.mark.parametrize("shape", [(64, 48), (301, 207), (37, 90), (16, 16)])
@pytest.mark.parametrize("size", [16, 33, 100])
def test_the_whole_image_is_resized_as_pillow_does(shape: tuple[int, int], size: int) -> None:
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    (cut,) = render(image, [(size, None)])
    assert cut.dtype == np.uint8
    assert cut.shape == (size, size)
    # Rounding, and Pillow's own rounding of its weights.
    assert np.abs(cut - resized(image, size)).max() <= 0.51


def test_an_image_of_that_size_is_copied() -> None:
    image = noise(3, 40, 40)
    (cut,) = render(image / np.float32(255), [(40, None)])
    np.testing.assert_array_equal(cut, image)


def test_what_lies_midway_between_two_greys_is_rounded_up() -> None:
    """At half the size the sums are whole 64ths of greys, and some of them lie midway."""
    image = noise(4, 128, 128)
    (cut,) = render(image / np.float32(255), [(64, None)])
    sums = image.astype(np.int64)
    for axis in (0, 1):
        first, second, third, fourth = (
            sums.take(np.arange(start, start + 124, 2), axis=axis) for start in (1, 2, 3, 4)
        )
        sums = first + 3 * second + 3 * third + fourth
    assert (sums % 64 == 32).sum() > 20
    np.testing.assert_array_equal(cut[1:-1, 1:-1], (sums + 32) // 64)


@given(
    x=st.integers(0, 60),
    y=st.integers(0, 60),
    width=st.integers(20, 40),
    height=st.integers(20, 40),
)
def test_a_box_is_cut_where_it_lies(x: int, y: int, width: int, height: int) -> None:
    image = smooth(100, 100)
    box = (x, y, x + width, y + height)
    (cut,) = render(image, [(16, np.array(box, dtype=np.float64))])
    # Beyond the box Pillow repeats its edge, where ours sees the image.
    inner = np.abs(cut - resized(image, 16, box))[2:-2, 2:-2]
    assert inner.max() <= 1


def test_the_box_of_the_whole_image_is_the_whole_image() -> None:
    image = np.random.default_rng(0).random((50, 70), dtype=np.float32)
    boxed, whole = render(image, [(32, np.array([0.0, 0, 70, 50])), (32, None)])
    np.testing.assert_array_equal(boxed, whole)


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (5, 5, 5, 20), (np.nan,) * 4])
def test_an_empty_box_stands_for_the_whole_image(box: tuple[float, ...]) -> None:
    image = np.random.default_rng(0).random((50, 70), dtype=np.float32)
    boxed, whole = render(image, [(32, np.array(box)), (32, None)])
    np.testing.assert_array_equal(boxed, whole)


def test_views_of_several_sizes_come_in_order() -> None:
    image = smooth(60, 40)
    assert [cut.shape[0] for cut in render(image, [(8, None), (32, None), (16, None)])] == [
        8,
        32,
        16,
    ]


def test_views_of_one_size_among_others_are_each_their_own() -> None:
    image = np.random.default_rng(0).random((60, 40), dtype=np.float32)
    left, right = np.array([2.0, 5, 18, 50]), np.array([20.0, 0, 40, 60])
    views = [(8, left), (16, right), (8, right), (8, None)]
    for cut, view in zip(render(image, views), views, strict=True):
        np.testing.assert_array_equal(cut, render(image, [view])[0])


def test_a_flipped_view_of_an_array_can_be_rendered() -> None:
    image = smooth(60, 40)
    (flipped,) = render(image[:, ::-1], [(16, None)])
    np.testing.assert_array_equal(flipped[:, ::-1], render(image, [(16, None)])[0])


# -------------------------------------------------------------------------------- write_views


def test_every_view_of_every_image_lies_in_its_row(tmp_path: Path) -> None:
    shapes = [(30, 20), (24, 40), (64, 64)]
    paths = [write_image(tmp_path / f"{i}.png", noise(i, *shape)) for i, shape in enumerate(shapes)]
    boxes = np.array([[2, 3, 12, 23], [0, 0, 40, 24], [10.5, 8.25, 60, 50]])
    views = [
        View(tmp_path / "out" / "whole.npy", 16),
        View(tmp_path / "out" / "crop.npy", 12, boxes),
    ]
    done: list[int] = []
    found = write_views(paths, views, "percentile", done.append)
    np.testing.assert_array_equal(found, shapes)
    assert found.dtype == np.int64
    assert sum(done) == 3
    assert left_in(tmp_path / "out") == ["crop.npy", "whole.npy"]
    whole, crop = (np.load(view.path, mmap_mode="r") for view in views)
    assert (whole.shape, whole.dtype) == ((3, 16, 16), np.uint8)
    assert (crop.shape, crop.dtype) == ((3, 12, 12), np.uint8)
    for row, path in enumerate(paths):
        image = even_contrast(read_radiograph(path), "percentile")
        expected = render(image, [(16, None), (12, boxes[row])])
        np.testing.assert_array_equal(whole[row], expected[0])
        np.testing.assert_array_equal(crop[row], expected[1])


def test_no_images_are_empty_arrays(tmp_path: Path) -> None:
    shapes = write_views([], [View(tmp_path / "whole.npy", 16)], "none")
    assert shapes.shape == (0, 2)
    assert np.load(tmp_path / "whole.npy").shape == (0, 16, 16)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_chunks_of_any_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(cache, "_CHUNK", 4)
    monkeypatch.setattr(cache, "_workers", one_process)
    paths = write_images(tmp_path, [str(i) for i in range(count)])
    done: list[int] = []
    write_views(paths, [View(tmp_path / "whole.npy", 16)], "none", done.append)
    whole = np.load(tmp_path / "whole.npy")
    for row, path in enumerate(paths):
        np.testing.assert_array_equal(whole[row], render(read_radiograph(path), [(16, None)])[0])
    assert done == [4] * (count // 4) + [count % 4] * bool(count % 4)


@contextlib.contextmanager
def one_process(count: int) -> Iterator[Callable[..., Iterator[object]]]:
    yield map


@pytest.fixture(scope="module")
def two_processes() -> Iterator[Callable[..., object]]:
    """A stand-in for `_workers` that gives the same two processes again and again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
        with cache._workers(2 * cache._CHUNK) as run:

            @contextlib.contextmanager
            def workers(count: int) -> Iterator[Callable[..., Iterator[object]]]:
                yield run

            assert run is not map
            yield workers


def test_two_processes_write_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_processes: Callable[..., object]
) -> None:
    paths = write_images(tmp_path / "images", [str(i) for i in range(10)])
    boxes = np.tile([1.5, 2.0, 12.0, 20.0], (10, 1))

    def written(name: str) -> list[np.ndarray]:
        views = [View(tmp_path / name / "a.npy", 12), View(tmp_path / name / "b.npy", 8, boxes)]
        shapes = write_views(paths, views, "local")
        return [shapes, *(np.load(view.path) for view in views)]

    alone = written("alone")
    monkeypatch.setattr(cache, "_workers", two_processes)
    monkeypatch.setattr(cache, "_CHUNK", 3)
    for one, two in zip(alone, written("together"), strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_error_in_another_process_is_told_as_in_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_processes: Callable[..., object]
) -> None:
    monkeypatch.setattr(cache, "_workers", two_processes)
    monkeypatch.setattr(cache, "_CHUNK", 3)
    paths = write_images(tmp_path / "images", [str(i) for i in range(10)])
    paths[7].write_bytes(b"")
    with pytest.raises(UserError) as info:
        write_views(paths, [View(tmp_path / "out" / "a.npy", 12)], "local")
    with pytest.raises(UserError) as here:
        read_radiograph(paths[7])
    assert info.value.problems == (str(here.value),)
    assert left_in(tmp_path / "out") == []


def test_a_small_set_is_read_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    with cache._workers(2 * cache._CHUNK - 1) as run:
        assert run is map


def test_the_end_of_a_worker_is_one_message() -> None:
    message = r"a process that drew images was ended .*; run again with more memory free"
    with pytest.raises(UserError, match=message), whole_pool("drew"):
        raise BrokenProcessPool


@pytest.mark.long
def test_a_worker_that_is_killed_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    told = pytest.raises(UserError, match="ended from outside; run again with more memory")
    with told, cache._workers(2 * cache._CHUNK) as run:
        list(run(os._exit, [1]))


# ------------------------------------------------------------------- what goes wrong meanwhile


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    return [View(tmp_path / "out" / "a.npy", 16), View(tmp_path / "out" / "b.npy", 8)]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_bad_image_leaves_no_view(
    tmp_path: Path, views: list[View], damage: Callable[[Path], object]
) -> None:
    paths = write_images(tmp_path, ["1", "2", "3"])
    damage(paths[2])
    with pytest.raises(UserError, match=r"3\.png: "):
        write_views(paths, views, "none")
    assert left_in(tmp_path / "out") == []


def test_all_bad_images_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: list[View]
) -> None:
    monkeypatch.setattr(cache, "_CHUNK", 2)
    paths = write_images(tmp_path, [str(i) for i in range(7)])
    for i in (1, 4, 5):
        paths[i].write_bytes(b"")
    done: list[int] = []
    with pytest.raises(Problems, match="3 of 7 images: cannot be used as it is") as info:
        write_views(paths, views, "none", done.append)
    assert [problem.split(":")[0] for problem in info.value.problems] == [
        str(paths[i]) for i in (1, 4, 5)
    ]
    assert sum(done) == 7
    assert left_in(tmp_path / "out") == []


def test_a_bad_image_keeps_the_old_views(tmp_path: Path, views: list[View]) -> None:
    paths = write_images(tmp_path, ["1", "2", "3"])
    write_views(paths, views, "none")
    before = [view.path.read_bytes() for view in views]
    paths[0].write_bytes(b"")
    with pytest.raises(UserError):
        write_views(paths, views, "none")
    assert [view.path.read_bytes() for view in views] == before
    assert left_in(tmp_path / "out") == ["a.npy", "b.npy"]


def test_a_full_disk_is_one_message_and_leaves_no_view(
    tmp_path: Path, views: list[View], full_disk: Callable[[Path], None]
) -> None:
    paths = write_images(tmp_path, ["1", "2", "3"])
    full_disk(views[0].path)
    with pytest.raises(UserError, match=r"a\.npy: cannot be written \(No space.*free some space"):
        write_views(paths, views[:1], "none")
    assert left_in(tmp_path / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_disk_that_fills_up_halfway_is_one_message(tmp_path: Path, views: list[View]) -> None:
    import resource

    paths = write_images(tmp_path, [str(i) for i in range(20)])
    large = [View(tmp_path / "out" / "large.npy", 256), *views]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"large\.npy: cannot be written .*free some space"):
            write_views(paths, large, "none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left_in(tmp_path / "out") == []


def test_a_disk_that_is_full_at_the_end_leaves_whole_files_only(
    tmp_path: Path, views: list[View], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_images(tmp_path, ["1", "2", "3"])
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if target.name == "a.npy":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="free some space"):
        write_views(paths, views, "none")
    assert left_in(tmp_path / "out") == ["b.npy"]
    assert np.load(views[1].path).shape == (3, 8, 8)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_leaves_no_view(tmp_path: Path, views: list[View], error: type) -> None:
    paths = write_images(tmp_path, ["1", "2", "3"])

    def interrupt(done: int) -> None:
        raise error

    with pytest.raises(error):
        write_views(paths, views, "none", interrupt)
    assert left_in(tmp_path / "out") == []


SCRIPT = """
import sys, time
from pathlib import Path
from boneage.data.cache import View, write_views

def slowly(done):
    print(done, flush=True)
    time.sleep(60)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_views(sorted(folder.glob("*.png")), [View(folder / "out" / "a.npy", 16)], "none", slowly)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_view_and_no_process(tmp_path: Path) -> None:
    write_images(tmp_path, [str(i) for i in range(3 * cache._CHUNK)])
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"{cache._CHUNK}\n"
        children = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
    assert [name for name in left_in(tmp_path / "out") if not name.startswith(".draft-")] == []
    for _ in range(300):
        if not any(Path(f"/proc/{pid}").exists() for pid in children):
            break
        time.sleep(0.1)
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def children_of(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found
