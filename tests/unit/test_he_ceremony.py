"""The key ceremony: honest members agree on one key, and every deviation names its author."""

import dataclasses
import pickle

import numpy as np
import pytest

from bahefl_flwr.errors import CeremonyError, KeysError
from bahefl_flwr.he import ceremony
from bahefl_flwr.he.keys import KeyShare, common_reference, held_subsets
from bahefl_flwr.he.sampling import SecretSeed
from he_committee import EPOCH, Committee, committee, received, toy_params

COMMITTEES = [(2, 2), (3, 2), (4, 4), (5, 3), (7, 4), (5, 1), (10, 6)]
ALL = committee(toy_params())


def with_part(members: Committee, position: int, subset: int, part: np.ndarray) -> dict[int, dict[int, np.ndarray]]:
    """Everybody's public parts, with one of them replaced."""
    return members.parts | {position: members.parts[position] | {subset: part}}


@pytest.mark.parametrize(("n", "t"), COMMITTEES)
def test_all_members_derive_one_key(n: int, t: int) -> None:
    """Every holder of a subset derives the same public part; anybody sums up the same collective key."""
    members = committee(toy_params(n, t))
    again = ceremony.collective_key(dict(reversed(members.parts.items())), members.params, EPOCH)
    assert again.digest() == members.key.digest()
    assert [set(parts) for parts in members.parts.values()] == [set(held_subsets(p, n, t)) for p in range(n)]


def test_the_collective_key_is_the_sum_of_the_parts() -> None:
    """b is the sum of b_A, each taken once; a is the epoch's common reference."""
    parts = {i: part for published in ALL.parts.values() for i, part in published.items()}
    total = np.sum([part.astype(np.int64) for part in parts.values()], axis=0)
    assert np.array_equal(ALL.key.b, total % np.array(ALL.params.data_primes)[:, None])
    assert np.array_equal(ALL.key.a, common_reference(EPOCH, ALL.params))


def test_epoch_entropy_and_parameters_all_make_another_key() -> None:
    """Nothing of one epoch recurs in another."""
    other_epoch = ceremony.contribute(0, ALL.params, bytes(32), SecretSeed(bytes([1]) * 32))
    other_params = ceremony.contribute(0, dataclasses.replace(ALL.params, sites=9), EPOCH, SecretSeed(bytes([1]) * 32))
    other_entropy = ceremony.contribute(0, ALL.params, EPOCH)
    commitments = {ceremony.commitment(c) for c in (ALL.contributions[0], other_epoch, other_params, other_entropy)}
    assert len(commitments) == 4
    assert not np.array_equal(common_reference(EPOCH, ALL.params), common_reference(bytes(32), ALL.params))


def test_contributing_again_from_the_same_entropy_repeats_the_step() -> None:
    """A member that crashed between commitment and opening continues."""
    again = ceremony.contribute(3, ALL.params, EPOCH, SecretSeed(bytes([4]) * 32))
    assert ceremony.opening_for(again, 1) == ceremony.opening_for(ALL.contributions[3], 1)


def test_a_wrong_opening_is_named() -> None:
    """Contributions that were not committed to are refused, naming their sender."""
    honest = ALL.contributions[2]
    other = ceremony.contribute(2, ALL.params, EPOCH)
    with pytest.raises(CeremonyError, match="position 2"):
        ceremony.verify_opening(
            ceremony.opening_for(other, 0),
            sender=2,
            holder=0,
            committed=ceremony.commitment(honest),
            epoch_id=EPOCH,
            params=ALL.params,
        )


def test_an_opening_meant_for_another_holder_is_refused() -> None:
    """A member cannot be given somebody else's opening."""
    with pytest.raises(CeremonyError, match="position 2"):
        ceremony.verify_opening(
            ceremony.opening_for(ALL.contributions[2], 1),
            sender=2, holder=0, committed=ceremony.commitment(ALL.contributions[2]), epoch_id=EPOCH, params=ALL.params,
        )  # fmt: skip


def test_an_opening_gives_only_what_its_holder_may_hold() -> None:
    """No contribution to a subset that the holder is in leaves the sender."""
    opening = ceremony.opening_for(ALL.contributions[2], 0)
    withheld = set(held_subsets(2, 5, 3)) - set(held_subsets(0, 5, 3))
    assert withheld
    assert all(ALL.contributions[2].seed_for(i).secret_bytes() not in opening for i in withheld)


