"""The public transcript of a key ceremony: what every committee member named on the ledger and put into the store.

Reading and checking only; anybody can do it, an auditor or the judge of a dispute as well as a member.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bahefl_flwr.errors import CeremonyError, WrongEpoch
from bahefl_flwr.he import ceremony as steps
from bahefl_flwr.he.keys import PublicKey, held_subsets
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.seal_format import PartKind, decode_part
from bahefl_flwr.records import CeremonyRecord, LedgerView, ObjectKind, members_in
from bahefl_flwr.sealing import is_usable, sealing_context, unseal
from bahefl_flwr.site.keys import epoch_id
from bahefl_flwr.site.state import Site, security_params

# Ceremony objects belong to no round.
NO_ROUND = 0
KEY_PARTS_NAME = "key-parts-{}"
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A place in the committee.

    Attributes:
      position: 0..n-1, ascending member index. member: index on the ledger. address: checksummed.
      record: what its holder has put on the ledger so far.
    """

    position: int
    member: int
    address: str
    record: CeremonyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedCommitment:
    """Step 1 of a member: the commitment to its contributions, and the X25519 key to seal this epoch's seeds to."""

    contributions: bytes
    sealing_key: bytes

    def encode(self) -> bytes:
        """The one part of the stored object."""
        return self.contributions + self.sealing_key


def seats(site: Site, view: LedgerView) -> tuple[Seat, ...]:
    """The committee of the current epoch, by position."""
    addresses = site.addresses()
    records = {record.member: record for record in site.ledger.ceremony(view.epoch.epoch)}
    return tuple(
        Seat(position=p, member=m, address=addresses[m], record=records[m])
        for p, m in enumerate(members_in(view.epoch.committee))
    )


def seed_commitment(site: Site, view: LedgerView, seat: Seat) -> SeedCommitment:
    """What a member committed to in step 1.

    Raises:
      StoreError: missing or altered. CeremonyError: not of that form.
    """
    manifest = site.store.expect(
        seat.record.seed_commitment, run=view.task.run_digest, round=NO_ROUND, site=seat.address, epoch=view.epoch.epoch,
        kind=ObjectKind.SEED_COMMITMENT,
    )  # fmt: skip
    data = site.store.part(manifest.parts[0], of=manifest)
    if len(manifest.parts) != 1 or len(data) != 2 * _DIGEST_BYTES:
        raise CeremonyError(f"{seat.address} committed to {len(data)} bytes in epoch {view.epoch.epoch}, 64 were due: accuse it")
    commitment = SeedCommitment(contributions=data[:_DIGEST_BYTES], sealing_key=data[_DIGEST_BYTES:])
    if not is_usable(commitment.sealing_key):
        raise CeremonyError(f"{seat.address} names a key for epoch {view.epoch.epoch} that nobody can seal to: accuse it")
    return commitment


def opening(
    site: Site, view: LedgerView, sender: Seat, holder: Seat, key: X25519PrivateKey, params: SecurityParams
) -> steps.Opening:
    """What `sender` revealed to `holder` in step 2, opened with the holder's key of the epoch and held against its commitment.

    Raises:
      StoreError: a part of what the sender revealed is missing or altered, be it for this holder or for another: so everybody
        sees it, and not the holder alone whose part was withheld.
      SealError: not sealed to that key. CeremonyError: not what the sender committed to.
    """
    epoch = view.epoch.epoch
    manifest = site.store.expect(
        sender.record.sealed_seeds, run=view.task.run_digest, round=NO_ROUND, site=sender.address, epoch=epoch,
        kind=ObjectKind.SEEDS,
    )  # fmt: skip
    if len(manifest.parts) != params.committee:
        revealed = f"{sender.address} revealed {len(manifest.parts)} sealed parts in epoch {epoch}"
        raise CeremonyError(f"{revealed}, one for each of {params.committee} members was due: accuse it")
    sealed = [site.store.part(ref, of=manifest) for ref in manifest.parts]
    return steps.verify_opening(
        unseal(sealed[holder.position], holder.address, key, seeds_context(view, sender.address)),
        sender=sender.position, holder=holder.position, committed=seed_commitment(site, view, sender).contributions,
        epoch_id=epoch_id(site, view.task, view.epoch), params=params,
    )  # fmt: skip


def seeds_context(view: LedgerView, sender: str) -> bytes:
    """The sealing context of the seeds that `sender` reveals in the current epoch."""
    return sealing_context(kind=ObjectKind.SEEDS, run=view.task.run_digest, round=NO_ROUND, epoch=view.epoch.epoch, sender=sender)


def key_parts(site: Site, view: LedgerView, seat: Seat, params: SecurityParams) -> steps.PublicParts:
    """A member's public key parts, by subset index; none at all if their number is not that of the subsets it holds.

    Raises:
      StoreError, MalformedCiphertext: missing, altered, or no key parts.
    """
    manifest = site.store.expect(
        seat.record.key_parts, run=view.task.run_digest, round=NO_ROUND, site=seat.address, epoch=view.epoch.epoch,
        kind=ObjectKind.PUBLIC_KEY_PARTS,
    )  # fmt: skip
    blocks = [decode_part(site.store.part(ref, of=manifest), PartKind.KEY, params) for ref in manifest.parts]
    held = held_subsets(seat.position, params.committee, params.threshold)
    # Parts that cannot be told apart are none: `contradicting_members` names their sender.
    return dict(zip(held, np.concatenate(blocks), strict=True)) if sum(map(len, blocks)) == len(held) else {}


def public_parts(site: Site, view: LedgerView, params: SecurityParams) -> dict[int, steps.PublicParts]:
    """Every committee member's public key parts in the current epoch, by position and subset index, from the store.

    Raises:
      StoreError, MalformedCiphertext: the first member's parts that are missing, altered, or no key parts.
    """
    return {seat.position: key_parts(site, view, seat, params) for seat in seats(site, view)}


def public_key(site: Site, view: LedgerView) -> PublicKey:
    """The collective key of the current epoch, summed up from the published parts and compared with the ledger.

    Raises:
      WrongEpoch: the parts do not make the key that the committee confirmed.
    """
    params = security_params(site.settings, view.epoch)
    parts = public_parts(site, view, params)
    key = steps.collective_key(parts, params, epoch_id(site, view.task, view.epoch))
    if key.digest() != view.epoch.key_digest:
        raise WrongEpoch(
            f"the published parts of epoch {view.epoch.epoch} make key {key.digest().hex()[:16]}, the committee confirmed "
            f"{view.epoch.key_digest.hex()[:16]}; nothing is encrypted"
        )
    return key
