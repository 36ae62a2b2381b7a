"""A whole run at the smallest size: every stage, once, and only what is needed again."""

import csv
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import PATIENT, dicom, search_path, write_dicom
from PIL import Image
from rich.console import Console
from safetensors.numpy import load_file

from boneage import cli
from boneage.config import Config, load_config
from boneage.data.samples import Samples
from boneage.errors import UserError
from boneage.model_folder import export, open_model
from boneage.networks import devices
from boneage.networks.training import AgeTask, LocalizerTask
from boneage.pipeline import open_run, run
from boneage.predictor import Patient, Predictor, collect
from boneage.readings import columns
from boneage.run_folder import read_json
from boneage.shards import write_predictions
from boneage.stages import localize
from boneage.stages.plan import plan_stages

QUIET = Console(quiet=True)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


def _written(folder: Path) -> dict[str, int]:
    networks = folder.rglob("network.safetensors")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in networks}


def _figures(row: dict[str, str], of: str = "") -> list[float]:
    """What a row tells, NaN where it tells nothing."""
    cells = [row[f"{of}{column}"] for column in ("months", "sd", "p5", "p95", "entropy")]
    return [float(cell or "nan") for cell in cells]


def test_run_writes_every_figure(finished: Path, smoke: Config) -> None:
    metrics = read_json(finished / "metrics.json")
    assert set(metrics["localization"]) == {"hand", "region1", "region2"}
    assert set(metrics["ages"]["models"]) == {model.name for model in smoke.training.models}
    for model in metrics["ages"]["models"].values():
        assert np.isfinite(model["test"]["mae"])
        low, high = model["test"]["mae_interval"]
        assert low <= model["test"]["mae"] <= high
    assert len(metrics["data"]["phantom_fingerprint"]) == 64
    assert metrics["localization"]["hand"]["against"]["Hand"]["control"]["mean_iou"] > 0
    assert (finished / "report.html").stat().st_size > 10_000


