"""A whole run: which stage needs which, what is done already, and what is left to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import yaml
from rich.console import Console

from boneage.config import REGIONS, Config
from boneage.errors import UserError
from boneage.run_folder import Stage, atomic_path
from boneage.stages.crop import crop
from boneage.stages.evaluate import evaluate
from boneage.stages.localize import find, train_attention
from boneage.stages.plan import RunStages, plan_stages
from boneage.stages.prepare import draw_phantom, prepare
from boneage.stages.report import write_report
from boneage.stages.summary import print_summary
from boneage.stages.train import train

STAGES = ("prepare", "localize", "crop", "train", "evaluate", "report")


def run(config: Config, folder: Path, console: Console, *, until: str = "report") -> None:
    """Do the stages up to `until` that are not done yet, then print what came out.

    Args:
        config: The configuration.
        folder: The run's folder.
        console: Where progress and results are shown.
        until: The last stage, one of `STAGES`.
    """
    last = STAGES.index(until)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    data = _data_folder(config, folder, console)
    stages = plan_stages(config, folder, data)

    def do(stage: Stage, title: str, work: Callable[[], None]) -> None:
        if stage.done:
            console.print(f"[dim]{title}: done before[/dim]")
            return
        console.rule(title, align="left")
        stage.begin()
        start = time.perf_counter()
        work()
        stage.finish(time.perf_counter() - start)
        console.print(f"[dim]{title}: {stage.seconds:.0f} s[/dim]")

    prepared = stages.prepared
    do(prepared, "prepare", lambda: prepare(config, prepared, data, console))
    for region in REGIONS if last >= STAGES.index("localize") else ():
        attention, found = stages.attention[region], stages.regions[region]
        erased = stages.regions["region1"] if region == "region2" else None
        do(
            attention,
            f"attention {region}",
            lambda: train_attention(config, region, attention, prepared, erased),
        )
        do(
            found,
            f"regions {region}",
            lambda: find(config, region, found, prepared, attention, erased, console),
        )
    if last >= STAGES.index("crop"):
        cropped = stages.cropped
        do(cropped, "crop", lambda: crop(config, cropped, prepared, stages.regions, console))
    for model in config.training.models if last >= STAGES.index("train") else ():
        own = stages.models[model.name]
        do(own, f"model {model.name}", lambda: train(config, model, own, prepared, cropped))
    if last >= STAGES.index("evaluate"):
        metrics = evaluate(config, folder, stages)
        print_summary(metrics, console)
    if last >= STAGES.index("report"):
        page = write_report(config, folder, stages, metrics)
        console.print(f"report: {page}")


def read_config(folder: Path) -> Config:
    """The configuration that a run was last started with."""
    path = folder / "config.yaml"
    if not path.exists():
        raise UserError(
            f"{folder}: no run there (config.yaml is missing); start one with boneage run"
        )
    return Config.model_validate(yaml.safe_load(path.read_text()))


def _data_folder(config: Config, folder: Path, console: Console) -> Path:
    if config.data is not None:
        return config.data
    draw_phantom(config.phantom, folder / "phantom", console)
    return folder / "phantom"


def open_run(folder: Path) -> tuple[Config, RunStages]:
    """A finished run's configuration and stages, for reading.

    Whether the stages' keys still fit does not matter here: the data need not be there any more.
    """
    config = read_config(folder)
    return config, plan_stages(config, folder, None)
