"""One look for all plots: 1200 pixels wide, colours that everyone can tell apart, no global state."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from fedmtl.files import replacing
from fedmtl.text import escaped

P = ParamSpec("P")
R = TypeVar("R")

DPI = 120
WIDTH = 10.0
"""Width of a figure, inches: 1200 pixels."""

# Okabe and Ito's palette for colour-blind readers, without the yellow, which is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#8C8C8C"
LINE_STYLES = ("-", "--", "-.", ":")
TYPE_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "FBC": {"color": COLOURS[1], "marker": "^"},
    "FUC": {"color": COLOURS[0], "marker": "o"},
    "SUC": {"color": COLOURS[2], "marker": "s"},
    "SBC-1": {"color": COLOURS[5], "marker": "v"},
    "SBC-2": {"color": COLOURS[3], "marker": "D"},
}
"""Colour and marker of each of FedQS's client types."""
FEW = 30
"""Values up to which each is a point of its line."""
_TICK = 18
"""Letters of a name at an axis, at most."""
SEQUENTIAL = "viridis"
SHADES = ListedColormap(colormaps["YlGnBu"](np.linspace(0.2, 1.0, 256)), name="shades")
"""From pale to dark, for cells on white: the palest is still not white."""
_LONGEST, _BEGINNING, _END = 100, 60, 30
"""Characters of a line that leave room for something else, and what is shown of longer ones."""

_SETTINGS: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "savefig.facecolor": "white",
    "svg.hashsalt": "fedmtl",  # names inside an SVG, which would be random
}

Format = Literal["png", "svg", "pdf"]
_METADATA: dict[Format, dict[str, Any]] = {  # nothing of the machine or of the day
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Let a function draw in the common look, and leave matplotlib's settings as they were.

    What stands in its pictures is plain text: a dollar sign begins no formula.
    """

    @functools.wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with rc_context(_SETTINGS):
            drawn = draw(*args, **kwargs)
        if isinstance(drawn, Figure):
            _make_plain(drawn)
        return drawn

    return inner


def _make_plain(figure: Figure) -> None:
    """Have every text of a figure shown to the letter; the formulas of matplotlib's own ticks are made later."""
    for text in figure.findobj(Text):
        text.set_text(_plain(text.get_text()))
    for panel in figure.axes:
        for axis in (panel.xaxis, panel.yaxis):
            # Ticks that have names are written by such a one, those of numbers and powers by others.
            if isinstance(formatter := axis.get_major_formatter(), FuncFormatter):
                axis.set_major_formatter(FuncFormatter(_plain_ticks(formatter)))


def _plain_ticks(formatter: FuncFormatter) -> Callable[[float, int | None], str]:
    return lambda value, place: _plain(formatter(value, place))


def _plain(text: str) -> str:
    lines = [f"{line[:_BEGINNING]}…{line[-_END:]}" if len(line) > _LONGEST else line for line in text.split("\n")]
    return escaped("\n".join(lines)).replace("$", r"\$")


def new_figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """A figure of the common width with a grid of axes (in reading order); `height` in inches."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def line_look(index: int) -> dict[str, Any]:
    """Colour and dash of the index-th of several lines; no two of the first 28 look the same."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINE_STYLES[index // len(COLOURS) % len(LINE_STYLES)]}


def names_of(numbers: Iterable[int], names: Sequence[str]) -> list[str]:
    """What a picture calls these numbers: their names, cut short, as far as there are any."""
    return [shorten(names[n], _TICK) if n < len(names) else str(n) for n in numbers]


def shorten(name: str, most: int = 40) -> str:
    """A name that leaves room for what it is a name of."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def with_points(look: Mapping[str, Any], count: int) -> dict[str, Any]:
    """A line's look, with a point for each of its `count` values if they are few: a line of one cannot be seen."""
    return {**look, "marker": "o", "markersize": 4} if count <= FEW else dict(look)


def log_scale(panel: Axes, which: Literal["x", "y"] = "y") -> None:
    """A logarithmic axis with ticks at 1, 2, 5, 10, ..., or at powers of ten, written as plain numbers."""
    panel.set(**{f"{which}scale": "log"})
    axis: Axis = panel.xaxis if which == "x" else panel.yaxis
    axis.set_major_locator(_LogTicks())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


class _LogTicks(Locator):
    """1, 2, 5, 10, ... on an axis of few decades, and some powers of ten on a longer one: errors may explode.

    Where fewer than two of them lie on the axis, those of :func:`log_ticks`.
    """

    def __call__(self) -> Sequence[float]:
        assert self.axis is not None
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        few = vmax <= 1e4 * vmin
        found: Sequence[float] = LogLocator(subs=(1, 2, 5) if few else (1,), numticks=12 if few else 8).tick_values(
            vmin, vmax
        )
        enough = sum(vmin <= tick <= vmax for tick in found) > 1
        return found if enough or not 0 < vmin < vmax < math.inf else log_ticks(vmin, vmax)


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Ticks for a logarithmic axis from `low` to `high`: at least two, and at most so many, that are short to write.

    They are powers of ten, or so many more numbers that there are three of them.

    Examples
    --------
    >>> from fedmtl.plots.style import log_ticks
    >>> log_ticks(0.5, 2000), log_ticks(40, 900), log_ticks(33, 64)
    ([1.0, 10.0, 100.0, 1000.0], [50.0, 100.0, 200.0, 500.0], [40.0, 50.0, 60.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [tick for power in powers for step in steps if low <= (tick := step * 10.0**power) <= high]
        if len(found) > 2:
            return found[:: math.ceil(len(found) / most)]
    # Within a factor of two a logarithmic axis is nearly a linear one.
    return found if len(found) > 1 else [t for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]


def save(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all, in the format that the file's ending names: PNG, SVG or PDF.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    with replacing(path) as temporary:
        kind: Any = path.suffix.removeprefix(".").lower()
        styled(_write)(figure, temporary, kind)
    return path


def _write(figure: Figure, path: Path, kind: Format) -> None:
    # Left to itself, matplotlib draws what has a layout twice, and lays it out anew for each file.
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine(None)
    figure.savefig(path, format=kind, dpi=DPI, metadata=_METADATA[kind])


def save_as(figure: Figure, path: Path, formats: Iterable[Format]) -> list[Path]:
    """Write a figure in each of these formats; `path` has no ending.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    return [save(figure, path.with_name(f"{path.name}.{kind}")) for kind in dict.fromkeys(formats)]
