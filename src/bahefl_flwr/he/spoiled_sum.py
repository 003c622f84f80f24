"""A sum that opened out of range: where, as bytes that all sites agree on, and whether one update's coefficients explain it.

*Why somebody is found.* Let every included update be in range at a position: its coefficient is a packed integer whose fields
have magnitudes of at most share * field_scale + 1/2 (`packing.pack` rounds to the nearest). Weights are at most 2^weight_bits and
shares add up to at most 1, so each field of the sum has a magnitude of at most 2^weight_bits * (field_scale + sites / 2), nothing
wraps around modulo q, and the coefficient lies within `largest_packed_sum`. So where a sum lies outside, some included update is
out of range at that very position. Opening the coefficient of each update there shows which: the noise of the openings, in the
lowest field only, is below `_noise_allowance`, and that of all sites together below the half field that `largest_packed_sum`
leaves.

No honest update is found: `pack` cannot write such fields, and noise beyond the allowance has a chance below 2^-50.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.he.packing import largest_packed_sum, split
from bahefl_flwr.he.params import SecurityParams, sketch_error_std
from bahefl_flwr.he.sampling import digest

MOST_POSITIONS: Final = 8
Position = tuple[int, int]
_ALLOWED_DEVIATIONS: Final = 9
_PAIR: Final = struct.Struct("<II")


def out_of_range_positions(packed: NDArray[np.int64], params: SecurityParams) -> tuple[Position, ...]:
    """Where an opened sum lies outside the range of any sum of updates.

    Args:
      packed: shape (blocks, N), as `threshold.combine` decodes it.

    Returns:
      The first eight pairs (block, coefficient) by block, then by coefficient; empty for a sum in range. The first eight of a sum
      that was opened in parts are those of its parts, in order, each block number moved by where its part begins.
    """
    most = largest_packed_sum(params)
    if packed.max() <= most and packed.min() >= -most:  # no array of flags for the sums of honest rounds
        return ()
    found = np.argwhere((packed > most) | (packed < -most))[:MOST_POSITIONS]
    return tuple((int(block), int(coefficient)) for block, coefficient in found)


def encode_positions(positions: Sequence[Position]) -> bytes:
    """Canonical bytes: per position block and coefficient, 4 little-endian bytes each."""
    return b"".join(_PAIR.pack(block, coefficient) for block, coefficient in positions)


def positions_digest(positions: Sequence[Position]) -> bytes:
    """SHA-256 that sites confirm on the ledger for a spoiled sum; 32 bytes."""
    return digest("spoiled-positions", encode_positions(positions))


def outside_range(packed: NDArray[np.int64], share_of_total: float, params: SecurityParams) -> bool:
    """Whether one update is provably out of range at opened positions: some field holds what `packing.pack` cannot write.

    Args:
      packed: the update's coefficients there, shape (positions,): a row of `Opened.packed` for a position plan. Rounded to units
        of the lowest field, exact integers of at most 58 bits.
      share_of_total: the update's part of all weight, in (0, 1], that it had to be packed with.
    """
    # One half for the rounding of `pack`; the last term for the last bit of its floating-point product.
    most = math.floor(share_of_total * params.field_scale * (1 + 2.0**-48) + 0.5)
    limits = [most + _noise_allowance(params), *[most] * (params.fields - 1)]
    return any(int(np.abs(field).max()) > limit for field, limit in zip(split(packed, params), limits, strict=True))


def _noise_allowance(params: SecurityParams) -> int:
    """Units of the lowest field that the noise of an opened coefficient of one update does not reach."""
    return math.ceil(_ALLOWED_DEVIATIONS * sketch_error_std(params, 1, params.ring_degree))
