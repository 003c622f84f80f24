"""The coordinator's work (paper steps 5-9): fetch, compare with the ledger, add ciphertexts, publish the aggregate.

The coordinator holds nothing that could open what it adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import BaheflError, MalformedCiphertext, ObjectCorrupt, ObjectMissing, ProtocolError, UnusableUpdate
from bahefl_flwr.he.ckks import TenSealAdder
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, decode_part, encode_part
from bahefl_flwr.records import ExclusionReason, LedgerView, ObjectKind, RoundPhase, RoundRecord, mask_of, members_in
from bahefl_flwr.site.model import model_parameters
from bahefl_flwr.site.objects import keep, put_kept
from bahefl_flwr.site.state import Outcome, Request, Site, expect_round, security_params
from bahefl_flwr.store.manifest import Manifest

Ciphertexts = NDArray[np.uint32]
Adder = Callable[[Iterable[Ciphertexts], Sequence[int]], Ciphertexts]


def aggregate(site: Site, request: Request) -> Outcome:
    """Add the committed updates and put the aggregate on the ledger; on failure resign, so that nobody waits.

    Raises:
      ProtocolError: this site is not the round's coordinator, or too few updates are usable.
    """
    view, r = expect_round(site, request, RoundPhase.AGGREGATE)
    if site.me().index != r.coordinator:
        raise ProtocolError(f"round {r.number}: site {r.coordinator} coordinates attempt {r.attempt}, not {site.address}")
    try:
        return _aggregate(site, view, r)
    except BaheflError as error:
        _resign(site, r, error)
        raise
    except Exception as error:
        _resign(site, r, error)
        raise ProtocolError(f"round {r.number}: aggregation raised {type(error).__name__}: {error}") from error


def _aggregate(site: Site, view: LedgerView, r: RoundRecord) -> Outcome:
    outcome = Outcome()
    with outcome.timed("aggregate"):
        sources, excluded = usable_updates(site, view, r, outcome)
        manifest = None
        while manifest is None:
            if len(sources) < site.settings.federation.min_sites:
                why = "; ".join(outcome.notes)
                raise ProtocolError(f"round {r.number}: only {len(sources)} usable updates; left out {_named(excluded)}: {why}")
            try:
                manifest = _keep_sum(site, view, r, sources)
            except UnusableUpdate as unusable:
                excluded[unusable.member] = ExclusionReason(unusable.reason)
                del sources[unusable.member]
                outcome.notes.append(str(unusable))
        outcome.bytes["aggregate"] = put_kept(site, r.number, aggregate_name(mask_of(sources)))  # step 8
    with outcome.timed("submit"):
        receipt = site.ledger.submit_aggregate(  # step 9
            r.number,
            manifest.digest,
            manifest.size_bytes,
            mask_of(sources),
            0,
            bytes([1] * len(sources)),
            bytes(int(excluded[m]) for m in sorted(excluded)),
        )
    outcome.gas += receipt.gas_used
    outcome.facts["digest"] = manifest.digest.hex()
    return outcome


def _keep_sum(site: Site, view: LedgerView, r: RoundRecord, sources: Mapping[int, Manifest]) -> Manifest:
    params = security_params(site.settings, view.epoch)
    parts = sum_parts(site, sources, [1] * len(sources), params, TenSealAdder(params))
    return keep_aggregate(site, r, view.task.run_digest, parts, mask_of(sources))


def _resign(site: Site, r: RoundRecord, error: Exception) -> None:
    """Only the kind of error goes on the ledger: a message could hold a file name."""
    site.ledger.resign(r.number, type(error).__name__)


def aggregate_name(included: int) -> str:
    """Folder name of a kept aggregate: it says of which updates (a mask) it is the sum."""
    return f"aggregate-{included:x}"


def keep_aggregate(site: Site, r: RoundRecord, run: bytes, parts: Iterable[bytes], included: int) -> Manifest:
    """Keep an aggregate of round `r`. Its manifest names the contract, so every coordinator's has the same digest."""
    return keep(
        site, parts, run=run, round=r.number, epoch=r.epoch, kind=ObjectKind.AGGREGATE,
        owner=site.ledger.address, name=aggregate_name(included),
    )  # fmt: skip


