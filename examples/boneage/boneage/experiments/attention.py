"""Claims that the paper makes in passing of its attention networks, each as a small table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from boneage.config import TRUTH, Config
from boneage.experiments.figure import COLOURS, tidy
from boneage.experiments.networks import beside_others, localize, record_of
from boneage.experiments.writing import csv_text, heading, markdown_row, overlaps, picture
from boneage.report.wording import ANNOTATED, FOUND, NOTHING, number
from boneage.run_folder import read_json
from boneage.stages.plan import plan_keyed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTHS = (1, 5, 15, 30, 50, 80)  # at 1, labels of whole months are one-hot
_LOSSES = {"l1": "L1 on linear outputs", "kl": "KL after a softmax"}
_SCORES = {"mean_iou": "mean IoU", "ap50": "AP50"}
_POOLS = {"avg": "average", "max": "max"}


@dataclass(frozen=True)
class AttentionRow:
    """One attention network: what of its section of the configuration is its own."""

    label: str
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What is said of one region's attention network, and the networks that show it or do not."""

    name: str
    title: str
    said: str
    region: str
    rows: tuple[AttentionRow, ...]

    def described(self) -> dict[str, Any]:
        """What the claim is, for the file of its figures."""
        return {"name": self.name, "title": self.title, "said": self.said, "region": self.region}


def _labels(config: Config) -> Claim:
    rows = [
        AttentionRow(
            f"{'one-hot' if width == 1 else f'{width:g} months'}, {words}",
            {"label_width": width, "loss": loss},
        )
        for loss, words in _LOSSES.items()
        for width in _WIDTHS
    ]
    return Claim(
        "claim-labels",
        "Soft labels of the attention network",
        "With one-hot labels the network fails to converge; a width l of 50 is what it is given.",
        "hand",
        tuple(rows),
    )


def _hand(config: Config) -> Claim:
    plan = config.localization
    rows = [
        AttentionRow(f"{size} px, {words} pooling", {"size": size, "pool": pool})
        for size in sorted({plan.hand.size, plan.region1.size})
        for pool, words in _POOLS.items()
    ]
    return Claim(
        "claim-hand",
        "What makes a map cover the whole hand",
        "A small image (300 px) and average pooling do; a large one (560 px) and max pooling find "
        "a small discriminative region.",
        "hand",
        tuple(rows),
    )


CLAIMS: dict[str, Callable[[Config], Claim]] = {"labels": _labels, "hand": _hand}


def train_row(
    claim: Claim,
    row: AttentionRow,
    config: Config,
    folder: Path,
    data: Path,
    data_key: str,
    console: Console,
) -> dict[str, Any]:
    """The figures of one row: what is missing is trained, and a file of them is written."""
    section = f"localization.{claim.region}"
    own = config.changed({f"{section}.{name}": value for name, value in row.changes.items()})
    stages = plan_keyed(own, beside_others(folder), data_key, (claim.region,))
    record = record_of(stages.regions[claim.region], folder)
    if not record.exists():
        localize(own, data, stages, folder, console)
    told: dict[str, Any] = read_json(record)
    return {"label": row.label, "changes": row.changes} | told


def claim_page(results: dict[str, Any]) -> str:
    """The page of a claim, as Markdown."""
    region, rows = results["region"], _with_control(results)
    names = _annotated(results)
    titles = [f"{ANNOTATED[name]}: mean IoU / AP50" for name in names]
    data = rows[0]["data"]
    control = (
        " The one box is the median of the annotated ones that chose the threshold: it learns "
        "nothing."
        if names
        else ""
    )
    lines = [
        *heading(results),
        f"{data['name']}, {data['images']} images; the network that finds the region "
        f'"{FOUND[region]}". The paper says: {results["said"]} The error is that of the age at '
        f"the network's highest output, on the validation images, in months.{control}",
        "",
        markdown_row("", "validation error", *titles, "threshold"),
        "|---|---:|" + "---:|" * (len(names) + 1),
    ]
    for row in rows:
        scores = [row["against"].get(name) for name in names]
        cells = [
            NOTHING if one is None else overlaps(one["mean_iou"], one["ap50"]) for one in scores
        ]
        error = number(row["validation_mae"], 1)
        threshold = NOTHING if row["threshold"] is None else f"{row['threshold']:g}"
        lines.append(markdown_row(row["label"], error, *cells, threshold))
    lines += ["", picture(results)]
    return "\n".join(lines) + "\n"


def claim_csv(results: dict[str, Any]) -> str:
    """One line a row: the error of its ages, and how its boxes overlap the annotated ones."""
    names = _annotated(results)
    scores = [f"{name.lower()}_{score}" for name in names for score in _SCORES]
    rows = []
    for row in _with_control(results):
        pairs = [row["against"].get(name, {}) for name in names]
        told = (pair.get(score) for pair in pairs for score in _SCORES)
        rows.append((row["label"], row["validation_mae"], row["threshold"], *told))
    return csv_text(("label", "validation_mae", "threshold", *scores), rows)


def draw_claim(results: dict[str, Any]) -> Figure:
    """The rows below each other: errors on the left, and overlaps with annotated boxes beside."""
    from matplotlib.figure import Figure

    rows, names = _with_control(results), _annotated(results)
    labels = [row["label"] for row in rows]
    panels = 2 if names else 1
    figure = Figure(figsize=(7.6, 1.4 + 0.3 * len(rows)), layout="constrained", dpi=150)
    errors, *others = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    months = [row["validation_mae"] for row in results["rows"]]
    errors.plot(months, range(len(months)), "o", color=COLOURS[0])
    errors.set(xlabel="validation error (months)", xlim=(0, 1.08 * max(months)))
    errors.set_yticks(range(len(rows)), labels)
    errors.invert_yaxis()
    for axes in others:
        for name, colour in zip(names, COLOURS, strict=False):
            for score, mark in zip(_SCORES, "ox", strict=True):
                told = [row["against"].get(name, {}).get(score) for row in rows]
                label = f"{ANNOTATED[name]}: {_SCORES[score]}"
                axes.plot(told, range(len(rows)), mark, color=colour, label=label)
        axes.set(xlabel="overlap with annotated boxes", xlim=(0, 1))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)
    for axes in (errors, *others):
        tidy(axes)
    return figure


def _with_control(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows, and where any was scored, what a box that learns nothing is scored."""
    rows: list[dict[str, Any]] = results["rows"]
    control = {name: row["against"][name]["control"] for row in rows for name in row["against"]}
    if not control:
        return rows
    label = {"label": "one box for all", "validation_mae": None, "threshold": None}
    return [*rows, {**label, "against": control}]


def _annotated(results: dict[str, Any]) -> list[str]:
    """The annotated regions that any row was scored against."""
    rows = results["rows"]
    return [
        name for name in TRUTH[results["region"]] if any(name in row["against"] for row in rows)
    ]
