import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ldlcam.ldl import Bins, ConformalIntervals, LabelDistribution
from ldlcam.ldl.conformal import SCORES

MONTHS = Bins(1, 240, unit="months")
every_score = pytest.mark.parametrize("score", SCORES)


def draw(count: int, generator: torch.Generator) -> tuple[LabelDistribution, Tensor, Tensor]:
    """Predictions that are off and too sure of it, the second group's more so; ages; groups."""
    ages = 60 + 120 * torch.rand(count, generator=generator, dtype=torch.float64)
    group = (torch.rand(count, generator=generator) < 0.4).long()
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    means = ages + noise * torch.where(group == 0, 8, 16) + 3
    spread = 3 + 9 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    logits = -((MONTHS.centers.double() - means[:, None]) / spread).square() / 2
    return LabelDistribution(logits, MONTHS), ages, group


def covered(interval: tuple[Tensor, Tensor], ages: Tensor) -> Tensor:
    return (interval[0] <= ages) & (ages <= interval[1])


def band(level: float, calibration: int, test: int) -> tuple[float, float]:
    """Where 99% of covered counts lie: beta-binomial, of how many are not above the margin."""
    rank = math.ceil((calibration + 1) * level)
    return stats.betabinom.interval(0.99, test, rank, calibration + 1 - rank)


@pytest.mark.parametrize("score", ["absolute", "quantile"])
def test_images_of_few_persons(score: str) -> None:
    """15 persons, shown 20 times each, are 15 values: of new persons 15 of 16 are covered."""
    shares: list[list[float]] = [[], []]
    person = torch.arange(15).repeat_interleave(20)
    for seed in range(150):
        generator = torch.Generator().manual_seed(seed)
        shuffled = torch.randperm(300, generator=generator)
        own = 10 * torch.randn(215, generator=generator)
        errors = torch.cat([own[:15].repeat_interleave(20)[shuffled], own[15:]])
        errors = errors + torch.randn(500, generator=generator)
        ages = 60 + 120 * torch.rand(500, generator=generator)
        logits = -((MONTHS.centers - (ages + errors)[:, None]) / 5).square() / 2
        predicted = LabelDistribution(logits, MONTHS)
        for share, cluster in zip(shares, (person[shuffled], None), strict=True):
            intervals = ConformalIntervals(0.9, score=score)
            intervals.fit(predicted[:300], ages[:300], cluster=cluster)
            share.append(covered(intervals(predicted[300:]), ages[300:]).double().mean().item())
    together, apart = map(np.mean, shares)
    assert together == pytest.approx(15 / 16, abs=0.015)
    assert apart < 0.9


def test_one_of_each_person_in_each_group() -> None:
    """Persons may be in several groups; of what is missing there is none to draw."""
    predicted, ages, _ = draw(60, torch.Generator().manual_seed(3))
    person, group = torch.arange(60) % 20 - 5, torch.arange(60) // 30
    ages[:3] = torch.nan
    intervals = ConformalIntervals(0.8, groups=2).fit(predicted, ages, group, person)
    again = ConformalIntervals(0.8, groups=2).fit(predicted, ages, group, person)
    assert torch.equal(intervals.margins, again.margins)
    assert intervals.margins.isfinite().all()
    few = ConformalIntervals(0.9).fit(predicted, ages, cluster=torch.arange(60) % 8)
    assert few.margins.item() == math.inf  # of 8 persons there are too few
    with pytest.raises(ValueError, match=r"cluster: expected shape \(N,\) with N = 60"):
        intervals.fit(predicted, ages, group, person[:9])


@every_score
@pytest.mark.parametrize("groups", [1, 2])
def test_coverage_in_200_trials(score: str, groups: int) -> None:
    """In each group the count of covered values is beta-binomial: 99% of trials are in its band."""
    outside = np.zeros(groups)
    shares: list[list[float]] = [[] for _ in range(groups)]
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        predicted, ages, group = draw(600, generator)
        group = group if groups == 2 else torch.zeros_like(group)
        first, second = torch.arange(600) < 300, torch.arange(600) >= 300
        intervals = ConformalIntervals(0.9, score=score, groups=groups)
        intervals.fit(predicted[first], ages[first], group[first])
        inside = covered(intervals(predicted[second], group[second]), ages[second])
        for index in range(groups):
            chosen = group[second] == index
            count, calibration = int(chosen.sum()), int((group[first] == index).sum())
            hits = int(inside[chosen].sum())
            low, high = band(0.9, calibration, count)
            outside[index] += not low <= hits <= high
            shares[index].append(hits / count)
    # Of 200 trials with a chance of 1% each, more than 8 are outside in 1 of 5,000 cases.
    assert (outside <= 8).all()
    assert all(0.9 - 0.006 < np.mean(each) < 0.9 + 0.02 for each in shares)


