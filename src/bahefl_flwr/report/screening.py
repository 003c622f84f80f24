"""What screening saw of each update and made of it: a picture and a table. Nothing is judged here.

The figures are a coordinator's claim: what is not of their form is told, and shown nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final

from matplotlib.axes import Axes

from bahefl_flwr.report import style
from bahefl_flwr.report.style import by_round, draw, legend_above
from bahefl_flwr.report.tables import Row
from bahefl_flwr.run_folder import RoundLine

SCREENING_HEAD: Row = (
    "round", "site", "verdict", "norm / usual", "mean cosine to the others", "alignment, recent", "alignment, drift",
)  # fmt: skip
ROUND_HEAD: Row = ("round", "separation of two camps", "conflict above", "outcome")
CONFLICT_HEAD: Row = ("round", "half", "sites", "agreement with the past", "reputation", "votes for it", "for both", "outcome")
# More lines than colours cannot be told apart; then all are drawn alike, and only what was left out stands out.
_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.YELLOW, style.BLACK)
_SITES: Final = frozenset(map(str, range(256)))
_LINEAR_UP_TO = 10
# Norms reach 2^96 where nobody is left to say which one is usual.
_LARGEST: Final = 1e30
_Shown = Mapping[str, Any]
_Figure = Callable[[_Shown, str], float | None]


def is_screened(lines: Sequence[RoundLine]) -> bool:
    """Whether any round has figures of screening, in whatever form."""
    return any(line.get("screening") for line in lines)


def has_figures(lines: Sequence[RoundLine]) -> bool:
    """Whether any round has figures that can be drawn."""
    return any(_shown(line) for line in lines)


def screening_picture(lines: Sequence[RoundLine]) -> bytes:
    """Norm, alignment, mean cosine and separation by round, a line a site; a cross where its update was left out. PNG."""

    def paint(panels: list[Axes]) -> None:
        norms, alignments, cosines, separation = panels
        _lines(norms, lines, lambda shown, site: shown["norms"].get(site))
        _lines(alignments, lines, _alignment)
        _lines(cosines, lines, lambda shown, site: shown["cosines"].get(site))
        for name in ("zero", "clipped", "oversized"):
            _limit(norms, lines, partial(_rule, name=name))
        _limit(alignments, lines, partial(_rule, name="alignment"))
        _separation(separation, lines)
        _scale(norms)
        labels = ("norm / usual norm", "alignment with the past", "mean cosine to the others", "separation of two camps")
        for axes, label in zip(panels, labels, strict=True):
            axes.set_ylabel(label)
            by_round(axes, ticks=8)
            axes.set_xlim(lines[0]["round"] - 0.4, lines[-1]["round"] + 0.4)
        legend_above(norms)

    return draw(("(a)", "(b)", "(c)", "(d)"), 4.4, paint, columns=2)


def screening_rows(lines: Sequence[RoundLine]) -> list[Row]:
    """A row a round and site."""
    return [row for line in lines if (shown := _shown(line)) for row in _rows_of(line, shown)]


def round_rows(lines: Sequence[RoundLine]) -> list[Row]:
    """A row a round; one that says so where the figures cannot be read."""
    return [_round_row(line) for line in lines if line.get("screening")]


def conflict_rows(lines: Sequence[RoundLine]) -> list[Row]:
    """Two rows a conflict round, a half each: who is in it, what speaks for it, who voted for it, and what came of it."""
    return [row for line in lines if line.get("halves") for row in _halves_of(line)]


def _halves_of(line: RoundLine) -> Iterator[Row]:
    votes: Mapping[str, str] = line.get("votes", {})
    both = _voters(votes, "both")
    shown = _shown(line)
    judged = shown.get("halves", []) if shown else []
    for half, members in zip(("first", "second"), line["halves"], strict=False):
        figures = next((each for each in judged if isinstance(each, dict) and each.get("members") == members), {})
        numbers = (_figure(v) if _is_number(v := figures.get(name)) else "" for name in ("prior", "reputation"))
        sites = " ".join(map(str, members))
        yield str(line["round"]), half, sites, *numbers, _voters(votes, half), both, _told(line, half)


def _voters(votes: Mapping[str, str], choice: str) -> str:
    return " ".join(member for member, vote in votes.items() if vote == choice) or "none"


def _told(line: RoundLine, half: str) -> str:
    outcome = line.get("outcome")
    if outcome in ("first", "second"):
        return "taken" if outcome == half else "left out"
    return "taken" if outcome == "whole" else "model stays"


def _round_row(line: RoundLine) -> Row:
    shown = _shown(line)
    figures = (_figure(shown["separation"]), _figure(shown["threshold"])) if shown else ("figures cannot be read", "")
    return str(line["round"]), *figures, str(line.get("outcome", ""))


def _rows_of(line: RoundLine, shown: _Shown) -> Iterator[Row]:
    for site in _sites([line]):
        columns = (shown["norms"], shown["cosines"], *(shown["alignments"].get(name, {}) for name in ("recent", "drift")))
        yield str(line["round"]), site, _verdict(line, shown, site), *(_figure(column.get(site)) for column in columns)


def _verdict(line: RoundLine, shown: _Shown, site: str) -> str:
    reason = line["excluded"].get(site)
    return reason.replace("_", " ") if reason else f"weight {shown['weights'].get(site, '')}"


def _alignment(shown: _Shown, site: str) -> float | None:
    """What rule d goes by: the mean over the public vectors."""
    values = [column[site] for column in shown["alignments"].values() if column.get(site) is not None]
    return sum(values) / len(values) if values else None


def _rule(shown: _Shown, name: str) -> float | None:
    """A limit of single updates; runs of earlier versions did not record them."""
    limits: Mapping[str, float | None] = shown.get("limits", {})
    return limits.get(name)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _shown(line: RoundLine) -> _Shown | None:
    """A round's figures, as `screening.summary` makes them; None where there are none, or something else stands there."""
    shown = line.get("screening")
    if not isinstance(shown, dict) or not {"weights", "reasons", "norms", "cosines", "separation", "threshold"} <= shown.keys():
        return None
    alignments = shown.get("alignments")
    columns = (shown["weights"], shown["norms"], shown["cosines"])
    fits = (
        isinstance(alignments, dict)
        and all(map(_is_column, (*columns, *alignments.values())))
        and _is_by_site(shown["reasons"])
        and _is_limits(shown.get("limits", {}))
        and _is_number(shown["separation"])
        and shown["threshold"] is not None
        and _is_number(shown["threshold"])
    )
    return shown if fits else None


