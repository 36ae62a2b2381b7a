"""The configuration of a run: one typed tree, read from a preset, a file and overrides."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from boneage.errors import UserError

# All that can be found, in this order; a run finds the first few (`Localization.found`).
DISCRIMINATIVE = ("region1", "region2", "region3", "region4")
REGIONS = ("hand", *DISCRIMINATIVE)
# Those with a section of their own; the others have that of the last one.
SECTIONS = REGIONS[:3]

# The annotated regions that each found region may fall on. Which of the most discriminative
# regions is the carpals is a finding (the paper's order), so each is scored against both.
TRUTH = {"hand": ("Hand",)} | dict.fromkeys(DISCRIMINATIVE, ("Wrist", "Metacarpal"))

Region = Literal["whole", "hand", "region1", "region2", "region3", "region4", "erased"]
Loss = Literal["l1", "l2", "cross-entropy", "kl", "mean-variance", "crps", "expectation", "ldl"]
LOSSES: tuple[str, ...] = get_args(Loss)
# Losses of a network that tells one number; the others are of one that tells a distribution.
SCALAR_LOSSES = ("l1", "l2")
Fraction = Annotated[float, Field(gt=0, le=1)]
# It names a folder.
Name = Annotated[str, Field(pattern=r"^\w[\w+.-]*$")]
# As headers of tables are read: without blanks around.
Column = Annotated[str, StringConstraints(strip_whitespace=True)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A part of the configuration: unknown names are refused, values are checked."""

    # Defaults are validated too: a 50 that a float's default was written as is then 50.0, as it is
    # when read back from a file, and a stage's key does not depend on which of them it came from.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )


class PhantomData(Section):
    """The embedded data set, drawn when no folder of radiographs is given."""

    count: int = Field(1200, ge=20)
    size: tuple[int, int] = (512, 384)
    bits: Literal[8, 16] = 8
    variant: Literal["default", "swapped", "no-age", "shortcut"] = "default"
    boxed: float = Field(0.25, ge=0, le=1)
    seed: int = Field(0, ge=0)

    @field_validator("size")
    @classmethod
    def _size_is_drawable(cls, size: tuple[int, int]) -> tuple[int, int]:
        if not (128 <= max(size) <= 3000 and min(size) >= 64):
            raise ValueError("the longer side has 128 to 3000 pixels, the shorter at least 64")
        return size


