"""Who must act next: a pure function from a reading of the ledger to one command.

The contract is the state machine of a round; nothing here keeps state, waits, or talks to anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from bahefl_flwr.records import (
    BallotStage,
    EpochPhase,
    LedgerView,
    RoundPhase,
    RoundRecord,
    ShareRecord,
    mask_of,
    members_in,
)
from bahefl_flwr.steps import Action, Advance, Ask, Asked, Command, Done, Request, Step, Stuck, Wait, deed, occasion

MAX_ASKS = 2
"""A site that did not act after being asked this often is waited for, by its deadline, but not asked again."""

STUCK_AFTER_S = 60
"""How long (chain seconds) past its deadline a state may last that the contract leaves by itself."""


_CEREMONY = {
    EpochPhase.COMMIT: (Action.COMMIT_SEEDS, "committed"),
    EpochPhase.REVEAL: (Action.REVEAL_SEEDS, "revealed"),
    EpochPhase.PUBLISH: (Action.PUBLISH_KEY_PARTS, "published"),
    EpochPhase.CONFIRM: (Action.CONFIRM_KEY, "confirmed"),
}
_BALLOTING = {Action.CAST_BALLOT: BallotStage.CAST, Action.REVEAL_BALLOT: BallotStage.REVEAL}
_CEREMONY_PHASES = (*_CEREMONY, EpochPhase.DISPUTE)
_CEREMONY_ACTIONS = {action: phase for phase, (action, _) in _CEREMONY.items()} | {
    Action.UPLOAD_KEY_PARTS: EpochPhase.CONFIRM,
    Action.JUDGE: EpochPhase.DISPUTE,
}


def next_step(
    view: LedgerView, shares: Collection[ShareRecord], asked: Asked, sketches: Collection[ShareRecord] | None = None
) -> Command:
    """The one thing to do now.

    Args:
      view: a reading of the ledger.
      shares: decryption shares released so far in the view's round.
      asked: questions already put to the sites.
      sketches: openings of sketches released so far in the view's round; None where updates are not screened.

    Returns:
      A command; carrying it out changes the ledger, or `asked`, or lets time pass until a deadline that lies ahead.
      So the loop that calls this always makes progress (promise P4).
    """
    if not view.task.open:
        return Done()
    if view.epoch.phase in _CEREMONY_PHASES:
        return _ceremony(view, asked)
    match view.round.phase:
        case RoundPhase.COMMIT:
            return _commit(view, asked)
        case RoundPhase.AGGREGATE:
            return _aggregate(view, sketches, asked)
        case RoundPhase.VERIFY | RoundPhase.VERIFIED:
            return _verify(view, shares, asked)
        case phase:
            return _between_rounds(view, phase)


def _between_rounds(view: LedgerView, phase: RoundPhase) -> Command:
    """An open task without ceremony and without live round: the contract leaves this within the very same transaction."""
    why = f"round {view.round.number} is {phase.name}, epoch {view.epoch.epoch} {view.epoch.phase.name}, and no round was opened"
    patience = view.round.deadline + STUCK_AFTER_S
    return Wait(deadline=patience, members=(), why=why) if view.chain_time <= patience else Stuck(why=why)


def is_over(command: Ask, view: LedgerView) -> bool:
    """Whether the ledger has moved on, so that waiting for replies to `command` holds up the run for nothing."""
    if not view.task.open:
        return True
    if phase := _CEREMONY_ACTIONS.get(command.action):
        return (view.epoch.epoch, view.epoch.phase) != (command.number, phase) or view.chain_time > view.epoch.deadline
    r = view.round
    if (r.number, r.attempt) != (command.number, command.attempt) or view.chain_time > r.deadline:
        return True
    return _is_done(command, r)


def _is_done(command: Ask, r: RoundRecord) -> bool:
    match command.repairs or command.action:
        case Action.TRAIN:
            return r.phase is not RoundPhase.COMMIT
        case Action.OPEN:
            complete = r.phase is RoundPhase.VERIFIED and r.open_quorum and not _silent(r)
            return bool(complete) or r.phase not in (RoundPhase.VERIFY, RoundPhase.VERIFIED)
        case Action.CONFIRM:
            return r.phase is not RoundPhase.VERIFIED or r.open_quorum != command.quorum
        case Action.CAST_BALLOT | Action.REVEAL_BALLOT as action:
            return r.ballot_stage is not _BALLOTING[action] or r.open_quorum != command.quorum
        case _:
            return r.phase is not RoundPhase.AGGREGATE


def _ceremony(view: LedgerView, asked: Asked) -> Command:
    epoch = view.epoch

    def yet_to(action: Action) -> int:
        """Mask of the committee members that have not answered this in the epoch: the ledger does not show that they did."""
        return epoch.committee & ~mask_of(q.member for q in asked.answered if (q.action, q.number) == (action, epoch.epoch))

    if view.chain_time > epoch.deadline:
        return Advance(step=Step.EXPIRE_EPOCH, number=epoch.epoch)
    if epoch.phase is EpochPhase.DISPUTE:
        return _ask_or_wait(Action.JUDGE, view, yet_to(Action.JUDGE), asked)
    if epoch.phase is EpochPhase.CONFIRM:
        # Only now is everybody's digest on the ledger; parts that could be read sooner would let the last one choose the key.
        upload = _ask_or_wait(Action.UPLOAD_KEY_PARTS, view, yet_to(Action.UPLOAD_KEY_PARTS), asked)
        if isinstance(upload, Ask):
            return upload
    action, done = _CEREMONY[epoch.phase]
    return _ask_or_wait(action, view, epoch.committee & ~int(getattr(epoch, done)), asked)


def _commit(view: LedgerView, asked: Asked) -> Command:
    """Paper steps 2-3: every selected site trains, encrypts and commits."""
    r = view.round
    missing = r.selected & view.active & ~(r.committed | r.declined)
    if view.chain_time > r.deadline:
        return Advance(step=Step.CLOSE_COMMITS, number=r.number)
    return _repair(Action.TRAIN, view, missing, asked) or _ask_or_wait(Action.TRAIN, view, missing, asked)


def _aggregate(view: LedgerView, sketches: Collection[ShareRecord] | None, asked: Asked) -> Command:
    """Paper steps 4-9: uploads once commits have closed, openings of the updates' sketches, then the coordinator adds."""
    r = view.round
    if view.chain_time > r.deadline:
        return Advance(step=Step.REPLACE_COORDINATOR, number=r.number)
    missing = r.committed & ~_uploaded(r, asked)
    upload = _ask_or_wait(Action.UPLOAD, view, missing, asked)
    if isinstance(upload, Ask):
        return upload
    if sketches is None:
        return _ask_or_wait(Action.AGGREGATE, view, 1 << r.coordinator, asked)
    return _screen(view, sketches, asked)


