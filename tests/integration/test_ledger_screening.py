"""Claims about early layers, the screening's seed, sketches, and what screening costs: the real contract on a chain."""

from __future__ import annotations

import pytest

from bahefl_flwr.audit.lottery import screen_seed
from bahefl_flwr.records import ExclusionReason, RoundOutcome, RoundPhase, ShareRecord, mask_of
from ledger_sites import NO_LAYER, N, Sites, digest, refused

ALL = 2**N - 1
ZERO = bytes(32)
START = 32768


def entropy(sites: Sites) -> bytes:
    """XOR of the layers revealed in the newest round."""
    return bytes(sites.admin._read("getRound", sites.round().number)["entropy"])


# ---- layers and the seed


def test_layers_and_seed_wait_for_the_commits(sites: Sites) -> None:
    """While a ciphertext may still be fixed nobody can reveal, and nobody can draw."""
    sites.commit(*range(N - 1))
    with refused("WrongPhase"):
        sites.reveal_layers(0)
    with refused("WrongPhase"):
        sites.stranger.draw_seed(1)
    sites.commit(N - 1)
    sites.reveal_layers(0)
    assert (sites.round().revealed, sites.round().screen_seed) == (1, ZERO)


def test_the_last_layer_fixes_the_seed(aggregating: Sites) -> None:
    """It is the hash of the round, the XOR of the layers and all committed digests; four of five layers fix nothing."""
    aggregating.reveal_layers(0, 1, 2, 3)
    assert aggregating.round().screen_seed == ZERO
    aggregating.reveal_layers(4)
    digests = [u.digest for u in aggregating.admin.updates(1)]
    assert aggregating.round().screen_seed == screen_seed(1, entropy(aggregating), digests) != ZERO


def test_a_majority_can_go_on_without_the_others(aggregating: Sites) -> None:
    """Two of five are too few; once three have revealed, anybody draws, and only once."""
    aggregating.reveal_layers(0, 1)
    with refused("TooFewRevealed"):
        aggregating.stranger.draw_seed(1)
    aggregating.reveal_layers(2)
    aggregating.stranger.draw_seed(1)
    assert aggregating.round().screen_seed != ZERO
    with refused("AlreadyDrawn"):
        aggregating.stranger.draw_seed(1)


def test_a_late_layer_changes_the_entropy_but_not_the_seed(aggregating: Sites) -> None:
    """Neither by itself nor with a vote, nor when it is the last one."""
    aggregating.reveal_layers(0, 1, 2)
    aggregating.admin.draw_seed(1)
    seed, before = aggregating.round().screen_seed, entropy(aggregating)
    aggregating.reveal_layers(3)
    aggregating.aggregate()
    aggregating.attest()
    assert entropy(aggregating) != before
    assert (aggregating.round().revealed, aggregating.round().screen_seed) == (ALL, seed)


def test_the_seed_outlives_the_coordinator(aggregating: Sites) -> None:
    """A successor screens with the same one."""
    aggregating.reveal_layers()
    seed = aggregating.round().screen_seed
    aggregating.pass_deadline()
    aggregating.stranger.replace_coordinator(1)
    assert (aggregating.round().attempt, aggregating.round().screen_seed) == (1, seed)
    with refused("AlreadyDrawn"):
        aggregating.stranger.draw_seed(1)


def test_every_round_has_its_own_seed(sites: Sites) -> None:
    """The next round starts without one."""
    sites.commit()
    sites.reveal_layers()
    sites.aggregate()
    sites.attest()
    sites.open()
    sites.confirm()
    sites.admin.finalize(1)
    assert sites.admin.round(1).screen_seed != ZERO
    assert sites.round().screen_seed == ZERO


def test_a_suspended_site_is_not_waited_for(aggregating: Sites) -> None:
    """The seed is fixed when all active sites that committed have revealed."""
    lost = aggregating.others(aggregating.round().coordinator)[0]
    aggregating.admin.suspend(aggregating.accounts[lost].address, "off line")
    aggregating.reveal_layers(*aggregating.others(lost))
    assert (aggregating.round().revealed, aggregating.round().screen_seed != ZERO) == (ALL & ~(1 << lost), True)


