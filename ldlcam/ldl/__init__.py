"""Label distributions: how much, and how sure."""

from ldlcam.ldl.bins import Bins
from ldlcam.ldl.calibration import LinearBiasCorrection, TemperatureScaling
from ldlcam.ldl.conformal import ConformalIntervals
from ldlcam.ldl.heads import ExpectationHead
from ldlcam.ldl.labels import (
    gaussian_labels,
    laplace_labels,
    one_hot_labels,
    published_gaussian_labels,
    triangular_labels,
    two_hot_labels,
)
from ldlcam.ldl.losses import ExpectationLDLLoss, LossTerms, expectation_ldl_loss
from ldlcam.ldl.metrics import (
    cumulative_score,
    mean_absolute_error,
    mean_error,
    root_mean_squared_error,
)
from ldlcam.ldl.plots import (
    plot_bland_altman,
    plot_distributions,
    plot_error_by_value,
    plot_reliability,
)
from ldlcam.ldl.prediction import Interval, LabelDistribution, expectation
from ldlcam.ldl.relatives import (
    BinCrossEntropyLoss,
    CRPSLoss,
    ExpectationLoss,
    LabelDivergenceLoss,
    MeanVarianceLoss,
    MeanVarianceTerms,
)
from ldlcam.ldl.reliability import (
    coverage_by_level,
    expected_calibration_error,
    interval_coverage,
    mean_crps,
    probability_integral_transform,
)
from ldlcam.ldl.resampling import Estimate, bootstrap, by_group
from ldlcam.ldl.similarity import DistributionSimilarity, distribution_similarity

__all__ = [
    "BinCrossEntropyLoss",
    "Bins",
    "CRPSLoss",
    "ConformalIntervals",
    "DistributionSimilarity",
    "Estimate",
    "ExpectationHead",
    "ExpectationLDLLoss",
    "ExpectationLoss",
    "Interval",
    "LabelDistribution",
    "LabelDivergenceLoss",
    "LinearBiasCorrection",
    "LossTerms",
    "MeanVarianceLoss",
    "MeanVarianceTerms",
    "TemperatureScaling",
    "bootstrap",
    "by_group",
    "coverage_by_level",
    "cumulative_score",
    "distribution_similarity",
    "expectation",
    "expectation_ldl_loss",
    "expected_calibration_error",
    "gaussian_labels",
    "interval_coverage",
    "laplace_labels",
    "mean_absolute_error",
    "mean_crps",
    "mean_error",
    "one_hot_labels",
    "plot_bland_altman",
    "plot_distributions",
    "plot_error_by_value",
    "plot_reliability",
    "probability_integral_transform",
    "published_gaussian_labels",
    "root_mean_squared_error",
    "triangular_labels",
    "two_hot_labels",
]
