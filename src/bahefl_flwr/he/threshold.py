"""Decryption by a quorum as pure local steps: who computes what, one member's decryption share, and their combination.

The secret key is the sum of the subset keys; it is never put together, neither here nor anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import ShareError, SpoiledSum
from bahefl_flwr.he.keys import KeyShare, SubsetKey, assign
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import BATCH, Int64Array, reduce, ring
from bahefl_flwr.he.share_format import DecryptionShare
from bahefl_flwr.he.share_proof import block_names, challenge, check_residues, flooding_noise, tags
from bahefl_flwr.he.spoiled_sum import out_of_range_positions


def partial_decrypt(c1: NDArray[np.uint32], share: KeyShare, quorum: Sequence[int]) -> DecryptionShare:
    """Multiply c1 by this member's assigned subset secrets and flood the product with noise.

    The noise of a subset key on a block depends on that key and on the block's own residues, on nothing else. So an answer
    to the same block is always the same answer: asking twice, in parts, or through other quorums leaks nothing new; and a
    caller cannot get two answers with equal noise for different blocks, or with different noise for one block.

    The caller must know where c1 comes from: it added up committed updates itself (protocol rule 5) and verified the proof
    of each (`update_proof`). A c1 that somebody chose freely can be shaped so that flooding does not hide the key, whatever else
    is in the sum.

    Args:
      c1: second polynomials of the aggregate, shape (blocks, primes, N), NTT domain; all blocks or a part of them.
      quorum: the t positions that decrypt together, this member's among them.

    Returns:
      Residues and the tags that prove them (`share_proof`), for sealing to the sites. Equal inputs give equal outputs.

    Raises:
      ShareError: the member is not in the quorum, or c1 is not of that form.

    Source: flooding bound in `params.flooding_sigma_log2`.
    """
    params = share.params
    assigned = assign(quorum, params.committee, params.threshold)
    if share.position not in assigned:
        raise ShareError(f"position {share.position} is not in the quorum {sorted(quorum)} and has no share to give")
    check_residues(c1, c1, f"c1 given to position {share.position}", params)
    keys = [share.keys[i] for i in assigned[share.position]]
    names = block_names(c1)
    noise = flooding_noise(names, keys)  # (keys, blocks, N)
    residues = _flooded_products(c1, keys, noise.sum(axis=0), params)
    asked = challenge(names, residues, share.position, quorum, params)
    return DecryptionShare(residues=residues, tags=tags(asked, c1, keys, noise))


def _flooded_products(
    c1: NDArray[np.uint32], keys: Sequence[SubsetKey], noise: Int64Array, params: SecurityParams
) -> NDArray[np.uint32]:
    """c1 times the sum of the keys, plus noise of shape (blocks, N)."""
    structure = ring(params)
    out = np.empty(c1.shape, dtype=np.uint32)
    for l, q in enumerate(params.data_primes):
        secret = reduce(np.add.reduce([key.secret[l] for key in keys]), q)  # (N,)
        for start in range(0, len(c1), BATCH):
            batch = slice(start, start + BATCH)
            residues = reduce(noise[batch], q)
            structure.forward(residues, l)
            residues += c1[batch, l] * secret
            out[batch, l] = reduce(residues, q)
    return out


def combine(
    aggregate: NDArray[np.uint32], shares: Mapping[int, NDArray[np.uint32]], quorum: Sequence[int], params: SecurityParams
) -> Int64Array:
    """Open an aggregate, or a part of its blocks, from the decryption shares of one quorum.

    Args:
      aggregate: shape (blocks, 2, primes, N).
      shares: position to its share, shape (blocks, primes, N), of exactly the quorum's members.

    Returns:
      The packed sum, int64 (blocks, N), for `packing.unpack`. Every quorum gives the same integers.

    Raises:
      ShareError: a share is missing or malformed.
      SpoiledSum: the sum lies outside the range of any sum of updates. A wrong share spoils all coefficients of a block alike, so
        that it cannot slip through by chance; who sent it shows when another quorum opens the same aggregate. If it opens alike,
        an update was out of range, and `spoiled_sum` says whose.
    """
    if set(shares) != set(assign(quorum, params.committee, params.threshold)):
        raise ShareError(
            f"shares of positions {sorted(shares)} were given for the quorum {sorted(quorum)}: all of it, and no other"
        )
    for position, share in shares.items():
        check_residues(share, aggregate[:, 0], f"the share of position {position}", params)
    packed = np.empty((len(aggregate), params.ring_degree), dtype=np.int64)
    for start in range(0, len(aggregate), BATCH):
        batch = slice(start, start + BATCH)
        packed[batch] = _opened_sum(aggregate[batch, 0], [share[batch] for share in shares.values()], params)
    spoiled = out_of_range_positions(packed, params)
    if spoiled:
        raise SpoiledSum(
            f"block {spoiled[0][0]} opens to values outside the range of any sum of updates: a share of the quorum "
            f"{sorted(quorum)} is wrong, or an included update was; ask another quorum: if it fails alike, it is an update",
            positions=spoiled,
        )
    return packed


def _opened_sum(c0: NDArray[np.uint32], shares: Sequence[NDArray[np.uint32]], params: SecurityParams) -> Int64Array:
    """The rounded plaintexts (blocks, N) of c0 plus all shares, each residues of shape (blocks, primes, N)."""
    structure = ring(params)
    residues = []
    for l, q in enumerate(params.data_primes):
        total = c0[:, l].astype(np.int64)
        for share in shares:
            total += share[:, l]
        total = reduce(total, q)
        structure.inverse(total, l)
        residues.append(total)
    return structure.crt_round(residues, params.noise_bits)
