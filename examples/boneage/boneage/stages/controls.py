"""Controls that learn nothing: what a localization score must be compared with."""

from __future__ import annotations

import numpy as np
import torch
from ldlcam import average_precision, mean_iou, scale_boxes

from boneage.data import splits
from boneage.data.samples import Samples

_UNIT = (1, 1)


def median_box_scores(samples: Samples, name: str) -> dict[str, float] | None:
    """Scores of a fixed box and a fixed point: the medians over the choosing half.

    Args:
        samples: The data set.
        name: The annotated region.

    Returns:
        Mean IoU and AP50 of the median box and the share of boxes that hold the median centre,
        on the scoring half; None where there are no boxes to choose or to score by.
    """
    choose = samples.boxed_rows(name, splits.BOXES_CHOOSE)
    score = samples.boxed_rows(name, splits.BOXES_SCORE)
    if len(choose) == 0 or len(score) == 0:
        return None
    known, truth = (_relative(samples, name, rows) for rows in (choose, score))
    box = known.median(dim=0).values
    point = ((known[:, :2] + known[:, 2:]) / 2).median(dim=0).values
    inside = ((point >= truth[:, :2]) & (point < truth[:, 2:])).all(dim=1)
    boxes = box.expand_as(truth)
    return {
        "mean_iou": float(mean_iou(boxes, truth)),
        "ap50": float(average_precision(boxes, truth)),
        "pointing": float(inside.double().mean()),
    }


def _relative(samples: Samples, name: str, rows: np.ndarray) -> torch.Tensor:
    """Annotated boxes in fractions of their image, so that images of all sizes can be compared."""
    boxes = torch.from_numpy(samples.truth[name][rows])
    return scale_boxes(boxes, torch.from_numpy(samples.shapes[rows]), _UNIT)
