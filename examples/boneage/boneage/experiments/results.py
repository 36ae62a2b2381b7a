"""What the networks behind a table come to: means over seeds, and what each row gains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boneage.config import Config
from boneage.experiments.networks import read_line, read_shown
from boneage.experiments.rows import Experiment, Row
from boneage.stages.statistics import paired_difference

Figures = dict[str, Any]
"""What one network has written, or of a row all of them came to."""


def summarize(
    experiment: Experiment,
    networks: Sequence[Sequence[Figures]],
    missing: Sequence[str | None],
    config: Config,
) -> Figures:
    """A table's figures.

    Args:
        experiment: The table.
        networks: Of each row, the figures of its networks, one a seed; none of a row that could
            not be trained, but there is one that could.
        missing: Of each row, why it could not be trained.
        config: The configuration that the rows change.

    Returns:
        The rows, each with the means over its seeds, and what it gains in months, paired over the
        test images: on the first row of the same data; where its label is in another series of the
        same data before, on that; and on the row that it varies.
    """
    known = [figures for figures in networks if figures]

    def gain(before: Sequence[Figures], figures: Sequence[Figures]) -> Figures | None:
        if before is figures:
            return None
        truth, patients = read_line(figures[0]["truth"]), read_shown(figures[0])
        sampling = {"resamples": config.bootstrap, "seed": config.seed}
        return paired_difference(_months(before), _months(figures), truth, patients, **sampling)

    rows: list[Figures] = []
    # What gains are on: the first networks of a data set, of a label on it, and of a row.
    first: dict[str, Sequence[Figures]] = {}
    partners: dict[tuple[str, str], Sequence[Figures]] = {}
    named: dict[tuple[str, str, str], Sequence[Figures]] = {}
    for row, figures, reason in zip(experiment.rows, networks, missing, strict=True):
        described = _described(row) | {"missing": reason}
        if figures:
            described |= _means(figures)
            data = figures[0]["data"]["name"]
            described["gain_on_first"] = gain(first.setdefault(data, figures), figures)
            partner = partners.setdefault((data, row.label), figures)
            described["gain_on_partner"] = gain(partner, figures)
            named[data, row.series, row.label] = figures
            varied = named.get((data, row.series, row.varies), figures)
            described["gain_on_varied"] = gain(varied, figures)
        rows.append(described)
    return {
        "name": experiment.name,
        "title": experiment.title,
        "axis": experiment.axis,
        "said": experiment.said,
        "chosen": _best(rows) if experiment.chooses else None,
        "data": known[0][0]["data"] | {"name": ", ".join(first)},
        "seeds": list(config.experiments.seeds),
        "seed": config.seed,
        "rows": rows,
        "versions": known[0][0]["versions"],
        "configuration": config.model_dump(mode="json", exclude={"data"}),
    }


def _best(rows: Sequence[Figures]) -> str:
    """The label of the row that the validation images find best."""
    trained = [row for row in rows if row["missing"] is None]
    label: str = min(trained, key=lambda row: row["validation_mae"])["label"]
    return label


def _described(row: Row) -> Figures:
    return {
        "label": row.label,
        "series": row.series,
        "at": row.at,
        "published": row.published,
        "changes": dict(row.changes),
        "varies": row.varies,
    }


def _months(figures: Sequence[Figures]) -> np.ndarray:
    """What the networks of a row say, (N, S)."""
    return np.stack([read_line(one["months"]) for one in figures], axis=1)


def _means(figures: Sequence[Figures]) -> Figures:
    errors = [one["test"] for one in figures]
    # As its ages: of a row that corrects what its network says, the corrected ones.
    told = [one["distributions"] for one in figures]
    told = [states.get("corrected", states.get("as trained", {})) for states in told]
    return {
        "mae": _mean(one["mae"] for one in errors),
        "seeds_mae": [one["mae"] for one in errors],
        "floor": figures[0].get("floor"),
        "constant": figures[0].get("constant"),
        "rmse": _mean(one["rmse"] for one in errors),
        "cs6": _mean(one["cs6"] for one in errors),
        "cs12": _mean(one["cs12"] for one in errors),
        "validation_mae": _mean(one["validation_mae"] for one in figures),
        "crps": _mean(one.get("crps") for one in told),
        "sd": _mean(one.get("sd") for one in told),
        "coverage90": _mean(one["coverage90"] for one in figures),
        "width90": _mean(_width(one) for one in figures),
        "seconds": _mean(one["seconds"]["training"] for one in figures),
        # Of networks from other seeds it is the same: regions are found once.
        "whole_image_instead": figures[0].get("whole_image_instead", {}),
    }


def _width(figures: Figures) -> float | None:
    """The mean width of a network's 90% intervals in months; None where it tells none."""
    return figures["intervals90"]["all"]["width"] if figures["intervals90"] else None


def _mean(values: Any) -> float | None:
    """The mean; None where a network has no such figure."""
    listed = list(values)
    return None if None in listed else float(np.mean(listed))
