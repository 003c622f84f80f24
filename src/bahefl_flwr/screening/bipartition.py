"""Rule f: the split of the sites into two camps that differ most. Integers only; ties go to the lowest member indices.

Up to 16 sites every split is tried. Beyond, a greedy search from every site finds camps that stand out; it may miss the very best
of many similar splits, but it misses it alike on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

EXHAUSTIVE_UP_TO: Final = 16
# Splits compare in units of 2^-30; sums for 255 sites then stay below 2^61.
_EXTRA_BITS: Final = 10
_SPLITS_AT_ONCE: Final = 4096
_CLIMBS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bipartition:
    """Two camps of the positions 0..k-1.

    Attributes:
      separation: mean cosine within the camps minus mean cosine between them, in units of 2^-20, rounded down.
      second: mask of the camp without position 0.
    """

    separation: int
    second: int


def best_bipartition(cosines: NDArray[np.int64], smallest: int) -> Bipartition | None:
    """The split of greatest separation with at least `smallest` positions on each side; None where there is no such split.

    Args:
      cosines: symmetric, shape (k, k), units of 2^-20; the diagonal does not count.
    """
    if len(cosines) < 2 * smallest:
        return None
    cosines = cosines.copy()
    np.fill_diagonal(cosines, 0)
    search = _every_split if len(cosines) <= EXHAUSTIVE_UP_TO else _climbs
    separation, second = max(search(cosines, smallest), key=lambda found: (found[0], -found[1]))
    return Bipartition(separation=separation >> _EXTRA_BITS, second=second)


def _every_split(cosines: NDArray[np.int64], smallest: int) -> Iterator[tuple[int, int]]:
    """The best of each bunch of splits: its separation in units of 2^-30, and the mask of its second camp."""
    k = len(cosines)
    for start in range(0, 1 << (k - 1), _SPLITS_AT_ONCE):
        masks = np.arange(start, min(start + _SPLITS_AT_ONCE, 1 << (k - 1)), dtype=np.int64) << 1
        sides = masks[:, None] >> np.arange(k) & 1  # (splits, k)
        sizes = sides.sum(axis=1)
        allowed = (sizes >= smallest) & (k - sizes >= smallest)
        if allowed.any():
            between = ((sides @ cosines) * (1 - sides)).sum(axis=1)
            separations = np.where(allowed, _separations(between, sizes.clip(1, k - 1), cosines), np.iinfo(np.int64).min)
            best = int(separations.argmax())
            yield int(separations[best]), int(masks[best])


def _climbs(cosines: NDArray[np.int64], smallest: int) -> Iterator[tuple[int, int]]:
    """Where a local search ends that starts from the best camps around single sites."""
    starts = sorted((_camp_around(cosines, seed, smallest) for seed in range(len(cosines))), key=lambda s: (-s[0], s[1]))
    for _, camp in starts[:_CLIMBS]:
        yield _climb(cosines, camp, smallest)


def _camp_around(cosines: NDArray[np.int64], seed: int, smallest: int) -> tuple[int, tuple[int, ...]]:
    """The best camp that consists of a site and those nearest to it."""
    k = len(cosines)
    order = sorted(range(k), key=lambda p: (p != seed, -int(cosines[seed, p]), p))
    ordered = cosines[np.ix_(order, order)]
    inside = np.tril(ordered).sum(axis=1).cumsum()  # of the first 1..k sites, each pair once
    between = ordered.sum(axis=1).cumsum() - 2 * inside
    sizes = np.arange(smallest, k - smallest + 1)
    separations = _separations(between[sizes - 1], sizes, cosines)
    best = int(separations.argmax())
    return int(separations[best]), tuple(sorted(order[: sizes[best]]))


def _climb(cosines: NDArray[np.int64], camp: tuple[int, ...], smallest: int) -> tuple[int, int]:
    """Move one site at a time to the other camp, always the one that gains most, until none gains."""
    k = len(cosines)
    side = np.zeros(k, dtype=np.int64)
    side[list(camp)] = 1
    between = int(((side @ cosines) * (1 - side)).sum())
    current = int(_separations(np.array([between]), np.array([len(camp)]), cosines)[0])
    while True:
        # Moving a site turns its cosines to its own camp into cosines between, and the others back.
        moved = between + (2 * side - 1) * (2 * (side @ cosines) - cosines.sum(axis=1))
        sizes = side.sum() + 1 - 2 * side
        allowed = (sizes >= smallest) & (k - sizes >= smallest)
        separations = np.where(allowed, _separations(moved, sizes.clip(1, k - 1), cosines), np.iinfo(np.int64).min)
        best = int(separations.argmax())
        if separations[best] <= current:
            return current, _second_camp(side)
        current, between = int(separations[best]), int(moved[best])
        side[best] ^= 1


def _second_camp(side: NDArray[np.int64]) -> int:
    """Mask of the camp that position 0 is not in."""
    return sum(1 << p for p, s in enumerate(side) if s != side[0])


def _separations(between: NDArray[np.int64], sizes: NDArray[np.int64], cosines: NDArray[np.int64]) -> NDArray[np.int64]:
    """Mean within minus mean between, in units of 2^-30, rounded down.

    Args:
      between: sums of the cosines between the camps, each pair once. sizes: of one camp, 1..k-1.
    """
    k = len(cosines)
    pairs_between = sizes * (k - sizes)
    pairs_within = k * (k - 1) // 2 - pairs_between
    inside = int(cosines.sum()) // 2 - between
    difference: NDArray[np.int64] = inside * pairs_between - between * pairs_within
    return (difference << _EXTRA_BITS) // (pairs_within * pairs_between)
