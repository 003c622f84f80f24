"""One aggregate of a round, as the events tell of it: votes, releases of shares, confirmations of what they open."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from bahefl_flwr.ledger.history import Event
from bahefl_flwr.records import mask_of


@dataclass(slots=True)
class Attempt:
    """What has happened to the aggregate so far. A member None is a stranger, whom check 3 names.

    Attributes:
      quorums: for each quorum (a mask) the members that released shares for it.
      spoiled: whether a majority found the opened sum out of its range.
      disputed: key holders whose shares were found wrong in this round.
    """

    number: int
    digest: bytes
    votes: dict[int | None, bool] = field(default_factory=dict)
    verified: bool = False
    spoiled: bool = False
    quorums: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    disputed: int = 0

    def voted(self, *, ok: bool) -> int:
        """Mask of those that voted so."""
        return mask_of(i for i, vote in self.votes.items() if vote is ok and i is not None)

    @property
    def opened(self) -> bool:
        """Whether some quorum has released all its shares."""
        return any(quorum == released for quorum, released in self.quorums.items())


def next_attempt(attempt: Attempt | None, event: Event) -> Attempt | None:
    """The attempt an event belongs to: each submitted aggregate starts one."""
    if event.name == "AggregateSubmitted":
        return Attempt(number=event.values["attempt"], digest=event.values["digest"])
    return attempt


def needed_votes(committed: int, quorum_bps: int) -> int:
    """Votes of the committed sites (a mask) that settle something, as the contract rounds them."""
    return -(-committed.bit_count() * quorum_bps // 10_000)
