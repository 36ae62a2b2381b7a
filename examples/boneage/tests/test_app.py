"""The page: it shows what the predictor reads, keeps nothing, and works in a browser."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from conftest import PATIENT, dicom, write_dicom, write_image
from ldlcam import crop_and_resize
from PIL import Image

from boneage.app.show import plot_distribution, show_about, show_reading, years_and_months
from boneage.config import Localization
from boneage.data.contrast import even_contrast
from boneage.model_folder import open_model
from boneage.networks.localizer import LocalizerNetwork
from boneage.predictor import Patient, Predictor
from boneage.report.drawing import Ink

FOUND = Localization().found

HERE, THERE = SimpleNamespace(session_hash="here"), SimpleNamespace(session_hash="there")
COMMAND = (sys.executable, "-c", "from boneage.cli import main; main()", "app")
_BOX = re.compile(
    r'<rect class="(\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"'
)
_PNG = re.compile(r'<(image|img)(?: class="(plot)")? (?:href|src)="data:image/png;base64,([^"]+)"')


@pytest.fixture(scope="module")
def predictor(finished: Path) -> Predictor:
    return Predictor(open_model(finished))


@pytest.fixture
def reader(predictor: Predictor) -> Any:
    page = pytest.importorskip("boneage.app.page", reason="needs Gradio", exc_type=ImportError)
    return page.ImageReader(predictor)


@pytest.fixture
def upload(finished: Path, tmp_path: Path) -> Path:
    """A radiograph as it lies in the folder of uploads."""
    image = min((finished / "phantom" / "boneage-training-dataset").glob("*.png"))
    return Path(shutil.copy(image, tmp_path))


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _boxes(shown: str) -> dict[str, tuple[float, ...]]:
    """Corners of the boxes that are drawn over the radiograph."""
    svg = shown[shown.index('<svg class="picture"') :].partition("</svg>")[0]
    found = ((name, [float(each) for each in corners]) for name, *corners in _BOX.findall(svg))
    return {name: (x, y, x + width, y + height) for name, (x, y, width, height) in found}


def _pictures(shown: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """The radiograph, and the crops."""
    by_tag: dict[str, list[np.ndarray]] = {"image": [], "img": []}
    for tag, figure, data in _PNG.findall(shown):
        if not figure:
            with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
                by_tag[tag].append(np.asarray(picture))
    (radiograph,) = by_tag["image"]
    return radiograph, by_tag["img"]


def _words(shown: str) -> str:
    """What is to be read on the page."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).split())


# --------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize(
    ("months", "words"),
    [
        (0.4, "0 months"),
        (1, "1 month"),
        (11.4, "11 months"),
        (11.6, "1 year"),
        (13, "1 year 1 month"),
        (100.3, "8 years 4 months"),
        (240, "20 years"),
    ],
)
def test_years_and_months(months: float, words: str) -> None:
    assert years_and_months(months) == words


def test_an_upload_is_shown_as_predict_reads_it(
    reader: Any, predictor: Predictor, upload: Path
) -> None:
    (row,) = predictor.rows([Patient(upload)])
    emptied, shown = reader.upload(str(upload), "From file", HERE)
    assert emptied is None
    words = _words(shown)
    assert f"{float(row['months']):.1f} months" in words
    assert years_and_months(float(row["months"])) in words
    low, high = (float(row[end]) for end in ("p5", "p95"))
    assert f"{low:.0f} to {high:.0f} months" in words
    assert f"Standard deviation {float(row['sd']):.1f} months" in words
    assert row["flags"] == "sex-unknown"
    assert "The sex is not known" in words
    assert "was not found" not in words
    assert "right hand" not in words
    assert list(_boxes(shown)) == list(FOUND)
    for region, corners in _boxes(shown).items():
        known = [float(row[f"{region}_{corner}"]) for corner in ("x1", "y1", "x2", "y2")]
        assert corners == pytest.approx(known, abs=0.11)


