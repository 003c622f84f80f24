"""Our ciphertexts are SEAL's: TenSEAL reads, decrypts and rewrites them."""

import struct

import numpy as np
import pytest
import tenseal

from bahefl_flwr.errors import MalformedCiphertext
from bahefl_flwr.he import seal_format
from bahefl_flwr.he.ckks import encrypt, seal_version, tenseal_public_context
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.packing import pack
from bahefl_flwr.he.params import DATA_PRIMES, RING_DEGREE, SPECIAL_PRIME
from bahefl_flwr.he.ring import Ring, reduce
from bahefl_flwr.he.seal_format import BLOCKS_PER_PART, PartKind, decode_part, encode_part
from he_committee import committee, real_params, toy_params, updates

SCALE = 2.0**10
SINGLE = real_params(5, 1)


def tenseal_secret_context(share: KeyShare) -> tenseal.Context:
    """A TenSEAL context with the single key of a t = 1 committee, residues modulo the special prime included."""
    key = share.keys[0]
    structure = Ring(RING_DEGREE, (*DATA_PRIMES, SPECIAL_PRIME))
    coefficients = key.secret[:1].copy()
    structure.inverse(coefficients, 0)
    coefficients[coefficients > 1] -= DATA_PRIMES[0]
    residues = structure.forward_all(coefficients)[0]  # (primes + 1, N)
    level = seal_format.parms_id(RING_DEGREE, (*DATA_PRIMES, SPECIAL_PRIME))
    version = seal_version()
    array = seal_format._seal_object(struct.pack("<Q", residues.size) + residues.astype("<u8").tobytes(), version)
    plaintext = level + struct.pack("<Qd", residues.size, 1.0) + array
    secret = seal_format._field(1, seal_format._seal_object(plaintext, version))
    return tenseal.context_from(seal_format.build_context(SCALE, version, SINGLE) + seal_format._field(3, secret))


def slots(coefficients: np.ndarray, count: int) -> np.ndarray:
    """The first CKKS slots of a polynomial: its real parts at zeta^(3^j), zeta a primitive 2N-th root of unity."""
    degree = len(coefficients)
    exponents = np.array([[pow(3, j, 2 * degree) * k % (2 * degree) for k in range(degree)] for j in range(count)])
    return np.cos(np.pi * exponents / degree) @ coefficients.astype(np.float64)


def test_tenseal_itself_decrypts_a_single_key_ciphertext() -> None:
    """With t = 1, the paper's experiment, plain TenSEAL with the committee's key reads what we encrypt."""
    members = committee(SINGLE)
    packed = pack(updates(1, 12_288)[0], 1.0, SINGLE)
    ciphertext = encrypt(packed, members.key, SINGLE)
    context = tenseal_secret_context(members.shares[0])
    vector = tenseal.ckks_vector_from(context, seal_format.build_vector(ciphertext, SCALE, seal_version(), SINGLE))
    expected = slots(packed[0], 16) * 2.0**SINGLE.noise_bits / SCALE
    decrypted = np.array(vector.decrypt()[:16])
    assert np.abs(decrypted - expected).max() < 1e-9 * np.abs(expected).max()


def test_tenseal_picks_the_primes_we_name() -> None:
    """[30, 30, 30, 16] at degree 4096 gives exactly our primes, and our identifier of the data level."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, RING_DEGREE, -1, [30, 30, 30, 16])
    data = context.seal_context().data
    assert [q.value() for q in data.key_context_data().parms().coeff_modulus()] == [*DATA_PRIMES, SPECIAL_PRIME]
    assert struct.pack("<4Q", *data.first_parms_id()) == seal_format.parms_id(RING_DEGREE, DATA_PRIMES)


def test_our_context_is_tenseals() -> None:
    """A context built here, without making any key, is the one TenSEAL would make."""
    ours = tenseal_public_context(SINGLE).seal_context().data
    theirs = tenseal.context(tenseal.SCHEME_TYPE.CKKS, RING_DEGREE, -1, [30, 30, 30, 16]).seal_context().data
    assert ours.key_parms_id() == theirs.key_parms_id()


def test_vectors_survive_tenseal() -> None:
    """What TenSEAL loads and serializes again has the residues we gave."""
    ciphertext = encrypt(pack(updates(1, 30_000)[0], 1.0, SINGLE), committee(SINGLE).key, SINGLE)
    built = seal_format.build_vector(ciphertext, SCALE, seal_version(), SINGLE)
    rewritten = tenseal.ckks_vector_from(tenseal_public_context(SINGLE), built).serialize()
    assert rewritten != built
    assert np.array_equal(seal_format.parse_vector(rewritten, 3, SINGLE), ciphertext)
    assert np.array_equal(seal_format.parse_vector(built, 3, SINGLE), ciphertext)


@pytest.mark.parametrize("kind", list(PartKind))
def test_parts_survive_the_wire(kind: PartKind) -> None:
    """decode_part(encode_part(x)) is x, for every kind."""
    params = toy_params()
    shape = (3, 2, 3, 64) if kind is PartKind.CIPHERTEXT else (3, 3, 64)
    residues = np.random.default_rng(1).integers(0, min(DATA_PRIMES), shape).astype(np.uint32)
    decoded = decode_part(encode_part(residues, kind, params), kind, params)
    assert np.array_equal(decoded, residues)
    assert not decoded.flags.writeable


def test_a_full_part_is_below_one_mebibyte() -> None:
    """The store takes no larger ones."""
    residues = np.ones((BLOCKS_PER_PART, 2, 3, RING_DEGREE), dtype=np.uint32)
    assert len(encode_part(residues, PartKind.CIPHERTEXT, SINGLE)) == 983_040 + 28 < 2**20


@pytest.mark.parametrize(
    "residues", [np.zeros((1, 3, 64), np.uint32), np.zeros((1, 2, 3, 64), np.uint64), np.zeros((0, 2, 3, 64), np.uint32)]
)
def test_only_ciphertexts_are_encoded_as_such(residues: np.ndarray) -> None:
    """A caller's wrong shape or type does not reach the wire."""
    with pytest.raises(MalformedCiphertext, match="ciphertext part is"):
        encode_part(residues, PartKind.CIPHERTEXT, toy_params())


def test_real_residues_reduce_to_themselves() -> None:
    """Encoded residues are canonical: below their primes."""
    ciphertext = encrypt(pack(updates(1, 100)[0], 1.0, SINGLE), committee(SINGLE).key, SINGLE)
    assert all(
        np.array_equal(reduce(ciphertext[:, :, l].astype(np.int64), q), ciphertext[:, :, l]) for l, q in enumerate(DATA_PRIMES)
    )
