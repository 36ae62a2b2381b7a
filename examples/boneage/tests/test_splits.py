from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneage.config import Split
from boneage.data.splits import (
    BOXES_CHOOSE,
    BOXES_SCORE,
    TEST,
    TRAIN,
    VALIDATION,
    split_ids,
    write_split,
)
from boneage.errors import UserError

IDS = [str(i) for i in range(1000, 1200)]
FREE = {TRAIN, VALIDATION, TEST}


@given(
    ids=st.sets(st.integers(0, 10**6).map(str) | st.text("ab1", min_size=1), min_size=30),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_a_split_depends_on_the_set_of_ids_and_the_seed(
    ids: set[str], seed: int, data: st.DataObject
) -> None:
    boxed = {"Hand": data.draw(st.sets(st.sampled_from(sorted(ids)), max_size=8))}
    config = Split(validation=0.2, test=0.2, seed=seed)
    order = data.draw(st.permutations(sorted(ids)))
    first = split_ids(sorted(ids), boxed, config)
    second = split_ids(iter(order + order[:3]), {"Hand": list(boxed["Hand"])[::-1]}, config)
    assert first == second
    assert list(first) == list(second)
    assert set(first) == ids


@given(
    boxed=st.dictionaries(
        st.sampled_from(["Hand", "Wrist", "Metacarpal"]), st.sets(st.sampled_from(IDS), max_size=60)
    ),
    seed=st.integers(0, 1000),
)
def test_boxed_ids_never_train_and_are_halved(boxed: dict[str, set[str]], seed: int) -> None:
    parts = split_ids(IDS, boxed, Split(seed=seed))
    annotated = set().union(*boxed.values())
    assert {id for id, part in parts.items() if part not in FREE} == annotated
    halves = Counter(parts[id] for id in annotated)
    assert 0 <= halves[BOXES_CHOOSE] - halves[BOXES_SCORE] <= 1
    groups = {frozenset(name for name, ids in boxed.items() if id in ids) for id in annotated}
    for regions in groups:
        own = [id for id in annotated if {n for n, ids in boxed.items() if id in ids} == regions]
        counts = Counter(parts[id] for id in own)
        assert abs(counts[BOXES_CHOOSE] - counts[BOXES_SCORE]) <= 1


def test_ids_with_a_box_each_of_another_region_are_halved_too() -> None:
    boxed = {f"region {i}": {IDS[i]} for i in range(10)}
    counts = Counter(split_ids(IDS, boxed, Split()).values())
    assert counts[BOXES_CHOOSE] == counts[BOXES_SCORE] == 5


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.15), (0.25, 0.5), (0.01, 0.97)])
def test_shares_are_of_the_ids_without_boxes(validation: float, test: float) -> None:
    boxed = {"Hand": set(IDS[:100])}
    counts = Counter(split_ids(IDS, boxed, Split(validation=validation, test=test)).values())
    assert counts[VALIDATION] == round(100 * validation)
    assert counts[TEST] == round(100 * test)
    assert counts[TRAIN] == 100 - counts[VALIDATION] - counts[TEST]


def test_another_seed_is_another_split() -> None:
    boxed = {"Hand": set(IDS[:50])}
    first, second = (split_ids(IDS, boxed, Split(seed=seed)) for seed in (0, 1))
    assert first != second
    for part in (TEST, BOXES_SCORE):
        assert {id for id in IDS if first[id] == part} != {id for id in IDS if second[id] == part}


@given(data=st.data(), seed=st.integers(0, 1000))
def test_a_patient_is_in_one_part(data: st.DataObject, seed: int) -> None:
    patients = dict.fromkeys(IDS, "") | {
        id: data.draw(st.sampled_from([f"p{i % 60}", f"q{i}"])) for i, id in enumerate(IDS)
    }
    boxed = {"Hand": data.draw(st.sets(st.sampled_from(IDS), max_size=20))}
    parts = split_ids(IDS, boxed, Split(validation=0.2, test=0.2, seed=seed), patients=patients)
    assert list(parts) == IDS
    for patient in set(patients.values()):
        own = [id for id in IDS if patients[id] == patient]
        assert len({parts[id] for id in own}) == 1
        assert (parts[own[0]] in FREE) == boxed["Hand"].isdisjoint(own)


def test_patients_that_are_shown_once_change_nothing() -> None:
    boxed = {"Hand": set(IDS[::7])}
    alone = {id: f"patient {id}" for id in IDS}
    assert split_ids(IDS, boxed, Split(), patients=alone) == split_ids(IDS, boxed, Split())


