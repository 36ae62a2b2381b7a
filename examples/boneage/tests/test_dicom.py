"""DICOM files: shown as viewers show them, refused where they are no single grey image."""

import io
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from conftest import PATIENT, dicom, noise, write_dicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from boneage.data.dicom import is_dicom, read_dicom
from boneage.data.images import image_files, image_name, read_film, read_radiograph
from boneage.errors import UserError

DEEP = np.random.default_rng(1).integers(0, 4096, (20, 30), dtype=np.uint16)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as info:
        read_radiograph(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert not any(part in message for part in PATIENT.split("^"))
    return message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.dcm"


# ------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16)])
def test_all_that_can_be_stored_is_the_scale(file: Path, dtype: type, bits: int) -> None:
    pixels = np.linspace(0, 2**bits - 1, 600).round().astype(dtype).reshape(20, 30)
    shown = read_radiograph(write_dicom(dicom(pixels, bits=bits), file))
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown, pixels / (2**bits - 1), atol=1e-6)


def test_signed_values(file: Path) -> None:
    pixels = (DEEP.astype(np.int16) - 2048).astype(np.int16)
    shown = read_radiograph(write_dicom(dicom(pixels), file))
    np.testing.assert_allclose(shown, DEEP / 4095, atol=1e-6)


def test_monochrome1_is_turned_round(file: Path) -> None:
    data = dicom(DEEP, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_radiograph(write_dicom(data, file)), 1 - DEEP / 4095, atol=1e-6)


def test_window_of_rescaled_values_by_the_standard_s_formula(file: Path) -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3000, "WindowWidth": 2000}
    shown = read_radiograph(write_dicom(dicom(DEEP, **tags), file))
    values = DEEP * 2.0 - 1000
    # PS3.3 C.11.2.1.2.1
    expected = np.clip((values - (3000 - 0.5)) / (2000 - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(shown, expected, atol=1e-5)


def test_the_first_of_several_windows(file: Path) -> None:
    several = {"WindowCenter": [1000, 3000], "WindowWidth": [500, 100]}
    first = {"WindowCenter": 1000, "WindowWidth": 500}
    shown = [read_radiograph(write_dicom(dicom(DEEP, **tags), file)) for tags in (several, first)]
    np.testing.assert_array_equal(*shown)


def _table(values: np.ndarray, first: int, bits: int) -> Dataset:
    table = Dataset()
    table.LUTDescriptor = [len(values), first, bits]
    table.LUTData = values.astype("<u2").tobytes()
    table["LUTDescriptor"].VR = "US"
    table["LUTData"].VR = "OW"
    return table


def test_tables_of_modality_and_voi(file: Path) -> None:
    turned = np.arange(4096)[::-1]
    bent = ((np.arange(4096) / 4095) ** 2 * 1023).round()
    data = dicom(DEEP, ModalityLUTSequence=[_table(turned, 0, 16)])
    data.ModalityLUTSequence[0].ModalityLUTType = "US"
    data.VOILUTSequence = [_table(bent, 0, 10)]
    shown = read_radiograph(write_dicom(data, file))
    np.testing.assert_allclose(shown, bent[turned[DEEP]] / 1023, atol=1e-6)


def test_padding_is_black_and_drawings_in_unused_bits_are_gone(file: Path) -> None:
    pixels = DEEP.copy()
    pixels[:, :5] = 4095
    marked = pixels | np.uint16(0x1000)
    data = dicom(marked, PhotometricInterpretation="MONOCHROME2", PixelPaddingValue=4095)
    data["PixelPaddingValue"].VR = "US"
    shown = read_radiograph(write_dicom(data, file))
    expected = np.where(pixels == 4095, 0, pixels / 4095)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_constant_window_is_no_division_by_zero(file: Path) -> None:
    shown = read_radiograph(write_dicom(dicom(np.zeros((20, 30), np.uint16), bits=16), file))
    assert np.all(shown == 0)


# ------------------------------------------------------------------------- what is said of hands


@pytest.mark.parametrize(("sex", "male"), [("M", True), ("F", False), ("O", None), ("", None)])
def test_sex(file: Path, sex: str, male: bool | None) -> None:
    assert read_film(write_dicom(dicom(DEEP, PatientSex=sex), file)).male is male


@pytest.mark.parametrize("tag", ["ImageLaterality", "Laterality"])
def test_right_hands_look_like_left_ones(file: Path, tag: str) -> None:
    left = read_film(write_dicom(dicom(DEEP, **{tag: "L"}), file))
    right = read_film(write_dicom(dicom(DEEP, **{tag: "R"}), file))
    assert (left.mirrored, right.mirrored) == (False, True)
    np.testing.assert_array_equal(right.pixels, left.pixels[:, ::-1])


def test_a_picture_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(0)).save(path)
    film = read_film(path)
    assert (film.male, film.mirrored) == (None, False)


# --------------------------------------------------------------------------- how they are stored


def test_run_length_encoding(file: Path) -> None:
    data = dicom(DEEP)
    data.compress(RLELossless)
    np.testing.assert_allclose(read_radiograph(write_dicom(data, file)), DEEP / 4095, atol=1e-6)


def test_baseline_jpeg(file: Path) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=95)
    data = dicom(smooth, bits=8, PixelData=encapsulate([buffer.getvalue()]))
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    np.testing.assert_allclose(read_radiograph(write_dicom(data, file)), smooth / 255, atol=3 / 255)


