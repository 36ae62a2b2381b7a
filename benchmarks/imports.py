"""What importing ldlcam costs beyond importing torch.

Run: python benchmarks/imports.py
"""

import statistics
import subprocess
import sys

from _measure import show, write

ROUNDS = 15
CODE = """
import time
import torch
start = time.process_time()
import {module}
print(1e3 * (time.process_time() - start))
"""
MODULES = ("ldlcam", "ldlcam.metrics", "torchvision", "torchmetrics", "kornia", "torchcam.methods")


def milliseconds(module: str) -> float:
    """CPU milliseconds to import a module in a fresh interpreter that has torch."""
    run = subprocess.run(
        [sys.executable, "-c", CODE.format(module=module)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(run.stdout)


def main() -> None:
    for module in MODULES:  # compiled files, disk cache
        milliseconds(module)
    taken: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(ROUNDS):
        for module in MODULES:
            taken[module].append(milliseconds(module))
    result = {
        "rounds": ROUNDS,
        "clock": "CPU time",
        "median_ms": {name: round(statistics.median(one), 1) for name, one in taken.items()},
        "best_ms": {name: round(min(one), 1) for name, one in taken.items()},
        "ours": "ldlcam",
        "times_as_fast_as": {},
    }
    show("Importing, beyond torch", result)
    write("imports", [result])


if __name__ == "__main__":
    main()
