"""Claims about attestation, the opening of aggregates, and abandoned rounds: the real contract on the embedded chain."""

from __future__ import annotations

import pytest

from bahefl_flwr.records import RoundPhase, mask_of
from ledger_sites import CONFIG, NO_LAYER, N, Sites, SixSites, digest, refused


@pytest.fixture
def verifying(sites: Sites) -> Sites:
    """All five have committed, the coordinator has submitted an aggregate of all."""
    sites.commit()
    sites.aggregate()
    return sites


@pytest.fixture
def verified(verifying: Sites) -> Sites:
    """All five have attested the aggregate."""
    verifying.attest()
    return verifying


# ---- attestation


def test_attestations_name_the_aggregate_and_reveal_the_next_layer(verifying: Sites) -> None:
    """Another digest, another layer, a second vote and votes of strangers are refused."""
    good = digest("aggregate", 1)
    with refused("DigestMismatch"):
        verifying.ledgers[0].attest(1, digest("other"), True, verifying.layer(0))
    with refused("BadReveal"):
        verifying.ledgers[0].attest(1, good, True, digest("no layer"))
    with refused("NotMember"):
        verifying.stranger.attest(1, good, True, NO_LAYER)
    verifying.attest([0])
    with refused("AlreadyAttested"):
        verifying.ledgers[0].attest(1, good, False, verifying.layer(0))


def test_only_sites_that_committed_attest(sites: Sites) -> None:
    """A site that declined knows nothing to compare; it does not vote."""
    outsider = sites.others(sites.round().coordinator)[0]
    sites.ledgers[outsider].decline(1, "no data")
    sites.commit(*sites.others(outsider))
    with refused("WrongPhase"):
        sites.attest([0])
    sites.aggregate()
    with refused("NotCommitted"):
        sites.attest([outsider])


def test_a_majority_verifies(verifying: Sites) -> None:
    """Three of five settle it; the others may still attest, and count."""
    verifying.attest([0, 1])
    assert verifying.phase() is RoundPhase.VERIFY
    verifying.attest([2])
    assert verifying.phase() is RoundPhase.VERIFIED
    verifying.attest([3, 4])
    assert verifying.round().voted_ok == verifying.round().revealed == 2**N - 1


def test_a_lying_minority_cannot_veto_and_pays(verifying: Sites) -> None:
    """Two of five vote against a correct sum: the round is finalised, and the liars end below where they began."""
    liars = verifying.others(*verifying.committee())
    verifying.attest(liars, ok=False)
    verifying.attest(verifying.committee())
    verifying.open()
    verifying.confirm()
    verifying.admin.finalize(1)
    assert verifying.admin.round(1).voted_bad == mask_of(liars)
    assert verifying.view().last_finalized == 1
    assert all(verifying.member(i).score < 32768 < verifying.member(verifying.committee()[0]).score for i in liars)


def test_a_majority_rejects_and_the_next_candidate_takes_over(verifying: Sites) -> None:
    """A wrong sum costs the coordinator its office and half its score; votes start anew, layers do not."""
    former = verifying.round().coordinator
    verifying.attest([0, 1, 2], ok=False)
    r = verifying.round()
    assert (r.phase, r.attempt, r.failed) == (RoundPhase.AGGREGATE, 1, 1 << former)
    assert r.coordinator != former
    assert (r.voted_ok, r.voted_bad, r.included, r.aggregate, r.weights) == (0, 0, 0, bytes(32), b"")
    assert r.revealed == 0b00111
    assert verifying.member(former).coordinator_faults == 1
    assert verifying.member(former).score == 16384
    verifying.aggregate("right")
    verifying.attest()
    assert verifying.phase() is RoundPhase.VERIFIED
    assert verifying.round().revealed == 2**N - 1


def test_votes_for_a_rejected_aggregate_cost_score(verifying: Sites) -> None:
    """Adding is deterministic: who attests a wrong sum has not recomputed it."""
    accomplice = verifying.others(verifying.round().coordinator)[0]
    verifying.attest([accomplice])
    verifying.attest([i for i in range(N) if i != accomplice][:3], ok=False)
    assert verifying.member(accomplice).score == 16384


def test_failing_coordinators_abort_the_round(verifying: Sites) -> None:
    """After `max_attempts` rejected aggregates the round ends with the reason and the next one opens."""
    for attempt in range(CONFIG.max_attempts):
        if attempt:
            verifying.aggregate(f"wrong {attempt}")
        verifying.attest([0, 1, 2], ok=False)
    assert verifying.admin.round(1).abort_reason == "no coordinator produced a verified aggregate"
    assert verifying.round().number == 2
    assert not 1 << verifying.round().coordinator & verifying.admin.round(1).failed