class Split(Section):
    """Shares of the images without boxes; the rest trains. Boxed images never train."""

    validation: Fraction = 0.1
    test: Fraction = 0.15
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _some_train(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nothing to train on: give less than 1")
        return self


class BinRange(Section):
    """The ages that can be told, in months; both ends included."""

    first: float = 1
    last: float = 240
    step: Positive = 1

    @model_validator(mode="after")
    def _whole_steps(self) -> BinRange:
        steps = (self.last - self.first) / self.step
        if not (steps > 0.5 and math.isclose(steps, round(steps), rel_tol=1e-6)):
            raise ValueError("last is one or more whole steps above first")
        return self


class Table(Section):
    """How to read the data set's table of ages: as one of RSNA's, but for what is said here.

    `id`, `age` and `sex` name the columns that hold them. Ages in another unit than months are
    read as months, which all else is in. `covariates` are columns of numbers, which the age
    networks are told beside the sex; a cell of theirs may be empty.
    """

    id: Column | None = None
    age: Column | None = None
    sex: Column | None = None
    unit: Literal["days", "weeks", "months", "years"] | None = None
    covariates: tuple[Column, ...] = ()

    @model_validator(mode="after")
    def _columns_differ(self) -> Table:
        names = (self.id, self.age, self.sex, *self.covariates)
        named = [name for name in names if name is not None]
        if len(set(named)) < len(named):
            raise ValueError(f"each is a column of its own, got {', '.join(named)}")
        return self


class Schedule(Section):
    """How a network is trained.

    With `one_cycle` the rate rises to `learning_rate` and falls again over all epochs; otherwise
    it is constant in each phase, and `epochs` and `learning_rate` list the phases. Each step
    follows the gradient of `accumulate` batches, for batches that memory is too small for.
    """

    epochs: Annotated[tuple[Count, ...], Field(min_length=1)] = (5,)
    learning_rate: tuple[Positive, ...] = (1e-3,)
    one_cycle: bool = True
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = Field(0.05, ge=0)
    batch_size: int = Field(32, ge=2)
    accumulate: Count = 1

    @model_validator(mode="after")
    def _phases_match(self) -> Schedule:
        if len(self.epochs) != len(self.learning_rate):
            raise ValueError("epochs and learning_rate list the same phases: give as many of each")
        if self.one_cycle and len(self.epochs) != 1:
            raise ValueError("one_cycle has one phase: give one number of epochs and one rate")
        return self


class Augmentation(Section):
    """Random changes of the training images, drawn anew each time an image is seen."""

    rotation: float = Field(0, ge=0, le=180)
    shift: float = Field(0, ge=0, le=1)
    scale: float = Field(0, ge=0, lt=1)
    flip: bool = False
    intensity: float = Field(0, ge=0, lt=1)


class Backbone(Section):
    """A timm network; its feature map is taken at `stride` pixels a cell.

    The layers up to the feature map at `frozen` pixels a cell keep the weights they came with;
    their normalization follows the radiographs.
    """

    name: str = "tf_efficientnet_lite0"
    pretrained: bool = True
    stride: Literal[4, 8, 16, 32] = 32
    dilated: bool = False
    frozen: Literal[0, 2, 4, 8, 16] = 0

    @model_validator(mode="after")
    def _frozen_layers_know_something(self) -> Backbone:
        if self.frozen and not self.pretrained:
            raise ValueError("frozen layers would stay random: set pretrained, or frozen to 0")
        if self.frozen >= self.stride:
            raise ValueError("frozen is less than stride: the last layers have to learn")
        return self


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
        own = {"hand": self.hand, "region1": self.region1}.get(region, self.region2)
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


class Model(Section):
    """One age model: the regions it sees and the loss it is trained with.

    `erased` is the whole image with Region 1 erased. Regions are the input channels of one
    backbone, which are three; or, with `fusion` of `streams`, each goes through that backbone by
    itself, and the head reads the features of all.

    A `seed` of its own trains it anew from another start; without, it has the run's.
    """

    name: Name
    regions: Annotated[tuple[Region, ...], Field(min_length=1)]
    fusion: Literal["channels", "streams"] = "channels"
    loss: Loss = "ldl"
    seed: Seed | None = None

    @model_validator(mode="after")
    def _channels_are_three(self) -> Model:
        if self.fusion == "channels" and len(self.regions) > 3:
            raise ValueError(
                f"{len(self.regions)} regions: a backbone has 3 input channels; give at most as "
                "many, or fusion: streams"
            )
        return self


class Training(Section):
    """What all age models of a run share.

    `sex_layers` are the widths of the layers through which sex and covariates go. `sigma` is that
    of the labels of `ldl` and `kl` in months, `weight` that of the divergence in `ldl` (by default
    sigma); `mean_weight` and `variance_weight` are those of `mean-variance`, by default the
    published ones, which are for years.
    """

    size: int = Field(112, ge=32)
    backbone: Backbone = Backbone()
    head_channels: int = Field(256, ge=1)
    sex: bool = True
    sex_layers: tuple[Count, ...] = (32,)
    sigma: float = Field(15, gt=0)
    weight: float | None = Field(None, ge=0)
    mean_weight: float = Field(0.2 / 144, ge=0)
    variance_weight: float = Field(0.05 / 144, ge=0)
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    models: Annotated[tuple[Model, ...], Field(min_length=1)] = (
        Model(name="O-L1", regions=("whole",), loss="l1"),
        Model(name="O", regions=("whole",)),
        Model(name="H+R1+R2", regions=("hand", "region1", "region2")),
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Training:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"models: expected different names, got {names}")
        return self

    def sees(self, region: str) -> bool:
        """Whether any of the models sees that region."""
        return any(region in model.regions for model in self.models)


class Reading(Section):
    """How trained networks are asked for ages, and how what they say is corrected.

    With `mirror` an image is also shown as its mirror image, and once more for each of `rotations`
    in degrees; the answers are mixed. `ensembles` mix the answers of several models, by name.
    `temperature`, `bias` (a straight line) and `conformal` (90% intervals that hold 90%) are fitted
    on the validation images.
    """

    mirror: bool = False
    rotations: tuple[Annotated[float, Field(gt=-180, lt=180)], ...] = ()
    temperature: bool = False
    bias: bool = False
    conformal: bool = False
    ensembles: dict[Name, Annotated[tuple[str, ...], Field(min_length=2)]] = {}


class LossComparison(Section):
    """How `boneage losses` compares the losses.

    First on the features of one pretrained network that learns nothing: of images of `size`
    pixels, pooled to `grid` x `grid` cells. A small head is trained with every loss, at `trials`
    settings each. `sigmas` and `weights`, in multiples of sigma, are the grid on which the
    expectation loss is looked at closer. Then the losses in `whole`, L1 among them, train whole
    networks, as `training` says, but at the rate of `rates` that did best from the first seed.
    """

    size: int = Field(112, ge=32)
    backbone: Backbone = Backbone(stride=16)
    grid: Count = 4
    hidden: Count = 256
    dropout: float = Field(0.5, ge=0, lt=1)
    epochs: Count = 20
    batch_size: int = Field(128, ge=2)
    trials: Count = 16
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    sigmas: tuple[Positive, ...] = (4, 8, 15, 25)
    weights: tuple[Annotated[float, Field(ge=0)], ...] = (0.1, 0.3, 1, 3, 10, 100)
    whole: tuple[Loss, ...] = ()
    rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-3,)

    @model_validator(mode="after")
    def _others_stand_beside_l1(self) -> LossComparison:
        if self.whole and "l1" not in self.whole:
            raise ValueError("whole: name l1 too, since the others are compared with it")
        return self


