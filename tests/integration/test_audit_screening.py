"""The audit of screened rounds: an eventful history is recomputed exactly, and each lie about it is found by its check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bahefl_flwr.audit.auditing import judge
from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.evidence import Evidence, read_evidence
from bahefl_flwr.audit.objects import ReadOnlyStore
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.history import History
from bahefl_flwr.records import ExclusionReason, RoundOutcome, RoundPhase
from ledger_sites import CHAIN_ID, CONFIG, SixSites, digest, running_chain

# Those that look into the store, where these histories put nothing.
OF_OBJECTS = {5, 6, 8}
ALL, SECOND = 0b111111, 0b111000


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """What the ledger says of seven screened rounds of six sites."""
    with running_chain(tmp_path_factory.mktemp("screened") / "chain.sqlite") as chain:
        sites = SixSites.deployed(chain, CONFIG)
        sites.register()
        sites.start(rounds=len(PLAYS) + 1, screened=True)
        sites.ceremony()
        for play in PLAYS:
            play(sites)
        yield read_evidence(History(Connection(sites.chain.url, CHAIN_ID), sites.admin.address), CHAIN_ID)


def screen(sites: SixSites, *late: int) -> None:
    """Everybody commits and, but for the late ones, reveals; somebody draws if need be; a quorum names its parts."""
    sites.commit()
    sites.reveal_layers(*sites.others(*late))
    if late:
        sites.stranger.draw_seed(sites.round().number)
    sites.sketch(*sites.committee()[:2])


def verify(sites: SixSites, **submitted: Any) -> None:
    """The coordinator submits; all attest, and the first quorum opens."""
    sites.aggregate(**submitted)
    sites.attest()
    sites.open()


def settle(sites: SixSites, outcome: RoundOutcome = RoundOutcome.WHOLE) -> None:
    """All confirm, and anybody finalises."""
    r = sites.round()
    named = r.base if outcome is RoundOutcome.NONE else digest("model after", r.number)
    for ledger in sites.ledgers:
        ledger.confirm_opening(r.number, r.open_quorum, named, outcome)
    sites.stranger.finalize(r.number)


def choose_a_half(sites: SixSites) -> None:
    """Two sites reveal with their votes only; one ballot is missing; the first half counts."""
    screen(sites, 1, 4)
    verify(sites, split=SECOND)
    sites.cast(0, 1, 2, 3, 4)
    sites.pass_deadline()
    sites.stranger.close_ballots(sites.round().number)
    sites.show(0, 1, 2, 3, 4)
    settle(sites, RoundOutcome.FIRST)


def spoil_one(sites: SixSites) -> None:
    """The sum is out of range; the next one is made without the culprit."""
    screen(sites)
    verify(sites)
    sites.confirm(0, 1, 2, 3, model="places", outcome=RoundOutcome.SPOILED)
    sites.sketch(*sites.committee()[:2])
    culprit = sites.others(sites.round().coordinator)[0]
    verify(sites, name="without", included=ALL & ~(1 << culprit), reasons=bytes([ExclusionReason.GARBAGE]))
    settle(sites)


def keep_the_model(sites: SixSites) -> None:
    """A quorum is struck after the vote; the second vote takes up neither half."""
    screen(sites)
    sites.aggregate(split=SECOND)
    sites.attest()
    a, b, c = sites.committee()
    sites.release(a, b)
    sites.cast()
    sites.show()
    sites.accuse(c, a)
    sites.release(b, c)
    sites.cast(choice=0)
    sites.show(choice=0)
    settle(sites, RoundOutcome.NONE)


def withhold_sketches(sites: SixSites) -> None:
    """The coordinator's window ends without parts of the sketches, its successor's with them; then others hold the key."""
    sites.commit()
    sites.reveal_layers()
    number = sites.round().number
    sites.pass_deadline()
    sites.stranger.replace_coordinator(number)
    sites.sketch(*sites.committee()[:2])
    sites.pass_deadline()
    sites.stranger.replace_coordinator(number)
    verify(sites)
    settle(sites)
    sites.ceremony()


def leave_out_by_screening(sites: SixSites) -> None:
    """One update is out of the range of honest ones, one is missing; a site stays silent about the sum."""
    screen(sites)
    out, missing, silent = sites.others(sites.round().coordinator, *sites.committee()[:2])[:3]
    reasons = {out: ExclusionReason.OUT_OF_RANGE, missing: ExclusionReason.MISSING}
    included = ALL & ~(1 << out | 1 << missing)
    sites.aggregate(included=included, reasons=bytes(reasons[i] for i in sorted(reasons)))
    sites.attest(sites.others(silent))
    sites.open()
    sites.confirm()
    sites.pass_deadline()
    sites.stranger.finalize(sites.round().number)


def withhold_layers(sites: SixSites) -> None:
    """The coordinator's window ends without layers, its successor's with too few of them."""
    sites.commit()
    number = sites.round().number
    for layers in ((), (0, 1)):
        for i in layers:
            sites.reveal_layers(i)
        sites.pass_deadline()
        sites.stranger.replace_coordinator(number)
    sites.reveal_layers(*sites.others(0, 1))
    sites.sketch(*sites.committee()[:2])
    verify(sites)
    settle(sites)


def suspend_coordinators(sites: SixSites) -> None:
    """One before there are sketches, its successor after; both come back in time to vote."""
    sites.commit()
    sites.reveal_layers()
    for answer in (lambda: sites.sketch(*sites.committee()[:2]), lambda: None):
        suspended = sites.accounts[sites.round().coordinator].address
        sites.admin.suspend(suspended, "off line")
        sites.admin.reinstate(suspended)
        answer()
    verify(sites)
    settle(sites)


PLAYS = (
    choose_a_half, spoil_one, keep_the_model, withhold_sketches, leave_out_by_screening, withhold_layers, suspend_coordinators,
)  # fmt: skip


# ---- the claims


def findings(evidence: Evidence, folder: Path) -> dict[int, list[str]]:
    """What each check of the ledger finds."""
    report = judge(Case(evidence=evidence, store=ReadOnlyStore(folder)), "screened")
    return {r.number: [f.message for f in r.findings] for r in report.results if r.findings and r.number not in OF_OBJECTS}


def test_a_screened_history_is_recomputed_exactly(evidence: Evidence, tmp_path: Path) -> None:
    """Early and late layers, seeds, halves, ballots, a spoiled sum, a struck quorum: the same coordinators, seeds and scores."""
    assert findings(evidence, tmp_path) == {}
    assert [r.record.phase for r in evidence.rounds[:7]] == [RoundPhase.FINALIZED] * 7
    assert [r.record.outcome for r in evidence.rounds[:3]] == [RoundOutcome.FIRST, RoundOutcome.WHOLE, RoundOutcome.NONE]
    assert [r.record.attempt for r in evidence.rounds[3:7]] == [2, 0, 2, 2]
    assert [r.record.epoch for r in evidence.rounds[:7]] == [1, 1, 1, 1, 2, 2, 2]
    assert len({m.score for m in evidence.members}) > 2


@pytest.mark.parametrize(
    ("name", "values", "check", "message"),
    [
        ("SeedDrawn", {"seed": b"\7" * 32}, 10, "the reveals give"),
        ("AggregateSubmitted", {"split": 0b010101}, 7, "not the one last submitted"),
        ("OpeningConfirmed", {"outcome": 2}, 12, "0 confirmations of 4 needed"),
        ("OpeningConfirmed", {"outcome": 2}, 10, "score on the ledger"),
        ("RoundSpoiled", {"positions": b"\7" * 32}, 12, "0 confirmations of 4 needed"),
        ("LayerRevealed", {"layer": b"\7" * 32}, 10, "not the next one of its hash onion"),
    ],
)
def test_an_altered_event_is_found(
    evidence: Evidence, tmp_path: Path, name: str, values: dict[str, Any], check: int, message: str
) -> None:
    """What the ledger tells in the first event of a kind does not fit the others any more."""
    at = next(k for k, e in enumerate(evidence.events) if e.name == name)
    events = list(evidence.events)
    events[at] = replace(events[at], values={**events[at].values, **values})
    assert any(message in f for f in findings(replace(evidence, events=tuple(events)), tmp_path)[check])


@pytest.mark.parametrize(
    ("name", "check", "message"),
    [
        ("BallotCast", 12, "BallotRevealed: not this site's to do, or not then"),
        ("SeedDrawn", 10, "screening's seed"),
        ("RoundSpoiled", 11, "attempts [0, 1] were opened"),
        ("LayerRevealed", 10, "not the next one of its hash onion"),
    ],
)
def test_a_missing_event_is_found(evidence: Evidence, tmp_path: Path, name: str, check: int, message: str) -> None:
    """What followed from it has no reason any more."""
    at = next(k for k, e in enumerate(evidence.events) if e.name == name)
    events = evidence.events[:at] + evidence.events[at + 1 :]
    assert any(message in f for f in findings(replace(evidence, events=events), tmp_path)[check])


def test_a_half_chosen_before_the_count_is_found(evidence: Evidence, tmp_path: Path) -> None:
    """No stage of the vote was ever closed."""
    events = tuple(e for e in evidence.events if e.name != "BallotStageBegun" or e.values["stage"] != 3)
    assert any("before the ballots were counted" in f for f in findings(replace(evidence, events=events), tmp_path)[12])


def test_a_ballot_shown_too_early_is_found(evidence: Evidence, tmp_path: Path) -> None:
    """While others could still cast theirs."""
    events = list(evidence.events)
    shown = next(e for e in events if e.name == "BallotRevealed")
    events.remove(shown)
    events.insert(next(k for k, e in enumerate(events) if e.name == "BallotStageBegun" and e.values["stage"] == 2), shown)
    found = findings(replace(evidence, events=tuple(events)), tmp_path)[12]
    assert any("BallotRevealed: not this site's to do, or not then" in f for f in found)


def test_a_second_seed_is_found(evidence: Evidence, tmp_path: Path) -> None:
    """Drawn again with the same value, it still is a second one."""
    events = list(evidence.events)
    at = next(k for k, e in enumerate(events) if e.name == "SeedDrawn")
    events.insert(at, events[at])
    assert any("a second seed" in f for f in findings(replace(evidence, events=tuple(events)), tmp_path)[10])


@pytest.mark.parametrize(
    ("changes", "check", "message"),
    [
        ({"split": 0b110000}, 7, "splits"),
        ({"screen_seed": b"\7" * 32}, 10, "screening's seed"),
        ({"outcome": RoundOutcome.SECOND}, 12, "confirmed was"),
    ],
)
def test_an_altered_record_is_found(
    evidence: Evidence, tmp_path: Path, changes: dict[str, Any], check: int, message: str
) -> None:  # fmt: skip
    """The ledger's record of the first round says something else than its events."""
    first, *others = evidence.rounds
    altered = replace(first, record=replace(first.record, **changes))
    assert any(message in f for f in findings(replace(evidence, rounds=(altered, *others)), tmp_path)[check])
