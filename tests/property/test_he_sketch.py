"""Sketches against their definition in Python integers, and the algebra that screening relies on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.keys import assign
from bahefl_flwr.he.packing import largest_packed_sum, pack
from bahefl_flwr.he.params import SecurityParams, sketch_error_std, sketch_noise_std
from bahefl_flwr.he.ring import ring
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.share_format import REPEATS
from bahefl_flwr.he.sketch import SketchPlan, open_sketches, plain_sketch, position_plan, sketch, sketch_of_vector, sketch_plan
from bahefl_flwr.he.sketch_proof import SketchChallenge, site_names, sketch_challenge, sketch_noise
from bahefl_flwr.he.spoiled_sum import _noise_allowance, outside_range
from he_committee import committee, real_params, slow_crt, slow_inverse, slow_product, slow_transform, toy_params

PARAMS = toy_params(degree=16)
ALL = committee(PARAMS)
PRIMES = PARAMS.data_primes
QUORUM = (0, 2, 3)
seeds = st.integers(0, 2**32)
group_counts = st.sampled_from([1, 2, 4, 8, 16])


def plan_of(seed: int, blocks: int, groups: int, params: SecurityParams = PARAMS) -> SketchPlan:
    """A plan from a small seed."""
    return sketch_plan(seed.to_bytes(32, "little"), blocks, groups, params)


def packed_blocks(seed: int, blocks: int, params: SecurityParams = PARAMS) -> np.ndarray:
    """A packed update whose group sums fit their fields."""
    values = np.random.default_rng(seed).normal(0, 0.02, blocks * params.parameters_per_block)
    return pack(values.astype(np.float32), 0.5, params)


def sent(packed: np.ndarray, seed: int = 1) -> np.ndarray:
    """Its encryption in the toy ring."""
    return encrypt(packed, ALL.key, PARAMS, SecretSeed(seed.to_bytes(32, "little")))


def in_parts(ciphertext: np.ndarray, size: int) -> list[np.ndarray]:
    """As parts of the store."""
    return [ciphertext[at : at + size] for at in range(0, len(ciphertext), size)]


def slow_fold(polynomials: list[list[int]], plan: SketchPlan) -> list[int]:
    """Sum of sign * X^k * block, as at school."""
    degree = plan.params.ring_degree
    total = [0] * degree
    for sign, bucket, polynomial in zip(plan.fold.signs.tolist(), plan.fold.buckets.tolist(), polynomials, strict=True):
        k = int(plan.fold.exponents[bucket])
        monomial = [(-1 if k >= degree else 1) * (i == k % degree) for i in range(degree)]
        total = [t + sign * x for t, x in zip(total, slow_product(monomial, polynomial), strict=True)]
    return total


def slow_groups(coefficients: list[int], plan: SketchPlan) -> list[int]:
    """Signed sums by group."""
    rows = zip(plan.order.tolist(), plan.order_signs.tolist(), strict=True)
    return [sum(sign * coefficients[k] for k, sign in zip(order, signs, strict=True)) for order, signs in rows]


@settings(max_examples=20)
@given(exponent=st.integers(0, 31), seed=seeds)
def test_a_monomial_in_seals_order_is_the_one_of_school(exponent: int, seed: int) -> None:
    """The pointwise product with it is the schoolbook product with X^k modulo X^N + 1, modulo every prime."""
    polynomial = np.random.default_rng(seed).integers(0, PRIMES[0], 16).tolist()
    monomial = ring(PARAMS).monomials(np.array([exponent]))[0]
    power = [(-1 if exponent >= 16 else 1) * (i == exponent % 16) for i in range(16)]
    for l, q in enumerate(PRIMES):
        slots = [a * int(b) % q for a, b in zip(slow_transform(polynomial, q), monomial[l], strict=True)]
        assert slow_inverse(slots, q) == [x % q for x in slow_product(polynomial, power)]


@settings(max_examples=15)
@given(seed=seeds, blocks=st.integers(1, 6), size=st.integers(1, 4))
def test_an_encrypted_sketch_is_its_definition(seed: int, blocks: int, size: int) -> None:
    """Both polynomials, modulo every prime, in whatever parts the blocks come."""
    plan = plan_of(seed, blocks, 4)
    rng = np.random.default_rng(seed)
    ciphertext = np.stack([rng.integers(0, q, (blocks, 2, 16)) for q in PRIMES], axis=2).astype(np.uint32)
    found = sketch(in_parts(ciphertext, size), plan)
    for half in range(2):
        for l, q in enumerate(PRIMES):
            folded = slow_fold([slow_inverse(block[half, l].tolist(), q) for block in ciphertext], plan)
            assert found[half, l].tolist() == slow_transform([x % q for x in folded], q)


def test_an_encrypted_sketch_is_exact_for_the_largest_residues() -> None:
    """Many blocks of residues q-1, degree 4096: no sum leaves 63 bits. Compared with the sum block by block."""
    params = real_params()
    plan = plan_of(5, 40, 256, params)
    block = np.broadcast_to(np.array(params.data_primes, dtype=np.uint32)[:, None] - 1, (2, 3, 4096))
    found = sketch([np.broadcast_to(block, (10, 2, 3, 4096))] * 4, plan)
    monomials = ring(params).monomials(plan.fold.exponents)
    for l, q in enumerate(params.data_primes):
        total = sum(-int(s) * monomials[b, l] for s, b in zip(plan.fold.signs, plan.fold.buckets, strict=True))
        assert np.array_equal(found[0, l], total % q)


@given(seed=seeds, blocks=st.integers(1, 6), groups=group_counts)
def test_a_plain_sketch_is_its_definition(seed: int, blocks: int, groups: int) -> None:
    """Field by field."""
    plan, packed = plan_of(seed, blocks, groups), packed_blocks(seed, blocks)
    sums = slow_groups(slow_fold(packed.tolist(), plan), plan)
    scale = [1, 1 << PARAMS.field_bits, 1 << 2 * PARAMS.field_bits]
    assert (plain_sketch(packed, plan) @ np.array(scale)).tolist() == sums


@given(seed=seeds, blocks=st.integers(1, 6), groups=group_counts)
def test_the_sketch_of_a_vector_is_that_of_its_packing(seed: int, blocks: int, groups: int) -> None:
    """For values that packing takes: the same numbers in the same fields, also where the last block is not full."""
    plan, count = plan_of(seed, blocks, groups), blocks * PARAMS.parameters_per_block - 5
    values = np.random.default_rng(seed).integers(-200, 201, count)
    update = (values * (PARAMS.update_range / PARAMS.field_scale)).astype(np.float32)
    assert np.array_equal(sketch_of_vector(values, plan), plain_sketch(pack(update, 1.0, PARAMS), plan))


@given(seed=seeds, factor=st.integers(-1000, 1000))
def test_the_sketch_of_a_vector_is_linear(seed: int, factor: int) -> None:
    """Over the integers, with values far beyond what a field holds."""
    plan, rng = plan_of(seed, 3, 4), np.random.default_rng(seed)
    x, y = rng.integers(-(2**40), 2**40, (2, 3 * 48))
    assert np.array_equal(sketch_of_vector(x + factor * y, plan), sketch_of_vector(x, plan) + factor * sketch_of_vector(y, plan))


@settings(max_examples=20)
@given(seed=seeds, weights=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_the_sketch_of_a_sum_is_the_sum_of_sketches(seed: int, weights: list[int]) -> None:
    """Modulo every prime, bit for bit."""
    params = toy_params(degree=16, weight_bits=2)
    members, plan = committee(params), plan_of(seed, 3, 4, params)
    each = [encrypt(packed_blocks(seed + k, 3, params), members.key, params) for k in range(len(weights))]
    whole = sketch([add(each, weights, params)], plan)
    summed = sum(w * sketch([c], plan).astype(np.int64) for w, c in zip(weights, each, strict=True))
    assert np.array_equal(whole, summed % np.array(PRIMES)[:, None])


@settings(max_examples=20)
@given(seed=seeds, blocks=st.integers(1, 5), groups=group_counts)
def test_opened_sketches_are_the_plain_ones(seed: int, blocks: int, groups: int) -> None:
    """The two upper fields exactly; the lowest within eight standard deviations of what is documented."""
    plan = plan_of(seed, blocks, groups)
    packed = [packed_blocks(seed + k, blocks) for k in range(3)]
    opened = ALL.open_sketches(np.stack([sketch([sent(p)], plan) for p in packed]), plan, QUORUM)
    difference = opened.values - np.stack([plain_sketch(p, plan) for p in packed])
    assert opened.in_range.all()
    assert not difference[..., 1:].any()
    assert np.abs(difference[..., 0]).max() <= 8 * sketch_error_std(PARAMS, blocks, groups)


@settings(max_examples=10)
@given(seed=seeds)
def test_the_opened_sketch_of_a_sum_is_the_sum_of_opened_sketches(seed: int) -> None:
    """The upper fields exactly, the lowest up to the noise of three openings."""
    plan = plan_of(seed, 3, 4)
    each = [sent(packed_blocks(seed + k, 3)) for k in range(2)]
    sketches = np.stack([sketch([c], plan) for c in (*each, add(each, [1, 1], PARAMS))])
    first, second, whole = ALL.open_sketches(sketches, plan, QUORUM).values
    assert np.array_equal(whole[..., 1:], (first + second)[..., 1:])
    assert np.abs(whole - first - second).max() <= 24 * sketch_error_std(PARAMS, 3, 4)


def exact_opening(sketch_: np.ndarray, plan: SketchPlan) -> list[int]:
    """Centred integers that a quorum opens, before they are rounded; by Python integers."""
    keys = {i: key for share in ALL.shares for i, key in share.keys.items()}
    noise = sketch_noise(site_names(sketch_[None, 1], plan), list(keys.values()), plan)[:, 0].sum(axis=0)
    residues = []
    for l, q in enumerate(PRIMES):
        whole = sum(key.secret[l].astype(object) for key in keys.values())
        phase = slow_inverse(((sketch_[0, l] + sketch_[1, l] * whole) % q).tolist(), q)
        residues.append([(x + int(e)) % q for x, e in zip(slow_groups(phase, plan), noise, strict=True)])
    return slow_crt(residues, PRIMES)


@settings(max_examples=10)
@given(seed=seeds)
def test_an_opened_value_is_the_group_sum_and_noise_and_nothing_else(seed: int) -> None:
    """Less the keys' named noise it is the group sum of the packed update, up to the small noise of the ciphertext."""
    plan, packed = plan_of(seed, 3, 4), packed_blocks(seed, 3)
    made = sketch([sent(packed)], plan)
    opened = ALL.open_sketches(made[None], plan, QUORUM).packed[0]
    exact = exact_opening(made, plan)
    keys = {i: key for share in ALL.shares for i, key in share.keys.items()}
    noise = sketch_noise(site_names(made[None, 1], plan), list(keys.values()), plan)[:, 0].sum(axis=0).tolist()
    sums = slow_groups(slow_fold(packed.tolist(), plan), plan)
    half = 1 << (PARAMS.noise_bits - 1)
    assert opened.tolist() == [(x + half) >> PARAMS.noise_bits for x in exact]
    rest = [x - e - (s << PARAMS.noise_bits) for x, e, s in zip(exact, noise, sums, strict=True)]
    assert max(map(abs, rest)) < 8 * sketch_noise_std(PARAMS, 3, 4)


