"""What the contract's views return, as the records of records.py. The only place that knows the names in the ABI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bahefl_flwr.records import (
    AccusationRecord,
    BallotRecord,
    BallotStage,
    CeremonyRecord,
    EpochPhase,
    EpochRecord,
    LedgerView,
    Member,
    MemberStatus,
    RoundOutcome,
    RoundPhase,
    RoundRecord,
    ShareRecord,
    Task,
    UpdateRecord,
)

Reading = Mapping[str, Any]
_SEALED = 255


def named(components: Sequence[Mapping[str, Any]], values: Sequence[Any]) -> Reading:
    """A decoded ABI tuple as a mapping by component name, nested tuples included.

    Args:
      components: the ABI's description of the tuple. values: its decoded members, in the same order.
    """
    return {c["name"]: named(c["components"], v) if c["type"] == "tuple" else v for c, v in zip(components, values, strict=True)}


def view_of(reading: Reading) -> LedgerView:
    """The contract's `Snapshot`."""
    return LedgerView(
        chain_time=reading["chainTime"],
        block_number=reading["blockNumber"],
        task=task_of(reading["task"]),
        epoch=epoch_of(reading["epoch"]),
        round=round_of(reading["round"]),
        last_finalized=reading["task"]["lastFinalized"],
        finalized_count=reading["task"]["finalizedCount"],
        active=reading["active"],
    )


def task_of(reading: Reading) -> Task:
    """The contract's `Task`."""
    return Task(
        number=reading["number"],
        run_digest=reading["runDigest"],
        initial_model=reading["initialModel"],
        security_params=reading["securityParams"],
        rounds=reading["rounds"],
        screened=reading["screened"],
        open=reading["open"],
        end_reason=reading["endReason"],
        excluded=reading["excluded"],
        absent=reading["absent"],
    )


def member_of(reading: Reading) -> Member:
    """The contract's `Member`."""
    return Member(
        index=reading["index"],
        address=reading["account"],
        status=MemberStatus(reading["status"]),
        sealing_key=reading["sealingKey"],
        onion_anchor=reading["onionAnchor"],
        max_weight=reading["maxWeight"],
        score=reading["score"],
        included=reading["included"],
        missed=reading["missed"],
        rejected=reading["rejected"],
        coordinated=reading["coordinated"],
        coordinator_faults=reading["coordinatorFaults"],
    )


def epoch_of(reading: Reading) -> EpochRecord:
    """The contract's `Epoch`."""
    committed, revealed, published, confirmed = reading["acted"]
    return EpochRecord(
        epoch=reading["number"],
        phase=EpochPhase(reading["phase"]),
        threshold=reading["threshold"],
        committee=reading["committee"],
        committed=committed,
        revealed=revealed,
        published=published,
        confirmed=confirmed,
        key_digest=reading["keyDigest"],
        deadline=reading["deadline"],
        pool=reading["pool"],
        accused=reading["accused"],
        renewal=reading["renewal"],
        finalized_before=reading["finalizedBefore"],
    )


def ceremony_of(reading: Reading) -> CeremonyRecord:
    """The contract's `Ceremony`."""
    seed_commitment, sealed_seeds, key_parts, key_digest = reading["digests"]
    return CeremonyRecord(
        member=reading["member"],
        seed_commitment=seed_commitment,
        sealed_seeds=sealed_seeds,
        key_parts=key_parts,
        key_digest=key_digest,
    )


def accusation_of(reading: Reading) -> AccusationRecord:
    """The contract's `Accusation`."""
    return AccusationRecord(
        accuser=reading["accuser"], culprit=reading["culprit"], round=reading["round"], evidence=reading["evidence"]
    )


def update_of(reading: Reading) -> UpdateRecord:
    """The contract's `Update`."""
    return UpdateRecord(
        member=reading["member"],
        digest=reading["digest"],
        size_bytes=reading["size"],
        weight=reading["weight"],
    )


def share_of(reading: Reading) -> ShareRecord:
    """The contract's `Share`."""
    return ShareRecord(member=reading["member"], quorum=reading["quorum"], digest=reading["digest"])


def ballot_of(reading: Reading) -> BallotRecord:
    """The contract's `Ballot`."""
    choice = reading["choice"]
    return BallotRecord(member=reading["member"], commitment=reading["commitment"], choice=None if choice == _SEALED else choice)


def round_of(reading: Reading) -> RoundRecord:
    """The contract's `Round`. Its `verdicts` are the weights of the included sites, then the reasons for the others."""
    included = reading["included"].bit_count()
    return RoundRecord(
        number=reading["number"],
        phase=RoundPhase(reading["phase"]),
        attempt=reading["attempt"],
        coordinator=reading["coordinator"],
        epoch=reading["epoch"],
        deadline=reading["deadline"],
        opened_at=reading["openedAt"],
        weight_total=reading["weightTotal"],
        selected=reading["selected"],
        committed=reading["committed"],
        declined=reading["declined"],
        included=reading["included"],
        voted_ok=reading["votedOk"],
        voted_bad=reading["votedBad"],
        revealed=reading["revealed"],
        failed=reading["failed"],
        open_quorum=reading["openQuorum"],
        confirmed=reading["confirmed"],
        disputed=reading["disputed"],
        split=reading["split"],
        cast=reading["cast"],
        balloted=reading["balloted"],
        ballot_stage=BallotStage(reading["ballotStage"]),
        outcome=RoundOutcome(reading["outcome"]),
        screen_seed=reading["screenSeed"],
        spoiled=reading["spoiled"],
        parent=reading["parent"],
        base=reading["base"],
        opened=reading["opened"],
        aggregate=reading["aggregate"],
        aggregate_size_bytes=reading["aggregateSize"],
        weights=reading["verdicts"][:included],
        reasons=reading["verdicts"][included:],
        abort_reason=reading["abortReason"],
    )
