"""Label distributions: how much, and how sure."""

from ldlcam.ldl.bins import Bins
from ldlcam.ldl.heads import ExpectationHead
from ldlcam.ldl.labels import gaussian_labels, triangular_labels
from ldlcam.ldl.losses import ExpectationLDLLoss, LossTerms, expectation_ldl_loss
from ldlcam.ldl.metrics import cumulative_score, mean_absolute_error
from ldlcam.ldl.prediction import Interval, LabelDistribution, expectation

__all__ = [
    "Bins",
    "ExpectationHead",
    "ExpectationLDLLoss",
    "Interval",
    "LabelDistribution",
    "LossTerms",
    "cumulative_score",
    "expectation",
    "expectation_ldl_loss",
    "gaussian_labels",
    "mean_absolute_error",
    "triangular_labels",
]
