"""One ONNX file says what the predictor says, and its parts are what they stand for."""

import copy
import importlib.util
import json
import math
import shutil
import zlib
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import onnx
import pytest
import torch
from conftest import left_in, write_image
from ldlcam import Bins, LabelDistribution
from rich.console import Console
from typer.testing import CliRunner

from boneage.cli import app
from boneage.config import Config, Localization, Region, load_config
from boneage.data import contrast as numpy_contrast
from boneage.data.images import image_name, read_film
from boneage.errors import UserError
from boneage.model_folder import TrainedModel, export, open_model
from boneage.networks.bins import make_bins
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.reading import Calibration
from boneage.networks.regressor import AgeNetwork
from boneage.networks.storage import save_network
from boneage.onnx import export as onnx_export
from boneage.onnx import operators
from boneage.onnx.check import Covariates, Session, answer, compare
from boneage.onnx.contrast import even_contrast
from boneage.onnx.graph import PredictorGraph
from boneage.phantom import PhantomConfig, generate
from boneage.pipeline import run
from boneage.predictor import Patient, Predictor

FOUND = Localization().found

README = Path(__file__).parents[1] / "README.md"
SEXES = (True, False, None)


class Exported(NamedTuple):
    """A file, the predictor that it was made from, and what the command printed."""

    file: Path
    session: Session
    predictor: Predictor
    printed: str

    def agrees(
        self, name: str, pixels: np.ndarray, male: bool | None, covariates: Covariates = ()
    ) -> None:
        said = self.session.answer(name, pixels, male, covariates)
        expected = answer(self.predictor, name, pixels, male, covariates)
        assert said.keys() == expected.keys()
        bins = self.predictor.calibration.distribution(torch.zeros(1, 240)).bins
        months = 1e-4 * (bins.last - bins.first)
        # An eighth of a pixel of the networks' small images, and half a pixel of these at least.
        pixel = max(0.5, max(pixels.shape) / (8 * 65))
        limits = {"months": months, "interval": 10 * months, "boxes": pixel, "probabilities": 1e-4}
        for output, value in expected.items():
            np.testing.assert_allclose(said[output], value, rtol=0, atol=limits.get(output, 0))


