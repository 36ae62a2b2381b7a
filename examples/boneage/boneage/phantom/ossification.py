"""When each centre of the hand appears, when it fuses, and how far it has grown in between.

Ages are months, boys then girls. The onsets are the medians of Garn, Rohmann and Silverman
(1967), "Radiographic standards for postnatal ossification and tooth calcification". Where the
source's figures were at hand as a range over the rays only, the rays are spread over that range
in the order in which they appear (3, 4, 2, 5), and the thumb is put beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

BOTH_SEXES = tuple[float, float]

ONSET: Mapping[str, BOTH_SEXES] = MappingProxyType(
    {
        "capitate": (3, 2),
        "hamate": (4, 2),
        "triquetrum": (29, 20),
        "lunate": (49, 31),
        "scaphoid": (68, 49),
        "trapezium": (70, 49),
        "trapezoid": (75, 50),
        "pisiform": (132, 114),
        "sesamoid": (153, 129),
        "radius": (13, 10),
        "ulna": (85, 64),
        "metacarpal-1": (31, 19),
        "metacarpal-2": (19, 13),
        "metacarpal-3": (21, 14),
        "metacarpal-4": (24, 15),
        "metacarpal-5": (26, 16),
        "proximal-1": (32, 20),
        "proximal-2": (18, 11),
        "proximal-3": (16, 10),
        "proximal-4": (17, 11),
        "proximal-5": (21, 14),
        "middle-2": (30, 18),
        "middle-3": (24, 15),
        "middle-4": (26, 16),
        "middle-5": (41, 24),
        "distal-1": (20, 13),
        "distal-2": (36, 26),
        "distal-3": (29, 18),
        "distal-4": (30, 19),
        "distal-5": (39, 30),
    }
)
"""Age at which a centre appears, months: (boys, girls)."""

FUSION: Mapping[str, BOTH_SEXES] = MappingProxyType(
    {
        "distal": (186, 160),
        "middle": (198, 176),
        "proximal": (198, 176),
        "metacarpal": (198, 176),
        "ulna": (206, 190),
        "radius": (216, 198),
    }
)
"""Age at which an epiphysis has fused with its shaft, months: (boys, girls)."""

CARPALS_FULL: BOTH_SEXES = (192, 168)
"""Age at which the round bones have their full size, months: (boys, girls)."""

GROWN_UP = 228.0


def onset(centre: str, male: bool) -> float:
    """Age at which a centre appears, in months.

    Example:
        >>> onset("pisiform", male=False)
        114
    """
    return ONSET[centre][0 if male else 1]


def fusion(bone: str, male: bool) -> float:
    """Age at which a bone's epiphysis has fused, in months (``bone`` may name its ray).

    Example:
        >>> fusion("metacarpal-3", male=True)
        198
    """
    return FUSION[bone.split("-")[0]][0 if male else 1]


def growth(age: float, start: float, end: float) -> float:
    """Share of the way from ``start`` to ``end``, 0..1 (all ages in months)."""
    return float(np.clip((age - start) / (end - start), 0.0, 1.0))
