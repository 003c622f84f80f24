"""Check 15: every decision about whose update counts, made again from the figures on record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from operator import or_

from bahefl_flwr.audit.case import Case, whole_quorums
from bahefl_flwr.audit.evidence import Evidence, RoundEvidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.errors import ObjectCorrupt, ProtocolError, StoreError
from bahefl_flwr.records import ExclusionReason, RoundPhase, RoundRecord, mask_of, members_in
from bahefl_flwr.screening.acceptance import next_history
from bahefl_flwr.screening.ballots import outcome_of
from bahefl_flwr.screening.history import History
from bahefl_flwr.screening.record import Record, check_record, decode_record
from bahefl_flwr.store.manifest import manifest_cid

# A record, why an aggregate ends in none, or why the store does not give it.
_Read = Record | str | StoreError


def decisions(case: Case) -> Iterator[Finding]:
    """15. Whose update was added, with which weight, and which half was taken, follows from the figures on record.

    The record is part of the aggregate's bytes, hence of what a majority attested. Per finalised round of a screened task:
      1. the aggregate ends in a record, and its decision follows from its figures, its history and its rules;
      2. the ledger names the same sites, weights, reasons and halves;
      3. its history is what the rounds before it leave, and its rules are those of the task's first record;
      4. the round's outcome is what the ballots on the ledger come to;
      5. whom it convicts of garbage was in a sum that a majority found spoiled, and each such sum convicted somebody;
      6. no round was left unscreened: its sketches' seed was drawn, and a whole quorum answered, also after each spoiled sum.
    """
    records = {r.record.number: _record(case, r) for r in _screened(case)}
    for r in case.rounds():
        record = records.get(r.record.number)
        if unscreened := _unscreened(case, r):  # 6
            yield _about(r, f"{unscreened}: its updates were not screened, though the task's are")
        elif isinstance(record, str):  # 1
            yield _about(r, record)
        elif isinstance(record, Record):  # else check 5 tells, and `not_judged`
            yield from (_about(r, problem) for problem in _problems(case.evidence, r, record, records))


def _problems(evidence: Evidence, r: RoundEvidence, record: Record, records: Mapping[int, _Read]) -> Iterator[str]:
    yield from (f"the record of the decision: {problem}" for problem in check_record(record))  # 1
    yield from _not_on_ledger(r.record, record)  # 2
    yield from _history(evidence, r, record, records)  # 3
    yield from _outcome(r, record)  # 4
    yield from _convictions(evidence, r.record, record)  # 5


def not_judged(case: Case) -> str:
    """Rounds whose decision cannot be made again because their record cannot be read in the store; "" if there is none."""
    judged = [r for r in _screened(case) if case.judges(r.record.number)]
    unread = [str(r.record.number) for r in judged if isinstance(_record(case, r), StoreError)]
    return f"not judged, see check 5: the record of round {', '.join(unread)} cannot be read in the store" if unread else ""


def _screened(case: Case) -> Iterator[RoundEvidence]:
    """Finalised rounds, for whose sketches a seed was drawn, of all tasks of which a round is judged: the history spans them."""
    tasks = {r.task for r in case.rounds()}
    final = (r for r in case.evidence.rounds if r.task in tasks and r.record.phase is RoundPhase.FINALIZED)
    return (r for r in final if any(r.record.screen_seed) and case.evidence.task_of(r.task).screened)


def _unscreened(case: Case, r: RoundEvidence) -> str:
    """Why nobody can have judged by the sketches of a finalised round whose task is screened; "" where a quorum answered."""
    if r.record.phase is not RoundPhase.FINALIZED or not case.evidence.task_of(r.task).screened:
        return ""
    if not any(r.record.screen_seed):
        return "no seed was drawn for its sketches"
    return "" if all(map(whole_quorums, r.sketches)) else "no quorum of key holders answered for its sketches"


def _record(case: Case, r: RoundEvidence) -> _Read:
    """The record of a round; or why what the aggregate ends in is none; or why that cannot be read in the store."""
    try:
        manifest = case.store.manifest(r.record.aggregate)
        last = case.store.part(manifest.parts[-1], of=manifest)
    except StoreError as error:
        return error
    try:
        return decode_record(last)
    except ObjectCorrupt as error:
        return f"ends in no record of its decision: {error}"


def _not_on_ledger(r: RoundRecord, record: Record) -> Iterator[str]:
    decision = record.decision
    for name, told, decided in (
        ("includes sites", r.included, decision.included),
        ("sets apart sites", r.split, decision.split),
        ("weighs", list(r.weights), list(decision.weights.values())),
        ("gives the reasons", list(r.reasons), [int(reason) for reason in decision.reasons.values()]),
    ):
        if told != decided:
            yield f"the ledger {name} {_shown(told)}, the record {_shown(decided)}"


def _history(evidence: Evidence, r: RoundEvidence, record: Record, records: Mapping[int, _Read]) -> Iterator[str]:
    before = records.get(r.parent_round)
    if isinstance(before, str | StoreError):
        return  # check 15 of that round tells, or check 5
    if before is None:
        if record.history != History.empty():
            yield "the record starts from a history, though no round of the task came before"
        return
    if record.rules != before.rules:
        yield f"judges by other rules than round {r.parent_round}"
    outcome = evidence.rounds[r.parent_round - 1].record.outcome
    if record.history != next_history(before.history, before.figures, before.decision, outcome):
        yield f"the record's history is not what round {r.parent_round} left"


def _outcome(r: RoundEvidence, record: Record) -> Iterator[str]:
    ballots = {b.member: b.choice for b in r.ballots if b.choice is not None}
    try:
        # Which half is better on the anchor data only sites can say; a majority of them confirmed it (check 12).
        outcome = outcome_of(record.decision, record.history, record.rules, ballots, lambda: r.record.outcome)
    except ProtocolError as error:
        yield f"its outcome cannot be: {error}"
        return
    if outcome is not r.record.outcome:
        yield f"came to {r.record.outcome.name}, the ballots to {outcome.name}"


def _convictions(evidence: Evidence, r: RoundRecord, record: Record) -> Iterator[str]:
    convicted = mask_of(m for m, reason in record.unusable.items() if reason is ExclusionReason.GARBAGE)
    spoiled = list(_spoiled_sums(evidence, r.number))
    if slandered := convicted & ~reduce(or_, spoiled, 0):
        yield f"the record convicts sites {members_in(slandered)}, which were in no sum that was found spoiled"
    if any(not included & convicted for included in spoiled):
        yield "a sum was found spoiled, and the record convicts none of the sites in it"


def _spoiled_sums(evidence: Evidence, number: int) -> Iterator[int]:
    """Mask of the sites in each sum of a round that a majority found out of range."""
    included = 0
    for event in evidence.of_round(number, "AggregateSubmitted", "RoundSpoiled"):
        if event.name == "RoundSpoiled":
            yield included
        else:
            included = event.values["included"]


def _about(r: RoundEvidence, message: str) -> Finding:
    return Finding(round=r.record.number, site=r.record.coordinator, object=manifest_cid(r.record.aggregate), message=message)


def _shown(value: object) -> str:
    return f"{value:b} (mask)" if isinstance(value, int) else str(value)
