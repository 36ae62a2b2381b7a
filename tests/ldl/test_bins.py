import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ldlcam.ldl import Bins, LabelDistribution, gaussian_labels

MONTHS = Bins(1, 240, unit="months")


def test_uniform_bins() -> None:
    bins = Bins(0, 1, 0.1)
    assert len(bins) == 11
    assert bins.uniform
    assert (bins.first, bins.widest_step) == pytest.approx((0, 0.1))
    assert bins.last == pytest.approx(1)
    torch.testing.assert_close(bins.centers, torch.arange(11) / 10)
    torch.testing.assert_close(bins.edges, torch.arange(-1, 22, 2) / 20)
    assert bins.centers.dtype == bins.edges.dtype == torch.float32


@given(st.integers(-1000, 1000), st.integers(1, 500), st.floats(1e-3, 1e3))
def test_any_whole_number_of_steps_is_accepted(first: int, steps: int, step: float) -> None:
    bins = Bins(first, first + steps * step, step)
    assert len(bins) == steps + 1
    exact = bins.edges_as(torch.float64, torch.device("cpu"))
    assert exact[0] == pytest.approx(first - step / 2)
    assert exact[-1] == pytest.approx(first + (steps + 0.5) * step)


@pytest.mark.parametrize(
    ("first", "last", "step"),
    [(1, 1, 1), (2, 1, 1), (1, 2.5, 1), (0, 0.4, 1), (0, float("inf"), 1), (float("nan"), 2, 1)],
)
def test_refuses_ends_that_do_not_fit(first: float, last: float, step: float) -> None:
    with pytest.raises(ValueError, match="last: expected one or more whole steps"):
        Bins(first, last, step)


def test_ends_are_numbers_of_any_kind() -> None:
    for kind in (int, np.float32, torch.tensor):
        assert Bins(kind(0), kind(10)) == Bins(0, 10)
    with pytest.raises(TypeError, match="first: expected a number, got '0'"):
        Bins("0", 10)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="last: expected a number, got '10'"):
        Bins(0, "10")  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [0, -1, float("nan")])
def test_refuses_steps(step: float) -> None:
    with pytest.raises(ValueError, match="step: expected"):
        Bins(0, 10, step)


class TestFromCenters:
    def test_edges_are_midway(self) -> None:
        bins = Bins.from_centers([0, 1, 3, 7])
        assert bins.edges.tolist() == [-0.5, 0.5, 2, 5, 9]
        assert not bins.uniform
        assert (bins.first, bins.last, bins.widest_step) == (0, 7, 4)

    def test_edges_can_be_given(self) -> None:
        bins = Bins.from_centers(torch.tensor([0.0, 1.0]), edges=[0, 0.25, 2])
        assert bins.edges.tolist() == [0, 0.25, 2]
        assert not bins.uniform

    def test_equal_steps_are_uniform_and_equal_to_the_constructors(self) -> None:
        bins = Bins.from_centers(range(1, 241), unit="months")
        assert bins.uniform
        assert bins == MONTHS
        assert repr(bins) == repr(MONTHS)

    def test_survives_what_state_dict_saves(self) -> None:
        bins = Bins(0, 2, 0.1, unit="years")
        assert Bins.from_centers(bins.state_dict()["centers"], unit="years") == bins

    @pytest.mark.parametrize(
        "centers", [[1.0], [], [1.0, 1.0], [2.0, 1.0], [0.0, float("nan")], [0.0, float("inf")]]
    )
    def test_refuses_centers(self, centers: list[float]) -> None:
        with pytest.raises(ValueError, match="centers: expected two or more finite, increasing"):
            Bins.from_centers(centers)

    @pytest.mark.parametrize(
        "edges", [[0, 0.5, 0.9], [0.1, 0.5, 2], [0, 0, 2], [-1, 0.5, torch.inf]]
    )
    def test_refuses_edges(self, edges: list[float]) -> None:
        with pytest.raises(ValueError, match="edges: expected finite, increasing numbers"):
            Bins.from_centers([0, 1], edges=edges)

    def test_refuses_another_number_of_edges(self) -> None:
        with pytest.raises(ValueError, match=r"edges: expected shape \(3,\), got \(2,\)"):
            Bins.from_centers([0, 1], edges=[0, 2])


class TestEquality:
    def test_equal(self) -> None:
        assert Bins(1, 240, unit="months") == MONTHS

    @pytest.mark.parametrize(
        "other",
        [
            Bins(1, 240, unit="years"),
            Bins(0, 239, unit="months"),
            Bins(1, 241, unit="months"),
            Bins.from_centers(
                range(1, 241), unit="months", edges=[0, *(i + 0.5 for i in range(1, 241))]
            ),
            "months",
        ],
    )
    def test_different(self, other: object) -> None:
        assert other != MONTHS

    def test_two_equal_ones_in_a_model_are_two_modules(self) -> None:
        model = nn.ModuleList([Bins(0, 3), Bins(0, 3)]).to("meta")
        assert all(bins.centers.is_meta for bins in model.children())
        assert len(list(model.children())) == 2


