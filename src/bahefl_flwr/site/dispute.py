"""Naming a cheat: accusations, the evidence for them in a key ceremony, and the verdict of everybody else.

In a ceremony a member that was cheated reveals its own X25519 key of the epoch. With it anybody can open what every other member
sealed to the accuser, derive what the accuser must have derived, and compare: so it never is one member's word against another's.
The accuser's key share becomes public that way; but nothing was ever encrypted under this epoch, and the contract lets no such
epoch become active.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bahefl_flwr.errors import CeremonyError, MalformedCiphertext, SealError, StoreError, TransactionReverted
from bahefl_flwr.he import ceremony as steps
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.records import AccusationRecord, EpochPhase, LedgerView, ObjectKind
from bahefl_flwr.site.keys import epoch_id, epoch_sealing_key
from bahefl_flwr.site.objects import keep, kept, put_kept
from bahefl_flwr.site.state import Outcome, Request, Site, expect_epoch, security_params
from bahefl_flwr.site.transcript import KEY_PARTS_NAME, NO_ROUND, Seat, key_parts, opening, seats, seed_commitment

EVIDENCE_NAME = "evidence-{}"
_NO_EVIDENCE = bytes(32)


def accuse(site: Site, view: LedgerView, culprit: str, reason: str, evidence: bytes = _NO_EVIDENCE) -> None:
    """Name a key holder, by its address, on the ledger. A majority of the committee excludes it from the next keys on."""
    try:
        site.ledger.accuse(view.epoch.epoch, culprit, evidence, reason)
    except TransactionReverted as error:
        # Accused before, or the others have already excluded it.
        if error.reason not in ("AlreadyActed", "NotCurrentEpoch"):
            raise


def accuse_with_evidence(site: Site, view: LedgerView, culprit: Seat, reason: str) -> None:
    """Name a member whose fault only this one can see, and reveal this member's key of the epoch as the proof.

    The ledger first, the key after: once the accusation stands, the epoch can never become active.
    """
    name = EVIDENCE_NAME.format(view.epoch.epoch)
    key = epoch_sealing_key(site, view.epoch).private_bytes_raw()
    manifest = keep(
        site, [key], run=view.task.run_digest, round=NO_ROUND, epoch=view.epoch.epoch, kind=ObjectKind.EVIDENCE,
        owner=site.address, name=name,
    )  # fmt: skip
    accuse(site, view, culprit.address, reason, manifest.digest)
    _put_evidence(site, view)


def _put_evidence(site: Site, view: LedgerView) -> None:
    """Show this member's key of the epoch, if the ledger names it as evidence and has so ruled the epoch out."""
    name = EVIDENCE_NAME.format(view.epoch.epoch)
    manifest = kept(site, NO_ROUND, name)
    named = {accusation.evidence for accusation in site.ledger.accusations(view.epoch.epoch)}
    dead = site.ledger.epoch(view.epoch.epoch).phase in (EpochPhase.DISPUTE, EpochPhase.FAILED)
    if manifest and manifest.digest in named and dead:
        put_kept(site, NO_ROUND, name)


def answer_slander(site: Site, view: LedgerView) -> None:
    """Accuse whoever accused this site of a wrong share in this key epoch: nobody knows better that it was right.

    To end a round alone a key holder must accuse more than n - t others; with t = (n + 1) / 2 these are a majority against it.
    Said between rounds, where it strikes no quorum.
    """
    me = site.me()
    if not view.epoch.accused >> me.index & 1:
        return
    accusations = site.ledger.accusations(view.epoch.epoch)
    answered = {a.culprit for a in accusations if a.accuser == me.index}
    addresses = site.addresses()
    for slanderer in sorted({a.accuser for a in accusations if a.culprit == me.index} - answered):
        accuse(site, view, addresses[slanderer], "it accused this site, whose share is right")


