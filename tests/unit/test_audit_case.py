"""What the ledger names in a round, each object once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bahefl_flwr.audit.case import Case, named_objects
from bahefl_flwr.records import ObjectKind, RoundPhase
from round_views import round_


def test_every_sketch_is_named_once() -> None:
    """An object that is listed twice would be checked, counted and reported twice."""
    sketches = [SimpleNamespace(member=m, quorum=0b111, digest=bytes([m]) * 32) for m in range(1, 4)]
    evidence: Any = SimpleNamespace(
        rounds=[SimpleNamespace(record=round_(RoundPhase.FINALIZED), task=1, updates=(), shares=(), sketches=sketches)],
        epochs=(),
        contract="0xC",
        task_of=lambda _number: SimpleNamespace(run_digest=bytes(32)),
        address_of=lambda member: f"0x{member}",
    )
    store: Any = None
    named = list(named_objects(Case(evidence=evidence, store=store)))
    assert [(n.kind, n.member) for n in named] == [(ObjectKind.SKETCH, m) for m in (1, 2, 3)]
