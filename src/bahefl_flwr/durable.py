"""Writing files so that a crash leaves the old bytes or the new bytes, never a mixture.

Only the order of write, fsync, rename and fsync of the folder lives here; no formats, and no knowledge of what the bytes mean.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

TEMP_PREFIX = ".writing-"


def atomic_write(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put `data` at `path` so that it survives a crash the moment this returns, replacing what was there.

    Args:
      path: target file; its folder must exist.
      data: the whole new content.
      mode: permission bits of the new file, before the umask.

    Raises:
      OSError: the disk refused (full, read-only, no permission); `path` is as before and no temporary file is left.
    """
    replace_with(path, data, temp_folder=path.parent, mode=mode)
    fsync_folder(path.parent)


def create_once(path: Path, data: bytes, *, mode: int = 0o600) -> bool:
    """Like `atomic_write`, but leave a file that already exists alone. Returns whether this call created it."""
    temporary = _write_temporary(path.parent, data, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return True


def replace_with(path: Path, data: bytes, *, temp_folder: Path, mode: int) -> None:
    """First half of `atomic_write`: durable content under the final name; the caller fsyncs the folder afterwards.

    `temp_folder` must be on the same file system as `path`, or the rename is refused.
    """
    temporary = _write_temporary(temp_folder, data, mode)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; without it a rename may be undone by a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_temporary(folder: Path, data: bytes, mode: int) -> Path:
    temporary = folder / f"{TEMP_PREFIX}{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            write_all(file.fileno(), data)
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def write_all(descriptor: int, data: bytes) -> None:
    """`os.write` until every byte is written: a nearly full disk accepts a write in part before it refuses."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
