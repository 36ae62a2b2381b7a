"""The paper's tables: rows that differ in what they say, networks trained once, figures by hand."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from ldlcam import LabelDivergenceLoss
from rich.console import Console
from typer.testing import CliRunner

from boneage import cli
from boneage.config import Config, Region, load_config
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.errors import UserError
from boneage.experiments import attention, distributions
from boneage.experiments.attention import claim_csv, claim_page, draw_claim
from boneage.experiments.figure import draw_table
from boneage.experiments.networks import Network, _shown, beside_others, read_line
from boneage.experiments.page import write_csv, write_page
from boneage.experiments.results import summarize
from boneage.experiments.rows import (
    _LETTERS,
    EXPERIMENTS,
    ONE_NETWORK,
    THREE_REGIONS,
    Experiment,
    Row,
)
from boneage.experiments.run import _NO_AGES, WRITERS, Paper
from boneage.experiments.writing import markdown_row
from boneage.networks import backbones
from boneage.networks.bins import make_bins
from boneage.networks.losses import make_loss
from boneage.networks.regressor import AgeNetwork
from boneage.run_folder import Stage, read_array, read_arrays, read_json
from boneage.stages.controls import median_box_scores
from boneage.stages.localize import Found
from boneage.stages.plan import make_data_key, plan_keyed

QUIET = Console(quiet=True)
SMALL = [
    "experiments.sizes=[64, 80]",
    "experiments.seeds=[0, 1]",
    "experiments.lambdas=[0, 1]",
    "experiments.thresholds=[0.1, 0.5]",
    "experiments.backbones=[test_resnet.r160_in1k]",
]


def _paper(folder: Path, *changes: str) -> Paper:
    return Paper(load_config("smoke", [*SMALL, *changes]), folder, QUIET, "boneage table")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Tables I and IV, Figure 5 and a network that sees H, R1 and E."""
    folder = tmp_path_factory.mktemp("paper")
    paper = _paper(folder)
    paper.table(4)
    paper.figure(5)
    paper.table(1)
    return folder


def test_every_row_is_a_network_of_its_own_but_where_tables_meet() -> None:
    config = load_config("smoke", SMALL)
    networks: dict[str, list[Path]] = {}
    for name, experiment in EXPERIMENTS.items():
        networks[name] = [
            Network.of(row, 0, config, Path("somewhere"), _data_key(row)).record
            for row in experiment(config).rows
        ]
        assert len(set(networks[name])) == len(networks[name]) > 0, name
    # Told the sex through 32 units at the smallest size, by L1; not told it, from random weights.
    assert networks["table-3"][2] == networks["table-4"][0]
    assert networks["table-3"][0] == networks["table-2"][0]
    assert networks["table-5"][0] == networks["table-4"][0]


def test_table_1_needs_no_model_that_sees_what_a_way_does_not_find(tmp_path: Path) -> None:
    paper = _paper(
        tmp_path, "localization.regions=4", "training.models=[{name: m, regions: [region4]}]"
    )
    for changes in (ONE_NETWORK, THREE_REGIONS):
        own = paper.config.changed({**changes, **_NO_AGES})
        assert "region4" not in own.localization.found


def test_every_region_has_letters() -> None:
    assert set(_LETTERS) == set(get_args(Region))
    assert len(set(_LETTERS.values())) == len(_LETTERS)


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (("whole",), ()),
        (("region2",), ("region1", "region2")),
        (("whole", "hand"), ("hand",)),
        (("hand", "region1"), ("hand", "region1", "region2")),
        (("erased",), ("hand", "region1", "region2")),
    ],
)
def test_a_row_of_one_region_finds_no_others(
    seen: tuple[Region, ...], found: tuple[str, ...]
) -> None:
    config = load_config("smoke", [*SMALL, "localization.warm_start=false"])
    row = Row("a row", None, seen)
    assert Network.of(row, 0, config, Path("somewhere"), "").stages.needed() == found


def test_the_command_knows_every_claim() -> None:
    tables = {name.removeprefix("claim-") for name in EXPERIMENTS if name.startswith("claim-")}
    assert set(cli.CLAIMS) == tables | attention.CLAIMS.keys()
    assert len(set(cli.CLAIMS)) == len(cli.CLAIMS)


def _data_key(row: Row) -> str:
    return str({name: value for name, value in row.changes.items() if name[:8] == "phantom."})


def test_rows_on_other_phantoms_have_their_own_data(tmp_path: Path) -> None:
    paper = _paper(tmp_path, "phantom.variant=swapped")
    own = {}
    for row in EXPERIMENTS["claim-controls"](paper.config).rows:
        drawing = paper._drawing(row)
        assert drawing is own.setdefault(row.series, drawing)
        assert drawing.config == paper.config.changed({"phantom.variant": row.series})
    assert len({one.folder for one in own.values()}) == 4
    assert own["swapped"] is paper is paper._drawing(Row("O"))


