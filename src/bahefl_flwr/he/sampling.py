"""Randomness of the scheme: secret seeds, a domain-separated AES-CTR generator, and samplers on top of it.

Integer arithmetic only: two sites that hold the same seed must draw the same numbers, and floating-point logarithms and cosines
differ between processors.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
from typing import Final, Never

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from bahefl_flwr.errors import KeysError

SEED_BYTES: Final = 32
_CBD_WORD: Final = (1 << 21) - 1
# Popcount of 64 bits has variance 16, the two uniforms of one step add 1/6: sigma = 4.02 steps.
_FLOODING_STEP_LOG2: Final = 2
# Probabilities of the popcounts -1..65 of 64 bits, and their differences, between which flooding's density is a straight line.
_POPCOUNTS: Final = np.array([0.0, *(math.comb(64, k) / 2.0**64 for k in range(65)), 0.0])
_SLOPES: Final = np.diff(_POPCOUNTS)
# The bytes 0..254 modulo 3, minus 1; 255 is rejected, for 255 is a multiple of 3.
_TERNARY: Final = (np.arange(256) % 3 - 1).astype(np.int64)


class SecretSeed:
    """32 secret bytes from which a generator starts. Prints redacted, refuses pickling, compares by `is` only.

    Never use one seed for two purposes; `derive` gives an independent seed per label.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        if len(value) != SEED_BYTES:
            raise KeysError(f"a seed has {SEED_BYTES} bytes, got {len(value)}")
        self._value = bytes(value)

    @classmethod
    def random(cls) -> SecretSeed:
        """A fresh seed from the operating system."""
        return cls(os.urandom(SEED_BYTES))

    def derive(self, purpose: str, *context: bytes | int) -> SecretSeed:
        """The independent seed HMAC-SHA256(seed, purpose and context, each with its length)."""
        return SecretSeed(hmac.digest(self._value, frame(purpose, *context), "sha256"))

    def secret_bytes(self) -> bytes:
        """The seed itself, for a sealed message or a key file; never for logs."""
        return self._value

    def __repr__(self) -> str:
        return "<SecretSeed redacted>"

    def __reduce__(self) -> Never:
        raise TypeError("a SecretSeed does not leave its process: seal secret_bytes() explicitly instead of pickling")


class Generator:
    """Pseudo-random bytes: AES-256 in counter mode under the seed."""

    def __init__(self, seed: SecretSeed) -> None:
        self._stream = Cipher(algorithms.AES256(seed.secret_bytes()), modes.CTR(bytes(16))).encryptor()

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """The next `count` bytes."""
        return np.frombuffer(self._stream.update(bytes(count)), dtype=np.uint8)

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` little-endian 64-bit words."""
        return self.bytes(8 * count).view("<u8")


def frame(purpose: str, *context: bytes | int) -> bytes:
    """Unambiguous encoding of a domain label and its context: every part carries its length, integers are 8 bytes."""
    parts = [purpose.encode(), *(c.to_bytes(8, "little") if isinstance(c, int) else c for c in context)]
    return b"bahefl/" + b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def digest(purpose: str, *context: bytes | int) -> bytes:
    """SHA-256 of the framed label and context."""
    return hashlib.sha256(frame(purpose, *context)).digest()


def ternary(generator: Generator, count: int) -> NDArray[np.int64]:
    """Exactly uniform values in {-1, 0, 1}, by rejection."""
    accepted = np.empty(0, dtype=np.uint8)
    while len(accepted) < count:
        drawn = generator.bytes(count + count // 16 + 64)
        accepted = np.concatenate([accepted, drawn[drawn < 255]])
    values: NDArray[np.int64] = _TERNARY[accepted[:count]]
    return values


def centred_binomial(generator: Generator, count: int) -> NDArray[np.int64]:
    """Difference of two 21-bit popcounts: SEAL's error distribution, standard deviation 3.24, magnitude <= 21."""
    words = generator.words(count)
    plus = np.bitwise_count(words & np.uint64(_CBD_WORD))
    minus = np.bitwise_count(words >> np.uint64(21) & np.uint64(_CBD_WORD))
    values: NDArray[np.int64] = np.subtract(plus, minus, dtype=np.int64)
    return values


def flooding(generator: Generator, count: int, sigma_log2: int) -> NDArray[np.int64]:
    """Bell-shaped noise of standard deviation 1.005 * 2**sigma_log2, magnitude below 2**(sigma_log2 + 4).

    A 64-bit popcount times a step, plus two uniforms of one step: the binomial's probabilities, joined by straight lines. What
    flooding needs is that a small shift cannot be noticed, that is a small Fisher information; this density's is within 2 % of a
    Gaussian's of equal variance (tested), and unlike a Gaussian from logarithms and cosines it is exact on every machine, which
    identical openings by different quorums depend on.

    Args:
      sigma_log2: 8..58.
    """
    return flooding_of(generator.words(3 * count).reshape(3, count), sigma_log2)


def flooding_of(words: NDArray[np.uint64], sigma_log2: int) -> NDArray[np.int64]:
    """`flooding` of words that were drawn before: the noise of many generators at once.

    Args:
      words: shape (3, ...).

    Returns:
      The rest of that shape.
    """
    step = sigma_log2 - _FLOODING_STEP_LOG2
    noise: NDArray[np.int64] = np.bitwise_count(words[0]).astype(np.int64)
    noise -= 32
    noise <<= step
    shift = np.uint64(64 - step)
    noise += (words[1] >> shift).view(np.int64)
    noise -= (words[2] >> shift).view(np.int64)
    return noise


def flooding_density(values: NDArray[np.int64], sigma_log2: int) -> NDArray[np.float64]:
    """How likely `flooding` gives these values, up to one factor for all of them; zero where it never gets.

    For a prover's rejections only: what two machines have to agree on is never decided by this floating-point number.
    """
    step = sigma_log2 - _FLOODING_STEP_LOG2
    cells = (values >> step) + 33  # popcount - 32 is -33..32 in the cells of its slopes
    inside = (cells >= 0) & (cells < len(_SLOPES))
    cells = np.where(inside, cells, 0)
    parts = (values & ((1 << step) - 1)) / float(1 << step)
    density: NDArray[np.float64] = np.where(inside, _POPCOUNTS[cells] + _SLOPES[cells] * parts, 0.0)
    return density


def uniform(generator: Generator, q: int, count: int) -> NDArray[np.int64]:
    """Exactly uniform residues in 0..q-1, q < 2^32, by rejection."""
    spare = np.uint32(32 - q.bit_length())
    accepted = np.empty(0, dtype=np.uint32)
    while len(accepted) < count:
        drawn = generator.bytes(4 * (count + count // 8 + 64)).view("<u4") >> spare
        accepted = np.concatenate([accepted, drawn[drawn < q]])
    return accepted[:count].astype(np.int64)
