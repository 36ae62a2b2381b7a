from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import noise, write_image
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from boneage.data.contrast import even_contrast
from boneage.data.images import read_radiograph
from boneage.errors import UserError

GREY = noise(0, 20, 30)
DEEP = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)


def write_tiff(path: Path, pixels: np.ndarray, *, white_is_zero: bool = False) -> Path:
    """A plain TIFF file, written by hand: in the byte order and the sample format of the array."""
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    height, width = pixels.shape
    data = pixels.tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: int(not white_is_zero),
            273: 8, 277: 1, 278: height, 279: len(data), 339: kind}  # fmt: skip
    body = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8 + len(data))
    path.write_bytes(head + data + struct.pack(f"{order}H", len(tags)) + body + bytes(4))
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as info:
        read_radiograph(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_eight_bits_are_exact(tmp_path: Path, suffix: str) -> None:
    pixels = read_radiograph(write_image(tmp_path / f"a{suffix}", GREY))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, GREY / np.float32(255))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_exact(tmp_path: Path, suffix: str) -> None:
    pixels = read_radiograph(write_image(tmp_path / f"a{suffix}", DEEP))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, DEEP / 65535, atol=1e-7)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("brightest", [0, 1, 255, 256, 4095])
def test_a_dim_image_of_sixteen_bits_stays_dim(tmp_path: Path, suffix: str, brightest: int) -> None:
    dim = np.linspace(0, brightest, 600).round().astype(np.uint16).reshape(20, 30)
    pixels = read_radiograph(write_image(tmp_path / f"a{suffix}", dim))
    assert pixels.max() == pytest.approx(brightest / 65535)
    np.testing.assert_allclose(pixels, dim / 65535, atol=1e-7)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", "<u4", "<i4", ">i4"])
def test_tiff_of_any_integers_has_the_scale_of_sixteen_bits(tmp_path: Path, dtype: str) -> None:
    values = (DEEP // 2).astype(dtype)
    pixels = read_radiograph(write_tiff(tmp_path / "a.tif", values))
    np.testing.assert_allclose(pixels, (DEEP // 2) / 65535, atol=1e-7)


@pytest.mark.parametrize("dtype", ["|u1", "<u2"])
def test_tiff_where_white_is_zero_is_turned_round(tmp_path: Path, dtype: str) -> None:
    values = (np.arange(600).reshape(20, 30) % 256).astype(dtype)
    plain = read_radiograph(write_tiff(tmp_path / "plain.tif", values))
    turned = read_radiograph(write_tiff(tmp_path / "turned.tif", values, white_is_zero=True))
    assert plain.max() > 0
    np.testing.assert_allclose(turned, 1 - plain, atol=1e-6)


@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
def test_tiff_of_floats_is_read_as_it_is(tmp_path: Path, dtype: str) -> None:
    values = (DEEP / 65535).astype(dtype)
    np.testing.assert_array_equal(read_radiograph(write_tiff(tmp_path / "a.tif", values)), values)


def test_jpeg_is_close(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 3
    pixels = read_radiograph(write_image(tmp_path / "a.jpg", smooth, quality=95))
    assert np.abs(pixels - smooth / 255).max() < 4 / 255


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "PA", "1", "CMYK", "YCbCr"])
def test_grey_in_any_mode_is_the_same_grey(tmp_path: Path, mode: str) -> None:
    two = np.where(GREY > 127, np.uint8(255), np.uint8(0))
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "PA") else "a.png")
    Image.fromarray(two).convert(mode).save(path)
    with Image.open(path) as image:
        assert image.mode == mode
    assert np.abs(read_radiograph(path) - two / 255).max() <= 1 / 255


def test_colour_is_taken_as_grey(tmp_path: Path) -> None:
    colour = np.zeros((20, 30, 3), np.uint8)
    colour[..., 1] = 255
    pixels = read_radiograph(write_image(tmp_path / "a.png", colour))
    np.testing.assert_allclose(pixels, 0.587, atol=0.005)


def test_what_is_transparent_is_black_whatever_lies_beneath(tmp_path: Path) -> None:
    image = np.full((20, 30, 4), 255, np.uint8)
    image[:10, :, 3] = 0
    image[10:, :15, 3] = 51
    pixels = read_radiograph(write_image(tmp_path / "a.png", image))
    assert (pixels[:10] == 0).all()
    np.testing.assert_allclose(pixels[10:, :15], 0.2, atol=1e-6)
    np.testing.assert_allclose(pixels[10:, 15:], 1, atol=1e-6)


