"""Check 15: a decision that does not follow from its figures, and a ledger that tells of another decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from audited_run import AuditedRun, failures, with_round
from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.audit.screening_checks import decisions
from bahefl_flwr.records import ExclusionReason, ObjectKind, RoundOutcome
from bahefl_flwr.screening.decision import decide
from bahefl_flwr.screening.record import Record, decode_record, encode_record
from bahefl_flwr.store import LocalStore, manifest_for
from federation_run import flip_one_byte


def with_record(case: Case, folder: Path, change: Record) -> Case:
    """The case with another record at the end of round 2's aggregate, and its digest on the ledger."""
    record = case.evidence.rounds[1].record
    manifest = case.store.manifest(record.aggregate)
    parts = [case.store.part(ref, of=manifest) for ref in manifest.parts]
    parts[-1] = encode_record(change)
    other = manifest_for(parts, run=manifest.run, round=2, site=manifest.site, epoch=manifest.epoch, kind=ObjectKind.AGGREGATE)
    store = LocalStore(folder)
    store.put(other, parts)
    first = case.store.manifest(case.evidence.rounds[0].record.aggregate)
    store.put(first, [case.store.part(ref, of=first) for ref in first.parts])
    return replace(with_round(case, 2, aggregate=other.digest), store=store)


def record_of(case: Case, number: int) -> Record:
    """The record of a round's decision."""
    manifest = case.store.manifest(case.evidence.rounds[number - 1].record.aggregate)
    return decode_record(case.store.part(manifest.parts[-1], of=manifest))


def found(case: Case) -> tuple[Finding, ...]:
    """What check 15 finds."""
    return failures(case)[15]


def test_check_15_finds_a_weight_that_was_not_decided(case: Case) -> None:
    """The ledger weighs one site by less than the record."""
    weights = case.evidence.rounds[1].record.weights
    (finding,) = found(with_round(case, 2, weights=bytes([weights[0] - 1, *weights[1:]])))
    assert (finding.round, "the ledger weighs" in finding.message) == (2, True)


def test_check_15_finds_a_reason_that_was_not_decided(case: Case) -> None:
    """The ledger leaves out a site that the record includes."""
    record = case.evidence.rounds[1].record
    included = record.included & ~1
    changed = with_round(case, 2, included=included, weights=record.weights[1:], reasons=bytes([int(ExclusionReason.UNDOING)]))
    assert any("the ledger includes sites" in f.message for f in found(changed))


def test_check_15_finds_an_outcome_that_no_ballot_gave(case: Case) -> None:
    """A round without conflict that is said to have taken up one half; the next round's history does not fit either."""
    findings = found(with_round(case, 1, outcome=RoundOutcome.NONE))
    assert any(f.round == 1 and "came to NONE, the ballots to WHOLE" in f.message for f in findings)
    assert any(f.round == 2 and "history is not what round 1 left" in f.message for f in findings)


def test_check_15_finds_a_decision_against_its_own_figures(case: Case, tmp_path: Path) -> None:
    """The record says that a site was left out, and its figures give no reason to."""
    honest = record_of(case, 2)
    decision = replace(honest.decision, weights={0: 8, 1: 8}, reasons={2: ExclusionReason.UNDOING})
    changed = with_record(case, tmp_path, replace(honest, decision=decision))
    assert any("weights is recorded as" in f.message for f in found(changed))


def test_check_15_finds_a_history_made_up(case: Case, tmp_path: Path) -> None:
    """A round judged by another history than the one before left."""
    honest = record_of(case, 2)
    history = replace(honest.history, rounds=honest.history.rounds + 1)
    assert any("history is not what" in f.message for f in found(with_record(case, tmp_path, replace(honest, history=history))))


def test_check_15_finds_other_rules(case: Case, tmp_path: Path) -> None:
    """Thresholds may not change within a task."""
    honest = record_of(case, 2)
    rules = replace(honest.rules, zero_norm=honest.rules.zero_norm + 1)
    assert any("judges by other rules" in f.message for f in found(with_record(case, tmp_path, replace(honest, rules=rules))))


