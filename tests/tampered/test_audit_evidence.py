"""What a lying node could tell an auditor, and what a lying store could hold: each check fails on exactly what it is for.

The evidence of a real run, with one thing in it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audited_run import AuditedRun, failures, with_round
from bahefl_flwr.audit.auditing import own_tasks
from bahefl_flwr.audit.case import Case, Claim
from bahefl_flwr.audit.object_checks import intact_objects
from bahefl_flwr.audit.objects import ReadOnlyStore
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.seal_format import PartKind, decode_part, encode_part
from bahefl_flwr.ledger.history import Event
from bahefl_flwr.records import AccusationRecord, ObjectKind
from bahefl_flwr.store import LocalStore, manifest_for

NOBODY = bytes(32)
PARAMS = SecurityParams(update_range=1.0, weight_bits=3, threshold=2, committee=3, sites=255)


def test_a_task_of_another_run_on_the_same_contract_is_not_judged(case: Case, tmp_path: Path) -> None:
    """Its objects lie in another store: the tasks of this store's objects are this run's; of an empty store the newest."""
    (task,), last, epoch = case.evidence.tasks, case.evidence.rounds[-1], case.evidence.epochs[-1]
    number = epoch.record.epoch + 1
    epoch = replace(epoch, task=2, record=replace(epoch.record, epoch=number), ceremony=(), accusations=())
    record = replace(last.record, number=3, epoch=number, aggregate=b"\7" * 32)
    other = replace(last, task=2, record=record, updates=(), shares=(), sketches=())
    evidence = replace(
        case.evidence, tasks=(task, replace(task, number=2)), epochs=(*case.evidence.epochs, epoch),
        rounds=(*case.evidence.rounds, other),
    )  # fmt: skip
    assert own_tasks(evidence, ReadOnlyStore(tmp_path)) == {2}
    tasks = own_tasks(evidence, ReadOnlyStore(case.store.root))  # type: ignore[attr-defined]
    assert tasks == {1}
    assert 5 in failures(replace(case, evidence=evidence))
    # The election is counted from the events of the whole ledger, and the round made up here has none.
    assert failures(replace(case, evidence=evidence, tasks=tasks)).keys() <= {10}


def with_events(case: Case, change: Callable[[Event], Iterator[Event]]) -> Case:
    """The case with every event replaced by what `change` makes of it."""
    events = tuple(new for event in case.evidence.events for new in change(event))
    rules = tuple(
        replace(r, event=next(i for i, e in enumerate(events) if e.name == "ConfigChanged")) for r in case.evidence.rules
    )
    return replace(case, evidence=replace(case.evidence, events=events, rules=rules))


def first(case: Case, name: str, round: int = 2) -> Event:
    """The first event of a name in a round."""
    return next(case.evidence.of_round(round, name))


def moved(case: Case, event: Event, before: Event) -> Case:
    """The case with one event told before another."""

    def change(each: Event) -> Iterator[Event]:
        if each is before:
            yield event
        if each is not event:
            yield each

    return with_events(case, change)


def test_the_evidence_as_it_is_passes(case: Case) -> None:
    """Nothing is found, also with every sum computed again."""
    assert failures(replace(case, recompute=True)) == {}


def test_check_3_finds_an_act_before_registration(case: Case) -> None:
    """An update that was committed before its site had registered."""
    commit = first(case, "UpdateCommitted", 1)
    registered = next(e for e in case.evidence.events if e.name == "Registered" and e.values["member"] == commit.values["member"])
    found = failures(moved(case, commit, registered))[3]
    assert found[0].site == case.evidence.index_of(commit.values["member"])


def test_check_3_finds_a_member_that_nobody_whitelisted(case: Case) -> None:
    """Registered without an entry of the registrar."""
    found = failures(with_events(case, lambda e: iter(() if e.name == "Whitelisted" else (e,))))
    assert len(found[3]) == 3


def test_check_3_finds_an_act_after_suspension(case: Case) -> None:
    """A suspended site that attests nevertheless."""
    vote = first(case, "Attested")
    gone = replace(vote, name="Suspended", values={"member": vote.values["member"], "by": "", "reason": ""})
    found = failures(with_events(case, lambda e: iter((gone, e) if e is vote else (e,))))
    assert any(f.round == 2 and "no active member" in f.message for f in found[3])


def test_check_4_finds_a_late_commitment(case: Case) -> None:
    """An update committed after commits had closed."""
    commit, closed = first(case, "UpdateCommitted"), first(case, "CommitsClosed")
    found = failures(moved(case, closed, commit))
    assert any(f.message == "committed after commits had closed" and f.round == 2 for f in found[4])


def test_check_4_finds_another_digest_than_was_committed(case: Case) -> None:
    """The ledger's record and the site's own event differ."""
    updates = case.evidence.rounds[1].updates
    changed = with_round(case, 2, updates=(replace(updates[0], digest=updates[1].digest), *updates[1:]))
    assert any(f.site == updates[0].member and "another digest" in f.message for f in failures(changed)[4])


def test_check_4_finds_a_weight_beyond_the_cap(case: Case) -> None:
    """More weight than the registrar allowed."""
    updates = case.evidence.rounds[0].updates
    changed = with_round(case, 1, updates=(replace(updates[0], weight=10**6), *updates[1:]))
    assert list(failures(changed)) == [4]


def test_check_4_finds_an_update_in_two_sums(case: Case) -> None:
    """A digest of round 1 that is part of round 2's aggregate, too."""
    old = first(case, "UpdateCommitted", 1).values["digest"]
    new = first(case, "UpdateCommitted", 2)
    again = replace(new, values={**new.values, "digest": old})
    found = failures(with_events(case, lambda e: iter((again,) if e is new else (e,))))
    assert any("committed the digest of round 1" in f.message for f in found[4])


