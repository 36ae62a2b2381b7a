from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("ldlcam", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("ldlcam")


@pytest.fixture(params=["cpu", "meta", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device a function must work on; on meta only shapes and dtypes can be checked."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("CUDA is not available")
    return torch.device(request.param)


@pytest.fixture
def half_by_default() -> Iterator[None]:
    """Tensors are made in half precision where nothing else is said, as by some trainers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    """Each test starts from the same seed and leaves the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
