"""The hand: where its bones lie, and what they look like at an age.

Hand units: the origin is the middle of the carpals, x points to the thumb's side, y to the
fingertips, and 1 is the distance from the origin to the mean of the joints between metacarpals
2-5 and their fingers. Joint positions are medians over annotated radiographs. The joints and the
soft tissue do not depend on age, so neither the hand's size nor its outline gives age away;
the bones between the joints do, each with the age of its own region.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .ossification import CARPALS_FULL, GROWN_UP, fusion, growth, onset
from .shapes import Bone, Box, Flesh, Frame, Nodule, Point, extent, hull

WRIST_SIZE = (0.98, 0.65)
HAND_END = -0.5

RAYS: Mapping[int, tuple[Point, ...]] = {
    1: ((0.45, 0.13), (0.80, 0.49), (1.04, 0.83), (1.17, 1.12)),
    2: ((0.25, 0.35), (0.47, 1.02), (0.67, 1.58), (0.77, 1.89), (0.84, 2.12)),
    3: ((0.07, 0.37), (0.13, 1.07), (0.23, 1.72), (0.28, 2.11), (0.31, 2.36)),
    4: ((-0.10, 0.34), (-0.16, 1.01), (-0.20, 1.61), (-0.21, 1.99), (-0.22, 2.24)),
    5: ((-0.25, 0.29), (-0.44, 0.90), (-0.61, 1.32), (-0.70, 1.57), (-0.76, 1.78)),
}
"""Joints of each ray from the wrist outwards, the last being the tip of the bone."""

CARPALS: Mapping[str, tuple[Point, float, float, float]] = {
    # centre, semi-axes, degrees from the x axis to the first of them
    "capitate": ((0.01, 0.09), 0.193, 0.121, 85),
    "hamate": ((-0.20, 0.11), 0.160, 0.127, 60),
    "triquetrum": ((-0.325, -0.07), 0.116, 0.099, 100),
    "lunate": ((-0.11, -0.165), 0.132, 0.105, 15),
    "scaphoid": ((0.16, -0.10), 0.176, 0.099, 48),
    "trapezium": ((0.36, 0.11), 0.127, 0.099, 120),
    "trapezoid": ((0.205, 0.17), 0.105, 0.088, 70),
    "pisiform": ((-0.365, -0.12), 0.077, 0.066, 90),
}

JOINT_SPACE = 0.018


@dataclass(frozen=True)
class LongBone:
    """How a long bone grows from a shaft with a gap beyond it to one whole.

    Args:
        radii: grown up, at the end without epiphysis, the waist, and the end with it.
        plate: semi-axis of the grown epiphysis along the bone, hand units.
        gap: width at birth of the cartilage between shaft and epiphysis, hand units.
        cap: length of the cap at the end without epiphysis, as a share of its radius.
        density: factor on the thickness; below 1 for bones that are flat along the beam.
    """

    radii: tuple[float, float, float]
    plate: float
    gap: float
    cap: float
    density: float = 1.0


LONG_BONES: Mapping[str, LongBone] = {
    "metacarpal-1": LongBone((0.100, 0.064, 0.105), 0.034, 0.030, 0.75),
    "metacarpal-2": LongBone((0.115, 0.060, 0.095), 0.068, 0.045, 0.55),
    "metacarpal-3": LongBone((0.100, 0.060, 0.095), 0.068, 0.045, 0.55),
    "metacarpal-4": LongBone((0.085, 0.050, 0.086), 0.064, 0.042, 0.60),
    "metacarpal-5": LongBone((0.095, 0.054, 0.084), 0.062, 0.042, 0.60),
    "proximal-1": LongBone((0.072, 0.050, 0.088), 0.026, 0.026, 0.60),
    "proximal-2": LongBone((0.074, 0.054, 0.095), 0.026, 0.026, 0.65),
    "proximal-3": LongBone((0.078, 0.056, 0.098), 0.026, 0.026, 0.65),
    "proximal-4": LongBone((0.072, 0.051, 0.092), 0.025, 0.026, 0.65),
    "proximal-5": LongBone((0.060, 0.043, 0.080), 0.023, 0.024, 0.65),
    "middle-2": LongBone((0.064, 0.046, 0.080), 0.021, 0.022, 0.55),
    "middle-3": LongBone((0.067, 0.048, 0.084), 0.022, 0.022, 0.55),
    "middle-4": LongBone((0.063, 0.044, 0.080), 0.021, 0.022, 0.55),
    "middle-5": LongBone((0.054, 0.038, 0.066), 0.018, 0.020, 0.55),
    "distal-1": LongBone((0.056, 0.038, 0.076), 0.021, 0.022, 0.80),
    "distal-2": LongBone((0.044, 0.028, 0.058), 0.017, 0.020, 0.90),
    "distal-3": LongBone((0.046, 0.029, 0.062), 0.018, 0.020, 0.90),
    "distal-4": LongBone((0.044, 0.028, 0.059), 0.017, 0.020, 0.90),
    "distal-5": LongBone((0.038, 0.024, 0.050), 0.015, 0.018, 0.90),
    "radius": LongBone((0.140, 0.115, 0.235), 0.048, 0.060, 1.00, 0.6),
    "ulna": LongBone((0.110, 0.080, 0.125), 0.036, 0.055, 1.00, 0.8),
}


@dataclass(frozen=True)
class Build:
    """One patient's own hand, whatever the age: joints, bend of the fingers, girth, sizes."""

    rays: Mapping[int, tuple[Point, ...]]
    carpals: Mapping[str, Point]
    scale: Mapping[str, float]
    girth: float
    forearm: float


