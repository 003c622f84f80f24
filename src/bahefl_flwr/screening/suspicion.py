"""Rules a to e: which single updates are left out, and why. Each rule is a pure function of public figures.

A rule names positions in `Figures.members`. `left` are the positions that no earlier rule took.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import combinations
from typing import Final

from bahefl_flwr.records import ExclusionReason
from bahefl_flwr.screening.figures import Figures
from bahefl_flwr.screening.fixed_point import ONE, fixed, lower_median, median, within
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.rules import Rules

# Sites that have next to nothing in common say little about who is a stranger among them.
_LEAST_COMMON: Final = fixed(0.2)
# Three times the usual error of a cosine between sketches of 768 numbers.
_NOTICEABLE: Final = fixed(0.06)

Positions = Sequence[int]
Rule = Callable[[Figures, Positions, History, Rules], set[int]]


def proved_garbage(figures: Figures, left: Positions, history: History, _rules: Rules) -> set[int]:
    """An audit has proved that the site encrypts values outside the agreed range: never trusted again."""
    return {p for p in left if history.garbage >> figures.members[p] & 1}


def out_of_range(figures: Figures, left: Positions, _history: History, _rules: Rules) -> set[int]:
    """Rule a: no update inside the agreed range has such a sketch."""
    return {p for p in left if not figures.in_range[p]}


def zero(figures: Figures, left: Positions, history: History, rules: Rules) -> set[int]:
    """Rule a: zero, or shorter than `least_norm`."""
    limit = least_norm(figures, left, history, rules)
    return {p for p in left if figures.norms[p] == 0 or figures.norms[p] * ONE < limit}


def least_norm(figures: Figures, left: Positions, history: History, rules: Rules) -> int:
    """A part of the lower median of this round, within a quarter of the accepted updates and their length; in units of 2^-40.

    A learning rate that falls makes every update shorter than those before; half of the sites cannot lower the limit further.
    """
    lengths = [figures.norms[p] for p in left if figures.norms[p]]
    usual = lower_median(lengths) if lengths else 0
    if history.norm is not None:
        usual = within(usual, history.norm // 4, history.norm)
    return rules.zero_norm * usual


def duplicates(figures: Figures, left: Positions, _history: History, rules: Rules) -> set[int]:
    """Rule b: far closer to another one than sites are to each other. Both are out: who copied whom cannot be told."""
    if len(left) < 3:
        return set()
    distances = {(p, q): ONE - figures.cosines[p][q] for p, q in combinations(left, 2)}
    usual_quarters = _upper_quartile_quarters(distances.values())
    copies = [
        pair
        for pair, distance in distances.items()
        if distance < rules.duplicate and 4 * distance * ONE < rules.duplicate_share * usual_quarters
    ]
    return {p for pair in copies for p in pair}


def replays(figures: Figures, left: Positions, _history: History, rules: Rules) -> set[int]:
    """Rule c: nothing but a public vector, and far nearer to it than sites are.

    The second condition keeps honest sites in where all of them go on as before, as in a convex problem: else every update of
    the second round would be a replay. The upper median, so that half of the sites cannot make a replay usual.
    """
    found: set[int] = set()
    for column in figures.alignments.values() if left else ():
        distances = {p: max(0, ONE - column[p]) for p in left}
        usual = sorted(distances.values())[len(left) // 2]
        found |= {
            p for p, distance in distances.items() if column[p] > rules.replay and distance * ONE < rules.duplicate_share * usual
        }
    return found


def undoing(figures: Figures, left: Positions, history: History, rules: Rules) -> set[int]:
    """Rule d: against the accepted history, and a stranger among the sites that follow it; and who is nearer to such sites.

    The second condition keeps honest sites in where all of them turn together: without it a third of them was left out on a
    plateau (docs/screening.md). Once some are found, it hides their accomplices, whose like then is among the rest: so whoever
    has more in common with those found than with the rest, by as much as makes a conflict, goes with them.
    """
    found = _against(figures, left, history, rules)
    while found:
        rest = [p for p in left if p not in found]
        more = {p for p in rest if len(rest) > 1 and _leaning(figures, p, found, rest) > rules.split}
        if not more:
            break
        found |= more
    return found


def _against(figures: Figures, left: Positions, history: History, rules: Rules) -> set[int]:
    scores = figures.scores()
    if not (scores and left):
        return set()
    limit = least_alignment(figures, left, history, rules)
    low = {p for p in left if scores[p] * ONE < limit}
    rest = [p for p in left if p not in low]
    if len(rest) < 2:
        return set()
    pairs = len(rest) * (len(rest) - 1)
    common = max(2 * sum(figures.cosines[p][q] for p, q in combinations(rest, 2)), _LEAST_COMMON * pairs)
    # Median cosine to the rest, which a few accomplices in it cannot raise, < undoing_common * mean cosine within the rest.
    return {p for p in low if median(figures.cosines[p][q] for q in rest) * ONE * pairs < rules.undoing_common * common}


def least_alignment(figures: Figures, left: Positions, history: History, rules: Rules) -> int:
    """Rule d: an alignment below it points away from the accepted history; in units of 2^-40. Needs history, and sites left."""
    scores = figures.scores()
    usual = max(0, min(history.alignment or 0, lower_median(scores[p] for p in left)))
    # Nearer to zero, an alignment is the sketch's own error.
    return min(rules.undoing * usual, -_NOTICEABLE * ONE)


def _leaning(figures: Figures, position: int, found: Collection[int], rest: Positions) -> int:
    """By how much a site's mean cosine to those found exceeds that to the others of the rest."""
    to_found = _cosine_sum(figures, position, found) // len(found)
    to_rest = (_cosine_sum(figures, position, rest) - ONE) // (len(rest) - 1)
    return to_found - to_rest


def reference_norm(figures: Figures, left: Positions, history: History) -> int:
    """Rule e: the usual norm, by which too long ones are told: the lower median, within a factor of two of the accepted ones."""
    usual = lower_median(figures.norms[p] for p in left)
    return usual if history.norm is None else within(usual, history.norm // 2, 2 * history.norm)


def oversized(figures: Figures, left: Positions, norm: int, rules: Rules) -> set[int]:
    """Rule e: too long to be clipped."""
    return {p for p in left if figures.norms[p] * ONE > rules.largest_norm * norm}


def clipped_weight(norm: int, limit: int, full_weight: int) -> int:
    """Rule e: the nearest integer weight to full_weight * limit / norm, 1..full_weight."""
    if norm <= limit:
        return full_weight
    return max(1, (2 * full_weight * limit + norm) // (2 * norm))


BEFORE_CLIPPING: Final[tuple[tuple[ExclusionReason, Rule], ...]] = (
    (ExclusionReason.GARBAGE, proved_garbage),
    (ExclusionReason.OUT_OF_RANGE, out_of_range),
    (ExclusionReason.ZERO, zero),
    (ExclusionReason.DUPLICATE, duplicates),
    (ExclusionReason.REPLAY, replays),
    (ExclusionReason.UNDOING, undoing),
)
"""In this order; an update is left out for the first reason that holds."""


def _upper_quartile_quarters(values: Iterable[int]) -> int:
    """Four times the upper quartile, interpolated between its two neighbours: an integer."""
    ordered = sorted(values)
    whole, quarters = divmod(3 * (len(ordered) - 1), 4)
    return ordered[whole] * (4 - quarters) + ordered[min(whole + 1, len(ordered) - 1)] * quarters


def _cosine_sum(figures: Figures, position: int, others: Iterable[int]) -> int:
    return sum(figures.cosines[position][q] for q in others)
