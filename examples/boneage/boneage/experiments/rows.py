"""What the paper's tables compare: a network for each row, and the error that was published."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from boneage.config import SHORTEST, Config, Fusion, Loss, Model, Region
from boneage.errors import UserError
from boneage.phantom import VARIANTS

_LETTERS: dict[Region, str] = {
    "whole": "O",
    "hand": "H",
    "region1": "R1",
    "region2": "R2",
    "region3": "R3",
    "region4": "R4",
    "erased": "E",
}
_REGIONS = {letter: region for region, letter in _LETTERS.items()}
# Region 2 by erasing features, from the training that finds Region 1; it finds no more than two.
ONE_NETWORK = {"localization.erasing": "features", "localization.regions": 2}
# One more region than the paper's, with the first two erased.
THREE_REGIONS = {"localization.erasing": "images", "localization.regions": 3}
_LOSSES: dict[Loss, str] = {"l1": "L1", "ldl": "expectation loss"}


@dataclass(frozen=True)
class Row:
    """One row of a table: a network, or an ensemble of several, trained from every seed.

    Attributes:
        label: What stands in the table.
        published: The paper's mean absolute error in months, where it has one.
        regions: What the network sees.
        loss: What it is trained with.
        changes: Values of the configuration that are its own, by their dotted names.
        others: What the other networks of an ensemble see.
        fusion: How the regions go through the backbone.
        at: Where the row lies on the axis of a figure.
        series: Which line of a figure it belongs to, or which column of a table.
        varies: The label of a row before it, in its series, of which it is a variation.
    """

    label: str
    published: float | None = None
    regions: tuple[Region, ...] = ("whole",)
    loss: Loss = "l1"
    changes: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[tuple[Region, ...], ...] = ()
    fusion: Fusion = "channels"
    at: float | None = None
    series: str = ""
    varies: str = ""

    def models(self, seed: int) -> tuple[Model, ...]:
        """The networks from one seed, named after what they see and learn."""
        way = "" if self.fusion == "channels" else f"{self.fusion}-"
        return tuple(
            Model(
                name=f"{_letters(seen)}-{way}{self.loss}-{seed}",
                regions=seen,
                fusion=self.fusion,
                loss=self.loss,
                seed=seed,
            )
            for seen in (self.regions, *self.others)
        )

    def config(self, base: Config, seed: int) -> Config:
        """A run's configuration with the row's own values, and these networks alone."""
        models = self.models(seed)
        names = [model.name for model in models]
        ensembles = {f"ensemble-{self.loss}-{seed}": names} if self.others else {}
        trained = [model.model_dump() for model in models]
        own = {"training.models": trained, "reading.ensembles": ensembles}
        return base.changed({**self.changes, **own})


@dataclass(frozen=True)
class Experiment:
    """A table, or a figure that is drawn from one.

    Attributes:
        name: What it is asked for by.
        title: What it shows.
        rows: What is trained.
        axis: What lies on the horizontal axis of its figure; by default the rows themselves.
        chooses: Whether the page names the row that the validation images find best.
        said: What the paper has of rows that are not here, or says of them.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    axis: str = ""
    chooses: bool = False
    said: str = ""


def _table2(config: Config) -> Experiment:
    """Backbones, without sex, from random weights and from those of ImageNet."""
    published = {
        "vgg19": (12.2, 9.3),
        "inception_v3": (10.9, 9.2),
        "resnet50": (11.3, 9.3),
        "legacy_xception": (9.9, 8.8),
    }
    size = config.experiments.sizes[0]
    rows = [
        Row(
            name,
            published.get(name, (None, None))[pretrained],
            changes={
                "training.size": size,
                "training.sex": False,
                "training.backbone.name": name,
                "training.backbone.pretrained": bool(pretrained),
                # Layers that know nothing cannot stay as they are.
                **({} if pretrained else {"training.backbone.frozen": 0}),
            },
            series="pretrained" if pretrained else "from random weights",
        )
        for name in config.experiments.backbones
        for pretrained in (0, 1)
    ]
    others = [
        f"{name} {random}, pretrained {pretrained}"
        for name, (random, pretrained) in published.items()
        if name not in config.experiments.backbones
    ]
    return Experiment("table-2", "Table II: backbones", tuple(rows), said=_has(others))