def _export(folder: Path, *arguments: str) -> Exported:
    file = folder / "model.onnx"
    done = CliRunner().invoke(app, ["export-onnx", str(file), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    model = open_model(Path(options["--run"]), options.get("--model"))
    return Exported(file, Session(file), Predictor(model), done.output)


@pytest.fixture(scope="module")
def ensemble(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Two models mixed, each asked about the image and its mirror image, with every correction."""
    folder = tmp_path_factory.mktemp("ensemble")
    shutil.copytree(finished, folder / "run")
    reading = (
        "reading={mirror: true, temperature: true, bias: true, conformal: true, "
        "ensembles: {E: [O, H+R1+R2]}}"
    )
    run(load_config("smoke", [reading]), folder / "run", Console(quiet=True), until="evaluate")
    return _export(folder, "--run", str(folder / "run"), "--model", "E")


@pytest.fixture(scope="module")
def single_ages(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model of one age, from a model folder, on films of locally even contrast, turned too.

    It sees the image without Region 1 beside that region.
    """
    folder = tmp_path_factory.mktemp("single")
    export(finished, folder / "model", "O-L1")
    about = json.loads((folder / "model" / "model.json").read_text())
    about["configuration"] |= {"contrast": "local"}
    about["configuration"]["reading"]["rotations"] = [8]
    (own,) = (one for one in about["configuration"]["training"]["models"] if one["name"] == "O-L1")
    own["regions"] = ["erased", "region1"]
    about["configuration"]["localization"]["mirror"] = False
    (folder / "model" / "model.json").write_text(json.dumps(about))
    return _export(folder, "--run", str(folder / "model"))


@pytest.fixture(scope="module")
def told(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model that is told height and weight, of 120 +- 20 and 30 +- 5, and minds them."""
    folder = tmp_path_factory.mktemp("told")
    export(finished, folder / "model", "O")
    about = json.loads((folder / "model" / "model.json").read_text())
    about["configuration"]["table"]["covariates"] = ["height", "weight"]
    (folder / "model" / "model.json").write_text(json.dumps(about))
    config = Config.model_validate(about["configuration"])
    torch.manual_seed(0)
    network = AgeNetwork(config.training, config.members("O")[0], config.bins, 2)
    network.standardize.fit(np.array([[100, 25], [140, 35]], dtype=np.float32))
    torch.nn.init.normal_(network.head.covariate_layers[0].weight)
    save_network(network, folder / "model" / "ages-O.safetensors")
    return _export(folder, "--run", str(folder / "model"))


def _drawn(height: int, width: int, bits: int = 8) -> np.ndarray:
    image = generate(height, config=PhantomConfig(size=(height, width), bits=bits)).image
    return image / np.float32(2**bits - 1)


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).random((height, width), dtype=np.float32)


IMAGES = {
    "portrait": _drawn(160, 120),
    "landscape": _drawn(90, 200),
    "of-16-bits": _drawn(133, 101, bits=16),
    "large": _drawn(1203, 850, bits=16),
    "tiny": _noise(8, 8),
    "narrow": _noise(8, 500),
    "constant": np.full((60, 45), 0.3, dtype=np.float32),
    "black": np.zeros((45, 60), dtype=np.float32),
}


# ------------------------------------------------------------------------------ the whole file


@pytest.mark.parametrize("male", SEXES)
@pytest.mark.parametrize("name", IMAGES)
def test_the_file_says_what_the_predictor_says(
    name: str, male: bool | None, ensemble: Exported, single_ages: Exported
) -> None:
    ensemble.agrees(name, IMAGES[name], male)
    single_ages.agrees(name, IMAGES[name], male)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_file_says_what_is_read_of_image_files(
    bits: int, ensemble: Exported, tmp_path: Path
) -> None:
    drawn = generate(bits, config=PhantomConfig(size=(150, 110), bits=bits)).image
    path = write_image(tmp_path / "a b.png", drawn)
    for male in SEXES:
        (row,) = ensemble.predictor.rows([Patient(path, male)])
        said = ensemble.session.answer(image_name(path), read_film(path).pixels, male)
        corners = [
            float(row[f"{region}_{c}"]) for region in FOUND for c in ("x1", "y1", "x2", "y2")
        ]
        np.testing.assert_allclose(said["boxes"].ravel(), corners, atol=0.06)
        figures = [float(row[column]) for column in ("months", "p5", "p95")]
        told = [said["months"], *said["interval"]]
        np.testing.assert_allclose(told, figures, rtol=1e-4, atol=0.02)
        found = [f"no-{region}" not in row["flags"] for region in FOUND]
        assert said["valid"].tolist() == found


def test_what_the_file_tells_of_itself(ensemble: Exported, single_ages: Exported) -> None:
    session = ensemble.session
    about = session.runtime.get_modelmeta().custom_metadata_map
    assert "Not for clinical use" in about["about"]
    assert about["model"] == "E"
    assert json.loads(about["regions"]) == list(FOUND)
    assert json.loads(about["thresholds"]) == ensemble.predictor.thresholds
    assert {"boneage", "ldlcam", "torch", "onnx"} <= json.loads(about["versions"]).keys()
    bins = json.loads(about["bins"])
    assert (bins["count"], bins["unit"]) == (240, "months")
    ages = bins["first"] + bins["step"] * np.arange(bins["count"])
    said = session.answer("a", IMAGES["portrait"], True)
    assert said["probabilities"].sum() == pytest.approx(1, abs=1e-5)
    assert said["probabilities"] @ ages == pytest.approx(said["months"], abs=1e-4 * np.ptp(ages))
    other = json.loads(single_ages.session.runtime.get_modelmeta().custom_metadata_map["bins"])
    assert (other["first"], other["last"], other["step"]) == (1, 240, 1)


def test_single_ages_have_no_probabilities(single_ages: Exported) -> None:
    said = single_ages.session.answer("a", IMAGES["portrait"], True)
    assert said.keys() == {"months", "interval", "boxes", "valid"}
    assert np.isnan(said["interval"]).all()
    assert 1 <= said["months"] <= 240


def test_the_file_is_valid_and_tells_nothing_of_where_it_was_made(
    ensemble: Exported, single_ages: Exported
) -> None:
    for exported in (ensemble, single_ages):
        onnx.checker.check_model(onnx.load(exported.file), full_check=True)
        content = exported.file.read_bytes()
        for word in (__file__, onnx_export.__file__, torch.__file__):
            assert str(Path(word).parent).encode() not in content
        assert b"pkg.torch" not in content


def test_images_of_no_name_need_no_seed(ensemble: Exported) -> None:
    session = ensemble.session
    feeds = {"image": IMAGES["portrait"], "sex": np.array(1, dtype=np.float32)}
    named = session.answer("", IMAGES["portrait"], True)
    for said, expected in zip(session.runtime.run(None, feeds), named.values(), strict=True):
        np.testing.assert_array_equal(said, expected)


def test_the_readme_reads_an_age(
    ensemble: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ensemble.file, tmp_path / "mine.onnx")
    path = write_image(tmp_path / "4711.png", (IMAGES["portrait"] * 255).astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    _, example = README.read_text().split("## ONNX")
    found: dict[str, object] = {}
    exec(example.split("```python")[1].split("```")[0], found)
    (row,) = ensemble.predictor.rows([Patient(path, male=False)])
    assert found["months"] == pytest.approx(float(row["months"]), rel=1e-4, abs=0.02)
    assert found["bins"]["count"] == len(found["probabilities"])


def test_the_command_says_how_close_it_is(ensemble: Exported, single_ages: Exported) -> None:
    assert "probabilities" in ensemble.printed
    assert "probabilities" not in single_ages.printed
    for exported in (ensemble, single_ages):
        assert "boxes" in exported.printed


def test_a_file_of_another_model_is_found_out(ensemble: Exported, finished: Path) -> None:
    bins = make_bins(ensemble.predictor.config.bins)
    with pytest.raises(UserError, match=r"months: .* differ from the predictor's by"):
        compare(ensemble.file, Predictor(open_model(finished, "O")), bins)


def test_a_graph_that_says_something_else_is_not_written(
    ensemble: Exported, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_convert", lambda graph: onnx.load(ensemble.file))
    (tmp_path / "old.onnx").write_bytes(b"old")
    for name in ("new.onnx", "old.onnx"):
        with pytest.raises(UserError, match="no file was written"):
            onnx_export.export_onnx(finished, tmp_path / name, "O")
    assert left_in(tmp_path) == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_bytes() == b"old"


def test_without_the_packages_the_command_names_them(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else known(name)
    )
    with pytest.raises(UserError, match=r"^onnxruntime: not installed, .* ONNX; .*boneage\[onnx\]"):
        onnx_export.export_onnx(finished, tmp_path / "model.onnx")
    assert left_in(tmp_path) == []


def test_a_folder_in_the_files_place_is_refused_at_once(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        onnx_export.export_onnx(finished, tmp_path)


UNKNOWN = math.nan


@pytest.mark.parametrize("male", SEXES)
@pytest.mark.parametrize(
    "covariates",
    [(150.0, 24.0), (UNKNOWN, 24.0), (150.0, UNKNOWN), (UNKNOWN, UNKNOWN), ()],
    ids=["both", "weight", "height", "unknown", "left-out"],
)
def test_covariates_count_as_they_do_to_the_predictor(
    covariates: Covariates, male: bool | None, told: Exported
) -> None:
    for name in ("portrait", "landscape"):
        told.agrees(name, IMAGES[name], male, covariates)


def test_a_covariate_that_is_unknown_counts_as_the_mean(told: Exported) -> None:
    def months(*covariates: float) -> float:
        said = told.session.answer("portrait", IMAGES["portrait"], True, covariates)
        return float(said["months"])

    assert months(UNKNOWN, 24.0) == pytest.approx(months(120.0, 24.0), abs=1e-3)
    assert months(150.0, UNKNOWN) == pytest.approx(months(150.0, 30.0), abs=1e-3)
    assert months() == pytest.approx(months(120.0, 30.0), abs=1e-3)
    # Each of them matters, so that agreeing says something.
    known = months(150.0, 24.0)
    for other in (months(120.0, 24.0), months(150.0, 30.0), months(24.0, 150.0)):
        assert abs(other - known) > 0.5


def test_only_models_with_covariates_have_an_input_for_them(
    told: Exported, ensemble: Exported, single_ages: Exported
) -> None:
    names = {"told": ["height", "weight"], "ensemble": [], "single": []}
    for exported, expected in zip((told, ensemble, single_ages), names.values(), strict=True):
        inputs = [*exported.session.runtime.get_inputs()]
        inputs += exported.session.runtime.get_overridable_initializers()
        shapes = {each.name: (each.type, each.shape) for each in inputs}
        about = exported.session.runtime.get_modelmeta().custom_metadata_map
        assert json.loads(about["covariates"]) == expected
        own = {"covariates": ("tensor(float)", [2])} if expected else {}
        assert shapes == own | {
            "image": ("tensor(float)", ["height", "width"]),
            "sex": ("tensor(float)", []),
            "seed": ("tensor(int64)", []),
        }


@pytest.mark.parametrize("covariate", [0, 1])
def test_a_file_that_takes_a_covariate_otherwise_is_found_out(
    covariate: int, told: Exported
) -> None:
    other = copy.deepcopy(told.predictor)
    (network,) = other.networks.values()
    network.standardize.deviation[covariate] *= -1
    with pytest.raises(UserError, match=r"months: .* differ from the predictor's by"):
        compare(told.file, other, make_bins(other.config.bins))


# ------------------------------------------------------------------------- the module of tensors


def _untrained(config: Config, folder: Path) -> TrainedModel:
    """A model whose heads are random, not 0 as those of untrained networks."""
    torch.manual_seed(0)
    attention, networks = {}, {}
    plan = config.localization
    for region in plan.found:
        localizer = LocalizerNetwork(plan.localizer(region), config.bins, plan, region)
        for layer in (localizer.head, localizer.sex):
            if layer is not None:
                torch.nn.init.normal_(layer.weight)
        attention[region] = folder / f"{region}.safetensors"
        save_network(localizer, attention[region])
    for model in config.members("M"):
        networks[model.name] = folder / "ages.safetensors"
        count = len(config.table.covariates)
        network = AgeNetwork(config.training, model, config.bins, count)
        network.standardize.fit(np.tile([[100.0], [140.0]], count))
        save_network(network, networks[model.name])
    calibration = Calibration(config.reading, make_bins(config.bins))
    save_network(
        calibration.fit(torch.randn(40, 240), 120 + torch.randn(40)), folder / "c.safetensors"
    )
    thresholds = dict.fromkeys(plan.found, 0.5)
    return TrainedModel("M", config, thresholds, attention, networks, folder / "c.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        ["localization.component=peak", "localization.sex=false", "training.sex=false"],
        ["localization.hand.loss=l1", "localization.window=0", "localization.mirror=false"],
        ["contrast=none", "localization.region1.margin=0.2", "reading.rotations=[-10, 170]"],
        ["localization.erasing=features", "localization.region1.heatmap=evidence"],
        ["table.covariates=[height, weight]", "training.sex=false", "reading.mirror=true"],
        [
            "localization.regions=4",
            f"training.models=[{{name: M, regions: {list(get_args(Region))}, fusion: streams}}]",
        ],
    ],
)
def test_any_configuration_is_read_alike(changes: list[str], tmp_path: Path) -> None:
    models = "training.models=[{name: M, regions: [region2, whole]}]"
    predictor = Predictor(_untrained(load_config("smoke", [models, *changes]), tmp_path))
    graph = PredictorGraph(predictor)
    covariates = (150.0, UNKNOWN)[: len(graph.covariates)]
    known = torch.tensor(covariates) if covariates else None
    for male, sign in ((True, 1.0), (None, 0.0)):
        for name in ("portrait", "landscape", "constant"):
            seed = torch.tensor(zlib.crc32(name.encode()))
            said = graph(torch.from_numpy(IMAGES[name]), torch.tensor(sign), seed, known)
            expected = answer(predictor, name, IMAGES[name], male, covariates)
            for output, value in zip(graph.outputs, said, strict=True):
                np.testing.assert_allclose(value, expected[output], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------- their operators


VALUES = torch.tensor(
    [0.0, -0.0, 1.0, -1.0, 0.5, 1 - 2**-24, 1 + 2**-23, 3.0, -240.5, 1e-38, 1e-42, 3e38]
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frexp_is_that_of_torch(dtype: torch.dtype) -> None:
    powers = 2.0 ** torch.arange(-126, 128, dtype=dtype)
    values = torch.cat([VALUES.to(dtype), powers, powers.nextafter(torch.zeros(())), -powers])
    for said, expected in zip(operators.frexp(values), torch.frexp(values), strict=True):
        torch.testing.assert_close(said, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("towards", [-torch.inf, torch.inf, 0.0, 1.0])
def test_nextafter_is_that_of_torch(towards: float, dtype: torch.dtype) -> None:
    values = torch.cat([VALUES.to(dtype), torch.randn(100, dtype=dtype) * 100])
    ends = torch.full_like(values, towards)
    expected = torch.nextafter(values, ends)
    torch.testing.assert_close(operators.nextafter(values, ends), expected, rtol=0, atol=0)


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted_is_that_of_torch(right: bool) -> None:
    table = torch.tensor([0.0, 0.25, 0.25, 0.25, 1.0])
    values = torch.tensor([-1.0, 0.0, 0.1, 0.25, 0.3, 1.0, 2.0, torch.inf, torch.nan])[:, None]
    expected = torch.searchsorted(table, values, right=right)
    assert torch.equal(operators.searchsorted(table, values, right=right), expected)
    tables, values = torch.rand(6, 9).sort(1).values, torch.rand(6, 4)
    expected = torch.searchsorted(tables, values, right=right)
    assert torch.equal(operators.searchsorted(tables, values, right=right), expected)


def test_operators_take_their_places_only_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operators.REPLACEMENTS, torch.frexp, lambda values: "replaced")
    with operators.OnnxOperators():
        assert torch.frexp(torch.ones(1)) == "replaced"
    assert torch.frexp(torch.ones(1)).exponent == 1


def test_intervals_are_the_same_by_the_replaced_operators() -> None:
    ages = LabelDistribution(5 * torch.randn(50, 24), Bins(1, 24))
    expected = ages.interval(0.9)
    with operators.OnnxOperators():
        torch.testing.assert_close(ages.interval(0.9), expected, rtol=0, atol=0)


# -------------------------------------------------------------------------------- their contrast


@pytest.mark.parametrize("how", ["none", "percentile", "local"])
@pytest.mark.parametrize(
    "size",
    [(8, 8), (97, 130), (200, 100), (399, 400), (801, 799), (8, 900), (1234, 8), (1500, 1001)],
)
def test_contrast_is_evened_as_arrays_are(size: tuple[int, int], how: str) -> None:
    noise = _noise(*size)
    few = np.floor(noise * 3) / np.float32(255)
    speck = np.full(size, 0.3, dtype=np.float32)
    speck[0, 0], speck[-1, -1] = 0.9, 0.1
    for image in (noise, few, speck, np.full(size, 0.3, dtype=np.float32), 2 * noise - 0.5):
        expected = numpy_contrast.even_contrast(image, how)
        said = even_contrast(torch.from_numpy(image), how)
        assert said.dtype == torch.float32
        np.testing.assert_allclose(said, expected, rtol=0, atol=1e-6)