def test_a_transparent_colour_of_a_palette_is_black(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat(np.uint8([[0], [1]]), 15, axis=1).repeat(10, axis=0))
    image = image.convert("P")
    image.putpalette([200, 200, 200, 100, 100, 100])
    image.save(tmp_path / "a.png", transparency=0)
    pixels = read_radiograph(tmp_path / "a.png")
    assert (pixels[:10] == 0).all()
    np.testing.assert_allclose(pixels[10:], 100 / 255, atol=1e-6)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_an_image_that_lies_on_its_side_is_stood_up(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    bright_left = np.full((16, 32), 40, np.uint8)
    bright_left[:, :16] = 200
    write_image(tmp_path / name, bright_left, exif=exif)
    pixels = read_radiograph(tmp_path / name)
    assert pixels.shape == (32, 16)
    assert pixels[:14].mean() > 0.7 > 0.2 > pixels[18:].mean()


def test_the_first_of_several_pages_is_read(tmp_path: Path) -> None:
    pages = [Image.fromarray(page) for page in (GREY, 255 - GREY)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.tif"), GREY / np.float32(255))


def test_the_suffix_does_not_matter_to_the_decoder(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.jpg"), GREY / np.float32(255))


# ---------------------------------------------------------------------------- what is refused


def test_a_missing_image(tmp_path: Path) -> None:
    assert "no such image" in refusal(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    assert "no such image" in refusal(tmp_path / "link.png")


def test_a_folder(tmp_path: Path) -> None:
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(99)]
)
def test_no_image_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert "PNG, JPEG, TIFF or DICOM" in refusal(tmp_path / "a.png")


def test_formats_that_would_be_run_or_are_not_promised(tmp_path: Path) -> None:
    for name in ("GIF", "BMP", "EPS"):
        Image.fromarray(GREY).save(tmp_path / "a.png", format=name)
        assert "not an image in PNG, JPEG, TIFF or DICOM" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_image(tmp_path: Path, name: str, share: float) -> None:
    whole = write_image(tmp_path / f"whole-{name}", noise(1, 200, 200)).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    assert "export it again" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "deep.png"])
@given(data=st.data())
def test_a_damaged_image_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    stream = io.BytesIO()
    format = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF"}[name[-4:]]
    Image.fromarray(DEEP if name.startswith("deep") else GREY).save(stream, format=format)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of what can go wrong is said in the first bytes.
        place = data.draw(st.integers(0, 120) | st.integers(0, len(content) - 1))
        content[place % len(content)] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        pixels = read_radiograph(path)
    except UserError:
        return
    assert pixels.dtype == np.float32
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@pytest.mark.parametrize("side", [10_000, 20_000, 100_000, 2**31 - 1])
def test_a_decompression_bomb(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    assert "export it again" in refusal(tmp_path / "a.png")


def test_the_limit_of_other_users_of_pillow_is_left_alone() -> None:
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


@pytest.mark.parametrize("shape", [(7, 100), (100, 7), (1, 1)])
def test_too_small_an_image(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = write_image(tmp_path / "a.png", np.zeros(shape, np.uint8))
    assert f"{shape[1]}x{shape[0]} pixels are too few" in refusal(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.001, 1.001, 255.0])
def test_floats_beyond_their_scale(tmp_path: Path, value: float) -> None:
    values = np.full((20, 30), 0.5, "<f4")
    values[3, 4] = value
    path = write_tiff(tmp_path / "a.tif", values)
    assert "export it with 8 or 16 bits" in refusal(path)


@pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1])
def test_integers_beyond_sixteen_bits(tmp_path: Path, value: int) -> None:
    values = np.full((20, 30), 100, "<i4")
    values[3, 4] = value
    path = write_tiff(tmp_path / "a.tif", values)
    assert "export it with 8 or 16 bits" in refusal(path)


# ----------------------------------------------------------------------------------- contrast

HOWS = ("none", "percentile", "local")
EVEN = ("percentile", "local")
IMAGES = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, min_side=8, max_side=24),
    elements=st.floats(0, 1, width=32),
)  # fmt: skip


