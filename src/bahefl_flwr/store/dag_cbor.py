"""The few DAG-CBOR types a manifest is made of, and the CIDs that name objects.

Strict both ways: every value has one encoding, and the decoder refuses every other one. Nothing about manifests lives here.
Source: the IPLD DAG-CBOR specification (shortest integers, map keys sorted by length then bytes, links as tag 42).
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

RAW = 0x55
DAG_CBOR = 0x71
SHA2_256 = 0x12
DIGEST_BYTES = 32

_UINT, _BYTES, _TEXT, _LIST, _MAP, _TAG = 0, 2, 3, 4, 5, 6
_LINK_HEAD = b"\xd8\x2a\x58\x25\x00"  # tag 42, byte string of 37, multibase identity prefix
_MAX_DEPTH = 4
_CID_TEXT = re.compile(r"b[a-z2-7]{58}")  # 36 bytes
_WIDTHS = ((24, 1, ">B"), (25, 2, ">H"), (26, 4, ">I"), (27, 8, ">Q"))

Value: TypeAlias = "int | bytes | str | Link | Sequence[Value] | Mapping[str, Value]"


class CborError(ValueError):
    """Bytes that are not the one encoding of a value of this subset. Stays inside the store: callers name the object."""


@dataclass(frozen=True, slots=True)
class Link:
    """A CIDv1 with a SHA-256 multihash.

    Attributes:
      codec: `RAW` for a part, `DAG_CBOR` for a manifest.
      digest: SHA-256 of the object, 32 bytes.
    """

    codec: int
    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Inverse of `str`.

        Raises:
          CborError: not the one text form of a CIDv1 with SHA-256, codec raw or dag-cbor.
        """
        if _CID_TEXT.fullmatch(text) is None:
            raise CborError(f"{text[:80]!r} is not a CIDv1 in lower-case base32")
        binary = base64.b32decode(text[1:].upper() + "=" * 6)
        link = cls(binary[1], binary[4:])
        if link.codec not in (RAW, DAG_CBOR) or str(link) != text:
            raise CborError(f"{text} is not a CIDv1 with SHA-256, raw or dag-cbor")
        return link

    @property
    def binary(self) -> bytes:
        """The 36 bytes of the CID: version, codec, hash function, hash length, digest."""
        return bytes((1, self.codec, SHA2_256, DIGEST_BYTES)) + self.digest

    def __str__(self) -> str:
        """Text form as every IPFS tool prints it: multibase base32, e.g. `bafyrei...`."""
        return "b" + base64.b32encode(self.binary).decode("ascii").lower().rstrip("=")


def encode(value: Value) -> bytes:
    """The one encoding of `value`. Integers must be within 0..2**64-1."""
    match value:
        case bool():
            raise TypeError("booleans are not part of a manifest")
        case int():
            return _head(_UINT, value)
        case bytes():
            return _head(_BYTES, len(value)) + value
        case str():
            text = value.encode("utf-8")
            return _head(_TEXT, len(text)) + text
        case Link():
            return _LINK_HEAD + value.binary
        case Mapping():
            entries = sorted((encode(key), encode(item)) for key, item in value.items())
            return _head(_MAP, len(entries)) + b"".join(key + item for key, item in entries)
        case Sequence():
            return _head(_LIST, len(value)) + b"".join(map(encode, value))
    raise TypeError(f"{type(value).__name__} is not part of a manifest")


def decode(data: bytes) -> Value:
    """Inverse of `encode`. Memory stays in proportion to `data`, whatever lengths it claims.

    Raises:
      CborError: anything but the exact bytes that `encode` makes of some value.
    """
    reader = _Reader(data)
    value = reader.value(_MAX_DEPTH)
    if reader.at != len(data):
        raise CborError(f"{len(data) - reader.at} bytes follow the end of the value")
    return value


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return struct.pack(">B", major << 5 | argument)
    for info, width, layout in _WIDTHS:
        if argument < 1 << 8 * width:
            return bytes((major << 5 | info,)) + struct.pack(layout, argument)
    raise OverflowError(f"{argument} does not fit in 64 bits")


class _Reader:
    """A cursor over untrusted bytes; every read is bounded by what is really there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def value(self, depth: int) -> Value:
        """The next value, nested at most `depth` deep. This and the others: CborError if the bytes are not canonical."""
        if depth == 0:
            raise CborError("nested too deep")
        if self.data.startswith(_LINK_HEAD, self.at):
            return self.link()
        major, argument = self.head()
        match major:
            case 0:
                return argument
            case 2:
                return self.take(argument)
            case 3:
                return self.text(argument)
            case 4:
                return [self.value(depth - 1) for _ in range(self.count(argument))]
            case 5:
                return self.mapping(self.count(argument), depth - 1)
        raise CborError(f"type {major} at byte {self.at} is not part of a manifest")

    def head(self) -> tuple[int, int]:
        """Major type and argument, which must be in its shortest form."""
        start = self.at
        first = self.take(1)[0]
        major, argument = first >> 5, first & 31
        for info, width, layout in _WIDTHS:
            if argument == info:
                argument = struct.unpack(layout, self.take(width))[0]
                break
        if _head(major, argument) != self.data[start : self.at]:
            raise CborError(f"length at byte {start} is not in its shortest form")
        return major, argument

    def take(self, size: int) -> bytes:
        """The next `size` bytes, if there are so many."""
        if size > len(self.data) - self.at:
            raise CborError(f"{size} bytes announced at byte {self.at}, {len(self.data) - self.at} left")
        self.at += size
        return self.data[self.at - size : self.at]

    def count(self, announced: int) -> int:
        """The number itself, if it can be true: every item takes a byte at least, and nobody loops over a lie."""
        if announced > len(self.data) - self.at:
            raise CborError(f"{announced} items announced at byte {self.at}, {len(self.data) - self.at} bytes left")
        return announced

    def text(self, size: int) -> str:
        """`size` bytes of UTF-8."""
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CborError(f"text at byte {self.at} is not UTF-8") from error

    def link(self) -> Link:
        """A CIDv1 with SHA-256, of raw bytes or DAG-CBOR: no other kind is in use."""
        self.take(len(_LINK_HEAD))
        version, codec, function, length = self.take(4)
        if version != 1 or codec not in (RAW, DAG_CBOR) or function != SHA2_256 or length != DIGEST_BYTES:
            raise CborError(f"link at byte {self.at} is not a CIDv1 with SHA-256")
        return Link(codec, self.take(DIGEST_BYTES))

    def mapping(self, size: int, depth: int) -> dict[str, Value]:
        """`size` entries, their keys text in canonical order, so that none comes twice."""
        entries: dict[str, Value] = {}
        previous = b""
        for _ in range(size):
            start = self.at
            key = self.value(1)
            encoded = self.data[start : self.at]
            if not isinstance(key, str) or encoded <= previous:
                raise CborError(f"map key at byte {start} is not text, or out of order")
            previous = encoded
            entries[key] = self.value(depth)
        return entries
