"""A small head on fixed features, trained in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from ldlcam import Bins
from torch import Tensor, nn

from boneage.comparison.features import Features
from boneage.config import Config, Training
from boneage.data import splits
from boneage.networks.losses import make_loss
from boneage.networks.regressor import make_head

Trial = dict[str, Any]
"""A learning rate, a weight decay, the loss's own settings and, once it was tried, its scores."""


class FeatureHead(nn.Module):
    """One hidden layer with dropout, then the same head as that of the age network."""

    def __init__(self, in_features: int, hidden: int, dropout: float, loss: str, bins: Bins):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.head = make_head(loss, hidden, 0, bins)

    def forward(self, inputs: Tensor) -> Tensor:
        """Features (N, F) -> logits (N, K), or ages (N,) in months."""
        output: Tensor = self.head(self.hidden(inputs), None)
        return output


@dataclass(frozen=True)
class HeadTrainer:
    """Trains heads by AdamW, at rates that rise and fall once over all epochs.

    Attributes:
        config: Says how wide a head is and how long it trains.
        features: What it learns from, by the name of the part.
        bins: The bins of the ages.
    """

    config: Config
    features: dict[str, Features]
    bins: Bins

    def fit(self, loss: str, trial: Trial, seed: int) -> FeatureHead:
        """A trained head, set to evaluation; the seed decides the start, the order, the dropout."""
        plan, learn = self.config.comparison, self.features[splits.TRAIN]
        own = {name: value for name, value in trial.items() if name in Training.model_fields}
        criterion = make_loss(loss, self.bins, self.config.training.model_copy(update=own))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            width = learn.inputs.shape[1]
            network = FeatureHead(width, plan.hidden, plan.dropout, loss, self.bins)
            optimizer = torch.optim.AdamW(
                network.parameters(), trial["learning_rate"], weight_decay=trial["weight_decay"]
            )
            steps = -(-len(learn.months) // plan.batch_size)
            rates = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, trial["learning_rate"], total_steps=plan.epochs * steps
            )
            for _ in range(plan.epochs):
                order = torch.randperm(len(learn.months))
                for rows in torch.split(order, plan.batch_size):
                    optimizer.zero_grad()
                    criterion(network(learn.inputs[rows]), learn.months[rows]).backward()
                    optimizer.step()
                    rates.step()
        return network.eval()

    @torch.no_grad()
    def tell(self, network: FeatureHead, part: str) -> Tensor:
        """A head's outputs for the images of a part: logits (N, K), or ages (N,) in months."""
        output: Tensor = network(self.features[part].inputs)
        return output
