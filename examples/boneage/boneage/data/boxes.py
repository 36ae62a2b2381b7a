"""Annotated boxes of regions: never trained on, only for thresholds and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from boneage.data.rows import Row, parse_number, read_header, read_rows
from boneage.errors import UserError

_CORNERS = ("x1", "y1", "x2", "y2")
_COLUMNS = ("id", "reader", "region", *_CORNERS)


def read_boxes(path: Path, *, readers: tuple[str, ...] = ()) -> dict[str, dict[str, np.ndarray]]:
    """Read `boxes.csv`: region -> id -> box (x1, y1, x2, y2) in pixels of that image, half-open.

    Where several boxes of one region and id are given, their hull is taken per reader, and the
    first reader named in `readers` that saw the image wins. The region `Metacarpal` is made from
    the MCP joints where it is not given: the hull of joints 2-5, the thumb's left out.

    Raises:
        UserError: If the table lacks a column, or a box is no box.
    """
    header = read_header(path)
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; expected the header {','.join(_COLUMNS)}"
        )
    seen: dict[str, dict[str, dict[str, list[np.ndarray]]]] = {}
    for row in read_rows(path):
        id, reader, region = (row.cells[name] for name in ("id", "reader", "region"))
        if not id or not region:
            raise UserError(f"{path}, row {row.number}: the id or the region is empty")
        by_reader = seen.setdefault(region, {}).setdefault(id, {})
        by_reader.setdefault(reader, []).append(_box(row, f"{path}, row {row.number}"))
    if "Metacarpal" not in seen and "MCP" in seen:
        seen["Metacarpal"] = {
            id: {name: without_thumb(boxes) for name, boxes in by_reader.items()}
            for id, by_reader in seen["MCP"].items()
        }
    return {
        region: {id: hull(_of_reader(by_reader, readers)) for id, by_reader in by_id.items()}
        for region, by_id in seen.items()
    }


def hull(boxes: Sequence[np.ndarray]) -> np.ndarray:
    """The smallest box around several."""
    stack = np.stack(boxes)
    return np.concatenate([stack[:, :2].min(axis=0), stack[:, 2:].max(axis=0)])


def without_thumb(boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """MCP joints without the thumb's: of five, the one that the line of the others passes by.

    Unlike the lowest or the outermost joint, it is the thumb's whichever way the hand lies.
    """
    if len(boxes) != 5:
        return list(boxes)
    others = [[*boxes[:i], *boxes[i + 1 :]] for i in range(5)]
    return min(others, key=_bend)


def _bend(boxes: Sequence[np.ndarray]) -> float:
    """How far the centres of boxes are from lying on a line."""
    centers = np.stack([box[:2] + box[2:] for box in boxes]) / 2
    return float(np.linalg.svd(centers - centers.mean(axis=0), compute_uv=False)[1])


def _of_reader(
    by_reader: Mapping[str, list[np.ndarray]], readers: tuple[str, ...]
) -> list[np.ndarray]:
    known = [name for name in (*readers, *sorted(by_reader)) if name in by_reader]
    return by_reader[known[0]]


def _box(row: Row, where: str) -> np.ndarray:
    corners = [row.cells[name] for name in _CORNERS]
    try:
        box = np.array([parse_number(corner) for corner in corners])
    except ValueError:
        raise UserError(f"{where}: expected numbers x1, y1, x2, y2, got {corners}") from None
    if not np.isfinite(box).all() or box[0] >= box[2] or box[1] >= box[3]:
        raise UserError(f"{where}: expected x1 < x2 and y1 < y2, got {box.tolist()}")
    return box
