"""A whole run: which stage needs which, what is done already, and what is left to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.console import Console
from rich.markup import escape

from boneage.config import Backbone, Config, found_before, load_config
from boneage.errors import UserError
from boneage.networks.backbones import check_backbone
from boneage.networks.training import check_hardware
from boneage.run_folder import Stage, atomic_path, read_json, remove_drafts, write_json, writing
from boneage.stages.crop import crop
from boneage.stages.evaluate import evaluate
from boneage.stages.localize import find, train_attention
from boneage.stages.plan import RunStages, plan_stages
from boneage.stages.prepare import draw_phantom, prepare
from boneage.stages.read import read_ensemble, read_model
from boneage.stages.report import write_report
from boneage.stages.summary import print_summary
from boneage.stages.train import train

RESULTS = ("metrics.json", "predictions.csv", "report.html")
STAGES = ("prepare", "localize", "crop", "train", "evaluate", "report")


class Task(NamedTuple):
    """A stage's folder, the command it belongs to, its title, and the work that fills it."""

    command: str
    title: str
    stage: Stage
    work: Callable[[], None]


def run(config: Config, folder: Path, console: Console, *, until: str = "report") -> None:
    """Do the stages up to `until` that are not done yet, then print what came out.

    Args:
        config: The configuration.
        folder: The run's folder.
        console: Where progress and results are shown.
        until: The last stage, one of `STAGES`.
    """
    last = STAGES.index(until)
    data = open_folder(config, config.backbones, folder, console)
    stages = plan_stages(config, folder, data)
    preparing, *others = run_tasks(config, data, stages, console)
    if not (folder / "plan.json").exists():
        write_config(config, folder)
    # What is refused, a command or its data set, leaves a run that is there as it was.
    with stages.prepared.kept_unless_done():
        do_task(preparing, console)
    write_config(config, folder)
    _forget_results(folder, stages)
    write_json(folder / "plan.json", stages.keys())
    for task in others:
        if STAGES.index(task.command) <= last:
            do_task(task, console)
    if last >= STAGES.index("evaluate"):
        metrics = evaluate(config, folder, stages)
        print_summary(metrics, console)
    if last >= STAGES.index("report"):
        page = write_report(config, folder, stages, metrics)
        console.print(f"report: {escape(str(page))}")


def _forget_results(folder: Path, stages: RunStages) -> None:
    """Remove the figures of a run whose plan has changed: they are not those of its networks."""
    plan = folder / "plan.json"
    if plan.exists() and read_json(plan) != stages.keys():
        with writing(folder):
            for name in RESULTS:
                (folder / name).unlink(missing_ok=True)


def run_tasks(config: Config, data: Path, stages: RunStages, console: Console) -> Iterator[Task]:
    """All work of a run, each task after those that it needs."""
    plan, prepared, cropped = config.localization, stages.prepared, stages.cropped
    yield Task("prepare", "prepare", prepared, partial(prepare, config, prepared, data, console))
    for region in stages.needed():
        attention, found = stages.attention[region], stages.regions[region]
        before = [stages.regions[name] for name in found_before(region)]
        if not plan.second(region):
            erased = [stages.regions[name] for name in plan.erased_for(region)]
            begun = stages.handed_on(region)
            learn = partial(train_attention, config, region, attention, prepared, erased, begun)
            yield Task("localize", f"attention {region}", attention, learn)
        look = partial(find, config, region, found, prepared, attention, before, console)
        yield Task("localize", f"regions {region}", found, look)
    if stages.cut:
        regions = {name: stages.regions[name] for name in stages.cut}
        cut = partial(crop, config, cropped, data, prepared, regions, console)
        yield Task("crop", "crop", cropped, cut)
    for model in config.training.models:
        own = stages.models[model.name]
        learn = partial(train, config, model, own, prepared, cropped)
        yield Task("train", f"model {model.name}", own, learn)
        told = stages.ages[model.name]
        tell = partial(read_model, config, model, told, own, prepared, cropped)
        yield Task("evaluate", f"ages {model.name}", told, tell)
    for name in config.reading.ensembles:
        members = {model.name: stages.ages[model.name] for model in config.members(name)}
        told = stages.ages[name]
        mix = partial(read_ensemble, config, told, members, prepared)
        yield Task("evaluate", f"ages {name}", told, mix)


def do_task(task: Task, console: Console) -> None:
    """Do a task, unless it is done, and say how long it took."""
    if task.stage.done:
        console.print(f"[dim]{task.title}: done before[/dim]")
        return
    console.rule(task.title, align="left")
    task.stage.begin()
    start = time.perf_counter()
    task.work()
    task.stage.finish(time.perf_counter() - start)
    console.print(f"[dim]{task.title}: {task.stage.seconds:.0f} s[/dim]")


def write_config(config: Config, folder: Path) -> None:
    """Keep the configuration that a run is started with."""
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def read_config(folder: Path) -> Config:
    """The configuration that a run was last started with."""
    path = folder / "config.yaml"
    if not path.exists():
        raise UserError(
            f"{folder}: no run there (config.yaml is missing); start one with boneage run"
        )
    return load_config(str(path))


def data_folder(config: Config, folder: Path) -> Path:
    """Where a run's radiographs lie: the data set that was named, or the phantom in its folder."""
    return folder / "phantom" if config.data is None else config.data


def open_folder(
    config: Config, backbones: Iterable[Backbone], folder: Path, console: Console
) -> Path:
    """Check what can be checked before anything is written, then make the folder to work in.

    Returns:
        The folder of the radiographs, which are drawn if no data set was named.
    """
    for backbone in backbones:
        check_backbone(backbone)
    check_hardware(config.hardware)
    if config.data is not None and folder.resolve().is_relative_to(config.data.resolve()):
        raise UserError(
            f"{folder}: lies in the folder of the radiographs, {config.data}, and what is written "
            "there would be taken for some of them; name another by --out"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_drafts(folder)
    data = data_folder(config, folder)
    if config.data is None:
        if config.phantom is None:
            raise UserError(
                f"preset {config.preset}: made for real radiographs; name them by --data"
            )
        draw_phantom(config.phantom, data, console)
    return data


def open_run(folder: Path) -> tuple[Config, RunStages]:
    """A run's configuration and stages, for reading: its data need not be there any more.

    A stage is done where it was done with the configuration that the run was last started with.
    """
    config = read_config(folder)
    stages = plan_stages(config, folder, None)
    keys = read_json(folder / "plan.json")
    for name, stage in stages.every().items():
        stage.key = keys.get(name, "")
    return config, stages
