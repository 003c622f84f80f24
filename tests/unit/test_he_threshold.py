"""Decryption by quorums: all quorums agree to the bit, parts equal the whole, wrong shares are noticed."""

import itertools

import numpy as np
import pytest

from bahefl_flwr.errors import ShareError
from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.keys import assign, subsets
from bahefl_flwr.he.packing import pack, unpack
from bahefl_flwr.he.threshold import combine, partial_decrypt
from he_committee import Committee, committee, real_params, toy_params, updates

COMMITTEES = [(2, 2), (3, 2), (4, 3), (5, 3), (7, 4), (5, 1)]
TOY = committee(toy_params(degree=512))


def toy_aggregate(blocks: int = 11) -> np.ndarray:
    """Some ciphertext of the toy committee."""
    packed = np.random.default_rng(5).integers(-(2**50), 2**50, (blocks, TOY.params.ring_degree))
    return encrypt(packed, TOY.key, TOY.params)


def weighted_mean_error(members: Committee) -> float:
    """Largest error of an opened weighted mean of as many sites as members, 60,000 parameters."""
    weights = np.random.default_rng(2).dirichlet(np.ones(members.params.committee))
    plain = [np.clip(u, -0.25, 0.25) for u in updates(len(weights), 60_000)]
    ciphertexts = [
        encrypt(pack(u, float(w), members.params), members.key, members.params) for u, w in zip(plain, weights, strict=True)
    ]
    aggregate = add(ciphertexts, [1] * len(weights), members.params)
    opened = unpack(members.open(aggregate, range(members.params.threshold)), 60_000, float(weights.sum()), members.params)
    return float(np.abs(opened - sum(w * u.astype(np.float64) for u, w in zip(plain, weights, strict=True))).max())


@pytest.mark.parametrize(("n", "t"), [(3, 2), (5, 3), (7, 4), (5, 1)])
def test_two_quorums_open_to_identical_integers(n: int, t: int) -> None:
    """At real parameters, the first and the last t members decrypt to the same bits."""
    members = committee(real_params(n, t))
    aggregate = encrypt(pack(updates(1, 30_000)[0], 1.0, members.params), members.key, members.params)
    assert np.array_equal(members.open(aggregate, range(t)), members.open(aggregate, range(n - t, n)))


def test_every_quorum_opens_to_identical_integers() -> None:
    """All ten quorums of 3 of 5 agree."""
    aggregate = toy_aggregate()
    opened = {TOY.open(aggregate, quorum).tobytes() for quorum in itertools.combinations(range(5), 3)}
    assert len(opened) == 1


@pytest.mark.parametrize(("n", "t", "bound"), [(3, 2, 2e-5), (5, 3, 3e-5), (7, 4, 5e-5), (5, 1, 3e-5)])
def test_the_opened_aggregate_is_the_weighted_mean(n: int, t: int, bound: float) -> None:
    """At update_range 0.25 and weight_bits 0; half as much again as the largest error of 60,000 has ever been, or more."""
    assert weighted_mean_error(committee(real_params(n, t))) < bound


def test_parts_decrypt_to_the_whole() -> None:
    """Shares and combination may be computed part by part, with the same bytes."""
    aggregate, quorum = toy_aggregate(), (1, 2, 4)
    cuts = [slice(0, 3), slice(3, 10), slice(10, 11)]
    whole = partial_decrypt(aggregate[:, 1], TOY.shares[2], quorum).residues
    in_parts = np.concatenate([partial_decrypt(aggregate[cut, 1], TOY.shares[2], quorum).residues for cut in cuts])
    assert np.array_equal(whole, in_parts)
    assert np.array_equal(TOY.open(aggregate, quorum), np.concatenate([TOY.open(aggregate[cut], quorum) for cut in cuts]))


def test_asking_again_gives_the_same_share() -> None:
    """A retry shows nothing new."""
    aggregate = toy_aggregate()
    first, second = (partial_decrypt(aggregate[:, 1], TOY.shares[0], (0, 1, 2)) for _ in range(2))
    assert np.array_equal(first.residues, second.residues)
    assert np.array_equal(first.tags, second.tags)


