"""An update whose c1 a site chose gives the collective key away; none such has a valid proof. And what a proof does let through.

The first test shows that the attack works where nobody asks for proofs: otherwise its failure would prove nothing.
"""

import numpy as np
import pytest

from bahefl_flwr.errors import MalformedCiphertext, UnprovenUpdate
from bahefl_flwr.he import update_proof
from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.packing import pack
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.proof_bounds import REPETITIONS, largest_answers, masks_log2
from bahefl_flwr.he.proof_format import UpdateProof, encode_proof
from bahefl_flwr.he.ring import ring
from bahefl_flwr.he.sampling import digest
from bahefl_flwr.he.seal_format import PartKind, decode_part, encode_part
from bahefl_flwr.he.update_proof import encrypt_with_proof
from he_committee import Committee, centred, committee, decrypted, real_params, toy_params
from he_forger import CONTEXT, check, chosen_c1, forged_proof

REAL = committee(real_params(weight_bits=3))
ALL = committee(toy_params(degree=128))
PARAMS, KEY = ALL.params, ALL.key


def collective_key(members: Committee) -> np.ndarray:
    """The secret key's coefficients, which only a test can add up; shape (N,)."""
    keys = {i: key for share in members.shares for i, key in share.keys.items()}
    whole = np.sum([key.secret.astype(object) for key in keys.values()], axis=0)
    return centred(members.params, whole[None])[0].astype(np.int64)


def halves(*polynomials: tuple[dict[int, int], dict[int, int]], degree: int = 128) -> np.ndarray:
    """Doubled u and e of every block, given by their nonzero coefficients; shape (blocks, 2, N)."""
    out = np.zeros((len(polynomials), 2, degree), dtype=np.int64)
    for block, pair in zip(out, polynomials, strict=True):
        for row, coefficients in zip(block, pair, strict=True):
            for at, value in coefficients.items():
                row[at] = 2 * value
    return out


def with_large_errors(c1: np.ndarray, blocks: list[int], log2: int, params: SecurityParams) -> np.ndarray:
    """c1 with 2^log2 added to the constant coefficient of some blocks: as uniform as before."""
    added = np.zeros((len(c1), params.ring_degree), dtype=np.int64)
    added[blocks, 0] = 1 << log2
    primes = np.array(params.data_primes)[:, None]
    return ((c1 + ring(params).forward_all(added)) % primes).astype(np.uint32)


def stolen_key(members: Committee, log2: int) -> np.ndarray:
    """What one opened aggregate of four honest sites and the attacker shows of the key, if c1 = u*a + 2^log2 gets into it."""
    params = members.params
    small = np.random.default_rng(0).normal(0, 0.005, (4, 5000)).astype(np.float32)
    honest = [encrypt(pack(update, 0.2, params), members.key, params) for update in small]
    attacker = encrypt(np.zeros((1, params.ring_degree), np.int64), members.key, params)
    attacker[:, 1] = with_large_errors(attacker[:, 1], [0], log2, params)
    total = add([*honest, attacker], [1] * 5, params)
    packed = members.open(total, range(params.threshold))
    half = 1 << (params.field_bits - 1)
    lowest = ((packed[0] + half) & (2 * half - 1)) - half
    return np.rint(lowest / 2.0 ** (log2 - params.noise_bits)).astype(np.int64)


def test_without_a_proof_one_update_gives_the_key_away() -> None:
    """All 4096 coefficients of the collective key, from the lowest field of one opened aggregate of four honest sites and one."""
    found = stolen_key(REAL, REAL.params.noise_bits + REAL.params.field_bits - 6)
    assert np.array_equal(found, collective_key(REAL))


