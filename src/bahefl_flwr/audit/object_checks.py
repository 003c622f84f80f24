"""Checks 5, 6 and 8: the store's objects against the ledger, and the sums computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.audit.case import Case, NamedObject
from bahefl_flwr.audit.evidence import RoundEvidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.errors import CiphertextError, StoreError
from bahefl_flwr.he.ckks import add
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.seal_format import PartKind, decode_part, encode_part
from bahefl_flwr.records import EpochRecord, RoundPhase, RoundRecord, members_in
from bahefl_flwr.store.manifest import Manifest, manifest_cid

_MOST_SITES = 255
_MOST_WEIGHT_BITS = 3


def intact_objects(case: Case) -> Iterator[Finding]:
    """5. Every object that the outcome rests on is in the store, manifest and parts, byte for byte.

    Not so the objects of rounds and ceremonies that came to nothing, and the updates and shares that the sites refused
    because they could not be read: the ledger says that they were left out, and of what they were nothing follows.
    """
    for each in case.needed:
        try:
            for _ in case.store.parts(case.store.manifest(each.digest)):
                pass
        except StoreError as error:
            yield _about(each, f"{each.kind.value}: {error}")


def bound_manifests(case: Case) -> Iterator[Finding]:
    """6. Every manifest names the run, round, site, key epoch and kind as which the ledger names it, and the size."""
    for each in case.needed:
        try:
            manifest = case.store.manifest(each.digest)
        except StoreError:
            continue  # check 5 tells
        for field, (found, value) in each.misnamed(manifest).items():
            yield _about(each, f"the manifest names {field} {_shown(found)}, the ledger {_shown(value)}")


def exact_sums(case: Case) -> Iterator[Finding]:
    """8. Every finalised aggregate is, bit for bit, the weighted sum of the updates that the ledger says are in it."""
    for r in case.rounds():
        if r.record.phase is RoundPhase.FINALIZED:
            yield from _wrong_sum(case, r)


def wide_params(epoch: EpochRecord) -> SecurityParams:
    """Parameters to read and add ciphertexts with.

    That depends on ring and primes only, which the wire version fixes; what the ledger does not say just has to be wide enough.
    """
    return SecurityParams(
        update_range=1.0, weight_bits=_MOST_WEIGHT_BITS, threshold=epoch.threshold, committee=epoch.committee.bit_count(),
        sites=_MOST_SITES,
    )  # fmt: skip


def _wrong_sum(case: Case, r: RoundEvidence) -> Iterator[Finding]:
    record, params = r.record, wide_params(case.evidence.epoch_of(r.record.epoch).record)
    aggregate = manifest_cid(record.aggregate)
    try:
        stated = case.store.manifest(record.aggregate)
        sources = {u.member: case.store.manifest(u.digest) for u in r.updates if record.included >> u.member & 1}
        # The last part of an update is its proof.
        parts = {len(manifest.parts) - 1 for manifest in sources.values()}
        halves = [mask for mask in (record.included & ~record.split, record.split) if mask]
        if len(parts) != 1 or len(stated.parts) - len(halves) * max(parts) not in (0, 1):
            message = f"has {len(stated.parts)} parts, the updates in its {len(halves)} sum(s) have {sorted(parts)}"
            yield Finding(round=record.number, site=record.coordinator, object=aggregate, message=message)
            return
        places = [(half, i) for half in halves for i in range(max(parts))]
        for (half, i), part in zip(places, stated.parts, strict=False):
            if hashlib.sha256(_sum(case, record, sources, half, i, params)).digest() != part.digest:
                message = f"part {i} is not the sum of the updates of sites {list(members_in(half))}"
                yield Finding(round=record.number, site=record.coordinator, object=aggregate, message=message)
    except (StoreError, CiphertextError, ValueError) as error:
        message = f"the sum cannot be computed again: {error}"
        yield Finding(round=record.number, site=record.coordinator, object=aggregate, message=message)


def _sum(case: Case, record: RoundRecord, sources: Mapping[int, Manifest], half: int, i: int, params: SecurityParams) -> bytes:
    """One part of the weighted sum of the updates of a mask of sites."""
    weights = dict(zip(members_in(record.included), record.weights, strict=True))
    members = members_in(half)
    blocks = (_ciphertexts(case, sources[m], i, params) for m in members)
    return encode_part(add(blocks, [weights[m] for m in members], params), PartKind.CIPHERTEXT, params)


def _ciphertexts(case: Case, manifest: Manifest, i: int, params: SecurityParams) -> NDArray[np.uint32]:
    return decode_part(case.store.part(manifest.parts[i], of=manifest), PartKind.CIPHERTEXT, params)


def _about(each: NamedObject, message: str) -> Finding:
    return Finding(round=each.round or None, site=each.member, object=each.cid, message=message)


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