@dataclass(frozen=True)
class Piece:
    """One bone as drawn, and the region whose age it shows."""

    name: str
    region: str
    parts: tuple[Bone | Nodule, ...]


def draw_build(rng: np.random.Generator) -> Build:
    """Draws a hand: small differences in every joint, spread and bend of the fingers, girth."""
    spread = float(np.clip(rng.normal(0, 4), -8, 8))
    swing = {
        1: float(np.clip(rng.normal(0, 5), -10, 10)),
        2: spread,
        3: 0.3 * spread,
        4: -0.4 * spread,
        5: -1.2 * spread,
    }
    rays: dict[int, tuple[Point, ...]] = {}
    for ray, joints in RAYS.items():
        moved = [_jittered(rng, joint, 0.01) for joint in joints]
        own = float(rng.normal(0, 1.5))
        pivot = 0 if ray == 1 else 1
        moved = _bent(moved, pivot, swing[ray] + own)
        for joint in range(2, len(moved) - 1):
            moved = _bent(moved, joint, float(rng.normal(0, 2)))
        rays[ray] = tuple(moved)
    carpals = {name: _jittered(rng, spec[0], 0.005) for name, spec in CARPALS.items()}
    names = (*CARPALS, *LONG_BONES)
    scale = {name: float(1 + np.clip(rng.normal(0, 0.01), -0.025, 0.025)) for name in names}
    girth = float(rng.uniform(0.98, 1.3))
    forearm = float(np.clip(rng.normal(-7, 5), -18, 6))
    return Build(rays, carpals, scale, girth, forearm)


def _jittered(rng: np.random.Generator, point: Point, sd: float) -> Point:
    dx, dy = np.clip(rng.normal(0, sd, 2), -2.5 * sd, 2.5 * sd)
    return point[0] + float(dx), point[1] + float(dy)


