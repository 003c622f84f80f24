"""From finalised aggregates to the plain model (paper steps 10 and 11): only sites can do this, and only at home."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from flwr.client import NumPyClient
from numpy.typing import NDArray

from bahefl_flwr.errors import MalformedCiphertext, ProtocolError, SealError, ShareError, SpoiledSum, StoreError, WrongShare
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.packing import unpack
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import Int64Array
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, decode_part
from bahefl_flwr.he.share_format import decode_share
from bahefl_flwr.he.share_proof import verify_share
from bahefl_flwr.he.spoiled_sum import MOST_POSITIONS, Position
from bahefl_flwr.he.threshold import combine
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import LedgerView, ObjectKind, RoundOutcome, RoundRecord, ShareRecord, mask_of, members_in, members_of
from bahefl_flwr.screening.acceptance import next_history
from bahefl_flwr.screening.record import Record, decode_record
from bahefl_flwr.sealing import sealing_context
from bahefl_flwr.site.aggregates import aggregate_name, ciphertext_parts
from bahefl_flwr.site.history import Memory, first_memory, keep_model, load_memory
from bahefl_flwr.site.keys import forget_epochs_before
from bahefl_flwr.site.lineage import note_opened
from bahefl_flwr.site.model import CONFIRMED_FILE, MODEL_FILE, Array, Model, load_model
from bahefl_flwr.site.numpy_client import initial_model
from bahefl_flwr.site.objects import forget_before, kept, put_kept
from bahefl_flwr.site.selection import keep_if_best
from bahefl_flwr.site.state import Outcome, Site, security_params
from bahefl_flwr.site.updates import part_blocks
from bahefl_flwr.store.manifest import Manifest


def current_model(site: Site, view: LedgerView, client: NumPyClient, outcome: Outcome, best: int = 0) -> Model:
    """The model after the newest finalised round, opening whatever this site has not opened yet.

    Args:
      best: finalised round whose model is to be kept, too; 0 for none.

    Raises:
      ProtocolError: the initial model, or one that this site opened, is not the one the ledger names.
      StoreError, ShareError: an aggregate or a share is missing or altered; names the object and its site.
    """
    if not (site.folder / MODEL_FILE).exists():
        model = initial_model(client)
        keep_model(site.folder, model, first_memory(model))
    return newest_model(site, view, outcome, best)


def newest_model(site: Site, view: LedgerView, outcome: Outcome, best: int = 0) -> Model:
    """As `current_model`, for a site that has greeted the run, and so keeps a model.

    Raises:
      ProtocolError, StoreError, ShareError: as there.
    """
    model = load_model(site.folder / MODEL_FILE)
    if model.round == 0 and model.digest() != view.task.initial_model:
        raise ProtocolError(
            f"this site starts from model {model.digest().hex()[:16]}, the ledger names {view.task.initial_model.hex()[:16]}: "
            "seed the NumPyClient's get_parameters so that all sites start from the same weights"
        )
    keep_if_best(site, model, best)
    with outcome.timed("open"):
        for number in _unopened(site, view, model.round):
            r, base = site.ledger.round(number), model
            model = _model_after(site, view, r, base, outcome)
            note_opened(site, view, r, model)
            keep_model(site.folder, model, _memory_after(site, view, r, base, model, outcome))
            keep_if_best(site, model, best)
    forget_before(site, view.last_finalized)
    # Every finalised round has been opened by now, so no older key will be asked for again.
    forget_epochs_before(site, view.epoch.epoch)
    return model


def _memory_after(site: Site, view: LedgerView, r: RoundRecord, base: Model, model: Model, outcome: Outcome) -> Memory | None:
    """What to judge the next round by; None where updates are not screened."""
    if site.settings.screening.kind == "off":
        return None
    record = record_of(site, view, r, outcome)
    figures = next_history(record.history, record.figures, record.decision, r.outcome)
    return load_memory(site.folder, base).after(base, model, r.outcome, figures)


def record_of(site: Site, view: LedgerView, r: RoundRecord, outcome: Outcome) -> Record:
    """What screening saw and decided in a round, from its aggregate.

    Raises:
      StoreError: the aggregate is missing or altered, or ends in no record.
    """
    aggregate = _aggregate_manifest(site, view, r, outcome)
    return decode_record(site.store.part(aggregate.parts[-1], of=aggregate))


def base_model(site: Site, r: RoundRecord) -> Model:
    """The model that a round builds on, as this site holds it.

    Raises:
      ProtocolError: it holds another one.
    """
    path = site.folder / MODEL_FILE
    base = load_model(path)
    if base.digest() != r.base:
        raise ProtocolError(
            f"round {r.number} builds on model {r.base.hex()[:16]}, this site holds {base.digest().hex()[:16]}, of round "
            f"{base.round}: delete {path}, and this site opens all rounds again"
        )
    return base


def _unopened(site: Site, view: LedgerView, newest: int) -> list[int]:
    """The task's finalised rounds after `newest`, in order: each names the one it builds on."""
    rounds: list[int] = []
    number = view.last_finalized
    while number > newest:
        rounds.insert(0, number)
        number = site.ledger.finalized_before(number)
    return rounds


