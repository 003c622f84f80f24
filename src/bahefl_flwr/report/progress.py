"""Figures of what happened round by round: convergence (the paper's figure 3), time (figure 5), bytes, and who did what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from bahefl_flwr.lesion.metrics import collapse
from bahefl_flwr.report import style
from bahefl_flwr.report.style import by_round, draw, legend_above
from bahefl_flwr.run_folder import RoundLine, was_begun

Lines = Sequence[RoundLine]

# In the order of a round, with what the legend says. A phase that a line does not have takes no time.
PHASES = {
    "train": ("train", style.SKY),
    "evaluate": ("evaluate", style.BLUE),
    "encrypt": ("encrypt", style.ORANGE),
    "commit": ("commit on the ledger", style.YELLOW),
    "upload": ("upload", style.GREEN),
    "screen": ("open sketches", style.GREY),
    "aggregate": ("aggregate", style.PURPLE),
    "verify": ("verify, release shares", style.RED),
    "ballot": ("vote", style.PALE),
    "open": ("open, confirm", style.BLACK),
}
_LEARNING = ("train", "evaluate")
_OTHER = style.PALE
# Of more rounds, markers would hide the curve.
_MARKED_ROUNDS = 30
BYTES = {
    "update": ("updates", style.SKY), "sketch": ("opened sketches", style.GREY), "aggregate": ("aggregate", style.PURPLE),
    "share": ("decryption shares", style.RED),
}  # fmt: skip
_STATES = {
    "added": style.SKY, "left out": style.RED, "declined": style.YELLOW, "silent": style.ORANGE, "not selected": style.PALE,
}  # fmt: skip


def segments_lesions(lines: Lines) -> bool:
    """Whether the figures are our own application's; true while there are none."""
    return any("dice" in line["validation"] for line in lines) or not any(line["finalised"] for line in lines)


def other_convergence(lines: Lines) -> bytes:
    """Both losses, and the first two other figures that another application's sites report, by round. PNG."""
    names = dict.fromkeys(name for line in lines for name in line["validation"])
    shown = [name for name in names if name not in ("loss", "num-examples", "model-round")][:2]

    def paint(panels: list[Axes]) -> None:
        loss, *others = panels
        _curve(loss, lines, lambda line: line["train_loss"], style.GREY, "s--", label="training")
        _curve(loss, lines, _validation("loss"), style.BLUE, "o-", label="validation")
        loss.legend()
        for panel, name in zip(others, shown, strict=True):
            _curve(panel, lines, _validation(name), style.BLUE, "o-")
        for panel, label in zip(panels, ("loss", *(f"{name} (validation)" for name in shown)), strict=True):
            by_round(panel, ticks=6)
            panel.set_xlim(lines[0]["round"] - 0.9, lines[-1]["round"] + 0.9)
            panel.set_ylabel(label)

    return draw(("(a)", "(b)", "(c)")[: 1 + len(shown)], 2.5, paint)


def convergence(lines: Lines) -> bytes:
    """Pooled validation Dice, both losses, and recall, by round; the best score and collapsed rounds are marked. PNG."""

    def paint(panels: list[Axes]) -> None:
        dice, loss, recall = panels
        _curve(dice, lines, _validation("dice"), style.BLUE, "o-")
        _curve(loss, lines, lambda line: line["train_loss"], style.GREY, "s--", label="training")
        _curve(loss, lines, _validation("loss"), style.BLUE, "o-", label="validation")
        _curve(recall, lines, _validation("recall"), style.BLUE, "o-")
        _mark(dice, lines)
        for panel, label in zip(panels, ("pooled Dice (validation)", "loss", "pooled recall (validation)"), strict=True):
            by_round(panel, ticks=6)
            # Less than one round to the left, so that no tick says 0.
            panel.set_xlim(lines[0]["round"] - 0.9, lines[-1]["round"] + 0.9)
            panel.set_ylabel(label)
        for panel in (dice, recall):
            panel.set_ylim(0, 1)
        loss.set_ylim(bottom=0)
        loss.legend()

    return draw(("(a)", "(b)", "(c)"), 2.5, paint)


def time_per_round(lines: Lines) -> bytes:
    """Wall seconds of each round, stacked by phase. PNG."""

    def paint(panels: list[Axes]) -> None:
        _stack(panels[0], lines, "seconds", PHASES, scale=1.0)
        panels[0].set_ylabel("time per round (s)")

    return draw(("",), 3.0, paint)


def bytes_per_round(lines: Lines) -> bytes:
    """Megabytes that all sites sent to the store in each round, by kind of object. PNG."""

    def paint(panels: list[Axes]) -> None:
        _stack(panels[0], lines, "bytes", BYTES, scale=1e6)
        panels[0].set_ylabel("sent to the store (MB)")

    return draw(("",), 2.6, paint)


def participation(lines: Lines) -> bytes:
    """A row a site, a column a round: whose update was added, who coordinated, who opened, and where keys changed. PNG.

    Marks keep to the upper and lower half of a cell and shrink with the columns, so that 100 rounds can still be read.
    The column of a round that was not begun is empty.
    """
    members = sorted({m for line in lines for m in _known(line)})
    begun = [line for line in lines if was_begun(line)]

    def paint(panels: list[Axes]) -> None:
        axes = panels[0]
        for line in begun:
            for member in members:
                state = _state(line, member)
                if state:
                    axes.add_patch(_cell(line["round"], members.index(member), _STATES[state]))
            _roles(axes, line, members, scale=min(1.0, 60 / len(lines)))
        _epochs(axes, begun)
        numbers = [line["round"] for line in lines]
        axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
        axes.set_ylim(len(members) - 0.4, -0.6)
        axes.set_yticks(range(len(members)), [str(m) for m in members])
        axes.set_ylabel("site")
        axes.grid(visible=False)
        by_round(axes)
        _legend(axes, begun, members)

    return draw(("",), min(8.0, 1.2 + 0.28 * len(members)), paint)


