"""The report page in a real browser: its table sorts, and nothing else is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from report_run import Run, make_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose ids sort differently as numbers and as text."""
    run: Run = make_run(tmp_path_factory.mktemp("browser"), ids=lambda i: str(30 * i + 1))
    run.write()
    return run.folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright (pip install playwright)"
    )
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"needs Chromium: none of {', '.join(_NAMES)} is on the path")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Browser, page_file: Path) -> Open:
    """Opens the page; at the end, it must have asked for nothing and complained of nothing."""

    @contextmanager
    def open_page(**options: Any) -> Iterator[Page]:
        context = browser.new_context(**options)
        page = context.new_page()
        complaints: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        yield page
        assert complaints == []
        assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
        context.close()

    return open_page


def column(page: Page, index: int) -> list[str]:
    cells = f"table.sortable tbody tr > :nth-child({index + 1})"
    return [text.strip() for text in page.locator(cells).all_inner_texts()]


def sorted_by(page: Page) -> list[tuple[str, str]]:
    """Which columns are said to be sorted, and how."""
    headers = page.locator("table.sortable th[aria-sort]").all()
    return [(h.get_attribute("data-column"), h.get_attribute("aria-sort")) for h in headers]


def heading(page: Page, index: int) -> Any:
    return page.locator(f'table.sortable th[data-column="{index}"] button')


def test_a_click_sorts_by_a_column_and_another_turns_the_order_round(opened: Open) -> None:
    with opened() as page:
        before = column(page, 0)
        assert sorted_by(page) == [("5", "descending")]
        assert page.get_by_text("Choose a column's heading").is_visible()
        errors = [float(text) for text in column(page, 4)]
        heading(page, 4).click()
        assert [float(text) for text in column(page, 4)] == sorted(errors)
        assert min(errors) < 0 < max(errors)
        assert sorted_by(page) == [("4", "ascending")]
        heading(page, 4).click()
        assert [float(text) for text in column(page, 4)] == sorted(errors, reverse=True)
        assert sorted_by(page) == [("4", "descending")]
        assert sorted(column(page, 0)) == sorted(before)
        assert column(page, 0) != before


def test_rows_move_as_a_whole(opened: Open) -> None:
    with opened() as page:
        rows = page.locator("table.sortable tbody tr")
        before = rows.all_inner_texts()
        for index in (0, 2, 6):
            heading(page, index).click()
        assert sorted(rows.all_inner_texts()) == sorted(before)


def test_ids_sort_as_numbers_words_as_words_and_intervals_by_width(opened: Open) -> None:
    with opened() as page:
        heading(page, 0).click()
        ids = column(page, 0)
        assert ids == sorted(ids, key=int) != sorted(ids)
        heading(page, 1).click()
        sexes = column(page, 1)
        assert sexes == sorted(sexes)
        assert len(set(sexes)) == 2
        # Equal ones stay in the order of before.
        boys = [id for id, sex in zip(column(page, 0), sexes, strict=True) if sex == "boy"]
        assert boys == sorted(boys, key=int)
        heading(page, 6).click()
        ends = [[int(end) for end in text.split(" to ")] for text in column(page, 6)]
        widths = [high - low for low, high in ends]
        assert all(b - a >= -2 for a, b in pairwise(widths))


def test_keyboard_reaches_and_sorts_every_column(opened: Open) -> None:
    with opened() as page:
        page.locator("div.tall").focus()
        for at in range(12):
            page.keyboard.press("Tab")
            focused = page.evaluate("document.activeElement.parentElement.dataset.column")
            assert int(focused) == at
            page.keyboard.press("Enter" if at % 2 else "Space")
            assert sorted_by(page) == [(str(at), "ascending")]
        page.keyboard.press("Enter")
        assert sorted_by(page) == [("11", "descending")]


def test_without_scripts_all_is_there_and_nothing_pretends_to_sort(opened: Open) -> None:
    with opened(java_script_enabled=False) as page:
        off = [float(text) for text in column(page, 5)]
        assert off == sorted(off, reverse=True)
        assert len(off) == 14
        assert page.locator("button").count() == 0
        assert page.get_by_text("Sorting by other columns needs JavaScript").is_visible()
        assert page.get_by_text("Choose a column's heading").count() == 0


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_its_window_and_every_picture_is_drawn(
    opened: Open, width: int, scheme: str
) -> None:
    with opened(viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        sizes = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
        assert sizes
        assert all(sizes)


def test_a_script_of_another_hand_does_not_run(browser: Browser, page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    forged = page_file.with_name("forged.html")
    forged.write_text(
        text.replace("</body>", "<script>document.title = 'run'</script></body>"), encoding="utf-8"
    )
    context = browser.new_context()
    page = context.new_page()
    page.goto(forged.as_uri())
    assert page.title().startswith("Bone age")
    assert page.locator("table.sortable button").count() == 12
    context.close()
