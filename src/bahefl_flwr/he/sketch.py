"""Sketches of encrypted updates: made by anybody, opened by a quorum as pure local steps. All of them are to be had from here.

Nothing is decided here; what figures follow from a sketch is the business of `screening`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import MalformedCiphertext, ShareError
from bahefl_flwr.he.ckks import Ciphertexts
from bahefl_flwr.he.keys import KeyShare, assign
from bahefl_flwr.he.params import SecurityParams, largest_field_sum
from bahefl_flwr.he.ring import Int64Array, reduce, ring
from bahefl_flwr.he.sketch_format import SketchShare, decode_sketch_share, encode_sketch_share
from bahefl_flwr.he.sketch_plan import (
    BUCKETS,
    Fold,
    SketchPlan,
    fields_of,
    group_sums,
    plain_sketch,
    position_plan,
    sketch_of_vector,
    sketch_plan,
)
from bahefl_flwr.he.sketch_proof import (
    check_c1,
    check_form,
    site_names,
    sketch_challenge,
    sketch_noise,
    sketch_tags,
    verify_sketch_share,
)

__all__ = [
    "Opened",
    "SketchPlan",
    "SketchShare",
    "combine_sketches",
    "decode_sketch_share",
    "encode_sketch_share",
    "open_sketches",
    "plain_sketch",
    "position_plan",
    "sketch",
    "sketch_of_vector",
    "sketch_plan",
    "verify_sketch_share",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """What a quorum shows of the sketches of a round.

    Attributes:
      values: group sums by field, lowest first, int64 (sites, groups, fields), in units of packed updates.
      in_range: whether every field of a site's sums lies within `largest_field_sum`, bool (sites,).
      packed: the sums before they are split into fields, int64 (sites, groups).
    """

    values: Int64Array
    in_range: NDArray[np.bool_]
    packed: Int64Array


def sketch(parts: Iterable[Ciphertexts], plan: SketchPlan) -> NDArray[np.uint32]:
    """The sketch of one update, or its blocks that hold the positions of a plan.

    Args:
      parts: the update's blocks in order, in arrays of shape (blocks, 2, primes, N), as `decode_part` leaves them: residues below
        their primes. One part is in memory at a time.

    Returns:
      uint32 (2, primes, plan.width), NTT domain, equal on every machine.

    Raises:
      MalformedCiphertext: a part has another form, or there are more or fewer blocks than the plan is for.
    """
    fold, params = plan.fold, plan.params
    if fold is None:
        return _chosen_blocks(parts, plan)
    sums = _bucket_sums(parts, fold, plan)  # (BUCKETS, 2, primes, N)
    out = np.empty(sums.shape[1:], dtype=np.uint32)
    for l, q in enumerate(params.data_primes):
        products = sums[:, :, l].astype(np.int64)  # (BUCKETS, 2, N)
        # Below q < 2^30 times at most q/2: the sum of all 16 products stays below 2^63.
        products *= fold.monomials[:, None, l]
        out[:, l] = reduce(products.sum(axis=0), q)
    return out


def open_sketches(c1: NDArray[np.uint32], plan: SketchPlan, share: KeyShare, quorum: Sequence[int]) -> SketchShare:
    """This member's part in opening the group sums of sketches.

    The noise of a subset key on a site's sums depends on that key, that site's c1 and the plan, on nothing else: repeats, other
    quorums and other sets of sites show nothing new.

    The caller must know where c1 comes from: it made the sketches itself from updates that were committed to before the plan's
    seed was known. Even so, A SITE THAT COMMITTED TO A c1 OF ITS CHOICE READS THE COLLECTIVE KEY from its opened sketch, unless
    its ciphertext was proved to be one (docs/security.md, section 7, end).

    Args:
      c1: second polynomials of the sites' sketches, shape (sites, primes, width), NTT domain.
      quorum: the t positions that open together, this member's among them.

    Returns:
      Values and the tags that prove them (`sketch_proof`), for sealing to the sites.

    Raises:
      ShareError: the member is not in the quorum, or c1 is not of that form.

    Source: flooding bound in `params.sketch_sigma_log2`.
    """
    params = share.params
    assigned = assign(quorum, params.committee, params.threshold)
    if share.position not in assigned:
        raise ShareError(f"position {share.position} is not in the quorum {sorted(quorum)} and has no share to give")
    if params != plan.params:
        raise ShareError("the plan was made under other security parameters than the key share: use those of the updates' epoch")
    check_c1(c1, plan)
    keys = [share.keys[i] for i in assigned[share.position]]
    names = site_names(c1, plan)
    noise = sketch_noise(names, keys, plan)  # (keys, sites, groups)
    total = noise.sum(axis=0)
    values = np.empty((len(c1), len(params.data_primes), plan.groups), dtype=np.uint32)
    for l, q in enumerate(params.data_primes):
        secret = reduce(np.add.reduce([key.secret[l] for key in keys]), q)  # (N,)
        values[:, l] = reduce(_group_sums(reduce(_rows(c1[:, l], plan) * secret, q), l, plan) + total, q)
    asked = sketch_challenge(names, values, share.position, quorum, plan)
    return SketchShare(values=values, tags=sketch_tags(asked, c1, keys, noise))


def combine_sketches(
    sketches: NDArray[np.uint32], shares: Mapping[int, NDArray[np.uint32]], quorum: Sequence[int], plan: SketchPlan
) -> Opened:
    """Open sketches from the shares of one quorum.

    Flooding may exceed params.noise_bits: what then reaches the lowest field is an additive error of standard deviation
    `params.sketch_error_std`, which `sketch_plan` bounds at an eighth of the field's headroom. The other fields are exact.

    A field holds sums up to half its width; larger ones wrap around and carry into the next field. Fields are in range up to
    31/32 of that. A sum that wraps around lands in the rest with a chance of about 1/32, so an update with wrapping sums
    everywhere passes with (31/32)^768 = 2^-35; one whose sums wrap here and there passes at most as what its sums are modulo the
    field, near the limit in norm. Honest sums are far below (docs/security.md, section 7).

    Args:
      sketches: of the sites in order, shape (sites, 2, primes, width).
      shares: position to the values of its share, shape (sites, primes, groups), of exactly the quorum's members.

    Returns:
      The same integers from every quorum.

    Raises:
      ShareError: a share is missing or malformed, or the sketches are.
    """
    params = plan.params
    if set(shares) != set(assign(quorum, params.committee, params.threshold)):
        raise ShareError(
            f"shares of positions {sorted(shares)} were given for the quorum {sorted(quorum)}: all of it, and no other"
        )
    primes = len(params.data_primes)
    if sketches.shape[1:] != (2, primes, plan.width):
        raise ShareError(f"sketches are {sketches.dtype}{sketches.shape}, expected uint32(sites, 2, {primes}, {plan.width})")
    check_c1(sketches[:, 0], plan)
    for position, values in shares.items():
        check_form(values, (len(sketches), primes, plan.groups), f"the sketch share of position {position}", params)
    residues = []
    for l, q in enumerate(params.data_primes):
        total = _group_sums(_rows(sketches[:, 0, l], plan).astype(np.int64), l, plan)  # (sites, groups)
        for values in shares.values():
            total += values[:, l]
        residues.append(reduce(total, q))
    packed = ring(params).crt_round(residues, params.noise_bits)  # (sites, groups)
    fields = fields_of(packed, params)  # (sites, groups, fields)
    in_range = np.abs(fields).max(axis=(1, 2)) <= largest_field_sum(params)  # (sites,)
    return Opened(values=fields, in_range=in_range, packed=packed)


def _bucket_sums(parts: Iterable[Ciphertexts], fold: Fold, plan: SketchPlan) -> NDArray[np.uint32]:
    """Signed sums of the blocks of each bucket, residues of shape (BUCKETS, 2, primes, N)."""
    shape = _block_shape(plan.params)
    primes = np.empty(shape, dtype=np.uint32)
    primes[...] = np.array(plan.params.data_primes)[:, None]
    sums, other = np.zeros((BUCKETS, *shape), dtype=np.uint32), np.empty(shape, dtype=np.uint32)
    at = 0
    for part in parts:
        _check_part(part, at, plan)
        for block in part:
            total = sums[fold.buckets[at]]
            # In 32 bits, where the wrong one of two candidates has wrapped around and is the larger: half the memory of 64.
            add, undo = (np.add, np.subtract) if fold.signs[at] > 0 else (np.subtract, np.add)
            add(total, block, out=total)
            undo(total, primes, out=other)
            np.minimum(total, other, out=total)
            at += 1
    if at != plan.blocks:
        raise MalformedCiphertext(f"an update of {at} blocks cannot be sketched by a plan for {plan.blocks}")
    return sums


def _chosen_blocks(parts: Iterable[Ciphertexts], plan: SketchPlan) -> NDArray[np.uint32]:
    """The blocks that hold the plan's positions, side by side: (2, primes, width)."""
    found: list[Ciphertexts] = []
    at = 0
    for part in parts:
        _check_part(part, 0, plan)
        found += [part[block - at] for block in plan.chosen if at <= block < at + len(part)]
        at += len(part)
        if at >= plan.blocks:
            return np.concatenate(found, axis=-1)  # (2, primes, width)
    raise MalformedCiphertext(f"an update of {at} blocks has no block {plan.blocks - 1}, which is to be opened")


