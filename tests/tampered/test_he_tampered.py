"""Bytes that were altered, cut, padded or forged: every parser refuses them with its own error and never crashes."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahefl_flwr.errors import CeremonyError, KeysError, MalformedCiphertext
from bahefl_flwr.he import ceremony, seal_format
from bahefl_flwr.he.ckks import encrypt
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.params import DATA_PRIMES
from bahefl_flwr.he.seal_format import PartKind, decode_part, encode_part
from he_committee import EPOCH, committee, real_params, toy_params

ALL = committee(toy_params(degree=16))
PARAMS = ALL.params
CIPHERTEXT = encrypt(np.arange(32).reshape(2, 16), ALL.key, PARAMS)
PART = encode_part(CIPHERTEXT, PartKind.CIPHERTEXT, PARAMS)
HEADER = 28
OPENING = ceremony.opening_for(ALL.contributions[1], 0)
COMMITTED = ceremony.commitment(ALL.contributions[1])
SHARE = ALL.shares[0].secret_bytes()
VECTOR = seal_format.build_vector(CIPHERTEXT, 1024.0, (4, 3), PARAMS)

edits = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4)
cuts = st.integers(0, 10**6)


def altered(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    """`data` with bytes changed; never equal to it."""
    out = bytearray(data)
    for at, mask in {at % len(data): mask for at, mask in changes}.items():  # one change a byte: two could cancel
        out[at] ^= mask
    return bytes(out)


def parse(data: bytes, max_blocks: int = 10) -> np.ndarray:
    """The parser under attack."""
    return decode_part(data, PartKind.CIPHERTEXT, PARAMS, max_blocks)


def test_check_1_too_short_for_a_header() -> None:
    """Check 1: a header's worth of bytes."""
    with pytest.raises(MalformedCiphertext, match="header of 28 bytes, got 27"):
        parse(PART[:27])


@pytest.mark.parametrize("blocks", [0, 11, 2**31, 2**32 - 1])
def test_check_1_block_count_out_of_bounds(blocks: int) -> None:
    """Check 1: the claimed size is bounded before it is believed."""
    with pytest.raises(MalformedCiphertext, match=f"claims {blocks} blocks"):
        parse(PART[:12] + struct.pack("<I", blocks) + PART[16:])


@pytest.mark.parametrize(
    ("at", "name"), [(0, "magic"), (4, "version"), (5, "kind"), (6, "primes"), (7, "zero"), (8, "degree"), (16, "prime")]
)
def test_check_2_another_header(at: int, name: str) -> None:
    """Check 2: every byte of the header is fixed by the parameters."""
    with pytest.raises(MalformedCiphertext, match="header is"):
        parse(altered(PART, [(at, 1)]))


def test_check_2_another_kind() -> None:
    """Check 2: a decryption share is no ciphertext."""
    with pytest.raises(MalformedCiphertext, match="no ciphertext"):
        parse(encode_part(CIPHERTEXT[:, 0], PartKind.SHARE, PARAMS))


@pytest.mark.parametrize("data", [PART[:-1], PART + b"\0", PART[:HEADER]])
def test_check_3_another_length(data: bytes) -> None:
    """Check 3: exactly the blocks that the header names."""
    with pytest.raises(MalformedCiphertext, match=r"2 blocks has \d+ bytes"):
        parse(data)


@pytest.mark.parametrize("prime", range(3))
@pytest.mark.parametrize("excess", [0, 1, 2**31])
def test_check_4_a_residue_beyond_its_prime(prime: int, excess: int) -> None:
    """Check 4: residues are canonical, in both polynomials."""
    forged = CIPHERTEXT.copy()
    forged[1, 1, prime, 3] = DATA_PRIMES[prime] + excess
    with pytest.raises(MalformedCiphertext, match=f"residue >= its prime {DATA_PRIMES[prime]}"):
        parse(encode_part(forged, PartKind.CIPHERTEXT, PARAMS))


def test_check_5_a_transparent_block() -> None:
    """Check 5: a block with c1 = 0 is not encrypted."""
    forged = CIPHERTEXT.copy()
    forged[1, 1] = 0
    with pytest.raises(MalformedCiphertext, match="c1 = 0"):
        parse(encode_part(forged, PartKind.CIPHERTEXT, PARAMS))


def test_a_part_of_other_parameters_is_refused() -> None:
    """A toy ciphertext is no real one."""
    with pytest.raises(MalformedCiphertext, match="header is"):
        decode_part(PART, PartKind.CIPHERTEXT, real_params())


@given(changes=edits)
def test_a_mutated_part_is_refused_or_canonical(changes: list[tuple[int, int]]) -> None:
    """Whatever is accepted encodes to exactly the bytes that came: there is one form only."""
    data = altered(PART, changes)
    try:
        residues = parse(data)
    except MalformedCiphertext:
        return
    assert encode_part(residues, PartKind.CIPHERTEXT, PARAMS) == data


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_no_part(data: bytes) -> None:
    """Noise is refused, with the one error."""
    with pytest.raises(MalformedCiphertext):
        parse(data)


@given(cut=cuts)
def test_a_cut_part_is_refused(cut: int) -> None:
    """No proper prefix of a part is a part."""
    with pytest.raises(MalformedCiphertext):
        parse(PART[: cut % len(PART)])


@given(changes=edits)
def test_a_mutated_opening_names_its_sender(changes: list[tuple[int, int]]) -> None:
    """Every byte of an opening is covered by the commitment."""
    with pytest.raises(CeremonyError, match="position 1"):
        ceremony.verify_opening(altered(OPENING, changes), sender=1, holder=0, committed=COMMITTED, epoch_id=EPOCH, params=PARAMS)


@given(data=st.binary(max_size=len(OPENING) + 10))
def test_arbitrary_bytes_are_no_opening(data: bytes) -> None:
    """Noise is refused, naming who sent it."""
    with pytest.raises(CeremonyError, match="position 1"):
        ceremony.verify_opening(data, sender=1, holder=0, committed=COMMITTED, epoch_id=EPOCH, params=PARAMS)


@given(cut=cuts)
def test_a_cut_key_share_is_refused(cut: int) -> None:
    """A torn file is an error with advice, not a wrong key."""
    with pytest.raises(KeysError):
        KeyShare.from_secret_bytes(SHARE[: cut % len(SHARE)], PARAMS)


@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_no_key_share(data: bytes) -> None:
    """Noise is refused."""
    with pytest.raises(KeysError):
        KeyShare.from_secret_bytes(data, PARAMS)


@given(changes=edits)
def test_an_altered_key_share_is_refused(changes: list[tuple[int, int]]) -> None:
    """A damaged seed would make shares that spoil an opening: the file's checksum finds it first."""
    with pytest.raises(KeysError):
        KeyShare.from_secret_bytes(altered(SHARE, changes), PARAMS)


@given(changes=edits, cut=st.none() | cuts)
def test_the_parser_of_tenseals_bytes_never_crashes(changes: list[tuple[int, int]], cut: int | None) -> None:
    """Altered or cut TenSEAL bytes are refused with the one error, or have canonical residues."""
    data = altered(VECTOR, changes)
    try:
        residues = seal_format.parse_vector(data if cut is None else data[: cut % len(data)], 2, PARAMS)
    except MalformedCiphertext:
        return
    assert residues.shape == CIPHERTEXT.shape


@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_are_no_tenseal_vector(data: bytes) -> None:
    """Noise is refused."""
    with pytest.raises(MalformedCiphertext):
        seal_format.parse_vector(data, 2, PARAMS)
