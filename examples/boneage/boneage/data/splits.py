"""Who trains, who chooses, who is scored: by sorted ids and a seed, or as the table says."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from boneage.config import Split
from boneage.data.tables import id_order
from boneage.errors import UserError
from boneage.run_folder import atomic_path

TRAIN, VALIDATION, TEST = "train", "validation", "test"
BOXES_CHOOSE, BOXES_SCORE = "boxes-choose", "boxes-score"

# Batch normalization needs two images to learn from.
_LEAST = {TRAIN: 2, VALIDATION: 1, TEST: 1}


def split_ids(
    ids: Iterable[str],
    boxed: Mapping[str, Collection[str]],
    config: Split,
    *,
    patients: Mapping[str, str] | None = None,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Give every id its part.

    Boxed ids never train: half of them choose the thresholds, half are scored. The halves are
    drawn within each group of ids that carry the same regions, so that both know all regions.

    Args:
        ids: All ids, in any order.
        boxed: Region -> the ids that have a box of it.
        config: Shares of the ids without boxes, and the seed.
        patients: Whom each id shows: all ids of a patient are in one part, that of a boxed one if
            any of them is. The shares are then shares of patients.
        given: Part of each id, instead of parts that are drawn; boxed ids are halved all the same.

    Returns:
        Part by id, sorted by id.

    Raises:
        UserError: If there are too few images for a part to have any, or of too few patients to
            test, or the given parts divide a patient.
    """
    ordered = sorted(set(ids), key=id_order)
    if patients is None:
        patients = {id: id for id in ordered}
    firsts: dict[str, str] = {}
    for id in ordered:
        firsts.setdefault(patients[id], id)
    shown = {id: firsts[patients[id]] for id in ordered}
    if given is not None:
        _check_undivided(shown, patients, given)
    boxed = {name: {shown[id] for id in known if id in shown} for name, known in boxed.items()}
    parts = _split(list(firsts.values()), boxed, config, given)
    counts = Counter(parts[shown[id]] for id in ordered)
    remedy = "change split.validation and split.test" if given is None else "change their parts"
    if any(counts[part] < least for part, least in _LEAST.items()):
        found = ", ".join(f"{part} {counts[part]}" for part in _LEAST)
        free = sum(counts[part] for part in _LEAST)
        raise UserError(
            f"{len(ordered)} images, {free} of them without boxes, are too few to split: "
            f"{found}; add images or {remedy}"
        )
    if Counter(parts.values())[TEST] < 2:
        raise UserError(
            f"{counts[TEST]} images to test show one patient, which tells nothing of others; "
            f"add images of others or {remedy}"
        )
    return {id: parts[shown[id]] for id in ordered}


def _check_undivided(
    shown: Mapping[str, str], patients: Mapping[str, str], given: Mapping[str, str]
) -> None:
    for id, first in shown.items():
        if given[id] != given[first]:
            raise UserError(
                f"patient {patients[id]}: id {first} is in {given[first]} and id {id} in "
                f"{given[id]}; put all radiographs of a patient into one part"
            )


def _split(
    ordered: list[str],
    boxed: Mapping[str, Collection[str]],
    config: Split,
    given: Mapping[str, str] | None,
) -> dict[str, str]:
    """Part by id, of ids that do not belong together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for id in ordered:
        regions = tuple(sorted(region for region, known in boxed.items() if id in known))
        groups.setdefault(regions, []).append(id)
    rng = np.random.default_rng(config.seed)
    free = _shuffled(groups.pop((), []), rng)
    parts = dict.fromkeys(free, TRAIN)
    if given is not None:
        parts = {id: given[id] for id in free}
    else:
        validation = round(config.validation * len(free))
        test = round(config.test * len(free))
        parts |= dict.fromkeys(free[:validation], VALIDATION)
        parts |= dict.fromkeys(free[validation : validation + test], TEST)
    # Group after group, every other one: both each group and all of them are cut into halves.
    annotated = [id for regions in sorted(groups) for id in _shuffled(groups[regions], rng)]
    parts |= dict.fromkeys(annotated[::2], BOXES_CHOOSE)
    return parts | dict.fromkeys(annotated[1::2], BOXES_SCORE)


def _shuffled(ids: list[str], rng: np.random.Generator) -> list[str]:
    return [ids[i] for i in rng.permutation(len(ids))]


def write_split(path: Path, parts: Mapping[str, str]) -> None:
    """Write `id,part`."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "part"))
        writer.writerows(parts.items())
