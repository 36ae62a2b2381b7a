"""Write one page of tables for each run whose figures lie in this folder.

Each `<name>.json` here is what a run wrote, unchanged: its `metrics.json` or, of the comparison of
losses, its `losses.json`. `python docs/results/make.py` writes `<name>.md` from it; a test holds
the pages to the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

HERE = Path(__file__).parent


class Run(NamedTuple):
    """What a page is called, the command that made its figures, and on how many CPU cores."""

    title: str
    command: str
    cores: str = "two CPU cores"
    note: str = ""


RUNS = {
    "demo": Run("The phantom, at the demo's size", "make demo"),
    "phantom": Run(
        "The phantom",
        "OMP_NUM_THREADS=1 boneage run --preset phantom --out runs/phantom",
        "one CPU core",
    ),
    "swapped": Run(
        "The swapped phantom",
        "OMP_NUM_THREADS=1 boneage run --preset phantom -s phantom.variant=swapped "
        "--out runs/swapped",
        "one CPU core",
    ),
    "rsna100": Run(
        "RSNA radiographs at 100 px",
        "boneage run --preset rsna100 --data rsna100 --out runs/rsna100",
        note="The preset has changed since: Regions 1 and 2 were found in activation maps, without "
        "smoothing (`localization.region1.heatmap=activation`, `smoothing=0`).",
    ),
}

LOSSES = Run(
    "The losses compared",
    "OMP_NUM_THREADS=1 boneage losses --preset losses --data rsna100 --out runs/losses",
    "one CPU core",
)


def page(name: str, metrics: dict[str, Any]) -> str:
    """The page of one run, as Markdown."""
    run = RUNS[name]
    data = metrics["data"]
    parts = ", ".join(f"{part} {count}" for part, count in data["parts"].items())
    lines = [
        _heading(run),
        f"{data['images']} images ({parts}); seed {metrics['seed']}; "
        f"{sum(metrics['seconds'].values()) / 60:.0f} minutes on {run.cores}.",
    ]
    if "phantom_fingerprint" in data:
        lines.append(f"Fingerprint of the generator: `{data['phantom_fingerprint']}`.")
    lines += ["", run.note] if run.note else []
    lines += ["", "## Regions", "", *_regions(metrics["localization"])]
    picture = f"{name}-regions.jpg"
    if (HERE / picture).exists():
        lines += [
            "",
            f"![Six images with their heat maps, boxes and crops]({picture})",
            "",
            "The first six of them by id, drawn by `regions.py` beside this page, with Region 1 "
            "erased in grey.",
        ]
    lines += ["", "## Threshold sweep", "", *_sweep(metrics["localization"])]
    lines += ["", "## Ages", "", *_ages(metrics["ages"])]
    return "\n".join(lines) + "\n"


def losses_page(results: dict[str, Any]) -> str:
    """The page of the comparison of losses, as Markdown."""
    data, plan = results["data"], results["configuration"]["comparison"]
    used = ", ".join(f"{part} {data['parts'][part]}" for part in ("train", "validation", "test"))
    hours = sum(results["seconds"].values()) / 3600
    return f"""{_heading(LOSSES)}
{data["images"]} images ({used}); seeds {", ".join(map(str, plan["seeds"]))}; {hours:.1f} hours on
{LOSSES.cores}.

All errors are those of the test images, in months, means over the seeds; settings were chosen on
the validation images. A single number counts as a distribution that is all in one place: its CRPS
is its absolute error. Calibrated intervals are conformal ones. They too come from the validation
images, which have chosen the settings; what that spoils would show in their coverage of the test
images. Gains are paired over the images, each with its mean error over the seeds, with 95%
bootstrap intervals: these say how much the images decide, not how much the seeds do.

## Heads on fixed features

The feature map of `{plan["backbone"]["name"]}` with ImageNet weights, at stride
{plan["backbone"]["stride"]} of images of {plan["size"]} pixels, pooled to {plan["grid"]} x
{plan["grid"]} cells, learns nothing. On it, and the sex, a head with one hidden layer of
{plan["hidden"]} units trains for {plan["epochs"]} epochs. Every loss had {plan["trials"]} trials,
at the same learning rates and weight decays.

{_losses(results["heads"])}

What was chosen, by the MAE on the validation images:

{_chosen(results["heads"])}

## Sigma and weight

