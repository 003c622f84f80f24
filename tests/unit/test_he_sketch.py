"""Sketches as a round uses them: every quorum opens to the same, honest shares pass, sizes and noise are as promised."""

import itertools

import numpy as np
import pytest

from bahefl_flwr.errors import CiphertextError, MalformedCiphertext, SettingsError, ShareError, SpoiledSum, WrongEpoch
from bahefl_flwr.he import params as p
from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.keys import KeyShare, assign
from bahefl_flwr.he.packing import largest_packed_sum, pack
from bahefl_flwr.he.params import SecurityParams
from bahefl_flwr.he.ring import reduce, ring
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.sketch import (
    SketchPlan,
    SketchShare,
    combine_sketches,
    decode_sketch_share,
    encode_sketch_share,
    open_sketches,
    plain_sketch,
    position_plan,
    sketch,
    sketch_of_vector,
    sketch_plan,
    verify_sketch_share,
)
from bahefl_flwr.he.sketch_plan import group_sums
from bahefl_flwr.he.sketch_proof import site_names, sketch_noise
from bahefl_flwr.he.spoiled_sum import encode_positions, out_of_range_positions, positions_digest
from he_committee import Committee, committee, real_params, toy_params, updates

SEED = bytes(range(32))
TOY = committee(toy_params(degree=16))
QUORUM = (0, 2, 4)
MEMBERS = (1, 4, 6)


def sketches_of(members: Committee, plan: SketchPlan, sites: int = 3) -> np.ndarray:
    """Sketches of small updates, (sites, 2, primes, width)."""
    packed = [pack(u * 0.2, 1 / 8, members.params) for u in updates(sites, 3 * members.params.parameters_per_block)]
    seeds = [SecretSeed(bytes([k]) * 32) for k in range(sites)]
    return np.stack([sketch([encrypt(m, members.key, members.params, s)], plan) for m, s in zip(packed, seeds, strict=True)])


def plan_for(members: Committee, groups: int = 4) -> SketchPlan:
    """The plan of three blocks."""
    return sketch_plan(SEED, 3, groups, members.params)


@pytest.mark.parametrize(("n", "t"), [(2, 2), (3, 2), (4, 3), (5, 3), (7, 4), (5, 1)])
def test_all_quorums_open_to_identical_bytes(n: int, t: int) -> None:
    """And each honest share passes before a site without keys and before every member, over the wire."""
    members = committee(toy_params(n, t, degree=16))
    plan = plan_for(members)
    sketches = sketches_of(members, plan)
    found = set()
    for quorum in itertools.combinations(range(n), t):
        values = {}
        for position in quorum:
            answer = open_sketches(sketches[:, 1], plan, members.shares[position], quorum)
            data = encode_sketch_share(answer, MEMBERS, members.params)
            named, share = decode_sketch_share(data, position, quorum, 4, members.params)
            assert named == MEMBERS
            for own in (None, *members.shares):
                verify_sketch_share(sketches[:, 1], share, position, quorum, plan, own)
            values[position] = share.values
        opened = combine_sketches(sketches, values, quorum, plan)
        found.add((opened.values.tobytes(), opened.packed.tobytes(), opened.in_range.tobytes()))
    assert len(found) == 1


@pytest.mark.parametrize("plan", [plan_for(TOY), position_plan([(0, 3), (2, 7)], TOY.params)])
def test_asking_twice_gives_identical_bytes(plan: SketchPlan) -> None:
    """From a key share that was read back from its file, too."""
    c1 = sketches_of(TOY, plan)[:, 1]
    again = KeyShare.from_secret_bytes(TOY.shares[2].secret_bytes(), TOY.params)
    first, second = (encode_sketch_share(open_sketches(c1, plan, s, QUORUM), MEMBERS, TOY.params) for s in (TOY.shares[2], again))
    assert first == second


