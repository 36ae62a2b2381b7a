from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import left_in

from boneage.data.samples import Samples, truth_arrays
from boneage.errors import UserError

NONE = (np.nan,) * 4


@pytest.fixture
def samples() -> Samples:
    return Samples(
        ids=("9", "10", 'odd, "id"', "11"),
        parts=np.array(["train", "boxes-score", "boxes-choose", "boxes-score"]),
        patients=np.array([0, 1, 2, 1]),
        months=np.array([94.1, 1, 240, 1 / 3], dtype=np.float32),
        male=np.array([True, False, False, True]),
        shapes=np.array([[100, 90], [2000, 1500], [8, 8], [64, 65]]),
        paths=(Path("/a/9.png"), Path("/a,b/10.png"), Path("/ü/c.png"), Path("/line\nbreak.png")),
        truth={
            "Hand": np.array([NONE, (1.25, 2, 3, 1 / 3), NONE, (5, 6, 7, 8)]),
            "Wrist": np.array([NONE, NONE, (0, 0, 4, 4), NONE]),
        },
        covariates=np.array([[1.5], [np.nan], [-3], [0]], dtype=np.float32),
    )


def assert_same(first: Samples, second: Samples) -> None:
    for field in dataclasses.fields(Samples):
        one, two = getattr(first, field.name), getattr(second, field.name)
        if field.name == "truth":
            assert set(one) == set(two)
            for name in one:
                np.testing.assert_array_equal(one[name], two[name])
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two)
            assert one.dtype.kind == two.dtype.kind
        else:
            assert one == two


def test_what_is_saved_is_loaded(tmp_path: Path, samples: Samples) -> None:
    samples.save(tmp_path)
    assert left_in(tmp_path) == ["covariates.npy", "samples.csv", "truth.npz"]
    loaded = Samples.load(tmp_path)
    assert_same(loaded, samples)
    assert loaded.months.dtype == np.float32
    assert loaded.male.dtype == bool
    assert len(loaded) == 4


def test_the_table_can_be_read_by_others(tmp_path: Path, samples: Samples) -> None:
    samples.save(tmp_path)
    lines = (tmp_path / "samples.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id,part,patient,months,male,height,width,path"
    assert lines[2] == '10,boxes-score,1,1.0,False,2000,1500,"/a,b/10.png"'


def test_a_data_set_without_boxes_or_rows(tmp_path: Path, samples: Samples) -> None:
    without = dataclasses.replace(samples, truth={})
    without.save(tmp_path)
    assert_same(Samples.load(tmp_path), without)
    rows = slice(0, 0)
    names = ("parts", "patients", "months", "male", "shapes")
    arrays = (getattr(samples, name)[rows] for name in names)
    empty = Samples((), *arrays, (), {}, samples.covariates[rows])
    empty.save(tmp_path)
    assert_same(Samples.load(tmp_path), empty)


def test_a_file_name_that_is_no_text(tmp_path: Path, samples: Samples) -> None:
    path = Path(os.fsdecode(b"/a/\xff.png"))
    odd = dataclasses.replace(samples, paths=(path, *samples.paths[1:]))
    odd.save(tmp_path)
    assert os.fsencode(Samples.load(tmp_path).paths[0]) == b"/a/\xff.png"


def test_rows_of_parts_and_boxes(samples: Samples) -> None:
    assert samples.rows("train").tolist() == [0]
    assert samples.rows("boxes-score").tolist() == [1, 3]
    assert samples.rows("nothing").tolist() == []
    assert samples.boxed_rows("Hand", "boxes-score").tolist() == [1, 3]
    assert samples.boxed_rows("Wrist", "boxes-score").tolist() == []
    assert samples.boxed_rows("Wrist", "boxes-choose").tolist() == [2]
    for rows in (samples.rows("nothing"), samples.boxed_rows("Foot", "train")):
        # They are used as indices, and an empty array of floats is none.
        assert samples.months[rows].shape == (0,)


@pytest.mark.parametrize("name", ["samples.csv", "truth.npz", "covariates.npy"])
def test_a_missing_file_is_named(tmp_path: Path, samples: Samples, name: str) -> None:
    samples.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name}: not there; prepare the data set first"):
        Samples.load(tmp_path)


@pytest.mark.parametrize("name", ["samples.csv", "truth.npz", "covariates.npy"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"id,part\n1,train\n", b"\x00\xff"])
def test_a_broken_file_is_one_message(
    tmp_path: Path, samples: Samples, name: str, content: bytes
) -> None:
    samples.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read .*delete that folder and run again"):
        Samples.load(tmp_path)


def test_a_table_that_lost_rows_is_noticed(tmp_path: Path, samples: Samples) -> None:
    samples.save(tmp_path)
    lines = (tmp_path / "samples.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "samples.csv").write_text("".join(lines[:3]), encoding="utf-8")
    with pytest.raises(UserError, match="do not fit together"):
        Samples.load(tmp_path)


def test_every_truncation_is_one_message_or_whole(tmp_path: Path, samples: Samples) -> None:
    samples.save(tmp_path)
    whole = (tmp_path / "truth.npz").read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "truth.npz").write_bytes(whole[:length])
        with pytest.raises(UserError, match="cannot be read"):
            Samples.load(tmp_path)


@pytest.mark.parametrize("name", ["samples.csv", "truth.npz", "covariates.npy"])
def test_a_full_disk_keeps_the_old_files(
    tmp_path: Path, samples: Samples, full_disk: Callable[[Path], None], name: str
) -> None:
    samples.save(tmp_path)
    before = (tmp_path / name).read_bytes()
    full_disk(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: cannot be written .*free some space"):
        dataclasses.replace(samples, months=samples.months + 1).save(tmp_path)
    assert (tmp_path / name).read_bytes() == before
    assert left_in(tmp_path) == ["covariates.npy", "samples.csv", "truth.npz"]


def test_boxes_become_arrays_in_the_order_of_the_ids() -> None:
    box = np.array([1.0, 2, 3, 4])
    arrays = truth_arrays(("b", "a", "c"), {"Hand": {"a": box}, "DIP": {"c": box}})
    assert set(arrays) == {"Hand"}
    np.testing.assert_array_equal(arrays["Hand"], [NONE, box, NONE])
    assert arrays["Hand"].dtype == np.float64


def test_boxes_of_further_ids_are_passed_by() -> None:
    box = np.array([1.0, 2, 3, 4])
    arrays = truth_arrays(("a",), {"Hand": {"a": box, "z": box}, "Wrist": {"z": box}})
    np.testing.assert_array_equal(arrays["Hand"], [box])
    np.testing.assert_array_equal(arrays["Wrist"], [NONE])


def test_no_boxes_at_all() -> None:
    assert truth_arrays(("a",), {}) == {}


def test_boxes_of_none_of_the_ids_are_a_mistake() -> None:
    with pytest.raises(UserError, match=r"none of its ids \(1377\.png, \.\.\.\).*\(1377, \.\.\.\)"):
        truth_arrays(("1377", "1378"), {"Hand": {"1377.png": np.ones(4)}})


def test_boxes_of_unknown_regions_only_are_a_mistake() -> None:
    with pytest.raises(UserError, match=r"regions \(carpals, hand\) is one .*Hand.*Wrist"):
        truth_arrays(("1",), {"hand": {"1": np.ones(4)}, "carpals": {"1": np.ones(4)}})
