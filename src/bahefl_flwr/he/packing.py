"""Model updates as fixed-point integers, three to a coefficient, and back.

Integer arithmetic between one rounding and one division, both IEEE: equal on every machine. No encryption lives here.

*Why a site rounds at random.* A step of the encoding is update_range / (field_scale * share): 2.6e-3 for a site with 1 % of all
weight at the default settings, and for every one of a hundred equal sites. Late in training all values of an update are smaller.
Rounded to the nearest they are all zero: the site is told to have sent nothing, and with a hundred equal ones training stands
still. Rounded down or up with the chance that keeps the mean, a sum of many sites is right on average, and off by
sqrt(sites / 6) steps of the whole weight at most, instead of sqrt(sites / 12).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import UpdateError
from bahefl_flwr.he.params import SecurityParams, largest_field_sum
from bahefl_flwr.he.sampling import Generator, SecretSeed

# Between the usual magnitude of a sketch's sums and the end of their range.
_DEVIATIONS = 5


def pack(
    update: NDArray[np.float32], share_of_total: float, params: SecurityParams, rounding: SecretSeed | None = None
) -> NDArray[np.int64]:
    """Clip, weigh and pack an update.

    A value v becomes round(clip(v, -R, R) * share_of_total * field_scale / R). Sums over at most `params.sites` sites whose
    shares add up to at most 1, each times an integer up to 2**weight_bits, stay inside their fields.

    Args:
      update: shape (parameters,), float32, finite.
      share_of_total: this site's part of all weight, in (0, 1].
      rounding: up or down at random, by this seed, so that the mean is kept; never beyond what the ends of the range become.
        None rounds to the nearest. Equal seeds round alike.

    Returns:
      Shape (blocks, N); the j-th third of the parameters, in order, lies in field j (the lowest is 0).

    Raises:
      UpdateError: the update is empty, not float32, not one-dimensional or not finite, or the share is out of range.
    """
    _check_update(update, share_of_total)
    blocks = params.blocks(update.size)
    values = np.zeros(blocks * params.parameters_per_block, dtype=np.float64)
    values[: update.size] = update
    np.clip(values, -params.update_range, params.update_range, out=values)
    values *= share_of_total * params.field_scale / params.update_range
    if rounding is None:
        np.rint(values, out=values)
    else:
        _round_at_random(values, float(np.rint(share_of_total * params.field_scale)), Generator(rounding))
    fields = values.reshape(params.fields, blocks, params.ring_degree)  # (fields, blocks, N)
    packed: NDArray[np.int64] = fields[-1].astype(np.int64)
    for field in fields[-2::-1]:
        packed <<= params.field_bits
        packed += field.astype(np.int64)
    return packed


def _round_at_random(values: NDArray[np.float64], most: float, generator: Generator) -> None:
    """In place: down or up, with the chance that keeps the mean to 2^-32; then to within -most..most."""
    values += generator.bytes(4 * values.size).view("<u4") * 2.0**-32
    np.floor(values, out=values)
    np.clip(values, -most, most, out=values)


def sketch_factor(update: NDArray[np.float32], share_of_total: float, groups: int, params: SecurityParams) -> float:
    """What to multiply a clipped update by, so that the sums of its sketch stay in their range.

    A sum has the deviation norm * share / sqrt(groups), over the parameters of its field. The range is to be five deviations: one
    of 768 sums then leaves it with a probability of 4e-4 at most. Only long updates of sites with much of the weight come near.

    Args:
      update: shape (parameters,), float32, finite.
      share_of_total: as for `pack`.
      groups: of the sketch.

    Returns:
      In (0, 1]; 1 for nearly every update.

    Raises:
      UpdateError: as `pack`.
    """
    _check_update(update, share_of_total)
    size = params.blocks(update.size) * params.ring_degree
    clipped = np.clip(update, -params.update_range, params.update_range).astype(np.float64)
    fields = [clipped[at : at + size] for at in range(0, update.size, size)]
    deviation = share_of_total * math.sqrt(max(float(field @ field) for field in fields) / groups)
    room = largest_field_sum(params) * params.update_range / params.field_scale
    return min(1.0, room / (_DEVIATIONS * deviation)) if deviation else 1.0


def unpack(packed: NDArray[np.int64], parameters: int, total_share: float, params: SecurityParams) -> NDArray[np.float32]:
    """The weighted mean from a sum of packed updates.

    Args:
      packed: shape (blocks, N): sum of k_i * pack(update_i, share_i).
      parameters: length of the updates.
      total_share: sum of k_i * share_i, in (0, 2**weight_bits].

    Returns:
      float32 of shape (parameters,), within params.update_range up to rounding and noise.

    Raises:
      UpdateError: `packed` is not the packing of that many parameters, or the total is not positive.
    """
    blocks = params.blocks(parameters)
    if parameters < 1 or packed.shape != (blocks, params.ring_degree):
        raise UpdateError(
            f"{parameters} parameters fill {blocks} blocks of {params.ring_degree}, got {packed.shape}: check the model's size"
        )
    if not (math.isfinite(total_share) and total_share > 0):
        raise UpdateError(f"the weights of an opened sum add up to {total_share}, which no mean can be divided by")
    fields = np.empty((params.fields, *packed.shape), dtype=np.float64)
    for field, values in zip(fields, split(packed, params), strict=True):
        field[...] = values
    # The one floating-point step: a product of three float64, then rounding to float32.
    fields *= params.update_range / (params.field_scale * total_share)
    return fields.reshape(-1)[:parameters].astype(np.float32)


def split(packed: NDArray[np.int64], params: SecurityParams) -> Iterator[NDArray[np.int64]]:
    """The fields of packed integers, lowest first, each of the shape of `packed`.

    Exact for every int64: packed is the sum of field j times 2^(field_bits * j). All fields but the highest are centred.
    """
    half = 1 << (params.field_bits - 1)
    rest = packed.copy()
    for _ in range(params.fields - 1):
        low = ((rest + half) & (2 * half - 1)) - half
        yield low
        rest -= low
        rest >>= params.field_bits
    yield rest


def largest_packed_sum(params: SecurityParams) -> int:
    """Bound on every coefficient of a correctly opened sum, noise included; beyond it a decryption share was wrong.

    A thirty-second of what a coefficient can hold lies beyond. Wrong shares make random coefficients: that none of 4096 falls
    there has a chance of 2^-187.
    """
    fill = (params.field_scale + (params.sites + 1) // 2) << params.weight_bits
    noise = 1 << (params.field_bits - 1)
    return sum(fill << (params.field_bits * j) for j in range(params.fields)) + noise


def _check_update(update: NDArray[np.float32], share_of_total: float) -> None:
    if update.dtype != np.float32 or update.ndim != 1 or update.size == 0:
        raise UpdateError(
            f"an update is a non-empty float32 vector, got {update.dtype} of shape {update.shape}: flatten and cast it"
        )
    if not 0 < share_of_total <= 1:
        raise UpdateError(f"share_of_total={share_of_total} is not in (0, 1]: weight and weight_total disagree")
    if not np.isfinite(update).all():
        bad = int(np.flatnonzero(~np.isfinite(update))[0])
        raise UpdateError(f"parameter {bad} of the update is {update[bad]}: training diverged; lower train.lr and train again")
