"""A committee member's part in the key ceremony. No party ever holds the whole key.

Four steps, each closed on the ledger before the next one opens: commit, reveal (sealed), publish, confirm.
Source: he/ceremony.py; the ledger's side is contracts/KeyEpochs.sol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Never

import numpy as np

from bahefl_flwr.errors import (
    CeremonyError,
    MalformedCiphertext,
    ProtocolError,
    SealError,
    StoreError,
    TransactionReverted,
    WrongEpoch,
    WrongRound,
)
from bahefl_flwr.he import ceremony as steps
from bahefl_flwr.he.keys import KeyShare, PublicKey, held_subsets
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, decode_part, encode_part
from bahefl_flwr.records import CeremonyRecord, EpochPhase, EpochRecord, LedgerView, ObjectKind, members_in
from bahefl_flwr.sealing import seal, sealing_context
from bahefl_flwr.site.keys import epoch_id, load_entropy, load_key_share, save_key_share
from bahefl_flwr.site.objects import keep, put_kept
from bahefl_flwr.site.state import Outcome, Request, Site, security_params, task_params

_SEEDS_NAME = "seeds-{}"
_PARTS_NAME = "key-parts-{}"
# Ceremony objects belong to no round.
_NO_ROUND = 0


def commit_seeds(site: Site, request: Request) -> Outcome:
    """Step 1: commit to this member's seed contributions.

    Raises:
      CeremonyError: the task's security parameters on the ledger are not those of this site's settings.
    """
    view, position = _expect(site, request, EpochPhase.COMMIT, "committed")
    mine = task_params(site.settings).digest()
    if view.task.security_params != mine:
        raise CeremonyError(
            f"the task was started with security parameters {view.task.security_params.hex()[:16]}, this site's settings give "
            f"{mine.hex()[:16]}: update_range, weight_bits, threshold or committee differ; this site makes no keys for it"
        )
    outcome = Outcome()
    if position is not None:
        commitment = steps.commitment(_contributions(site, view, position))
        outcome.gas = site.ledger.commit_seeds(view.epoch.epoch, commitment).gas_used
    return outcome


def reveal_seeds(site: Site, request: Request) -> Outcome:
    """Step 2: give every member its contributions, sealed to it; the object's digest goes on the ledger."""
    view, position = _expect(site, request, EpochPhase.REVEAL, "revealed")
    outcome = Outcome()
    if position is not None:
        epoch = view.epoch
        digest = _keep(site, view, _sealed_openings(site, view, position), ObjectKind.SEEDS, _SEEDS_NAME)
        put_kept(site, _NO_ROUND, _SEEDS_NAME.format(epoch.epoch))
        outcome.gas = site.ledger.reveal_seeds(epoch.epoch, digest).gas_used
    return outcome


def publish_key_parts(site: Site, request: Request) -> Outcome:
    """Step 3: verify what the others revealed, derive and keep this member's key share, name its public parts on the ledger.

    Their bytes stay at the site until `upload_key_parts`: members that hold a subset alone (with even committees t-1 can)
    could otherwise wait for everybody else's parts and choose the collective key.

    Raises:
      CeremonyError: a member revealed something else than it committed to; names it.
    """
    view, position = _expect(site, request, EpochPhase.PUBLISH, "published")
    outcome = Outcome()
    if position is not None:
        params = security_params(site.settings, view.epoch)
        openings = _openings(site, request, view, position, params)
        share = steps.derive_share(position, openings, params, epoch_id(site, view.task, view.epoch))
        save_key_share(site, view.epoch, share)
        parts = [part for _, part in sorted(steps.public_parts(share).items())]
        blocks = np.stack(parts)  # (subsets, primes, N)
        encoded = (
            encode_part(blocks[at : at + BLOCKS_PER_PART], PartKind.KEY, params) for at in range(0, len(blocks), BLOCKS_PER_PART)
        )
        digest = _keep(site, view, encoded, ObjectKind.PUBLIC_KEY_PARTS, _PARTS_NAME)
        outcome.gas = site.ledger.publish_key_parts(view.epoch.epoch, digest).gas_used
    return outcome


def upload_key_parts(site: Site, request: Request) -> Outcome:
    """Between steps 3 and 4: put the public parts, now that everybody's are named on the ledger."""
    view, _ = _expect(site, request, EpochPhase.CONFIRM, "confirmed")
    name = _PARTS_NAME.format(view.epoch.epoch)
    return Outcome(bytes={"key-parts": put_kept(site, _NO_ROUND, name)})