@pytest.mark.parametrize(
    ("bins", "text"),
    [
        (MONTHS, "Bins(1, 240, step=1, unit='months')"),
        (Bins(0, 2, 0.5), "Bins(0, 2, step=0.5)"),
        (Bins.from_centers([0, 1, 3], unit="years"), "Bins(3 centers from 0 to 3, unit='years')"),
    ],
)
def test_repr(bins: Bins, text: str) -> None:
    assert repr(bins) == text


class TestPrecision:
    """Casting a model to half precision, or creating it on meta, must not move its bins."""

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_casting_the_model_leaves_centers(self, dtype: torch.dtype) -> None:
        model = nn.Sequential(nn.Linear(2, 2), Bins(0, 1, 0.1)).to(dtype)
        bins = model[1]
        assert isinstance(bins, Bins)
        assert model[0].weight.dtype == dtype
        assert bins == Bins(0, 1, 0.1)
        assert torch.equal(bins.centers, Bins(0, 1, 0.1).centers)
        assert torch.equal(bins.edges, Bins(0, 1, 0.1).edges)

    def test_created_on_meta(self) -> None:
        with torch.device("meta"):
            bins = Bins(1, 240, unit="months")
        assert bins.centers.is_meta
        assert torch.equal(bins.to_empty(device="cpu").centers, MONTHS.centers)

    def test_float64_is_exact(self) -> None:
        bins = Bins.from_centers([0.1, 0.2, 0.7], edges=[0.0, 0.15, 0.3, 0.9])
        exact = torch.float64, torch.device("cpu")
        assert bins.centers_as(*exact).tolist() == [0.1, 0.2, 0.7]
        assert bins.edges_as(*exact).tolist() == [0.0, 0.15, 0.3, 0.9]

    def test_copies(self) -> None:
        assert copy.deepcopy(MONTHS) == MONTHS
        buffer = io.BytesIO()
        torch.save(MONTHS, buffer)
        buffer.seek(0)
        assert torch.load(buffer, weights_only=False) == MONTHS

    def test_device(self, device: torch.device) -> None:
        bins = Bins(0, 3).to(device)
        assert bins.centers.device.type == bins.edges.device.type == device.type
        for dtype in (torch.float32, torch.float64):
            centers = bins.centers_as(dtype, device)
            assert centers.device.type == device.type
            assert centers.dtype == dtype


class TestStateDict:
    def test_round_trip(self) -> None:
        state = MONTHS.state_dict()
        assert set(state) == {"centers", "edges"}
        Bins(1, 240).load_state_dict(state)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_saved_in_another_dtype(self, dtype: torch.dtype) -> None:
        state = {name: saved.to(dtype) for name, saved in MONTHS.state_dict().items()}
        bins = Bins(1, 240)
        bins.load_state_dict(state)
        assert torch.equal(bins.centers, MONTHS.centers)
        with pytest.raises(RuntimeError, match="other bins"):
            Bins(0, 239).load_state_dict(state)

    @pytest.mark.parametrize("options", [{}, {"strict": False}, {"assign": True}])
    def test_other_bins_are_refused(self, options: dict[str, Any]) -> None:
        model = nn.Sequential(Bins(0, 239))
        with pytest.raises(RuntimeError) as caught:
            model.load_state_dict(nn.Sequential(MONTHS).state_dict(), **options)
        assert (
            "0.centers: expected those of Bins(0, 239, step=1), got 240 from 1 to 240: "
            "the model was saved with other bins"
        ) in str(caught.value)
        assert model[0] == Bins(0, 239)

    @pytest.mark.parametrize("size", [(0,), (), (3, 240)])
    def test_what_are_no_centers_is_refused(self, size: tuple[int, ...]) -> None:
        state = {"centers": torch.zeros(size), "edges": MONTHS.edges}
        with pytest.raises(RuntimeError, match=r"centers: expected those of .*, got a tensor \("):
            Bins(1, 240).load_state_dict(state)

    def test_missing_keys_are_reported(self) -> None:
        with pytest.raises(RuntimeError, match=r"Missing key\(s\).*centers"):
            Bins(1, 3).load_state_dict({})
        Bins(1, 3).load_state_dict({}, strict=False)

    def test_unexpected_keys_are_reported(self) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(2, 3), Bins(1, 3))
        state = model.state_dict() | {"1.width": torch.zeros(1)}
        with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "1\.width"'):
            model.load_state_dict(state)
        assert model.load_state_dict(state, strict=False).unexpected_keys == ["1.width"]