def _screen(view: LedgerView, sketches: Collection[ShareRecord], asked: Asked) -> Command:
    """A quorum opens the sketches; with what it opened the coordinator decides and adds."""
    r = view.round
    if not any(r.screen_seed):
        hidden = r.committed & ~r.revealed
        if 2 * (r.committed & r.revealed).bit_count() > r.committed.bit_count():
            return Advance(step=Step.DRAW_SEED, number=r.number)
        return Wait(deadline=r.deadline, members=members_in(hidden), why=f"onion layers of round {r.number}")
    opened = _opened_sketches(view, sketches, asked)
    if opened:
        coordinator = 1 << r.coordinator
        repair = _repair(Action.AGGREGATE, view, coordinator, asked, opened)
        return repair or _ask_or_wait(Action.AGGREGATE, view, coordinator, asked, opened)
    quorum = _sketch_quorum(view, sketches, asked)
    missing = quorum & ~_released(sketches, quorum)
    step = _repair(Action.SCREEN, view, missing, asked) or _ask_or_wait(Action.SCREEN, view, missing, asked, quorum)
    owners_asked = any(_matches(q, Action.UPLOAD, r) and q.repairs is Action.SCREEN for q in asked.times)
    return replace(step, owners_asked=owners_asked) if isinstance(step, Ask) else step


def _opened_sketches(view: LedgerView, sketches: Collection[ShareRecord], asked: Asked) -> int:
    """A quorum whose openings are all there and that the coordinator has not failed on; 0 if there is none.

    None with an accused member, unless the others are too few: an accusation may be a slander.
    """
    able = view.epoch.committee & view.active & ~view.task.excluded
    accused = view.epoch.accused if (able & ~view.epoch.accused).bit_count() >= view.epoch.threshold else 0
    complete = [q for q in dict.fromkeys(s.quorum for s in sketches) if _released(sketches, q) == q]
    left = [q for q in complete if not q & accused and not _is_spent(q, view.round, asked)]
    return left[0] if left else 0


def _is_spent(quorum: int, r: RoundRecord, asked: Asked) -> bool:
    """Whether the coordinator could not decide from what this quorum opened, though it was asked again."""
    failed = [q for q in asked.failed if _matches(q, Action.AGGREGATE, r) and (q.member, q.quorum) == (r.coordinator, quorum)]
    return any(asked.times.get(q, 0) >= MAX_ASKS for q in failed)


