"""Who must act next: a pure function from a reading of the ledger to one command.

The contract is the state machine of a round; nothing here keeps state, waits, or talks to anybody.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bahefl_flwr.records import (
    EpochPhase,
    EpochRecord,
    LedgerView,
    RoundPhase,
    RoundRecord,
    ShareRecord,
    mask_of,
    members_in,
)

MAX_ASKS = 2
"""A site that did not act after being asked this often is waited for, by its deadline, but not asked again."""


class Action(StrEnum):
    """What a site can be asked to do; the values are Flower message types (DESIGN section 4)."""

    HELLO = "query.hello"
    COMMIT_SEEDS = "query.commit_seeds"
    REVEAL_SEEDS = "query.reveal_seeds"
    PUBLISH_KEY_PARTS = "query.publish_key_parts"
    UPLOAD_KEY_PARTS = "query.upload_key_parts"
    CONFIRM_KEY = "query.confirm_key"
    TRAIN = "train"
    UPLOAD = "query.upload"
    AGGREGATE = "query.aggregate"
    OPEN = "query.open"
    EVALUATE = "evaluate"


class Step(StrEnum):
    """What the driver itself can send to the ledger. Anybody may send these; the contract checks the time."""

    EXPIRE_EPOCH = "expire_epoch"
    CLOSE_COMMITS = "close_commits"
    REPLACE_COORDINATOR = "replace_coordinator"
    FINALIZE = "finalize"
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing asked of one member. `variant` tells repeats with other arguments apart (quorum, repair)."""

    action: Action
    number: int
    attempt: int
    member: int
    variant: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the driver remembers of its own questions. Losing it costs repeats of idempotent requests, nothing else."""

    times: Mapping[Request, int] = field(default_factory=dict)
    answered: Collection[Request] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Send `action` to `members` and wait for their replies, at most until the ledger's `deadline`."""

    action: Action
    number: int
    attempt: int
    members: tuple[int, ...]
    deadline: int
    variant: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Send a transaction that moves the ledger on because a deadline passed or everything is there."""

    step: Step
    number: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to ask: wait for `members`, at most until `deadline` (chain seconds)."""

    deadline: int
    members: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The task is over."""


Command = Ask | Advance | Wait | Done

_CEREMONY = {
    EpochPhase.COMMIT: (Action.COMMIT_SEEDS, "committed"),
    EpochPhase.REVEAL: (Action.REVEAL_SEEDS, "revealed"),
    EpochPhase.PUBLISH: (Action.PUBLISH_KEY_PARTS, "published"),
    EpochPhase.CONFIRM: (Action.CONFIRM_KEY, "confirmed"),
}


def next_step(view: LedgerView, shares: Collection[ShareRecord], asked: Asked) -> Command:
    """The one thing to do now.

    Args:
      view: a reading of the ledger.
      shares: decryption shares released so far in the view's round.
      asked: questions already put to the sites.

    Returns:
      A command; carrying it out changes the ledger, or `asked`, or lets time pass until a deadline.
      So the loop that calls this always makes progress (promise P4).
    """
    if not view.task.open:
        return Done()
    if view.epoch.phase in _CEREMONY:
        return _ceremony(view.epoch, view.chain_time, asked)
    match view.round.phase:
        case RoundPhase.COMMIT:
            return _commit(view, asked)
        case RoundPhase.AGGREGATE:
            return _aggregate(view, asked)
        case RoundPhase.VERIFY | RoundPhase.VERIFIED:
            return _verify(view, shares, asked)
        case _:
            return Wait(deadline=view.round.deadline, members=(), why="the ledger opens the next round")


def _ceremony(epoch: EpochRecord, chain_time: int, asked: Asked) -> Command:
    action, done = _CEREMONY[epoch.phase]
    missing = epoch.committee & ~int(getattr(epoch, done))
    if chain_time > epoch.deadline:
        return Advance(step=Step.EXPIRE_EPOCH, number=epoch.epoch)
    if epoch.phase is EpochPhase.CONFIRM:
        # Only now is everybody's digest on the ledger; parts that could be read sooner would let the last one choose the key.
        uploaded = mask_of(q.member for q in asked.answered if (q.action, q.number) == (Action.UPLOAD_KEY_PARTS, epoch.epoch))
        upload = _ask_or_wait(Action.UPLOAD_KEY_PARTS, epoch.epoch, 0, epoch.committee & ~uploaded, epoch.deadline, asked)
        if isinstance(upload, Ask):
            return upload
    return _ask_or_wait(action, epoch.epoch, 0, missing, epoch.deadline, asked)


def _commit(view: LedgerView, asked: Asked) -> Command:
    """Paper steps 2-3: every selected site trains, encrypts and commits."""
    r = view.round
    missing = r.selected & view.active & ~(r.committed | r.declined)
    if view.chain_time > r.deadline:
        return Advance(step=Step.CLOSE_COMMITS, number=r.number)
    repair = _repair(Action.TRAIN, r, missing, view.active, asked)
    return repair or _ask_or_wait(Action.TRAIN, r.number, r.attempt, missing, r.deadline, asked)


def _aggregate(view: LedgerView, asked: Asked) -> Command:
    """Paper steps 4-9: uploads once commits have closed, then the coordinator adds."""
    r = view.round
    if view.chain_time > r.deadline:
        return Advance(step=Step.REPLACE_COORDINATOR, number=r.number)
    missing = r.committed & ~_answered(Action.UPLOAD, r, asked)
    upload = _ask_or_wait(Action.UPLOAD, r.number, r.attempt, missing, r.deadline, asked)
    if isinstance(upload, Ask):
        return upload
    return _ask_or_wait(Action.AGGREGATE, r.number, r.attempt, 1 << r.coordinator, r.deadline, asked)


def _verify(view: LedgerView, shares: Collection[ShareRecord], asked: Asked) -> Command:
    """Paper step 11: sites recompute and attest; a quorum of the key committee releases its shares."""
    r = view.round
    silent = r.committed & ~(r.voted_ok | r.voted_bad)
    late = view.chain_time > r.deadline
    if r.phase is RoundPhase.VERIFIED and r.open_quorum and (late or not silent):
        return Advance(step=Step.FINALIZE, number=r.number)
    if late and r.phase is RoundPhase.VERIFY:
        return Advance(step=Step.REPLACE_COORDINATOR, number=r.number)
    if late:
        return Advance(step=Step.ABANDON, number=r.number, reason="no quorum released its decryption shares in time")
    quorum = 0 if r.open_quorum else choose_quorum(view, shares, asked)
    missing = silent | (quorum & ~_released(shares, quorum))
    repair = _repair(Action.OPEN, r, missing, view.active, asked)
    return repair or _ask_or_wait(Action.OPEN, r.number, r.attempt, missing, r.deadline, asked, quorum)


def choose_quorum(view: LedgerView, shares: Collection[ShareRecord], asked: Asked) -> int:
    """A mask of `threshold` committee members to release shares in this attempt; 0 if too few are able to.

    Members that have not failed come first; among them the round number rotates who serves.
    """
    r, epoch = view.round, view.epoch
    failures = {
        m: sum(
            times
            for q, times in asked.times.items()
            if _matches(q, Action.OPEN, r) and q.member == m and q.variant >> m & 1 and not _released(shares, q.variant) >> m & 1
        )
        for m in members_in(epoch.committee & view.active & r.committed & ~r.voted_bad)
    }
    able = sorted((m for m, n in failures.items() if n < MAX_ASKS), key=lambda m: (failures[m], (m - r.number) % 256))
    return mask_of(able[: epoch.threshold]) if len(able) >= epoch.threshold else 0


def _released(shares: Collection[ShareRecord], quorum: int) -> int:
    return mask_of(s.member for s in shares if s.quorum == quorum)


def _repair(action: Action, r: RoundRecord, missing: int, owners: int, asked: Asked) -> Ask | None:
    """Before a second try owners put their objects again: the first may have failed over a lost or altered object."""
    failed = any(_matches(q, action, r) and missing >> q.member & 1 for q in asked.times)
    variant = 1 + list(Action).index(action)
    done = mask_of(q.member for q in asked.times if _matches(q, Action.UPLOAD, r) and q.variant == variant)
    if not failed or not owners & ~done:
        return None
    members = members_in(owners & ~done)
    return Ask(action=Action.UPLOAD, number=r.number, attempt=r.attempt, members=members, deadline=r.deadline, variant=variant)


def _ask_or_wait(
    action: Action, number: int, attempt: int, missing: int, deadline: int, asked: Asked, variant: int = 0
) -> Command:
    def request(member: int) -> Request:
        return Request(action=action, number=number, attempt=attempt, member=member, variant=variant)

    able = tuple(m for m in members_in(missing) if asked.times.get(request(m), 0) < MAX_ASKS)
    if able:
        return Ask(action=action, number=number, attempt=attempt, members=able, deadline=deadline, variant=variant)
    return Wait(deadline=deadline, members=members_in(missing), why=f"{action} of {number}")


def _matches(q: Request, action: Action, r: RoundRecord) -> bool:
    return (q.action, q.number, q.attempt) == (action, r.number, r.attempt)


def _answered(action: Action, r: RoundRecord, asked: Asked) -> int:
    return mask_of(q.member for q in asked.answered if _matches(q, action, r))