def _check_part(part: Ciphertexts, before: int, plan: SketchPlan) -> None:
    expected = (len(part), *_block_shape(plan.params))
    if part.dtype != np.uint32 or part.shape != expected:
        raise MalformedCiphertext(f"a part to be sketched is {part.dtype}{part.shape}, expected uint32{expected}")
    if plan.fold is not None and before + len(part) > plan.blocks:
        raise MalformedCiphertext(
            f"an update of at least {before + len(part)} blocks cannot be sketched by a plan for {plan.blocks}"
        )


def _block_shape(params: SecurityParams) -> tuple[int, int, int]:
    return 2, len(params.data_primes), params.ring_degree


def _rows(residues: NDArray[np.uint32], plan: SketchPlan) -> NDArray[np.uint32]:
    """(sites, width) as (sites, rows, N)."""
    return residues.reshape(len(residues), plan.rows, plan.params.ring_degree)


def _group_sums(slots: Int64Array, prime: int, plan: SketchPlan) -> Int64Array:
    """Group sums, not reduced, of polynomials in NTT domain, (sites, rows, N) residues to (sites, groups)."""
    coefficients = np.ascontiguousarray(slots).reshape(-1, plan.params.ring_degree)  # (sites * rows, N)
    ring(plan.params).inverse(coefficients, prime)
    return group_sums(coefficients.reshape(len(slots), plan.width), plan)
