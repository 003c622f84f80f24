"""The store in a folder: one file per part and per manifest, named by its CID.

Several processes may use one folder. Only files live here; formats are manifest.py's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from bahefl_flwr.durable import TEMP_PREFIX, fsync_folder, replace_with
from bahefl_flwr.errors import ObjectCorrupt, ObjectMissing, StoreError
from bahefl_flwr.store.dag_cbor import CborError, Link
from bahefl_flwr.store.manifest import Manifest, part_ref
from bahefl_flwr.store.reading import StoredFile, VerifiedReads

# A live temporary file exists for milliseconds (a part is < 1 MiB); one of an hour ago belongs to a process that was killed.
_ORPHAN_AGE_S = 3600.0
_FILE_MODE = 0o644  # ciphertexts and sealed bytes only: everyone may read, the umask decides


class LocalStore(VerifiedReads):
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

    def place(self, link: Link, data: bytes) -> bool:
        """Store one part or manifest by itself, durably. Returns whether its file changed: False where it was there, intact.

        Raises:
          ObjectCorrupt: `data` does not have the digest that `link` names. StoreError: the disk refused.
        """
        if hashlib.sha256(data).digest() != link.digest:
            raise ObjectCorrupt(f"these {len(data)} bytes are not {link}")
        cid = str(link)
        try:
            changed = not _holds(self._path(cid), data)
            self._fsync({self._ensure(cid, data)})
        except OSError as error:
            raise StoreError(f"cannot write {cid} to {self.root}: {error}; free space or mend it, then repeat") from error
        return changed

    def freshen(self, cid: str) -> None:
        """Make a file as young as one that was put now: `gc` sees that somebody counts on it again."""
        with contextlib.suppress(OSError):  # another user's file; its age stays
            os.utime(self._path(cid))

    def files(self) -> Iterator[StoredFile]:
        """Every part and manifest in the store, in no order; what else lies there is passed over."""
        for path in self._objects.glob("*/*"):
            try:
                link, found = Link.parse(path.name), path.stat()
            except (CborError, FileNotFoundError):
                continue
            yield StoredFile(link=link, size_bytes=found.st_size, changed_at=found.st_mtime)

    def remove(self, link: Link) -> None:
        """Delete one part or manifest, if it is there.

        Raises:
          StoreError: the disk refused.
        """
        try:
            self._path(str(link)).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot delete {link} from {self.root}: {error}") from error

    def raw(self, cid: str, limit: int, label: str = "") -> bytes:
        """The bytes of a file as they are, not verified; at most `limit` + 1, so that a longer file is never read whole."""
        try:
            return _read_at_most(self._path(cid), limit)
        except FileNotFoundError as error:
            raise ObjectMissing(f"{cid}{label} is not in {self.root}; its author must put it (again)") from error
        except ObjectCorrupt as error:
            raise ObjectCorrupt(f"{cid}{label}: {error}") from error
        except OSError as error:
            raise StoreError(f"cannot read {cid}{label} from {self.root}: {error}") from error

    def lost(self, manifest: Manifest) -> bool:
        """Whether a part's file is not there, or has another length."""
        return any(self._size_of(ref.cid) != ref.size_bytes for ref in manifest.parts)

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
        if _holds(path, data):
            self.freshen(cid)
        else:
            replace_with(path, data, temp_folder=self._temporary, mode=_FILE_MODE)
        return path.parent

    def _fsync(self, folders: set[Path]) -> None:
        # Once per folder, not per part (an fsync costs milliseconds), and also where nothing was written: another process may
        # have been killed between its rename and its fsync.
        for folder in folders | {self._objects}:
            fsync_folder(folder)

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
