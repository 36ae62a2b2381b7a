"""Every test image on the report page, and the data set in a few figures."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pytest
from report_run import Page, Run, make_run

from boneage.data import splits
from boneage.data.samples import Samples
from boneage.report import dataset
from boneage.report.listing import chosen_first, image_rows

NAN = float("nan")


def samples_of(months: list[float], parts: list[str] | None = None) -> Samples:
    count = len(months)
    return Samples(
        ids=tuple(f"i{at}" for at in range(count)),
        parts=np.array(parts or [splits.TEST] * count),
        patients=np.arange(count),
        months=np.array(months, dtype=np.float32),
        male=np.arange(count) % 2 == 0,
        shapes=np.array([[30 + at, 20] for at in range(count)]),
        paths=(),
        truth={},
        covariates=np.empty((count, 0), dtype=np.float32),
    )


def told(months: list[float], low: list[float], high: list[float]) -> dict[str, np.ndarray]:
    columns = {"months": months, "low": low, "high": high}
    return {name: np.array(values, dtype=np.float32) for name, values in columns.items()}


def test_rows_by_hand() -> None:
    samples = samples_of([50, 100, 100, 150])
    predicted = {
        "A": told([1, 2, 3], [NAN] * 3, [NAN] * 3),
        "B": told([101, 90, 180.5], [90, 80, 151], [120, 99.5, 200]),
    }
    rows = image_rows(np.array([1, 2, 3]), samples, predicted, "B")
    assert [(row.id, row.sex, row.off, row.holds) for row in rows] == [
        ("i3", "girl", 30.5, False),
        ("i2", "boy", 10, False),
        ("i1", "girl", 1, True),
    ]
    assert rows[0].told == [(180.5, 30.5), (3, -147)]
    assert rows[0].interval == (151, 200)
    assert chosen_first(predicted, "B") == ["B", "A"]
    without = image_rows(np.array([1, 2, 3]), samples, predicted, "A")
    assert [row.interval for row in without] == [None] * 3
    assert not any(row.holds for row in without)


def test_equal_errors_keep_the_tables_order() -> None:
    predicted = {"A": told([12, 8, 12], [0] * 3, [20] * 3)}
    rows = image_rows(np.arange(3), samples_of([10, 10, 10]), predicted, "A")
    assert [row.id for row in rows] == ["i0", "i1", "i2"]


@pytest.mark.parametrize("name", ["whole_run", "corrected_run"])
def test_page_lists_every_test_image_once(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    listed = listing(run.page)
    samples = Samples.load(run.stages.prepared.folder)
    rows = samples.rows(splits.TEST)
    assert sorted(cells[0] for cells in listed) == sorted(samples.ids[row] for row in rows)
    models = run.metrics["ages"]["models"]
    chosen = min(models, key=lambda model: models[model]["validation_mae"])
    off = [float(cells[5]) for cells in listed]
    assert off == sorted(off, reverse=True)
    assert np.mean(off) == pytest.approx(models[chosen]["test"]["mae"], abs=0.06)
    inside = [cells[7] for cells in listed]
    assert inside.count("yes") / len(inside) == pytest.approx(models[chosen]["coverage90"])
    assert all(len(cells) == 8 + 2 * (len(models) - 1) for cells in listed)


def test_single_ages_have_no_interval(tmp_path: Path, no_figures: None) -> None:
    run = make_run(tmp_path, names=("O-L1",))
    page = Page(run.page)
    assert all(len(cells) == 6 for cells in listing(run.page))
    words = " ".join(page.text.split())
    assert "O-L1 tells a single age and no interval." in words
    assert "O-L1 tells a single age for each image, not a distribution" in words
    for heading in ("Reliability", "Distributions of single images", "90% intervals by sex"):
        assert heading not in words
    assert "nan" not in words.lower().split()


def listing(page: str) -> list[list[str]]:
    """The texts of the cells of the sortable table's body."""
    body = page.split('class="sortable"')[1].split("<tbody>")[1].split("</tbody>")[0]
    return [
        [html.unescape(cell).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in body.split("<tr>")[1:]
    ]


def test_parts_by_hand() -> None:
    parts = [splits.TRAIN, splits.TEST, splits.TRAIN, splits.TRAIN]
    described = dataset.describe(samples_of([10, 90, 30, 50], parts))
    train, test, everything = described
    assert train == dataset.Part("to train", 3, boys=2, youngest=10, median=30, oldest=50)
    assert test == dataset.Part("to test", 1, boys=0, youngest=90, median=90, oldest=90)
    assert everything == dataset.Part("all", 4, boys=2, youngest=10, median=40, oldest=90)


def test_image_sizes() -> None:
    assert dataset.image_sizes(samples_of([1, 2, 3])) == "20 x 30 to 20 x 32"
    assert dataset.image_sizes(samples_of([1])) == "20 x 30"
