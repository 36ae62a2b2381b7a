"""The plan of a comparison: the stages before whole networks train, and their keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from boneage.comparison.heads import Trial
from boneage.config import LOSSES, Config
from boneage.run_folder import Stage, read_json
from boneage.stages.plan import make_key, plan_stages

_HEADS = {"hidden", "dropout", "epochs", "batch_size", "trials", "seeds"}


@dataclass(frozen=True)
class ComparisonStages:
    """The stages of the heads, each with its folder and the key of what it is computed from.

    `data_key` is that of the data set: see `RunStages`.
    """

    data_key: str
    prepared: Stage
    features: Stage
    heads: dict[str, Stage]
    scan: Stage

    def seconds(self) -> dict[str, float]:
        """How long each stage took."""
        heads = {f"heads {loss}": stage for loss, stage in self.heads.items()}
        stages = {"prepare": self.prepared, "features": self.features, **heads, "scan": self.scan}
        return {name: round(stage.seconds, 1) for name, stage in stages.items()}

    def chosen(self, loss: str) -> Trial:
        """The trial of a loss with the least validation MAE."""
        trial: Trial = read_json(self.heads[loss] / "chosen.json")
        return trial


def plan_comparison(config: Config, folder: Path, data: Path) -> ComparisonStages:
    """The stages of a comparison and their keys."""
    plan = config.comparison
    run = plan_stages(config, folder, data)
    seen = make_key(run.data_key, plan.size, plan.backbone, plan.grid)
    learned = make_key(seen, config.digest("bins", "seed"), plan.model_dump(include=_HEADS))
    heads = {loss: Stage(folder / f"heads-{loss}", make_key(learned, loss)) for loss in LOSSES}
    scanned = make_key(heads["ldl"].key, plan.sigmas, plan.weights)
    return ComparisonStages(
        data_key=run.data_key,
        prepared=run.prepared,
        features=Stage(folder / "features", seen),
        heads=heads,
        scan=Stage(folder / "scan", scanned),
    )
