"""Whose updates count where key holders, coordinator and judges saw the store at different times; on records made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bahefl_flwr.errors import ProtocolError, SketchesClosed
from bahefl_flwr.records import ExclusionReason, RoundRecord, mask_of
from bahefl_flwr.site import sketch_answers
from bahefl_flwr.site.screening import _unusable
from bahefl_flwr.site.sketches import Question
from bahefl_flwr.site.state import Outcome
from bahefl_flwr.site.updates import Updates
from round_views import verified, view

MISSING, MALFORMED = ExclusionReason.MISSING, ExclusionReason.MALFORMED
ALL = (0, 1, 2, 3, 4)
PUNCTUAL = (0, 1, 3, 4)


def round_of(left_out: dict[int, ExclusionReason], **changes: Any) -> RoundRecord:
    """A round whose aggregate on the ledger leaves out these sites of five."""
    included = mask_of(m for m in ALL if m not in left_out)
    return verified(committed=mask_of(ALL), included=included, reasons=bytes(left_out.values()), **changes)


def question(*members: int) -> Question:
    """About the updates of these sites."""
    plan: Any = None
    manifest: Any = None
    return Question(plan=plan, sources=dict.fromkeys(members, manifest), part_blocks=(1,), name="sketches-05")


def opened(monkeypatch: pytest.MonkeyPatch, r: RoundRecord, *quorums: tuple[int, ...]) -> tuple[int, ...]:
    """Whose sketches a site opens that finds all five updates sound, where one quorum each answered about these members."""
    answers = [sketch_answers._Answers(quorum=1 << k, about=about, shares={}) for k, about in enumerate(quorums)]
    monkeypatch.setattr(sketch_answers, "_complete_answers", lambda *_: iter(answers))
    monkeypatch.setattr(sketch_answers, "_combined", lambda *_: None)
    site: Any = SimpleNamespace()
    return sketch_answers.opened_sketches(site, view(r), r, question(*ALL), Outcome())[0].members


def test_only_absence_is_the_key_holders_word() -> None:
    """Of those left out, the ledger's word counts for missing and corrupt objects; all else every site finds by itself."""
    left_out = {1: MISSING, 2: MALFORMED, 4: ExclusionReason.CORRUPT}
    assert sketch_answers.never_came(round_of(left_out)) == {1: MISSING, 4: ExclusionReason.CORRUPT}


def test_before_an_aggregate_nobody_is_absent() -> None:
    """A coordinator of a new attempt starts from what it sees itself."""
    assert sketch_answers.never_came(verified(committed=0b11111, included=0, reasons=b"")) == {}


@pytest.mark.parametrize("quorums", [(PUNCTUAL, ALL), (ALL, PUNCTUAL)])
def test_a_judge_takes_the_quorum_that_the_coordinator_went_by(
    monkeypatch: pytest.MonkeyPatch, quorums: tuple[tuple[int, ...], ...]
) -> None:
    """The aggregate leaves out site 2 as missing, so the quorum that did not have it is the one, whatever the order."""
    assert opened(monkeypatch, round_of({2: MISSING}), *quorums) == PUNCTUAL


def test_a_coordinator_takes_the_quorum_that_had_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is left out for being late where another quorum was asked later."""
    assert opened(monkeypatch, verified(committed=0b11111, included=0, reasons=b""), PUNCTUAL, ALL) == ALL


def test_a_coordinator_goes_on_without_who_came_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only quorum there is did not have site 2."""
    assert opened(monkeypatch, verified(committed=0b11111, included=0, reasons=b""), PUNCTUAL) == PUNCTUAL


def test_a_coordinator_cannot_call_missing_whom_the_key_holders_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge opens all sketches, comes to another verdict, and votes against."""
    r = round_of({2: MISSING})
    assert opened(monkeypatch, r, ALL) == ALL
    assert _unusable(r, Updates(sound=question(*ALL).sources, unusable={}, part_blocks=(1,)), ALL) == {}


def test_answers_about_an_unsound_update_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key holders that sketched what this site finds malformed do not open anything here."""
    with pytest.raises(SketchesClosed, match="sound here are"):
        opened(monkeypatch, round_of({}), (*ALL, 5))


def test_an_audit_shows_every_update_of_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a spoiled sum no quorum may leave out one that was in it."""
    with pytest.raises(SketchesClosed, match="sound here are"):
        opened(monkeypatch, verified(committed=0b11111, included=0, reasons=b"", spoiled=bytes([7]) * 32), PUNCTUAL)


def test_a_quorum_of_two_minds_is_not_used() -> None:
    """One member had an update that another had not: neither proves anything, and nobody is accused."""
    found: Any = {0: (ALL, None), 1: (PUNCTUAL, None)}
    with pytest.raises(ProtocolError, match="different updates"):
        sketch_answers._agreed(view(round_of({})), 0b11, found)


@pytest.mark.parametrize(
    ("own", "told", "expected"),
    [
        pytest.param({}, {}, MISSING, id="sound by now"),
        pytest.param({}, {2: MISSING}, MISSING, id="sound by now, and the coordinator had nothing"),
        pytest.param({2: MALFORMED}, {2: MISSING}, MISSING, id="put late, and malformed"),
        pytest.param({2: MALFORMED}, {}, MALFORMED, id="put in time, and malformed"),
        pytest.param({2: MISSING}, {2: ExclusionReason.CORRUPT}, ExclusionReason.CORRUPT, id="altered then, lost now"),
    ],
)
def test_all_give_one_reason_for_who_was_late(
    own: dict[int, ExclusionReason], told: dict[int, ExclusionReason], expected: ExclusionReason
) -> None:
    """Where the key holders did not have an update, what the coordinator found counts; else what this site finds."""
    sound = {m: manifest for m, manifest in question(*ALL).sources.items() if m not in own}
    r = round_of(told) if told else verified(committed=0b11111, included=0, reasons=b"")
    assert _unusable(r, Updates(sound=sound, unusable=own, part_blocks=(1,)), PUNCTUAL) == {2: expected}
