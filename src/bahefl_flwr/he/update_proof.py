"""Every update proves that its site drew c1 as `encrypt` does, without showing how: the prover and the verifier of that proof.

Opening anything with a c1 that a site chose gives the key away: c1 = u*a + 2^49 looks uniform, and the opened sum carries
2^49 * s. So every update proves, for each of its blocks, that c1 = u*a + e with short u and e. c0 needs no proof: whatever it
is, it is an encryption of something. The proof is a Sigma protocol made non-interactive. Per repetition r < REPETITIONS:

    1. the site draws masks y[r], y'[r] and commits to w[r] = a*y[r] + y'[r];
    2. a hash of statement and all w gives every block b of every repetition an exponent k, uniform in 0..2N-1;
    3. it answers z[r] = y[r] + sum over b of X^k * u[b], z'[r] = y'[r] + sum over b of X^k * e[b].

The statement is key, parameters, context (run, round, site) and c1. The proof is the hash and the answers: the verifier computes
w[r] = a*z[r] + z'[r] - sum over b of X^k * c1[b], and the hash must come out again. Answers are shown only after a rejection (all
repetitions at once) that makes them distributed as the masks are; otherwise the site tries again, 2 to 4 times on average.

*Completeness.* Honest answers pass every check by construction: what would not is tried again.

*What is proved.* Take any first message and block, and let S be the exponents of that block, the rest of the challenge fixed,
that some repetition could answer. For i, j in S the difference of two answers gives short x, x' with
(X^i - X^j) * c1 = a*x + x'. 2 / (X^i - X^j) has coefficients -1, 0, 1 only: so 2*c1 = a*u' + e' with short integer u', e', and
these are unique, for two pairs would differ by a vector shorter than 2^40 in a lattice whose shortest is about 2^49. All i, j
together say more: |(X^i - X^j) * e'/2| is at most twice the bound on an answer. Over the complex roots of X^N + 1 the mean of
|X^i - X^j|^2 over i, j in S is 2 - 2 |mean of X^i|^2, and no S of its size has a longer mean than an arc. That bounds |e'/2|, and
|u'/2| alike: `proof_bounds.cheat_norms`, 1.4 bounds of an answer if S is everything. A cheat beyond the norm for a part delta of
all exponents passes with a chance below delta^REPETITIONS per hash tried, however much else its prover can compute.

*What the factor 2 lets through.* c1 = (a*u' + e') / 2 mod q with odd coefficients, for which q/2 times the parity of e'*s shows
in an opening. It needs (X^i - X^j) * e' to be even for all i, j in S. If S is a part 2^-m, then e' modulo 2 is a multiple of
(X + 1)^(N - 2^m), and what it shows of s is s modulo (2, X^(2^m) + 1), the same in every round: 2^m bits for 2^(16 m) hashes,
and as many of the key's error. One bit of each for nothing, four for 2^32 hashes, sixteen for 2^64. The key keeps thousands.

*What is not proved:* that u and e are as small as honest ones. docs/security.md, section 8, counts what a site can do within the
bounds, and the flooding of decryption shares is wide enough for it.

*Zero knowledge.* Accepted answers are distributed as the masks whatever the witness, but for a chance of 2^-103, so that a
simulator draws answers and challenges and computes w; rejected tries show nothing, for their w is never sent. Masks derive from
the site's seed, the statement and the number of the try by integer arithmetic alone. A retry after a crash, on whatever machine,
so repeats the same proof or shows a try with other masks, never two answers with the same masks. (Masks from floating-point
logarithms would not do: rounded differently on two machines, they give two challenges for nearly equal masks, and the
difference of the answers shows u.)

Source: Lyubashevsky, EUROCRYPT 2012, for the rejection; Benhamouda, Camenisch, Krenn, Lyubashevsky, Neven, ASIACRYPT 2014, for
monomial challenges; Fiat, Shamir, CRYPTO 1986. The bound by arcs and the count of parities are ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import count

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import CiphertextError, UnprovenUpdate, WrongEpoch
from bahefl_flwr.he.ckks import Ciphertexts, Randomness, encrypt_with_randomness
from bahefl_flwr.he.keys import PublicKey, residue_bytes
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.proof_bounds import REPETITIONS, largest_answers, largest_squares, log_tries, masks_log2, provable
from bahefl_flwr.he.proof_format import UpdateProof, decode_proof, encode_proof
from bahefl_flwr.he.ring import BATCH, Int64Array, reduce, ring
from bahefl_flwr.he.sampling import Generator, SecretSeed, digest, flooding, flooding_density


def encrypt_with_proof(
    packed: NDArray[np.int64],
    public_key: PublicKey,
    params: SecurityParams,
    context: bytes,
    seed: SecretSeed | None = None,
) -> tuple[Ciphertexts, bytes]:
    """Encrypt a whole packed update and prove that it was encrypted as it must be.

    Args:
      packed: shape (blocks, N), from `packing.pack`.
      context: whose update of which run, round and key epoch this is; the proof is valid in no other.
      seed: as in `encrypt`. Equal inputs give equal ciphertexts, the bytes that `encrypt` gives, and equal proofs.

    Returns:
      Ciphertexts of shape (blocks, 2, primes, N), and the proof, `proof_format.proof_bytes` long.

    Raises:
      CiphertextError: `packed` is not of that form, or of more blocks than a proof holds.
      WrongEpoch: the public key was made under other security parameters.
    """
    secret = seed or SecretSeed.random()
    ciphertexts, randomness = encrypt_with_randomness(packed, public_key, params, secret)
    if not provable(params.ring_degree, len(packed)):
        raise CiphertextError(f"an update of {len(packed)} blocks is too long for one proof: use a smaller model")
    c1 = hashlib.sha256()
    for block in ciphertexts[:, 1]:
        c1.update(residue_bytes(block))
    statement = _statement(c1.digest(), len(packed), public_key, params, context)
    for attempt in count():
        proof = _attempt(statement, randomness, public_key, params, secret.derive("prove-update", statement, attempt))
        if proof is not None:
            return ciphertexts, encode_proof(proof, params)
    raise AssertionError("unreachable")


def verify_update(
    c1_parts: Iterable[NDArray[np.uint32]],
    blocks: int,
    proof: bytes,
    public_key: PublicKey,
    params: SecurityParams,
    context: bytes,
) -> None:
    """Whether an update may be added and opened: its site knows short u and e for each of its blocks.

    Exact integer arithmetic, the same verdict on every machine. Memory does not grow with the number of blocks.

    Checks:
      1. the proof has its exact form (`decode_proof`), and the update is no longer than a proof can cover;
      2. every answer is within its bounds, coefficient by coefficient and in Euclidean norm;
      3. the parts are residues of the announced number of blocks, and no block's c1 is zero;
      4. answers and c1 give the commitments whose hash, with key, parameters, context and c1, is the challenge.

    Args:
      c1_parts: second polynomials of the update's parts in order, each of shape (some blocks, primes, N), NTT domain.
      blocks: how many there must be.
      context: as the site must have given it to `encrypt_with_proof`.

    Raises:
      UnprovenUpdate: naming the check that failed.
      WrongEpoch: the public key was made under other security parameters: the caller's mistake.
    """
    if public_key.params_digest != params.digest():
        raise WrongEpoch("an update cannot be checked with a public key of other security parameters: use its epoch's key")
    shown = decode_proof(proof, params)  # 1
    if not provable(params.ring_degree, blocks):
        raise UnprovenUpdate(f"no proof covers {blocks} blocks: exclude the sender")
    answers = shown.answers.astype(np.int64)
    if not _within_bounds(answers, blocks):  # 2
        raise UnprovenUpdate("an answer in the proof of an update is larger than honest ones ever are: exclude its sender")
    exponents = _exponents(shown.challenge, blocks, params)
    turned, c1 = _turned_sums(c1_parts, blocks, exponents, params)  # 3
    second = answers[:, 1, None] - turned  # (REPETITIONS, primes, N)
    commitments = _commitments(answers[:, 0], second, public_key, params)
    statement = _statement(c1, blocks, public_key, params, context)
    if _challenge(statement, commitments) != shown.challenge:  # 4
        raise UnprovenUpdate(
            "the proof is not for this update, site, round and key, or c1 was not drawn as encryption draws it: opening it could "
            "show the key; exclude its sender"
        )


def _attempt(
    statement: bytes, randomness: Randomness, public_key: PublicKey, params: SecurityParams, seed: SecretSeed
) -> UpdateProof | None:
    """One try: None if the answers have to be rejected."""
    generator, blocks = Generator(seed), len(randomness.masks)
    sigmas = masks_log2(params.ring_degree, blocks)
    shape = (REPETITIONS, params.ring_degree)
    masks = np.stack([flooding(generator, REPETITIONS * params.ring_degree, sigma).reshape(shape) for sigma in sigmas], axis=1)
    second = np.broadcast_to(masks[:, 1, None], (REPETITIONS, len(params.data_primes), params.ring_degree))
    challenge = _challenge(statement, _commitments(masks[:, 0], second, public_key, params))
    answers = masks + _witness_sums(randomness, _exponents(challenge, blocks, params))  # (REPETITIONS, 2, N)
    if not _within_bounds(answers, blocks) or _rejected(answers, masks, blocks, generator):
        return None
    return UpdateProof(challenge=challenge, answers=answers.astype(np.int32))


def _rejected(answers: Int64Array, masks: Int64Array, blocks: int, generator: Generator) -> bool:
    """Lyubashevsky's rejection: what is not rejected is distributed as the masks are, whatever was added to them.

    Floating point is allowed here: it decides whether a try is shown, on this machine only. Another machine that decides
    otherwise goes on to other masks.
    """
    degree = answers.shape[-1]
    logarithm = -log_tries(degree, blocks)
    for part, sigma in enumerate(masks_log2(degree, blocks)):
        wanted, drawn = flooding_density(answers[:, part], sigma), flooding_density(masks[:, part], sigma)
        if not wanted.all():
            return True
        logarithm += float(np.log(wanted / drawn).sum())
    chance = (int(generator.words(1)[0]) + 0.5) / 2.0**64
    return bool(np.log(chance) >= logarithm)


def _within_bounds(answers: Int64Array, blocks: int) -> bool:
    degree = answers.shape[-1]
    largest, squares = largest_answers(degree, blocks), largest_squares(degree, blocks)
    return all(
        int(np.abs(part).max()) <= most and int((part * part).sum(axis=1).max()) <= square
        for part, most, square in zip(answers.swapaxes(0, 1), largest, squares, strict=True)
    )


def _statement(c1: bytes, blocks: int, public_key: PublicKey, params: SecurityParams, context: bytes) -> bytes:
    return digest("update-statement", params.digest(), public_key.digest(), context, blocks, c1)


def _challenge(statement: bytes, commitments: bytes) -> bytes:
    return digest("update-challenge", statement, commitments)


def _exponents(challenge: bytes, blocks: int, params: SecurityParams) -> NDArray[np.int64]:
    """k of every repetition and block, 0..2N-1, shape (REPETITIONS, blocks)."""
    # A public value, in the type that starts a generator. 2N is a power of two up to 2^13.
    words = Generator(SecretSeed(challenge)).bytes(2 * REPETITIONS * blocks).view("<u2")
    return (words & (2 * params.ring_degree - 1)).astype(np.int64).reshape(REPETITIONS, blocks)


def _commitments(first: Int64Array, second: Int64Array, public_key: PublicKey, params: SecurityParams) -> bytes:
    """SHA-256 of a * first + second, prime by prime.

    Args:
      first: integer polynomials, shape (REPETITIONS, N).
      second: for every prime, shape (REPETITIONS, primes, N).
    """
    structure, found = ring(params), hashlib.sha256()
    for l, q in enumerate(params.data_primes):
        product, rest = reduce(first, q), reduce(second[:, l], q)
        structure.forward(product, l)
        structure.forward(rest, l)
        product *= public_key.a[l]
        product += rest
        found.update(residue_bytes(reduce(product, q).astype(np.uint32)))
    return found.digest()


def _witness_sums(randomness: Randomness, exponents: NDArray[np.int64]) -> NDArray[np.int32]:
    """Sums over blocks of X^k * u and X^k * e, shape (REPETITIONS, 2, N)."""
    degree = randomness.masks.shape[1]
    total = np.zeros((len(exponents), 2, degree), dtype=np.int32)
    for mask, error, turns in zip(randomness.masks, randomness.errors, exponents.T, strict=True):
        _add_turned(total, np.stack([mask, error]).astype(np.int32), turns)
    return total


def _turned_sums(
    c1_parts: Iterable[NDArray[np.uint32]], blocks: int, exponents: NDArray[np.int64], params: SecurityParams
) -> tuple[Int64Array, bytes]:
    """Sums over blocks of X^k * c1 in coefficients, not reduced, shape (REPETITIONS, primes, N); and the digest of all c1.

    Turning coefficients after one inverse transform a block takes a third of the time of products in NTT domain.
    """
    total = np.zeros((REPETITIONS, len(params.data_primes), params.ring_degree), dtype=np.int64)
    found, seen = hashlib.sha256(), 0
    for part in c1_parts:
        _check_part(part, blocks - seen, params)
        for start in range(0, len(part), BATCH):
            batch = part[start : start + BATCH]
            coefficients = _coefficients(batch, params)
            for block, polynomials in zip(batch, coefficients, strict=True):
                found.update(residue_bytes(block))
                _add_turned(total, polynomials, exponents[:, seen])
                seen += 1
    if seen != blocks:
        raise UnprovenUpdate(f"the update has {seen} blocks, announced were {blocks}: fetch it again or exclude its sender")
    return total, found.digest()


def _coefficients(batch: NDArray[np.uint32], params: SecurityParams) -> Int64Array:
    out = np.empty(batch.shape, dtype=np.int64)
    for l in range(len(params.data_primes)):
        row = batch[:, l].astype(np.int64)
        ring(params).inverse(row, l)
        out[:, l] = row
    return out


def _add_turned(total: NDArray[np.signedinteger], block: NDArray[np.signedinteger], exponents: NDArray[np.int64]) -> None:
    """Add X^k * block to each repetition's total: a slice of the block written thrice, in the middle negated.

    Args:
      total: shape (REPETITIONS, rows, N), added to in place.
      block: polynomials, shape (rows, N).
      exponents: k per repetition.
    """
    degree = block.shape[1]
    tripled = np.concatenate([block, -block, block], axis=1)  # (rows, 3 N): coefficients -2N..N-1 of a row without end
    for sums, k in zip(total, exponents.tolist(), strict=True):
        np.add(sums, tripled[:, 2 * degree - k : 3 * degree - k], out=sums)


def _check_part(part: NDArray[np.uint32], most: int, params: SecurityParams) -> None:
    primes = params.data_primes
    if part.dtype != np.uint32 or part.ndim != 3 or part.shape[1:] != (len(primes), params.ring_degree) or not len(part):
        raise UnprovenUpdate(
            f"a part of c1 is {part.dtype}{part.shape}, expected uint32(blocks, {len(primes)}, {params.ring_degree})"
        )
    if len(part) > most:
        raise UnprovenUpdate(f"the update has {len(part) - most} blocks more than announced, or yet more: exclude its sender")
    if any(int(part[:, l].max()) >= q for l, q in enumerate(primes)):
        raise UnprovenUpdate("a residue of c1 is not below its prime: parse parts with decode_part; exclude the sender")
    if not part.any(axis=(1, 2)).all():
        raise UnprovenUpdate("a block has c1 = 0 and is not encrypted at all: exclude its sender")
