import numpy as np
import pytest
import torch

from ldlcam.ldl import (
    Bins,
    LabelDistribution,
    coverage_by_level,
    gaussian_labels,
    mean_absolute_error,
    plot_bland_altman,
    plot_distributions,
    plot_error_by_value,
    plot_reliability,
)

MONTHS = Bins(1, 240, unit="months")


def predict(count: int) -> LabelDistribution:
    return LabelDistribution(torch.randn(count, 240), MONTHS)


def test_distributions() -> None:
    predicted, ages = predict(4), torch.tensor([24.0, 96.0, torch.nan, 200.0])
    labels = gaussian_labels(ages, MONTHS, 15.0)
    figure = plot_distributions(predicted, labels, ages, titles=list("abcd"))
    assert [axes.get_title() for axes in figure.axes] == list("abcd")
    for i, axes in enumerate(figure.axes):
        curve, mean, *true = axes.lines
        np.testing.assert_allclose(curve.get_ydata(), predicted.probs[i], rtol=1e-5)
        assert mean.get_xdata()[0] == pytest.approx(predicted.mean[i].item())
        assert [line.get_xdata()[0] for line in true] == ([] if i == 2 else [ages[i].item()])
    assert figure.axes[0].get_xlabel() == "months"


def test_distributions_alone() -> None:
    assert len(plot_distributions(predict(1)).axes) == 1


def test_bland_altman() -> None:
    predictions, ages = (
        torch.tensor([10.0, 22.0, 33.0, 7.0]),
        torch.tensor([11.0, 20.0, 30.0, torch.nan]),
    )
    axes = plot_bland_altman(predictions, ages, unit="months").axes[0]
    dots, mean, upper, lower = axes.lines
    np.testing.assert_allclose(dots.get_ydata(), [-1, 2, 3])
    np.testing.assert_allclose(dots.get_xdata(), [10.5, 21, 31.5])
    spread = 1.96 * np.std([-1, 2, 3], ddof=1)
    heights = [line.get_ydata()[0] for line in (mean, upper, lower)]
    np.testing.assert_allclose(heights, [4 / 3, 4 / 3 + spread, 4 / 3 - spread], rtol=1e-6)
    assert "(months)" in axes.get_xlabel()


@pytest.mark.parametrize("count", [0, 1])
def test_bland_altman_of_almost_nothing(count: int) -> None:
    assert plot_bland_altman(torch.zeros(count), torch.ones(count)).axes


def test_reliability() -> None:
    predicted, ages = predict(50), 240 * torch.rand(50)
    axes = plot_reliability({"before": predicted, "after": predicted.tempered(2.0)}, ages).axes[0]
    before, after = axes.lines[1:]
    np.testing.assert_allclose(before.get_ydata(), coverage_by_level(predicted, ages))
    assert [line.get_label() for line in (before, after)] == ["before", "after"]


def test_error_by_value() -> None:
    ages = torch.tensor([10.0, 20.0, 60.0, 65.0, torch.nan])
    predictions = {"O": ages + torch.tensor([1.0, -3, 5, 5, 0]), "R": ages}
    bands = Bins(12, 84, 24, unit="months")
    figure = plot_error_by_value(predictions, ages, bands)
    errors, bias = figure.axes
    assert errors.get_ylabel() == "mean absolute error (months)"
    # Two bands have values, for two predictions.
    for axes, heights in ((errors, [2, 5, 0, 0]), (bias, [-1, 5, 0, 0])):
        dots = [container.lines[0].get_ydata() for container in axes.containers]
        np.testing.assert_allclose(np.concatenate(dots), heights, atol=1e-5)
    want = mean_absolute_error(predictions["O"][:2], ages[:2]).item()
    assert want == 2
    assert [text.get_text() for text in errors.get_legend().get_texts()] == ["O", "R"]