# ---- opening


def test_shares_come_from_key_holders_of_an_exact_quorum(verified: Sites) -> None:
    """Exactly `threshold` committee members, the sender among them, once per quorum, never an empty digest."""
    first, second, third = verified.committee()
    outsider = verified.others(first, second, third)[0]
    with refused("NotInCommittee"):
        verified.release(outsider, quorum=mask_of((first, outsider)))
    for quorum in (mask_of((first,)), mask_of((first, second, third)), mask_of((first, outsider)), mask_of((second, third))):
        with refused("BadQuorum"):
            verified.release(first, quorum=quorum)
    with refused("ZeroDigest"):
        verified.ledgers[first].release_share(1, mask_of((first, second)), bytes(32), verified.round().aggregate)
    verified.release(first, quorum=mask_of((first, second)))
    with refused("AlreadyReleased"):
        verified.release(first, quorum=mask_of((first, second)))


def test_a_member_may_serve_several_quorums(verified: Sites) -> None:
    """When a partner fails, the others make a new quorum; the first complete one opens the aggregate."""
    first, second, third = verified.committee()
    verified.release(first, quorum=mask_of((first, second)))
    verified.release(first, third)
    assert verified.round().open_quorum == mask_of((first, third))
    verified.release(second, quorum=mask_of((first, second)))
    assert verified.round().open_quorum == mask_of((first, third))
    assert len(verified.admin.shares(1)) == 4


def test_a_share_needs_the_holders_own_attestation(verifying: Sites) -> None:
    """protocol rule 5: no share for an aggregate its holder has not attested, or has rejected."""
    first, second, _ = verifying.committee()
    with refused("NotAttested"):
        verifying.release(first, quorum=mask_of((first, second)))
    verifying.attest([first], ok=False)
    with refused("NotAttested"):
        verifying.release(first, quorum=mask_of((first, second)))
    verifying.attest([second])
    verifying.release(second, quorum=mask_of((first, second)))


def test_a_holder_without_an_update_helps_only_once_verified(sites: Sites) -> None:
    """It did not vote, so the majority's word must come first."""
    idle = next(i for i in sites.committee() if i != sites.round().coordinator)
    partner = next(i for i in sites.committee() if i != idle)
    sites.ledgers[idle].decline(1, "no data")
    sites.commit(*sites.others(idle))
    sites.aggregate()
    with refused("NotAttested"):
        sites.release(idle, quorum=mask_of((idle, partner)))
    sites.attest()
    sites.release(idle, partner)
    assert sites.round().open_quorum == mask_of((idle, partner))


def test_an_aggregate_with_shares_out_is_the_last_of_its_round(verifying: Sites) -> None:
    """protocol rule 4: a second aggregate of the same updates would give away their difference, so the round aborts instead."""
    holder, partner, _ = verifying.committee()
    verifying.attest([holder])
    verifying.release(holder, quorum=mask_of((holder, partner)))
    verifying.pass_deadline()
    with refused("DeadlinePassed"):
        verifying.release(partner, quorum=mask_of((holder, partner)))
    verifying.admin.replace_coordinator(1)
    assert verifying.admin.round(1).abort_reason == "aggregate failed after shares of it were released"
    assert verifying.round().number == 2


def test_shares_of_a_rejected_aggregate_serve_no_other(verifying: Sites) -> None:
    """A majority found it wrong, so no honest holder released one: the round goes on, and shares are counted anew."""
    liar, partner, _ = verifying.committee()
    verifying.attest([liar])
    verifying.release(liar, quorum=mask_of((liar, partner)))
    verifying.attest([i for i in range(N) if i != liar][:3], ok=False)
    assert verifying.round().attempt == 1
    verifying.aggregate("right")
    assert verifying.admin.shares(1) == ()
    verifying.attest()
    verifying.release(partner, quorum=mask_of((liar, partner)))
    assert verifying.round().open_quorum == 0
    verifying.release(liar, quorum=mask_of((liar, partner)))
    assert verifying.round().open_quorum == mask_of((liar, partner))


