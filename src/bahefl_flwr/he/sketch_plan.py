"""What is asked about an update: a public linear map from its blocks to a few sums, drawn from a seed. No key lives here.

A sketch first folds the blocks into one polynomial, the sum over blocks c of sign_c * X^k(bucket of c) * block_c, then sums its N
coefficients by random groups with random signs. Both steps commute with encryption. The same maps on plain integers are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import CiphertextError, SettingsError
from bahefl_flwr.he.packing import split
from bahefl_flwr.he.params import SecurityParams, largest_field_sum, sketch_error_std, sketch_sigma_log2
from bahefl_flwr.he.ring import Int64Array, ring
from bahefl_flwr.he.sampling import SEED_BYTES, Generator, SecretSeed, digest
from bahefl_flwr.he.spoiled_sum import MOST_POSITIONS, Position, encode_positions

# Blocks of a bucket share one monomial, so that a sketch costs 16 products whatever the model's size.
BUCKETS: Final = 16
_MOST_BLOCKS: Final = 1 << 16
_NOISE_DEVIATIONS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fold:
    """How all blocks become one polynomial.

    Attributes:
      signs: +1 or -1 per block, int64 (blocks,).
      buckets: of each block, (blocks,).
      exponents: k of each bucket's X^k, 0..2N-1, int64 (BUCKETS,).
      monomials: their transforms, centred, (BUCKETS, primes, N).
    """

    signs: Int64Array
    buckets: NDArray[np.intp]
    exponents: Int64Array
    monomials: Int64Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchPlan:
    """One public question to every update of a round; made by `sketch_plan` or `position_plan`.

    Attributes:
      params: gives ring and fields.
      digest: 32 bytes that name the question: parameters, seed or positions, and sizes.
      blocks: ciphertexts in an update; for positions, the fewest that reach them.
      fold: None for positions.
      chosen: blocks that positions lie in, ascending; empty for a sketch.
      order: coefficients of each group, shape (groups, size): places in a sketch's last axis.
      order_signs: their signs, +1 or -1, same shape.
    """

    params: SecurityParams
    digest: bytes
    blocks: int
    fold: Fold | None
    chosen: tuple[int, ...]
    order: NDArray[np.intp]
    order_signs: Int64Array

    @property
    def groups(self) -> int:
        """Sums opened per update, m."""
        return len(self.order)

    @property
    def rows(self) -> int:
        """Polynomials in a sketch: 1, or as many as there are chosen blocks."""
        return 1 if self.fold is not None else len(self.chosen)

    @property
    def width(self) -> int:
        """Length of a sketch's last axis: N, or N for each chosen block, side by side."""
        return self.rows * self.params.ring_degree

    @property
    def sigma_log2(self) -> int:
        """Log2 of the flooding noise of one subset key on one sum. A position is one coefficient of one fresh ciphertext."""
        asked = (self.blocks, self.groups) if self.fold is not None else (1, self.params.ring_degree)
        return sketch_sigma_log2(self.params, *asked)


def sketch_plan(seed: bytes, blocks: int, groups: int, params: SecurityParams) -> SketchPlan:
    """The random sketch of a round.

    Args:
      seed: 32 public bytes that nobody knew when the updates were committed to.
      blocks: ciphertexts in an update, 1..65536.
      groups: m, divides the ring degree.

    Raises:
      SettingsError: no such sketch exists, or flooding would drown it: more groups have smaller sums and less noise.
    """
    degree = params.ring_degree
    if len(seed) != SEED_BYTES or not 1 <= blocks <= _MOST_BLOCKS or not 1 <= groups <= degree or degree % groups:
        raise SettingsError(
            f"no sketch of {blocks} blocks in {groups} groups from {len(seed)} bytes: it takes 1 to {_MOST_BLOCKS} blocks, a "
            f"number of groups that divides {degree}, and a seed of {SEED_BYTES} bytes; set screening.groups"
        )
    _check_noise(params, blocks, groups)
    name = digest("sketch-plan", params.digest(), seed, blocks, groups)
    # A public value, in the type that starts a generator.
    generator = Generator(SecretSeed(name))
    fold = _draw_fold(generator, blocks, params)
    order = np.argsort(generator.words(degree), kind="stable").reshape(groups, -1)  # (groups, size)
    signs = _signs(generator, degree).reshape(groups, -1)  # (groups, size)
    return SketchPlan(params=params, digest=name, blocks=blocks, fold=fold, chosen=(), order=order, order_signs=signs)


def position_plan(positions: Sequence[Position], params: SecurityParams) -> SketchPlan:
    """Single coefficients of every update: the audit of a sum that opened out of range there.

    Args:
      positions: 1..8 pairs (block, coefficient), ascending, as `spoiled_sum.out_of_range_positions` gives them.

    Raises:
      CiphertextError: not of that form.
    """
    rising = all(a < b for a, b in pairwise(positions))
    inside = all(0 <= block < _MOST_BLOCKS and 0 <= k < params.ring_degree for block, k in positions)
    if not 1 <= len(positions) <= MOST_POSITIONS or not rising or not inside:
        raise CiphertextError(
            f"positions {list(positions)} cannot be opened: it takes 1 to {MOST_POSITIONS} ascending pairs of a block and a "
            f"coefficient below {params.ring_degree}"
        )
    chosen = tuple(sorted({block for block, _ in positions}))
    order = np.array([[chosen.index(block) * params.ring_degree + k] for block, k in positions])  # (groups, 1)
    return SketchPlan(
        params=params,
        digest=digest("position-plan", params.digest(), encode_positions(positions)),
        blocks=chosen[-1] + 1,
        fold=None,
        chosen=chosen,
        order=order.astype(np.intp),
        order_signs=np.ones_like(order, dtype=np.int64),
    )


