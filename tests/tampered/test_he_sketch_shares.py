"""Wrong sketch shares and altered bytes of them: everybody, or every other holder of the key concerned, refuses each."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.errors import ShareError
from bahefl_flwr.he.ckks import encrypt
from bahefl_flwr.he.keys import assign, holders
from bahefl_flwr.he.params import DATA_PRIMES
from bahefl_flwr.he.sampling import SecretSeed
from bahefl_flwr.he.sketch import (
    SketchPlan,
    SketchShare,
    combine_sketches,
    decode_sketch_share,
    encode_sketch_share,
    open_sketches,
    position_plan,
    sketch,
    sketch_plan,
    verify_sketch_share,
)
from bahefl_flwr.he.sketch_proof import site_names, sketch_challenge, sketch_noise, sketch_tags
from he_committee import Committee, committee, toy_params

COMMITTEES = [(3, 2), (5, 3), (7, 4), (10, 6)]
ALL = committee(toy_params(degree=16))
PARAMS = ALL.params
SEED = bytes(32)
PLAN = sketch_plan(SEED, 2, 4, PARAMS)
QUORUM = (0, 2, 4)
MEMBERS = (0, 3, 9)
Quorum = tuple[int, ...]
Lie = Callable[[Committee, np.ndarray, int, Quorum, SketchPlan], SketchShare]


def sketches_of(members: Committee, plan: SketchPlan, seed: int = 1) -> np.ndarray:
    """Of three sites."""
    packed = np.random.default_rng(seed).integers(-(2**40), 2**40, (3, 2, members.params.ring_degree))
    seeds = [SecretSeed(bytes([k]) * 32) for k in range(3)]
    return np.stack([sketch([encrypt(m, members.key, members.params, s)], plan) for m, s in zip(packed, seeds, strict=True)])


SKETCHES = sketches_of(ALL, PLAN)
C1 = SKETCHES[:, 1]
SHARE = open_sketches(C1, PLAN, ALL.shares[2], QUORUM)
DATA = encode_sketch_share(SHARE, MEMBERS, PARAMS)
HEADER = 12


def moved(numbers: np.ndarray, at: tuple[int, int, int]) -> np.ndarray:
    """One number of (.., .., ..) plus 1, below its prime; the prime is the middle axis of values and the last of tags."""
    out = numbers.copy()
    out[at] = (int(out[at]) + 1) % (2**30 - 2**17)
    return out


def small_change(members: Committee, c1: np.ndarray, position: int, quorum: Quorum, plan: SketchPlan) -> SketchShare:
    """One value of one site modulo one prime."""
    share = open_sketches(c1, plan, members.shares[position], quorum)
    return SketchShare(values=moved(share.values, (1, 2, 3)), tags=share.tags)


def changed_tag(members: Committee, c1: np.ndarray, position: int, quorum: Quorum, plan: SketchPlan) -> SketchShare:
    """Honest values, one tag changed."""
    share = open_sketches(c1, plan, members.shares[position], quorum)
    return SketchShare(values=share.values, tags=moved(share.tags, (0, 1, 2)))


def of_another_position(members: Committee, c1: np.ndarray, position: int, quorum: Quorum, plan: SketchPlan) -> SketchShare:
    """A neighbour's answer."""
    other = quorum[(quorum.index(position) + 1) % len(quorum)]
    share = open_sketches(c1, plan, members.shares[other], quorum)
    owed = len(assign(quorum, members.params.committee, members.params.threshold)[position])
    return SketchShare(values=share.values, tags=np.resize(share.tags, (owed, *share.tags.shape[1:])))


def of_another_plan(members: Committee, c1: np.ndarray, position: int, quorum: Quorum, plan: SketchPlan) -> SketchShare:
    """The same c1 grouped by another seed."""
    return open_sketches(c1, sketch_plan(b"x" * 32, 2, 4, members.params), members.shares[position], quorum)


