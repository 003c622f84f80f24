"""Claims that must hold whatever anybody does: random actions of members, administrator, strangers and time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from bahefl_flwr.errors import TransactionReverted
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import EpochPhase, LedgerView, MemberStatus, RoundOutcome, RoundPhase, mask_of, members_in
from ledger_sites import CONFIG, NO_EVIDENCE, NO_LAYER, WINDOW_S, N, Sites, digest

LIVE_ROUND = {RoundPhase.COMMIT, RoundPhase.AGGREGATE, RoundPhase.VERIFY, RoundPhase.VERIFIED}
STEPS_OF_CEREMONY = {EpochPhase.COMMIT, EpochPhase.REVEAL, EpochPhase.PUBLISH, EpochPhase.CONFIRM}
LIVE_CEREMONY = STEPS_OF_CEREMONY | {EpochPhase.DISPUTE}
STEPS = 200


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_the_state_machine_holds_whatever_happens(sites: Sites, seed: int) -> None:
    """One live round or ceremony while the task is open; votes and inclusions only of those entitled; no unnamed failure."""
    chance = random.Random(seed)
    finalised = {0: 0}
    given_up: set[int] = set()
    for _ in range(STEPS):
        attempt(chance.choice(ACTIONS), sites, chance)
        view = sites.view()
        check(view)
        if view.epoch.phase is EpochPhase.DISPUTE:
            given_up.add(view.epoch.epoch)
        assert view.epoch.phase is not EpochPhase.ACTIVE or view.epoch.epoch not in given_up
        if not view.task.open:
            assert view.task.end_reason or view.finalized_count == view.task.rounds
            restart(sites)
        if view.round.phase is RoundPhase.COMMIT:
            last = sites.admin.round(view.last_finalized)
            assert view.round.parent == last.aggregate
            assert view.round.base == (last.opened if view.last_finalized else view.task.initial_model)
        finalised[view.task.number] = view.finalized_count
    assert sum(m.coordinated for m in sites.admin.members()) == sum(finalised.values()) > 0


def attempt(action: Callable[[Sites, random.Random], None], sites: Sites, chance: random.Random) -> None:
    """Act; a refusal must be one of the contract's own, never a panic or a lack of gas."""
    try:
        action(sites, chance)
    except TransactionReverted as refusal:
        if not refusal.reason:
            raise


def check(view: LedgerView) -> None:
    """The invariants of one reading."""
    r, epoch = view.round, view.epoch
    live = r.phase in LIVE_ROUND
    assert (live != (epoch.phase in LIVE_CEREMONY)) is view.task.open
    assert not live or epoch.phase is EpochPhase.ACTIVE
    assert not r.committed & r.declined
    assert not r.included & ~r.committed
    assert not (r.voted_ok | r.voted_bad | r.revealed) & ~r.committed
    assert r.screen_seed == NO_LAYER or (r.phase is not RoundPhase.COMMIT and r.revealed)
    assert r.spoiled == NO_LAYER or r.attempt
    assert not r.voted_ok & r.voted_bad
    assert len(r.weights) == r.included.bit_count()
    assert not r.included or len(r.reasons) == (r.committed & ~r.included).bit_count()
    if r.phase in (RoundPhase.VERIFIED, RoundPhase.FINALIZED):
        assert 2 * r.voted_ok.bit_count() > r.committed.bit_count()
        assert r.aggregate != NO_LAYER
    if r.phase in (RoundPhase.AGGREGATE, RoundPhase.VERIFY):
        assert r.committed >> r.coordinator & 1
        assert not r.failed >> r.coordinator & 1
    assert not r.confirmed & ~r.committed
    assert not r.confirmed or r.open_quorum
    assert not r.open_quorum & r.disputed
    if r.opened != NO_LAYER:
        assert r.phase in (RoundPhase.VERIFIED, RoundPhase.FINALIZED)
        assert 2 * r.confirmed.bit_count() > r.committed.bit_count()
    if r.phase is RoundPhase.FINALIZED:
        assert r.opened != NO_LAYER
    assert not epoch.committee & ~epoch.pool
    assert not epoch.accused & ~epoch.committee
    if epoch.phase in LIVE_CEREMONY:
        assert not epoch.committee & ~view.active
        assert not epoch.committee & (view.task.excluded | view.task.absent)
    if epoch.phase is EpochPhase.ACTIVE:
        assert not view.task.absent