def test_crops_are_of_large_originals_and_of_such_as_are_seen(tmp_path: Path) -> None:
    paper = _paper(tmp_path, "phantom.size=[512, 384]", "training.size=112")
    rows = EXPERIMENTS["claim-crops"](paper.config).rows
    drawn = [(row.series, paper._drawing(row).config.phantom.size) for row in rows]
    assert drawn == 5 * [("originals of 149 x 112", (149, 112))] + 5 * [
        ("originals of 512 x 384", (512, 384))
    ]
    assert paper._drawing(rows[0]).folder == tmp_path / "149x112"
    # Originals of the least size that can be drawn are not made smaller.
    least = _paper(tmp_path, "phantom.size=[128, 96]").config
    assert len(EXPERIMENTS["claim-crops"](least).rows) == 5


def test_the_label_is_varied_at_one_lambda() -> None:
    config = load_config("smoke", SMALL).changed({"experiments.deltas": [5.0, 15.0, 20.0]})
    for weight, lambda_ in ((None, math.sqrt(15)), (0.0, 0.0), (3.0, 3 / math.sqrt(15))):
        base = config.changed({"training.weight": weight})
        for row in EXPERIMENTS["claim-delta"](base).rows:
            own = row.config(base, 0).training
            told = own.sigma if own.weight is None else own.weight
            assert told / math.sqrt(own.sigma) == pytest.approx(lambda_)


@pytest.mark.long
def test_controls_are_trained_each_on_a_phantom_of_its_own(tmp_path: Path) -> None:
    paper = _paper(tmp_path, "experiments.seeds=[0]")
    paper.claim("controls")
    results = read_json(tmp_path / "claim-controls.json")
    assert [(row["series"], row["label"]) for row in results["rows"]] == [
        (variant, letters)
        for variant in ("default", "swapped", "no-age", "shortcut")
        for letters in ("O", "R1", "R2", "H+R1+R2")
    ]
    by_variant: dict[str, list[dict[str, Any]]] = {}
    for path in (tmp_path / "networks").iterdir():
        record = read_json(path)
        name = record["configuration"]["phantom"]["variant"]
        assert record["data"]["name"] == f"phantom ({name})"
        by_variant.setdefault(name, []).append(record)
    assert {name: len(records) for name, records in by_variant.items()} == dict.fromkeys(
        ("default", "swapped", "no-age", "shortcut"), 4 + 3
    )  # four networks that tell ages, and one for each of three regions
    # Nothing can be read from the films of the third: the floor is the error of one age for all.
    floors = {row["series"]: row["floor"] for row in results["rows"] if row["label"] == "O"}
    assert floors["no-age"] > 30 > 5 > floors["default"]
    assert floors["shortcut"] is None  # its marker tells more than all bones
    for first, *others in (results["rows"][i : i + 4] for i in range(0, 16, 4)):
        assert first["gain_on_first"] is None
        for row in others:
            gain = first["mae"] - row["mae"]
            assert row["gain_on_first"]["gain"] == pytest.approx(gain, abs=0.006)
            assert row["gain_on_partner"] is None


def _figures(validation: float, error: float, **own: Any) -> dict[str, Any]:
    """What a network has written that errs by so many months on each of three images."""
    parts = dict.fromkeys(("train", "validation", "test"), 3)
    return {
        "data": {"name": "hands", "images": 9, "parts": parts},
        "truth": "100 120 140",
        "months": " ".join(str(value + error) for value in (100, 120, 140)),
        "test": {"mae": error, "rmse": error, "cs6": 0.5, "cs12": 0.5},
        "validation_mae": validation,
        "constant": 33.0,
        "versions": {},
        "coverage90": None,
        "intervals90": None,
        "distributions": {},
        "seconds": {"training": 1.0},
        **own,
    }


def test_the_chosen_row_is_that_of_the_least_validation_error() -> None:
    config = load_config("smoke", SMALL)
    experiment = EXPERIMENTS["claim-gain"](config)
    errors = [(9, 8), (8, 7), (6, 6.8), (8, 7), (7, 6), (7, 6.5)]
    networks = [[_figures(*both), _figures(*both)] for both in errors]
    said = {"command": "boneage claim gain"}
    results = summarize(experiment, networks, [None] * 6, config) | said
    assert results["chosen"] == "O+H as streams"
    page = write_page(results)
    assert "The validation images find O+H as streams best: on the test images it saves 15%" in page
    assert "15% of the error of O by L1 (15% to 15%)" in page
    first = summarize(experiment, [[_figures(1, 1)] * 2, *networks[1:]], [None] * 6, config) | said
    assert "The validation images find O by L1 best.\n" in write_page(first)


