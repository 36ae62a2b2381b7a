from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ldlcam.ldl import (
    Bins,
    Estimate,
    LabelDistribution,
    bootstrap,
    by_group,
    mean_absolute_error,
    mean_crps,
    mean_error,
)


def pairs(count: int) -> tuple[Tensor, Tensor]:
    targets = 240 * torch.rand(count, dtype=torch.float64)
    return targets + 10 * torch.randn(count, dtype=torch.float64), targets


def interval_of_the_mean(samples: np.ndarray) -> Any:
    """What scipy has, with `low` and `high`."""
    return stats.bootstrap(
        (samples,), np.mean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval


class TestBootstrap:
    def test_against_scipy(self) -> None:
        predictions, targets = pairs(400)
        found = bootstrap(mean_absolute_error, predictions, targets, resamples=4000)
        errors = (predictions - targets).abs().numpy()
        want = interval_of_the_mean(errors)
        assert found.value.item() == pytest.approx(errors.mean())
        assert found.low.item() == pytest.approx(want.low, abs=0.1)
        assert found.high.item() == pytest.approx(want.high, abs=0.1)

    def test_differences_are_paired(self) -> None:
        """Two predictions that share their errors: the difference is sure, each alone is not."""
        first, targets = pairs(300)
        second = first + 1
        low, high = bootstrap(
            lambda a, b, y: mean_error(a, y) - mean_error(b, y), first, second, targets
        )[1:]
        assert low.item() == pytest.approx(-1)
        assert high.item() == pytest.approx(-1)

    def test_it_is_the_seed_that_decides(self) -> None:
        samples = pairs(50)
        first, again, other = (
            bootstrap(mean_error, *samples, seed=seed, resamples=50) for seed in (1, 1, 2)
        )
        assert first == again
        assert first != other

    def test_missing_targets(self) -> None:
        predictions, targets = pairs(40)
        targets[::2] = torch.nan
        found = bootstrap(mean_absolute_error, predictions, targets, resamples=100)
        assert all(value.isfinite() for value in found)
        empty = bootstrap(mean_absolute_error, predictions[:0], targets[:0])
        assert all(value.isnan() for value in empty)
        nothing = bootstrap(mean_absolute_error, predictions[::2], targets[::2], resamples=10)
        assert all(value.isnan() for value in nothing)

    def test_what_cannot_be_told(self) -> None:
        """A spoilt value has no interval from the draws that miss what spoils it."""
        predictions, targets = pairs(50)
        predictions[0] = torch.nan
        assert all(end.isnan() for end in bootstrap(mean_absolute_error, predictions, targets))
        predictions[0] = torch.inf
        value, low, high = bootstrap(mean_absolute_error, predictions, targets, resamples=200)
        assert value == high == torch.inf
        assert low.isfinite()

    @pytest.mark.parametrize("cluster", [None, torch.zeros(1, dtype=torch.long)])
    def test_one_alone_has_no_interval(self, cluster: Tensor | None) -> None:
        value, low, high = bootstrap(mean_absolute_error, *pairs(1), cluster=cluster)
        assert value.isfinite()
        assert low.isnan()
        assert high.isnan()
        together = torch.full((9,), 3)
        value, low, high = bootstrap(mean_absolute_error, *pairs(9), cluster=together)
        assert value.isfinite()
        assert low.isnan()
        assert high.isnan()

    def test_distributions_are_samples_too(self) -> None:
        predicted = LabelDistribution(torch.randn(60, 240), Bins(1, 240))
        value, low, high = bootstrap(mean_crps, predicted, 240 * torch.rand(60), resamples=100)
        assert low < value < high

    def test_clusters_against_means_of_each(self) -> None:
        """Of equal clusters, the mean is that of their means, and so is its interval."""
        people = torch.randperm(80).repeat_interleave(5)
        shuffled = torch.randperm(400)
        errors = (10 * torch.randn(80, dtype=torch.float64)).repeat_interleave(5)
        errors = errors + torch.randn(400, dtype=torch.float64)
        found = bootstrap(
            torch.mean, errors[shuffled], cluster=people[shuffled] - 7, resamples=4000
        )
        means = errors.reshape(80, 5).mean(1).numpy()
        want = interval_of_the_mean(means)
        assert found.value.item() == pytest.approx(means.mean())
        assert found.low.item() == pytest.approx(want.low, abs=0.15)
        assert found.high.item() == pytest.approx(want.high, abs=0.15)

    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.integers(0, 99))
    def test_a_cluster_is_drawn_whole(self, people: list[int], seed: int) -> None:
        """Of clusters of any sizes, as many as there are, each with all of its samples."""
        cluster = torch.tensor(people)
        drawn: list[Tensor] = []

        def metric(each: Tensor) -> Tensor:
            drawn.append(each)
            return each.double().mean()

        bootstrap(metric, torch.arange(len(people)), cluster=cluster, resamples=5, seed=seed)
        assert len(drawn) == (6 if len(set(people)) > 1 else 1)
        for samples in drawn[1:]:
            times = torch.bincount(samples, minlength=len(people))
            of_each = {person: set(times[cluster == person].tolist()) for person in set(people)}
            assert all(len(counts) == 1 for counts in of_each.values())
            assert sum(counts.pop() for counts in of_each.values()) == len(set(people))

    def test_clusters_of_one_are_samples(self) -> None:
        samples = pairs(50)
        expected = bootstrap(mean_absolute_error, *samples, resamples=50)
        found = bootstrap(mean_absolute_error, *samples, cluster=torch.arange(50), resamples=50)
        assert found == expected
        nobody = torch.zeros(0, dtype=torch.long)
        empty = bootstrap(mean_error, *(each[:0] for each in samples), cluster=nobody)
        assert all(value.isnan() for value in empty)

    def test_arguments(self) -> None:
        with pytest.raises(ValueError, match=r"cluster: expected shape \(N,\) with N = 3"):
            bootstrap(mean_error, *pairs(3), cluster=torch.zeros(2, dtype=torch.long))
        with pytest.raises(TypeError, match="cluster: expected a tensor of integer dtype"):
            bootstrap(mean_error, *pairs(3), cluster=torch.zeros(3))
        with pytest.raises(ValueError, match="samples: expected one or more, got none"):
            bootstrap(mean_error)
        with pytest.raises(ValueError, match=r"samples: expected as many of each, got \[3, 2\]"):
            bootstrap(mean_error, torch.zeros(3), torch.zeros(2))
        with pytest.raises(ValueError, match=r"level: expected a number in \(0, 1\)"):
            bootstrap(mean_error, *pairs(3), level=1.0)
        with pytest.raises(ValueError, match="resamples: expected an integer of at least 1"):
            bootstrap(mean_error, *pairs(3), resamples=0)
        with pytest.raises(TypeError, match=r"samples: expected tensors or .*, got list"):
            bootstrap(mean_error, [1.0, 2.0], [1.0, 2.0])


