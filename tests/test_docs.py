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
_NEEDS = re.compile(r"^% needs: (.*)$", re.MULTILINE)
_DOCUMENTED = re.compile(r"^\.\. auto(?:class|function):: ldlcam\.([\w.]+)$", re.MULTILINE)
PUBLIC = [*ldlcam.__all__, *(f"metrics.{name}" for name in metrics.__all__)]


def python_blocks(text: str) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the number of lines before it."""
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in _BLOCK.finditer(text)]


# Its code raises the errors that it explains.
TROUBLESHOOTING = ROOT / "docs/troubleshooting.md"
WITH_CODE = [
    page
    for page in PAGES
    if python_blocks(page.read_text(encoding="utf-8")) and page != TROUBLESHOOTING
]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    for needed in _NEEDS.findall(text):
        for package in needed.split():
            pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for before, code in python_blocks(text):
        # Empty lines in front, so that a traceback names the line of the page.
        exec(compile("\n" * before + code, str(page), "exec"), namespace)
    assert namespace.keys() - {"__name__", "__builtins__"}


def troubles() -> tuple[str, dict[str, str]]:
    """The code that all entries of the troubleshooting page share, and each message's own."""
    start, *entries = re.split("^### `", TROUBLESHOOTING.read_text("utf-8"), flags=re.MULTILINE)
    ((_, shared),) = python_blocks(start)
    parts = [entry.partition("`\n") for entry in entries]
    return shared, {message: python_blocks(rest)[0][1] for message, _, rest in parts}


@pytest.mark.parametrize("message", troubles()[1])
def test_a_trouble_raises_its_message(message: str) -> None:
    shared, entries = troubles()
    namespace: dict[str, object] = {}
    exec(shared, namespace)
    with pytest.raises(Exception, match=f"^{re.escape(message)}$"):
        exec(entries[message], namespace)


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


def test_pictures_are_those_that_the_code_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    for script in ("pictures.py", "pictures_ldl.py"):
        runpy.run_path(str(ROOT / "docs" / script))["main"](tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (ROOT / "docs/pictures").iterdir()}


def test_result_pages_show_what_the_runs_wrote() -> None:
    make = runpy.run_path(str(ROOT / "docs/results/make.py"))
    pages = make["pages"]()
    assert {path.stem for path in (ROOT / "docs/results").glob("*.json")} == {
        path.stem for path in pages
    }
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, "run docs/results/make.py"
