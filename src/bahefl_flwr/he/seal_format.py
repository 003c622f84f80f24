"""Byte formats of residues: our own container "BAHC", and the subset of SEAL's and TenSEAL's formats that `ckks` speaks.

Bytes from peers are parsed here, in Python, and only ever as BAHC; TenSEAL, which crashes on malformed input, reads nothing but
what `build_vector` wrote. No arithmetic on residues lives here.
"""

from __future__ import annotations

import hashlib
import math
import struct
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bahefl_flwr.errors import MalformedCiphertext
from bahefl_flwr.he.params import SecurityParams

BLOCKS_PER_PART: Final = 10  # 983,040 bytes and the header: below the store's limit of 1 MiB a part

_MAGIC: Final = b"BAHC"
_PREFIX: Final = struct.Struct("<4sBBBBII")  # magic, version, kind, primes, 0, ring degree, blocks

_SEAL_MAGIC: Final = 0xA15E
_SEAL_HEADER: Final = struct.Struct("<HBBBBHQ")  # magic, header size, major, minor, compression, 0, size with header
_SEAL_CKKS: Final = 2
_SEAL_ZSTD: Final = 2
_CIPHERTEXT: Final = struct.Struct("<32sBQQQdQ")  # parms id, NTT form, polynomials, degree, primes, scale, correction factor


class PartKind(IntEnum):
    """What residues a part carries: (blocks, 2, primes, N) for ciphertexts, (blocks, primes, N) for the others."""

    CIPHERTEXT = 1
    SHARE = 2
    KEY = 3


def encode_part(residues: NDArray[np.uint32], kind: PartKind, params: SecurityParams) -> bytes:
    """Container of a part.

    Args:
      residues: shape (blocks, 2, primes, N) for ciphertexts, (blocks, primes, N) otherwise.

    Raises:
      MalformedCiphertext: the array is not of that form; a caller's mistake.
    """
    shape = _shape(len(residues), kind, params)
    if residues.dtype != np.uint32 or residues.shape != shape or not len(residues):
        raise MalformedCiphertext(f"a {kind.name.lower()} part is uint32{shape}, got {residues.dtype}{residues.shape}")
    return _header(len(residues), kind, params) + np.ascontiguousarray(residues, dtype="<u4").tobytes()


def decode_part(data: bytes, kind: PartKind, params: SecurityParams, max_blocks: int = BLOCKS_PER_PART) -> NDArray[np.uint32]:
    """Strictly parse a part that came from a peer.

    Checks, in this order:
      1. it is long enough for a header, and its block count is 1..max_blocks;
      2. its header is, byte for byte, the one these parameters give for that count;
      3. its length is exactly that of its blocks;
      4. every residue is below its prime;
      5. no block of a ciphertext has c1 = 0: such a "ciphertext" is a plaintext in the open.

    Returns:
      Read-only view into `data`; nothing of its size is allocated before check 3 has passed.

    Raises:
      MalformedCiphertext: naming the first check that failed.
    """
    blocks = _claimed_blocks(data, max_blocks, params)  # 1
    header = _header(blocks, kind, params)
    if data[: len(header)] != header:  # 2
        raise MalformedCiphertext(
            f"the part's header is {data[: len(header)].hex()}, expected {header.hex()}: its sender has another version, "
            f"other security parameters, or sent something that is no {kind.name.lower()}"
        )
    shape = _shape(blocks, kind, params)
    expected = len(header) + 4 * math.prod(shape)
    if len(data) != expected:  # 3
        raise MalformedCiphertext(f"a part of {blocks} blocks has {expected} bytes, got {len(data)}: fetch it again")
    residues = np.frombuffer(data, dtype="<u4", offset=len(header)).reshape(shape)
    for l, q in enumerate(params.data_primes):  # 4
        if int(residues[..., l, :].max()) >= q:
            raise MalformedCiphertext(
                f"the part has a residue >= its prime {q}: no honest encoder writes that; exclude its sender"
            )
    if kind is PartKind.CIPHERTEXT and not residues[:, 1].any(axis=(1, 2)).all():  # 5
        raise MalformedCiphertext("a block of the part has c1 = 0 and is not encrypted at all: exclude its sender")
    return residues


def _claimed_blocks(data: bytes, max_blocks: int, params: SecurityParams) -> int:
    least = _PREFIX.size + 4 * len(params.data_primes)
    if len(data) < least:
        raise MalformedCiphertext(f"a part has a header of {least} bytes, got {len(data)} bytes in all: fetch it again")
    blocks = int(_PREFIX.unpack_from(data)[-1])
    if not 1 <= blocks <= max_blocks:
        raise MalformedCiphertext(f"the part claims {blocks} blocks, allowed are 1 to {max_blocks}: its sender has another model")
    return blocks


def _header(blocks: int, kind: PartKind, params: SecurityParams) -> bytes:
    primes = params.data_primes
    prefix = _PREFIX.pack(_MAGIC, params.wire_version, kind, len(primes), 0, params.ring_degree, blocks)
    return prefix + struct.pack(f"<{len(primes)}I", *primes)


def _shape(blocks: int, kind: PartKind, params: SecurityParams) -> tuple[int, ...]:
    tail = (len(params.data_primes), params.ring_degree)
    return (blocks, 2, *tail) if kind is PartKind.CIPHERTEXT else (blocks, *tail)


def build_context(scale: float, version: tuple[int, int], params: SecurityParams) -> bytes:
    """A serialized TenSEAL context: SEAL encryption parameters and the scale, no key.

    Source: TenSEALContextProto and EncryptionParameters::save_members of SEAL 4.
    """
    moduli = (*params.data_primes, params.special_prime, 0)  # the last is the plain modulus, absent in CKKS
    body = struct.pack("<BQQ", _SEAL_CKKS, params.ring_degree, len(moduli) - 1)
    body += b"".join(_seal_object(struct.pack("<Q", q), version) for q in moduli)
    return _field(1, _seal_object(body, version)) + _field(2, _double(3, scale))


