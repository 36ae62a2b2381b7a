"""The configuration of a run: one typed tree, read from a preset, a file and overrides."""

from boneage.config.data import SHORTEST, BinRange, PhantomData, Split, Table
from boneage.config.experiments import Experiments, LossComparison
from boneage.config.load import load_config, presets
from boneage.config.localization import (
    ASKED,
    DISCRIMINATIVE,
    REGIONS,
    SECTIONS,
    TRUTH,
    Localization,
    Localizer,
    found_before,
)
from boneage.config.networks import Augmentation, Backbone, Hardware, Schedule
from boneage.config.reading import Reading
from boneage.config.training import LOSSES, SCALAR_LOSSES, Fusion, Loss, Model, Region, Training
from boneage.config.tree import Config

__all__ = [
    "ASKED",
    "DISCRIMINATIVE",
    "LOSSES",
    "REGIONS",
    "SCALAR_LOSSES",
    "SECTIONS",
    "SHORTEST",
    "TRUTH",
    "Augmentation",
    "Backbone",
    "BinRange",
    "Config",
    "Experiments",
    "Fusion",
    "Hardware",
    "Localization",
    "Localizer",
    "Loss",
    "LossComparison",
    "Model",
    "PhantomData",
    "Reading",
    "Region",
    "Schedule",
    "Split",
    "Table",
    "Training",
    "found_before",
    "load_config",
    "presets",
]
