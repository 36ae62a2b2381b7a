"""Everything about a radiograph that is not anatomy: pose, exposure, plate, marker, noise.

All of it is drawn once per patient, in units of the picture's height, before anything is drawn
in pixels: so the same seed gives the same radiograph at every size. Nothing in here knows the
age, but for the marker's bar in the ``shortcut`` variant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .ages import FIRST_AGE, LAST_AGE
from .shapes import Bone, Box, Flesh, Frame, Point, clearance

ASPECT = 0.75
"""Width over height of the picture; an image of another shape shows it whole and centred."""


@dataclass(frozen=True)
class Pose:
    """Where the hand lies: heights of the picture, degrees."""

    wrist: Point
    unit: float
    tilt: float
    mirrored: bool


@dataclass(frozen=True)
class Plate:
    """The exposed rectangle: centre and half sizes in heights of the picture, degrees."""

    center: Point
    half: Point
    tilt: float
    outside: float


@dataclass(frozen=True)
class Marker:
    """Lead letters with a bar under them, on a faint plate."""

    center: Point
    size: float
    tilt: float
    letters: str
    bar: float
    brightness: float
    backed: bool


@dataclass(frozen=True)
class Film:
    """Exposure and accidents."""

    soft: float
    bone: float
    gamma: float
    base: float
    contrast: float
    inverted: bool
    noise: float
    blur: float
    glow: float
    texture: float
    plate: Plate | None
    strip: tuple[str, float] | None
    marker: Marker | None
    ring: int | None
    cast: bool


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draws tilt, size and place from the quantiles of annotated radiographs."""
    tilt = _skewed(rng, -8, -15, 3)
    unit = _skewed(rng, 0.24, 0.175, 0.295)
    wrist = (ASPECT * float(rng.normal(0.50, 0.04)), float(rng.normal(0.69, 0.06)))
    return Pose(wrist, unit, tilt, bool(rng.random() < 0.02))


def _skewed(rng: np.random.Generator, median: float, low: float, high: float) -> float:
    """Two half normals with the given 5, 50 and 95% quantiles, cut at 2.2 deviations."""
    z = float(np.clip(rng.normal(), -2.2, 2.2))
    return median + z * ((high - median) if z > 0 else (median - low)) / 1.645


def fitted(pose: Pose, around: Box, margin: float = 0.012) -> Frame:
    """The frame, in heights of the picture, that keeps the hand inside of the picture.

    Args:
        pose: as drawn.
        around: the hand's box in a frame at the origin with unit 1 and the pose's tilt.
        margin: least distance from the picture's edges.
    """
    width, height = around[2] - around[0], around[3] - around[1]
    room = ASPECT - 2 * margin, 1 - 2 * margin
    unit = min(pose.unit, room[0] / width, room[1] / height)
    x = min(max(pose.wrist[0], margin - unit * around[0]), ASPECT - margin - unit * around[2])
    y = min(max(pose.wrist[1], margin - unit * around[1]), 1 - margin - unit * around[3])
    return Frame((x, y), unit, pose.tilt, pose.mirrored)


