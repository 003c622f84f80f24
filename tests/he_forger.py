"""What a cheating site can do about the proof of its update: claim any u and e, commit to what suits it, skip every rejection."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.he import update_proof
from bahefl_flwr.he.keys import PublicKey
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.proof_bounds import REPETITIONS
from bahefl_flwr.he.proof_format import UpdateProof, encode_proof
from bahefl_flwr.he.ring import ring
from bahefl_flwr.he.update_proof import verify_update

CONTEXT = b"run|3|0x1111111111111111111111111111111111111111|1|key"


def chosen_c1(halves: NDArray[np.int64], key: PublicKey, params: SecurityParams) -> NDArray[np.uint32]:
    """c1 = (a*u' + e') / 2 modulo q for doubled polynomials (blocks, 2, N), so that odd coefficients are true halves."""
    structure = ring(params)
    first, second = structure.forward_all(halves[:, 0]), structure.forward_all(halves[:, 1])
    primes = np.array(params.data_primes)[:, None]
    inverse_of_2 = (primes + 1) // 2
    return ((first * key.a + second) % primes * inverse_of_2 % primes).astype(np.uint32)


def forged_proof(
    halves: NDArray[np.int64],
    c1: NDArray[np.uint32],
    key: PublicKey,
    params: SecurityParams,
    context: bytes = CONTEXT,
    *,
    guess: bool = False,
) -> bytes:
    """A proof without masks, whose answers fit if they can.

    Args:
      guess: commit as if every exponent were 0: answers are then (X^k - 1) times u and e, which is how halves can come out whole.
    """
    guessed = np.zeros((REPETITIONS, len(c1)), dtype=np.int64)
    second = np.zeros((REPETITIONS, len(params.data_primes), params.ring_degree), dtype=np.int64)
    if guess:
        second -= turned(update_proof._coefficients(c1, params), guessed)
    nothing = np.zeros((REPETITIONS, params.ring_degree), dtype=np.int64)
    commitments = update_proof._commitments(nothing, second, key, params)
    digest = hashlib.sha256(c1.astype("<u4").tobytes()).digest()
    statement = update_proof._statement(digest, len(c1), key, params, context)
    challenge = update_proof._challenge(statement, commitments)
    answers = turned(halves, update_proof._exponents(challenge, len(c1), params))
    if guess:
        answers -= turned(halves, guessed)
    return encode_proof(UpdateProof(challenge=challenge, answers=(answers // 2).astype(np.int32)), params)


def turned(polynomials: NDArray[np.int64], exponents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum over blocks of X^k times polynomials (blocks, rows, N), shape (REPETITIONS, rows, N)."""
    total = np.zeros((len(exponents), *polynomials.shape[1:]), dtype=np.int64)
    for block, turns in zip(polynomials, exponents.T, strict=True):
        update_proof._add_turned(total, block, turns)
    return total


def check(c1: NDArray[np.uint32], proof: bytes, key: PublicKey, params: SecurityParams, context: bytes = CONTEXT) -> None:
    """`verify_update` of an update that comes in parts of ten blocks."""
    verify_update((c1[at : at + 10] for at in range(0, len(c1), 10)), len(c1), proof, key, params, context)
