"""What `next_step` does between the uploads and the aggregate when updates are screened, and in a conflict round."""

from __future__ import annotations

from bahefl_flwr.records import BallotStage, RoundPhase, RoundRecord, ShareRecord
from bahefl_flwr.round import MAX_ASKS, is_over, next_step
from bahefl_flwr.steps import Action, Advance, Ask, Asked, Step, Wait
from round_views import ALL, NOW, PAST, QUORUM, SOON, asked, epoch, round_, verified, view

SEED = bytes([9]) * 32
COORDINATOR = 2


def aggregating(**changes: object) -> RoundRecord:
    """All sites have committed and revealed their layers, and the ledger has drawn the seed."""
    return round_(RoundPhase.AGGREGATE, **{"committed": ALL, "revealed": ALL, "screen_seed": SEED} | changes)  # type: ignore[arg-type]


def uploaded(*more: Asked) -> Asked:
    """Every site has uploaded; further answers on top."""
    parts = (asked(Action.UPLOAD, 0, 1, 2, 3, 4, ok=True), *more)
    return Asked(
        times={q: n for part in parts for q, n in part.times.items()},
        answered=frozenset(q for part in parts for q in part.answered),
        failed=frozenset(q for part in parts for q in part.failed),
    )


def released(quorum: int, *members: int) -> tuple[ShareRecord, ...]:
    """Openings of the sketches by members of a quorum."""
    return tuple(ShareRecord(member=m, quorum=quorum, digest=SEED) for m in members)


def split_round(stage: BallotStage, **changes: object) -> RoundRecord:
    """A conflict round that a quorum has opened."""
    return verified(split=0b11000, included=ALL, ballot_stage=stage, **changes)


def test_uploads_come_before_sketches() -> None:
    """Nobody is asked for sketches while an update may not be in the store."""
    command = next_step(view(aggregating()), (), Asked(), ())
    assert isinstance(command, Ask)
    assert command.action is Action.UPLOAD


def test_objects_put_again_while_commits_were_open_are_no_upload() -> None:
    """The update stayed at home then, and no layer was revealed: everybody is asked to upload all the same."""
    put_again = asked(Action.UPLOAD, 0, 1, 2, 3, 4, ok=True, repairs=Action.TRAIN)
    command = next_step(view(aggregating(revealed=0, screen_seed=bytes(32))), (), put_again, ())
    assert isinstance(command, Ask)
    assert (command.action, command.members, command.repairs) == (Action.UPLOAD, (0, 1, 2, 3, 4), None)


def test_without_screening_the_coordinator_is_asked_at_once() -> None:
    """Once all have uploaded, the coordinator adds; no seed and no sketch is waited for."""
    command = next_step(view(aggregating(screen_seed=bytes(32))), (), uploaded(), None)
    assert isinstance(command, Ask)
    assert (command.action, command.members) == (Action.AGGREGATE, (COORDINATOR,))


def test_the_seed_is_drawn_when_a_majority_has_revealed() -> None:
    """A site that withholds its layer holds nobody up once more than half of the committed ones have shown theirs."""
    command = next_step(view(aggregating(screen_seed=bytes(32), revealed=0b00111)), (), uploaded(), ())
    assert command == Advance(step=Step.DRAW_SEED, number=4)


def test_too_few_layers_are_waited_for_until_the_deadline() -> None:
    """Half of the layers are no majority: their owners are named, and the wait ends with the round's deadline."""
    command = next_step(view(aggregating(screen_seed=bytes(32), revealed=0b00011)), (), uploaded(), ())
    assert isinstance(command, Wait)
    assert (command.members, command.deadline) == ((2, 3, 4), SOON)


def test_a_quorum_of_key_holders_opens_the_sketches() -> None:
    """As many key holders as it takes are asked, all for the same quorum."""
    command = next_step(view(aggregating()), (), uploaded(), ())
    assert isinstance(command, Ask)
    assert command.action is Action.SCREEN
    assert command.quorum.bit_count() == epoch().threshold
    assert set(command.members) == {m for m in range(5) if command.quorum >> m & 1}


def test_only_those_are_asked_again_that_have_not_released() -> None:
    """A member whose opening is on the ledger has done its part."""
    quorum = _first_quorum()
    done = quorum & -quorum
    command = next_step(view(aggregating()), (), uploaded(), released(quorum, done.bit_length() - 1))
    assert isinstance(command, Ask)
    assert (command.action, command.quorum) == (Action.SCREEN, quorum)
    assert done.bit_length() - 1 not in command.members


def test_a_key_holder_that_never_answers_is_replaced_in_the_quorum() -> None:
    """Asked in vain often enough, it is left out of the next quorum."""
    quorum = _first_quorum()
    silent = quorum.bit_length() - 1
    command = next_step(view(aggregating()), (), uploaded(asked(Action.SCREEN, silent, times=MAX_ASKS, quorum=quorum)), ())
    assert isinstance(command, Ask)
    assert command.action is Action.SCREEN
    assert not command.quorum >> silent & 1


