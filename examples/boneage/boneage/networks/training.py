"""Training by Lightning: one loop for the attention networks and the age networks."""

from __future__ import annotations

import io
import itertools
import logging
import math
import signal
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import torch
from ldlcam import triangular_labels
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics import MeanAbsoluteError

from boneage.config import Augmentation, Hardware, Localizer, Schedule, Training
from boneage.data.batches import Batch, RegionDataset, augment, to_float
from boneage.errors import UserError
from boneage.networks.devices import pick_device
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.losses import make_loss
from boneage.networks.regressor import AgeNetwork, tell
from boneage.processes import agree, leads, own_share
from boneage.run_folder import atomic_path, writing

# The raw soft label's L1 averages over all bins, most of them empty: scaled to be of order one.
_L1_SCALE = 10.0
_STEPS = "steps_per_epoch"


class _Task(lightning.LightningModule):
    """A network, its schedule and its augmentation; subclasses say the loss."""

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        augmentation: Augmentation,
        batches: int,
        seed: int,
    ):
        super().__init__()
        self.seed = seed
        self.network = network
        self.schedule = schedule
        self.augmentation = augmentation
        # What is left over at an epoch's end makes a step of its own.
        self.steps_per_epoch = math.ceil(batches / schedule.accumulate)
        # Counts each image once, whichever process it is shown to.
        self.error = MeanAbsoluteError()

    def on_train_start(self) -> None:
        _end_on_sigterm()

    def on_train_epoch_start(self) -> None:
        """Draw an epoch's order and changes from its number: going on repeats no epoch's."""
        torch.manual_seed(self.seed + 1_000_003 * (self.current_epoch + 1))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images = to_float(batch.images)
        return batch._replace(
            images=augment(images, self.augmentation, own_share()) if self.training else images
        )

    def on_validation_start(self) -> None:
        """Stop before a network that has diverged is kept."""
        _end_on_sigterm()
        # The network is the same in all processes: one says so.
        if leads() and not all(
            value.isfinite().all() for value in self.network.state_dict().values()
        ):
            raise UserError(
                f"training diverged in epoch {self.current_epoch + 1} at a learning rate of "
                f"{max(self.schedule.learning_rate):g}: the weights are no numbers any more; "
                "lower schedule.learning_rate"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the schedule's steps were counted by."""
        checkpoint[_STEPS] = self.steps_per_epoch

    def validation_step(self, batch: Batch, index: int) -> None:
        """Take one batch, which may be empty, into the mean absolute error in months."""
        if len(batch.months):
            self.error.update(self.tell(batch), batch.months)
        self.log("val_mae", self.error, prog_bar=True)

    def tell(self, batch: Batch) -> Tensor:
        """Months (N,) of the images, as they are told."""
        raise NotImplementedError

    def configure_optimizers(self) -> Any:
        plan = self.schedule
        kind = torch.optim.AdamW if plan.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(
            self.parameters(), lr=plan.learning_rate[0], weight_decay=plan.weight_decay
        )
        if plan.one_cycle:
            rates: Any = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, plan.learning_rate[0], total_steps=plan.epochs[0] * self.steps_per_epoch
            )
        else:
            rates = torch.optim.lr_scheduler.LambdaLR(optimizer, self._phase_rate)
        return [optimizer], [{"scheduler": rates, "interval": "step"}]

    def _phase_rate(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        ends = itertools.accumulate(self.schedule.epochs)
        phase = sum(epoch >= end for end in ends)
        rates = self.schedule.learning_rate
        return rates[min(phase, len(rates) - 1)] / rates[0]


def _end_on_sigterm() -> None:
    """Let SIGTERM end one of several processes at once, which is no harm: a run goes on.

    Lightning's handler would tell the others, in the middle of what they wait for from this one.
    """
    if own_share().count > 1:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class LocalizerTask(_Task):
    """An attention network learns the softened age of Eq. 5."""

    network: LocalizerNetwork

    def __init__(self, network: LocalizerNetwork, config: Localizer, batches: int, seed: int = 0):
        super().__init__(network, config.schedule, config.augmentation, batches, seed)
        self.config = config

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The loss of one batch."""
        softmax = self.config.loss == "kl"
        labels = triangular_labels(
            batch.months, self.network.bins, self.config.label_width, normalize=softmax
        )
        scores = self.network.learn(batch.images, batch.sex, labels.argmax(dim=1))
        loss = torch.stack([self._loss(each, labels) for each in scores]).sum()
        self.log("loss", loss, prog_bar=True)
        return loss

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        if self.config.loss == "kl":
            return F.kl_div(scores.log_softmax(dim=1), labels, reduction="batchmean")
        return _L1_SCALE * F.l1_loss(scores, labels)

    def tell(self, batch: Batch) -> Tensor:
        """The ages that the attention network finds most likely."""
        return self.network.attend(batch.images, batch.sex).months


class AgeTask(_Task):
    """An age network learns the age, or its distribution."""

    network: AgeNetwork

    def __init__(
        self, network: AgeNetwork, config: Training, loss: str, batches: int, seed: int = 0
    ):
        super().__init__(network, config.schedule, config.augmentation, batches, seed)
        self.loss = make_loss(loss, network.bins, config)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The loss of one batch."""
        loss: Tensor = self.loss(self._output(batch), batch.months)
        self.log("loss", loss, prog_bar=True)
        return loss

    def tell(self, batch: Batch) -> Tensor:
        """The ages that the network tells."""
        return tell(self._output(batch), self.network.bins)

    def _output(self, batch: Batch) -> Tensor:
        output: Tensor = self.network(batch.images, batch.sex, batch.covariates)
        return output


def fit(
    task: _Task,
    train: DataLoader[Batch],
    validation: DataLoader[Batch],
    folder: Path,
    hardware: Hardware,
    *,
    keep: Literal["best", "last"],
) -> float:
    """Train a task, going on from `folder`'s last checkpoint where there is one.

    Processes that have joined each other train it together, each on its share of the batches.

    Args:
        task: What to train; it holds the kept weights afterwards.
        train: Batches to learn from.
        validation: Batches to choose by.
        folder: Where checkpoints and logs go.
        hardware: Accelerator and precision.
        keep: `"best"` keeps the epoch with the least validation error, `"last"` the last one.

    Returns:
        The validation MAE of the kept weights, in months.
    """
    # The best first: what the last one knows of it is then of the same epoch. Lightning's own
    # last one is only the last that was better than those before.
    checkpoints = [
        ModelCheckpoint(
            folder / "checkpoints", name, monitor, mode="min", enable_version_counter=False
        )
        for name, monitor in (("best", "val_mae"), ("last", None))
    ]
    with warnings.catch_warnings(), writing(folder):
        # The images are memory maps read whole batches at a time: workers would only copy them.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists.*")
        warnings.filterwarnings("ignore", ".*The number of training batches.*")
        # Lightning's own use of torch.
        warnings.filterwarnings("ignore", ".*LeafSpec.*")
        trainer = _trainer(
            hardware,
            max_epochs=sum(task.schedule.epochs),
            accumulate_grad_batches=task.schedule.accumulate,
            logger=_loggers(folder),
            callbacks=[*checkpoints, RichProgressBar(leave=False)],
            checkpoints=_WholeCheckpoints(),
            # Processes wait for the gradient of every weight but those that are looked for.
            unused=own_share().count > 1
            and _some_unused(task.network, cast(RegionDataset, train.dataset).__getitems__([0])),
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        last = folder / "checkpoints" / "last.ckpt"
        going_on = agree(leads() and _can_go_on(last, task))
        trainer.fit(task, train, validation, ckpt_path=last if going_on else None)
        path = folder / "checkpoints" / f"{keep}.ckpt"
        # Read by one: on a shared disk, others may still see the file that was there before.
        kept = agree(_read_checkpoint(path)["state_dict"] if leads() else {})
        task.load_state_dict(kept)
        (figures,) = trainer.validate(task, validation, verbose=False)
    return float(figures["val_mae"])


def check_hardware(hardware: Hardware) -> None:
    """Check that networks can be trained so on this machine.

    Raises:
        UserError: If it lacks the accelerator, or that cannot do the precision.
    """
    _trainer(hardware, logger=False, enable_checkpointing=False, enable_progress_bar=False)


def _can_go_on(last: Path, task: _Task) -> bool:
    """Whether there is a checkpoint to go on from.

    Raises:
        UserError: If it is damaged, or its steps are not this task's.
    """
    if not last.exists():
        return False
    steps = _read_checkpoint(last).get(_STEPS, task.steps_per_epoch)
    if steps != task.steps_per_epoch:
        raise UserError(
            f"{last}: the network was begun with {steps} steps an epoch, and with as many "
            f"processes as now there are {task.steps_per_epoch}; go on with as many as then, or "
            f"delete the folder {last.parent} to train it from its beginning"
        )
    return True


def _some_unused(network: nn.Module, images: Batch) -> bool:
    """Whether there are weights that no gradient reaches, as in layers after a backbone's cut."""
    training = network.training
    output = network.eval()(to_float(images.images), images.sex)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(output.sum(), weights, allow_unused=True)
    network.train(training)
    return any(gradient is None for gradient in gradients)


def _trainer(
    hardware: Hardware,
    checkpoints: TorchCheckpointIO | None = None,
    unused: bool = False,
    **options: Any,
) -> lightning.Trainer:
    device, count = pick_device(hardware).type, own_share().count
    if count != hardware.devices * hardware.num_nodes:
        raise UserError(
            f"hardware: devices={hardware.devices} on num_nodes={hardware.num_nodes} are to train "
            f"together, and there is {count} process; start them by boneage or by torchrun"
        )
    strategy = DDPStrategy(find_unused_parameters=unused) if count > 1 else "auto"
    # Named, because Lightning would guess another one inside a batch script of SLURM.
    environment = TorchElasticEnvironment() if count > 1 else LightningEnvironment()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return lightning.Trainer(
            accelerator=device,
            devices=hardware.devices,
            num_nodes=hardware.num_nodes,
            strategy=strategy,
            precision=hardware.precision,
            plugins=[environment, *([checkpoints] if checkpoints else [])],
            # Batches are shared as they are made.
            use_distributed_sampler=False,
            **options,
        )
    except MisconfigurationException as error:
        raise UserError(f"hardware: {error}") from None


def _loggers(folder: Path) -> list[Logger]:
    """A CSV file, and what TensorBoard shows, where that is installed."""
    loggers: list[Logger] = [CSVLogger(folder, name="log")]
    if find_spec("tensorboard"):
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    return loggers


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise UserError(
            f"{path}: the checkpoint is damaged ({type(error).__name__}); delete the folder "
            f"{path.parent} to train this network from its beginning"
        ) from None
    return checkpoint


class _WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are there whole or not at all, so that going on never meets half of one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write one checkpoint."""
        # As bytes first, because torch reports a full disk in its own way when it writes files.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())