@settings(max_examples=10)
@given(seed=seeds)
def test_updates_with_equal_group_sums_cannot_be_told_apart(seed: int) -> None:
    """A change that no group sum shows changes no upper field, and the lowest within its noise, whatever it is."""
    plan, packed = plan_of(seed, 3, 4), packed_blocks(seed, 3)
    # Two coefficients of one group of one block, moved against each other; its block alone has that bucket's monomial undone.
    first, second = plan.order[1, :2]
    signs, k = plan.order_signs[1, :2], int(plan.fold.exponents[plan.fold.buckets[0]])
    folded = np.zeros(16, dtype=np.int64)
    folded[[first, second]] = 12345 * signs[0], -12345 * signs[1]
    unfolded = np.array(slow_product(folded.tolist(), [(-1 if 32 - k >= 16 else 1) * (i == (32 - k) % 16) for i in range(16)]))
    other = packed.copy()
    other[0] += plan.fold.signs[0] * unfolded * (1 if k else -1)
    assert not np.array_equal(packed, other)
    made = np.stack([sketch([sent(p)], plan) for p in (packed, other)])
    one, two = ALL.open_sketches(made, plan, QUORUM).values
    assert np.array_equal(one[:, 1:], two[:, 1:])
    assert np.abs(one - two).max() <= 16 * sketch_error_std(PARAMS, 3, 4)


