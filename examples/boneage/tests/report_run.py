"""A small made-up run in the files' real formats, and its page as a browser would see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boneage.config import SCALAR_LOSSES, TRUTH, Config, Model, load_config
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.networks.bins import make_bins
from boneage.run_folder import write_json
from boneage.stages.crop import crop_path
from boneage.stages.evaluate import evaluate
from boneage.stages.plan import RunStages, plan_stages
from boneage.stages.prepare import whole_path
from boneage.stages.read import read_ensemble, told_rows, write_ages
from boneage.stages.report import write_report

HEIGHT, WIDTH = 120, 90
# In the upright hand of every made-up image, in pixels.
BOXES = {"Hand": (20, 10, 70, 115), "Wrist": (30, 80, 62, 104), "Metacarpal": (26, 40, 66, 60)}
FOUND = {"hand": (22, 14, 68, 112), "region1": (31, 82, 60, 106), "region2": (28, 36, 66, 58)}
PARTS = (
    *(splits.TRAIN,) * 20,
    *(splits.VALIDATION,) * 12,
    *(splits.TEST,) * 14,
    *(splits.BOXES_CHOOSE,) * 6,
    *(splits.BOXES_SCORE,) * 6,
)


@dataclass
class Run:
    config: Config
    folder: Path
    stages: RunStages
    metrics: dict[str, Any]

    def write(self) -> str:
        return write_report(self.config, self.folder, self.stages, self.metrics).read_text("utf-8")

    @cached_property
    def page(self) -> str:
        """The page, drawn once for all tests that only look at it."""
        return self.write()


def make_run(
    folder: Path,
    *,
    boxed: bool = True,
    data: Path | None = None,
    ids: Callable[[int], str] = str,
    names: tuple[str, ...] = ("O-L1", "O", "H+R1+R2"),
    loss: str = "ldl",
    changes: tuple[str, ...] = (),
) -> Run:
    """Write what the stages write, with made-up contents, and evaluate it.

    The first model is trained with L1, the others with the given loss; `changes` are settings.
    """
    rng = np.random.default_rng(0)
    # Built without checks: the page must hold whatever a name is.
    models = tuple(
        Model.model_construct(name=name, regions=("whole",), loss=loss if at else "l1")
        for at, name in enumerate(names)
    )
    config = load_config("smoke", list(changes))
    training = config.training.model_copy(update={"models": models})
    config = config.model_copy(update={"data": data, "training": training})
    stages = plan_stages(config, folder, None)
    parts = np.array(PARTS)
    if not boxed:
        parts[np.char.startswith(parts, "boxes")] = splits.TRAIN
    count = len(parts)
    samples = Samples(
        ids=tuple(ids(i) for i in range(count)),
        parts=parts,
        patients=np.arange(count) // (2 if config.table.patient else 1),
        months=rng.uniform(10, 220, count).astype(np.float32).round(),
        male=rng.random(count) < 0.5,
        shapes=np.tile([HEIGHT, WIDTH], (count, 1)),
        paths=tuple(Path(f"/nowhere/{i}.png") for i in range(count)),
        truth={name: boxes_of(name, parts) for name in BOXES} if boxed else {},
        covariates=np.empty((count, 0), dtype=np.float32),
    )
    samples.save(stages.prepared.folder)
    for size in {config.training.size, *(sizes(config).values())}:
        np.save(
            whole_path(stages.prepared, size),
            rng.integers(0, 256, (count, size, size), dtype=np.uint8),
        )
    for at, region in enumerate(config.localization.found):
        write_region(config, region, stages, samples, rng, boxed=boxed, missing=at)
    for at, model in enumerate(models):
        write_model(config, model, stages, samples, rng, spread=30 / (at + 1))
    for name in config.reading.ensembles:
        members = {model.name: stages.ages[model.name] for model in config.members(name)}
        stages.ages[name].begin()
        read_ensemble(config, stages.ages[name], members, stages.prepared)
    for stage in stages.models.values():
        stage.begin()
    for stage in (stages.prepared, *stages.models.values(), *stages.ages.values()):
        stage.finish(75.0)
    return Run(config, folder, stages, evaluate(config, folder, stages))


def sizes(config: Config) -> dict[str, int]:
    plan = config.localization
    return {region: plan.localizer(region).size for region in plan.found}


def boxes_of(name: str, parts: np.ndarray) -> np.ndarray:
    boxes = np.tile(np.array(BOXES[name], dtype=np.float64), (len(parts), 1))
    boxes[~np.char.startswith(parts, "boxes")] = np.nan
    return boxes


def write_region(
    config: Config,
    region: str,
    stages: RunStages,
    samples: Samples,
    rng: np.random.Generator,
    *,
    boxed: bool,
    missing: int,
) -> None:
    count, stage = len(samples), stages.regions[region]
    stage.folder.mkdir(parents=True)
    heatmaps = rng.normal(0, 0.1, (count, 6, 6)).astype(np.float32)
    x1, y1, x2, y2 = FOUND[region]
    row, column = int((y1 + y2) / 2 / HEIGHT * 6), int((x1 + x2) / 2 / WIDTH * 6)
    heatmaps[:, row, column] += 1
    heatmaps[:missing] = 0
    np.save(stage / "heatmaps.npy", heatmaps)
    boxes = np.tile(np.array(FOUND[region], dtype=np.float32), (count, 1))
    boxes[:missing] = (0, 0, WIDTH, HEIGHT)
    valid = np.arange(count) >= missing
    np.savez(stage / "regions.npz", boxes=boxes, valid=valid)
    write_json(stage / "threshold.json", threshold_of(config, region, boxed=boxed))
    write_json(stages.attention[region] / "training.json", {"validation_mae": 20.5})
    crops = rng.integers(0, 256, (count, config.training.size, config.training.size), np.uint8)
    path = crop_path(stages.cropped, stages.prepared, region, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, crops)


def threshold_of(config: Config, region: str, *, boxed: bool) -> dict[str, Any]:
    if not boxed:
        nowhere = {"nearest": None, "falls_on": None, "pairs": {}}
        return {"threshold": 0.2, "chosen_on": "configuration", **nowhere}
    order = TRUTH[region] if region != "region2" else TRUTH[region][::-1]
    pairs = {}
    for name, top in zip(order, (0.8, 0.1), strict=False):
        table = [
            {"threshold": threshold, "mean_iou": top - abs(threshold - 0.2), "ap50": top}
            for threshold in config.localization.thresholds
            if threshold <= 0.3
        ]
        best = next(row for row in table if row["threshold"] == 0.2)
        pairs[name] = {**best, "choose": table, "score": table}
    return {
        "threshold": 0.2,
        "chosen_on": splits.BOXES_CHOOSE,
        "nearest": order[0],
        "falls_on": order[0],
        "pairs": pairs,
    }


def write_model(
    config: Config,
    model: Model,
    stages: RunStages,
    samples: Samples,
    rng: np.random.Generator,
    *,
    spread: float,
) -> None:
    """Let a model err by so many months, and believe it if it tells distributions."""
    rows = told_rows(samples)
    months = torch.from_numpy(samples.months[rows])
    told = months + spread * torch.from_numpy(rng.normal(size=len(rows)).astype(np.float32))

    def answer(ages: Tensor) -> Tensor:
        if model.loss in SCALAR_LOSSES:
            return ages
        return -((make_bins(config.bins).centers - ages[:, None]) / spread).square() / 2

    stage = stages.ages[model.name]
    stage.begin()
    write_ages(config, stage, samples, answer(told), answer(told + 9))


class Page(HTMLParser):
    """What a browser would see: the elements with their attributes, the text, and the scripts."""

    VOID = frozenset({"meta", "link", "img", "source", "image", "rect", "br"})

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]