def test_a_missing_opening_is_named() -> None:
    """A share needs all members' contributions."""
    openings = {p: o for p, o in ALL.openings[0].items() if p != 3}
    with pytest.raises(CeremonyError, match=r"\[3\]"):
        ceremony.derive_share(0, openings, ALL.params, EPOCH)


@pytest.mark.parametrize("checker", range(5))
def test_a_rogue_public_part_is_named_by_every_member(checker: int) -> None:
    """Whether or not it holds the subset itself, a member finds out whose b_A differs."""
    culprit, subset = 1, held_subsets(1, 5, 3)[0]
    rogue = ALL.parts[culprit][subset].copy()
    rogue[0, 0] ^= 1
    parts = with_part(ALL, culprit, subset, rogue)
    if checker != culprit:
        assert set(ceremony.contradicting_members(ALL.shares[checker], parts, ALL.openings[checker], ALL.params)) == {culprit}
    with pytest.raises(CeremonyError, match="different parts"):
        ceremony.collective_key(parts, ALL.params, EPOCH)


def test_the_last_publisher_cannot_choose_the_key_of_n_of_n() -> None:
    """Rogue key: minus the others' parts plus its own. With one holder a subset, the commitment to the part exposes it."""
    members = committee(toy_params(2, 2))
    own, theirs = held_subsets(1, 2, 2)[0], held_subsets(0, 2, 2)[0]
    primes = np.array(members.params.data_primes)[:, None]
    rogue = (members.parts[1][own].astype(np.int64) - members.parts[0][theirs]) % primes
    parts = with_part(members, 1, own, rogue.astype(np.uint32))
    faults = ceremony.contradicting_members(members.shares[0], parts, members.openings[0], members.params)
    assert faults == {1: "subset 0 is not the part it committed to"}


@pytest.mark.parametrize("published", [{}, {99: None}])
def test_publishing_other_subsets_than_held_is_named(published: dict[int, None]) -> None:
    """Missing or surplus parts are a fault."""
    parts = ALL.parts | {4: ALL.parts[4] | published if published else {}}
    faults = ceremony.contradicting_members(ALL.shares[0], parts, ALL.openings[0], ALL.params)  # type: ignore[arg-type]
    assert faults == {4: "published other subsets than it holds"}


def test_an_unpublished_subset_makes_no_key() -> None:
    """Without all holders of a subset there is no collective key."""
    parts = {p: published for p, published in ALL.parts.items() if p < 2}
    with pytest.raises(CeremonyError, match="no committee member"):
        ceremony.collective_key(parts, ALL.params, EPOCH)


def test_a_position_outside_the_committee_is_refused() -> None:
    """Positions are 0..n-1."""
    with pytest.raises(CeremonyError, match="position 5"):
        ceremony.contribute(5, ALL.params, EPOCH)


def test_secrets_neither_print_nor_pickle() -> None:
    """Shares, contributions and openings are redacted and bound to their process."""
    secrets = [ALL.shares[0], ALL.contributions[0], ALL.openings[0][1], ALL.shares[0].keys[held_subsets(0, 5, 3)[0]]]
    assert all("redacted" in repr(secret) for secret in secrets)
    for secret in secrets:
        with pytest.raises(TypeError):
            pickle.dumps(secret)


def test_a_key_share_survives_its_file() -> None:
    """Reading secret_bytes back gives the same public parts."""
    share = KeyShare.from_secret_bytes(ALL.shares[3].secret_bytes(), ALL.params)
    assert (share.position, share.epoch_id) == (3, EPOCH)
    assert all(np.array_equal(part, ALL.parts[3][i]) for i, part in ceremony.public_parts(share).items())


def test_a_key_share_of_other_parameters_is_refused() -> None:
    """A share is bound to the parameters it was made under."""
    with pytest.raises(KeysError, match="other security parameters"):
        KeyShare.from_secret_bytes(ALL.shares[3].secret_bytes(), dataclasses.replace(ALL.params, sites=9))


def test_an_epoch_id_has_32_bytes() -> None:
    """Anything else names no epoch."""
    with pytest.raises(KeysError, match="32 bytes, got 3"):
        common_reference(b"abc", ALL.params)


def test_received_is_what_was_contributed() -> None:
    """An honest opening carries the contributor's hashes and seeds."""
    opening = received(ALL.contributions[4], 0)
    common = sorted(set(held_subsets(4, 5, 3)) & set(held_subsets(0, 5, 3)))
    assert opening.hashes == ALL.contributions[4].hashes
    assert [opening.seed_for(i).secret_bytes() for i in common] == [
        ALL.contributions[4].seed_for(i).secret_bytes() for i in common
    ]
