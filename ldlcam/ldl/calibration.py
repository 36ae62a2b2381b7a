"""What validation data can still mend in the predictions of a trained network."""

import math

import torch
from torch import Tensor

from ldlcam._check import check_choice, check_tensor
from ldlcam._precision import upcast
from ldlcam.ldl.bins import Bins, check_bins
from ldlcam.ldl.fitted import Fitted

_TEMPERATURES = (1e-2, 1e2)


class TemperatureScaling(Fitted):
    """Divides logits by one temperature, so that the predicted distributions are as wide as due.

    A temperature above 1 makes them wider, below 1 narrower. Their order of the bins stays, so
    the mode does; the mean may move a little. Before `fit` it is 1. The buffer `temperature` is
    saved with the module.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution, TemperatureScaling
        >>> bins = Bins(1, 240, unit="months")
        >>> means = 60 + 120 * torch.rand(500)
        >>> ages = means + 12 * torch.randn(500)
        >>> logits = -((bins.centers - means[:, None]) / 6).square() / 2  # half as wide as due
        >>> scaling = TemperatureScaling().fit(logits, ages, bins)
        >>> LabelDistribution(scaling(logits), bins).stddev.mean().round().item() in (11, 12, 13)
        True

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_fitted("temperature", 1.0)

    def fit(self, logits: Tensor, target: Tensor, bins: Bins) -> "TemperatureScaling":
        """Find the temperature at which the targets' bins are most probable, from 0.01 to 100.

        Args:
            logits: Logits (N, K) on data that the network was not trained on, floating. A row with
                NaN or +inf, or with -inf at its target, is left out: no temperature makes it
                probable. Where none is better than 1, as for logits that are all equal, it is 1.
            target: Values (N,), real, in the unit of the bins. NaN or infinite is missing; those
                outside count in the end bins. Without any, the temperature is 1.
            bins: The bins, K of them.

        Returns:
            This module.

        Raises:
            TypeError: If an argument is not a tensor of the kind above.
            ValueError: If a shape is wrong.
        """
        from scipy.optimize import minimize_scalar

        check_bins(bins)
        check_tensor("logits", logits, "N K", "floating", K=len(bins))
        check_tensor("target", target, "N", "real", N=logits.shape[0])
        logits = logits.detach()
        index = bins.index(torch.where(target.isfinite(), target, bins.first))[:, None]
        possible = logits.gather(-1, index)[:, 0] > -torch.inf
        present = target.isfinite() & possible & (logits < torch.inf).all(-1)
        known, index = logits[present].double(), index[present]

        def negative_log_likelihood(log_temperature: float) -> float:
            scaled = (known / math.exp(log_temperature)).log_softmax(-1)
            return -scaled.gather(1, index).mean().item()

        best = 1.0
        if len(known):
            low, high = (math.log(bound) for bound in _TEMPERATURES)
            found = minimize_scalar(
                negative_log_likelihood, bounds=(low, high), options={"xatol": 1e-6}
            )
            if negative_log_likelihood(found.x) < negative_log_likelihood(0.0):
                best = math.exp(found.x)
        self.temperature.fill_(best)
        return self

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (..., K) divided by the temperature, float64 as they are, float32 otherwise."""
        check_tensor("logits", logits, dtype="floating")
        logits = upcast(logits)
        return logits / self.temperature.to(logits.dtype)

    def extra_repr(self) -> str:
        """The temperature, for `repr`."""
        return f"temperature={_shown(self.temperature)}"


class LinearBiasCorrection(Fitted):
    """A straight line through predictions and true values: corrected = intercept + slope * value.

    Networks that minimize an error predict too high at the low end and too low at the high end.
    There are two lines, for two purposes. Before `fit` neither changes anything. The buffers
    `slope` and `intercept` are saved with the module.

    Args:
        line: `"target"`: the regression of the true values on the predictions, which has the
            least squared error on the data it was fitted on. `"prediction"`: the regression of the
            predictions on the true values, inverted: errors then have no trend with the true
            value, as is asked of brain-age gaps, and grow in exchange.

    Raises:
        ValueError: If `line` is another word.

    Example:
        >>> import torch
        >>> from ldlcam import LinearBiasCorrection
        >>> ages = torch.tensor([20.0, 40.0, 60.0, 80.0])
        >>> correction = LinearBiasCorrection().fit(0.5 * ages + 25, ages)
        >>> correction(torch.tensor([35.0, 65.0]))
        tensor([20., 80.])

    References:
        Cole et al., "Brain age predicts mortality", Molecular Psychiatry 2018, for
        `line="prediction"`.
    """

    slope: Tensor
    intercept: Tensor

    def __init__(self, line: str = "target") -> None:
        super().__init__()
        check_choice("line", line, ("target", "prediction"))
        self.line = line
        self.register_fitted("slope", 1.0)
        self.register_fitted("intercept", 0.0)

    def fit(self, predictions: Tensor, targets: Tensor) -> "LinearBiasCorrection":
        """Fit the line.

        Args:
            predictions: Predicted values (N,), real, of data not trained on.
            targets: True values (N,), real, in the same unit. A pair with NaN or an infinite
                number is left out. Where no line rises (all the same, fewer than two, or
                predictions that fall where the true values rise) the slope is 1 and the mean
                error is taken away.

        Returns:
            This module.

        Raises:
            TypeError: If an argument is not a real tensor.
            ValueError: If a shape is wrong.
        """
        check_tensor("predictions", predictions, "N", "real")
        check_tensor("targets", targets, "N", "real", N=predictions.shape[0])
        present = predictions.isfinite() & targets.isfinite()
        x, y = (each.detach()[present].double() for each in (predictions, targets))
        slope, intercept = 1.0, 0.0
        if len(x):
            dx, dy = x - x.mean(), y - y.mean()
            rise, run = (dx * dy, dx * dx) if self.line == "target" else (dy * dy, dx * dy)
            if abs(run.sum().item()) > 1e-12 * max(x.abs().max().item(), 1e-300) ** 2:
                slope = (rise.sum() / run.sum()).item()
                slope = slope if slope > 0 else 1.0
            intercept = (y.mean() - slope * x.mean()).item()
        self.slope.fill_(slope)
        self.intercept.fill_(intercept)
        return self

    def forward(self, predictions: Tensor) -> Tensor:
        """Corrected values, of any shape, float64 as they are and float32 otherwise."""
        check_tensor("predictions", predictions, dtype="real")
        predictions = upcast(predictions)
        return self.intercept.to(predictions.dtype) + self.slope.to(predictions.dtype) * predictions

    def options(self) -> str:
        """Which line it is."""
        return f"line={self.line!r}"

    def extra_repr(self) -> str:
        """The line, for `repr`."""
        slope, intercept = _shown(self.slope), _shown(self.intercept)
        return f"line={self.line!r}, slope={slope}, intercept={intercept}"


def _shown(number: Tensor) -> str:
    return "..." if number.is_meta else f"{number.item():.4g}"
