"""Equal trials for every loss: its settings are drawn, tried, and chosen on validation images."""

from __future__ import annotations

from itertools import product

import numpy as np
from ldlcam import mean_absolute_error, mean_crps
from rich.console import Console
from rich.progress import track
from scipy.stats import qmc

from boneage.comparison.heads import HeadTrainer, Trial
from boneage.comparison.outputs import save_outputs
from boneage.comparison.plan import ComparisonStages
from boneage.data import splits
from boneage.networks.regressor import as_distribution
from boneage.run_folder import Stage, read_json, write_json

# Every loss is tried at the same rates; those with settings of their own at as many of these.
RATES = {"learning_rate": (1e-4, 1e-2), "weight_decay": (1e-3, 1.0)}
OWN: dict[str, dict[str, tuple[float, float]]] = {
    "kl": {"sigma": (2, 30)},
    "ldl": {"sigma": (2, 30), "weight": (0.3, 300)},
    "mean-variance": {"mean_weight": (1e-4, 1e-1), "variance_weight": (1e-5, 1e-2)},
}


def draw_trials(loss: str, count: int, seed: int) -> list[Trial]:
    """Settings to try, spread evenly over the logarithms of their ranges.

    All losses with the same count and seed are tried at the same rates.
    """
    ranges = RATES | OWN.get(loss, {})
    places = qmc.Halton(4, rng=np.random.default_rng(seed)).random(count)[:, : len(ranges)]
    lows, highs = np.log(np.array(list(ranges.values()))).T
    # Four digits are as good as all of them, and can be read.
    return [
        {name: float(f"{value:.4g}") for name, value in zip(ranges, row, strict=True)}
        for row in np.exp(lows + places * (highs - lows)).tolist()
    ]


def search(loss: str, trainer: HeadTrainer, stage: Stage, console: Console) -> None:
    """Try a loss at its drawn settings, then train with the best of them from every seed.

    Writes `trials.json` as trials are done, `chosen.json`, and `outputs.npz`.
    """
    plan = trainer.config.comparison
    trials = draw_trials(loss, plan.trials, trainer.config.seed)
    tried = _try(loss, trials, plan.seeds[0], trainer, stage, console)
    chosen = min(tried, key=lambda trial: trial["mae"])
    networks = [trainer.fit(loss, chosen, seed) for seed in plan.seeds]
    save_outputs(
        stage,
        {
            part: [trainer.tell(network, part) for network in networks]
            for part in (splits.VALIDATION, splits.TEST)
        },
    )
    write_json(stage / "chosen.json", chosen)


def scan(stages: ComparisonStages, trainer: HeadTrainer, console: Console) -> None:
    """Try the expectation loss at every sigma and weight of a grid, at the rates it has chosen.

    Writes `trials.json` as trials are done, each with its scores from the first seed.
    """
    plan = trainer.config.comparison
    rates = {name: stages.chosen("ldl")[name] for name in RATES}
    trials = [
        rates | {"sigma": sigma, "weight": weight * sigma}
        for sigma, weight in product(plan.sigmas, plan.weights)
    ]
    _try("ldl", trials, plan.seeds[0], trainer, stages.scan, console)


def _try(
    loss: str, trials: list[Trial], seed: int, trainer: HeadTrainer, stage: Stage, console: Console
) -> list[Trial]:
    """Each trial with its MAE and its CRPS on the validation images, in months."""
    path = stage / "trials.json"
    # What an interrupted run has done is not done again.
    tried: list[Trial] = read_json(path) if path.exists() else []
    truth = trainer.features[splits.VALIDATION].months
    for trial in track(trials[len(tried) :], "trying", console=console):
        output = trainer.tell(trainer.fit(loss, trial, seed), splits.VALIDATION)
        predicted = as_distribution(output, trainer.bins)
        mae = float(mean_absolute_error(predicted.mean, truth))
        tried.append(trial | {"mae": mae, "crps": float(mean_crps(predicted, truth))})
        write_json(path, tried)
    return tried
