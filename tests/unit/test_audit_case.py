"""What the ledger names in a round, each object once, and on which of it the outcome rests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bahefl_flwr.audit.case import Case, named_objects, whole_quorums
from bahefl_flwr.records import ObjectKind, RoundPhase, ShareRecord
from bahefl_flwr.store import LocalStore, manifest_for
from bahefl_flwr.store.manifest import Manifest
from round_views import round_

FIRST, SECOND, THIRD = 0b011, 0b110, 0b101


def part(member: int, quorum: int) -> bytes:
    """What a key holder answers for a quorum."""
    return bytes([member, quorum]) * 8


def manifest(member: int, quorum: int, *, epoch: int = 1) -> Manifest:
    """Its manifest; the round is that of `round_`."""
    kind = ObjectKind.SKETCH
    return manifest_for([part(member, quorum)], run=bytes(32), round=4, site=f"0x{member:040x}", epoch=epoch, kind=kind)


def answers(quorum: int, *members: int, epoch: int = 1) -> list[ShareRecord]:
    """These members' parts for a quorum, as the ledger names them."""
    return [ShareRecord(member=m, quorum=quorum, digest=manifest(m, quorum, epoch=epoch).digest) for m in members]


def put(store: LocalStore, quorum: int, *members: int, epoch: int = 1) -> None:
    """These members' parts for a quorum."""
    for m in members:
        store.put(manifest(m, quorum, epoch=epoch), [part(m, quorum)])


def judged(phase: RoundPhase, store: LocalStore, *questions: Sequence[ShareRecord]) -> Case:
    """A round with nothing but answers about sketches."""
    evidence: Any = SimpleNamespace(
        rounds=[SimpleNamespace(record=round_(phase), task=1, updates=(), shares=(), sketches=questions)],
        epochs=(),
        contract="0xC",
        task_of=lambda _number: SimpleNamespace(run_digest=bytes(32)),
        address_of=lambda member: f"0x{member:040x}",
    )
    return Case(evidence=evidence, store=store)


def needed(case: Case) -> list[bytes]:
    """Digests of the objects that check 5 asks for."""
    return [each.digest for each in case.needed]


def digests(parts: Sequence[ShareRecord]) -> list[bytes]:
    return [part.digest for part in parts]


def test_every_sketch_is_named_once(tmp_path: Path) -> None:
    """An object that is listed twice would be checked, counted and reported twice."""
    case = judged(RoundPhase.FINALIZED, LocalStore(tmp_path), answers(FIRST, 0, 1), answers(SECOND, 2))
    assert [(n.kind, n.member) for n in named_objects(case)] == [(ObjectKind.SKETCH, m) for m in (0, 1, 2)]


def test_the_answers_of_the_only_quorum_are_needed_whatever_the_store_holds(tmp_path: Path) -> None:
    """Who judged had them; a quorum that never was complete was not judged by."""
    only = answers(SECOND, 1, 2)
    case = judged(RoundPhase.FINALIZED, LocalStore(tmp_path), answers(FIRST, 0) + only)
    assert needed(case) == digests(only)


@pytest.mark.parametrize("epoch", [1, 2])
def test_of_several_quorums_one_must_be_whole(tmp_path: Path, epoch: int) -> None:
    """Others may have been of no use: lost, altered, or of another key epoch than the round."""
    store, useless, useful = LocalStore(tmp_path), answers(FIRST, 0, 1, epoch=2), answers(SECOND, 1, 2)
    put(store, FIRST, 0, 1, epoch=epoch)
    put(store, SECOND, 1, 2)
    case = judged(RoundPhase.FINALIZED, store, useless + useful + answers(THIRD, 0, 2))
    assert needed(case) == digests(useful)


def test_all_checks_of_a_case_need_the_same(tmp_path: Path) -> None:
    """Which quorum was of use is looked up once, whatever becomes of the store meanwhile; another case looks again."""
    store, first, last = LocalStore(tmp_path), answers(FIRST, 0, 1), answers(SECOND, 1, 2)
    put(store, FIRST, 0, 1)
    case = judged(RoundPhase.FINALIZED, store, first + last)
    before = case.needed
    (tmp_path / "objects").rename(tmp_path / "lost")
    assert case.needed is before
    assert (needed(case), needed(replace(case))) == (digests(first), digests(last))


def test_every_question_needs_its_answers(tmp_path: Path) -> None:
    """Those from before a spoiled aggregate, too: its sites were judged by them."""
    first, second = answers(FIRST, 0, 1), answers(SECOND, 1, 2)
    case = judged(RoundPhase.FINALIZED, LocalStore(tmp_path), first, second)
    assert needed(case) == digests(first + second)


def test_a_round_without_outcome_needs_none(tmp_path: Path) -> None:
    """Its objects may be in any state."""
    assert needed(judged(RoundPhase.ABORTED, LocalStore(tmp_path), answers(FIRST, 0, 1))) == []


@pytest.mark.parametrize(
    "questions",
    [(), (FIRST,), (FIRST, SECOND)],
    ids=["nobody", "one of a quorum", "one of each"],
)
def test_a_question_without_a_whole_quorum_has_no_answer(questions: Sequence[int]) -> None:
    """Check 15 tells of it: figures on record that nobody can have opened."""
    assert not whole_quorums([a for quorum in questions for a in answers(quorum, 1)])
