"""The arithmetic of contracts/Election.sol, again in Python: tickets, rankings and draws. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eth_utils.crypto import keccak

from bahefl_flwr.records import members_in

SCORE_MAX = 65_535
MAX_TICKETS = 16
RANKED = 3
_TICKET_SHIFT = 184
_FIELD_BITS = 80
# abi.encode(bytes32, "draw"): the text lies behind its offset and its length.
_DRAW = (64).to_bytes(32, "big") + (4).to_bytes(32, "big") + b"draw".ljust(32, b"\0")


def word(value: int) -> bytes:
    """A number as abi.encode writes it."""
    return value.to_bytes(32, "big")


def tickets(score: int) -> int:
    """1..16, linear in the score."""
    return 1 + score * (MAX_TICKETS - 1) // SCORE_MAX


def lowest_ticket(layer: bytes, salt: bytes, round: int, count: int) -> int:
    """The lowest of a member's `count` tickets in a round: 72 bits, never 0."""
    base = keccak(layer + salt + word(round))
    lowest = min(int.from_bytes(keccak(base + word(k)), "big") for k in range(count))
    return (lowest >> _TICKET_SHIFT) or 1


def screen_seed(round: int, entropy: bytes, digests: Sequence[bytes]) -> bytes:
    """What every update of a round is sketched with.

    Args:
      entropy: of the layers revealed when it was drawn, 32 bytes. digests: of all committed updates, by ascending member index.
    """
    # abi.encode(uint256, bytes32, bytes32[]): the list lies behind its offset and its length.
    return keccak(word(round) + entropy + word(3 * 32) + word(len(digests)) + b"".join(digests))


def packed(ranking: list[tuple[int, int]]) -> int:
    """A ranking (tickets and members, best first, at most three) as the contract stores it."""
    entries = [ticket << 8 | member for ticket, member in ranking]
    entries += [0] * (RANKED - len(entries))
    return entries[0] << 2 * _FIELD_BITS | entries[1] << _FIELD_BITS | entries[2]


def inserted(ranking: list[tuple[int, int]], ticket: int, member: int) -> list[tuple[int, int]]:
    """`ranking` with one more ticket, if it is among the best three."""
    return sorted([*ranking, (ticket, member)])[:RANKED]


def first_ranked(ranking: list[tuple[int, int]], pool: int) -> int | None:
    """The best ranked member of a pool (a mask)."""
    return next((member for _, member in ranking if pool >> member & 1), None)


def draw(scores: Mapping[int, int], pool: int, seed: bytes) -> int:
    """One member of a pool that is not empty, with a probability in proportion to its tickets."""
    weights = [(member, tickets(scores[member])) for member in members_in(pool)]
    point = int.from_bytes(keccak(seed + _DRAW), "big") % sum(weight for _, weight in weights)
    for member, weight in weights:
        if point < weight:
            return member
        point -= weight
    raise AssertionError("the point lies below the sum of the weights")
