"""What the page says of an image: its reading, or why there is none, as HTML that stands alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ldlcam import LabelDistribution

from boneage.config import REGIONS
from boneage.model_folder import TrainedModel
from boneage.readings import Reading
from boneage.report.drawing import Ink, Picture, draw, whole_numbers
from boneage.report.environment import templates
from boneage.report.pictures import grey_picture
from boneage.report.wording import FOUND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST = 900
_CROPS = {"whole": "Whole image", **FOUND, "erased": "Without Region 1"}
_FLAGS = {
    **{
        f"no-{region}": f"{FOUND[region]} was not found: the whole image was taken in its place."
        for region in REGIONS
    },
    "sex-unknown": "The sex is not known: the reading mixes that of a boy and that of a girl. "
    "Choose the sex if you know it.",
    "right-hand": "A right hand: the networks saw it turned about, to look like a left one. "
    "The radiograph below is as it lies in its file.",
}


class _Region(NamedTuple):
    """A found region: the corner and the size of its box, in pixels of the radiograph."""

    key: str
    name: str
    x: float
    y: float
    width: float
    height: float


def show_head() -> str:
    """What the page is, and what it is not for."""
    return _render("head.html")


def show_about(model: TrainedModel) -> str:
    """Which model reads, and what becomes of the images."""
    bins = model.config.bins
    return _render(
        "about.html",
        name=model.name,
        first=years_and_months(bins.first),
        last=years_and_months(bins.last),
        covariates=", ".join(model.config.table.covariates),
    )


def show_nothing() -> str:
    """What stands in the place of a reading before there is one."""
    return _render("nothing.html")


def show_problem(message: str) -> str:
    """Why an image has no reading."""
    return _render("problem.html", message=message)


def show_reading(reading: Reading, *, sex_chosen: bool) -> str:
    """A reading, with all its pictures.

    Args:
        reading: The reading.
        sex_chosen: Whether its sex was chosen on the page, rather than told by the image's file.
    """
    film, distribution = reading.film, reading.distribution
    height, width = film.pixels.shape
    interval = [] if math.isnan(reading.low) else [reading.low, reading.high]
    return _render(
        "reading.html",
        age=years_and_months(reading.months),
        months=reading.months,
        interval=interval,
        interval_in_words=[years_and_months(end) for end in interval],
        sd=reading.sd,
        sex=_sex(film.male, sex_chosen),
        flags=[_FLAGS[flag] for flag in reading.flags],
        figure=None if distribution is None else _figure(reading, distribution),
        radiograph=_radiograph(reading),
        width=width,
        height=height,
        regions=_found(reading),
        missing=[FOUND[region] for region, found in reading.found.items() if not found],
        crops=[(key, _CROPS[key], grey_picture(crop)) for key, crop in reading.crops.items()],
        size=len(next(iter(reading.crops.values()))),
    )


def years_and_months(months: float) -> str:
    """An age in words, to the whole month."""
    years, rest = divmod(round(months), 12)
    counts = ((years, "year"), (rest, "month"))
    words = [f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in counts if count]
    return " ".join(words) or "0 months"


def _sex(male: bool | None, chosen: bool) -> str:
    if male is None:
        return "unknown"
    return f"{'male' if male else 'female'}, {'as chosen' if chosen else 'as the file says'}"


def _radiograph(reading: Reading) -> str:
    """The image as it lies in its file, with the contrast that the networks saw."""
    pixels = np.round(reading.film.pixels * 255).astype(np.uint8)
    return grey_picture(pixels[:, ::-1] if reading.film.mirrored else pixels, _LONGEST)


def _found(reading: Reading) -> list[_Region]:
    regions = []
    for region, found in reading.found.items():
        if found:
            x1, y1, x2, y2 = (round(corner, 1) for corner in reading.boxes[region])
            regions.append(_Region(region, FOUND[region], x1, y1, x2 - x1, y2 - y1))
    return regions


def _figure(reading: Reading, distribution: LabelDistribution) -> Picture:
    return draw(
        lambda axes, ink: plot_distribution(axes, ink, reading, distribution),
        f"Distribution over the ages: mean {reading.months:.0f} months, 90% interval "
        f"{reading.low:.0f} to {reading.high:.0f} months.",
    )


def plot_distribution(
    axes: Axes, ink: Ink, reading: Reading, distribution: LabelDistribution
) -> None:
    """Draw a reading's distribution in years, with its 90% interval shaded and its age marked."""
    ages = (distribution.bins.centers / 12).numpy()
    probabilities = distribution.probs.numpy()
    low, age, high = (months / 12 for months in (reading.low, reading.months, reading.high))
    axes.plot(ages, probabilities, color=ink.hand, linewidth=1.6)
    inside = (ages >= low) & (ages <= high)
    axes.fill_between(ages, probabilities, where=inside, color=ink.hand, alpha=0.35, lw=0)
    for end in (low, high):
        axes.axvline(end, color=ink.hand, linewidth=1, linestyle="--")
    axes.axvline(age, color=ink.text, linewidth=1.4)
    axes.set(xlabel="age (years)", ylabel="probability", xlim=(ages[0], ages[-1]))
    axes.set_ylim(bottom=0)
    whole_numbers(axes)


def _render(template: str, **words: object) -> str:
    environment = templates("boneage.app", autoescape=True)
    return environment.get_template(template).render(words)
