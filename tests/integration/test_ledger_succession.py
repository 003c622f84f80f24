"""Claims about coordinators: fail-over within a round and the election of the next: the real contract on the embedded chain."""

from __future__ import annotations

from functools import reduce

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from bahefl_flwr.records import RoundPhase
from ledger_sites import CONFIG, N, Sites, refused


def test_a_coordinator_that_misses_its_deadline_is_replaced(sites: Sites) -> None:
    """Not before; then by anyone, with half its score lost, and it does not come back in this round."""
    sites.commit()
    former = sites.round().coordinator
    with refused("DeadlineNotReached"):
        sites.admin.replace_coordinator(1)
    sites.pass_deadline()
    sites.stranger.replace_coordinator(1)
    r = sites.round()
    assert (r.attempt, r.failed) == (1, 1 << former)
    assert r.coordinator != former
    assert (sites.member(former).coordinator_faults, sites.member(former).score) == (1, 16384)
    with refused("NotCoordinator"):
        sites.ledgers[former].submit_aggregate(1, bytes(31) + b"\1", 1, 0b111, 0, b"\1\1\1", b"\1\1")


def test_a_verification_without_a_majority_passes_the_office_on(sites: Sites) -> None:
    """When too few attest in time, another site makes (the same) aggregate."""
    sites.commit()
    sites.aggregate()
    former = sites.round().coordinator
    sites.attest([0, 1])
    sites.pass_deadline()
    sites.admin.replace_coordinator(1)
    assert sites.phase() is RoundPhase.AGGREGATE
    assert sites.round().coordinator != former


def test_resigning_is_cheaper_than_silence(sites: Sites) -> None:
    """The next candidate takes over at once; the loss is an eighth instead of half."""
    sites.commit()
    former = sites.round().coordinator
    with refused("NotCoordinator"):
        sites.ledgers[sites.others(former)[0]].resign(1, "not mine")
    sites.ledgers[former].resign(1, "out of memory")
    r = sites.round()
    assert (r.phase, r.attempt, r.failed) == (RoundPhase.AGGREGATE, 1, 1 << former)
    assert (sites.member(former).coordinator_faults, sites.member(former).score) == (0, 32768 - 4096)
    sites.aggregate()
    with refused("WrongPhase"):
        sites.coordinator().resign(1, "too late")


def test_resigning_early_costs_no_attempt(sites: Sites) -> None:
    """While sites still train there is no aggregate to repeat."""
    former = sites.round().coordinator
    sites.ledgers[former].resign(1, "going down for maintenance")
    assert sites.round().coordinator != former
    assert sites.round().attempt == 0


def test_the_last_resignation_aborts(sites: Sites) -> None:
    """When `max_attempts` have given up, the round ends with the reason; the next opens with someone else."""
    sites.commit()
    for _ in range(CONFIG.max_attempts):
        sites.coordinator().resign(1, "out of memory")
    assert sites.admin.round(1).abort_reason == "no coordinator produced a verified aggregate"
    assert not sites.admin.round(1).failed >> sites.round().coordinator & 1


def test_a_coordinator_without_an_update_hands_over_when_commits_close(sites: Sites) -> None:
    """Silent, it is at fault; having declined, it is not."""
    silent = sites.round().coordinator
    sites.commit(*sites.others(silent))
    sites.pass_deadline()
    sites.admin.close_commits(1)
    assert sites.round().coordinator != silent
    assert sites.round().attempt == 0
    assert sites.member(silent).coordinator_faults == 1
    sites.admin.abandon(1, "test")
    idle = sites.round().coordinator
    sites.ledgers[idle].decline(2, "no data")
    sites.commit(*sites.others(idle))
    assert sites.phase() is RoundPhase.AGGREGATE
    assert sites.round().coordinator != idle
    assert sites.member(idle).coordinator_faults == (1 if idle == silent else 0)


def test_a_coordinator_that_gave_up_does_not_come_back(sites: Sites) -> None:
    """When all have given up while sites still train, nobody is left to add: the round ends with that reason."""
    for _ in range(N):
        sites.coordinator().resign(1, "not this time")
    with refused("NotCoordinator"):
        sites.coordinator().resign(1, "once more")
    sites.commit()
    assert sites.admin.round(1).abort_reason == "no site is left that could coordinate"
    assert sites.round().number == 2


def test_the_election_can_be_recomputed_from_the_ledger(registered: Sites) -> None:
    """Round 3's coordinator has the lowest ticket: hashes of the layers revealed in round 2, salted with round 1's entropy."""
    registered.start(rounds=3)
    registered.ceremony()
    salt = reduce(_xor, (registered.layer(i) for i in range(N)))
    registered.whole_round()
    sitting = {registered.admin.round(n).coordinator for n in (1, 2)}
    tickets = {}
    for i in set(range(N)) - sitting:
        count = 1 + registered.member(i).score * 15 // 65535
        base = keccak(encode(["bytes32", "bytes32", "uint256"], [registered.layer(i), salt, 2]))
        tickets[i] = min(keccak(encode(["bytes32", "uint256"], [base, k])) for k in range(count))
    registered.whole_round()
    assert registered.round().coordinator == min(tickets, key=lambda i: tickets[i])


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
