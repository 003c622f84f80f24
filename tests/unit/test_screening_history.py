"""Rule h: what a finished round leaves in the history."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.records import ExclusionReason, RoundOutcome, mask_of
from bahefl_flwr.screening.acceptance import accepted, next_history
from bahefl_flwr.screening.decision import decide
from bahefl_flwr.screening.fixed_point import ONE, fixed, mean, median
from bahefl_flwr.screening.history import History
from screening_rounds import HOLD, RULES, around, direction, figures_of, usual_history

CENTRE = direction(1)
HONEST = around(CENTRE, 10, 1.0, seed=2)
CAMPS = [*around(CENTRE, 5, 0.6, seed=15), *around(direction(3), 5, 0.6, seed=16)]


def test_first_round_sets_norm_and_spread() -> None:
    """The first accepted round gives the first usual norm and spread; alignment needs a history to be aligned with."""
    seen = figures_of(HONEST)
    decision = decide(seen, History.empty(), RULES, {})
    history = next_history(History.empty(), seen, decision, RoundOutcome.WHOLE)
    assert history == History(
        norm=min(median(seen.norms), decision.norm),
        alignment=None,
        spread=decision.separation,
        reputation={},
        garbage=0,
        rounds=1,
    )


def test_later_rounds_move_the_running_means() -> None:
    """Three tenths of the new norm and alignment and one of the new separation go in."""
    before = usual_history()
    seen = figures_of(HONEST, recent=CENTRE)
    decision = decide(seen, before, RULES, {})
    history = next_history(before, seen, decision, RoundOutcome.WHOLE)
    assert before.norm is not None
    assert before.alignment is not None
    assert before.spread is not None
    assert decision.separation is not None
    assert history.norm == (7 * before.norm + 3 * min(median(seen.norms), decision.norm)) // 10
    assert history.alignment == (7 * before.alignment + 3 * mean(seen.scores())) // 10
    assert history.spread == (9 * before.spread + decision.separation) // 10
    assert history.rounds == before.rounds + 1


def test_excluded_site_loses_reputation_and_regains_it() -> None:
    """Six tenths stay to a site that was left out; then a tenth of what is missing comes back every round, up to all of it."""
    seen = figures_of([*HONEST[:9], -HONEST[9]], recent=CENTRE)
    decision = decide(seen, usual_history(), RULES, {})
    history = next_history(usual_history(), seen, decision, RoundOutcome.WHOLE)
    assert history.reputation == {9: ONE * 6 // 10}
    seen = figures_of(HONEST, recent=CENTRE)
    history = next_history(history, seen, decide(seen, history, RULES, {}), RoundOutcome.WHOLE)
    missing = ONE - ONE * 6 // 10
    assert history.reputation == {9: ONE - missing + -(-missing // 10)}
    for _ in range(200):
        history = next_history(history, seen, decide(seen, history, RULES, {}), RoundOutcome.WHOLE)
    assert history.reputation == {}


def test_missing_site_loses_reputation_and_an_absent_one_does_not() -> None:
    """A site that committed and sent nothing is left out like any other; one that did not commit keeps what it had."""
    before = replace(usual_history(), reputation={30: 5})
    seen = figures_of(HONEST, recent=CENTRE)
    decision = decide(seen, before, RULES, {20: ExclusionReason.MISSING})
    history = next_history(before, seen, decision, RoundOutcome.WHOLE)
    assert history.reputation == {20: ONE * 6 // 10, 30: 5}
    assert history.spread != before.spread


@pytest.mark.parametrize(("outcome", "losers"), [(RoundOutcome.FIRST, range(5, 10)), (RoundOutcome.SECOND, range(5))])
def test_outvoted_half_loses_reputation(outcome: RoundOutcome, losers: range) -> None:
    """Seven tenths stay to the half that was not taken, and only the accepted half shapes the history."""
    seen = figures_of(CAMPS)
    decision = decide(seen, History.empty(), RULES, {})
    history = next_history(History.empty(), seen, decision, outcome)
    assert history.reputation == dict.fromkeys(losers, ONE * 7 // 10)
    assert history.norm == min(median(seen.norms[m] for m in range(10) if m not in losers), decision.norm)
    assert history.spread is None


def test_conflict_never_counts_as_usual_spread() -> None:
    """Even where the votes take the whole, camps that were a conflict do not raise what separation is usual."""
    seen = figures_of(CAMPS)
    decision = decide(seen, History.empty(), RULES, {})
    assert decision.halves
    assert next_history(History.empty(), seen, decision, RoundOutcome.WHOLE).spread is None


def test_winner_of_a_conflict_of_norms_sets_the_norm() -> None:
    """Where half of the sites sent tiny updates and lost, the winners' own norm is usual, and their next updates stay in."""
    seen = figures_of([*(0.1 * v for v in HONEST[:5]), *HONEST[5:]])
    decision = decide(seen, History.empty(), RULES, {})
    history = next_history(History.empty(), seen, decision, RoundOutcome.SECOND)
    assert history.norm == median(seen.norms[5:])
    assert decide(figures_of(HONEST, recent=CENTRE), history, RULES, {}).reasons == {}


def test_no_update_teaches_nothing_but_garbage() -> None:
    """A round without an accepted update leaves the history as it was, except for what an audit proved."""
    seen = figures_of(CAMPS)
    decision = decide(seen, usual_history(), HOLD, {12: ExclusionReason.GARBAGE})
    history = next_history(usual_history(), seen, decision, RoundOutcome.NONE)
    assert history == replace(usual_history(), garbage=1 << 12)


def test_proved_garbage_stays_on_record() -> None:
    """A site convicted once is left out for good."""
    seen = figures_of(HONEST, recent=CENTRE)
    decision = decide(seen, usual_history(), RULES, {3: ExclusionReason.GARBAGE})
    history = next_history(usual_history(), seen, decision, RoundOutcome.WHOLE)
    assert history.garbage == 1 << 3
    assert decide(seen, history, RULES, {}).reasons == {3: ExclusionReason.GARBAGE}


def test_hostile_alignment_never_turns_negative() -> None:
    """If accepted updates point away from the history, the usual alignment goes to zero, not below."""
    seen = figures_of([-v for v in HONEST], recent=CENTRE)
    decision = decide(seen, History.empty(), RULES, {})
    assert decision.reasons == {}
    assert next_history(History.empty(), seen, decision, RoundOutcome.WHOLE).alignment == 0


def test_spoiled_round_has_no_history() -> None:
    """A spoiled round goes on; asking for its history is a mistake."""
    seen = figures_of(HONEST)
    with pytest.raises(ProtocolError, match="spoiled"):
        next_history(History.empty(), seen, decide(seen, History.empty(), RULES, {}), RoundOutcome.SPOILED)


def test_accepted_follows_the_outcome() -> None:
    """All, the half without the second one, the second one, or nobody."""
    decision = decide(figures_of(CAMPS), History.empty(), RULES, {})
    masks = [
        accepted(decision, outcome)
        for outcome in (RoundOutcome.WHOLE, RoundOutcome.FIRST, RoundOutcome.SECOND, RoundOutcome.NONE)
    ]
    assert masks == [mask_of(range(10)), mask_of(range(5)), mask_of(range(5, 10)), 0]


def test_empty_history_is_full_of_trust() -> None:
    """Whoever was never left out has full reputation."""
    assert History.empty().reputation_of(7) == ONE
    assert fixed(1.0) == ONE