def _model_after(site: Site, view: LedgerView, r: RoundRecord, base: Model, outcome: Outcome) -> Model:
    """The model after a finalised round: the one kept when this site confirmed it, or opened now."""
    if r.outcome is RoundOutcome.NONE:
        return base.at(r.number)
    kept_at_confirmation = site.folder / CONFIRMED_FILE
    if kept_at_confirmation.exists():
        model = load_model(kept_at_confirmation)
        if model.round == r.number and model.digest() == r.opened:
            return model
    model = base.plus(mean_update(site, r, open_aggregate(site, view, r, outcome), base.parameters, r.outcome), r.number)
    if model.digest() != r.opened:
        raise ProtocolError(
            f"round {r.number} opens to model {model.digest().hex()[:16]} here, a majority of sites confirmed "
            f"{r.opened.hex()[:16]}: delete {site.folder / MODEL_FILE}, and this site opens all rounds again"
        )
    return model


def open_aggregate(
    site: Site,
    view: LedgerView,
    r: RoundRecord,
    outcome: Outcome,
    own: KeyShare | None = None,
    shares: Mapping[int, ShareRecord] | None = None,
) -> Int64Array:
    """The packed sum of a verified round, int64 (blocks, N), from the shares of the quorum `r.open_quorum`.

    Every site gets the same bits, whichever quorum released the shares.

    Args:
      own: this site's share of the epoch's key, to compare the others' shares with.
      shares: by member, where they are not those of the round's present aggregate.

    Raises:
      ProtocolError: not all of the quorum have released their shares.
      WrongShare: a share is not what its sender's keys give; names the sender.
      SpoiledSum: the shares are right, but what they open is no sum of updates in range.
      StoreError: the aggregate or a share is missing or altered.
    """
    epoch = site.ledger.epoch(r.epoch)
    params = security_params(site.settings, epoch)
    aggregate = _aggregate_manifest(site, view, r, outcome)
    manifests = _share_manifests(site, view, r, released_shares(site, r) if shares is None else shares, epoch.threshold)
    committee = members_in(epoch.committee)
    quorum = tuple(map(committee.index, manifests))
    packed, spoiled = [], []
    for i, ref in enumerate(aggregate.parts[: ciphertext_parts(site, r, params)]):
        ciphertexts = decode_part(site.store.part(ref, of=aggregate), PartKind.CIPHERTEXT, params, BLOCKS_PER_PART)
        c1 = ciphertexts[:, 1]
        parts = {
            position: _checked_share(site, r, member, manifests[member], i, c1, position, quorum, params, own)
            for member, position in zip(manifests, quorum, strict=True)
        }
        try:
            packed.append(combine(ciphertexts, parts, quorum, params))
        except SpoiledSum as error:
            spoiled += _in_update(error.positions, i, part_blocks(site, params))
    if spoiled:
        raise SpoiledSum(
            f"round {r.number}: the aggregate of sites {members_in(r.included)} opens to values that no sum of updates has; its "
            "updates will be audited",
            positions=tuple(sorted(set(spoiled))[:MOST_POSITIONS]),
        )
    return np.concatenate(packed)


def _share_manifests(
    site: Site, view: LedgerView, r: RoundRecord, released: Mapping[int, ShareRecord], threshold: int
) -> dict[int, Manifest]:
    """The stored shares of the quorum `r.open_quorum`, by ascending member.

    Raises:
      ProtocolError: not all of it have released theirs. What a request or a ledger in motion lacks is never a sender's fault.
      StoreError: as `share_manifest`.
    """
    if mask_of(released) != r.open_quorum or r.open_quorum.bit_count() != threshold:
        raise ProtocolError(
            f"round {r.number}: of quorum {members_in(r.open_quorum)} only {sorted(released)} have released shares"
        )
    addresses = site.addresses()
    return {m: share_manifest(site, view, r, share, addresses[m]) for m, share in sorted(released.items())}


