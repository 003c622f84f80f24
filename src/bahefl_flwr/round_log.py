"""Figures of a round as they come in from replies and the ledger, until its line for `metrics.jsonl` is complete.

The line of a round waits for the evaluation of its model, which sites do at the start of the next round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bahefl_flwr.records import ExclusionReason, Member, RoundPhase, RoundRecord, UpdateRecord, mask_of, members_in, members_of
from bahefl_flwr.replies import Numbers, Reply
from bahefl_flwr.untrusted_json import read_json

_TRAIN_PHASES = ("open", "evaluate", "train", "encrypt", "commit")


@dataclass(slots=True)
class RoundFigures:
    """What one round has cost so far. Seconds are wall seconds of the driver; bytes and gas are sums over sites.

    Attributes:
      trained: each site's own training metrics; a round may ask for them more than once.
      train: their aggregate.
      screening: what the coordinator says it saw and decided (screening/summary.py); its digest is in the aggregate's.
    """

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    bytes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    gas: int = 0
    trained: dict[int, Numbers] = field(default_factory=dict)
    train: dict[str, float] = field(default_factory=dict)
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
        for member, reply in answered.items():
            self.gas += int(reply.bytes.get("gas", 0))
            self._read_screening(reply)
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


def round_line(
    r: RoundRecord,
    figures: RoundFigures,
    members: Mapping[int, Member],
    updates: Iterable[UpdateRecord],
    evaluation: Mapping[str, float | int],
    by_site: Mapping[int, Mapping[str, float | int]],
) -> dict[str, Any]:
    """The line of `metrics.jsonl` for a round that has ended, finalised or abandoned.

    Args:
      evaluation: figures of the opened model over all sites. by_site: the same per member index.
    """
    included = members_in(members_of(r, r.outcome))
    left_out = members_in(r.committed & ~r.included)
    reasons = {m: ExclusionReason(reason).name.lower() for m, reason in zip(left_out, r.reasons, strict=False)}
    outvoted = dict.fromkeys(members_in(r.included & ~mask_of(included)), "outvoted" if included else "held")
    return {
        "round": r.number,
        "finalised": r.phase is RoundPhase.FINALIZED,
        "abandoned": r.abort_reason if r.phase is RoundPhase.ABORTED else "",
        "attempt": r.attempt,
        "epoch": r.epoch,
        "coordinator": {"index": r.coordinator, "address": members[r.coordinator].address},
        "selected": list(members_in(r.selected)),
        "committed": list(members_in(r.committed)),
        "declined": list(members_in(r.declined)),
        "included": list(included),
        "excluded": {str(m): reason for m, reason in sorted({**reasons, **outvoted}.items())},
        "outcome": r.outcome.name.lower(),
        "screening": figures.screening,
        "weights": {str(u.member): u.weight for u in updates},
        "quorum": list(members_in(r.open_quorum)),
        "disputed": list(members_in(r.disputed)),
        "train": figures.train,
        "train_loss": figures.train.get("loss"),
        "validation": dict(evaluation),
        "sites": {str(member): dict(figures) for member, figures in sorted(by_site.items())},
        "seconds": {k: round(v, 3) for k, v in figures.seconds.items()} | {"total": round(sum(figures.seconds.values()), 3)},
        "bytes": dict(figures.bytes),
        "gas": {"total": figures.gas},
        "update_digests": {str(u.member): u.digest.hex() for u in updates},
        "aggregate_digest": r.aggregate.hex(),
        "model_digest": r.opened.hex() if any(r.opened) else "",
        "notes": figures.notes,
    }
