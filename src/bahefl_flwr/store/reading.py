"""Reading by digest, the same for every store: bounded, and verified before anybody sees a byte.

Where the bytes come from is each store's own business; nothing here opens files or connections.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store.dag_cbor import Link
from bahefl_flwr.store.manifest import MAX_MANIFEST_BYTES, Manifest, PartRef, manifest_cid


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A part or manifest as it lies in a store. `changed_at`: Unix time of its last put."""

    link: Link
    size_bytes: int
    changed_at: float


class VerifiedReads(ABC):
    """What every store does with the bytes it finds. A subclass says how to find them."""

    @abstractmethod
    def raw(self, cid: str, limit: int, label: str = "") -> bytes:
        """The bytes under a CID as they are, not verified: at most `limit` + 1, so that longer ones are seen to be longer.

        Args:
          label: " (whose object it is)", for messages.

        Raises:
          ObjectMissing: there are none. ObjectCorrupt: what lies there can be nothing that was put.
          StoreError, StoreUnavailable: they cannot be read.
        """

    @abstractmethod
    def lost(self, manifest: Manifest) -> bool:
        """Whether a part of an object is not there, or not in its full length."""

    def has(self, digest: bytes) -> bool:
        """Whether the manifest is intact and every part is there in its full length.

        The bytes of the parts need not be read: `put` again to repair, `parts` to verify.
        """
        try:
            return not self.lost(self.manifest(digest))
        except (ObjectMissing, ObjectCorrupt):
            return False

    def manifest(self, digest: bytes) -> Manifest:
        """The manifest of that digest (32 bytes).

        Raises:
          ObjectMissing: it is not there. ObjectCorrupt: its bytes have another digest, or are no well-formed manifest.
        """
        return self._manifest(digest, "")

    def expect(self, digest: bytes, *, run: bytes, round: int, site: str, epoch: int, kind: ObjectKind) -> Manifest:
        """The manifest of that digest, if it binds to exactly this run, round, site, epoch and kind.

        Raises:
          ObjectMissing, ObjectCorrupt: as `manifest`, naming the expected site and round; ObjectCorrupt also when a field
            differs: an object of another round or of another site was committed as this one.
        """
        wanted = {"run": run, "round": round, "site": site, "epoch": epoch, "kind": kind}
        label = f" ({kind.value} of {site}, round {round}, epoch {epoch})"
        manifest = self._manifest(digest, label)
        for field, value in wanted.items():
            found = getattr(manifest, field)
            if found != value:
                raise ObjectCorrupt(
                    f"{manifest.cid}{label} names {field} {_shown(found)}, expected {_shown(value)}; "
                    f"a replayed or copied object: leave it out"
                )
        return manifest

    def part(self, ref: PartRef, *, of: Manifest | None = None) -> bytes:
        """One part, verified.

        Args:
          ref: from a manifest.
          of: that manifest, so that an error can name the site and the round.

        Raises:
          ObjectMissing: it is not there. ObjectCorrupt: it has another length or another digest.
        """
        label = f" ({of.label})" if of else ""
        data = self.raw(ref.cid, ref.size_bytes, label)
        if len(data) != ref.size_bytes or hashlib.sha256(data).digest() != ref.digest:
            raise ObjectCorrupt(f"part {ref.cid}{label} is not what its name says; its author must put it again")
        return data

    def parts(self, manifest: Manifest) -> Iterator[bytes]:
        """All parts in order, each verified, one in memory at a time. Raises as `part`, at the part concerned."""
        return (self.part(ref, of=manifest) for ref in manifest.parts)

    def _manifest(self, digest: bytes, label: str) -> Manifest:
        cid = manifest_cid(digest)
        data = self.raw(cid, MAX_MANIFEST_BYTES, label)
        if hashlib.sha256(data).digest() != digest:
            raise ObjectCorrupt(f"manifest {cid}{label} is not what its name says; its author must put it again")
        try:
            return Manifest.decode(data)
        except ObjectCorrupt as error:
            raise ObjectCorrupt(f"{error}{label}") from error


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
