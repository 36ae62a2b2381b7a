"""Each class gives what its function gives on all images at once."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing
from torchmetrics import Metric, MetricCollection

from ldlcam import Bins, LabelDistribution, coverage_by_level, metrics
from ldlcam.metrics import (
    AveragePrecision,
    BoxAccuracy,
    ByGroup,
    CoverageByLevel,
    CumulativeScore,
    ExpectedCalibrationError,
    MeanAbsoluteError,
    MeanError,
    MeanIoU,
    PixelAveragePrecision,
    ThresholdSweep,
)
from tests.metrics.cases import CASES, KINDS, PAIRS, batches, images
from tests.metrics.processes import WAYS, measure

# Of 41 images: an epoch's odd batches, an empty one among them.
LENGTHS = [16, 16, 0, 8, 1]

by_name = pytest.mark.parametrize("name", CASES)


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_every_class_has_a_case() -> None:
    assert sorted(CASES) == metrics.__all__


@by_name
def test_batches_give_what_all_images_give(name: str) -> None:
    case = CASES[name]
    metric = case.make()
    for batch in batches(name, LENGTHS):
        metric.update(*batch)
    same(metric.compute(), case.function(*images(name)))


@by_name
def test_a_batch_has_its_own_value_and_reset_forgets(name: str) -> None:
    case = CASES[name]
    metric = case.make()
    first, second = batches(name, [20, 21])
    same(metric(*first), case.function(*first))
    same(metric(*second), case.function(*second))
    same(metric.compute(), case.function(*images(name)))
    metric.reset()
    metric.update(*second)
    same(metric.compute(), case.function(*second))


@by_name
def test_on_a_gpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("CUDA is not available")
    case = CASES[name]
    metric = case.make().cuda()
    for batch in batches(name, LENGTHS):
        metric.update(*(one.cuda() if isinstance(one, torch.Tensor) else one for one in batch))
    same(metric.cpu().compute(), case.function(*images(name)))


@by_name
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_nothing_to_count(name: str) -> None:
    """Without an image, the class answers as its function does."""
    case = CASES[name]
    empty = batches(name, [0, 41])[0]
    expected = case.function(*empty)
    same_or_nan = {"rtol": 0.0, "atol": 0.0, "equal_nan": True}
    torch.testing.assert_close(case.make().compute(), expected, **same_or_nan)
    metric = case.make()
    metric.update(*empty)
    torch.testing.assert_close(metric.compute(), expected, **same_or_nan)


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    multiprocessing.spawn(measure, args=(2, tmp_path), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, case in CASES.items():
        expected = case.function(*images(name))
        expected = list(expected) if isinstance(expected, tuple) else [expected]
        for found in results:
            for way in WAYS:
                same(found[name, way], expected)


def test_a_collection_scores_boxes_together() -> None:
    collection = MetricCollection({"mIoU": MeanIoU(), "AP50": AveragePrecision()})
    for batch in batches("MeanIoU", LENGTHS):
        collection.update(*batch)
    found = collection.compute()
    same(found["mIoU"], CASES["MeanIoU"].function(*images("MeanIoU")))
    assert 0 < found["AP50"] < 1


def test_every_class_is_of_a_kind() -> None:
    classes = {type(make()).__name__ for kinds in KINDS.values() for make in kinds}
    assert sorted({*classes, "ByGroup"}) == metrics.__all__


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize(("data", "first", "second"), PAIRS)
def test_a_collection_keeps_unlike_metrics_apart(
    data: Callable[[int], dict[str, Any]], first: Callable[[], Metric], second: Callable[[], Metric]
) -> None:
    """After a batch in which nothing counts, all metrics hold the same."""
    collection = MetricCollection({"first": first(), "second": second()})
    alone = {"first": first(), "second": second()}
    for count in (0, 30):
        batch = data(count)
        collection.update(**batch)
        for metric in alone.values():
            metric.update(**metric._filter_kwargs(**batch))
    found = collection.compute()
    expected = MetricCollection(alone, compute_groups=False).compute()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_collection_keeps_groups_apart() -> None:
    collection = MetricCollection(
        {"mae": ByGroup(MeanAbsoluteError(), 1), "me": ByGroup(MeanError(), 1)}
    )
    group, predictions = torch.zeros(2, dtype=torch.long), torch.tensor([10.0, 20.0])
    collection.update(group, predictions, torch.tensor([9.0, 18.0]))
    collection.update(group, predictions, torch.tensor([19.0, 28.0]))
    assert collection.compute() == {"mae": [5], "me": [-3.5]}


def test_a_collection_shares_what_is_alike() -> None:
    collection = MetricCollection({"a": CumulativeScore(6), "b": CumulativeScore(6.0)})
    for targets in ([9.0, 18.0], [19.0, 28.0]):
        collection.update(torch.tensor([10.0, 20.0]), torch.tensor(targets))
    assert len(collection.compute_groups) == 1
    assert collection.compute() == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("name", ["ByGroup", "BoxAccuracy", "CumulativeScore", "MeanIoU"])
def test_half_an_epoch_is_saved(name: str) -> None:
    case = CASES[name]
    first, second = batches(name, [20, 21])
    metric = case.make()
    metric.persistent(True)
    metric.update(*first)
    loaded = case.make()
    loaded.load_state_dict(metric.state_dict())
    for other in (loaded, pickle.loads(pickle.dumps(metric))):
        other.update(*second)
        same(other.compute(), case.function(*images(name)))
    metric.persistent(False)
    assert not metric.state_dict()


@pytest.mark.parametrize("name", ["BoxAccuracy", "CumulativeScore", "MeanIoU"])
def test_two_halves_are_merged(name: str) -> None:
    halves = [CASES[name].make(), CASES[name].make()]
    for metric, batch in zip(halves, batches(name, [20, 21]), strict=True):
        metric.update(*batch)
    halves[0].merge_state(halves[1])
    same(halves[0].compute(), CASES[name].function(*images(name)))


def test_images_of_several_sizes() -> None:
    metric = PixelAveragePrecision()
    for height in (4, 9):
        masks = torch.zeros(1, height, height, dtype=torch.bool)
        masks[:, : height // 2] = True
        metric.update(masks.float(), masks)
    assert metric.compute() == 1


def test_sums_in_float64_if_told() -> None:
    metric = MeanAbsoluteError().set_dtype(torch.float64)
    metric.update(torch.tensor([0.1], dtype=torch.float64), torch.zeros(1))
    assert metric.compute().item() == 0.1
    grouped = ByGroup(MeanAbsoluteError(), 1).set_dtype(torch.float64)
    grouped.update(torch.zeros(1).long(), torch.tensor([0.1], dtype=torch.float64), torch.zeros(1))
    assert grouped.compute()[0].item() == 0.1


def test_as_many_samples_as_groups() -> None:
    metric = ByGroup(MeanAbsoluteError(), 2)
    with pytest.raises(ValueError, match="samples: expected 3 as group has, got 2"):
        metric.update(torch.tensor([0, 1, 1]), torch.zeros(3), torch.zeros(2))


def test_levels_are_not_rounded() -> None:
    """A value at the very end of the 90% interval."""
    logits = torch.zeros(1, 10, dtype=torch.float64)
    predicted = LabelDistribution(logits, Bins(1, 10))
    level = 0.9
    targets = predicted.interval(level).high
    while not coverage_by_level(predicted, targets, [level]):
        targets = targets.nextafter(torch.zeros(1, dtype=torch.float64))
    metric = CoverageByLevel([level])
    metric.update(predicted, targets)
    assert metric.levels == (level,)
    assert metric.compute() == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AveragePrecision(1), r"iou_threshold: expected a number in \[0, 1\), got 1"),
        (lambda: CumulativeScore(0), "k: expected a finite number above 0, got 0"),
        (lambda: ThresholdSweep([]), "thresholds: expected at least one, got none"),
        (lambda: ThresholdSweep([0.5, 2]), r"thresholds: expected a number in \(0, 1\], got 2"),
        (lambda: BoxAccuracy([0]), r"thresholds: expected a number in \(0, 1\], got 0"),
        (
            lambda: BoxAccuracy([0.5], iou_thresholds=[]),
            r"iou_thresholds: expected numbers in \[0, 1\], got \[\]",
        ),
        (
            lambda: BoxAccuracy([0.5], components=0),
            "components: expected an integer of at least 1, got 0",
        ),
        (
            lambda: ThresholdSweep([0.5], component="all"),  # type: ignore[arg-type]
            "component: expected one of 'largest', 'peak', got 'all'",
        ),
        (lambda: CoverageByLevel([]), "levels: expected at least one, got none"),
        (lambda: ExpectedCalibrationError([50]), r"levels: expected all in \[0, 1\], got \[50.0\]"),
        (lambda: CoverageByLevel(0.5), r"levels: expected shape \(L,\), got \(\)"),  # type: ignore[arg-type]
    ],
)
def test_wrong_settings_are_named_at_once(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_without_torchmetrics_the_remedy_is_named() -> None:
    script = (
        "import sys; sys.modules['torchmetrics'] = None\n"
        "import ldlcam\n"
        "try:\n    import ldlcam.metrics\n"
        "except ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 'pip install "ldlcam[metrics]"' in run.stdout


def test_sums_are_not_in_the_default_dtype(half_by_default: None) -> None:
    metric = metrics.MeanAbsoluteError()
    truth = torch.zeros(1, dtype=torch.float32)
    for value in range(300):
        metric.update(truth + value, truth)
    assert metric.compute().item() == pytest.approx(149.5)


@by_name
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_leaves_the_sums_exact(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    models = [torch.nn.ModuleList([case.make()]) for _ in range(2)]
    models[0].to(dtype)
    half, plain = (model[0] for model in models)
    assert isinstance(half, Metric)
    assert isinstance(plain, Metric)
    for batch in batches(name, LENGTHS):
        half.update(*batch)
        plain.update(*batch)
    models[0].to(dtype)
    for found, expected in zip(
        half.metric_state.values(), plain.metric_state.values(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    same(half.compute(), plain.compute())


def test_only_set_dtype_changes_the_sums() -> None:
    model = torch.nn.ModuleList([MeanAbsoluteError()])
    metric = model[0]
    assert isinstance(metric, MeanAbsoluteError)
    metric.set_dtype(torch.float64)
    model.to(torch.bfloat16)
    assert metric.total.dtype == torch.float64
    metric.reset()
    assert metric.total.dtype == torch.float64
    assert model.to("meta")[0].total.device.type == "meta"
