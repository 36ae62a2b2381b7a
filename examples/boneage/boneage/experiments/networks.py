"""The networks behind a table: trained where they are missing, each with a file of its figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from boneage.config import REGIONS, Config
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.experiments.rows import Row
from boneage.pipeline import do_task, run_tasks
from boneage.run_folder import Stage, read_json, write_json
from boneage.stages.evaluate import (
    age_scores,
    constant_error,
    floors,
    localization_scores,
    provenance,
    test_predictions,
)
from boneage.stages.localize import Found
from boneage.stages.plan import Place, RunStages, plan_keyed

# Of a stage's key, so much tells folders apart.
_SHORT = 8


def beside_others(folder: Path) -> Place:
    """Stages lie in folders that are named after what they are computed from.

    So those of other settings lie beside each other, and none is done twice.
    """
    return lambda title, key: folder / f"{title}-{key[:_SHORT]}"


@dataclass(frozen=True)
class Network:
    """The network of a row from one seed: a run that shares all stages that it can with others.

    `told` is the stage of what it says, or of what the ensemble says; files of figures lie in
    `folder`.
    """

    config: Config
    stages: RunStages
    told: Stage
    folder: Path

    @classmethod
    def of(cls, row: Row, seed: int, base: Config, folder: Path, data_key: str) -> Network:
        """The network of a row from one seed, and where its figures are written."""
        config = row.config(base, seed)
        stages = plan_keyed(config, beside_others(folder), data_key, _regions(row))
        told = list(stages.ages.values())[-1]  # of an ensemble, if there is one
        return cls(config, stages, told, folder)

    @property
    def record(self) -> Path:
        """The file of its figures."""
        return record_of(self.told, self.folder)

    def train(self, data: Path, console: Console) -> dict[str, Any]:
        """Do what is missing of its run, unless its figures are there; its figures.

        Raises:
            MissingWeights: If its pretrained weights cannot be had here.
        """
        if not self.record.exists():
            self.run(data, console)
            write_json(self.record, self._figures())
        figures: dict[str, Any] = read_json(self.record)
        return figures

    def run(self, data: Path, console: Console) -> None:
        """Do what is missing of its run, and write the figures of the regions that it sees."""
        for task in run_tasks(self.config, data, self.stages, console):
            do_task(task, console)
        _write_regions(self.config, self.stages, self.folder)

    def _figures(self) -> dict[str, Any]:
        told, trained = self.told, self.stages.models.values()
        samples = Samples.load(self.stages.prepared.folder)
        rows = samples.rows(splits.TEST)
        return {
            **provenance(self.config, samples),
            "seed": self.config.training.models[0].seed,
            "prepared": self.stages.prepared.folder.name,
            **age_scores(self.config, samples, told),
            "whole_image_instead": self._not_found(),
            "floor": self._floor(),
            "constant": constant_error(samples),
            "months": _line(test_predictions(told, rows)["months"]),
            "truth": _line(samples.months[rows]),
            **_shown(samples.patients[rows]),
            "seconds": {"training": round(sum(stage.seconds for stage in trained), 1)},
        }

    def _not_found(self) -> dict[str, int]:
        """In how many images a region that it sees was not found, if in any."""
        seen = {name for model in self.config.training.models for name in model.regions}
        found = {name: stage for name, stage in self.stages.regions.items() if name in seen}
        counts = {name: Found.load(stage).whole_image_instead for name, stage in found.items()}
        return {name: count for name, count in counts.items() if count}

    def _floor(self) -> float | None:
        """The least error that could be reached, which only of the phantom is known, if at all."""
        if not self.config.drawn:
            return None
        found = {name: self.stages.regions[name] for name in self.stages.needed()}
        falls_on = {
            name: read_json(stage / "threshold.json")["falls_on"] for name, stage in found.items()
        }
        return floors(self.config, self.config.drawn, falls_on).get(list(self.stages.ages)[-1])


def localize(config: Config, data: Path, stages: RunStages, folder: Path, console: Console) -> None:
    """Train the attention networks and find the regions, where that is not done; a file of each."""
    for task in run_tasks(config, data, stages, console):
        if task.command in ("prepare", "localize"):
            do_task(task, console)
    _write_regions(config, stages, folder)


def _write_regions(config: Config, stages: RunStages, folder: Path) -> None:
    """Write the figures of the regions that are found, and of the networks that find them."""
    for region in stages.needed():
        found, attention = stages.regions[region], stages.attention[region]
        record = record_of(found, folder)
        if not record.exists():
            samples = Samples.load(stages.prepared.folder)
            figures = {
                **provenance(config, samples),
                **localization_scores(region, attention, found, samples),
                "seconds": round(attention.seconds, 1),
            }
            write_json(record, figures)


def record_of(stage: Stage, folder: Path) -> Path:
    """The file of the figures of a network: the stage is its last, of what it says or finds."""
    return folder / "networks" / f"{stage.folder.name}.json"


def _regions(row: Row) -> tuple[str, ...] | None:
    """The regions to be found for a row: its own if it sees but one of them, and else all.

    So other thresholds of one region need no networks that find the others.
    """
    seen = {name for regions in (row.regions, *row.others) for name in regions} - {"whole"}
    return tuple(seen) if seen <= set(REGIONS) and len(seen) < 2 else None


def _shown(patients: np.ndarray) -> dict[str, str]:
    """Whom each test image shows, unless each shows another."""
    alone = len(np.unique(patients)) == len(patients)
    return {} if alone else {"patients": " ".join(map(str, patients))}


def read_shown(figures: dict[str, Any]) -> np.ndarray:
    """Whom each test image shows (N,), of a network's figures."""
    if "patients" in figures:
        return read_line(figures["patients"]).astype(np.int64)
    return np.arange(len(read_line(figures["truth"])))


def _line(months: np.ndarray) -> str:
    """Ages of all test images in one line, which is a fifth of their size as a list."""
    return " ".join(f"{value:.2f}" for value in months)


def read_line(line: str) -> np.ndarray:
    """Ages (N,) from such a line."""
    return np.array(line.split(), dtype=np.float64)
