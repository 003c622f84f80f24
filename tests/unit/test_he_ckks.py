"""Encryption and addition: TenSEAL and numpy agree byte for byte, and randomness is never shared by two plaintexts."""

import dataclasses

import numpy as np
import pytest

from bahefl_flwr.errors import CiphertextError, MalformedCiphertext, WrongEpoch
from bahefl_flwr.he.ckks import TenSealAdder, add, encrypt, tenseal_public_context
from bahefl_flwr.he.packing import pack
from bahefl_flwr.he.sampling import SecretSeed
from he_committee import committee, real_params, toy_params, updates

WEIGHTED = real_params(3, 2, weight_bits=3)
TOY = committee(toy_params(weight_bits=3))


@pytest.fixture(scope="module")
def ciphertexts() -> list[np.ndarray]:
    """Three real ciphertexts of three blocks."""
    return [encrypt(pack(u, 1 / 3, WEIGHTED), committee(WEIGHTED).key, WEIGHTED) for u in updates(3, 30_000)]


def toy_packed(seed: int = 0, blocks: int = 19) -> np.ndarray:
    """Any plaintext of the toy ring."""
    return np.random.default_rng(seed).integers(-(2**50), 2**50, (blocks, 64))


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 8), (7, 1, 5)])
def test_tenseal_and_numpy_give_the_same_bytes(ciphertexts: list[np.ndarray], weights: tuple[int, ...]) -> None:
    """The paper's engine and the verifiers' agree bit for bit, integer weights included."""
    assert TenSealAdder(WEIGHTED)(ciphertexts, weights).tobytes() == add(ciphertexts, weights, WEIGHTED).tobytes()


def test_adding_part_by_part_gives_the_whole(ciphertexts: list[np.ndarray]) -> None:
    """Both engines may be fed any number of blocks at a time."""
    adder = TenSealAdder(WEIGHTED)
    whole = add(ciphertexts, (3, 1, 2), WEIGHTED)
    parts = [[c[i : i + 2] for c in ciphertexts] for i in (0, 2)]
    assert np.array_equal(np.concatenate([adder(part, (3, 1, 2)) for part in parts]), whole)
    assert np.array_equal(np.concatenate([add(part, (3, 1, 2), WEIGHTED) for part in parts]), whole)


def test_the_order_of_the_sites_does_not_matter(ciphertexts: list[np.ndarray]) -> None:
    """Verifiers need not know in which order the coordinator added."""
    assert np.array_equal(add(ciphertexts, (1, 2, 3), WEIGHTED), add(ciphertexts[::-1], (3, 2, 1), WEIGHTED))


def test_addition_streams(ciphertexts: list[np.ndarray]) -> None:
    """Ciphertexts may come from a generator: only one is in memory at a time."""
    assert np.array_equal(add(iter(ciphertexts), (1, 1, 1), WEIGHTED), add(ciphertexts, (1, 1, 1), WEIGHTED))


def test_the_tenseal_context_holds_no_key() -> None:
    """A coordinator's TenSEAL can neither decrypt nor encrypt."""
    context = tenseal_public_context(WEIGHTED)
    assert not context.has_secret_key()
    assert not context.has_public_key()


def test_a_fixed_seed_gives_fixed_bytes_and_no_seed_fresh_ones() -> None:
    """Retries after a crash repeat themselves; everything else is random."""
    packed, seed = toy_packed(), SecretSeed(b"7" * 32)
    fixed = [encrypt(packed, TOY.key, TOY.params, seed) for _ in range(2)]
    fresh = [encrypt(packed, TOY.key, TOY.params) for _ in range(2)]
    assert np.array_equal(*fixed)
    assert not np.array_equal(*fresh)


def test_a_seed_used_twice_by_mistake_gives_independent_randomness() -> None:
    """Two plaintexts, or two offsets, under one seed differ in c1, hence in u: their difference shows nothing."""
    seed, a, b = SecretSeed(b"7" * 32), toy_packed(1), toy_packed(2)
    c1 = [
        encrypt(packed, TOY.key, TOY.params, seed, block_offset=offset)[:, 1].tobytes()
        for packed, offset in ((a, 0), (b, 0), (a, 19))
    ]
    assert len(set(c1)) == 3


def test_a_key_of_other_parameters_is_refused() -> None:
    """The parameters' digest travels in the public key."""
    other = dataclasses.replace(TOY.params, update_range=0.5)
    with pytest.raises(WrongEpoch):
        encrypt(toy_packed(), TOY.key, other)


@pytest.mark.parametrize(
    "packed", [np.zeros((1, 63), np.int64), np.zeros((1, 64), np.int32), np.zeros((0, 64), np.int64), np.zeros(64, np.int64)]
)
def test_only_packed_updates_are_encrypted(packed: np.ndarray) -> None:
    """A wrong shape or type is a mistake to be told about."""
    with pytest.raises(CiphertextError, match="only packed updates"):
        encrypt(packed, TOY.key, TOY.params)


@pytest.mark.parametrize("weights", [(), (0, 1), (1, 9), (1, -1), (1,) * 9])
def test_impossible_weights_are_refused(weights: tuple[int, ...]) -> None:
    """Weights are 1..2**weight_bits, for at most `sites` ciphertexts."""
    ciphertext = encrypt(toy_packed(), TOY.key, TOY.params)
    with pytest.raises(CiphertextError):
        add([ciphertext] * len(weights), weights, TOY.params)


def test_ciphertexts_of_different_lengths_are_not_added() -> None:
    """The message says which one differs."""
    short, long = (encrypt(toy_packed(blocks=n), TOY.key, TOY.params) for n in (1, 2))
    with pytest.raises(MalformedCiphertext, match="ciphertext 1 "):
        add([long, short], (1, 1), TOY.params)
    with pytest.raises(MalformedCiphertext, match="ciphertext 1 "):
        add([short, long], (1, 1), TOY.params)
