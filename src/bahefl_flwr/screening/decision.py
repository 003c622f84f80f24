"""Which updates are added, with which weights, and whether their sites fall into two camps. A pure function of public figures.

Every site computes it and must get the same bits; nothing here asks anybody or knows a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bahefl_flwr.records import ExclusionReason, mask_of
from bahefl_flwr.screening.bipartition import best_bipartition
from bahefl_flwr.screening.figures import Figures
from bahefl_flwr.screening.fixed_point import ONE, fixed, mean, within
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.rules import Rules
from bahefl_flwr.screening.suspicion import BEFORE_CLIPPING, clipped_weight, oversized, reference_norm

# Below this usual alignment, a score says how a site stands to noise.
_LEAST_ALIGNMENT = fixed(0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """One camp of a conflict.

    Attributes:
      members: mask of its sites.
      prior: how well they agree with the accepted history, -2^20..2^20; 0 without one.
      reputation: their mean reputation, 0..2^20.
    """

    members: int
    prior: int
    reputation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of the updates of one round.

    Attributes:
      weights: integer weight of every accepted site, 1..full_weight.
      reasons: of every site left out.
      norm: the usual one, as `Figures.norms`; 0 where nobody is left.
      scores: alignment of each screened site with the accepted history; empty without one.
      separation: of the best split, units of 2^-20; None where there are too few sites to split.
      threshold: separation above which it is a conflict.
      halves: the two camps of a conflict, that of the lowest member first; empty without conflict.
    """

    weights: Mapping[int, int]
    reasons: Mapping[int, ExclusionReason]
    norm: int
    scores: Mapping[int, int]
    separation: int | None
    threshold: int
    halves: tuple[Half, ...]

    @property
    def included(self) -> int:
        """Mask of the accepted sites."""
        return mask_of(self.weights)

    @property
    def split(self) -> int:
        """Mask of the second half of a conflict; 0 without one."""
        return self.halves[1].members if self.halves else 0


def decide(figures: Figures, history: History, rules: Rules, unusable: Mapping[int, ExclusionReason]) -> Decision:
    """Apply rules a to f (docs/screening.md).

    GARBAGE among the unusable is the word of an audit after the round's sum was opened. Then nothing is decided again: the
    decision is that of the opened sum, without those sites. Were another site's weight or half to change as well, the difference
    of the two opened sums would show its update.

    Args:
      figures: of all sites whose update could be sketched.
      history: before this round.
      unusable: committed sites that are out whatever their figures say, with the reason.
    """
    convicted = {m for m, reason in unusable.items() if reason is ExclusionReason.GARBAGE}
    decision = _decide(figures, history, rules, {m: reason for m, reason in unusable.items() if m not in convicted})
    return _without(decision, convicted) if convicted else decision


def _without(decision: Decision, convicted: Collection[int]) -> Decision:
    reasons = {**decision.reasons, **dict.fromkeys(convicted, ExclusionReason.GARBAGE)}
    return replace(
        decision,
        weights={m: weight for m, weight in decision.weights.items() if m not in convicted},
        reasons=dict(sorted(reasons.items())),
        halves=tuple(replace(half, members=half.members & ~mask_of(convicted)) for half in decision.halves),
    )


def _decide(figures: Figures, history: History, rules: Rules, unusable: Mapping[int, ExclusionReason]) -> Decision:
    screened = [p for p, member in enumerate(figures.members) if member not in unusable]
    taken = _taken(figures, screened, history, rules)
    left = [p for p in screened if p not in taken]
    norm = reference_norm(figures, left, history) if left else 0
    large = oversized(figures, left, norm, rules)
    rival = history.norm is None and _is_half(large, left, rules)
    if not rival:
        taken |= dict.fromkeys(large, ExclusionReason.OVERSIZED)
        left = [p for p in left if p not in large]
    threshold = split_threshold(history, rules)
    separation, second = (None, large) if rival else _separate(figures, left, rules)
    conflict = rival or (separation is not None and separation > threshold)
    return Decision(
        weights={
            figures.members[p]: clipped_weight(figures.norms[p], norm * rules.clip_norm // ONE, rules.full_weight) for p in left
        },
        reasons=dict(sorted({**unusable, **{figures.members[p]: reason for p, reason in taken.items()}}.items())),
        norm=norm,
        scores=dict(zip(figures.members, figures.scores(), strict=False)),
        separation=separation,
        threshold=threshold,
        halves=_halves(figures, left, second, history) if conflict else (),
    )


def split_threshold(history: History, rules: Rules) -> int:
    """Separation above which two camps are a conflict: above the usual by a margin, but never far above where it starts.

    Without the limit, patient attackers could draw apart a little every round, and the usual separation would follow them.
    """
    usual = (history.spread or 0) + rules.split_margin
    return max(rules.split, min(usual, rules.split * 3 // 2))


def _taken(figures: Figures, screened: Sequence[int], history: History, rules: Rules) -> dict[int, ExclusionReason]:
    taken: dict[int, ExclusionReason] = {}
    for reason, rule in BEFORE_CLIPPING:
        left = [p for p in screened if p not in taken]
        taken |= dict.fromkeys(rule(figures, left, history, rules), reason)
    return taken


def _is_half(large: set[int], left: Sequence[int], rules: Rules) -> bool:
    """Without history, nobody knows which norm is usual where half of the sites send far longer updates than the other half.

    To leave them out would let tiny updates of half of the sites expel all others in the first round.
    """
    return 2 * len(large) == len(left) and len(large) >= rules.smallest_side


def _separate(figures: Figures, left: Sequence[int], rules: Rules) -> tuple[int | None, set[int]]:
    cosines = np.array([[figures.cosines[p][q] for q in left] for p in left], dtype=np.int64)
    found = best_bipartition(cosines, rules.smallest_side)
    if found is None:
        return None, set()
    return found.separation, {p for i, p in enumerate(left) if found.second >> i & 1}


def _halves(figures: Figures, left: Sequence[int], second: set[int], history: History) -> tuple[Half, ...]:
    camps = sorted(([p for p in left if p not in second], sorted(second)))
    return tuple(_half(figures, camp, history) for camp in camps)


def _half(figures: Figures, camp: Sequence[int], history: History) -> Half:
    scores = figures.scores()
    prior = 0
    if scores and history.alignment is not None:
        usual = max(history.alignment, _LEAST_ALIGNMENT)
        prior = mean(within(scores[p] * ONE // usual, -ONE, ONE) for p in camp)
    members = [figures.members[p] for p in camp]
    return Half(members=mask_of(members), prior=prior, reputation=mean(map(history.reputation_of, members)))