def test_check_5_finds_an_altered_or_missing_file_of_every_object(case: Case, audited: AuditedRun) -> None:
    """Manifest and parts of every object that counts: a changed byte and a lost file are found, and the site is named."""
    spoilt = replace(case, store=ReadOnlyStore(audited.folder / "store"))
    for each in spoilt.needed:
        parts = [ref.cid for ref in spoilt.store.manifest(each.digest).parts]
        for cid in (each.cid, parts[-1]):
            path = audited.object(cid)
            good = path.read_bytes()
            audited.spoil(cid)
            assert {(f.round or 0, f.site, f.object) for f in intact_objects(spoilt)} == {(each.round, each.member, each.cid)}
            path.unlink()
            assert any(f.object == each.cid for f in intact_objects(spoilt))
            path.write_bytes(good)


@pytest.mark.parametrize("field", ["round", "site", "epoch", "kind", "run"])
def test_check_6_finds_an_object_of_another_place(case: Case, audited: AuditedRun, field: str) -> None:
    """An update whose manifest differs in one thing from the place where the ledger names it, with the same bytes."""
    r = case.evidence.rounds[1]
    stored = case.store.manifest(r.updates[0].digest)
    other = {"round": 1, "site": case.evidence.contract, "epoch": 7, "kind": ObjectKind.SHARE, "run": NOBODY}[field]
    names = {name: getattr(stored, name) for name in ("run", "round", "site", "epoch", "kind")} | {field: other}
    parts = list(case.store.parts(stored))
    digest = LocalStore(audited.folder / "store").put(manifest_for(parts, **names), parts)
    changed = with_round(case, 2, updates=(replace(r.updates[0], digest=digest), *r.updates[1:]))
    found = failures(replace(changed, store=ReadOnlyStore(audited.folder / "store")))
    assert [f.message.split()[3] for f in found[6]] == [field]
    assert 5 not in found


