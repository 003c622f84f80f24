"""The picture of a data split: who has how many slices of which class, for which part."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bahefl_flwr.report.style import ORANGE, SKY, draw, legend_above

_CLASSES = (("without lesion", SKY), ("with lesion", ORANGE))
_HEADROOM = 1.1


def split_picture(counts: npt.NDArray[np.int64], parts: tuple[str, ...]) -> bytes:
    """PNG of a tally.

    Args:
      counts: slices per site, part and class (without, with lesion): shape (sites, parts, 2).
      parts: their names.
    """

    def paint(panels: list[Axes]) -> None:
        for number, axes in enumerate(panels):
            _bars(axes, counts[:, number])
        panels[0].set_ylabel("slices")
        legend_above(panels[-1])

    return draw([f"({'abc'[k]}) {part}" for k, part in enumerate(parts)], 2.7, paint)


def _bars(axes: Axes, counts: npt.NDArray[np.int64]) -> None:
    """Stacked bars, a site each, with the total above; shape (sites, 2)."""
    sites, bottom = np.arange(len(counts)), np.zeros(len(counts), np.int64)
    for label, (name, colour) in enumerate(_CLASSES):
        axes.bar(sites, counts[:, label], bottom=bottom, label=name, color=colour, width=0.8)
        bottom += counts[:, label]
    if len(sites) <= 12:
        for site, total in enumerate(bottom):
            axes.annotate(str(total), (site, total), ha="center", va="bottom", fontsize=7)
    axes.set_xlabel("site")
    axes.set_ylim(0, max(1, bottom.max()) * _HEADROOM)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.grid(visible=False, axis="x")
