"""Claims about commits, aggregates and whole rounds: the real contract on the embedded chain."""

from __future__ import annotations

import pytest
from web3 import HTTPProvider, Web3

from bahefl_flwr.ledger.contract import MAX_REASON_BYTES
from bahefl_flwr.records import (
    BallotStage,
    EpochPhase,
    RoundOutcome,
    RoundPhase,
    RoundRecord,
    Task,
    UpdateRecord,
    mask_of,
    members_in,
)
from ledger_sites import CONFIG, WEIGHTS, N, Sites, digest, refused

ALL = 2**N - 1
ZERO = bytes(32)


def test_a_task_runs_its_rounds_and_ends(sites: Sites) -> None:
    """Two whole rounds: the second builds on the first, every record is what was sent, and the task is over."""
    task = Task(
        number=1, run_digest=digest("run"), initial_model=digest("model"), security_params=digest("params"), rounds=2,
        screened=False, open=True, end_reason="", excluded=0, absent=0,
    )  # fmt: skip
    assert sites.view().task == task
    first = sites.round()
    assert (first.number, first.parent, first.selected, first.weight_total) == (1, ZERO, ALL, sum(WEIGHTS))
    sites.whole_round()
    second = sites.round()
    assert (second.number, second.parent) == (2, digest("aggregate", 1))
    assert (first.base, second.base) == (digest("model"), digest("model after", 1))
    assert second.coordinator != first.coordinator
    assert (sites.view().last_finalized, sites.view().finalized_count) == (1, 1)
    sites.whole_round()
    view = sites.view()
    assert (view.last_finalized, view.finalized_count) == (2, 2)
    assert not view.task.open
    assert view.task.end_reason == ""
    assert view.round.phase is RoundPhase.FINALIZED
    assert view.epoch.phase is EpochPhase.ACTIVE
    assert [sites.admin.finalized_before(n) for n in (1, 2)] == [0, 1]
    assert sites.admin.task(1) == view.task


def test_a_finalised_round_is_read_back_whole(sites: Sites) -> None:
    """Every field of the records is what the sites put on the ledger."""
    opened = sites.round()
    sites.whole_round()
    r, quorum = sites.admin.round(1), sites.committee()[:2]
    assert r == RoundRecord(
        number=1, phase=RoundPhase.FINALIZED, attempt=0, coordinator=opened.coordinator, epoch=1, deadline=r.deadline,
        opened_at=opened.opened_at, weight_total=sum(WEIGHTS), selected=ALL, committed=ALL, declined=0, included=ALL,
        voted_ok=ALL, voted_bad=0, revealed=ALL, failed=0, open_quorum=mask_of(quorum), parent=ZERO,
        confirmed=ALL, disputed=0, split=0, cast=0, balloted=0, ballot_stage=BallotStage.NONE, outcome=RoundOutcome.WHOLE,
        screen_seed=ZERO, spoiled=ZERO,
        base=digest("model"), opened=digest("model after", 1),
        aggregate=digest("aggregate", 1), aggregate_size_bytes=5000, weights=bytes([1] * N), reasons=b"", abort_reason="",
    )  # fmt: skip
    assert sites.admin.updates(1) == tuple(
        UpdateRecord(member=i, digest=digest("update", 1, i), size_bytes=1000 + i, weight=WEIGHTS[i])
        for i in range(N)
    )  # fmt: skip
    assert [(s.member, s.quorum) for s in sites.admin.shares(1)] == [(i, mask_of(quorum)) for i in quorum]
    members = sites.admin.members()
    assert [m.included for m in members] == [1] * N
    assert [m.coordinated for m in members] == [int(i == opened.coordinator) for i in range(N)]
    assert all(m.score > 32768 for m in members)


# ---- commits


def test_only_selected_members_commit(sites: Sites) -> None:
    """Strangers cannot, nor can members left out of the round."""
    with refused("NotMember"):
        sites.stranger.commit_update(1, digest("u"), 1, 1, sites.round().base)
    sites.admin.select_sites(1, 0b00111)
    with refused("NotSelected"):
        sites.commit(4)
    with refused("NotSelected"):
        sites.ledgers[4].decline(1, "no data")


def test_a_site_commits_once(sites: Sites) -> None:
    """Promise P3: one commitment per run, round and site, however different the second."""
    sites.commit(0)
    with refused("AlreadyCommitted"):
        sites.ledgers[0].commit_update(1, digest("second"), 1, 1, sites.round().base)
    with refused("AlreadyCommitted"):
        sites.ledgers[0].decline(1, "changed my mind")


@pytest.mark.parametrize("number", [0, 2, 2**255])
def test_commits_name_the_open_round(sites: Sites, number: int) -> None:
    """No round of the past or of the future takes commits."""
    with refused("NotCurrentRound"):
        sites.ledgers[0].commit_update(number, digest("u"), 1, 1, sites.round().base)


