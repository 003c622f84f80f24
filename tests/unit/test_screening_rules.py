"""Rules a to f of screening: each is broken by exactly one crafted update, and by nothing that honest sites send."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bahefl_flwr.records import ExclusionReason, mask_of, members_in
from bahefl_flwr.screening.decision import decide
from bahefl_flwr.screening.figures import figures
from bahefl_flwr.screening.fixed_point import ONE, fixed
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.rules import Rules
from bahefl_flwr.settings import compose
from screening_rounds import RULES, Vector, around, decided, direction, figures_of, references, sketches, usual_history

CENTRE = direction(1)
HONEST = around(CENTRE, 10, 1.0, seed=2)
STRANGER = direction(3)
REASON = ExclusionReason


def with_last(vector: Vector) -> list[Vector]:
    """Nine honest sites, and member 9 sends this."""
    return [*HONEST[:9], vector]


def test_honest_sites_all_stay_in() -> None:
    """Updates that differ as honest ones do are all accepted, and only those above the median norm are clipped a little."""
    decision = decided(HONEST, recent=CENTRE, history=usual_history())
    assert decision.reasons == {}
    assert decision.included == mask_of(range(10))
    assert decision.split == 0
    assert set(decision.weights.values()) <= {7, 8}


def test_sketch_out_of_range_is_out() -> None:
    """Rule a: a sketch whose sums do not fit is left out, whatever its numbers say."""
    opened = sketches(HONEST)
    opened[9] = replace(opened[9], in_range=False)
    seen = figures(opened, 1000, references(CENTRE))
    decision = decide(seen, usual_history(), RULES, {})
    assert decision.reasons == {9: REASON.OUT_OF_RANGE}
    assert (seen.norms[9], seen.cosines[9][0], seen.alignments["recent"][9]) == (0, 0, 0)


def test_numbers_beyond_exact_sums_are_out_of_range() -> None:
    """Rule a: values so large that int64 sums would not be exact count as out of range."""
    opened = sketches(HONEST)
    opened[9] = replace(opened[9], values=opened[9].values * (1 << 20))
    assert decide(figures(opened, 1000, {}), History.empty(), RULES, {}).reasons == {9: REASON.OUT_OF_RANGE}


@pytest.mark.parametrize("length", [0.0, 0.04])
def test_update_far_shorter_than_accepted_ones_is_zero(length: float) -> None:
    """Rule a: below a twentieth of the usual norm there is no update."""
    decision = decided(with_last(HONEST[9] * length), recent=CENTRE, history=usual_history())
    assert decision.reasons == {9: REASON.ZERO}


def test_short_update_is_none_in_the_first_round_too() -> None:
    """Rule a: without history, this round's own median norm is the measure."""
    assert decided(with_last(HONEST[9] * 0.04)).reasons == {9: REASON.ZERO}


def test_short_update_above_a_twentieth_stays() -> None:
    """Rule a, the other side: a site that learned little is no free rider."""
    assert decided(with_last(HONEST[9] * 0.06), recent=CENTRE, history=usual_history()).reasons == {}


def test_copies_are_both_out() -> None:
    """Rule b: two updates that nearly coincide are both left out."""
    near = HONEST[8] + 0.01 * STRANGER
    assert decided(with_last(near), recent=CENTRE, history=usual_history()).reasons == {8: REASON.DUPLICATE, 9: REASON.DUPLICATE}


def test_copies_of_half_of_the_sites_are_out() -> None:
    """Rule b: five copies of one vector do not become the measure of what is usual."""
    decision = decided([*HONEST[:5], *([HONEST[5]] * 5)])
    assert decision.reasons == dict.fromkeys(range(5, 10), REASON.DUPLICATE)


def test_much_alike_sites_are_no_copies() -> None:
    """Rule b, the other side: where all sites agree closely, two of them are not copies of each other."""
    assert decided(around(CENTRE, 10, 0.04, seed=5)).reasons == {}


@pytest.mark.parametrize("names", ["recent", "drift"])
def test_replay_of_a_public_vector_is_out(names: str) -> None:
    """Rule c: an update that is a public vector again is left out, whichever of them it is."""
    other = around(CENTRE, 1, 0.5, seed=7)[0]
    vectors = {"recent": CENTRE if names == "recent" else other, "drift": CENTRE if names == "drift" else other}
    decision = decided(with_last(CENTRE + 0.1 * STRANGER), history=usual_history(), **vectors)
    assert decision.reasons == {9: REASON.REPLAY}


def test_replays_by_half_of_the_sites_are_out() -> None:
    """Rule c: five replays do not become the measure of what is usual."""
    replays = [CENTRE + 0.01 * k * STRANGER for k in range(1, 6)]
    reasons = decided([*HONEST[:5], *replays], recent=CENTRE, history=usual_history()).reasons
    assert set(reasons) == set(range(5, 10))