def draw_film(
    rng: np.random.Generator, frame: Frame, hand: Box, tissue: Sequence[Flesh], marked: float
) -> Film:
    """Draws one exposure.

    Args:
        rng: this patient's stream for the film.
        frame: the hand's place, in heights of the picture.
        hand: the hand's box there.
        tissue: the soft parts that the marker keeps clear of.
        marked: months that the marker's bar shows.
    """
    dull = rng.random() < 0.04
    contrast = rng.uniform(0.2, 0.4) if dull else rng.uniform(0.8, 1.15)
    base = rng.uniform(0.0, 0.3) if dull or rng.random() < 0.25 else rng.uniform(0.0, 0.1)
    soft = float(1.5 * np.exp(rng.normal(0, 0.10)))
    bone = float(4.4 * np.exp(rng.normal(0, 0.08)))
    gamma = float(np.exp(rng.normal(0, 0.16)))
    inverted = bool(rng.random() < 0.03)
    noise = float(np.exp(rng.uniform(np.log(0.003), np.log(0.012))))
    blur = float(np.exp(rng.uniform(np.log(0.0004), np.log(0.0012))))
    glow = float(rng.uniform(0.0, 0.03))
    texture = float(rng.uniform(0.05, 0.14))
    plate = _draw_plate(rng, hand)
    strip = None
    if rng.random() < 0.10:
        side = ("left", "right", "top", "bottom")[int(rng.integers(4))]
        strip = (side, float(rng.uniform(0.004, 0.02)))
    marker = _draw_marker(rng, frame, tissue, plate, marked)
    ring = int(rng.integers(2, 6)) if rng.random() < 0.015 else None
    cast = bool(rng.random() < 0.012)
    return Film(
        soft=soft,
        bone=bone,
        gamma=gamma,
        base=float(base),
        contrast=float(contrast * (1 - base)),
        inverted=inverted,
        noise=noise,
        blur=blur,
        glow=glow,
        texture=texture,
        plate=plate,
        strip=strip,
        marker=marker,
        ring=ring,
        cast=cast,
    )


def _draw_plate(rng: np.random.Generator, hand: Box) -> Plate | None:
    """A collimated field in a quarter of the films, tilted like a scan in a third of them."""
    kind, tilt, outside = rng.random(), float(rng.normal(0, 8)), rng.random()
    border = rng.uniform(0.015, 0.12, 4)
    if kind > 0.25:
        return None
    tilt = tilt if kind < 0.08 else 0.0
    center = 0.5 * (hand[0] + hand[2]), 0.5 * (hand[1] + hand[3])
    cos, sin = abs(math.cos(math.radians(tilt))), abs(math.sin(math.radians(tilt)))
    width, height = 0.5 * (hand[2] - hand[0]), 0.5 * (hand[3] - hand[1])
    half_width = width * cos + height * sin
    half_height = width * sin + height * cos
    left, right, top, bottom = (float(b) for b in border)
    # The field may end anywhere beyond the hand, and well below the wrist.
    bottom += 0.08
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    dx, dy = 0.5 * (right - left), 0.5 * (bottom - top)
    center = center[0] + dx * cos - dy * sin, center[1] + dx * sin + dy * cos
    half = half_width + 0.5 * (left + right), half_height + 0.5 * (top + bottom)
    return Plate(center, half, tilt, 1.0 if outside < 0.06 else 0.0)


def _draw_marker(
    rng: np.random.Generator,
    frame: Frame,
    tissue: Sequence[Flesh],
    plate: Plate | None,
    marked: float,
) -> Marker | None:
    """A marker somewhere clear of the hand."""
    absent = rng.random() < 0.05
    size = float(rng.uniform(0.018, 0.028))
    tilt = float(rng.normal(0, 12))
    initials = "".join(rng.choice(list(STROKES), int(rng.integers(2, 4))))
    brightness, backed = float(rng.uniform(0.8, 1.0)), bool(rng.random() < 0.5)
    places = rng.uniform((0.0, 0.0), (ASPECT, 1.0), (60, 2))
    if absent:
        return None
    reach = 2.6 * size
    room = [_room(frame, tissue, plate, (float(x), float(y))) for x, y in places]
    # The first place with room enough; where there is none, the one with most.
    free = [i for i, r in enumerate(room) if r > reach]
    best = free[0] if free else int(np.argmax(room))
    bar = float(np.clip((marked - FIRST_AGE) / (LAST_AGE - FIRST_AGE), 0, 1))
    center = float(places[best, 0]), float(places[best, 1])
    side = "R" if frame.mirrored else "L"
    return Marker(center, size, tilt, side + " " + initials, bar, brightness, backed)


