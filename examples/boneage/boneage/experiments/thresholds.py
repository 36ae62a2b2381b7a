"""Table I: where the regions are found, over the threshold of their heat maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ldlcam import jet_to_fraction

from boneage.config import TRUTH, Config
from boneage.data import splits
from boneage.data.boxes import read_boxes
from boneage.data.samples import Samples
from boneage.errors import UserError
from boneage.experiments.figure import tidy
from boneage.experiments.rows import ONE_NETWORK, THREE_REGIONS
from boneage.experiments.writing import csv_text, heading, markdown_row, overlaps, picture
from boneage.report.drawing import LIGHT
from boneage.report.wording import ANNOTATED, FOUND
from boneage.run_folder import read_array, read_json
from boneage.stages.controls import median_box_scores
from boneage.stages.evaluate import provenance
from boneage.stages.localize import sweep
from boneage.stages.plan import RunStages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Mean IoU and AP50 by the paper's tau, of the regions that it found on what they are meant for.
PUBLISHED = {
    "hand Hand": {
        20: (0.757, 0.995),
        30: (0.710, 0.980),
        40: (0.695, 0.970),
        50: (0.666, 0.920),
        60: (0.633, 0.840),
        80: (0.565, 0.685),
    },
    "region1 Wrist": {
        20: (0.223, 0.125),
        30: (0.545, 0.635),
        40: (0.679, 0.880),
        50: (0.722, 0.965),
        60: (0.700, 0.945),
        80: (0.645, 0.870),
    },
    "region2 Metacarpal": {
        20: (0.274, 0.245),
        30: (0.521, 0.605),
        40: (0.541, 0.695),
        50: (0.560, 0.735),
        60: (0.565, 0.735),
        80: (0.553, 0.730),
    },
}


def _share(tau: int) -> float:
    """The share of a map's maximum at which the paper's threshold cuts, as its code takes it."""
    return jet_to_fraction(tau, strict=True)


TAUS = {round(_share(tau), 3): tau for tau in (20, 30, 40, 50, 60, 80)}
"""The paper's thresholds by what they are as such shares; its 10 keeps the whole image."""

_MORE, _ONE_NETWORK = "one more", "features erased"
WAYS = {"": {}, _MORE: THREE_REGIONS, _ONE_NETWORK: ONE_NETWORK}
"""Ways to find regions, by what the table calls them: what each changes in the configuration."""

_IN_WORDS = {
    _MORE: "it is a region that the paper does not have, found with Regions 1 and 2 erased.",
    _ONE_NETWORK: "one training has found both regions: a second classifier reads the features "
    "that the first one's region leaves.",
}


def check_boxes(data: Path) -> None:
    """Refuse a data set that has nothing to score regions by.

    Raises:
        UserError: If it has no boxes, or those of one image alone: some choose the threshold.
    """
    path = data / "boxes.csv"
    boxes = read_boxes(path) if path.exists() else {}
    names = dict.fromkeys(name for names in TRUTH.values() for name in names)
    if not any(len(boxes.get(name, ())) > 1 for name in names):
        raise UserError(
            f"Table I: {path} has no boxes of two images or more to score by, of {', '.join(names)}"
        )


def threshold_table(config: Config, ways: Mapping[str, RunStages]) -> dict[str, Any]:
    """Mean IoU and AP50 of every pair of a found and an annotated region, by the threshold.

    Args:
        config: The configuration.
        ways: The stages by the way in which regions are found; what two ways find alike is told
            of the first.

    Raises:
        UserError: If no image has annotated boxes.
    """
    samples = Samples.load(next(iter(ways.values())).prepared.folder)
    thresholds = tuple(sorted({*config.localization.thresholds, *TAUS}))
    plan = config.localization.model_copy(update={"thresholds": thresholds})
    swept = config.model_copy(update={"localization": plan})
    pairs, told = [], set()
    for way, stages in ways.items():
        for region, stage in stages.regions.items():
            if stage.folder in told:
                continue
            told.add(stage.folder)
            heatmaps = torch.from_numpy(read_array(stage / "heatmaps.npy"))
            chosen = read_json(stage / "threshold.json")
            tables = sweep(swept, region, heatmaps, samples, splits.BOXES_SCORE)
            pairs += [
                {
                    "way": way,
                    "region": region,
                    "annotated": name,
                    "count": len(samples.boxed_rows(name, splits.BOXES_SCORE)),
                    "chosen": chosen["pairs"][name]["threshold"],
                    "scores": scores,
                    "control": median_box_scores(samples, name),
                }
                for name, scores in tables.items()
            ]
    if not pairs:
        raise UserError("Table I: too few images have boxes to score the regions by")
    return {
        "name": "table-1",
        "title": "Table I: where the regions are found",
        **provenance(config, samples),
        "changes": {way: WAYS[way] for way in ways if way},
        "thresholds": thresholds,
        "pairs": pairs,
    }


