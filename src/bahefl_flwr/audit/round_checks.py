"""Checks 3, 4, 7 and 9: who did what on the ledger, in which order, and whether it was theirs to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from bahefl_flwr.audit.attempt import Attempt, needed_votes, next_attempt
from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.evidence import Evidence, RoundEvidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.ledger.history import Event
from bahefl_flwr.records import ExclusionReason, RoundPhase, RoundRecord, mask_of, members_in
from bahefl_flwr.store.manifest import manifest_cid

_MOST_WEIGHT = 8
_LEAST_HALF = 3
_NO_DIGEST = bytes(32)
# Event: which of its values is the member that acted.
_ACTS = {
    "UpdateCommitted": "member",
    "Declined": "member",
    "AggregateSubmitted": "coordinator",
    "Resigned": "coordinator",
    "LayerRevealed": "member",
    "SketchReleased": "member",
    "Attested": "member",
    "ShareReleased": "member",
    "BallotCast": "member",
    "BallotRevealed": "member",
    "Confirmed": "member",
    "CeremonyStep": "member",
    "Accused": "accuser",
}
_REASONS = {int(reason) for reason in ExclusionReason}


def membership(case: Case) -> Iterator[Finding]:
    """3. Every act is by a member that was whitelisted, registered and not suspended at that time, in its own transaction."""
    evidence = case.evidence
    allowed: set[str] = set()
    active: set[str] = set()
    for event in evidence.events:
        who = str(event.values.get("member", ""))
        if event.name == "Whitelisted":
            allowed.add(who)
        elif event.name == "Registered":
            if who not in allowed:
                yield _act(evidence, event, who, "registered without having been whitelisted")
            active.add(who)
        elif event.name == "Suspended":
            active.discard(who)
        elif event.name == "Reinstated":
            active.add(who)
        elif event.name in _ACTS and _asked(case, event):
            actor = str(event.values[_ACTS[event.name]])
            if actor not in active:
                yield _act(evidence, event, actor, f"{event.name}: was no active member of the federation then")
            if event.sent.sender != actor:
                yield _act(evidence, event, actor, f"{event.name}: the transaction was signed by {event.sent.sender}")


def commitments(case: Case) -> Iterator[Finding]:
    """4. One commitment per site and round, by a selected site, before commits closed; no update is included twice, ever."""
    evidence = case.evidence
    first: dict[bytes, Event] = {}
    for event in evidence.events:
        if event.name == "UpdateCommitted":
            before = first.setdefault(event.values["digest"], event)
            if before is not event and _asked(case, event) and _included(evidence, event):
                message = f"committed the digest of round {before.values['round']} by {before.values['member']} again"
                yield _act(evidence, event, event.values["member"], message, manifest_cid(event.values["digest"]))
    for r in case.rounds():
        yield from _commitments(evidence, r)


def _commitments(evidence: Evidence, r: RoundEvidence) -> Iterator[Finding]:
    record, number = r.record, r.record.number
    by_site: defaultdict[int | None, list[Event]] = defaultdict(list)
    closed = False
    for event in evidence.of_round(number, "UpdateCommitted", "CommitsClosed"):
        if event.name == "CommitsClosed":
            closed = True
            continue
        index = evidence.index_of(event.values["member"])
        by_site[index].append(event)
        if closed:
            yield Finding(round=number, site=index, message="committed after commits had closed")
        if len(by_site[index]) == 2:
            yield Finding(round=number, site=index, message="committed more than once")
    seen = mask_of(i for i in by_site if i is not None)
    if seen != record.committed:
        yield Finding(
            round=number, message=f"sites {members_in(seen)} committed, the ledger counts {members_in(record.committed)}"
        )
    if strangers := record.committed & ~record.selected:
        yield Finding(round=number, message=f"sites {members_in(strangers)} committed without having been selected")
    yield from _updates(evidence, r, by_site)


def _updates(evidence: Evidence, r: RoundEvidence, by_site: Mapping[int | None, list[Event]]) -> Iterator[Finding]:
    number = r.record.number
    for u in r.updates:
        stated = {e.values["digest"] for e in by_site.get(u.member, [])}
        cid = manifest_cid(u.digest)
        if stated and u.digest not in stated:
            yield Finding(round=number, site=u.member, object=cid, message="the ledger holds another digest than was committed")
        if not 1 <= u.weight <= evidence.members[u.member].max_weight:
            most = evidence.members[u.member].max_weight
            yield Finding(round=number, site=u.member, object=cid, message=f"weight {u.weight} is not in 1..{most}")


def inclusions(case: Case) -> Iterator[Finding]:
    """7. An aggregate holds committed updates only, enough of them, each with a weight 1..8, and says why others are left out."""
    for r in case.rounds():
        record, number = r.record, r.record.number
        if record.aggregate == _NO_DIGEST:
            continue
        submitted = list(case.evidence.of_round(number, "AggregateSubmitted"))
        stated = [tuple(e.values[name] for name in ("digest", "included", "split", "attempt")) for e in submitted[-1:]]
        least = case.evidence.rules_at(submitted[-1]).min_commits if submitted else 0
        left_out = record.committed & ~record.included
        for holds, message in (
            (stated == [(record.aggregate, record.included, record.split, record.attempt)],
             "the aggregate is not the one last submitted"),
            (not record.included & ~record.committed,
             f"includes sites {members_in(record.included & ~record.committed)}, which did not commit"),
            (record.included.bit_count() >= least, f"holds {record.included.bit_count()} updates, fewer than {least}"),
            (not record.split or _halves_hide(record, least),
             f"splits {members_in(record.included)} at {members_in(record.split)}"),
            (len(record.weights) == record.included.bit_count() and all(1 <= w <= _MOST_WEIGHT for w in record.weights),
             f"weights {list(record.weights)} for sites {members_in(record.included)}"),
            (len(record.reasons) == left_out.bit_count() and set(record.reasons) <= _REASONS,
             f"reasons {list(record.reasons)} for leaving out sites {members_in(left_out)}"),
        ):  # fmt: skip
            if not holds:
                cid = manifest_cid(record.aggregate)
                yield Finding(round=number, site=record.coordinator, object=cid, message=f"the aggregate: {message}")


def _halves_hide(record: RoundRecord, least: int) -> bool:
    """Whether each half of an aggregate has enough updates in it that none shows."""
    halves = (record.split, record.included & ~record.split)
    return not record.split & ~record.included and min(map(int.bit_count, halves)) >= max(_LEAST_HALF, least)


def votes(case: Case) -> Iterator[Finding]:
    """9. Every verified aggregate has the votes of a majority of the sites that committed, and the ledger counts the same."""
    for r in case.rounds():
        yield from _votes(case.evidence, r)


def _votes(evidence: Evidence, r: RoundEvidence) -> Iterator[Finding]:
    record, number, attempt = r.record, r.record.number, None
    for event in evidence.of_round(number):
        attempt = next_attempt(attempt, event)
        if event.name == "Attested" and attempt is not None:
            yield from _vote(evidence, record.committed, attempt, event)
        if event.name == "AggregateVerified":
            yield from _majority(evidence, event, record.committed, attempt)
    last = attempt if attempt and attempt.number == record.attempt else Attempt(number=record.attempt, digest=_NO_DIGEST)
    counted, told = (record.voted_ok, record.voted_bad), (last.voted(ok=True), last.voted(ok=False))
    if counted != told:
        says = " and ".join(str(members_in(mask)) for mask in counted)
        yield Finding(round=number, message=f"the ledger counts votes for and against by {says}; attested have "
                                            f"{members_in(told[0])} and {members_in(told[1])}")  # fmt: skip
    settled = record.phase in (RoundPhase.VERIFIED, RoundPhase.FINALIZED)
    if settled and not last.verified:
        yield Finding(round=number, object=manifest_cid(record.aggregate), message="was settled without ever being verified")


def _vote(evidence: Evidence, committed: int, attempt: Attempt, event: Event) -> Iterator[Finding]:
    index, number = evidence.index_of(event.values["member"]), event.values["round"]
    if index is None or not committed >> index & 1:
        yield Finding(round=number, site=index, message="voted without having committed an update")
        return
    if index in attempt.votes:
        yield Finding(round=number, site=index, message=f"voted twice on attempt {attempt.number}")
    attempt.votes[index] = event.values["ok"]


def _majority(evidence: Evidence, event: Event, committed: int, attempt: Attempt | None) -> Iterator[Finding]:
    number, digest = event.values["round"], event.values["digest"]
    votes = attempt.voted(ok=True).bit_count() if attempt else 0
    needed = needed_votes(committed, evidence.rules_at(event).quorum_bps)
    if attempt is None or attempt.digest != digest:
        yield Finding(round=number, object=manifest_cid(digest), message="was verified, but another aggregate was submitted")
    elif votes < needed:
        message = f"was verified with {votes} votes of {committed.bit_count()} sites, {needed} are a majority"
        yield Finding(round=number, object=manifest_cid(digest), message=message)
    if attempt is not None:
        attempt.verified = True


def _included(evidence: Evidence, event: Event) -> bool:
    """Whether a committed update became part of its round's aggregate; a copied digest that was left out did no harm."""
    index, record = evidence.index_of(event.values["member"]), evidence.rounds[event.values["round"] - 1].record
    return index is not None and bool(record.included >> index & 1)


def _asked(case: Case, event: Event) -> bool:
    return case.judges(event.values.get("round"))


def _act(evidence: Evidence, event: Event, who: str, message: str, object: str = "") -> Finding:
    index = evidence.index_of(who)
    text = message if index is not None else f"{who} {message}"
    return Finding(round=event.values.get("round"), site=index, object=object, message=text)
