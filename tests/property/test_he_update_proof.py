"""The proof of an update against its definition in Python integers, and the steps of the argument why it proves what it says."""

import hashlib
import itertools
import math
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from bahefl_flwr.he import proof_bounds
from bahefl_flwr.he.params import SecurityParams, security_bits
from bahefl_flwr.he.proof_bounds import REPETITIONS
from bahefl_flwr.he.sampling import Generator, SecretSeed, flooding, flooding_density
from bahefl_flwr.he.update_proof import _add_turned, encrypt_with_proof
from he_committee import committee, real_params, slow_inverse, slow_product, slow_transform, toy_params

PARAMS = toy_params(degree=16)
KEY = committee(PARAMS).key
PRIMES = PARAMS.data_primes
CONTEXT = b"some site's update of some round"


def monomial(k: int, degree: int = 16) -> list[int]:
    """X^k modulo X^N + 1, for any k."""
    sign = -1 if k // degree % 2 else 1
    return [sign if at == k % degree else 0 for at in range(degree)]


def framed(*parts: bytes) -> bytes:
    """Every part with its length, after the package's name."""
    return b"bahefl/" + b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def slow_challenges(challenge: bytes, blocks: int) -> list[list[int]]:
    """Exponents from AES-256-CTR under the challenge, 16 bits each, repetition by repetition."""
    count = REPETITIONS * blocks
    stream = Cipher(algorithms.AES256(challenge), modes.CTR(bytes(16))).encryptor().update(bytes(2 * count))
    exponents = [word % 32 for word in struct.unpack(f"<{count}H", stream)]
    return [exponents[r * blocks : (r + 1) * blocks] for r in range(REPETITIONS)]


def slow_commitment(answers: np.ndarray, turns: list[int], c1: np.ndarray, prime: int) -> list[int]:
    """NTT of a*z + z' - sum over blocks of X^k * c1, modulo one prime, for one repetition."""
    q = PRIMES[prime]
    rest = answers[1].tolist()
    for block, k in zip(c1, turns, strict=True):
        turned = slow_product(monomial(k), slow_inverse(block[prime].tolist(), q))
        rest = [(x - y) % q for x, y in zip(rest, turned, strict=True)]
    first = slow_transform([x % q for x in answers[0].tolist()], q)
    a = KEY.a[prime].tolist()
    return [(x * y + z) % q for x, y, z in zip(a, first, slow_transform(rest, q), strict=True)]


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32), blocks=st.integers(1, 3))
def test_the_challenge_is_the_hash_that_the_protocol_names(seed: int, blocks: int) -> None:
    """Recomputed with hashlib, AES and schoolbook products from the bytes of ciphertexts and proof alone."""
    packed = np.arange(16 * blocks).reshape(blocks, 16)
    ciphertexts, proof = encrypt_with_proof(packed, KEY, PARAMS, CONTEXT, SecretSeed(seed.to_bytes(32, "little")))
    challenge, c1 = proof[12:44], ciphertexts[:, 1]
    words = np.frombuffer(proof, np.uint8, offset=44).reshape(-1, 3)
    answers = np.array([int.from_bytes(w.tobytes(), "little", signed=True) for w in words]).reshape(REPETITIONS, 2, 16)
    turns = slow_challenges(challenge, blocks)
    rows = [slow_commitment(answers[r], turns[r], c1, l) for l in range(3) for r in range(REPETITIONS)]
    commitments = hashlib.sha256(b"".join(struct.pack("<16I", *row) for row in rows)).digest()
    c1_digest = hashlib.sha256(c1.astype("<u4").tobytes()).digest()
    about = (PARAMS.digest(), KEY.digest(), CONTEXT, blocks.to_bytes(8, "little"), c1_digest)
    statement = hashlib.sha256(framed(b"update-statement", *about)).digest()
    assert challenge == hashlib.sha256(framed(b"update-challenge", statement, commitments)).digest()


@given(k=st.integers(0, 31), row=st.lists(st.integers(-(2**40), 2**40), min_size=16, max_size=16))
def test_turning_is_the_product_with_a_monomial(k: int, row: list[int]) -> None:
    """X^k times a polynomial, for every k up to 2N - 1."""
    total = np.ones((1, 1, 16), dtype=np.int64)
    _add_turned(total, np.array([row]), np.array([k]))
    assert (total[0, 0] - 1).tolist() == slow_product(monomial(k), row)


@pytest.mark.parametrize("difference", range(1, 32))
def test_two_over_a_difference_of_monomials_has_small_coefficients(difference: int) -> None:
    """2 / (1 - X^d) is the sum of X^(d t) up to where X^(d t) is -1: -1, 0 and 1 only. Any X^i - X^j is that times a monomial."""
    steps = next(t for t in range(1, 33) if difference * t % 32 == 16)
    inverse = np.sum([monomial(difference * t) for t in range(steps)], axis=0).tolist()
    divisor = [x - y for x, y in zip(monomial(0), monomial(difference), strict=True)]
    assert set(inverse) <= {-1, 0, 1}
    assert slow_product(divisor, inverse) == [2] + [0] * 15


def test_no_set_of_exponents_has_a_longer_mean_than_an_arc() -> None:
    """All 255 sets of exponents of X^4 + 1, at each of its roots: the bound on u and e rests on it."""
    for exponents in itertools.chain.from_iterable(itertools.combinations(range(8), size) for size in range(1, 9)):
        part = len(exponents) / 8
        arc = math.sin(math.pi * part) / (8 * part * math.sin(math.pi / 8))
        means = [abs(np.mean([np.exp(1j * np.pi * root * k / 4) for k in exponents])) for root in (1, 3, 5, 7)]
        assert max(means) <= arc + 1e-12


