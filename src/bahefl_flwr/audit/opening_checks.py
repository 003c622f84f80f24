"""Checks 11 and 12: who released shares of what and when, and who confirmed what they open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from bahefl_flwr.audit.attempt import Attempt, needed_votes, next_attempt
from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.evidence import Evidence, RoundEvidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.ledger.history import Event
from bahefl_flwr.records import RoundPhase, members_in
from bahefl_flwr.store.manifest import manifest_cid

_NO_DIGEST = bytes(32)


def decryptions(case: Case) -> Iterator[Finding]:
    """11. Shares come from key holders, after their own vote or the verification; one aggregate per round is opened.

    A holder that committed an update must have attested the very aggregate; one that did not, waits for the majority. No share
    is made for a quorum with a holder whose share was found wrong before.
    """
    for r in case.rounds():
        yield from _decryptions(case.evidence, r)


def _decryptions(evidence: Evidence, r: RoundEvidence) -> Iterator[Finding]:
    record, number, attempt, disputed = r.record, r.record.number, None, 0
    opened: set[int] = set()
    for event in evidence.of_round(number):
        attempt = next_attempt(attempt, event)
        if event.name == "QuorumStruck":
            disputed |= 1 << (evidence.index_of(event.values["culprit"]) or 0)
        if event.name == "RoundFinalized" and not (attempt and attempt.verified and attempt.opened):
            yield Finding(round=number, message="was finalised without a verified aggregate and a complete quorum of shares")
        if event.name == "ShareReleased" and attempt is None:
            yield _share(evidence, event, "released a share before there was an aggregate")
        if attempt is not None:
            attempt.disputed = disputed
            yield from _follow(evidence, r, attempt, event)
            opened |= {attempt.number} if attempt.opened else set()
    if len(opened) > 1:
        yield Finding(
            round=number, message=f"the aggregates of attempts {sorted(opened)} were opened; their difference shows updates"
        )
    if record.open_quorum and (attempt is None or attempt.quorums.get(record.open_quorum) != record.open_quorum):
        message = f"the ledger names quorum {members_in(record.open_quorum)} as complete; not all of them released a share"
        yield Finding(round=number, message=message)


def _follow(evidence: Evidence, r: RoundEvidence, attempt: Attempt, event: Event) -> Iterator[Finding]:
    if event.name == "Attested":
        attempt.votes[evidence.index_of(event.values["member"])] = event.values["ok"]
    elif event.name == "AggregateVerified":
        attempt.verified = True
    elif event.name == "ShareReleased":
        yield from _release(evidence, r, attempt, event)


def _release(evidence: Evidence, r: RoundEvidence, attempt: Attempt, event: Event) -> Iterator[Finding]:
    quorum, index = event.values["quorum"], evidence.index_of(event.values["member"])
    epoch = evidence.epoch_of(r.record.epoch).record
    if index is None:
        return  # check 3 tells
    bit = 1 << index
    committed = r.record.committed & bit
    entitled = attempt.votes.get(index) is True if committed else attempt.verified
    fits = not quorum & ~epoch.committee and quorum.bit_count() == epoch.threshold and quorum & bit
    if not epoch.committee & bit:
        yield _share(evidence, event, f"released a share, but holds no key of epoch {epoch.epoch}")
    elif not fits:
        of = f"{epoch.threshold} members of {members_in(epoch.committee)} are a quorum"
        yield _share(evidence, event, f"released a share for {members_in(quorum)}: {of}")
    if quorum & attempt.disputed:
        yield _share(
            evidence, event, f"released a share for a quorum with disputed holders {members_in(quorum & attempt.disputed)}"
        )
    if not entitled:
        why = "its own vote for" if committed else "the verification of"
        yield _share(evidence, event, f"released a share before {why} the aggregate")
    attempt.quorums[quorum] |= bit


def _share(evidence: Evidence, event: Event, message: str) -> Finding:
    index = evidence.index_of(event.values["member"])
    return Finding(round=event.values["round"], site=index, object=manifest_cid(event.values["digest"]), message=message)


def confirmed_openings(case: Case) -> Iterator[Finding]:
    """12. Every finalised round's model was named by a majority of the sites that committed, all from one quorum's shares."""
    for r in case.rounds():
        yield from _confirmations(case.evidence, r)


def _confirmations(evidence: Evidence, r: RoundEvidence) -> Iterator[Finding]:
    record, number = r.record, r.record.number
    quorum, opened = 0, _NO_DIGEST
    named: dict[int | None, bytes] = {}
    for event in evidence.of_round(number):
        if event.name in ("QuorumStruck", "AggregateSubmitted"):
            quorum, opened, named = 0, _NO_DIGEST, {}
        elif event.name == "QuorumOpened":
            quorum = event.values["quorum"]
        elif event.name == "Confirmed":
            yield from _confirmation(evidence, record.committed, quorum, named, event)
        elif event.name == "OpeningConfirmed":
            opened = event.values["model"]
            votes, needed = _votes(named, opened), needed_votes(record.committed, evidence.rules_at(event).quorum_bps)
            if votes < needed:
                message = f"model {opened.hex()} was taken with {votes} confirmations of {needed} needed"
                yield Finding(round=number, message=message)
        elif event.name == "RoundFinalized" and opened == _NO_DIGEST:
            yield Finding(round=number, message="was finalised without a confirmed model")
    if record.phase is RoundPhase.FINALIZED and record.opened != opened:
        yield Finding(round=number, message=f"the ledger names model {record.opened.hex()}; confirmed was {opened.hex()}")


def _confirmation(
    evidence: Evidence, committed: int, quorum: int, named: dict[int | None, bytes], event: Event
) -> Iterator[Finding]:
    index, number = evidence.index_of(event.values["member"]), event.values["round"]
    if index is None or not committed >> index & 1:
        yield Finding(round=number, site=index, message="confirmed a model without having committed an update")
        return
    if event.values["quorum"] != quorum:
        message = f"confirmed what quorum {members_in(event.values['quorum'])} opens; open is {members_in(quorum)}"
        yield Finding(round=number, site=index, message=message)
    if index in named:
        yield Finding(round=number, site=index, message="confirmed twice")
    named[index] = event.values["model"]


def _votes(named: dict[int | None, bytes], model: bytes) -> int:
    counts: defaultdict[bytes, int] = defaultdict(int)
    for each in named.values():
        counts[each] += 1
    return counts[model]