def test_the_pictures_are_what_the_networks_saw(
    reader: Any, predictor: Predictor, upload: Path
) -> None:
    (row,) = predictor.rows([Patient(upload, male=True)])
    image = even_contrast(_pixels(upload) / np.float32(255), predictor.config.contrast)
    radiograph, crops = _pictures(reader.upload(str(upload), "Male", HERE)[1])
    np.testing.assert_allclose(radiograph, image * 255, atol=0.51)
    assert len(crops) == len(FOUND)
    size = (predictor.config.training.size,) * 2
    for region, crop in zip(FOUND, crops, strict=True):
        box = [float(row[f"{region}_{corner}"]) for corner in ("x1", "y1", "x2", "y2")]
        expected = crop_and_resize(torch.from_numpy(image)[None, None], torch.tensor([box]), size)
        # The table's corners are rounded to a tenth of a pixel.
        assert np.abs(crop / 255 - expected[0, 0].numpy()).mean() < 0.01


def test_a_chosen_sex_wins_and_the_file_s_comes_back(
    reader: Any, predictor: Predictor, upload: Path
) -> None:
    file = write_dicom(dicom(_pixels(upload), bits=8, PatientSex="F"), upload.with_suffix(".dcm"))
    known = {
        male: next(predictor.rows([Patient(file, male)]))["months"] for male in (None, True, False)
    }
    assert known[None] == known[False] != known[True]
    shown = [reader.upload(str(file), "From file", HERE)[1]]
    shown += [reader.read(sex, HERE) for sex in ("Male", "Female", "From file")]
    expected = (
        (None, "Sex female, as the file says"),
        (True, "Sex male, as chosen"),
        (False, "Sex female, as chosen"),
        (None, "Sex female, as the file says"),
    )
    for one, (male, sex) in zip(map(_words, shown), expected, strict=True):
        assert f"{float(known[male]):.1f} months" in one
        assert sex in one
        assert "sex is not known" not in one


def test_a_right_hand_is_shown_as_it_lies_in_its_file(
    reader: Any, predictor: Predictor, upload: Path
) -> None:
    right = np.ascontiguousarray(_pixels(upload)[:, ::-1])
    (row,) = predictor.rows([Patient(upload, male=False)])
    tags = {"PatientSex": "F", "ImageLaterality": "R"}
    file = write_dicom(dicom(right, bits=8, **tags), upload.with_suffix(".dcm"))
    _, shown = reader.upload(str(file), "From file", HERE)
    radiograph, _ = _pictures(shown)
    evened = even_contrast(right / np.float32(255), predictor.config.contrast)
    np.testing.assert_allclose(radiograph, evened * 255, atol=0.51)
    width = right.shape[1]
    assert list(_boxes(shown)) == list(FOUND)
    for region, (left, _, right_end, _) in _boxes(shown).items():
        x1, x2 = (float(row[f"{region}_{corner}"]) for corner in ("x1", "x2"))
        assert (left, right_end) == pytest.approx((width - x2, width - x1), abs=0.11)
    assert "A right hand" in _words(shown)
    text = re.sub(r'base64,[^"]+', "", shown)
    assert not any(part in text for part in PATIENT.split("^"))


