"""The command line: `boneage run` does everything, the other commands one stage each."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from boneage.config import Config, load_config
from boneage.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Bone age from hand radiographs, by attention-guided regions. Not for clinical use. "
    "Each command does first what it needs, and nothing twice.",
)
console = Console()
_LOOPBACK = ("127.0.0.1", "localhost")

Out = Annotated[Path, typer.Option(help="The run's folder.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="demo, phantom, rsna100, losses, tables, paper, smoke, or a YAML file "
        "(default: the run's own configuration, else demo, or tables for the paper's)."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder in an RSNA layout (default: radiographs that are drawn)."),
]
Trained = Annotated[Path, typer.Option(help="The folder of a finished run, or a model folder.")]
ModelName = Annotated[
    str | None, typer.Option(help="Which model or ensemble (default: the last one).")
]
Devices = Annotated[
    int | None,
    typer.Option(min=1, help="How many GPUs of a machine train together (default: one)."),
]
Nodes = Annotated[
    int | None,
    typer.Option("--num-nodes", min=1, help="How many machines train together (default: one)."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="section.name=value, as often as needed."),
]


def _configure(
    out: Path,
    preset: str | None,
    data: Path | None,
    devices: int | None,
    nodes: int | None,
    changes: list[str] | None,
    usual: str = "demo",
) -> Config:
    """The preset asked for, else the run's own configuration, else the usual, with the changes."""
    own = out / "config.yaml"
    options = {"devices": devices, "num_nodes": nodes}
    asked = [f"hardware.{name}={value}" for name, value in options.items() if value is not None]
    config = load_config(
        preset or (str(own) if own.exists() else usual), [*(changes or []), *asked]
    )
    return config if data is None else config.model_copy(update={"data": data.absolute()})


def _stage_command(stage: str, text: str) -> Callable[..., None]:
    def command(
        out: Out = Path("runs/demo"),
        preset: Preset = None,
        data: Data = None,
        devices: Devices = None,
        nodes: Nodes = None,
        changes: Overrides = None,
    ) -> None:
        from boneage.launch import in_processes

        config = _configure(out, preset, data, devices, nodes, changes)

        def work() -> None:
            # Only where it is done: what merely starts processes needs no networks.
            from boneage.pipeline import run

            run(config, out, console, until=stage)

        in_processes(config.hardware, work)

    command.__doc__ = text
    return command


for _name, _stage, _text in (
    ("run", "report", "Every stage, from the radiographs to the report."),
    ("prepare", "prepare", "Check and split the data set, and make its small versions."),
    ("localize", "localize", "Train the attention networks and find the regions."),
    ("crop", "crop", "Cut the regions out of the original images."),
    ("train", "train", "Train the age networks."),
    ("evaluate", "evaluate", "Score regions and ages on the images kept back."),
    ("report", "report", "Write the report page."),
):
    app.command(_name)(_stage_command(_stage, _text))


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    run: Trained = Path("runs/demo"),
    out: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("predictions.csv"),
    model: ModelName = None,
    sex: Annotated[
        str | None,
        typer.Option(help="M or F, for all images of which no table says it."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="CSV or XLSX with the ids, sexes and covariates of the images."),
    ] = None,
) -> None:
    """Read the age of new images into a CSV file; bad images become rows with an error."""
    from boneage.data.patients import read_patients, unsaid
    from boneage.data.tables import parse_sex
    from boneage.model_folder import open_model
    from boneage.predictor import Predictor, collect
    from boneage.processes import launched_share
    from boneage.shards import write_predictions

    try:
        male = None if sex is None else parse_sex(sex, "--sex")
    except ValueError as error:
        raise UserError(str(error)) from None
    trained = open_model(run, model)
    known = None
    if table is not None:
        known = read_patients(table, trained.config.table)
        # Left out, or misspelt: then ages would be read without, and nobody told.
        if words := unsaid(table, trained.config.table):
            console.print(f"[yellow]{escape(str(table))}: {escape(words)}[/]")
    patients = collect(images, male, known)
    predictor, share = Predictor(trained), launched_share()
    with Progress(console=console) as progress:
        bar = progress.add_task("reading ages", total=len(patients) / share.count)
        failed = write_predictions(
            predictor, patients, out, lambda n: progress.advance(bar, n), share
        )
    if failed is None:
        console.print(
            f"process {share.rank} of {share.count} is done; the last one writes the table"
        )
    else:
        console.print(f"{len(patients)} images, {failed} of them not readable: {escape(str(out))}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    run: Annotated[Path, typer.Option(help="The folder of a finished run.")] = Path("runs/demo"),
    model: ModelName = None,
) -> None:
    """Write a trained model as a folder of its own: weights, settings, and a model card."""
    from boneage import model_folder

    model_folder.export(run, folder, model)
    console.print(f"model: {escape(str(folder))}")


@app.command("export-onnx")
def export_onnx(
    file: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    run: Trained = Path("runs/demo"),
    model: ModelName = None,
) -> None:
    """Write a trained model as one ONNX file, from image to age and regions, and check it."""
    from boneage.onnx import export as onnx

    with console.status("writing the graph and checking it (a minute or two)"):
        differences = onnx.export_onnx(run, file, model)
    console.print(
        "largest differences from the predictor on drawn radiographs: "
        + ", ".join(f"{name} {difference:.2g}" for name, difference in differences.items())
    )
    console.print(f"graph: {escape(str(file))}")


