"""Time several ways to compute one thing, in turns, and write down how they compare."""

import ctypes
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def compare(
    ours: str,
    ways: dict[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 2,
    repeats: int = 1,
) -> dict[str, Any]:
    """Median and best time of each way, and how many times as fast `ours` is.

    Each round runs every way, so that what else the machine does meets all of them alike; a ratio
    is the median of the rounds' ratios. The warm-up holds what happens only once, such as
    compilation. With `repeats`, a way runs so often in a row each round, after once untimed, and
    its time is the mean: like steps of training, each finds the memory as its like has left it,
    not as another way has.
    """
    for _ in range(warmup):
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            if repeats > 1:
                way()
            start = time.perf_counter()
            for _ in range(repeats):
                way()
            seconds[name].append((time.perf_counter() - start) / repeats)
    ratios = {
        name: statistics.median(a / b for a, b in zip(taken, seconds[ours], strict=True))
        for name, taken in seconds.items()
        if name != ours
    }
    return {
        "rounds": rounds,
        "repeats": repeats,
        "median_ms": {name: _ms(statistics.median(taken)) for name, taken in seconds.items()},
        "best_ms": {name: _ms(min(taken)) for name, taken in seconds.items()},
        "ours": ours,
        "times_as_fast_as": {name: round(ratio, 3) for name, ratio in ratios.items()},
    }


def peak_bytes(run: Callable[[], object], forget: Callable[[], object]) -> int:
    """How much more memory than before a call takes at its height, the middle of five, on Linux."""
    heights = []
    for _ in range(5):
        forget()
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free goes back, to be seen coming again
        Path("/proc/self/clear_refs").write_text("5")  # the height begins anew
        before = _status("VmRSS")
        run()
        heights.append(_status("VmHWM") - before)
    return sorted(heights)[2]


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"no {field} in /proc/self/status")


def show(title: str, result: dict[str, Any]) -> None:
    """Print one comparison as a table."""
    print(f"\n{title}\n  {'':36} {'median ms':>10} {'best ms':>10}")
    for name, median in result["median_ms"].items():
        ratio = result["times_as_fast_as"].get(name)
        note = "" if ratio is None else f"   {result['ours']} is {ratio:.2f} times as fast"
        print(f"  {name:36} {median:10.2f} {result['best_ms'][name]:10.2f}{note}")


def write(name: str, comparisons: list[dict[str, Any]]) -> Path:
    """Write the comparisons, with the machine and the versions, to `results/<name>.json`."""
    record = {
        "benchmark": name,
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_before": _LOAD,
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in ("torch", "numpy", "scipy")},
        "comparisons": comparisons,
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"\n{path}")
    return path


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)


# Processes that wanted a core in the minute before the benchmark began.
_LOAD = round(os.getloadavg()[0], 2)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
