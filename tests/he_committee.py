"""A committee that has gone through the real key ceremony, and a slow scheme in Python integers to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.he import ceremony
from bahefl_flwr.he.keys import KeyShare, PublicKey, assign
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import bit_reversal, minimal_root, ring
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.share_format import DecryptionShare
from bahefl_flwr.he.share_proof import block_names, challenge, flooding_noise, tags
from bahefl_flwr.he.sketch import Opened, SketchPlan, combine_sketches, open_sketches
from bahefl_flwr.he.threshold import combine, partial_decrypt

EPOCH = bytes(range(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Committee:
    """All that an honest ceremony leaves behind, of all members at once; `openings[receiver][sender]`."""

    params: SecurityParams
    contributions: tuple[ceremony.Contributions, ...]
    openings: tuple[dict[int, ceremony.Opening], ...]
    shares: tuple[KeyShare, ...]
    parts: dict[int, dict[int, NDArray[np.uint32]]]
    key: PublicKey

    def shares_of(self, aggregate: NDArray[np.uint32], quorum: Sequence[int]) -> dict[int, NDArray[np.uint32]]:
        """Honest decryption shares without their tags."""
        return {p: self.share_of(aggregate[:, 1], p, quorum).residues for p in quorum}

    def share_of(self, c1: NDArray[np.uint32], position: int, quorum: Sequence[int]) -> DecryptionShare:
        """One honest decryption share."""
        return partial_decrypt(c1, self.shares[position], quorum)

    def open(self, aggregate: NDArray[np.uint32], quorum: Sequence[int]) -> NDArray[np.int64]:
        """What `quorum` decrypts."""
        return combine(aggregate, self.shares_of(aggregate, quorum), quorum, self.params)

    def open_sketches(self, sketches: NDArray[np.uint32], plan: SketchPlan, quorum: Sequence[int]) -> Opened:
        """What `quorum` opens of the sites' sketches, shape (sites, 2, primes, width)."""
        shares = {p: open_sketches(sketches[:, 1], plan, self.shares[p], quorum).values for p in quorum}
        return combine_sketches(sketches, shares, quorum, plan)


def toy_params(committee: int = 5, threshold: int = 3, *, degree: int = 64, weight_bits: int = 0) -> SecurityParams:
    """Parameters of a small ring without security."""
    return SecurityParams(
        update_range=0.25, weight_bits=weight_bits, threshold=threshold, committee=committee,
        sites=8, ring_degree=degree, toy=True,
    )  # fmt: skip


def real_params(committee: int = 5, threshold: int = 3, *, weight_bits: int = 0) -> SecurityParams:
    """Parameters as runs use them."""
    return SecurityParams(update_range=0.25, weight_bits=weight_bits, threshold=threshold, committee=committee, sites=committee)