@app.command("app")
def serve(
    run: Trained = Path("runs/demo"),
    model: ModelName = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 7860,
) -> None:
    """Show a local web page that reads the age of one radiograph at a time."""
    from boneage.extras import check_extra
    from boneage.model_folder import open_model

    check_extra("app", ("gradio",), "to show the page")
    from boneage.app import page

    if host not in _LOOPBACK:
        console.print(
            f"[yellow]warning:[/] whoever can reach {escape(host)} can use the page; "
            "what they lay on it crosses the network as it is"
        )
    page.serve(
        open_model(run, model), host, port, lambda address: console.print(f"page: {address}")
    )


@app.command()
def losses(
    out: Out = Path("runs/losses"),
    preset: Preset = None,
    data: Data = None,
    devices: Devices = None,
    nodes: Nodes = None,
    changes: Overrides = None,
) -> None:
    """Compare the losses: on fixed features first, then the best of them on whole networks."""
    from boneage.launch import in_processes

    config = _configure(out, preset, data, devices, nodes, changes)

    def work() -> None:
        from boneage.comparison.compare import compare_losses

        compare_losses(config, out, console)

    in_processes(config.hardware, work)


@app.command()
def table(
    number: Annotated[int, typer.Argument(min=1, max=5, help="Which of the paper's tables.")],
    out: Out = Path("runs/paper"),
    preset: Preset = None,
    data: Data = None,
    devices: Devices = None,
    nodes: Nodes = None,
    changes: Overrides = None,
) -> None:
    """Reproduce a table of the paper: train what it needs, and lay its figures beside ours."""
    config = _configure(out, preset, data, devices, nodes, changes, usual="tables")
    _reproduce("table", number, config, out)


@app.command()
def figure(
    number: Annotated[int, typer.Argument(help="Which of the paper's figures: 1, 3, 4 or 5.")],
    out: Out = Path("runs/paper"),
    preset: Preset = None,
    data: Data = None,
    devices: Devices = None,
    nodes: Nodes = None,
    changes: Overrides = None,
) -> None:
    """Reproduce a figure of the paper: train what it needs, and draw it."""
    if number not in (1, 3, 4, 5):
        raise UserError(f"figure {number}: expected one of 1, 3, 4, 5")
    config = _configure(out, preset, data, devices, nodes, changes, usual="tables")
    _reproduce("figure", number, config, out)


# Named here, since what makes them imports torch.
CLAIMS = ("gain", "crops", "labels", "hand", "delta", "controls")


@app.command()
def claim(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CLAIMS)}.")],
    out: Out = Path("runs/paper"),
    preset: Preset = None,
    data: Data = None,
    devices: Devices = None,
    nodes: Nodes = None,
    changes: Overrides = None,
) -> None:
    """Look into a claim of the paper beside its tables: train what tells, and show it."""
    if name not in CLAIMS:
        raise UserError(f"claim {name!r}: expected one of {', '.join(CLAIMS)}")
    config = _configure(out, preset, data, devices, nodes, changes, usual="tables")
    _reproduce("claim", name, config, out)


def _reproduce(kind: str, which: int | str, config: Config, out: Path) -> None:
    from boneage.launch import in_processes

    def work() -> None:
        from boneage.experiments.run import Paper

        paper = Paper(config, out, console, _command())
        getattr(paper, kind)(which)

    in_processes(config.hardware, work)


def _command() -> str:
    """The command as it was given."""
    return shlex.join(["boneage", *sys.argv[1:]])


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="A new folder, in the RSNA layout.")],
    count: Annotated[int, typer.Option(help="How many radiographs.")] = 1200,
    size: Annotated[tuple[int, int], typer.Option(help="Height and width.")] = (512, 384),
    bits: Annotated[int, typer.Option(help="8 or 16.")] = 8,
    variant: Annotated[str, typer.Option(help="default, swapped, no-age or shortcut.")] = "default",
    seed: Annotated[int, typer.Option(help="Seed of the data set.")] = 0,
) -> None:
    """Draw a data set of synthetic hand radiographs."""
    from pydantic import ValidationError

    from boneage.config import PhantomData
    from boneage.stages.prepare import draw_phantom

    try:
        config = PhantomData.model_validate(
            {"count": count, "size": size, "bits": bits, "variant": variant, "seed": seed}
        )
    except ValidationError as error:
        raise UserError(f"phantom: {error.errors()[0]['msg']}") from None
    draw_phantom(config, folder, console)
    console.print(f"{count} radiographs: {escape(str(folder))}")


def main() -> None:
    """Run the command; problems that can be mended end in one message, not in a traceback."""
    try:
        app()
    except UserError as error:
        _end_with(str(error))
    except RuntimeError as error:
        import torch

        if not isinstance(error, torch.OutOfMemoryError):
            raise
        _end_with(
            "the GPU's memory is full; lower batch_size (schedule.accumulate makes up for it) or "
            f"size, or set hardware.accelerator=cpu, and run again to go on ({error})"
        )


def _end_with(message: str) -> NoReturn:
    Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(message)}")
    sys.exit(1)
