"""The style of all plots: colours, markers and layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can distinguish. Their lightness
# differs too, for print in grey.
MARKED = "#0072B2"
UNMARKED = "#E69F00"
REFERENCE = "#555555"
# Series that look the same in every plot.
_NAMES = ("default", "unmarked", "random", "direct", "diff", "before training")
_COLOURS = (MARKED, UNMARKED, "#009E73", "#CC79A7", "#D55E00", "#000000")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "x")

# Points (x, y) by the name of a series.
Curves = Mapping[str, Sequence[tuple[float, float]]]
Line = TypeVar("Line")

_STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.size": 10,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "savefig.dpi": 160,
}


@contextmanager
def figure(
    columns: int, size: tuple[float, float], rows: int = 1
) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """Yields a figure and its axes, with the common style active.

    Args:
        columns: Number of columns of axes.
        size: Width and height of the figure, in inches.
        rows: Number of rows of axes.
    """
    with mpl.rc_context(_STYLE):
        # Not pyplot, which would show the figure and keep it open.
        drawing = Figure(figsize=size)
        yield drawing, drawing.subplots(rows, columns, squeeze=False).ravel().tolist()


def styled(lines: Mapping[str, Line]) -> Iterator[tuple[str, Line, dict[str, Any]]]:
    """Yields the name, the data and the style of each series."""
    styles = [
        {"color": color, "marker": marker, "markersize": 4, "ls": dashes}
        for dashes in _DASHES
        for color, marker in zip(_COLOURS, _MARKERS, strict=True)
    ]
    for number, (name, line) in enumerate(lines.items()):
        index = _NAMES.index(name) if name in _NAMES else number
        yield name, line, styles[index % len(styles)]


def draw_lines(axes: Axes, curves: Curves) -> None:
    """Draws each series as a line."""
    for name, points, style in styled(curves):
        x, y = np.transpose(points) if points else ([], [])
        axes.plot(x, y, label=name, **style)