def _sketch_quorum(view: LedgerView, sketches: Collection[ShareRecord], asked: Asked) -> int:
    """A mask of `threshold` key holders to open the sketches; 0 if too few are able to. Who served in vain comes last."""
    r, epoch = view.round, view.epoch
    allowed = epoch.committee & view.active & ~view.task.excluded
    complete = {q for q in {s.quorum for s in sketches} if _released(sketches, q) == q}
    in_vain = {m: sum(q >> m & 1 for q in complete) for m in members_in(allowed)}
    failures = _failures(Action.SCREEN, allowed, sketches, r, asked)

    def order(m: int) -> tuple[int, bool, int, bool, int]:
        """The lowest serve first."""
        return failures[m], bool(epoch.accused >> m & 1), in_vain[m], not r.committed >> m & 1, (m - r.number) % 256

    return _first_able(failures, order, epoch.threshold)


def _verify(view: LedgerView, shares: Collection[ShareRecord], asked: Asked) -> Command:
    """Paper step 11: sites recompute and attest; a quorum of the key committee releases its shares; sites confirm."""
    r = view.round
    silent = _silent(r)
    late = view.chain_time > r.deadline
    balloting = r.ballot_stage in _BALLOTING.values()
    if late and balloting:
        return Advance(step=Step.CLOSE_BALLOTS, number=r.number)
    if any(r.opened) and (late or not silent | _unconfirmed(r)):
        return Advance(step=Step.FINALIZE, number=r.number)
    if late and r.phase is RoundPhase.VERIFY:
        return Advance(step=Step.REPLACE_COORDINATOR, number=r.number)
    if late:
        done = "confirmed what its quorum opened" if r.open_quorum else "released decryption shares"
        return Advance(step=Step.ABANDON, number=r.number, reason=f"too few sites {done} in time")
    if r.phase is RoundPhase.VERIFIED and r.open_quorum:
        return _ballot(view, asked) if balloting else _confirm(view, asked)
    quorum = 0 if r.open_quorum else choose_quorum(view, shares, asked)
    missing = silent | (quorum & ~_released(shares, quorum))
    return _repair(Action.OPEN, view, missing, asked) or _ask_or_wait(Action.OPEN, view, missing, asked, quorum)


def _ballot(view: LedgerView, asked: Asked) -> Command:
    """In a conflict every site says which half suits its own data: first sealed by a hash, then in the open."""
    r = view.round
    if r.ballot_stage is BallotStage.CAST:
        action, missing = Action.CAST_BALLOT, r.committed & view.active & ~r.cast
    else:
        action, missing = Action.REVEAL_BALLOT, r.cast & ~r.balloted
    repair = _repair(action, view, missing, asked, r.open_quorum)
    return repair or _ask_or_wait(action, view, missing, asked, r.open_quorum)


def _confirm(view: LedgerView, asked: Asked) -> Command:
    """Everybody who can opens, and says to what; key holders that committed nothing only compare the shares."""
    r = view.round
    compared = mask_of(q.member for q in asked.answered if _matches(q, Action.CONFIRM, r) and q.quorum == r.open_quorum)
    missing = (_unconfirmed(r) | _silent(r) | view.epoch.committee & ~r.committed & ~compared) & view.active
    repair = _repair(Action.CONFIRM, view, missing, asked, r.open_quorum)
    return repair or _ask_or_wait(Action.CONFIRM, view, missing, asked, r.open_quorum)


def _silent(r: RoundRecord) -> int:
    return r.committed & ~(r.voted_ok | r.voted_bad)


def _unconfirmed(r: RoundRecord) -> int:
    return r.committed & ~r.confirmed


def choose_quorum(view: LedgerView, shares: Collection[ShareRecord], asked: Asked) -> int:
    """A mask of `threshold` committee members to release shares in this attempt; 0 if too few are able to.

    Members that have not failed and that nobody accuses come first, then those that committed; among equals the round number
    rotates who serves. Members that did not commit (not selected, or declined) may help once a majority has verified, and none
    whose share of this round was disputed may help again; the contract says so.
    """
    r, epoch = view.round, view.epoch
    allowed = epoch.committee & view.active & ~r.voted_bad & ~r.disputed
    if r.phase is not RoundPhase.VERIFIED:
        allowed &= r.committed
    failures = _failures(Action.OPEN, allowed, shares, r, asked)

    def order(m: int) -> tuple[int, bool, bool, int]:
        """The lowest serve first."""
        return failures[m], bool(epoch.accused >> m & 1), not r.committed >> m & 1, (m - r.number) % 256

    return _first_able(failures, order, epoch.threshold)


