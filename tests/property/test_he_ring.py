"""The fast ring against its definition in Python integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.he.params import DATA_PRIMES, RING_DEGREE
from bahefl_flwr.he.ring import Ring, reduce, ring
from he_committee import real_params, slow_inverse, slow_product, slow_transform, toy_params

TOY = ring(toy_params(degree=16))
REAL = ring(real_params())
Q = DATA_PRIMES[0] * DATA_PRIMES[1] * DATA_PRIMES[2]

coefficients = st.lists(st.integers(-(2**30) + 1, 2**30 - 1), min_size=16, max_size=16)
primes = st.integers(0, 2)


@given(polynomial=coefficients, prime=primes)
def test_forward_is_the_evaluation_at_odd_powers_of_psi(polynomial: list[int], prime: int) -> None:
    """The transform equals its definition for every input in its domain."""
    values = np.array([polynomial])
    TOY.forward(values, prime)
    assert values[0].tolist() == slow_transform(polynomial, DATA_PRIMES[prime])


@given(values=st.lists(st.integers(0, min(DATA_PRIMES) - 1), min_size=16, max_size=16), prime=primes)
def test_inverse_is_the_interpolation(values: list[int], prime: int) -> None:
    """The inverse transform equals its definition."""
    fast = np.array([values])
    TOY.inverse(fast, prime)
    assert fast[0].tolist() == slow_inverse(values, DATA_PRIMES[prime])


@given(left=coefficients, right=coefficients, prime=primes)
def test_products_are_negacyclic(left: list[int], right: list[int], prime: int) -> None:
    """Pointwise products are products modulo X^N + 1."""
    q = DATA_PRIMES[prime]
    a, b = np.array([left]), np.array([right])
    TOY.forward(a, prime)
    TOY.forward(b, prime)
    product = reduce(a * b, q)
    TOY.inverse(product, prime)
    assert product[0].tolist() == [x % q for x in slow_product(left, right)]


@pytest.mark.parametrize("q", DATA_PRIMES)
def test_the_lazy_bounds_fit_in_63_bits(q: int) -> None:
    """Inputs below 2^30 that grow by q in 11 stages, times a centred root; sums of 8q; and the final factor 1/N."""
    assert (2**30 + 11 * q) * (q // 2) + 2**34 < 2**63
    assert 8 * q * q < 2**63


@pytest.mark.parametrize("prime", range(3))
@pytest.mark.parametrize("fill", [-(2**30) + 1, -1, 1, 2**30 - 1])
def test_extreme_polynomials_come_back(prime: int, fill: int) -> None:
    """At the real degree, polynomials of extreme coefficients come back from both transforms unharmed."""
    signs = np.random.default_rng(prime).choice([-1, 1], size=(20, RING_DEGREE))
    signs[0], signs[1] = 1, np.resize([1, -1], RING_DEGREE)
    values = fill * signs
    there_and_back = values.copy()
    REAL.forward(there_and_back, prime)
    REAL.inverse(there_and_back, prime)
    assert np.array_equal(there_and_back, reduce(values, DATA_PRIMES[prime]))


@pytest.mark.parametrize("prime", range(3))
def test_the_real_ring_multiplies_by_shifting(prime: int) -> None:
    """X^k * p is p, rotated, with the wrapped part negated: a check of every root at degree 4096."""
    q = DATA_PRIMES[prime]
    rng = np.random.default_rng(prime)
    a = rng.integers(0, q, (9, RING_DEGREE))
    monomials = np.zeros_like(a)
    shifts = [0, 1, 2, 31, 32, 63, 2048, 4094, 4095]
    monomials[np.arange(9), shifts] = 1
    fast = a.copy()
    shifted = np.stack([np.concatenate([-row[4096 - k :], row[: 4096 - k]]) for row, k in zip(a, shifts, strict=True)])
    REAL.forward(fast, prime)
    REAL.forward(monomials, prime)
    product = reduce(fast * monomials, q)
    REAL.inverse(product, prime)
    assert np.array_equal(product, reduce(shifted, q))


@given(x=st.lists(st.integers(-(Q // 2), Q // 2), min_size=1, max_size=20), bits=st.integers(32, 45))
def test_crt_round_is_rounding_of_the_centred_integer(x: list[int], bits: int) -> None:
    """Decoding equals exact integer arithmetic, for every 90-bit integer."""
    residues = [np.array([v % q for v in x]) for q in DATA_PRIMES]
    assert REAL.crt_round(residues, bits).tolist() == [(v + (1 << (bits - 1))) >> bits for v in x]


def test_batches_are_independent_of_each_other() -> None:
    """Transforming many polynomials equals transforming each."""
    structure = Ring(64, DATA_PRIMES)
    values = np.random.default_rng(3).integers(0, 2**30, (19, 64))
    one_by_one = [row[None].copy() for row in values]
    structure.forward(values, 1)
    for row in one_by_one:
        structure.forward(row, 1)
    assert np.array_equal(values, np.concatenate(one_by_one))