@settings(max_examples=10)
@given(seed=seeds, groups=group_counts, position=st.sampled_from(QUORUM))
def test_every_tag_is_its_definition(seed: int, groups: int, position: int) -> None:
    """v * u * (group sum of c1 * s_A + noise_A), for every subset, repetition and prime; and their sum is that of the share."""
    plan = plan_of(seed, 2, groups)
    assert_tags_are_their_definition(plan, position, seed)


@settings(max_examples=5)
@given(seed=seeds)
def test_every_tag_of_opened_positions_is_its_definition(seed: int) -> None:
    """The same for plans that open single coefficients of several blocks."""
    assert_tags_are_their_definition(position_plan([(0, 0), (0, 5), (2, 15), (3, 0)], PARAMS), 2, seed)


def assert_tags_are_their_definition(plan: SketchPlan, position: int, seed: int) -> None:
    """By Python integers."""
    rng = np.random.default_rng(seed)
    c1 = np.stack([rng.integers(0, q, (2, plan.width)) for q in PRIMES], axis=1).astype(np.uint32)
    share = open_sketches(c1, plan, ALL.shares[position], QUORUM)
    names = site_names(c1, plan)
    asked = sketch_challenge(names, share.values, position, QUORUM, plan)
    for l, q in enumerate(PRIMES):
        parts = []
        for key in (ALL.shares[position].keys[i] for i in assign(QUORUM, 5, 3)[position]):
            noise = sketch_noise(names, [key], plan)[0].tolist()
            parts.append([slow_contribution(site[l], key.secret[l], n, plan, q) for site, n in zip(c1, noise, strict=True)])
        whole = [[sum(column) % q for column in zip(*sites, strict=True)] for sites in zip(*parts, strict=True)]
        assert share.values[:, l].tolist() == whole
        for r in range(REPEATS):
            assert share.tags[:, r, l].tolist() == [slow_functional(asked, part, r, q) for part in parts]