@every_score
def test_the_margin_by_hand(score: str) -> None:
    predicted, ages, _ = draw(19, torch.Generator().manual_seed(1))
    intervals = ConformalIntervals(0.8, score=score).fit(predicted, ages)
    low, high = predicted.interval(0.8)
    errors = (ages - predicted.mean).abs()
    scores = {
        "quantile": torch.maximum(low - ages, ages - high),
        "absolute": errors,
        "scaled": errors / predicted.stddev,
    }[score]
    # 20 * 0.8: the 16th of 19.
    want = np.sort(scores.numpy())[15]
    assert intervals.margins.tolist() == pytest.approx([want])
    assert int(covered(intervals(predicted), ages).sum()) in (15, 16)


def test_only_groups_make_it_right_in_each() -> None:
    generator = torch.Generator().manual_seed(3)
    predicted, ages, group = draw(20000, generator)
    half = torch.arange(20000) < 10000
    both = {}
    for groups in (1, 2):
        chosen = group if groups == 2 else torch.zeros_like(group)
        intervals = ConformalIntervals(0.9, score="absolute", groups=groups)
        intervals.fit(predicted[half], ages[half], chosen[half])
        inside = covered(intervals(predicted[~half], chosen[~half]), ages[~half])
        both[groups] = [inside[group[~half] == index].double().mean().item() for index in (0, 1)]
    assert both[1][0] > 0.95
    assert both[1][1] < 0.85
    assert both[2] == pytest.approx([0.9, 0.9], abs=0.02)


@every_score
def test_unbounded_where_nothing_is_known(score: str) -> None:
    predicted, ages, _ = draw(20, torch.Generator().manual_seed(0))
    for count, known in ((0, False), (8, False), (9, True)):
        intervals = ConformalIntervals(0.9, score=score)
        low, high = intervals.fit(predicted[:count], ages[:count])(predicted)
        assert bool(low.isfinite().all()) == bool(high.isfinite().all()) == known
    low, high = ConformalIntervals(0.9, score=score)(predicted)
    assert (low == -torch.inf).all()
    assert (high == torch.inf).all()
    group = torch.arange(20) % 2
    intervals = ConformalIntervals(0.5, score=score, groups=2).fit(predicted, ages, group)
    low, high = intervals(predicted[:3], torch.tensor([0, 2, -1]))
    assert low.isfinite().tolist() == high.isfinite().tolist() == [True, False, False]


@every_score
def test_missing_targets_are_left_out(score: str) -> None:
    predicted, ages, _ = draw(40, torch.Generator().manual_seed(0))
    gaps = torch.where(torch.arange(40) % 2 == 0, ages, torch.nan)
    with_gaps = ConformalIntervals(0.8, score=score).fit(predicted, gaps)
    without = ConformalIntervals(0.8, score=score).fit(predicted[::2], ages[::2])
    assert torch.equal(with_gaps.margins, without.margins)


@every_score
def test_predictions_that_are_all_in_one_bin(score: str) -> None:
    logits = torch.full((30, 240), -1e4)
    logits[:, 99] = 1e4
    predicted = LabelDistribution(logits, MONTHS)
    ages = torch.linspace(90, 110, 30)
    low, high = ConformalIntervals(0.8, score=score).fit(predicted, ages)(predicted)
    assert low.isfinite().all()
    assert high.isfinite().all()
    assert (low <= high).all()
    assert 23 <= int(covered((low, high), ages).sum()) <= 26


def test_intervals_that_shrink_never_cross() -> None:
    """Far too wide predictions get negative margins; an interval ends as its middle."""
    ages = torch.full((50,), 100.0)
    wide = LabelDistribution(-((MONTHS.centers - 100) / 40).square().expand(50, -1) / 2, MONTHS)
    narrow = LabelDistribution(-((MONTHS.centers - 100) / 2).square().expand(1, -1) / 2, MONTHS)
    intervals = ConformalIntervals(0.9).fit(wide, ages)
    assert intervals.margins < 0
    low, high = intervals(narrow)
    torch.testing.assert_close(low, high)
    assert low <= high
    assert low.item() == pytest.approx(100, abs=0.1)