def test_the_answer_about_a_site_does_not_depend_on_the_other_sites() -> None:
    """Asked alone, or in another order: the same values, so that no noise is ever drawn twice for one question."""
    plan = plan_for(TOY)
    c1 = sketches_of(TOY, plan)[:, 1]
    whole = open_sketches(c1, plan, TOY.shares[0], QUORUM).values
    assert np.array_equal(open_sketches(c1[::-1], plan, TOY.shares[0], QUORUM).values, whole[::-1])
    assert np.array_equal(open_sketches(c1[1:2], plan, TOY.shares[0], QUORUM).values, whole[1:2])


def test_every_share_of_every_quorum_is_a_sum_of_one_value_per_subset() -> None:
    """All retries together are a function of those: they show nothing new."""
    plan = plan_for(TOY)
    c1 = sketches_of(TOY, plan, 1)[:, 1]
    answers = [(assigned, open_sketches(c1, plan, TOY.shares[position], quorum).values.astype(np.int64))
               for quorum in itertools.combinations(range(5), 3)
               for position, assigned in assign(quorum, 5, 3).items()]  # fmt: skip
    design = np.array([[i in assigned for i in range(10)] for assigned, _ in answers], dtype=float)
    assert np.linalg.matrix_rank(design) == 10 < len(answers)
    alone = dict(answers)
    for (a, x), (b, y) in itertools.product(alone.items(), repeat=2):
        union = tuple(sorted({*a, *b}))
        if not set(a) & set(b) and union in alone:
            assert np.array_equal((x + y) % np.array(TOY.params.data_primes)[:, None], alone[union])


def test_other_plans_and_other_updates_get_other_noise() -> None:
    """Noise is named by key, c1 and plan; no two names share any of it."""
    first, second = plan_for(TOY), sketch_plan(bytes(32), 3, 4, TOY.params)
    c1 = sketches_of(TOY, first)[:, 1]
    keys = list(TOY.shares[0].keys.values())
    noise = np.concatenate([sketch_noise(site_names(c1, plan), keys, plan) for plan in (first, second)])
    assert len(np.unique(noise)) == noise.size


def test_honest_shares_pass_at_real_parameters() -> None:
    """Degree 4096, ten sites of the largest residues, also for positions in eight blocks: no sum leaves its exact range."""
    members = committee(real_params())
    for plan in (sketch_plan(SEED, 82, 256, members.params), position_plan([(b, 4095) for b in range(8)], members.params)):
        largest = np.array(members.params.data_primes, dtype=np.uint32)[:, None] - 1
        c1 = np.broadcast_to(largest, (10, 3, plan.width))
        share = open_sketches(c1, plan, members.shares[0], (0, 1, 2))
        verify_sketch_share(c1, share, 0, (0, 1, 2), plan, members.shares[3])


@pytest.mark.parametrize(("n", "t"), [(5, 3), (7, 4), (10, 6)])
def test_a_share_has_at_most_4_kb_per_member(n: int, t: int) -> None:
    """256 groups, ten sites, the most tags that any position of any quorum owes."""
    params = real_params(n, t)
    most = max(len(a) for quorum in itertools.combinations(range(n), t) for a in assign(quorum, n, t).values())
    share = SketchShare(values=np.zeros((10, 3, 256), np.uint32), tags=np.zeros((most, 4, 3), np.uint32))
    assert len(encode_sketch_share(share, range(10), params)) <= 10 * 4000


@pytest.mark.parametrize("groups", [64, 256])
@pytest.mark.parametrize(("n", "t"), [(5, 3), (7, 4)])
def test_the_noise_of_opened_sketches_is_the_predicted(n: int, t: int, groups: int) -> None:
    """None in the upper fields, in the lowest what flooding and rounding make; under it that of the ciphertexts."""
    members = committee(real_params(n, t, weight_bits=3))
    plan = sketch_plan(SEED, 12, groups, members.params)
    ciphertexts = [encrypt(np.zeros((12, 4096), np.int64), members.key, members.params) for _ in range(6)]
    sketches = np.stack([sketch([c], plan) for c in ciphertexts])
    opened = members.open_sketches(sketches, plan, range(t)).values
    assert not opened[..., 1:].any()
    # Sums of zeros round better than sums of updates do: the error is at most the predicted.
    assert opened[..., 0].std() < 1.1 * p.sketch_error_std(members.params, 12, groups)
    assert fresh_noise(members, sketches, plan).std() == pytest.approx(p.sketch_noise_std(members.params, 12, groups), rel=0.1)


