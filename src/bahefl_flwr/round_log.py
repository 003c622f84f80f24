"""Figures of a round as they come in from replies and the ledger, until its line for `metrics.jsonl` is complete.

The line of a round waits for the evaluation of its model, which sites do at the start of the next round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bahefl_flwr.records import (
    BallotRecord,
    ExclusionReason,
    Member,
    RoundOutcome,
    RoundPhase,
    RoundRecord,
    UpdateRecord,
    members_in,
    members_of,
)
from bahefl_flwr.replies import Numbers, Reply
from bahefl_flwr.run_folder import Pooled
from bahefl_flwr.steps import Action
from bahefl_flwr.untrusted_json import read_json

PHASES = {
    Action.TRAIN: "train",
    Action.UPLOAD: "upload",
    Action.SCREEN: "screen",
    Action.AGGREGATE: "aggregate",
    Action.OPEN: "verify",
    Action.CAST_BALLOT: "ballot",
    Action.REVEAL_BALLOT: "ballot",
    Action.CONFIRM: "open",
}
"""What the seconds of an action are booked under; those of others are no part of a round."""
_TRAIN_PHASES = ("open", "evaluate", "train", "encrypt", "commit")
_CHOICES = ("both", "first", "second")


@dataclass(slots=True)
class RoundFigures:
    """What one round has cost so far. Seconds are wall seconds of the driver; bytes and gas are sums over sites.

    Attributes:
      trained: each site's own training metrics; a round may ask for them more than once.
      train: their aggregate. pooled: of how many of them.
      screening: what the last coordinator that judged says it saw and decided (screening/summary.py). Of an aggregate its digest
        covers it; of one that could not be made, nobody has checked it.
    """

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    bytes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    gas: int = 0
    trained: dict[int, Numbers] = field(default_factory=dict)
    train: dict[str, float] = field(default_factory=dict)
    pooled: int = 0
    screening: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, phase: str, wall_s: float, replies: Mapping[int, Reply]) -> None:
        """Book a message phase: its wall time under `phase`, split by what the sites say they did where it is training."""
        answered = {member: r for member, r in replies.items() if r.ok}
        if phase == "train":
            self._split(wall_s, list(answered.values()))
            self.trained.update({member: r.metrics for member, r in answered.items()})
        else:
            self.seconds[phase] += wall_s
        for reply in replies.values():
            self._read_screening(reply)
        for member, reply in answered.items():
            self.gas += int(reply.bytes.get("gas", 0))
            for name in ("update", "sketch", "aggregate", "share"):
                # An update is made in `train` and sent in `upload`; it counts when it is sent.
                self.bytes[name] += int(reply.bytes.get(name, 0)) if phase != "train" else 0
            self.notes.extend(f"site {member}: {n}" for n in str(reply.facts.get("notes", "")).splitlines())

    def _read_screening(self, reply: Reply) -> None:
        """A claim for people to look at: what does not parse is left out."""
        try:
            shown = read_json(str(reply.facts.get("screening", "{}")).encode())
        except ValueError:
            return
        if isinstance(shown, dict) and shown:
            self.screening = shown

    def _split(self, wall_s: float, replies: list[Reply]) -> None:
        """Sites share the machine in a simulation, so wall time is dealt out in proportion to the sites' own seconds."""
        spent = {p: sum(float(r.seconds.get(p, 0.0)) for r in replies) for p in _TRAIN_PHASES}
        total = sum(spent.values())
        for phase, seconds in spent.items():
            if total:
                self.seconds[phase] += wall_s * seconds / total


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What the ledger says of a round that has ended, finalised or abandoned.

    Attributes:
      ballots: of a conflict round. end_reason: why its task was ended, "" where it was not.
    """

    round: RoundRecord
    members: Mapping[int, Member]
    updates: Sequence[UpdateRecord]
    ballots: Sequence[BallotRecord] = ()
    end_reason: str = ""


def round_line(
    ended: Ended,
    figures: RoundFigures,
    evaluation: Mapping[str, float | int],
    by_site: Mapping[int, Mapping[str, float | int]],
    validated: Pooled | None = None,
    *,
    restarted: bool = False,
) -> dict[str, Any]:
    """The line of `metrics.jsonl` for a round that has ended.

    Args:
      evaluation: figures of the opened model over all sites. by_site: the same per member index. validated: over how many.
      restarted: `figures` begin within the round.
    """
    committed = len(members_in(ended.round.committed))
    trained: Pooled | None = {"sites": figures.pooled, "of": max(committed, figures.pooled)} if figures.train else None
    return {
        **_who(ended),
        **_what_became(ended.round, figures),
        "begun": not _only_ends(ended),
        **_conflict(ended),
        **_spent(figures),
        "train": figures.train,
        "train_loss": figures.train.get("loss"),
        "validation": dict(evaluation),
        "sites": {str(member): dict(figures) for member, figures in sorted(by_site.items())},
        "pooled_over": {phase: p for phase, p in (("train", trained), ("validation", validated)) if p},
        "restarted": restarted,
        **_digests(ended),
        "notes": figures.notes,
    }


def _why_abandoned(r: RoundRecord, figures: RoundFigures) -> str:
    """The ledger's reason, and whom screening had left out if a coordinator got so far."""
    named = ", ".join(f"site {member} ({reason})" for member, reason in _claimed(r, figures).items())
    return f"{r.abort_reason}; screening left out {named}" if named else r.abort_reason


