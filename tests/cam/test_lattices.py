from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from ldlcam.cam.lattices import patch_starts, pixel_lattice, sample_pixels, surface_lattice
from tests.cam.maps import lengths, random_maps, seeds, sides


@given(lengths, sides)
def test_patches_share_out_the_pixels(length: int, samples: int) -> None:
    starts = patch_starts(torch.tensor([[length]]), samples)[0].tolist()
    assert len(starts) == samples + 2
    assert starts[0] == 0
    assert starts[-1] == length
    for patch in range(samples + 1):
        for pixel in range(starts[patch], starts[patch + 1]):
            place = Fraction(2 * pixel + 1, 2) * samples / length - Fraction(1, 2)
            assert patch == 0 or place >= patch - 1
            assert patch == samples or place < patch


@given(sides, sides, lengths, lengths, seeds)
def test_pixels_are_those_of_interpolate(
    height: int, width: int, rows: int, columns: int, seed: int
) -> None:
    maps = random_maps("rough", 2, height, width, seed).double()
    expected = F.interpolate(maps[:, None], size=(rows, columns), mode="bilinear")[:, 0]
    sizes = torch.tensor([[rows, columns]]).expand(2, 2)
    every_row = torch.arange(rows).expand(2, -1)
    every_column = torch.arange(columns).expand(2, -1)
    torch.testing.assert_close(sample_pixels(maps, sizes, every_row, every_column), expected)
    lattice = pixel_lattice(maps, sizes)
    assert lattice.values.shape == (2, 2 * (height + 1), 2 * (width + 1))
    for values, full, down, across in zip(
        lattice.values, expected, lattice.rows, lattice.columns, strict=True
    ):
        torch.testing.assert_close(values, full[down][:, across])
        assert (down.diff() >= 0).all()
        assert (across.diff() >= 0).all()


def test_pixels_on_samples_have_their_very_values() -> None:
    maps = random_maps("rough", 1, 7, 7, 0)
    sizes = torch.tensor([[7 * 15, 7 * 9]])
    rows, columns = 15 * torch.arange(7) + 7, 9 * torch.arange(7) + 4
    sampled = sample_pixels(maps, sizes, rows.unsqueeze(0), columns.unsqueeze(0))
    assert torch.equal(sampled, maps)


def test_plateaus_stay_level() -> None:
    maps = torch.full((1, 4, 4), 0.3)
    sizes = torch.tensor([[37, 41]])
    rows, columns = torch.arange(37).unsqueeze(0), torch.arange(41).unsqueeze(0)
    assert (sample_pixels(maps, sizes, rows, columns) == maps[0, 0, 0]).all()


@pytest.mark.parametrize("size", [(2, 3), (1, 1), (5, 4)])
def test_surface_reaches_the_borders(size: tuple[int, int]) -> None:
    maps = random_maps("rough", 1, *size, 0)
    lattice = surface_lattice(maps, torch.tensor([[40.0, 60.0]]))
    assert lattice.values.shape == (1, size[0] + 2, size[1] + 2)
    assert torch.equal(lattice.values[:, 1:-1, 1:-1], maps)
    assert torch.equal(lattice.values[:, 0, 1:-1], maps[:, 0])
    assert lattice.rows[0, 0] == 0
    assert lattice.rows[0, -1] == 40
    assert lattice.columns[0, -1] == 60
    step = 60 / size[1]
    assert lattice.columns[0, 1] == pytest.approx(step / 2)
    assert lattice.columns[0, 1:-1].diff().tolist() == pytest.approx([step] * (size[1] - 1))
