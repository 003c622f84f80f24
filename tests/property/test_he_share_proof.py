"""Tags against their definition, computed at school's pace in Python integers."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bahefl_flwr.he.keys import SubsetKey, assign
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.share_format import REPEATS
from bahefl_flwr.he.share_proof import Challenge, block_names, challenge
from he_committee import committee, slow_inverse, slow_product, slow_transform, toy_params

PARAMS = toy_params(degree=16)
ALL = committee(PARAMS)
PRIMES = PARAMS.data_primes
QUORUM = (0, 2, 3)
seeds = st.integers(0, 2**32)


def random_c1(seed: int, blocks: int) -> np.ndarray:
    """Residues as an aggregate has them: uniform, or all as large as they can be."""
    rng = np.random.default_rng(seed)
    columns = [rng.integers(0 if seed else q - 1, q, (blocks, 16)) for q in PRIMES]
    return np.stack(columns, axis=1).astype(np.uint32)


def slow_functional(asked: Challenge, polynomials: list[list[int]], repeat: int, q: int) -> int:
    """Sum over blocks of the weight times the sum over the NTT slots of u * x, for x in coefficients."""
    u = slow_transform(asked.polynomials[repeat].tolist(), q)
    slots = [slow_transform(x, q) for x in polynomials]
    weights = asked.weights[repeat].tolist()
    return sum(w * sum(a * b for a, b in zip(u, x, strict=True)) for w, x in zip(weights, slots, strict=True)) % q


def slow_contribution(c1: np.ndarray, key: SubsetKey, prime: int) -> list[list[int]]:
    """c1 * s_A + noise_A modulo one prime, coefficients, per block."""
    q = PRIMES[prime]
    secret = slow_inverse(key.secret[prime].tolist(), q)
    products = [slow_product(slow_inverse(block[prime].tolist(), q), secret) for block in c1]
    noise = [key.flooding_noise(name).tolist() for name in block_names(c1)]
    return [[(a + b) % q for a, b in zip(*pair, strict=True)] for pair in zip(products, noise, strict=True)]


@settings(max_examples=10)
@given(seed=seeds, blocks=st.integers(1, 3), position=st.sampled_from(QUORUM))
def test_every_tag_is_its_definition(seed: int, blocks: int, position: int) -> None:
    """weight * sum of u * (c1 * s_A + noise_A), for every subset, repetition and prime; and their sum is that of the share."""
    c1 = random_c1(seed, blocks)
    share = ALL.share_of(c1, position, QUORUM)
    asked = challenge(block_names(c1), share.residues, position, QUORUM, PARAMS)
    for l, q in enumerate(PRIMES):
        parts = [slow_contribution(c1, ALL.shares[position].keys[i], l) for i in assign(QUORUM, 5, 3)[position]]
        for r in range(REPEATS):
            assert share.tags[:, r, l].tolist() == [slow_functional(asked, part, r, q) for part in parts]
            whole = [slow_inverse(block[l].tolist(), q) for block in share.residues]
            assert slow_functional(asked, whole, r, q) == sum(share.tags[:, r, l].tolist()) % q


def random_challenge(seed: int, blocks: int, params: SecurityParams = PARAMS) -> Challenge:
    """Some challenge."""
    return challenge([bytes([k]) * 32 for k in range(blocks)], random_c1(seed + 1, blocks), 0, QUORUM, params)


@settings(max_examples=20)
@given(seed=seeds, blocks=st.sampled_from([1, 20, 21, 45]), fill=st.sampled_from([-(2**49) + 1, -1, 0, 1, 2**49 - 1]))
def test_the_largest_noise_is_still_exact(seed: int, blocks: int, fill: int) -> None:
    """Up to 2^49, sixteen times the widest flooding, for more blocks than one product of BLAS takes."""
    asked = random_challenge(seed, blocks)
    signs = np.random.default_rng(seed).choice([-1, 1], (1, blocks, 16))
    found = asked.of_noise(fill * signs)[0]
    wanted = [[slow_functional(asked, (fill * signs[0]).tolist(), r, q) for q in PRIMES] for r in range(REPEATS)]
    assert found.tolist() == wanted


@settings(max_examples=20)
@given(seed=seeds, blocks=st.sampled_from([1, 20, 21, 45]))
def test_products_are_exact_whatever_the_residues(seed: int, blocks: int) -> None:
    """Of c1 and s_A as large as residues get, and for any number of blocks."""
    asked = random_challenge(seed, blocks)
    c1 = np.broadcast_to(np.array(PRIMES, dtype=np.uint32)[:, None] - 1, (blocks, 3, 16))
    secrets = np.broadcast_to(np.array(PRIMES)[:, None] - 1, (2, 3, 16))
    both = np.ones_like(c1)  # (q-1) * (q-1) is 1
    assert np.array_equal(asked.of_products(c1, secrets), [asked.of_residues(both)] * 2)


def test_more_blocks_than_are_weighted_at_once() -> None:
    """300 blocks: the sum over blocks goes on where one exact floating-point sum has to end."""
    asked = random_challenge(1, 250)
    doubled = Challenge(polynomials=asked.polynomials, slots=asked.slots, weights=np.tile(asked.weights, 2), params=PARAMS)
    c1, secrets = random_c1(2, 250), random_c1(3, 1).astype(np.int64)
    twice = 2 * asked.of_products(c1, secrets) % np.array(PRIMES)
    assert np.array_equal(doubled.of_products(np.tile(c1, (2, 1, 1)), secrets), twice)


def test_the_challenge_is_its_description() -> None:
    """Uniform below the least prime, from a digest of parameters, position, quorum, blocks and residues."""
    c1, residues = random_c1(1, 2), random_c1(2, 2)
    asked = challenge(block_names(c1), residues, 2, QUORUM, PARAMS)
    names = b"".join(hashlib.sha256(framed(b"block", block.astype("<u4").tobytes())).digest() for block in c1)
    words = [
        b"share-challenge",
        PARAMS.digest(),
        (2).to_bytes(8, "little"),
        bytes(QUORUM),
        names,
        residues.astype("<u4").tobytes(),
    ]
    assert asked.polynomials.shape == (REPEATS, 16)
    assert asked.weights.shape == (REPEATS, 2)
    assert np.concatenate([asked.polynomials, asked.weights], axis=1).max() < PRIMES[0]
    assert drawn(hashlib.sha256(framed(*words)).digest(), 4) == asked.polynomials.ravel()[:4].tolist()


def framed(*parts: bytes) -> bytes:
    """Every part with its length, after the package's name."""
    return b"bahefl/" + b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def drawn(seed: bytes, count: int) -> list[int]:
    """The first numbers below the least prime from AES-256-CTR, two bits short of a word each."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(4 * (count + 8)))
    words = (int.from_bytes(stream[4 * k : 4 * k + 4], "little") >> 2 for k in range(count + 8))
    return [word for word in words if word < PRIMES[0]][:count]


@pytest.mark.parametrize("change", ["residues", "c1", "position", "quorum", "params"])
def test_everything_moves_the_challenge(change: str) -> None:
    """Nobody knows the functionals before it has settled on all of these."""
    c1, residues = random_c1(1, 2), random_c1(2, 2)
    other = residues.copy()
    other[1, 2, 15] ^= 1
    asked = {
        "c1": block_names(other if change == "c1" else c1),
        "residues": other if change == "residues" else residues,
        "position": 3 if change == "position" else 2,
        "quorum": (1, 2, 3) if change == "quorum" else QUORUM,
        "params": toy_params(degree=16, weight_bits=1) if change == "params" else PARAMS,
    }
    first = challenge(block_names(c1), residues, 2, QUORUM, PARAMS)
    moved = challenge(asked["c1"], asked["residues"], asked["position"], asked["quorum"], asked["params"])
    assert not np.isin(moved.polynomials, first.polynomials).any()
