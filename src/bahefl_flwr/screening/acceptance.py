"""Rule h: what a finished round changes in the history. To be left out costs a say in later ballots, and is a reason to look."""

from __future__ import annotations

from collections.abc import Iterable

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.records import ExclusionReason, RoundOutcome, mask_of, members_in
from bahefl_flwr.screening.decision import Decision
from bahefl_flwr.screening.figures import Figures
from bahefl_flwr.screening.fixed_point import ONE, mean, median, running_mean
from bahefl_flwr.screening.history import History


def accepted(decision: Decision, outcome: RoundOutcome) -> int:
    """Mask of the sites whose updates the new model holds."""
    halves = {RoundOutcome.FIRST: decision.included & ~decision.split, RoundOutcome.SECOND: decision.split, RoundOutcome.NONE: 0}
    return halves.get(outcome, decision.included)


def next_history(history: History, figures: Figures, decision: Decision, outcome: RoundOutcome) -> History:
    """The history after a round.

    A round without an accepted update teaches nothing but which sites sent garbage.

    Raises:
      ProtocolError: the outcome is SPOILED: such a round is not over.
    """
    if outcome == RoundOutcome.SPOILED:
        raise ProtocolError("a spoiled round has no history yet: screen it again without the culprits first")
    garbage = history.garbage | mask_of(m for m, reason in decision.reasons.items() if reason == ExclusionReason.GARBAGE)
    members = members_in(accepted(decision, outcome))
    norm, alignment, spread, rounds = history.norm, history.alignment, history.spread, history.rounds
    reputation = dict(history.reputation)
    if members:
        norm = running_mean(norm, _usual_norm(figures, decision, members), tenths=3)
        if decision.scores:
            alignment = running_mean(alignment, max(0, mean(decision.scores[m] for m in members)), tenths=3)
        if decision.separation is not None and not decision.halves:
            spread = running_mean(spread, decision.separation, tenths=1)
        reputation = _reputations(history, figures, decision, members)
        rounds += 1
    return History(norm=norm, alignment=alignment, spread=spread, reputation=reputation, garbage=garbage, rounds=rounds)


def _usual_norm(figures: Figures, decision: Decision, members: Iterable[int]) -> int:
    """The median norm of the accepted, and no more than longer updates were clipped to.

    Halves of unlike norms (a conflict without a split test) were clipped to what suits the shorter one: the winner's own median
    counts, or tiny updates of the losers would make every later update of the winners oversized.
    """
    norms = dict(zip(figures.members, figures.norms, strict=True))
    usual = median(norms[m] for m in members)
    return usual if decision.halves and decision.separation is None else min(usual, decision.norm)


def _reputations(history: History, figures: Figures, decision: Decision, members: Iterable[int]) -> dict[int, int]:
    winners = frozenset(members)
    present = sorted({*figures.members, *decision.reasons})
    after = {member: _reputation(history.reputation_of(member), member, decision, winners) for member in present}
    known = {**history.reputation, **after}
    return {member: value for member, value in sorted(known.items()) if value != ONE}


def _reputation(before: int, member: int, decision: Decision, winners: frozenset[int]) -> int:
    """A tenth of what is missing comes back every round; then six tenths stay to a site left out, seven to the outvoted half."""
    recovered = before + -(-(ONE - before) // 10)
    if member in decision.reasons:
        return recovered * 6 // 10
    return recovered if member in winners else recovered * 7 // 10
