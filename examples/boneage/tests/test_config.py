from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import get_args

import pytest
import yaml

from boneage.config import (
    REGIONS,
    TRUTH,
    Augmentation,
    Config,
    Localization,
    Region,
    Schedule,
    load_config,
    presets,
)
from boneage.errors import UserError
from boneage.report.drawing import LIGHT, MARKERS
from boneage.report.wording import FOUND


@pytest.mark.parametrize("name", presets())
def test_presets_fit_and_survive_being_written(name: str) -> None:
    config = load_config(name)
    assert config.preset == name
    written = yaml.safe_dump(config.model_dump(mode="json"))
    assert Config.model_validate(yaml.safe_load(written)) == config


def test_the_presets_of_the_readme_are_there() -> None:
    assert {"demo", "rsna100", "paper", "smoke"} <= set(presets())


def test_overrides_change_what_they_name() -> None:
    config = load_config(
        "demo",
        ["training.sigma=12", "split.seed=3", "contrast=local", "training.models=[{name: R, "
         "regions: [region1]}]"],
    )  # fmt: skip
    assert config.training.sigma == 12
    assert config.split.seed == 3
    assert config.contrast == "local"
    assert [model.name for model in config.training.models] == ["R"]


def test_every_region_can_be_seen_drawn_and_written() -> None:
    assert set(get_args(Region)) == {"whole", "erased", *REGIONS}
    assert set(MARKERS) == set(REGIONS) <= set(LIGHT.__dict__)
    assert {"hand", *TRUTH} == set(REGIONS) == set(FOUND)
    for package in ("app", "report"):
        style = (resources.files("boneage") / package / "templates/style.css").read_text("utf-8")
        for region in REGIONS:
            assert f"--{region}: #" in style
            assert f"rect.{region} {{ stroke: var(--{region})" in style


def test_only_a_region_has_a_section() -> None:
    plan = Localization(region2={"size": 65, "pool": "max"}, regions=4)
    assert [plan.localizer(region).size for region in plan.found] == [129, 193, 65, 65, 65]
    with pytest.raises(ValueError, match="not in tuple"):
        plan.localizer("region9")


@pytest.mark.parametrize("name", presets())
@pytest.mark.parametrize("region", Localization().found)
def test_an_override_leaves_sections_alone_that_share_its_anchor(name: str, region: str) -> None:
    before = load_config(name)
    setting = "schedule={epochs: [9], learning_rate: [0.5]}"
    after = load_config(
        name, [f"localization.{region}.size=777", f"localization.{region}.{setting}"]
    )
    for other in before.localization.found:
        own = getattr(after.localization, other)
        if other == region:
            assert own.size == 777
            assert own.schedule == Schedule(epochs=(9,), learning_rate=(0.5,))
        else:
            assert own == getattr(before.localization, other)
    assert after.training == before.training


