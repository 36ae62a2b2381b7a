"""Attention localization: from a classifier's features to the regions it looked at."""

from ldlcam.cam.boxes import (
    box_iou,
    clip_boxes,
    crop_to_image,
    fill_boxes,
    match_aspect,
    pad_boxes,
    scale_boxes,
)
from ldlcam.cam.cascade import AttentionCascade, CascadeHistory
from ldlcam.cam.crops import crop_and_resize
from ldlcam.cam.erasing import erase_boxes, erase_masks
from ldlcam.cam.feature_erasing import Complementary, FeatureErasing, erase_features
from ldlcam.cam.heads import CAMHead
from ldlcam.cam.heatmaps import (
    class_activation_map,
    normalize_heatmaps,
    trim_heatmaps,
    valid_heatmaps,
)
from ldlcam.cam.levelsets import levelset_boxes, levelset_components
from ldlcam.cam.metrics import (
    BoxAccuracyResult,
    ThresholdSweepResult,
    average_precision,
    box_accuracy,
    mean_iou,
    pointing_game,
    threshold_sweep,
)
from ldlcam.cam.pixel_metrics import pixel_average_precision
from ldlcam.cam.plots import overlay_heatmaps, plot_regions, plot_threshold_sweep
from ldlcam.cam.pooling import GeneralizedMeanPool, LogSumExpPool
from ldlcam.cam.regions import Regions, mask_boxes, threshold_mask
from ldlcam.cam.thresholds import (
    fraction_to_jet,
    jet_to_fraction,
    otsu_threshold,
    percentile_threshold,
)

__all__ = [
    "AttentionCascade",
    "BoxAccuracyResult",
    "CAMHead",
    "CascadeHistory",
    "Complementary",
    "FeatureErasing",
    "GeneralizedMeanPool",
    "LogSumExpPool",
    "Regions",
    "ThresholdSweepResult",
    "average_precision",
    "box_accuracy",
    "box_iou",
    "class_activation_map",
    "clip_boxes",
    "crop_and_resize",
    "crop_to_image",
    "erase_boxes",
    "erase_features",
    "erase_masks",
    "fill_boxes",
    "fraction_to_jet",
    "jet_to_fraction",
    "levelset_boxes",
    "levelset_components",
    "mask_boxes",
    "match_aspect",
    "mean_iou",
    "normalize_heatmaps",
    "otsu_threshold",
    "overlay_heatmaps",
    "pad_boxes",
    "percentile_threshold",
    "pixel_average_precision",
    "plot_regions",
    "plot_threshold_sweep",
    "pointing_game",
    "scale_boxes",
    "threshold_mask",
    "threshold_sweep",
    "trim_heatmaps",
    "valid_heatmaps",
]