def test_intervals_are_told_with_their_width_and_what_the_paper_says() -> None:
    config = load_config("smoke", ["experiments.deltas=[5, 15]"])
    told = {"coverage90": 0.875, "intervals90": {"all": {"coverage": 0.875, "width": 41.6}}}
    networks = [[_figures(9, 8)], [_figures(9, 8, **told)]]
    results = summarize(EXPERIMENTS["claim-delta"](config), networks, [None] * 2, config)
    results["command"] = "boneage claim delta"
    page = write_page(results)
    assert "| 88% (42) |" in page
    assert "\nThe paper finds the error not sensitive to it, and takes 15.\n" in page
    first, second = csv.DictReader(write_csv(results).splitlines())
    assert (first["width90"], second["width90"]) == ("", "41.6000")


def test_gains_draw_the_images_of_a_patient_together() -> None:
    """The first two images, of one patient, never come alone."""
    config = load_config("smoke", ["experiments.deltas=[5, 15]"])
    experiment = EXPERIMENTS["claim-delta"](config)
    better = {"months": "101 130 140"}
    for told, least in (({}, -2), (_shown(np.array([4, 4, 7])), 2.5)):
        networks = [[_figures(9, 8, **told)], [_figures(9, 8, **told, **better)]]
        gain = summarize(experiment, networks, [None] * 2, config)["rows"][1]["gain_on_first"]
        assert gain["gain"] == pytest.approx(8 - 11 / 3)
        assert gain["interval"] == pytest.approx([least, 8])
    assert _shown(np.array([4, 7, 9])) == {}