def test_check_6_finds_another_size(case: Case) -> None:
    """The size on the ledger is that of the object."""
    changed = with_round(case, 1, aggregate_size_bytes=5)
    assert list(failures(changed)) == [6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"included": 0b11, "weights": b"\1\1"}, "reasons [] for leaving out sites (2,)"),
        ({"included": 0b1111, "weights": b"\1\1\1\1"}, "which did not commit"),
        ({"included": 0b1, "weights": b"\1", "reasons": b"\1\1"}, "fewer than 2"),
        ({"weights": b"\1\1\0"}, "weights [1, 1, 0]"),
        ({"weights": b"\1\1"}, "weights [1, 1]"),
        ({"aggregate": b"\5" * 32}, "not the one last submitted"),
    ],
)
def test_check_7_finds_a_wrong_inclusion(case: Case, changes: dict[str, Any], message: str) -> None:
    """Strangers' updates, too few, weights and reasons that do not fit, or another aggregate."""
    assert any(message in f.message and f.round == 1 for f in failures(with_round(case, 1, **changes))[7])


def test_check_8_finds_a_sum_that_differs_in_one_residue(case: Case, audited: AuditedRun) -> None:
    """A well-formed aggregate, properly stored and named, one number of which is off by one."""
    r = case.evidence.rounds[1]
    stored = case.store.manifest(r.record.aggregate)
    residues = np.array(decode_part(next(case.store.parts(stored)), PartKind.CIPHERTEXT, PARAMS))
    residues.flat[77] = (residues.flat[77] + 1) % PARAMS.data_primes[0]
    part = encode_part(residues, PartKind.CIPHERTEXT, PARAMS)
    manifest = manifest_for([part], run=stored.run, round=2, site=stored.site, epoch=stored.epoch, kind=stored.kind)
    digest = LocalStore(audited.folder / "store").put(manifest, [part])
    changed = replace(with_round(case, 2, aggregate=digest), store=ReadOnlyStore(audited.folder / "store"), recompute=True)
    (finding,) = failures(changed)[8]
    assert (finding.round, finding.site, finding.object) == (2, r.record.coordinator, manifest.cid)
    assert "part 0 is not the sum" in finding.message


def test_check_8_finds_other_weights_than_were_used(case: Case) -> None:
    """The ledger says that an update counted twice; the aggregate does not."""
    found = failures(replace(with_round(case, 1, weights=b"\1\2\1"), recompute=True))
    assert [f.round for f in found[8]] == [1]


def test_check_9_finds_a_vote_of_a_site_that_did_not_commit(case: Case) -> None:
    """Only those that committed may verify."""
    changed = with_round(case, 2, committed=0b11, included=0b11, weights=b"\1\1")
    assert any(f.site == 2 and "without having committed" in f.message for f in failures(changed)[9])


def test_check_9_finds_a_vote_turned_round(case: Case) -> None:
    """A site voted against; the ledger says for."""
    vote = first(case, "Attested")
    against = replace(vote, values={**vote.values, "ok": False})
    found = failures(with_events(case, lambda e: iter((against,) if e is vote else (e,))))
    assert any("the ledger counts votes" in f.message and f.round == 2 for f in found[9])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coordinator": 200}, "the ledger's coordinator are 200"),
        ({"entropy": b"\1" * 32}, "the ledger's entropy"),
        ({"beacon": b"\1" * 32}, "the ledger's beacon"),
        ({"ranking": 1}, "the ledger's best tickets"),
    ],
)
def test_check_10_finds_another_outcome_of_the_lottery(case: Case, changes: dict[str, Any], message: str) -> None:
    """Whatever the ledger says of an election must be what the reveals give."""
    assert any(message in f.message and f.round == 1 for f in failures(with_round(case, 1, **changes))[10])


