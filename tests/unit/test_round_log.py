"""Figures of a round and its line in metrics.jsonl."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bahefl_flwr.records import BallotRecord, BallotStage, Member, RoundOutcome, RoundPhase, RoundRecord
from bahefl_flwr.replies import Reply
from bahefl_flwr.round_log import Ended, RoundFigures, round_line
from round_views import round_


def reply(node: int = 1, **records: dict[str, float]) -> Reply:
    return Reply(node=node, ok=True, **records)  # type: ignore[arg-type]


def test_training_time_is_dealt_out_by_what_the_sites_did() -> None:
    """The wall time of the train phase is split in proportion to the sites' own seconds and adds up to it."""
    figures = RoundFigures()
    figures.add("train", 10.0, {0: reply(seconds={"train": 3.0, "encrypt": 1.0}), 1: reply(seconds={"train": 3.0, "open": 1.0})})
    assert figures.seconds["train"] == pytest.approx(7.5)
    assert sum(figures.seconds.values()) == pytest.approx(10.0)


def test_an_update_counts_when_it_is_sent() -> None:
    """Bytes of an update are booked at upload, not when it is made; gas is booked always."""
    figures = RoundFigures()
    figures.add("train", 1.0, {0: reply(bytes={"update": 100, "gas": 5})})
    figures.add("upload", 1.0, {0: reply(bytes={"update": 100, "gas": 0}), 1: reply(bytes={"update": 50})})
    assert (figures.bytes["update"], figures.gas) == (150, 5)


def test_training_metrics_of_a_second_question_join_those_of_the_first() -> None:
    """Sites that are asked again do not push out the metrics of those that answered at once."""
    figures = RoundFigures()
    figures.add("train", 1.0, {0: reply(metrics={"loss": 1.0}), 1: Reply(node=2, ok=False, error="x")})
    figures.add("train", 1.0, {1: reply(metrics={"loss": 2.0})})
    assert figures.trained == {0: {"loss": 1.0}, 1: {"loss": 2.0}}


def test_failed_replies_count_nothing() -> None:
    """Whatever a failed reply claims is not booked."""
    figures = RoundFigures()
    figures.add("upload", 1.0, {0: Reply(node=1, ok=False, error="x", bytes={"update": 100})})
    assert figures.bytes["update"] == 0


def test_notes_name_their_site() -> None:
    """A note of a site stands in the line with the site's index."""
    figures = RoundFigures()
    figures.add("verify", 1.0, {3: Reply(node=9, ok=True, facts={"ok": True, "notes": "a\nb"})})
    assert figures.notes == ["site 3: a", "site 3: b"]


SITES = {k: cast("Member", SimpleNamespace(index=k, address=f"0x{k}")) for k in range(5)}


def line_of(r: RoundRecord, screening: dict[str, Any], *ballots: BallotRecord) -> dict[str, Any]:
    figures = RoundFigures()
    figures.add("aggregate", 1.0, {2: Reply(node=1, ok=False, error="x", facts={"screening": json.dumps(screening)})})
    return round_line(Ended(round=r, members=SITES, updates=(), ballots=ballots), figures, {}, {})


def test_an_abandoned_round_keeps_the_verdict_that_left_too_few() -> None:
    """The coordinator's error carries it: whom it left out, why, and that nothing became of the round. Odd claims are nothing."""
    r = round_(RoundPhase.ABORTED, committed=0b01111, abort_reason="no coordinator produced a verified aggregate")
    claimed = {"reasons": {"0": "ZERO", "1": "UNDOING", "2": "<script>", "3": 7, "4": "ZERO"}}
    written = line_of(r, claimed)
    assert (written["outcome"], written["included"]) == ("none", [])
    assert written["excluded"] == {"0": "zero", "1": "undoing"}, "site 4 has not committed"
    assert written["screening"] == claimed
    assert written["abandoned"].endswith("aggregate; screening left out site 0 (zero), site 1 (undoing)")


@pytest.mark.parametrize(
    ("committed", "declined", "reason", "begun"),
    [(0, 0, "3 in a row", False), (0b1, 0, "3 in a row", True), (0, 0b1, "3 in a row", True), (0, 0, "too few updates", True)],
)
def test_a_round_that_only_records_the_end_is_not_begun(committed: int, declined: int, reason: str, begun: bool) -> None:
    """It was open when the run was ended, and no site had answered: it is not one more that gave no model."""
    r = round_(RoundPhase.ABORTED, committed=committed, declined=declined, abort_reason=reason)
    ended = Ended(round=r, members=SITES, updates=(), end_reason="3 in a row")
    assert round_line(ended, RoundFigures(), {}, {})["begun"] is begun


def test_a_conflict_round_names_its_halves_and_votes() -> None:
    """From the ledger, not from what the coordinator says."""
    r = round_(
        RoundPhase.FINALIZED, committed=0b1111, included=0b1111, split=0b1010, outcome=RoundOutcome.SECOND, reasons=b"",
        ballot_stage=BallotStage.COUNTED,
    )  # fmt: skip
    ballots = [BallotRecord(member=m, commitment=bytes(32), choice=choice) for m, choice in enumerate((1, 2, None, 0))]
    written = line_of(r, {}, *ballots)
    assert written["halves"] == [[0, 2], [1, 3]]
    assert written["votes"] == {"0": "first", "1": "second", "2": "kept back", "3": "both"}
    assert written["excluded"] == {"0": "outvoted", "2": "outvoted"}
