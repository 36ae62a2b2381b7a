"""The report page and the printed summary, of a small made-up run in the files' real formats."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from boneage.config import REGIONS, TRUTH, Config, Model, load_config
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.errors import UserError
from boneage.report import cases, figures, tables, wording
from boneage.report.placement import place
from boneage.run_folder import write_json
from boneage.stages import report
from boneage.stages.crop import crop_path
from boneage.stages.evaluate import evaluate
from boneage.stages.localize import Found
from boneage.stages.plan import RunStages, plan_stages
from boneage.stages.prepare import whole_path
from boneage.stages.report import write_report
from boneage.stages.summary import print_summary

HEIGHT, WIDTH = 120, 90
# In the upright hand of every made-up image, in pixels.
BOXES = {"Hand": (20, 10, 70, 115), "Wrist": (30, 80, 62, 104), "Metacarpal": (26, 40, 66, 60)}
FOUND = {"hand": (22, 14, 68, 112), "region1": (31, 82, 60, 106), "region2": (28, 36, 66, 58)}
PARTS = (
    *(splits.TRAIN,) * 20,
    *(splits.VALIDATION,) * 6,
    *(splits.TEST,) * 14,
    *(splits.BOXES_CHOOSE,) * 6,
    *(splits.BOXES_SCORE,) * 6,
)


@dataclass
class Run:
    config: Config
    folder: Path
    stages: RunStages
    metrics: dict[str, Any]

    def write(self) -> str:
        return write_report(self.config, self.folder, self.stages, self.metrics).read_text("utf-8")

    @cached_property
    def page(self) -> str:
        """The page, drawn once for all tests that only look at it."""
        return self.write()


def make_run(
    folder: Path,
    *,
    boxed: bool = True,
    data: Path | None = None,
    ids: Callable[[int], str] = str,
    names: tuple[str, ...] = ("O-L1", "O", "H+R1+R2"),
) -> Run:
    """Write what the stages write, with made-up contents, and evaluate it."""
    rng = np.random.default_rng(0)
    # Built without checks: the page must hold whatever a name is.
    models = tuple(
        Model.model_construct(name=name, regions=("whole",), loss="ldl" if at else "l1")
        for at, name in enumerate(names)
    )
    config = load_config("smoke")
    training = config.training.model_copy(update={"models": models})
    config = config.model_copy(update={"data": data, "training": training})
    stages = plan_stages(config, folder, None)
    parts = np.array(PARTS)
    if not boxed:
        parts[np.char.startswith(parts, "boxes")] = splits.TRAIN
    count = len(parts)
    samples = Samples(
        ids=tuple(ids(i) for i in range(count)),
        parts=parts,
        months=rng.uniform(10, 220, count).astype(np.float32).round(),
        male=rng.random(count) < 0.5,
        shapes=np.tile([HEIGHT, WIDTH], (count, 1)),
        paths=tuple(Path(f"/nowhere/{i}.png") for i in range(count)),
        truth={name: boxes_of(name, parts) for name in BOXES} if boxed else {},
        covariates=np.empty((count, 0), dtype=np.float32),
    )
    samples.save(stages.prepared.folder)
    for size in {config.training.size, *(sizes(config).values())}:
        np.save(
            whole_path(stages.prepared, size),
            rng.integers(0, 256, (count, size, size), dtype=np.uint8),
        )
    for at, region in enumerate(REGIONS):
        write_region(config, region, stages, samples, rng, boxed=boxed, missing=at)
    for at, name in enumerate(names):
        write_model(name, stages, samples, rng, spread=30 / (at + 1), loss="ldl" if at else "l1")
    for stage in stages.models.values():
        stage.begin()
    for stage in (stages.prepared, *stages.models.values(), *stages.ages.values()):
        stage.finish(75.0)
    return Run(config, folder, stages, evaluate(config, folder, stages))


def sizes(config: Config) -> dict[str, int]:
    return {region: getattr(config.localization, region).size for region in REGIONS}


def boxes_of(name: str, parts: np.ndarray) -> np.ndarray:
    boxes = np.tile(np.array(BOXES[name], dtype=np.float64), (len(parts), 1))
    boxes[~np.char.startswith(parts, "boxes")] = np.nan
    return boxes


def write_region(
    config: Config,
    region: str,
    stages: RunStages,
    samples: Samples,
    rng: np.random.Generator,
    *,
    boxed: bool,
    missing: int,
) -> None:
    count, stage = len(samples), stages.regions[region]
    stage.folder.mkdir(parents=True)
    heatmaps = rng.normal(0, 0.1, (count, 6, 6)).astype(np.float32)
    x1, y1, x2, y2 = FOUND[region]
    row, column = int((y1 + y2) / 2 / HEIGHT * 6), int((x1 + x2) / 2 / WIDTH * 6)
    heatmaps[:, row, column] += 1
    heatmaps[:missing] = 0
    np.save(stage / "heatmaps.npy", heatmaps)
    boxes = np.tile(np.array(FOUND[region], dtype=np.float32), (count, 1))
    boxes[:missing] = (0, 0, WIDTH, HEIGHT)
    valid = np.arange(count) >= missing
    np.savez(stage / "regions.npz", boxes=boxes, valid=valid)
    write_json(stage / "threshold.json", threshold_of(config, region, boxed=boxed))
    write_json(stages.attention[region] / "training.json", {"validation_mae": 20.5})
    crops = rng.integers(0, 256, (count, config.training.size, config.training.size), np.uint8)
    path = crop_path(stages.cropped, stages.prepared, region, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, crops)


def threshold_of(config: Config, region: str, *, boxed: bool) -> dict[str, Any]:
    if not boxed:
        nowhere = {"nearest": None, "falls_on": None, "pairs": {}}
        return {"threshold": 0.2, "chosen_on": "configuration", **nowhere}
    order = TRUTH[region] if region != "region2" else TRUTH[region][::-1]
    pairs = {}
    for name, top in zip(order, (0.8, 0.1), strict=False):
        table = [
            {"threshold": threshold, "mean_iou": top - abs(threshold - 0.2), "ap50": top}
            for threshold in config.localization.thresholds
            if threshold <= 0.3
        ]
        best = next(row for row in table if row["threshold"] == 0.2)
        pairs[name] = {**best, "choose": table, "score": table}
    return {
        "threshold": 0.2,
        "chosen_on": splits.BOXES_CHOOSE,
        "nearest": order[0],
        "falls_on": order[0],
        "pairs": pairs,
    }


def write_model(
    name: str,
    stages: RunStages,
    samples: Samples,
    rng: np.random.Generator,
    *,
    spread: float,
    loss: str,
) -> None:
    rows = np.flatnonzero(samples.parts != splits.TRAIN)
    months = (samples.months[rows] + rng.normal(0, spread, len(rows))).astype(np.float32)
    sd = np.full(len(rows), spread if loss == "ldl" else np.nan, dtype=np.float32)
    stages.ages[name].begin()
    np.savez(
        stages.ages[name] / "predictions.npz",
        rows=rows,
        months=months,
        sd=sd,
        low=months - 1.64 * sd,
        high=months + 1.64 * sd,
        entropy=sd,
        other_sex_months=months + 9,
    )
    write_json(stages.ages[name] / "reading.json", {"validation_mae": spread})


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A data set without annotated boxes and, being no phantom, without floors."""
    return make_run(tmp_path_factory.mktemp("plain"), boxed=False, data=Path("/nowhere/hands"))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of everything else: figures take most of the time."""
    monkeypatch.setattr(figures, "_render", lambda draw, ink, height: "data:,")


class Page(HTMLParser):
    """What a browser would see: the elements with their attributes, and the text."""

    VOID = frozenset({"meta", "link", "img", "source", "image", "rect", "br"})

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("name", ["whole_run", "plain_run"])
def test_page_needs_nothing_but_itself(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name).page)
    assert not page.open
    addresses = [
        attributes[kind]
        for _, attributes in page.elements
        for kind in ("src", "href", "srcset", "xlink:href", "data", "action", "poster")
        if kind in attributes
    ]
    assert len(addresses) > 50
    assert all(address.startswith(("data:", "#")) for address in addresses)
    style = (Path(report.__file__).parents[1] / "report/templates/style.css").read_text()
    assert "url(" not in style
    assert "@import" not in style
    assert not page.all("script")


def test_inner_links_lead_somewhere_and_ids_differ(whole_run: Run) -> None:
    page = Page(whole_run.page)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    assert {section["aria-labelledby"] for section in page.all("section")} <= set(ids)


def test_pictures_have_words_and_tables_headers(whole_run: Run) -> None:
    page = Page(whole_run.page)
    assert page.all("img")
    assert all(image.get("alt") for image in page.all("img"))
    drawings = [drawing for drawing in page.all("svg") if "aria-hidden" not in drawing]
    assert drawings
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))


def test_page_says_it_is_not_for_clinical_use(whole_run: Run, plain_run: Run) -> None:
    for run in (whole_run, plain_run):
        assert Page(run.page).text.count("Not for clinical use") == 2


def test_every_model_is_shown_with_its_figures(whole_run: Run) -> None:
    page = Page(whole_run.page)
    words = " ".join(page.text.split())
    for name, model in whole_run.metrics["ages"]["models"].items():
        test = model["test"]
        floor = whole_run.metrics["ages"]["floors"][name]
        assert f"{name} {test['mae']:.1f} months" in words
        low, high = test["mae_interval"]
        assert f"95% interval {low:.1f} to {high:.1f} floor {floor:.1f}" in words
        alts = [image["alt"] for image in page.all("img")]
        assert sum(alt.startswith(f"Scatter of {name}'s errors") for alt in alts) == 1
        assert sum(alt.startswith(f"Bland-Altman plot of {name}:") for alt in alts) == 1


def test_localization_is_shown_beside_its_control(whole_run: Run) -> None:
    words = " ".join(Page(whole_run.page).text.split())
    pair = whole_run.metrics["localization"]["region1"]["against"]["Wrist"]
    assert f"{pair['mean_iou']:.3f}control {pair['control']['mean_iou']:.3f}" in words
    assert "Region 1 fell on the wrist (carpals): mean IoU 0.80 with the wrist" in words
    assert "Region 2 fell on the metacarpals" in words
    assert whole_run.metrics["data"]["phantom_fingerprint"] in words


def test_sweep_has_every_threshold_once(whole_run: Run) -> None:
    thresholds, rows = tables.sweep(tables.overlaps(whole_run.metrics))
    assert len(rows) == 5
    assert thresholds == sorted(set(thresholds))
    assert max(thresholds) == 0.3
    for row in rows:
        assert thresholds[row.best] == 0.2
        assert all(cell is not None for cell in row.cells)


def test_without_boxes_or_floors(plain_run: Run) -> None:
    text = Page(plain_run.page).text
    words = " ".join(text.split())
    assert "No boxes are annotated in this data set" in words
    assert "Region 1: no annotated boxes to tell where it fell." in words
    assert "floor" not in words.lower()
    assert "Fingerprint" not in words
    assert "nan" not in words.lower().split()
    assert "Bone age: hands" in words


def test_no_missing_figure_is_printed_as_nan(whole_run: Run) -> None:
    words = Page(whole_run.page).text.lower().split()
    assert "nan" not in words
    assert "none" not in words


def test_model_without_distribution_has_no_spread(whole_run: Run) -> None:
    assert whole_run.metrics["ages"]["models"]["O-L1"]["coverage90"] is None
    samples = Samples.load(whole_run.stages.prepared.folder)
    found = {region: Found.load(whole_run.stages.regions[region]) for region in REGIONS}
    rows = samples.rows(splits.TEST)[:2]
    for case in cases.gather(rows, whole_run.config, samples, whole_run.stages, found):
        bands = {reading.model: reading.band for reading in case.readings}
        assert bands.pop("O-L1") is None
        assert all(width > 0 for _, width in bands.values())


def test_chosen_images(whole_run: Run) -> None:
    samples = Samples.load(whole_run.stages.prepared.folder)
    test = samples.rows(splits.TEST)
    ages = samples.months[cases.evenly_by_age(test, samples, 6)]
    assert len(ages) == 6
    assert (np.diff(ages) >= 0).all()
    assert set(cases.evenly_by_age(test[:3], samples, 6)) == set(test[:3])
    annotated = cases.annotated_rows(samples, 6)
    assert len(set(annotated)) == 6
    assert (samples.parts[annotated] == splits.BOXES_SCORE).all()


def test_worst_and_best(whole_run: Run) -> None:
    samples = Samples.load(whole_run.stages.prepared.folder)
    test = samples.rows(splits.TEST)
    stage = whole_run.stages.ages["O"]
    worst, best = cases.by_error(test, samples, stage, 4)
    with np.load(stage / "predictions.npz") as arrays:
        said = dict(zip(arrays["rows"].tolist(), arrays["months"].tolist(), strict=True))
    errors = {row: abs(said[row] - samples.months[row]) for row in test.tolist()}
    order = sorted(errors, key=errors.__getitem__)
    assert worst.tolist() == order[::-1][:4]
    assert best.tolist() == order[:4]


def test_hostile_names_stay_text(tmp_path: Path, no_figures: None) -> None:
    hostile = "<script>alert(1)</script>\"'&"
    run = make_run(
        tmp_path,
        ids=lambda i: f"{hostile}{i}",
        data=Path("/nowhere") / "<b>data\udce9<br>",
        names=("O-L1", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}"),
    )
    page = Page(run.page)
    assert not page.all("script")
    assert not page.all("b")
    assert not [image for image in page.all("img") if image["src"] == "x"]
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert hostile in page.text
    assert '"><img src=x onerror=alert(1)>' in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "<b>data?<br>" in page.text


def test_failed_write_leaves_the_old_page(
    whole_run: Run, tmp_path: Path, no_figures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("old")

    write = Path.write_text

    def fail(self: Path, text: str, **kwargs: Any) -> int:
        write(self, text[:1000], **kwargs)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(UserError, match="No space left"):
        write_report(whole_run.config, tmp_path, whole_run.stages, whole_run.metrics)
    monkeypatch.undo()
    assert (tmp_path / "report.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_page_is_the_same_when_written_again(whole_run: Run) -> None:
    again = whole_run.write()
    # Compared out of the assertion: a listing of the differences of two pages takes minutes.
    same = again == whole_run.page
    assert same


def test_page_stays_small(whole_run: Run) -> None:
    assert len(whole_run.page) < 4_000_000


def test_centres_are_placed_in_the_hand(whole_run: Run) -> None:
    samples = Samples.load(whole_run.stages.prepared.folder)
    found = {region: Found.load(whole_run.stages.regions[region]) for region in REGIONS}
    placement = place(samples, found)
    assert placement is not None
    assert placement.count == 6
    # Wrist (46, 92), metacarpals (46, 50): 42 pixels upwards are one unit along the hand.
    np.testing.assert_allclose(placement.centres["region1"], [[-0.5 / 42, -2 / 42]] * 6, atol=1e-6)
    np.testing.assert_allclose(placement.centres["region2"], [[1 / 42, 45 / 42]] * 6, atol=1e-6)
    assert placement.outlines["Wrist"] == pytest.approx((32 / 42, 24 / 42))
    assert placement.shares["region1"] == {"Wrist": 1, "Metacarpal": 0, "elsewhere": 0}
    assert placement.shares["region2"] == {"Wrist": 0, "Metacarpal": 1, "elsewhere": 0}


def test_regions_never_found_and_boxes_of_one_centre(whole_run: Run) -> None:
    samples = Samples.load(whole_run.stages.prepared.folder)
    samples = replace(samples, truth={**samples.truth, "Metacarpal": samples.truth["Wrist"]})
    none = Found(np.zeros((len(samples), 4)), np.zeros(len(samples), dtype=bool))
    placement = place(samples, {"region1": none, "region2": none})
    assert placement is not None
    assert len(placement.centres["region1"]) == 0
    assert np.isfinite(list(placement.outlines.values())).all()
    assert wording.centres("region1", placement.shares["region1"]).endswith("in any of them.")
    assert figures.placement_figure(placement).alt


def test_no_boxes_place_nothing(plain_run: Run) -> None:
    samples = Samples.load(plain_run.stages.prepared.folder)
    found = {region: Found.load(plain_run.stages.regions[region]) for region in REGIONS}
    assert place(samples, found) is None


def printed(metrics: dict[str, Any], width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_summary(metrics, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_summary_holds_the_figures(whole_run: Run) -> None:
    text = printed(whole_run.metrics)
    pair = whole_run.metrics["localization"]["hand"]["against"]["Hand"]
    assert f"{pair['mean_iou']:.2f} ({pair['control']['mean_iou']:.2f})" in text
    assert "Wrist*" in text
    assert "Metacarpal*" in text
    for name, model in whole_run.metrics["ages"]["models"].items():
        low, high = model["test"]["mae_interval"]
        row = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert f"{model['test']['mae']:.1f} ({low:.1f} to {high:.1f})" in row
        assert f"{whole_run.metrics['ages']['floors'][name]:.1f}" in row
    gain = whole_run.metrics["ages"]["comparisons"]["O-L1 vs H+R1+R2"]
    assert f"{gain['gain']:.2f} (" in text


def test_summary_without_boxes_or_floors(plain_run: Run) -> None:
    text = printed(plain_run.metrics)
    assert "no boxes" in text
    assert "floor" not in text
    assert "nan" not in text.lower()


def test_summary_fits_a_narrow_terminal_and_takes_brackets_as_text(tmp_path: Path) -> None:
    run = make_run(tmp_path, names=("O-L1", "[red]O[/blue]"))
    text = printed(run.metrics, width=80)
    assert "[red]O[/blue]" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.25, "1.2"), (-0.01, "0.0"), (-3.0, "-3.0"), (None, "—"), (float("nan"), "—")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.2, "3 s"), (59.7, "1 min 0 s"), (61, "1 min 1 s"), (7325, "2 h 2 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("wrist", "metacarpal", "words"),
    [
        (0.7, 0.1, "fell on the wrist"),
        (0.1, 0.6, "fell on the metacarpals"),
        (0.3, 0.1, "fell partly on the wrist"),
        (0.1, 0.2, "matches none of the annotated regions"),
    ],
)
def test_landing(wrist: float, metacarpal: float, words: str) -> None:
    against = {
        "Wrist": {"mean_iou": wrist, "control": {"mean_iou": 0.4}},
        "Metacarpal": {"mean_iou": metacarpal, "control": None},
    }
    sentence = wording.landing("region1", {"against": against})
    assert words in sentence
    below = wrist > metacarpal and wrist <= 0.4
    assert ("one fixed box for all images does no worse, with 0.40" in sentence) is below


@pytest.mark.parametrize(
    ("gain", "clear", "begins", "holds"),
    [
        (1.5, True, "new is nearer the truth than old, by 1.50 months", "hardly"),
        (-1.5, True, "old is nearer the truth than new, by 1.50 months", "hardly"),
        (0.2, False, "new is ahead of old by 0.20 months", "cannot be told"),
    ],
)
def test_comparison(gain: float, clear: bool, begins: str, holds: str) -> None:
    sentence = wording.comparison("old", "new", {"gain": gain, "excludes_zero": clear})
    assert sentence.startswith(begins)
    assert holds in sentence
