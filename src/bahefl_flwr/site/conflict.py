"""A conflict round: two sums were opened instead of one, and the sites settle which of them, if any, becomes the update.

What a site votes follows from its own data; what comes of the votes from the ledger, the record, and public anchor data.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from flwr.client import NumPyClient

from bahefl_flwr.errors import ProtocolError, SpoiledSum, TrainingError
from bahefl_flwr.he.ring import Int64Array
from bahefl_flwr.ledger.ballots import ballot_commitment
from bahefl_flwr.records import LedgerView, RoundOutcome, RoundPhase, RoundRecord
from bahefl_flwr.screening.ballots import anchor_choice, ballot_of, outcome_of
from bahefl_flwr.site.checked_opening import expect_agreement, open_checked
from bahefl_flwr.site.model import Model
from bahefl_flwr.site.opening import base_model, mean_update, record_of
from bahefl_flwr.site.spoiled import report_spoiled
from bahefl_flwr.site.state import Outcome, Request, Site, expect_round

ClientFactory = Callable[[], NumPyClient]
Config = Mapping[str, bool | bytes | float | int | str]
_CANDIDATES = (RoundOutcome.WHOLE, RoundOutcome.FIRST, RoundOutcome.SECOND)


def cast_ballot(site: Site, request: Request, make_client: ClientFactory, config: Config) -> Outcome:
    """Evaluate all candidate models on this site's own validation data, and commit to a vote; asked again, to the same one.

    Raises:
      WrongShare, StoreError: as `open_checked`; without an opened sum there is nothing to vote on.
    """
    view, r = expect_round(site, request, RoundPhase.VERIFIED)
    outcome = Outcome()
    expect_agreement(site, request, view, r, outcome)
    if r.cast >> site.me().index & 1:
        return outcome
    key = _key(view, r)
    ballot = site.journal.get(key)
    if ballot is None:
        try:
            with outcome.timed("ballot"):
                packed = open_checked(site, request, view, r, outcome)
                choice = _choice(site, r, packed, make_client(), config)
        except SpoiledSum as spoiled:
            report_spoiled(site, view, r, spoiled, outcome)
            return outcome
        ballot = {"choice": choice, "salt": secrets.token_bytes(32).hex()}
        site.journal.put(key, ballot)
    commitment = ballot_commitment(r.number, site.address, int(ballot["choice"]), bytes.fromhex(str(ballot["salt"])))
    outcome.gas += site.ledger.cast_ballot(r.number, commitment).gas_used
    return outcome


def _choice(site: Site, r: RoundRecord, packed: Int64Array, client: NumPyClient, config: Config) -> int:
    base = base_model(site, r)
    whole, first, second = (
        _loss(client, model_after(site, r, packed, base, candidate), {**config, "part": "ballot"}) for candidate in _CANDIDATES
    )
    return ballot_of(whole, first, second, site.settings.screening.ballot_gain)


def reveal_ballot(site: Site, request: Request) -> Outcome:
    """Show the vote, now that nobody can cast another."""
    view, r = expect_round(site, request, RoundPhase.VERIFIED)
    outcome = Outcome()
    if r.balloted >> site.me().index & 1:
        return outcome
    ballot = site.journal.get(_key(view, r))
    if ballot is None:
        raise ProtocolError(f"round {r.number}: this site has cast no ballot for quorum {r.open_quorum:x}; it has none to reveal")
    outcome.facts["ballot"] = int(ballot["choice"])
    outcome.gas += site.ledger.reveal_ballot(r.number, int(ballot["choice"]), bytes.fromhex(str(ballot["salt"]))).gas_used
    return outcome


def settled_outcome(
    site: Site, view: LedgerView, r: RoundRecord, packed: Int64Array, base: Model, make_client: ClientFactory, config: Config
) -> RoundOutcome:
    """What becomes of the round; the whole aggregate where there was no conflict."""
    if not r.split:
        return RoundOutcome.WHOLE
    record = record_of(site, view, r, Outcome())
    ballots = {b.member: b.choice for b in site.ledger.ballots(r.number) if b.choice is not None}

    def anchor() -> RoundOutcome:
        client = make_client()
        halves = (RoundOutcome.FIRST, RoundOutcome.SECOND)
        losses = [_loss(client, model_after(site, r, packed, base, half), {**config, "part": "anchor"}) for half in halves]
        return anchor_choice(*losses)

    return outcome_of(record.decision, record.history, record.rules, ballots, anchor)


def model_after(site: Site, r: RoundRecord, packed: Int64Array, base: Model, chosen: RoundOutcome) -> Model:
    """The model that an outcome of the round gives."""
    if chosen is RoundOutcome.NONE:
        return base.at(r.number)
    return base.plus(mean_update(site, r, packed, base.parameters, chosen), r.number)


def _loss(client: NumPyClient, model: Model, config: Config) -> float:
    """A candidate's loss; one that cannot be evaluated at all is as bad as can be."""
    try:
        loss, _, _ = client.evaluate([a.copy() for a in model.arrays], dict(config))
    except Exception as error:
        raise TrainingError(f"evaluate raised {type(error).__name__} on a candidate model: {error}") from error
    return float(loss)


def _key(view: LedgerView, r: RoundRecord) -> tuple[str, int, str]:
    """Of one opening: after a struck quorum, sites vote anew."""
    return view.task.run_digest.hex(), r.number, f"ballot-{r.attempt}-{r.open_quorum:x}"