def confirm_key(site: Site, request: Request) -> Outcome:
    """Step 4: compare everybody's public parts with this member's own, and confirm the collective key.

    Raises:
      CeremonyError: parts contradict each other; names the members at fault.
    """
    view, position = _expect(site, request, EpochPhase.CONFIRM, "confirmed")
    outcome = Outcome()
    if position is not None:
        params = security_params(site.settings, view.epoch)
        share = load_key_share(site, view.epoch)
        parts = _everybodys_key_parts(site, request, view, params)
        faults = steps.contradicting_members(share, parts, _openings(site, request, view, position, params), params)
        if faults:
            _dispute(site, request, view, share, parts, faults)
        key = steps.collective_key(parts, params, share.epoch_id)
        outcome.facts["key"] = key.digest().hex()
        outcome.gas = site.ledger.confirm_key(view.epoch.epoch, key.digest()).gas_used
    return outcome


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


def public_parts(site: Site, view: LedgerView, params: SecurityParams) -> dict[int, steps.PublicParts]:
    """Every committee member's public key parts in the current epoch, by position and subset index, from the store.

    Raises:
      StoreError, MalformedCiphertext: the first member's parts that are missing, altered, or no key parts.
    """
    return {
        position: _key_parts(site, view, params, position, record, address)
        for position, record, address in _records(site, view.epoch)
    }


def _key_parts(
    site: Site, view: LedgerView, params: SecurityParams, position: int, record: CeremonyRecord, address: str
) -> steps.PublicParts:
    epoch = view.epoch.epoch
    manifest = site.store.expect(
        record.key_parts, run=view.task.run_digest, round=_NO_ROUND, site=address, epoch=epoch,
        kind=ObjectKind.PUBLIC_KEY_PARTS,
    )  # fmt: skip
    blocks = [decode_part(site.store.part(ref, of=manifest), PartKind.KEY, params) for ref in manifest.parts]
    held = held_subsets(position, params.committee, params.threshold)
    # Parts that cannot be told apart are none: `contradicting_members` names their sender.
    return dict(zip(held, np.concatenate(blocks), strict=True)) if sum(map(len, blocks)) == len(held) else {}


def _expect(site: Site, request: Request, phase: EpochPhase, done: str) -> tuple[LedgerView, int | None]:
    """The ledger's view and this member's position in the committee, None if it has acted already.

    Raises:
      WrongRound: the message is of another run or epoch. ProtocolError: another phase, or not a committee member.
    """
    view = site.ledger.view()
    epoch = view.epoch
    if (request.run, request.number) != (view.task.run_digest, epoch.epoch):
        raise WrongRound(f"message of key epoch {request.number}, the ledger is at epoch {epoch.epoch} of its own run; ignored")
    committee = members_in(epoch.committee)
    me = site.me().index
    if epoch.phase is not phase or me not in committee:
        raise ProtocolError(
            f"epoch {epoch.epoch} is in phase {epoch.phase.name} with committee {committee}; site {me} has nothing to do"
        )
    return view, None if int(getattr(epoch, done)) >> me & 1 else committee.index(me)


def _contributions(site: Site, view: LedgerView, position: int) -> steps.Contributions:
    """The same contributions every time: they derive from entropy that the site keeps on disk for this epoch."""
    params = security_params(site.settings, view.epoch)
    return steps.contribute(position, params, epoch_id(site, view.task, view.epoch), load_entropy(site, view.epoch))


def _sealed_openings(site: Site, view: LedgerView, position: int) -> Iterator[bytes]:
    """One part per committee position, each sealed to that member alone."""
    contributions = _contributions(site, view, position)
    for holder, (address, sealing_key) in enumerate(_committee(site, view.epoch)):
        context = _context(view, site.address)
        yield seal(steps.opening_for(contributions, holder), {address: sealing_key}, context)


def _openings(site: Site, request: Request, view: LedgerView, position: int, params: SecurityParams) -> dict[int, steps.Opening]:
    """All members' openings to this one, verified. A member whose opening is wrong is accused on the ledger.

    Raises:
      CeremonyError, StoreError, SealError: the first opening that is missing, altered, or not the committed one.
    """
    openings = {}
    for sender, record, address in _records(site, view.epoch):
        try:
            openings[sender] = _opening(site, view, position, params, sender, record, address)
        except (CeremonyError, SealError) as error:
            _accuse(site, view.epoch, address, f"{type(error).__name__} in what it revealed")
            raise
        except StoreError:
            # Anybody can see that it is missing; silence at the deadline would be held against those who looked for it.
            if request.last_try:
                _accuse(site, view.epoch, address, "what it revealed cannot be read")
            raise
    return openings


