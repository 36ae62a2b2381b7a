"""The whole comparison: what is done in which order, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape

from boneage.comparison.features import extract, load_features
from boneage.comparison.heads import HeadTrainer
from boneage.comparison.outputs import load_outputs, score
from boneage.comparison.plan import ComparisonStages, plan_comparison
from boneage.comparison.search import scan, search
from boneage.comparison.summary import print_comparison
from boneage.comparison.whole import whole_tasks
from boneage.config import LOSSES, Config
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.networks.bins import make_bins
from boneage.networks.regressor import tell
from boneage.pipeline import Task, do_task, open_folder, write_config
from boneage.run_folder import Stage, read_json, write_json
from boneage.stages.evaluate import describe_data, versions
from boneage.stages.prepare import prepare
from boneage.stages.statistics import paired_difference

RESULT = "losses.json"


def compare_losses(config: Config, folder: Path, console: Console) -> dict[str, Any]:
    """Do what is left of the comparison, write `losses.json`, and print what came out.

    Args:
        config: The configuration; of its models, only the comparison's own are trained.
        folder: Where everything is written.
        console: Where progress and results are shown.

    Returns:
        What was written.
    """
    backbones = {config.comparison.backbone, config.training.backbone}
    data = open_folder(config, backbones, folder, console)
    stages = plan_comparison(config, folder, data)
    write_config(config, folder)
    for task in _head_tasks(config, data, stages, console):
        do_task(task, console)
    seconds = stages.seconds()
    wholes: dict[str, Stage] = {}
    for loss in config.comparison.whole:
        for task in whole_tasks(loss, stages.chosen(loss), config, folder, stages.data_key):
            do_task(task, console)
            wholes[loss] = task.stage
            seconds[task.title] = round(task.stage.seconds, 1)
    results = _judge(config, stages, wholes) | {"seconds": seconds}
    write_json(folder / RESULT, results)
    print_comparison(results, console)
    console.print(f"figures: {escape(str(folder / RESULT))}")
    return results


def _head_tasks(
    config: Config, data: Path, stages: ComparisonStages, console: Console
) -> Iterator[Task]:
    """All work on heads, each task after those that it needs."""

    def task(title: str, stage: Stage, work: partial[None]) -> Task:
        return Task("losses", title, stage, work)

    work = partial(prepare, config, stages.prepared, data, console)
    yield task("prepare", stages.prepared, work)
    work = partial(extract, config, stages.features, data, stages.prepared, console)
    yield task("features", stages.features, work)
    features = load_features(stages.features, Samples.load(stages.prepared.folder))
    trainer = HeadTrainer(config, features, make_bins(config.bins))
    for loss in LOSSES:
        stage = stages.heads[loss]
        yield task(f"heads {loss}", stage, partial(search, loss, trainer, stage, console))
    work = partial(scan, stages, trainer, console)
    yield task("sigma and weight", stages.scan, work)


def _judge(config: Config, stages: ComparisonStages, wholes: dict[str, Stage]) -> dict[str, Any]:
    samples = Samples.load(stages.prepared.folder)
    heads = _scores(config, stages.heads, samples)
    for loss, figures in heads.items():
        figures["chosen"] = stages.chosen(loss)
        figures["trials"] = read_json(stages.heads[loss] / "trials.json")
    networks = _scores(config, wholes, samples)
    for loss, figures in networks.items():
        figures["rates"] = read_json(wholes[loss] / "rates.json")
    return {
        "data": describe_data(config, samples),
        "seed": config.seed,
        "heads": heads,
        "scan": read_json(stages.scan / "trials.json"),
        "whole": networks,
        "versions": versions(),
        "configuration": config.model_dump(mode="json", exclude={"data"}),
    }


def _scores(config: Config, told: dict[str, Stage], samples: Samples) -> dict[str, Any]:
    """Each loss's figures on the test images, one a seed, and what it gains on L1."""
    bins = make_bins(config.bins)
    sampling = {"resamples": config.bootstrap, "seed": config.seed}
    truth = {part: samples.months[samples.rows(part)] for part in (splits.VALIDATION, splits.TEST)}
    patients = samples.patients[samples.rows(splits.TEST)]
    chose, test = (torch.from_numpy(months) for months in truth.values())
    months, scores = {}, {}
    for loss, stage in told.items():
        outputs = load_outputs(stage)
        seeds = [
            score(output, test, patients, (calibration, chose), bins, **sampling)
            for calibration, output in zip(*outputs.values(), strict=True)
        ]
        scores[loss] = {"mean": _mean(seeds), "seeds": seeds}
        ages = [tell(output, bins).numpy() for output in outputs[splits.TEST]]
        months[loss] = np.stack(ages, axis=1)
    for loss in told:
        scores[loss]["gain_on_l1"] = paired_difference(
            months["l1"], months[loss], truth[splits.TEST], patients, **sampling
        )
    return scores


def _mean(seeds: list[dict[str, Any]]) -> dict[str, float | None]:
    """The mean of each figure over the seeds; None where there is none."""
    numbers = {
        name: [figures[name] for figures in seeds]
        for name, value in seeds[0].items()
        if not isinstance(value, list)
    }
    return {
        name: None if None in values else float(np.mean(values)) for name, values in numbers.items()
    }