def test_metrics_agree_with_the_predictions_file(finished: Path) -> None:
    metrics = read_json(finished / "metrics.json")
    with open(finished / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, model in metrics["ages"]["models"].items():
        errors = [abs(float(row[f"{name} months"]) - float(row["months"])) for row in rows]
        assert np.mean(errors) == pytest.approx(model["test"]["mae"], abs=0.01)
        assert len(rows) == model["test"]["count"]
        if model["coverage90"] is None:
            assert not any(row[f"{name} p5"] or row[f"{name} p95"] for row in rows)
        else:
            columns = (f"{name} p5", "months", f"{name} p95")
            low, truth, high = (np.array([float(row[each]) for row in rows]) for each in columns)
            inside = (low <= truth) & (truth <= high)
            assert np.mean(inside) == model["coverage90"]


def test_no_boxed_id_trains_and_every_id_has_a_part(finished: Path) -> None:
    with open(finished / "prepare" / "split.csv", newline="") as file:
        parts = {row["id"]: row["part"] for row in csv.DictReader(file)}
    with open(finished / "phantom" / "boxes.csv", newline="") as file:
        boxed = {row["id"] for row in csv.DictReader(file)}
    assert len(parts) == 60
    assert boxed
    assert {parts[id] for id in boxed} == {"boxes-choose", "boxes-score"}
    assert not boxed & {id for id, part in parts.items() if part in ("train", "validation", "test")}


def test_regions_of_a_run_can_be_drawn(finished: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "docs" / "results" / "regions.py"
    runpy.run_path(str(script))["draw"](finished, tmp_path / "regions.jpg")
    with Image.open(tmp_path / "regions.jpg") as picture:
        grey = np.asarray(picture.convert("L"))
        assert min(picture.size) > 300
    # Eight panels of radiographs, heat maps and crops on white, none of them empty.
    panels = np.array_split(grey[grey.shape[0] // 2 :], 8, axis=1)
    assert all(panel.std() > 20 for panel in panels)


def test_finished_run_does_nothing_twice(copied: Path, smoke: Config) -> None:
    before = _written(copied)
    assert len(before) == 6
    run(smoke, copied, QUIET)
    assert _written(copied) == before


def test_changed_loss_weight_trains_the_age_models_only(copied: Path) -> None:
    before = _written(copied)
    run(load_config("smoke", ["training.weight=3"]), copied, QUIET, until="train")
    changed = {name for name, time in _written(copied).items() if time != before[name]}
    assert changed == {name for name in before if name.startswith("model-")}


def test_changed_region_rule_trains_again_only_what_saw_the_region(copied: Path) -> None:
    """Region 2 is learned on images without region 1, so it follows when region 1 moves."""
    before = _written(copied)
    run(load_config("smoke", ["localization.component=peak"]), copied, QUIET, until="localize")
    changed = {name for name, time in _written(copied).items() if time != before[name]}
    assert changed == {"attention-region2/network.safetensors"}


def test_results_of_other_networks_do_not_stay(copied: Path) -> None:
    results = [copied / name for name in ("metrics.json", "predictions.csv", "report.html")]
    run(load_config("smoke"), copied, QUIET, until="localize")
    assert all(path.exists() for path in results)
    run(load_config("smoke", ["training.weight=3"]), copied, QUIET, until="localize")
    assert not any(path.exists() for path in results)


def test_a_moved_run_goes_on_with_its_own_images(copied: Path) -> None:
    """Where it lay before, there may be other images by now."""
    moved = copied.rename(copied.with_name("moved"))
    other = load_config("smoke", ["phantom.seed=1"])
    run(other, copied, QUIET, until="prepare")
    before = np.load(moved / "crop" / "hand.npy")
    run(load_config("smoke", ["localization.hand.margin=0.0001"]), moved, QUIET, until="crop")
    after = np.load(moved / "crop" / "hand.npy")
    assert np.abs(after.astype(float) - before).mean() < 2


def test_other_images_of_the_same_names_and_sizes_are_noticed(
    data_set: Callable[..., Path],
) -> None:
    data = data_set("1,100,True", "2,50,False")

    def key() -> str:
        return plan_stages(load_config("rsna100"), data.parent / "run", data).prepared.key

    keys = [key()]
    image = next(data.rglob("1.png"))
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    keys.append(key())
    image.unlink()
    image.symlink_to("nowhere.png")
    keys.append(key())
    assert len(set(keys)) == 3


def test_a_machine_without_the_accelerator_is_told_before_anything_runs(
    smoke: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(devices._AVAILABLE, "cuda", lambda: False)
    config = load_config("smoke", ["hardware.accelerator=cuda"])
    with pytest.raises(UserError, match="this machine has no cuda"):
        run(config, tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_predict_reads_what_the_run_evaluated(finished: Path, tmp_path: Path) -> None:
    """The predictor goes its own way from file to age and must agree with the stages."""
    predictor = Predictor(open_model(finished))
    with open(finished / "predictions.csv", newline="") as file:
        known = {row["id"]: row for row in csv.DictReader(file)}
    images = finished / "phantom" / "boneage-training-dataset"
    patients = [Patient(images / f"{id}.png", row["male"] == "True") for id, row in known.items()]
    rows = list(predictor.rows(patients))
    assert [Path(row["path"]).stem for row in rows] == list(known)
    for row in rows:
        evaluated = _figures(known[Path(row["path"]).stem], "H+R1+R2 ")
        np.testing.assert_allclose(_figures(row), evaluated, rtol=0, atol=0.011)
        assert float(row["p5"]) <= float(row["months"]) <= float(row["p95"])


def test_reading_otherwise_trains_nothing_and_predicts_what_it_evaluates(copied: Path) -> None:
    before = _written(copied)
    changes = [
        "reading.ensembles={both: [O, H+R1+R2]}",
        *(f"reading.{name}=true" for name in ("mirror", "temperature", "bias", "conformal")),
    ]
    config = load_config("smoke", [*changes, "reading.rotations=[10]"])
    plain = read_json(copied / "metrics.json")["ages"]["models"]
    run(config, copied, QUIET, until="evaluate")
    assert _written(copied) == before
    told = read_json(copied / "metrics.json")["ages"]["models"]
    assert list(told) == ["O-L1", "O", "H+R1+R2", "both"]
    assert told["O"]["test"]["mae"] != plain["O"]["test"]["mae"]
    assert told["O-L1"]["coverage90"] is not None
    with open(copied / "predictions.csv", newline="") as file:
        known = {row["id"]: row for row in csv.DictReader(file)}
    images = copied / "phantom" / "boneage-training-dataset"
    patients = [Patient(images / f"{id}.png", row["male"] == "True") for id, row in known.items()]
    for name in (None, "O-L1"):
        rows = Predictor(open_model(copied, name)).rows(patients)
        for row, expected in zip(rows, known.values(), strict=True):
            evaluated = _figures(expected, f"{name or 'both'} ")
            np.testing.assert_allclose(_figures(row), evaluated, rtol=0, atol=0.011)
            assert float(row["p5"]) <= float(row["p95"])
    with pytest.raises(UserError, match=r"this run has the models O-L1, O, H\+R1\+R2, both"):
        open_model(copied, "neither")


@pytest.mark.parametrize(
    ("change", "seen", "said"),
    [
        ("erasing=images", "[region1, erased]", {"image"}),
        ("erasing=features", "[region2, hand, erased, whole], fusion: streams", {"features"}),
        ("regions=3", "[region3, region2, erased], fusion: streams", {"image", "later"}),
    ],
)
def test_predict_erases_as_the_run_did(
    change: str, seen: str, said: set[str], tmp_path: Path
) -> None:
    models = f"training.models=[{{name: R1+E, regions: {seen}}}]"
    config = load_config("smoke", [models, f"localization.{change}"])
    run(config, tmp_path / "run", QUIET)
    report = " ".join((tmp_path / "run" / "report.html").read_text(encoding="utf-8").split())
    sentences = {
        "image": "The image of Region 2 has Region 1 erased",
        "features": "a second classifier reads the features",
        "later": "each later region has those before it erased",
    }
    assert {name for name, sentence in sentences.items() if sentence in report} == said
    export(tmp_path / "run", tmp_path / "model")
    predictor = Predictor(open_model(tmp_path / "model"))
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        known = {row["id"]: row for row in csv.DictReader(file)}
    folder = tmp_path / "run" / "phantom" / "boneage-training-dataset"
    patients = [Patient(folder / f"{id}.png", row["male"] == "True") for id, row in known.items()]
    for row in predictor.rows(patients):
        evaluated = known[Path(row["path"]).stem]
        assert float(row["months"]) == pytest.approx(float(evaluated["R1+E months"]), abs=0.05)
        assert tuple(row) == columns(config.localization.found)


def test_predict_of_a_dicom_file_is_that_of_the_picture(finished: Path, tmp_path: Path) -> None:
    """The file says the sex, and that it is a right hand: it is turned, and its boxes back."""
    picture = next((finished / "phantom" / "boneage-training-dataset").glob("*.png"))
    with Image.open(picture) as image:
        pixels = np.asarray(image)
    file = tmp_path / f"{picture.stem}.dcm"
    tags = {"PatientSex": "F", "ImageLaterality": "R"}
    write_dicom(dicom(np.ascontiguousarray(pixels[:, ::-1]), bits=8, **tags), file)
    predictor = Predictor(open_model(finished))
    expected, row = predictor.rows([Patient(picture, False), Patient(file)])
    assert row["flags"] == "right-hand"
    assert {name: row[name] for name in ("sex", "months", "sd", "p5", "p95")} == {
        name: expected[name] for name in ("sex", "months", "sd", "p5", "p95")
    }
    for region in ("hand", "region1", "region2"):
        (x1, x2), (left, right) = (
            [float(each[f"{region}_{corner}"]) for corner in ("x1", "x2")]
            for each in (expected, row)
        )
        assert [96 - right, 96 - left] == pytest.approx([x1, x2], abs=0.11)
    assert PATIENT not in str(row)


def test_a_model_folder_reads_what_its_run_does(finished: Path, tmp_path: Path) -> None:
    """Moved, without the run and its data; there is nothing in it that could be run."""
    folder = tmp_path / "model"
    export(finished, folder, "O")
    images = sorted((finished / "phantom" / "boneage-training-dataset").glob("*.png"))[:3]
    patients = [Patient(image, True) for image in images]
    known = list(Predictor(open_model(finished, "O")).rows(patients))
    moved = folder.rename(tmp_path / "moved")
    assert {path.suffix for path in moved.iterdir()} == {".safetensors", ".json", ".md"}
    assert list(Predictor(open_model(moved)).rows(patients)) == known
    card = (moved / "README.md").read_text()
    mae = read_json(finished / "metrics.json")["ages"]["models"]["O"]["test"]["mae"]
    assert f"{mae:.2f} months" in card
    assert "Not for clinical use" in card
    assert "drawings, not radiographs" in card
    with pytest.raises(UserError, match="holds something already"):
        export(finished, moved)
    with pytest.raises(UserError, match="holds one model; leave --model out"):
        open_model(moved, "O")


def test_a_model_folder_of_before_there_was_a_choice_of_regions(
    finished: Path, tmp_path: Path
) -> None:
    export(finished, tmp_path / "model")
    about = read_json(tmp_path / "model" / "model.json")
    assert about["configuration"]["localization"].pop("regions") == 2
    (tmp_path / "model" / "model.json").write_text(json.dumps(about))
    assert open_model(tmp_path / "model").config.localization.found[-1] == "region2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "its format is 2, not 1"),
        ({"name": "../other"}, "'../other'"),
        ({"thresholds": {"hand": 0.2}}, "region1"),
        ({"configuration": {"training": {"size": -1}}}, "validation error"),
        (None, "not readable as JSON"),
    ],
)
def test_a_model_folder_that_is_none(
    finished: Path, tmp_path: Path, change: dict[str, object] | None, message: str
) -> None:
    folder = tmp_path / "model"
    export(finished, folder)
    about = folder / "model.json"
    about.write_text("{" if change is None else json.dumps(read_json(about) | change))
    with pytest.raises(UserError, match=message):
        open_model(folder)


def test_a_model_folder_without_its_weights(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export(finished, folder)
    (folder / "attention-hand.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"attention-hand\.safetensors: not the weights"):
        Predictor(open_model(folder))
    (folder / "attention-hand.safetensors").unlink()
    with pytest.raises(UserError, match="no trained network there"):
        Predictor(open_model(folder))


def test_predict_makes_rows_of_bad_images(finished: Path, tmp_path: Path) -> None:
    good = next((finished / "phantom" / "boneage-training-dataset").glob("*.png"))
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(good, folder / "good.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "half.png").write_bytes(good.read_bytes()[:2000])
    out = tmp_path / "ages.csv"
    failed = write_predictions(Predictor(open_model(finished)), collect([folder], None), out)
    with open(out, newline="") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert failed == 2
    assert tuple(next(iter(rows.values()))) == columns(("hand", "region1", "region2"))
    assert rows["good.png"]["months"]
    assert "sex-unknown" in rows["good.png"]["flags"]
    assert not rows["good.png"]["error"]
    for bad in ("empty.png", "half.png"):
        assert bad in rows[bad]["error"]
        assert not rows[bad]["months"]


def test_rows_keep_the_order_of_the_images_whatever_is_wrong_with_some(
    finished: Path, tmp_path: Path
) -> None:
    """Over several batches, which are read ahead: a bad image shifts no other one's row."""
    images = sorted((finished / "phantom" / "boneage-training-dataset").glob("*.png"))[:40]
    (tmp_path / "bad.png").write_bytes(images[0].read_bytes()[:2000])
    bad = (0, 15, 16, 17, 39)
    paths = [tmp_path / "bad.png" if i in bad else image for i, image in enumerate(images)]
    predictor = Predictor(open_model(finished))
    expected = list(predictor.rows(Patient(image, True) for image in images))
    rows = list(predictor.rows(Patient(path, True) for path in paths))
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    for i, row in enumerate(rows):
        if i in bad:
            assert "bad.png" in row["error"]
            assert not row["months"]
        else:
            assert float(row["months"]) == pytest.approx(float(expected[i]["months"]), abs=0.02)


def test_erased_images_are_the_same_however_many_at_a_time(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, stages = open_run(copied)
    samples, attention = Samples.load(stages.prepared.folder), stages.attention["region2"]
    known = np.load(attention / "erased.npy")
    (attention / "erased.npy").unlink()
    monkeypatch.setattr(localize, "_AT_A_TIME", 7)
    own, before = config.localization.region2, [stages.regions["region1"]]
    again = localize.attention_input(own, samples, attention, stages.prepared, before)
    np.testing.assert_array_equal(again, known)


def test_flat_image_falls_back_to_the_whole_and_is_flagged(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from boneage.networks.localizer import LocalizerNetwork

    image = next((finished / "phantom" / "boneage-training-dataset").glob("*.png"))
    predictor = Predictor(open_model(finished))
    attend = LocalizerNetwork.attend

    def flat(self: LocalizerNetwork, images: torch.Tensor, sex: torch.Tensor) -> object:
        found = attend(self, images, sex)
        return found._replace(heatmaps=torch.zeros_like(found.heatmaps))

    monkeypatch.setattr(LocalizerNetwork, "attend", flat)
    (row,) = predictor.rows([Patient(image, True)])
    assert row["flags"].split() == ["no-hand", "no-region1", "no-region2"]
    assert [row[f"hand_{corner}"] for corner in ("x1", "y1", "x2", "y2")] == [
        "0.0", "0.0", "96.0", "128.0",
    ]  # fmt: skip
    assert np.isfinite(float(row["months"]))


def test_interrupted_training_goes_on_where_it_stopped(
    finished: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies after its first of two epochs trains only the second when run again.

    It ends with the very weights of a run that was left alone.
    """
    config = load_config(
        "smoke",
        [
            "training.schedule={epochs: [2], batch_size: 16}",
            "training.augmentation={rotation: 10, flip: true}",
        ],
    )
    left_alone = shutil.copytree(finished, tmp_path / "left alone")
    run(config, left_alone, QUIET, until="train")
    epochs: list[int] = []
    begin = AgeTask.on_train_epoch_start

    class PowerCut(Exception):
        pass

    def record(self: AgeTask) -> None:
        begin(self)
        epochs.append(self.current_epoch)
        if self.current_epoch == 1 and len(epochs) == 2:
            raise PowerCut

    monkeypatch.setattr(AgeTask, "on_train_epoch_start", record)
    with pytest.raises(PowerCut):
        run(config, copied, QUIET, until="train")
    assert epochs == [0, 1]
    run(config, copied, QUIET, until="train")
    assert epochs == [0, 1, 1, 0, 1, 0, 1]
    for model in config.training.models:
        path = Path(f"model-{model.name}", "network.safetensors")
        expected, found = (load_file(folder / path) for folder in (left_alone, copied))
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("warm", [True, False])
def test_warm_start_hands_the_backbone_on(
    copied: Path, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    begun: list[dict[str, np.ndarray]] = []

    def fit(task: LocalizerTask, *_: object, **__: object) -> float:
        features = task.network.features
        begun.append({name: w.numpy().copy() for name, w in features.state_dict().items()})
        for weight in features.parameters():
            torch.nn.init.normal_(weight)
        return 0.0

    monkeypatch.setattr("boneage.stages.localize.fit", fit)
    config = load_config("smoke", [f"localization.warm_start={warm}", "seed=7"])
    run(config, copied, QUIET, until="localize")
    for region, begins in zip(("hand", "region1"), begun[1:], strict=True):
        before = load_file(copied / f"attention-{region}" / "network.safetensors")
        same = [np.array_equal(before[f"features.{name}"], w) for name, w in begins.items()]
        assert all(same) if warm else not all(same)


def test_models_train_from_seeds_of_their_own(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, float]] = []

    def fit(task: AgeTask, *_: object, **__: object) -> float:
        begun.append((task.seed, torch.rand(1).item()))
        return 0.0

    monkeypatch.setattr("boneage.stages.train.fit", fit)
    models = [f"{{name: O{i}, regions: [whole]{own}}}" for i, own in enumerate(("", ", seed: 4"))]
    config = load_config("smoke", [f"training.models=[{', '.join(models)}]"])
    run(config, copied, QUIET, until="train")
    (run_seed, run_draw), (own_seed, own_draw) = begun
    assert (run_seed, own_seed) == (config.seed, 4)
    assert run_draw != own_draw


def test_a_refused_command_leaves_the_run_as_it_was(copied: Path) -> None:
    before = (copied / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="name them by --data"):
        run(load_config("rsna100"), copied, QUIET)
    with pytest.raises(UserError, match="'resnet999': timm has no network of that name"):
        run(load_config("smoke", ["training.backbone.name=resnet999"]), copied, QUIET)
    own = load_config("smoke").model_copy(update={"data": copied.parent})
    with pytest.raises(UserError, match=r"lies in the folder of the radiographs, .* by --out"):
        run(own, copied, QUIET)
    assert (copied / "config.yaml").read_bytes() == before


def test_a_refused_data_set_leaves_the_run_as_it_was(
    copied: Path, data_set: Callable[..., Path]
) -> None:
    def written() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}

    before = written()
    wrong = load_config("smoke", [f"data={data_set('1,100,True', '2,none,False')}"])
    with pytest.raises(UserError, match="'none'"):
        run(wrong, copied, QUIET)
    assert written() == before
    assert open_model(copied).name == "H+R1+R2"


def test_a_run_prepared_otherwise_since_is_not_predicted_with(copied: Path) -> None:
    run(load_config("smoke", ["contrast=local"]), copied, QUIET, until="prepare")
    with pytest.raises(UserError, match="not done with the run's present settings"):
        Predictor(open_model(copied))
    run(load_config("smoke"), copied, QUIET, until="prepare")
    assert open_model(copied).name == "H+R1+R2"


def test_a_finished_run_is_taken_up_without_naming_its_preset(copied: Path) -> None:
    before = _written(copied)
    again = _boneage("run", "--out", str(copied))
    assert again.returncode == 0, again.stderr
    assert _written(copied) == before


def test_missing_run_and_model_are_named(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run there"):
        open_run(tmp_path)
    with pytest.raises(UserError, match=r"model 'X': this run has the models O-L1, O"):
        open_model(finished, "X")


def _boneage(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from boneage.cli import main; main()", *words]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_command_line_says_one_message_and_no_traceback(tmp_path: Path) -> None:
    table = tmp_path / "data" / "labels.csv"
    table.parent.mkdir()
    table.write_text("id,boneage,male\n1,30,True\n1,40,True\n")
    for words, expected in (
        (("run", "--preset", "nope"), "no such preset or file"),
        (("run", "--preset", "rsna100"), "name them by --data"),
        (("run", "--data", str(tmp_path / "nowhere")), "no such folder"),
        (("run", "--data", str(table.parent)), "no images"),
        (("run", "--preset", "smoke", "-s", "training.colour=3"), "training.colour"),
    ):
        result = _boneage(*words, "--out", str(tmp_path / "out"))
        assert result.returncode == 1, result
        assert expected in result.stderr
        assert "Traceback" not in result.stderr + result.stdout


def test_full_memory_of_a_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert "the GPU's memory is full; lower batch_size" in capsys.readouterr().err
    monkeypatch.setattr(cli, "app", Mock(side_effect=RuntimeError("another")))
    with pytest.raises(RuntimeError, match="another"):
        cli.main()


def test_metrics_file_is_strict_json(finished: Path) -> None:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    json.loads((finished / "metrics.json").read_text(), parse_constant=refuse)


def test_two_processes_of_torchrun_write_the_table_of_one(finished: Path, tmp_path: Path) -> None:
    images = finished / "phantom" / "boneage-training-dataset"
    asked = ["predict", str(images), "--run", str(finished), "--sex", "F", "--out"]
    # Without the two dashes torchrun would take --run for one of its own options.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "--"]
    for start, out in (([sys.executable, "-m"], "one.csv"), (torchrun, "two.csv")):
        command = [*start, "boneage", *asked, str(tmp_path / out)]
        script = "import boneage.shards as s; s.SHARD = 16"
        environment = os.environ | {"PYTHONPATH": search_path(tmp_path), "OMP_NUM_THREADS": "1"}
        (tmp_path / "sitecustomize.py").write_text(script)
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("60 images, 0 of them not readable") == 1
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
