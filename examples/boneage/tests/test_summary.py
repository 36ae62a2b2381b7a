"""What a run prints, and the words for figures that page and console share."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_run import Run, make_run
from rich.console import Console

from boneage.config import LOSSES, Model, Reading
from boneage.report import wording
from boneage.stages.summary import print_summary


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
    ("value", "text"), [(1.25, "+1.2"), (-1.25, "-1.2"), (0.04, "0.0"), (-0.04, "0.0")]
)
def test_signed_numbers(value: float, text: str) -> None:
    assert wording.signed(value) == text


@pytest.mark.parametrize(
    ("months", "text"),
    [
        (9, "9 months (0 y 9 m)"),
        (119.9, "119.9 months (10 y 0 m)"),
        (float(np.float32(112.3)), "112.3 months (9 y 4 m)"),
    ],
)
def test_ages(months: float, text: str) -> None:
    assert wording.age(months).replace("\N{NO-BREAK SPACE}", " ") == text


def test_what_a_model_is() -> None:
    single = Model(name="R", regions=("hand", "region1"), loss="l1", seed=3)
    other = Model(name="O", regions=("whole",), loss="crps")
    assert wording.what_it_is([single]) == "hand, Region 1; loss: L1; seed 3"
    assert wording.what_it_is([other]) == "whole image; loss: CRPS"
    assert wording.what_it_is([single, other]) == "R, O, mixed"
    for loss in LOSSES:
        assert wording.what_it_is([Model(name="O", regions=("whole",), loss=loss)])


def test_what_was_fitted() -> None:
    assert "no correction was fitted" in wording.correction(Reading())
    both = wording.correction(Reading(temperature=True, bias=True))
    assert both.endswith("their width by a temperature and their place by a straight line.")
    assert "line" not in wording.correction(Reading(temperature=True))
    assert "no conformal margin" in wording.origin(Reading(temperature=True))
    assert "are conformal" in wording.origin(Reading(conformal=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "under 1 s"), (3.2, "3 s"), (59.7, "1 min 0 s"), (61, "1 min 1 s"), (7325, "2 h 2 min")],
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
    ("gain", "low", "clear", "begins", "holds"),
    [
        (1.5, 1.0, True, "new is nearer the truth than old, by 1.50 months", "hardly"),
        (-1.5, -2.0, True, "old is nearer the truth than new, by 1.50 months", "hardly"),
        (0.2, -0.1, False, "new is ahead of old by 0.20 months", "the interval holds 0: which"),
        (0.2, 0.1, False, "new is ahead of old by 0.20 months", "they are few: which"),
    ],
)
def test_comparison(gain: float, low: float, clear: bool, begins: str, holds: str) -> None:
    paired = {"gain": gain, "interval": [low, low + 1], "excludes_zero": clear}
    sentence = wording.comparison("old", "new", paired)
    assert sentence.startswith(begins)
    assert holds in sentence
