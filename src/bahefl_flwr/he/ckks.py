"""Encryption and homomorphic addition of packed updates; the one home of TenSEAL.

Nothing here needs, or can use, a secret key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Never

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import CiphertextError, MalformedCiphertext, WrongEpoch
from bahefl_flwr.he import seal_format
from bahefl_flwr.he.keys import PublicKey
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import BATCH, Int64Array, Ring, reduce, ring
from bahefl_flwr.he.sampling import Generator, SecretSeed, centred_binomial, ternary

if TYPE_CHECKING:
    import tenseal

Ciphertexts = NDArray[np.uint32]
# TenSEAL multiplies by w exactly when it encodes w / 2^10 at this scale (research/he.md, "TRICK").
_SCALE: Final = 2.0**10


class Randomness:
    """What hides an update in its ciphertext: u and e1 of every block. Whoever knows them can read it.

    Attributes:
      masks: u, ternary, int8 of shape (blocks, N).
      errors: e1, magnitudes up to 21, likewise.
    """

    __slots__ = ("errors", "masks")

    def __init__(self, blocks: int, degree: int) -> None:
        self.masks = np.empty((blocks, degree), dtype=np.int8)
        self.errors = np.empty((blocks, degree), dtype=np.int8)

    def __repr__(self) -> str:
        return "<Randomness redacted>"

    def __reduce__(self) -> Never:
        raise TypeError("Randomness does not leave its process: it opens the update that it encrypts")


def encrypt(
    packed: NDArray[np.int64],
    public_key: PublicKey,
    params: SecurityParams,
    seed: SecretSeed | None = None,
    *,
    block_offset: int = 0,
) -> Ciphertexts:
    """Encrypt packed updates under the collective key.

    Args:
      packed: shape (blocks, N), from `packing.pack`.
      seed: None draws fresh randomness from the operating system. With a seed equal inputs give equal bytes, as crash-safe
        retries need; the seed is bound to key, plaintext and offset before use, so that even a seed that is used twice by
        mistake never encrypts two different plaintexts with the same randomness. It is as secret as the update itself.
      block_offset: index of packed[0] in the whole update, when it is encrypted in parts.

    Returns:
      Residues of shape (blocks, 2, primes, N), NTT domain: (u*b + e0 + m, u*a + e1).

    Raises:
      CiphertextError: `packed` is not int64 of shape (blocks, N).
      WrongEpoch: the public key was made under other security parameters.
    """
    return encrypt_with_randomness(packed, public_key, params, seed, block_offset=block_offset)[0]


def encrypt_with_randomness(
    packed: NDArray[np.int64],
    public_key: PublicKey,
    params: SecurityParams,
    seed: SecretSeed | None = None,
    *,
    block_offset: int = 0,
) -> tuple[Ciphertexts, Randomness]:
    """Same arguments, ciphertexts and errors as `encrypt`; also what the site needs to prove that it encrypted soundly."""
    if packed.dtype != np.int64 or packed.ndim != 2 or packed.shape[1] != params.ring_degree or not len(packed):
        raise CiphertextError(
            f"only packed updates (blocks, {params.ring_degree}) are encrypted, got {packed.dtype}{packed.shape}"
        )
    if public_key.params_digest != params.digest():
        raise WrongEpoch("the public key was made under other security parameters than the update: use the open epoch's key")
    plaintext = hashlib.sha256(np.ascontiguousarray(packed, dtype="<i8").data).digest()
    fresh = (seed or SecretSeed.random()).derive("encrypt", public_key.digest(), plaintext, block_offset)
    out = np.empty((len(packed), 2, len(params.data_primes), params.ring_degree), dtype=np.uint32)
    randomness = Randomness(len(packed), params.ring_degree)
    generator, structure = Generator(fresh), ring(params)
    for start in range(0, len(packed), BATCH):
        batch = slice(start, start + BATCH)
        mask, error = _encrypt_batch(packed[batch], public_key, generator, structure, params.noise_bits, out[batch])
        randomness.masks[batch], randomness.errors[batch] = mask, error
    return out, randomness


def _encrypt_batch(
    packed: Int64Array, key: PublicKey, generator: Generator, structure: Ring, noise_bits: int, out: Ciphertexts
) -> tuple[Int64Array, Int64Array]:
    """Fill `out`; returns u and e1."""
    count = packed.size
    mask = ternary(generator, count).reshape(packed.shape)  # (blocks, N)
    error0 = centred_binomial(generator, count).reshape(packed.shape)  # (blocks, N)
    error1 = centred_binomial(generator, count).reshape(packed.shape)  # (blocks, N)
    for l, q in enumerate(structure.primes):
        message = reduce(packed, q)
        message *= (1 << noise_bits) % q
        message += error0
        message = reduce(message, q)
        u, e = mask.copy(), error1.copy()
        for polynomial in (message, u, e):
            structure.forward(polynomial, l)
        message += u * key.b[l]
        e += u * key.a[l]
        out[:, 0, l] = reduce(message, q)
        out[:, 1, l] = reduce(e, q)
    return mask, error1


def add(ciphertexts: Iterable[Ciphertexts], weights: Sequence[int], params: SecurityParams) -> Ciphertexts:
    """Weighted sum, in numpy, one ciphertext in memory at a time.

    Args:
      ciphertexts: as many arrays of shape (blocks, 2, primes, N) as there are weights; a part of them, or all blocks.
      weights: integers 1..2**weight_bits.

    Returns:
      Residues of that shape; the same bytes as `TenSealAdder` gives.

    Raises:
      CiphertextError: no, too many, or too heavy ciphertexts.
      MalformedCiphertext: one has another shape than the first.
    """
    _check_weights(weights, params)
    total: Int64Array | None = None
    for index, (ciphertext, weight) in enumerate(zip(ciphertexts, weights, strict=True)):
        _check_shape(ciphertext, total, index, params)
        if total is None:
            total = ciphertext.astype(np.int64)
            total *= weight
        elif weight == 1:
            total += ciphertext
        else:
            total += ciphertext * np.int64(weight)
    assert total is not None  # _check_weights refuses an empty sum
    out = np.empty(total.shape, dtype=np.uint32)
    for l, q in enumerate(params.data_primes):
        out[:, :, l] = reduce(total[:, :, l], q)
    return out


class TenSealAdder:
    """Weighted sum by TenSEAL, through serialized CKKS vectors that are built and parsed here, never taken from a peer.

    Only as the paper's own engine and as a second opinion: `add` gives the same bytes in a tenth of the time.
    Add part by part: `BLOCKS_PER_PART` blocks stay in cache (a million parameters of 5 sites in 0.17 instead of 0.21 s).
    """

    def __init__(self, params: SecurityParams) -> None:
        if params.toy:
            raise CiphertextError("TenSEAL refuses rings without security; use add() for a toy ring")
        self._params = params
        self._context = tenseal_public_context(params)

    def __call__(self, ciphertexts: Iterable[Ciphertexts], weights: Sequence[int]) -> Ciphertexts:
        """Same arguments, results and errors as `add`."""
        _check_weights(weights, self._params)
        exact = any(weight != 1 for weight in weights)
        total: Any = None
        shape: Ciphertexts | None = None
        for index, (ciphertext, weight) in enumerate(zip(ciphertexts, weights, strict=True)):
            _check_shape(ciphertext, shape, index, self._params)
            shape = ciphertext
            vector = self._load(ciphertext)
            if exact:
                vector = vector * (weight / _SCALE)
            if total is None:
                total = vector
            else:
                total.add_(vector)
        assert shape is not None
        return seal_format.parse_vector(total.serialize(), len(shape), self._params)

    def _load(self, ciphertext: Ciphertexts) -> Any:
        import tenseal

        return tenseal.ckks_vector_from(self._context, seal_format.build_vector(ciphertext, _SCALE, seal_version(), self._params))


def tenseal_public_context(params: SecurityParams) -> tenseal.Context:
    """A TenSEAL context with our ring and no key at all: it can add, and multiply by plain integers."""
    # Imported here: reading and verifying ciphertexts needs no TenSEAL, whose import costs 0.2 s.
    import tenseal

    context = tenseal.context_from(seal_format.build_context(_SCALE, seal_version(), params))
    context.auto_rescale = False
    context.auto_mod_switch = False
    context.auto_relin = False
    return context


def seal_version() -> tuple[int, int]:
    """Version of the SEAL library inside TenSEAL, which its byte format carries: 4.3 for TenSEAL 0.3.18."""
    from tenseal import sealapi

    header = sealapi.Serialization.SEALHeader()
    return int(header.version_major), int(header.version_minor)


def _check_weights(weights: Sequence[int], params: SecurityParams) -> None:
    most = 1 << params.weight_bits
    if not 1 <= len(weights) <= params.sites:
        raise CiphertextError(f"{len(weights)} ciphertexts are to be added; the security parameters allow 1 to {params.sites}")
    if any(not 1 <= weight <= most for weight in weights):
        raise CiphertextError(f"weights {list(weights)} are not all in 1..{most}: he.weight_bits={params.weight_bits}")


def _check_shape(ciphertext: Ciphertexts, first: NDArray[Any] | None, index: int, params: SecurityParams) -> None:
    expected = (len(ciphertext) if first is None else len(first), 2, len(params.data_primes), params.ring_degree)
    if ciphertext.shape != expected or ciphertext.dtype != np.uint32 or not len(ciphertext):
        raise MalformedCiphertext(
            f"ciphertext {index} of the sum is {ciphertext.dtype}{ciphertext.shape}, expected uint32{expected}"
        )