def _bent(joints: list[Point], pivot: int, degrees: float) -> list[Point]:
    """Turns all joints beyond the pivot about it; positive to the thumb's side."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    px, py = joints[pivot]
    moved = [
        (px + (x - px) * cos + (y - py) * sin, py - (x - px) * sin + (y - py) * cos)
        for x, y in joints[pivot + 1 :]
    ]
    return joints[: pivot + 1] + moved


def skeleton(build: Build, ages: Mapping[str, float], male: bool) -> list[Piece]:
    """All bones that have appeared.

    Args:
        build: the patient's hand.
        ages: each region's own age, months.
        male: whose tables of onset and fusion hold.

    Returns:
        The pieces in the order wrist, metacarpals, phalanges, forearm.
    """
    pieces = _carpal_bones(build, ages["carpal"], male)
    for ray, joints in build.rays.items():
        start, end = _shortened(joints[0], joints[1])
        if ray == 1:
            # Its epiphysis is at the wrist, inside the carpals' box, so it and the gap that
            # it closes show their age; the shaft lies outside and shows what all else shows.
            epiphysis = ("carpal", ages["carpal"])
            name, region, ends = "metacarpal-1", "phalanges", (end, start)
        else:
            epiphysis = ("metacarpal", ages["metacarpal"])
            name, region, ends = f"metacarpal-{ray}", "metacarpal", (start, end)
        pieces += _long_bone(name, region, ages[region], *ends, build, male, epiphysis)
    for ray, joints in build.rays.items():
        parts = ("proximal", "distal") if ray == 1 else ("proximal", "middle", "distal")
        for part, base, head in zip(parts, joints[1:], joints[2:], strict=False):
            base, head = _shortened(base, head, last=part == "distal")
            pieces += _long_bone(
                f"{part}-{ray}", "phalanges", ages["phalanges"], head, base, build, male
            )
    if ages["phalanges"] > onset("sesamoid", male):
        grown = growth(ages["phalanges"], onset("sesamoid", male), GROWN_UP)
        size = 0.02 + 0.02 * grown
        x, y = build.rays[1][1]
        pieces.append(
            Piece("sesamoid", "phalanges", (Nodule((x - 0.10, y), (size, 0.0), size, size),))
        )
    for name, wrist, elbow in (
        ("radius", (0.03, -0.285), (-0.10, -2.6)),
        ("ulna", (-0.36, -0.315), (-0.42, -2.6)),
    ):
        # The end without epiphysis is the elbow's, beyond the picture.
        pieces += _long_bone(
            name,
            "forearm",
            ages["forearm"],
            _swung(build, elbow),
            _swung(build, wrist),
            build,
            male,
        )
    return pieces


def _shortened(base: Point, head: Point, last: bool = False) -> tuple[Point, Point]:
    """The ends of a bone between two joints: less the joint spaces."""
    dx, dy = head[0] - base[0], head[1] - base[1]
    share = JOINT_SPACE / math.hypot(dx, dy)
    far = 0.0 if last else share
    return (base[0] + share * dx, base[1] + share * dy), (head[0] - far * dx, head[1] - far * dy)


def _swung(build: Build, point: Point) -> Point:
    """A point of the forearm, turned about the wrist."""
    return _bent([(-0.15, -0.25), point], 0, -build.forearm)[1]


def _carpal_bones(build: Build, age: float, male: bool) -> list[Piece]:
    full = CARPALS_FULL[0 if male else 1]
    dense = growth(age, 0, GROWN_UP)
    pieces = []
    for name, (_, length, width, degrees) in CARPALS.items():
        appears = onset(name, male)
        if age <= appears:
            continue
        size = build.scale[name] * (0.25 + 0.75 * growth(age, appears, full) ** 0.75)
        angle = math.radians(degrees)
        axis = (size * length * math.cos(angle), size * length * math.sin(angle))
        nodule = Nodule(
            build.carpals[name],
            axis,
            size * width,
            depth=0.8 * size * width,
            rim=0.05 + 0.08 * dense,
            marrow=0.5 + 0.15 * dense,
        )
        pieces.append(Piece(name, "carpal", (nodule,)))
    return pieces


def _long_bone(
    name: str,
    region: str,
    age: float,
    start: Point,
    end: Point,
    build: Build,
    male: bool,
    epiphysis: tuple[str, float] | None = None,
) -> list[Piece]:
    """Shaft from ``start`` towards ``end``, where the epiphysis sits, and that epiphysis."""
    plate_region, plate_age = epiphysis or (region, age)
    spec, scale = LONG_BONES[name], build.scale[name]
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    ux, uy = dx / length, dy / length
    appears, fuses = onset(name, male), fusion(name, male)

    closed = growth(plate_age, 0, fuses)
    grown = growth(plate_age, appears, 0.9 * fuses) ** 0.75
    half = spec.plate * (0.5 + 0.5 * grown)
    # The gap closes until shaft and epiphysis overlap by what both lose to their rounded ends.
    gap = spec.gap * (1 - closed) - 0.9 * spec.plate * closed

    # Infants' shafts are stout with a thin wall; the wall thickens until growth ends.
    mature = growth(age, 0, GROWN_UP)
    near, waist, far = (scale * r for r in spec.radii)
    waist *= 1.15 - 0.15 * mature
    far *= 0.9 + 0.1 * mature
    cap_start, cap_end = spec.cap, 0.22
    reach = length - 2 * half - gap - cap_end * far
    shaft = Bone(
        (start[0] + cap_start * near * ux, start[1] + cap_start * near * uy),
        (start[0] + reach * ux, start[1] + reach * uy),
        (near * (0.92 + 0.08 * mature), waist, far),
        (cap_start, cap_end),
        cortex=0.16 + 0.36 * mature,
        marrow=0.22 + 0.08 * mature,
        density=spec.density,
    )
    if plate_age <= appears:
        return [Piece(name, region, (shaft,))]
    width = scale * spec.radii[2] * (0.4 + 0.6 * grown)
    plate = Nodule(
        (end[0] - half * ux, end[1] - half * uy),
        (half * ux, half * uy),
        width,
        depth=0.8 * spec.density * width,
        marrow=0.4,
        square=not name.startswith("metacarpal"),
    )
    if plate_region == region:
        return [Piece(name, region, (shaft, plate))]
    return [Piece(name, region, (shaft,)), Piece(f"{name} epiphysis", plate_region, (plate,))]


def flesh(build: Build) -> list[Flesh]:
    """The soft tissue of the hand, without the forearm."""
    g = build.girth
    rays = build.rays
    parts = [
        Flesh((-0.06, 0.06), (-0.08, -0.10), (0.42 * g, 0.38 * g), 0.21),
        Flesh(_inward(rays[2][1]), _inward(rays[5][1]), (0.16 * g, 0.14 * g), 0.15),
    ]
    for ray in (2, 3, 4, 5):
        base, knuckle = rays[ray][0], rays[ray][1]
        parts.append(Flesh(base, knuckle, (0.25 * g, 0.155 * g), 0.17))
    # The thumb's ball and the web between thumb and index finger.
    thumb, index = rays[1], rays[2]
    parts.append(Flesh((0.22, 0.08), thumb[1], (0.30 * g, 0.17 * g), 0.17))
    web = (0.5 * (thumb[1][0] + index[1][0]) - 0.13, 0.5 * (thumb[1][1] + index[1][1]) - 0.16)
    parts.append(Flesh((0.30, 0.35), web, (0.26 * g, 0.12 * g), 0.13))
    for ray, joints in rays.items():
        stout = {1: 1.08, 5: 0.88}.get(ray, 1.0) * g
        widths = (0.145, 0.128, 0.112, 0.098) if ray != 1 else (0.145, 0.125, 0.108)
        tip = joints[-1]
        for first, last, (wide, narrow) in zip(
            joints[1:], joints[2:], pairwise(widths), strict=False
        ):
            if last == tip:
                # The pad reaches a little beyond the bone.
                dx, dy = last[0] - first[0], last[1] - first[1]
                share = 1 - 0.02 / math.hypot(dx, dy)
                last = (first[0] + share * dx, first[1] + share * dy)
            parts.append(Flesh(first, last, (wide * stout, narrow * stout), 0.11 * stout))
    return parts


def _inward(point: Point) -> Point:
    """A little nearer to the palm's middle."""
    return 0.92 * point[0], point[1] - 0.06


