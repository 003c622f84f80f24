"""Arithmetic of Z_q[X]/(X^N + 1) in residue number system: number theoretic transform in SEAL's order, and decoding by CRT.

Only deterministic arithmetic lives here, on numpy int64; nothing random and nothing secret.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.he.params import SecurityParams

Int64Array = NDArray[np.int64]
# Polynomials per batch: numpy's per-call cost is spread, the 320 kB in use fit the second-level cache, and a part is one batch
# (5 % less CPU than 8). Encryption draws its randomness batch by batch: another number gives other bytes for the same seed.
BATCH: Final = 10
_CARRY_BITS: Final = 32


class Ring:
    """Tables and transforms of one ring.

    Attributes:
      degree: N, a power of two.
      primes: the RNS primes, each 1 mod 2N and below 2^30.
    """

    def __init__(self, degree: int, primes: tuple[int, ...]) -> None:
        self.degree = degree
        self.primes = primes
        self._transforms = tuple(_Transform(degree, q) for q in primes)

    def forward(self, values: Int64Array, prime: int) -> None:
        """Negacyclic NTT modulo `primes[prime]`, in place.

        Args:
          values: shape (blocks, N), C-contiguous, any magnitude below 2^30. On return 0..q-1, in SEAL's (bit-reversed) order.
        """
        for start in range(0, len(values), BATCH):
            self._transforms[prime].forward(values[start : start + BATCH])

    def inverse(self, values: Int64Array, prime: int) -> None:
        """Inverse of `forward`, in place; takes and leaves 0..q-1."""
        for start in range(0, len(values), BATCH):
            self._transforms[prime].inverse(values[start : start + BATCH])

    def forward_all(self, values: Int64Array) -> Int64Array:
        """Transforms of small integer polynomials modulo every prime.

        Args:
          values: shape (blocks, N), any int64.

        Returns:
          Residues of shape (blocks, primes, N).
        """
        out = np.empty((len(values), len(self.primes), self.degree), dtype=np.int64)
        for l, q in enumerate(self.primes):
            residues = reduce(values, q)
            self.forward(residues, l)
            out[:, l] = residues
        return out

    def monomials(self, exponents: Int64Array) -> Int64Array:
        """Transforms of X^k: slot j holds psi^(k * (2 * bitrev(j) + 1)).

        Args:
          exponents: k, shape (count,), 0..2N-1; X^N is -1.

        Returns:
          Centred residues, magnitudes at most q/2, of shape (count, primes, N).
        """
        odd = 2 * bit_reversal(self.degree) + 1
        places = exponents[:, None] * odd % (2 * self.degree)  # (count, N)
        return np.stack([table[places] for table in self._root_powers], axis=1)

    @cached_property
    def _root_powers(self) -> tuple[Int64Array, ...]:
        """All 2N powers of psi, centred, per prime."""
        tables = []
        for q in self.primes:
            powers = _powers(minimal_root(q, self.degree), 2 * self.degree, q)
            powers[powers > q // 2] -= q
            tables.append(powers)
        return tuple(tables)

    def crt_round(self, residues: list[Int64Array], bits: int) -> Int64Array:
        """Nearest integers to x / 2^bits, where x is the centred integer with these residues modulo three primes.

        Args:
          residues: three arrays of one shape, coefficient domain, 0..q-1.
          bits: 32..60.

        Returns:
          int64 array of that shape. Integer arithmetic only, hence equal on every machine.
        """
        q0, q1, q2 = self.primes
        half = q0 * q1 * q2 // 2
        x0, x1, x2 = (reduce(x + half % q, q) for x, q in zip(residues, self.primes, strict=True))
        d1 = reduce(reduce(x1 - x0, q1) * pow(q0, -1, q1), q1)
        low = d1 * q0 + x0  # < 2^60
        d2 = reduce(reduce(x2 - reduce(low, q2), q2) * pow(q0 * q1, -1, q2), q2)
        # x + half = d2 * q0 * q1 + low has 90 bits: split q0 * q1 at bit 32 so that every product fits in 63 bits.
        offset = (1 << (bits - 1)) - half
        low += d2 * (q0 * q1 % (1 << _CARRY_BITS)) + offset % (1 << _CARRY_BITS)
        high = d2 * (q0 * q1 >> _CARRY_BITS) + (offset >> _CARRY_BITS)
        return ((low >> _CARRY_BITS) + high) >> (bits - _CARRY_BITS)


class _Transform:
    """Butterflies for one prime, at most 12 stages. Sums are reduced once, at the end: each stage adds q to magnitudes."""

    def __init__(self, degree: int, q: int) -> None:
        self._q = q
        self._degree = degree
        # The last stages work on short strides, which numpy is slow at: they run on a transposed copy with long rows.
        self._tail = min(32, degree // 4)
        psi = minimal_root(q, degree)
        self._stages = self._tables(psi)
        self._inverse_stages = tuple(reversed(self._tables(pow(psi, -1, q))))
        self._inverse_degree = pow(degree, -1, q)

    def _tables(self, root: int) -> tuple[tuple[int, int, Int64Array], ...]:
        """(groups, stride, powers) per stage; powers shaped to broadcast over that stage's view."""
        n, tail = self._degree, self._tail
        powers = _powers(root, n, self._q)[bit_reversal(n)]
        # Centred, |w| < 2^29: products of a factor that 11 stages have grown to 12q still fit 63 bits.
        powers[powers > self._q // 2] -= self._q
        stages = []
        groups, stride = 1, n // 2
        while stride >= 1:
            stage = powers[groups : 2 * groups]
            if stride < tail:
                stage = np.ascontiguousarray(stage.reshape(n // tail, tail // (2 * stride)).T)[:, None, :]  # (g, 1, N / tail)
            else:
                stage = stage[:, None]  # (groups, 1)
            stages.append((groups, stride, stage))
            groups, stride = 2 * groups, stride // 2
        return tuple(stages)

    def forward(self, values: Int64Array) -> None:
        """In place, shape (blocks, N): coefficients of any magnitude below 2^30 to slots in 0..q-1, in bit-reversed order."""
        scratch = _Scratch(values.size // 2)
        for groups, stride, powers in self._stages:
            if stride < self._tail:
                break
            view = values.reshape(-1, groups, 2, stride)  # (blocks, groups, 2, stride)
            self._butterfly(view[:, :, 0], view[:, :, 1], powers, scratch)
        rows = self._transposed(values)
        for _, stride, powers in self._stages:
            if stride < self._tail:
                view = self._tail_view(rows, stride)
                self._butterfly(view[:, :, 0], view[:, :, 1], powers, scratch)
        self._restore(reduce(rows, self._q), values)

    def inverse(self, values: Int64Array) -> None:
        """In place, shape (blocks, N): slots in 0..q-1 back to coefficients in 0..q-1."""
        scratch = _Scratch(values.size // 2)
        rows = self._transposed(values)
        for i, (_, stride, powers) in enumerate(self._inverse_stages):
            if stride < self._tail:
                view = self._tail_view(rows, stride)
                self._inverse_butterfly(view[:, :, 0], view[:, :, 1], powers, scratch, i % 4 == 3)
        self._restore(rows, values)
        for i, (groups, stride, powers) in enumerate(self._inverse_stages):
            if stride >= self._tail:
                view = values.reshape(-1, groups, 2, stride)  # (blocks, groups, 2, stride)
                self._inverse_butterfly(view[:, :, 0], view[:, :, 1], powers, scratch, i % 4 == 3)
        values *= self._inverse_degree
        _reduce_into(values, self._q)

    def _butterfly(self, x: Int64Array, y: Int64Array, powers: Int64Array, scratch: _Scratch) -> None:
        """(x, y) becomes (x + w*y, x - w*y), the product reduced to 0..q-1."""
        product, quotient = scratch.shaped(x.shape)
        np.multiply(y, powers, out=product)
        # numpy's floor division by a scalar is vectorised, its remainder is not: 2x less CPU.
        np.floor_divide(product, self._q, out=quotient)
        quotient *= self._q
        product -= quotient
        np.subtract(x, product, out=y)
        x += product

    def _inverse_butterfly(self, x: Int64Array, y: Int64Array, powers: Int64Array, scratch: _Scratch, reduce_sum: bool) -> None:
        """(x, y) becomes (x + y, (x - y)*w). Sums double per stage; reduced every fourth, they stay below 8q."""
        product, quotient = scratch.shaped(x.shape)
        np.subtract(x, y, out=product)
        product *= powers
        x += y
        np.floor_divide(product, self._q, out=quotient)
        quotient *= self._q
        np.subtract(product, quotient, out=y)
        if reduce_sum:
            np.floor_divide(x, self._q, out=quotient)
            quotient *= self._q
            x -= quotient

    def _tail_view(self, rows: Int64Array, stride: int) -> Int64Array:
        groups = self._tail // (2 * stride)
        return rows.reshape(-1, groups, 2, stride, self._degree // self._tail)  # (blocks, groups, 2, stride, N / tail)

    def _transposed(self, values: Int64Array) -> Int64Array:
        grid = values.reshape(-1, self._degree // self._tail, self._tail)
        return np.ascontiguousarray(grid.transpose(0, 2, 1))  # (blocks, tail, N / tail)

    def _restore(self, rows: Int64Array, values: Int64Array) -> None:
        values.reshape(-1, self._degree // self._tail, self._tail)[...] = rows.transpose(0, 2, 1)  # (blocks, N / tail, tail)


class _Scratch:
    """Two buffers of half a batch, shared by all stages of one transform."""

    def __init__(self, size: int) -> None:
        self._product = np.empty(size, dtype=np.int64)
        self._quotient = np.empty(size, dtype=np.int64)

    def shaped(self, shape: tuple[int, ...]) -> tuple[Int64Array, Int64Array]:
        """Both buffers as views of this shape, which has as many elements as they; what they hold is left over."""
        return self._product.reshape(shape), self._quotient.reshape(shape)


def reduce(values: Int64Array, q: int) -> Int64Array:
    """`values` modulo q, in 0..q-1; a new array. Twice as fast as numpy's `%`, whose remainder is not vectorised."""
    quotient = np.floor_divide(values, q)
    quotient *= q
    return np.subtract(values, quotient, out=quotient)


def _reduce_into(values: Int64Array, q: int) -> None:
    quotient = np.floor_divide(values, q)
    quotient *= q
    values -= quotient


def minimal_root(q: int, degree: int) -> int:
    """The least primitive 2N-th root of unity modulo q: the one SEAL builds its tables from."""
    candidates = (pow(g, (q - 1) // (2 * degree), q) for g in range(2, q))
    root = next(r for r in candidates if pow(r, degree, q) == q - 1)
    return min(int(x) for x in _powers(root, 2 * degree, q)[1::2])


def bit_reversal(degree: int) -> NDArray[np.intp]:
    """Permutation that reverses the bits of 0..degree-1; degree is a power of two."""
    order = np.zeros(1, dtype=np.intp)
    while len(order) < degree:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def _powers(base: int, count: int, q: int) -> Int64Array:
    powers = [1] * count
    for i in range(1, count):
        powers[i] = powers[i - 1] * base % q
    return np.array(powers, dtype=np.int64)


@lru_cache(maxsize=8)
def _ring(degree: int, primes: tuple[int, ...]) -> Ring:
    return Ring(degree, primes)


def ring(params: SecurityParams) -> Ring:
    """The ring of these parameters; tables are built once per process (about 10 ms)."""
    return _ring(params.ring_degree, params.data_primes)