@pytest.mark.parametrize(("n", "t"), [(3, 2), (5, 3), (7, 4), (5, 1)])
def test_every_subset_key_floods_with_the_whole_sigma(n: int, t: int) -> None:
    """Measured over 2048 sums per key, before the keys' noises are added."""
    members = committee(real_params(n, t))
    plan = sketch_plan(SEED, 82, 256, members.params)
    names = [bytes([k]) * 32 for k in range(8)]
    noise = sketch_noise(names, list(members.shares[0].keys.values()), plan)
    assert noise.std(axis=(1, 2)) == pytest.approx(np.full(len(noise), 2.0**plan.sigma_log2), rel=0.08)


def fresh_noise(members: Committee, sketches: np.ndarray, plan: SketchPlan) -> np.ndarray:
    """Group sums of encrypted zeros without flooding: the ciphertexts' noise, modulo the first prime."""
    keys = {i: key for share in members.shares for i, key in share.keys.items()}
    q = members.params.data_primes[0]
    secret = reduce(sum(key.secret[0] for key in keys.values()), q)
    phase = reduce(sketches[:, 0, 0] + reduce(sketches[:, 1, 0] * secret, q), q)
    ring(members.params).inverse(phase, 0)
    return group_sums(np.where(phase > q // 2, phase - q, phase), plan)


@pytest.mark.parametrize("weight_bits", [0, 3])
@pytest.mark.parametrize(("n", "t"), [(3, 2), (5, 3), (7, 4), (10, 6), (5, 1)])
def test_flooding_has_thirty_statistical_bits_whatever_the_committee(n: int, t: int, weight_bits: int) -> None:
    """sigma >= sqrt(12) * 2^15 * 5 standard deviations of the sums' noise, for sketches and for single positions."""
    params = real_params(n, t, weight_bits=weight_bits)
    for plan in (sketch_plan(SEED, 82, 256, params), sketch_plan(SEED, 29, 64, params)):
        noise = p.fresh_noise_std(params) * (plan.blocks * 4096 / plan.groups) ** 0.5
        assert 2**plan.sigma_log2 >= 12**0.5 * 2**15 * 5 * noise
        assert p.sketch_divergence(params, plan.blocks, plan.groups) < 2**-28
    assert 2 ** position_plan([(0, 0)], params).sigma_log2 >= 12**0.5 * 2**15 * 5 * p.fresh_noise_std(params)


def test_sums_beyond_31_32_of_a_field_are_out_of_range() -> None:
    """In any field, in any one group, of that site alone; noise in the lowest field tips nothing over by itself."""
    plan = sketch_plan(SEED, 1, 16, TOY.params)
    most = p.largest_field_sum(TOY.params)
    fits, exceeds = most - 10, most + 10
    blocks = np.zeros((7, 1, 16), dtype=np.int64)
    for field in range(3):
        blocks[2 * field, 0, 5] = fits << (field * TOY.params.field_bits)
        blocks[2 * field + 1, 0, 5] = -exceeds << (field * TOY.params.field_bits)
    sketches = np.stack([sketch([encrypt(b, TOY.key, TOY.params)], plan) for b in blocks])
    assert TOY.open_sketches(sketches, plan, QUORUM).in_range.tolist() == [True, False] * 3 + [True]


@pytest.mark.parametrize(
    ("seed", "blocks", "groups"),
    [(b"short", 3, 4), (SEED, 0, 4), (SEED, 2**16 + 1, 4), (SEED, 3, 3), (SEED, 3, 0), (SEED, 3, 32)],
)
def test_impossible_sketches_are_refused(seed: bytes, blocks: int, groups: int) -> None:
    """Seeds of another length, no blocks, groups that do not divide the ring."""
    with pytest.raises(SettingsError, match="no sketch of"):
        sketch_plan(seed, blocks, groups, TOY.params)


def test_a_sketch_whose_noise_would_leave_its_field_is_refused() -> None:
    """One group of 65536 blocks, in the largest committee: more groups are asked for."""
    params = SecurityParams(update_range=0.25, weight_bits=0, threshold=6, committee=10, sites=16)
    with pytest.raises(SettingsError, match=r"raise screening\.groups"):
        sketch_plan(SEED, 2**16, 1, params)


def test_everything_moves_the_plan() -> None:
    """Seed, blocks, groups and parameters: another digest each, hence other noise and other challenges."""
    plans = [
        sketch_plan(SEED, 3, 4, TOY.params),
        sketch_plan(bytes(32), 3, 4, TOY.params),
        sketch_plan(SEED, 4, 4, TOY.params),
        sketch_plan(SEED, 3, 8, TOY.params),
        sketch_plan(SEED, 3, 4, toy_params(degree=16, weight_bits=1)),
        position_plan([(0, 1)], TOY.params),
        position_plan([(0, 1), (0, 2)], TOY.params),
    ]
    assert len({plan.digest for plan in plans}) == len(plans)


@pytest.mark.parametrize("blocks", [2, 4])
def test_an_update_of_another_size_has_no_sketch(blocks: int) -> None:
    """Too few blocks or too many; a plain one neither."""
    plan = plan_for(TOY)
    packed = np.zeros((blocks, 16), dtype=np.int64)
    with pytest.raises(MalformedCiphertext, match="cannot be sketched by a plan for 3"):
        sketch([encrypt(packed, TOY.key, TOY.params)], plan)
    with pytest.raises(CiphertextError, match="plan for 3 blocks"):
        plain_sketch(packed, plan)


def test_parts_of_another_form_have_no_sketch() -> None:
    """Shares for ciphertexts, other integers, other rings."""
    plan = plan_for(TOY)
    whole = encrypt(np.zeros((3, 16), dtype=np.int64), TOY.key, TOY.params)
    for part in (whole[:, 0], whole.astype(np.int64), whole[..., :8]):
        with pytest.raises(MalformedCiphertext, match="to be sketched"):
            sketch([part], plan)


@pytest.mark.parametrize("vector", [np.zeros(3 * 48 + 1, np.int64), np.zeros(5, np.float64), np.zeros((2, 2), np.int64)])
def test_a_vector_of_another_form_has_no_sketch(vector: np.ndarray) -> None:
    """Too long, not of integers, not a vector."""
    with pytest.raises(CiphertextError, match="has no sketch"):
        sketch_of_vector(vector, plan_for(TOY))


def test_opened_positions_are_those_coefficients() -> None:
    """Of every site, in the order of the plan, in whatever parts the blocks come; only the blocks needed are read."""
    positions = [(0, 0), (0, 15), (2, 3), (3, 7)]
    plan = position_plan(positions, TOY.params)
    rng = np.random.default_rng(1)
    packed = rng.integers(-(2**40), 2**40, (2, 6, 16))
    sketches = np.stack([sketch(iter(np.array_split(encrypt(m, TOY.key, TOY.params), 3)), plan) for m in packed])
    opened = TOY.open_sketches(sketches, plan, QUORUM).packed
    wanted = np.array([[m[b, k] for b, k in positions] for m in packed])
    assert np.abs(opened - wanted).max() <= 1
    assert np.array_equal(plain_sketch(packed[0], plan)[:, 0], plain_sketch(packed[0, :4], plan)[:, 0])


@pytest.mark.parametrize(
    "positions",
    [[], [(0, k) for k in range(9)], [(1, 0), (0, 0)], [(0, 1), (0, 1)], [(0, 16)], [(-1, 0)], [(2**16, 0)]],
)
def test_positions_of_another_form_are_refused(positions: list[tuple[int, int]]) -> None:
    """None, too many, not ascending, twice, outside the ring or any update."""
    with pytest.raises(CiphertextError, match="cannot be opened"):
        position_plan(positions, TOY.params)


def test_positions_beyond_an_updates_end_are_refused() -> None:
    """An update of two blocks has no third."""
    with pytest.raises(MalformedCiphertext, match="has no block 2"):
        sketch([encrypt(np.zeros((2, 16), np.int64), TOY.key, TOY.params)], position_plan([(2, 0)], TOY.params))


def test_a_spoiled_sum_names_its_first_positions() -> None:
    """Eight at most, by block and coefficient; callers that expect a ShareError go on as before."""
    most = largest_packed_sum(TOY.params)
    packed = np.zeros((3, 16), dtype=np.int64)
    packed[1, [2, 9]] = most + 2, -most - 2
    packed[2, :12] = most + 2
    with pytest.raises(SpoiledSum, match="block 1 opens to values outside") as caught:
        TOY.open(encrypt(packed, TOY.key, TOY.params), QUORUM)
    assert isinstance(caught.value, ShareError)
    assert caught.value.positions == ((1, 2), (1, 9), *((2, k) for k in range(6)))
    assert caught.value.positions == out_of_range_positions(packed, TOY.params)


def test_a_sum_in_range_has_no_positions() -> None:
    """Up to the very bound."""
    most = largest_packed_sum(TOY.params)
    assert out_of_range_positions(np.array([[most, -most, 0]]), TOY.params) == ()


def test_positions_have_canonical_bytes() -> None:
    """Eight bytes each, in order; their digest is that of the framed bytes."""
    assert encode_positions([(1, 2), (3, 256)]) == bytes.fromhex("01000000020000000300000000010000")
    assert positions_digest([(1, 2)]) != positions_digest([(1, 2), (3, 256)])
    assert len(positions_digest(())) == 32


def test_a_position_outside_the_quorum_has_no_share() -> None:
    """Neither made, parsed nor checked."""
    plan = plan_for(TOY)
    c1 = sketches_of(TOY, plan)[:, 1]
    share = open_sketches(c1, plan, TOY.shares[2], QUORUM)
    for asked in (
        lambda: open_sketches(c1, plan, TOY.shares[1], QUORUM),
        lambda: decode_sketch_share(encode_sketch_share(share, MEMBERS, TOY.params), 1, QUORUM, 4, TOY.params),
        lambda: verify_sketch_share(c1, share, 1, QUORUM, plan),
    ):
        with pytest.raises(ShareError, match="position 1 is not in the quorum"):
            asked()


@pytest.mark.parametrize("positions", [(0, 2), (0, 2, 3), (0, 2, 3, 4)])
def test_sketches_are_combined_from_exactly_their_quorum(positions: tuple[int, ...]) -> None:
    """One too few, another one, one too many."""
    plan = plan_for(TOY)
    sketches = sketches_of(TOY, plan)
    values = {q: np.zeros((3, 3, 4), np.uint32) for q in positions}
    with pytest.raises(ShareError, match="all of it, and no other"):
        combine_sketches(sketches, values, QUORUM, plan)


def test_keys_of_other_parameters_open_and_accuse_nothing() -> None:
    """The wrong key file is the holder's own mistake."""
    plan = plan_for(TOY)
    c1 = sketches_of(TOY, plan)[:, 1]
    other = committee(toy_params(degree=16, weight_bits=1)).shares
    with pytest.raises(ShareError, match="other security parameters"):
        open_sketches(c1, plan, other[0], QUORUM)
    with pytest.raises(WrongEpoch, match="other security parameters"):
        verify_sketch_share(c1, open_sketches(c1, plan, TOY.shares[0], QUORUM), 0, QUORUM, plan, other[3])


def test_a_sum_is_sketched_as_the_sites_together() -> None:
    """The sketch of an aggregate of weighted updates opens to the weighted sum of what the sites' own open to."""
    members = committee(real_params(weight_bits=3))
    plan = plan_for(members, 256)
    packed = [pack(u * 0.2, 1 / 5, members.params) for u in updates(3, 3 * 12288)]
    total = add([encrypt(m, members.key, members.params) for m in packed], [1, 8, 3], members.params)
    opened = members.open_sketches(sketch([total], plan)[None], plan, (0, 1, 2)).values[0]
    assert np.array_equal(opened[:, 1:], sum(w * plain_sketch(m, plan) for w, m in zip([1, 8, 3], packed, strict=True))[:, 1:])
