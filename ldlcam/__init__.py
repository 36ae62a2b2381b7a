"""Attention localization and label-distribution learning: where, how much, and how sure.

Two wings that do not know of each other. The `cam` wing goes from a classifier's features to the
regions it looked at: heat maps, masks, boxes, crops, erased images. The `ldl` wing goes from a
value to a distribution and back: bins, labels, heads, losses, predictions. Every public name is
here.
"""

from ldlcam.cam import (
    CAMHead,
    GeneralizedMeanPool,
    LogSumExpPool,
    Regions,
    ThresholdSweep,
    average_precision,
    box_iou,
    class_activation_map,
    clip_boxes,
    crop_and_resize,
    crop_to_image,
    erase_boxes,
    fill_boxes,
    levelset_boxes,
    mask_boxes,
    match_aspect,
    mean_iou,
    normalize_heatmaps,
    pad_boxes,
    pointing_game,
    scale_boxes,
    threshold_mask,
    threshold_sweep,
    valid_heatmaps,
)
from ldlcam.ldl import (
    Bins,
    ExpectationHead,
    ExpectationLDLLoss,
    Interval,
    LabelDistribution,
    LossTerms,
    cumulative_score,
    expectation,
    expectation_ldl_loss,
    gaussian_labels,
    mean_absolute_error,
    triangular_labels,
)

__version__ = "0.1.0"

__all__ = [
    "Bins",
    "CAMHead",
    "ExpectationHead",
    "ExpectationLDLLoss",
    "GeneralizedMeanPool",
    "Interval",
    "LabelDistribution",
    "LogSumExpPool",
    "LossTerms",
    "Regions",
    "ThresholdSweep",
    "average_precision",
    "box_iou",
    "class_activation_map",
    "clip_boxes",
    "crop_and_resize",
    "crop_to_image",
    "cumulative_score",
    "erase_boxes",
    "expectation",
    "expectation_ldl_loss",
    "fill_boxes",
    "gaussian_labels",
    "levelset_boxes",
    "mask_boxes",
    "match_aspect",
    "mean_absolute_error",
    "mean_iou",
    "normalize_heatmaps",
    "pad_boxes",
    "pointing_game",
    "scale_boxes",
    "threshold_mask",
    "threshold_sweep",
    "triangular_labels",
    "valid_heatmaps",
]