def usable_updates(
    site: Site, view: LedgerView, r: RoundRecord, outcome: Outcome
) -> tuple[dict[int, Manifest], dict[int, ExclusionReason]]:
    """Paper steps 5 and 6: the manifests of the round's committed updates that are what the ledger says.

    Returns:
      Manifests by member index (ascending), and the reason for every committed member left out; `outcome.notes` name the objects.
    """
    addresses = site.addresses()
    parts = len(part_blocks(site, security_params(site.settings, view.epoch)))
    usable: dict[int, Manifest] = {}
    excluded: dict[int, ExclusionReason] = {}
    for update in site.ledger.updates(r.number):
        try:
            manifest = site.store.expect(
                update.digest, run=view.task.run_digest, round=r.number, site=addresses[update.member],
                epoch=r.epoch, kind=ObjectKind.UPDATE,
            )  # fmt: skip
        except ObjectMissing as error:
            excluded[update.member] = ExclusionReason.MISSING
            outcome.notes.append(str(error))
        except ObjectCorrupt as error:
            excluded[update.member] = ExclusionReason.CORRUPT
            outcome.notes.append(str(error))
        else:
            if (len(manifest.parts), manifest.size_bytes) == (parts, update.size_bytes):
                usable[update.member] = manifest
            else:
                excluded[update.member] = ExclusionReason.MALFORMED
    return dict(sorted(usable.items())), excluded


def sum_parts(
    site: Site, sources: Mapping[int, Manifest], weights: Sequence[int], params: SecurityParams, adder: Adder
) -> Iterator[bytes]:
    """Paper step 7: the weighted sum of the updates, part by part, so memory does not grow with the number of sites.

    Raises:
      UnusableUpdate: a part is missing, altered, or not a ciphertext of `params`; names the member.
    """
    for i, blocks in enumerate(part_blocks(site, params)):
        arrays = (_ciphertexts(site, member, manifest, i, blocks, params) for member, manifest in sources.items())
        yield encode_part(adder(arrays, weights), PartKind.CIPHERTEXT, params)


def part_blocks(site: Site, params: SecurityParams) -> tuple[int, ...]:
    """Ciphertexts in each part of an update of this run's model: no update may be longer or shorter."""
    full, rest = divmod(params.blocks(model_parameters(site.folder)), BLOCKS_PER_PART)
    return (BLOCKS_PER_PART,) * full + ((rest,) if rest else ())


def well_formed(site: Site, member: int, manifest: Manifest, params: SecurityParams) -> bool:
    """Whether an update can be read and added as a whole."""
    try:
        for i, blocks in enumerate(part_blocks(site, params)):
            _ciphertexts(site, member, manifest, i, blocks, params)
    except UnusableUpdate:
        return False
    return True


def _ciphertexts(site: Site, member: int, manifest: Manifest, i: int, blocks: int, params: SecurityParams) -> Ciphertexts:
    who = f"site {member} ({manifest.site}), round {manifest.round}, part {i}"
    try:
        array = decode_part(site.store.part(manifest.parts[i], of=manifest), PartKind.CIPHERTEXT, params, blocks)
        if len(array) != blocks:
            raise MalformedCiphertext(f"{len(array)} ciphertexts where the model needs {blocks}")
        return array
    except ObjectMissing as error:
        raise UnusableUpdate(str(error), member=member, reason=ExclusionReason.MISSING) from None
    except ObjectCorrupt as error:
        raise UnusableUpdate(str(error), member=member, reason=ExclusionReason.CORRUPT) from None
    except MalformedCiphertext as error:
        raise UnusableUpdate(f"{who}: {error}", member=member, reason=ExclusionReason.MALFORMED) from None


def _named(excluded: Mapping[int, ExclusionReason]) -> str:
    return ", ".join(f"site {m} ({excluded[m].name.lower()})" for m in members_in(mask_of(excluded))) or "nobody"
