"""Figures and findings in words: how the page and the console say what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from boneage.config import DISCRIMINATIVE

if TYPE_CHECKING:
    from boneage.config import Model, Reading

FOUND = {"hand": "Hand"} | {name: f"Region {name[-1]}" for name in DISCRIMINATIVE}
ANNOTATED = {"Hand": "hand", "Wrist": "wrist (carpals)", "Metacarpal": "metacarpals"}
PARTS = {
    "train": "to train",
    "validation": "to validate",
    "test": "to test",
    "boxes-choose": "with boxes to choose thresholds by",
    "boxes-score": "with boxes to score regions by",
}
GROUPS = {"all": "all", "male": "boys", "female": "girls"}
NOTHING = "—"

_SEEN = {
    **FOUND,
    "whole": "whole image",
    "hand": "hand",
    "erased": "whole image without Region 1",
}
_LOSSES = {
    "l1": "L1",
    "l2": "L2",
    "cross-entropy": "cross-entropy",
    "kl": "divergence from a label distribution",
    "mean-variance": "mean-variance",
    "crps": "CRPS",
    "expectation": "expectation",
    "ldl": "expectation and label distribution",
}

_SUBJECT = {**FOUND, "hand": "The hand region"}

# Mean IoU from which on a found region is said to lie on an annotated one, or partly on it.
_ON, _PARTLY = 0.5, 0.25


def number(value: float | None, digits: int = 1) -> str:
    """A figure with so many decimals; a dash for one that is missing."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float, digits: int = 1) -> str:
    """A figure with its sign, as of errors."""
    text = number(value, digits)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"


def percent(share: float | None) -> str:
    """A share from 0 to 1 in whole percent."""
    return NOTHING if share is None or not math.isfinite(share) else f"{100 * share:.0f}%"


def interval(bounds: Sequence[float] | None, digits: int = 1) -> str:
    """An interval's two ends."""
    if bounds is None or not all(math.isfinite(bound) for bound in bounds):
        return NOTHING
    low, high = bounds
    return f"{number(low, digits)} to {number(high, digits)}"


def age(months: float) -> str:
    """An age in months, and in years and months as radiologists write it."""
    years, rest = divmod(round(months), 12)
    short = f"{years} y {rest} m".replace(" ", "\N{NO-BREAK SPACE}")
    return f"{months:g} months ({short})"


def sex(male: bool) -> str:
    """A child of that sex."""
    return "boy" if male else "girl"


def division(parts: Mapping[str, int]) -> str:
    """How the images of a data set are divided among their uses."""
    return ", ".join(f"{parts[part]} {use}" for part, use in PARTS.items() if part in parts)


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds, as coarse as they are long."""
    if seconds < 1:
        return "under 1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def what_it_is(members: Sequence[Model]) -> str:
    """What a model sees and learned by, or which models' answers are mixed."""
    if len(members) > 1:
        return f"{', '.join(member.name for member in members)}, mixed"
    (model,) = members
    seen = ", ".join(_SEEN[region] for region in model.regions)
    seed = "" if model.seed is None else f"; seed {model.seed}"
    return f"{seen}; loss: {_LOSSES[model.loss]}{seed}"


def correction(reading: Reading) -> str:
    """What was fitted to correct the distributions."""
    fitted = {
        "their width by a temperature": reading.temperature,
        "their place by a straight line": reading.bias,
    }
    asked = [what for what, wanted in fitted.items() if wanted]
    if not asked:
        return "The distributions are as the networks give them: no correction was fitted."
    return f"The distributions were corrected on the validation images: {' and '.join(asked)}."


def origin(reading: Reading) -> str:
    """Where the 90% intervals come from."""
    if reading.conformal:
        return (
            "The 90% intervals are conformal: widened or narrowed by one margin for all images, "
            "such that 90% of the validation images' ages lie inside. The same images chose when "
            "training was best, so of others the intervals may hold a little less."
        )
    return (
        "The 90% intervals are those of the distributions, which leave out 5% of the probability "
        "at either end; no conformal margin was fitted."
    )


def landing(region: str, scores: Mapping[str, Any]) -> str:
    """Where a found region fell, judged by its overlap with the annotated regions.

    Args:
        region: The found region.
        scores: Its entry of the metrics' `localization`.
    """
    name, against = _SUBJECT[region], scores["against"]
    if not against:
        return f"{name}: no annotated boxes to tell where it fell."
    best = max(against, key=lambda other: against[other]["mean_iou"])
    overlap = against[best]["mean_iou"]
    if overlap >= _ON:
        verdict = f"{name} fell on the {ANNOTATED[best]}"
    elif overlap >= _PARTLY:
        verdict = f"{name} fell partly on the {ANNOTATED[best]}"
    elif len(against) == 1:
        verdict = f"{name} does not match the {ANNOTATED[best]}"
    else:
        verdict = f"{name} matches none of the annotated regions"
    listed = ", ".join(
        f"{number(pair['mean_iou'], 2)} with the {ANNOTATED[other]}"
        for other, pair in against.items()
    )
    return f"{verdict}: mean IoU {listed}{_below_control(against[best])}."


def _below_control(pair: Mapping[str, Any]) -> str:
    """What has to be added where a box that was learned from nothing does as well."""
    control = (pair["control"] or {}).get("mean_iou", -math.inf)
    if control < pair["mean_iou"]:
        return ""
    return f"; one fixed box for all images does no worse, with {number(control, 2)}"


def centres(region: str, shares: Mapping[str, float]) -> str:
    """In which annotated boxes the centres of a found region lie, and how often."""
    if not shares:
        return f"{FOUND[region]} was not found in any of them."
    words = {
        **{name: f"in the {text}" for name, text in ANNOTATED.items()},
        "elsewhere": "elsewhere",
    }
    places = ", ".join(f"{percent(share)} {words[name]}" for name, share in shares.items())
    return f"{FOUND[region]}: {places}."


def comparison(first: str, second: str, paired: Mapping[str, Any]) -> str:
    """What a paired difference of two models means."""
    gain = paired["gain"]
    better, worse = (second, first) if gain >= 0 else (first, second)
    less = number(abs(gain), 2)
    if paired["excludes_zero"]:
        return (
            f"{better} is nearer the truth than {worse}, by {less} months on average; "
            "other test images of the same kind would hardly turn this round."
        )
    low, high = paired["interval"]
    why = "the interval holds 0" if low <= 0 <= high else "they are few"
    return (
        f"{better} is ahead of {worse} by {less} months on these images, but {why}: "
        "which of the two is better cannot be told from them."
    )
