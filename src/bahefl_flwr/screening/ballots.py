"""Rule g: what a conflict comes to. A site's own ballot, the count, and what a contested round does. No ledger here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.records import RoundOutcome
from bahefl_flwr.screening.decision import Decision
from bahefl_flwr.screening.fixed_point import ONE, fixed
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.rules import Rules

# A half whose agreement with the history is worse than the other's by more does not win by votes alone.
_WORST_PRIOR = fixed(-0.3)
# By which part of its loss a half must be ahead on the anchor set. In float32, machines differ by about 1e-6.
_ANCHOR_LEAD = 1e-3


def ballot_of(whole: float, first: float, second: float, gain: float) -> int:
    """A site's own vote, from its validation loss after each candidate model.

    Args:
      whole: loss after the sum of both halves; first, second: after each half alone.
      gain: part by which a half must lower the loss.

    Returns:
      1 or 2 for the better half if it is that much better than the whole, else 0.
    """
    losses = [loss if isfinite(loss) else float("inf") for loss in (whole, first, second)]
    better = 2 if losses[2] < losses[1] else 1
    return better if losses[better] < (1 - gain) * losses[0] else 0


def anchor_choice(whole: float, first: float, second: float) -> RoundOutcome:
    """The half whose model does best on the public anchor data; no update where neither half does better than the whole.

    Unlike sites that mean well make a better model together than either camp alone. Then no camp is thrown out, and the round is
    lost; a contested whole is never taken. Nor is a half that is ahead by so little that another machine's rounding could turn
    it: every site must come to the same answer.

    Args:
      whole: loss after the sum of both halves; first, second: after each half alone. One that is not finite is infinite.
    """
    losses = [loss if isfinite(loss) else float("inf") for loss in (whole, first, second)]
    best = min(losses[1:])
    lead = min(losses[0], max(losses[1:])) - best  # not a number where none is finite, and then no lead
    if not lead > _ANCHOR_LEAD * abs(best):
        return RoundOutcome.NONE
    return RoundOutcome.FIRST if losses[1] < losses[2] else RoundOutcome.SECOND


def outcome_of(
    decision: Decision, history: History, rules: Rules, ballots: Mapping[int, int] | None, anchor: Callable[[], int]
) -> RoundOutcome:
    """What becomes of the round: everything, one half, or no update.

    In this order: (1) no conflict: the whole; (2) more than half of the votes for the whole; (3) a clear majority for a half
    that the history does not speak against; (4) a half with a clear lead in history, reputation and votes together; (5)
    contested: the anchor or no update, by the policy. Never the whole then: that destroyed the model in every experiment.

    Args:
      history: before this round; votes count by its reputations.
      ballots: 0 (whole), 1 or 2 of every site that revealed one, by member index; None without a vote.
      anchor: asked only in a contested round under the policy `anchor`; answers 1, 2 or 3.

    Raises:
      ProtocolError: a ballot or the anchor's answer is none of those.
    """
    if not decision.halves:
        return RoundOutcome.WHOLE  # 1
    votes = _count(ballots or {}, history)
    total = sum(votes)
    if 2 * votes[0] > total:
        return RoundOutcome.WHOLE  # 2
    favourite = 2 if votes[2] > votes[1] else 1
    if _elected(decision, votes, favourite, rules):
        return RoundOutcome(favourite)  # 3
    lead = _lead(decision, votes)
    if abs(lead) >= rules.clear_history:
        return RoundOutcome.FIRST if lead > 0 else RoundOutcome.SECOND  # 4
    return _contested(rules, anchor)  # 5


def _count(ballots: Mapping[int, int], history: History) -> tuple[int, int, int]:
    votes = [0, 0, 0]
    for member, choice in ballots.items():
        if choice not in range(3):
            raise ProtocolError(f"site {member} voted {choice}: a ballot is 0, 1 or 2")
        votes[choice] += history.reputation_of(member)
    return votes[0], votes[1], votes[2]


def _elected(decision: Decision, votes: tuple[int, int, int], favourite: int, rules: Rules) -> bool:
    sure = decision.separation is not None and decision.separation >= rules.sure_split
    needed = rules.sure_majority if sure else rules.majority
    own, other = decision.halves[favourite - 1], decision.halves[2 - favourite]
    total = sum(votes)
    return total > 0 and votes[favourite] * ONE >= needed * total and own.prior - other.prior > _WORST_PRIOR


def _lead(decision: Decision, votes: tuple[int, int, int]) -> int:
    """By how much the first half leads, units of 2^-20: history, reputation, and its part of the votes."""
    first, second = decision.halves
    by_votes = (votes[1] - votes[2]) * ONE // max(1, sum(votes))
    return first.prior + first.reputation - second.prior - second.reputation + by_votes


def _contested(rules: Rules, anchor: Callable[[], int]) -> RoundOutcome:
    if rules.policy == "hold":
        return RoundOutcome.NONE
    choice = anchor()
    if choice not in {RoundOutcome.FIRST, RoundOutcome.SECOND, RoundOutcome.NONE}:
        raise ProtocolError(f"the anchor answered {choice} in a contested round: it picks a half (1, 2) or no update (3)")
    return RoundOutcome(choice)
