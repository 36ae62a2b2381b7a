import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Distribution, kl_divergence

from ldlcam.ldl import Bins, LabelDistribution, expectation
from tests.ldl import oracles

MONTHS = Bins(1, 240, unit="months")
YEARS = Bins(0, 20, 0.5, unit="years")
UNEVEN = Bins.from_centers([0, 1, 2, 4, 8, 12, 20], edges=[-1, 0.5, 1.5, 3, 6, 10, 14, 30])
GRIDS = pytest.mark.parametrize("bins", [MONTHS, YEARS, UNEVEN, Bins(0, 1)], ids=repr)
CPU = torch.device("cpu")


def exact(bins: Bins) -> tuple[oracles.Array, oracles.Array]:
    return bins.centers_as(torch.float64, CPU).numpy(), bins.edges_as(torch.float64, CPU).numpy()


def predict(bins: Bins, *batch: int, scale: float = 3.0) -> LabelDistribution:
    return LabelDistribution(scale * torch.randn(*batch, len(bins), dtype=torch.float64), bins)


class TestExpectation:
    @GRIDS
    def test_against_numpy(self, bins: Bins) -> None:
        logits = torch.randn(5, len(bins), dtype=torch.float64)
        want = oracles.special.softmax(logits.numpy(), axis=1) @ exact(bins)[0]
        np.testing.assert_allclose(expectation(logits, bins).numpy(), want, rtol=1e-13)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_half_precision_is_upcast(self, dtype: torch.dtype, autocast: bool) -> None:
        logits = torch.randn(4, 240).to(dtype)
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            ages = expectation(logits, MONTHS)
            mean = LabelDistribution(logits, MONTHS).mean
        assert ages.dtype == mean.dtype == torch.float32
        assert torch.equal(ages, expectation(logits.float(), MONTHS))
        torch.testing.assert_close(mean, ages)

    def test_extreme_logits(self) -> None:
        logits = torch.full((2, 240), -1e4)
        logits[0, 0] = logits[1, 239] = 1e4
        assert expectation(logits, MONTHS).tolist() == [1, 240]

    @pytest.mark.parametrize("size", [(240,), (2, 3, 240), (2, 239)])
    def test_refuses_shapes(self, size: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"logits: expected shape \(N, K\) with K = 240, got"):
            expectation(torch.zeros(size), MONTHS)

    def test_compiles_to_one_graph(self) -> None:
        compiled = torch.compile(
            lambda logits: expectation(logits, MONTHS), fullgraph=True, backend="eager"
        )
        logits = torch.randn(3, 240)
        torch.testing.assert_close(compiled(logits), expectation(logits, MONTHS))