@pytest.mark.parametrize(
    "kind", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "ExplicitVRBigEndian"]
)
def test_lossless_kinds(tmp_path: Path, kind: str) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(write_dicom(dicom(DEEP), tmp_path / "plain.dcm")))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    path = tmp_path / "packed.dcm"
    writer.SetFileName(str(path))
    assert writer.Write()
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID != ExplicitVRLittleEndian
    np.testing.assert_allclose(read_radiograph(path), DEEP / 4095, atol=1e-6)


# ------------------------------------------------------------------------------- what is refused


def test_colour_frames_and_nothing_are_refused(file: Path) -> None:
    colours = np.zeros((20, 30, 3), np.uint8)
    data = dicom(colours[:, :, 0], bits=8, PixelData=colours.tobytes())
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    assert "colour" in refusal(write_dicom(data, file))
    palette = dicom(DEEP, PhotometricInterpretation="PALETTE COLOR")
    assert "colour" in refusal(write_dicom(palette, file))
    frames = dicom(DEEP, NumberOfFrames=2, PixelData=DEEP.tobytes() * 2)
    assert "2 frames" in refusal(write_dicom(frames, file))
    empty = dicom(DEEP)
    del empty.PixelData
    assert "without an image" in refusal(write_dicom(empty, file))


def test_enormous_sizes_are_refused_before_anything_is_decoded(file: Path) -> None:
    data = dicom(DEEP)
    data.Rows = data.Columns = 60_000
    assert "60000x60000 pixels are too many" in refusal(write_dicom(data, file))


@pytest.mark.parametrize("keep", [132, 200, 400, -300])
def test_cut_files_are_refused(file: Path, keep: int) -> None:
    content = write_dicom(dicom(DEEP), file).read_bytes()
    file.write_bytes(content[:keep])
    refusal(file)


def test_values_that_are_no_values_are_not_repeated(file: Path) -> None:
    data = dicom(DEEP, WindowCenter=1, WindowWidth=0)
    assert "ValueError" in refusal(write_dicom(data, file))


# -------------------------------------------------------------------------------- how found


def test_files_are_found_by_their_content_and_keep_their_names(tmp_path: Path) -> None:
    for name in ("IM0001", "1.2.840.1", "1.2.840.2", "a.dcm", "DICOMDIR"):
        write_dicom(dicom(DEEP), tmp_path / name)
    (tmp_path / "notes.txt").write_text("x" * 300)
    (tmp_path / "short").write_text("x")
    found = image_files(tmp_path)
    assert [image_name(path) for path in found] == ["1.2.840.1", "1.2.840.2", "IM0001", "a"]
    assert all(is_dicom(path) for path in found)
    assert not is_dicom(tmp_path / "missing")


def test_a_dicom_file_by_another_name_is_still_one(tmp_path: Path) -> None:
    path = write_dicom(dicom(DEEP), tmp_path / "a.png")
    np.testing.assert_array_equal(read_radiograph(path), read_dicom(path).pixels)