def of_another_quorum(members: Committee, c1: np.ndarray, position: int, quorum: Quorum, plan: SketchPlan) -> SketchShare:
    """A real answer to another question, its tags cut or repeated to the expected number."""
    rest = [p for p in range(members.params.committee)[::-1] if p != position]
    share = open_sketches(c1, plan, members.shares[position], (position, *rest[: len(quorum) - 1]))
    owed = len(assign(quorum, members.params.committee, members.params.threshold)[position])
    return SketchShare(values=share.values, tags=np.resize(share.tags, (owed, *share.tags.shape[1:])))


def of_other_members(members: Committee, c1: np.ndarray, position: int, quorum: Quorum, plan: SketchPlan) -> SketchShare:
    """The same sites in another order."""
    return open_sketches(c1[[1, 0, 2]], plan, members.shares[position], quorum)


def of_other_updates(members: Committee, c1: np.ndarray, position: int, quorum: Quorum, plan: SketchPlan) -> SketchShare:
    """Of another round."""
    return open_sketches(sketches_of(members, plan, 2)[:, 1], plan, members.shares[position], quorum)


def who_objects(
    members: Committee, c1: np.ndarray, lie: SketchShare, position: int, quorum: Quorum, plan: SketchPlan
) -> set[int | None]:
    """The other members that refuse a share, and None if a site without keys does; every refusal names the sender."""
    found: set[int | None] = set()
    for checker in (None, *set(range(members.params.committee)) - {position}):
        try:
            verify_sketch_share(c1, lie, position, quorum, plan, None if checker is None else members.shares[checker])
        except ShareError as error:
            assert f"position {position} " in str(error)  # noqa: PT017
            found.add(checker)
    return found


@pytest.mark.parametrize(
    "lie",
    [small_change, changed_tag, of_another_position, of_another_plan, of_another_quorum, of_other_members, of_other_updates],
)
@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_a_share_that_contradicts_its_tags_convicts_its_sender_before_everybody(n: int, t: int, lie: Lie) -> None:
    """Value, tag, position, plan, quorum, members, updates: sites without keys see it, too."""
    members = committee(toy_params(n, t, degree=16))
    plan = sketch_plan(SEED, 2, 4, members.params)
    c1, quorum = sketches_of(members, plan)[:, 1], tuple(range(t))
    for position in (0, t - 1):
        answer = lie(members, c1, position, quorum, plan)
        assert who_objects(members, c1, answer, position, quorum, plan) == {None, *set(range(n)) - {position}}


def forged(
    members: Committee, c1: np.ndarray, values: np.ndarray, position: int, quorum: Quorum, plan: SketchPlan, blamed: int
) -> SketchShare:
    """The best a lying member can do for values of its choice: honest tags but one, which makes them add up."""
    assigned = assign(quorum, members.params.committee, members.params.threshold)[position]
    keys = [members.shares[position].keys[i] for i in assigned]
    names = site_names(c1, plan)
    asked = sketch_challenge(names, values, position, quorum, plan)
    claimed = sketch_tags(asked, c1, keys, sketch_noise(names, keys, plan)).astype(np.int64)
    claimed[assigned.index(blamed)] += asked.of_values(values) - claimed.sum(axis=0)
    return SketchShare(values=values, tags=(claimed % np.array(members.params.data_primes)).astype(np.uint32))


@pytest.mark.parametrize("prime", range(3))
@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_a_lie_with_fitting_tags_is_seen_by_exactly_the_other_holders(n: int, t: int, prime: int) -> None:
    """Any altered value, wherever the sender hides the difference: all n-t others who hold that subset key find it."""
    members = committee(toy_params(n, t, degree=16))
    plan = sketch_plan(SEED, 2, 4, members.params)
    c1, quorum, position = sketches_of(members, plan)[:, 1], tuple(range(t)), t - 1
    values = moved(open_sketches(c1, plan, members.shares[position], quorum).values, (2, prime, 0))
    for blamed in assign(quorum, n, t)[position][:6]:
        lie = forged(members, c1, values, position, quorum, plan, blamed)
        assert who_objects(members, c1, lie, position, quorum, plan) == set(holders(blamed, n, t)) - {position}