def _table3(config: Config) -> Experiment:
    """How the network is told the sex."""
    published = {(): 8.8, (16,): 7.9, (32,): 7.8, (64,): 7.8, (64, 32): 8.0}
    size = config.experiments.sizes[0]
    rows = [
        Row(
            "not told" if not layers else " \u2192 ".join(map(str, (1, *layers))),
            error,
            changes={
                "training.size": size,
                "training.sex": bool(layers),
                **({"training.sex_layers": layers} if layers else {}),
            },
        )
        for layers, error in published.items()
    ]
    return Experiment("table-3", "Table III: how the sex is told", tuple(rows))


def _table4(config: Config) -> Experiment:
    """Sizes of the whole image."""
    published = {224: 7.8, 336: 7.6, 448: 7.4, 560: 7.3, 720: 7.3}
    rows = [
        Row(f"{size} px", published.get(size), changes={"training.size": size}, at=size)
        for size in config.experiments.sizes
    ]
    sizes = config.experiments.sizes
    others = [f"{size} px {error}" for size, error in published.items() if size not in sizes]
    title = "Table IV: size of the image"
    return Experiment("table-4", title, tuple(rows), "size (pixels)", said=_has(others))


def _has(others: list[str]) -> str:
    """What the paper has of rows that are not here, in words."""
    return f"The paper has {'; '.join(others)}." if others else ""


def _table5(config: Config) -> Experiment:
    """Regions, alone and together, by either loss."""
    published = {
        "O": (7.3, 6.2),
        "H": (6.4, 5.6),
        "R1": (6.1, 5.3),
        "R2": (7.0, 6.2),
        "H+R1": (5.4, 4.8),
        "R1+R2": (5.6, 5.1),
        "O+H+R1": (5.4, 4.7),
        "H+R1+E": (4.7, 4.3),
        "H+R1+R2": (4.8, 4.3),
    }
    rows = [
        Row(letters, error, _seen(letters), loss, series=series)
        for letters, errors in published.items()
        for error, (loss, series) in zip(errors, _LOSSES.items(), strict=True)
    ]
    used = f"The expectation loss has a lambda of {_lambda(config):.2g} in Eq. 12, as it is printed"
    return Experiment(
        "table-5",
        "Table V: regions and losses",
        (*rows, *_past_the_paper()),
        said=f"{used}; the paper finds 0.1 to 1 best.",
    )


def _lambda(config: Config) -> float:
    """The weight of the divergence as Eq. 12 has it, with Eq. 11's labels as they are printed."""
    own = config.training
    return (own.sigma if own.weight is None else own.weight) / math.sqrt(own.sigma)


def _past_the_paper() -> Iterator[Row]:
    """The last network of Table V, its regions and answers in other ways, and an ensemble."""
    best = _seen("H+R1+R2")
    ways = {
        "mirror image too": {"reading.mirror": True},
        "bias line": {"reading.bias": True},
        "temperature": {"reading.temperature": True},
        "conformal": {"reading.conformal": True},
    }
    for loss, series in _LOSSES.items():
        rows = [
            Row(f"H+R1+R2, {way}", None, best, loss, changes)
            for way, changes in ways.items()
            if loss != "l1" or way != "temperature"
        ]
        others = (_seen("O"), _seen("H"), _seen("R1"))
        streams = _as_streams("H+R1+R2", loss)
        rows += [
            Row("O, H, R1 and H+R1+R2 mixed", None, best, loss, {}, others),
            streams,
            _as_streams("O+H+R1+R2", loss),
            _as_streams("H+R1+R2+R3", loss, changes=THREE_REGIONS, varies=streams.label),
            Row("H+R1+R2, both from one network", None, best, loss, ONE_NETWORK),
        ]
        for row in rows:
            yield replace(row, series=series, varies=row.varies or "H+R1+R2")


def _figure5a(config: Config) -> Experiment:
    """The threshold of the heat map, for the hand and Region 1 alone."""
    rows = [
        Row(
            f"{letters} at {threshold:g}",
            None,
            _seen(letters),
            "ldl",
            {
                f"localization.{_REGIONS[letters]}.choose": False,
                f"localization.{_REGIONS[letters]}.threshold": threshold,
            },
            at=threshold,
            series=letters,
        )
        for letters in ("H", "R1")
        for threshold in config.experiments.thresholds
    ]
    return Experiment(
        "figure-5a",
        "Figure 5a: the threshold of the heat map",
        tuple(rows),
        "threshold (share of the map's maximum)",
        said="The paper finds 0.051 to 0.145 best for the hand (its tau of 20 to 40), and 0.145 to "
        "0.18 for Region 1 (40 to 60).",
    )


