"""The coordinator's work (paper steps 5-9): judge the updates, add ciphertexts, publish the aggregate.

The coordinator holds nothing that could open what it adds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from bahefl_flwr.errors import (
    BaheflError,
    LedgerUnreachable,
    ProtocolError,
    SketchesClosed,
    StoreError,
    StoreUnavailable,
    TooFewUpdates,
    UnusableUpdate,
)
from bahefl_flwr.he.ckks import TenSealAdder
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.seal_format import PartKind, encode_part
from bahefl_flwr.records import LedgerView, ObjectKind, RoundPhase, RoundRecord
from bahefl_flwr.site.aggregates import aggregate_name
from bahefl_flwr.site.objects import keep, put_kept
from bahefl_flwr.site.screening import Verdict, judge
from bahefl_flwr.site.state import Outcome, Request, Site, expect_round, security_params
from bahefl_flwr.site.updates import Ciphertexts, ciphertexts
from bahefl_flwr.store.manifest import Manifest

Adder = Callable[[Iterable[Ciphertexts], Sequence[int]], Ciphertexts]


def aggregate(site: Site, request: Request) -> Outcome:
    """Judge and add the committed updates, and put the aggregate on the ledger; on failure resign, so that nobody waits.

    Raises:
      ProtocolError: this site is not the round's coordinator. TooFewUpdates: too few are accepted.
      SketchesClosed, LedgerUnreachable, StoreError, StoreUnavailable, UnusableUpdate: something is missing or wrong that is not
        this site's; it resigns only at the last try.
    """
    view, r = expect_round(site, request, RoundPhase.AGGREGATE)
    if site.me().index != r.coordinator:
        raise ProtocolError(f"round {r.number}: site {r.coordinator} coordinates attempt {r.attempt}, not {site.address}")
    try:
        return _aggregate(site, view, r)
    except SketchesClosed:
        raise  # key holders are asked, or another quorum; at the deadline another coordinator
    except (LedgerUnreachable, StoreError, StoreUnavailable, UnusableUpdate) as error:
        if request.last_try:
            _resign(site, r, error)
        raise
    except BaheflError as error:
        _resign(site, r, error)
        raise
    except Exception as error:
        _resign(site, r, error)
        raise ProtocolError(f"round {r.number}: aggregation raised {type(error).__name__}: {error}") from error


def _aggregate(site: Site, view: LedgerView, r: RoundRecord) -> Outcome:
    outcome = Outcome()
    with outcome.timed("aggregate"):
        verdict = judge(site, view, r, outcome)
        shown = "" if verdict.shown is None else json.dumps(verdict.shown)
        if len(verdict.weights) < (floor := site.settings.federation.min_sites):
            why = "".join(f"; {note}" for note in outcome.notes)
            accepted = f"{len(verdict.weights)} updates accepted, {floor} needed"
            raise TooFewUpdates(f"round {r.number}: {accepted}; left out {_named(verdict)}{why}", shown)
        params = security_params(site.settings, view.epoch)
        manifest = keep_aggregate(site, view, r, verdict, TenSealAdder(params), params)
        outcome.bytes["aggregate"] = put_kept(site, r.number, aggregate_name(verdict.included, verdict.split))  # step 8
    with outcome.timed("submit"):
        outcome.gas += _submit(site, r, verdict, manifest)
    outcome.facts["digest"] = manifest.digest.hex()
    if shown:
        outcome.facts["screening"] = shown
    return outcome


def _submit(site: Site, r: RoundRecord, verdict: Verdict, manifest: Manifest) -> int:
    """Paper step 9; returns the gas used."""
    weights, reasons = bytes(verdict.weights.values()), bytes(verdict.reasons.values())
    receipt = site.ledger.submit_aggregate(
        r.number, manifest.digest, manifest.size_bytes, verdict.included, verdict.split, weights, reasons
    )
    return receipt.gas_used


def _resign(site: Site, r: RoundRecord, error: Exception) -> None:
    """Only the kind of error goes on the ledger: a message could hold a file name."""
    site.ledger.resign(r.number, type(error).__name__)


def keep_aggregate(
    site: Site, view: LedgerView, r: RoundRecord, verdict: Verdict, adder: Adder, params: SecurityParams
) -> Manifest:
    """Make and keep the aggregate of a verdict. Its manifest names the contract, so every coordinator's has the same digest.

    Raises:
      UnusableUpdate: a part of an update is missing or altered by now; names the member.
    """
    return keep(
        site, _aggregate_parts(site, verdict, adder, params), run=view.task.run_digest, round=r.number, epoch=r.epoch,
        kind=ObjectKind.AGGREGATE, owner=site.ledger.address, name=aggregate_name(verdict.included, verdict.split),
    )  # fmt: skip


def _aggregate_parts(site: Site, verdict: Verdict, adder: Adder, params: SecurityParams) -> Iterator[bytes]:
    """Paper step 7: each weighted sum, part by part, so memory does not grow with the number of sites; then the record."""
    updates = verdict.updates
    for members in verdict.sums:
        weights = [verdict.weights[m] for m in members]
        for i, blocks in enumerate(updates.part_blocks):
            arrays = (ciphertexts(site, m, updates.sound[m], i, blocks, params) for m in members)
            yield encode_part(adder(arrays, weights), PartKind.CIPHERTEXT, params)
    if verdict.record:
        yield verdict.record


def _named(verdict: Verdict) -> str:
    return ", ".join(f"site {m} ({reason.name.lower()})" for m, reason in verdict.reasons.items()) or "nobody"