def test_a_lie_about_positions_is_seen_by_exactly_the_other_holders() -> None:
    """The audit's answers are proved like any other: nobody is found guilty by one member's word."""
    plan = position_plan([(0, 3), (1, 9)], PARAMS)
    c1 = sketches_of(ALL, plan)[:, 1]
    values = moved(open_sketches(c1, plan, ALL.shares[2], QUORUM).values, (0, 1, 1))
    for blamed in assign(QUORUM, 5, 3)[2]:
        lie = forged(ALL, c1, values, 2, QUORUM, plan, blamed)
        assert who_objects(ALL, c1, lie, 2, QUORUM, plan) == set(holders(blamed, 5, 3)) - {2}


@pytest.mark.parametrize("at", [(s, l, g) for s in range(3) for l in range(3) for g in range(4)])
def test_no_value_can_be_altered(at: tuple[int, int, int]) -> None:
    """Of any site, prime and group."""
    with pytest.raises(ShareError, match="contradicts its own tags"):
        verify_sketch_share(C1, SketchShare(values=moved(SHARE.values, at), tags=SHARE.tags), 2, QUORUM, PLAN)


def test_values_of_another_form_are_refused() -> None:
    """Check 1, in verification and combination: shapes, types and ranges."""
    beyond = SHARE.values.copy()
    beyond[0, 1, 2] = DATA_PRIMES[1]
    for values in (SHARE.values[:2], SHARE.values[..., :3], SHARE.values.astype(np.int64), beyond):
        share = SketchShare(values=values, tags=SHARE.tags)
        with pytest.raises(ShareError, match="the sketch share of position 2"):
            verify_sketch_share(C1, share, 2, QUORUM, PLAN)
        with pytest.raises(ShareError, match="the sketch share of position 2"):
            combine_sketches(SKETCHES, dict.fromkeys(QUORUM, SHARE.values) | {2: values}, QUORUM, PLAN)


def test_tags_of_another_form_are_refused() -> None:
    """Check 1: shapes and ranges."""
    beyond = SHARE.tags.copy()
    beyond[0, 0, 0] += DATA_PRIMES[0]
    for tags, message in ((SHARE.tags[:1], "expected uint32"), (beyond, "not below its prime")):
        with pytest.raises(ShareError, match=message):
            verify_sketch_share(C1, SketchShare(values=SHARE.values, tags=tags), 2, QUORUM, PLAN)


@pytest.mark.parametrize("c1", [C1[:0], C1[..., :8], C1.astype(np.int64), np.full_like(C1, 2**30)])
def test_questions_of_another_form_are_not_answered(c1: np.ndarray) -> None:
    """No site, another ring, another type, residues beyond their primes."""
    with pytest.raises(ShareError, match=r"sketches|c1"):
        open_sketches(c1, PLAN, ALL.shares[2], QUORUM)


def test_a_garbage_share_puts_every_site_out_of_range() -> None:
    """Combined unchecked, a random share cannot pass for a sketch, and blames nobody in particular."""
    plan = sketch_plan(SEED, 2, 256, committee(toy_params(degree=512)).params)
    members = committee(toy_params(degree=512))
    sketches = sketches_of(members, plan)
    shares = {p: open_sketches(sketches[:, 1], plan, members.shares[p], QUORUM).values for p in QUORUM}
    rng = np.random.default_rng(1)
    shares[2] = np.stack([rng.integers(0, q, (3, 256)) for q in DATA_PRIMES], axis=1).astype(np.uint32)
    assert not combine_sketches(sketches, shares, QUORUM, plan).in_range.any()


def decode(data: bytes) -> tuple[tuple[int, ...], SketchShare]:
    """The parser under attack."""
    return decode_sketch_share(data, 2, QUORUM, 4, PARAMS)