def restart(sites: Sites) -> None:
    """Everybody back in, and a new task."""
    for member in sites.admin.members():
        if member.status is MemberStatus.SUSPENDED:
            sites.admin.reinstate(member.address)
    sites.admin.set_config(replace(CONFIG, epoch_rounds=sites.view().task.number % 3))
    sites.start(rounds=3)


def someone(sites: Sites, chance: random.Random) -> FederationLedger:
    """Mostly a member, sometimes the administrator or a stranger."""
    return chance.choice([*sites.ledgers, *sites.ledgers, sites.admin, sites.stranger])


def act_in_ceremony(sites: Sites, chance: random.Random) -> None:
    """The committee takes the present step, or one member a random one."""
    epoch = sites.view().epoch
    if epoch.phase is EpochPhase.DISPUTE:
        judge(sites, chance)
    elif epoch.phase in STEPS_OF_CEREMONY and chance.random() < 0.8:
        sites.take(epoch.phase, key=chance.choice(["key", "key", "key", "key", "key", "key", "key", f"key {chance.random()}"]))
    else:
        sites.take(chance.choice(sorted(STEPS_OF_CEREMONY)), chance.randrange(N))


def judge(sites: Sites, chance: random.Random) -> None:
    """A key holder names who was named first, who helped to open, or anybody; sometimes with its key as evidence."""
    holders = sites.committee()
    named = [a.culprit for a in sites.admin.accusations(sites.view().epoch.epoch)][:1]
    culprit = chance.choice([*named, *members_in(sites.round().open_quorum)] or holders)
    sites.accuse(
        chance.choice([i for i in holders if i != culprit]),
        culprit,
        chance.choice([NO_EVIDENCE, NO_EVIDENCE, digest("evidence")]),
    )


def confirm(sites: Sites, chance: random.Random) -> None:
    """A member confirms a model for some quorum, mostly the open one."""
    r = sites.round()
    quorum = r.open_quorum if chance.random() < 0.9 else chance.randrange(2**N)
    model = digest(chance.choice(["model", "another"]), r.number)
    sites.ledgers[chance.randrange(N)].confirm_opening(r.number, quorum, model, RoundOutcome.WHOLE)


def commit(sites: Sites, chance: random.Random, member: int | None = None) -> None:
    """One member commits, rarely with a digest used before."""
    r, i = sites.round(), chance.randrange(N) if member is None else member
    name = digest("stale") if chance.random() < 0.02 else digest("u", r.number, i)
    sites.ledgers[i].commit_update(r.number, name, 1, chance.randrange(1, 12), r.base)


def decline(sites: Sites, chance: random.Random) -> None:
    """One member declines."""
    sites.ledgers[chance.randrange(N)].decline(sites.round().number, "no data")


def aggregate(sites: Sites, chance: random.Random) -> None:
    """The coordinator, or somebody, submits all committed updates or a random mask."""
    r = sites.round()
    mask = r.committed if chance.random() < 0.8 else r.committed & chance.randrange(2**N)
    sender = sites.coordinator() if chance.random() < 0.9 else someone(sites, chance)
    reasons = b"\1" * (r.committed & ~mask).bit_count()
    sender.submit_aggregate(r.number, digest("a", chance.random()), 1, mask, 0, b"\1" * mask.bit_count(), reasons)


def attest(sites: Sites, chance: random.Random, member: int | None = None) -> None:
    """One member votes, mostly for the aggregate."""
    r, i = sites.round(), chance.randrange(N) if member is None else member
    sites.ledgers[i].attest(r.number, r.aggregate, chance.random() < 0.8, NO_LAYER if r.revealed >> i & 1 else sites.layer(i))


def reveal(sites: Sites, chance: random.Random) -> None:
    """One member reveals its layer before its vote, or somebody draws the seed."""
    r, i = sites.round(), chance.randrange(N)
    if chance.random() < 0.2:
        sites.stranger.draw_seed(r.number)
    else:
        sites.ledgers[i].reveal(r.number, sites.layer(i))


def sketch(sites: Sites, chance: random.Random) -> None:
    """A member names its part of the sketches for a random quorum of the committee."""
    quorum = chance.sample(sites.committee(), min(sites.view().epoch.threshold, len(sites.committee())))
    sites.sketch(chance.choice(quorum), quorum=mask_of(quorum))


def spoil(sites: Sites, chance: random.Random) -> None:
    """All but two say that the opened sum is out of its range."""
    places = chance.choice(["places", "other places"])
    sites.confirm(*chance.sample(range(N), N - 2), model=places, outcome=RoundOutcome.SPOILED)


