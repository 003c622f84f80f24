"""When a site says what became of a conflict round, on a site and a ledger put together by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.records import BallotStage, RoundOutcome, RoundRecord
from bahefl_flwr.settings import compose
from bahefl_flwr.site import conflict
from bahefl_flwr.site.conflict import settled_outcome
from bahefl_flwr.site.state import Outcome, Request
from round_views import ALL, QUORUM, verified, view

SPLIT = 0b11000


def settled(monkeypatch: pytest.MonkeyPatch, stage: BallotStage, ballots: dict[int, int]) -> RoundOutcome:
    """What a site makes of the ballots that the ledger shows at this stage: whatever the first voter wants."""
    records = [SimpleNamespace(member=m, choice=choice) for m, choice in ballots.items()]
    site: Any = SimpleNamespace(ledger=SimpleNamespace(ballots=lambda _number: records))
    record = SimpleNamespace(decision=None, history=None, rules=None)
    monkeypatch.setattr(conflict, "record_of", lambda *_: record)
    monkeypatch.setattr(conflict, "outcome_of", lambda _d, _h, _r, votes, _a: RoundOutcome(votes[min(votes)]))
    r = verified(split=SPLIT, included=ALL, ballot_stage=stage)
    packed: Any = None
    return settled_outcome(site, view(r), r, packed, lambda: packed, {})


@pytest.mark.parametrize("stage", [BallotStage.NONE, BallotStage.CAST, BallotStage.REVEAL])
def test_no_outcome_of_ballots_that_are_not_counted(monkeypatch: pytest.MonkeyPatch, stage: BallotStage) -> None:
    """While a ballot may still come in, a site confirms nothing; the driver asks it again."""
    with pytest.raises(ProtocolError, match="round 4: its ballots are not counted yet"):
        settled(monkeypatch, stage, {0: 1})


def test_the_outcome_is_that_of_the_counted_ballots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the ledger says that they are counted."""
    assert settled(monkeypatch, BallotStage.COUNTED, {0: 2, 1: 1}) is RoundOutcome.SECOND


class Journal(dict[tuple[str, int, str], dict[str, Any]]):
    """A journal in memory; that the real one is durable is tested elsewhere."""

    put = dict.__setitem__


class Ledger:
    """Takes ballots, as often as they are shown; the contract would refuse the second."""

    def __init__(self, r: RoundRecord) -> None:
        self.r, self.shown = r, []  # type: ignore[var-annotated]

    def view(self) -> object:
        return view(self.r)

    def reveal_ballot(self, number: int, choice: int, salt: bytes) -> SimpleNamespace:
        self.shown.append((number, choice, salt))
        return SimpleNamespace(gas_used=7)


def reveal(journal: Journal, **changes: Any) -> tuple[Outcome, list[tuple[int, int, bytes]]]:
    """Ask site 0 for its ballot in a round, and see what it shows on the ledger."""
    r = verified(split=SPLIT, included=ALL, ballot_stage=BallotStage.REVEAL, cast=ALL, **changes)
    site: Any = SimpleNamespace(ledger=Ledger(r), journal=journal, settings=compose(), me=lambda: SimpleNamespace(index=0))
    return conflict.reveal_ballot(site, Request(run=bytes(32), number=4, quorum=r.open_quorum)), site.ledger.shown


BALLOT = {"choice": 2, "salt": "05" * 32}
CAST = Journal({(bytes(32).hex(), 4, f"ballot-0-{QUORUM:x}"): BALLOT})


def test_a_ballot_is_shown_as_it_was_cast() -> None:
    """The choice and the salt that the journal holds; they match the sealed form that the contract has."""
    outcome, shown = reveal(CAST)
    assert shown == [(4, 2, bytes([5]) * 32)]
    assert (outcome.facts, outcome.gas) == ({"ballot": 2}, 7)


def test_a_ballot_that_has_been_shown_is_not_shown_again() -> None:
    """The request came twice: nothing is sent, and nothing is wrong."""
    outcome, shown = reveal(CAST, balloted=0b00001)
    assert (shown, outcome.facts) == ([], {})


def test_after_a_strike_there_is_no_ballot_to_show() -> None:
    """What was cast under the struck quorum followed from shares that were wrong: the site votes anew, or shows nothing."""
    with pytest.raises(ProtocolError, match="has cast no ballot for quorum e"):
        reveal(CAST, open_quorum=0b01110)
