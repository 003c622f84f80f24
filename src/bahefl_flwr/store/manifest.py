"""The manifest: what a stored object is, whose, of which round, and the digests of its parts. The paper's Update_CID is its CID.

Pure: building and reading manifests in memory. Files, networks and ciphertext formats never appear here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from bahefl_flwr.errors import ObjectCorrupt, StoreError
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store.dag_cbor import DAG_CBOR, RAW, CborError, Link, Value, decode, encode

MANIFEST_VERSION = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_PART_BYTES = 1 << 20  # above 1 MiB IPFS nodes no longer exchange a block

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_KEYS = frozenset(("v", "run", "round", "site", "epoch", "kind", "parts", "sizes"))
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRef:
    """One part of an object.

    Attributes:
      digest: SHA-256 of the part's bytes, 32 bytes.
      size_bytes: 1..`MAX_PART_BYTES`.
    """

    digest: bytes
    size_bytes: int

    def __post_init__(self) -> None:
        _require(len(self.digest) == 32, f"a part digest is 32 bytes, got {len(self.digest)}")
        _require(
            0 < self.size_bytes <= MAX_PART_BYTES,
            f"a part holds 1..{MAX_PART_BYTES} bytes, got {self.size_bytes}",
        )

    @property
    def cid(self) -> str:
        """CIDv1 (raw, sha2-256) as text: the same name an IPFS node gives these bytes."""
        return part_cid(self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an object is. Its digest covers every field, so nothing can be replayed, renamed or copied (protocol rule 3).

    Attributes:
      run: digest of the run's protocol settings, 32 bytes.
      round: round of the object; 0 for the objects of a key ceremony.
      site: checksummed address of the author; of the contract where every author would write the same bytes (an aggregate).
      epoch: key epoch, 0..2**64-1.
      kind: what the parts hold.
      parts: at least one, in order.
      version: format of the manifest.

    Raises:
      StoreError: a field is out of its range.
    """

    run: bytes
    round: int
    site: str
    epoch: int
    kind: ObjectKind
    parts: tuple[PartRef, ...]
    version: int = MANIFEST_VERSION

    def __post_init__(self) -> None:
        _require(self.version == MANIFEST_VERSION, f"manifest version {self.version}, this release reads {MANIFEST_VERSION}")
        _require(len(self.run) == 32, f"a run digest is 32 bytes, got {len(self.run)}")
        _require(0 <= self.round < 1 << 64, f"round {self.round} is not within 0..2**64-1")
        _require(0 <= self.epoch < 1 << 64, f"epoch {self.epoch} is not within 0..2**64-1")
        _require(_ADDRESS.fullmatch(self.site) is not None, f"{self.site!r} is not an address")
        _require(len(self.parts) > 0, "an object has at least one part")

    def encode(self) -> bytes:
        """The one DAG-CBOR encoding; at most `MAX_MANIFEST_BYTES` (about 22,000 parts), else StoreError."""
        encoded = encode(
            {
                "v": self.version,
                "run": self.run,
                "round": self.round,
                "site": self.site,
                "epoch": self.epoch,
                "kind": self.kind.value,
                "parts": [Link(RAW, part.digest) for part in self.parts],
                "sizes": [part.size_bytes for part in self.parts],
            }
        )
        _require(len(encoded) <= MAX_MANIFEST_BYTES, f"{len(self.parts)} parts are too many for one manifest")
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Inverse of `encode`, for untrusted bytes.

        Checks: (1) not longer than a manifest may be, (2) DAG-CBOR in its one encoding, (3) exactly our keys, each of its type,
        (4) as many sizes as parts, (5) every field in its range, (6) encoding it again gives the same bytes.

        Raises:
          ObjectCorrupt: naming the CID of `data` and the first check that failed.
        """
        try:
            return _decode_checked(data)
        except (CborError, StoreError) as error:
            cid = manifest_cid(hashlib.sha256(data).digest())
            raise ObjectCorrupt(f"{cid} is not a manifest: {error}; its author must put a well-formed one") from error

    @property
    def digest(self) -> bytes:
        """SHA-256 of the encoding: the 32 bytes on the ledger."""
        return hashlib.sha256(self.encode()).digest()

    @property
    def cid(self) -> str:
        """CIDv1 (dag-cbor, sha2-256) as text: the paper's Update_CID."""
        return manifest_cid(self.digest)

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts together."""
        return sum(part.size_bytes for part in self.parts)

    @property
    def label(self) -> str:
        """Whose object this is, for error messages: kind, site, round and epoch."""
        return f"{self.kind.value} of {self.site}, round {self.round}, epoch {self.epoch}"


def manifest_cid(digest: bytes) -> str:
    """CID text of the manifest whose SHA-256 is `digest` (32 bytes)."""
    return str(Link(DAG_CBOR, digest))


def part_cid(digest: bytes) -> str:
    """CID text of the part whose SHA-256 is `digest` (32 bytes)."""
    return str(Link(RAW, digest))


def part_ref(data: bytes) -> PartRef:
    """Name a part by its bytes (1..`MAX_PART_BYTES`, else StoreError)."""
    return PartRef(digest=hashlib.sha256(data).digest(), size_bytes=len(data))


def manifest_for(parts: Iterable[bytes], *, run: bytes, round: int, site: str, epoch: int, kind: ObjectKind) -> Manifest:
    """Build the manifest of parts that nobody has put yet: its digest goes on the ledger first (protocol rule 2).

    Args:
      parts: the object's bytes in order; consumed once, one part in memory at a time.
      run: as in `Manifest`, like the other fields.
      round: round of the object.
      site: address of the author.
      epoch: key epoch.
      kind: what the parts hold.

    Raises:
      StoreError: no part, an empty or too large part, or a field out of range.
    """
    return Manifest(run=run, round=round, site=site, epoch=epoch, kind=kind, parts=tuple(map(part_ref, parts)))


def _decode_checked(data: bytes) -> Manifest:
    _require(len(data) <= MAX_MANIFEST_BYTES, f"more than {MAX_MANIFEST_BYTES} bytes")  # 1
    fields = decode(data)  # 2
    if not isinstance(fields, dict) or fields.keys() != _KEYS:  # 3
        raise StoreError("its keys are not those of a manifest")
    digests = [_link(item) for item in _typed(fields, "parts", list)]
    sizes = [_size(item) for item in _typed(fields, "sizes", list)]
    _require(len(digests) == len(sizes), f"{len(digests)} parts but {len(sizes)} sizes")  # 4
    manifest = Manifest(  # 5
        version=_typed(fields, "v", int),
        run=_typed(fields, "run", bytes),
        round=_typed(fields, "round", int),
        site=_typed(fields, "site", str),
        epoch=_typed(fields, "epoch", int),
        kind=_kind(_typed(fields, "kind", str)),
        parts=tuple(PartRef(digest=digest, size_bytes=size) for digest, size in zip(digests, sizes, strict=True)),
    )
    _require(manifest.encode() == data, "it is not in its one canonical encoding")  # 6
    return manifest


def _typed(fields: dict[str, Value], key: str, kind: type[_T]) -> _T:
    value = fields[key]
    if not isinstance(value, kind):
        raise StoreError(f"its {key!r} is a {type(value).__name__}, expected {kind.__name__}")
    return value


def _link(item: Value) -> bytes:
    if not isinstance(item, Link) or item.codec != RAW:
        raise StoreError("one of its parts is not a raw CID")
    return item.digest


def _size(item: Value) -> int:
    if not isinstance(item, int):
        raise StoreError("one of its sizes is not a number")
    return item


def _kind(text: str) -> ObjectKind:
    try:
        return ObjectKind(text)
    except ValueError as error:
        raise StoreError(f"unknown kind {text!r}") from error


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise StoreError(otherwise)
