"""Claims that the paper makes in passing of its attention networks, each as a small table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from boneage.config import TRUTH, Config
from boneage.data.samples import Samples
from boneage.experiments.networks import beside_others
from boneage.experiments.page import heading
from boneage.pipeline import do_task, run_tasks
from boneage.report.wording import ANNOTATED, FOUND, NOTHING, number
from boneage.run_folder import read_json, write_json
from boneage.stages.evaluate import localization_scores, provenance
from boneage.stages.plan import plan_keyed

_WIDTHS = (1, 5, 15, 30, 50, 80)  # at 1, labels of whole months are one-hot
_LOSSES = {"l1": "L1 on linear outputs", "kl": "KL after a softmax"}
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
    found = stages.regions[claim.region]
    record = folder / "networks" / f"{found.folder.name}.json"
    if not record.exists():
        for task in run_tasks(own, data, stages, console):
            if task.command in ("prepare", "localize"):
                do_task(task, console)
        samples = Samples.load(stages.prepared.folder)
        attention = stages.attention[claim.region]
        figures = {
            **provenance(own, samples),
            **localization_scores(claim.region, attention, found, samples),
            "seconds": round(attention.seconds, 1),
        }
        write_json(record, figures)
    told: dict[str, Any] = read_json(record)
    return {"label": row.label, "changes": row.changes} | told


def claim_page(results: dict[str, Any]) -> str:
    """The page of a claim, as Markdown."""
    region, rows = results["region"], results["rows"]
    names = [name for name in TRUTH[region] if any(name in row["against"] for row in rows)]
    titles = [f"{ANNOTATED[name]}: mean IoU / AP50" for name in names]
    data = rows[0]["data"]
    lines = [
        *heading(results),
        f"{data['name']}, {data['images']} images; the network that finds the region "
        f'"{FOUND[region]}". The paper says: {results["said"]} The error is that of the age at '
        "the network's highest output, on the validation images, in months.",
        "",
        _line("", "validation error", *titles, "threshold"),
        "|---|---:|" + "---:|" * (len(names) + 1),
    ]
    for row in rows:
        scores = [row["against"].get(name) for name in names]
        cells = [
            NOTHING if one is None else f"{one['mean_iou']:.3f} / {one['ap50']:.3f}"
            for one in scores
        ]
        error = number(row["validation_mae"], 1)
        lines.append(_line(row["label"], error, *cells, f"{row['threshold']:g}"))
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