def test_a_page_says_where_regions_were_not_found() -> None:
    config = load_config("smoke", ["experiments.deltas=[5, 15]"])
    experiment = EXPERIMENTS["claim-delta"](config)
    lost = {"region1": 2, "region2": 9}
    networks = [[_figures(9, 8)], [_figures(9, 8, whole_image_instead=lost)]]
    results = summarize(experiment, networks, [None] * 2, config) | {"command": "boneage"}
    told = "whole image stands for it; of 9 images: delta 15: Region 1 in 2, Region 2 in 9.\n"
    assert told in write_page(results)
    found = summarize(experiment, [networks[0]] * 2, [None] * 2, config) | {"command": "boneage"}
    assert "stands for it" not in write_page(found)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (("whole", "hand"), {}),
        (("hand", "region1", "erased"), {"region1": 3}),
        (("region1", "region2"), {"region1": 3, "region2": 5}),
    ],
)
def test_networks_know_where_their_regions_were_not_found(
    seen: tuple[Region, ...], told: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = {"hand": 0, "region1": 3, "region2": 5}

    def load(stage: Stage) -> Found:
        region = stage.folder.name.split("-")[1]
        return Found(np.zeros((9, 4)), np.arange(9) >= lost[region])

    monkeypatch.setattr(Found, "load", load)
    row = Row("some", regions=seen)
    network = Network.of(row, 0, load_config("smoke", SMALL), Path("somewhere"), "key")
    assert network._not_found() == told


def test_what_the_paper_has_of_other_rows_is_told() -> None:
    config = load_config("smoke", ["experiments.sizes=[224, 300]", "experiments.backbones=[vgg19]"])
    assert EXPERIMENTS["table-4"](config).said.startswith("The paper has 336 px 7.6; 448 px 7.4;")
    said = EXPERIMENTS["table-2"](config).said
    assert "inception_v3 10.9, pretrained 9.2" in said
    assert "vgg19" not in said
    assert "a lambda of 3.9 in Eq. 12" in EXPERIMENTS["table-5"](config).said


def test_a_variation_is_compared_with_the_row_that_it_varies() -> None:
    config = load_config("smoke", SMALL)
    rows = (
        Row("O", series="L1"),
        Row("H", series="L1"),
        Row("O", series="expectation loss"),
        Row("O, mirror image too", series="expectation loss", varies="O"),
    )
    experiment = Experiment("ways", "Ways", rows)
    networks = [[_figures(9, error)] for error in (8, 7, 5, 4.5)]
    results = summarize(experiment, networks, [None] * 4, config) | {"command": "boneage ways"}
    gains = [row["gain_on_varied"] for row in results["rows"]]
    assert gains[:3] == [None] * 3
    assert gains[3]["gain"] == pytest.approx(0.5)
    page = write_page(results)
    assert "| as a variation |" in page
    assert "0.50 (0.50 to 0.50)" in page.splitlines()[-5]
    assert "one age for all, the median of the training images, errs by 33.0." in page
    assert "age networks from seeds 0, 1, on regions that were found once" in page
    (*_, last) = csv.DictReader(write_csv(results).splitlines())
    assert float(last["gain_on_varied"]) == pytest.approx(0.5)


def test_a_corrected_row_tells_of_its_corrected_distributions() -> None:
    states = {"as trained": {"crps": 7.0, "sd": 22.0}, "corrected": {"crps": 6.0, "sd": 18.0}}
    rows = (Row("O"), Row("O, temperature", changes={"reading.temperature": True}))
    plain = {"as trained": states["as trained"]}
    networks = [[_figures(9, 8, distributions=told)] for told in (plain, states)]
    experiment = Experiment("ways", "Ways", rows)
    results = summarize(experiment, networks, [None] * 2, load_config("smoke", SMALL))
    assert [(row["crps"], row["sd"]) for row in results["rows"]] == [(7.0, 22.0), (6.0, 18.0)]


def test_every_series_is_drawn() -> None:
    rows = tuple(Row("O", series=f"data {i}") for i in range(6))
    networks = [[_figures(9, i)] for i in range(6)]
    experiment = Experiment("many", "Many", rows)
    results = summarize(experiment, networks, [None] * 6, load_config("smoke", SMALL))
    (axes,) = draw_table(results).axes
    drawn = {line.get_label() for line in axes.lines if line.get_marker() == "o"}
    assert drawn == {f"data {i}" for i in range(6)}


def test_what_cannot_be_made_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    backbones = "experiments.backbones=[tf_efficientnet_lite0,resnot50]"
    with pytest.raises(UserError, match="'resnot50': timm has no network of that name"):
        _paper(tmp_path, backbones).table(2)
    with pytest.raises(UserError, match=r"Table I: .*boxes\.csv has no boxes of two"):
        _paper(tmp_path / "plain", "phantom.boxed=0").table(1)
    assert not list(tmp_path.rglob("model-*")) + list(tmp_path.rglob("attention-*"))
    for twice in ("seeds=[0,0]", "sizes=[112,112]"):
        with pytest.raises(UserError, match="each value once"):
            load_config("smoke", [f"experiments.{twice}"])


def test_a_bar_in_an_id_ends_no_cell() -> None:
    assert markdown_row("hand|7", 1.5) == r"| hand\|7 | 1.5 |"


def test_a_claim_without_boxes_is_a_table_all_the_same() -> None:
    row = {
        "label": "65 px",
        "data": {"name": "hands", "images": 9},
        "against": {},
        "threshold": 0.2,
        "validation_mae": 30.0,
    }
    said = {"name": "claim-hand", "title": "Hands", "said": "So.", "region": "hand"}
    results = {**said, "command": "boneage claim hand", "rows": [row]}
    lines = claim_page(results).splitlines()
    assert [line.count("|") for line in lines if line.startswith("|")] == [4, 4, 4]
    assert not any("one box" in line for line in lines)
    assert claim_csv(results).splitlines() == [
        "label,validation_mae,threshold",
        "65 px,30.0000,0.2000",
    ]
    assert len(draw_claim(results).axes) == 1


@pytest.mark.parametrize("command", [("table", "4"), ("figure", "1"), ("claim", "delta")])
def test_the_paper_is_tried_small(
    command: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Config] = []
    monkeypatch.setattr(cli, "_reproduce", lambda kind, which, config, out: asked.append(config))
    for words in ((), ("--preset", "smoke")):
        done = CliRunner().invoke(cli.app, [*command, "--out", str(tmp_path), *words])
        assert done.exit_code == 0
    assert [config.preset for config in asked] == ["tables", "smoke"]


def test_controls_need_phantoms(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the controls are drawn"):
        _paper(tmp_path / "out", f"data={tmp_path}").claim("controls")


def test_rows_change_their_own_values_alone() -> None:
    base = load_config("smoke", SMALL)
    row = Row("x", changes={"training.size": 96, "localization.hand.threshold": 0.3})
    config = row.config(base, 5)
    assert (config.training.size, config.localization.hand.threshold) == (96, 0.3)
    assert [(model.seed, model.loss) for model in config.training.models] == [(5, "l1")]
    back = {
        "training": base.training,
        "localization": base.localization,
    }
    assert config.model_copy(update=back) == base == load_config("smoke", SMALL)


def test_a_lambda_is_that_of_eq_12_as_eq_11_is_printed() -> None:
    config = load_config("smoke", ["experiments.lambdas=[2]", "training.sigma=10"])
    row = EXPERIMENTS["figure-5b"](config).rows[0]
    own = row.config(config, 0).training
    bins, target = make_bins(config.bins), torch.tensor([120.0])
    logits = torch.randn(1, len(bins), generator=torch.Generator().manual_seed(0))
    ldl, expectation = (
        make_loss(name, bins, own)(logits, target) for name in ("ldl", "expectation")
    )
    divergence = LabelDivergenceLoss(bins, 10.0)(logits, target)
    printed = torch.exp(-((bins.centers - 120) ** 2) / 200) / (2 * torch.pi * 10) ** 0.5
    torch.testing.assert_close(ldl - expectation, 2 * printed.sum() * divergence)


def test_the_sex_goes_through_layers_of_the_given_widths() -> None:
    training = load_config("smoke", ["training.sex_layers=[64, 32]"]).training
    for model in training.models:
        network = AgeNetwork(training, model, load_config("smoke").bins)
        layers = [tuple(w.shape) for w in network.head.covariate_layers.parameters() if w.ndim == 2]
        assert layers == [(64, 1), (32, 64)]
        images, sex = torch.rand(2, len(model.regions), 64, 64), torch.tensor([1.0, -1.0])
        apart = network.eval()(images[:1].expand(2, -1, -1, -1), sex)
        assert not torch.equal(apart[0], apart[1])


def test_a_table_has_the_errors_of_the_saved_predictions(made: Path) -> None:
    results = read_json(made / "table-4.json")
    rows = results["rows"]
    assert [row["at"] for row in rows] == [64, 80]
    config = load_config("smoke", SMALL)
    first = []
    for row in rows:
        errors = []
        for seed in (0, 1):
            own = next(one for one in EXPERIMENTS["table-4"](config).rows if one.at == row["at"])
            (record,) = _records(made, own.config(config, seed))
            assert record["seed"] == seed
            errors.append(np.abs(read_line(record["months"]) - read_line(record["truth"])))
        assert row["seeds_mae"] == pytest.approx([error.mean() for error in errors], abs=0.006)
        assert row["mae"] == pytest.approx(np.mean(errors), abs=0.006)
        first = first or errors
        gain = np.mean(first) - np.mean(errors)
        if row is not rows[0]:
            assert row["gain_on_first"]["gain"] == pytest.approx(gain, abs=0.006)
    assert rows[0]["gain_on_first"] is None
    with open(made / "table-4.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["mae"]) for row in table] == pytest.approx(
        [row["mae"] for row in rows], abs=1e-4
    )
    page = (made / "table-4.md").read_text()
    assert all(f"**{row['mae']:.2f}**" in page for row in rows)


def _records(folder: Path, config: Config) -> list[dict[str, Any]]:
    """What was written of the networks of a configuration."""
    (model,) = config.training.models
    found = (read_json(path) for path in (folder / "networks").glob(f"ages-{model.name}-*.json"))
    return [
        one for one in found if one["configuration"]["training"]["size"] == config.training.size
    ]


def test_what_is_there_is_not_trained_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = shutil.copytree(made, tmp_path / "kept")
    for stage in (*kept.glob("model-*"), *kept.glob("ages-*"), *kept.glob("prepare-*")):
        shutil.rmtree(stage)
    before = (kept / "table-4.md").read_text()
    (kept / "table-4.md").unlink()

    def refuse(*_: Any) -> None:
        raise AssertionError("it is there")

    monkeypatch.setattr("boneage.experiments.networks.do_task", refuse)
    _paper(kept).table(4)
    assert (kept / "table-4.md").read_text() == before


def test_other_settings_lie_beside_each_other(made: Path) -> None:
    assert len(list(made.glob("prepare-*"))) == 2  # one for each size of the images
    for region, ways in (("hand", 1), ("region1", 2)):
        # Found at every threshold, and at that which boxes have chosen, by one network; and by one
        # that finds Region 2 too.
        assert len(list(made.glob(f"attention-{region}-*"))) == ways
        chosen = [read_json(path / "threshold.json") for path in made.glob(f"regions-{region}-*")]
        by_hand = {one["threshold"] for one in chosen if one["chosen_on"] == "configuration"}
        assert (len(chosen), by_hand) == (2 + ways, {0.1, 0.5})
    assert len(list(made.glob("attention-region2-*"))) == 1


def test_every_region_that_is_found_has_a_file_of_its_figures(made: Path) -> None:
    records = {path.stem: read_json(path) for path in (made / "networks").glob("regions-*.json")}
    assert records.keys() == {path.name for path in made.glob("regions-*")}
    for name, record in records.items():
        stage = made / name
        assert record["threshold"] == read_json(stage / "threshold.json")["threshold"]
        assert record["whole_image_instead"] == int((~Found.load(Stage(stage, "")).valid).sum())
        region = name.split("-")[1]
        learned = [
            read_json(path / "training.json")["validation_mae"]
            for path in made.glob("attention-*")
            if path.name.split("-")[1] in (region, "region1")
        ]
        assert record["validation_mae"] in learned
        assert record["against"]["Wrist" if region != "hand" else "Hand"]["count"] > 0
    pairs = read_json(made / "table-1.json")["pairs"]
    scores = [score for pair in pairs for score in pair["scores"]]
    for record in records.values():
        for against in record["against"].values():
            assert all(score in scores for score in against["sweep"])


def test_table_1_scores_as_the_run_has_chosen(made: Path) -> None:
    config = load_config("smoke", SMALL)
    data_key = make_data_key(config, made / "phantom")
    pairs = read_json(made / "table-1.json")["pairs"]
    assert [(one["way"], one["region"]) for one in pairs if one["annotated"] != "Metacarpal"] == [
        *(("", region) for region in ("hand", "region1", "region2")),
        ("one more", "region3"),
        *(("features erased", region) for region in ("region1", "region2")),
    ]
    for way, changes in (("", {}), ("one more", THREE_REGIONS), ("features erased", ONE_NETWORK)):
        stages = plan_keyed(config.changed(changes), beside_others(made), data_key)
        for region in stages.regions.keys() - {"hand"}:
            own = read_json(stages.regions[region] / "threshold.json")["pairs"]["Wrist"]
            same = [p for p in pairs if (p["region"], p["annotated"]) == (region, "Wrist")]
            pair = {p["way"]: p for p in same}.get(way, same[0])  # else told of the way before
            assert pair["chosen"] == own["threshold"]
            swept = {row["threshold"]: row for row in pair["scores"]}
            assert all(swept[row["threshold"]] == row for row in own["score"])
            # The paper's tau of 50 as a share of the maximum.
            assert 0.165 in swept
    assert "0.722 / 0.965" in (made / "table-1.md").read_text()
    rows = list(csv.DictReader((made / "table-1.csv").read_text().splitlines()))
    assert len(rows) == sum(len(pair["scores"]) + 1 for pair in pairs)
    first = rows[0]
    assert (first["region"], first["annotated"]) == ("hand", "Hand")
    assert float(first["mean_iou"]) == pytest.approx(pairs[0]["scores"][0]["mean_iou"], abs=1e-4)
    control = median_box_scores(Samples.load(_paper(made).found.prepared.folder), "Hand")
    alone = next(row for row in rows if row["region"] == "hand" and not row["threshold"])
    assert float(alone["mean_iou"]) == pytest.approx(control["mean_iou"], abs=1e-4)
    assert f"| one box | {control['mean_iou']:.3f} / " in (made / "table-1.md").read_text()
    chosen = {
        row["threshold"] for row in rows if row["region"] == "hand" and row["chosen"] == "True"
    }
    assert {float(one) for one in chosen} == {pairs[0]["chosen"]}
    at50 = [row for row in rows if row["tau"] == "50" and row["annotated"] == "Wrist"]
    assert {row["paper_ap50"] for row in at50 if row["region"] == "region1"} == {"0.9650"}


def test_a_backbone_whose_weights_cannot_be_had_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = backbones.timm.create_model

    def offline(name: str, **options: Any) -> Any:
        if options.get("pretrained"):
            raise OSError("no network")
        return make(name, **options)

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    _paper(tmp_path, "experiments.seeds=[0]").table(2)
    results = read_json(tmp_path / "table-2.json")
    assert [row["missing"] is None for row in results["rows"]] == [True, False]
    page = (tmp_path / "table-2.md").read_text()
    assert "not trained" in page
    assert "cannot be loaded from the hub" in page


def test_region_1_is_erased_in_what_a_network_sees(tmp_path: Path) -> None:
    paper = _paper(tmp_path)
    row = Row("H+R1+E", regions=("hand", "region1", "erased"), loss="ldl")
    network = Network.of(row, 0, paper.config, tmp_path, paper.data_key)
    network.run(paper.data, QUIET)
    stages = network.stages
    samples = Samples.load(stages.prepared.folder)
    whole = read_array(stages.prepared / "whole-64.npy")
    erased = read_array(stages.cropped / "erased.npy")
    found = Found.load(stages.regions["region1"])
    seen = 0
    for i, (x1, y1, x2, y2) in enumerate(found.boxes):
        height, width = samples.shapes[i]
        rows, columns = np.arange(64) + 0.5, np.arange(64) + 0.5
        inside = np.outer(
            (rows > y1 * 64 / height + 1) & (rows < y2 * 64 / height - 1),
            (columns > x1 * 64 / width + 1) & (columns < x2 * 64 / width - 1),
        )
        near = np.outer(
            (rows > y1 * 64 / height - 1) & (rows < y2 * 64 / height + 1),
            (columns > x1 * 64 / width - 1) & (columns < x2 * 64 / width + 1),
        )
        np.testing.assert_array_equal(erased[i][~near], whole[i][~near])
        if found.valid[i] and inside.any():
            assert np.ptp(erased[i][inside]) == 0
            seen += 1
    assert seen > 10


def test_learned_distributions_are_those_of_the_networks(made: Path) -> None:
    paper = _paper(made)
    networks = paper._learned()
    paper.figure(4)
    results = read_json(made / "figure-4.json")
    assert list(networks) == [one["lambda"] for one in results["networks"]] == [0, 1]
    network = networks[1]
    samples = Samples.load(network.stages.prepared.folder)
    rows = samples.rows(splits.TEST)
    outputs = torch.from_numpy(read_arrays(network.told / "outputs.npz")["outputs"]).double()
    index = np.searchsorted(read_arrays(network.told / "predictions.npz")["rows"], rows)
    probs = outputs[index].softmax(-1)
    ages = torch.arange(1, 241, dtype=torch.float64)
    months = torch.from_numpy(samples.months[rows]).double()
    # The labels by hand: a Gaussian over the bins that sums to one.
    labels = (-((ages - months[:, None]) ** 2) / (2 * 15**2)).softmax(-1)
    means = probs @ ages
    spreads = (probs * (ages - means[:, None]) ** 2).sum(-1).sqrt()
    told = results["networks"][1]
    assert told["mae"] == pytest.approx(float((means - months).abs().mean()), abs=1e-3)
    assert told["sd"] == pytest.approx(float(spreads.mean()), abs=1e-3)
    assert told["highest"] == pytest.approx(float(probs.amax(-1).mean()), abs=1e-5)
    divergence = (labels * (labels.log() - probs.log())).sum(-1).mean()
    assert told["divergence"] == pytest.approx(float(divergence), rel=1e-3)

    youngest = np.argsort(samples.months[rows], kind="stable")[int(0.5 * len(rows) / 4)]
    assert results["images"][0]["id"] == samples.ids[rows[youngest]]
    own = told["images"][0]
    assert own["mode"] == float(ages[probs[youngest].argmax()])
    kept = [float(share) for share in own["probs"].split()]
    np.testing.assert_allclose(kept, probs[youngest], rtol=1e-2)

    figure = distributions.draw_learned(results)
    assert len(figure.axes) == 8
    drawn = [line.get_ydata() for line in figure.axes[4].lines if len(line.get_ydata()) == 240]
    # As kept, to three digits, and made to sum to one again.
    assert any(np.allclose(line, kept, rtol=2e-2, atol=1e-6) for line in drawn)
    rows_told = list(csv.DictReader((made / "figure-4.csv").read_text().splitlines()))
    assert [float(row["mean"]) for row in rows_told[4:]] == pytest.approx(
        [one["mean"] for one in told["images"]], abs=1e-4
    )
    assert "± " in (made / "figure-4.md").read_text(encoding="utf-8")


def test_weights_are_spread_over_their_order() -> None:
    assert distributions.spread((0, 0.1, 1, 5)) == (0, 0.1, 1, 5)
    assert distributions.spread((0, 1, 2, 3, 4, 5, 6)) == (0, 2, 4, 6)
    assert distributions.spread((3,)) == (3,)


def test_pictures_are_drawn_and_told(made: Path) -> None:
    paper = _paper(made)
    paper.figure(1)
    paper.figure(3)
    for name in ("figure-1", "figure-3", "figure-5a", "figure-5b", "table-1", "table-4"):
        assert (made / f"{name}.png").stat().st_size > 10_000, name
    samples = Samples.load(paper.found.prepared.folder)
    boxes = Found.load(paper.found.regions["region1"]).boxes
    images = read_json(made / "figure-3.json")["images"]
    assert len(images) == 6
    assert len(read_json(made / "figure-1.json")["images"]) == 4
    assert [image["months"] for image in images] == sorted(image["months"] for image in images)
    for image in images:
        row = samples.ids.index(image["id"])
        assert samples.parts[row] == splits.BOXES_SCORE
        own = image["regions"]["region1"]
        assert own["box"] == pytest.approx(boxes[row].tolist(), abs=0.05)
        assert own["iou"]["Wrist"] == pytest.approx(_iou(boxes[row], samples.truth["Wrist"][row]))
    page = (made / "figure-3.md").read_text()
    assert f"{images[0]['regions']['hand']['iou']['Hand']:.2f}" in page
    table = list(csv.DictReader((made / "figure-3.csv").read_text().splitlines()))
    assert [(row["id"], row["region"]) for row in table] == [
        (image["id"], region) for image in images for region in ("hand", "region1", "region2")
    ]
    assert {row["iou_hand"] for row in table if row["region"] == "region1"} == {""}
    assert {row["iou_wrist"] for row in table if row["region"] == "hand"} == {""}


def test_a_picture_of_images_without_boxes_is_told_without_them(made: Path) -> None:
    paper = _paper(made)
    paper.figure(1)
    results = read_json(made / "figure-1.json")
    for image in results["images"]:
        for own in image["regions"].values():
            own["iou"] = {}
    page, table = (write(results) for write in WRITERS["figure-1"])
    assert "IoU" not in page
    assert table.splitlines()[0].endswith(",y2")


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(sides.clip(min=0)))
    return shared / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - shared)


