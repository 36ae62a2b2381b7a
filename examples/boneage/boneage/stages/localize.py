"""Localize: train one attention network a region, choose its threshold, and find the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from ldlcam import Regions, average_precision, mean_iou
from rich.console import Console

from boneage.config import TRUTH, Config, Localizer
from boneage.data import splits
from boneage.data.batches import RegionDataset, loader, signed_sex
from boneage.data.cache import array_file
from boneage.data.samples import Samples
from boneage.networks.devices import pick_device
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.regions import attend, erase_regions, exclude_regions, find_regions
from boneage.networks.storage import load_backbone, load_network, save_network
from boneage.networks.training import LocalizerTask, fit
from boneage.processes import first_alone, leads, own_share, together
from boneage.run_folder import Stage, read_array, read_arrays, write_array, write_arrays, write_json
from boneage.stages.prepare import whole_path

# Below this mean IoU a region and an annotated one merely touch.
_FALLS_ON = 0.25
_AT_A_TIME = 256  # images; all of them at once need not fit into memory


@dataclass(frozen=True)
class Found:
    """What a localizer found: boxes (N, 4) in pixels of the images, and which are real."""

    boxes: np.ndarray
    valid: np.ndarray

    @classmethod
    def load(cls, stage: Stage) -> Found:
        """Read the boxes that the stage wrote."""
        return cls(**read_arrays(stage / "regions.npz"))

    @property
    def whole_image_instead(self) -> int:
        """In how many images nothing was found, so that the whole image stands for it."""
        return int((~self.valid).sum())

    def of(self, rows: slice | np.ndarray) -> Regions:
        """Those of some images, as tensors."""
        return Regions(torch.from_numpy(self.boxes[rows]), torch.from_numpy(self.valid[rows]))


@together
def train_attention(
    config: Config,
    region: str,
    stage: Stage,
    prepared: Stage,
    erased: Sequence[Stage],
    learned: Stage | None,
) -> None:
    """Train one region's attention network; write `network.safetensors` and `training.json`.

    Args:
        config: The run's configuration.
        region: Which of `Localization.found`.
        stage: Where to write.
        prepared: The prepare stage.
        erased: The stages of the found regions that are erased from the images first.
        learned: The attention stage whose backbone the network begins with, if any.
    """
    own = config.localization.localizer(region)
    samples = Samples.load(prepared.folder)
    with first_alone():
        images = attention_input(own, samples, stage, prepared, erased)
    lightning.seed_everything(config.seed, verbose=False)
    network = LocalizerNetwork(own, config.bins, config.localization, region)
    if learned is not None:
        load_backbone(network, learned / "network.safetensors")
    train, validation = (
        RegionDataset([images], samples.months, samples.male, samples.rows(part))
        for part in (splits.TRAIN, splits.VALIDATION)
    )
    batch, share = own.schedule.batch_size, own_share()
    batches = loader(train, batch, shuffle=True, share=share)
    error = fit(
        LocalizerTask(network, own, len(batches), config.seed),
        batches,
        loader(validation, 2 * batch, shuffle=False, share=share),
        stage.folder,
        config.hardware,
        keep="last",
    )
    if leads():
        save_network(network, stage / "network.safetensors")
        write_json(stage / "training.json", {"validation_mae": error})


def attention_input(
    own: Localizer, samples: Samples, stage: Stage, prepared: Stage, erased: Sequence[Stage]
) -> np.ndarray:
    """Whole images at the network's size, with the regions that were found before erased."""
    images = read_array(whole_path(prepared, own.size), mapped=True)
    if not erased:
        return images
    path = stage / "erased.npy"
    if not path.exists():
        write_erased(path, images, [Found.load(before) for before in erased], samples)
    return read_array(path, mapped=True)


def write_erased(path: Path, images: np.ndarray, found: Sequence[Found], samples: Samples) -> None:
    """Write whole images (N, S, S) uint8 with found regions erased, some at a time."""
    shapes = torch.from_numpy(samples.shapes)
    with array_file(path, *images.shape[:2]) as write:
        for i in range(0, len(images), _AT_A_TIME):
            part = slice(i, i + _AT_A_TIME)
            own = [regions.of(part) for regions in found]
            write(erase_regions(images[part], own, shapes[part], samples.ids[part]))