The expectation loss on the same features, at the rates that it has chosen and from one seed: MAE /
CRPS on the validation images. Weights are multiples of sigma.

{_scan(results["scan"], plan)}

![MAE and CRPS by sigma and weight](losses-scan.png)
{_whole(results)}"""


def _whole(results: dict[str, Any]) -> str:
    """The part on whole networks, if there are any."""
    if not results["whole"]:
        return ""
    plan, training = (results["configuration"][name] for name in ("comparison", "training"))
    rates = plan["rates"]
    frozen = training["backbone"]["frozen"]
    kept = f"which the layers up to stride {frozen} keep, " if frozen else ""
    return f"""
## Whole networks

Some of the best beside L1, each with the settings that it has chosen above:
`{training["backbone"]["name"]}` from ImageNet weights, {kept}images of {training["size"]} pixels,
{training["schedule"]["epochs"][0]} epochs. Every loss's rate is the best of {len(rates)} on the
validation images, tried from the first seed.

{_losses(results["whole"])}

MAE on the validation images by the rate that training rises to (an error of more than 30 is that of
one age told for all):

{_rates(results["whole"], rates)}

MAE on the test images of each seed, at the best rate:

{_seeds(results["whole"], plan["seeds"])}
"""


def _losses(scores: dict[str, Any]) -> str:
    """Every loss's figures, means over the seeds."""

    def row(loss: str, of_seeds: dict[str, Any], gain: dict[str, Any]) -> Iterable[str]:
        def figure(name: str, form: str = ".3f") -> str:
            return "-" if of_seeds[name] is None else f"{of_seeds[name]:{form}}"

        low, high = gain["interval"]
        return _row(
            loss, figure("mae", ".2f"), figure("rmse", ".2f"), figure("bias", "+.2f"),
            figure("cs6"), figure("cs12"), figure("crps", ".2f"),
            figure("coverage90"), figure("width90", ".1f"),
            figure("calibrated_coverage90"), figure("calibrated_width90", ".1f"),
            "-" if loss == "l1" else f"{gain['gain']:+.2f} ({low:+.2f} to {high:+.2f})",
        )  # fmt: skip

    return _table(
        ("loss", "MAE", "RMSE", "bias", "within 6", "within 12", "CRPS", "90% covers", "width",
         "calibrated covers", "width", "gain on L1"),
        [row(loss, found["mean"], found["gain_on_l1"]) for loss, found in scores.items()],
    )  # fmt: skip


def _chosen(scores: dict[str, Any]) -> str:
    """What each loss's trials came to, and the settings of the best."""

    def row(loss: str, found: dict[str, Any]) -> Iterable[str]:
        tried = sorted(trial["mae"] for trial in found["trials"])
        settings = (
            f"{name} {value:g}"
            for name, value in found["chosen"].items()
            if name not in ("mae", "crps")
        )
        figures = (f"{value:.2f}" for value in (tried[0], median(tried), tried[-1]))
        return _row(loss, *figures, ", ".join(settings))

    return _table(
        ("loss", "best", "median", "worst", "settings of the best"),
        [row(loss, found) for loss, found in scores.items()],
    )


def _scan(trials: list[dict[str, Any]], plan: dict[str, Any]) -> str:
    """Validation figures, sigma by weight."""
    cells = iter(f"{trial['mae']:.2f} / {trial['crps']:.2f}" for trial in trials)
    return _table(
        ("sigma", *(f"weight {weight:g}" for weight in plan["weights"])),
        [_row(f"{sigma:g}", *(next(cells) for _ in plan["weights"])) for sigma in plan["sigmas"]],
    )


def _rates(scores: dict[str, Any], rates: list[float]) -> str:
    """Each loss's validation MAE at every rate."""
    return _table(
        ("loss", *(f"{rate:g}" for rate in rates)),
        [
            _row(loss, *(f"{trial['mae']:.2f}" for trial in found["rates"]))
            for loss, found in scores.items()
        ],
    )


def _seeds(scores: dict[str, Any], seeds: list[int]) -> str:
    """Each network's MAE."""
    return _table(
        ("loss", *(f"seed {seed}" for seed in seeds)),
        [
            _row(loss, *(f"{figures['mae']:.2f}" for figures in found["seeds"]))
            for loss, found in scores.items()
        ],
    )


def _table(header: tuple[str, ...], rows: list[Iterable[str]]) -> str:
    lines = [*_row(*header), _rule(len(header)), *(line for row in rows for line in row)]
    return "\n".join(lines)


