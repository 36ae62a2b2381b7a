"""Views, ensembles and corrections: what is mixed, and what validation images make of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ldlcam import Bins, LabelDistribution
from pydantic import ValidationError
from torch import Tensor

from boneage.config import BinRange, Config, Model, Reading, Training, load_config
from boneage.errors import UserError
from boneage.networks.reading import Calibration, ask
from boneage.networks.regressor import AgeNetwork, as_distribution, mix, tell
from boneage.networks.storage import load_network, save_network

MONTHS = Bins(1, 240, unit="months")
BINS = Bins(1, 24, unit="months")


def _network(loss: str = "ldl") -> AgeNetwork:
    torch.manual_seed(0)
    training = Training.model_validate(
        {
            "size": 64,
            "head_channels": 8,
            "backbone": {"name": "test_resnet.r160_in1k", "pretrained": False, "stride": 8},
        }
    )
    model = Model(name="m", regions=("whole",), loss=loss)
    return AgeNetwork(training, model, BinRange(last=24)).eval()


IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64), dtype=np.uint8))
SEX = torch.tensor([1.0, -1.0, 0.0])


# ------------------------------------------------------------------------------ what is mixed


def test_mixed_distributions_are_the_mean_of_the_probabilities() -> None:
    logits = [torch.randn(4, 24) for _ in range(3)]
    expected = sum(each.softmax(-1) for each in logits) / 3
    torch.testing.assert_close(mix(logits).softmax(-1), expected)
    assert mix(logits[:1]) is logits[0]
    assert mix([torch.tensor([10.0, 20.0]), torch.tensor([20.0, 60.0])]).tolist() == [15, 40]


@pytest.mark.parametrize("loss", ["ldl", "l1"])
def test_the_mirror_image_is_asked_too(loss: str) -> None:
    network, reading = _network(loss), Reading(mirror=True)
    both = ask(network, IMAGES, SEX, reading)
    alone = [ask(network, view, SEX, Reading()) for view in (IMAGES, IMAGES.flip(-1))]
    torch.testing.assert_close(both, mix(alone))
    torch.testing.assert_close(ask(network, IMAGES.flip(-1), SEX, reading), both)


def test_turned_images_are_asked_too() -> None:
    network = _network()
    quarter = ask(network, IMAGES, SEX, Reading(rotations=(90,)))
    turned = [ask(network, view, SEX, Reading()) for view in (IMAGES, IMAGES.rot90(-1, (2, 3)))]
    other = [ask(network, view, SEX, Reading()) for view in (IMAGES, IMAGES.rot90(1, (2, 3)))]
    gaps = [(quarter.softmax(-1) - mix(way).softmax(-1)).abs().max() for way in (turned, other)]
    assert min(gaps) < 1e-4
    four = ask(network, IMAGES, SEX, Reading(mirror=True, rotations=(90,)))
    assert not torch.allclose(four, quarter)


# ---------------------------------------------------------------------------- what is corrected


def _overconfident(count: int) -> tuple[Tensor, Tensor]:
    """Logits of errors of 10 months that say 4, drawn towards 120 months; and the true ages."""
    generator = torch.Generator().manual_seed(count)
    months = 40 + 160 * torch.rand(count, generator=generator)
    told = 120 + 0.8 * (months - 120) + 10 * torch.randn(count, generator=generator)
    return -((MONTHS.centers - told[:, None]) / 4).square() / 2, months


def test_nothing_asked_for_is_nothing_corrected() -> None:
    outputs, months = _overconfident(300)
    ages = Calibration(Reading(), MONTHS).fit(outputs, months)(outputs)
    known = LabelDistribution(outputs, MONTHS)
    torch.testing.assert_close(ages.months, known.mean)
    torch.testing.assert_close(ages.sd, known.stddev)
    torch.testing.assert_close(ages.low, known.interval(0.9).low)
    plain = Calibration(Reading(), MONTHS).fit(months + 5, months)(months + 5)
    torch.testing.assert_close(plain.months, months + 5)
    assert plain.low.isnan().all()
    assert plain.sd.isnan().all()


def test_a_straight_line_takes_the_trend_away() -> None:
    chose, test = _overconfident(4000), _overconfident(3000)
    ages = Calibration(Reading(bias=True), MONTHS).fit(*chose)(test[0])
    before = tell(test[0], MONTHS) - test[1]
    after = ages.months - test[1]
    assert abs(after.mean()) < 0.5
    assert (after.square().mean()) < before.square().mean()
    # The interval moves with the mean.
    assert (ages.low < ages.months).all()
    assert (ages.months < ages.high).all()
    slope = np.polyfit(ages.months, test[1], 1)[0]
    assert slope == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("reading", [Reading(conformal=True), Reading(temperature=True)])
def test_intervals_hold_what_they_say(reading: Reading) -> None:
    chose, test = _overconfident(2000), _overconfident(3000)
    raw = Calibration(Reading(), MONTHS)(test[0])
    ages = Calibration(reading, MONTHS).fit(*chose)(test[0])

    def covered(low: Tensor, high: Tensor) -> float:
        return ((low <= test[1]) & (test[1] <= high)).float().mean().item()

    assert covered(raw.low, raw.high) < 0.6
    assert covered(ages.low, ages.high) == pytest.approx(0.9, abs=0.025)
    torch.testing.assert_close(ages.months, raw.months, atol=1, rtol=0)


def test_all_corrections_together() -> None:
    chose, test = _overconfident(4000), _overconfident(3000)
    reading = Reading(temperature=True, bias=True, conformal=True)
    ages = Calibration(reading, MONTHS).fit(*chose)(test[0])
    inside = (ages.low <= test[1]) & (test[1] <= ages.high)
    assert inside.float().mean() == pytest.approx(0.9, abs=0.025)
    assert abs((ages.months - test[1]).mean()) < 0.5


def test_single_ages_are_corrected_and_have_intervals_of_one_length() -> None:
    outputs, months = (each[:2000] for each in (_overconfident(4000)))
    told = tell(outputs, MONTHS)
    ages = Calibration(Reading(bias=True, conformal=True), MONTHS).fit(told, months)(told)
    assert abs((ages.months - months).mean()) < 0.1
    lengths = (ages.high - ages.low)[(ages.low > 0.5) & (ages.high < 240.5)]
    assert len(lengths) > 1500
    torch.testing.assert_close(lengths, lengths[:1].expand_as(lengths), atol=1e-3, rtol=0)
    assert ((ages.low <= months) & (months <= ages.high)).float().mean() == pytest.approx(
        0.9, abs=0.01
    )
    assert ages.sd.isnan().all()


def test_too_few_validation_images_leave_the_whole_range() -> None:
    outputs, months = _overconfident(3)
    ages = Calibration(Reading(conformal=True), MONTHS).fit(outputs, months)(outputs)
    assert ages.low.tolist() == [0.5] * 3
    assert ages.high.tolist() == [240.5] * 3


def test_networks_that_have_learned_nothing_are_left_alone() -> None:
    months = torch.linspace(1, 24, 24)
    outputs = -(BINS.centers - (25 - months)[:, None]).square()
    ages = Calibration(Reading(bias=True), BINS).fit(outputs, months)(outputs)
    torch.testing.assert_close(ages.months, tell(outputs, BINS))


def test_a_calibration_is_kept(tmp_path: Path) -> None:
    reading = Reading(temperature=True, bias=True, conformal=True)
    outputs, months = _overconfident(500)
    known = Calibration(reading, MONTHS).fit(outputs, months)
    save_network(known, tmp_path / "calibration.safetensors")
    other = Calibration(reading, MONTHS)
    load_network(other, tmp_path / "calibration.safetensors")
    for one, two in zip(known(outputs), other(outputs), strict=True):
        assert torch.equal(one, two)


def test_a_single_age_is_a_distribution_all_at_that_age() -> None:
    told = torch.tensor([12.0, 20.25, 99.0])
    predicted = as_distribution(told, BINS)
    torch.testing.assert_close(predicted.mean, torch.tensor([12.0, 20.25, 24.0]))
    assert predicted.crps(torch.tensor([20.0, 20.25, 24.0])).tolist() == pytest.approx(
        [8, 0, 0], abs=0.3
    )


# ------------------------------------------------------------------------------ what is asked for


@pytest.mark.parametrize(
    ("ensembles", "message"),
    [
        ("{E: [O, X]}", "E has a name of its own"),
        ("{E: [O, O]}", "E has a name of its own"),
        ("{O: [O, H+R1+R2]}", "O has a name of its own"),
        ("{E: [O, O-L1]}", "E mixes single ages with distributions"),
        ("{E: [O]}", "at least 2"),
        ("{../E: [O, H+R1+R2]}", "match pattern"),
    ],
)
def test_ensembles_that_cannot_be(ensembles: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config("smoke", [f"reading.ensembles={ensembles}"])


def test_members() -> None:
    config = load_config("smoke", ["reading.ensembles={E: [O, H+R1+R2]}"])
    assert [model.name for model in config.members("E")] == ["O", "H+R1+R2"]
    assert [model.name for model in config.members("O")] == ["O"]
    with pytest.raises(ValidationError):
        Config(reading={"rotations": (180,)})
