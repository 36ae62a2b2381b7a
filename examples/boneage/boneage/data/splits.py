"""Who trains, who chooses, who is scored: by sorted ids and a seed, written to a file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from boneage.config import Split
from boneage.data.tables import id_order
from boneage.errors import UserError
from boneage.run_folder import atomic_path

TRAIN, VALIDATION, TEST = "train", "validation", "test"
BOXES_CHOOSE, BOXES_SCORE = "boxes-choose", "boxes-score"


def split_ids(
    ids: Iterable[str], boxed: Mapping[str, Iterable[str]], config: Split
) -> dict[str, str]:
    """Give every id its part.

    Boxed ids never train: half of them choose the thresholds, half are scored. The halves are
    drawn within each group of ids that carry the same regions, so that both know all regions.

    Args:
        ids: All ids.
        boxed: Region -> the ids that have a box of it.
        config: Shares of the ids without boxes, and the seed.

    Returns:
        Part by id.

    Raises:
        UserError: If there are too few images for a part to have any.
    """
    ordered = sorted(ids, key=id_order)
    rng = np.random.default_rng(config.seed)
    groups: dict[frozenset[str], list[str]] = {}
    for id in ordered:
        regions = frozenset(region for region, of_region in boxed.items() if id in of_region)
        groups.setdefault(regions, []).append(id)
    free = groups.pop(frozenset(), [])
    parts = _cut(free, {VALIDATION: config.validation, TEST: config.test}, TRAIN, rng)
    for regions in sorted(groups, key=sorted):
        parts |= _cut(groups[regions], {BOXES_CHOOSE: 0.5}, BOXES_SCORE, rng)
    counts = {part: list(parts.values()).count(part) for part in (TRAIN, VALIDATION, TEST)}
    if min(counts.values()) == 0:
        raise UserError(
            f"{len(ordered)} images ({len(free)} without boxes) are too few to split: "
            f"{counts}; add images or change split.validation and split.test"
        )
    return {id: parts[id] for id in ordered}


def _cut(
    ids: list[str], shares: Mapping[str, float], rest: str, rng: np.random.Generator
) -> dict[str, str]:
    shuffled = [ids[i] for i in rng.permutation(len(ids))]
    parts, start = dict.fromkeys(shuffled, rest), 0
    for part, share in shares.items():
        stop = start + round(share * len(ids))
        parts |= dict.fromkeys(shuffled[start:stop], part)
        start = stop
    return parts


def write_split(path: Path, parts: Mapping[str, str]) -> None:
    """Write `id,part`."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "part"))
        writer.writerows(parts.items())
