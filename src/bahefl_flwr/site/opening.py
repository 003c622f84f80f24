"""From finalised aggregates to the plain model (paper steps 10 and 11): only sites can do this, and only at home."""

from __future__ import annotations

import numpy as np
from flwr.client import NumPyClient

from bahefl_flwr.errors import MalformedCiphertext, ProtocolError, SealError, ShareError, StoreError, WrongShare
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.packing import unpack
from bahefl_flwr.he.ring import Int64Array
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, decode_part
from bahefl_flwr.he.share_format import decode_share
from bahefl_flwr.he.share_proof import verify_share
from bahefl_flwr.he.threshold import combine
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.records import LedgerView, ObjectKind, RoundRecord, ShareRecord, mask_of, members_in
from bahefl_flwr.sealing import sealing_context
from bahefl_flwr.site.coordination import aggregate_name
from bahefl_flwr.site.keys import forget_epochs_before
from bahefl_flwr.site.model import CONFIRMED_FILE, MODEL_FILE, Array, Model, checked, load_model, save_model
from bahefl_flwr.site.objects import forget_before, kept, put_kept
from bahefl_flwr.site.selection import keep_if_best
from bahefl_flwr.site.state import Outcome, Site, security_params
from bahefl_flwr.store.manifest import Manifest


def initial_model(client: NumPyClient) -> Model:
    """The NumPyClient's own starting point, as round 0.

    Raises:
      UpdateError: its arrays are not finite floating point.
    """
    return checked(client.get_parameters({}), getattr(client, "parameter_names", ()), 0)


def current_model(site: Site, view: LedgerView, client: NumPyClient, outcome: Outcome, best: int = 0) -> Model:
    """The model after the newest finalised round, opening whatever this site has not opened yet.

    Args:
      best: finalised round whose model is to be kept, too; 0 for none.

    Raises:
      ProtocolError: the initial model, or one that this site opened, is not the one the ledger names.
      StoreError, ShareError: an aggregate or a share is missing or altered; names the object and its site.
    """
    path = site.folder / MODEL_FILE
    model = load_model(path) if path.exists() else initial_model(client)
    if model.round == 0 and model.digest() != view.task.initial_model:
        raise ProtocolError(
            f"this site starts from model {model.digest().hex()[:16]}, the ledger names {view.task.initial_model.hex()[:16]}: "
            "seed the NumPyClient's get_parameters so that all sites start from the same weights"
        )
    keep_if_best(site, model, best)
    with outcome.timed("open"):
        for number in _unopened(site, view, model.round):
            model = _model_after(site, view, site.ledger.round(number), model, outcome)
            save_model(model, path)
            keep_if_best(site, model, best)
    if not path.exists():
        save_model(model, path)
    forget_before(site, view.last_finalized)
    # Every finalised round has been opened by now, so no older key will be asked for again.
    forget_epochs_before(site, view.epoch.epoch)
    return model


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
    kept_at_confirmation = site.folder / CONFIRMED_FILE
    if kept_at_confirmation.exists():
        model = load_model(kept_at_confirmation)
        if model.round == r.number and model.digest() == r.opened:
            return model
    mean = mean_update(site, r, open_aggregate(site, view, r, outcome), base.parameters)
    model = base.plus(mean, r.number)
    if model.digest() != r.opened:
        raise ProtocolError(
            f"round {r.number} opens to model {model.digest().hex()[:16]} here, a majority of sites confirmed "
            f"{r.opened.hex()[:16]}: delete {site.folder / MODEL_FILE}, and this site opens all rounds again"
        )
    return model


def open_aggregate(site: Site, view: LedgerView, r: RoundRecord, outcome: Outcome, own: KeyShare | None = None) -> Int64Array:
    """The packed sum of a verified round, int64 (blocks, N), from the shares of the quorum `r.open_quorum`.

    Every site gets the same bits, whichever quorum released the shares.

    Args:
      own: this site's share of the epoch's key, to compare the others' shares with.

    Raises:
      ProtocolError: not all of the quorum have released their shares.
      WrongShare: a share is not what its sender's keys give; names the sender.
      ShareError: the shares are right, but what they open is no sum of updates.
      StoreError: the aggregate or a share is missing or altered.
    """
    epoch = site.ledger.epoch(r.epoch)
    params = security_params(site.settings, epoch)
    aggregate = _aggregate_manifest(site, view, r, outcome)
    committee = members_in(epoch.committee)
    released = released_shares(site, r)
    # What a request or a ledger in motion lacks is never a sender's fault.
    if mask_of(released) != r.open_quorum or r.open_quorum.bit_count() != epoch.threshold:
        raise ProtocolError(
            f"round {r.number}: of quorum {members_in(r.open_quorum)} only {sorted(released)} have released shares"
        )
    addresses = site.addresses()
    manifests = {m: share_manifest(site, view, r, share, addresses[m]) for m, share in sorted(released.items())}
    quorum = tuple(committee.index(m) for m in members_in(r.open_quorum))
    packed = []
    for i, ref in enumerate(aggregate.parts):
        ciphertexts = decode_part(site.store.part(ref, of=aggregate), PartKind.CIPHERTEXT, params, BLOCKS_PER_PART)
        shares = {}
        for member, manifest in manifests.items():
            position = committee.index(member)
            try:
                share = decode_share(_share_part(site, manifest, i), position, quorum, params, BLOCKS_PER_PART)
                verify_share(ciphertexts[:, 1], share, position, quorum, params, own)
            except (ShareError, SealError, MalformedCiphertext) as error:
                raise WrongShare(f"round {r.number}, share of site {member} ({manifest.site}): {error}", member=member) from error
            shares[position] = share.residues
        packed.append(combine(ciphertexts, shares, quorum, params))
    return np.concatenate(packed)


def mean_update(site: Site, r: RoundRecord, packed: Int64Array, parameters: int) -> Array:
    """The weighted mean update of an opened round, shape (parameters,), float32."""
    params = security_params(site.settings, site.ledger.epoch(r.epoch))
    return unpack(packed, parameters, total_share(site.ledger, r), params)


def total_share(ledger: FederationLedger, r: RoundRecord) -> float:
    """What the opened sum is to be divided by: the included sites' weights, as a part of the round's total weight."""
    included = dict(zip(members_in(r.included), r.weights, strict=True))
    weights = {u.member: u.weight for u in ledger.updates(r.number)}
    return sum(k * weights[m] for m, k in included.items()) / r.weight_total


def _aggregate_manifest(site: Site, view: LedgerView, r: RoundRecord, outcome: Outcome) -> Manifest:
    """Step 10 and the comparison of step 11; an altered store copy is replaced by the one this site recomputed itself."""
    mine = kept(site, r.number, aggregate_name(r.included))
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
        put_kept(site, r.number, aggregate_name(r.included))
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