def test_shares_are_of_patients() -> None:
    patients = {id: str(i // 4) for i, id in enumerate(IDS)}
    parts = split_ids(IDS, {}, Split(validation=0.1, test=0.2), patients=patients)
    assert Counter(parts.values()) == {TRAIN: 140, VALIDATION: 20, TEST: 40}


def test_a_split_of_ones_own() -> None:
    given = {id: (TEST, VALIDATION, TRAIN, TRAIN)[i % 4] for i, id in enumerate(IDS)}
    boxed = {"Hand": set(IDS[:10])}
    parts = split_ids(IDS, boxed, Split(seed=3), given=given)
    assert {id: parts[id] for id in IDS[10:]} == {id: given[id] for id in IDS[10:]}
    assert Counter(parts[id] for id in IDS[:10]) == {BOXES_CHOOSE: 5, BOXES_SCORE: 5}
    with pytest.raises(UserError, match="test 0; add images or change their parts"):
        split_ids(IDS, {}, Split(), given=dict.fromkeys(IDS, TRAIN) | {IDS[0]: VALIDATION})


def test_one_patient_to_test_tells_nothing_of_others() -> None:
    patients = {str(i): f"p{i // 4}" for i in range(16)}
    config = Split(validation=0.25, test=0.25)
    with pytest.raises(UserError, match="4 images to test show one patient, which tells nothing"):
        split_ids(patients, {}, config, patients=patients)
    split_ids(patients, {}, Split(validation=0.25, test=0.5), patients=patients)
    given = {str(i): ("train", "train", "validation", "test")[i // 4] for i in range(16)}
    split_ids(patients, {}, config, given=given)
    with pytest.raises(UserError, match="add images of others or change their parts"):
        split_ids(patients, {}, config, patients=patients, given=given)


def test_a_patient_whom_a_split_divides() -> None:
    given = dict.fromkeys(IDS, TRAIN) | {IDS[3]: TEST, IDS[9]: VALIDATION}
    patients = {id: id for id in IDS} | {IDS[3]: IDS[0]}
    message = "patient 1000: id 1000 is in train and id 1003 in test; put all radiographs"
    with pytest.raises(UserError, match=message):
        split_ids(IDS, {}, Split(), patients=patients, given=given)


def test_every_part_mixes_low_and_high_ids() -> None:
    parts = split_ids(IDS, {}, Split(validation=0.3, test=0.3))
    for part in FREE:
        own = [int(id) for id in IDS if parts[id] == part]
        assert 1070 < sum(own) / len(own) < 1130


def test_the_split_is_what_it_was() -> None:
    # A change here makes earlier figures incomparable with later ones.
    ids = [str(i) for i in range(20)]
    parts = split_ids(ids, {"Hand": {"3", "9", "12"}}, Split(validation=0.2, test=0.2))
    assert [id for id in ids if parts[id] == VALIDATION] == ["2", "4", "13"]
    assert [id for id in ids if parts[id] == TEST] == ["0", "5", "14"]
    assert [id for id in ids if parts[id] == BOXES_CHOOSE] == ["3", "9"]
    assert [id for id in ids if parts[id] == BOXES_SCORE] == ["12"]


def test_boxes_of_unknown_ids_are_passed_by() -> None:
    assert set(split_ids(IDS, {"Hand": {"1", "nobody"}}, Split())) == set(IDS)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_too_few_images_say_how_many_there_are(count: int) -> None:
    with pytest.raises(UserError, match=f"^{count} images, {count} of them without boxes") as info:
        split_ids(IDS[:count], {}, Split(validation=0.1, test=0.1))
    assert "validation 0" in str(info.value)
    assert "change split.validation and split.test" in str(info.value)


def test_boxes_on_every_image_leave_none_to_train_on() -> None:
    with pytest.raises(UserError, match=r"200 images, 0 of them without boxes.*train 0"):
        split_ids(IDS, {"Hand": IDS}, Split())


def test_a_single_image_cannot_train() -> None:
    with pytest.raises(UserError, match="train 1, validation 2, test 1"):
        split_ids(IDS[:4], {}, Split(validation=0.5, test=0.3))


def test_the_file_has_a_row_an_id_in_order(tmp_path: Path) -> None:
    ids = ["10", "9", "b,c", "a"]
    write_split(
        tmp_path / "split.csv", dict(zip(ids, [TRAIN, TEST, TRAIN, VALIDATION], strict=True))
    )
    assert (tmp_path / "split.csv").read_bytes().startswith(b"id,part\n10,train\n9,test\n")
    with open(tmp_path / "split.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ids


def test_a_full_disk_leaves_no_split(tmp_path: Path, full_disk: Callable[[Path], None]) -> None:
    full_disk(tmp_path / "split.csv")
    with pytest.raises(UserError, match=r"split\.csv: cannot be written .*free some space"):
        write_split(tmp_path / "split.csv", {"1": TRAIN})
    assert not (tmp_path / "split.csv").exists()
