"""Proofs of updates that were altered, moved or stretched: every one is refused, with its own error, by the check it breaks."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.errors import MalformedCiphertext, UnprovenUpdate
from bahefl_flwr.he import update_proof
from bahefl_flwr.he.keys import PublicKey
from bahefl_flwr.he.proof_bounds import REPETITIONS, largest_answers, largest_squares
from bahefl_flwr.he.proof_format import UpdateProof, decode_proof, encode_proof, proof_bytes
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.update_proof import encrypt_with_proof, verify_update
from he_committee import committee, toy_params
from he_forger import CONTEXT, check

ALL = committee(toy_params(degree=64))
PARAMS, KEY = ALL.params, ALL.key
BLOCKS = 12
PACKED = np.arange(BLOCKS * 64).reshape(BLOCKS, 64)
CIPHERTEXTS, PROOF = encrypt_with_proof(PACKED, KEY, PARAMS, CONTEXT, SecretSeed(b"1" * 32))
C1 = CIPHERTEXTS[:, 1]
OTHER_C1 = encrypt_with_proof(PACKED, KEY, PARAMS, CONTEXT, SecretSeed(b"2" * 32))[0][:, 1]
SHOWN = decode_proof(PROOF, PARAMS)
HEADER, CHALLENGE = 12, 32

edits = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4)


def with_answers(answers: np.ndarray) -> bytes:
    """The proof with other answers."""
    return encode_proof(UpdateProof(challenge=SHOWN.challenge, answers=answers.astype(np.int32)), PARAMS)


def test_the_untouched_proof_passes() -> None:
    """What is altered below is valid."""
    check(C1, PROOF, KEY, PARAMS)


@pytest.mark.parametrize("data", [b"", PROOF[:-1], PROOF + b"\0", PROOF[:HEADER], PROOF * 2])
def test_check_1_another_length(data: bytes) -> None:
    """Check 1: exactly the bytes that the parameters give."""
    with pytest.raises(UnprovenUpdate, match=f"has {proof_bytes(PARAMS)} bytes, got {len(data)}"):
        check(C1, data, KEY, PARAMS)


@pytest.mark.parametrize("at", [0, 4, 5, 6, 7, 8, 11])
def test_check_1_another_header(at: int) -> None:
    """Check 1: magic, version, repetitions, zero and degree."""
    with pytest.raises(UnprovenUpdate, match="header is"):
        check(C1, PROOF[:at] + bytes([PROOF[at] ^ 1]) + PROOF[at + 1 :], KEY, PARAMS)


def test_check_1_the_proof_of_another_ring() -> None:
    """Check 1: a proof for a ring of degree 128 is none here, whatever its length."""
    with pytest.raises(UnprovenUpdate, match="header is"):
        check(C1, PROOF[:8] + struct.pack("<I", 128) + PROOF[12:], KEY, PARAMS)


@pytest.mark.parametrize("blocks", [0, 10**9])
def test_check_1_an_impossible_number_of_blocks(blocks: int) -> None:
    """Check 1: no challenges are drawn for more blocks than answers can cover."""
    with pytest.raises(UnprovenUpdate, match=f"no proof covers {blocks} blocks"):
        verify_update([C1], blocks, PROOF, KEY, PARAMS, CONTEXT)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
def test_check_2_one_coefficient_too_large(part: int, sign: int) -> None:
    """Check 2: the bound itself fits, one more does not."""
    largest = largest_answers(64, BLOCKS)[part]
    answers = np.zeros((REPETITIONS, 2, 64), np.int64)
    answers[REPETITIONS - 1, part, 63] = sign * largest
    assert update_proof._within_bounds(answers, BLOCKS)
    answers[REPETITIONS - 1, part, 63] += sign
    with pytest.raises(UnprovenUpdate, match="larger than honest ones"):
        check(C1, with_answers(answers), KEY, PARAMS)


@pytest.mark.parametrize("part", [0, 1])
def test_check_2_one_repetition_too_long(part: int) -> None:
    """Check 2: the sum of squares itself fits, one more does not."""
    most = largest_squares(64, BLOCKS)[part]
    answers = np.zeros((REPETITIONS, 2, 64), np.int64)
    # 112 squares, N + 6 sqrt(N), of powers of two: 64 coefficients of which 16 are twice as large.
    answers[3, part] = np.where(np.arange(64) < 16, 2, 1) << (most // 112).bit_length() // 2
    assert (answers**2).sum() == most
    assert update_proof._within_bounds(answers, BLOCKS)
    answers[3, part, 63] += 1
    with pytest.raises(UnprovenUpdate, match="larger than honest ones"):
        check(C1, with_answers(answers), KEY, PARAMS)


def test_check_2_the_smallest_number_of_24_bits() -> None:
    """Check 2: -2^23, which has no positive counterpart, is too large as well."""
    answers = SHOWN.answers.copy()
    answers[0, 0, 0] = -(1 << 23)
    with pytest.raises(UnprovenUpdate, match="larger than honest ones"):
        check(C1, with_answers(answers), KEY, PARAMS)


@pytest.mark.parametrize(
    "part",
    [
        C1.astype(np.int64), C1[:, :2], C1[:, :, :32], CIPHERTEXTS, C1[:0], C1[0],
    ],
    ids=["type", "primes", "degree", "ciphertexts", "empty", "one block"],
)  # fmt: skip
def test_check_3_a_part_of_another_form(part: np.ndarray) -> None:
    """Check 3: residues (blocks, primes, N)."""
    with pytest.raises(UnprovenUpdate, match="a part of c1 is"):
        verify_update([part], BLOCKS, PROOF, KEY, PARAMS, CONTEXT)


@pytest.mark.parametrize("prime", range(3))
def test_check_3_a_residue_beyond_its_prime(prime: int) -> None:
    """Check 3: the same number in another form would be another statement."""
    forged = C1.copy()
    forged[BLOCKS - 1, prime, 5] = PARAMS.data_primes[prime]
    with pytest.raises(UnprovenUpdate, match="not below its prime"):
        check(forged, PROOF, KEY, PARAMS)


def test_check_3_a_block_that_is_not_encrypted() -> None:
    """Check 3: c1 = 0 has short u and e, and hides nothing."""
    forged = C1.copy()
    forged[4] = 0
    with pytest.raises(UnprovenUpdate, match="c1 = 0"):
        check(forged, PROOF, KEY, PARAMS)


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([C1[:11]], "has 11 blocks, announced were 12"),
        ([C1, C1[:1]], "1 blocks more"),
        ([], "has 0 blocks"),
        ([C1, C1], "12 blocks"),
    ],
)
def test_check_3_too_few_or_too_many_blocks(parts: list[np.ndarray], found: str) -> None:
    """Check 3: as many as were announced."""
    with pytest.raises(UnprovenUpdate, match=found):
        verify_update(parts, BLOCKS, PROOF, KEY, PARAMS, CONTEXT)


@pytest.mark.parametrize(
    "altered",
    [
        C1[::-1],
        np.concatenate([C1[1:2], C1[:1], C1[2:]]),
        np.concatenate([C1[:-1], OTHER_C1[-1:]]),
        np.concatenate([C1[:-1], C1[:1]]),
        OTHER_C1,
        C1[:-1],
        np.concatenate([C1, OTHER_C1[:1]]),
        np.concatenate([C1, C1[-1:]]),
    ],
    ids=["reversed", "swapped", "replaced", "repeated", "another update", "removed", "added", "added again"],
)
def test_check_4_other_blocks(altered: np.ndarray) -> None:
    """Check 4: blocks swapped, replaced, removed or added, with the number announced accordingly."""
    with pytest.raises(UnprovenUpdate, match="not for this update"):
        check(np.ascontiguousarray(altered), PROOF, KEY, PARAMS)


@given(block=st.integers(0, BLOCKS - 1), prime=st.integers(0, 2), slot=st.integers(0, 63), change=st.integers(1, 10**9))
def test_check_4_another_residue(block: int, prime: int, slot: int, change: int) -> None:
    """Check 4: every residue of c1 counts."""
    forged = C1.copy()
    forged[block, prime, slot] = (int(forged[block, prime, slot]) + change) % PARAMS.data_primes[prime]
    with pytest.raises(UnprovenUpdate, match="not for this update"):
        check(forged, PROOF, KEY, PARAMS)


@pytest.mark.parametrize("context", [b"", CONTEXT[:-1], CONTEXT + b"\0", CONTEXT.replace(b"|3|", b"|4|")])
def test_check_4_another_context(context: bytes) -> None:
    """Check 4: another site, round or run."""
    with pytest.raises(UnprovenUpdate, match="not for this update"):
        check(C1, PROOF, KEY, PARAMS, context)


@pytest.mark.parametrize("name", ["a", "b", "epoch_id"])
def test_check_4_another_key(name: str) -> None:
    """Check 4: every part of the public key counts, its b and its epoch too."""
    values = {"a": KEY.a, "b": KEY.b, "epoch_id": KEY.epoch_id, "params_digest": KEY.params_digest}
    values[name] = bytes(32) if name == "epoch_id" else np.roll(values[name], 1, axis=1)
    with pytest.raises(UnprovenUpdate, match="not for this update"):
        check(C1, PROOF, PublicKey(**values), PARAMS)


@given(r=st.integers(0, REPETITIONS - 1), part=st.integers(0, 1), at=st.integers(0, 63), change=st.sampled_from([-2, -1, 1, 2]))
def test_check_4_another_answer(r: int, part: int, at: int, change: int) -> None:
    """Check 4: every coefficient of every answer counts."""
    answers = SHOWN.answers.copy()
    answers[r, part, at] += change
    with pytest.raises(UnprovenUpdate):
        check(C1, with_answers(answers), KEY, PARAMS)


@given(at=st.integers(0, 31), mask=st.integers(1, 255))
def test_check_4_another_challenge(at: int, mask: int) -> None:
    """Check 4: every bit of the hash counts."""
    challenge = bytearray(SHOWN.challenge)
    challenge[at] ^= mask
    with pytest.raises(UnprovenUpdate, match="not for this update"):
        check(C1, encode_proof(UpdateProof(challenge=bytes(challenge), answers=SHOWN.answers), PARAMS), KEY, PARAMS)


def test_check_4_turned_answers() -> None:
    """Check 4: all answers and commitments turned by X would fit c1 turned by X; the hash does not."""
    turned = np.roll(SHOWN.answers, 1, axis=2)
    turned[..., 0] *= -1
    with pytest.raises(UnprovenUpdate, match="not for this update"):
        check(C1, with_answers(turned), KEY, PARAMS)


@given(changes=edits)
def test_mutated_bytes_are_no_proof(changes: list[tuple[int, int]]) -> None:
    """Every byte of a proof counts; what is refused is refused as a malformed ciphertext."""
    data = bytearray(PROOF)
    for at, mask in {at % len(data): mask for at, mask in changes}.items():  # one change a byte: two could cancel
        data[at] ^= mask
    with pytest.raises(MalformedCiphertext):
        check(C1, bytes(data), KEY, PARAMS)


@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_no_proof(data: bytes) -> None:
    """Noise is refused, with the one error."""
    with pytest.raises(UnprovenUpdate):
        decode_proof(data, PARAMS)


@given(data=st.binary(min_size=100, max_size=100))
def test_a_proof_has_one_form(data: bytes) -> None:
    """Whatever is read is written back as it came."""
    whole = PROOF[: -len(data)] + data
    assert encode_proof(decode_proof(whole, PARAMS), PARAMS) == whole
