"""What a store's operator needs the ledger for: who the members are, and which objects are still referred to."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bahefl_flwr.durable import atomic_write
from bahefl_flwr.errors import LedgerError, SettingsError, StoreError
from bahefl_flwr.ledger.connection import Connection
from bahefl_flwr.ledger.contract import FederationLedger
from bahefl_flwr.ledger.history import History
from bahefl_flwr.ledger.policy import ChainPolicy
from bahefl_flwr.records import Member, MemberStatus
from bahefl_flwr.store.gc import Needed
from bahefl_flwr.store.roster import RosterUnknown

SERVED_FILE = "served.json"
FRESH_S = 15.0
"""A suspended member is refused after so long."""
STALE_S = 600.0
"""Without the ledger for so long, nobody is admitted any more."""
_AGAIN_S = 1.0
_PATIENCE = ChainPolicy(timeout_s=5.0, patience_s=5.0)

_log = logging.getLogger("bahefl_flwr.store")


class LedgerRoster:
    """The active members on the ledger, asked again every `FRESH_S`, and when somebody comes who was none the last time.

    Args:
      members: reads the roster; raises LedgerError. clock: monotonic seconds; for tests.

    Raises:
      LedgerError: the first reading fails.
    """

    def __init__(self, members: Callable[[], Iterable[Member]], clock: Callable[[], float] = time.monotonic) -> None:
        self._members, self._clock = members, clock
        self._lock = threading.Lock()
        self._active = self._read()
        self._read_at = self._tried_at = clock()

    @classmethod
    def of(cls, url: str, chain_id: int, contract: str) -> LedgerRoster:
        """The roster of a deployed contract.

        Raises:
          LedgerError: it is not there, or not this version's.
        """
        return cls(FederationLedger.attach(Connection(url, chain_id, policy=_PATIENCE), contract).members)

    def admits(self, address: str) -> bool:
        """Whether the account is an active member.

        Raises:
          RosterUnknown: the ledger has not answered for `STALE_S`.
        """
        if not self._is_known(address):
            with self._lock:
                self._refresh_for(address)
        if self._clock() - self._read_at > STALE_S:
            raise RosterUnknown(f"the ledger has not answered for {STALE_S:.0f} s")
        return address in self._active

    def _is_known(self, address: str) -> bool:
        return address in self._active and self._clock() - self._read_at < FRESH_S

    def _refresh_for(self, address: str) -> None:
        # Strangers must not have the ledger asked as often as they like, nor everybody wait while it is down.
        pause = FRESH_S if address in self._active else _AGAIN_S
        if self._is_known(address) or self._clock() - self._tried_at < pause:
            return
        try:
            self._active = self._read()
            self._read_at = self._clock()
        except LedgerError as error:
            _log.warning("the members of %.0f s ago are admitted: %s", self._clock() - self._read_at, error)
        self._tried_at = self._clock()

    def _read(self) -> frozenset[str]:
        return frozenset(m.address.lower() for m in self._members() if m.status is MemberStatus.ACTIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A deployed contract: `chain_id` and checksummed or lower-case `address`."""

    chain_id: int
    address: str


def note_served(root: Path, contract: Contract) -> None:
    """Write down that a store's folder serves a contract, so that `gc` never takes its objects for nobody's.

    Raises:
      StoreError: it cannot be written.
    """
    known = served(root)
    if not _same(contract, known):
        entries = [{"chain_id": c.chain_id, "contract": c.address} for c in (*known, contract)]
        try:
            atomic_write(root / SERVED_FILE, json.dumps(entries, indent=1).encode())
        except OSError as error:
            raise StoreError(f"cannot write {root / SERVED_FILE}: {error}") from error


def served(root: Path) -> tuple[Contract, ...]:
    """The contracts that a store's folder serves or has served.

    Raises:
      StoreError: the file that says so is damaged.
    """
    try:
        entries = json.loads((root / SERVED_FILE).read_bytes())
        return tuple(Contract(chain_id=int(e["chain_id"]), address=str(e["contract"])) for e in entries)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{root / SERVED_FILE} is damaged ({error!r}): restore it, or list the contracts in it again") from error


def refuse_unnamed(root: Path, named: Sequence[Contract]) -> None:
    """Make sure that every contract of a store is named, or what it refers to would be deleted.

    Raises:
      SettingsError: one is not.
    """
    for contract in served(root):
        if not _same(contract, named):
            raise SettingsError(
                f"{root} also serves contract {contract.address} of chain {contract.chain_id}: name it with --contract, or, if "
                f"that federation is over and its objects may go, remove it from {root / SERVED_FILE}"
            )


def needed_by(connection: Connection, contracts: Iterable[str]) -> Needed:
    """Everything that contracts on one chain refer to, read from their whole history.

    Raises:
      LedgerError: one cannot be read, or is not this version's: then nothing may be deleted.
    """
    digests: set[bytes] = set()
    runs: set[bytes] = set()
    for address in contracts:
        task = FederationLedger.attach(connection, address).view().task
        if task.open:
            runs.add(task.run_digest)
        digests |= History(connection, address).words()
    return Needed(digests=frozenset(digests), runs=frozenset(runs))


def chain(url: str, chain_id: int) -> Connection:
    """A reading connection.

    Raises:
      LedgerUnreachable: no answer. LedgerError: another chain. SettingsError: no URL.
    """
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"--rpc needs http(s)://..., got {url!r}")
    connection = Connection(url, chain_id)
    connection.check()
    return connection


def _same(contract: Contract, others: Iterable[Contract]) -> bool:
    return any((contract.chain_id, contract.address.lower()) == (c.chain_id, c.address.lower()) for c in others)
