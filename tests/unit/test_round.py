"""next_step over all ledger states: a pure function, so every state can be put before it by hand."""

from __future__ import annotations

from collections import Counter
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.records import EpochPhase, RoundPhase, ShareRecord, mask_of
from bahefl_flwr.round import MAX_ASKS, STUCK_AFTER_S, choose_quorum, is_over, next_step
from bahefl_flwr.steps import Action, Advance, Ask, Asked, Done, Request, Step, Stuck, Wait
from round_views import ALL, NOTHING, NOW, OPENED, PAST, SOON, ZERO, asked, epoch, round_, view


def test_closed_task_is_done() -> None:
    """A task that is not open leaves nothing to do, whatever the round looks like."""
    assert next_step(view(round_(RoundPhase.COMMIT), open_=False), (), NOTHING) == Done()


@pytest.mark.parametrize(
    ("phase", "done", "action"),
    [
        (EpochPhase.COMMIT, "committed", Action.COMMIT_SEEDS),
        (EpochPhase.REVEAL, "revealed", Action.REVEAL_SEEDS),
        (EpochPhase.PUBLISH, "published", Action.PUBLISH_KEY_PARTS),
        (EpochPhase.CONFIRM, "confirmed", Action.CONFIRM_KEY),
    ],
)
def test_ceremony_asks_those_who_have_not_acted(phase: EpochPhase, done: str, action: Action) -> None:
    """Each phase of the key ceremony asks exactly the committee members without an entry on the ledger."""
    uploaded = asked(Action.UPLOAD_KEY_PARTS, 0, 1, 2, 3, 4, number=1, ok=True)
    command = next_step(view(round_(RoundPhase.NONE), epoch(phase, **{done: 0b00101})), (), uploaded)
    assert isinstance(command, Ask)
    assert (command.action, command.number, command.members) == (action, 1, (1, 3, 4))


def test_key_parts_are_put_once_all_are_named_on_the_ledger() -> None:
    """The last phase of the ceremony first asks every member for its public parts, and only those that have not answered."""
    confirming = view(round_(RoundPhase.NONE), epoch(EpochPhase.CONFIRM))
    command = next_step(confirming, (), asked(Action.UPLOAD_KEY_PARTS, 0, 3, number=1, ok=True))
    assert isinstance(command, Ask)
    assert (command.action, command.number, command.members) == (Action.UPLOAD_KEY_PARTS, 1, (1, 2, 4))


def test_late_ceremony_expires() -> None:
    """After the ceremony's deadline the driver lets the epoch expire instead of asking on."""
    command = next_step(view(round_(RoundPhase.NONE), epoch(EpochPhase.REVEAL, deadline=PAST)), (), NOTHING)
    assert command == Advance(step=Step.EXPIRE_EPOCH, number=1)


def test_commit_asks_selected_sites_that_have_neither_committed_nor_declined() -> None:
    """Training is asked of selected, active sites that have not answered on the ledger."""
    r = round_(RoundPhase.COMMIT, selected=0b01111, committed=0b00001, declined=0b00010)
    command = next_step(view(r, active=0b10111), (), NOTHING)
    assert isinstance(command, Ask)
    assert (command.action, command.members) == (Action.TRAIN, (2,))


def test_commit_deadline_closes_commits() -> None:
    """Nobody is waited for beyond the ledger's deadline."""
    command = next_step(view(round_(RoundPhase.COMMIT, deadline=PAST)), (), NOTHING)
    assert command == Advance(step=Step.CLOSE_COMMITS, number=4)


def test_failed_training_first_makes_owners_put_their_objects_again() -> None:
    """Before a second try of a `train` that failed, every active site is asked to put its objects again."""
    memory = asked(Action.TRAIN, 0, 1, 2, 3, 4, failed=True)
    command = next_step(view(round_(RoundPhase.COMMIT, committed=0b11110)), (), memory)
    assert isinstance(command, Ask)
    assert (command.action, command.repairs, command.members) == (Action.UPLOAD, Action.TRAIN, (0, 1, 2, 3, 4))


def test_silence_calls_for_no_repair() -> None:
    """A site that did not reply at all is simply asked again: nothing says that an object is lost."""
    command = next_step(view(round_(RoundPhase.COMMIT, committed=0b11110)), (), asked(Action.TRAIN, 0))
    assert isinstance(command, Ask)
    assert (command.action, command.members) == (Action.TRAIN, (0,))


