"""A committee member's part in the key ceremony. No party ever holds the whole key.

Four steps, each closed on the ledger before the next one opens: commit, reveal (sealed), publish, confirm.
Source: he/ceremony.py; the ledger's side is contracts/KeyEpochs.sol; what happens to a cheat is dispute.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Never

import numpy as np

from bahefl_flwr.errors import CeremonyError, MalformedCiphertext, ProtocolError, SealError, StoreError
from bahefl_flwr.he import ceremony as steps
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, encode_part
from bahefl_flwr.records import EpochPhase, LedgerView, ObjectKind
from bahefl_flwr.sealing import seal
from bahefl_flwr.site.dispute import accuse, accuse_with_evidence
from bahefl_flwr.site.keys import draw_entropy, epoch_id, epoch_sealing_key, load_entropy, load_key_share, save_key_share
from bahefl_flwr.site.objects import keep, put_kept
from bahefl_flwr.site.state import Outcome, Request, Site, expect_epoch, expect_task, security_params
from bahefl_flwr.site.transcript import (
    KEY_PARTS_NAME,
    NO_ROUND,
    Seat,
    SeedCommitment,
    key_parts,
    opening,
    seats,
    seed_commitment,
    seeds_context,
)

_COMMITMENT_NAME = "seed-commitment-{}"
_SEEDS_NAME = "seeds-{}"


def commit_seeds(site: Site, request: Request) -> Outcome:
    """Step 1: commit to this member's seed contributions, and name the X25519 key that this epoch's seeds are sealed to.

    Raises:
      SettingsError: the task or its contract is not what this site's settings name.
    """
    view, mine = _expect(site, request, EpochPhase.COMMIT, "committed")
    expect_task(site, view.task)
    outcome = Outcome()
    if mine is not None:
        draw_entropy(site, view.epoch)
        key = epoch_sealing_key(site, view.epoch).public_key().public_bytes_raw()
        commitment = SeedCommitment(contributions=steps.commitment(_contributions(site, view, mine)), sealing_key=key)
        digest = _keep(site, view, [commitment.encode()], ObjectKind.SEED_COMMITMENT, _COMMITMENT_NAME)
        put_kept(site, NO_ROUND, _COMMITMENT_NAME.format(view.epoch.epoch))
        outcome.gas = site.ledger.commit_seeds(view.epoch.epoch, digest).gas_used
    return outcome


def reveal_seeds(site: Site, request: Request) -> Outcome:
    """Step 2: give every member its contributions, sealed to its key of the epoch; the object's digest goes on the ledger.

    Raises:
      StoreError, CeremonyError: a member's key of the epoch cannot be read; at the last try it is accused.
    """
    view, mine = _expect(site, request, EpochPhase.REVEAL, "revealed")
    outcome = Outcome()
    if mine is not None:
        digest = _keep(site, view, _sealed_openings(site, request, view, mine), ObjectKind.SEEDS, _SEEDS_NAME)
        put_kept(site, NO_ROUND, _SEEDS_NAME.format(view.epoch.epoch))
        outcome.gas = site.ledger.reveal_seeds(view.epoch.epoch, digest).gas_used
    return outcome


def publish_key_parts(site: Site, request: Request) -> Outcome:
    """Step 3: verify what the others revealed, derive and keep this member's key share, name its public parts on the ledger.

    Their bytes stay at the site until `upload_key_parts`: members that hold a subset alone (with even committees t-1 can)
    could otherwise wait for everybody else's parts and choose the collective key.

    Raises:
      CeremonyError: a member revealed something else than it committed to; names it.
    """
    view, mine = _expect(site, request, EpochPhase.PUBLISH, "published")
    outcome = Outcome()
    if mine is not None:
        params = security_params(site.settings, view.epoch)
        openings = _openings(site, request, view, mine, params)
        share = steps.derive_share(mine.position, openings, params, epoch_id(site, view.task, view.epoch))
        save_key_share(site, view.epoch, share)
        parts = [part for _, part in sorted(steps.public_parts(share).items())]
        blocks = np.stack(parts)  # (subsets, primes, N)
        encoded = (
            encode_part(blocks[at : at + BLOCKS_PER_PART], PartKind.KEY, params) for at in range(0, len(blocks), BLOCKS_PER_PART)
        )
        digest = _keep(site, view, encoded, ObjectKind.PUBLIC_KEY_PARTS, KEY_PARTS_NAME)
        outcome.gas = site.ledger.publish_key_parts(view.epoch.epoch, digest).gas_used
    return outcome


def upload_key_parts(site: Site, request: Request) -> Outcome:
    """Between steps 3 and 4: put the public parts, now that everybody's are named on the ledger."""
    view, _ = _expect(site, request, EpochPhase.CONFIRM, "confirmed")
    name = KEY_PARTS_NAME.format(view.epoch.epoch)
    return Outcome(bytes={"key-parts": put_kept(site, NO_ROUND, name)})


def confirm_key(site: Site, request: Request) -> Outcome:
    """Step 4: compare everybody's public parts with this member's own, and confirm the collective key.

    Raises:
      CeremonyError: parts contradict each other; names the members at fault.
    """
    view, mine = _expect(site, request, EpochPhase.CONFIRM, "confirmed")
    outcome = Outcome()
    if mine is not None:
        params = security_params(site.settings, view.epoch)
        share = load_key_share(site, view.epoch)
        parts = _everybodys_key_parts(site, request, view, params)
        openings = _openings(site, request, view, mine, params)
        faults = steps.contradicting_members(share, parts, openings, params)
        if faults:
            _dispute(site, request, view, share, parts, faults)
        key = steps.collective_key(parts, params, share.epoch_id)
        outcome.facts["key"] = key.digest().hex()
        outcome.gas = site.ledger.confirm_key(view.epoch.epoch, key.digest()).gas_used
    return outcome