def _heading(run: Run) -> str:
    return f"# {run.title}\n\nMade by\n\n```sh\n{run.command}\n```\n"


def _regions(localization: dict[str, Any]) -> Iterable[str]:
    """Each found region against each annotated one, at that pair's threshold."""
    yield (
        "On the scoring half of the annotated images; thresholds from the other half, on which the "
        "region that overlaps more is also chosen, whose threshold the run has taken. The control "
        "is the median box of that half, for pointing its median centre."
    )
    yield ""
    yield from _row(
        "found", "annotated", "n", "threshold", "mIoU", "AP50", "pointing",
        "control mIoU", "control AP50", "control pointing",
    )  # fmt: skip
    yield _rule(10)
    for region, found in localization.items():
        for name, score in found["against"].items():
            control = score["control"]
            mark = " (taken)" if name == found["falls_on"] and len(found["against"]) > 1 else ""
            yield from _row(
                region, f"{name}{mark}", score["count"], f"{score['threshold']:g}",
                *(f"{score[key]:.3f}" for key in ("mean_iou", "ap50", "pointing")),
                *(f"{control[key]:.3f}" for key in ("mean_iou", "ap50", "pointing")),
            )  # fmt: skip
    yield ""
    missed = ", ".join(
        f"{name} {found['whole_image_instead']}" for name, found in localization.items()
    )
    yield f"Images without a region, which fell back to the whole image: {missed}."


def _sweep(localization: dict[str, Any]) -> Iterable[str]:
    """Table I's layout: mIoU / AP50 at every threshold, as fractions of the map's maximum."""
    rows = {
        f"{region} / {name}": score["sweep"]
        for region, found in localization.items()
        for name, score in found["against"].items()
    }
    if not rows:
        return
    yield "mIoU / AP50 on the scoring half."
    yield ""
    yield from _row("threshold", *rows)
    yield _rule(len(rows) + 1)
    for column in zip(*rows.values(), strict=True):
        figures = (f"{cell['mean_iou']:.3f} / {cell['ap50']:.3f}" for cell in column)
        yield from _row(f"{column[0]['threshold']:g}", *figures)


def _ages(ages: dict[str, Any]) -> Iterable[str]:
    floors = ages.get("floors", {})
    yield "On the test images; months, with 95% bootstrap intervals."
    yield ""
    yield from _row(
        "model", "MAE", "interval", "RMSE", "bias", "within 6", "within 12", "90% coverage",
        "MAE with the wrong sex", *(["floor", "MAE / floor"] if floors else []),
    )  # fmt: skip
    yield _rule(9 + 2 * bool(floors))
    for name, model in ages["models"].items():
        test = model["test"]
        low, high = test["mae_interval"]
        coverage = model["coverage90"]
        floor = floors.get(name)
        yield from _row(
            name, f"{test['mae']:.2f}", f"{low:.2f} - {high:.2f}", f"{test['rmse']:.2f}",
            f"{test['bias']:+.2f}", f"{test['cs6']:.3f}", f"{test['cs12']:.3f}",
            "-" if coverage is None else f"{coverage:.3f}", f"{model['test_wrong_sex_mae']:.2f}",
            *([] if floor is None else [f"{floor:.2f}", f"{test['mae'] / floor:.2f}"]),
        )  # fmt: skip
    yield ""
    yield f"Always the training median: MAE {ages['constant']['mae']:.2f}."
    yield ""
    yield "Paired over the same images, with 95% bootstrap intervals:"
    yield ""
    yield from _row("first", "second", "MAE of the first less the second's", "interval")
    yield _rule(4)
    for pair, difference in ages["comparisons"].items():
        low, high = difference["interval"]
        yield from _row(
            *pair.split(" vs "), f"{difference['gain']:+.2f}", f"{low:+.2f} to {high:+.2f}"
        )


def _row(*cells: object) -> Iterable[str]:
    yield "| " + " | ".join(str(cell) for cell in cells) + " |"


def _rule(columns: int) -> str:
    return "|" + " --- |" * columns


def pages() -> dict[Path, str]:
    """Every page that belongs into this folder, by its path."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(HERE.glob("*.json"))}
    return {
        HERE / f"{name}.md": losses_page(figures) if name == "losses" else page(name, figures)
        for name, figures in found.items()
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path)