def find(
    config: Config,
    region: str,
    stage: Stage,
    prepared: Stage,
    attention: Stage,
    before: Sequence[Stage],
    console: Console,
) -> None:
    """Find one region in all images; write `heatmaps.npy`, `regions.npz`, `threshold.json`.

    It is looked for outside of the regions that were found before.
    """
    plan = config.localization
    own = plan.localizer(region)
    samples = Samples.load(prepared.folder)
    network = LocalizerNetwork(own, config.bins, plan, region)
    load_network(network, attention / "network.safetensors")
    network.to(pick_device(config.hardware))
    erased = before if plan.erasing == "images" else ()
    images = attention_input(own, samples, attention, prepared, erased)
    heatmaps = attend(network, images, signed_sex(samples.male)).heatmaps
    shapes = torch.from_numpy(samples.shapes)
    earlier = [Found.load(stage).of(slice(None)) for stage in before]
    heatmaps = exclude_regions(heatmaps, earlier, shapes)
    write_array(stage / "heatmaps.npy", heatmaps.numpy())
    threshold = choose_threshold(config, region, heatmaps, samples)
    regions = find_regions(heatmaps, shapes, own, plan, threshold["threshold"])
    found = {"boxes": regions.boxes.numpy(), "valid": regions.valid.numpy()}
    write_arrays(stage / "regions.npz", found)
    write_json(stage / "threshold.json", threshold)
    missed = int((~regions.valid).sum())
    console.print(
        f"{region}: threshold {threshold['threshold']:g} (by {threshold['chosen_on']}), "
        f"falls on {threshold['falls_on'] or 'no annotated region'}, "
        f"no region in {missed} of {len(samples)} images"
    )


def choose_threshold(
    config: Config, region: str, heatmaps: torch.Tensor, samples: Samples
) -> dict[str, Any]:
    """The threshold with the best mean IoU on the choosing half of the boxed images.

    A region that may fall on either of two annotated ones has a threshold for each; the run
    takes that of the one it overlaps more, on the choosing half. The scoring half is swept too,
    for the table, but never chosen by. The configured threshold stands without annotated boxes,
    and where it is not to be chosen.
    """
    own = config.localization.localizer(region)
    choose = sweep(config, region, heatmaps, samples, splits.BOXES_CHOOSE)
    score = sweep(config, region, heatmaps, samples, splits.BOXES_SCORE) if choose else {}
    pairs: dict[str, dict[str, Any]] = {
        name: {
            **max(table, key=lambda row: row["mean_iou"]),
            "choose": table,
            "score": score.get(name, []),
        }
        for name, table in choose.items()
    }
    taken, chosen_on, falls_on = own.threshold, "configuration", None
    nearest = max(pairs, key=lambda name: pairs[name]["mean_iou"], default=None)
    if nearest is not None:
        at = pairs[nearest]
        if own.choose:
            taken, chosen_on = at["threshold"], splits.BOXES_CHOOSE
        else:
            at = sweep(config, region, heatmaps, samples, splits.BOXES_CHOOSE, (taken,))[nearest][0]
        falls_on = nearest if at["mean_iou"] >= _FALLS_ON else None
    return {
        "threshold": taken,
        "chosen_on": chosen_on,
        "nearest": nearest,
        "falls_on": falls_on,
        "pairs": pairs,
    }


def sweep(
    config: Config,
    region: str,
    heatmaps: torch.Tensor,
    samples: Samples,
    part: str,
    thresholds: Sequence[float] | None = None,
) -> dict[str, list[dict[str, float]]]:
    """Mean IoU and AP50 against each annotated region at every threshold (Table I's layout).

    By default at those of the configuration.
    An annotated region of which the part has no boxes is left out.
    """
    plan = config.localization
    own = plan.localizer(region)
    boxed = {name: samples.boxed_rows(name, part) for name in TRUTH[region]}
    boxed = {name: rows for name, rows in boxed.items() if len(rows)}
    tables: dict[str, list[dict[str, float]]] = {name: [] for name in boxed}
    if not boxed:
        return tables
    # Found once for all of them: the annotated regions are mostly those of the same images.
    every = np.unique(np.concatenate(list(boxed.values())))
    maps, shapes = heatmaps[torch.from_numpy(every)], torch.from_numpy(samples.shapes[every])
    for threshold in plan.thresholds if thresholds is None else thresholds:
        found = find_regions(maps, shapes, own, plan, threshold).boxes.double()
        for name, rows in boxed.items():
            boxes = found[torch.from_numpy(np.searchsorted(every, rows))]
            truth = torch.from_numpy(samples.truth[name][rows])
            tables[name].append({"threshold": threshold, **overlap(boxes, truth)})
    return tables


def overlap(boxes: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Mean IoU and AP50 of boxes (N, 4) against the annotated ones."""
    return {
        "mean_iou": float(mean_iou(boxes, truth)),
        "ap50": float(average_precision(boxes, truth)),
    }