def test_errors_of_people_who_are_shown_twice() -> None:
    """Each bar is the interval of the people in that band."""
    ages = torch.tensor([20.0, 20.0, 30.0, 30.0, torch.nan, 70.0, 75.0])
    values = ages + torch.tensor([4.0, 4.0, -1.0, -1.0, 0.0, 2.0, 3.0])
    person = torch.tensor([5, 5, 6, 6, 5, 7, 8])
    bands = Bins(25, 73, 48)
    errors = plot_error_by_value({"O": values}, ages, bands, cluster=person).axes[0]
    (container,) = errors.containers
    bars = [bar[:, 1].tolist() for bar in container.lines[2][0].get_segments()]
    assert bars == [[1, 4], [2, 3]]
    with pytest.raises(ValueError, match=r"cluster: expected shape \(N,\) with N = 7"):
        plot_error_by_value({"O": values}, ages, MONTHS, cluster=person[1:])


def test_the_default_device_draws_nothing() -> None:
    ages = 240 * torch.rand(9)
    with torch.device("meta"):
        assert plot_bland_altman(ages, ages).axes
        assert plot_error_by_value({"O": ages}, ages, MONTHS).axes


def test_what_lies_beyond_the_bands_or_alone() -> None:
    ages = torch.tensor([10.0, 20.0, 62.0, 300.0])
    bands = Bins(12, 84, 24)  # from 0 to 96
    errors = plot_error_by_value({"O": ages + 2}, ages, bands).axes[0]
    (container,) = errors.containers
    np.testing.assert_allclose(container.lines[0].get_xdata(), [12, 60])
    of_two, of_one = container.lines[2][0].get_segments()
    np.testing.assert_allclose(of_two, [[12, 2], [12, 2]])
    assert of_one.size == 0
    nothing = plot_error_by_value({"O": ages + 2}, ages + 400, bands)
    assert not nothing.axes[0].containers[0].lines[0].get_xdata().size


def test_arguments() -> None:
    ages = torch.ones(2)
    with pytest.raises(ValueError, match="predicted: expected at least one, got none"):
        plot_distributions(predict(0))
    with pytest.raises(ValueError, match=r"labels: expected shape \(N, K\) with N = 2, K = 240"):
        plot_distributions(predict(2), torch.zeros(2, 239))
    with pytest.raises(ValueError, match="titles: expected 2, got 1"):
        plot_distributions(predict(2), titles=["a"])
    with pytest.raises(ValueError, match=r"targets: expected shape \(N,\) with N = 2"):
        plot_bland_altman(ages, ages[:1])
    with pytest.raises(ValueError, match="predicted: expected at least one, got none"):
        plot_reliability({}, ages)
    with pytest.raises(ValueError, match="predictions: expected at least one, got none"):
        plot_error_by_value({}, ages, MONTHS)
    with pytest.raises(TypeError, match="bands: expected a Bins, got int"):
        plot_error_by_value({"O": ages}, ages, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"predictions: expected shape \(N,\) with N = 2"):
        plot_error_by_value({"O": torch.ones(3)}, ages, MONTHS)


def test_what_is_no_mapping_is_named() -> None:
    ages = torch.rand(5)
    predicted = LabelDistribution(torch.zeros(5, 240), Bins(1, 240))
    with pytest.raises(TypeError, match="predicted: expected a mapping by names, got LabelD"):
        plot_reliability(predicted, ages)
    with pytest.raises(TypeError, match="predictions: expected a mapping by names, got Tensor"):
        plot_error_by_value(ages, ages, Bins(0, 1))
    with pytest.raises(ValueError, match="columns: expected"):
        plot_distributions(predicted, columns=0)


def test_distributions_of_half_precision() -> None:
    labels = gaussian_labels(torch.tensor([24.0, 96.0]), MONTHS, 15.0)
    figure = plot_distributions(predict(2), labels.bfloat16(), torch.ones(2).bfloat16())
    assert len(figure.axes) == 2


def test_logits_are_no_distribution() -> None:
    with pytest.raises(TypeError, match="predicted: expected a LabelDistribution, got Tensor"):
        plot_distributions(torch.zeros(2, 240))
