"""Train: one age network for each model of the configuration."""

from __future__ import annotations

import lightning

from boneage.config import Config, Model
from boneage.data import splits
from boneage.data.batches import loader
from boneage.data.samples import Samples
from boneage.networks.regressor import AgeNetwork
from boneage.networks.storage import save_network
from boneage.networks.training import AgeTask, fit
from boneage.processes import leads, own_share, together
from boneage.run_folder import Stage, write_json
from boneage.stages.crop import model_images


@together
def train(config: Config, model: Model, stage: Stage, prepared: Stage, cropped: Stage) -> None:
    """Train one model; write `network.safetensors` and `training.json`.

    The epoch with the least validation error is kept.
    """
    plan = config.training
    samples = Samples.load(prepared.folder)
    seed = config.for_model(model).seed
    lightning.seed_everything(seed, verbose=False)
    network = AgeNetwork(plan, model, config.bins, len(config.table.covariates))
    network.standardize.fit(samples.covariates[samples.rows(splits.TRAIN)])
    learn, choose = (
        model_images(config, model, samples, samples.rows(part), prepared, cropped)
        for part in (splits.TRAIN, splits.VALIDATION)
    )
    batch, share = plan.schedule.batch_size, own_share()
    batches = loader(learn, batch, shuffle=True, share=share)
    error = fit(
        AgeTask(network, plan, model.loss, len(batches), seed),
        batches,
        loader(choose, 2 * batch, shuffle=False, share=share),
        stage.folder,
        config.hardware,
        keep="best",
    )
    if leads():
        save_network(network.eval(), stage / "network.safetensors")
        write_json(stage / "training.json", {"validation_mae": error})
