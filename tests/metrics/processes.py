"""What one of several processes does: score its share of the images, and save the joint result."""

import warnings
from pathlib import Path

import torch
from torch import distributed

from tests.metrics.cases import CASES, batches

# Unequal shares; and all in one batch, so that one process sees no image.
WAYS = {"shared": [13, 5, 3, 20], "alone": [41]}


def measure(rank: int, processes: int, folder: Path) -> None:
    """Score every `processes`-th batch from `rank` on; every process ends with the whole result."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes
    )
    warnings.filterwarnings("ignore", "The ``compute`` method")
    found = {}
    for name, case in CASES.items():
        for way, lengths in WAYS.items():
            metric = case.make()
            for batch in batches(name, lengths)[rank::processes]:
                metric.update(*batch)
            result = metric.compute()
            found[name, way] = list(result) if isinstance(result, tuple) else [result]
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()
