"""Checking the coordinator and helping to open (paper step 11): judge and add again, attest, release one's share.

A share is computed only from bytes that this very site added up itself (protocol rule 5).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from bahefl_flwr.errors import ProtocolError, UnusableUpdate
from bahefl_flwr.he.ckks import add
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, decode_part
from bahefl_flwr.he.share_format import encode_share
from bahefl_flwr.he.threshold import partial_decrypt
from bahefl_flwr.records import ExclusionReason, LedgerView, Member, ObjectKind, RoundPhase, RoundRecord, members_in
from bahefl_flwr.sealing import seal, sealing_context
from bahefl_flwr.site.aggregates import aggregate_name, ciphertext_parts
from bahefl_flwr.site.coordination import keep_aggregate
from bahefl_flwr.site.keys import load_key_share
from bahefl_flwr.site.objects import keep, kept, kept_parts, put_kept, share_recipients
from bahefl_flwr.site.screening import Verdict, judge
from bahefl_flwr.site.spoiled import saw_spoiled
from bahefl_flwr.site.state import Outcome, Request, Site, expect_quorum, expect_round, security_params

_NO_REVEAL = bytes(32)


def verify_and_open(site: Site, request: Request) -> Outcome:
    """Recompute, vote, and if asked as part of the quorum, release this site's share of the decryption.

    Raises:
      UnusableUpdate: this site cannot read an included update; it does not vote until the owner has put it again.
    """
    view, r = expect_round(site, request, RoundPhase.VERIFY, RoundPhase.VERIFIED)
    outcome = Outcome()
    agrees = recompute_and_attest(site, view, r, outcome)
    if agrees and request.quorum >> site.me().index & 1:
        with outcome.timed("share"):
            _release_share(site, view, r, request.quorum, outcome)
    return outcome


def recompute_and_attest(site: Site, view: LedgerView, r: RoundRecord, outcome: Outcome) -> bool:
    """Whether the aggregate is the one this round's rules allow; said on the ledger, if this site committed and has not yet.

    Raises:
      UnusableUpdate: as `verify_and_open`.
    """
    me = site.me()
    with outcome.timed("verify"):
        agrees = _recompute(site, view, r, outcome)
    if not (r.voted_ok | r.voted_bad) >> me.index & 1 and r.committed >> me.index & 1:
        with outcome.timed("attest"):
            _attest(site, r, me, agrees, outcome)
    return agrees


def _recompute(site: Site, view: LedgerView, r: RoundRecord, outcome: Outcome) -> bool:
    """Whether the aggregate named on the ledger is the one that this round's rules allow.

    Checks:
      1. it holds at least as many updates as this site's own settings ask for: what hides a single one;
      2. it includes, weighs, leaves out and splits the updates as this site judges them itself;
      3. its bytes, the record of that judgement among them, are those that this site computes with numpy. The result is kept,
         so a lost aggregate can be put again.

    Raises:
      UnusableUpdate: an included update is missing or altered in the store, which is not the coordinator's word against
        anybody's: this site does not vote until the owner has put it again.
      SketchesClosed: this site cannot read the opened sketches, and cannot judge.
    """
    floor = site.settings.federation.min_sites
    if r.included.bit_count() < floor:  # 1
        return _disagree(outcome, r, f"it holds {r.included.bit_count()} updates, this site's settings ask for {floor}")
    mine = kept(site, r.number, aggregate_name(r.included, r.split))
    known = mine is not None and mine.digest == r.aggregate
    if known and r.voted_ok >> site.me().index & 1:
        return True
    verdict = judge(site, view, r, outcome)
    for m in members_in(r.included):
        if (reason := verdict.updates.unusable.get(m)) in (ExclusionReason.MISSING, ExclusionReason.CORRUPT):
            message = (
                f"round {r.number}: the update of site {m} is {reason.name.lower()} in the store; its owner must put it again"
            )
            raise UnusableUpdate(message, member=m, reason=reason)
    if complaint := _difference(r, verdict):  # 2
        return _disagree(outcome, r, complaint)
    if known:
        return True
    params = security_params(site.settings, view.epoch)
    manifest = keep_aggregate(site, view, r, verdict, lambda arrays, weights: add(arrays, weights, params), params)
    return manifest.digest == r.aggregate or _disagree(outcome, r, "its bytes are not the sum of the included updates")  # 3


def _difference(r: RoundRecord, verdict: Verdict) -> str:
    """What the ledger says of the aggregate and this site does not; empty if they agree."""
    if r.included != verdict.included or r.reasons != bytes(verdict.reasons.values()):
        reasons = {m: reason.name.lower() for m, reason in verdict.reasons.items()}
        left_out = members_in(r.committed & ~r.included)
        return f"it leaves out sites {left_out} for reasons {list(r.reasons)}, this site finds {reasons or 'no reason for any'}"
    if r.weights != bytes(verdict.weights.values()):
        return f"it weighs updates by {list(r.weights)}, this site by {list(verdict.weights.values())}"
    if r.split != verdict.split:
        return f"it sets sites {members_in(r.split)} apart, this site {members_in(verdict.split)}"
    return ""


def _disagree(outcome: Outcome, r: RoundRecord, why: str) -> bool:
    outcome.notes.append(f"round {r.number}: votes against the aggregate of site {r.coordinator}: {why}")
    return False


def _attest(site: Site, r: RoundRecord, me: Member, agrees: bool, outcome: Outcome) -> None:
    """Vote, and reveal one onion layer for the election: one layer a round, whatever the attempt."""
    reveal = _NO_REVEAL if r.revealed >> me.index & 1 else site.identity.onion.reveal(me.onion_anchor)
    outcome.gas += site.ledger.attest(r.number, r.aggregate, agrees, reveal).gas_used
    outcome.facts["agrees"] = int(agrees)


def _release_share(site: Site, view: LedgerView, r: RoundRecord, quorum: int, outcome: Outcome) -> None:
    """Seal this site's partial decryption to all active sites, name it on the ledger, put it. Repeats are the same bytes."""
    expect_quorum(site, view, r, quorum)
    _decrypt_once(site, view, r)
    me = site.me().index
    # One quorum may be asked for two aggregates of a round, the first of which was spoiled.
    name = f"share-{quorum:x}-{r.aggregate.hex()[:16]}"
    if any(s.member == me and s.quorum == quorum for s in site.ledger.shares(r.number)):
        put_kept(site, r.number, name)
        return
    manifest = kept(site, r.number, name) or keep(
        site, _sealed_share(site, view, r, quorum), run=view.task.run_digest, round=r.number, epoch=r.epoch,
        kind=ObjectKind.SHARE, owner=site.address, name=name,
    )  # fmt: skip
    # The ledger first: a share that can be read and is not named there would not keep a second aggregate from being made.
    outcome.gas += site.ledger.release_share(r.number, quorum, manifest.digest, r.aggregate).gas_used
    outcome.bytes["share"] = put_kept(site, r.number, name)