def film(height: int = 90, width: int = 70) -> np.ndarray:
    """A smooth picture with a bright bar, in [0, 1]."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    picture = 0.3 + 0.2 * np.sin(9 * x) * np.cos(7 * y) + 0.3 * (np.abs(x - 0.3) < 0.05)
    return picture.astype(np.float32)


@pytest.mark.parametrize("how", HOWS)
@given(image=IMAGES)
def test_contrast_keeps_shape_type_and_range(how: str, image: np.ndarray) -> None:
    before = image.copy()
    even = even_contrast(image, how)
    assert even.shape == image.shape
    assert even.dtype == np.float32
    assert np.isfinite(even).all()
    assert even.min() >= 0
    assert even.max() <= 1
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("value", [0, 0.1, 0.7, 1, 1e-30])
@pytest.mark.parametrize("shape", [(8, 8), (450, 300)])
def test_a_constant_image_stays_constant(how: str, value: float, shape: tuple[int, int]) -> None:
    even = even_contrast(np.full(shape, value, np.float32), how)
    assert np.isfinite(even).all()
    assert np.ptp(even) == 0


@pytest.mark.parametrize("how", EVEN)
@pytest.mark.parametrize("gain", [0.5, 0.1, 255 / 65535])
@pytest.mark.parametrize("offset", [0, 0.2])
@pytest.mark.parametrize("size", [(90, 70), (450, 380)])
def test_contrast_does_not_depend_on_gain_and_offset(
    how: str, gain: float, offset: float, size: tuple[int, int]
) -> None:
    image = film(*size)
    dim = (image * np.float32(gain) + np.float32(offset)).astype(np.float32)
    # A dim image on a bright ground has few float32 values to tell it by.
    tolerance = 1e-6 / gain
    np.testing.assert_allclose(
        even_contrast(dim, how), even_contrast(image, how), atol=max(tolerance, 1e-5)
    )


def test_percentiles_become_black_and_white() -> None:
    image = np.linspace(0.2, 0.6, 10_000, dtype=np.float32).reshape(100, 100)
    even = even_contrast(image, "percentile")
    assert (even == 0).mean() == pytest.approx(0.02, abs=0.001)
    assert (even == 1).mean() == pytest.approx(0.02, abs=0.001)
    np.testing.assert_allclose(np.median(even), 0.5, atol=1e-3)


@pytest.mark.parametrize("how", EVEN)
def test_a_small_bright_part_of_a_black_image_is_not_lost(how: str) -> None:
    image = np.zeros((100, 100), np.float32)
    image[10:14, 20:24] = 0.01
    even = even_contrast(image, how)
    assert np.isfinite(even).all()
    assert even[10:14, 20:24].min() > even[50:, 50:].max() + 0.3


def test_none_only_clips() -> None:
    image = np.float32([[-1, 0.25], [0.5, 2]])
    np.testing.assert_array_equal(even_contrast(image, "none"), [[0, 0.25], [0.5, 1]])


def test_local_contrast_lifts_dim_parts_to_bright_ones() -> None:
    stripes = np.where(np.arange(200) // 4 % 2, 0.1, -0.1).astype(np.float32)
    image = np.tile(stripes, (200, 1))
    image[:100] *= 0.1  # an underexposed half, and its own brightness
    image += np.where(np.arange(200) < 100, 0.05, 0.7)[:, None].astype(np.float32)
    even = even_contrast(image, "local")
    dim, bright = np.ptp(even[:20]), np.ptp(even[-20:])
    assert dim > 1.5 * 0.1 * bright
    assert abs(even[:20].mean() - even[-20:].mean()) < 0.01


@pytest.mark.parametrize("how", EVEN)
@pytest.mark.parametrize("size", [(80, 60), (400, 300), (1000, 800)])
@pytest.mark.parametrize("axis", [0, 1])
def test_contrast_of_a_mirrored_image_is_mirrored(
    how: str, size: tuple[int, int], axis: int
) -> None:
    image = film(*size)
    mirrored = np.flip(even_contrast(np.flip(image, axis), how), axis)
    np.testing.assert_allclose(mirrored, even_contrast(image, how), atol=0.01)


def test_local_contrast_is_alike_at_every_size() -> None:
    small, large = film(200, 150), film(1000, 750)
    shrunk = even_contrast(large, "local").reshape(200, 5, 150, 5).mean(axis=(1, 3))
    assert np.abs(shrunk - even_contrast(small, "local")).mean() < 0.02


def test_an_unknown_way_is_an_error() -> None:
    with pytest.raises(ValueError, match="how: expected 'none', 'percentile' or 'local'"):
        even_contrast(film(), "loud")
