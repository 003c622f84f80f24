"""Attacks that broke a naive threshold CKKS: each is carried out here, and fails, or its limit is stated.

Most tests first show that the attack works where the defence is missing: otherwise its failure would prove nothing.
"""

from pathlib import Path

import numpy as np
import pytest

from bahefl_flwr.errors import ShareError, StoreError
from bahefl_flwr.he import ceremony
from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.keys import PublicKey, assign, held_subsets, holders, subsets
from bahefl_flwr.he.packing import pack, unpack
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import reduce, ring
from bahefl_flwr.he.sampling import Generator, SecretSeed, centred_binomial, ternary, uniform
from bahefl_flwr.he.seal_format import PartKind, encode_part
from bahefl_flwr.he.share_proof import verify_share
from bahefl_flwr.he.threshold import combine, partial_decrypt
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store import LocalStore, Manifest
from bahefl_flwr.store.manifest import manifest_for
from he_committee import EPOCH, Committee, committee, forged_share, toy_params, updates

ALL = committee(toy_params(degree=512))
PARAMS = ALL.params
PRIMES = np.array(PARAMS.data_primes)[:, None]
QUORUM = (0, 1, 2)
COUNT = 4 * PARAMS.parameters_per_block
PLAIN = [np.clip(u, -0.25, 0.25) for u in updates(4, COUNT)]
SENT = [encrypt(pack(u, 0.25, PARAMS), ALL.key, PARAMS, SecretSeed(bytes([k]) * 32)) for k, u in enumerate(PLAIN)]
AGGREGATE = add(SENT, [1] * 4, PARAMS)


def shares_of(aggregate: np.ndarray, quorum: tuple[int, ...] = QUORUM) -> dict[int, np.ndarray]:
    """Honest decryption shares."""
    return ALL.shares_of(aggregate, quorum)


def key_pair_of_attacker(a: np.ndarray, params: SecurityParams) -> tuple[np.ndarray, np.ndarray]:
    """A secret of the attacker's own and its public part under the common reference; (primes, N), NTT domain."""
    generator = Generator(SecretSeed(b"evil" * 8))
    small = np.stack([ternary(generator, params.ring_degree), centred_binomial(generator, params.ring_degree)])
    secret, error = ring(params).forward_all(small)
    return secret, (-(a * secret) - error) % np.array(params.data_primes)[:, None]


def decrypt_alone(ciphertext: np.ndarray, secret: np.ndarray, params: SecurityParams) -> np.ndarray:
    """c0 + c1 * s for one secret, rounded: the packed message if that is the whole key."""
    residues = []
    for l, q in enumerate(params.data_primes):
        row = reduce(ciphertext[:, 0, l] + ciphertext[:, 1, l] * secret[l], q)
        ring(params).inverse(row, l)
        residues.append(row)
    return ring(params).crt_round(residues, params.noise_bits)


def rogue_parts(members: Committee, forgers: tuple[int, ...], subset: int) -> tuple[dict, np.ndarray]:
    """All public parts, the forgers' for `subset` replaced by their own key minus everybody's parts; and their secret."""
    params = members.params
    honest = {i: part.astype(np.int64) for published in members.parts.values() for i, part in published.items()}
    secret, public = key_pair_of_attacker(members.key.a, params)
    rest = sum(part for i, part in honest.items() if i != subset)
    rogue = ((public - rest) % np.array(params.data_primes)[:, None]).astype(np.uint32)
    return members.parts | {p: members.parts[p] | {subset: rogue} for p in forgers}, secret


def public_key_of(parts: dict, members: Committee) -> PublicKey:
    """The key that these parts add up to, whoever contradicts whom."""
    each = {i: part.astype(np.int64) for published in members.parts.values() for i, part in published.items()}
    for position, published in parts.items():
        each |= {i: part for i, part in published.items() if not np.array_equal(part, members.parts[position][i])}
    b = (sum(each.values()) % np.array(members.params.data_primes)[:, None]).astype(np.uint32)
    return PublicKey(b=b, a=members.key.a, epoch_id=EPOCH, params_digest=members.params.digest())


@pytest.mark.parametrize("n_t", [(3, 2), (5, 3), (2, 2)])
def test_a_rogue_last_key_is_named_before_anybody_uses_it(n_t: tuple[int, int]) -> None:
    """Unchecked, the last publisher alone reads every update. Every other member names it instead of confirming."""
    members = committee(toy_params(*n_t))
    forger = n_t[0] - 1
    parts, secret = rogue_parts(members, (forger,), held_subsets(forger, *n_t)[0])
    packed = np.arange(64)[None] << 30
    stolen = decrypt_alone(encrypt(packed, public_key_of(parts, members), members.params), secret, members.params)
    assert np.array_equal(stolen, packed)
    for position in range(forger):
        assert forger in ceremony.contradicting_members(
            members.shares[position], parts, members.openings[position], members.params
        )


