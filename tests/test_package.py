"""The package as its users get it: the wheel, in an environment with the core dependencies only."""

import inspect
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ldlcam
from ldlcam import metrics

ROOT = Path(__file__).parents[1]

USE = """
import importlib.util
from importlib import metadata, resources
import torch
import ldlcam
from ldlcam import Bins, ExpectationLDLLoss, crop_and_resize

for name in ("torchvision", "timm", "matplotlib", "pytest"):
    assert importlib.util.find_spec(name) is None, f"{name} can be imported here"
assert metadata.version("ldlcam") == ldlcam.__version__
assert resources.files("ldlcam").joinpath("py.typed").is_file()
for name in ldlcam.__all__:
    getattr(ldlcam, name)

loss = ExpectationLDLLoss(Bins(1, 240), sigma=15.0)(torch.zeros(2, 240), torch.tensor([24.0, 96.0]))
assert loss.isfinite()
boxes = torch.tensor([[4.0, 4.0, 20.0, 28.0]])
assert crop_and_resize(torch.rand(1, 3, 32, 32), boxes, (16, 16)).shape == (1, 3, 16, 16)
print(ldlcam.__file__)
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
    _run(*build, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, the core dependencies, and what these depend on."""
    folder = tmp_path_factory.mktemp("bare")
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    packages = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))
    # Linked from where the tests run: downloading PyTorch again would take minutes.
    for name in _closure(_needed_by(_metadata(wheel))):
        _link(metadata.distribution(name), packages)
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    _run(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel)
    return python


def test_wheel_depends_on_the_core_and_nothing_else(wheel: Path) -> None:
    assert _needed_by(_metadata(wheel)) == {"torch", "numpy", "scipy", "einops"}


def test_wheel_works_in_a_bare_environment(bare_python: Path, tmp_path: Path) -> None:
    # Isolated (-I) and elsewhere, so that the checkout is not on the path.
    used = _run(bare_python, "-I", "-W", "error", "-c", USE, cwd=tmp_path)
    assert Path(used).is_relative_to(bare_python.parents[1])


@pytest.mark.long
def test_wheel_fetches_what_it_depends_on(wheel: Path, tmp_path: Path) -> None:
    _run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    _run(python, "-m", "pip", "install", "--disable-pip-version-check", wheel)
    used = _run(python, "-I", "-W", "error", "-c", USE, cwd=tmp_path)
    assert Path(used).is_relative_to(tmp_path)


def test_import_brings_nothing_optional_and_no_scipy() -> None:
    listing = "import sys; print(*sys.modules)"
    before = _run(sys.executable, "-c", f"import torch, numpy, einops; {listing}").split()
    after = _run(sys.executable, "-c", f"import ldlcam; {listing}").split()
    brought = {name.partition(".")[0] for name in set(after) - set(before)}
    assert brought - sys.stdlib_module_names == {"ldlcam"}


@pytest.mark.parametrize("module", [ldlcam, metrics])
def test_all_is_sorted_and_has_no_modules(module: ModuleType) -> None:
    assert module.__all__ == sorted(set(module.__all__))
    assert not [name for name in module.__all__ if inspect.ismodule(getattr(module, name))]


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module in (ldlcam, metrics) for name in module.__all__],
)
def test_public_name_has_a_docstring_with_an_example(module: ModuleType, name: str) -> None:
    thing = getattr(module, name)
    docstring = inspect.getdoc(thing)
    assert docstring
    # Result types are shown by the functions that return them.
    is_result = inspect.isclass(thing) and issubclass(thing, tuple)
    assert ">>>" in docstring or is_result


def _metadata(wheel: Path) -> metadata.Distribution:
    (folder,) = (path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info"))
    return metadata.PathDistribution(folder)


def _needed_by(distribution: metadata.Distribution) -> set[str]:
    """Names of the distributions that one needs here, without its extras."""
    requirements = [Requirement(text) for text in distribution.requires or []]
    return {
        canonicalize_name(one.name)
        for one in requirements
        if one.marker is None or one.marker.evaluate({"extra": ""})
    }


def _closure(names: set[str]) -> set[str]:
    """Some distributions and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _needed_by(metadata.distribution(name))
    return found


def _link(distribution: metadata.Distribution, packages: Path) -> None:
    """Link what a distribution has at the top of its site-packages into another one."""
    for top in {Path(file.parts[0]) for file in distribution.files or []}:
        # Scripts lie outside (".."), and a start-up hook (.pth) could put more on the path.
        if top.name in ("..", "__pycache__") or top.suffix == ".pth":
            continue
        link = packages / top
        link.unlink(missing_ok=True)
        link.symlink_to(Path(str(distribution.locate_file(top))))


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout.strip()
