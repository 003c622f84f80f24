"""Key material as types: the public key, and the secrets of a committee member, which print redacted and refuse pickling.

No protocol step lives here; those are in `ceremony` and `threshold`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Final, Never

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import KeysError, ShareError
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import Int64Array, reduce, ring
from bahefl_flwr.he.sampling import SEED_BYTES, Generator, SecretSeed, centred_binomial, digest, flooding, ternary, uniform

EPOCH_ID_BYTES: Final = 32
_SHARE_MAGIC: Final = b"BAKS\x01"
_CHECKSUM_BYTES: Final = 32
_SHARE_HEADER: Final = struct.Struct("<5sBH32s32s")


def subsets(committee: int, threshold: int) -> tuple[tuple[int, ...], ...]:
    """All sets of t-1 positions, in lexicographic order; a subset's index is its place here. One empty set for t = 1."""
    return tuple(combinations(range(committee), threshold - 1))


def held_subsets(position: int, committee: int, threshold: int) -> tuple[int, ...]:
    """Indices of the subsets whose key the member at `position` holds: those it is not in."""
    return tuple(i for i, members in enumerate(subsets(committee, threshold)) if position not in members)


def holders(index: int, committee: int, threshold: int) -> tuple[int, ...]:
    """Positions that hold the key of subset `index`: the n-t+1 members outside it."""
    inside = subsets(committee, threshold)[index]
    return tuple(p for p in range(committee) if p not in inside)


