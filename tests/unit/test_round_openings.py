"""next_step once a round is verified: quorums, confirmations, strikes, and disputed ceremonies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bahefl_flwr.records import EpochPhase, RoundPhase
from bahefl_flwr.round import choose_quorum, is_over, next_step
from bahefl_flwr.steps import Action, Advance, Ask, Step, Wait
from round_views import ALL, NOTHING, OPENED, PAST, QUORUM, SOON, asked, epoch, round_, verified, view


def test_complete_round_is_finalised_at_once() -> None:
    """All voted and all confirmed what a quorum opened: finalise without waiting for the deadline."""
    r = verified(opened=OPENED, confirmed=ALL)
    assert next_step(view(r), (), NOTHING) == Advance(step=Step.FINALIZE, number=4)


@pytest.mark.parametrize("missing", ["voted_ok", "confirmed"])
def test_silent_site_delays_only_to_the_deadline(missing: str) -> None:
    """Once a majority has confirmed, a site that has not voted or confirmed is waited for until the deadline, and no longer."""
    r = verified(opened=OPENED, **{"confirmed": ALL, missing: 0b01111})
    assert isinstance(next_step(view(r), (), NOTHING), Ask)
    assert next_step(view(replace(r, deadline=PAST)), (), NOTHING) == Advance(step=Step.FINALIZE, number=4)


def test_opened_aggregate_is_confirmed_by_those_who_have_not() -> None:
    """With a quorum's shares there, every committed site that has not confirmed is asked to, for that very quorum."""
    command = next_step(view(verified(confirmed=0b00101)), (), NOTHING)
    assert isinstance(command, Ask)
    assert (command.action, command.members, command.quorum) == (Action.CONFIRM, (1, 3, 4), QUORUM)


def test_key_holders_without_update_compare_the_shares_once() -> None:
    """Key holders that committed nothing are asked to compare the shares too, but their answer is never waited for twice."""
    r = verified(committed=0b00111, voted_ok=0b00111, confirmed=0b00111)
    command = next_step(view(r), (), NOTHING)
    assert isinstance(command, Ask)
    assert (command.action, command.members) == (Action.CONFIRM, (3, 4))
    again = next_step(view(r), (), asked(Action.CONFIRM, 3, 4, quorum=QUORUM, ok=True))
    assert isinstance(again, Wait)


def test_unreadable_share_is_put_again_before_the_second_look() -> None:
    """Where a site could not read a share, owners put their objects again, and then it is asked once more."""
    r = verified(confirmed=0b01111)
    failed = asked(Action.CONFIRM, 4, quorum=QUORUM, failed=True)
    repair = next_step(view(r), (), failed)
    assert isinstance(repair, Ask)
    assert (repair.action, repair.repairs, repair.quorum) == (Action.UPLOAD, Action.CONFIRM, QUORUM)
    put = {**failed.times, **{repair.request(m): 1 for m in repair.members}}
    again = next_step(view(r), (), replace(failed, times=put))
    assert isinstance(again, Ask)
    assert (again.action, again.members) == (Action.CONFIRM, (4,))


def test_disputed_member_opens_no_more() -> None:
    """After a quorum was struck another one is asked, without the member whose share was disputed."""
    r = round_(RoundPhase.VERIFIED, committed=ALL, voted_ok=ALL, disputed=0b00010)
    command = next_step(view(r), (), NOTHING)
    assert isinstance(command, Ask)
    assert (command.action, command.quorum.bit_count(), command.quorum & 0b00010) == (Action.OPEN, 3, 0)


def test_accused_member_is_asked_last() -> None:
    """A key holder that another one accused in this epoch is chosen only where there are too few others."""
    r = round_(RoundPhase.VERIFIED, committed=ALL, voted_ok=ALL)
    assert choose_quorum(view(r, epoch(accused=0b00011)), (), NOTHING) == 0b11100
    assert choose_quorum(view(r, epoch(accused=0b00111)), (), NOTHING).bit_count() == 3


def test_unconfirmed_opening_is_abandoned_with_a_reason() -> None:
    """A quorum opened, but by the deadline no majority confirmed: abandoned, and the reason says so."""
    command = next_step(view(verified(deadline=PAST, confirmed=0b00001)), (), NOTHING)
    assert isinstance(command, Advance)
    assert (command.step, "confirmed" in command.reason) == (Step.ABANDON, True)


def test_confirming_ends_when_the_quorum_is_struck() -> None:
    """Replies to CONFIRM are waited for as long as the same quorum stands."""
    command = Ask(action=Action.CONFIRM, number=4, attempt=0, members=(1,), deadline=SOON, quorum=QUORUM)
    assert not is_over(command, view(verified()))
    assert is_over(command, view(verified(open_quorum=0)))


def test_disputed_ceremony_is_judged_by_the_committee() -> None:
    """With evidence on the ledger every committee member is asked to judge, until the deadline."""
    disputed = view(round_(RoundPhase.NONE), epoch(EpochPhase.DISPUTE))
    command = next_step(disputed, (), asked(Action.JUDGE, 0, number=1, ok=True))
    assert isinstance(command, Ask)
    assert (command.action, command.members) == (Action.JUDGE, (1, 2, 3, 4))
    late = view(round_(RoundPhase.NONE), epoch(EpochPhase.DISPUTE, deadline=PAST))
    assert next_step(late, (), NOTHING) == Advance(step=Step.EXPIRE_EPOCH, number=1)


def test_unopenable_round_is_abandoned_with_a_reason() -> None:
    """Verified but no quorum's shares by the deadline: abandoned, and the reason says so."""
    r = round_(RoundPhase.VERIFIED, committed=ALL, voted_ok=ALL, deadline=PAST)
    command = next_step(view(r), (), NOTHING)
    assert isinstance(command, Advance)
    assert (command.step, "shares" in command.reason) == (Step.ABANDON, True)
