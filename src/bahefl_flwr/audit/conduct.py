"""Members and rounds as a recount of the events follows them, and what a round's conduct costs (contracts/Succession.sol)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import IntEnum

from bahefl_flwr.audit.lottery import SCORE_MAX
from bahefl_flwr.records import ExclusionReason, RoundOutcome

_INITIAL = 32_768
_EXCLUDED, _SILENT, _ABSENT, _SERVED = 4, 8, 16, 8
_PROVED = (ExclusionReason.MISSING, ExclusionReason.CORRUPT, ExclusionReason.MALFORMED, ExclusionReason.GARBAGE)
_ZERO = bytes(32)


class Stage(IntEnum):
    """How far a round is, as far as elections depend on it."""

    COMMIT = 0
    LATER = 1
    VERIFIED = 2
    OVER = 3


@dataclass(slots=True)
class Standing:
    """A member: the next layer of its onion, its score, its terms of office."""

    index: int
    anchor: bytes
    salt_round: int
    score: int = _INITIAL
    last_coordinated: int = 0
    coordinated: int = 0
    faults: int = 0

    def lose(self, part: int) -> None:
        """One part of its score."""
        self.score -= self.score // part


@dataclass(slots=True)
class Course:
    """A round. Masks have one bit per member index.

    Attributes:
      digests: of the committed updates, by member. voted: on the present aggregate.
      screened: whether the task's updates are judged by their sketches.
      seed: of the screening, zero before it is drawn. sketches: for each quorum (a mask) the members that named their part.
    """

    number: int
    coordinator: int
    selected: int
    screened: bool = False
    beacon: bytes = _ZERO
    phase: Stage = Stage.COMMIT
    committed: int = 0
    declined: int = 0
    digests: dict[int, bytes] = field(default_factory=dict)
    included: int = 0
    split: int = 0
    outcome: RoundOutcome = RoundOutcome.WHOLE
    voted: int = 0
    failed: int = 0
    revealed: int = 0
    seed: bytes = _ZERO
    sketches: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    entropy: int = 0
    ranking: list[tuple[int, int]] = field(default_factory=list)

    @property
    def unscreened(self) -> bool:
        """Whether the coordinator waits for the others: no quorum has named all parts of the sketches yet."""
        return self.screened and all(quorum != released for quorum, released in self.sketches.items())


def settle(r: Course, m: Standing, reason: int) -> None:
    """The score of a member that was selected and did not decline, once a round is finalised.

    Args:
      reason: why its update is not in the aggregate, 0 if it is or if there is none.
    """
    taken_up = {RoundOutcome.WHOLE: r.included, RoundOutcome.FIRST: r.included & ~r.split, RoundOutcome.SECOND: r.split}.get(
        r.outcome, 0
    )
    if not r.committed >> m.index & 1:
        m.lose(_ABSENT)
    elif reason in _PROVED:
        m.lose(_EXCLUDED)
    elif not taken_up >> m.index & 1:
        pass  # what screening found, or the sites' vote, is no fault
    elif not r.voted >> m.index & 1:
        m.lose(_SILENT)
    else:
        m.score += (SCORE_MAX - m.score) // _SERVED
