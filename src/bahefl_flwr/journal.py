"""What a site has already done, so that it never does it twice: an append-only file of (run, round, action) -> result.

Flower may execute a message more than once (protocol rule 9). Only records and their durability live here; never secrets.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from bahefl_flwr.durable import fsync_folder, write_all
from bahefl_flwr.errors import JournalError

__all__ = ["Journal", "Key"]

Key: TypeAlias = tuple[str, int, str]
"""Run digest in hex, round, action."""

_HEAD_BYTES = 18  # "llllllll cccccccc ": length and CRC-32 of the text, both in hex
_HEAD = re.compile(rb"([0-9a-f]{8}) ([0-9a-f]{8}) ")
_POLL_S = 0.02


class Journal:
    """An append-only, crash-safe record of a site's actions. Several processes of one site may share the file.

    A frame is `length crc text newline`. A process killed while writing leaves the beginning of a frame at the end of the file:
    that action was never acknowledged, so it is dropped. Everything else that does not check is damage, and refused: guessing
    could make a site encrypt a round twice.

    Args:
      path: file of the journal; made (0600, with its folder) where missing.

    Raises:
      JournalError: the file is damaged or cannot be used.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._texts: dict[Key, str] = {}
        self._end = 0
        self._named_durably = False
        self._threads = threading.RLock()
        self._held = 0
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise JournalError(f"cannot use {self.path} as the journal: {error}; name a folder this user may write") from error
        self._catch_up()

    def __repr__(self) -> str:
        return f"Journal({str(self.path)!r}, records={len(self._texts)})"

    def get(self, key: Key) -> dict[str, Any] | None:
        """The result recorded for `key` by any process, or None. A fresh copy every time.

        Raises:
          JournalError: the file is damaged.
        """
        self._catch_up()
        text = self._texts.get(key)
        return None if text is None else _result_of(text)

    def recorded(self, action: str) -> dict[Key, dict[str, Any]]:
        """Every record of an action, of whatever run and round, in the order in which they were made.

        Raises:
          JournalError: the file is damaged.
        """
        self._catch_up()
        return {key: _result_of(text) for key, text in self._texts.items() if key[2] == action}

    def put(self, key: Key, result: Mapping[str, Any]) -> None:
        """Record `result`; when this returns, it survives a crash. Recording the same result again does nothing.

        Args:
          key: (run hex, round, action).
          result: JSON-able, finite numbers only; tuples come back as lists.

        Raises:
          JournalError: another result is recorded for `key`, the result is not JSON-able, or the disk refused (nothing recorded).
        """
        text = _text_of(key, result)
        with self.lock():
            self._catch_up()
            recorded = self._texts.get(key)
            if recorded is None:
                self._append(text)
                self._texts[key] = text
            elif recorded != text:
                raise JournalError(f"{_named(key)} is already recorded with another result in {self.path}; use the recorded one")

    @contextmanager
    def lock(self, timeout_s: float = 600.0) -> Iterator[None]:
        """Hold the site's only right to act: other processes and threads wait. May be nested within one thread.

        Args:
          timeout_s: seconds to wait for the present holder.

        Raises:
          JournalError: still held after `timeout_s`, naming the holder's process.
        """
        if not self._threads.acquire(timeout=timeout_s):
            raise JournalError(f"another thread has held {self.path} for {timeout_s:g} s; it will answer for this site")
        try:
            if self._held:
                yield
                return
            descriptor = self._lock_file(timeout_s)
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1
                os.close(descriptor)
        finally:
            self._threads.release()

    def _lock_file(self, timeout_s: float) -> int:
        try:
            descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"cannot lock {self.path}: {error}; mend the folder, then repeat") from error
        deadline = time.monotonic() + timeout_s
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    holder = os.pread(descriptor, 20, 0).decode("ascii", "replace") or "unknown"
                    raise JournalError(f"process {holder} has held {self.path} for {timeout_s:g} s; it will answer for this site")
                time.sleep(_POLL_S)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _append(self, text: str) -> None:
        frame = _frame(text)
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.truncate(self._end)  # a torn tail must not run into the new frame
                file.seek(self._end)
                write_all(file.fileno(), frame)
                os.fsync(file.fileno())
            if not self._named_durably:  # by whom the file was made does not matter: that process may have been killed
                fsync_folder(self.path.parent)
                self._named_durably = True
        except OSError as error:
            raise JournalError(f"cannot write {self.path}: {error}; free space or mend the disk, then repeat") from error
        self._end += len(frame)

    def _catch_up(self) -> None:
        """Read the frames that this or another process appended since the last look."""
        with self._threads:
            try:
                with self.path.open("rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(self._end)
                    data = file.read()
            except OSError as error:
                raise JournalError(f"cannot read {self.path}: {error}; mend the folder, then repeat") from error
            if size < self._end:
                raise self._damage("the file has become shorter: what was")
            *lines, tail = data.split(b"\n")
            for line in lines:
                self._learn(line)
                self._end += len(line) + 1
            if not _is_torn(tail):
                raise self._damage("its last record")

    def _learn(self, line: bytes) -> None:
        raw = line[_HEAD_BYTES:]
        if line[:_HEAD_BYTES] != _head(raw):
            raise self._damage("the record")
        text = raw.decode("ascii", "replace")
        key = _key_of(text)
        if key is None:
            raise self._damage("a foreign record")
        if key in self._texts:
            raise self._damage(f"a second record of {_named(key)}")
        self._texts[key] = text

    def _damage(self, what: str) -> JournalError:
        return JournalError(
            f"{self.path} is damaged: {what} at byte {self._end} does not check; restore it, or move it away: "
            f"the site then sits out the rounds that the ledger already has from it"
        )


def _text_of(key: Key, result: Mapping[str, Any]) -> str:
    run, round_number, action = key
    try:
        return json.dumps([run, round_number, action, dict(result)], sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise JournalError(f"the result of {_named(key)} cannot be recorded: {error}; make it plain JSON values") from error


def _key_of(text: str) -> Key | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match record:
        case [str(run), int(round_number), str(action), dict()]:
            return run, round_number, action
    return None


def _result_of(text: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(text)[3]
    return result


def _frame(text: str) -> bytes:
    raw = text.encode("ascii")  # json.dumps escapes everything else
    return _head(raw) + raw + b"\n"


def _head(raw: bytes) -> bytes:
    return f"{len(raw):08x} {zlib.crc32(raw):08x} ".encode("ascii")


def _is_torn(tail: bytes) -> bool:
    """Whether `tail`, which has no newline, is the beginning of a frame.

    Zeros may follow: a power cut can lengthen a file before its bytes arrive. A full frame with another byte in place of its
    newline is no torn one: it was acknowledged, then damaged.
    """
    written = tail.rstrip(b"\0")
    if len(written) < _HEAD_BYTES:
        return True
    head = _HEAD.fullmatch(written[:_HEAD_BYTES])
    if head is None:
        return False
    missing = _HEAD_BYTES + int(head[1], 16) - len(written)
    return missing > 0 or (missing == 0 and written == tail)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _named(key: Key) -> str:
    return f"{key[2]} of round {key[1]}, run {key[0][:8]}"
