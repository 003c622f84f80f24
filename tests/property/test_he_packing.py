"""Packing: fields never overflow, and what goes in comes out."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.errors import UpdateError
from bahefl_flwr.he.packing import largest_packed_sum, pack, sketch_factor, unpack
from bahefl_flwr.he.params import SecurityParams, largest_field_sum
from bahefl_flwr.he.sampling import SecretSeed
from he_committee import toy_params

sites = st.integers(1, 8)


@given(
    signs=st.lists(st.sampled_from([-1.0, 1.0, -1e30, 1e30, 0.0]), min_size=192, max_size=192),
    count=sites,
    weight_bits=st.integers(0, 3),
    shares=st.randoms(use_true_random=False),
)
def test_no_field_overflows_at_the_extremes(signs: list[float], count: int, weight_bits: int, shares: Random) -> None:
    """All sites at the ends of the range, with all the weight and the greatest integers, still open to their mean."""
    params = toy_params(weight_bits=weight_bits)
    parts = np.array([shares.random() + 1e-9 for _ in range(count)])
    parts = parts / parts.sum() * (1 - 1e-12)
    update = np.array(signs, dtype=np.float32)
    total = sum(pack(update, float(part), params, SecretSeed(bytes([k]) * 32)) << weight_bits for k, part in enumerate(parts))
    opened = unpack(total, update.size, float(parts.sum()) * 2**weight_bits, params)
    assert np.abs(total).max() <= largest_packed_sum(params)
    assert np.abs(opened - np.clip(update, -0.25, 0.25)).max() <= count * 0.25 / params.field_scale


@given(values=st.lists(st.floats(-0.25, 0.25, width=32), min_size=1, max_size=400), share=st.floats(0.01, 1))
def test_one_update_survives_to_half_a_unit(values: list[float], share: float) -> None:
    """unpack(pack(x)) is x to half a fixed-point unit, for any length."""
    params = toy_params()
    update = np.array(values, dtype=np.float32)
    opened = unpack(pack(update, share, params), update.size, share, params)
    assert np.abs(opened - update).max() <= 0.5001 * 0.25 / (params.field_scale * share) + 1e-7


def test_what_is_shorter_than_a_step_survives_on_average() -> None:
    """A hundred equal sites whose every value rounds to zero: the mean of what they send is the value all the same."""
    params = SecurityParams(update_range=0.125, weight_bits=3, threshold=3, committee=5, sites=100)
    share, value = 1 / 100, 1e-3
    update = np.full(params.parameters_per_block, value, np.float32)
    assert not pack(update, share, params).any()
    total = sum(pack(update, share, params, SecretSeed(bytes([k]) * 32)) for k in range(100))
    opened = unpack(total, update.size, 1.0, params).astype(np.float64)
    step = params.update_range / params.field_scale
    assert abs(opened.mean() - value) < 5 * step * (100 / 6 / update.size) ** 0.5
    assert opened.std() < 1.05 * step * (100 / 6) ** 0.5


def test_one_seed_rounds_alike_and_another_one_otherwise() -> None:
    """What is repeated with the seed that was kept gives the same integers."""
    params, update = toy_params(), np.linspace(-0.2, 0.2, 192, dtype=np.float32)
    first, again, other = (pack(update, 0.03, params, SecretSeed(bytes([k]) * 32)) for k in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@given(sums=st.lists(st.tuples(*[st.integers(-(2**17), 2**17)] * 3), min_size=64, max_size=64))
def test_fields_come_apart_exactly(sums: list[tuple[int, int, int]]) -> None:
    """Each field is read without a trace of its neighbours."""
    params = toy_params()
    bits = params.field_bits
    packed = np.array([[a + (b << bits) + (c << 2 * bits) for a, b, c in sums]])
    opened = unpack(packed, 192, 1.0, params)
    wanted = np.array(sums).T.reshape(-1) * (0.25 / params.field_scale)
    assert np.array_equal(opened, wanted.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    """NaN and infinities never reach encryption; the message names the parameter."""
    update = np.zeros(10, dtype=np.float32)
    update[7] = bad
    with pytest.raises(UpdateError, match="parameter 7"):
        pack(update, 0.5, toy_params())


@pytest.mark.parametrize("update", [np.zeros(0, np.float32), np.zeros(4), np.zeros((2, 2), np.float32), np.zeros(4, np.int32)])
def test_other_shapes_and_types_are_refused(update: np.ndarray) -> None:
    """Only a non-empty float32 vector is an update."""
    with pytest.raises(UpdateError, match="float32 vector"):
        pack(update, 0.5, toy_params())


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    """A share of the total weight lies in (0, 1]."""
    with pytest.raises(UpdateError, match="share_of_total"):
        pack(np.ones(4, dtype=np.float32), share, toy_params())


@pytest.mark.parametrize(("parameters", "total"), [(0, 1.0), (193, 1.0), (64, 0.0), (64, float("inf"))])
def test_unpack_refuses_what_does_not_fit(parameters: int, total: float) -> None:
    """A wrong length or an impossible total is an error, not a wrong model."""
    with pytest.raises(UpdateError):
        unpack(np.zeros((1, 64), dtype=np.int64), parameters, total, toy_params())


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.01, 1), spread=st.floats(1e-6, 1))
def test_a_scaled_update_fits_its_sketch(seed: int, share: float, spread: float) -> None:
    """Each field's norm over the root of the groups is a fifth of the largest sum at most; what fits stays as it is."""
    params = SecurityParams(update_range=0.25, weight_bits=3, threshold=3, committee=5)
    update = (np.random.default_rng(seed).standard_normal(40_000) * spread).astype(np.float32)
    clipped = np.clip(update, -0.25, 0.25).astype(np.float64)
    factor = sketch_factor(update, share, 256, params)
    thirds = np.array_split(clipped, [2 * 4096 * 2, 2 * 4096 * 4])  # 40 000 parameters are four blocks
    norm = max(np.linalg.norm(third) for third in thirds) * share * params.field_scale / 0.25
    room = largest_field_sum(params) * 16 / 5
    assert factor == 1.0 or np.isclose(factor * norm, room)
    assert factor * norm <= room * 1.0001


def test_an_update_of_zeros_needs_no_scaling() -> None:
    """Nothing is divided by its length."""
    assert sketch_factor(np.zeros(10, np.float32), 1.0, 256, toy_params()) == 1.0
