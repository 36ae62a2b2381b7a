"""Figures of predictions: distributions, agreement, reliability, error over the value.

Matplotlib is imported where it is used: `pip install ldlcam[plots]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldlcam._check import check_count, check_mapping, check_tensor
from ldlcam.ldl.bins import Bins, check_bins
from ldlcam.ldl.metrics import mean_absolute_error, mean_error
from ldlcam.ldl.prediction import LabelDistribution, check_distribution
from ldlcam.ldl.reliability import LEVELS, coverage_by_level
from ldlcam.ldl.resampling import bootstrap, split_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_distributions(
    predicted: LabelDistribution,
    labels: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 3,
) -> Figure:
    """A panel for each prediction: its distribution, the label it was to learn, the true value.

    Args:
        predicted: Predictions (N,), N at least 1.
        labels: Label distributions (N, K), such as from `gaussian_labels`.
        targets: True values (N,), real, in the unit of the bins; NaN is not drawn.
        titles: N titles.
        columns: Panels in a row.

    Returns:
        The figure.

    Raises:
        TypeError: If an argument is not of the kind above.
        ValueError: If there is no prediction, or numbers do not fit.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution, gaussian_labels, plot_distributions
        >>> bins, ages = Bins(1, 240, unit="months"), torch.tensor([24.0, 96.0])
        >>> predicted = LabelDistribution(torch.zeros(2, 240), bins)
        >>> len(plot_distributions(predicted, gaussian_labels(ages, bins, 15.0), ages).axes)
        2

    References:
        Chen et al., arXiv:2006.00202, Fig. 4.
    """
    from matplotlib.figure import Figure

    check_distribution("predicted", predicted)
    bins = predicted.bins
    count = predicted.batch_shape.numel()
    check_tensor("predicted", predicted.logits, "N K")
    if count == 0:
        raise ValueError("predicted: expected at least one, got none")
    if labels is not None:
        check_tensor("labels", labels, "N K", "floating", N=count, K=len(bins))
    if targets is not None:
        check_tensor("targets", targets, "N", "real", N=count)
    if titles is not None and len(titles) != count:
        raise ValueError(f"titles: expected {count}, got {len(titles)}")
    check_count("columns", columns)
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.2 * columns, 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    centers = bins.centers.cpu()
    for i, axes in enumerate(panels):
        if i >= count:
            axes.remove()
            continue
        if labels is not None:
            label = labels[i].detach().float().cpu()
            axes.fill_between(centers, label, alpha=0.3, lw=0, label="label")
        axes.plot(centers, predicted.probs[i].detach().cpu(), label="prediction")
        axes.axvline(predicted.mean[i].item(), color="C0", ls=":", label="its mean")
        if targets is not None and not targets[i].isnan():
            axes.axvline(targets[i].item(), color="black", lw=1, label="true value")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(bins.unit or "value")
        if titles is not None:
            axes.set_title(titles[i], fontsize=9)
        if i == 0:
            axes.set_ylabel("probability")
            axes.legend(fontsize=8)
    return figure


def plot_bland_altman(predictions: Tensor, targets: Tensor, *, unit: str = "") -> Figure:
    """Error of each prediction over the mean of the two values, with bias and limits of agreement.

    Args:
        predictions: Predicted values (N,), real.
        targets: True values (N,), real, in the same unit. NaN is missing and left out.
        unit: Name of the unit, for the axes.

    Returns:
        The figure: a dot for each value, the mean error, and 1.96 standard deviations to either
        side of it.

    Raises:
        TypeError: If an argument is not a real tensor.
        ValueError: If a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import plot_bland_altman
        >>> ages = 240 * torch.rand(100)
        >>> plot_bland_altman(ages + torch.randn(100), ages, unit="months").axes[0].get_ylabel()
        'prediction - true value (months)'

    References:
        Bland and Altman, "Statistical methods for assessing agreement between two methods of
        clinical measurement", The Lancet 1986.
    """
    from matplotlib.figure import Figure

    check_tensor("predictions", predictions, "N", "real")
    check_tensor("targets", targets, "N", "real", N=predictions.shape[0])
    present = ~targets.isnan()
    predictions, targets = (_shown(values, present) for values in (predictions, targets))
    errors, middles = predictions - targets, (predictions + targets) / 2
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(middles, errors, "o", ms=3, alpha=0.4, mew=0)
    if len(errors):
        bias = errors.mean().item()
        reach = 1.96 * errors.std().item() if len(errors) > 1 else 0.0
        for height, style, name in (
            (bias, "-", "mean"),
            (bias + reach, "--", "+1.96 sd"),
            (bias - reach, "--", "-1.96 sd"),
        ):
            axes.axhline(height, color="black", ls=style, lw=1)
            axes.annotate(
                f"{name} {height:+.1f}",
                (1, height),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )
    axes.set_xlabel(f"mean of prediction and true value{_in(unit)}")
    axes.set_ylabel(f"prediction - true value{_in(unit)}")
    axes.grid(alpha=0.3)
    return figure


def plot_reliability(predicted: Mapping[str, LabelDistribution], targets: Tensor) -> Figure:
    """Share of true values inside of central intervals over the intervals' level, a line for each.

    On the diagonal intervals hold what they say; above it they are too wide, below too narrow.

    Args:
        predicted: Predictions (N,) by a name, such as before and after a calibration.
        targets: True values (N,), real, in the unit of the bins. NaN is missing and left out.

    Returns:
        The figure.

    Raises:
        TypeError: If `targets` is not a real tensor, or `predicted` is no mapping to
            `LabelDistribution`.
        ValueError: If there is no prediction, or a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution, plot_reliability
        >>> predicted = LabelDistribution(torch.zeros(100, 240), Bins(1, 240))
        >>> figure = plot_reliability({"uniform": predicted}, 1 + 239 * torch.rand(100))
        >>> figure.axes[0].get_xlabel()
        'level of the central interval'
    """
    from matplotlib.figure import Figure

    check_mapping("predicted", predicted)
    figure = Figure(figsize=(3.8, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="black", lw=1, ls=":")
    levels = torch.tensor(LEVELS, dtype=torch.float32, device="cpu")
    for name, distributions in predicted.items():
        shares = coverage_by_level(distributions, targets, levels)
        axes.plot(levels, shares.detach().cpu(), marker="o", ms=3, label=name)
    axes.set(xlabel="level of the central interval", ylabel="share of true values inside")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def plot_error_by_value(
    predictions: Mapping[str, Tensor],
    targets: Tensor,
    bands: Bins,
    *,
    level: float = 0.95,
    cluster: Tensor | None = None,
) -> Figure:
    """Mean absolute error and bias in bands of the true value, with bootstrap intervals.

    Args:
        predictions: Predicted values (N,) by a name.
        targets: True values (N,), real, in the same unit. NaN is missing and left out.
        bands: The bands, such as `Bins(12, 228, 24, unit="months")` for two years each.
        level: Level of the intervals, in (0, 1).
        cluster: What each value belongs to (N,), integer, such as a person, as for `bootstrap`.

    Returns:
        The figure. A band without values has no dot, and one of a single value or cluster no
        interval. Values beyond the bands are left out.

    Raises:
        TypeError: If values are not real tensors, or `predictions` is no mapping.
        ValueError: If there is no prediction, or a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, plot_error_by_value
        >>> ages = 240 * torch.rand(100)
        >>> bands = Bins(12, 228, 24, unit="months")
        >>> figure = plot_error_by_value({"O": ages + torch.randn(100)}, ages, bands)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['mean absolute error (months)', 'mean error (months)']
    """
    from matplotlib.figure import Figure

    check_mapping("predictions", predictions)
    check_tensor("targets", targets, "N", "real")
    check_bins(bands, "bands")
    if cluster is None:
        cluster = torch.arange(len(targets), device=targets.device)
    check_tensor("cluster", cluster, "N", "integer", N=targets.shape[0])
    present = ~targets.isnan()
    true, belongs = _shown(targets, present), cluster.to(present.device)[present]
    centers, edges = bands.centers.cpu(), bands.edges.cpu()
    band = bands.index(true).masked_fill((true < edges[0]) | (true > edges[-1]), -1)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    both = figure.subplots(1, 2)
    for order, (name, values) in enumerate(predictions.items()):
        check_tensor("predictions", values, "N", "real", N=targets.shape[0])
        shown = _shown(values, present)
        by_band = list(split_samples(band, (shown, true, belongs), len(bands)))
        filled = [index for index, samples in enumerate(by_band) if len(samples[0])]
        # Side by side, so that the intervals of several can be told apart.
        places = centers + (order - (len(predictions) - 1) / 2) * edges.diff() / 12
        for axes, metric in zip(both, (mean_absolute_error, mean_error), strict=True):
            told = [
                bootstrap(metric, *samples, cluster=own, level=level, resamples=500)
                for *samples, own in (by_band[index] for index in filled)
            ]
            value, low, high = torch.tensor(told, device="cpu").reshape(-1, 3).unbind(1)
            reach = torch.stack((value - low, high - value)).clamp(min=0).numpy()
            style = {"fmt": "o", "ms": 4, "color": f"C{order}", "label": name}
            axes.errorbar(places[filled].numpy(), value.numpy(), yerr=reach, **style)
    for axes, label in zip(both, ("mean absolute error", "mean error"), strict=True):
        axes.set(xlabel=f"true value{_in(bands.unit)}", ylabel=f"{label}{_in(bands.unit)}")
        axes.grid(alpha=0.3)
    both[0].set_ylim(bottom=0)
    both[1].axhline(0, color="black", lw=1)
    both[0].legend(fontsize=8)
    return figure


def _shown(values: Tensor, present: Tensor) -> Tensor:
    """Those of values (N,) that are present, on the CPU, to be drawn."""
    return values[present.to(values.device)].detach().float().cpu()


def _in(unit: str) -> str:
    return f" ({unit})" if unit else ""