def test_other_readings_and_ensembles_train_nothing_new(made: Path) -> None:
    paper = _paper(made)
    before = set(made.glob("model-*"))
    rows = [
        Row("H", regions=("hand",), loss="ldl", changes={"training.weight": 15**0.5, **changes})
        for changes in ({}, {"reading.mirror": True}, {"reading.conformal": True})
    ]
    plain, mirrored, conformal = (paper._network(row, 0).train(paper.data, QUIET) for row in rows)
    assert set(made.glob("model-*")) == before
    assert plain["months"] == conformal["months"] != mirrored["months"]
    assert conformal["intervals90"] != plain["intervals90"]


def test_an_ensemble_mixes_what_its_networks_say(made: Path) -> None:
    paper = _paper(made)
    changes = {"training.weight": 15**0.5}
    row = Row("both", regions=("hand",), loss="ldl", changes=changes, others=(("region1",),))
    network = paper._network(row, 0)
    told = read_line(network.train(paper.data, QUIET)["months"])
    *members, mixed = network.stages.ages.values()
    assert (network.told, len(members)) == (mixed, 2)
    logits = [torch.from_numpy(read_arrays(one / "outputs.npz")["outputs"]) for one in members]
    probs = torch.stack([one.softmax(-1) for one in logits]).mean(0)
    samples = Samples.load(network.stages.prepared.folder)
    at = np.searchsorted(read_arrays(mixed / "predictions.npz")["rows"], samples.rows(splits.TEST))
    months = probs @ make_bins(network.config.bins).centers
    np.testing.assert_allclose(told, months.numpy()[at], atol=0.01)