def test_check_10_finds_an_invented_reputation(case: Case) -> None:
    """A score that the member's conduct does not give."""
    members = case.evidence.members
    changed = replace(case, evidence=replace(case.evidence, members=(replace(members[0], score=65535), *members[1:])))
    (finding,) = failures(changed)[10]
    assert (finding.site, finding.message.startswith("score on the ledger: 65535")) == (0, True)


def test_check_10_finds_a_committee_that_was_not_drawn(case: Case) -> None:
    """A key committee without one of those that had to be in it."""
    opened = next(e for e in case.evidence.events if e.name == "EpochOpened")
    other = replace(opened, values={**opened.values, "committee": 0b11})
    found = failures(with_events(case, lambda e: iter((other,) if e is opened else (e,))))
    assert any("the draw picks (0, 1, 2)" in f.message for f in found[10])


def test_check_11_finds_two_opened_aggregates(case: Case) -> None:
    """A second attempt whose aggregate is opened as well would show the difference of the two."""
    events = list(case.evidence.of_round(2, "AggregateSubmitted", "Attested", "AggregateVerified", "ShareReleased"))
    submitted = events[0]
    earlier = replace(submitted, values={**submitted.values, "attempt": 1})
    story = (*events, earlier, *events[1:])
    done = with_events(case, lambda e: iter(story if e is submitted else () if e in events else (e,)))
    assert any("attempts [0, 1] were opened" in f.message and f.round == 2 for f in failures(done)[11])


def test_check_11_finds_a_share_of_a_disputed_holder(case: Case) -> None:
    """After a quorum was struck, no share may be made for one with the culprit in it."""
    share = first(case, "ShareReleased")
    values = {"round": 2, "quorum": 0, "culprit": share.values["member"], "accuser": ""}
    found = failures(
        with_events(case, lambda e: iter((replace(share, name="QuorumStruck", values=values), e) if e is share else (e,)))
    )
    assert any("disputed holders" in f.message and f.object for f in found[11])


def test_check_11_finds_a_quorum_that_never_was(case: Case) -> None:
    """The ledger names a quorum as complete whose members did not all release a share."""
    quorum = case.evidence.rounds[0].record.open_quorum
    assert any("not all of them" in f.message for f in failures(with_round(case, 1, open_quorum=0b111 ^ quorum | 0b1))[11])


def test_check_12_finds_a_model_that_nobody_confirmed(case: Case) -> None:
    """The ledger's model of a round is not the one the sites named; the next round's start does not fit either."""
    found = failures(with_round(case, 1, opened=b"\7" * 32))
    assert [f.round for f in found[12]] == [1]
    assert [f.round for f in found[13]][:1] == [2]


def test_check_12_finds_one_site_confirming_twice(case: Case) -> None:
    """Two confirmations of one site are no majority."""
    mine, other = list(case.evidence.of_round(2, "Confirmed"))[:2]
    twice = replace(other, values=mine.values)
    found = failures(with_events(case, lambda e: iter((twice,) if e is other else (e,))))
    assert any(f.message == "confirmed twice" and f.round == 2 for f in found[12])


def test_check_13_finds_another_start(case: Case) -> None:
    """Round 1 starts from a model that is not the task's initial one."""
    (finding,) = failures(with_round(case, 1, base=b"\7" * 32))[13]
    assert finding.round == 1


def test_check_13_finds_a_wrong_claim(case: Case) -> None:
    """Somebody names a final model of a run that finalised another."""
    assert list(failures(replace(case, claims=(Claim(who="a letter", digest="12" * 32),)))) == [13]


def test_check_14_finds_a_key_made_in_spite_of_evidence(case: Case) -> None:
    """A member gave up its key to prove a fault, and the key was used."""
    epoch = case.evidence.epochs[0]
    accused = replace(epoch, accusations=(AccusationRecord(accuser=0, culprit=1, round=0, evidence=b"\7" * 32),))
    found = failures(replace(case, evidence=replace(case.evidence, epochs=(accused,))))
    assert [(f.site, "gave up its key" in f.message) for f in found[14]] == [(0, True)]