def test_a_layer_is_the_next_one_once_by_a_site_that_committed(sites: Sites) -> None:
    """Strangers, sites that declined, other layers and a second one are refused."""
    outsider, member = sites.others(sites.round().coordinator)[:2]
    sites.ledgers[outsider].decline(1, "no data")
    sites.commit(*sites.others(outsider))
    with refused("NotMember"):
        sites.stranger.reveal(1, digest("layer"))
    with refused("NotCommitted"):
        sites.reveal_layers(outsider)
    for layer in (digest("chosen"), NO_LAYER, sites.layer(outsider)):
        with refused("BadReveal"):
            sites.ledgers[member].reveal(1, layer)
    sites.reveal_layers(member)
    with refused("AlreadyRevealed"):
        sites.reveal_layers(member)


def test_layers_and_seed_have_the_coordinators_deadline(aggregating: Sites) -> None:
    """Promise P4: afterwards anyone replaces it, and there is time again."""
    aggregating.reveal_layers(0, 1, 2)
    aggregating.pass_deadline()
    with refused("DeadlinePassed"):
        aggregating.reveal_layers(3)
    with refused("DeadlinePassed"):
        aggregating.stranger.draw_seed(1)
    aggregating.stranger.replace_coordinator(1)
    aggregating.reveal_layers(3)
    aggregating.stranger.draw_seed(1)


def test_a_vote_takes_the_layer_from_whoever_still_has_it(aggregating: Sites) -> None:
    """One that revealed early votes without; the others' votes need theirs as ever. Each onion loses one layer."""
    anchors = [aggregating.member(i).onion_anchor for i in range(N)]
    layers = [aggregating.layer(i) for i in range(N)]
    aggregating.reveal_layers(0, 1)
    aggregating.aggregate()
    with refused("BadReveal"):
        aggregating.ledgers[2].attest(1, aggregating.round().aggregate, True, NO_LAYER)
    aggregating.attest()
    assert aggregating.round().revealed == ALL
    assert anchors != [aggregating.member(i).onion_anchor for i in range(N)] == layers


def test_an_onion_is_not_exchanged_once_early_layers_show(aggregating: Sites) -> None:
    """Who has seen the others' layers cannot bring another of its own."""
    aggregating.reveal_layers(0, 1, 3, 4)
    with refused("WrongPhase"):
        aggregating.ledgers[2].rotate_onion(digest("fresh"))


# ---- sketches


def test_sketches_are_read_back_by_quorum(seeded: Sites) -> None:
    """As shares: quorum by quorum, in the order of the first part of each."""
    first, second, third = seeded.committee()
    seeded.sketch(third, quorum=mask_of((first, third)))
    seeded.sketch(first, second)
    seeded.sketch(first, quorum=mask_of((first, third)))
    assert seeded.admin.sketches(1) == tuple(
        ShareRecord(member=i, quorum=mask_of(quorum), digest=digest("sketch", 1, i, mask_of(quorum)))
        for quorum in ((first, third), (first, second))
        for i in quorum
    )
    assert seeded.admin.shares(1) == ()


def test_nothing_is_sketched_before_the_seed(aggregating: Sites) -> None:
    """Nor before commits close, nor once there is an aggregate."""
    first, second, _ = aggregating.committee()
    with refused("NoSeed"):
        aggregating.sketch(first, second)
    aggregating.reveal_layers()
    aggregating.aggregate()
    with refused("WrongPhase"):
        aggregating.sketch(first, second)


def test_sketches_come_from_key_holders_of_an_exact_quorum(seeded: Sites) -> None:
    """Exactly `threshold` committee members, the sender among them, once per quorum, in time, never an empty digest."""
    first, second, third = seeded.committee()
    outsider = seeded.others(first, second, third)[0]
    pair = mask_of((first, second))
    with refused("NotMember"):
        seeded.stranger.release_sketch(1, pair, digest("sketch"))
    with refused("NotInCommittee"):
        seeded.sketch(outsider, quorum=mask_of((first, outsider)))
    for quorum in (mask_of((first,)), mask_of((first, second, third)), mask_of((first, outsider)), mask_of((second, third))):
        with refused("BadQuorum"):
            seeded.sketch(first, quorum=quorum)
    with refused("ZeroDigest"):
        seeded.ledgers[first].release_sketch(1, pair, ZERO)
    seeded.sketch(first, quorum=pair)
    with refused("AlreadyReleased"):
        seeded.sketch(first, quorum=pair)
    seeded.pass_deadline()
    with refused("DeadlinePassed"):
        seeded.sketch(second, quorum=pair)


