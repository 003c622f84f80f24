"""A round's screening in plain numbers, for metrics.jsonl and the report. For people: nothing is decided by these floats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bahefl_flwr.records import members_in
from bahefl_flwr.screening.decision import Decision, Half
from bahefl_flwr.screening.figures import Figures
from bahefl_flwr.screening.fixed_point import ONE

_DIGITS = 4


def summary(decision: Decision, figures: Figures) -> dict[str, Any]:
    """What screening saw and decided, as JSON takes it. Keys of sites are their indices as text; absent figures are null."""
    return {
        "weights": _by_site(decision.weights),
        "reasons": {str(member): reason.name for member, reason in sorted(decision.reasons.items())},
        "norms": _by_site({m: round(n / max(1, decision.norm), _DIGITS) for m, n in _column(figures, figures.norms)}),
        "alignments": {name: _by_site(dict(_scaled(figures, column))) for name, column in sorted(figures.alignments.items())},
        "cosines": _by_site(_mean_cosines(figures)),
        "separation": _plain(decision.separation),
        "threshold": _plain(decision.threshold),
        "halves": [_half(half) for half in decision.halves],
    }


def _plain(value: int | None) -> float | None:
    return None if value is None else round(value / ONE, _DIGITS)


def _by_site(values: Mapping[int, float]) -> dict[str, float]:
    return {str(member): value for member, value in sorted(values.items())}


def _column(figures: Figures, column: Iterable[int]) -> Iterable[tuple[int, int]]:
    return zip(figures.members, column, strict=True)


def _scaled(figures: Figures, column: Iterable[int]) -> Iterable[tuple[int, float]]:
    return ((member, round(value / ONE, _DIGITS)) for member, value in _column(figures, column))


def _mean_cosines(figures: Figures) -> dict[int, float]:
    """Mean cosine of each site to the other screened ones."""
    others = max(1, len(figures.members) - 1)
    means = ((sum(row) - ONE) / others / ONE for row in figures.cosines)
    return {member: round(value, _DIGITS) for member, value in zip(figures.members, means, strict=True)}


def _half(half: Half) -> dict[str, Any]:
    return {
        "members": list(members_in(half.members)),
        "prior": round(half.prior / ONE, _DIGITS),
        "reputation": round(half.reputation / ONE, _DIGITS),
    }