def test_past_rounds_are_closed(sites: Sites) -> None:
    """Nothing can be done any more to a round that is over."""
    sites.admin.abandon(1, "test")
    for late in (
        lambda: sites.ledgers[0].commit_update(1, digest("u"), 1, 1, sites.round().base),
        lambda: sites.ledgers[0].attest(1, ZERO, True, ZERO),
        lambda: sites.ledgers[0].release_share(1, 3, digest("s"), digest("a")),
        lambda: sites.admin.finalize(1),
        lambda: sites.admin.abandon(1, "again"),
        lambda: sites.admin.replace_coordinator(1),
    ):
        with refused("NotCurrentRound"):
            late()


@pytest.mark.parametrize("weight", [0, WEIGHTS[0] + 1])
def test_weights_stay_below_the_registered_cap(sites: Sites, weight: int) -> None:
    """A site cannot weigh itself more than the registrar allowed, nor nothing."""
    with refused("BadWeight"):
        sites.ledgers[0].commit_update(1, digest("u"), 1, weight, sites.round().base)


def test_every_update_starts_from_the_rounds_model(sites: Sites) -> None:
    """Of the task's initial model, then of the one a majority confirmed: an update of another could not be added to them."""
    with refused("DigestMismatch"):
        sites.ledgers[0].commit_update(1, digest("u"), 1, 1, digest("another model"))
    sites.whole_round()
    with refused("DigestMismatch"):
        sites.ledgers[0].commit_update(2, digest("u"), 1, 1, digest("model"))
    sites.ledgers[0].commit_update(2, digest("u"), 1, 1, digest("model after", 1))


def test_empty_digests_are_refused(sites: Sites) -> None:
    """Zero stands for "nothing yet" and is never committed."""
    with refused("ZeroDigest"):
        sites.ledgers[0].commit_update(1, ZERO, 1, 1, sites.round().base)


def test_late_commits_are_refused(sites: Sites) -> None:
    """After the deadline there is nothing to add, even before anyone closed."""
    sites.pass_deadline()
    with refused("DeadlinePassed"):
        sites.commit(0)


def test_commits_close_early_only_when_all_have_answered(sites: Sites) -> None:
    """Nobody can shut a site out before its deadline; the last answer closes at once."""
    sites.commit(0, 1, 2, 3)
    with refused("DeadlineNotReached"):
        sites.admin.close_commits(1)
    sites.commit(4)
    assert sites.phase() is RoundPhase.AGGREGATE
    with refused("WrongPhase"):
        sites.admin.close_commits(1)


def test_a_decline_closes_early(sites: Sites) -> None:
    """A site that cannot take part says so, nobody waits for it, and it costs no score."""
    sites.ledgers[4].decline(1, "scanner down")
    sites.commit(0, 1, 2, 3)
    r = sites.round()
    assert (r.phase, r.committed, r.declined) == (RoundPhase.AGGREGATE, 0b01111, 0b10000)
    with refused("WrongPhase"):
        sites.commit(4)


def test_a_site_that_declined_is_out_of_the_round(sites: Sites) -> None:
    """A decline is an answer: no second one, no commit."""
    sites.ledgers[4].decline(1, "scanner down")
    with refused("AlreadyDeclined"):
        sites.ledgers[4].decline(1, "still down")
    with refused("AlreadyDeclined"):
        sites.commit(4)


def test_too_few_updates_abort_the_round(sites: Sites) -> None:
    """An aggregate of fewer than min_commits would show too much: the round ends with the count, the next one opens."""
    sites.commit(0, 1)
    sites.pass_deadline()
    sites.stranger.close_commits(1)
    over, opened = sites.admin.round(1), sites.round()
    assert (over.phase, over.abort_reason) == (RoundPhase.ABORTED, f"too few updates (2 of {CONFIG.min_commits})")
    assert (opened.number, opened.phase, opened.parent) == (2, RoundPhase.COMMIT, ZERO)


def test_reasons_fit_the_ledger(sites: Sites) -> None:
    """The client cuts a reason to 200 bytes between characters; the contract refuses longer ones and empty ones."""
    sites.ledgers[0].decline(1, "é" * 500)
    sites.ledgers[1].decline(1, "")
    contract = sites.ledgers[2]
    with refused("BadReason"):
        contract._send("decline", 1, "x" * (MAX_REASON_BYTES + 1))
    with refused("BadReason"):
        contract._send("decline", 1, "")
    assert sites.round().declined == 0b00011


# ---- selection


def test_selection_narrows_the_round(sites: Sites) -> None:
    """Commits close over the selected only; the unit of weights stays the one the round opened with."""
    sites.admin.select_sites(1, 0b01011)
    r = sites.round()
    assert (r.selected, r.weight_total) == (0b01011, sum(WEIGHTS))
    assert r.coordinator in (0, 1, 3)
    sites.commit(0, 1, 3)
    assert sites.phase() is RoundPhase.AGGREGATE


def test_selection_is_the_administrators_and_comes_first(sites: Sites) -> None:
    """Not after an answer, not of strangers, not of too few."""
    with refused("AccessControlUnauthorizedAccount"):
        sites.ledgers[0].select_sites(1, 0b00111)
    for mask in (0b00011, 0b100111):
        with refused("BadSelection"):
            sites.admin.select_sites(1, mask)
    sites.commit(0)
    with refused("SelectionFixed"):
        sites.admin.select_sites(1, 0b00111)


