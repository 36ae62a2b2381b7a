from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneage.data.boxes import hull, read_boxes, without_thumb
from boneage.errors import UserError

HEADER = "id,reader,region,x1,y1,x2,y2"

# Centres of the knuckles 1-5 of a median hand: x towards the thumb, y towards the fingers.
KNUCKLES = np.array([(0.80, 0.49), (0.47, 1.02), (0.13, 1.07), (-0.16, 1.01), (-0.44, 0.90)])


def write(folder: Path, *rows: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    path = folder / "boxes.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


def squares(centers: np.ndarray, half: float = 4) -> list[np.ndarray]:
    return [np.array([x - half, y - half, x + half, y + half]) for x, y in centers]


def rows_of(id: str, reader: str, region: str, boxes: Sequence[np.ndarray]) -> list[str]:
    return [f"{id},{reader},{region}," + ",".join(map(str, box)) for box in boxes]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_boxes_by_region_and_id(tmp_path: Path, encoding: str) -> None:
    path = write(
        tmp_path, "7,a,Hand,1,2,3,4", "8, a ,Hand,1.5,2,30,40", "8,a,Wrist,5,6,7,8",
        encoding=encoding,
    )  # fmt: skip
    boxes = read_boxes(path)
    assert set(boxes) == {"Hand", "Wrist"}
    assert set(boxes["Hand"]) == {"7", "8"}
    np.testing.assert_array_equal(boxes["Hand"]["8"], [1.5, 2, 30, 40])
    np.testing.assert_array_equal(boxes["Wrist"]["8"], [5, 6, 7, 8])


def test_columns_in_another_order_and_more_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, "Hand,4,3,2,1,note,7,a", header="region,y2,x2,y1,x1,remark,id,reader")
    np.testing.assert_array_equal(read_boxes(path)["Hand"]["7"], [1, 2, 3, 4])


def test_several_boxes_of_one_reader_become_their_hull(tmp_path: Path) -> None:
    path = write(tmp_path, "7,a,PIP,10,20,30,40", "7,a,PIP,5,25,20,60")
    np.testing.assert_array_equal(read_boxes(path)["PIP"]["7"], [5, 20, 30, 60])


def test_readers_are_not_mixed_and_the_first_named_wins(tmp_path: Path) -> None:
    path = write(
        tmp_path, "7,novice,Wrist,0,0,9,9", "7,expert,Wrist,2,2,5,5", "8,novice,Wrist,1,1,4,4"
    )
    named = read_boxes(path, readers=("expert", "novice"))["Wrist"]
    np.testing.assert_array_equal(named["7"], [2, 2, 5, 5])
    np.testing.assert_array_equal(named["8"], [1, 1, 4, 4])
    other = read_boxes(path, readers=("novice", "expert"))["Wrist"]
    np.testing.assert_array_equal(other["7"], [0, 0, 9, 9])


def test_without_names_the_choice_does_not_follow_the_order_of_rows(tmp_path: Path) -> None:
    rows = ["7,b,Wrist,0,0,9,9", "7,a,Wrist,2,2,5,5"]
    forth = read_boxes(write(tmp_path, *rows))["Wrist"]["7"]
    back = read_boxes(write(tmp_path, *rows[::-1]))["Wrist"]["7"]
    np.testing.assert_array_equal(forth, back)


def test_the_metacarpal_region_is_the_hull_of_the_knuckles_without_the_thumb(
    tmp_path: Path,
) -> None:
    knuckles = squares(np.column_stack([100 + 60 * KNUCKLES[:, 0], 200 - 60 * KNUCKLES[:, 1]]))
    path = write(tmp_path, *rows_of("7", "a", "MCP", knuckles))
    np.testing.assert_array_equal(read_boxes(path)["Metacarpal"]["7"], hull(knuckles[1:]))


def test_a_given_metacarpal_region_stays(tmp_path: Path) -> None:
    knuckles = squares(KNUCKLES * 50 + 100)
    path = write(tmp_path, *rows_of("7", "a", "MCP", knuckles), "7,a,Metacarpal,1,2,3,4")
    np.testing.assert_array_equal(read_boxes(path)["Metacarpal"]["7"], [1, 2, 3, 4])