def _who(ended: Ended) -> dict[str, Any]:
    r = ended.round
    return {
        "round": r.number,
        "attempt": r.attempt,
        "epoch": r.epoch,
        "coordinator": {"index": r.coordinator, "address": ended.members[r.coordinator].address},
        "selected": list(members_in(r.selected)),
        "committed": list(members_in(r.committed)),
        "declined": list(members_in(r.declined)),
        "weights": {str(u.member): u.weight for u in ended.updates},
        "quorum": list(members_in(r.open_quorum)),
        "disputed": list(members_in(r.disputed)),
    }


def _what_became(r: RoundRecord, figures: RoundFigures) -> dict[str, Any]:
    """Of an abandoned round nothing became: whom it left out is the claim of the coordinator that could not make its sum."""
    abandoned = r.phase is RoundPhase.ABORTED
    outcome = RoundOutcome.NONE if abandoned else r.outcome
    return {
        "finalised": r.phase is RoundPhase.FINALIZED,
        "abandoned": _why_abandoned(r, figures) if abandoned else "",
        "included": list(members_in(members_of(r, outcome))),
        "excluded": _claimed(r, figures) if abandoned else _excluded(r),
        "outcome": outcome.name.lower(),
        "screening": figures.screening,
    }


def _only_ends(ended: Ended) -> bool:
    """Whether the round was open when its task was ended, and no site had answered: the ledger keeps the reason in it."""
    r = ended.round
    given_up = r.phase is RoundPhase.ABORTED and bool(ended.end_reason) and r.abort_reason == ended.end_reason
    return given_up and not r.committed | r.declined


def _excluded(r: RoundRecord) -> dict[str, str]:
    included = members_of(r, r.outcome)
    left_out = members_in(r.committed & ~r.included)
    reasons = {m: ExclusionReason(reason).name.lower() for m, reason in zip(left_out, r.reasons, strict=False)}
    outvoted = dict.fromkeys(members_in(r.included & ~included), "outvoted" if included else "held")
    return {str(m): reason for m, reason in sorted({**reasons, **outvoted}.items())}


def _claimed(r: RoundRecord, figures: RoundFigures) -> dict[str, str]:
    """What a coordinator says of sites that committed; of what is no reason, nothing."""
    claimed = figures.screening.get("reasons")
    reasons = claimed if isinstance(claimed, dict) else {}
    of_sites = {str(m): str(reasons.get(str(m))) for m in members_in(r.committed)}
    return {m: reason.lower() for m, reason in of_sites.items() if reason in ExclusionReason.__members__}


def _conflict(ended: Ended) -> dict[str, Any]:
    """The two halves, and what each site voted: `both`, `first`, `second`, or `kept back` where it did not show its ballot."""
    r = ended.round
    if not r.split:
        return {}
    votes = {b.member: "kept back" if b.choice is None else _CHOICES[b.choice] for b in ended.ballots}
    return {
        "halves": [list(members_in(r.included & ~r.split)), list(members_in(r.split))],
        "votes": {str(m): vote for m, vote in sorted(votes.items())},
    }


def _spent(figures: RoundFigures) -> dict[str, Any]:
    return {
        "seconds": {k: round(v, 3) for k, v in figures.seconds.items()} | {"total": round(sum(figures.seconds.values()), 3)},
        "bytes": dict(figures.bytes),
        "gas": {"total": figures.gas},
    }


def _digests(ended: Ended) -> dict[str, Any]:
    r = ended.round
    return {
        "update_digests": {str(u.member): u.digest.hex() for u in ended.updates},
        "aggregate_digest": r.aggregate.hex(),
        "model_digest": r.opened.hex() if any(r.opened) else "",
    }
