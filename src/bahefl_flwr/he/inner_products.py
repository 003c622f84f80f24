"""Exact inner products and weighted sums modulo primes, by floating-point matrix products. Nothing random and nothing secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.he.ring import Int64Array, reduce

# Exact sums of products in float64, which numpy hands to BLAS (10x less CPU than int64): limbs of 24 and 15 bits keep them below
# 2^53, in whatever order they are added: 4096 terms of 2^25 * 2^15, or 256 rows of 2^30 * 2^15.
_LEFT_BITS: Final = 24
_RIGHT_BITS: Final = 15
_MOST_ROWS: Final = 256
# Larger products wake BLAS's threads, which then burn milliseconds waiting for each other.
_ROWS: Final = 20


def weighted_sum(residues: NDArray[np.uint32], weights: Int64Array, q: int) -> Int64Array:
    """Sums of rows, each row times its weight, modulo q.

    Args:
      residues: shape (rows, N).
      weights: shape (sums, rows), magnitudes below 2^30.

    Returns:
      Residues of shape (sums, N).
    """
    total = np.zeros((len(weights), residues.shape[1]), dtype=np.int64)
    for start in range(0, len(residues), _MOST_ROWS):
        batch = slice(start, start + _MOST_ROWS)
        low, high = _limbs(weights[:, batch], _RIGHT_BITS) @ residues[batch].astype(np.float64)  # (sums, N) each
        total += low.astype(np.int64) + (reduce(high.astype(np.int64), q) << _RIGHT_BITS)
    return reduce(total, q)


def inner(left: NDArray[np.integer], right: Int64Array, primes: Sequence[int]) -> list[Int64Array]:
    """Inner products of all rows, exact, modulo each prime.

    Args:
      left: shape (rows, N), magnitudes below 2^58 / N.
      right: shape (columns, N), magnitudes below 2^30.

    Returns:
      Per prime, residues of shape (rows, columns).
    """
    columns = np.concatenate(_limbs(right, _RIGHT_BITS)).T  # (N, 2 * columns)
    batches = [_limbs(left[i : i + _ROWS], _LEFT_BITS) @ columns for i in range(0, len(left), _ROWS)]
    low, high = np.concatenate(batches, axis=1).astype(np.int64)  # (rows, 2 * columns) each
    found = []
    for q in primes:
        joined = reduce(low, q) + (reduce(high, q) << _LEFT_BITS)
        low_right, high_right = np.hsplit(reduce(joined, q), 2)
        found.append(reduce(low_right + (high_right << _RIGHT_BITS), q))
    return found


def _limbs(values: NDArray[np.integer], bits: int) -> NDArray[np.float64]:
    """Low and high limbs, shape (2, rows, N): low + 2^bits * high gives the values; the high limb carries the sign."""
    out = np.empty((2, *values.shape))
    limb = values & ((1 << bits) - 1)
    out[0] = limb
    np.right_shift(values, bits, out=limb)
    out[1] = limb
    return out