class TestByGroup:
    def test_each_group_alone(self) -> None:
        predictions, targets = pairs(90)
        group = torch.arange(90) % 3
        found = by_group(mean_absolute_error, group, predictions, targets)
        for index, value in enumerate(found):
            want = mean_absolute_error(predictions[index::3], targets[index::3])
            assert torch.equal(value, want)

    def test_bands_of_values(self) -> None:
        predictions, targets = pairs(200)
        bands = Bins(24, 216, 48)
        found = by_group(mean_error, bands.index(targets), predictions, targets, groups=len(bands))
        assert len(found) == 5
        inside = (targets >= 96) & (targets < 144)
        assert torch.equal(found[2], mean_error(predictions[inside], targets[inside]))

    def test_with_intervals(self) -> None:
        found = by_group(
            partial(bootstrap, mean_error, resamples=50), torch.arange(60) % 2, *pairs(60)
        )
        assert [type(one) for one in found] == [Estimate, Estimate]
        assert all(one.low <= one.value <= one.high for one in found)

    def test_groups_without_samples_and_samples_without_group(self) -> None:
        group = torch.tensor([0, 2, -1, 7])
        found = by_group(mean_error, group, torch.arange(4.0), torch.zeros(4), groups=3)
        assert found[0] == 0
        assert found[1].isnan()
        assert found[2] == 1
        assert by_group(mean_error, group[:0], torch.zeros(0), torch.zeros(0)) == []

    def test_arguments(self) -> None:
        with pytest.raises(TypeError, match="group: expected a tensor of integer dtype"):
            by_group(mean_error, torch.zeros(3), *pairs(3))
        with pytest.raises(ValueError, match="samples: expected 3 as group has, got 2"):
            by_group(mean_error, torch.arange(3), *pairs(2))
        for groups in (2.5, -1):
            with pytest.raises(ValueError, match="groups: expected an integer of at least 0"):
                by_group(mean_error, torch.arange(3), *pairs(3), groups=groups)  # type: ignore[arg-type]

    def test_unsigned_groups(self) -> None:
        samples = pairs(6)
        expected = by_group(mean_error, torch.arange(6) % 2, *samples)
        found = by_group(mean_error, (torch.arange(6) % 2).to(torch.uint16), *samples)
        assert found == expected


