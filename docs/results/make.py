"""Write one page of tables for each run whose metrics lie in this folder.

Each `<name>.json` here is the `metrics.json` that a run wrote, unchanged. `python
docs/results/make.py` writes `<name>.md` from it; a test holds the pages to the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent


class Run(NamedTuple):
    """What a page is called, the command that made its figures, and on how many CPU cores."""

    title: str
    command: str
    cores: str = "two CPU cores"


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
    ),
}


def page(name: str, metrics: dict[str, Any]) -> str:
    """The page of one run, as Markdown."""
    run = RUNS[name]
    data = metrics["data"]
    parts = ", ".join(f"{part} {count}" for part, count in data["parts"].items())
    lines = [
        f"# {run.title}",
        "",
        "Made by",
        "",
        "```sh",
        run.command,
        "```",
        "",
        f"{data['images']} images ({parts}); seed {metrics['seed']}; "
        f"{sum(metrics['seconds'].values()) / 60:.0f} minutes on {run.cores}.",
    ]
    if "phantom_fingerprint" in data:
        lines.append(f"Fingerprint of the generator: `{data['phantom_fingerprint']}`.")
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
    names = [name for name in RUNS if (HERE / f"{name}.json").exists()]
    return {
        HERE / f"{name}.md": page(name, json.loads((HERE / f"{name}.json").read_text()))
        for name in names
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path)
