"""Figures of what a run's model does: pixel confusion matrix (the paper's figure 4), per-site results, samples (figure 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from bahefl_flwr.lesion.metrics import Evaluation, PixelCounts
from bahefl_flwr.report.style import BLUE, LOOK, ORANGE, RED, SKY, WIDTH_IN, draw, legend_above, saved

Field = npt.NDArray[np.float32]
_CLASSES = ("no lesion", "lesion")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One slice and what the model makes of it.

    Attributes:
      why: why this slice is shown.
      image: uint8 (s, s). truth: bool (s, s).
      heads: probabilities of the side heads, coarsest first, then of the main head.
    """

    why: str
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.bool_]
    heads: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenModel:
    """The model that a run chose, on the test parts of all sites, measured again.

    Attributes:
      sites: evaluation by site. samples: slices to show.
    """

    sites: Mapping[int, Evaluation]
    samples: Sequence[Sample]


def confusion(p: PixelCounts) -> bytes:
    """Pixels by truth and prediction, coloured by their share of the true class. PNG."""
    counts = np.array([[p.tn, p.fp], [p.fn, p.tp]])
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))  # (truth, prediction)

    def paint(panels: list[Axes]) -> None:
        axes = panels[0]
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            text = f"{count:,}\n{100 * shares[row, column]:.2f} %"
            axes.text(column, row, text, ha="center", va="center", color="white" if shares[row, column] > 0.5 else "black")
        axes.set_xticks((0, 1), _CLASSES)
        axes.set_yticks((0, 1), _CLASSES, rotation=90, va="center")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.grid(visible=False)
        axes.figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.85)

    return draw(("",), 3.0, paint, width_in=3.8)


def per_site(sites: Mapping[int, Evaluation]) -> bytes:
    """Pooled Dice and recall of every site's test part, with the number of its slices. PNG."""
    rows = sorted(sites.items())
    places = np.arange(len(rows))

    def paint(panels: list[Axes]) -> None:
        axes = panels[0]
        # Without lesion there is nothing to find or to overlap with: no bar, instead of a perfect one.
        dice = [e.pixels.dice if e.positive_slices else 0.0 for _, e in rows]
        recall = [e.pixels.recall if e.positive_slices else 0.0 for _, e in rows]
        axes.bar(places - 0.2, dice, 0.38, color=BLUE, label="pooled Dice")
        axes.bar(places + 0.2, recall, 0.38, color=ORANGE, label="pooled recall")
        for place, (_, e) in enumerate(rows):
            if not e.positive_slices:
                axes.text(
                    place, 0.03, "no lesion" if e.slices else "no slices", ha="center", va="bottom", rotation=90, fontsize=7
                )
        axes.set_xticks(places, [f"{site}\n{e.positive_slices}+{e.slices - e.positive_slices}" for site, e in rows])
        axes.set_xlabel("data partition, and its test slices with + without lesion")
        axes.set_ylabel("on the test part")
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(visible=False, axis="x")
        legend_above(axes)

    return draw(("",), 2.8, paint)


def samples(rows: Sequence[Sample]) -> bytes:
    """A row a sample: slice, truth, heads by depth, contours of prediction (blue) on truth (red). PNG."""
    columns = 3 + len(rows[0].heads)
    with mpl.rc_context(LOOK):
        packed = ConstrainedLayoutEngine(h_pad=0.01, w_pad=0.01, hspace=0.02, wspace=0.02)
        # Square panels: the row labels take 0.2 inches of the width, the titles as much of the height.
        side = (WIDTH_IN - 0.2) / columns
        figure = Figure(figsize=(WIDTH_IN, side * len(rows) + 0.2), layout=packed)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes, row in zip(grid, rows, strict=True):
            _sample(list(axes), row)
        for axes, title in zip(grid[0], _titles(rows[0]), strict=True):
            axes.set_title(title, loc="center", fontsize=8)
        return saved(figure)


def _titles(row: Sample) -> list[str]:
    sides = [f"head {field.shape[0]}x{field.shape[0]}" for field in row.heads[:-1]]
    return ["slice", "truth", *sides, "probability", "contours"]


def _sample(axes: Sequence[Axes], row: Sample) -> None:
    for panel in axes:
        panel.set_xticks(())
        panel.set_yticks(())
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
    axes[0].set_ylabel(row.why, fontsize=8)
    axes[0].imshow(row.image, cmap="gray", vmin=0, vmax=255)
    axes[1].imshow(row.truth, cmap="gray", vmin=0, vmax=1)
    for panel, field in zip(axes[2:-1], row.heads, strict=True):
        panel.imshow(field, cmap="inferno", vmin=0, vmax=1, interpolation="nearest")
    axes[-1].imshow(row.image, cmap="gray", vmin=0, vmax=255)
    for mask, colour in ((row.truth, RED), (row.heads[-1] > 0.5, SKY)):
        if mask.any():
            axes[-1].contour(mask, levels=[0.5], colors=[colour], linewidths=0.9)
