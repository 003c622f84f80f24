"""What the checks judge: the evidence, the store, and what was asked. And the objects that the ledger names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain

from bahefl_flwr.audit.evidence import EpochEvidence, Evidence, RoundEvidence
from bahefl_flwr.errors import StoreError
from bahefl_flwr.records import ObjectKind, RoundPhase, ShareRecord, mask_of
from bahefl_flwr.store.manifest import Manifest, manifest_cid
from bahefl_flwr.store.reading import VerifiedReads

_NO_ROUND = 0
_NO_OBJECT = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A model that somebody has or names: who, its digest (hex), and after which round (None: the final one).

    Attributes:
      problem: why there is no digest, "" if there is.
    """

    who: str
    digest: str
    round: int | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run under audit. Without slots: what several checks ask of the store is kept beside the fields.

    Attributes:
      tasks: the tasks to judge, empty for all. round: the only round to judge, 0 for all.
      recompute: whether to add up the aggregates again.
      chain_problems: what check 1 found, before anything else was read. code_problem: what check 2 found.
      executed: whether the chain could be executed again; not so over JSON-RPC.
      claims: models to compare.
    """

    evidence: Evidence
    store: VerifiedReads
    tasks: frozenset[int] = frozenset()
    round: int = 0
    recompute: bool = False
    chain_problems: tuple[str, ...] = ()
    code_problem: str = ""
    executed: bool = True
    claims: tuple[Claim, ...] = field(default=())

    def rounds(self) -> Iterator[RoundEvidence]:
        """The rounds to judge."""
        return (r for r in self.evidence.rounds if self.round in (0, r.record.number) and self.judges_task(r.task))

    def epochs(self) -> Iterator[EpochEvidence]:
        """The key epochs to judge: all, or the one of the only round."""
        used = {r.record.epoch for r in self.rounds()}
        return (e for e in self.evidence.epochs if e.record.epoch in used or (self.round == 0 and self.judges_task(e.task)))

    @cached_property
    def needed(self) -> tuple[NamedObject, ...]:
        """The named objects on which the outcome rests. Looks into the store, once: all checks judge the same ones."""
        return tuple(_needed_objects(self))

    def judges_task(self, number: int) -> bool:
        """Whether a task is to be judged."""
        return not self.tasks or number in self.tasks

    def judges(self, round: int | None) -> bool:
        """Whether something of this round is to be judged; what belongs to no round always is."""
        if self.round:
            return round in (None, self.round)
        tasks = [r.task for r in self.evidence.rounds if r.record.number == round]
        return not tasks or self.judges_task(tasks[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedObject:
    """A stored object that the ledger names, and what its manifest must say.

    Attributes:
      member: who named it. owner: address its manifest names. size_bytes: on the ledger, None where it is not.
      needed: whether the outcome rests on it: it was added up, or opened a finalised round or its sketches, or made a
        key in use.
    """

    kind: ObjectKind
    digest: bytes
    run: bytes
    round: int
    member: int
    owner: str
    epoch: int
    size_bytes: int | None
    needed: bool

    @property
    def cid(self) -> str:
        """CID of its manifest."""
        return manifest_cid(self.digest)

    def misnamed(self, manifest: Manifest) -> Mapping[str, tuple[object, object]]:
        """Every field in which its manifest differs from the ledger: what the manifest says, what the ledger says."""
        wanted = {"run": self.run, "round": self.round, "site": self.owner, "epoch": self.epoch, "kind": self.kind}
        if self.size_bytes is not None:
            wanted["size_bytes"] = self.size_bytes
        pairs = {field: (getattr(manifest, field), value) for field, value in wanted.items()}
        return {field: (found, value) for field, (found, value) in pairs.items() if found != value}


def named_objects(case: Case) -> Iterator[NamedObject]:
    """Every object that the ledger names in the rounds and epochs to judge."""
    for epoch in case.epochs():
        yield from _ceremony_objects(case.evidence, epoch)
    for r in case.rounds():
        yield from _round_objects(case.evidence, r)


def _needed_objects(case: Case) -> Iterator[NamedObject]:
    yield from (each for each in named_objects(case) if each.needed)
    for r in case.rounds():
        if r.record.phase is RoundPhase.FINALIZED:
            yield from _judged_by(case, r)


def _judged_by(case: Case, r: RoundEvidence) -> Iterator[NamedObject]:
    """The parts of the sketches' openings that a round was judged by: to each question those of one quorum, all of them.

    By which of several quorums the ledger does not say: one whose objects are as they should be, or else the last.
    """
    for question in r.sketches:
        quorums = [[_sketch_object(case.evidence, r, s, needed=True) for s in whole] for whole in whole_quorums(question)]
        *others, last = quorums or [[]]  # without any, check 15 tells
        yield from next((quorum for quorum in others if all(is_sound(case, each) for each in quorum)), last)


def whole_quorums(question: Iterable[ShareRecord]) -> list[list[ShareRecord]]:
    """The answers to a question about sketches, of each quorum of which all members answered."""
    parts: defaultdict[int, dict[int, ShareRecord]] = defaultdict(dict)
    for s in question:
        parts[s.quorum][s.member] = s
    return [list(of.values()) for quorum, of in parts.items() if mask_of(of) == quorum]


def is_sound(case: Case, each: NamedObject) -> bool:
    """Whether an object is in the store byte for byte, and is what the ledger names it as."""
    try:
        manifest = case.store.manifest(each.digest)
        for _ in case.store.parts(manifest):
            pass
    except StoreError:
        return False
    return not each.misnamed(manifest)


def _ceremony_objects(evidence: Evidence, epoch: EpochEvidence) -> Iterator[NamedObject]:
    run, number = evidence.task_of(epoch.task).run_digest, epoch.record.epoch
    # Of a ceremony that failed an object may never have been put.
    needed = epoch.record.key_digest != _NO_OBJECT
    named = [
        (kind, digest, step.member)
        for step in epoch.ceremony
        for kind, digest in (
            (ObjectKind.SEED_COMMITMENT, step.seed_commitment),
            (ObjectKind.SEEDS, step.sealed_seeds),
            (ObjectKind.PUBLIC_KEY_PARTS, step.key_parts),
        )
    ]
    named += [(ObjectKind.EVIDENCE, a.evidence, a.accuser) for a in epoch.accusations]
    for kind, digest, member in named:
        if digest != _NO_OBJECT:
            yield NamedObject(
                kind=kind, digest=digest, run=run, round=_NO_ROUND, member=member, owner=evidence.address_of(member),
                epoch=number, size_bytes=None, needed=needed and kind is not ObjectKind.EVIDENCE,
            )  # fmt: skip


def _round_objects(evidence: Evidence, r: RoundEvidence) -> Iterator[NamedObject]:
    record = r.record
    final = record.phase is RoundPhase.FINALIZED
    named = partial(_round_object, evidence, r)
    for u in r.updates:
        needed = final and bool(record.included >> u.member & 1)
        yield named(ObjectKind.UPDATE, u.digest, u.member, evidence.address_of(u.member), u.size_bytes, needed=needed)
    if record.aggregate != _NO_OBJECT:
        coordinator = record.coordinator
        size = record.aggregate_size_bytes
        yield named(ObjectKind.AGGREGATE, record.aggregate, coordinator, evidence.contract, size, needed=final)
    for s in r.shares:
        needed = final and s.quorum == record.open_quorum
        yield named(ObjectKind.SHARE, s.digest, s.member, evidence.address_of(s.member), None, needed=needed)
    for s in chain.from_iterable(r.sketches):
        # Which of them are needed is not on the ledger: `Case.needed` looks into the store.
        yield _sketch_object(evidence, r, s, needed=False)


def _sketch_object(evidence: Evidence, r: RoundEvidence, s: ShareRecord, *, needed: bool) -> NamedObject:
    return _round_object(evidence, r, ObjectKind.SKETCH, s.digest, s.member, evidence.address_of(s.member), None, needed=needed)


def _round_object(
    evidence: Evidence,
    r: RoundEvidence,
    kind: ObjectKind,
    digest: bytes,
    member: int,
    owner: str,
    size: int | None,
    *,
    needed: bool,
) -> NamedObject:
    return NamedObject(
        kind=kind, digest=digest, run=evidence.task_of(r.task).run_digest, round=r.record.number, member=member, owner=owner,
        epoch=r.record.epoch, size_bytes=size, needed=needed,
    )  # fmt: skip
