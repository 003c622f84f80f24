"""Claims about disputed ceremonies, members that were away, and when new keys are made: the real contract on a chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bahefl_flwr.records import EpochPhase, RoundPhase, mask_of
from ledger_sites import CONFIG, NO_EVIDENCE, N, Sites, digest, refused

ALL = 2**N - 1
EVIDENCE = digest("evidence")
STEPS = (EpochPhase.COMMIT, EpochPhase.REVEAL, EpochPhase.PUBLISH, EpochPhase.CONFIRM)


@pytest.fixture
def ceremony(registered: Sites) -> Sites:
    """Five sites and an open task whose ceremony stands at its first step."""
    registered.start(rounds=9)
    return registered


@pytest.fixture
def disputed(ceremony: Sites) -> Sites:
    """The first committee member accused the third, and gave up its key to prove it."""
    ceremony.reveal()
    first, _, third = ceremony.committee()
    ceremony.accuse(first, third, EVIDENCE)
    return ceremony


# ---- disputes


def test_evidence_stops_the_ceremony(disputed: Sites) -> None:
    """There is time for everybody to judge, and nobody goes on with a key that was given up."""
    epoch = disputed.view().epoch
    assert (epoch.phase, epoch.epoch) == (EpochPhase.DISPUTE, 1)
    assert epoch.deadline > disputed.view().chain_time
    for step in (*STEPS, EpochPhase.DISPUTE):
        with refused("WrongEpochPhase"):
            disputed.ledgers[disputed.committee()[0]]._send("act", 1, int(step), digest("going on"))
    assert disputed.admin.accusations(1)[0].evidence == EVIDENCE


def test_a_majority_that_judges_names_the_culprit(disputed: Sites) -> None:
    """It is excluded for the task, the epoch fails, the next goes on without it at once."""
    _, second, third = disputed.committee()
    disputed.accuse(second, third)
    assert disputed.admin.epoch(1).phase is EpochPhase.FAILED
    assert disputed.view().task.excluded == 1 << third
    assert (disputed.view().epoch.epoch, disputed.view().epoch.phase) == (2, EpochPhase.COMMIT)


def test_a_false_accuser_is_judged_itself(disputed: Sites) -> None:
    """The others accuse it: a majority against the accuser."""
    first, second, third = disputed.committee()
    disputed.accuse(second, first)
    disputed.accuse(third, first)
    assert disputed.view().task.excluded == 1 << first
    assert disputed.view().epoch.epoch == 2


def test_a_dispute_nobody_settles_ends_by_its_deadline(disputed: Sites) -> None:
    """Without a culprit, and never with this epoch's key: everybody may sit in the next committee."""
    with refused("DeadlineNotReached"):
        disputed.stranger.expire_epoch(1)
    disputed.pass_deadline()
    disputed.stranger.expire_epoch(1)
    assert disputed.admin.epoch(1).phase is EpochPhase.FAILED
    assert (disputed.view().task.excluded, disputed.view().task.absent) == (0, 0)
    assert (disputed.view().epoch.epoch, disputed.view().epoch.phase) == (2, EpochPhase.COMMIT)


def test_more_evidence_does_not_prolong_a_dispute(disputed: Sites) -> None:
    """Its deadline is the first one."""
    first, second, _ = disputed.committee()
    deadline = disputed.view().epoch.deadline
    disputed.chain.clock.advance(60)
    disputed.accuse(second, first, digest("more evidence"))
    assert (disputed.view().epoch.phase, disputed.view().epoch.deadline) == (EpochPhase.DISPUTE, deadline)


def test_evidence_waits_until_all_have_revealed(ceremony: Sites) -> None:
    """Before, there is nothing to judge; a member that gave its key up then would only be believed or not."""
    first, _, third = ceremony.committee()
    for step in (EpochPhase.COMMIT, EpochPhase.REVEAL):
        with refused("WrongEpochPhase"):
            ceremony.accuse(first, third, EVIDENCE)
        ceremony.take(step)
    assert ceremony.admin.accusations(1) == ()
    ceremony.accuse(first, third, EVIDENCE)
    assert ceremony.view().epoch.phase is EpochPhase.DISPUTE


