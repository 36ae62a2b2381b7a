"""The metrics of a run as rows of tables, for the page and for the console."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from boneage.report.wording import ANNOTATED, FOUND


@dataclass(frozen=True)
class Overlap:
    """One found region scored against one annotated region, beside its control."""

    region: str
    name: str
    scores: Mapping[str, Any]
    used: bool

    @property
    def found(self) -> str:
        """The found region, in words."""
        return FOUND[self.region]

    @property
    def annotated(self) -> str:
        """The annotated region, in words."""
        return ANNOTATED[self.name]

    @property
    def control(self) -> Mapping[str, Any]:
        """Scores of the median box and the fixed point; empty where there are none."""
        return self.scores["control"] or {}


@dataclass(frozen=True)
class SweepRow:
    """Scores of one pair of regions at every threshold; None where one was not tried."""

    pair: Overlap
    cells: list[Mapping[str, Any] | None]
    best: int


@dataclass(frozen=True)
class AgeRow:
    """One model's errors on the test images, or those of always giving the same age."""

    name: str
    test: Mapping[str, Any]
    floor: float | None = None
    coverage: float | None = None
    wrong_sex: float | None = None
    validation: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Two models over the same images: how much smaller the second one's error is."""

    first: str
    second: str
    paired: Mapping[str, Any]


def overlaps(metrics: Mapping[str, Any]) -> list[Overlap]:
    """Every found region against every annotated region that it was scored against."""
    return [
        Overlap(region, name, scores, used=name == found["nearest"])
        for region, found in metrics["localization"].items()
        for name, scores in found["against"].items()
    ]


def sweep(pairs: list[Overlap]) -> tuple[list[float], list[SweepRow]]:
    """The thresholds tried, and each pair's scores at them."""
    tables = [{row["threshold"]: row for row in pair.scores["sweep"]} for pair in pairs]
    thresholds = sorted(set().union(*tables))
    rows = []
    for pair, table in zip(pairs, tables, strict=True):
        best = max(table, key=lambda threshold: table[threshold]["mean_iou"])
        cells = [table.get(threshold) for threshold in thresholds]
        rows.append(SweepRow(pair, cells, thresholds.index(best)))
    return thresholds, rows


def ages(metrics: Mapping[str, Any]) -> list[AgeRow]:
    """Every model's errors, and last those of the best constant age."""
    floors = metrics["ages"].get("floors", {})
    rows = [
        AgeRow(
            name,
            model["test"],
            floor=floors.get(name),
            coverage=model["coverage90"],
            wrong_sex=model["test_wrong_sex_mae"],
            validation=model["validation_mae"],
        )
        for name, model in metrics["ages"]["models"].items()
    ]
    return [*rows, AgeRow("same age for all", metrics["ages"]["constant"])]


def groups(metrics: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """By group of patients: each model's errors, in the models' order."""
    models = [model["test_by_group"] for model in metrics["ages"]["models"].values()]
    return {name: [model[name] for model in models] for name in models[0]} if models else {}


def intervals(metrics: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """By model that tells 90% intervals: their scores by group of patients, of all first."""
    models = metrics["ages"]["models"]
    return {name: model["intervals90"] for name, model in models.items() if model["intervals90"]}


def comparisons(metrics: Mapping[str, Any]) -> list[Comparison]:
    """Every two models, in the models' order."""
    known = metrics["ages"]["comparisons"]
    return [
        Comparison(first, second, known[f"{first} vs {second}"])
        for first, second in combinations(metrics["ages"]["models"], 2)
        if f"{first} vs {second}" in known
    ]
