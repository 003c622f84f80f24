"""JSON-RPC 2.0 over the embedded chain: request bytes in, reply bytes out, whatever the bytes are.

The methods are those web3.py needs. Sockets, processes and the timing of blocks are elsewhere.
"""

from __future__ import annotations

import json
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from eth.vm.forks.london.blocks import LondonBlockHeader
from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_typing import Address

from bahefl_flwr.errors import LedgerError
from bahefl_flwr.ledger.admission import decode_transaction
from bahefl_flwr.ledger.chain import Chain
from bahefl_flwr.ledger.database import StoredTransaction, encode_header
from bahefl_flwr.ledger.evm import GAS_LIMIT, Call, Outcome
from bahefl_flwr.ledger.formats import (
    InvalidParams,
    Json,
    block_json,
    hexed,
    log_json,
    pending_block_json,
    receipt_json,
    to_data,
    to_quantity,
    transaction_json,
)

MAX_BATCH = 500
MAX_BRACKETS = 10_000
"""Most lists and objects in one body: bounds the nesting, which the C parser would follow until its stack overflows."""
MAX_LOGS = 10_000
MAX_FILTER_VALUES = 256
CLIENT_VERSION = "bahefl-ledger/1 (py-evm, london)"

_PARSE_ERROR, _INVALID_REQUEST, _NO_METHOD, _INVALID_PARAMS, _INTERNAL, _SERVER, _REVERTED = (
    -32700,
    -32600,
    -32601,
    -32602,
    -32603,
    -32000,
    3,
)
_REASON_SELECTOR = bytes.fromhex("08c379a0")  # Error(string)
_RECEIPT_WAIT_S = 1.0