def test_evidence_may_follow_an_accusation(ceremony: Sites) -> None:
    """Who accused too early can still prove it, once; its voice counts once all the same."""
    first, _, third = ceremony.committee()
    ceremony.accuse(first, third)
    ceremony.reveal()
    with refused("AlreadyActed"):
        ceremony.accuse(first, third)
    ceremony.accuse(first, third, EVIDENCE)
    assert (ceremony.view().epoch.phase, ceremony.view().task.excluded) == (EpochPhase.DISPUTE, 0)
    assert [a.evidence for a in ceremony.admin.accusations(1)] == [NO_EVIDENCE, EVIDENCE]
    with refused("AlreadyActed"):
        ceremony.accuse(first, third, EVIDENCE)


def test_disputes_end_the_task_after_a_few(ceremony: Sites) -> None:
    """Somebody that disputes for ever cannot keep a federation busy for ever."""
    for _ in range(CONFIG.max_attempts):
        first, second, _ = ceremony.committee()
        ceremony.reveal()
        ceremony.accuse(first, second, EVIDENCE)
        ceremony.pass_deadline()
        ceremony.stranger.expire_epoch(ceremony.view().epoch.epoch)
    assert ceremony.view().task.end_reason == "too many key ceremonies failed in a row"


def test_without_evidence_the_ceremony_goes_on(ceremony: Sites) -> None:
    """A single accusation that gives up no key stops nobody."""
    first, second, _ = ceremony.committee()
    ceremony.accuse(first, second)
    ceremony.ceremony()
    assert ceremony.view().epoch.phase is EpochPhase.ACTIVE


def test_evidence_while_keys_are_in_use_stops_no_round(ceremony: Sites) -> None:
    """There is nothing to dispute about a ceremony that is over."""
    ceremony.ceremony()
    first, second, _ = ceremony.committee()
    ceremony.accuse(first, second, EVIDENCE)
    assert (ceremony.view().epoch.phase, ceremony.phase()) == (EpochPhase.ACTIVE, RoundPhase.COMMIT)
    assert ceremony.admin.accusations(1)[0].round == 1


def test_a_suspended_member_ends_a_dispute(disputed: Sites) -> None:
    """As in every step: nobody waits for a member that may not act."""
    disputed.admin.suspend(disputed.accounts[disputed.committee()[0]].address, "off line")
    assert disputed.admin.epoch(1).phase is EpochPhase.FAILED
    assert disputed.view().epoch.epoch == 2


def test_the_task_can_be_ended_during_a_dispute(disputed: Sites) -> None:
    """The epoch fails with it."""
    disputed.admin.end_task("who cheats here?")
    assert disputed.view().epoch.phase is EpochPhase.FAILED
    assert not disputed.view().task.open


# ---- members that were away


def test_a_silent_member_sits_out_until_a_ceremony_succeeds(ceremony: Sites) -> None:
    """Silence is no crime: it belongs to the pool all the time, and is back in the draw of the epoch after."""
    silent = ceremony.committee()[0]
    ceremony.take(EpochPhase.COMMIT, *ceremony.committee()[1:])
    ceremony.pass_deadline()
    ceremony.stranger.expire_epoch(1)
    assert (ceremony.view().task.absent, ceremony.view().task.excluded) == (1 << silent, 0)
    assert (ceremony.view().epoch.pool, silent in ceremony.committee()) == (ALL, False)
    ceremony.ceremony()
    assert ceremony.view().task.absent == 0
    assert ceremony.view().epoch.phase is EpochPhase.ACTIVE


def test_a_member_that_was_silent_may_hold_the_next_key(registered: Sites) -> None:
    """In a federation where everybody has a seat, it is back in the very next committee."""
    registered.admin.set_config(replace(CONFIG, committee_max=5))
    registered.start(threshold=3)
    registered.take(EpochPhase.COMMIT, 1, 2, 3, 4)
    registered.pass_deadline()
    registered.stranger.expire_epoch(1)
    assert registered.committee() == (1, 2, 3, 4)
    registered.ceremony()
    registered.admin.renew_keys()
    registered.whole_round()
    assert registered.committee() == (0, 1, 2, 3, 4)


def test_silent_members_have_committees_drawn_anew_only_so_often(registered: Sites) -> None:
    """Another one every time, as colluders would until the seats suit them."""
    registered.admin.set_config(replace(CONFIG, max_attempts=2))
    registered.start(threshold=2)
    for _ in range(2):
        registered.take(EpochPhase.COMMIT, *registered.committee()[1:])
        registered.pass_deadline()
        registered.stranger.expire_epoch(registered.view().epoch.epoch)
    assert (registered.view().epoch.epoch, registered.view().epoch.phase) == (2, EpochPhase.FAILED)
    assert registered.view().task.end_reason == "too many key ceremonies failed in a row"