def _decrypt_once(site: Site, view: LedgerView, r: RoundRecord) -> None:
    """protocol rule 4: this site helps to open one aggregate of a round and no other, whatever the ledger or the driver say.

    But for spoiled ones that this very site opened. What it adds up after those is the same sum, by the same weights, without the
    updates that audits convicted (`screening.decide`): the difference shows only them.

    Raises:
      ProtocolError: it has released a share of another aggregate of this round.
    """
    run, action = view.task.run_digest.hex(), "share"
    while (recorded := site.journal.get((run, r.number, action))) and recorded["aggregate"] != r.aggregate.hex():
        former = recorded["aggregate"]
        if not any(r.spoiled) or not saw_spoiled(site, view, r, bytes.fromhex(former)):
            raise ProtocolError(
                f"round {r.number}: this site already helped to open aggregate {former[:16]}; the difference to "
                f"{r.aggregate.hex()[:16]} could show a single update, so it opens no second one"
            )
        action = f"share-after-{former}"
    site.journal.put((run, r.number, action), {"aggregate": r.aggregate.hex()})


def _sealed_share(site: Site, view: LedgerView, r: RoundRecord, quorum: int) -> Iterator[bytes]:
    params = security_params(site.settings, view.epoch)
    share = load_key_share(site, view.epoch)
    committee = members_in(view.epoch.committee)
    positions = tuple(committee.index(m) for m in members_in(quorum))
    recipients = share_recipients(site, view, r)
    context = sealing_context(kind=ObjectKind.SHARE, run=view.task.run_digest, round=r.number, epoch=r.epoch, sender=site.address)
    parts = kept_parts(site, r.number, aggregate_name(r.included, r.split))
    for part in islice(parts, ciphertext_parts(site, r, params)):
        ciphertexts = decode_part(part, PartKind.CIPHERTEXT, params, BLOCKS_PER_PART)
        partial = partial_decrypt(ciphertexts[:, 1], share, positions)
        yield seal(encode_share(partial, params), recipients, context)