def test_several_figures_have_an_interval_each() -> None:
    errors = torch.randn(200, 3) * torch.tensor([1.0, 10.0, 100.0])
    value, low, high = bootstrap(lambda each: each.abs().mean(0), errors, resamples=300)
    for column in range(3):
        alone = bootstrap(lambda each: each.abs().mean(), errors[:, column], resamples=300)
        torch.testing.assert_close(
            torch.stack((value[column], low[column], high[column])), torch.stack(alone)
        )


@pytest.mark.parametrize("result", [1.0, torch.ones((), dtype=torch.long)])
def test_a_metric_without_a_floating_result_is_named(result: object) -> None:
    with pytest.raises(TypeError, match="metric: expected a tensor"):
        bootstrap(lambda each: result, torch.ones(5))


def test_no_graph_is_kept_of_the_draws() -> None:
    samples = torch.randn(9, requires_grad=True)
    value, low, high = bootstrap(torch.mean, samples, resamples=9)
    assert value.requires_grad
    assert not low.requires_grad
    assert not high.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_figures_in_half_precision(dtype: torch.dtype) -> None:
    errors = torch.randn(50).to(dtype)
    value, low, high = bootstrap(torch.mean, errors, resamples=50)
    assert low < value < high
    for count in (50, 0):
        found = bootstrap(torch.mean, errors[:count], resamples=9)
        assert [one.dtype for one in found] == [dtype, torch.float32, torch.float32]


def test_a_single_number_is_no_sample() -> None:
    number = torch.tensor(1.0)
    single = LabelDistribution(torch.zeros(240), Bins(1, 240))
    for samples in ((number,), (number, number), (single,)):
        with pytest.raises(ValueError, match=r"samples: expected shape \(N, ...\), got \(\)"):
            bootstrap(mean_error, *samples)
        with pytest.raises(ValueError, match=r"samples: expected shape \(N, ...\), got \(\)"):
            by_group(mean_error, torch.arange(3), *samples)


def test_the_default_device_is_not_that_of_the_draws() -> None:
    values, targets = pairs(20)
    expected = bootstrap(mean_absolute_error, values, targets, resamples=50)
    with torch.device("meta"):
        estimate = bootstrap(mean_absolute_error, values, targets, resamples=50)
        each = torch.arange(20, device="cpu")
        alone = bootstrap(mean_absolute_error, values, targets, cluster=each, resamples=50)
    torch.testing.assert_close(estimate.low, expected.low)
    torch.testing.assert_close(alone.low, expected.low)
