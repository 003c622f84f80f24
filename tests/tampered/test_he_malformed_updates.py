"""Updates that no honest site makes, against sketches, the audit of spoiled sums, and the key.

The last tests are limits: nothing in this package proves that an update is a well-formed ciphertext.
"""

import numpy as np
import pytest

from bahefl_flwr.errors import SpoiledSum
from bahefl_flwr.he.ckks import add, encrypt
from bahefl_flwr.he.packing import pack, split
from bahefl_flwr.he.ring import ring
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.sketch import plain_sketch, position_plan, sketch, sketch_plan
from bahefl_flwr.he.sketch_plan import group_sums
from bahefl_flwr.he.spoiled_sum import outside_range
from he_committee import committee, slow_product, toy_params, updates

ALL = committee(toy_params(degree=256, weight_bits=3))
PARAMS = ALL.params
PRIMES = PARAMS.data_primes
MODULUS = int(np.prod([int(q) for q in PRIMES], dtype=object))
HALF = (MODULUS - 1) // 2
QUORUM = (0, 1, 2)
BLOCKS, SHARE = 4, 0.25
PLAN = sketch_plan(bytes(32), BLOCKS, 64, PARAMS)
PACKED = [pack(u * 0.2, SHARE, PARAMS) for u in updates(4, BLOCKS * PARAMS.parameters_per_block)]
SENT = [encrypt(m, ALL.key, PARAMS, SecretSeed(bytes([k]) * 32)) for k, m in enumerate(PACKED)]
CULPRIT = 2


def shifted(ciphertext: np.ndarray, block: int, coefficients: slice, value: int) -> np.ndarray:
    """`value` added to plaintext coefficients of a block, modulo q: what only a site that builds its own ciphertext can do."""
    out = ciphertext.copy()
    for l, q in enumerate(PRIMES):
        polynomial = np.zeros((1, PARAMS.ring_degree), dtype=np.int64)
        polynomial[0, coefficients] = value % q
        ring(PARAMS).forward(polynomial, l)
        out[block, 0, l] = (out[block, 0, l] + polynomial[0]) % q
    return out


def wrapping() -> np.ndarray:
    """(Q-1)/2 in every coefficient of two blocks: whatever the signs and shifts, they cancel modulo Q but for -1, 0 or 1."""
    everywhere = slice(None)
    return shifted(shifted(SENT[CULPRIT], 1, everywhere, HALF), 3, everywhere, HALF)


def spoiled_by(ciphertext: np.ndarray, weights: tuple[int, ...] = (1, 1, 1, 1)) -> tuple[tuple[int, int], ...]:
    """Where the sum with this update in the culprit's place opens out of range."""
    included = [*SENT[:CULPRIT], ciphertext, *SENT[CULPRIT + 1 :]]
    with pytest.raises(SpoiledSum) as caught:
        ALL.open(add(included, weights, PARAMS), QUORUM)
    return caught.value.positions


def found_guilty(ciphertext: np.ndarray, positions: tuple[tuple[int, int], ...]) -> list[int]:
    """Sites that the audit of these positions convicts."""
    included = [*SENT[:CULPRIT], ciphertext, *SENT[CULPRIT + 1 :]]
    plan = position_plan(positions, PARAMS)
    opened = ALL.open_sketches(np.stack([sketch([c], plan) for c in included]), plan, (0, 3, 4))
    return [site for site, packed in enumerate(opened.packed) if outside_range(packed, SHARE, PARAMS)]


def test_an_update_that_wraps_around_hides_from_its_sketch() -> None:
    """Its sketch differs from the honest one by noise alone: this is what the check of the output is for."""
    evil, honest = ALL.open_sketches(np.stack([sketch([c], PLAN) for c in (wrapping(), SENT[CULPRIT])]), PLAN, QUORUM).values
    assert np.abs(evil - honest).max() <= 8


def test_an_update_that_wraps_around_is_found_by_the_audit_of_the_sum() -> None:
    """The sum is out of range, and at those positions that site alone is."""
    positions = spoiled_by(wrapping())
    assert positions == tuple((1, k) for k in range(8))
    assert found_guilty(wrapping(), positions) == [CULPRIT]


@pytest.mark.parametrize("weights", [(1, 1, 3, 1), (8, 8, 1, 8), (2, 1, 5, 7)])
def test_weights_do_not_hide_it(weights: tuple[int, ...]) -> None:
    """With odd weights it spoils the sum just so; with even ones it cancels in the sum as well and harms nobody."""
    assert found_guilty(wrapping(), spoiled_by(wrapping(), weights)) == [CULPRIT]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_single_spoiled_coefficient_is_found(block: int) -> None:
    """In any block; nobody else is named."""
    evil = shifted(SENT[CULPRIT], block, slice(100, 101), HALF)
    positions = spoiled_by(evil)
    assert positions == ((block, 100),)
    assert found_guilty(evil, positions) == [CULPRIT]