class Experiments(Section):
    """What `boneage table` and `boneage figure` vary, each network trained from every seed.

    `backbones` are those of Table II, `sizes` those of Table IV, the first of which is also that of
    Tables II and III. `thresholds`, shares of a map's maximum, and `lambdas`, weights on the
    published scale, are those of Figure 5; `deltas` are standard deviations of the labels.
    """

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    backbones: Annotated[tuple[str, ...], Field(min_length=1)] = (
        *("vgg19", "inception_v3", "resnet50", "legacy_xception"),
    )
    sizes: Annotated[tuple[Annotated[int, Field(ge=32)], ...], Field(min_length=1)] = (
        *(224, 336, 448, 560, 720),
    )
    thresholds: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (
        *(0.051, 0.129, 0.145, 0.165, 0.18, 0.212),
    )
    lambdas: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        *(0, 0.001, 0.01, 0.05, 0.1, 0.5, 1, 5),
    )
    deltas: Annotated[tuple[Positive, ...], Field(min_length=1)] = (5, 10, 15, 20, 30)


class Hardware(Section):
    """What the networks train on, and the precision that they train in.

    `devices` of each of `num_nodes` machines train together, with a process each. A batch is that
    of all of them, so that they change the time that training takes, not what is trained.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Count = 1
    num_nodes: Count = 1
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"


class Config(Section):
    """Everything that decides what a run computes.

    Without a folder of `data` the phantom is drawn; without a phantom either, `data` must be given.
    """

    preset: str = "demo"
    data: Path | None = None
    phantom: PhantomData | None = PhantomData()
    table: Table = Table()
    split: Split = Split()
    bins: BinRange = BinRange()
    contrast: Literal["none", "percentile", "local"] = "percentile"
    localization: Localization = Localization()
    training: Training = Training()
    reading: Reading = Reading()
    comparison: LossComparison = LossComparison()
    experiments: Experiments = Experiments()
    hardware: Hardware = Hardware()
    bootstrap: int = Field(2000, ge=100)
    seed: Seed = 0

    @model_validator(mode="after")
    def _ensembles_have_members(self) -> Config:
        models = {model.name: model for model in self.training.models}
        for name, members in self.reading.ensembles.items():
            unknown = [member for member in members if member not in models]
            if name in models or unknown or len(set(members)) < len(members):
                raise ValueError(
                    f"reading.ensembles: {name} has a name of its own and mixes different ones of "
                    f"the models {', '.join(models)}"
                )
            if len({models[member].loss in SCALAR_LOSSES for member in members}) > 1:
                raise ValueError(f"reading.ensembles: {name} mixes single ages with distributions")
        return self

    @model_validator(mode="after")
    def _models_see_what_is_found(self) -> Config:
        plan = self.localization
        for model in self.training.models:
            unknown = [name for name in model.regions if name in REGIONS and name not in plan.found]
            if unknown:
                raise ValueError(
                    f"training.models: {model.name} sees {', '.join(unknown)}, but "
                    f"localization.regions is {plan.regions}"
                )
        return self

    @model_validator(mode="after")
    def _processes_share_batches(self) -> Config:
        count = self.hardware.devices * self.hardware.num_nodes
        plan = self.localization
        networks = {f"localization.{name}": plan.localizer(name) for name in plan.found}
        for name, own in (networks | {"training": self.training}).items():
            size = own.schedule.batch_size
            if count > 1 and (size % count or size < 2 * count):
                raise ValueError(
                    f"{name}.schedule.batch_size: {count} processes (hardware.devices x num_nodes) "
                    f"share a batch, two images each at least: expected a multiple of {count} from "
                    f"{2 * count} on, got {size}"
                )
        return self

    def members(self, name: str) -> tuple[Model, ...]:
        """The models whose answers are mixed under that name: an ensemble's, or one alone."""
        models = {model.name: model for model in self.training.models}
        return tuple(models[member] for member in self.reading.ensembles.get(name, (name,)))

    def for_model(self, model: Model) -> Config:
        """The same with the model's own seed, if it has one."""
        return self if model.seed is None else self.model_copy(update={"seed": model.seed})

    def changed(self, changes: Mapping[str, Any]) -> Config:
        """The same with other values, by their dotted names."""
        tree = self.model_dump()
        for name, value in changes.items():
            tree = _replaced(tree, name.split("."), value, name, {})
        return Config.model_validate(tree)

    def digest(self, *names: str) -> str:
        """Fingerprint of the named sections."""
        tree = self.model_dump(mode="json")
        parts = {name: tree[name] for name in names}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    files = (resources.files("boneage") / "presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_config(preset: str = "demo", overrides: list[str] | None = None) -> Config:
    """Read a preset (a name, or a YAML file's path) and apply `section.name=value` overrides.

    Raises:
        UserError: If the preset does not exist, a name is unknown, or a value does not fit.
    """
    tree, defaults = _read_preset(preset), Config().model_dump(mode="json")
    for override in overrides or []:
        path, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r}: expected section.name=value")
        value = _parse_yaml(text, f"override {override!r}")
        tree = _replaced(tree, path.strip().split("."), value, override, defaults)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error, preset)) from None