def _expect(site: Site, request: Request, phase: EpochPhase, done: str) -> tuple[LedgerView, Seat | None]:
    """The ledger's view and this member's seat in the committee, None if it has acted already.

    Raises:
      WrongRound: the message is of another run or epoch. ProtocolError: another phase, or not a committee member.
    """
    view = expect_epoch(site, request, phase)
    mine = next((seat for seat in seats(site, view) if seat.address == site.address), None)
    if mine is None:
        raise ProtocolError(f"{site.address} has no seat in the committee of epoch {view.epoch.epoch}; it has nothing to do")
    return view, None if int(getattr(view.epoch, done)) >> mine.member & 1 else mine


def _contributions(site: Site, view: LedgerView, mine: Seat) -> steps.Contributions:
    """The same contributions every time: they derive from entropy that the site keeps on disk for this epoch."""
    params = security_params(site.settings, view.epoch)
    return steps.contribute(mine.position, params, epoch_id(site, view.task, view.epoch), load_entropy(site, view.epoch))


def _sealed_openings(site: Site, request: Request, view: LedgerView, mine: Seat) -> Iterator[bytes]:
    """One part per committee position, each sealed to that member alone."""
    contributions = _contributions(site, view, mine)
    for holder in seats(site, view):
        try:
            key = seed_commitment(site, view, holder).sealing_key
        except CeremonyError:
            accuse(site, view, holder.address, "its seed commitment is of no use")
            raise
        except StoreError:
            if request.last_try:
                accuse(site, view, holder.address, "its seed commitment cannot be read")
            raise
        opened = steps.opening_for(contributions, holder.position)
        yield seal(opened, {holder.address: key}, seeds_context(view, site.address))


def _openings(site: Site, request: Request, view: LedgerView, mine: Seat, params: SecurityParams) -> dict[int, steps.Opening]:
    """All members' openings to this one, verified. A member whose opening is wrong is accused on the ledger.

    Raises:
      CeremonyError, StoreError, SealError: the first opening that is missing, altered, or not the committed one.
    """
    openings = {}
    key = epoch_sealing_key(site, view.epoch)
    for sender in seats(site, view):
        try:
            openings[sender.position] = opening(site, view, sender, mine, key, params)
        except (CeremonyError, SealError) as error:
            accuse_with_evidence(site, view, sender, f"{type(error).__name__} in what it revealed")
            raise
        except StoreError:
            # Anybody can see that it is missing; silence at the deadline would be held against those who looked for it.
            if request.last_try:
                accuse(site, view, sender.address, "what it revealed cannot be read")
            raise
    return openings


def _everybodys_key_parts(site: Site, request: Request, view: LedgerView, params: SecurityParams) -> dict[int, steps.PublicParts]:
    """As `transcript.public_parts`; at the last try a member whose parts cannot be read is accused on the ledger."""
    parts = {}
    for seat in seats(site, view):
        try:
            parts[seat.position] = key_parts(site, view, seat, params)
        except (StoreError, MalformedCiphertext):
            if request.last_try:
                accuse(site, view, seat.address, "its key parts cannot be read")
            raise
    return parts


def _dispute(
    site: Site,
    request: Request,
    view: LedgerView,
    share: KeyShare,
    parts: Mapping[int, steps.PublicParts],
    faults: Mapping[int, str],
) -> Never:
    """Accuse whoever is at fault: with evidence where only the holders of a seed can see it, else without.

    Of two holders that contradict each other about a seed this member does not hold, neither: the honest one gives evidence. If
    none does by the last try, a digest that nobody can share ends the ceremony without a culprit: silence would exclude the
    honest members at the deadline.

    Raises:
      CeremonyError: always; the key is not confirmed.
    """
    own = steps.public_parts(share)
    sole_holders = share.params.threshold == share.params.committee
    committee = seats(site, view)
    for culprit, reason in sorted(faults.items()):
        seat = committee[culprit]
        if any(i in own and not np.array_equal(part, own[i]) for i, part in parts[culprit].items()):
            accuse_with_evidence(site, view, seat, f"position {culprit}: {reason}")
        elif sole_holders or not parts[culprit]:
            accuse(site, view, seat.address, f"position {culprit}: {reason}")
    now = site.ledger.view().epoch
    if request.last_try and (now.epoch, now.phase) == (view.epoch.epoch, EpochPhase.CONFIRM):
        site.ledger.confirm_key(view.epoch.epoch, secrets.token_bytes(32))
    raise CeremonyError(f"epoch {view.epoch.epoch}: key parts contradict each other, not confirmed: {dict(faults)}")


def _keep(site: Site, view: LedgerView, parts: Iterable[bytes], kind: ObjectKind, name: str) -> bytes:
    manifest = keep(
        site, parts, run=view.task.run_digest, round=NO_ROUND, epoch=view.epoch.epoch, kind=kind, owner=site.address,
        name=name.format(view.epoch.epoch),
    )  # fmt: skip
    return manifest.digest
