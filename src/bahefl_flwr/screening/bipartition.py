"""Rule f: the split of the sites into two camps that differ most. Integers only; ties go to the lowest member indices.

Up to 16 sites every split is tried. Beyond, a greedy search from every site finds camps that stand out; it may miss the very best
of many similar splits, but it misses it alike on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

EXHAUSTIVE_UP_TO: Final = 16
# Splits compare in units of 2^-30; sums for 255 sites then stay below 2^61.
_EXTRA_BITS: Final = 10
_SPLITS_AT_ONCE: Final = 4096
_CLIMBS: Final = 8

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bipartition:
    """Two camps of the positions 0..k-1.

    Attributes:
      separation: the greatest difference there is, mean cosine within camps minus between them, units of 2^-20, rounded down.
      second: mask of the camp without position 0.
    """

    separation: int
    second: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Splits:
    """Sums that describe some splits, each pair of sites once; arrays of one length.

    Attributes:
      between: of the cosines between the camps. inside: of those within the chosen camp.
      sizes: sites in the chosen camp, 1..k-1.
    """

    between: Integers
    inside: Integers
    sizes: Integers


Score = Callable[[_Splits, Integers], Integers]


def best_bipartition(cosines: Integers, smallest: int) -> Bipartition | None:
    """How far apart the sites fall, and into which camps, with at least `smallest` positions on each side; None for too few.

    Whether they fall apart is measured over all pairs. Who is on which side is taken from the split with the closest camps, each
    counted by its sites: over all pairs, a tight camp would draw unlike sites into it (docs/robustness.md).

    Args:
      cosines: symmetric, shape (k, k), units of 2^-20; the diagonal does not count.
    """
    if len(cosines) < 2 * smallest:
        return None
    cosines = cosines.copy()
    np.fill_diagonal(cosines, 0)
    separation, _ = _best(cosines, smallest, _separations)
    _, second = _best(cosines, smallest, _closeness)
    return Bipartition(separation=separation >> _EXTRA_BITS, second=second)


def _best(cosines: Integers, smallest: int, score: Score) -> tuple[int, int]:
    """The best score in units of 2^-30, and the lowest mask of a second camp that has it."""
    search = _every_split if len(cosines) <= EXHAUSTIVE_UP_TO else _climbs
    return max(search(cosines, smallest, score), key=lambda found: (found[0], -found[1]))


def _every_split(cosines: Integers, smallest: int, score: Score) -> Iterator[tuple[int, int]]:
    """The best of each bunch of splits."""
    k = len(cosines)
    for start in range(0, 1 << (k - 1), _SPLITS_AT_ONCE):
        masks = np.arange(start, min(start + _SPLITS_AT_ONCE, 1 << (k - 1)), dtype=np.int64) << 1
        sizes = np.bitwise_count(masks).astype(np.int64)
        masks = masks[(sizes >= smallest) & (k - sizes >= smallest)]
        if len(masks):
            scores = score(_described(cosines, masks[:, None] >> np.arange(k) & 1), cosines)
            best = int(scores.argmax())
            yield int(scores[best]), int(masks[best])


def _described(cosines: Integers, sides: Integers) -> _Splits:
    """`sides` has one row of zeros and ones per split, (splits, k)."""
    toward = sides @ cosines  # (splits, k)
    between, inside = (toward * (1 - sides)).sum(axis=1), (toward * sides).sum(axis=1) // 2
    return _Splits(between=between, inside=inside, sizes=sides.sum(axis=1))


def _climbs(cosines: Integers, smallest: int, score: Score) -> Iterator[tuple[int, int]]:
    """Where a local search ends that starts from the best camps around single sites."""
    starts = sorted((_camp_around(cosines, seed, smallest, score) for seed in range(len(cosines))), key=lambda s: (-s[0], s[1]))
    for _, camp in starts[:_CLIMBS]:
        yield _climb(cosines, camp, smallest, score)


def _camp_around(cosines: Integers, seed: int, smallest: int, score: Score) -> tuple[int, tuple[int, ...]]:
    """The best camp that consists of a site and those nearest to it."""
    k = len(cosines)
    order = sorted(range(k), key=lambda p: (p != seed, -int(cosines[seed, p]), p))
    ordered = cosines[np.ix_(order, order)]
    inside = np.tril(ordered).sum(axis=1).cumsum()  # of the first 1..k sites, each pair once
    between = ordered.sum(axis=1).cumsum() - 2 * inside
    sizes = np.arange(smallest, k - smallest + 1)
    scores = score(_Splits(between=between[sizes - 1], inside=inside[sizes - 1], sizes=sizes), cosines)
    best = int(scores.argmax())
    return int(scores[best]), tuple(sorted(order[: sizes[best]]))


def _climb(cosines: Integers, camp: tuple[int, ...], smallest: int, score: Score) -> tuple[int, int]:
    """Move one site at a time to the other camp, always the one that gains most, until none gains."""
    k = len(cosines)
    side = np.zeros(k, dtype=np.int64)
    side[list(camp)] = 1
    here = _described(cosines, side[None])
    current = int(score(here, cosines)[0])
    while True:
        toward, signs = side @ cosines, 1 - 2 * side
        # Moving a site turns its cosines to its own camp into cosines between, and the others back.
        moved = _Splits(
            between=here.between - signs * (2 * toward - cosines.sum(axis=1)),
            inside=here.inside + signs * toward,
            sizes=(here.sizes + signs).clip(1, k - 1),
        )
        allowed = (moved.sizes >= smallest) & (k - moved.sizes >= smallest)
        scores = np.where(allowed, score(moved, cosines), np.iinfo(np.int64).min)
        best = int(scores.argmax())
        if scores[best] <= current:
            return current, _second_camp(side)
        current = int(scores[best])
        side[best] ^= 1
        here = _described(cosines, side[None])


def _second_camp(side: Integers) -> int:
    """Mask of the camp that position 0 is not in."""
    return sum(1 << p for p, s in enumerate(side) if s != side[0])


def _separations(splits: _Splits, cosines: Integers) -> Integers:
    """Mean over all pairs within camps minus mean over all pairs between, in units of 2^-30, rounded down."""
    k = len(cosines)
    pairs_between = splits.sizes * (k - splits.sizes)
    pairs_within = k * (k - 1) // 2 - pairs_between
    within = int(cosines.sum()) // 2 - splits.between
    difference: Integers = within * pairs_between - splits.between * pairs_within
    return (difference << _EXTRA_BITS) // (pairs_within * pairs_between)


def _closeness(splits: _Splits, cosines: Integers) -> Integers:
    """Mean over all sites of their camp's mean, minus the mean between, times the number of sites, in units of 2^-30.

    A camp counts by its sites, not by its pairs, which grow with the square. Camps of one have no mean and count as 0.
    """
    k = len(cosines)
    others = k - splits.sizes
    outside = int(cosines.sum()) // 2 - splits.between - splits.inside
    chosen: Integers = (2 * splits.inside << _EXTRA_BITS) // (splits.sizes - 1).clip(1)
    rest: Integers = (2 * outside << _EXTRA_BITS) // (others - 1).clip(1)
    return chosen + rest - (k * splits.between << _EXTRA_BITS) // (splits.sizes * others)
