import pytest
import torch
from torch import nn

from ldlcam.ldl import Bins, ExpectationHead

BINS = Bins(1, 240, unit="months")


def test_without_covariates_it_is_one_linear_layer() -> None:
    head = ExpectationHead(7, BINS)
    features = torch.randn(3, 7)
    want = features @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(features), want)
    assert sum(p.numel() for p in head.parameters()) == 8 * 240


@pytest.mark.parametrize("hidden", [(), (16,), (32,), (64, 32), (4, 5, 6)])
def test_covariates_go_through_their_own_layers(hidden: tuple[int, ...]) -> None:
    head = ExpectationHead(7, BINS, covariates=2, covariate_hidden=hidden)
    features, covariates = torch.randn(3, 7), torch.randn(3, 2)
    joined = covariates
    linear = [layer for layer in head.covariate_layers if isinstance(layer, nn.Linear)]
    for i, layer in enumerate(linear):
        joined = (torch.relu(joined) if i else joined) @ layer.weight.T + layer.bias
    assert [layer.out_features for layer in linear] == list(hidden)
    want = torch.cat([features, joined], 1) @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(features, covariates), want)


def test_the_default_is_one_layer_of_32() -> None:
    head = ExpectationHead(7, BINS, covariates=1)
    assert head.linear.in_features == 7 + 32


def test_a_missing_covariate_counts_as_zero() -> None:
    head = ExpectationHead(7, BINS, covariates=1)
    features = torch.randn(2, 7)
    covariates = torch.tensor([[torch.nan], [1.0]])
    logits = head(features, covariates)
    torch.testing.assert_close(logits, head(features, torch.tensor([[0.0], [1.0]])))
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_whole_number_covariates() -> None:
    head = ExpectationHead(7, BINS, covariates=1)
    features = torch.randn(2, 7)
    given = torch.tensor([[-1], [1]])
    torch.testing.assert_close(head(features, given), head(features, given.float()))


def test_state_carries_the_bins() -> None:
    state = ExpectationHead(7, BINS).state_dict()
    assert torch.equal(state["bins.centers"], BINS.centers)
    with pytest.raises(RuntimeError, match=r"bins\.centers: expected those of Bins\(0, 239"):
        ExpectationHead(7, Bins(0, 239)).load_state_dict(state)


@pytest.mark.parametrize(
    ("covariates", "features", "given", "message"),
    [
        (0, (3, 8), None, r"features: expected shape \(N, F\) with F = 7, got \(3, 8\)"),
        (0, (3, 7, 1), None, r"features: expected shape \(N, F\)"),
        (0, (3, 7), (3, 1), "covariates: expected None, got a value"),
        (2, (3, 7), None, r"covariates: expected \(N, 2\), got None"),
        (2, (3, 7), (3, 1), r"covariates: expected shape \(N, C\) with N = 3, C = 2, got \(3, 1\)"),
        (2, (3, 7), (1, 2), r"covariates: expected shape \(N, C\) with N = 3, C = 2, got \(1, 2\)"),
        (1, (3, 7), (3,), r"covariates: expected shape \(N, C\)"),
    ],
)
def test_refuses_shapes(
    covariates: int,
    features: tuple[int, ...],
    given: tuple[int, ...] | None,
    message: str,
) -> None:
    head = ExpectationHead(7, BINS, covariates=covariates)
    with pytest.raises(ValueError, match=message):
        head(torch.zeros(features), None if given is None else torch.zeros(given))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"in_features": -1}, ValueError, "in_features: expected an integer of at least 1"),
        ({"in_features": 7.5}, ValueError, "in_features: expected an integer of at least 1"),
        ({"covariates": -1}, ValueError, "covariates: expected an integer of at least 0, got -1"),
        ({"covariate_hidden": 32}, TypeError, "covariate_hidden: expected a sequence of numbers"),
        ({"covariate_hidden": (32, 0)}, ValueError, "covariate_hidden: expected an integer of at"),
        ({"bins": 240}, TypeError, "bins: expected a Bins, got int"),
    ],
)
def test_refuses_options(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ExpectationHead(**{"in_features": 7, "bins": BINS, "covariates": 1, **options})


def test_compiles_to_one_graph() -> None:
    head = ExpectationHead(7, BINS, covariates=1)
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    features, covariates = torch.randn(3, 7), torch.ones(3, 1)
    torch.testing.assert_close(compiled(features, covariates), head(features, covariates))


def test_device(device: torch.device) -> None:
    head = ExpectationHead(7, Bins(1, 240), covariates=1).to(device)
    features = torch.zeros(3, 7, device=device)
    logits = head(features, torch.zeros(3, 1, device=device))
    assert logits.shape == (3, 240)
    assert logits.device.type == device.type
    assert head.to(torch.bfloat16)(features.bfloat16(), features[:, :1]).dtype == torch.bfloat16