def test_check_2_too_short_for_a_header() -> None:
    """Check 2: a header's worth of bytes."""
    with pytest.raises(ShareError, match="11 bytes, too few"):
        decode(DATA[:11])


@pytest.mark.parametrize("count", [0, 257, 65535])
def test_check_2_member_count_out_of_bounds(count: int) -> None:
    """Check 2: the claimed size is bounded before it is believed."""
    with pytest.raises(ShareError, match=f"sketches of {count} members"):
        decode(DATA[:6] + struct.pack("<H", count) + DATA[8:])


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 5, 8, 9, 10, 11])
def test_check_3_another_header(at: int) -> None:
    """Check 3: magic, version, primes and groups are fixed by the parameters."""
    with pytest.raises(ShareError, match="with the header"):
        decode(DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :])


@pytest.mark.parametrize("data", [DATA[:-1], DATA[:-4], DATA + b"\0", DATA[:HEADER]])
def test_check_4_another_length(data: bytes) -> None:
    """Check 4: exactly the members that the header counts, and the tags owed."""
    with pytest.raises(ShareError, match=rf"{len(data)} bytes for the sketches of 3 members, expected {len(DATA)}"):
        decode(data)


@pytest.mark.parametrize("members", [(0, 0, 1), (1, 0, 2), (0, 1, 256), (0, 1, 2**32 - 1)])
def test_check_5_members_out_of_order(members: tuple[int, int, int]) -> None:
    """Check 5: once each, ascending, below 256."""
    with pytest.raises(ShareError, match="not ascending"):
        decode(DATA[:HEADER] + struct.pack("<3I", *members) + DATA[HEADER + 12 :])


@pytest.mark.parametrize("word", range(3 * 3 * 4))
def test_check_6_a_value_beyond_its_prime(word: int) -> None:
    """Check 6: values are canonical."""
    at = HEADER + 12 + 4 * word
    with pytest.raises(ShareError, match="a number >= its prime"):
        decode(DATA[:at] + struct.pack("<I", DATA_PRIMES[word // 4 % 3]) + DATA[at + 4 :])


@pytest.mark.parametrize("prime", range(3))
def test_check_6_a_tag_beyond_its_prime(prime: int) -> None:
    """Check 6: tags, too."""
    at = len(DATA) - 12 + 4 * prime
    with pytest.raises(ShareError, match="a number >= its prime"):
        decode(DATA[:at] + struct.pack("<I", DATA_PRIMES[prime]) + DATA[at + 4 :])


@pytest.mark.parametrize("members", [(0, 1), (0, 1, 2, 3), (1, 0, 2), (0, 1, 1), (0, 1, 256), (-1, 0, 1)])
def test_nothing_is_encoded_that_could_not_be_read(members: tuple[int, ...]) -> None:
    """The caller's own mistake shows at once."""
    with pytest.raises(ShareError, match="do not name the 3 sketches"):
        encode_sketch_share(SHARE, members, PARAMS)


@given(changes=st.dictionaries(st.integers(0, len(DATA) - 1), st.integers(1, 255), min_size=1, max_size=4))
def test_mutated_bytes_are_refused_or_canonical_and_never_pass(changes: dict[int, int]) -> None:
    """What is read encodes to exactly what came, and fails verification or names other members."""
    data = bytearray(DATA)
    for at, mask in changes.items():
        data[at] ^= mask
    try:
        members, share = decode(bytes(data))
    except ShareError:
        return
    assert encode_sketch_share(share, members, PARAMS) == data
    if members == MEMBERS:
        with pytest.raises(ShareError, match="contradicts its own tags"):
            verify_sketch_share(C1, share, 2, QUORUM, PLAN)


@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_are_no_share(data: bytes) -> None:
    """Noise is refused, naming who sent it."""
    with pytest.raises(ShareError, match="position 2"):
        decode(data)
