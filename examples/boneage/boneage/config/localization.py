"""The section of the attention networks, and which regions they find in which order."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from boneage.config.networks import Augmentation, Backbone, Schedule
from boneage.config.section import Fraction, Section

# All that can be found, in this order; a run finds the first few (`Localization.found`).
DISCRIMINATIVE = ("region1", "region2", "region3", "region4")
REGIONS = ("hand", *DISCRIMINATIVE)
# Those with a section of their own; the others have that of the last one.
SECTIONS = REGIONS[:3]

# The annotated regions that each found region may fall on. Which of the most discriminative
# regions is the carpals is a finding (the paper's order), so each is scored against both.
TRUTH = {"hand": ("Hand",)} | dict.fromkeys(DISCRIMINATIVE, ("Wrist", "Metacarpal"))


class Localizer(Section):
    """One attention network: what it sees, how it pools, what it is trained for, how it is asked.

    With a `size` of a multiple of the backbone's stride and one pixel, a heat map lies where the
    network looked; with another it may be off by up to half a cell.
    Its threshold is chosen on annotated boxes where there are any, unless `choose` is false.
    Its `heatmap` is the class activation map, or the evidence map, which sums to the score. Under
    max pooling evidence lies in single cells: `smoothing` spreads it, and is the standard
    deviation of a Gaussian in cells.
    """

    size: int = Field(ge=32)
    pool: Literal["avg", "max"]
    backbone: Backbone = Backbone()
    loss: Literal["kl", "l1"] = "kl"
    label_width: float = Field(50, gt=0)
    heatmap: Literal["activation", "evidence"] = "activation"
    smoothing: float = Field(0, ge=0, le=10)
    threshold: Fraction = 0.2
    choose: bool = True
    margin: float = Field(0, ge=0)
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()


# What of a localizer does not matter to its training, only to the regions that it finds.
ASKED = ("heatmap", "smoothing", "threshold", "choose", "margin")


class Localization(Section):
    """The attention networks, of the hand and of `regions` discriminative regions one by one.

    Each of these sees those before it erased, and is looked for outside of them; from the third on
    they have region2's section.
    They are erased from the `images`, on which a network of its own is trained; or region1 from
    the `features` of its network, where its map reaches `erased_from` of its maximum: a second
    classifier learns from the rest, and of region2's section only counts how it is asked.
    With `sex` the networks are told it, so that what is left to read in the image is the age.
    With `warm_start` each backbone begins with what the one before it has learned.
    `window` averages the maps of the neighbouring ages; `mirror` averages the features of each
    image with those of its mirror image, which steadies the map's outline.
    """

    hand: Localizer = Localizer(size=129, pool="avg")
    region1: Localizer = Localizer(size=193, pool="max")
    region2: Localizer = Localizer(size=193, pool="max")
    regions: int = Field(2, ge=2, le=len(DISCRIMINATIVE))
    erasing: Literal["images", "features"] = "images"
    erased_from: Fraction = 0.6
    sex: bool = True
    warm_start: bool = False
    window: int = Field(5, ge=0)
    mirror: bool = True
    component: Literal["largest", "peak"] = "largest"
    thresholds: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (
        *(0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.22, 0.25),
        *(0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    )

    def localizer(self, region: str) -> Localizer:
        """The section of a region, whose network may be that of another."""
        place = min(REGIONS.index(region), len(SECTIONS) - 1)
        own: Localizer = getattr(self, SECTIONS[place])
        if not self.second(region):
            return own
        return self.region1.model_copy(update={name: getattr(own, name) for name in ASKED})

    @property
    def found(self) -> tuple[str, ...]:
        """The regions that a run finds, in the order in which their networks train."""
        return REGIONS[: 1 + self.regions]

    def localizers(self) -> tuple[Localizer, ...]:
        """The sections of all regions, in that order."""
        return tuple(self.localizer(region) for region in self.found)

    def second(self, region: str) -> bool:
        """Whether the second classifier of the network of the region before finds it."""
        return region == "region2" and self.erasing == "features"

    def erased_for(self, region: str) -> tuple[str, ...]:
        """The regions that are erased from the images which its network sees."""
        return found_before(region) if self.erasing == "images" else ()

    @model_validator(mode="after")
    def _features_are_of_two(self) -> Localization:
        if self.erasing == "features" and self.regions > 2:
            raise ValueError(
                f"erasing: features finds two regions with one network; expected regions: 2, got "
                f"{self.regions}"
            )
        return self

    @model_validator(mode="after")
    def _backbones_hand_over(self) -> Localization:
        backbones = {
            (own.backbone.name, own.backbone.stride, own.backbone.dilated)
            for own in self.localizers()
        }
        if self.warm_start and len(backbones) > 1:
            raise ValueError("warm_start hands weights on: give all regions the same backbone")
        return self


def found_before(region: str) -> tuple[str, ...]:
    """The discriminative regions outside of which one is looked for: those found before it."""
    return REGIONS[1 : REGIONS.index(region)]