def test_only_in_even_committees_do_fewer_than_t_hold_a_subset_alone() -> None:
    """With t = (n+1)/2 every subset has a holder outside any t-1 members, who compares; with more, t-1 may be all holders."""
    alone = {
        (n, t): any(set(holders(i, n, t)) <= set(c) for i in range(len(subsets(n, t))) for c in subsets(n, t))
        for n, t in [(3, 2), (5, 3), (7, 4), (9, 5), (4, 3), (6, 4), (5, 4), (10, 6)]
    }
    assert [n_t for n_t, some in alone.items() if some] == [(4, 3), (6, 4), (5, 4), (10, 6)]


def test_holders_of_a_whole_subset_must_name_their_parts_before_they_see_the_others() -> None:
    """A limit: 2 of 4 members hold subset (0, 1) alone; if they see the others' parts first, they can choose the collective key.

    Comparing parts does not show it. What prevents it is order: every digest is on the ledger before any part can be read.
    """
    members = committee(toy_params(4, 3))
    parts, secret = rogue_parts(members, (2, 3), subsets(4, 3).index((0, 1)))
    for position in (0, 1):
        assert not ceremony.contradicting_members(members.shares[position], parts, members.openings[position], members.params)
    packed = np.arange(64)[None] << 30
    stolen = decrypt_alone(
        encrypt(packed, ceremony.collective_key(parts, members.params, EPOCH), members.params), secret, members.params
    )
    assert np.array_equal(stolen, packed)


def cancelling() -> np.ndarray:
    """Minus the sum of all ciphertexts but the victim's, the first: the attacker's answer to what it has read."""
    return (-sum(c.astype(np.int64) for c in SENT[1:]) % PRIMES).astype(np.uint32)


def manifest_of(ciphertext: np.ndarray, site: str, **other: int) -> tuple[Manifest, list[bytes]]:
    """A stored update."""
    parts = [encode_part(ciphertext, PartKind.CIPHERTEXT, PARAMS)]
    binding = {"run": bytes(32), "round": 3, "epoch": 1} | other
    return manifest_for(parts, site=site, kind=ObjectKind.UPDATE, **binding), parts


VICTIM, ATTACKER = "0x" + "11" * 20, "0x" + "22" * 20


def test_a_cancelling_ciphertext_isolates_a_victim() -> None:
    """A limit: ciphertexts can be added by anybody. Whoever may choose its own after reading the others' opens one of them."""
    opened = ALL.open(add([*SENT, cancelling()], [1] * 5, PARAMS), QUORUM)
    assert np.abs(unpack(opened, COUNT, 0.25, PARAMS) - PLAIN[0]).max() < 1e-4


def test_a_cancelling_ciphertext_has_another_digest_than_was_committed(tmp_path: Path) -> None:
    """The digest is on the ledger before the others' bytes can be read, and nothing but the committed bytes answers to it."""
    store = LocalStore(tmp_path)
    committed, _ = manifest_of(SENT[3], ATTACKER)
    forged, parts = manifest_of(cancelling(), ATTACKER)
    store.put(forged, parts)
    assert forged.digest != committed.digest
    with pytest.raises(StoreError):
        store.put(committed, parts)
    with pytest.raises(StoreError):
        store.expect(committed.digest, run=bytes(32), round=3, site=ATTACKER, epoch=1, kind=ObjectKind.UPDATE)


@pytest.mark.parametrize("other", [{"round": 4}, {"epoch": 2}, {"site": ATTACKER}])
def test_a_ciphertext_neither_moves_to_another_round_nor_to_another_site(tmp_path: Path, other: dict) -> None:
    """Copying a victim's bytes under one's own name takes another manifest, hence a digest that was not committed."""
    store = LocalStore(tmp_path)
    manifest, parts = manifest_of(SENT[0], VICTIM)
    store.put(manifest, parts)
    asked = {"run": bytes(32), "round": 3, "epoch": 1, "site": VICTIM} | other
    with pytest.raises(StoreError):
        store.expect(manifest.digest, kind=ObjectKind.UPDATE, **asked)


def key_found_in(share: np.ndarray, c1: np.ndarray, position: int) -> float:
    """The part of share / c1 that equals the member's applied secrets; the naive scheme gives all of it away."""
    applied = assign(QUORUM, PARAMS.committee, PARAMS.threshold)[position]
    secret = sum(ALL.shares[position].keys[i].secret for i in applied) % PRIMES
    inverse = np.vectorize(lambda x, q: pow(int(x), -1, int(q)) if x else 0)(c1[0], PRIMES)
    return float(np.mean(share[0] * inverse % PRIMES == secret))


def test_a_share_gives_no_key_away() -> None:
    """Divided by c1, a share without flooding is the key itself. Ours agrees with it in as many places as chance does."""
    c1 = AGGREGATE[:1, 1]
    applied = assign(QUORUM, PARAMS.committee, PARAMS.threshold)[0]
    bare = c1 * (sum(ALL.shares[0].keys[i].secret for i in applied) % PRIMES) % PRIMES
    assert key_found_in(bare, c1, 0) == 1
    assert key_found_in(partial_decrypt(c1, ALL.shares[0], QUORUM).residues, c1, 0) < 0.01


def steered(coefficient: int) -> np.ndarray:
    """A c1 that is one large constant: what a share of it shows is that constant times the key, above the flooding."""
    return np.broadcast_to((coefficient % PRIMES).astype(np.uint32), (1, 3, PARAMS.ring_degree)).copy()


