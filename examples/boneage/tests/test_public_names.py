"""The example uses ldlcam as anyone can: its public names, imported from the top level."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
# Without this file, which names what it forbids.
FILES = sorted(
    path
    for folder in ("boneage", "tests")
    for path in (PROJECT / folder).rglob("*.py")
    if path != Path(__file__)
)
PUBLIC = frozenset(importlib.import_module("ldlcam").__all__)

_SUBMODULE = re.compile(r"ldlcam(\.\w+)+")


def forbidden_uses(source: str) -> Iterator[str]:
    """Every use of ldlcam in some code that is not `from ldlcam import` of a public name."""
    for node in ast.walk(ast.parse(source)):
        yield from (f"line {node.lineno}: {use}" for use in _forbidden(node))


def _forbidden(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (f"import {name.name}" for name in names if _is_ours(name.name))
        case ast.ImportFrom(module=str(module), names=names, level=0) if _is_ours(module):
            for name in names:
                if module != "ldlcam" or name.name not in PUBLIC:
                    yield f"from {module} import {name.name}"
        case ast.Call(func=function, args=[ast.Constant(value="ldlcam"), *_]):
            # Asking for the version is no import.
            called = ast.unparse(function)
            if called.rpartition(".")[2] in ("import_module", "__import__"):
                yield f"{called}('ldlcam')"
        case ast.Subscript(value=table, slice=ast.Constant(value="ldlcam")):
            yield f"{ast.unparse(table)}['ldlcam']"
        case ast.Constant(value=str(text)) if _SUBMODULE.fullmatch(text):
            # For import_module, mock.patch, sys.modules and whatever else takes a dotted name.
            yield repr(text)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "ldlcam"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_file_uses_public_names_only(path: Path) -> None:
    assert list(forbidden_uses(path.read_text(encoding="utf-8"))) == []


def test_there_are_files_and_they_use_ldlcam() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in FILES)
    assert "\nfrom ldlcam import " in text


HOSTILE = """
import ldlcam
import numpy, ldlcam.cam.regions as regions
from ldlcam.ldl import Bins
from ldlcam import Regions, _check, cam
from ldlcam import *
def hidden():
    from ldlcam._check import check_tensor
    importlib.import_module("ldlcam")
    import_module("ldlcam.ldl.labels")
    __import__("ldlcam")
    sys.modules["ldlcam"].cam
    mock.patch("ldlcam.cam.crops._crop")
"""


def test_hostile_code_is_caught_line_by_line() -> None:
    found = list(forbidden_uses(HOSTILE))
    caught = {int(re.match(r"line (\d+)", use)[1]) for use in found}
    assert caught == {2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13}
    assert "line 5: from ldlcam import _check" in found
    assert "line 5: from ldlcam import cam" in found
    assert "line 5: from ldlcam import Regions" not in found


def test_allowed_code_is_left_alone() -> None:
    allowed = """
from ldlcam import Bins as B, crop_and_resize
from . import ldlcam
from .ldlcam import anything
import ldlcamera
metadata.version("ldlcam")
print("see ldlcam.cam for more")
"""
    assert list(forbidden_uses(allowed)) == []
