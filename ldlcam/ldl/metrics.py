"""How far predicted values are from the true ones."""

from torch import Tensor

from ldlcam._check import check_positive, check_tensor
from ldlcam._precision import upcast


def mean_absolute_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error, in the unit of the values.

    Args:
        predictions: Predicted values (N,), real.
        targets: True values (N,), real, in the same unit. NaN is missing and left out.

    Returns:
        A scalar, float64 if an argument is and float32 otherwise. Without any present target
        there is no error to speak of, and it is NaN; so it is if a prediction with a target is.

    Raises:
        TypeError: If an argument is not a real tensor.
        ValueError: If a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import mean_absolute_error
        >>> targets = torch.tensor([11.0, 20.0, float("nan")])
        >>> mean_absolute_error(torch.tensor([10.0, 24.0, 30.0]), targets)
        tensor(2.5000)
    """
    errors, present = _errors(predictions, targets)
    return errors.abs().sum() / present.sum()


def root_mean_squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared error, in the unit of the values.

    Args:
        predictions: Predicted values (N,), real.
        targets: True values (N,), real, in the same unit. NaN is missing and left out.

    Returns:
        A scalar, as from `mean_absolute_error`; where it is 0, so is its gradient.

    Raises:
        TypeError: If an argument is not a real tensor.
        ValueError: If a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import root_mean_squared_error
        >>> root_mean_squared_error(torch.tensor([10.0, 24.0]), torch.tensor([11.0, 17.0]))
        tensor(5.)
    """
    errors, present = _errors(predictions, targets)
    return root(errors.square().sum() / present.sum())


def mean_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of prediction - target, the bias, in the unit of the values: above 0 if too high.

    Args:
        predictions: Predicted values (N,), real.
        targets: True values (N,), real, in the same unit. NaN is missing and left out.

    Returns:
        A scalar, as from `mean_absolute_error`.

    Raises:
        TypeError: If an argument is not a real tensor.
        ValueError: If a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import mean_error
        >>> mean_error(torch.tensor([10.0, 24.0]), torch.tensor([11.0, 20.0]))
        tensor(1.5000)
    """
    errors, present = _errors(predictions, targets)
    return errors.sum() / present.sum()


def cumulative_score(predictions: Tensor, targets: Tensor, k: float) -> Tensor:
    """Cumulative score CS(k): the share of absolute errors of at most `k`, from 0 to 1.

    Args:
        predictions: Predicted values (N,), real. NaN is never within `k`.
        targets: True values (N,), real, in the same unit. NaN is missing and left out.
        k: The largest error that counts, above 0, in the same unit.

    Returns:
        A scalar, float64 if an argument is and float32 otherwise; NaN without any present target.

    Raises:
        TypeError: If an argument is not a real tensor.
        ValueError: If a shape is wrong or `k` is not above 0.

    Example:
        >>> import torch
        >>> from ldlcam import cumulative_score
        >>> targets = torch.tensor([11.0, 20.0, float("nan")])
        >>> cumulative_score(torch.tensor([10.0, 24.0, 30.0]), targets, k=2)
        tensor(0.5000)
    """
    check_positive("k", k)
    errors, present = _errors(predictions, targets)
    return ((errors.abs() <= k) & present).to(errors.dtype).sum() / present.sum()


def root(squares: Tensor) -> Tensor:
    """Square root, whose gradient at 0 is 0 instead of infinite."""
    zero = squares == 0
    return squares.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


def _errors(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    check_tensor("predictions", predictions, "N", "real")
    check_tensor("targets", targets, "N", "real", N=predictions.shape[0])
    present = ~targets.isnan()
    # Left out before anything curved: NaN times a gradient of 0 is NaN.
    return (upcast(predictions) - upcast(targets)).where(present, 0), present
