"""The election recomputed in Python against the contract: an eventful history, and histories of random acts."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

from bahefl_flwr.audit.auditing import judge
from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.evidence import Evidence, read_evidence
from bahefl_flwr.audit.objects import ReadOnlyStore
from bahefl_flwr.errors import BaheflError
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.history import History
from bahefl_flwr.records import EpochPhase, members_in
from ledger_sites import CHAIN_ID, N, Sites

# Those that look into the store, where these histories put nothing.
OF_OBJECTS = {5, 6, 8}


@pytest.fixture(params=["embedded", pytest.param("anvil", marks=pytest.mark.slow)])
def chains(request: pytest.FixtureRequest) -> object:
    """Both kinds of node; one of them is enough for every merge."""
    return request.getfixturevalue(f"{request.param}_chains")


@pytest.fixture
def federation(registered: Sites) -> Sites:
    """Five sites, a committee of three with a key, round 1 open."""
    registered.start(rounds=20)
    registered.ceremony()
    return registered


def audited(sites: Sites, folder: Path) -> tuple[Evidence, list[str]]:
    """What the ledger says, and everything that the checks of the ledger find."""
    evidence = read_evidence(History(Connection(sites.chain.url, CHAIN_ID), sites.admin.address), CHAIN_ID)
    report = judge(Case(evidence=evidence, store=ReadOnlyStore(folder)), "walk")
    found = [f"{r.number}: {f}" for r in report.results if r.number not in OF_OBJECTS for f in r.findings]
    return evidence, found


def names(evidence: Evidence) -> set[str]:
    """Which events happened."""
    return {event.name for event in evidence.events}


def test_an_eventful_history_is_recomputed_exactly(federation: Sites, tmp_path: Path) -> None:
    """Resignation, silence, a rejected sum, wrong votes, suspension in office, abandoned rounds, a struck quorum, new keys.

    Of all of it the Python election makes the same coordinators, committees, entropy, tickets and scores as the contract.
    """
    sites = federation
    resign(sites)
    reject(sites)
    stay_silent(sites)
    suspend_the_coordinator(sites)
    abandon(sites)
    strike_a_quorum(sites)
    sites.admin.renew_keys()
    make_keys(sites)
    finish(sites)
    make_keys(sites)
    evidence, found = audited(sites, tmp_path)
    assert found == []
    eventful = {"Resigned", "AggregateRejected", "WrongVotes", "CoordinatorReplaced", "Suspended", "RoundAborted", "QuorumStruck"}
    assert names(evidence) >= eventful | {"EpochOpened", "Declined", "Reinstated"}
    assert len([e for e in evidence.events if e.name == "EpochOpened"]) >= 2


def make_keys(sites: Sites) -> None:
    """The ceremonies that are due: a member that came back meanwhile makes another one necessary."""
    while sites.view().epoch.phase is not EpochPhase.ACTIVE:
        sites.ceremony()


def finish(sites: Sites) -> None:
    """Take the open round to its end from wherever it is."""
    r = sites.round()
    if not r.committed:
        sites.commit()
    sites.aggregate()
    sites.attest()
    sites.open()
    sites.confirm()
    sites.admin.finalize(r.number)


def resign(sites: Sites) -> None:
    """The coordinator gives up before and another after commits have closed; one site declines."""
    r = sites.round()
    sites.coordinator().resign(r.number, "tired")
    other = next(i for i in range(N) if i != sites.round().coordinator)
    sites.ledgers[other].decline(r.number, "no data")
    sites.commit(*(i for i in range(N) if i != other))
    sites.coordinator().resign(r.number, "tired")
    finish(sites)


def reject(sites: Sites) -> None:
    """A majority votes down the first aggregate; the second is verified, one site votes against it."""
    sites.commit()
    sites.aggregate("wrong")
    sites.attest([0], ok=True)
    sites.attest([1, 2, 3], ok=False)
    sites.aggregate()
    sites.attest([0, 1, 2, 3])
    sites.attest([4], ok=False)
    sites.open()
    sites.confirm()
    sites.admin.finalize(sites.round().number)


def stay_silent(sites: Sites) -> None:
    """The coordinator does not commit; its successor does not aggregate."""
    r = sites.round()
    sites.commit(*sites.others(r.coordinator))
    sites.pass_deadline()
    sites.stranger.close_commits(r.number)
    sites.pass_deadline()
    sites.stranger.replace_coordinator(r.number)
    finish(sites)


def suspend_the_coordinator(sites: Sites) -> None:
    """In office, after commits have closed; it comes back for the next round."""
    sites.commit()
    r = sites.round()
    address = sites.accounts[r.coordinator].address
    sites.admin.suspend(address, "off line")
    if sites.view().round.number == r.number:
        sites.aggregate()
        sites.attest(members_in(r.committed & sites.view().active))
        sites.pass_deadline()
        sites.stranger.abandon(r.number, "nobody opened it")
    sites.admin.reinstate(address)


def abandon(sites: Sites) -> None:
    """A round with too few updates."""
    make_keys(sites)
    sites.commit(0, 1)
    sites.pass_deadline()
    sites.stranger.close_commits(sites.round().number)


def strike_a_quorum(sites: Sites) -> None:
    """A key holder's share is found wrong; another quorum opens the round."""
    make_keys(sites)
    sites.commit()
    sites.aggregate()
    sites.attest()
    a, b, c = sites.committee()
    sites.release(a, b)
    sites.ledgers[c].accuse(sites.view().epoch.epoch, sites.accounts[a].address, bytes(32), "a wrong share")
    sites.release(b, c)
    sites.confirm()
    sites.admin.finalize(sites.round().number)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_random_histories_pass_the_checks_of_the_ledger(federation: Sites, tmp_path: Path, seed: int) -> None:
    """Whatever members, administrator, strangers and time do, the audit finds nothing wrong with what the contract made of it."""
    spec = importlib.util.spec_from_file_location("walk", Path(__file__).with_name("test_ledger_random_walk.py"))
    assert spec
    assert spec.loader
    walk = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(walk)
    chance = random.Random(seed)
    for _ in range(200):
        try:
            chance.choice(walk.ACTIONS)(federation, chance)
        except (BaheflError, KeyError, ValueError):
            continue  # refused by the contract, or by the walk's own bookkeeping
        finally:
            if not federation.view().task.open:
                walk.restart(federation)
    _, found = audited(federation, tmp_path)
    assert [line for line in found if "committed the digest" not in line] == []