def test_half_of_the_sites_cannot_undo_a_release(six: SixSites) -> None:
    """Three of six prove nothing: the holder that released may be honest, and there must be no second sum (protocol rule 4)."""
    six.commit()
    six.aggregate(included=0b011111, reasons=b"\1")
    holder, partner, _ = six.committee()
    six.attest([holder])
    six.release(holder, quorum=mask_of((holder, partner)))
    *hostile, second, third = six.others(holder)
    six.attest(hostile, ok=False)
    six.attest([second, third])
    assert six.admin.round(1).abort_reason == "aggregate failed after shares of it were released"
    assert six.round().number == 2


def test_half_of_the_sites_settle_nothing_while_a_share_is_out(six: SixSites) -> None:
    """The others have until the deadline to vote; then the round is aborted, with no second sum."""
    six.commit()
    six.aggregate()
    holder, partner, _ = six.committee()
    six.attest([holder])
    six.release(holder, quorum=mask_of((holder, partner)))
    six.attest(six.others(holder)[:3], ok=False)
    assert (six.phase(), six.round().attempt) == (RoundPhase.VERIFY, 0)
    six.pass_deadline()
    six.stranger.replace_coordinator(1)
    assert six.admin.round(1).abort_reason == "aggregate failed after shares of it were released"


def test_half_of_the_sites_pass_the_office_on_before_a_release(six: SixSites) -> None:
    """They prevent a majority, and with no share out another coordinator makes an aggregate at once."""
    six.commit()
    six.aggregate()
    former = six.round().coordinator
    six.attest([0, 1, 2], ok=False)
    assert (six.phase(), six.round().attempt, six.round().failed) == (RoundPhase.AGGREGATE, 1, 1 << former)


def test_a_majority_of_an_even_number_undoes_the_release_of_a_liar(six: SixSites) -> None:
    """Four of six found it wrong, one of them honest: whoever released its share lied, and the round goes on."""
    six.commit()
    six.aggregate()
    liar, partner, _ = six.committee()
    six.attest([liar])
    six.release(liar, quorum=mask_of((liar, partner)))
    six.attest(six.others(liar)[:4], ok=False)
    assert (six.phase(), six.round().attempt, six.admin.shares(1)) == (RoundPhase.AGGREGATE, 1, ())


def test_an_opened_aggregate_is_the_last_even_if_rejected(verifying: Sites) -> None:
    """Once a quorum's shares are out somebody may have read it, whatever the majority says."""
    first, second, _ = verifying.committee()
    verifying.attest([first, second])
    verifying.release(first, second)
    assert verifying.phase() is RoundPhase.VERIFY
    verifying.attest(verifying.others(first, second), ok=False)
    assert verifying.admin.round(1).abort_reason == "aggregate failed after shares of it were released"


def test_finalising_waits_for_late_attestations(verifying: Sites) -> None:
    """For `open_grace` after a model was confirmed; silence is then recorded as a loss of score."""
    silent = next(i for i in range(N) if i not in verifying.committee())
    verifying.attest(verifying.others(silent))
    verifying.open()
    verifying.confirm()
    with refused("DeadlineNotReached"):
        verifying.admin.finalize(1)
    verifying.pass_deadline()
    verifying.admin.finalize(1)
    assert verifying.member(silent).score < 32768 < verifying.member(verifying.others(silent)[0]).score


def test_a_round_that_nobody_opens_is_abandoned(verified: Sites) -> None:
    """By anyone, once the shares' deadline has passed; others get the next key, and the next round starts from the last model."""
    with refused("DeadlineNotReached"):
        verified.admin.abandon(1, "too slow")
    verified.pass_deadline()
    verified.stranger.abandon(1, "no shares")
    assert verified.admin.round(1).abort_reason == "no shares"
    assert (verified.admin.epoch(1).renewal, verified.view().epoch.epoch) == (True, 2)
    verified.ceremony()
    assert (verified.round().number, verified.round().parent, verified.round().base) == (2, bytes(32), digest("model"))


def test_a_late_share_still_saves_the_round(verified: Sites) -> None:
    """After the deadline, but before anyone abandoned it: there is time again to confirm what it opens."""
    verified.pass_deadline()
    verified.open()
    with refused("DeadlineNotReached"):
        verified.admin.abandon(1, "too slow")
    verified.confirm()
    verified.admin.finalize(1)
    assert verified.view().last_finalized == 1


def test_only_the_administrator_abandons_an_unverified_round(verifying: Sites) -> None:
    """Members and strangers must wait for the deadlines."""
    with refused("AccessControlUnauthorizedAccount"):
        verifying.ledgers[0].abandon(1, "bored")
    verifying.admin.abandon(1, "scanner software was updated")
    assert verifying.admin.round(1).abort_reason == "scanner software was updated"
