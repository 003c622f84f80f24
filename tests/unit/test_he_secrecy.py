"""What t-1 members see: everything they hold together with all traffic is noise to them, tested at real parameters.

Statistics cannot prove secrecy; they would show a key that is not needed, a biased sampler, or randomness used twice.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from bahefl_flwr.he.ckks import encrypt
from bahefl_flwr.he.keys import assign
from bahefl_flwr.he.packing import largest_packed_sum
from bahefl_flwr.he.ring import reduce, ring
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.share_proof import block_names, flooding_noise
from bahefl_flwr.he.threshold import partial_decrypt
from he_committee import Committee, centred, committee, real_params, toy_params

COMMITTEES = [(3, 2), (5, 3), (7, 4), pytest.param(10, 6, marks=pytest.mark.slow)]
# Seeds are fixed, so these tests cannot fail by chance; the bound leaves room for the least of 252 coalitions' p-values.
LEAST_P = 1e-5


def encryption_of(members: Committee, value: int, blocks: int = 2) -> np.ndarray:
    """An encryption of one and the same coefficient everywhere."""
    packed = np.full((blocks, members.params.ring_degree), value)
    return encrypt(packed, members.key, members.params, SecretSeed(b"x" * 32))


def seen_by(members: Committee, coalition: tuple[int, ...], ciphertext: np.ndarray) -> np.ndarray:
    """c0 + c1 times every subset secret that a member of the coalition holds; residues (blocks, primes, N), NTT domain."""
    keys = {i: key for p in coalition for i, key in members.shares[p].keys.items()}
    out = ciphertext[:, 0].astype(np.int64)
    for l, q in enumerate(members.params.data_primes):
        secret = reduce(np.sum([key.secret[l] for key in keys.values()], axis=0), q)
        out[:, l] = reduce(out[:, l] + ciphertext[:, 1, l] * secret, q)
    return out


def p_values(members: Committee, residues: np.ndarray) -> list[float]:
    """Of uniformity: chi-square of each prime's coefficients in 64 bins, and Kolmogorov-Smirnov of the joint integer."""
    found = []
    for l, q in enumerate(members.params.data_primes):
        row = np.ascontiguousarray(residues[:, l])
        ring(members.params).inverse(row, l)
        found.append(stats.chisquare(np.bincount(row.ravel() * 64 // q, minlength=64)).pvalue)
    modulus = float(np.prod([float(q) for q in members.params.data_primes]))
    joint = centred(members.params, residues.astype(object)).ravel() / modulus
    return [*found, stats.kstest(joint, "uniform", args=(-0.5, 1)).pvalue]


@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_one_member_too_few_sees_uniform_noise(n: int, t: int) -> None:
    """For every coalition of t-1 members the best combination of its keys with a ciphertext is uniform, whatever the message."""
    members = committee(real_params(n, t))
    for value in (0, largest_packed_sum(members.params)):
        ciphertext = encryption_of(members, value)
        for coalition in itertools.combinations(range(n), t - 1):
            assert min(p_values(members, seen_by(members, coalition, ciphertext))) > LEAST_P


@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_the_same_statistics_notice_one_member_more(n: int, t: int) -> None:
    """With t members' keys they reject uniformity at once: they have the power that the test above relies on."""
    members = committee(real_params(n, t))
    assert max(p_values(members, seen_by(members, tuple(range(t)), encryption_of(members, 0)))) < 1e-100


@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_a_released_share_is_uniform_to_those_without_its_key(n: int, t: int) -> None:
    """A share that travels is as good as random before it is combined."""
    members = committee(real_params(n, t))
    share = partial_decrypt(encryption_of(members, 0)[:, 1], members.shares[t - 1], range(t)).residues
    assert min(p_values(members, share.astype(np.int64))) > LEAST_P


def subset_values(members: Committee, block: np.ndarray) -> dict[int, np.ndarray]:
    """c1 * s_A + noise of every subset for one block of c1, (primes, N)."""
    keys = {i: key for share in members.shares for i, key in share.keys.items()}
    primes = np.array(members.params.data_primes)[:, None]
    noise = {i: flooding_noise(block_names(block[None]), [key])[0] for i, key in keys.items()}
    return {i: (block * key.secret + ring(members.params).forward_all(noise[i])[0]) % primes for i, key in keys.items()}


@pytest.mark.parametrize(("n", "t"), [(3, 2), (5, 3), (7, 4)])
def test_retries_with_other_quorums_show_nothing_new(n: int, t: int) -> None:
    """Every share of every quorum is a sum of one fixed value per subset: all retries together are a function of those.

    Shamir shares fail here: two quorums give a member's key away (research/he.md, section 2).
    """
    members = committee(toy_params(n, t))
    c1 = encryption_of(members, 5, blocks=1)[:, 1]
    fixed = subset_values(members, c1[0])
    for quorum in itertools.combinations(range(n), t):
        for position, assigned in assign(quorum, n, t).items():
            share = partial_decrypt(c1, members.shares[position], quorum).residues[0]
            assert np.array_equal(share, sum(fixed[i] for i in assigned) % np.array(members.params.data_primes)[:, None])
