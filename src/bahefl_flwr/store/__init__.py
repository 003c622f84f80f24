"""The content-addressed store: ciphertexts and sealed objects under the digests that the ledger names.

Every read verifies; a store is never trusted. Keys and plaintext never pass through here. Source: docs/store.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store.local import LocalStore
from bahefl_flwr.store.manifest import (
    MAX_PART_BYTES,
    Manifest,
    PartRef,
    manifest_cid,
    manifest_for,
    part_cid,
)

__all__ = [
    "MAX_PART_BYTES",
    "LocalStore",
    "Manifest",
    "PartRef",
    "Store",
    "manifest_cid",
    "manifest_for",
    "part_cid",
]


class Store(Protocol):
    """What every store does; `LocalStore` states each promise in full."""

    def put(self, manifest: Manifest, parts: Iterable[bytes]) -> bytes:
        """Store an object, parts first; repair what is lost or corrupt of it. Returns the manifest's digest (32 bytes)."""
        ...

    def has(self, digest: bytes) -> bool:
        """Whether the manifest is intact and every part is there in its full length (bytes of parts not verified)."""
        ...

    def manifest(self, digest: bytes) -> Manifest:
        """The manifest of that digest, verified."""
        ...

    def expect(self, digest: bytes, *, run: bytes, round: int, site: str, epoch: int, kind: ObjectKind) -> Manifest:
        """The manifest of that digest, refused unless it binds to exactly these."""
        ...

    def part(self, ref: PartRef, *, of: Manifest | None = None) -> bytes:
        """One part, verified. `of` only makes the error name the site and the round."""
        ...

    def parts(self, manifest: Manifest) -> Iterator[bytes]:
        """All parts in order, each verified, one in memory at a time."""
        ...
