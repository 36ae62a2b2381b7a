from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest
from conftest import HEADER, IMAGES, TABLE, write_images
from hypothesis import given
from hypothesis import strategies as st

from boneage.config import Table
from boneage.data.tables import find_images, find_table, id_order, parse_sex, read_table
from boneage.errors import UserError

MakeData = Callable[..., Path]


def read(folder: Path) -> list[tuple[str, float, bool]]:
    return [(one.id, one.months, one.male) for one in read_table(folder, first=1, last=240)]


def read_as(folder: Path, **own: object) -> list[float]:
    table = Table.model_validate(own)
    return [one.months for one in read_table(folder, first=1, last=240, table=table)]


def refusal(folder: Path, **table: object) -> str:
    with pytest.raises(UserError) as info:
        read_as(folder, **table)
    return str(info.value)


# ---------------------------------------------------------------- what RSNA's tables look like


def test_training_layout(data_set: MakeData) -> None:
    folder = data_set("1378,12,False", "1377,180,True")
    assert read(folder) == [("1377", 180, True), ("1378", 12, False)]
    paths = [one.path for one in read_table(folder, first=1, last=240)]
    assert paths == [folder / IMAGES / "1377.png", folder / IMAGES / "1378.png"]


@pytest.mark.parametrize(
    ("header", "rows", "table"),
    [
        ("id,boneage,male", ("1377,180,False", "1378,12,True"), "train.csv"),
        ("Image ID,male,Bone Age (months)", ("1377,FALSE,180", "1378,TRUE,12"), "Validation.csv"),
        (
            "Case ID,Sex,Ground truth bone age (months)",
            ("1377,F,180.0", "1378,M,12.0"),
            "Bone age ground truth.csv",
        ),
        ("ID,BoneAge,Male", ("1377,180,0", "1378,12,1"), "Training.CSV"),
        ("ID,BoneAge,Male", ("1377,180,0.0", "1378,12,1.0"), "Training.csv"),
        (" id , bone_age ,\tmale", (" 1377 , 180 , False ", "1378,12,True"), "blanks.csv"),
        (
            "id,boneage,Unnamed: 3,sex",
            ("1377,180,,female", "1378,12,x,Male"),
            "more-columns.csv",
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_headers_of_all_sets(
    data_set: MakeData, header: str, rows: tuple[str, ...], table: str, encoding: str
) -> None:
    folder = data_set(*rows, header=header, table=table, names=("1377", "1378"), encoding=encoding)
    assert read(folder) == [("1377", 180, False), ("1378", 12, True)]


@pytest.mark.parametrize(
    "images",
    [
        "boneage-training-dataset/boneage-training-dataset",
        "Bone Age Validation Set/boneage-validation-dataset-1",
        "Bone Age Test Set/Test Set Images",
        ".",
    ],
)
def test_images_lie_anywhere_below(data_set: MakeData, images: str) -> None:
    folder = data_set("1377,180,False", images=images)
    assert read(folder) == [("1377", 180, False)]


def test_images_of_two_folders_are_one_set(data_set: MakeData) -> None:
    folder = data_set("1,10,True", images="boneage-validation-dataset-1", names=["1"])
    with open(folder / TABLE, "a") as table:
        table.write("2,20,False\n")
    write_images(folder / "boneage-validation-dataset-2", ["2"])
    assert [id for id, *_ in read(folder)] == ["1", "2"]


def test_a_linked_folder_of_images_is_followed_once(data_set: MakeData, tmp_path: Path) -> None:
    folder = data_set("1377,180,False", names=[])
    write_images(tmp_path / "large-disk", ["1377"])
    (tmp_path / "large-disk" / "round").symlink_to(tmp_path / "large-disk")
    (folder / IMAGES).symlink_to(tmp_path / "large-disk")
    assert read(folder) == [("1377", 180, False)]


def test_a_table_without_ages_beside_the_one_with_them_is_passed_by(data_set: MakeData) -> None:
    folder = data_set("1377,180,False")
    (folder / "boneage-test-dataset.csv").write_text("Case ID,Sex\n4360,M\n")
    (folder / "boxes.csv").write_text("id,reader,region,x1,y1,x2,y2\n1377,a,Hand,1,2,3,4\n")
    (folder / f"._{TABLE}").write_bytes(b"\x00\x05\x16\x07Mac OS X\xff")
    assert find_table(folder) == folder / TABLE
    assert read(folder) == [("1377", 180, False)]


def test_images_without_a_row_are_not_needed(data_set: MakeData) -> None:
    folder = data_set("1377,180,False", names=["1377", "4360"])
    assert [id for id, *_ in read(folder)] == ["1377"]


def test_lines_without_text_are_passed_by_but_counted(data_set: MakeData) -> None:
    folder = data_set("1377,180,False", "", " ,,", "1378,12,x", names=["1377", "1378"])
    assert "row 5: id 1378: the sex 'x'" in refusal(folder)


# ---------------------------------------------------------------- one's own tables


@pytest.mark.parametrize(
    ("unit", "ages", "months"),
    [
        ("days", ("7305", "365.25"), [240, 12]),
        ("weeks", ("1043.5", "104.3571428"), [239.983572, 24]),
        ("months", ("240", "12.3"), [240, 12.3]),
        ("years", ("20", "0,5"), [240, 6]),
    ],
)
def test_ages_in_any_unit_are_read_as_months(
    data_set: MakeData, unit: str, ages: tuple[str, str], months: list[float]
) -> None:
    rows = (f'1377,"{ages[0]}",True', f'1378,"{ages[1]}",False')
    assert read_as(data_set(*rows), unit=unit) == pytest.approx(months, rel=1e-8)


def test_columns_of_any_name(data_set: MakeData) -> None:
    header = "Bild;Alter;id;boneage;Geschlecht"
    folder = data_set("1377;15,5;a;;f", "1378;1;b;;M", header=header, names=["1377", "1378"])
    own = {"id": "Bild", "age": "Alter", "sex": "Geschlecht", "unit": "years"}
    table = Table.model_validate(own)
    found = read_table(folder, first=1, last=240, table=table)
    assert [(one.id, one.months, one.male) for one in found] == [
        ("1377", 186, False),
        ("1378", 12, True),
    ]
    assert find_table(folder, table) == folder / TABLE
    assert "no column for the age" in refusal(folder, **own | {"age": "Age"})
    assert "an Image, boneage (months) and male (or sex)" in refusal(folder, id="Image")
    with pytest.raises(ValueError, match="each is a column of its own, got x, x"):
        Table(id="x", age="x")


def test_messages_tell_months_and_the_unit(data_set: MakeData) -> None:
    folder = data_set("1377,21,True", "1378,old,True")
    assert "id 1377: the age 252 is outside of 1 to 240 months" in refusal(folder, unit="years")
    assert "'old' is not a number of years" in refusal(folder, unit="years")


def test_covariates_are_numbers_or_unknown(data_set: MakeData) -> None:
    header = "id,boneage,male,age,BMI"
    folder = data_set("1377,180,True,14.5,", '1378,12,False,1,"17,5"', header=header)
    table = Table(covariates=(" BMI", "age"))
    first, second = read_table(folder, first=1, last=240, table=table)
    assert math.isnan(first.covariates[0])
    assert (first.covariates[1], *second.covariates) == (14.5, 17.5, 1)
    assert "no column for the covariate bmi" in refusal(folder, covariates=("bmi",))
    for text in ("tall", "nan", "inf"):
        folder.joinpath(TABLE).write_text(f"{header}\n1377,180,True,{text},\n1378,12,False,1,\n")
        message = f"row 2: id 1377, age: '{text}' is not a number; leave it empty"
        assert message in refusal(folder, covariates=("age",))


@pytest.mark.parametrize(("column", "meaning"), [("boneage", "age"), ("male", "sex"), ("id", "id")])
def test_what_has_a_meaning_is_no_covariate(data_set: MakeData, column: str, meaning: str) -> None:
    folder = data_set("1377,180,True", "1378,12,False")
    message = f"the covariate {column} is the column of the {meaning}"
    assert message in refusal(folder, covariates=(column,))


def test_patients_and_parts(data_set: MakeData) -> None:
    header = "id,boneage,male,Subject,fold"
    folder = data_set("1377,180,True,A,Val", "1378,12,False,A,train", header=header)
    own = {"patient": "Subject", "part": "fold"}
    found = read_table(folder, first=1, last=240, table=Table.model_validate(own))
    assert [(one.patient, one.part) for one in found] == [("A", "validation"), ("A", "train")]
    (plain, _) = read_table(folder, first=1, last=240)
    assert (plain.patient, plain.part) == ("", "")
    assert "no column for the patient Person" in refusal(folder, patient="Person")
    folder.joinpath(TABLE).write_text(f"{header}\n1377,180,True,,test\n1378,12,False,B,3\n")
    told = refusal(folder, **own)
    assert "row 2: id 1377: the patient is empty; name each one" in told
    assert "row 3: id 1378: the part '3' is none of train, validation, test" in told
    with pytest.raises(ValueError, match="each is a column of its own, got x, x"):
        Table(patient="x", part="x")


@pytest.mark.parametrize(("oldest", "asked"), [(20, True), (21, False)])
def test_ages_that_look_like_years_are_asked_about(
    data_set: MakeData, oldest: int, asked: bool
) -> None:
    folder = data_set(*(f"{1000 + age},{age},True" for age in range(oldest - 19, oldest + 1)))
    if asked:
        assert "all ages are at most 20, which looks like years" in refusal(folder)
    else:
        assert read_as(folder)[-1] == oldest
    assert read_as(folder, unit="months")[-1] == oldest


# -------------------------------------------------------------------------- order of the ids


def test_numbers_are_sorted_as_numbers_before_other_names(data_set: MakeData) -> None:
    folder = data_set("b,1,M", "10,1,M", "9,1,M", "a,1,M", "100,1,M", header="id,boneage,sex")
    assert [id for id, *_ in read(folder)] == ["9", "10", "100", "a", "b"]


@given(st.lists(st.text(min_size=1, max_size=6), unique=True), st.randoms())
def test_the_order_is_the_same_however_ids_come(ids: list[str], random: object) -> None:
    shuffled = list(ids)
    random.shuffle(shuffled)
    assert sorted(shuffled, key=id_order) == sorted(ids, key=id_order)


# ------------------------------------------------------------------ what is refused, and how


def test_every_problem_names_its_row(data_set: MakeData) -> None:
    folder = data_set(
        "1,180,False",
        "2,0,False",
        "3,241,True",
        "4,nan,True",
        "5,old,True",
        "6,,True",
        "7,60,maybe",
        "8,60,",
        ",60,True",
        "9,60,True",
        names=[str(i) for i in range(1, 9)],
    )
    message = refusal(folder)
    assert message.splitlines()[0] == f"{folder / TABLE}: cannot be used as it is:"
    lines = [line.strip() for line in message.splitlines()[1:]]
    starts = [
        "row 3: id 2: the age 0 is outside of 1 to 240 months; mend it, or change bins.first",
        "row 4: id 3: the age 241 is outside of 1 to 240 months",
        "row 5: id 4: the age 'nan' is not a number of months",
        "row 6: id 5: the age 'old' is not a number",
        "row 7: id 6: the age '' is not a number",
        "row 8: id 7: the sex 'maybe' is none of",
        "row 9: id 8: the sex '' is none of",
        "row 10: the id is empty",
        "row 11: id 9: no image of that name; add it, or remove the row",
    ]
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize("age", ["1", "240", "1.0", "94.5", "1e2"])
def test_ages_at_the_ends_and_between_bins_are_taken(data_set: MakeData, age: str) -> None:
    assert read(data_set(f"1,{age},True")) == [("1", float(age), True)]


@pytest.mark.parametrize("age", ["inf", "-inf", "NaN", "-5", "0.999", "240.001", '"1,094"', "1 2"])
def test_ages_beyond_or_unreadable_are_not(data_set: MakeData, age: str) -> None:
    assert "row 2: id 1: the age" in refusal(data_set(f"1,{age},True"))


def test_all_problems_are_told(data_set: MakeData) -> None:
    message = refusal(data_set(*(f"{i},10,True" for i in range(50)), names=["0"]))
    assert message.count("no image of that name") == 49


def test_a_duplicate_names_both_rows(data_set: MakeData) -> None:
    folder = data_set("1,10,True", "2,20,True", "1,30,False")
    assert "row 4: id 1: is in row 2 already; keep one of them" in refusal(folder)


def test_a_duplicate_of_a_bad_row_is_seen_too(data_set: MakeData) -> None:
    message = refusal(data_set("1,old,True", "1,30,False"))
    assert "row 2: id 1: the age" in message
    assert "row 3: id 1: is in row 2 already" in message


def test_two_images_of_one_id_are_refused(data_set: MakeData) -> None:
    folder = data_set("1,10,True", "2,20,True")
    write_images(folder / "copies", ["2"])
    message = refusal(folder)
    assert "row 3: id 2: more than one image" in message
    assert str(folder / IMAGES / "2.png") in message
    assert str(folder / "copies" / "2.png") in message
    assert "id 1" not in message


@pytest.mark.parametrize(
    "id",
    [
        "../secret",
        "..",
        ".",
        "/etc/passwd",
        "sub/1",
        f"{IMAGES}/1",
        "..\\secret",
        "1.png",
        "*",
        "~",
    ],
)
def test_an_id_cannot_lead_out_of_the_folder(data_set: MakeData, id: str) -> None:
    folder = data_set(f"{id},10,True", names=["1"])
    write_images(folder.parent, ["secret"])
    write_images(folder / "sub", ["other"])
    assert f"row 2: id {id}: no image of that name" in refusal(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,boneage", "no column for the sex (its header: id, boneage)"),
        ("id,male", "no column for the age"),
        ("boneage,male", "no column for the id"),
        ("name,age", "no column for the id or the age or the sex"),
        ("id,boneage (years),male", "no column for the age"),
        ("id,boneage,male,sex", "more than one column for the sex (male, sex)"),
        ("id,boneage,Bone Age (months),male", "more than one column for the age"),
        ("id|boneage|male", "no column for the id or the age or the sex"),
        ("1377,180,False", "no column for the id"),
        ("", "no column for the id"),
    ],
)
def test_a_table_without_its_columns_says_which(
    data_set: MakeData, header: str, message: str
) -> None:
    folder = data_set("1377,180,False", header=header)
    if not header:
        (folder / TABLE).write_text("")
    text = refusal(folder)
    assert text.startswith(f"{folder}: no CSV or XLSX table with an id, boneage (months) and male")
    assert f"{TABLE}: {message}" in text


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("age", ["12.5", '"12,5"'])
def test_separators_and_points_of_many_languages(
    data_set: MakeData, separator: str, age: str
) -> None:
    rows = (f"1377,{age},False".replace(f",{age},", f"{separator}{age}{separator}"),)
    folder = data_set(*rows, header=HEADER.replace(",", separator), names=["1377"])
    assert read(folder) == [("1377", 12.5, False)]


def _spreadsheet(path: Path, *rows: tuple[object, ...]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.create_sheet("another").append(("id", "boneage", "male"))
    book.save(path)
    return path


def test_the_test_set_s_spreadsheet(data_set: MakeData) -> None:
    folder = data_set(names=["4360", "4361"], images="Test Set Images")
    (folder / TABLE).unlink()
    header = ("Case ID", "Sex", "Ground truth bone age (months)")
    rows = (4360, "M", 112.5), (None, None, None), (4361.0, "F", 96)
    table = _spreadsheet(folder / "Bone age ground truth.xlsx", header, *rows)
    (folder / "~$Bone age ground truth.xlsx").write_bytes(b"open in another window")
    assert find_table(folder) == table
    assert read(folder) == [("4360", 112.5, True), ("4361", 96, False)]


def test_rows_of_a_spreadsheet_are_named(data_set: MakeData) -> None:
    folder = data_set(names=["1", "2"])
    (folder / TABLE).unlink()
    _spreadsheet(folder / "a.xlsx", ("id", "boneage", "male"), (1, 12, True), (), (2, "?", False))
    assert "row 4: id 2: the age '?' is not a number of months" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive", "an archive of nothing"])
def test_a_broken_spreadsheet_is_named(data_set: MakeData, content: bytes | str) -> None:
    folder = data_set("1377,180,False")
    (folder / TABLE).unlink()
    if isinstance(content, str):
        with zipfile.ZipFile(folder / "a.xlsx", "w") as archive:
            archive.writestr("[Content_Types].xml", "<broken")
    else:
        (folder / "a.xlsx").write_bytes(content)
    text = refusal(folder)
    assert "a.xlsx: not readable as an XLSX table (" in text
    assert "save it as CSV" in text


def test_two_tables_of_ages_are_refused(data_set: MakeData) -> None:
    folder = data_set("1377,180,False")
    (folder / "train.csv").write_text(f"{HEADER}\n1377,180,False\n")
    assert f"more than one table of ages ({TABLE}, train.csv); keep one" in refusal(folder)


def test_a_row_with_too_many_cells_is_refused_not_shifted(data_set: MakeData) -> None:
    folder = data_set("1377,False,94,5", header="id,male,boneage")
    assert "row 2: 4 cells under 3 columns; put quotes" in refusal(folder)


def test_a_row_with_too_few_cells_has_empty_ones(data_set: MakeData) -> None:
    assert "row 2: id 1377: the sex '' is none of" in refusal(data_set("1377,180"))


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named(data_set: MakeData, encoding: str) -> None:
    folder = data_set("1377,180,False,Müller", header=f"{HEADER},name", encoding=encoding)
    text = refusal(folder)
    assert TABLE in text
    assert "not text in UTF-8; save it as CSV (UTF-8)" in text


def test_another_encoding_deep_in_the_file_is_named_too(data_set: MakeData) -> None:
    folder = data_set("1377,180,False")
    with open(folder / TABLE, "ab") as table:
        table.write(b"\n" * 100_000 + b"1378,12,M\xfcller\n")
    assert "not text in UTF-8" in refusal(folder)


def test_a_cell_without_end_is_named(data_set: MakeData) -> None:
    folder = data_set('1377,180,"False' + "x" * 200_000, names=["1377"])
    assert "not readable as a CSV table (field larger than field limit" in refusal(folder)


@pytest.mark.parametrize("sex", ["True", "false", "1", "0"])
def test_yes_and_no_do_not_answer_sex(data_set: MakeData, sex: str) -> None:
    folder = data_set(f"1377,180,{sex}", header="id,boneage,sex")
    assert f"row 2: id 1377: the sex '{sex}' is none of m, male, f, female" in refusal(folder)


def test_an_empty_folder_a_missing_one_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert "empty: no CSV or XLSX table with an id" in refusal(tmp_path / "empty")
    assert "missing: no such folder of radiographs" in refusal(tmp_path / "missing")
    assert "file: no such folder of radiographs" in refusal(tmp_path / "file")


def test_a_table_without_rows_or_without_images(data_set: MakeData) -> None:
    folder = data_set(names=["1"])
    assert "has a header but no rows" in refusal(folder)
    (folder / IMAGES / "1.png").rename(folder / IMAGES / "1.gif")
    assert "no images (PNG, JPEG" in refusal(folder)


# ------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ".JPG", ".tif", ".TIFF"])
def test_images_of_every_suffix_are_found(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"1{suffix}").write_bytes(b"")
    assert find_images(tmp_path) == {"1": [tmp_path / f"1{suffix}"]}


def test_what_is_hidden_or_a_folder_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".cache").mkdir()
    for name in ("__MACOSX/._1.png", ".cache/1.png", ".1.png", "1.png", "1.txt", "png"):
        (tmp_path / name).write_bytes(b"")
    assert find_images(tmp_path) == {"1": [tmp_path / "1.png"]}


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is permitted to root")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    write_images(tmp_path / "shut", ["1"])
    (tmp_path / "shut").chmod(0)
    with pytest.raises(UserError, match="shut: cannot be listed"):
        find_images(tmp_path)
    with pytest.raises(UserError, match="shut: cannot be listed"):
        find_table(tmp_path / "shut")
    (tmp_path / "shut").chmod(0o700)


@pytest.mark.parametrize(
    ("word", "male"),
    [("M", True), ("m", True), ("male", True), (" Male ", True), ("F", False), ("FEMALE", False)],
)
def test_words_for_the_sex(word: str, male: bool) -> None:
    assert parse_sex(word, "--sex") is male


@pytest.mark.parametrize("word", ["", "x", "O", "fm", "unknown", "2", "None"])
def test_other_words_say_where_they_stand(word: str) -> None:
    with pytest.raises(ValueError, match=f"--sex: the sex '{word}' is none of m, male, f, female"):
        parse_sex(word, "--sex")
