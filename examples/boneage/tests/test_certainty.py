"""What the report page says of certainty: distributions, reliability, and coverage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from ldlcam import Bins, LabelDistribution, gaussian_labels
from report_run import Page, Run, make_run

from boneage.config import LOSSES, Training
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.networks.losses import make_labels
from boneage.report import certainty, drawing
from boneage.report.distribution_figures import (
    distribution_figure,
    pit_figure,
    reliability_figure,
)
from boneage.run_folder import read_arrays
from boneage.stages.evaluate import test_distributions as distributions_of
from boneage.stages.evaluate import test_predictions as predictions_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = Bins(1, 240, unit="months")


def kept_back(run: Run) -> tuple[Samples, np.ndarray]:
    samples = Samples.load(run.stages.prepared.folder)
    return samples, samples.rows(splits.TEST)


def test_distributions_as_trained_are_the_networks_own(corrected_run: Run) -> None:
    samples, rows = kept_back(corrected_run)
    stage = corrected_run.stages.ages["O"]
    stored = read_arrays(stage / "outputs.npz")["outputs"]
    of_others = np.flatnonzero(samples.parts != splits.TRAIN)
    logits = stored[np.isin(of_others, rows)]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    states = distributions_of(corrected_run.config, stage, rows)
    assert list(states) == ["as trained", "corrected"]
    np.testing.assert_allclose(
        states["as trained"].probs, odds / odds.sum(1, keepdims=True), atol=1e-6
    )


@pytest.mark.parametrize("name", ["O", "H+R1+R2", "E"])
def test_corrected_distributions_are_those_that_were_told(corrected_run: Run, name: str) -> None:
    _, rows = kept_back(corrected_run)
    stage = corrected_run.stages.ages[name]
    told = predictions_of(stage, rows)
    corrected = distributions_of(corrected_run.config, stage, rows)["corrected"]
    np.testing.assert_allclose(corrected.mean, told["months"], rtol=1e-5)
    np.testing.assert_allclose(corrected.stddev, told["sd"], rtol=1e-4)


def test_nothing_is_corrected_unless_it_is_asked_for(whole_run: Run) -> None:
    _, rows = kept_back(whole_run)
    stages = whole_run.stages.ages
    assert distributions_of(whole_run.config, stages["O-L1"], rows) == {}
    assert list(distributions_of(whole_run.config, stages["O"], rows)) == ["as trained"]


@pytest.mark.parametrize("name", ["O-L1", "O", "H+R1+R2", "E"])
def test_coverage_by_hand(corrected_run: Run, name: str) -> None:
    samples, rows = kept_back(corrected_run)
    told = predictions_of(corrected_run.stages.ages[name], rows)
    truth, male = samples.months[rows], samples.male[rows]
    inside = (told["low"] <= truth) & (truth <= told["high"])
    scores = corrected_run.metrics["ages"]["models"][name]
    assert scores["coverage90"] == inside.mean()
    assert scores["intervals90"]["all"]["coverage"] == inside.mean()
    assert scores["intervals90"]["female"]["coverage"] == inside[~male].mean()
    assert scores["intervals90"]["female"]["width"] == pytest.approx(
        (told["high"] - told["low"])[~male].mean()
    )
    groups = scores["intervals90"]
    assert sum(groups[sex]["count"] for sex in ("male", "female")) == len(rows)
    assert sum(groups[band]["count"] for band in groups if "years" in band) == len(rows)


def test_page_says_where_certainty_comes_from(whole_run: Run, corrected_run: Run) -> None:
    plain, corrected = (" ".join(Page(run.page).text.split()) for run in (whole_run, corrected_run))
    assert "no correction was fitted. The 90% intervals are those of the distributions" in plain
    assert "O-L1 tells a single age for each image, not a distribution, so there is no" in plain
    assert "corrected on the validation images: their width by a temperature and their" in corrected
    assert "The 90% intervals are conformal" in corrected
    assert "beyond that of its conformal intervals" in corrected
    for name in ("O", "H+R1+R2", "E"):
        assert f"{name}: reliability" in corrected
        figures = corrected_run.metrics["ages"]["models"][name]["distributions"]["corrected"]
        assert f"corrected{figures['crps']:.2f} {figures['ece']:.3f}" in corrected


def test_labels_are_those_that_training_asks_for() -> None:
    months, training = torch.tensor([24.0, 100.0]), Training(sigma=7)
    for loss in LOSSES:
        labels = make_labels(loss, months, BINS, training)
        if loss in ("kl", "ldl"):
            torch.testing.assert_close(labels, gaussian_labels(months, BINS, 7.0))
        else:
            assert labels is None


@pytest.mark.parametrize(("loss", "labelled"), [("kl", True), ("crps", False)])
def test_only_losses_with_labels_have_any_to_show(
    tmp_path: Path, no_figures: None, loss: str, labelled: bool
) -> None:
    run = make_run(tmp_path, loss=loss)
    samples, rows = kept_back(run)
    shown = certainty.learned("O", run.config, run.stages, samples, rows[:3])
    assert shown.labelled is labelled
    assert len(shown.figures) == 3
    words = " ".join(Page(run.page).text.split())
    assert ("The shaded hill is the label" in words) is labelled
    assert ("so there is no label distribution" in words) is not labelled


@pytest.fixture
def figures_made(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, as they were in the light scheme and in the dark."""
    made: list[Figure] = []

    def render(make: Callable[..., Figure], ink: drawing.Ink, size: tuple[float, float]) -> str:
        made.append(make(ink))
        return "data:,"

    monkeypatch.setattr(drawing, "_render", render)
    return made