def test_regions_that_are_not_found(
    reader: Any, upload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend = LocalizerNetwork.attend

    def flat(self: LocalizerNetwork, images: torch.Tensor, sex: torch.Tensor) -> object:
        found = attend(self, images, sex)
        return found._replace(heatmaps=torch.zeros_like(found.heatmaps))

    monkeypatch.setattr(LocalizerNetwork, "attend", flat)
    _, shown = reader.upload(str(upload), "Male", HERE)
    for name in ("Hand", "Region 1", "Region 2"):
        assert f"{name} was not found: the whole image was taken" in _words(shown)
        assert f"{name}: not found" in _words(shown)
    assert _boxes(shown) == {}


def test_a_model_of_single_ages_has_no_distribution(finished: Path, upload: Path) -> None:
    predictor = Predictor(open_model(finished, "O-L1"))
    (reading,) = predictor.read([upload.stem], [predictor.film(Patient(upload, male=True))])
    shown = show_reading(reading, sex_chosen=True)
    words = _words(shown)
    assert f"{reading.months:.1f} months" in words
    assert "90% interval none" in words
    assert "Distribution over the ages none: this model tells a single age" in words
    assert "nan" not in words
    assert 'class="plot"' not in shown
    assert len(_pictures(shown)[1]) == 1


def test_the_figure_marks_the_age_and_its_interval(predictor: Predictor, upload: Path) -> None:
    from matplotlib.figure import Figure

    (reading,) = predictor.read([upload.stem], [predictor.film(Patient(upload, male=True))])
    assert reading.distribution is not None
    axes = Figure().add_subplot()
    ink = Ink(**{field.name: "black" for field in fields(Ink)})
    plot_distribution(axes, ink, reading, reading.distribution)
    curve, *marks = axes.lines
    ages, probabilities = curve.get_data()
    assert np.average(ages, weights=probabilities) * 12 == pytest.approx(reading.months, abs=0.01)
    assert [mark.get_xdata()[0] * 12 for mark in marks] == pytest.approx(
        [reading.low, reading.high, reading.months]
    )
    (shade,) = axes.collections
    left, right = (extent(shade.get_paths()[0].vertices[:, 0]) for extent in (np.min, np.max))
    assert (left * 12, right * 12) == pytest.approx((reading.low, reading.high), abs=1)


def test_what_a_model_knows_nothing_of_is_said(finished: Path) -> None:
    model = open_model(finished)
    assert "Model H+R1+R2 , which tells ages from 1 month to 20 years." in _words(show_about(model))
    assert "counts as unknown" not in show_about(model)
    table = model.config.table.model_copy(update={"covariates": ("height",)})
    told = SimpleNamespace(name="O", config=model.config.model_copy(update={"table": table}))
    assert "more than the sex (height); here that counts as unknown" in _words(show_about(told))


# --------------------------------------------------------------------- what is refused and kept


def _colours() -> bytes:
    data = dicom(np.zeros((20, 30), np.uint8), bits=8, PixelData=bytes(1800))
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda good: b"Doe, Jane", "not an image in PNG, JPEG, TIFF or DICOM; export it again."),
        (lambda good: b"", "not an image"),
        (lambda good: good[:2000], "cannot be read ("),
        (lambda good: _colours(), "a colour image; a radiograph is grey."),
        (lambda good: bytes(128) + b"DICM" + bytes(9), "a DICOM file without an image."),
    ],
)
def test_a_bad_image_is_one_message_and_nothing_of_it_stays(
    reader: Any, upload: Path, content: Any, message: str
) -> None:
    good = upload.read_bytes()
    reader.upload(str(upload), "Male", HERE)
    bad = upload.with_name("Doe, <b>Jane.png")
    bad.write_bytes(content(good))
    emptied, shown = reader.upload(str(bad), "Male", HERE)
    assert emptied is None
    assert f"No reading: {message}" in _words(shown)
    assert "Jane" not in shown
    assert str(bad.parent) not in shown
    assert not bad.exists()
    # The reading of the image before is not taken for this one's.
    assert "will stand here" in reader.read("Female", HERE)
    assert not reader.films


def test_a_read_upload_is_deleted_and_each_page_has_its_own_image(
    reader: Any, upload: Path
) -> None:
    other = write_image(upload.with_name("other.png"), _pixels(upload)[::-1])
    here, there = (
        reader.upload(str(path), "Male", page)[1] for path, page in ((upload, HERE), (other, THERE))
    )
    assert not upload.exists()
    assert not other.exists()
    assert here != there
    assert (reader.read("Male", HERE), reader.read("Male", THERE)) == (here, there)
    reader.forget(HERE)
    assert "will stand here" in reader.read("Male", HERE)
    assert reader.read("Male", THERE) == there
    assert reader.upload(None, "Male", THERE)[0] is None
    assert not reader.films


