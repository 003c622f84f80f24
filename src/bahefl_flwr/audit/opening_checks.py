"""Checks 11 and 12: who released shares of what and when, and who confirmed what they open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bahefl_flwr.audit.attempt import Attempt, needed_votes, next_attempt
from bahefl_flwr.audit.case import Case
from bahefl_flwr.audit.evidence import Evidence, RoundEvidence
from bahefl_flwr.audit.finding import Finding
from bahefl_flwr.ledger.history import Event
from bahefl_flwr.records import BallotStage, RoundOutcome, RoundPhase, RoundRecord, members_in
from bahefl_flwr.store.manifest import manifest_cid

_NO_DIGEST = bytes(32)


def decryptions(case: Case) -> Iterator[Finding]:
    """11. Shares come from key holders, after their own vote or the verification; one aggregate per round is opened.

    A holder that committed an update must have attested the very aggregate; one that did not, waits for the majority. No share
    is made for a quorum with a holder whose share was found wrong before. An aggregate that a majority found out of its range
    does not count: screening proves whose updates are to blame, and the difference to the next one shows only those.
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
            attempt.spoiled |= event.name == "RoundSpoiled"
            opened = opened - {attempt.number} | ({attempt.number} if attempt.opened and not attempt.spoiled else set())
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
    """12. Every finalised round's model was named by a majority of the sites that committed, all from one quorum's shares.

    They agree on what it takes up, too: everything, unless the aggregate has two halves and the sites have voted on them. So they
    do on an aggregate that they refuse.
    """
    for r in case.rounds():
        yield from _confirmations(case.evidence, r)


@dataclass(slots=True)
class _Opening:
    """What has been said of the present aggregate's opening. A result is a digest, and what it takes up."""

    split: int = 0
    quorum: int = 0
    stage: int = 0
    cast: set[int | None] = field(default_factory=set)
    shown: set[int | None] = field(default_factory=set)
    named: dict[int | None, tuple[bytes, int]] = field(default_factory=dict)
    settled: tuple[bytes, int] = (_NO_DIGEST, RoundOutcome.WHOLE)


def _confirmations(evidence: Evidence, r: RoundEvidence) -> Iterator[Finding]:
    record, number, opening = r.record, r.record.number, _Opening()
    for event in evidence.of_round(number):
        opening = _followed(opening, event)
        if event.name in ("BallotCast", "BallotRevealed"):
            yield from _ballot(evidence, record.committed, opening, event)
        elif event.name == "Confirmed":
            yield from _confirmation(evidence, record.committed, opening, event)
        elif event.name == "OpeningConfirmed":
            yield from _settled(evidence, record, opening, event, opening.settled)
        elif event.name == "RoundSpoiled":
            yield from _settled(evidence, record, opening, event, (event.values["positions"], RoundOutcome.SPOILED))
        elif event.name == "RoundFinalized" and opening.settled[0] == _NO_DIGEST:
            yield Finding(round=number, message="was finalised without a confirmed model")
    stated = record.opened, record.outcome
    if record.phase is RoundPhase.FINALIZED and stated != opening.settled:
        message = f"the ledger names model {_shown(stated)}; confirmed was {_shown(opening.settled)}"
        yield Finding(round=number, message=message)


def _followed(opening: _Opening, event: Event) -> _Opening:
    """A new aggregate, or a struck quorum, begins anew."""
    if event.name == "AggregateSubmitted":
        return _Opening(split=event.values["split"])
    if event.name == "QuorumStruck":
        return _Opening(split=opening.split)
    if event.name == "QuorumOpened":
        opening.quorum = event.values["quorum"]
    elif event.name == "BallotStageBegun":
        opening.stage = event.values["stage"]
    elif event.name == "OpeningConfirmed":
        opening.settled = event.values["model"], event.values["outcome"]
    return opening


def _confirmation(evidence: Evidence, committed: int, opening: _Opening, event: Event) -> Iterator[Finding]:
    index, number = evidence.index_of(event.values["member"]), event.values["round"]
    if index is None or not committed >> index & 1:
        yield Finding(round=number, site=index, message="confirmed a model without having committed an update")
        return
    if event.values["quorum"] != opening.quorum:
        message = f"confirmed what quorum {members_in(event.values['quorum'])} opens; open is {members_in(opening.quorum)}"
        yield Finding(round=number, site=index, message=message)
    if index in opening.named:
        yield Finding(round=number, site=index, message="confirmed twice")
    opening.named[index] = event.values["model"], event.values["outcome"]


def _settled(
    evidence: Evidence, record: RoundRecord, opening: _Opening, event: Event, result: tuple[bytes, int]
) -> Iterator[Finding]:
    """A result needs a majority; a part of an aggregate, ballots; and no model at all, the one from before."""
    (model, outcome), number = result, record.number
    votes = sum(each == result for each in opening.named.values())
    needed = needed_votes(record.committed, evidence.rules_at(event).quorum_bps)
    if votes < needed:
        message = f"model {model.hex()} was taken with {votes} confirmations of {needed} needed"
        yield Finding(round=number, message=message)
    if outcome == RoundOutcome.SPOILED:
        return
    if opening.split and opening.stage != BallotStage.COUNTED:
        yield Finding(round=number, message="one of two halves was chosen before the ballots were counted")
    if (not opening.split and outcome != RoundOutcome.WHOLE) or (outcome == RoundOutcome.NONE and model != record.base):
        yield Finding(round=number, message=f"the outcome {RoundOutcome(outcome).name} does not fit the aggregate")


def _ballot(evidence: Evidence, committed: int, opening: _Opening, event: Event) -> Iterator[Finding]:
    """Ballots are cast once, by sites that committed, and shown once, when casting is over."""
    index, number, shows = evidence.index_of(event.values["member"]), event.values["round"], event.name == "BallotRevealed"
    done, stage = (opening.shown, BallotStage.REVEAL) if shows else (opening.cast, BallotStage.CAST)
    entitled = index in opening.cast if shows else index is not None and committed >> index & 1
    if not entitled or index in done or opening.stage != stage:
        yield Finding(round=number, site=index, message=f"{event.name}: not this site's to do, or not then")
    done.add(index)


def _shown(result: tuple[bytes, int]) -> str:
    return f"{result[0].hex()} ({RoundOutcome(result[1]).name})"