def assign(quorum: Iterable[int], committee: int, threshold: int) -> dict[int, tuple[int, ...]]:
    """Which subset keys each member of a quorum applies; every subset exactly once, evenly spread.

    Args:
      quorum: exactly `threshold` positions. Any t members together hold all subsets, t-1 never do.

    Raises:
      ShareError: not a quorum of this committee.
    """
    members = sorted(set(quorum))
    if len(members) != threshold or not set(members) <= set(range(committee)):
        raise ShareError(f"positions {members} are no quorum: {threshold} of the {committee} committee members open an aggregate")
    assigned: dict[int, list[int]] = {p: [] for p in members}
    for index, inside in enumerate(subsets(committee, threshold)):
        least = min((p for p in members if p not in inside), key=lambda p: (len(assigned[p]), p))
        assigned[least].append(index)
    return {p: tuple(indices) for p, indices in assigned.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublicKey:
    """The collective public key of an epoch.

    Attributes:
      b: sum over all subsets of -(a*s + e), shape (primes, N), NTT domain, uint32.
      a: the epoch's common reference polynomial, same form.
      epoch_id: 32 bytes that name the run and the key epoch.
      params_digest: digest of the `SecurityParams` it was made under.
    """

    b: NDArray[np.uint32]
    a: NDArray[np.uint32]
    epoch_id: bytes
    params_digest: bytes

    def digest(self) -> bytes:
        """SHA-256 over epoch, parameters and both polynomials: what a committee confirms on the ledger."""
        return digest("public-key", self.epoch_id, self.params_digest, residue_bytes(self.b), residue_bytes(self.a))


class SubsetKey:
    """Everything derived from one subset's seed K_A: secret s_A, public b_A = -(a*s_A + e_A), and the flooding seed."""

    def __init__(self, seed: SecretSeed, epoch_id: bytes, params: SecurityParams) -> None:
        self.seed = seed
        self.degree = params.ring_degree
        self._sigma_log2 = params.flooding_sigma_log2
        generator = Generator(seed.derive("subset-secret"))
        degree = params.ring_degree
        # One call for secret and error: numpy's cost per call is what a ceremony of 252 subsets consists of.
        small = np.stack([ternary(generator, degree), centred_binomial(generator, degree)])  # (2, N)
        residues = ring(params).forward_all(small)  # (2, primes, N)
        self.secret: Int64Array = residues[0]
        a = common_reference(epoch_id, params)
        public = np.empty(self.secret.shape, dtype=np.uint32)
        for l, q in enumerate(params.data_primes):
            public[l] = reduce(-(a[l].astype(np.int64) * self.secret[l]) - residues[1, l], q)
        self.public: NDArray[np.uint32] = public

    def flooding_noise(self, block: bytes) -> Int64Array:
        """What this key adds to its product with the block of c1 of that name: coefficients, shape (N,). One block, one noise."""
        return flooding(Generator(self.seed.derive("flooding", block)), self.degree, self._sigma_log2)

    def __repr__(self) -> str:
        return "<SubsetKey redacted>"

    def __reduce__(self) -> Never:
        raise TypeError("a SubsetKey does not leave its process")


class KeyShare:
    """A committee member's part of the secret key of one epoch: the seeds K_A of the subsets it is outside of.

    Attributes:
      position: place of the member in the committee, 0..n-1.
      epoch_id: 32 bytes that name the run and the key epoch.
      params: what it was made under.
    """

    def __init__(self, *, position: int, epoch_id: bytes, params: SecurityParams, seeds: Mapping[int, SecretSeed]) -> None:
        if tuple(sorted(seeds)) != held_subsets(position, params.committee, params.threshold):
            raise KeysError(f"key share of position {position} holds subsets {sorted(seeds)}, not the ones of that position")
        self.position = position
        self.epoch_id = epoch_id
        self.params = params
        self._seeds = dict(seeds)

    @cached_property
    def keys(self) -> dict[int, SubsetKey]:
        """Subset index to derived key; computed on first use, a millisecond each."""
        return {i: SubsetKey(seed, self.epoch_id, self.params) for i, seed in sorted(self._seeds.items())}

    def secret_bytes(self) -> bytes:
        """Canonical bytes for the member's key file, to be protected as its long-term keys are."""
        header = _SHARE_HEADER.pack(_SHARE_MAGIC, self.position, len(self._seeds), self.epoch_id, self.params.digest())
        body = header + b"".join(seed.secret_bytes() for _, seed in sorted(self._seeds.items()))
        return body + digest("key-share-checksum", body)

    @classmethod
    def from_secret_bytes(cls, data: bytes, params: SecurityParams) -> KeyShare:
        """Read `secret_bytes` back.

        Raises:
          KeysError: the bytes are no key share, are damaged, or belong to other parameters.
        """
        content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if len(content) < _SHARE_HEADER.size or digest("key-share-checksum", content) != checksum:
            raise KeysError(
                f"these {len(data)} bytes are no key share, or damaged: restore the file or wait for the next key epoch"
            )
        magic, position, count, epoch_id, params_digest = _SHARE_HEADER.unpack_from(content)
        if magic != _SHARE_MAGIC:
            raise KeysError("the key share is of another version of this package: wait for the next key epoch")
        if params_digest != params.digest():
            raise KeysError("the key share was made under other security parameters than this run's: it cannot be used here")
        held = held_subsets(position, params.committee, params.threshold)
        if position >= params.committee or count != len(held) or len(content) != _SHARE_HEADER.size + SEED_BYTES * count:
            raise KeysError(
                f"the key share of position {position} is damaged ({count} seeds, {len(data)} bytes): restore the file"
            )
        body = content[_SHARE_HEADER.size :]
        seeds = {i: SecretSeed(body[SEED_BYTES * k : SEED_BYTES * (k + 1)]) for k, i in enumerate(held)}
        return cls(position=position, epoch_id=epoch_id, params=params, seeds=seeds)

    def __repr__(self) -> str:
        return f"<KeyShare epoch={self.epoch_id.hex()[:8]} position={self.position} redacted>"

    def __reduce__(self) -> Never:
        raise TypeError("a KeyShare does not leave its process: use secret_bytes() for its own file")


@lru_cache(maxsize=4)
def common_reference(epoch_id: bytes, params: SecurityParams) -> NDArray[np.uint32]:
    """The polynomial `a` of an epoch, uniform, from public bytes: nobody can have chosen it.

    Returns:
      Residues of shape (primes, N), NTT domain; read-only.

    Raises:
      KeysError: the epoch id does not have 32 bytes.
    """
    if len(epoch_id) != EPOCH_ID_BYTES:
        raise KeysError(f"an epoch id has {EPOCH_ID_BYTES} bytes, got {len(epoch_id)}")
    # A public value, in the type that starts a generator.
    generator = Generator(SecretSeed(digest("common-reference", epoch_id, params.digest())))
    rows = [uniform(generator, q, params.ring_degree) for q in params.data_primes]
    reference = np.stack(rows).astype(np.uint32)
    reference.flags.writeable = False
    return reference


def residue_bytes(residues: NDArray[np.uint32]) -> bytes:
    """Residues as little-endian bytes, for digests."""
    return np.ascontiguousarray(residues, dtype="<u4").tobytes()
