"""Annotated boxes of regions: never trained on, only for thresholds and scores."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from boneage.errors import UserError

_COLUMNS = ("id", "reader", "region", "x1", "y1", "x2", "y2")


def read_boxes(path: Path, *, readers: tuple[str, ...] = ()) -> dict[str, dict[str, np.ndarray]]:
    """Read `boxes.csv`: region -> id -> box (x1, y1, x2, y2) in pixels of that image, half-open.

    Where several boxes of one region and id are given, their hull is taken per reader, and the
    first reader named in `readers` that saw the image wins. The region `Metacarpal` is made from
    the MCP joints where it is not given: the hull of joints 2-5, the thumb's left out.

    Raises:
        UserError: If the table lacks a column, or a box is no box.
    """
    seen: dict[str, dict[str, dict[str, list[np.ndarray]]]] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise UserError(f"{path}: the columns {', '.join(missing)} are missing")
        for number, row in enumerate(reader, start=2):
            box = _box(row, f"{path}, row {number}")
            by_id = seen.setdefault(row["region"], {}).setdefault(row["id"], {})
            by_id.setdefault(row["reader"], []).append(box)
    if "Metacarpal" not in seen and "MCP" in seen:
        seen["Metacarpal"] = {
            id: {name: without_thumb(boxes) for name, boxes in by_reader.items()}
            for id, by_reader in seen["MCP"].items()
        }
    return {
        region: {id: hull(_of_reader(by_reader, readers)) for id, by_reader in by_id.items()}
        for region, by_id in seen.items()
    }


def hull(boxes: list[np.ndarray]) -> np.ndarray:
    """The smallest box around several."""
    stack = np.stack(boxes)
    return np.concatenate([stack[:, :2].min(axis=0), stack[:, 2:].max(axis=0)])


def without_thumb(boxes: list[np.ndarray]) -> list[np.ndarray]:
    """MCP joints without the thumb's: of five, the one nearest the wrist (lowest in the image)."""
    by_height = sorted(boxes, key=lambda box: float(box[1] + box[3]))
    return by_height[:4] if len(by_height) == 5 else by_height


def _of_reader(
    by_reader: dict[str, list[np.ndarray]], readers: tuple[str, ...]
) -> list[np.ndarray]:
    for name in (*readers, *sorted(by_reader)):
        if name in by_reader:
            return by_reader[name]
    raise AssertionError("every id has a reader")


def _box(row: dict[str, str], where: str) -> np.ndarray:
    try:
        box = np.array([float(row[name]) for name in ("x1", "y1", "x2", "y2")])
    except (TypeError, ValueError):
        raise UserError(f"{where}: expected numbers x1, y1, x2, y2") from None
    if not np.isfinite(box).all() or box[0] >= box[2] or box[1] >= box[3]:
        raise UserError(f"{where}: expected x1 < x2 and y1 < y2, got {box.tolist()}")
    return box