def _is_column(value: object) -> bool:
    return _is_by_site(value) and isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_limits(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_by_site(value: object) -> bool:
    return isinstance(value, dict) and value.keys() <= _SITES


def _is_number(value: object) -> bool:
    """Or null, which stands for what is not known, and for what is no finite number."""
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _sites(lines: Sequence[RoundLine]) -> list[str]:
    found = {
        site for line in lines if (shown := _shown(line)) for part in ("norms", "weights", "reasons") for site in shown[part]
    }
    return sorted(found, key=int)


def _lines(axes: Axes, lines: Sequence[RoundLine], figure: _Figure) -> None:
    sites = _sites(lines)
    for index, site in enumerate(sites):
        points = [(line["round"], figure(shown, site), site in line["excluded"]) for line in lines if (shown := _shown(line))]
        known = [(number, value, out) for number, value, out in points if value is not None]
        colour = _COLOURS[index] if len(sites) <= len(_COLOURS) else style.GREY
        # With markers, since a line of one round has no length.
        label = f"site {site}" if len(sites) <= len(_COLOURS) else None
        axes.plot([n for n, _, _ in known], [v for _, v, _ in known], ".-", color=colour, label=label)
        out = [(n, v) for n, v, left_out in known if left_out]
        axes.plot([n for n, _ in out], [v for _, v in out], "x", color=style.RED, markersize=6, zorder=3)
    axes.axhline(0, color=style.GREY, linewidth=0.6)


def _limit(axes: Axes, lines: Sequence[RoundLine], limit: Callable[[_Shown], float | None]) -> None:
    """What the rules compared with, dashed; across the round where its neighbours have none, since a point has no length."""
    numbers, values = [line["round"] for line in lines], _by_round(lines, limit)
    if all(map(math.isnan, values)):
        return
    axes.plot(numbers, values, "--", color=style.RED, linewidth=1)
    for at, (number, value) in enumerate(zip(numbers, values, strict=True)):
        beside = (values[k] for k in (at - 1, at + 1) if 0 <= k < len(values))
        if not math.isnan(value) and all(map(math.isnan, beside)):
            axes.hlines(value, number - 0.5, number + 0.5, linestyles="--", color=style.RED, linewidth=1)


def _scale(norms: Axes) -> None:
    """One update a hundred times as long as usual must not press all others into one line."""
    if norms.get_ylim()[1] > _LINEAR_UP_TO:
        norms.set_yscale("symlog", linthresh=_LINEAR_UP_TO)
    norms.set_ylim(bottom=0)


def _separation(axes: Axes, lines: Sequence[RoundLine]) -> None:
    """Broken where no split was tested: too few sites were left, or the round had no figures."""
    numbers = [line["round"] for line in lines]
    separations = _by_round(lines, lambda shown: shown["separation"])
    axes.plot(numbers, separations, "o-", color=style.BLUE)
    _limit(axes, lines, lambda shown: shown["threshold"])
    for first, last in _gaps(numbers, separations):
        axes.text(
            (first + last) / 2, 0.04, "not tested", transform=axes.get_xaxis_transform(), rotation=90, ha="center", va="bottom",
            fontsize=6, color=style.GREY,
        )  # fmt: skip
    axes.set_ylim(bottom=0)


def _by_round(lines: Sequence[RoundLine], figure: Callable[[_Shown], float | None]) -> list[float]:
    """A figure of every round; not a number where there is none, which breaks a line."""
    values = (figure(shown) if (shown := _shown(line)) else None for line in lines)
    return [math.nan if value is None else float(value) for value in values]


def _gaps(numbers: Sequence[int], values: Sequence[float]) -> Iterator[tuple[int, int]]:
    """First and last number of every run of rounds without a value."""
    for unknown, group in groupby(zip(numbers, values, strict=True), key=lambda pair: math.isnan(pair[1])):
        if unknown:
            gap = [number for number, _ in group]
            yield gap[0], gap[-1]
