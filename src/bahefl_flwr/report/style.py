"""How every figure looks: sizes, fonts and colours fit for a printed page. No data here.

Colours are those of Okabe and Ito (2008), which people with any colour vision can tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000", "#999999",
)  # fmt: skip
PALE = "#E3E3E3"
# The text width of a two-column page; 200 dots an inch are enough for print and small enough for a page to carry.
WIDTH_IN = 7.2
DPI = 200
# Any: matplotlib types its keys as a list of all literals.
LOOK: dict[Any, Any] = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.4, "lines.markersize": 3.5,
}  # fmt: skip


Paint = Callable[[list[Axes]], None]


def draw(panels: Sequence[str], height_in: float, paint: Paint, *, width_in: float = WIDTH_IN, columns: int = 0) -> bytes:
    """A PNG file of panels side by side, or in rows of `columns`.

    Without pyplot: no global state, no display, safe in the thread that Flower runs a ServerApp in.

    Args:
      panels: their titles. paint: fills them.
    """
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        across = columns or len(panels)
        axes = list(figure.subplots(len(panels) // across, across, squeeze=False).flat)
        for panel, title in zip(axes, panels, strict=True):
            if title:
                panel.set_title(title, loc="left")
        paint(axes)
        return saved(figure)


def saved(figure: Figure) -> bytes:
    """The figure as a PNG file; within the look of the others."""
    buffer = io.BytesIO()
    # No version of matplotlib in the file: equal runs give equal bytes.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def legend_above(axes: Axes, columns: int = 9) -> None:
    """One legend for the whole figure, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), columns))


def by_round(axes: Axes, ticks: int = 12) -> None:
    """Let the horizontal axis count rounds, with at most so many ticks."""
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