def slow_contribution(c1: np.ndarray, secret: np.ndarray, noise: list[int], plan: SketchPlan, q: int) -> list[int]:
    """Group sums of c1 * s_A, plus noise, of one site and prime."""
    rows = c1.reshape(plan.rows, -1).tolist()
    products = [[a * b % q for a, b in zip(row, secret.tolist(), strict=True)] for row in rows]
    coefficients = [x for row in products for x in slow_inverse(row, q)]
    return [(x + e) % q for x, e in zip(slow_groups(coefficients, plan), noise, strict=True)]


def slow_functional(asked: SketchChallenge, values: list[list[int]], repeat: int, q: int) -> int:
    """Sum over sites of v times the sum over groups of u * x."""
    u, v = asked.groups[repeat].tolist(), asked.sites[repeat].tolist()
    return sum(b * sum(a * x for a, x in zip(u, site, strict=True)) for b, site in zip(v, values, strict=True)) % q


@settings(max_examples=8)
@given(seed=seeds)
def test_norms_and_cosines_are_preserved(seed: int) -> None:
    """Of vectors without structure, by a sketch of 768 numbers: within five standard deviations of 768 free numbers."""
    params = real_params()
    plan, rng = plan_of(seed, 20, 256, params), np.random.default_rng(seed)
    x, noise = rng.normal(0, 1000, (2, 20 * params.parameters_per_block))
    for cosine in (0.0, 0.5, 0.95):
        y = cosine * x + (1 - cosine**2) ** 0.5 * noise
        vectors = [np.rint(v).astype(np.int64) for v in (x, y)]
        short = [sketch_of_vector(v, plan).ravel().astype(np.float64) for v in vectors]
        ratios = [np.linalg.norm(s) / np.linalg.norm(v.astype(np.float64)) for s, v in zip(short, vectors, strict=True)]
        assert ratios == pytest.approx([1, 1], abs=5 / (2 * 768) ** 0.5)
        found = short[0] @ short[1] / np.linalg.norm(short[0]) / np.linalg.norm(short[1])
        assert found == pytest.approx(cosine, abs=5 * (1 - cosine**2) / 768**0.5 + 1e-3)