def forearm_flesh(build: Build) -> Flesh:
    """The soft tissue of the forearm, which runs out of the picture."""
    g = build.girth
    return Flesh(
        _swung(build, (-0.12, -0.32)), _swung(build, (-0.25, -3.4)), (0.39 * g, 0.46 * g), 0.20
    )


def tissue(build: Build) -> list[Flesh]:
    """All soft tissue, hand and forearm."""
    return [*flesh(build), forearm_flesh(build)]


def true_boxes(build: Build, pieces: list[Piece], frame: Frame) -> dict[str, Box]:
    """The boxes of hand, wrist and metacarpals, in pixels, not yet clipped to the image.

    - ``Hand``: the soft tissue from the fingertips to just below the radius' joint with the
      wrist (half a hand unit below the origin).
    - ``Wrist``: 0.98 x 0.65 hand units about the carpals' middle. Its sides stay parallel to
      the image whatever the tilt, as in the annotations that these medians come from, so it
      depends on nothing but the hand's place and size.
    - ``Metacarpal``: the hull of metacarpals 2-5 as drawn, with their epiphyses.
    """
    arm = forearm_flesh(build)
    place = (arm.start[1] - HAND_END) / (arm.start[1] - arm.end[1])
    across = arm.start[0] + place * (arm.end[0] - arm.start[0])
    half = arm.radii[0] + place * (arm.radii[1] - arm.radii[0])
    cut = [frame.point((across + side, HAND_END)) for side in (-half, half)]
    hand = hull([*(extent(part, frame) for part in flesh(build)), *((*p, *p) for p in cut)])
    (x, y), (width, height) = frame.origin, (frame.unit * s for s in WRIST_SIZE)
    wrist = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    metacarpals = [
        extent(part, frame)
        for piece in pieces
        if piece.region == "metacarpal"
        for part in piece.parts
    ]
    return {"Hand": hand, "Wrist": wrist, "Metacarpal": hull(metacarpals)}
