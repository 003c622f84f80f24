"""When a site says what became of a conflict round, on a site and a ledger put together by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bahefl_flwr.errors import ProtocolError
from bahefl_flwr.records import BallotStage, RoundOutcome
from bahefl_flwr.site import conflict
from bahefl_flwr.site.conflict import settled_outcome
from round_views import ALL, verified, view

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