def share_of_learning(lines: Lines) -> float | None:
    """Part of all wall seconds that went into training and evaluation; None where no time was measured."""
    total = sum(line["seconds"].get("total", 0.0) for line in lines)
    learning = sum(line["seconds"].get(phase, 0.0) for line in lines for phase in _LEARNING)
    return learning / total if total else None


def _validation(name: str) -> Callable[[RoundLine], float | None]:
    return lambda line: line["validation"].get(name)


def _curve(
    axes: Axes, lines: Lines, value: Callable[[RoundLine], float | None], colour: str, form: str, label: str | None = None
) -> None:
    points = [(line["round"], v) for line in lines if (v := value(line)) is not None]
    line = form.lstrip("os") if len(points) > _MARKED_ROUNDS else form
    axes.plot([number for number, _ in points], [v for _, v in points], line, color=colour, label=label)


def _mark(axes: Axes, lines: Lines) -> None:
    """A star on the round with the best score, a cross on collapsed ones."""
    scored = [line for line in lines if line["finalised"] and line["validation"].get("score") is not None]
    if scored:
        best = max(scored, key=lambda line: float(line["validation"]["score"]))
        axes.plot(
            best["round"], best["validation"]["dice"], "*", color=style.ORANGE, ms=11, mec=style.BLACK, mew=0.6, ls="",
            label="best score", clip_on=False,
        )  # fmt: skip
    if dead := [line for line in scored if collapse(line["validation"])]:
        rounds, dices = [line["round"] for line in dead], [line["validation"]["dice"] for line in dead]
        axes.plot(rounds, dices, "x", color=style.RED, ms=8, mew=2, label="collapsed", clip_on=False)
    if scored:
        axes.legend(loc="lower right")


def _stack(axes: Axes, lines: Lines, field: str, known: Mapping[str, tuple[str, str]], *, scale: float) -> None:
    rounds = [line["round"] for line in lines]
    found = {name for line in lines for name in line[field]} - {"total"}
    bottom = np.zeros(len(lines))
    for name in [*known, *sorted(found.difference(known))]:
        heights = np.array([line[field].get(name, 0) / scale for line in lines])
        if heights.any():
            label, colour = known.get(name, (name, _OTHER))
            axes.bar(rounds, heights, bottom=bottom, label=label, color=colour, width=0.8)
            bottom += heights
    by_round(axes)
    axes.set_xlim(min(rounds) - 0.8, max(rounds) + 0.8)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, max(bottom, default=0) * 1.05 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    legend_above(axes, columns=4)


def _known(line: RoundLine) -> set[int]:
    return {*line.get("selected", ()), *line["committed"], *line["included"], line["coordinator"]["index"]}


def _state(line: RoundLine, member: int) -> str:
    if member in line["included"]:
        return "added"
    if str(member) in line["excluded"]:
        return "left out"
    if member in line.get("declined", ()):
        return "declined"
    if member in line["committed"]:
        # Committed in a round that came to no sum.
        return ""
    return "silent" if member in line.get("selected", ()) else "not selected"


def _cell(number: int, row: int, colour: str) -> Patch:
    return Rectangle((number - 0.45, row - 0.4), 0.9, 0.8, color=colour, lw=0)


def _roles(axes: Axes, line: RoundLine, members: Sequence[int], *, scale: float) -> None:
    coordinator = members.index(line["coordinator"]["index"])
    form = "D" if line["attempt"] else "s"
    axes.plot(line["round"], coordinator - 0.18, form, color=style.BLACK, ms=4.5 * scale)
    openers = [members.index(m) + 0.2 for m in line.get("quorum", ()) if m in members]
    look: dict[str, Any] = {"color": "white", "mec": style.BLACK, "mew": 0.7 * scale, "ms": 3.5 * scale, "ls": ""}
    axes.plot([line["round"]] * len(openers), openers, "o", **look)
    if line["abandoned"]:
        axes.axvspan(line["round"] - 0.5, line["round"] + 0.5, facecolor="none", edgecolor=style.GREY, hatch="///", lw=0)


def _epochs(axes: Axes, lines: Lines) -> None:
    """A line where the members opened with new keys."""
    for before, after in pairwise(lines):
        if before.get("epoch") != after.get("epoch"):
            axes.axvline(after["round"] - 0.5, color=style.BLACK, lw=1.2, ls=":")


def _legend(axes: Axes, lines: Lines, members: Sequence[int]) -> None:
    """Only what is in the picture."""
    found = {_state(line, member) for line in lines for member in members}
    handles: list[Artist] = [Patch(color=colour, label=state) for state, colour in _STATES.items() if state in found]
    handles += axes.plot([], [], "s", color=style.BLACK, ms=5, label="coordinated")
    if any(line["attempt"] for line in lines):
        handles += axes.plot([], [], "D", color=style.BLACK, ms=5, label="took over")
    if any(line.get("quorum") for line in lines):
        handles += axes.plot([], [], "o", color="white", mec=style.BLACK, mew=0.7, ms=3.5, label="opened")
    if any(line["abandoned"] for line in lines):
        handles.append(Patch(facecolor="none", edgecolor=style.GREY, hatch="///", lw=0, label="abandoned"))
    if len({line.get("epoch") for line in lines}) > 1:
        handles += axes.plot([], [], color=style.BLACK, lw=1.2, ls=":", label="new keys")
    axes.figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6))
