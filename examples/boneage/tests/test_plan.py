"""The plan of a run: what has to be done again when a setting changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from boneage.config import load_config, presets
from boneage.stages.plan import in_folder, plan_keyed, plan_stages

TWO_EPOCHS = "schedule={epochs: [2], learning_rate: [1.0e-3]}"
HAND = {"attention-hand", "regions-hand"}
REGION1 = {"attention-region1", "regions-region1"}
REGION2 = {"attention-region2", "regions-region2"}
CROPPED = {"crop", "model-H+R1+R2", "ages-H+R1+R2"}
WHOLE = {"model-O-L1", "model-O", "ages-O-L1", "ages-O"}
AGES = {"ages-O-L1", "ages-O", "ages-H+R1+R2"}


def _keys(tmp_path: Path, *changes: str) -> dict[str, str]:
    stages = plan_stages(load_config("smoke", list(changes)), tmp_path, None)
    return {stage.folder.name: stage.key for stage in stages.every().values()}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("bootstrap=999", set()),
        ("hardware.accelerator=cpu", set()),
        ("hardware.devices=2", set()),
        ("hardware.precision=bf16-mixed", HAND | REGION1 | REGION2 | CROPPED | WHOLE),
        ("localization.hand.margin=0.1", {"regions-hand"} | CROPPED),
        ("localization.hand.heatmap=evidence", {"regions-hand"} | CROPPED),
        ("localization.hand.smoothing=1", {"regions-hand"} | CROPPED),
        (f"localization.hand.{TWO_EPOCHS}", HAND | CROPPED),
        (f"localization.region1.{TWO_EPOCHS}", REGION1 | REGION2 | CROPPED),
        (f"localization.region2.{TWO_EPOCHS}", REGION2 | CROPPED),
        ("localization.sex=false", HAND | REGION1 | REGION2 | CROPPED),
        ("localization.window=0", {"regions-hand", "regions-region1"} | REGION2 | CROPPED),
        ("localization.warm_start=true", REGION1 | REGION2 | CROPPED),
        ("training.sigma=9", CROPPED - {"crop"} | WHOLE),
        ("training.size=96", {"prepare"} | CROPPED | WHOLE),
        ("localization.region2.size=128", {"prepare"} | REGION2 | CROPPED),
        ("reading.mirror=true", AGES),
        ("reading.ensembles={both: [O, H+R1+R2]}", set()),
        ("contrast=none", None),
    ],
)  # fmt: skip
def test_a_change_does_again_what_depends_on_it(
    tmp_path: Path, change: str, again: set[str] | None
) -> None:
    cold = "localization.warm_start=false"
    before, after = _keys(tmp_path, cold), _keys(tmp_path, cold, change)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == (set(before) if again is None else again)


def test_one_network_finds_both_regions_when_features_are_erased(tmp_path: Path) -> None:
    one = ("localization.erasing=features", "localization.warm_start=false")
    before = _keys(tmp_path, *one)
    assert "attention-region2" not in before
    for change, again in (
        ("localization.erased_from=0.7", REGION1),
        (f"localization.region1.{TWO_EPOCHS}", REGION1),
        ("localization.region1.margin=0.1", {"regions-region1"}),
        (f"localization.region2.{TWO_EPOCHS}", set()),
        ("localization.region2.margin=0.1", set()),
    ):
        after = _keys(tmp_path, *one, change)
        changed = {name for name in before if before[name] != after[name]}
        crops = CROPPED if again or "margin" in change else set()
        region2 = {"regions-region2"} if crops else set()
        assert changed == again | region2 | crops, change


def test_later_regions_see_all_before_them_erased(tmp_path: Path) -> None:
    cold, more = "localization.warm_start=false", "localization.regions=4"
    two, before = _keys(tmp_path, cold), _keys(tmp_path, cold, more)
    assert {name for name in two if two[name] != before[name]} == {"crop"}
    third, fourth = ({f"attention-region{k}", f"regions-region{k}"} for k in (3, 4))
    assert set(before) - set(two) == third | fourth
    for change, again in (
        (f"localization.region1.{TWO_EPOCHS}", REGION1 | REGION2),
        (f"localization.region2.{TWO_EPOCHS}", REGION2),
        ("localization.region2.margin=0.1", {"regions-region2"}),
    ):
        after = _keys(tmp_path, cold, more, change)
        changed = {name for name in before if before[name] != after[name]}
        assert changed - CROPPED == again | third | fourth, change


def test_a_region_alone_needs_those_before_it(tmp_path: Path) -> None:
    config = load_config("smoke", ["localization.regions=4", "localization.warm_start=false"])
    stages = plan_keyed(config, in_folder(tmp_path), "", ("region3",))
    assert stages.needed() == ("region1", "region2", "region3")


def test_another_fusion_trains_that_network_again(tmp_path: Path) -> None:
    def models(fusion: str) -> str:
        seen = "regions: [whole, hand], fusion: "
        return f"training.models=[{{name: A, {seen}channels}}, {{name: B, {seen}{fusion}}}]"

    before, after = _keys(tmp_path, models("channels")), _keys(tmp_path, models("streams"))
    assert {name for name in before if before[name] != after[name]} == {"model-B", "ages-B"}


def test_a_warm_start_depends_on_the_network_before(tmp_path: Path) -> None:
    warm = "localization.warm_start=true"
    before = _keys(tmp_path, warm)
    after = _keys(tmp_path, warm, f"localization.hand.{TWO_EPOCHS}")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == HAND | REGION1 | REGION2 | CROPPED
    stages = plan_stages(load_config("smoke", [warm]), tmp_path, None)
    assert stages.handed_on("hand") is None
    assert stages.handed_on("region1") is stages.attention["hand"]
    assert stages.handed_on("region2") is stages.attention["region1"]


def test_a_models_own_seed_is_its_own(tmp_path: Path) -> None:
    def keys(seeds: str) -> dict[str, str]:
        model = f"{{name: O, regions: [whole]{seeds}}}"
        other = "{name: other, regions: [whole], loss: l1}"
        return _keys(tmp_path, f"training.models=[{model}, {other}]")

    plain = keys("")
    assert keys(", seed: 0") == plain  # the run's
    again = keys(", seed: 1")
    assert {name for name in plain if plain[name] != again[name]} == {"model-O", "ages-O"}


@pytest.mark.parametrize("name", presets())
def test_a_written_configuration_asks_for_the_same_stages(tmp_path: Path, name: str) -> None:
    config = load_config(name)
    written = tmp_path / "config.yaml"
    written.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    again = load_config(str(written))
    assert plan_stages(again, tmp_path, None).keys() == plan_stages(config, tmp_path, None).keys()


def test_an_ensemble_depends_on_its_models(tmp_path: Path) -> None:
    def ensemble(*changes: str) -> str:
        return _keys(tmp_path, "reading.ensembles={both: [O, H+R1+R2]}", *changes)["ages-both"]

    assert ensemble() == ensemble("bootstrap=999")
    for change in ("localization.hand.margin=0.1", "reading.bias=true", "training.sigma=9"):
        assert ensemble(change) != ensemble()