# ---- aggregates


def test_only_the_coordinator_aggregates_and_only_then(sites: Sites) -> None:
    """Not before commits close, nobody else, and not after its deadline."""
    with refused("WrongPhase"):
        sites.aggregate(included=0b00111)
    sites.commit()
    for i in sites.others(sites.round().coordinator):
        with refused("NotCoordinator"):
            sites.ledgers[i].submit_aggregate(1, digest("a"), 1, ALL, 0, bytes([1] * N), b"")
    sites.pass_deadline()
    with refused("DeadlinePassed"):
        sites.aggregate()


@pytest.mark.parametrize(
    ("included", "weights", "reasons", "why"),
    [
        (0b111111, bytes([1] * 6), b"", "BadInclusion"),
        (0b00011, b"\1\1", b"\1\1\1", "BadInclusion"),
        (0b11111, bytes([1] * 4), b"", "BadLength"),
        (0b11111, bytes([1] * 6), b"", "BadLength"),
        (0b11111, bytes([1, 1, 1, 1, 0]), b"", "BadWeight"),
        (0b11111, bytes([1, 1, 1, 1, 9]), b"", "BadWeight"),
        (0b01111, bytes([1] * 4), b"", "BadLength"),
        (0b01111, bytes([1] * 4), b"\0", "BadWeight"),
        (0b11111, bytes([1] * 5), b"\1", "BadLength"),
    ],
)
def test_an_aggregate_accounts_for_every_commit(
    sites: Sites, included: int, weights: bytes, reasons: bytes, why: str
) -> None:  # fmt: skip
    """Only committed sites, enough of them, one weight of 1..8 each, one reason for each of the others."""
    sites.commit()
    with refused(why):
        sites.coordinator().submit_aggregate(1, digest("a"), 1, included, 0, weights, reasons)


def test_weights_and_reasons_are_read_back_apart(sites: Sites) -> None:
    """The record gives each included site its weight and each other one its reason, in order of their indices."""
    sites.commit()
    sites.coordinator().submit_aggregate(1, digest("a"), 77, 0b11010, 0, b"\1\10\3", b"\2\1")
    r = sites.round()
    assert (r.included, r.weights, r.reasons, r.aggregate_size_bytes) == (0b11010, b"\1\10\3", b"\2\1", 77)
    with refused("WrongPhase"):
        sites.aggregate("another")


def test_an_excluded_site_loses_score(sites: Sites) -> None:
    """Its commit was missing or malformed, which a majority attested."""
    sites.commit()
    sites.aggregate(included=0b01111, reasons=b"\1")
    sites.attest()
    sites.open()
    sites.confirm()
    sites.admin.finalize(1)
    excluded, included = sites.member(4), sites.member(0)
    assert (excluded.rejected, included.included) == (1, 1)
    assert excluded.score < 32768 < included.score


# ---- ends


def test_the_administrator_can_end_the_task(sites: Sites) -> None:
    """The open round is aborted with the reason; members cannot; nothing goes on."""
    with refused("AccessControlUnauthorizedAccount"):
        sites.ledgers[0].end_task("enough")
    sites.admin.end_task("converged")
    assert sites.round().abort_reason == "converged"
    assert sites.view().task.end_reason == "converged"
    with refused("WrongPhase"):
        sites.commit(0)


def test_a_second_task_starts_afresh(sites: Sites) -> None:
    """Its rounds continue the count, but build on its own initial model; scores stay."""
    sites.whole_round()
    sites.admin.end_task("converged")
    sites.start()
    sites.ceremony()
    view = sites.view()
    assert (view.task.number, view.last_finalized, view.finalized_count) == (2, 0, 0)
    assert (view.round.number, view.round.parent, view.round.epoch) == (3, ZERO, 2)
    assert view.round.base == digest("model")
    assert sites.member(0).included == 1


def test_every_step_leaves_an_event(sites: Sites) -> None:
    """An auditor can replay a round from the logs: who did what, in which order."""
    sites.whole_round()
    ledger = sites.admin
    web3 = Web3(HTTPProvider(sites.chain.url))
    contract = web3.eth.contract(address=ledger.address, abi=ledger._contract.abi)
    steps = ("UpdateCommitted", "Attested", "ShareReleased", "Confirmed")
    logs = {name: contract.events[name]().get_logs(from_block=0) for name in steps}
    addresses = [m.address for m in ledger.members()]
    assert [log["args"]["member"] for log in logs["UpdateCommitted"]] == addresses
    assert [log["args"]["member"] for log in logs["Attested"]] == addresses
    assert [log["args"]["member"] for log in logs["ShareReleased"]] == [
        addresses[i] for i in members_in(ledger.round(1).open_quorum)
    ]
    assert [log["args"]["member"] for log in logs["Confirmed"]] == addresses
    assert {log["args"]["model"] for log in logs["Confirmed"]} == {digest("model after", 1)}