def attack(blocks: list[int], count: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An update with 2^49 in the c1 of some blocks, else honest.

    Returns:
      Ciphertexts, and the u and e that the site knows, doubled, shape (count, 2, N).
    """
    ciphertexts, randomness = update_proof.encrypt_with_randomness(np.zeros((count, 128), np.int64), KEY, PARAMS)
    ciphertexts[:, 1] = with_large_errors(ciphertexts[:, 1], blocks, 49, PARAMS)
    known = 2 * np.stack([randomness.masks, randomness.errors], axis=1).astype(np.int64)
    known[blocks, 1, 0] += 2 << 49
    return ciphertexts, known, ciphertexts[:, 1]


@pytest.mark.parametrize("blocks", [[0], [11], [5], list(range(12))], ids=["first", "last", "middle", "all"])
@pytest.mark.parametrize("guess", [False, True])
def test_an_update_that_steals_the_key_has_no_proof(blocks: list[int], guess: bool) -> None:
    """Wherever the attack is: answers that fit c1 do not fit their 24 bits, those that fit do not belong to c1."""
    _, known, c1 = attack(blocks)
    with pytest.raises(UnprovenUpdate):
        check(c1, forged_proof(known, c1, KEY, PARAMS, guess=guess), KEY, PARAMS)


def test_an_honest_proof_does_not_cover_an_attack_added_later() -> None:
    """A proof for the honest update that the attack starts from is none for the attack."""
    ciphertexts, proof = encrypt_with_proof(np.zeros((3, 128), np.int64), KEY, PARAMS, CONTEXT)
    check(ciphertexts[:, 1], proof, KEY, PARAMS)
    with pytest.raises(UnprovenUpdate, match="not for this update"):
        check(with_large_errors(ciphertexts[:, 1], [2], 49, PARAMS), proof, KEY, PARAMS)


@pytest.mark.parametrize("part", [0, 1], ids=["u", "e"])
def test_a_cheat_ends_at_the_bounds(part: int) -> None:
    """A limit: u or e as large as an answer may be has a proof. One more has none.

    Flooding is wide enough for it: docs/security.md, section 8.
    """
    largest = largest_answers(128, 1)[part]
    for size, passes in [(largest, True), (largest + 1, False)]:
        known = halves(({} if part else {7: size}, {7: size} if part else {}))
        c1 = chosen_c1(known, KEY, PARAMS)
        proof = forged_proof(known, c1, KEY, PARAMS)
        if passes:
            check(c1, proof, KEY, PARAMS)
        else:
            with pytest.raises(UnprovenUpdate, match="larger than honest ones"):
                check(c1, proof, KEY, PARAMS)


def odd(*at: int) -> np.ndarray:
    """c1 = e'/2 for one block, with e' odd in some places and zero elsewhere; shape (1, 2, N)."""
    out = np.zeros((1, 2, 128), dtype=np.int64)
    out[0, 1, list(at)] = 1
    return out


@pytest.mark.parametrize("at", [(0,), (5,), tuple(range(127)), tuple(range(0, 128, 2)), tuple(range(0, 128, 64))])
def test_halves_have_no_proof(at: tuple[int, ...]) -> None:
    """c1 = e'/2 mod q is large, and opens to q/2 where e'*s is odd. One odd coefficient, or any few, cannot be answered for."""
    c1 = chosen_c1(odd(*at), KEY, PARAMS)
    for guess in (False, True):
        with pytest.raises(UnprovenUpdate, match="not for this update"):
            check(c1, forged_proof(odd(*at), c1, KEY, PARAMS, guess=guess), KEY, PARAMS)


def test_half_of_all_ones_has_a_proof() -> None:
    """A limit: if all coefficients of e' are odd, (X^k - 1) * e' is even for every k, and the cheat passes."""
    known = odd(*range(128))
    c1 = chosen_c1(known, KEY, PARAMS)
    check(c1, forged_proof(known, c1, KEY, PARAMS, guess=True), KEY, PARAMS)


def test_half_of_all_ones_shows_one_bit_of_the_key() -> None:
    """What it opens to is q/2 in all coefficients or in none: the parity of the sum of the key's coefficients, nothing else."""
    c1 = chosen_c1(odd(*range(128)), KEY, PARAMS)
    ciphertext = np.stack([np.zeros_like(c1), c1], axis=1)
    modulus = float(np.prod([float(q) for q in PARAMS.data_primes]))
    opened = np.abs(decrypted(ALL, ciphertext, (0, 1, 2))) / modulus  # 0 or 1/2, but for the noise
    assert np.allclose(opened, collective_key(ALL).sum() % 2 / 2, atol=2.0**-30)


def test_a_block_without_encryption_is_refused() -> None:
    """c1 = 0 has the proof u = e = 0. Parser and verifier refuse it: it hides nothing."""
    nothing = halves(({}, {}))
    c1 = chosen_c1(nothing, KEY, PARAMS)
    with pytest.raises(UnprovenUpdate, match="c1 = 0"):
        check(c1, forged_proof(nothing, c1, KEY, PARAMS), KEY, PARAMS)
    with pytest.raises(MalformedCiphertext, match="c1 = 0"):
        decode_part(encode_part(np.stack([c1, c1], axis=1), PartKind.CIPHERTEXT, PARAMS), PartKind.CIPHERTEXT, PARAMS)


def test_another_sites_update_cannot_be_sent_again() -> None:
    """Copied with its proof, an update does not pass under the copier's name, in another round or epoch, nor in another run."""
    ciphertexts, proof = encrypt_with_proof(np.ones((2, 128), np.int64), KEY, PARAMS, b"run|3|site 1|1|key")
    check(ciphertexts[:, 1], proof, KEY, PARAMS, b"run|3|site 1|1|key")
    for context in (b"run|3|site 2|1|key", b"run|4|site 1|1|key", b"other|3|site 1|1|key", b"run|3|site 1|2|key"):
        with pytest.raises(UnprovenUpdate, match="not for this update"):
            check(ciphertexts[:, 1], proof, KEY, PARAMS, context)


def test_a_cancelling_update_has_no_proof() -> None:
    """Minus another site's c1, which isolates a victim: whoever does not know the victim's u and e cannot prove it."""
    victim, proof = encrypt_with_proof(np.ones((1, 128), np.int64), KEY, PARAMS, b"victim")
    minus = (-victim[:, 1].astype(np.int64) % np.array(PARAMS.data_primes)[:, None]).astype(np.uint32)
    for forged in (proof, forged_proof(halves(({}, {})), minus, KEY, PARAMS, guess=True)):
        with pytest.raises(UnprovenUpdate, match="not for this update"):
            check(minus, forged, KEY, PARAMS)


def test_only_the_order_of_events_keeps_cheats_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knows the challenge before it commits proves anything, for it computes w backwards. The hash of w forbids just that.

    A simulator does the same, so that answers and challenges alone show nothing of u and e.
    """
    _, _, c1 = attack([0], count=2)
    sigmas = np.array([2**s for s in masks_log2(128, 2)])[:, None]
    answers = np.rint(np.random.default_rng(1).normal(0, sigmas, (REPETITIONS, 2, 128))).astype(np.int32)
    known = digest("update-challenge", b"known beforehand")
    proof = encode_proof(UpdateProof(challenge=known, answers=answers), PARAMS)
    with pytest.raises(UnprovenUpdate, match="not for this update"):
        check(c1, proof, KEY, PARAMS)
    monkeypatch.setattr(update_proof, "_challenge", lambda *_: known)
    check(c1, proof, KEY, PARAMS)
