"""The proof of an update: honest ones pass, whatever the size; equal inputs give equal bytes; nothing of the randomness shows."""

import math
import pickle
import tracemalloc

import numpy as np
import pytest

from bahefl_flwr.errors import CiphertextError, WrongEpoch
from bahefl_flwr.he import proof_bounds, update_proof
from bahefl_flwr.he.ckks import encrypt, encrypt_with_randomness
from bahefl_flwr.he.packing import pack
from bahefl_flwr.he.proof_format import decode_proof, proof_bytes
from bahefl_flwr.he.sampling import Generator, SecretSeed, flooding
from bahefl_flwr.he.update_proof import encrypt_with_proof, verify_update
from he_committee import Committee, committee, real_params, toy_params, updates
from he_forger import CONTEXT, check

TOY = committee(toy_params(degree=64))
REAL = committee(real_params(weight_bits=3))


def packed_update(members: Committee, blocks: int, seed: int = 1) -> np.ndarray:
    """Some update that fills so many blocks."""
    return pack(updates(1, blocks * members.params.parameters_per_block, seed)[0], 0.2, members.params)


def proven(members: Committee, blocks: int, seed: int = 1, context: bytes = CONTEXT) -> tuple[np.ndarray, bytes]:
    """An honest site's ciphertexts and proof."""
    return encrypt_with_proof(
        packed_update(members, blocks), members.key, members.params, context, SecretSeed(seed.to_bytes(32, "little"))
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("blocks", [1, 2, 9, 10, 11, 25])
def test_an_honest_toy_update_passes(blocks: int, seed: int) -> None:
    """Whatever the randomness and the number of blocks."""
    ciphertexts, proof = proven(TOY, blocks, seed)
    check(ciphertexts[:, 1], proof, TOY.key, TOY.params)


@pytest.mark.parametrize("degree", [16, 128, 2048])
def test_an_honest_update_of_any_ring_passes(degree: int) -> None:
    """The bounds fit every degree."""
    members = committee(toy_params(degree=degree))
    ciphertexts, proof = proven(members, 3)
    check(ciphertexts[:, 1], proof, members.key, members.params)


@pytest.mark.parametrize("blocks", [1, 10, 25])
def test_an_honest_real_update_passes(blocks: int) -> None:
    """At the parameters of runs, with fresh randomness."""
    ciphertexts, proof = encrypt_with_proof(packed_update(REAL, blocks), REAL.key, REAL.params, CONTEXT)
    assert len(proof) == proof_bytes(REAL.params) == 393_260
    check(ciphertexts[:, 1], proof, REAL.key, REAL.params)


def test_the_ciphertexts_are_those_of_encrypt() -> None:
    """Proving changes no byte of what is encrypted."""
    seed = SecretSeed(b"s" * 32)
    packed = packed_update(TOY, 12)
    ciphertexts, _ = encrypt_with_proof(packed, TOY.key, TOY.params, CONTEXT, seed)
    assert np.array_equal(ciphertexts, encrypt(packed, TOY.key, TOY.params, seed))


def test_equal_inputs_give_equal_proofs() -> None:
    """A retry after a crash sends the same object again."""
    assert proven(TOY, 3)[1] == proven(TOY, 3)[1]


@pytest.mark.parametrize("change", ["context", "packed", "key"])
def test_no_two_statements_share_masks(change: str) -> None:
    """With one seed, answers of another statement are as far apart as independent ones.

    With equal masks their difference would be a difference of turned u, of magnitudes up to 2 a block.
    """
    other_key = committee(toy_params(3, 2, degree=64))
    changed = encrypt_with_proof(
        packed_update(TOY, 1, seed=2 if change == "packed" else 1),
        other_key.key if change == "key" else TOY.key,
        other_key.params if change == "key" else TOY.params,
        b"other" if change == "context" else CONTEXT,
        SecretSeed((1).to_bytes(32, "little")),
    )[1]
    first, second = (decode_proof(data, TOY.params).answers[:, 0].astype(float) for data in (proven(TOY, 1)[1], changed))
    independent = 2**0.5 * 2 ** proof_bounds.masks_log2(64, 1)[0]
    assert (first - second).std() == pytest.approx(independent, rel=0.1)


def test_no_two_tries_share_masks() -> None:
    """A rejected try's masks are never used again."""
    _, randomness = encrypt_with_randomness(packed_update(TOY, 1), TOY.key, TOY.params)
    seed, statement = SecretSeed(b"s" * 32), bytes(32)
    tries = (
        update_proof._attempt(statement, randomness, TOY.key, TOY.params, seed.derive("prove-update", statement, k))
        for k in range(20)
    )
    shown = [proof.answers[0, 0].tobytes() for proof in tries if proof is not None]
    assert len(shown) > 2
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("parts", [[25], [10, 10, 5], [1] * 25, [13, 12]])
def test_how_an_update_is_cut_into_parts_does_not_matter(parts: list[int]) -> None:
    """The verifier streams: the statement is about the blocks in order."""
    ciphertexts, proof = proven(TOY, 25)
    cuts = np.cumsum(parts)[:-1]
    verify_update(iter(np.split(ciphertexts[:, 1], cuts)), 25, proof, TOY.key, TOY.params, CONTEXT)


def test_the_verifiers_memory_does_not_grow_with_the_update() -> None:
    """Sixty blocks take what ten take, within a fifth."""
    ciphertexts, proof = proven(TOY, 60)
    peaks = [peak_of_verifying(*proven(TOY, 10)), peak_of_verifying(ciphertexts, proof)]
    assert peaks[1] < 1.2 * peaks[0]


def peak_of_verifying(ciphertexts: np.ndarray, proof: bytes) -> int:
    """Bytes in use at once."""
    check(ciphertexts[:, 1], proof, TOY.key, TOY.params)
    tracemalloc.start()
    try:
        check(ciphertexts[:, 1], proof, TOY.key, TOY.params)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_key_of_other_parameters_is_the_callers_mistake() -> None:
    """Nobody is accused for it."""
    ciphertexts, proof = proven(TOY, 1)
    with pytest.raises(WrongEpoch, match="other security parameters"):
        check(ciphertexts[:, 1], proof, TOY.key, toy_params(degree=64, weight_bits=1))


def test_an_update_that_no_proof_covers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers would leave their 24 bits: 10,144 blocks of the real ring."""
    assert proof_bounds.provable(4096, 10_144) and not proof_bounds.provable(4096, 10_145) and not proof_bounds.provable(4096, 0)
    monkeypatch.setattr(update_proof, "provable", lambda _, blocks: blocks < 2)
    with pytest.raises(CiphertextError, match="too long for one proof"):
        proven(TOY, 2)


def test_the_randomness_prints_redacted_and_stays() -> None:
    """It opens the update."""
    _, randomness = encrypt_with_randomness(packed_update(TOY, 1), TOY.key, TOY.params)
    assert repr(randomness) == "<Randomness redacted>"
    with pytest.raises(TypeError, match="does not leave its process"):
        pickle.dumps(randomness)


def tries_of(members: Committee, blocks: int, count: int) -> list[update_proof.UpdateProof]:
    """The proofs among so many tries for one update."""
    _, randomness = encrypt_with_randomness(packed_update(members, blocks), members.key, members.params, SecretSeed(b"w" * 32))
    names = [k.to_bytes(32, "little") for k in range(count)]
    tries = (update_proof._attempt(name, randomness, members.key, members.params, SecretSeed(name)) for name in names)
    return [proof for proof in tries if proof is not None]


@pytest.mark.parametrize("blocks", [1, 20])
def test_the_number_of_tries_is_the_predicted(blocks: int) -> None:
    """The chance of a proof per try, within four standard deviations of 300 tries."""
    found = len(tries_of(TOY, blocks, 300))
    chance = math.exp(-proof_bounds.log_tries(64, blocks))
    assert abs(found - 300 * chance) < 4 * math.sqrt(300 * chance * (1 - chance))


def test_real_updates_take_two_to_four_tries() -> None:
    """For every size up to twelve million parameters."""
    tries = [math.exp(proof_bounds.log_tries(4096, blocks)) for blocks in range(1, 1000)]
    assert 1.9 < min(tries) < max(tries) < 4.3


def shifted(count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Masks plus the longest witness sums that are provided for, projected on those, in standard deviations.

    Returns:
      All projections, which of them the rejection keeps, and how far the witness moves their mean.
    """
    degree, blocks = 64, 5
    sigmas = 2.0 ** np.array(proof_bounds.masks_log2(degree, blocks))
    lengths = np.sqrt(proof_bounds.REPETITIONS * blocks * proof_bounds._widened(degree) * np.array([2 / 3, 10.5]))
    signs = np.random.default_rng(1).choice([-1, 1], (proof_bounds.REPETITIONS, 2, degree))
    added = np.rint(signs * (lengths / math.sqrt(signs[:, 0].size))[:, None]).astype(np.int64)
    generator, direction = Generator(SecretSeed(b"p" * 32)), added / (1.005 * sigmas[:, None])
    distance = float(np.sqrt((direction**2).sum()))
    found, kept = np.empty(count), np.empty(count, dtype=bool)
    for k in range(count):
        masks = np.stack([flooding(generator, signs[:, 0].size, int(np.log2(s))).reshape(-1, degree) for s in sigmas], axis=1)
        found[k] = (direction * (masks + added) / (1.005 * sigmas[:, None])).sum() / distance
        kept[k] = not update_proof._rejected(masks + added, masks, blocks, generator)
    return found, kept, distance


def test_answers_do_not_depend_on_the_witness() -> None:
    """Along what was added to the masks, where it shows best, kept answers are as masks are; before the rejection it shows.

    Means within 3.5 standard errors, and the chance of keeping is the predicted, for the witness of greatest length as for any.
    """
    found, kept, distance = shifted(6000)
    error = 1 / math.sqrt(kept.sum())
    assert abs(found[kept].mean()) < 3.5 * error
    assert found[kept].std() == pytest.approx(1, abs=3.5 * error)
    assert found.mean() == pytest.approx(distance, abs=3.5 / math.sqrt(6000)) and distance > 3.5 * error
    assert kept.mean() == pytest.approx(math.exp(-proof_bounds.log_tries(64, 5)), rel=0.1)


def test_answers_have_the_masks_distribution() -> None:
    """Standard deviations of the answers to u and to e are those of the masks."""
    answers = np.stack([proof.answers for proof in tries_of(TOY, 5, 100)]).astype(float)  # (proofs, REPETITIONS, 2, N)
    for part, sigma in enumerate(proof_bounds.masks_log2(64, 5)):
        assert answers[:, :, part].std() == pytest.approx(1.005 * 2**sigma, rel=0.01)