def test_nothing_is_added_before_there_are_sketches(screening: Sites) -> None:
    """Who has nothing to judge by cannot submit: not before the seed, nor before the last part, nor after a spoiled aggregate."""
    first, second, _ = screening.committee()
    with refused("NotSketched"):
        screening.aggregate()
    screening.reveal_layers()
    screening.sketch(first, quorum=mask_of((first, second)))
    with refused("NotSketched"):
        screening.aggregate()
    screening.sketch(second, quorum=mask_of((first, second)))
    screening.aggregate()
    screening.attest()
    screening.open()
    screening.confirm(0, 1, 2, outcome=RoundOutcome.SPOILED)
    with refused("NotSketched"):
        screening.aggregate("another")


def test_an_excluded_holder_sketches_nothing(seeded: Sites) -> None:
    """No quorum with it counts, whoever of it sends."""
    culprit, first, second = seeded.committee()
    seeded.accuse(first, culprit)
    seeded.accuse(second, culprit)
    for i in (culprit, first):
        with refused("BadQuorum"):
            seeded.sketch(i, quorum=mask_of((culprit, first)))
    seeded.sketch(first, second)


def test_sketches_survive_the_coordinator(seeded: Sites) -> None:
    """A successor asks nobody again; nor may anybody say something else."""
    first, second, _ = seeded.committee()
    seeded.sketch(first, second)
    before = seeded.admin.sketches(1)
    seeded.coordinator().resign(1, "tired")
    assert seeded.admin.sketches(1) == before != ()
    with refused("AlreadyReleased"):
        seeded.sketch(first, quorum=mask_of((first, second)))


# ---- what it costs


@pytest.mark.parametrize("reason", ExclusionReason)
def test_only_provable_reasons_cost_score(aggregating: Sites, reason: ExclusionReason) -> None:
    """Missing, corrupt, malformed and garbage lose a quarter. What screening found is a reason to look at the site, no more."""
    out = aggregating.others(aggregating.round().coordinator)[0]
    aggregating.aggregate(included=ALL & ~(1 << out), reasons=bytes([reason]))
    aggregating.attest()
    aggregating.open()
    aggregating.confirm()
    aggregating.admin.finalize(1)
    proved = reason in (ExclusionReason.MISSING, ExclusionReason.CORRUPT, ExclusionReason.MALFORMED, ExclusionReason.GARBAGE)
    assert aggregating.member(out).score == (START - START // 4 if proved else START)
    assert (aggregating.member(out).rejected, aggregating.member(out).included) == (1, 0)


def test_each_left_out_site_has_its_own_reason(aggregating: Sites) -> None:
    """Two reasons for two sites, in order of their indices: the first one's costs, the second one's does not."""
    low, high = sorted(aggregating.others(aggregating.round().coordinator)[:2])
    reasons = bytes([ExclusionReason.CORRUPT, ExclusionReason.UNDOING])
    aggregating.aggregate(included=ALL & ~mask_of((low, high)), reasons=reasons)
    aggregating.attest()
    aggregating.open()
    aggregating.confirm()
    aggregating.admin.finalize(1)
    assert aggregating.member(low).score < START == aggregating.member(high).score


def test_an_early_layer_is_no_vote(aggregating: Sites) -> None:
    """A site that revealed and then stayed silent about the aggregate loses an eighth."""
    silent = aggregating.others(*aggregating.committee())[0]
    aggregating.reveal_layers()
    aggregating.aggregate()
    aggregating.attest(aggregating.others(silent))
    aggregating.open()
    aggregating.confirm()
    aggregating.pass_deadline()
    aggregating.stranger.finalize(1)
    assert aggregating.member(silent).score == START - START // 8


def test_a_vote_on_a_rejected_aggregate_is_no_vote_on_the_next(aggregating: Sites) -> None:
    """What counts is the attempt that was opened."""
    helpers = aggregating.committee()[: aggregating.view().epoch.threshold]
    voters = aggregating.others(*helpers)
    first = aggregating.round().coordinator
    aggregating.aggregate("wrong")
    aggregating.attest(voters, ok=False)
    assert (aggregating.phase(), aggregating.round().attempt) == (RoundPhase.AGGREGATE, 1)
    # Coordinators are scored for what they coordinate, too.
    silent = next(i for i in voters if i not in (first, aggregating.round().coordinator))
    aggregating.aggregate("right")
    aggregating.attest(aggregating.others(silent))
    aggregating.open()
    aggregating.confirm()
    aggregating.pass_deadline()
    aggregating.stranger.finalize(1)
    assert aggregating.member(silent).score == START - START // 8