def threshold_page(results: dict[str, Any]) -> str:
    """The page of Table I, as Markdown."""
    data, pairs = results["data"], results["pairs"]
    titles, shown = [_title(pair) for pair in pairs], {pair["way"] for pair in pairs}
    counts = ", ".join(f"{name} {pair['count']}" for name, pair in zip(titles, pairs, strict=True))
    lines = [
        *heading(results),
        f"{data['name']}; annotated images scored: {counts}. Each cell has the mean IoU and the "
        "AP50; bold is the threshold that the other half of the annotated images has chosen. The "
        "paper's tau cuts the grey of a coloured map: it stands at the share of the maximum that "
        "it comes to. The last row is of one box for all images, the median of the annotated ones "
        "of that other half, which learns nothing.",
        *(f'Where it says "{way}", {text}' for way, text in _IN_WORDS.items() if way in shown),
        "",
        markdown_row("threshold", *titles, "tau", *_published_titles()),
        "|---:" * (len(pairs) + 2 + len(PUBLISHED)) + "|",
    ]
    for i, threshold in enumerate(results["thresholds"]):
        cells = [_cell(pair, i) for pair in pairs]
        tau = TAUS.get(threshold)
        told = [overlaps(*own[tau]) if tau else "" for own in PUBLISHED.values()]
        lines.append(markdown_row(f"{threshold:g}", *cells, tau or "", *told))
    controls = [pair["control"] for pair in pairs]
    alone = [overlaps(one["mean_iou"], one["ap50"]) for one in controls]
    lines.append(markdown_row("one box", *alone, "", *[""] * len(PUBLISHED)))
    lines += ["", picture(results)]
    return "\n".join(lines) + "\n"


def threshold_csv(results: dict[str, Any]) -> str:
    """One line a pair of regions and threshold, with what the paper has at its tau.

    The last of each pair, without a threshold, is of one box for all images.
    """
    header = "way region annotated threshold chosen mean_iou ap50 tau paper_mean_iou paper_ap50"
    rows = []
    for pair in results["pairs"]:
        published, control = _published(pair), pair["control"]
        names = pair["way"], pair["region"], pair["annotated"]
        for own in pair["scores"]:
            tau = TAUS.get(own["threshold"])
            told = published.get(tau, (None, None)) if tau else (None, None)
            chosen = own["threshold"] == pair["chosen"]
            scores = own["threshold"], chosen, own["mean_iou"], own["ap50"]
            rows.append((*names, *scores, tau, *told))
        rows.append((*names, None, None, control["mean_iou"], control["ap50"]))
    return csv_text(header.split(), rows)


def _published(pair: dict[str, Any]) -> dict[int, tuple[float, float]]:
    return PUBLISHED.get(f"{pair['region']} {pair['annotated']}", {})


def _title(pair: dict[str, Any]) -> str:
    way = f" ({pair['way']})" if pair["way"] else ""
    return f"{FOUND[pair['region']]}{way}, {ANNOTATED[pair['annotated']]}"


def _published_titles() -> list[str]:
    split = (pair.split() for pair in PUBLISHED)
    return [f"paper: {FOUND[region]}, {ANNOTATED[name]}" for region, name in split]


def _cell(pair: dict[str, Any], index: int) -> str:
    scores = pair["scores"][index]
    text = overlaps(scores["mean_iou"], scores["ap50"])
    return f"**{text}**" if scores["threshold"] == pair["chosen"] else text


def draw_thresholds(results: dict[str, Any]) -> Figure:
    """Mean IoU and AP50 over the threshold, with the paper's figures where its tau lies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.6), layout="constrained", dpi=150)
    for place, (score, label) in enumerate((("mean_iou", "mean IoU"), ("ap50", "AP50"))):
        axes = figure.add_subplot(1, 2, place + 1)
        for pair in results["pairs"]:
            published = _published(pair)
            if pair["way"] and not published:
                continue  # one line less to look through
            axes.plot(
                results["thresholds"],
                [row[score] for row in pair["scores"]],
                color=getattr(LIGHT, pair["region"]),
                linestyle="--" if pair["way"] else "-" if published else ":",
                linewidth=1.5,
                label=_title(pair),
            )
            marks = [(_share(tau), both[place]) for tau, both in published.items()]
            if marks:
                axes.plot(*zip(*marks, strict=True), "x", color=getattr(LIGHT, pair["region"]))
        axes.set(xlabel="threshold (share of the map's maximum)", ylabel=label, ylim=(-0.02, 1.02))
        tidy(axes)
        if not place:
            axes.plot([], [], "x", color="#7a828a", label="paper, other data")
            figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure
