"""The report page as a whole, of a small made-up run."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from report_run import PARTS, Page, Run, make_run

from boneage.errors import UserError
from boneage.stages import report
from boneage.stages.report import write_report


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
    assert page.all("script") == [{}]


@pytest.mark.parametrize("name", ["whole_run", "plain_run"])
def test_only_the_pages_own_script_may_run(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name).page)
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    directives = dict(part.split(maxsplit=1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == f"'sha256-{digest}'"
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]


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
    assert all(header.get("scope") in ("row", "col", "colgroup") for header in page.all("th"))


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


def test_without_boxes_or_floors(plain_run: Run) -> None:
    text = Page(plain_run.page).text
    words = " ".join(text.split())
    assert "No boxes are annotated in this data set" in words
    assert "Region 1: no annotated boxes to tell where it fell." in words
    assert "floor" not in words.lower()
    assert "Fingerprint" not in words
    assert "nan" not in words.lower().split()
    assert "Bone age: hands" in words


def test_patients_are_counted(tmp_path: Path, no_figures: None) -> None:
    run = make_run(tmp_path, data=Path("/nowhere/hands"), changes=("table.patient=Person",))
    words = " ".join(Page(run.page).text.split())
    count = len(PARTS)
    assert f"{count} radiographs of {(count + 1) // 2} patients: 20 to train" in words
    assert "No patient is in two parts." in words


def test_no_missing_figure_is_printed_as_nan(whole_run: Run) -> None:
    words = Page(whole_run.page).text.lower().split()
    assert "nan" not in words
    assert "none" not in words


def test_hostile_names_stay_text(tmp_path: Path, no_figures: None) -> None:
    hostile = "<script>alert(1)</script>\"'&"
    run = make_run(
        tmp_path,
        ids=lambda i: f"{hostile}{i}",
        data=Path("/nowhere") / "<b>data\udce9<br>",
        names=("O-L1", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}"),
    )
    page = Page(run.page)
    assert page.all("script") == [{}]
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