def test_no_line_is_black_on_black(figures_made: list[Figure]) -> None:
    predicted = LabelDistribution(torch.zeros(1, 240), BINS)
    label = gaussian_labels(torch.tensor([50.0]), BINS, 15.0)
    distribution_figure("1: boy", predicted, label, 50.0)
    reliability_figure("O", {"as trained": predicted}, np.array([50.0]), None)
    assert len(figures_made) == 4
    for figure in figures_made:
        colours = [line.get_color() for line in figure.axes[0].lines]
        assert len(colours) >= 2
        assert "black" not in colours


def test_distribution_figure_shows_line_label_and_truth(figures_made: list[Figure]) -> None:
    predicted = LabelDistribution(torch.zeros(1, 240), BINS)
    picture = distribution_figure("1: boy", predicted, None, 50.0)
    (axes,) = figures_made[0].axes
    assert axes.get_legend() is None
    line, mean, truth = axes.lines
    np.testing.assert_allclose(line.get_ydata(), 1 / 240, rtol=1e-5)
    assert mean.get_xdata()[0] == pytest.approx(120.5)
    assert truth.get_xdata()[0] == 50
    assert not axes.collections
    assert picture.alt == "Distribution of 1: boy: mean 120, standard deviation 69 months."


def test_conformal_coverage_is_a_point_of_its_own(figures_made: list[Figure]) -> None:
    states = {"as trained": LabelDistribution(torch.zeros(4, 240), BINS)}
    truth = np.array([20.0, 100.0, 120.5, 239.0])
    picture = reliability_figure("O", states, truth, 0.75)
    (axes,) = figures_made[0].axes
    assert axes.lines[-1].get_xydata().tolist() == [[0.9, 0.75]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "as trained",
        "conformal 90%",
    ]
    assert picture.alt == "Reliability of O: share of ages inside of central 90% intervals " + (
        "as trained 75%."
    )


def test_places_of_the_truth_by_hand(figures_made: list[Figure]) -> None:
    states = {"as trained": LabelDistribution(torch.zeros(4, 240), BINS)}
    picture = pit_figure("O", states, np.array([2.0, 10.0, 130.0, 240.4]))
    (axes,) = figures_made[0].axes
    (bars,) = axes.patches[1:]
    assert bars.get_data().values.tolist() == [0.5, 0, 0, 0, 0, 0.25, 0, 0, 0, 0.25]
    assert "50% in the lowest tenth, 25% in the highest" in picture.alt


def test_ages_beyond_the_bins_are_counted(figures_made: list[Figure]) -> None:
    states = {"as trained": LabelDistribution(torch.zeros(2, 240), BINS)}
    picture = pit_figure("O", states, np.array([0.0, 300.0]))
    assert "50% in the lowest tenth, 50% in the highest" in picture.alt
