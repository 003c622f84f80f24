"""Noise is measured, and is what `params` predicts: of sums, of openings, and of opened parameters."""

import numpy as np
import pytest

from bahefl_flwr.he import params as p
from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.packing import pack, unpack
from bahefl_flwr.he.sampling import SecretSeed
from he_committee import Committee, committee, decrypted, real_params, updates

COMMITTEES = [(3, 2), (5, 3), (7, 4), pytest.param(10, 6, marks=pytest.mark.slow), (5, 1)]


def aggregate(members: Committee, packed: np.ndarray, weight: int) -> np.ndarray:
    """As many encryptions of `packed` as there may be sites, each with this weight."""
    sites = range(members.params.sites)
    fresh = (encrypt(packed, members.key, members.params, SecretSeed(bytes([k]) * 32), block_offset=k) for k in sites)
    return add(fresh, [weight] * len(sites), members.params)


@pytest.mark.parametrize("weight_bits", [0, 3])
@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_the_noise_of_a_sum_is_the_predicted(n: int, t: int, weight_bits: int) -> None:
    """Decrypted with the whole key, which only a test can: standard deviation within 5 %, mean about 0."""
    members = committee(real_params(n, t, weight_bits=weight_bits))
    noise = decrypted(members, aggregate(members, np.zeros((2, 4096), np.int64), 1 << weight_bits))
    predicted = p.aggregate_noise_std(members.params)
    assert noise.std() == pytest.approx(predicted, rel=0.05)
    assert abs(noise.mean()) < 5 * predicted / noise.size**0.5


@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_the_noise_of_an_opening_is_the_predicted(n: int, t: int) -> None:
    """What a quorum's shares add up to is the message plus the flooding noise of every subset once."""
    members = committee(real_params(n, t))
    total = aggregate(members, np.zeros((1, 4096), np.int64), 1)
    noise = decrypted(members, total, quorum=range(t))
    predicted = 1.005 * 2.0**members.params.flooding_sigma_log2 * p.subset_count(members.params) ** 0.5
    assert noise.std() == pytest.approx(predicted, rel=0.05)


@pytest.mark.parametrize("weight_bits", [0, 3])
@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_the_error_of_opened_parameters_is_the_predicted(n: int, t: int, weight_bits: int) -> None:
    """In the lowest field, which takes the noise, its standard deviation is at most the predicted and not far below."""
    members = committee(real_params(n, t, weight_bits=weight_bits))
    params, count = members.params, 4096
    plain = np.clip(updates(params.sites, count), -0.25, 0.25)
    seeds = [SecretSeed(bytes([k]) * 32) for k in range(params.sites)]
    sent = [
        encrypt(pack(u, 1 / params.sites, params, seed), members.key, params, seed) for u, seed in zip(plain, seeds, strict=True)
    ]
    opened = unpack(members.open(add(sent, [1] * len(sent), params), range(t)), count, 1.0, params)
    error = opened - plain.astype(np.float64).mean(axis=0)
    assert error.std() == pytest.approx(p.decoding_error_std(params), rel=0.1)
