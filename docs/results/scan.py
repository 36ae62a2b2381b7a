"""Draw how sigma and weight matter: `python docs/results/scan.py`, from losses.json beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
SCORES = {"mae": "mean absolute error", "crps": "CRPS"}


def draw(results: dict[str, Any]) -> Figure:
    """One panel a score, sigma by weight; each cell says the months, darker is better."""
    plan = results["configuration"]["comparison"]
    shape = len(plan["sigmas"]), len(plan["weights"])
    figure = Figure(figsize=(7, 7.2), layout="constrained")
    for axes, (score, name) in zip(figure.subplots(2, 1), SCORES.items(), strict=True):
        values = np.array([trial[score] for trial in results["scan"]]).reshape(shape)
        # Few cells are far off; they would wash out the differences between the others.
        top = np.quantile(values, 0.8)
        axes.imshow(values, cmap="viridis", vmax=top, aspect="auto")
        middle = (values.min() + top) / 2
        for (row, column), value in np.ndenumerate(values):
            color = "white" if value < middle else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
        axes.set_xticks(range(shape[1]), [f"{weight:g}" for weight in plan["weights"]])
        axes.set_yticks(range(shape[0]), [f"{sigma:g}" for sigma in plan["sigmas"]])
        axes.set_ylabel("sigma (months)")
        axes.set_title(f"{name} on the validation images, in months", fontsize=10)
    axes.set_xlabel("weight of the divergence, in multiples of sigma")
    return figure


if __name__ == "__main__":
    found = json.loads((HERE / "losses.json").read_text())
    draw(found).savefig(HERE / "losses-scan.png", dpi=100)
