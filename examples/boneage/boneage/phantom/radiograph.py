"""From a patient to a radiograph: draw thicknesses, expose them, add what film adds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np

from .ages import (
    FIRST_AGE,
    LAST_AGE,
    MALE_SHARE,
    SHORTCUT_SD,
    VARIANTS,
    Variant,
    draw_age,
    region_sd,
)
from .anatomy import Build, Piece, draw_build, forearm_flesh, skeleton, tissue, true_boxes
from .film import ASPECT, Film, Marker, Plate, draw_film, draw_pose, fitted, inside, marker_lines
from .shapes import Bone, Box, Frame, draw_bone, draw_flesh

DRAWN_LENGTH = 640
"""Smaller images are drawn at a multiple of their size, at least this long, and averaged."""


@dataclass(frozen=True)
class PhantomConfig:
    """What to draw.

    Args:
        size: (height, width) in pixels; the longer side 128..3000, the shorter at least 64.
        bits: 8 or 16.
        variant: ``"default"``; ``"swapped"``, where the metacarpals carry the age that the
            carpals carry else; ``"no-age"``, where the bones show an age that has nothing to do
            with the label; ``"shortcut"``, where a bar on the marker gives the age away.

    Raises:
        TypeError: a field is of the wrong kind.
        ValueError: a field is out of range.
    """

    size: tuple[int, int] = (512, 384)
    bits: int = 8
    variant: Variant = "default"

    def __post_init__(self) -> None:
        try:
            height, width = self.size
        except (TypeError, ValueError):
            raise TypeError(f"size: expected (height, width), got {self.size!r}") from None
        for side in (height, width):
            if isinstance(side, bool) or not isinstance(side, Integral):
                raise TypeError(f"size: expected two integers, got {self.size!r}")
        if not (128 <= max(height, width) <= 3000 and min(height, width) >= 64):
            raise ValueError(
                "size: expected a longer side of 128..3000 and a shorter one of at least 64 "
                f"pixels, got {self.size!r}"
            )
        object.__setattr__(self, "size", (int(height), int(width)))
        if self.bits not in (8, 16):
            raise ValueError(f"bits: expected 8 or 16, got {self.bits!r}")
        if self.variant not in VARIANTS:
            raise ValueError(
                f"variant: expected one of {', '.join(VARIANTS)}, got {self.variant!r}"
            )


DEFAULT = PhantomConfig()


@dataclass(frozen=True, eq=False)
class Phantom:
    """One patient's radiograph with everything that is true about it.

    Args:
        image: (H, W) uint8 or uint16.
        age: months, 1..228; the label.
        male: the label's sex.
        boxes: ``"Hand"``, ``"Wrist"``, ``"Metacarpal"`` -> (x1, y1, x2, y2), float pixels,
            half-open, clipped to the image.
        region_ages: the age that each region shows, months.
        marker_age: the age that the marker's bar shows, months.
        mirrored: whether the thumb is on the left.
        inverted: whether bone is dark.
        tilt: degrees by which the hand leans, clockwise positive.
        unit: pixels from the middle of the carpals to the mean of the knuckles 2-5.
        film: all that the picture's exposure was drawn from.
        seed: the patient's seed.
        config: what was asked for.
    """

    image: np.ndarray = field(repr=False)
    age: float
    male: bool
    boxes: Mapping[str, Box]
    region_ages: Mapping[str, float]
    marker_age: float
    mirrored: bool
    inverted: bool
    tilt: float
    unit: float
    film: Film = field(repr=False)
    seed: int
    config: PhantomConfig


class _Stream(IntEnum):
    """Independent streams of one seed: what one stream draws never moves another."""

    PATIENT = 0
    REGIONS = 1
    BUILD = 2
    POSE = 3
    FILM = 4
    MARKER = 5
    HIDDEN_AGE = 6
    TEXTURE = 7
    GLOW = 8
    NOISE = 9


def _stream(seed: int, stream: _Stream) -> np.random.Generator:
    return np.random.default_rng([seed, int(stream)])


def generate(
    seed: int,
    age: float | None = None,
    male: bool | None = None,
    config: PhantomConfig = DEFAULT,
) -> Phantom:
    """One pediatric hand radiograph, with age, sex and boxes.

    The same seed gives the same patient in the same pose on the same film at every size and
    depth and in every variant. Age and sex can be set without changing anything else.

    Args:
        seed: any integer from 0 on.
        age: months in 1..228; drawn from the prior if not given.
        male: sex; drawn if not given.
        config: size, depth and variant.

    Returns:
        The radiograph and its truth.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: the seed is negative or the age is outside of 1..228.

    Example:
        >>> phantom = generate(7, age=120, male=False, config=PhantomConfig(size=(128, 96)))
        >>> phantom.image.shape, phantom.image.dtype.name, phantom.age
        ((128, 96), 'uint8', 120.0)
        >>> sorted(phantom.boxes)
        ['Hand', 'Metacarpal', 'Wrist']
    """
    seed = _checked_seed(seed)
    patient = _stream(seed, _Stream.PATIENT)
    drawn_age, drawn_male = draw_age(patient), bool(patient.random() < MALE_SHARE)
    age = float(drawn_age) if age is None else _checked_age(age)
    male = drawn_male if male is None else _checked_male(male)
    region_ages = _region_ages(seed, age, config.variant)
    marker_age = _marker_age(seed, age, config.variant)

    scene = _draw_scene(seed, region_ages, marker_age, male)
    picture = _Picture.within(config.size)
    image = _developed(scene, picture, _exposed(scene, picture, config.size))
    frame = picture.placed(scene.frame)
    boxes = true_boxes(scene.build, scene.pieces, frame)
    return Phantom(
        image=_quantized(image, config.bits),
        age=age,
        male=male,
        boxes={name: _clipped(box, config.size) for name, box in boxes.items()},
        region_ages=region_ages,
        marker_age=marker_age,
        mirrored=frame.mirrored,
        inverted=scene.film.inverted,
        tilt=frame.tilt,
        unit=frame.unit,
        film=scene.film,
        seed=seed,
        config=config,
    )


def _checked_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed: expected an integer, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed: expected an integer from 0 on, got {seed}")
    return int(seed)


def _checked_age(age: float) -> float:
    if isinstance(age, bool) or not isinstance(age, Real):
        raise TypeError(f"age: expected a number of months, got {age!r}")
    if not FIRST_AGE <= age <= LAST_AGE:
        raise ValueError(f"age: expected {FIRST_AGE}..{LAST_AGE} months, got {age}")
    return float(age)


def _checked_male(male: bool) -> bool:
    if not isinstance(male, bool | np.bool_):
        raise TypeError(f"male: expected True or False, got {male!r}")
    return bool(male)


def _region_ages(seed: int, age: float, variant: Variant) -> dict[str, float]:
    """The age that each region shows: one error for the region, not one for each bone."""
    if variant == "no-age":
        age = float(draw_age(_stream(seed, _Stream.HIDDEN_AGE)))
    sd = region_sd(variant)
    errors = _stream(seed, _Stream.REGIONS).standard_normal(len(sd))
    return {name: age + s * float(z) for (name, s), z in zip(sd.items(), errors, strict=True)}


def _marker_age(seed: int, age: float, variant: Variant) -> float:
    rng = _stream(seed, _Stream.MARKER)
    any_age, error = float(draw_age(rng)), float(rng.normal(0, SHORTCUT_SD))
    return age + error if variant == "shortcut" else any_age


@dataclass(frozen=True)
class _Scene:
    """All that is to be drawn; places in heights of the picture."""

    seed: int
    build: Build
    pieces: list[Piece]
    frame: Frame
    film: Film


def _draw_scene(
    seed: int, region_ages: Mapping[str, float], marker_age: float, male: bool
) -> _Scene:
    build = draw_build(_stream(seed, _Stream.BUILD))
    pieces = skeleton(build, region_ages, male)
    pose = draw_pose(_stream(seed, _Stream.POSE))
    unplaced = Frame((0, 0), 1, pose.tilt, pose.mirrored)
    frame = fitted(pose, true_boxes(build, pieces, unplaced)["Hand"])
    hand = true_boxes(build, pieces, frame)["Hand"]
    film = draw_film(_stream(seed, _Stream.FILM), frame, hand, tissue(build), marker_age)
    return _Scene(seed, build, pieces, frame, film)


class _Picture(NamedTuple):
    """Where the picture lies in an image: its left upper corner and its height, pixels."""

    left: float
    top: float
    height: float

    @classmethod
    def within(cls, size: tuple[int, int]) -> _Picture:
        """The largest picture that an image of this size holds, in its middle."""
        height = min(float(size[0]), size[1] / ASPECT)
        return cls(0.5 * (size[1] - ASPECT * height), 0.5 * (size[0] - height), height)

    def placed(self, frame: Frame) -> Frame:
        """A frame in heights of the picture, as a frame in pixels."""
        x, y = frame.origin
        origin = self.left + x * self.height, self.top + y * self.height
        return Frame(origin, frame.unit * self.height, frame.tilt, frame.mirrored)


def _exposed(scene: _Scene, picture: _Picture, size: tuple[int, int]) -> np.ndarray:
    """What flesh, bone and lead keep from the film, 0 (nothing) .. 1 (all); (H, W) float32."""
    build, film = scene.build, scene.film
    zoom = max(1, math.ceil(DRAWN_LENGTH / max(size)))
    shape = (size[0] * zoom, size[1] * zoom)
    frame = picture.placed(scene.frame).zoomed(zoom)

    soft = np.zeros(shape, np.float32)
    for part in tissue(build):
        draw_flesh(soft, part, frame)
    np.sqrt(soft, out=soft)
    np.sqrt(soft, out=soft)
    bone = np.zeros(shape, np.float32)
    for piece in scene.pieces:
        draw_bone(bone, piece.parts, frame)
    texture = _smooth_field(_stream(scene.seed, _Stream.TEXTURE), shape, (360, 270))
    texture *= np.float32(film.texture)
    texture += 1
    bone *= texture
    if film.ring is not None:
        draw_bone(bone, [_ring(build, film.ring)], frame)
    if film.cast:
        draw_bone(soft, [_cast(build)], frame)

    soft *= np.float32(-film.soft)
    bone *= np.float32(-film.bone)
    soft += bone
    through = np.exp(soft, out=soft)
    exposed = np.subtract(1, through, out=through)
    if (marker := film.marker) is not None:
        place = picture.placed(Frame(marker.center, marker.size, marker.tilt))
        _add_marker(exposed, marker, place.zoomed(zoom))
    if zoom == 1:
        return exposed
    averaged: np.ndarray = exposed.reshape(size[0], zoom, size[1], zoom).mean(axis=(1, 3))
    return averaged


def _ring(build: Build, ray: int) -> Bone:
    (x1, y1), (x2, y2) = build.rays[ray][1], build.rays[ray][2]
    x, y = x1 + 0.4 * (x2 - x1), y1 + 0.4 * (y2 - y1)
    length = math.hypot(x2 - x1, y2 - y1)
    dx, dy = 0.115 * (y2 - y1) / length, -0.115 * (x2 - x1) / length
    return Bone(
        (x - dx, y - dy), (x + dx, y + dy), (0.028,) * 3, (0.5, 0.5), 0.05, 1.0, density=5.0
    )


def _cast(build: Build) -> Bone:
    arm = forearm_flesh(build)
    radius = 0.60 * build.girth
    return Bone(
        (0.05, 0.45), arm.end, (radius,) * 3, (0.2, 0.2), cortex=0.12, marrow=0.5, density=0.25
    )


def _developed(scene: _Scene, picture: _Picture, image: np.ndarray) -> np.ndarray:
    """Film and scanner: gamma, noise, blur, gain, plate, inversion; values 0..1."""
    from scipy.ndimage import gaussian_filter

    film = scene.film
    # Gamma goes before the noise, which is then without bias, whatever a size's noise is.
    np.power(image, np.float32(film.gamma), out=image)
    # Quanta are counted per area: a pixel of a large image catches few and is noisy.
    grain = _stream(scene.seed, _Stream.NOISE).standard_normal(image.shape, np.float32)
    grain *= np.float32(film.noise * picture.height / 512)
    grain *= 1 - np.float32(0.5) * image
    image += grain
    blur = film.blur * picture.height
    if blur > 0.2:
        image = gaussian_filter(image, blur, truncate=3.0)
    glow = _smooth_field(_stream(scene.seed, _Stream.GLOW), image.shape, (3, 3))
    glow *= np.float32(film.glow)
    glow += np.float32(0.5 * film.glow)
    image += glow
    image *= np.float32(film.contrast)
    image += np.float32(film.base)
    if film.plate is not None:
        _cover(image, film.plate, picture)
    if film.strip is not None:
        side, width = film.strip
        depth = max(1, round(width * picture.height))
        rows, columns = {
            "left": (slice(None), slice(depth)),
            "right": (slice(None), slice(-depth, None)),
            "top": (slice(depth), slice(None)),
            "bottom": (slice(-depth, None), slice(None)),
        }[side]
        image[rows, columns] = 0.97
    np.clip(image, 0, 1, out=image)
    return np.subtract(1, image, out=image) if film.inverted else image


def _add_marker(image: np.ndarray, marker: Marker, frame: Frame) -> None:
    """Lead letters, opaque, on a faint plate or on nothing."""
    if marker.backed:
        # A plastic plate: a faint bar wide enough for the letters.
        back = Bone((0.0, -2.6), (0.0, 3.0), (2.3,) * 3, (0.15, 0.15), 0.05, 1.0)
        layer = np.zeros_like(image)
        draw_bone(layer, [back], frame)
        image += np.float32(0.05) * np.clip(layer, 0, 1)
    lead = np.zeros_like(image)
    for rod in marker_lines(marker):
        draw_bone(lead, [rod], frame)
    # Opaque wherever there is lead, with one soft pixel at its edge.
    np.clip(lead * np.float32(6), 0, 1, out=lead)
    image += lead * (np.float32(marker.brightness) - image)


def _cover(image: np.ndarray, plate: Plate, picture: _Picture) -> None:
    """Blanks all that lies outside of the exposed rectangle."""
    height, width = image.shape
    x = ((np.arange(width, dtype=np.float32) + 0.5 - picture.left) / picture.height)[None, :]
    y = ((np.arange(height, dtype=np.float32) + 0.5 - picture.top) / picture.height)[:, None]
    edge = np.clip(inside(plate, x, y) * np.float32(picture.height) + 0.5, 0, 1).astype(np.float32)
    image -= plate.outside
    image *= edge
    image += plate.outside


def _smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]
) -> np.ndarray:
    """Smooth noise, the same at every size; (H, W) float32 with a deviation of about 0.5."""
    grid = rng.standard_normal(cells, np.float32)
    rows = _between(grid, shape[0])
    return np.ascontiguousarray(_between(rows.T, shape[1]).T)


def _between(values: np.ndarray, pixels: int) -> np.ndarray:
    """Values (cells, M) at the cells' centres, eased over to ``pixels`` rows (pixels, M)."""
    cells = len(values)
    place = (np.arange(pixels) + 0.5) * (cells / pixels) - 0.5
    lower = np.floor(place).astype(int)
    ease = (place - lower).astype(np.float32)
    ease = (ease * ease * (3 - 2 * ease))[:, None]
    first = values[np.clip(lower, 0, cells - 1)]
    second = values[np.clip(lower + 1, 0, cells - 1)]
    eased: np.ndarray = first + ease * (second - first)
    return eased


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    height, width = size
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return (
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    )


def _quantized(image: np.ndarray, bits: int) -> np.ndarray:
    top = (1 << bits) - 1
    levels: np.ndarray = image * np.float32(top) + np.float32(0.5)
    return levels.astype(np.uint8 if bits == 8 else np.uint16)