def decrypted(members: Committee, ciphertext: NDArray[np.uint32], quorum: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Message and noise together, before rounding, shape (blocks, N): by the whole key, or by the shares of a quorum."""
    keys = {i: key for share in members.shares for i, key in share.keys.items()}
    if quorum is None:
        whole = np.sum([key.secret.astype(object) for key in keys.values()], axis=0)  # (primes, N)
        parts = [ciphertext[:, 1].astype(object) * whole]
    else:
        parts = list(members.shares_of(ciphertext, quorum).values())
    return centred(members.params, sum((part.astype(object) for part in parts), ciphertext[:, 0].astype(object)))


def centred(params: SecurityParams, residues: NDArray[np.object_]) -> NDArray[np.float64]:
    """Centred coefficients of polynomials in NTT domain, shape (blocks, primes, N) to (blocks, N)."""
    primes = params.data_primes
    modulus = int(np.prod([int(q) for q in primes], dtype=object))
    joint = np.zeros((len(residues), params.ring_degree), dtype=object)
    for l, q in enumerate(primes):
        row = np.ascontiguousarray(residues[:, l] % q, dtype=np.int64)
        ring(params).inverse(row, l)
        joint += row.astype(object) * (modulus // q * pow(modulus // q, -1, q))
    joint %= modulus
    return np.where(joint > modulus // 2, joint - modulus, joint).astype(np.float64)


@lru_cache(maxsize=8)
def committee(params: SecurityParams) -> Committee:
    """The committee of these parameters, from fixed entropy; made once per test session."""
    positions = range(params.committee)
    contributions = tuple(ceremony.contribute(p, params, EPOCH, SecretSeed(bytes([p + 1]) * 32)) for p in positions)
    openings = tuple({sender: received(contributions[sender], holder) for sender in positions} for holder in positions)
    shares = tuple(ceremony.derive_share(p, openings[p], params, EPOCH) for p in positions)
    parts = {p: ceremony.public_parts(shares[p]) for p in positions}
    for p in positions:
        assert not ceremony.contradicting_members(shares[p], parts, openings[p], params)
    key = ceremony.collective_key(parts, params, EPOCH)
    return Committee(params=params, contributions=contributions, openings=openings, shares=shares, parts=parts, key=key)


def received(contributions: ceremony.Contributions, holder: int) -> ceremony.Opening:
    """What `holder` accepts from an honest sender."""
    return ceremony.verify_opening(
        ceremony.opening_for(contributions, holder), sender=contributions.position, holder=holder,
        committed=ceremony.commitment(contributions), epoch_id=contributions.epoch_id, params=contributions.params,
    )  # fmt: skip


def forged_share(
    members: Committee, c1: NDArray[np.uint32], residues: NDArray[np.uint32], position: int, quorum: Sequence[int], blamed: int
) -> DecryptionShare:
    """The best a lying member can do for residues of its choice: honest tags but one, which makes them add up."""
    assigned = assign(quorum, members.params.committee, members.params.threshold)[position]
    keys = [members.shares[position].keys[i] for i in assigned]
    names = block_names(c1)
    asked = challenge(names, residues, position, quorum, members.params)
    claimed = tags(asked, c1, keys, flooding_noise(names, keys)).astype(np.int64)
    claimed[assigned.index(blamed)] += asked.of_residues(residues) - claimed.sum(axis=0)
    return DecryptionShare(residues=residues, tags=(claimed % np.array(members.params.data_primes)).astype(np.uint32))


def updates(count: int, parameters: int, seed: int = 1) -> list[NDArray[np.float32]]:
    """Updates as training makes them: mostly small, some beyond the range."""
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.05, parameters).astype(np.float32) for _ in range(count)]


def slow_transform(polynomial: Sequence[int], q: int) -> list[int]:
    """Negacyclic NTT by its definition: values at the odd powers of psi, in bit-reversed order."""
    degree = len(polynomial)
    psi = minimal_root(q, degree)
    points = [pow(psi, 2 * int(i) + 1, q) for i in bit_reversal(degree)]
    return [sum(c * pow(x, k, q) for k, c in enumerate(polynomial)) % q for x in points]


def slow_inverse(values: Sequence[int], q: int) -> list[int]:
    """Inverse of `slow_transform` by interpolation at roots of unity."""
    degree = len(values)
    psi = minimal_root(q, degree)
    points = [pow(psi, 2 * int(i) + 1, q) for i in bit_reversal(degree)]
    return [sum(v * pow(x, -k, q) for v, x in zip(values, points, strict=True)) * pow(degree, -1, q) % q for k in range(degree)]


def slow_product(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Product modulo X^N + 1 over the integers, as at school."""
    degree = len(left)
    out = [0] * degree
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            sign = 1 if i + j < degree else -1
            out[(i + j) % degree] += sign * a * b
    return out


def slow_crt(residues: Sequence[Sequence[int]], primes: Sequence[int]) -> list[int]:
    """Centred integers with these residues per prime."""
    modulus = int(np.prod([int(q) for q in primes], dtype=object))
    basis = [modulus // q * pow(modulus // q, -1, q) for q in primes]
    joint = [sum(int(r) * b for r, b in zip(column, basis, strict=True)) % modulus for column in zip(*residues, strict=True)]
    return [x - modulus if x > modulus // 2 else x for x in joint]