def _everybodys_key_parts(site: Site, request: Request, view: LedgerView, params: SecurityParams) -> dict[int, steps.PublicParts]:
    """As `public_parts`; at the last try a member whose parts cannot be read is accused on the ledger."""
    parts = {}
    for position, record, address in _records(site, view.epoch):
        try:
            parts[position] = _key_parts(site, view, params, position, record, address)
        except (StoreError, MalformedCiphertext):
            if request.last_try:
                _accuse(site, view.epoch, address, "its key parts cannot be read")
            raise
    return parts


def _opening(
    site: Site, view: LedgerView, position: int, params: SecurityParams, sender: int, record: CeremonyRecord, address: str
) -> steps.Opening:
    manifest = site.store.expect(
        record.sealed_seeds, run=view.task.run_digest, round=_NO_ROUND, site=address, epoch=view.epoch.epoch,
        kind=ObjectKind.SEEDS,
    )  # fmt: skip
    if len(manifest.parts) != params.committee:
        revealed = f"{address} revealed {len(manifest.parts)} sealed parts in epoch {view.epoch.epoch}"
        raise CeremonyError(f"{revealed}, one for each of {params.committee} members was due")
    sealed = site.store.part(manifest.parts[position], of=manifest)
    return steps.verify_opening(
        site.identity.unseal(sealed, _context(view, address)), sender=sender, holder=position,
        committed=record.seed_commitment, epoch_id=epoch_id(site, view.task, view.epoch), params=params,
    )  # fmt: skip


def _dispute(
    site: Site,
    request: Request,
    view: LedgerView,
    share: KeyShare,
    parts: Mapping[int, steps.PublicParts],
    faults: Mapping[int, str],
) -> Never:
    """Accuse those whose fault this member can see for itself; of two holders that contradict each other elsewhere, neither.

    If the accusations do not settle it by the last try, a digest that nobody shares ends the ceremony without a culprit: silence
    would exclude the honest members at the deadline.

    Raises:
      CeremonyError: always; the key is not confirmed.
    """
    own = steps.public_parts(share)
    committee = _committee(site, view.epoch)
    for culprit, reason in sorted(faults.items()):
        incomplete = set(parts[culprit]) != set(held_subsets(culprit, share.params.committee, share.params.threshold))
        differs = any(i in own and not np.array_equal(part, own[i]) for i, part in parts[culprit].items())
        if incomplete or differs:
            _accuse(site, view.epoch, committee[culprit][0], f"position {culprit} {reason}")
    if request.last_try and site.ledger.view().epoch.epoch == view.epoch.epoch:
        site.ledger.confirm_key(view.epoch.epoch, hashlib.sha256(f"disputed by {site.address}".encode()).digest())
    raise CeremonyError(f"epoch {view.epoch.epoch}: key parts contradict each other, not confirmed: {dict(faults)}")


def _accuse(site: Site, epoch: EpochRecord, culprit: str, reason: str) -> None:
    """Name a cheat on the ledger; a majority of the committee excludes it and the ceremony starts again without it."""
    try:
        site.ledger.accuse(epoch.epoch, culprit, bytes(32), reason[:200])
    except TransactionReverted as error:
        # Accused before, or the others have already excluded it.
        if error.reason not in ("AlreadyActed", "NotCurrentEpoch"):
            raise


def _records(site: Site, epoch: EpochRecord) -> Iterator[tuple[int, CeremonyRecord, str]]:
    """Position, ledger record and address of every committee member."""
    records = {record.member: record for record in site.ledger.ceremony(epoch.epoch)}
    for position, (member, (address, _)) in enumerate(zip(members_in(epoch.committee), _committee(site, epoch), strict=True)):
        yield position, records[member], address


def _committee(site: Site, epoch: EpochRecord) -> list[tuple[str, bytes]]:
    members = {m.index: m for m in site.ledger.members()}
    return [(members[i].address, members[i].sealing_key) for i in members_in(epoch.committee)]


def _context(view: LedgerView, sender: str) -> bytes:
    return sealing_context(
        kind=ObjectKind.SEEDS, run=view.task.run_digest, round=_NO_ROUND, epoch=view.epoch.epoch, sender=sender
    )


def _keep(site: Site, view: LedgerView, parts: Iterator[bytes], kind: ObjectKind, name: str) -> bytes:
    manifest = keep(
        site, parts, run=view.task.run_digest, round=_NO_ROUND, epoch=view.epoch.epoch, kind=kind, owner=site.address,
        name=name.format(view.epoch.epoch),
    )  # fmt: skip
    return manifest.digest
