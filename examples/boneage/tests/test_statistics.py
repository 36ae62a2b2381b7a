"""Errors, intervals, comparisons and controls, against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from boneage.data.samples import Samples
from boneage.stages.controls import median_box_scores
from boneage.stages.statistics import (
    age_errors,
    by_group,
    groups,
    interval_scores,
    paired_difference,
)

SAMPLING = {"resamples": 2000, "seed": 0}


def _ages(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    truth = rng.uniform(1, 228, count).astype(np.float32)
    return truth + rng.normal(2, 10, count).astype(np.float32), truth


def test_age_errors_by_hand() -> None:
    months, truth = np.array([10.0, 20.0, 30.0]), np.array([16.0, 20.0, 17.0])
    figures = age_errors(months, truth, np.arange(3), **SAMPLING)
    assert figures["count"] == 3
    assert figures["mae"] == pytest.approx(19 / 3)
    assert figures["rmse"] == pytest.approx(np.sqrt((36 + 169) / 3))
    assert figures["bias"] == pytest.approx(7 / 3)
    assert figures["cs6"] == pytest.approx(2 / 3)
    assert figures["cs12"] == pytest.approx(2 / 3)


def test_interval_agrees_with_scipy() -> None:
    months, truth = _ages()
    low, high = age_errors(months, truth, np.arange(len(truth)), **SAMPLING)["mae_interval"]
    error = np.abs(months.astype(np.float64) - truth)
    known = stats.bootstrap((error,), np.mean, method="percentile", rng=3).confidence_interval
    assert low == pytest.approx(known.low, abs=0.1)
    assert high == pytest.approx(known.high, abs=0.1)


def test_no_images_have_no_figures() -> None:
    assert age_errors(np.array([]), np.array([]), np.arange(0), **SAMPLING) == {"count": 0}


def test_pairing_sees_a_small_steady_gain() -> None:
    months, truth = _ages()
    worse = truth + (months - truth) * 1.05
    found = paired_difference(worse, months, truth, np.arange(len(truth)), **SAMPLING)
    assert found["gain"] == pytest.approx(0.05 * np.abs(months - truth).mean(), rel=1e-3)
    assert found["excludes_zero"]
    reverse = paired_difference(months, worse, truth, np.arange(len(truth)), **SAMPLING)
    assert reverse["gain"] == pytest.approx(-found["gain"])
    assert reverse["excludes_zero"]
    assert not paired_difference(months, months.copy(), truth, np.arange(len(truth)), **SAMPLING)[
        "excludes_zero"
    ]


@pytest.mark.parametrize(("count", "clear"), [(1, False), (9, False), (10, True)])
def test_few_images_decide_nothing(count: int, clear: bool) -> None:
    """Of one image a bootstrap's interval is a point, and of few it is too narrow."""
    truth = np.full(count, 100.0)
    found = paired_difference(truth + 9, truth + 2, truth, np.arange(len(truth)), **SAMPLING)
    assert found["gain"] == pytest.approx(7)
    assert found["excludes_zero"] is clear


def test_patients_are_drawn_with_their_images() -> None:
    """Images of a patient that err alike count once: here every patient is shown four times."""
    months, truth = _ages()
    once = np.arange(len(truth))
    four = [np.repeat(each, 4) for each in (months, truth, once)]
    shuffled = np.random.default_rng(2).permutation(len(four[0]))
    months4, truth4, patients = (each[shuffled] for each in four)
    expected = age_errors(months, truth, once, **SAMPLING)
    assert age_errors(months4, truth4, patients, **SAMPLING)["mae_interval"] == pytest.approx(
        expected["mae_interval"]
    )
    gains = [
        paired_difference(*both, **SAMPLING)["interval"]
        for both in ((truth + 11, months, truth, once), (truth4 + 11, months4, truth4, patients))
    ]
    assert gains[1] == pytest.approx(gains[0])
    alone = age_errors(months, truth, np.zeros_like(once), **SAMPLING)
    assert alone["mae_interval"] is None
    # Of few patients many images decide nothing.
    assert not paired_difference(truth + 9, truth + 2, truth, once // 40, **SAMPLING)[
        "excludes_zero"
    ]