class TestAgainstNumpy:
    @GRIDS
    def test_moments(self, bins: Bins) -> None:
        prediction = predict(bins, 6)
        centers = exact(bins)[0]
        for i in range(6):
            probs = oracles.special.softmax(prediction.logits[i].numpy())
            mean = np.average(centers, weights=probs)
            variance = np.average((centers - mean) ** 2, weights=probs)
            assert prediction.mean[i].item() == pytest.approx(mean, abs=1e-10)
            assert prediction.variance[i].item() == pytest.approx(variance, abs=1e-10)
            assert prediction.stddev[i].item() == pytest.approx(variance**0.5, abs=1e-10)
            assert prediction.mode[i].item() == centers[probs.argmax()]
            np.testing.assert_allclose(prediction.probs[i].numpy(), probs, rtol=1e-12)

    @GRIDS
    def test_cdf(self, bins: Bins) -> None:
        prediction = predict(bins, 6)
        edges = exact(bins)[1]
        values = torch.linspace(edges[0] - 2, edges[-1] + 2, 101, dtype=torch.float64)
        values = torch.cat([values, torch.from_numpy(edges)])
        got = prediction.cdf(values[:, None].expand(-1, 6))
        for i in range(6):
            want = oracles.cdf(values.numpy(), prediction.probs[i].numpy(), edges)
            np.testing.assert_allclose(got[:, i].numpy(), want, atol=1e-12)

    @GRIDS
    def test_quantile(self, bins: Bins) -> None:
        prediction = predict(bins, 6)
        levels = torch.linspace(0, 1, 101, dtype=torch.float64)
        got = prediction.quantile(levels[:, None].expand(-1, 6))
        for i in range(6):
            want = oracles.quantile(levels.numpy(), prediction.probs[i].numpy(), exact(bins)[1])
            np.testing.assert_allclose(got[:, i].numpy(), want, atol=1e-9)

    @GRIDS
    def test_median_and_interval(self, bins: Bins) -> None:
        prediction = predict(bins, 6)
        low, high = prediction.interval(0.8)
        for i in range(6):
            probs, edges = prediction.probs[i].numpy(), exact(bins)[1]
            want = oracles.quantile(np.array([0.1, 0.5, 0.9]), probs, edges)
            got = [low[i], prediction.median[i], high[i]]
            np.testing.assert_allclose(np.array(got), want, atol=1e-9)

    @GRIDS
    def test_density(self, bins: Bins) -> None:
        prediction = predict(bins, 6)
        edges = exact(bins)[1]
        middles = torch.from_numpy((edges[1:] + edges[:-1]) / 2)
        density = prediction.probs / torch.from_numpy(np.diff(edges))
        got = prediction.log_prob(middles[:, None].expand(-1, 6))
        torch.testing.assert_close(got, density.log().T)
        entropy = -(prediction.probs * density.log()).sum(-1)
        torch.testing.assert_close(prediction.entropy(), entropy)

    def test_bins_of_width_one_are_categories(self) -> None:
        prediction = predict(MONTHS, 6)
        categories = Categorical(logits=prediction.logits)
        torch.testing.assert_close(prediction.entropy(), categories.entropy())
        index = torch.tensor([0, 5, 100, 200, 238, 239])
        got = prediction.log_prob(MONTHS.centers[index])
        torch.testing.assert_close(got, categories.log_prob(index))


class TestOneDistribution:
    """Its views agree with each other."""

    @given(
        st.lists(st.floats(-30, 30), min_size=7, max_size=7),
        st.lists(st.floats(0, 1), min_size=1, max_size=10),
    )
    def test_quantile_inverts_cdf(self, logits: list[float], levels: list[float]) -> None:
        prediction = LabelDistribution(torch.tensor(logits, dtype=torch.float64), UNEVEN)
        level = torch.tensor(levels, dtype=torch.float64)
        torch.testing.assert_close(
            prediction.cdf(prediction.quantile(level)), level, atol=1e-9, rtol=0
        )

    @GRIDS
    def test_density_is_the_slope_of_the_cdf(self, bins: Bins) -> None:
        prediction = predict(bins, 4)
        centers = torch.from_numpy(exact(bins)[0])[:, None].expand(-1, 4)
        step = 1e-3
        slope = (prediction.cdf(centers + step) - prediction.cdf(centers - step)) / (2 * step)
        torch.testing.assert_close(prediction.log_prob(centers).exp(), slope)

    def test_levels_of_a_tensor(self) -> None:
        predicted = LabelDistribution(torch.randn(4, 240), MONTHS)
        for level in torch.tensor([0.5, 0.9], dtype=torch.float64):
            for kind in ("central", "shortest"):
                expected = predicted.interval(level.item(), kind=kind)
                assert all(map(torch.equal, predicted.interval(level, kind=kind), expected))

    def test_interval_holds_its_level(self) -> None:
        prediction = predict(UNEVEN, 5)
        for level in (0.01, 0.5, 0.9, 1.0):
            low, high = prediction.interval(level)
            inside = prediction.cdf(high) - prediction.cdf(low)
            torch.testing.assert_close(inside, torch.full_like(inside, level))

    def test_samples_follow_the_cdf(self) -> None:
        prediction = predict(UNEVEN, 3)
        samples = prediction.sample((20000,))
        assert samples.shape == (20000, 3)
        for i in range(3):
            fit = oracles.stats.kstest(
                samples[:, i].numpy(), lambda x, i=i: prediction[i].cdf(torch.from_numpy(x)).numpy()
            )
            assert fit.pvalue > 1e-3
        entropy = -prediction.log_prob(samples).mean(0)
        torch.testing.assert_close(entropy, prediction.entropy(), atol=0.05, rtol=0)

    def test_the_mean_is_the_expectation(self) -> None:
        logits = torch.randn(5, 240)
        torch.testing.assert_close(
            LabelDistribution(logits, MONTHS).mean, expectation(logits, MONTHS)
        )


