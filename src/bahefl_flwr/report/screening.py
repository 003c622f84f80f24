"""What screening saw of each update and made of it: a picture and a table. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from bahefl_flwr.report import style
from bahefl_flwr.report.style import by_round, draw
from bahefl_flwr.report.tables import Row
from bahefl_flwr.run_folder import RoundLine

SCREENING_HEAD: Row = (
    "round", "site", "verdict", "norm / usual", "mean cosine to the others", "alignment, recent", "alignment, drift",
)  # fmt: skip
ROUND_HEAD: Row = ("round", "separation of two camps", "conflict above", "outcome")
# More lines than colours cannot be told apart; then all are drawn alike, and only what was left out stands out.
_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.YELLOW, style.BLACK)
_Figure = Callable[[Mapping[str, Any], str], float | None]


def is_screened(lines: Sequence[RoundLine]) -> bool:
    """Whether any round has figures of screening."""
    return any(line.get("screening") for line in lines)


def screening_picture(lines: Sequence[RoundLine]) -> bytes:
    """Norm, mean cosine and separation by round, a line a site; a cross where its update was left out. PNG."""

    def paint(panels: list[Axes]) -> None:
        norms, cosines, separation = panels
        _lines(norms, lines, lambda shown, site: shown["norms"].get(site))
        _lines(cosines, lines, lambda shown, site: shown["cosines"].get(site))
        _separation(separation, lines)
        for axes, label in zip(
            panels, ("norm / usual norm", "mean cosine to the others", "separation of two camps"), strict=True
        ):
            axes.set_ylabel(label)
            by_round(axes, ticks=6)

    return draw(("(a)", "(b)", "(c)"), 2.5, paint)


def screening_rows(lines: Sequence[RoundLine]) -> list[Row]:
    """A row a round and site."""
    return [row for line in lines if line.get("screening") for row in _rows_of(line)]


def round_rows(lines: Sequence[RoundLine]) -> list[Row]:
    """A row a round."""
    return [
        (str(line["round"]), _figure(shown["separation"]), _figure(shown["threshold"]), str(line.get("outcome", "")))
        for line in lines
        if (shown := line.get("screening"))
    ]


def _rows_of(line: RoundLine) -> Iterator[Row]:
    shown = line["screening"]
    for site in _sites([line]):
        columns = (shown["norms"], shown["cosines"], *(shown["alignments"].get(name, {}) for name in ("recent", "drift")))
        yield str(line["round"]), site, _verdict(line, site), *(_figure(column.get(site)) for column in columns)


def _verdict(line: RoundLine, site: str) -> str:
    reason = line["excluded"].get(site)
    return reason.replace("_", " ") if reason else f"weight {line['screening']['weights'].get(site, '')}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _sites(lines: Sequence[RoundLine]) -> list[str]:
    found = {
        site
        for line in lines
        if (shown := line.get("screening"))
        for part in ("norms", "weights", "reasons")
        for site in shown[part]
    }
    return sorted(found, key=int)


def _lines(axes: Axes, lines: Sequence[RoundLine], figure: _Figure) -> None:
    sites = _sites(lines)
    for index, site in enumerate(sites):
        points = [
            (line["round"], figure(shown, site), site in line["excluded"]) for line in lines if (shown := line.get("screening"))
        ]
        known = [(number, value, out) for number, value, out in points if value is not None]
        colour = _COLOURS[index] if len(sites) <= len(_COLOURS) else style.GREY
        axes.plot([n for n, _, _ in known], [v for _, v, _ in known], color=colour)
        out = [(n, v) for n, v, left_out in known if left_out]
        axes.plot([n for n, _ in out], [v for _, v in out], "x", color=style.RED)
    axes.axhline(0, color=style.GREY, linewidth=0.6)


def _separation(axes: Axes, lines: Sequence[RoundLine]) -> None:
    points = [(line["round"], shown) for line in lines if (shown := line.get("screening"))]
    known = [(number, shown["separation"]) for number, shown in points if shown["separation"] is not None]
    axes.plot([n for n, _ in known], [v for _, v in known], "o-", color=style.BLUE)
    axes.plot([n for n, _ in points], [shown["threshold"] for _, shown in points], "--", color=style.RED)
    axes.set_ylim(bottom=0)