def _read_preset(preset: str) -> dict[str, Any]:
    if preset in presets():
        text = (resources.files("boneage") / "presets" / f"{preset}.yaml").read_text("utf-8")
    else:
        try:
            text = Path(preset).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(
                f"preset {preset!r}: no such preset or file; the presets are {', '.join(presets())}"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"preset {preset!r}: cannot be read ({error})") from None
    tree = _parse_yaml(text, f"preset {preset}")
    if not isinstance(tree, dict | None):
        raise UserError(f"preset {preset}: expected sections, got {type(tree).__name__}")
    return {"preset": Path(preset).stem} | (tree or {})


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not readable as YAML: {error}") from None


def _replaced(
    tree: Any, path: list[str], value: Any, override: str, defaults: dict[str, Any]
) -> dict[str, Any]:
    """The tree with one value replaced; a section that it lacks begins with its defaults.

    The given tree stays as it is: sections that share an anchor of the YAML are one object in it.
    """
    name, *rest = path
    if not isinstance(tree, dict):
        raise UserError(f"override {override!r}: there is no section around {name}")
    if not rest:
        return {**tree, name: value}
    known = defaults.get(name)
    known = known if isinstance(known, dict) else {}
    return {**tree, name: _replaced(tree.get(name, known), rest, value, override, known)}


def _explain(error: ValidationError, preset: str) -> str:
    lines = [
        f"  {'.'.join(map(str, item['loc'])) or 'config'}: {_reason(item)}"
        for item in error.errors()
    ]
    return "\n".join([f"configuration (preset {preset}) does not fit:", *lines])


def _reason(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "no setting has this name"
    return f"{item['msg'].removeprefix('Value error, ')} (got {item['input']!r:.80})"