def key_read_from(share: np.ndarray, known: np.ndarray, coefficient: int) -> np.ndarray:
    """Secret coefficients, if share = (coefficient + known) * s + noise and `known` is what the attacker can subtract."""
    residues = []
    for l in range(3):
        row = (share[:, l].astype(np.int64) - known[:, l]) % PARAMS.data_primes[l]
        ring(PARAMS).inverse(row, l)
        residues.append(row)
    return ring(PARAMS).crt_round(residues, int(np.log2(coefficient)))


def applied_secret(position: int) -> np.ndarray:
    """Coefficients of the sum of the subset secrets that a member applies."""
    q = PARAMS.data_primes[0]
    row = sum(ALL.shares[position].keys[i].secret[:1] for i in assign(QUORUM, 5, 3)[position]) % q
    ring(PARAMS).inverse(row, 0)
    return np.where(row > q // 2, row - q, row)


def test_a_chosen_c1_opens_the_key() -> None:
    """A limit: flooding hides the noise of honest sums, not a key that is multiplied on purpose.

    Hence no share for a c1 that the member has not added up itself from committed updates (protocol rule 5), each with its proof.
    """
    share = partial_decrypt(steered(2**50), ALL.shares[0], QUORUM).residues
    assert np.array_equal(key_read_from(share, np.zeros_like(share), 2**50), applied_secret(0))


def test_one_honest_update_in_the_sum_spoils_a_chosen_c1_for_single_shares() -> None:
    """The attacker commits before it sees the honest c1, which is as good as uniform: in a share nothing of the key is left.

    In the opened sum all of it is: `test_he_key_recovery`. So this alone would be no defence.
    """
    c1 = ((steered(2**50).astype(np.int64) + SENT[0][:1, 1]) % PRIMES).astype(np.uint32)
    share = partial_decrypt(c1, ALL.shares[0], QUORUM).residues
    found = key_read_from(share, np.zeros_like(share), 2**50)
    assert np.mean(found == applied_secret(0)) < 0.01


def shifted_residues() -> np.ndarray:
    """Residues of position 1's share, and a packed difference of 0.01 added to every parameter."""
    delta = np.full(COUNT, 0.01, dtype=np.float32)
    message = ring(PARAMS).forward_all(pack(delta, 1.0, PARAMS))  # (blocks, primes, N)
    lifted = message * ((1 << PARAMS.noise_bits) % PRIMES) % PRIMES
    return ((shares_of(AGGREGATE)[1] + lifted) % PRIMES).astype(np.uint32)


def test_one_decryptor_would_shift_the_opened_model_if_nobody_looked_at_tags() -> None:
    """Combining alone does not notice: a packed difference in a share moves the result by exactly that."""
    shares = shares_of(AGGREGATE) | {1: shifted_residues()}
    shifted = unpack(combine(AGGREGATE, shares, QUORUM, PARAMS), COUNT, 1.0, PARAMS)
    honest = unpack(ALL.open(AGGREGATE, (0, 3, 4)), COUNT, 1.0, PARAMS)
    assert np.abs(shifted - honest - 0.01).max() < 1e-4


@pytest.mark.parametrize("blamed", assign(QUORUM, 5, 3)[1])
def test_one_decryptor_that_shifts_the_opened_model_is_found_and_named(blamed: int) -> None:
    """Whichever of its tags it bends to hide the difference: every other holder of that subset key names position 1."""
    c1 = AGGREGATE[:, 1]
    lie = forged_share(ALL, c1, shifted_residues(), 1, QUORUM, blamed)
    for checker in set(holders(blamed, 5, 3)) - {1}:
        with pytest.raises(ShareError, match=rf"position 1 is wrong: its contributions of subset keys \[{blamed}\]"):
            verify_share(c1, lie, 1, QUORUM, PARAMS, ALL.shares[checker])


@pytest.mark.parametrize("position", QUORUM)
def test_a_garbage_share_opens_nothing(position: int) -> None:
    """Random residues throw the sum out of range, whoever sent them."""
    shares = shares_of(AGGREGATE)
    generator = Generator(SecretSeed(b"junk" * 8))
    size = shares[position][:, 0].size
    shares[position] = np.stack(
        [uniform(generator, q, size).reshape(-1, PARAMS.ring_degree) for q in PARAMS.data_primes], axis=1
    ).astype(np.uint32)
    with pytest.raises(ShareError, match="outside the range"):
        combine(AGGREGATE, shares, QUORUM, PARAMS)


def test_an_update_beyond_its_range_is_noticed_when_it_overflows() -> None:
    """A site that skips clipping and fills the top field spoils the sum; the opening says so instead of giving a wrong mean."""
    beyond = encrypt(pack(PLAIN[3], 0.25, PARAMS) + (1 << (3 * PARAMS.field_bits - 1)), ALL.key, PARAMS)
    with pytest.raises(ShareError, match="an included update was"):
        ALL.open(add([*SENT[:3], beyond], [1] * 4, PARAMS), QUORUM)