def test_coefficients_spoiled_in_several_blocks_are_opened_together() -> None:
    """The first eight of them, and one opening convicts."""
    evil = SENT[CULPRIT]
    for block in range(BLOCKS):
        evil = shifted(evil, block, slice(40, 43), HALF)
    positions = spoiled_by(evil)
    assert positions == tuple((b, k) for b in range(3) for k in (40, 41, 42))[:8]
    assert found_guilty(evil, positions) == [CULPRIT]


def test_two_culprits_that_spoil_different_places_are_both_found() -> None:
    """Each in its own."""
    one = shifted(SENT[0], 0, slice(5, 6), HALF)
    two = shifted(SENT[CULPRIT], 2, slice(7, 8), HALF)
    included = [one, SENT[1], two, SENT[3]]
    with pytest.raises(SpoiledSum) as caught:
        ALL.open(add(included, [1] * 4, PARAMS), QUORUM)
    plan = position_plan(caught.value.positions, PARAMS)
    opened = ALL.open_sketches(np.stack([sketch([c], plan) for c in included]), plan, QUORUM)
    assert [outside_range(packed, SHARE, PARAMS) for packed in opened.packed] == [True, False, True, False]


def test_an_update_far_beyond_its_range_has_a_sketch_out_of_range() -> None:
    """Values that fill the fields at random: the sums wrap around and leave the range with all but certainty."""
    rng = np.random.default_rng(3)
    loud = rng.integers(-(2**50), 2**50, (BLOCKS, PARAMS.ring_degree))
    opened = ALL.open_sketches(np.stack([sketch([encrypt(m, ALL.key, PARAMS)], PLAN) for m in (loud, PACKED[0])]), PLAN, QUORUM)
    assert opened.in_range.tolist() == [False, True]


def collective_secret() -> np.ndarray:
    """Coefficients of the secret key, which only a test can add up."""
    keys = {i: key for share in ALL.shares for i, key in share.keys.items()}
    row = np.sum([key.secret[:1] for key in keys.values()], axis=0) % PRIMES[0]
    ring(PARAMS).inverse(row, 0)
    return np.where(row > PRIMES[0] // 2, row - PRIMES[0], row)[0]


def steered(unit_log2: int, blocks: list[int]) -> np.ndarray:
    """An update with c0 = 0 and c1 = a constant in these blocks, and encrypted zeros in the others."""
    out = encrypt(np.zeros_like(PACKED[0]), ALL.key, PARAMS)
    for l, q in enumerate(PRIMES):
        out[blocks, 0, l], out[blocks, 1, l] = 0, (1 << unit_log2) % q
    return out


def test_a_sketch_of_a_steered_ciphertext_gives_equations_in_the_key_away() -> None:
    """A LIMIT, and a grave one: every group sum of c1 = constant is a sum of key coefficients, in range and unnoticed.

    As many equations as there are groups for each such update; N of them are the key. Only a proof that c1 = u*a + e1 with small
    u and e1, given with the commitment, would prevent it.
    """
    opened = ALL.open_sketches(sketch([steered(PARAMS.noise_bits + 6, [1])], PLAN)[None], PLAN, QUORUM)
    exponent = int(PLAN.fold.exponents[PLAN.fold.buckets[1]])
    degree = PARAMS.ring_degree
    monomial = [(-1 if exponent >= degree else 1) * (i == exponent % degree) for i in range(degree)]
    folded = PLAN.fold.signs[1] * np.array(slow_product(monomial, collective_secret().tolist()))
    assert opened.in_range.all()
    assert np.array_equal(np.rint(opened.packed[0] / 64), group_sums(folded, PLAN))


def test_a_sketch_of_a_copy_of_an_earlier_update_shows_that_update() -> None:
    """The same limit: added to encrypted zeros, a victim's ciphertext of an earlier round has another digest and another c1.

    Each such copy is opened by another plan, and so shows other sums of the victim's update.
    """
    copy = add([SENT[0], encrypt(np.zeros_like(PACKED[0]), ALL.key, PARAMS)], [1, 1], PARAMS)
    opened = ALL.open_sketches(sketch([copy], PLAN)[None], PLAN, QUORUM)
    assert np.array_equal(opened.values[0, :, 1:], plain_sketch(PACKED[0], PLAN)[:, 1:])


def test_an_opened_sum_with_a_steered_ciphertext_gives_the_key_away() -> None:
    """The same limit without any sketch: honest updates in the sum hide the shares, not c0 + c1 * s, which everybody opens.

    In the highest field one unit of the key stands out from the honest sum; one update in one round is enough.
    """
    unit = PARAMS.noise_bits + 2 * PARAMS.field_bits + 11
    opened = ALL.open(add([*SENT[:3], steered(unit, list(range(BLOCKS)))], [1] * 4, PARAMS), QUORUM)
    highest = list(split(opened, PARAMS))[-1]
    assert np.array_equal(np.rint(highest.mean(axis=0) / 2**11), collective_secret())