def test_silent_owner_does_not_hold_up_a_repair() -> None:
    """A site that hangs in the failed action is not asked to put its objects again."""
    failed, hung = asked(Action.TRAIN, 0, 1, failed=True), asked(Action.TRAIN, 2)
    memory = Asked(times={**failed.times, **hung.times}, failed=failed.failed)
    command = next_step(view(round_(RoundPhase.COMMIT)), (), memory)
    assert isinstance(command, Ask)
    assert (command.action, command.members) == (Action.UPLOAD, (0, 1, 3, 4))


def test_wait_names_the_silent_and_the_deadline() -> None:
    """A site asked in vain often enough is waited for by name, until the ledger's deadline."""
    command = next_step(view(round_(RoundPhase.COMMIT, committed=0b10111)), (), asked(Action.TRAIN, 3, times=MAX_ASKS))
    assert isinstance(command, Wait)
    assert (command.members, command.deadline) == ((3,), SOON)


@pytest.mark.parametrize(
    ("phase", "memory", "deadline"),
    [
        (RoundPhase.COMMIT, NOTHING, 1075),
        (RoundPhase.COMMIT, asked(Action.TRAIN, 0, 1, 2, 3, 4), SOON),
        (RoundPhase.AGGREGATE, NOTHING, 1033),
        (RoundPhase.AGGREGATE, asked(Action.UPLOAD, 0, 1, 2, 3, 4, ok=True), 1075),
        (RoundPhase.VERIFY, NOTHING, 1033),
    ],
)
def test_question_gets_a_share_of_the_window(phase: RoundPhase, memory: Asked, deadline: int) -> None:
    """Uploading and opening get a third of the 100 s left, training and adding three quarters, then the rest."""
    command = next_step(view(round_(phase, committed=0 if phase is RoundPhase.COMMIT else ALL)), (), memory)
    assert isinstance(command, Ask)
    assert command.deadline == deadline


def test_question_at_the_very_deadline_gets_a_second() -> None:
    """In the last second of a window a question still waits for one second, not for none."""
    command = next_step(view(round_(RoundPhase.AGGREGATE, committed=ALL), now=SOON), (), NOTHING)
    assert isinstance(command, Ask)
    assert command.deadline == SOON + 1


def ask_of(action: Action, number: int = 4, repairs: Action | None = None) -> Ask:
    return Ask(action=action, number=number, attempt=0, members=(0,), deadline=SOON, repairs=repairs)


@pytest.mark.parametrize(
    ("action", "phase", "changes", "over"),
    [
        (Action.TRAIN, RoundPhase.COMMIT, {}, False),
        (Action.TRAIN, RoundPhase.COMMIT, {"deadline": PAST}, True),
        (Action.TRAIN, RoundPhase.AGGREGATE, {}, True),
        (Action.UPLOAD, RoundPhase.AGGREGATE, {}, False),
        (Action.AGGREGATE, RoundPhase.AGGREGATE, {}, False),
        (Action.AGGREGATE, RoundPhase.AGGREGATE, {"attempt": 1}, True),
        (Action.AGGREGATE, RoundPhase.VERIFY, {}, True),
        (Action.OPEN, RoundPhase.VERIFY, {"open_quorum": 7, "voted_ok": ALL}, False),
        (Action.OPEN, RoundPhase.VERIFIED, {"open_quorum": 7, "voted_ok": 0b01111}, False),
        (Action.OPEN, RoundPhase.VERIFIED, {"open_quorum": 0, "voted_ok": ALL}, False),
        (Action.OPEN, RoundPhase.VERIFIED, {"open_quorum": 7, "voted_ok": ALL}, True),
        (Action.OPEN, RoundPhase.VERIFIED, {"open_quorum": 7, "voted_ok": 0b01111, "deadline": PAST}, True),
        (Action.OPEN, RoundPhase.COMMIT, {"number": 5}, True),
    ],
)
def test_waiting_ends_when_the_ledger_has_moved_on(
    action: Action, phase: RoundPhase, changes: dict[str, object], over: bool
) -> None:
    """Replies are waited for as long as the ledger needs what they would bring, and no longer."""
    assert is_over(ask_of(action), view(round_(phase, committed=ALL, **changes))) is over