def test_check_15_finds_a_conviction_without_a_spoiled_sum(case: Case, tmp_path: Path) -> None:
    """A site is called proved to be out of range, though no sum of the round was."""
    honest = record_of(case, 2)
    unusable = {2: ExclusionReason.GARBAGE}
    decision = decide(honest.figures, honest.history, honest.rules, unusable)
    changed = with_record(case, tmp_path, replace(honest, unusable=unusable, decision=decision))
    assert any("convicts sites (2,), which were in no sum" in f.message for f in found(changed))


def test_check_15_finds_a_spoiled_sum_that_convicted_nobody(case: Case) -> None:
    """A majority found the sum out of range, and then it was accepted with everybody in it."""
    events = case.evidence.events
    at = next(i for i, e in enumerate(events) if e.name == "AggregateSubmitted" and e.values["round"] == 2) + 1
    spoiled = replace(events[at - 1], name="RoundSpoiled", values={"round": 2})
    changed = replace(case, evidence=replace(case.evidence, events=(*events[:at], spoiled, *events[at:])))
    assert any("the record convicts none of the sites in it" in f.message for f in found(changed))


def test_check_15_finds_a_round_that_was_not_screened(case: Case) -> None:
    """The other round of the task was."""
    (finding,) = [f for f in found(with_round(case, 2, screen_seed=bytes(32))) if "not screened" in f.message]
    assert finding.round == 2


def test_check_15_finds_sketches_that_no_quorum_opened(case: Case) -> None:
    """The figures on record fit each other, but one key holder's answer is missing from the ledger."""
    (question,) = case.evidence.rounds[1].sketches
    (finding,) = found(with_round(case, 2, sketches=(question[1:],)))
    assert (finding.round, "no quorum of key holders answered" in finding.message) == (2, True)


def test_a_seed_that_a_stranger_drew_in_an_unscreened_task_accuses_nobody(case: Case) -> None:
    """Anybody may call the contract once layers are shown; what nobody has to screen has no record."""
    tasks = tuple(replace(task, screened=False) for task in case.evidence.tasks)
    assert not list(decisions(replace(case, evidence=replace(case.evidence, tasks=tasks))))


def test_check_15_finds_an_aggregate_without_record(case: Case, tmp_path: Path) -> None:
    """A screened round whose aggregate ends in ciphertexts."""
    record = case.evidence.rounds[1].record
    manifest = case.store.manifest(record.aggregate)
    parts = [case.store.part(ref, of=manifest) for ref in manifest.parts[:-1]]
    other = manifest_for(parts, run=manifest.run, round=2, site=manifest.site, epoch=manifest.epoch, kind=ObjectKind.AGGREGATE)
    LocalStore(tmp_path).put(other, parts)
    changed = replace(with_round(case, 2, aggregate=other.digest), store=LocalStore(tmp_path), round=2)
    assert any("ends in no record" in f.message for f in found(changed))


@pytest.mark.parametrize("damage", [Path.unlink, flip_one_byte])
def test_a_record_that_cannot_be_read_is_not_judged_and_blames_nobody(
    audited: AuditedRun, damage: Callable[[Path], None], case: Case
) -> None:
    """The store lost or altered the last part of an aggregate: check 5 says so, and check 15 only that it could not judge."""
    manifest = case.store.manifest(case.evidence.rounds[1].record.aggregate)
    damage(next((audited.folder / "store").rglob(f"*{manifest.parts[-1].cid}*")))
    _, report = audited.audit()
    five, fifteen = (next(c for c in report["checks"] if c["number"] == number) for number in (5, 15))
    assert five["status"] == "failed"
    assert (fifteen["status"], fifteen["findings"]) == ("skipped", [])
    assert fifteen["skipped"] == "not judged, see check 5: the record of round 2 cannot be read in the store"


@pytest.mark.parametrize("number", [1, 2])
def test_the_run_as_it_is_passes(case: Case, number: int) -> None:
    """Nothing is found in a round that nobody touched."""
    assert 15 not in failures(replace(case, round=number))
