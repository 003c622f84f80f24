"""Check 14: how the keys in use came about."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.evidence import EpochEvidence, Evidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.audit.object_checks import wide_params
from bahefl_flwr.errors import CiphertextError, StoreError
from bahefl_flwr.he.keys import held_subsets
from bahefl_flwr.he.seal_format import PartKind, decode_part
from bahefl_flwr.records import members_in
from bahefl_flwr.store.manifest import manifest_cid

_STEPS = {1: "commit", 2: "reveal", 3: "publish", 4: "confirm"}
_NO_DIGEST = bytes(32)


def ceremonies(case: Case) -> Iterator[Finding]:
    """14. Every member of a key's committee took every step, each after all had taken the one before; all confirmed one key.

    The threshold is a majority (or 1, the paper's experiment), all holders of a part of the key published the same public part,
    no ceremony with evidence against a member became a key, and every round uses the newest key.
    """
    made = {e.values["epoch"]: e.values["keyDigest"] for e in case.evidence.events if e.name == "EpochActive"}
    for epoch in case.epochs():
        if epoch.record.epoch in made:
            yield from _steps(case.evidence, epoch)
            yield from _outcome(epoch, made[epoch.record.epoch])
            if _is_majority(epoch):
                yield from _public_parts(case, epoch)
    yield from _keys_in_use(case)


def _steps(evidence: Evidence, epoch: EpochEvidence) -> Iterator[Finding]:
    number, done = epoch.record.epoch, dict.fromkeys(_STEPS, 0)
    digests = {c.member: (c.seed_commitment, c.sealed_seeds, c.key_parts, c.key_digest) for c in epoch.ceremony}
    for event in evidence.events:
        if event.name != "CeremonyStep" or event.values["epoch"] != number:
            continue
        step, index = event.values["phase"], evidence.index_of(event.values["member"])
        if index is None or not epoch.record.committee >> index & 1:
            yield Finding(site=index, message=f"epoch {number}: took part in the ceremony without a seat in the committee")
            continue
        if step > 1 and done[step - 1] != epoch.record.committee:
            yield Finding(site=index, message=f"epoch {number}: took step {_STEPS[step]} before all had taken the one before")
        if done[step] >> index & 1:
            yield Finding(site=index, message=f"epoch {number}: took step {_STEPS[step]} twice")
        if digests.get(index, (_NO_DIGEST,) * 4)[step - 1] != event.values["digest"]:
            yield Finding(site=index, message=f"epoch {number}: the ledger holds another digest for step {_STEPS[step]}")
        done[step] |= 1 << index
    for step, name in _STEPS.items():
        if missing := epoch.record.committee & ~done[step]:
            yield Finding(message=f"epoch {number}: sites {members_in(missing)} did not take step {name}")


def _outcome(epoch: EpochEvidence, key: bytes) -> Iterator[Finding]:
    record, number = epoch.record, epoch.record.epoch
    if not _is_majority(epoch):
        of = f"{record.threshold} of {record.committee.bit_count()} key holders"
        yield Finding(message=f"epoch {number}: {of} open an aggregate; no majority")
    if record.key_digest != key:
        yield Finding(message=f"epoch {number}: the ledger names key {record.key_digest.hex()}, made was {key.hex()}")
    for c in epoch.ceremony:
        if c.key_digest != key:
            yield Finding(site=c.member, message=f"epoch {number}: confirmed another key than the one in use")
    for accusation in epoch.accusations:
        if accusation.evidence != _NO_DIGEST and not accusation.round:
            message = f"epoch {number}: gave up its key as evidence, and the key was used nevertheless"
            yield Finding(site=accusation.accuser, message=message)


def _is_majority(epoch: EpochEvidence) -> bool:
    """Whether so many key holders open an aggregate as the protocol allows: more than half, or 1."""
    threshold, seats = epoch.record.threshold, epoch.record.committee.bit_count()
    return threshold == 1 or seats < 2 * threshold <= 2 * seats


def _public_parts(case: Case, epoch: EpochEvidence) -> Iterator[Finding]:
    """Every member's public key parts, one for each subset key it holds, compared with those of the other holders."""
    record, number = epoch.record, epoch.record.epoch
    params = wide_params(record)
    seen: dict[int, tuple[int, NDArray[np.uint32]]] = {}
    for position, step in enumerate(epoch.ceremony):
        cid, held = manifest_cid(step.key_parts), held_subsets(position, params.committee, params.threshold)
        try:
            stored = case.store.parts(case.store.manifest(step.key_parts))
            parts = [block for part in stored for block in decode_part(part, PartKind.KEY, params)]
        except StoreError:
            continue  # check 5 tells
        except CiphertextError as error:
            yield Finding(site=step.member, object=cid, message=f"epoch {number}: its key parts are malformed: {error}")
            continue
        if len(parts) != len(held):
            yield Finding(site=step.member, object=cid, message=f"epoch {number}: {len(parts)} key parts, it holds {len(held)}")
            continue
        for subset, part in zip(held, parts, strict=True):
            other, same = seen.setdefault(subset, (step.member, part))
            if not np.array_equal(part, same):
                message = f"epoch {number}: its part of subset key {subset} is not that of site {other}"
                yield Finding(site=step.member, object=cid, message=message)


def _keys_in_use(case: Case) -> Iterator[Finding]:
    rounds = {r.record.number: r.record for r in case.rounds()}
    newest = 0
    for event in case.evidence.events:
        if event.name == "EpochActive":
            newest = event.values["epoch"]
        elif event.name == "EpochOpened":
            newest = 0
        elif event.name == "RoundOpened" and (r := rounds.get(event.values["round"])) and r.epoch != newest:
            yield Finding(round=r.number, message=f"uses the key of epoch {r.epoch}; the newest is that of {newest or 'none'}")