def test_waiting_for_a_repair_lasts_as_long_as_what_it_repairs() -> None:
    """Objects put again matter while the action that failed over them can still be done."""
    repair = ask_of(Action.UPLOAD, repairs=Action.TRAIN)
    assert not is_over(repair, view(round_(RoundPhase.COMMIT)))
    assert is_over(repair, view(round_(RoundPhase.AGGREGATE)))


@pytest.mark.parametrize(
    ("action", "phase"),
    [
        (Action.REVEAL_SEEDS, EpochPhase.REVEAL),
        (Action.UPLOAD_KEY_PARTS, EpochPhase.CONFIRM),
        (Action.CONFIRM_KEY, EpochPhase.CONFIRM),
    ],
)
def test_waiting_in_a_ceremony_ends_with_its_phase(action: Action, phase: EpochPhase) -> None:
    """A ceremony's replies are waited for until its phase is left, its deadline has passed, or the task has ended."""
    nothing, command = round_(RoundPhase.NONE), ask_of(action, number=1)
    assert not is_over(command, view(nothing, epoch(phase)))
    assert is_over(command, view(nothing, epoch(EpochPhase.ACTIVE)))
    assert is_over(command, view(nothing, epoch(phase, deadline=PAST)))
    assert is_over(command, view(nothing, epoch(phase), open_=False))


def test_ledger_that_opens_no_round_is_stuck_in_the_end() -> None:
    """An open task without live round or ceremony is waited for past its deadline, by name, and then given up."""
    r = round_(RoundPhase.FINALIZED, deadline=PAST)
    assert isinstance(next_step(view(r, now=PAST + STUCK_AFTER_S), (), NOTHING), Wait)
    command = next_step(view(r, now=PAST + STUCK_AFTER_S + 1), (), NOTHING)
    assert isinstance(command, Stuck)
    assert "round 4 is FINALIZED" in command.why


def test_aggregate_uploads_before_it_adds() -> None:
    """Uploads of all committed sites come first; the coordinator is asked once they have answered."""
    r = round_(RoundPhase.AGGREGATE, committed=0b00111)
    first = next_step(view(r), (), NOTHING)
    second = next_step(view(r), (), asked(Action.UPLOAD, 0, 1, 2, ok=True))
    assert isinstance(first, Ask) and isinstance(second, Ask)
    assert (first.action, first.members) == (Action.UPLOAD, (0, 1, 2))
    assert (second.action, second.members) == (Action.AGGREGATE, (2,))


def test_site_that_cannot_upload_does_not_hold_up_the_coordinator() -> None:
    """After the last upload try the coordinator is asked; it leaves the missing update out."""
    times = dict(asked(Action.UPLOAD, 0, 1, 2, times=MAX_ASKS).times)
    command = next_step(view(round_(RoundPhase.AGGREGATE, committed=0b00111)), (), Asked(times=times))
    assert isinstance(command, Ask)
    assert command.action is Action.AGGREGATE


@pytest.mark.parametrize("phase", [RoundPhase.AGGREGATE, RoundPhase.VERIFY])
def test_late_coordinator_is_replaced(phase: RoundPhase) -> None:
    """A coordinator that missed its deadline, or whose aggregate found no majority in time, is replaced."""
    command = next_step(view(round_(phase, committed=0b00111, deadline=PAST)), (), NOTHING)
    assert command == Advance(step=Step.REPLACE_COORDINATOR, number=4)


def test_open_asks_every_committed_site_and_names_a_quorum() -> None:
    """All committed sites are asked to verify; `quorum` names a quorum of `threshold` committee members."""
    command = next_step(view(round_(RoundPhase.VERIFY, committed=ALL)), (), NOTHING)
    assert isinstance(command, Ask)
    assert (command.action, command.members, command.quorum.bit_count()) == (Action.OPEN, (0, 1, 2, 3, 4), 3)


