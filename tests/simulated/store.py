"""A store in memory that loses and alters objects and goes down; its users may be killed within a put. Reads verify as always."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import zip_longest

from bahefl_flwr.errors import ObjectMissing, StoreError, StoreUnavailable
from bahefl_flwr.store.manifest import Manifest, part_ref
from bahefl_flwr.store.reading import VerifiedReads
from simulated.account import Gate


class Shelf:
    """What the store holds: bytes by CID, and the manifests it was ever given.

    Attributes:
      on_put: told of every object that somebody puts. altered: what a dishonest site puts in place of a part.
    """

    def __init__(self, on_put: Callable[[Manifest], None], altered: Callable[[Manifest, bytes], bytes]) -> None:
        self.on_put, self.altered = on_put, altered
        self.files: dict[str, bytes] = {}
        self.manifests: dict[bytes, Manifest] = {}
        self.down_until = 0.0

    def damage(self, which: int, how: str) -> str:
        """Lose a file or alter it; says which."""
        if not self.files:
            return "nothing"
        cid = list(self.files)[which % len(self.files)]
        if how == "lose":
            del self.files[cid]
        else:
            data = bytearray(self.files[cid])
            data[which % len(data)] ^= 0x20
            self.files[cid] = bytes(data)
        return cid[-8:]


class SiteStore(VerifiedReads):
    """The store as one site uses it."""

    def __init__(self, shelf: Shelf, gate: Gate, now: float) -> None:
        self._shelf, self._gate, self._now = shelf, gate, now

    def put(self, manifest: Manifest, parts: Iterable[bytes]) -> bytes:
        """As LocalStore's: parts first, then the manifest."""
        self._expect_up()
        self._shelf.on_put(manifest)
        self._gate.before(f"put {manifest.kind.value} {manifest.digest.hex()[:8]}")
        for ref, data in zip_longest(manifest.parts, parts):
            if ref is None or data is None or part_ref(data) != ref:
                raise StoreError("parts handed to put are not the manifest's")
            self._shelf.files[ref.cid] = self._shelf.altered(manifest, data)
        self._gate.before("put of the manifest")
        self._shelf.files[manifest.cid] = manifest.encode()
        self._shelf.manifests[manifest.digest] = manifest
        self._gate.after(f"put {manifest.kind.value}")
        return manifest.digest

    def raw(self, cid: str, limit: int, label: str = "") -> bytes:
        self._expect_up()
        try:
            return self._shelf.files[cid][: limit + 1]
        except KeyError:
            raise ObjectMissing(f"{cid}{label} is not in the store") from None

    def lost(self, manifest: Manifest) -> bool:
        return any(len(self._shelf.files.get(ref.cid, b"")) != ref.size_bytes for ref in manifest.parts)

    def _expect_up(self) -> None:
        if self._now < self._shelf.down_until:
            raise StoreUnavailable("the store does not answer")


def intact(shelf: Shelf, digest: bytes) -> bool:
    """Whether an object is there, manifest and parts, byte for byte."""
    manifest = shelf.manifests.get(digest)
    if manifest is None or shelf.files.get(manifest.cid) != manifest.encode():
        return False
    return all(hashlib.sha256(shelf.files.get(ref.cid, b"")).digest() == ref.digest for ref in manifest.parts)
