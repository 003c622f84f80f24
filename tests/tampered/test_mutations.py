"""A hundred and eighty thousand mutated inputs over every parser of bytes that travel or lie on disk (slow suite).

A parser answers with a value in its one form or with its own error; it never crashes, and never takes more than twice the memory
that the honest input is, or takes to read.
"""

import random
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bahefl_flwr.errors import BaheflError, CeremonyError, KeysError, MalformedCiphertext, ObjectCorrupt, SealError, ShareError
from bahefl_flwr.he import ceremony, seal_format
from bahefl_flwr.he.ckks import encrypt
from bahefl_flwr.he.keys import KeyShare
from bahefl_flwr.he.proof_format import decode_proof, encode_proof
from bahefl_flwr.he.seal_format import PartKind, decode_part, encode_part
from bahefl_flwr.he.share_format import decode_share, encode_share
from bahefl_flwr.he.sketch import decode_sketch_share, encode_sketch_share, open_sketches, sketch_plan
from bahefl_flwr.he.update_proof import encrypt_with_proof
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.sealing import seal, unseal
from bahefl_flwr.store.manifest import Manifest, PartRef
from he_committee import EPOCH, committee, toy_params

INPUTS = 15_000
# Small objects: an error with its message and traceback is larger than they are.
LEAST_BYTES = 8192

ALL = committee(toy_params(7, 4, degree=256))
PARAMS = ALL.params
CIPHERTEXT = encrypt(np.arange(4 * 256).reshape(4, 256) << 30, ALL.key, PARAMS)
QUORUM = (0, 1, 2, 3)
SKETCH = sketch_plan(bytes(32), 1, 64, PARAMS)
COMMITTED = ceremony.commitment(ALL.contributions[1])
SITE, SEALING_KEY = "0x" + "11" * 20, X25519PrivateKey.from_private_bytes(bytes(range(32)))
REFS = tuple(PartRef(digest=bytes([k]) * 32, size_bytes=k + 1) for k in range(90))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """A parser under attack: an honest input, what reads it, its error, and what writes the value back if there is one form."""

    honest: bytes
    read: Callable[[bytes], object]
    error: type[BaheflError]
    write: Callable[..., bytes] | None = None


def part(kind: PartKind, residues: np.ndarray) -> Parser:
    """Of one kind of BAHC part."""
    return Parser(
        honest=encode_part(residues, kind, PARAMS),
        read=lambda data: decode_part(data, kind, PARAMS),
        error=MalformedCiphertext,
        write=lambda value: encode_part(value, kind, PARAMS),
    )


def compressed(vector: bytes) -> bytes:
    """A TenSEAL vector whose chunks are compressed, as TenSEAL makes them."""
    out = b""
    for number, value in seal_format._fields(vector):
        body = value
        if number == 2:
            packed = zstandard.ZstdCompressor().compress(value[16:])
            body = value[:5] + b"\x02" + value[6:8] + struct.pack("<Q", 16 + len(packed)) + packed
        out += seal_format._field(number, body) if number != 3 else seal_format._double(3, 1024.0)
    return out


