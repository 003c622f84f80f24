"""Security parameters: what they admit, what follows from them, and the noise budget."""

import dataclasses
import math

import pytest

from bahefl_flwr.errors import SettingsError
from bahefl_flwr.he import params as p
from bahefl_flwr.he.params import SecurityParams
from he_committee import real_params, toy_params

GOOD = {"update_range": 0.25, "weight_bits": 0, "threshold": 3, "committee": 5}
COMMITTEES = [(2, 2), (3, 2), (5, 3), (7, 4), (10, 6), (5, 1)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"update_range": 0.0}, {"update_range": float("nan")}, {"update_range": float("inf")}, {"update_range": 2000.0},
        {"weight_bits": -1}, {"weight_bits": 4}, {"committee": 1, "threshold": 1}, {"committee": 11, "threshold": 6},
        {"threshold": 0}, {"threshold": 2}, {"threshold": 6}, {"sites": 1}, {"sites": 256}, {"wire_version": 2},
        {"ring_degree": 64}, {"ring_degree": 8192}, {"ring_degree": 48, "toy": True}, {"ring_degree": 8192, "toy": True},
    ],
)  # fmt: skip
def test_parameters_without_a_guarantee_are_refused(wrong: dict[str, float]) -> None:
    """Every value outside its range is refused, naming the setting."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        SecurityParams(**(GOOD | wrong))


@pytest.mark.parametrize(
    "change",
    [{"update_range": 0.5}, {"weight_bits": 1}, {"threshold": 4}, {"committee": 4}, {"sites": 17}, {"toy": True}],
)
def test_every_field_changes_the_digest(change: dict[str, float]) -> None:
    """No two different sets of parameters have one digest."""
    params = SecurityParams(**GOOD)
    assert dataclasses.replace(params, **change).digest() != params.digest()


def test_the_ring_is_secure_with_room() -> None:
    """At least 128 bits, even counting the special prime that no key uses."""
    bits = sum(math.log2(q) for q in p.DATA_PRIMES)
    assert p.security_bits(p.RING_DEGREE, bits) > 150
    assert p.security_bits(p.RING_DEGREE, bits + math.log2(p.SPECIAL_PRIME)) > 128


def test_the_estimator_agrees_with_the_he_standard() -> None:
    """The standard's limits for 128 bits come out at 128."""
    estimates = [p.security_bits(degree, bits) for degree, bits in ((2048, 54), (4096, 109), (8192, 218))]
    assert estimates == pytest.approx([128, 128, 128], abs=3)


@pytest.mark.parametrize(("committee", "threshold"), COMMITTEES)
@pytest.mark.parametrize("weight_bits", range(4))
@pytest.mark.parametrize("sites", [2, 16, 255])
def test_the_noise_budget_holds_for_every_federation(committee: int, threshold: int, weight_bits: int, sites: int) -> None:
    """Noise practically never leaves the lowest field, flooding hides the ciphertexts' noise, and rounding cannot overflow."""
    params = SecurityParams(update_range=0.25, weight_bits=weight_bits, threshold=threshold, committee=committee, sites=sites)
    fullest = (params.field_scale + sites / 2) * 2**weight_bits
    assert p.decoding_failure_log2(params) < -1000
    assert p.opening_divergence(params, blocks=82) < 2**-20
    assert fullest < 2 ** (params.field_bits - 1)
    assert params.flooding_sigma_log2 <= 45  # magnitudes below 2^49, as share_proof counts on


def test_the_design_point_has_the_measured_noise() -> None:
    """Five of five sites, t = 3: the standard deviations that were measured (research/he.md, section 3)."""
    params = real_params()
    assert math.log2(p.aggregate_noise_std(params)) == pytest.approx(10.7, abs=0.1)
    assert params.flooding_sigma_log2 == 36


@pytest.mark.parametrize(("committee", "threshold"), COMMITTEES)
@pytest.mark.parametrize("weight_bits", [0, 3])
@pytest.mark.parametrize("sites", [2, 3, 10, 255])
def test_flooding_leaves_cheats_at_most_one_nat_an_epoch(committee: int, threshold: int, weight_bits: int, sites: int) -> None:
    """And is not wider than that takes: a power of two less would leave them four times as much."""
    params = SecurityParams(update_range=0.25, weight_bits=weight_bits, threshold=threshold, committee=committee, sites=sites)
    assert 0.75 / 4 < p.epoch_divergence(params) <= 0.75
    assert p.epoch_sketch_divergence(params, 82, 256) <= 0.25


def test_an_update_of_a_million_parameters_takes_82_blocks() -> None:
    """12,288 parameters a block."""
    assert (real_params().blocks(1_000_000), real_params().blocks(12_288), real_params().blocks(12_289)) == (82, 1, 2)
    assert real_params().parameters_per_block == p.PARAMETERS_PER_BLOCK


def test_a_toy_ring_says_so_in_its_digest() -> None:
    """Parameters without security cannot pass for real ones."""
    assert toy_params().toy
    assert toy_params(degree=64).digest() != toy_params(degree=128).digest()
