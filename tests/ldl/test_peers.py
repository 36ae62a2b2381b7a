"""Other libraries, where they compute the same thing, give the same result."""

from types import ModuleType

import numpy as np
import pytest
import torch

from ldlcam.ldl import Bins, LabelDistribution, gaussian_labels

MONTHS = Bins(1, 240, unit="months")

# Their own uses of what is deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def peer(name: str) -> ModuleType:
    module: ModuleType = pytest.importorskip(name, reason=f"{name} is not installed")
    return module


@pytest.mark.parametrize("sigma", [1.0, 15.0])
def test_gaussian_labels_and_dlordinal(sigma: float) -> None:
    """Its labels of all classes: renormalized Gaussians for p = 2 and tau = 2 sigma^2."""
    soft = peer("dlordinal.soft_labelling")
    want = soft.get_exponential_soft_labels(240, p=2.0, tau=2 * sigma**2)
    got = gaussian_labels(MONTHS.centers.double(), MONTHS, sigma)
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.75, 15.0])
def test_integrated_labels_and_hl_gauss(sigma: float) -> None:
    """It computes in float32."""
    layer = peer("hl_gauss_pytorch").HLGaussLoss(
        1, 240, 240, sigma=sigma, min_max_value_on_bin_center=True
    )
    values = torch.linspace(1, 240, 77)
    got = gaussian_labels(values.double(), MONTHS, sigma, integrate=True)
    np.testing.assert_allclose(got.numpy(), layer.transform_to_probs(values), atol=1e-6)


def test_crps_and_scoring_libraries() -> None:
    predicted = LabelDistribution(3 * torch.randn(20, 240, dtype=torch.float64), MONTHS)
    values = torch.linspace(-5, 250, 20, dtype=torch.float64)
    got = predicted.crps(values).numpy()
    probs = predicted.probs.numpy()
    centers = np.broadcast_to(MONTHS.centers.double().numpy(), probs.shape)
    want = peer("properscoring").crps_ensemble(values.numpy(), centers, weights=probs)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-10)
    score = peer("scoringrules").crps_ensemble
    np.testing.assert_allclose(score(values.numpy(), centers, ens_w=probs), want, atol=1e-10)
