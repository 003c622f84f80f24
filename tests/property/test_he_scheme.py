"""Encryption, addition and decryption on a small ring against Python integers."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.params import fresh_noise_std
from bahefl_flwr.he.sampling import Generator, SecretSeed, centred_binomial, ternary
from he_committee import committee, slow_crt, slow_inverse, slow_product, slow_transform, toy_params

PARAMS = toy_params(degree=16, weight_bits=3)
ALL = committee(PARAMS)
rows = st.lists(st.integers(-(2**50), 2**50), min_size=16, max_size=16)
seeds = st.binary(min_size=32, max_size=32)


def secret_coefficients() -> list[int]:
    """The whole secret key: something only a test can know."""
    keys = {i: key for share in ALL.shares for i, key in share.keys.items()}
    q = PARAMS.data_primes[0]
    total = np.sum([key.secret[0] for key in keys.values()], axis=0) % q
    return [x - q if x > q // 2 else x for x in slow_inverse(total.tolist(), q)]


SECRET = secret_coefficients()


def slow_decrypt(ciphertext: np.ndarray) -> list[int]:
    """c0 + c1 * s over the integers, noise included."""
    primes = PARAMS.data_primes
    c0, c1 = (slow_crt([slow_inverse(row.tolist(), q) for row, q in zip(c, primes, strict=True)], primes) for c in ciphertext)
    exact = [a + b for a, b in zip(c0, slow_product(c1, SECRET), strict=True)]
    return slow_crt([[x % q for x in exact] for q in primes], primes)


@settings(max_examples=15)
@given(row=rows, seed=seeds)
def test_encryption_is_its_formula(row: list[int], seed: bytes) -> None:
    """(u*b + e0 + m*2^f, u*a + e1), computed at school's pace from the same random polynomials, has the same residues."""
    packed = np.array([row])
    fresh = SecretSeed(seed).derive("encrypt", ALL.key.digest(), hashlib.sha256(packed.tobytes()).digest(), 0)
    generator = Generator(fresh)
    u, e0, e1 = ternary(generator, 16), centred_binomial(generator, 16), centred_binomial(generator, 16)
    message = [m * 2**PARAMS.noise_bits + e for m, e in zip(row, e0.tolist(), strict=True)]
    ciphertext = encrypt(packed, ALL.key, PARAMS, SecretSeed(seed))
    for l, q in enumerate(PARAMS.data_primes):
        mask = slow_transform(u.tolist(), q)
        c0 = [(x * int(b) + m) % q for x, b, m in zip(mask, ALL.key.b[l], slow_transform(message, q), strict=True)]
        c1 = [(x * int(a) + e) % q for x, a, e in zip(mask, ALL.key.a[l], slow_transform(e1.tolist(), q), strict=True)]
        assert ciphertext[0, :, l].tolist() == [c0, c1]


@settings(max_examples=15)
@given(row=rows)
def test_decryption_by_the_definition_gives_message_and_small_noise(row: list[int]) -> None:
    """c0 + c1*s is the message above noise of the predicted size."""
    decrypted = slow_decrypt(encrypt(np.array([row]), ALL.key, PARAMS)[0])
    noise = [x - (m << PARAMS.noise_bits) for x, m in zip(decrypted, row, strict=True)]
    assert max(map(abs, noise)) < 8 * fresh_noise_std(PARAMS)


@settings(max_examples=15)
@given(left=rows, right=rows, weights=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_sums_of_ciphertexts_are_sums_of_messages(left: list[int], right: list[int], weights: tuple[int, int]) -> None:
    """Weighted addition is exact on what the fields hold."""
    ciphertexts = [encrypt(np.array([row]), ALL.key, PARAMS) for row in (left, right)]
    opened = slow_decrypt(add(ciphertexts, weights, PARAMS)[0])
    half = 1 << (PARAMS.noise_bits - 1)
    wanted = [weights[0] * a + weights[1] * b for a, b in zip(left, right, strict=True)]
    assert [(x + half) >> PARAMS.noise_bits for x in opened] == wanted


@settings(max_examples=15)
@given(row=rows)
def test_a_quorum_decrypts_as_the_definition_does(row: list[int]) -> None:
    """The threshold opening equals decryption by the whole key, up to flooding noise in the lowest field."""
    ciphertext = encrypt(np.array([row]), ALL.key, PARAMS)
    opened = ALL.open(ciphertext, (0, 2, 4))[0]
    flood = 8 * 2 ** (PARAMS.flooding_sigma_log2 - PARAMS.noise_bits) * 10**0.5 + 1
    assert np.abs(opened - np.array(row)).max() <= flood
