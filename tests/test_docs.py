"""The documentation is true: its code runs, and its reference names every public name."""

import re
import runpy
from pathlib import Path

import pytest

import ldlcam
from ldlcam import metrics

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Sphinx checks the links of the pages under docs/.
LINKING = [*ROOT.glob("*.md"), ROOT / "benchmarks/README.md", ROOT / "examples/boneage/README.md"]

_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DOCUMENTED = re.compile(r"^\.\. auto(?:class|function):: ldlcam\.([\w.]+)$", re.MULTILINE)
PUBLIC = [*ldlcam.__all__, *(f"metrics.{name}" for name in metrics.__all__)]


def python_blocks(text: str) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the number of lines before it."""
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in _BLOCK.finditer(text)]


WITH_CODE = [page for page in PAGES if python_blocks(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for before, code in python_blocks(page.read_text(encoding="utf-8")):
        # Empty lines in front, so that a traceback names the line of the page.
        exec(compile("\n" * before + code, str(page), "exec"), namespace)
    assert namespace.keys() - {"__name__", "__builtins__"}


def test_pages_with_code_are_found() -> None:
    names = {page.name for page in WITH_CODE}
    assert {"README.md", "start.md", "conventions.md"} <= names


def test_a_block_knows_its_place() -> None:
    text = "# Title\n\n```python\na = 1\n```\n\n```sh\nls\n```\n\n```python\nb = a\n```\n"
    assert python_blocks(text) == [(3, "a = 1\n"), (11, "b = a\n")]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_reference_has_every_public_name_once() -> None:
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    documented = [name for page in pages for name in _DOCUMENTED.findall(page.read_text())]
    assert sorted(documented) == sorted(PUBLIC)


def test_readme_lists_every_public_name() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in ldlcam.__all__ if f"`{name}`" not in readme] == []


def test_result_pages_show_what_the_runs_wrote() -> None:
    make = runpy.run_path(str(ROOT / "docs/results/make.py"))
    pages = make["pages"]()
    assert {path.stem for path in (ROOT / "docs/results").glob("*.json")} == {
        path.stem for path in pages
    }
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, "run docs/results/make.py"