VECTOR = seal_format.build_vector(CIPHERTEXT, 1024.0, (4, 3), PARAMS)
PARSERS = {
    "ciphertext part": part(PartKind.CIPHERTEXT, CIPHERTEXT),
    "share residues": part(PartKind.SHARE, CIPHERTEXT[:, 0]),
    "key part": part(PartKind.KEY, CIPHERTEXT[:, 0]),
    "decryption share": Parser(
        honest=encode_share(ALL.share_of(CIPHERTEXT[:, 1], 1, QUORUM), PARAMS),
        read=lambda data: decode_share(data, 1, QUORUM, PARAMS),
        error=ShareError,
        write=lambda value: encode_share(value, PARAMS),
    ),
    "update proof": Parser(
        honest=encrypt_with_proof(np.arange(256)[None], ALL.key, PARAMS, b"context")[1],
        read=lambda data: decode_proof(data, PARAMS),
        error=MalformedCiphertext,
        write=lambda value: encode_proof(value, PARAMS),
    ),
    "sketch share": Parser(
        honest=encode_sketch_share(open_sketches(CIPHERTEXT[:, 1], SKETCH, ALL.shares[1], QUORUM), range(4), PARAMS),
        read=lambda data: decode_sketch_share(data, 1, QUORUM, 64, PARAMS),
        error=ShareError,
        write=lambda value: encode_sketch_share(value[1], value[0], PARAMS),
    ),
    "opening": Parser(
        honest=ceremony.opening_for(ALL.contributions[1], 0),
        read=lambda data: ceremony.verify_opening(data, sender=1, holder=0, committed=COMMITTED, epoch_id=EPOCH, params=PARAMS),
        error=CeremonyError,
    ),
    "key share": Parser(
        honest=ALL.shares[0].secret_bytes(),
        read=lambda data: KeyShare.from_secret_bytes(data, PARAMS),
        error=KeysError,
        write=lambda value: value.secret_bytes(),
    ),
    "TenSEAL vector": Parser(
        honest=VECTOR, read=lambda data: seal_format.parse_vector(data, 4, PARAMS), error=MalformedCiphertext
    ),
    "compressed TenSEAL vector": Parser(
        honest=compressed(VECTOR), read=lambda data: seal_format.parse_vector(data, 4, PARAMS), error=MalformedCiphertext
    ),
    "manifest": Parser(
        honest=Manifest(run=bytes(32), round=3, site=SITE, epoch=1, kind=ObjectKind.UPDATE, parts=REFS).encode(),
        read=Manifest.decode,
        error=ObjectCorrupt,
        write=lambda value: value.encode(),
    ),
    "sealed object": Parser(
        honest=seal(bytes(10_000), {SITE: SEALING_KEY.public_key().public_bytes_raw()}, b"context"),
        read=lambda data: unseal(data, SITE, SEALING_KEY, b"context"),
        error=SealError,
    ),
}


def mutated(honest: bytes, rng: random.Random) -> bytes:
    """One to three changes, every other one near the beginning, where the lengths are; never equal to `honest`."""
    data = honest
    while data == honest:
        for _ in range(rng.randint(1, 3)):
            data = rng.choice(CHANGES)(data, rng)
    return data


def place(data: bytes, rng: random.Random) -> int:
    """An index into `data`."""
    return rng.randrange(1 + min(len(data), rng.choice([64, len(data)])))


def flip(data: bytes, rng: random.Random) -> bytes:
    """Some bits of one byte."""
    at = place(data, rng)
    return data[:at] + bytes(b ^ rng.randint(1, 255) for b in data[at : at + 1]) + data[at + 1 :]


def extreme(data: bytes, rng: random.Random) -> bytes:
    """A word of 1 to 8 bytes as numbers at the ends of their ranges have it."""
    at, size = place(data, rng), rng.choice([1, 2, 4, 8])
    word = rng.choice([bytes(size), b"\xff" * size, b"\xff" * (size - 1) + b"\x7f", b"\x80" * size, b"\x01" + bytes(size - 1)])
    return data[:at] + word + data[at + size :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """A prefix."""
    return data[: place(data, rng)]


def grow(data: bytes, rng: random.Random) -> bytes:
    """Random bytes somewhere in between."""
    at = place(data, rng)
    return data[:at] + rng.randbytes(rng.randint(1, 40)) + data[at:]


def drop(data: bytes, rng: random.Random) -> bytes:
    """Some bytes missing."""
    at = place(data, rng)
    return data[:at] + data[at + rng.randint(1, 40) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A stretch that comes twice."""
    at = place(data, rng)
    size = rng.randint(1, 200)
    return data[: at + size] + data[at : at + size] + data[at + size :]


CHANGES = (flip, flip, flip, extreme, extreme, cut, grow, drop, repeat)


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_the_honest_input_is_read(name: str) -> None:
    """What is mutated below is something that the parser accepts."""
    parser = PARSERS[name]
    value = parser.read(parser.honest)
    assert parser.write is None or parser.write(value) == parser.honest


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PARSERS))
def test_mutated_bytes_neither_crash_nor_bloat_a_parser(name: str) -> None:
    """Its own error or its one form, within twice the memory."""
    parser, rng = PARSERS[name], random.Random(name)
    tracemalloc.start()
    try:
        room = 2 * max(len(parser.honest), peak_of(parser, parser.honest)[0], LEAST_BYTES)
        for _ in range(INPUTS):
            data = mutated(parser.honest, rng)
            peak, value = peak_of(parser, data)
            assert peak <= room
            assert value is None or parser.write is None or parser.write(value) == data
    finally:
        tracemalloc.stop()


def peak_of(parser: Parser, data: bytes) -> tuple[int, object]:
    """Bytes allocated at once while `data` was read, and the value; None for the parser's own error, all others are raised."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    try:
        value = parser.read(data)
    except parser.error:
        value = None
    return tracemalloc.get_traced_memory()[1] - before, value