def build_vector(ciphertexts: NDArray[np.uint32], scale: float, version: tuple[int, int], params: SecurityParams) -> bytes:
    """A serialized TenSEAL CKKSVector, one chunk a block, uncompressed.

    Args:
      ciphertexts: shape (blocks, 2, primes, N), already checked.
      scale: of every chunk and of the vector.
      version: SEAL's, which refuses any other.
    """
    blocks, polynomials, primes, degree = ciphertexts.shape
    head = _CIPHERTEXT.pack(parms_id(degree, params.data_primes), 1, polynomials, degree, primes, scale, 1)
    count = polynomials * primes * degree
    array_head = _seal_header(_SEAL_HEADER.size + 8 + 8 * count, version) + struct.pack("<Q", count)
    head = _seal_header(_SEAL_HEADER.size + len(head) + len(array_head) + 8 * count, version) + head + array_head
    opening = _varint(2 << 3 | 2) + _varint(len(head) + 8 * count) + head
    chunks = np.empty(blocks, dtype=[("head", f"V{len(opening)}"), ("residues", "<u8", ciphertexts.shape[1:])])
    chunks["head"] = np.void(opening)
    chunks["residues"] = ciphertexts
    return b"".join([_field(1, _varint(degree // 2) * blocks), chunks.data, _double(3, scale)])


def parse_vector(data: bytes, blocks: int, params: SecurityParams) -> NDArray[np.uint32]:
    """Residues of a CKKSVector that TenSEAL serialized in this process.

    Returns:
      Shape (blocks, 2, primes, N).

    Raises:
      MalformedCiphertext: TenSEAL's form is not the expected one; another TenSEAL version, most likely.
    """
    shape = _shape(blocks, PartKind.CIPHERTEXT, params)
    out = np.empty(shape, dtype=np.uint32)
    chunks = [value for number, value in _fields(data) if number == 2]
    if len(chunks) != blocks:
        raise MalformedCiphertext(f"TenSEAL returned {len(chunks)} chunks for {blocks} blocks: is its version supported?")
    for block, chunk in zip(out, chunks, strict=True):
        block[...] = _parse_ciphertext(chunk, shape[1:], params)
    return out


def parms_id(degree: int, moduli: tuple[int, ...]) -> bytes:
    """SEAL's identifier of a level: BLAKE2b over scheme, degree and moduli (the plain modulus is 0)."""
    words = (_SEAL_CKKS, degree, *moduli, 0)
    return hashlib.blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=32).digest()


def _parse_ciphertext(chunk: bytes, shape: tuple[int, ...], params: SecurityParams) -> NDArray[Any]:
    at = _CIPHERTEXT.size + _SEAL_HEADER.size + 8
    body = _seal_body(chunk, at + 8 * math.prod(shape))
    level = parms_id(params.ring_degree, params.data_primes)
    if len(body) == at + 8 * math.prod(shape) and _CIPHERTEXT.unpack_from(body)[:5] == (level, 1, *_seal_order(shape)):
        residues = np.frombuffer(body, dtype="<u8", offset=at).reshape(shape)
        if all(int(residues[:, l].max()) < q for l, q in enumerate(params.data_primes)):
            return residues
    raise MalformedCiphertext(
        f"TenSEAL returned a chunk of {len(body)} bytes that is not of our level: is its version supported?"
    )


def _seal_order(shape: tuple[int, ...]) -> tuple[int, int, int]:
    polynomials, primes, degree = shape
    return polynomials, degree, primes


def _seal_header(size: int, version: tuple[int, int]) -> bytes:
    return _SEAL_HEADER.pack(_SEAL_MAGIC, _SEAL_HEADER.size, *version, 0, 0, size)


def _seal_object(body: bytes, version: tuple[int, int]) -> bytes:
    return _seal_header(_SEAL_HEADER.size + len(body), version) + body


def _seal_body(data: bytes, most: int) -> bytes:
    """What follows a SEAL header, decompressed to at most `most` bytes."""
    if len(data) < _SEAL_HEADER.size:
        raise MalformedCiphertext(f"TenSEAL returned a chunk of {len(data)} bytes: is its version supported?")
    if _SEAL_HEADER.unpack_from(data)[4] != _SEAL_ZSTD:
        return data[_SEAL_HEADER.size :]
    # Imported here: needed with TenSEAL only, which compresses whatever it serializes.
    import zstandard

    frame = data[_SEAL_HEADER.size :]
    try:
        # A frame that names its size makes zstandard allocate it, whatever `max_output_size` says.
        named = zstandard.get_frame_parameters(frame).content_size
        if named not in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR) and named > most:
            raise MalformedCiphertext(f"TenSEAL's compressed residues claim {named} bytes: is its version supported?")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=most)
    except zstandard.ZstdError as error:
        raise MalformedCiphertext(f"TenSEAL's compressed residues are damaged ({error}): is its version supported?") from None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise MalformedCiphertext("TenSEAL's message ends within a number: is its version supported?")
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """Fields of a protobuf message: numbers, and contents of the length-delimited and 64-bit ones."""
    fields = []
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == 2:
            size, at = _read_varint(data, at)
        elif kind == 1:
            size = 8
        else:
            raise MalformedCiphertext(f"TenSEAL's message has a field of wire type {kind}: is its version supported?")
        if at + size > len(data):
            raise MalformedCiphertext("TenSEAL's message is cut short: is its version supported?")
        fields.append((key >> 3, data[at : at + size]))
        at += size
    return fields
