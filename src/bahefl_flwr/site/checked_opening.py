"""Opening a verified aggregate before its round is settled: every share is compared, and whoever's is wrong is accused.

That strikes its quorum, so that another one opens the same aggregate. What comes of the opened sum is `confirmation`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from bahefl_flwr.errors import ProtocolError, SpoiledSum, StoreError, WrongRound, WrongShare
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.ring import Int64Array
from bahefl_flwr.records import LedgerView, RoundRecord
from bahefl_flwr.site.dispute import accuse
from bahefl_flwr.site.keys import has_key_share, load_key_share
from bahefl_flwr.site.opening import open_aggregate, released_shares, share_manifest
from bahefl_flwr.site.state import Outcome, Request, Site
from bahefl_flwr.site.verification import recompute_and_attest


def expect_agreement(site: Site, request: Request, view: LedgerView, r: RoundRecord, outcome: Outcome) -> None:
    """The request is about the quorum that the ledger is at, and this site has found the aggregate right.

    Raises:
      WrongRound: another quorum is asked about; if it was struck, this site has looked at its shares once more.
      ProtocolError: this site recomputed another sum.
    """
    if request.quorum != r.open_quorum:
        if request.quorum & r.disputed:
            # Struck before this site looked: a majority excludes the liar, so every key holder says what it sees.
            # A sum out of range has right shares; it is told of the quorum that the ledger is at.
            with suppress(SpoiledSum):
                open_checked(site, request, view, replace(r, open_quorum=request.quorum), Outcome())
        raise WrongRound(f"round {r.number}: asked about quorum {request.quorum:x}, the ledger is at {r.open_quorum:x}; ignored")
    mine = 1 << site.me().index
    agrees = not r.voted_bad & mine
    if r.committed & ~(r.voted_ok | r.voted_bad) & mine:
        agrees = recompute_and_attest(site, view, r, outcome)
    if not agrees:
        raise ProtocolError(f"round {r.number}: the verified aggregate is not the sum this site computed; it confirms nothing")


def open_checked(site: Site, request: Request, view: LedgerView, r: RoundRecord, outcome: Outcome) -> Int64Array:
    """The packed sums of the round, as `open_aggregate` gives them, each share compared with this site's own keys.

    Raises:
      WrongShare: a share is wrong. A key holder has accused its sender, so that another quorum is asked.
      StoreError: the aggregate or a share cannot be read; at the last try a key holder accuses the sender of the share.
      SpoiledSum: as `open_aggregate`.
    """
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
