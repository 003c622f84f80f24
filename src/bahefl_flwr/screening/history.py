"""What accepted rounds left behind: public, the same at every site, and part of every screening record. Only data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from bahefl_flwr.screening.fixed_point import ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Running figures of the accepted rounds; numbers are multiples of 2^-20.

    Attributes:
      norm: usual norm of an accepted update; None before the first.
      alignment: usual alignment of accepted updates with the history; None before the second accepted round.
      spread: usual separation of the best split while nobody attacks; None before the first such round.
      reputation: of each member whose reputation is not full, 0..2^20.
      garbage: mask of members whose update an audit proved to be out of range.
      rounds: accepted rounds.
    """

    norm: int | None
    alignment: int | None
    spread: int | None
    reputation: Mapping[int, int]
    garbage: int
    rounds: int

    @classmethod
    def empty(cls) -> Self:
        """Before the first round."""
        return cls(norm=None, alignment=None, spread=None, reputation={}, garbage=0, rounds=0)

    def reputation_of(self, member: int) -> int:
        """0..2^20; full for whoever was never left out."""
        return self.reputation.get(member, ONE)