def test_it_is_saved() -> None:
    predicted, ages, group = draw(100, torch.Generator().manual_seed(0))
    intervals = ConformalIntervals(0.9, groups=2).fit(predicted, ages, group)
    loaded = ConformalIntervals(0.9, groups=2)
    loaded.load_state_dict(intervals.state_dict())
    for mine, its in zip(intervals(predicted, group), loaded(predicted, group), strict=True):
        assert torch.equal(mine, its)
    assert repr(loaded) == "ConformalIntervals(level=0.9, score='quantile', groups=2)"


def test_arguments() -> None:
    predicted, ages, group = draw(10, torch.Generator().manual_seed(0))
    for level in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"level: expected a number in \(0, 1\), got"):
            ConformalIntervals(level)
    with pytest.raises(ValueError, match="score: expected one of 'quantile', 'scaled'"):
        ConformalIntervals(0.9, score="residual")
    with pytest.raises(ValueError, match="groups: expected an integer of at least 1"):
        ConformalIntervals(0.9, groups=0)
    intervals = ConformalIntervals(0.9)
    with pytest.raises(ValueError, match=r"target: expected shape \(N,\) with N = 10"):
        intervals.fit(predicted, ages[:, None])
    for given in (intervals, lambda logits: intervals.fit(logits, ages)):
        with pytest.raises(TypeError, match="predicted: expected a LabelDistribution, got Tensor"):
            given(predicted.logits)
    with pytest.raises(TypeError, match="group: expected a tensor of integer dtype"):
        intervals.fit(predicted, ages, group.double())
    with pytest.raises(ValueError, match=r"predicted: expected distributions \(N,\), got \(2, 5\)"):
        intervals(LabelDistribution(torch.zeros(2, 5, 240), MONTHS))


@every_score
def test_device(score: str, device: torch.device) -> None:
    bins = Bins(1, 240).to(device)
    predicted = LabelDistribution(torch.zeros(3, 240, device=device), bins)
    group = torch.zeros(3, dtype=torch.long, device=device)
    low, high = ConformalIntervals(0.9, score=score).to(device)(predicted, group)
    assert low.device.type == high.device.type == device.type
    assert low.shape == high.shape == (3,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("score", ["quantile", "scaled", "absolute"])
def test_values_right_at_the_margin_are_inside(score: str, dtype: torch.dtype) -> None:
    """Of equal scores none is above the margin, whatever is lost in rounding."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(40):
        logits = torch.randn(101, generator=generator, dtype=torch.float64).to(dtype)
        predicted = LabelDistribution(logits.expand(60, -1), Bins(0, 100))
        ages = torch.randint(0, 101, (1,), generator=generator).expand(60)
        low, high = ConformalIntervals(0.9, score=score).fit(predicted, ages)(predicted)
        assert low.dtype == dtype
        assert ((low <= ages) & (ages <= high)).all()


def test_margins_are_not_cast_and_not_taken_for_others() -> None:
    predicted, ages = LabelDistribution(torch.randn(50, 240), MONTHS), 240 * torch.rand(50)
    model = torch.nn.ModuleList([ConformalIntervals(0.9, score="scaled").fit(predicted, ages)])
    margins = model[0].margins.clone()
    model.bfloat16().to(torch.float16)
    assert model[0].margins.dtype == torch.float64
    assert torch.equal(model[0].margins, margins)
    state = model.state_dict()
    other = torch.nn.ModuleList([ConformalIntervals(0.9, score="scaled")])
    other.load_state_dict(state)
    assert torch.equal(other[0].margins, margins)
    for wrong in (ConformalIntervals(0.5, score="scaled"), ConformalIntervals(0.9)):
        with pytest.raises(ValueError, match=r"expected level=0\.., score=.*got level=0\.9"):
            torch.nn.ModuleList([wrong]).load_state_dict(state)


def test_groups_have_to_be_said_where_there_are_several() -> None:
    predicted, ages = LabelDistribution(torch.randn(50, 240), MONTHS), 240 * torch.rand(50)
    intervals = ConformalIntervals(0.9, groups=2)
    with pytest.raises(ValueError, match="group: expected one of 2 for each, got none"):
        intervals.fit(predicted, ages)
    intervals.fit(predicted, ages, torch.arange(50) % 2)
    with pytest.raises(ValueError, match="group: expected one of 2"):
        intervals(predicted)


def test_what_was_fitted_can_be_forgotten() -> None:
    intervals = ConformalIntervals(0.9, groups=2)
    intervals.margins.fill_(3.0)
    intervals.reset_parameters()
    assert intervals.margins.tolist() == [math.inf, math.inf]
    assert intervals.margins.dtype == torch.float64