def test_each_reader_loses_their_own_thumb(tmp_path: Path) -> None:
    first, second = squares(KNUCKLES * 50 + 100), squares(KNUCKLES * 50 + 103)
    rows = rows_of("7", "b", "MCP", second) + rows_of("7", "a", "MCP", first)
    path = write(tmp_path, *rows)
    np.testing.assert_array_equal(read_boxes(path)["Metacarpal"]["7"], hull(first[1:]))


@given(
    angle=st.floats(0, 360),
    mirrored=st.booleans(),
    order=st.permutations(range(5)),
    jitter=st.lists(st.floats(-0.02, 0.02), min_size=10, max_size=10),
)
def test_the_thumb_is_found_whichever_way_the_hand_lies(
    angle: float, mirrored: bool, order: list[int], jitter: list[float]
) -> None:
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = KNUCKLES + np.reshape(jitter, (5, 2))
    centers = points * (-1 if mirrored else 1, 1) @ rotation.T * 60 + 200
    boxes = squares(centers)
    left = without_thumb([boxes[i] for i in order])
    expected = [boxes[i] for i in order if i != 0]
    assert len(left) == 4
    np.testing.assert_array_equal(left, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_other_numbers_of_knuckles_are_kept(count: int) -> None:
    boxes = squares(np.arange(2.0 * count).reshape(count, 2))
    np.testing.assert_array_equal(without_thumb(boxes), boxes)


def test_five_knuckles_in_one_place_are_no_error() -> None:
    assert len(without_thumb(squares(np.zeros((5, 2))))) == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("7,a,Hand,1,2,three,4", "expected numbers x1, y1, x2, y2, got"),
        ("7,a,Hand,1,2,,4", "expected numbers"),
        ("7,a,Hand,1,2,3", "expected numbers"),
        ("7,a,Hand,3,2,1,4", "expected x1 < x2 and y1 < y2"),
        ("7,a,Hand,1,2,1,4", "expected x1 < x2 and y1 < y2"),
        ("7,a,Hand,1,2,nan,4", "expected x1 < x2 and y1 < y2"),
        ("7,a,Hand,1,2,inf,4", "expected x1 < x2 and y1 < y2"),
        (",a,Hand,1,2,3,4", "the id or the region is empty"),
        ("7,a,,1,2,3,4", "the id or the region is empty"),
        ("7,a,Hand,1,2,3,4,5", "8 cells under 7 columns"),
    ],
)
def test_a_row_that_is_no_box_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, "6,a,Hand,1,2,3,4", "", row)
    with pytest.raises(UserError, match=r"boxes\.csv, row 4: ") as info:
        read_boxes(path)
    assert message in str(info.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,reader,region,x1,y1,x2", "no column y2; expected the header id,reader,region,x1"),
        ("id,region,x,y,w,h", "no column reader, x1, y1, x2, y2"),
        (HEADER.replace(",", "|"), "no column id, reader, region, x1, y1, x2, y2"),
        ("", "no column id"),
    ],
)
def test_a_table_without_its_columns_says_which(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(UserError) as info:
        read_boxes(write(tmp_path, header=header))
    assert str(tmp_path / "boxes.csv") in str(info.value)
    assert message in str(info.value)


def test_an_unreadable_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"boxes\.csv: not readable"):
        read_boxes(tmp_path / "boxes.csv")
    (tmp_path / "boxes.csv").mkdir()
    with pytest.raises(UserError, match=r"boxes\.csv: not readable"):
        read_boxes(tmp_path / "boxes.csv")


def test_no_rows_are_no_boxes(tmp_path: Path) -> None:
    assert read_boxes(write(tmp_path)) == {}


RSNA = Path(os.environ.get("BONEAGE_RSNA100", "nowhere"))


@pytest.mark.skipif(
    not (RSNA / "boxes.csv").exists(), reason="BONEAGE_RSNA100 names no folder of RSNA's images"
)
def test_boxes_of_rsna() -> None:
    boxes = read_boxes(RSNA / "boxes.csv", readers=("eval_expert",))
    with open(RSNA / "boxes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for region in ("Hand", "Wrist", "MCP"):
        assert set(boxes[region]) == {row["id"] for row in rows if row["region"] == region}
    assert set(boxes["Metacarpal"]) == set(boxes["MCP"])
    # This hand lies on its side, so the thumb's knuckle is the highest.
    assert boxes["Metacarpal"]["4249"][1] > boxes["MCP"]["4249"][1]