def test_pages_without_end_do_not_fill_the_memory(
    reader: Any, upload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boneage.app.page._PAGES", 2)
    for page in ("one", "two", "three"):
        copy = shutil.copy(upload, upload.with_name("copy.png"))
        reader.upload(str(copy), "Male", SimpleNamespace(session_hash=page))
    assert list(reader.films) == ["two", "three"]


# -------------------------------------------------------------------------------- the command


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_without_gradio_the_command_says_what_to_install(finished: Path) -> None:
    code = "import sys; sys.modules['gradio'] = None; from boneage.cli import main; main()"
    done = _run(sys.executable, "-c", code, "app", "--run", str(finished))
    assert done.returncode == 1
    assert "gradio: not installed, and needed to show the page; " in done.stderr
    assert "pip install -e 'examples/boneage[app]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_commands_do_not_import_gradio() -> None:
    code = "import sys, boneage.cli; print('gradio' in sys.modules)"
    assert _run(sys.executable, "-c", code).stdout.strip() == "False"


def test_a_taken_port_is_named(finished: Path) -> None:
    pytest.importorskip("gradio", reason="needs Gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = _run(*COMMAND, "--run", str(finished), "--port", port)
    assert done.returncode == 1
    assert f"127.0.0.1, port {port}: cannot listen there (Address already in use)" in done.stderr
    assert "Traceback" not in done.stderr


# -------------------------------------------------------------------------------- in a browser


class Served(NamedTuple):
    """The command at work: its address, where it keeps uploads, and what it has printed."""

    address: str
    uploads: Path
    printed: Path


@pytest.fixture
def served(finished: Path, tmp_path: Path) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="needs Gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    temporary, printed = tmp_path / "temporary", tmp_path / "printed.txt"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    with printed.open("w") as output:
        server = subprocess.Popen(
            [*COMMAND, "--run", str(finished), "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while address not in printed.read_text():
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"ended with {server.wait(0.2)}: {printed.read_text()}")
        (uploads,) = temporary.glob("boneage-*")
        yield Served(address, uploads, printed)
    finally:
        server.terminate()
        code = server.wait(60)
    assert code == 0
    assert not uploads.exists()


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as engine:
        own = engine.chromium.executable_path
        names = ("chromium", "chromium-browser", "google-chrome")
        found = own if Path(own).exists() else next(filter(None, map(shutil.which, names)), None)
        if found is None:
            pytest.skip("needs a browser: install chromium, or run playwright install chromium")
        with contextlib.closing(engine.chromium.launch(executable_path=found)) as launched:
            yield launched


def test_the_page_in_a_browser(
    browser: Any, served: Served, predictor: Predictor, upload: Path, tmp_path: Path
) -> None:
    (unknown, female) = (
        float(row["months"]) for row in predictor.rows([Patient(upload), Patient(upload, False)])
    )
    bad = tmp_path / "Jane Doe.png"
    bad.write_text("no image")
    page = browser.new_page()
    asked: list[str] = []
    refused: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: refused.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: refused.append(str(error)))
    page.set_default_timeout(120_000)

    page.goto(served.address)
    page.get_by_text("Not for clinical use.").wait_for()
    file = page.locator("#file input[type=file]")
    file.set_input_files(upload)
    page.get_by_text(f"{unknown:.1f} months", exact=True).wait_for()
    page.get_by_text("The sex is not known").wait_for()
    page.get_by_label("Female", exact=True).check()
    page.get_by_text("female, as chosen").wait_for()
    page.get_by_text(f"{female:.1f} months", exact=True).wait_for()
    assert page.get_by_text("The sex is not known").count() == 0
    for picture in page.locator(".boneage img").all():
        assert picture.evaluate("picture => picture.complete && picture.naturalWidth > 0")
    assert page.locator("svg.picture rect").count() == 3
    # The drop area is free again for the next one.
    file.set_input_files(bad)
    page.get_by_text("not an image in PNG, JPEG, TIFF or DICOM").wait_for()
    assert page.locator("svg.picture").count() == 0
    assert page.get_by_text("Traceback").count() == 0
    page.get_by_text("Not for clinical use.").wait_for()

    assert {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))} == {
        "127.0.0.1"
    }
    assert refused == []
    assert all(path.stat().st_size == 0 for path in served.uploads.rglob("*") if path.is_file())
    assert served.printed.read_text().strip() == f"page: {served.address}"
    # The page stays open: the server ends all the same.


def test_only_uploads_can_be_read_and_deleted(served: Served, upload: Path) -> None:
    """Whoever speaks to the server without the page names files of the machine in vain."""
    data = [{"path": str(upload), "meta": {"_type": "gradio.FileData"}}, "From file"]
    body = json.dumps({"data": data, "fn_index": 0, "session_hash": "other"}).encode()
    headers = {"Content-Type": "application/json"}
    api = f"{served.address}/gradio_api"
    with urllib.request.urlopen(urllib.request.Request(f"{api}/queue/join?", body, headers)):
        pass
    with urllib.request.urlopen(f"{api}/queue/data?session_hash=other") as stream:
        messages = [json.loads(line[6:]) for line in stream if line.startswith(b"data: ")]
        policy = stream.headers["Content-Security-Policy"]
    (done,) = (each for each in messages if each["msg"] == "process_completed")
    assert not done["success"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{api}/file={upload}")
    assert upload.exists()
    assert not any(path.is_file() for path in served.uploads.rglob("*"))
    assert policy.startswith("default-src 'self'")
