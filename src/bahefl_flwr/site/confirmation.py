"""Before a round is settled (end of paper step 11): compare the shares, open, and say on the ledger to which model.

A wrong share is found here, before the round counts: its sender is named, and another quorum opens the same aggregate.
"""

from __future__ import annotations

from dataclasses import replace

from bahefl_flwr.errors import ProtocolError, StoreError, WrongRound, WrongShare
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.ring import Int64Array
from bahefl_flwr.records import LedgerView, RoundPhase, RoundRecord
from bahefl_flwr.records import Outcome as RoundOutcome
from bahefl_flwr.site.dispute import accuse
from bahefl_flwr.site.keys import has_key_share, load_key_share
from bahefl_flwr.site.model import CONFIRMED_FILE, MODEL_FILE, load_model, save_model
from bahefl_flwr.site.opening import mean_update, open_aggregate, released_shares, share_manifest
from bahefl_flwr.site.state import Outcome, Request, Site, expect_round
from bahefl_flwr.site.verification import recompute_and_attest


def confirm_opening(site: Site, request: Request) -> Outcome:
    """Open the aggregate from the released shares, each compared with this site's own keys, and confirm the model it gives.

    Raises:
      WrongShare: a share is wrong. A key holder has accused its sender, so that another quorum is asked.
      StoreError: the aggregate or a share cannot be read; at the last try a key holder accuses the sender of the share.
      ProtocolError: this site recomputed another sum, or starts from another model than the ledger names.
    """
    view, r = expect_round(site, request, RoundPhase.VERIFIED)
    if request.quorum != r.open_quorum:
        if request.quorum & r.disputed:
            # Struck before this site looked: a majority excludes the liar, so every key holder says what it sees.
            _opened(site, request, view, replace(r, open_quorum=request.quorum), Outcome())
        raise WrongRound(
            f"round {r.number}: asked to confirm quorum {request.quorum:x}, the ledger is at {r.open_quorum:x}; ignored"
        )
    outcome = Outcome()
    mine = 1 << site.me().index
    agrees = not r.voted_bad & mine
    if r.committed & ~(r.voted_ok | r.voted_bad) & mine:
        agrees = recompute_and_attest(site, view, r, outcome)
    if not agrees:
        raise ProtocolError(f"round {r.number}: the verified aggregate is not the sum this site computed; it confirms nothing")
    if not r.confirmed & mine:
        with outcome.timed("open"):
            packed = _opened(site, request, view, r, outcome)
        if r.committed & mine:
            with outcome.timed("confirm"):
                _confirm(site, r, packed, outcome)
    return outcome


def _opened(site: Site, request: Request, view: LedgerView, r: RoundRecord, outcome: Outcome) -> Int64Array:
    own = _own_share(site, view, outcome)
    try:
        return open_aggregate(site, view, r, outcome, own)
    except WrongShare as wrong:
        _accuse(site, view, wrong.member, "its decryption share is wrong", outcome)
        raise
    except StoreError:
        if request.last_try:
            for member in _unreadable(site, view, r):
                _accuse(site, view, member, "its decryption share cannot be read", outcome)
        raise


def _own_share(site: Site, view: LedgerView, outcome: Outcome) -> KeyShare | None:
    """This site's key share; None outside the committee, or with a note where it was lost."""
    if not view.epoch.committee >> site.me().index & 1:
        return None
    if not has_key_share(site, view.epoch):
        outcome.notes.append(f"this site has no share of epoch {view.epoch.epoch}'s key to compare the others' shares with")
        return None
    return load_key_share(site, view.epoch)


def _unreadable(site: Site, view: LedgerView, r: RoundRecord) -> list[int]:
    """Members of the quorum whose share is missing or altered in the store."""
    members = []
    addresses = site.addresses()
    for member, share in released_shares(site, r).items():
        try:
            manifest = share_manifest(site, view, r, share, addresses[member])
            for ref in manifest.parts:
                site.store.part(ref, of=manifest)
        except StoreError:
            members.append(member)
    return members


def _accuse(site: Site, view: LedgerView, member: int, reason: str, outcome: Outcome) -> None:
    """On the ledger, if this site is a key holder: that strikes the quorum."""
    outcome.notes.append(f"round {view.round.number}: site {member}: {reason}")
    me = site.me().index
    if view.epoch.committee >> me & 1 and member != me:
        accuse(site, view, site.addresses()[member], reason)


def _confirm(site: Site, r: RoundRecord, packed: Int64Array, outcome: Outcome) -> None:
    base = load_model(site.folder / MODEL_FILE)
    if base.digest() != r.base:
        raise ProtocolError(
            f"round {r.number} builds on model {r.base.hex()[:16]}, this site holds {base.digest().hex()[:16]}, of round "
            f"{base.round}: delete {site.folder / MODEL_FILE}, and this site opens all rounds again"
        )
    model = base.plus(mean_update(site, r, packed, base.parameters), r.number)
    save_model(model, site.folder / CONFIRMED_FILE)
    outcome.facts["model"] = model.digest().hex()
    outcome.gas += site.ledger.confirm_opening(r.number, r.open_quorum, model.digest(), RoundOutcome.WHOLE).gas_used