def test_intervals_by_hand() -> None:
    low, high = np.array([0.0, 10.0, 10.0, 50.0]), np.array([5.0, 20.0, 20.0, 52.0])
    scores = interval_scores(low, high, np.array([5.0, 10.0, 20.5, 51.0]))
    assert scores["count"] == 4
    assert scores["coverage"] == 0.75
    assert scores["width"] == (5 + 10 + 10 + 2) / 4
    assert interval_scores(low[:0], low[:0], low[:0]) == {"count": 0}


@pytest.mark.parametrize(("inside", "count"), [(0, 5), (5, 5), (1, 1), (43, 50), (1300, 1469)])
def test_coverage_interval_agrees_with_scipy(inside: int, count: int) -> None:
    truth = np.where(np.arange(count) < inside, 10.0, 99.0)
    scores = interval_scores(np.full(count, 9.0), np.full(count, 11.0), truth)
    known = stats.binomtest(inside, count).proportion_ci(0.95, method="wilson")
    assert scores["coverage_interval"] == pytest.approx([known.low, known.high], abs=1e-6)


def test_ages_at_the_bounds_belong_to_the_older_band() -> None:
    truth = np.array([0.0, 59.9, 60.0, 120.0, 179.0, 180.0, 228.0])
    masks = groups(truth, truth > 100)
    bands = {name: truth[mask].tolist() for name, mask in masks.items() if "years" in name}
    assert bands == {
        "0-5 years": [0, 59.9],
        "5-10 years": [60],
        "10-15 years": [120, 179],
        "15+ years": [180, 228],
    }


def test_groups_are_complete() -> None:
    months, truth = _ages()
    male = np.arange(len(truth)) % 3 == 0
    errors = by_group(months, truth, male, np.arange(300), **SAMPLING)
    assert errors["male"]["count"] == 100
    assert errors["male"]["count"] + errors["female"]["count"] == 300
    bands = [group["count"] for name, group in errors.items() if "years" in name]
    assert sum(bands) == 300


def test_median_box_is_chosen_on_one_half_and_scored_on_the_other() -> None:
    nothing = np.full(4, np.nan)
    boxes = np.array([
        [10, 10, 30, 30], [12, 12, 32, 32], [8, 8, 28, 28],  # chosen from
        [20, 20, 60, 60],  # twice the scale: the same box in an image of twice the size
        [70, 70, 90, 90],  # elsewhere
        nothing,
    ])  # fmt: skip
    samples = Samples(
        ids=tuple("abcdef"),
        parts=np.array(["boxes-choose"] * 3 + ["boxes-score"] * 3),
        patients=np.arange(6),
        months=np.zeros(6, dtype=np.float32),
        male=np.zeros(6, dtype=bool),
        shapes=np.array([[100, 100]] * 3 + [[200, 200], [100, 100], [100, 100]]),
        paths=(),
        truth={"Wrist": boxes.astype(np.float64)},
        covariates=np.empty((6, 0), dtype=np.float32),
    )
    assert median_box_scores(samples, "Wrist") == {"mean_iou": 0.5, "ap50": 0.5, "pointing": 0.5}
    assert median_box_scores(samples, "Hand") is None


def test_pairing_of_several_models_is_that_of_their_mean_errors() -> None:
    months, truth = _ages()
    others = np.stack([months + 1, months - 4, truth + 12], axis=1)
    found = paired_difference(others, months, truth, np.arange(len(truth)), **SAMPLING)
    error = np.abs(others - truth[:, None]).mean() - np.abs(months - truth).mean()
    assert found["gain"] == pytest.approx(error, rel=1e-5)
