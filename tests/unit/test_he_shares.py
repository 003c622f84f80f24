"""Decryption shares that prove themselves: honest ones always pass, and their bytes have one form."""

import itertools

import numpy as np
import pytest

from bahefl_flwr.errors import ShareError, WrongEpoch
from bahefl_flwr.he.ckks import encrypt
from bahefl_flwr.he.keys import assign
from bahefl_flwr.he.seal_format import PartKind, encode_part
from bahefl_flwr.he.share_format import REPEATS, DecryptionShare, decode_share, encode_share
from bahefl_flwr.he.share_proof import verify_share
from he_committee import Committee, committee, real_params, toy_params

TOY = committee(toy_params(degree=16))
QUORUM = (0, 2, 4)


def c1_of(members: Committee, blocks: int = 2) -> np.ndarray:
    """Second polynomials of some ciphertext."""
    packed = np.arange(blocks * members.params.ring_degree).reshape(blocks, -1)
    return encrypt(packed, members.key, members.params)[:, 1]


@pytest.mark.parametrize(("n", "t"), [(2, 2), (3, 2), (4, 3), (5, 3), (7, 4), (5, 1)])
def test_honest_shares_pass_for_all_quorums(n: int, t: int) -> None:
    """A site without keys, the sender's two neighbours, the sender itself: all accept what came over the wire."""
    members = committee(toy_params(n, t, degree=16))
    c1 = c1_of(members)
    for quorum in itertools.combinations(range(n), t):
        for position in quorum:
            data = encode_share(members.share_of(c1, position, quorum), members.params)
            share = decode_share(data, position, quorum, members.params)
            verify_share(c1, share, position, quorum, members.params)
            for checker in (position - 1, position, (position + 1) % n):
                verify_share(c1, share, position, quorum, members.params, members.shares[checker])


def test_honest_shares_pass_in_the_largest_committee() -> None:
    """6 of 10, 252 subsets: first, last and a mixed quorum, checked by a member in and one outside each."""
    members = committee(toy_params(10, 6, degree=16))
    c1 = c1_of(members, 1)
    for quorum in [(0, 1, 2, 3, 4, 5), (4, 5, 6, 7, 8, 9), (0, 2, 4, 6, 8, 9)]:
        for position in quorum:
            share = members.share_of(c1, position, quorum)
            for checker in (quorum[0], *sorted(set(range(10)) - set(quorum))[:1]):
                verify_share(c1, share, position, quorum, members.params, members.shares[checker])


def test_honest_shares_pass_at_real_parameters() -> None:
    """More blocks than a part has, at degree 4096: no sum leaves the exact range of floating point."""
    members = committee(real_params())
    c1 = np.broadcast_to(np.array(members.params.data_primes, dtype=np.uint32)[:, None] - 1, (13, 3, 4096))
    share = members.share_of(c1, 0, (0, 1, 2))
    verify_share(c1, share, 0, (0, 1, 2), members.params, members.shares[3])


def test_a_share_has_a_tag_per_assigned_subset() -> None:
    """Shape (assigned subsets, REPEATS, primes), and as many bytes."""
    share = TOY.share_of(c1_of(TOY), 2, QUORUM)
    subsets = len(assign(QUORUM, 5, 3)[2])
    assert share.tags.shape == (subsets, REPEATS, 3)
    part = encode_part(share.residues, PartKind.SHARE, TOY.params)
    assert encode_share(share, TOY.params) == part + share.tags.astype("<u4").tobytes()


def test_a_part_with_its_tags_is_half_as_long_as_the_store_allows() -> None:
    """Ten blocks, and the tags of the 45 subset keys that one of 6 of 10 members applies at most."""
    quorums = itertools.combinations(range(10), 6)
    most = max(len(assigned) for quorum in quorums for assigned in assign(quorum, 10, 6).values())
    assert most == 45
    assert 28 + 4 * 10 * 3 * 4096 + 4 * most * REPEATS * 3 < 2**19


@pytest.mark.parametrize("position", [1, 3, 7])
def test_a_position_outside_the_quorum_has_no_share(position: int) -> None:
    """Neither parsed nor checked: the message says who is not in which quorum."""
    share = TOY.share_of(c1_of(TOY), 2, QUORUM)
    with pytest.raises(ShareError, match=f"position {position} is not in the quorum"):
        decode_share(encode_share(share, TOY.params), position, QUORUM, TOY.params)
    with pytest.raises(ShareError, match=f"position {position} is not in the quorum"):
        verify_share(c1_of(TOY), share, position, QUORUM, TOY.params)


def test_the_tags_are_bound_to_the_blocks() -> None:
    """The challenge covers c1 itself: parts whose shares are equal by accident still have their own tags."""
    c1 = c1_of(TOY)
    share = TOY.share_of(c1, 0, QUORUM)
    other = c1.copy()
    other[0, 0, 0] ^= 1
    with pytest.raises(ShareError, match="for other blocks"):
        verify_share(other, share, 0, QUORUM, TOY.params)


@pytest.mark.parametrize(
    ("residues", "tags", "complaint"),
    [
        (np.s_[:1], np.s_[:], "share of position 0"),
        (np.s_[:], np.s_[:1], "tags of position 0"),
        (np.s_[:], np.s_[:, :1], "tags of position 0"),
    ],
)
def test_check_1_another_shape(residues: slice, tags: slice, complaint: str) -> None:
    """Check 1: neither fewer blocks nor fewer tags."""
    c1 = c1_of(TOY)
    share = TOY.share_of(c1, 0, QUORUM)
    cut = DecryptionShare(residues=share.residues[residues], tags=share.tags[tags])
    with pytest.raises(ShareError, match=complaint):
        verify_share(c1, cut, 0, QUORUM, TOY.params, TOY.shares[3])


def test_check_1_a_number_beyond_its_prime() -> None:
    """Check 1: residues and tags are canonical; a tag plus its prime is another form of the same tag."""
    c1 = c1_of(TOY)
    share = TOY.share_of(c1, 0, QUORUM)
    raised = share.tags.copy()
    raised[0, 0, 0] += TOY.params.data_primes[0]
    with pytest.raises(ShareError, match="not below its prime"):
        verify_share(c1, DecryptionShare(residues=share.residues, tags=raised), 0, QUORUM, TOY.params)


def test_keys_of_other_parameters_accuse_nobody() -> None:
    """The wrong key file is the checker's own mistake: another error than a wrong share."""
    c1 = c1_of(TOY)
    other = committee(toy_params(degree=16, weight_bits=1)).shares[3]
    with pytest.raises(WrongEpoch, match="other security parameters"):
        verify_share(c1, TOY.share_of(c1, 0, QUORUM), 0, QUORUM, TOY.params, other)