def test_a_ceremony_that_succeeds_forgets_those_that_failed(registered: Sites) -> None:
    """Only failures in a row end a task."""
    registered.admin.set_config(replace(CONFIG, max_attempts=2))
    registered.start(rounds=9)
    for epoch in (1, 3):
        registered.pass_deadline()
        registered.stranger.expire_epoch(epoch)
        registered.ceremony()
        registered.admin.renew_keys()
        registered.whole_round()
    assert (registered.view().task.open, registered.view().epoch.epoch) == (True, 5)


# ---- when new keys are made


def test_keys_serve_round_after_round(sites: Sites) -> None:
    """With the same members and no age limit there is no second ceremony."""
    sites.whole_round()
    assert (sites.round().number, sites.round().epoch, sites.view().epoch.epoch) == (2, 1, 1)


def test_keys_are_renewed_after_some_rounds(registered: Sites) -> None:
    """`epoch_rounds` finalised ones, counted anew for every epoch; an aborted round does not count."""
    registered.admin.set_config(replace(CONFIG, epoch_rounds=1))
    registered.start(rounds=9)
    registered.ceremony()
    registered.admin.abandon(1, "does not count")
    assert (registered.round().number, registered.view().epoch.epoch) == (2, 1)
    registered.whole_round()
    epoch = registered.view().epoch
    assert (epoch.epoch, epoch.phase, epoch.finalized_before) == (2, EpochPhase.COMMIT, 1)
    registered.ceremony()
    assert (registered.round().number, registered.round().epoch) == (3, 2)


def test_the_administrator_can_ask_for_new_keys(sites: Sites) -> None:
    """The open round is finished with the old ones; then there is a ceremony, once."""
    with refused("AccessControlUnauthorizedAccount"):
        sites.ledgers[0].renew_keys()
    sites.admin.renew_keys()
    assert (sites.view().epoch.renewal, sites.phase()) == (True, RoundPhase.COMMIT)
    sites.whole_round()
    assert (sites.view().epoch.epoch, sites.view().epoch.phase, sites.view().epoch.renewal) == (2, EpochPhase.COMMIT, False)
    with refused("WrongEpochPhase"):
        sites.admin.renew_keys()
    sites.ceremony()
    assert (sites.round().number, sites.round().epoch) == (2, 2)
    sites.admin.end_task("over")
    with refused("NoTaskOpen"):
        sites.admin.renew_keys()


@pytest.mark.parametrize("member_of_committee", [True, False])
def test_a_member_that_leaves_or_returns_changes_the_keys(sites: Sites, member_of_committee: bool) -> None:
    """Holder or not: whoever may hold a key has changed, so the next round waits for a new one."""
    gone = next(i for i in range(N) if (i in sites.committee()) is member_of_committee)
    sites.admin.suspend(sites.accounts[gone].address, "off line")
    assert sites.view().epoch.epoch == 1
    sites.admin.abandon(1, "test")
    assert (sites.view().epoch.epoch, sites.view().epoch.pool) == (2, ALL & ~(1 << gone))
    sites.ceremony()
    sites.admin.reinstate(sites.accounts[gone].address)
    sites.admin.abandon(2, "test")
    assert (sites.view().epoch.epoch, sites.view().epoch.pool) == (3, ALL)


def test_a_member_that_joins_during_a_ceremony_is_waited_for_with_new_keys(ceremony: Sites) -> None:
    """The finished ceremony's key was made without it, so no round opens before there is one that it could hold."""
    gone = ceremony.others(*ceremony.committee())[0]
    ceremony.admin.suspend(ceremony.accounts[gone].address, "off line")
    ceremony.ceremony()
    assert (ceremony.view().epoch.epoch, ceremony.view().epoch.phase) == (2, EpochPhase.COMMIT)
    ceremony.ceremony()
    assert (ceremony.round().number, ceremony.round().epoch) == (1, 2)


def test_holders_that_open_nothing_are_drawn_anew(sites: Sites) -> None:
    """Once a verified round was abandoned because of them, the next key is another committee's to hold."""
    sites.verified_round()
    first, second, _ = sites.committee()
    sites.release(first, quorum=mask_of((first, second)))
    sites.pass_deadline()
    sites.stranger.abandon(1, "no shares")
    assert sites.admin.epoch(1).renewal
    assert (sites.view().epoch.epoch, sites.view().epoch.phase) == (2, EpochPhase.COMMIT)


