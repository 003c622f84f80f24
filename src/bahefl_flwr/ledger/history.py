"""What happened on a FederationLedger, for auditors: its events in order, the calls that caused them, and its views at will.

Over any connection, and in process over a database file. Nothing here judges what it reads.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak
from web3.exceptions import Web3Exception, Web3RPCError
from web3.providers.base import JSONBaseProvider
from web3.types import EventData, RPCEndpoint, RPCResponse

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger.chain import Chain
from bahefl_flwr.ledger.connection import Connection, signature
from bahefl_flwr.ledger.deployment import artifact
from bahefl_flwr.ledger.readings import Reading, named
from bahefl_flwr.ledger.rpc import Rpc

_BLOCKS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The transaction that caused an event: who sent it, and the function it called ("" if it was another contract's)."""

    hash: str
    sender: str
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of the contract.

    Attributes:
      name: as in the ABI. values: its arguments by name; addresses checksummed, digests as bytes.
      block: number. position: within the block. time: the block's, in chain seconds. parent: hash of the block before.
    """

    name: str
    values: Mapping[str, Any]
    block: int
    position: int
    time: int
    parent: bytes
    sent: Sent


class History:
    """One contract's past.

    Args:
      connection: to a node, or `in_process`. address: of the contract, checksummed.
    """

    def __init__(self, connection: Connection, address: str) -> None:
        self._connection, self.address = connection, address
        self._web3 = connection.web3
        self._contract = self._web3.eth.contract(address=connection.web3.to_checksum_address(address), abi=artifact()["abi"])
        self._outputs = {e["name"]: e["outputs"] for e in artifact()["abi"] if e["type"] == "function"}
        self._topics = {keccak(text=signature(e)): str(e["name"]) for e in artifact()["abi"] if e["type"] == "event"}
        self._blocks: dict[int, tuple[int, bytes]] = {}
        self._sent: dict[str, Sent] = {}

    def head(self) -> tuple[int, str]:
        """Number and hash of the newest block."""
        return newest_block(self._connection)

    def reading(self, view: str, *arguments: object, block: int | None = None) -> Reading:
        """What a view that returns one tuple says, by component name."""
        return named(self._outputs[view][0]["components"], self.value(view, *arguments, block=block))

    def readings(self, view: str, *arguments: object) -> list[Reading]:
        """What a view that returns a list of tuples says."""
        return [named(self._outputs[view][0]["components"], entry) for entry in self.value(view, *arguments)]

    def config(self, block: int) -> Reading:
        """The contract's settings after a block; those of the newest block from a node that forgets older states."""
        output = self._outputs["config"]
        names = [entry["name"] for entry in output[0].get("components", output)]
        try:
            return dict(zip(names, self.value("config", block=block), strict=True))
        except LedgerError:
            return dict(zip(names, self.value("config"), strict=True))

    def value(self, view: str, *arguments: object, block: int | None = None) -> Any:
        """What a view returns, at the newest block or at an earlier one."""
        return self._connection.call(self._contract.functions[view](*arguments), "latest" if block is None else block)

    def events(self, since: int = 0, name: str = "") -> tuple[Event, ...]:
        """Every event of the contract, in order.

        Args:
          since: chain seconds; earlier blocks are left out. name: of the only events to ask for; empty for all.

        Raises:
          LedgerUnreachable: no answer. LedgerError: an event that is not one of this contract's.
        """
        last, _ = self.head()
        first = bisect_left(range(last + 1), since, key=lambda number: self._block(number)[0]) if since else 0
        topics = [{known: topic for topic, known in self._topics.items()}[name]] if name else []
        return tuple(self._event(log) for log in self._logs(first, last, topics))

    def words(self) -> frozenset[bytes]:
        """Every 32-byte word of the contract's events and of the calls that caused them: all digests that it ever named.

        And more, but none can be forgotten: nothing here knows an event by its name.
        """
        found: set[bytes] = set()
        calls: set[str] = set()
        for log in self._logs(0, self.head()[0]):
            found.update(bytes(topic) for topic in log["topics"])
            found.update(_words(bytes(log["data"])))
            calls.add(log["transactionHash"].to_0x_hex())
        for digest in calls:
            found.update(_words(self._input(digest)[4:]))
        return frozenset(found)

    def _input(self, digest: str) -> bytes:
        return bytes(self._connection.read(lambda: self._web3.eth.get_transaction(digest))["input"])  # type: ignore[arg-type]

    def _logs(self, first: int, last: int, topics: Sequence[bytes] = ()) -> Iterator[Mapping[str, Any]]:
        width = _BLOCKS_AT_ONCE
        while first <= last:
            try:
                found = self._between(first, min(first + width - 1, last), topics)
            except Web3RPCError as error:
                # Nodes bound how much they answer at once, each differently.
                if width == 1:
                    raise LedgerError(f"{self._connection.url} does not give the events of block {first}: {error}") from error
                width //= 2
                continue
            yield from found
            first += width

    def _between(self, first: int, last: int, topics: Sequence[bytes]) -> list[Any]:
        wanted: Any = {"address": self._contract.address, "fromBlock": first, "toBlock": last, "topics": list(topics)}
        return list(self._connection.read(lambda: self._web3.eth.get_logs(wanted)))

    def _event(self, log: Mapping[str, Any]) -> Event:
        decoded = self._decoded(log)
        block, digest = int(log["blockNumber"]), log["transactionHash"].to_0x_hex()
        time, parent = self._block(block)
        return Event(
            name=decoded["event"], values=dict(decoded["args"]), block=block, position=int(log["logIndex"]),
            time=time, parent=parent, sent=self._transaction(digest),
        )  # fmt: skip

    def _decoded(self, log: Mapping[str, Any]) -> EventData:
        try:
            event = self._contract.events[self._topics[bytes(log["topics"][0])]]()
            return cast("EventData", event.process_log(log))
        except (Web3Exception, DecodingError, IndexError, KeyError, ValueError) as error:
            where = f"block {log['blockNumber']}, position {log['logIndex']}"
            raise LedgerError(f"an event ({where}) is none of this version's FederationLedger: {error}") from error

    def _block(self, number: int) -> tuple[int, bytes]:
        if number not in self._blocks:
            found = self._connection.read(lambda: self._web3.eth.get_block(number))
            self._blocks[number] = int(found["timestamp"]), bytes(found["parentHash"])
        return self._blocks[number]

    def _transaction(self, digest: str) -> Sent:
        if digest not in self._sent:
            found = self._connection.read(lambda: self._web3.eth.get_transaction(digest))  # type: ignore[arg-type]
            self._sent[digest] = Sent(hash=digest, sender=str(found["from"]), function=self._function(found))
        return self._sent[digest]

    def _function(self, transaction: Mapping[str, Any]) -> str:
        if transaction.get("to") is None:
            return "constructor"
        if transaction["to"] != self._contract.address:
            return ""
        try:
            return str(self._contract.get_function_by_selector(bytes(transaction["input"])[:4]).fn_name)
        except (Web3Exception, ValueError):
            return ""


def _words(data: bytes) -> Iterator[bytes]:
    return (data[i : i + 32] for i in range(0, len(data) - 31, 32))


def newest_block(connection: Connection) -> tuple[int, str]:
    """Number and hash of a chain's newest block."""
    block = connection.read(lambda: connection.web3.eth.get_block("latest"))
    return int(block["number"]), block["hash"].to_0x_hex()


def in_process(chain: Chain) -> Connection:
    """A connection to a chain in this process: the node's own JSON-RPC, without a server."""
    connection = Connection("in-process", chain.chain_id)
    connection.web3.provider = _InProcess(Rpc(chain, threading.Condition(threading.RLock())))
    return connection


class _InProcess(JSONBaseProvider):
    def __init__(self, rpc: Rpc) -> None:
        super().__init__()
        self._rpc = rpc

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        return self.decode_rpc_response(self._rpc.handle(self.encode_rpc_request(method, params)))
