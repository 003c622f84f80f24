"""The SQLite file of the embedded chain: state nodes, blocks, transactions and logs, one fsync'd commit per block.

Nothing here executes a transaction or knows JSON.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rlp
from eth.abc import AtomicWriteBatchAPI
from eth.db.atomic import AtomicDBWriteBatch
from eth.db.backends.base import BaseAtomicDB
from eth.vm.forks.london.blocks import LondonBlockHeader

from bahefl_flwr.errors import LedgerError

FORMAT = 1
CACHED_NODES = 50_000

_SCHEMA = """
CREATE TABLE chain (id INTEGER NOT NULL);
CREATE TABLE node (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE block (number INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, header BLOB NOT NULL);
CREATE TABLE tx (hash BLOB PRIMARY KEY, block INTEGER NOT NULL, position INTEGER NOT NULL, raw BLOB NOT NULL,
  sender BLOB NOT NULL, status INTEGER NOT NULL, gas_used INTEGER NOT NULL, cumulative_gas INTEGER NOT NULL,
  contract BLOB) WITHOUT ROWID;
CREATE UNIQUE INDEX tx_by_block ON tx (block, position);
CREATE TABLE log (block INTEGER NOT NULL, position INTEGER NOT NULL, tx BLOB NOT NULL, tx_position INTEGER NOT NULL,
  address BLOB NOT NULL, topic0 BLOB, topic1 BLOB, topic2 BLOB, topic3 BLOB, data BLOB NOT NULL,
  PRIMARY KEY (block, position)) WITHOUT ROWID;
CREATE INDEX log_by_topic ON log (topic0, address, block);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLog:
    """One event. `position` counts within the block, as Ethereum's logIndex does."""

    block: int
    position: int
    transaction: bytes
    transaction_position: int
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTransaction:
    """A transaction of a sealed block and its outcome.

    Attributes:
      raw: the signed bytes as they were sent.
      status: 1 if it took effect, 0 if the EVM undid it.
      contract: address of the contract it created, if any.
    """

    hash: bytes
    block: int
    position: int
    raw: bytes
    sender: bytes
    status: int
    gas_used: int
    cumulative_gas: int
    contract: bytes | None


class ChainDatabase(BaseAtomicDB):
    """Key-value store for py-evm's state, and tables for what JSON-RPC asks about blocks.

    State written by py-evm stays in memory until `commit_block`, which writes it with the block in one transaction: after a crash
    the file holds the last whole block and nothing of the next. Not thread-safe; the node's lock guards it.

    Raises:
      LedgerError: the file is no chain of ours, is of another chain id or format, or is open in another node.
    """

    def __init__(self, path: Path, chain_id: int) -> None:
        self._path = path
        self._unsaved: dict[bytes, bytes] = {}
        self._cache: dict[bytes, bytes] = {}
        self._sql = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=1.0)
        try:
            self._open(chain_id)
        except sqlite3.Error as error:
            self._sql.close()
            raise LedgerError(
                f"cannot open the ledger {path}: {error}; is another node using it, or is it not a ledger?"
            ) from error
        except LedgerError:
            self._sql.close()
            raise

    def _open(self, chain_id: int) -> None:
        # An exclusive lock, released by the system even after kill -9, keeps a second node out.
        self._sql.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._sql.execute("PRAGMA journal_mode=WAL")
        self._sql.execute("PRAGMA synchronous=FULL")
        found = self._sql.execute("PRAGMA user_version").fetchone()[0]
        if found == 0 and not self._sql.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._sql.executescript(
                f"BEGIN EXCLUSIVE; {_SCHEMA} INSERT INTO chain VALUES ({chain_id}); PRAGMA user_version={FORMAT}; COMMIT;"
            )
        elif found != FORMAT:
            raise LedgerError(f"{self._path} has ledger format {found}, this version reads {FORMAT}")
        (stored,) = self._sql.execute("SELECT id FROM chain").fetchone()
        if stored != chain_id:
            raise LedgerError(
                f"{self._path} is the ledger of chain {stored}, asked for chain {chain_id}; use its chain id or another file"
            )

    def close(self) -> None:
        """Close the file. Blocks not committed are lost."""
        self._sql.close()

    # py-evm's key-value interface

    def __getitem__(self, key: bytes) -> bytes:
        """Look a node up: unsaved ones first, then the cache, then the file."""
        value = self._unsaved.get(key) or self._cache.get(key)
        if value is not None:
            return value
        row = self._sql.execute("SELECT value FROM node WHERE key=?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        self._remember({key: row[0]})
        return bytes(row[0])

    def __setitem__(self, key: bytes, value: bytes) -> None:
        """Keep a node in memory until the next commit."""
        self._unsaved[key] = value

    def __delitem__(self, key: bytes) -> None:
        """Refuse: old states are the audit trail, py-evm only ever adds nodes here."""
        raise NotImplementedError("the embedded ledger never deletes state")

    def _exists(self, key: bytes) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True

    @contextmanager
    def atomic_batch(self) -> Iterator[AtomicWriteBatchAPI]:
        """Collect py-evm's writes and apply all or none of them (in memory)."""
        with AtomicDBWriteBatch._commit_unless_raises(self) as batch:  # noqa: SLF001  # as py-evm's own AtomicDB does
            yield batch

    def _remember(self, nodes: dict[bytes, bytes]) -> None:
        if len(self._cache) + len(nodes) > CACHED_NODES:
            self._cache.clear()
        self._cache.update(nodes)

    # blocks

    def commit_block(
        self, header: LondonBlockHeader, transactions: Sequence[StoredTransaction], logs: Sequence[StoredLog]
    ) -> None:
        """Write a block with everything it changed, durably and at once.

        Raises:
          LedgerError: the file cannot be written (disk full, read-only); nothing of the block is then in it.
        """
        try:
            self._write(header, transactions, logs)
        except sqlite3.Error as error:
            raise LedgerError(
                f"cannot write block {header.block_number} to {self._path}: {error}; free space, then restart"
            ) from error
        self._remember(self._unsaved)
        self._unsaved = {}

    def _write(self, header: LondonBlockHeader, transactions: Sequence[StoredTransaction], logs: Sequence[StoredLog]) -> None:
        run, run_many = self._sql.execute, self._sql.executemany
        run("BEGIN IMMEDIATE")
        try:
            # Nodes are named by their hash, so a name already there has the same value.
            run_many("INSERT OR IGNORE INTO node VALUES (?,?)", self._unsaved.items())
            run("INSERT INTO block VALUES (?,?,?)", (header.block_number, header.hash, encode_header(header)))
            run_many("INSERT INTO tx VALUES (?,?,?,?,?,?,?,?,?)", (_transaction_row(each) for each in transactions))
            run_many("INSERT INTO log VALUES (?,?,?,?,?,?,?,?,?,?)", (_log_row(each) for each in logs))
            run("COMMIT")
        except sqlite3.Error:
            if self._sql.in_transaction:
                run("ROLLBACK")
            raise

    def head(self) -> LondonBlockHeader | None:
        """Header of the last block, or None in a fresh file."""
        return self._header("SELECT header FROM block ORDER BY number DESC LIMIT 1", ())

    def header(self, number: int) -> LondonBlockHeader | None:
        """Header of block `number`, if there is one."""
        return self._header("SELECT header FROM block WHERE number=?", (number,)) if number < 2**63 else None

    def header_by_hash(self, block_hash: bytes) -> LondonBlockHeader | None:
        """Header of the block of that hash, if there is one."""
        return self._header("SELECT header FROM block WHERE hash=?", (block_hash,))

    def _header(self, query: str, values: tuple[Any, ...]) -> LondonBlockHeader | None:
        row = self._sql.execute(query, values).fetchone()
        return rlp.decode(row[0], LondonBlockHeader) if row else None

    def block_hash(self, number: int) -> bytes:
        """Hash of block `number`, which must exist."""
        return bytes(self._sql.execute("SELECT hash FROM block WHERE number=?", (number,)).fetchone()[0])

    def hashes_down_from(self, number: int) -> Iterator[bytes]:
        """Hashes of the blocks number, number - 1, ... 0, read as they are asked for."""
        return (self.block_hash(each) for each in range(number, -1, -1))

    def transaction(self, transaction_hash: bytes) -> StoredTransaction | None:
        """A transaction of a sealed block, if there is one of that hash."""
        row = self._sql.execute("SELECT * FROM tx WHERE hash=?", (transaction_hash,)).fetchone()
        return _transaction(row) if row else None

    def transactions(self, block: int) -> list[StoredTransaction]:
        """All transactions of a block, in order."""
        return [_transaction(row) for row in self._sql.execute("SELECT * FROM tx WHERE block=? ORDER BY position", (block,))]

    def logs_of(self, transaction: StoredTransaction) -> list[StoredLog]:
        """All events of one transaction, in order."""
        query = "SELECT * FROM log WHERE block=? AND tx_position=? ORDER BY position"
        return [_log(row) for row in self._sql.execute(query, (transaction.block, transaction.position))]

    def logs(
        self, first: int, last: int, addresses: Sequence[bytes], topics: Sequence[Sequence[bytes]], limit: int
    ) -> list[StoredLog]:
        """Events of blocks first..last, in order, at most `limit`.

        Args:
          addresses: any of these contracts; empty for all.
          topics: at most four; for each position any of these values, empty for all.
        """
        wanted = [("address", addresses), *((f"topic{position}", values) for position, values in enumerate(topics))]
        clauses = [f"{column} IN ({','.join('?' * len(values))})" for column, values in wanted if values]
        query = " AND ".join(["SELECT * FROM log WHERE block BETWEEN ? AND ?", *clauses]) + " ORDER BY block, position LIMIT ?"
        return [_log(row) for row in self._sql.execute(query, (first, last, *(v for _, values in wanted for v in values), limit))]


def encode_header(header: LondonBlockHeader) -> bytes:
    """RLP of a header, the bytes its hash is of."""
    return bytes(rlp.encode(header))


def _transaction_row(each: StoredTransaction) -> tuple[Any, ...]:
    outcome = (each.status, each.gas_used, each.cumulative_gas, each.contract)
    return (each.hash, each.block, each.position, each.raw, each.sender, *outcome)


def _transaction(row: tuple[Any, ...]) -> StoredTransaction:
    names = ("hash", "block", "position", "raw", "sender", "status", "gas_used", "cumulative_gas", "contract")
    return StoredTransaction(**dict(zip(names, row, strict=True)))


def _log_row(each: StoredLog) -> tuple[Any, ...]:
    topics = (*each.topics, None, None, None, None)[:4]
    return (each.block, each.position, each.transaction, each.transaction_position, each.address, *topics, each.data)


def _log(row: tuple[Any, ...]) -> StoredLog:
    topics = tuple(topic for topic in row[5:9] if topic is not None)
    return StoredLog(
        block=row[0], position=row[1], transaction=row[2], transaction_position=row[3], address=row[4], topics=topics, data=row[9]
    )