def test_later_overrides_win_and_sections_are_made() -> None:
    config = load_config("smoke", ["bins.last=100", "bins.last=120", "hardware.accelerator=cpu"])
    assert config.bins.last == 120
    assert config.hardware.accelerator == "cpu"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sigma", "expected section.name=value"),
        ("training.sigmas=3", "training.sigmas: no setting has this name"),
        ("training.sigma=wide", r"training.sigma: .*\(got 'wide'\)"),
        ("training.sigma=.nan", "training.sigma: .*finite"),
        ("training.weight=.inf", "training.weight: .*finite"),
        ("training.sigma=0", "training.sigma: .*greater than 0"),
        ("seed=[", "not readable as YAML"),
        ("seed=2024-13-45", "not readable as YAML"),
        ("seed.deep=1", "seed: "),
        ("localization.window.wide=1", "there is no section around wide"),
        ("training.models=[]", "training.models: .*at least 1"),
        ("training.models.0.name=x", "there is no section around 0"),
        ("training.models=[{name: a, regions: [hand]}, {name: a, regions: [hand]}]", "different"),
        ("training.models=[{name: a, regions: []}]", "regions"),
        ("training.models=[{name: a, regions: [foot]}]", "regions"),
        (
            "training.models=[{name: a, regions: [region3]}]",
            "models: a sees region3, but localization.regions is 2",
        ),
        ("localization.regions=1", "localization.regions: .*greater than or equal to 2"),
        ("localization.regions=5", "localization.regions: .*less than or equal to 4"),
        (
            "localization={regions: 3, erasing: features}",
            "erasing: features finds two regions .* expected regions: 2, got 3",
        ),
        ("bins={first: 240, last: 1}", "bins: last is one or more whole steps above first"),
        ("bins.step=7", "bins: last is one or more whole steps above first"),
        ("bins.step=0", "bins.step: .*greater than 0"),
        ("split={validation: 0.5, test: 0.5}", "split: validation and test leave nothing"),
        ("split.test=0", "split.test: .*greater than 0"),
        ("phantom.size=[64, 64]", "phantom.size: the longer side"),
        ("phantom.size=[4000, 3000]", "phantom.size: the longer side"),
        ("training.schedule={epochs: [], learning_rate: []}", "epochs"),
        ("training.schedule={epochs: [1, 2], learning_rate: [0.1]}", "as many of each"),
        ("training.schedule={epochs: [1, 2], learning_rate: [0.1, 0.1]}", "one_cycle"),
        ("training.schedule={epochs: [0], learning_rate: [0.1]}", "epochs.0"),
        ("training.schedule={epochs: [1], learning_rate: [0]}", "learning_rate.0"),
        ("training.schedule.batch_size=1", "batch_size: .*greater than or equal to 2"),
        ("training.augmentation.intensity=1", "intensity: .*less than 1"),
        ("training.backbone={frozen: 4, pretrained: false}", "frozen layers would stay random"),
        ("training.backbone={frozen: 16, stride: 16}", "frozen is less than stride"),
        (
            "localization={warm_start: true, hand: {size: 64, pool: avg, backbone: {stride: 8}}}",
            "warm_start hands weights on",
        ),
        ("localization.thresholds=[]", "thresholds"),
        ("localization.thresholds=[0.5, 1.5]", "thresholds.1"),
        ("localization.hand=", "localization.hand: "),
    ],
)
def test_an_override_that_does_not_fit_is_one_message(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config("demo", [override])


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "", "a b", "-x", "a\\b", "a\n"])
def test_a_model_cannot_be_named_out_of_the_run_folder(name: str) -> None:
    model = yaml.safe_dump([{"name": name, "regions": ["hand"]}], default_flow_style=True)
    with pytest.raises(UserError, match=r"models\.0\.name"):
        load_config("demo", [f"training.models={model}"])


def test_all_that_does_not_fit_is_told_at_once() -> None:
    with pytest.raises(UserError) as info:
        load_config("demo", ["split.test=2", "training.size=1", "contrast=loud"])
    for name in ("split.test", "training.size", "contrast"):
        assert f"  {name}: " in str(info.value)


def test_a_file_is_a_preset_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 5\nphantom:\n  count: 50\n")
    config = load_config(str(path), ["phantom.bits=16"])
    assert (config.preset, config.seed, config.phantom.count) == ("mine", 5, 50)
    assert config.phantom.bits == 16


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    config = load_config(str(tmp_path / "empty.yaml"))
    assert config == Config(preset="empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2]", "expected sections, got list"),
        (b"demo", "expected sections, got str"),
        (b"a: [", "not readable as YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"seed: !!python/object:os.system {}", "not readable as YAML"),
        (b"bins:\n", "bins: "),
    ],
)
def test_a_broken_file_is_one_message(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message) as info:
        load_config(str(tmp_path / "bad.yaml"))
    assert "bad.yaml" in str(info.value)


@pytest.mark.parametrize("name", ["nothing", "", "demo.yaml", "x" * 5000, "a\0b"])
def test_an_unknown_preset_is_one_message(name: str) -> None:
    with pytest.raises(UserError, match="preset"):
        load_config(name)


def test_a_folder_is_no_preset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_config(str(tmp_path))


def test_the_digest_follows_the_named_sections_only() -> None:
    config = load_config("demo")
    other = load_config("demo", ["split.seed=1", "hardware.precision=bf16-mixed"])
    assert config.digest("split") != other.digest("split")
    assert config.digest("bins", "contrast") == other.digest("bins", "contrast")
    assert config.digest("split") == load_config("demo").digest("split")
    with pytest.raises(KeyError):
        config.digest("splits")


def test_the_configuration_cannot_be_changed_in_place() -> None:
    config = load_config("demo")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1
    assert Augmentation() == Augmentation(rotation=0, shift=0, scale=0, flip=False, intensity=0)