def test_blocks_that_differ_get_unrelated_noise() -> None:
    """c1 and c1 + 1 in one residue: the shares differ everywhere, not by the secret times the difference."""
    c1 = toy_aggregate(1)[:, 1]
    near = c1.copy()
    near[0, 0, 0] ^= 1
    share, other = (partial_decrypt(x, TOY.shares[0], (0, 1, 2)).residues for x in (c1, near))
    assert np.mean(share == other) < 0.01


@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_every_quorum_covers_every_subset_once(n: int, t: int) -> None:
    """No key is applied twice or not at all, nobody applies a key it lacks, and the work is spread."""
    for quorum in itertools.combinations(range(n), t):
        assigned = assign(quorum, n, t)
        assert sorted(i for indices in assigned.values() for i in indices) == list(range(len(subsets(n, t))))
        assert all(p not in subsets(n, t)[i] for p, indices in assigned.items() for i in indices)
        assert all(assigned.values())


@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_fewer_than_t_members_lack_a_key(n: int, t: int) -> None:
    """For every t-1 members there is a subset none of them holds."""
    for coalition in itertools.combinations(range(n), t - 1):
        assert coalition in subsets(n, t)


@pytest.mark.parametrize("quorum", [(0, 1), (0, 1, 2, 3), (0, 1, 5), (0, 0, 1)])
def test_anything_but_a_quorum_is_refused(quorum: tuple[int, ...]) -> None:
    """A quorum is exactly t different members."""
    with pytest.raises(ShareError, match="no quorum"):
        assign(quorum, 5, 3)


def test_a_member_outside_the_quorum_gives_no_share() -> None:
    """The message says who was asked for what."""
    with pytest.raises(ShareError, match="position 4 is not in the quorum"):
        partial_decrypt(toy_aggregate()[:, 1], TOY.shares[4], (0, 1, 2))


def test_a_share_without_the_secret_looks_random() -> None:
    """Combining with a share for another quorum, hence other subsets, fails instead of opening to something."""
    aggregate = toy_aggregate()
    shares = TOY.shares_of(aggregate, (0, 1, 2))
    shares[2] = partial_decrypt(aggregate[:, 1], TOY.shares[2], (2, 3, 4)).residues
    with pytest.raises(ShareError, match="outside the range"):
        combine(aggregate, shares, (0, 1, 2), TOY.params)


def test_one_damaged_block_is_named() -> None:
    """A share that is wrong in one block opens nothing, and the block is named."""
    aggregate = toy_aggregate()
    shares = TOY.shares_of(aggregate, (0, 1, 2))
    shares[1][7, 1] = shares[1][7, 1, ::-1]
    with pytest.raises(ShareError, match="block 7 "):
        combine(aggregate, shares, (0, 1, 2), TOY.params)


@pytest.mark.parametrize("given_by", [(0, 1), (0, 1, 3), (0, 1, 2, 3)])
def test_shares_of_exactly_the_quorum_are_needed(given_by: tuple[int, ...]) -> None:
    """Too few, too many or others are refused before anything is computed."""
    aggregate = toy_aggregate()
    with pytest.raises(ShareError, match="were given for the quorum"):
        combine(aggregate, dict.fromkeys(given_by, aggregate[:, 1]), (0, 1, 2), TOY.params)


@pytest.mark.parametrize("residue", [TOY.params.data_primes[0], 2**32 - 1])
def test_a_residue_beyond_its_prime_is_refused(residue: int) -> None:
    """A malformed share names its sender."""
    aggregate = toy_aggregate()
    shares = TOY.shares_of(aggregate, (0, 1, 2))
    shares[1][3, 0, 5] = residue
    with pytest.raises(ShareError, match="position 1"):
        combine(aggregate, shares, (0, 1, 2), TOY.params)


def test_a_share_of_another_length_is_refused() -> None:
    """A malformed share names its sender."""
    aggregate = toy_aggregate()
    shares = TOY.shares_of(aggregate, (0, 1, 2))
    shares[2] = shares[2][:-1]
    with pytest.raises(ShareError, match="position 2"):
        combine(aggregate, shares, (0, 1, 2), TOY.params)
