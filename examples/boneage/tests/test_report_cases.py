"""Which images, regions and thresholds the report page shows, and where regions are placed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report_run import Run

from boneage.data import splits
from boneage.data.samples import Samples
from boneage.report import cases, figures, tables, wording
from boneage.report.placement import place
from boneage.stages.localize import Found


def test_sweep_has_every_threshold_once(whole_run: Run) -> None:
    thresholds, rows = tables.sweep(tables.overlaps(whole_run.metrics))
    assert len(rows) == 5
    assert thresholds == sorted(set(thresholds))
    assert max(thresholds) == 0.3
    for row in rows:
        assert thresholds[row.best] == 0.2
        assert all(cell is not None for cell in row.cells)


def test_model_without_distribution_has_no_spread(whole_run: Run) -> None:
    assert whole_run.metrics["ages"]["models"]["O-L1"]["coverage90"] is None
    samples = Samples.load(whole_run.stages.prepared.folder)
    found = {name: Found.load(stage) for name, stage in whole_run.stages.regions.items()}
    rows = samples.rows(splits.TEST)[:2]
    for case in cases.gather(rows, whole_run.config, samples, whole_run.stages, found):
        bands = {reading.model: reading.band for reading in case.readings}
        assert bands.pop("O-L1") is None
        assert all(width > 0 for _, width in bands.values())


def test_chosen_images(whole_run: Run) -> None:
    samples = Samples.load(whole_run.stages.prepared.folder)
    test = samples.rows(splits.TEST)
    ages = samples.months[cases.evenly_by_age(test, samples, 6)]
    assert len(ages) == 6
    assert (np.diff(ages) >= 0).all()
    assert set(cases.evenly_by_age(test[:3], samples, 6)) == set(test[:3])
    annotated = cases.annotated_rows(samples, 6)
    assert len(set(annotated)) == 6
    assert (samples.parts[annotated] == splits.BOXES_SCORE).all()


def test_worst_and_best(whole_run: Run) -> None:
    samples = Samples.load(whole_run.stages.prepared.folder)
    test = samples.rows(splits.TEST)
    stage = whole_run.stages.ages["O"]
    worst, best = cases.by_error(test, samples, stage, 4)
    with np.load(stage / "predictions.npz") as arrays:
        said = dict(zip(arrays["rows"].tolist(), arrays["months"].tolist(), strict=True))
    errors = {row: abs(said[row] - samples.months[row]) for row in test.tolist()}
    order = sorted(errors, key=errors.__getitem__)
    assert worst.tolist() == order[::-1][:4]
    assert best.tolist() == order[:4]


def test_centres_are_placed_in_the_hand(whole_run: Run) -> None:
    samples = Samples.load(whole_run.stages.prepared.folder)
    found = {name: Found.load(stage) for name, stage in whole_run.stages.regions.items()}
    placement = place(samples, found)
    assert placement is not None
    assert placement.count == 6
    # Wrist (46, 92), metacarpals (46, 50): 42 pixels upwards are one unit along the hand.
    np.testing.assert_allclose(placement.centres["region1"], [[-0.5 / 42, -2 / 42]] * 6, atol=1e-6)
    np.testing.assert_allclose(placement.centres["region2"], [[1 / 42, 45 / 42]] * 6, atol=1e-6)
    assert placement.outlines["Wrist"] == pytest.approx((32 / 42, 24 / 42))
    assert placement.shares["region1"] == {"Wrist": 1, "Metacarpal": 0, "elsewhere": 0}
    assert placement.shares["region2"] == {"Wrist": 0, "Metacarpal": 1, "elsewhere": 0}


def test_regions_never_found_and_boxes_of_one_centre(whole_run: Run) -> None:
    samples = Samples.load(whole_run.stages.prepared.folder)
    samples = replace(samples, truth={**samples.truth, "Metacarpal": samples.truth["Wrist"]})
    none = Found(np.zeros((len(samples), 4)), np.zeros(len(samples), dtype=bool))
    placement = place(samples, {"region1": none, "region2": none})
    assert placement is not None
    assert len(placement.centres["region1"]) == 0
    assert np.isfinite(list(placement.outlines.values())).all()
    assert wording.centres("region1", placement.shares["region1"]).endswith("in any of them.")
    assert figures.placement_figure(placement).alt


def test_no_boxes_place_nothing(plain_run: Run) -> None:
    samples = Samples.load(plain_run.stages.prepared.folder)
    found = {name: Found.load(stage) for name, stage in plain_run.stages.regions.items()}
    assert place(samples, found) is None