COMMITTEES = [(2, 2), (3, 2), (5, 3), (7, 4), (10, 6), (5, 1)]


@given(
    n_t=st.sampled_from(COMMITTEES),
    bits=st.integers(0, 3),
    sites=st.integers(2, 255),
    seed=seeds,
)
def test_a_sum_of_updates_in_range_is_in_range(n_t: tuple[int, int], bits: int, sites: int, seed: int) -> None:
    """Each at the very limit of `outside_range`, with noise, any shares and the largest weights: the argument of the audit."""
    params = SecurityParams(update_range=1.0, weight_bits=bits, threshold=n_t[1], committee=n_t[0], sites=sites)
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(sites, rng.choice([0.1, 10])))
    most = np.floor(shares * params.field_scale + 0.5).astype(np.int64)
    noise = _noise_allowance(params)
    packed = most * (1 + (1 << params.field_bits) + (1 << 2 * params.field_bits)) + noise
    assert not any(outside_range(np.array([p, -p]), share, params) for p, share in zip(packed, shares, strict=True))
    assert (int(packed.sum()) << bits) + noise <= largest_packed_sum(params)


@given(n_t=st.sampled_from(COMMITTEES), bits=st.integers(0, 3), share=st.floats(2**-20, 1), seed=seeds, at_random=st.booleans())
def test_what_pack_writes_is_never_out_of_range(
    n_t: tuple[int, int], bits: int, share: float, seed: int, at_random: bool
) -> None:
    """Whatever the update, clipped or not, and however it is rounded: no honest site can be found guilty."""
    rounding = SecretSeed(seed.to_bytes(32, "big")) if at_random else None
    params = SecurityParams(update_range=0.3, weight_bits=bits, threshold=n_t[1], committee=n_t[0])
    update = np.random.default_rng(seed).choice(np.array([-9, -0.3, 0.3, 9, 0.1], dtype=np.float32), 12)
    noise = _noise_allowance(params)
    packed = pack(update, share, params, rounding)[0, :4]
    assert not outside_range(packed + noise, share, params)
    assert not outside_range(packed - noise, share, params)


@given(field=st.integers(0, 2), sign=st.sampled_from([-1, 1]), share=st.floats(0.01, 0.9))
def test_a_field_beyond_the_limit_is_found(field: int, sign: int, share: float) -> None:
    """In each field, both ways, one unit (in the lowest: above the noise) too much."""
    params = real_params(5, 3, weight_bits=3)
    most = int(share * params.field_scale + 0.5) + 1 + (2 * _noise_allowance(params) if field == 0 else 0)
    packed = np.array([0, sign * most << field * params.field_bits, 1])
    assert outside_range(packed, share, params)