def _room(frame: Frame, tissue: Sequence[Flesh], plate: Plate | None, place: Point) -> float:
    """Distance from a place to the hand or the nearest border, in heights of the picture."""
    dx, dy = place[0] - frame.origin[0], place[1] - frame.origin[1]
    cos, sin = math.cos(math.radians(frame.tilt)), math.sin(math.radians(frame.tilt))
    x, y = (dx * cos + dy * sin) / frame.unit, (dx * sin - dy * cos) / frame.unit
    to_hand = frame.unit * clearance((-x if frame.mirrored else x, y), tissue)
    room = min(to_hand, place[0], ASPECT - place[0], place[1], 1 - place[1])
    if plate is not None:
        room = min(room, float(inside(plate, *np.array(place)[:, None])[0]))
    return room


def inside(plate: Plate, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a plate's border, positive inside, in heights of the picture."""
    cos, sin = math.cos(math.radians(plate.tilt)), math.sin(math.radians(plate.tilt))
    dx, dy = x - plate.center[0], y - plate.center[1]
    across = plate.half[0] - np.abs(dx * cos + dy * sin)
    along = plate.half[1] - np.abs(dy * cos - dx * sin)
    return np.minimum(across, along)


STROKES: dict[str, tuple[tuple[Point, ...], ...]] = {
    # Letters as lines in a cell 1 wide and 1.6 high, y up.
    "A": (((0, 0), (0.5, 1.6), (1, 0)), ((0.2, 0.6), (0.8, 0.6))),
    "D": (((0, 0), (0, 1.6), (0.6, 1.6), (1, 1.2), (1, 0.4), (0.6, 0), (0, 0)),),
    "E": (((1, 0), (0, 0), (0, 1.6), (1, 1.6)), ((0, 0.8), (0.8, 0.8))),
    "H": (((0, 0), (0, 1.6)), ((1, 0), (1, 1.6)), ((0, 0.8), (1, 0.8))),
    "J": (((0, 0.3), (0.3, 0), (0.7, 0), (0.9, 0.3), (0.9, 1.6)),),
    "K": (((0, 0), (0, 1.6)), ((1, 1.6), (0, 0.7), (1, 0))),
    "L": (((0, 1.6), (0, 0), (0.9, 0)),),
    "M": (((0, 0), (0, 1.6), (0.5, 0.7), (1, 1.6), (1, 0)),),
    "N": (((0, 0), (0, 1.6), (1, 0), (1, 1.6)),),
    "R": (((0, 0), (0, 1.6), (0.9, 1.4), (0.9, 0.9), (0, 0.7), (1, 0)),),
    "S": (((0, 0.1), (0.9, 0.1), (1, 0.7), (0.1, 0.9), (0.1, 1.5), (1, 1.5)),),
    "T": (((0.5, 0), (0.5, 1.6)), ((0, 1.6), (1, 1.6))),
    "V": (((0, 1.6), (0.5, 0), (1, 1.6)),),
    "W": (((0, 1.6), (0.25, 0), (0.5, 1), (0.75, 0), (1, 1.6)),),
}


def marker_lines(marker: Marker) -> list[Bone]:
    """The marker's letters and bar as rods, in units of its letters' width.

    The first letter is the side, larger and above; the initials stand below, and a bar below
    them is as long as the months it stands for.
    """
    side, initials = marker.letters.split(" ")
    lines = _letter(side, (-0.7, 0.6), 1.5, 0.20)
    for place, letter in enumerate(initials):
        lines += _letter(letter, (1.35 * (place - 0.5 * len(initials)) + 0.15, -1.4), 0.9, 0.12)
    lines.append(_rod((-1.9, -2.1), (-1.8 + 3.6 * marker.bar, -2.1), 0.28))
    return lines


def _letter(letter: str, corner: Point, scale: float, width: float) -> list[Bone]:
    points = [
        [(corner[0] + scale * x, corner[1] + scale * y) for x, y in line]
        for line in STROKES[letter]
    ]
    return [_rod(a, b, width) for line in points for a, b in pairwise(line)]


def _rod(start: Point, end: Point, radius: float) -> Bone:
    return Bone(start, end, (radius, radius, radius), (0.5, 0.5), cortex=0.05, marrow=1.0)
