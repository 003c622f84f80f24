"""Before a round is settled (end of paper step 11): open the aggregate, and say on the ledger to which model.

A wrong share is found here, before the round counts; so is an aggregate that a poisoned update drove out of range.
"""

from __future__ import annotations

from bahefl_flwr.errors import SpoiledSum
from bahefl_flwr.he.ring import Int64Array
from bahefl_flwr.records import LedgerView, RoundPhase, RoundRecord
from bahefl_flwr.site.checked_opening import expect_agreement, open_checked
from bahefl_flwr.site.conflict import model_after, settled_outcome
from bahefl_flwr.site.model import CONFIRMED_FILE, save_model
from bahefl_flwr.site.numpy_client import ClientConfig, ClientFactory
from bahefl_flwr.site.opening import base_model
from bahefl_flwr.site.spoiled import report_spoiled
from bahefl_flwr.site.state import Outcome, Request, Site, expect_round


def confirm_opening(site: Site, request: Request, make_client: ClientFactory, config: ClientConfig) -> Outcome:
    """Open the aggregate from the released shares, each compared with this site's own keys, and confirm the model it gives.

    Args:
      make_client: this site's NumPyClient, made only to evaluate public anchor data where a conflict round is contested.

    Raises:
      WrongShare, StoreError: as `open_checked`.
      ProtocolError: this site recomputed another sum, or starts from another model than the ledger names.
    """
    view, r = expect_round(site, request, RoundPhase.VERIFIED)
    outcome = Outcome()
    expect_agreement(site, request, view, r, outcome)
    mine = 1 << site.me().index
    if r.confirmed & mine:
        return outcome
    try:
        with outcome.timed("open"):
            packed = open_checked(site, request, view, r, outcome)
    except SpoiledSum as spoiled:
        report_spoiled(site, view, r, spoiled, outcome)
        return outcome
    if r.committed & mine:
        with outcome.timed("confirm"):
            _confirm(site, view, r, packed, make_client, config, outcome)
    return outcome


def _confirm(
    site: Site,
    view: LedgerView,
    r: RoundRecord,
    packed: Int64Array,
    make_client: ClientFactory,
    config: ClientConfig,
    outcome: Outcome,
) -> None:
    base = base_model(site, r)
    chosen = settled_outcome(site, view, r, packed, make_client, config)
    model = model_after(site, r, packed, base, chosen)
    save_model(model, site.folder / CONFIRMED_FILE)
    outcome.facts.update(model=model.digest().hex(), outcome=chosen.name.lower())
    outcome.gas += site.ledger.confirm_opening(r.number, r.open_quorum, model.digest(), chosen).gas_used
