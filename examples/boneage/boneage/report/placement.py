"""Where found regions lie in the hand: their centres in a frame of the annotated boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from boneage.config import DISCRIMINATIVE
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.stages.localize import Found

_FRAME = ("Wrist", "Metacarpal")


@dataclass(frozen=True)
class Placement:
    """Centres of found regions in the hand's frame, and how often they lie in which box.

    The frame has its origin at the centre of the wrist box and the centre of the metacarpals' at
    (0, 1), so that hands of any size, place and tilt fall onto one another.

    Attributes:
        count: Images with both boxes.
        centres: By found region, (M, 2): across the hand and along it.
        outlines: By annotated region: median width across and height along.
        shares: By found region, the shares of its M centres in each annotated box and elsewhere.
    """

    count: int
    centres: dict[str, np.ndarray]
    outlines: dict[str, tuple[float, float]]
    shares: dict[str, dict[str, float]]


def place(samples: Samples, found: Mapping[str, Found]) -> Placement | None:
    """Place the discriminative regions of the scoring half; None without boxes to go by."""
    wrist, metacarpal = (samples.boxed_rows(name, splits.BOXES_SCORE) for name in _FRAME)
    rows = np.intersect1d(wrist, metacarpal)
    if len(rows) == 0:
        return None
    boxes = {name: samples.truth[name][rows] for name in _FRAME}
    origin, along = _frame(boxes)
    length = np.linalg.norm(along, axis=1, keepdims=True)
    centres, shares = {}, {}
    for region in (name for name in DISCRIMINATIVE if name in found):
        valid = found[region].valid[rows]
        points = _centres(found[region].boxes[rows])[valid]
        centres[region] = _in_frame(points, origin[valid], along[valid])
        shares[region] = _shares(points, {name: box[valid] for name, box in boxes.items()})
    outlines = {
        name: tuple(np.median((box[:, 2:] - box[:, :2]) / length, axis=0).tolist())
        for name, box in boxes.items()
    }
    return Placement(len(rows), centres, outlines, shares)


def _frame(boxes: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Centre of each wrist (N, 2), and the way to the metacarpals' centre; never of length 0."""
    origin, tip = (_centres(boxes[name]) for name in _FRAME)
    along = tip - origin
    # Boxes that share their centre say nothing of a direction: straight up, then.
    nowhere = (along == 0).all(axis=1, keepdims=True)
    return origin, np.where(nowhere, (0.0, -1.0), along)


def _in_frame(points: np.ndarray, origin: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Coordinates across and along the hand, in units of its length from wrist to knuckles."""
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    offset = points - origin
    square = (along**2).sum(axis=1)
    return np.stack([(offset * axis).sum(axis=1) / square for axis in (across, along)], axis=1)


def _shares(points: np.ndarray, boxes: Mapping[str, np.ndarray]) -> dict[str, float]:
    if len(points) == 0:
        return {}
    inside = {
        name: ((points >= box[:, :2]) & (points < box[:, 2:])).all(axis=1)
        for name, box in boxes.items()
    }
    elsewhere = ~np.logical_or.reduce(list(inside.values()))
    return {name: float(mask.mean()) for name, mask in (*inside.items(), ("elsewhere", elsewhere))}


def _centres(boxes: np.ndarray) -> np.ndarray:
    middle: np.ndarray = (boxes[:, :2] + boxes[:, 2:]) / 2
    return middle
