"""How much each account has put into a served store, and whether it may put more. Bytes and counts, no contents.

What is known survives restarts in an SQLite file beside the objects; the files themselves always have the last word.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from bahefl_flwr.errors import StoreError
from bahefl_flwr.store.dag_cbor import Link
from bahefl_flwr.store.local import LocalStore

FILE_NAME = "usage.sqlite"
_RECOUNT_S = 60.0
_NOBODY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """The most that may lie in a served store.

    Attributes:
      total_bytes: of everybody. account_bytes: put by one account. account_files: parts and manifests put by one account.
    """

    total_bytes: int
    account_bytes: int
    account_files: int


class QuotaExceeded(Exception):
    """What was offered does not fit. Its text goes back to whoever offered it."""


@dataclass(slots=True)
class _Used:
    files: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Count:
    """One count of all files: by account, and who put each."""

    total: int = 0
    accounts: dict[str, _Used] = field(default_factory=dict)
    owners: dict[bytes, str] = field(default_factory=dict)

    def add(self, name: bytes, account: str, size: int) -> None:
        """Book one file of `size` bytes. Not idempotent: the caller knows that `name` is new."""
        used = self.accounts.setdefault(account, _Used())
        used.files += 1
        used.bytes += size
        self.total += size
        self.owners[name] = account


class Usage:
    """The account book of one served store. Its methods may be called from any thread.

    Whoever first put a file pays for it. Files of unknown origin count in the total only.

    Args:
      clock: monotonic seconds; for tests.

    Raises:
      StoreError: the file beside the store cannot be used.
    """

    def __init__(self, store: LocalStore, quotas: Quotas, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self.quotas, self._clock = store, quotas, clock
        self._lock = threading.Lock()
        self._under_way: dict[bytes, int] = {}
        path = store.root / FILE_NAME
        try:
            self._book = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._book.execute("PRAGMA journal_mode=WAL")
            # Losing the last entries to a power cut makes files of unknown origin of them, no more; an fsync each costs more.
            self._book.execute("PRAGMA synchronous=NORMAL")
            self._book.execute("CREATE TABLE IF NOT EXISTS put (name BLOB PRIMARY KEY, account TEXT NOT NULL) WITHOUT ROWID")
            self._recount()
        except sqlite3.Error as error:
            raise StoreError(f"cannot use {path}: {error}; if it is damaged, move it away: quotas then count anew") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._book.close()

    def used(self, account: str) -> tuple[int, int]:
        """Files and bytes that an account (lower-case address) has put."""
        with self._lock:
            found = self._count.accounts.get(account, _Used())
            return found.files, found.bytes

    @contextmanager
    def putting(self, account: str, link: Link, size: int) -> Iterator[None]:
        """Take note that an account puts a file, for the time in which it is written and ever after.

        Raises:
          QuotaExceeded: it does not fit. StoreError: it cannot be noted.
        """
        with self._lock:
            self._reserve(account, link, size)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.pop(link.binary, None)

    def _reserve(self, account: str, link: Link, size: int) -> None:
        if link.binary in self._count.owners:
            return
        if self._problem(account, size) and self._clock() - self._counted_at > _RECOUNT_S:
            self._recount()
        if problem := self._problem(account, size):
            raise QuotaExceeded(problem)
        try:
            self._book.execute("INSERT OR IGNORE INTO put VALUES (?, ?)", (link.binary, account))
        except sqlite3.Error as error:
            raise StoreError(f"cannot note who puts {link} in {self._store.root / FILE_NAME}: {error}; free space") from error
        self._count.add(link.binary, account, size)
        self._under_way[link.binary] = size

    def _problem(self, account: str, size: int) -> str:
        mine, quotas = self._count.accounts.get(account, _Used()), self.quotas
        if self._count.total + size > quotas.total_bytes:
            return f"the store is full ({quotas.total_bytes:,} bytes): its operator frees space with `bahefl store gc`"
        if mine.bytes + size > quotas.account_bytes:
            return f"{account} has put all of its {quotas.account_bytes:,} bytes: ask the store's operator to free or grant more"
        if mine.files + 1 > quotas.account_files:
            return f"{account} has put all of its {quotas.account_files:,} files: ask the store's operator to free or grant more"
        return ""

    def _recount(self) -> None:
        """Count the files that are really there: `gc`, a failed write or another process may have changed them."""
        known = dict(self._book.execute("SELECT name, account FROM put"))
        count = _Count()
        for file in self._store.files():
            count.add(file.link.binary, known.pop(file.link.binary, _NOBODY), file.size_bytes)
        for name in self._under_way.keys() - count.owners.keys():
            count.add(name, known.pop(name, _NOBODY), self._under_way[name])
        with suppress(sqlite3.OperationalError):  # a full disk: the rows go the next time
            self._book.executemany("DELETE FROM put WHERE name=?", [(name,) for name in known])
        self._count, self._counted_at = count, self._clock()