class TestShortestInterval:
    @staticmethod
    def by_search(prediction: LabelDistribution, level: float) -> float:
        """Length of the shortest of many intervals that begin anywhere."""
        probs, edges = prediction.probs.numpy(), exact(prediction.bins)[1]
        starts = np.union1d(np.linspace(edges[0], edges[-1], 4001), edges)
        below = oracles.cdf(starts, probs, edges)
        # from each start on, and from below up to each start
        ends = oracles.quantile(below[below <= 1 - level] + level, probs, edges)
        begins = oracles.quantile(below[below >= level] - level, probs, edges)
        lengths = [ends - starts[below <= 1 - level], starts[below >= level] - begins]
        return float(min(length.min() for length in lengths if len(length)))

    @GRIDS
    @pytest.mark.parametrize("level", [0.1, 0.5, 0.9, 1.0])
    def test_no_other_is_shorter(self, bins: Bins, level: float) -> None:
        prediction = predict(bins, 6)
        low, high = prediction.interval(level, kind="shortest")
        inside = prediction.cdf(high) - prediction.cdf(low)
        torch.testing.assert_close(inside, torch.full_like(inside, level), atol=1e-9, rtol=0)
        for i in range(6):
            want = self.by_search(prediction[i], level)
            assert (high - low)[i].item() <= want + 1e-9
            central = prediction.interval(level)
            assert (high - low)[i] <= (central.high - central.low)[i] + 1e-9

    def test_at_the_end_of_the_range_it_keeps_the_most_probable(self) -> None:
        prediction = LabelDistribution(-(MONTHS.centers - 1) / 10, MONTHS)
        low, _ = prediction.interval(0.8, kind="shortest")
        assert low == 0.5
        assert prediction.interval(0.8).low > 1

    def test_all_in_one_bin(self) -> None:
        logits = torch.full((240,), -1e4)
        logits[9] = 1e4
        low, high = LabelDistribution(logits, MONTHS).interval(0.5, kind="shortest")
        assert 9.5 <= low < high <= 10.5
        assert high - low == 0.5

    @pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
    def test_shapes(self, batch: tuple[int, ...]) -> None:
        low, high = predict(UNEVEN, *batch).interval(0.9, kind="shortest")
        assert low.shape == high.shape == batch

    def test_nan_stays_in_its_row(self) -> None:
        logits = torch.randn(2, 240)
        logits[0] = torch.nan
        low, high = LabelDistribution(logits, MONTHS).interval(0.9, kind="shortest")
        assert low.isnan().tolist() == high.isnan().tolist() == [True, False]


class TestScores:
    def test_crps_has_the_shapes_of_cdf(self) -> None:
        for batch in ((), (4,), (2, 3), (0,)):
            prediction = predict(UNEVEN, *batch)
            assert prediction.crps(3.0).shape == batch
            assert prediction.crps(torch.rand(5, *batch)).shape == (5, *batch)

    def test_crps_of_one_place_is_the_absolute_error(self) -> None:
        logits = torch.full((240,), -1e4)
        logits[9] = 1e4
        prediction = LabelDistribution(logits, MONTHS)
        values = torch.tensor([-5.0, 1.0, 9.7, 10.0, 300.0])
        torch.testing.assert_close(prediction.crps(values), (values - 10).abs())
        assert prediction.crps(torch.nan).isnan()

    def test_divergence_against_torch(self) -> None:
        p, q = predict(UNEVEN, 5), predict(UNEVEN, 5)
        want = kl_divergence(Categorical(logits=p.logits), Categorical(logits=q.logits))
        torch.testing.assert_close(kl_divergence(p, q), want)

    def test_divergence_where_there_is_no_probability(self) -> None:
        half = LabelDistribution(torch.tensor([0.0, -torch.inf]), Bins(0, 1))
        whole = LabelDistribution(torch.tensor([0.0, 0.0]), Bins(0, 1))
        assert kl_divergence(half, half) == 0
        assert kl_divergence(half, whole).item() == pytest.approx(np.log(2))
        assert kl_divergence(whole, half) == torch.inf

    def test_divergence_where_a_probability_underflows(self) -> None:
        certain = LabelDistribution(torch.tensor([[1e3, 0.0, 0.0]]), Bins(0, 2))
        logits = torch.tensor([[0.0, -torch.inf, -torch.inf]], requires_grad=True)
        divergence = kl_divergence(certain, LabelDistribution(logits, Bins(0, 2)))
        assert divergence == 0
        (gradient,) = torch.autograd.grad(divergence.sum(), logits)
        assert not gradient.any()

    def test_divergence_needs_the_same_bins(self) -> None:
        with pytest.raises(ValueError, match=r"q: expected the bins of p, Bins\(1, 240"):
            kl_divergence(predict(MONTHS), predict(Bins(0, 239)))

    def test_decoding(self) -> None:
        prediction = predict(UNEVEN, 5)
        for how in ("mean", "median", "mode"):
            assert torch.equal(prediction.decode(how), getattr(prediction, how))
        with pytest.raises(ValueError, match="how: expected one of 'mean', 'median', 'mode'"):
            prediction.decode("max")