def test_check_14_finds_a_step_taken_too_early(case: Case) -> None:
    """Seeds revealed before everybody had committed let the last one choose."""
    steps = [e for e in case.evidence.events if e.name == "CeremonyStep"]
    found = failures(moved(case, steps[3], steps[1]))
    assert any("before all had taken the one before" in f.message for f in found[14])


def with_key_parts(case: Case, audited: AuditedRun, change: Callable[[bytes], bytes]) -> tuple[Case, str]:
    """The case where the second member published other key parts, properly stored and named; their CID."""
    epoch, store = case.evidence.epochs[0], LocalStore(audited.folder / "store")
    stored = store.manifest(epoch.ceremony[1].key_parts)
    parts = [change(part) for part in store.parts(stored)]
    manifest = manifest_for(parts, run=stored.run, round=0, site=stored.site, epoch=1, kind=stored.kind)
    digest = store.put(manifest, parts)
    ceremony = tuple(replace(c, key_parts=digest) if c.member == 1 else c for c in epoch.ceremony)
    changed = replace(case, evidence=replace(case.evidence, epochs=(replace(epoch, ceremony=ceremony),)))
    return replace(changed, store=ReadOnlyStore(audited.folder / "store")), manifest.cid


def test_check_14_finds_key_parts_that_contradict_each_other(case: Case, audited: AuditedRun) -> None:
    """Two holders of the same part of the key published different ones: the key has no meaning."""

    def other(part: bytes) -> bytes:
        residues = np.array(decode_part(part, PartKind.KEY, PARAMS))
        residues.flat[3] = (residues.flat[3] + 1) % PARAMS.data_primes[0]
        return encode_part(residues, PartKind.KEY, PARAMS)

    changed, _ = with_key_parts(case, audited, other)
    contradiction = [f for f in failures(changed)[14] if "is not that of site" in f.message]
    assert [(f.site, "site 1" in f.message) for f in contradiction] == [(2, True)]


def test_check_14_finds_key_parts_that_are_none(case: Case, audited: AuditedRun) -> None:
    """Bytes that are no residues at all."""
    changed, cid = with_key_parts(case, audited, lambda part: part[:-4])
    assert any(f.object == cid and "malformed" in f.message for f in failures(changed)[14])


def test_check_14_finds_a_threshold_below_a_majority(case: Case) -> None:
    """So few key holders could open an aggregate behind the others' backs."""
    epoch = case.evidence.epochs[0]
    weak = replace(epoch, record=replace(epoch.record, committee=0b1111, threshold=2))
    found = failures(replace(case, evidence=replace(case.evidence, epochs=(weak,))))
    assert any("no majority" in f.message for f in found[14])


def test_check_14_finds_a_round_with_an_old_key(case: Case) -> None:
    """A round that does not use the newest key."""
    opened = first(case, "RoundOpened")
    later = replace(opened, name="EpochOpened", values={"epoch": 1, "committee": 0b111})
    found = failures(with_events(case, lambda e: iter((later, e) if e is opened else (e,))))
    assert any(f.round == 2 and "the newest is that of none" in f.message for f in found[14])


def test_records_that_make_no_sense_fail_the_check_and_not_the_audit(case: Case) -> None:
    """A node may say anything: an index beyond every list is a finding, and the other checks are still done."""
    updates = case.evidence.rounds[1].updates
    found = failures(with_round(case, 2, updates=(replace(updates[0], member=99), *updates[1:])))
    assert any("contradict each other" in f.message for f in found[4])
    assert 13 not in found


def test_one_round_alone_is_judged_alone(case: Case) -> None:
    """A fault of round 1 is no fault of round 2."""
    changed = with_round(case, 1, aggregate_size_bytes=5)
    assert failures(replace(changed, round=2)) == {}
    assert list(failures(replace(changed, round=1))) == [6]