def test_holders_that_withhold_sketches_are_drawn_anew(screening: Sites) -> None:
    """A window that ends without one quorum's parts costs nobody the round, but them the next key."""
    first, second, _ = screening.committee()
    screening.reveal_layers()
    screening.sketch(first, quorum=mask_of((first, second)))
    screening.pass_deadline()
    screening.stranger.replace_coordinator(1)
    assert (screening.view().epoch.renewal, screening.round().number, screening.phase()) == (True, 1, RoundPhase.AGGREGATE)
    screening.sketch(second, quorum=mask_of((first, second)))
    screening.aggregate()
    screening.attest()
    screening.open()
    screening.confirm()
    screening.admin.finalize(1)
    assert (screening.view().epoch.epoch, screening.view().epoch.phase) == (2, EpochPhase.COMMIT)


def test_a_round_without_sketches_ends_with_new_keys(screening: Sites) -> None:
    """Nobody coordinates the next one before others have had the chance to hold its key."""
    screening.reveal_layers()
    for _ in range(CONFIG.max_attempts):
        screening.pass_deadline()
        screening.stranger.replace_coordinator(1)
    assert screening.admin.round(1).abort_reason == "no coordinator produced a verified aggregate"
    assert (screening.view().epoch.epoch, screening.view().epoch.phase) == (2, EpochPhase.COMMIT)
    assert screening.view().task.excluded == 0


def test_layers_that_are_missing_leave_the_keys(screening: Sites) -> None:
    """Without a seed key holders had nothing to answer."""
    screening.reveal_layers(0, 1)
    screening.pass_deadline()
    screening.stranger.replace_coordinator(1)
    assert not screening.view().epoch.renewal


def test_a_coordinators_silence_leaves_the_keys(screening: Sites) -> None:
    """A quorum has named all its parts: what is late is not theirs. After the second it may be: names can stand for nothing."""
    screening.reveal_layers()
    screening.sketch(*screening.committee()[:2])
    seen = []
    for _ in range(2):
        screening.pass_deadline()
        screening.stranger.replace_coordinator(1)
        seen.append(screening.view().epoch.renewal)
    assert seen == [False, True]


def test_late_coordinators_leave_the_keys_where_nothing_is_screened(aggregating: Sites) -> None:
    """They needed nothing of the key holders."""
    for _ in range(2):
        aggregating.pass_deadline()
        aggregating.stranger.replace_coordinator(1)
    assert not aggregating.view().epoch.renewal


def test_nobody_owes_sketches_where_nothing_is_screened(aggregating: Sites) -> None:
    """A seed that somebody draws there all the same asks key holders for nothing."""
    aggregating.reveal_layers()
    aggregating.pass_deadline()
    aggregating.stranger.replace_coordinator(1)
    assert not aggregating.view().epoch.renewal


def test_nobody_else_could_hold_the_keys(registered: Sites) -> None:
    """Where everybody has a seat, an abandoned round goes on with the keys there are."""
    registered.admin.set_config(replace(CONFIG, committee_max=5))
    registered.start(threshold=3)
    registered.ceremony()
    registered.verified_round()
    registered.pass_deadline()
    registered.stranger.abandon(1, "no shares")
    assert (registered.round().number, registered.round().epoch) == (2, 1)


def test_one_key_holder_stops_the_run_where_all_are_needed(registered: Sites) -> None:
    """Silent, no round gives a model, and the keys stay; excluded, the others are too few to make new ones."""
    registered.admin.set_config(replace(CONFIG, committee_max=5))
    registered.start(threshold=5)
    registered.ceremony()
    for number in (1, 2):
        registered.verified_round()
        registered.release(0, 1, 2, 3, quorum=ALL)
        registered.pass_deadline()
        registered.stranger.abandon(number, "too few shares")
    assert (registered.round().number, registered.round().epoch) == (3, 1)
    for accuser in (0, 1, 2):
        registered.accuse(accuser, 4)
    registered.admin.abandon(3, "to go on without it")
    assert registered.view().task.end_reason == "too few members left for a key committee"


def test_an_administrators_abandonment_leaves_the_keys(sites: Sites) -> None:
    """Before verification nobody was asked for a share."""
    sites.admin.abandon(1, "scanner software was updated")
    assert (sites.round().number, sites.round().epoch) == (2, 1)
