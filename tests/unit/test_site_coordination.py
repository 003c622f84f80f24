"""What a coordinator says where it cannot make an aggregate."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from bahefl_flwr.errors import LedgerUnreachable, SketchesClosed, TooFewUpdates
from bahefl_flwr.records import ExclusionReason, RoundPhase
from bahefl_flwr.settings import compose
from bahefl_flwr.site import coordination, screening
from bahefl_flwr.site.state import Outcome, Request
from bahefl_flwr.site.updates import Updates
from round_views import ALL, round_, view


@pytest.mark.parametrize(
    ("notes", "end"),
    [([], "left out site 3 (oversized)"), (["a", "b"], "left out site 3 (oversized); a; b")],
)
def test_too_few_updates_are_told_with_their_reasons(monkeypatch: pytest.MonkeyPatch, notes: list[str], end: str) -> None:
    """Notes follow where there are any; without them the sentence ends there. The verdict goes to the driver with the error."""
    nothing = Updates(sound={}, unusable={}, part_blocks=(1,))

    def judge(_site: object, _view: object, _r: object, outcome: Outcome) -> coordination.Verdict:
        outcome.notes += notes
        reasons = {3: ExclusionReason.OVERSIZED}
        return coordination.Verdict(updates=nothing, weights={1: 8}, reasons=reasons, shown={"reasons": {"3": "OVERSIZED"}})

    monkeypatch.setattr(coordination, "judge", judge)
    site: Any = SimpleNamespace(settings=compose())
    r = round_(RoundPhase.AGGREGATE)
    with pytest.raises(TooFewUpdates) as told:
        coordination._aggregate(site, view(r), r)
    assert str(told.value) == f"round 4: 1 updates accepted, 3 needed; {end}"
    assert json.loads(told.value.verdict) == {"reasons": {"3": "OVERSIZED"}}


def test_a_coordinator_that_is_asked_before_there_is_a_seed_keeps_its_office(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even at the last try: whoever asks too early must not cost honest sites their score."""
    resigned: list[str] = []
    r = round_(RoundPhase.AGGREGATE, committed=ALL)
    ledger = SimpleNamespace(view=lambda: view(r), resign=lambda _number, why: resigned.append(why))
    site: Any = SimpleNamespace(ledger=ledger, settings=compose(), me=lambda: SimpleNamespace(index=r.coordinator))
    sound: Any = dict.fromkeys(range(5))
    monkeypatch.setattr(screening, "read_updates", lambda *_: Updates(sound=sound, unusable={}, part_blocks=(1,)))
    with pytest.raises(SketchesClosed, match="has drawn no seed"):
        coordination.aggregate(site, Request(run=bytes(32), number=4, last_try=True))
    assert resigned == []


@pytest.mark.parametrize("last_try", [False, True])
def test_a_node_that_does_not_answer_costs_the_office_only_at_the_last_try(
    monkeypatch: pytest.MonkeyPatch, last_try: bool
) -> None:
    """The sum is made and kept; asked again, the coordinator names it."""
    resigned: list[str] = []
    r = round_(RoundPhase.AGGREGATE, committed=ALL)
    ledger = SimpleNamespace(view=lambda: view(r), resign=lambda _number, why: resigned.append(why))
    site: Any = SimpleNamespace(ledger=ledger, settings=compose(), me=lambda: SimpleNamespace(index=r.coordinator))

    def unreachable(*_: object) -> None:
        raise LedgerUnreachable("no answer from the node")

    monkeypatch.setattr(coordination, "_aggregate", unreachable)
    with pytest.raises(LedgerUnreachable):
        coordination.aggregate(site, Request(run=bytes(32), number=4, last_try=last_try))
    assert resigned == (["LedgerUnreachable"] if last_try else [])