def _figure5b(config: Config) -> Experiment:
    """The weight of the divergence, for the hand and Region 1 alone."""
    # As Eq. 11 is printed, labels sum to the square root of sigma.
    scale = math.sqrt(config.training.sigma)
    rows = [
        Row(
            f"{letters}, lambda {weight:g}",
            None,
            _seen(letters),
            "ldl",
            {"training.weight": weight * scale},
            at=weight,
            series=letters,
        )
        for letters in ("H", "R1")
        for weight in config.experiments.lambdas
    ]
    return Experiment(
        "figure-5b",
        "Figure 5b: the weight of the divergence",
        tuple(rows),
        "lambda of Eq. 12",
        said="The paper finds 0.1 to 1 best, and 0 still ahead of L1.",
    )


def _delta(config: Config) -> Experiment:
    """The standard deviation of the labels, for the whole image, at one lambda of Eq. 12."""

    def changes(sigma: float) -> dict[str, Any]:
        if sigma == config.training.sigma:
            return {}
        return {"training.sigma": sigma, "training.weight": _lambda(config) * math.sqrt(sigma)}

    rows = [
        Row(f"delta {sigma:g}", None, ("whole",), "ldl", changes(sigma), at=sigma)
        for sigma in config.experiments.deltas
    ]
    return Experiment(
        "claim-delta",
        "The standard deviation of the labels",
        tuple(rows),
        "delta of Eq. 11 (months)",
        said="The paper finds the error not sensitive to it, and takes 15.",
    )


def _crops(config: Config) -> Experiment:
    """The whole image beside regions of it, all at one size and by one loss.

    Where the images are drawn, first as small as a network sees them: their regions come no closer
    in crops of such originals than by being enlarged.
    """
    rows = [
        Row(letters, None, _seen(letters), "ldl", changes, series=series)
        for series, changes in _originals(config).items()
        for letters in ("O", "H", "R1", "H+R1", "H+R1+R2")
    ]
    return Experiment("claim-crops", "What crops of the original carry", tuple(rows))


def _originals(config: Config) -> dict[str, dict[str, Any]]:
    """What is changed for each kind of original, by what it is called."""
    if not config.drawn:
        return {"": {}}
    large = config.drawn.size
    small = _as_seen(large, config.training.size)
    changes = {small: {"phantom.size": small}} if small < large else {}
    changes[large] = {}
    return {"originals of {} x {}".format(*size): own for size, own in changes.items()}


def _as_seen(original: tuple[int, int], size: int) -> tuple[int, int]:
    """The size of an original that is reduced until its shorter side has as many pixels.

    It stays one that can be drawn.
    """
    scale = max(size / min(original), SHORTEST / max(original))
    height, width = (round(side * scale) for side in original)
    return height, width


def _gain(config: Config) -> Experiment:
    """L1 on the whole image, and single networks by the expectation loss that see it too.

    Each is asked about the mirror image as well, L1's among them.
    """
    whole = (
        Row("O by L1"),
        Row("O", None, ("whole",), "ldl"),
        _as_streams("O+H", "ldl"),
    )
    mirrored = (
        replace(
            row,
            label=f"{row.label}, mirror image too",
            changes={"reading.mirror": True},
            varies=row.label,
        )
        for row in whole
    )
    title = "The best single network against L1 on the whole image"
    return Experiment("claim-gain", title, (*whole, *mirrored), chooses=True)


def _controls(config: Config) -> Experiment:
    """Whole image and regions on every variant of the phantom, which tell ages elsewhere or not."""
    if not config.drawn:
        raise UserError("claim controls: the controls are drawn; give a preset that draws, no data")
    rows = [
        Row(letters, None, _seen(letters), "ldl", {"phantom.variant": variant}, series=variant)
        for variant in VARIANTS
        for letters in ("O", "R1", "R2", "H+R1+R2")
    ]
    return Experiment("claim-controls", "Phantoms that tell the age elsewhere, or not", tuple(rows))


def _as_streams(letters: str, loss: Loss, **own: Any) -> Row:
    return Row(f"{letters} as streams", None, _seen(letters), loss, fusion="streams", **own)


def _letters(regions: tuple[Region, ...]) -> str:
    return "+".join(_LETTERS[region] for region in regions)


def _seen(letters: str) -> tuple[Region, ...]:
    return tuple(_REGIONS[letter] for letter in letters.split("+"))


EXPERIMENTS: dict[str, Callable[[Config], Experiment]] = {
    "table-2": _table2,
    "table-3": _table3,
    "table-4": _table4,
    "table-5": _table5,
    "figure-5a": _figure5a,
    "figure-5b": _figure5b,
    "claim-delta": _delta,
    "claim-crops": _crops,
    "claim-gain": _gain,
    "claim-controls": _controls,
}
