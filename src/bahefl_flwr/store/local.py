"""The store in a folder: one file per part and per manifest, named by its CID.

Several processes may use one folder. Only files live here; formats are manifest.py's.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from bahefl_flwr.durable import TEMP_PREFIX, fsync_folder, replace_with
from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing, StoreError
from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store.manifest import MAX_MANIFEST_BYTES, Manifest, PartRef, manifest_cid, part_ref

# A live temporary file exists for milliseconds (a part is < 1 MiB); one of an hour ago belongs to a process that was killed.
_ORPHAN_AGE_S = 3600.0
_FILE_MODE = 0o644  # ciphertexts and sealed bytes only: everyone may read, the umask decides


class LocalStore:
    """A content-addressed folder.

    Promises: an object that `put` returned for survives a crash of the machine; a process killed inside `put` leaves nothing
    that reads as an object; good bytes are never overwritten by others; every read is bounded, and verified against its digest.

    Args:
      root: folder of the store, created where missing.

    Raises:
      StoreError: the folder cannot be made or used.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._temporary = self.root / "tmp"
        self._objects = self.root / "objects"
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._objects.mkdir(exist_ok=True)
            fsync_folder(self.root)
            self._remove_orphans()
        except OSError as error:
            raise StoreError(f"cannot use {self.root} as the store: {error}; name a folder this user may write") from error

    def __repr__(self) -> str:
        return f"LocalStore({str(self.root)!r})"

    def put(self, manifest: Manifest, parts: Iterable[bytes]) -> bytes:
        """Store an object; calling it again is harmless, and repairs a part or manifest that is lost or was altered on disk.

        Args:
          manifest: from `manifest_for`, its digest already on the ledger.
          parts: the bytes in the manifest's order; consumed once, one part in memory at a time.

        Returns:
          The manifest's digest, 32 bytes.

        Raises:
          StoreError: the parts are not the manifest's, or the disk refused; the object is not to be counted on until put returns.

        Source: order of writes from research/ops.md, section A: parts, their folders, then the manifest, then its folder.
        """
        name = f"{manifest.cid} ({manifest.label})"
        try:
            self._write_parts(manifest, parts, name)
            folder = self._ensure(manifest.cid, manifest.encode())
            self._fsync({folder})
        except OSError as error:
            raise StoreError(f"cannot write {name} to {self.root}: {error}; free space or mend it, then repeat") from error
        return manifest.digest

    def has(self, digest: bytes) -> bool:
        """Whether the manifest is intact and every part is there in its full length.

        The bytes of the parts are not read: `put` again to repair, `parts` to verify.
        """
        try:
            manifest = self.manifest(digest)
        except (ObjectMissing, ObjectCorrupt):
            return False
        return all(self._size_of(ref.cid) == ref.size_bytes for ref in manifest.parts)

    def manifest(self, digest: bytes) -> Manifest:
        """The manifest of that digest (32 bytes).

        Raises:
          ObjectMissing: no such file. ObjectCorrupt: its bytes have another digest, or are no well-formed manifest.
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
          ObjectMissing: no such file. ObjectCorrupt: the file has another length or another digest.
        """
        label = f" ({of.label})" if of else ""
        data = self._read(ref.cid, ref.size_bytes, label)
        if len(data) != ref.size_bytes or hashlib.sha256(data).digest() != ref.digest:
            raise ObjectCorrupt(f"part {ref.cid}{label} is not what its name says; its author must put it again")
        return data

    def parts(self, manifest: Manifest) -> Iterator[bytes]:
        """All parts in order, each verified, one in memory at a time. Raises as `part`, at the part concerned."""
        return (self.part(ref, of=manifest) for ref in manifest.parts)

    def _manifest(self, digest: bytes, label: str) -> Manifest:
        cid = manifest_cid(digest)
        data = self._read(cid, MAX_MANIFEST_BYTES, label)
        if hashlib.sha256(data).digest() != digest:
            raise ObjectCorrupt(f"manifest {cid}{label} is not what its name says; its author must put it again")
        try:
            return Manifest.decode(data)
        except ObjectCorrupt as error:
            raise ObjectCorrupt(f"{error}{label}") from error

    def _path(self, cid: str) -> Path:
        # The two characters before the last, as IPFS's flatfs does: the first ones are the same for every CID.
        return self._objects / cid[-3:-1] / cid

    def _write_parts(self, manifest: Manifest, parts: Iterable[bytes], name: str) -> None:
        folders: set[Path] = set()
        for index, (ref, data) in enumerate(zip_longest(manifest.parts, parts)):
            if ref is None or data is None or part_ref(data) != ref:
                raise StoreError(f"part {index} handed to put is not the one that manifest {name} names")
            folders.add(self._ensure(ref.cid, data))
        self._fsync(folders)

    def _ensure(self, cid: str, data: bytes) -> Path:
        """Make the file of `cid` hold `data`; returns the folder the caller must fsync."""
        path = self._path(cid)
        path.parent.mkdir(exist_ok=True)
        if not _holds(path, data):
            replace_with(path, data, temp_folder=self._temporary, mode=_FILE_MODE)
        return path.parent

    def _fsync(self, folders: set[Path]) -> None:
        # Once per folder, not per part (an fsync costs milliseconds), and also where nothing was written: another process may
        # have been killed between its rename and its fsync.
        for folder in folders | {self._objects}:
            fsync_folder(folder)

    def _read(self, cid: str, limit: int, label: str) -> bytes:
        """At most `limit` + 1 bytes, so that a longer file is seen to be longer but never read."""
        try:
            return _read_at_most(self._path(cid), limit)
        except FileNotFoundError as error:
            raise ObjectMissing(f"{cid}{label} is not in {self.root}; its author must put it (again)") from error
        except ObjectCorrupt as error:
            raise ObjectCorrupt(f"{cid}{label}: {error}") from error
        except OSError as error:
            raise StoreError(f"cannot read {cid}{label} from {self.root}: {error}") from error

    def _size_of(self, cid: str) -> int:
        try:
            found = self._path(cid).stat()
        except OSError:
            return -1
        return found.st_size if stat.S_ISREG(found.st_mode) else -1

    def _remove_orphans(self) -> None:
        for path in self._temporary.glob(f"{TEMP_PREFIX}*"):
            try:
                if time.time() - path.stat().st_mtime > _ORPHAN_AGE_S:
                    path.unlink()
            except FileNotFoundError:
                continue  # another process was faster


def _holds(path: Path, data: bytes) -> bool:
    try:
        return _read_at_most(path, len(data)) == data
    except (OSError, ObjectCorrupt):
        return False


def _read_at_most(path: Path, limit: int) -> bytes:
    # O_NONBLOCK: a named pipe in place of a file must not make a reader wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ObjectCorrupt(f"{path} is not a regular file; remove it, then put the object again")
        return file.read(limit + 1)


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