def _failures(action: Action, allowed: int, released: Collection[ShareRecord], r: RoundRecord, asked: Asked) -> dict[int, int]:
    """How often each of these members was asked for a share of a quorum and has not released it."""
    return {
        m: sum(
            times
            for q, times in asked.times.items()
            if _matches(q, action, r) and q.member == m and q.quorum >> m & 1 and not _released(released, q.quorum) >> m & 1
        )
        for m in members_in(allowed)
    }


def _first_able(failures: Mapping[int, int], order: Callable[[int], tuple[int, ...]], threshold: int) -> int:
    able = sorted((m for m, n in failures.items() if n < MAX_ASKS), key=order)
    return mask_of(able[:threshold]) if len(able) >= threshold else 0


def _released(shares: Collection[ShareRecord], quorum: int) -> int:
    return mask_of(s.member for s in shares if s.quorum == quorum)


def _repair(action: Action, view: LedgerView, missing: int, asked: Asked, quorum: int = 0) -> Ask | None:
    """Before a second try owners put their objects again: an error may have come from a lost or altered object.

    Silence is no such error, and owners that are silent themselves are left out: they would only delay the second try.

    Args:
      quorum: the quorum whose shares the action uses; each is repaired for itself.
    """
    r = view.round

    def tried(requests: Iterable[Request]) -> list[Request]:
        """Those among them that asked for this action in this round and attempt, of this quorum."""
        return [q for q in requests if _matches(q, action, r) and quorum in (0, q.quorum)]

    replied = mask_of(q.member for q in tried((*asked.answered, *asked.failed)))
    silent = mask_of(q.member for q in tried(asked.times)) & ~replied
    failed = any(missing >> q.member & 1 for q in tried(asked.failed))
    done = mask_of(q.member for q in asked.times if _matches(q, Action.UPLOAD, r) and (q.repairs, q.quorum) == (action, quorum))
    owners = members_in(view.active & ~silent & ~done)
    if not failed or not owners:
        return None
    return Ask(
        action=Action.UPLOAD, number=r.number, attempt=r.attempt, members=owners, quorum=quorum, repairs=action,
        deadline=_share_of_window(Action.UPLOAD, view.chain_time, r.deadline, last=False),
    )  # fmt: skip


def _ask_or_wait(action: Action, view: LedgerView, missing: int, asked: Asked, quorum: int = 0) -> Command:
    ceremony = view.epoch.phase in _CEREMONY_PHASES
    number, attempt = (view.epoch.epoch, 0) if ceremony else (view.round.number, view.round.attempt)
    window_end = view.epoch.deadline if ceremony else view.round.deadline

    def times(member: int) -> int:
        """How often it has been asked for exactly this."""
        return asked.times.get(Request(action=action, number=number, attempt=attempt, member=member, quorum=quorum), 0)

    able = tuple(m for m in members_in(missing) if times(m) < MAX_ASKS)
    if not able:
        return Wait(deadline=window_end, members=members_in(missing), why=f"{occasion(action, number)}, to {deed(action)}")
    last = all(times(m) == MAX_ASKS - 1 for m in able)
    deadline = _share_of_window(action, view.chain_time, window_end, last=last)
    return Ask(action=action, number=number, attempt=attempt, members=able, deadline=deadline, quorum=quorum)


# Other work follows in the same window.
_FOLLOWED = (Action.UPLOAD, Action.SCREEN, Action.OPEN, Action.CONFIRM, Action.UPLOAD_KEY_PARTS)


def _share_of_window(action: Action, now: int, window_end: int, *, last: bool) -> int:
    """Until when one question is waited for, so that a site that hangs cannot use up a window others need (chain seconds).

    Uploads, openings and their confirmation are followed by other work in the same window (the coordinator's sum, the next
    quorum, a second look after a repair: `_FOLLOWED`), so each gets an equal part of what is left. In the other phases nothing
    can follow before the sites asked have acted, and their work (training, adding) may rightly take long: the first question gets
    three quarters of what is left, the last one all of it; a message that got lost is so still repeated in time.
    """
    left = window_end - now
    if action in _FOLLOWED:
        left //= MAX_ASKS + 1
    elif not last:
        left = left * 3 // 4
    return now + max(1, left)


def _matches(q: Request, action: Action, r: RoundRecord) -> bool:
    return (q.action, q.number, q.attempt) == (action, r.number, r.attempt)


def _uploaded(r: RoundRecord, asked: Asked) -> int:
    # Who put its objects again so that others could train did so with commits open: its update stayed at home.
    uploads = [q for q in asked.answered if _matches(q, Action.UPLOAD, r)]
    return mask_of(q.member for q in uploads if q.repairs is not Action.TRAIN)
