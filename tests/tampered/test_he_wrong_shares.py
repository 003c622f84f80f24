"""Wrong decryption shares of every kind: some honest holder finds each, and who can name the sender is exactly as documented."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.errors import ShareError
from bahefl_flwr.he.ckks import encrypt
from bahefl_flwr.he.keys import assign, holders, subsets
from bahefl_flwr.he.share_format import DecryptionShare, decode_share, encode_share
from bahefl_flwr.he.share_proof import block_names, challenge, flooding_noise, tags, verify_share
from he_committee import Committee, committee, forged_share, toy_params

COMMITTEES = [(3, 2), (5, 3), (7, 4), (10, 6)]
Lie = Callable[[Committee, np.ndarray, int, tuple[int, ...]], DecryptionShare]


def blocks_of(members: Committee, seed: int = 1) -> np.ndarray:
    """c1 of two blocks."""
    packed = np.random.default_rng(seed).integers(-(2**40), 2**40, (2, members.params.ring_degree))
    return encrypt(packed, members.key, members.params)[:, 1]


def changed(residues: np.ndarray, prime: int = 1) -> np.ndarray:
    """One coefficient of one block modulo one prime, plus 1."""
    out = residues.copy()
    out[-1, prime, 5] = (int(out[-1, prime, 5]) + 1) % (2**30 - 2**17)
    return out


def small_change(members: Committee, c1: np.ndarray, position: int, quorum: tuple[int, ...]) -> DecryptionShare:
    """Honest tags, one changed residue."""
    share = members.share_of(c1, position, quorum)
    return DecryptionShare(residues=changed(share.residues), tags=share.tags)


def of_another_quorum(members: Committee, c1: np.ndarray, position: int, quorum: tuple[int, ...]) -> DecryptionShare:
    """A real answer, to another question; its tags cut or repeated to the expected number."""
    other = tuple(sorted({position, *[p for p in range(members.params.committee) if p not in quorum], *quorum}))
    other = (position, *[p for p in other[::-1] if p != position])[: len(quorum)]
    share = members.share_of(c1, position, other)
    wanted = len(assign(quorum, members.params.committee, members.params.threshold)[position])
    return DecryptionShare(residues=share.residues, tags=np.resize(share.tags, (wanted, *share.tags.shape[1:])))


def garbage(members: Committee, c1: np.ndarray, position: int, quorum: tuple[int, ...]) -> DecryptionShare:
    """Random residues and tags."""
    share = members.share_of(c1, position, quorum)
    rng = np.random.default_rng(9)
    sizes = (share.residues.shape, share.tags.shape)
    residues, tags = (rng.integers(0, 2**30 - 2**17, size).astype(np.uint32) for size in sizes)
    return DecryptionShare(residues=residues, tags=tags)


def replayed(members: Committee, c1: np.ndarray, position: int, quorum: tuple[int, ...]) -> DecryptionShare:
    """The honest share of another part."""
    return members.share_of(blocks_of(members, 2), position, quorum)


def zero_tags(members: Committee, c1: np.ndarray, position: int, quorum: tuple[int, ...]) -> DecryptionShare:
    """The honest residues, no proof."""
    share = members.share_of(c1, position, quorum)
    return DecryptionShare(residues=share.residues, tags=np.zeros_like(share.tags))


def nothing(members: Committee, c1: np.ndarray, position: int, quorum: tuple[int, ...]) -> DecryptionShare:
    """Zeros, whose tags add up."""
    share = members.share_of(c1, position, quorum)
    return DecryptionShare(residues=np.zeros_like(share.residues), tags=np.zeros_like(share.tags))


def who_objects(
    members: Committee, c1: np.ndarray, lie: DecryptionShare, position: int, quorum: tuple[int, ...]
) -> set[int | None]:
    """The other members that refuse a share, and None if a site without keys does; every refusal names the sender."""
    found: set[int | None] = set()
    for checker in (None, *set(range(members.params.committee)) - {position}):
        try:
            verify_share(c1, lie, position, quorum, members.params, None if checker is None else members.shares[checker])
        except ShareError as error:
            assert f"position {position} " in str(error)  # noqa: PT017
            found.add(checker)
    return found


@pytest.mark.parametrize("lie", [small_change, of_another_quorum, garbage, replayed, zero_tags])
@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_a_share_that_contradicts_its_tags_convicts_its_sender_before_everybody(n: int, t: int, lie: Lie) -> None:
    """Members and sites without keys alike see it: no word against word."""
    members = committee(toy_params(n, t, degree=16))
    c1, quorum = blocks_of(members), tuple(range(t))
    for position in (0, t - 1):
        everybody = {None, *set(range(n)) - {position}}
        assert who_objects(members, c1, lie(members, c1, position, quorum), position, quorum) == everybody


@pytest.mark.parametrize("prime", range(3))
@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_a_lie_with_fitting_tags_is_seen_by_exactly_the_other_holders(n: int, t: int, prime: int) -> None:
    """Wherever the sender hides the difference, all n-t others who hold that subset key find it, and nobody else can."""
    members = committee(toy_params(n, t, degree=16))
    c1, quorum = blocks_of(members), tuple(range(t))
    position = t - 1
    residues = changed(members.share_of(c1, position, quorum).residues, prime)
    for blamed in assign(quorum, n, t)[position][:6]:
        lie = forged_share(members, c1, residues, position, quorum, blamed)
        assert who_objects(members, c1, lie, position, quorum) == set(holders(blamed, n, t)) - {position}


@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_no_answer_at_all_is_seen_by_every_other_holder(n: int, t: int) -> None:
    """Zeros with zero tags add up; each tag is wrong, so whoever holds any assigned subset key says so."""
    members = committee(toy_params(n, t, degree=16))
    c1, quorum = blocks_of(members), tuple(range(t))
    able = {p for i in assign(quorum, n, t)[0] for p in holders(i, n, t)} - {0}
    assert able
    assert who_objects(members, c1, nothing(members, c1, 0, quorum), 0, quorum) == able


@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_swapped_tags_are_seen_by_the_holders_of_either_subset(n: int, t: int) -> None:
    """Their sum is right, their places are not."""
    members = committee(toy_params(n, t, degree=16))
    c1, quorum = blocks_of(members), tuple(range(t))
    assigned = assign(quorum, n, t)[0]
    share = members.share_of(c1, 0, quorum)
    swapped = DecryptionShare(residues=share.residues, tags=share.tags[[1, 0, *range(2, len(assigned))]])
    able = {*holders(assigned[0], n, t), *holders(assigned[1], n, t)} - {0}
    assert who_objects(members, c1, swapped, 0, quorum) == able


@pytest.mark.parametrize("repeat", range(4))
@pytest.mark.parametrize("prime", range(3))
def test_every_single_tag_counts(repeat: int, prime: int) -> None:
    """No repetition and no prime is left out of either check."""
    members = committee(toy_params(degree=16))
    c1, quorum = blocks_of(members), (0, 1, 2)
    share = members.share_of(c1, 0, quorum)
    first, second = assign(quorum, 5, 3)[0][:2]
    tags = share.tags.astype(np.int64)
    tags[0, repeat, prime] += 1
    one = DecryptionShare(residues=share.residues, tags=(tags % np.array(members.params.data_primes)).astype(np.uint32))
    tags[1, repeat, prime] -= 1
    two = DecryptionShare(residues=share.residues, tags=(tags % np.array(members.params.data_primes)).astype(np.uint32))
    assert who_objects(members, c1, one, 0, quorum) == {None, 1, 2, 3, 4}
    assert who_objects(members, c1, two, 0, quorum) == {*holders(first, 5, 3), *holders(second, 5, 3)} - {0}


def test_with_two_holders_it_is_word_against_word() -> None:
    """A limit, n = 3 and t = 2: one member sees the lie, the third cannot tell it from slander. The pair is known, no more."""
    members = committee(toy_params(3, 2, degree=16))
    c1, quorum = blocks_of(members), (0, 1)
    blamed = assign(quorum, 3, 2)[0][0]
    lie = forged_share(members, c1, changed(members.share_of(c1, 0, quorum).residues), 0, quorum, blamed)
    (other,) = set(holders(blamed, 3, 2)) - {0}
    assert who_objects(members, c1, lie, 0, quorum) == {other}


@pytest.mark.parametrize(("n", "t"), [(4, 3), (6, 4), (10, 6)])
def test_in_even_committees_all_other_holders_may_be_accomplices(n: int, t: int) -> None:
    """A limit: with t = n/2 + 1 the t-1 who hold a subset key alone can cover a lie; with t = (n+1)/2 no t-1 can."""
    members = committee(toy_params(n, t, degree=16))
    c1, quorum = blocks_of(members), tuple(range(t))
    position = 0
    blamed = assign(quorum, n, t)[position][0]
    accomplices = set(holders(blamed, n, t)) - {position}
    assert len(accomplices) + 1 == t - 1
    lie = forged_share(members, c1, changed(members.share_of(c1, position, quorum).residues), position, quorum, blamed)
    assert who_objects(members, c1, lie, position, quorum) <= accomplices


@pytest.mark.parametrize(("n", "t"), [(3, 2), (5, 3), (7, 4), (9, 5)])
def test_in_odd_committees_an_honest_member_holds_every_subset(n: int, t: int) -> None:
    """Whichever t-1 collude, every subset key has a holder outside them, who checks."""
    for index in range(len(subsets(n, t))):
        assert len(holders(index, n, t)) > t - 1


@pytest.mark.parametrize(("n", "t"), [*COMMITTEES, (4, 3)])
def test_to_any_coalition_the_tags_are_a_function_of_the_residues(n: int, t: int) -> None:
    """t-1 members lack one key at most: they get its tag from the bare residues, as their functional minus the other tags."""
    members = committee(toy_params(n, t, degree=16))
    c1, quorum = blocks_of(members), tuple(range(t))
    for position in quorum:
        share = members.share_of(c1, position, quorum)
        assigned = assign(quorum, n, t)[position]
        coalition = {i: key for p in set(quorum) - {position} for i, key in members.shares[p].keys.items()}
        known = [i for i in assigned if i in coalition]
        names = block_names(c1)
        asked = challenge(names, share.residues, position, quorum, members.params)
        keys = [coalition[i] for i in known]
        computed = tags(asked, c1, keys, flooding_noise(names, keys)).astype(np.int64) if keys else np.zeros((0, 4, 3), np.int64)
        rest = (asked.of_residues(share.residues) - computed.sum(axis=0)) % np.array(members.params.data_primes)
        assert len(assigned) - len(known) <= 1
        assert all(np.array_equal(share.tags[assigned.index(i)], tag) for i, tag in zip(known, computed, strict=True))
        assert all(np.array_equal(share.tags[assigned.index(i)], rest) for i in set(assigned) - set(known))


@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4), cut=st.integers(0, 9))
def test_a_mutated_share_is_refused(changes: list[tuple[int, int]], cut: int) -> None:
    """Altered or cut bytes are no share, or a share that does not verify: every byte counts."""
    members = committee(toy_params(degree=16))
    c1, quorum = blocks_of(members), (0, 1, 2)
    data = bytearray(encode_share(members.share_of(c1, 1, quorum), members.params))
    for at, mask in {at % len(data): mask for at, mask in changes}.items():
        data[at] ^= mask
    with pytest.raises(ShareError, match="position 1"):
        verify_share(c1, decode_share(bytes(data[: len(data) - cut]), 1, quorum, members.params), 1, quorum, members.params)


@given(data=st.binary(max_size=2000))
def test_arbitrary_bytes_are_no_share(data: bytes) -> None:
    """Noise is refused, and named after whoever sent it."""
    with pytest.raises(ShareError, match="position 1"):
        decode_share(data, 1, (0, 1, 2), toy_params(degree=16))


@given(at=st.integers(0, 10**6), mask=st.integers(1, 255))
def test_what_parses_has_one_form(at: int, mask: int) -> None:
    """Whatever is accepted encodes to exactly the bytes that came."""
    members = committee(toy_params(degree=16))
    data = bytearray(encode_share(members.share_of(blocks_of(members), 1, (0, 1, 2)), members.params))
    data[at % len(data)] ^= mask
    try:
        share = decode_share(bytes(data), 1, (0, 1, 2), members.params)
    except ShareError:
        return
    assert encode_share(share, members.params) == bytes(data)


@pytest.mark.parametrize("prime", range(3))
def test_a_tag_beyond_its_prime_is_no_share(prime: int) -> None:
    """Tags are canonical on the wire too."""
    members = committee(toy_params(degree=16))
    share = members.share_of(blocks_of(members), 1, (0, 1, 2))
    raised = share.tags.copy()
    raised[-1, -1, prime] = members.params.data_primes[prime]
    data = encode_share(DecryptionShare(residues=share.residues, tags=raised), members.params)
    with pytest.raises(ShareError, match="tag >= its prime"):
        decode_share(data, 1, (0, 1, 2), members.params)
