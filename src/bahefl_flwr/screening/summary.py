"""A round's screening in plain numbers, for metrics.jsonl and the report. For people: nothing is decided by these floats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bahefl_flwr.records import ExclusionReason, members_in
from bahefl_flwr.screening.decision import Half
from bahefl_flwr.screening.figures import Figures
from bahefl_flwr.screening.fixed_point import ONE
from bahefl_flwr.screening.record import Record
from bahefl_flwr.screening.suspicion import BEFORE_CLIPPING, least_alignment, least_norm

_DIGITS = 4


def summary(record: Record) -> dict[str, Any]:
    """What screening saw and decided, as JSON takes it. Keys of sites are their indices as text; absent figures are null.

    `limits` are what single updates were compared with: norms as multiples of the usual one, and the alignment of rule d.
    """
    decision, figures = record.decision, record.figures
    return {
        "weights": _by_site(decision.weights),
        "reasons": {str(member): reason.name for member, reason in sorted(decision.reasons.items())},
        "norms": _by_site({m: round(n / max(1, decision.norm), _DIGITS) for m, n in _column(figures, figures.norms)}),
        "alignments": {name: _by_site(dict(_scaled(figures, column))) for name, column in sorted(figures.alignments.items())},
        "cosines": _by_site(_mean_cosines(figures)),
        "separation": _plain(decision.separation),
        "threshold": _plain(decision.threshold),
        "halves": [_half(half) for half in decision.halves],
        "limits": _limits(record),
    }


def _limits(record: Record) -> dict[str, float | None]:
    figures, history, rules, norm = record.figures, record.history, record.rules, record.decision.norm
    shortest, against = (_left_before(record, reason) for reason in (ExclusionReason.ZERO, ExclusionReason.UNDOING))
    zero = least_norm(figures, shortest, history, rules) / norm / ONE if norm else None
    alignment = least_alignment(figures, against, history, rules) / ONE / ONE if figures.alignments and against else None
    return {
        "zero": None if zero is None else round(zero, _DIGITS),
        "clipped": _plain(rules.clip_norm),
        "oversized": _plain(rules.largest_norm),
        "alignment": None if alignment is None else round(alignment, _DIGITS),
    }


def _left_before(record: Record, reason: ExclusionReason) -> list[int]:
    """Positions of the sites that no rule before this one had taken."""
    order = [each for each, _ in BEFORE_CLIPPING]
    later = {*order[order.index(reason) :], ExclusionReason.OVERSIZED}
    reasons = record.decision.reasons
    return [p for p, member in enumerate(record.figures.members) if reasons.get(member, reason) in later]


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