def test_claims_compare_what_they_say(tmp_path: Path) -> None:
    paper = _paper(tmp_path, "experiments.seeds=[0]", "experiments.deltas=[5, 15]")
    for claim in ("labels", "hand", "delta"):
        paper.claim(claim)
    labels = read_json(tmp_path / "claim-labels.json")["rows"]
    own = [row["configuration"]["localization"]["hand"] for row in labels]
    assert {(one["loss"], one["label_width"]) for one in own} == {
        (loss, width) for loss in ("l1", "kl") for width in (1, 5, 15, 30, 50, 80)
    }
    hand = read_json(tmp_path / "claim-hand.json")["rows"]
    own = [row["configuration"]["localization"]["hand"] for row in hand]
    assert [(one["size"], one["pool"]) for one in own] == [
        (65, "avg"),
        (65, "max"),
        (97, "avg"),
        (97, "max"),
    ]
    page = (tmp_path / "claim-hand.md").read_text()
    for row in hand:
        scores = row["against"]["Hand"]
        assert f"{scores['mean_iou']:.3f} / {scores['ap50']:.3f}" in page
    table = list(csv.DictReader((tmp_path / "claim-hand.csv").read_text().splitlines()))
    assert [row["label"] for row in table] == [*(row["label"] for row in hand), "one box for all"]
    control = hand[0]["against"]["Hand"]["control"]["mean_iou"]
    assert float(table[-1]["hand_mean_iou"]) == pytest.approx(control, abs=1e-4)
    assert f"| one box for all | — | {control:.3f} / " in page
    assert float(table[2]["hand_ap50"]) == pytest.approx(
        hand[2]["against"]["Hand"]["ap50"], abs=1e-4
    )
    assert (tmp_path / "claim-hand.png").stat().st_size > 10_000
    # Only the hand was looked for.
    assert not list(tmp_path.glob("attention-region1-*"))
    deltas = read_json(tmp_path / "claim-delta.json")["rows"]
    assert [row["at"] for row in deltas] == [5, 15]


@pytest.mark.parametrize("folder", ["paper", "paper-rsna100"])
def test_published_pages_are_those_of_their_files(folder: str) -> None:
    files = sorted((Path(__file__).parents[3] / "docs/results" / folder).glob("*.json"))
    assert files
    for path in files:
        page, table = WRITERS.get(path.stem, (write_page, write_csv))
        results = read_json(path)
        assert path.with_suffix(".md").read_text(encoding="utf-8") == page(results), path.stem
        assert path.with_suffix(".csv").read_text(encoding="utf-8") == table(results), path.stem
