"""A conflict round: two sums were opened instead of one, and the sites settle which of them, if any, becomes the update.

What a site votes follows from its own data; what comes of the votes from the ledger, the record, and public anchor data.
"""

from __future__ import annotations

import secrets

from flwr.client import NumPyClient

from bahefl_flwr.errors import ProtocolError, SpoiledSum, TrainingError
from bahefl_flwr.he.ring import Int64Array
from bahefl_flwr.ledger.ballots import ballot_commitment
from bahefl_flwr.records import BallotStage, LedgerView, RoundOutcome, RoundPhase, RoundRecord
from bahefl_flwr.screening.ballots import anchor_choice, ballot_of, outcome_of
from bahefl_flwr.site.checked_opening import expect_agreement, open_checked
from bahefl_flwr.site.model import Model
from bahefl_flwr.site.numpy_client import ClientConfig, ClientFactory, evaluated, has_anchor
from bahefl_flwr.site.opening import base_model, mean_update, record_of
from bahefl_flwr.site.spoiled import report_spoiled
from bahefl_flwr.site.state import Outcome, Request, Site, expect_round


def cast_ballot(site: Site, request: Request, make_client: ClientFactory, config: ClientConfig) -> Outcome:
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
                losses = _losses(site, r, packed, make_client(), {**config, "part": "ballot"})
                choice = ballot_of(*losses, site.settings.screening.ballot_gain)
        except SpoiledSum as spoiled:
            report_spoiled(site, view, r, spoiled, outcome)
            return outcome
        ballot = {"choice": choice, "salt": secrets.token_bytes(32).hex()}
        site.journal.put(key, ballot)
    commitment = ballot_commitment(r.number, site.address, int(ballot["choice"]), bytes.fromhex(str(ballot["salt"])))
    outcome.gas += site.ledger.cast_ballot(r.number, commitment).gas_used
    return outcome


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
    site: Site, view: LedgerView, r: RoundRecord, packed: Int64Array, make_client: ClientFactory, config: ClientConfig
) -> RoundOutcome:
    """What becomes of the round; the whole aggregate where there was no conflict.

    Raises:
      ProtocolError: ballots may still come in. Counted too early they could come to another outcome than the majority's.
    """
    if not r.split:
        return RoundOutcome.WHOLE
    if r.ballot_stage is not BallotStage.COUNTED:
        raise ProtocolError(
            f"round {r.number}: its ballots are not counted yet, but at {r.ballot_stage.name}; this site confirms nothing"
        )
    record = record_of(site, view, r, Outcome())
    ballots = {b.member: b.choice for b in site.ledger.ballots(r.number) if b.choice is not None}

    def anchor() -> RoundOutcome:
        """What this site's anchor data prefer; nothing where it has none."""
        client = make_client()
        if not has_anchor(client):
            # It would evaluate its own data, and every site come to another outcome.
            return RoundOutcome.NONE
        return anchor_choice(*_losses(site, r, packed, client, {**config, "part": "anchor"}))

    return outcome_of(record.decision, record.history, record.rules, ballots, anchor)


def model_after(site: Site, r: RoundRecord, packed: Int64Array, base: Model, chosen: RoundOutcome) -> Model:
    """The model that an outcome of the round gives."""
    if chosen is RoundOutcome.NONE:
        return base.at(r.number)
    return base.plus(mean_update(site, r, packed, base.parameters, chosen), r.number)


def _losses(
    site: Site, r: RoundRecord, packed: Int64Array, client: NumPyClient, config: ClientConfig
) -> tuple[float, float, float]:
    """Loss of this site's NumPyClient after the whole, the first and the second half, on the part of its data that config names.

    Raises:
      TrainingError: `evaluate` raised, or evaluates nothing: then this site has nothing to vote by, and does not.
    """
    base, who = base_model(site, r), f"site {site.me().index}, round {r.number}"

    def loss(candidate: RoundOutcome) -> float:
        """After this candidate; lower is better."""
        value, examples, _ = evaluated(client, model_after(site, r, packed, base, candidate), config, who)
        if not examples:
            raise TrainingError(f"{who}: evaluate says that it evaluated no example, so this site has nothing to vote by")
        return value

    return loss(RoundOutcome.WHOLE), loss(RoundOutcome.FIRST), loss(RoundOutcome.SECOND)


def _key(view: LedgerView, r: RoundRecord) -> tuple[str, int, str]:
    """Of one opening: after a struck quorum, sites vote anew."""
    return view.task.run_digest.hex(), r.number, f"ballot-{r.attempt}-{r.open_quorum:x}"