def test_sites_that_all_go_on_as_before_are_no_replays() -> None:
    """Rule c, the other side: in a convex problem honest updates look like the last round's, and like each other."""
    going_on = around(CENTRE, 10, 0.04, seed=5)
    assert decided(going_on, recent=CENTRE, drift=CENTRE, history=usual_history()).reasons == {}


def test_undoing_is_out() -> None:
    """Rule d: an update against the accepted history that the others do not share is left out."""
    decision = decided(with_last(-HONEST[9]), recent=CENTRE, history=usual_history())
    assert decision.reasons == {9: REASON.UNDOING}


def test_half_that_undoes_is_out() -> None:
    """Rule d: five of ten that push back, however alike, are told from the others by the accepted history."""
    back = around(-CENTRE, 5, 1.0, seed=11)
    decision = decided([*HONEST[:5], *back], recent=CENTRE, history=usual_history())
    assert decision.reasons == dict.fromkeys(range(5, 10), REASON.UNDOING)


def test_accomplices_of_those_that_undo_go_with_them() -> None:
    """Rule d: five push together, three of them against the history, two along it; once three are found, so are all."""
    across = STRANGER - (STRANGER * CENTRE).sum() * CENTRE
    against, along = around(across - 0.5 * CENTRE, 3, 0.3, seed=11), around(across + 0.05 * CENTRE, 2, 0.3, seed=12)
    decision = decided([*HONEST[:5], *against, *along], recent=CENTRE, history=usual_history())
    assert decision.reasons == dict.fromkeys(range(5, 10), REASON.UNDOING)


def test_site_with_other_data_undoes_nothing() -> None:
    """Rule d, its first condition: an update across the history and unlike the others comes from other data, not an attack."""
    across = STRANGER - (STRANGER * CENTRE).sum() * CENTRE
    decision = decided(with_last(across - 0.05 * CENTRE), recent=CENTRE, history=usual_history())
    assert decision.reasons == {}


def test_all_turning_together_undo_nothing() -> None:
    """Rule d, its second condition: where every honest site turns away from the history, none is a stranger."""
    across = direction(13)
    turned = around(across - 0.2 * CENTRE, 10, 1.0, seed=14)
    assert decided(turned, recent=CENTRE, history=usual_history()).reasons == {}


def test_oversized_is_out() -> None:
    """Rule e: more than four times the usual norm is left out."""
    assert decided(with_last(HONEST[9] * 4.5), recent=CENTRE, history=usual_history()).reasons == {9: REASON.OVERSIZED}


@pytest.mark.parametrize(("length", "weight"), [(1.0, 8), (1.9, 8), (2.6, 6), (3.9, 4)])
def test_long_update_is_clipped_by_its_weight(length: float, weight: int) -> None:
    """Rule e: from two to four times the usual norm, the integer weight makes it about twice as long as the others."""
    same = [v / np.linalg.norm(v) for v in HONEST]
    decision = decided([*same[:9], same[9] * length], recent=CENTRE, history=usual_history())
    assert decision.weights[9] == weight


def test_oversized_half_is_out_with_history() -> None:
    """Rule e: accepted norms tell which half is too long."""
    decision = decided([*HONEST[:5], *(9 * v for v in HONEST[5:])], recent=CENTRE, history=usual_history())
    assert decision.reasons == dict.fromkeys(range(5, 10), REASON.OVERSIZED)


def test_reference_norm_stays_near_accepted_ones() -> None:
    """Rule e: if most sites shrink their updates, the clipping norm follows by a factor of two at most."""
    decision = decided([v * 0.1 for v in HONEST], recent=CENTRE, history=usual_history())
    assert decision.norm == usual_history().norm // 2


def test_first_round_of_unlike_norms_is_a_conflict() -> None:
    """Rule e without history: half of the sites cannot expel the other half by sending tiny updates; it is a conflict."""
    decision = decided([*(0.1 * v for v in HONEST[:5]), *HONEST[5:]])
    assert decision.reasons == {}
    assert [members_in(half.members) for half in decision.halves] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
    assert decision.separation is None


def test_first_round_of_fewer_large_updates_is_no_conflict() -> None:
    """Rule e without history: a minority of too long updates is left out as always."""
    decision = decided([*HONEST[:6], *(9 * v for v in HONEST[6:])])
    assert decision.reasons == dict.fromkeys(range(6, 10), REASON.OVERSIZED)


def test_two_camps_are_a_conflict() -> None:
    """Rule f: two directions of five sites each split the round, the camp of the lowest member first."""
    camps = [*around(CENTRE, 5, 0.8, seed=15), *around(STRANGER, 5, 0.8, seed=16)]
    decision = decided([camps[k] for k in (5, 0, 1, 6, 7, 2, 3, 8, 9, 4)])
    assert decision.reasons == {}
    assert [members_in(half.members) for half in decision.halves] == [(0, 3, 4, 7, 8), (1, 2, 5, 6, 9)]
    assert decision.split == mask_of((1, 2, 5, 6, 9))
    assert decision.separation is not None
    assert decision.separation > decision.threshold == RULES.split


