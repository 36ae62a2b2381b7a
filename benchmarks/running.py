"""What the bone-age example adds to its networks: in training, in prediction, and in a whole run.

Run: python benchmarks/running.py   (the whole run is `make demo`'s, some minutes)
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from _measure import write
from boneage import phantom
from boneage.config import Config, load_config
from boneage.data import splits
from boneage.data.batches import Batch, loader
from boneage.data.images import image_files
from boneage.data.samples import Samples
from boneage.model_folder import open_model
from boneage.networks.reading import ask
from boneage.networks.regions import attend
from boneage.networks.regressor import AgeNetwork
from boneage.networks.training import AgeTask
from boneage.pipeline import open_run, run
from boneage.predictor import Patient, Predictor
from boneage.stages.crop import model_images
from rich.console import Console

QUIET = Console(quiet=True)
ROUNDS = 5
SIZES = ((512, 384), (2000, 1500))
# Functions that stand for what is not a network's work, by the module in which they are called.
WATCHED = {
    "crop": ("boneage.pipeline", "crop"),
    "regions from heat maps": ("boneage.stages.localize", "find_regions"),
    "scores of regions": ("boneage.stages.localize", "overlap"),
    "metrics": ("boneage.pipeline", "evaluate"),
}


class Watch:
    """Seconds spent in functions, by the name that they are watched under."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def around(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return timed


def whole_run(folder: Path) -> dict[str, Any]:
    """The demo, and which share of it is not the networks'."""
    watch, config = Watch(), load_config("demo")
    patches = []
    for name, (module, function) in WATCHED.items():
        work = getattr(__import__(module, fromlist=[function]), function)
        patches.append(patch(f"{module}.{function}", watch.around(name, work)))
    for one in patches:
        one.start()
    start = time.perf_counter()
    run(config, folder, QUIET)
    total = time.perf_counter() - start
    for one in patches:
        one.stop()
    seconds = {name: round(taken, 2) for name, taken in watch.seconds.items()}
    share = sum(watch.seconds.values()) / total
    return {
        "what": "share of a whole run that is cropping, post-processing and metrics",
        "preset": "demo",
        "run_s": round(total, 1),
        "seconds": seconds,
        "share": round(share, 4),
        "target": 0.02,
    }


def epochs(folder: Path) -> dict[str, Any]:
    """Epochs of the demo's last network from the cache on disk, and from tensors in memory."""
    config, stages = open_run(folder)
    model = config.training.models[-1]
    samples = Samples.load(stages.prepared.folder)
    rows = samples.rows(splits.TRAIN)
    cached = model_images(config, model, samples, rows, stages.prepared, stages.cropped)
    batch = config.training.schedule.batch_size
    held = cached.__getitems__(list(range(len(rows))))

    def from_cache() -> Iterable[Batch]:
        return loader(cached, batch, shuffle=True)

    def from_memory() -> Iterable[Batch]:
        for index in torch.randperm(len(rows)).split(batch):
            yield Batch(*(column[index] for column in held))

    torch.manual_seed(0)
    network = AgeNetwork(config.training, model, config.bins)
    task = AgeTask(network, config.training, model.loss, 1)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    optimizer = torch.optim.AdamW(network.parameters())

    def epoch(batches: Callable[[], Iterable[Batch]]) -> float:
        start = time.perf_counter()
        for one in batches():
            if len(one.months) > 1:
                optimizer.zero_grad()
                task.training_step(task.on_after_batch_transfer(one, 0), 0).backward()
                optimizer.step()
        return time.perf_counter() - start

    ways = {"cache": from_cache, "memory": from_memory}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        epoch(way)  # the first reads the cache from the disk
    for _ in range(ROUNDS):
        for name, way in ways.items():
            taken[name].append(epoch(way))
    ratio = statistics.median(a / b for a, b in zip(taken["cache"], taken["memory"], strict=True))
    return {
        "what": "an epoch from the cache, beside one from tensors in memory",
        "images": len(rows),
        "median_s": {name: round(statistics.median(each), 3) for name, each in taken.items()},
        "ratio": round(ratio, 4),
        "target": 1.05,
    }


def prediction(
    folder: Path, size: tuple[int, int], scratch: Path, count: int = 64
) -> dict[str, Any]:
    """Predict from image files, and from films in memory, beside the networks alone on tensors."""
    predictor = Predictor(open_model(folder))
    config: Config = predictor.config
    drawn = phantom.PhantomConfig(size=size)
    images = scratch / "x".join(map(str, size))
    phantom.write_dataset(images, count, config=drawn)
    patients = [Patient(path, male=True) for path in image_files(images)]
    plan = config.localization
    sizes = {region: plan.localizer(region).size for region in plan.found}
    small = {region: np.zeros((16, size, size), np.uint8) for region, size in sizes.items()}
    sex = torch.ones(16)

    @torch.no_grad()
    def bare() -> None:
        for _ in range(count // 16):
            for region, localizer in predictor.localizers.items():
                attend(localizer, small[region], sex)
            for model, network in predictor.networks.items():
                side = config.training.size
                seen = torch.zeros(16, len(model.regions), side, side, dtype=torch.uint8)
                ask(network, seen, sex, config.reading)

    films = [predictor.film(patient) for patient in patients]

    def from_films() -> None:
        for i in range(0, count, 16):
            assert predictor.read([str(j) for j in range(i, i + 16)], films[i : i + 16])

    def from_files() -> None:
        assert all(not row["error"] for row in predictor.rows(patients))

    ways = {"files": from_files, "films": from_films, "networks alone": bare}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                taken[name].append(time.perf_counter() - start)

    def ratio(way: str) -> float:
        pairs = zip(taken["networks alone"], taken[way], strict=True)
        return round(statistics.median(alone / own for alone, own in pairs), 4)

    return {
        "what": "images a second from files, and from films in memory, beside the networks alone",
        "images": count,
        "size": list(size),
        "threads": torch.get_num_threads(),
        "images_a_second": {
            name: round(count / statistics.median(each), 2) for name, each in taken.items()
        },
        "ratio": {way: ratio(way) for way in ("files", "films")},
        "target": "0.9 from films: the model's side",
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "demo")
        results: list[dict[str, Any]] = []
        steps = [partial(whole_run, folder), partial(epochs, folder)]
        steps += [partial(prediction, folder, size, Path(scratch)) for size in SIZES]
        for step in steps:
            results.append(step())
            print(results[-1], flush=True)
            write("running", results)  # each at once: the whole takes ten minutes


if __name__ == "__main__":
    # Processes that crop import the main script, with all that this one needs, which would count as
    # cropping: three seconds of the eight. As a module it is left alone, like the command's own.
    command = [sys.executable, "-c", "import running; running.main()"]
    subprocess.run(command, cwd=Path(__file__).parent, check=True)