def _checked_share(
    site: Site,
    r: RoundRecord,
    member: int,
    manifest: Manifest,
    part: int,
    c1: NDArray[np.uint32],
    position: int,
    quorum: tuple[int, ...],
    params: SecurityParams,
    own: KeyShare | None,
) -> NDArray[np.uint32]:
    """A member's share of one part, (blocks, primes, N), compared with its own tags and this site's keys.

    Raises:
      WrongShare: it is not what its sender's keys give.
    """
    try:
        share = decode_share(_share_part(site, manifest, part), position, quorum, params, BLOCKS_PER_PART)
        verify_share(c1, share, position, quorum, params, own)
    except (ShareError, SealError, MalformedCiphertext) as error:
        raise WrongShare(f"round {r.number}, share of site {member} ({manifest.site}): {error}", member=member) from error
    return share.residues


def _in_update(positions: Iterable[Position], part: int, blocks: tuple[int, ...]) -> list[Position]:
    """Positions in a part of the aggregate as positions in an update; in a conflict round both halves have the same blocks."""
    before = sum(blocks[: part % len(blocks)])
    return [(before + block, coefficient) for block, coefficient in positions]


def mean_update(site: Site, r: RoundRecord, packed: Int64Array, parameters: int, chosen: RoundOutcome) -> Array:
    """The weighted mean update of an opened round, shape (parameters,), float32.

    Args:
      packed: as `open_aggregate` gives it.
      chosen: whose mean: of all included sites, or of one half.
    """
    params = security_params(site.settings, site.ledger.epoch(r.epoch))
    sums = packed.reshape(-1, params.blocks(parameters), params.ring_degree)  # (1 or 2, blocks, N)
    total = sums.sum(axis=0) if chosen is RoundOutcome.WHOLE else sums[int(chosen) - 1]
    return unpack(total, parameters, total_share(site.ledger, r, chosen), params)


def total_share(ledger: FederationLedger, r: RoundRecord, chosen: RoundOutcome) -> float:
    """What the opened sum is to be divided by: its sites' weights, as a part of the round's total weight."""
    members = members_in(members_of(r, chosen))
    included = dict(zip(members_in(r.included), r.weights, strict=True))
    weights = {u.member: u.weight for u in ledger.updates(r.number)}
    return sum(included[m] * weights[m] for m in members) / r.weight_total


def _aggregate_manifest(site: Site, view: LedgerView, r: RoundRecord, outcome: Outcome) -> Manifest:
    """Step 10 and the comparison of step 11; an altered store copy is replaced by the one this site recomputed itself."""
    mine = kept(site, r.number, aggregate_name(r.included, r.split))
    try:
        manifest = site.store.expect(
            r.aggregate, run=view.task.run_digest, round=r.number, site=site.ledger.address, epoch=r.epoch,
            kind=ObjectKind.AGGREGATE,
        )  # fmt: skip
        for ref in manifest.parts:
            site.store.part(ref, of=manifest)
    except StoreError as error:
        if mine is None or mine.digest != r.aggregate:
            raise
        outcome.notes.append(f"{error}; put again from this site's own recomputation")
        put_kept(site, r.number, aggregate_name(r.included, r.split))
        return mine
    return manifest


def released_shares(site: Site, r: RoundRecord) -> dict[int, ShareRecord]:
    """The shares released so far for the quorum `r.open_quorum`, by member."""
    return {s.member: s for s in site.ledger.shares(r.number) if s.quorum == r.open_quorum}


def share_manifest(site: Site, view: LedgerView, r: RoundRecord, share: ShareRecord, address: str) -> Manifest:
    """The stored object of a share that the site at `address` released.

    Raises:
      StoreError: missing, altered, or not bound to this run, round, epoch and member.
    """
    return site.store.expect(
        share.digest, run=view.task.run_digest, round=r.number, site=address, epoch=r.epoch, kind=ObjectKind.SHARE
    )


def _share_part(site: Site, manifest: Manifest, i: int) -> bytes:
    if i >= len(manifest.parts):
        raise ShareError(f"{manifest.site} sent {len(manifest.parts)} parts for round {manifest.round}, part {i} is missing")
    context = sealing_context(
        kind=ObjectKind.SHARE, run=manifest.run, round=manifest.round, epoch=manifest.epoch, sender=manifest.site
    )
    return site.identity.unseal(site.store.part(manifest.parts[i], of=manifest), context)
