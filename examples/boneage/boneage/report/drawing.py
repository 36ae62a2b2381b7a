"""How figures are drawn: once for a light and once for a dark background, as PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boneage.report.pictures import drawn_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.4, 3.1
POINT = 9.0

_DOTS_PER_INCH = 180


@dataclass(frozen=True)
class Ink:
    """The colours of one scheme; blue, orange and purple are told apart by the colour-blind too."""

    text: str
    rule: str
    hand: str
    region1: str
    region2: str
    region3: str
    region4: str


LIGHT = Ink(
    text="#1c2126",
    rule="#c9ced4",
    hand="#0072b2",
    region1="#c65200",
    region2="#9b3f83",
    region3="#00795a",
    region4="#7a6a00",
)
_DARK = Ink(
    text="#e4e7ea",
    rule="#4a5159",
    hand="#56b4e9",
    region1="#f0a030",
    region2="#e29acb",
    region3="#3fbf9b",
    region4="#f0e442",
)
# With a mark each, all regions are told apart without their colours.
MARKERS = {"hand": "P", "region1": "o", "region2": "^", "region3": "s", "region4": "D"}


@dataclass(frozen=True)
class Picture:
    """One figure in both schemes, its size in CSS pixels, and words for who cannot see it."""

    light: str
    dark: str
    width: int
    height: int
    alt: str


def draw(plot: Callable[[Axes, Ink], None], alt: str, height: float = HEIGHT) -> Picture:
    """A figure of one panel.

    Args:
        plot: Draws into the panel, in the ink that it is given.
        alt: The figure in words.
        height: Its height, in inches of 100 CSS pixels.
    """

    def make(ink: Ink) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        plot(figure.add_subplot(), ink)
        return figure

    return _picture(make, alt, WIDTH, height)


def redraw(
    make: Callable[[], Figure], alt: str, width: float = WIDTH, height: float = HEIGHT
) -> Picture:
    """A figure as ldlcam makes it, in the style of the page.

    Args:
        make: Makes the figure; black lines take the colour of the text.
        alt: The figure in words.
        width: Its width, in inches of 100 CSS pixels.
        height: Its height.
    """

    def made(ink: Ink) -> Figure:
        figure = make()
        for axes in figure.axes:
            for line in axes.lines:
                if line.get_color() == "black":
                    line.set_color(ink.text)
        return figure

    return _picture(made, alt, width, height)


def legend(axes: Axes, columns: int = 2) -> None:
    """A legend above a panel."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.2,
        fontsize=POINT - 1,
        columnspacing=1.2,
        handletextpad=0.5,
    )


def whole_numbers(axes: Axes) -> None:
    """Ticks at whole numbers alone, as of years, along the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def _picture(make: Callable[[Ink], Figure], alt: str, width: float, height: float) -> Picture:
    light, dark = (_render(make, ink, (width, height)) for ink in (LIGHT, _DARK))
    return Picture(light, dark, round(100 * width), round(100 * height), alt)


def _render(make: Callable[[Ink], Figure], ink: Ink, size: tuple[float, float]) -> str:
    import matplotlib

    file = io.BytesIO()
    # Colours such as "C0" are looked up when they are drawn.
    with matplotlib.rc_context(_style(ink)):
        figure = make(ink)
        figure.set_size_inches(size)
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH, transparent=True)
    return drawn_picture(file.getvalue())


def _style(ink: Ink) -> Any:
    """Settings of matplotlib for everything that a figure does not set itself."""
    from matplotlib.rcsetup import cycler

    return {
        "text.color": ink.text,
        "font.size": POINT,
        "axes.prop_cycle": cycler(color=[ink.hand, ink.region1, ink.region2]),
        "axes.edgecolor": ink.rule,
        "axes.labelcolor": ink.text,
        "axes.labelsize": POINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": ink.rule,
        "grid.linewidth": 0.5,
        "grid.alpha": 0.6,
        "xtick.color": ink.rule,
        "ytick.color": ink.rule,
        "xtick.labelcolor": ink.text,
        "ytick.labelcolor": ink.text,
        "xtick.labelsize": POINT,
        "ytick.labelsize": POINT,
        "legend.frameon": False,
    }