class TestEdgeCases:
    def test_all_in_one_bin(self) -> None:
        logits = torch.full((240,), -1e4)
        logits[9] = 1e4
        prediction = LabelDistribution(logits, MONTHS)
        assert prediction.mean == prediction.mode == prediction.median == 10
        assert prediction.variance == prediction.entropy() == 0
        assert prediction.interval(0.5) == (9.75, 10.25)
        assert prediction.quantile(0.0) == 0.5
        assert prediction.quantile(1.0) == 10.5
        assert prediction.cdf(9.5) == 0
        assert prediction.cdf(10.5) == 1

    def test_impossible_bins(self) -> None:
        logits = torch.tensor([0.0, -torch.inf, 0.0])
        prediction = LabelDistribution(logits, Bins(0, 2))
        assert prediction.mean == 1
        assert prediction.entropy().item() == pytest.approx(np.log(2))
        assert prediction.median == 0.5  # the smallest value below which half lies
        assert prediction.quantile(0.5001).item() == pytest.approx(1.5, abs=1e-3)
        assert prediction.log_prob(1.0) == -torch.inf

    def test_values_and_levels_outside(self) -> None:
        prediction = predict(MONTHS, 2)
        assert prediction.log_prob(0.4).tolist() == [-torch.inf, -torch.inf]
        assert prediction.log_prob(240.5).isfinite().all()
        assert prediction.cdf(-1e9).tolist() == [0, 0]
        assert prediction.cdf(1e9).tolist() == [1, 1]
        assert torch.equal(prediction.quantile(-1.0), prediction.quantile(0.0))
        assert torch.equal(prediction.quantile(2.0), prediction.quantile(1.0))
        assert prediction.quantile(1.0).tolist() == [240.5, 240.5]

    @pytest.mark.parametrize("count", [2, 2000])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_extreme_logits(self, count: int, dtype: torch.dtype) -> None:
        signs = torch.arange(count) % 2 * 2.0 - 1
        ramp = torch.linspace(-1, 1, count)
        logits = (1e4 * torch.stack([signs, ramp, -ramp, 0 * ramp])).to(dtype)
        prediction = LabelDistribution(logits, Bins(1, count))
        for result in (
            prediction.mean,
            prediction.mode,
            prediction.median,
            prediction.stddev,
            prediction.entropy(),
            prediction.cdf(1.7),
            prediction.log_prob(1.7),
            *prediction.interval(0.9),
            *prediction.interval(0.9, kind="shortest"),
            prediction.crps(1.7),
        ):
            assert result.dtype == torch.float32
            assert result.isfinite().all()

    def test_nan_shows_and_stays_in_its_row(self) -> None:
        logits = torch.zeros(2, 240)
        logits[0] = torch.nan
        prediction = LabelDistribution(logits, MONTHS)
        for result in (prediction.mean, prediction.median, prediction.cdf(7.0)):
            assert result.isnan().tolist() == [True, False]
        missing = torch.tensor([7.0, torch.nan])
        assert prediction[1:].cdf(missing[:, None]).isnan().tolist() == [[False], [True]]
        assert prediction[1:].log_prob(missing[:, None]).isnan().tolist() == [[False], [True]]
        assert prediction[1:].quantile(missing[:, None]).isnan().tolist() == [[False], [True]]

    def test_gradients(self) -> None:
        logits = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
        values = torch.tensor([0.3, 5.0, 17.0], dtype=torch.float64)

        def views(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
            prediction = LabelDistribution(logits, UNEVEN)
            return (
                prediction.mean,
                prediction.variance,
                prediction.stddev,
                prediction.entropy(),
                prediction.median,
                prediction.cdf(values),
                prediction.log_prob(values),
                prediction.crps(values),
                *prediction.interval(0.7, kind="shortest"),
            )

        assert torch.autograd.gradcheck(views, logits)

    def test_gradient_of_the_spread_of_one_that_is_certain_is_zero(self) -> None:
        logits = torch.tensor([[0.0, 2000.0, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
        stddev = LabelDistribution(logits, Bins(1, 3)).stddev
        assert stddev[0] == 0
        assert stddev[1] > 0
        (gradient,) = torch.autograd.grad(stddev.sum(), logits)
        assert gradient[0].tolist() == [0, 0, 0]
        assert gradient[1, 0] > 0 > gradient[1, 1]


class TestBatches:
    def test_shapes(self) -> None:
        for batch in ((), (4,), (2, 3), (0,)):
            prediction = predict(UNEVEN, *batch)
            assert prediction.batch_shape == batch
            assert prediction.mean.shape == prediction.median.shape == batch
            assert prediction.cdf(3.0).shape == prediction.log_prob(3.0).shape == batch
            assert prediction.sample().shape == batch
            assert prediction.sample((5, 2)).shape == (5, 2, *batch)
            assert prediction.quantile(torch.rand(5, *batch)).shape == (5, *batch)

    def test_rows_are_independent(self) -> None:
        prediction = predict(UNEVEN, 2, 3)
        level = torch.rand(4, 2, 3, dtype=torch.float64)
        value = prediction.quantile(level)
        for i in range(2):
            for j in range(3):
                one = prediction[i, j]
                torch.testing.assert_close(one.quantile(level[:, i, j]), value[:, i, j])
                torch.testing.assert_close(one.cdf(value[:, i, j]), prediction.cdf(value)[:, i, j])

    def test_indexing(self) -> None:
        prediction = predict(UNEVEN, 4, 3)
        mask = torch.tensor([True, False, False, True])
        for index in (0, slice(1, 3), mask, (..., 1), (2, 1), torch.tensor([3, 0]), None):
            got = prediction[index]
            assert got.bins is prediction.bins
            torch.testing.assert_close(got.mean, prediction.mean[index])
        with pytest.raises(IndexError):
            prediction[0, 0, 0]

    def test_iterating_ends(self) -> None:
        assert [one.batch_shape for one in predict(UNEVEN, 3)] == [(), (), ()]

    def test_expand(self) -> None:
        prediction = predict(UNEVEN, 3).expand((2, 3))
        assert isinstance(prediction, LabelDistribution)
        assert prediction.batch_shape == (2, 3)
        torch.testing.assert_close(prediction.mean[0], prediction.mean[1])

    @pytest.mark.parametrize("method", ["cdf", "log_prob", "quantile", "icdf", "crps"])
    def test_values_are_never_broadcast(self, method: str) -> None:
        prediction = predict(UNEVEN, 4)
        name = "level" if method in ("quantile", "icdf") else "value"
        for size in ((4, 1), (1,), ()):
            with pytest.raises(ValueError, match=rf"{name}: expected shape \(\.\.\., 4\), got"):
                getattr(prediction, method)(torch.zeros(size))

    def test_it_is_a_torch_distribution(self) -> None:
        prediction = predict(UNEVEN, 4)
        assert isinstance(prediction, Distribution)
        assert prediction.event_shape == ()
        assert prediction.support.check(torch.tensor([-2.0, 0.0, 31.0])).tolist() == [
            False,
            True,
            False,
        ]
        torch.testing.assert_close(prediction.icdf(0.3), prediction.quantile(0.3))
        independent = torch.distributions.Independent(prediction, 1)
        assert independent.log_prob(prediction.mean).shape == ()
        assert repr(prediction) == "LabelDistribution(logits: torch.Size([4, 7]))"


class TestMix:
    def test_probabilities_are_averaged(self) -> None:
        members = [predict(UNEVEN, 4) for _ in range(3)]
        mixed = LabelDistribution.mix(members)
        want = torch.stack([member.probs for member in members]).mean(0)
        torch.testing.assert_close(mixed.probs, want)
        torch.testing.assert_close(LabelDistribution.mix(members[:1]).probs, members[0].probs)

    def test_disagreement_shows(self) -> None:
        logits = torch.full((2, 240), -1e4)
        logits[0, 9] = logits[1, 229] = 1e4
        mixed = LabelDistribution.mix([LabelDistribution(row, MONTHS) for row in logits])
        assert mixed.mean == 120
        assert mixed.stddev == 110

    def test_bins_that_all_rule_out(self) -> None:
        logits = torch.randn(2, 3, 5, dtype=torch.float64)
        logits[:, 0, 2:] = logits[0, 1, 0] = -torch.inf
        logits.requires_grad_()
        mixed = LabelDistribution.mix([LabelDistribution(each, Bins(1, 5)) for each in logits])
        torch.testing.assert_close(mixed.probs, logits.softmax(-1).mean(0))
        assert mixed.logits[0, 2:].tolist() == [-torch.inf] * 3
        known = (logits.softmax(-1).mean(0) * Bins(1, 5).centers).sum(-1)
        mine, its = (torch.autograd.grad(each.sum(), logits)[0] for each in (mixed.mean, known))
        torch.testing.assert_close(mine, its)

    def test_refuses_what_does_not_fit(self) -> None:
        with pytest.raises(TypeError, match="distributions: expected a sequence, got Tensor"):
            LabelDistribution.mix(torch.zeros(2, 3, 240))
        with pytest.raises(TypeError, match="distributions: expected a sequence, got LabelDistr"):
            LabelDistribution.mix(predict(MONTHS, 2))
        with pytest.raises(TypeError, match="distributions: expected a LabelDistribution, got Te"):
            LabelDistribution.mix([predict(MONTHS, 2), torch.zeros(2, 240)])
        with pytest.raises(ValueError, match="distributions: expected one or more, got none"):
            LabelDistribution.mix([])
        with pytest.raises(ValueError, match=r"expected equal bins, got Bins\(1, 240"):
            LabelDistribution.mix([predict(MONTHS, 2), predict(Bins(0, 239), 2)])
        with pytest.raises(ValueError, match=r"expected equal batch shapes, got \(2,\) and \(1,\)"):
            LabelDistribution.mix([predict(MONTHS, 2), predict(MONTHS, 1)])


class TestArguments:
    def test_logits(self) -> None:
        with pytest.raises(ValueError, match=r"logits: expected shape \(\.\.\., K\) with K = 240"):
            LabelDistribution(torch.zeros(3, 239), MONTHS)
        with pytest.raises(TypeError, match="logits: expected a tensor of floating dtype"):
            LabelDistribution(torch.zeros(3, 240).long(), MONTHS)

    def test_bins(self) -> None:
        for make in (LabelDistribution, expectation):
            with pytest.raises(TypeError, match="bins: expected a Bins, got Tensor"):
                make(torch.zeros(3, 240), MONTHS.centers)

    @pytest.mark.parametrize("given", [[3.0, 4.0], np.array([3.0, 4.0]), None, "3"], ids=repr)
    @pytest.mark.parametrize("method", ["cdf", "log_prob", "quantile", "icdf", "crps"])
    def test_what_is_neither_a_number_nor_a_tensor(self, method: str, given: object) -> None:
        name = "level" if method in ("quantile", "icdf") else "value"
        with pytest.raises(TypeError, match=f"{name}: expected a number or a tensor, got"):
            getattr(predict(MONTHS, 2), method)(given)

    def test_numbers_of_numpy(self) -> None:
        prediction = predict(MONTHS, 2)
        for number in (np.float32(3), np.int64(3), 3):
            assert torch.equal(prediction.cdf(number), prediction.cdf(3.0))

    def test_temperature(self) -> None:
        prediction = predict(MONTHS, 1)
        for wrong in (0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="temperature: expected a finite number above 0"):
                prediction.tempered(wrong)
        with pytest.raises(TypeError, match="temperature: expected a finite number above 0, got"):
            prediction.tempered([2.0])
        for size in ((3,), (1, 1)):
            with pytest.raises(
                ValueError, match=r"temperature: expected shape \(\) or \(1,\), got"
            ):
                prediction.tempered(torch.ones(size))
        for temperature in (torch.tensor(2), torch.tensor([2.0])):
            tempered = prediction.tempered(temperature)
            assert tempered.batch_shape == (1,)
            assert torch.equal(tempered.logits, prediction.tempered(2).logits)

    @pytest.mark.parametrize("level", [0.0, 1.01, -1.0, float("nan")])
    def test_level(self, level: float) -> None:
        with pytest.raises(ValueError, match=r"level: expected a number in \(0, 1\]"):
            predict(MONTHS).interval(level)

    def test_kind(self) -> None:
        with pytest.raises(ValueError, match="kind: expected one of 'central', 'shortest'"):
            predict(MONTHS).interval(0.9, kind="hdi")

    def test_device(self, device: torch.device) -> None:
        bins = Bins(1, 240).to(device)
        for dtype in (torch.float32, torch.float64):
            logits = torch.zeros(3, 240, device=device, dtype=dtype)
            prediction = LabelDistribution(logits, bins)
            values = torch.ones(3, device=device)
            for result in (
                prediction.mean,
                prediction.mode,
                prediction.median,
                prediction.variance,
                prediction.entropy(),
                prediction.cdf(values),
                prediction.log_prob(values),
                *prediction.interval(0.9),
                *prediction.interval(0.9, kind="shortest"),
                prediction.crps(values),
                kl_divergence(prediction, prediction),
                prediction.sample(),
                expectation(logits, bins),
                LabelDistribution.mix([prediction, prediction]).mean,
            ):
                assert result.shape == (3,)
                assert result.device.type == device.type
                assert result.dtype == dtype


def test_nothing_is_most_probable_of_nan() -> None:
    logits = torch.zeros(2, 240)
    logits[1, 7] = torch.nan
    for value in (
        LabelDistribution(logits, MONTHS).mode,
        LabelDistribution(logits, MONTHS).decode("mode"),
    ):
        assert value[0] == 1
        assert value[1].isnan()


ASKED = {
    "crps": lambda told, value: told.crps(value),
    "log_prob": lambda told, value: told.log_prob(value),
    "cdf": lambda told, value: told.cdf(value),
    "median": lambda told, value: told.median,
    "interval": lambda told, value: torch.stack(told.interval(0.9)),
    "shortest": lambda told, value: torch.stack(told.interval(0.9, kind="shortest")),
    "mix": lambda told, value: LabelDistribution.mix([told, told]).mean,
    "kl": lambda told, value: kl_divergence(told, told.tempered(2.0)),
}


@pytest.mark.parametrize("name", ASKED)
def test_one_graph_for_batches_of_any_size(name: str) -> None:
    def asked(logits: Tensor, value: Tensor) -> Tensor:
        return ASKED[name](LabelDistribution(logits, MONTHS), value)

    torch.compiler.reset()
    compiled = torch.compile(asked, fullgraph=True, backend="eager")
    for count in (8, 5, 3):
        given = torch.randn(count, 240), 240 * torch.rand(count)
        torch.testing.assert_close(compiled(*given), asked(*given))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ASKED)
def test_export_with_batches_of_any_size(name: str, strict: bool) -> None:
    class Asked(torch.nn.Module):
        def forward(self, logits: Tensor, value: Tensor) -> Tensor:
            return ASKED[name](LabelDistribution(logits, MONTHS), value)

    count = torch.export.Dim("count", min=2)
    given = torch.randn(4, 240), 240 * torch.rand(4)
    program = torch.export.export(
        Asked(), given, dynamic_shapes=({0: count}, {0: count}), strict=strict
    )
    others = torch.randn(7, 240), 240 * torch.rand(7)
    torch.testing.assert_close(program.module()(*others), Asked()(*others))
