"""The real encryption in a ring of 16 coefficients, WITHOUT ANY SECURITY; but the proof of an update is only a digest.

So sums, shares, sketches, accusations and spoiled sums are what they are, at a hundredth of the cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import MalformedCiphertext
from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.keys import PublicKey, residue_bytes
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.settings import Settings

Array = NDArray[np.uint32]


def toy_params(settings: Settings, threshold: int, committee: int) -> SecurityParams:
    """As `site.state._params`, but in a toy ring."""
    return SecurityParams(
        update_range=settings.he.update_range, weight_bits=settings.he.weight_bits, threshold=threshold, committee=committee,
        sites=settings.federation.sites, ring_degree=16, toy=True,
    )  # fmt: skip


def encrypt_with_digest(packed: NDArray[np.int64], key: PublicKey, params: SecurityParams, context: bytes) -> tuple[Array, bytes]:
    """As `update_proof.encrypt_with_proof`."""
    ciphertexts = encrypt(packed, key, params)
    return ciphertexts, _digest(ciphertexts[:, 1], context)


def verify_digest(c1: Iterable[Array], blocks: int, proof: bytes, key: PublicKey, params: SecurityParams, context: bytes) -> None:
    """As `update_proof.verify_update`."""
    if _digest(np.concatenate(list(c1)), context) != proof:
        raise MalformedCiphertext("its proof is of another ciphertext, or of another site, round, epoch or key")


class PlainAdder:
    """As `ckks.TenSealAdder`, which needs a ring that SEAL knows; the bytes are the same by tests/unit/test_he_ckks.py."""

    def __init__(self, params: SecurityParams) -> None:
        self._params = params

    def __call__(self, ciphertexts: Iterable[Array], weights: Sequence[int]) -> Array:
        return add(ciphertexts, weights, self._params)


def _digest(c1: Array, context: bytes) -> bytes:
    return hashlib.sha256(residue_bytes(c1) + context).digest()