def plain_sketch(packed: NDArray[np.int64], plan: SketchPlan) -> Int64Array:
    """What a plain packed update's encrypted sketch opens to, but for noise in the lowest field.

    Args:
      packed: from `packing.pack`, shape (blocks, N).

    Returns:
      int64 (groups, fields), lowest field first. Equal for every sum in range; sums out of range wrap around otherwise than
      modulo q.

    Raises:
      CiphertextError: `packed` has another shape than the plan's updates.
    """
    _check_blocks(packed, plan)
    # Wraps modulo 2^64 in between; a sum in range has at most 58 bits and comes out exact.
    return fields_of(group_sums(_fold_plain(packed, plan), plan), plan.params)


def sketch_of_vector(values: NDArray[np.int64], plan: SketchPlan) -> Int64Array:
    """The sketch of a public vector, by the same map, without the limits of packing.

    Args:
      values: shape (parameters,), magnitudes below 2^62 / (blocks * N / groups); laid out in fields as `packing.pack` lays
        parameters out, and filled up with zeros.

    Returns:
      int64 (groups, fields), lowest field first.

    Raises:
      CiphertextError: more parameters than the plan's blocks hold, or not an int64 vector.
    """
    params = plan.params
    if values.dtype != np.int64 or values.ndim != 1 or values.size > plan.blocks * params.parameters_per_block:
        raise CiphertextError(
            f"a vector of {values.dtype}{values.shape} has no sketch in {plan.blocks} blocks: int64, at most "
            f"{plan.blocks * params.parameters_per_block} parameters"
        )
    padded = np.zeros(plan.blocks * params.parameters_per_block, dtype=np.int64)
    padded[: values.size] = values
    laid_out = padded.reshape(params.fields, plan.blocks, params.ring_degree)  # (fields, blocks, N)
    return np.stack([group_sums(_fold_plain(field, plan), plan) for field in laid_out], axis=-1)


def group_sums(coefficients: Int64Array, plan: SketchPlan) -> Int64Array:
    """Sums of coefficients by group, shape (..., width) to (..., groups)."""
    sums: Int64Array = (coefficients[..., plan.order] * plan.order_signs).sum(axis=-1)
    return sums


def fields_of(packed: NDArray[np.int64], params: SecurityParams) -> Int64Array:
    """Fields of packed sums, shape (...) to (..., fields), lowest first."""
    return np.stack(list(split(packed, params)), axis=-1)


def _draw_fold(generator: Generator, blocks: int, params: SecurityParams) -> Fold:
    signs = _signs(generator, blocks)
    buckets = (generator.words(blocks) % np.uint64(BUCKETS)).astype(np.intp)
    exponents = (generator.words(BUCKETS) % np.uint64(2 * params.ring_degree)).astype(np.int64)
    return Fold(signs=signs, buckets=buckets, exponents=exponents, monomials=ring(params).monomials(exponents))


def _signs(generator: Generator, count: int) -> Int64Array:
    return 1 - 2 * (generator.words(count) & np.uint64(1)).astype(np.int64)


def _fold_plain(blocks: Int64Array, plan: SketchPlan) -> Int64Array:
    """Plain blocks (blocks, N) to the coefficients (width,) of their sketch."""
    fold = plan.fold
    if fold is None:
        return blocks[list(plan.chosen)].reshape(-1)  # (width,)
    total = np.zeros(plan.width, dtype=np.int64)
    for bucket, exponent in enumerate(fold.exponents.tolist()):
        inside = fold.buckets == bucket
        total += _rotated(fold.signs[inside] @ blocks[inside], exponent)
    return total


def _rotated(polynomial: Int64Array, exponent: int) -> Int64Array:
    """X^exponent times a polynomial, shape (N,)."""
    return np.roll(np.concatenate([polynomial, -polynomial]), exponent)[: len(polynomial)]


def _check_blocks(packed: NDArray[np.int64], plan: SketchPlan) -> None:
    enough = packed.ndim == 2 and (len(packed) == plan.blocks if plan.fold is not None else len(packed) >= plan.blocks)
    if packed.dtype != np.int64 or not enough or packed.shape[1] != plan.params.ring_degree:
        raise CiphertextError(
            f"a plan for {plan.blocks} blocks of {plan.params.ring_degree} was given {packed.dtype}{packed.shape}"
        )


def _check_noise(params: SecurityParams, blocks: int, groups: int) -> None:
    """Noise has to stay within what `largest_field_sum` leaves of the lowest field, or it would spoil the field above."""
    room = (1 << (params.field_bits - 1)) - largest_field_sum(params)
    noise = _NOISE_DEVIATIONS * sketch_error_std(params, blocks, groups)
    if noise > room:
        raise SettingsError(
            f"the noise of a sketch of {blocks} blocks in {groups} groups reaches {noise:.0f} units of a field with room for "
            f"{room}: raise screening.groups"
        )