def test_the_coordinator_decides_from_a_complete_quorum() -> None:
    """All openings of one quorum are there: the coordinator is asked, and told which."""
    quorum = _first_quorum()
    command = next_step(view(aggregating()), (), uploaded(), released(quorum, *_members(quorum)))
    assert isinstance(command, Ask)
    assert (command.action, command.members, command.quorum) == (Action.AGGREGATE, (COORDINATOR,), quorum)


def test_another_quorum_is_asked_when_a_key_holder_is_accused() -> None:
    """The openings of a quorum with an accused member are not used while others can open."""
    quorum = _first_quorum()
    accused = quorum & -quorum
    command = next_step(view(aggregating(), epoch(accused=accused)), (), uploaded(), released(quorum, *_members(quorum)))
    assert isinstance(command, Ask)
    assert command.action is Action.SCREEN
    assert not command.quorum & accused


def test_a_quorum_the_coordinator_failed_on_twice_gives_way_to_another() -> None:
    """What it opened cannot be used, and nobody knows why: other members serve first."""
    quorum = _first_quorum()
    failed = asked(Action.AGGREGATE, COORDINATOR, times=MAX_ASKS, quorum=quorum, failed=True)
    put_again = asked(Action.UPLOAD, 0, 1, 2, 3, 4, ok=True, quorum=quorum, repairs=Action.AGGREGATE)
    command = next_step(view(aggregating()), (), uploaded(failed, put_again), released(quorum, *_members(quorum)))
    assert isinstance(command, Ask)
    assert command.action is Action.SCREEN
    assert command.quorum != quorum


def test_owners_are_asked_once_and_then_done_without() -> None:
    """After a key holder could not read an update, owners put theirs again; whoever is asked then is told that it was done."""
    quorum = _first_quorum()
    failed = asked(Action.SCREEN, *_members(quorum), quorum=quorum, failed=True)
    repair = next_step(view(aggregating()), (), uploaded(failed), ())
    assert isinstance(repair, Ask)
    assert (repair.action, repair.repairs) == (Action.UPLOAD, Action.SCREEN)
    put_again = asked(Action.UPLOAD, 0, 1, 2, 3, 4, ok=True, repairs=Action.SCREEN)
    again = next_step(view(aggregating()), (), uploaded(failed, put_again), ())
    assert isinstance(again, Ask)
    assert (again.action, again.owners_asked) == (Action.SCREEN, True)


def test_a_late_round_gets_another_coordinator_whatever_is_missing() -> None:
    """The deadline of the phase bounds the sketches as it does the sum."""
    command = next_step(view(aggregating(deadline=PAST)), (), uploaded(), ())
    assert command == Advance(step=Step.REPLACE_COORDINATOR, number=4)


def test_every_site_votes_in_a_conflict() -> None:
    """Ballots are cast by all committed sites that have not yet."""
    command = next_step(view(split_round(BallotStage.CAST, cast=0b00001)), (), Asked())
    assert isinstance(command, Ask)
    assert (command.action, command.members, command.quorum) == (Action.CAST_BALLOT, (1, 2, 3, 4), QUORUM)


def test_only_cast_ballots_are_revealed() -> None:
    """A site that cast none is not asked to show one."""
    command = next_step(view(split_round(BallotStage.REVEAL, cast=0b00111, balloted=0b00001)), (), Asked())
    assert isinstance(command, Ask)
    assert (command.action, command.members) == (Action.REVEAL_BALLOT, (1, 2))


def test_missing_ballots_are_not_waited_for_beyond_the_deadline() -> None:
    """After it anybody may close the stage."""
    command = next_step(view(split_round(BallotStage.CAST, deadline=PAST)), (), Asked())
    assert command == Advance(step=Step.CLOSE_BALLOTS, number=4)


def test_counted_ballots_are_followed_by_confirmation() -> None:
    """Then every site says which model it got."""
    command = next_step(view(split_round(BallotStage.COUNTED, cast=ALL, balloted=ALL)), (), Asked())
    assert isinstance(command, Ask)
    assert command.action is Action.CONFIRM


def test_a_vote_is_over_when_its_stage_is() -> None:
    """The driver does not go on waiting for replies of a stage that the ledger has closed."""
    command = next_step(view(split_round(BallotStage.CAST)), (), Asked())
    assert isinstance(command, Ask)
    assert not is_over(command, view(split_round(BallotStage.CAST), now=NOW + 1))
    assert is_over(command, view(split_round(BallotStage.REVEAL, cast=ALL), now=NOW + 1))


def _first_quorum() -> int:
    command = next_step(view(aggregating()), (), uploaded(), ())
    assert isinstance(command, Ask)
    return command.quorum


def _members(quorum: int) -> tuple[int, ...]:
    return tuple(m for m in range(5) if quorum >> m & 1)
