"""The shapes a hand is made of, and how each is drawn in its own window.

Shapes live in hand units (see ``anatomy``) and are placed by a ``Frame``; thickness comes out
in hand units as well, so a drawing's intensities do not depend on its size. A pixel's value is
taken at its centre; coordinates start at the top-left corner of the top-left pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Frame:
    """Hand units to pixels: scale, mirror, rotate, shift.

    Args:
        origin: pixel position of the hand's origin.
        unit: pixels to one hand unit.
        tilt: degrees by which the hand leans, clockwise positive.
        mirrored: whether the thumb is on the left.
    """

    origin: Point
    unit: float
    tilt: float = 0.0
    mirrored: bool = False

    def vector(self, vector: Point) -> Point:
        """A displacement in hand units (x radial, y distal) as pixels (x right, y down)."""
        x, y = (-vector[0] if self.mirrored else vector[0]), vector[1]
        cos, sin = math.cos(math.radians(self.tilt)), math.sin(math.radians(self.tilt))
        return self.unit * (x * cos + y * sin), self.unit * (x * sin - y * cos)

    def point(self, point: Point) -> Point:
        """A position in hand units as a position in pixels."""
        x, y = self.vector(point)
        return self.origin[0] + x, self.origin[1] + y

    def zoomed(self, factor: float) -> Frame:
        """The same placement in an image that is ``factor`` times as large."""
        x, y = self.origin
        return Frame((x * factor, y * factor), self.unit * factor, self.tilt, self.mirrored)


@dataclass(frozen=True)
class Bone:
    """A round, waisted, hollow bone between two points.

    Args:
        start: where the shaft begins.
        end: where it ends; the caps lie beyond both.
        radii: at the start, at the waist, at the end.
        caps: length of each cap as a share of the radius there (0.2 flat, 1 round).
        cortex: thickness of the wall at the waist, as a share of the radius.
        marrow: density of the inside, where the wall has 1.
        density: factor on the whole.
    """

    start: Point
    end: Point
    radii: tuple[float, float, float]
    caps: tuple[float, float] = (0.5, 0.5)
    cortex: float = 0.3
    marrow: float = 0.4
    density: float = 1.0


@dataclass(frozen=True)
class Nodule:
    """A soft ellipse with a rim: a carpal bone, or an epiphysis seen from its edge.

    Args:
        center: its middle.
        axis: the first semi-axis as a vector.
        width: length of the second semi-axis, at right angles.
        depth: semi-axis along the beam.
        rim: thickness of the denser rim, as a share of the radius.
        marrow: density of the inside, where the rim has 1.
        square: whether the ends along the second axis are blunt, as a plate's are.
    """

    center: Point
    axis: Point
    width: float
    depth: float
    rim: float = 0.12
    marrow: float = 0.6
    square: bool = False


@dataclass(frozen=True)
class Flesh:
    """A capsule of soft tissue, flattened along the beam.

    Args:
        start: centre of one end.
        end: centre of the other.
        radii: at the start and at the end.
        depth: semi-axis along the beam.
    """

    start: Point
    end: Point
    radii: tuple[float, float]
    depth: float


Shape = Bone | Nodule | Flesh


def extent(shape: Shape, frame: Frame) -> Box:
    """The tight box (x1, y1, x2, y2) of a placed shape, in pixels."""
    if isinstance(shape, Nodule):
        (x, y), (ax, ay) = frame.point(shape.center), frame.vector(shape.axis)
        cross = frame.unit * shape.width / math.hypot(ax, ay)
        half = math.hypot(ax, ay * cross), math.hypot(ay, ax * cross)
        return x - half[0], y - half[1], x + half[0], y + half[1]
    caps = shape.caps if isinstance(shape, Bone) else (1.0, 1.0)
    ends = zip((shape.start, shape.end), (shape.radii[0], shape.radii[-1]), caps, strict=True)
    ux, uy, _ = _direction(frame.point(shape.start), frame.point(shape.end))
    boxes = []
    for point, radius, cap in ends:
        (x, y), r = frame.point(point), frame.unit * radius
        half_x, half_y = r * math.hypot(cap * ux, uy), r * math.hypot(cap * uy, ux)
        boxes.append((x - half_x, y - half_y, x + half_x, y + half_y))
    return hull(boxes)


def hull(boxes: Iterable[Box]) -> Box:
    """The smallest box around all the given ones."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


class _Window(NamedTuple):
    """The part of a canvas that one shape can touch, with its pixels' centres."""

    part: np.ndarray
    x: np.ndarray
    y: np.ndarray


def _window(canvas: np.ndarray, box: Box) -> _Window | None:
    height, width = canvas.shape
    left, right = max(math.floor(box[0]), 0), min(math.ceil(box[2]), width)
    top, bottom = max(math.floor(box[1]), 0), min(math.ceil(box[3]), height)
    if left >= right or top >= bottom:
        return None
    x = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5)
    return _Window(canvas[top:bottom, left:right], x, y)


def _direction(start: Point, end: Point) -> tuple[float, float, float]:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max(math.hypot(dx, dy), 1e-6)
    return dx / length, dy / length, length


