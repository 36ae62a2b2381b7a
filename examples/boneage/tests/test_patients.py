"""What is known of patients beside their images, and networks that are told it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from conftest import write_images
from rich.console import Console
from typer.testing import CliRunner

from boneage import cli
from boneage.config import Table, load_config
from boneage.data.patients import Known, read_patients, unsaid
from boneage.errors import UserError
from boneage.model_folder import export, open_model
from boneage.pipeline import run
from boneage.predictor import Predictor, collect

TABLE = Table(sex="Sex", covariates=("height", "BMI"))


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_table_of_patients(tmp_path: Path) -> None:
    path = written(tmp_path / "known.csv", "Image ID;height;Sex;note", "a;120,5;F;x", "b;;;")
    known = read_patients(path, TABLE)
    assert list(known) == ["a", "b"]
    assert known["a"][:1] == (False,)
    assert known["a"].covariates[0] == 120.5
    assert known["b"].male is None
    assert all(map(math.isnan, (known["a"].covariates[1], *known["b"].covariates)))
    only_ids = written(tmp_path / "ids.csv", "id", "a")
    assert read_patients(only_ids, Table()) == {"a": Known(None, ())}


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "known.csv", "id,sex,Height,BMI", "a,F,1,2")
    assert read_patients(path, TABLE)["a"].male is None
    assert unsaid(path, TABLE) == (
        "no column for the sex or the covariate height (its header: id, sex, Height, BMI)"
    )
    assert unsaid(written(path, "id,Sex,height,BMI", "a,F,1,2"), TABLE) == ""


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "known.csv", "id,Sex,height", "a,x,1", "b,F,tall", "b,F,2", ",M,3")
    with pytest.raises(UserError) as info:
        read_patients(path, TABLE)
    for problem in ("row 2: id a: the sex 'x'", "row 3: id b, height: 'tall'", "row 4", "row 5"):
        assert problem in str(info.value)
    with pytest.raises(UserError, match="no column for the id"):
        read_patients(written(path, "name", "a"), TABLE)
    with pytest.raises(UserError, match="not readable"):
        read_patients(tmp_path / "none.csv", TABLE)


def test_patients_are_known_by_the_names_of_their_images(tmp_path: Path) -> None:
    write_images(tmp_path, ("a", "b", "c"))
    known = {"b": Known(False, (1.0,)), "c": Known(None, (2.0,)), "other": Known(True, (3.0,))}
    first, second, third = collect([tmp_path], True, known)
    assert (first.male, first.covariates) == (True, None)
    assert (second.male, second.covariates) == (False, (1.0,))
    assert (third.male, third.covariates) == (True, (2.0,))
    with pytest.raises(UserError, match=r"none of its ids \(x, \.\.\.\) is the name of an image"):
        collect([tmp_path], None, {"x": Known(None, ())})


def test_a_run_with_covariates_predicts_what_it_evaluated(tmp_path: Path) -> None:
    folder, data = tmp_path / "run", tmp_path / "run" / "phantom"
    quiet = Console(quiet=True)
    changes = [
        "training.models=[{name: O, regions: [whole]}, {name: L, regions: [whole], loss: l1}]"
    ]
    run(load_config("smoke", changes), folder, quiet, until="prepare")
    with open(data / "boneage-training-dataset.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["height"] = "" if number % 10 == 0 else str(100 + 0.3 * float(row["boneage"]))
    with open(data / "boneage-training-dataset.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (data / "phantom.json").unlink(missing_ok=True)
    changes += ["table.covariates=[height]", f"data={data}"]
    run(load_config("smoke", changes), tmp_path / "told", quiet, until="evaluate")

    model = tmp_path / "model"
    export(tmp_path / "told", model, "O")
    predictor = Predictor(open_model(model))
    (network,) = predictor.networks.values()
    assert 100 < network.standardize.mean.item() < 172
    assert 1 < network.standardize.deviation.item() < 30
    images = data / "boneage-training-dataset"
    known = read_patients(data / "boneage-training-dataset.csv", predictor.config.table)
    told = {Path(row["path"]).stem: row for row in predictor.rows(collect([images], None, known))}
    others = {Path(row["path"]).stem: row for row in predictor.rows(collect([images], None))}
    with open(tmp_path / "told" / "predictions.csv", newline="") as file:
        evaluated = list(csv.DictReader(file))
    assert evaluated
    for row in evaluated:
        for column in ("months", "p5", "p95"):
            expected = pytest.approx(float(row[f"O {column}"]), abs=0.05)
            assert float(told[row["id"]][column]) == expected
    assert any(others[row["id"]]["months"] != told[row["id"]]["months"] for row in evaluated)

    table, out = written(tmp_path / "known.csv", "id,sex,Height", "1001,F,99"), tmp_path / "out.csv"
    asked = ["predict", str(images), "--run", str(model), "--table", str(table), "--out", str(out)]
    answer = CliRunner().invoke(cli.app, asked)
    assert answer.exit_code == 0
    assert "no column for the covariate height (its header" in " ".join(answer.output.split())