def release(sites: Sites, chance: random.Random) -> None:
    """A member releases a share for a random quorum of the committee."""
    quorum = chance.sample(sites.committee(), min(sites.view().epoch.threshold, len(sites.committee())))
    sites.release(chance.choice(quorum), quorum=mask_of(quorum))


def advance(sites: Sites, chance: random.Random) -> None:
    """Anybody tries to move the ledger on."""
    ledger, number, epoch = someone(sites, chance), sites.round().number, sites.view().epoch.epoch
    moves: list[Callable[[], object]] = [
        lambda: ledger.close_commits(number),
        lambda: ledger.replace_coordinator(number),
        lambda: ledger.finalize(number),
        lambda: ledger.finalize(number),
        lambda: ledger.finalize(number),
        lambda: ledger.expire_epoch(epoch),
        lambda: ledger.resign(number, "tired"),
        lambda: ledger.abandon(number, "tired"),
    ]
    chance.choice(moves)()


def administer(sites: Sites, chance: random.Random) -> None:
    """The registrar or the administrator steps in; rarely ends the task."""
    account, number = sites.accounts[chance.randrange(N)].address, sites.round().number
    moves: list[Callable[[], object]] = [
        lambda: sites.admin.suspend(account, "off line"),
        lambda: sites.admin.reinstate(account),
        lambda: sites.admin.reinstate(account),
        lambda: sites.admin.select_sites(number, chance.randrange(2**N)),
        lambda: sites.ledgers[0].end_task("not mine to end"),
        sites.admin.renew_keys,
    ]
    chance.choice(moves)()


def let_time_pass(sites: Sites, chance: random.Random) -> None:
    """Half a window, or past the deadline."""
    sites.chain.clock.advance(chance.choice([WINDOW_S // 2, WINDOW_S + 2]))


def enforce(sites: Sites) -> None:
    """What a deadline that has passed allows anybody to do."""
    view, anybody = sites.view(), sites.stranger
    if view.epoch.phase in LIVE_CEREMONY:
        anybody.expire_epoch(view.epoch.epoch)
    elif view.round.phase is RoundPhase.COMMIT:
        anybody.close_commits(view.round.number)
    elif view.round.phase is not RoundPhase.VERIFIED:
        anybody.replace_coordinator(view.round.number)
    elif view.round.opened != NO_LAYER:
        anybody.finalize(view.round.number)
    else:
        anybody.abandon(view.round.number, "no model in time")


def confirm_or_finalize(sites: Sites, chance: random.Random) -> None:
    """A member confirms the model, rarely another one; once all have, anybody finalises."""
    r = sites.round()
    silent = members_in(r.committed & sites.view().active & ~r.confirmed)
    if silent:
        sites.confirm(chance.choice(silent), model=chance.choice(["model"] * 9 + ["another model"]))
    else:
        sites.stranger.finalize(r.number)


def go_on(sites: Sites, chance: random.Random) -> None:
    """What an honest federation would do next, by a random member."""
    view = sites.view()
    r = view.round
    suspected = r.disputed | view.task.excluded
    quorum = members_in(view.epoch.committee & r.voted_ok & ~suspected)[: view.epoch.threshold]
    if view.epoch.phase in LIVE_CEREMONY:
        enforce(sites) if view.chain_time > view.epoch.deadline else act_in_ceremony(sites, chance)
    elif view.chain_time > r.deadline:
        enforce(sites)
    elif r.phase is RoundPhase.COMMIT:
        commit(sites, chance, chance.choice(members_in(r.selected & ~(r.committed | r.declined))))
    elif r.phase is RoundPhase.AGGREGATE:
        aggregate(sites, chance)
    elif silent := r.committed & ~(r.voted_ok | r.voted_bad) & view.active:
        attest(sites, chance, chance.choice(members_in(silent)))
    elif r.open_quorum:
        confirm_or_finalize(sites, chance)
    elif len(quorum) == view.epoch.threshold:
        sites.release(chance.choice(quorum), quorum=mask_of(quorum))
    else:
        let_time_pass(sites, chance)


ANYTHING: list[Callable[[Sites, random.Random], None]] = [
    act_in_ceremony, commit, decline, aggregate, attest, attest, release, release, confirm, advance, advance, advance,
    reveal, reveal, reveal, sketch, sketch, spoil, judge, judge, administer, let_time_pass,
]  # fmt: skip
ACTIONS = [go_on] * 3 * len(ANYTHING) + ANYTHING