class TestIndex:
    @given(st.floats(-50, 400, width=32))
    def test_is_the_nearest_center(self, value: float) -> None:
        index = MONTHS.index(torch.tensor([value]))
        distances = (MONTHS.centers - value).abs()
        assert distances[index].item() == distances.min().item()

    def test_special_values(self) -> None:
        values = torch.tensor([0.4999, 0.5, 1.5, 240.5, torch.inf, -torch.inf, torch.nan])
        assert MONTHS.index(values).tolist() == [0, 0, 1, 239, 239, 0, -1]
        assert MONTHS.index(torch.tensor([[3, 500]])).tolist() == [[2, 239]]

    def test_uneven_bins(self) -> None:
        bins = Bins.from_centers([0, 1, 10], edges=[0, 1, 2, 20])
        assert bins.index(torch.tensor([0.9, 1.0, 2.0, 30.0])).tolist() == [0, 1, 2, 2]

    def test_device(self, device: torch.device) -> None:
        index = MONTHS.to(device).index(torch.ones(2, 3, device=device))
        assert index.shape == (2, 3)
        assert index.dtype == torch.int64
        assert index.device.type == device.type

    def test_refuses_booleans(self) -> None:
        with pytest.raises(TypeError, match="values: expected a tensor of real dtype"):
            MONTHS.index(torch.tensor([True]))


def test_bins_that_float32_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="bins: expected steps that float32 can tell apart"):
        Bins(20_000_000, 20_000_100)
    with pytest.raises(ValueError, match="bins: expected steps that float32 can tell apart"):
        Bins.from_centers([1e6, 1e6 + 0.01, 1e6 + 0.02])


def test_bins_shifted_by_a_step_far_from_zero_differ() -> None:
    assert Bins(2_000_000, 2_000_010) != Bins(2_000_001, 2_000_011)
    assert Bins(2_000_000, 2_000_010) == Bins(2_000_000, 2_000_010)


def test_a_model_made_without_values_takes_those_that_are_loaded() -> None:
    known = nn.ModuleDict({"bins": Bins(1, 240, unit="months"), "layer": nn.Linear(2, 3)})
    with torch.device("meta"):
        empty = nn.ModuleDict({"bins": Bins(1, 240, unit="months"), "layer": nn.Linear(2, 3)})
    empty.load_state_dict(known.state_dict(), assign=True)
    torch.testing.assert_close(empty["bins"].centers, known["bins"].centers)
    torch.testing.assert_close(empty["bins"].edges, known["bins"].edges)


def fresh() -> Bins:
    """Bins of which no test has moved the buffers."""
    return Bins(1, 240, unit="months")


def test_bins_made_without_values_are_given_them() -> None:
    with torch.device("meta"):
        bins = Bins(1, 240)
    bins.to_empty(device="cpu")
    bins.centers.zero_()
    bins.edges.zero_()
    bins.reset_parameters()
    torch.testing.assert_close(bins.centers, fresh().centers)
    torch.testing.assert_close(bins.edges, fresh().edges)


def rounded() -> Bins:
    """As FSDP leaves them in mixed precision: rounded in place."""
    bins = fresh()
    for buffer in (bins.centers, bins.edges):
        buffer.data = buffer.to(torch.bfloat16)
    return bins


def test_rounded_buffers_change_nothing() -> None:
    bins, ages = rounded(), torch.tensor([150.0, 201.5])
    labels = [gaussian_labels(ages, each, 15.0, ends="preserve_mean") for each in (bins, fresh())]
    torch.testing.assert_close(labels[0], labels[1], rtol=0, atol=0)
    logits = torch.randn(4, 240)
    entropies = [LabelDistribution(logits, each).entropy() for each in (bins, fresh())]
    torch.testing.assert_close(entropies[0], entropies[1], rtol=0, atol=0)


def test_rounded_buffers_are_saved_as_they_were() -> None:
    saved = rounded().state_dict()
    assert saved["centers"].dtype == torch.float32
    torch.testing.assert_close(saved["edges"], fresh().edges, rtol=0, atol=0)
    # What another way of saving has written of them is still that of these bins, and no others'.
    rough = {name: value.bfloat16().float() for name, value in fresh().state_dict().items()}
    fresh().load_state_dict(rough)
    with pytest.raises(RuntimeError, match="other bins"):
        Bins(2, 241).load_state_dict(rough)


def test_shared_bins_are_saved_once_a_name() -> None:
    shared = Bins(1, 240)
    saved = nn.ModuleDict({"head": shared, "loss": shared}).state_dict()
    places = {value.untyped_storage().data_ptr() for value in saved.values()}
    assert len(places) == len(saved) == 4
