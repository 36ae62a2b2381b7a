"""The comparison of losses: fair trials, heads that learn, scores by hand, and a small run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ldlcam import Bins
from rich.console import Console

from boneage.comparison import search
from boneage.comparison.compare import compare_losses
from boneage.comparison.features import Features, load_features
from boneage.comparison.heads import HeadTrainer
from boneage.comparison.outputs import score
from boneage.config import LOSSES, SCALAR_LOSSES, Config, load_config
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.networks.regressor import as_distribution
from boneage.run_folder import Stage, read_json
from boneage.stages import plan

QUIET = Console(quiet=True)
BINS = Bins(1, 60, unit="months")
SAMPLING = {"resamples": 200, "seed": 0}
SMALL = [
    "bins={first: 1, last: 60}",
    *(f"comparison.{name}={value}" for name, value in (("hidden", 32), ("batch_size", 32))),
    *(f"comparison.{name}={value}" for name, value in (("trials", 3), ("seeds", "[0, 1]"))),
]


def _features(count: int = 256) -> Features:
    """Ages that are a bent function of the first two of eight features, and nothing else."""
    inputs = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))
    return Features(inputs, 30 + 10 * inputs[:, 0] + 4 * inputs[:, 1].abs())


def _samples(parts: list[str], months: np.ndarray, covariates: np.ndarray) -> Samples:
    count = len(parts)
    return Samples(
        ids=tuple(map(str, range(count))),
        parts=np.array(parts),
        patients=np.arange(count),
        months=months.astype(np.float32),
        male=np.arange(count) % 2 == 0,
        shapes=np.full((count, 2), 9),
        paths=tuple(map(Path, map(str, range(count)))),
        truth={},
        covariates=covariates.astype(np.float32),
    )


@pytest.fixture
def trainer() -> HeadTrainer:
    config = load_config("smoke", [*SMALL, "comparison.dropout=0", "training.sigma=5"])
    parts = {splits.TRAIN: 512, splits.VALIDATION: 128, splits.TEST: 96}
    return HeadTrainer(config, {part: _features(count) for part, count in parts.items()}, BINS)


def test_all_losses_are_tried_at_the_same_rates() -> None:
    drawn = {loss: search.draw_trials(loss, 16, seed=3) for loss in LOSSES}
    rates = [[trial[name] for name in search.RATES] for trial in drawn["l1"]]
    assert len({tuple(rate) for rate in rates}) == 16
    for loss, trials in drawn.items():
        assert [[trial[name] for name in search.RATES] for trial in trials] == rates
        assert trials[0].keys() == search.RATES.keys() | search.OWN.get(loss, {}).keys()
    assert search.draw_trials("ldl", 16, seed=4) != drawn["ldl"]


def test_trials_fill_their_ranges_evenly() -> None:
    trials = search.draw_trials("ldl", 64, seed=0)
    for name, (low, high) in (search.RATES | search.OWN["ldl"]).items():
        places = np.log([trial[name] / low for trial in trials]) / np.log(high / low)
        assert places.min() >= 0
        assert places.max() <= 1
        counts, _ = np.histogram(places, bins=4, range=(0, 1))
        assert counts.min() >= 12


def test_heads_are_told_sex_and_covariates_beside_the_features(tmp_path: Path) -> None:
    """Each in deviations from the mean of those that learn; what is unknown counts as the mean."""
    parts = [splits.TRAIN] * 3 + [splits.VALIDATION, splits.TEST]
    height, weight = [100, 140, np.nan, 160, np.nan], [7, 7, 7, 7, 9]
    samples = _samples(parts, np.arange(5), np.array([height, weight]).T)
    np.save(tmp_path / "features.npy", np.array([[1], [2], [3], [4], [5]], dtype=np.float32))
    told = load_features(Stage(tmp_path, "key"), samples)
    expected = {
        splits.TRAIN: [[-1, 1, -1, 0], [0, -1, 1, 0], [1, 1, 0, 0]],
        splits.VALIDATION: [[2, -1, 2, 0]],
        splits.TEST: [[3, 1, 0, 2]],
    }
    for part, rows in expected.items():
        torch.testing.assert_close(told[part].inputs, torch.tensor(rows, dtype=torch.float32))


@pytest.mark.parametrize("loss", ["l1", "ldl"])
def test_heads_learn_from_covariates(tmp_path: Path, loss: str) -> None:
    """Of ages that are in the covariate alone, heads without it know no more than their median."""
    rng = np.random.default_rng(0)
    parts = [splits.TRAIN] * 400 + [splits.VALIDATION] * 50 + [splits.TEST] * 100
    months = rng.uniform(5, 55, len(parts))
    config = load_config("smoke", [*SMALL, "comparison.dropout=0", "training.sigma=5"])
    np.save(tmp_path / "features.npy", rng.normal(size=(len(parts), 4)).astype(np.float32))
    errors = []
    for covariates in (100 + months[:, None], np.empty((len(parts), 0))):
        features = load_features(Stage(tmp_path, "key"), _samples(parts, months, covariates))
        trainer = HeadTrainer(config, features, BINS)
        network = trainer.fit(loss, {"learning_rate": 1e-2, "weight_decay": 1e-3}, seed=0)
        said = as_distribution(trainer.tell(network, splits.TEST), BINS).mean
        errors.append((said - features[splits.TEST].months).abs().mean())
    assert errors[0] < 3
    assert errors[1] > 10


@pytest.mark.parametrize("loss", LOSSES)
def test_heads_learn_with_every_loss(trainer: HeadTrainer, loss: str) -> None:
    trial = {"learning_rate": 1e-2, "weight_decay": 1e-3}
    network = trainer.fit(loss, trial, seed=0)
    output = trainer.tell(network, splits.TEST)
    truth = trainer.features[splits.TEST].months
    error = (as_distribution(output, BINS).mean - truth).abs().mean()
    assert output.shape == ((96,) if loss in SCALAR_LOSSES else (96, 60))
    assert error < 0.4 * (truth - truth.median()).abs().mean()


def test_the_seed_alone_decides_a_head(trainer: HeadTrainer) -> None:
    trial = {"learning_rate": 1e-2, "weight_decay": 1e-3}
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = trainer.tell(trainer.fit("ldl", trial, seed=1), splits.TEST)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(trainer.tell(trainer.fit("ldl", trial, seed=1), splits.TEST), first)
    assert not torch.equal(trainer.tell(trainer.fit("ldl", trial, seed=2), splits.TEST), first)


def test_a_trial_has_the_settings_of_its_loss(trainer: HeadTrainer) -> None:
    rates = {"learning_rate": 1e-2, "weight_decay": 1e-3}
    spreads = [
        as_distribution(trainer.tell(trainer.fit("kl", rates | own, 0), splits.TEST), BINS)
        .stddev.mean()
        .item()
        for own in ({"sigma": 3.0}, {"sigma": 9.0})
    ]
    assert 3 < spreads[0] < 6
    assert 8 < spreads[1] < 11


def test_the_best_trial_is_chosen_and_trained_from_every_seed(
    trainer: HeadTrainer, tmp_path: Path
) -> None:
    stage = Stage(tmp_path, "key")
    search.search("crps", trainer, stage, QUIET)
    trials, chosen = read_json(stage / "trials.json"), read_json(stage / "chosen.json")
    assert len(trials) == 3
    assert chosen == min(trials, key=lambda trial: trial["mae"])
    with np.load(stage / "outputs.npz") as outputs:
        assert outputs[splits.VALIDATION].shape == (2, 128, 60)
        again = trainer.tell(trainer.fit("crps", chosen, 1), splits.TEST)
        assert np.array_equal(outputs[splits.TEST][1], again)
    truth = trainer.features[splits.VALIDATION].months
    told = as_distribution(trainer.tell(trainer.fit("crps", chosen, 0), splits.VALIDATION), BINS)
    assert chosen["mae"] == pytest.approx((told.mean - truth).abs().mean().item())


def test_trials_that_are_done_are_not_done_again(
    trainer: HeadTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, fitted = Stage(tmp_path, "key"), []
    fit = HeadTrainer.fit

    def counted(self: HeadTrainer, loss: str, trial: dict, seed: int) -> object:
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(trial)
        return fit(self, loss, trial, seed)

    monkeypatch.setattr(HeadTrainer, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        search.search("l1", trainer, stage, QUIET)
    before = read_json(stage / "trials.json")
    assert len(before) == 2
    fitted.clear()
    with pytest.raises(KeyboardInterrupt):  # the third trial, and the first seed of the chosen
        search.search("l1", trainer, stage, QUIET)
    assert read_json(stage / "trials.json")[:2] == before
    assert len(read_json(stage / "trials.json")) == 3


def test_scores_by_hand() -> None:
    truth = torch.tensor([10.0, 20.0, 30.0, 40.0])
    errors = torch.tensor([1.0, -5.0, 7.0, 13.0])
    spread = torch.arange(-20.0, 21.0)
    calibration = 30 + spread, torch.full((41,), 30.0)
    figures = score(truth + errors, truth, np.arange(len(truth)), calibration, BINS, **SAMPLING)
    assert figures["mae"] == figures["crps"] == pytest.approx(6.5)
    assert figures["bias"] == pytest.approx(4)
    assert (figures["cs6"], figures["cs12"]) == (0.5, 0.75)
    assert figures["coverage90"] is figures["width90"] is None
    # Of 42 distances, the 38th of 0, 1, 1, 2, 2, ..., 20, 20 is 19.
    assert figures["calibrated_width90"] == pytest.approx(38)
    assert figures["calibrated_coverage90"] == 1


def test_too_few_images_to_calibrate_on_have_no_width() -> None:
    truth = torch.tensor([10.0, 20.0])
    figures = score(truth, truth, np.arange(len(truth)), (truth, truth), BINS, **SAMPLING)
    assert figures["calibrated_width90"] is None
    assert figures["calibrated_coverage90"] == 1


def test_scores_of_distributions_by_hand() -> None:
    # One bin, 3 months before the true age: an interval that is as long as 90% of the bin.
    truth = torch.arange(10.0, 51.0)
    logits = torch.full((41, 60), -1e4)
    logits[torch.arange(41), (truth - 4).long()] = 0
    figures = score(logits, truth, np.arange(len(truth)), (logits, truth), BINS, **SAMPLING)
    assert figures["mae"] == pytest.approx(3)
    assert figures["bias"] == pytest.approx(-3)
    assert figures["coverage90"] == 0
    assert figures["width90"] == pytest.approx(0.9, rel=1e-5)
    assert figures["calibrated_coverage90"] == 1
    assert figures["calibrated_width90"] == pytest.approx(6, abs=1e-3)
    assert figures["crps"] == pytest.approx(3, abs=0.3)


@pytest.fixture(scope="module")
def small() -> Config:
    changes = ["comparison.epochs=2", "comparison.sigmas=[5]", "comparison.weights=[0, 1]"]
    backbone = "comparison.backbone={name: test_resnet.r160_in1k, pretrained: false, stride: 8}"
    return load_config(
        "smoke",
        [
            *SMALL[1:],
            backbone,
            *changes,
            "comparison.whole=[l1, crps]",
            "comparison.rates=[1.0e-3, 2.0e-3]",
            "comparison.size=64",
        ],
    )


def test_a_whole_comparison_and_what_it_leaves_alone(
    small: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_through, look = [], plan.image_files
    monkeypatch.setattr(plan, "image_files", lambda *at: looked_through.append(at) or look(*at))
    results = compare_losses(small, tmp_path, QUIET)
    # Of large data sets that takes a while, and there are many networks.
    assert len(looked_through) == 1
    assert results == read_json(tmp_path / "losses.json")
    assert tuple(results["heads"]) == LOSSES
    assert len(results["scan"]) == 2
    assert list(results["whole"]) == ["l1", "crps"]
    for loss, found in results["whole"].items():
        assert [trial["learning_rate"] for trial in found["rates"]] == [1e-3, 2e-3]
        best = min(found["rates"], key=lambda trial: trial["mae"])["learning_rate"]
        for seed in small.comparison.seeds:
            assert (tmp_path / f"model-{loss}-{best:g}-{seed}" / "network.safetensors").exists()
    for part in (results["heads"], results["whole"]):
        for loss, found in part.items():
            assert len(found["seeds"]) == 2
            maes = [figures["mae"] for figures in found["seeds"]]
            assert found["mean"]["mae"] == pytest.approx(np.mean(maes))
            expected = part["l1"]["mean"]["mae"] - found["mean"]["mae"]
            assert found["gain_on_l1"]["gain"] == pytest.approx(expected, abs=1e-4)
            assert (found["mean"]["coverage90"] is None) == (loss in SCALAR_LOSSES)

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("done.json")}

    before = written()
    assert len(before) == 2 + len(LOSSES) + 1 + 2 * (2 + 1 + 1)
    assert compare_losses(small, tmp_path, QUIET) == results
    assert written() == before
    wider = small.model_copy(
        update={"comparison": small.comparison.model_copy(update={"weights": (0.0, 1.0, 3.0)})}
    )
    assert len(compare_losses(wider, tmp_path, QUIET)["scan"]) == 3
    changed = {path.parent.name for path, time in written().items() if time != before[path]}
    assert changed == {"scan"}
