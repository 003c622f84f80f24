"""A spoiled aggregate: verified and rightly opened, yet out of range, so that one of its updates must be.

Here a site notes down what it saw, and later says whose update it was. The audit's openings themselves are made in `sketches`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from bahefl_flwr.errors import ProtocolError, SpoiledSum, StoreError, WrongShare
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.sketch import Opened
from bahefl_flwr.he.spoiled_sum import Position, outside_range, positions_digest
from bahefl_flwr.records import LedgerView, RoundOutcome, RoundRecord, ShareRecord, mask_of
from bahefl_flwr.screening.record import Record, decode_record
from bahefl_flwr.site.aggregates import aggregate_name, kept_aggregates
from bahefl_flwr.site.keys import has_key_share, load_key_share
from bahefl_flwr.site.objects import kept_parts
from bahefl_flwr.site.opening import open_aggregate
from bahefl_flwr.site.state import Outcome, Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoiled:
    """What this site saw when it opened a round's spoiled aggregate.

    Attributes:
      included: mask of the updates in it. positions: (block, coefficient) pairs that are out of range, the first few.
      record: what screening had decided of them.
    """

    included: int
    positions: tuple[Position, ...]
    record: Record


def report_spoiled(site: Site, view: LedgerView, r: RoundRecord, spoiled: SpoiledSum, outcome: Outcome) -> None:
    """Note what was found, and say that no model follows from this aggregate, if this site has a say in the round.

    A majority of the same word has the updates audited and the aggregate made again.
    """
    outcome.notes.append(str(spoiled))
    me = site.me().index
    if r.confirmed >> me & 1:
        return
    _note(site, view, r, spoiled)
    if r.committed >> me & 1:
        digest = positions_digest(spoiled.positions)
        outcome.gas += site.ledger.confirm_opening(r.number, r.open_quorum, digest, RoundOutcome.SPOILED).gas_used


def _note(site: Site, view: LedgerView, r: RoundRecord, spoiled: SpoiledSum) -> None:
    seen = {
        "included": f"{r.included:x}",
        "positions": [list(p) for p in spoiled.positions],
        "name": aggregate_name(r.included, r.split),
    }
    site.journal.put(_key(view, r, positions_digest(spoiled.positions)), seen)
    site.journal.put(_key(view, r, r.aggregate), {"opened": True})


def spoiled_aggregate(site: Site, view: LedgerView, r: RoundRecord) -> Spoiled:
    """What this site saw of the aggregate that the ledger calls spoiled.

    A majority may have been faster than this site: then it opens the aggregate now, and believes nobody's word for it.

    Raises:
      ProtocolError: it cannot open what it verified itself, or finds something else.
    """
    key = _key(view, r, r.spoiled)
    if site.journal.get(key) is None:
        _open_late(site, view, r)
    seen = site.journal.get(key)
    if seen is None:
        raise ProtocolError(
            f"round {r.number}: the ledger calls its aggregate spoiled ({r.spoiled.hex()[:16]}), which this site "
            "cannot see; it takes no further part in the round"
        )
    record = list(kept_parts(site, r.number, str(seen["name"])))[-1]
    positions = tuple((int(block), int(coefficient)) for block, coefficient in seen["positions"])
    return Spoiled(included=int(str(seen["included"]), 16), positions=positions, record=decode_record(record))


def _open_late(site: Site, view: LedgerView, r: RoundRecord) -> None:
    """Open each aggregate of the round that this site verified, from shares that are still there, and note the spoiled one."""
    epoch = site.ledger.epoch(r.epoch)
    own = load_key_share(site, epoch) if has_key_share(site, epoch) else None
    for (included, split, digest), shares in product(kept_aggregates(site, r.number), _quorums(site.ledger.former_shares(r))):
        former = replace(r, aggregate=digest, included=included, split=split, open_quorum=mask_of(shares))
        try:
            open_aggregate(site, view, former, Outcome(), own, shares)
        except SpoiledSum as spoiled:
            if positions_digest(spoiled.positions) == r.spoiled:
                _note(site, view, former, spoiled)
        except (ProtocolError, StoreError, WrongShare):
            continue  # the shares of another aggregate, or not all of them


def _quorums(released: Iterable[ShareRecord]) -> list[dict[int, ShareRecord]]:
    """The shares of each quorum by member, a quorum anew where a member released a second one for it: of another aggregate."""
    found: list[dict[int, ShareRecord]] = []
    for share in released:
        for shares in found:
            if share.member not in shares and next(iter(shares.values())).quorum == share.quorum:
                shares[share.member] = share
                break
        else:
            found.append({share.member: share})
    return found


def saw_spoiled(site: Site, view: LedgerView, r: RoundRecord, aggregate: bytes) -> bool:
    """Whether this site itself opened this aggregate of the round and found it spoiled."""
    return site.journal.get(_key(view, r, aggregate)) is not None


def out_of_range(opened: Opened, members: tuple[int, ...], shares: Mapping[int, float], params: SecurityParams) -> list[int]:
    """Members of whose update an opened coefficient is none that its site could have encrypted honestly.

    Args:
      shares: each site's part of the round's total weight.
    """
    return [m for i, m in enumerate(members) if outside_range(opened.packed[i], shares[m], params)]


def _key(view: LedgerView, r: RoundRecord, digest: bytes) -> tuple[str, int, str]:
    return view.task.run_digest.hex(), r.number, f"spoiled-{digest.hex()}"