def test_usual_spread_raises_the_threshold() -> None:
    """Rule f: where sites always fall into camps, only more than that is a conflict."""
    camps = [*around(CENTRE, 5, 1.0, seed=15), *around(STRANGER, 5, 1.0, seed=16)]
    history = usual_history(spread=0.25)
    decision = decided(camps, recent=CENTRE + STRANGER, history=history)
    assert decision.threshold == fixed(0.25) + RULES.split_margin


def test_no_history_hides_camps_for_ever() -> None:
    """Rule f: the threshold stays within half above `split`, however far sites have drawn apart, a little each round."""
    camps = [*around(CENTRE, 5, 1.0, seed=15), *around(STRANGER, 5, 1.0, seed=16)]
    decision = decided(camps, recent=CENTRE + STRANGER, history=usual_history(spread=0.6))
    assert decision.threshold == RULES.split * 3 // 2
    assert decision.halves


def test_five_survivors_are_never_split() -> None:
    """Rule f: a half of fewer than three sites is never opened, so five survivors cannot be in conflict."""
    decision = decided([*around(CENTRE, 3, 0.5, seed=15), *around(STRANGER, 2, 0.5, seed=16)])
    assert (decision.halves, decision.separation) == ((), None)


def test_stranger_pair_joins_a_half_of_three() -> None:
    """Rule f: two sites that differ from eight others make no half of their own."""
    decision = decided([*around(CENTRE, 8, 0.3, seed=15), *around(-CENTRE, 2, 0.3, seed=16)])
    assert all(half.members.bit_count() >= 3 for half in decision.halves)


def test_unusable_sites_never_enter() -> None:
    """A missing update has no figures and keeps its reason; one named unusable is out although it has figures."""
    unusable = {3: REASON.GARBAGE, 12: REASON.MISSING}
    decision = decided(HONEST, recent=CENTRE, history=usual_history(), unusable=unusable)
    assert decision.reasons == unusable
    assert decision.included == mask_of({*range(10)} - {3})


def test_proved_garbage_is_out_at_once() -> None:
    """Whoever an audit has convicted before is left out without any further look."""
    history = replace(usual_history(), garbage=mask_of([4, 200]))
    assert decided(HONEST, recent=CENTRE, history=history).reasons == {4: REASON.GARBAGE}


def test_nobody_left_is_a_decision() -> None:
    """If every update is out there is nothing to add; that is the caller's to handle."""
    decision = decided([0 * v for v in HONEST])
    assert decision.weights == {}
    assert decision.reasons == dict.fromkeys(range(10), REASON.ZERO)
    assert decided([]).reasons == {}


def test_halves_carry_prior_and_reputation() -> None:
    """A conflict's halves come with their agreement with the history and their mean reputation."""
    camps = [*around(CENTRE, 5, 0.6, seed=15), *around(STRANGER, 5, 0.6, seed=16)]
    history = replace(usual_history(alignment=0.8), reputation={5: ONE // 2})
    decision = decided(camps, recent=CENTRE + 0.5 * STRANGER, history=history, rules=replace(RULES, undoing=0))
    first, second = decision.halves
    assert first.prior > second.prior > 0
    assert (first.reputation, second.reputation) == (ONE, ONE * 9 // 10)


def test_norms_are_of_the_unweighted_update() -> None:
    """Two sites with the same update and different weights have the same norm, up to rounding of the encoding."""
    opened = sketches(HONEST[:2])
    opened[0] = replace(opened[0], values=(opened[0].values * 3), weight=300)
    opened[1] = replace(opened[0], values=opened[0].values // 3, weight=100)
    first, second = figures(opened, 1000, {}).norms
    assert first == second


def test_figures_without_history_have_no_alignments() -> None:
    """A zero reference says nothing, and there are no scores then."""
    seen = figures_of(HONEST, recent=0 * CENTRE)
    assert seen.alignments == {}
    assert seen.scores() == ()


@pytest.mark.parametrize(("min_sites", "side"), [(2, 3), (3, 3), (4, 4)])
def test_no_side_is_smaller_than_the_ledger_allows(min_sites: int, side: int) -> None:
    """The ledger refuses a half of fewer than `min_sites`, so the rules make none; nor one below their own least."""
    assert Rules.of(compose().screening, full_weight=8, min_sites=min_sites).smallest_side == side


def test_three_hostile_sites_are_no_half_where_four_are_asked_for() -> None:
    """With min_sites 4, three sites against five are no conflict that the ledger would refuse; four against four are one."""
    four = Rules.of(compose().screening, full_weight=8, min_sites=4)
    three_against = [*HONEST[:5], *(-vector for vector in HONEST[5:8])]
    assert decided(three_against, rules=RULES).split.bit_count() == 3
    assert decided(three_against, rules=four).split.bit_count() in (0, 4)
    four_against = [*HONEST[:4], *(-vector for vector in HONEST[4:8])]
    assert decided(four_against, rules=four).split == 0b11110000
