"""The proof of an update and its bytes, the container "BAHU". What it proves is checked in `update_proof`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import UnprovenUpdate
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.proof_bounds import ANSWER_BYTES, REPETITIONS

CHALLENGE_BYTES: Final = 32
_MAGIC: Final = b"BAHU"
_HEADER: Final = struct.Struct("<4sBBHI")  # magic, version, repetitions, 0, ring degree


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UpdateProof:
    """What a site shows of the randomness of its update.

    Attributes:
      challenge: hash of statement and commitments, from which all challenges derive.
      answers: z and z', masked sums of u and of e; int32 of shape (REPETITIONS, 2, N), 24 bits each.
    """

    challenge: bytes
    answers: NDArray[np.int32]


def proof_bytes(params: SecurityParams) -> int:
    """Length of every proof, whatever the number of blocks: 393,260 bytes."""
    return _HEADER.size + CHALLENGE_BYTES + ANSWER_BYTES * 2 * REPETITIONS * params.ring_degree


def encode_proof(proof: UpdateProof, params: SecurityParams) -> bytes:
    """The one form of a proof: header, challenge, answers as little-endian 24-bit integers."""
    words = np.ascontiguousarray(proof.answers, dtype="<i4").view(np.uint8).reshape(-1, 4)
    return _header(params) + proof.challenge + words[:, :ANSWER_BYTES].tobytes()


def decode_proof(data: bytes, params: SecurityParams) -> UpdateProof:
    """Strictly parse a proof that came from a peer.

    Checks, in this order:
      1. its length is the one of these parameters;
      2. its header is, byte for byte, the one of these parameters.

    Every remaining byte string is one proof in its one form; nothing is allocated before both checks have passed.

    Raises:
      UnprovenUpdate: naming the check that failed.
    """
    if len(data) != proof_bytes(params):  # 1
        raise UnprovenUpdate(f"the proof of an update has {proof_bytes(params)} bytes, got {len(data)}: exclude its sender")
    header = _header(params)
    if data[: len(header)] != header:  # 2
        raise UnprovenUpdate(
            f"the proof's header is {data[: len(header)].hex()}, expected {header.hex()}: its sender has another version, "
            "other security parameters, or sent something that is no proof"
        )
    start = len(header) + CHALLENGE_BYTES
    words = np.zeros((2 * REPETITIONS * params.ring_degree, 4), dtype=np.uint8)
    words[:, 4 - ANSWER_BYTES :] = np.frombuffer(data, dtype=np.uint8, offset=start).reshape(-1, ANSWER_BYTES)
    answers = words.reshape(-1).view("<i4").astype(np.int32, copy=False)
    answers >>= 8  # the sign comes along
    return UpdateProof(challenge=data[len(header) : start], answers=answers.reshape(REPETITIONS, 2, params.ring_degree))


def _header(params: SecurityParams) -> bytes:
    return _HEADER.pack(_MAGIC, params.wire_version, REPETITIONS, 0, params.ring_degree)
