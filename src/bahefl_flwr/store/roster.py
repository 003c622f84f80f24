"""Which accounts a served store knows: a list in a file here, the ledger's members in `storekeeping`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from bahefl_flwr.errors import SettingsError

_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_MAX_BYTES = 1 << 20


class RosterUnknown(Exception):
    """Nobody can say at present who the members are."""


class Roster(Protocol):
    """Who may read and write. May be asked from any thread."""

    def admits(self, address: str) -> bool:
        """Whether an account (lower-case address) may read and write.

        Raises:
          RosterUnknown: that cannot be told at present.
        """
        ...


class AccountsFile:
    """A text file with an address a line; the rest of a line after "#" is a remark. Read again when it changes.

    Raises:
      SettingsError: it cannot be read, or a line is no address.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at, self._accounts = self._read()

    def admits(self, address: str) -> bool:
        """Whether the file names the account; a file that has become unreadable admits nobody."""
        try:
            if self._stamp() != self._read_at:
                self._read_at, self._accounts = self._read()
        except (OSError, SettingsError) as error:
            raise RosterUnknown(str(error)) from error
        return address in self._accounts

    def _stamp(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[tuple[int, int, int], frozenset[str]]:
        try:
            stamp = self._stamp()
            with self._path.open("rb") as file:
                text = file.read(_MAX_BYTES).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the accounts in {self._path}: {error}") from error
        lines = [line.partition("#")[0].strip().lower() for line in text.split("\n")]
        for number, line in enumerate(lines, start=1):
            if line and _ADDRESS.fullmatch(line) is None:
                raise SettingsError(f"{self._path}, line {number}: {line[:60]!r} is no address; give one 0x... a line")
        return stamp, frozenset(filter(None, lines))
