import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from scipy.spatial import distance

from ldlcam.ldl import DistributionSimilarity, distribution_similarity

rows = st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any)


def normal(counts: list[int]) -> np.ndarray:
    return np.array(counts, dtype=float) / sum(counts)


@given(st.lists(st.tuples(rows, rows), min_size=1, max_size=5))
def test_against_scipy(pairs: list[tuple[list[int], list[int]]]) -> None:
    probs = np.array([normal(p) for p, _ in pairs])
    labels = np.array([normal(q) for _, q in pairs])
    found = distribution_similarity(torch.from_numpy(probs), torch.from_numpy(labels))
    sums = np.where(probs + labels > 0, probs + labels, 1)
    want = {
        "chebyshev": [distance.chebyshev(p, q) for p, q in zip(probs, labels, strict=True)],
        "clark": np.sqrt((((probs - labels) / sums) ** 2).sum(1)),
        "canberra": [distance.canberra(p, q) for p, q in zip(probs, labels, strict=True)],
        "kl": special.rel_entr(labels, probs).sum(1),
        "cosine": [1 - distance.cosine(p, q) for p, q in zip(probs, labels, strict=True)],
        "intersection": 1 - np.abs(probs - labels).sum(1) / 2,
    }
    for name, value in found._asdict().items():
        assert value.item() == pytest.approx(np.mean(want[name]), abs=1e-10), name


def test_the_same_distribution() -> None:
    probs = torch.rand(5, 9).softmax(-1)
    found = distribution_similarity(probs, probs)
    want = DistributionSimilarity(*map(torch.tensor, (0.0, 0.0, 0.0, 0.0, 1.0, 1.0)))
    torch.testing.assert_close(found, want)


def test_missing_labels_are_left_out() -> None:
    probs, labels = torch.rand(2, 5, 9).softmax(-1)
    gaps = labels.clone()
    gaps[[1, 3]] = 0
    found = distribution_similarity(probs, gaps)
    want = distribution_similarity(probs[[0, 2, 4]], labels[[0, 2, 4]])
    torch.testing.assert_close(found, want)
    assert all(value.isnan() for value in distribution_similarity(probs, 0 * labels))


def test_a_prediction_that_rules_out_the_label() -> None:
    found = distribution_similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))
    assert found.kl == torch.inf


def test_arguments() -> None:
    with pytest.raises(ValueError, match=r"labels: expected shape \(N, K\) with N = 2, K = 3"):
        distribution_similarity(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(TypeError, match="probs: expected a tensor of floating dtype"):
        distribution_similarity(torch.zeros(2, 3).long(), torch.zeros(2, 3))


def test_device(device: torch.device) -> None:
    found = distribution_similarity(
        torch.rand(4, 3, device=device), torch.rand(4, 3, device=device)
    )
    assert all(value.shape == () and value.device.type == device.type for value in found)


def test_gradients_are_finite() -> None:
    """Of a prediction that is its label, with bins that have nothing, and without a label."""
    labels = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    for measure in range(6):
        probs = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
        distribution_similarity(probs, labels)[measure].backward()
        assert probs.grad is not None
        assert probs.grad.isfinite().all()
        assert probs.grad[1].tolist() == [0, 0, 0]
