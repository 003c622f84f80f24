"""A chain executed again, from nothing but its headers and signed transactions.

Nobody can make another site's transaction without its key, and no result can be other than what the transactions do: a chain
that comes out the same, header hash by header hash, is what its transactions made of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import rlp
from eth.vm.forks.london.blocks import LondonBlockHeader
from eth_utils.crypto import keccak

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger.chain import Chain
from bahefl_flwr.ledger.database import ChainDatabase, encode_header

_MAX_LOGS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBlock:
    """What a block cannot be computed from the others: its header, and its signed transactions in order."""

    header: bytes
    transactions: tuple[bytes, ...]


def recorded_blocks(database: ChainDatabase) -> Iterator[RecordedBlock]:
    """All blocks of a chain, from the first.

    Raises:
      LedgerError: a block is missing.
    """
    head = database.head()
    for number in range(head.block_number + 1 if head else 0):
        header = database.header(number)
        if header is None:
            raise LedgerError(f"block {number} is missing from the ledger's file, though later ones are there")
        raw = tuple(each.raw for each in database.transactions(number))
        yield RecordedBlock(header=encode_header(header), transactions=raw)


def rebuild(blocks: Iterable[RecordedBlock], into: ChainDatabase, chain_id: int) -> Chain:
    """Execute a chain again, into an empty database.

    Raises:
      LedgerError: naming the first block that does not come out as its header says, and why.
    """
    now = [0]
    chain: Chain | None = None
    for number, block in enumerate(blocks):
        header = _decoded(block.header, number)
        now[0] = header.timestamp
        if chain is None:
            chain = Chain(into, chain_id, clock=lambda: now[0])
        else:
            _execute(chain, block.transactions, number)
        if chain.head.hash != header.hash:
            raise LedgerError(f"block {number} does not come out as its header says: {_differences(header, chain.head)}")
    if chain is None:
        raise LedgerError("the chain has no block")
    return chain


def compare(database: ChainDatabase, again: ChainDatabase) -> list[str]:
    """What the file's tables of blocks, transactions and events say that the rebuilt chain does not, a line a block."""
    head = again.head()
    wrong = []
    for number in range(head.block_number + 1 if head else 0):
        for what, stored, true in (
            ("hash", database.block_hash(number), again.block_hash(number)),
            ("transactions", database.transactions(number), again.transactions(number)),
            ("events", _events(database, number), _events(again, number)),
        ):
            if stored != true:
                wrong.append(f"block {number}: the stored {what} are not what its transactions made")
    return wrong


def altered_nodes(path: Path) -> int:
    """How many state nodes in a database file have another content than their name, which is their hash."""
    try:
        with closing(sqlite3.connect(path)) as sql:
            return sum(keccak(value) != key for key, value in sql.execute("SELECT key, value FROM node"))
    except sqlite3.Error as error:
        raise LedgerError(f"{path} is no ledger database: {error}") from error


def chain_id_of(path: Path) -> int:
    """The chain id a database file was made for.

    Raises:
      LedgerError: the file is not a ledger database.
    """
    try:
        with closing(sqlite3.connect(path)) as sql:
            return int(sql.execute("SELECT id FROM chain").fetchone()[0])
    except (sqlite3.Error, TypeError) as error:
        raise LedgerError(f"{path} is no ledger database: {error}") from error


def _execute(chain: Chain, transactions: Sequence[bytes], number: int) -> None:
    if not transactions:
        raise LedgerError(f"block {number} has no transactions; the embedded ledger makes no empty blocks")
    for position, raw in enumerate(transactions):
        try:
            chain.send(raw)
        except LedgerError as error:
            raise LedgerError(f"block {number}, transaction {position} cannot be executed: {error}") from error
    chain.seal()


def _decoded(header: bytes, number: int) -> LondonBlockHeader:
    try:
        return cast("LondonBlockHeader", rlp.decode(header, LondonBlockHeader))
    except (rlp.exceptions.RLPException, TypeError, ValueError) as error:
        raise LedgerError(f"the header of block {number} is no London header: {error}") from error


def _differences(stated: LondonBlockHeader, came_out: LondonBlockHeader) -> str:
    names = (
        "parent_hash", "block_number", "timestamp", "transaction_root", "receipt_root", "state_root", "gas_used", "bloom",
        "gas_limit", "coinbase", "extra_data", "base_fee_per_gas",
    )  # fmt: skip
    wrong = [name for name in names if getattr(stated, name) != getattr(came_out, name)]
    return ", ".join(wrong) or "another field"


def _events(database: ChainDatabase, number: int) -> list[object]:
    return list(database.logs(number, number, [], [], _MAX_LOGS))