def test_only_quorum_members_without_share_are_asked_again() -> None:
    """Once all have voted, only the quorum members whose share is not on the ledger are asked."""
    r = round_(RoundPhase.VERIFIED, committed=ALL, voted_ok=ALL)
    quorum = choose_quorum(view(r), (), NOTHING)
    released = min(m for m in range(5) if quorum >> m & 1)
    command = next_step(view(r), (ShareRecord(member=released, quorum=quorum, digest=ZERO),), NOTHING)
    assert isinstance(command, Ask)
    assert mask_of(command.members) == quorum & ~(1 << released)


def test_member_that_does_not_release_is_left_out_of_the_next_quorum() -> None:
    """A committee member that was asked for its share in vain goes to the end of the queue."""
    r = round_(RoundPhase.VERIFIED, committed=ALL, voted_ok=ALL)
    quorum = choose_quorum(view(r), (), NOTHING)
    bad, *good = [m for m in range(5) if quorum >> m & 1]
    memory = asked(Action.OPEN, bad, *good, quorum=quorum)
    shares = [ShareRecord(member=m, quorum=quorum, digest=ZERO) for m in good]
    assert not choose_quorum(view(r), shares, memory) >> bad & 1


def test_no_quorum_out_of_too_few() -> None:
    """With fewer than `threshold` committee members that voted yes or may still help, there is no quorum."""
    r = round_(RoundPhase.VERIFIED, committed=ALL, voted_ok=0b00011, voted_bad=0b11100)
    assert choose_quorum(view(r), (), NOTHING) == 0


def test_members_that_did_not_commit_help_once_a_majority_has_verified() -> None:
    """With fewer committed sites than the threshold, the rest of the committee joins the quorum, once verified."""
    few = {"selected": 0b00011, "committed": 0b00011, "voted_ok": 0b00011}
    assert choose_quorum(view(round_(RoundPhase.VERIFY, **few)), (), NOTHING) == 0
    quorum = choose_quorum(view(round_(RoundPhase.VERIFIED, **few)), (), NOTHING)
    assert (quorum.bit_count(), quorum & 0b00011) == (3, 0b00011)


masks = st.integers(0, 255)
answers = st.sampled_from(["ok", "failed", "silent"])


@given(
    phase=st.sampled_from(list(RoundPhase)), epoch_phase=st.sampled_from(list(EpochPhase)), committed=masks, declined=masks,
    ok=masks, bad=masks, quorum=masks, confirmed=masks, opened=st.booleans(), disputed=masks,
    committee=masks, active=masks, threshold=st.integers(1, 7), late=st.booleans(),
    released=st.lists(st.tuples(st.integers(0, 7), masks), max_size=6), script=st.lists(answers, min_size=1, max_size=20),
)  # fmt: skip
def test_next_step_always_makes_progress(
    phase: RoundPhase, epoch_phase: EpochPhase, committed: int, declined: int, ok: int, bad: int, quorum: int,
    confirmed: int, opened: bool, disputed: int, committee: int, active: int, threshold: int, late: bool,
    released: list[tuple[int, int]], script: list[str],
) -> None:  # fmt: skip
    """On any ledger, whatever sites answer, asking ends; then the driver waits for a time that is to come, or moves on."""
    r = round_(
        phase, selected=255, committed=committed, declined=declined, voted_ok=ok, voted_bad=bad, open_quorum=quorum,
        confirmed=confirmed, opened=OPENED if opened else ZERO, disputed=disputed,
        deadline=PAST if late else SOON,
    )  # fmt: skip
    e = epoch(epoch_phase, committee=committee, threshold=threshold, deadline=PAST if late else SOON)
    reading = view(r, e, active=active)
    shares = [ShareRecord(member=m, quorum=q | 1 << m, digest=ZERO) for m, q in released]
    times: Counter[Request] = Counter()
    replied: dict[str, set[Request]] = {"ok": set(), "failed": set(), "silent": set()}
    answer = cycle(script)
    for _ in range(200):
        command = next_step(reading, shares, Asked(times=times, answered=replied["ok"], failed=replied["failed"]))
        if not isinstance(command, Ask):
            break
        assert command.members and NOW < command.deadline <= SOON
        for m in command.members:
            times[command.request(m)] += 1
            replied[next(answer)].add(command.request(m))
    assert isinstance(command, Wait | Advance | Done | Stuck)
    assert not isinstance(command, Wait) or (not late and NOW < command.deadline <= SOON + STUCK_AFTER_S)
