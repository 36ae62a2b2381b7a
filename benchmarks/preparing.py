"""`boneage prepare` beside bare decoding of the same files, by as many processes; and its memory.

Run: python benchmarks/preparing.py [FOLDER OF RADIOGRAPHS]   (without one, phantoms are drawn)
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

# Nothing heavy is imported up here: processes that are started import this file again.

COUNTS, ROUNDS, CHUNK = (128, 256, 512), 3, 32
TARGET = 1.3


def decode(paths: Sequence[Path]) -> int:
    return sum(np.asarray(Image.open(path)).shape[0] for path in paths)


def bare(paths: Sequence[Path], workers: int) -> None:
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        assert sum(pool.map(decode, chunks)) > 0


def data_set(images: Sequence[Path], folder: Path, count: int) -> Path:
    """So many radiographs: links to those given, again and again, under names of their own."""
    folder.mkdir()
    rows = ["id,boneage,male"]
    for i in range(count):
        image = images[i % len(images)]
        (folder / f"{i + 1}{image.suffix}").symlink_to(image)
        rows.append(f"{i + 1},{12 + i % 200},{i % 2 == 0}")
    (folder / "boneage-training-dataset.csv").write_text("\n".join(rows) + "\n")
    return folder


class Peak:
    """The most memory that this process and those that it started held together, in MiB.

    What several of them share counts once; the files that they write are not counted.
    """

    def __enter__(self) -> "Peak":
        self.mib, self._done = 0.0, threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._done.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._done.wait(0.2):
            processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            self.mib = max(self.mib, sum(map(self._held, processes)) / 1024)

    @staticmethod
    def _held(process: int) -> int:
        """KiB of a process of this group, its share of what is shared."""
        try:
            if os.getpgid(process) != os.getpgid(0):
                return 0
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            return 0
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


def main() -> None:
    from _measure import write
    from boneage import phantom
    from boneage.config import load_config
    from boneage.data.images import image_files
    from boneage.data.parallel import processors
    from boneage.run_folder import Stage
    from boneage.stages.prepare import prepare
    from rich.console import Console

    with tempfile.TemporaryDirectory() as scratch:
        if len(sys.argv) > 1:
            source = Path(sys.argv[1]).absolute()
        else:
            config = phantom.PhantomConfig((2000, 1500))
            source = phantom.write_dataset(Path(scratch, "drawn"), 8, config=config)
        images, workers, quiet = image_files(source), processors(), Console(quiet=True)
        config = load_config("demo")
        results = []
        for count in COUNTS:
            data = data_set(images, Path(scratch, f"{count}"), count)
            paths = image_files(data)
            seconds: dict[str, list[float]] = {"prepare": [], "bare": []}
            stage = Stage(Path(scratch, f"prepared-{count}"), "")
            with Peak() as peak:  # untimed: processes are there, and files are read, afterwards
                prepare(config, stage, data, quiet)
            for _ in range(ROUNDS):
                start = time.perf_counter()
                prepare(config, stage, data, quiet)
                middle = time.perf_counter()
                bare(paths, workers)
                seconds["prepare"].append(middle - start)
                seconds["bare"].append(time.perf_counter() - middle)
            ratio = statistics.median(
                a / b for a, b in zip(seconds["prepare"], seconds["bare"], strict=True)
            )
            medians = {name: round(statistics.median(taken), 3) for name, taken in seconds.items()}
            results.append(
                {
                    "images": count,
                    "workers": workers,
                    "median_s": medians,
                    "ratio": round(ratio, 3),
                    "peak_mib": round(peak.mib),
                }
            )
            print(results[-1], flush=True)
        first, last = results[0], results[-1]
        each = {
            name: (last["median_s"][name] - first["median_s"][name]) / (COUNTS[-1] - COUNTS[0])
            for name in ("prepare", "bare")
        }
        results.append(
            {
                "target": f"prepare takes at most {TARGET} times as long as bare decoding",
                "sizes": sorted({Image.open(image).size for image in images}),
                "preset": "demo (three whole views, percentile contrast)",
                "ms_each_further_image": {name: round(1e3 * s, 2) for name, s in each.items()},
                "ratio_of_each_further_image": round(each["prepare"] / each["bare"], 3),
            }
        )
        print(results[-1])
        write("preparing", results)


if __name__ == "__main__":
    main()