def _root(value: np.ndarray) -> np.ndarray:
    np.maximum(value, 0.0, out=value)
    np.sqrt(value, out=value)
    return value


def _along(
    window: _Window, start: Point, end: Point, caps: tuple[float, float], unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Position along a capsule's axis (0..1), and the squared distance from it, hand units."""
    ux, uy, length = _direction(start, end)
    x, y = (window.x - np.float32(start[0])), (window.y - np.float32(start[1]))
    axial = x * np.float32(ux / length) + y * np.float32(uy / length)
    across = x * np.float32(-uy / unit) + y * np.float32(ux / unit)
    place = np.clip(axial, 0.0, 1.0)
    beyond = axial - place
    beyond *= np.where(
        beyond < 0, np.float32(length / unit / caps[0]), np.float32(length / unit / caps[1])
    )
    return place, across * across + beyond * beyond


def draw_bone(canvas: np.ndarray, parts: Sequence[Bone | Nodule], frame: Frame) -> None:
    """Adds a bone's thickness to a canvas.

    Args:
        canvas: (H, W) float32, changed in place; hand units.
        parts: shaft and epiphysis, say; where they overlap the thicker one counts, so that a
            fused bone is one bone.
        frame: where to draw it.
    """
    whole = _window(canvas, hull(extent(part, frame) for part in parts))
    if whole is None:
        return
    layer = np.zeros_like(whole.part)
    corner = float(whole.x[0, 0] - 0.5), float(whole.y[0, 0] - 0.5)
    local = replace(frame, origin=(frame.origin[0] - corner[0], frame.origin[1] - corner[1]))
    for part in parts:
        window = _window(layer, extent(part, local))
        if window is None:
            continue
        if isinstance(part, Nodule):
            thickness = _nodule_thickness(window, part, local)
        else:
            thickness = _bone_thickness(window, part, local)
        np.maximum(window.part, thickness, out=window.part)
    whole.part[...] += layer


def _bone_thickness(window: _Window, bone: Bone, frame: Frame) -> np.ndarray:
    start, end = frame.point(bone.start), frame.point(bone.end)
    place, distance = _along(window, start, end, bone.caps, frame.unit)
    first, waist, last = bone.radii
    back = 1 - place
    flare, back_flare = place * place, back * back
    radius = waist + (last - waist) * flare * flare + (first - waist) * back_flare * back_flare
    # The wall is thickest at the waist and thins out towards both ends.
    inner = radius * (1 - 0.05 - np.float32(4 * (bone.cortex - 0.05)) * place * back)
    wall = _root(radius * radius - distance)
    wall -= np.float32(1 - bone.marrow) * _root(inner * inner - distance)
    wall *= np.float32(2 * bone.density)
    return wall


def _nodule_thickness(window: _Window, nodule: Nodule, frame: Frame) -> np.ndarray:
    (cx, cy), (ax, ay) = frame.point(nodule.center), frame.vector(nodule.axis)
    square = ax * ax + ay * ay
    cross = frame.unit * nodule.width * math.sqrt(square)
    x, y = window.x - np.float32(cx), window.y - np.float32(cy)
    along = x * np.float32(ax / square) + y * np.float32(ay / square)
    across = x * np.float32(-ay / cross) + y * np.float32(ax / cross)
    across *= across
    distance = along * along + (across * across if nodule.square else across)
    inner = (1 - nodule.rim) ** 2
    thickness = _root(1 - distance) - np.float32(1 - nodule.marrow) * _root(inner - distance)
    return np.float32(2 * nodule.depth) * thickness


def draw_flesh(canvas: np.ndarray, flesh: Flesh, frame: Frame) -> None:
    """Adds the fourth power of a capsule's thickness to a canvas.

    The fourth root of the sum is a smooth union: where capsules overlap the tissue does not
    become twice as thick, and no crease shows where one takes over from the other.

    Args:
        canvas: (H, W) float32, changed in place; hand units to the fourth.
        flesh: what to draw.
        frame: where to draw it.
    """
    window = _window(canvas, extent(flesh, frame))
    if window is None:
        return
    start, end = frame.point(flesh.start), frame.point(flesh.end)
    place, distance = _along(window, start, end, (1.0, 1.0), frame.unit)
    radius = flesh.radii[0] + np.float32(flesh.radii[1] - flesh.radii[0]) * place
    profile = np.maximum(1 - distance / (radius * radius), 0)
    window.part[...] += np.float32((2 * flesh.depth) ** 4) * profile * profile


def clearance(point: Point, flesh: Iterable[Flesh]) -> float:
    """Distance from a point to the nearest capsule, in hand units; negative inside one."""
    nearest = math.inf
    for part in flesh:
        ux, uy, length = _direction(part.start, part.end)
        dx, dy = point[0] - part.start[0], point[1] - part.start[1]
        place = min(max((dx * ux + dy * uy) / length, 0.0), 1.0)
        gap = math.hypot(dx - place * length * ux, dy - place * length * uy)
        nearest = min(nearest, gap - part.radii[0] - (part.radii[1] - part.radii[0]) * place)
    return nearest