class _Refused(Exception):
    """Ends a request with a JSON-RPC error object."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.error: Json = {"code": code, "message": message, **({} if data is None else {"data": data})}


class Rpc:
    """Answers JSON-RPC requests, one at a time.

    Args:
      chain: what to ask.
      changed: guards `chain`; notified when a block is opened or sealed.
    """

    def __init__(self, chain: Chain, changed: threading.Condition) -> None:
        self._chain = chain
        self._changed = changed
        # name: (method, fewest and most parameters)
        self._methods: dict[str, tuple[Callable[..., Any], int, int]] = {
            "web3_clientVersion": (lambda: CLIENT_VERSION, 0, 0),
            "net_version": (lambda: str(chain.chain_id), 0, 0),
            "eth_chainId": (lambda: hex(chain.chain_id), 0, 0),
            "eth_blockNumber": (lambda: hex(chain.head.block_number), 0, 0),
            "eth_gasPrice": (lambda: "0x0", 0, 0),
            "eth_maxPriorityFeePerGas": (lambda: "0x0", 0, 0),
            "eth_feeHistory": (self._fee_history, 2, 3),
            "eth_getTransactionCount": (self._nonce, 1, 2),
            "eth_getBalance": (self._balance, 1, 2),
            "eth_getCode": (self._code, 1, 2),
            "eth_getStorageAt": (self._storage, 2, 3),
            "eth_sendRawTransaction": (self._send, 1, 1),
            "eth_getTransactionReceipt": (self._receipt, 1, 1),
            "eth_getTransactionByHash": (self._transaction, 1, 1),
            "eth_call": (self._call, 1, 2),
            "eth_estimateGas": (self._estimate, 1, 2),
            "eth_getBlockByNumber": (self._block, 1, 2),
            "eth_getBlockByHash": (self._block_by_hash, 1, 2),
            "eth_getLogs": (self._logs, 1, 1),
        }

    # The envelope

    def handle(self, body: bytes) -> bytes:
        """Answer one request or a batch. Never raises: whatever is wrong becomes a JSON-RPC error object."""
        try:
            request = _parse(body)
        except (ValueError, RecursionError) as error:
            return _encoded(_failure(None, {"code": _PARSE_ERROR, "message": f"the request is not JSON: {str(error)[:200]}"}))
        if not isinstance(request, list):
            return _encoded(self._answer(request))
        if not 0 < len(request) <= MAX_BATCH:
            message = f"a batch has 1 to {MAX_BATCH} requests, got {len(request)}"
            return _encoded(_failure(None, {"code": _INVALID_REQUEST, "message": message}))
        return _encoded([self._answer(each) for each in request])

    def _answer(self, request: object) -> Json:
        try:
            method, parameters, request_id = self._parsed(request)
        except _Refused as refused:
            return _failure(None, refused.error)
        try:
            with self._changed:
                return {"jsonrpc": "2.0", "id": request_id, "result": method(*parameters)}
        except _Refused as refused:
            return _failure(request_id, refused.error)
        except InvalidParams as error:
            return _failure(request_id, {"code": _INVALID_PARAMS, "message": str(error)})
        except LedgerError as error:
            return _failure(request_id, {"code": _SERVER, "message": str(error)})
        except Exception as error:  # noqa: BLE001  # A fault of ours must cost one answer, not the node.
            traceback.print_exc(file=sys.stderr)
            return _failure(request_id, {"code": _INTERNAL, "message": f"internal error: {type(error).__name__}"})

    def _parsed(self, request: object) -> tuple[Callable[..., Any], list[Any], int | str | None]:
        if not isinstance(request, dict) or request.get("jsonrpc") != "2.0" or not isinstance(request.get("method"), str):
            raise _Refused(_INVALID_REQUEST, 'a request is an object with jsonrpc "2.0", id, method and params')
        request_id, parameters = request.get("id"), request.get("params", [])
        if "id" not in request or isinstance(request_id, bool) or not isinstance(request_id, int | str | None):
            raise _Refused(_INVALID_REQUEST, "the id must be a number, a string or null")
        if request["method"] not in self._methods:
            return self._missing(request["method"]), [], request_id
        method, fewest, most = self._methods[request["method"]]
        if not isinstance(parameters, list) or not fewest <= len(parameters) <= most:
            return self._misused(request["method"], fewest, most), [], request_id
        return method, parameters, request_id

    def _missing(self, name: str) -> Callable[[], Any]:
        def refuse() -> Any:
            raise _Refused(_NO_METHOD, f"the method {name[:80]} does not exist or is not available")

        return refuse

    def _misused(self, name: str, fewest: int, most: int) -> Callable[[], Any]:
        def refuse() -> Any:
            raise InvalidParams(f"{name} takes a list of {fewest} to {most} parameters")

        return refuse

    # Blocks and accounts

    def _header(self, tag: object) -> LondonBlockHeader | None:
        """The header a block tag names; None for "pending"."""
        if tag == "pending":
            return None
        if tag in ("latest", "safe", "finalized"):
            return self._chain.head
        if isinstance(tag, dict):
            return self._named_header(tag)
        number = 0 if tag == "earliest" else to_quantity(tag)
        header = self._chain.database.header(number)
        if header is None:
            raise _Refused(_SERVER, f"block {number} does not exist; the head is block {self._chain.head.block_number}")
        return header

    def _named_header(self, tag: Json) -> LondonBlockHeader | None:
        if "blockHash" not in tag:
            return self._header(tag.get("blockNumber"))
        header = self._chain.database.header_by_hash(to_data(tag["blockHash"], 32))
        if header is None:
            raise _Refused(_SERVER, f"no block has the hash {tag['blockHash']}")
        return header

    def _fee_history(self, count: object, newest: object, percentiles: object = None) -> Json:
        last = self._header(newest) or self._chain.head
        wanted = min(to_quantity(count) if isinstance(count, str) else _small_int(count), 1024, last.block_number + 1)
        percentiles = percentiles or []
        if not isinstance(percentiles, list) or len(percentiles) > 100:
            raise InvalidParams("reward percentiles must be a list of at most 100 numbers")
        headers = [self._chain.database.header(number) for number in range(last.block_number - wanted + 1, last.block_number + 1)]
        return {
            "oldestBlock": hex(last.block_number - wanted + 1),
            "baseFeePerGas": ["0x0"] * (wanted + 1),
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers if header],
            **({"reward": [["0x0"] * len(percentiles)] * wanted} if percentiles else {}),
        }

    def _nonce(self, address: object, tag: object = "latest") -> str:
        return hex(self._chain.state_at(self._header(tag)).get_nonce(_address(address)))

    def _balance(self, address: object, tag: object = "latest") -> str:
        return hex(self._chain.state_at(self._header(tag)).get_balance(_address(address)))

    def _code(self, address: object, tag: object = "latest") -> str | None:
        return hexed(self._chain.state_at(self._header(tag)).get_code(_address(address)))

    def _storage(self, address: object, slot: object, tag: object = "latest") -> str:
        return f"0x{self._chain.state_at(self._header(tag)).get_storage(_address(address), to_quantity(slot)):064x}"

    def _block(self, tag: object, full: object = False) -> Json | None:
        if tag == "pending":
            waiting = [self._listed(each, None, full) for each in self._chain.pending_transactions()]
            return pending_block_json(self._chain.pending_header(), waiting)
        try:
            header = self._header(tag)
        except _Refused:
            return None
        return self._block_of(header, full)

    def _block_by_hash(self, block_hash: object, full: object = False) -> Json | None:
        return self._block_of(self._chain.database.header_by_hash(to_data(block_hash, 32)), full)

    def _block_of(self, header: LondonBlockHeader | None, full: object) -> Json | None:
        if header is None:
            return None
        stored = self._chain.database.transactions(header.block_number)
        size = len(encode_header(header)) + sum(len(each.raw) for each in stored)
        return block_json(header, [self._listed(each, header.hash, full) for each in stored], size)

    def _listed(self, stored: StoredTransaction, block_hash: bytes | None, full: object) -> Any:
        return transaction_json(decode_transaction(stored.raw), stored, block_hash) if full is True else hexed(stored.hash)

    # Transactions and calls

    def _send(self, raw: object) -> str | None:
        transaction_hash = self._chain.send(to_data(raw))
        self._changed.notify_all()
        return hexed(transaction_hash)

    def _receipt(self, transaction_hash: object) -> Json | None:
        wanted = to_data(transaction_hash, 32)
        # A pending transaction is sealed within milliseconds: waiting for it here saves the caller a round of polling.
        self._changed.wait_for(lambda: not self._chain.is_pending(wanted), timeout=_RECEIPT_WAIT_S)
        stored = self._chain.database.transaction(wanted)
        if stored is None:
            return None
        database = self._chain.database
        return receipt_json(decode_transaction(stored.raw), stored, database.logs_of(stored), database.block_hash(stored.block))

    def _transaction(self, transaction_hash: object) -> Json | None:
        wanted = to_data(transaction_hash, 32)
        waiting = self._chain.pending(wanted)
        if waiting:
            return transaction_json(decode_transaction(waiting.raw), waiting, None)
        stored = self._chain.database.transaction(wanted)
        if stored is None:
            return None
        return transaction_json(decode_transaction(stored.raw), stored, self._chain.database.block_hash(stored.block))

    def _call(self, message: object, tag: object = "latest") -> str | None:
        # "latest" is what decides what a site does: sealed state only (a kill would lose an open block), at the present time.
        header = self._chain.present_header() if tag == "latest" else self._header(tag)
        return hexed(_accepted(self._chain.call(self._message(message), header)).output)

    def _estimate(self, message: object, tag: object = "pending") -> str:
        return hex(_accepted(self._chain.estimate(self._message(message), self._header(tag))).gas_used)

    def _message(self, message: object) -> Call:
        if not isinstance(message, dict):
            raise InvalidParams("the message of a call must be an object")
        given = {name: value for name, value in message.items() if value is not None}
        if given.get("accessList"):
            raise InvalidParams("calls with an access list are not supported; leave it out")
        if "chainId" in given and to_quantity(given["chainId"]) != self._chain.chain_id:
            raise InvalidParams(f"the message is for chain {to_quantity(given['chainId'])}, this is chain {self._chain.chain_id}")
        if "data" in given and "input" in given and given["data"] != given["input"]:
            raise InvalidParams('"data" and "input" differ; give one of them')
        return Call(
            sender=_address(given.get("from", "0x" + "00" * 20)),
            to=_address(given["to"]) if given.get("to", "0x") != "0x" else Address(b""),
            data=to_data(given.get("input", given.get("data", "0x"))),
            value=to_quantity(given.get("value", "0x0")),
            gas=min(to_quantity(given["gas"]), GAS_LIMIT) if "gas" in given else GAS_LIMIT,
        )

    # Logs

    def _logs(self, query: object) -> list[Json]:
        if not isinstance(query, dict):
            raise InvalidParams("a log filter must be an object")
        first, last = self._range(query)
        found = self._chain.database.logs(
            first, last, _any_of(query.get("address"), 20), _topics(query.get("topics")), MAX_LOGS + 1
        )
        if len(found) > MAX_LOGS:
            raise _Refused(_SERVER, f"more than {MAX_LOGS} logs match; narrow the block range")
        hashes = {number: self._chain.database.block_hash(number) for number in {log.block for log in found}}
        return [log_json(log, hashes[log.block]) for log in found]

    def _range(self, query: Json) -> tuple[int, int]:
        head = self._chain.head.block_number
        if query.get("blockHash") is not None:
            header = self._named_header(query) or self._chain.head
            return header.block_number, header.block_number
        first, last = (head if query.get(end) is None else self._end(query[end]) for end in ("fromBlock", "toBlock"))
        return min(first, head + 1), min(last, head)

    def _end(self, tag: object) -> int:
        return (
            to_quantity(tag)
            if isinstance(tag, str) and tag.startswith("0x")
            else (self._header(tag) or self._chain.head).block_number
        )


def _parse(body: bytes) -> Any:
    # py-evm raises Python's recursion limit, which is all that guards the C parser: 100,000 brackets crash the process otherwise.
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise ValueError(f"more than {MAX_BRACKETS} lists and objects")
    return json.loads(body, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _failure(request_id: int | str | None, error: Json) -> Json:
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def _encoded(reply: object) -> bytes:
    return json.dumps(reply, separators=(",", ":")).encode("ascii")


def _address(value: object) -> Address:
    return Address(to_data(value, 20))


def _small_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise InvalidParams("the block count must be a quantity")
    return value


def _any_of(values: object, size: int) -> list[bytes]:
    if values is None:
        return []
    values = values if isinstance(values, list) else [values]
    if len(values) > MAX_FILTER_VALUES:
        raise InvalidParams(f"a filter names at most {MAX_FILTER_VALUES} values, got {len(values)}")
    return [to_data(value, size) for value in values]


def _topics(topics: object) -> list[list[bytes]]:
    if topics is None:
        return []
    if not isinstance(topics, list) or len(topics) > 4:
        raise InvalidParams("topics must be a list of at most four")
    return [_any_of(choices, 32) for choices in topics]


def _accepted(outcome: Outcome) -> Outcome:
    """The outcome of a call that succeeded; a failed one becomes geth's error, revert data included."""
    if not outcome.error:
        return outcome
    if outcome.error != "execution reverted":
        raise _Refused(_SERVER, outcome.error)
    reason = _reason(outcome.output)
    raise _Refused(_REVERTED, "execution reverted" + (f": {reason}" if reason else ""), hexed(outcome.output))


def _reason(data: bytes) -> str:
    if data[:4] != _REASON_SELECTOR:
        return ""
    try:
        return str(abi_decode(["string"], data[4:])[0])[:1000]
    except (DecodingError, UnicodeDecodeError):
        return ""
