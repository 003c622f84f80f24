"""Claims about the key ceremony on the ledger: the real contract on the embedded chain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bahefl_flwr.records import AccusationRecord, EpochPhase, RoundPhase, mask_of
from ledger_sites import CONFIG, NO_EVIDENCE, Sites, digest, refused


@pytest.fixture
def ceremony(registered: Sites) -> Sites:
    """Five sites and an open task whose ceremony stands at its first step."""
    registered.start()
    return registered


def test_a_ceremony_ends_with_the_first_round(ceremony: Sites) -> None:
    """Each step starts when the whole committee has taken the one before; what they put is read back."""
    seen = [ceremony.view().epoch.phase]
    for step in (EpochPhase.COMMIT, EpochPhase.REVEAL, EpochPhase.PUBLISH, EpochPhase.CONFIRM):
        ceremony.take(step)
        seen.append(ceremony.view().epoch.phase)
    p = EpochPhase
    assert seen == [p.COMMIT, p.REVEAL, p.PUBLISH, p.CONFIRM, p.ACTIVE]
    epoch, committee = ceremony.view().epoch, ceremony.committee()
    assert epoch.committed == epoch.revealed == epoch.published == epoch.confirmed == epoch.committee == mask_of(committee)
    assert (epoch.epoch, epoch.threshold, epoch.key_digest) == (1, 2, digest("key", 1))
    assert ceremony.admin.epoch(1) == epoch
    assert ceremony.view().round.phase is RoundPhase.COMMIT
    for record, i in zip(ceremony.admin.ceremony(1), committee, strict=True):
        assert record.member == i
        assert record.seed_commitment == digest("COMMIT", 1, i)
        assert record.sealed_seeds == digest("REVEAL", 1, i)
        assert record.key_parts == digest("PUBLISH", 1, i)
        assert record.key_digest == digest("key", 1)


def test_only_the_committee_acts_and_only_in_turn(ceremony: Sites) -> None:
    """Outsiders, second attempts, other steps, other epochs and empty digests are refused."""
    member, outsider = ceremony.committee()[0], ceremony.others(*ceremony.committee())[0]
    with refused("NotInCommittee"):
        ceremony.take(EpochPhase.COMMIT, outsider)
    with refused("NotMember"):
        ceremony.stranger.commit_seeds(1, digest("seeds"))
    ceremony.take(EpochPhase.COMMIT, member)
    with refused("AlreadyActed"):
        ceremony.take(EpochPhase.COMMIT, member)
    with refused("WrongEpochPhase"):
        ceremony.take(EpochPhase.CONFIRM, member)
    with refused("NotCurrentEpoch"):
        ceremony.ledgers[member].commit_seeds(2, digest("seeds"))
    with refused("ZeroDigest"):
        ceremony.ledgers[ceremony.committee()[1]].commit_seeds(1, bytes(32))
    with refused("NotCurrentRound"):
        ceremony.commit(member)


def test_a_silent_member_is_left_out_after_the_deadline(ceremony: Sites) -> None:
    """Not before; then anyone may start the next epoch, without it."""
    silent = ceremony.committee()[0]
    ceremony.take(EpochPhase.COMMIT, *ceremony.committee()[1:])
    with refused("DeadlineNotReached"):
        ceremony.stranger.expire_epoch(1)
    ceremony.pass_deadline()
    with refused("DeadlinePassed"):
        ceremony.take(EpochPhase.COMMIT, silent)
    ceremony.stranger.expire_epoch(1)
    assert ceremony.admin.epoch(1).phase is EpochPhase.FAILED
    assert ceremony.view().epoch.epoch == 2
    assert silent not in ceremony.committee()
    ceremony.ceremony()
    assert ceremony.phase() is RoundPhase.COMMIT
    assert ceremony.round().epoch == 2


def test_the_task_ends_when_no_committee_is_left(ceremony: Sites) -> None:
    """A ceremony that all keep silent in ends by itself, with the reason."""
    ceremony.pass_deadline()
    ceremony.admin.expire_epoch(1)
    ceremony.pass_deadline()
    ceremony.admin.expire_epoch(2)
    assert not ceremony.view().task.open
    assert ceremony.view().task.end_reason == "too few members left for a key committee"
    with refused("NoTaskOpen"):
        ceremony.admin.end_task("over")


def test_confirming_another_key_than_the_majority_excludes(ceremony: Sites) -> None:
    """A differing confirmation fails the epoch; the minority is out, the next epoch opens."""
    first, second, odd = ceremony.committee()
    for step in (EpochPhase.COMMIT, EpochPhase.REVEAL, EpochPhase.PUBLISH):
        ceremony.take(step)
    ceremony.take(EpochPhase.CONFIRM, odd, key="another")
    ceremony.take(EpochPhase.CONFIRM, first, second)
    assert ceremony.admin.epoch(1).phase is EpochPhase.FAILED
    assert ceremony.view().epoch.phase is EpochPhase.COMMIT
    assert odd not in ceremony.committee()


def test_without_any_majority_ceremonies_are_repeated_only_so_often(ceremony: Sites) -> None:
    """Three different keys name no culprit: a new epoch, and after `max_attempts` of them the task ends."""
    for epoch in range(1, CONFIG.max_attempts + 1):
        assert ceremony.view().epoch.epoch == epoch
        for step in (EpochPhase.COMMIT, EpochPhase.REVEAL, EpochPhase.PUBLISH):
            ceremony.take(step)
        for i in ceremony.committee():
            ceremony.take(EpochPhase.CONFIRM, i, key=f"key {i}")
    assert ceremony.view().task.end_reason == "too many key ceremonies failed in a row"


def test_a_majority_of_accusers_excludes_a_member(ceremony: Sites) -> None:
    """The ceremony fails, and no later committee of the task has the culprit."""
    first, second, culprit = ceremony.committee()
    ceremony.accuse(first, culprit)
    assert (ceremony.view().epoch.epoch, ceremony.view().epoch.accused) == (1, 1 << culprit)
    ceremony.accuse(second, culprit)
    assert ceremony.admin.epoch(1).phase is EpochPhase.FAILED
    assert ceremony.view().task.excluded == 1 << culprit
    assert (ceremony.view().epoch.epoch, ceremony.view().epoch.phase) == (2, EpochPhase.COMMIT)
    assert not ceremony.view().epoch.pool >> culprit & 1


def test_accusations_are_the_committees_once_for_each_culprit(ceremony: Sites) -> None:
    """Not of oneself, not twice, not by or against outsiders, not in another epoch; they are read back in order."""
    first, second, third = ceremony.committee()
    outsider = ceremony.others(first, second, third)[0]
    ceremony.reveal()
    ceremony.accuse(first, third)
    for accuser, culprit, why in (
        (first, third, "AlreadyActed"),
        (second, second, "AlreadyActed"),
        (outsider, third, "NotInCommittee"),
        (first, outsider, "NotInCommittee"),
    ):
        with refused(why):
            ceremony.accuse(accuser, culprit)
    with refused("NotCurrentEpoch"):
        ceremony.ledgers[first].accuse(2, ceremony.accounts[second].address, NO_EVIDENCE, "too early")
    ceremony.accuse(second, first, digest("evidence"))
    assert ceremony.admin.accusations(1) == (
        AccusationRecord(accuser=first, culprit=third, round=0, evidence=NO_EVIDENCE),
        AccusationRecord(accuser=second, culprit=first, round=0, evidence=digest("evidence")),
    )


def test_a_suspended_committee_member_restarts_the_ceremony(ceremony: Sites) -> None:
    """Nobody waits for a member that may not act."""
    gone = ceremony.committee()[0]
    ceremony.admin.suspend(ceremony.accounts[gone].address, "off line")
    assert ceremony.view().epoch.epoch == 2
    assert gone not in ceremony.committee()


def test_a_round_never_opens_without_enough_key_holders(sites: Sites) -> None:
    """With key holders suspended, the next round waits for a new key; the old epoch stays on record as it was."""
    for i in sites.committee()[:2]:
        sites.admin.suspend(sites.accounts[i].address, "off line")
    sites.admin.abandon(1, "no key holders")
    assert sites.admin.epoch(1).phase is EpochPhase.ACTIVE
    assert sites.view().epoch.epoch == 2
    assert sites.view().epoch.phase is EpochPhase.COMMIT
    assert sites.round().phase is RoundPhase.ABORTED


@pytest.mark.parametrize(("threshold", "fits"), [(1, True), (2, True), (3, True), (4, False)])
def test_a_threshold_must_fit_the_committee(registered: Sites, threshold: int, fits: bool) -> None:
    """Of three: any majority, all, or one (the single-key experiment)."""
    if fits:
        registered.start(threshold=threshold)
        assert registered.view().epoch.threshold == threshold
    else:
        with refused("BadThreshold"):
            registered.start(threshold=threshold)


def test_a_threshold_of_half_is_refused(registered: Sites) -> None:
    """Two of four would let two disjoint quorums open two aggregates."""
    registered.admin.set_config(replace(CONFIG, committee_max=4))
    with refused("BadThreshold"):
        registered.start(threshold=2)


def test_a_task_needs_digests_members_and_no_other_task(registered: Sites) -> None:
    """startTask is the administrator's, once at a time, and never with empty digests."""
    with refused("AccessControlUnauthorizedAccount"):
        registered.ledgers[0].start_task(
            run_digest=digest(1), initial_model=digest(2), security_params=digest(3), threshold=0, rounds=1,
            screened=False,
        )  # fmt: skip
    with refused("ZeroDigest"):
        registered.admin.start_task(
            run_digest=bytes(32), initial_model=digest(2), security_params=digest(3), threshold=0, rounds=1,
            screened=False,
        )  # fmt: skip
    registered.start()
    with refused("TaskOpen"):
        registered.start()


def test_a_task_can_be_ended_during_its_ceremony(ceremony: Sites) -> None:
    """The ceremony fails with the task, and a new task may start."""
    ceremony.admin.end_task("wrong settings")
    assert ceremony.view().epoch.phase is EpochPhase.FAILED
    assert ceremony.view().task.end_reason == "wrong settings"
    ceremony.start()
    assert ceremony.view().task.number == 2
    assert ceremony.view().epoch.epoch == 2