@pytest.mark.parametrize("m", range(5))
def test_answering_for_a_part_of_the_exponents_leaves_few_parities(m: int) -> None:
    """Polynomials that X^(2^m) - 1 times makes even are the multiples of (X + 1)^(N - 2^m) modulo 2: a space of 2^m bits."""
    turned = np.array([[(slow_product(monomial(2**m), monomial(k))[at] + (at == k)) % 2 for at in range(16)] for k in range(16)])
    assert 16 - rank_modulo_2(turned) == 2**m


def rank_modulo_2(matrix: np.ndarray) -> int:
    """By elimination."""
    rows, rank = [int("".join(map(str, row)), 2) for row in matrix.tolist()], 0
    while any(rows):
        pivot = max(rows)
        rank += 1
        rows.remove(pivot)
        rows = [min(row, row ^ pivot) for row in rows]
    return rank


@pytest.mark.parametrize("part", [1 / 2, 1 / 4, 1 / 16])
@pytest.mark.parametrize("blocks", [2, 3, 4, 8, 30])
def test_spreading_a_cheat_over_blocks_gains_at_most_a_factor_two(blocks: int, part: float) -> None:
    """The least variance that a part of all challenges leaves, at one root, against that of one block of the same total norm.

    An experiment, not a proof: two blocks that cancel each other come to a half, more blocks to more.
    """
    turns = np.random.default_rng(blocks).random((blocks, 60_000))
    sums = np.exp(2j * np.pi * turns).sum(axis=0) / math.sqrt(blocks)
    centres = np.linspace(0, np.abs(sums).max(), 40)
    least = min(np.sort(np.abs(sums - centre) ** 2)[: int(part * 60_000)].mean() for centre in centres)
    one = 1 - (math.sin(math.pi * part) / (math.pi * part)) ** 2
    assert least / one > 0.45


@pytest.mark.parametrize(("work", "times"), [(0, 1.42), (32, 3.25), (64, 12.5), (128, 200)])
def test_what_a_proof_lets_through_grows_with_the_hashes_spent(work: int, times: float) -> None:
    """Norms of u and e in bounds of an answer, as docs/security.md has them."""
    bounds = np.sqrt(proof_bounds.largest_squares(4096, 82))
    assert np.array(proof_bounds.cheat_norms(4096, 82, work)) / bounds == pytest.approx([times] * 2, rel=0.01)


def test_a_cheat_moves_an_opening_as_far_as_the_divergence_says() -> None:
    """e * s_A - u * e_A of the largest cheat against the flooding of A: half its squared length in sigmas, within 15 %."""
    params = real_params(weight_bits=3)
    key = next(iter(committee(params).shares[0].keys.values()))
    largest = proof_bounds.cheat_norms(4096, 82, 0)
    ternary, error = (np.random.default_rng(1).normal(0, norm / 64, 4096) for norm in largest)
    secret, key_error = np.rint(np.random.default_rng(2).normal(0, np.sqrt([2 / 3, 10.5])[:, None], (2, 4096)))
    moved = cyclic(error, secret) - cyclic(ternary, key_error)
    told = (8 * moved) @ (8 * moved) / (2 * 4.0**params.flooding_sigma_log2)
    # The divergence counts two blocks that help each other.
    counted = proof_bounds.cheat_divergence(4096, 82, params.flooding_sigma_log2, weight=8, openings=1, work_log2=0) / 2
    assert key.degree == 4096
    assert told == pytest.approx(counted, rel=0.15)


def cyclic(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Product modulo X^N + 1 in floating point."""
    whole = np.fft.irfft(np.fft.rfft(left, 2 * len(left)) * np.fft.rfft(right, 2 * len(left)))
    return whole[: len(left)] - whole[len(left) :]


@pytest.mark.parametrize("sigma_log2", [10, 15])
def test_the_density_is_the_samplers(sigma_log2: int) -> None:
    """Relative frequencies of 400,000 draws in 40 bins are the density's sums, by chi-square."""
    drawn = flooding(Generator(SecretSeed(b"d" * 32)), 400_000, sigma_log2)
    edges = np.linspace(-4 << sigma_log2, 4 << sigma_log2, 41).astype(np.int64)
    every = np.arange(edges[0], edges[-1])
    sums = np.add.reduceat(flooding_density(every, sigma_log2), edges[:-1] - edges[0]) / (1 << (sigma_log2 - 2))
    expected = sums * len(drawn)
    found = np.histogram(drawn, edges)[0]
    assert ((found - expected) ** 2 / expected).sum() < 80  # 40 degrees of freedom
    assert not flooding_density(np.array([-(33 << sigma_log2 - 2), 33 << sigma_log2 - 2]), sigma_log2).any()


def test_the_parities_that_pass_cost_the_key_nothing() -> None:
    """Even all 32 + 32 bits that 2^80 hashes buy take less than a tenth of a bit from the estimate.

    A parity known makes the lattice of the attack sparser by a factor 2 (Dachman-Soled, Ducas, Gong, Rossi, CRYPTO 2020).
    """
    modulus_bits = sum(math.log2(q) for q in SecurityParams.data_primes.fget(PARAMS))
    # At the attack's best number of samples, about 4096, the volume has 4096 * 90 bits.
    assert security_bits(4096, modulus_bits) - security_bits(4096, modulus_bits + 64 / 4096) < 0.1
