"""Ledger states put together by hand, for tests of `next_step`."""

from __future__ import annotations

from dataclasses import replace

from bahefl_flwr.records import BallotStage, EpochPhase, EpochRecord, LedgerView, RoundOutcome, RoundPhase, RoundRecord, Task
from bahefl_flwr.steps import Action, Asked, Request

ZERO = bytes(32)
ALL = 0b11111
NOW, SOON, PAST = 1000, 1100, 900


def epoch(phase: EpochPhase = EpochPhase.ACTIVE, **changes: object) -> EpochRecord:
    record = EpochRecord(
        epoch=1, phase=phase, threshold=3, committee=ALL, committed=0, revealed=0, published=0, confirmed=0,
        key_digest=ZERO, deadline=SOON, pool=ALL, accused=0, renewal=False, finalized_before=0,
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


def round_(phase: RoundPhase, **changes: object) -> RoundRecord:
    record = RoundRecord(
        number=4, phase=phase, attempt=0, coordinator=2, epoch=1, deadline=SOON, opened_at=800, weight_total=5,
        selected=ALL, committed=0, declined=0, included=0, voted_ok=0, voted_bad=0, revealed=0, failed=0, open_quorum=0,
        confirmed=0, disputed=0, split=0, cast=0, balloted=0, ballot_stage=BallotStage.NONE, outcome=RoundOutcome.WHOLE,
        screen_seed=ZERO, spoiled=ZERO, base=ZERO, opened=ZERO,
        parent=ZERO, aggregate=ZERO, aggregate_size_bytes=0, weights=b"", reasons=b"", abort_reason="",
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


def view(r: RoundRecord, e: EpochRecord | None = None, *, now: int = NOW, active: int = ALL, open_: bool = True) -> LedgerView:
    task = Task(
        number=1, run_digest=ZERO, initial_model=ZERO, security_params=ZERO, rounds=9, screened=True, open=open_,
        end_reason="", excluded=0, absent=0,
    )  # fmt: skip
    return LedgerView(
        chain_time=now, block_number=7, task=task, epoch=e or epoch(), round=r, last_finalized=3, finalized_count=3,
        active=active,
    )  # fmt: skip


def asked(
    action: Action,
    *members: int,
    times: int = 1,
    quorum: int = 0,
    ok: bool = False,
    failed: bool = False,
    number: int = 4,
    repairs: Action | None = None,
) -> Asked:
    requests = frozenset(
        Request(action=action, number=number, attempt=0, member=m, quorum=quorum, repairs=repairs) for m in members
    )
    nobody: frozenset[Request] = frozenset()
    return Asked(times=dict.fromkeys(requests, times), answered=requests if ok else nobody, failed=requests if failed else nobody)


NOTHING = Asked()


OPENED = bytes([7]) * 32
QUORUM = 0b00111


def verified(**changes: object) -> RoundRecord:
    """A round that a quorum has opened and that sites are about to confirm."""
    return round_(RoundPhase.VERIFIED, **{"committed": ALL, "voted_ok": ALL, "open_quorum": QUORUM} | changes)  # type: ignore[arg-type]