def judge(site: Site, request: Request) -> Outcome:
    """Look at the evidence of a disputed ceremony and accuse whoever it shows to be at fault: the accused, or the accuser.

    Raises:
      StoreError: evidence or key parts cannot be read yet; at the last try their author is held responsible.
    """
    view = expect_epoch(site, request, EpochPhase.DISPUTE)
    outcome = Outcome()
    # Perhaps not put before the dispute; the epoch is dead, so all of it may be read.
    _put_evidence(site, view)
    put_kept(site, NO_ROUND, KEY_PARTS_NAME.format(view.epoch.epoch))
    by_member = {seat.member: seat for seat in seats(site, view)}
    for accusation in site.ledger.accusations(view.epoch.epoch):
        accuser, accused = by_member[accusation.accuser], by_member[accusation.culprit]
        if not any(accusation.evidence) or site.address == accuser.address:
            continue
        fault = _verdict(site, request, view, accusation, accuser, accused)
        outcome.notes.append(f"epoch {view.epoch.epoch}: {fault.seat.address} is at fault: {fault}")
        if fault.seat.address != site.address:
            accuse(site, view, fault.seat.address, str(fault))
    return outcome


class _Fault(CeremonyError):
    """Who is at fault, and why."""

    def __init__(self, seat: Seat, why: str) -> None:
        super().__init__(why)
        self.seat = seat


def _verdict(
    site: Site, request: Request, view: LedgerView, accusation: AccusationRecord, accuser: Seat, accused: Seat
) -> _Fault:
    """The same at every honest site: it depends on the ledger and the store alone."""
    try:
        with _responsible(accuser, "its evidence", request):
            key = _evidence(site, view, accusation, accuser)
        own = steps.public_parts(_accusers_share(site, request, view, accuser, accused, key))
        with _responsible(accused, "its key parts", request):
            theirs = _claimed_parts(site, view, accused)
    except _Fault as fault:
        return fault
    if any(not np.array_equal(part, own[i]) for i, part in theirs.items() if i in own):
        return _Fault(accused, "its key parts are not those of the seeds")
    return _Fault(accuser, f"it accused site {accused.member}, which did nothing wrong")


@contextmanager
def _responsible(author: Seat, what: str, request: Request) -> Iterator[None]:
    """An object that still cannot be read at the last try is its author's fault."""
    try:
        yield
    except StoreError as error:
        if request.last_try:
            raise _Fault(author, f"{what} cannot be read") from error
        raise


def _accusers_share(
    site: Site, request: Request, view: LedgerView, accuser: Seat, accused: Seat, key: X25519PrivateKey
) -> KeyShare:
    """What the accuser must have derived from what everybody sealed to it.

    Raises:
      _Fault: the accused cheated it there; or another one did, and the accuser named the wrong member; or a member withholds now
        what it revealed.
    """
    params = security_params(site.settings, view.epoch)
    openings = {}
    for sender in seats(site, view):
        try:
            with _responsible(sender, "what it revealed", request):
                openings[sender.position] = opening(site, view, sender, accuser, key, params)
        except _Fault:
            raise
        except (CeremonyError, SealError) as error:
            if sender == accused:
                raise _Fault(accused, f"{type(error).__name__} in what it revealed") from error
            raise _Fault(accuser, f"it accused site {accused.member} where {sender.member} had cheated it") from error
    return steps.derive_share(accuser.position, openings, params, epoch_id(site, view.task, view.epoch))


def _claimed_parts(site: Site, view: LedgerView, accused: Seat) -> steps.PublicParts:
    if not any(accused.record.key_parts):
        return {}
    try:
        return key_parts(site, view, accused, security_params(site.settings, view.epoch))
    except MalformedCiphertext as error:
        raise _Fault(accused, "its key parts are of no valid form") from error


def _evidence(site: Site, view: LedgerView, accusation: AccusationRecord, accuser: Seat) -> X25519PrivateKey:
    """The accuser's private key of the epoch.

    Raises:
      StoreError: not there, or altered. _Fault: not the key that the accuser committed to.
    """
    manifest = site.store.expect(
        accusation.evidence, run=view.task.run_digest, round=NO_ROUND, site=accuser.address, epoch=view.epoch.epoch,
        kind=ObjectKind.EVIDENCE,
    )  # fmt: skip
    data = site.store.part(manifest.parts[0], of=manifest)
    key = X25519PrivateKey.from_private_bytes(data) if len(data) == 32 else None
    if key is None or key.public_key().public_bytes_raw() != seed_commitment(site, view, accuser).sealing_key:
        raise _Fault(accuser, "its evidence is not its key of the epoch")
    return key
